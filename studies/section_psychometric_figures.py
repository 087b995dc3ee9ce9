"""The figures of the section on psychometric functions, and what its template needs."""

from typing import Any

from studies.plotting import (
    GENERATED,
    HEADLINE,
    INK,
    QUIET,
    REAL,
    RULE,
    figure,
    name_rows,
    percent_axis,
    section_context,
    short,
    svg,
    whisker,
)
from studies.section_psychometric import (
    ObserverCurve,
    PsychometricResults,
    psychometric_methods,
    psychometric_notes,
)

GROUP_STYLES = (
    (REAL, "--"),
    (GENERATED, "-."),
    ("#7b3f7d", (0, (1, 1))),
    ("#7a6a00", (0, (6, 1, 1, 1, 1, 1))),
)
"""Colour and line of each group, again from the first after the last."""
POSTERIORS = (
    ("threshold_unscaled", "threshold"),
    ("width", "width"),
    ("lambda", "lapse rate"),
    ("eta", "over-dispersion η"),
    ("gamma", "guess rate, if free"),
)


def psychometric_context(results: PsychometricResults) -> dict[str, Any]:
    """What `report_psychometric.html.jinja` needs."""
    return section_context(
        "psychometric",
        results,
        psychometric_figures(results),
        psychometric_methods(results),
        notes=psychometric_notes(results),
    )


def psychometric_figures(results: PsychometricResults) -> dict[str, str]:
    """The figures by name, as SVG."""
    if results.absent is not None:
        return {}
    made = {"curves": _curves(results), "observers": _observers(results)}
    if any(one.posteriors for one in results.observers):
        made["posteriors"] = _posteriors(results)
    return made


def _styles(results: PsychometricResults) -> list[tuple[ObserverCurve, dict[str, Any]]]:
    """Every observer and how its line looks; single readers are quiet."""
    found, n_groups = [], 0
    for one in results.observers:
        style: dict[str, Any] = {"color": QUIET, "linewidth": 1.1}
        if one.kind == "pooled":
            style = {"color": HEADLINE, "linewidth": 2.2}
        if one.kind == "model":
            style = {"color": INK, "linewidth": 1.4, "linestyle": (0, (5, 2))}
        if one.kind == "group":
            colour, line = GROUP_STYLES[n_groups % len(GROUP_STYLES)]
            style = {"color": colour, "linewidth": 1.4, "linestyle": line}
            n_groups += 1
        found.append((one, style))
    return found


def _curves(results: PsychometricResults) -> str:
    with figure(7.2, 3.3, left=0.08, right=0.76, bottom=0.155) as (fig, axes):
        percent_axis(axes, "y")
        axes.set_xlabel(results.index_label)
        axes.set_ylabel("right (%)")
        for one, style in _styles(results):
            if one.kind == "pooled":
                size = [40 * n / max(one.block_n_trials) for n in one.block_n_trials]
                right = [100 * p for p in one.block_proportions]
                axes.scatter(one.block_levels, right, size, color=HEADLINE, zorder=3, linewidth=0)
            if one.curve is None:
                continue
            if one.kind == "pooled":
                axes.fill_between(
                    one.curve.levels,
                    [100 * p for p in one.curve.band_low],
                    [100 * p for p in one.curve.band_high],
                    color=HEADLINE,
                    alpha=0.12,
                    linewidth=0,
                )
            proportion = [100 * p for p in one.curve.proportion]
            axes.plot(one.curve.levels, proportion, label=short(one.name), **style)
        if any(one.curve for one in results.observers):
            axes.legend(
                loc="upper left",
                bbox_to_anchor=(1.02, 1.02),
                frameon=False,
                fontsize=8.5,
                handlelength=2.6,
            )
        return svg(fig, "curves", "Proportion of right answers against the index")


def _posteriors(results: PsychometricResults) -> str:
    styles = [(one, style) for one, style in _styles(results) if one.posteriors]
    if results.free_guess is not None:
        styles.append((results.free_guess, {"color": HEADLINE, "linewidth": 2.2}))
    with figure(7.2, 1.75, left=0.05, right=0.215, bottom=0.30) as (fig, first):
        place = first.get_position()
        for column, (which, label) in enumerate(POSTERIORS):
            axes = first
            if column:
                axes = fig.add_axes((0.05 + 0.193 * column, place.y0, place.width, place.height))
            for one, style in styles:
                if which in one.posteriors and (one is not results.free_guess or which == "gamma"):
                    values, density = one.posteriors[which]
                    axes.plot(values, density, **style)
                    if one.kind == "pooled":
                        axes.fill_between(values, density, color=HEADLINE, alpha=0.12, linewidth=0)
            axes.set_ylim(bottom=0)
            axes.set_yticks([])
            axes.spines["left"].set_visible(False)
            axes.set_xlabel(label)
        first.set_ylabel("posterior density")
        return svg(fig, "posteriors", "Posterior densities of the parameters of the curves")


def _observers(results: PsychometricResults) -> str:
    n = len(results.observers)
    with figure(7.2, 0.62 + 0.25 * n, left=0.17, right=0.57) as (fig, axes):
        place = axes.get_position()
        beside = fig.add_axes((0.61, place.y0, 0.37, place.height), sharey=axes)
        for panel, which in ((axes, "threshold"), (beside, "width")):
            for row, (one, style) in enumerate(_styles(results)):
                marker = {"pooled": "D", "group": "s", "reader": "o", "model": "^"}[one.kind]
                whisker(
                    panel,
                    getattr(one, which),
                    row,
                    colour=style["color"],
                    marker=marker,
                    wide=one.kind == "pooled",
                )
                if row and one.kind != results.observers[row - 1].kind:
                    panel.axhline(row - 0.5, color=RULE, linewidth=0.6)
        name_rows(axes, [one.name for one in results.observers])
        axes.set_xlabel("threshold at 80 % (units of the index)")
        beside.set_xlabel("width (units of the index)")
        beside.tick_params(axis="y", length=0, labelleft=False)
        beside.spines["left"].set_visible(False)
        return svg(fig, "observers", "Threshold and width of readers, groups and model")
