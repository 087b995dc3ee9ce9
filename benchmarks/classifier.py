"""Our classifier beside the published rule: the same network, the same images, one process.

    D=../shared/data/pbc64
    python benchmarks/classifier.py --checkpoint checkpoints/pbc64 --data $D/val --fit $D/train \
      --limit 400 --judge runs/cnn --json benchmarks/results/classifier.json

Rules and what they differ in from their authors' programs: rules.py. The weight polynomial of the
published rule is refitted to the network on cells of `--fit` that training kept aside. The images
go in chunks; on each chunk every opponent decides image after image, as published, and then ours
decide it as one batch (one row shows ours image after image, too). What else the machine does so
meets all alike.

FLOPs of an opponent are counted twice: `as_published`, a whole network pass for each class and
draw, which is also what runs and is timed, and `shared_trunk`, what the same rule would cost with
our trunk computed once for each draw.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

import rules

from diffusion.cell_classifier import CellClassifier
from diffusion.checkpoint import load_checkpoint
from diffusion.latents import latents_from_images
from studies.proportions import wilson
from training.data import DataError, LabelledImages, batches, read_images
from training.evaluate import mean_of_proportions
from training.progress import Tenths, console, tracked

Array = NDArray[np.float64]
N_RESAMPLES = 4000
PUBLISHED = "published rule"
DEFINITIONS = {
    "flops_ratio": "published rule / ours, as_published accounting; above 1 ours is cheaper",
    "flops_ratio_shared_trunk": "the same, the published rule with our shared trunk",
    "wall_time_ratio": "published rule / ours, seconds an image; ours in batches of `chunk`",
    "balanced_accuracy_difference": "ours - published rule",
    "interval": "95 % percentile bootstrap over images, paired, within classes",
    "balanced_accuracy": "mean recall, Wilson intervals joined by MOVER",
    "trunk_passes": "as run: of opponents one for each class and draw; `_shared`: one a draw",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a contender says of one image, and what it took."""

    label: int
    probabilities: Array | None  # (K,)
    n_trunk_passes: int
    n_trunk_passes_shared: int
    n_class_passes: int
    flops: int
    flops_shared: int


Decide = Callable[[Tensor, Tensor, Sequence[str]], list[Answer]]
"""(images, the same prepared for the network, digests) -> answers; (B, C, H, W) twice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    name: str
    family: str
    """What the figure joins by a line."""
    decide: Decide
    one_by_one: bool = True


@dataclass(slots=True, kw_only=True)
class Record:
    """What a contender did on all n images, in their order."""

    contender: Contender
    answers: list[Answer] = field(default_factory=list)
    wall_s: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)

    def column(self, name: str) -> Array:
        return np.array([getattr(answer, name) for answer in self.answers], dtype=np.float64)

    @property
    def labels(self) -> NDArray[np.int64]:
        return np.array([answer.label for answer in self.answers])

    def log_loss(self, labels: NDArray[np.int64]) -> Array | None:
        """-ln p of each image's true class; None where there are no probabilities. (n,)"""
        if any(answer.probabilities is None for answer in self.answers):
            return None
        of_true = [a.probabilities[k] for a, k in zip(self.answers, labels, strict=True)]
        return -np.log(np.maximum(of_true, 1e-300))


# --- contenders


def ours(
    classifier: CellClassifier,
    row: str,
    *,
    max_blocks: int | None = None,
    seed: int = 0,
    one_by_one: bool = False,
) -> Contender:
    """The only place that knows how our classifier is asked and answers."""
    names = classifier.class_names

    def decide(latents: Tensor, prepared: Tensor, digests: Sequence[str]) -> list[Answer]:
        del prepared  # it prepares the images itself, and that is in its time
        verdicts = classifier.classify(latents, digests, row=row, max_blocks=max_blocks, seed=seed)
        return [
            Answer(
                # Also where it abstains: opponents cannot, so all are judged on every image.
                label=names.index(verdict.best_class),
                probabilities=np.array([verdict.probabilities.get(name, 0.0) for name in names]),
                n_trunk_passes=verdict.cost.trunk_passes,
                n_trunk_passes_shared=verdict.cost.trunk_passes,
                n_class_passes=verdict.cost.class_passes,
                flops=verdict.cost.flops,
                flops_shared=verdict.cost.flops,
            )
            for verdict in verdicts
        ]

    budget = "" if max_blocks is None else f", {max_blocks} block" + "s" * (max_blocks > 1)
    alone = ", one image at a time" if one_by_one else ""
    return Contender(name=f"{row}{budget}{alone}", family=row, decide=decide, one_by_one=one_by_one)


def budgets_of(classifier: CellClassifier, row: str, others: Sequence[int]) -> list[int | None]:
    """The row's own budget in blocks (None), and others that differ from it."""
    own = getattr(classifier.settings, f"{row}_blocks")
    return [None, *(blocks for blocks in others if blocks != own)]


def opponent(
    name: str, family: str, classifier: CellClassifier, rule: Callable[..., rules.Outcome]
) -> Contender:
    """A rule of rules.py on our network, over all its classes."""
    class_labels = range(len(classifier.class_names))

    def decide(latents: Tensor, prepared: Tensor, digests: Sequence[str]) -> list[Answer]:
        del latents
        outcomes = [
            rule(classifier.split, image, digest, class_labels)
            for image, digest in zip(prepared, digests, strict=True)
        ]
        return [
            Answer(
                label=outcome.winner,
                probabilities=None,
                n_trunk_passes=outcome.n_class_passes,
                n_trunk_passes_shared=outcome.n_draws,
                n_class_passes=outcome.n_class_passes,
                flops=outcome.flops_as_published(classifier.flops),
                flops_shared=outcome.flops_shared(classifier.flops),
            )
            for outcome in outcomes
        ]

    return Contender(name=name, family=family, decide=decide)


def plain_cnn(folder: Path, class_names: Sequence[str]) -> Contender:
    """The discriminative network of plain_cnn.py, mean over eight views."""
    from plain_cnn import load_judge
    from torch.utils.flop_counter import FlopCounterMode

    judge = load_judge(folder)
    columns = [judge.facts["class_names"].index(name) for name in class_names]
    n_views = 8
    flops: dict[tuple[int, ...], int] = {}

    def decide(latents: Tensor, prepared: Tensor, digests: Sequence[str]) -> list[Answer]:
        del prepared, digests
        shape = tuple(latents.shape[1:])
        if shape not in flops:
            with FlopCounterMode(display=False) as counter:
                judge.probabilities(latents[:1], n_views=n_views)
            flops[shape] = int(counter.get_total_flops())
        probabilities = judge.probabilities(latents, n_views=n_views)[:, columns].double().numpy()
        return [
            Answer(
                label=int(p.argmax()),
                probabilities=p,
                n_trunk_passes=0,
                n_trunk_passes_shared=0,
                n_class_passes=0,
                flops=flops[shape],
                flops_shared=flops[shape],
            )
            for p in probabilities
        ]

    return Contender(name="plain CNN", family="plain CNN", decide=decide, one_by_one=False)


def fitted_spread(
    classifier: CellClassifier,
    cells: LabelledImages,
    *,
    n_levels: int,
    signal_std: float,
    seed: int,
) -> rules.SpreadPolynomial:
    """The published rule's weight polynomial for this network."""
    timesteps = np.linspace(1, rules.N_TIMESTEPS - 1, n_levels).astype(np.int64)
    class_labels = range(len(classifier.class_names))
    errors = []
    for chunk in tracked(list(batches(len(cells), 8)), "Fitting the published weights"):
        prepared = classifier.prepared(latents_from_images(cells.images[chunk]))
        digests = cells.digests[chunk]
        errors.append(
            rules.errors_at(
                classifier.split,
                prepared,
                digests,
                timesteps,
                class_labels,
                signal_std=signal_std,
                seed=seed,
            )
        )
    return rules.fit_spread(np.concatenate(errors), timesteps)


# --- the run


def run(
    contenders: Sequence[Contender],
    classifier: CellClassifier,
    cells: LabelledImages,
    chunk_size: int,
) -> dict[str, Record]:
    """Every contender on every cell, chunk by chunk."""
    records = {c.name: Record(contender=c) for c in contenders}
    chunks = list(batches(len(cells), chunk_size))
    tenths = Tenths("Classifying", len(cells))
    for number, chunk in enumerate(tracked(chunks, "Classifying")):
        latents = latents_from_images(cells.images[chunk])
        prepared, digests = classifier.prepared(latents), cells.digests[chunk]
        if number == 0:  # what a first call loads or allocates is nobody's cost
            for contender in contenders:
                if contender.name != PUBLISHED:
                    contender.decide(latents[:1], prepared[:1], digests[:1])
        singly = [c for c in contenders if c.one_by_one]
        for i in range(len(latents)):
            one = slice(i, i + 1)
            for contender in singly:
                _timed(records[contender.name], latents[one], prepared[one], digests[one])
        for contender in contenders:
            if not contender.one_by_one:
                _timed(records[contender.name], latents, prepared, digests)
        tenths.at(chunk.stop)
    return records


def _timed(record: Record, latents: Tensor, prepared: Tensor, digests: Sequence[str]) -> None:
    wall, cpu = time.perf_counter(), time.process_time()
    answers = record.contender.decide(latents, prepared, digests)
    n = len(answers)
    record.wall_s += [(time.perf_counter() - wall) / n] * n
    record.cpu_s += [(time.process_time() - cpu) / n] * n
    record.answers += answers


# --- what it comes to


def resamples(labels: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """Bootstrap samples of images, each class drawn from itself. (N_RESAMPLES, n)"""
    rng = np.random.default_rng(seed)
    columns = []
    for k in np.unique(labels):
        (members,) = np.nonzero(labels == k)
        columns.append(rng.choice(members, size=(N_RESAMPLES, len(members))))
    return np.concatenate(columns, axis=1)


def mean_of(values: Array, samples: NDArray[np.int64]) -> dict[str, float]:
    """Mean with its interval. (n,)"""
    return _interval(float(values.mean()), values[samples].mean(axis=1), len(values))


def ratio_of(numerator: Array, denominator: Array, samples: NDArray[np.int64]) -> dict[str, float]:
    """Ratio of two means over the same images. (n,), (n,)"""
    resampled = numerator[samples].mean(axis=1) / denominator[samples].mean(axis=1)
    return _interval(float(numerator.mean() / denominator.mean()), resampled, len(numerator))


def difference_of(
    right: NDArray[np.bool_],
    right_of_other: NDArray[np.bool_],
    labels: NDArray[np.int64],
    samples: NDArray[np.int64],
) -> dict[str, float]:
    """Balanced accuracy of the first minus that of the second, on the same images. (n,) each"""
    _, of_image, counts = np.unique(labels, return_inverse=True, return_counts=True)
    shares = 1 / (counts[of_image] * len(counts))
    gains = shares * (right.astype(np.float64) - right_of_other)
    interval = _interval(float(gains.sum()), gains[samples].sum(axis=1), len(labels))
    return interval | {
        "n_only_ours_right": int((right & ~right_of_other).sum()),
        "n_only_published_right": int((~right & right_of_other).sum()),
    }


def _interval(estimate: float, resampled: Array, n: int) -> dict[str, float]:
    low, high = np.quantile(resampled, [0.025, 0.975])
    return {"estimate": estimate, "ci_low": float(low), "ci_high": float(high), "n": n}


def summary(
    record: Record,
    published: Record,
    labels: NDArray[np.int64],
    samples: NDArray[np.int64],
) -> dict[str, Any]:
    """One row of the results."""
    right = record.labels == labels
    recalls = [
        wilson(int(right[labels == k].sum()), int((labels == k).sum())) for k in np.unique(labels)
    ]
    accuracy = mean_of_proportions(recalls)
    log_loss = record.log_loss(labels)
    wall_s, cpu_s = np.array(record.wall_s), np.array(record.cpu_s)
    row: dict[str, Any] = {
        "name": record.contender.name,
        "family": record.contender.family,
        "one_image_at_a_time": record.contender.one_by_one,
        "flops": mean_of(record.column("flops"), samples),
        "flops_shared_trunk": mean_of(record.column("flops_shared"), samples),
        "trunk_passes": mean_of(record.column("n_trunk_passes"), samples),
        "trunk_passes_shared": mean_of(record.column("n_trunk_passes_shared"), samples),
        "class_passes": mean_of(record.column("n_class_passes"), samples),
        "wall_s": mean_of(wall_s, samples),
        "cpu_s": mean_of(cpu_s, samples),
        "balanced_accuracy": {
            "estimate": accuracy.estimate,
            "ci_low": accuracy.ci_low,
            "ci_high": accuracy.ci_high,
            "n": accuracy.n_trials,
        },
        "nll": None if log_loss is None else mean_of(log_loss, samples),
    }
    if record is not published:
        row["against_published"] = {
            "flops_ratio": ratio_of(published.column("flops"), record.column("flops"), samples),
            "flops_ratio_shared_trunk": ratio_of(
                published.column("flops_shared"), record.column("flops_shared"), samples
            ),
            "wall_time_ratio": ratio_of(np.array(published.wall_s), wall_s, samples),
            "cpu_time_ratio": ratio_of(np.array(published.cpu_s), cpu_s, samples),
            "balanced_accuracy_difference": difference_of(
                right, published.labels == labels, labels, samples
            ),
        }
    return row


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as a table for docs/benchmarks.md."""
    lines = [
        "| rule | GFLOP an image | with a shared trunk | class passes | s an image "
        "| balanced accuracy | NLL |",
        "| --- | ---: | ---: | ---: | ---: | --- | ---: |",
    ]
    for row in rows:
        flops, accuracy, log_loss = row["flops"], row["balanced_accuracy"], row["nll"]
        cells = [
            row["name"],
            f"{_giga(flops['estimate'])} ({_giga(flops['ci_low'])}–{_giga(flops['ci_high'])})",
            _giga(row["flops_shared_trunk"]["estimate"]),
            f"{row['class_passes']['estimate']:.3g}",
            f"{row['wall_s']['estimate']:.3g}",
            f"{accuracy['estimate']:.3f} ({accuracy['ci_low']:.3f}–{accuracy['ci_high']:.3f})",
            "–" if log_loss is None else f"{log_loss['estimate']:.3f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _giga(flops: float) -> str:
    return f"{flops / 1e9:.3g}"


def draw_figure(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Balanced accuracy against FLOPs, each family joined by a line."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "cytoverity"  # the same numbers give the same file
    from matplotlib import pyplot as plt

    styles = {
        PUBLISHED: ("published rule", "#d55e00", "s"),
        "staged": ("staged top-k", "#cc79a7", "^"),
        "uniform": ("uniform grid", "#e69f00", "v"),
        "generative": ("ours, generative alone", "#56b4e9", "o"),
        "fused": ("ours, fused", "#0072b2", "o"),
        "head": ("ours, head alone", "#009e73", "D"),
        "plain CNN": ("plain CNN", "#666666", "X"),
    }
    figure, axes = plt.subplots(figsize=(8, 4.2), layout="constrained")
    for family, (label, colour, marker) in styles.items():
        of_family = [r for r in rows if r["family"] == family and "at a time" not in r["name"]]
        if not of_family:
            continue
        of_family.sort(key=lambda r: r["flops"]["estimate"])
        x = np.array([r["flops"]["estimate"] for r in of_family]) / 1e9
        y, low, high = (
            np.array([r["balanced_accuracy"][key] for r in of_family])
            for key in ("estimate", "ci_low", "ci_high")
        )
        axes.errorbar(
            x,
            y,
            yerr=[y - low, high - y],
            label=label,
            color=colour,
            marker=marker,
            markersize=5,
            linewidth=1.2,
            elinewidth=0.8,
            capsize=2,
        )
    axes.set_xscale("log")
    axes.set_xlabel("GFLOP an image")
    axes.set_ylabel("balanced accuracy")
    axes.grid(which="major", alpha=0.3, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(frameon=False, fontsize=8, loc="outside right center")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def balanced(cells: LabelledImages, limit: int, seed: int) -> LabelledImages:
    """At most `limit` cells, an equal share of each class as far as they reach."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(cells))
    turn = np.zeros(len(cells), dtype=np.int64)  # how many of its class come before it
    for k in np.unique(cells.labels):
        members = order[cells.labels[order] == k]
        turn[members] = np.arange(len(members))
    chosen = np.zeros(len(cells), dtype=bool)
    chosen[order[np.argsort(turn[order], kind="stable")][:limit]] = True
    return cells.where(chosen)


def main(
    checkpoint: Annotated[Path, typer.Option(help="Folder of the model.")],
    data: Annotated[Path, typer.Option(help="Cells to classify.")],
    fit: Annotated[Path, typer.Option(help="Training set; its held-out cells fit the weights.")],
    limit: Annotated[int | None, typer.Option(help="At most this many cells, by class.")] = None,
    judge: Annotated[Path | None, typer.Option(help="Folder of a plain CNN.")] = None,
    budgets: Annotated[str, typer.Option(help="Blocks of ours, besides the default.")] = "1,2,4",
    grids: Annotated[str, typer.Option(help="Draws of the uniform grid.")] = "8,21,50",
    stages: Annotated[
        str, typer.Option(help="Of the staged top-k: draws so far and classes kept.")
    ] = ",".join(f"{n}:{kept}" for n, kept in rules.LI_STAGES),
    max_draws: Annotated[int, typer.Option(help="Cap of the published rule.")] = rules.MAX_DRAWS,
    signal_std: Annotated[
        float | None,
        typer.Option(help="Latent spread that the published timesteps are for; the network's own."),
    ] = None,
    fit_cells: int = 160,
    fit_levels: int = 40,
    chunk: Annotated[int, typer.Option(help="Images that ours decide as one batch.")] = 16,
    seed: int = 0,
    bfloat16: Annotated[bool, typer.Option(help="Of every contender alike.")] = True,
    figure: Path | None = Path("docs/images/accuracy_vs_flops.svg"),
    json_file: Annotated[Path | None, typer.Option("--json")] = None,
) -> None:
    """Run, compare, write."""
    model = load_checkpoint(checkpoint)
    header = model.header
    classifier = CellClassifier.from_checkpoint(model, bfloat16=bfloat16)
    # Stable Diffusion's latents have spread 1. With ours in its place a timestep meets the same
    # signal-to-noise ratio; without it most draws of the published rule see nothing but noise.
    if signal_std is None:
        signal_std = float(classifier.network.config.sigma_data)
    cells = read_images(data, header.image_size, crop_px=header.crop_px, limit=limit)
    cells = cells.labelled_for(model.class_names)
    aside = read_images(fit, header.image_size, crop_px=header.crop_px)
    aside = aside.where(aside.held_out(header.training_config["held_out_fraction"]))
    aside = balanced(aside.labelled_for(model.class_names), fit_cells, seed)
    if both := set(aside.digests) & set(cells.digests):
        raise DataError(
            f"{len(both)} cells of {data} would also fit the published weights; name the training "
            "set in --fit and other cells in --data."
        )
    console.print(
        f"{len(cells)} cells (digest {cells.digest[:12]}), checkpoint {model.digest[:12]}, "
        f"{torch.get_num_threads()} threads"
    )
    spread = fitted_spread(classifier, aside, n_levels=fit_levels, signal_std=signal_std, seed=seed)
    common = {"signal_std": signal_std, "seed": seed}

    def published(*arguments: Any) -> rules.Outcome:
        return rules.published_rule(*arguments, spread=spread, max_draws=max_draws, **common)

    def staged(*arguments: Any) -> rules.Outcome:
        return rules.staged_rule(*arguments, stages=li_stages, **common)

    def grid(n_draws: int) -> Callable[..., rules.Outcome]:
        return lambda *arguments: rules.uniform_grid(*arguments, n_draws=n_draws, **common)

    li_stages = [tuple(int(n) for n in stage.split(":")) for stage in stages.split(",")]
    described = ", ".join(f"{n} draws keep {kept}" for n, kept in li_stages)
    blocks = [int(b) for b in budgets.split(",") if b]
    contenders = [
        opponent(PUBLISHED, PUBLISHED, classifier, published),
        opponent(f"staged top-k ({described})", "staged", classifier, staged),
        *(
            opponent(f"uniform grid, {n} draws", "uniform", classifier, grid(n))
            for n in (int(n) for n in grids.split(",") if n)
        ),
        *(
            ours(classifier, row, max_blocks=b, seed=seed)
            for row in ("generative", "fused")
            for b in budgets_of(classifier, row, blocks)
        ),
        ours(classifier, "fused", seed=seed, one_by_one=True),
        ours(classifier, "head", seed=seed),
        *([] if judge is None else [plain_cnn(judge, model.class_names)]),
    ]
    load_before = os.getloadavg()[0]
    records = run(contenders, classifier, cells, chunk)
    samples = resamples(cells.labels, seed)
    rows = [summary(r, records[PUBLISHED], cells.labels, samples) for r in records.values()]
    by_name = {row["name"]: row for row in rows}
    print(markdown(rows))
    headline = {
        name: _headline(by_name[name]["against_published"]) for name in ("fused", "generative")
    }
    for name, values in headline.items():
        for key, value in values.items():
            console.print(
                f"{name}, {key}: {value['estimate']:.4g} "
                f"({value['ci_low']:.4g} to {value['ci_high']:.4g})"
            )
    if figure is not None:
        draw_figure(rows, figure)
    if json_file is None:
        return
    timesteps = np.arange(1, rules.N_TIMESTEPS)
    results = {
        **headline["fused"],
        "generative": headline["generative"],
        "rows": rows,
        "definitions": DEFINITIONS,
        "data": data.stem,
        "data_digest": cells.digest,
        "checkpoint_digest": model.digest,
        "n": len(cells),
        "n_by_class": {
            name: int((cells.labels == k).sum()) for k, name in enumerate(model.class_names)
        },
        "seed": seed,
        "n_threads": torch.get_num_threads(),
        "load_average": {"before": load_before, "after": os.getloadavg()[0]},
        "torch_version": torch.__version__,
        "bfloat16": bfloat16,
        "chunk": chunk,
        "flops_of_parts": {
            "trunk": classifier.flops.trunk,
            "decoder": classifier.flops.decoder,
            "head": classifier.flops.head,
        },
        "published": {
            "max_draws": max_draws,
            "signal_std": signal_std,
            "share_at_cap": float(
                np.mean(records[PUBLISHED].column("n_trunk_passes_shared") >= max_draws)
            ),
            "polynomial": list(spread.coefficients),
            "polynomial_floor": spread.floor,
            "n_timesteps_at_floor": int((spread.unfloored(timesteps) < spread.floor).sum()),
            "fit_digest": aside.digest,
            "n_fit_cells": len(aside),
            "n_fit_levels": fit_levels,
        },
    }
    json_file.parent.mkdir(parents=True, exist_ok=True)
    json_file.write_text(json.dumps(results, indent=2) + "\n")


def _headline(against: dict[str, Any]) -> dict[str, Any]:
    keys = ("flops_ratio", "wall_time_ratio", "balanced_accuracy_difference")
    return {key: against[key] for key in (*keys, "flops_ratio_shared_trunk")}


if __name__ == "__main__":
    typer.run(main)
