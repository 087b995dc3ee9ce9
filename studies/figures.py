"""The figures of the main results, as inline SVG: no file, font or script from elsewhere."""

from collections.abc import Sequence

from matplotlib.axes import Axes

from studies.analysis import Results
from studies.estimate import Estimate
from studies.outcomes import Part
from studies.plotting import (
    GENERATED,
    HEADLINE,
    INK,
    QUIET,
    REAL,
    RULE,
    figure,
    interval,
    percent,
    percent_axis,
    short,
    svg,
    whisker,
)

_TEXT_COLUMNS = ((1.13, "right", "%"), (1.17, "left", "interval"), (1.585, "right", "right / n"))
"""Position in widths of the axes, alignment and head of what stands beside each row."""


def readers_forest(results: Results) -> str:
    """Accuracy of every reader, then of all of them: crossed, these readers, and naive."""
    accuracy = results.outcomes[0]
    counts = f"{accuracy.n_correct} / {accuracy.n_judgements}"
    summaries = [
        ("Other readers", accuracy.other_readers, HEADLINE, "bold"),
        ("These readers", accuracy.these_readers, HEADLINE, "normal"),
        ("Naive *", accuracy.naive, QUIET, "normal"),
    ]
    n = len(results.readers)
    with figure(7.2, 0.72 + 0.27 * (n + 3.5), left=0.19, right=0.70) as (fig, axes):
        percent_axis(axes, "x")
        axes.set_xlabel("judgements that were right (%)")
        margin = results.primary.equivalence
        if margin is not None and results.primary.outcome.name == "accuracy":
            axes.axvspan(100 * margin.low, 100 * margin.high, color=RULE, alpha=0.45, linewidth=0)
        for row, reader in enumerate(results.readers):
            counted = reader.excluded is None
            colour = INK if counted else QUIET
            whisker(axes, reader.accuracy, row, colour=colour, scale=100, hollow=not counted)
            _row_text(axes, row, reader.accuracy, f"{reader.n_correct} / {reader.n_trials}")
        axes.axhline(n - 0.25, color=RULE, linewidth=0.6)
        for row, (_, found, colour, weight) in enumerate(summaries):
            at = n + 0.5 + row
            if row == 0 and found.is_estimable:
                _diamond(axes, found, at)
            else:
                whisker(axes, found, at, colour=colour, scale=100, hollow=row == 2, marker="D")
            _row_text(axes, at, found, counts, weight=weight, color=colour)
        names = [short(one.participant_id) + " †" * bool(one.excluded) for one in results.readers]
        rows = [*range(n), *(n + 0.5 + row for row in range(3))]
        axes.set_yticks(rows, [*names, *(name for name, *_ in summaries)])
        axes.get_yticklabels()[n].set_fontweight("bold")
        axes.set_ylim(n + 3.1, -0.9)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        _column_heads(axes, -0.9)
        return svg(fig, "readers", "Forest plot: accuracy of each reader and of all of them")


def classes(results: Results) -> str:
    """Accuracy by class of cell, apart for real and for generated pictures."""
    names = sorted({part.name for part in results.by_class_real + results.by_class_generated})
    with figure(7.2, 0.72 + 0.44 * len(names), left=0.19, right=0.70) as (fig, axes):
        percent_axis(axes, "x")
        axes.set_xlabel("judgements that were right (%)")
        for parts, offset, colour, hollow in (
            (results.by_class_real, -0.17, REAL, False),
            (results.by_class_generated, 0.17, GENERATED, True),
        ):
            for part in parts:
                row = names.index(part.name) + offset
                whisker(axes, part.accuracy, row, colour=colour, scale=100, hollow=hollow)
                _row_text(axes, row, part.accuracy, _counts(part), color=colour)
        for row in range(1, len(names)):
            axes.axhline(row - 0.5, color=RULE, linewidth=0.6)
        axes.set_yticks(range(len(names)), [short(name) for name in names])
        axes.set_ylim(len(names) - 0.5, -0.75)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        _column_heads(axes, -0.75)
        axes.text(2, -0.75, "● real", color=REAL, fontsize=8, va="bottom")
        axes.text(17, -0.75, "○ generated", color=GENERATED, fontsize=8, va="bottom")
        return svg(fig, "classes", "Dot plot: accuracy by class of cell and by truth")


def groups(results: Results) -> str:
    """Accuracy by generator and by the readers' experience."""
    found = [("generator", part) for part in results.by_generator]
    found += [("readers", part) for part in results.by_experience]
    with figure(7.2, 0.72 + 0.27 * len(found), left=0.30, right=0.70) as (fig, axes):
        percent_axis(axes, "x")
        axes.set_xlabel("judgements that were right (%)")
        for row, (kind, part) in enumerate(found):
            colour = GENERATED if kind == "generator" else INK
            whisker(axes, part.accuracy, row, colour=colour, scale=100, hollow=kind == "generator")
            _row_text(axes, row, part.accuracy, _counts(part))
        axes.set_yticks(range(len(found)), [f"{kind}: {short(part.name)}" for kind, part in found])
        axes.set_ylim(len(found) - 0.4, -0.9)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        _column_heads(axes, -0.9)
        return svg(fig, "groups", "Dot plot: accuracy by generator and by experience of readers")


def confidence(results: Results) -> str:
    """Accuracy by stated confidence."""
    with figure(3.5, 2.7, left=0.16, right=0.98, bottom=0.24) as (fig, axes):
        _columns(axes, results.by_confidence)
        axes.set_xlabel("stated confidence (1 is a guess)")
        axes.set_ylabel("right (%)")
        return svg(fig, "confidence", "Dot plot: accuracy by stated confidence")


def order(results: Results) -> str:
    """Accuracy and response time over the course of the session."""
    with figure(3.5, 2.7, left=0.16, right=0.86, bottom=0.24) as (fig, axes):
        _columns(axes, results.by_block)
        axes.set_xlabel("trial number in the reader’s own order")
        axes.set_ylabel("● right (%)", color=HEADLINE)
        seconds = [part.median_response_time_s for part in results.by_block]
        if all(second is not None for second in seconds):
            shown = [float(second) for second in seconds if second is not None]
            times = axes.twinx()
            times.plot(range(len(shown)), shown, "-s", color=GENERATED, markersize=3, linewidth=0.8)
            times.set_ylim(0, 1.6 * max(shown) or 1)
            times.set_ylabel("■ median response time (s)", color=GENERATED)
            times.spines["right"].set_visible(True)
        return svg(fig, "order", "Accuracy and median response time by quarter of the session")


def _diamond(axes: Axes, found: Estimate, row: float) -> None:
    if found.estimate is None or found.ci_low is None or found.ci_high is None:
        return
    low, high = 100 * max(0.0, found.ci_low), 100 * min(1.0, found.ci_high)
    middle = 100 * found.estimate
    axes.fill(
        [low, middle, high, middle],
        [row, row - 0.3, row, row + 0.3],
        color=HEADLINE,
        linewidth=0,
        zorder=3,
    )


def _columns(axes: Axes, parts: Sequence[Part]) -> None:
    percent_axis(axes, "y")
    for column, part in enumerate(parts):
        accuracy = part.accuracy
        if accuracy.ci_low is not None and accuracy.ci_high is not None:
            limits = [100 * max(0.0, accuracy.ci_low), 100 * min(1.0, accuracy.ci_high)]
            axes.plot([column, column], limits, color=HEADLINE, linewidth=1.1)
        if accuracy.estimate is not None:
            axes.plot(
                column,
                100 * accuracy.estimate,
                "o",
                color=HEADLINE,
                markersize=5,
                zorder=3,
                clip_on=False,
            )
        axes.text(column, 2, f"n {part.n_judgements}", fontsize=7.5, color=QUIET, ha="center")
    axes.set_xticks(range(len(parts)), [part.name for part in parts], fontsize=8)
    axes.set_xlim(-0.5, len(parts) - 0.5)


def _counts(part: Part) -> str:
    return f"{part.n_correct} / {part.n_judgements}"


def _row_text(axes: Axes, row: float, found: Estimate, counts: str, **font: str) -> None:
    estimate = "–" if found.estimate is None else percent(found.estimate)
    texts = (estimate, interval(found.ci_low, found.ci_high), counts)
    for (position, align, _), text in zip(_TEXT_COLUMNS, texts, strict=True):
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
