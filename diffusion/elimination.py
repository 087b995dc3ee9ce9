"""When a class may be dropped: an anytime-valid t-test on differences between blocks.

A class is compared with the leader by the differences d_1, d_2, ... of their block scores. The test
may look after every block and stop whenever it likes: its e-value is a ratio of two marginal
likelihoods, a martingale while the classes are equally good, and exceeds 1 / alpha at any time with
probability at most alpha (Ville's inequality).

Shapes: n blocks, K classes; `...` any number of comparisons side by side.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field
from scipy.optimize import minimize, minimize_scalar
from scipy.stats import f as f_distribution

Floats = NDArray[np.float64]


class BlockVariancePrior(BaseModel):
    """How large the variance of block differences is, as other images have shown.

    `degrees_of_freedom * scale^2 / variance` is chi-square with that many degrees of freedom: the
    prior weighs as much as so many blocks, and lets a class be dropped after the first one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    degrees_of_freedom: float = Field(gt=0)
    scale: float = Field(gt=0)
    """Typical standard deviation of a difference between two classes' block scores, in their
    units."""


def fit_block_variance_prior(blocks: ArrayLike) -> BlockVariancePrior:
    """The prior that validation images speak for, by maximum marginal likelihood.

    Sample variances of the differences (best class minus each other one) follow
    `scale^2 * F(n_blocks - 1, degrees_of_freedom)`.

    Args:
        blocks: block scores of all classes, from `block_log_likelihoods`. (n_images, n_blocks, K)

    Raises:
        ValueError: if there are fewer than two blocks, or no differences vary.

    Source: Smyth (2004), "Linear models and empirical Bayes methods for assessing differential
    expression in microarray experiments" (which fits the same model by moments).
    """
    scores = np.asarray(blocks, dtype=np.float64)
    if scores.ndim != 3 or scores.shape[1] < 2 or scores.shape[2] < 2:
        raise ValueError(
            f"block scores of shape {scores.shape}; give (n_images, n_blocks, K) with at least two "
            "blocks and two classes."
        )
    best = scores.mean(axis=1).argmax(axis=1)
    differences = np.take_along_axis(scores, best[:, None, None], axis=2) - scores
    variances = differences.var(axis=1, ddof=1).ravel()
    variances = variances[variances > 0]  # the best class differs from itself by nothing
    if not len(variances):
        raise ValueError(
            "no two classes' block scores differ by a varying amount; check that the draws of the "
            "blocks are different and that the network tells classes apart."
        )

    def loss(parameters: Floats) -> float:
        degrees_of_freedom, log_variance = np.exp(parameters[0]), parameters[1]
        ratios = np.exp(np.log(variances) - log_variance)
        fit = f_distribution.logpdf(ratios, scores.shape[1] - 1, degrees_of_freedom)
        return float(log_variance - fit.mean())

    start = [np.log(4.0), np.log(np.median(variances))]
    bounds = [(np.log(0.1), np.log(1e4)), (None, None)]
    fitted = minimize(loss, start, method="Nelder-Mead", bounds=bounds).x
    return BlockVariancePrior(
        degrees_of_freedom=float(np.exp(fitted[0])), scale=float(np.exp(fitted[1] / 2))
    )


def log_e_values(
    n_blocks: ArrayLike,
    sums: ArrayLike,
    sums_of_squares: ArrayLike,
    *,
    effect_precision: float,
    prior: BlockVariancePrior | None = None,
    null_mean: ArrayLike = 0.0,
) -> Floats:
    """ln of the evidence that the mean of n differences is not `null_mean`. (...) each -> (...)

    The ratio of the marginal likelihoods of normal differences with mean `delta * sd` and with mean
    `null_mean`; delta is normal with mean 0 and variance `1 / c^2` (`effect_precision` is c^2), and
    the variance has the prior (`v` degrees of freedom, scale `s`). With S the sum, V the sum of
    squares and U the sum of squares about `null_mean`:

        E_n = sqrt(c^2 / (n + c^2)) * ((v s^2 + U) / (v s^2 + V - S^2 / (n + c^2)))^((n + v) / 2)

    What makes up for a `null_mean` far from 0 would have to be seen in the differences: if the
    first is no larger than usual, E_1 grows without bound as `null_mean` does. Were the alternative
    centred on `null_mean` too, E_1 could not exceed `(1 + 1 / c^2)^(v / 2)`.

    Without a prior, v = 0: the variance has the improper density 1 / variance in both likelihoods.
    Their ratio is then that of `d_i / |d_1|`, whatever the variance, so E_n remains a martingale;
    its exponent is n / 2 and not (n - 1) / 2, because the mean is not integrated over a flat prior
    but has one that scales with the sd. E_1 = 1: one difference alone tells nothing.

    Differences that are all `null_mean` are no evidence, E_n <= 1. The evidence is two-sided; used
    where the mean of the differences is above `null_mean` only, it is as valid if their expectation
    is below: such differences are then less likely than if it were `null_mean`.

    Raises:
        ValueError: for a `null_mean` without a prior. The invariance that makes up for the prior is
            lost where the likelihoods are about two different means.

    Source: Lai (1976), "On confidence sequences"; Wang & Ramdas (2024), "Anytime-valid t-tests and
    confidence sequences for Gaussian means with unknown variance", the Gaussian mixture.
    """
    n, total, squares = (np.asarray(a, dtype=np.float64) for a in (n_blocks, sums, sums_of_squares))
    degrees_of_freedom = 0.0 if prior is None else prior.degrees_of_freedom
    known = 0.0 if prior is None else degrees_of_freedom * prior.scale**2
    null = np.asarray(null_mean, dtype=np.float64)
    if prior is None and null.any():
        raise ValueError(
            "a null_mean needs a variance prior; subtract it from the differences, or give a prior "
            "from `fit_block_variance_prior`."
        )
    scatter = known + squares
    explained = total**2 / (n + effect_precision)
    share = np.divide(explained, scatter, out=np.zeros_like(explained + scatter), where=scatter > 0)
    shrinkage = np.log(effect_precision / (n + effect_precision)) / 2
    log_e: Floats = shrinkage - (n + degrees_of_freedom) / 2 * np.log1p(-share)
    if prior is not None:
        about_null = np.maximum(squares - 2 * null * total + n * null**2, 0.0)
        log_e = log_e + (n + degrees_of_freedom) / 2 * np.log((known + about_null) / scatter)
    return log_e


@lru_cache
def tightest_effect_precision(
    n_blocks: int, error_rate: float, prior: BlockVariancePrior | None = None
) -> float:
    """The `effect_precision` whose test at `error_rate` needs the smallest effect after n blocks.

    Raises:
        ValueError: for one block without a prior, which never tells anything.
    """
    degrees_of_freedom = 0.0 if prior is None else prior.degrees_of_freedom
    if n_blocks < 2 and prior is None:
        raise ValueError(
            f"n_opt={n_blocks}: without a variance prior one block tells nothing; give at least 2, "
            "or a prior from `fit_block_variance_prior`."
        )

    def boundary(log_precision: float) -> float:
        """S^2 / (v s^2 + V) at which E_n reaches 1 / error_rate."""
        precision = np.exp(log_precision)
        shrinkage = precision / (n_blocks + precision)
        exponent = 1 / (n_blocks + degrees_of_freedom)
        share = -np.expm1(np.log(error_rate**2 * shrinkage) * exponent)
        return float((n_blocks + precision) * share)

    found = minimize_scalar(boundary, bounds=(-30.0, 10.0), method="bounded")
    return float(np.exp(found.x))


def beaten_classes(
    blocks: ArrayLike,
    *,
    error_rate: float,
    n_opt: int,
    prior: BlockVariancePrior | None = None,
    head_start: ArrayLike | None = None,
) -> tuple[int, NDArray[np.bool_]]:
    """The leader, and which classes are behind it beyond doubt.

    Args:
        blocks: scores of the classes in the same blocks. (n, K)
        error_rate: of each comparison.
        n_opt: number of blocks after which the test is to be sharpest.
        prior: of the variance of block differences.
        head_start: constants to be added to the scores; none by default. (K,)

    Returns:
        Index of the class with the highest mean, head start included; whether each class is beaten
        by it. (K,)
    """
    scores = np.asarray(blocks, dtype=np.float64)
    ahead = np.zeros(scores.shape[1]) if head_start is None else np.asarray(head_start, np.float64)
    leader = int((scores.mean(axis=0) + ahead).argmax())
    differences, null_mean = scores[:, [leader]] - scores, ahead - ahead[leader]
    if prior is None:
        differences, null_mean = differences - null_mean, np.zeros_like(null_mean)
    log_e = log_e_values(
        len(scores),
        differences.sum(axis=0),
        (differences**2).sum(axis=0),
        effect_precision=tightest_effect_precision(n_opt, error_rate, prior),
        prior=prior,
        null_mean=null_mean,
    )
    return leader, log_e >= -np.log(error_rate)


def standard_errors_of_means(
    differences: ArrayLike, prior: BlockVariancePrior | None = None
) -> Floats:
    """Standard error of each mean of n differences, (n, ...) -> (...).

    With a prior the variance is the posterior's scale, `(v s^2 + W) / (v + n - 1)` with W the
    squares about the mean (Smyth, 2004); without one the sample variance, and infinity
    for a single difference.
    """
    values = np.asarray(differences, dtype=np.float64)
    n = len(values)
    degrees_of_freedom = 0.0 if prior is None else prior.degrees_of_freedom
    if n + degrees_of_freedom <= 1:
        return np.full(values.shape[1:], np.inf)
    known = 0.0 if prior is None else degrees_of_freedom * prior.scale**2
    squares = ((values - values.mean(axis=0)) ** 2).sum(axis=0)
    errors: Floats = np.sqrt((known + squares) / (degrees_of_freedom + n - 1) / n)
    return errors


def asymptotic_half_widths(
    n: ArrayLike, standard_deviations: ArrayLike, *, error_rate: float, n_opt: int
) -> Floats:
    """Half-widths of the asymptotic confidence sequence for a mean of n draws, for comparison.

        sd * sqrt(2 (n r + 1) / (n^2 r) * ln(sqrt(n r + 1) / error_rate)),
        r = (-2 ln(error_rate) + ln(-2 ln(error_rate)) + 1) / n_opt

    Its guarantee needs n large; with the two to six blocks of a race it errs too often, which is
    why races do not use it.

    Source: Waudby-Smith et al. (2024), "Time-uniform central limit theory and asymptotic
    confidence sequences", the Gaussian mixture boundary and the tuning of its rho.
    """
    counts = np.asarray(n, dtype=np.float64)
    log_rate = -2 * np.log(error_rate)
    r = (log_rate + np.log(log_rate) + 1) / n_opt
    boundary = 2 * (counts * r + 1) / (counts**2 * r)
    widths: Floats = np.asarray(standard_deviations) * np.sqrt(
        boundary * np.log(np.sqrt(counts * r + 1) / error_rate)
    )
    return widths
