"""Tables of docs/results.md and README.md, written from the JSON files in docs/results/.

    python benchmarks/results_table.py

Each table stands between two HTML comments; what lies between them is replaced. A test holds the
pages to the files.
"""

import json
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results"
SETS = {
    "val": "`pbc64/val`, same batch and microscope",
    "shift_batchB_dev": "`shift_batchB_dev`, another acquisition batch",
    "tecom_d1_dev": "`tecom_d1_dev`, other microscope and stain",
    "bccd_dev": "`bccd_dev`, other microscope, stain and scale",
}


def load(name: str) -> dict:
    """One JSON file of results."""
    return json.loads((RESULTS / f"{name}.json").read_text())


def with_interval(estimate: float, ci_low: float, ci_high: float) -> str:
    """`0.955 (0.942–0.965)`"""
    return f"{estimate:.3f} ({ci_low:.3f}–{ci_high:.3f})"


def comparison() -> str:
    """Balanced accuracy on every set, ours beside the opponents."""
    cnn, knn = load("cnn")["sets"], load("knn")["sets"]
    lines = [
        "| set | n | diffusion classifier | plain CNN | nearest neighbours |",
        "| --- | ---: | --- | --- | --- |",
    ]
    for name, described in SETS.items():
        ours = load(name)["balanced_accuracy"]
        opponents = [
            with_interval(o["balanced_accuracy"], o["ci_low"], o["ci_high"])
            for o in (cnn[name], knn[name])
        ]
        mine = with_interval(ours["estimate"], ours["ci_low"], ours["ci_high"])
        lines.append(f"| {described} | {ours['n']:,} | {mine} | {' | '.join(opponents)} |")
    return "\n".join(lines)


def by_class() -> str:
    """Recall of each class on every set, and the CNN's on val."""
    results = {name: load(name) for name in SETS}
    lines = [
        "| class | " + " | ".join(f"`{name}`" for name in SETS) + " | CNN, `val` |",
        "| --- |" + " --- |" * (len(SETS) + 1),
    ]
    for class_name in results["val"]["class_names"]:
        row = []
        for result in results.values():
            recall = result["recall"].get(class_name)
            row.append(
                "–"
                if recall is None
                else with_interval(recall["estimate"], recall["ci_low"], recall["ci_high"])
                + f", n {recall['n']}"
            )
        cnn = load("cnn")["sets"]["val"]["recall"][class_name]
        lines.append(f"| {class_name} | {' | '.join(row)} | {cnn:.3f} |")
    return "\n".join(lines)


def confusion() -> str:
    """Verdicts on val: rows are true classes."""
    result = load("val")
    names = result["class_names"]
    lines = ["| true \\ verdict | " + " | ".join(names) + " |", "| --- |" + " ---: |" * len(names)]
    for name, row in zip(names, result["confusion_matrix"], strict=True):
        lines.append(f"| {name} | " + " | ".join(str(n) for n in row) + " |")
    return "\n".join(lines)


def digests() -> str:
    """What was compared with what."""
    result = load("val")
    rows = [f"checkpoint `{result['checkpoint_digest']}`"]
    rows += [f"{name} `{load(name)['data_digest']}`" for name in SETS]
    rows.append(
        f"{result['n_draws']} noise draws for each of {len(result['class_names'])} classes, "
        f"weighting {result['weighting']}, seed {result['seed']}, "
        f"{result['flops_per_image'] / 1e9:.0f} GFLOP an image; log-loss of the calibrated "
        f"probability on val {result['log_loss']:.3f} nat"
    )
    return "\n".join(f"- {row}" for row in rows)


TABLES = {
    "comparison": comparison,
    "by class": by_class,
    "confusion": confusion,
    "digests": digests,
}


def filled(text: str) -> str:
    """The page with every table between its comments made anew."""
    for name, table in TABLES.items():
        pattern = rf"(<!-- {name} -->\n).*?(<!-- end -->)"
        text = re.sub(pattern, lambda m, t=table: m[1] + t() + "\n" + m[2], text, flags=re.DOTALL)
    return text


def main() -> None:
    """Rewrite the tables in place."""
    for page in (ROOT / "docs" / "results.md", ROOT / "README.md"):
        page.write_text(filled(page.read_text()))
        print(f"Filled the tables of {page.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
