"""How far drawn cells lie from real ones, in the features of an independent network.

Not FID: that needs the Inception network's weights, and is biased at the sample sizes here.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelDistance:
    """Squared maximum mean discrepancy between two samples of features."""

    estimate: float
    standard_error: float
    """Over the blocks that the samples were cut into."""
    n: int
    """Drawn samples used."""


def kernel_distance(
    drawn: NDArray[np.float64],
    real: NDArray[np.float64],
    *,
    n_blocks: int = 10,
    rng: np.random.Generator,
) -> KernelDistance:
    """Kernel distance (KID): 0 in expectation if both samples come from one distribution.

    Args:
        drawn: features of drawn images. (n, F)
        real: features of real ones. (m, F)
        n_blocks: disjoint blocks, each with its own unbiased estimate; their mean is returned.
        rng: shuffles both samples into blocks.

    Raises:
        ValueError: if a block would have fewer than two images of either kind.

    Source: Binkowski et al. (2018), "Demystifying MMD GANs", section 4: cubic polynomial kernel,
        unbiased estimator.
    """
    size = min(len(drawn), len(real)) // n_blocks
    if size < 2:
        raise ValueError(
            f"{len(drawn)} drawn and {len(real)} real images do not fill {n_blocks} blocks of two; "
            "give more images or ask for fewer blocks."
        )
    first, second = rng.permutation(len(drawn)), rng.permutation(len(real))
    estimates = [
        _unbiased(drawn[first[i * size : (i + 1) * size]], real[second[i * size : (i + 1) * size]])
        for i in range(n_blocks)
    ]
    return KernelDistance(
        estimate=float(np.mean(estimates)),
        standard_error=float(np.std(estimates, ddof=1) / n_blocks**0.5) if n_blocks > 1 else np.nan,
        n=size * n_blocks,
    )


def _unbiased(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    def kernel(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray((a @ b.T / a.shape[1] + 1) ** 3)

    n, m = len(x), len(y)
    within_x = kernel(x, x)
    within_y = kernel(y, y)
    return float(
        (within_x.sum() - np.trace(within_x)) / (n * (n - 1))
        + (within_y.sum() - np.trace(within_y)) / (m * (m - 1))
        - 2 * kernel(x, y).mean()
    )
