"""A number with its interval, or the reason why there is none."""

from dataclasses import dataclass


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
    def not_estimable(
        method: str, reason: str, *, confidence_level: float, estimate: float | None = None
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
