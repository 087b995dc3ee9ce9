"""The state machine of one race, and many races in one packed batch."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import brentq

from diffusion.draws import DrawPlan, keyed_draws
from diffusion.elimination import BlockVariancePrior, tightest_effect_precision
from diffusion.latents import dihedral
from diffusion.network import CellDenoiser, Whole
from diffusion.packing import Packing, race_many
from diffusion.racing import Race, Wanted
from diffusion.weighting import block_log_likelihoods, elbo, robust
from tests.diffusion.gaussians import Mixtures

UNIT = DrawPlan(log_snr_min=0, log_snr_max=1, n_levels=1)
PRIOR = BlockVariancePrior(degrees_of_freedom=8, scale=1.0)
HEAVY = BlockVariancePrior(degrees_of_freedom=1.7, scale=1.0)  # as real cells may have it


def new_race(labels, **options):
    options = {"weighting": elbo, "alpha": 0.05, "max_blocks": 6, "prior": PRIOR} | options
    return Race(labels, UNIT, **options)


def run(race, scores):
    """Feed a race the given block scores, (n, K of all candidates), until it is over."""
    for block in np.asarray(scores):
        if race.is_over:
            break
        (wanted,) = race.wanted()[:1]
        columns = [race.class_labels.index(label) for label in wanted.class_labels]
        errors = torch.tensor(-2 * block[columns]).expand(2, -1)  # a score is -1/2 of the error
        race.take(wanted, errors, torch.tensor([0.5, 0.5]))
    return race


# One race.


def test_a_race_asks_for_one_block_of_all_its_classes_first():
    assert new_race([4, 2, 7]).wanted() == (Wanted(block=0, class_labels=(4, 2, 7)),)


def test_a_class_far_behind_is_not_asked_for_again():
    race = run(new_race([4, 2, 7]), [[0.0, -50, 0.1]])
    assert race.undecided == (4, 7)
    assert race.wanted() == (Wanted(block=1, class_labels=(4, 7)),)


def test_a_race_is_over_when_one_class_is_left():
    race = run(new_race([4, 2, 7]), [[0.0, -50, -60]] * 6)
    assert race.is_over
    assert race.wanted() == ()
    assert (race.undecided, race.n_blocks, race.result().winner) == ((4,), 1, 4)


def test_a_race_is_over_when_the_budget_is_spent_and_names_the_undecided():
    race = run(new_race([4, 2, 7], max_blocks=3), [[0, 0.1, -50], [0.1, 0, 0], [0, 0.1, 0]])
    assert race.is_over
    assert (race.undecided, race.n_blocks) == ((4, 2), 3)


def test_alpha_zero_eliminates_nothing_and_asks_for_all_blocks_at_once():
    race = new_race([4, 2], alpha=0.0, max_blocks=3)
    assert [wanted.block for wanted in race.wanted()] == [0, 1, 2]
    assert run(race, [[0.0, -1e6]] * 3).undecided == (4, 2)


def test_scores_are_paired_differences_to_the_winner():
    blocks = np.random.default_rng(0).normal(size=(6, 3)) * 0.3 + [0, 0.5, 0.2]
    result = run(new_race([4, 2, 7], alpha=0.0, prior=None), blocks).result()
    differences = blocks - blocks[:, [1]]
    np.testing.assert_allclose(result.scores, differences.mean(axis=0), atol=1e-9)
    textbook = differences.std(axis=0, ddof=1) / 6**0.5
    np.testing.assert_allclose(result.standard_errors, textbook, atol=1e-9)


def test_a_class_that_left_keeps_its_distance_to_the_class_that_beat_it():
    # 2 leads and beats 7 by 14 in the first block; in the second 4 overtakes 2 by half a nat.
    prior = BlockVariancePrior(degrees_of_freedom=8, scale=2.0)
    race = new_race([4, 2, 7], max_blocks=2, prior=prior, alpha=0.02)
    result = run(race, [[-10, 0, -14], [11, 0, 0]]).result()
    assert (result.winner, result.undecided) == (4, (4, 2))
    assert result.scores.tolist() == pytest.approx([0, -0.5, -0.5 - 14])
    # One difference of 7 and 2, two of 2 and 4 (10 and -11): the errors of the steps add up.
    of_second = ((8 * 2**2 + 21**2 / 2) / 9 / 2) ** 0.5
    assert result.standard_errors.tolist() == pytest.approx([0, of_second, of_second + 2])


def test_a_class_beaten_by_one_that_was_beaten_itself_stands_behind_both():
    # 2 beats 7 in the first block and is beaten by 4 in a later one.
    prior = BlockVariancePrior(degrees_of_freedom=8, scale=2.0)
    race = run(new_race([7, 2, 4], prior=prior), [[-20, 0.5, 0]] + [[0, -4, 0]] * 5)
    result = race.result()
    assert result.undecided == (4,)
    of_second = (0.5 - 4 * (result.n_blocks - 1)) / result.n_blocks
    assert result.scores.tolist() == pytest.approx([-20.5 + of_second, of_second, 0])


def test_each_of_k_classes_is_compared_at_a_share_of_alpha():
    # One block; all classes but the last tie with the leader. E is worked out by hand.
    def evidence(behind, alpha):
        c2 = tightest_effect_precision(3, alpha, PRIOR)
        known = PRIOR.degrees_of_freedom * PRIOR.scale**2 + behind**2
        ratio = known / (known - behind**2 / (1 + c2))
        return (c2 / (1 + c2)) ** 0.5 * ratio ** ((1 + PRIOR.degrees_of_freedom) / 2)

    for n_classes in (2, 8):
        share = 0.05 / (n_classes - 1)
        needed = brentq(lambda d, share=share: evidence(d, share) - 1 / share, 0.5, 500)
        for behind, is_out in ((0.99 * needed, False), (1.01 * needed, True)):
            scores = [0.0] * (n_classes - 1) + [-behind]
            race = run(new_race(range(n_classes), alpha=0.05, max_blocks=1), [scores])
            assert (n_classes - 1 not in race.undecided) == is_out


def test_the_winner_is_never_a_class_that_was_beaten():
    rng = np.random.default_rng(0)
    n_eliminated = 0
    for _ in range(200):
        race = run(new_race(range(5), alpha=0.5), rng.normal(size=(6, 5)) * [1, 3, 9, 1, 3])
        result = race.result()
        assert result.winner in result.undecided
        assert (result.scores <= 0).all()
        n_eliminated += 5 - len(result.undecided)
    assert n_eliminated > 200


def test_one_block_has_a_standard_error_only_with_a_prior():
    of_prior, without = (
        run(new_race([0, 1], max_blocks=1, prior=prior), [[1.0, 0.5]]).result()
        for prior in (PRIOR, None)
    )
    assert of_prior.standard_errors.tolist() == [0.0, PRIOR.scale]
    assert without.standard_errors.tolist() == [0.0, math.inf]


def test_errors_are_kept_and_missing_where_a_class_was_out():
    result = run(new_race([4, 2, 7]), [[0.0, -50, 0.1], [0, 0, 0.1]] + [[0, 0, 0]] * 4).result()
    assert result.errors.shape == (12, 3)
    assert result.errors[:2].isnan().sum() == 0
    assert result.errors[2:, 1].isnan().all()
    assert not result.errors[:, [0, 2]].isnan().any()
    assert (result.n_trunk_passes, result.n_class_passes) == (12, 2 * 3 + 10 * 2)


@pytest.mark.parametrize("prior", [PRIOR, None])
def test_among_identical_classes_each_survives_as_often_as_stated(prior):
    # 2000 races of 4 identical classes: any of them may be called the best one.
    rng = np.random.default_rng(1)
    alpha, n_lost = 0.1, np.zeros(4)
    v = PRIOR.degrees_of_freedom
    for _ in range(2000):
        # Differences of two classes have twice the variance of one.
        sd = PRIOR.scale * (v / rng.chisquare(v) / 2) ** 0.5
        race = run(new_race(range(4), alpha=alpha, prior=prior), sd * rng.normal(size=(6, 4)))
        n_lost += ~np.isin(range(4), race.undecided)
    assert (n_lost / 2000 <= alpha).all()


# One race with a head start.


def same_results(one, other):
    return (
        (one.winner, one.undecided, one.n_blocks) == (other.winner, other.undecided, other.n_blocks)
        and torch.equal(one.scores, other.scores)
        and torch.equal(one.standard_errors, other.standard_errors)
    )


@pytest.mark.parametrize("prior", [PRIOR, None])
def test_a_head_start_of_nothing_is_none_to_the_last_bit(prior):
    rng = np.random.default_rng(2)
    for _ in range(100):
        blocks = rng.normal(size=(6, 4)) * [1, 3, 9, 1]
        options = {"alpha": 0.4, "prior": prior}
        without = run(new_race(range(4), **options), blocks).result()
        with_zeros = run(new_race(range(4), head_start=[0] * 4, **options), blocks).result()
        assert same_results(with_zeros, without)


@pytest.mark.parametrize("prior", [PRIOR, None])
def test_a_head_start_that_all_classes_have_changes_nothing(prior):
    rng = np.random.default_rng(3)
    for _ in range(100):
        blocks = rng.normal(size=(6, 4)) * [1, 3, 9, 1]
        # In eighths, so that adding a constant rounds nothing.
        head_start = rng.integers(-80, 80, 4) / 8
        one, other = (
            new_race(range(4), alpha=0.4, prior=prior, head_start=head_start + constant)
            for constant in (0, -4096)
        )
        assert same_results(run(one, blocks).result(), run(other, blocks).result())


@pytest.mark.parametrize("prior", [PRIOR, HEAVY])
@pytest.mark.parametrize("n_classes", range(2, 9))
def test_a_huge_head_start_leaves_one_class_after_one_block(n_classes, prior):
    rng = np.random.default_rng(n_classes)
    for favourite in range(n_classes):
        head_start = -1e4 * rng.uniform(1, 5, n_classes)
        head_start[favourite] = 0
        blocks = rng.normal(size=(6, n_classes))
        race = run(new_race(range(n_classes), prior=prior, head_start=head_start), blocks)
        assert (race.undecided, race.n_blocks) == ((favourite,), 1)
        assert race.result().winner == favourite


def test_however_large_a_head_start_one_block_is_taken():
    race = new_race([4, 2], head_start=[0, 1e9])
    assert race.wanted() == (Wanted(block=0, class_labels=(4, 2)),)
    assert not race.is_over


def test_the_same_draws_decide_where_the_head_is_sure_and_go_on_where_it_is_not():
    blocks = np.zeros((6, 2))
    sure, unsure = (run(new_race([4, 2], head_start=[h, 0]), blocks) for h in (20, 0.5))
    assert (sure.undecided, sure.n_blocks) == ((4,), 1)
    assert (unsure.undecided, unsure.n_blocks) == ((4, 2), 6)


def test_the_scores_reported_do_not_contain_the_head_start():
    blocks = np.random.default_rng(0).normal(size=(6, 3)) * 0.3 + [0, 0.5, 0.2]
    race = new_race([4, 2, 7], alpha=0.0, prior=None, head_start=[10, -10, 3])
    result = run(race, blocks).result()
    assert result.winner == 4
    differences = blocks - blocks[:, [0]]
    np.testing.assert_allclose(result.scores, differences.mean(axis=0), atol=1e-9)
    assert result.scores[0] == 0
    assert (result.scores[1:] > 0).all()
    textbook = differences.std(axis=0, ddof=1) / 6**0.5
    np.testing.assert_allclose(result.standard_errors, textbook, atol=1e-9)


def test_draws_that_exceed_a_lower_head_start_win():
    blocks = np.random.default_rng(0).normal(size=(6, 2)) * 0.5 + [0, 30]
    behind_in_one_block = run(new_race([4, 2], head_start=[20, 0], max_blocks=1), blocks)
    assert behind_in_one_block.result().winner == 2
    race = run(new_race([4, 2], head_start=[20, 0]), blocks)
    assert (race.undecided, race.result().winner) == ((2,), 2)
    too_far = run(new_race([4, 2], head_start=[50, 0]), blocks).result()
    assert (too_far.winner, too_far.undecided) == (4, (4,))
    assert too_far.scores[1] == pytest.approx(30, abs=1)


def test_a_class_that_left_keeps_its_distance_by_the_draws_alone():
    # The race of the test above it, in which 2 beats 7 and 4 overtakes 2, with the head's share.
    prior = BlockVariancePrior(degrees_of_freedom=8, scale=2.0)
    head_start = [1, 0, -20]
    race = new_race([4, 2, 7], max_blocks=2, prior=prior, alpha=0.02, head_start=head_start)
    result = run(race, [[-10, 0, 3], [11, 0, 0]]).result()
    assert (result.winner, result.undecided) == (4, (4, 2))
    # 7 was 3 ahead of 2 by the block in which both took part, and 20 behind by its head start.
    assert result.scores.tolist() == pytest.approx([0, -0.5, -0.5 + 3])


def test_the_winner_is_never_a_class_that_was_beaten_with_a_head_start_either():
    rng = np.random.default_rng(0)
    n_eliminated = n_above = 0
    for _ in range(200):
        head_start = rng.normal(size=5) * 4
        race = new_race(range(5), alpha=0.5, head_start=head_start)
        result = run(race, rng.normal(size=(6, 5)) * [1, 3, 9, 1, 3]).result()
        assert result.winner in result.undecided
        standing = result.scores.numpy() + head_start
        assert standing.argmax() == result.winner
        assert result.scores[result.winner] == result.standard_errors[result.winner] == 0
        n_eliminated += 5 - len(result.undecided)
        n_above += int((result.scores > 0).sum())
    assert n_eliminated > 200
    assert n_above > 50


def test_alpha_zero_eliminates_nothing_whatever_the_head_start():
    race = new_race([4, 2], alpha=0.0, max_blocks=3, head_start=[1e6, 0])
    assert len(race.wanted()) == 3
    assert run(race, [[0.0, 1]] * 3).undecided == (4, 2)


@pytest.mark.parametrize(("prior", "unit"), [(PRIOR, 1.5), (HEAVY, 10.0)])
def test_among_classes_that_tie_with_their_head_starts_each_survives_as_often_as_stated(
    prior, unit
):
    # 2000 races of 4 classes: what the head gives to one, the expected draws give to the others.
    rng = np.random.default_rng(1)
    alpha, n_lost, v = 0.1, np.zeros(4), prior.degrees_of_freedom
    for _ in range(2000):
        sd = prior.scale * (v / rng.chisquare(v) / 2) ** 0.5
        head_start = unit * rng.normal(size=4)
        race = new_race(range(4), alpha=alpha, prior=prior, head_start=head_start)
        run(race, sd * rng.normal(size=(6, 4)) - head_start)
        n_lost += ~np.isin(range(4), race.undecided)
    assert (n_lost / 2000 <= alpha).all()


# Many races.


def digests(n):
    return [f"image-{i}" for i in range(n)]


def raced(denoiser, points, plan, *, labels=range(3), names=None, **options):
    defaults = {"weighting": elbo, "alpha": 0.05, "max_blocks": 5, "prior": PRIOR}
    return race_many(
        denoiser,
        points,
        names or digests(len(points)),
        [labels] * len(points),
        plan,
        **(defaults | options),
    )


class Counting:
    """A split denoiser that counts what it is asked for."""

    def __init__(self, denoise):
        self.whole, self.n_rows, self.n_units = Whole(denoise), [], []

    def share(self, noised, sigmas):
        self.n_rows.append(len(noised))
        return self.whole.share(noised, sigmas)

    def finish(self, shared, rows, class_labels):
        self.n_units.append(len(rows))
        return self.whole.finish(shared, rows, class_labels)


PROBLEM = Mixtures.random(3, 2, 16, 0.5)
PLAN = DrawPlan(log_snr_min=-4, log_snr_max=6, n_levels=3)


def test_each_draw_is_shared_once_and_finished_once_for_each_class_in_the_race():
    points, _ = PROBLEM.sample(20)
    counting = Counting(PROBLEM.denoise)
    results = raced(counting, points, PLAN, micro_batch=64)
    assert sum(counting.n_rows) == sum(result.n_trunk_passes for result in results)
    assert sum(counting.n_units) == sum(result.n_class_passes for result in results)
    assert 20 * 6 < sum(counting.n_rows) < 20 * 6 * 5  # some images take more blocks than others


def test_batches_are_full_but_for_the_end():
    points, _ = PROBLEM.sample(60)
    counting = Counting(PROBLEM.denoise)
    raced(counting, points, PLAN, micro_batch=50)
    assert max(counting.n_units) <= 50
    assert sum(n < 48 for n in counting.n_units[:-8]) == 0


def test_a_batch_holds_at_least_one_draw():
    points, _ = PROBLEM.sample(2)
    counting = Counting(PROBLEM.denoise)
    raced(counting, points, PLAN, micro_batch=1)
    assert set(counting.n_rows) == {1}


def test_races_under_way_go_before_images_that_wait():
    seen = []

    def denoise(noised, sigmas, labels):
        seen.append(round(float(noised.mean()) / 1000))
        return noised

    points = 1000 * torch.arange(4.0)[:, None].expand(4, 16)
    raced(Whole(denoise), points, PLAN, micro_batch=18, max_blocks=3)  # a batch is one block
    assert seen == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]


def test_each_pair_of_a_turned_plan_shows_the_image_in_its_symmetry():
    generator = torch.Generator().manual_seed(0)
    pattern, image = torch.randn(2, 3, 8, 8, generator=generator)
    plan = DrawPlan(n_levels=3, turned=True)
    stubborn = Whole(lambda noised, sigmas, labels: pattern.expand_as(noised))
    (result,) = raced(stubborn, image[None], plan, max_blocks=4, alpha=0.0)
    draws = keyed_draws(
        plan.model_copy(update={"n_blocks": 4}), image.shape, seed=0, image_digest="image-0"
    )
    missed = [(pattern - dihedral(image, turn)).square().sum() for turn in draws.turns.tolist()]
    expected = torch.stack(missed) * draws.log_snr.exp()
    torch.testing.assert_close(result.errors[:, 0], expected.double(), rtol=1e-4, atol=0)


def test_a_race_among_some_classes_gives_the_differences_of_the_race_among_all():
    points, _ = PROBLEM.sample(4)
    options = {"alpha": 0.0, "max_blocks": 3}
    of_all = raced(Whole(PROBLEM.denoise), points, PLAN, **options)
    of_two = raced(Whole(PROBLEM.denoise), points, PLAN, labels=[2, 0], **options)
    for two, all_ in zip(of_two, of_all, strict=True):
        assert two.class_labels == (2, 0)
        difference = all_.scores[2] - all_.scores[0]
        torch.testing.assert_close(two.scores[0] - two.scores[1], difference)


def test_images_may_have_different_candidates():
    points, _ = PROBLEM.sample(3)
    candidates = [(0, 1), (1, 2), (2, 1, 0)]
    results = race_many(
        Whole(PROBLEM.denoise),
        points,
        digests(3),
        candidates,
        PLAN,
        weighting=elbo,
        alpha=0.05,
        max_blocks=2,
    )
    assert [result.class_labels for result in results] == candidates


def test_the_scores_of_a_race_are_those_of_its_own_errors():
    points, _ = PROBLEM.sample(4)
    for result in raced(Whole(PROBLEM.denoise), points, PLAN, alpha=0.0):
        blocks = block_log_likelihoods(result.errors, result.log_snr, PLAN, elbo)
        expected = blocks.mean(dim=0) - blocks.mean(dim=0).max()
        torch.testing.assert_close(result.scores, expected)


def random_network():
    torch.manual_seed(0)
    network = CellDenoiser(
        image_size=16,
        n_classes=3,
        widths=(16, 32),
        n_blocks=(1, 1),
        n_decoder_blocks=(1, 1),
        n_embedding=32,
    )
    for parameter in network.parameters():  # some layers start at zero, and then all classes tie
        torch.nn.init.normal_(parameter, std=0.1)
    torch.nn.init.normal_(network.embed_class.weight, std=3.0)
    return network.eval().split()


def differences_of_log_odds(results, others):
    return max(
        float((a.scores - b.scores).abs().max()) for a, b in zip(results, others, strict=True)
    )


@pytest.mark.parametrize("weighting", [elbo, robust])
def test_an_answer_does_not_depend_on_the_batch_it_was_computed_in(weighting):
    # A random convolutional network in float32, and the same images alone, in a batch of 64,
    # shuffled, and in batches of other sizes.
    network = random_network()
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(64, 3, 16, 16, generator=generator).clamp(-1, 1)
    plan = DrawPlan(n_levels=2, turned=True, density=(0.2, 0.5, 0.3))
    prior = BlockVariancePrior(degrees_of_freedom=8, scale=0.4)
    options = {"weighting": weighting, "prior": prior, "max_blocks": 4, "alpha": 0.3}
    together = raced(network, images, plan, **options)
    # Races of different lengths, or the packing would not be put to the test.
    assert len({result.n_blocks for result in together}) >= 2

    order = torch.randperm(64, generator=generator)
    names = [digests(64)[i] for i in order]
    shuffled = raced(network, images[order], plan, names=names, **options)
    other_size = raced(network, images, plan, micro_batch=7, **options)
    alone = [
        raced(network, images[[i]], plan, names=[digests(64)[i]], **options)[0] for i in range(12)
    ]
    for results, others in (
        (shuffled, [together[i] for i in order]),
        (other_size, together),
        (alone, together[:12]),
    ):
        assert differences_of_log_odds(results, others) <= 1e-4
        assert [r.undecided for r in results] == [r.undecided for r in others]


def test_an_exact_denoisers_answer_does_not_depend_on_its_batch_either():
    points, _ = PROBLEM.sample(64)
    together = raced(Whole(PROBLEM.denoise), points, PLAN)
    alone = [
        raced(Whole(PROBLEM.denoise), points[[i]], PLAN, names=[name], micro_batch=5)[0]
        for i, name in enumerate(digests(64))
    ]
    assert differences_of_log_odds(alone, together) <= 1e-9


def race_of(alpha):
    return Race(range(3), PLAN, weighting=elbo, alpha=alpha, max_blocks=5, prior=PRIOR)


def test_races_that_come_while_others_run_end_as_if_alone():
    points, _ = PROBLEM.sample(30)
    together = raced(Whole(PROBLEM.denoise), points, PLAN)
    packing, results, keys = Packing(Whole(PROBLEM.denoise)), {}, {}
    for i, name in enumerate(digests(30)):  # one comes before each batch
        keys[packing.add(race_of(0.05), points[i], name, seed=0)] = i
        results |= packing.step(7)
    while packing:
        results |= packing.step(7)
    assert sorted(results) == sorted(keys)
    late = [results[key] for key in sorted(keys, key=keys.__getitem__)]
    assert differences_of_log_odds(late, together) <= 1e-9


def test_a_race_that_is_dropped_takes_no_more_work_and_changes_no_other():
    points, _ = PROBLEM.sample(6)
    expected = raced(Whole(PROBLEM.denoise), points, PLAN, alpha=0.0)
    counting = Counting(PROBLEM.denoise)
    packing = Packing(counting)
    keys = [
        packing.add(race_of(0.0), point, name, seed=0)
        for point, name in zip(points, digests(6), strict=True)
    ]
    packing.step(7)  # in the middle of the first one's blocks
    packing.drop(keys[0])
    packing.drop(keys[3])  # still waiting
    results = {}
    while packing:
        results |= packing.step(7)
    assert sorted(results) == [keys[i] for i in (1, 2, 4, 5)]
    kept = [results[keys[i]] for i in (1, 2, 4, 5)]
    assert differences_of_log_odds(kept, [expected[i] for i in (1, 2, 4, 5)]) <= 1e-9
    n_of_one = 5 * PLAN.n_draws_in_block * 3
    assert sum(counting.n_units) == 4 * n_of_one + 6  # 6 of the 7 had room for two draws


def test_each_image_has_the_head_start_of_its_own_candidates():
    points, _ = PROBLEM.sample(3)
    results = race_many(
        Whole(PROBLEM.denoise),
        points,
        digests(3),
        [(0, 1), (1, 2, 0), (2, 1)],
        PLAN,
        weighting=elbo,
        alpha=0.05,
        max_blocks=4,
        prior=PRIOR,
        head_starts=[(1e6, 0), (0, 1e6, 0), (0, 1e6)],
    )
    assert [result.winner for result in results] == [0, 2, 1]
    assert {result.n_blocks for result in results} == {1}


def test_an_answer_with_a_head_start_does_not_depend_on_its_batch():
    points, _ = PROBLEM.sample(64)
    head_starts = 4 * np.random.default_rng(4).normal(size=(64, 3))
    together = raced(Whole(PROBLEM.denoise), points, PLAN, head_starts=head_starts)
    order = np.random.default_rng(5).permutation(64)
    names = [digests(64)[i] for i in order]
    shuffled = raced(
        Whole(PROBLEM.denoise),
        points[order],
        PLAN,
        names=names,
        head_starts=head_starts[order],
        micro_batch=7,
    )
    expected = [together[i] for i in order]
    assert len({result.n_blocks for result in together}) >= 2
    assert differences_of_log_odds(shuffled, expected) <= 1e-9
    for field in ("winner", "undecided", "n_blocks"):
        assert [getattr(r, field) for r in shuffled] == [getattr(r, field) for r in expected]


def test_classes_that_the_model_cannot_tell_apart_stay_in_the_race():
    blind = Whole(lambda noised, sigmas, labels: noised / (1 + sigmas.view(-1, 1, 1, 1)))
    (result,) = raced(blind, torch.randn(1, 3, 8, 8), PLAN)
    assert result.undecided == (0, 1, 2)
    assert result.scores.tolist() == [0, 0, 0]


# Refusals.


@pytest.mark.parametrize("labels", [[1], [1, 1]])
def test_fewer_than_two_different_classes_are_refused(labels):
    with pytest.raises(ValueError, match="at least two different candidate classes"):
        new_race(labels)


def test_an_alpha_that_is_no_probability_is_refused():
    with pytest.raises(ValueError, match=r"alpha=5; give a probability such as 0.05"):
        new_race([0, 1], alpha=5)


def test_a_race_without_a_budget_is_refused():
    with pytest.raises(ValueError, match="give the race at least one block"):
        new_race([0, 1], max_blocks=0)


def test_one_block_as_the_sharpest_is_refused_without_a_prior():
    with pytest.raises(ValueError, match="one block tells nothing"):
        new_race([0, 1], prior=None, n_opt=1)


@pytest.mark.parametrize("head_start", [[1.0], [1.0, 2, 3], 1.0])
def test_a_head_start_is_counted(head_start):
    with pytest.raises(ValueError, match="for 2 candidate classes; give one number for each"):
        new_race([0, 1], head_start=head_start)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_head_start_that_is_no_finite_number_is_refused(number):
    with pytest.raises(ValueError, match="give finite numbers, and leave a class that cannot win"):
        new_race([0, 1], head_start=[0, number])


def test_blocks_out_of_order_are_refused():
    race = new_race([0, 1])
    with pytest.raises(ValueError, match="hand in its blocks in order"):
        race.take(Wanted(block=1, class_labels=(0, 1)), torch.zeros(2, 2), torch.zeros(2))


def test_errors_that_are_no_numbers_are_refused():
    race = new_race([0, 1])
    with pytest.raises(ValueError, match="not a finite number"):
        race.take(race.wanted()[0], torch.full((2, 2), torch.nan), torch.zeros(2))


def test_a_result_before_the_first_block_is_refused():
    with pytest.raises(ValueError, match="take at least one block"):
        new_race([0, 1]).result()


def test_images_digests_and_candidates_are_counted():
    with pytest.raises(ValueError, match="2 digests and 3 sets of candidates for 3 images"):
        raced(Whole(PROBLEM.denoise), torch.zeros(3, 16), PLAN, names=digests(2))


def test_head_starts_are_counted_too():
    with pytest.raises(ValueError, match="2 head starts for 3 images; give one for each image"):
        raced(Whole(PROBLEM.denoise), torch.zeros(3, 16), PLAN, head_starts=[[0] * 3] * 2)
