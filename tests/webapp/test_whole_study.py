"""Scripted readers take a study from the real server; what comes out is what they answered."""

import json
import zipfile

import pandas as pd
import pytest
from typer.testing import CliRunner

from studies.__main__ import app as studies_cli
from studies.responses import check_protocol, read_responses
from tests.webapp.studies_at_hand import ALL_DESIGNS, protocol
from webapp.__main__ import cli

COUNTS = ["hits", "misses", "false_alarms", "correct_rejections"]


def run(*arguments, command=cli):
    result = CliRunner().invoke(command, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.output


class Study:
    """One study of the server, from its protocol to its export, by the commands."""

    def __init__(self, server, folder, plan, stimuli, *pools):
        self._database = ("--database", server.database_url)
        self.folder, self.plan, self.pools = folder, plan, ("--stimuli", stimuli, *pools)
        plan.write(folder / "protocol.toml")
        create = ("create", "--protocol", folder / "protocol.toml", "--audit-out", folder / "audit")
        run(*create, *self.pools, *self._database)
        links = ("--links", folder / "links.txt", "--base-url", server.address)
        self.do("launch", *links, "--override", "random pixels")

    def do(self, name, *options):
        return run(name, self.plan.study_id, *options, *self._database)

    def simulate(self, *options):
        record = ("--record", self.folder / "record.json")
        run("simulate", "--links", self.folder / "links.txt", *self.pools, *record, *options)
        return json.loads((self.folder / "record.json").read_text())["participants"]

    def end(self):
        self.do("close")
        self.do("unblind", "--reason", "all have finished")


def test_export_and_report_hold_exactly_the_answers_that_the_bots_gave(server, stimuli, tmp_path):
    study = Study(server, tmp_path, protocol("whole-csv", n_participants=3), stimuli)
    record = study.simulate("--d-prime", 1.5, "--seed", 7)
    study.end()
    table = tmp_path / "responses.csv"
    study.do("export", "--out", table)
    check_protocol(read_responses(table), study.plan)
    assert [counts["n"] for counts in record] == [study.plan.n_trials] * 3

    report = tmp_path / "report"
    analyse = ("analyse", "--protocol", tmp_path / "protocol.toml", "--responses", table)
    run(*analyse, "--out", report, command=studies_cli)
    reported = {
        reader["participant_id"]: {name: reader["detection"][name] for name in COUNTS}
        | {"n": reader["n_trials"]}
        for reader in json.loads((report / "results.json").read_text())["readers"]
    }
    assert reported == {
        one["participant_id"]: {name: one[name] for name in (*COUNTS, "n")} for one in record
    }
    html = (report / "report.html").read_text()
    assert study.plan.protocol_hash[:12] in html
    assert all(participant in html for participant in reported)
    assert f"{study.plan.study_id}: whole" in study.do("verify")


def test_the_export_of_all_designs_holds_every_answer_that_was_given(
    server, stimuli_48, practice_stimuli, attention_stimuli, tmp_path
):
    pools = ("--practice", practice_stimuli, "--attention", attention_stimuli)
    study = Study(server, tmp_path, protocol("whole-all", **ALL_DESIGNS), stimuli_48, *pools)
    record = study.simulate("--d-prime", 2, "--confidence-noise", 0.5)
    study.end()
    study.do("export", "--out", tmp_path / "all.zip")
    with zipfile.ZipFile(tmp_path / "all.zip") as archive:
        archive.extractall(tmp_path)
    names = ("responses", "responses_primed", "pairs", "classifications", "ratings")
    tables = [pd.read_csv(tmp_path / "whole-all" / f"{name}.csv") for name in names]
    exported = {
        (row.participant_id, row.trial_number): (str(row.response), row.confidence)
        for row in pd.concat(tables).itertuples()
    }
    answered = {
        (one["participant_id"], answer["trial_number"]): (answer["response"], answer["confidence"])
        for one in record
        for answer in one["answers"]
        if not answer["is_practice"]
    }
    assert len(answered) == 2 * study.plan.n_shown
    assert exported.keys() == answered.keys()
    for place, (response, confidence) in answered.items():
        assert exported[place][0].removesuffix(".0") == response
        assert exported[place][1] == confidence or confidence is None
    blocks = (
        "blocks",
        "--protocol",
        tmp_path / "protocol.toml",
        "--folder",
        tmp_path / "whole-all",
    )
    run(*blocks, "--out", tmp_path / "blocks", command=studies_cli)
    assert (tmp_path / "blocks" / "blocks.html").exists()


def test_bots_that_come_again_find_the_study_finished(server, stimuli, tmp_path):
    links = server.new_study(stimuli, n_participants=1)
    (tmp_path / "links.txt").write_text("".join(f"P01 {link}\n" for link in links))
    command = ("simulate", "--links", tmp_path / "links.txt", "--stimuli", stimuli)
    assert "gave 12 answers" in run(*command)
    assert "gave 0 answers" in run(*command)


def test_bots_that_drop_out_leave_answers_behind_and_stay_away(server, stimuli, tmp_path):
    links = server.new_study(stimuli, n_participants=4)
    lines = [f"P0{number} {link}\n" for number, link in enumerate(links, 1)]
    (tmp_path / "links.txt").write_text("".join(lines))
    command = ("simulate", "--links", tmp_path / "links.txt", "--stimuli", stimuli)
    said = run(*command, "--dropout", 1)
    assert "4 of them left before the end" in said
    assert "gave 0 answers" in run(*command, "--dropout", 1)
    n_first = int(said.split("gave ")[1].split()[0])
    assert 0 < n_first < 48
    assert f"gave {48 - n_first} answers" in run(*command)


@pytest.mark.parametrize("state", ["closed", "withdrawn"])
def test_bots_say_that_a_study_takes_no_answers(server, stimuli, tmp_path, state):
    study = Study(server, tmp_path, protocol(f"ended-{state}", n_participants=1), stimuli)
    if state == "closed":
        study.do("close")
    else:
        code = f"{study.plan.study_id}-P01"
        run("withdraw", code, "--reason", "asked to", "--database", server.database_url)
    command = ("simulate", "--links", tmp_path / "links.txt", "--stimuli", stimuli)
    result = CliRunner().invoke(cli, [str(part) for part in command])
    assert result.exit_code == 2
    words = {"closed": "open the study with", "withdrawn": "gave status 404"}
    assert words[state] in result.stderr
