"""A checkpoint folder into the BentoML model store, addressed by its digest."""

import os
import shutil
from pathlib import Path

from diffusion.checkpoint import checkpoint_files, load_checkpoint

MODEL_NAME = "cytoverity"


def package(folder: Path) -> str:
    """Copy a checkpoint into the model store and return its tag, `cytoverity:<digest>`.

    A checkpoint that is there already is left as it is: the same digest is the same model.

    Raises:
        CheckpointError: if the folder is not a checkpoint.
    """
    os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")  # before the import: no telemetry
    import bentoml
    from bentoml.exceptions import NotFound

    checkpoint = load_checkpoint(folder)
    tag = f"{MODEL_NAME}:{checkpoint.digest[:16]}"
    try:
        return str(bentoml.models.get(tag).tag)
    except NotFound:
        pass
    metadata = {
        "digest": checkpoint.digest,
        "name": checkpoint.header.name,
        "class_names": list(checkpoint.class_names),
        "image_size": checkpoint.header.image_size,
        "data_digest": checkpoint.header.data_digest,
    }
    with bentoml.models.create(tag, metadata=metadata) as model:
        for path in checkpoint_files(folder):
            target = Path(model.path) / path.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    return tag
