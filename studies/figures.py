"""The report's figures, as inline SVG: no file, font or script from elsewhere."""

import io
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from html import escape
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from studies.analysis import Group, Results
from studies.crossed import CrossedAccuracy
from studies.proportions import Proportion

INK, QUIET, RULE = "#1c2733", "#5b6875", "#d5dbe1"
REAL, GENERATED, HEADLINE = "#1f5f8b", "#b4591a", "#12615a"
CHANCE = 50.0

_TEXT_COLUMNS = ((1.13, "right", "%"), (1.17, "left", "interval"), (1.585, "right", "right / n"))
"""Position in widths of the axes, alignment and head of what stands beside each row."""

_STYLE: dict[Any, Any] = {
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


def readers_forest(results: Results) -> str:
    """Accuracy of every reader, and the headline with its band and the line of chance."""
    headline = results.accuracy or results.accuracy_fixed_readers
    n_rows = len(results.readers) + 1
    with _figure(7.2, 0.62 + 0.27 * (n_rows + 0.5), left=0.19, right=0.70) as (figure, axes):
        _percent_axis(axes, "x")
        axes.set_xlabel("judgements that were right (%)")
        for row, reader in enumerate(results.readers):
            _dot(
                axes,
                reader.accuracy,
                row,
                colour=INK if reader.is_complete else QUIET,
                hollow=not reader.is_complete,
            )
            _row_text(axes, row, reader.accuracy, reader.n_correct)
        bottom = len(results.readers) + 0.5
        axes.axhline(bottom - 0.75, color=RULE, linewidth=0.6)
        if headline.ci_low is not None and headline.ci_high is not None:
            low, high = 100 * max(0.0, headline.ci_low), 100 * min(1.0, headline.ci_high)
            axes.axvspan(low, high, color=HEADLINE, alpha=0.10, linewidth=0)
            middle = 100 * headline.estimate
            axes.fill(
                [low, middle, high, middle],
                [bottom, bottom - 0.3, bottom, bottom + 0.3],
                color=HEADLINE,
                linewidth=0,
                zorder=3,
            )
        else:
            axes.plot(100 * headline.estimate, bottom, "D", color=HEADLINE, markersize=6)
        _row_text(axes, bottom, headline, headline.n_correct, weight="bold")
        names = [
            _short(one.participant_id) + " *" * (not one.is_complete) for one in results.readers
        ]
        axes.set_yticks([*range(len(results.readers)), bottom], [*names, "All complete"])
        axes.get_yticklabels()[-1].set_fontweight("bold")
        axes.set_ylim(bottom + 0.6, -0.9)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        _column_heads(axes, -0.9)
        return _svg(figure, "readers", "Forest plot: accuracy of each reader and of all of them")


def classes(results: Results) -> str:
    """Accuracy by class of cell, apart for real and for generated pictures."""
    names = sorted({group.name for group in results.by_class_real + results.by_class_generated})
    with _figure(7.2, 0.72 + 0.44 * len(names), left=0.19, right=0.70) as (figure, axes):
        _percent_axis(axes, "x")
        axes.set_xlabel("judgements that were right (%)")
        for groups, offset, colour, hollow in (
            (results.by_class_real, -0.17, REAL, False),
            (results.by_class_generated, 0.17, GENERATED, True),
        ):
            for group in groups:
                row = names.index(group.name) + offset
                _dot(axes, group.accuracy, row, colour=colour, hollow=hollow)
                _row_text(axes, row, group.accuracy, group.n_correct, color=colour)
        for row in range(1, len(names)):
            axes.axhline(row - 0.5, color=RULE, linewidth=0.6)
        axes.set_yticks(range(len(names)), [_short(name) for name in names])
        axes.set_ylim(len(names) - 0.5, -0.75)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        _column_heads(axes, -0.75)
        axes.text(2, -0.75, "● real", color=REAL, fontsize=8, va="bottom")
        axes.text(17, -0.75, "○ generated", color=GENERATED, fontsize=8, va="bottom")
        return _svg(figure, "classes", "Dot plot: accuracy by class of cell and by truth")


def confidence(results: Results) -> str:
    """Accuracy by stated confidence."""
    with _figure(3.5, 2.7, left=0.16, right=0.98, bottom=0.24) as (figure, axes):
        _columns(axes, results.by_confidence, HEADLINE)
        axes.set_xlabel("stated confidence (1 is a guess)")
        axes.set_ylabel("right (%)")
        return _svg(figure, "confidence", "Dot plot: accuracy by stated confidence")


def order(results: Results) -> str:
    """Accuracy and response time over the course of the session."""
    with _figure(3.5, 2.7, left=0.16, right=0.86, bottom=0.24) as (figure, axes):
        _columns(axes, results.by_block, HEADLINE)
        axes.set_xlabel("trial number in the reader’s own order")
        axes.set_ylabel("● right (%)", color=HEADLINE)
        times = axes.twinx()
        seconds = [group.median_response_time_s for group in results.by_block]
        times.plot(range(len(seconds)), seconds, "-s", color=GENERATED, markersize=3, linewidth=0.8)
        times.set_ylim(0, 1.6 * max(seconds) or 1)
        times.set_ylabel("■ median response time (s)", color=GENERATED)
        times.spines["right"].set_visible(True)
        return _svg(figure, "order", "Accuracy and median response time by quarter of the session")


@contextmanager
def _figure(
    width: float, height: float, *, left: float, right: float, bottom: float | None = None
) -> Iterator[tuple[Figure, Axes]]:
    # Margins in inches above and below: a figure with many rows must not grow its margins.
    below = 0.48 / height if bottom is None else bottom
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(width, height))
        axes = figure.add_axes((left, below, right - left, 1 - below - 0.14 / height))
        yield figure, axes


def _percent_axis(axes: Axes, which: str) -> None:
    if which == "x":
        axes.set_xlim(0, 100)
        axes.set_xticks(range(0, 101, 25))
        axes.axvline(CHANCE, color=QUIET, linewidth=0.8, linestyle=(0, (3, 2)), zorder=1)
    else:
        axes.set_ylim(0, 100)
        axes.set_yticks(range(0, 101, 25))
        axes.axhline(CHANCE, color=QUIET, linewidth=0.8, linestyle=(0, (3, 2)), zorder=1)


def _dot(axes: Axes, accuracy: Proportion, row: float, *, colour: str, hollow: bool) -> None:
    axes.plot(
        [100 * accuracy.ci_low, 100 * accuracy.ci_high], [row, row], color=colour, linewidth=1.1
    )
    axes.plot(
        100 * accuracy.estimate,
        row,
        "o",
        color=colour,
        markersize=5,
        markerfacecolor="white" if hollow else colour,
        markeredgewidth=1.1,
        zorder=3,
        clip_on=False,
    )


def _columns(axes: Axes, groups: Sequence[Group], colour: str) -> None:
    _percent_axis(axes, "y")
    for column, group in enumerate(groups):
        accuracy = group.accuracy
        limits = [100 * accuracy.ci_low, 100 * accuracy.ci_high]
        axes.plot([column, column], limits, color=colour, linewidth=1.1)
        axes.plot(
            column,
            100 * accuracy.estimate,
            "o",
            color=colour,
            markersize=5,
            zorder=3,
            clip_on=False,
        )
        axes.text(column, 2, f"n {accuracy.n_trials}", fontsize=7.5, color=QUIET, ha="center")
    axes.set_xticks(range(len(groups)), [group.name for group in groups], fontsize=8)
    axes.set_xlim(-0.5, len(groups) - 0.5)


def _row_text(
    axes: Axes, row: float, accuracy: Proportion | CrossedAccuracy, n_correct: int, **font: str
) -> None:
    limits = interval(accuracy.ci_low, accuracy.ci_high)
    for (position, align, _), text in zip(
        _TEXT_COLUMNS,
        (percent(accuracy.estimate), limits, f"{n_correct} / {accuracy.n_trials}"),
        strict=True,
    ):
        axes.text(
            position,
            row,
            text,
            transform=axes.get_yaxis_transform(),
            fontsize=8.5,
            ha=align,
            va="center_baseline",
            **font,  # type: ignore[arg-type]
        )


def _column_heads(axes: Axes, row: float) -> None:
    for position, align, text in _TEXT_COLUMNS:
        axes.text(
            position,
            row,
            text,
            transform=axes.get_yaxis_transform(),
            fontsize=8,
            color=QUIET,
            ha=align,
        )


def _short(name: str) -> str:
    return name if len(name) <= 18 else name[:17] + "…"


def _svg(figure: Figure, name: str, label: str) -> str:
    buffer = io.StringIO()
    with warnings.catch_warnings():
        # The browser has the glyphs that matplotlib's own font lacks.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    svg = buffer.getvalue()
    # Only what is inside <svg>, and nothing that reaches out of it: its style sheet would restyle
    # the page, its ids would clash with the next figure's, its fonts are not the page's.
    body = re.sub(r"<(metadata|style)\b.*?</\1>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    body = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", body)
    body = re.sub(r"font-family: [^;\"]*;?", "", body)
    view_box = re.search(r'viewBox="[^"]*"', body)
    assert view_box is not None
    return (
        f'<svg role="img" aria-label="{escape(label)}" xmlns="http://www.w3.org/2000/svg" '
        f'xmlns:xlink="http://www.w3.org/1999/xlink" {view_box[0]} '
        f'style="stroke-linejoin: round; stroke-linecap: butt">{body[body.index(">") + 1 :]}'
    )
