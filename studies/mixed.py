"""Logistic regression in which readers, or readers and cases, are random draws.

The logit of a right answer is x·β + σ u, with a standard normal u for each reader: a random
intercept of standard deviation σ. The likelihood integrates u out, by adaptive Gauss–Hermite
quadrature; with one node that is Laplace's approximation. Crossed readers and cases add a second
intercept, τ v for each case, and have Laplace only.

Two accuracies come from one fit, and they differ: the population-averaged one is the mean over
readers (and cases), the conditional one is that of the median reader on the median case.

L judgements, p coefficients, m levels of a random intercept; R readers and N cases where crossed.
Judgements that share reader, case and covariates are kept as one row with counts.
"""

from dataclasses import dataclass, replace
from math import exp, pi, sqrt

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import expit, logit, ndtr, ndtri
from scipy.stats import t as student_t

from studies.clustered import ClusterError
from studies.estimate import Estimate, check_level
from studies.logistic import SEPARATED, is_separated, on_probability_scale
from studies.mixed_likelihood import (
    LARGEST_SD,
    Judgements,
    LogLikelihood,
    Maximum,
    best_fit,
    crossed_likelihood,
    crossing,
    maximise,
    quadrature_likelihood,
    smallest_over_sd,
)

Floats = NDArray[np.float64]

FEWEST_LEVELS = 5
"""Below this the spread between readers is hardly known, and neither is an interval for others."""
FEW_LEVELS = 10
FURTHEST_LOGIT = 30.0
"""Beyond it a probability is 0 or 1 in floating point."""
_GRID = np.linspace(-8, 8, 161)
_GRID_WEIGHTS = np.exp(-(_GRID**2) / 2) / np.exp(-(_GRID**2) / 2).sum()
"""Normal expectation by the trapezoidal rule, which for the logistic is exact to 1e-8."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VarianceComponent:
    """How much the levels of one random intercept differ."""

    name: str
    n_levels: int
    sd: Estimate
    """Standard deviation of the intercept, on the logit scale."""
    is_zero: bool
    """The likelihood is highest at zero variance, the edge of what is possible."""
    share: float
    """Of the latent variance, with π²/3 for the single judgement."""
    p_value: float
    """Likelihood-ratio test of zero variance, half a chi-square on 1 df (Self & Liang 1987)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MixedFit:
    """A fitted random-intercept model; where there is none, both accuracies say why."""

    population_averaged: Estimate
    """Probability of a right answer, over readers (and cases) and the judgements' covariates."""
    conditional: Estimate
    """The same with every random intercept at 0, its median."""
    coefficients: tuple[tuple[str, Estimate], ...]
    """Names and logits given the random intercepts, the intercept first; empty without a fit."""
    components: tuple[VarianceComponent, ...]
    log_likelihood: float | None
    """Of the single judgements: without binomial coefficients."""
    n_trials: int
    cautions: tuple[str, ...]


def random_intercept_logistic(
    correct: ArrayLike,
    clusters: ArrayLike,
    *,
    covariates: pd.DataFrame | None = None,
    n_nodes: int = 25,
    confidence_level: float = 0.95,
) -> MixedFit:
    """Logistic regression with one random intercept, by maximum likelihood.

    Without covariates the intervals of both accuracies and of the standard deviation are by profile
    likelihood, so that they count how little is known of the spread; with covariates they are by
    Wald, on the logit and on the logarithm (of a deviation with a standard error below half of it,
    by profile otherwise). Accuracies and coefficients use the t quantile on
    clusters − 1 df in place of the normal one.

    Args:
        correct: whether each judgement was right, as 0 and 1. (L,)
        clusters: the reader (or the case) of each judgement, any label. (L,)
        covariates: one numeric column for each, without an intercept. (L, p − 1)
        n_nodes: quadrature nodes; 1 is Laplace's approximation.

    Raises:
        ClusterError: for judgements, labels, covariates or a level that cannot be used.
        MixedModelError: for no node, or more than `MOST_NODES`.

    Source: Pinheiro & Bates (1995), J. Comput. Graph. Stat. 4:12–35. Checked against lme4, glmmML,
    MixedModels.jl and data cloning on published data.
    """
    data = Judgements.of(correct, {"cluster": clusters}, covariates)
    likelihood = quadrature_likelihood(data, n_nodes)
    how = f"{n_nodes} nodes" if n_nodes > 1 else "1 node (Laplace)"
    return _fitted(
        data,
        likelihood,
        method=f"random-intercept logistic regression, adaptive Gauss–Hermite, {how}",
        with_profile=data.design.shape[1] == 1,
        confidence_level=confidence_level,
    )


def crossed_logistic(
    correct: ArrayLike,
    readers: ArrayLike,
    cases: ArrayLike,
    *,
    covariates: pd.DataFrame | None = None,
    confidence_level: float = 0.95,
) -> MixedFit:
    """Logistic regression with random intercepts for readers and for cases, by Laplace.

    Intervals are by Wald, on the logit and on the logarithm (of a deviation with a standard error
    below half of it, by profile otherwise), the former with the t quantile on the smaller of
    readers − 1 and cases − 1 df. Laplace's approximation makes the standard deviations somewhat too
    small where a reader or a case has few judgements (as cases have with few readers).

    Args:
        correct: whether each judgement was right, as 0 and 1; missing ones are left out. (L,)
        readers: the reader of each judgement, any label. (L,)
        cases: the case of each judgement, any label. (L,)
        covariates: one numeric column for each, without an intercept. (L, p − 1)

    Raises:
        ClusterError: for judgements, labels, covariates or a level that cannot be used.
        MixedModelError: if readers × cases is more than the memory for it.

    Source: Breslow & Clayton (1993), JASA 88:9–25, section 2; Bates et al. (2015), the R package
    lme4.
    """
    data = Judgements.of(correct, {"reader": readers, "case": cases}, covariates)
    return _fitted(
        data,
        crossed_likelihood(data),
        method="logistic regression with crossed random intercepts, Laplace",
        with_profile=False,
        confidence_level=confidence_level,
    )


def _why_not(data: Judgements) -> str | None:
    """Why the likelihood has no maximum, or none that means anything."""
    k, n = data.n_correct, data.n_trials
    if k.sum() in (0, n.sum()):
        return f"all answers are {'right' if k.any() else 'wrong'}"
    for name, levels, n_levels in zip(data.level_names, data.levels, data.n_levels, strict=True):
        if n_levels < 2:
            return f"1 {name} says nothing about others"
        sizes = np.bincount(levels, n)
        n_repeated = int((sizes > 1).sum())
        if n_repeated < 2:
            return (
                f"{n_repeated} of {n_levels} {name}s has more than one trial, so spread between "
                f"{name}s cannot be told from chance; leave the random intercept out"
            )
        right = np.bincount(levels, k)
        if ((right == 0) | (right == sizes)).all():
            return (
                f"every {name} is all right or all wrong, so the spread between them has no bound"
            )
    if is_separated(data.design, k, n):
        return SEPARATED
    return None


def _fitted(
    data: Judgements,
    likelihood: LogLikelihood,
    *,
    method: str,
    with_profile: bool,
    confidence_level: float,
) -> MixedFit:
    check_level(confidence_level, ClusterError)
    raw, reason = float(data.n_correct.sum() / data.n_trials.sum()), _why_not(data)
    if reason is None:
        start = np.zeros(data.design.shape[1])
        start[0] = logit(raw)
        best, gains = best_fit(data, likelihood, start)
        if best.sds.max() > LARGEST_SD:
            widest = data.level_names[int(best.sds.argmax())]
            reason = (
                f"{widest}s are so nearly all right or all wrong that their spread has no bound"
            )
        elif best.covariance is None:
            reason = "the likelihood is flat where it should be highest"
    if reason is not None:
        nothing = Estimate.not_estimable(method, reason, confidence_level, raw)
        return MixedFit(
            population_averaged=nothing,
            conditional=replace(nothing, estimate=None),
            coefficients=(),
            components=(),
            log_likelihood=None,
            n_trials=int(data.n_trials.sum()),
            cautions=(),
        )
    fit = _Fit(
        data=data,
        likelihood=likelihood,
        best=best,
        method=method,
        with_profile=with_profile,
        confidence_level=confidence_level,
    )
    return MixedFit(
        population_averaged=fit.accuracy(is_averaged=True),
        conditional=fit.accuracy(is_averaged=False),
        coefficients=tuple(fit.coefficient(i) for i in range(len(data.names))),
        components=tuple(fit.component(i, gain) for i, gain in enumerate(gains)),
        log_likelihood=best.value,
        n_trials=int(data.n_trials.sum()),
        cautions=tuple(fit.cautions()),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fit:
    """A maximum, and the intervals that follow from it."""

    data: Judgements
    likelihood: LogLikelihood
    best: Maximum
    method: str
    with_profile: bool
    confidence_level: float

    @property
    def covariance(self) -> Floats:
        assert self.best.covariance is not None
        return self.best.covariance

    @property
    def fewest(self) -> int:
        return min(self.data.n_levels)

    @property
    def t_quantile(self) -> float:
        return float(student_t.ppf(0.5 + self.confidence_level / 2, self.fewest - 1))

    @property
    def z_quantile(self) -> float:
        return float(ndtri(0.5 + self.confidence_level / 2))

    def too_few(self) -> str | None:
        for name, n_levels in zip(self.data.level_names, self.data.n_levels, strict=True):
            if n_levels < FEWEST_LEVELS:
                return (
                    f"{n_levels} {name}s are too few to tell how much others differ; have at least "
                    f"{FEWEST_LEVELS}, or treat them as fixed and speak of these only"
                )
        return None

    def cautions(self) -> list[str]:
        found = []
        data = self.data
        for name, levels, n_levels, sd in zip(
            data.level_names, data.levels, data.n_levels, self.best.sds, strict=True
        ):
            largest = float(np.bincount(levels, data.n_trials).max() / data.n_trials.sum())
            if largest > 0.5:
                found.append(
                    f"One {name} holds {largest:.0%} of all trials: the result is mostly its own."
                )
            if FEWEST_LEVELS <= n_levels < FEW_LEVELS:
                found.append(
                    f"With {n_levels} {name}s (fewer than {FEW_LEVELS}) their spread is hardly "
                    "known, and the interval is fragile."
                )
            if sd == 0:
                found.append(
                    f"The variance between {name}s is estimated at zero, the edge of what is "
                    f"possible. That does not show that {name}s are alike"
                    + (
                        "."
                        if self.with_profile
                        else ", and the interval takes it as known: it is too narrow."
                    )
                )
        return found

    def accuracy(self, *, is_averaged: bool) -> Estimate:
        """Population-averaged or conditional accuracy."""
        p, best = len(self.data.names), self.best
        free = np.flatnonzero(best.sds)

        def at(point: Floats) -> float:
            sds = np.zeros(len(best.sds))
            sds[free] = point[p:]
            spread = float(np.sqrt(sds @ sds)) if is_averaged else 0.0
            return float(logit(_mean_accuracy(self.data, point[:p], spread)))

        point = np.append(best.beta, best.sds[free])
        slope = np.array(
            [(at(point + e) - at(point - e)) / 2e-5 for e in 1e-5 * np.eye(len(point))]
        )
        error = sqrt(float(slope @ self.covariance @ slope))
        centre = at(point)
        reason, half_width = self.too_few(), self.t_quantile * error
        limits: tuple[float, float] | None = centre - half_width, centre + half_width
        if reason is None and self.with_profile:
            limits = self.profiled_accuracy(centre, half_width, is_averaged=is_averaged)
        if reason is not None or limits is None:
            return Estimate.not_estimable(
                self.method,
                reason or "the likelihood does not fall far enough on one side",
                self.confidence_level,
                float(expit(centre)),
            )
        kind = "profile likelihood" if self.with_profile else "Wald"
        return on_probability_scale(
            Estimate(
                estimate=centre,
                ci_low=limits[0],
                ci_high=limits[1],
                standard_error=error,
                df=self.fewest - 1,
                confidence_level=self.confidence_level,
                method=f"{self.method}, {kind} interval with a t quantile",
            )
        )

    def profiled_accuracy(
        self, centre: float, half_width: float, *, is_averaged: bool
    ) -> tuple[float, float] | None:
        """Limits on the logit scale for the model of an intercept and one deviation."""

        def intercept(target: float, sd: float) -> float:
            if not is_averaged:
                return target
            reach = abs(target) * sqrt(1 + sd**2) + 1

            def excess(b: float) -> float:
                return float(_GRID_WEIGHTS @ expit(b + sd * _GRID)) - float(expit(target))

            while excess(-reach) > 0 or excess(reach) < 0:
                reach *= 2
            return float(brentq(excess, -reach, reach, xtol=1e-12))

        def profile(target: float) -> float:
            def loss(sd: float) -> float:
                beta = np.array([intercept(target, sd)])
                return -self.likelihood(beta, np.array([sd]))

            return -smallest_over_sd(loss, float(self.best.sds[0]))

        def fallen(target: float) -> float:
            return profile(target) - self.best.value + self.t_quantile**2 / 2

        low, high = (
            crossing(fallen, centre, step, furthest=FURTHEST_LOGIT)
            for step in (-half_width, half_width)
        )
        return None if low is None or high is None else (low, high)

    def coefficient(self, index: int) -> tuple[str, Estimate]:
        p = len(self.data.names)
        row = self.data.unwhiten[index]
        value = float(row @ self.best.beta)
        reason = self.too_few()
        if reason is not None:
            return self.data.names[index], Estimate.not_estimable(
                self.method, reason, self.confidence_level, value
            )
        return self.data.names[index], Estimate.symmetric(
            value,
            sqrt(float(row @ self.covariance[:p, :p] @ row)),
            df=self.fewest - 1,
            confidence_level=self.confidence_level,
            method=f"{self.method}, Wald interval with a t quantile",
        )

    def component(self, index: int, gain: float) -> VarianceComponent:
        sds = self.best.sds
        total = float(sds @ sds) + pi**2 / 3
        return VarianceComponent(
            name=self.data.level_names[index],
            n_levels=self.data.n_levels[index],
            sd=self.deviation(index),
            is_zero=bool(sds[index] == 0),
            share=float(sds[index]) ** 2 / total,
            p_value=float(ndtr(-sqrt(2 * gain))) if gain > 0 else 1.0,
        )

    def deviation(self, index: int) -> Estimate:
        """Interval of one standard deviation; from 0 up where the estimate is 0."""
        sd, z = float(self.best.sds[index]), self.z_quantile
        error = None
        if sd > 0:
            position = len(self.data.names) + int((self.best.sds[:index] > 0).sum())
            error = sqrt(float(self.covariance[position, position]))
        limits: tuple[float, float] | None
        # Wald on the logarithm of what may be next to nothing has no use.
        if error is not None and error < sd / 2 and not self.with_profile:
            limits = sd * exp(-z * error / sd), sd * exp(z * error / sd)
            how = "Wald interval on the logarithm"
        else:
            limits, how = self.profiled_deviation(index), "profile likelihood interval"
        if limits is None:
            return Estimate.not_estimable(
                self.method, "the spread has no upper bound", self.confidence_level, sd
            )
        return Estimate(
            estimate=sd,
            ci_low=limits[0],
            ci_high=limits[1],
            standard_error=error,
            confidence_level=self.confidence_level,
            method=f"{self.method}, {how}" + ", variance at zero" * (sd == 0),
        )

    def profiled_deviation(self, index: int) -> tuple[float, float] | None:
        """Where the likelihood, maximised over all else, has fallen; None without an upper end."""
        best, p, sd = self.best, len(self.data.names), float(self.best.sds[index])
        others = [i for i in np.flatnonzero(best.sds) if i != index]
        start = np.append(best.beta, best.sds[others])

        def fallen(value: float) -> float:
            def of(point: Floats) -> float:
                sds = np.zeros(len(best.sds))
                sds[index], sds[others] = value, np.abs(point[p:])
                return self.likelihood(point[:p], sds)

            return maximise(of, start)[1] - best.value + self.z_quantile**2 / 2

        high = crossing(fallen, sd, max(sd, 0.3), furthest=2 * LARGEST_SD)
        if high is None:
            return None
        has_low = sd > 0 and fallen(0.0) < 0
        return (float(brentq(fallen, 0.0, sd, xtol=1e-7)) if has_low else 0.0), high


def _mean_accuracy(data: Judgements, beta: Floats, spread: float) -> float:
    """Accuracy over judgements, and over intercepts of standard deviation `spread`."""
    eta, which = np.unique(data.design @ beta, return_inverse=True)
    n_trials = np.bincount(which, data.n_trials)
    means = expit(eta) if spread == 0 else expit(eta[:, None] + spread * _GRID) @ _GRID_WEIGHTS
    return float(n_trials @ means / n_trials.sum())
