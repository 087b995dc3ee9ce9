import io
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from rich.console import Console

from diffusion.anomaly import fit_anomaly_reference
from diffusion.cell_classifier import CellClassifier
from diffusion.checkpoint import load_checkpoint
from diffusion.classifier_settings import ROWS, ClassifierSettings
from diffusion.conformal import AbstentionCalibration
from diffusion.draws import DrawPlan
from diffusion.latents import latents_from_images
from diffusion.probability import log_odds
from studies.proportions import wilson
from tests.conftest import TINY_CLASSES
from tests.training.conftest import write_folder
from training.data import DataError, read_images
from training.evaluate import evaluate, mean_of_proportions


def test_the_mean_of_one_proportion_is_that_proportion():
    one = wilson(18, 20)
    assert mean_of_proportions([one]) == one


def test_intervals_of_balanced_accuracy_cover_the_truth():
    rng = np.random.default_rng(0)
    truths, counts = np.array([0.99, 0.9, 0.7, 0.95]), np.array([120, 40, 60, 20])
    covered = 0
    for _ in range(2000):
        correct = rng.binomial(counts, truths)
        interval = mean_of_proportions(
            [wilson(int(x), int(n)) for x, n in zip(correct, counts, strict=True)]
        )
        covered += interval.ci_low <= truths.mean() <= interval.ci_high
    assert 0.93 <= covered / 2000 <= 0.98


def test_a_perfect_score_still_has_an_interval():
    interval = mean_of_proportions([wilson(10, 10), wilson(5, 5)])
    assert interval.estimate == 1
    assert interval.ci_low < 0.9


@pytest.fixture(scope="module")
def checkpoint(tiny_checkpoint):
    """The tiny checkpoint with classes that differ by more than rounding, and a short race."""
    checkpoint = load_checkpoint(tiny_checkpoint)
    generator = torch.Generator().manual_seed(1)
    checkpoint.network.embed_class.weight.copy_(3 * torch.randn(4, 32, generator=generator))
    settings = ClassifierSettings.uncalibrated(3, DrawPlan(n_levels=2, n_blocks=2))
    return with_settings(checkpoint, settings)


def with_settings(checkpoint, settings):
    return replace(checkpoint, header=checkpoint.header.model_copy(update={"classifier": settings}))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cells") / "cells"
    return read_images(write_folder(folder, {"eosinophil": 5, "platelet": 4}), 32)


@pytest.fixture(scope="module")
def result(checkpoint, data):
    return evaluate(checkpoint, data)


def table_of(result):
    console = Console(width=200, file=io.StringIO())
    console.print(result.as_table())
    return console.file.getvalue()


def test_every_row_counts_every_cell_once(result, data):
    assert list(result.rows) == list(ROWS)
    for of_row in result.rows.values():
        assert of_row.confusion_matrix.sum(axis=1).tolist() == [0, 5, 4]
        assert set(of_row.recall) == {"eosinophil", "platelet"}
        assert of_row.recall["platelet"].n_trials == 4
        means = np.mean([p.estimate for p in of_row.recall.values()])
        assert of_row.balanced_accuracy.estimate == pytest.approx(means)
        assert of_row.balanced_accuracy.n_trials == of_row.accuracy.n_trials == 9
        assert of_row.accuracy.estimate == np.trace(of_row.confusion_matrix) / 9
    assert result.data_digest == data.labelled_for(TINY_CLASSES).digest
    assert result.balanced_accuracy == result.rows["fused"].balanced_accuracy


def test_an_evaluation_repeats_the_verdicts_that_the_classifier_gives(checkpoint, data, result):
    model = CellClassifier.from_checkpoint(checkpoint)
    latents = latents_from_images(data.images)
    labels = data.labelled_for(TINY_CLASSES).labels
    for row in ROWS:
        verdicts = model.classify(latents, data.digests, row=row)
        confusion = np.zeros((3, 3), dtype=int)
        for label, verdict in zip(labels, verdicts, strict=True):
            confusion[label, TINY_CLASSES.index(verdict.best_class)] += 1
        of_row = result.rows[row]
        assert of_row.confusion_matrix.tolist() == confusion.tolist()
        gflop = np.mean([verdict.cost.flops for verdict in verdicts]) / 1e9
        assert of_row.gflop == pytest.approx(gflop)
        true = [v.probabilities[TINY_CLASSES[k]] for k, v in zip(labels, verdicts, strict=True)]
        assert of_row.calibration.nll.estimate == pytest.approx(-np.log(true).mean(), abs=1e-5)
        holds = [TINY_CLASSES[k] in v.conforming_set for k, v in zip(labels, verdicts, strict=True)]
        assert of_row.set_coverage.estimate == np.mean(holds)
        assert of_row.set_size == np.mean([len(v.conforming_set) for v in verdicts])


def test_the_same_seed_gives_the_same_evaluation(checkpoint, data, result):
    def but_speed(result):
        return {k: v for k, v in result.as_json().items() if k != "images_per_second"}

    assert but_speed(evaluate(checkpoint, data)) == but_speed(result)
    other = evaluate(checkpoint, data, seed=1)
    assert other.seed == 1
    for row in ("generative", "fused"):
        nll = other.rows[row].calibration.nll.estimate
        assert nll != result.rows[row].calibration.nll.estimate
    assert other.rows["head"].calibration == result.rows["head"].calibration


def test_the_json_of_an_evaluation_has_the_keys_that_tables_are_made_from(result):
    found = json.loads(json.dumps(result.as_json()))
    assert set(found) == {
        *("rows", "class_names", "candidate_class_names", "flagged_as_anomalous"),
        *("images_per_second", "data_digest", "checkpoint_digest", "weighting", "seed"),
    }
    assert set(found["rows"]) == {"head", "generative", "fused"}
    for of_row in found["rows"].values():
        assert set(of_row) == {
            *("balanced_accuracy", "accuracy", "recall", "confusion_matrix", "calibration"),
            *("abstention", "set", "gflop", "halves"),
        }
        assert set(of_row["balanced_accuracy"]) == {"estimate", "ci_low", "ci_high", "n"}
        assert set(of_row["abstention"]) == {
            *("risk", "confident", "wrong_confident", "foreign_texture", "given", "wrong_given"),
        }
        assert of_row["abstention"]["foreign_texture"] is None
        assert set(of_row["set"]) == {"level", "coverage", "mean_size"}
        assert {"ece", "brier", "nll"} <= set(of_row["calibration"])
    assert found["class_names"] == list(TINY_CLASSES)


def test_the_table_shows_three_rows_of_evidence_side_by_side(result):
    shown = table_of(result)
    for words in (*ROWS, "balanced accuracy", "recall platelet", "90 % set holds the class"):
        assert words in shown
    for words in ("confident", "wrong of those confident", "verdict given", "wrong of those given"):
        assert words in shown
    assert "foreign texture" not in shown
    assert "declared" not in shown
    assert result.data_digest[:12] in shown


# Declared candidates.


def test_declared_candidates_restrict_the_verdicts_and_are_stated(checkpoint, data):
    result = evaluate(checkpoint, data, candidates=["platelet", "eosinophil"])
    assert result.candidate_class_names == ("eosinophil", "platelet")
    assert result.class_names == TINY_CLASSES
    assert result.as_json()["candidate_class_names"] == ["eosinophil", "platelet"]
    for of_row in result.rows.values():
        assert of_row.confusion_matrix[:, 0].sum() == 0
        assert of_row.confusion_matrix.sum() == 9
    assert "declared candidates eosinophil, platelet" in table_of(result)
    of_all = evaluate(checkpoint, data, candidates=list(TINY_CLASSES))
    for row in ROWS:
        free, restricted = of_all.rows[row].calibration, result.rows[row].calibration
        # Among fewer classes the true one is the more probable.
        assert restricted.nll.estimate < free.nll.estimate


def test_a_class_in_the_data_that_was_not_declared_is_refused(checkpoint, data):
    with pytest.raises(DataError, match="holds platelet, which was not declared; declare every"):
        evaluate(checkpoint, data, candidates=["eosinophil", "basophil"])


@pytest.mark.parametrize(
    "declared", [["eosinophil", "blast"], ["eosinophil"], ["platelet", "platelet"]]
)
def test_unknown_or_too_few_declared_classes_are_refused(checkpoint, data, declared):
    with pytest.raises(DataError, match="give at least two of basophil, eosinophil, platelet"):
        evaluate(checkpoint, data, candidates=declared)


def test_a_class_that_the_checkpoint_does_not_know_is_refused(checkpoint, tmp_path):
    data = read_images(write_folder(tmp_path / "other", {"platelet": 2, "blast": 2}), 32)
    with pytest.raises(DataError, match="does not know blast"):
        evaluate(checkpoint, data)


def test_no_images_are_refused(checkpoint, data):
    with pytest.raises(DataError, match="no image to evaluate on"):
        evaluate(checkpoint, data.where(data.labels > 5))


# Halves, abstention, anomaly.


@pytest.fixture(scope="module")
def of_every_class(tmp_path_factory):
    folder = tmp_path_factory.mktemp("all") / "cells"
    return read_images(write_folder(folder, dict.fromkeys(TINY_CLASSES, 6), seed=1), 32)


def test_halves_are_measured_on_request_only(checkpoint, of_every_class, result):
    assert all(of_row.halves is None for of_row in result.rows.values())
    halved = evaluate(checkpoint, of_every_class, n_halves=4)
    for of_row in halved.rows.values():
        assert of_row.halves.n_halves == 4
        assert of_row.halves.n_cells == 18
        assert 0 <= of_row.halves.coverage.mean <= 1
        assert of_row.as_json()["halves"]["level"] == 0.9


def test_halves_of_cells_without_every_class_are_refused(checkpoint, data):
    with pytest.raises(DataError, match=r"hold no .*evaluate without --halves"):
        evaluate(checkpoint, data, n_halves=4)


def test_anomaly_is_refused_without_reference_cells(checkpoint, data):
    with pytest.raises(DataError, match=r"no reference cells .*evaluate without --anomaly"):
        evaluate(checkpoint, data, anomaly=True)


@pytest.fixture(scope="module")
def referenced(checkpoint, tmp_path_factory):
    """The checkpoint with 120 reference cells, whose tails a tenth of all cells lie in."""
    folder = tmp_path_factory.mktemp("reference") / "cells"
    cells = read_images(write_folder(folder, dict.fromkeys(TINY_CLASSES, 40), seed=2), 32)
    plan = DrawPlan(log_snr_min=-2.0, log_snr_max=5.0, n_levels=4, n_blocks=1)
    settings = checkpoint.header.classifier.model_copy(update={"anomaly_plan": plan})
    model = CellClassifier.from_checkpoint(with_settings(checkpoint, settings))
    prepared = model.prepared(latents_from_images(cells.images))
    looked = model.look(prepared, cells.digests)
    log_p = settings.rows["fused"].posterior.log_probabilities(looked.evidence)
    reference = fit_anomaly_reference(
        model.measurements(prepared, cells.digests, looked, log_p),
        cells.labels,
        high_noise=(0, 1),
        low_noise=(3,),
    )
    update = {"anomaly": reference, "false_alarm_rate": 0.3}
    return with_settings(checkpoint, settings.model_copy(update=update))


def test_those_cells_are_flagged_that_the_classifier_flags(referenced, of_every_class):
    flagged = evaluate(referenced, of_every_class, anomaly=True).flagged
    verdicts = CellClassifier.from_checkpoint(referenced).classify(
        latents_from_images(of_every_class.images), of_every_class.digests, anomaly=True
    )
    n_flagged = sum(verdict.anomaly.is_anomalous for verdict in verdicts)
    assert 0 < n_flagged < 18
    assert flagged == wilson(n_flagged, 18)


def test_the_same_cells_are_flagged_whatever_is_declared(referenced, data):
    declared = ["platelet", "eosinophil"]
    flagged = evaluate(referenced, data, candidates=declared, anomaly=True).flagged
    assert flagged == evaluate(referenced, data, anomaly=True).flagged


def test_measuring_anomaly_looks_at_no_cell_anew(referenced, data, monkeypatch):
    rows = []
    look = CellClassifier.look

    def counted(self, prepared, digests, **options):
        rows.extend([options["row"]] * len(prepared))
        return look(self, prepared, digests, **options)

    monkeypatch.setattr(CellClassifier, "look", counted)
    evaluate(referenced, data, anomaly=True)
    assert {row: rows.count(row) for row in ROWS} == dict.fromkeys(ROWS, 9)


def test_an_uncalibrated_checkpoint_withholds_nothing(result):
    for of_row in result.rows.values():
        assert of_row.risk is None
        assert of_row.foreign_texture is None
        assert of_row.confident.estimate == of_row.given.estimate == 1
        assert of_row.wrong_confident == of_row.wrong_given
        assert of_row.wrong_given.estimate == pytest.approx(1 - of_row.accuracy.estimate)


@pytest.mark.parametrize("row", ROWS)
def test_those_verdicts_are_given_that_the_classifier_gives(referenced, of_every_class, row):
    of_row = evaluate(referenced, of_every_class).rows[row]
    verdicts = CellClassifier.from_checkpoint(referenced).classify(
        latents_from_images(of_every_class.images), of_every_class.digests, row=row
    )
    labels = of_every_class.labelled_for(TINY_CLASSES).labels
    is_wrong = [v.best_class != TINY_CLASSES[k] for v, k in zip(verdicts, labels, strict=True)]
    is_given = [not v.is_abstained for v in verdicts]
    # Nothing but the texture withholds a verdict here.
    assert of_row.confident == wilson(18, 18)
    assert of_row.wrong_confident == wilson(sum(is_wrong), 18)
    assert of_row.given == wilson(sum(is_given), 18)
    n_wrong = sum(wrong and given for wrong, given in zip(is_wrong, is_given, strict=True))
    assert of_row.wrong_given == wilson(n_wrong, sum(is_given))
    if row == "generative":
        assert of_row.foreign_texture is None
        assert all(is_given)
    else:
        n_foreign = sum(v.texture.is_anomalous for v in verdicts)
        assert 0 < n_foreign < 18
        assert of_row.foreign_texture == wilson(n_foreign, 18)
        assert of_row.given.estimate == pytest.approx(1 - of_row.foreign_texture.estimate)


def test_a_foreign_texture_is_in_table_and_json_where_it_is_measured(referenced, of_every_class):
    result = evaluate(referenced, of_every_class)
    assert "foreign texture" in table_of(result)
    found = json.loads(json.dumps(result.as_json()))["rows"]
    assert found["generative"]["abstention"]["foreign_texture"] is None
    of_head = found["head"]["abstention"]
    assert set(of_head["foreign_texture"]) == {"estimate", "ci_low", "ci_high", "n"}
    # It is that of the cell, whatever decides.
    assert of_head["foreign_texture"] == found["fused"]["abstention"]["foreign_texture"]


def test_where_every_texture_is_foreign_no_verdict_is_given_and_none_of_them_wrong(
    referenced, of_every_class
):
    # Among reference cells that are nearer than any cell can be, every cell is foreign.
    own = referenced.header.classifier
    nearest = own.anomaly.texture.folds[0].model_copy(update={"distances": (-1.0,) * 60})
    texture = own.anomaly.texture.model_copy(update={"folds": (nearest,)})
    reference = own.anomaly.model_copy(update={"texture": texture})
    always = with_settings(referenced, own.model_copy(update={"anomaly": reference}))
    of_row = evaluate(always, of_every_class).rows["head"]
    assert of_row.foreign_texture == wilson(18, 18)
    assert (of_row.given, of_row.wrong_given) == (wilson(0, 18), None)
    assert of_row.wrong_confident is not None
    assert of_row.as_json()["abstention"]["wrong_given"] is None


def checkpoint_with_rule(checkpoint, cells):
    """A rule of the head that withholds about half of the verdicts; and all verdicts' log-odds."""
    rows = dict(checkpoint.header.classifier.rows)
    model = CellClassifier.from_checkpoint(checkpoint)
    looked = model.look(latents_from_images(cells.images), cells.digests, row="head")
    # An untrained head prefers its first class to its second by a hair: make that two nats.
    hair = np.median(np.diff(np.sort(looked.head, axis=1))[:, -1])
    posterior = rows["head"].posterior.model_copy(update={"head_scale": 2 / float(hair)})
    log_p = posterior.log_probabilities(looked.evidence)
    odds = log_odds(log_p).max(axis=1)
    # Calibration cells below the median were all wrong, so about half of these are withheld.
    wrong = (float(np.round(np.median(odds), 6)) - 0.05,) * 200
    abstention = AbstentionCalibration(right=(20.0,) * 200, wrong=wrong, n_classes=3)
    rows["head"] = rows["head"].model_copy(
        update={"posterior": posterior, "abstention": abstention, "default_risk": 0.1}
    )
    settings = checkpoint.header.classifier.model_copy(update={"rows": rows})
    return with_settings(checkpoint, settings), log_p, odds >= abstention.rule(0.1).log_odds_min


def test_the_checkpoints_own_rule_is_measured(checkpoint, of_every_class):
    ruled, log_p, is_confident = checkpoint_with_rule(checkpoint, of_every_class)
    of_row = evaluate(ruled, of_every_class).rows["head"]
    labels = of_every_class.labelled_for(TINY_CLASSES).labels
    n_wrong = int((log_p.argmax(axis=1) != labels)[is_confident].sum())
    assert of_row.risk == 0.1
    assert 0 < is_confident.sum() < 18
    assert of_row.confident == of_row.given == wilson(int(is_confident.sum()), 18)
    assert of_row.wrong_confident == wilson(n_wrong, int(is_confident.sum()))
    assert of_row.wrong_given == of_row.wrong_confident


def test_a_verdict_is_given_where_it_is_confident_and_the_texture_is_not_foreign(
    referenced, of_every_class
):
    ruled, log_p, is_confident = checkpoint_with_rule(referenced, of_every_class)
    of_row = evaluate(ruled, of_every_class).rows["head"]
    verdicts = CellClassifier.from_checkpoint(ruled).classify(
        latents_from_images(of_every_class.images), of_every_class.digests, row="head"
    )
    is_foreign = np.array([v.texture.is_anomalous for v in verdicts])
    is_given = is_confident & ~is_foreign
    assert [not v.is_abstained for v in verdicts] == is_given.tolist()
    # Each withholds some that the other lets pass.
    assert 0 < is_given.sum() < min(is_confident.sum(), (~is_foreign).sum())
    labels = of_every_class.labelled_for(TINY_CLASSES).labels
    is_wrong = log_p.argmax(axis=1) != labels
    assert of_row.confident == wilson(int(is_confident.sum()), 18)
    assert of_row.foreign_texture == wilson(int(is_foreign.sum()), 18)
    assert of_row.given == wilson(int(is_given.sum()), 18)
    n_given = int(is_given.sum())
    assert of_row.wrong_given == wilson(int(is_wrong[is_given].sum()), n_given)
