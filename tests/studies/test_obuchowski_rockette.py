import os
import time
import tracemalloc
from itertools import permutations
from math import isfinite, sqrt

import numpy as np
import pytest
from scipy.stats import norm, ttest_rel
from scipy.stats import t as student_t

from studies import crossed
from studies.crossed import FEWEST_READERS
from studies.mrmc import FEWEST_CASES, MrmcError
from studies.obuchowski_rockette import (
    obuchowski_rockette,
    obuchowski_rockette_fixed_cases,
    obuchowski_rockette_fixed_readers,
    obuchowski_rockette_split_plot,
)
from studies.reader_figures import (
    ReaderFigures,
    auc_delong,
    auc_jackknife,
    auc_unbiased,
    jackknife,
    percent_correct_jackknife,
    percent_correct_stratified,
    percent_correct_unbiased,
)
from studies.u_statistics import u_statistics_auc, u_statistics_percent_correct
from tests.studies.results import every_number
from tests.studies.test_crossed import VAN_DYKE, random_table
from tests.studies.test_reader_figures import (
    GOOD_OUTCOME,
    POOR_OUTCOME,
    answers,
    nested_in_readers,
    ratings,
    tables_of_both_modalities,
    with_gaps,
)


def test_case_d1_auc_and_delong_interval_of_one_reader():
    figures = auc_delong(POOR_OUTCOME[None], GOOD_OUTCOME[None])
    assert figures.values[0, 0] == pytest.approx(0.823678861788618, abs=5e-16)
    assert figures.covariance[0, 0, 0, 0] == pytest.approx(0.00146991470882363, abs=5e-18)
    estimate = obuchowski_rockette_fixed_readers(figures).means[0].estimate
    assert (estimate.ci_low, estimate.ci_high) == pytest.approx(
        (0.748534887819453, 0.898822835757783), abs=5e-16
    )


# Printed by OR-DBM MRMC 2.51 (RJafroc, inst/IowaResults/VanDyke.txt) and by MRMCaov (docs/jss).
AUCS = [
    [0.91964573, 0.85877617, 0.90386473, 0.97310789, 0.82979066],
    [0.94782609, 0.90531401, 0.92173913, 0.99935588, 0.92995169],
]
CELL_SES = [
    [0.0301255164, 0.0363753335, 0.0282594118, 0.0173388332, 0.0417201720],
    [0.0221416887, 0.0298151099, 0.0297673065, 0.0007213348, 0.0262023046],
]
COV1_OF_READERS = [0.00037347, 0.00076016, 0.00035532, 0.00000108, 0.00024304]
# covariances: (Cov2 of modality 1, of modality 2, Cov3), then the printed results.
D5 = {
    "jackknife": {
        "cov": (0.0004839618, 0.0002041879, 0.0002390284),
        "f": (4.456319, 15.25967, 0.051666, 0.0207486, -0.0879595, 0.0003589),
        "means": [
            (0.8970370, 0.03317360, 12.74, 0.82522360, 0.96885048),
            (0.9408374, 0.02156637, 12.71, 0.89413783, 0.98753689),
        ],
    },
    "DeLong": {
        "cov": (0.0004775239, 0.0002015292, 0.0002358497),
        "f": (4.484854, 15.06611, 0.051233, 0.0206825, -0.0878672, 0.0002666),
        "means": [
            (0.8970370, 0.03307642, 12.59597, 0.8253461, 0.9687280),
            (0.9408374, 0.02150464, 12.56530, 0.8942155, 0.9874592),
        ],
    },
    "unbiased": {
        "cov": (0.0004771788, 0.0002009512, 0.0002356148),
        "f": (4.489614, 15.03418, 0.051162, 0.0206715, -0.0878519, 0.0002513),
        "means": [
            (0.8970370, 0.0330712, 12.58802, 0.8253526, 0.9687214),
            (0.9408374, 0.0214912, 12.53391, 0.8942323, 0.9874424),
        ],
    },
}


def figures_from(values, var_errors, cov1s, cov2s, cov3, *, method="jackknife"):
    """Readers' figures as a published printout gives them.

    Args:
        var_errors: (T, R); cov1s: (R,); cov2s: (T,).
    """
    n_modalities, n_readers = np.shape(values)
    shape = (n_modalities, n_readers)
    covariance = np.full(shape * 2, float(cov3))
    for modality in range(n_modalities):
        covariance[modality, :, modality] = cov2s[modality]
    for reader in range(n_readers):
        covariance[:, reader, :, reader] = np.broadcast_to(cov1s, n_readers)[reader]
        for modality in range(n_modalities):
            covariance[modality, reader, modality, reader] = np.broadcast_to(var_errors, shape)[
                modality, reader
            ]
    return ReaderFigures(
        name="AUC",
        covariance_method=method,
        values=np.array(values, dtype=float),
        covariance=covariance,
        independent_variance=np.full(n_modalities, np.mean(var_errors) / n_readers),
        n_shared_cases=np.full(shape * 2, 114),
        fewest_cases=45,
    )


def van_dyke(method="jackknife"):
    *cov2s, cov3 = D5[method]["cov"]
    return figures_from(AUCS, np.square(CELL_SES), COV1_OF_READERS, cov2s, cov3, method=method)


@pytest.mark.parametrize("method", D5)
def test_case_d5_random_readers_and_cases(method):
    printed, found = D5[method], obuchowski_rockette(van_dyke(method))
    assert found.ms_modality == pytest.approx(0.00479617, abs=5e-9)
    assert found.ms_reader == pytest.approx(0.00383620, abs=5e-9)
    assert found.ms_modality_reader == pytest.approx(0.00055103, abs=5e-9)
    f, df2, p, se, low, high = printed["f"]
    # The eighth digit of the printed AUCs and tenth of the covariances move F in its seventh.
    assert (found.statistic, found.df2) == pytest.approx((f, df2), rel=1e-6)
    assert found.df1 == 1
    difference = found.differences[0]
    assert (difference.first, difference.second) == (0, 1)
    assert difference.estimate.estimate == pytest.approx(-0.04380032, abs=1e-8)
    assert (found.p_value, difference.p_value) == pytest.approx((p, p), abs=6e-7)
    assert difference.statistic == pytest.approx(-sqrt(f), rel=1e-6)
    estimate = difference.estimate
    assert (estimate.standard_error, estimate.ci_low, estimate.ci_high) == pytest.approx(
        (se, low, high), abs=7e-8
    )
    assert estimate.df == found.df2
    for mean, (auc, se, df, low, high) in zip(found.means, printed["means"], strict=True):
        estimate = mean.estimate
        assert estimate.estimate == pytest.approx(auc, abs=5e-8)
        assert estimate.standard_error == pytest.approx(se, abs=5e-8)
        assert estimate.df == pytest.approx(df, abs=6e-3)
        assert (estimate.ci_low, estimate.ci_high) == pytest.approx((low, high), abs=1e-7)


def test_case_d5_variance_components():
    found = obuchowski_rockette(van_dyke())
    assert found.var_error == pytest.approx(0.0008022883, abs=5e-11)
    assert found.cov1 == pytest.approx(0.0003466137, abs=5e-9)
    assert found.cov2 == pytest.approx(0.0003440748, abs=1e-10)
    assert found.cov3 == pytest.approx(0.0002390284, abs=5e-11)
    assert found.var_reader == pytest.approx(0.00153500, abs=5e-9)
    assert found.var_modality_reader == pytest.approx(0.00020040, abs=8e-9)


def test_case_d5_fixed_readers():
    found = obuchowski_rockette_fixed_readers(van_dyke())
    assert found.statistic == pytest.approx(5.47595, abs=4e-5)
    assert (found.df1, found.df2) == (1, None)
    assert found.p_value == pytest.approx(0.01928, abs=5e-6)
    difference = found.differences[0]
    assert difference.estimate.standard_error == pytest.approx(0.01871748, abs=5e-8)
    assert difference.estimate.df is None
    assert difference.statistic == pytest.approx(-2.340075, abs=1e-5)
    assert (difference.estimate.ci_low, difference.estimate.ci_high) == pytest.approx(
        (-0.08048591, -0.00711473), abs=1e-7
    )
    printed = [
        (0.0010141028, 0.0004839618, 0.02428971, 0.8494301, 0.9446440),
        (0.0005904738, 0.0002041879, 0.01677632, 0.9079564, 0.9737183),
    ]
    for mean, (var_error, cov2, se, low, high) in zip(found.means, printed, strict=True):
        assert (mean.var_error, mean.cov2) == pytest.approx((var_error, cov2), abs=5e-11)
        assert mean.estimate.standard_error == pytest.approx(se, abs=5e-9)
        assert (mean.estimate.ci_low, mean.estimate.ci_high) == pytest.approx((low, high), abs=6e-8)


# Reader, difference, standard error, limits, z, p: each from that reader's readings alone.
SINGLE_READERS = [
    (0, -0.02818, 0.02551, -0.07818, 0.02182, -1.10, 0.2693),
    (1, -0.04654, 0.02630, -0.09809, 0.00501, -1.77, 0.0768),
    (2, -0.01787, 0.03121, -0.07904, 0.04330, -0.57, 0.5668),
    (3, -0.02625, 0.01729, -0.06014, 0.00764, -1.52, 0.1290),
    (4, -0.10016, 0.04406, -0.18651, -0.01381, -2.27, 0.0230),
]


@pytest.mark.parametrize(("reader", "change", "se", "low", "high", "z", "p"), SINGLE_READERS)
def test_case_d5_single_readers(reader, change, se, low, high, z, p):
    alone = obuchowski_rockette_fixed_readers(van_dyke()).readers[reader]
    (difference,) = alone.differences
    estimate = difference.estimate
    assert (
        estimate.estimate,
        estimate.standard_error,
        estimate.ci_low,
        estimate.ci_high,
    ) == pytest.approx((change, se, low, high), abs=6e-6)
    assert difference.statistic == pytest.approx(z, abs=5e-3)
    assert difference.p_value == pytest.approx(p, abs=6e-5)
    for modality, one in enumerate(alone.figures):
        assert one.estimate == pytest.approx(AUCS[modality][reader], abs=1e-12)
        assert one.standard_error == pytest.approx(CELL_SES[modality][reader], abs=1e-12)


def test_case_d5_fixed_cases():
    found = obuchowski_rockette_fixed_cases(van_dyke())
    assert found.statistic == pytest.approx(8.704, abs=5e-4)
    assert (found.df1, found.df2) == (1, 4)
    assert found.p_value == pytest.approx(0.04195875, abs=1e-7)
    estimate = found.differences[0].estimate
    assert estimate.standard_error == pytest.approx(0.01484629, abs=5e-9)
    assert (estimate.ci_low, estimate.ci_high) == pytest.approx(
        (-0.08502022, -0.00258042), abs=1e-8
    )
    printed = [(0.02482994, 0.8280981, 0.9659760), (0.01615303, 0.8959894, 0.9856854)]
    for mean, (se, low, high) in zip(found.means, printed, strict=True):
        assert mean.estimate.standard_error == pytest.approx(se, abs=1e-8)
        assert (mean.estimate.ci_low, mean.estimate.ci_high) == pytest.approx((low, high), abs=6e-8)
        assert mean.estimate.df == 4


def test_case_d7_one_reader_is_refused_for_other_readers_and_answered_for_herself():
    alone = figures_from(
        [[AUCS[0][0]], [AUCS[1][0]]], [[0.00090755], [0.00049025]], 0.00037347, [0, 0], 0
    )
    for analysis in (obuchowski_rockette, obuchowski_rockette_fixed_cases):
        with pytest.raises(MrmcError, match="1 reader says nothing about other readers; use `obu"):
            analysis(alone)
    found = obuchowski_rockette_fixed_readers(alone)
    assert found.statistic == pytest.approx(1.22011, abs=2e-5)
    assert found.p_value == pytest.approx(0.2693, abs=5e-5)
    (difference,) = found.differences
    assert difference.estimate.estimate == pytest.approx(-0.02818035, abs=1.1e-8)
    assert difference.estimate.standard_error == pytest.approx(0.02551, abs=5e-6)
    assert difference.statistic == pytest.approx(-1.10, abs=5e-3)
    # The old program prints NaN for Cov2 here.
    assert (found.cov2, found.means[0].cov2, found.ms_reader) == (None, None, None)
    assert all(isfinite(number) for number in every_number(found))


# Raw readings are GPL-3 (data/VanDyke.RData of brian-j-smith/MRMCaov), so they are not shipped.
RAW = os.environ.get("VAN_DYKE_CSV")


@pytest.mark.skipif(not RAW, reason="VAN_DYKE_CSV names no file: treatment, reader, truth, rating")
@pytest.mark.parametrize(
    ("figures_of", "printed"),
    [
        (auc_jackknife, (0.0008022883, 0.0003466137, 0.0003440748, 0.0002390284, 4.456319)),
        (auc_delong, (0.0007921325, 0.0003420090, 0.0003395265, 0.0002358497, 4.484854)),
        (auc_unbiased, (0.0007883925, 0.0003416706, 0.0003390650, 0.0002356148, 4.489614)),
    ],
)
def test_case_d5_from_the_raw_readings(figures_of, printed):
    columns = np.genfromtxt(RAW, delimiter=",", names=True)
    tables = [
        columns["rating"][columns["truth"] == truth].reshape(2, 5, -1) for truth in (1, 0)
    ]  # sorted by treatment, reader, case
    figures = figures_of(*tables)
    assert figures.values == pytest.approx(np.array(AUCS), abs=5e-9)
    found = obuchowski_rockette(figures)
    covariances = (found.var_error, found.cov1, found.cov2, found.cov3)
    assert covariances == pytest.approx(printed[:4], abs=5e-11)
    assert found.statistic == pytest.approx(printed[4], abs=5e-7)


# OR-DBM MRMC 2.51 printout (RJafroc, inst/Iowa/FedRoc.txt): 4 readers × 5 treatments, 200 cases.
FED = [
    [0.90425000, 0.79820000, 0.81175000, 0.86645000],
    [0.86425000, 0.84470000, 0.82050000, 0.87160000],
    [0.81295000, 0.81635000, 0.75275000, 0.85730000],
    [0.90235000, 0.83150000, 0.78865000, 0.87980000],
    [0.84140000, 0.77300000, 0.77115000, 0.84800000],
]
FED_VAR = np.array([[0.00071053, 0.00075106, 0.00087587, 0.00072652, 0.00088163]]).T
FED_COV2 = [0.00021119, 0.00026649, 0.00024646, 0.00022043, 0.00022200]
FED_MEANS = [
    (0.84516250, 0.02857824, 5.46, 0.77351391, 0.91681109, 0.01833087),
    (0.85026250, 0.01992816, 27.72, 0.80942311, 0.89110189, 0.01968838),
    (0.80983750, 0.02664789, 7.04, 0.74689261, 0.87278239, 0.02009512),
    (0.85057500, 0.02940870, 5.40, 0.77664342, 0.92450658, 0.01862661),
    (0.80838750, 0.02575835, 6.78, 0.74706747, 0.86970753, 0.01967001),
]
FED_DIFFERENCES = {
    (0, 1): (-0.00510, 0.7616, -0.04002, 0.02982),
    (0, 2): (0.03533, 0.0477, 0.00040, 0.07025),
    (0, 3): (-0.00541, 0.7475, -0.04033, 0.02951),
    (0, 4): (0.03678, 0.0402, 0.00185, 0.07170),
    (1, 2): (0.04042, 0.0258, 0.00550, 0.07535),
    (1, 3): (-0.00031, 0.9851, -0.03523, 0.03461),
    (1, 4): (0.04187, 0.0216, 0.00695, 0.07680),
    (2, 3): (-0.04074, 0.0249, -0.07566, -0.00582),
    (2, 4): (0.00145, 0.9312, -0.03347, 0.03637),
    (3, 4): (0.04219, 0.0208, 0.00727, 0.07711),
}


def fed():
    return figures_from(FED, FED_VAR, 0.00029480, FED_COV2, 0.00021213)


def test_five_modalities_random_readers_and_cases():
    found = obuchowski_rockette(fed())
    assert (found.ms_modality, found.ms_reader, found.ms_modality_reader) == pytest.approx(
        (0.00189696, 0.00729418, 0.00046221), abs=5e-9
    )
    assert found.var_reader == pytest.approx(0.00128372, abs=1e-8)
    assert found.var_modality_reader == pytest.approx(-0.00001093, abs=2e-8)
    assert found.error_term == pytest.approx(0.00054695, abs=4e-8)
    assert (found.statistic, found.df1, found.df2) == pytest.approx((3.47, 4, 16.80), abs=5e-3)
    assert found.p_value == pytest.approx(0.0305, abs=5e-5)
    assert {(one.first, one.second) for one in found.differences} == set(FED_DIFFERENCES)
    for one in found.differences:
        change, p, low, high = FED_DIFFERENCES[one.first, one.second]
        estimate = one.estimate
        assert (estimate.estimate, estimate.ci_low, estimate.ci_high) == pytest.approx(
            (change, low, high), abs=7e-6
        )
        assert estimate.standard_error == pytest.approx(0.01654, abs=5e-6)
        assert one.p_value == pytest.approx(p, abs=6e-5)
    for mean, (auc, se, df, low, high, _) in zip(found.means, FED_MEANS, strict=True):
        assert mean.estimate.estimate == pytest.approx(auc, abs=5e-9)
        assert mean.estimate.standard_error == pytest.approx(se, abs=1e-7)
        assert mean.estimate.df == pytest.approx(df, abs=5e-3)
        assert (mean.estimate.ci_low, mean.estimate.ci_high) == pytest.approx((low, high), abs=3e-7)


def test_five_modalities_fixed_readers():
    found = obuchowski_rockette_fixed_readers(fed())
    assert (found.statistic, found.df1) == pytest.approx((13.60126, 4), rel=2e-4)
    assert found.p_value == pytest.approx(0.0087, abs=5e-5)
    for mean, (*_, se) in zip(found.means, FED_MEANS, strict=True):
        assert mean.estimate.standard_error == pytest.approx(se, abs=2e-7)


@pytest.mark.parametrize("figures_of", [percent_correct_jackknife, percent_correct_unbiased])
def test_case_c5_difference_of_two_modalities(figures_of):
    found = obuchowski_rockette(figures_of(tables_of_both_modalities()))
    assert (found.ms_modality, found.ms_modality_reader) == pytest.approx(
        (0.02390123, 0.001802469), abs=5e-9
    )
    assert (found.var_error, found.cov1, found.cov2, found.cov3) == pytest.approx(
        (0.0023681257, 0.0009943883, 0.0010145903, 0.0006604938), abs=6e-11
    )
    assert found.var_reader == pytest.approx(0.0049747475, abs=5e-11)
    assert found.var_modality_reader == pytest.approx(0.0007828283, abs=5e-11)
    assert found.statistic == pytest.approx(6.689493, abs=5e-7)
    assert found.df2 == pytest.approx(15.71732, abs=5e-6)
    assert found.p_value == pytest.approx(0.02008822, abs=5e-9)
    estimate = found.differences[0].estimate
    assert estimate.estimate == pytest.approx(-0.09777778, abs=5e-9)
    assert estimate.standard_error == pytest.approx(0.03780451, abs=5e-9)
    assert (estimate.ci_low, estimate.ci_high) == pytest.approx((-0.1780371, -0.0175185), abs=5e-8)


@pytest.mark.parametrize(("modality", "name"), list(enumerate(VAN_DYKE)))
def test_case_c5_one_modality_is_that_of_crossed(modality, name):
    table = tables_of_both_modalities()
    by_crossed = crossed.random_readers_and_cases(table[modality])
    for analysis in (table, table[modality]):
        mean = obuchowski_rockette(percent_correct_jackknife(analysis)).means[
            modality if analysis is table else 0
        ]
        estimate = mean.estimate
        for value, other in (
            (estimate.estimate, by_crossed.estimate),
            (mean.ms_reader, by_crossed.ms_reader),
            (mean.cov2, by_crossed.cov2),
            (estimate.standard_error, by_crossed.standard_error),
            (estimate.df, by_crossed.df),
            (estimate.ci_low, by_crossed.ci_low),
            (estimate.ci_high, by_crossed.ci_high),
            (mean.design_effect, by_crossed.design_effect),
        ):
            assert value == pytest.approx(other, rel=1e-12)


def test_any_figure_of_merit_can_be_jackknifed_such_as_d_prime():
    positive, negative = ratings(np.random.default_rng(6), 5, 40, 40)

    def d_prime(yes, no):
        hits = (np.count_nonzero(yes >= 2, axis=-1) + 0.5) / (yes.shape[-1] + 1)
        false_alarms = (np.count_nonzero(no >= 2, axis=-1) + 0.5) / (no.shape[-1] + 1)
        return norm.ppf(hits) - norm.ppf(false_alarms)

    figures = jackknife(d_prime, positive, negative, name="d′")
    hits = (np.count_nonzero(positive >= 2, axis=-1) + 0.5) / 41
    false_alarms = (np.count_nonzero(negative >= 2, axis=-1) + 0.5) / 41
    delta = sum(
        p * (1 - p) / 40 / norm.pdf(norm.ppf(p)) ** 2 for p in (hits, false_alarms)
    )  # the delta method
    variances = np.einsum("trtr->tr", figures.covariance)
    assert variances == pytest.approx(delta, rel=0.12)
    assert obuchowski_rockette(figures).means[0].estimate.is_estimable


@pytest.mark.parametrize("seed", range(4))
def test_the_analysis_is_that_written_out_by_hand(seed):
    rng = np.random.default_rng(seed)
    figures = auc_jackknife(*ratings(rng, 6, 25, 20, n_modalities=3, step=0.2))
    y, c = figures.values, figures.covariance
    n_t, n_r = y.shape
    ms_t = sum(n_r * (y[t].mean() - y.mean()) ** 2 for t in range(n_t)) / (n_t - 1)
    ms_tr = sum(
        (y[t, r] - y[t].mean() - y[:, r].mean() + y.mean()) ** 2
        for t in range(n_t)
        for r in range(n_r)
    ) / ((n_t - 1) * (n_r - 1))
    pairs_t, pairs_r = list(permutations(range(n_t), 2)), list(permutations(range(n_r), 2))
    cov1 = np.mean([c[t, r, u, r] for t, u in pairs_t for r in range(n_r)])
    cov2 = np.mean([c[t, r, t, s] for t in range(n_t) for r, s in pairs_r])
    cov3 = np.mean([c[t, r, u, s] for t, u in pairs_t for r, s in pairs_r])
    var_error = np.mean([c[t, r, t, r] for t in range(n_t) for r in range(n_r)])
    error = ms_tr + n_r * max(cov2 - cov3, 0)

    found = obuchowski_rockette(figures)
    assert (found.var_error, found.cov1, found.cov2, found.cov3) == pytest.approx(
        (var_error, cov1, cov2, cov3), rel=1e-10
    )
    assert found.statistic == pytest.approx(ms_t / error, rel=1e-10)
    assert found.df2 == pytest.approx(error**2 / (ms_tr**2 / ((n_t - 1) * (n_r - 1))), rel=1e-10)
    fixed = obuchowski_rockette_fixed_readers(figures)
    error = var_error - cov1 + (n_r - 1) * max(cov2 - cov3, 0)
    assert fixed.statistic == pytest.approx((n_t - 1) * ms_t / error, rel=1e-10)


def test_with_cases_fixed_two_modalities_are_a_paired_t_test():
    figures = auc_jackknife(*ratings(np.random.default_rng(7), 8, 30, 30, n_modalities=2))
    found = obuchowski_rockette_fixed_cases(figures)
    test = ttest_rel(figures.values[0], figures.values[1])
    assert found.p_value == pytest.approx(test.pvalue, rel=1e-10)
    assert found.differences[0].statistic == pytest.approx(test.statistic, rel=1e-10)


def test_f_of_two_modalities_is_the_square_of_t():
    figures = auc_jackknife(*ratings(np.random.default_rng(8), 5, 30, 30, n_modalities=2))
    found = obuchowski_rockette(figures)
    assert found.statistic == pytest.approx(found.differences[0].statistic ** 2, rel=1e-10)
    assert found.p_value == pytest.approx(found.differences[0].p_value, rel=1e-10)


def test_relabelling_readers_and_cases_changes_nothing():
    rng = np.random.default_rng(9)
    positive, negative = ratings(rng, 5, 20, 15, n_modalities=2)
    one = obuchowski_rockette(auc_unbiased(positive, negative))
    who = rng.permutation(5)
    other = obuchowski_rockette(
        auc_unbiased(
            rng.permutation(positive[:, who], axis=2), rng.permutation(negative[:, who], axis=2)
        )
    )
    assert list(every_number(other)) == pytest.approx(list(every_number(one)), rel=1e-9, abs=1e-15)


def nested_in_modalities(table):
    return np.swapaxes(nested_in_readers(np.swapaxes(table, 0, 1)), 0, 1)


def test_cases_nested_in_readers_have_no_covariances_between_readers():
    positive, negative = ratings(np.random.default_rng(16), 5, 45, 69, n_modalities=2)
    crossed_one = obuchowski_rockette(auc_jackknife(positive, negative))
    nested = obuchowski_rockette(
        auc_jackknife(nested_in_readers(positive), nested_in_readers(negative))
    )
    assert (nested.cov2, nested.cov3) == (0, 0)
    # As in the vignette of MRMCaov for Van Dyke: 0.0008079682 for 0.0008022883, since the jackknife
    # is then of 570 cases, not 114.
    factor = (569 / 570) / (113 / 114)
    assert factor == pytest.approx(0.0008079682 / 0.0008022883, abs=2e-7)
    assert nested.var_error == pytest.approx(crossed_one.var_error * factor, rel=1e-12)
    assert nested.cov1 == pytest.approx(crossed_one.cov1 * factor, rel=1e-12)
    fixed_cases = obuchowski_rockette_fixed_cases(auc_jackknife(positive, negative))
    assert nested.p_value == pytest.approx(fixed_cases.p_value, rel=1e-10)
    unbiased = auc_unbiased(nested_in_readers(positive), nested_in_readers(negative)).covariance
    assert (unbiased[:, 0, :, 1:] == 0).all()
    of_crossed = auc_unbiased(positive, negative).covariance
    for reader in range(5):
        assert unbiased[:, reader, :, reader] == pytest.approx(
            of_crossed[:, reader, :, reader], abs=1e-15
        )


def test_cases_nested_in_modalities_have_no_covariances_between_modalities():
    positive, negative = ratings(np.random.default_rng(17), 5, 45, 69, n_modalities=2)
    crossed_one = obuchowski_rockette(auc_jackknife(positive, negative))
    nested = obuchowski_rockette(
        auc_jackknife(nested_in_modalities(positive), nested_in_modalities(negative))
    )
    assert (nested.cov1, nested.cov3) == (0, 0)
    factor = (227 / 228) / (113 / 114)  # 0.0003455973 for 0.0003440748 in the vignette
    assert factor == pytest.approx(0.0003455973 / 0.0003440748, abs=2e-7)
    assert nested.cov2 == pytest.approx(crossed_one.cov2 * factor, rel=1e-12)


def blocks(rng, n_blocks, n_readers, n_cases, *, n_modalities=1, steps=None):
    """Readers in groups, each with cases of its own. (T, R, N₁), (T, R, N₀), groups"""
    parts = [
        ratings(
            rng,
            n_readers,
            n_cases,
            n_cases,
            n_modalities=n_modalities,
            separation=1.2 + (0 if steps is None else steps[block]),
        )
        for block in range(n_blocks)
    ]
    tables = []
    for which in range(2):
        table = np.full((n_modalities, n_blocks * n_readers, n_blocks * n_cases), np.nan)
        for block, part in enumerate(parts):
            rows = slice(block * n_readers, (block + 1) * n_readers)
            columns = slice(block * n_cases, (block + 1) * n_cases)
            table[:, rows, columns] = part[which]
        tables.append(table)
    return *tables, np.repeat(np.arange(n_blocks), n_readers)


def test_split_plot_analysis_is_that_written_out_by_hand():
    *tables, groups = blocks(np.random.default_rng(18), 3, 4, 20, n_modalities=2)
    figures = auc_unbiased(*tables)
    found = obuchowski_rockette_split_plot(figures, groups)
    y = figures.values.reshape(2, 3, 4)  # modality, group, reader
    of_group, of_reader = y.mean(axis=2, keepdims=True), y.mean(axis=0, keepdims=True)
    ms_reader = [((one - one.mean(axis=1, keepdims=True)) ** 2).sum() / 9 for one in y]
    within = y - of_group - of_reader + of_group.mean(axis=0, keepdims=True)
    ms_tr = (within**2).sum() / 9
    c = figures.covariance.reshape(2, 3, 4, 2, 3, 4)
    pairs = list(permutations(range(4), 2))
    cov2s = [np.mean([c[t, g, r, t, g, s] for g in range(3) for r, s in pairs]) for t in range(2)]
    cov3 = np.mean([c[0, g, r, 1, g, s] for g in range(3) for r, s in pairs])
    assert found.ms_modality_reader == pytest.approx(ms_tr, rel=1e-10)
    assert (found.cov2, found.cov3) == pytest.approx((np.mean(cov2s), cov3), rel=1e-10)
    error = ms_tr + 12 / 3 * max(np.mean(cov2s) - cov3, 0)
    assert found.error_term == pytest.approx(error, rel=1e-10)
    assert found.df2 == pytest.approx(error**2 / (ms_tr**2 / 9), rel=1e-10)
    for mean, ms, cov2 in zip(found.means, ms_reader, cov2s, strict=True):
        assert mean.ms_reader == pytest.approx(ms, rel=1e-10)
        total = ms + 4 * max(cov2, 0)
        assert mean.estimate.standard_error == pytest.approx(sqrt(total / 12), rel=1e-10)
        assert mean.estimate.df == pytest.approx(total**2 / (ms**2 / 9), rel=1e-10)


def test_one_group_of_all_readers_is_no_split_plot():
    figures = auc_jackknife(*ratings(np.random.default_rng(19), 5, 20, 20, n_modalities=2))
    one = obuchowski_rockette_split_plot(figures, ["a"] * 5)
    other = obuchowski_rockette(figures)
    assert list(every_number(one)) == pytest.approx(list(every_number(other)), rel=1e-12)


def test_blocks_that_differ_widen_the_ungrouped_interval_and_not_the_grouped_one():
    *tables, groups = blocks(np.random.default_rng(20), 3, 4, 40, steps=(-1.0, 0.0, 1.0))
    figures = auc_jackknife(*tables)
    grouped = obuchowski_rockette_split_plot(figures, groups).means[0].estimate
    ungrouped = obuchowski_rockette(figures).means[0].estimate
    assert grouped.standard_error < 0.7 * ungrouped.standard_error


def test_a_group_of_one_reader_is_refused_with_advice():
    figures = percent_correct_jackknife(answers(np.random.default_rng(21), 3, 20))
    with pytest.raises(MrmcError, match="group b has one reader, whose skill cannot be told from"):
        obuchowski_rockette_split_plot(figures, ["a", "a", "b"])


def test_groups_that_share_cases_are_refused_with_advice():
    figures = percent_correct_jackknife(answers(np.random.default_rng(22), 4, 20))
    with pytest.raises(
        MrmcError, match="readers 1 and 3 are in different groups and read the same"
    ):
        obuchowski_rockette_split_plot(figures, [0, 0, 1, 1])


def test_groups_must_be_named_for_each_reader():
    figures = percent_correct_jackknife(answers(np.random.default_rng(23), 4, 20))
    with pytest.raises(MrmcError, match="4 readers have 3 groups; name one for each"):
        obuchowski_rockette_split_plot(figures, [0, 0, 1])


def test_fixing_the_kinds_narrows_the_interval_of_readers_better_at_one():
    rng = np.random.default_rng(27)
    is_easy = np.arange(100) < 50
    table = (rng.random((6, 100)) < np.where(is_easy, 0.95, 0.35)).astype(float)
    loose = obuchowski_rockette(percent_correct_jackknife(table)).means[0].estimate
    tight = obuchowski_rockette(percent_correct_stratified(table, is_easy)).means[0].estimate
    assert tight.estimate == pytest.approx(loose.estimate, abs=1e-12)
    assert tight.standard_error < 0.8 * loose.standard_error


def all_analyses(figures):
    yield obuchowski_rockette(figures)
    yield obuchowski_rockette_fixed_readers(figures)
    yield obuchowski_rockette_fixed_cases(figures)


def degenerate_tables():
    rng = np.random.default_rng(29)
    perfect = np.ones((2, 4, 12))
    yield "all right", perfect
    yield "all wrong", 0 * perfect
    yield (
        "one reader is never wrong",
        np.concatenate([np.ones((2, 1, 12)), answers(rng, 3, 12, n_modalities=2)], axis=1),
    )
    yield "all readers answer alike", np.repeat(answers(rng, 1, 12, n_modalities=2), 4, axis=1)
    yield "modalities are alike", np.repeat(answers(rng, 4, 12), 2, axis=0)
    yield "never wrong together", np.tile(np.arange(12) // 3 != np.arange(4)[:, None], (2, 1, 1))
    for _ in range(25):
        yield "tiny", rng.integers(0, 2, (2, rng.integers(2, 4), rng.integers(2, 5)))


def check_is_honest(found):
    assert all(isfinite(number) for number in every_number(found))
    for one in (*found.means, *found.differences):
        if not one.estimate.is_estimable:
            assert one.estimate.reason
            assert one.design_effect is None
        else:
            assert one.estimate.ci_low < one.estimate.estimate < one.estimate.ci_high


@pytest.mark.filterwarnings("error")
def test_degenerate_answers_give_not_estimable_and_a_reason_never_nan():
    for label, table in degenerate_tables():
        found = [*all_analyses(percent_correct_jackknife(table))]
        found.append(u_statistics_percent_correct(table))
        for one in found:
            check_is_honest(one)
            if label in ("all right", "all wrong"):
                assert not one.means[0].estimate.is_estimable
                assert "no sign of certainty" in one.means[0].estimate.reason
                assert one.means[0].estimate.estimate == table[0, 0, 0]


@pytest.mark.filterwarnings("error")
def test_degenerate_ratings_give_not_estimable_and_a_reason_never_nan():
    for _, table in degenerate_tables():
        rounded = np.asarray(table, dtype=float)
        if rounded.shape[-1] < 4:
            continue
        positive, negative = rounded[..., 2:], rounded[..., :2]
        for figures_of in (auc_jackknife, auc_delong, auc_unbiased):
            for one in all_analyses(figures_of(positive, negative)):
                check_is_honest(one)
        check_is_honest(u_statistics_auc(positive, negative))


def test_a_perfect_reader_is_not_estimable_alone_and_cautioned_against():
    positive, negative = ratings(np.random.default_rng(30), 3, 20, 20)
    positive[0, 0], negative[0, 0] = 5, 1
    found = obuchowski_rockette_fixed_readers(auc_jackknife(positive, negative))
    assert found.readers[0].figures[0].estimate == 1
    assert not found.readers[0].figures[0].is_estimable
    assert any("who is never wrong" in caution for caution in found.cautions)


def test_readers_who_are_equally_good_leave_the_normal_quantile():
    table = np.array([[1, 1, 1, 0, 1, 0], [1, 1, 1, 0, 1, 0]])
    estimate = obuchowski_rockette(percent_correct_jackknife(table)).means[0].estimate
    assert estimate.df is None
    assert estimate.ci_high - estimate.estimate == pytest.approx(1.959964 * estimate.standard_error)


def test_few_readers_and_few_cases_are_cautioned_against():
    rng = np.random.default_rng(31)
    few = obuchowski_rockette(percent_correct_jackknife(answers(rng, 3, 8)))
    assert f"With 3 readers (fewer than {FEWEST_READERS})" in few.cautions[0]
    assert f"only 8 cases of a class (fewer than {FEWEST_CASES})" in few.cautions[1]
    assert not obuchowski_rockette(percent_correct_jackknife(answers(rng, 5, 10))).cautions
    fixed = obuchowski_rockette_fixed_readers(percent_correct_jackknife(answers(rng, 3, 30)))
    assert not fixed.cautions
    assert u_statistics_percent_correct(answers(rng, 3, 8)).cautions == few.cautions[:2]


def covered(estimate, truth):
    return estimate.is_estimable and estimate.ci_low <= truth <= estimate.ci_high


def true_auc(rng):
    return np.mean([auc_delong(*ratings(rng, 100, 200, 200)).values.mean() for _ in range(12)])


def test_auc_intervals_cover_the_truth_for_other_readers_and_cases_and_fixed_ones_do_not():
    rng = np.random.default_rng(2026)
    truth = true_auc(rng)
    n_studies, random, fixed, gallas = 250, 0, 0, 0
    for _ in range(n_studies):
        tables = ratings(rng, 8, 80, 80)
        figures = auc_jackknife(*tables)
        random += covered(obuchowski_rockette(figures).means[0].estimate, truth)
        fixed += covered(obuchowski_rockette_fixed_readers(figures).means[0].estimate, truth)
        gallas += covered(u_statistics_auc(*tables).means[0].estimate, truth)
    assert 0.92 <= random / n_studies <= 0.98
    assert 0.92 <= gallas / n_studies <= 0.985
    assert fixed / n_studies < random / n_studies - 0.03


def test_equal_modalities_differ_in_five_per_cent_of_studies():
    rng = np.random.default_rng(2027)
    p_values = [
        obuchowski_rockette(auc_jackknife(*ratings(rng, 6, 30, 30, n_modalities=2))).p_value
        for _ in range(400)
    ]
    assert 0.025 <= np.mean(np.array(p_values) < 0.05) <= 0.075


def test_split_plot_intervals_cover_the_truth_of_blocks_and_readers_drawn_at_random():
    rng = np.random.default_rng(2028)
    truth = true_auc(rng)
    n_studies, grouped, ungrouped = 250, 0, 0
    for _ in range(n_studies):
        *tables, groups = blocks(rng, 3, 4, 20)
        figures = auc_jackknife(*tables)
        grouped += covered(obuchowski_rockette_split_plot(figures, groups).means[0].estimate, truth)
        ungrouped += covered(obuchowski_rockette(figures).means[0].estimate, truth)
    assert 0.91 <= grouped / n_studies <= 0.985
    assert 0.91 <= ungrouped / n_studies <= 0.985


def test_intervals_cover_the_truth_where_answers_are_missing():
    rng = np.random.default_rng(2029)
    mean, reader_sd, case_sd, n_studies = 0.4, 0.3, 0.5, 400
    truth = norm.cdf(mean / sqrt(1 + reader_sd**2 + case_sd**2))
    found = np.zeros(3)
    for _ in range(n_studies):
        table = random_table(rng, 8, 60, mean=mean, reader_sd=reader_sd, case_sd=case_sd)
        table = with_gaps(rng, table.astype(float), 0.3)
        for which, figures_of in enumerate((percent_correct_jackknife, percent_correct_unbiased)):
            found[which] += covered(obuchowski_rockette(figures_of(table)).means[0].estimate, truth)
        found[2] += covered(u_statistics_percent_correct(table).means[0].estimate, truth)
    assert ((found / n_studies >= 0.915) & (found / n_studies <= 0.98)).all()


def timed(function):
    tracemalloc.start()
    start = time.perf_counter()
    function()
    seconds, (_, peak) = time.perf_counter() - start, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return seconds, peak / 2**30


def test_a_hundred_readers_of_ten_thousand_cases_take_seconds_and_little_memory():
    rng = np.random.default_rng(32)
    table = random_table(rng, 100, 10_000)
    positive, negative = (
        np.digitize(rng.normal(mean, 1, (100, 5_000)), [-0.5, 0.2, 0.8, 1.6]) for mean in (1, 0)
    )
    for analysis in (
        lambda: crossed.random_readers_and_cases(table),
        lambda: obuchowski_rockette(percent_correct_jackknife(table)),
        lambda: u_statistics_percent_correct(table),
        lambda: obuchowski_rockette(auc_jackknife(positive, negative)),
        lambda: obuchowski_rockette(auc_delong(positive, negative)),
    ):
        seconds, gib = timed(analysis)
        assert seconds < 10
        assert gib < 2


def test_quantiles_of_another_level_are_used_where_asked():
    figures = van_dyke()
    estimate = obuchowski_rockette(figures, confidence_level=0.9).means[0].estimate
    assert estimate.confidence_level == 0.9
    assert estimate.ci_high - estimate.estimate == pytest.approx(
        student_t.ppf(0.95, estimate.df) * estimate.standard_error
    )
