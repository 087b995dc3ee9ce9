"""Noise to images of a given class; one seed for each image.

Trunk and decoder are both told the class, and the decoder that cells are to look as in the training
set, as all do whose trunk is told in training. In guidance the branch without a class tells both of
them that it is unknown.

Shapes: B images; C, H, W are channels, height and width of the latents.
"""

from collections.abc import Sequence

import torch
from diffusers import EDMDPMSolverMultistepScheduler
from torch import Tensor

from diffusion.network import CellDenoiser


def draw_noise(seeds: Sequence[int], shape: tuple[int, ...]) -> Tensor:
    """One standard normal draw for each seed, the same whatever else is in the batch.

    Drawn on the CPU, so that a seed means the same picture on every device. (len(seeds), *shape)
    """
    return torch.stack(
        [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    )


@torch.no_grad()
def sample_latents(
    network: CellDenoiser,
    scheduler: EDMDPMSolverMultistepScheduler,
    class_labels: Sequence[int],
    seeds: Sequence[int],
    *,
    n_steps: int = 18,
    guidance_scale: float = 1.0,
) -> Tensor:
    """Clean latents drawn from the model. (B, C, H, W)

    Args:
        network: the trained model; it is asked `n_steps` times, twice that with guidance.
        scheduler: its EDM noise levels.
        class_labels: class of each image. (B,)
        seeds: seed of each image, non-negative. (B,)
        n_steps: solver steps from pure noise to the image.
        guidance_scale: 1 draws from the class; above 1 exaggerates what tells it from the rest.

    Raises:
        ValueError: if labels and seeds differ in number, or a label is not one of the model's.

    Source: DPM-Solver++ (Lu et al., 2022) on the levels of Karras et al. (2022); classifier-free
        guidance of Ho & Salimans (2022).
    """
    config = network.config
    if len(class_labels) != len(seeds):
        raise ValueError(
            f"{len(class_labels)} class labels for {len(seeds)} seeds; give one seed an image."
        )
    if not all(0 <= label < config.n_classes for label in class_labels):
        raise ValueError(f"class labels {list(class_labels)} are not all below {config.n_classes}.")
    device = next(network.parameters()).device
    labels = torch.tensor(list(class_labels), device=device)
    unknown = torch.full_like(labels, config.n_classes)
    # The solver keeps its history inside: a scheduler of our own keeps calls apart.
    solver = EDMDPMSolverMultistepScheduler.from_config(scheduler.config)
    solver.set_timesteps(n_steps, device=device)
    shape = (config.n_channels, config.image_size, config.image_size)
    latents: Tensor = draw_noise(seeds, shape).to(device) * solver.init_noise_sigma
    for timestep in solver.timesteps:
        scaled = solver.scale_model_input(latents, timestep)
        times = timestep.to(latents.dtype).expand(len(labels))
        raw = network(scaled, times, labels)
        if guidance_scale != 1:
            raw_unknown = network(scaled, times, unknown)
            raw = raw_unknown + guidance_scale * (raw - raw_unknown)
        latents = solver.step(raw, timestep, latents).prev_sample
    return latents
