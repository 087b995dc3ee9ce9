"""The numbers of the report: protocol + responses → one frozen value, in full precision.

One rule, declared here and printed in the report, decides who is in: a reader is complete who
judged every one of the protocol's `n_trials` stimuli. All results over readers use the complete
ones, because the interval for crossed readers and cases needs a full table; the others are counted
and shown.
"""

import dataclasses
import json
import math
import platform
import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import t as student_t

from studies.crossed import (
    FEWEST_READERS,
    CrossedAccuracy,
    fixed_readers,
    random_readers_and_cases,
)
from studies.detection import Detection, detection
from studies.proportions import Proportion, wilson
from studies.protocol import Protocol
from studies.responses import check_protocol

PACKAGES = ("cytoverity", "numpy", "scipy", "pandas", "pydantic", "matplotlib", "jinja2")
N_BLOCKS = 4


class AnalysisError(ValueError):
    """Responses from which the planned analysis cannot be made, with what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """What one participant did."""

    participant_id: str
    is_complete: bool
    n_trials: int
    n_correct: int
    hits: int
    misses: int
    false_alarms: int
    correct_rejections: int
    accuracy: Proportion
    detection: Detection | None
    """None for a partial reader who has not yet judged both kinds."""
    median_response_time_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Judgements of complete readers that share something, counted as if independent."""

    name: str
    n_correct: int
    accuracy: Proportion
    median_response_time_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ReaderMean:
    """The mean of a quantity over complete readers, with a t interval for other readers."""

    estimate: float
    ci_low: float | None
    ci_high: float | None
    """None for a single reader, or when readers do not differ: then it is not estimable."""
    n_readers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """Everything that the report shows."""

    study_id: str
    title: str
    protocol_hash: str
    data_digest: str
    """SHA-256 of the response file."""
    confidence_level: float
    first_response_at: str
    last_response_at: str

    n_planned_readers: int
    n_planned_trials: int
    n_readers: int
    n_complete_readers: int
    n_cases: int
    n_responses: int
    """All judgements, those of partial readers too."""

    accuracy: CrossedAccuracy | None
    """The headline: readers and cases both random. None with a single complete reader."""
    sensitivity: CrossedAccuracy | None
    """Generated called generated."""
    specificity: CrossedAccuracy | None
    """Real called real."""
    accuracy_fixed_readers: CrossedAccuracy
    """For these readers only; the cautious statement when there are few."""
    accuracy_naive: Proportion
    """Wilson, as if all judgements of complete readers were independent: for comparison only."""
    accuracy_naive_all: Proportion
    """The same over all judgements, partial readers included."""
    cautions: tuple[str, ...]

    d_prime: ReaderMean
    criterion: ReaderMean
    readers: tuple[Reader, ...]
    by_class_real: tuple[Group, ...]
    by_class_generated: tuple[Group, ...]
    by_confidence: tuple[Group, ...]
    by_block: tuple[Group, ...]
    software: dict[str, str]

    def to_json(self) -> str:
        """All results in full precision; what is not estimable or infinite is null."""
        return json.dumps(_plain(self), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def analyse(protocol: Protocol, responses: pd.DataFrame, *, data_digest: str) -> Results:
    """The planned analysis of one study.

    Args:
        responses: as `studies.responses.read_responses` gives them.
        data_digest: SHA-256 of the file they came from, in hex.

    Raises:
        ResponseError: if the responses were given under another protocol.
        AnalysisError: if no reader is complete, or complete readers judged different stimuli.
    """
    check_protocol(responses, protocol)
    level = protocol.analysis.confidence_level
    judged = responses.assign(
        is_correct=(responses["response"] == "generated") == responses["is_synthetic"]
    )
    readers = tuple(
        _reader(str(name), rows, protocol.n_trials, level)
        for name, rows in sorted(judged.groupby("participant_id"), key=_as_counted)
    )
    complete_ids = [reader.participant_id for reader in readers if reader.is_complete]
    if not complete_ids:
        most = max(reader.n_trials for reader in readers)
        raise AnalysisError(
            f"none of the {len(readers)} readers has judged all {protocol.n_trials} stimuli (the "
            f"furthest has judged {most}); wait until at least one is through, better all."
        )
    complete = judged[judged["participant_id"].isin(complete_ids)]
    table = complete.pivot(index="participant_id", columns="stimulus_id", values="is_correct")
    if table.shape[1] != protocol.n_trials:
        raise AnalysisError(
            f"the {len(complete_ids)} complete readers judged {table.shape[1]} different stimuli, "
            f"not the same {protocol.n_trials}; a crossed study shows every reader the same ones, "
            "so do not mix responses of different stimulus sets."
        )
    truth = complete.groupby("stimulus_id")["is_synthetic"].first().loc[table.columns].to_numpy()
    if truth.all() or not truth.any():
        raise AnalysisError(
            f"all stimuli are {'generated' if truth.all() else 'real'}; accuracy of a study of "
            "authenticity needs both kinds, so check the column `is_synthetic`."
        )
    correct = table.to_numpy(dtype=bool)
    n_readers = len(correct)
    is_crossed = n_readers > 1
    detections = [reader.detection for reader in readers if reader.is_complete and reader.detection]
    accuracy = random_readers_and_cases(correct, confidence_level=level) if is_crossed else None
    return Results(
        study_id=protocol.study_id,
        title=protocol.title,
        protocol_hash=protocol.protocol_hash,
        data_digest=data_digest,
        confidence_level=level,
        first_response_at=responses["responded_at"].min().isoformat(timespec="seconds"),
        last_response_at=responses["responded_at"].max().isoformat(timespec="seconds"),
        n_planned_readers=protocol.n_participants,
        n_planned_trials=protocol.n_trials,
        n_readers=len(readers),
        n_complete_readers=n_readers,
        n_cases=correct.shape[1],
        n_responses=len(judged),
        accuracy=accuracy,
        sensitivity=_crossed(correct[:, truth], level),
        specificity=_crossed(correct[:, ~truth], level),
        accuracy_fixed_readers=fixed_readers(correct, confidence_level=level),
        accuracy_naive=_wilson(complete, level),
        accuracy_naive_all=_wilson(judged, level),
        cautions=tuple(_cautions(protocol, len(readers), n_readers, accuracy)),
        d_prime=_mean([one.d_prime for one in detections], level),
        criterion=_mean([one.criterion for one in detections], level),
        readers=readers,
        by_class_real=_groups(complete[~complete["is_synthetic"]], "class_name", level),
        by_class_generated=_groups(complete[complete["is_synthetic"]], "class_name", level),
        by_confidence=_groups(complete, "confidence", level),
        by_block=_blocks(complete, protocol.n_trials, level),
        software=_software(),
    )


def _as_counted(named: tuple[Any, pd.DataFrame]) -> list[tuple[int, str]]:
    # reader-2 before reader-10
    return [(int(part or -1), text) for text, part in re.findall(r"(\D*)(\d*)", str(named[0]))]


def _reader(name: str, rows: pd.DataFrame, n_planned: int, level: float) -> Reader:
    is_synthetic = rows["is_synthetic"].to_numpy()
    is_correct = rows["is_correct"].to_numpy()
    hits = int((is_synthetic & is_correct).sum())
    misses = int((is_synthetic & ~is_correct).sum())
    false_alarms = int((~is_synthetic & ~is_correct).sum())
    correct_rejections = int((~is_synthetic & is_correct).sum())
    has_both = 0 < is_synthetic.sum() < len(rows)
    return Reader(
        participant_id=name,
        is_complete=len(rows) == n_planned,
        n_trials=len(rows),
        n_correct=int(is_correct.sum()),
        hits=hits,
        misses=misses,
        false_alarms=false_alarms,
        correct_rejections=correct_rejections,
        accuracy=_wilson(rows, level),
        detection=detection(hits, misses, false_alarms, correct_rejections, confidence_level=level)
        if has_both
        else None,
        median_response_time_s=float(rows["response_time_s"].median()),
    )


def _crossed(correct: np.ndarray[Any, np.dtype[np.bool_]], level: float) -> CrossedAccuracy | None:
    if min(correct.shape) < 2:
        return None
    return random_readers_and_cases(correct, confidence_level=level)


def _wilson(rows: pd.DataFrame, level: float) -> Proportion:
    return wilson(int(rows["is_correct"].sum()), len(rows), confidence_level=level)


def _groups(rows: pd.DataFrame, column: str, level: float) -> tuple[Group, ...]:
    return tuple(_group(str(name), part, level) for name, part in rows.groupby(column, sort=True))


def _blocks(rows: pd.DataFrame, n_trials: int, level: float) -> tuple[Group, ...]:
    numbers = np.arange(1, n_trials + 1)
    groups = []
    for block in np.array_split(numbers, min(N_BLOCKS, n_trials)):
        part = rows[rows["trial_number"].between(block[0], block[-1])]
        groups.append(_group(f"{block[0]}–{block[-1]}", part, level))
    return tuple(groups)


def _group(name: str, rows: pd.DataFrame, level: float) -> Group:
    return Group(
        name=name,
        n_correct=int(rows["is_correct"].sum()),
        accuracy=_wilson(rows, level),
        median_response_time_s=float(rows["response_time_s"].median()),
    )


def _mean(values: list[float], level: float) -> ReaderMean:
    n_readers, estimate = len(values), float(np.mean(values))
    if len(set(values)) == 1:
        return ReaderMean(estimate=estimate, ci_low=None, ci_high=None, n_readers=n_readers)
    standard_error = float(np.std(values, ddof=1)) / math.sqrt(n_readers)
    half_width = float(student_t.ppf(0.5 + level / 2, n_readers - 1)) * standard_error
    return ReaderMean(
        estimate=estimate,
        ci_low=estimate - half_width,
        ci_high=estimate + half_width,
        n_readers=n_readers,
    )


def _cautions(
    protocol: Protocol, n_readers: int, n_complete: int, accuracy: CrossedAccuracy | None
) -> Iterable[str]:
    if n_complete < n_readers:
        yield (
            f"{n_readers - n_complete} of {n_readers} readers did not judge all "
            f"{protocol.n_trials} stimuli. They are shown below and left out of every result over "
            "readers, because the interval for crossed readers and cases needs complete rows."
        )
    if n_complete < protocol.n_participants:
        yield (
            f"The protocol planned {protocol.n_participants} readers; {n_complete} are complete. "
            "Results seen before the planned number is reached must not decide when to stop."
        )
    if n_complete == 1:
        yield (
            "One complete reader says nothing about other readers: the result is for this reader "
            "only."
        )
    elif n_complete < FEWEST_READERS:
        yield (
            f"With {n_complete} readers (fewer than {FEWEST_READERS}) the interval for other "
            "readers is fragile; rely on the line “these readers only” and do not generalise."
        )
    if accuracy is not None and accuracy.design_effect and accuracy.design_effect < 1:
        yield (
            "The estimated variance is smaller than that of independent judgements. Readers and "
            "pictures seldom do that, small samples of them often: do not take it for precision."
        )
    if accuracy is not None and not accuracy.is_estimable:
        yield (
            "The table shows no variance between readers or cases, so the interval for crossed "
            "readers and cases is not estimable. That is no sign of certainty."
        )


def _software() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed as a package"
    return found


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {
            field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)
        }
        if isinstance(value, CrossedAccuracy):
            fields |= {"n_trials": value.n_trials, "design_effect": value.design_effect}
        return fields
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
