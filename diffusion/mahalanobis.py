"""How far measurements of a cell lie from those of each class: Gaussians with one covariance.

Shapes: B cells, K classes, D measurements of a cell.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict

Array = NDArray[np.float64]


class ClassGaussians(BaseModel):
    """Gaussians of the classes around their own means with one shrunk covariance."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    scales: tuple[float, ...]
    """Standard deviation within classes, by which everything is divided first. (D,)"""
    means: tuple[tuple[float, ...], ...]
    """In units of `scales`. (K, D)"""
    precision: tuple[float, ...]
    """Inverse covariance in those units: its lower triangle, row by row. (D (D + 1) / 2,)"""

    def scaled(self, values: Array) -> Array:
        """Values in units of the standard deviation within classes. (B, D) -> (B, D)"""
        scaled: Array = values / np.array(self.scales)
        return scaled

    def squared_distances(self, values: Array) -> Array:
        """Squared Mahalanobis distance to each class. (B, D) -> (B, K)"""
        n = len(self.scales)
        precision = np.zeros((n, n))
        precision[np.tril_indices(n)] = self.precision
        precision = precision + np.tril(precision, -1).T
        away = self.scaled(values)[:, None, :] - np.array(self.means)
        distances: Array = (away @ precision * away).sum(axis=2)
        return distances


def fit_class_gaussians(values: Array, labels: NDArray[np.int64]) -> ClassGaussians:
    """Class means and the covariance within classes, shrunk towards independence.

    Columns are brought to the same spread before the shrinkage, so that units do not matter.

    Args:
        values: (n, D)
        labels: class of each row, 0 .. K - 1, each present. (n,)

    Raises:
        ValueError: if most columns do not vary within the classes.

    Source: Lee et al. (2018), "A simple unified framework for detecting out-of-distribution
        samples", with the shrinkage of `ledoit_wolf`.
    """
    n_classes = int(labels.max()) + 1
    means = np.stack([values[labels == k].mean(axis=0) for k in range(n_classes)])
    residuals = values - means[labels]
    spread = np.sqrt((residuals**2).sum(axis=0) / max(len(values) - n_classes, 1))
    typical = float(np.median(spread))
    if not typical > 0:
        raise ValueError(
            "most columns have the same value in every cell of a class; give measurements that "
            "vary between cells."
        )
    # A unit of the network that never fires would make everything infinitely far.
    scales = six_digits(np.maximum(spread, 0.01 * typical))
    precision = np.linalg.inv(ledoit_wolf(residuals / scales))
    return ClassGaussians(
        scales=tuple(scales.tolist()),
        means=tuple(tuple(row) for row in six_digits(means / scales).tolist()),
        precision=tuple(six_digits(precision[np.tril_indices(len(scales))]).tolist()),
    )


def ledoit_wolf(residuals: Array) -> Array:
    """Covariance of centred rows, shrunk towards a multiple of the identity. (n, D) -> (D, D)

    The amount is the one with the least expected squared error, estimated from the data; the result
    can be inverted with fewer rows than columns.

    Source: Ledoit & Wolf (2004), "A well-conditioned estimator for large-dimensional covariance
        matrices".
    """
    n, d = residuals.shape
    sample = residuals.T @ residuals / n
    size = np.trace(sample) / d
    target = size * np.eye(d)
    away = ((sample - target) ** 2).sum()
    # Mean over rows of |x x' - S|^2, which is mean |x|^4 - |S|^2.
    unsure = ((residuals**2).sum(axis=1) ** 2).mean() - (sample**2).sum()
    share = min(unsure / n / away, 1.0) if away > 0 else 1.0
    shrunk: Array = share * target + (1 - share) * sample
    return shrunk


def six_digits(values: ArrayLike) -> Array:
    """The values to six significant digits, as they are written into a checkpoint. Same shape."""
    array = np.asarray(values, np.float64)
    flat = [float(f"{value:.6g}") for value in array.ravel().tolist()]
    return np.array(flat).reshape(array.shape)
