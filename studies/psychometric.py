"""Psychometric functions: how the proportion of right answers rises with how easy a case is.

    ψ(x) = γ + (1 − λ − γ) S(x),    n_correct ~ beta-binomial(n_trials, ψ, η)

The `threshold` is where the unscaled sigmoid S is ½, the `width` is the distance of its 5 % and
95 % points, `lambda` is the lapse rate λ, `gamma` the guess rate γ, `eta` the over-dispersion η:
proportions of blocks scatter with variance η² ψ (1 − ψ) beyond chance. Parameters, priors and
bounds are those of psignifit 4; the posterior is our own, or psignifit's where wanted. The headline
is the level at 80 % of the unscaled sigmoid, where lapses and guesses do not count.

B blocks of trials, each at one level; a posterior has axes E, G, L, T, W for eta, gamma, lambda,
threshold, width. Thresholds and widths are in the units of the index.

Source: Schütt, Harmeling, Macke & Wichmann (2016), Vision Research 122:105–123.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from math import inf, isfinite, sqrt
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import CubicSpline
from scipy.optimize import minimize
from scipy.special import expit, gammaln, logit, ndtr, ndtri, xlogy

from studies.estimate import Estimate

Array = NDArray[np.float64]
SigmoidName = Literal["normal", "logistic", "gumbel", "rgumbel", "cauchy"]
"""`gumbel` on the logarithm of the level is the Weibull function; `rgumbel` is its mirror image."""

PARAMETERS = ("eta", "gamma", "lambda", "threshold", "width")
FEWEST_TRIALS = 20
"""With fewer the prior decides, however the trials fall."""
FLAT_P = 0.05
"""Correctness that does not rise with the level, by a one-sided trend test, gives no threshold."""
SMALLEST_ETA = 10**-4.5
"""Below it (η² = 1e-9) the beta-binomial is the binomial to nine digits; η = 0 is reported so."""

_COARSE = {"eta": 8, "gamma": 8, "lambda": 8, "threshold": 25, "width": 25}
_FINE = {"eta": 10, "gamma": 1, "lambda": 14, "threshold": 40, "width": 40}
_FINE_FREE_GUESS = {"eta": 8, "gamma": 10, "lambda": 10, "threshold": 32, "width": 32}
_NEGLIGIBLE_MASS = 1e-6


class PsychometricError(ValueError):
    """Trials or settings that make no psychometric function: which, and what to do instead."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Blocks:
    """Trials counted in blocks along the index, which is the input of a fit. (B,)"""

    levels: Array
    """Mean index of the trials of each block."""
    lowest: Array
    highest: Array
    """The smallest and the largest index in each block."""
    n_correct: NDArray[np.int64]
    n_trials: NDArray[np.int64]
    rule: str
    """How the trials were divided, as a methods section would say it."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Marginal:
    """Posterior distribution of one quantity, to be drawn or compared. (n,)"""

    values: Array
    density: Array
    cdf: Array
    """It need not run from 0 to 1: the mass of an infinite threshold lies outside `values`."""

    def quantile(self, probability: float) -> float | None:
        """The value with `probability` below it; None where that is infinite."""
        if not self.cdf[0] <= probability <= self.cdf[-1]:
            return None
        return float(np.interp(probability, self.cdf, self.values))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PsychometricFit:
    """The curve of one observer: posterior medians and equal-tailed credible intervals."""

    threshold_unscaled: Estimate
    """Level at `proportion_correct` of the unscaled sigmoid: lapses and guesses do not count."""
    threshold_scaled: Estimate
    """Level at which ψ itself is `proportion_correct`; the curve may never be."""
    threshold: Estimate
    """Level at ½ of the unscaled sigmoid: the parameter that psignifit calls threshold."""
    width: Estimate
    lapse_rate: Estimate
    guess_rate: Estimate
    eta: Estimate
    maximum: Mapping[str, float]
    """Joint mode of the posterior (MAP), by psignifit's names of the five parameters; and the
    `threshold_unscaled` that it implies."""
    mean: Mapping[str, float]
    """Posterior means of the five parameters."""
    marginals: Mapping[str, Marginal]
    """Of the parameters that were not fixed, and of the two thresholds at `proportion_correct`."""
    proportion_correct: float
    levels: Array
    n_correct: NDArray[np.int64]
    n_trials: NDArray[np.int64]
    sigmoid: SigmoidName
    confidence_level: float
    method: str
    cautions: tuple[str, ...]
    reason: str | None
    """Why there is no curve, as a clause; None where there is one."""
    posterior: "_Posterior | None" = field(repr=False)

    @property
    def is_estimable(self) -> bool:
        """Whether there is a curve."""
        return self.posterior is not None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PlotData:
    """What a figure of one curve shows, in the units of the index and as proportions."""

    levels: Array
    proportion: Array
    """Posterior median of ψ, level by level."""
    band_low: Array
    band_high: Array
    """Pointwise credible band of ψ."""
    point_levels: Array
    point_proportions: Array
    point_n_trials: NDArray[np.int64]
    """For the area of the points."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ThresholdDifference:
    """One observer's threshold minus another's."""

    difference: Estimate
    probability_greater: float | None
    """Posterior probability that the first threshold exceeds the second."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Observer:
    """One reader or model on the common axis."""

    name: str
    n_trials: int
    n_correct: int
    n_left_out: int
    """Trials whose index is missing, such as a case that no other reader judged."""
    blocks: Blocks
    fit: PsychometricFit


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Comparison:
    """Readers and models on one axis of discriminability."""

    index: str
    stimulus_range: tuple[float, float] | None
    """Range of the levels of all observers, which sets the same prior for each."""
    observers: tuple[Observer, ...]
    probability_greater: tuple[tuple[float | None, ...], ...]
    """Posterior probability that the row's unscaled threshold exceeds the column's."""

    def table(self) -> pd.DataFrame:
        """One row for each observer; what is not estimable is None, and `reason` says why."""
        return pd.DataFrame([_row(one) for one in self.observers], dtype=object)


def blocks_of_equal_count(index: ArrayLike, is_correct: ArrayLike, *, n_blocks: int = 10) -> Blocks:
    """Trials divided into `n_blocks` blocks of as equal a count as ties allow.

    Trials are ordered by the index. A block may end only between two different values, so that
    equal trials share a block. Of those places, the ends are the ones nearest to 1/n, 2/n, … of
    the trials, the lower one if two are as near; where two ends fall together there is a block
    less. An index of few values (a rating scale) thus makes a block of each.

    Args:
        index: discriminability of each trial. (N,)
        is_correct: whether each answer was right. (N,)

    Raises:
        PsychometricError: for a missing or infinite index, an answer that is neither right nor
            wrong, or fewer than 2 blocks.
    """
    if n_blocks < 2:
        raise PsychometricError(f"n_blocks={n_blocks}; a curve needs at least 2, better 8 to 12.")
    x, correct = _checked_trials(index, is_correct)
    rule = (
        f"trials ordered by the index and divided into at most {n_blocks} blocks of equal count, "
        "without dividing trials of the same index; the level of a block is its mean index"
    )
    values, counts = np.unique(x, return_counts=True)
    ends = np.cumsum(counts)
    last = [len(values) - 1]
    if len(x):
        # argmin takes the first, hence the lower, of two that are as near.
        wanted = len(x) * np.arange(1, n_blocks) / n_blocks
        last += [int(np.abs(ends - place).argmin()) for place in wanted]
    block = np.searchsorted(values[np.unique(last)], x) if len(x) else np.zeros(0, dtype=np.intp)
    trials = pd.DataFrame({"x": x, "correct": correct}).groupby(block)
    return Blocks(
        levels=trials["x"].mean().to_numpy(dtype=np.float64),
        lowest=trials["x"].min().to_numpy(dtype=np.float64),
        highest=trials["x"].max().to_numpy(dtype=np.float64),
        n_correct=trials["correct"].sum().to_numpy(dtype=np.int64),
        n_trials=np.asarray(trials["x"].count(), dtype=np.int64),
        rule=rule,
    )


def consensus_confidence(
    responses: pd.DataFrame,
    *,
    participant: str = "participant_id",
    stimulus: str = "stimulus_id",
    confidence: str = "confidence",
) -> Array:
    """Mean confidence of the other readers in each case: an index that owes the reader nothing.

    Leave-one-out: each other reader counts once, with the mean over repeats; the reader's own
    answers, repeats included, do not count. NaN marks a case that no other reader judged, and
    `compare_observers` counts and leaves out such trials.

    Returns:
        One value for each row of `responses`. (N,)

    Raises:
        PsychometricError: if a column is missing, or a confidence is no finite number.
    """
    _refuse_missing_columns(responses, participant, stimulus, confidence)
    for column in (participant, stimulus):
        _refuse_row(responses[column].isna(), f"`{column}` is empty", "fill it in")
    values = pd.to_numeric(responses[confidence], errors="coerce").to_numpy(dtype=np.float64)
    _refuse_row(~np.isfinite(values), f"`{confidence}` is no finite number", "give one or drop it")
    reader, _ = pd.factorize(responses[participant])
    case, _ = pd.factorize(responses[stimulus])
    own = pd.Series(values).groupby([reader, case]).transform("mean").to_numpy(dtype=np.float64)
    once = ~pd.DataFrame({"reader": reader, "case": case}).duplicated().to_numpy()
    total = np.bincount(case, weights=own * once)[case] - own
    n_others = np.bincount(case, weights=once)[case] - 1
    return np.where(n_others > 0, total / np.maximum(n_others, 1), np.nan)


def fit(
    levels: ArrayLike,
    n_correct: ArrayLike,
    n_trials: ArrayLike,
    *,
    guess_rate: float | Literal["free", "lapse"],
    lapse_rate: float | Literal["free"] = "free",
    eta: float | Literal["free"] = "free",
    sigmoid: SigmoidName = "normal",
    proportion_correct: float = 0.8,
    stimulus_range: tuple[float, float] | None = None,
    confidence_level: float = 0.95,
    engine: Literal["own", "psignifit", "auto"] = "own",
) -> PsychometricFit:
    """Bayesian psychometric function of blocks of trials.

    Priors, for levels over a range from a to b of length r, and m the smallest distance of two:
    threshold uniform on [a, b], with cosine tails that reach 0 at r/2 outside; width uniform from
    2m to r, with cosine tails that reach 0 at m and at 3r; Beta(1, 10) for the lapse rate and a
    free guess rate, both at most ½, and for η. They assume that the levels cover the curve: where
    they do not, `cautions` says so.

    What cannot be estimated (one level only, all answers right, correctness that does not rise)
    gives a result without a curve, whose `reason` says why.

    Args:
        levels: index of discriminability of each block; larger is easier. (B,)
        n_correct: right answers in each block. (B,)
        n_trials: trials in each block; blocks without trials do not count. (B,)
        guess_rate: 1/n for a forced choice among n, "free" where chance is not known, "lapse" for
            a guess rate equal to the lapse rate (psignifit's equal asymptote).
        proportion_correct: where the two thresholds are read, in (0, 1).
        stimulus_range: (a, b) of the prior, with m = r/100; default from the levels.
        engine: "own"; "psignifit" (GPL, an optional extra; half a minute and gigabytes with a free
            guess rate); "auto" is psignifit where it is installed, own elsewhere.

    Raises:
        PsychometricError: for counts that are no counts, levels that are no numbers, or settings
            out of range.

    Source: Schütt et al. (2016); checked against the values of the MATLAB toolbox in psignifit's
    tests, and against psignifit 4.3.
    """
    shown = _checked_blocks(levels, n_correct, n_trials)
    _refuse_settings(guess_rate, lapse_rate, eta, sigmoid, proportion_correct, confidence_level)
    model = _model(*shown, sigmoid, guess_rate, lapse_rate, eta, stimulus_range)
    with_psignifit = _wants_psignifit(engine)
    method = (
        f"Bayesian psychometric function ({sigmoid} sigmoid, beta-binomial; "
        f"{'psignifit' if with_psignifit else 'grid posterior with the priors of psignifit 4'}), "
        f"posterior median and equal-tailed {confidence_level:.0%} credible interval"
    )
    reason = _why_not(model)
    posterior: _Posterior | None = None
    maximum: dict[str, float] = {}
    mean: dict[str, float] = {}
    if reason is None:
        found = _by_psignifit(model, sigmoid) if with_psignifit else _by_grid(model)
        posterior, maximum, mean = found
        shift = float(model.standard.shift(_array(proportion_correct)))
        maximum["threshold_unscaled"] = maximum["threshold"] + shift * maximum["width"]
    estimates: dict[str, Estimate] = {}
    marginals: dict[str, Marginal] = {}
    for name in (*PARAMETERS, "threshold_unscaled", "threshold_scaled"):
        says = f"{_said(name, proportion_correct)}; {method}"
        if posterior is None:
            estimates[name] = Estimate.not_estimable(
                says, str(reason), confidence_level=confidence_level
            )
        elif name in PARAMETERS and not posterior.depends_on(name):
            estimates[name] = _fixed(model.bounds[name][0], says, confidence_level)
        else:
            marginal = posterior.marginal(name, proportion_correct)
            estimates[name] = _estimate(marginal, says, confidence_level)
            marginals[name] = marginal
    return PsychometricFit(
        threshold_unscaled=estimates["threshold_unscaled"],
        threshold_scaled=estimates["threshold_scaled"],
        threshold=estimates["threshold"],
        width=estimates["width"],
        lapse_rate=estimates["lambda"],
        guess_rate=estimates["gamma"],
        eta=estimates["eta"],
        maximum=MappingProxyType(maximum),
        mean=MappingProxyType(mean),
        marginals=MappingProxyType(marginals),
        proportion_correct=proportion_correct,
        levels=model.levels,
        n_correct=model.n_correct.astype(np.int64),
        n_trials=model.n_trials.astype(np.int64),
        sigmoid=sigmoid,
        confidence_level=confidence_level,
        method=method,
        cautions=tuple(_cautions(model, estimates)) if reason is None else (),
        reason=reason,
        posterior=posterior,
    )


def threshold_at(fitted: PsychometricFit, proportion_correct: float, *, unscaled: bool) -> Estimate:
    """Level at any proportion correct, of the unscaled sigmoid or of ψ itself.

    The interval is that of the posterior of the level, not one put together from the limits of
    the parameters.

    Raises:
        PsychometricError: for a proportion outside (0, 1).
    """
    _refuse_outside("proportion_correct", proportion_correct)
    name = "threshold_unscaled" if unscaled else "threshold_scaled"
    says = f"{_said(name, proportion_correct)}; {fitted.method}"
    level = fitted.confidence_level
    if fitted.posterior is None:
        return Estimate.not_estimable(says, str(fitted.reason), confidence_level=level)
    return _estimate(fitted.posterior.marginal(name, proportion_correct), says, level)


def threshold_difference(one: PsychometricFit, other: PsychometricFit) -> ThresholdDifference:
    """Unscaled threshold of `one` minus that of `other`, and the probability that it is positive.

    The two posteriors are taken as independent. Observers who judged the same cases share what
    the index does not say about them; this mostly makes the interval too wide.

    Raises:
        PsychometricError: if the two were read at different proportions or levels of confidence.
    """
    if (one.proportion_correct, one.confidence_level) != (
        other.proportion_correct,
        other.confidence_level,
    ):
        raise PsychometricError(
            f"thresholds at {one.proportion_correct:.0%} and {other.proportion_correct:.0%} "
            f"correct, intervals of {one.confidence_level:.0%} and {other.confidence_level:.0%}: "
            "fit both with the same `proportion_correct` and `confidence_level`."
        )
    level = one.confidence_level
    method = f"difference of thresholds, independent posteriors; {one.method}"
    for fitted in (one, other):
        if not fitted.threshold_unscaled.is_estimable:
            reason = f"one of the thresholds is not estimable: {fitted.threshold_unscaled.reason}"
            refused = Estimate.not_estimable(method, reason, confidence_level=level)
            return ThresholdDifference(difference=refused, probability_greater=None)
    first, second = (each.marginals["threshold_unscaled"] for each in (one, other))
    differences = np.linspace(
        first.values[0] - second.values[-1], first.values[-1] - second.values[0], 801
    )
    found = _distribution(differences, _cdf_of_difference(first, second, differences))
    return ThresholdDifference(
        difference=_estimate(found, method, level),
        probability_greater=_probability_greater(first, second),
    )


def compare_observers(
    trials: pd.DataFrame,
    *,
    index: str,
    guess_rate: float | Literal["free", "lapse"],
    observer: str = "participant_id",
    is_correct: str = "is_correct",
    n_blocks: int = 10,
    sigmoid: SigmoidName = "normal",
    proportion_correct: float = 0.8,
    confidence_level: float = 0.95,
    engine: Literal["own", "psignifit", "auto"] = "own",
) -> Comparison:
    """Readers and models on one axis: thresholds and widths over the same index.

    The trials of each observer are divided into blocks of equal count. The prior is the same for
    all, from the range of all levels, so that observers differ by their answers only.

    Args:
        trials: one row for each answer; a model is an observer like any other.
        index: column of discriminability: confidence of a model in the case,
            `consensus_confidence`, or any other; larger is easier. Missing values are left out.
        is_correct: column of right (1, true) and wrong (0, false) answers.

    Raises:
        PsychometricError: if a column is missing, or holds what it must not; rows count from 1.
    """
    _refuse_missing_columns(trials, index, observer, is_correct)
    _refuse_row(trials[observer].isna(), f"`{observer}` is empty", "name the observer")
    values = pd.to_numeric(trials[index], errors="coerce").to_numpy(dtype=np.float64)
    known = np.isfinite(values)
    _refuse_row(
        ~known & trials[index].notna(),
        f"`{index}` is no finite number",
        "give a number, or leave the cell empty",
    )
    is_right = {True: 1.0, False: 0.0}  # and 1 and 0, which are equal to them
    correct = _array([is_right.get(answer, np.nan) for answer in trials[is_correct]])
    _refuse_row(
        np.isnan(correct), f"`{is_correct}` is neither right nor wrong", "give true, false, 1 or 0"
    )
    rows_of = dict(trials.groupby(observer, sort=False).indices)
    blocks_of = {
        name: blocks_of_equal_count(values[used], correct[used], n_blocks=n_blocks)
        for name, rows in rows_of.items()
        for used in [rows[known[rows]]]
    }
    levels = np.concatenate([np.empty(0), *(blocks.levels for blocks in blocks_of.values())])
    has_range = len(np.unique(levels)) > 1
    stimulus_range = (float(levels.min()), float(levels.max())) if has_range else None
    observers = tuple(
        Observer(
            name=str(name),
            n_trials=int(blocks.n_trials.sum()),
            n_correct=int(blocks.n_correct.sum()),
            n_left_out=int((~known[rows_of[name]]).sum()),
            blocks=blocks,
            fit=fit(
                blocks.levels,
                blocks.n_correct,
                blocks.n_trials,
                guess_rate=guess_rate,
                sigmoid=sigmoid,
                proportion_correct=proportion_correct,
                stimulus_range=stimulus_range,
                confidence_level=confidence_level,
                engine=engine,
            ),
        )
        for name, blocks in blocks_of.items()
    )
    return Comparison(
        index=index,
        stimulus_range=stimulus_range,
        observers=observers,
        probability_greater=_pairwise([one.fit for one in observers]),
    )


def posterior_samples(
    fitted: PsychometricFit, n_samples: int, *, rng: np.random.Generator
) -> dict[str, Array]:
    """Draws from the joint posterior of the five parameters. (n_samples,) each

    Cells of the grid by their mass, a point inside each, then resampling by the exact posterior,
    so that draws are not tied to the grid.

    Raises:
        PsychometricError: if there is no curve, or fewer than 1 sample is wanted.
    """
    if fitted.posterior is None or n_samples < 1:
        raise PsychometricError(
            f"{n_samples} samples of a curve that is not estimable ({fitted.reason}); "
            "look at `is_estimable` first, and ask for at least 1 sample."
        )
    return fitted.posterior.samples(n_samples, rng)


def plot_data(
    fitted: PsychometricFit,
    *,
    rng: np.random.Generator,
    n_levels: int = 200,
    n_samples: int = 2000,
) -> PlotData:
    """Curve, credible band and points of one observer, for a figure.

    Raises:
        PsychometricError: if there is no curve.
    """
    draws = posterior_samples(fitted, n_samples, rng=rng)
    margin = (fitted.levels.max() - fitted.levels.min()) / 20
    levels = np.linspace(fitted.levels.min() - margin, fitted.levels.max() + margin, n_levels)
    tail = (1 - fitted.confidence_level) / 2
    curves = proportion_correct_at(
        levels[:, None],
        threshold=draws["threshold"],
        width=draws["width"],
        lapse_rate=draws["lambda"],
        guess_rate=draws["gamma"],
        sigmoid=fitted.sigmoid,
    )
    low, middle, high = np.quantile(curves, [tail, 0.5, 1 - tail], axis=1)
    return PlotData(
        levels=levels,
        proportion=middle,
        band_low=low,
        band_high=high,
        point_levels=fitted.levels,
        point_proportions=fitted.n_correct / fitted.n_trials,
        point_n_trials=fitted.n_trials,
    )


def proportion_correct_at(
    levels: ArrayLike,
    *,
    threshold: ArrayLike,
    width: ArrayLike,
    lapse_rate: ArrayLike = 0.0,
    guess_rate: ArrayLike = 0.0,
    sigmoid: SigmoidName = "normal",
) -> Array:
    """ψ at `levels`; all arguments broadcast."""
    standard = _STANDARD[sigmoid]
    z = standard.z(_array(levels), _array(threshold), _array(width))
    guess, lapse = _array(guess_rate), _array(lapse_rate)
    return np.asarray(guess + (1 - lapse - guess) * standard.cdf(z), dtype=np.float64)


@dataclass(frozen=True, slots=True)
class _Standard:
    """A distribution function, its complement without cancellation, and its quantiles."""

    cdf: Callable[[Array], Array]
    complement: Callable[[Array], Array]
    quantile: Callable[[Array], Array]

    def z(self, levels: Array, threshold: Array, width: Array) -> Array:
        """The argument of `cdf` at which it is ½ at threshold, and 5 % to 95 % over a width."""
        middle, span = self._middle_and_span()
        return np.asarray(middle + (levels - threshold) / width * span, dtype=np.float64)

    def shift(self, proportions: Array) -> Array:
        """How far from the threshold, in widths, the sigmoid is at `proportions`."""
        middle, span = self._middle_and_span()
        return np.asarray((self.quantile(proportions) - middle) / span, dtype=np.float64)

    def _middle_and_span(self) -> tuple[float, float]:
        low, middle, high = self.quantile(np.array([0.05, 0.5, 0.95]))
        return float(middle), float(high - low)


def _gumbel_complement(z: Array) -> Array:
    return np.asarray(np.exp(-np.exp(np.minimum(z, 700.0))), dtype=np.float64)


def _gumbel_cdf(z: Array) -> Array:
    return np.asarray(-np.expm1(-np.exp(np.minimum(z, 700.0))), dtype=np.float64)


_STANDARD: dict[str, _Standard] = {
    "normal": _Standard(ndtr, lambda z: ndtr(-z), ndtri),
    "logistic": _Standard(expit, lambda z: expit(-z), logit),
    "gumbel": _Standard(_gumbel_cdf, _gumbel_complement, lambda p: np.log(-np.log1p(-p))),
    "rgumbel": _Standard(
        lambda z: _gumbel_complement(-z), lambda z: _gumbel_cdf(-z), lambda p: -np.log(-np.log(p))
    ),
    "cauchy": _Standard(
        lambda z: 0.5 + np.arctan(z) / np.pi,
        lambda z: 0.5 - np.arctan(z) / np.pi,
        lambda p: np.tan(np.pi * (p - 0.5)),
    ),
}


@dataclass(frozen=True, slots=True)
class _Axis:
    """Nodes, weights and the borders of their cells, one more than nodes."""

    nodes: Array
    weights: Array
    borders: Array

    @property
    def is_fixed(self) -> bool:
        return len(self.nodes) == 1


@dataclass(frozen=True, slots=True)
class _Model:
    """Data and prior, in the units of the index."""

    levels: Array
    n_correct: Array
    n_trials: Array
    standard: _Standard
    bounds: Mapping[str, tuple[float, float]]
    """Fixed parameters have equal bounds."""
    guess_is_lapse: bool
    low: float
    span: float
    smallest_width: float

    def is_free(self, name: str) -> bool:
        return self.bounds[name][0] < self.bounds[name][1]

    def log_prior(self, name: str, values: Array) -> Array:
        """Up to a constant; −inf outside the bounds."""
        if not self.is_free(name):
            return np.zeros_like(values)
        if name == "threshold":
            outside = np.maximum(self.low - values, values - self.low - self.span) / self.span
            height = (1 + np.cos(2 * np.pi * np.clip(outside, 0, 0.5))) / 2
        elif name == "width":
            rise = np.clip(values / self.smallest_width - 1, 0, 1)
            fall = np.clip((values / self.span - 1) / 2, 0, 1)
            height = (1 - np.cos(np.pi * rise)) * (1 + np.cos(np.pi * fall)) / 4
        else:
            # Beta(1, 10); with a guess rate equal to the lapse rate it counts for both.
            height = (1 - values) ** (18 if name == "lambda" and self.guess_is_lapse else 9)
        with np.errstate(divide="ignore"):
            return np.asarray(np.log(height), dtype=np.float64)

    def log_posterior(self, at: Mapping[str, Array]) -> Array:
        """At single points, exactly, up to a constant. (n,)"""
        z = self.standard.z(self.levels[:, None], at["threshold"], at["width"])
        lapse = at["lambda"]
        guess = lapse if self.guess_is_lapse else at["gamma"]
        scale = 1 - lapse - guess
        right = guess + scale * self.standard.cdf(z)
        wrong = lapse + scale * self.standard.complement(z)
        k, n = self.n_correct[:, None], self.n_trials[:, None]
        terms = xlogy(k, right) + xlogy(n - k, wrong)
        eta = at["eta"]
        if np.any(eta > 0):
            terms = terms + _over_dispersion(right, wrong, eta, k, n)
        prior = sum(self.log_prior(name, at[name]) for name in PARAMETERS)
        return np.asarray(terms.sum(axis=0) + prior, dtype=np.float64)

    def height(self, at: Mapping[str, float]) -> float:
        """Log-posterior at one point, up to the same constant."""
        return float(self.log_posterior({k: np.array([v]) for k, v in at.items()})[0])

    def log_posterior_on(self, axes: Mapping[str, _Axis], n_table: int) -> Array:
        """On a grid, up to a constant. (E, G, L, T, W)

        The over-dispersed part depends on ψ and η only. For each block it is computed on a table
        over the log-odds of ψ and interpolated, which costs less than its gamma functions would.
        """
        eta, gamma, lapse, threshold, width = (axes[name].nodes for name in PARAMETERS)
        lapse = lapse[:, None, None]
        guess = lapse if self.guess_is_lapse else gamma[:, None, None, None]
        scale = 1 - lapse - guess
        shape = (len(gamma), len(lapse), len(threshold), len(width))
        binomial = np.zeros(shape)
        excess = np.zeros((len(eta), binomial.size))
        for level, k, n in zip(self.levels, self.n_correct, self.n_trials, strict=True):
            z = self.standard.z(level, threshold[:, None], width)
            right = np.broadcast_to(guess + scale * self.standard.cdf(z), shape)
            wrong = np.broadcast_to(lapse + scale * self.standard.complement(z), shape)
            with np.errstate(divide="ignore"):
                log_right, log_wrong = np.log(right), np.log(wrong)
            if k:
                binomial += k * log_right
            if n - k:
                binomial += (n - k) * log_wrong
            if n == 1 or not eta.any():
                continue
            odds = np.clip((log_right - log_wrong).ravel(), -30, 30)
            table_odds = np.linspace(odds.min(), odds.max() + 1e-9, n_table)
            table = _over_dispersion(
                expit(table_odds), expit(-table_odds), eta[:, None], float(k), float(n)
            )
            position = (odds - table_odds[0]) * ((n_table - 1) / (table_odds[-1] - table_odds[0]))
            cell = np.minimum(position.astype(np.intp), n_table - 2)
            position -= cell
            steps = np.diff(table, axis=1)
            for row, value, step in zip(excess, table, steps, strict=True):
                row += value[cell] + position * step[cell]
        found = binomial[None] + excess.reshape(len(eta), *shape)
        for i, name in enumerate(PARAMETERS):
            prior = self.log_prior(name, axes[name].nodes)
            found += prior.reshape([-1 if j == i else 1 for j in range(5)])
        return found


def _over_dispersion(right: Array, wrong: Array, eta: Array, k: Any, n: Any) -> Array:
    """Log-likelihood ratio of the beta-binomial with η to the binomial. Schütt et al., eq. A.4."""
    precision = 1 / np.square(eta) - 1
    return np.asarray(
        _log_rising_excess(right * precision, k)
        + _log_rising_excess(wrong * precision, n - k)
        - _log_rising_excess(precision, n),
        dtype=np.float64,
    )


def _log_rising_excess(x: Array, m: Any) -> Array:
    """ln(x (x + 1) … (x + m − 1)) − m ln x.

    For large x as Stirling's series, where two log-gammas would cancel all their digits.
    """
    large = np.maximum(x, 100.0)
    stirling = (large + m - 0.5) * np.log1p(m / large) - m
    stirling += (1 / (large + m) - 1 / large) / 12 - (1 / (large + m) ** 3 - 1 / large**3) / 360
    small = np.clip(x, 1e-300, 100.0)
    direct = gammaln(small + m) - gammaln(small) - m * np.log(small)
    return np.asarray(np.where(x < 100.0, direct, stirling), dtype=np.float64)


@dataclass(frozen=True, slots=True)
class _Posterior:
    """Probability of each cell of a grid, summing to 1. (E, G, L, T, W)"""

    axes: Mapping[str, _Axis]
    mass: Array
    model: _Model

    def mass_of(self, *names: str) -> Array:
        """Summed over all other parameters, in the order of the grid."""
        others = tuple(i for i, name in enumerate(PARAMETERS) if name not in names)
        return np.asarray(self.mass.sum(axis=others), dtype=np.float64)

    def depends_on(self, name: str) -> bool:
        """Whether the parameter was estimated; a guess rate may be the lapse rate."""
        return not self.axes[self._source(name)].is_fixed

    def marginal(self, name: str, proportion: float) -> Marginal:
        """Of a free parameter, or of the level at `proportion`, unscaled or scaled."""
        if name == "threshold_unscaled":
            return _distribution_of_level(self, proportion, unscaled=True)
        if name == "threshold_scaled":
            return _distribution_of_level(self, proportion, unscaled=False)
        axis = self.axes[self._source(name)]
        density = self.mass_of(self._source(name)) / axis.weights
        # The root of a density is smooth where its prior falls to 0, which its logarithm is not.
        values = np.linspace(axis.borders[0], axis.borders[-1], 801)
        density = CubicSpline(axis.nodes, np.sqrt(density))(values) ** 2
        cdf = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
        return _distribution(values, cdf / cdf[-1])

    def _source(self, name: str) -> str:
        return "lambda" if name == "gamma" and self.model.guess_is_lapse else name

    def means(self) -> dict[str, float]:
        """Of the five parameters; the guess rate may be the lapse rate."""
        names = {name: self._source(name) for name in PARAMETERS}
        return {k: float(self.mass_of(name) @ self.axes[name].nodes) for k, name in names.items()}

    def samples(self, n_samples: int, rng: np.random.Generator) -> dict[str, Array]:
        """Draws that do not show the grid: from cells, reweighted by the exact posterior."""
        n_candidates = 4 * n_samples
        total = np.cumsum(self.mass)
        picked = np.searchsorted(total, rng.random(n_candidates) * total[-1], side="right")
        cells = np.unravel_index(np.minimum(picked, self.mass.size - 1), self.mass.shape)
        drawn, log_volume = {}, np.zeros(n_candidates)
        for name, cell in zip(PARAMETERS, cells, strict=True):
            axis = self.axes[name]
            low, size = axis.borders[cell], np.diff(axis.borders)[cell]
            drawn[name] = low + rng.random(n_candidates) * size
            log_volume += 0.0 if axis.is_fixed else np.log(size)
        log_weights = self.model.log_posterior(drawn) + log_volume - np.log(self.mass[cells])
        weights = np.cumsum(np.exp(log_weights - log_weights.max()))
        places = (np.arange(n_samples) + rng.random()) / n_samples * weights[-1]
        kept = rng.permutation(np.searchsorted(weights, places))
        return {name: drawn[self._source(name)][kept] for name in PARAMETERS}


def _by_grid(model: _Model) -> tuple[_Posterior, dict[str, float], dict[str, float]]:
    """Posterior, mode and means: coarse grids over ever better bounds, then a fine one."""
    bounds = dict(model.bounds)
    mode: dict[str, float] | None = None
    for _ in range(20):
        posterior, best = _on_grid(model, _axes(bounds, _COARSE), 400)
        mode = _mode(model, best if mode is None else mode, bounds)
        if model.height(mode) > model.height(best) + 5:
            # So many trials that the posterior falls between the nodes: start from the mode.
            bounds = _around(model, mode)
            continue
        better = {name: _better(posterior, name, bounds[name], mode[name]) for name in PARAMETERS}
        changes = [
            (better[name][1] - better[name][0]) / (bounds[name][1] - bounds[name][0])
            for name in PARAMETERS
            if model.is_free(name)
        ]
        bounds = better
        if min(changes) > 0.7 and max(changes) <= 1:
            break
    counts = _FINE_FREE_GUESS if model.is_free("gamma") else _FINE
    posterior, best = _on_grid(model, _axes(bounds, counts), 1500)
    mode = _mode(model, best, bounds)
    if model.guess_is_lapse:
        mode["gamma"] = mode["lambda"]
    return posterior, mode, posterior.means()


def _axes(bounds: Mapping[str, tuple[float, float]], counts: Mapping[str, int]) -> dict[str, _Axis]:
    """Even steps where the posterior falls to 0 at both ends, Gauss–Legendre nodes elsewhere.

    η and the two rates mostly have their largest density at the bound, where the trapezoidal rule
    is poor.
    """
    axes = {}
    for name, (low, high) in bounds.items():
        if low == high:
            axes[name] = _Axis(np.array([low]), np.ones(1), np.array([low, low]))
        elif name in ("threshold", "width"):
            nodes = np.linspace(low, high, counts[name])
            borders = np.concatenate([[low], (nodes[1:] + nodes[:-1]) / 2, [high]])
            axes[name] = _Axis(nodes, np.diff(borders), borders)
        else:
            standard, weights = np.polynomial.legendre.leggauss(counts[name])
            nodes, weights = low + (high - low) * (standard + 1) / 2, weights * (high - low) / 2
            axes[name] = _Axis(nodes, weights, low + np.concatenate([[0.0], np.cumsum(weights)]))
    return axes


def _on_grid(
    model: _Model, axes: Mapping[str, _Axis], n_table: int
) -> tuple[_Posterior, dict[str, float]]:
    log_posterior = model.log_posterior_on(axes, n_table)
    where = np.unravel_index(int(log_posterior.argmax()), log_posterior.shape)
    mass = np.exp(log_posterior - log_posterior[where])
    for i, name in enumerate(PARAMETERS):
        mass *= axes[name].weights.reshape([-1 if j == i else 1 for j in range(5)])
    mass /= mass.sum()
    best = {name: float(axes[name].nodes[i]) for name, i in zip(PARAMETERS, where, strict=True)}
    return _Posterior(axes, mass, model), best


def _better(
    posterior: _Posterior, name: str, bounds: tuple[float, float], mode: float
) -> tuple[float, float]:
    """The nodes with more than negligible mass, and one more on each side: tighter or wider."""
    axis = posterior.axes[name]
    if axis.is_fixed:
        return bounds
    kept = np.flatnonzero(posterior.mass_of(name) > _NEGLIGIBLE_MASS)
    first, last = int(kept[0]), int(kept[-1])
    step = (bounds[1] - bounds[0]) / 4
    low = float(axis.nodes[first - 1]) if first else bounds[0] - step
    high = float(axis.nodes[last + 1]) if last + 1 < len(axis.nodes) else bounds[1] + step
    margin = (high - low) / 10
    least, most = posterior.model.bounds[name]
    return max(min(low, mode - margin), least), min(max(high, mode + margin), most)


def _around(model: _Model, mode: Mapping[str, float]) -> dict[str, tuple[float, float]]:
    """Where the posterior falls to e^−10 along each axis through the mode, within the bounds."""
    found = {}
    for name, ends in model.bounds.items():
        limits = []
        for end in ends:
            # From the mode to the end, in steps that halve from the whole to 1e-9 of it.
            places = mode[name] + (end - mode[name]) * 0.5 ** np.arange(30)
            at = {k: np.full(30, places if k == name else v) for k, v in mode.items()}
            is_low = model.log_posterior(at) < model.height(mode) - 10
            limits.append(float(places[is_low][-1]) if is_low.any() else end)
        found[name] = (limits[0], limits[1])
    return found


def _mode(
    model: _Model, start: Mapping[str, float], box: Mapping[str, tuple[float, float]]
) -> dict[str, float]:
    """Joint mode within the bounds by L-BFGS-B from `start`, in units of the box."""
    free = [name for name in PARAMETERS if model.is_free(name)]
    low, high = np.array([box[name] for name in free]).T
    least, most = np.array([model.bounds[name] for name in free]).T
    size = high - low
    from_u, to_u = (least - low) / size, (most - low) / size

    def at(u: Array) -> Array:
        # Rounding must not carry a rate out of its bounds.
        return np.asarray(np.clip(low + size * u, least, most), dtype=np.float64)

    def objective(u: Array) -> tuple[float, Array]:
        # The point itself, and one to each side along each axis, at once.
        up, down = np.minimum(u + 1e-5, to_u), np.maximum(u - 1e-5, from_u)
        along = np.eye(len(u), dtype=bool)
        points = at(np.vstack([u, np.where(along, up, u), np.where(along, down, u)]))
        where = {name: np.full(len(points), start[name]) for name in PARAMETERS}
        where |= dict(zip(free, points.T, strict=True))
        # A finite cliff: from an infinite one the line search would not come back.
        found = -np.maximum(model.log_posterior(where) - offset, -1e4)
        rises = found[1 : len(u) + 1] - found[len(u) + 1 :]
        return float(found[0]), rises / (up - down)

    # Counts in the millions would leave few digits for the differences.
    offset = model.height(start)
    u = (np.array([start[name] for name in free]) - low) / size
    for _ in range(2):
        u = minimize(
            objective,
            u,
            jac=True,
            method="L-BFGS-B",
            bounds=list(zip(from_u.tolist(), to_u.tolist(), strict=True)),
            options={"ftol": 1e-15, "gtol": 1e-7, "maxiter": 200},
        ).x
    return {**start, **dict(zip(free, at(u).tolist(), strict=True))}


def _wants_psignifit(engine: str) -> bool:
    if engine not in ("own", "psignifit", "auto"):
        raise PsychometricError(f"engine={engine!r}; choose own, psignifit or auto.")
    is_installed = engine != "own" and find_spec("psignifit") is not None
    if engine == "psignifit" and not is_installed:
        raise PsychometricError(
            "psignifit is not installed; install the extra `psychometrics`, or use engine='own', "
            "which needs nothing."
        )
    return is_installed


def _by_psignifit(
    model: _Model, sigmoid: SigmoidName
) -> tuple[_Posterior, dict[str, float], dict[str, float]]:
    """Posterior, mode and means of psignifit 4, with its own defaults.

    Intervals are read off its posterior as off ours. Its own are lower by half a step of its grid,
    because it takes the mass up to the middle of a cell for that up to its end.
    """
    import psignifit

    names = {"normal": "norm", "cauchy": "tdist"}
    fixed = {name: model.bounds[name][0] for name in PARAMETERS if not model.is_free(name)}
    guess = fixed.get("gamma", 0.0)
    experiment = "yes/no"
    if model.guess_is_lapse:
        experiment = "equal asymptote"
    elif guess and guess == 1 / round(1 / guess):
        experiment = f"{round(1 / guess)}AFC"
    if experiment != "yes/no":
        fixed.pop("gamma")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its advice on the prior; `cautions` gives ours
        found = psignifit.psignifit(
            np.column_stack([model.levels, model.n_correct, model.n_trials]),
            sigmoid=names.get(sigmoid, sigmoid),
            experiment_type=experiment,
            fixed_parameters=fixed,
            stimulus_range=(model.low, model.low + model.span),
            width_min=model.smallest_width,
            verbose=False,
            debug=True,
        )
    mass = np.asarray(found.debug["posteriors"], dtype=np.float64)
    if model.guess_is_lapse:
        mass = mass[:, None]
    axes = {}
    for name in PARAMETERS:
        is_axis = not (name == "gamma" and model.guess_is_lapse)
        nodes = np.asarray(found.parameter_values[name] if is_axis else [0.0], dtype=np.float64)
        borders = np.concatenate([nodes[:1], (nodes[1:] + nodes[:-1]) / 2, nodes[-1:]])
        axes[name] = _Axis(nodes, np.diff(borders) if len(nodes) > 1 else np.ones(1), borders)
    mode, mean = (
        {name: float(values[name]) for name in PARAMETERS}
        for values in (found.parameter_estimate_MAP, found.parameter_estimate_mean)
    )
    return _Posterior(axes, mass, model), mode, mean


def _said(name: str, proportion: float) -> str:
    """What an estimate is of, as a methods section would say it."""
    return {
        "eta": "over-dispersion η",
        "gamma": "guess rate",
        "lambda": "lapse rate",
        "threshold": "level at 1/2 of the unscaled sigmoid",
        "width": "distance of 5 % and 95 % of the unscaled sigmoid",
        "threshold_unscaled": f"level at {proportion:.4g} of the unscaled sigmoid",
        "threshold_scaled": f"level at {proportion:.4g} correct, lapses and guesses included",
    }[name]


def _distribution_of_level(posterior: _Posterior, proportion: float, *, unscaled: bool) -> Marginal:
    """Posterior of threshold + shift · width, where the shift may depend on lapses and guesses.

    The mass of a cell is spread evenly inside it, along threshold, width and lapse rate. R pairs of
    rates at which the curve reaches the proportion.
    """
    standard, axes = posterior.model.standard, posterior.axes
    if unscaled:
        mass = posterior.mass_of("threshold", "width")[None]
        shift = standard.shift(_array([proportion]))
        below = 0.0
    else:
        parts = posterior.mass_of("gamma", "lambda", "threshold", "width")[:, :, None]
        lapse = _inside(axes["lambda"])
        is_lapse = posterior.model.guess_is_lapse
        guess = lapse if is_lapse else axes["gamma"].nodes[:, None, None]
        inner = (proportion - guess) / np.maximum(1 - lapse - guess, 1e-300)
        inner = np.broadcast_to(inner, (*parts.shape[:2], lapse.shape[1]))
        parts = np.repeat(parts / lapse.shape[1], lapse.shape[1], axis=2)
        below = float(parts[inner <= 0].sum())
        is_reached = (inner > 0) & (inner < 1)
        mass, shift = parts[is_reached], standard.shift(inner[is_reached])
    if not mass.sum():
        return Marginal(values=np.zeros(1), density=np.zeros(1), cdf=_array([below]))
    n_points = int(np.clip(400_000 // mass.size, 1, 100))
    # An additive sequence, not even steps: these would fall together again in the sum.
    places = _array(np.arange(mass.size * n_points).reshape(*mass.shape, n_points))
    threshold = _spread(axes["threshold"], _array(places * 0.7548776662466927))
    width = _spread(axes["width"], _array(np.moveaxis(places * 0.5698402909980532, 2, 1)))
    points = (threshold + shift[:, None, None, None] * np.moveaxis(width, 1, 2)).ravel()
    masses = np.repeat(mass.ravel() / n_points, n_points)
    # The far ends belong to hardly any mass: from there to where the mass is, step by step.
    borders = _array(np.linspace(points.min(), points.max(), 401))
    for _ in range(4):
        bins = np.clip((points - borders[0]) / (borders[1] - borders[0]), -1, 400)
        sums = np.bincount(np.floor(bins).astype(np.intp) + 1, weights=masses, minlength=402)
        cdf = _array(below + np.cumsum(sums)[:401])
        some = np.flatnonzero(sums[1:401] > _NEGLIGIBLE_MASS / 10)
        found = _distribution(borders, cdf)
        borders = _array(np.linspace(borders[some[0]], borders[some[-1] + 1], 401))
    return found


def _spread(axis: _Axis, places: Array) -> Array:
    """Places inside the cells, of which only the fractions count. (R, cells, …)"""
    low, size = axis.borders[:-1], np.diff(axis.borders)
    return np.asarray(low[:, None, None] + size[:, None, None] * (places % 1), dtype=np.float64)


def _inside(axis: _Axis) -> Array:
    """Four places inside each cell; the one node of a parameter that is fixed. (n, 4)"""
    if axis.is_fixed:
        return axis.nodes[:, None]
    steps = (np.arange(4) + 0.5) / 4
    return np.asarray(axis.borders[:-1, None] + np.diff(axis.borders)[:, None] * steps)


def _distribution(values: Array, cdf: Array) -> Marginal:
    return Marginal(values=values, density=np.gradient(cdf, values), cdf=cdf)


def _cdf_of_difference(first: Marginal, second: Marginal, differences: Array) -> Array:
    """Of first − second, independent."""
    middles = (second.values[1:] + second.values[:-1]) / 2
    masses = np.diff(second.cdf) / (second.cdf[-1] - second.cdf[0])
    shifted = differences[:, None] + middles
    return np.asarray(np.interp(shifted, first.values, first.cdf) @ masses, dtype=np.float64)


def _probability_greater(first: Marginal, second: Marginal) -> float:
    return 1 - float(_cdf_of_difference(first, second, np.zeros(1))[0])


def _pairwise(fits: Sequence[PsychometricFit]) -> tuple[tuple[float | None, ...], ...]:
    n = len(fits)
    table: list[list[float | None]] = [[None] * n for _ in fits]
    for i, one in enumerate(fits):
        for j in range(i + 1, n):
            if one.is_estimable and fits[j].is_estimable:
                greater = _probability_greater(
                    one.marginals["threshold_unscaled"], fits[j].marginals["threshold_unscaled"]
                )
                table[i][j], table[j][i] = greater, 1 - greater
    return tuple(tuple(row) for row in table)


def _estimate(marginal: Marginal, method: str, level: float) -> Estimate:
    """Median and equal-tailed interval; the standard error is the posterior's deviation."""
    tail = (1 - level) / 2
    low, middle, high = (marginal.quantile(p) for p in (tail, 0.5, 1 - tail))
    outside = 1 - float(marginal.cdf[-1] - marginal.cdf[0])
    if low is None or high is None:
        reason = (
            "the curve never is at this proportion with posterior probability "
            f"{outside:.2g}, so that the interval has no end"
        )
        return Estimate.not_estimable(method, reason, confidence_level=level, estimate=middle)
    deviation = None
    if outside < 1e-4:
        masses = np.diff(marginal.cdf) / (marginal.cdf[-1] - marginal.cdf[0])
        middles = (marginal.values[1:] + marginal.values[:-1]) / 2
        deviation = sqrt(float(masses @ (middles - masses @ middles) ** 2))
    return Estimate(
        estimate=middle,
        ci_low=low,
        ci_high=high,
        standard_error=deviation,
        confidence_level=level,
        method=method,
    )


def _fixed(value: float, method: str, level: float) -> Estimate:
    reason = f"fixed at {value:g}, not estimated"
    return Estimate.not_estimable(method, reason, confidence_level=level, estimate=value)


def _cautions(model: _Model, estimates: Mapping[str, Estimate]) -> list[str]:
    """What a reader of the numbers must know about the prior's share in them."""
    found = []
    low, high = float(model.levels.min()), float(model.levels.max())
    threshold, width = estimates["threshold_unscaled"], estimates["width"]
    limits = (threshold.ci_low, threshold.ci_high)
    if any(limit is not None and not low <= limit <= high for limit in limits):
        found.append(
            f"The interval of the threshold reaches beyond the levels shown ({low:.4g} to "
            f"{high:.4g}), where only the prior bounds it."
        )
    if width.ci_high is not None and width.ci_high > model.span:
        found.append(
            f"The curve may be wider than the range of levels ({model.span:.4g}); the upper limit "
            "of the width owes much to the prior."
        )
    return found


def _why_not(model: _Model) -> str | None:
    """Why the data determine no curve, as a clause; None where they may."""
    k, n, levels = model.n_correct, model.n_trials, np.unique(model.levels)
    n_right, n_all = int(k.sum()), int(n.sum())
    free = ["threshold", "width"]
    free += [_said(name, 0) for name in ("lambda", "gamma") if model.is_free(name)]
    if not n_all:
        return "there are no trials"
    if len(levels) == 1:
        return f"all {n_all} trials are at one level ({levels[0]:.4g}), so the index does not vary"
    if len(levels) < len(free):
        return (
            f"{len(levels)} levels do not determine {len(free)} parameters of the curve "
            f"({', '.join(free)})"
        )
    if n_all < FEWEST_TRIALS:
        return f"{n_all} trials are fewer than {FEWEST_TRIALS}, and the prior would decide"
    if n_right in (0, n_all):
        what, where = ("right", "below") if n_right else ("wrong", "above")
        return (
            f"all {n_all} answers are {what}, so the threshold lies somewhere {where} the levels "
            "shown, or there is none"
        )
    mean = n_right / n_all
    centred = model.levels - float(n @ model.levels) / n_all
    trend = float(centred @ k) / sqrt(mean * (1 - mean) * float(n @ centred**2))
    p = float(ndtr(-trend))
    if p > FLAT_P:
        how = "does not rise" if trend > ndtri(FLAT_P) else "falls"
        return (
            f"the proportion of right answers {how} with the level (Cochran–Armitage trend "
            f"z = {trend:.2f}, one-sided p = {p:.2g})"
        )
    return None


def _model(
    levels: Array,
    n_correct: Array,
    n_trials: Array,
    sigmoid: SigmoidName,
    guess_rate: float | str,
    lapse_rate: float | str,
    eta: float | str,
    stimulus_range: tuple[float, float] | None,
) -> _Model:
    different = np.unique(levels)
    if stimulus_range is not None:
        low, span = float(stimulus_range[0]), float(stimulus_range[1] - stimulus_range[0])
        smallest_width = span / 100
        if not (isfinite(low) and 0 < span < inf):
            raise PsychometricError(
                f"stimulus_range={stimulus_range} is not a range; give (lowest, highest) level."
            )
    elif len(different) > 1:
        low, span = float(different[0]), float(different[-1] - different[0])
        smallest_width = float(np.diff(different).min())
    else:
        low, span, smallest_width = 0.0, 1.0, 0.01

    def bounds(value: float | str, free: tuple[float, float]) -> tuple[float, float]:
        return free if isinstance(value, str) else (float(value), float(value))

    return _Model(
        levels=levels,
        n_correct=n_correct,
        n_trials=n_trials,
        standard=_STANDARD[sigmoid],
        bounds={
            "eta": bounds(eta, (SMALLEST_ETA, 1 - 1e-10)),
            "gamma": (0.0, 0.0) if guess_rate == "lapse" else bounds(guess_rate, (0.0, 0.5)),
            "lambda": bounds(lapse_rate, (0.0, 0.5)),
            "threshold": (low - span / 2, low + 1.5 * span),
            "width": (smallest_width, 3 * span),
        },
        guess_is_lapse=guess_rate == "lapse",
        low=low,
        span=span,
        smallest_width=smallest_width,
    )


def _checked_blocks(
    levels: ArrayLike, n_correct: ArrayLike, n_trials: ArrayLike
) -> tuple[Array, Array, Array]:
    x, k, n = _array(levels), _array(n_correct), _array(n_trials)
    if x.ndim != 1 or x.shape != k.shape or x.shape != n.shape:
        raise PsychometricError(
            f"levels {x.shape}, n_correct {k.shape} and n_trials {n.shape} are not three lists of "
            "one length; give one of each for each block."
        )
    _refuse_row(~np.isfinite(x), "the level is no finite number", "give a number", "block")
    is_count = np.isfinite(k) & np.isfinite(n) & (k == np.floor(k)) & (n == np.floor(n))
    is_count &= (k >= 0) & (k <= n)
    _refuse_row(
        ~is_count,
        "n_correct of n_trials is no count of right answers among trials",
        "give whole numbers with 0 ≤ n_correct ≤ n_trials",
        "block",
    )
    shown = n > 0
    return x[shown], k[shown], n[shown]


def _checked_trials(index: ArrayLike, is_correct: ArrayLike) -> tuple[Array, Array]:
    x = _array(index)
    try:
        correct = _array(is_correct)
    except (TypeError, ValueError):
        raise PsychometricError(
            "an answer is right (1, true) or wrong (0, false); a text or an empty cell is neither."
        ) from None
    if x.ndim != 1 or x.shape != correct.shape:
        raise PsychometricError(
            f"index {x.shape} and is_correct {correct.shape} are not two lists of one length; "
            "give one of each for each trial."
        )
    _refuse_row(~np.isfinite(x), "the index is no finite number", "give one or drop the trial")
    _refuse_row(
        ~np.isin(correct, (0, 1)),
        "the answer is neither right (1) nor wrong (0)",
        "give 0 or 1, or drop the trial",
    )
    return x, correct


def _refuse_settings(
    guess_rate: float | str,
    lapse_rate: float | str,
    eta: float | str,
    sigmoid: str,
    proportion_correct: float,
    confidence_level: float,
) -> None:
    if sigmoid not in _STANDARD:
        raise PsychometricError(f"sigmoid={sigmoid!r}; choose one of {', '.join(_STANDARD)}.")
    _refuse_outside("proportion_correct", proportion_correct)
    _refuse_outside("confidence_level", confidence_level)
    for name, value, words in (
        ("guess_rate", guess_rate, ("free", "lapse")),
        ("lapse_rate", lapse_rate, ("free",)),
        ("eta", eta, ("free",)),
    ):
        if isinstance(value, str) and value not in words:
            raise PsychometricError(f"{name}={value!r}; give a number or {' or '.join(words)}.")
        if not isinstance(value, str) and not 0 <= value < 1:
            raise PsychometricError(f"{name}={value}; give a number in [0, 1).")
    rates = [value for value in (guess_rate, lapse_rate) if not isinstance(value, str)]
    if len(rates) == 2 and sum(rates) >= 1:
        raise PsychometricError(
            f"guess_rate={guess_rate} and lapse_rate={lapse_rate} leave no curve between them; "
            "their sum must be below 1."
        )
    if guess_rate == "lapse" and not isinstance(lapse_rate, str) and lapse_rate >= 0.5:
        raise PsychometricError(
            f"lapse_rate={lapse_rate} with a guess rate equal to it leaves no curve; "
            "it must be below 0.5."
        )


def _refuse_outside(name: str, value: float) -> None:
    if not 0 < value < 1:
        raise PsychometricError(f"{name}={value}; give a fraction such as 0.8 or 0.95.")


def _refuse_row(bad: ArrayLike, what: str, advice: str, kind: str = "row") -> None:
    rows = np.flatnonzero(bad) + 1
    if len(rows):
        more = f" (and {len(rows) - 1} more)" if len(rows) > 1 else ""
        raise PsychometricError(f"{kind} {rows[0]}{more}: {what}; {advice}.")


def _refuse_missing_columns(table: pd.DataFrame, *names: str) -> None:
    missing = [name for name in names if name not in table.columns]
    if missing:
        raise PsychometricError(
            f"column `{missing[0]}` is missing; the table has {', '.join(map(str, table.columns))}."
        )


def _array(values: ArrayLike) -> Array:
    return np.asarray(values, dtype=np.float64)


def _row(one: Observer) -> dict[str, Any]:
    row: dict[str, Any] = {
        "observer": one.name,
        "n_trials": one.n_trials,
        "n_correct": one.n_correct,
        "n_left_out": one.n_left_out,
        "n_blocks": len(one.blocks.levels),
    }
    for name in (
        "threshold_unscaled",
        "threshold_scaled",
        "width",
        "lapse_rate",
        "guess_rate",
        "eta",
    ):
        estimate: Estimate = getattr(one.fit, name)
        row |= {
            name: estimate.estimate,
            f"{name}_ci_low": estimate.ci_low,
            f"{name}_ci_high": estimate.ci_high,
        }
    return row | {"cautions": " ".join(one.fit.cautions), "reason": one.fit.reason}
