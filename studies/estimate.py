"""A number with its interval, or the reason why there is none."""

from dataclasses import dataclass

from scipy.special import ndtri
from scipy.stats import t as student_t


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """One quantity as a report shows it."""

    estimate: float | None
    ci_low: float | None
    ci_high: float | None
    """Limits as the method gives them; they may leave the quantity's range."""
    standard_error: float | None = None
    df: float | None = None
    """Degrees of freedom of the t quantile; None where it is normal or there is none."""
    confidence_level: float
    method: str
    """What was computed, as a methods section would say it."""
    reason: str | None = None
    """Why there is no estimate or no interval, as a clause; None where there are both."""

    @staticmethod
    def symmetric(
        estimate: float,
        standard_error: float,
        *,
        df: float | None = None,
        confidence_level: float,
        method: str,
    ) -> "Estimate":
        """Estimate ± quantile × standard error; t on `df`, or normal without."""
        upper = 0.5 + confidence_level / 2
        quantile = float(ndtri(upper) if df is None else student_t.ppf(upper, df))
        return Estimate(
            estimate=estimate,
            ci_low=estimate - quantile * standard_error,
            ci_high=estimate + quantile * standard_error,
            standard_error=standard_error,
            df=df,
            confidence_level=confidence_level,
            method=method,
        )

    @staticmethod
    def not_estimable(
        method: str, reason: str, confidence_level: float, estimate: float | None = None
    ) -> "Estimate":
        """No interval, or not even a number, and why."""
        return Estimate(
            estimate=estimate,
            ci_low=None,
            ci_high=None,
            confidence_level=confidence_level,
            method=method,
            reason=reason,
        )

    @property
    def is_estimable(self) -> bool:
        """Whether there is an interval."""
        return self.ci_low is not None and self.ci_high is not None


def check_level(confidence_level: float, error: type[ValueError] = ValueError) -> None:
    """Refuse, with the caller's error, a level that is not in (0, 1)."""
    if not 0 < confidence_level < 1:
        raise error(f"confidence_level={confidence_level}; give a fraction such as 0.95.")
