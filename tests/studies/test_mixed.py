import time
from math import isfinite, lgamma, pi, sqrt

import numpy as np
import pandas as pd
import pytest
from scipy.integrate import quad
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit
from scipy.stats import norm
from scipy.stats import t as student_t

from studies.clustered import ClusterError
from studies.mixed import crossed_logistic, random_intercept_logistic
from studies.mixed_likelihood import (
    MixedModelError,
    random_intercept_log_likelihood,
)
from tests.studies.results import every_number, limits

# Seeds germinated on 21 plates, Crowder (1978), Table 3, by seed type and root extract.
GERMINATED = [10, 23, 23, 26, 17, 5, 53, 55, 32, 46, 10, 8, 10, 8, 23, 0, 3, 22, 15, 32, 3]
SOWN = [39, 62, 81, 51, 39, 6, 74, 72, 51, 79, 13, 16, 30, 28, 45, 4, 12, 41, 30, 51, 7]
SEED = [0] * 11 + [1] * 10
EXTRACT = [0] * 5 + [1] * 6 + [0] * 5 + [1] * 5
# Contagious bovine pleuropneumonia, Lesnoff et al. (2004): new cases of animals, 15 herds in up to
# 4 periods. The example of lme4's glmer.
HERD = np.repeat(range(15), [4, 3, 4, 4, 4, 4, 4, 1, 4, 4, 4, 4, 4, 4, 4])
CASES = [2, 3, 4, 0, 3, 1, 1, 8, 2, 0, 2, 2, 0, 2, 0, 5, 0, 0, 1, 3, 0, 0, 1, 8, 1, 3, 0, 12]
CASES += [2, 0, 0, 0, 1, 1, 0, 2, 0, 5, 3, 1, 2, 1, 0, 0, 1, 2, 0, 0, 11, 0, 0, 0, 1, 1, 1, 0]
ANIMALS = [14, 12, 9, 5, 22, 18, 21, 22, 16, 16, 20, 10, 10, 9, 6, 18, 25, 24, 4, 17, 17, 18, 20]
ANIMALS += [16, 10, 9, 5, 34, 9, 6, 8, 6, 22, 22, 18, 22, 25, 27, 22, 22, 10, 8, 6, 5, 21, 24, 19]
ANIMALS += [23, 19, 2, 3, 2, 19, 15, 15, 15]
PERIOD = np.concatenate([np.arange(4)[: (herd == HERD).sum()] for herd in range(15)])


def spread_out(n_correct, n_trials, *columns):
    """Single answers, and the columns for each."""
    answers = [np.arange(n) < x for x, n in zip(n_correct, n_trials, strict=True)]
    return np.concatenate(answers).astype(int), *(np.repeat(c, n_trials) for c in columns)


def seeds(**options):
    right, plate, seed, extract = spread_out(GERMINATED, SOWN, range(21), SEED, EXTRACT)
    covariates = pd.DataFrame({"seed": seed, "extract": extract, "both": seed * extract})
    return random_intercept_logistic(right, plate, covariates=covariates, **options)


def cbpp(**options):
    right, herd, period = spread_out(CASES, ANIMALS, HERD, PERIOD)
    covariates = pd.DataFrame({f"period {i + 1}": (period == i) * 1.0 for i in (1, 2, 3)})
    return random_intercept_logistic(right, herd, covariates=covariates, **options)


def readers_answers(rng, n_readers, n_trials, logit_mean=0.5, sd=0.7):
    ease = logit_mean + sd * rng.normal(size=(n_readers, 1))
    right = rng.random((n_readers, n_trials)) < expit(ease)
    return right.ravel().astype(int), np.repeat(np.arange(n_readers), n_trials)


def crossed_answers(rng, n_readers, n_cases, logit_mean=0.5, sd_readers=0.5, sd_cases=0.8):
    readers, cases = (index.ravel() for index in np.indices((n_readers, n_cases)))
    ease = logit_mean + sd_readers * rng.normal(size=n_readers)[readers]
    right = rng.random(len(ease)) < expit(ease + sd_cases * rng.normal(size=n_cases)[cases])
    return right.astype(int), readers, cases


def logits(fit):
    return [estimate.estimate for _, estimate in fit.coefficients]


def errors(fit):
    return [estimate.standard_error for _, estimate in fit.coefficients]


def binomial_coefficients():
    return sum(
        lgamma(n + 1) - lgamma(x + 1) - lgamma(n - x + 1)
        for x, n in zip(CASES, ANIMALS, strict=True)
    )


def test_the_seeds_are_fitted_as_published():
    # Maximum likelihood by EGRET, as Breslow & Clayton (1993) and the BUGS manual print it (from
    # memory), and by data cloning with 256 copies in the MultiBUGS examples (-0.5485, 0.09685,
    # 1.337, -0.8105, sigma 0.2364, with Monte Carlo error in the 4th digit).
    fit = seeds()
    assert logits(fit) == pytest.approx([-0.5485, 0.09685, 1.337, -0.8105], abs=5e-4)
    assert errors(fit) == pytest.approx([0.167, 0.278, 0.237, 0.385], abs=5e-4)
    (plates,) = fit.components
    assert plates.sd.estimate == pytest.approx(0.236, abs=5e-4)
    assert plates.sd.standard_error == pytest.approx(0.110, abs=5e-4)


def test_laplace_on_the_herds_agrees_with_other_software():
    fit = cbpp(n_nodes=1)
    # glmmML, as lme4's own tests quote it (tests/glmer-1.R), converged to about 6 digits.
    glmm_ml = [-1.39853234657711, -0.992336901732793, -1.12867036466201, -1.58030977686564]
    assert logits(fit) == pytest.approx(glmm_ml, abs=5e-6)
    # MixedModels.jl, test/pirls.jl.
    with_coefficients = fit.log_likelihood + binomial_coefficients()
    assert with_coefficients == pytest.approx(-92.02628186840045, abs=1e-7)
    # lme4 1.1 stops short of the maximum, by 0.0006 in deviance: theta 0.642070.
    assert fit.components[0].sd.estimate == pytest.approx(0.642070, abs=3e-4)


def test_quadrature_on_the_herds_agrees_with_lme4():
    # lme4 with nAGQ = 25 (tests/glmer-1.R), which it compares to 5e-4.
    lme4 = [-1.39922533406847, -0.991407294757321, -1.12782184600404, -1.57946627431248]
    assert logits(cbpp(n_nodes=25)) == pytest.approx(lme4, rel=2e-5)


def test_the_fit_is_where_the_likelihood_is_highest():
    right, readers = readers_answers(np.random.default_rng(2), 12, 30)
    fit = random_intercept_logistic(right, readers)
    (intercept,), sd = logits(fit), fit.components[0].sd.estimate
    best = fit.log_likelihood
    for b, s in ((1e-3, 0), (-1e-3, 0), (0, 1e-3), (0, -1e-3)):
        other = random_intercept_log_likelihood(
            right, readers, coefficients=[intercept + b], sd=sd + s
        )
        assert best - 1e-3 < other < best


def test_simulated_parameters_are_recovered():
    right, readers = readers_answers(np.random.default_rng(3), 300, 40, 0.5, 0.7)
    fit = random_intercept_logistic(right, readers)
    (intercept,), (readers_sd,) = fit.coefficients, fit.components
    assert abs(intercept[1].estimate - 0.5) < 3 * intercept[1].standard_error
    assert abs(readers_sd.sd.estimate - 0.7) < 3 * readers_sd.sd.standard_error
    assert readers_sd.sd.ci_low < 0.7 < readers_sd.sd.ci_high
    assert readers_sd.sd.ci_high - readers_sd.sd.ci_low < 0.2
    assert fit.conditional.ci_low < expit(0.5) < fit.conditional.ci_high
    averaged = quad(lambda u: expit(0.5 + 0.7 * u) * norm.pdf(u), -9, 9)[0]
    assert fit.population_averaged.ci_low < averaged < fit.population_averaged.ci_high
    assert readers_sd.p_value < 1e-20


def test_simulated_covariates_are_recovered_whatever_their_scale():
    rng = np.random.default_rng(4)
    readers = np.repeat(np.arange(60), 80)
    kind, trial = rng.integers(0, 2, 4800), np.tile(np.arange(80), 60)
    ease = 0.3 + 0.8 * kind + 0.01 * trial + 0.6 * rng.normal(size=60)[readers]
    right = rng.random(4800) < expit(ease)
    frame = pd.DataFrame({"kind": kind, "trial": trial})
    fit = random_intercept_logistic(right, readers, covariates=frame, n_nodes=7)
    for (name, found), truth in zip(fit.coefficients, (0.3, 0.8, 0.01), strict=True):
        assert abs(found.estimate - truth) < 3 * found.standard_error, name
    far = frame.assign(trial=1e6 + 1e3 * trial)
    other = random_intercept_logistic(right, readers, covariates=far, n_nodes=7)
    assert other.log_likelihood == pytest.approx(fit.log_likelihood, abs=1e-6)
    assert 1e3 * logits(other)[2] == pytest.approx(logits(fit)[2], rel=1e-4)
    assert limits(other.population_averaged) == pytest.approx(
        limits(fit.population_averaged), abs=1e-5
    )


def test_twenty_readers_and_three_hundred_cases_are_recovered_in_seconds():
    right, readers, cases = crossed_answers(np.random.default_rng(5), 20, 300)
    start = time.process_time()
    fit = crossed_logistic(right, readers, cases)
    assert time.process_time() - start < 8
    of_readers, of_cases = fit.components
    assert (of_readers.name, of_cases.name) == ("reader", "case")
    assert of_readers.sd.ci_low < 0.5 < of_readers.sd.ci_high
    assert of_cases.sd.ci_low < 0.8 < of_cases.sd.ci_high
    assert fit.conditional.ci_low < expit(0.5) < fit.conditional.ci_high
    averaged = quad(lambda u: expit(0.5 + sqrt(0.89) * u) * norm.pdf(u), -9, 9)[0]
    assert fit.population_averaged.ci_low < averaged < fit.population_averaged.ci_high


def test_crossed_effects_are_wider_than_readers_alone_and_those_than_neither():
    right, readers, cases = crossed_answers(np.random.default_rng(6), 12, 60, sd_cases=1.0)
    both = crossed_logistic(right, readers, cases).population_averaged.standard_error
    one = random_intercept_logistic(right, readers).population_averaged.standard_error
    neither = sqrt(right.mean() * (1 - right.mean()) / len(right))
    assert both > one > neither


# Counts alike in every cluster are less spread than chance would have them.
ALIKE = ([13] * 8, [20] * 8)


def test_a_variance_at_zero_is_said_and_has_an_upper_bound():
    fit = random_intercept_logistic(*spread_out(*ALIKE, range(8)))
    (component,) = fit.components
    assert component.is_zero
    assert (component.sd.estimate, component.sd.ci_low, component.p_value) == (0, 0, 1)
    assert 0 < component.sd.ci_high < 1
    assert "variance at zero" in component.sd.method
    assert any("estimated at zero, the edge of what is possible" in c for c in fit.cautions)
    assert all(isfinite(number) for number in every_number(fit))
    assert fit.population_averaged.estimate == pytest.approx(13 / 20, abs=1e-8)
    assert fit.population_averaged.estimate == fit.conditional.estimate


def test_a_variance_at_zero_leaves_plain_logistic_regression():
    genmod = pytest.importorskip(
        "statsmodels.genmod.generalized_linear_model", reason="compared with it"
    )
    families = pytest.importorskip("statsmodels.genmod.families", reason="compared with it")
    right, clusters, kind = spread_out([13, 9] * 8, [20, 20] * 8, np.arange(16) // 2, [0, 1] * 8)
    fit = random_intercept_logistic(right, clusters, covariates=pd.DataFrame({"kind": kind}))
    assert fit.components[0].is_zero
    design = np.column_stack([np.ones(len(kind)), kind])
    plain = genmod.GLM(right, design, family=families.Binomial()).fit(tol=1e-12)
    assert logits(fit) == pytest.approx(plain.params, abs=1e-7)
    assert errors(fit) == pytest.approx(plain.bse, rel=1e-6)
    assert fit.log_likelihood == pytest.approx(plain.llf, abs=1e-9)
    assert any("the interval takes it as known" in caution for caution in fit.cautions)


def test_crossed_variances_at_zero_are_said():
    # Equally good readers, never wrong together.
    table = np.arange(24) // 2 != np.arange(12)[:, None]
    readers, cases = (index.ravel() for index in np.indices(table.shape))
    fit = crossed_logistic(table.ravel(), readers, cases)
    assert [component.is_zero for component in fit.components] == [True, True]
    assert all(component.sd.ci_high > 0 for component in fit.components)
    assert len(fit.cautions) == 2
    assert all(isfinite(number) for number in every_number(fit))


def test_the_test_of_zero_variance_is_half_a_chi_square():
    right, readers = readers_answers(np.random.default_rng(7), 10, 25, sd=0.45)
    fit = random_intercept_logistic(right, readers)
    without = random_intercept_log_likelihood(
        right, readers, coefficients=[logit(right.mean())], sd=0
    )
    expected = norm.sf(sqrt(2 * (fit.log_likelihood - without)))
    assert fit.components[0].p_value == pytest.approx(expected, rel=1e-5)


def test_profile_limits_are_where_the_likelihood_has_fallen_by_half_the_squared_quantile():
    right, readers = readers_answers(np.random.default_rng(8), 9, 30)
    fit = random_intercept_logistic(right, readers)

    def likelihood(intercept, sd):
        return random_intercept_log_likelihood(right, readers, coefficients=[intercept], sd=abs(sd))

    def highest(loss):
        return -minimize_scalar(loss, bounds=(0, 4), method="bounded", options={"xatol": 1e-9}).fun

    t = student_t.ppf(0.975, 8)
    for limit in limits(fit.conditional):
        found = highest(lambda sd, limit=limit: -likelihood(logit(limit), sd))
        assert fit.log_likelihood - found == pytest.approx(t**2 / 2, abs=1e-4)
    for limit in limits(fit.components[0].sd):
        found = -minimize_scalar(lambda b, sd=limit: -likelihood(b, sd), bracket=(0, 1)).fun
        assert fit.log_likelihood - found == pytest.approx(norm.ppf(0.975) ** 2 / 2, abs=1e-4)
    for limit in limits(fit.population_averaged):
        # Along the curve on which the average over readers is the limit.
        def loss(sd, limit=limit):
            grid = np.linspace(-8, 8, 4001)
            weights = norm.pdf(grid) / norm.pdf(grid).sum()
            low, high = -10.0, 10.0
            for _ in range(50):
                middle = (low + high) / 2
                above = weights @ expit(middle + sd * grid) > limit
                low, high = (low, middle) if above else (middle, high)
            return -likelihood(low, sd)

        assert fit.log_likelihood - highest(loss) == pytest.approx(t**2 / 2, abs=1e-3)


@pytest.mark.slow
def test_profile_intervals_of_an_average_cover():
    rng, covered, n_studies = np.random.default_rng(9), 0, 200
    truth = quad(lambda u: expit(0.3 + 0.5 * u) * norm.pdf(u), -9, 9)[0]
    for _ in range(n_studies):
        right, readers = readers_answers(rng, 8, 30, 0.3, 0.5)
        interval = random_intercept_logistic(right, readers, n_nodes=5).population_averaged
        covered += interval.ci_low <= truth <= interval.ci_high
    assert 0.92 <= covered / n_studies <= 0.985


def test_the_average_over_readers_is_nearer_to_chance_than_the_median_reader():
    right, readers = readers_answers(np.random.default_rng(10), 20, 60, 1.2, 1.0)
    fit = random_intercept_logistic(right, readers)
    assert 0.5 < fit.population_averaged.estimate < fit.conditional.estimate
    wrong = random_intercept_logistic(1 - right, readers)
    assert wrong.population_averaged.estimate == pytest.approx(
        1 - fit.population_averaged.estimate, abs=1e-7
    )
    low, high = limits(fit.population_averaged)
    assert limits(wrong.population_averaged) == pytest.approx((1 - high, 1 - low), abs=1e-5)


def test_the_share_of_the_variance_is_on_the_latent_scale():
    fit = seeds()
    variance = fit.components[0].sd.estimate ** 2
    assert fit.components[0].share == pytest.approx(variance / (variance + pi**2 / 3))


def test_shuffling_and_relabelling_change_nothing():
    rng = np.random.default_rng(11)
    right, readers, cases = crossed_answers(rng, 6, 25)
    order, names = rng.permutation(len(right)), rng.permutation(list("abcdef"))
    shuffled = right[order], names[readers][order], 100 - cases[order]
    one = random_intercept_logistic(right, readers)
    other = random_intercept_logistic(*shuffled[:2])
    for name in ("population_averaged", "conditional"):
        assert limits(getattr(one, name)) == pytest.approx(limits(getattr(other, name)), abs=1e-7)
    one, other = crossed_logistic(right, readers, cases), crossed_logistic(*shuffled)
    assert limits(one.population_averaged) == pytest.approx(
        limits(other.population_averaged), abs=1e-6
    )


def test_readers_and_cases_can_change_places():
    right, readers, cases = crossed_answers(np.random.default_rng(12), 8, 20)
    one, other = crossed_logistic(right, readers, cases), crossed_logistic(right, cases, readers)
    assert one.log_likelihood == pytest.approx(other.log_likelihood, abs=1e-7)
    sds = [component.sd.estimate for component in one.components]
    assert [c.sd.estimate for c in other.components][::-1] == pytest.approx(sds, abs=1e-4)


def test_missing_cells_are_left_out():
    rng = np.random.default_rng(13)
    right, readers, cases = crossed_answers(rng, 12, 60)
    keep = rng.random(len(right)) < 0.6
    fit = crossed_logistic(right[keep], readers[keep], cases[keep])
    assert fit.n_trials == keep.sum()
    assert fit.population_averaged.is_estimable


def test_a_reader_with_a_single_trial_changes_little():
    right, readers = readers_answers(np.random.default_rng(14), 8, 30)
    fit = random_intercept_logistic(right, readers)
    more = random_intercept_logistic([*right, 1], [*readers, 99])
    assert more.population_averaged.estimate == pytest.approx(
        fit.population_averaged.estimate, abs=0.02
    )
    assert all(isfinite(number) for number in every_number(more))


EIGHT = np.repeat(np.arange(8), 10)
HALF = np.tile([1, 0], 40)
NO_FIT = [
    (np.ones(80), EIGHT, None, "all answers are right"),
    (np.zeros(80), EIGHT, None, "all answers are wrong"),
    ([1], ["a"], None, "all answers are right"),
    (HALF, np.zeros(80), None, "1 cluster says nothing about others"),
    (HALF, np.arange(80), None, "0 of 80 clusters has more than one trial"),
    (HALF, [0, *range(79)], None, "1 of 79 clusters has more than one trial"),
    (EIGHT % 2, EIGHT, None, "every cluster is all right or all wrong"),
    ([1 - EIGHT[0] % 2, *(EIGHT[1:] % 2)], EIGHT, None, "their spread has no bound"),
    (HALF, EIGHT, {"x": 2.0 * HALF - 7}, "so a coefficient is infinite"),
    (HALF, EIGHT, {"x": np.r_[1, np.zeros(79)]}, "so a coefficient is infinite"),
]


@pytest.mark.parametrize(("right", "clusters", "covariates", "reason"), NO_FIT)
def test_what_has_no_fit_says_why(right, clusters, covariates, reason):
    frame = None if covariates is None else pd.DataFrame(covariates)
    fit = random_intercept_logistic(right, clusters, covariates=frame)
    assert reason in fit.population_averaged.reason
    assert reason in fit.conditional.reason
    assert not fit.population_averaged.is_estimable
    assert fit.population_averaged.estimate == np.mean(right)
    assert (fit.coefficients, fit.components, fit.log_likelihood) == ((), (), None)
    assert all(isfinite(number) for number in every_number(fit))


def test_crossed_tables_that_have_no_fit_say_why():
    right, readers, cases = crossed_answers(np.random.default_rng(15), 8, 30)
    for answers, of_readers, of_cases, reason in (
        (np.ones(240), readers, cases, "all answers are right"),
        (right, np.zeros(240), cases, "1 reader says nothing about others"),
        (right, readers, np.zeros(240), "1 case says nothing about others"),
        (right, readers, np.arange(240), "0 of 240 cases has more than one trial"),
        (cases % 2, readers, cases, "every case is all right or all wrong"),
    ):
        fit = crossed_logistic(answers, of_readers, of_cases)
        assert reason in fit.population_averaged.reason
        assert fit.population_averaged.estimate == np.mean(answers)


def test_few_readers_have_a_fit_but_no_interval_for_others():
    right, readers = readers_answers(np.random.default_rng(16), 4, 60)
    fit = random_intercept_logistic(right, readers)
    assert fit.population_averaged.estimate == pytest.approx(right.mean(), abs=0.05)
    assert not fit.population_averaged.is_estimable
    advice = "4 clusters are too few to tell how much others differ; have at least 5, or treat"
    assert advice in fit.population_averaged.reason
    assert advice in fit.coefficients[0][1].reason


def test_a_dominant_reader_and_few_readers_come_with_cautions():
    right, readers = readers_answers(np.random.default_rng(17), 6, 20)
    more = np.r_[right, np.tile([1, 0, 1], 1000)], np.r_[readers, np.full(3000, 9)]
    dominant, few, *_ = random_intercept_logistic(*more).cautions
    assert "One cluster holds 96% of all trials" in dominant
    assert "With 7 clusters (fewer than 10)" in few


REFUSALS = [
    (lambda: random_intercept_logistic([1, 2], [1, 1]), ClusterError, "judgement 2 is 2"),
    (lambda: random_intercept_logistic([1, 0], [1]), ClusterError, "clusters has 1 entries for 2"),
    (
        lambda: crossed_logistic([1, 0], ["a", None], [1, 2]),
        ClusterError,
        "readers of judgement 2 is missing; say whose judgement it is",
    ),
    (lambda: crossed_logistic([1, 0], [1, 2], [1]), ClusterError, "cases has 1 entries for 2"),
    (
        lambda: random_intercept_logistic([1, 0], [1, 2], n_nodes=0),
        MixedModelError,
        "n_nodes=0; give 1 to 100, such as 25",
    ),
    (
        lambda: random_intercept_logistic([1, 0], [1, 2], confidence_level=95),
        ClusterError,
        r"give a fraction such as 0\.95",
    ),
    (
        lambda: random_intercept_logistic(
            [1, 0, 1], [1, 2, 3], covariates=pd.DataFrame({"age": [30, 30, 30]})
        ),
        ClusterError,
        "covariate age is constant",
    ),
    (
        lambda: random_intercept_log_likelihood([1, 0], [1, 2], coefficients=[1, 2], sd=1),
        MixedModelError,
        "2 coefficients for intercept; give one for each",
    ),
    (
        lambda: crossed_logistic(
            np.arange(16_000) % 2, np.arange(16_000) // 2, np.arange(16_000) % 8_000
        ),
        MixedModelError,
        "more than 50,000,000 cells; draw a sample of the cases",
    ),
]


@pytest.mark.parametrize(("call", "error", "words"), REFUSALS)
def test_bad_input_is_refused_with_advice(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_a_barely_positive_spread_has_a_profile_interval_and_no_absurd_one():
    # Wald on the logarithm would end beyond any deviation that a reader can have.
    right, readers, cases = crossed_answers(
        np.random.default_rng(24), 12, 40, sd_readers=0.0, sd_cases=0.4
    )
    fit = crossed_logistic(right, readers, cases)
    for component in fit.components:
        assert component.sd.ci_low <= component.sd.estimate < component.sd.ci_high < 2
    of_readers, _ = fit.components
    assert of_readers.sd.standard_error is None or (
        of_readers.sd.standard_error > of_readers.sd.estimate / 2
    )
    assert "profile likelihood" in of_readers.sd.method
