import time

import numpy as np
import pytest
from scipy.integrate import simpson
from scipy.stats import betabinom, binom, norm

from studies.discriminability import (
    threshold_difference,
)
from studies.psychometric import fit, plot_data, posterior_samples, threshold_at
from studies.psychometric_model import (
    SMALLEST_ETA,
    PsychometricError,
    model_of,
    proportion_correct_at,
)
from studies.psychometric_posterior import _axes
from tests.studies.results import limits

TEN_LEVELS = 0.25 + np.arange(10) / 6
TEN_TRIALS = [10] * 10
G1_LEVELS = [
    0.001, 0.0015, 0.002, 0.0025, 0.003, 0.0035, 0.004, 0.0045, 0.005, 0.006, 0.007, 0.008, 0.01
]  # fmt: skip
G1_CORRECT = [45, 50, 44, 44, 52, 53, 62, 64, 76, 79, 88, 90, 90]
G1_TRIALS = [90] * 13
# The MATLAB toolbox's modes, in psignifit's tests (wichmann-lab/python-psignifit,
# tests/test_psignifit.py), with the tolerances given there.
MATLAB = {
    "G1": (
        (G1_LEVELS, G1_CORRECT, G1_TRIALS), "normal", 0.5,
        {"threshold": 0.0046448472, "width": 0.0046838374, "lambda": 1.0676e-7, "gamma": 0.5,
         "eta": 1.1599e-4}, 1e-4, 1e-4,
    ),
    "G2": (
        (TEN_LEVELS, [4, 6, 3, 8, 7, 5, 8, 9, 9, 10], TEN_TRIALS), "normal", 0.5,
        {"threshold": 1.19233664, "width": 1.13590185, "lambda": 0, "gamma": 0.5, "eta": 0},
        1e-2, 1e-3,
    ),
    "G3": (
        (TEN_LEVELS, [0, 2, 2, 3, 7, 7, 8, 8, 9, 10], TEN_TRIALS), "normal", "free",
        {"threshold": 0.897273717, "width": 1.43410261, "lambda": 0, "gamma": 0, "eta": 0},
        1e-2, 1e-3,
    ),
    "G4": (
        (TEN_LEVELS, [5, 5, 5, 6, 5, 7, 9, 9, 8, 10], TEN_TRIALS), "logistic", 0.5,
        {"threshold": 1.18954146, "width": 1.34590649, "lambda": 0, "gamma": 0.5, "eta": 0},
        1e-2, 1e-3,
    ),
    "G5": (
        (TEN_LEVELS, [1, 1, 4, 6, 5, 6, 7, 9, 7, 10], TEN_TRIALS), "logistic", "free",
        {"threshold": 0.879924438, "width": 2.05631136, "lambda": 0, "gamma": 0, "eta": 0},
        1e-2, 1e-3,
    ),
}  # fmt: skip
SIGMOIDS = ("normal", "logistic", "gumbel", "rgumbel", "cauchy")


@pytest.fixture(scope="module")
def g1():
    return fit(*MATLAB["G1"][0], guess_rate=0.5)


@pytest.fixture(scope="module")
def g3():
    return fit(*MATLAB["G3"][0], guess_rate="free")


@pytest.mark.parametrize("case", MATLAB)
def test_the_mode_is_that_of_the_matlab_toolbox(case):
    data, sigmoid, guess_rate, expected, rtol, atol = MATLAB[case]
    found = fit(*data, sigmoid=sigmoid, guess_rate=guess_rate).maximum
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=rtol, abs=atol), name


def test_means_of_threshold_and_width_are_those_of_psignifit(g1):
    # Printed by psignifit 4.3 (statistics_cases.md, G1), to one per cent.
    assert g1.mean["threshold"] == pytest.approx(0.004624, rel=1e-2)
    assert g1.mean["width"] == pytest.approx(0.004698, rel=1e-2)


def test_intervals_are_those_of_psignifit_but_for_half_a_step_of_its_grid(g1):
    # psignifit 4.3 interpolates the cumulated mass at the nodes, where half of the node's own
    # cell still lies above: its limits (statistics_cases.md, G1) are low by half a step.
    half_step = (0.005810345 - 0.003327586) / 39 / 2, (0.008653846 - 0.002538462) / 39 / 2
    expected = (0.004251 + half_step[0], 0.004932 + half_step[0])
    assert limits(g1.threshold) == pytest.approx(expected, rel=2e-3)
    expected = (0.003464 + half_step[1], 0.005959 + half_step[1])
    assert limits(g1.width) == pytest.approx(expected, rel=1e-2)


def test_psignifits_mean_lapse_rate_is_that_of_its_twenty_coarse_steps(g1):
    # It prints 0.005303. Its grid of 20 even steps to 1/9 is as coarse as the rate is small; the
    # trapezoidal rule on those nodes gives its mean from our density too.
    marginal = g1.marginals["lambda"]
    nodes = np.linspace(0, 1 / 9, 20)
    mass = np.interp(nodes, marginal.values, marginal.density, right=0.0)
    mass[[0, -1]] /= 2
    assert mass @ nodes / mass.sum() == pytest.approx(0.005303, rel=0.02)
    assert g1.mean["lambda"] == pytest.approx(0.00611, rel=5e-3)


def test_three_mixed_observers_have_the_mode_and_means_of_psignifits_notebook():
    # psignifit's tests/test_param_recovery.py, test_mean_vs_map_estimate: 60 blocks of 3 trials,
    # expected values "computed independently in a notebook".
    levels = np.linspace(0.001, 11.001, 20)
    curves = [
        proportion_correct_at(levels, threshold=5.5005, width=w, guess_rate=0.1, lapse_rate=0.0232)
        for w in (1.1, 3.1, 6.3)
    ]
    n_trials = np.full(60, 3)
    n_correct = np.random.RandomState(883).binomial(n_trials, np.concatenate(curves))
    found = fit(np.tile(levels, 3), n_correct, n_trials, guess_rate=0.1, lapse_rate=0.0232)
    assert found.maximum["threshold"] == pytest.approx(5.459454390045572, rel=1e-5)
    assert found.maximum["width"] == pytest.approx(3.679911898980962, rel=1e-5)
    assert found.mean["threshold"] == pytest.approx(5.429846600944022, rel=1e-4)
    assert found.mean["width"] == pytest.approx(4.027280086833293, rel=1e-3)
    assert found.mean["eta"] == pytest.approx(0.07274831038039509, rel=2e-2)


@pytest.mark.parametrize(
    "case", ["G1", *(pytest.param(g, marks=pytest.mark.slow) for g in ("G2", "G3", "G4", "G5"))]
)
def test_both_engines_agree(case):
    pytest.importorskip("psignifit", reason="psignifit is an optional extra (GPL)")
    data, sigmoid, guess_rate, *_ = MATLAB[case]
    own, other = (
        fit(*data, sigmoid=sigmoid, guess_rate=guess_rate, engine=engine)
        for engine in ("own", "psignifit")
    )
    assert "psignifit)" in other.method
    for name in ("threshold", "width", "threshold_unscaled"):
        assert own.maximum[name] == pytest.approx(other.maximum[name], rel=1e-2), name
        ours, theirs = getattr(own, name), getattr(other, name)
        assert ours.estimate == pytest.approx(theirs.estimate, rel=1e-2), name
        # psignifit cuts cells of mass below 1e-5 off, and with them a little of the tails.
        tolerance = 0.05 * theirs.standard_error
        assert limits(ours) == pytest.approx(limits(theirs), abs=2 * tolerance), name
        assert ours.standard_error == pytest.approx(theirs.standard_error, rel=3e-2), name
    for name in ("lapse_rate", "eta"):
        ours, theirs = getattr(own, name), getattr(other, name)
        assert ours.ci_high == pytest.approx(theirs.ci_high, rel=3e-2), name


def test_auto_is_psignifit_where_it_is_installed_and_own_elsewhere(monkeypatch):
    monkeypatch.setattr("studies.psychometric_posterior.find_spec", lambda name: None)
    found = fit(*MATLAB["G2"][0], guess_rate=0.5, engine="auto")
    assert "grid posterior" in found.method
    with pytest.raises(PsychometricError, match="install the extra `psychometrics`, or use engine"):
        fit(*MATLAB["G2"][0], guess_rate=0.5, engine="psignifit")


def test_the_likelihood_is_the_beta_binomial_of_scipy(g3):
    rng = np.random.default_rng(5)
    model = g3.posterior.model
    at = {
        "eta": rng.uniform(1e-3, 0.9, 200),
        "gamma": rng.uniform(0, 0.5, 200),
        "lambda": rng.uniform(0, 0.5, 200),
        "threshold": rng.uniform(-0.4, 2.4, 200),
        "width": rng.uniform(0.2, 4.4, 200),
    }
    z = (TEN_LEVELS[:, None] - at["threshold"]) / at["width"] * 2 * norm.ppf(0.95)
    psi = at["gamma"] + (1 - at["gamma"] - at["lambda"]) * norm.cdf(z)
    precision = 1 / at["eta"] ** 2 - 1
    n_correct = np.array(MATLAB["G3"][0][1])[:, None]
    expected = betabinom.logpmf(n_correct, 10, psi * precision, (1 - psi) * precision).sum(axis=0)
    found = model.log_posterior(at) - sum(model.log_prior(name, at[name]) for name in at)
    # Equal up to the binomial coefficients, which depend on no parameter.
    assert np.ptp(found - expected) == pytest.approx(0, abs=1e-7)


def test_without_over_dispersion_the_likelihood_is_the_binomial_to_its_last_digits():
    model = model_of(np.arange(3.0), np.array([2.0, 50, 99]), np.array([5.0, 100, 100]),
                   "normal", 0.1, 0.02, "free", None)  # fmt: skip
    at = {"gamma": 0.1, "lambda": 0.02, "threshold": 1.0, "width": 2.0}
    heights = [model.height(at | {"eta": eta}) for eta in (SMALLEST_ETA, 1e-7, 1e-9)]
    prior = [9 * np.log1p(-eta) for eta in (SMALLEST_ETA, 1e-7, 1e-9)]
    without = model_of(model.levels, model.n_correct, model.n_trials,
                     "normal", 0.1, 0.02, 0.0, None)  # fmt: skip
    assert np.subtract(heights, prior) == pytest.approx(without.height(at | {"eta": 0}), abs=2e-5)
    assert heights[2] == pytest.approx(without.height(at | {"eta": 0}), abs=1e-8)


def test_the_interpolated_grid_is_the_exact_posterior_at_its_nodes(g3):
    posterior = g3.posterior
    on_grid = posterior.model.log_posterior_on(posterior.axes, 1500)
    rng = np.random.default_rng(8)
    nodes = [rng.integers(0, size, 300) for size in on_grid.shape]
    at = {
        name: axis.nodes[i] for (name, axis), i in zip(posterior.axes.items(), nodes, strict=True)
    }
    exact = posterior.model.log_posterior({name: at[name] for name in at})
    near = exact > exact.max() - 15
    assert on_grid[tuple(nodes)][near] == pytest.approx(exact[near], abs=1e-3)


def test_the_posterior_of_two_parameters_is_that_of_a_dense_grid():
    # Rates and η fixed: likelihood by scipy, prior written out from the paper, Simpson's rule.
    levels, n_correct, n_trials = MATLAB["G2"][0]
    found = fit(levels, n_correct, n_trials, guess_rate=0.5, lapse_rate=0.02, eta=0.0)
    threshold, width = np.linspace(-0.5, 2.5, 401), np.linspace(1 / 6, 4.5, 601)
    z = (np.array(levels)[:, None, None] - threshold[:, None]) / width * 2 * norm.ppf(0.95)
    density = binom.pmf(np.array(n_correct)[:, None, None], 10, 0.5 + 0.48 * norm.cdf(z)).prod(0)
    outside = np.clip(np.maximum(0.25 - threshold, threshold - 1.75), 0, 0.75)
    density *= (0.5 + 0.5 * np.cos(np.pi * outside / 0.75))[:, None]
    density *= 0.5 - 0.5 * np.cos(np.pi * np.clip((width - 1 / 6) * 6, 0, 1))
    density *= 0.5 + 0.5 * np.cos(np.pi * np.clip((width - 1.5) / 3, 0, 1))
    of_threshold, of_width = (
        simpson(density, x=width, axis=1),
        simpson(density, x=threshold, axis=0),
    )
    for name, values, height in (
        ("threshold", threshold, of_threshold),
        ("width", width, of_width),
    ):
        total = simpson(height, x=values)
        mean = simpson(height * values, x=values) / total
        deviation = np.sqrt(simpson(height * (values - mean) ** 2, x=values) / total)
        estimate = getattr(found, name)
        assert found.mean[name] == pytest.approx(mean, abs=1e-3 * deviation)
        assert estimate.standard_error == pytest.approx(deviation, rel=2e-3)
        cumulated = np.cumsum((height[1:] + height[:-1]) / 2)
        found_limits = (estimate.ci_low, estimate.estimate, estimate.ci_high)
        at_limits = np.interp(found_limits, values[1:], cumulated / cumulated[-1])
        assert at_limits == pytest.approx([0.025, 0.5, 0.975], abs=1e-3)
    shifted = threshold[:, None] + norm.ppf(0.8) / (2 * norm.ppf(0.95)) * width
    level = found.threshold_unscaled
    for p, limit in ((0.025, level.ci_low), (0.5, level.estimate), (0.975, level.ci_high)):
        assert density[shifted <= limit].sum() / density.sum() == pytest.approx(p, abs=4e-3)


def test_the_mode_is_higher_than_all_points_around_it(g1, g3):
    for found in (g1, g3):
        model, rng = found.posterior.model, np.random.default_rng(2)
        top = model.height({name: found.maximum[name] for name in model.bounds})
        for size in (1e-1, 1e-2, 1e-3):
            at = {}
            for name, (low, high) in model.bounds.items():
                near = found.maximum[name] + rng.normal(0, size, 500) * (high - low)
                at[name] = np.clip(near, low, high)
            assert model.log_posterior(at).max() <= top + 1e-7


def test_samples_have_the_marginals_of_the_posterior(g1):
    draws = posterior_samples(g1, 20_000, rng=np.random.default_rng(1))
    for name in ("eta", "lambda", "threshold", "width"):
        found = np.quantile(draws[name], [0.025, 0.5, 0.975])
        expected = [g1.marginals[name].quantile(p) for p in (0.025, 0.5, 0.975)]
        assert found == pytest.approx(expected, abs=0.06 * draws[name].std())
        assert len(np.unique(draws[name])) > 10_000
    level = draws["threshold"] + norm.ppf(0.8) / (2 * norm.ppf(0.95)) * draws["width"]
    expected = [g1.marginals["threshold_unscaled"].quantile(p) for p in (0.025, 0.5, 0.975)]
    assert np.quantile(level, [0.025, 0.5, 0.975]) == pytest.approx(
        expected, abs=0.06 * level.std()
    )
    inner = (0.8 - 0.5) / (0.5 - draws["lambda"])
    level = draws["threshold"] + norm.ppf(inner) / (2 * norm.ppf(0.95)) * draws["width"]
    expected = [g1.marginals["threshold_scaled"].quantile(p) for p in (0.025, 0.5, 0.975)]
    assert np.quantile(level, [0.025, 0.5, 0.975]) == pytest.approx(
        expected, abs=0.06 * level.std()
    )
    assert set(draws["gamma"]) == {0.5}


@pytest.mark.parametrize("sigmoid", SIGMOIDS)
def test_a_sigmoid_is_a_half_at_threshold_and_a_width_lies_between_5_and_95_per_cent(sigmoid):
    def at(level, **rates):
        return proportion_correct_at(level, threshold=3.0, width=2.0, sigmoid=sigmoid, **rates)

    grid = np.linspace(-50, 50, 200_001)
    low, high = (grid[np.searchsorted(at(grid), p)] for p in (0.05, 0.95))
    assert high - low == pytest.approx(2, abs=2e-3)
    assert at(3.0) == pytest.approx(0.5)
    assert at(1e9, lapse_rate=0.03, guess_rate=0.1) == pytest.approx(0.97)
    assert at(-1e9, lapse_rate=0.03, guess_rate=0.1) == pytest.approx(0.1)


def test_lapses_and_guesses_count_for_the_scaled_threshold_only(g1):
    # ψ starts at a half, so it is 80 % where the sigmoid is at about 60 %.
    assert g1.threshold.estimate < g1.threshold_scaled.estimate < g1.threshold_unscaled.estimate
    assert g1.threshold_unscaled == threshold_at(g1, 0.8, unscaled=True)
    half = threshold_at(g1, 0.5, unscaled=True)
    assert limits(half) == pytest.approx(limits(g1.threshold), rel=2e-3)
    shift = norm.ppf(0.8) / (2 * norm.ppf(0.95))
    implied = g1.maximum["threshold"] + shift * g1.maximum["width"]
    assert g1.maximum["threshold_unscaled"] == pytest.approx(implied)


def test_a_proportion_that_the_curve_may_never_reach_has_no_interval(g1):
    top = threshold_at(g1, 0.999, unscaled=False)
    assert not top.is_estimable
    assert "never is at this proportion with posterior probability 0.8" in top.reason
    below = threshold_at(g1, 0.5, unscaled=False)
    assert (below.estimate, below.reason) == (None, below.reason)
    assert "with posterior probability 1," in below.reason


def test_estimates_lie_inside_their_intervals_and_say_what_they_are(g3):
    for name in ("threshold_unscaled", "threshold_scaled", "threshold", "width", "lapse_rate",
                 "guess_rate", "eta"):  # fmt: skip
        estimate = getattr(g3, name)
        assert estimate.ci_low < estimate.estimate < estimate.ci_high
        assert "posterior median and equal-tailed 95% credible interval" in estimate.method
    assert g3.threshold_unscaled.method.startswith("level at 0.8 of the unscaled sigmoid")
    assert g3.marginals.keys() == {
        "eta", "gamma", "lambda", "threshold", "width", "threshold_unscaled", "threshold_scaled"
    }  # fmt: skip
    for marginal in g3.marginals.values():
        assert np.trapezoid(marginal.density, marginal.values) == pytest.approx(1, abs=0.02)
        assert (np.diff(marginal.cdf) >= 0).all()


def test_what_was_fixed_is_shown_as_fixed(g1):
    assert (g1.guess_rate.estimate, g1.guess_rate.reason) == (0.5, "fixed at 0.5, not estimated")
    found = fit(*MATLAB["G3"][0], guess_rate=0.05, lapse_rate=0.01, eta=0.0)
    assert (found.lapse_rate.estimate, found.eta.estimate) == (0.01, 0)
    assert not found.eta.is_estimable
    assert "gamma" not in found.marginals


def test_a_guess_rate_equal_to_the_lapse_rate_has_its_posterior():
    found = fit(*MATLAB["G3"][0], guess_rate="lapse")
    assert limits(found.guess_rate) == limits(found.lapse_rate)
    assert found.maximum["gamma"] == found.maximum["lambda"]
    # psignifit 4.3, "equal asymptote", of the same data.
    assert found.mean["threshold"] == pytest.approx(0.884800, rel=1e-2)
    assert found.mean["width"] == pytest.approx(1.398184, rel=1e-2)


def test_the_unit_and_the_order_of_levels_do_not_matter(g1):
    levels, n_correct, n_trials = (np.array(each)[::-1] for each in MATLAB["G1"][0])
    found = fit(100 - 7 + 1000 * levels, n_correct, n_trials, guess_rate=0.5)
    moved = [93 + 1000 * limit for limit in limits(g1.threshold_unscaled)]
    assert limits(found.threshold_unscaled) == pytest.approx(moved, rel=1e-6)
    scaled = [1000 * limit for limit in limits(g1.width)]
    assert limits(found.width) == pytest.approx(scaled, rel=1e-5)
    assert limits(found.lapse_rate) == pytest.approx(limits(g1.lapse_rate), rel=1e-4)


def test_a_block_without_trials_changes_nothing():
    levels, n_correct, n_trials = MATLAB["G2"][0]
    found = fit([*levels, 0.5], [*n_correct, 0], [*n_trials, 0], guess_rate=0.5)
    assert found.maximum == fit(levels, n_correct, n_trials, guess_rate=0.5).maximum


def test_a_wider_interval_for_a_higher_level_of_confidence(g1):
    found = fit(*MATLAB["G1"][0], guess_rate=0.5, confidence_level=0.68)
    assert g1.width.ci_low < found.width.ci_low < found.width.ci_high < g1.width.ci_high
    assert found.width.estimate == g1.width.estimate


def test_intervals_shrink_with_the_root_of_the_trials_up_to_millions():
    # The posterior then falls between all nodes of a grid over the prior.
    levels = np.linspace(0.01, 0.34, 10)
    psi = proportion_correct_at(levels, threshold=0.15, width=0.3, lapse_rate=0.05, guess_rate=0.5)
    errors = []
    for n_trials in (10**4, 10**6):
        n_correct = np.round(psi * n_trials)
        found = fit(levels, n_correct, np.full(10, n_trials), guess_rate=0.5, eta=0.0)
        errors.append(found.threshold.standard_error)
        assert found.maximum["threshold"] == pytest.approx(0.15, abs=3 * errors[-1])
    assert errors[0] / errors[1] == pytest.approx(10, rel=0.05)


def test_ten_levels_take_less_than_a_second(g1, g3):
    assert g1.is_estimable
    assert g3.is_estimable  # warm
    for case in ("G2", "G3"):
        data, sigmoid, guess_rate, *_ = MATLAB[case]
        start = time.process_time()
        fit(*data, sigmoid=sigmoid, guess_rate=guess_rate)
        assert time.process_time() - start < 1


@pytest.mark.parametrize("sigmoid", SIGMOIDS)
def test_parameters_are_recovered_from_many_trials(sigmoid):
    levels, n_trials = np.linspace(0.001, 0.331, 20), np.full(20, 100_000)
    psi = proportion_correct_at(
        levels, threshold=0.11, width=0.3, lapse_rate=0.0232, guess_rate=0.1, sigmoid=sigmoid
    )
    found = fit(
        levels, np.round(psi * n_trials), n_trials, guess_rate="free", eta=0.0, sigmoid=sigmoid
    ).maximum
    assert found["threshold"] == pytest.approx(0.11, abs=1e-3)
    assert found["width"] == pytest.approx(0.3, abs=5e-3)
    assert found["lambda"] == pytest.approx(0.0232, abs=3e-3)
    assert found["gamma"] == pytest.approx(0.1, abs=3e-3)


def simulated(rng, levels, n_trials, *, eta, **parameters):
    psi = proportion_correct_at(levels, **parameters)
    precision = 1 / eta**2 - 1
    return rng.binomial(n_trials, rng.beta(psi * precision, (1 - psi) * precision))


@pytest.mark.parametrize("eta", [0.1, 0.2, 0.3])
def test_over_dispersion_is_recovered(eta):
    levels = np.linspace(0, 1, 40)
    rng = np.random.default_rng(int(100 * eta))
    n_correct = simulated(
        rng, levels, 200, eta=eta, threshold=0.4, width=0.5, lapse_rate=0.02, guess_rate=0.5
    )
    found = fit(levels, n_correct, np.full(40, 200), guess_rate=0.5, lapse_rate=0.02)
    assert found.eta.estimate == pytest.approx(eta, abs=0.05)
    assert found.eta.ci_low < eta < found.eta.ci_high
    assert found.threshold.ci_low < 0.4 < found.threshold.ci_high
    # Negative control: who takes such blocks for binomial believes in far too narrow an interval.
    naive = fit(levels, n_correct, np.full(40, 200), guess_rate=0.5, lapse_rate=0.02, eta=0.0)
    ratio = found.threshold.standard_error / naive.threshold.standard_error
    assert ratio == pytest.approx(np.sqrt(1 + 199 * found.eta.estimate**2), rel=0.2)


def test_ignored_lapses_bias_the_threshold_and_a_free_lapse_rate_does_not():
    # Wichmann & Hill (2001): one lapse at an easy level drags the curve.
    levels, n_trials = np.linspace(0, 1, 10), np.full(10, 1000)
    psi = proportion_correct_at(levels, threshold=0.4, width=0.4, lapse_rate=0.06, guess_rate=0.5)
    n_correct = np.round(psi * n_trials)
    truth = 0.4 + 0.4 * norm.ppf(0.8) / (2 * norm.ppf(0.95))
    free = fit(levels, n_correct, n_trials, guess_rate=0.5)
    assert free.threshold_unscaled.ci_low < truth < free.threshold_unscaled.ci_high
    assert free.lapse_rate.ci_low < 0.06 < free.lapse_rate.ci_high
    fixed = fit(levels, n_correct, n_trials, guess_rate=0.5, lapse_rate=0.0)
    assert not fixed.threshold_unscaled.ci_low < truth < fixed.threshold_unscaled.ci_high


def test_credible_intervals_cover_thresholds_widths_and_lapses_of_simulated_observers():
    rng = np.random.default_rng(20)
    levels, n_trials = np.linspace(0, 1, 10), np.full(10, 20)
    shift = norm.ppf(0.8) / (2 * norm.ppf(0.95))
    hits, n_observers = [], 40
    for _ in range(n_observers):
        truth = {
            "threshold": rng.uniform(0.15, 0.7), "width": rng.uniform(0.25, 0.9),
            "lapse_rate": rng.beta(1, 10), "guess_rate": 0.5,
        }  # fmt: skip
        n_correct = simulated(rng, levels, 20, eta=rng.beta(1, 10), **truth)
        found = fit(levels, n_correct, n_trials, guess_rate=0.5)
        truth["threshold_unscaled"] = truth["threshold"] + shift * truth["width"]
        if found.is_estimable:
            hits.append(
                [
                    getattr(found, name).ci_low <= truth[name] <= getattr(found, name).ci_high
                    for name in ("threshold_unscaled", "width", "lapse_rate")
                ]
            )
    assert len(hits) > 0.8 * n_observers
    assert (np.mean(hits, axis=0) >= 0.84).all()
    assert 0.9 <= np.mean(hits) <= 0.995


FIVE = np.arange(5.0)
REFUSED = [
    (FIVE, [0] * 5, [0] * 5, "there are no trials"),
    ([], [], [], "there are no trials"),
    ([2, 2, 2], [5, 9, 10], [10] * 3, "all 30 trials are at one level (2), so the index does not"),
    ([1, 2], [10, 19], [20] * 2, "2 levels do not determine 3 parameters of the curve"),
    (FIVE, [1, 1, 2, 3, 3], [3] * 5, "15 trials are fewer than 20"),
    (FIVE, [20] * 5, [20] * 5, "all 100 answers are right, so the threshold lies somewhere below"),
    (FIVE, [0] * 5, [20] * 5, "all 100 answers are wrong, so the threshold lies somewhere above"),
    (FIVE, [15, 14, 15, 15, 14], [20] * 5, "does not rise with the level (Cochran–Armitage trend"),
    (FIVE, [20, 18, 15, 12, 9], [20] * 5, "falls with the level (Cochran–Armitage trend z = -4."),
]


@pytest.mark.parametrize(("levels", "n_correct", "n_trials", "reason"), REFUSED)
def test_data_that_determine_no_curve_give_a_reason(levels, n_correct, n_trials, reason):
    found = fit(levels, n_correct, n_trials, guess_rate=0.5)
    assert reason in found.reason
    assert not found.is_estimable
    for name in ("threshold_unscaled", "threshold_scaled", "width", "lapse_rate", "eta"):
        estimate = getattr(found, name)
        assert (estimate.estimate, estimate.ci_low, estimate.ci_high) == (None, None, None)
        assert estimate.reason == found.reason
    assert threshold_at(found, 0.7, unscaled=True).reason == found.reason
    assert (dict(found.maximum), dict(found.mean), dict(found.marginals)) == ({}, {}, {})
    with pytest.raises(PsychometricError, match="look at `is_estimable` first"):
        plot_data(found, rng=np.random.default_rng(0))


def test_four_parameters_need_a_level_more():
    found = fit([1, 2, 3], [2, 10, 19], [20] * 3, guess_rate="free")
    assert "3 levels do not determine 4 parameters" in found.reason
    assert "lapse rate, guess rate" in found.reason


def test_noise_alone_seldom_gives_a_threshold():
    rng = np.random.default_rng(3)
    refused = [
        not fit(FIVE, rng.binomial(20, 0.75, 5), [20] * 5, guess_rate=0.5, eta=0.0).is_estimable
        for _ in range(40)
    ]
    assert np.mean(refused) > 0.85


def test_a_curve_that_the_levels_do_not_cover_carries_cautions():
    assert fit(np.arange(12.0), [10, 9, 11, 10, 13, 16, 19, 20, 20, 20, 20, 20], [20] * 12,
               guess_rate=0.5).cautions == ()  # fmt: skip
    found = fit(FIVE, [34, 36, 37, 39, 39], [40] * 5, guess_rate=0.1)
    assert "reaches beyond the levels shown (0 to 4), where only the prior" in found.cautions[0]
    assert "may be wider than the range of levels (4)" in found.cautions[1]


BAD = [
    (([1, 2], [1, 2, 3], [4, 4, 4]), {}, "are not three lists of one length"),
    (([1, np.nan, 3], [1, 2, 3], [4] * 3), {}, "block 2: the level is no finite number"),
    (([1, 2, np.inf], [1, 2, 3], [4] * 3), {}, "block 3: the level"),
    (([1, 2, 3], [1, 5, 3], [4] * 3), {}, "block 2: n_correct of n_trials is no count"),
    (([1, 2, 3], [1, 0.5, 7], [4] * 3), {}, r"block 2 \(and 1 more\): n_correct"),
    (([1, 2, 3], [-1, 2, 3], [4] * 3), {}, "block 1: n_correct"),
    ((FIVE, FIVE, [4] * 5), {"guess_rate": "half"}, "guess_rate='half'; give a number or free or"),
    ((FIVE, FIVE, [4] * 5), {"guess_rate": 1.0}, "guess_rate=1.0; give a number in"),
    ((FIVE, FIVE, [4] * 5), {"lapse_rate": -0.1}, "lapse_rate=-0.1; give a number in"),
    ((FIVE, FIVE, [4] * 5), {"lapse_rate": 0.6}, "leave no curve between them"),
    ((FIVE, FIVE, [4] * 5), {"eta": "lapse"}, "eta='lapse'; give a number or free"),
    ((FIVE, FIVE, [4] * 5), {"sigmoid": "probit"}, "choose one of normal, logistic"),
    ((FIVE, FIVE, [4] * 5), {"proportion_correct": 80}, "proportion_correct=80; give a fraction"),
    ((FIVE, FIVE, [4] * 5), {"confidence_level": 95}, "confidence_level=95; give a fraction"),
    ((FIVE, FIVE, [4] * 5), {"stimulus_range": (3, 3)}, "is not a range"),
    ((FIVE, FIVE, [4] * 5), {"engine": "stan"}, "choose own, psignifit or auto"),
]


@pytest.mark.parametrize(("data", "settings", "message"), BAD)
def test_bad_input_is_refused_with_advice(data, settings, message):
    with pytest.raises(PsychometricError, match=message):
        fit(*data, **{"guess_rate": 0.5} | settings)


def test_a_difference_of_thresholds_is_that_of_independent_samples(g3):
    other = fit(TEN_LEVELS, [1, 2, 4, 5, 7, 8, 9, 9, 10, 10], TEN_TRIALS, guess_rate="free")
    found = threshold_difference(g3, other)
    rng, shift = np.random.default_rng(7), norm.ppf(0.8) / (2 * norm.ppf(0.95))
    draws = [posterior_samples(each, 20_000, rng=rng) for each in (g3, other)]
    first, second = (each["threshold"] + shift * each["width"] for each in draws)
    difference = first - second
    assert found.probability_greater == pytest.approx((difference > 0).mean(), abs=0.01)
    expected = np.quantile(difference, [0.025, 0.975])
    assert limits(found.difference) == pytest.approx(expected, abs=0.06 * difference.std())
    same = threshold_difference(g3, g3)
    assert same.probability_greater == pytest.approx(0.5, abs=1e-3)
    assert same.difference.estimate == pytest.approx(0, abs=1e-3)


def test_thresholds_at_different_proportions_are_not_compared(g3):
    other = fit(*MATLAB["G3"][0], guess_rate="free", proportion_correct=0.75)
    with pytest.raises(PsychometricError, match="thresholds at 80% and 75% correct"):
        threshold_difference(g3, other)


def test_plot_data_are_a_rising_curve_in_its_band_and_the_points(g1):
    shown = plot_data(g1, rng=np.random.default_rng(0), n_levels=50)
    assert (shown.band_low <= shown.proportion).all()
    assert (shown.proportion <= shown.band_high).all()
    assert (np.diff(shown.proportion) >= 0).all()
    assert shown.levels[0] < min(G1_LEVELS) < max(G1_LEVELS) < shown.levels[-1]
    assert shown.point_proportions.tolist() == pytest.approx([k / 90 for k in G1_CORRECT])
    assert shown.point_n_trials.tolist() == G1_TRIALS
    # At the level of the scaled threshold the curve is at 80 %.
    at = np.interp(g1.threshold_scaled.estimate, shown.levels, shown.proportion)
    assert at == pytest.approx(0.8, abs=0.01)


def test_cells_of_the_grid_hold_their_nodes():
    axes = _axes({"eta": (0.0, 0.4), "width": (1.0, 3.0)}, {"eta": 10, "width": 40})
    for axis in axes.values():
        assert axis.weights.sum() == pytest.approx(axis.borders[-1] - axis.borders[0])
        assert (axis.borders[:-1] <= axis.nodes).all()
        assert (axis.nodes <= axis.borders[1:]).all()
