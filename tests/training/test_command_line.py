"""`python -m training` as a user meets it."""

import json

import pytest
import torch
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
    assert set(results["rows"]) == {"head", "generative", "fused"}
    for of_row in results["rows"].values():
        assert of_row["balanced_accuracy"].keys() == {"estimate", "ci_low", "ci_high", "n"}
        assert of_row["balanced_accuracy"]["n"] == 6
        assert of_row["recall"].keys() == {"a", "b"}
    assert results["class_names"] == results["candidate_class_names"] == ["a", "b"]
    assert results["checkpoint_digest"] == load_checkpoint(base / "out").digest
    for words in ("accuracy", "recall a", "recall b", "head", "generative", "fused"):
        assert words in output


def test_a_run_ends_with_a_classifier_fitted_on_what_it_kept_aside(trained):
    base, _, _ = trained
    header = load_checkpoint(base / "out").header
    assert header.classifier.is_calibrated
    assert header.classifier.facts["n_cells"] == 80 - header.n_training_images
    assert len(header.background) == 3
    assert all(0 < light < 1 for light in header.background)


def test_an_evaluation_takes_declared_classes_and_halves(trained):
    base, _, _ = trained
    line = ("evaluate", "--checkpoint", base / "out", "--data", base / "cells", "--limit", 12)
    code, output = run(*line, "--classes", "b, a", "--halves", 2)
    assert code == 0, output
    assert "2 random halves of 12 cells" in output
    code, output = run(*line, "--anomaly")
    assert code == 2
    assert "no reference cells" in output
    code, output = run(*line, "--classes", "a,c")
    assert code == 2
    assert "give at least two of a, b" in output


def test_the_crop_of_a_recipe_can_be_changed_for_other_photographs(tmp_path):
    write_folder(tmp_path / "cells", {"a": 40, "b": 40}, size=48)
    line = ("run", "--recipe", "smoke_test", "--data", tmp_path / "cells", "--images", 16)
    for crop_px, stored in ((40, 40), (0, None)):
        out = tmp_path / f"out-{crop_px}"
        code, output = run(*line, "--out", out, "--crop-px", crop_px)
        assert code == 0, output
        header = load_checkpoint(out).header
        assert header.crop_px == stored
        # One step leaves all classes alike: said in the checkpoint, and no reason to lose it.
        assert "train it longer" in header.classifier.facts["uncalibrated"]
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


def test_a_run_goes_on_from_a_checkpoint_with_its_trunk_kept(trained, tmp_path):
    base, _, _ = trained
    line = ("run", "--recipe", "smoke_test", "--data", base / "cells", "--images", 32)
    code, output = run(
        *line, "--out", tmp_path / "out", "--init-from", base / "out", "--freeze-trunk"
    )
    assert code == 0, output
    assert "tensors taken over" in output
    before, after = (load_checkpoint(folder) for folder in (base / "out", tmp_path / "out"))
    for kept, same in zip(
        before.network.trunk_modules(), after.network.trunk_modules(), strict=True
    ):
        for weight, as_before in zip(kept.parameters(), same.parameters(), strict=True):
            assert torch.equal(weight, as_before)
    assert not torch.equal(before.network.output.weight, after.network.output.weight)
    # The header says what it was, not where it lay.
    assert after.header.training_config["init_from"] == "out"
    assert after.header.training_config["freeze_trunk"] is True
    code, output = run(*line, "--out", tmp_path / "none", "--init-from", tmp_path / "nowhere")
    assert code == 2
    assert "give a checkpoint folder" in output


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
    # BentoML reads its home once in a process, so this takes another one.
    twice = (
        "import sys; from training.__main__ import app\n"
        "for _ in range(2): app(['package', '--checkpoint', sys.argv[1]], standalone_mode=False)"
    )
    done = subprocess.run(
        [sys.executable, "-c", twice, str(base / "out")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert " ".join(done.stdout.split()).count(f"cytoverity:{digest[:16]}") == 2
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
        (
            ("run", "--recipe", "tiny", "--data", "x", "--out", "y", "--freeze-trunk"),
            "freeze_trunk without init_from would keep a random trunk",
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
