"""How much readers and cases differ: what a study must be large enough for."""

from dataclasses import dataclass
from math import inf, sqrt

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq
from scipy.special import ndtri, owens_t

from studies.crossed import random_readers_and_cases


class ComponentsError(ValueError):
    """Spread that is none, or a pilot that does not tell it, and what to give instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Components:
    """How much readers and cases differ: standard deviations on the probit scale, noise 1.

    What is assumed by default is a choice: readers of about 50 % differ by 5 points (SD), and two
    of them agree with κ = 0.13. Visual Turing tests found κ of 0.10 to 0.14 (Park 2021, Jang 2023),
    part of which the truth explains. Readers may differ far more: Higaki (2022) prints a standard
    deviation of 21.5 points, though not for how many pictures in the abstract. Best have a pilot.
    """

    reader_sd: float = 0.15
    case_sd: float = 0.5
    source: str = "assumed, not measured"

    def __post_init__(self) -> None:
        if not (0 <= self.reader_sd < inf and 0 <= self.case_sd < inf):
            raise ComponentsError(
                f"reader_sd={self.reader_sd}, case_sd={self.case_sd}; give standard deviations of "
                "at least 0, such as 0.15 and 0.5."
            )

    @property
    def latent_sd(self) -> float:
        """Of readers, cases and noise together."""
        return sqrt(1 + self.reader_sd**2 + self.case_sd**2)

    @property
    def reader_share(self) -> float:
        """Share of the latent variance: the latent correlation of one reader's answers."""
        return (self.reader_sd / self.latent_sd) ** 2

    @property
    def case_share(self) -> float:
        """Share of the latent variance: the latent correlation of the answers to one case."""
        return (self.case_sd / self.latent_sd) ** 2


ASSUMED = Components()


def components_from_pilot(correct: ArrayLike) -> Components:
    """Spread of readers and cases in a pilot, by the method of moments; a negative one becomes 0.

    From how often two answers are right together: one reader's about two cases, two readers' about
    one case, two readers' about two cases. Few readers say little about their spread, so plan with
    a larger one too. Where one kind of case is easier, that counts as spread of cases.

    Args:
        correct: whether each reader was right about each case. (R, N)

    Raises:
        CrossedError: if that is no complete table of at least 2 readers and 2 cases.
        ComponentsError: if readers or cases explain all answers.
    """
    truth = random_readers_and_cases(correct).estimate
    table = np.asarray(correct, dtype=np.int64)
    n_readers, n_cases = table.shape
    total = int(table.sum())
    of_readers, of_cases = (int((table.sum(axis=axis) ** 2).sum()) for axis in (1, 0))
    neither = (total**2 - of_readers - of_cases + total) / (n_readers - 1) / (n_cases - 1)
    reader, case = (
        _share(((together - total) / (n - 1) - neither) / table.size, truth)
        for together, n in ((of_readers, n_cases), (of_cases, n_readers))
    )
    noise = 1 - reader - case
    if truth in (0, 1) or noise <= 0:
        raise ComponentsError(
            f"the pilot of {n_readers} readers and {n_cases} cases has no noise to plan with "
            f"({100 * truth:g} % right); make it larger, or plan with the assumed components."
        )
    return Components(
        reader_sd=sqrt(reader / noise),
        case_sd=sqrt(case / noise),
        source=f"from a pilot of {n_readers} readers and {n_cases} cases",
    )


def covariance(truth: float, share: float) -> float:
    """Of two answers that share this part of their latent variance: P(both right) − truth²."""
    middle, slope = float(ndtri(truth)), sqrt((1 - share) / (1 + share))
    return truth * (1 - truth) - 2 * float(owens_t(middle, slope))


def _share(found: float, truth: float) -> float:
    """The inverse of `covariance`, in [0, 1]."""
    if found <= 0:
        return 0.0
    if found >= truth * (1 - truth):
        return 1.0
    return float(brentq(lambda share: covariance(truth, share) - found, 0.0, 1.0))
