"""One image to the answer of `POST /v1/anomaly-scores`: how unlike the reference cells it is."""

from http import HTTPStatus
from typing import Any

from PIL import Image

from diffusion.anomaly import assess
from diffusion.latents import image_digest, latents_from_images
from service.classification import framed_pixels
from service.model import Model
from service.problems import Problem
from service.schemas import Anomaly, AnomalyPart, AnomalyScoreOptions, Cost


def anomaly_score(model: Model, image: Image.Image, options: AnomalyScoreOptions) -> dict[str, Any]:
    """The reply but for what the request itself took.

    Raises:
        Problem: 422 for a model without reference cells, or a crop larger than the image.
    """
    classifier, settings = model.classifier, model.settings
    if settings.anomaly is None:
        raise Problem(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            "unsupported_options",
            "This model has no reference cells to find anomalies with; fit it again on at least "
            "twenty held-out cells of each class.",
        )
    pixels, region = framed_pixels(model, image, options.framing)
    digest = image_digest(pixels)
    latents = latents_from_images(pixels[None]).to(model.checkpoint.device)
    prepared = classifier.prepared(latents)
    looked = classifier.look(prepared, [digest], seed=options.seed)
    posterior = settings.rows["fused"].posterior
    log_p = posterior.log_probabilities(looked.evidence)
    seen = classifier.measurements(prepared, [digest], looked, log_p, seed=options.seed)
    (found,) = assess(settings.anomaly, seen)
    rate = settings.false_alarm_rate
    texture = float(settings.anomaly.texture.p_values(seen.texture)[0])
    race, n_draws = looked.races[0] if looked.races else None, settings.anomaly_plan.n_draws
    flops = float(looked.flops[0]) + n_draws * classifier.flops.forward
    n_trunk = int(looked.n_head_views[0]) + n_draws + (race.n_trunk_passes if race else 0)
    return {
        "p_value": found.p_value,
        "is_anomalous": found.p_value <= rate,
        "false_alarm_rate": rate,
        "parts": [AnomalyPart(name=name, p_value=p) for name, p in found.parts.items()],
        "texture": Anomaly(p_value=texture, is_anomalous=texture <= rate, false_alarm_rate=rate),
        "cost": Cost(
            trunk_passes=n_trunk,
            class_passes=n_draws + (race.n_class_passes if race else 0),
            gflop=flops / 1e9,
        ),
        "region": region,
        "provenance": model.image_provenance(digest, options.seed),
    }
