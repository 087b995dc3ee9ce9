"""What a checkpoint decides with, fitted on cells of three colours that a small network learned."""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import norm

from diffusion.anomaly import PARTS
from diffusion.cell_classifier import CellClassifier
from diffusion.classifier_settings import ROWS, ClassifierSettings
from diffusion.draws import DrawPlan, keyed_draws
from diffusion.latents import image_digest, images_from_latents, latents_from_images
from diffusion.weighting import block_log_likelihoods, fit_learned_weights, robust
from training.augmentation import Augmentation
from training.config import smoke_test
from training.data import LabelledImages
from training.fitting import (
    N_RACE_LEVELS,
    RISKS,
    WIDE,
    FittingPlan,
    _abstention,
    _altered,
    _density,
    _levels_of_wide,
    _prepared,
    _race_levels,
    _temperature,
    _weighting,
    fit_classifier,
)
from training.loop import ground_of, train

NAMES = ("blue", "grey", "red")
COLOURS = np.array([[90, 80, 190], [120, 110, 120], [190, 70, 110]])
PLAN = FittingPlan(per_class=4, calibrated_per_class=8, generative_blocks=2, fused_blocks=1)
LOOK = Augmentation()


def smears(n_per_class, seed=0, n_classes=3):
    """Discs on a light ground, each class of its own colour."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n_classes * n_per_class) % n_classes
    at = np.arange(32) - 15.5
    radii = rng.uniform(7, 11, (len(labels), 1, 1))
    is_cell = (np.hypot(at[:, None], at) < radii)[..., None]
    pixels = np.where(is_cell, COLOURS[labels][:, None, None], (215, 205, 225))
    images = (pixels + rng.normal(0, 12, pixels.shape)).clip(0, 255).astype(np.uint8)
    return LabelledImages(
        images=images,
        labels=labels,
        class_names=NAMES,
        digests=tuple(image_digest(image) for image in images),
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    config = replace(
        smoke_test(), n_images=60 * 16, augmentation=replace(LOOK, strong_fraction=0.25)
    )
    return train(config, smears(40), tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def held_out():
    return smears(26, seed=1)


@pytest.fixture(scope="module")
def fitted(trained, held_out):
    return fit_classifier(trained.network, held_out, trained.background, LOOK, PLAN)


def fit(trained, cells, look=LOOK, plan=PLAN):
    return fit_classifier(trained.network, cells, trained.background, look, plan)


# The whole.


def test_every_part_of_the_decision_is_fitted(fitted, held_out):
    assert fitted.is_calibrated
    for row in ROWS:
        assert fitted.rows[row].posterior.row == row
        # The first half, at most eight of each class, and as many altered ones.
        assert 24 <= fitted.rows[row].posterior.n_cells <= 48
        assert all(len(of_class) >= 2 for of_class in fitted.rows[row].conformal.scores)
        assert fitted.rows[row].abstention is not None
    assert fitted.variance_prior is not None
    assert fitted.anomaly is not None
    # 39 ranked cells cannot show a rate of 2 %, but one of 5 %.
    assert len(fitted.anomaly.surprises) == 39
    assert fitted.anomaly.part_names == PARTS
    assert fitted.false_alarm_rate == 0.05
    assert fitted.draw_plan.density is not None
    assert sum(fitted.draw_plan.density) == pytest.approx(1)
    assert (fitted.generative_blocks, fitted.fused_blocks) == (2, 1)
    assert fitted.head_views == PLAN.head_views
    assert fitted.look_again_below == PLAN.look_again_below


def test_every_cell_serves_on_one_side_and_every_altered_one_on_the_first(fitted, held_out):
    n_second = {
        row: sum(len(of_class) for of_class in fitted.rows[row].conformal.scores) for row in ROWS
    }
    assert set(n_second.values()) == {fitted.facts["rows"]["head"]["n"]}
    assert fitted.facts["n_altered"] == len(held_out) - n_second["head"]
    assert fitted.facts["n_cells"] == len(held_out)
    assert fitted.facts["data_digest"] == held_out.digest
    abstention = fitted.rows["fused"].abstention
    assert len(abstention.right) + len(abstention.wrong) == n_second["fused"]


def test_the_facts_say_what_each_row_was_worth(fitted):
    of_rows = fitted.facts["rows"]
    assert set(of_rows) == set(ROWS)
    # Three colours, learned for seconds: far from perfect, and far from a third.
    assert of_rows["head"]["balanced_accuracy"] > 0.7
    # One pass of the head costs less than any race.
    assert of_rows["head"]["gflop"] < min(of_rows[row]["gflop"] for row in ("fused", "generative"))
    assert set(fitted.facts["weights"]["log_loss"]) == {"learned", "robust"}
    assert len(fitted.facts["levels"]["by_level"]) == WIDE.n_levels


def test_the_race_draws_from_the_levels_that_were_chosen(fitted):
    plan = fitted.draw_plan
    assert WIDE.log_snr_min <= plan.log_snr_min < plan.log_snr_max <= WIDE.log_snr_max
    # A bin for each of the wide plan's levels, one unit of log-SNR wide.
    assert len(plan.density) == N_RACE_LEVELS == plan.log_snr_max - plan.log_snr_min
    assert (plan.n_levels, plan.n_blocks, plan.turned) == (1, 2, True)
    if fitted.weighting_name == "learned":
        assert len(fitted.weighting.weights) == len(plan.density)


def test_settings_come_back_from_json_as_they_were(fitted):
    assert ClassifierSettings.model_validate_json(fitted.model_dump_json()) == fitted


def test_the_same_cells_give_the_same_settings(trained, held_out, fitted):
    assert fit(trained, held_out) == fitted


def test_fitted_settings_decide(trained, fitted):
    cells = smears(10, seed=2)
    model = CellClassifier(trained.network, fitted, NAMES, background=trained.background.tolist())
    verdicts = model.classify(latents_from_images(cells.images), cells.digests, risk=0.5)
    right = [v.best_class == NAMES[k] for v, k in zip(verdicts, cells.labels, strict=True)]
    assert np.mean(right) > 0.6
    assert {v.weighting for v in verdicts} == {fitted.weighting_name}
    assert {v.texture.alarm_rate for v in verdicts} == {0.05}
    # Like the 39 reference cells: more than six of thirty would happen once in a hundred times.
    assert sum(v.texture.is_anomalous for v in verdicts) <= 6


# Too few cells.


def test_with_too_few_cells_nothing_is_calibrated_and_the_facts_say_why(trained, held_out):
    chosen = np.ones(len(held_out), dtype=bool)
    chosen[np.flatnonzero(held_out.labels == 1)[1:]] = False  # one grey cell is left
    settings = fit(trained, held_out.where(chosen))
    assert not settings.is_calibrated
    assert "too few held-out cells" in settings.facts["uncalibrated"]
    assert (settings.generative_blocks, settings.fused_blocks) == (2, 1)
    assert settings.anomaly is None


def test_a_class_without_any_held_out_cell_is_too_few_as_well(trained, held_out):
    settings = fit(trained, held_out.where(held_out.labels != 2))
    assert "too few held-out cells" in settings.facts["uncalibrated"]


def test_a_network_that_learned_nothing_is_not_calibrated_and_the_facts_say_so(trained, held_out):
    blind = copy.deepcopy(trained.network)
    blind.embed_class.weight.zero_()
    settings = fit_classifier(blind, held_out, trained.background, LOOK, PLAN)
    assert not settings.is_calibrated
    assert "alike under every class; train it longer" in settings.facts["uncalibrated"]


def test_without_twenty_cells_of_each_class_there_are_no_anomaly_references(trained):
    settings = fit(trained, smears(12, seed=1), plan=replace(PLAN, altered=False))
    assert settings.is_calibrated
    assert settings.anomaly is None
    assert settings.facts["n_altered"] == 0


# Altered copies.


@pytest.fixture(scope="module")
def classifier(trained):
    plain = ClassifierSettings.uncalibrated(3, DrawPlan())
    return CellClassifier(trained.network, plain, NAMES, background=trained.background.tolist())


def test_altered_copies_look_different_and_have_digests_of_their_own(classifier, held_out):
    device, ground = torch.device("cpu"), classifier.background
    originals = _prepared(classifier, held_out, device)
    copies = _altered(classifier, held_out, LOOK, ground, FittingPlan(seed=0), device)
    assert len(copies) == len(held_out)
    assert (copies.labels == held_out.labels).all()
    assert not set(copies.digests) & set(held_out.digests)
    assert len(set(copies.digests)) == len(copies)
    assert ((copies.prepared - originals.prepared).abs().mean(dim=(1, 2, 3)) > 0.02).all()
    again = _altered(classifier, held_out, LOOK, ground, FittingPlan(seed=0), device)
    assert torch.equal(copies.prepared, again.prepared)
    other = _altered(classifier, held_out, LOOK, ground, FittingPlan(seed=1), device)
    assert not set(copies.digests) & set(other.digests)


def test_a_copys_digest_is_that_of_the_picture_it_would_be_stored_as(trained, held_out):
    # Without a ground, prepared images are the pictures themselves.
    plain = ClassifierSettings.uncalibrated(3, DrawPlan())
    unbalanced = CellClassifier(trained.network, plain, NAMES, background=None)
    copies = _altered(
        unbalanced, held_out, LOOK, trained.background, FittingPlan(), torch.device("cpu")
    )
    pictures = images_from_latents(copies.prepared)
    assert tuple(image_digest(picture) for picture in pictures) == copies.digests


def test_there_are_no_copies_where_none_are_wanted(classifier, held_out):
    plan, ground = FittingPlan(altered=False), classifier.background
    assert not len(_altered(classifier, held_out, LOOK, ground, plan, torch.device("cpu")))


# Level weights.


def errors_of(labels, separation, spread, seed=0):
    """Errors of three classes under the wide plan, smaller by `separation` for the true one.

    Both are (levels,), in weighted nats of `robust`. Returns errors (B, N, K), log_snr (B, N).
    """
    draws = [
        keyed_draws(WIDE, (1,), seed=seed, image_digest=str(i)).log_snr for i in range(len(labels))
    ]
    log_snr = torch.stack(draws)
    rng = np.random.default_rng(seed)
    is_true = torch.eye(3)[labels]
    each = spread[:, None] * torch.from_numpy(rng.normal(size=(len(labels), WIDE.n_levels, 3)))
    each = each - separation[:, None] * is_true[:, None]
    each = each.repeat_interleave(2, dim=1)
    return 50 + each / robust(log_snr)[..., None], log_snr


def log_loss(scores, temperature, labels):
    log_p = (scores / temperature).log_softmax(dim=1)
    return -float(log_p.gather(1, labels[:, None]).mean())


def classes(n):
    return torch.arange(n) % 3


LEVELS = torch.arange(WIDE.n_levels)


def test_learned_weights_are_taken_where_robust_counts_levels_that_tell_nothing():
    labels = classes(240)
    separation = torch.where(LEVELS == 5, 1.0, 0.0)
    errors, log_snr = errors_of(labels, separation, torch.where(LEVELS < 3, 20.0, 0.5))
    weighting, facts = _weighting(errors, log_snr, labels, WIDE)
    log_losses = facts["log_loss"]
    assert log_losses["learned"] + 2 * facts["gain_standard_error"] < log_losses["robust"]
    # Noise of 20 against 0.5: those levels are given next to nothing.
    as_robust = [math.exp(level / 2) for level in np.arange(-1.5, 7)]
    counted = np.array(weighting.weights) / as_robust
    assert counted[:3].max() < 0.2 * counted[5]


def test_learned_weights_that_only_fit_their_own_cells_are_not_taken():
    labels = classes(60)
    levels = torch.zeros(WIDE.n_levels)
    errors, log_snr = errors_of(labels, levels + 0.35, levels + 1.0, seed=3)
    weighting, facts = _weighting(errors, log_snr, labels, WIDE)
    # On the cells they were learned from they are better, as they must be, and not on the others.
    learned, temperature = fit_learned_weights(
        errors, log_snr, labels, WIDE, n_bins=WIDE.n_levels, penalty=0.0
    )
    scores = [block_log_likelihoods(errors, log_snr, WIDE, w)[:, 0] for w in (learned, robust)]
    own = log_loss(scores[0], temperature, labels)
    assert own < log_loss(scores[1], _temperature(scores[1], labels), labels)
    gain = facts["log_loss"]["robust"] - facts["log_loss"]["learned"]
    assert gain < 2 * facts["gain_standard_error"]
    assert weighting is None


# Levels.


def test_races_keep_to_the_levels_where_one_pair_tells_classes_apart():
    labels = classes(1500)
    for told in (range(3, 6), range(3), range(6, 9)):
        separation = torch.where((told.start <= LEVELS) & (told.stop > LEVELS), 1.0, 0.0)
        errors, log_snr = errors_of(labels, separation, 0.5 * torch.ones(WIDE.n_levels))
        levels, facts = _race_levels(errors, log_snr, labels, torch.zeros(len(labels)))
        assert levels == told
        by_level = list(facts["by_level"].values())
        # A separation of two standard deviations is right in so many of three classes:
        z = np.linspace(-8, 8, 2001)
        expected = np.sum(norm.pdf(z) * norm.cdf(z + 2) ** 2) * (z[1] - z[0])
        for j, found in enumerate(by_level):
            (accuracy,), (loss,) = found["balanced_accuracy"], found["log_loss"]
            assert accuracy == pytest.approx(expected if j in told else 1 / 3, abs=0.05)
            assert (loss > 0.95 * math.log(3)) == (j not in told)


def test_levels_are_chosen_together_with_their_neighbours():
    # Level 1 is the best alone, and its neighbours tell nothing.
    labels = classes(600)
    separation = torch.tensor([0.0, 1.2, 0, 0, 0, 0.9, 0.9, 0.9, 0])
    errors, log_snr = errors_of(labels, separation, 0.5 * torch.ones(WIDE.n_levels))
    levels, facts = _race_levels(errors, log_snr, labels, torch.zeros(len(labels)))
    assert int(np.argmin([level["log_loss"][0] for level in facts["by_level"].values()])) == 1
    assert levels == range(5, 8)


def test_cells_and_altered_copies_weigh_alike_in_the_choice_of_levels():
    # The copies lose more everywhere, and a little less at levels where the cells lose much more.
    labels, kinds = classes(600), torch.zeros(600)
    for_cells = torch.tensor([0.0, 0, 0, 3, 3, 3, 1, 1, 1])
    for_copies = torch.tensor([0.0, 0, 0, 0.6, 0.6, 0.6, 0.75, 0.75, 0.75])
    cells, copies = (
        errors_of(labels, separation, 0.5 * torch.ones(WIDE.n_levels))
        for separation in (for_cells, for_copies)
    )
    errors, log_snr = (torch.cat([cells[i], copies[i]]) for i in (0, 1))
    both = torch.cat([labels, labels])
    levels, _ = _race_levels(errors, log_snr, both, torch.cat([kinds, kinds + 1]))
    assert levels == range(3, 6)
    alone, _ = _race_levels(*copies, labels, kinds)
    assert alone == range(6, 9)


def test_the_levels_of_a_race_are_those_that_the_wide_plan_drew_there():
    narrow = _levels_of_wide(range(3, 6))
    assert (narrow.log_snr_min, narrow.log_snr_max, narrow.n_levels) == (1.0, 4.0, 3)
    wide, few = (
        keyed_draws(plan, (1,), seed=0, image_digest="0").log_snr for plan in (WIDE, narrow)
    )
    torch.testing.assert_close(few, wide[6:12])


def test_a_temperature_is_the_one_that_simulated_scores_were_multiplied_with():
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(10_000, 4, generator=generator, dtype=torch.float64)
    labels = torch.multinomial(logits.softmax(dim=1), 1, generator=generator)[:, 0]
    for temperature in (0.02, 1.0, 250.0):
        assert _temperature(logits * temperature, labels) == pytest.approx(temperature, rel=0.06)


def test_levels_are_drawn_where_classes_differ():
    labels = classes(60)
    separation = torch.where(LEVELS == 5, 30.0, 1.0)
    errors, log_snr = errors_of(labels, separation, 0.01 * torch.ones(WIDE.n_levels))
    density = _density(errors, log_snr, WIDE, robust)
    assert sum(density) == pytest.approx(1)
    assert int(np.argmax(density)) == 5
    # Levels are drawn in proportion to the margin, but for the floor.
    assert density[5] / density[0] == pytest.approx(30 / (1 + 0.02 * 30), rel=0.1)


# Abstention.


def test_the_default_risk_is_the_strictest_that_the_cells_can_show():
    def cells(n, n_wrong):
        log_p = np.tile(np.log([0.98, 0.02]), (n, 1))
        log_p[:n_wrong] = np.log([0.45, 0.55])
        return log_p, np.zeros(n, dtype=np.int64)

    # Without an error it takes 149 cells for 2 %, 59 for 5 %, 29 for 10 % and 14 for 20 %.
    for n, risk in ((13, None), (14, 0.2), (29, 0.1), (59, 0.05), (149, 0.02)):
        log_p, labels = cells(n, 0)
        log_p = np.log([0.999, 0.001]) + 0 * log_p
        assert _abstention(log_p, labels)[1] == risk
    assert RISKS[0] == 0.01
    assert _abstention(*cells(100, 100))[1] is None


def test_the_ground_that_cells_are_balanced_to_is_the_lightest_of_the_smear(trained):
    expected = torch.tensor([215, 205, 225]) / 255
    torch.testing.assert_close(ground_of(smears(4).images), expected, atol=0.06, rtol=0)
    torch.testing.assert_close(trained.background, expected, atol=0.06, rtol=0)
