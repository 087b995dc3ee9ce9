import csv
import io
import zipfile

import numpy as np
import pytest
from PIL import Image

from tests.training.conftest import write_folder
from training.data import DataError, class_counts, read_images


def packed(folder, tmp_path, *, with_ids=True):
    """The same images as a packed set, lossless WebP in two archives."""
    table = tmp_path / "packed.csv"
    rows = []
    archives = [zipfile.ZipFile(tmp_path / f"packed-{i}.zip", "w") for i in range(2)]
    for i, path in enumerate(sorted(folder.rglob("*.png"))):
        buffer = io.BytesIO()
        Image.open(path).save(buffer, format="WEBP", lossless=True)
        name = f"{path.parent.name}/{path.stem}.webp"
        archives[i % 2].writestr(name, buffer.getvalue())
        row = {"archive": f"packed-{i % 2}.zip", "file": name, "class": path.parent.name}
        if with_ids:  # an order of its own, as PBC has
            row["class_id"] = str({"gamma": 0, "alpha": 1, "beta": 2}[path.parent.name])
        rows.append(row)
    for archive in archives:
        archive.close()
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return table


def test_a_folder_gives_its_classes_in_alphabetical_order(folder):
    data = read_images(folder, 32)
    assert data.class_names == ("alpha", "beta", "gamma")
    assert class_counts(data) == {"alpha": 12, "beta": 9, "gamma": 6}
    assert data.images.shape == (27, 32, 32, 3)


def test_a_packed_set_holds_the_same_pixels_in_its_own_order_of_classes(folder, tmp_path):
    table = packed(folder, tmp_path)
    data = read_images(table, 32)
    assert data.class_names == ("gamma", "alpha", "beta")
    assert sorted(data.digests) == sorted(read_images(folder, 32).digests)
    assert data.digest == read_images(folder, 32).digest


def test_a_packed_set_may_be_named_without_its_ending(folder, tmp_path):
    table = packed(folder, tmp_path, with_ids=False)
    assert read_images(table.with_suffix(""), 32).class_names == ("alpha", "beta", "gamma")


@pytest.mark.parametrize("suffix", ["png", "jpg", "jpeg", "tif", "tiff", "bmp", "webp"])
def test_every_common_format_and_size_is_read(tmp_path, suffix):
    for name, shade in (("dark", 40), ("light", 200)):
        (tmp_path / name).mkdir()
        for i, size in enumerate([(50, 40), (64, 64)]):
            Image.new("RGB", size, (shade, shade, shade)).save(tmp_path / name / f"{i}.{suffix}")
    data = read_images(tmp_path, 16)
    assert data.images.shape == (4, 16, 16, 3)
    assert np.abs(data.images[0].astype(int) - 40).max() <= 2


def test_grey_and_transparent_images_become_rgb(tmp_path):
    for name, mode in (("grey", "L"), ("clear", "RGBA"), ("indexed", "P")):
        (tmp_path / name).mkdir()
        Image.new(mode, (20, 20)).save(tmp_path / name / "0.png")
    assert read_images(tmp_path, 16).images.shape == (3, 16, 16, 3)


def test_a_limit_takes_the_classes_in_turn(folder):
    assert class_counts(read_images(folder, 32, limit=7)) == {"alpha": 3, "beta": 2, "gamma": 2}
    assert len(read_images(folder, 32, limit=1000)) == 27


def test_the_held_out_share_depends_on_pixels_alone(tmp_path):
    data = read_images(write_folder(tmp_path / "many", {"a": 200, "b": 200}, size=8), 8)
    held_out = data.held_out(0.25)
    assert held_out.mean() == pytest.approx(0.25, abs=0.08)
    turned = data.where(np.arange(len(data))[::-1] >= 0)
    assert np.array_equal(turned.held_out(0.25), held_out)
    assert not data.held_out(0.0).any()
    assert set(data.where(held_out).digests).isdisjoint(data.where(~held_out).digests)


def test_the_digest_sees_a_changed_label(folder):
    before = read_images(folder, 32).digest
    (folder / "alpha" / "000.png").rename(folder / "beta" / "moved.png")
    assert read_images(folder, 32).digest != before


def test_labels_follow_the_models_order_of_classes(folder):
    data = read_images(folder, 32)
    mapped = data.labelled_for(("gamma", "unseen", "beta", "alpha"))
    assert mapped.class_names[mapped.labels[0]] == "alpha"
    assert set(mapped.labels.tolist()) == {0, 2, 3}


def test_a_class_that_the_model_does_not_know_is_named(folder):
    with pytest.raises(DataError, match=r"does not know beta; it knows alpha, gamma\. Rename"):
        read_images(folder, 32).labelled_for(("alpha", "gamma"))


def test_an_unreadable_image_is_not_left_out_silently(folder):
    (folder / "alpha" / "000.png").write_bytes(b"not an image")
    with pytest.raises(DataError, match=r"1 of 27 images .* cannot be read: .*000\.png"):
        read_images(folder, 32)


def test_a_truncated_image_is_refused(folder):
    path = folder / "beta" / "003.png"
    path.write_bytes(path.read_bytes()[:400])
    with pytest.raises(DataError, match="Repair or remove them"):
        read_images(folder, 32)


def test_a_missing_path_says_what_was_expected(tmp_path):
    with pytest.raises(DataError, match="neither a folder of images by class nor a packed set"):
        read_images(tmp_path / "nowhere", 32)


def test_an_empty_folder_says_what_to_put_there(tmp_path):
    with pytest.raises(DataError, match="holds no images; put one folder for each class"):
        read_images(tmp_path, 32)


def test_a_table_without_its_columns_is_refused(tmp_path):
    (tmp_path / "set.csv").write_text("name,label\na.png,x\n")
    with pytest.raises(DataError, match="has no column class or file"):
        read_images(tmp_path / "set.csv", 32)


def test_a_missing_archive_is_named(folder, tmp_path):
    table = packed(folder, tmp_path)
    (tmp_path / "packed-1.zip").unlink()
    with pytest.raises(DataError, match=r"names packed-1\.zip, not found beside it"):
        read_images(table, 32)


def test_the_real_cells_have_the_published_counts(shared_data):
    data = read_images(shared_data / "pbc64" / "val", 64, crop_px=200)
    assert class_counts(data) == {
        "basophil": 121,
        "eosinophil": 314,
        "erythroblast": 157,
        "ig": 280,
        "lymphocyte": 112,
        "monocyte": 148,
        "neutrophil": 334,
        "platelet": 242,
    }
