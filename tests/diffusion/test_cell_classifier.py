"""The production path: a checkpoint's network and settings, from pixels to verdicts."""

import shutil

import numpy as np
import pytest
import torch
from torch.nn.functional import avg_pool2d

from diffusion.anomaly import fit_anomaly_reference
from diffusion.cell_classifier import CellClassifier, FirstView
from diffusion.checkpoint import load_checkpoint, save_checkpoint
from diffusion.classifier_settings import ROWS, ClassifierSettings
from diffusion.conformal import fit_abstention, fit_conformal, keyed_uniforms
from diffusion.draws import DrawPlan
from diffusion.elimination import BlockVariancePrior
from diffusion.latents import image_digest, latents_from_images
from diffusion.network import CellDenoiser
from diffusion.probability import Evidence, PosteriorCalibration
from diffusion.weighting import LearnedWeighting, elbo
from diffusion.white_balance import background, white_balanced
from tests.conftest import TINY_CLASSES
from tests.diffusion.test_network import small_network

N_CLASSES = len(TINY_CLASSES)
GROUND = (0.8, 0.75, 0.85)
PLAN = DrawPlan(log_snr_min=-2.0, log_snr_max=5.0, n_levels=2, n_blocks=3, turned=True)


def photographs(n, seed=0):
    """Cells of different colours, as uint8 images. (n, 32, 32, 3)"""
    rng = np.random.default_rng(seed)
    pixels = rng.normal(130, 60, (n, 1, 1, 3)) + rng.normal(0, 30, (n, 32, 32, 3))
    return pixels.clip(0, 255).astype(np.uint8)


def cells(n, seed=0):
    """Latents and digests of photographs."""
    images = photographs(n, seed)
    return latents_from_images(images), [image_digest(image) for image in images]


@pytest.fixture(scope="module")
def network(tiny_checkpoint):
    """Random weights whose classes differ by more than rounding, and a head that has opinions."""
    network = load_checkpoint(tiny_checkpoint).network
    generator = torch.Generator().manual_seed(1)
    network.embed_class.weight.copy_(3 * torch.randn(4, 32, generator=generator))
    network.head_hidden.weight.mul_(20)
    images, _ = cells(200, seed=5)
    # As sure of itself whatever the layers before it drew: by its own odds, wrong on 1 of 10.
    network.head.weight.mul_(4 / network.head_logits(images).std())
    network.head.bias.sub_(network.head_logits(images).mean(dim=0))
    return network


def settings(**changes) -> ClassifierSettings:
    return ClassifierSettings.uncalibrated(N_CLASSES, PLAN).model_copy(
        update={"variance_prior": BlockVariancePrior(degrees_of_freedom=8, scale=0.5)} | changes
    )


def classifier(network, *, bfloat16=False, ground=GROUND, **changes) -> CellClassifier:
    return CellClassifier(
        network, settings(**changes), TINY_CLASSES, background=ground, bfloat16=bfloat16
    )


def with_posterior(row, **changes):
    """Rows of uncalibrated settings, one of them with another posterior."""
    rows = dict(settings().rows)
    posterior = rows[row].posterior.model_copy(update=changes)
    rows[row] = rows[row].model_copy(update={"posterior": posterior})
    return rows


def log_probabilities(verdicts):
    return np.log([[v.probabilities[name] for name in v.class_names] for v in verdicts])


# An answer belongs to an image.


@pytest.mark.parametrize("bfloat16", [False, True])
@pytest.mark.parametrize("row", ["fused", "generative"])
def test_a_verdict_does_not_depend_on_the_batch(network, row, bfloat16):
    model = classifier(network, bfloat16=bfloat16, head_views=2, weighting="elbo", alpha=0.3)
    latents, digests = cells(64)
    together = model.classify(latents, digests, row=row)
    order = torch.randperm(64, generator=torch.Generator().manual_seed(0)).tolist()
    shuffled = model.classify(latents[order], [digests[i] for i in order], row=row)
    alone = [model.classify(latents[[i]], [digests[i]], row=row)[0] for i in range(12)]
    small = model.classify(latents[:20], digests[:20], row=row, micro_batch=5)
    # Races of different lengths, or the batches would all be alike.
    assert len({v.cost.class_passes for v in together}) >= 3
    for some, same in (
        (shuffled, [together[i] for i in order]),
        (alone, together[:12]),
        (small, together[:20]),
    ):
        assert np.abs(log_probabilities(some) - log_probabilities(same)).max() <= 1e-4
        scored = [
            (a.generative_log_odds, b.generative_log_odds) for a, b in zip(some, same, strict=True)
        ]
        assert all((a is None) == (b is None) for a, b in scored)
        assert max(abs(a - b) for a, b in scored if a is not None) <= 1e-4
        for name in ("best_class", "undecided_classes", "cost", "shown_set", "image_digest"):
            assert [getattr(v, name) for v in some] == [getattr(v, name) for v in same]


@pytest.mark.parametrize("row", ROWS)
def test_no_verdict_depends_on_what_a_trunk_that_draws_is_told(network, row):
    config = {name: value for name, value in network.config.items() if not name.startswith("_")}
    telling = CellDenoiser.from_config(config | {"trunk_can_be_told": True}).eval()
    telling.load_state_dict(network.state_dict(), strict=False)
    torch.nn.init.ones_(telling.trunk_class.weight)
    latents, digests = cells(8)
    plain, same = (
        classifier(one, head_views=2).classify(latents, digests, row=row)
        for one in (network, telling.requires_grad_(False))
    )
    assert same == plain


def test_another_seed_is_another_measurement_of_the_same_cell(network):
    model, (latents, digests) = classifier(network), cells(4)
    first, again, other = (
        model.classify(latents, digests, row="generative", seed=seed) for seed in (0, 0, 1)
    )
    assert first == again
    assert [v.generative_log_odds for v in first] != [v.generative_log_odds for v in other]


def test_bfloat16_answers_as_float32_does_to_about_two_digits(network):
    latents, digests = cells(32)
    exact, fast = (
        classifier(network, bfloat16=b, alpha=0.0).look(latents, digests, row="generative")
        for b in (False, True)
    )
    scores, rounded = exact.evidence.scores, fast.evidence.scores
    assert 0 < np.abs(scores - rounded).max() < 0.05 * np.abs(scores).max()


def test_a_head_of_eight_views_does_not_see_which_way_a_cell_lies(network):
    latents, _ = cells(3)
    model = classifier(network, head_views=8)
    log_p = model.head_answers(latents).log_probabilities
    turned = model.head_answers(latents.rot90(1, dims=(-2, -1)).flip(-1)).log_probabilities
    np.testing.assert_allclose(turned, log_p, atol=1e-4)
    np.testing.assert_allclose(np.exp(log_p).sum(axis=1), 1)


def test_the_head_looks_again_only_where_its_first_view_leaves_doubt(network):
    latents, _ = cells(6)
    one, eight = (classifier(network, head_views=n).head_answers(latents) for n in (1, 8))
    sureness = np.exp(one.log_probabilities).max(axis=1)
    threshold = float(np.sort(sureness)[2:4].mean())
    some = classifier(network, head_views=8, look_again_below=threshold).head_answers(latents)
    is_sure = sureness > threshold
    assert 0 < is_sure.sum() < 6
    assert some.n_views.tolist() == np.where(is_sure, 1, 8).tolist()
    np.testing.assert_allclose(
        some.log_probabilities[is_sure], one.log_probabilities[is_sure], atol=1e-5
    )
    np.testing.assert_allclose(
        some.log_probabilities[~is_sure], eight.log_probabilities[~is_sure], atol=1e-5
    )
    assert np.abs(eight.log_probabilities - one.log_probabilities).max() > 1e-3
    # What else is seen is of the first view throughout, so that images compare.
    for name in ("features", "texture", "doubt"):
        seen = getattr(one.first, name)
        np.testing.assert_allclose(getattr(eight.first, name), seen, rtol=1e-4, atol=1e-5)


def test_a_view_shows_what_the_network_computes(network):
    latents, _ = cells(4)
    first = classifier(network).head_answers(latents).first
    features, texture = network.features_and_texture(latents)
    np.testing.assert_allclose(first.features, features, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(first.texture, texture, rtol=1e-5, atol=1e-6)
    energy = -np.log(np.exp(network.head_logits(latents).double().numpy()).sum(axis=1))
    np.testing.assert_allclose(first.doubt, energy, rtol=1e-5, atol=1e-5)


def test_joined_views_are_those_of_all_parts_in_their_order(network):
    latents, _ = cells(9)
    model = classifier(network)
    joined = FirstView.joined([model.head_answers(latents[i : i + 4]).first for i in (0, 4, 8)])
    whole = model.head_answers(latents).first
    for name in ("features", "texture", "doubt"):
        assert getattr(joined, name).shape == getattr(whole, name).shape
        np.testing.assert_allclose(
            getattr(joined, name), getattr(whole, name), rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("bfloat16", [False, True])
def test_what_the_first_view_shows_does_not_depend_on_the_batch(network, bfloat16):
    latents, _ = cells(24)
    model = classifier(network, bfloat16=bfloat16, head_views=4, look_again_below=0.9)
    together = model.head_answers(latents)
    assert len(set(together.n_views.tolist())) == 2
    order = torch.randperm(24, generator=torch.Generator().manual_seed(0))
    shuffled = model.head_answers(latents[order]).first
    alone = FirstView.joined([model.head_answers(latents[[i]]).first for i in range(8)])
    for name in ("features", "texture", "doubt"):
        whole = getattr(together.first, name)
        tolerance = {"rtol": 1e-4, "atol": 1e-4 * np.abs(whole).max()}
        np.testing.assert_allclose(getattr(shuffled, name), whole[order.numpy()], **tolerance)
        np.testing.assert_allclose(getattr(alone, name), whole[:8], **tolerance)


def test_images_are_brought_under_the_light_of_the_training_set(network):
    latents, digests = cells(3)
    model, as_they_are = classifier(network), classifier(network, ground=None)
    prepared = model.prepared(latents)
    assert torch.equal(prepared, white_balanced(latents, torch.tensor(GROUND)))
    assert torch.equal(as_they_are.prepared(latents), latents)
    dim = 2 * (0.9 * (prepared + 1) / 2) - 1
    (verdict,) = model.classify(dim[:1], digests[:1])
    (same,) = as_they_are.classify(model.prepared(dim[:1]), digests[:1])
    assert verdict == same
    assert (background(prepared) - torch.tensor(GROUND)).abs().max() < 0.1
    assert (background(latents) - torch.tensor(GROUND)).abs().max() > 0.2


# The head proposes.


@pytest.mark.parametrize("prune_below", [0.0, 1e-3, 0.34, 0.49])
def test_the_head_leaves_the_plausible_classes_and_two_at_least(network, prune_below):
    model = classifier(network, prune_below=prune_below)
    latents, digests = cells(64)
    looked = model.look(latents, digests)
    n_left = []
    for log_p, race in zip(looked.head, looked.races, strict=True):
        plausible = set(np.flatnonzero(log_p >= np.log(max(prune_below, 1e-300))).tolist())
        best_two = np.argsort(-log_p)[:2].tolist()
        assert list(race.class_labels[:2]) == best_two
        assert set(race.class_labels) == plausible | set(best_two)
        n_left.append(len(race.class_labels))
    # Three classes cannot all have more than a third.
    least_and_most = {0.0: {3}, 1e-3: {2, 3}}.get(prune_below, {2})
    assert {min(n_left), max(n_left)} == least_and_most
    scores = looked.evidence.scores
    assert (np.isnan(scores).sum(axis=1) == N_CLASSES - np.array(n_left)).all()


def test_the_head_prunes_by_its_calibrated_probabilities(network):
    latents, digests = cells(16)
    rows = with_posterior("head", class_bias=(0.0, -50.0, 50.0))
    races = classifier(network, rows=rows).look(latents, digests).races
    assert {race.class_labels for race in races} == {(2, 0)}


def test_only_declared_candidates_race_and_can_win(network):
    latents, digests = cells(32)
    model = classifier(network)
    for row in ROWS:
        for verdict in model.classify(latents, digests, row=row, candidates=[2, 0]):
            assert verdict.class_names == (TINY_CLASSES[0], TINY_CLASSES[2])
            assert verdict.excluded_class_names == (TINY_CLASSES[1],)
            assert sum(verdict.probabilities.values()) == pytest.approx(1)
            assert verdict.best_class != TINY_CLASSES[1]
            assert "not considered: eosinophil" in str(verdict)


def test_a_class_that_is_no_candidate_takes_no_plausibility_from_those_that_are():
    # The head is sure of class 4; told that it cannot be, it finds the others equally likely.
    network = small_network(image_size=32, n_classes=5)
    network.head.weight.zero_()
    network.head.bias.copy_(torch.tensor([0.0, 0, 0, 0, 30]))
    names = ("a", "b", "c", "d", "e")
    plain = ClassifierSettings.uncalibrated(5, PLAN)
    model = CellClassifier(network, plain, names, background=None, bfloat16=False)
    latents, digests = cells(2)
    of_all = model.look(latents, digests).races
    assert {len(race.class_labels) for race in of_all} == {2}
    declared = model.look(latents, digests, candidates=[3, 0, 1]).races
    assert {frozenset(race.class_labels) for race in declared} == {frozenset({0, 1, 3})}


def test_the_generative_row_asks_the_head_nothing(network):
    latents, digests = cells(8)
    model = classifier(network, prune_below=0.49)
    before = model.classify(latents, digests, row="generative")
    assert all(len(v.probabilities) == N_CLASSES for v in before)
    kept = network.head.weight.clone()
    try:
        network.head.weight.neg_()
        assert model.classify(latents, digests, row="generative") == before
        assert model.classify(latents, digests, row="head") != before
    finally:
        network.head.weight.copy_(kept)


def test_the_head_row_races_nothing(network):
    latents, digests = cells(8)
    model = classifier(network)
    looked = model.look(latents, digests, row="head")
    assert looked.races is None
    verdicts = model.classify(latents, digests, row="head")
    np.testing.assert_allclose(
        log_probabilities(verdicts),
        model.head_answers(model.prepared(latents)).log_probabilities,
        atol=1e-5,
    )
    assert all(v.generative_log_odds is None and v.cost.class_passes == 0 for v in verdicts)


def test_the_fused_row_weighs_scores_and_head_as_calibrated(network):
    latents, digests = cells(8)
    rows = with_posterior("fused", generative_scale=0.3, head_scale=0.7, class_bias=(1, -1, 0))
    model = classifier(network, rows=rows, alpha=0.0, prune_below=0.0, variance_prior=None)
    looked = model.look(model.prepared(latents), digests)
    errors = looked.evidence.standard_errors
    scores = looked.evidence.scores / np.sqrt(1 + np.pi / 8 * (0.3 * errors) ** 2)
    logits = 0.3 * scores + 0.7 * looked.head + np.array([1, -1, 0])
    expected = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(
        log_probabilities(model.classify(latents, digests)), expected, atol=1e-9
    )


CALIBRATED = {
    "generative_scale": 0.8,
    "head_scale": 0.7,
    "class_bias": (0.2, -0.2, 0.0),
    "n_cells": 100,
}


def test_a_fused_race_is_won_by_the_calibrated_sum(network):
    latents, digests = cells(32)
    rows = with_posterior("fused", **CALIBRATED)
    model = classifier(network, rows=rows, alpha=0.0, prune_below=0.0)
    looked = model.look(latents, digests)
    sums = 0.8 * looked.evidence.scores + 0.7 * looked.head + np.array([0.2, -0.2, 0])
    assert [race.winner for race in looked.races] == sums.argmax(axis=1).tolist()
    by_draws = model.look(latents, digests, head_start=False)
    best = by_draws.evidence.scores.argmax(axis=1).tolist()
    assert [race.winner for race in by_draws.races] == best
    assert best != sums.argmax(axis=1).tolist()
    # The verdict counts the head once: the scores are those of the draws in both.
    differences = looked.evidence.scores - looked.evidence.scores[:, [0]]
    expected = by_draws.evidence.scores - by_draws.evidence.scores[:, [0]]
    np.testing.assert_allclose(differences, expected, atol=1e-9)


def test_races_end_after_one_block_where_the_head_is_sure_and_go_on_where_it_is_not(network):
    latents, digests = cells(64)
    rows = with_posterior("fused", **CALIBRATED)
    model = classifier(network, rows=rows, prune_below=0.4, fused_blocks=6)
    looked = model.look(latents, digests)
    by_head = 0.7 * looked.head + np.array([0.2, -0.2, 0])
    leads = [
        abs(float(np.subtract(*of_image[list(race.class_labels)]))) / 0.8
        for of_image, race in zip(by_head, looked.races, strict=True)
    ]
    n_blocks = np.array([race.n_blocks for race in looked.races])
    # In units of block scores, whose differences vary by about 0.5.
    is_sure, is_unsure = np.array(leads) > 3, np.array(leads) < 0.5
    assert min(is_sure.sum(), is_unsure.sum()) >= 5
    assert (n_blocks[is_sure] == 1).all()
    assert np.median(n_blocks[is_unsure]) == 6
    by_draws = model.look(latents, digests, head_start=False).races
    assert np.median([race.n_blocks for race in by_draws]) == 6


@pytest.mark.parametrize(
    ("changes", "options"),
    [
        ({"n_cells": 1}, {}),
        ({"generative_scale": 0.0}, {}),
        ({}, {"weighting": elbo}),
        ({}, {"plan": PLAN.model_copy(update={"n_levels": 3})}),
        ({}, {"row": "generative"}),
    ],
)
def test_without_a_calibration_of_its_scores_a_race_has_no_head_start(network, changes, options):
    latents, digests = cells(16)
    model = classifier(network, rows=with_posterior("fused", **(CALIBRATED | changes)), alpha=0.3)
    looked, by_draws = (
        model.look(latents, digests, head_start=head_start, **options)
        for head_start in (True, False)
    )
    for race, other in zip(looked.races, by_draws.races, strict=True):
        assert torch.equal(race.scores, other.scores)
        assert (race.winner, race.undecided) == (other.winner, other.undecided)


def test_a_race_with_a_head_start_does_not_depend_on_the_batch(network):
    latents, digests = cells(64)
    rows = with_posterior("fused", **CALIBRATED)
    model = classifier(network, rows=rows, prune_below=0.0, fused_blocks=4)
    together = model.look(latents, digests).races
    assert len({race.n_blocks for race in together}) >= 3
    order = torch.randperm(64, generator=torch.Generator().manual_seed(0)).tolist()
    shuffled = model.look(latents[order], [digests[i] for i in order], micro_batch=7).races
    for race, same in zip(shuffled, [together[i] for i in order], strict=True):
        assert (race.scores - same.scores).abs().max() <= 1e-3
        for field in ("class_labels", "winner", "undecided", "n_blocks"):
            assert getattr(race, field) == getattr(same, field)


def test_one_block_without_a_prior_has_no_standard_errors(network):
    latents, digests = cells(3)
    model = classifier(network, variance_prior=None)
    for n_blocks, is_known in ((1, False), (2, True)):
        looked = model.look(latents, digests, row="generative", max_blocks=n_blocks)
        assert (looked.evidence.standard_errors is not None) == is_known


# What it costs.


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("n_views", [1, 3])
def test_the_cost_of_a_verdict_is_its_passes_times_what_they_take(network, row, n_views):
    latents, digests = cells(16)
    model = classifier(network, head_views=n_views, alpha=0.3)
    looked = model.look(model.prepared(latents), digests, row=row)
    flops = network.flops()
    for i, verdict in enumerate(model.classify(latents, digests, row=row)):
        n_head = 0 if row == "generative" else n_views
        race = None if row == "head" else looked.races[i]
        n_trunk, n_class = (race.n_trunk_passes, race.n_class_passes) if race else (0, 0)
        assert verdict.cost.trunk_passes == n_trunk + n_head
        assert verdict.cost.class_passes == n_class
        expected = n_trunk * flops.trunk + n_class * flops.decoder + n_head * flops.head
        assert verdict.cost.flops == looked.flops[i] == expected
    if row == "generative":
        whole = PLAN.n_draws_in_block * settings().generative_blocks
        assert verdict.cost.trunk_passes <= whole


def test_a_race_of_all_candidates_without_elimination_takes_the_whole_budget(network):
    latents, digests = cells(2)
    model = classifier(network, alpha=0.0)
    for verdict in model.classify(latents, digests, row="generative", max_blocks=2):
        assert verdict.cost.trunk_passes == 2 * PLAN.n_draws_in_block
        assert verdict.cost.class_passes == 2 * PLAN.n_draws_in_block * N_CLASSES


def test_each_row_has_a_budget_of_its_own(network):
    latents, digests = cells(1)
    model = classifier(network, alpha=0.0, prune_below=0.0, generative_blocks=3, fused_blocks=1)
    for row, n_blocks in (("generative", 3), ("fused", 1)):
        (race,) = model.look(latents, digests, row=row).races
        assert race.n_blocks == n_blocks


# Weightings.


def test_another_weighting_than_the_checkpoints_is_uncalibrated(network):
    latents, digests = cells(4)
    rows = with_posterior("generative", generative_scale=1e-3, class_bias=(5, 0, -5))
    model = classifier(network, rows=rows)
    own = model.classify(latents, digests, row="generative")
    asked = model.classify(latents, digests, row="generative", weighting="robust")
    elbo = model.classify(latents, digests, row="generative", weighting="elbo")
    assert asked == own  # it is the checkpoint's
    plain = classifier(network, weighting="elbo").classify(latents, digests, row="generative")
    np.testing.assert_allclose(log_probabilities(elbo), log_probabilities(plain), atol=1e-9)
    assert {v.weighting for v in elbo} == {"elbo"}
    assert {v.weighting for v in own} == {"robust"}


def test_learned_weights_decide_where_a_checkpoint_has_them(network):
    latents, digests = cells(4)
    learned = LearnedWeighting(log_snr_min=-2.0, log_snr_max=5.0, weights=(1.0, 0.0, 2.0))
    model = classifier(network, weighting=learned)
    verdicts = model.classify(latents, digests)
    assert {v.weighting for v in verdicts} == {"learned"}
    robust = classifier(network).classify(latents, digests)
    assert [v.generative_log_odds for v in verdicts] != [v.generative_log_odds for v in robust]


@pytest.mark.parametrize("row", ["fused", "head"])
def test_another_weighting_is_refused_where_it_was_not_calibrated(network, row):
    latents, digests = cells(1)
    with pytest.raises(ValueError, match=r"weighting='elbo' with row=.* for the row 'generative'"):
        classifier(network).classify(latents, digests, row=row, weighting="elbo")


# Sets, abstention, anomaly.


def calibrated_rows(network, n=200):
    """Rows with sets and abstention from cells whose classes the head itself drew."""
    latents, digests = cells(n, seed=3)
    model = classifier(network)
    log_p = model.head_answers(model.prepared(latents)).log_probabilities
    rng = np.random.default_rng(0)
    labels = (np.exp(log_p).cumsum(axis=1) > rng.random((n, 1))).argmax(axis=1)
    rows = dict(settings().rows)
    rows["head"] = rows["head"].model_copy(
        update={
            "conformal": fit_conformal(log_p, labels, uniforms=keyed_uniforms(digests)),
            "abstention": fit_abstention(log_p, labels),
            "default_risk": 0.1,
        }
    )
    return rows, labels


def test_the_checkpoints_rule_withholds_verdicts_and_a_risk_replaces_it(network):
    rows, _ = calibrated_rows(network)
    latents, digests = cells(64, seed=4)
    model = classifier(network, rows=rows)
    withheld = {
        risk: {
            v.image_digest
            for v in model.classify(latents, digests, row="head", risk=risk)
            if v.is_abstained
        }
        for risk in (None, 0.1, 0.5)
    }
    assert withheld[None] == withheld[0.1]
    assert withheld[0.5] < withheld[None]
    plain = classifier(network).classify(latents, digests, row="head")
    assert not any(v.is_abstained for v in plain)
    for verdict in model.classify(latents, digests, row="head"):
        assert verdict.predicted_class == (None if verdict.is_abstained else verdict.best_class)


def test_sets_hold_the_classes_of_new_cells_at_their_level(network):
    rows, _ = calibrated_rows(network)
    latents, digests = cells(200, seed=4)
    model = classifier(network, rows=rows)
    log_p = model.head_answers(model.prepared(latents)).log_probabilities
    rng = np.random.default_rng(1)
    labels = (np.exp(log_p).cumsum(axis=1) > rng.random((200, 1))).argmax(axis=1)
    for level in (0.6, 0.9):
        verdicts = model.classify(latents, digests, row="head", level=level)
        holds = [TINY_CLASSES[k] in v.conforming_set for k, v in zip(labels, verdicts, strict=True)]
        # Calibration and test of 200 cells each: a standard error of 0.05 or less.
        assert np.mean(holds) == pytest.approx(level, abs=0.12)


def test_anomalies_without_reference_cells_are_refused(network):
    latents, digests = cells(1)
    with pytest.raises(ValueError, match=r"has no reference cells .* or ask without `anomaly`"):
        classifier(network).classify(latents, digests, anomaly=True)


@pytest.fixture(scope="module")
def referenced(network):
    """A classifier with 120 reference cells."""
    plan = DrawPlan(log_snr_min=-2.0, log_snr_max=5.0, n_levels=4, n_blocks=1)
    model = classifier(network, anomaly_plan=plan, alpha=0.0)
    latents, digests = cells(120, seed=6)
    prepared = model.prepared(latents)
    looked = model.look(prepared, digests)
    log_p = model.settings.rows["fused"].posterior.log_probabilities(looked.evidence)
    seen = model.measurements(prepared, digests, looked, log_p)
    labels = np.arange(120) % N_CLASSES
    reference = fit_anomaly_reference(seen, labels, high_noise=(0, 1), low_noise=(3,))
    return classifier(
        network, anomaly_plan=plan, alpha=0.0, anomaly=reference, false_alarm_rate=0.1
    )


def test_cells_like_the_reference_are_flagged_at_the_stated_rate_and_others_more_often(referenced):
    latents, digests = cells(60, seed=7)
    alike = referenced.classify(latents, digests, anomaly=True)
    assert np.mean([v.anomaly.is_anomalous for v in alike]) < 0.1 + 3 * (0.1 * 0.9 / 60) ** 0.5
    # A texture that no reference cell has.
    stripes = 0.8 * torch.sin(torch.arange(32) * 1.5).expand(10, 3, 32, 32)
    odd = referenced.classify(
        stripes + 0.01 * torch.arange(10).view(-1, 1, 1, 1), digests[:10], anomaly=True
    )
    assert all(v.anomaly.is_anomalous and v.is_abstained for v in odd)
    assert all("unlike the reference cells of every class" in str(v) for v in odd)


def test_looking_for_anomalies_costs_a_pass_for_each_level_and_sign(referenced):
    latents, digests = cells(5, seed=7)
    plain, seen = (referenced.classify(latents, digests, anomaly=a) for a in (False, True))
    n_draws = referenced.settings.anomaly_plan.n_draws
    for without, having in zip(plain, seen, strict=True):
        assert without.anomaly is None
        assert having.cost.trunk_passes - without.cost.trunk_passes == n_draws
        assert having.cost.class_passes - without.cost.class_passes == n_draws
        more = having.cost.flops - without.cost.flops
        assert more == n_draws * referenced.network.flops().forward
        assert having.probabilities == without.probabilities


def test_every_verdict_that_asks_the_head_says_whether_the_texture_is_foreign(referenced):
    latents, digests = cells(60, seed=7)
    reference = referenced.settings.anomaly
    for row in ("head", "fused"):
        verdicts, looked = referenced.judge(latents, digests, row=row)
        expected = reference.texture.p_values(looked.first.texture)
        assert [v.texture.p_value for v in verdicts] == expected.tolist()
        assert {v.texture.alarm_rate for v in verdicts} == {0.1}
        assert all(v.anomaly is None for v in verdicts)
        flags = [v.texture.is_anomalous for v in verdicts]
        assert np.mean(flags) < 0.1 + 3 * (0.1 * 0.9 / 60) ** 0.5
        # Nothing else withholds a verdict here.
        assert [v.is_abstained for v in verdicts] == flags
    assert all(
        v.texture is None for v in referenced.classify(latents[:4], digests[:4], row="generative")
    )


def test_the_texture_costs_nothing_and_does_not_depend_on_rows_seeds_or_candidates(
    network, referenced
):
    latents, digests = cells(12, seed=7)
    verdicts = referenced.classify(latents, digests)
    plain = classifier(network, alpha=0.0).classify(latents, digests)
    assert [v.cost for v in plain] == [v.cost for v in verdicts]
    assert all(v.texture is None for v in plain)
    for options in ({"row": "head"}, {"seed": 3}, {"candidates": [0, 2]}, {"anomaly": True}):
        others = referenced.classify(latents, digests, **options)
        assert [v.texture for v in others] == [v.texture for v in verdicts]


def test_a_texture_does_not_depend_on_the_batch(referenced):
    latents, digests = cells(30, seed=7)
    together = [v.texture for v in referenced.classify(latents, digests, row="head")]
    alone = [
        referenced.classify(latents[[i]], [digests[i]], row="head")[0].texture for i in range(30)
    ]
    assert alone == together


STAINS = np.array([[200, 120, 130], [110, 90, 190], [150, 150, 140]])
GRAINS = np.array([25, 30, 35])


def stained(n, seed):
    """Cells of three classes that differ in colour and grain, and little within a class."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % N_CLASSES
    grain = (GRAINS[labels] * rng.uniform(0.9, 1.1, n)).reshape(n, 1, 1, 1)
    pixels = STAINS[labels][:, None, None] + rng.normal(0, 12, (n, 1, 1, 3))
    images = (pixels + grain * rng.normal(size=(n, 32, 32, 3))).clip(0, 255).astype(np.uint8)
    return latents_from_images(images), [image_digest(image) for image in images], labels


@pytest.fixture(scope="module")
def of_one_laboratory(network):
    """A classifier whose 240 reference cells are `stained`."""
    plan = DrawPlan(log_snr_min=-2.0, log_snr_max=5.0, n_levels=4, n_blocks=1)
    latents, digests, labels = stained(240, seed=1)
    model = classifier(network, ground=None, anomaly_plan=plan)
    looked = model.look(latents, digests, row="head")
    seen = model.measurements(latents, digests, looked, looked.head)
    reference = fit_anomaly_reference(seen, labels, high_noise=(0, 1), low_noise=(3,))
    return classifier(
        network, ground=None, anomaly_plan=plan, anomaly=reference, false_alarm_rate=0.1
    )


ALTERED = {
    "stain": lambda x: x + torch.tensor([-0.4, 0.6, -0.4]).view(3, 1, 1),
    "focus": lambda x: avg_pool2d(x, 5, stride=1, padding=2, count_include_pad=False),
    "sensor": lambda x: x + 0.8 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0)),
}


@pytest.mark.parametrize("name", list(ALTERED))
def test_cells_of_foreign_stain_focus_or_sensor_get_small_p_values_and_no_verdict(
    of_one_laboratory, name
):
    latents, digests, _ = stained(60, seed=2)
    before = of_one_laboratory.classify(latents, digests, row="head")
    after = of_one_laboratory.classify(ALTERED[name](latents), digests, row="head")
    assert np.mean([v.texture.is_anomalous for v in before]) < 0.1 + 3 * (0.1 * 0.9 / 60) ** 0.5
    assert np.median([v.texture.p_value for v in before]) > 0.3
    assert np.median([v.texture.p_value for v in after]) <= 0.1
    foreign = [v for v in after if v.texture.is_anomalous]
    assert len(foreign) >= 30
    assert all(v.predicted_class is None for v in foreign)
    assert all("texture is unlike the reference cells'" in v.reasons[0] for v in foreign)


def test_a_profile_does_not_depend_on_the_batch(referenced):
    latents, digests = cells(9)
    labels = [0, 1, 2] * 3
    together = referenced.profiles(latents, digests, labels, micro_batch=1000)
    assert together.shape == (9, referenced.settings.anomaly_plan.n_levels)
    apart = referenced.profiles(latents, digests, labels, micro_batch=1)
    np.testing.assert_allclose(apart, together, atol=1e-5)
    others = referenced.profiles(latents, digests, [1, 2, 0] * 3)
    assert np.abs(others - together).min(axis=1).max() > 1e-4


# Settings in a checkpoint.


def test_a_checkpoint_decides_as_its_settings_did_before_they_were_written(
    network, referenced, tiny_checkpoint, tmp_path
):
    rows, _ = calibrated_rows(network)
    learned = LearnedWeighting(log_snr_min=-2.0, log_snr_max=5.0, weights=(1.0, 0.0, 2.0), cap=9.0)
    given = referenced.settings.model_copy(
        update={
            "rows": rows,
            "weighting": learned,
            "appearance": "clean",
            "head_views": 2,
            "draw_plan": PLAN.model_copy(update={"density": (0.25, 0.5, 0.25)}),
            "facts": {"n_cells": 3, "rows": {"head": {"balanced_accuracy": 1 / 3}}},
        }
    )
    header = load_checkpoint(tiny_checkpoint).header.model_copy(
        update={"classifier": given, "background": GROUND}
    )
    save_checkpoint(tmp_path / "written", network, header, dtype=torch.float32)
    checkpoint = load_checkpoint(tmp_path / "written")
    assert checkpoint.header == header
    assert checkpoint.header.classifier == given
    latents, digests = cells(6)
    before = CellClassifier(network, given, TINY_CLASSES, background=GROUND)
    after = CellClassifier.from_checkpoint(checkpoint)
    for options in ({}, {"row": "generative"}, {"row": "head", "risk": 0.3}, {"anomaly": True}):
        assert after.classify(latents, digests, **options) == before.classify(
            latents, digests, **options
        )


def test_settings_that_nothing_was_measured_for_say_so():
    assert not settings().is_calibrated
    rows = {
        row: of_row.model_copy(
            update={"posterior": of_row.posterior.model_copy(update={"n_cells": 200})}
        )
        for row, of_row in settings().rows.items()
    }
    assert settings(rows=rows).is_calibrated


def test_settings_of_an_unmeasured_network_hold_its_scores_as_they_are():
    evidence = Evidence(scores=np.array([[0.0, -1.0, -3.0]]))
    posterior: PosteriorCalibration = settings().rows["generative"].posterior
    odds = posterior.log_probabilities(evidence)[0]
    np.testing.assert_allclose(odds - odds[0], [0, -1, -3])


def test_rows_that_are_missing_are_refused():
    rows = settings().model_dump()["rows"]
    del rows["head"]
    with pytest.raises(ValueError, match="give fused, generative, head"):
        ClassifierSettings(draw_plan=PLAN, rows=rows)


def test_the_tiny_checkpoint_answers(tiny_checkpoint, tmp_path):
    folder = shutil.copytree(tiny_checkpoint, tmp_path / "copy")
    model = CellClassifier.from_checkpoint(load_checkpoint(folder))
    latents, digests = cells(2)
    for row in ROWS:
        for verdict in model.classify(latents, digests, row=row):
            assert verdict.row == row
            assert verdict.class_names == TINY_CLASSES
            assert sum(verdict.probabilities.values()) == pytest.approx(1)
