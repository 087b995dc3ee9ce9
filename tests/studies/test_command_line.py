import csv
import hashlib
import json
import xml.etree.ElementTree as ET

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from studies import __main__ as command_line
from studies.bots import simulated_responses
from studies.components import components_from_pilot
from studies.planning import size_study
from studies.protocol import AnalysisPlan, ExclusionRules, Protocol, load_protocol
from studies.responses import read_responses, write_responses
from tests.studies.simulation import simulate, stimulus_set

FILES = ["outcomes.csv", "parts.csv", "readers.csv", "report.html", "results.json",
         "secondary.csv", "tables.md", "tables.tex"]  # fmt: skip


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Fewer studies of fewer sizes are simulated."""
    monkeypatch.setattr(command_line, "READERS", (5, 8))
    monkeypatch.setattr(command_line, "CASES", (50,))
    monkeypatch.setattr(command_line, "MOST_ANSWERS", 1)


def run(*arguments):
    return CliRunner().invoke(command_line.app, [str(argument) for argument in arguments])


def refusal(*arguments):
    """The one line on stderr with which a command ends, having printed no traceback."""
    result = run(*arguments)
    assert result.exit_code == 2
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    return lines[0]


def analyse(protocol, responses, out, *options):
    return ("analyse", "--protocol", protocol, "--responses", responses, "--out", out, *options)


# -------------------------------------------------------------------------------------- plan


@pytest.fixture
def planned(tmp_path):
    path = tmp_path / "protocol.toml"
    assert run("plan", "--out", path, "--n-trials", 32).exit_code == 0
    return path


def test_plan_writes_the_protocol_and_promises_what_the_report_needs(tmp_path):
    path = tmp_path / "p.toml"
    numbers = ("--n-participants", 10, "--n-trials", 64, "--seed", 3, "--margin", 0.1)
    result = run("plan", "--out", path, *numbers, "--title", "T", "--study-id", "mine")
    assert result.exit_code == 0, result.output
    protocol = load_protocol(path)
    promises = AnalysisPlan(
        equivalence_margin=0.1,
        secondary=("sensitivity", "specificity", "d_prime", "criterion", "drift"),
        index="consensus",
        exclusions=ExclusionRules(),
    )
    assert protocol == Protocol(
        study_id="mine", title="T", n_participants=10, n_trials=64, seed=3, analysis=promises
    )
    assert f"Wrote {path}, protocol {protocol.protocol_hash}." in result.stdout


def test_plan_says_what_this_protocol_could_show(tmp_path):
    path = tmp_path / "p.toml"
    result = run("plan", "--out", path, "--n-participants", 12, "--n-trials", 60)
    size = size_study(
        truth=0.5, margin=0.05, n_readers=(5, 8, 12), n_cases=(50, 60), n_simulations=1000
    )
    assert size.answer in result.stdout
    assert size.assumptions in result.stdout
    design = next(d for d in size.designs if (d.n_readers, d.n_cases) == (12, 60))
    assert (
        f"This protocol, 12 readers × 60 trials: power {100 * design.asked.power:.0f} %, interval "
        f"{100 * design.width:.1f} points wide on average."
    ) in result.stdout


def test_plan_writes_the_power_as_a_table_and_as_a_figure(planned, tmp_path):
    with (tmp_path / "protocol.power.csv").open() as file:
        rows = list(csv.DictReader(file))
    sizes = {(int(row["n_readers"]), int(row["n_cases"])) for row in rows}
    assert sizes == {(readers, cases) for readers in (5, 6, 8) for cases in (32, 50)}
    figure = ET.fromstring((tmp_path / "protocol.power.svg").read_text(encoding="utf-8"))
    assert figure.get("aria-label")


@pytest.fixture
def pilot(tmp_path):
    path = tmp_path / "pilot.csv"
    table = simulated_responses(n_readers=6, n_cases=60, d_prime=1.0, case_sd=1.0)
    table.to_csv(path, index=False)
    return path


def test_plan_learns_from_a_pilot_how_readers_and_pictures_differ(tmp_path, pilot):
    table = read_responses(pilot)
    right = (table["response"] == "generated") == table["is_synthetic"]
    wide = table.assign(right=right).pivot(
        index="participant_id", columns="stimulus_id", values="right"
    )
    learnt = components_from_pilot(wide.to_numpy(dtype=float))
    result = run("plan", "--out", tmp_path / "p.toml", "--pilot", pilot)
    assert result.exit_code == 0, result.output
    assert "(from a pilot of 6 readers and 60 cases)" in result.stdout
    assert f"standard deviation of {learnt.reader_sd:.2g} and cases of {learnt.case_sd:.2g}" in (
        result.stdout
    )


def test_repeats_of_a_pilot_do_not_count(tmp_path, pilot):
    table = pd.read_csv(pilot).assign(repeat_number=1)
    again = table[table["trial_number"] <= 5].assign(repeat_number=2, response="real")
    again["trial_number"] += 60
    pd.concat([table, again]).to_csv(tmp_path / "again.csv", index=False)
    said = [
        run("plan", "--out", tmp_path / f"{name}.toml", "--pilot", tmp_path / f"{name}.csv").stdout
        for name in ("pilot", "again")
    ]
    assert said[1].replace("again", "pilot") == said[0] != ""


def test_plan_takes_the_spread_that_is_given(tmp_path):
    result = run("plan", "--out", tmp_path / "p.toml", "--reader-sd", 0.3, "--case-sd", 0.7)
    assert "Readers differ with a standard deviation of 0.3 and cases of 0.7 on the" in (
        result.stdout
    )
    assert "(as given)" in result.stdout


def test_plan_refuses_to_overwrite_a_protocol(planned):
    before = planned.read_bytes()
    assert "exists already and may belong to a running study" in refusal("plan", "--out", planned)
    assert planned.read_bytes() == before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--n-trials", 1), "--n-trials is 1, but should be greater than or equal to 2."),
        (("--margin", 0.5), "--margin is 0.5, but should be less than 0.5."),
        (("--study-id", "My study"), "--study-id is 'My study', but String should match pattern"),
        (("--truth", 0.6), "the true accuracy 0.6 is not inside the margin from 0.45 to 0.55"),
        (("--truth", 2), "truth=2.0; give the true accuracy, such as 0.5 for chance."),
        (("--case-sd", -1), "case_sd=-1.0; give standard deviations of at least 0"),
        (("--pilot", "none.csv"), "none.csv cannot be read"),
    ],
)
def test_a_plan_that_is_refused_leaves_no_file_behind(tmp_path, options, words):
    assert words in refusal("plan", "--out", tmp_path / "p.toml", *options)
    assert list(tmp_path.iterdir()) == []


# ----------------------------------------------------------------------------------- analyse


@pytest.fixture
def answered(tmp_path, planned):
    path = tmp_path / "responses.csv"
    rng = np.random.default_rng(1)
    write_responses(path, simulate(load_protocol(planned), stimulus_set(2), rng=rng))
    return path


def test_analyse_writes_all_files_into_a_folder_and_says_so(tmp_path, planned, answered):
    out = tmp_path / "new" / "report"
    result = run(*analyse(planned, answered, out))
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in out.iterdir()) == FILES
    assert "Analysing 192 judgements of 6 readers under protocol " in result.stdout
    for name in FILES:
        assert f"Wrote {out / name}." in result.stdout
    found = json.loads((out / "results.json").read_text(encoding="utf-8"))
    assert found["protocol_hash"] == load_protocol(planned).protocol_hash
    assert found["data_digest"] == hashlib.sha256(answered.read_bytes()).hexdigest()
    html = (out / "report.html").read_text(encoding="utf-8")
    assert html.startswith("<!doctype html>")
    last = result.stdout.strip().splitlines()[-1]
    assert last.startswith("6 readers judged 32 pictures (192 judgements). Accuracy was ")
    assert last in html.replace("&lt;", "<")


def test_analyse_reads_parquet_and_says_the_same(tmp_path, planned, answered):
    read_responses(answered).to_parquet(tmp_path / "responses.parquet")
    said = {
        run(*analyse(planned, path, tmp_path / path.suffix[1:])).stdout.splitlines()[-1]
        for path in (answered, tmp_path / "responses.parquet")
    }
    assert len(said) == 1
    rows = (tmp_path / name / "outcomes.csv" for name in ("csv", "parquet"))
    assert len({path.read_text() for path in rows}) == 1


@pytest.mark.parametrize("name", ["x.html", "results.json"])
def test_analyse_refuses_a_file_where_a_folder_is_asked(tmp_path, planned, answered, name):
    words = refusal(*analyse(planned, answered, tmp_path / name))
    assert f"{tmp_path / name} looks like a file, so give {tmp_path} or another folder." in words
    assert not (tmp_path / name).exists()


def test_analyse_refuses_responses_of_another_protocol(tmp_path, planned, answered):
    other = tmp_path / "other.toml"
    load_protocol(planned).model_copy(update={"seed": 9}).write(other)
    words = refusal(*analyse(other, answered, tmp_path / "report"))
    assert "was given under protocol" in words
    assert not (tmp_path / "report").exists()


def test_analyse_refuses_missing_files_by_name(tmp_path, planned, answered):
    none = tmp_path / "none"
    assert f"{none} cannot be read" in refusal(*analyse(none, answered, tmp_path / "r"))
    missing = none.with_suffix(".csv")
    assert f"{missing} cannot be read" in refusal(*analyse(planned, missing, tmp_path / "r"))


def test_analyse_refuses_a_bad_protocol_and_a_bad_table_in_one_line(tmp_path, planned, answered):
    bad = tmp_path / "bad.toml"
    bad.write_text(planned.read_text().replace("[analysis]", "[analysis]\nmargin = 0.1"))
    assert "`analysis.margin` is not a key of a protocol" in refusal(
        *analyse(bad, answered, tmp_path / "r")
    )
    table = tmp_path / "bad.csv"
    table.write_text(answered.read_text().replace(",generated,", ",fake,", 1))
    assert "column `response`: found 'fake'" in refusal(*analyse(planned, table, tmp_path / "r"))


def test_an_undeclared_look_is_refused_until_the_study_is_closed(tmp_path):
    looks = AnalysisPlan(looks=(4, 8), spending="pocock")
    path, table = tmp_path / "p.toml", tmp_path / "r.csv"
    Protocol(study_id="s", n_participants=8, n_trials=16, analysis=looks).write(path)
    simulated_responses(n_readers=5, n_cases=16)[
        ["participant_id", "stimulus_id", "is_synthetic", "response"]
    ].to_csv(table, index=False)
    assert "a look at 5 was not declared" in refusal(*analyse(path, table, tmp_path / "out"))
    assert not (tmp_path / "out").exists()
    assert run(*analyse(path, table, tmp_path / "out", "--closed")).exit_code == 0
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    assert found["primary"]["look"]["number"] == 2


def test_a_place_that_cannot_be_written_is_said_in_one_line(planned, answered):
    assert "cannot be written" in refusal(*analyse(planned, answered, planned / "report"))
