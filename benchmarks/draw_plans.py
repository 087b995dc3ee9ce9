"""Where on the log-SNR axis a checkpoint tells its classes apart, on the cells it held out.

    python benchmarks/draw_plans.py --checkpoint checkpoints/pbc64 --data ../shared/data/pbc64/train

Chooses nothing by itself. It prints balanced accuracy by level, by weighting and range, and by
five-fold cross-validation what an offset for each class, learned level weights and capped
contributions would add; `--compare` also runs float32 and unturned images. Only cells that training
kept aside are used, so the validation and shift sets stay untouched.
"""

import sys
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from rich.table import Table
from scipy.optimize import minimize

sys.path.insert(0, str(Path(__file__).parents[1]))

from diffusion.checkpoint import Checkpoint, load_checkpoint
from diffusion.classifier import paired_class_errors
from diffusion.draws import DrawPlan, keyed_draws
from diffusion.latents import latents_from_images
from diffusion.network import Denoiser, in_bfloat16
from diffusion.schedule import sigmas_from_log_snr
from training.data import LabelledImages, batches, read_images
from training.progress import console, tracked

LOW, HIGH, N_LEVELS = -2.0, 7.0, 12
RANGES = ((0, 12), (1, 11), (2, 10), (2, 9), (2, 8), (3, 9))
EXPONENTS = {
    "1 (elbo)": 0,
    "e^(-λ/4)": 0.25,
    "e^(-λ/2) (robust)": 0.5,
    "e^(-3λ/4)": 0.75,
    "e^-λ": 1,
}


def main(
    checkpoint: Annotated[Path, typer.Option()],
    data: Annotated[Path, typer.Option()],
    limit: Annotated[int, typer.Option(help="At most this many held-out cells.")] = 500,
    compare: Annotated[bool, typer.Option(help="Also float32 and unturned images.")] = False,
) -> None:
    """Print the tables."""
    model = load_checkpoint(checkpoint)
    header = model.header
    cells = read_images(data, header.image_size, crop_px=header.crop_px)
    cells = cells.where(cells.held_out(header.training_config["held_out_fraction"]))
    evenly = np.isin(np.arange(len(cells)), np.linspace(0, len(cells) - 1, limit).astype(int))
    cells = cells.where(evenly).labelled_for(model.class_names)
    console.print(
        f"{len(cells)} held-out cells (digest {cells.digest[:12]}), checkpoint {model.digest[:12]}"
    )
    fast = in_bfloat16(model.denoise, model.device)
    runs = [pair_errors(model, fast, cells, seed=seed) for seed in (0, 1)]
    errors = np.stack([e for e, _ in runs], axis=1)  # (n, seed, level, K)
    levels = np.stack([at for _, at in runs], axis=1)  # (n, seed, level)
    labels = cells.labels

    single = Table("log-SNR", "seed 0", "seed 1", "both", title="one pair at one level")
    for j in range(N_LEVELS):
        pair = [-errors[:, seeds, j].sum(axis=1) for seeds in ([0], [1], [0, 1])]
        single.add_row(
            f"{levels[:, :, j].mean():.2f}", *(f"{accuracy(p, labels):.3f}" for p in pair)
        )
    console.print(single)

    step = (HIGH - LOW) / N_LEVELS
    headings = [f"{LOW + step * a:.2f} … {LOW + step * b:.2f}" for a, b in RANGES]
    table = Table("weight of a level", *headings, title="seed 0 / seed 1 / both")
    for name, exponent in EXPONENTS.items():
        row = []
        for a, b in RANGES:
            scores = [
                summed(errors, levels, exponent, slice(a, b), seeds) for seeds in ([0], [1], [0, 1])
            ]
            row.append(" / ".join(f"{accuracy(s, labels):.3f}" for s in scores))
        table.add_row(name, *row)
    console.print(table)

    robust = summed(errors, levels, 0.5, slice(1, 11), [0, 1])[:, None, :]
    by_level = np.stack(
        [summed(errors, levels, 0, slice(j, j + 1), [0, 1]) for j in range(N_LEVELS)], axis=1
    )
    by_level /= by_level.std(axis=(0, 2), keepdims=True)
    candidates = {
        "robust, temperature only": (robust / robust.std(), 1e3),
        "robust, an offset for each class": (robust / robust.std(), 1e-2),
        "a weight for each level": (by_level, 1e3),
        "the same with offsets": (by_level, 1e-2),
        "the same, capped at 2 sd": (by_level.clip(-2, 2), 1e-2),
    }
    for name, (features, ridge) in candidates.items():
        folds = cross_validated(features, labels, ridge)
        console.print(f"cross-validated, {name}: {folds:.3f}")

    if compare:
        exact, _ = pair_errors(model, model.denoise, cells, seed=0)
        straight, at = pair_errors(model, fast, cells, seed=0, turned=False)
        used = slice(1, 11)
        first, second = (summed(errors, levels, 0.5, used, [s]).argmax(axis=1) for s in (0, 1))
        in_float32 = summed(exact[:, None], levels[:, :1], 0.5, used, [0]).argmax(axis=1)
        unturned = summed(straight[:, None], at[:, None], 0.5, used, [0])
        console.print(
            f"verdicts changed by float32: {np.sum(in_float32 != first)}, by another seed: "
            f"{np.sum(second != first)}, of {len(cells)}; balanced accuracy of unturned images "
            f"{accuracy(unturned, labels):.3f}"
        )


def pair_errors(
    model: Checkpoint, denoise: Denoiser, cells: LabelledImages, *, seed: int, turned: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Errors of antithetic pairs, and their levels. (n, N_LEVELS, K), (n, N_LEVELS)"""
    plan = DrawPlan(log_snr_min=LOW, log_snr_max=HIGH, n_levels=N_LEVELS, n_blocks=1, turned=turned)
    latents = latents_from_images(cells.images)
    errors, levels = [], []
    for chunk in tracked(list(batches(len(cells), 8)), f"seed {seed}"):
        draws = [
            keyed_draws(plan, tuple(latents.shape[1:]), seed=seed, image_digest=digest)
            for digest in cells.digests[chunk]
        ]
        log_snr = torch.stack([d.log_snr for d in draws])
        found = paired_class_errors(
            denoise,
            latents[chunk],
            sigmas_from_log_snr(log_snr).to(latents),
            torch.stack([d.noise for d in draws]),
            torch.arange(len(model.class_names)),
            turns=torch.stack([d.turns for d in draws]),
        )
        errors.append(found.view(len(draws), N_LEVELS, 2, -1).sum(dim=2))
        levels.append(log_snr[:, ::2])
    return torch.cat(errors).numpy(), torch.cat(levels).numpy()


def summed(
    errors: np.ndarray, levels: np.ndarray, exponent: float, used: slice, seeds: list[int]
) -> np.ndarray:
    """Scores of the classes, centred. (n, K)"""
    weights = np.exp(-exponent * levels[:, seeds, used])
    scores = -(weights[..., None] * errors[:, seeds, used]).sum(axis=(1, 2))
    return scores - scores.mean(axis=1, keepdims=True)


def accuracy(scores: np.ndarray, labels: np.ndarray) -> float:
    """Balanced accuracy of the best-scoring class."""
    right = scores.argmax(axis=1) == labels
    return float(np.mean([right[labels == k].mean() for k in np.unique(labels)]))


def cross_validated(features: np.ndarray, labels: np.ndarray, ridge: float) -> float:
    """Balanced accuracy of softmax(weights · features + offsets), mean of five 5-fold runs.

    Args:
        features: (n, F, K); the weights are not negative.
        labels: (n,)
        ridge: penalty on the offsets; 1000 leaves none.
    """
    rng = np.random.default_rng(0)
    n, _, n_classes = features.shape
    results = []
    for _ in range(5):
        fold, scores = rng.permutation(n) % 5, np.zeros((n, n_classes))
        for k in range(5):
            fit = fold != k
            weights, offsets = _fitted(features[fit], labels[fit], ridge)
            scores[~fit] = np.einsum("nfk,f->nk", features[~fit], weights) + offsets
        results.append(accuracy(scores, labels))
    return float(np.mean(results))


def _fitted(
    features: np.ndarray, labels: np.ndarray, ridge: float
) -> tuple[np.ndarray, np.ndarray]:
    n_features, n_classes = features.shape[1:]
    importance = 1 / np.bincount(labels, minlength=n_classes)[labels]
    importance /= importance.sum()
    one_hot = np.eye(n_classes)[labels]

    def loss(values: np.ndarray) -> tuple[float, np.ndarray]:
        weights, offsets = values[:n_features], values[n_features:]
        logits = np.einsum("nfk,f->nk", features, weights) + offsets
        logits -= logits.max(axis=1, keepdims=True)
        log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        slope = (np.exp(log_p) - one_hot) * importance[:, None]
        value = -(importance * (log_p * one_hot).sum(axis=1)).sum() + ridge * (offsets**2).sum()
        gradient = np.concatenate(
            [np.einsum("nfk,nk->f", features, slope), slope.sum(axis=0) + 2 * ridge * offsets]
        )
        return float(value), gradient

    start = np.concatenate([np.ones(n_features), np.zeros(n_classes)])
    bounds = [(0, None)] * n_features + [(None, None)] * n_classes
    values = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds).x
    return values[:n_features], values[n_features:]


if __name__ == "__main__":
    typer.run(main)
