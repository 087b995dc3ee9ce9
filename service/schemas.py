"""What goes over the wire, with limits and examples."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

MAX_SEED = 2**48
"""Exact in every JSON reader, also after the number of an image is added."""

Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]
Weighting = Literal["robust", "elbo"]
ScoreKind = Literal["calibrated", "uncalibrated"]


class Options(BaseModel):
    """Options of a request: a misspelt one is refused, never ignored."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True
    )


class Answer(BaseModel):
    """Part of a reply."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)


class ClassificationOptions(Options):
    """How to classify one image; every option has a default."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"class_names": ["basophil", "eosinophil"], "seed": 7}}
    )

    class_names: Annotated[tuple[str, ...], Field(min_length=2, max_length=1000)] | None = None
    """Candidate classes, if fewer than the model's; the verdict then holds among these only."""
    seed: Seed = 0
    """Another seed draws other noise; the same seed gives the same answer."""
    n_levels: Annotated[int, Field(ge=1, le=64)] | None = None
    """Noise levels in each sweep; the checkpoint's own by default."""
    n_blocks: Annotated[int, Field(ge=1, le=64)] | None = None
    """Independent sweeps; the checkpoint's own by default, and 2 or more give standard errors."""
    weighting: Weighting | None = None
    """Weight of each noise level in the score; the checkpoint's own by default."""
    framing: Literal["auto", "crop", "whole"] = "auto"
    """`crop` cuts the centred square of the training images, `whole` the largest one, `auto` crops
    unless the image is too small for it."""

    @field_validator("class_names")
    @classmethod
    def _names_differ(cls, class_names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if class_names is not None and len(set(class_names)) != len(class_names):
            raise ValueError("name each candidate class once")
        return class_names


class GenerationOptions(Options):
    """What to draw."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"class_name": "basophil", "n_images": 4, "seed": 7}}
    )

    class_name: str
    n_images: Annotated[int, Field(ge=1, le=16)] = 1
    seed: Seed | None = None
    """Image `i` is drawn with `seed + i`, whatever else is drawn; chosen and returned if absent."""
    n_steps: Annotated[int, Field(ge=2, le=1000)] = 18
    guidance_scale: Annotated[float, Field(ge=0, le=10, allow_inf_nan=False)] = 1.0
    """1 draws from the class; more exaggerates what tells it from the others."""


class ModelReference(Answer):
    """Which model answered."""

    name: str
    digest: str
    """SHA-256 of the checkpoint's content."""


class DrawPlan(Answer):
    """Where on the log-SNR axis the classifier looked, and how often."""

    log_snr_min: float
    log_snr_max: float
    n_levels: int
    n_blocks: int
    turned: bool


class Prediction(Answer):
    """One candidate class."""

    rank: int
    class_name: str
    probability: float
    """Among the candidate classes; how far to trust it is in `score_kind`."""
    score: float
    """Weighted log-likelihood, centred over the candidates."""
    standard_error: float | None
    """Monte-Carlo error of the distance to the best score; 0 for the best, null for one block."""


class Region(Answer):
    """The square of the uploaded image that was looked at, in its pixels."""

    framing: Literal["crop", "whole"]
    left: int
    top: int
    side: int


class ClassificationProvenance(Answer):
    """All that is needed to get the same answer again."""

    image_digest: str
    """SHA-256 of the pixels that the model saw; it keys the noise."""
    seed: int
    weighting: Weighting
    draw_plan: DrawPlan
    candidate_class_names: list[str]
    device: str
    torch_version: str


class Usage(Answer):
    """What the answer cost."""

    forward_passes: int
    compute_time_ms: float
    queue_time_ms: float


class Verdict(Answer):
    """The answer to "which class is this cell?", apart from what the request itself cost."""

    predicted_class: str
    decided: bool
    """The two best scores are more than two standard errors apart."""
    margin: float
    """Difference of the two best scores."""
    score_kind: ScoreKind
    """`calibrated`: temperature-scaled on held-out cells, under the same weighting and draws."""
    predictions: list[Prediction]
    """Best first."""
    region: Region
    provenance: ClassificationProvenance
    warnings: list[str]


class ClassificationReply(Verdict):
    """The answer of `POST /v1/classifications`."""

    id: str
    model: ModelReference
    usage: Usage


class GeneratedImage(Answer):
    """One drawn cell."""

    seed: int
    png_base64: str


class GenerationProvenance(Answer):
    """All that is needed, beside the seeds, to draw the same images again."""

    n_steps: int
    guidance_scale: float
    device: str
    torch_version: str


class GenerationReply(Answer):
    """The answer of `POST /v1/generations`."""

    id: str
    model: ModelReference
    class_name: str
    images: list[GeneratedImage]
    provenance: GenerationProvenance
    usage: Usage


class ModelCard(Answer):
    """What a caller has to know about a model."""

    name: str
    digest: str
    class_names: list[str]
    image_size: int
    crop_px: int | None
    """Side of the centred square that training images were cut to; null for whole frames."""
    weighting: Weighting
    draw_plan: DrawPlan
    forward_passes_per_classification: int
    n_training_images: int
    data_digest: str


class ModelList(Answer):
    """The answer of `GET /v1/models`."""

    models: list[ModelCard]
