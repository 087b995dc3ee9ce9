import re

import numpy as np
import pandas as pd
import pytest

from studies.agreement import (
    brennan_prediger,
    cohen_kappa,
    conger_kappa,
    fleiss_kappa,
    gwet_ac,
    percent_agreement,
    randolph_kappa,
)
from studies.intraclass import intraclass_correlations
from studies.krippendorff import krippendorff_alpha
from studies.ratings import (
    AgreementError,
    CaseBootstrap,
    ratings_from_contingency,
    ratings_from_counts,
)
from studies.weights import agreement_weights
from tests.studies.results import limits

NONE = np.nan
# Krippendorff's canonical matrix, coders × units in print; statistics_cases.md F1.
CANONICAL = np.array(
    [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, NONE, NONE, NONE],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, NONE, 3],
        [NONE, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, NONE],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, NONE],
    ]
).T
# irrCAC's `raw_4raters` is the same but for the single rating of unit 12, which is rater 3's.
RAW_4_RATERS = CANONICAL.copy()
RAW_4_RATERS[11] = [NONE, NONE, 3, NONE]


def letters(*raters):
    return np.array([list(row) for row in zip(*(rater.split() for rater in raters), strict=True)])


def without_dots(table):
    table = table.astype(object)
    table[table == "."] = None
    return table


RAW_5_OBSERVERS = without_dots(
    letters(
        "1 1 2 . 0 0 1 1 2 2 . 0 1 3 1",
        "1 1 3 0 0 0 0 . 2 1 1 0 2 3 1",
        "2 0 3 0 0 0 2 2 2 1 0 0 2 2 1",
        ". 1 3 . . . . 0 . 1 0 0 2 2 .",
        "2 . . 0 0 0 1 . 2 . . . . 3 1",
    )
)
RAW_G1G2 = without_dots(
    letters(
        "a b c c b a d a b . . . b b",
        "a b c c b b d a b e . . b a",
        ". c c c b c d b b e a c c c",
        "a b c c b d d a b e a . b b",
    )
)
RAW_GENDER = letters(
    "a a a a a b b b c a a a a a b",
    "a a a a b a b c c a a a a b a",
    "a b b c a a b b c a b b c a a",
    "c c c c a a b b c c c c c a a",
)
RAW_BEN_GERRY = without_dots(letters("a a b b d c c c e d d a", "b a b b b c c c e . d d"))
# Fleiss (1971); statsmodels test_inter_rater.py.
DIAGNOSES = np.array(
    letters(
        "4 2 2 5 2 1 3 1 1 5 1 1 2 1 2 3 1 1 2 1 5 2 2 1 1 2 1 2 1 5",
        "4 2 3 5 2 1 3 1 1 5 4 2 2 4 2 3 1 1 2 3 5 4 2 1 4 2 1 2 3 5",
        "4 2 3 5 2 3 3 3 4 5 4 4 2 4 4 3 1 1 4 3 5 4 4 4 4 2 1 4 3 5",
        "4 5 3 5 4 3 3 3 4 5 4 4 3 4 4 3 4 1 4 5 5 4 5 4 4 2 1 4 3 5",
        "4 5 3 5 4 3 5 3 4 5 4 4 3 4 4 3 5 1 4 5 5 4 5 4 4 2 5 4 3 5",
        "4 5 5 5 4 3 5 4 4 5 4 4 3 4 5 5 5 2 4 5 5 4 5 4 5 4 5 4 3 5",
    ),
    dtype=int,
)
SAS_TABLE = [[0, 4, 1], [0, 8, 0], [0, 1, 5]]
# irr's `anxiety`, 20 subjects × 3 raters; statsmodels test_inter_rater.py.
ANXIETY = np.array(
    [
        [3, 3, 3, 4, 5, 5, 2, 3, 5, 2, 2, 6, 1, 5, 2, 2, 1, 2, 4, 3],
        [3, 6, 4, 6, 2, 4, 2, 4, 3, 3, 2, 3, 3, 3, 2, 2, 1, 3, 3, 4],
        [2, 1, 4, 4, 3, 2, 1, 6, 1, 1, 1, 2, 3, 3, 1, 1, 3, 3, 2, 2],
    ]
).T
MULTI_RATER = {
    "percent": percent_agreement,
    "fleiss": fleiss_kappa,
    "conger": conger_kappa,
    "gwet": gwet_ac,
    "bp": brennan_prediger,
    "randolph": randolph_kappa,
    "nominal": lambda ratings, **kw: krippendorff_alpha(ratings, scale="nominal", **kw),
    "ordinal": lambda ratings, **kw: krippendorff_alpha(ratings, scale="ordinal", **kw),
    "interval": lambda ratings, **kw: krippendorff_alpha(ratings, scale="interval", **kw),
    "ratio": lambda ratings, **kw: krippendorff_alpha(ratings, scale="ratio", **kw),
}


def value(found):
    return found.coefficient.estimate


def resampler(seed=0, n_resamples=2000, strata=None):
    return CaseBootstrap(rng=np.random.default_rng(seed), n_resamples=n_resamples, strata=strata)


def noisy_ratings(seed=0, n_units=60, n_raters=4, q=4, missing=0.1):
    rng = np.random.default_rng(seed)
    truth = rng.integers(1, q + 1, n_units)[:, None]
    guess = rng.integers(1, q + 1, (n_units, n_raters))
    ratings = np.where(rng.random((n_units, n_raters)) < 0.6, truth, guess).astype(float)
    ratings[rng.random(ratings.shape) < missing] = NONE
    return ratings


# irrCAC's unit tests: observed, expected, coefficient, standard error, lower and upper limit.
IRRCAC = [
    (RAW_4_RATERS, "gwet", "identity", 0.818, 0.190, 0.775, 0.143, 0.461, 1),
    (RAW_4_RATERS, "gwet", "linear", 0.939, 0.571, 0.859, 0.117, 0.600, 1),
    (RAW_4_RATERS, "gwet", "ordinal", 0.968, 0.685, 0.899, 0.107, 0.664, 1),
    (RAW_4_RATERS, "gwet", "quadratic", 0.975, 0.714, 0.914, 0.104, 0.685, 1),
    (RAW_4_RATERS, "gwet", "radical", 0.897, 0.430, 0.820, 0.128, 0.537, 1),
    (RAW_4_RATERS, "gwet", "ratio", 0.954, 0.678, 0.857, 0.122, 0.589, 1),
    (RAW_4_RATERS, "gwet", "circular", 0.902, 0.426, 0.830, 0.133, 0.538, 1),
    (RAW_4_RATERS, "gwet", "bipolar", 0.968, 0.682, 0.900, 0.106, 0.667, 1),
    (RAW_5_OBSERVERS, "gwet", "identity", 0.616, 0.236, 0.497, 0.122, 0.235, 0.758),
    (RAW_G1G2, "gwet", "identity", 0.744, 0.187, 0.685, 0.134, 0.396, 0.973),
    (RAW_GENDER, "gwet", "identity", 0.456, 0.312, 0.208, 0.091, 0.014, 0.403),
    (RAW_BEN_GERRY, "gwet", "identity", 0.727, 0.194, 0.661, 0.184, 0.257, 1),
    (RAW_4_RATERS, "fleiss", "identity", 0.818, 0.239, 0.761, 0.153, 0.424, 1),
    (RAW_4_RATERS, "fleiss", "linear", 0.939, 0.667, 0.818, 0.149, 0.491, 1),
    (RAW_4_RATERS, "fleiss", "quadratic", 0.975, 0.818, 0.865, 0.146, 0.544, 1),
    (RAW_5_OBSERVERS, "fleiss", "identity", 0.616, 0.291, 0.458, 0.120, 0.199, 0.716),
    (RAW_G1G2, "fleiss", "identity", 0.744, 0.252, 0.657, 0.150, 0.333, 0.981),
    (RAW_GENDER, "fleiss", "identity", 0.456, 0.375, 0.129, 0.141, -0.172, 0.430),
    (RAW_BEN_GERRY, "fleiss", "identity", 0.727, 0.222, 0.649, 0.191, 0.228, 1),
    (RAW_4_RATERS, "conger", "identity", 0.818, 0.233, 0.763, 0.149, 0.435, 1),
    (RAW_4_RATERS, "conger", "linear", 0.939, 0.675, 0.814, 0.145, 0.494, 1),
    (RAW_4_RATERS, "conger", "ordinal", 0.968, 0.796, 0.844, 0.144, 0.526, 1),
    (RAW_4_RATERS, "conger", "quadratic", 0.975, 0.827, 0.858, 0.144, 0.541, 1),
    (RAW_5_OBSERVERS, "conger", "identity", 0.616, 0.276, 0.469, 0.117, 0.219, 0.719),
    (RAW_G1G2, "conger", "identity", 0.744, 0.249, 0.659, 0.146, 0.343, 0.974),
    (RAW_GENDER, "conger", "identity", 0.456, 0.347, 0.166, 0.121, -0.094, 0.426),
    (RAW_BEN_GERRY, "conger", "identity", 0.727, 0.205, 0.657, 0.179, 0.262, 1),
    (RAW_4_RATERS, "bp", "identity", 0.818, 0.200, 0.773, 0.145, 0.454, 1),
    (RAW_4_RATERS, "bp", "linear", 0.939, 0.600, 0.848, 0.123, 0.577, 1),
    (RAW_4_RATERS, "bp", "ordinal", 0.968, 0.720, 0.886, 0.114, 0.636, 1),
    (RAW_5_OBSERVERS, "bp", "identity", 0.616, 0.250, 0.487, 0.121, 0.228, 0.747),
    (RAW_GENDER, "bp", "identity", 0.456, 0.333, 0.183, 0.102, -0.035, 0.402),
]


@pytest.mark.parametrize(
    ("ratings", "name", "weights", "observed", "expected", "estimate", "error", "low", "high"),
    IRRCAC,
)
def test_coefficients_match_irrcac(
    ratings, name, weights, observed, expected, estimate, error, low, high
):
    found = MULTI_RATER[name](ratings, weights=weights)
    shown = (
        found.observed,
        found.expected,
        found.coefficient.estimate,
        found.coefficient.standard_error,
        *limits(found.coefficient),
    )
    wanted = (observed, expected, estimate, error, low, high)
    assert shown == pytest.approx(wanted, abs=5.001e-4)


@pytest.mark.parametrize(
    ("name", "estimate", "error"),
    [
        ("percent", 0.81818, 0.12561),
        ("gwet", 0.77544, 0.14295),
        ("fleiss", 0.76117, 0.15302),
        ("conger", 0.76282, 0.14917),
        ("bp", 0.77273, 0.14472),
    ],
)
def test_coefficients_match_rs_irrcac_to_five_digits(name, estimate, error):
    # README of kgwet/irrCAC.
    found = MULTI_RATER[name](RAW_4_RATERS).coefficient
    assert (found.estimate, found.standard_error) == pytest.approx((estimate, error), abs=5.001e-6)


def test_ac1_of_the_canonical_matrix_to_six_digits():
    # statistics_cases.md F2.
    found = gwet_ac(CANONICAL)
    shown = (value(found), found.observed, found.expected)
    assert shown == pytest.approx((0.775444, 0.818182, 0.190321), abs=5e-7)


def test_a_unit_with_one_rating_counts_for_ac1_and_not_for_alpha():
    # statistics_cases.md J5: unit 12.
    for scale in ("nominal", "ordinal", "interval", "ratio"):
        whole = krippendorff_alpha(CANONICAL, scale=scale)
        part = krippendorff_alpha(CANONICAL[:11], scale=scale)
        assert value(whole) == value(part)
        assert whole.coefficient.standard_error == part.coefficient.standard_error
    assert value(gwet_ac(CANONICAL)) != pytest.approx(value(gwet_ac(CANONICAL[:11])), abs=1e-4)
    assert percent_agreement(CANONICAL).observed == percent_agreement(CANONICAL[:11]).observed
    assert (gwet_ac(CANONICAL).n_units, gwet_ac(CANONICAL).n_pairable_units) == (12, 11)


def test_fleiss_and_randolph_of_the_psychiatric_diagnoses():
    # Fleiss (1971); z by R's irr::kappam.fleiss, by way of statsmodels.
    found = fleiss_kappa(DIAGNOSES)
    assert np.bincount(DIAGNOSES.ravel())[1:].tolist() == [26, 26, 30, 55, 43]
    assert value(found) == pytest.approx(0.4302445, abs=5e-8)
    assert found.z == pytest.approx(17.65183, abs=5e-6)
    assert value(randolph_kappa(DIAGNOSES)) == pytest.approx(0.444444, abs=5e-7)


@pytest.mark.parametrize(
    ("counts", "fleiss", "randolph"),
    [
        ([[7, 1], [3, 5]], 0.161905, 0.214286),
        ([[7, 0], [0, 7]], 1, 1),
        ([[6, 1, 0], [0, 7, 0]], 0.708333, 0.785714),
    ],
)
def test_fleiss_and_randolph_from_counts(counts, fleiss, randolph):
    # justusrandolph.net/kappa, by way of statsmodels test_inter_rater.py.
    ratings, categories = ratings_from_counts(counts), range(len(counts[0]))
    assert value(fleiss_kappa(ratings, categories=categories)) == pytest.approx(fleiss, abs=6e-6)
    found = value(randolph_kappa(ratings, categories=categories))
    assert found == pytest.approx(randolph, abs=6e-6)


def test_fleiss_of_the_wikipedia_table():
    counts = (
        "0 0 0 0 14/0 2 6 4 2/0 0 3 5 6/0 3 9 2 0/2 2 8 1 1/7 7 0 0 0/3 2 6 3 0/2 5 3 2 2/"
        "6 5 2 1 0/0 2 2 3 7"
    )
    table = [[int(count) for count in row.split()] for row in counts.split("/")]
    assert value(fleiss_kappa(ratings_from_counts(table))) == pytest.approx(0.210, abs=5e-4)


# kappa, standard error, limits, null standard error, z, two-sided p.
SAS = [
    ("identity", 0.4842, 0.1380, 0.2137, 0.7547, 0.1484, 3.2626, 0.0011),
    ("linear", 0.4701, 0.1457, 0.1845, 0.7558, 0.1426, 3.2971, 0.0010),
]


@pytest.mark.parametrize(("weights", "k", "error", "low", "high", "null", "z", "p"), SAS)
def test_cohens_kappa_matches_sas(weights, k, error, low, high, null, z, p):
    found = cohen_kappa(ratings_from_contingency(SAS_TABLE), weights=weights)
    shown = (
        value(found),
        found.coefficient.standard_error,
        *limits(found.coefficient),
        found.null_standard_error,
        found.z,
        found.p_value,
    )
    assert shown == pytest.approx((k, error, low, high, null, z, p), abs=5.001e-5)


@pytest.mark.parametrize(
    ("weights", "k", "z"),
    [
        ("identity", -0.006289308, -0.0604067),
        ("linear", 0.1459075, 1.282472),
        ("quadratic", 0.2520325, 1.437451),
    ],
)
def test_cohens_kappa_matches_irr_where_levels_go_by_position(weights, k, z):
    # R's irr::kappa2 drops the unused level 5 and weighs by position, as texts are weighed here.
    texts = ANXIETY[:, 1:].astype(str).astype(object)
    found = cohen_kappa(texts, weights=weights, categories=["1", "2", "3", "4", "6"])
    assert (value(found), found.z) == pytest.approx((k, z), abs=5e-6)


def test_weights_of_numbers_go_by_their_values():
    # A scale without its 5 is not five equal steps.
    by_value = cohen_kappa(ANXIETY[:, 1:], weights="linear")
    scores = agreement_weights("linear", [1, 2, 3, 4, 6])
    assert value(by_value) == pytest.approx(value(cohen_kappa(ANXIETY[:, 1:], weights=scores)))
    assert value(by_value) != pytest.approx(0.1459075, abs=1e-3)


ICC = {
    "icc_1_1": (0.1657, -0.133, 0.723, 1.79, 18, 0.16477),
    "icc_2_1": (0.2898, 0.019, 0.761, 11.03, 15, 0.00013),
    "icc_3_1": (0.7148, 0.342, 0.946, 11.03, 15, 0.00013),
    "icc_1_k": (0.4428, -0.884, 0.912, 1.79, 18, 0.16477),
    "icc_2_k": (0.6201, 0.071, 0.927, 11.03, 15, 0.00013),
    "icc_3_k": (0.9093, 0.676, 0.986, 11.03, 15, 0.00013),
}


@pytest.mark.parametrize("weights", ["identity", "linear", "quadratic"])
def test_cohens_kappa_agrees_with_statsmodels(weights):
    inter_rater = pytest.importorskip("statsmodels.stats.inter_rater", reason="side by side")
    rng = np.random.default_rng(3)
    for _ in range(10):
        table = rng.integers(0, 9, (4, 4)) + 3 * np.eye(4, dtype=int)
        ours = cohen_kappa(ratings_from_contingency(table), weights=weights)
        theirs = inter_rater.cohens_kappa(table, wt=None if weights == "identity" else weights)
        wanted = (theirs.kappa, theirs.std_kappa, theirs.std_kappa0, theirs.z_value)
        shown = (value(ours), ours.coefficient.standard_error, ours.null_standard_error, ours.z)
        assert shown == pytest.approx(wanted, rel=1e-10)


def test_fleiss_and_randolph_agree_with_statsmodels():
    inter_rater = pytest.importorskip("statsmodels.stats.inter_rater", reason="side by side")
    ratings = noisy_ratings(missing=0).astype(int)
    counts, _ = inter_rater.aggregate_raters(ratings)
    assert value(fleiss_kappa(ratings)) == pytest.approx(inter_rater.fleiss_kappa(counts))
    theirs = inter_rater.fleiss_kappa(counts, method="randolph")
    assert value(randolph_kappa(ratings)) == pytest.approx(theirs)


@pytest.mark.parametrize("name", MULTI_RATER)
def test_order_of_units_and_of_raters_changes_nothing(name):
    rng = np.random.default_rng(1)
    for seed in range(5):
        ratings = noisy_ratings(seed)
        shuffled = rng.permutation(rng.permutation(ratings, axis=0), axis=1)
        one, other = MULTI_RATER[name](ratings), MULTI_RATER[name](shuffled)
        assert value(other) == pytest.approx(value(one), abs=1e-12)
        assert limits(other.coefficient) == pytest.approx(limits(one.coefficient), abs=1e-10)


@pytest.mark.parametrize("name", MULTI_RATER)
def test_units_and_raters_without_any_rating_change_nothing(name):
    ratings = noisy_ratings()
    padded = np.full((ratings.shape[0] + 3, ratings.shape[1] + 1), NONE)
    padded[1 : 1 + len(ratings), : ratings.shape[1]] = ratings
    one, other = MULTI_RATER[name](ratings), MULTI_RATER[name](padded)
    assert limits(other.coefficient) == pytest.approx(limits(one.coefficient))
    assert other.n_raters == 4


@pytest.mark.parametrize("name", ["fleiss", "conger", "gwet", "bp", "nominal"])
def test_names_of_categories_change_nothing(name):
    ratings = noisy_ratings()
    texts = np.full(ratings.shape, None, dtype=object)
    for level, text in enumerate(("delta", "alpha", "charlie", "bravo"), 1):
        texts[ratings == level] = text
    assert value(MULTI_RATER[name](texts)) == pytest.approx(value(MULTI_RATER[name](ratings)))


def test_congers_kappa_of_two_raters_is_cohens():
    for seed in range(5):
        pair = noisy_ratings(seed, n_raters=2, missing=0)
        for weights in ("identity", "quadratic"):
            one, other = conger_kappa(pair, weights=weights), cohen_kappa(pair, weights=weights)
            assert value(one) == pytest.approx(value(other))
            # n − 1 in place of n, and that is all.
            ratio = one.coefficient.standard_error / other.coefficient.standard_error
            assert ratio == pytest.approx(np.sqrt(60 / 59), rel=1e-9)


def test_frames_of_any_type_are_tables():
    texts = pd.DataFrame({"a": ["x", "y", None, "x"], "b": ["x", "x", "y", "x"]})
    assert value(cohen_kappa(texts)) == pytest.approx(value(cohen_kappa(texts.iloc[[0, 1, 3]])))
    whole = pd.DataFrame({"a": [1, 2, None, 1], "b": [1, 1, 2, 1]}, dtype="Int64")
    assert value(fleiss_kappa(whole)) == pytest.approx(value(fleiss_kappa(texts)))
    yes = np.array([[True, True], [False, True], [False, False]])
    assert value(conger_kappa(yes)) == pytest.approx(value(conger_kappa(yes.astype(int))))
    assert value(conger_kappa(yes.tolist(), categories=[False, True])) == value(conger_kappa(yes))
    assert percent_agreement(np.zeros((0, 3))).coefficient.reason.startswith("no raters rated")


def test_randolphs_kappa_is_brennan_predigers_without_weights():
    ratings = noisy_ratings()
    found = randolph_kappa(ratings).coefficient
    assert limits(found) == limits(brennan_prediger(ratings).coefficient)


def test_quadratic_fleiss_and_interval_alpha_differ_by_the_small_sample_term_only():
    ratings = noisy_ratings(missing=0)
    k = value(fleiss_kappa(ratings, weights="quadratic"))
    alpha = value(krippendorff_alpha(ratings, scale="interval"))
    assert alpha == pytest.approx(1 - (1 - k) * (ratings.size - 1) / ratings.size)


def test_quadratic_kappa_is_close_to_the_agreement_icc():
    # Fleiss & Cohen (1973): equal up to terms of order 1 / N.
    ratings = noisy_ratings(n_units=2000, missing=0)
    k = value(conger_kappa(ratings, weights="quadratic"))
    icc = intraclass_correlations(ratings).icc_2_1.coefficient.estimate
    assert k == pytest.approx(icc, abs=1e-3)


def test_the_interval_scale_does_not_care_for_a_large_offset_nor_a_unit():
    ratings = noisy_ratings()
    for moved in (ratings + 1e8, 1000 * ratings - 7):
        assert value(krippendorff_alpha(moved, scale="interval")) == pytest.approx(
            value(krippendorff_alpha(ratings, scale="interval")), rel=1e-7
        )
    whole = noisy_ratings(missing=0)
    one, other = intraclass_correlations(whole), intraclass_correlations(whole + 1e8)
    assert other.icc_2_1.coefficient.ci_low == pytest.approx(one.icc_2_1.coefficient.ci_low)


def test_interval_alpha_takes_more_values_than_there_can_be_categories():
    rng = np.random.default_rng(0)
    measured = rng.normal(size=(900, 1)) + rng.normal(size=(900, 3))
    assert value(krippendorff_alpha(measured, scale="interval")) == pytest.approx(0.5, abs=0.06)
    with pytest.raises(AgreementError, match="2700 different ratings are measurements"):
        fleiss_kappa(measured)


@pytest.mark.parametrize("name", MULTI_RATER)
def test_standard_errors_match_the_jackknife(name):
    # The delete-one jackknife knows nothing of the linearisation, the ordinal scale's least of all.
    ratings = noisy_ratings(5, n_units=150)
    found = MULTI_RATER[name](ratings)
    left_out = np.array(
        [value(MULTI_RATER[name](np.delete(ratings, unit, axis=0))) for unit in range(150)]
    )
    jackknife = np.sqrt(149 / 150 * np.square(left_out - left_out.mean()).sum())
    assert found.coefficient.standard_error == pytest.approx(jackknife, rel=0.03)


@pytest.mark.parametrize("name", MULTI_RATER)
def test_the_bootstrap_agrees_with_the_linearised_standard_error(name):
    found = MULTI_RATER[name](noisy_ratings(5, n_units=150), bootstrap=resampler())
    assert found.bootstrap.estimate == found.coefficient.estimate
    assert found.bootstrap.standard_error == pytest.approx(
        found.coefficient.standard_error, rel=0.08
    )
    assert limits(found.bootstrap) == pytest.approx(limits(found.coefficient), abs=0.02)


def test_the_bootstrap_redraws_whole_units():
    # Against resampling the table row by row with the same counts.
    ratings = noisy_ratings(n_units=30)
    drawn = []
    rng = np.random.default_rng(7)
    for _ in range(400):
        drawn.append(value(fleiss_kappa(ratings[rng.integers(30, size=30)])))
    found = fleiss_kappa(ratings, bootstrap=resampler(8)).bootstrap
    assert found.standard_error == pytest.approx(np.std(drawn, ddof=1), rel=0.15)


def test_the_same_seed_gives_the_same_interval():
    one, other = (
        cohen_kappa(ratings_from_contingency(SAS_TABLE), bootstrap=resampler(4)) for _ in range(2)
    )
    assert one.bootstrap == other.bootstrap


def test_strata_keep_the_numbers_of_each_kind():
    # Kinds that agree fully within themselves: only their shares could vary, and they are fixed.
    ratings = np.array([[1, 1]] * 20 + [[1, 2]] * 20)
    kinds = ["real"] * 20 + ["generated"] * 20
    free = percent_agreement(ratings, bootstrap=resampler())
    fixed = percent_agreement(ratings, bootstrap=resampler(strata=kinds))
    assert free.bootstrap.is_estimable
    assert fixed.bootstrap.reason == "all resamples are alike, which is no sign of certainty"


@pytest.mark.parametrize("name", ["fleiss", "conger", "gwet", "ordinal"])
def test_intervals_cover_the_truth_of_simulated_raters(name):
    truth = value(MULTI_RATER[name](noisy_ratings(99, n_units=40_000, missing=0)))
    covered = []
    for seed in range(300):
        found = MULTI_RATER[name](noisy_ratings(1000 + seed, missing=0)).coefficient
        covered.append(found.ci_low <= truth <= found.ci_high)
    assert 0.915 <= np.mean(covered) <= 0.985


def test_raters_who_guess_agree_by_chance_only():
    # Negative control.
    rng = np.random.default_rng(12)
    guesses = rng.choice([1, 2, 3], p=[0.8, 0.1, 0.1], size=(3000, 3))
    for name in ("fleiss", "conger", "nominal", "ordinal", "interval"):
        assert value(MULTI_RATER[name](guesses)) == pytest.approx(0, abs=0.03)
    # Prevalence makes them agree often all the same.
    assert percent_agreement(guesses).observed == pytest.approx(0.66, abs=0.02)
    assert value(gwet_ac(guesses)) > 0.5


@pytest.mark.parametrize("name", MULTI_RATER)
@pytest.mark.parametrize(
    ("ratings", "words"),
    [
        ([[2, 2], [2, 2], [2, 2]], "the same|are 2|do not differ"),
        ([[1], [2], [3]], "1 rater rated, and agreement needs two"),
        ([[1, NONE], [2, NONE]], "1 rater rated, and agreement needs two"),
        ([[1, 2, 1]], "1 unit has two ratings, and it needs two units"),
        ([[1, NONE], [NONE, 2]], "no units have two ratings"),
        ([[NONE, NONE], [NONE, NONE]], "no raters rated"),
    ],
)
def test_degenerate_tables_are_not_estimable(name, ratings, words):
    found = MULTI_RATER[name](ratings, bootstrap=resampler())
    assert not found.coefficient.is_estimable
    assert not found.bootstrap.is_estimable
    assert re.search(words, found.coefficient.reason)
    if name != "percent":
        assert found.coefficient.estimate is None


@pytest.mark.parametrize("name", MULTI_RATER)
def test_full_agreement_on_several_categories_is_1_without_an_interval(name):
    found = MULTI_RATER[name]([[1, 1], [2, 2], [3, 3], [1, 1]])
    assert value(found) == pytest.approx(1)
    assert not found.coefficient.is_estimable
    assert found.coefficient.reason.startswith("units do not differ in agreement")


def test_unused_categories_must_be_declared_to_count():
    # statsmodels: [[7, 0], [7, 0]] has a free-marginal kappa of 1.
    same = ratings_from_counts([[7, 0], [7, 0]])
    assert value(randolph_kappa(same)) is None
    assert randolph_kappa(same).coefficient.reason.endswith(
        "declare the other categories of the scale"
    )
    for method in (randolph_kappa, gwet_ac, brennan_prediger):
        found = method(same, categories=[0, 1])
        assert value(found) == pytest.approx(1)
        assert not found.coefficient.is_estimable
    assert value(fleiss_kappa(same, categories=[0, 1])) is None


def test_gwet_and_brennan_prediger_depend_on_the_size_of_the_scale():
    two = noisy_ratings(q=2)
    assert brennan_prediger(two).expected == pytest.approx(0.5)
    assert brennan_prediger(two, categories=[1, 2, 3, 4]).expected == pytest.approx(0.25)
    assert gwet_ac(two, categories=[1, 2, 3]).expected < gwet_ac(two).expected


def test_two_raters_each_with_one_category_have_no_kappa():
    found = cohen_kappa([[1, 1], [1, 1], [1, NONE]])
    assert value(found) is None
    assert found.coefficient.reason == "both raters used one and the same category throughout"
    # Different categories throughout: chance agrees as little as they do, and nothing varies.
    apart = cohen_kappa([[1, 2], [1, 2], [1, 2]])
    assert value(apart) == pytest.approx(0)
    assert not apart.coefficient.is_estimable


def test_nothing_is_ever_nan_or_infinite():
    rng = np.random.default_rng(0)
    for _ in range(150):
        shape = tuple(rng.integers(1, 5, 2))
        ratings = rng.integers(1, 4, shape).astype(float)
        ratings[rng.random(shape) < 0.3] = NONE
        bootstrap = resampler(n_resamples=200)
        shown = [method(ratings, bootstrap=bootstrap) for method in MULTI_RATER.values()]
        estimates = [one for found in shown for one in (found.coefficient, found.bootstrap)]
        icc = intraclass_correlations(ratings, bootstrap=bootstrap)
        for form in ICC:
            estimates += [getattr(icc, form).coefficient, getattr(icc, form).bootstrap]
        for one in estimates:
            numbers = (one.estimate, one.ci_low, one.ci_high, one.standard_error)
            assert all(number is None or np.isfinite(number) for number in numbers)
            assert one.is_estimable == (one.reason is None)


@pytest.mark.parametrize(
    ("ratings", "options", "words"),
    [
        ([1, 2, 3], {}, r"ratings of shape \(3,\) are no table"),
        ([[1, 2], [1, np.inf]], {}, "row 2, column 2 is infinite"),
        ([["a", "b"], ["a", 3]], {}, "row 2, column 2 holds 3 among ratings of another kind"),
        ([["a", "b"], ["a", ""]], {}, "row 2, column 2 is an empty text; give None"),
        ([[1, 2], [7, 1]], {"categories": [1, 2]}, "row 2, column 1 holds 7, which is not among"),
        ([[1, 2], [2, 1]], {"categories": [1, 2, 2]}, "repeat or are none; list each once"),
        ([[1, 2], [2, 1]], {"categories": [1, "b"]}, "mix numbers and texts"),
        ([["a", "b"], ["a", "a"]], {"weights": "linear"}, "the order of texts is not known"),
        ([[1, 2], [2, 1]], {"weights": "cubic"}, "no weights are called 'cubic'"),
        ([[0, 2], [2, 0]], {"weights": "ratio"}, "ratio weights need scores above 0, not 0"),
        ([[1, 2], [2, 1]], {"weights": np.eye(3)}, "do not fit the 2 categories"),
        (
            [[1, 2], [2, 1]],
            {"weights": [[1, 0.5], [0, 1]]},
            "the mean with its transpose, if yours is not symmetric",
        ),
        ([[1, 2], [2, 1]], {"confidence_level": 95}, r"give a fraction such as 0\.95"),
        (
            [[1, 2], [2, 1]],
            {"bootstrap": CaseBootstrap(rng=np.random.default_rng(0), n_resamples=50)},
            "n_resamples=50 says nothing about tails",
        ),
        (
            [[1, 2], [2, 1]],
            {"bootstrap": CaseBootstrap(rng=np.random.default_rng(0), strata=["real"])},
            "do not fit 2 rows; give one for each",
        ),
    ],
)
def test_what_is_no_table_of_ratings_is_refused_with_advice(ratings, options, words):
    for method in (fleiss_kappa, cohen_kappa, gwet_ac):
        with pytest.raises(AgreementError, match=words):
            method(ratings, **options)


def test_other_refusals():
    with pytest.raises(AgreementError, match="compares 2 raters, not 4; choose two columns"):
        cohen_kappa(CANONICAL)
    with pytest.raises(AgreementError, match="no scale is called 'cardinal'"):
        krippendorff_alpha(CANONICAL, scale="cardinal")
    with pytest.raises(AgreementError, match="column 1 holds 'a'; interval needs numbers"):
        krippendorff_alpha([["a", "b"], ["b", "b"]], scale="interval")
    with pytest.raises(AgreementError, match="row 2, column 1 holds -3; a ratio scale starts at 0"):
        krippendorff_alpha([[1, 2], [-3, 2]], scale="ratio")
    with pytest.raises(AgreementError, match="0 on its diagonal"):
        krippendorff_alpha([[1, 2], [2, 2]], scale=np.eye(2))
    with pytest.raises(AgreementError, match="intraclass correlation needs numbers"):
        intraclass_correlations([["a", "b"], ["b", "b"]])
    with pytest.raises(AgreementError, match="is not square; list every category"):
        ratings_from_contingency([[1, 2, 3], [4, 5, 6]])
    with pytest.raises(AgreementError, match="give whole numbers from 0"):
        ratings_from_counts([[6.99, 0.01]])
