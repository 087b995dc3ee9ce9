import os
import socket
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from tests.webapp.studies_at_hand import ROOT, Server, protocol
from webapp.__main__ import cli


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path / 'studies.sqlite3'}")
    protocol().write(tmp_path / "protocol.toml")
    return tmp_path


def run(*arguments):
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def create(folder, stimuli, **changes):
    options = {
        "--protocol": folder / "protocol.toml",
        "--stimuli": stimuli,
        "--links": folder / "links.txt",
    } | changes
    return run("create", *(part for option in options.items() for part in option))


def refused(result, words):
    """One line on stderr that says `words`, status 2, no traceback."""
    assert result.exit_code == 2, result.output
    assert words in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    return True


def test_create_writes_one_private_link_for_each_participant(folder, stimuli):
    result = create(folder, stimuli, **{"--base-url": "https://study.example/"})
    assert result.exit_code == 0, result.output
    lines = (folder / "links.txt").read_text().splitlines()
    assert [line.split()[0] for line in lines] == ["tiny-P01", "tiny-P02"]
    assert all(line.split()[1].startswith("https://study.example/s/") for line in lines)
    assert (folder / "links.txt").stat().st_mode & 0o077 == 0


def test_create_refuses_the_same_study_twice(folder, stimuli):
    create(folder, stimuli)
    again = create(folder, stimuli, **{"--links": folder / "again.txt"})
    assert refused(again, "its links were written then")
    assert not (folder / "again.txt").exists()


def test_create_refuses_another_protocol_under_the_same_id(folder, stimuli):
    create(folder, stimuli)
    protocol(title="Changed").write(folder / "changed.toml")
    again = create(
        folder,
        stimuli,
        **{"--protocol": folder / "changed.toml", "--links": folder / "again.txt"},
    )
    assert refused(again, "a frozen protocol cannot be replaced")


def test_create_does_not_overwrite_links(folder, stimuli):
    (folder / "links.txt").write_text("precious")
    assert refused(create(folder, stimuli), "cannot be made (File exists); give a new file")
    assert (folder / "links.txt").read_text() == "precious"
    # and nobody was enrolled without a link
    assert refused(run("export", "--out", folder / "r.csv"), "holds no study")


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


def test_create_refuses_a_protocol_that_the_stimulus_set_cannot_serve(folder, stimuli):
    protocol(n_trials=200).write(folder / "large.toml")
    large = create(folder, stimuli, **{"--protocol": folder / "large.toml"})
    assert refused(large, "set n_trials to 12 or less, or add stimuli")


def test_stimuli_says_in_one_line_that_the_service_is_not_there(folder):
    (folder / "real" / "basophil").mkdir(parents=True)
    (folder / "real" / "basophil" / "1.png").touch()
    result = run(
        *("stimuli", "--real", folder / "real", "--service", "http://127.0.0.1:9"),
        *("--per-class", 1, "--out", folder / "out"),
    )
    assert result.exit_code == 2
    assert "cannot be reached" in result.stderr
    assert "start it with `bentoml serve`" in result.stderr
    assert "Traceback" not in result.stderr


def test_bots_say_that_the_study_server_is_not_there(folder, stimuli):
    create(folder, stimuli, **{"--base-url": "http://127.0.0.1:9"})
    result = run("bots", "--links", folder / "links.txt", "--stimuli", stimuli)
    assert result.exit_code == 2
    assert "start it with `python -m webapp serve`" in result.stderr


def test_bots_say_that_the_links_are_not_there(folder, stimuli):
    result = run("bots", "--links", folder / "none.txt", "--stimuli", stimuli)
    assert refused(result, "`python -m webapp create` writes it")


def test_export_of_a_study_without_answers_says_so(folder, stimuli):
    create(folder, stimuli)
    result = run("export", "--out", folder / "responses.csv")
    assert refused(result, "has no answer yet")


def test_export_asks_which_of_several_studies(folder, stimuli):
    create(folder, stimuli)
    protocol("other").write(folder / "other.toml")
    other = {"--protocol": folder / "other.toml", "--links": folder / "other.txt"}
    create(folder, stimuli, **other)
    result = run("export", "--out", folder / "responses.csv")
    assert refused(result, "the database holds other, tiny")
    result = run("export", "--out", folder / "responses.csv", "--study", "third")
    assert refused(result, "name one with --study")


def test_serve_says_how_to_make_a_study_where_there_is_none(folder):
    assert refused(run("serve"), "holds no study yet; make one with `python -m webapp create")
    assert refused(run(), "holds no study yet; make one with `python -m webapp create")


def test_serve_says_in_one_line_that_the_port_is_busy(folder, stimuli):
    create(folder, stimuli)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        result = run("serve", "--port", port)
        assert refused(result, f"port {port} on 127.0.0.1 cannot be used (Address already in use)")
        assert "choose another with --port or WEBAPP_PORT" in result.stderr


@pytest.mark.parametrize("port", ["99999", "eighty"])
def test_a_setting_that_cannot_be_used_is_named(folder, monkeypatch, port):
    monkeypatch.setenv("WEBAPP_PORT", port)
    assert refused(run("serve"), f"the environment variable WEBAPP_PORT is '{port}'")


def test_sigterm_and_ctrl_c_end_the_server_in_an_orderly_way(tmp_path, stimuli):
    server = Server(tmp_path)
    server.new_study(stimuli)
    assert server.start().stop() == 0
    assert "Stopped; all answers are stored." in server.log()
    assert "Traceback" not in server.log()


def test_the_light_commands_start_without_gradio():
    code = "import sys, webapp.__main__; sys.exit('gradio' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=os.environ).returncode == 0
