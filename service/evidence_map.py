"""The picture of what spoke for the best class and against the next one, and its numbers."""

import base64
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from diffusion.cell_classifier import Looked
from diffusion.evidence import (
    SHAPE_STRUCTURE_TEXTURE,
    evidence_maps,
    evidence_picture,
    kept_by_cap,
    picture_scale,
)
from diffusion.latents import latents_from_images, png_bytes
from diffusion.racing import RaceResult
from diffusion.verdict import Verdict
from diffusion.weighting import WEIGHTINGS, LearnedWeighting
from service.model import Model
from service.schemas import ClassificationOptions, Cost, EvidenceBand, EvidenceMap

BAND_NAMES = ("shape", "structure", "texture")


def evidence_map(
    model: Model,
    pixels: NDArray[np.uint8],
    verdict: Verdict,
    looked: Looked,
    options: ClassificationOptions,
    max_blocks: int,
) -> tuple[EvidenceMap, Cost]:
    """Where the odds of a verdict's best class over its runner-up come from, and what that took.

    Of a pair that raced, it repeats the blocks that both took part in; of another, the budget.

    Args:
        model: the one that gave the verdict.
        pixels: what it saw. uint8 (H, W, 3)
        verdict: on these pixels.
        looked: what it rests on.
        options: those of the verdict.
        max_blocks: the budget.
    """
    classifier, settings = model.classifier, model.settings
    best, rival = map(model.class_names.index, (verdict.best_class, verdict.runner_up))
    weighting = settings.weighting_function
    if options.weighting is not None:
        weighting = WEIGHTINGS[options.weighting]
    races = looked.races
    race = races[0] if races is not None and {best, rival} <= set(races[0].class_labels) else None
    n_blocks, kept = max_blocks, None
    if race is not None:
        n_blocks = _blocks_of_pair(race, best, rival)
    plan = settings.draw_plan.model_copy(update={"n_blocks": n_blocks})
    if isinstance(weighting, LearnedWeighting) and weighting.cap is not None:
        if race is None:
            weighting = weighting.model_copy(update={"cap": None})
        else:
            columns = [[race.class_labels.index(label)] for label in (best, rival)]
            n_draws = plan.n_draws
            errors, log_snr = race.errors[None, :n_draws], race.log_snr[None, :n_draws]
            kept = kept_by_cap(errors, log_snr, plan, weighting, *columns)
    latents = latents_from_images(pixels[None]).to(model.checkpoint.device)
    found = evidence_maps(
        classifier.split,
        classifier.prepared(latents),
        [verdict.image_digest],
        [best],
        [rival],
        plan,
        weighting=weighting,
        kept=kept,
        seed=options.seed,
    )
    total = found.total[0]
    errors_of_total = None if found.standard_errors is None else found.standard_errors[0]
    error = found.log_odds_standard_errors
    flops = classifier.flops
    answer = EvidenceMap(
        class_name=verdict.best_class,
        rival_class_name=verdict.runner_up,
        log_odds=found.log_odds[0].item(),
        log_odds_standard_error=None if error is None else error[0].item(),
        bands=_bands(found.bands[0].sum(dim=(1, 2)).tolist()),
        n_blocks=n_blocks,
        full_colour=picture_scale(total, errors_of_total),
        png_base64=base64.b64encode(
            png_bytes(evidence_picture(pixels, total, errors_of_total))
        ).decode(),
    )
    cost = Cost(
        trunk_passes=plan.n_draws,
        class_passes=2 * plan.n_draws,
        gflop=plan.n_draws * (flops.trunk + 2 * flops.decoder) / 1e9,
    )
    return answer, cost


def _blocks_of_pair(race: RaceResult, best: int, rival: int) -> int:
    """Blocks in which both classes took part: the first ones, as none comes back."""
    columns = [race.class_labels.index(label) for label in (best, rival)]
    n_draws = int((~race.errors[:, columns].isnan()).all(dim=1).sum())
    return n_draws * race.n_blocks // len(race.errors)


def _bands(log_odds: list[float]) -> list[EvidenceBand]:
    limits = pairwise([None, *SHAPE_STRUCTURE_TEXTURE, None])
    return [
        EvidenceBand(name=name, log_snr_min=low, log_snr_max=high, log_odds=of_band)
        for name, (low, high), of_band in zip(BAND_NAMES, limits, log_odds, strict=True)
    ]
