import json

import numpy as np
import pytest
import torch

from diffusion.checkpoint import load_checkpoint
from studies.proportions import wilson
from tests.training.conftest import write_folder
from training.calibration import fit_temperature
from training.data import DataError, read_images
from training.evaluate import evaluate, mean_of_proportions


def test_the_temperature_of_simulated_scores_is_recovered():
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(20_000, 4, generator=generator, dtype=torch.float64)
    labels = torch.multinomial(logits.softmax(dim=1), 1, generator=generator)[:, 0]
    for temperature in (0.02, 1.0, 250.0):
        fitted = fit_temperature(logits * temperature, labels)
        assert fitted == pytest.approx(temperature, rel=0.05)


def test_showing_one_class_ten_times_as_often_leaves_the_temperature_where_it_was():
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(300) % 3
    scores = torch.randn(300, 3, generator=generator, dtype=torch.float64)
    # Classes of different difficulty, so that their weights matter.
    scores[torch.arange(300), labels] += torch.tensor([0.2, 1.0, 4.0])[labels].double()
    often = torch.cat([torch.arange(300), *[torch.nonzero(labels == 2)[:, 0]] * 9])
    once = fit_temperature(scores, labels)
    assert fit_temperature(scores[often], labels[often]) == pytest.approx(once, rel=1e-3)


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


@pytest.fixture
def cells(tmp_path):
    return write_folder(tmp_path / "cells", {"eosinophil": 5, "platelet": 4})


def test_an_evaluation_counts_every_cell_once(tiny_checkpoint, cells):
    checkpoint = load_checkpoint(tiny_checkpoint)
    data = read_images(cells, 32)
    result = evaluate(checkpoint, data)
    assert result.confusion_matrix.sum() == 9
    assert result.confusion_matrix.sum(axis=1).tolist() == [0, 5, 4]
    assert set(result.recall) == {"eosinophil", "platelet"}
    assert result.recall["platelet"].n_trials == 4
    means = np.mean([p.estimate for p in result.recall.values()])
    assert result.balanced_accuracy.estimate == pytest.approx(means)
    assert result.data_digest == data.labelled_for(checkpoint.class_names).digest
    json.dumps(result.as_json())


def test_the_same_seed_gives_the_same_evaluation(tiny_checkpoint, cells):
    checkpoint = load_checkpoint(tiny_checkpoint)
    data = read_images(cells, 32)
    first, second = (evaluate(checkpoint, data).log_loss for _ in range(2))
    assert first == second
    assert evaluate(checkpoint, data, seed=1).log_loss != first


def test_the_work_of_an_image_is_passes_times_flops(tiny_checkpoint, cells):
    from diffusion.network import count_flops

    checkpoint = load_checkpoint(tiny_checkpoint)
    result = evaluate(checkpoint, read_images(cells, 32, limit=2))
    assert result.flops_per_image == 12 * 3 * count_flops(checkpoint.network)


def test_a_class_that_the_checkpoint_does_not_know_is_refused(tiny_checkpoint, tmp_path):
    data = read_images(write_folder(tmp_path / "other", {"platelet": 2, "blast": 2}), 32)
    with pytest.raises(DataError, match="does not know blast"):
        evaluate(load_checkpoint(tiny_checkpoint), data)
