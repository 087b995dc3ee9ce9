"""What simulated studies say of a method: coverage, width and mean, with Monte-Carlo intervals."""

from collections.abc import Sequence
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from studies.estimate import Estimate
from studies.proportions import wilson

Array = NDArray[np.float64]


def share(hits: ArrayLike) -> dict[str, float]:
    """How often, with the Monte-Carlo interval: of S independent studies. (S,) of bool"""
    is_hit = np.asarray(hits)
    found = wilson(int(is_hit.sum()), len(is_hit))
    return {
        "estimate": found.estimate,
        "ci_low": found.ci_low,
        "ci_high": found.ci_high,
        "n": len(is_hit),
    }


def mean(values: ArrayLike) -> dict[str, float]:
    """Mean over studies, with the Monte-Carlo interval. (S,)"""
    x = np.asarray(values, dtype=np.float64)
    error = 1.96 * float(x.std(ddof=1)) / sqrt(len(x))
    middle = float(x.mean())
    return {"estimate": middle, "ci_low": middle - error, "ci_high": middle + error, "n": len(x)}


def judged(low: Array, high: Array, truth: float) -> dict[str, Any]:
    """Coverage, on which side the truth was missed, and mean width. NaN is no interval. (S,)"""
    return {
        "coverage": share((low <= truth) & (truth <= high)),
        "truth_below": float((truth < low).mean()),
        "truth_above": float((truth > high).mean()),
        "not_estimable": float(np.isnan(low).mean()),
        "mean_width": float(np.nanmean(high - low)),
    }


def judged_estimates(found: Sequence[Estimate], truth: float) -> dict[str, Any]:
    """The same of production's estimates, and their mean."""
    limits = np.array([(one.ci_low, one.ci_high) for one in found], dtype=np.float64)
    values = [one.estimate for one in found if one.estimate is not None]
    return judged(limits[:, 0], limits[:, 1], truth) | {"truth": truth, "mean": mean(values)}
