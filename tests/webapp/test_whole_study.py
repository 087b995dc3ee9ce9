"""Scripted readers take a study from the real server; what comes out is what they answered."""

import json

import pytest
from typer.testing import CliRunner

from studies.__main__ import app as studies_cli
from studies.responses import check_protocol, read_responses
from tests.webapp.studies_at_hand import protocol
from webapp.__main__ import cli


def run(*arguments, command=cli):
    result = CliRunner().invoke(command, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_export_and_report_hold_exactly_the_answers_that_the_bots_gave(
    server, stimuli, tmp_path, suffix
):
    plan = protocol(f"whole-{suffix}", n_participants=3)
    plan.write(tmp_path / "protocol.toml")
    run(
        *("create", "--protocol", tmp_path / "protocol.toml", "--stimuli", stimuli),
        *("--database", server.database_url, "--base-url", server.address),
        *("--links", tmp_path / "links.txt"),
    )
    run(
        *("bots", "--links", tmp_path / "links.txt", "--stimuli", stimuli, "--d-prime", 1.5),
        *("--seed", 7, "--record", tmp_path / "counts.json"),
    )
    table = tmp_path / f"responses.{suffix}"
    run("export", "--database", server.database_url, "--study", plan.study_id, "--out", table)

    responses = read_responses(table)
    check_protocol(responses, plan)
    says_generated = responses["response"] == "generated"
    responses = responses.assign(
        hits=responses["is_synthetic"] & says_generated,
        misses=responses["is_synthetic"] & ~says_generated,
        false_alarms=~responses["is_synthetic"] & says_generated,
        correct_rejections=~responses["is_synthetic"] & ~says_generated,
        n=1,
    )
    record = json.loads((tmp_path / "counts.json").read_text())
    columns = ["hits", "misses", "false_alarms", "correct_rejections", "n"]
    exported = responses.groupby("participant_id")[columns].sum().to_dict(orient="index")
    assert exported == {
        counts["participant_id"]: {column: counts[column] for column in columns}
        for counts in record["participants"]
    }
    assert [counts["n"] for counts in record["participants"]] == [plan.n_trials] * 3

    report = tmp_path / "report"
    run(
        *("analyse", "--protocol", tmp_path / "protocol.toml", "--responses", table),
        *("--out", report),
        command=studies_cli,
    )
    reported = {
        reader["participant_id"]: {column: reader["detection"][column] for column in columns[:-1]}
        | {"n": reader["n_trials"]}
        for reader in json.loads((report / "results.json").read_text())["readers"]
    }
    assert reported == exported
    html = (report / "report.html").read_text()
    assert plan.protocol_hash[:12] in html
    for participant in exported:
        assert participant in html


def test_bots_that_come_again_find_the_study_finished(server, stimuli, tmp_path):
    links = server.new_study(stimuli, n_participants=1)
    (tmp_path / "links.txt").write_text("".join(f"P01 {link}\n" for link in links))
    command = ("bots", "--links", tmp_path / "links.txt", "--stimuli", stimuli)
    assert "gave 12 answers" in run(*command)
    assert "gave 0 answers" in run(*command)
