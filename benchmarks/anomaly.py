"""Are cells noticed that are like none of the training set? Separation of each score, and alarms.

    D=../shared/data
    python benchmarks/anomaly.py leave-out --data $D/pbc64/train --test $D/pbc64/val
    python benchmarks/anomaly.py far --checkpoint checkpoints/pbc64 --data $D

`leave-out` trains a network without each class in turn, fits its classifier, and shows it test
cells of the seven classes it knows (normal) and of the one it does not (anomalous). `far` shows a
whole checkpoint red cells, spoilt and mixed cells, and other microscopes.

Scores; higher is more anomalous:

    combined              the checkpoint's own: Fisher's sum of its parts
    high_noise ... doubt  its parts, as diffusion/anomaly.py describes them
    profile               a part that does not count by default
    max_probability       how unsure the fused verdict is
    head_max_probability  how unsure the head alone is
    head_mahalanobis      opponent: distance of the head's features to the nearest class, what one
                          would do without any denoising (Lee et al., 2018). The head shares its
                          trunk with the denoiser; a network trained for this alone would cost one
                          more training a class
    zeta, zeta_corrected  CytoDiffusion's certainty as published and without its off-by-one, from
                          errors of all classes with our draws and weights, which estimate them
                          better at this budget than uniform timesteps; on fewer cells (its n says)

All cells are white-balanced first, as the classifier does it. A stain shift or another microscope
is thus partly undone before anything is measured; what is scored is what the balance left.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from math import exp, log, sqrt
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy.special import ndtri
from scipy.stats import rankdata

sys.path.insert(0, str(Path(__file__).parents[1]))

from diffusion.anomaly import Measurements, assess
from diffusion.cell_classifier import CellClassifier
from diffusion.checkpoint import HEADER_FILE, Checkpoint, load_checkpoint
from diffusion.draws import log_density
from diffusion.latents import image_digest, latents_from_images
from diffusion.probability import log_odds
from diffusion.zeta import normalised_class_errors, zeta, zeta_corrected
from studies.proportions import Proportion, wilson
from training.config import RECIPES, TrainingConfig
from training.corruptions import blends, blurred, chimeras, partners, stain_shifted
from training.data import DataError, LabelledImages, batches, class_counts, read_images
from training.detection import Separation, auroc, fpr_at_tpr
from training.evaluate import mean_of_proportions
from training.finish import finish
from training.fitting import MIN_REFERENCE_PER_CLASS, FittingPlan
from training.loop import train
from training.progress import Tenths, console, progress_bar

Array = NDArray[np.float64]

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

SMALL_FIT = FittingPlan(per_class=12, calibrated_per_class=30, generative_blocks=2)
"""Leaves budget for the training: probabilities of the left-out networks are a by-product."""
WARMUP_IMAGES = 3_200
TPR = 0.95
IMAGES_AT_ONCE = 32
wide = Console(width=120, highlight=False)
"""Tables are not folded to eighty columns where nobody watches."""


# --- what is measured of cells


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """Scores of some cells; not a number where a score was not measured."""

    digests: tuple[str, ...]
    labels: tuple[int, ...]
    """-1 where the cell has no class of the model."""
    scores: dict[str, Array]
    """(n,) each."""
    is_flagged: NDArray[np.bool_]
    """By the checkpoint's rule, at its rate of false alarms."""
    is_right: NDArray[np.bool_]
    """Whether the fused verdict names the cell's class."""

    def __len__(self) -> int:
        return len(self.digests)

    def where(self, chosen: NDArray[np.bool_]) -> "Scored":
        kept = np.flatnonzero(chosen)
        return Scored(
            digests=tuple(self.digests[i] for i in kept),
            labels=tuple(self.labels[i] for i in kept),
            scores={name: values[chosen] for name, values in self.scores.items()},
            is_flagged=self.is_flagged[chosen],
            is_right=self.is_right[chosen],
        )

    def as_json(self) -> dict[str, Any]:
        return {
            "digests": list(self.digests),
            "labels": list(self.labels),
            "scores": {
                name: [None if np.isnan(v) else v for v in values.tolist()]
                for name, values in self.scores.items()
            },
            "is_flagged": self.is_flagged.tolist(),
            "is_right": self.is_right.tolist(),
        }

    @staticmethod
    def from_json(value: dict[str, Any]) -> "Scored":
        return Scored(
            digests=tuple(value["digests"]),
            labels=tuple(value["labels"]),
            scores={k: np.array(v, dtype=np.float64) for k, v in value["scores"].items()},
            is_flagged=np.array(value["is_flagged"], dtype=bool),
            is_right=np.array(value["is_right"], dtype=bool),
        )


def scored(
    model: Checkpoint,
    images: NDArray[np.uint8],
    labels: Sequence[int],
    has_zeta: NDArray[np.bool_],
    *,
    zeta_draws: int,
    description: str,
    seed: int = 0,
) -> Scored:
    """Every score of some cells.

    Args:
        model: its settings hold the reference cells.
        images: as they come from the file, not white-balanced. uint8 (n, H, W, 3)
        labels: classes of the model, -1 for a cell of none. (n,)
        has_zeta: cells for which `zeta` is paid for too. (n,)
        zeta_draws: noise draws of each class for it, in whole blocks of the settings' plan.
        description: of the progress.
        seed: of the noise.
    """
    classifier = CellClassifier.from_checkpoint(model)
    reference = classifier.settings.anomaly
    if reference is None:
        raise DataError(
            f"{model.folder} has no reference cells to find anomalies with; fit its classifier on "
            f"at least {MIN_REFERENCE_PER_CLASS} held-out cells of each class."
        )
    posterior = classifier.settings.rows["fused"].posterior
    digests = tuple(image_digest(image) for image in images)
    parts: list[Measurements] = []
    log_p, log_p_head, zetas = [], [], []
    tenths = Tenths(description, len(images))
    with progress_bar() as bar:
        task = bar.add_task(description, total=len(images))
        for chunk in batches(len(images), IMAGES_AT_ONCE):
            latents = latents_from_images(images[chunk]).to(model.device)
            prepared = classifier.prepared(latents)
            looked = classifier.look(prepared, digests[chunk], row="fused", seed=seed)
            assert looked.head is not None
            log_p.append(posterior.log_probabilities(looked.evidence))
            log_p_head.append(looked.head)
            parts.append(
                classifier.measurements(prepared, digests[chunk], looked, log_p[-1], seed=seed)
            )
            of_chunk = np.full((2, len(prepared)), np.nan)
            chosen = np.flatnonzero(has_zeta[chunk])
            if len(chosen):
                errors = class_errors(
                    classifier,
                    prepared[torch.from_numpy(chosen)],
                    [digests[chunk][i] for i in chosen],
                    zeta_draws,
                    seed,
                )
                of_chunk[:, chosen] = -zeta(errors), -zeta_corrected(errors)
            zetas.append(of_chunk)
            bar.update(task, completed=chunk.stop)
            tenths.at(chunk.stop)
    cells = Measurements.joined(parts)
    fused, head = np.concatenate(log_p), np.concatenate(log_p_head)
    assessments = assess(reference, cells)
    every_part = reference.fitted.scores(cells)
    published, corrected = np.concatenate(zetas, axis=1)
    rate = classifier.settings.false_alarm_rate
    return Scored(
        digests=digests,
        labels=tuple(labels),
        scores={
            "combined": np.array([a.score for a in assessments]),
            **dict(zip(reference.part_names, reference.surprises_of(cells).T, strict=True)),
            "profile": every_part["profile"],
            # Log-odds rank as probabilities do, also where these round to 1.
            "max_probability": -log_odds(fused).max(axis=1),
            "head_max_probability": -log_odds(head).max(axis=1),
            "head_mahalanobis": every_part["features"],
            "zeta": published,
            "zeta_corrected": corrected,
        },
        is_flagged=np.array([a.is_anomalous(rate) for a in assessments]),
        is_right=fused.argmax(axis=1) == np.array(labels),
    )


def class_errors(
    classifier: CellClassifier,
    prepared: torch.Tensor,
    digests: Sequence[str],
    n_draws: int,
    seed: int,
) -> Array:
    """Weighted errors of all classes, none eliminated, compared as `zeta` takes them. (B, K)"""
    plan, weighting = classifier.settings.draw_plan, classifier.settings.weighting_function
    n_blocks = max(1, n_draws // plan.n_draws_in_block)
    looked = classifier.look(
        prepared, digests, row="generative", alpha=0.0, max_blocks=n_blocks, seed=seed
    )
    assert looked.races is not None
    errors = torch.stack([race.errors for race in looked.races])
    log_snr = torch.stack([race.log_snr for race in looked.races])
    weights = weighting(log_snr) / log_density(plan, log_snr).exp()
    return normalised_class_errors((weights[..., None] * errors).numpy())


# --- what it comes to


def separations(normal: Scored, anomalous: Scored, seed: int) -> dict[str, dict[str, Any]]:
    """AUROC and false positives at 95 % true positives of every score that both kinds have."""
    found: dict[str, dict[str, Any]] = {}
    for name, values in normal.scores.items():
        low, high = (v[~np.isnan(v)] for v in (values, anomalous.scores[name]))
        if len(low) < 2 or len(high) < 2:
            continue
        found[name] = {
            "auroc": _separation_json(auroc(low, high)),
            "fpr_at_95_tpr": _separation_json(
                fpr_at_tpr(low, high, TPR, rng=np.random.default_rng(seed))
            ),
        }
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One score in one network's trial: each cell's score, and whether it is anomalous there."""

    digests: tuple[str, ...]
    scores: Array
    is_anomalous: NDArray[np.bool_]


def mean_auroc(trials: Sequence[Trial]) -> dict[str, float]:
    """Mean of the trials' areas with a 95 % interval that knows which cells they share.

    DeLong's variance of one area is a sum of squares over the cells. A cell that several networks
    saw first gathers what it does to all their areas (in one it is the anomaly, in the others
    normal), and is squared then. The interval is taken on the logit scale. Where nothing overlaps
    in any trial there is no variance to combine, and the trials' own intervals are (MOVER).
    """
    influence: dict[str, float] = {}
    areas = []
    for trial in trials:
        low, high = trial.scores[~trial.is_anomalous], trial.scores[trial.is_anomalous]
        n, m = len(low), len(high)
        ranks = rankdata(np.concatenate([low, high]))
        of_normal = 1 - (ranks[:n] - rankdata(low)) / m
        of_anomalous = (ranks[n:] - rankdata(high)) / n
        area = float(of_anomalous.mean())
        areas.append(area)
        of_cell = np.empty(n + m)
        of_cell[~trial.is_anomalous] = (of_normal - area) / sqrt(n * (n - 1))
        of_cell[trial.is_anomalous] = (of_anomalous - area) / sqrt(m * (m - 1))
        for digest, value in zip(trial.digests, of_cell.tolist(), strict=True):
            influence[digest] = influence.get(digest, 0.0) + value / len(trials)
    mean = float(np.mean(areas))
    variance = sum(value**2 for value in influence.values())
    if variance > 0 and 0 < mean < 1:
        logit = log(mean / (1 - mean))
        half = float(ndtri(0.975)) * sqrt(variance) / (mean * (1 - mean))
        ends = [1 / (1 + exp(-(logit + side * half))) for side in (-1, 1)]
    else:
        each = [auroc(t.scores[~t.is_anomalous], t.scores[t.is_anomalous]) for t in trials]
        joined = mean_of_proportions(
            [
                Proportion(
                    estimate=one.estimate,
                    ci_low=one.ci_low,
                    ci_high=one.ci_high,
                    n_trials=one.n_normal + one.n_anomalous,
                )
                for one in each
            ]
        )
        ends = [joined.ci_low, joined.ci_high]
    return {"estimate": mean, "ci_low": ends[0], "ci_high": ends[1], "n": len(influence)}


def _separation_json(value: Separation) -> dict[str, float]:
    return asdict(value) | {"n": value.n_normal + value.n_anomalous}


def _share(claims: NDArray[np.bool_]) -> Proportion:
    return wilson(int(claims.sum()), len(claims))


def _share_json(value: Proportion) -> dict[str, float]:
    return {
        "estimate": value.estimate,
        "ci_low": value.ci_low,
        "ci_high": value.ci_high,
        "n": value.n_trials,
    }


def _words(value: dict[str, float], digits: int = 3) -> str:
    numbers = [f"{value[key]:.{digits}f}" for key in ("estimate", "ci_low", "ci_high")]
    return f"{numbers[0]} ({numbers[1]}–{numbers[2]})"


def _write(results: dict[str, Any], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=2) + "\n")
    console.print(f"Results in {path}")


# --- each class left out in turn


def without(data: LabelledImages, dropped: Sequence[str]) -> LabelledImages:
    """The other classes' cells, with names and labels closed up."""
    names = tuple(name for name in data.class_names if name not in dropped)
    labels = [data.class_names.index(name) for name in names]
    return data.where(np.isin(data.labels, labels)).labelled_for(names)


def half_of(names: Sequence[str], name: str) -> tuple[str, ...]:
    """The half of the classes that a class belongs to; a base network sees nothing of it."""
    first, second = tuple(names[: len(names) // 2]), tuple(names[len(names) // 2 :])
    return first if name in first else second


def left_out_recipe(
    recipe: str, dropped: Sequence[str], minutes: float, init_from: Path | None = None
) -> TrainingConfig:
    base = RECIPES[recipe]()
    return replace(
        base,
        name=f"{recipe} without {', '.join(dropped)}",
        minutes=minutes,
        init_from=None if init_from is None else str(init_from),
        warmup_images=min(base.warmup_images, WARMUP_IMAGES),
        fitting=SMALL_FIT if recipe == "pbc64" else base.fitting,
        # These are never asked to draw, and have minutes to learn to tell seven classes apart.
        told_trunk_fraction=0.0,
        head_weight=0.3,
        noised_head_weight=0.1,
        contrast_weight=0.1,
    )


def trained_without(config: TrainingConfig, data: LabelledImages, folder: Path) -> Checkpoint:
    """A checkpoint of these cells; one that is there already with the same recipe is taken."""
    if (folder / HEADER_FILE).is_file():
        model = load_checkpoint(folder)
        same_recipe = json.loads(json.dumps(config.as_json())) == model.header.training_config
        if same_recipe and model.header.data_digest == data.digest:
            console.print(f"{folder} is trained already.")
            return model
    held_out = data.held_out(config.held_out_fraction)
    counts = class_counts(data.where(held_out))
    scarce = [k for k in data.class_names if counts.get(k, 0) < MIN_REFERENCE_PER_CLASS]
    if scarce:
        raise DataError(
            f"Fewer than {MIN_REFERENCE_PER_CLASS} cells of {', '.join(scarce)} are kept aside as "
            "reference; give more training cells of these classes."
        )
    trained = train(config, data.where(~held_out), folder / "run")
    finish(config, data, data.where(held_out), trained, folder)
    return load_checkpoint(folder)


def first_of_each(labels: NDArray[np.int64], n: int) -> NDArray[np.bool_]:
    """The first n cells of each class. (n_cells,)"""
    chosen = np.zeros(len(labels), dtype=bool)
    for k in np.unique(labels):
        chosen[np.flatnonzero(labels == k)[:n]] = True
    return chosen


@app.command()
def leave_out(
    data: Annotated[Path, typer.Option(help="Training cells.")],
    test: Annotated[Path, typer.Option(help="Cells to judge; none of the training set.")],
    runs: Annotated[Path, typer.Option(help="A folder in it for each class.")] = Path(
        "runs/left_out"
    ),
    only: Annotated[str, typer.Option(help="Comma-separated classes; all by default.")] = "",
    minutes: Annotated[float, typer.Option(help="Of training, for each class.")] = 4.0,
    base_minutes: Annotated[
        float, typer.Option(help="Of training each of the two base networks; 0 for none.")
    ] = 10.0,
    per_class: Annotated[int, typer.Option(help="Test cells of each class.")] = 60,
    zeta_per_class: Annotated[int, typer.Option(help="Of these, with zeta.")] = 30,
    zeta_draws: Annotated[int, typer.Option(help="Noise draws of each class for zeta.")] = 16,
    recipe: str = "pbc64",
    seed: int = 0,
    json_file: Annotated[Path, typer.Option("--json")] = Path(
        "benchmarks/results/anomaly_left_out.json"
    ),
) -> None:
    """Train without each class and look for it; killed, the same line resumes.

    To save time two base networks are trained first, each on one half of the classes. A class's
    network starts from the base that saw nothing of its half, so it never sees a cell of the class.

    Two processes may share the classes by --only: results of all classes measured alike so far are
    joined in the JSON.
    """
    base = RECIPES[recipe]()
    known = read_images(data, base.image_size, crop_px=base.crop_px)
    names = known.class_names
    chosen = [name.strip() for name in only.split(",")] if only else list(names)
    if unknown := sorted(set(chosen) - set(names)):
        raise DataError(f"There is no class {', '.join(unknown)}; choose of {', '.join(names)}.")
    cells = read_images(
        test, base.image_size, crop_px=base.crop_px, limit=per_class * len(names)
    ).labelled_for(names)
    if both := set(cells.digests) & set(known.digests):
        raise DataError(f"{len(both)} cells of {test} are in the training set; name other cells.")
    settings = {
        "recipe": recipe,
        "minutes": minutes,
        "base_minutes": base_minutes,
        "zeta_draws": zeta_draws,
        "zeta_per_class": zeta_per_class,
        "seed": seed,
        "train_digest": known.digest,
        "data_digest": cells.digest,
    }
    for name in chosen:
        console.print(f"[bold]Without {name}[/bold]")
        folder = runs / name
        rest = without(known, [name])
        base_folder = None
        if base_minutes:
            unseen = half_of(names, name)
            base_folder = runs / f"base_without_{unseen[0]}_to_{unseen[-1]}"
            trained_without(
                left_out_recipe(recipe, unseen, base_minutes), without(known, unseen), base_folder
            )
        model = trained_without(left_out_recipe(recipe, [name], minutes, base_folder), rest, folder)
        described = settings | {"checkpoint_digest": model.digest}
        if (measured := _measured(folder, described)) is None:
            own = [
                -1 if names[k] == name else rest.class_names.index(names[k]) for k in cells.labels
            ]
            measured = scored(
                model,
                cells.images,
                own,
                first_of_each(cells.labels, zeta_per_class),
                zeta_draws=zeta_draws,
                description=f"Looking for {name}",
                seed=seed,
            )
            facts = {
                "n_images_seen": model.header.n_images_seen,
                "false_alarm_rate": model.header.classifier.false_alarm_rate,
            }
            text = json.dumps({"settings": described, "facts": facts, "cells": measured.as_json()})
            (folder / "anomaly.json").write_text(text + "\n")
    results = _left_out_results(runs, names, settings)
    _print_left_out(results)
    _write(results, json_file)


def _measured(folder: Path, settings: dict[str, Any]) -> Scored | None:
    """What an earlier start measured in the same way."""
    path = folder / "anomaly.json"
    if not path.is_file():
        return None
    found = json.loads(path.read_text())
    return Scored.from_json(found["cells"]) if found["settings"] == settings else None


def _left_out_results(runs: Path, names: Sequence[str], settings: dict[str, Any]) -> dict[str, Any]:
    classes: dict[str, Any] = {}
    trials: dict[str, list[Trial]] = {}
    false_alarms = []
    digests: set[str] = set()
    for name in names:
        path = runs / name / "anomaly.json"
        if not path.is_file():
            continue
        found = json.loads(path.read_text())
        checkpoint_digest = found["settings"].pop("checkpoint_digest")
        if found["settings"] != settings:
            console.print(f"{path} was measured otherwise and is left out of the summary.")
            continue
        cells = Scored.from_json(found["cells"])
        is_anomalous = np.array(cells.labels) < 0
        normal, anomalous = cells.where(~is_anomalous), cells.where(is_anomalous)
        digests.update(cells.digests)
        false_alarms.append(_share(normal.is_flagged))
        classes[name] = found["facts"] | {
            "checkpoint_digest": checkpoint_digest,
            "scores": separations(normal, anomalous, settings["seed"]),
            "false_alarms": _share_json(false_alarms[-1]),
            "found": _share_json(_share(anomalous.is_flagged)),
            "accuracy_on_normal": _share_json(_share(normal.is_right)),
        }
        for score, values in cells.scores.items():
            is_known = ~np.isnan(values)
            trials.setdefault(score, []).append(
                Trial(
                    digests=tuple(d for d, k in zip(cells.digests, is_known, strict=True) if k),
                    scores=values[is_known],
                    is_anomalous=is_anomalous[is_known],
                )
            )
    lowest = {}
    for score in trials:
        worst = min(classes, key=lambda c: classes[c]["scores"][score]["auroc"]["estimate"])
        lowest[score] = {"class": worst} | classes[worst]["scores"][score]["auroc"]
    return settings | {
        "n": len(digests),
        "n_classes_left_out": len(classes),
        "mean_auroc": {score: mean_auroc(of_score) for score, of_score in trials.items()},
        "lowest_auroc": lowest,
        "mean_false_alarms": _share_json(mean_of_proportions(false_alarms)),
        "classes": classes,
    }


def _print_left_out(results: dict[str, Any]) -> None:
    table = Table(title="combined score, each class left out in turn")
    for heading in ("left out", "AUROC", "FPR at 95 % TPR", "false alarms", "found"):
        table.add_column(heading, justify="left" if heading == "left out" else "right")
    for name, row in results["classes"].items():
        combined = row["scores"]["combined"]
        table.add_row(
            name,
            _words(combined["auroc"]),
            _words(combined["fpr_at_95_tpr"], 2),
            _words(row["false_alarms"]),
            _words(row["found"], 2),
        )
    rates = sorted({row["false_alarm_rate"] for row in results["classes"].values()})
    table.caption = (
        f"stated rate of false alarms {', '.join(map(str, rates))}; "
        f"mean {_words(results['mean_false_alarms'])}"
    )
    wide.print(table)
    table = Table("score", "mean AUROC", "lowest", "class", "cells")
    for score, mean in results["mean_auroc"].items():
        worst = results["lowest_auroc"][score]
        table.add_row(
            score, _words(mean), f"{worst['estimate']:.3f}", worst["class"], f"{mean['n']}"
        )
    wide.print(table)


# --- far from the training set


def far_sets(
    folder: Path, altered: LabelledImages, model: Checkpoint, limit: int, seed: int
) -> dict[str, LabelledImages]:
    """Cells that are anomalous each in another way; from files, and made from test cells."""
    rng = np.random.default_rng(seed)
    others = altered.images[partners(altered.labels, rng)]
    made = {
        "blur": blurred(altered.images, 2.0),
        "stain_shift": stain_shifted(altered.images),
        "chimera": chimeras(altered.images, others, rng),
        "blend": blends(altered.images, others),
    }
    files = {
        "chula_rbc": "anomaly/chula_rbc_dev",
        "batch_b": "pbc64/shift_batchB_dev",
        "tecom": "shift/tecom_d1_dev",
        "bccd": "shift/bccd_dev",
    }
    header = model.header
    read = {
        name: read_images(folder / path, header.image_size, crop_px=header.crop_px, limit=limit)
        for name, path in files.items()
    }
    as_sets = {
        name: LabelledImages(
            images=images,
            labels=altered.labels,
            class_names=altered.class_names,
            digests=tuple(image_digest(image) for image in images),
        )
        for name, images in made.items()
    }
    return {"chula_rbc": read.pop("chula_rbc")} | as_sets | read


@app.command()
def far(
    checkpoint: Annotated[Path, typer.Option()],
    data: Annotated[Path, typer.Option(help="Folder of pbc64/, anomaly/ and shift/.")],
    per_class: Annotated[
        int, typer.Option(help="Normal cells of each class, and as many others to spoil.")
    ] = 30,
    limit: Annotated[int, typer.Option(help="Cells of each anomalous set from a file.")] = 150,
    zeta_cells: Annotated[int, typer.Option(help="Cells of each set with zeta.")] = 80,
    zeta_draws: Annotated[int, typer.Option(help="Noise draws of each class for zeta.")] = 16,
    seed: int = 0,
    json_file: Annotated[Path, typer.Option("--json")] = Path(
        "benchmarks/results/anomaly_far.json"
    ),
) -> None:
    """Normal cells of `pbc64/val` against red cells, spoilt and mixed cells, other microscopes.

    Spoilt and mixed cells are made from other test cells than the normal ones, so that the two
    kinds are independent.
    """
    model = load_checkpoint(checkpoint)
    header = model.header
    n_classes = len(header.class_names)
    cells = read_images(
        data / "pbc64" / "val",
        header.image_size,
        crop_px=header.crop_px,
        limit=2 * per_class * n_classes,
    ).labelled_for(header.class_names)
    is_normal = first_of_each(cells.labels, per_class)
    normal_cells = cells.where(is_normal)

    def look_at(name: str, these: LabelledImages, labels: Sequence[int]) -> Scored:
        # Spread over the set: files are sorted by class.
        order = np.random.default_rng(seed).permutation(len(these))
        has_zeta = np.zeros(len(these), dtype=bool)
        has_zeta[order[:zeta_cells]] = True
        return scored(
            model,
            these.images,
            labels,
            has_zeta,
            zeta_draws=zeta_draws,
            description=name,
            seed=seed,
        )

    normal = look_at("normal", normal_cells, normal_cells.labels.tolist())
    sets = {}
    for name, these in far_sets(data, cells.where(~is_normal), model, limit, seed).items():
        found = look_at(name, these, [-1] * len(these))
        sets[name] = {
            "data_digest": these.digest,
            "n": len(these),
            "scores": separations(normal, found, seed),
            "found": _share_json(_share(found.is_flagged)),
        }
    results = {
        "checkpoint_digest": model.digest,
        "data_digest": normal_cells.digest,
        "n": len(normal),
        "seed": seed,
        "zeta_draws": zeta_draws,
        "false_alarm_rate": header.classifier.false_alarm_rate,
        "false_alarms": _share_json(_share(normal.is_flagged)),
        "accuracy_on_normal": _share_json(_share(normal.is_right)),
        "sets": sets,
    }
    _print_far(results)
    _write(results, json_file)


def _print_far(results: dict[str, Any]) -> None:
    sets = results["sets"]
    table = Table("combined score", "AUROC", "FPR at 95 % TPR", "found", "cells")
    for name, row in sets.items():
        combined = row["scores"]["combined"]
        table.add_row(
            name,
            _words(combined["auroc"]),
            _words(combined["fpr_at_95_tpr"], 2),
            _words(row["found"], 2),
            f"{row['n']}",
        )
    table.caption = (
        f"false alarms {_words(results['false_alarms'])} of {results['n']} normal cells at a "
        f"stated rate of {results['false_alarm_rate']}; all cells are white-balanced first"
    )
    wide.print(table)
    table = Table("AUROC", *sets)
    for score in next(iter(sets.values()))["scores"]:
        of_sets = [row["scores"][score]["auroc"]["estimate"] for row in sets.values()]
        table.add_row(score, *(f"{value:.3f}" for value in of_sets))
    wide.print(table)


if __name__ == "__main__":
    app()
