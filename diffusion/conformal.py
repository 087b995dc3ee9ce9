"""Sets of classes that hold the true one at a chosen rate, and abstention at a chosen risk.

Both keep the results of held-out cells, so that whoever asks chooses the level. Both promise
something about new cells that come like the held-out ones, in the same mix of classes, and about
nothing else.

The set proper may be empty: where the classifier is right more often than the level asks, a set of
the right size has to leave some cells without any class, and those are the cells that are unlike
the rest. A set that always shows a class covers more than its level. So there are two sets,
`conforming`, whose rate is the level, and `shown`, which adds the best class where that is empty.

Shapes: n images, K classes of the model.
"""

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from math import ceil, log, log1p
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator
from scipy.special import bdtr, betaincinv, logsumexp

from diffusion.probability import Array, Labels, cells_by_class, log_odds, refuse_labels

Method = Literal["lac", "aps"]
"""`lac` has the smallest sets; `aps` more even ones over easy and hard images."""

DIGITS = 6
"""Scores are rounded so, in calibration and in use alike."""
LARGEST = 1e6
"""Stands for an infinite score in JSON."""
FIRST_THRESHOLD = 2
"""Calibrated verdicts above the strictest threshold err at a half of the risk at most."""
STEP = 0.1
"""From one threshold to the next, in nats."""


def keyed_uniforms(image_digests: Sequence[str], seed: int = 0) -> Array:
    """Two uniform numbers in [0, 1) that belong to each image: to break ties, for `aps`. (n, 2)

    An image gets the same ones in any batch or order.
    """
    keys = [hashlib.sha256(f"conformal:{seed}:{name}".encode()).digest() for name in image_digests]
    words = np.frombuffer(b"".join(key[:16] for key in keys), dtype=">u8").reshape(-1, 2)
    uniforms: Array = (words >> 11).astype(np.float64) * 2.0**-53
    return uniforms


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictionSet:
    """Classes that one image may be of."""

    conforming: tuple[int, ...]
    """The set proper, best class first: its rate of holding the true class is the level. It may be
    empty: then no class conforms, and the image is unlike the calibration cells of each."""
    shown: tuple[int, ...]
    """`conforming`, the classes that had to be kept, and the best class if that leaves none. Never
    empty; holds the true class at least as often as `conforming` does."""
    level: float
    is_classwise: bool


class ConformalCalibration(BaseModel):
    """Nonconformity scores of held-out cells, from which a set at any level follows."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    method: Method
    scores: tuple[tuple[float, ...], ...] = Field(min_length=2)
    """Of the cells of each class, ascending, with six digits; in the order of the classes."""

    @model_validator(mode="after")
    def _scores_ascend(self) -> Self:
        if any(list(of_class) != sorted(of_class) for of_class in self.scores):
            raise ValueError("Scores of a class do not ascend; make them with `fit_conformal`.")
        return self

    def conforming(
        self,
        log_probabilities: Array,
        level: float,
        *,
        uniforms: Array,
        classwise: bool = False,
        is_exact: bool = True,
    ) -> NDArray[np.bool_]:
        """Which classes conform at a level, for each image. (n, K)

        Among n calibration cells and the image itself, the rank of the true class's score is
        uniform. A class conforms if its rank is within the level's share of the n + 1.

        Args:
            log_probabilities: calibrated, of n images; minus infinity for a class that is no
                candidate, which then does not conform. (n, K)
            level: wanted rate of sets with the true class, in (0, 1).
            uniforms: from `keyed_uniforms`; break ties. (n, 2)
            classwise: compare with cells of the same class only (Mondrian), so that the rate holds
                in every class rather than on average over the calibration cells' mix. With declared
                candidates only this rate is promised: fewer rivals make no true class stranger,
                but the mix is another.
            is_exact: the share (n + 1) level is no whole number of ranks; True lets the last rank
                in by a keyed lot, so that the rate *is* the level for any n. False rounds up: the
                rate is `ceil((n + 1) level) / (n + 1)`, and all classes conform where n is too
                small for the level.

        Raises:
            ValueError: for a level outside (0, 1) or arrays that do not fit.

        Source: Vovk, Gammerman & Shafer (2005), "Algorithmic learning in a random world": smoothed
        and Mondrian conformal predictors.
        """
        if not 0 < level < 1:
            raise ValueError(f"level={level}; give a rate between 0 and 1, such as 0.9.")
        n_images, n_classes = log_probabilities.shape
        if n_classes != len(self.scores) or uniforms.shape != (n_images, 2):
            raise ValueError(
                f"Probabilities {log_probabilities.shape} and uniforms {uniforms.shape} for "
                f"{len(self.scores)} calibrated classes; give (n, classes) and (n, 2)."
            )
        new = nonconformity(log_probabilities, self.method, uniforms)
        everyone = np.sort(np.concatenate([np.asarray(of_class) for of_class in self.scores]))
        conforms = np.zeros(new.shape, dtype=np.bool_)
        for c in range(n_classes):
            known = np.asarray(self.scores[c]) if classwise else everyone
            n_below = np.searchsorted(known, new[:, c], side="left")
            n_tied = np.searchsorted(known, new[:, c], side="right") - n_below
            place = uniforms[:, 0] * (n_tied + 1)
            share = (len(known) + 1) * level
            if is_exact:
                conforms[:, c] = n_below + place < share
            else:
                # Less the rounding error of a share that is a whole number of ranks.
                conforms[:, c] = n_below + np.floor(place) < share - 1e-9
        return conforms & ~np.isneginf(log_probabilities)

    def prediction_set(
        self,
        log_probabilities: Array,
        level: float,
        *,
        uniforms: Array,
        classwise: bool = False,
        always: Collection[int] = (),
        is_exact: bool = True,
    ) -> PredictionSet:
        """The sets of one image; `always` are classes to show whatever their rank.

        Args:
            log_probabilities: calibrated. (K,)
            uniforms: of this image. (2,)
            always: such as those that racing left undecided.
            level, classwise, is_exact: see `conforming`.
        """
        (conforms,) = self.conforming(
            log_probabilities[None],
            level,
            uniforms=uniforms[None],
            classwise=classwise,
            is_exact=is_exact,
        )
        order = np.argsort(-log_probabilities, kind="stable").tolist()
        shown = [c for c in order if conforms[c] or c in always]
        return PredictionSet(
            conforming=tuple(c for c in order if conforms[c]),
            shown=tuple(shown or order[:1]),
            level=level,
            is_classwise=classwise,
        )


def fit_conformal(
    log_probabilities: Array, labels: Labels, *, uniforms: Array, method: Method = "lac"
) -> ConformalCalibration:
    """Scores of the true classes of held-out cells.

    Args:
        log_probabilities: calibrated, of n cells that neither trained the network nor, strictly,
            calibrated the probabilities. (n, K)
        labels: their classes. (n,)
        uniforms: from `keyed_uniforms`. (n, 2)
        method: see `nonconformity`.

    Raises:
        ValueError: if a class has no cell or labels do not fit.
    """
    n_cells, n_classes = log_probabilities.shape
    cells_by_class(labels, (n_cells, n_classes))
    of_true = nonconformity(log_probabilities, method, uniforms)[np.arange(n_cells), labels]
    return ConformalCalibration(
        method=method,
        scores=tuple(tuple(np.sort(of_true[labels == c]).tolist()) for c in range(n_classes)),
    )


def nonconformity(log_probabilities: Array, method: Method, uniforms: Array) -> Array:
    """How badly each class fits each image; more is worse. Rounded to six digits. (n, K)

    `lac`: minus the log-odds of the class against all others. The same order as 1 - p, without its
    ties where probabilities are 0 or 1 in floating point.
    `aps`: `-ln(1 - s)` with s the probability of all better classes and a uniform share of the
    class's own. The lot is drawn for every image: where one class has nearly all the probability,
    s is nearly that lot, and the set is empty for one image in ten at a level of 0.9.

    Source: LAC, Sadinle, Lei & Wasserman (2019); APS, Romano, Sesia & Candes (2020).
    """
    if method == "lac":
        return _rounded(-log_odds(log_probabilities))
    n_classes = log_probabilities.shape[1]
    own, other = log_probabilities[:, :, None], log_probabilities[:, None, :]
    comes_later = np.tri(n_classes, k=-1, dtype=np.bool_).T  # among classes that tie
    is_worse = (other < own) | ((other == own) & comes_later)
    of_worse = logsumexp(np.where(is_worse, other, -np.inf), axis=2)
    rest = np.log1p(-uniforms[:, 1:]) + log_probabilities
    return _rounded(np.minimum(-np.logaddexp(of_worse, rest), LARGEST))


@dataclass(frozen=True, slots=True, kw_only=True)
class AbstentionRule:
    """Give a verdict only if the best class's log-odds reach a threshold."""

    log_odds_min: float
    """Against all other classes together, in nats."""
    risk: float
    """Wanted largest rate of wrong verdicts among those that are given."""
    confidence_level: float
    """Rate of calibrations whose rule keeps to the risk, at least."""
    n_given: int
    """Calibration cells that reach the threshold."""
    n_wrong: int
    """Those of them whose best class is wrong."""
    risk_high: float
    """Upper limit of the rate of wrong verdicts (Clopper-Pearson, one-sided)."""
    n_cells: int

    @property
    def probability_min(self) -> float:
        """The threshold as a probability."""
        return float(1 / (1 + np.exp(-self.log_odds_min)))

    def abstains(self, log_probabilities: Array) -> NDArray[np.bool_]:
        """Whether to withhold the verdict on each image. (n, K) -> (n,)"""
        return _confidence(log_probabilities) < self.log_odds_min


class AbstentionCalibration(BaseModel):
    """Confidence of held-out cells' verdicts, from which a rule at any risk follows."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    right: tuple[float, ...]
    """Log-odds of the best class where it is the true one, ascending, with six digits."""
    wrong: tuple[float, ...]
    """The same where it is not."""
    n_classes: int = Field(ge=2)

    def rule(self, risk: float, *, confidence_level: float = 0.95) -> AbstentionRule:
        """The rule that abstains least and whose verdicts err at most at a rate of `risk`.

        Thresholds are tried from strict to lax. The first is where calibrated verdicts err at
        half the risk at most, the next ones are 0.1 nat lower each, and the last one is passed by
        every cell: a sequence that depends on no cell. At each, the errors among the cells that
        pass are binomial; the sequence ends before the first threshold where the upper limit of
        their rate exceeds the risk. So the rule returned exceeds the risk in at most
        1 - confidence_level of calibrations, whatever the probabilities are worth.

        Raises:
            ValueError: if the cells cannot show that risk; says how many could.

        Source: fixed sequence testing in Angelopoulos et al. (2021), "Learn then test"; Clopper &
        Pearson (1934).
        """
        for name, value in (("risk", risk), ("confidence_level", confidence_level)):
            if not 0 < value < 1:
                raise ValueError(f"{name}={value}; give a rate between 0 and 1.")
        n_cells = len(self.right) + len(self.wrong)
        n_needed = ceil(log1p(-confidence_level) / log1p(-risk))
        if n_cells < n_needed:
            raise ValueError(
                f"{n_cells} calibration cells cannot show a risk of {risk:g} with confidence "
                f"{confidence_level:g}: it takes {n_needed}, and more where some are wrong. Choose "
                "a higher risk or calibrate with more cells."
            )
        found: AbstentionRule | None = None
        for threshold in _thresholds(risk, self.n_classes):
            n_wrong = len(self.wrong) - int(np.searchsorted(self.wrong, threshold))
            n_given = len(self.right) - int(np.searchsorted(self.right, threshold)) + n_wrong
            if bdtr(n_wrong, n_given, risk) > 1 - confidence_level:
                break
            found = AbstentionRule(
                log_odds_min=threshold,
                risk=risk,
                confidence_level=confidence_level,
                n_given=n_given,
                n_wrong=n_wrong,
                risk_high=float(betaincinv(n_wrong + 1, n_given - n_wrong, confidence_level)),
                n_cells=n_cells,
            )
        if found is None:
            raise ValueError(
                f"A risk of {risk:g} cannot be shown with confidence {confidence_level:g}: of "
                f"{n_given} calibration cells with a probability above "
                f"{1 - risk / FIRST_THRESHOLD:g}, {n_wrong} are wrong; without an error it takes "
                f"{n_needed} such cells. Choose a higher risk or calibrate with more cells."
            )
        return found


def fit_abstention(log_probabilities: Array, labels: Labels) -> AbstentionCalibration:
    """Confidence of right and of wrong verdicts on held-out cells. (n, K), (n,)"""
    n_cells, n_classes = log_probabilities.shape
    refuse_labels(labels, (n_cells, n_classes))
    confidence = _confidence(log_probabilities)
    is_right = log_probabilities.argmax(axis=1) == labels
    return AbstentionCalibration(
        right=tuple(np.sort(confidence[is_right]).tolist()),
        wrong=tuple(np.sort(confidence[~is_right]).tolist()),
        n_classes=n_classes,
    )


def _confidence(log_probabilities: Array) -> Array:
    """Log-odds of the best class against all others. (n,)"""
    return _rounded(log_odds(log_probabilities).max(axis=1))


def _rounded(values: Array) -> Array:
    rounded: Array = np.round(values, DIGITS) + 0.0  # no negative zero
    return rounded


def _thresholds(risk: float, n_classes: int) -> list[float]:
    """Log-odds from strict to lax; the last one is that of equal probabilities."""
    error = risk / FIRST_THRESHOLD
    strictest, laxest = log1p(-error) - log(error), -log(n_classes - 1) - 1e-3
    n_steps = max(0, ceil((strictest - laxest) / STEP))
    return [max(strictest - STEP * i, laxest) for i in range(n_steps + 1)]
