"""The certainty score of the published diffusion classifier, as a baseline for anomalies.

Shapes: B images, N noise draws, K classes.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


def normalised_class_errors(errors: ArrayLike) -> Array:
    """Class errors as the published rule compares them: above the best of each draw, mean 1.

    Args:
        errors: weighted squared errors of every class in every draw. (B, N, K)

    Returns:
        Zero throughout where the classes tie in every draw. (B, K)

    Source: CytoDiffusion's code, 2024; there a dropped class keeps the mean of its earlier draws,
        here every class is drawn.
    """
    values = np.asarray(errors, np.float64)
    above = (values - values.min(axis=-1, keepdims=True)).mean(axis=-2)
    size = above.mean(axis=-1, keepdims=True)
    normalised: Array = np.divide(above, size, out=np.zeros_like(above), where=size > 0)
    return normalised


def zeta(class_errors: ArrayLike) -> Array:
    """The anomaly score of CytoDiffusion as published: high is normal. (B, K) -> (B,)

    With errors `e_0 <= e_1 <= ...` and `k = min(K - 1, 10)`

        zeta = 1/k * sum_j (e_j - e_0) - 1/(k (k - 1)) * sum_j sum_l |e_j - e_l|

    where j and l should run over the k classes after the best, but run to k - 1: the worst of them
    is left out while the divisors stay. Two classes always give 0, three half the margin.
    `zeta_corrected` sums over all k. Neither sees how well an image was denoised, only how the
    classes compare. The code takes `normalised_class_errors`.

    Source: CytoDiffusion's code of September 2024.
    """
    return _zeta(class_errors, n_left_out=1)


def zeta_corrected(class_errors: ArrayLike) -> Array:
    """`zeta` with its sums over all k classes after the best. (B, K) -> (B,)

    Two classes give their margin. The dispersion keeps the published factor, twice that of the
    energy score (Gneiting & Raftery, 2007) whose form it has.
    """
    return _zeta(class_errors, n_left_out=0)


def _zeta(class_errors: ArrayLike, n_left_out: int) -> Array:
    errors = np.sort(np.asarray(class_errors, np.float64), axis=-1)
    k = min(errors.shape[-1] - 1, 10)
    if k < 1:
        raise ValueError("zeta compares classes; give the errors of at least two.")
    others = errors[..., 1 : k + 1 - n_left_out]
    margin = (others - errors[..., :1]).sum(axis=-1) / k
    if k == 1:
        return np.asarray(margin)
    dispersion = np.abs(others[..., :, None] - others[..., None, :]).sum(axis=(-2, -1))
    zetas: Array = margin - dispersion / (k * (k - 1))
    return zetas
