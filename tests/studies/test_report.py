import html
import os
import re
import xml.etree.ElementTree as ET
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from studies import outcomes, report
from studies.analysis import analyse
from studies.bots import simulated_responses
from studies.estimate import Estimate
from studies.protocol import AnalysisPlan, ExclusionRules, Protocol
from studies.references import REFERENCES, cited
from studies.report import LIMITS, answer, render

CHROMIUM = Path(os.environ.get("PLAYWRIGHT_CHROMIUM", "/usr/bin/chromium"))
VOID = {"meta", "br", "link", "img", "hr", "input"}
DIGEST = "d" * 64


class Page(HTMLParser):
    """A page read strictly: every tag closed, and what it would load."""

    def __init__(self, page):
        super().__init__()
        self.open, self.loads, self.ids, self.tables = [], [], [], {}
        self.words, self.tags, self.order = [], Counter(), []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags[tag] += 1
        values = dict(attributes)
        self.order.append(values.get("id") or tag)
        self.loads += [
            values[name]
            for name in ("src", "href", "xlink:href", "srcset", "data", "action", "poster")
            if values.get(name)
        ]
        if "id" in values:
            self.ids.append(values["id"])
        if tag == "table":
            self.tables[values.get("id")] = self.table = []
        if tag == "tr":
            self.table.append([])
        if tag in ("td", "th"):
            self.table[-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" in self.open:
            self.loads += re.findall(r"url\((.*?)\)|@import\s+(\S+)", data)
            return
        self.words.append(data)
        if self.open and {"td", "th"} & set(self.open):
            self.table[-1][-1] += data

    @property
    def text(self):
        return re.sub(r"\s+", " ", " ".join(self.words))


def everything():
    """A study in which every part of the report has something to show."""
    table = simulated_responses(n_readers=7, n_cases=24, d_prime=0.8, class_names=("ig", "mono"))
    number = table["stimulus_id"].str[5:].astype(int)
    experts = table["participant_id"].isin(["reader-1", "reader-2", "reader-3"])
    moments = pd.Timestamp("2026-03-02T09:00Z") + pd.to_timedelta(table.index, unit="min")
    table = table.assign(
        generator=np.where(~table["is_synthetic"], "", np.where(number % 4 == 0, "gan", "edm")),
        experience=np.where(experts, "expert", "student"),
        model_confidence=0.3 + 0.02 * number,
        repeat_number=1,
        responded_at=moments,
    )
    table.loc[table["participant_id"] == "reader-7", "response_time_s"] = 0.1
    again = table[number <= 6].assign(repeat_number=2)
    again["trial_number"] = again.groupby("participant_id").cumcount() + 25
    return pd.concat([table, again], ignore_index=True)


PROTOCOL = Protocol(
    study_id="whole",
    title="All <of> it",
    n_participants=6,
    n_trials=24,
    analysis=AnalysisPlan(
        equivalence_margin=0.05,
        secondary=("sensitivity", "specificity", "auc", "d_prime", "drift", "response_time",
                   "class", "generator", "experience"),
        index="model_confidence",
        looks=(6, 12),
        spending="obrien-fleming",
        exclusions=ExclusionRules(fastest_median_s=0.5),
    ),
)  # fmt: skip
TABLE = everything()
BARE = TABLE.loc[
    TABLE["repeat_number"] == 1, ["participant_id", "stimulus_id", "is_synthetic", "response"]
]


@pytest.fixture(scope="module")
def results():
    return analyse(PROTOCOL, TABLE, data_digest=DIGEST)


@pytest.fixture(scope="module")
def whole(results):
    return render(results)


@pytest.fixture(scope="module")
def page(whole):
    return Page(whole)


@pytest.fixture(scope="module")
def plain():
    """The report of a study with the needed columns and no promise but the primary outcome."""
    protocol = Protocol(study_id="plain", n_participants=7, n_trials=24)
    return Page(render(analyse(protocol, BARE, data_digest=DIGEST)))


def test_the_report_loads_nothing_from_elsewhere(page, plain, whole):
    for one in (page, plain):
        assert one.loads != []
        assert all(target.startswith("#") for target in one.loads)
        assert {target[1:] for target in one.loads} <= set(one.ids)
        assert not {"script", "link", "iframe", "object", "embed", "img"} & set(one.tags)
    assert set(re.findall(r"https?://[^\"'\s<]+", whole)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }


def test_the_same_results_give_the_same_bytes(results, whole):
    again = analyse(PROTOCOL, TABLE, data_digest=DIGEST)
    assert again.to_json() == results.to_json()
    assert render(again) == whole


def test_every_figure_is_well_formed_and_labelled_and_no_id_is_there_twice(page, whole):
    figures = [ET.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", whole, flags=re.DOTALL)]
    assert len(figures) == page.tags["figure"] >= 14
    labels = [figure.get("aria-label") for figure in figures]
    assert all(figure.get("role") == "img" for figure in figures)
    assert all(labels)
    assert len(set(labels)) == len(labels)
    assert len(page.ids) == len(set(page.ids))


def test_figures_are_numbered_in_their_order(page):
    numbers = re.findall(r"Figure ([A-Z]?\d)\.", page.text)
    assert numbers == sorted(numbers, key=lambda one: ("CPA".find(one[0]), one))
    assert len(set(numbers)) == len(numbers) == page.tags["figure"]


def test_the_answer_stands_before_everything_else(page, plain, results):
    for one in (page, plain):
        at = one.order.index("answer")
        assert not {"table", "svg", "figure", "h2"} & set(one.order[:at])
    assert re.sub(r"\s+", " ", answer(results)) in page.text
    found = results.primary.interval
    assert answer(results).startswith("6 readers judged 24 pictures (144 judgements). Accuracy was")
    assert (
        f"Accuracy was {100 * found.estimate:.1f} % (95 % interval {100 * found.ci_low:.1f} to "
        in (page.text)
    )


def test_the_report_prints_exactly_the_counts_that_the_readers_gave(page):
    first, given = TABLE[TABLE["repeat_number"] == 1], {}
    for name, rows in first.groupby("participant_id"):
        counts = Counter(zip(rows["is_synthetic"], rows["response"], strict=True))
        hits, rejections = counts[True, "generated"], counts[False, "real"]
        wrong = counts[True, "real"], counts[False, "generated"]
        given[name] = (len(rows), hits + rejections, hits, *wrong, rejections)
    printed = {
        cells[0].removesuffix(" †"): tuple(map(int, cells[1:7]))
        for cells in page.tables["readers"][1:]
    }
    assert printed == given


def test_every_source_that_is_cited_is_listed_and_no_other(page, plain):
    for one in (page, plain):
        keys = list(dict.fromkeys(re.findall(r"\[([^\]\d]+ \d{4})\]", one.text)))
        assert [key for key in keys if REFERENCES[key] in one.text] == keys
        listed = [key for key, source in REFERENCES.items() if source in one.text]
        assert sorted(listed) == sorted(keys)
        assert {"Obuchowski 1995", "Hillis 2007", "Wilson 1927"} <= set(keys)
    assert "Lan 1983" in page.text
    assert "Lan 1983" not in plain.text


def test_references_start_with_their_author_and_hold_their_year():
    for key, source in REFERENCES.items():
        author, year = key.rsplit(" ", 1)
        assert source.startswith(author)
        assert year in source
    with pytest.raises(KeyError, match="Nobody 1999"):
        cited(["As shown [Nobody 1999]."])


def test_the_methods_tell_what_was_run_and_nothing_that_was_not(page, plain):
    for words in (
        "two one-sided t tests",
        "this is look 1 of 2, with 6 readers",
        "Holm’s method",
        "repeated confidence interval",
    ):
        assert words in page.text
        assert words not in plain.text
    assert "Whether they are indistinguishable was not tested" in plain.text
    assert ", to be 0.0031 or less at this look)" in page.text
    assert "Look 1 of 2 that the protocol declared. " in page.text


def test_the_naive_interval_is_for_comparison_only(page):
    head, *rows = page.tables["estimates"]
    assert head[-1] == "naive,for comparison only"
    assert len(rows) == 5
    assert "“Naive” counts all judgements as independent, which they are not." in page.text


def test_the_result_is_shown_with_and_without_the_excluded(page, results):
    rows = page.tables["estimates"]
    assert rows[-1][0] == "Accuracy, nobody left out"
    both = [re.match(r"\d+\.\d", rows[i][1])[0] for i in (1, -1)]
    found = results.primary.outcome, results.without_exclusions
    assert both == [f"{100 * one.headline.estimate:.1f}" for one in found]
    assert page.tables["excluded"][1][:2] == [
        "reader-7",
        "took 0.1 s at the median; at least 0.5 s were declared",
    ]
    assert "reader-7 †" in page.text


def test_every_secondary_outcome_has_its_row_and_its_corrected_p(page, results):
    rows = page.tables["secondary"][1:]
    assert len(rows) == len(results.secondary) == 9
    for row, one in zip(rows, results.secondary, strict=True):
        assert row[0].startswith(one.label)
        assert row[2] == ("50 %" if one.null and one.name != "auc" else f"{one.null:g}")
        printed = float(row[4].removeprefix("< "))
        assert printed == pytest.approx(max(one.p_adjusted, 0.001), rel=0.06)


@pytest.mark.parametrize(
    ("name", "null", "estimate", "low", "high", "text"),
    [
        ("sensitivity", 0.5, 0.58, 0.512, 1.02, "58.0 (51.2 to 100.0) %"),
        ("auc", 0.5, 0.58, 0.512, 1.02, "0.58 (0.51 to 1.02)"),
        ("drift", 0.0, -0.058, -0.1, 0.001, "−5.8 (−10.0 to 0.1) points"),
        ("d_prime", 0.0, -0.58, -1.0, 0.0, "−0.58 (−1.00 to 0.00)"),
        ("response_time", 0.0, 0.2, 0.1, 0.3, "0.20 (0.10 to 0.30) (natural logarithm)"),
    ],
)
def test_a_secondary_outcome_is_printed_in_its_unit(name, null, estimate, low, high, text):
    value = Estimate(estimate=estimate, ci_low=low, ci_high=high, confidence_level=0.95, method="")
    one = outcomes.Tested(
        name=name, label="", estimate=value, null=null, p_value=0.0004, p_adjusted=0.0437
    )
    printed = report.tested_text(one)
    assert printed["estimate"] == text
    assert (printed["p"], printed["p_adjusted"]) == ("< 0.001", "0.044")
    gone = replace(one, estimate=Estimate.not_estimable("m", "why", 0.95), p_value=None)
    printed = report.tested_text(gone)
    assert [printed[name] for name in ("estimate", "p", "reason")] == ["not estimable", "–", "why"]


def test_an_area_is_printed_as_a_share_and_not_in_percent():
    protocol = Protocol(study_id="s", n_participants=7, n_trials=24,
                        analysis=AnalysisPlan(primary="auc"))  # fmt: skip
    table = TABLE[TABLE["repeat_number"] == 1].drop(columns=["repeat_number", "responded_at"])
    found = analyse(protocol, table[[*BARE, "confidence"]], data_digest=DIGEST)
    headline = found.primary.interval
    assert f"confidence was {headline.estimate:.2f} (95 % interval {headline.ci_low:.2f} to " in (
        answer(found)
    )


def test_the_report_names_protocol_data_software_and_limits(page, plain):
    for words in (PROTOCOL.protocol_hash, DIGEST, f"numpy {np.__version__}", "2026-03-02T09:00:00"):
        assert words in page.text
    for one in (page, plain):
        assert all(limit in one.text for limit in LIMITS)
        assert "nothing about the diversity" in one.text
        assert "nothing about their diagnostic fidelity" in one.text


def test_what_comes_from_the_study_cannot_become_markup():
    hostile = "<script>alert(1)</script>"
    names = (hostile, "$x_1$ & 細胞 \"'")
    table = simulated_responses(n_readers=3, n_cases=16, class_names=names)
    first = table["participant_id"] == "reader-1"
    table = table.assign(
        participant_id=table["participant_id"].where(~first, "<b>Eve</b>"),
        experience=np.where(first, "<i>expert", "</svg>"),
        generator=np.where(table["is_synthetic"], "<img src=x onerror=y>", ""),
    )
    plan = AnalysisPlan(secondary=("class", "experience"), index="consensus")
    protocol = Protocol(study_id="s", title=hostile, n_participants=3, n_trials=16, analysis=plan)
    found = render(analyse(protocol, table, data_digest=DIGEST))
    page = Page(found)
    assert not {"script", "img", "b>eve"} & set(page.tags)
    assert f"<h1>{html.escape(hostile)}</h1>" in found
    assert "class $x_1$ & 細胞 \"' less the others" in page.text
    assert "<script>alert(1)<…" in page.text
    assert all(ET.fromstring(svg) is not None for svg in re.findall(r"(?s)<svg.*?</svg>", found))


@pytest.mark.browser
@pytest.mark.skipif(not CHROMIUM.exists(), reason=f"no browser at {CHROMIUM}")
def test_a_browser_prints_it_and_asks_for_nothing(whole, tmp_path):
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = tmp_path / "report.html"
    path.write_text(whole, encoding="utf-8")
    asked, complaints = [], []
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        shown = browser.new_page(viewport={"width": 1180, "height": 900})
        shown.on("request", lambda request: asked.append(request.url))
        shown.on("console", lambda said: complaints.append(said.text))
        shown.goto(path.as_uri())
        wide = shown.evaluate("document.documentElement.scrollWidth")
        pdf = shown.pdf(prefer_css_page_size=True)
        browser.close()
    assert asked == [path.as_uri()]
    assert complaints == []
    assert wide <= 1180
    assert pdf.startswith(b"%PDF-")
    assert 4 <= len(re.findall(rb"/Type /Page\b", pdf)) <= 20
