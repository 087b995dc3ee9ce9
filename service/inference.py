"""A model on a device, as plain functions; the part that tests call without HTTP.

`service.classification` has the largest of them.
"""

import base64
import secrets
from pathlib import Path

import torch
from PIL import Image

from diffusion.classifier_settings import ROWS
from diffusion.latents import images_from_latents, png_bytes
from diffusion.sampler import sample_latents
from service.classification import classification_passes, classify
from service.model import Model, read_model
from service.schemas import (
    ClassificationOptions,
    DrawPlan,
    GeneratedImage,
    GenerationOptions,
    GenerationProvenance,
    ModelCard,
    RowCard,
)

MAX_DRAWN_SEED = 2**31


def load(folder: Path, *, device: str) -> Model:
    """The model, loaded and warmed up: the first request is as fast as the next."""
    model = read_model(folder, device=device)
    side = model.checkpoint.header.image_size
    classify(model, Image.new("RGB", (side, side)), ClassificationOptions())
    return model


def describe(model: Model) -> ModelCard:
    """What a caller has to know about the model."""
    header, settings = model.checkpoint.header, model.settings
    measured = settings.facts.get("rows", {})
    budgets = {"fused": settings.fused_blocks, "generative": settings.generative_blocks}
    rows = [
        RowCard(
            row=row,
            n_blocks=budgets.get(row),
            default_risk=settings.rows[row].default_risk,
            balanced_accuracy=measured.get(row, {}).get("balanced_accuracy"),
            n_cells=measured.get(row, {}).get("n"),
            gflop=measured.get(row, {}).get("gflop"),
        )
        for row in ROWS
    ]
    return ModelCard(
        name=header.name,
        digest=model.checkpoint.digest,
        class_names=list(header.class_names),
        image_size=header.image_size,
        crop_px=header.crop_px,
        is_white_balanced=header.background is not None,
        is_calibrated=settings.is_calibrated,
        weighting=settings.weighting_name,
        draw_plan=DrawPlan(**settings.draw_plan.model_dump()),
        alpha=settings.alpha,
        rows=rows,
        finds_anomalies=settings.anomaly is not None,
        false_alarm_rate=settings.false_alarm_rate,
        forward_passes_per_classification=classification_passes(model, ClassificationOptions()),
        n_training_images=header.n_training_images,
        data_digest=header.data_digest,
    )


def generation_passes(options: GenerationOptions) -> int:
    """Network evaluations that drawing will take."""
    return options.n_images * options.n_steps * (1 if options.guidance_scale == 1 else 2)


def generate(
    model: Model, options: GenerationOptions
) -> tuple[list[GeneratedImage], GenerationProvenance]:
    """Drawn cells of one class; each depends on its own seed only.

    Raises:
        Problem: 422 for a class that the model does not know.
    """
    label = model.class_labels((options.class_name,))[0]
    first = secrets.randbelow(MAX_DRAWN_SEED) if options.seed is None else options.seed
    images = []
    # One at a time: in a batch, sums are rounded differently and neighbours would show.
    for seed in range(first, first + options.n_images):
        latents = sample_latents(
            model.checkpoint.network,
            model.checkpoint.scheduler,
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
        device=str(model.checkpoint.device),
        torch_version=torch.__version__,
    )
