"""Whether a picture looks close by as the reference cells do: stain, focus, sensor.

Any pass of the head shows the finest level's statistics; they are judged by their Mahalanobis
distance to the nearest class. Each fold of the reference cells is ranked under Gaussians that the
other folds fit, and a new cell among each fold under the same Gaussians, so that every reference
cell is ranked and nearly all fit, however they happen to be divided (cross-conformal).

Shapes: B images, T statistics of a texture, n reference cells.
"""

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from diffusion.mahalanobis import Array, ClassGaussians, fit_class_gaussians, six_digits

N_FOLDS = 5


class TextureFold(BaseModel):
    """One fold of the reference cells, as the others see it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    others: ClassGaussians
    """Fitted on the cells of the other folds."""
    distances: tuple[float, ...]
    """Of the fold's own cells to the nearest class."""


class TextureReference(BaseModel):
    """Reference cells, boiled down to what the p-value of a texture takes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    folds: tuple[TextureFold, ...]

    def p_values(self, texture: Array) -> Array:
        """(1 + number of reference cells at least as far as the new one) / (1 + n). (B, T) -> (B,)

        Among cells exchangeable with the reference ones about a share a has p-values of a or less,
        and never more than 2 (a + 4 / (n + 5)), which is 2.8 % for a = 1 % and n = 972. For within
        a fold the rank is exact (split conformal), the p-value is the mean of such ranks but for
        their rounding, and twice a mean of p-values is a p-value however they depend on each other.
        The bound is for folds drawn at random; that it holds for folds with equal shares of each
        class, which are steadier, is simulated in the tests.

        Source: Vovk (2015), "Cross-conformal predictors"; the bound is Theorem 4 of Barber, Candès,
            Ramdas & Tibshirani (2021), "Predictive inference with the jackknife+", on Vovk & Wang
            (2020), "Combining p-values via averaging".
        """
        n_reference = sum(len(fold.distances) for fold in self.folds)
        n_as_far = np.zeros(len(texture))
        for fold in self.folds:
            at = nearest_distances(fold.others, texture)
            n_as_far += (np.array(fold.distances) >= at[:, None]).sum(axis=1)
        p_values: Array = (1 + n_as_far) / (1 + n_reference)
        return p_values


def fit_texture_reference(texture: Array, labels: NDArray[np.int64]) -> TextureReference:
    """The reference of cells that nothing was fitted on, at least two of each class.

    Args:
        texture: (n, T)
        labels: their true classes, 0 .. K - 1. (n,)
    """
    folds = []
    for own in folds_of_each_class(labels):
        rest = np.setdiff1d(np.arange(len(labels)), own)
        others = fit_class_gaussians(texture[rest], labels[rest])
        distances = nearest_distances(others, texture[own])
        folds.append(TextureFold(others=others, distances=tuple(distances.tolist())))
    return TextureReference(folds=tuple(folds))


def nearest_distances(gaussians: ClassGaussians, values: Array) -> Array:
    """Mahalanobis distance to the nearest class, to six digits. (B, D) -> (B,)"""
    return six_digits(np.sqrt(gaussians.squared_distances(values).min(axis=1)))


def folds_of_each_class(labels: NDArray[np.int64]) -> list[NDArray[np.intp]]:
    """Numbers of the cells in each fold: every fifth cell of each class."""
    number = np.empty_like(labels)
    for k in np.unique(labels):
        number[labels == k] = np.arange((labels == k).sum())
    return [np.flatnonzero(number % N_FOLDS == i) for i in range(N_FOLDS)]
