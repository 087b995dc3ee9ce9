from math import isfinite, sqrt
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from studies.gee import gee
from tests.studies.results import every_number
from tests.studies.test_clustered import TREATED, judgements

# Case C2: statsmodels 0.15.0 on the treated litters; no outside truth.
TREATED_GEE = [
    ("independence", 1.22199, 0.38129, 0.40685, None),
    ("exchangeable", 1.10585, 0.37511, 0.39991, 0.32668),
]


@pytest.mark.parametrize(("working", "b", "robust", "reduced", "correlation"), TREATED_GEE)
def test_case_c2_is_reproduced(working, b, robust, reduced, correlation):
    fit = gee(*judgements(*TREATED), working_correlation=working)
    (intercept,) = fit.coefficients
    assert intercept.robust.estimate == pytest.approx(b, abs=5e-6)
    assert intercept.robust.standard_error == pytest.approx(robust, abs=5e-6)
    assert intercept.bias_reduced.standard_error == pytest.approx(reduced, abs=5e-6)
    assert fit.working_correlation == (correlation and pytest.approx(correlation, abs=5e-6))
    assert fit.accuracy_robust.estimate == pytest.approx(expit(b), abs=5e-6)


def test_independence_keeps_the_raw_proportion_and_exchangeable_does_not():
    answers = judgements(*TREATED)
    independent, exchangeable = (
        gee(*answers, working_correlation=kind) for kind in ("independence", "exchangeable")
    )
    assert independent.accuracy_robust.estimate == pytest.approx(112 / 145, abs=1e-9)
    assert exchangeable.accuracy_robust.estimate == pytest.approx(0.75136, abs=5e-6)
    assert independent.coefficients[0].model_standard_error == pytest.approx(0.19807, abs=5e-6)


# Case C3: R's `gee`, from statsmodels' test_gee.py::test_logistic.
R_GEE = {
    "independence": (
        (0.0167272965, 1.1303865443, -1.8689634508, 1.0939760833),
        (0.1272917203, 0.1667258081, 0.1924300613, 0.1731410688),
    ),
    "exchangeable": (
        (0.0178982284, 1.1311879819, -1.8613351842, 1.0894425623),
        (0.1270450317, 0.1654706782, 0.1920527500, 0.1731747794),
    ),
}


@pytest.fixture(scope="module")
def gee_logistic():
    """Cluster, outcome and three covariates, where statsmodels ships its tests' data."""
    statsmodels = pytest.importorskip("statsmodels", reason="the data are statsmodels' own")
    folder = Path(statsmodels.__file__).parent / "genmod" / "tests" / "results"
    path = folder / "gee_logistic_1.csv"
    if not path.exists():
        pytest.skip("this statsmodels was installed without the data of its tests")
    return pd.read_csv(path, header=None, names=["cluster", "outcome", "x1", "x2", "x3"])


@pytest.mark.parametrize("working", R_GEE)
def test_case_c3_agrees_with_r(gee_logistic, working):
    fit = gee(
        gee_logistic["outcome"],
        gee_logistic["cluster"],
        covariates=gee_logistic[["x1", "x2", "x3"]],
        working_correlation=working,
    )
    found = [c.robust.estimate for c in fit.coefficients]
    errors = [c.robust.standard_error for c in fit.coefficients]
    # The source compares to 6 decimals; R stops its iterations there.
    assert found == pytest.approx(R_GEE[working][0], abs=1.5e-6)
    assert errors == pytest.approx(R_GEE[working][1], abs=1.5e-6)


@pytest.mark.parametrize("working", R_GEE)
def test_standard_errors_agree_with_statsmodels(gee_logistic, working):
    genmod = "statsmodels.genmod"
    model = pytest.importorskip(f"{genmod}.generalized_estimating_equations", reason="the other")
    structures = pytest.importorskip(f"{genmod}.cov_struct", reason="the other")
    families = pytest.importorskip(f"{genmod}.families", reason="the other")
    covariates = gee_logistic[["x1", "x2", "x3"]]
    other = model.GEE(
        gee_logistic["outcome"],
        covariates.assign(intercept=1)[["intercept", "x1", "x2", "x3"]],
        groups=gee_logistic["cluster"],
        family=families.Binomial(),
        cov_struct=getattr(structures, working.capitalize())(),
    ).fit(cov_type="bias_reduced")
    fit = gee(
        gee_logistic["outcome"],
        gee_logistic["cluster"],
        covariates=covariates,
        working_correlation=working,
    )
    for kind, errors in (
        ("bias_reduced", other.standard_errors("bias_reduced")),
        ("robust", other.standard_errors("robust")),
    ):
        found = [getattr(c, kind).standard_error for c in fit.coefficients]
        assert found == pytest.approx(np.asarray(errors), rel=1e-6)
    found = [c.model_standard_error for c in fit.coefficients]
    assert found == pytest.approx(np.asarray(other.standard_errors("naive")), rel=1e-6)


def test_the_bias_reduced_error_of_a_mean_is_that_of_the_closed_form():
    # Intercept only, independence: each residual sum grows by n / (n − n_i).
    x, n_i = TREATED
    n, p = n_i.sum(), x.sum() / n_i.sum()
    inflated = (x - n_i * p) * n / (n - n_i)
    (intercept,) = gee(*judgements(*TREATED)).coefficients
    assert intercept.bias_reduced.standard_error == pytest.approx(
        sqrt((inflated**2).sum()) / (n * p * (1 - p)), rel=1e-9
    )


def test_accuracy_by_gee_is_averaged_over_the_covariates():
    rng = np.random.default_rng(3)
    kind, readers = np.tile([0, 0, 1], 200), np.repeat(np.arange(30), 20)
    right = rng.random(600) < np.where(kind, 0.8, 0.5)
    fit = gee(right, readers, covariates=pd.DataFrame({"is_synthetic": kind}))
    # Logistic regression with an intercept reproduces the overall share.
    assert fit.accuracy_robust.estimate == pytest.approx(right.mean(), abs=1e-8)
    assert fit.coefficients[1].name == "is_synthetic"
    assert fit.accuracy_robust.standard_error < fit.accuracy_bias_reduced.standard_error


ALL_RIGHT = np.ones(40), np.repeat(np.arange(8), 5)
DEGENERATE_GEE = [
    (*ALL_RIGHT, None, "all answers are right"),
    ([1, 0, 1], ["a", "a", "a"], None, "1 cluster says nothing about others"),
    (np.tile([1, 0], 8), np.repeat(np.arange(4), 4), None, "4 clusters are too few"),
    (np.tile([1, 1, 0], 20), np.repeat(np.arange(20), 3), None, "clusters do not differ at all"),
    (
        np.tile([1, 1, 0], 20),
        np.repeat(np.arange(20), 3),
        {"x": np.tile([3.0, 4.0, 1.0], 20)},
        "without contradiction, so a coefficient is infinite",
    ),
    (
        np.r_[np.tile([1, 1, 0, 0, 1], 24)],
        np.repeat(np.arange(24), 5),
        {"x": np.r_[np.ones(5), np.zeros(115)]},
        "one cluster alone determines a coefficient",
    ),
]


@pytest.mark.parametrize(("right", "clusters", "covariates", "reason"), DEGENERATE_GEE)
def test_gee_that_cannot_be_fitted_or_trusted_says_why(right, clusters, covariates, reason):
    frame = None if covariates is None else pd.DataFrame(covariates)
    fit = gee(right, clusters, covariates=frame)
    assert not fit.accuracy_bias_reduced.is_estimable
    assert reason in fit.accuracy_bias_reduced.reason
    assert all(isfinite(number) for number in every_number(fit))


def test_gee_with_few_clusters_advises_what_to_do_instead():
    fit = gee(*judgements(TREATED[0][:8], TREATED[1][:8]))
    reason = fit.coefficients[0].bias_reduced.reason
    assert "have at least 10, use the Rao–Scott t interval" in reason


def test_gee_under_forty_clusters_points_to_the_bias_reduced_error():
    (caution,) = gee(*judgements(*TREATED)).cautions
    assert "With 16 clusters (fewer than 40) the robust standard error is too small" in caution


def test_an_impossible_working_correlation_is_not_estimable():
    # Four answers can avoid each other so much, six cannot.
    right, clusters = np.tile([1, 0], 43), np.repeat(np.arange(21), [4] * 20 + [6])
    fit = gee(right, clusters, working_correlation="exchangeable")
    assert not fit.accuracy_robust.is_estimable
    assert "use independence" in fit.accuracy_robust.reason
