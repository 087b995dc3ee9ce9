import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from diffusion.checkpoint import make_scheduler
from diffusion.network import N_APPEARANCE, CellDenoiser
from diffusion.sampler import sample_latents
from diffusion.schedule import sigmas_from_log_snr
from tests.diffusion.test_network import denoised_by, forgetful, silenced, small_network
from training.config import smoke_test
from training.loss import Objective, draw_sigmas

WEIGHTS = {"contrast_weight": 0.1, "head_weight": 0.3, "noised_head_weight": 0.2}
ALONE = dict.fromkeys(WEIGHTS, 0.0)
N_CLASSES = 3


def batch(n=8, *, hidden=False, told_trunk=False, seed=0, sigma=None):
    """What `Objective` takes after the network, in its order; classes differ in colour."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % N_CLASSES
    latents = 0.1 * torch.randn(n, 3, 16, 16, generator=generator)
    latents += 0.5 * (labels - 1).view(-1, 1, 1, 1)
    sigmas = torch.rand(n, generator=generator) + 0.3
    if sigma is not None:
        sigmas = torch.full((n,), float(sigma))
    return {
        "latents": latents,
        "told": torch.zeros(n, 1 + N_APPEARANCE),
        "sigmas": sigmas,
        "noise": torch.randn(latents.shape, generator=generator),
        "class_labels": labels,
        "is_hidden": torch.full((n,), hidden),
        "gumbel": -(-torch.rand(n, N_CLASSES, generator=generator).log()).log(),
        "is_trunk_told": torch.full((n,), told_trunk),
    }


def terms_of(network, objective=None, weights=WEIGHTS, **inputs):
    return (objective or Objective())(network, **(batch() | inputs), **weights)


def wrong_classes(network, seed=0, **inputs):
    """True classes and those they are contrasted with: the decoder is asked both, in this order."""
    asked = []
    finish = network.finish
    network.finish = lambda shared, rows, labels, *rest: (
        asked.append(labels) or finish(shared, rows, labels, *rest)
    )
    given = batch(seed=seed) | inputs
    terms_of(network, **given)
    return given["class_labels"], asked[0][len(given["class_labels"]) :]


# The denoising loss.


@pytest.mark.parametrize("sigma", [0.05, 0.5, 5.0])
def test_an_untrained_network_has_a_loss_of_one_at_every_level(sigma):
    # It is the linear denoiser of its preconditioning, and the data have the variance it expects.
    network = silenced(small_network(sigma_data=0.5))
    given = batch(64, sigma=sigma)
    given["latents"] = 0.5 * torch.randn(64, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    found = terms_of(network, weights=ALONE, **given)
    assert float(found["denoising"]) == pytest.approx(1.0, abs=0.02)
    assert found["loss"] == found["denoising"]


@pytest.mark.parametrize("told_trunk", [False, True])
def test_the_denoising_loss_is_that_of_the_denoiser_that_is_used(told_trunk):
    # Of a told trunk it is the one that draws, of an untold one the one that classifies.
    network, given = small_network(trunk_can_be_told=True), batch(told_trunk=told_trunk)
    clean_look = torch.zeros(8, 1 + N_APPEARANCE)
    clean_look[:, 0] = 1
    found = terms_of(network, weights=ALONE, **(given | {"told": clean_look}))
    sigmas = given["sigmas"].view(-1, 1, 1, 1)
    split = network.split(appearance="clean")
    denoise = network.as_denoiser() if told_trunk else partial(denoised_by, split)
    denoised = denoise(
        given["latents"] + sigmas * given["noise"], given["sigmas"], given["class_labels"]
    )
    squared = (denoised - given["latents"]).square()
    expected = (squared * (sigmas**2 + 0.5**2) / (sigmas * 0.5) ** 2).mean()
    torch.testing.assert_close(found["denoising"], expected)


@pytest.mark.parametrize("told_trunk", [False, True])
def test_a_hidden_class_is_denoised_as_unknown(told_trunk):
    network, given = small_network(trunk_can_be_told=True), batch(told_trunk=told_trunk)
    unknown = torch.full_like(given["class_labels"], N_CLASSES)
    of_given, hidden, of_unknown = (
        terms_of(network, weights=ALONE, **(given | changed))["denoising"]
        for changed in (
            {},
            {"is_hidden": torch.ones(8, dtype=torch.bool)},
            {"class_labels": unknown},
        )
    )
    assert hidden == of_unknown
    assert hidden != of_given


def test_what_the_decoder_is_told_of_the_look_matters():
    told = torch.zeros(8, 1 + N_APPEARANCE)
    told[:, :3] = 1
    network = small_network()
    of_told, of_untold = (terms_of(network, weights=ALONE, told=t) for t in (told, 0 * told))
    assert of_told["loss"] != of_untold["loss"]


# The sum and its terms.


def test_the_loss_is_the_weighted_sum_of_its_terms():
    terms = terms_of(small_network())
    expected = (
        terms["denoising"]
        + 0.1 * terms["contrast"]
        + 0.3 * terms["head"]
        + 0.2 * terms["noised_head"]
    )
    torch.testing.assert_close(terms["loss"], expected)


@pytest.mark.parametrize(
    ("weight", "term"),
    [
        ("contrast_weight", "contrast"),
        ("head_weight", "head"),
        ("noised_head_weight", "noised_head"),
    ],
)
def test_a_term_of_no_weight_is_not_computed(weight, term):
    assert term in terms_of(small_network())
    assert term not in terms_of(small_network(), weights=WEIGHTS | {weight: 0.0})


def test_the_heads_term_is_the_cross_entropy_of_what_it_answers_on_clean_images():
    network, given = small_network(), batch()
    expected = F.cross_entropy(network.head_logits(given["latents"]), given["class_labels"])
    torch.testing.assert_close(terms_of(network)["head"], expected)


def test_where_hardly_a_shape_is_left_the_head_need_not_name_it():
    network = small_network()
    terms = [terms_of(network, **batch(sigma=sigma))["noised_head"] for sigma in (100.0, 0.01)]
    assert terms[0] < 1e-3
    assert terms[1] > 0.1


# A trunk that is told.


HALF = torch.arange(8) % 2 == 0


def test_a_told_rows_label_matters_to_the_denoising_loss_and_to_nothing_else():
    network = small_network(trunk_can_be_told=True)
    labels = batch()["class_labels"]
    other = torch.where(HALF, (labels + 1) % N_CLASSES, labels)
    before, after = (
        terms_of(network, is_trunk_told=HALF, class_labels=each) for each in (labels, other)
    )
    for name in ("head", "noised_head", "contrast"):
        assert torch.equal(before[name], after[name])
    assert before["denoising"] != after["denoising"]


def test_what_the_head_and_the_contrast_ask_is_the_mean_over_the_rows_not_told():
    network = small_network(trunk_can_be_told=True)
    found = terms_of(network, is_trunk_told=HALF)
    untold = {name: value[~HALF] for name, value in batch().items()}
    alone = terms_of(network, **untold)
    for name in ("head", "noised_head", "contrast"):
        torch.testing.assert_close(found[name], alone[name])
    told = {name: value[HALF] for name, value in batch(told_trunk=True).items()}
    of_told = terms_of(network, **told)
    expected = (alone["denoising"] + of_told["denoising"]) / 2
    torch.testing.assert_close(found["denoising"], expected)


def test_where_every_trunk_is_told_nothing_but_denoising_is_asked():
    network = small_network(trunk_can_be_told=True).requires_grad_(True)
    terms = terms_of(network, **batch(told_trunk=True))
    assert terms["head"] == terms["noised_head"] == terms["contrast"] == 0
    terms["loss"].backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in network.parameters())


def test_rows_that_are_not_told_do_not_teach_what_the_trunk_is_told():
    network = small_network(trunk_can_be_told=True).requires_grad_(True)
    given = batch()
    terms_of(network, **given)["loss"].backward()
    assert network.trunk_class.weight.grad.abs().max() == 0
    network.trunk_class.weight.grad = None
    # Those that are told teach the rows of their own classes.
    of_class_1 = given["class_labels"] == 1
    terms_of(network, **(given | {"is_trunk_told": of_class_1}))["loss"].backward()
    is_taught = network.trunk_class.weight.grad.abs().amax(dim=1) > 0
    assert is_taught.tolist() == [False, True, False, False]


def test_one_pass_of_the_trunk_serves_rows_told_and_not_told():
    network = small_network(trunk_can_be_told=True)
    passed = []
    network.stem.register_forward_hook(lambda module, inputs, output: passed.append(len(output)))
    terms_of(network, weights=WEIGHTS | {"head_weight": 0.0}, is_trunk_told=HALF)
    assert passed == [8]


def test_a_told_trunk_learns_to_draw_classes_that_the_decoder_is_not_told():
    # Flat cells of two colours; as the decoder knows no class, what tells them apart is the trunk.
    torch.manual_seed(0)
    network = CellDenoiser(
        image_size=8,
        n_classes=2,
        widths=(32,),
        n_blocks=(1,),
        n_decoder_blocks=(1,),
        trunk_can_be_told=True,
        n_embedding=32,
    )
    network.embed_class.requires_grad_(False).weight.zero_()
    learning = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(learning)
    colours = torch.tensor([[-0.5, 0.4, 0.0], [0.5, -0.4, 0.0]])
    generator = torch.Generator().manual_seed(1)
    look = torch.zeros(16, 1 + N_APPEARANCE)
    look[:, 0] = 1
    for step in range(300):
        labels = torch.randint(2, (16,), generator=generator)
        latents = colours[labels][:, :, None, None].expand(-1, -1, 8, 8)
        given = {
            "latents": latents,
            "told": look,
            "sigmas": 20 * (-5 * torch.rand(16, generator=generator)).exp(),
            "noise": torch.randn(latents.shape, generator=generator),
            "class_labels": labels,
            "is_hidden": torch.zeros(16, dtype=torch.bool),
            "gumbel": torch.zeros(16, 2),
            "is_trunk_told": torch.arange(16) % 2 == 0,
        }
        Objective()(network, **given, **ALONE)["loss"].backward()
        optimizer.param_groups[0]["lr"] = 1e-2 * (1 - step / 300)
        optimizer.step()
        optimizer.zero_grad()
    network.eval().requires_grad_(False)

    def drawn():
        seeds = [*range(8), *range(8)]
        latents = sample_latents(network, make_scheduler(network), [0] * 8 + [1] * 8, seeds)
        return latents.mean(dim=(2, 3)).view(2, 8, 3)

    # The two are 1 apart; all but one at most of the sixteen cells have the colour asked for.
    distances = (drawn() - colours[:, None]).abs().amax(dim=2)
    assert int((distances < 0.25).sum()) >= 15
    # Told nothing, it draws the same whatever was asked for.
    forgetful(network)
    torch.testing.assert_close(*drawn(), atol=1e-3, rtol=0)


# The contrast.


def test_the_wrong_class_is_never_the_true_one():
    network = small_network()
    for seed in range(20):
        true, wrong = wrong_classes(network, seed=seed)
        assert (true != wrong).all()
        assert 0 <= int(wrong.min()) <= int(wrong.max()) < N_CLASSES


def test_not_even_where_the_head_is_certain_of_the_true_one():
    network = small_network()
    network.head.weight.zero_()
    network.head.bias.copy_(torch.tensor([1e4, 0.0, 0.0]))
    true, wrong = wrong_classes(network)
    assert (true != wrong).all()


def test_the_head_proposes_the_wrong_class_that_it_finds_likeliest():
    network = small_network()
    network.head.weight.zero_()
    network.head.bias.copy_(torch.tensor([0.0, 30.0, -30.0]))
    true, wrong = wrong_classes(network)
    assert wrong[true != 1].tolist() == [1] * int((true != 1).sum())
    assert wrong[true == 1].tolist() == [0] * int((true == 1).sum())


def test_wrong_classes_are_drawn_as_often_as_the_head_thinks_them_likely():
    network = small_network()
    network.head.weight.zero_()
    network.head.bias.copy_(torch.tensor([0.0, math.log(3), 0.0]))
    uniform = torch.rand(600, N_CLASSES, generator=torch.Generator().manual_seed(0))
    given = batch(600) | {"gumbel": -(-uniform.log()).log()}
    true, wrong = wrong_classes(network, **given)
    # Of the images of class 0: class 1 is three times as likely as class 2.
    assert float((wrong[true == 0] == 1).float().mean()) == pytest.approx(0.75, abs=0.09)


def test_images_whose_class_is_hidden_are_not_compared():
    network = small_network()
    assert terms_of(network, is_hidden=torch.ones(8, dtype=torch.bool))["contrast"] == 0
    halved = torch.arange(8) < 4
    alone = {name: value[~halved] for name, value in batch().items()}
    of_half, of_alone = terms_of(network, is_hidden=halved), terms_of(network, **alone)
    torch.testing.assert_close(of_half["contrast"], of_alone["contrast"] / 2)


def test_classes_that_the_network_cannot_tell_apart_cost_a_bit_each():
    network = small_network()
    network.embed_class.weight.zero_()
    assert terms_of(network)["contrast"].item() == pytest.approx(math.log(2))


def test_the_contrasts_gradient_helps_the_true_class_and_hurts_the_wrong_one():
    # The loss of either class is moved by an offset on its own output of the last convolution.
    network = small_network(n_shared_stages=3).requires_grad_(True)
    given = batch(1, sigma=0.3)
    gumbel = torch.tensor([[0.0, 0.0, 9.0]])  # the wrong class of class 0 is 2
    objective = Objective()

    def contrast():
        return terms_of(network, objective, **(given | {"gumbel": gumbel}))["contrast"]

    def error_of(label):
        with torch.no_grad():
            noised = given["latents"] + 0.3 * given["noise"]
            denoised = network.split().finish(
                network.split().share(noised, given["sigmas"]),
                torch.tensor([0]),
                torch.tensor([label]),
            )
        return float((denoised - given["latents"]).square().mean())

    # As much as the scale saturates, start where the classes are alike.
    with torch.no_grad():
        network.output.weight.zero_()
        network.output.bias.zero_()
    before = contrast()
    (gradient,) = torch.autograd.grad(before, network.output.bias)
    by_class = gradient.view(N_CLASSES + 1, -1)
    assert by_class[[1, 3]].abs().max() == 0
    errors = error_of(0), error_of(2)
    with torch.no_grad():
        network.output.bias -= 1e-3 * gradient
    assert error_of(0) < errors[0]
    assert error_of(2) > errors[1]
    assert contrast() < before


def test_with_the_contrast_the_true_class_soon_denoises_better_than_a_wrong_one():
    def trained(contrast_weight):
        torch.manual_seed(0)
        network = silenced(small_network(n_embedding=32)).train().requires_grad_(True)
        network.embed_class.weight.data.mul_(0.1)
        objective = Objective()
        optimizer = torch.optim.Adam([*network.parameters(), *objective.parameters()], lr=2e-3)
        for step in range(80):
            weights = {
                "contrast_weight": contrast_weight,
                "head_weight": 0,
                "noised_head_weight": 0,
            }
            given = batch(16, seed=step, sigma=1.0)
            terms_of(network, objective, weights, **given)["loss"].backward()
            optimizer.step()
            optimizer.zero_grad()
        network.eval().requires_grad_(False)
        given = batch(60, seed=1000, sigma=1.0)
        noised = given["latents"] + given["noise"]
        split = network.split()
        shared, rows = split.share(noised, given["sigmas"]), torch.arange(60)
        errors = torch.stack(
            [
                (split.finish(shared, rows, torch.full((60,), k)) - given["latents"])
                .square()
                .mean(dim=(1, 2, 3))
                for k in range(N_CLASSES)
            ],
            dim=1,
        )
        true = errors[rows, given["class_labels"]]
        wrong = (errors.sum(dim=1) - true) / (N_CLASSES - 1)
        return float((true < wrong).float().mean()), float((wrong - true).mean())

    accuracy, margin = trained(0.3)
    _, plain_margin = trained(0.0)
    assert accuracy > 0.9
    assert margin > 10 * max(plain_margin, 0)


# The scale of the contrast.


def test_the_contrasts_scale_is_read_between_its_knots():
    objective = Objective()
    with torch.no_grad():
        objective.log_scale.copy_(torch.linspace(1, 3, 11).square())
    knots = torch.linspace(*Objective.KNOTS)
    expected = objective.log_scale.exp()
    torch.testing.assert_close(objective._scale(knots), expected, rtol=2e-3, atol=0)
    for side in (-1e-4, 1e-4):  # continuous at the knots
        inner = slice(1, -1)
        torch.testing.assert_close(
            objective._scale(knots[inner] + side), expected[inner], rtol=1e-3, atol=0
        )
    halfway = ((objective.log_scale[1:] + objective.log_scale[:-1]) / 2).exp()
    torch.testing.assert_close(objective._scale((knots[1:] + knots[:-1]) / 2), halfway)


def test_beyond_its_knots_the_scale_stays_as_it_is_there():
    objective = Objective()
    with torch.no_grad():
        objective.log_scale.copy_(torch.linspace(1, 3, 11))
    far, ends = torch.tensor([-30.0, 40.0]), torch.tensor([-8.0, 12.0])
    assert torch.equal(objective._scale(far), objective._scale(ends))


def test_the_scale_learns_at_the_level_that_was_drawn():
    objective = Objective()
    level = -8 + 20 / 10 * 3.5  # between knots 3 and 4
    sigma = float(sigmas_from_log_snr(torch.tensor(level)))
    terms_of(small_network(), objective, **batch(sigma=sigma))["contrast"].backward()
    is_moved = objective.log_scale.grad != 0
    assert is_moved.nonzero()[:, 0].tolist() == [3, 4]


# Noise levels.


UNTOLD = torch.zeros(100_000, dtype=torch.bool)


def test_noise_levels_follow_the_recipe():
    config = replace(smoke_test(), uniform_fraction=0.0)
    sigmas = draw_sigmas(UNTOLD, config, torch.Generator().manual_seed(0))
    assert float(sigmas.log().mean()) == pytest.approx(config.log_sigma_mean, abs=0.02)
    assert float(sigmas.log().std()) == pytest.approx(config.log_sigma_std, abs=0.02)
    everywhere = replace(smoke_test(), uniform_fraction=1.0)
    log_snr = -2 * draw_sigmas(UNTOLD, everywhere, torch.Generator().manual_seed(0)).log()
    low, high = config.uniform_log_snr
    assert float(log_snr.min()) == pytest.approx(low, abs=0.01)
    assert float(log_snr.max()) == pytest.approx(high, abs=0.01)
    assert float(log_snr.mean()) == pytest.approx((low + high) / 2, abs=0.05)


def test_the_stated_share_of_levels_is_uniform():
    # Log-normal levels of almost no spread: whatever is elsewhere was drawn uniformly.
    config = replace(
        smoke_test(), uniform_fraction=0.1, told_uniform_fraction=0.6, log_sigma_std=1e-6
    )
    told = torch.arange(len(UNTOLD)) % 2 == 0
    sigmas = draw_sigmas(told, config, torch.Generator().manual_seed(0))
    elsewhere = ((sigmas.log() - config.log_sigma_mean).abs() > 1e-3).float()
    assert float(elsewhere[~told].mean()) == pytest.approx(0.1, abs=0.006)
    assert float(elsewhere[told].mean()) == pytest.approx(0.6, abs=0.01)
