"""Drawn cells: the same numbers give the same picture, and the class is in the cell alone."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from training.drawing import (
    CLASS_NAMES,
    DrawingSettings,
    cell_mask,
    cell_seeds,
    draw_cell,
    draw_data_set,
)

CLEAN = DrawingSettings(difficulty=0, stain_jitter=0, sensor_noise=0, defocus=0)


@pytest.mark.parametrize("size", [16, 33, 64, 96])
def test_a_cell_is_a_square_colour_picture_of_the_size_asked_for(size):
    picture = draw_cell("monocyte", 3, size=size)
    assert (picture.shape, picture.dtype) == ((size, size, 3), np.uint8)


def test_the_same_numbers_give_the_same_picture_in_any_order():
    jobs = [(class_name, seed) for class_name in CLASS_NAMES for seed in range(3)]
    forwards = {job: draw_cell(*job).tobytes() for job in jobs}
    backwards = {job: draw_cell(*job).tobytes() for job in reversed(jobs)}
    assert forwards == backwards
    assert len(set(forwards.values())) == len(jobs)


@pytest.mark.parametrize(
    ("class_name", "seed", "mean_colour"),
    [
        ("ig", 0, (201.18, 171.41, 178.03)),
        ("basophil", 1, (207.96, 174.59, 183.58)),
        ("platelet", 2, (234.95, 207.36, 194.89)),
    ],
)
def test_a_cell_looks_as_it_did_when_this_was_written(class_name, seed, mean_colour):
    # Recorded from the code: published numbers on drawn cells hold only while this does.
    assert draw_cell(class_name, seed).mean(axis=(0, 1)) == pytest.approx(mean_colour, abs=0.1)


@pytest.mark.parametrize("class_name", CLASS_NAMES)
def test_the_same_seed_in_another_class_changes_the_cell_and_nothing_else(class_name):
    for seed in range(6):
        mine, other = draw_cell(class_name, seed), draw_cell("neutrophil", seed)
        outside = ~(cell_mask(class_name, seed) | cell_mask("neutrophil", seed))
        assert outside.mean() > 0.2
        assert np.array_equal(mine[outside], other[outside])
        if class_name != "neutrophil":
            assert np.abs(mine.astype(int) - other)[~outside].mean() > 5


def test_a_platelet_is_a_fragment_and_a_monocyte_the_largest_cell():
    share = {
        class_name: np.mean([cell_mask(class_name, seed).mean() for seed in range(20)])
        for class_name in CLASS_NAMES
    }
    assert min(share, key=share.get) == "platelet"
    assert max(share, key=share.get) == "monocyte"
    assert share["platelet"] < 0.1 < share["lymphocyte"] < 0.3 < share["monocyte"]


def test_a_larger_picture_shows_the_same_cell():
    small = draw_cell("eosinophil", 5, size=64, settings=CLEAN).astype(float)
    large = draw_cell("eosinophil", 5, size=128, settings=CLEAN).astype(float)
    averaged = large.reshape(64, 2, 64, 2, 3).mean(axis=(1, 3))
    assert np.abs(small - averaged).mean() < 4


def test_eosinophil_granules_are_redder_than_neutrophil_cytoplasm():
    # Eosin passes red light and stops green: the excess of red tells the two granulocytes apart.
    def redness(class_name):
        excess = []
        for seed in range(10):
            mask = cell_mask(class_name, seed, settings=CLEAN)
            inside = draw_cell(class_name, seed, settings=CLEAN)[mask].astype(float)
            excess.append((inside[:, 0] - inside[:, 1]).mean())
        return np.mean(excess)

    assert redness("eosinophil") > redness("neutrophil") + 15


def test_classes_are_recognisable_but_not_from_a_thumbnail_alone():
    def thumbnails(split, n_cells):
        pictures, labels = [], []
        for label, class_name in enumerate(CLASS_NAMES):
            for seed in cell_seeds(0, split, class_name, n_cells):
                picture = draw_cell(class_name, seed).astype(float)
                pictures.append(picture.reshape(16, 4, 16, 4, 3).mean(axis=(1, 3)).ravel())
                labels.append(label)
        return np.array(pictures), np.array(labels)

    train, train_labels = thumbnails("train", 60)
    val, val_labels = thumbnails("val", 40)
    distances = np.square(train).sum(axis=1) - 2 * val @ train.T  # up to a constant of each row
    nearest = train_labels[np.argsort(distances, axis=1)[:, :5]]
    votes = np.stack([(nearest == label).sum(axis=1) for label in range(8)], axis=1)
    accuracy = (votes.argmax(axis=1) == val_labels).mean()
    # Chance is 0.125; a small network reaches about 0.92, see DrawingSettings.difficulty.
    assert 0.50 < accuracy < 0.85


def test_difficulty_moves_cells_towards_their_look_alikes():
    # A textbook erythroblast has a smaller nucleus in its cell than a lymphocyte has.
    def dark_share(class_name, difficulty):
        settings = replace(CLEAN, difficulty=difficulty)
        shares = []
        for seed in range(60):
            mask = cell_mask(class_name, seed, settings=settings)
            green = draw_cell(class_name, seed, settings=settings)[mask][:, 1]
            shares.append((green < 70).mean())
        return np.mean(shares)

    textbook = dark_share("lymphocyte", 0) - dark_share("erythroblast", 0)
    hard = dark_share("lymphocyte", 1) - dark_share("erythroblast", 1)
    assert textbook > 0.2
    assert hard < 0.8 * textbook


def test_twice_the_stain_jitter_is_four_times_the_variance_of_colour():
    def colour_shifts(stain_jitter):
        settings = replace(CLEAN, stain_jitter=stain_jitter)
        return [
            np.log(draw_cell("lymphocyte", seed, settings=settings)[20:44, 20:44, 1] + 1.0).mean()
            - np.log(draw_cell("lymphocyte", seed, settings=CLEAN)[20:44, 20:44, 1] + 1.0).mean()
            for seed in range(60)
        ]

    ratio = np.var(colour_shifts(1.0)) / np.var(colour_shifts(0.5))
    assert ratio == pytest.approx(4, rel=0.25)


def test_twice_the_sensor_noise_is_four_times_its_variance():
    clean = draw_cell("platelet", 1, settings=CLEAN).astype(float)

    def noise_variance(sensor_noise):
        noisy = draw_cell("platelet", 1, settings=replace(CLEAN, sensor_noise=sensor_noise))
        return np.var(noisy[:, :, 1] - clean[:, :, 1])  # green is not clipped

    assert noise_variance(4) / noise_variance(2) == pytest.approx(4, rel=0.15)


def test_no_seed_is_shared_between_splits_or_classes():
    seeds = [
        seed
        for split in ("train", "val", "test")
        for class_name in CLASS_NAMES
        for seed in cell_seeds(7, split, class_name, 500)
    ]
    assert len(set(seeds)) == len(seeds)


def test_a_longer_set_begins_with_the_shorter_one():
    assert cell_seeds(7, "train", "ig", 9)[:4] == cell_seeds(7, "train", "ig", 4)


def test_a_drawn_set_is_a_folder_by_class_that_can_be_drawn_again(tmp_path):
    reports = []
    draw_data_set(
        tmp_path / "set", 3, 1, DrawingSettings(), lambda *n: reports.append(n), split="val"
    )
    draw_data_set(tmp_path / "set", 2, 1, split="val")
    assert reports[0] == (1, 24)
    assert reports[-1] == (24, 24)
    assert sorted(p.name for p in (tmp_path / "set").iterdir() if p.is_dir()) == list(CLASS_NAMES)
    assert len(list((tmp_path / "set").glob("*/*.png"))) == 16
    seed = cell_seeds(1, "val", "ig", 2)[1]
    with Image.open(tmp_path / "set" / "ig" / "0001.png") as file:
        assert np.array_equal(np.asarray(file), draw_cell("ig", seed))
    record = json.loads((tmp_path / "set" / "drawing.json").read_text())
    assert DrawingSettings(**record["settings"]) == DrawingSettings()
    assert record["split"] == "val"


def test_an_unknown_class_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"no drawing of 'blast'; the drawn classes are basophil"):
        draw_cell("blast", 0)


def test_a_picture_too_small_for_a_nucleus_is_refused():
    with pytest.raises(ValueError, match=r"size=15 is too small.*at least 16 px"):
        draw_cell("ig", 0, size=15)


def test_a_data_set_of_too_small_pictures_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match="size=8 is too small"):
        draw_data_set(tmp_path / "set", 1, 0, size=8)
    assert not (tmp_path / "set").exists()


def test_a_data_set_without_pictures_is_refused(tmp_path):
    with pytest.raises(ValueError, match="n_per_class=0; draw at least 1"):
        draw_data_set(tmp_path / "set", 0, 0)


def test_a_folder_with_other_files_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match=r"is not empty and holds no drawn set.*give a folder"):
        draw_data_set(tmp_path, 1, 0)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "set").write_text("")
    with pytest.raises(ValueError, match="is a file; give a folder"):
        draw_data_set(tmp_path / "set", 1, 0)


@pytest.mark.parametrize(
    ("settings", "advice"),
    [
        ({"difficulty": 1.5}, "difficulty=1.5; give a number from 0"),
        ({"stain_jitter": -1}, "stain_jitter=-1; give a number from 0"),
        ({"sensor_noise": float("nan")}, "sensor_noise=nan; give a number from 0"),
        ({"defocus": 99}, "defocus=99; give a number from 0"),
    ],
)
def test_settings_out_of_range_are_refused_with_their_range(settings, advice):
    with pytest.raises(ValueError, match=advice):
        DrawingSettings(**settings)
