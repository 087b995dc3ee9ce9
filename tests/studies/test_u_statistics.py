import numpy as np
import pytest

from studies.mrmc import MrmcError
from studies.obuchowski_rockette import (
    obuchowski_rockette,
)
from studies.reader_figures import (
    auc_delong,
    auc_jackknife,
    auc_unbiased,
    jackknife,
    percent_correct_jackknife,
    percent_correct_unbiased,
)
from studies.u_statistics import u_statistics_auc, u_statistics_percent_correct
from tests.studies.test_reader_figures import answers, ratings, tables_of_both_modalities, with_gaps


def test_case_c5_standard_errors_of_gallas():
    found = u_statistics_percent_correct(tables_of_both_modalities())
    variances = [mean.unbiased_variance for mean in found.means]
    assert np.sqrt(variances) == pytest.approx((0.0589374681, 0.0374165739), abs=5e-11)
    assert found.means[0].design_effect == pytest.approx(5.3, abs=0.05)
    assert found.differences[0].estimate.standard_error == pytest.approx(0.03780451, abs=5e-9)


@pytest.mark.parametrize("seed", range(12))
def test_gallas_and_obuchowski_rockette_are_one_for_percent_correct(seed):
    rng = np.random.default_rng(seed)
    table = answers(rng, rng.integers(2, 8), rng.integers(3, 50), n_modalities=2)
    analysis = obuchowski_rockette(percent_correct_unbiased(table))
    check_identity(analysis, u_statistics_percent_correct(table), table.shape[1])


@pytest.mark.parametrize("seed", range(12))
def test_gallas_and_obuchowski_rockette_are_one_for_the_auc(seed):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(3, 25, size=2)
    tables = ratings(rng, rng.integers(2, 8), *sizes, n_modalities=2)
    analysis = obuchowski_rockette(auc_unbiased(*tables))
    check_identity(analysis, u_statistics_auc(*tables), tables[0].shape[1])


def check_identity(analysis, gallas, n_readers):
    for mean, one in zip(analysis.means, gallas.means, strict=True):
        assert one.estimate.estimate == pytest.approx(mean.estimate.estimate, rel=1e-12)
        assert one.unbiased_variance == pytest.approx(
            mean.ms_reader / n_readers + mean.cov2, abs=1e-13
        )
        if mean.estimate.is_estimable:
            assert one.estimate.standard_error == pytest.approx(
                mean.estimate.standard_error, rel=1e-8
            )
            if mean.design_effect:
                assert one.design_effect == pytest.approx(mean.design_effect, rel=1e-6)
    (difference,), (other,) = gallas.differences, analysis.differences
    assert difference.modalities == (0, 1)
    variance = analysis.ms_modality_reader + n_readers * (analysis.cov2 - analysis.cov3)
    assert difference.unbiased_variance == pytest.approx(2 * variance / n_readers, abs=1e-13)
    if other.estimate.is_estimable:
        assert difference.estimate.standard_error == pytest.approx(
            other.estimate.standard_error, rel=1e-8
        )


@pytest.mark.parametrize("seed", range(3))
def test_gallas_variance_of_incomplete_tables_is_that_of_its_definition(seed):
    rng = np.random.default_rng(seed)
    table = with_gaps(rng, answers(rng, 4, 8, n_modalities=2), 0.3)
    readings = [
        [(r, n, one[r, n]) for r, n in np.ndindex(one.shape) if not np.isnan(one[r, n])]
        for one in table
    ]

    def covariance(one, other):
        free = [x * y for r, i, x in one for s, j, y in other if r != s and i != j]
        return np.mean([x for *_, x in one]) * np.mean([y for *_, y in other]) - np.mean(free)

    (a, b), found = readings, u_statistics_percent_correct(table)
    assert found.n_readings == (len(a), len(b))
    assert found.means[0].unbiased_variance == pytest.approx(covariance(a, a), abs=1e-14)
    assert found.differences[0].unbiased_variance == pytest.approx(
        covariance(a, a) + covariance(b, b) - 2 * covariance(a, b), abs=1e-14
    )


def test_gallas_variance_of_incomplete_ratings_is_that_of_its_definition():
    rng = np.random.default_rng(1)
    x, y = (with_gaps(rng, one, 0.3) for one in ratings(rng, 3, 6, 5, n_modalities=2))
    pairs = [
        [
            (r, i, j, (one[r, i] > other[r, j]) + 0.5 * (one[r, i] == other[r, j]))
            for r, i in np.ndindex(one.shape)
            for j in range(other.shape[1])
            if not np.isnan(one[r, i] + other[r, j])
        ]
        for one, other in zip(x, y, strict=True)
    ]

    def moments(one, other):
        mean, mean_other = np.mean([w for *_, w in one]), np.mean([w for *_, w in other])
        free = [
            (w, v) for r, i, j, w in one for s, p, q, v in other if r != s and i != p and j != q
        ]
        raw = mean * mean_other - np.mean([w * v for w, v in free])
        return raw, -np.mean([(w - mean) * (v - mean_other) for w, v in free])

    (a, b), found = pairs, u_statistics_auc(x, y)
    expected = np.array(moments(a, a)) + moments(b, b) - 2 * np.array(moments(a, b))
    for statistic, (raw, centred) in (
        (found.means[0], moments(a, a)),
        (found.differences[0], expected),
    ):
        assert statistic.unbiased_variance == pytest.approx(raw, abs=1e-14)
        # The standard error is of the centred one, or of the readers' share where that is larger.
        assert statistic.estimate.standard_error**2 >= centred - 1e-14


def test_centring_tames_the_variance_of_readers_with_unequal_loads():
    rng = np.random.default_rng(12)
    raw, used, estimates = [], [], []
    for _ in range(120):
        table = answers(rng, 8, 60)
        table = np.where(rng.random(table.shape) < np.linspace(0, 0.75, 8)[:, None], np.nan, table)
        mean = u_statistics_percent_correct(table).means[0]
        raw.append(mean.unbiased_variance)
        used.append(mean.estimate.standard_error**2)
        estimates.append(mean.estimate.estimate)
    assert np.mean(np.array(raw) < 0) > 0.1
    assert np.std(used) < 0.5 * np.std(raw)
    assert np.mean(used) == pytest.approx(np.var(estimates), rel=0.3)


def test_where_readers_do_not_differ_and_share_no_case_readings_are_independent():
    rng = np.random.default_rng(13)
    table = np.full((10, 400), np.nan)
    for reader in range(10):
        table[reader, 40 * reader : 40 * reader + 40] = rng.random(40) < 0.8
    found = u_statistics_percent_correct(table).means[0]
    assert found.design_effect == pytest.approx(1, abs=0.5)


def test_u_statistics_need_no_reader_to_have_read_both_modalities():
    rng = np.random.default_rng(14)
    table = answers(rng, 8, 50, n_modalities=2)
    table[0, :4] = table[1, 4:] = np.nan
    found = u_statistics_percent_correct(table)
    assert found.differences[0].estimate.is_estimable
    with pytest.raises(MrmcError, match="reader 1 read 0 cases in modality 1; a figure with a var"):
        percent_correct_unbiased(table)


def test_modalities_with_neither_readers_nor_cases_in_common_are_independent():
    table = np.full((2, 8, 100), np.nan)
    one = answers(np.random.default_rng(15), 4, 50, n_modalities=2)
    table[0, :4, :50], table[1, 4:, 50:] = one
    found = u_statistics_percent_correct(table)
    variances = [mean.estimate.standard_error**2 for mean in found.means]
    assert found.differences[0].estimate.standard_error ** 2 == pytest.approx(
        sum(variances), rel=1e-9
    )


REFUSALS = [
    (lambda: percent_correct_jackknife(np.full((3, 9), 4)), r"right \(1\) or wrong \(0\), NaN wh"),
    (
        lambda: percent_correct_jackknife(np.ones(9)),
        r"shape \(9,\) is not \(modalities ×\) readers",
    ),
    (lambda: percent_correct_jackknife(np.ones((3, 0))), "one row for each reader and one column"),
    (lambda: percent_correct_jackknife(np.ones((3, 1))), "reader 1 read 1 cases in modality 1"),
    (lambda: auc_jackknife(np.ones((3, 1)), np.ones((3, 5))), "read 1 cases that are positive in"),
    (lambda: auc_jackknife(np.ones((3, 5)), np.ones((3, 1))), "read 1 cases that are negative in"),
    (lambda: auc_jackknife(np.ones((3, 5)), np.ones((2, 5))), "the same modalities and readers in"),
    (lambda: auc_jackknife(np.full((3, 5), np.inf), np.ones((3, 5))), "give finite numbers, and"),
    (
        lambda: auc_delong(np.array([[1, 2, np.nan], [1, 2, 3]]), np.ones((2, 3))),
        "use the jackknife or the unbiased covariances",
    ),
    (
        lambda: obuchowski_rockette(percent_correct_jackknife(np.eye(4)), confidence_level=95),
        r"give a fraction such as 0\.95",
    ),
    (
        lambda: u_statistics_percent_correct(np.ones((1, 9))),
        "modality 1 has readings of 1 readers; of other readers something can be said from 2",
    ),
    (
        lambda: u_statistics_percent_correct(np.ones((3, 1))),
        "modality 1 has readings of 1 cases; of other cases something can be said from 2",
    ),
    (
        lambda: u_statistics_auc(np.ones((3, 1)), np.ones((3, 4))),
        "modality 1 has readings of 1 positive cases",
    ),
    (
        lambda: u_statistics_percent_correct(np.eye(3), confidence_level=0),
        "give a fraction such as",
    ),
    (
        lambda: jackknife(lambda one: one.mean(), np.ones((2, 3)), name="mean"),
        r"mean has shape \(\) or is not finite; a figure of merit gives one number for each of 1",
    ),
]


@pytest.mark.parametrize(("attempt", "words"), REFUSALS)
def test_what_cannot_be_analysed_is_refused_with_advice(attempt, words):
    with pytest.raises(MrmcError, match=words):
        attempt()
