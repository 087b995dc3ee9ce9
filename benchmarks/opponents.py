"""Fair opponents of the generative classifier on the same cells.

    D=../shared/data/pbc64
    python benchmarks/opponents.py knn --train $D/train --test $D/val
    python benchmarks/opponents.py cnn --minutes 10 --train $D/train --test $D/val --json cnn.json

`knn` is a floor: ten nearest neighbours on thumbnails. `cnn` is a residual network with the channel
widths of our denoiser's encoder, trained with the same augmentation, class-balanced sampling,
cosine schedule, averaged weights and held-out share; it decides by the mean over the eight
symmetries of the square. `--test` may be given several times.
"""

import json
import math
import sys
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

sys.path.insert(0, str(Path(__file__).parents[1]))

from diffusion.latents import dihedral, latents_from_images
from studies.proportions import wilson
from training.config import pbc64
from training.data import LabelledImages, batches, read_images
from training.evaluate import mean_of_proportions
from training.loss import augmented
from training.progress import console

app = typer.Typer(help=__doc__, pretty_exceptions_enable=False)
TrainSet = Annotated[Path, typer.Option("--train")]
TestSets = Annotated[list[Path], typer.Option("--test")]
JsonFile = Annotated[Path | None, typer.Option("--json")]


@app.command()
def knn(train: TrainSet, test: TestSets, json_file: JsonFile = None, n_neighbours: int = 10):
    """Majority of the ten nearest training cells on 16 x 16 pixels."""
    known = read_images(train, 64)

    def thumbnails(data: LabelledImages) -> Tensor:
        small = [
            np.asarray(Image.fromarray(image).resize((16, 16), Image.Resampling.BOX))
            for image in data.images
        ]
        return torch.from_numpy(np.stack(small)).float().flatten(1)

    features, labels = thumbnails(known), torch.from_numpy(known.labels)

    def decide(data: LabelledImages) -> np.ndarray:
        nearest = torch.cdist(thumbnails(data), features).topk(n_neighbours, largest=False).indices
        votes = F.one_hot(labels[nearest], len(known.class_names)).sum(dim=1)
        return votes.argmax(dim=1).numpy()

    report("nearest neighbours", known, test, decide, json_file, {"n_neighbours": n_neighbours})


class PlainCNN(nn.Module):
    """Residual network: a 4 x 4 patch stem, then two blocks at each of three widths."""

    def __init__(self, n_classes: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.stem = nn.Conv2d(48, widths[0], 3, padding=1)
        blocks: list[nn.Module] = []
        before = widths[0]
        for width in widths:
            blocks.append(Block(before, width, stride=1 if width == widths[0] else 2))
            blocks.append(Block(width, width, stride=1))
            before = width
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Sequential(nn.GroupNorm(16, before), nn.SiLU())
        self.classify = nn.Linear(before, n_classes)

    def forward(self, latents: Tensor) -> Tensor:
        features = self.head(self.blocks(self.stem(F.pixel_unshuffle(latents, 4))))
        return self.classify(features.mean(dim=(2, 3)))


class Block(nn.Module):
    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.GroupNorm(16, n_in), nn.GroupNorm(16, n_out)])
        self.first = nn.Conv2d(n_in, n_out, 3, stride, padding=1)
        self.second = nn.Conv2d(n_out, n_out, 3, padding=1)
        same = n_in == n_out and stride == 1
        self.skip = nn.Identity() if same else nn.Conv2d(n_in, n_out, 1, stride)

    def forward(self, features: Tensor) -> Tensor:
        hidden = self.first(F.silu(self.norms[0](features)))
        return self.skip(features) + self.second(F.silu(self.norms[1](hidden)))


@app.command()
def cnn(
    train: TrainSet,
    test: TestSets,
    minutes: float = 10.0,
    json_file: JsonFile = None,
    seed: int = 0,
):
    """A plain discriminative network."""
    recipe = pbc64()
    known = read_images(train, recipe.image_size, crop_px=recipe.crop_px)
    fit = known.where(~known.held_out(recipe.held_out_fraction))
    by_class = [np.flatnonzero(fit.labels == k) for k in range(len(fit.class_names))]
    torch.manual_seed(seed)
    network = PlainCNN(len(fit.class_names), recipe.widths)
    average = torch.optim.swa_utils.AveragedModel(
        network, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.998)
    )
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=0.05)
    step, elapsed_s = 0, 0.0
    while elapsed_s < 60 * minutes:
        started = time.perf_counter()
        rng = np.random.default_rng([seed, step])
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        labels = rng.integers(len(by_class), size=recipe.batch_size)
        chosen = [int(rng.choice(by_class[k])) for k in labels]
        latents = augmented(
            latents_from_images(fit.images[chosen]), generator, stain_jitter=recipe.stain_jitter
        )
        for group in optimizer.param_groups:
            cosine = 0.5 * (1 + math.cos(math.pi * elapsed_s / (60 * minutes)))
            group["lr"] = 2e-3 * min(1, (step + 1) / 200) * cosine
        with torch.autocast("cpu", torch.bfloat16):
            logits = network(latents)
        loss = F.cross_entropy(logits.float(), torch.from_numpy(labels), label_smoothing=0.05)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        average.update_parameters(network)
        step += 1
        elapsed_s += time.perf_counter() - started
        if step % 250 == 0:
            speed = step * recipe.batch_size / elapsed_s
            console.print(
                f"{step * recipe.batch_size:,} images · loss {loss.item():.3f} · "
                f"{speed:.0f} images/s"
            )
    average.eval()

    @torch.no_grad()
    def decide(data: LabelledImages) -> np.ndarray:
        verdicts = []
        for chunk in batches(len(data), 64):
            latents = latents_from_images(data.images[chunk])
            views = [average(dihedral(latents, turn)).softmax(dim=1) for turn in range(8)]
            verdicts.append(torch.stack(views).mean(dim=0).argmax(dim=1))
        return torch.cat(verdicts).numpy()

    facts = {
        "minutes": minutes,
        "n_images_seen": step * recipe.batch_size,
        "n_threads": torch.get_num_threads(),
        "n_parameters": sum(p.numel() for p in network.parameters()),
        "seed": seed,
    }
    report("plain CNN", known, test, decide, json_file, facts)


def report(name, known, test_sets, decide, json_file, facts) -> None:
    """Print and write balanced accuracy with its interval on each set."""
    results = {"opponent": name, **facts, "train_digest": known.digest, "sets": {}}
    console.print(f"{name}: {facts}", soft_wrap=True)
    for path in test_sets:
        data = read_images(path, 64, crop_px=pbc64().crop_px).labelled_for(known.class_names)
        right = decide(data) == data.labels
        recalls = {
            class_name: wilson(int(right[data.labels == k].sum()), int((data.labels == k).sum()))
            for k, class_name in enumerate(known.class_names)
            if (data.labels == k).any()
        }
        balanced = mean_of_proportions(list(recalls.values()))
        results["sets"][path.stem] = {
            "balanced_accuracy": balanced.estimate,
            "ci_low": balanced.ci_low,
            "ci_high": balanced.ci_high,
            "n": balanced.n_trials,
            "recall": {class_name: value.estimate for class_name, value in recalls.items()},
            "data_digest": data.digest,
        }
        console.print(
            f"{path.stem}: balanced accuracy {balanced.estimate:.3f} "
            f"({balanced.ci_low:.3f}–{balanced.ci_high:.3f}), n = {balanced.n_trials:,}"
        )
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        json_file.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    app()
