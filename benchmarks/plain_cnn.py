"""A plain discriminative network: the opponent, and the independent judge of what we draw.

    python benchmarks/plain_cnn.py --train ../shared/data/pbc64/train --minutes 20 --out runs/cnn

A residual network with the widths of our denoiser's encoder and none of its weights, trained with
the same augmentation, white balance, class-balanced sampling, cosine schedule, averaged weights and
held-out share. Its minutes are those of its process, so that a busy machine costs it nothing.
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
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

sys.path.insert(0, str(Path(__file__).parents[1]))

from diffusion.latents import dihedral, latents_from_images
from diffusion.white_balance import white_balanced
from training.augmentation import augmented
from training.config import pbc64
from training.data import LabelledImages, batches, read_images
from training.loop import ground_of
from training.progress import console


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

    def features(self, latents: Tensor) -> Tensor:
        """Pooled features. (B, C, H, W) -> (B, F)"""
        features = self.head(self.blocks(self.stem(F.pixel_unshuffle(latents, 4))))
        return features.mean(dim=(2, 3))

    def forward(self, latents: Tensor) -> Tensor:
        return self.classify(self.features(latents))


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


class Judge:
    """A trained network with the ground that its images are balanced to."""

    def __init__(self, network: PlainCNN, ground: Tensor, facts: dict) -> None:
        self.network, self.ground, self.facts = network.eval(), ground, facts

    @torch.no_grad()
    def probabilities(self, latents: Tensor, *, n_views: int = 8) -> Tensor:
        """Mean over the square's symmetries. (B, C, H, W) -> (B, K)"""
        balanced = white_balanced(latents, self.ground)
        views = [self.network(dihedral(balanced, turn)).softmax(dim=1) for turn in range(n_views)]
        return torch.stack(views).mean(dim=0)

    @torch.no_grad()
    def features(self, latents: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, F)"""
        return self.network.features(white_balanced(latents, self.ground))

    def decide(self, data: LabelledImages) -> np.ndarray:
        """The likeliest class of each cell. (n,)"""
        verdicts = [
            self.probabilities(latents_from_images(data.images[chunk])).argmax(dim=1)
            for chunk in batches(len(data), 64)
        ]
        return torch.cat(verdicts).numpy()


def train_judge(known: LabelledImages, minutes: float, seed: int = 0) -> Judge:
    recipe = pbc64()
    fit = known.where(~known.held_out(recipe.held_out_fraction))
    by_class = [np.flatnonzero(fit.labels == k) for k in range(len(fit.class_names))]
    present = [k for k, indices in enumerate(by_class) if len(indices)]
    ground = ground_of(fit.images)
    torch.manual_seed(seed)
    network = PlainCNN(len(fit.class_names), recipe.widths)
    average = torch.optim.swa_utils.AveragedModel(
        network, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.998)
    )
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=0.05)
    step, began, done = 0, time.process_time(), 0.0
    while done < 1:
        rng = np.random.default_rng([seed, step])
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        labels = rng.choice(present, size=recipe.batch_size)
        chosen = [int(rng.choice(by_class[k])) for k in labels]
        latents, _, _ = augmented(
            latents_from_images(fit.images[chosen]), generator, recipe.augmentation, ground
        )
        for group in optimizer.param_groups:
            cosine = 0.5 * (1 + math.cos(math.pi * done))
            group["lr"] = 2e-3 * min(1, (step + 1) / 200) * cosine
        with torch.autocast("cpu", torch.bfloat16):
            logits = network(latents)
        loss = F.cross_entropy(logits.float(), torch.from_numpy(labels), label_smoothing=0.05)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        average.update_parameters(network)
        step += 1
        done = (time.process_time() - began) / (60 * minutes)
        if step % 250 == 0:
            console.print(
                f"{step * recipe.batch_size:,} images · loss {loss.item():.3f} · {done:.0%}"
            )
    facts = {
        "minutes": minutes,
        "n_images_seen": step * recipe.batch_size,
        "n_threads": torch.get_num_threads(),
        "n_parameters": sum(p.numel() for p in network.parameters()),
        "widths": list(recipe.widths),
        "seed": seed,
        "train_digest": known.digest,
        "class_names": list(known.class_names),
    }
    return Judge(average.module, ground, facts)


def save_judge(judge: Judge, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    weights = {**judge.network.state_dict(), "ground": judge.ground}
    save_file({k: v.contiguous() for k, v in weights.items()}, folder / "cnn.safetensors")
    (folder / "cnn.json").write_text(json.dumps(judge.facts, indent=2) + "\n")


def load_judge(folder: Path) -> Judge:
    facts = json.loads((folder / "cnn.json").read_text())
    weights = load_file(folder / "cnn.safetensors")
    network = PlainCNN(len(facts["class_names"]), tuple(facts["widths"]))
    ground = weights.pop("ground")
    network.load_state_dict(weights)
    return Judge(network, ground, facts)


def main(
    train: Annotated[Path, typer.Option()],
    out: Annotated[Path, typer.Option()],
    minutes: float = 20.0,
    seed: int = 0,
) -> None:
    """Train it and write its weights."""
    recipe = pbc64()
    known = read_images(train, recipe.image_size, crop_px=recipe.crop_px)
    save_judge(train_judge(known, minutes, seed), out)


if __name__ == "__main__":
    typer.run(main)
