"""Prediction sets and abstention: the rates they promise, by simulation and by theory."""

import numpy as np
import pytest
from pydantic import ValidationError
from scipy.special import log_softmax
from scipy.stats import beta, binom, kstest, norm

from diffusion.conformal import (
    AbstentionCalibration,
    ConformalCalibration,
    fit_abstention,
    fit_conformal,
    keyed_uniforms,
    nonconformity,
)

N_CLASSES = 4


def cells(n, seed, *, strength=2.0, labels=None):
    """Log-probabilities of a classifier of the given strength, and the true classes."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % N_CLASSES if labels is None else labels
    scores = rng.normal(size=(n, N_CLASSES))
    scores[np.arange(n), labels] += strength
    return log_softmax(strength * scores, axis=1), labels, rng.random((n, 2))


def holds(sets, labels):
    return sets[np.arange(len(labels)), labels]


def simulated_coverage(n_calibrating, *, n_runs=400, n_testing=200, strength=2.0, **options):
    method = options.pop("method", "lac")
    level = options.pop("level", 0.9)
    found = []
    for run in range(n_runs):
        log_p, labels, uniforms = cells(n_calibrating, 2 * run, strength=strength)
        fitted = fit_conformal(log_p, labels, uniforms=uniforms, method=method)
        log_p, labels, uniforms = cells(n_testing, 2 * run + 1, strength=strength)
        sets = fitted.conforming(log_p, level, uniforms=uniforms, **options)
        found.append(holds(sets, labels))
    return np.stack(found), labels


# Coverage.


@pytest.mark.parametrize("method", ["lac", "aps"])
@pytest.mark.parametrize("level", [0.5, 0.9])
def test_exact_sets_hold_the_true_class_at_their_level(method, level):
    # 22 cells: (22 + 1) 0.9 = 20.7 is no whole number of ranks.
    found, _ = simulated_coverage(24, method=method, level=level)
    assert found.mean() == pytest.approx(level, abs=0.012)


def test_sets_that_round_up_hold_it_at_the_rate_of_theory():
    found, _ = simulated_coverage(24, is_exact=False)
    assert found.mean() == pytest.approx(np.ceil(25 * 0.9) / 25, abs=0.01)


def test_classwise_sets_hold_it_in_every_class_and_marginal_ones_on_average():
    rng = np.random.default_rng(0)
    by_class = {True: np.zeros(N_CLASSES), False: np.zeros(N_CLASSES)}
    n_runs = 300
    for _ in range(n_runs):
        # Classes of different difficulty and frequency.
        sides = []
        for _ in range(2):
            labels = np.repeat(np.arange(N_CLASSES), [10, 20, 40, 80])
            scores = rng.normal(size=(len(labels), N_CLASSES))
            scores[np.arange(len(labels)), labels] += np.array([0.5, 1, 2, 4])[labels]
            sides.append((log_softmax(2 * scores, axis=1), labels, rng.random((len(labels), 2))))
        (log_p, labels, uniforms), (new, truth, lots) = sides
        fitted = fit_conformal(log_p, labels, uniforms=uniforms)
        for is_classwise, total in by_class.items():
            sets = fitted.conforming(new, 0.9, uniforms=lots, classwise=is_classwise)
            total += np.bincount(truth, weights=holds(sets, truth)) / np.bincount(truth) / n_runs
    np.testing.assert_allclose(by_class[True], 0.9, atol=0.025)
    assert by_class[False] @ [10, 20, 40, 80] / 150 == pytest.approx(0.9, abs=0.01)
    assert by_class[False][0] < 0.8


def threshold_of(fitted, level):
    """The largest score that conforms, from 6,001 candidates: two classes, LAC."""
    scores = np.linspace(-3, 3, 6_001)
    log_p = np.stack([-np.logaddexp(0, scores), -np.logaddexp(0, -scores)], axis=1)
    lots = np.zeros((len(scores), 2))
    conforms = fitted.conforming(log_p, level, uniforms=lots, is_exact=False)[:, 0]
    return scores[conforms].max()


def test_coverage_over_calibrations_has_the_beta_distribution_of_theory():
    # Nonconformity of the true class is standard normal, so a threshold's coverage is known.
    rng, n, level, found = np.random.default_rng(1), 39, 0.85, []
    for _ in range(250):
        scores = rng.normal(size=n)
        log_p = np.stack([-np.logaddexp(0, scores), -np.logaddexp(0, -scores)], axis=1)
        labels = np.zeros(n, dtype=int)
        labels[0], log_p[0] = 1, log_p[0, ::-1]
        fitted = fit_conformal(log_p, labels, uniforms=np.zeros((n, 2)))
        found.append(norm.cdf(threshold_of(fitted, level)))
    k = np.ceil((n + 1) * level)
    assert kstest(found, beta(k, n + 1 - k).cdf).pvalue > 0.01
    assert kstest(found, beta(k + 1, n - k).cdf).pvalue < 1e-3


def test_coverage_is_exact_also_where_nearly_all_scores_tie():
    rng, found = np.random.default_rng(2), []
    for _ in range(600):
        sides = []
        for _ in range(2):
            is_sure = rng.random(40) < 0.95  # the rest is a class that conforms least
            log_p = np.where(is_sure[:, None], np.log([[0.7, 0.3]]), np.log([[0.4, 0.6]]))
            sides.append(log_p)
        labels = np.zeros(40, dtype=int)
        labels[0], sides[0][0] = 1, sides[0][0, ::-1]
        fitted = fit_conformal(sides[0], labels, uniforms=rng.random((40, 2)))
        sets = fitted.conforming(sides[1], 0.9, uniforms=rng.random((40, 2)))
        found.append(sets[:, 0].mean())
    assert np.mean(found) == pytest.approx(0.9, abs=0.01)


def test_saturated_probabilities_do_not_tie():
    # A sure classifier: its probabilities are all 1 in floating point, its log-odds differ.
    log_p, labels, uniforms = cells(400, 3, strength=14.0)
    is_right = log_p.argmax(axis=1) == labels
    assert (np.exp(log_p.max(axis=1)) == 1).mean() > 0.9
    assert len(np.unique(nonconformity(log_p, "lac", uniforms)[np.arange(400), labels])) == 400
    assert is_right.all()


def test_too_few_cells_for_the_level_leave_every_class_in():
    log_p, labels, uniforms = cells(8, 4)
    fitted = fit_conformal(log_p, labels, uniforms=uniforms)
    new, _, lots = cells(50, 5)
    assert fitted.conforming(new, 0.9, uniforms=lots, is_exact=False).all()
    assert not fitted.conforming(new, 0.88, uniforms=lots, is_exact=False).all()


def test_a_share_that_is_a_whole_number_of_ranks_is_not_raised_by_rounding_errors():
    # (24 + 1) 0.28 is 7 ranks, and 7.000000000000001 in floating point.
    assert 25 * 0.28 > 7
    found, _ = simulated_coverage(24, level=0.28, is_exact=False, n_runs=600)
    assert found.mean() == pytest.approx(7 / 25, abs=0.015)


# What a set is.


def test_a_higher_level_only_adds_classes():
    log_p, labels, uniforms = cells(200, 6)
    new, _, lots = cells(200, 7)
    for method in ("lac", "aps"):
        fitted = fit_conformal(log_p, labels, uniforms=uniforms, method=method)
        smaller = fitted.conforming(new, 0.8, uniforms=lots)
        assert (fitted.conforming(new, 0.95, uniforms=lots) | ~smaller).all()


def test_a_classifier_that_is_right_more_often_than_the_level_asks_leaves_sets_empty():
    log_p, labels, uniforms = cells(2000, 8, strength=4.0)
    new, truth, lots = cells(2000, 9, strength=4.0)
    accuracy = (new.argmax(axis=1) == truth).mean()
    assert accuracy > 0.97
    sets = fit_conformal(log_p, labels, uniforms=uniforms).conforming(new, 0.9, uniforms=lots)
    assert holds(sets, truth).mean() == pytest.approx(0.9, abs=0.02)
    # The empty ones are the hard ones.
    is_empty = ~sets.any(axis=1)
    is_wrong = new.argmax(axis=1) != truth
    assert is_wrong[is_empty].mean() > 5 * is_wrong[~is_empty].mean()


def one_set(log_p, **options):
    known, labels, uniforms = cells(400, 10, strength=4.0)
    fitted = fit_conformal(known, labels, uniforms=uniforms)
    return fitted.prediction_set(np.asarray(log_p), 0.9, uniforms=np.array([0.5, 0.5]), **options)


def test_what_is_shown_is_never_empty():
    found = one_set(np.log([0.3, 0.26, 0.24, 0.2]))
    assert found.conforming == ()
    assert found.shown == (0,)


def test_classes_that_must_be_kept_are_shown_beside_those_that_conform():
    found = one_set(np.log([1e-6, 1 - 3e-6, 1e-6, 1e-6]), always=[3])
    assert found.conforming == (1,)
    assert found.shown == (1, 3)


def test_undecided_classes_stand_in_for_an_empty_set():
    assert one_set(np.log([0.3, 0.26, 0.24, 0.2]), always=(1, 0)).shown == (0, 1)


def test_a_class_that_is_no_candidate_never_conforms():
    log_p, labels, uniforms = cells(8, 11)
    fitted = fit_conformal(log_p, labels, uniforms=uniforms)
    declared = np.array([[-np.inf, np.log(0.5), np.log(0.5), -np.inf]])
    sets = fitted.conforming(declared, 0.99, uniforms=np.zeros((1, 2)), is_exact=False)
    assert sets.tolist() == [[False, True, True, False]]


def test_fewer_candidates_make_no_true_class_stranger():
    log_p, labels, uniforms = cells(400, 12)
    among_two = np.where(np.arange(N_CLASSES) < 2, log_p, -np.inf)[labels < 2]
    among_two = log_softmax(among_two, axis=1)
    few = nonconformity(among_two, "lac", uniforms[labels < 2])
    all_of_them = nonconformity(log_p, "lac", uniforms)[labels < 2]
    truth = labels[labels < 2]
    assert (holds(few, truth) <= holds(all_of_them, truth)).all()


def test_lac_orders_as_one_minus_the_probability_does():
    p = np.random.default_rng(13).dirichlet(np.ones(5), size=40)
    scores = nonconformity(np.log(p), "lac", np.zeros((40, 2)))
    np.testing.assert_allclose(scores, np.log((1 - p) / p), atol=1e-5)


def test_aps_scores_are_the_probability_of_better_classes_and_a_share_of_the_own():
    lots = np.array([[0.0, 0.25]])
    scores = nonconformity(np.log([[0.2, 0.5, 0.3]]), "aps", lots)
    share = 1 - np.exp(-scores[0])
    np.testing.assert_allclose(share, [0.8 + 0.05, 0.125, 0.5 + 0.075], atol=1e-5)


def test_an_images_lots_are_its_own_and_uniform():
    digests = [f"image-{i}" for i in range(4000)]
    lots = keyed_uniforms(digests)
    np.testing.assert_array_equal(keyed_uniforms(digests[7:8]), lots[7:8])
    assert not np.isin(keyed_uniforms(digests, seed=1), lots).any()
    assert kstest(lots[:, 0], "uniform").pvalue > 0.01
    assert kstest(lots[:, 1], "uniform").pvalue > 0.01
    assert abs(np.corrcoef(lots.T)[0, 1]) < 0.05
    assert keyed_uniforms([]).shape == (0, 2)


def test_conformal_scores_survive_json():
    log_p, labels, uniforms = cells(60, 14)
    fitted = fit_conformal(log_p, labels, uniforms=uniforms, method="aps")
    assert ConformalCalibration.model_validate_json(fitted.model_dump_json()) == fitted


# Abstention.


def population(n, rng):
    """Confidence and correctness where the true error rate at each confidence is known."""
    log_odds = rng.normal(3, 2, size=n)
    is_wrong = rng.random(n) < error_at(log_odds)
    return log_odds, is_wrong


def error_at(log_odds):
    return np.minimum(1.0, 1.3 / (1 + np.exp(log_odds)))  # overconfident by 30 %


def abstention(log_odds, is_wrong):
    return AbstentionCalibration(
        right=tuple(np.sort(log_odds[~is_wrong])),
        wrong=tuple(np.sort(log_odds[is_wrong])),
        n_classes=2,
    )


def test_few_calibrations_give_a_rule_that_exceeds_its_risk():
    rng = np.random.default_rng(20)
    many = np.sort(rng.normal(3, 2, size=400_000))
    errors = error_at(many)
    true_risk = np.cumsum(errors[::-1])[::-1] / np.arange(len(many), 0, -1)
    exceeded, given = [], []
    for _ in range(400):
        try:
            rule = abstention(*population(800, rng)).rule(0.05, confidence_level=0.9)
        except ValueError:  # no verdict, no error
            exceeded.append(False)
            given.append(0.0)
            continue
        place = np.searchsorted(many, rule.log_odds_min)
        exceeded.append(true_risk[place] > 0.05)
        given.append(1 - place / len(many))
    # At most a tenth, and 3 standard errors of 400 runs.
    assert np.mean(exceeded) <= 0.1 + 3 * np.sqrt(0.1 * 0.9 / 400)
    # The best that could be given at this risk is little more.
    best = 1 - np.argmax(true_risk <= 0.05) / len(many)
    assert np.mean(given) > 0.75 * best


def test_a_rules_upper_limit_is_that_of_clopper_and_pearson():
    rule = abstention(*population(800, np.random.default_rng(21))).rule(0.05)
    assert binom.cdf(rule.n_wrong, rule.n_given, rule.risk_high) == pytest.approx(0.05)
    assert rule.risk_high <= 0.05


def test_a_classifier_without_errors_gives_every_verdict():
    log_p, labels, _ = cells(400, 22, strength=14.0)
    rule = fit_abstention(log_p, labels).rule(0.01)
    assert rule.n_given == 400
    assert not rule.abstains(log_p).any()
    assert not rule.abstains(np.log(np.full((1, N_CLASSES), 0.25))).any()


def test_the_rule_withholds_what_lies_below_its_threshold():
    log_p, labels, _ = cells(2000, 23)
    rule = fit_abstention(log_p, labels).rule(0.05)
    given = ~rule.abstains(log_p)
    assert given.sum() == rule.n_given
    assert (log_p.argmax(axis=1) != labels)[given].sum() == rule.n_wrong
    np.testing.assert_array_equal(given, np.exp(log_p.max(axis=1)) >= rule.probability_min)


def test_a_higher_risk_gives_more_verdicts():
    log_p, labels, _ = cells(2000, 24, strength=3.0)
    fitted = fit_abstention(log_p, labels)
    assert fitted.rule(0.02).n_given < fitted.rule(0.05).n_given < fitted.rule(0.1).n_given


# Refusals.


def test_a_risk_that_so_few_cells_cannot_show_is_refused_with_their_number():
    # 0.99 ** 298 > 0.05 >= 0.99 ** 299
    fitted = abstention(np.full(298, 9.0), np.zeros(298, dtype=bool))
    with pytest.raises(ValueError, match=r"298 calibration cells .* it takes 299"):
        fitted.rule(0.01)
    assert abstention(np.full(299, 9.0), np.zeros(299, dtype=bool)).rule(0.01).n_given == 299


def test_a_risk_that_the_most_confident_cells_do_not_keep_is_refused():
    fitted = abstention(np.full(400, 9.0), np.arange(400) < 100)
    with pytest.raises(ValueError, match=r"of 400 .* above 0.995, 100 are wrong"):
        fitted.rule(0.01)


@pytest.mark.parametrize("options", [{"risk": 0}, {"risk": 0.1, "confidence_level": 1}])
def test_a_rate_that_is_none_is_refused(options):
    with pytest.raises(ValueError, match="give a rate between 0 and 1"):
        abstention(np.full(400, 9.0), np.zeros(400, dtype=bool)).rule(**options)


def test_a_level_that_is_no_rate_is_refused():
    log_p, labels, uniforms = cells(40, 25)
    fitted = fit_conformal(log_p, labels, uniforms=uniforms)
    with pytest.raises(ValueError, match=r"level=90; give a rate between 0 and 1"):
        fitted.conforming(log_p, 90, uniforms=uniforms)


def test_arrays_of_another_size_than_the_calibration_are_refused():
    log_p, labels, uniforms = cells(40, 26)
    fitted = fit_conformal(log_p, labels, uniforms=uniforms)
    with pytest.raises(ValueError, match=r"\(40, 3\) and uniforms \(40, 2\) for 4 calibrated"):
        fitted.conforming(log_p[:, :3], 0.9, uniforms=uniforms)
    with pytest.raises(ValueError, match=r"uniforms \(39, 2\)"):
        fitted.conforming(log_p, 0.9, uniforms=uniforms[1:])


def test_a_class_without_a_calibration_cell_is_refused():
    log_p, labels, uniforms = cells(40, 27)
    with pytest.raises(ValueError, match="No calibration cell of class 3"):
        fit_conformal(log_p[labels < 3], labels[labels < 3], uniforms=uniforms[labels < 3])


def test_scores_out_of_order_are_refused():
    with pytest.raises(ValidationError, match="make them with `fit_conformal`"):
        ConformalCalibration(method="lac", scores=((1.0, 0.5), (0.0,)))
