"""Metacognition: does a reader's confidence know when the reader is right?

Type 1 is the judgement, real or generated; type 2 is the confidence in it, right or wrong. Type-2
AUC says how well confidence separates right from wrong answers, and grows with d′ as well. Meta-d′
is the d′ at which an ideal observer would be as good at that; over d′ (the M-ratio) it is 1 for
confidence that uses all the reader saw.

K confidence levels, 2K ratings. Counts run from the surest "real" (first) to the surest "generated"
(last), as `studies.roc.rating_counts` gives them. (2K,) Published code calls them nR_S1 (noise) and
nR_S2 (signal).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import sqrt
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri
from scipy.stats import chi2, norm

from studies.binormal import fit_ordinal_probit
from studies.estimate import Estimate, check_level
from studies.roc import Roc, auc_from_counts, empirical_roc

Array = NDArray[np.float64]
Criterion = Literal["relative", "absolute"]

LIMIT = 10.0
"""Meta-d′ is looked for in ±10, as in the published programs."""
STARTS = (0.25, 1.0, 2.0, -1.0)
"""Where the search for meta-d′ begins; the best end counts."""


class MetacognitionError(ValueError):
    """Counts that are no confidence ratings of a two-choice task, with what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MetaDPrime:
    """Meta-d′ of one reader, and what it was fitted with."""

    meta_d_prime: Estimate
    m_ratio: Estimate
    """Meta-d′ / d′."""
    d_prime: float | None
    criterion: float | None
    """Of the answers alone, from the padded counts."""
    criteria_real: tuple[float, ...]
    criteria_generated: tuple[float, ...]
    """Where confidence rises by one level, from the first on, in meta-d′ space. For "real" they
    descend, for "generated" they ascend. A level that was not used has no criterion."""
    log_likelihood: float | None
    """Of the confidence levels, given pictures and answers."""
    padding: float
    """Added to each of the 4K counts."""
    fixed_criterion: Criterion
    n_trials: int


def type_2_roc(noise_counts: ArrayLike, signal_counts: ArrayLike) -> Roc | None:
    """The type-2 ROC curve: "signal" is a right answer, and the score is confidence, 1 to K.

    None where all answers are right, or all wrong.

    Raises:
        MetacognitionError: if the counts are no 2K whole numbers from 0 up.
    """
    right, wrong = (side.sum(axis=0) for side in _by_answer(*_counts(noise_counts, signal_counts)))
    levels = np.arange(1, len(right) + 1)
    of_wrong, of_right = (np.repeat(levels, side.astype(np.int64)) for side in (wrong, right))
    is_right = np.arange(len(of_wrong) + len(of_right)) >= len(of_wrong)
    return empirical_roc(np.concatenate([of_wrong, of_right]), is_right)


def type_2_auc(
    noise_counts: ArrayLike,
    signal_counts: ArrayLike,
    *,
    confidence_level: float = 0.95,
    logit_interval: bool = False,
) -> Estimate:
    """P(a right answer is surer than a wrong one) + ½ P(equally sure). ½ is no insight.

    The plain pairwise statistic, without padding; DeLong's interval takes answers as independent,
    and their being right or wrong as given. It is not free of d′: compare readers by the M-ratio.

    Raises:
        MetacognitionError: if the counts are no 2K whole numbers from 0 up.

    Source: Fleming & Lau (2014).
    """
    right, wrong = (side.sum(axis=0) for side in _by_answer(*_counts(noise_counts, signal_counts)))
    found = auc_from_counts(
        wrong, right, confidence_level=confidence_level, logit_interval=logit_interval
    )
    reason = found.reason
    if reason is not None:
        if not right.sum() or not wrong.sum():
            reason = _all_right_or_wrong(right, wrong)
        elif min(right.sum(), wrong.sum()) < 2:
            reason = "the variance needs at least 2 right and 2 wrong answers"
        elif np.count_nonzero(right + wrong) == 1:
            reason = "one confidence level was used, so that the variance is 0"
        else:
            reason = "confidence separates right from wrong completely, so that the variance is 0"
    return replace(
        found, method=found.method.replace("empirical AUC", "type-2 AUC, pairwise"), reason=reason
    )


def type_2_auc_padded(
    noise_counts: ArrayLike, signal_counts: ArrayLike, *, padding: float = 0.5
) -> Estimate:
    """Type-2 AUC as metadpy and HMeta-d compute it: trapezoids under padded rates.

    `padding` is added to each of the 4K counts, so twice that to the right and to the wrong answers
    of each confidence level. It draws the area towards ½; it is here for comparison with published
    values and has no interval.

    Raises:
        MetacognitionError: if the counts are no 2K whole numbers from 0 up, or padding is negative.

    Source: Fleming & Lau (2014); metadpy, `roc_auc`.
    """
    noise, signal = _counts(noise_counts, signal_counts)
    _refuse_padding(padding)
    right, wrong = (side.sum(axis=0) for side in _by_answer(noise + padding, signal + padding))
    method = f"type-2 AUC by trapezoids, {padding:g} added to each count"
    if not right.sum() or not wrong.sum():
        reason = _all_right_or_wrong(right, wrong)
        return Estimate.not_estimable(method, reason, confidence_level=0.95)
    hit_rates = np.concatenate([[0.0], np.cumsum(right[::-1]) / right.sum()])
    false_alarm_rates = np.concatenate([[0.0], np.cumsum(wrong[::-1]) / wrong.sum()])
    return Estimate.not_estimable(
        method,
        "padded rates have no standard interval; `type_2_auc` has one",
        confidence_level=0.95,
        estimate=float(np.trapezoid(hit_rates, false_alarm_rates)),
    )


def meta_d_prime(
    noise_counts: ArrayLike,
    signal_counts: ArrayLike,
    *,
    padding: float | None = None,
    fixed_criterion: Criterion = "relative",
    confidence_level: float = 0.95,
) -> MetaDPrime:
    """Meta-d′ and the M-ratio of one reader by maximum likelihood.

    Given the picture and the answer, confidence is a cut of a normal distribution with mean ±m/2,
    m = meta-d′, on the answer's side of a criterion that is held fixed: m c′ with c′ = c/d′
    ("relative", Maniscalco & Lau), or c itself ("absolute", as HMeta-d). m and the 2(K − 1) cuts
    are fitted together.

    The interval of meta-d′ is from the profile likelihood; that of the M-ratio is Fieller's, with
    the errors of d′ and of the fixed criterion carried through. Both cover 94 to 98 % in
    simulations with 20 to 200 pictures of each kind, where d′ is told from 0; where it is not there
    is no M-ratio, and c′ and so the relative meta-d′ have no interval.

    Args:
        padding: added to each of the 4K counts, always and not only to zeros; it makes small
            samples finite and changes meta-d′ in the second decimal. None is 1/(2K), for d′ the
            log-linear correction. 0 fits the counts as they are.

    Raises:
        MetacognitionError: if the counts are no 2K whole numbers from 0 up, padding is negative, or
            the level is not in (0, 1).

    Source: Maniscalco & Lau (2012, 2014); variance of two-step estimates: Murphy & Topel (1985).
    Checked against metadpy.
    """
    noise, signal = _counts(noise_counts, signal_counts)
    n_levels = len(noise) // 2
    if padding is None:
        padding = 1 / (2 * n_levels)
    _refuse_padding(padding)
    check_level(confidence_level, MetacognitionError)
    reason = _no_meta_d_prime(noise, signal, padding)
    type_1 = None if reason else _Type1.of(noise + padding, signal + padding)
    if type_1 is not None and fixed_criterion == "relative" and abs(type_1.d_prime) < 1e-3:
        reason = (
            "d′ is 0, so that the criterion relative to it is not determined; hold the criterion "
            'itself (fixed_criterion="absolute")'
        )
    model = None
    if type_1 is not None and reason is None:
        model = _Model(
            *_by_answer(noise + padding, signal + padding),
            type_1.fixed(fixed_criterion)[0],
            fixed_criterion,
        )
        if not model.is_inside():
            reason = f"the likelihood has no maximum between meta-d′ of {-LIMIT:g} and {LIMIT:g}"
            model = None
    padded = f"{padding:g} added to each count, {fixed_criterion} criterion held"
    if type_1 is None or model is None:
        assert reason is not None
        of_meta, of_ratio = (
            Estimate.not_estimable(
                f"{name}, maximum likelihood, {padded}", reason, confidence_level
            )
            for name in ("meta-d′", "M-ratio")
        )
    else:
        of_meta = _meta_estimate(model, type_1, confidence_level, padded)
        of_ratio = _ratio_estimate(model, type_1, confidence_level, padded)
    real, generated = model.criteria() if model else ((), ())
    return MetaDPrime(
        meta_d_prime=of_meta,
        m_ratio=of_ratio,
        d_prime=type_1.d_prime if type_1 else None,
        criterion=type_1.criterion if type_1 else None,
        criteria_real=real,
        criteria_generated=generated,
        log_likelihood=model.log_likelihood if model else None,
        padding=padding,
        fixed_criterion=fixed_criterion,
        n_trials=int(noise.sum() + signal.sum()),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Type1:
    """d′ and criterion of padded counts, and the covariance of their errors."""

    d_prime: float
    criterion: float
    covariance: Array

    @staticmethod
    def of(noise: Array, signal: Array) -> "_Type1":
        n_levels = len(noise) // 2
        deviates, variances = [], []
        for counts in (signal, noise):
            rate = counts[n_levels:].sum() / counts.sum()
            deviate = float(ndtri(rate))
            deviates.append(deviate)
            variances.append(rate * (1 - rate) / (counts.sum() * float(norm.pdf(deviate)) ** 2))
        of_d, cross = sum(variances), -(variances[0] - variances[1]) / 2
        return _Type1(
            d_prime=deviates[0] - deviates[1],
            criterion=-(deviates[0] + deviates[1]) / 2,
            covariance=np.array([[of_d, cross], [cross, of_d / 4]]),
        )

    def fixed(self, which: Criterion) -> tuple[float, Array]:
        """The criterion that is held fixed, and its slopes by d′ and by c."""
        if which == "absolute":
            return self.criterion, np.array([0.0, 1.0])
        relative = self.criterion / self.d_prime
        return relative, np.array([-relative / self.d_prime, 1 / self.d_prime])

    def is_told_from_0(self, confidence_level: float) -> bool:
        z = float(ndtri(0.5 + confidence_level / 2))
        return abs(self.d_prime) > z * sqrt(self.covariance[0, 0])


class _Model:
    """The likelihood of confidence, given picture and answer, and its maximum.

    The four distributions are: "generated" right and wrong, "real" right and wrong. Boundaries are
    counted from the criterion towards more confidence, so that "real" is the mirror image. The
    parameters are meta-d′ and, for each answer, the distances of the cuts from the criterion.
    """

    def __init__(self, right: Array, wrong: Array, fixed: float, which: Criterion) -> None:
        used = right + wrong > 0
        # A level that was not used has no width; the others move up.
        order = np.argsort(~used, axis=1, kind="stable")
        right, wrong = (np.take_along_axis(side, order, axis=1) for side in (right, wrong))
        self.n_used = used.sum(axis=1)
        self.counts = np.stack([right[0], wrong[0], right[1], wrong[1]])
        self.which = which
        self.n_levels = right.shape[1]
        self.fixed = fixed
        self.parameters, self.log_likelihood, self.hessian = self._maximum(fixed, STARTS)
        self.meta_d_prime = float(self.parameters[0])

    def _boundaries(self, fixed: float) -> tuple[Array, Array]:
        """Offset (4, K + 1) and design (4, K + 1, 2K − 1) of the boundaries."""
        k = self.n_levels
        offset, design = np.zeros((4, k + 1)), np.zeros((4, k + 1, 2 * k - 1))
        for row, (sign, half) in enumerate(((1, -0.5), (1, 0.5), (-1, -0.5), (-1, 0.5))):
            n_cuts = self.n_used[row // 2]
            offset[row, n_cuts:] = np.inf
            relative = sign * fixed if self.which == "relative" else 0.0
            design[row, :n_cuts, 0] = relative + half
            offset[row, :n_cuts] += sign * fixed if self.which == "absolute" else 0.0
            cuts = np.arange(1, n_cuts)
            design[row, cuts, cuts + (row // 2) * (k - 1)] = 1
        return offset, design

    def _start(self, meta: float, fixed: float) -> Array:
        """Cuts that would give the levels of all answers, right or wrong, at this meta-d′."""
        offset, design = self._boundaries(fixed)
        parameters = np.zeros(design.shape[2])
        parameters[0] = meta
        for row in (0, 2):
            n_cuts, levels = self.n_used[row // 2], self.counts[row] + self.counts[row + 1]
            lowest = offset[row, 0] + design[row, 0, 0] * meta
            at_least = np.cumsum(levels[::-1])[::-1][1:n_cuts] / levels.sum()
            kept = np.clip(at_least * ndtr(-lowest), 1e-300, None)
            cuts = -ndtri(kept) - lowest
            first = 1 + (row // 2) * (self.n_levels - 1)
            # Far in the tail they fall together; any order will do to begin with.
            rising = np.all(np.diff(np.concatenate([[0.0], cuts])) > 0)
            parameters[first : first + n_cuts - 1] = cuts if rising else np.arange(1, n_cuts) * 0.3
        return parameters

    def _maximum(self, fixed: float, starts: Sequence[float]) -> tuple[Array, float, Array]:
        """Parameters, log-likelihood and Hessian at the best end of a search from each start."""
        offset, design = (
            np.repeat(part[None], len(starts), axis=0) for part in self._boundaries(fixed)
        )
        counts = np.repeat(self.counts[None], len(starts), axis=0)
        begin = np.stack([self._start(start, fixed) for start in starts])
        parameters, values, hessians = fit_ordinal_probit(offset, design, counts, begin)
        best = int(values.argmax())
        return parameters[best], float(values[best]), hessians[best]

    def is_inside(self) -> bool:
        """Whether the best meta-d′ is a maximum within the limits, and not on the way out."""
        curvature = self._information()
        return (
            abs(self.meta_d_prime) < LIMIT
            and bool(np.isfinite(curvature).all())
            and bool(np.linalg.eigvalsh(curvature).min() > 1e-9 * np.trace(curvature))
        )

    def _information(self) -> Array:
        """Minus the Hessian, of the parameters that some boundary depends on."""
        used = np.flatnonzero(np.diag(self.hessian) != 0)
        return -self.hessian[np.ix_(used, used)]

    def profile(self, meta: float) -> float:
        """The highest log-likelihood at a given meta-d′."""
        offset, design = self._boundaries(self.fixed)
        offset = offset + design[:, :, 0] * meta
        design[:, :, 0] = 0
        start = self.parameters
        found = fit_ordinal_probit(offset[None], design[None], self.counts[None], start[None])
        return float(found[1][0])

    def profile_limit(self, side: int, confidence_level: float) -> float | None:
        """Where the profile likelihood has fallen by half a χ² quantile; None if not within ±10."""
        drop = float(chi2.ppf(confidence_level, 1)) / 2

        def height(meta: float) -> float:
            return self.profile(meta) - self.log_likelihood + drop

        inner, step = self.meta_d_prime, 2 * sqrt(self.variance())
        while abs(inner) < LIMIT:
            outer = inner + side * step
            if height(outer) < 0:
                return float(brentq(height, inner, outer, xtol=1e-7))
            inner = outer
        return None

    def variance(self) -> float:
        """Of meta-d′, as if the fixed criterion were known."""
        return float(np.linalg.inv(self._information())[0, 0])

    def slope_by_fixed(self) -> float:
        """How meta-d′ moves with the criterion that is held fixed."""
        step = 1e-4
        up, down = (
            self._maximum(self.fixed + sign * step, [self.meta_d_prime])[0][0] for sign in (1, -1)
        )
        return float(up - down) / (2 * step)

    def criteria(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Cuts of "real" and of "generated", in meta-d′ space."""
        scale = self.meta_d_prime if self.which == "relative" else 1.0
        centre, k = self.fixed * scale, self.n_levels
        generated = self.parameters[1 : self.n_used[0]]
        real = self.parameters[k : k + self.n_used[1] - 1]
        return tuple((centre - real).tolist()), tuple((centre + generated).tolist())


def _meta_estimate(model: _Model, type_1: _Type1, confidence_level: float, padded: str) -> Estimate:
    method = f"meta-d′, maximum likelihood, {padded}, profile-likelihood interval"
    if model.which == "relative" and not type_1.is_told_from_0(confidence_level):
        return Estimate.not_estimable(
            method,
            "d′ is not told from 0, so that the criterion relative to it is hardly known; hold the "
            'criterion itself (fixed_criterion="absolute")',
            confidence_level,
            model.meta_d_prime,
        )
    limits = [model.profile_limit(side, confidence_level) for side in (-1, 1)]
    if limits[0] is None or limits[1] is None:
        bound = -LIMIT if limits[0] is None else LIMIT
        return Estimate.not_estimable(
            method,
            f"the likelihood does not exclude a meta-d′ of {bound:g}",
            confidence_level,
            model.meta_d_prime,
        )
    _, slopes = type_1.fixed(model.which)
    from_fixed = model.slope_by_fixed() ** 2 * float(slopes @ type_1.covariance @ slopes)
    return Estimate(
        estimate=model.meta_d_prime,
        ci_low=limits[0],
        ci_high=limits[1],
        standard_error=sqrt(model.variance() + from_fixed),
        confidence_level=confidence_level,
        method=method,
    )


def _ratio_estimate(
    model: _Model, type_1: _Type1, confidence_level: float, padded: str
) -> Estimate:
    """Fieller's interval: the ratios M for which m − M d′ is not told from 0."""
    method = f"M-ratio, {padded}, Fieller's interval"
    meta, d = model.meta_d_prime, type_1.d_prime
    if not type_1.is_told_from_0(confidence_level):
        return Estimate.not_estimable(
            method,
            "d′ is not told from 0, and a ratio to it has no bounds",
            confidence_level,
            meta / d if abs(d) > 1e-3 else None,
        )
    _, slopes = type_1.fixed(model.which)
    along = model.slope_by_fixed() * slopes
    of_meta = model.variance() + float(along @ type_1.covariance @ along)
    of_d, cross = float(type_1.covariance[0, 0]), float((type_1.covariance @ along)[0])
    z2 = float(ndtri(0.5 + confidence_level / 2)) ** 2
    # (m − M d)² = z² (var m − 2 M cov + M² var d), a quadratic in M that opens upwards.
    square, linear = d**2 - z2 * of_d, meta * d - z2 * cross
    root = sqrt(max(linear**2 - square * (meta**2 - z2 * of_meta), 0.0))
    ratio = meta / d
    return Estimate(
        estimate=ratio,
        ci_low=(linear - root) / square,
        ci_high=(linear + root) / square,
        standard_error=sqrt(of_meta - 2 * ratio * cross + ratio**2 * of_d) / abs(d),
        confidence_level=confidence_level,
        method=method,
    )


def _no_meta_d_prime(noise: Array, signal: Array, padding: float) -> str | None:
    """Why these counts determine no meta-d′, whatever is added to them; None if they may."""
    if not noise.sum() or not signal.sum():
        return f"no {'real' if not noise.sum() else 'generated'} picture was judged"
    right, wrong = _by_answer(noise, signal)
    if not right.sum() or not wrong.sum():
        return _all_right_or_wrong(right, wrong)
    for side, answer in ((1, "generated"), (0, "real")):
        if not (right[side] + wrong[side]).sum():
            return f"every picture was called {answer}"
    by_picture = [side for counts in (noise, signal) for side in np.split(counts, 2)]
    if not padding and not all(side.sum() for side in by_picture):
        return "every picture of one kind was called the same, and without padding d′ is infinite"
    if (np.count_nonzero(right + wrong, axis=1) < 2).all():
        return "one confidence level was used with each answer"
    # Pairs of one right and one wrong, given the same answer, with one of them surer.
    surer_right = surer_wrong = 0.0
    for of_right, of_wrong in zip(right, wrong, strict=True):
        surer_right += float(of_right[1:] @ np.cumsum(of_wrong)[:-1])
        surer_wrong += float(of_wrong[1:] @ np.cumsum(of_right)[:-1])
    if not surer_right and not surer_wrong:
        return "right and wrong answers of the same kind were always equally sure"
    if not surer_wrong:
        return "no wrong answer was surer than a right one of the same kind"
    if not surer_right:
        return "no right answer was surer than a wrong one of the same kind"
    return None


def _all_right_or_wrong(right: Array, wrong: Array) -> str:
    if not right.sum() and not wrong.sum():
        return "no picture was judged"
    return f"every answer was {'right' if right.sum() else 'wrong'}"


def _by_answer(noise: Array, signal: Array) -> tuple[Array, Array]:
    """Right and wrong answers by answer ("generated", then "real") and confidence. (2, K) each"""
    k = len(noise) // 2
    return (
        np.stack([signal[k:], noise[:k][::-1]]),
        np.stack([noise[k:], signal[:k][::-1]]),
    )


def _counts(noise_counts: ArrayLike, signal_counts: ArrayLike) -> tuple[Array, Array]:
    noise = np.asarray(noise_counts, dtype=np.float64)
    signal = np.asarray(signal_counts, dtype=np.float64)
    if noise.shape != signal.shape or noise.ndim != 1 or not len(noise) or len(noise) % 2:
        raise MetacognitionError(
            f"{noise.size} counts of real and {signal.size} of generated pictures are not the same "
            'even number; give K of "real", surest first, and K of "generated", surest last.'
        )
    for name, counts in (("real", noise), ("generated", signal)):
        wrong = ~((counts >= 0) & (counts == np.floor(counts)) & np.isfinite(counts))
        if wrong.any():
            rating = int(wrong.argmax())
            raise MetacognitionError(
                f"{counts[rating]:g} {name} pictures with rating {rating + 1} is no count; write a "
                "whole number from 0 up, and give `padding` apart."
            )
    return noise, signal


def _refuse_padding(padding: float) -> None:
    if not 0 <= padding < np.inf:
        raise MetacognitionError(f"padding={padding}; give 0, or a small number such as 0.5.")
