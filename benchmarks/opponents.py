"""Fair opponents of the classifier on the same cells.

    D=../shared/data
    python benchmarks/plain_cnn.py --train $D/pbc64/train --minutes 22 --out runs/cnn
    python benchmarks/opponents.py cnn --judge runs/cnn --test $D/pbc64/val --json cnn.json
    python benchmarks/opponents.py knn --train $D/pbc64/train --test $D/pbc64/val

`knn` is a floor: ten nearest neighbours on thumbnails. `cnn` is the network of plain_cnn.py, which
decides by the mean over the eight symmetries of the square. `--test` may be given several times;
each set is reported over all classes and over those that occur in it, as a laboratory that declares
its classes would see it.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from PIL import Image
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

from plain_cnn import load_judge

from diffusion.latents import latents_from_images
from studies.proportions import wilson
from training.config import pbc64
from training.data import LabelledImages, batches, read_images
from training.evaluate import mean_of_proportions
from training.progress import console

app = typer.Typer(help=__doc__, pretty_exceptions_enable=False)
TestSets = Annotated[list[Path], typer.Option("--test")]
JsonFile = Annotated[Path | None, typer.Option("--json")]
Scores = Callable[[LabelledImages], np.ndarray]


@app.command()
def knn(
    train: Annotated[Path, typer.Option()],
    test: TestSets,
    json_file: JsonFile = None,
    n_neighbours: int = 10,
) -> None:
    """Majority of the ten nearest training cells on 16 x 16 pixels."""
    known = read_images(train, 64)

    def thumbnails(data: LabelledImages) -> Tensor:
        small = [
            np.asarray(Image.fromarray(image).resize((16, 16), Image.Resampling.BOX))
            for image in data.images
        ]
        return torch.from_numpy(np.stack(small)).float().flatten(1)

    features, labels = thumbnails(known), torch.from_numpy(known.labels)

    def scores(data: LabelledImages) -> np.ndarray:
        nearest = torch.cdist(thumbnails(data), features).topk(n_neighbours, largest=False).indices
        return F.one_hot(labels[nearest], len(known.class_names)).sum(dim=1).numpy()

    facts = {"n_neighbours": n_neighbours, "train_digest": known.digest}
    report("nearest neighbours", known.class_names, test, scores, json_file, facts)


@app.command()
def cnn(
    judge: Annotated[Path, typer.Option(help="Folder that plain_cnn.py wrote.")],
    test: TestSets,
    json_file: JsonFile = None,
) -> None:
    """A plain discriminative network."""
    network = load_judge(judge)

    def scores(data: LabelledImages) -> np.ndarray:
        parts = [
            network.probabilities(latents_from_images(data.images[chunk]))
            for chunk in batches(len(data), 64)
        ]
        return torch.cat(parts).numpy()

    names = tuple(network.facts["class_names"])
    report("plain CNN", names, test, scores, json_file, network.facts)


def report(
    name: str,
    class_names: tuple[str, ...],
    test_sets: list[Path],
    scores: Scores,
    json_file: Path | None,
    facts: dict,
) -> None:
    """Print and write balanced accuracy with its interval on each set."""
    results = {"opponent": name, **facts, "sets": {}}
    console.print(f"{name}: {facts}", soft_wrap=True)
    for path in test_sets:
        data = read_images(path, 64, crop_px=pbc64().crop_px).labelled_for(class_names)
        found = scores(data)
        results["sets"][path.stem] = {
            "all": balanced(found, data, class_names),
            "declared": balanced(
                np.where(np.isin(np.arange(len(class_names)), data.labels), found, -1.0),
                data,
                class_names,
            ),
            "data_digest": data.digest,
        }
        both = results["sets"][path.stem]
        for kind in ("all", "declared"):
            numbers = "{estimate:.3f} ({ci_low:.3f}–{ci_high:.3f}), n = {n}".format(
                **both[kind]["balanced_accuracy"]
            )
            console.print(f"{path.stem}, {kind} classes: balanced accuracy {numbers}")
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        json_file.write_text(json.dumps(results, indent=2) + "\n")


def balanced(scores: np.ndarray, data: LabelledImages, class_names: tuple[str, ...]) -> dict:
    right = scores.argmax(axis=1) == data.labels
    recalls = {
        name: wilson(int(right[data.labels == k].sum()), int((data.labels == k).sum()))
        for k, name in enumerate(class_names)
        if (data.labels == k).any()
    }
    mean = mean_of_proportions(list(recalls.values()))
    return {
        "balanced_accuracy": {
            "estimate": mean.estimate,
            "ci_low": mean.ci_low,
            "ci_high": mean.ci_high,
            "n": mean.n_trials,
        },
        "recall": {name: value.estimate for name, value in recalls.items()},
    }


if __name__ == "__main__":
    app()
