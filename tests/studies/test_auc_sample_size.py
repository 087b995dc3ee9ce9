from math import nan, sqrt

import numpy as np
import pytest

from studies.auc_sample_size import (
    auc_power,
    auc_sample_size,
    detectable_auc,
    hanley_mcneil_standard_error,
    obuchowski_variance,
    paired_auc_power,
    paired_auc_sample_size,
)
from studies.sample_size import (
    SampleSizeError,
)
from tests.studies.test_sample_size import NDKA_AND_WFNS

# Obuchowski, Lieber & Wians (2004), table 4: controls per case, then for an area of 0.6 and of 0.7
# controls and cases; one-sided 5 %, power 0.9. Where the table is off by one, pROC's correction.
OBUCHOWSKI_TABLE_4 = [
    (0.25, (84, 334), (20, 80)),
    (0.5, (101, 202), (25, 49)),
    (1, (135, 135), (33, 33)),
    (2, (203, 102), (50, 25)),
    (4, (340, 85), (84, 21)),
]
# pROC aSAH: 41 cases, 72 controls. Areas, DeLong variances and covariances of case D2.
S100B, NDKA, WFNS = 0.7313685636856369, 0.611957994579946, 0.823678861788618
S100B_AND_NDKA = {
    "variance": 0.00266868245717244,
    "other_variance": 0.0031908105493913,
    "covariance": -0.000756164938056579,
    "n_pilot_cases": 41,
}


def test_case_d4_power_and_size_of_one_area_match_proc():
    assert auc_power(0.73, 41, 72) == pytest.approx(0.9897453, abs=5e-8)
    assert auc_power(S100B, 41, 72) == pytest.approx(0.9904833, abs=5e-8)
    size = auc_sample_size(S100B, power=0.95, controls_per_case=1.7)
    assert size.n_cases_exact == pytest.approx(29.29764, abs=5e-6)
    assert size.n_controls_exact == pytest.approx(49.806, abs=5e-6)
    assert (size.n_cases, size.n_controls) == (30, 50)


def test_further_values_of_procs_own_tests():
    size = auc_sample_size(S100B, power=0.9, controls_per_case=72 / 41)
    assert size.n_cases_exact == pytest.approx(23.5598674, abs=5e-8)
    assert size.n_controls_exact == pytest.approx(41.3734257, abs=5e-8)
    assert auc_sample_size(S100B, power=0.9).n_cases_exact == pytest.approx(29.5697422, abs=5e-8)
    # pROC solves for the area with R's uniroot and its tolerance of 1e-4.
    assert detectable_auc(41, 72, power=0.95) == pytest.approx(0.6961054, abs=2e-5)


@pytest.mark.parametrize(("ratio", "for_60", "for_70"), OBUCHOWSKI_TABLE_4)
def test_sizes_match_the_published_table(ratio, for_60, for_70):
    for auc, expected in ((0.6, for_60), (0.7, for_70)):
        size = auc_sample_size(auc, power=0.9, controls_per_case=ratio, is_two_sided=False)
        assert (size.n_controls, size.n_cases) == expected


@pytest.mark.parametrize(("ratio", "n_cases"), [(1, 14), (2, 11)])
def test_sizes_of_a_large_area_match_the_published_table(ratio, n_cases):
    # One-sided 5 %, power 0.9; Obuchowski et al. (2004), table 4.
    size = auc_sample_size(0.8, power=0.9, controls_per_case=ratio, is_two_sided=False)
    assert size.n_cases == n_cases


def test_size_and_power_of_an_area_undo_each_other():
    for auc in (0.55, 0.7, 0.3):
        for is_two_sided in (True, False):
            size = auc_sample_size(auc, power=0.85, controls_per_case=2, is_two_sided=is_two_sided)
            found = auc_power(
                auc, size.n_cases_exact, size.n_controls_exact, is_two_sided=is_two_sided
            )
            assert found == pytest.approx(0.85, abs=1e-12)
    auc = detectable_auc(30, 50, power=0.8)
    assert auc_power(auc, 30, 50) == pytest.approx(0.8, abs=1e-9)


def test_an_area_below_one_half_is_as_far_as_its_mirror():
    assert auc_power(0.3, 41, 72) == pytest.approx(auc_power(0.7, 41, 72), abs=1e-12)


def test_case_d4_power_and_size_of_two_paired_areas_match_proc():
    power = paired_auc_power(NDKA, WFNS, **NDKA_AND_WFNS)
    assert power == pytest.approx(0.7131594, abs=5e-8)
    size = paired_auc_sample_size(NDKA, WFNS, power=0.9, n_pilot_controls=72, **NDKA_AND_WFNS)
    assert size.n_cases_exact == pytest.approx(64.77777, abs=5e-6)
    assert size.n_controls_exact == pytest.approx(113.7561, abs=5e-5)
    size = paired_auc_sample_size(S100B, NDKA, power=0.9, n_pilot_controls=72, **S100B_AND_NDKA)
    assert size.n_cases_exact == pytest.approx(213.117677, abs=5e-7)
    assert size.n_controls_exact == pytest.approx(374.255432, abs=5e-7)


def test_size_and_power_of_paired_areas_undo_each_other():
    size = paired_auc_sample_size(NDKA, WFNS, power=0.9, n_pilot_controls=72, **NDKA_AND_WFNS)
    power = paired_auc_power(NDKA, WFNS, n_cases=size.n_cases_exact, **NDKA_AND_WFNS)
    assert power == pytest.approx(0.9, abs=1e-12)


def test_the_error_of_an_area_without_information_is_wilcoxons():
    # Under the null hypothesis the variance is (m + n + 1) / (12 m n), whatever the ratings.
    for n_cases, n_controls in [(1, 1), (41, 72), (500, 20)]:
        expected = sqrt((n_cases + n_controls + 1) / (12 * n_cases * n_controls))
        assert hanley_mcneil_standard_error(0.5, n_cases, n_controls) == pytest.approx(expected)


def test_a_perfect_area_has_no_planned_error():
    assert hanley_mcneil_standard_error(1, 41, 72) == 0
    assert hanley_mcneil_standard_error(0, 41, 72) == 0


def test_the_two_planning_variances_of_an_area_are_close():
    for auc in (0.6, 0.7, 0.8):
        ours = sqrt(obuchowski_variance(auc, 72 / 41) / 41)
        assert ours == pytest.approx(hanley_mcneil_standard_error(auc, 41, 72), rel=0.08)


def test_the_planned_error_is_that_of_simulated_exponential_ratings():
    rng = np.random.default_rng(1)
    auc, n_cases, n_controls = 0.8, 30, 50
    cases = rng.exponential(auc / (1 - auc), (4000, n_cases, 1))
    controls = rng.exponential(1.0, (4000, 1, n_controls))
    areas = (cases > controls).mean(axis=(1, 2))
    assert areas.mean() == pytest.approx(auc, abs=0.004)
    assert areas.std() == pytest.approx(hanley_mcneil_standard_error(auc, 30, 50), rel=0.04)


@pytest.mark.parametrize("auc", [0, 1, 73, nan])
def test_areas_that_are_none_are_refused(auc):
    with pytest.raises(SampleSizeError, match="give an area strictly between 0 and 1"):
        auc_power(auc, 41, 72)
