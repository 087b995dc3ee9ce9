"""The same data by other software, side by side: reference cases and seeded random tables.

Tolerances, and why each is not smaller:

- 1e-9 to 1e-12 where both sides evaluate one formula: statsmodels, krippendorff, pROC, base R.
- 1e-6 for estimating equations: both stop iterating there.
- 5e-3 for intervals of intraclass correlations: pingouin prints two decimals.
- psignifit: the mode to 2 % of the width, on which the posterior is flat; limits to 3 % of the
  interval, once those of psignifit are raised by half a step of its grid (test_psychometric.py):
  it cuts off cells of little mass, and with them some of the tails.
- lme4, in standard errors of each number: 1e-5 by quadrature, 2e-3 by Laplace, where its inner
  iterations stop a little short of the maximum (2e-5 in log-likelihood) and its standard errors,
  from differences of the deviance, are good to 1 %.

R is optional: `apt-get install r-base-core r-cran-proc r-cran-lme4`. Debian has no r-cran-binom,
whose numbers are those of case A1 in test_proportions.py; base R stands in for it.
"""

import shutil
import subprocess
import warnings
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from studies.agreement import cohen_kappa, fleiss_kappa, randolph_kappa
from studies.auc_sample_size import auc_power, paired_auc_power
from studies.equivalence import exact_tost, z_tost
from studies.gee import gee
from studies.intraclass import intraclass_correlations
from studies.krippendorff import krippendorff_alpha
from studies.mixed import crossed_logistic, random_intercept_logistic
from studies.mixed_likelihood import crossed_log_likelihood
from studies.multiplicity import benjamini_hochberg, holm
from studies.proportions import (
    agresti_coull,
    chance_test,
    clopper_pearson,
    jeffreys,
    wald,
    wilson,
    wilson_continuity_corrected,
)
from studies.psychometric import fit
from studies.psychometric_model import proportion_correct_at
from studies.ratings import ratings_from_contingency
from studies.roc import auc, auc_covariance, delong_paired, delong_unpaired
from tests.studies.test_clustered import CONTROL, TREATED

REFERENCE = [(18, 20), (4, 200), (190, 200), (1, 30), (779, 1500), (1507, 2880)]  # A1, A4, B5


def counts(n_tables):
    """Right answers and trials of `n_tables` readers, none of them all right or all wrong."""
    rng = np.random.default_rng(11)
    sizes = rng.integers(3, 3000, n_tables)
    return [*REFERENCE, *((int(rng.integers(1, n)), int(n)) for n in sizes)]


def limits(found):
    return found.ci_low, found.ci_high


# ------------------------------------------------------------------------------------ statsmodels


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (wald, "normal"),
        (wilson, "wilson"),
        (clopper_pearson, "beta"),
        (jeffreys, "jeffreys"),
        (agresti_coull, "agresti_coull"),
    ],
)
def test_binomial_intervals_are_those_of_statsmodels(ours, theirs):
    from statsmodels.stats.proportion import proportion_confint

    for n_correct, n_trials in counts(40):
        for level in (0.8, 0.95, 0.99):
            expected = proportion_confint(n_correct, n_trials, alpha=1 - level, method=theirs)
            found = limits(ours(n_correct, n_trials, confidence_level=level))
            assert found == pytest.approx(expected, abs=1e-12), (n_correct, n_trials, level)


def test_equivalence_of_a_proportion_is_that_of_statsmodels():
    from statsmodels.stats.proportion import binom_tost, proportions_ztost

    for n_correct, n_trials in counts(40):
        for low, high in ((0.45, 0.55), (0.1, 0.9)):
            exact = exact_tost(n_correct, n_trials, low=low, high=high)
            expected = binom_tost(n_correct, n_trials, low, high)[1:]
            assert (exact.p_low, exact.p_high) == pytest.approx(expected, abs=1e-12)
            normal = z_tost(n_correct, n_trials, low=low, high=high)
            expected = proportions_ztost(n_correct, n_trials, low, high, "sample")[0]
            assert normal.p_value == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("working", ["independence", "exchangeable"])
@pytest.mark.parametrize("sizes", [(40,) * 15, tuple(range(2, 27)), (1,) * 60, (300, *(9,) * 14)])
def test_estimating_equations_are_those_of_statsmodels(sizes, working):
    from statsmodels.genmod import cov_struct, families
    from statsmodels.genmod.generalized_estimating_equations import GEE

    rng = np.random.default_rng(sum(sizes))
    reader = np.repeat(np.arange(len(sizes)), sizes)
    x = pd.DataFrame({"kind": np.arange(len(reader)) % 2, "size": rng.normal(size=len(reader))})
    skill = rng.normal(0, 0.7, len(sizes))[reader]
    right = (rng.random(len(reader)) < expit(0.4 + skill + 0.5 * x["kind"])).astype(int)
    theirs = GEE(
        right,
        x.assign(one=1)[["one", "kind", "size"]],
        groups=reader,
        family=families.Binomial(),
        cov_struct=getattr(cov_struct, working.capitalize())(),
    ).fit(cov_type="bias_reduced", ctol=1e-10)
    found = gee(right, reader, covariates=x, working_correlation=working).coefficients
    for kind in ("robust", "bias_reduced"):
        ours = [getattr(one, kind) for one in found]
        assert [one.estimate for one in ours] == pytest.approx(theirs.params.to_numpy(), abs=1e-6)
        errors = [one.standard_error for one in ours]
        assert errors == pytest.approx(theirs.standard_errors(kind), rel=1e-6)


@pytest.mark.parametrize(("ours", "theirs"), [(holm, "holm"), (benjamini_hochberg, "fdr_bh")])
def test_adjusted_p_values_are_those_of_statsmodels(ours, theirs):
    from statsmodels.stats.multitest import multipletests

    rng = np.random.default_rng(8)
    for size in (1, 2, 7, 30):
        p_values = rng.random(size).round(1 + size % 3) ** 3  # some of them tied
        expected = multipletests(p_values, method=theirs)[1]
        assert ours(p_values.tolist()) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("weights", ["identity", "linear", "quadratic"])
def test_cohens_kappa_is_that_of_statsmodels(weights):
    from statsmodels.stats.inter_rater import cohens_kappa

    rng = np.random.default_rng(3)
    for q in (2, 3, 7):
        table = rng.integers(0, 9, (q, q)) + 3 * np.eye(q, dtype=int)
        ours = cohen_kappa(ratings_from_contingency(table), weights=weights)
        theirs = cohens_kappa(table, wt=None if weights == "identity" else weights)
        found = (ours.coefficient.estimate, ours.coefficient.standard_error, ours.z)
        assert found == pytest.approx((theirs.kappa, theirs.std_kappa, theirs.z_value), rel=1e-10)


def ratings_of(n_units, n_raters, n_categories, *, missing=0.0, seed=0):
    """Ratings from 1 up that agree more often than not; NaN where missing. (N, R)"""
    rng = np.random.default_rng([seed, n_units, n_raters, n_categories])
    truth = rng.integers(1, n_categories + 1, (n_units, 1))
    strays = rng.integers(1, n_categories + 1, (n_units, n_raters))
    ratings = np.where(rng.random((n_units, n_raters)) < 0.6, truth, strays).astype(np.float64)
    return np.where(rng.random((n_units, n_raters)) < missing, np.nan, ratings)


TABLES = [(12, 4, 5), (200, 2, 2), (40, 10, 6), (6, 25, 3)]


@pytest.mark.parametrize("shape", TABLES)
def test_fleiss_and_randolph_are_those_of_statsmodels(shape):
    from statsmodels.stats import inter_rater

    ratings = ratings_of(*shape)
    by_category, _ = inter_rater.aggregate_raters(ratings.astype(int))
    for ours, theirs in ((fleiss_kappa, "fleiss"), (randolph_kappa, "randolph")):
        expected = inter_rater.fleiss_kappa(by_category, method=theirs)
        assert ours(ratings).coefficient.estimate == pytest.approx(expected, abs=1e-12)


# --------------------------------------------------------- krippendorff, pingouin, psignifit (GPL)


@pytest.mark.parametrize("level", ["nominal", "ordinal", "interval", "ratio"])
@pytest.mark.parametrize("shape", TABLES)
@pytest.mark.parametrize("missing", [0.0, 0.4])
def test_alpha_is_that_of_krippendorff(shape, level, missing):
    krippendorff = pytest.importorskip("krippendorff", reason="pip install krippendorff")
    ratings = ratings_of(*shape, missing=missing)
    expected = krippendorff.alpha(ratings.T, level_of_measurement=level)
    found = krippendorff_alpha(ratings, scale=level).coefficient.estimate
    assert found == pytest.approx(expected, abs=1e-12)


@pytest.mark.filterwarnings("ignore:The inplace keyword:DeprecationWarning")
@pytest.mark.parametrize("shape", [(6, 4), (50, 2), (20, 12)])
def test_intraclass_correlations_are_those_of_pingouin(shape):
    pingouin = pytest.importorskip("pingouin", reason="pip install pingouin")
    rng = np.random.default_rng(shape)
    n, k = shape
    ratings = rng.normal(size=(n, 1)) + rng.normal(0, 0.5, (1, k)) + rng.normal(size=shape)
    long = pd.DataFrame(ratings).rename_axis("unit").reset_index()
    theirs = pingouin.intraclass_corr(
        long.melt("unit", var_name="rater"), targets="unit", raters="rater", ratings="value"
    )
    found = intraclass_correlations(ratings)
    forms = ["icc_1_1", "icc_2_1", "icc_3_1", "icc_1_k", "icc_2_k", "icc_3_k"]
    for form, (_, row) in zip(forms, theirs.iterrows(), strict=True):
        ours = getattr(found, form)
        shown = (ours.coefficient.estimate, ours.f_statistic, ours.p_value)
        assert shown == pytest.approx((row["ICC"], row["F"], row["pval"]), abs=1e-9), form
        assert limits(ours.coefficient) == pytest.approx(row["CI95"], abs=5.001e-3), form


@pytest.mark.parametrize(
    ("sigmoid", "n_levels", "n_each"),
    [("normal", 8, 30), ("logistic", 12, 15), ("gumbel", 6, 80)],
)
def test_psychometric_curves_are_those_of_psignifit(sigmoid, n_levels, n_each):
    psignifit = pytest.importorskip("psignifit", reason="pip install '.[psychometrics]'")
    rng = np.random.default_rng([n_levels, n_each])
    levels, n = np.linspace(0, 1, n_levels), np.full(n_levels, n_each)
    curve = {"threshold": 0.5, "width": 0.6, "lapse_rate": 0.03, "guess_rate": 0.5}
    n_correct = rng.binomial(n, proportion_correct_at(levels, sigmoid=sigmoid, **curve))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = psignifit.psignifit(
            np.column_stack([levels, n_correct, n]),
            sigmoid={"normal": "norm"}.get(sigmoid, sigmoid),
            experiment_type="2AFC",
        )
        at_80 = theirs.threshold(0.8, unscaled=True, return_ci=False)
    ours = fit(levels, n_correct, n, guess_rate=0.5, sigmoid=sigmoid)
    width = theirs.parameter_estimate_MAP["width"]
    for name, expected in (
        ("threshold", theirs.parameter_estimate_MAP["threshold"]),
        ("width", width),
        ("threshold_unscaled", at_80),
    ):
        assert ours.maximum[name] == pytest.approx(expected, abs=0.02 * width), name
    for name in ("threshold", "width"):
        low, high = theirs.confidence_intervals[name]["0.95"]
        half_step = (theirs.parameter_values[name][1] - theirs.parameter_values[name][0]) / 2
        expected = (low + half_step, high + half_step)
        assert limits(getattr(ours, name)) == pytest.approx(expected, abs=0.03 * (high - low))


# ---------------------------------------------------------------------------------------------- R


@cache
def by_counts():
    return {f"counts-{x}-{n}": pd.DataFrame({"x": [x], "n": [n]}) for x, n in counts(10)}


@cache
def by_scores():
    """Two raters of the same pictures: measurements, five grades, a few ties, two grades."""
    tables = {}
    for n_signal, n_noise, grades in ((41, 72, 0), (60, 60, 5), (6, 9, 3), (300, 100, 2)):
        rng = np.random.default_rng([n_signal, n_noise])
        is_signal = np.repeat([1, 0], [n_signal, n_noise])
        shared = rng.normal(size=len(is_signal)) + is_signal
        scores = [shared + noise * rng.normal(size=len(is_signal)) for noise in (0.6, 2.0)]
        if grades:
            scores = [np.digitize(one, np.linspace(-0.8, 1.6, grades - 1)) for one in scores]
        tables[f"scores-{n_signal}-{n_noise}-{grades}"] = pd.DataFrame(
            {"is_signal": is_signal, "first": scores[0], "second": scores[1]}
        )
    return tables


def judgements(n_readers, n_cases, sd_readers, sd_cases, answered):
    """Answers of readers to cases, of which a share is answered; x is the kind of the case."""
    rng = np.random.default_rng([n_readers, n_cases])
    reader, case = np.divmod(np.arange(n_readers * n_cases), n_cases)
    skill = rng.normal(0, sd_readers, n_readers)[reader] + rng.normal(0, sd_cases, n_cases)[case]
    right = rng.random(len(reader)) < expit(0.3 + 0.4 * (case % 2) + skill)
    table = pd.DataFrame({"correct": right.astype(int), "reader": reader, "case": case})
    return table.assign(x=case % 2)[rng.random(len(table)) < answered]


@cache
def by_readers():
    """Simulated readers, and Weil's rat litters of reference case C1, x the treatment."""
    shapes = [(12, 60, 0.8, 0, 1.0), (40, 12, 0.5, 0, 0.5), (5, 200, 1.5, 0, 1.0)]
    tables = {f"readers-{s[0]}-{s[1]}": judgements(*s) for s in shapes}
    born = np.concatenate([CONTROL, TREATED], axis=1)
    litter = pd.DataFrame({"reader": np.arange(32), "x": np.repeat([0, 1], 16)})
    tables["readers-litters"] = pd.concat(
        [
            litter.loc[litter.index.repeat(n)].assign(correct=right)
            for n, right in ((born[0], 1), (born[1] - born[0], 0))
        ]
    )
    return tables


@cache
def by_reader_and_case():
    shapes = [(8, 60, 0.6, 1.0, 1.0), (20, 100, 0.3, 0.7, 1.0), (15, 40, 1.0, 0.5, 0.6)]
    return {f"crossed-{s[0]}-{s[1]}": judgements(*s) for s in shapes}


@pytest.fixture(scope="module")
def r(tmp_path_factory):
    """What R found: `r(package, case, *names)` gives numbers; skips where R lacks the package."""
    if not shutil.which("Rscript"):
        pytest.skip("R is not installed: apt-get install r-base-core r-cran-proc r-cran-lme4")
    folder = tmp_path_factory.mktemp("r")
    for tables in (by_counts(), by_scores(), by_readers(), by_reader_and_case()):
        for name, table in tables.items():
            table.to_csv(folder / f"{name}.csv", index=False)
    script = Path(__file__).with_name("r_cases.R")
    subprocess.run(["Rscript", script, folder], check=True, capture_output=True, timeout=120)
    found = pd.read_csv(folder / "found.csv").set_index(["case", "name"])["value"]

    def numbers(package, case, *names):
        if (case, names[0]) not in found.index:
            pytest.skip(f"R lacks the package {package} (top of {Path(__file__).name})")
        return [float(found[case, name]) for name in names]

    return numbers


@pytest.mark.r
@pytest.mark.parametrize(
    ("ours", "package", "theirs"),
    [
        (clopper_pearson, "stats", "exact"),
        (wilson, "stats", "wilson"),
        (wilson_continuity_corrected, "stats", "wilson_corrected"),
        (wilson, "binom", "binom_wilson"),
        (agresti_coull, "binom", "binom_agresti-coull"),
        (wald, "binom", "binom_asymptotic"),
    ],
)
def test_binomial_intervals_are_those_of_r(r, ours, package, theirs):
    for name, table in by_counts().items():
        found = limits(ours(*table.iloc[0].tolist()))
        assert found == pytest.approx(r(package, name, f"{theirs}_low", f"{theirs}_high"), abs=1e-9)


@pytest.mark.r
def test_the_exact_test_of_chance_is_that_of_r(r):
    for name, table in by_counts().items():
        found = chance_test(*table.iloc[0].tolist()).p_value
        assert found == pytest.approx(r("stats", name, "p")[0], rel=1e-9), name


@pytest.mark.r
@pytest.mark.parametrize("case", by_scores())
def test_areas_and_their_tests_are_those_of_proc(r, case):
    table = by_scores()[case]
    first, second, is_signal = table["first"], table["second"], table["is_signal"]
    area = auc(first, is_signal)
    found = (area.estimate, area.standard_error**2, area.ci_low, min(area.ci_high, 1.0))
    expected = r("pROC", case, "auc", "variance", "low", "high")
    assert found == pytest.approx(expected, abs=1e-12)
    areas, covariance = auc_covariance(np.stack([first, second]), is_signal)
    assert covariance[0, 1] == pytest.approx(r("pROC", case, "covariance")[0], abs=1e-12)
    paired = delong_paired(first, second, is_signal)
    expected = r("pROC", case, "paired_z", "paired_p")
    assert (paired.statistic, paired.p_value) == pytest.approx(expected, rel=1e-9)
    unpaired = delong_unpaired(first, is_signal, second, is_signal)
    expected = r("pROC", case, "unpaired_df", "unpaired_p")
    assert (unpaired.df, unpaired.p_value) == pytest.approx(expected, rel=1e-9)
    n_signal, n_noise = int(is_signal.sum()), int((1 - is_signal).sum())
    power = auc_power(areas[0], n_signal, n_noise)
    paired_power = paired_auc_power(
        areas[0],
        areas[1],
        variance=covariance[0, 0],
        other_variance=covariance[1, 1],
        covariance=covariance[0, 1],
        n_pilot_cases=n_signal,
    )
    expected = r("pROC", case, "power", "paired_power")
    assert (power, paired_power) == pytest.approx(expected, abs=1e-9)


def compared_with_lme4(found, r, case, *, sds, tolerance):
    """Our fit beside lme4's; `tolerance` in standard errors of each number."""
    expected = r("lme4", case, "intercept", "slope", "intercept_error", "slope_error")
    for (name, ours), theirs, error in zip(
        found.coefficients, expected[:2], expected[2:], strict=True
    ):
        assert ours.estimate == pytest.approx(theirs, abs=tolerance * error), name
        assert ours.standard_error == pytest.approx(error, rel=0.01), name
    for component, theirs in zip(found.components, r("lme4", case, *sds), strict=True):
        error = component.sd.standard_error
        assert component.sd.estimate == pytest.approx(theirs, abs=tolerance * error)
    (theirs,) = r("lme4", case, "log_likelihood")
    assert theirs - 1e-9 <= found.log_likelihood <= theirs + 5e-5


@pytest.mark.r
@pytest.mark.parametrize(("n_nodes", "tolerance"), [(1, 2e-3), (25, 1e-5)])
@pytest.mark.parametrize("case", by_readers())
def test_random_intercepts_are_those_of_lme4(r, case, n_nodes, tolerance):
    data = by_readers()[case]
    found = random_intercept_logistic(
        data["correct"], data["reader"], covariates=data[["x"]], n_nodes=n_nodes
    )
    where = f"{case}-{n_nodes}"
    compared_with_lme4(found, r, where, sds=["sd_reader"], tolerance=tolerance)


@pytest.mark.r
@pytest.mark.parametrize("case", by_reader_and_case())
def test_crossed_intercepts_are_those_of_lme4(r, case):
    data = by_reader_and_case()[case]
    answers = data["correct"], data["reader"], data["case"]
    found = crossed_logistic(*answers, covariates=data[["x"]])
    compared_with_lme4(found, r, case, sds=["sd_reader", "sd_case"], tolerance=2e-3)
    *coefficients, sd_readers, sd_cases, theirs = r(
        "lme4", case, "intercept", "slope", "sd_reader", "sd_case", "log_likelihood"
    )
    at_theirs = crossed_log_likelihood(
        *answers,
        coefficients=coefficients,
        sd_readers=sd_readers,
        sd_cases=sd_cases,
        covariates=data[["x"]],
    )
    assert at_theirs == pytest.approx(theirs, abs=5e-5)
