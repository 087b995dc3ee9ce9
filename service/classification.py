"""One image to the answer of `POST /v1/classifications`: the library's verdict, and its origin.

Shapes: K classes of the model.
"""

from dataclasses import asdict
from http import HTTPStatus

import numpy as np
import torch
from PIL import Image

from diffusion.cell_classifier import Looked
from diffusion.latents import frame_region, framed, image_digest, latents_from_images
from diffusion.verdict import Anomaly as VerdictAnomaly
from diffusion.verdict import Verdict
from service.evidence_map import evidence_map
from service.model import Model, listed
from service.problems import Problem
from service.schemas import (
    Anomaly,
    Classification,
    ClassificationOptions,
    ClassificationProvenance,
    Cost,
    DrawPlan,
    Framing,
    Prediction,
    PredictionSet,
    Region,
)


def classification_passes(model: Model, options: ClassificationOptions) -> int:
    """Network evaluations (one image under one class, or by the head) that it takes at most."""
    settings = model.settings
    n_draws = settings.draw_plan.n_draws_in_block * n_blocks(model, options)
    n_passes = settings.head_views  # the generative row's anomaly asks the head as well
    if options.row != "head":
        n_passes += n_draws * len(options.class_names or model.class_names)
    if _looks_for_anomalies(model, options):
        n_passes += settings.anomaly_plan.n_draws
    if options.evidence_map:
        n_passes += 2 * n_draws
    return n_passes


def n_blocks(model: Model, options: ClassificationOptions) -> int:
    """Budget of the race, in blocks."""
    return options.n_blocks or _own_blocks(model, options)


def classify(model: Model, image: Image.Image, options: ClassificationOptions) -> Classification:
    """The verdict on one image; a function of its pixels, the options and the checkpoint.

    Raises:
        Problem: 422 for a class that the model does not know, a crop larger than the image, or
            options that this model cannot serve.
    """
    labels = None
    if options.class_names is not None:
        # In the model's order: the order in which classes are named must not change a digit.
        labels = sorted(model.class_labels(options.class_names))
    _refuse_options_without_effect(model, options)
    pixels, region = framed_pixels(model, image, options.framing)
    digest = image_digest(pixels)
    latents = latents_from_images(pixels[None]).to(model.checkpoint.device)
    try:
        (verdict,), looked = model.classifier.judge(
            latents,
            [digest],
            row=options.row,
            candidates=labels,
            max_blocks=options.n_blocks,
            weighting=options.weighting,
            level=options.level,
            classwise=options.classwise,
            risk=options.risk,
            anomaly=_looks_for_anomalies(model, options),
            seed=options.seed,
        )
    except ValueError as error:
        raise _unsupported(str(error)) from None
    is_calibrated = _is_calibrated(model, options)
    predictions = _predictions(model, verdict, looked)
    cost = Cost(
        trunk_passes=verdict.cost.trunk_passes,
        class_passes=verdict.cost.class_passes,
        gflop=verdict.cost.flops / 1e9,
    )
    explained = None
    if options.evidence_map:
        explained, extra = evidence_map(
            model, pixels, verdict, looked, options, n_blocks(model, options)
        )
        cost = Cost(**{k: v + getattr(extra, k) for k, v in cost.model_dump().items()})
    return Classification(
        predicted_class=verdict.predicted_class,
        best_class=verdict.best_class,
        is_abstained=verdict.is_abstained,
        reasons=list(verdict.reasons),
        risk=_risk(model, options),
        is_calibrated=is_calibrated,
        predictions=predictions,
        log_odds=verdict.log_odds,
        generative_log_odds=verdict.generative_log_odds,
        generative_log_odds_standard_error=verdict.generative_log_odds_standard_error,
        undecided_classes=list(verdict.undecided_classes),
        excluded_classes=list(verdict.excluded_class_names),
        prediction_set=_prediction_set(verdict) if is_calibrated else None,
        texture=_anomaly(verdict.texture),
        anomaly=_anomaly(verdict.anomaly),
        evidence_map=explained,
        cost=cost,
        region=region,
        provenance=ClassificationProvenance(
            checkpoint_digest=model.checkpoint.digest,
            image_digest=digest,
            seed=options.seed,
            row=verdict.row,
            weighting=verdict.weighting,
            draw_plan=DrawPlan(
                **model.settings.draw_plan.model_dump() | {"n_blocks": n_blocks(model, options)}
            ),
            candidate_class_names=list(verdict.class_names),
            device=str(model.checkpoint.device),
            precision="bfloat16" if model.classifier.bfloat16 else "float32",
            torch_version=torch.__version__,
        ),
        warnings=_cautions(model, verdict, options),
    )


# --- what the model's calibration can serve


def _own_blocks(model: Model, options: ClassificationOptions) -> int:
    settings = model.settings
    return settings.generative_blocks if options.row == "generative" else settings.fused_blocks


def _looks_for_anomalies(model: Model, options: ClassificationOptions) -> bool:
    return model.settings.anomaly is not None if options.anomaly is None else options.anomaly


def _has_own_weighting(model: Model, options: ClassificationOptions) -> bool:
    return options.weighting in (None, model.settings.weighting_name)


def _is_calibrated(model: Model, options: ClassificationOptions) -> bool:
    return model.settings.is_calibrated and _has_own_weighting(model, options)


def _risk(model: Model, options: ClassificationOptions) -> float | None:
    """The risk that the abstention keeps to; None where no cells vouch for one."""
    of_row = model.settings.rows[options.row]
    if of_row.abstention is None or not _has_own_weighting(model, options):
        return None
    return of_row.default_risk if options.risk is None else options.risk


def _refuse_options_without_effect(model: Model, options: ClassificationOptions) -> None:
    if options.risk is not None and _risk(model, options) is None:
        raise _unsupported(
            f"risk={options.risk:g}: no calibration cells vouch for a rate of wrong verdicts "
            f"{_whose_calibration(model, options)}; ask without `risk`."
        )
    if options.n_blocks is not None and options.row == "head" and not options.evidence_map:
        raise _unsupported(
            "n_blocks with row='head': the head races nothing; ask without `n_blocks`, or for "
            "another row."
        )


def _whose_calibration(model: Model, options: ClassificationOptions) -> str:
    if not _has_own_weighting(model, options):
        return f"under the weighting `{options.weighting}`"
    return f"with the row `{options.row}` of this checkpoint"


# --- parts of the answer


def framed_pixels(
    model: Model, image: Image.Image, framing: Framing
) -> tuple[np.ndarray[tuple[int, ...], np.dtype[np.uint8]], Region]:
    """The square that the model looks at, uint8 (H, W, 3), and where it was.

    Raises:
        Problem: 422 for a crop larger than the image.
    """
    header = model.checkpoint.header
    size, crop_px = header.image_size, header.crop_px
    try:
        region = frame_region(image.size, size, crop_px=crop_px, framing=framing)
        seen = framed(image, size, crop_px=crop_px, framing=framing)
    except ValueError as error:
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "image_too_small", str(error)) from None
    return np.asarray(seen), Region(**asdict(region))


def _predictions(model: Model, verdict: Verdict, looked: Looked) -> list[Prediction]:
    nothing = np.full(len(model.class_names), np.nan)
    scores = errors = nothing
    if verdict.row != "head":
        evidence = looked.evidence
        scores = nothing if evidence.scores is None else evidence.scores[0]
        errors = nothing if evidence.standard_errors is None else evidence.standard_errors[0]
    predictions = []
    for rank, (name, probability) in enumerate(verdict.probabilities.items(), start=1):
        label = model.class_names.index(name)
        is_scored = bool(np.isfinite(scores[label]))
        has_error = is_scored and bool(np.isfinite(errors[label]))
        predictions.append(
            Prediction(
                rank=rank,
                class_name=name,
                probability=probability,
                score=float(scores[label]) if is_scored else None,
                standard_error=float(errors[label]) if has_error else None,
            )
        )
    return predictions


def _prediction_set(verdict: Verdict) -> PredictionSet:
    return PredictionSet(
        level=verdict.set_level,
        is_classwise=verdict.is_set_classwise,
        conforming=list(verdict.conforming_set),
        shown=list(verdict.shown_set),
    )


def _anomaly(found: VerdictAnomaly | None) -> Anomaly | None:
    if found is None:
        return None
    return Anomaly(
        p_value=found.p_value,
        is_anomalous=found.is_anomalous,
        false_alarm_rate=found.alarm_rate,
    )


def _cautions(model: Model, verdict: Verdict, options: ClassificationOptions) -> list[str]:
    cautions = []
    if verdict.excluded_class_names:
        cautions.append(
            f"The verdict holds among {listed(verdict.class_names)} only, as the request declared."
        )
    if not _is_calibrated(model, options):
        whose = _whose_calibration(model, options)
        cautions.append(
            f"Nothing was calibrated on held-out cells {whose}: the probabilities rank the "
            "classes and promise no rate, and there is no prediction set."
        )
    elif verdict.excluded_class_names and not options.classwise:
        cautions.append(
            "Among declared classes the prediction set keeps to its level within each class only; "
            "ask for that with `classwise`."
        )
    own_blocks = _own_blocks(model, options)
    if (
        _is_calibrated(model, options)
        and options.row != "head"
        and n_blocks(model, options) != own_blocks
    ):
        cautions.append(
            f"Calibrated at a budget of {own_blocks} blocks: at another one, probabilities, "
            "prediction set and risk keep to no stated rate."
        )
    return cautions + _anomaly_cautions(model, verdict)


def _anomaly_cautions(model: Model, verdict: Verdict) -> list[str]:
    reference, rate = model.settings.anomaly, model.settings.false_alarm_rate
    if reference is None or (verdict.texture is None and verdict.anomaly is None):
        return []
    cautions = []
    # The texture is that of the image, whatever decides.
    if verdict.anomaly is not None and (verdict.row != "fused" or verdict.excluded_class_names):
        cautions.append(
            "The false-alarm rate of `anomaly` is that of the row `fused` over all classes; it was "
            "not measured with another row or declared classes."
        )
    n_cells = {
        "texture": sum(len(fold.distances) for fold in reference.texture.folds),
        "anomaly": len(reference.surprises),
    }
    for name, n in n_cells.items():
        smallest = 1 / (1 + n)
        if getattr(verdict, name) is not None and smallest > rate:
            cautions.append(
                f"No image can be flagged by `{name}`: the reference cells allow no p-value below "
                f"{smallest:.2g}, and the false-alarm rate is {rate:g}."
            )
    return cautions


def _unsupported(detail: str) -> Problem:
    return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "unsupported_options", detail)
