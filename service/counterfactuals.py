"""One image to the answer of `POST /v1/counterfactuals`: what another class would look like."""

import base64
from http import HTTPStatus
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from diffusion.counterfactual import EditPlan, change, counterfactuals, guided
from diffusion.evidence import evidence_picture
from diffusion.latents import image_digest, images_from_latents, latents_from_images, png_bytes
from service.classification import framed_pixels
from service.model import Model
from service.problems import Problem
from service.schemas import CounterfactualOptions

PLAN = EditPlan()
FULL_COLOUR = 0.25
"""Change of brightness, in shares of the range, that is drawn in full colour."""


def counterfactual(
    model: Model, image: Image.Image, options: CounterfactualOptions
) -> tuple[dict[str, Any], int]:
    """The reply but for what the request itself took, and the passes of the network it took.

    Raises:
        Problem: 422 for a class that the model does not know or that the cell is of already, or a
            crop larger than the image.
    """
    (target,) = model.class_labels((options.target_class,))
    pixels, region = framed_pixels(model, image, options.framing)
    digest = image_digest(pixels)
    classifier, network = model.classifier, model.checkpoint.network
    latents = latents_from_images(pixels[None]).to(model.checkpoint.device)
    prepared = classifier.prepared(latents)
    n_passes = 0

    def probabilities(edits: Tensor, digests: list[str]) -> Tensor:
        nonlocal n_passes
        looked = classifier.look(edits, digests, seed=options.seed)
        n_passes += int(looked.n_head_views.sum())
        n_passes += sum(race.n_class_passes for race in looked.races or ())
        posterior = model.settings.rows["fused"].posterior
        return torch.from_numpy(posterior.log_probabilities(looked.evidence)).exp()

    draw = network.as_denoiser()

    def counted(noised: Tensor, sigmas: Tensor, class_labels: Tensor) -> Tensor:
        nonlocal n_passes
        n_passes += len(noised)
        return draw(noised, sigmas, class_labels)

    if options.source_class is None:
        source = int(probabilities(prepared, [digest])[0].argmax())
    else:
        (source,) = model.class_labels((options.source_class,))
    if source == target:
        raise Problem(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            "already_of_class",
            f"The cell is taken for `{options.target_class}` already; ask for another "
            "`target_class`, or say in `source_class` what it is.",
        )
    (found,) = counterfactuals(
        guided(counted, network.config.n_classes),
        prepared,
        [digest],
        [source],
        [target],
        probabilities,
        PLAN,
        seed=options.seed,
    )
    changed = change(prepared[0], found.latents)
    before, after = images_from_latents(torch.stack([prepared[0], found.latents]))
    brighter = (found.latents - prepared[0]).mean(dim=0) / 2
    return {
        "source_class": model.class_names[source],
        "target_class": model.class_names[target],
        "reached_target": found.is_found,
        "probability": found.probability,
        "log_snr": found.log_snr,
        "identity_error": found.identity_error / 2,
        "l1": changed.l1 / 2,
        "fraction_changed": changed.fraction_changed,
        "original_png_base64": _base64(png_bytes(before)),
        "png_base64": _base64(png_bytes(after)),
        "difference_png_base64": _base64(
            png_bytes(evidence_picture(before, brighter, scale=FULL_COLOUR))
        ),
        "region": region,
        "provenance": model.image_provenance(digest, options.seed),
    }, n_passes


def _base64(png: bytes) -> str:
    return base64.b64encode(png).decode()
