"""What the report's figures and numbers share: style, colours, formats, and inline SVG."""

import io
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from html import escape
from math import inf
from typing import Any

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from studies.estimate import Estimate
from studies.references import cited

INK, QUIET, RULE = "#1c2733", "#5b6875", "#d5dbe1"
REAL, GENERATED, HEADLINE = "#1f5f8b", "#b4591a", "#12615a"
CHANCE = 50.0

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: searchable, and set in the page's own typeface
    "svg.hashsalt": "cytoverity",
    "text.parse_math": False,  # a class may be called "$"
    "font.size": 9.0,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": QUIET,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "lines.solid_capstyle": "butt",
}


def percent(value: float) -> str:
    """A proportion as the report prints it: `58.3`."""
    return f"{100 * value:.1f}"


def interval(ci_low: float | None, ci_high: float | None) -> str:
    """An interval of a proportion as the report prints it, clipped to what a proportion can be."""
    if ci_low is None or ci_high is None:
        return "not estimable"
    return f"{percent(max(0.0, ci_low))} to {percent(min(1.0, ci_high))}"


def signed(value: float) -> str:
    """A number that may be negative, as the report prints it: `−0.52`."""
    return _minus(f"{value:.2f}")


def signed_percent(value: float) -> str:
    """A difference of proportions, in points of percent: `−5.2`."""
    return _minus(f"{100 * value:.1f}")


def _minus(text: str) -> str:
    return text.replace("-", "−") if float(text) else text.removeprefix("-")


def signed_interval(ci_low: float | None, ci_high: float | None) -> str:
    """An interval of such a number, as the report prints it."""
    return _between(signed, ci_low, ci_high)


def _between(number: Callable[[float], str], ci_low: float | None, ci_high: float | None) -> str:
    if ci_low is None or ci_high is None:
        return "not estimable"
    return f"{number(ci_low)} to {number(ci_high)}"


def percent_estimate(found: Estimate) -> str:
    """A proportion with its interval, or that there is none: `58.3 (51.0 to 65.2)`."""
    return _estimate(found, percent, 0.0, 1.0)


def share_estimate(found: Estimate) -> str:
    """An area, a score or a share with its interval, from 0 to 1: `0.74 (0.68 to 0.81)`."""
    return _estimate(found, signed, 0.0, 1.0)


def coefficient_estimate(found: Estimate) -> str:
    """A coefficient of agreement with its interval, up to 1: `0.22 (−0.03 to 0.47)`."""
    return _estimate(found, signed, -1.0, 1.0)


def signed_estimate(found: Estimate) -> str:
    """A number without bounds, with its interval: `−0.52 (−0.80 to −0.24)`."""
    return _estimate(found, signed, -inf, inf)


def signed_percent_estimate(found: Estimate) -> str:
    """A difference of proportions with its interval, in points of percent."""
    return _estimate(found, signed_percent, -1.0, 1.0)


def _estimate(found: Estimate, number: Callable[[float], str], lowest: float, most: float) -> str:
    """In print, limits do not leave what the quantity can be."""
    if found.estimate is None:
        return "not estimable"
    if found.ci_low is None or found.ci_high is None:
        return f"{number(found.estimate)} (no interval)"
    limits = _between(number, max(lowest, found.ci_low), min(most, found.ci_high))
    return f"{number(found.estimate)} ({limits})"


FORMATS: dict[str, Any] = {
    "percent": percent,
    "signed": signed,
    "signed_percent": signed_percent,
    "interval": interval,
    "signed_interval": signed_interval,
    "percent_estimate": percent_estimate,
    "share_estimate": share_estimate,
    "coefficient_estimate": coefficient_estimate,
    "signed_estimate": signed_estimate,
    "signed_percent_estimate": signed_percent_estimate,
}
"""What the templates of the sections call."""


def section_context(
    name: str, results: Any, figures: Mapping[str, str], methods: tuple[str, ...], **more: Any
) -> dict[str, Any]:
    """What the template of a section needs: each value under the section's name, and the formats.

    Args:
        figures: by name, as SVG made here: they escape what comes from the study.
        methods: sentences that cite as `[author year]`.
        more: under `name_` each, such as notes.
    """
    parts = {
        "figures": {figure_name: Markup(made) for figure_name, made in figures.items()},
        "methods": methods,
        "sources": cited(methods),
        **more,
    }
    return FORMATS | {name: results} | {f"{name}_{key}": value for key, value in parts.items()}


def reasons(named: Iterable[tuple[str, str, Estimate]]) -> tuple[str, ...]:
    """Why what is not estimable is not: a sentence for each quantity and reason.

    Args:
        named: quantity, whose it is, and the estimate.
    """
    found: dict[tuple[str, str], list[str]] = {}
    for quantity, who, estimate in named:
        if estimate.reason:
            found.setdefault((quantity, estimate.reason), []).append(who)
    return tuple(
        f"{quantity} of {', '.join(who)}: {reason}." for (quantity, reason), who in found.items()
    )


def as_counted(name: str) -> list[tuple[str, int]]:
    """Sort key of names: reader-2 before reader-10."""
    return [(text, int(digits or -1)) for text, digits in re.findall(r"(\D*)(\d*)", name)]


def short(name: str, longest: int = 18) -> str:
    """A name cut to what fits beside a row."""
    return name if len(name) <= longest else name[: longest - 1] + "…"


@contextmanager
def figure(
    width: float, height: float, *, left: float, right: float, bottom: float | None = None
) -> Iterator[tuple[Figure, Axes]]:
    """An empty figure of `width` × `height` inches and its axes, in the report's style.

    `left`, `right` and `bottom` are fractions. Margins above and below are in inches otherwise: a
    figure with many rows must not grow its margins.
    """
    below = 0.48 / height if bottom is None else bottom
    with mpl.rc_context(STYLE):
        fig = Figure(figsize=(width, height))
        axes = fig.add_axes((left, below, right - left, 1 - below - 0.14 / height))
        yield fig, axes


def percent_axis(axes: Axes, which: str) -> None:
    """Give axis "x" or "y" 0 to 100 % and a dashed line at chance."""
    if which == "x":
        axes.set_xlim(0, 100)
        axes.set_xticks(range(0, 101, 25))
        axes.axvline(CHANCE, color=QUIET, linewidth=0.8, linestyle=(0, (3, 2)), zorder=1)
    else:
        axes.set_ylim(0, 100)
        axes.set_yticks(range(0, 101, 25))
        axes.axhline(CHANCE, color=QUIET, linewidth=0.8, linestyle=(0, (3, 2)), zorder=1)


def limits(found: Estimate, scale: float = 1.0) -> list[float]:
    """Both ends of the interval, to be drawn; empty where there is none."""
    if found.ci_low is None or found.ci_high is None:
        return []
    return [scale * found.ci_low, scale * found.ci_high]


def whisker(
    axes: Axes,
    found: Estimate,
    row: float,
    *,
    colour: str,
    scale: float = 1.0,
    marker: str = "o",
    hollow: bool = False,
    wide: bool = False,
) -> None:
    """An estimate and its interval as a dot and a line in a row of the axes.

    Without an interval there is the dot alone, without an estimate the words.
    """
    if found.estimate is None:
        axes.text(
            0.02,
            row,
            "not estimable",
            transform=axes.get_yaxis_transform(),
            fontsize=7.5,
            color=QUIET,
            va="center_baseline",
        )
        return
    ends = limits(found, scale)
    axes.plot(ends, [row] * len(ends), color=colour, linewidth=2.2 if wide else 1.1)
    axes.plot(
        scale * found.estimate,
        row,
        marker,
        color=colour,
        markersize=6.5 if wide else 5,
        markerfacecolor="white" if hollow else colour,
        markeredgewidth=1.1,
        zorder=3,
    )


def name_rows(axes: Axes, names: Iterable[str], *, longest: int = 18) -> None:
    """Name the rows of a dot plot from the top, 0, 1, …"""
    shown = [short(name, longest) for name in names]
    axes.set_yticks(range(len(shown)), shown)
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def svg(fig: Figure, name: str, label: str) -> str:
    """The figure as `<svg>` to stand in a page.

    Args:
        name: prefix of its ids, unlike any other figure's.
        label: what a screen reader says.
    """
    buffer = io.StringIO()
    with warnings.catch_warnings():
        # The browser has the glyphs that matplotlib's own font lacks.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        fig.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    # Only what is inside <svg>, and nothing that reaches out of it: its style sheet would restyle
    # the page, its ids would clash with the next figure's, its fonts are not the page's.
    body = re.sub(r"<(metadata|style)\b.*?</\1>", "", text[text.index("<svg") :], flags=re.DOTALL)
    body = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", body)
    body = re.sub(r"font-family: [^;\"]*;?", "", body)
    view_box = re.search(r'viewBox="[^"]*"', body)
    assert view_box is not None
    return (
        f'<svg role="img" aria-label="{escape(label)}" xmlns="http://www.w3.org/2000/svg" '
        f'xmlns:xlink="http://www.w3.org/1999/xlink" {view_box[0]} '
        f'style="stroke-linejoin: round; stroke-linecap: butt">{body[body.index(">") + 1 :]}'
    )
