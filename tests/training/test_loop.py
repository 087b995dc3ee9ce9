import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from diffusion.checkpoint import load_checkpoint
from tests.training.conftest import write_folder
from training.config import RECIPES, TrainingConfig, smoke_test
from training.data import DataError, read_images
from training.ema import AveragedWeights
from training.fitting import FittingPlan
from training.loop import (
    STATE_FILE,
    WEIGHTS_FILE,
    _draw_batch,
    ground_of,
    learning_rate,
    standard_deviation,
    train,
)
from training.loss import Objective

CONFIG = replace(smoke_test(), n_images=48 * 16, snapshot_minutes=1e-9)


class KilledError(Exception):
    pass


@pytest.fixture
def data(tmp_path):
    return read_images(write_folder(tmp_path / "cells", {"a": 40, "b": 40}), 32)


def losses_of(config, data, out, *, kill_after=None):
    seen = {}

    def on_step(step, loss):
        seen[step] = loss
        if step == kill_after:
            raise KilledError

    try:
        trained = train(config, data, out, on_step=on_step)
    except KilledError:
        trained = None
    return seen, trained


def test_a_killed_run_started_again_has_the_same_loss_curve(data, tmp_path):
    whole, trained = losses_of(CONFIG, data, tmp_path / "whole")
    first, _ = losses_of(CONFIG, data, tmp_path / "killed", kill_after=30)
    second, resumed = losses_of(CONFIG, data, tmp_path / "killed")
    assert min(second) == 30  # step 30 was killed before its snapshot, so it is taken again
    assert first | second == whole
    for weight, same in zip(
        trained.network.parameters(), resumed.network.parameters(), strict=True
    ):
        assert torch.equal(weight, same)
    states = [
        torch.load(tmp_path / name / STATE_FILE, weights_only=True) for name in ("whole", "killed")
    ]
    for part in ("network", "averaged", "objective"):
        for name, tensor in states[0][part].items():
            assert torch.equal(tensor, states[1][part][name]), (part, name)
    assert torch.equal(trained.background, resumed.background)
    tables = [
        (tmp_path / name / "losses.csv").read_text().splitlines() for name in ("whole", "killed")
    ]
    assert tables[0] == tables[1]
    assert len(tables[0]) == 3


def test_training_lowers_the_loss(data, tmp_path):
    config = replace(CONFIG, n_images=96 * 16, snapshot_minutes=1.0)
    losses, trained = losses_of(config, data, tmp_path / "run")
    assert np.mean([losses[s] for s in range(88, 97)]) < 0.8 * np.mean(
        [losses[s] for s in range(1, 9)]
    )
    assert trained.n_images_seen == 96 * 16
    assert (tmp_path / "run" / "samples.png").is_file()
    assert list((tmp_path / "run" / "tensorboard").iterdir())


def test_the_contrasts_scale_is_learned_along_and_kept_in_the_state(data, tmp_path):
    losses_of(CONFIG, data, tmp_path / "run", kill_after=8)
    state = torch.load(tmp_path / "run" / STATE_FILE, weights_only=True)
    learned, start = state["objective"]["log_scale"], Objective().log_scale.detach()
    assert (learned != start).any()


def test_every_term_of_the_loss_is_reported(data, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    losses_of(replace(CONFIG, n_images=20 * 16), data, tmp_path / "run")
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    assert {"loss", "denoising", "contrast", "noised_head", "head", "lr"} <= set(
        events.Tags()["scalars"]
    )
    (value,) = events.Scalars("denoising")
    assert value.step == 320
    assert 0 < value.value < 2


@pytest.mark.parametrize("n_shared_stages", [1, 2, 3])
def test_a_network_trains_however_much_of_it_is_shared(data, tmp_path, n_shared_stages):
    config = replace(CONFIG, n_images=2 * 16, n_shared_stages=n_shared_stages)
    losses, trained = losses_of(config, data, tmp_path / "run")
    assert len(losses) == 2
    assert trained.network.config.n_shared_stages == n_shared_stages


def test_a_network_that_shares_nothing_trains_without_a_head_on_noised_images(data, tmp_path):
    config = replace(
        CONFIG,
        n_images=2 * 16,
        n_shared_stages=0,
        noised_head_weight=0.0,
        told_trunk_fraction=0.0,
    )
    assert len(losses_of(config, data, tmp_path / "run")[0]) == 2


def test_a_head_on_noised_images_is_refused_where_nothing_is_shared():
    with pytest.raises(ValueError, match="set noised_head_weight to 0 or share the encoder"):
        replace(CONFIG, n_shared_stages=0)


def test_a_trunk_to_be_told_is_refused_where_nothing_is_shared():
    with pytest.raises(ValueError, match="set told_trunk_fraction to 0 or share the encoder"):
        replace(CONFIG, n_shared_stages=0, noised_head_weight=0.0)


@pytest.mark.parametrize("fraction", [-0.1, 1.5, float("nan")])
def test_a_share_of_told_trunks_that_is_none_is_refused(fraction):
    words = rf"told_trunk_fraction={fraction}; give a share of the batch from 0 to 1"
    with pytest.raises(ValueError, match=words):
        replace(CONFIG, told_trunk_fraction=fraction)


def test_strong_alteration_and_told_trunks_share_a_batch():
    look = replace(CONFIG.augmentation, strong_fraction=0.6)
    with pytest.raises(ValueError, match=r"told_trunk_fraction=0.5 and strong_fraction=0.6 are"):
        replace(CONFIG, told_trunk_fraction=0.5, augmentation=look)


def test_every_batch_tells_as_many_trunks_of_cells_that_look_as_they_are(data):
    by_class = [np.flatnonzero(data.labels == label) for label in range(2)]
    look = replace(CONFIG.augmentation, strong_fraction=0.5, told_fraction=0.0)

    def drawn(fraction, step):
        config = replace(CONFIG, told_trunk_fraction=fraction, augmentation=look)
        return _draw_batch(config, data, by_class, [0, 1], ground_of(data.images), step)

    for fraction, n_told in ((0.0, 0), (0.25, 4), (0.5, 8)):
        for step in range(3):
            latents, told, *_, is_trunk_told = drawn(fraction, step)
            assert int(is_trunk_told.sum()) == n_told
            other, *_ = drawn(0.5, step)
            assert torch.equal(latents, other)
            # Of the look the decoder is told where the trunk is told to draw, and only there.
            assert torch.equal(told[:, 0] == 1, is_trunk_told)
            assert told[:, 1:].abs().max() == 0
    everything = replace(look, told_fraction=1.0, balanced_fraction=0.0)
    config = replace(CONFIG, told_trunk_fraction=0.5, augmentation=everything)
    batch = _draw_batch(config, data, by_class, [0, 1], ground_of(data.images), 0)
    is_strong = batch[1][:, 1] == 1
    assert torch.equal(batch[-1], ~is_strong)
    assert not torch.equal(drawn(0.25, 1)[-1], drawn(0.25, 2)[-1])


def test_training_teaches_what_the_trunk_is_told_unless_none_is_told(data, tmp_path):
    config = replace(CONFIG, n_images=4 * 16)
    _, trained = losses_of(config, data, tmp_path / "told")
    started = losses_of(replace(config, lr=0.0), data, tmp_path / "start")[1].network
    assert not torch.equal(trained.network.trunk_class.weight, started.trunk_class.weight)
    untold = replace(config, told_trunk_fraction=0.0)
    _, trained = losses_of(untold, data, tmp_path / "untold")
    assert trained.network.told_trunk(torch.tensor([0])) is None


# Starting from other weights.


def random_weights(config, data, folder):
    """The network of a recipe with a value in every weight, written as a checkpoint's weights."""
    _, trained = losses_of(replace(config, n_images=1), data, folder / "run")
    for seed, parameter in enumerate(trained.network.parameters()):
        generator = torch.Generator().manual_seed(seed)
        parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    (folder / WEIGHTS_FILE).parent.mkdir()
    save_file(trained.network.state_dict(), folder / WEIGHTS_FILE)
    return trained.network


def test_a_run_starts_from_the_weights_that_fit(data, tmp_path, capsys):
    earlier = random_weights(CONFIG, data, tmp_path / "earlier").state_dict()
    # A learning rate of nothing shows what the run started from.
    config = replace(CONFIG, n_images=16, lr=0.0, init_from=str(tmp_path / "earlier"))
    _, trained = losses_of(config, data, tmp_path / "same")
    started = trained.network.state_dict()
    assert started.keys() == earlier.keys()
    assert all(torch.equal(tensor, earlier[name]) for name, tensor in started.items())
    _, trained = losses_of(replace(config, n_decoder_blocks=(2, 1)), data, tmp_path / "deeper")
    deeper = trained.network.state_dict()
    added = deeper.keys() - earlier.keys()
    assert added
    assert all(name.startswith("decoder.0.1.") for name in added)
    assert all(torch.equal(deeper[name], tensor) for name, tensor in earlier.items())
    words = " ".join(capsys.readouterr().out.split())
    assert f"{len(earlier)} of {len(deeper)} tensors taken over" in words


def test_a_run_starts_from_weights_of_before_trunks_were_told(data, tmp_path, capsys):
    untold = replace(CONFIG, told_trunk_fraction=0.0)
    earlier = random_weights(untold, data, tmp_path / "earlier")
    config = replace(CONFIG, n_images=16, lr=0.0, init_from=str(tmp_path / "earlier"))
    _, trained = losses_of(config, data, tmp_path / "run")
    n = len(earlier.state_dict())
    words = " ".join(capsys.readouterr().out.split())
    assert f"{n} of {n + 1} tensors taken over" in words
    # Without what the trunk is told, it draws as before.
    trained.network.trunk_class.weight.zero_()
    noised = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    inputs = noised, torch.tensor([0.3, 2.0]), torch.tensor([0, 1])
    answers = [network.as_denoiser()(*inputs) for network in (earlier, trained.network)]
    assert torch.equal(*answers)


def test_weights_of_another_shape_stay_as_the_seed_drew_them(data, tmp_path):
    random_weights(CONFIG, data, tmp_path / "earlier")
    three = replace(CONFIG, n_images=16, lr=0.0, n_shared_stages=3)  # K outputs
    _, plain = losses_of(three, data, tmp_path / "plain")
    _, started = losses_of(
        replace(three, init_from=str(tmp_path / "earlier")), data, tmp_path / "started"
    )
    earlier = load_file(tmp_path / "earlier" / WEIGHTS_FILE)
    own = plain.network.state_dict()
    for name, tensor in started.network.state_dict().items():
        expected = own if name.startswith("output.") else earlier
        assert torch.equal(tensor, expected[name]), name


def test_a_start_from_a_folder_without_weights_is_refused(data, tmp_path):
    config = replace(CONFIG, init_from=str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match=r"nowhere has no denoiser/.* give a checkpoint folder"):
        train(config, data, tmp_path / "run")


def test_a_start_from_a_network_of_other_shapes_is_refused(data, tmp_path):
    weights = tmp_path / "other" / WEIGHTS_FILE
    weights.parent.mkdir(parents=True)
    save_file({"stem.weight": torch.zeros(3, 3), "head.of.another": torch.zeros(1)}, weights)
    config = replace(CONFIG, init_from=str(tmp_path / "other"))
    with pytest.raises(DataError, match=r"No weight in .*other does not fit .* of the same recipe"):
        train(config, data, tmp_path / "run")


def test_a_frozen_trunk_keeps_the_heads_answers_to_the_bit_while_the_decoder_learns(data, tmp_path):
    earlier = random_weights(CONFIG, data, tmp_path / "earlier")
    config = replace(
        CONFIG, n_images=8 * 16, init_from=str(tmp_path / "earlier"), freeze_trunk=True
    )
    losses, trained = losses_of(config, data, tmp_path / "run")
    assert len(losses) == 8
    latents = torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    answers = [network.head_logits(latents) for network in (earlier, trained.network)]
    assert answers[0].std(dim=0).min() > 0  # it looks at the image
    assert torch.equal(*answers)
    # All of the rest moves, and nothing of the trunk.
    kept = {id(p) for module in trained.network.trunk_modules() for p in module.parameters()}
    before = dict(earlier.named_parameters())
    for name, parameter in trained.network.named_parameters():
        assert torch.equal(parameter, before[name]) == (id(parameter) in kept), name
    # Without it the trunk moves.
    _, free = losses_of(replace(config, freeze_trunk=False), data, tmp_path / "free")
    assert not torch.equal(free.network.head_logits(latents), answers[0])


def test_a_killed_run_with_a_frozen_trunk_goes_on_as_it_was(data, tmp_path):
    random_weights(CONFIG, data, tmp_path / "earlier")
    config = replace(
        CONFIG, n_images=8 * 16, init_from=str(tmp_path / "earlier"), freeze_trunk=True
    )
    whole, trained = losses_of(config, data, tmp_path / "whole")
    first, _ = losses_of(config, data, tmp_path / "killed", kill_after=4)
    second, resumed = losses_of(config, data, tmp_path / "killed")
    assert min(second) == 4
    assert first | second == whole
    states = [run.network.state_dict() for run in (trained, resumed)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_a_frozen_trunk_of_random_weights_is_refused():
    with pytest.raises(ValueError, match="would keep a random trunk; name a checkpoint to start"):
        replace(CONFIG, freeze_trunk=True)


def test_training_by_the_clock_ends_on_time(data, tmp_path):
    config = replace(CONFIG, minutes=0.02)
    _, trained = losses_of(config, data, tmp_path / "run")
    assert trained.training_s >= 1.2
    assert trained.n_images_seen > 0


def test_a_folder_of_another_run_is_refused_with_the_difference(data, tmp_path):
    losses_of(CONFIG, data, tmp_path / "run", kill_after=2)
    with pytest.raises(DataError, match="differs in lr; give another --out"):
        train(replace(CONFIG, lr=1e-3), data, tmp_path / "run")


def test_every_other_difference_is_named(data, tmp_path):
    losses_of(CONFIG, data, tmp_path / "run", kill_after=2)
    other = replace(
        CONFIG,
        augmentation=replace(CONFIG.augmentation, blur_px=0.0),
        contrast_weight=0.2,
        seed=1,
    )
    with pytest.raises(DataError, match="differs in augmentation, contrast_weight, seed; give"):
        train(other, data, tmp_path / "run")


def test_a_run_whose_classifier_is_to_be_fitted_otherwise_goes_on(data, tmp_path):
    config = replace(CONFIG, n_images=6 * 16)
    losses_of(config, data, tmp_path / "run", kill_after=4)
    other = replace(config, fitting=FittingPlan(per_class=7, seed=3))
    rest, trained = losses_of(other, data, tmp_path / "run")
    assert list(rest) == [4, 5, 6]
    assert trained.n_images_seen == config.n_images
    recorded = json.loads((tmp_path / "run" / "training.json").read_text())["config"]
    assert recorded["fitting"]["per_class"] == 7


def test_other_data_are_refused(data, tmp_path):
    losses_of(CONFIG, data, tmp_path / "run", kill_after=2)
    with pytest.raises(DataError, match="differs in the data"):
        train(CONFIG, data.where(data.labels >= 0).where(np.arange(80) > 3), tmp_path / "run")


def test_one_class_is_refused(data, tmp_path):
    with pytest.raises(DataError, match="Only 1 class in the training data"):
        train(CONFIG, data.where(data.labels == 0), tmp_path / "run")


def test_the_average_reaches_weights_that_stay(tiny_checkpoint):
    network = load_checkpoint(tiny_checkpoint).network
    averaged = AveragedWeights(network, halflife_images=100)
    before = [p.clone() for p in averaged.network.parameters()]
    for p in network.parameters():
        p.data.add_(1.0)
    averaged.update(network, batch_size=100, n_images_seen=100_000)  # one half-life
    for old, new in zip(before, averaged.network.parameters(), strict=True):
        torch.testing.assert_close(new, old + 0.5)


def test_the_learning_rate_warms_up_and_ends_near_zero():
    config = smoke_test()
    assert learning_rate(config, 0.0, 0) == pytest.approx(config.lr / 4)
    assert learning_rate(config, 0.0, 10_000) == pytest.approx(config.lr)
    assert learning_rate(config, 1.0, 10_000) == pytest.approx(config.lr / 100)


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_can_be_carried_out(name):
    config = RECIPES[name]()
    assert config.name == name
    assert config.n_steps * config.batch_size >= config.n_images


def test_a_size_that_does_not_divide_is_refused_with_one_that_does():
    with pytest.raises(ValueError, match=r"image_size=60 does not divide .* use a multiple of 16"):
        TrainingConfig(name="odd", image_size=60)


@pytest.mark.parametrize("patch_size", [0, 1, 3])
def test_patches_that_cannot_be_halved_are_refused(patch_size):
    with pytest.raises(ValueError, match=rf"patch_size={patch_size}; .* use an even number"):
        TrainingConfig(name="odd", image_size=48, patch_size=patch_size)


def test_no_images_and_no_time_are_refused():
    with pytest.raises(ValueError, match="both must be at least 1"):
        TrainingConfig(name="none", n_images=0)
    with pytest.raises(ValueError, match="give a positive number, such as 3"):
        TrainingConfig(name="none", minutes=0)


def test_the_spread_and_the_ground_are_those_of_the_images():
    # A light ground with a dark quarter: shares p and 1 - p of two colours d apart.
    images = np.full((600, 8, 8, 3), 230, dtype=np.uint8)
    images[:, :4, :4] = 77
    expected = 0.25**0.5 * 0.75**0.5 * (230 - 77) / 127.5
    assert standard_deviation(images) == pytest.approx(expected, abs=1e-4)
    torch.testing.assert_close(ground_of(images), torch.full((3,), 230 / 255))
