"""Simulated crossed studies: the headline, equivalence, looks, areas under the ROC curve.

A judgement is right where the reader's skill and the case's ease, both normal, outweigh normal
noise (probit-normal effects). The first half of the cases is real, the second generated; a reader
who leans towards "real" is better at the first half and worse at the second.

The crossed interval is needed a million times, so it is computed here for many tables at once; a
test holds it to `studies.crossed`. S studies, R readers, N cases.
"""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import ndtr
from scipy.stats import t as student_t

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

from monte_carlo import judged, judged_estimates, share

from studies.bootstrap import two_way_bootstrap
from studies.equivalence import rejection_region, tost_power
from studies.estimate import Estimate
from studies.obuchowski_rockette import obuchowski_rockette, obuchowski_rockette_fixed_readers
from studies.proportions import wilson
from studies.reader_figures import auc_jackknife
from studies.roc import auc
from studies.sequential import sequential_plan
from studies.u_statistics import u_statistics_auc

Array = NDArray[np.float64]
Tick = Callable[[int], None]
"""Told how many studies more are done."""

LEVEL = 0.95
AT_ONCE = 2_000_000
"""Judgements simulated at once."""
MARGIN = (0.45, 0.55)
READER_SD, CASE_SD = 0.3, 0.5
"""On the probit scale. Near chance a reader's accuracy then varies by 10 points, a case's by 17."""

# ------------------------------------------------------------------------------- simulated answers


def true_accuracy(centre: float, bias: float, spread: float) -> float:
    """Over all readers and cases; `spread` is the standard deviation of all that is random."""
    return float(ndtr((centre - bias) / spread) + ndtr((centre + bias) / spread)) / 2


def simulated(
    n_studies: int,
    rng: np.random.Generator,
    *,
    n_readers: int,
    n_cases: int,
    accuracy: float,
    reader_sd: float = READER_SD,
    case_sd: float = CASE_SD,
    bias: float = 0.0,
    bias_sd: float = 0.0,
) -> Iterator[NDArray[np.bool_]]:
    """Whether each reader was right about each case, some studies at a time. (S, R, N)

    Args:
        accuracy: over all readers and cases, which the intervals are to cover.
        bias: the readers' mean preference for "real", and `bias_sd` how it varies among them.
    """
    spread = sqrt(1 + reader_sd**2 + case_sd**2 + bias_sd**2)
    centre = brentq(lambda c: true_accuracy(c, bias, spread) - accuracy, -9.0, 9.0)
    side = np.where(np.arange(n_cases) < n_cases // 2, 1.0, -1.0)
    for n in chunks(n_studies, n_readers * n_cases):
        skill = centre + reader_sd * rng.standard_normal((n, n_readers, 1))
        leaning = bias + bias_sd * rng.standard_normal((n, n_readers, 1))
        ease = case_sd * rng.standard_normal((n, 1, n_cases))
        evidence = (skill + ease + leaning * side).astype(np.float32)
        yield rng.standard_normal(evidence.shape, dtype=np.float32) < evidence


def chunks(n_studies: int, size: int) -> Iterator[int]:
    at_once = max(1, AT_ONCE // size)
    for start in range(0, n_studies, at_once):
        yield min(at_once, n_studies - start)


# -------------------------------------------------------------------- intervals of many tables


@dataclass(frozen=True, slots=True, kw_only=True)
class Variances:
    """What the intervals of S crossed tables are made of. (S,)"""

    n_readers: int
    n_cases: int
    estimate: Array
    of_readers: Array
    """MS(R) / R: the variance of the mean if only readers were sampled."""
    of_cases: Array
    """The same if only cases were."""
    cov2: Array
    """Not truncated at 0."""
    cov2_stratified: Array
    """With the numbers of real and generated cases fixed."""

    @property
    def crossed(self) -> Array:
        return self.of_readers + np.maximum(self.cov2, 0.0)

    def hillis(self, variance: Array) -> Array:
        """Degrees of freedom; infinite where readers do not differ at all."""
        with np.errstate(divide="ignore", invalid="ignore"):
            df = variance**2 / (self.of_readers**2 / (self.n_readers - 1))
        return np.where(self.of_readers > 0, df, np.inf)

    def satterthwaite(self) -> Array:
        """Degrees of freedom of the U-statistics, which allow for few cases too."""
        taken = self.of_readers**2 / (self.n_readers - 1) + self.of_cases**2 / (self.n_cases - 1)
        with np.errstate(divide="ignore", invalid="ignore"):
            df = np.maximum(self.crossed**2 / taken, min(self.n_readers, self.n_cases) - 1)
        return np.where(taken > 0, df, np.inf)

    def methods(self) -> dict[str, tuple[Array, ArrayLike]]:
        """Variance and degrees of freedom by each rule."""
        stratified = self.of_readers + np.maximum(self.cov2_stratified, 0.0)
        return {
            "crossed": (self.crossed, self.hillis(self.crossed)),
            "stratified": (stratified, self.hillis(stratified)),
            "satterthwaite": (self.crossed, self.satterthwaite()),
            "readers_less_1": (self.crossed, self.n_readers - 1),
            "normal": (self.crossed, np.inf),
            "by_reader": (self.of_readers, self.n_readers - 1),
            "by_case": (self.of_cases, self.n_cases - 1),
        }


def variances(correct: NDArray[np.bool_]) -> Variances:
    """From tables whose first half of the cases is real. (S, R, N)"""
    n_readers, n_cases = correct.shape[1:]
    half = n_cases // 2
    kinds = [part.sum(axis=2) for part in (correct[..., :half], correct[..., half:])]
    of_readers, of_cases = kinds[0] + kinds[1], correct.sum(axis=1)
    shares = half / n_cases, 1 - half / n_cases
    return Variances(
        n_readers=n_readers,
        n_cases=n_cases,
        estimate=of_readers.sum(axis=1) / (n_readers * n_cases),
        of_readers=of_readers.var(axis=1, ddof=1) / n_cases**2 / n_readers,
        of_cases=of_cases.var(axis=1, ddof=1) / n_readers**2 / n_cases,
        cov2=_cov2(of_readers, of_cases),
        cov2_stratified=shares[0] ** 2 * _cov2(kinds[0], of_cases[:, :half])
        + shares[1] ** 2 * _cov2(kinds[1], of_cases[:, half:]),
    )


def _cov2(of_readers: NDArray[np.int64], of_cases: NDArray[np.int64]) -> Array:
    """`studies.crossed` says why: mean covariance of two readers, from counts. (S, R), (S, N)"""
    n_readers, n_cases = of_readers.shape[1], of_cases.shape[1]
    together = (of_cases * (of_cases - 1)).sum(axis=1)
    expected = of_readers.sum(axis=1) ** 2 - (of_readers**2).sum(axis=1)
    n_pairs = n_readers * (n_readers - 1)
    return (n_cases * together - expected) / (n_pairs * n_cases**2 * (n_cases - 1))


def half_widths(variance: Array, df: ArrayLike, level: float = LEVEL) -> Array:
    """NaN where there is no variance: no interval, which covers nothing."""
    return student_t.ppf(0.5 + level / 2, df) * np.sqrt(np.where(variance > 0, variance, np.nan))


def wilson_limits(estimate: Array, n_trials: int) -> tuple[Array, Array]:
    """Of all judgements as if independent, by `studies.proportions`."""
    counts, place = np.unique(np.rint(estimate * n_trials).astype(np.int64), return_inverse=True)
    found = [wilson(int(count), n_trials) for count in counts]
    limits = np.array([(one.ci_low, one.ci_high) for one in found])[place]
    return limits[:, 0], limits[:, 1]


# ------------------------------------------------------------------------------------ the sections


def variances_of_studies(
    n_studies: int, rng: np.random.Generator, tick: Tick, **design: Any
) -> Variances:
    parts = []
    for correct in simulated(n_studies, rng, **design):
        parts.append(variances(correct))
        tick(len(correct))
    fields = ("estimate", "of_readers", "of_cases", "cov2", "cov2_stratified")
    return Variances(
        n_readers=parts[0].n_readers,
        n_cases=parts[0].n_cases,
        **{name: np.concatenate([getattr(part, name) for part in parts]) for name in fields},
    )


def coverage(n_studies: int, rng: np.random.Generator, tick: Tick, **design: Any) -> dict[str, Any]:
    """The headline's interval, what is left when readers or cases are forgotten, and other df."""
    found = variances_of_studies(n_studies, rng, tick, **design)
    truth, estimate = design["accuracy"], found.estimate
    methods = {}
    for name, (variance, df) in found.methods().items():
        half = half_widths(variance, df)
        methods[name] = judged(estimate - half, estimate + half, truth)
    variance, df = found.methods()["crossed"]
    # By the delta method; only to show what the skewness of accuracies near 1 costs.
    inside = estimate * (1 - estimate)
    with np.errstate(divide="ignore", invalid="ignore"):
        middle, half = np.log(estimate / (1 - estimate)), half_widths(variance, df) / inside
    ends = [1 / (1 + np.exp(-one)) for one in (middle - half, middle + half)]
    methods["logit"] = judged(*ends, truth)
    n_trials = found.n_readers * found.n_cases
    methods["naive"] = judged(*wilson_limits(estimate, n_trials), truth)
    return {
        "methods": methods,
        "median_df": float(np.median(df)),
        "mean_df": float(np.mean(df)) if np.isfinite(df).all() else None,
        "variance_over_true": float(variance.mean() / estimate.var()),
        "cov2_below_0": float((found.cov2 < 0).mean()),
        "design_effect": float(estimate.var() / (truth * (1 - truth) / n_trials)),
    }


def bootstrap(
    n_studies: int, rng: np.random.Generator, tick: Tick, **design: Any
) -> dict[str, Any]:
    """The two-way bootstrap, which takes too long for more studies."""
    found = []
    for correct in simulated(n_studies, rng, **design):
        for table in correct:
            found.append(two_way_bootstrap(table, rng=rng, n_replicates=1000))
            tick(1)
    return {
        name: judged_estimates([getattr(one, name) for one in found], design["accuracy"])
        for name in ("standard", "percentile")
    }


def equivalence(
    n_studies: int, rng: np.random.Generator, tick: Tick, **design: Any
) -> dict[str, Any]:
    """How often "equivalent to chance within 5 points" is claimed; wrong at the margin itself."""
    found = variances_of_studies(n_studies, rng, tick, **design)
    variance, df = found.methods()["crossed"]
    n_trials = found.n_readers * found.n_cases
    first, last = rejection_region(n_trials, low=MARGIN[0], high=MARGIN[1]) or (1, 0)
    n_correct = np.rint(found.estimate * n_trials)
    by_formula = tost_power(
        float(found.estimate.std()),
        df=float(np.median(df)),
        low=MARGIN[0],
        high=MARGIN[1],
        truth=design["accuracy"],
    )
    return {
        "crossed": share(is_equivalent(found.estimate, variance, df)),
        "naive": share((first <= n_correct) & (n_correct <= last)),
        "by_formula": by_formula,
        "median_df": float(np.median(df)),
    }


def is_equivalent(estimate: Array, variance: Array, df: ArrayLike) -> NDArray[np.bool_]:
    """Whether both one-sided tests at 5 % reject: the 90 % interval lies inside the margin."""
    half = half_widths(variance, df, level=0.90)
    return (MARGIN[0] <= estimate - half) & (estimate + half <= MARGIN[1])


def looks(
    n_studies: int,
    rng: np.random.Generator,
    tick: Tick,
    *,
    n_looks: int,
    n_readers: int,
    **design: Any,
) -> dict[str, Any]:
    """How often a study is called different from chance at any of its looks.

    Look k comes when k / K of the readers are through; its p value is that of the crossed t test.
    """
    at = [n_readers * look // n_looks for look in range(1, n_looks + 1)]
    p_values = []
    for correct in simulated(n_studies, rng, n_readers=n_readers, **design):
        at_looks = []
        for n in at:
            found = variances(correct[:, :n])
            variance, df = found.methods()["crossed"]
            with np.errstate(divide="ignore", invalid="ignore"):
                t = np.abs(found.estimate - 0.5) / np.sqrt(variance)
            at_looks.append(np.where(variance > 0, 2 * student_t.sf(t, df), 1.0))
        p_values.append(np.stack(at_looks, axis=1))
        tick(len(correct))
    p = np.concatenate(p_values)
    levels = {
        spending: [look.nominal_alpha for look in sequential_plan(at, spending=spending).looks]
        for spending in ("obrien-fleming", "pocock")
    }
    levels["none"] = [0.05] * n_looks
    levels["end_only"] = [0.0] * (n_looks - 1) + [0.05]
    errors = {name: share((p <= np.array(alphas)).any(axis=1)) for name, alphas in levels.items()}
    at_first = {"level": levels["pocock"][0], "found": share(p[:, 0] <= levels["pocock"][0])}
    return errors | {"first_look": at_first}


RATING_CUTS = (-1.8, -1.2, -0.7, -0.3, 0.0, 0.3, 0.7, 1.2, 1.8)
"""Between ten ratings: "real" or "generated", each with five degrees of confidence."""


def areas(
    n_studies: int,
    rng: np.random.Generator,
    tick: Tick,
    *,
    d_prime: float,
    n_readers: int,
    n_cases: int,
) -> dict[str, Any]:
    """Area under the ROC curve of confidence ratings (Roe and Metz's model, in ten ratings).

    A reader's effects on real and on generated pictures are independent, so the true area follows
    from how often each rating is given to each kind over all readers and cases.
    """
    spread = sqrt(1 + READER_SD**2 + CASE_SD**2)
    cuts = np.array([-np.inf, *RATING_CUTS, np.inf])
    real, generated = (np.diff(ndtr((cuts - m * d_prime / 2) / spread)) for m in (-1, 1))
    truth = float(generated @ (np.cumsum(real) - real / 2))
    n_each = n_cases // 2
    is_signal = np.tile(np.arange(2 * n_each) < n_each, n_readers)
    found: dict[str, list[Estimate]] = {
        name: [] for name in ("crossed", "u_statistics", "by_case", "naive")
    }
    for _ in range(n_studies):
        tables = []
        for middle in (d_prime / 2, -d_prime / 2):
            effects = READER_SD * rng.standard_normal((n_readers, 1))
            effects = effects + CASE_SD * rng.standard_normal((1, n_each))
            noise = rng.standard_normal((n_readers, n_each))
            tables.append(np.digitize(middle + effects + noise, RATING_CUTS).astype(np.float64))
        figures = auc_jackknife(*tables)
        found["crossed"].append(obuchowski_rockette(figures).means[0].estimate)
        found["u_statistics"].append(u_statistics_auc(*tables).means[0].estimate)
        found["by_case"].append(obuchowski_rockette_fixed_readers(figures).means[0].estimate)
        found["naive"].append(auc(np.hstack(tables).ravel(), is_signal))
        tick(1)
    dfs = [one.df for one in found["crossed"] if one.df is not None]
    results = {name: judged_estimates(ones, truth) for name, ones in found.items()}
    return {"truth": truth, "methods": results, "median_df": float(np.median(dfs))}
