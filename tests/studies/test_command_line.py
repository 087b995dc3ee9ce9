import json

import numpy as np
import pytest
from typer.testing import CliRunner

from studies.__main__ import app
from studies.proportions import wilson
from studies.protocol import Protocol, load_protocol
from studies.responses import write_responses
from tests.studies.simulation import simulate, stimulus_set


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def refusal(*arguments):
    """The one line on stderr with which a command ends, having printed no traceback."""
    result = run(*arguments)
    assert result.exit_code == 2
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    return lines[0]


@pytest.fixture
def planned(tmp_path):
    path = tmp_path / "protocol.toml"
    assert run("plan", "--out", path, "--n-trials", 32).exit_code == 0
    return path


@pytest.fixture
def answered(tmp_path, planned):
    path = tmp_path / "responses.csv"
    rng = np.random.default_rng(1)
    write_responses(path, simulate(load_protocol(planned), stimulus_set(2), rng=rng))
    return path


def test_plan_writes_a_protocol_and_prints_its_hash_and_naive_width(tmp_path):
    path = tmp_path / "p.toml"
    result = run(
        "plan",
        "--out",
        path,
        "--n-participants",
        10,
        "--n-trials",
        200,
        "--seed",
        3,
        "--title",
        "T",
    )
    protocol = load_protocol(path)
    assert protocol == Protocol(
        study_id="first-light", n_participants=10, n_trials=200, seed=3, title="T"
    )
    assert protocol.protocol_hash in result.stdout
    at_chance = wilson(1000, 2000)
    width = 100 * (at_chance.ci_high - at_chance.ci_low)
    assert (
        f"2000 judgements: at 50 % the 95 % interval would be {width:.1f} points" in result.stdout
    )
    assert "if all judgements were independent (naive)" in result.stdout


def test_analyse_writes_the_report_and_the_numbers_and_says_where(tmp_path, planned, answered):
    out, numbers = tmp_path / "new" / "report.html", tmp_path / "results.json"
    result = run(
        "analyse", "--protocol", planned, "--responses", answered, "--out", out, "--json", numbers
    )
    assert result.exit_code == 0, result.output
    assert "Analysing 192 judgements of 6 readers" in result.stdout
    assert f"Wrote {out}." in result.stdout
    assert f"Wrote {numbers}." in result.stdout
    assert out.read_text(encoding="utf-8").startswith("<!doctype html>")
    found = json.loads(numbers.read_text(encoding="utf-8"))
    assert found["protocol_hash"] == load_protocol(planned).protocol_hash


def test_plan_refuses_to_overwrite_a_protocol(planned):
    assert "exists already and may belong to a running study" in refusal("plan", "--out", planned)


def test_plan_refuses_a_number_that_is_not_allowed(tmp_path):
    assert "--n-trials is 1, but should be greater than or equal to 2." in refusal(
        "plan", "--out", tmp_path / "p.toml", "--n-trials", 1
    )


def test_analyse_refuses_responses_of_another_protocol(tmp_path, answered):
    other = tmp_path / "other.toml"
    run("plan", "--out", other, "--n-trials", 32, "--seed", 9)
    assert "was given under protocol" in refusal(
        "analyse", "--protocol", other, "--responses", answered, "--out", tmp_path / "r.html"
    )
    assert not (tmp_path / "r.html").exists()


def test_analyse_refuses_missing_files_by_name(tmp_path, planned, answered):
    none = tmp_path / "none"
    for protocol, responses in ((none, answered), (planned, none.with_suffix(".csv"))):
        assert "none" in refusal(
            "analyse", "--protocol", protocol, "--responses", responses, "--out", tmp_path / "r"
        )


def test_a_place_that_cannot_be_written_is_said_in_one_line(tmp_path, planned, answered):
    assert "cannot be written" in refusal(
        "analyse", "--protocol", planned, "--responses", answered, "--out", planned / "r.html"
    )
