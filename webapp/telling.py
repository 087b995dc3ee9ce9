"""How well a number, or several together, tell generated from real pictures of the same class.

Areas under the ROC curve are taken within each class and averaged, so that the class of a cell
never counts as a tell. N pictures, P features.
"""

from collections.abc import Sequence
from math import log, sqrt
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from scipy.optimize import brentq
from scipy.special import betaln, ndtri
from scipy.stats import rankdata

from studies.roc import placements_of

Array = NDArray[np.float64]
Rows = NDArray[np.int64]
Strata = Sequence[tuple[Rows, Rows]]
"""Rows of the real and of the generated pictures of each class."""

N_FOLDS = 5
ERROR = 0.05


class Feature(BaseModel):
    """How well one number tells generated from real."""

    model_config = ConfigDict(frozen=True)

    name: str
    auc: float
    """On the side where it is 0.5 or more."""
    ci_low: float
    ci_high: float
    is_higher_in_generated: bool
    tells: bool


class Check(BaseModel):
    """How well a group of numbers tells generated from real."""

    model_config = ConfigDict(frozen=True)

    code: str
    auc: float
    """Of a linear discriminant of the whole group, cross-validated."""
    ci_low: float
    ci_high: float
    excludes_above: float
    """Larger areas are excluded with 95 % confidence, this check taken alone."""
    finding: Literal["tells", "inconclusive", "does not tell"]
    n_real: int
    n_generated: int
    features: tuple[Feature, ...]
    """The most telling first."""


def checked(
    groups: dict[str, dict[str, Array]], strata: Strata, *, margin: float, seed: int
) -> tuple[tuple[Check, ...], float]:
    """A check of each group and one of all together, and the confidence level of each interval.

    A group tells if the lower limit of its area, or of one of its features, is above 0.5 + margin:
    limits are two-sided and Bonferroni's for all groups and features. That a group does not tell
    is a claim about all checks at once, so each is held to the full 5 %.

    Args:
        groups: group → feature → values. (N,)
    """
    varying = {
        code: {name: values for name, values in features.items() if np.ptp(values) > 0}
        for code, features in groups.items()
    }
    columns = {code: list(features.values()) for code, features in varying.items() if features}
    columns["together"] = [values for features in columns.values() for values in features]
    level = 1 - ERROR / (len(columns) + len(columns["together"]))
    checks = []
    for number, (code, of_group) in enumerate(columns.items()):
        rng = np.random.default_rng((seed, number))
        auc = area(cross_validated_scores(np.column_stack(of_group), strata, rng), strata)
        features = [
            _feature(name, values, strata, level, margin)
            for name, values in varying.get(code, {}).items()
        ]
        low, high = limits(auc, strata, level)
        # An area below 0.5, by chance, is no evidence for less than 0.5.
        excludes_above = limits(max(auc, 0.5), strata, 1 - 2 * ERROR)[1]
        if low > 0.5 + margin or any(feature.tells for feature in features):
            finding: Literal["tells", "inconclusive", "does not tell"] = "tells"
        else:
            finding = "inconclusive" if excludes_above > 0.5 + margin else "does not tell"
        checks.append(
            Check(
                code=code,
                auc=auc,
                ci_low=low,
                ci_high=high,
                excludes_above=excludes_above,
                finding=finding,
                n_real=sum(len(real) for real, _ in strata),
                n_generated=sum(len(drawn) for _, drawn in strata),
                features=tuple(sorted(features, key=lambda feature: -feature.auc)),
            )
        )
    return tuple(checks), level


def _feature(name: str, values: Array, strata: Strata, level: float, margin: float) -> Feature:
    auc = area(values, strata)
    low, high = limits(max(auc, 1 - auc), strata, level)
    return Feature(
        name=name,
        auc=max(auc, 1 - auc),
        ci_low=low,
        ci_high=high,
        is_higher_in_generated=auc >= 0.5,
        tells=low > 0.5 + margin,
    )


def strata_of(is_synthetic: Sequence[bool], class_names: Sequence[str]) -> Strata:
    """The classes that have both kinds; pictures of other classes are compared with nothing."""
    kinds, classes = np.array(is_synthetic), np.array(class_names)
    found = [
        (np.flatnonzero((classes == name) & ~kinds), np.flatnonzero((classes == name) & kinds))
        for name in np.unique(classes)
    ]
    return [(real, drawn) for real, drawn in found if len(real) and len(drawn)]


def area(scores: Array, strata: Strata) -> float:
    """P(a generated picture scores above a real one of its class) + ½ P(tied).

    Source: classes count as in van Elteren (1960), by what they add to precision.
    """
    areas = [placements_of(scores[real], scores[drawn])[0].mean() for real, drawn in strata]
    return float(np.average(areas, weights=_weights(strata)))


def limits(found: float, strata: Strata, confidence_level: float) -> tuple[float, float]:
    """The interval of an area.

    A score interval: the variance is that under the limit, so that it does not shrink to a point
    where the kinds are nearly apart. Where they are wholly apart the limit is exact under the same
    model, in which one distribution function is a power of the other.

    Source: Newcombe (2006), Statistics in Medicine 25:559, method 5, after Hanley & McNeil (1982).
    """
    error = (1 - confidence_level) / 2
    return _lower_limit(found, strata, error), 1 - _lower_limit(1 - found, strata, error)


def _lower_limit(found: float, strata: Strata, error: float) -> float:
    if found < 1e-9:
        return 0.0
    if found > 1 - 1e-9:
        return float(
            brentq(lambda at: _log_chance_of_separation(at, strata) - log(error), 1e-3, 1 - 1e-9)
        )
    quantile = float(ndtri(1 - error))
    return float(brentq(lambda at: found - at - quantile * _deviation(at, strata), 0, found))


def cross_validated_scores(features: Array, strata: Strata, rng: np.random.Generator) -> Array:
    """How generated a shrunken linear discriminant takes each picture for, that it never saw. (N,)

    Features become normal scores, so that no outlier leads; classes share one covariance and
    differ in their means, which do not count. Scores are for comparisons within a class.

    Args:
        features: (N, P)
    """
    ranks = rankdata(features, axis=0)
    normal = np.asarray(ndtri((ranks - 0.5) / len(features)))
    scores, folds = np.zeros(len(features)), np.full(len(features), -1)
    given = 0
    for rows in (rows for stratum in strata for rows in stratum):
        folds[rng.permutation(rows)] = (given + np.arange(len(rows))) % N_FOLDS
        given += len(rows)
    for fold in range(N_FOLDS):
        seen = [tuple(rows[folds[rows] != fold] for rows in stratum) for stratum in strata]
        direction = _discriminant(normal, [(real, drawn) for real, drawn in seen])
        for stratum, stratum_seen in zip(strata, seen, strict=True):
            held_out = np.concatenate([rows[folds[rows] == fold] for rows in stratum])
            # Folds have other discriminants, so scores are counted from the middle of the class.
            middle = _middle(normal, stratum_seen)
            scores[held_out] = (normal[held_out] - middle) @ direction
    return scores


def _middle(normal: Array, kinds: Sequence[Rows]) -> Array:
    means = [normal[rows].mean(axis=0) for rows in kinds if len(rows)]
    return np.mean(means, axis=0) if means else np.zeros(normal.shape[1])


def _discriminant(normal: Array, strata: Strata) -> Array:
    n_features = normal.shape[1]
    both = [(real, drawn) for real, drawn in strata if len(real) and len(drawn)]
    if not both:
        return np.zeros(n_features)
    difference = np.average(
        [normal[drawn].mean(axis=0) - normal[real].mean(axis=0) for real, drawn in both],
        axis=0,
        weights=_weights(both),
    )
    within = np.concatenate(
        [normal[rows] - normal[rows].mean(axis=0) for kinds in both for rows in kinds]
    )
    covariance = within.T @ within / len(within)
    shrinkage = n_features / (n_features + len(within))
    return np.linalg.solve(
        (1 - shrinkage) * covariance + shrinkage * np.eye(n_features), difference
    )


def _weights(strata: Strata) -> Array:
    sizes = np.array([(len(real), len(drawn)) for real, drawn in strata], dtype=np.float64)
    weights = sizes.prod(axis=1) / (sizes.sum(axis=1) + 1)
    return np.asarray(weights / weights.sum())


def _deviation(at: float, strata: Strata) -> float:
    """Standard deviation of the estimate where the area is `at`."""
    variance = 0.0
    for weight, (real, drawn) in zip(_weights(strata), strata, strict=True):
        m, n = len(real), len(drawn)
        alike = (1 - at) / (2 - at) + at / (1 + at)
        variance += weight**2 * at * (1 - at) * (1 + ((m + n) / 2 - 1) * alike) / (m * n)
    return sqrt(variance)


def _log_chance_of_separation(at: float, strata: Strata) -> float:
    odds = at / (1 - at)
    return sum(
        max(log(a / odds) + float(betaln(a / odds, b + 1)) for a, b in ((m, n), (n, m)))
        for m, n in ((len(real), len(drawn)) for real, drawn in strata)
    )
