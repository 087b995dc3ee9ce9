from math import pi

import numpy as np
import pytest

from studies.multiplicity import (
    MultiplicityError,
    arcsine_effect_size,
    benjamini_hochberg,
    holm,
    mcnemar,
)

I2_P = (
    5.2365677720800003e-05,
    2.8140506198e-04,
    0.0149877310796,
    0.0202732688798,
    0.177096952723,
    0.642193923795,
    0.680845947633,
    0.71626938238,
    0.838541367553,
    0.967833824309,
)
I2_HOLM = (
    5.2365677720800005e-04,
    2.53264555782e-03,
    0.11990184863680001,
    0.14191288215860001,
    *(1.0,) * 6,
)
BOTH = [holm, benjamini_hochberg]


def test_case_i1_holm_and_benjamini_hochberg():
    p_values = (0.01, 0.04, 0.03, 0.005)
    assert holm(p_values) == pytest.approx((0.03, 0.06, 0.06, 0.02))
    assert benjamini_hochberg(p_values) == pytest.approx((0.02, 0.04, 0.04, 0.02))


def test_case_i2_holm_matches_rs_multtest():
    assert holm(I2_P) == pytest.approx(I2_HOLM, rel=1e-11)


@pytest.mark.parametrize("method", BOTH)
def test_adjusted_p_values_follow_their_tests_into_any_order(method):
    rng = np.random.default_rng(3)
    for _ in range(50):
        p_values = rng.random(8) ** 3
        order = rng.permutation(8)
        adjusted = method(p_values.tolist())
        assert method(p_values[order].tolist()) == tuple(adjusted[i] for i in order)


@pytest.mark.parametrize("method", BOTH)
def test_adjusted_p_values_are_monotone_and_no_smaller_than_the_raw_ones(method):
    rng = np.random.default_rng(4)
    for size in (1, 2, 5, 40):
        p_values = np.sort(rng.random(size) ** 4)
        adjusted = np.array(method(p_values.tolist()))
        assert (np.diff(adjusted) >= 0).all()
        assert (adjusted >= p_values).all()
        assert (adjusted <= 1).all()


@pytest.mark.parametrize("method", BOTH)
def test_ties_stay_ties(method):
    adjusted = method([0.01, 0.02, 0.01, 0.5, 0.02])
    assert adjusted[0] == adjusted[2]
    assert adjusted[1] == adjusted[4]


def test_benjamini_hochberg_claims_whatever_holm_claims():
    rng = np.random.default_rng(5)
    for _ in range(50):
        p_values = (rng.random(6) ** 3).tolist()
        pairs = zip(benjamini_hochberg(p_values), holm(p_values), strict=True)
        assert all(loose <= strict for loose, strict in pairs)


def test_holm_at_alpha_claims_what_the_step_down_procedure_claims():
    rng = np.random.default_rng(6)
    for _ in range(100):
        p_values = rng.random(5) ** 3
        claimed = set()
        for rank, index in enumerate(np.argsort(p_values)):
            if p_values[index] > 0.05 / (5 - rank):
                break
            claimed.add(int(index))
        assert claimed == {i for i, p in enumerate(holm(p_values.tolist())) if p <= 0.05}


def test_holm_makes_a_false_claim_in_one_study_of_twenty_and_raw_p_values_in_many():
    rng = np.random.default_rng(7)
    p_values = rng.random((4000, 10))
    adjusted = np.array([holm(one.tolist()) for one in p_values])
    assert (adjusted <= 0.05).any(axis=1).mean() == pytest.approx(0.05, abs=0.012)
    assert (p_values <= 0.05).any(axis=1).mean() > 0.35


@pytest.mark.parametrize("method", BOTH)
def test_a_test_that_could_not_be_made_still_counts_in_the_family(method):
    adjusted = method([0.01, None, 0.04, None])
    assert adjusted[1] is adjusted[3] is None
    filled = method([0.01, 1.0, 0.04, 1.0])
    assert (adjusted[0], adjusted[2]) == (filled[0], filled[2])


@pytest.mark.parametrize("method", BOTH)
def test_an_empty_family_and_a_single_test_need_no_adjustment(method):
    assert method([]) == ()
    assert method([0.03]) == (0.03,)


@pytest.mark.parametrize("method", BOTH)
@pytest.mark.parametrize("p_value", [float("nan"), -0.1, 1.5])
def test_a_p_value_that_is_none_is_named(method, p_value):
    with pytest.raises(MultiplicityError, match=r"p value 2 of 3 is .*; give a number in \[0, 1\]"):
        method([0.1, p_value, 0.2])


def test_both_match_statsmodels_side_by_side():
    multitest = pytest.importorskip(
        "statsmodels.stats.multitest", reason="statsmodels is not installed"
    )
    rng = np.random.default_rng(8)
    for size in (2, 7, 30):
        p_values = rng.random(size) ** 3
        p_values[: size // 2] = p_values[0]
        for method, name in ((holm, "holm"), (benjamini_hochberg, "fdr_bh")):
            expected = multitest.multipletests(p_values, method=name)[1]
            assert method(p_values.tolist()) == pytest.approx(expected, rel=1e-12)


def test_case_i4_mcnemar():
    test = mcnemar(86, 150)
    assert test.chi_square == pytest.approx(16.817797, abs=5e-7)
    assert test.p_value == pytest.approx(4.1146e-05, abs=5e-10)
    assert test.p_exact == pytest.approx(3.716e-05, abs=5e-9)


def test_the_small_whole_numbers_of_a_table_do_not_overflow():
    assert mcnemar(np.uint8(150), np.uint8(200)) == mcnemar(150, 200)


def test_mcnemar_does_not_ask_who_was_first():
    one, other = mcnemar(86, 150), mcnemar(150, 86)
    assert (one.chi_square, one.p_value, one.p_exact) == (
        other.chi_square,
        other.p_value,
        other.p_exact,
    )


def test_a_tie_of_discordant_pairs_is_no_evidence():
    # (0 − 1)² / 20 would make 0.05 of it, as statsmodels does.
    test = mcnemar(10, 10)
    assert (test.chi_square, test.p_value, test.p_exact) == (0, 1, 1)


def test_mcnemar_without_discordant_pairs_has_no_chi_square_and_says_why():
    test = mcnemar(0, 0)
    assert (test.chi_square, test.p_value, test.p_exact) == (None, None, 1)
    assert test.reason == "no pair differs, so the chi-square is 0 over 0"


@pytest.mark.parametrize(("counts", "p_exact"), [((0, 5), 2**-4), ((5, 0), 2**-4), ((1, 0), 1)])
def test_exact_mcnemar_of_few_pairs_by_hand(counts, p_exact):
    assert mcnemar(*counts).p_exact == p_exact


@pytest.mark.parametrize("counts", [(-1, 3), (3, 2.5), (float("nan"), 1)])
def test_discordant_counts_that_are_none_are_refused(counts):
    with pytest.raises(MultiplicityError, match="are not two counts of pairs; count the pairs"):
        mcnemar(*counts)


def test_mcnemar_matches_statsmodels_side_by_side():
    tables = pytest.importorskip(
        "statsmodels.stats.contingency_tables", reason="statsmodels is not installed"
    )
    for counts in [(86, 150), (3, 11), (40, 41), (0, 9)]:
        table = [[7, counts[0]], [counts[1], 5]]
        corrected = tables.mcnemar(table, exact=False, correction=True)
        exact = tables.mcnemar(table, exact=True)
        found = mcnemar(*counts)
        assert found.chi_square == pytest.approx(corrected.statistic, rel=1e-12)
        assert found.p_value == pytest.approx(corrected.pvalue, rel=1e-10)
        assert found.p_exact == pytest.approx(exact.pvalue, rel=1e-10)


def test_case_i3_arcsine_effect_size():
    assert arcsine_effect_size(0.5, 0.4) == pytest.approx(0.2013579207903309, abs=1e-15)


def test_the_arcsine_effect_size_has_a_sign_and_a_range():
    assert arcsine_effect_size(0.4, 0.5) == -arcsine_effect_size(0.5, 0.4)
    assert arcsine_effect_size(1, 0) == pytest.approx(pi)
    assert arcsine_effect_size(0.3, 0.3) == 0


def test_a_percentage_is_no_proportion():
    with pytest.raises(MultiplicityError, match=r"52\.3 is not a proportion; give a number in"):
        arcsine_effect_size(52.3, 0.5)
