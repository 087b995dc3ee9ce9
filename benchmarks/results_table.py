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
BENCHMARKS = ROOT / "benchmarks" / "results"
SETS = {
    "val": "`pbc64/val`, same batch and microscope",
    "shift_batchB_dev": "`shift_batchB_dev`, another acquisition batch",
    "tecom_d1_dev": "`tecom_d1_dev`, other microscope and stain",
    "bccd_dev": "`bccd_dev`, other microscope, stain and scale",
}
DECLARED = {
    "shift_batchB_dev_declared": "`shift_batchB_dev`, seven classes declared",
    "tecom_d1_dev_declared": "`tecom_d1_dev`, five classes declared",
    "bccd_dev_declared": "`bccd_dev`, five classes declared",
}
PAGES = (ROOT / "README.md", ROOT / "docs" / "results.md", ROOT / "docs" / "benchmarks.md")
ROWS = ("head", "generative", "fused")


def with_table(text: str, name: str, table: str) -> str:
    """The page with this table between `<!-- name -->` and the next `<!-- end -->`."""
    pattern = rf"(<!-- {name} -->\n).*?(<!-- end -->)"
    return re.sub(pattern, lambda found: f"{found[1]}{table}\n{found[2]}", text, flags=re.DOTALL)


def load(name: str) -> dict:
    """One JSON file of results."""
    return json.loads((RESULTS / f"{name}.json").read_text())


def words(value: dict | None) -> str:
    """`0.955 (0.942–0.965)`"""
    if value is None:
        return "–"
    return f"{value['estimate']:.3f} ({value['ci_low']:.3f}–{value['ci_high']:.3f})"


def comparison() -> str:
    """Balanced accuracy on every set, our three rows beside the opponents."""
    cnn, knn = load("cnn")["sets"], load("knn")["sets"]
    lines = [
        "| set | n | head | generative | fused | plain CNN | nearest neighbours |",
        "| --- | ---: | --- | --- | --- | --- | --- |",
    ]
    for name, described in {**SETS, **DECLARED}.items():
        rows = load(name)["rows"]
        cells, kind = name.removesuffix("_declared"), "all" if name in SETS else "declared"
        numbers = [rows[row]["balanced_accuracy"] for row in ROWS]
        numbers += [o[cells][kind]["balanced_accuracy"] for o in (cnn, knn)]
        n = rows["fused"]["balanced_accuracy"]["n"]
        lines.append(f"| {described} | {n:,} | {' | '.join(map(words, numbers))} |")
    return "\n".join(lines)


def abstention() -> str:
    """What the rule of confidence and the texture leave, and what the anomaly flag says."""
    columns = {
        "confident": "confident",
        "wrong of those confident": "wrong_confident",
        "foreign texture": "foreign_texture",
        "verdict given": "given",
        "wrong of those given": "wrong_given",
    }
    lines = [
        f"| set | risk vouched for | {' | '.join(columns)} | flagged as anomalous |",
        "| --- | ---: |" + " --- |" * (len(columns) + 1),
    ]
    for name, described in {**SETS, **DECLARED}.items():
        result = load(name)
        rule = result["rows"]["fused"]["abstention"]
        risk = "–" if rule["risk"] is None else f"{rule['risk']:.0%}"
        shares = [rule[key] for key in columns.values()] + [result["flagged_as_anomalous"]]
        lines.append(f"| {described} | {risk} | {' | '.join(map(words, shares))} |")
    return "\n".join(lines)


def calibration() -> str:
    """Calibration and conformal sets on random halves of val."""
    rows = load("val")["rows"]
    lines = ["| on `val` | " + " | ".join(ROWS) + " |", "| --- |" + " --- |" * len(ROWS)]

    def add(title: str, cells: list[str]) -> None:
        lines.append(f"| {title} | {' | '.join(cells)} |")

    each = [rows[row] for row in ROWS]
    for key, title in (
        ("ece", "expected calibration error"),
        ("classwise_ece", "classwise calibration error"),
        ("brier", "Brier score"),
        ("nll", "log-loss, nat"),
    ):
        add(title, [words(row["calibration"][key]) for row in each])
    halves = [row["halves"] for row in each]
    add(
        "calibration error on the testing halves, mean",
        [f"{h['ece']['mean']:.4f}" for h in halves],
    )
    for prefix, kind in (("", "marginal"), ("classwise_", "classwise")):
        add(
            f"coverage of {kind} 90 % sets, mean",
            [f"{h[prefix + 'coverage']['mean']:.3f}" for h in halves],
        )
        by_class = [[c["mean"] for c in h[prefix + "coverage_by_class"]] for h in halves]
        add(
            f"lowest and highest class, {kind}",
            [f"{min(means):.3f}, {max(means):.3f}" for means in by_class],
        )
        add(
            f"classes in a {kind} set, mean",
            [f"{h[prefix + 'set_size']['mean']:.2f}" for h in halves],
        )
    add("GFLOP an image", [f"{row['gflop']:.2f}" for row in each])
    return "\n".join(lines)


def by_class() -> str:
    """Recall of each class on every set by the fused row, and the CNN's on val."""
    results = {name: load(name) for name in SETS}
    lines = [
        "| class | " + " | ".join(f"`{name}`" for name in SETS) + " | CNN, `val` |",
        "| --- |" + " --- |" * (len(SETS) + 1),
    ]
    for class_name in results["val"]["class_names"]:
        row = []
        for result in results.values():
            recall = result["rows"]["fused"]["recall"].get(class_name)
            row.append("–" if recall is None else f"{words(recall)}, n {recall['n']}")
        cnn = load("cnn")["sets"]["val"]["all"]["recall"][class_name]
        lines.append(f"| {class_name} | {' | '.join(row)} | {cnn:.3f} |")
    return "\n".join(lines)


def confusion() -> str:
    """Most probable classes on val by the fused row: rows are true classes."""
    result = load("val")
    names = result["class_names"]
    lines = ["| true \\ verdict | " + " | ".join(names) + " |", "| --- |" + " ---: |" * len(names)]
    matrix = result["rows"]["fused"]["confusion_matrix"]
    for name, row in zip(names, matrix, strict=True):
        lines.append(f"| {name} | " + " | ".join(str(n) for n in row) + " |")
    return "\n".join(lines)


def digests() -> str:
    """What was compared with what."""
    result = load("val")
    rows = [f"checkpoint `{result['checkpoint_digest']}`"]
    rows += [f"{name} `{load(name)['data_digest']}`" for name in SETS]
    rows.append(f"weighting {result['weighting']}, seed {result['seed']}")
    return "\n".join(f"- {row}" for row in rows)


def bench(name: str) -> dict:
    """One JSON file that a benchmark wrote."""
    return json.loads((BENCHMARKS / f"{name}.json").read_text())


def rules() -> str:
    """Every rule on one network and the same cells."""
    results = bench("classifier")
    lines = [
        "| rule | GFLOP | class passes | ms an image | balanced accuracy | log-loss, nat |",
        "| --- | ---: | ---: | ---: | --- | ---: |",
    ]
    for row in results["rows"]:
        loss = "–" if row["nll"] is None else f"{row['nll']['estimate']:.3f}"
        lines.append(
            f"| {row['name']} | {row['flops']['estimate'] / 1e9:.3g} | "
            f"{row['class_passes']['estimate']:.3g} | {1000 * row['wall_s']['estimate']:.3g} | "
            f"{words(row['balanced_accuracy'])} | {loss} |"
        )
    lines.append("")
    lines.append(
        f"n = {results['n']} cells, data `{results['data_digest'][:12]}`, checkpoint "
        f"`{results['checkpoint_digest'][:12]}`, {results['n_threads']} thread(s), seed "
        f"{results['seed']}."
    )
    return "\n".join(lines)


def ratios() -> str:
    """Ours against the published rule, paired."""
    results = bench("classifier")
    lines = [
        "| against the published rule | fused | generative |",
        "| --- | --- | --- |",
    ]
    titles = {
        "flops_ratio": "FLOPs, published / ours",
        "flops_ratio_shared_trunk": "the same, had the published rule our shared trunk",
        "wall_time_ratio": "wall time, published / ours",
        "balanced_accuracy_difference": "balanced accuracy, ours − published",
    }
    for key, title in titles.items():
        digits = 3 if key.endswith("difference") else 1
        cells = []
        for part in (results, results["generative"]):
            value = part.get(key)
            cells.append(
                "–"
                if value is None
                else f"{value['estimate']:.{digits}f} "
                f"({value['ci_low']:.{digits}f} to {value['ci_high']:.{digits}f})"
            )
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(lines)


def foreign() -> str:
    """Anomaly scores on foreign and altered cells."""
    results = bench("anomaly_far")
    scores = ("combined", "head_mahalanobis", "head_max_probability", "zeta", "zeta_corrected")
    lines = [
        "| against `val` | n | " + " | ".join(scores) + " | flagged |",
        "| --- | ---: |" + " --- |" * (len(scores) + 1),
    ]
    for name, of_set in results["sets"].items():
        areas = [words(of_set["scores"][score]["auroc"]) for score in scores]
        flagged = words(of_set["found"])
        lines.append(f"| {name} | {of_set['n']} | {' | '.join(areas)} | {flagged} |")
    return "\n".join(lines)


def explained() -> str:
    """What evidence maps and class swaps are worth."""
    results = bench("explanations")
    swaps, granules = results["counterfactuals"], results["red_granules"]
    rows = {
        "largest error of a map's sum, in nats": f"{results['completeness']['max_error']:.1e}",
        "largest change of a picture by an identity edit": f"{swaps['max_identity_error']:g}",
        "class swap found": words(swaps["found"]),
        **{
            f"class swap valid for: {judge}": words(value)
            for judge, value in swaps["validity"].items()
        },
        **{
            f"of those found, valid for: {judge}": words(value)
            for judge, value in swaps["validity_among_found"].items()
        },
        "pixels changed by more than ten grey values": words(swaps["fraction_changed"]),
        "mean change, grey values": words(swaps["change_in_grey_values"]),
        "error of the way there and back, grey values": words(swaps["cycle_error_in_grey_values"]),
        "correlation with the map of shuffled weights": words(
            results["randomisation"]["shuffled_weights"]
        ),
        "correlation with the map of other noise": words(results["randomisation"]["other_noise"]),
        "deletion beats chance": words(results["removal"]["deletion"]["positive"]),
        "insertion beats chance": words(results["removal"]["insertion"]["positive"]),
        "eosinophils: evidence on red granules over their share of the cell": words(
            granules["evidence_over_area_in_cell"]
        ),
    }
    lines = ["| | estimate (95 % interval) |", "| --- | --- |"]
    return "\n".join(lines + [f"| {name} | {value} |" for name, value in rows.items()])


def statistics() -> str:
    """How long a report and its heaviest part take, and how that grows."""
    results = bench("studies_speed")
    lines = ["| | wall time, s | peak memory, GiB |", "| --- | ---: | ---: |"]
    for key, what in (("large", "accuracy and two areas"), ("report", "a full report")):
        one = results[key]
        size = f"{one['n_readers']} readers × {one['n_cases']:,} cases"
        lines.append(f"| {what}, {size} | {one['wall_s']:.1f} | {one['peak_gib']:.2f} |")
    lines += [
        "",
        "| growth with judgements | slope | slope, last decade |",
        "| --- | ---: | ---: |",
    ]
    for growing, of_method in results["growth"].items():
        for method, one in of_method.items():
            slopes = f"{one['slope']:.2f} | {one['slope_last_decade']:.2f}"
            lines.append(f"| {method}, {growing} | {slopes} |")
    return "\n".join(lines)


TABLES = {
    "statistics": statistics,
    "explanations": explained,
    "rules": rules,
    "ratios": ratios,
    "foreign": foreign,
    "comparison": comparison,
    "abstention": abstention,
    "calibration": calibration,
    "by class": by_class,
    "confusion": confusion,
    "digests": digests,
}


def filled(text: str) -> str:
    """The page with every table between its comments made anew."""
    for name, table in TABLES.items():
        if f"<!-- {name} -->" in text:
            text = with_table(text, name, table())
    return text


def main() -> None:
    """Rewrite the tables in place."""
    for page in PAGES:
        page.write_text(filled(page.read_text()))
        print(f"Filled the tables of {page.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
