"""What every logistic regression of judgements needs: design, separation, the way back from logits.

L judgements, p coefficients.
"""

from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import linprog
from scipy.special import expit

from studies.clustered import ClusterError
from studies.estimate import Estimate

Floats = NDArray[np.float64]

SEPARATED = (
    "the covariates tell right from wrong answers without contradiction, so a coefficient is "
    "infinite; leave out or coarsen a covariate"
)


def on_probability_scale(on_logit: Estimate) -> Estimate:
    """A logit and its interval as a probability; the standard error by the delta method."""
    assert on_logit.estimate is not None
    value = float(expit(on_logit.estimate))
    if on_logit.ci_low is None or on_logit.ci_high is None:
        return replace(on_logit, estimate=value)
    assert on_logit.standard_error is not None
    return replace(
        on_logit,
        estimate=value,
        ci_low=float(expit(on_logit.ci_low)),
        ci_high=float(expit(on_logit.ci_high)),
        standard_error=on_logit.standard_error * value * (1 - value),
        method=f"{on_logit.method}, limits by the logit",
    )


def design_matrix(covariates: pd.DataFrame | None, n_rows: int) -> tuple[Floats, tuple[str, ...]]:
    """The covariates behind a column of ones, and the names of the columns. (L, p)

    Raises:
        ClusterError: for another length, a cell that is no finite number, or a column that the
            intercept and the columns before it already give.
    """
    columns, names = [np.ones(n_rows)], ["intercept"]
    for name, values in () if covariates is None else covariates.items():
        column = pd.to_numeric(values.astype(object), errors="coerce").to_numpy(dtype=np.float64)
        if len(column) != n_rows:
            raise ClusterError(
                f"covariates have {len(column)} rows for {n_rows} judgements; give as many."
            )
        bad = np.flatnonzero(~np.isfinite(column))
        if len(bad):
            raise ClusterError(
                f"covariate {name} of judgement {bad[0] + 1} is {values.iloc[bad[0]]}; "
                "give a finite number, and code a class as columns of 0 and 1."
            )
        columns.append(column)
        names.append(str(name))
        scaled = np.column_stack(columns) / np.maximum(
            np.abs(np.array(columns)).max(axis=1), 1e-300
        )
        if np.linalg.matrix_rank(scaled) < len(columns):
            raise ClusterError(
                f"covariate {name} is constant, or a sum of those before it; leave it out."
            )
    return np.column_stack(columns), tuple(names)


def is_separated(design: Floats, n_correct: Floats, n_trials: Floats) -> bool:
    """Whether some direction of the covariates tells right from wrong without contradiction.

    A coefficient of the logistic regression is then infinite.

    Args:
        design: (L, p)
        n_correct: right answers of each row. (L,)
        n_trials: (L,)

    Source: Albert & Anderson (1984); as a linear programme, Konis (2007).
    """
    scaled = design / np.abs(design).max(axis=0)
    rows, which = np.unique(scaled, axis=0, return_inverse=True)
    share = np.bincount(which, n_correct) / np.bincount(which, n_trials)
    is_pure = (share == 0) | (share == 1)
    if not is_pure.any():
        return False
    # b with (±x)·b ≥ 0 for pure rows and = 0 for mixed ones; separated if any can be above 0.
    signed = rows[is_pure] * np.where(share[is_pure] == 1, 1, -1)[:, None]
    found = linprog(
        -signed.sum(axis=0),
        A_ub=-signed,
        b_ub=np.zeros(len(signed)),
        A_eq=rows[~is_pure] if not is_pure.all() else None,
        b_eq=np.zeros(int((~is_pure).sum())) if not is_pure.all() else None,
        bounds=(-1, 1),
    )
    return float(found.fun or 0.0) < -1e-7
