"""What an operator may set: environment variables with the prefix `CYTOVERITY_`."""

import socket
from collections.abc import Callable
from pathlib import Path

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

SHIPPED_CHECKPOINT = Path(__file__).parents[1] / "checkpoints" / "pbc64"
NEWEST_PACKAGED = "cytoverity:latest"

StoredModel = Callable[[str], Path | None]
"""Folder of a tag in BentoML's model store; None where the store has no such tag."""


class SettingsError(Exception):
    """The service cannot start with these settings; the message says what to set."""


class ServiceSettings(BaseSettings):
    """Read once, when the service starts."""

    model_config = SettingsConfigDict(
        env_prefix="CYTOVERITY_", env_ignore_empty=True, frozen=True, extra="ignore"
    )

    checkpoint: Path | None = None
    """Folder of a checkpoint; goes before every other source."""
    model: str | None = None
    """Tag in BentoML's model store, such as `cytoverity:latest`."""
    device: str = "auto"
    """A torch device; `auto` takes CUDA where there is one."""
    max_body_bytes: int = Field(default=10 * 2**20, ge=1024)
    """Of a request, counted as received."""
    max_image_pixels: int = Field(default=4096 * 4096, ge=1, le=80_000_000)
    """Read from the header, before any pixel is decoded."""
    max_waiting: int = Field(default=64, ge=1)
    """Requests in the house at once; one more is told to come back later."""
    max_forward_passes: int = Field(default=10_000, ge=1)
    """Most network evaluations that one request may ask for."""


def read_settings() -> ServiceSettings:
    """The settings in the environment.

    Raises:
        SettingsError: naming the variable at fault.
    """
    try:
        return ServiceSettings()
    except ValidationError as error:
        faults = "; ".join(
            f"CYTOVERITY_{str(e['loc'][0]).upper()}={e['input']}: {e['msg']}"
            for e in error.errors()
        )
        raise SettingsError(f"Correct these environment variables: {faults}.") from None


def checkpoint_folder(
    settings: ServiceSettings,
    *,
    stored_model: StoredModel,
    shipped: Path = SHIPPED_CHECKPOINT,
) -> Path:
    """The folder of the one model to serve, absolute.

    In this order: `CYTOVERITY_CHECKPOINT`, `CYTOVERITY_MODEL`, the checkpoint that ships with the
    repository, the newest packaged model (what a built bento uses, as it ships no checkpoint).

    Raises:
        SettingsError: if what was asked for is not there, or nothing is.
    """
    if settings.checkpoint is not None:
        return _complete(settings.checkpoint.expanduser(), "CYTOVERITY_CHECKPOINT")
    if settings.model is not None:
        folder = stored_model(settings.model)
        if folder is None:
            raise SettingsError(
                f"CYTOVERITY_MODEL={settings.model} is not in the model store; "
                "`bentoml models list` shows what is, `python -m training package` adds one."
            )
        return _complete(folder, f"CYTOVERITY_MODEL={settings.model}")
    if shipped.is_dir():
        return _complete(shipped, "The shipped checkpoint")
    folder = stored_model(NEWEST_PACKAGED)
    if folder is None:
        raise SettingsError(
            "There is no model to serve; set CYTOVERITY_CHECKPOINT to a checkpoint folder, or put "
            "one into the model store with `python -m training package`."
        )
    return _complete(folder, f"The packaged model {NEWEST_PACKAGED}")


def check_port_is_free(host: str, port: int) -> None:
    """Say that a port is taken before BentoML does, in a page of traceback.

    Raises:
        SettingsError: if nothing can listen there.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise SettingsError(
                f"Port {port} of {host} cannot be used ({error.strerror}); "
                "choose another with `bentoml serve --port`."
            ) from None


def _complete(folder: Path, source: str) -> Path:
    # Without torch, so that the supervisor stays small; loading checks the contents.
    for name in ("cytoverity.json", "denoiser/diffusion_pytorch_model.safetensors"):
        if not (folder / name).is_file():
            raise SettingsError(
                f"{source} points to {folder}, which has no {name}; "
                "give a checkpoint folder written by `python -m training run`."
            )
    return folder.resolve()
