"""The audit as a page that stands alone, and as JSON."""

import re
from base64 import b64encode
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from studies.estimate import Estimate
from studies.plotting import (
    GENERATED,
    HEADLINE,
    INK,
    QUIET,
    REAL,
    RULE,
    figure,
    name_rows,
    svg,
    whisker,
)
from studies.stimuli import Stimulus, read_stimuli
from webapp.audit import AuditReport, pixels_of, stimuli_digest
from webapp.audit_features import GROUPS, Array, measured
from webapp.errors import WebappError
from webapp.telling import Check, Feature

N_FEATURES, N_SHOWN = 14, 6


def write_report(report: AuditReport, folder: Path, out: Path) -> Path:
    """Write `audit.html` and `audit.json` to the folder `out`; the path of the page.

    Args:
        folder: the stimuli that were audited.

    Raises:
        WebappError: if they have changed since.
    """
    stimuli = read_stimuli(folder)
    if stimuli_digest(folder, stimuli) != report.stimuli_digest:
        raise WebappError(f"the stimuli in {folder} have changed since the audit; audit them anew.")
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("audit.html.jinja").render(
        r=report,
        allowed=0.5 + report.margin,
        by={check.code: _by(check) for check in report.checks},
        groups=Markup(_groups(report)),
        features=Markup(_features(report)),
        shown=list(_shown(report, folder, stimuli)),
        pairs=[(pair, _source(folder / f"{pair.stimulus_id}.png")) for pair in report.closest],
    )
    out.mkdir(parents=True, exist_ok=True)
    (out / "audit.json").write_text(report.to_json(), encoding="utf-8")
    (out / "audit.html").write_text(page, encoding="utf-8")
    return out / "audit.html"


def _by(check: Check) -> str:
    return GROUPS[check.code].by if check.code in GROUPS else "all of it together"


def _source(picture: Path) -> str:
    return f"data:image/png;base64,{b64encode(picture.read_bytes()).decode()}"


def _dots(report: AuditReport, names: Sequence[str], found: Sequence[Check | Feature]) -> str:
    with figure(7.0, 0.26 * len(found) + 0.62, left=0.36, right=0.97) as (fig, axes):
        axes.axvspan(0.5, 0.5 + report.margin, color=RULE, alpha=0.6, linewidth=0)
        axes.axvline(0.5, color=QUIET, linewidth=0.8, linestyle=(0, (3, 2)))
        for row, one in enumerate(found):
            tells = one.tells if isinstance(one, Feature) else one.finding == "tells"
            is_open = isinstance(one, Check) and one.finding == "inconclusive"
            estimate = Estimate(
                estimate=one.auc,
                ci_low=one.ci_low,
                ci_high=one.ci_high,
                confidence_level=report.confidence_level,
                method="area under the ROC curve within classes",
            )
            whisker(
                axes,
                estimate,
                row,
                colour=GENERATED if tells else QUIET if is_open else HEADLINE,
                marker="D" if tells else "o",
                hollow=is_open,
            )
        axes.set_xlim(min(0.3, *(one.ci_low for one in found)), 1.02)
        axes.set_xlabel("area under the ROC curve (0.5: tells nothing, 1: always tells)")
        name_rows(axes, names, longest=48)
        return svg(fig, f"dots{len(found)}", "Areas under the ROC curve with their intervals")


def _groups(report: AuditReport) -> str:
    return _dots(report, [_by(check) for check in report.checks], report.checks)


def _top(report: AuditReport) -> list[tuple[str, Feature]]:
    found = [(check.code, feature) for check in report.checks for feature in check.features]
    return sorted(found, key=lambda one: -one[1].auc)


def _features(report: AuditReport) -> str:
    top = [feature for _, feature in _top(report)[:N_FEATURES]]
    return _dots(report, [feature.name for feature in top], top)


def _shown(
    report: AuditReport, folder: Path, stimuli: Sequence[Stimulus]
) -> Iterator[tuple[Feature, str, dict[str, str]]]:
    """Features with their distributions, and a middling picture of each kind of one class.

    The first of each group that tells; the foremost of all if none does.
    """
    chosen = {c.code: c.features[0] for c in report.checks if c.finding == "tells" and c.features}
    values = measured(pixels_of(folder, stimuli), lambda _what, _done, _of: None)
    drawn = np.array([stimulus.is_synthetic for stimulus in stimuli])
    classes = np.array([stimulus.class_name for stimulus in stimuli])
    for code, feature in list(chosen.items() or _top(report)[:3])[:N_SHOWN]:
        of = values[code][feature.name]
        middling = {}
        rows = np.flatnonzero(drawn)
        for kind in ("generated", "real"):
            middle = rows[np.argsort(of[rows], kind="stable")[len(rows) // 2]]
            middling[kind] = _source(folder / stimuli[middle].file)
            rows = np.flatnonzero(~drawn & (classes == classes[middle]))
        yield feature, Markup(_distribution(feature.name, of[~drawn], of[drawn])), middling


def _distribution(name: str, real: Array, generated: Array) -> str:
    low, high = np.quantile(np.concatenate([real, generated]), (0.005, 0.995))
    bins = np.linspace(low, high, 25) if high > low else np.linspace(low - 1, low + 1, 3)
    clipped = [np.clip(values, bins[0], bins[-1]) for values in (real, generated)]
    with figure(3.3, 1.45, left=0.03, right=0.97) as (fig, axes):
        axes.hist(clipped[0], bins.tolist(), density=True, color=REAL, alpha=0.35)
        axes.hist(
            clipped[1], bins.tolist(), density=True, color=GENERATED, histtype="step", linewidth=1.4
        )
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.locator_params(axis="x", nbins=5)
        axes.set_xlabel(name, color=INK)
        label = f"Distribution of {name} in real and generated pictures"
        return svg(fig, "of-" + re.sub(r"\W+", "-", name), label)
