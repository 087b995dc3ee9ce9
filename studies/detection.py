"""Signal detection: how well a reader discriminates, apart from which answer the reader prefers.

The signal is a generated picture. A hit is a generated picture called generated; a false alarm is a
real picture called generated. A positive criterion is a preference for saying "real".
"""

from dataclasses import dataclass
from math import sqrt

from scipy.special import ndtri
from scipy.stats import norm


@dataclass(frozen=True, slots=True, kw_only=True)
class Detection:
    """d′ and criterion of one reader, with intervals, and the four counts behind them."""

    d_prime: float
    d_prime_ci_low: float
    d_prime_ci_high: float
    criterion: float
    criterion_ci_low: float
    criterion_ci_high: float
    hits: int
    misses: int
    false_alarms: int
    correct_rejections: int


def d_prime(hit_rate: float, false_alarm_rate: float) -> float:
    """Distance of the two kinds in the reader's eye, in standard deviations: z(H) − z(F).

    0 is chance. Both rates strictly between 0 and 1.
    """
    return float(ndtri(hit_rate) - ndtri(false_alarm_rate))


def criterion(hit_rate: float, false_alarm_rate: float) -> float:
    """Preference for one answer: −(z(H) + z(F)) / 2.

    0 is none, positive leans towards "real", negative towards "generated".
    """
    return float(-(ndtri(hit_rate) + ndtri(false_alarm_rate)) / 2)


def detection(
    hits: int,
    misses: int,
    false_alarms: int,
    correct_rejections: int,
    *,
    confidence_level: float = 0.95,
) -> Detection:
    """d′ and criterion of one reader, finite even for a perfect one.

    The log-linear correction adds ½ to each count, always and not only at 0 or 100 %, so that
    readers stay comparable; it draws d′ slightly towards 0. Intervals are normal, from

        var(d′) = H(1 − H) / (n_signal φ(z_H)²) + F(1 − F) / (n_noise φ(z_F)²)
        var(c) = var(d′) / 4

    Raises:
        ValueError: if a count is negative, there is no picture of one of the kinds, or the level
            is not in (0, 1).

    Source: Hautus (1995); Gourevitch & Galanter (1967).
    """
    n_signal, n_noise = hits + misses, false_alarms + correct_rejections
    if min(hits, misses, false_alarms, correct_rejections) < 0 or not n_signal or not n_noise:
        raise ValueError(
            f"{n_signal} generated and {n_noise} real judgements give no d′; "
            "it needs at least one of each, and no negative count."
        )
    if not 0 < confidence_level < 1:
        raise ValueError(f"confidence_level={confidence_level}; give a fraction such as 0.95.")
    hit_rate = (hits + 0.5) / (n_signal + 1)
    false_alarm_rate = (false_alarms + 0.5) / (n_noise + 1)
    discriminates, prefers = (
        d_prime(hit_rate, false_alarm_rate),
        criterion(hit_rate, false_alarm_rate),
    )
    variance = _probit_variance(hit_rate, n_signal) + _probit_variance(false_alarm_rate, n_noise)
    half_width = float(ndtri(0.5 + confidence_level / 2)) * sqrt(variance)
    return Detection(
        d_prime=discriminates,
        d_prime_ci_low=discriminates - half_width,
        d_prime_ci_high=discriminates + half_width,
        criterion=prefers,
        criterion_ci_low=prefers - half_width / 2,
        criterion_ci_high=prefers + half_width / 2,
        hits=hits,
        misses=misses,
        false_alarms=false_alarms,
        correct_rejections=correct_rejections,
    )


def _probit_variance(rate: float, n_trials: int) -> float:
    return rate * (1 - rate) / (n_trials * float(norm.pdf(ndtri(rate))) ** 2)
