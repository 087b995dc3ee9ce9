"""The outcomes of a study: one quantity each, for other readers and other pictures.

Every outcome comes from a table of readers × pictures, in which readers and pictures are both
samples. The numbers of real and of generated pictures are fixed by design, so they are strata.

`judged` is a response table (see `studies.responses`): first presentations of included readers,
with a column `is_correct`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from studies.detection import crossed_detection
from studies.equivalence import clustered_difference
from studies.estimate import Estimate
from studies.mrmc import MrmcError
from studies.multiplicity import holm
from studies.obuchowski_rockette import (
    obuchowski_rockette,
    obuchowski_rockette_fixed_readers,
)
from studies.proportions import wilson
from studies.protocol import Estimand, Protocol, Secondary
from studies.reader_figures import (
    ReaderFigures,
    auc_jackknife,
    percent_correct_stratified,
    percent_correct_unbiased,
)
from studies.roc import auc, ordinal_ratings
from studies.u_statistics import u_statistics_percent_correct

Floats = NDArray[np.float64]

LABELS: dict[str, str] = {
    "accuracy": "Accuracy",
    "sensitivity": "Sensitivity: generated called generated",
    "specificity": "Specificity: real called real",
    "auc": "Area under the ROC curve, from confidence",
    "d_prime": "d′",
    "criterion": "Criterion",
    "drift": "Change of accuracy, first trial to last",
    "response_time": "Time for wrong answers over time for right ones",
}
NO_CONFIDENCE = "the responses have no confidence, or lack it in some rows"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Accuracy, sensitivity, specificity or the area under the ROC curve, in all its readings."""

    name: Estimand
    label: str
    other_readers: Estimate
    """Random readers and pictures: the headline."""
    these_readers: Estimate
    """Random pictures only; the cautious statement when there are few readers."""
    naive: Estimate
    """As if all judgements were independent: for comparison only."""
    design_effect: float | None
    """Of the headline, or of these readers where there is only one."""
    n_readers: int
    n_cases: int
    n_judgements: int
    n_correct: int

    @property
    def headline(self) -> Estimate:
        """For other readers where there are several, else for the one there is."""
        return self.other_readers if self.n_readers > 1 else self.these_readers


@dataclass(frozen=True, slots=True, kw_only=True)
class Tested:
    """One secondary outcome, tested against what it is when nothing is the matter."""

    name: str
    label: str
    estimate: Estimate
    null: float
    p_value: float | None
    p_adjusted: float | None
    """By Holm's method, over all secondary tests; one without a p value counts as one too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Accuracy over part of the judgements, such as those of one class."""

    name: str
    accuracy: Estimate
    n_correct: int
    n_judgements: int
    n_readers: int
    median_response_time_s: float | None


def is_rated(judged: pd.DataFrame) -> bool:
    """Whether every judgement has a confidence."""
    return "confidence" in judged and bool(judged["confidence"].notna().all())


def rated(judged: pd.DataFrame, protocol: Protocol) -> pd.Series:
    """Answer and confidence as one scale: 1 is the surest "real". Only where `is_rated`."""
    ratings = ordinal_ratings(
        judged["response"] == "generated", judged["confidence"], protocol.confidence_points
    )
    return pd.Series(ratings, index=judged.index, dtype=np.float64)


def table(judged: pd.DataFrame, values: pd.Series) -> Floats:
    """Readers × pictures, NaN where not judged; pictures in the order of their names."""
    wide = judged.assign(value=values.astype(np.float64)).pivot(
        index="participant_id", columns="stimulus_id", values="value"
    )
    return wide.to_numpy(dtype=np.float64)


def truth(judged: pd.DataFrame) -> NDArray[np.bool_]:
    """Whether each picture of `table` is generated."""
    return judged.groupby("stimulus_id")["is_synthetic"].first().to_numpy(dtype=bool)


def outcome(name: Estimand, judged: pd.DataFrame, protocol: Protocol) -> Outcome:
    """One outcome with its intervals; what cannot be estimated says why.

    Accuracy is stratified by kind: each kind counts by its share of the pictures.
    """
    level = protocol.analysis.confidence_level
    rows = judged
    if name in ("sensitivity", "specificity"):
        rows = judged[judged["is_synthetic"] == (name == "sensitivity")]
    missing = (
        NO_CONFIDENCE if name == "auc" and not is_rated(judged) else _missing_kind(name, judged)
    )
    if missing is not None:
        other = these = Estimate.not_estimable(LABELS[name], missing, confidence_level=level)
        naive, design_effect = other, None
    else:
        figures = _figures(name, rows, protocol)
        other, design_effect = for_other_readers(figures, level)
        # Variances are within each kind of picture.
        df = int(rows["stimulus_id"].nunique() - rows["is_synthetic"].nunique())
        these, design_effect_here = for_these_readers(figures, df, level)
        if design_effect is None and judged["participant_id"].nunique() == 1:
            design_effect = design_effect_here
        naive = _naive(name, rows, protocol)
    return Outcome(
        name=name,
        label=LABELS[name],
        other_readers=other,
        these_readers=these,
        naive=naive,
        design_effect=design_effect,
        n_readers=int(rows["participant_id"].nunique()),
        n_cases=int(rows["stimulus_id"].nunique()),
        n_judgements=len(rows),
        n_correct=int(rows["is_correct"].sum()),
    )


def secondary_tests(judged: pd.DataFrame, protocol: Protocol) -> tuple[Tested, ...]:
    """All secondary outcomes that the protocol declares, corrected together."""
    found = [one for name in protocol.analysis.secondary for one in _tested(name, judged, protocol)]
    adjusted = holm([one.p_value for one in found])
    return tuple(replace(one, p_adjusted=p) for one, p in zip(found, adjusted, strict=True))


def parts(judged: pd.DataFrame, by: pd.Series, level: float) -> tuple[Part, ...]:
    """Accuracy within each group of judgements, with the interval for other readers and pictures.

    Args:
        by: the group of each row, on the index of `judged`; rows without one are left out.
    """
    return tuple(_part(str(name), rows, level) for name, rows in judged.groupby(by, sort=True))


# ------------------------------------------------------------------------------ one outcome


def _missing_kind(name: Estimand, judged: pd.DataFrame) -> str | None:
    wanted = {"sensitivity": (True,), "specificity": (False,)}.get(name, (True, False))
    for kind in wanted:
        of_kind = judged["is_synthetic"] == kind
        per_reader = of_kind.groupby(judged["participant_id"]).sum()
        if per_reader.min() < 2:
            word = "generated" if kind else "real"
            return f"{per_reader.idxmin()} has judged fewer than 2 {word} pictures"
    return None


def _figures(name: Estimand, rows: pd.DataFrame, protocol: Protocol) -> ReaderFigures:
    kinds = truth(rows)
    if name == "auc":
        ratings = table(rows, rated(rows, protocol))
        return auc_jackknife(ratings[:, kinds], ratings[:, ~kinds])
    correct = table(rows, rows["is_correct"])
    if name == "accuracy":
        return percent_correct_stratified(correct, kinds)
    return percent_correct_unbiased(correct)


def for_other_readers(figures: ReaderFigures, level: float) -> tuple[Estimate, float | None]:
    """The mean of one modality for other readers and cases, and its design effect."""
    try:
        mean = obuchowski_rockette(figures, confidence_level=level).means[0]
    except MrmcError as error:
        reason = str(error).split(";")[0]
        nothing = Estimate.not_estimable(
            "random readers and cases",
            reason,
            confidence_level=level,
            estimate=float(figures.values.mean()),
        )
        return nothing, None
    return mean.estimate, mean.design_effect


def for_these_readers(
    figures: ReaderFigures, df: int, level: float
) -> tuple[Estimate, float | None]:
    """With a t quantile: the normal one of the textbook analysis is too short for few pictures."""
    mean = obuchowski_rockette_fixed_readers(figures, confidence_level=level).means[0]
    found = mean.estimate
    if found.estimate is None or found.standard_error is None:
        return found, mean.design_effect
    with_t = Estimate.symmetric(
        found.estimate, found.standard_error, df=df, confidence_level=level, method=found.method
    )
    return with_t, mean.design_effect


def _naive(name: Estimand, rows: pd.DataFrame, protocol: Protocol) -> Estimate:
    level = protocol.analysis.confidence_level
    if name == "auc":
        return auc(rated(rows, protocol), rows["is_synthetic"], confidence_level=level)
    return independent(int(rows["is_correct"].sum()), len(rows), level)


def independent(n_correct: int, n_judgements: int, level: float) -> Estimate:
    """Wilson's interval, as if no two judgements shared a reader or a picture."""
    found = wilson(n_correct, n_judgements, confidence_level=level)
    return Estimate(
        estimate=found.estimate,
        ci_low=found.ci_low,
        ci_high=found.ci_high,
        confidence_level=level,
        method="Wilson interval of independent judgements",
    )


# ------------------------------------------------------------------------ secondary outcomes


def _tested(name: Secondary, judged: pd.DataFrame, protocol: Protocol) -> list[Tested]:
    level = protocol.analysis.confidence_level
    match name:
        case "sensitivity" | "specificity" | "auc":
            return [_test(name, outcome(name, judged, protocol).headline, null=0.5)]
        case "d_prime" | "criterion":
            return [_test(name, _detected(name, judged, level))]
        case "drift":
            return [_test(name, _per_reader(judged, name, "trial_number", _change, level))]
        case "response_time":
            return [_test(name, _per_reader(judged, name, "response_time_s", _log_ratio, level))]
        case "class" | "generator":
            return _against_the_rest(name, judged, level)
        case "experience":
            return _between_readers(judged, level)


def _test(name: str, estimate: Estimate, *, null: float = 0.0, label: str = "") -> Tested:
    return Tested(
        name=name,
        label=label or LABELS[name],
        estimate=estimate,
        null=null,
        p_value=clustered_difference(
            estimate.estimate, estimate.standard_error, estimate.df, null=null
        )
        if estimate.is_estimable
        else None,
        p_adjusted=None,
    )


def _detected(name: Secondary, judged: pd.DataFrame, level: float) -> Estimate:
    if (reason := _missing_kind("accuracy", judged)) is not None:
        return Estimate.not_estimable(LABELS[name], reason, confidence_level=level)
    called = table(judged, judged["response"] == "generated")
    found = crossed_detection(called, truth(judged), confidence_level=level)
    return (found.d_prime if name == "d_prime" else found.criterion).mean


def _per_reader(
    judged: pd.DataFrame,
    name: str,
    column: str,
    quantity: Callable[[pd.DataFrame], float | None],
    level: float,
) -> Estimate:
    """Mean over readers of a quantity that each reader's own judgements give."""
    method = f"{LABELS[name]}: mean over readers, t interval"
    if column not in judged or judged[column].isna().any():
        reason = f"the responses have no `{column}`, or lack it in some rows"
        return Estimate.not_estimable(method, reason, confidence_level=level)
    found = [quantity(rows) for _, rows in judged.groupby("participant_id")]
    return mean_over_readers([one for one in found if one is not None], method, level)


def mean_over_readers(values: list[float], method: str, level: float) -> Estimate:
    """Mean of one number a reader, with a t interval for other readers."""
    n, mean = len(values), float(np.mean(values)) if values else None
    spread = float(np.std(values, ddof=1)) if n > 1 else 0.0
    if mean is None or not spread > 1e-12 * max(1.0, abs(mean)):
        reason = f"{n} reader{'s' * (n != 1)} with such a value do not show how readers differ"
        return Estimate.not_estimable(method, reason, confidence_level=level, estimate=mean)
    return Estimate.symmetric(
        mean, spread / n**0.5, df=n - 1, confidence_level=level, method=method
    )


def _change(rows: pd.DataFrame) -> float | None:
    """Least-squares slope of right answers over the session, times its length."""
    at = rows["trial_number"].to_numpy(dtype=np.float64)
    length = at.max() - at.min()
    if length == 0:
        return None
    return float(np.polyfit((at - at.mean()) / length, rows["is_correct"].astype(float), 1)[0])


def _log_ratio(rows: pd.DataFrame) -> float | None:
    """ln of the geometric mean time of wrong answers over that of right ones."""
    times = rows[rows["response_time_s"] > 0]
    logs = np.log(times["response_time_s"])
    wrong, right = logs[~times["is_correct"]], logs[times["is_correct"]]
    return float(wrong.mean() - right.mean()) if len(wrong) and len(right) else None


def _against_the_rest(name: Secondary, judged: pd.DataFrame, level: float) -> list[Tested]:
    """Accuracy on the pictures of each class (or generator) less that on all others.

    The two sets of pictures are independent, the readers are the same: the figures of merit are
    differences, whose covariances over pictures add up.
    """
    column, of = ("class_name", judged) if name == "class" else ("generator", judged)
    if name == "generator" and "generator" in judged:
        of = judged[judged["is_synthetic"]]
    of = of[of[column] != ""] if column in of else of.iloc[:0]
    names = sorted(set(of[column])) if column in of else []
    if len(names) < 2:
        reason = f"the responses name fewer than two in the column `{column}`"
        nothing = Estimate.not_estimable(f"each {name}", reason, confidence_level=level)
        return [_test(name, nothing, label=f"Each {name} against the others")]
    return [
        _test(
            name,
            difference_of_parts(of[of[column] == one], of[of[column] != one], level),
            label=f"Accuracy, {name} {one} less the others",
        )
        for one in (names[:1] if len(names) == 2 else names)
    ]


def difference_of_parts(rows: pd.DataFrame, others: pd.DataFrame, level: float) -> Estimate:
    """Accuracy on some pictures less that on others, by the readers who judged both."""
    method = "difference of accuracies on two sets of pictures, random readers and cases"
    readers = set(rows["participant_id"]) & set(others["participant_id"])
    both = [part[part["participant_id"].isin(readers)] for part in (rows, others)]
    try:
        here, there = (percent_correct_unbiased(table(p, p["is_correct"])) for p in both)
        figures = replace(
            here,
            name="difference of percent correct",
            values=here.values - there.values,
            covariance=here.covariance + there.covariance,
            independent_variance=here.independent_variance + there.independent_variance,
        )
        return obuchowski_rockette(figures, confidence_level=level).means[0].estimate
    except MrmcError as error:
        return Estimate.not_estimable(method, str(error).split(";")[0], confidence_level=level)


def _between_readers(judged: pd.DataFrame, level: float) -> list[Tested]:
    """Accuracy of each group of readers less that of the others: Welch's t over readers."""
    name = "experience"
    known = judged[judged["experience"] != ""] if name in judged else judged.iloc[:0]
    groups = sorted(set(known[name])) if name in known else []
    if len(groups) < 2:
        reason = "the responses name fewer than two in the column `experience`"
        nothing = Estimate.not_estimable("experience", reason, confidence_level=level)
        return [_test(name, nothing, label="Each group of readers against the others")]
    accuracy = known.groupby("participant_id")["is_correct"].mean()
    group = known.groupby("participant_id")[name].first()
    found = [
        (one, _welch(accuracy[group == one], accuracy[group != one], level))
        for one in (groups[:1] if len(groups) == 2 else groups)
    ]
    return [
        _test(name, estimate, label=f"Accuracy, readers “{one}” less the others")
        for one, estimate in found
    ]


def _welch(one: pd.Series, other: pd.Series, level: float) -> Estimate:
    method = "difference of readers' mean accuracies, Welch's t, pictures fixed"
    change = float(one.mean() - other.mean())
    if min(len(one), len(other)) < 2:
        reason = "a group of one reader does not show how readers of it differ"
        return Estimate.not_estimable(method, reason, confidence_level=level, estimate=change)
    squares = [float(side.var(ddof=1)) / len(side) for side in (one, other)]
    if not sum(squares) > 1e-15:
        reason = "readers of both groups do not differ"
        return Estimate.not_estimable(method, reason, confidence_level=level, estimate=change)
    error = sum(squares) ** 0.5
    df = sum(squares) ** 2 / sum(
        square**2 / (len(side) - 1) for square, side in zip(squares, (one, other), strict=True)
    )
    return Estimate.symmetric(change, error, df=df, confidence_level=level, method=method)


# ------------------------------------------------------------------------------------- parts


def _part(name: str, rows: pd.DataFrame, level: float) -> Part:
    try:
        statistics = u_statistics_percent_correct(
            table(rows, rows["is_correct"]), confidence_level=level
        )
        accuracy = statistics.means[0].estimate
    except MrmcError as error:
        accuracy = Estimate.not_estimable(
            "U-statistics for percent correct, random readers and cases",
            str(error).split(";")[0],
            confidence_level=level,
            estimate=float(rows["is_correct"].mean()),
        )
    has_times = "response_time_s" in rows and bool(rows["response_time_s"].notna().any())
    return Part(
        name=name,
        accuracy=accuracy,
        n_correct=int(rows["is_correct"].sum()),
        n_judgements=len(rows),
        n_readers=int(rows["participant_id"].nunique()),
        median_response_time_s=float(rows["response_time_s"].median()) if has_times else None,
    )
