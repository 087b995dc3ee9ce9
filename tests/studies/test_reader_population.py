import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from studies.reader_population import reader_population
from tests.studies.results import limits

# Risk ratios of 13 tuberculosis trials: ill and not, vaccinated and not. metafor's `dat.bcg`.
BCG = np.array(
    [
        (4, 119, 11, 128),
        (6, 300, 29, 274),
        (3, 228, 11, 209),
        (62, 13536, 248, 12619),
        (33, 5036, 47, 5761),
        (180, 1361, 372, 1079),
        (8, 2537, 10, 619),
        (505, 87886, 499, 87892),
        (29, 7470, 45, 7232),
        (17, 1699, 65, 1600),
        (186, 50448, 141, 27197),
        (5, 2493, 3, 2338),
        (27, 16886, 29, 17825),
    ],
    dtype=float,
)


def log_risk_ratios():
    a, b, c, d = BCG.T
    return np.log(a / (a + b) * (c + d) / c), np.sqrt(1 / a - 1 / (a + b) + 1 / c - 1 / (c + d))


def test_reml_hartung_knapp_and_q_profile_match_metafor():
    # rma(yi, vi, data = dat.bcg, test = "knha") and confint() of it.
    found = reader_population(*log_risk_ratios())
    assert found.mean.estimate == pytest.approx(-0.7145, abs=5e-5)
    assert found.mean.standard_error == pytest.approx(0.1808, abs=5e-5)
    assert limits(found.mean) == pytest.approx((-1.1084, -0.3206), abs=5e-5)
    assert found.mean.df == pytest.approx(12)
    spread = found.between_reader_sd
    assert spread.estimate**2 == pytest.approx(0.3132, abs=5e-5)
    assert (spread.ci_low**2, spread.ci_high**2) == pytest.approx((0.1197, 1.1115), abs=5e-5)
    assert found.note is None


def test_reml_is_where_the_restricted_likelihood_is_highest():
    y, errors = log_risk_ratios()

    def minus_restricted(tau2):
        w = 1 / (errors**2 + tau2)
        mean = (w * y).sum() / w.sum()
        return (np.log(1 / w).sum() + np.log(w.sum()) + (w * (y - mean) ** 2).sum()) / 2

    found = reader_population(y, errors).between_reader_sd.estimate ** 2
    best = minimize_scalar(minus_restricted, bounds=(0, 2), method="bounded").x
    assert found == pytest.approx(best, abs=1e-5)


def test_statsmodels_agrees_where_readers_are_equally_precise():
    # Then REML is Paule–Mandel, and Hartung and Knapp's factor is 1.
    meta = pytest.importorskip(
        "statsmodels.stats.meta_analysis", reason="compares with statsmodels"
    )
    y, error = np.array([0.2, 0.9, 0.4, 1.3, 0.1, 0.7]), 0.2
    theirs = meta.combine_effects(y, np.full(6, error**2), method_re="iterated", use_t=True)
    ours = reader_population(y, np.full(6, error))
    assert ours.between_reader_sd.estimate**2 == pytest.approx(theirs.tau2, rel=1e-4)
    assert ours.mean.estimate == pytest.approx(theirs.mean_effect_re)
    assert ours.mean.standard_error == pytest.approx(theirs.sd_eff_w_re_hksj, rel=1e-4)


def test_readers_are_drawn_to_the_mean_the_more_the_less_they_judged():
    y, errors = np.array([1.6, 1.6, 0.2, 0.4, 0.3]), np.array([0.6, 0.2, 0.3, 0.3, 0.3])
    found = reader_population(y, errors)
    mean = found.mean.estimate
    values = np.array([reader.estimate for reader in found.readers])
    drawn = 1 - (values - mean) / (y - mean)
    tau2 = found.between_reader_sd.estimate**2
    assert drawn == pytest.approx(errors**2 / (errors**2 + tau2))
    assert drawn[0] > drawn[1]


def test_no_variance_between_readers_is_said_and_is_no_point():
    found = reader_population([0.50, 0.52, 0.47, 0.55], [0.3, 0.3, 0.25, 0.3])
    assert found.between_reader_sd.estimate == 0
    assert "no variance of d′ between readers was found beyond the counting error" in found.note
    assert "does not show that readers are alike" in found.note
    for reader in found.readers:
        assert reader.estimate == pytest.approx(found.mean.estimate)
        assert reader.ci_high - reader.ci_low > 0.3
    # The scale factor is not allowed below 1: alike readers do not make the mean more exact.
    errors = np.array([0.3, 0.3, 0.25, 0.3])
    assert found.mean.standard_error == pytest.approx((1 / errors**2).sum() ** -0.5)


def test_readers_more_alike_than_chance_have_no_interval_for_their_spread():
    found = reader_population([0.5] * 6, [0.3] * 6).between_reader_sd
    assert found.estimate == 0
    assert found.reason == "readers differ even less than counting error alone would make them"


def test_one_reader_says_nothing_about_others():
    found = reader_population([1.2], [0.3])
    assert found.mean.reason == "1 reader says nothing about other readers"
    assert (found.mean.estimate, found.mean.ci_low) == (1.2, None)
    assert not found.between_reader_sd.is_estimable
    assert not found.new_reader.is_estimable
    assert found.readers[0].is_estimable


def test_a_covariance_without_covariances_changes_nothing():
    y, errors = log_risk_ratios()
    one, other = reader_population(y, errors), reader_population(y, np.diag(errors**2))
    assert other.mean.estimate == pytest.approx(one.mean.estimate)
    assert limits(other.mean) == pytest.approx(limits(one.mean))
    assert other.readers[3].ci_low == pytest.approx(one.readers[3].ci_low)


def test_equally_precise_readers_have_the_variance_and_df_of_obuchowski_rockette_and_hillis():
    y, error, covariance = np.array([0.1, 0.9, 0.5, 1.4, 0.6]), 0.2, 0.015
    s = np.full((5, 5), covariance) + (error**2 - covariance) * np.eye(5)
    found = reader_population(y, s).mean
    ms = y.var(ddof=1)
    assert found.standard_error**2 == pytest.approx(ms / 5 + covariance, rel=1e-6)
    assert found.df == pytest.approx((ms + 5 * covariance) ** 2 / (ms**2 / 4), rel=1e-6)


def test_the_order_of_readers_does_not_matter():
    rng = np.random.default_rng(1)
    for _ in range(20):
        n = int(rng.integers(2, 8))
        y, errors = rng.normal(0.6, 0.5, n), rng.uniform(0.1, 0.4, n)
        order = rng.permutation(n)
        one, other = reader_population(y, errors), reader_population(y[order], errors[order])
        assert limits(other.mean) == pytest.approx(limits(one.mean))
        assert other.readers[0].estimate == pytest.approx(one.readers[order[0]].estimate)
