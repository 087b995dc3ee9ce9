"""Looks at the data before the end: boundaries by alpha-spending, for the declared looks only.

At look k of K the information is I_k, and Z_k is the estimate over its standard error. Z_1 … Z_K
are jointly normal with correlations √(I_j / I_k) (independent increments): information is one over
the variance of the estimate. With the number of independent trials as information that is exact.
With the number of readers who share their cases, the true correlations are higher, and the error on
each side is smaller than planned (Slepian's inequality).

The spending function says how much of alpha may be spent up to an information fraction t; the
critical values follow by recursive numerical integration (Armitage, McPherson & Rowe 1969).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, e, isfinite, log, log1p, sqrt
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri
from scipy.stats import norm
from scipy.stats import t as student_t

from studies.estimate import Estimate

Sides = Literal[1, 2]
Spending = Literal["obrien-fleming", "pocock"]

REACH = 10.0
"""Standard deviations around its mean within which a Z is integrated; beyond lie 1e-23."""
NEGLIGIBLE_ALPHA = 1e-16
"""A look that spends less is taken as if it were the only one: strict by no more than this."""
CLOSEST_LOOKS = 1e-3
"""Smallest information between two looks, as a fraction of the last one's."""
SMALLEST_ALPHA = 1e-280
PANEL_NODES, PANEL_WEIGHTS = np.polynomial.legendre.leggauss(16)


class SequentialError(ValueError):
    """Looks or a level from which no boundary can be had, with what to do instead."""


class UndeclaredLookError(SequentialError):
    """A look that the protocol did not declare."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One declared look, and what a result must reach to stop the study there."""

    number: int
    """From 1."""
    information: float
    """As declared: complete readers, trials, or one over the variance."""
    information_fraction: float
    """Of the last look's, in (0, 1]."""
    cumulative_alpha: float
    """Spent up to and with this look, all sides together."""
    critical_value: float
    """Stop where Z (two-sided: |Z|) is at or above it."""
    nominal_alpha: float
    """The same as a p value: stop where p is at or below it. For t tests, use this one."""

    def may_stop(self, p_value: float) -> bool:
        """Whether a result at this look is significant; `p_value` has as many sides as the plan."""
        return p_value <= self.nominal_alpha


@dataclass(frozen=True, slots=True, kw_only=True)
class SequentialPlan:
    """The looks that a protocol declares, the final analysis last."""

    looks: tuple[Look, ...]
    alpha: float
    """Of the whole study, all sides together."""
    sides: Sides
    spending: Spending

    def look_at(self, information: float) -> Look:
        """The declared look at this information.

        Raises:
            UndeclaredLookError: if there is none; a test there would spend alpha twice.
        """
        for look in self.looks:
            if abs(look.information - information) <= 1e-9 * look.information:
                return look
        declared = ", ".join(f"{look.information:g}" for look in self.looks)
        later = [look for look in self.looks if look.information > information]
        advice = (
            f"wait for {later[0].information:g} and test nothing before"
            if later
            else "the final analysis is past; close the study with `closing_look`"
        )
        raise UndeclaredLookError(
            f"a look at {information:g} was not declared, the protocol declares looks at "
            f"{declared}; {advice}."
        )

    def closing_look(self, information: float) -> Look:
        """The final analysis of a study that ended at another information than planned.

        All alpha that the declared looks before it have not spent is spent here. It is for a study
        that is over (readers who left, or more readers than planned), and nothing may follow.

        Raises:
            SequentialError: if the information is not a number above 0.
        """
        _refuse_information([information])
        before = information * (1 - 2 * CLOSEST_LOOKS)
        earlier = [look for look in self.looks[:-1] if look.information < before]
        spent = [look.cumulative_alpha for look in earlier]
        amounts = [look.information for look in earlier]
        return _looks([*amounts, information], [*spent, self.alpha], self.sides)[-1]


def sequential_plan(
    information: Sequence[float],
    *,
    alpha: float = 0.05,
    spending: Spending = "obrien-fleming",
    sides: Sides = 2,
) -> SequentialPlan:
    """Boundaries for declared looks, by Lan–DeMets alpha-spending.

    Two-sided plans spend alpha / 2 on each side by the spending function of alpha / 2, as ldbounds
    does: symmetric, and stricter early than spending alpha once would be. For an equivalence claim
    take sides=1 and the alpha of one of its tests: both must reach the boundary.

    Args:
        information: at each look, increasing, the final analysis last; any unit.
        alpha: of the whole study, all sides together.
        spending: "obrien-fleming" keeps nearly all of alpha for the end; "pocock" spends evenly.

    Raises:
        SequentialError: if the information does not increase or the looks lie too close, a look
            comes too early to spend anything, or the level, sides or spending function are none.

    Source: Lan & DeMets (1983); checked against ldbounds, gsDesign and rpact.
    """
    functions = {"obrien-fleming": obrien_fleming_spending, "pocock": pocock_spending}
    if spending not in functions:
        raise SequentialError(f"spending={spending!r}; use {' or '.join(map(repr, functions))}.")
    _refuse_level(alpha, sides)
    _refuse_information(information)
    spent = [
        sides * functions[spending](one / information[-1], alpha=alpha / sides)
        for one in information[:-1]
    ]
    looks = _looks(information, [*spent, alpha], sides)
    return SequentialPlan(looks=looks, alpha=alpha, sides=sides, spending=spending)


def obrien_fleming_spending(information_fraction: float, *, alpha: float) -> float:
    """Alpha spent up to t on one side: 2 − 2 Φ(z_{alpha/2} / √t). Lan & DeMets (1983)."""
    return 2 * float(ndtr(float(ndtri(alpha / 2)) / sqrt(information_fraction)))


def pocock_spending(information_fraction: float, *, alpha: float) -> float:
    """Alpha spent up to t on one side: alpha ln(1 + (e − 1) t). Lan & DeMets (1983)."""
    return alpha * log1p((e - 1) * information_fraction)


def critical_values(
    information: Sequence[float], cumulative_alpha: Sequence[float], *, sides: Sides = 2
) -> NDArray[np.float64]:
    """Boundaries that spend a declared amount of alpha up to each look, whatever the function.

    Args:
        information: at each look, increasing. (K,)
        cumulative_alpha: spent up to and with each look, all sides together, increasing. (K,)

    Returns:
        Critical values of Z, or of |Z| when two-sided. (K,)

    Raises:
        SequentialError: if information or alpha does not increase, or a look spends too little.

    Source: Armitage, McPherson & Rowe (1969); Jennison & Turnbull (2000), chapter 19.
    """
    _refuse_information(information)
    if len(cumulative_alpha) != len(information):
        raise SequentialError(
            f"{len(information)} looks with {len(cumulative_alpha)} levels; give one for each."
        )
    _refuse_level(cumulative_alpha[-1], sides)
    process = _Process(information, sides=sides, drift=0.0)
    found, spent = [], 0.0
    for number, cumulative in enumerate(cumulative_alpha, 1):
        step = (cumulative - spent) / sides
        if not step > SMALLEST_ALPHA:
            raise SequentialError(
                f"look {number} at {information[number - 1]:g} of {information[-1]:g} would spend "
                "no alpha; leave it out, or plan it later."
            )
        found.append(process.boundary_that_spends(step))
        process.pass_look(found[-1])
        spent = cumulative
    return np.array(found)


def stopping_probabilities(
    information: Sequence[float],
    boundary: ArrayLike,
    *,
    drift: float = 0.0,
    sides: Sides = 2,
) -> NDArray[np.float64]:
    """Probability that Z first reaches the boundary at each look; their sum is error or power.

    Args:
        information: at each look, increasing. (K,)
        boundary: critical values of Z, or of |Z| when two-sided. (K,)
        drift: mean of Z at the last look; 0 under the null hypothesis.

    Raises:
        SequentialError: if information does not increase, or boundaries do not fit the looks.
    """
    _refuse_information(information)
    values = np.asarray(boundary, dtype=np.float64)
    if values.shape != (len(information),) or not np.isfinite(values).all():
        raise SequentialError(
            f"{len(information)} looks need as many finite boundaries, not shape {values.shape}."
        )
    if sides == 2 and (values < 0).any():
        raise SequentialError("a two-sided boundary is one of |Z|; give numbers of at least 0.")
    process = _Process(information, sides=sides, drift=drift)
    probabilities = []
    for value in values:
        probabilities.append(process.reaches(value))
        process.pass_look(value)
    return np.array(probabilities)


def repeated_interval(
    plan: SequentialPlan,
    look: Look,
    estimate: float,
    standard_error: float,
    *,
    df: float | None = None,
) -> Estimate:
    """Interval at one look of a family that covers at all looks together, stopped or not.

    With a two-sided plan its level is 1 − alpha, with a one-sided plan 1 − 2 alpha: equivalence may
    then be claimed at any look where the interval lies inside the margin.

    Args:
        look: of the plan, or its closing look.
        df: degrees of freedom of the standard error; None for the normal quantile.

    Raises:
        SequentialError: if a number is not one, or the standard error not above 0.

    Source: Jennison & Turnbull (1989); with few df the nominal level of the look is kept.
    """
    if not isfinite(estimate) or not isfinite(standard_error) or not standard_error > 0:
        raise SequentialError(
            f"estimate={estimate} with standard_error={standard_error}; an interval needs both, "
            "and an error above 0."
        )
    tail = look.nominal_alpha / plan.sides
    quantile = look.critical_value if df is None else float(student_t.isf(tail, df))
    return Estimate(
        estimate=estimate,
        ci_low=estimate - quantile * standard_error,
        ci_high=estimate + quantile * standard_error,
        standard_error=standard_error,
        df=df,
        confidence_level=1 - 2 * plan.alpha / plan.sides,
        method=f"repeated confidence interval at look {look.number}",
    )


def _looks(
    information: Sequence[float], cumulative_alpha: Sequence[float], sides: Sides
) -> tuple[Look, ...]:
    values = critical_values(information, cumulative_alpha, sides=sides)
    return tuple(
        Look(
            number=number,
            information=float(amount),
            information_fraction=amount / information[-1],
            cumulative_alpha=spent,
            critical_value=float(value),
            nominal_alpha=sides * float(ndtr(-value)),
        )
        for number, (amount, spent, value) in enumerate(
            zip(information, cumulative_alpha, values, strict=True), 1
        )
    )


class _Process:
    """Where Z is at each look, given that it has not reached a boundary before.

    Between looks the state is the sub-density of the last Z on quadrature nodes: `nodes` (N,) and
    `masses` (N,), density times weight.
    """

    def __init__(self, information: Sequence[float], *, sides: Sides, drift: float) -> None:
        self.fractions = [0.0, *(one / information[-1] for one in information)]
        self.sides, self.drift = sides, drift
        self.n_passed = 0
        self.nodes, self.masses = np.zeros(1), np.ones(1)

    def reaches(self, boundary: float) -> float:
        """Probability that Z is at or beyond the boundary at the next look, for the first time."""
        above = self._beyond(boundary)
        return above if self.sides == 1 else above + self._beyond(-boundary, below=True)

    def boundary_that_spends(self, alpha: float) -> float:
        """The value that Z is first above at the next look with this probability."""
        # Not having stopped before can only make it rarer than in a single look.
        highest = -float(ndtri(alpha))
        if self.n_passed == 0 or alpha < NEGLIGIBLE_ALPHA:
            return highest
        lowest = 0.0 if self.sides == 2 else -REACH
        return float(
            brentq(
                lambda value: log(max(self._beyond(value), 1e-320)) - log(alpha),
                lowest,
                highest + 1e-6,
                xtol=1e-12,
            )
        )

    def pass_look(self, boundary: float) -> None:
        """Go on from the next look, where Z stayed below the boundary."""
        scale, shift, spread = self._step(self.n_passed + 1)
        mean = self.drift * sqrt(self.fractions[self.n_passed + 1])
        low, high = mean - REACH, min(mean + REACH, boundary)
        if self.sides == 2:
            low = max(low, -boundary)
        self.n_passed += 1
        if high <= low:
            self.nodes, self.masses = np.zeros(1), np.zeros(1)
            return
        nodes, weights = _quadrature(low, high, resolution=self._narrowest())
        kernel = norm.pdf((nodes[:, None] - scale * self.nodes - shift) / spread) / spread
        self.nodes, self.masses = nodes, (kernel @ self.masses) * weights

    def _beyond(self, value: float, *, below: bool = False) -> float:
        scale, shift, spread = self._step(self.n_passed + 1)
        standardised = (value - scale * self.nodes - shift) / spread
        return float(self.masses @ ndtr(standardised if below else -standardised))

    def _step(self, number: int) -> tuple[float, float, float]:
        """Z at this look given the one before: normal, mean scale · Z + shift, and its spread."""
        before, after = self.fractions[number - 1], self.fractions[number]
        gained = after - before
        return sqrt(before / after), self.drift * gained / sqrt(after), sqrt(gained / after)

    def _narrowest(self) -> float:
        """The finest structure in Z of the look just passed: of the steps into it and out of it."""
        _, _, into = self._step(self.n_passed)
        if self.n_passed == len(self.fractions) - 1:
            return into
        scale, _, spread = self._step(self.n_passed + 1)
        return min(into, spread / scale)


def _quadrature(
    low: float, high: float, *, resolution: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Nodes and weights of Gauss–Legendre panels, each at most two resolutions wide."""
    n_panels = max(4, ceil((high - low) / (2 * resolution)))
    edges = np.linspace(low, high, n_panels + 1)
    half = (edges[1] - edges[0]) / 2
    nodes = (edges[:-1, None] + half * (PANEL_NODES + 1)).ravel()
    return nodes, np.tile(PANEL_WEIGHTS * half, n_panels)


def _refuse_information(information: Sequence[float]) -> None:
    if not len(information):
        raise SequentialError("no look is declared; give at least the final analysis.")
    previous = 0.0
    for number, one in enumerate(information, 1):
        if not one > previous or not isfinite(one):
            raise SequentialError(
                f"look {number} at {one:g} does not follow {previous:g}; give the information of "
                "each look in increasing order, above 0, the final analysis last."
            )
        if number > 1 and one - previous < CLOSEST_LOOKS * information[-1]:
            raise SequentialError(
                f"looks {number - 1} and {number} at {previous:g} and {one:g} lie closer than a "
                "thousandth of the information; drop one of them."
            )
        previous = one


def _refuse_level(alpha: float, sides: int) -> None:
    if sides not in (1, 2):
        raise SequentialError(f"sides={sides}; a boundary has 1 side or 2.")
    if not 0 < alpha < 0.5 * sides:
        raise SequentialError(f"alpha={alpha}; give the level of the whole study, such as 0.05.")
