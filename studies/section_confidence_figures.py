"""The figures of the section on confidence, and what its template needs."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtr, ndtri

from studies.detection import CrossedDetection
from studies.estimate import Estimate
from studies.metacognition import type_2_roc
from studies.plotting import (
    HEADLINE,
    INK,
    QUIET,
    RULE,
    figure,
    limits,
    name_rows,
    section_context,
    svg,
    whisker,
)
from studies.roc import Roc, empirical_roc
from studies.section_confidence import (
    ConfidenceResults,
    Ratings,
    confidence_methods,
    confidence_reasons,
)

DASHED = (0, (3, 2))


def confidence_context(results: ConfidenceResults) -> dict[str, Any]:
    """What `report_confidence.html.jinja` needs."""
    return section_context(
        "confidence",
        results,
        confidence_figures(results),
        confidence_methods(results),
        reasons=confidence_reasons(results),
    )


def confidence_figures(results: ConfidenceResults) -> dict[str, str]:
    """The figures by name, as SVG."""
    made = {}
    if results.detection is not None:
        made["detection"] = _detection(results.detected, results.detection)
    if results.ratings is not None:
        made |= {
            "roc": _roc(results.ratings),
            "type_2": _type_2(results.ratings),
            "reliability": _reliability(results.ratings),
            "meta": _meta(results.ratings),
        }
    return made


def _roc(found: Ratings) -> str:
    smooth = None
    a, b = found.binormal.a.estimate, found.binormal.b.estimate
    if a is not None and b is not None:
        rates = np.linspace(0, 1, 401)
        smooth = (rates, ndtr(a + b * ndtri(rates)))
    return _curves(
        [_empirical(one.noise_counts, one.signal_counts) for one in found.readers],
        _empirical(*_all_counts(found)),
        smooth,
        ("roc", "real called generated (%)", "generated called generated (%)"),
        "ROC curves of the readers, thin, and of all ratings together, thick",
    )


def _type_2(found: Ratings) -> str:
    return _curves(
        [type_2_roc(one.noise_counts, one.signal_counts) for one in found.readers],
        type_2_roc(*_all_counts(found)),
        None,
        ("type2", "wrong answers that are as sure (%)", "right answers that are as sure (%)"),
        "Type-2 ROC curves of the readers, thin, and of all answers together, thick",
    )


def _curves(
    readers: list[Roc | None],
    together: Roc | None,
    smooth: tuple[ArrayLike, ArrayLike] | None,
    names: tuple[str, str, str],
    label: str,
) -> str:
    name, x, y = names
    with figure(3.5, 3.35, left=0.16, right=0.97, bottom=0.15) as (fig, axes):
        axes.plot([0, 100], [0, 100], color=QUIET, linewidth=0.8, linestyle=DASHED)
        for curve in readers:
            if curve is not None:
                axes.plot(*_points(curve), color=QUIET, linewidth=0.7, alpha=0.6)
        if smooth is not None:
            axes.plot(*(100 * np.asarray(side) for side in smooth), color=HEADLINE, linewidth=2.2)
        if together is not None:
            width = 2.2 if smooth is None else 0.0
            axes.plot(*_points(together), "-o", color=HEADLINE, linewidth=width, markersize=3.5)
        axes.set_xlim(0, 100)
        axes.set_ylim(0, 100)
        axes.set_xticks(range(0, 101, 25))
        axes.set_yticks(range(0, 101, 25))
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        return svg(fig, name, label)


def _empirical(noise: ArrayLike, signal: ArrayLike) -> Roc | None:
    counts = np.array([noise, signal], dtype=np.int64)
    ratings = np.tile(np.arange(counts.shape[1], dtype=np.float64), 2)
    is_signal = np.repeat([False, True], counts.shape[1])
    return empirical_roc(np.repeat(ratings, counts.ravel()), np.repeat(is_signal, counts.ravel()))


def _all_counts(found: Ratings) -> tuple[ArrayLike, ArrayLike]:
    return (
        np.sum([one.noise_counts for one in found.readers], axis=0),
        np.sum([one.signal_counts for one in found.readers], axis=0),
    )


def _points(curve: Roc) -> tuple[ArrayLike, ArrayLike]:
    return 100 * np.array(curve.false_alarm_rates), 100 * np.array(curve.hit_rates)


def _reliability(found: Ratings) -> str:
    with figure(3.5, 3.0, left=0.16, right=0.97, bottom=0.17) as (fig, axes):
        axes.set_ylim(0, 100)
        axes.set_yticks(range(0, 101, 25))
        axes.set_xlim(46, 104)
        axes.set_xlabel("probability that the confidence stands for (%)")
        axes.set_ylabel("right (%)")
        axes.plot([50, 100], [50, 100], color=QUIET, linewidth=0.8, linestyle=DASHED)
        most = max(one.n_forecasts for one in found.reliability)
        for one in found.reliability:
            x = 100 * (one.mean_probability or 0.0)
            ends = limits(one.clustered or one.frequency, 100)
            axes.bar(x, 14 * one.n_forecasts / most, width=3, color=RULE, linewidth=0)
            axes.plot([x] * len(ends), ends, color=HEADLINE, linewidth=1.1)
        axes.plot(
            [100 * (one.mean_probability or 0.0) for one in found.reliability],
            [100 * (one.frequency.estimate or 0.0) for one in found.reliability],
            "-o",
            color=HEADLINE,
            markersize=5,
            linewidth=0.8,
        )
        axes.text(46.8, 15.5, f"judgements (most: {most:,})", fontsize=7.5, color=QUIET)
        return svg(fig, "reliability", "Reliability diagram: how often each confidence was right")


def _meta(found: Ratings) -> str:
    with figure(3.5, 3.0, left=0.16, right=0.97, bottom=0.17) as (fig, axes):
        axes.set_xlabel("d′ of the answers")
        axes.set_ylabel("meta-d′ of the confidence")
        axes.axhline(0, color=RULE, linewidth=0.6)
        axes.axvline(0, color=RULE, linewidth=0.6)
        axes.axline((0, 0), slope=1, color=QUIET, linewidth=0.8, linestyle=DASHED)
        for one in found.readers:
            meta, d = one.meta.meta_d_prime, one.meta.d_prime
            if meta.estimate is not None and d is not None:
                ends = limits(meta)
                axes.plot([d] * len(ends), ends, color=QUIET, linewidth=0.7)
                axes.plot(d, meta.estimate, "o", color=INK, markersize=4)
        if found.m_ratio.estimate is not None:
            axes.axline((0, 0), slope=found.m_ratio.estimate, color=HEADLINE, linewidth=1.6)
        return svg(fig, "meta", "Meta-d′ of each reader against d′")


def _detection(names: tuple[str, ...], found: CrossedDetection) -> str:
    n = len(names)
    with figure(7.2, 0.62 + 0.27 * (n + 2), left=0.17, right=0.57) as (fig, axes):
        place = axes.get_position()
        beside = fig.add_axes((0.61, place.y0, 0.37, place.height), sharey=axes)
        for panel, name, population in (
            (axes, "d_prime", found.d_prime),
            (beside, "criterion", found.criterion),
        ):
            panel.axvline(0, color=QUIET, linewidth=0.8, linestyle=DASHED, zorder=1)
            for row, (one, drawn) in enumerate(zip(found.readers, population.readers, strict=True)):
                own = Estimate(
                    estimate=getattr(one, name),
                    ci_low=getattr(one, f"{name}_ci_low"),
                    ci_high=getattr(one, f"{name}_ci_high"),
                    confidence_level=drawn.confidence_level,
                    method=name,
                )
                whisker(panel, own, row - 0.15, colour=QUIET, hollow=True)
                whisker(panel, drawn, row + 0.15, colour=INK)
            panel.axhline(n - 0.5, color=RULE, linewidth=0.6)
            whisker(panel, population.mean, n, colour=HEADLINE, marker="D", wide=True)
            whisker(panel, population.new_reader, n + 1, colour=HEADLINE, marker="D", hollow=True)
        name_rows(axes, [*names, "Mean of readers", "Another reader"])
        axes.set_xlabel("d′ (standard deviations)")
        beside.set_xlabel("criterion (standard deviations)")
        beside.tick_params(axis="y", length=0, labelleft=False)
        beside.spines["left"].set_visible(False)
        return svg(fig, "detection", "d′ and criterion of each reader and of their mean")
