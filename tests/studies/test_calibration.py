from math import sqrt

import numpy as np
import pytest
from scipy.special import expit, logit

from studies.calibration import (
    calibration_line,
    expected_calibration_error,
    overconfidence,
    reliability_diagram,
)
from studies.clustered import rao_scott_wilson
from studies.forecasts import (
    CalibrationError,
    confidence_points,
    distinct_bins,
    equal_mass_bins,
    equal_width_bins,
    forecasts_of_chosen,
    forecasts_of_generated,
)
from studies.proper_scores import brier_score, log_score
from studies.proportions import wilson
from tests.studies.results import limits

# torchmetrics' documentation example; statistics_cases.md H3.
H3 = ([0.25, 0.25, 0.55, 0.75, 0.75], [0, 0, 1, 1, 1])


def rng(seed=0):
    return np.random.default_rng(seed)


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
