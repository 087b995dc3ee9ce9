"""A checkpoint on a device, as plain functions; the part that tests call without HTTP."""

import base64
import secrets
from dataclasses import asdict
from http import HTTPStatus
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from diffusion.checkpoint import Checkpoint, load_checkpoint
from diffusion.classifier import WEIGHTINGS
from diffusion.classifier import classify as posterior_of
from diffusion.draws import DrawPlan
from diffusion.latents import (
    frame_region,
    framed,
    image_digest,
    images_from_latents,
    latents_from_images,
    png_bytes,
)
from diffusion.sampler import sample_latents
from service.problems import Problem
from service.schemas import (
    ClassificationOptions,
    ClassificationProvenance,
    GeneratedImage,
    GenerationOptions,
    GenerationProvenance,
    ModelCard,
    ModelReference,
    Prediction,
    Region,
    Verdict,
    Weighting,
)
from service.schemas import DrawPlan as DrawPlanAnswer

N_STANDARD_ERRORS = 2
"""How far apart the two best scores must be for a decision."""
MAX_DRAWN_SEED = 2**31


def load(folder: Path, *, device: str) -> Checkpoint:
    """The checkpoint, loaded and warmed up: the first request is as fast as the next."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    checkpoint = load_checkpoint(folder, device=device)
    side = checkpoint.header.image_size
    classify(checkpoint, Image.new("RGB", (side, side)), ClassificationOptions())
    return checkpoint


def describe(checkpoint: Checkpoint) -> ModelCard:
    """What a caller has to know about the model."""
    header = checkpoint.header
    return ModelCard(
        name=header.name,
        digest=checkpoint.digest,
        class_names=list(header.class_names),
        image_size=header.image_size,
        crop_px=header.crop_px,
        weighting=header.weighting,
        draw_plan=DrawPlanAnswer(**header.draw_plan.model_dump()),
        forward_passes_per_classification=header.draw_plan.n_draws * len(header.class_names),
        n_training_images=header.n_training_images,
        data_digest=header.data_digest,
    )


def reference(checkpoint: Checkpoint) -> ModelReference:
    """Name and digest of the model, for a reply."""
    return ModelReference(name=checkpoint.header.name, digest=checkpoint.digest)


def classification_passes(checkpoint: Checkpoint, options: ClassificationOptions) -> int:
    """Network evaluations that a classification will take."""
    n_classes = len(options.class_names or checkpoint.class_names)
    return draw_plan(checkpoint, options).n_draws * n_classes


def generation_passes(options: GenerationOptions) -> int:
    """Network evaluations that drawing will take."""
    return options.n_images * options.n_steps * (1 if options.guidance_scale == 1 else 2)


def draw_plan(checkpoint: Checkpoint, options: ClassificationOptions) -> DrawPlan:
    """The checkpoint's own plan, with what the request changes in it."""
    own = checkpoint.header.draw_plan
    changed = {"n_levels": options.n_levels, "n_blocks": options.n_blocks}
    return own.model_copy(update={k: v for k, v in changed.items() if v is not None})


def class_labels(checkpoint: Checkpoint, class_names: tuple[str, ...]) -> list[int]:
    """The network's labels of some classes.

    Raises:
        Problem: 422 with the names that the model does know.
    """
    unknown = [name for name in class_names if name not in checkpoint.class_names]
    if unknown:
        raise Problem(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            "unknown_class",
            f"The model does not know {_listed(unknown)}; "
            f"it knows {_listed(checkpoint.class_names)}.",
        )
    return [checkpoint.class_names.index(name) for name in class_names]


def classify(checkpoint: Checkpoint, image: Image.Image, options: ClassificationOptions) -> Verdict:
    """The verdict on one image; a function of its pixels, the options and the checkpoint.

    Raises:
        Problem: 422 for a class that the model does not know, or a crop larger than the image.
    """
    header = checkpoint.header
    class_names = options.class_names or checkpoint.class_names
    labels = class_labels(checkpoint, class_names)
    plan = draw_plan(checkpoint, options)
    weighting: Weighting = options.weighting or header.weighting
    try:
        size, crop_px, framing = header.image_size, header.crop_px, options.framing
        region = frame_region(image.size, size, crop_px=crop_px, framing=framing)
        seen = framed(image, size, crop_px=crop_px, framing=framing)
    except ValueError as error:
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "image_too_small", str(error)) from None
    pixels = np.asarray(seen)
    digest = image_digest(pixels)
    result = posterior_of(
        checkpoint.denoise,
        latents_from_images(pixels[None]).to(checkpoint.device),
        [digest],
        labels,
        plan,
        weighting=WEIGHTINGS[weighting],
        # The temperature belongs to the scores of the checkpoint's own weighting.
        temperature=header.temperature if weighting == header.weighting else 1.0,
        seed=options.seed,
    )
    scores = result.scores[0].tolist()
    probabilities = result.posteriors[0].tolist()
    errors = None if result.standard_errors is None else result.standard_errors[0].tolist()
    order = sorted(range(len(labels)), key=lambda k: -scores[k])
    predictions = [
        Prediction(
            rank=rank,
            class_name=class_names[k],
            probability=probabilities[k],
            score=scores[k],
            standard_error=None if errors is None else errors[k],
        )
        for rank, k in enumerate(order, start=1)
    ]
    best, second = predictions[:2]
    margin = best.score - second.score
    calibrated = weighting == header.weighting and plan == header.draw_plan
    return Verdict(
        predicted_class=best.class_name,
        decided=second.standard_error is not None
        and margin > N_STANDARD_ERRORS * second.standard_error,
        margin=margin,
        score_kind="calibrated" if calibrated else "uncalibrated",
        predictions=predictions,
        region=Region(**asdict(region)),
        provenance=ClassificationProvenance(
            image_digest=digest,
            seed=options.seed,
            weighting=weighting,
            draw_plan=DrawPlanAnswer(**plan.model_dump()),
            candidate_class_names=list(class_names),
            device=str(checkpoint.device),
            torch_version=torch.__version__,
        ),
        warnings=_cautions(checkpoint, class_names, calibrated=calibrated, plan=plan),
    )


def generate(
    checkpoint: Checkpoint, options: GenerationOptions
) -> tuple[list[GeneratedImage], GenerationProvenance]:
    """Drawn cells of one class; each depends on its own seed only.

    Raises:
        Problem: 422 for a class that the model does not know.
    """
    label = class_labels(checkpoint, (options.class_name,))[0]
    first = secrets.randbelow(MAX_DRAWN_SEED) if options.seed is None else options.seed
    images = []
    # One at a time: in a batch, sums are rounded differently and neighbours would show.
    for seed in range(first, first + options.n_images):
        latents = sample_latents(
            checkpoint.network,
            checkpoint.scheduler,
            [label],
            [seed],
            n_steps=options.n_steps,
            guidance_scale=options.guidance_scale,
        )
        png = png_bytes(images_from_latents(latents)[0])
        images.append(GeneratedImage(seed=seed, png_base64=base64.b64encode(png).decode()))
    return images, GenerationProvenance(
        n_steps=options.n_steps,
        guidance_scale=options.guidance_scale,
        device=str(checkpoint.device),
        torch_version=torch.__version__,
    )


def _cautions(
    checkpoint: Checkpoint, class_names: tuple[str, ...], *, calibrated: bool, plan: DrawPlan
) -> list[str]:
    cautions = []
    if set(class_names) != set(checkpoint.class_names):
        cautions.append(
            f"The verdict holds among {_listed(class_names)} only, as the request declared."
        )
    if not calibrated:
        cautions.append(
            "Scores under other draws or another weighting than the model was calibrated with "
            "rank the classes; their probabilities are not calibrated."
        )
    if plan.n_blocks < 2:
        cautions.append("One block gives no standard errors, so nothing is decided.")
    return cautions


def _listed(names: tuple[str, ...] | list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
