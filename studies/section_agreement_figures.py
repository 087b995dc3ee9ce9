"""The figures of the section on agreement, and what its template needs."""

from typing import Any

import numpy as np
from matplotlib.colors import LinearSegmentedColormap

from studies.plotting import (
    HEADLINE,
    INK,
    QUIET,
    RULE,
    figure,
    name_rows,
    section_context,
    short,
    svg,
    whisker,
)
from studies.section_agreement import AgreementResults, agreement_methods, agreement_reasons

SHADES = LinearSegmentedColormap.from_list("agreement", ["#f1f4f4", HEADLINE], N=20)
MOST_NAMES, MOST_NUMBERS = 25, 9
"""Readers with a name, and with numbers, in the map of pairs."""


def agreement_context(results: AgreementResults) -> dict[str, Any]:
    """What `report_agreement.html.jinja` needs."""
    return section_context(
        "agreement",
        results,
        agreement_figures(results),
        agreement_methods(results),
        reasons=agreement_reasons(results),
    )


def agreement_figures(results: AgreementResults) -> dict[str, str]:
    """The figures by name, as SVG."""
    made = {"coefficients": _coefficients(results)}
    if len(results.readers) > 1:
        made["pairs"] = _pairs(results)
    return made


def _coefficients(results: AgreementResults) -> str:
    n = len(results.coefficients)
    with figure(3.5, 0.7 + 0.27 * n, left=0.46, right=0.97) as (fig, axes):
        axes.set_xlim(-0.25, 1.05)
        axes.axvline(0, color=QUIET, linewidth=0.8, linestyle=(0, (3, 2)), zorder=1)
        for row, one in enumerate(results.coefficients):
            with_confidence = one.ratings != "answers"
            found = one.agreement.bootstrap
            if found is not None:
                whisker(axes, found, row, colour=INK, hollow=with_confidence)
            if row and one.ratings != results.coefficients[row - 1].ratings:
                axes.axhline(row - 0.5, color=RULE, linewidth=0.6)
        name_rows(axes, [one.name for one in results.coefficients], longest=40)
        axes.set_xlabel("agreement (1 is perfect)")
        return svg(fig, "coefficients", "Coefficients of agreement between readers")


def _pairs(results: AgreementResults) -> str:
    n = len(results.readers)
    shares = np.array(
        [[np.nan if one is None else 100 * one for one in row] for row in results.pairs]
    )
    for one in results.consistency.readers:
        at = results.readers.index(one.reader)
        shares[at, at] = 100 * (one.percent.estimate or 0.0)
    lowest = 10 * np.floor(np.nanmin(shares, initial=90) / 10)
    with figure(3.5, 2.3, left=0.23, right=0.82, bottom=0.04) as (fig, axes):
        edges = np.arange(n + 1) - 0.5
        axes.pcolormesh(
            edges,
            edges,
            np.ma.masked_invalid(shares),
            cmap=SHADES,
            vmin=lowest,
            vmax=100,
            edgecolor="white",
            linewidth=0.4,
        )
        if n <= MOST_NUMBERS:
            for (i, j), share in np.ndenumerate(shares):
                if not np.isnan(share):
                    is_dark = share > (lowest + 100) / 2
                    axes.text(
                        j,
                        i,
                        f"{share:.0f}",
                        fontsize=7.5,
                        ha="center",
                        va="center_baseline",
                        color="white" if is_dark else INK,
                    )
        names = [short(name) for name in results.readers] if n <= MOST_NAMES else []
        size = 8.5 if n <= MOST_NUMBERS else 6
        axes.set_xticks([])
        axes.set_yticks(range(len(names)), names, fontsize=size)
        axes.set_ylim(n - 0.5, -0.5)
        axes.tick_params(length=0)
        axes.spines[["left", "bottom"]].set_visible(False)
        place = axes.get_position()
        scale = fig.add_axes((0.85, place.y0, 0.025, place.height))
        steps = np.linspace(lowest, 100, 21)
        scale.pcolormesh([0, 1], steps, steps[:-1, None], cmap=SHADES, vmin=lowest, vmax=100)
        scale.set_xticks([])
        scale.yaxis.tick_right()
        scale.yaxis.set_major_formatter("{x:.0f} %")
        scale.tick_params(labelsize=8)
        return svg(fig, "pairs", "Heat map: how often two readers gave the same answer")
