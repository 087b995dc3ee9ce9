"""What the researchers' pages show: values in, HTML out. The layout itself is in `admin.jinja`."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from webapp.audit import AuditReport
from webapp.audit_features import GROUPS
from webapp.chain import Event
from webapp.monitor import ReaderStatus
from webapp.registry import BEFORE_UNBLINDING, StudySummary

LIFE_CYCLE = ("draft", "audited", "frozen", "open", "closed", "unblinded", "reported")

macros: Any = (
    Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    .get_template("admin.jinja")
    .module
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What comes next in a study's life, and what it needs."""

    words: str
    command: str = ""
    """Where it is done elsewhere."""
    button: str = ""
    """Empty: nothing to press."""
    asks: str = ""
    """Label of the text that goes along; empty: none."""


STEPS = {
    "draft": Step(
        words="Next, the blinding audit looks for tells in the pictures. It is started where the "
        "pictures are:",
        command="webapp audit",
    ),
    "audited": Step(
        words="The audit found no tell. Next, freeze: protocol, stimuli, allocation and analysis "
        "plan are hashed together.",
        button="Freeze",
    ),
    "frozen": Step(words="Next, open the study: invited readers can then begin.", button="Open"),
    "open": Step(
        words="Readers are at work. Next, when enough have finished, close: no further answer is "
        "taken.",
        button="Close",
    ),
    "closed": Step(
        words="Next, unblind: from then on the truth can be seen, and there is no way back. Or "
        "open again, for more readers.",
        button="Unblind",
        asks="Reason for unblinding, for the log",
    ),
    "unblinded": Step(
        words="Next, export the data and analyse it; then note the report's SHA-256 here.",
        command="studies analyse",
        button="Record the report",
        asks="SHA-256 of the report",
    ),
    "reported": Step(words="The report is recorded; nothing more is due."),
}
"""By state of the study."""

FAILED_AUDIT = Step(
    words="The audit found what tells generated from real pictures. Make the set anew (see Audit "
    "for how), or freeze it on the record.",
    button="Freeze",
    asks="Reason for going on in spite of the audit, for the log and the report",
)


def step_of(study: StudySummary) -> Step:
    """What is due."""
    is_failed = study.state == "audited" and not study.audit_passed
    return FAILED_AUDIT if is_failed else STEPS[study.state]


def line_of_study(study: StudySummary) -> str:
    """In the list of studies."""
    if study.state == "open":
        return f"{study.study_id} · open · {study.n_finished}/{study.protocol.n_participants}"
    return f"{study.study_id} · {study.state}"


def line_of_reader(reader: ReaderStatus) -> str:
    """In the list of readers."""
    return " · ".join(filter(None, (reader.participant_id, reader.label, reader.state)))


def heading(study: StudySummary) -> str:
    """Title, the life-cycle strip, and what is next."""
    return str(macros.heading(study, LIFE_CYCLE, step_of(study)))


def monitor(readers: Sequence[ReaderStatus], now: datetime) -> str:
    """Progress, times, dropouts and attention checks; nothing about how well anybody judges."""
    times = [one.median_response_time_s for one in readers if one.median_response_time_s]
    right, asked = (sum(one.attention[which] for one in readers) for which in (0, 1))
    tiles = (
        ("Finished", f"{_count(readers, 'finished')} of {len(readers)}"),
        ("Reading", _count(readers, "reading", "consented")),
        ("Not begun", _count(readers, "invited")),
        ("Dropped out", _count(readers, "stale", "withdrawn")),
        ("Answers", f"{sum(one.n_answered for one in readers):,}"),
        ("Median time", f"{median(times):.1f} s" if times else "–"),
        ("Controls right", f"{right} of {asked}" if asked else "–"),
    )
    return str(macros.monitor(tiles, readers, partial(_ago, now=now)))


def audit(study: StudySummary) -> str:
    """The blinding audit's report without its single pictures, whose truth it would tell."""
    if not study.audit_json:
        return '<p class="cy-note">This study was not audited yet.</p>'
    report = AuditReport.model_validate_json(study.audit_json)
    names = {code: group.by for code, group in GROUPS.items()}
    return str(macros.audit(report, study.audit_passed, names, _percent_of_axis))


def log_rows(events: Sequence[Event]) -> list[list[str | int]]:
    """The log for reading, the newest first."""
    return [
        [
            one.number,
            f"{datetime.fromisoformat(one.at):%Y-%m-%d %H:%M:%S}",
            one.actor,
            one.kind,
            "; ".join(
                f"{name.replace('_', ' ')}: {_plain(value)}"
                for name, value in json.loads(one.detail_json).items()
            ),
            one.event_hash[:12],
        ]
        for one in reversed(events)
    ]


def data(study: StudySummary) -> str:
    """What an export would hold."""
    return str(macros.data(study, study.state in BEFORE_UNBLINDING))


def _count(readers: Sequence[ReaderStatus], *states: str) -> int:
    return sum(one.state in states for one in readers)


def _percent_of_axis(auc: float) -> float:
    """Where an area lies on an axis from 0.35 to 1."""
    return round(100 * max(0.0, (auc - 0.35) / 0.65), 1)


def _plain(value: Any) -> str:
    if isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value):
        return f"{value[:12]}…"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, dict):
        return ", ".join(f"{name} {one}" for name, one in value.items())
    return str(value)


def _ago(moment: str, now: datetime) -> str:
    if not moment:
        return "never"
    minutes = (now - datetime.fromisoformat(moment)).total_seconds() / 60
    if minutes < 60:
        return f"{max(minutes, 0):.0f} min ago"
    return f"{minutes / 60:.0f} h ago" if minutes < 48 * 60 else f"{minutes / 1440:.0f} days ago"
