"""`make demo`, from drawing cells to the report, in a copy of the working tree."""

import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def demo(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "demo.py", *options],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def free_ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        return one.getsockname()[1], other.getsockname()[1]


@pytest.fixture
def copy(tmp_path):
    names = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file() and not name.startswith(("docs/", "tests/", "checkpoints/")):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, tmp_path / name)
    return tmp_path


def test_a_busy_port_is_said_in_one_line_before_any_work(copy):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = demo(copy, "--service-port", str(port))
    assert done.returncode == 1
    assert f"Error: Port {port} is busy; choose another:" in done.stdout
    assert len(done.stdout.strip().splitlines()) == 1
    assert not (copy / "demo-run").exists()


def test_missing_data_are_said_in_one_line_before_any_work(copy):
    service, webapp = free_ports()
    options = ("--service-port", str(service), "--webapp-port", str(webapp))
    done = demo(copy, "--data", "nowhere", *options)
    assert done.returncode == 1
    assert "Error: nowhere does not exist; give a folder of images by class" in done.stdout


def test_a_folder_that_the_demo_did_not_make_is_left_alone(copy):
    (copy / "demo-run").mkdir()
    (copy / "demo-run" / "thesis.txt").write_text("mine")
    service, webapp = free_ports()
    done = demo(copy, "--service-port", str(service), "--webapp-port", str(webapp))
    assert done.returncode == 1
    assert "was not made by the demo; move it away" in done.stdout
    assert (copy / "demo-run" / "thesis.txt").read_text() == "mine"


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("own_data", [False, True], ids=["drawn cells", "a folder of one's own"])
def test_the_demo_ends_with_a_report_that_holds_what_the_bots_answered(copy, own_data):
    service, webapp = free_ports()
    options = ["--exit", "--minutes", "0.2", "--readers", "3"]
    options += ["--service-port", str(service), "--webapp-port", str(webapp)]
    if own_data:
        from training.drawing import draw_data_set

        draw_data_set(copy / "own", 80, seed=5, size=80)
        for absent in ("basophil", "eosinophil", "ig", "monocyte", "neutrophil"):
            shutil.rmtree(copy / "own" / absent)
        options += ["--data", "own"]
    done = demo(copy, *options)
    assert done.returncode == 0, done.stdout
    n_answers = 3 * 6 * (3 if own_data else 8)
    assert f"The report holds exactly the {n_answers} answers given." in " ".join(
        done.stdout.split()
    )
    assert "<html" in (copy / "demo-run" / "report" / "report.html").read_text()
    for port in (service, webapp):
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0, "a server is still up"
