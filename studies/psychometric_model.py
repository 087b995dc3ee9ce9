"""The psychometric function of an index: its curve, its likelihood, and psignifit's priors.

B blocks of trials, each at one level; a grid has axes E, G, L, T, W for eta, gamma, lambda,
threshold, width.

Source: Schütt, Harmeling, Macke & Wichmann (2016), Vision Research 122:105–123.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf, isfinite
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, gammaln, logit, ndtr, ndtri, xlogy

from studies.estimate import check_level

Array = NDArray[np.float64]

SigmoidName = Literal["normal", "logistic", "gumbel", "rgumbel", "cauchy"]
"""`gumbel` on the logarithm of the level is the Weibull function; `rgumbel` is its mirror image."""
PARAMETERS = ("eta", "gamma", "lambda", "threshold", "width")
SMALLEST_ETA = 10**-4.5
"""Below it (η² = 1e-9) the beta-binomial is the binomial to nine digits; η = 0 is reported so."""


class PsychometricError(ValueError):
    """Trials or settings that make no psychometric function: which, and what to do instead."""


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
    standard = STANDARD[sigmoid]
    z = standard.z(as_array(levels), as_array(threshold), as_array(width))
    guess, lapse = as_array(guess_rate), as_array(lapse_rate)
    return np.asarray(guess + (1 - lapse - guess) * standard.cdf(z), dtype=np.float64)


@dataclass(frozen=True, slots=True)
class StandardSigmoid:
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


STANDARD: dict[str, StandardSigmoid] = {
    "normal": StandardSigmoid(ndtr, lambda z: ndtr(-z), ndtri),
    "logistic": StandardSigmoid(expit, lambda z: expit(-z), logit),
    "gumbel": StandardSigmoid(_gumbel_cdf, _gumbel_complement, lambda p: np.log(-np.log1p(-p))),
    "rgumbel": StandardSigmoid(
        lambda z: _gumbel_complement(-z), lambda z: _gumbel_cdf(-z), lambda p: -np.log(-np.log(p))
    ),
    "cauchy": StandardSigmoid(
        lambda z: 0.5 + np.arctan(z) / np.pi,
        lambda z: 0.5 - np.arctan(z) / np.pi,
        lambda p: np.tan(np.pi * (p - 0.5)),
    ),
}


@dataclass(frozen=True, slots=True)
class Axis:
    """Nodes, weights and the borders of their cells, one more than nodes."""

    nodes: Array
    weights: Array
    borders: Array

    @property
    def is_fixed(self) -> bool:
        """Whether there is one node only."""
        return len(self.nodes) == 1


@dataclass(frozen=True, slots=True)
class Model:
    """Data and prior, in the units of the index."""

    levels: Array
    n_correct: Array
    n_trials: Array
    standard: StandardSigmoid
    bounds: Mapping[str, tuple[float, float]]
    """Fixed parameters have equal bounds."""
    guess_is_lapse: bool
    low: float
    span: float
    smallest_width: float

    def is_free(self, name: str) -> bool:
        """Whether the parameter is estimated."""
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

    def log_posterior_on(self, axes: Mapping[str, Axis], n_table: int) -> Array:
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


def model_of(
    levels: Array,
    n_correct: Array,
    n_trials: Array,
    sigmoid: SigmoidName,
    guess_rate: float | str,
    lapse_rate: float | str,
    eta: float | str,
    stimulus_range: tuple[float, float] | None,
) -> Model:
    """The model of `studies.psychometric.fit`, from checked blocks. (B,) each"""
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

    return Model(
        levels=levels,
        n_correct=n_correct,
        n_trials=n_trials,
        standard=STANDARD[sigmoid],
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


def refuse_settings(
    guess_rate: float | str,
    lapse_rate: float | str,
    eta: float | str,
    sigmoid: str,
    proportion_correct: float,
    confidence_level: float,
) -> None:
    """Refuse what makes no curve, whatever the data."""
    if sigmoid not in STANDARD:
        raise PsychometricError(f"sigmoid={sigmoid!r}; choose one of {', '.join(STANDARD)}.")
    refuse_outside("proportion_correct", proportion_correct)
    check_level(confidence_level, PsychometricError)
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


def refuse_outside(name: str, value: float) -> None:
    """Refuse what is not in (0, 1)."""
    if not 0 < value < 1:
        raise PsychometricError(f"{name}={value}; give a fraction such as 0.8 or 0.95.")


def refuse_row(bad: ArrayLike, what: str, advice: str, kind: str = "row") -> None:
    """Refuse a table for its first bad row, counted from 1."""
    rows = np.flatnonzero(bad) + 1
    if len(rows):
        more = f" (and {len(rows) - 1} more)" if len(rows) > 1 else ""
        raise PsychometricError(f"{kind} {rows[0]}{more}: {what}; {advice}.")


def as_array(values: ArrayLike) -> Array:
    """Values as floats."""
    return np.asarray(values, dtype=np.float64)
