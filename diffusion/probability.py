"""Calibrated probabilities from two kinds of evidence: generative scores and a head.

    logit_c = b_g k_c (S_c - S_w) + b_h H_c + a_c + ln prior_c
    k_c     = 1 / sqrt(1 + (pi / 8) (b_g e_c)^2)

S_c: score in weighted nats; w: the best scored candidate; e_c: Monte-Carlo error of S_c - S_w;
H_c: log-probability of the head; b, a: fitted on held-out cells.

Why k_c: S_c - S_w is an estimate. Given it, the true difference is taken as normal about it with
standard deviation e_c, and the probability of c against w is the mean of a logistic function under
that normal, which is nearly the logistic function of the mean times k_c (MacKay, 1992, "The
evidence framework applied to classification networks"; Bishop, 2006, eq. 4.153-4.154). However
large b_g, a difference then counts at most 1.6 times its size in standard errors. Only generative
evidence is damped: posterior odds stay evidence times prior odds, so that another prior can be put
in without fitting again.

Shapes: n images, K classes of the model.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log, pi
from typing import Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator
from scipy.optimize import minimize
from scipy.special import log_softmax, logsumexp

Array = NDArray[np.float64]
Labels = NDArray[np.int64]

Row = Literal["head", "generative", "fused"]
"""Which evidence decides; all three are always reported."""

BIAS_SD = 1.0
"""Prior standard deviation of a class bias, in nats: pulls the bias of a rare class to 0."""
LOG_SCALE_SD = 2.0
"""Prior standard deviation of a scale's logarithm. A dozen informative cells outweigh it; without
it, cells that are all told apart without an error would ask for an infinite scale."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What is known of n images before calibration; one column for each class of the model."""

    scores: Array | None = None
    """Generative scores in weighted nats, up to a constant of each image; NaN where a class has
    none. A class that racing eliminated keeps the difference it was eliminated with. (n, K)"""
    standard_errors: Array | None = None
    """Monte-Carlo errors of each score's distance to the best one, 0 for the best; None leaves
    them out, as must be with a single block. (n, K)"""
    head: Array | None = None
    """Log-probabilities of the head. (n, K)"""

    def __post_init__(self) -> None:
        given = [a for a in (self.scores, self.standard_errors, self.head) if a is not None]
        if self.scores is None and self.head is None:
            raise ValueError(
                "There is no evidence; give scores, log-probabilities of a head, both."
            )
        if len({array.shape for array in given}) > 1 or given[0].ndim != 2:
            shapes = ", ".join(str(array.shape) for array in given)
            raise ValueError(f"Evidence of shapes {shapes}; give (images, classes), all alike.")
        if self.standard_errors is not None:
            scored = np.zeros(self.shape) if self.scores is None else self.scores
            errors = self.standard_errors[~np.isnan(scored)]
            if self.scores is None or not (np.isfinite(errors) & (errors >= 0)).all():
                raise ValueError(
                    "Every score needs a standard error that is finite and not negative; a score "
                    "from a single block has none, so give standard_errors=None for all."
                )
        if self.scores is not None and np.isinf(self.scores).any():
            raise ValueError("A score is infinite; mark a class without a score with NaN.")
        if self.head is not None and not np.isfinite(self.head).all():
            raise ValueError("The head's log-probabilities are not finite; give its log-softmax.")

    @property
    def shape(self) -> tuple[int, int]:
        """Images and classes."""
        given = self.head if self.scores is None else self.scores
        assert given is not None
        n_images, n_classes = given.shape
        return n_images, n_classes

    def __len__(self) -> int:
        return self.shape[0]

    def take(self, images: NDArray[np.intp]) -> "Evidence":
        """The same of some images, by their numbers."""
        return Evidence(
            scores=None if self.scores is None else self.scores[images],
            standard_errors=None if self.standard_errors is None else self.standard_errors[images],
            head=None if self.head is None else self.head[images],
        )


class PosteriorCalibration(BaseModel):
    """How one row turns its evidence into probabilities; kept in a checkpoint."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    row: Row
    generative_scale: float | None = Field(default=None, ge=0)
    """b_g, per weighted nat: it belongs to one weighting and one draw plan. None for `head`."""
    head_scale: float | None = Field(default=None, ge=0)
    """b_h. None for `generative`."""
    class_bias: tuple[float, ...] = Field(min_length=2)
    """a_c in nats, centred, in the order of the model's classes."""
    n_cells: int = Field(ge=1)
    """Held-out cells that it was fitted on."""

    @model_validator(mode="after")
    def _scales_fit_the_row(self) -> Self:
        has = (self.generative_scale is not None, self.head_scale is not None)
        if has != (self.row != "head", self.row != "generative"):
            raise ValueError(
                f"Row `{self.row}` with generative_scale={self.generative_scale} and "
                f"head_scale={self.head_scale}; give the scales of its own evidence and no other."
            )
        return self

    def log_probabilities(
        self,
        evidence: Evidence,
        *,
        candidates: Sequence[int] | None = None,
        log_prior: Array | None = None,
    ) -> Array:
        """Log-probabilities of the candidate classes; minus infinity for the others. (n, K)

        The probabilities of the candidates sum to 1: the answer holds among them only.

        Of a candidate without a score (the head pruned it), nothing is counted against it but the
        head's evidence: its difference to the best score is taken as 0. On simulated cells that
        gave a smaller log-loss than the lowest score of the others in its place.

        Args:
            evidence: of n images.
            candidates: labels of at least two classes; all of them by default.
            log_prior: in nats, up to a constant; equal by default. (K,)

        Raises:
            ValueError: if the evidence is not the row's, lacks the scores it needs, or is of
                another number of classes; or if there are fewer than two candidates.
        """
        n_classes = len(self.class_bias)
        is_candidate = _is_candidate(candidates, n_classes)
        if evidence.shape[1] != n_classes:
            raise ValueError(
                f"Evidence of {evidence.shape[1]} classes for a calibration of {n_classes}; give "
                "one column for each class of the model, with NaN scores where there are none."
            )
        differences, errors, head = _parts(evidence, self.row, is_candidate)
        logits = np.broadcast_to(np.asarray(self.class_bias), evidence.shape)
        if self.generative_scale is not None:
            logits = logits + damped(self.generative_scale, differences, errors).value
        if self.head_scale is not None:
            logits = logits + self.head_scale * head
        if log_prior is not None:
            logits = logits + log_prior
        chosen: Array = log_softmax(np.where(is_candidate, logits, -np.inf), axis=1)
        return chosen


def fit_posterior(evidence: Evidence, labels: Labels, row: Row) -> PosteriorCalibration:
    """The scales and class biases under which the true classes are most probable.

    Maximum a posteriori of a multinomial logit. Classes count alike, as for equal prior
    probabilities; biases have a normal prior about 0, log-scales one about the scale that makes
    the spread of the scores one nat (1 for the head). Fit at the budget that is used later.

    Args:
        evidence: of n held-out cells.
        labels: their classes. (n,)
        row: the evidence to use.

    Raises:
        ValueError: if a class has no cell, labels do not fit, or the evidence is not the row's.

    Source: Guo et al. (2017), "On calibration of modern neural networks", section 4.2 (vector
    scaling with one scale for each kind of evidence).
    """
    n_cells, n_classes = evidence.shape
    counts = cells_by_class(labels, evidence.shape)
    is_true = np.eye(n_classes)[labels]
    weights = 1 / (counts[labels] * n_classes)  # of each cell; sum to 1
    differences, errors, head = _parts(evidence, row, np.ones(n_classes, dtype=np.bool_))
    uses_scores, uses_head = row != "head", row != "generative"
    start = np.array([-log(_spread(differences))] * uses_scores + [0.0] * uses_head)
    n_scales = len(start)

    def objective(parameters: Array) -> tuple[float, Array]:
        log_scales, bias = parameters[:n_scales], parameters[n_scales:]
        terms = []  # of each scale: what it adds to the logits, and the slope in its logarithm
        if uses_scores:
            scale = float(np.exp(log_scales[0]))
            value, slope = damped(scale, differences, errors)
            terms.append((value, scale * slope))
        if uses_head:
            value = np.exp(log_scales[-1]) * head
            terms.append((value, value))
        log_p = log_softmax(bias + sum(value for value, _ in terms), axis=1)
        excess = weights[:, None] * (np.exp(log_p) - is_true)
        off = (log_scales - start) / LOG_SCALE_SD
        penalty = 0.5 * (np.sum(off**2) + np.sum((bias / BIAS_SD) ** 2)) / n_cells
        slopes = [np.sum(excess * slope) for _, slope in terms]
        gradient = np.concatenate(
            [
                np.array(slopes) + off / LOG_SCALE_SD / n_cells,
                excess.sum(axis=0) + bias / BIAS_SD**2 / n_cells,
            ]
        )
        return float(penalty - weights @ log_p[np.arange(n_cells), labels]), gradient

    fitted = minimize(
        objective,
        np.concatenate([start, np.zeros(n_classes)]),
        jac=True,
        method="L-BFGS-B",
        bounds=[(s - 12, s + 12) for s in start] + [(None, None)] * n_classes,
        options={"maxiter": 1000, "gtol": 1e-7, "ftol": 1e-14},
    )
    scales, bias = np.exp(fitted.x[:n_scales]).tolist(), fitted.x[n_scales:]
    return PosteriorCalibration(
        row=row,
        generative_scale=scales[0] if uses_scores else None,
        head_scale=scales[-1] if uses_head else None,
        class_bias=tuple((bias - bias.mean()).tolist()),
        n_cells=n_cells,
    )


class Damped(NamedTuple):
    """Generative evidence with its Monte-Carlo error folded in, and its slope in the scale."""

    value: Array
    slope: Array


def damped(scale: float, differences: Array, errors: Array) -> Damped:
    """`b d / sqrt(1 + (pi / 8) (b e)^2)` and its derivative in b. (n, K) each

    Args:
        scale: b, per weighted nat.
        differences: d, of scores to the best one. (n, K)
        errors: e, their Monte-Carlo errors; 0 leaves a difference as it is. (n, K)
    """
    k = 1 / np.sqrt(1 + pi / 8 * (scale * errors) ** 2)
    return Damped(scale * k * differences, k**3 * differences)


def log_odds(log_probabilities: Array) -> Array:
    """Log-odds of each class against all others together, in nats. (n, K)

    From the others' probabilities, not from 1 - p: it still tells apart probabilities that are
    all 1 in floating point. Kept within +-1e6, so that a class without a rival has a number.
    """
    n_classes = log_probabilities.shape[1]
    of_others = np.where(np.eye(n_classes, dtype=np.bool_), -np.inf, log_probabilities[:, None, :])
    against = logsumexp(of_others, axis=-1)
    both_nothing = np.isneginf(log_probabilities) & np.isneginf(against)
    odds = log_probabilities - np.where(both_nothing, 0.0, against)
    return np.clip(odds, -1e6, 1e6)


def difference_of_scores(evidence: Evidence, first: int, second: int) -> tuple[Array, Array | None]:
    """Scores of one class minus another's and the standard errors, in weighted nats. (n,) each

    Errors are known against the best class. Between two others they are at most the sum of both
    (triangle inequality of standard deviations), which is what is given.
    """
    if evidence.scores is None:
        raise ValueError("There are no generative scores; only `generative` and `fused` have some.")
    difference = evidence.scores[:, first] - evidence.scores[:, second]
    if evidence.standard_errors is None:
        return difference, None
    return difference, evidence.standard_errors[:, first] + evidence.standard_errors[:, second]


def cells_by_class(labels: Labels, shape: tuple[int, int]) -> NDArray[np.int64]:
    """Number of cells of each class. (K,)

    Raises:
        ValueError: if labels are not those of `shape` (images, classes), or a class has no cell.
    """
    refuse_labels(labels, shape)
    counts = np.bincount(labels, minlength=shape[1]).astype(np.int64)
    if not counts.all():
        missing = ", ".join(map(str, np.flatnonzero(counts == 0)))
        raise ValueError(
            f"No calibration cell of class {missing}; add held-out cells of every class, or train "
            "without it."
        )
    return counts


def refuse_labels(labels: Labels, shape: tuple[int, int]) -> None:
    """Raise ValueError unless labels are those of `shape` (images, classes)."""
    n_cells, n_classes = shape
    if n_cells == 0 or labels.shape != (n_cells,):
        raise ValueError(f"{labels.size} labels for {n_cells} cells; give one for each.")
    if labels.min() < 0 or labels.max() >= n_classes:
        raise ValueError(
            f"Labels from {labels.min()} to {labels.max()} for {n_classes} classes; number them 0 "
            f"to {n_classes - 1} in the model's order."
        )


def _parts(
    evidence: Evidence, row: Row, is_candidate: NDArray[np.bool_]
) -> tuple[Array, Array, Array]:
    """Differences to the best candidate, their errors, and the head's evidence. (n, K) each"""
    nothing = np.zeros(evidence.shape)
    if row != "generative" and evidence.head is None:
        raise ValueError(f"Row `{row}` needs the head's log-probabilities, and there are none.")
    head = nothing if evidence.head is None or row == "generative" else evidence.head
    if row == "head":
        return nothing, nothing, head
    if evidence.scores is None:
        raise ValueError(f"Row `{row}` needs generative scores, and there are none.")
    scores = np.where(is_candidate, evidence.scores, np.nan)
    is_scored = ~np.isnan(scores)
    if row == "generative" and not is_scored[:, is_candidate].all():
        raise ValueError(
            "Row `generative` needs a score of every candidate class; let no head prune them."
        )
    if not is_scored.any(axis=1).all():
        raise ValueError("An image has no scored candidate; score at least one of its candidates.")
    errors = nothing if evidence.standard_errors is None else evidence.standard_errors
    images, best = np.arange(len(evidence)), np.nanargmax(scores, axis=1)
    differences = np.where(is_scored, scores - scores[images, best][:, None], 0.0)
    # Where the best of all classes is no candidate, errors are still those of distances to it.
    errors = np.where(is_scored, errors + errors[images, best][:, None], 0.0)
    errors[images, best] = 0.0
    return differences, errors, head


def _spread(differences: Array) -> float:
    """Typical standard deviation of an image's scores over the classes; 1 if they are all alike."""
    spread = float(np.median(differences.std(axis=1)))
    return spread if spread > 0 else 1.0


def _is_candidate(candidates: Sequence[int] | None, n_classes: int) -> NDArray[np.bool_]:
    if candidates is None:
        return np.ones(n_classes, dtype=np.bool_)
    chosen = set(candidates)
    if len(chosen) < 2 or len(chosen) != len(candidates) or not chosen <= set(range(n_classes)):
        raise ValueError(
            f"candidates={list(candidates)}; give at least two different classes of 0 to "
            f"{n_classes - 1}."
        )
    is_candidate = np.zeros(n_classes, dtype=np.bool_)
    is_candidate[list(chosen)] = True
    return is_candidate
