import numpy as np
import pandas as pd
import pytest

from studies.intraclass import intraclass_correlations
from tests.studies.results import limits
from tests.studies.test_agreement import ICC, NONE, noisy_ratings, resampler

SHROUT_FLEISS = np.array(
    [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]
)


@pytest.mark.parametrize("form", ICC)
def test_intraclass_correlations_of_shrout_and_fleiss(form):
    # Shrout & Fleiss (1979), Table 4; limits and F by R's psych::ICC.
    estimate, low, high, ratio, df2, p_value = ICC[form]
    found = getattr(intraclass_correlations(SHROUT_FLEISS), form)
    assert found.coefficient.estimate == pytest.approx(estimate, abs=5e-5)
    assert limits(found.coefficient) == pytest.approx((low, high), abs=5.001e-4)
    assert (found.f_statistic, found.df1, found.df2) == pytest.approx((ratio, 5, df2), abs=5e-3)
    assert found.p_value == pytest.approx(p_value, abs=5e-6)


def test_mean_squares_of_shrout_and_fleiss():
    found = intraclass_correlations(SHROUT_FLEISS)
    shown = (found.ms_between, found.ms_within, found.ms_raters, found.ms_residual)
    wanted = (11.241667, 6.263889, 32.486111, 1.019444)
    assert shown == pytest.approx(wanted, abs=5e-7)


@pytest.mark.parametrize(
    ("ratings", "one", "two", "three"),
    [
        ([[7, 9], [10, 13], [8, 4]], 0.5246, 0.463, 0.3676),
        ([[60, 61], [60, 65], [58, 62], [10, 10]], 0.992, 0.992, 0.9957),
    ],
)
def test_intraclass_correlations_of_two_small_tables(ratings, one, two, three):
    # From the docstring of another public implementation of the Shrout–Fleiss forms.
    found = intraclass_correlations(ratings)
    forms = (found.icc_1_1, found.icc_2_1, found.icc_3_1)
    shown = [form.coefficient.estimate for form in forms]
    assert shown == pytest.approx([one, two, three], abs=5.001e-5)


@pytest.mark.filterwarnings("ignore:The inplace keyword")  # pingouin with pandas 3
def test_intraclass_correlations_agree_with_pingouin():
    pingouin = pytest.importorskip("pingouin", reason="GPL; a test-only comparison")
    ratings = pd.DataFrame(noisy_ratings(missing=0)).rename_axis("unit").reset_index()
    long = ratings.melt(id_vars="unit", var_name="rater", value_name="score")
    theirs = pingouin.intraclass_corr(long, targets="unit", raters="rater", ratings="score")
    found = intraclass_correlations(ratings.drop(columns="unit"))
    ours = [getattr(found, form).coefficient for form in ICC]
    assert [one.estimate for one in ours] == pytest.approx(theirs["ICC"].tolist())


def test_intraclass_correlations_recover_variance_components():
    rng = np.random.default_rng(2)
    units, raters = rng.normal(0, 2, (4000, 1)), rng.normal(0, 1, (1, 8))
    raters = (raters - raters.mean()) / raters.std(ddof=1)
    found = intraclass_correlations(units + raters + rng.normal(0, 1, (4000, 8)))
    assert found.icc_2_1.coefficient.estimate == pytest.approx(4 / 6, abs=0.02)
    assert found.icc_3_1.coefficient.estimate == pytest.approx(4 / 5, abs=0.02)
    assert found.icc_3_k.coefficient.estimate == pytest.approx(4 / (4 + 1 / 8), abs=0.02)


def test_f_intervals_cover_the_truth():
    truth = {"icc_1_1": 0.5, "icc_3_1": 0.5, "icc_3_k": 0.75}
    covered = {form: [] for form in truth}
    rng = np.random.default_rng(6)
    for _ in range(300):
        found = intraclass_correlations(rng.normal(size=(25, 1)) + rng.normal(size=(25, 3)))
        for form, value_of in truth.items():
            one = getattr(found, form).coefficient
            covered[form].append(one.ci_low <= value_of <= one.ci_high)
    for form in truth:
        assert 0.915 <= np.mean(covered[form]) <= 0.985


def test_units_with_a_gap_are_left_out_of_intraclass_correlations_and_counted():
    ratings = np.vstack([SHROUT_FLEISS.astype(float), [[5, NONE, 5, 5], [NONE] * 4]])
    found = intraclass_correlations(ratings)
    assert (found.n_units, found.n_units_left_out) == (6, 1)
    assert found.icc_2_1.coefficient.estimate == pytest.approx(0.2898, abs=5e-5)


@pytest.mark.parametrize(
    ("ratings", "words"),
    [
        ([[3, 3], [3, 3], [3, 3]], "all ratings are the same"),
        ([[1], [2], [3]], "1 rater rated"),
        ([[1, 2, 3]], "1 unit has all ratings"),
        ([[1, NONE], [NONE, 2]], "no units have all ratings"),
    ],
)
def test_degenerate_tables_have_no_intraclass_correlation(ratings, words):
    found = intraclass_correlations(ratings, bootstrap=resampler())
    for form in ICC:
        one = getattr(found, form)
        assert words in one.coefficient.reason
        assert one.coefficient.estimate is None
        assert one.f_statistic is None
        assert not one.bootstrap.is_estimable
    assert found.ms_between is None


def test_raters_who_never_differ_have_an_icc_of_1_and_no_interval():
    found = intraclass_correlations([[1, 1], [2, 2], [5, 5]])
    for form in ICC:
        one = getattr(found, form).coefficient
        assert one.estimate == pytest.approx(1)
        assert not one.is_estimable


def test_units_that_do_not_differ_have_no_reliability_of_means():
    found = intraclass_correlations([[1, 2], [2, 1], [1, 2], [2, 1]])
    assert found.icc_1_1.coefficient.estimate == pytest.approx(-1)
    assert found.icc_1_k.coefficient.estimate is None
    assert "units do not differ in their mean" in found.icc_1_k.coefficient.reason
    assert not found.icc_3_1.coefficient.is_estimable
