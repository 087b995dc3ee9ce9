"""Weights of an agreement coefficient: how far two ratings agree that are not the same.

Shapes: q categories.
"""

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from studies.ratings import AgreementError, RatingTable

Array = NDArray[np.float64]

Weights = Literal[
    "identity", "linear", "quadratic", "ordinal", "radical", "ratio", "circular", "bipolar"
]


def agreement_weights(name: Weights, scores: ArrayLike) -> Array:
    """How far two ratings agree, from 0 to 1. (q, q)

    `linear` is Cicchetti–Allison, `quadratic` Fleiss–Cohen. `ordinal`, which counts pairs of
    categories between, takes positions; all others take the scores themselves.

    Args:
        name: which weights.
        scores: values of the categories, ascending. (q,)

    Raises:
        AgreementError: for `ratio` weights with a score of 0 or below, or an unknown name.

    Source: Gwet (2014), Handbook of Inter-Rater Reliability, ch. 3; checked against irrCAC.
    """
    x = np.asarray(scores, dtype=np.float64)
    if len(x) < 2 or name == "identity":
        return np.eye(len(x))
    apart = np.abs(x[:, None] - x)
    together, low, high = x[:, None] + x, x.min(), x.max()
    match name:
        case "linear":
            distance = apart
        case "quadratic":
            distance = apart**2
        case "radical":
            distance = np.sqrt(apart)
        case "ordinal":
            position = np.arange(len(x))
            steps = np.abs(position[:, None] - position)
            distance = steps * (steps + 1) / 2
        case "ratio":
            if low <= 0:
                raise AgreementError(
                    f"ratio weights need scores above 0, not {low:g}; use linear or quadratic."
                )
            distance = (apart / together) ** 2
        case "circular":
            distance = np.sin(np.pi * apart / (high - low + 1)) ** 2
        case "bipolar":
            room = (together - 2 * low) * (2 * high - together)
            distance = np.divide(apart**2, room, out=np.zeros_like(apart), where=apart > 0)
        case _:
            raise AgreementError(
                f"no weights are called {name!r}; give one of "
                "identity, linear, quadratic, ordinal, radical, ratio, circular, bipolar."
            )
    return np.asarray(1 - distance / distance.max(), dtype=np.float64)


def are_ordered(weights: Weights | ArrayLike) -> bool:
    """Whether the weights go by the order of the categories."""
    return isinstance(weights, str) and weights not in ("identity", "nominal")


def weights_in_words(weights: Weights | ArrayLike) -> str:
    """What follows the coefficient's name."""
    if not isinstance(weights, str):
        return ", own weights"
    return "" if weights == "identity" else f", {weights} weights"


def weight_matrix(weights: Weights | ArrayLike, table: RatingTable) -> Array:
    """Weights by name, or as given, of the table's categories. (q, q)"""
    if isinstance(weights, str):
        return agreement_weights(weights, table.scores)  # type: ignore[arg-type]
    matrix = np.asarray(weights, dtype=np.float64)
    if (
        matrix.shape != (table.q, table.q)
        or not np.isfinite(matrix).all()
        or not np.array_equal(matrix, matrix.T)
        or not (np.diag(matrix) == 1).all()
    ):
        raise AgreementError(
            f"weights of shape {matrix.shape} do not fit the {table.q} categories "
            f"{list(table.categories)}; give a symmetric matrix of that size with 1 on its "
            "diagonal (the mean with its transpose, if yours is not symmetric)."
        )
    return matrix
