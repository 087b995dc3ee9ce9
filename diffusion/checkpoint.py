"""The one folder that training hands on: diffusers' layout, and our header beside it.

    model_index.json                              pipeline of diffusers
    denoiser/config.json, *.safetensors           CellDenoiser
    scheduler/scheduler_config.json               EDM noise levels for sampling
    cytoverity.json                               CheckpointHeader: names, conventions, digests

Nothing is pickled. A checkpoint is known by the digest of its content.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import EDMDPMSolverMultistepScheduler
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from torch import nn

from diffusion.classifier_settings import ClassifierSettings
from diffusion.network import CellDenoiser, Denoiser

HEADER_FILE = "cytoverity.json"
FORMAT_VERSION = 2


class CheckpointError(Exception):
    """A folder that is not a checkpoint this version can use; the message says what to do."""


class CheckpointHeader(BaseModel):
    """What a denoiser's weights do not say about themselves."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: int = FORMAT_VERSION
    name: str
    class_names: tuple[str, ...] = Field(min_length=2)
    """In the order of the network's class labels."""
    image_size: int
    colour: str = "RGB, 0..255 -> [-1, 1]"
    crop_px: int | None = None
    """Side of the centred square that the training images were cut to, in original pixels."""
    data_digest: str
    n_training_images: int
    n_images_seen: int
    training_config: dict[str, Any]
    background: tuple[float, float, float] | None = None
    """The training set's ground, as light let through; images are white-balanced to it before they
    are classified. None leaves them as they are."""
    classifier: ClassifierSettings

    @model_validator(mode="after")
    def _names_are_distinct(self) -> "CheckpointHeader":
        if len(set(self.class_names)) != len(self.class_names):
            raise ValueError(f"class_names {self.class_names} are not distinct.")
        return self


class _AnyFormat(BaseModel):
    """What headers of all format versions have; the other fields differ between them."""

    format_version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A denoiser together with the names of its classes, so that they cannot be mixed up."""

    denoise: Denoiser
    """As the network draws; `network.split` is what the classifier compares."""
    network: CellDenoiser
    scheduler: EDMDPMSolverMultistepScheduler
    header: CheckpointHeader
    digest: str
    folder: Path

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names in the order of the class labels."""
        return self.header.class_names

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        device: torch.device = next(self.network.parameters()).device
        return device


def save_checkpoint(
    folder: Path,
    network: CellDenoiser,
    header: CheckpointHeader,
    *,
    dtype: torch.dtype = torch.float16,
) -> str:
    """Write a checkpoint folder and return its digest; `network` itself is not changed."""
    n_named, n_trained = len(header.class_names), network.config.n_classes
    if n_named != n_trained:
        raise CheckpointError(
            f"The header names {n_named} classes but the network was built for {n_trained}; "
            "write the class names the network was trained on, in order."
        )
    # diffusers' own entries (where the weights were loaded from) would give away this machine.
    config = {key: value for key, value in network.config.items() if not key.startswith("_")}
    copy = CellDenoiser.from_config(config)
    copy.load_state_dict(network.state_dict())
    folder.mkdir(parents=True, exist_ok=True)
    nn.Module.to(copy, dtype).save_pretrained(folder / "denoiser", safe_serialization=True)
    make_scheduler(network).save_pretrained(folder / "scheduler")
    index = {
        "_class_name": "CellPipeline",
        "denoiser": ["diffusion.network", "CellDenoiser"],
        "scheduler": ["diffusers", "EDMDPMSolverMultistepScheduler"],
    }
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
    (folder / HEADER_FILE).write_text(header.model_dump_json(indent=2) + "\n")
    return checkpoint_digest(folder)


def make_scheduler(network: CellDenoiser) -> EDMDPMSolverMultistepScheduler:
    """The EDM sampler's noise levels for this network. Karras et al. (2022), eq. 5."""
    return EDMDPMSolverMultistepScheduler(
        sigma_min=0.005,
        sigma_max=20.0,
        sigma_data=network.config.sigma_data,
        prediction_type="epsilon",
    )


def load_checkpoint(folder: Path, *, device: str | torch.device = "cpu") -> Checkpoint:
    """The denoiser in a checkpoint folder, in float32 and evaluation mode.

    Raises:
        CheckpointError: if the folder is missing, incomplete, of another format version, or its
            class names do not fit the network.
    """
    header_path = folder / HEADER_FILE
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is not a folder; give the checkpoint's folder.")
    if not header_path.is_file():
        raise CheckpointError(
            f"{folder} has no {HEADER_FILE}; give a folder written by `python -m training run`."
        )
    try:
        version = _AnyFormat.model_validate_json(header_path.read_bytes()).format_version
        if version != FORMAT_VERSION:
            raise CheckpointError(
                f"{folder} has format version {version} and this release reads "
                f"{FORMAT_VERSION}; install the release that wrote it, or train again."
            )
        header = CheckpointHeader.model_validate_json(header_path.read_bytes())
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, e['loc'])) or 'header'}: {e['msg']}" for e in error.errors()
        )
        raise CheckpointError(
            f"{header_path} does not describe a checkpoint ({problems}); train or package it again."
        ) from None
    weights = folder / "denoiser" / "diffusion_pytorch_model.safetensors"
    if not weights.is_file():
        raise CheckpointError(
            f"{folder} has no denoiser weights in safetensors; copy the folder whole, or train "
            "again."
        )
    try:
        network = CellDenoiser.from_pretrained(
            folder / "denoiser", use_safetensors=True, local_files_only=True
        )
    except Exception as error:
        raise CheckpointError(
            f"The weights in {folder / 'denoiser'} cannot be read ({error}); "
            "copy the folder again, or train again."
        ) from error
    if network.config.n_classes != len(header.class_names):
        raise CheckpointError(
            f"{folder} names {len(header.class_names)} classes but its network knows "
            f"{network.config.n_classes}; the header belongs to another network."
        )
    network = nn.Module.to(network, device, torch.float32).eval().requires_grad_(False)
    return Checkpoint(
        denoise=network.as_denoiser(),
        network=network,
        scheduler=EDMDPMSolverMultistepScheduler.from_pretrained(folder / "scheduler"),
        header=header,
        digest=checkpoint_digest(folder),
        folder=folder,
    )


def checkpoint_files(folder: Path) -> list[Path]:
    """The files that make up a checkpoint; a model card or a training state beside them do not."""
    patterns = ("model_index.json", HEADER_FILE, "scheduler/*.json", "denoiser/*.json")
    weights = "denoiser/*.safetensors"
    return sorted(path for pattern in (*patterns, weights) for path in folder.glob(pattern))


def checkpoint_digest(folder: Path) -> str:
    """SHA-256 over names and contents of the checkpoint's files."""
    total = hashlib.sha256()
    for path in checkpoint_files(folder):
        total.update(path.relative_to(folder).as_posix().encode() + b"\0")
        total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()
