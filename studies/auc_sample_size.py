"""Power and sample size of areas under the ROC by formula: one against ½, two paired.

For independent cases and controls, read once. θ is an area under the ROC curve (AUC), κ controls
per case.
"""

from dataclasses import dataclass
from math import exp, isfinite, sqrt

from scipy.optimize import brentq
from scipy.special import ndtr, ndtri

from studies.sample_size import SampleSizeError, refuse_level, rounded_up, upper_quantile


@dataclass(frozen=True, slots=True, kw_only=True)
class AucSampleSize:
    """How many cases and controls reach a power."""

    n_cases: int
    n_controls: int
    n_cases_exact: float
    n_controls_exact: float
    """As the formula gives them, before rounding up."""
    method: str


def hanley_mcneil_standard_error(auc: float, n_cases: float, n_controls: float) -> float:
    """Standard error of an area under the ROC from its size alone, for planning.

    √((θ(1 − θ) + (n_cases − 1)(Q₁ − θ²) + (n_controls − 1)(Q₂ − θ²)) / (n_cases n_controls)), with
    Q₁ = θ / (2 − θ) and Q₂ = 2 θ² / (1 + θ).

    Raises:
        SampleSizeError: if the area is not in [0, 1], or there is no case or no control.

    Source: Hanley & McNeil (1982), exponential ratings.
    """
    if not 0 <= auc <= 1:
        raise SampleSizeError(f"auc={auc} is not an area; give a number in [0, 1].")
    _refuse_cases(n_cases, n_controls)
    first, second = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    variance = (
        auc * (1 - auc) + (n_cases - 1) * (first - auc**2) + (n_controls - 1) * (second - auc**2)
    ) / (n_cases * n_controls)
    return sqrt(max(0.0, variance))


def obuchowski_variance(auc: float, controls_per_case: float) -> float:
    """Variance of an area under the ROC, times the number of cases, from its size alone.

    0.0099 exp(−A²/2) ((5 A² + 8) + (A² + 8) / κ), with A = 1.414 Φ⁻¹(θ): binormal, equal variances.
    Its constants are rounded in the paper, and kept so.

    Raises:
        SampleSizeError: if the area is not strictly between 0 and 1, or κ not above 0.

    Source: Obuchowski, Lieber & Wians (2004), formula 3; as R's pROC.
    """
    _refuse_auc(auc)
    _refuse_ratio(controls_per_case)
    a_squared = (1.414 * float(ndtri(auc))) ** 2
    return (
        0.0099 * exp(-a_squared / 2) * ((5 * a_squared + 8) + (a_squared + 8) / controls_per_case)
    )


def auc_power(
    auc: float,
    n_cases: float,
    n_controls: float,
    *,
    alpha: float = 0.05,
    is_two_sided: bool = True,
) -> float:
    """Power of the test of one area under the ROC against ½.

    Φ((|θ − ½| √n_cases − z √V(½)) / √V(θ)), V of `obuchowski_variance`; the far tail is left out.

    Raises:
        SampleSizeError: if the area is not strictly between 0 and 1, or a number is none.

    Source: Obuchowski, Lieber & Wians (2004), formula 2; R's pROC, `power.roc.test`.
    """
    _refuse_auc(auc)
    refuse_level(alpha, "alpha")
    _refuse_cases(n_cases, n_controls)
    ratio = n_controls / n_cases
    reach = upper_quantile(alpha / 2 if is_two_sided else alpha) * sqrt(
        obuchowski_variance(0.5, ratio)
    )
    return float(
        ndtr((abs(auc - 0.5) * sqrt(n_cases) - reach) / sqrt(obuchowski_variance(auc, ratio)))
    )


def auc_sample_size(
    auc: float,
    *,
    power: float,
    controls_per_case: float = 1.0,
    alpha: float = 0.05,
    is_two_sided: bool = True,
) -> AucSampleSize:
    """How many cases and controls the test of one area under the ROC against ½ needs.

    Raises:
        SampleSizeError: if the area is ½ or not strictly between 0 and 1, or a number is none.

    Source: Obuchowski, Lieber & Wians (2004), formulas 2 and 3 and table 4; R's pROC.
    """
    _refuse_auc(auc)
    refuse_level(alpha, "alpha")
    refuse_level(power, "power")
    if auc == 0.5:
        raise SampleSizeError("auc=0.5 is what the test is against; assume an area that differs.")
    root = upper_quantile(alpha / 2 if is_two_sided else alpha) * sqrt(
        obuchowski_variance(0.5, controls_per_case)
    ) + upper_quantile(1 - power) * sqrt(obuchowski_variance(auc, controls_per_case))
    return _auc_sizes(
        root, auc - 0.5, controls_per_case, "one AUC against 0.5, Obuchowski et al. (2004)"
    )


def detectable_auc(
    n_cases: float,
    n_controls: float,
    *,
    power: float,
    alpha: float = 0.05,
    is_two_sided: bool = True,
) -> float:
    """Smallest area under the ROC above ½ that is found with this power.

    Raises:
        SampleSizeError: if no area below 1 is, or a number is none.

    Source: `auc_power`, solved; R's pROC solves it to four digits.
    """
    refuse_level(power, "power")

    def lacking(auc: float) -> float:
        return auc_power(auc, n_cases, n_controls, alpha=alpha, is_two_sided=is_two_sided) - power

    if lacking(0.5) >= 0:
        raise SampleSizeError(
            f"power={power} is no more than the level of the test; ask for more, such as 0.8."
        )
    # Towards 1 the formula's variance vanishes and power is 0 or 1; below that it only grows.
    largest = 1 - 1e-9
    if lacking(largest) < 0:
        raise SampleSizeError(
            f"{n_cases:g} cases and {n_controls:g} controls find no area with power {power}; plan "
            "more of them."
        )
    return float(brentq(lacking, 0.5, largest, xtol=1e-12))


def paired_auc_power(
    auc: float,
    other_auc: float,
    *,
    variance: float,
    other_variance: float,
    covariance: float,
    n_pilot_cases: float,
    n_cases: float | None = None,
    alpha: float = 0.05,
    is_two_sided: bool = True,
) -> float:
    """Power of the test that two areas under the ROC on the same cases and controls differ.

    Variances fall as one over the cases, at the pilot's controls per case. With v₁, v₂ and c the
    pilot's, times its cases: V₀ = 2 v₁ − 2 c (both areas alike, the first as reference) and
    V = v₁ + v₂ − 2 c, and the power is Φ((|θ₁ − θ₂| √n_cases − z √V₀) / √V).

    Args:
        variance: of the first area in the pilot, by DeLong's method for instance.
        other_variance: of the second.
        covariance: of the two, from the same pilot.
        n_pilot_cases: cases of the pilot.
        n_cases: cases planned; the pilot's without it.

    Raises:
        SampleSizeError: if the variances and the covariance do not fit, or a number is none.

    Source: Obuchowski & McClish (1997), formulas 2 to 5; R's pROC with DeLong variances.
    """
    refuse_level(alpha, "alpha")
    null_sd, true_sd = _paired_deviations(
        auc, other_auc, variance, other_variance, covariance, n_pilot_cases
    )
    planned = n_pilot_cases if n_cases is None else n_cases
    _refuse_cases(planned, 1)
    reach = upper_quantile(alpha / 2 if is_two_sided else alpha) * null_sd
    return float(ndtr((abs(auc - other_auc) * sqrt(planned) - reach) / true_sd))


def paired_auc_sample_size(
    auc: float,
    other_auc: float,
    *,
    power: float,
    variance: float,
    other_variance: float,
    covariance: float,
    n_pilot_cases: float,
    n_pilot_controls: float,
    alpha: float = 0.05,
    is_two_sided: bool = True,
) -> AucSampleSize:
    """How many cases and controls the test of two paired areas needs, at the pilot's ratio of them.

    Args:
        variance: of the first area in the pilot, the reference of `paired_auc_power`.

    Raises:
        SampleSizeError: if the areas are the same, the variances and the covariance do not fit, or
            a number is none.

    Source: Obuchowski & McClish (1997), formula 2; R's pROC with DeLong variances.
    """
    refuse_level(alpha, "alpha")
    refuse_level(power, "power")
    _refuse_cases(n_pilot_cases, n_pilot_controls)
    null_sd, true_sd = _paired_deviations(
        auc, other_auc, variance, other_variance, covariance, n_pilot_cases
    )
    if auc == other_auc:
        raise SampleSizeError(
            f"both areas are {auc}; assume a difference that would matter, or plan for equivalence."
        )
    root = (
        upper_quantile(alpha / 2 if is_two_sided else alpha) * null_sd
        + upper_quantile(1 - power) * true_sd
    )
    return _auc_sizes(
        root,
        auc - other_auc,
        n_pilot_controls / n_pilot_cases,
        "two paired AUCs, Obuchowski & McClish (1997)",
    )


def _auc_sizes(
    root: float, difference: float, controls_per_case: float, method: str
) -> AucSampleSize:
    if root <= 0:
        raise SampleSizeError("the power is no more than the level of the test; ask for more.")
    n_cases = root**2 / difference**2
    return AucSampleSize(
        n_cases=rounded_up(n_cases),
        n_controls=rounded_up(n_cases * controls_per_case),
        n_cases_exact=n_cases,
        n_controls_exact=n_cases * controls_per_case,
        method=method,
    )


def _paired_deviations(
    auc: float,
    other_auc: float,
    variance: float,
    other_variance: float,
    covariance: float,
    n_pilot_cases: float,
) -> tuple[float, float]:
    """Standard deviations of the difference under null and truth, times √cases."""
    _refuse_auc(auc)
    _refuse_auc(other_auc)
    _refuse_cases(n_pilot_cases, 1)
    null_variance = 2 * variance - 2 * covariance
    true_variance = variance + other_variance - 2 * covariance
    if not (variance > 0 and other_variance > 0 and null_variance > 0 and true_variance > 0):
        raise SampleSizeError(
            f"variances {variance:g} and {other_variance:g} with covariance {covariance:g} leave "
            "no variance of the difference; give variances above 0 and above the covariance, from "
            "one pilot."
        )
    return sqrt(null_variance * n_pilot_cases), sqrt(true_variance * n_pilot_cases)


def _refuse_auc(auc: float) -> None:
    if not 0 < auc < 1:
        raise SampleSizeError(
            f"auc={auc}; give an area strictly between 0 and 1: at 0 or 1 there is no variance."
        )


def _refuse_ratio(controls_per_case: float) -> None:
    if not controls_per_case > 0 or not isfinite(controls_per_case):
        raise SampleSizeError(
            f"controls_per_case={controls_per_case}; give a ratio above 0, and 1 for as many of "
            "each."
        )


def _refuse_cases(n_cases: float, n_controls: float) -> None:
    if not n_cases >= 1 or not n_controls >= 1 or not isfinite(n_cases + n_controls):
        raise SampleSizeError(
            f"{n_cases} cases and {n_controls} controls; give at least 1 of each."
        )
