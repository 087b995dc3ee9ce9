from math import log, sqrt

import numpy as np
import pytest
from scipy.special import expit, logit

from studies.calibration import (
    CalibrationError,
    brier_score,
    calibration_line,
    confidence_points,
    distinct_bins,
    equal_mass_bins,
    equal_width_bins,
    expected_calibration_error,
    forecasts_of_chosen,
    forecasts_of_generated,
    log_score,
    overconfidence,
    reliability_diagram,
)
from studies.clustered import rao_scott_wilson
from studies.proportions import wilson

# torchmetrics' documentation example; statistics_cases.md H3.
H3 = ([0.25, 0.25, 0.55, 0.75, 0.75], [0, 0, 1, 1, 1])


def rng(seed=0):
    return np.random.default_rng(seed)


def limits(estimate):
    return estimate.ci_low, estimate.ci_high


def calibrated(n, seed=0, low=0.05, high=0.95):
    random = rng(seed)
    p = random.uniform(low, high, n)
    return p, (random.random(n) < p).astype(int)


def readers_of_different_calibration(n_readers=12, n_each=60, seed=0, spread=1.0):
    """Forecasts as given, outcomes by log-odds that each reader shifts by an own amount."""
    random = rng(seed)
    readers = np.repeat(np.arange(n_readers), n_each)
    p = random.uniform(0.1, 0.9, n_readers * n_each)
    shift = random.normal(0, spread, n_readers)[readers]
    return p, (random.random(len(p)) < expit(logit(p) + shift)).astype(int), readers


# --- Brier score ------------------------------------------------------------------------------


def test_brier_score_of_scikit_learns_example():
    # statistics_cases.md H1.
    found = brier_score([0.1, 0.9, 0.8, 0.3], [0, 1, 1, 0])
    assert found.score.estimate == pytest.approx(0.0375, abs=1e-15)
    assert found.skill == pytest.approx(1 - 0.0375 / 0.25)


def test_murphys_decomposition_by_hand():
    # Two forecasts: 0.25 comes true once in four, 0.75 twice in four.
    found = brier_score([0.25] * 4 + [0.75] * 4, [1, 0, 0, 0, 1, 1, 0, 0])
    assert found.reliability == pytest.approx(0.5 * 0.25**2)
    assert found.resolution == pytest.approx(0.125**2)
    assert found.uncertainty == pytest.approx(3 / 8 * 5 / 8)
    assert (found.within_variance, found.within_covariance) == (0, 0)
    assert found.score.estimate == pytest.approx((9 + 3 + 2 + 18) / 16 / 8)


@pytest.mark.parametrize("bins_of", [equal_width_bins, equal_mass_bins, distinct_bins])
@pytest.mark.parametrize("n_bins", [1, 3, 10])
def test_the_five_terms_add_up_to_the_score(bins_of, n_bins):
    for seed in range(10):
        random = rng(seed)
        p = np.round(random.beta(0.5, 0.5, 57), random.integers(1, 5))
        y = (random.random(57) < p**2).astype(int)
        bins = distinct_bins(p) if bins_of is distinct_bins else bins_of(p, n_bins)
        found = brier_score(p, y, bins=bins)
        parts = found.reliability - found.resolution + found.uncertainty
        parts += found.within_variance - found.within_covariance
        assert parts == pytest.approx(np.square(p - y).mean(), abs=1e-15)
        assert found.score.estimate == pytest.approx(parts, abs=1e-15)


def test_distinct_bins_leave_nothing_within():
    p, y = calibrated(200)
    found = brier_score(np.round(p, 1), y)
    assert found.within_variance == pytest.approx(0, abs=1e-30)
    assert found.within_covariance == pytest.approx(0, abs=1e-17)


def test_the_brier_score_of_readers_has_a_clustered_interval():
    # Readers who know and readers who guess.
    readers = np.repeat(np.arange(10), 30)
    p = np.where(readers < 5, 0.9, 0.5)
    y = (rng(2).random(300) < p).astype(int)
    naive = brier_score(p, y).score
    clustered = brier_score(p, y, clusters=readers).score
    assert clustered.df == 9
    assert clustered.standard_error > 1.5 * naive.standard_error
    # Every forecast its own cluster: the same interval.
    alone = brier_score(p, y, clusters=np.arange(300)).score
    assert limits(alone) == pytest.approx(limits(naive))
    # Doubling each reader's rows brings no new reader.
    doubled = brier_score(np.tile(p, 2), np.tile(y, 2), clusters=np.tile(readers, 2)).score
    assert limits(doubled) == pytest.approx(limits(clustered))


def test_perfect_forecasts_have_a_score_of_0_and_no_interval():
    found = brier_score([0, 1, 1], [0, 1, 1])
    assert found.score.estimate == 0
    assert found.score.reason == "there is no variance, which is no sign of certainty"
    one = brier_score([0.3], [1])
    assert one.score.reason == "1 forecast says nothing about others"
    assert one.skill is None


# --- log score --------------------------------------------------------------------------------


def test_log_score_of_a_coin_is_ln_2():
    assert log_score([0.5] * 4, [0, 1, 1, 0]).estimate == pytest.approx(log(2))


def test_log_score_is_the_mean_of_the_logs():
    found = log_score([0.1, 0.9, 0.8], [0, 1, 0])
    assert found.estimate == pytest.approx(-(log(0.9) + log(0.9) + log(0.2)) / 3)
    assert found.is_estimable


def test_certain_and_wrong_is_not_estimable_unless_a_clip_is_declared():
    found = log_score([1.0, 0.0, 0.5], [0, 0, 1])
    assert found.estimate is None
    assert found.reason.startswith("1 forecasts were certain and wrong")
    clipped = log_score([1.0, 0.0, 0.5], [0, 0, 1], clip=0.01)
    assert clipped.estimate == pytest.approx(-(log(0.01) + log(0.99) + log(0.5)) / 3)
    assert "clipped to [0.01, 0.99]" in clipped.method
    # Certain and right costs nothing.
    assert log_score([1.0, 0.0, 0.5], [1, 0, 1]).estimate == pytest.approx(log(2) / 3)


# --- bins -------------------------------------------------------------------------------------


def test_bins_of_equal_width_are_closed_on_the_right():
    p = [0, 0.1, 0.1000001, 0.2, 0.95, 1]
    assert equal_width_bins(p, 10).index.tolist() == [0, 0, 1, 1, 9, 9]


@pytest.mark.parametrize("n_bins", [2, 3, 7, 10, 15, 20, 100])
def test_every_edge_belongs_to_the_bin_below_it(n_bins):
    edges = np.arange(1, n_bins + 1) / n_bins
    for forecasts in (edges, 1 - (1 - edges), edges + 1e-12, edges - 1e-12):
        index = equal_width_bins(np.clip(forecasts, 0, 1), n_bins).index
        assert index.tolist() == list(range(n_bins))


def test_a_mirrored_forecast_with_a_rounding_error_stays_in_its_bin():
    # 1 − 0.7 = 0.30000000000000004 in floating point.
    index = equal_width_bins([0.3, 1 - 0.7], 10).index
    assert index[0] == index[1] == 2
    assert distinct_bins([0.3, 1 - 0.7]).n_bins == 1


def test_bins_may_span_the_range_of_the_chosen_answer_only():
    bins = equal_width_bins([0.5, 0.6, 0.75, 1], 4, lowest=0.5)
    assert bins.index.tolist() == [0, 0, 1, 3]
    assert bins.edges == pytest.approx((0.5, 0.625, 0.75, 0.875, 1))
    with pytest.raises(CalibrationError, match=r"forecast 2 is 0\.4, outside the bins from 0\.5"):
        equal_width_bins([0.5, 0.4], 4, lowest=0.5)


def test_bins_of_equal_mass_hold_as_many_each_and_keep_ties_together():
    p, _ = calibrated(1000)
    assert np.bincount(equal_mass_bins(p, 10).index).tolist() == [100] * 10
    tied = equal_mass_bins([0.5] * 90 + [0.9] * 10, 10)
    assert tied.n_bins == 2
    assert np.bincount(tied.index).tolist() == [90, 10]
    assert tied.edges == (0.5, 0.5, 0.9)


def test_the_edges_of_any_bins_hold_their_forecasts():
    p = np.round(calibrated(300)[0], 2)
    for bins in (equal_width_bins(p, 7), equal_mass_bins(p, 7), distinct_bins(p)):
        edges = np.array(bins.edges)
        low, high = edges[bins.index], edges[bins.index + 1]
        assert ((p <= high + 1e-9) & ((p > low - 1e-9) | (bins.index == 0))).all()
        assert len(np.unique(bins.index)) <= bins.n_bins


# --- calibration error ------------------------------------------------------------------------


def test_calibration_error_of_the_torchmetrics_example():
    found = expected_calibration_error(*H3, bins=equal_width_bins(H3[0], 2))
    shown = (found.l1, found.l2, found.largest)
    assert shown == pytest.approx((0.2900, 0.2918, 0.3167), abs=5e-5)
    exact = (0.29, sqrt(0.4 * 0.25**2 + 0.6 * (0.95 / 3) ** 2), 0.95 / 3)
    assert shown == pytest.approx(exact, abs=1e-15)


def test_empty_bins_weigh_nothing_and_are_counted():
    found = expected_calibration_error(*H3, bins=equal_width_bins(H3[0], 20))
    assert (found.n_bins, found.n_empty_bins) == (20, 17)
    assert found.l1 == pytest.approx((2 * 0.25 + 0.45 + 2 * 0.25) / 5)
    assert found.largest == pytest.approx(0.45)


def test_more_bins_never_lower_the_error_of_nested_bins():
    p, y = calibrated(500, seed=3)
    errors = [
        expected_calibration_error(p, y, bins=equal_width_bins(p, n)).l1 for n in (1, 2, 4, 8, 16)
    ]
    assert errors == sorted(errors)
    assert errors[0] == pytest.approx(abs(np.mean(p) - np.mean(y)))


def test_the_error_of_calibrated_forecasts_is_what_chance_predicts():
    found = [
        expected_calibration_error(p, y, bins=equal_width_bins(p, 10))
        for p, y in (calibrated(288, seed) for seed in range(200))
    ]
    by_chance = np.mean([one.l1_by_chance for one in found])
    assert np.mean([one.l1 for one in found]) == pytest.approx(by_chance, rel=0.05)
    # Nobody with 288 judgements shows 0, calibrated or not.
    assert by_chance > 0.04


def test_the_two_conventions_give_different_errors():
    # Too sure of "generated" (right 12 of 24), not sure enough of "real" (right 20 of 24), always
    # with 2/3: as P(chosen answer) the two cancel, as P(generated) they do not.
    says, confidence = np.repeat([1, 0], 24), np.full(48, 2)
    truth = np.concatenate([np.repeat([1, 0], 12), np.repeat([0, 1], (20, 4))])
    points = confidence_points(4)
    generated = forecasts_of_generated(says, confidence, truth, points=points)
    chosen = forecasts_of_chosen(confidence, says == truth, points=points)
    assert (generated.convention, chosen.convention) == ("P(generated)", "P(chosen answer)")
    errors = [
        expected_calibration_error(one.probabilities, one.outcomes).l1
        for one in (generated, chosen)
    ]
    assert errors == pytest.approx([1 / 6, 0], abs=1e-12)


# --- from a scale to probabilities ------------------------------------------------------------


def test_points_lie_equally_spaced_from_a_guess_to_certainty():
    assert confidence_points(6).tolist() == pytest.approx([0.5, 0.6, 0.7, 0.8, 0.9, 1.0])
    assert confidence_points(3, lowest=0.55, highest=0.95).tolist() == pytest.approx(
        [0.55, 0.75, 0.95]
    )


def test_an_answer_real_is_one_minus_its_confidence():
    found = forecasts_of_generated(
        [1, 0, 1, 0], [1, 1, 4, 4], [1, 1, 0, 0], points=[0.5, 0.6, 0.8, 1]
    )
    assert found.probabilities.tolist() == [0.5, 0.5, 1, 0]
    assert found.outcomes.tolist() == [1, 1, 0, 0]


def test_the_brier_score_is_the_same_under_both_conventions():
    # (p − y)² does not care which of two answers it is of.
    random = rng(4)
    says, truth = random.integers(0, 2, (2, 200))
    confidence, points = random.integers(1, 6, 200), confidence_points(5)
    one = forecasts_of_generated(says, confidence, truth, points=points)
    other = forecasts_of_chosen(confidence, says == truth, points=points)
    first = brier_score(one.probabilities, one.outcomes).score.estimate
    assert first == pytest.approx(brier_score(other.probabilities, other.outcomes).score.estimate)


@pytest.mark.parametrize(
    ("confidence", "points", "words"),
    [
        ([1, 5], [0.5, 0.75, 1], "confidence 2 is 5, off the scale from 1 to 3"),
        ([1, 0], [0.5, 0.75, 1], "confidence 2 is 0, off the scale"),
        ([1, 1.5], [0.5, 0.75, 1], r"confidence 2 is 1\.5, off the scale"),
        ([1, np.nan], [0.5, 0.75, 1], "confidence 2 is nan, off the scale"),
        ([1, 1], [0.5, 0.4], "give an ascending probability for each answer"),
        ([1, 1], [0.5, 1.1], "are no confidence scale"),
        ([1, 1], [0.5], "are no confidence scale"),
    ],
)
def test_confidence_off_the_scale_is_refused_with_advice(confidence, points, words):
    with pytest.raises(CalibrationError, match=words):
        forecasts_of_chosen(confidence, [0, 1], points=points)
    with pytest.raises(CalibrationError, match=words):
        forecasts_of_generated([0, 1], confidence, [0, 1], points=points)


def test_a_scale_of_one_point_is_refused():
    with pytest.raises(CalibrationError, match=r"1 points from 0\.5 to 1 are no confidence scale"):
        confidence_points(1)


# --- reliability diagram ----------------------------------------------------------------------


def test_the_diagram_shows_every_bin_and_says_which_are_empty():
    diagram = reliability_diagram(*H3, bins=equal_width_bins(H3[0], 4))
    assert [one.n_forecasts for one in diagram] == [2, 0, 3, 0]
    assert [(one.low, one.high) for one in diagram] == [
        (0, 0.25),
        (0.25, 0.5),
        (0.5, 0.75),
        (0.75, 1),
    ]
    assert diagram[0].mean_probability == 0.25
    assert diagram[1].mean_probability is None
    assert diagram[1].frequency.reason == "no forecast fell into this bin"
    assert limits(diagram[2].frequency) == pytest.approx(limits(wilson(3, 3)))
    assert diagram[2].clustered is None


def test_the_diagram_of_readers_is_clustered_by_reader():
    p, y, readers = readers_of_different_calibration(spread=2)
    diagram = reliability_diagram(p, y, bins=equal_width_bins(p, 4), clusters=readers)
    inside = equal_width_bins(p, 4).index == 1
    right = [int(y[inside & (readers == r)].sum()) for r in range(12)]
    trials = [int((inside & (readers == r)).sum()) for r in range(12)]
    expected = rao_scott_wilson(right, trials, with_t_quantile=True).proportion
    assert limits(diagram[1].clustered) == pytest.approx(limits(expected))
    assert diagram[1].n_clusters == 12
    for one in diagram:
        assert one.clustered.estimate == pytest.approx(one.frequency.estimate)
    widths = np.array(
        [
            (one.clustered.ci_high - one.clustered.ci_low)
            / (one.frequency.ci_high - one.frequency.ci_low)
            for one in diagram
        ]
    )
    assert (widths > 1).all()


def test_one_reader_in_a_bin_gives_no_clustered_interval():
    diagram = reliability_diagram(
        [0.2, 0.2, 0.9, 0.9],
        [0, 1, 1, 0],
        bins=equal_width_bins([0.2, 0.2, 0.9, 0.9], 2),
        clusters=["a", "a", "a", "b"],
    )
    assert not diagram[0].clustered.is_estimable
    assert "1 cluster says nothing about others" in diagram[0].clustered.reason
    assert diagram[0].frequency.is_estimable


def test_intervals_of_the_diagram_cover_calibrated_readers():
    covered = {"naive": [], "clustered": []}
    for seed in range(150):
        # Readers who shift either way, so that the event happens half the time on the whole.
        random, readers = rng(seed), np.repeat(np.arange(12), 80)
        p = np.full(960, 0.5)
        y = (random.random(960) < expit(random.normal(0, 1, 12)[readers])).astype(int)
        one = reliability_diagram(p, y, bins=distinct_bins(p), clusters=readers)[0]
        covered["naive"].append(one.frequency.ci_low <= 0.5 <= one.frequency.ci_high)
        covered["clustered"].append(one.clustered.ci_low <= 0.5 <= one.clustered.ci_high)
    assert np.mean(covered["clustered"]) > 0.88
    # Negative control.
    assert np.mean(covered["naive"]) < 0.7


# --- calibration line -------------------------------------------------------------------------


def test_the_line_of_calibrated_forecasts_has_intercept_0_and_slope_1():
    found = calibration_line(*calibrated(20_000))
    assert found.slope.estimate == pytest.approx(1, abs=0.05)
    assert found.intercept.estimate == pytest.approx(0, abs=0.05)
    assert found.in_the_large.estimate == pytest.approx(0, abs=0.05)


@pytest.mark.parametrize(("intercept", "slope"), [(0.5, 1.0), (0.0, 0.5), (-1.0, 2.0)])
def test_the_line_recovers_what_was_simulated(intercept, slope):
    random = rng(7)
    p = random.uniform(0.05, 0.95, 20_000)
    y = random.random(20_000) < expit(intercept + slope * logit(p))
    found = calibration_line(p, y)
    for one, truth in ((found.slope, slope), (found.intercept, intercept)):
        assert one.estimate == pytest.approx(truth, abs=0.06)
        assert one.estimate == pytest.approx(truth, abs=3.5 * one.standard_error)


def test_overconfident_forecasts_have_a_slope_below_1():
    p, y = calibrated(4000)
    sharpened = expit(2 * logit(p))
    assert calibration_line(sharpened, y).slope.ci_high < 1


def test_the_line_agrees_with_statsmodels():
    api = pytest.importorskip("statsmodels.api", reason="side by side")
    p, y, readers = readers_of_different_calibration()
    x = np.column_stack([np.ones_like(p), logit(p)])
    model = api.GLM(y, x, family=api.families.Binomial()).fit()
    found = calibration_line(p, y)
    assert (found.intercept.estimate, found.slope.estimate) == pytest.approx(model.params)
    errors = (found.intercept.standard_error, found.slope.standard_error)
    assert errors == pytest.approx(model.bse, rel=1e-6)
    offset = api.GLM(y, x[:, :1], family=api.families.Binomial(), offset=logit(p)).fit()
    assert found.in_the_large.estimate == pytest.approx(offset.params[0])
    # Liang & Zeger's sandwich, times C / (C − 1).
    gee = api.GEE(y, x, groups=readers, family=api.families.Binomial()).fit(cov_type="robust")
    clustered = calibration_line(p, y, clusters=readers)
    errors = np.array([clustered.intercept.standard_error, clustered.slope.standard_error])
    assert errors == pytest.approx(gee.bse * sqrt(12 / 11), rel=1e-4)
    assert clustered.slope.df == 11
    assert clustered.in_the_large.standard_error > 1.5 * found.in_the_large.standard_error


@pytest.mark.parametrize(
    ("p", "y", "slope", "in_the_large"),
    [
        ([0.2, 1.0, 0.6], [0, 1, 1], "1 forecasts are exactly 0 or 1, without log-odds", None),
        ([0.2, 0.4, 0.6], [1, 1, 1], "all outcomes are 1", None),
        ([0.4, 0.4, 0.4], [1, 0, 1], "all forecasts are the same, so there is no slope", "fine"),
        ([0.1, 0.2, 0.8, 0.9], [0, 0, 1, 1], "forecasts separate the outcomes", "fine"),
        ([0.2, 0.2, 0.8, 0.8], [0, 1, 1, 1], "forecasts separate the outcomes", "fine"),
    ],
)
def test_lines_that_do_not_exist_are_not_estimable(p, y, slope, in_the_large):
    found = calibration_line(p, y)
    assert slope in found.slope.reason
    assert found.slope.estimate is None
    assert found.intercept.estimate is None
    assert found.in_the_large.is_estimable == (in_the_large == "fine")


def test_a_clip_makes_certain_forecasts_usable_and_is_named():
    p, y = [0.0, 0.3, 0.7, 1.0] * 5, [0, 1, 0, 1] * 4 + [1, 0, 1, 0]
    assert not calibration_line(p, y).slope.is_estimable
    found = calibration_line(p, y, clip=0.02)
    assert found.slope.is_estimable
    assert "clipped to [0.02, 0.98]" in found.slope.method


def test_one_cluster_has_no_line():
    p, y = calibrated(30)
    found = calibration_line(p, y, clusters=["a"] * 30)
    assert found.slope.reason == "1 cluster says nothing about others"


# --- over-confidence --------------------------------------------------------------------------


def test_overconfidence_is_mean_confidence_less_accuracy():
    found = overconfidence([0.9, 0.9, 0.7, 0.5, 1.0, 0.8], [1, 0, 1, 0, 1, 0], rng=rng())
    assert found.mean_confidence == pytest.approx(0.8)
    assert found.accuracy == pytest.approx(0.5)
    assert found.overconfidence.estimate == pytest.approx(0.3)


def test_the_bootstrap_without_clusters_is_the_t_interval():
    p, y = calibrated(400)
    found = overconfidence(p, y, rng=rng(), n_resamples=8000).overconfidence
    error = np.std(p - y, ddof=1) / sqrt(400)
    assert found.standard_error == pytest.approx(error, rel=0.03)
    mean = np.mean(p - y)
    assert limits(found) == pytest.approx((mean - 1.966 * error, mean + 1.966 * error), abs=0.003)


def test_readers_who_differ_widen_the_interval():
    p, y, readers = readers_of_different_calibration()
    naive = overconfidence(p, y, rng=rng()).overconfidence
    clustered = overconfidence(p, y, rng=rng(), readers=readers)
    assert clustered.n_readers == 12
    assert clustered.n_cases is None
    assert clustered.overconfidence.standard_error > 1.5 * naive.standard_error
    # The ratio estimator's standard error, times √((C − 1) / C).
    sums = np.bincount(readers, p - y - np.mean(p - y))
    error = sqrt(np.square(sums).sum()) / len(p)
    assert clustered.overconfidence.standard_error == pytest.approx(error, rel=0.05)


def test_readers_and_cases_together_are_wider_than_either():
    random = rng(9)
    readers, cases = np.repeat(np.arange(10), 40), np.tile(np.arange(40), 10)
    shift = random.normal(0, 1, 10)[readers] + random.normal(0, 1, 40)[cases]
    y = random.random(400) < expit(shift)
    p = np.full(400, 0.6)
    errors = [
        overconfidence(p, y, rng=rng(), **sides).overconfidence.standard_error
        for sides in ({"readers": readers}, {"cases": cases}, {"readers": readers, "cases": cases})
    ]
    assert errors[2] > max(errors[:2])


def test_clustered_intervals_of_overconfidence_cover_and_naive_ones_do_not():
    covered = {"naive": [], "clustered": []}
    for seed in range(100):
        random = rng(seed)
        readers = np.repeat(np.arange(8), 40)
        y = random.random(320) < expit(random.normal(0, 1, 8)[readers])
        p = np.full(320, 0.5)
        one = overconfidence(p, y, rng=random, readers=readers, n_resamples=1000).overconfidence
        other = overconfidence(p, y, rng=random, n_resamples=200).overconfidence
        covered["clustered"].append(one.ci_low <= 0 <= one.ci_high)
        covered["naive"].append(other.ci_low <= 0 <= other.ci_high)
    assert np.mean(covered["clustered"]) > 0.88
    assert np.mean(covered["naive"]) < 0.75


def test_the_same_seed_gives_the_same_interval_whatever_the_readers_are_called():
    p, y, readers = readers_of_different_calibration()
    one = overconfidence(p, y, rng=rng(3), readers=readers)
    assert overconfidence(p, y, rng=rng(3), readers=[f"r{r}" for r in readers]) == one


def test_few_readers_and_readers_alike_are_not_estimable():
    found = overconfidence([0.8] * 6, [1, 0, 1, 0, 1, 0], rng=rng(), readers=[0, 0, 1, 1, 2, 2])
    assert found.overconfidence.reason == "3 readers are too few to resample; have at least 5"
    assert found.overconfidence.estimate == pytest.approx(0.3)
    alike = overconfidence([0.8] * 12, [1, 0] * 6, rng=rng(), readers=np.repeat(range(6), 2))
    assert alike.overconfidence.reason == "all resamples are alike, which is no sign of certainty"
    assert alike.overconfidence.estimate == pytest.approx(0.3)


# --- bad input --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "function",
    [
        brier_score,
        log_score,
        expected_calibration_error,
        reliability_diagram,
        calibration_line,
        lambda p, y, **options: overconfidence(p, y, rng=rng(), **options),
    ],
)
@pytest.mark.parametrize(
    ("p", "y", "words"),
    [
        ([], [], r"forecasts of shape \(0,\)"),
        ([[0.5, 0.5]], [1], r"forecasts of shape \(1, 2\)"),
        ([0.5, 1.2], [0, 1], r"forecast 2 is 1\.2; a probability is from 0 to 1"),
        ([0.5, np.nan], [0, 1], "forecast 2 is nan; a probability is from 0 to 1"),
        ([0.5, 0.6], [0, 2], "outcome 2 is 2; give 1 where it happened"),
        ([0.5, 0.6], [0, np.nan], "outcome 2 is nan"),
        ([0.5, 0.6], [0], r"outcomes of shape \(1,\) for 2 forecasts; give one for each"),
    ],
)
def test_what_is_no_forecast_is_refused_with_advice(function, p, y, words):
    with pytest.raises(CalibrationError, match=words):
        function(p, y)


@pytest.mark.parametrize(
    "function", [brier_score, log_score, reliability_diagram, calibration_line]
)
def test_clusters_and_levels_are_checked(function):
    with pytest.raises(CalibrationError, match="clusters has 1 entries for 2 judgements"):
        function([0.5, 0.6], [0, 1], clusters=["a"])
    with pytest.raises(CalibrationError, match="clusters of judgement 2 is missing"):
        function([0.5, 0.6], [0, 1], clusters=["a", None])
    with pytest.raises(CalibrationError, match=r"give a fraction such as 0\.95"):
        function([0.5, 0.6], [0, 1], confidence_level=95)


def test_other_refusals():
    with pytest.raises(CalibrationError, match="the bins are of 3 forecasts, not of these 2"):
        brier_score([0.5, 0.6], [0, 1], bins=distinct_bins([0.1, 0.2, 0.3]))
    with pytest.raises(CalibrationError, match=r"clip=0\.5; give a small probability"):
        log_score([0.5, 0.6], [0, 1], clip=0.5)
    with pytest.raises(CalibrationError, match="0 bins"):
        equal_width_bins([0.5], 0)
    with pytest.raises(CalibrationError, match="0 bins"):
        equal_mass_bins([0.5], 0)
    with pytest.raises(CalibrationError, match="n_resamples=10 says nothing about tails"):
        overconfidence([0.5, 0.6], [0, 1], rng=rng(), n_resamples=10)


def test_nothing_is_ever_nan_or_infinite():
    random = rng(0)
    for _ in range(200):
        n = int(random.integers(1, 12))
        p = random.choice([0.0, 0.1, 0.5, 0.9, 1.0], n)
        y = random.integers(0, 2, n)
        clusters = random.integers(0, 3, n) if random.random() < 0.5 else None
        line = calibration_line(p, y, clusters=clusters)
        clipped = calibration_line(p, y, clusters=clusters, clip=0.01)
        diagram = reliability_diagram(p, y, clusters=clusters)
        shown = [
            brier_score(p, y, clusters=clusters).score,
            log_score(p, y, clusters=clusters),
            overconfidence(p, y, rng=random, readers=clusters, n_resamples=200).overconfidence,
            *(getattr(one, name) for one in (line, clipped) for name in ("slope", "in_the_large")),
            *(one.frequency for one in diagram),
            *(one.clustered for one in diagram if one.clustered is not None),
        ]
        for one in shown:
            numbers = (one.estimate, one.ci_low, one.ci_high, one.standard_error)
            assert all(number is None or np.isfinite(number) for number in numbers)
            assert one.is_estimable == (one.reason is None)
