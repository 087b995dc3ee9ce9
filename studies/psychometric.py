"""Psychometric functions: how the proportion of right answers rises with how easy a case is.

    ψ(x) = γ + (1 − λ − γ) S(x),    n_correct ~ beta-binomial(n_trials, ψ, η)

The `threshold` is where the unscaled sigmoid S is ½, the `width` is the distance of its 5 % and
95 % points, `lambda` is the lapse rate λ, `gamma` the guess rate γ, `eta` the over-dispersion η:
proportions of blocks scatter with variance η² ψ (1 − ψ) beyond chance. Parameters, priors and
bounds are those of psignifit 4; the posterior is our own, or psignifit's where wanted. The headline
is the level at 80 % of the unscaled sigmoid, where lapses and guesses do not count.

B blocks of trials, each at one level. Thresholds and widths are in the units of the index.

Source: Schütt, Harmeling, Macke & Wichmann (2016), Vision Research 122:105–123.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import sqrt
from types import MappingProxyType
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, ndtri

from studies.estimate import Estimate
from studies.psychometric_model import (
    PARAMETERS,
    Model,
    PsychometricError,
    SigmoidName,
    as_array,
    model_of,
    proportion_correct_at,
    refuse_outside,
    refuse_row,
    refuse_settings,
)
from studies.psychometric_posterior import (
    Marginal,
    Posterior,
    by_grid,
    by_psignifit,
    wants_psignifit,
)

Array = NDArray[np.float64]

FEWEST_TRIALS = 20
"""With fewer the prior decides, however the trials fall."""
FLAT_P = 0.05
"""Correctness that does not rise with the level, by a one-sided trend test, gives no threshold."""


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
    posterior: "Posterior | None" = field(repr=False)

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
    refuse_settings(guess_rate, lapse_rate, eta, sigmoid, proportion_correct, confidence_level)
    model = model_of(*shown, sigmoid, guess_rate, lapse_rate, eta, stimulus_range)
    with_psignifit = wants_psignifit(engine)
    method = (
        f"Bayesian psychometric function ({sigmoid} sigmoid, beta-binomial; "
        f"{'psignifit' if with_psignifit else 'grid posterior with the priors of psignifit 4'}), "
        f"posterior median and equal-tailed {confidence_level:.0%} credible interval"
    )
    reason = _why_not(model)
    posterior: Posterior | None = None
    maximum: dict[str, float] = {}
    mean: dict[str, float] = {}
    if reason is None:
        found = by_psignifit(model, sigmoid) if with_psignifit else by_grid(model)
        posterior, maximum, mean = found
        shift = float(model.standard.shift(as_array(proportion_correct)))
        maximum["threshold_unscaled"] = maximum["threshold"] + shift * maximum["width"]
    estimates: dict[str, Estimate] = {}
    marginals: dict[str, Marginal] = {}
    for name in (*PARAMETERS, "threshold_unscaled", "threshold_scaled"):
        says = f"{_said(name, proportion_correct)}; {method}"
        if posterior is None:
            estimates[name] = Estimate.not_estimable(says, str(reason), confidence_level)
        elif name in PARAMETERS and not posterior.depends_on(name):
            estimates[name] = _fixed(model.bounds[name][0], says, confidence_level)
        else:
            marginal = posterior.marginal(name, proportion_correct)
            estimates[name] = estimate_from(marginal, says, confidence_level)
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
    refuse_outside("proportion_correct", proportion_correct)
    name = "threshold_unscaled" if unscaled else "threshold_scaled"
    says = f"{_said(name, proportion_correct)}; {fitted.method}"
    level = fitted.confidence_level
    if fitted.posterior is None:
        return Estimate.not_estimable(says, str(fitted.reason), level)
    return estimate_from(fitted.posterior.marginal(name, proportion_correct), says, level)


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


def estimate_from(marginal: Marginal, method: str, level: float) -> Estimate:
    """Median and equal-tailed interval; the standard error is the posterior's deviation."""
    tail = (1 - level) / 2
    low, middle, high = (marginal.quantile(p) for p in (tail, 0.5, 1 - tail))
    outside = 1 - float(marginal.cdf[-1] - marginal.cdf[0])
    if low is None or high is None:
        reason = (
            "the curve never is at this proportion with posterior probability "
            f"{outside:.2g}, so that the interval has no end"
        )
        return Estimate.not_estimable(method, reason, level, middle)
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
    return Estimate.not_estimable(method, reason, level, value)


def _cautions(model: Model, estimates: Mapping[str, Estimate]) -> list[str]:
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


def _why_not(model: Model) -> str | None:
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


def _checked_blocks(
    levels: ArrayLike, n_correct: ArrayLike, n_trials: ArrayLike
) -> tuple[Array, Array, Array]:
    x, k, n = as_array(levels), as_array(n_correct), as_array(n_trials)
    if x.ndim != 1 or x.shape != k.shape or x.shape != n.shape:
        raise PsychometricError(
            f"levels {x.shape}, n_correct {k.shape} and n_trials {n.shape} are not three lists of "
            "one length; give one of each for each block."
        )
    refuse_row(~np.isfinite(x), "the level is no finite number", "give a number", "block")
    is_count = np.isfinite(k) & np.isfinite(n) & (k == np.floor(k)) & (n == np.floor(n))
    is_count &= (k >= 0) & (k <= n)
    refuse_row(
        ~is_count,
        "n_correct of n_trials is no count of right answers among trials",
        "give whole numbers with 0 ≤ n_correct ≤ n_trials",
        "block",
    )
    shown = n > 0
    return x[shown], k[shown], n[shown]
