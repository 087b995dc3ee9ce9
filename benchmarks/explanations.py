"""Do evidence maps and counterfactuals say what the classifier goes by? Measured, and a sheet.

    D=../shared/data/pbc64
    python benchmarks/explanations.py --checkpoint checkpoints/pbc64 --data $D/val \
      --judge runs/cnn --attributes $D/wbcatt_attributes.csv

Of each cell the fused verdict is explained against its runner-up, in generative evidence.

    completeness       distance of a map's sum from the log-odds that the generative race reported,
                       on the race's own draws, in weighted nats and as a share of their size
    counterfactuals    the smallest edit that the fused verdict takes for the runner-up: share
                       found, identity edit, size, way back, and validity by the fused verdict
                       under new noise and by an independent network; on other cells than those
                       that the edits were developed on (the first 64, which `--skip` leaves out)
    deletion/insertion mean distance of the curve by evidence from that of the same map laid
                       elsewhere, as a share of the whole change; 0 is chance
    randomisation      rank correlation of a map with that of shuffled weights, beside that of two
                       maps by different noise
    pointing           on drawn cells the same seed in two classes tells where they truly differ
    red granules       on eosinophils that WBCAtt's pathologists gave red granules, the share of
                       positive evidence for eosinophil over neutrophil that lies on red granules,
                       minus their share of the area: in the picture, and within the cell, where
                       finding the cell does not help

A pixel counts as red granule if, in densities over the smear's ground, green is at least 0.5 and
red at most 0.65 and at most 0.75 of green: nuclei are denser in red, red cells paler in green. A
cell is the largest patch with a green density of at least 0.45, its holes filled. Both were chosen
by eye on training cells.
"""

import csv
import json
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from rich.console import Console
from rich.table import Table
from scipy import ndimage
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

from classifier import balanced
from plain_cnn import load_judge

from diffusion.cell_classifier import CellClassifier
from diffusion.checkpoint import HEADER_FILE, load_checkpoint
from diffusion.classifier import paired_class_errors
from diffusion.counterfactual import (
    GUIDANCE,
    Classify,
    Counterfactual,
    EditPlan,
    change,
    counterfactuals,
    cycle_errors,
    guided,
)
from diffusion.draws import DrawPlan, keyed_draws, log_density
from diffusion.evidence import (
    EvidenceMaps,
    evidence_maps,
    evidence_picture,
    picture_scale,
)
from diffusion.faithfulness import (
    Score,
    pointing_game,
    rank_correlation,
    removal_curve,
    with_shuffled_weights,
)
from diffusion.latents import image_digest, images_from_latents, latents_from_images
from diffusion.network import CellDenoiser
from diffusion.probability import Row
from diffusion.racing import RaceResult
from diffusion.schedule import sigmas_from_log_snr
from diffusion.weighting import LearnedWeighting, block_log_likelihoods
from studies.proportions import wilson
from training.corruptions import drawn_pair
from training.data import DataError, LabelledImages, batches, read_images
from training.drawing import CLASS_NAMES
from training.progress import Tenths, console, progress_bar

Array = NDArray[np.float64]
N_RESAMPLES = 4000
GREY_VALUES = 127.5
"""Latents run over 2, grey values over 255."""
wide = Console(width=120, highlight=False)


# --- numbers with intervals


def mean(values: Sequence[float] | Array, seed: int = 0) -> dict[str, float]:
    """Mean over cells with a 95 % percentile bootstrap."""
    of_cells = np.asarray(values, np.float64)
    rng = np.random.default_rng(seed)
    drawn = of_cells[rng.integers(len(of_cells), size=(N_RESAMPLES, len(of_cells)))].mean(axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return {
        "estimate": float(of_cells.mean()),
        "ci_low": float(low),
        "ci_high": float(high),
        "n": len(of_cells),
    }


def share(claims: Sequence[bool] | NDArray[np.bool_]) -> dict[str, float]:
    """Share of cells with its Wilson interval."""
    value = wilson(int(np.sum(claims)), len(claims))
    return {
        "estimate": value.estimate,
        "ci_low": value.ci_low,
        "ci_high": value.ci_high,
        "n": value.n_trials,
    }


def _with_progress(description: str, n: int, at_once: int, work: Callable[[slice], None]) -> None:
    tenths = Tenths(description, n)
    with progress_bar() as bar:
        task = bar.add_task(description, total=n)
        for chunk in batches(n, at_once):
            work(chunk)
            bar.update(task, completed=min(chunk.stop, n))
            tenths.at(min(chunk.stop, n))


# --- the cells, and what is to be explained of them


class Explained:
    """Prepared cells of one classifier, each with its most probable class and the runner-up."""

    def __init__(
        self,
        classifier: CellClassifier,
        images: NDArray[np.uint8],
        pair: tuple[int, int] | None = None,
    ) -> None:
        """Look at the cells.

        Args:
            classifier: in float32: rounding to three digits would be all that is measured.
            images: uint8 (n, H, W, 3)
            pair: class and rival of all cells, instead of what the fused verdict finds of each.
        """
        self.classifier = classifier
        self.prepared = classifier.prepared(latents_from_images(images))
        self.digests = tuple(image_digest(image) for image in images)
        self.races: list[RaceResult] = []
        if pair is not None:
            self.classes, self.rivals = ([k] * len(images) for k in pair)
            return
        self.classes, self.rivals = [], []
        verdict = our_probabilities(classifier, "fused", 0)

        def look(chunk: slice) -> None:
            best = verdict(self.prepared[chunk], list(self.digests[chunk])).topk(2, dim=1).indices
            self.classes += best[:, 0].tolist()
            self.rivals += best[:, 1].tolist()
            looked = classifier.look(self.prepared[chunk], self.digests[chunk], row="generative")
            self.races.extend(looked.races or [])

        _with_progress("Racing", len(images), 16, look)

    def __len__(self) -> int:
        return len(self.digests)

    def maps(
        self,
        plan: DrawPlan,
        description: str,
        numbers: Sequence[int],
        *,
        network: CellDenoiser | None = None,
        seed: int = 0,
    ) -> Tensor:
        """Total evidence of some cells. (n, H, W)"""
        parts: list[Tensor] = []
        _with_progress(
            description,
            len(numbers),
            8,
            lambda part: parts.append(self.evidence(numbers[part], plan, network, seed).total),
        )
        return torch.cat(parts)

    def evidence(
        self,
        numbers: Sequence[int],
        plan: DrawPlan,
        network: CellDenoiser | None = None,
        seed: int = 0,
    ) -> EvidenceMaps:
        settings = self.classifier.settings
        split = self.classifier.split
        if network is not None:
            split = network.split(appearance=settings.appearance)
        return evidence_maps(
            split,
            self.prepared[list(numbers)],
            [self.digests[i] for i in numbers],
            [self.classes[i] for i in numbers],
            [self.rivals[i] for i in numbers],
            plan,
            weighting=settings.weighting_function,
            seed=seed,
        )


def map_plan(plan: DrawPlan) -> DrawPlan:
    """The classifier's levels in as many strata and blocks as a picture takes: 64 draws."""
    return plan.model_copy(update={"n_levels": 8, "n_blocks": 4})


# --- completeness


def completeness(cells: Explained) -> dict[str, Any]:
    """How far each map's sum is from the race's own log-odds of best over second."""
    settings = cells.classifier.settings
    plan, weighting = settings.draw_plan, settings.weighting_function
    off, relative, size, n_indirect = [], [], [], 0

    def compare(chunk: slice) -> None:
        nonlocal n_indirect
        for i in range(len(cells))[chunk]:
            race = cells.races[i]
            columns = [race.class_labels.index(k) for k in (cells.classes[i], cells.rivals[i])]
            both = ~race.errors[:, columns].isnan().any(dim=1)
            errors, log_snr = race.errors[both][None, :, columns], race.log_snr[both][None]
            n_blocks = int(both.sum()) // plan.n_draws_in_block
            reported = float(race.scores[columns[0]] - race.scores[columns[1]])
            own = block_log_likelihoods(errors, log_snr, plan, weighting).mean(dim=1)[0]
            # A class that another than the winner beat is placed below that one, not by this pair.
            if abs(float(own[0] - own[1]) - reported) > 1e-6 * max(1.0, abs(reported)):
                n_indirect += 1
                continue
            own_plan = plan.model_copy(update={"n_blocks": n_blocks})
            found = cells.evidence([i], own_plan)
            off.append(abs(float(found.total.sum()) - reported))
            relative.append(off[-1] / abs(reported))
            size.append(abs(reported))

    _with_progress("Completeness", len(cells), 8, compare)
    scale = settings.rows["generative"].posterior.generative_scale or 1.0
    return {
        "max_error": max(off),
        "max_error_in_calibrated_nats": max(off) * scale,
        "max_relative_error": max(relative),
        "log_odds": mean(size),
        "n": len(off),
        "n_runner_up_beaten_by_another": n_indirect,
    }


# --- counterfactuals


def edits(
    cells: Explained, classify: Classify, plan: EditPlan, seed: int
) -> tuple[list[Counterfactual], Tensor]:
    """The smallest edit of each cell into its runner-up, and the errors of the way back."""
    network = cells.classifier.network
    denoise = guided(network.as_denoiser(), network.config.n_classes)
    found: list[Counterfactual] = []
    errors: list[Tensor] = []

    def search(chunk: slice) -> None:
        images, digests = cells.prepared[chunk], cells.digests[chunk]
        of_chunk = counterfactuals(
            denoise,
            images,
            digests,
            cells.classes[chunk],
            cells.rivals[chunk],
            classify,
            plan,
            seed=seed,
        )
        found.extend(of_chunk)
        errors.append(cycle_errors(denoise, images, digests, of_chunk, plan, seed=seed))

    _with_progress("Counterfactuals", len(cells), 8, search)
    return found, torch.cat(errors)


def our_probabilities(classifier: CellClassifier, row: Row, seed: int) -> Classify:
    """The calibrated probabilities of one row, for images that are prepared already."""
    posterior = classifier.settings.rows[row].posterior

    def classify(latents: Tensor, digests: list[str]) -> Tensor:
        looked = classifier.look(latents, digests, row=row, seed=seed)
        return torch.from_numpy(np.exp(posterior.log_probabilities(looked.evidence)))

    return classify


def judges_probabilities(folder: Path, class_names: Sequence[str]) -> Classify:
    """Those of the independent network, in our order of classes."""
    judge = load_judge(folder)
    columns = [judge.facts["class_names"].index(name) for name in class_names]

    def classify(latents: Tensor, digests: list[str]) -> Tensor:
        del digests  # it has no noise to key
        return judge.probabilities(latents)[:, columns]

    return classify


def is_valid(found: Sequence[Counterfactual], classify: Classify) -> list[bool]:
    """Whether another classifier agrees that the edit is of the target; not found is not valid."""
    verdicts: list[int] = []
    for chunk in batches(len(found), 32):
        latents = torch.stack([one.latents for one in found[chunk]])
        names = [f"valid:{i}" for i in range(len(found))[chunk]]
        verdicts += classify(latents, names).argmax(dim=1).tolist()
    return [one.is_found and v == one.target for one, v in zip(found, verdicts, strict=True)]


def missed(found: Sequence[Counterfactual], class_names: Sequence[str]) -> dict[str, int]:
    """Pairs of classes whose edit was not found, with how many cells each."""
    return dict(
        Counter(
            f"{class_names[one.source]} > {class_names[one.target]}"
            for one in found
            if not one.is_found
        )
    )


def of_edits(
    cells: Explained,
    found: Sequence[Counterfactual],
    cycle: Tensor,
    judges: dict[str, Classify],
    plan: EditPlan,
) -> dict[str, Any]:
    valid = {name: is_valid(found, classify) for name, classify in judges.items()}
    changes = [change(image, one.latents) for image, one in zip(cells.prepared, found, strict=True)]
    is_found = np.array([one.is_found for one in found])
    starts = [one.log_snr for one in found if one.is_found]
    sizes = np.array([c.l1 for c in changes])
    results: dict[str, Any] = {
        "found": share(is_found),
        "validity": {name: share(each) for name, each in valid.items()},
        "max_identity_error": max(one.identity_error for one in found),
        "missed": missed(found, cells.classifier.class_names),
        "start_log_snr_counts": {f"{s:g}": starts.count(s) for s in sorted(set(starts))},
        "plan": plan.model_dump() | {"guidance": GUIDANCE},
    }
    if is_found.any():
        results |= {
            "validity_among_found": {
                name: share(np.array(each)[is_found]) for name, each in valid.items()
            },
            "start_log_snr": mean(starts),
            "fraction_changed": mean(np.array([c.fraction_changed for c in changes])[is_found]),
            "change_in_grey_values": mean(GREY_VALUES * sizes[is_found]),
            "cycle_error_in_grey_values": mean(GREY_VALUES * cycle.double().numpy()[is_found]),
            "way_back_is_nearer": share((cycle.double().numpy() < sizes)[is_found]),
        }
    return results


# --- faithfulness


def fixed_score(cells: Explained, number: int, plan: DrawPlan, seed: int) -> Score:
    """Generative log-odds of one cell's pair for altered versions of it, on the same noise."""
    classifier = cells.classifier
    weighting = classifier.settings.weighting_function
    shape = tuple(cells.prepared.shape[1:])
    draws = keyed_draws(plan, shape, seed=seed, image_digest=f"{cells.digests[number]}:altered")
    weights = weighting(draws.log_snr) / log_density(plan, draws.log_snr).exp() / len(draws.noise)
    labels = torch.tensor([cells.classes[number], cells.rivals[number]])

    def score(latents: Tensor) -> Tensor:
        n = len(latents)
        errors = paired_class_errors(
            classifier.split,
            latents,
            sigmas_from_log_snr(draws.log_snr).float().expand(n, -1),
            draws.noise.expand(n, *draws.noise.shape),
            labels,
            turns=draws.turns.expand(n, -1) if plan.turned else None,
        )
        return 0.5 * ((errors[..., 1] - errors[..., 0]) * weights).sum(dim=1)

    return score


def removals(
    cells: Explained, numbers: Sequence[int], maps: Tensor, n_random: int, seed: int
) -> dict[str, Any]:
    """Area between the curve by evidence and by chance, deleting and inserting. Maps (n, H, W)"""
    plan = cells.classifier.settings.draw_plan.model_copy(update={"n_levels": 4, "n_blocks": 1})
    areas: dict[str, list[float]] = {"deletion": [], "insertion": []}

    def remove(chunk: slice) -> None:
        for i, evidence in zip(numbers[chunk], maps[chunk], strict=True):
            for kind in areas:
                curve = removal_curve(
                    fixed_score(cells, i, plan, seed),
                    cells.prepared[i],
                    evidence,
                    generator=torch.Generator().manual_seed(seed + i),
                    inserting=kind == "insertion",
                    n_random=n_random,
                )
                areas[kind].append(curve.advantage)

    _with_progress("Deletion and insertion", len(numbers), 1, remove)
    # Where the blurred picture has nearly the same log-odds, the share has next to no divisor.
    return {
        kind: {
            "median": float(np.median(values)),
            "mean": mean(np.clip(values, -1, 1)),
            "positive": share(np.array(values) > 0),
        }
        for kind, values in areas.items()
    }


def pointing(folder: Path, n_pairs: int, seed: int) -> dict[str, Any]:
    """Evidence on drawn cells against the pixels in which the two classes truly differ."""
    model = load_checkpoint(folder)
    names = [name for name in CLASS_NAMES if name in model.class_names]
    if len(names) < 2:
        raise DataError(
            f"{folder} knows {', '.join(model.class_names)}; give a checkpoint that was trained on "
            "`python -m training draw`."
        )
    classifier = CellClassifier.from_checkpoint(model, bfloat16=False)
    rng = np.random.default_rng(seed)
    plan = map_plan(classifier.settings.draw_plan)
    hits, inside, areas = [], [], []

    def point(chunk: slice) -> None:
        for i in range(n_pairs)[chunk]:
            pair = [str(name) for name in rng.choice(names, 2, replace=False)]
            # The seeds of drawn sets are hashes: none of these cells was trained on.
            scene = drawn_pair(*pair, seed=2_000_000_000 + i, size=model.header.image_size)
            labels = tuple(model.class_names.index(name) for name in pair)
            cell = Explained(classifier, scene.image[None], (labels[0], labels[1]))
            found = pointing_game(cell.evidence([0], plan).total[0], torch.from_numpy(scene.mask))
            hits.append(found.is_hit)
            inside.append(found.share_inside)
            areas.append(found.area)

    _with_progress("Pointing", n_pairs, 4, point)
    return {
        "checkpoint_digest": model.digest,
        "hits": share(hits),
        "area": mean(areas),
        "share_inside": mean(inside),
        "share_inside_minus_area": mean(np.array(inside) - np.array(areas)),
    }


# --- red granules


def densities(prepared: Tensor, ground: Tensor) -> Array:
    """Optical density of each colour over the smear's ground. (B, 3, H, W)"""
    transmission = ((prepared + 1) / 2).clamp_min(1 / 255)
    return -(transmission / ground.view(1, 3, 1, 1)).log().clamp_max(0).double().numpy()


def red_granules(density: Array) -> NDArray[np.bool_]:
    """Pixels with the colour of eosinophil granules. (3, H, W) -> (H, W)"""
    red, green, _ = density
    return (green >= 0.5) & (red <= 0.65) & (red <= 0.75 * green)


def cell_patch(density: Array) -> NDArray[np.bool_]:
    """The largest stained patch, holes filled. (3, H, W) -> (H, W)"""
    closed = ndimage.binary_closing(density[1] >= 0.45, iterations=2)
    patches, n = ndimage.label(ndimage.binary_fill_holes(closed))
    if n == 0:
        return closed
    sizes = ndimage.sum_labels(np.ones_like(closed), patches, range(1, n + 1))
    return patches == 1 + int(np.argmax(sizes))


def excess_on(evidence: Array, inside: NDArray[np.bool_], within: NDArray[np.bool_]) -> float:
    """Share of the positive evidence that lies inside, minus the share of the area. (H, W) each"""
    positive = np.where(within, np.clip(evidence, 0, None), 0)
    total = positive.sum()
    held = positive[inside & within].sum() / total if total > 0 else 0.0
    return float(held - (inside & within).sum() / within.sum())


def source_names(table: Path) -> list[str]:
    """Original file names of a packed set, in the order it is read without a limit."""
    with table.open(newline="", encoding="utf-8") as file:
        return [row["source_name"] for row in csv.DictReader(file)]


def with_red_granules(cells: LabelledImages, data: Path, attributes: Path) -> LabelledImages:
    """The eosinophils whose granules pathologists called red."""
    with attributes.open(newline="", encoding="utf-8") as file:
        colours = {row["img_name"]: row["granule_colour"] for row in csv.DictReader(file)}
    names = source_names(data if data.suffix == ".csv" else data.with_name(data.name + ".csv"))
    is_red = np.array([colours.get(name) == "red" for name in names])
    return cells.where(is_red & (cells.labels == cells.class_names.index("eosinophil")))


def on_granules(
    classifier: CellClassifier, cells: LabelledImages, ground: Tensor, seed: int
) -> dict[str, Any]:
    names = classifier.class_names
    pair = (names.index("eosinophil"), names.index("neutrophil"))
    explained = Explained(classifier, cells.images, pair)
    maps = explained.maps(
        map_plan(classifier.settings.draw_plan), "Red granules", range(len(cells)), seed=seed
    )
    in_picture, in_cell, ratios, areas = [], [], [], []
    for evidence, density in zip(maps.numpy(), densities(explained.prepared, ground), strict=True):
        cell = cell_patch(density)
        granules = red_granules(density) & cell
        if not granules.any():
            continue
        in_picture.append(excess_on(evidence, granules, np.ones_like(cell)))
        in_cell.append(excess_on(evidence, granules, cell))
        areas.append(granules.sum() / cell.sum())
        ratios.append((in_cell[-1] + areas[-1]) / areas[-1])
    return {
        "n": len(in_cell),
        "share_of_cell_area": mean(areas),
        "evidence_minus_area_in_picture": mean(in_picture),
        "evidence_minus_area_in_cell": mean(in_cell),
        "evidence_over_area_in_cell": mean(ratios),
        "cells_with_more_than_their_area": share(np.array(in_cell) > 0),
    }


# --- the sheet


HEADINGS = (
    "cell",
    "evidence",
    "shape",
    "structure",
    "texture",
    "counterfactual",
    "difference",
)
SIDE, GAP, HEAD, LINE = 192, 8, 30, 26


def sheet(
    cells: Explained, found: Sequence[Counterfactual], numbers: Sequence[int], class_names: Any
) -> Image.Image:
    """One row for each cell: picture, evidence and its bands on one scale, edit, difference."""
    evidence = cells.evidence(numbers, map_plan(cells.classifier.settings.draw_plan))
    assert evidence.standard_errors is not None
    assert evidence.band_standard_errors is not None
    assert evidence.log_odds_standard_errors is not None
    width = len(HEADINGS) * (SIDE + GAP) + GAP
    height = HEAD + len(numbers) * (LINE + SIDE + GAP)
    page = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(page)
    font, small = ImageFont.load_default(18), ImageFont.load_default(16)
    for column, heading in enumerate(HEADINGS):
        draw.text((GAP + column * (SIDE + GAP), 6), heading, "black", font)
    for row, i in enumerate(numbers):
        edit = found[i]
        picture = images_from_latents(cells.prepared[i : i + 1])[0]
        edited = images_from_latents(edit.latents[None])[0]
        # Band by band on the same scale, or noise would look like evidence.
        scale = picture_scale(evidence.total[row], evidence.standard_errors[row])
        maps = [(evidence.total[row], evidence.standard_errors[row])]
        maps += list(zip(evidence.bands[row], evidence.band_standard_errors[row], strict=True))
        difference = edited.astype(np.float64) - picture
        pictures = [
            picture,
            *(evidence_picture(picture, one, errors, scale=scale) for one, errors in maps),
            edited,
            np.clip(128 + difference, 0, 255).astype(np.uint8),
        ]
        top = HEAD + row * (LINE + SIDE + GAP)
        names = [class_names[cells.classes[i]], class_names[cells.rivals[i]]]
        log_odds = float(evidence.log_odds[row])
        error = float(evidence.log_odds_standard_errors[row])
        verdict = "found" if edit.is_found else "not convincing"
        text = (
            f"{names[0]} (blue) over {names[1]} (vermilion): {log_odds:.1f} ± {error:.1f} weighted "
            f"nats; edit into {names[1]} {verdict}, probability {edit.probability:.2f}, from "
            f"log-SNR {edit.log_snr:.1f}"
        )
        draw.text((GAP, top + 2), text, "black", small)
        for column, one in enumerate(pictures):
            big = Image.fromarray(one).resize((SIDE, SIDE), Image.Resampling.NEAREST)
            page.paste(big, (GAP + column * (SIDE + GAP), top + LINE))
    return page


def first_of_some_classes(classes: Sequence[int], n: int) -> list[int]:
    """The first cell of each class met, in the order of the set: not chosen by how it looks."""
    first: dict[int, int] = {}
    for i, k in enumerate(classes):
        first.setdefault(k, i)
    return sorted(first.values())[:n]


# --- the run


def fresh(cells: LabelledImages, skip: int, limit: int, seed: int) -> LabelledImages:
    """An equal share of each class, other cells than the `skip` that come first in the same way."""
    seen = set(balanced(cells, skip, seed).digests)
    chosen = balanced(cells, skip + limit, seed)
    return chosen.where(np.array([digest not in seen for digest in chosen.digests]))


def main(
    checkpoint: Annotated[Path, typer.Option()],
    data: Annotated[Path, typer.Option(help="Cells to explain.")],
    judge: Annotated[Path | None, typer.Option(help="Folder of a plain CNN.")] = None,
    attributes: Annotated[Path | None, typer.Option(help="Table of WBCAtt.")] = None,
    drawn_checkpoint: Annotated[
        Path | None, typer.Option(help="A checkpoint trained on drawn cells, for pointing.")
    ] = None,
    skip: Annotated[
        int, typer.Option(help="Cells by class to leave out: edits were developed on them.")
    ] = 64,
    limit: Annotated[int, typer.Option(help="Cells for maps and edits, by class.")] = 64,
    removal_cells: Annotated[int, typer.Option(help="Of these, with deletion curves.")] = 24,
    granule_cells: Annotated[int, typer.Option(help="Eosinophils with red granules.")] = 60,
    n_pairs: Annotated[int, typer.Option(help="Drawn pairs.")] = 60,
    n_random: Annotated[int, typer.Option(help="Random places of a deleted map.")] = 5,
    n_rows: Annotated[int, typer.Option(help="Cells on the sheet.")] = 6,
    seed: int = 0,
    picture: Path = Path("docs/images/explanations.png"),
    json_file: Annotated[Path, typer.Option("--json")] = Path(
        "benchmarks/results/explanations.json"
    ),
) -> None:
    """Measure, print, draw the sheet."""
    model = load_checkpoint(checkpoint)
    header = model.header
    everything = read_images(data, header.image_size, crop_px=header.crop_px)
    everything = everything.labelled_for(header.class_names)
    shown = fresh(everything, skip, limit, seed)
    classifier = CellClassifier.from_checkpoint(model, bfloat16=False)
    weighting = classifier.settings.weighting
    if isinstance(weighting, LearnedWeighting) and weighting.cap is not None:
        raise DataError(
            f"{checkpoint} caps what a pair of draws may say, which depends on all classes; fit it "
            "without a cap to explain pairs of classes."
        )
    cells = Explained(classifier, shown.images)
    results: dict[str, Any] = {
        "checkpoint_digest": model.digest,
        "data_digest": shown.digest,
        "n": len(shown),
        "n_skipped": skip,
        "seed": seed,
        "accuracy": share(np.array(cells.classes) == shown.labels),
    }

    def write(**more: Any) -> None:
        results.update(more)
        json_file.parent.mkdir(parents=True, exist_ok=True)
        json_file.write_text(json.dumps(results, indent=2) + "\n")

    write(completeness=completeness(cells))

    # --- maps: do they depend on what was learned, and do they find what matters
    plan = map_plan(classifier.settings.draw_plan)
    some = np.random.default_rng(seed).permutation(len(cells))[:removal_cells].tolist()
    maps = cells.maps(plan, "Maps", some)
    again = cells.maps(plan, "Maps by other noise", some, seed=seed + 1)
    shuffled = with_shuffled_weights(model.network, seed)
    random = cells.maps(plan, "Maps of shuffled weights", some, network=shuffled)
    correlations = {
        name: [rank_correlation(one, other) for one, other in zip(maps, others, strict=True)]
        for name, others in (("shuffled_weights", random), ("other_noise", again))
    }
    write(
        randomisation={name: mean(values) for name, values in correlations.items()},
        removal=removals(cells, some, maps, n_random, seed),
    )

    # --- edits
    edit_plan = EditPlan()
    found, cycle = edits(cells, our_probabilities(classifier, "fused", seed), edit_plan, seed)
    judges = {"fused, new noise": our_probabilities(classifier, "fused", seed + 1)}
    judges["generative"] = our_probabilities(classifier, "generative", seed + 1)
    if judge is not None:
        judges["plain CNN"] = judges_probabilities(judge, header.class_names)
    write(counterfactuals=of_edits(cells, found, cycle, judges, edit_plan))
    picture.parent.mkdir(parents=True, exist_ok=True)
    rows = first_of_some_classes(cells.classes, n_rows)
    sheet(cells, found, rows, header.class_names).save(picture, optimize=True)

    # --- is the evidence where the classes differ
    if drawn_checkpoint is None:
        console.print("No --drawn-checkpoint: the pointing game is left out.")
    elif not (drawn_checkpoint / HEADER_FILE).is_file():
        console.print(
            f"{drawn_checkpoint} is no checkpoint: the pointing game is left out. Draw cells with "
            "`python -m training draw` and train on them."
        )
    else:
        write(pointing=pointing(drawn_checkpoint, n_pairs, seed))
    if attributes is None:
        console.print("No --attributes: red granules are left out.")
    else:
        red = with_red_granules(everything, data, attributes)
        ground = torch.ones(3) if classifier.background is None else classifier.background
        chosen = balanced(red, granule_cells, seed)
        write(red_granules=on_granules(classifier, chosen, ground, seed))
    wide.print(_table(results))
    console.print(f"Results in {json_file}, pictures in {picture}")


def _table(results: dict[str, Any]) -> Table:
    table = Table(title=f"{results['n']} cells, checkpoint {results['checkpoint_digest'][:12]}")
    for heading in ("", "estimate", "95 % interval", "n"):
        table.add_column(heading, justify="left" if not heading else "right")

    def add(name: str, value: dict[str, Any]) -> None:
        if "ci_low" in value:
            ends = f"{value['ci_low']:.3f} – {value['ci_high']:.3f}"
            table.add_row(name, f"{value['estimate']:.3f}", ends, f"{value['n']}")
            return
        for key, inner in value.items():
            if isinstance(inner, dict):
                add(f"{name}: {key}".replace("_", " "), inner)
            elif isinstance(inner, float):
                table.add_row(f"{name}: {key}".replace("_", " "), f"{inner:.3g}", "", "")

    for name, value in results.items():
        if isinstance(value, dict):
            add(name, {k: v for k, v in value.items() if k not in ("plan", "start_log_snr_counts")})
    return table


if __name__ == "__main__":
    typer.run(main)
