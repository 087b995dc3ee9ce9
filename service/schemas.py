"""What goes over the wire, with limits and examples."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

MAX_SEED = 2**48
"""Exact in every JSON reader, also after the number of an image is added."""

Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]
Rate = Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)]
Row = Literal["fused", "generative", "head"]
Framing = Literal["auto", "crop", "whole"]


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
    row: Row = "fused"
    """What decides: the head with a race of the classes it leaves (`fused`), a race of all
    candidates (`generative`), or the `head` alone."""
    n_blocks: Annotated[int, Field(ge=1, le=64)] | None = None
    """Budget of the race, in sweeps over the noise levels; what the model was calibrated with by
    default."""
    weighting: Literal["elbo", "robust"] | None = None
    """Of the noise levels, in place of the model's own; with the row `generative` only."""
    level: Rate = 0.9
    """Rate at which prediction sets hold the true class."""
    classwise: bool = False
    """Whether the level holds within each class rather than on average over them."""
    risk: Rate | None = None
    """Largest rate of wrong verdicts among those that are given; the model's own by default."""
    anomaly: bool | None = None
    """Whether to compare the image with the reference cells in every respect, which takes passes of
    its own; by default wherever the model has some. The texture is compared in any case."""
    evidence_map: bool = False
    """Whether to show where in the image the odds of the best two classes come from."""
    seed: Seed = 0
    """Another seed draws other noise; the same seed gives the same answer."""
    framing: Framing = "auto"
    """`crop` cuts the centred square of the training images, `whole` the largest one, `auto` crops
    unless the image is too small for it."""

    @field_validator("class_names")
    @classmethod
    def _names_differ(cls, class_names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if class_names is not None and len(set(class_names)) != len(class_names):
            raise ValueError("name each candidate class once")
        return class_names


class AnomalyScoreOptions(Options):
    """How to compare one image with the reference cells."""

    model_config = ConfigDict(json_schema_extra={"example": {"seed": 7}})

    seed: Seed = 0
    """Another seed draws other noise."""
    framing: Framing = "auto"
    """As in a classification."""


class CounterfactualOptions(Options):
    """What another class the image is to be edited towards."""

    model_config = ConfigDict(json_schema_extra={"example": {"target_class": "monocyte"}})

    target_class: str
    source_class: str | None = None
    """What the cell is taken for; the best class of the fused verdict by default."""
    seed: Seed = 0
    """Another seed edits along other noise."""
    framing: Framing = "auto"
    """As in a classification."""


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
    """The budget; a race may end before."""
    turned: bool
    density: list[float] | None
    """Probability of equal bins of the range; null for equal ones."""


class Prediction(Answer):
    """One candidate class."""

    rank: int
    class_name: str
    probability: float
    """Among the candidates; how far to trust it is in `is_calibrated`."""
    score: float | None
    """Weighted log-likelihood minus that of the race's winner; null if the class did not race."""
    standard_error: float | None
    """Monte-Carlo error of `score`: 0 for the winner, null where one block alone tells none."""


class PredictionSet(Answer):
    """Classes that the cell may be of."""

    level: float
    """Rate at which `conforming` holds the true class, for cells like those of the calibration."""
    is_classwise: bool
    """Whether this is the rate within each class."""
    conforming: list[str]
    """May be empty: then the cell is unlike the calibration cells of each class."""
    shown: list[str]
    """The same with the undecided classes, and with the best class where that leaves none."""


class Anomaly(Answer):
    """Whether the image is like the reference cells."""

    p_value: float
    """A cell like the reference gets one this small with this probability at most; of the texture
    about, and at worst somewhat over twice."""
    is_anomalous: bool
    """The p-value is at most `false_alarm_rate`; the verdict is then withheld."""
    false_alarm_rate: float
    """Rate of flags among cells like the reference, at most; of the texture about."""


class EvidenceBand(Answer):
    """What a range of noise levels says for the class and against its rival."""

    name: str
    """`shape`, `structure` or `texture`, from high noise to low."""
    log_snr_min: float | None
    """Null where the range has no end."""
    log_snr_max: float | None
    log_odds: float


class EvidenceMap(Answer):
    """Where in the image the odds of the best class over the next one come from."""

    class_name: str
    rival_class_name: str
    log_odds: float
    """Sum of the map, in weighted nats: the answer's `generative_log_odds` where both raced to the
    same end."""
    log_odds_standard_error: float | None
    bands: list[EvidenceBand]
    """They add up to `log_odds`."""
    n_blocks: int
    """Sweeps that were evaluated for it."""
    full_colour: float
    """Evidence of one pixel that is drawn in full colour."""
    png_base64: str
    """Blue speaks for the class, vermilion for its rival; grey is within two standard errors of
    nothing. At the model's size."""


class Cost(Answer):
    """What the verdict took of the network."""

    trunk_passes: int
    """Images, noised or clean, of which the class-free part was computed."""
    class_passes: int
    """Noised images times classes of which the rest was computed."""
    gflop: float


class Region(Answer):
    """The square of the uploaded image that was looked at, in its pixels."""

    framing: Literal["crop", "whole"]
    left: int
    top: int
    side: int


class ClassificationProvenance(Answer):
    """All that is needed to get the same answer again."""

    checkpoint_digest: str
    image_digest: str
    """SHA-256 of the pixels that the model saw; it keys the noise."""
    seed: int
    row: Row
    weighting: str
    draw_plan: DrawPlan
    candidate_class_names: list[str]
    """In the model's order."""
    device: str
    precision: Literal["bfloat16", "float32"]
    torch_version: str


class Usage(Answer):
    """How long the answer took."""

    compute_time_ms: float
    queue_time_ms: float


class GenerationUsage(Usage):
    """What the pictures took."""

    forward_passes: int


class Classification(Answer):
    """The answer to "which class is this cell?", apart from what the request itself took."""

    predicted_class: str | None
    """Null where the verdict is withheld."""
    best_class: str
    """The most probable candidate, also where the verdict is withheld."""
    is_abstained: bool
    reasons: list[str]
    """Why the verdict is withheld."""
    risk: float | None
    """Rate of wrong verdicts that withholding keeps to; null where no cells vouch for one."""
    is_calibrated: bool
    """The probabilities were fitted on held-out cells, under this weighting."""
    predictions: list[Prediction]
    """Most probable first."""
    log_odds: float
    """Of the best class to the next, in nats: the logarithm of their probabilities' ratio."""
    generative_log_odds: float | None
    """Score of the best class minus that of the next; null if one of them did not race."""
    generative_log_odds_standard_error: float | None
    undecided_classes: list[str]
    """Classes that the race left undecided; none if it left one."""
    excluded_classes: list[str]
    """Classes of the model that the request did not declare."""
    prediction_set: PredictionSet | None
    """Null where nothing is calibrated."""
    texture: Anomaly | None
    """Whether it looks close by as the reference cells do, at no cost; null with the row
    `generative`, or where the model has no reference cells."""
    anomaly: Anomaly | None
    """In every respect; null if it was not looked for."""
    evidence_map: EvidenceMap | None
    """Null unless asked for."""
    cost: Cost
    region: Region
    provenance: ClassificationProvenance
    warnings: list[str]


class ClassificationReply(Classification):
    """The answer of `POST /v1/classifications`."""

    id: str
    model: ModelReference
    usage: Usage


class ImageProvenance(Answer):
    """All that is needed to get the same answer about an image again."""

    checkpoint_digest: str
    image_digest: str
    """SHA-256 of the pixels that the model saw; it keys the noise."""
    seed: int
    device: str
    torch_version: str


class AnomalyPart(Answer):
    """One way to look at a cell."""

    name: str
    p_value: float
    """Of this part alone: small for one cell in so many of those like the reference."""


class AnomalyScoreReply(Answer):
    """The answer of `POST /v1/anomaly-scores`."""

    id: str
    model: ModelReference
    p_value: float
    """Of all parts together: a cell like the reference gets one this small with this probability
    at most."""
    is_anomalous: bool
    false_alarm_rate: float
    parts: list[AnomalyPart]
    texture: Anomaly
    cost: Cost
    region: Region
    provenance: ImageProvenance
    warnings: list[str]
    usage: Usage


class CounterfactualReply(Answer):
    """The answer of `POST /v1/counterfactuals`: the smallest edit that the model takes for another
    class, or where none convinced it, the one that came closest."""

    id: str
    model: ModelReference
    source_class: str
    target_class: str
    reached_target: bool
    """Whether the fused verdict gives the target more than 0.9."""
    probability: float
    """Of the target, for the edit."""
    log_snr: float
    """Noise level from which it was redrawn: the lower, the more had to change."""
    identity_error: float
    """Largest change by the same edit without a change of class; 0 where it is exact."""
    l1: float
    """Mean absolute change, in shares of the range of grey values."""
    fraction_changed: float
    """Share of the pixels that changed by ten grey values or more."""
    original_png_base64: str
    """What the model saw, white-balanced; at its size."""
    png_base64: str
    """The edit."""
    difference_png_base64: str
    """Blue where the edit is brighter, vermilion where it is darker."""
    region: Region
    provenance: ImageProvenance
    warnings: list[str]
    usage: GenerationUsage


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
    usage: GenerationUsage


class RowCard(Answer):
    """One way to decide, and what it was worth on cells kept from training."""

    row: Row
    n_blocks: int | None
    """Budget of its race; null for the head, which races nothing."""
    default_risk: float | None
    """Rate of wrong verdicts among those given; null where no cells vouch for one."""
    balanced_accuracy: float | None
    n_cells: int | None
    """Cells that this was measured on, of the training set's own kind; null if it was not."""
    gflop: float | None
    """Mean for one image."""


class ModelCard(Answer):
    """What a caller has to know about a model."""

    name: str
    digest: str
    class_names: list[str]
    image_size: int
    crop_px: int | None
    """Side of the centred square that training images were cut to; null for whole frames."""
    is_white_balanced: bool
    """Images are moved to the light of the training set before they are looked at."""
    is_calibrated: bool
    """The probabilities were fitted on held-out cells."""
    weighting: str
    """Of the noise levels: `learned`, `robust` or `elbo`."""
    draw_plan: DrawPlan
    alpha: float
    """Largest probability that a race eliminates an image's best class."""
    rows: list[RowCard]
    finds_anomalies: bool
    false_alarm_rate: float
    """Rate of flags among cells like the reference, at most."""
    forward_passes_per_classification: int
    """With default options, at most; what limits count."""
    n_training_images: int
    data_digest: str


class ModelList(Answer):
    """The answer of `GET /v1/models`."""

    models: list[ModelCard]
