"""The mean over left-out classes has the interval it should have; a class is left out whole."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks import anomaly as benchmark
from benchmarks.anomaly import (
    Scored,
    Trial,
    half_of,
    left_out_recipe,
    mean_auroc,
    separations,
    without,
)
from training.data import LabelledImages
from training.detection import auroc


def trial_of(scores, is_anomalous, names=None):
    names = names or [f"cell {i}" for i in range(len(scores))]
    return Trial(
        digests=tuple(names), scores=np.asarray(scores), is_anomalous=np.asarray(is_anomalous)
    )


def test_the_mean_of_one_network_has_delongs_interval():
    rng = np.random.default_rng(0)
    is_anomalous = np.arange(90) < 30
    scores = rng.normal(size=90) + 1.5 * is_anomalous
    alone = auroc(scores[~is_anomalous], scores[is_anomalous])
    mean = mean_auroc([trial_of(scores, is_anomalous)])
    assert mean["estimate"] == pytest.approx(alone.estimate)
    assert (mean["ci_low"], mean["ci_high"]) == pytest.approx((alone.ci_low, alone.ci_high))


def test_the_interval_covers_the_true_mean_where_networks_share_their_normal_cells():
    # Three networks that see much the same in a cell; each takes one group's cells for anomalous.
    group = np.arange(90) // 30
    shift, truth = 1.2, 0.8019  # Phi(1.2 / sqrt 2)
    covered = []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        of_cell = rng.normal(size=90)
        trials = []
        for k in range(3):
            own = np.sqrt(0.8) * of_cell + np.sqrt(0.2) * rng.normal(size=90)
            trials.append(trial_of(own + shift * (group == k), group == k))
        mean = mean_auroc(trials)
        covered.append(mean["ci_low"] <= truth <= mean["ci_high"])
    assert 0.92 <= np.mean(covered) <= 0.98


def test_a_network_more_on_the_same_cells_is_worth_less_than_one_on_others():
    rng = np.random.default_rng(1)
    is_anomalous = np.arange(60) < 20
    scores = rng.normal(size=60) + is_anomalous
    same = mean_auroc([trial_of(scores, is_anomalous)] * 2)
    others = mean_auroc(
        [trial_of(scores, is_anomalous, [f"{k}:{i}" for i in range(60)]) for k in range(2)]
    )
    once = mean_auroc([trial_of(scores, is_anomalous)])
    assert (same["ci_low"], same["ci_high"]) == pytest.approx((once["ci_low"], once["ci_high"]))
    assert others["ci_high"] - others["ci_low"] < 0.8 * (same["ci_high"] - same["ci_low"])


def test_the_mean_of_perfect_networks_is_not_a_certainty():
    is_anomalous = np.arange(40) < 20
    perfect = trial_of(is_anomalous * 1.0 + np.arange(40) / 1000, is_anomalous)
    assert mean_auroc([perfect, perfect])["ci_low"] < 1


def test_a_class_left_out_is_gone_from_cells_names_and_labels():
    data = LabelledImages(
        images=np.zeros((6, 4, 4, 3), dtype=np.uint8),
        labels=np.array([0, 1, 2, 2, 1, 0]),
        class_names=("basophil", "ig", "platelet"),
        digests=tuple("abcdef"),
    )
    rest = without(data, ["ig"])
    assert rest.class_names == ("basophil", "platelet")
    assert [rest.class_names[k] for k in rest.labels] == [
        "basophil",
        "platelet",
        "platelet",
        "basophil",
    ]
    assert rest.digests == ("a", "c", "d", "f")


def test_several_classes_left_out_are_all_gone():
    data = LabelledImages(
        images=np.zeros((4, 4, 4, 3), dtype=np.uint8),
        labels=np.array([3, 0, 1, 2]),
        class_names=("a", "b", "c", "d"),
        digests=("of d", "of a", "of b", "of c"),
    )
    rest = without(data, ("d", "a"))
    assert rest.class_names == ("b", "c")
    assert rest.labels.tolist() == [0, 1]
    assert rest.digests == ("of b", "of c")
    assert without(data, []).digests == data.digests


@pytest.mark.parametrize("n_classes", [2, 5, 8])
def test_every_class_belongs_to_one_of_two_halves(n_classes):
    names = tuple("abcdefgh"[:n_classes])
    halves = {half_of(names, name) for name in names}
    assert len(halves) == 2
    assert sorted(name for half in halves for name in half) == list(names)
    assert all(name in half_of(names, name) for name in names)
    sizes = sorted(len(half) for half in halves)
    assert sizes[1] - sizes[0] <= 1


def test_a_recipe_names_what_was_left_out_and_where_it_starts(tmp_path):
    recipe = left_out_recipe("smoke_test", ["a", "b"], 3.0, tmp_path)
    assert recipe.name == "smoke_test without a, b"
    assert (recipe.minutes, recipe.init_from) == (3.0, str(tmp_path))
    assert left_out_recipe("smoke_test", ["a"], 3.0).init_from is None


def test_no_network_that_looks_for_a_class_and_no_base_of_it_has_seen_the_class(
    tmp_path, monkeypatch
):
    names = tuple("abcde")
    data = LabelledImages(
        images=np.zeros((10, 4, 4, 3), dtype=np.uint8),
        labels=np.arange(10) % 5,
        class_names=names,
        digests=tuple(f"{names[i % 5]}{i}" for i in range(10)),
    )
    others = replace(data, digests=tuple(f"test cell {i}" for i in range(10)))
    trained = {}

    class MeasuringError(Exception):
        """What follows the training is of no interest here."""

    def recorded(config, cells, folder):
        trained[folder] = (config, cells)
        if not folder.name.startswith("base"):
            raise MeasuringError

    def read(folder, *args, **options):
        return others if folder.name == "test" else data

    monkeypatch.setattr(benchmark, "trained_without", recorded)
    monkeypatch.setattr(benchmark, "read_images", read)
    for name in names:
        trained.clear()
        with pytest.raises(MeasuringError):
            benchmark.leave_out(
                data=tmp_path,
                test=tmp_path / "test",
                recipe="smoke_test",
                runs=tmp_path,
                only=name,
                per_class=2,
                zeta_per_class=0,
            )
        (base, (_, seen_by_base)), (_, (config, seen)) = trained.items()
        assert config.init_from == str(base)
        assert not set(seen_by_base.class_names) & set(half_of(names, name))
        assert set(seen.class_names) == set(names) - {name}
        for cells in (seen_by_base, seen):
            assert not any(digest.startswith(name) for digest in cells.digests)


def test_cells_without_a_score_count_neither_as_normal_nor_as_found():
    def cells(scores):
        n = len(scores)
        no = np.zeros(n, dtype=bool)
        return Scored(
            digests=tuple(map(str, range(n))),
            labels=(0,) * n,
            scores={"zeta": np.array(scores)},
            is_flagged=no,
            is_right=no,
        )

    found = separations(cells([0.0, 1.0, np.nan]), cells([np.nan, 2.0, 3.0, np.nan]), seed=0)
    assert found["zeta"]["auroc"]["n"] == 4
    assert found["zeta"]["auroc"]["estimate"] == 1


def test_measured_cells_survive_their_file():
    some = Scored(
        digests=("a", "b"),
        labels=(-1, 3),
        scores={"combined": np.array([1.5, 0.25]), "zeta": np.array([np.nan, 2.0])},
        is_flagged=np.array([True, False]),
        is_right=np.array([False, True]),
    )
    back = Scored.from_json(some.as_json())
    assert back.labels == some.labels
    np.testing.assert_array_equal(back.scores["zeta"], some.scores["zeta"])
    np.testing.assert_array_equal(back.is_flagged, some.is_flagged)
