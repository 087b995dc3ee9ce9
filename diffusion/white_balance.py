"""The ground of a smear, and moving an image's ground to the training set's.

Microscopes differ in white balance, and the empty ground between the cells shows by how much. Whole
images do not: how dark one is depends on how much nucleus is in the frame.

Shapes: B images; H, W height and width.
"""

from torch import Tensor

BRIGHTEST = (0.85, 0.97)
"""Ranks of brightness that count as ground; above them are reflections and dead pixels."""
MAX_GAIN = 2.0


def background(latents: Tensor) -> Tensor:
    """Colour of the ground, as light let through: the median of the brightest pixels.

    Args:
        latents: RGB in [-1, 1]. (B, 3, H, W)

    Returns:
        Transmission of each colour, 0..1. (B, 3)
    """
    transmission = ((latents.flatten(2) + 1) / 2).clamp(0, 1)
    order = transmission.mean(dim=1).argsort(dim=1)
    n = order.shape[1]
    ground = order[:, int(BRIGHTEST[0] * n) : max(int(BRIGHTEST[1] * n), int(BRIGHTEST[0] * n) + 1)]
    chosen = transmission.gather(2, ground[:, None].expand(-1, 3, -1))
    return chosen.median(dim=2).values


def white_balanced(latents: Tensor, reference: Tensor) -> Tensor:
    """The images under the light of the training set: each colour's gain maps ground to ground.

    Args:
        latents: RGB in [-1, 1]. (B, 3, H, W)
        reference: the training set's ground, as transmission. (3,)

    Returns:
        Same shape. An image whose ground is the reference comes back as it was.

    Source: von Kries' diagonal adaptation, with the smear's ground as the white.
    """
    gain = (reference.to(latents) / background(latents).clamp_min(1 / 255)).clamp(
        1 / MAX_GAIN, MAX_GAIN
    )
    transmission = (latents + 1) / 2 * gain[:, :, None, None]
    return 2 * transmission.clamp(0, 1) - 1


def reference_background(latents: Tensor) -> Tensor:
    """Median ground of many images. (B, 3, H, W) -> (3,)"""
    return background(latents).median(dim=0).values
