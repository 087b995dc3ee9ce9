"""Simulated readers and bots: d′ and criterion, psychometric functions, metacognition.

Each study calls the method of `studies` itself. S studies, R readers, N cases.
"""

import sys
from collections.abc import Callable
from math import sqrt
from pathlib import Path
from typing import Any, Literal

import numpy as np
from scipy.special import ndtr, ndtri
from scipy.stats import t as student_t

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

from monte_carlo import judged, judged_estimates, mean

from studies.detection import crossed_detection, detection
from studies.discriminability import blocks_of_equal_count
from studies.metacognition import meta_d_prime
from studies.psychometric import fit
from studies.psychometric_model import proportion_correct_at

Tick = Callable[[int], None]
"""Told how many studies more are done."""

CASE_SD = 0.5
D_PRIME, D_PRIME_SD, CRITERION, CRITERION_SD = 1.0, 0.3, 0.2, 0.2
"""Of readers who judge the same cases."""
CONFIDENCE_CUTS = (0.4, 0.9, 1.4)
"""Distance from the criterion at which confidence rises by one of four levels."""


def readers_alone(
    n_studies: int,
    rng: np.random.Generator,
    tick: Tick,
    *,
    d_prime: float,
    criterion: float,
    n_each: int,
) -> dict[str, Any]:
    """d′ and criterion of single readers: the log-linear correction and its intervals."""
    hits, false_alarms = (
        rng.binomial(n_each, ndtr(m * d_prime / 2 - criterion), n_studies) for m in (1, -1)
    )
    pairs, place = np.unique(np.stack([hits, false_alarms]), axis=1, return_inverse=True)
    each = []
    for h, f in pairs.T:
        one = detection(int(h), n_each - int(h), int(f), n_each - int(f))
        of_d = one.d_prime, one.d_prime_ci_low, one.d_prime_ci_high
        each.append((*of_d, one.criterion, one.criterion_ci_low, one.criterion_ci_high))
    tick(n_studies)
    d, d_low, d_high, c, c_low, c_high = np.array(each)[place].T
    return {
        "d_prime_found": judged(d_low, d_high, d_prime) | {"mean": mean(d)},
        "criterion_found": judged(c_low, c_high, criterion) | {"mean": mean(c)},
    }


def readers_together(
    n_studies: int, rng: np.random.Generator, tick: Tick, *, n_readers: int, n_cases: int
) -> dict[str, Any]:
    """Mean d′ and criterion of readers, how they differ, and each reader drawn to the mean."""
    is_signal = np.arange(n_cases) >= n_cases // 2
    side = np.where(is_signal, 0.5, -0.5)
    scale = sqrt(1 + CASE_SD**2)  # the readers' values hold over all cases, whatever their spread
    crossed, each, by_reader = [], [], []
    for _ in range(n_studies):
        d = D_PRIME + D_PRIME_SD * rng.standard_normal((n_readers, 1))
        c = CRITERION + CRITERION_SD * rng.standard_normal((n_readers, 1))
        evidence = scale * (d * side - c) + CASE_SD * rng.standard_normal(n_cases)
        one = crossed_detection(rng.standard_normal((n_readers, n_cases)) < evidence, is_signal)
        crossed.append(one)
        raw = np.array([[r.d_prime, r.d_prime_ci_low, r.d_prime_ci_high] for r in one.readers])
        drawn = np.array([[r.estimate, r.ci_low, r.ci_high] for r in one.d_prime.readers])
        for values in (raw, drawn):
            covers = (values[:, 1] <= d[:, 0]) & (d[:, 0] <= values[:, 2])
            each.append((covers.mean(), ((values[:, 0] - d[:, 0]) ** 2).mean()))
        error = raw[:, 0].std(ddof=1) / sqrt(n_readers)
        half = float(student_t.ppf(0.975, n_readers - 1)) * error
        by_reader.append((raw[:, 0].mean() - half, raw[:, 0].mean() + half))
        tick(1)
    covers, squared = np.array(each).reshape(n_studies, 2, 2).transpose(2, 1, 0)
    low, high = np.array(by_reader).T
    of_sd = [one.d_prime.between_reader_sd for one in crossed]
    return {
        "mean_d_prime": judged_estimates([one.d_prime.mean for one in crossed], D_PRIME),
        "mean_criterion": judged_estimates([one.criterion.mean for one in crossed], CRITERION),
        "between_reader_sd": judged_estimates(of_sd, D_PRIME_SD),
        "mean_d_prime_by_reader": judged(low, high, D_PRIME),
        "readers": {
            name: {"coverage": mean(covers[k]), "rms_error": sqrt(float(squared[k].mean()))}
            for k, name in enumerate(("alone", "drawn"))
        },
    }


def curves(
    n_studies: int,
    rng: np.random.Generator,
    tick: Tick,
    *,
    n_trials: int,
    threshold: float,
    width: float,
    lapse_rate: float,
    eta: float | Literal["free"],
) -> dict[str, Any]:
    """Threshold, width and lapse rate of bots who choose between two, on an index from 0 to 1."""
    at_80 = threshold + width * float(ndtri(0.8) / (2 * ndtri(0.95)))
    found = []
    for _ in range(n_studies):
        index = rng.random(n_trials)
        right = rng.random(n_trials) < proportion_correct_at(
            index, threshold=threshold, width=width, guess_rate=0.5, lapse_rate=lapse_rate
        )
        blocks = blocks_of_equal_count(index, right)
        counts = blocks.levels, blocks.n_correct, blocks.n_trials
        found.append(fit(*counts, guess_rate=0.5, eta=eta))
        tick(1)
    truths = {"threshold_unscaled": at_80, "width": width, "lapse_rate": lapse_rate}
    return {
        f"{name}_found": judged_estimates([getattr(one, name) for one in found], truth)
        for name, truth in truths.items()
    }


def metacognition(
    n_studies: int,
    rng: np.random.Generator,
    tick: Tick,
    *,
    d_prime: float,
    m_ratio: float,
    n_each: int,
) -> dict[str, Any]:
    """Meta-d′ and M-ratio of observers whose confidence knows less than their answers."""
    meta, criterion = m_ratio * d_prime, 0.2
    held = criterion * m_ratio  # the criterion relative to d′ stays the same
    n_levels = len(CONFIDENCE_CUTS) + 1
    found = []
    for _ in range(n_studies):
        counts = []
        for kind in (-1, 1):
            n_called = rng.binomial(n_each, ndtr(kind * d_prime / 2 - criterion))
            ratings = []
            # The evidence behind confidence: normal around ±meta/2, on the answer's side.
            for answer, n in ((-1, n_each - n_called), (1, n_called)):
                beyond = ndtr(answer * (kind * meta / 2 - held)) * (1 - rng.random(n))
                distance = answer * (kind * meta / 2 - held) - ndtri(beyond)
                level = np.digitize(distance, CONFIDENCE_CUTS)
                ratings.append(n_levels + level if answer > 0 else n_levels - 1 - level)
            counts.append(np.bincount(np.concatenate(ratings), minlength=2 * n_levels))
        found.append(meta_d_prime(*counts))
        tick(1)
    return {
        "meta_d_prime_found": judged_estimates([one.meta_d_prime for one in found], meta),
        "m_ratio_found": judged_estimates([one.m_ratio for one in found], m_ratio),
    }
