"""How a checkpoint decides: its level plan, weights, calibration and references.

Fitted on held-out cells by `training.fitting`, kept in the checkpoint's header.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from diffusion.anomaly import AnomalyReference
from diffusion.conformal import AbstentionCalibration, ConformalCalibration
from diffusion.draws import DrawPlan
from diffusion.elimination import BlockVariancePrior
from diffusion.network import Appearance
from diffusion.probability import PosteriorCalibration, Row
from diffusion.weighting import WEIGHTINGS, LearnedWeighting, Weighting

ROWS: tuple[Row, ...] = ("fused", "generative", "head")


class RowSettings(BaseModel):
    """How one kind of verdict gets its probabilities, sets and abstentions."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    posterior: PosteriorCalibration
    conformal: ConformalCalibration
    """Without any cell every class conforms at a rate of the level, by lot."""
    abstention: AbstentionCalibration | None = None
    """None never abstains for lack of confidence."""
    default_risk: float | None = Field(default=None, gt=0, lt=1)
    """Smallest rate of wrong verdicts that the calibration cells could vouch for."""


class ClassifierSettings(BaseModel):
    """Everything but the network that a verdict depends on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    draw_plan: DrawPlan
    """One block of it is one step of a race."""
    weighting: LearnedWeighting | Literal["robust", "elbo"] = "robust"
    """Of the scores that decide."""
    alpha: float = Field(default=0.05, ge=0, lt=1)
    """Largest probability that a race eliminates an image's best class."""
    generative_blocks: int = Field(default=2, ge=1)
    """Budget of a race over all candidates."""
    fused_blocks: int = Field(default=2, ge=1)
    """Budget of a race over those that the head left."""
    variance_prior: BlockVariancePrior | None = None
    appearance: Appearance = "any"
    """What the decoder is told of an image's look while classes race."""
    head_views: int = Field(default=1, ge=1, le=8)
    """Symmetries of the square over which the head's answer is averaged, where it looks again."""
    look_again_below: float = Field(default=1.0, ge=0, le=1)
    """The head looks again where its first view finds no class as probable as this."""
    prune_below: float = Field(default=1e-3, ge=0, lt=0.5)
    """The head prunes classes less probable than this; it leaves the best two at least."""
    rows: dict[Row, RowSettings]
    anomaly: AnomalyReference | None = None
    anomaly_plan: DrawPlan = DrawPlan(n_levels=6, n_blocks=1)
    """Levels at which the best class's errors make the profile."""
    false_alarm_rate: float = Field(default=0.01, gt=0, lt=1)
    """Share of reference-like cells that may be flagged as anomalous."""
    facts: dict[str, Any] = Field(default_factory=dict)
    """On which cells all this was fitted, and what it was worth there."""

    @model_validator(mode="after")
    def _has_every_row(self) -> "ClassifierSettings":
        if set(self.rows) != set(ROWS):
            raise ValueError(f"rows {sorted(self.rows)}; give {', '.join(ROWS)}.")
        return self

    @staticmethod
    def uncalibrated(n_classes: int, draw_plan: DrawPlan) -> "ClassifierSettings":
        """Settings for a network of which nothing was measured: the scores as they are."""
        bias = (0.0,) * n_classes

        def posterior(row: Row) -> PosteriorCalibration:
            return PosteriorCalibration(
                row=row,
                generative_scale=None if row == "head" else 1.0,
                head_scale=None if row == "generative" else 1.0,
                class_bias=bias,
                n_cells=1,
            )

        nothing = ConformalCalibration(method="lac", scores=((),) * n_classes)
        return ClassifierSettings(
            draw_plan=draw_plan,
            rows={row: RowSettings(posterior=posterior(row), conformal=nothing) for row in ROWS},
            generative_blocks=draw_plan.n_blocks,
            fused_blocks=draw_plan.n_blocks,
        )

    @property
    def is_calibrated(self) -> bool:
        """Whether the probabilities were fitted on held-out cells."""
        return all(row.posterior.n_cells > 1 for row in self.rows.values())

    @property
    def weighting_function(self) -> Weighting:
        """The weighting as a function of log-SNR."""
        named = isinstance(self.weighting, str)
        return WEIGHTINGS[str(self.weighting)] if named else self.weighting  # type: ignore[return-value]

    @property
    def weighting_name(self) -> str:
        """`elbo`, `robust` or `learned`."""
        return self.weighting if isinstance(self.weighting, str) else "learned"
