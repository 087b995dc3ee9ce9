"""How far probabilities can be trusted: calibration errors, proper scores, coverage of sets.

Shapes: n cells, K classes, R bootstrap samples.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from math import exp, inf, pi, sqrt
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table
from scipy.special import ndtr
from scipy.stats import rankdata

from diffusion.conformal import Method, fit_conformal
from diffusion.probability import Array, Evidence, Labels, Row, fit_posterior, refuse_labels
from studies.proportions import Proportion, wilson

if TYPE_CHECKING:
    from matplotlib.figure import Figure

N_BINS = 15
N_RESAMPLES = 1000
CONFIDENCE_LEVEL = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A number and its 95 % bootstrap interval over cells."""

    estimate: float
    ci_low: float
    ci_high: float
    n: int

    def as_json(self) -> dict[str, float | int]:
        """Plain values at full precision."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Errors of the probabilities of n cells; all are better when smaller."""

    ece: Estimate
    """Expected calibration error of the best class's probability, bins of equal mass. In [0, 1]."""
    ece_debiased: float
    """The same less what a calibrated classifier's bins would show by chance; not below 0."""
    classwise_ece: Estimate
    """Mean over classes of the calibration error of that class's probability. In [0, 1]."""
    brier: Estimate
    """Squared error of the probabilities, summed over classes. In [0, 2]."""
    nll: Estimate
    """Negative log of the true class's probability, in nats."""
    n_bins: int

    def as_json(self) -> dict[str, Any]:
        """Plain values at full precision."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReliabilityBin:
    """Cells of like confidence."""

    confidence: float
    """Mean probability of the best class."""
    accuracy: Proportion
    """How often it is right, with Wilson's interval."""


def reliability_table(
    probabilities: Array, labels: Labels, *, n_bins: int = N_BINS
) -> tuple[ReliabilityBin, ...]:
    """Confidence against accuracy in bins of equal mass, ascending.

    Cells with equal confidence share a bin, so there may be fewer bins than asked for.

    Args:
        probabilities: (n, K)
        labels: true classes. (n,)
        n_bins: most bins.
    """
    confidence, is_right = _best(probabilities, labels)
    bins = equal_mass_bins(confidence, n_bins)
    return tuple(
        ReliabilityBin(
            confidence=float(confidence[bins == b].mean()),
            accuracy=wilson(int(is_right[bins == b].sum()), int((bins == b).sum())),
        )
        for b in np.unique(bins)
    )


def calibration_of(
    probabilities: Array,
    labels: Labels,
    *,
    rng: np.random.Generator,
    n_bins: int = N_BINS,
    n_resamples: int = N_RESAMPLES,
) -> Calibration:
    """Calibration errors and proper scores, with bootstrap intervals over cells.

    A calibration error is a sum of absolute gaps, which noise can only raise; the usual bootstrap
    intervals then miss a small true error more often than not. By the triangle inequality the
    error found is off by at most the summed absolute noise of the gaps: its lower limit is the
    error found less the 97.5 % quantile of that noise in the resamples, its upper limit the plain
    97.5 % quantile, which is too high rather than too low. Brier score and log-loss are means:
    theirs is the percentile interval.

    Args:
        probabilities: (n, K)
        labels: true classes. (n,)
        rng: of the resamples.
        n_bins: for both calibration errors.
        n_resamples: R.

    Source: Guo et al. (2017), eq. 3; Nixon et al. (2019) for bins of equal mass; Kull et al.
    (2019) for the classwise error.
    """
    n_cells, n_classes = probabilities.shape
    confidence, is_right = _best(probabilities, labels)
    is_true = np.eye(n_classes)[labels]
    top = _gaps(confidence, is_right.astype(np.float64), n_bins)
    classwise = np.concatenate(
        [_gaps(probabilities[:, c], is_true[:, c], n_bins) for c in range(n_classes)], axis=1
    )
    squared = np.square(probabilities - is_true).sum(axis=1)
    lost = -np.log(np.clip(probabilities[np.arange(n_cells), labels], 1e-300, None))
    means = np.stack([squared, lost], axis=1)
    drawn = np.concatenate([top, classwise, means], axis=1)
    totals = _resampled_means(drawn, rng, n_resamples)
    n_top, n_gaps = top.shape[1], top.shape[1] + classwise.shape[1]

    def error_of(gaps: Array, resampled: Array, n_curves: int) -> Estimate:
        found = gaps.mean(axis=0)
        estimate = float(np.abs(found).sum() / n_curves)
        _, noise = _quantiles(np.abs(resampled - found).sum(axis=1) / n_curves)
        _, high = _quantiles(np.abs(resampled).sum(axis=1) / n_curves)
        return Estimate(
            estimate=estimate, ci_low=max(0.0, estimate - noise), ci_high=high, n=n_cells
        )

    def mean_of(values: Array, resampled: Array) -> Estimate:
        low, high = _quantiles(resampled)
        return Estimate(estimate=float(values.mean()), ci_low=low, ci_high=high, n=n_cells)

    return Calibration(
        ece=error_of(top, totals[:, :n_top], 1),
        ece_debiased=_debiased_error(confidence, is_right.astype(np.float64), n_bins),
        classwise_ece=error_of(classwise, totals[:, n_top:n_gaps], n_classes),
        brier=mean_of(squared, totals[:, n_gaps]),
        nll=mean_of(lost, totals[:, n_gaps + 1]),
        n_bins=n_bins,
    )


def expected_calibration_error(
    probabilities: Array, labels: Labels, *, n_bins: int = N_BINS
) -> float:
    """Mean distance of accuracy from confidence over bins of equal mass. (n, K), (n,)"""
    confidence, is_right = _best(probabilities, labels)
    gaps = _gaps(confidence, is_right.astype(np.float64), n_bins)
    return float(np.abs(gaps.mean(axis=0)).sum())


def equal_mass_bins(values: Array, n_bins: int) -> NDArray[np.intp]:
    """The bin of each value, 0 to n_bins - 1, ascending; equal values share one. (n,) -> (n,)"""
    middle_ranks = rankdata(values, method="average") - 0.5
    return np.minimum(n_bins * middle_ranks / len(values), n_bins - 1).astype(np.intp)


def reliability_figure(tables: Mapping[str, tuple[ReliabilityBin, ...]]) -> "Figure":
    """Accuracy against confidence, one panel for each named table, with intervals.

    Both axes are odds, so that bins near 1 do not lie on each other; what is right without an
    exception is drawn at the upper edge.

    Raises:
        ImportError: if matplotlib is missing; says how to get it.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError(
            "The reliability figure needs matplotlib; run `pip install -e '.[studies]'`."
        ) from None
    figure = Figure(figsize=(3.2 * len(tables), 3.2), layout="constrained")
    panels = figure.subplots(1, len(tables), squeeze=False)[0]
    lowest = min(
        min(one.confidence, one.accuracy.ci_low) for table in tables.values() for one in table
    )
    low, high = max(1e-3, 0.9 * lowest), 1 - 1e-4
    for axes, (name, table) in zip(panels, tables.items(), strict=True):
        confidence = np.clip([one.confidence for one in table], low, high)
        limits = [
            np.clip([value(one.accuracy) for one in table], low, high)
            for value in (lambda p: p.ci_low, lambda p: p.estimate, lambda p: p.ci_high)
        ]
        axes.plot([low, high], [low, high], color="#5b6875", linewidth=0.8, linestyle=(0, (3, 2)))
        axes.vlines(confidence, limits[0], limits[2], color="#1f5f8b", linewidth=1.1)
        axes.plot(confidence, limits[1], "o", color="#1f5f8b", markersize=4)
        axes.set(xscale="logit", yscale="logit", xlim=(low, high), ylim=(low, high))
        axes.minorticks_off()
        axes.set(title=name, xlabel="probability of the best class", ylabel="how often it is right")
    return figure


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """A number over random halves: its mean and the middle 95 %."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Halves:
    """What sets and probabilities did on the halves that did not calibrate them."""

    level: float
    n_halves: int
    n_cells: int
    coverage: Spread
    """How often the marginal set holds the true class."""
    coverage_by_class: tuple[Spread, ...]
    classwise_coverage: Spread
    """The same of classwise sets."""
    classwise_coverage_by_class: tuple[Spread, ...]
    set_size: Spread
    """Mean number of classes in a marginal set; sets may be empty."""
    classwise_set_size: Spread
    empty: Spread
    """Share of marginal sets that are empty."""
    classwise_empty: Spread
    shown_coverage: Spread
    """Of marginal sets that show the best class where they would be empty."""
    shown_set_size: Spread
    classwise_shown_coverage: Spread
    classwise_shown_set_size: Spread
    ece: Spread
    """Expected calibration error of the testing half."""

    def as_json(self) -> dict[str, Any]:
        """Plain values at full precision."""
        return asdict(self)

    def as_table(self, class_names: tuple[str, ...]) -> Table:
        """The same for a terminal."""
        table = Table(title=f"{self.n_halves} random halves of {self.n_cells:,} cells")
        for heading in ("", "marginal sets", "classwise sets"):
            table.add_column(heading, justify="left" if not heading else "right")
        rows = {
            f"coverage at {100 * self.level:g} %": (self.coverage, self.classwise_coverage),
            **{
                f"  {name}": pair
                for name, *pair in zip(
                    class_names,
                    self.coverage_by_class,
                    self.classwise_coverage_by_class,
                    strict=True,
                )
            },
            "empty sets": (self.empty, self.classwise_empty),
        }
        for name, spreads in rows.items():
            table.add_row(name, *[f"{s.mean:.1%} ({s.low:.1%}–{s.high:.1%})" for s in spreads])
        sizes = (self.set_size, self.classwise_set_size)
        table.add_row("classes in a set", *[f"{s.mean:.2f}" for s in sizes])
        table.caption = (
            f"sets that are never empty: {self.shown_coverage.mean:.1%} by "
            f"{self.shown_set_size.mean:.2f} classes, classwise "
            f"{self.classwise_shown_coverage.mean:.1%} by "
            f"{self.classwise_shown_set_size.mean:.2f} · calibration error {self.ece.mean:.4f} "
            f"({self.ece.low:.4f}–{self.ece.high:.4f})"
        )
        return table


Calibrate = Callable[[NDArray[np.intp]], Array]
"""Log-probabilities of all n cells, calibrated on those with the given numbers. (m,) -> (n, K)"""


def calibrated_on(evidence: Evidence, labels: Labels, row: Row) -> Calibrate:
    """A `Calibrate` that fits one row's posterior on the cells it is given."""

    def calibrate(cells: NDArray[np.intp]) -> Array:
        return fit_posterior(evidence.take(cells), labels[cells], row).log_probabilities(evidence)

    return calibrate


def repeated_halves(
    calibrate: Calibrate,
    labels: Labels,
    *,
    rng: np.random.Generator,
    level: float = 0.9,
    n_halves: int = 100,
    method: Method = "lac",
    is_exact: bool = True,
) -> Halves:
    """Split the cells at random, class by class; calibrate on one half and test on the other.

    Each half calibrates once and is tested once: where one half's cells happen to be the stranger
    ones, one direction covers too much and the other too little, and their mean hardly moves.

    Args:
        calibrate: such as `calibrated_on(evidence, labels, "fused")`.
        labels: true classes, at least two cells of each. (n,)
        rng: of the halves and of the sets' lots.
        level: of the sets.
        n_halves: halves that calibrate, an even number.
        method, is_exact: of the sets; see `diffusion.conformal`.

    Raises:
        ValueError: if a class has fewer than two cells, or n_halves is odd.
    """
    if n_halves < 2 or n_halves % 2:
        raise ValueError(f"n_halves={n_halves}; give an even number, as halves come in pairs.")
    counts = np.bincount(labels)
    if counts.min() < 2:
        raise ValueError(
            f"Class {counts.argmin()} has {counts.min()} cells; halving takes two of each class."
        )
    uniforms = rng.random((len(labels), 2))
    halves = (_random_half(labels, rng) for _ in range(n_halves // 2))
    tested: dict[str, list[Array]] = {}
    for is_testing in (side for half in halves for side in (half, ~half)):
        calibrating, testing = np.flatnonzero(~is_testing), np.flatnonzero(is_testing)
        log_p = calibrate(calibrating)
        conformal = fit_conformal(
            log_p[calibrating], labels[calibrating], uniforms=uniforms[calibrating], method=method
        )
        truth = labels[testing]
        found = {"ece": np.array([expected_calibration_error(np.exp(log_p[testing]), truth)])}
        for kind in ("", "classwise_"):
            sets = conformal.conforming(
                log_p[testing],
                level,
                uniforms=uniforms[testing],
                classwise=kind == "classwise_",
                is_exact=is_exact,
            )
            of_sets = _rates_of(sets, log_p[testing], truth)
            found |= {f"{kind}{name}": value for name, value in of_sets.items()}
        for name, value in found.items():
            tested.setdefault(name, []).append(value)
    spreads = {name: _spreads(np.stack(values)) for name, values in tested.items()}
    whole = {name: value[0] for name, value in spreads.items() if not name.endswith("by_class")}
    return Halves(
        level=level,
        n_halves=n_halves,
        n_cells=len(labels),
        coverage_by_class=spreads["coverage_by_class"],
        classwise_coverage_by_class=spreads["classwise_coverage_by_class"],
        **whole,
    )


def _rates_of(sets: NDArray[np.bool_], log_p: Array, labels: Labels) -> dict[str, Array]:
    """Coverage and size of the sets of one half. (1,) each, (K,) by class"""
    holds, sizes = sets[np.arange(len(labels)), labels], sets.sum(axis=1)
    counts = np.bincount(labels)
    is_saved = (sizes == 0) & (log_p.argmax(axis=1) == labels)
    return {
        "coverage": holds.mean(keepdims=True),
        "coverage_by_class": np.bincount(labels, weights=holds) / counts,
        "set_size": sizes.mean(keepdims=True),
        "empty": (sizes == 0).mean(keepdims=True),
        "shown_coverage": (holds | is_saved).mean(keepdims=True),
        "shown_set_size": np.maximum(sizes, 1).mean(keepdims=True),
    }


def _random_half(labels: Labels, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Whether each cell is of the second half; an odd cell of a class goes to either. (n,)"""
    is_second = np.zeros(len(labels), dtype=np.bool_)
    for c in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == c))
        is_second[members[: (len(members) + int(rng.integers(2))) // 2]] = True
    return is_second


def _spreads(values: Array) -> tuple[Spread, ...]:
    """Of each column. (n_halves, m)"""
    low, high = np.quantile(values, [0.025, 0.975], axis=0)
    return tuple(
        Spread(mean=float(m), low=float(lo), high=float(hi))
        for m, lo, hi in zip(values.mean(axis=0), low, high, strict=True)
    )


def _best(probabilities: Array, labels: Labels) -> tuple[Array, NDArray[np.bool_]]:
    n_cells, n_classes = probabilities.shape
    refuse_labels(labels, (n_cells, n_classes))
    if not np.allclose(probabilities.sum(axis=1), 1, atol=1e-6):
        raise ValueError("Probabilities do not sum to 1; give np.exp of log-probabilities.")
    return probabilities.max(axis=1), probabilities.argmax(axis=1) == labels


def _gaps(predicted: Array, happened: Array, n_bins: int) -> Array:
    """Each cell's outcome minus its probability, in the column of its bin. (n, n_bins)

    The absolute column means add up to the calibration error.
    """
    in_bin = np.eye(n_bins)[equal_mass_bins(predicted, n_bins)]
    gaps: Array = in_bin * (happened - predicted)[:, None]
    return gaps


def _debiased_error(predicted: Array, happened: Array, n_bins: int) -> float:
    """Kumar, Liang & Ma (2019), with the mean of a folded normal instead of draws from one.

    A bin's gap is taken as normal about the gap that was found. The mean of its absolute value
    exceeds the absolute gap by as much as noise is thought to have raised the latter.
    """
    bins = equal_mass_bins(predicted, n_bins)
    total = 0.0
    for b in np.unique(bins):
        gaps = (happened - predicted)[bins == b]
        found = abs(float(gaps.mean()))
        sd = float(gaps.std(ddof=1)) / sqrt(len(gaps)) if len(gaps) > 1 else 0.0
        z = found / sd if sd > 0 else inf
        density = exp(-0.5 * z**2) / sqrt(2 * pi)
        expected = 2 * sd * density + found * (2 * float(ndtr(z)) - 1)
        total += len(gaps) / len(bins) * (2 * found - expected)
    return max(0.0, total)


def _resampled_means(values: Array, rng: np.random.Generator, n_resamples: int) -> Array:
    """Column means of bootstrap samples of the rows. (n, m) -> (R, m)"""
    n_cells = len(values)
    equal = np.full(n_cells, 1 / n_cells)
    means = [
        rng.multinomial(n_cells, equal, size=min(50, n_resamples - start)) @ values / n_cells
        for start in range(0, n_resamples, 50)
    ]
    return np.concatenate(means)


def _quantiles(values: Array) -> tuple[float, float]:
    tail = (1 - CONFIDENCE_LEVEL) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)
