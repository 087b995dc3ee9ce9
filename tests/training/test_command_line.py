"""`python -m training` as a user meets it."""

import json

import pytest
from typer.testing import CliRunner

from diffusion.checkpoint import load_checkpoint
from tests.training.conftest import write_folder
from training.__main__ import app


def run(*arguments) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, " ".join(result.output.split())


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    base = tmp_path_factory.mktemp("trained")
    write_folder(base / "cells", {"a": 40, "b": 40})
    line = ("run", "--recipe", "smoke_test", "--data", base / "cells", "--out", base / "out")
    code, output = run(*line, "--images", 320)
    assert code == 0, output
    return base, output, (*line, "--images", 320)


def test_a_run_ends_with_a_checkpoint_that_evaluates(trained, tmp_path):
    base, output, _ = trained
    assert "80 cells (a 40, b 40)" in output
    header = load_checkpoint(base / "out").header
    assert header.class_names == ("a", "b")
    assert header.n_images_seen == 320
    assert header.training_config["name"] == "smoke_test"
    code, output = run(
        *("evaluate", "--checkpoint", base / "out", "--data", base / "cells"),
        *("--json", tmp_path / "results.json", "--limit", 6),
    )
    assert code == 0, output
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["balanced_accuracy"].keys() == {"estimate", "ci_low", "ci_high", "n"}
    assert results["balanced_accuracy"]["n"] == 6
    assert results["recall"].keys() == {"a", "b"}
    assert results["class_names"] == ["a", "b"]
    assert results["checkpoint_digest"] == load_checkpoint(base / "out").digest
    assert "balanced accuracy" in output


def test_the_crop_of_a_recipe_can_be_changed_for_other_photographs(tmp_path):
    write_folder(tmp_path / "cells", {"a": 40, "b": 40}, size=48)
    line = ("run", "--recipe", "smoke_test", "--data", tmp_path / "cells", "--images", 16)
    for crop_px, stored in ((40, 40), (0, None)):
        out = tmp_path / f"out-{crop_px}"
        code, output = run(*line, "--out", out, "--crop-px", crop_px)
        assert code == 0, output
        assert load_checkpoint(out).header.crop_px == stored
    code, output = run(*line, "--out", tmp_path / "out", "--crop-px", -3)
    assert code == 2
    assert "crop_px=-3; give pixels, or None for the whole frame" in output


def test_a_finished_run_started_again_gives_the_same_checkpoint(trained):
    base, _, line = trained
    before = load_checkpoint(base / "out").digest
    code, output = run(*line)
    assert code == 0
    assert "Resuming at 320 images" in output
    assert load_checkpoint(base / "out").digest == before


def test_held_out_cells_are_those_that_training_never_saw(trained, tmp_path):
    base, _, _ = trained
    header = load_checkpoint(base / "out").header
    code, output = run(
        *("export", "--checkpoint", base / "out", "--data", base / "cells"),
        *("--out", tmp_path / "kept", "--held-out", "--per-class", 1000),
    )
    assert code == 0, output
    n_kept = len(list((tmp_path / "kept").rglob("*.png")))
    assert n_kept == 80 - header.n_training_images
    assert 0 < n_kept < 80


def test_packaging_puts_the_checkpoint_into_the_model_store_once(trained, tmp_path, monkeypatch):
    import subprocess
    import sys

    base, _, _ = trained
    digest = load_checkpoint(base / "out").digest
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "bentoml"))
    for _ in range(2):  # BentoML reads its home once in a process
        done = subprocess.run(
            [sys.executable, "-m", "training", "package", "--checkpoint", str(base / "out")],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert f"cytoverity:{digest[:16]}" in " ".join(done.stdout.split())
    stored = tmp_path / "bentoml" / "models" / "cytoverity" / digest[:16]
    assert load_checkpoint(stored).digest == digest


def test_drawing_makes_both_splits(tmp_path):
    code, output = run("draw", "--out", tmp_path, "--n-per-class", 2, "--n-val-per-class", 1)
    assert code == 0, output
    assert len(list((tmp_path / "train").rglob("*.png"))) == 16
    assert len(list((tmp_path / "val").rglob("*.png"))) == 8


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("run", "--recipe", "huge", "--data", "x", "--out", "y"), "There is no recipe 'huge'"),
        (("run", "--recipe", "tiny", "--data", "x", "--out", "y"), "neither a folder of images"),
        (
            (
                "run",
                *("--recipe", "tiny", "--data", "x", "--out", "y"),
                "--minutes",
                1,
                "--images",
                9,
            ),
            "Give --minutes or --images, not both",
        ),
        (("evaluate", "--checkpoint", "nowhere", "--data", "x"), "is not a folder"),
        (("package", "--checkpoint", "nowhere"), "is not a folder"),
    ],
)
def test_mistakes_are_said_in_one_line(arguments, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, output = run(*arguments)
    assert code == 2
    assert words in output
    assert "Traceback" not in output


def test_too_few_cells_to_calibrate_on_are_refused(tmp_path):
    write_folder(tmp_path / "cells", {"a": 30, "rare": 2})
    code, output = run(
        *("run", "--recipe", "smoke_test", "--data", tmp_path / "cells"),
        *("--out", tmp_path / "out", "--images", 32),
    )
    assert code == 2
    assert "cells of rare were kept aside to calibrate on" in output
    assert not (tmp_path / "out").exists()  # said before the training, not after it


def test_an_export_never_mixes_with_what_is_there(trained, tmp_path):
    base, _, _ = trained
    (tmp_path / "something").write_text("here")
    code, output = run(
        *("export", "--checkpoint", base / "out", "--data", base / "cells", "--out", tmp_path)
    )
    assert code == 2
    assert "is not empty; give a new folder" in output
