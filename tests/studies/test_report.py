import json
import re
import xml.etree.ElementTree as ET
from collections import Counter
from html.parser import HTMLParser
from statistics import NormalDist

import numpy as np
import pytest

from studies.analysis import AnalysisError, analyse
from studies.crossed import random_readers_and_cases
from studies.protocol import Protocol
from studies.report import AUTHENTICITY_ONLY, CHANCE_IS_NOT_EQUIVALENCE, render
from studies.responses import ResponseError, read_responses, write_responses
from tests.studies.simulation import digest, simulate, stimulus_set

VOID = {"meta", "br", "link", "img", "hr", "input"}


class Page(HTMLParser):
    """A page read strictly: every tag closed, and what it would load."""

    def __init__(self, html):
        super().__init__()
        self.open, self.loads, self.ids, self.tables = [], [], [], {}
        self.words, self.tags = [], Counter()
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags[tag] += 1
        values = dict(attributes)
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


def study(tmp_path, *, n_readers=6, n_trials=40, stimuli=None, change=None, **reader):
    """Protocol, the rows that were given, and the analysis of the file they were written to."""
    protocol = Protocol(study_id="first-light", n_participants=n_readers, n_trials=n_trials)
    rows = simulate(protocol, stimuli or stimulus_set(13), rng=np.random.default_rng(2), **reader)
    rows = [row if change is None else row.model_copy(update=change(row)) for row in rows]
    write_responses(tmp_path / "r.csv", rows)
    table = read_responses(tmp_path / "r.csv")
    return protocol, rows, analyse(protocol, table, data_digest=digest("file"))


def said_right(row):
    return {"response": "generated" if row.is_synthetic else "real"}


def counts_given(rows):
    """Trials, right, hits, misses, false alarms, correct rejections by reader, counted anew."""
    counts = {}
    for row in rows:
        one = counts.setdefault(row.participant_id, Counter())
        one[row.is_synthetic, row.response] += 1
    return {
        name: (
            sum(one.values()),
            one[True, "generated"] + one[False, "real"],
            one[True, "generated"],
            one[True, "real"],
            one[False, "generated"],
            one[False, "real"],
        )
        for name, one in counts.items()
    }


def test_the_report_prints_exactly_the_counts_that_the_readers_gave(tmp_path):
    _, rows, results = study(tmp_path, n_trials_done=[40, 40, 40, 40, 40, 17])
    table = Page(render(results)).tables["readers"][1:-1]
    printed = {cells[0].removesuffix(" *"): tuple(map(int, cells[1:7])) for cells in table}
    assert printed == counts_given(rows)


def test_the_json_holds_exactly_the_counts_that_the_readers_gave(tmp_path):
    _, rows, results = study(tmp_path)
    names = ("n_trials", "n_correct", "hits", "misses", "false_alarms", "correct_rejections")
    readers = json.loads(results.to_json())["readers"]
    found = {one["participant_id"]: tuple(one[name] for name in names) for one in readers}
    assert found == counts_given(rows)


def test_the_headline_is_the_interval_for_crossed_readers_and_cases_in_full_precision(tmp_path):
    _, rows, results = study(tmp_path, reader_sd=0.3, case_sd=0.5)
    readers = sorted({row.participant_id for row in rows})
    cases = sorted({row.stimulus_id for row in rows})
    correct = np.zeros((len(readers), len(cases)), dtype=bool)
    for row in rows:
        correct[readers.index(row.participant_id), cases.index(row.stimulus_id)] = (
            row.response == "generated"
        ) == row.is_synthetic
    expected = random_readers_and_cases(correct)
    found = json.loads(results.to_json())["accuracy"]
    for name in ("estimate", "standard_error", "df", "ci_low", "ci_high", "design_effect"):
        assert found[name] == getattr(expected, name), name
    assert f"{100 * expected.estimate:.1f} %" in Page(render(results)).text


def test_sensitivity_is_generated_called_generated_and_specificity_real_called_real(tmp_path):
    _, rows, results = study(tmp_path, criterion=0.6)
    hits = sum(row.is_synthetic and row.response == "generated" for row in rows)
    rejections = sum(not row.is_synthetic and row.response == "real" for row in rows)
    assert results.sensitivity.estimate == pytest.approx(hits / 120)
    assert results.specificity.estimate == pytest.approx(rejections / 120)
    assert results.specificity.estimate > results.sensitivity.estimate


def test_readers_of_known_d_prime_and_criterion_are_recovered(tmp_path):
    _, _, results = study(tmp_path, n_readers=10, n_trials=200, d_prime=1.0, criterion=0.3)
    assert results.d_prime.estimate == pytest.approx(1.0, abs=0.15)
    assert results.criterion.estimate == pytest.approx(0.3, abs=0.08)
    normal = NormalDist()
    truth = (normal.cdf(0.5 - 0.3) + normal.cdf(0.5 + 0.3)) / 2
    assert results.accuracy.ci_low < truth < results.accuracy.ci_high


def test_the_report_loads_nothing_from_elsewhere(tmp_path):
    page = Page(render(study(tmp_path)[2]))
    assert page.loads != []
    assert all(target.startswith("#") for target in page.loads)
    assert page.tags["script"] == page.tags["link"] == page.tags["iframe"] == 0


def test_the_figures_are_four_well_formed_labelled_pictures_with_ids_of_their_own(tmp_path):
    html = render(study(tmp_path)[2])
    figures = [ET.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL)]
    assert len(figures) == 4
    assert all(figure.get("role") == "img" and figure.get("aria-label") for figure in figures)
    page = Page(html)
    assert len(page.ids) == len(set(page.ids))
    assert {target[1:] for target in page.loads} <= set(page.ids)


def test_the_report_names_protocol_data_and_software(tmp_path):
    protocol, _, results = study(tmp_path)
    text = Page(render(results)).text
    assert protocol.protocol_hash in text
    assert digest("file") in text
    assert f"numpy {np.__version__}" in text


def test_every_report_says_what_authenticity_does_not_show(tmp_path):
    text = Page(render(study(tmp_path)[2])).text
    assert AUTHENTICITY_ONLY in text
    assert "nothing about the diversity" in text
    assert "nothing about their diagnostic fidelity" in text
    assert CHANCE_IS_NOT_EQUIVALENCE in text


def test_the_naive_interval_is_labelled_as_a_comparison_only(tmp_path):
    rows = Page(render(study(tmp_path)[2])).tables["estimates"]
    naive = next(row for row in rows if row[0] == "Accuracy, naive")
    assert naive[1] == "comparison only: Wilson, as if all judgements were independent"


def test_the_same_responses_give_the_same_report_in_whatever_order_they_lie(tmp_path):
    protocol, rows, results = study(tmp_path)
    write_responses(tmp_path / "s.csv", rows[::-1])
    shuffled = analyse(protocol, read_responses(tmp_path / "s.csv"), data_digest=digest("file"))
    assert render(shuffled) == render(results)


def test_readers_at_chance_are_not_called_indistinguishable(tmp_path):
    _, _, results = study(tmp_path, d_prime=0.0)
    assert results.accuracy.ci_low < 0.5 < results.accuracy.ci_high
    assert "neither that the pictures can be told apart nor that they cannot" in render(results)


def test_readers_who_see_through_it_are_said_to_tell_the_pictures_apart(tmp_path):
    assert "above 50 %: the pictures could be told apart" in render(study(tmp_path, d_prime=2.5)[2])


def test_readers_who_are_fooled_are_said_to_take_one_kind_for_the_other(tmp_path):
    assert "below 50 %: the pictures could be told apart, but generated ones were" in render(
        study(tmp_path, d_prime=-2.5)[2]
    )


def test_a_partial_reader_is_shown_and_counted_but_left_out_of_the_headline(tmp_path):
    _, _, results = study(tmp_path, n_trials_done=[40, 40, 40, 40, 40, 17])
    assert (results.n_readers, results.n_complete_readers, results.n_responses) == (6, 5, 217)
    assert results.accuracy.n_trials == 200
    assert (results.accuracy_naive.n_trials, results.accuracy_naive_all.n_trials) == (200, 217)
    text = Page(render(results)).text
    assert "1 of 6 readers did not judge all 40 stimuli" in text
    assert "reader-6 *" in text


def test_a_partial_reader_with_one_kind_of_answer_so_far_has_no_d_prime(tmp_path):
    _, _, results = study(tmp_path, n_trials_done=[40, 40, 40, 40, 40, 1])
    assert results.readers[5].detection is None
    assert render(results)


def test_three_readers_come_with_a_caution(tmp_path):
    _, _, results = study(tmp_path, n_readers=3)
    assert "With 3 readers (fewer than 5) the interval for other readers is fragile" in (
        Page(render(results)).text
    )


def test_six_complete_readers_come_without_a_caution(tmp_path):
    assert study(tmp_path, reader_sd=0.5, case_sd=0.8)[2].cautions == ()


def test_a_variance_below_that_of_independent_judgements_comes_with_a_caution(tmp_path):
    results = study(tmp_path)[2]
    assert results.accuracy.design_effect < 1
    assert "do not take it for precision" in Page(render(results)).text


def test_one_reader_gets_a_result_for_this_reader_only(tmp_path):
    _, _, results = study(tmp_path, n_readers=1)
    assert results.accuracy is None
    text = Page(render(results)).text
    assert "One complete reader says nothing about other readers" in text
    assert "this reader only" in text
    assert "needs at least 2 readers" in text


def test_perfect_readers_are_not_estimable_and_nowhere_nan(tmp_path):
    _, _, results = study(tmp_path, change=said_right)
    assert results.accuracy.estimate == 1
    html = render(results)
    text = Page(html).text
    assert "the interval for crossed readers and cases is not estimable" in text
    assert "That is no sign of certainty" in text
    assert not re.search(r"\b(nan|inf|none)\b", text, flags=re.IGNORECASE)
    assert not re.search(r"\b(nan|inf)\b", html, flags=re.IGNORECASE)
    assert json.loads(results.to_json())["accuracy"]["ci_low"] is None


def test_two_readers_at_chance_with_two_trials_still_make_a_report(tmp_path):
    _, _, results = study(tmp_path, n_readers=2, n_trials=2, stimuli=stimulus_set(1, ("ig",)))
    assert Page(render(results)).text
    json.loads(results.to_json(), parse_constant=pytest.fail)


def test_what_comes_from_the_study_cannot_become_markup(tmp_path):
    names = ("<script>alert(1)</script>", "$x_1$ & 細胞")
    _, _, results = study(tmp_path, n_trials=8, stimuli=stimulus_set(2, names))
    html = render(results)
    assert Page(html).tags["script"] == 0
    assert "$x_1$ &amp; 細胞" in html


def test_responses_of_another_protocol_are_refused(tmp_path):
    study(tmp_path)
    other = Protocol(study_id="first-light", n_participants=6, n_trials=40, seed=2)
    with pytest.raises(ResponseError, match="was given under protocol"):
        analyse(other, read_responses(tmp_path / "r.csv"), data_digest="")


def test_a_study_without_a_complete_reader_is_refused(tmp_path):
    with pytest.raises(AnalysisError, match="none of the 2 readers has judged all 40 stimuli"):
        study(tmp_path, n_readers=2, n_trials_done=[12, 39])


def test_readers_who_judged_different_stimuli_are_refused(tmp_path):
    def swap(row):
        return {"stimulus_id": f"{row.participant_id} {row.stimulus_id}"}

    with pytest.raises(AnalysisError, match="judged 240 different stimuli, not the same 40; a cro"):
        study(tmp_path, change=swap)


def test_a_study_of_one_kind_of_picture_is_refused(tmp_path):
    with pytest.raises(AnalysisError, match="all stimuli are generated; accuracy of a study"):
        study(tmp_path, change=lambda row: {"is_synthetic": True})
