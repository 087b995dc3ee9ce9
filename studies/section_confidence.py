"""What readers' confidence adds: ROC curves, d′, metacognition and calibration.

Answer and confidence are one ordinal scale, from the surest "real" to the surest "generated". A
result over readers says for whom its interval is.

K points of the confidence scale, R readers, N pictures.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import sqrt

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import t as student_t

from studies.binormal import Binormal, binormal
from studies.calibration import (
    ExpectedCalibrationError,
    Overconfidence,
    ReliabilityBin,
    expected_calibration_error,
    overconfidence,
    reliability_diagram,
)
from studies.detection import CrossedDetection, crossed_detection
from studies.estimate import Estimate
from studies.forecasts import confidence_points, distinct_bins, forecasts_of_chosen
from studies.metacognition import MetaDPrime, meta_d_prime, type_2_auc
from studies.obuchowski_rockette import obuchowski_rockette, obuchowski_rockette_fixed_readers
from studies.plotting import as_counted, reasons
from studies.proper_scores import BrierScore, brier_score
from studies.protocol import Protocol
from studies.reader_figures import auc_jackknife
from studies.reader_population import reader_population
from studies.roc import auc, ordinal_ratings, rating_counts

Array = NDArray[np.float64]

SEED = 1
"""Of the bootstrap of over-confidence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReaderRatings:
    """One reader's ratings, and what they say about this reader."""

    participant_id: str
    n_trials: int
    noise_counts: tuple[int, ...]
    signal_counts: tuple[int, ...]
    """How often each of the 2K ratings was given to real and to generated pictures. (2K,)"""
    auc: Estimate
    binormal: Binormal
    type_2_auc: Estimate
    meta: MetaDPrime
    brier: BrierScore
    calibration_error: ExpectedCalibrationError
    overconfidence: Overconfidence


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratings:
    """Confidence of all readers."""

    readers: tuple[ReaderRatings, ...]
    points: tuple[float, ...]
    """Probability that each point of the confidence scale is taken for. (K,)"""
    auc: Estimate
    """For other readers and other pictures."""
    auc_design_effect: float | None
    auc_these_readers: Estimate
    """For these readers and other pictures."""
    binormal: Binormal
    """Of all ratings as if of one reader: its curve is shown, its intervals are not."""
    type_2_auc: Estimate
    meta_d_prime: Estimate
    m_ratio: Estimate
    """These three for other readers; the pictures are taken as given."""
    reliability: tuple[ReliabilityBin, ...]
    brier: BrierScore
    calibration_error: ExpectedCalibrationError
    overconfidence: Overconfidence


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfidenceResults:
    """The section."""

    confidence_level: float
    detected: tuple[str, ...]
    """Readers who judged both kinds of picture, in the order of `detection`."""
    not_detected: tuple[str, ...]
    detection: CrossedDetection | None
    """None where nobody did."""
    ratings: Ratings | None
    absent: str | None
    """Why there are no ratings, as a sentence; None where there are."""


def analyse_confidence(
    judged: pd.DataFrame, _repeats: pd.DataFrame, protocol: Protocol
) -> ConfidenceResults:
    """Signal detection, and ratings where the table holds `confidence`."""
    level = protocol.analysis.confidence_level
    rows = judged.assign(
        participant_id=judged["participant_id"].astype(str),
        called_generated=(judged["response"] == "generated").astype(float),
    ).sort_values(["participant_id", "stimulus_id"])
    names = sorted(rows["participant_id"].unique(), key=as_counted)
    kinds = rows.groupby("participant_id")["is_synthetic"].nunique()
    both = [name for name in names if kinds[name] == 2]
    detected = None
    if both:
        called, truth = _crossed(rows, "called_generated", both)
        detected = crossed_detection(called, truth, confidence_level=level)
    has_confidence = "confidence" in rows
    absent = "The response table has no column `confidence`: there are no ratings to analyse."
    return ConfidenceResults(
        confidence_level=level,
        detected=tuple(both),
        not_detected=tuple(name for name in names if name not in both),
        detection=detected,
        ratings=_ratings(rows, names, protocol.confidence_points, level)
        if has_confidence
        else None,
        absent=None if has_confidence else absent,
    )


def _ratings(rows: pd.DataFrame, names: list[str], n_points: int, level: float) -> Ratings:
    called, sure = rows["called_generated"].to_numpy(), rows["confidence"].to_numpy()
    rows = rows.assign(rating=ordinal_ratings(called, sure, n_points).astype(float))
    points, rng = confidence_points(n_points), np.random.default_rng(SEED)
    by_name = dict(iter(rows.groupby("participant_id")))
    readers = tuple(_reader(name, by_name[name], points, level, rng) for name in names)
    noise = np.sum([one.noise_counts for one in readers], axis=0)
    signal = np.sum([one.signal_counts for one in readers], axis=0)
    forecasts = forecasts_of_chosen(sure, rows["is_correct"], points=points)
    p, outcomes = forecasts.probabilities, forecasts.outcomes
    bins = distinct_bins(p)
    # One reader is no sample of readers; then the judgements are the sample.
    clusters = rows["participant_id"] if len(names) > 1 else None
    auc_of_others, design_effect, auc_of_these = _auc_over_readers(rows, names, level)
    return Ratings(
        readers=readers,
        points=tuple(points.tolist()),
        auc=auc_of_others,
        auc_design_effect=design_effect,
        auc_these_readers=auc_of_these,
        binormal=binormal(noise, signal, confidence_level=level),
        type_2_auc=_over_readers([one.type_2_auc for one in readers], "type-2 AUC", level),
        meta_d_prime=_over_readers([one.meta.meta_d_prime for one in readers], "meta-d′", level),
        m_ratio=ratio_over_readers(
            [one.meta.meta_d_prime.estimate for one in readers],
            [one.meta.d_prime for one in readers],
            confidence_level=level,
        ),
        reliability=reliability_diagram(
            p, outcomes, bins=bins, clusters=clusters, confidence_level=level
        ),
        brier=brier_score(p, outcomes, clusters=clusters, confidence_level=level),
        calibration_error=expected_calibration_error(p, outcomes, bins=bins),
        overconfidence=overconfidence(
            p,
            outcomes,
            rng=rng,
            readers=clusters,
            cases=rows["stimulus_id"],
            confidence_level=level,
        ),
    )


def _reader(
    name: str, rows: pd.DataFrame, points: Array, level: float, rng: np.random.Generator
) -> ReaderRatings:
    noise, signal = rating_counts(rows["rating"], rows["is_synthetic"], 2 * len(points))
    forecasts = forecasts_of_chosen(rows["confidence"], rows["is_correct"], points=points)
    p, outcomes = forecasts.probabilities, forecasts.outcomes
    return ReaderRatings(
        participant_id=name,
        n_trials=len(rows),
        noise_counts=tuple(noise.tolist()),
        signal_counts=tuple(signal.tolist()),
        auc=auc(rows["rating"], rows["is_synthetic"], confidence_level=level, logit_interval=True),
        binormal=binormal(noise, signal, confidence_level=level),
        type_2_auc=type_2_auc(noise, signal, confidence_level=level),
        # Held relative to d′ it would be lost where d′ is near 0, which is where studies aim at.
        meta=meta_d_prime(noise, signal, fixed_criterion="absolute", confidence_level=level),
        brier=brier_score(p, outcomes, confidence_level=level),
        calibration_error=expected_calibration_error(p, outcomes, bins=distinct_bins(p)),
        overconfidence=overconfidence(
            p, outcomes, rng=rng, n_resamples=1000, confidence_level=level
        ),
    )


def _crossed(rows: pd.DataFrame, column: str, names: list[str]) -> tuple[Array, NDArray[np.bool_]]:
    """Readers × pictures, NaN where not judged, and the truth of each picture. (R, N), (N,)"""
    table = rows.pivot(index="participant_id", columns="stimulus_id", values=column).loc[names]
    truth = rows.groupby("stimulus_id")["is_synthetic"].first().loc[table.columns]
    return table.to_numpy(dtype=np.float64), truth.to_numpy(dtype=bool)


def _auc_over_readers(
    rows: pd.DataFrame, names: list[str], level: float
) -> tuple[Estimate, float | None, Estimate]:
    """For other readers, with its design effect, and for these readers only."""
    table, truth = _crossed(rows, "rating", names)
    judged = ~np.isnan(table)
    enough = np.minimum(judged[:, truth].sum(axis=1), judged[:, ~truth].sum(axis=1)) >= 2
    if not enough.any():
        none = Estimate.not_estimable(
            "mean empirical AUC of readers",
            "no reader rated 2 pictures of each kind",
            confidence_level=level,
        )
        return none, None, none
    figures_of_merit = auc_jackknife(table[enough][:, truth], table[enough][:, ~truth])
    fixed = obuchowski_rockette_fixed_readers(figures_of_merit, confidence_level=level)
    these = fixed.means[0].estimate
    if enough.sum() < 2:
        alone = "1 reader who rated 2 pictures of each kind says nothing about other readers"
        return replace(these, ci_low=None, ci_high=None, reason=alone), None, these
    others = obuchowski_rockette(figures_of_merit, confidence_level=level).means[0]
    return others.estimate, others.design_effect, these


def _over_readers(found: list[Estimate], what: str, level: float) -> Estimate:
    """The mean of readers whose value has a standard error."""
    usable = [
        (one.estimate, one.standard_error)
        for one in found
        if one.estimate is not None and one.standard_error is not None
    ]
    if not usable:
        return Estimate.not_estimable(
            f"mean {what} of readers",
            "no reader has a value with a standard error",
            confidence_level=level,
        )
    mean = reader_population(*zip(*usable, strict=True), what=what, confidence_level=level).mean
    return replace(mean, method=f"{mean.method}, {len(usable)} of {len(found)} readers")


def ratio_over_readers(
    meta: list[float | None], d: list[float | None], *, confidence_level: float
) -> Estimate:
    """M-ratio of readers: their mean meta-d′ over their mean d′, with Fieller's interval. (R,) each

    A mean of each reader's own ratio would have to leave out the readers at chance. The spread of
    the readers is the error, so the interval is for other readers; t with R − 1 degrees of freedom.
    """
    method = "M-ratio of readers, mean meta-d′ over mean d′, Fieller's interval"
    pairs = [(m, x) for m, x in zip(meta, d, strict=True) if m is not None and x is not None]
    method += f", {len(pairs)} of {len(meta)} readers"
    if len(pairs) < 2:
        reason = f"{len(pairs) or 'no'} reader with a meta-d′ says nothing about other readers"
        return Estimate.not_estimable(method, reason, confidence_level=confidence_level)
    values = np.array(pairs).T
    m_mean, d_mean = values.mean(axis=1)
    of_m, cross, _, of_d = (np.cov(values) / len(pairs)).ravel()
    t2 = float(student_t.ppf(0.5 + confidence_level / 2, len(pairs) - 1)) ** 2
    # The ratios M with (m − M d)² ≤ t² (var m − 2 M cov + M² var d).
    square, linear = d_mean**2 - t2 * of_d, m_mean * d_mean - t2 * cross
    if square <= 0:
        return Estimate.not_estimable(
            method,
            "the mean d′ is not told from 0, and a ratio to it has no bounds",
            confidence_level=confidence_level,
        )
    root = sqrt(max(linear**2 - square * (m_mean**2 - t2 * of_m), 0.0))
    return Estimate(
        estimate=float(m_mean / d_mean),
        ci_low=float((linear - root) / square),
        ci_high=float((linear + root) / square),
        df=len(pairs) - 1,
        confidence_level=confidence_level,
        method=method,
    )


def confidence_reasons(results: ConfidenceResults) -> tuple[str, ...]:
    """Why what is not estimable is not."""
    found = results.ratings
    if found is None:
        return ()
    named: list[tuple[str, str, Estimate]] = [
        ("AUC", "other readers", found.auc),
        ("Binormal curve", "all readers", found.binormal.auc),
        ("Type-2 AUC", "other readers", found.type_2_auc),
        ("Meta-d′", "other readers", found.meta_d_prime),
        ("M-ratio", "other readers", found.m_ratio),
        ("Over-confidence", "other readers", found.overconfidence.overconfidence),
    ]
    for one in found.readers:
        who = one.participant_id
        named += [
            ("AUC", who, one.auc),
            ("Binormal curve", who, one.binormal.auc),
            ("Type-2 AUC", who, one.type_2_auc),
            ("Meta-d′", who, one.meta.meta_d_prime),
            ("M-ratio", who, one.meta.m_ratio),
        ]
    return reasons(named)


def confidence_methods(results: ConfidenceResults) -> tuple[str, ...]:
    """What was done, in sentences."""
    return tuple(_methods(results))


def _methods(results: ConfidenceResults) -> Iterable[str]:
    if results.detection is not None:
        yield (
            "d′ = z(H) − z(F) and criterion = −(z(H) + z(F)) / 2 have the log-linear correction of "
            "all counts [Hautus 1995] and normal intervals [Gourevitch 1967]."
        )
        if len(results.detected) > 1:
            yield (
                "Over readers, they are a normal sample around their mean, fitted by REML with the "
                "covariance that comes of judging the same pictures; the interval of the mean is "
                "Hartung and Knapp’s [Hartung 2001], and each reader is drawn towards the mean by "
                "empirical Bayes [Morris 1983]."
            )
    found = results.ratings
    if found is None:
        return
    yield (
        f"Answer and confidence were combined to {2 * len(found.points)} ordered ratings. Each "
        "reader’s area under the empirical ROC curve has DeLong’s interval on the logit scale "
        "[DeLong 1988]."
    )
    if found.auc.is_estimable:
        yield (
            "The mean area takes readers and pictures both as random [Obuchowski 1995] with "
            "Hillis’ degrees of freedom [Hillis 2007] and jackknife covariances."
        )
    if found.binormal.is_estimable:
        yield (
            "The thick curve is the binormal curve of maximum likelihood [Dorfman 1969] of all "
            "ratings together, as if of one reader."
        )
    yield (
        "Type-2 AUC is the probability that a right answer is surer than a wrong one "
        "[Fleming 2014]. Meta-d′ [Maniscalco 2012] was fitted with the criterion held at c and "
        f"{found.readers[0].meta.padding:.3g} added to each count; its interval is from the "
        "profile likelihood, that of the M-ratio is Fieller’s [Fieller 1954]. Over readers the "
        "M-ratio is the mean meta-d′ over the mean d′."
    )
    points = ", ".join(f"{point:.2g}" for point in found.points)
    yield (
        f"For calibration the points of the scale were taken for the probabilities {points}, which "
        "is an assumption about the readers. The Brier score [Brier 1950] was decomposed after "
        "Murphy [Murphy 1973], the expected calibration error [Naeini 2015] has a bin for each "
        "point of the scale, and the intervals of the reliability diagram are Wilson’s on the "
        "effective number of judgements, clustered by reader [Rao 1992]."
    )
    yield (
        "Over-confidence is mean confidence less the share that was right [Lichtenstein 1982], "
        "with a bootstrap of readers and pictures at once [Owen 2007]."
    )
