"""What the service has loaded: a checkpoint, and the classifier that it describes."""

from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

import torch

from diffusion.cell_classifier import CellClassifier
from diffusion.checkpoint import Checkpoint, load_checkpoint
from diffusion.classifier_settings import ClassifierSettings
from service.problems import Problem
from service.schemas import ImageProvenance, ModelReference


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A checkpoint and its classifier, which is made once."""

    checkpoint: Checkpoint
    classifier: CellClassifier

    @property
    def settings(self) -> ClassifierSettings:
        """How it decides."""
        return self.classifier.settings

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names in the order of the class labels."""
        return self.checkpoint.class_names

    @property
    def reference(self) -> ModelReference:
        """Name and digest, for a reply."""
        return ModelReference(name=self.checkpoint.header.name, digest=self.checkpoint.digest)

    def image_provenance(self, image_digest: str, seed: int) -> ImageProvenance:
        """Where an answer about an image came from."""
        return ImageProvenance(
            checkpoint_digest=self.checkpoint.digest,
            image_digest=image_digest,
            seed=seed,
            device=str(self.checkpoint.device),
            torch_version=torch.__version__,
        )

    def class_labels(self, class_names: tuple[str, ...]) -> list[int]:
        """The network's labels of some classes.

        Raises:
            Problem: 422 with the names that the model does know.
        """
        unknown = [name for name in class_names if name not in self.class_names]
        if unknown:
            raise Problem(
                HTTPStatus.UNPROCESSABLE_ENTITY,
                "unknown_class",
                f"The model does not know {listed(unknown)}; it knows {listed(self.class_names)}.",
            )
        return [self.class_names.index(name) for name in class_names]


def read_model(folder: Path, *, device: str) -> Model:
    """The model in a checkpoint folder, on a torch device; `auto` takes CUDA where there is one."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    checkpoint = load_checkpoint(folder, device=device)
    return Model(checkpoint=checkpoint, classifier=CellClassifier.from_checkpoint(checkpoint))


def listed(names: tuple[str, ...] | list[str]) -> str:
    """Names as a message shows them."""
    return ", ".join(f"`{name}`" for name in names)
