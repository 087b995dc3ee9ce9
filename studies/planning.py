"""How many readers and cases a study needs, by simulating it with bots.

A bot is right about a case where mu + reader + case + noise > 0: normal effects of the reader and
of the case, noise of variance 1 (a probit-normal model). Accuracy over all readers and cases is
Φ(mu / √(1 + reader_sd² + case_sd²)), which gives mu exactly. Every simulated study is analysed as
the report analyses a real one: `studies.crossed`, then the tests of `studies.equivalence`.

All readers judge all cases. For sensitivity or specificity, count the cases of that kind only.
S simulated studies, R readers, N cases.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import inf, sqrt

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri
from scipy.stats import t as student_t

from studies.components import ASSUMED, Components, covariance
from studies.crossed import FEWEST_READERS
from studies.equivalence import tost_power
from studies.plotting import percent

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

CHANCE = 0.5
FEWEST_CASES = 10
MOST = 10_000
"""Readers or cases: where the search for the fewest gives up."""
MOST_ANSWERS = 2_000_000_000
"""About half a minute of simulation."""
BATCH = 500_000
"""Answers simulated at once."""


class PlanningError(ValueError):
    """A design that cannot be planned for, and what to give instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Power:
    """A simulated power."""

    power: float
    standard_error: float
    """Of the simulation (Monte Carlo)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """What one number of readers and one of cases would give."""

    n_readers: int
    n_cases: int
    equivalence: Power | None
    """Of the TOST; None without a margin."""
    difference: Power | None
    """To find a difference from chance; None where the truth is chance."""
    width: float | None
    """Mean full width of the crossed interval, a proportion; None where no study had one."""

    @property
    def asked(self) -> Power:
        """Of equivalence where there is a margin, else of a difference."""
        asked = self.equivalence or self.difference
        assert asked is not None
        return asked


@dataclass(frozen=True, slots=True, kw_only=True)
class StudySize:
    """A grid of designs, and which of them suffice."""

    answer: str
    """A sentence on the smallest design, and one on what no design can do without."""
    purpose: str
    """What the power is for, such as "to find a difference from chance if …"."""
    assumptions: str
    designs: tuple[Design, ...]
    """By readers, then by cases."""
    smallest: tuple[Design, ...]
    """Those that reach the target while no smaller one does, fewest judgements first. None has
    fewer readers than `FEWEST_READERS`: the report would then speak of these readers only."""
    fewest_readers: int | None
    """With fewer no number of cases suffices, by normal theory. None where no number of readers
    does either, and without a margin."""
    fewest_cases: int | None
    """The same of cases."""
    truth: float
    margin: float | None
    alpha: float
    confidence_level: float
    target_power: float
    components: Components
    n_simulations: int
    seed: int


def size_study(
    *,
    truth: float = CHANCE,
    margin: float | None = 0.05,
    components: Components = ASSUMED,
    n_readers: Sequence[int] = (3, 5, 8, 12, 20, 30),
    n_cases: Sequence[int] = (50, 100, 200, 300, 500),
    target_power: float = 0.8,
    alpha: float = 0.05,
    confidence_level: float = 0.95,
    n_simulations: int = 10_000,
    seed: int = 1,
    on_progress: Callable[[float], object] | None = None,
) -> StudySize:
    """Power and interval width for every number of readers and cases, and the smallest that do.

    Smaller designs are the first readers and cases of the largest, so the grid is smooth and its
    simulation errors are correlated.

    Args:
        truth: accuracy over all readers and cases.
        margin: equivalent is what differs from chance by less; None to look for a difference only.
        alpha: level of each one-sided test of equivalence.
        confidence_level: of the interval, which also decides about a difference from chance.
        on_progress: is told the share done, in (0, 1].

    Raises:
        PlanningError: for a question that no study answers, or numbers that are none.
    """
    readers, cases = np.unique(n_readers), np.unique(n_cases)
    _refuse_question(truth, margin, target_power, alpha, confidence_level)
    _refuse_sizes(readers, cases, n_simulations)
    found = np.empty((3, n_simulations, len(readers), len(cases)))
    done = 0
    for part in _batches(truth, components, readers, cases, n_simulations, seed):
        found[:, done : done + part.shape[1]] = part
        done += part.shape[1]
        if on_progress is not None:
            on_progress(done / n_simulations)
    estimates, errors, dfs = found
    off = np.abs(estimates - CHANCE)
    half_widths = student_t.ppf(0.5 + confidence_level / 2, dfs) * errors
    reaches = off + student_t.ppf(1 - alpha, dfs) * errors
    designs = []
    for (i, n), (j, m) in product(enumerate(readers), enumerate(cases)):
        has = errors[:, i, j] > 0
        designs.append(
            Design(
                n_readers=int(n),
                n_cases=int(m),
                equivalence=None if margin is None else _power(has & (reaches[:, i, j] <= margin)),
                difference=None
                if truth == CHANCE
                else _power(has & (off[:, i, j] >= half_widths[:, i, j])),
                width=float(2 * half_widths[has, i, j].mean()) if has.any() else None,
            )
        )
    smallest = _smallest(designs, target_power)
    fewest = _fewest(truth, margin, components, target_power, alpha)
    purpose = (
        "to find a difference from chance"
        if margin is None
        else f"to show equivalence within {100 * margin:g} points of chance"
    ) + f" if the true accuracy is {100 * truth:g} %"
    spread = sqrt(covariance(truth, components.reader_share))
    return StudySize(
        answer=_answer(designs, smallest, fewest, purpose, target_power),
        purpose=purpose,
        assumptions=(
            f"Readers differ with a standard deviation of {components.reader_sd:.2g} and cases of "
            f"{components.case_sd:.2g} on the probit scale ({components.source}), where the noise "
            f"of a judgement has 1; readers’ true accuracies then differ with one of "
            f"{percent(spread)} points. {n_simulations} simulated studies, seed {seed}."
        ),
        designs=tuple(designs),
        smallest=smallest,
        fewest_readers=fewest[0],
        fewest_cases=fewest[1],
        truth=truth,
        margin=margin,
        alpha=alpha,
        confidence_level=confidence_level,
        target_power=target_power,
        components=components,
        n_simulations=n_simulations,
        seed=seed,
    )


def crossed_errors(
    of_readers: Integers, together: Integers, n_cases: int
) -> tuple[Floats, Floats, Floats]:
    """Estimate, standard error and df of `random_readers_and_cases` for each study. (S,)

    Args:
        of_readers: right answers of each reader. (S, R)
        together: ordered pairs of readers who were right about one case, over all cases. (S,)
    """
    n_readers, total = of_readers.shape[1], of_readers.sum(axis=1)
    ms_reader = of_readers.var(axis=1, ddof=1) / n_cases**2
    covered = n_cases * together - total**2 + (of_readers**2).sum(axis=1)
    cov2 = covered / (n_readers * (n_readers - 1) * n_cases**2 * (n_cases - 1))
    summed = ms_reader + n_readers * np.maximum(cov2, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        df = np.where(ms_reader > 0, (n_readers - 1) * (summed / ms_reader) ** 2, inf)
    return total / (n_readers * n_cases), np.sqrt(summed / n_readers), df


def _batches(
    truth: float,
    components: Components,
    readers: Integers,
    cases: Integers,
    n_simulations: int,
    seed: int,
) -> Iterator[Floats]:
    """Estimates, standard errors and df of some studies at a time. (3, S, readers, cases)"""
    rng = np.random.default_rng(seed)
    most_readers, most_cases = int(readers[-1]), int(cases[-1])
    threshold = -ndtri(truth) * components.latent_sd
    # Sums over the first readers or cases of each design, from those between one size and the next.
    reader_starts, case_starts = np.r_[0, readers[:-1]], np.r_[0, cases[:-1]]
    size = max(1, BATCH // (most_readers * most_cases))
    for start in range(0, n_simulations, size):
        n = min(size, n_simulations - start)
        latent = rng.standard_normal((n, most_readers, most_cases), np.float32)
        latent += rng.normal(0, components.reader_sd, (n, most_readers, 1)).astype(np.float32)
        latent += rng.normal(0, components.case_sd, (n, 1, most_cases)).astype(np.float32)
        correct = latent > threshold
        of_readers = np.add.reduceat(correct, case_starts, axis=2, dtype=np.int64).cumsum(axis=2)
        of_cases = np.add.reduceat(correct, reader_starts, axis=1, dtype=np.int64).cumsum(axis=1)
        together = np.add.reduceat(of_cases * (of_cases - 1), case_starts, axis=2).cumsum(axis=2)
        found = np.empty((3, n, len(readers), len(cases)))
        for (i, r), (j, c) in product(enumerate(readers), enumerate(cases)):
            found[:, :, i, j] = crossed_errors(of_readers[:, :r, j], together[:, i, j], int(c))
        yield found


def _power(shown: NDArray[np.bool_]) -> Power:
    power = float(shown.mean())
    return Power(power=power, standard_error=sqrt(power * (1 - power) / len(shown)))


def _fewest(
    truth: float, margin: float | None, components: Components, target: float, alpha: float
) -> tuple[int | None, int | None]:
    """Fewest readers with endless cases, and fewest cases with endless readers."""
    if margin is None:
        return None, None
    low, high = CHANCE - margin, CHANCE + margin

    def fewest(share: float, *, are_readers: bool) -> int | None:
        variance = covariance(truth, share)

        def power(n: int) -> float:
            df, error = n - 1 if are_readers else None, sqrt(variance / n)
            return tost_power(error, df=df, low=low, high=high, truth=truth, alpha=alpha)

        found = 2 if share == 0 else 2 + bisect_left(range(2, MOST + 1), target, key=power)
        return found if found <= MOST else None

    return (
        fewest(components.reader_share, are_readers=True),
        fewest(components.case_share, are_readers=False),
    )


def _smallest(designs: Sequence[Design], target: float) -> tuple[Design, ...]:
    enough = [
        design
        for design in designs
        if design.asked.power >= target and design.n_readers >= FEWEST_READERS
    ]

    def is_smallest(design: Design) -> bool:
        return not any(
            other.n_readers <= design.n_readers and other.n_cases <= design.n_cases
            for other in enough
            if other is not design
        )

    return tuple(sorted(filter(is_smallest, enough), key=lambda one: one.n_readers * one.n_cases))


def _answer(
    designs: Sequence[Design],
    smallest: Sequence[Design],
    fewest: tuple[int | None, int | None],
    purpose: str,
    target: float,
) -> str:
    needs = [
        f"at least {few} {what} with any number of {other}"
        for few, what, other in ((fewest[0], "readers", "cases"), (fewest[1], "cases", "readers"))
        if few is not None and few > 2
    ]
    limits = f" By normal theory it takes {' and '.join(needs)}." * bool(needs)
    able = [one for one in designs if one.n_readers >= FEWEST_READERS]
    best = smallest[0] if smallest else max(able, key=lambda one: one.asked.power)
    found = f"{best.n_readers} readers × {best.n_cases} cases"
    error = percent(best.asked.standard_error)
    power = f"{100 * best.asked.power:.0f} % power (simulation error ±{error})"
    if smallest:
        others = ", ".join(f"{one.n_readers} × {one.n_cases}" for one in smallest[1:])
        also = f" ({others} reach {100 * target:g} % too)" * bool(others)
        return f"{found} give {power} {purpose}{also}.{limits}"
    margin = ", or a wider margin" * (best.equivalence is not None)
    return (
        f"No design here reaches {100 * target:g} % power {purpose}: {found} come nearest with "
        f"{power}; plan more of both{margin}.{limits}"
    )


def _refuse_question(
    truth: float, margin: float | None, target: float, alpha: float, confidence_level: float
) -> None:
    if not 0 < truth < 1:
        raise PlanningError(f"truth={truth}; give the true accuracy, such as 0.5 for chance.")
    if margin is None and truth == CHANCE:
        raise PlanningError(
            "readers at chance do not differ from it; give a margin to show that they are "
            "equivalent, or another true accuracy."
        )
    if margin is not None and not 0 < margin < CHANCE:
        raise PlanningError(
            f"margin={margin}; give it as a proportion between 0 and 0.5, such as 0.05 for 45 to "
            "55 % correct."
        )
    if margin is not None and abs(truth - CHANCE) > margin - 1e-9:
        raise PlanningError(
            f"the true accuracy {truth:g} is not inside the margin from {CHANCE - margin:g} to "
            f"{CHANCE + margin:g}, so no study should show equivalence; widen the margin, or leave "
            "it out and look for a difference from chance."
        )
    if not 0 < alpha < 0.5:
        raise PlanningError(f"alpha={alpha}; give a level such as 0.05.")
    if not 0.5 < confidence_level < 1:
        raise PlanningError(f"confidence_level={confidence_level}; give a fraction such as 0.95.")
    if not alpha < target < 1:
        raise PlanningError(f"target_power={target}; give a fraction such as 0.8.")


def _refuse_sizes(readers: Integers, cases: Integers, n_simulations: int) -> None:
    if readers[0] < 2:
        raise PlanningError(
            f"1 reader says nothing about other readers; plan at least {FEWEST_READERS}."
        )
    if readers[-1] < FEWEST_READERS:
        raise PlanningError(
            f"with fewer than {FEWEST_READERS} readers the report speaks of these readers only; "
            f"plan at least {FEWEST_READERS}."
        )
    if cases[0] < FEWEST_CASES:
        raise PlanningError(
            f"fewer than {FEWEST_CASES} cases are too few for the interval; plan at least 50."
        )
    if n_simulations < 1000:
        raise PlanningError(
            f"{n_simulations} simulated studies leave the power vague; simulate at least 1000."
        )
    if int(readers[-1]) * int(cases[-1]) * n_simulations > MOST_ANSWERS:
        raise PlanningError(
            f"{n_simulations} studies of {readers[-1]} readers × {cases[-1]} cases take too long; "
            "simulate fewer (at least 1000), or plan a smaller grid."
        )
