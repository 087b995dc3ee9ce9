"""A trained network to a checkpoint folder: settings, header, files."""

from pathlib import Path

from diffusion.checkpoint import CheckpointHeader, save_checkpoint
from training.config import TrainingConfig
from training.data import DataError, LabelledImages, class_counts
from training.fitting import fit_classifier
from training.loop import TrainedNetwork

MIN_HELD_OUT_PER_CLASS = 2


def refuse_too_few(data: LabelledImages, held_out: LabelledImages) -> None:
    """Say before the training, not after it, that the checkpoint could not be calibrated.

    Raises:
        DataError: naming the classes of which too few cells were kept aside.
    """
    counts = class_counts(held_out)
    scarce = [n for n in data.class_names if counts.get(n, 0) < MIN_HELD_OUT_PER_CLASS]
    if scarce:
        raise DataError(
            f"Fewer than {MIN_HELD_OUT_PER_CLASS} cells of {', '.join(scarce)} were kept aside to "
            "calibrate on; add images of these classes, or raise the recipe's `held_out_fraction`."
        )


def finish(
    config: TrainingConfig,
    data: LabelledImages,
    held_out: LabelledImages,
    trained: TrainedNetwork,
    out: Path,
) -> str:
    """Fit on held-out cells how the network decides, write the checkpoint, return its digest."""
    header = CheckpointHeader(
        name=config.name,
        class_names=data.class_names,
        image_size=config.image_size,
        crop_px=config.crop_px,
        data_digest=data.digest,
        n_training_images=len(data) - len(held_out),
        n_images_seen=trained.n_images_seen,
        training_config={
            **config.as_json(),
            # Where it lay on this machine is nobody's business.
            "init_from": config.init_from and Path(config.init_from).name,
        },
        background=tuple(trained.background.tolist()),
        classifier=fit_classifier(
            trained.network, held_out, trained.background, config.augmentation, config.fitting
        ),
    )
    return save_checkpoint(out, trained.network, header)
