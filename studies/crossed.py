"""Accuracy when every reader judges every case, and both are samples of something larger.

The answers to one case are alike (some cells are easy), and so are the answers of one reader (some
readers are good). An interval that counts judgements as independent misses both.

R readers, N cases; `correct` is a readers × cases table. (R, N)

Other figures of merit, several modalities, groups of readers and tables with gaps: `studies.mrmc`.
"""

from dataclasses import dataclass
from math import inf, sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import t as student_t

from studies.estimate import check_level

FEWEST_READERS = 5
"""Below this the spread of readers is hardly known, and neither is a random-reader interval."""


class CrossedError(ValueError):
    """A table from which no interval for readers and cases can be had, with what to do instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossedAccuracy:
    """Accuracy of a crossed study, and its interval."""

    estimate: float
    standard_error: float
    df: float
    """Degrees of freedom of the t quantile; `inf` when readers do not differ at all."""
    ci_low: float | None
    ci_high: float | None
    """Limits as the t formula gives them: they may leave [0, 1], and the report then clips them.
    None when the table shows no variance: the interval is not estimable, which is not a point."""
    n_readers: int
    n_cases: int
    n_correct: int
    ms_reader: float | None
    """Mean square of the readers' accuracies; None where readers are fixed."""
    cov2: float | None
    """Mean jackknife covariance of two readers' accuracies, not truncated at 0; None for one."""
    confidence_level: float

    @property
    def n_trials(self) -> int:
        """How many judgements the table holds."""
        return self.n_readers * self.n_cases

    @property
    def design_effect(self) -> float | None:
        """Variance over that of as many independent trials; None where there is no variance."""
        binomial = self.estimate * (1 - self.estimate) / self.n_trials
        return self.standard_error**2 / binomial if self.is_estimable else None

    @property
    def is_estimable(self) -> bool:
        """Whether there is an interval."""
        return self.ci_low is not None


def random_readers_and_cases(
    correct: ArrayLike, *, confidence_level: float = 0.95
) -> CrossedAccuracy:
    """Mean accuracy with an interval for other readers and other cases of the same kinds.

    With accuracies p_r of the readers, MS(R) their mean square, and Cov2 the mean over pairs of
    readers of the jackknife covariance (cases left out one by one):

        var = MS(R) / R + max(Cov2, 0)
        df  = (MS(R) + R max(Cov2, 0))² / (MS(R)² / (R − 1))

    The jackknife runs over all cases alike, although the numbers of real and of generated cases
    are fixed by design. When readers are better at one kind, the interval is therefore slightly too
    wide on average, never too narrow.

    Args:
        correct: whether each reader was right about each case; NaN marks a missing answer. (R, N)

    Raises:
        CrossedError: for fewer than 2 readers or cases, a missing answer, or values other than
            0 and 1.

    Source: Obuchowski & Rockette (1995), one modality; degrees of freedom of Hillis (2007).
    Checked against MRMCaov on the Van Dyke readings. The variance is that of Gallas' U-statistics.
    """
    table = _checked(correct)
    n_readers, n_cases = table.shape
    if n_readers < 2:
        raise CrossedError(
            "1 reader says nothing about other readers; report the interval for these readers "
            "only (fixed readers), or let another reader finish."
        )
    # From whole numbers, so that readers who do not differ have a mean square of exactly 0.
    ms_reader = float(table.sum(axis=1).var(ddof=1)) / n_cases**2
    cov2 = _mean_covariance(table)
    total = ms_reader + n_readers * max(cov2, 0.0)
    return _with_interval(
        table,
        variance=total / n_readers,
        df=total**2 / (ms_reader**2 / (n_readers - 1)) if ms_reader else inf,
        ms_reader=ms_reader,
        cov2=cov2,
        confidence_level=confidence_level,
    )


def fixed_readers(correct: ArrayLike, *, confidence_level: float = 0.95) -> CrossedAccuracy:
    """Mean accuracy with an interval for other cases, but for these readers only.

    The variance of the cases' mean scores over N, with N − 1 degrees of freedom. It is what can be
    said of few readers, and it says nothing about anybody else.

    Raises:
        CrossedError: for fewer than 2 cases, a missing answer, or values other than 0 and 1.

    Source: Obuchowski & Rockette (1995), fixed readers and random cases.
    """
    table = _checked(correct)
    n_readers, n_cases = table.shape
    return _with_interval(
        table,
        variance=float(table.sum(axis=0).var(ddof=1)) / n_readers**2 / n_cases,
        df=n_cases - 1,
        ms_reader=None,
        cov2=_mean_covariance(table) if n_readers > 1 else None,
        confidence_level=confidence_level,
    )


def _checked(correct: ArrayLike) -> NDArray[np.int64]:
    table = np.asarray(correct, dtype=np.float64)
    if table.ndim != 2 or table.shape[0] < 1 or table.shape[1] < 2:
        raise CrossedError(
            f"a table of shape {table.shape} is not readers × cases with at least 2 cases; "
            "give one row for each reader and one column for each case."
        )
    missing = np.isnan(table).sum(axis=1)
    if missing.any():
        reader = int(missing.argmax())
        raise CrossedError(
            f"reader {reader + 1} lacks {missing[reader]} of {table.shape[1]} cases; leave out "
            "readers who did not finish, or use only the cases that all of them judged."
        )
    if not np.isin(table, (0, 1)).all():
        raise CrossedError("an answer is right (1) or wrong (0); give no other values.")
    return table.astype(np.int64)


def _mean_covariance(table: NDArray[np.int64]) -> float:
    """Mean over pairs of readers of the jackknife covariance of their accuracies.

    For a mean the jackknife over cases is the sample covariance over N, and for right and wrong
    that is a matter of counts: how often the two were right together, and how often each was.
    """
    n_readers, n_cases = table.shape
    of_readers, of_cases = table.sum(axis=1), table.sum(axis=0)
    together = int((of_cases * (of_cases - 1)).sum())
    expected = int(of_readers.sum()) ** 2 - int((of_readers**2).sum())
    n_ordered_pairs = n_readers * (n_readers - 1)
    denominator = n_ordered_pairs * n_cases**2 * (n_cases - 1)
    return float((n_cases * together - expected) / denominator)


def _with_interval(
    table: NDArray[np.int64],
    *,
    variance: float,
    df: float,
    ms_reader: float | None,
    cov2: float | None,
    confidence_level: float,
) -> CrossedAccuracy:
    check_level(confidence_level, CrossedError)
    estimate, standard_error = float(table.mean()), sqrt(variance)
    half_width = float(student_t.ppf(0.5 + confidence_level / 2, df)) * standard_error
    return CrossedAccuracy(
        estimate=estimate,
        standard_error=standard_error,
        df=df,
        ci_low=estimate - half_width if variance else None,
        ci_high=estimate + half_width if variance else None,
        n_readers=table.shape[0],
        n_cases=table.shape[1],
        n_correct=int(table.sum()),
        ms_reader=ms_reader,
        cov2=cov2,
        confidence_level=confidence_level,
    )
