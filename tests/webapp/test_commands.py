import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from tests.webapp.studies_at_hand import ROOT, Server, free_port, protocol
from webapp.__main__ import cli
from webapp.bots import known_by_pixels, take_study
from webapp.observers import Observer


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path / 'studies.sqlite3'}")
    protocol().write(tmp_path / "protocol.toml")
    return tmp_path


def run(*arguments, typed=None):
    return CliRunner().invoke(cli, [str(argument) for argument in arguments], input=typed)


def done(*arguments, typed=None):
    """What a command said that did what it should."""
    result = run(*arguments, typed=typed)
    assert result.exit_code == 0, result.output
    return result.output


def create(folder, stimuli, **changes):
    options = {
        "--protocol": folder / "protocol.toml",
        "--stimuli": stimuli,
        "--audit-out": folder / "audit",
    } | changes
    return run("create", *(part for option in options.items() for part in option))


def launch(folder, **changes):
    options = {"--links": folder / "links.txt", "--override": "random pixels"} | changes
    return run("launch", *(part for option in options.items() for part in option))


@pytest.fixture
def created(folder, stimuli):
    assert create(folder, stimuli).exit_code == 0
    return folder


@pytest.fixture
def failed(folder, stimuli_48):
    """A study whose audit found what tells."""
    assert create(folder, stimuli_48).exit_code == 0
    return folder


@pytest.fixture
def launched(created):
    assert launch(created).exit_code == 0
    return created


def refused(result, words):
    """One line on stderr that says `words`, status 2, no traceback."""
    assert result.exit_code == 2, result.output
    assert words in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    return True


def states(folder):
    return [event["kind"] for event in events(folder)]


def events(folder):
    """The log, by way of a coded or plain export, or of `verify`."""
    from webapp.database import Database
    from webapp.registry import Registry

    database = Database.open(os.environ["DATABASE_URL"])
    found = [
        {"kind": e.kind, **json.loads(e.detail_json)} for e in Registry(database).events("tiny")
    ]
    database.close()
    return found


# Draft


def test_create_makes_a_draft_audits_it_and_says_what_tells(folder, stimuli_48):
    result = create(folder, stimuli_48)
    assert result.exit_code == 0, result.output
    assert "Study tiny is a draft: 2 participants, 12 trials each" in result.output
    assert "The blinding audit FAILED" in result.output
    assert "✗" in result.output
    assert list((folder / "audit").iterdir())
    assert states(folder) == ["created", "audited"]


def test_create_takes_the_pools_that_lie_in_the_stimulus_folder(
    folder, stimuli, practice_stimuli, attention_stimuli
):
    import shutil

    copy = folder / "set"
    shutil.copytree(stimuli, copy)
    shutil.copytree(attention_stimuli, copy / "attention")
    blocks = [{"n_trials": 4, "n_practice": 2, "n_attention": 1}]
    protocol(blocks=blocks).write(folder / "all.toml")
    result = create(
        folder, copy, **{"--protocol": folder / "all.toml", "--practice": practice_stimuli}
    )
    assert result.exit_code == 0, result.output
    assert events(folder)[0]["n_stimuli"] == {"main": 12, "practice": 12, "attention": 12}


def test_create_refuses_the_same_study_twice(created, stimuli):
    assert refused(create(created, stimuli), "go on with it (`python -m webapp status`)")


def test_create_refuses_another_protocol_under_the_same_id(created, stimuli):
    protocol(title="Changed").write(created / "changed.toml")
    again = create(created, stimuli, **{"--protocol": created / "changed.toml"})
    assert refused(again, "amend it (`python -m webapp amend`)")


def test_create_names_the_missing_protocol(folder, stimuli):
    missing = create(folder, stimuli, **{"--protocol": folder / "none.toml"})
    assert refused(missing, "write one with `python -m studies plan")


def test_create_names_the_picture_that_is_missing_from_the_stimulus_set(folder, stimuli):
    import shutil

    copy = folder / "copy"
    shutil.copytree(stimuli, copy)
    gone = next(copy.glob("*.png"))
    gone.unlink()
    assert refused(create(folder, copy), f"{gone} is in the manifest but not in the folder")


def test_create_names_the_pool_that_is_not_there(folder, stimuli):
    result = create(folder, stimuli, **{"--practice": folder / "none"})
    assert refused(result, f"{folder / 'none' / 'manifest.csv'} cannot be read")


def test_create_refuses_a_protocol_that_the_stimulus_set_cannot_serve(folder, stimuli):
    protocol(n_trials=200).write(folder / "large.toml")
    large = create(folder, stimuli, **{"--protocol": folder / "large.toml"})
    assert large.exit_code == 2
    assert "n_trials" in large.stderr


def test_create_finds_near_copies_of_training_pictures(folder, stimuli):
    import shutil

    (folder / "training" / "basophil").mkdir(parents=True)
    for picture in stimuli.glob("*.png"):
        shutil.copyfile(picture, folder / "training" / "basophil" / picture.name)
    result = create(folder, stimuli, **{"--training": folder / "training"})
    assert result.exit_code == 0, result.output
    assert "6 of 6 generated pictures are near-copies" in result.output


def test_a_draft_is_audited_again_from_what_is_stored(created, monkeypatch):
    monkeypatch.chdir(created)
    assert "its report is tiny-audit/audit.html" in done("audit")
    assert states(created)[-1] == "audited"


# Frozen, open, closed


def test_launch_writes_one_private_link_for_each_participant(failed):
    result = launch(failed, **{"--base-url": "https://study.example/"})
    assert result.exit_code == 0, result.output
    lines = (failed / "links.txt").read_text().splitlines()
    assert [line.split()[0] for line in lines] == ["tiny-P01", "tiny-P02"]
    assert all(line.split()[1].startswith("https://study.example/s/") for line in lines)
    assert (failed / "links.txt").stat().st_mode & 0o077 == 0
    assert states(failed)[2:] == ["override", "frozen", "opened", "invited"]


def test_launch_refuses_a_failed_audit_and_leaves_no_links(failed):
    result = launch(failed, **{"--override": ""})
    assert refused(result, "go on with --override and the reason")
    assert not (failed / "links.txt").exists()


def test_links_are_not_overwritten_and_nobody_is_invited_without_one(created):
    (created / "links.txt").write_text("precious")
    assert refused(launch(created), "cannot be made (File exists); give a new file")
    assert (created / "links.txt").read_text() == "precious"
    assert "0/2" in done("status")


def test_a_study_goes_step_by_step_to_its_report(created):
    assert refused(run("open"), "its next step is `python -m webapp freeze`")
    assert "is frozen:" in done("freeze")
    done("open", "tiny")
    done("close")
    done("open")
    done("close")
    assert refused(run("unblind", "--reason", " "), "unblinding needs a reason")
    done("unblind", "--reason", "all readers have finished")
    (created / "report.html").write_text("<html>")
    done("reported", created / "report.html")
    assert states(created)[2:] == [
        *("frozen", "opened", "closed", "opened", "closed", "unblinded", "reported")
    ]
    assert "tiny: whole; 9 events" in done("verify")


def test_amend_puts_a_new_version_in_force(launched):
    protocol(title="Real?").write(launched / "amended.toml")
    result = done("amend", "--protocol", launched / "amended.toml", "--reason", "a typing error")
    assert "and is open" in result
    assert events(launched)[-1]["changed"] == ["title"]


def test_verify_names_what_was_changed_behind_its_back(launched):
    import sqlite3

    with sqlite3.connect(launched / "studies.sqlite3") as connection:
        connection.execute("UPDATE event SET actor = 'somebody' WHERE number = 2")
    connection.close()
    result = run("verify")
    assert result.exit_code == 1
    assert "tiny: event 2 (audited) was changed after it was written" in result.output


def test_the_log_names_the_person_at_the_keyboard(created, monkeypatch):
    import sqlite3

    monkeypatch.setenv("LOGNAME", "ada")
    done("freeze")
    with sqlite3.connect(created / "studies.sqlite3") as connection:
        actors = [actor for (actor,) in connection.execute("SELECT actor FROM event")]
    connection.close()
    assert actors[-1] == "ada, command line"


# Readers


def test_invite_takes_labels_from_a_table(launched):
    (launched / "readers.csv").write_text("label\nDr A\nDr B\n")
    done("invite", "--labels", launched / "readers.csv", "--links", launched / "more.txt")
    assert (launched / "more.txt").read_text().startswith("tiny-P03 http://")
    assert "Dr B" in done("status")


def test_invite_marks_scripted_readers(launched):
    done("invite", "--n", "1", "--scripted", "--links", launched / "bots.txt")
    assert "(scripted)" in done("status")


def test_invite_wants_either_a_table_or_a_number(launched):
    assert refused(run("invite", "--links", launched / "more.txt"), "give either --labels")
    missing = ("--labels", launched / "none.csv", "--links", launched / "more.txt")
    assert refused(run("invite", *missing), "give a table with a column `label`")


def test_extend_raises_the_number_of_readers_on_the_record_and_opens_again(launched):
    done("close")
    reason = ("--reason", "two dropped out")
    done("extend", "--by", 2, *reason, "--links", launched / "more.txt")
    assert len((launched / "more.txt").read_text().splitlines()) == 2
    assert states(launched)[-3:] == ["amended", "opened", "invited"]
    assert "4/4" in done("status")


def test_a_reader_gets_a_new_link_or_leaves(launched):
    done("reissue", "tiny-P01", "--links", launched / "again.txt")
    assert (launched / "again.txt").read_text().startswith("tiny-P01 http://")
    done("revoke", "tiny-P02")
    done("withdraw", "tiny-P02", "--reason", "asked to")
    assert states(launched)[-3:] == ["reissued", "revoked", "withdrawn"]
    again = run("reissue", "tiny-P02", "--links", launched / "none.txt")
    assert refused(again, "has withdrawn and gets no new link")
    assert not (launched / "none.txt").exists()
    assert refused(run("revoke", "tiny-P09"), "`python -m webapp status` lists them")


def test_status_shows_studies_and_readers_and_the_next_step(launched):
    shown = done("status")
    assert "tiny-P01" in shown
    assert "0/12" in shown
    assert "Next: python -m webapp close tiny" in shown


def test_a_password_is_typed_twice_and_long(created):
    short = run("password", "ada", typed="short\nshort\n")
    assert short.exit_code == 2
    assert "take 10 or more" in short.stderr
    assert "ada can log in" in done("password", "ada", typed="correct horse\ncorrect horse\n")


# Data


def test_stimuli_says_in_one_line_that_the_service_is_not_there(folder):
    (folder / "real" / "basophil").mkdir(parents=True)
    (folder / "real" / "basophil" / "1.png").touch()
    options = ("--real", folder / "real", "--per-class", 1, "--out", folder / "out")
    result = run("stimuli", *options, "--service", "http://127.0.0.1:9")
    assert result.exit_code == 2
    assert "cannot be reached" in result.stderr
    assert "start it with `bentoml serve`" in result.stderr
    assert "Traceback" not in result.stderr
    assert refused(run("stimuli", *options), "give either --service and its address")


def test_simulate_says_that_the_study_server_is_not_there(created, stimuli):
    launch(created, **{"--base-url": "http://127.0.0.1:9"})
    result = run("simulate", "--links", created / "links.txt", "--stimuli", stimuli)
    assert result.exit_code == 2
    assert "start it with `python -m webapp serve`" in result.stderr


def test_simulate_says_that_the_links_are_not_there(folder, stimuli):
    result = run("simulate", "--links", folder / "none.txt", "--stimuli", stimuli)
    assert refused(result, "`python -m webapp invite` writes it")


def test_export_of_a_study_without_answers_says_so(launched):
    for name in ("all.zip", "folder"):
        assert refused(run("export", "--out", launched / name), "has no answer yet")
    table = run("export", "--out", launched / "responses.csv")
    assert refused(table, "nobody sees the truth before it is unblinded")


def test_several_studies_are_told_apart_by_name(created, stimuli):
    protocol("other").write(created / "other.toml")
    create(created, stimuli, **{"--protocol": created / "other.toml"})
    assert refused(run("close"), "the database holds tiny, other, and one of several was asked for")
    assert refused(run("close", "third"), "'third' was asked for; name one of them")
    assert "other" in done("status")


# Servers


def test_serve_says_how_to_make_a_study_where_there_is_none(folder):
    assert refused(run("serve"), "holds no study yet; make one with `python -m webapp create")
    assert refused(run(), "holds no study yet; make one with `python -m webapp create")


def test_serve_says_in_one_line_that_the_port_is_busy(created):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        result = run("serve", "--port", port)
        assert refused(result, f"port {port} on 127.0.0.1 cannot be used (Address already in use)")
        assert "choose another with --port" in result.stderr


@pytest.mark.parametrize("port", ["99999", "eighty"])
def test_a_setting_that_cannot_be_used_is_named(folder, monkeypatch, port):
    monkeypatch.setenv("WEBAPP_PORT", port)
    assert refused(run("serve"), f"the environment variable WEBAPP_PORT is '{port}'")


def test_admin_refuses_to_start_before_anybody_could_log_in(created):
    result = run("admin", "--port", free_port())
    assert refused(result, "set one with `python -m webapp password NAME`")


def test_sigterm_ends_the_server_in_an_orderly_way(tmp_path, stimuli):
    server = Server(tmp_path)
    server.new_study(stimuli)
    assert server.start().stop() == 0
    assert "Stopped; all answers are stored." in server.log()
    assert "Traceback" not in server.log()


@pytest.mark.slow
def test_two_processes_serve_side_by_side_and_end_together(tmp_path, stimuli):
    server = Server(tmp_path)
    (link, _) = server.new_study(stimuli)
    command = [sys.executable, "-m", "webapp", "serve", "--workers", "2"]
    command += ["--port", str(server.port), "--database", server.database_url]
    with (tmp_path / "server.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 60
        while not answers(server.address):
            assert time.monotonic() < deadline, server.log()
            time.sleep(0.2)
        known = known_by_pixels([stimuli])
        with server.client() as http:
            played = take_study(
                link, "P01", Observer(), known, seed=1, participant_number=1, http=http
            )
        assert len(played.given) == 12
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    finally:
        process.terminate()
        process.wait(timeout=20)
    assert len(children) >= 2
    assert "Stopped; all answers are stored." in server.log()
    assert "Traceback" not in server.log()
    deadline = time.monotonic() + 10  # Python's own helper process leaves after the others
    while any(Path(f"/proc/{child}").exists() for child in children):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def answers(address):
    try:
        return httpx.get(f"{address}/healthz").is_success
    except httpx.TransportError:
        return False


def test_the_light_commands_start_without_gradio():
    code = "import sys, webapp.__main__; sys.exit('gradio' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=os.environ).returncode == 0
