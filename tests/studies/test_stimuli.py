from pathlib import Path

import pytest
from PIL import Image, PngImagePlugin

from studies.stimuli import COLUMNS, StimulusError, read_stimuli, write_manifest
from tests.studies.simulation import stimulus_set


@pytest.fixture
def folder(tmp_path) -> Path:
    """A whole set: one real and one generated picture of two classes."""
    stimuli = stimulus_set(1, ("monocyte", "platelet"))
    for grey, stimulus in enumerate(stimuli):
        Image.new("RGB", (24, 24), (grey, 80, 90)).save(tmp_path / stimulus.file)
    write_manifest(tmp_path, stimuli)
    return tmp_path


def edit(folder, old, new):
    manifest = folder / "manifest.csv"
    text = manifest.read_text(encoding="utf-8")
    assert old in text
    manifest.write_text(text.replace(old, new, 1), encoding="utf-8")


def test_the_manifest_has_the_columns_of_the_contract():
    assert COLUMNS == (
        "stimulus_id",
        "file",
        "class_name",
        "is_synthetic",
        "source_digest",
        "generator_digest",
        "seed",
    )


def test_a_written_set_reads_back_the_same(folder):
    assert read_stimuli(folder) == tuple(stimulus_set(1, ("monocyte", "platelet")))


def test_a_manifest_saved_by_a_spreadsheet_reads_the_same(folder):
    before = read_stimuli(folder)
    text = (folder / "manifest.csv").read_text(encoding="utf-8")
    text = text.replace("true", "TRUE").replace("false", "FALSE").replace("\n", "\r\n")
    (folder / "manifest.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert read_stimuli(folder) == before


def test_a_telling_file_name_is_refused(folder):
    name = read_stimuli(folder)[0].file
    edit(folder, name, "fake_0007.png")
    with pytest.raises(StimulusError, match=r"row 2, column `file`: found 'fake_0007\.png'"):
        read_stimuli(folder)


def test_a_path_out_of_the_folder_is_refused(folder):
    edit(folder, read_stimuli(folder)[0].file, "../secret.png")
    with pytest.raises(StimulusError, match="column `file`"):
        read_stimuli(folder)


def test_a_truth_that_is_not_true_or_false_is_refused(folder):
    edit(folder, "false", "no")
    with pytest.raises(StimulusError, match="column `is_synthetic`: found 'no'; write true or"):
        read_stimuli(folder)


def test_a_real_picture_with_a_generator_is_refused(folder):
    edit(folder, "true", "false")
    with pytest.raises(StimulusError, match="there is a generator_digest or a seed; empty those"):
        read_stimuli(folder)


def test_metadata_in_a_picture_is_refused(folder):
    comment = PngImagePlugin.PngInfo()
    comment.add_text("comment", "Diffusion steps 50")
    name = read_stimuli(folder)[1].file
    Image.new("RGB", (24, 24)).save(folder / name, pnginfo=comment)
    with pytest.raises(StimulusError, match=r"carries metadata \(tEXt\) that could tell"):
        read_stimuli(folder)


def test_pictures_of_different_size_are_refused(folder):
    Image.new("RGB", (25, 24)).save(folder / read_stimuli(folder)[1].file)
    with pytest.raises(StimulusError, match="is 25×24 but the first picture is 24×24"):
        read_stimuli(folder)


def test_a_grey_picture_is_refused(folder):
    Image.new("L", (24, 24)).save(folder / read_stimuli(folder)[1].file)
    with pytest.raises(StimulusError, match="is not 8-bit RGB; re-encode all pictures alike"):
        read_stimuli(folder)


@pytest.mark.parametrize("damage", [b"", b"GIF89a", None])
def test_a_damaged_picture_is_refused(folder, damage):
    path = folder / read_stimuli(folder)[1].file
    path.write_bytes(path.read_bytes()[:-20] if damage is None else damage)
    with pytest.raises(StimulusError, match="is not a whole PNG; make the set anew"):
        read_stimuli(folder)


def test_a_missing_picture_is_refused(folder):
    (folder / read_stimuli(folder)[1].file).unlink()
    with pytest.raises(StimulusError, match="in the manifest but not in the folder"):
        read_stimuli(folder)


def test_an_id_that_is_there_twice_is_refused(tmp_path):
    stimuli = stimulus_set(1, ("monocyte",))
    with pytest.raises(StimulusError, match=r"row 4, column `stimulus_id`: .* is there twice"):
        write_manifest(tmp_path, [*stimuli, stimuli[0]])


def test_a_folder_without_manifest_is_refused_with_the_command_that_writes_one(tmp_path):
    with pytest.raises(StimulusError, match="give the folder that `python -m webapp stimuli`"):
        read_stimuli(tmp_path)


def test_other_columns_are_refused_with_the_right_ones(folder):
    edit(folder, "class_name", "label")
    with pytest.raises(StimulusError, match="a manifest has stimulus_id, file, class_name"):
        read_stimuli(folder)


def test_an_empty_manifest_is_refused(tmp_path):
    write_manifest(tmp_path, [])
    with pytest.raises(StimulusError, match="lists no stimulus"):
        read_stimuli(tmp_path)


def test_a_manifest_that_is_not_text_is_refused(folder):
    (folder / "manifest.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(StimulusError, match="is not a CSV file in UTF-8"):
        read_stimuli(folder)


def test_a_row_with_one_value_too_many_is_refused(folder):
    edit(folder, ",false,", ",false,,")
    with pytest.raises(StimulusError, match="row 2"):
        read_stimuli(folder)
