"""What researchers see and press: one page, the studies on the left, the chosen one on the right.

A press is one call to `Registry` in the name of whoever is logged in; then everything is shown
anew from the database. Nothing is kept in the page or in Gradio's state.
"""

import csv
import hashlib
import logging
import secrets
from collections.abc import Callable, Sequence
from io import StringIO
from typing import Any

import gradio as gr

from studies.allocation import AllocationError
from studies.protocol import ProtocolError
from studies.responses import ResponseError
from webapp import admin_acts as acts
from webapp import admin_views as views
from webapp.admin_access import Parcel, Parcels
from webapp.admin_acts import Act, Done, Press, Updates
from webapp.database import Database, utc_now
from webapp.errors import WebappError
from webapp.export import export_zip
from webapp.people import labels_in
from webapp.registry import Invitation, Registry

REFUSALS = (WebappError, AllocationError, ProtocolError, ResponseError)
"""Their words are meant for the person at the screen; those of other errors may tell too much."""

log = logging.getLogger(__name__)


class AdminPages:
    """Layout, wiring, and what each button does."""

    def __init__(self, database: Database, parcels: Parcels, readers_url: str) -> None:
        self._database, self._parcels, self._readers_url = database, parcels, readers_url

    def blocks(self) -> gr.Blocks:
        """The page, wired up."""
        with gr.Blocks(
            title="Reader studies",
            analytics_enabled=False,
            fill_width=True,
            delete_cache=(600, 600),
        ) as blocks:
            self.bar = gr.HTML()
            # Beside the list, because Gradio refuses what it has forgotten to have offered: it
            # forgets an hour after a laptop went to sleep.
            self.study_id = gr.Textbox(visible="hidden")
            with gr.Row(elem_classes="cy-main"):
                with gr.Column(scale=0, min_width=260, elem_classes="cy-side"):
                    self.study = gr.Radio(label="Studies", elem_classes="cy-studies")
                with gr.Column(scale=1, elem_classes="cy-body"):
                    self.heading = gr.HTML()
                    with gr.Row(elem_classes="cy-step"):
                        self.reason = gr.Textbox(max_length=2000, scale=1, visible=False)
                        self.steps = {
                            state: gr.Button(step.button, variant="primary", scale=0, visible=False)
                            for state, step in views.STEPS.items()
                            if step.button
                        }
                        self.reopen = gr.Button("Open again", scale=0, visible=False)
                    self.status = gr.HTML()
                    with gr.Tabs():
                        self._lay_out_tabs()
            chosen = self.study.input(None, self.study, self.study_id, js="study => study")
            wires: tuple[tuple[Any, Act, list[Any]], ...] = (
                (blocks.load, acts.show, []),
                (chosen.then, acts.show, []),
                (self.refresh.click, acts.show, []),
                (self.steps["audited"].click, acts.freeze, [self.reason]),
                (self.steps["frozen"].click, acts.open_study, []),
                (self.steps["open"].click, acts.close, []),
                (self.steps["closed"].click, acts.unblind, [self.reason]),
                (self.steps["unblinded"].click, acts.report, [self.reason]),
                (self.reopen.click, acts.open_study, []),
                (self.make_links.click, self.invite, [self.labels, self.valid_days]),
                (self.new_link.click, self.reissue, [self.reader, self.valid_days]),
                (self.revoke.click, acts.revoke, [self.reader]),
                (self.withdraw.click, acts.withdraw, [self.reader, self.why_withdrawn]),
                (self.amend.click, acts.amend, [self.amended, self.why_amended]),
                (self.verify.click, acts.verify, []),
                (self.export.click, self.make_export, []),
            )
            for listen, act, values in wires:
                # Gradio's defaults would publish each handler, queue it and run one at a time.
                listen(
                    self._handler(act),
                    [self.study_id, *values],
                    self._outputs(),
                    api_name=act.__name__,
                    queue=False,
                    concurrency_limit=None,
                    show_progress="hidden",
                    api_visibility="private",
                )
        return blocks

    def _lay_out_tabs(self) -> None:
        with gr.Tab("Progress"):
            self.monitor = gr.HTML()
            self.refresh = gr.Button("Refresh", size="sm", scale=0)
        with gr.Tab("Readers"):
            with gr.Row():
                with gr.Column():
                    self.labels = gr.File(
                        label="Readers to invite (.csv with a column “label”)",
                        file_types=[".csv"],
                        height=150,
                    )
                    self.valid_days = gr.Number(
                        180, label="Days for which new links open", precision=0
                    )
                    self.make_links = gr.Button("Invite and make links", variant="primary")
                with gr.Column():
                    self.reader = gr.Dropdown(label="One reader", allow_custom_value=True)
                    with gr.Row():
                        self.new_link = gr.Button("New link")
                        self.revoke = gr.Button("Revoke links")
                    self.why_withdrawn = gr.Textbox(label="Reason for withdrawing", max_length=2000)
                    self.withdraw = gr.Button("Withdraw the reader")
            self.links_note = gr.HTML()
            self.links = gr.Dataframe(
                headers=["reader", "label", "link"],
                interactive=False,
                visible=False,
                wrap=True,
                column_widths=["20%", "25%", "55%"],
            )
        with gr.Tab("Audit"):
            self.audit = gr.HTML()
        with gr.Tab("Protocol"):
            self.protocol = gr.HTML()
            with gr.Row():
                self.amended = gr.File(
                    label="A new version (.toml)", file_types=[".toml"], height=150
                )
                with gr.Column():
                    self.why_amended = gr.Textbox(label="Reason for amending", max_length=2000)
                    self.amend = gr.Button("Amend the protocol")
        with gr.Tab("Log"):
            self.verify = gr.Button("Verify the log and what is frozen", size="sm", scale=0)
            self.log = gr.Dataframe(
                headers=["", "at (UTC)", "who", "what", "details", "hash"],
                interactive=False,
                wrap=True,
                column_widths=["5%", "19%", "11%", "11%", "40%", "14%"],
            )
        with gr.Tab("Data"):
            self.data = gr.HTML()
            self.export = gr.Button("Make the export", scale=0)
            self.download = gr.HTML()

    def _outputs(self) -> list[Any]:
        return [
            *(
                self.bar,
                self.study_id,
                self.study,
                self.heading,
                self.reason,
                *self.steps.values(),
                self.reopen,
            ),
            *(self.status, self.monitor, self.labels, self.reader, self.why_withdrawn),
            *(self.links_note, self.links, self.audit, self.protocol, self.amended),
            *(self.why_amended, self.log, self.data, self.download),
        ]

    def _handler(self, act: Act) -> Callable[..., Updates]:
        # What was uploaded is read once, and has to be given again after a refusal.
        forget: Updates = {self.labels: None, self.amended: None}

        def handle(request: gr.Request, study_id: str | None, *values: Any) -> Updates:
            try:
                if not request.username:
                    raise WebappError("you are not logged in any more; load this page again.")
                registry = Registry(self._database, actor=request.username)
                press = Press(
                    registry=registry, researcher=request.username, study_id=study_id or ""
                )
                said, beside = act(press, *values)
                return (
                    self._study(press) | {self.status: views.macros.status(said, "done")} | beside
                )
            except REFUSALS as refusal:
                return forget | {self.status: views.macros.status(str(refusal), "refused")}
            except Exception:
                code = secrets.token_hex(3)
                log.exception("admin error %s", code)
                words = f"That did not work: error {code}. The server's log tells more under it."
                return forget | {self.status: views.macros.status(words, "failed")}

        return handle

    def _study(self, press: Press) -> Updates:
        """Everything about the chosen study, or the first; what was typed is cleared."""
        studies = {one.study_id: one for one in press.registry.studies()}
        bar = {self.bar: views.macros.bar(press.researcher)}
        if not studies:
            return bar | {self.heading: views.macros.no_study()}
        chosen = studies.get(press.study_id) or next(iter(studies.values()))
        step = views.step_of(chosen)
        readers = press.registry.monitor(chosen.study_id)
        buttons = {
            button: gr.Button(visible=state == chosen.state) for state, button in self.steps.items()
        }
        return {
            **bar,
            **buttons,
            self.study_id: chosen.study_id,
            self.study: gr.Radio(
                choices=[(views.line_of_study(one), one.study_id) for one in studies.values()],
                value=chosen.study_id,
            ),
            self.heading: views.heading(chosen),
            self.reason: gr.Textbox("", label=step.asks, visible=bool(step.asks)),
            self.reopen: gr.Button(visible=chosen.state == "closed"),
            self.monitor: views.monitor(readers, utc_now()),
            self.labels: None,
            self.reader: gr.Dropdown(
                choices=[(views.line_of_reader(one), one.participant_id) for one in readers],
                value=None,
            ),
            self.why_withdrawn: "",
            self.links_note: "",
            self.links: gr.Dataframe(visible=False),
            self.audit: views.audit(chosen),
            self.protocol: views.macros.protocol(chosen.protocol.to_toml()),
            self.amended: None,
            self.why_amended: "",
            self.log: views.log_rows(press.registry.events(chosen.study_id)),
            self.data: views.data(chosen),
            self.download: "",
        }

    def invite(self, press: Press, table: str | None, valid_days: float | None) -> Done:
        """Add the readers of an uploaded table."""
        with acts.uploaded(table, "a table of readers (.csv)") as path:
            labels = labels_in(path)
        invited = press.registry.invite(press.study_id, labels, valid_days=_days(valid_days))
        return f"{len(invited)} readers are invited.", self._links(press, invited)

    def reissue(self, press: Press, reader: str | None, valid_days: float | None) -> Done:
        """A new link for one reader."""
        labels = {one.participant_id: one.label for one in press.registry.monitor(press.study_id)}
        token = press.registry.reissue(acts.chosen(reader), _days(valid_days))
        made = Invitation(
            participant_id=acts.chosen(reader), label=labels[acts.chosen(reader)], token=token
        )
        return f"Earlier links of {reader} open nothing any more.", self._links(press, [made])

    def make_export(self, press: Press) -> Done:
        """Everything that may be known by now, in one file."""
        content, name = export_zip(press.registry, press.study_id), f"{press.study_id}.zip"
        address = self._parcels.put(Parcel(owner=press.researcher, file_name=name, content=content))
        digest = hashlib.sha256(content).hexdigest()
        shown = views.macros.export(address, name, len(content) // 1024 + 1, digest)
        return "The export is made, and noted in the log.", {self.download: shown}

    def _links(self, press: Press, made: Sequence[Invitation]) -> Updates:
        """Shown and to be fetched once: the database keeps digests only."""
        rows = [
            (one.participant_id, one.label, f"{self._readers_url}/s/{one.token}") for one in made
        ]
        table, name = StringIO(), f"{press.study_id}-links.csv"
        csv.writer(table).writerows([("reader", "label", "link"), *rows])
        address = self._parcels.put(
            Parcel(owner=press.researcher, file_name=name, content=table.getvalue().encode())
        )
        return {
            self.links_note: views.macros.links(len(rows), address, name),
            self.links: gr.Dataframe([list(row) for row in rows], visible=True),
        }


def _days(valid_days: float | None) -> int:
    if not valid_days or valid_days < 1:
        raise WebappError("links need at least 1 day; give the number of days.")
    return int(valid_days)
