import math

import pytest
import torch

from diffusion.checkpoint import load_checkpoint, save_checkpoint
from diffusion.network import (
    N_APPEARANCE,
    N_FEATURES,
    CellDenoiser,
    FineStem,
    PreconditionedNetwork,
    Whole,
)
from tests.diffusion.gaussians import Mixtures

N_CLASSES = 3
STAGES = range(
    4
)  # of a network of two widths: nothing, encoder, a decoder level, all but K outputs


def small_network(**changes) -> CellDenoiser:
    torch.manual_seed(0)
    options = {
        "image_size": 16,
        "n_classes": N_CLASSES,
        "widths": (16, 32),
        "n_blocks": (1, 1),
        "n_decoder_blocks": (1, 1),
    }
    network = CellDenoiser(**(options | changes))
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return network.eval().requires_grad_(False)


def deep_network(n_shared_stages: int) -> CellDenoiser:
    return small_network(
        widths=(16, 32, 48),
        n_blocks=(1, 1, 1),
        n_decoder_blocks=(1, 2, 1),
        n_shared_stages=n_shared_stages,
    )


def silenced(network: CellDenoiser) -> CellDenoiser:
    """The network with what starts at zero at zero: its raw answer is nothing."""
    for layer in (network.output, network.fine_stem.output):
        for parameter in layer.parameters():
            torch.nn.init.zeros_(parameter)
    return network


def forgetful(network: CellDenoiser) -> CellDenoiser:
    """The network with what its trunk is told at zero."""
    network.trunk_class.weight.zero_()
    return network


def drawn(n, side=16, seed=0):
    """Noised images and their noise levels."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(n, 3, side, side, generator=generator)
    return images, torch.rand(n, generator=generator) + 0.2


def silent(sigma_data):
    """The preconditioning around a network that says nothing, and what that network was shown."""
    seen = []

    class Silent:
        config = type("Config", (), {"sigma_data": sigma_data})

        def share(self, scaled, timesteps, told=None):
            seen.append((scaled, timesteps))
            return (scaled,)

        def finish(self, shared, rows, class_labels, appearance):
            return torch.zeros_like(shared[0][rows])

    return PreconditionedNetwork(Silent(), appearance="any", bfloat16=False), seen


def denoised_by(split, noised, sigmas, labels):
    return split.finish(split.share(noised, sigmas), torch.arange(len(noised)), labels)


# Preconditioning.


def test_preconditioning_gives_the_network_unit_variance_at_every_noise_level():
    split, seen = silent(0.3)
    torch.manual_seed(0)
    clean = 0.3 * torch.randn(64, 3, 16, 16)
    for sigma in (0.01, 0.3, 20.0):
        split.share(clean + sigma * torch.randn_like(clean), torch.full((64,), sigma))
    stds = torch.stack([scaled.std() for scaled, _ in seen])
    torch.testing.assert_close(stds, torch.ones(3), atol=0.02, rtol=0)


def test_the_network_is_told_a_quarter_of_the_noise_levels_logarithm():
    split, seen = silent(0.5)
    split.share(torch.zeros(2, 3, 8, 8), torch.tensor([1.0, 2.0]))
    assert seen[0][1].tolist() == pytest.approx([0.0, math.log(2) / 4])


def test_a_silent_network_is_the_best_linear_denoiser_of_centred_data():
    # Wiener filter: E[x|z] = z * sigma_data^2 / (sigma_data^2 + sigma^2)
    noised = torch.randn(2, 3, 8, 8)
    split, _ = silent(0.5)
    denoised = denoised_by(split, noised, torch.tensor([0.5, 1.0]), torch.zeros(2).long())
    torch.testing.assert_close(denoised[0], noised[0] / 2)
    torch.testing.assert_close(denoised[1], noised[1] / 5)


@pytest.mark.parametrize("n_shared_stages", STAGES)
def test_nearly_clean_images_come_back_as_they_are(n_shared_stages):
    image = torch.rand(1, 3, 16, 16)
    denoise = small_network(n_shared_stages=n_shared_stages).as_denoiser()
    denoised = denoise(image, torch.tensor([1e-6]), torch.tensor([0]))
    torch.testing.assert_close(denoised, image, atol=1e-4, rtol=0)


@pytest.mark.parametrize("n_shared_stages", STAGES)
def test_an_untrained_network_starts_as_the_identity_of_its_preconditioning(n_shared_stages):
    network = fresh_network(n_shared_stages=n_shared_stages)
    raw = network(torch.randn(2, 3, 16, 16), torch.zeros(2), torch.tensor([0, 1]))
    assert raw.abs().max() == 0


# The fine stem.


def fresh_network(**changes) -> CellDenoiser:
    torch.manual_seed(0)
    options = {"image_size": 16, "n_classes": N_CLASSES, "widths": (16, 32)}
    return CellDenoiser(**(options | {"n_blocks": (1, 1), "n_decoder_blocks": (1, 1)} | changes))


def head_loss(network):
    """Cross-entropy of the head on images without noise."""
    images, _ = drawn(2)
    return torch.nn.functional.cross_entropy(network.head_logits(images), torch.tensor([0, 1]))


def test_the_fine_stem_starts_at_zero_whatever_its_other_weights_are():
    network = fresh_network().eval().requires_grad_(False)
    images, _ = drawn(2)
    before = network.head_logits(images)
    for layer in (network.fine_stem.enter, network.fine_stem.block):
        for parameter in layer.parameters():
            torch.nn.init.normal_(parameter)
    assert torch.equal(network.head_logits(images), before)
    torch.nn.init.normal_(network.fine_stem.leave.weight)
    assert (network.head_logits(images) - before).abs().max() > 1e-3


@pytest.mark.parametrize("patch_size", [2, 4, 8])
def test_the_fine_stem_looks_at_half_patches_and_answers_with_one_feature_a_patch(patch_size):
    stem = FineStem(3, patch_size, fine=16, coarse=32, n_embedding=8)
    images, embedding = torch.randn(2, 3, 16, 16), torch.randn(2, 8)
    n_patches = 16 // patch_size
    assert stem.enter(images).shape == (2, 16, 2 * n_patches, 2 * n_patches)
    fine = stem.features(images, embedding)
    assert stem.coarse(fine).shape == (2, 32, n_patches, n_patches)
    assert stem.detail(fine).shape == images.shape
    noised, sigmas = drawn(2)
    network = small_network(patch_size=patch_size)
    assert network(noised, sigmas.log(), torch.arange(2)).shape == noised.shape


def test_the_fine_stem_tells_apart_what_the_patches_stem_cannot():
    # A texture and its negative: all that is linear in a patch sees them add up to nothing.
    torch.manual_seed(0)
    stem = FineStem(3, 4, fine=16, coarse=32, n_embedding=8)
    torch.nn.init.normal_(stem.leave.weight)
    texture, embedding = torch.randn(1, 3, 16, 16), torch.randn(1, 8)

    def coarse(images):
        return stem.coarse(stem.features(images, embedding))

    both = coarse(texture) + coarse(-texture)
    assert (both - 2 * coarse(0 * texture)).abs().max() > 0.1


def test_the_heads_gradient_reaches_the_fine_stem_at_once_and_then_all_of_it():
    fresh = fresh_network()
    head_loss(fresh).backward()
    assert fresh.fine_stem.leave.weight.grad.abs().max() > 0
    learned = small_network().requires_grad_(True)
    head_loss(learned).backward()
    for name, parameter in learned.fine_stem.named_parameters():
        reached = name.startswith(("enter", "block", "leave"))
        assert (parameter.grad is not None) == reached, name
        assert not reached or parameter.grad.abs().max() > 0, name


def test_what_the_fine_stem_adds_to_the_output_starts_at_zero_and_learns_at_once():
    torch.manual_seed(0)
    stem = FineStem(3, 4, fine=16, coarse=32, n_embedding=8)
    images = torch.randn(2, 3, 16, 16)
    detail = stem.detail(stem.features(images, torch.randn(2, 8)))
    assert detail.abs().max() == 0
    (detail - images).square().mean().backward()
    assert stem.output.weight.grad.abs().max() > 0


@pytest.mark.parametrize("n_shared_stages", [1, 2, 3])
def test_fine_detail_is_the_same_for_every_class(n_shared_stages):
    network = small_network(n_shared_stages=n_shared_stages)
    noised, sigmas = drawn(1)
    labels = torch.arange(N_CLASSES + 1)
    every = (noised.expand(len(labels), -1, -1, -1), sigmas.expand(len(labels)), labels)
    with_detail = network(*every)
    network.fine_stem.output.weight.zero_()
    network.fine_stem.output.bias.zero_()
    added = with_detail - network(*every)
    assert added.abs().max() > 1e-2
    torch.testing.assert_close(added, added[:1].expand_as(added), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("patch_size", [1, 3])
def test_patches_that_cannot_be_halved_are_refused(patch_size):
    with pytest.raises(ValueError, match=rf"patch_size={patch_size} has no half .* even one"):
        CellDenoiser(image_size=48, patch_size=patch_size)


# What is shared, and what is told.


@pytest.mark.parametrize("n_shared_stages", range(5))
def test_finishing_repeated_rows_is_one_undivided_pass_for_each_unit(n_shared_stages):
    network = deep_network(n_shared_stages)
    noised, sigmas = drawn(4)
    rows = torch.tensor([3, 0, 0, 2, 0, 3])
    labels = torch.tensor([0, 1, 2, N_CLASSES, 0, 2])
    split = network.split(appearance="clean")
    together = split.finish(split.share(noised, sigmas), rows, labels)
    each = [
        network.as_denoiser()(noised[[row]], sigmas[[row]], labels[[u]])
        for u, row in enumerate(rows.tolist())
    ]
    torch.testing.assert_close(together, torch.cat(each), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("n_shared_stages", STAGES)
def test_what_is_shared_knows_no_class_unless_nothing_is_shared(n_shared_stages):
    # Make the network forget all classes: what is shared must stay as it was.
    network = small_network(n_shared_stages=n_shared_stages)
    noised, sigmas = drawn(2)
    before, answer = network.share(noised, sigmas.log()), network(*drawn(2), torch.tensor([0, 1]))
    network.embed_class.weight.zero_()
    network.embed_appearance.weight.zero_()
    after, forgot = network.share(noised, sigmas.log()), network(*drawn(2), torch.tensor([0, 1]))
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    # Where nothing is shared these are the inputs, without any feature of the encoder.
    assert (len(before) == 2) == (n_shared_stages == 0)
    # K outputs are the class's own without any embedding of it.
    assert torch.equal(answer, forgot) == (n_shared_stages == 3)


@pytest.mark.parametrize("n_shared_stages", STAGES)
def test_the_encoder_sees_the_class_only_where_nothing_is_shared(n_shared_stages):
    network = small_network(n_shared_stages=n_shared_stages)
    seen = []
    network.encoder[0][0].register_forward_hook(lambda module, inputs, output: seen.append(output))
    noised, sigmas = drawn(1)
    for label in range(2):
        network(noised, sigmas.log(), torch.tensor([label]))
    assert torch.equal(seen[0], seen[1]) == (n_shared_stages > 0)


@pytest.mark.parametrize("n_shared_stages", STAGES)
def test_the_class_changes_the_answer(n_shared_stages):
    denoise = small_network(n_shared_stages=n_shared_stages).as_denoiser()
    noised = torch.randn(1, 3, 16, 16).expand(4, -1, -1, -1)
    denoised = denoise(noised, torch.ones(4), torch.tensor([0, 1, 2, N_CLASSES]))
    distances = torch.cdist(denoised.flatten(1), denoised.flatten(1))
    assert (distances + torch.eye(4) > 1e-3).all()


def test_the_last_convolutions_k_outputs_are_the_classes_in_order():
    network = silenced(small_network(n_shared_stages=3, patch_size=4))
    # Each class's 48 patch channels say the number of the class.
    network.output.bias.copy_(torch.arange(N_CLASSES + 1.0).repeat_interleave(3 * 4**2))
    labels = torch.tensor([2, 0, N_CLASSES, 1, 1])
    raw = network(*drawn(5), labels)
    torch.testing.assert_close(raw, labels.float().view(-1, 1, 1, 1).expand(-1, 3, 16, 16))


def test_clean_looks_and_unknown_looks_are_told_apart():
    network = small_network()
    noised, sigmas = drawn(2)
    answers = [
        denoised_by(network.split(appearance=look), noised, sigmas, torch.tensor([0, 1]))
        for look in ("clean", "any")
    ]
    assert (answers[0] - answers[1]).abs().max() > 1e-4


@pytest.mark.parametrize("n_shared_stages", [0, 1])
def test_a_clean_look_is_a_one_and_zeros_and_an_unknown_one_all_zeros(n_shared_stages):
    network = small_network(n_shared_stages=n_shared_stages)
    noised, sigmas = drawn(2)
    shared, rows = network.share(noised, sigmas.log()), torch.arange(2)
    numbers = torch.zeros(2, 1 + N_APPEARANCE)
    for look, first in (("clean", 1.0), ("any", 0.0)):
        numbers[:, 0] = first
        of_numbers = network.finish(shared, rows, rows, numbers)
        assert torch.equal(network.finish(shared, rows, rows, look), of_numbers)
    numbers[:, 5] = 1.0
    assert not torch.equal(network.finish(shared, rows, rows, numbers), of_numbers)


# A trunk that is told.


@pytest.mark.parametrize("n_shared_stages", [1, 2, 3])
def test_a_trunk_that_is_told_zeros_is_a_trunk_that_cannot_be_told(n_shared_stages):
    network = forgetful(small_network(n_shared_stages=n_shared_stages, trunk_can_be_told=True))
    noised, sigmas = drawn(4)
    labels = torch.tensor([0, 1, 2, N_CLASSES])
    untold = denoised_by(network.split(appearance="clean"), noised, sigmas, labels)
    assert torch.equal(network.as_denoiser()(noised, sigmas, labels), untold)
    # It has the answers of a network without the table.
    plain = small_network(n_shared_stages=n_shared_stages)
    plain.load_state_dict(network.state_dict(), strict=False)
    assert plain.told_trunk(labels) is None
    assert torch.equal(plain.as_denoiser()(noised, sigmas, labels), untold)
    fresh, fresh_plain = (
        fresh_network(n_shared_stages=n_shared_stages, trunk_can_be_told=can)
        for can in (True, False)
    )
    assert fresh.told_trunk(labels).std() > 0.5
    # A seed draws the other weights alike.
    weights = fresh.state_dict()
    assert all(torch.equal(weights[name], w) for name, w in fresh_plain.state_dict().items())


@pytest.mark.parametrize("n_shared_stages", [1, 2, 3])
def test_what_the_trunk_is_told_changes_what_is_drawn_and_no_answer_of_the_classifier(
    n_shared_stages,
):
    network = small_network(n_shared_stages=n_shared_stages, trunk_can_be_told=True)
    noised, sigmas = drawn(4)
    labels = torch.tensor([0, 1, 2, N_CLASSES])

    def answers():
        splits = [
            network.split(appearance=look, bfloat16=bfloat16)
            for look in ("clean", "any")
            for bfloat16 in (False, True)
        ]
        denoised = [denoised_by(split, noised, sigmas, labels) for split in splits]
        return [*denoised, network.head_logits(noised), *network.features_and_texture(noised)]

    def drawing():
        return network.as_denoiser()(noised, sigmas, labels)

    before, drawn_before, flops = answers(), drawing(), network.flops()
    forgetful(network)
    assert all(torch.equal(a, b) for a, b in zip(answers(), before, strict=True))
    assert network.flops() == flops
    differences = (drawing() - drawn_before).flatten(1).abs().amax(dim=1)
    assert differences.min() > 1e-3


def test_the_trunk_is_told_the_class_and_unknown_where_it_is():
    network = small_network(trunk_can_be_told=True)
    labels = torch.tensor([1, N_CLASSES, 1])
    assert torch.equal(network.told_trunk(labels), network.trunk_class.weight[labels])


def test_a_row_that_is_told_nothing_passes_the_trunk_as_if_nobody_were_told():
    network = small_network(trunk_can_be_told=True)
    noised, sigmas = drawn(4)
    is_told = torch.tensor([True, False, True, False])
    told = network.told_trunk(torch.tensor([0, 1, 2, 0])) * is_told[:, None]
    for some, alone in zip(
        network.share(noised, sigmas.log(), told), network.share(noised, sigmas.log()), strict=True
    ):
        assert torch.equal(some[~is_told], alone[~is_told])
    _, features, *_ = network.share(noised, sigmas.log(), told)
    _, untold, *_ = network.share(noised, sigmas.log())
    assert (features - untold)[is_told].abs().amax(dim=1).min() > 1e-4


def test_a_network_without_a_trunk_has_none_to_be_told():
    with pytest.raises(ValueError, match="leaves no trunk to tell; leave it out, or share one"):
        small_network(n_shared_stages=0, trunk_can_be_told=True)


def test_telling_the_trunk_costs_no_products():
    from torch.utils.flop_counter import FlopCounterMode

    network = small_network(trunk_can_be_told=True)
    noised, sigmas = drawn(1)
    with FlopCounterMode(display=False) as counter:
        network(noised, sigmas, torch.tensor([0]))
    assert counter.get_total_flops() == network.flops().forward
    assert network.flops() == small_network().flops()


def test_any_denoiser_is_a_split_one_that_shares_nothing():
    problem = Mixtures.random(3, 2, 16, 0.5)
    noised, labels = problem.sample(5)
    sigmas = torch.linspace(0.1, 2, 5, dtype=torch.float64)
    rows = torch.tensor([4, 4, 1])
    whole = Whole(problem.denoise)
    found = whole.finish(whole.share(noised, sigmas), rows, labels[:3])
    assert torch.equal(found, problem.denoise(noised[rows], sigmas[rows], labels[:3]))


# The head.


def test_the_heads_answer_does_not_depend_on_the_batch():
    network = small_network()
    images, _ = drawn(9)
    together = network.head_logits(images)
    assert together.shape == (9, N_CLASSES)
    assert network.features(images).shape == (9, N_FEATURES)
    alone = torch.cat([network.head_logits(images[[i]]) for i in range(9)])
    torch.testing.assert_close(alone, together, atol=1e-5, rtol=1e-5)
    order = torch.tensor([3, 1, 8, 0, 2, 7, 6, 5, 4])
    torch.testing.assert_close(network.head_logits(images[order]), together[order])
    assert together.std(dim=0).min() > 1e-4  # it looks at the image


@pytest.mark.parametrize("n_shared_stages", STAGES)
def test_every_network_has_a_head_that_is_told_no_class(n_shared_stages):
    network = small_network(n_shared_stages=n_shared_stages)
    images, _ = drawn(2)
    before = network.head_logits(images)
    network.embed_class.weight[:N_CLASSES] += 1
    assert torch.equal(network.head_logits(images), before)


def test_the_heads_features_of_a_noised_image_are_among_what_is_shared():
    network = small_network()
    noised, sigmas = drawn(2)
    _, features, *_ = network.share(noised, sigmas.log())
    assert features.shape == (2, N_FEATURES)
    assert (features[0] - features[1]).abs().max() > 1e-4


# Precision.


@pytest.mark.parametrize("n_shared_stages", STAGES)
def test_bfloat16_agrees_to_about_two_digits(n_shared_stages):
    network = small_network(n_shared_stages=n_shared_stages)
    noised, sigmas = torch.randn(2, 3, 16, 16), torch.tensor([0.2, 1.0])
    inputs = (noised, sigmas, torch.tensor([0, 1]))
    exact = network.as_denoiser()(*inputs)
    with torch.autocast("cpu", torch.bfloat16):
        around = network.as_denoiser()(*inputs)
    inside = denoised_by(network.split(appearance="clean", bfloat16=True), *inputs)
    for fast in (around, inside):
        assert 0 < (fast - exact).norm() / exact.norm() < 0.02
        assert fast.dtype == torch.float32


def test_half_precision_files_keep_the_answers(tiny_checkpoint, tmp_path):
    header = load_checkpoint(tiny_checkpoint).header
    network = small_network(image_size=32)
    save_checkpoint(tmp_path, network, header)
    loaded = load_checkpoint(tmp_path).network
    noised, sigmas = drawn(3, side=32)
    labels = torch.arange(3)
    exact, kept = (n.as_denoiser()(noised, sigmas, labels) for n in (network, loaded))
    assert 0 < (exact - kept).norm() / exact.norm() < 2e-3
    logits, kept_logits = network.head_logits(noised), loaded.head_logits(noised)
    assert (logits - kept_logits).norm() / logits.norm() < 5e-3


# Cost.


def test_operations_are_counted_as_by_hand():
    # Two levels of 16 channels, on 4 x 4 patches and half of it; a multiplication with its
    # addition is two.
    def convolution(n_in, n_out, *, kernel=3, side=4):
        return 2 * kernel**2 * n_in * n_out * side**2

    n = 24  # embedding
    network = small_network(
        widths=(16, 16), n_blocks=(1, 1), n_decoder_blocks=(1, 1), n_embedding=n, patch_size=4
    )
    noise = 2 * 64 * n + 2 * n * n
    fine, coarse = (2 * convolution(16, 16, side=s) + 2 * n * 2 * 16 for s in (4, 2))
    # The fine stem's 32 channels on twice the side, entered by kernels of 4.
    half_patches = convolution(3, 32, kernel=4, side=8) + 2 * convolution(32, 32, side=8)
    stems = convolution(48, 16) + half_patches + 2 * n * 2 * 32 + convolution(32, 16)
    down = convolution(16, 16, side=2)
    encoder = noise + stems + fine + down + coarse
    lateral = sum(convolution(n_in, 16, kernel=k) for n_in in (16, 48) for k in (3, 1))
    detail = convolution(32, 12, side=8)
    up = convolution(16, 16, kernel=1, side=2)
    told = noise + 2 * (1 + N_APPEARANCE) * n
    features = 2 * 32 * N_FEATURES
    flops = network.flops()
    assert flops.trunk == encoder + features + lateral + detail
    assert flops.decoder == told + coarse + up + fine + convolution(16, 48)
    assert flops.head == encoder + features + 2 * N_FEATURES * N_CLASSES
    assert flops.forward == flops.trunk + flops.decoder


def test_a_network_of_one_level_is_counted_as_by_hand():
    # The same without a lateral, a way down or a way up.
    n = 24
    network = small_network(
        widths=(16,), n_blocks=(1,), n_decoder_blocks=(1,), n_embedding=n, patch_size=4
    )
    noise = 2 * 64 * n + 2 * n * n
    block = 2 * (2 * 9 * 16 * 16 * 16) + 2 * n * 2 * 16
    half_patches = 2 * 16 * 3 * 32 * 64 + 2 * (2 * 9 * 32 * 32 * 64) + 2 * n * 2 * 32
    stems = 2 * 9 * 48 * 16 * 16 + half_patches + 2 * 9 * 32 * 16 * 16
    detail = 2 * 9 * 32 * 12 * 64
    assert len(network.laterals) == 0
    assert network.flops().trunk == noise + stems + block + 2 * 16 * N_FEATURES + detail


def test_each_further_shared_stage_moves_operations_from_the_class_to_the_trunk():
    flops = [deep_network(n).flops() for n in range(4)]
    assert flops[0].trunk == 0
    decoders, trunks = [f.decoder for f in flops], [f.trunk for f in flops]
    assert decoders == sorted(decoders, reverse=True)
    assert len(set(decoders)) == len(set(trunks)) == 4
    assert trunks == sorted(trunks)
    # A level that moves is paid once either way; where nothing is shared there is no noised head.
    assert len({f.forward for f in flops[1:]}) == 1


@pytest.mark.parametrize("n_shared_stages", STAGES)
def test_trunk_and_decoder_together_are_an_undivided_pass(n_shared_stages):
    from torch.utils.flop_counter import FlopCounterMode

    network = small_network(n_shared_stages=n_shared_stages)
    noised, sigmas = drawn(1)
    with FlopCounterMode(display=False) as counter:
        network(noised, sigmas, torch.tensor([0]))
    flops = network.flops()
    assert flops.forward == flops.trunk + flops.decoder == counter.get_total_flops()
