import json
import shutil

import pytest
import torch

from diffusion.checkpoint import (
    FORMAT_VERSION,
    HEADER_FILE,
    CheckpointError,
    checkpoint_digest,
    load_checkpoint,
    save_checkpoint,
)
from tests.conftest import TINY_CLASSES, write_tiny_checkpoint
from tests.diffusion.test_network import small_network


@pytest.fixture
def folder(tiny_checkpoint, tmp_path):
    return shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint")


def test_a_checkpoint_comes_back_with_its_classes_in_order(folder):
    checkpoint = load_checkpoint(folder)
    assert checkpoint.class_names == TINY_CLASSES
    assert checkpoint.network.config.n_classes == len(TINY_CLASSES)
    assert not checkpoint.network.training
    assert all(p.dtype == torch.float32 for p in checkpoint.network.parameters())


def test_weights_survive_to_half_precision(folder, tmp_path):
    checkpoint = load_checkpoint(folder)
    save_checkpoint(tmp_path / "again", checkpoint.network, checkpoint.header)
    again = load_checkpoint(tmp_path / "again")
    for name, weight in checkpoint.network.state_dict().items():
        assert torch.equal(again.network.state_dict()[name], weight), name
    assert again.digest == checkpoint.digest


def test_the_digest_knows_a_changed_weight_and_ignores_the_model_card(folder, tmp_path):
    before = checkpoint_digest(folder)
    (folder / "README.md").write_text("a model card")
    (folder / "run").mkdir()
    (folder / "run" / "training.json").write_text("{}")
    assert checkpoint_digest(folder) == before
    assert checkpoint_digest(write_tiny_checkpoint(tmp_path / "other", seed=1)) != before


def test_nothing_in_a_checkpoint_is_pickled(folder):
    kinds = {path.suffix for path in folder.rglob("*") if path.is_file()}
    assert kinds == {".json", ".safetensors"}


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="is not a folder; give the checkpoint's folder"):
        load_checkpoint(tmp_path / "nowhere")


def test_a_folder_of_something_else_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"has no cytoverity\.json; give a folder written by"):
        load_checkpoint(tmp_path)


def test_an_unknown_field_is_named(folder):
    header = json.loads((folder / HEADER_FILE).read_text()) | {"classes": ["a"]}
    (folder / HEADER_FILE).write_text(json.dumps(header))
    with pytest.raises(CheckpointError, match=r"does not describe a checkpoint .classes: Extra"):
        load_checkpoint(folder)


@pytest.mark.parametrize("version", [FORMAT_VERSION - 1, FORMAT_VERSION + 1])
def test_another_format_is_refused_with_the_way_out_whatever_its_fields(folder, version):
    header = {"format_version": version, "name": "other", "temperature": 10.0}
    (folder / HEADER_FILE).write_text(json.dumps(header))
    with pytest.raises(
        CheckpointError, match=f"has format version {version} .* install the release that wrote it"
    ):
        load_checkpoint(folder)


def test_a_header_that_is_no_json_is_refused(folder):
    (folder / HEADER_FILE).write_text("name: tiny")
    with pytest.raises(CheckpointError, match=r"does not describe a checkpoint \(header: Invalid"):
        load_checkpoint(folder)


def test_settings_without_every_row_are_refused(folder):
    header = json.loads((folder / HEADER_FILE).read_text())
    del header["classifier"]["rows"]["fused"]
    (folder / HEADER_FILE).write_text(json.dumps(header))
    with pytest.raises(CheckpointError, match="give fused, generative, head"):
        load_checkpoint(folder)


def test_missing_weights_are_named(folder):
    (folder / "denoiser" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="has no denoiser weights in safetensors"):
        load_checkpoint(folder)


def test_damaged_weights_are_refused(folder):
    (folder / "denoiser" / "diffusion_pytorch_model.safetensors").write_bytes(b"not weights")
    with pytest.raises(CheckpointError, match=r"cannot be read .* copy the folder again"):
        load_checkpoint(folder)


def test_class_names_of_another_network_are_refused(folder):
    header = json.loads((folder / HEADER_FILE).read_text())
    header["class_names"] = ["one", "two"]
    (folder / HEADER_FILE).write_text(json.dumps(header))
    with pytest.raises(CheckpointError, match="names 2 classes but its network knows 3"):
        load_checkpoint(folder)


def test_a_checkpoint_from_before_trunks_were_told_draws_as_it_did(folder, tmp_path):
    header = load_checkpoint(folder).header
    network = small_network()
    save_checkpoint(tmp_path, network, header, dtype=torch.float32)
    config_path = tmp_path / "denoiser" / "config.json"
    config = json.loads(config_path.read_text())
    assert config.pop("trunk_can_be_told") is False
    config_path.write_text(json.dumps(config))
    loaded = load_checkpoint(tmp_path)
    inputs = torch.randn(3, 3, 16, 16), torch.tensor([0.1, 1.0, 5.0]), torch.arange(3)
    assert torch.equal(loaded.denoise(*inputs), network.as_denoiser()(*inputs))


def test_what_the_trunk_is_told_is_kept(folder, tmp_path):
    header = load_checkpoint(folder).header
    network = small_network(trunk_can_be_told=True)
    save_checkpoint(tmp_path, network, header, dtype=torch.float32)
    inputs = torch.randn(3, 3, 16, 16), torch.tensor([0.1, 1.0, 5.0]), torch.arange(3)
    drawn = load_checkpoint(tmp_path).denoise(*inputs)
    assert torch.equal(drawn, network.as_denoiser()(*inputs))
    assert not torch.equal(drawn, small_network().as_denoiser()(*inputs))


def test_repeated_class_names_are_refused(folder):
    header = json.loads((folder / HEADER_FILE).read_text())
    header["class_names"] = ["one", "two", "one"]
    (folder / HEADER_FILE).write_text(json.dumps(header))
    with pytest.raises(CheckpointError, match="are not distinct"):
        load_checkpoint(folder)


def test_a_header_for_another_number_of_classes_is_not_written(folder, tmp_path):
    header = load_checkpoint(folder).header
    network = small_network(n_classes=2)
    with pytest.raises(CheckpointError, match="names 3 classes but the network was built for 2"):
        save_checkpoint(tmp_path / "new", network, header)
