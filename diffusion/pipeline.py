"""The checkpoint as a diffusers pipeline, for those who know that interface."""

from collections.abc import Sequence
from typing import Any

import diffusers
from diffusers import DiffusionPipeline, EDMDPMSolverMultistepScheduler, ImagePipelineOutput
from PIL import Image

from diffusion.latents import images_from_latents
from diffusion.network import CellDenoiser
from diffusion.sampler import sample_latents


class CellPipeline(DiffusionPipeline):
    """Class labels and seeds to images: `CellPipeline.from_pretrained(folder)([3], [17])`."""

    def __init__(self, denoiser: CellDenoiser, scheduler: EDMDPMSolverMultistepScheduler) -> None:
        super().__init__()
        self.register_modules(denoiser=denoiser, scheduler=scheduler)

    def __call__(
        self,
        class_labels: Sequence[int],
        seeds: Sequence[int],
        *,
        num_inference_steps: int = 18,
        guidance_scale: float = 1.0,
    ) -> Any:
        """One PIL image for each class label and seed, in `.images`."""
        latents = sample_latents(
            self.denoiser,
            self.scheduler,
            class_labels,
            seeds,
            n_steps=num_inference_steps,
            guidance_scale=guidance_scale,
        )
        images = [Image.fromarray(image) for image in images_from_latents(latents)]
        return ImagePipelineOutput(images=images)


# `DiffusionPipeline.from_pretrained` looks a checkpoint's pipeline up by name among diffusers' own;
# after `import diffusion.pipeline` it finds ours there, without running code from the checkpoint.
diffusers.CellPipeline = CellPipeline
