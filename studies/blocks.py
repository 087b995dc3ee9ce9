"""Blocks that do not ask whether a single picture is real: pairs, classes, ratings, a second round.

Their tables are `pairs`, `classifications`, `ratings` and `responses_primed` of an export. Readers
and cases are crossed here too: every interval is for other readers and other cases, and falls back
to these readers where one reader only took part. First showings only; repeats and attention checks
are left out.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import ndtri

from studies.agreement import fleiss_kappa
from studies.estimate import Estimate
from studies.intraclass import intraclass_correlations
from studies.mrmc import MrmcError, against_zero
from studies.obuchowski_rockette import obuchowski_rockette, obuchowski_rockette_fixed_readers
from studies.outcomes import Part, difference_of_parts, for_other_readers, parts, table, truth
from studies.protocol import Protocol
from studies.ratings import CaseBootstrap
from studies.reader_figures import (
    ReaderFigures,
    auc_jackknife,
    jackknife,
    percent_correct_stratified,
    percent_correct_unbiased,
)
from studies.response_table import (
    Check,
    ResponseError,
    is_empty,
    matching,
    numbers,
    read_table,
    refuse,
    texts,
    truths,
)
from studies.responses import read_responses

SEED, N_RESAMPLES = 1, 2000
"""Of the bootstrap of pictures behind coefficients of agreement."""

_OF_ALL: dict[str, tuple[Check, Any]] = {
    "participant_id": (texts, "str"),
    "repeat_number": (numbers(1, whole=True), "int64"),
    "primed": (truths, "bool"),
}
_PICTURE: dict[str, tuple[Check, Any]] = {
    "stimulus_id": (texts, "str"),
    "is_synthetic": (truths, "bool"),
}
COLUMNS: dict[str, dict[str, tuple[Check, Any]]] = {
    "pairs": _OF_ALL
    | {
        "left_stimulus_id": (texts, "str"),
        "right_stimulus_id": (texts, "str"),
        "class_name": (texts, "str"),
        "truth": (matching("left|right"), "str"),
        "response": (matching("left|right"), "str"),
    },
    "classifications": _OF_ALL
    | _PICTURE
    | {
        "truth": (texts, "str"),
        "response": (texts, "str"),
        "confidence": (numbers(1, 10, whole=True), "int64"),
    },
    "ratings": _OF_ALL | _PICTURE | {"response": (numbers(1, 10, whole=True), "float64")},
}
"""The columns that the analysis of each table needs, with their checks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One quantity, and its test where it has a value that means nothing is the matter."""

    label: str
    estimate: Estimate
    null: float | None = None
    p_value: float | None = None
    is_share: bool = True
    """Shown in percent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockResults:
    """What one table says."""

    name: str
    """pairs, classifications, ratings or second round; "primed" is added where readers were."""
    n_readers: int
    n_cases: int
    n_judgements: int
    findings: tuple[Finding, ...]
    groups: tuple[tuple[str, tuple[Part, ...]], ...] = ()
    """Accuracy by class, by confidence …, each with its heading."""
    confusion: tuple[tuple[str, tuple[str, ...], tuple[tuple[int, ...], ...]], ...] = ()
    """For real and generated pictures: heading, classes, and how often each class (row) was given
    which answer (column)."""

    def to_json(self) -> dict[str, Any]:
        """All of it as plain values."""
        return asdict(self)


def read_block(path: Path) -> pd.DataFrame:
    """A table of an export by its name, `pairs.csv` for one, checked cell by cell; first showings.

    Raises:
        ResponseError: for a file with another name, a missing column, or a cell that is wrong.
    """
    name = path.stem
    if name not in COLUMNS:
        raise ResponseError(
            f"{path} is none of {', '.join(COLUMNS)} (.csv or .parquet); give the files as "
            "`python -m webapp export` named them."
        )
    raw, where = read_table(path), f"{path} "
    if missing := [column for column in COLUMNS[name] if column not in raw]:
        raise ResponseError(f"{path} row 1 lacks {', '.join(missing)}; export it again.")
    if raw.empty:
        raise ResponseError(f"{path} holds no judgement yet; export it again after the study.")
    checked = {}
    for column, (check, dtype) in COLUMNS[name].items():
        values = check(raw[column])
        wrong = values.isna() | is_empty(raw[column])
        refuse(where, wrong, column, "found {found!r:.80}; export it again", found=raw[column])
        checked[column] = values.astype(dtype)
    rows = pd.DataFrame(checked)
    rows = rows[rows.pop("repeat_number") == 1]
    if name == "pairs":
        sides = rows[["left_stimulus_id", "right_stimulus_id"]].to_numpy()
        rows["stimulus_id"] = ["+".join(sorted(pair)) for pair in sides]
    if name != "ratings":
        rows["is_correct"] = rows["response"] == rows["truth"]
    keys = ["participant_id", "stimulus_id", "primed"]
    twice = rows.duplicated(keys)
    refuse(
        where,
        twice,
        "stimulus_id",
        "{reader} judged it in an earlier row already; delete one of the two rows",
        reader=rows["participant_id"],
    )
    return rows


def analyse_blocks(protocol: Protocol, folder: Path) -> tuple[BlockResults, ...]:
    """The results of every table of the kind in an export's folder.

    Raises:
        ResponseError: if there is none, or one cannot be used.
    """
    level = protocol.analysis.confidence_level
    found: list[BlockResults] = []
    for name, analyse in (
        ("pairs", analyse_pairs),
        ("classifications", analyse_classifications),
        ("ratings", analyse_ratings),
    ):
        path = folder / f"{name}.csv"
        if not path.is_file():
            continue
        for primed, rows in read_block(path).groupby("primed"):
            found.append(analyse(rows, level, name + (", primed" if primed else "")))
    first, second = folder / "responses.csv", folder / "responses_primed.csv"
    if first.is_file() and second.is_file():
        found.append(analyse_second_round(_rounds(first), _rounds(second), level))
    if not found:
        raise ResponseError(
            f"{folder} holds none of pairs.csv, classifications.csv, ratings.csv and "
            "responses_primed.csv; give the folder that `python -m webapp export` wrote."
        )
    return tuple(found)


def analyse_pairs(rows: pd.DataFrame, level: float, name: str = "pairs") -> BlockResults:
    """How often readers find the real one of two, and the d′ that this takes.

    Source: for two alternatives without a bias, d′ = √2 Φ⁻¹(share right); Macmillan & Creelman
    (2005), chapter 7.
    """
    figures = _figures(partial(percent_correct_unbiased, table(rows, rows["is_correct"])))
    share = _mean(figures, level)
    return _results(
        name,
        rows,
        (
            _tested("Real one found", share, null=0.5),
            Finding(label="d′", estimate=_two_alternatives(share), is_share=False),
        ),
        groups=(
            ("class", parts(rows, rows["class_name"], level)),
            ("side of the real one", parts(rows, rows["truth"], level)),
        ),
    )


def analyse_classifications(
    rows: pd.DataFrame, level: float, name: str = "classifications"
) -> BlockResults:
    """Whether readers name the class, of real and of generated pictures, and how they agree.

    A generated picture's truth is the class that was asked of the model.
    """
    real, generated = rows[~rows["is_synthetic"]], rows[rows["is_synthetic"]]
    findings = []
    for label, of in (("real", real), ("generated", generated)):
        figures = _figures(partial(percent_correct_unbiased, table(of, of["is_correct"])))
        findings.append(Finding(label=f"Class named, {label}", estimate=_mean(figures, level)))
    difference = difference_of_parts(generated, real, level)
    findings.append(_tested("Generated less real", difference, null=0.0))
    classes = sorted(set(rows["truth"]) | set(rows["response"]))
    wide = rows.pivot(index="stimulus_id", columns="participant_id", values="response")
    kinds = truth(rows)
    agreement = fleiss_kappa(
        wide.to_numpy(dtype=object),
        categories=classes,
        confidence_level=level,
        bootstrap=CaseBootstrap(
            rng=np.random.default_rng(SEED), n_resamples=N_RESAMPLES, strata=kinds
        ),
    )
    kappa = agreement.bootstrap or agreement.coefficient
    findings.append(Finding(label="Agreement, Fleiss’ κ", estimate=kappa, is_share=False))
    return _results(
        name,
        rows,
        findings,
        groups=(
            ("class", parts(rows, rows["truth"], level)),
            ("confidence", parts(rows, rows["confidence"], level)),
        ),
        confusion=tuple(
            (label, tuple(classes), _confusion(of, classes))
            for label, of in (("real", real), ("generated", generated))
        ),
    )


def analyse_ratings(rows: pd.DataFrame, level: float, name: str = "ratings") -> BlockResults:
    """Whether generated pictures are rated as good as real ones, and how readers agree."""
    ratings, kinds = table(rows, rows["response"]), truth(rows)
    generated, real = ratings[:, kinds], ratings[:, ~kinds]
    means = [
        Finding(
            label=f"Mean rating, {label}",
            estimate=_mean(_figures(partial(jackknife, _means, of, name="mean")), level),
            is_share=False,
        )
        for label, of in (("real", real), ("generated", generated))
    ]
    less = _figures(
        lambda: jackknife(lambda g, r: _means(g) - _means(r), generated, real, name="difference")
    )
    wins = _figures(partial(auc_jackknife, generated, real))
    icc = intraclass_correlations(ratings.T, confidence_level=level).icc_2_1.coefficient
    return _results(
        name,
        rows,
        (
            *means,
            _tested("Generated less real", _mean(less, level), null=0.0, is_share=False),
            _tested("Generated rated above real (ties half)", _mean(wins, level), null=0.5),
            Finding(label="Agreement, ICC(2, 1)", estimate=icc, is_share=False),
        ),
    )


def analyse_second_round(first: pd.DataFrame, second: pd.DataFrame, level: float) -> BlockResults:
    """Accuracy before and after readers were told something, on the same pictures.

    The pictures are paired, so what makes one easy in both rounds cancels in the difference.
    """
    readers = sorted(set(first["participant_id"]) & set(second["participant_id"]))
    shown = sorted(set(first["stimulus_id"]) & set(second["stimulus_id"]))
    rounds = [
        of[of["participant_id"].isin(readers) & of["stimulus_id"].isin(shown)]
        for of in (second, first)
    ]

    def figures() -> ReaderFigures:
        if not shown:
            raise MrmcError("the two rounds have no picture in common; show the same ones twice")
        tables = np.stack([table(of, of["is_correct"]) for of in rounds])
        return percent_correct_stratified(tables, truth(rounds[1]))

    found = _figures(figures)
    if isinstance(found, Estimate):
        before = after = difference = found
    else:
        after, before, difference = _two_rounds(found, level)
    return _results(
        "second round",
        rounds[0],
        (
            _tested("Accuracy, first round", before, null=0.5),
            _tested("Accuracy, told", after, null=0.5),
            _tested("Told less first round", difference, null=0.0),
        ),
    )


# -------------------------------------------------------------------------------------- parts


def _rounds(path: Path) -> pd.DataFrame:
    rows = read_responses(path)
    if "repeat_number" in rows:
        rows = rows[rows["repeat_number"] == 1]
    if "is_attention" in rows:
        rows = rows[~rows["is_attention"]]
    return rows.assign(is_correct=(rows["response"] == "generated") == rows["is_synthetic"])


def _results(
    name: str, rows: pd.DataFrame, findings: Iterable[Finding], **more: Any
) -> BlockResults:
    return BlockResults(
        name=name,
        n_readers=int(rows["participant_id"].nunique()),
        n_cases=int(rows["stimulus_id"].nunique()),
        n_judgements=len(rows),
        findings=tuple(findings),
        **more,
    )


def _figures(made: Callable[[], ReaderFigures]) -> ReaderFigures | Estimate:
    """The figures, or why there are none."""
    try:
        return made()
    except MrmcError as error:
        return _nothing(error, 0.95)


def _nothing(error: MrmcError, level: float) -> Estimate:
    return Estimate.not_estimable("readers and cases", str(error).split(";")[0], level)


def _mean(figures: ReaderFigures | Estimate, level: float) -> Estimate:
    if isinstance(figures, Estimate):
        return figures
    if figures.values.shape[1] == 1:
        fixed = obuchowski_rockette_fixed_readers(figures, confidence_level=level)
        return fixed.means[0].estimate
    return for_other_readers(figures, level)[0]


def _two_rounds(figures: ReaderFigures, level: float) -> tuple[Estimate, Estimate, Estimate]:
    of_one = figures.values.shape[1] == 1
    analysis = obuchowski_rockette_fixed_readers if of_one else obuchowski_rockette
    found = analysis(figures, confidence_level=level)
    after, before = (mean.estimate for mean in found.means)
    return after, before, found.differences[0].estimate


def _tested(label: str, estimate: Estimate, *, null: float, is_share: bool = True) -> Finding:
    p_value = None
    if estimate.estimate is not None and estimate.is_estimable:
        shifted = Estimate(**(asdict(estimate) | {"estimate": estimate.estimate - null}))
        p_value = against_zero(shifted)[1]
    return Finding(label=label, estimate=estimate, null=null, p_value=p_value, is_share=is_share)


def _two_alternatives(share: Estimate) -> Estimate:
    """d′ of a forced choice between two; the limits are transformed, as it rises with the share."""

    def d_prime(value: float) -> float:
        return sqrt(2) * float(ndtri(value))

    method = "√2 Φ⁻¹ of the share and of its limits"
    ends = (share.estimate, share.ci_low, share.ci_high)
    if any(end is None for end in ends):
        return Estimate.not_estimable(method, share.reason or "", share.confidence_level)
    value, low, high = (float(end) for end in ends if end is not None)
    if low <= 0 or high >= 1:
        reason = "the interval of the share reaches 0 or 100 %, where d′ has no limit"
        known = d_prime(value) if 0 < value < 1 else None
        return Estimate.not_estimable(method, reason, share.confidence_level, known)
    return Estimate(
        estimate=d_prime(value),
        ci_low=d_prime(low),
        ci_high=d_prime(high),
        confidence_level=share.confidence_level,
        method=method,
    )


def _means(ratings: Any) -> Any:
    return np.nanmean(ratings, axis=-1)


def _confusion(rows: pd.DataFrame, classes: Sequence[str]) -> tuple[tuple[int, ...], ...]:
    counts = rows.groupby(["truth", "response"]).size()
    return tuple(tuple(int(counts.get((row, column), 0)) for column in classes) for row in classes)
