"""Anomaly scores: the stated rate of false alarms holds, and what is odd is found."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from scipy.stats import binom

from diffusion.anomaly import (
    PARTS,
    AnomalyReference,
    Measurements,
    Tail,
    assess,
    conformal_p_values,
    error_profiles,
    fit_anomaly_reference,
    fit_tail,
)
from diffusion.mahalanobis import fit_class_gaussians, ledoit_wolf, six_digits
from diffusion.texture import fit_texture_reference
from diffusion.zeta import normalised_class_errors, zeta, zeta_corrected

N_CLASSES, N_BINS, N_FEATURES, N_TEXTURES = 4, 10, 16, 12
HIGH, LOW = range(4), range(6, 10)
_rng = np.random.default_rng(0)
PROFILE_MEANS = _rng.normal(0, 0.4, (N_CLASSES, N_BINS))
PROFILE_MIX = np.eye(N_BINS) + 0.3 * _rng.normal(size=(N_BINS, N_BINS))
FEATURE_MEANS = 2 * _rng.normal(size=(N_CLASSES, N_FEATURES))
FEATURE_MIX = np.linalg.qr(_rng.normal(size=(N_FEATURES,) * 2))[0] * np.geomspace(0.3, 2, 16)
# Classes differ in the first six statistics of the texture and are alike in the others.
TEXTURE_MEANS = 3 * _rng.normal(size=(N_CLASSES, N_TEXTURES)) * (np.arange(N_TEXTURES) < 6)
EVERY_PART = (*PARTS, "high_noise", "profile", "features", "disagreement")


def cells(
    n, seed, *, profile_shift=0.0, feature_shift=0.0, texture_shift=0.0, texture_size=1.0, doubt=0.0
):
    """Cells with heavy tails; all that is measured depends on the class and on each other."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(N_CLASSES, size=n)
    size = rng.standard_t(5, size=(n, N_BINS))
    profiles = PROFILE_MEANS[labels] + 0.15 * size @ PROFILE_MIX.T + profile_shift
    inner = rng.normal(size=(n, N_FEATURES)) + 0.3 * size[:, :1] + feature_shift
    close = texture_size * rng.normal(size=(n, N_TEXTURES)) + 0.3 * size[:, 1:2]
    posteriors = np.full((n, N_CLASSES), 0.02 / (N_CLASSES - 1))
    posteriors[np.arange(n), labels] = 0.98
    made = Measurements(
        profiles=profiles,
        features=FEATURE_MEANS[labels] + inner @ FEATURE_MIX.T,
        texture=TEXTURE_MEANS[labels] + close + texture_shift,
        doubt=rng.gumbel(size=n) + 0.5 * size[:, 2] + doubt,
        posteriors=posteriors,
        others={"disagreement": rng.exponential(size=n)},
    )
    return made, labels


def fitted(seed=0, n=400, **options):
    reference_cells, labels = cells(n, 1000 + seed)
    options = {"parts": EVERY_PART} | options
    return fit_anomaly_reference(reference_cells, labels, high_noise=HIGH, low_noise=LOW, **options)


@cache
def reference():
    return fitted()


@cache
def by_default():
    made, labels = cells(400, 1000)
    return fit_anomaly_reference(made, labels, high_noise=HIGH, low_noise=LOW)


def p_values(made, of=None):
    return np.array([one.p_value for one in assess(of or reference(), made[0])])


# False alarms.


@pytest.fixture(scope="module")
def null_p_values():
    """One new cell for each of many references: independent, as the guarantee wants them."""
    found = []
    for seed in range(500):
        of, (new, _) = fitted(seed, n=160), cells(1, 50_000 + seed)
        (one,) = assess(of, new)
        found.append((one.p_value, one.bonferroni_p_value))
    return np.array(found)


@pytest.mark.parametrize("rate", [0.05, 0.1, 0.3])
@pytest.mark.parametrize("column", [0, 1])
def test_false_alarms_stay_within_the_stated_rate(null_p_values, rate, column):
    n_alarms = (null_p_values[:, column] <= rate).sum()
    assert binom.sf(n_alarms - 1, len(null_p_values), rate) > 1e-3


def test_the_second_calibration_uses_the_whole_rate_where_bonferroni_cannot(null_p_values):
    combined, bonferroni = (null_p_values <= 0.3).mean(axis=0)
    assert combined > 0.24
    assert bonferroni < combined


def test_each_part_surprises_by_one_nat_on_average():
    """-ln of a uniform p-value has mean 1, whether a part is one- or two-sided."""
    parts = np.concatenate([np.array(fitted(seed).surprises) for seed in range(5)])
    np.testing.assert_allclose(parts.mean(axis=0), 1, atol=0.15)


# Power.


def is_high(i):
    return np.arange(N_BINS) <= i


ANOMALIES = {
    "more error at high noise": ({"profile_shift": 0.6 * is_high(3)}, "high_noise"),
    "less error at high noise": ({"profile_shift": -0.6 * is_high(3)}, "high_noise"),
    "more error at low noise": ({"profile_shift": 0.6 * ~is_high(5)}, "low_noise"),
    "too smooth: less error at low noise": ({"profile_shift": -0.6 * ~is_high(5)}, "low_noise"),
    "a profile of another form": (
        {"profile_shift": 0.6 * np.cos(np.pi * np.arange(N_BINS))},
        "profile",
    ),
    "unknown features": ({"feature_shift": np.linspace(-3, 3, N_FEATURES)}, "features"),
    "another stain": ({"texture_shift": np.linspace(-6, 6, N_TEXTURES)}, "texture"),
    "more noise": ({"texture_size": 3.0}, "texture"),
    "a head in doubt": ({"doubt": 8.0}, "doubt"),
}


@pytest.mark.parametrize("name", ANOMALIES)
def test_an_anomaly_is_found_and_the_part_that_sees_it_says_so(name):
    changes, part = ANOMALIES[name]
    of = by_default() if part in PARTS else reference()
    found = assess(of, cells(200, 7, **changes)[0])
    assert np.mean([one.is_anomalous(0.05) for one in found]) > 0.6
    assert np.median([one.parts[part] for one in found]) < 0.05


def test_the_second_calibration_finds_more_than_bonferroni():
    found = assess(
        reference(), cells(400, 8, profile_shift=0.25, feature_shift=0.5, texture_size=1.2)[0]
    )
    combined = np.mean([one.p_value <= 0.05 for one in found])
    assert combined > np.mean([one.bonferroni_p_value <= 0.05 for one in found]) + 0.05


def test_scores_rank_cells_that_lie_beyond_every_reference_cell():
    near, far = (assess(reference(), cells(50, 9, profile_shift=shift)[0]) for shift in (3.0, 6.0))
    assert {one.p_value for one in (*near, *far)} == {1 / (1 + near[0].n_reference)}
    assert max(one.score for one in near) < min(one.score for one in far)


def test_a_score_of_ones_own_can_be_a_part():
    made, labels = cells(400, 3)
    odd, _ = cells(100, 4)
    odd.others["disagreement"][:] += 8
    of = fit_anomaly_reference(
        made, labels, high_noise=HIGH, low_noise=LOW, parts=["profile", "disagreement"]
    )
    assert of.part_names == ("profile", "disagreement")
    assert np.mean(p_values((odd, None), of) < 0.05) > 0.9


def test_features_and_profile_do_not_count_by_default():
    assert by_default().part_names == ("low_noise", "texture", "relative_texture", "doubt")
    new, _ = cells(100, 7)
    unknown, _ = cells(100, 7, feature_shift=np.linspace(-5, 5, N_FEATURES))
    assert assess(by_default(), unknown) == assess(by_default(), new)
    assert np.median(p_values((unknown, None))) < np.median(p_values((new, None))) / 4


def test_doubt_counts_and_an_unusually_sure_head_is_no_anomaly():
    # All cells from one seed: these differ in nothing else.
    usual, sure, unsure = (cells(200, 7, doubt=shift)[0] for shift in (0.0, -8.0, 8.0))
    of = [np.array([one.parts["doubt"] for one in assess(by_default(), c)]) for c in (sure, unsure)]
    assert np.median(of[0]) > 0.99
    assert np.median(of[1]) < 0.01
    flags = [(p_values((c, None), by_default()) <= 0.05).mean() for c in (usual, unsure)]
    assert flags[1] > flags[0] + 0.3


# The texture.


def test_the_p_value_of_the_texture_alone_ranks_all_reference_cells_whatever_parts_count():
    made, labels = cells(400, 1000)
    alone = fit_texture_reference(made.texture, labels)
    assert by_default().texture == alone
    assert fitted(parts=["high_noise", "doubt"]).texture == alone


def texture_parts(n=40_000):
    """Two Gaussians of known means, 4 apart in the first of three statistics, and their fit."""
    rng = np.random.default_rng(0)
    labels = np.arange(n) % 2
    texture = rng.normal(size=(n, 3)) + np.array([[-2, 0, 0], [2, 0, 0]])[labels]
    made = Measurements(
        profiles=rng.normal(size=(n, 4)),
        features=rng.normal(size=(n, 2)),
        texture=texture,
        doubt=rng.normal(size=n),
        posteriors=np.eye(2)[labels],
    )
    return fit_anomaly_reference(made, labels, high_noise=[0], low_noise=[3]).fitted, texture


def nearest_class(fitted_parts, texture):
    return fitted_parts.texture.squared_distances(texture).min(axis=1)


def relative(fitted_parts, texture):
    return (
        nearest_class(fitted_parts, texture)
        - fitted_parts.all_textures.squared_distances(texture)[:, 0]
    )


def test_texture_is_the_distance_to_the_nearest_class_and_relative_to_that_to_all():
    # Within classes the covariance is the identity; around the mean of all, diag(1 + 4, 1, 1).
    fitted_parts, texture = texture_parts()
    x = texture[:200]
    nearest = (np.abs(x[:, 0]) - 2) ** 2 + x[:, 1] ** 2 + x[:, 2] ** 2
    whole = x[:, 0] ** 2 / 5 + x[:, 1] ** 2 + x[:, 2] ** 2
    np.testing.assert_allclose(nearest_class(fitted_parts, x), nearest, atol=0.3)
    np.testing.assert_allclose(relative(fitted_parts, x), nearest - whole, atol=0.3)
    n = len(x)
    scores = fitted_parts.scores(
        Measurements(
            profiles=np.zeros((n, 4)),
            features=np.zeros((n, 2)),
            texture=x,
            doubt=np.arange(float(n)),
            posteriors=np.full((n, 2), 0.5),
        )
    )
    np.testing.assert_allclose(scores["texture"] ** 2, nearest_class(fitted_parts, x))
    np.testing.assert_allclose(scores["relative_texture"], relative(fitted_parts, x))
    np.testing.assert_array_equal(scores["doubt"], np.arange(n))


def test_what_varies_alike_in_all_classes_hardly_counts_in_the_relative_distance():
    """Ren et al. (2021): a direction in which classes do not differ cancels, which is why the
    p-value that withholds verdicts takes the plain distance; one in which they do counts for a
    share of what it does there."""
    fitted_parts, _ = texture_parts()

    def grown(shift):
        at = np.array([2.0, 0, 0]) + np.array([[0, 0, 0], shift])
        plain = np.diff(nearest_class(fitted_parts, at))[0]
        return plain, np.diff(relative(fitted_parts, at))[0]

    plain, remaining = grown([0, 5, 5])
    assert plain == pytest.approx(50, rel=0.05)
    assert abs(remaining) < 0.05 * plain
    plain, remaining = grown([10, 0, 0])
    assert plain == pytest.approx(100, rel=0.05)
    assert remaining == pytest.approx(100 - (12**2 - 2**2) / 5, rel=0.05)


# What the answer may and may not depend on.


def test_units_do_not_matter():
    made, labels = cells(300, 1)
    new, _ = cells(60, 2, profile_shift=0.1)
    stretch, shift = np.geomspace(0.2, 5, N_FEATURES), np.linspace(-5, 5, N_FEATURES)

    def rescaled(one):
        return Measurements(
            profiles=3 * one.profiles - 1,
            features=stretch * one.features + shift,
            texture=np.geomspace(5, 0.2, N_TEXTURES) * one.texture - 2,
            doubt=2 * one.doubt - 30,
            posteriors=one.posteriors,
            others=one.others,
        )

    options = {"high_noise": HIGH, "low_noise": LOW, "parts": EVERY_PART}
    straight = assess(fit_anomaly_reference(made, labels, **options), new)
    other = assess(fit_anomaly_reference(rescaled(made), labels, **options), rescaled(new))
    np.testing.assert_allclose(
        [one.score for one in straight], [one.score for one in other], rtol=1e-3, atol=1e-3
    )


def test_a_cell_is_judged_alike_alone_and_among_others():
    new, _ = cells(20, 5)
    together = assess(reference(), new)
    for i in range(20):
        assert assess(reference(), new.where(np.array([i]))) == (together[i],)


def test_what_is_written_judges_as_what_was_fitted():
    written = reference().model_dump_json()
    assert len(written) < 100_000
    new, _ = cells(50, 6)
    assert assess(AnomalyReference.model_validate_json(written), new) == assess(reference(), new)


def test_a_reference_of_the_usual_size_takes_less_than_1200_kilobytes():
    rng = np.random.default_rng(0)
    labels = np.arange(500) % 8
    made = Measurements(
        profiles=rng.normal(size=(500, 12)),
        features=rng.normal(size=(500, 64)),
        texture=rng.normal(size=(500, 160)),
        doubt=rng.normal(size=500),
        posteriors=rng.dirichlet(np.ones(8), 500),
    )
    of = fit_anomaly_reference(made, labels, high_noise=range(4), low_noise=range(8, 12))
    assert len(of.model_dump_json()) < 1_200_000


def test_no_cell_both_fits_and_is_ranked():
    n_ranked = len(reference().surprises)
    assert n_ranked == 200
    made, labels = cells(400, 1000)
    made.profiles[:] += 1e-9  # the same cells, not the same object
    again = fit_anomaly_reference(made, labels, high_noise=HIGH, low_noise=LOW)
    # Among its own ranked half a cell's p-values are exactly even: 2/201 .. 201/201.
    of_own = np.sort(p_values((made, None), again))
    assert of_own.min() >= 1 / 201
    ranks = np.sort(conformal_p_values(*[np.array(again.surprises).sum(axis=1)] * 2))
    np.testing.assert_allclose(ranks, np.arange(2, 202) / 201)


def test_joined_measurements_are_those_of_all_parts_in_their_order():
    whole, _ = cells(30, 5)
    parts = [whole.where(np.arange(start, stop)) for start, stop in ((0, 7), (7, 8), (8, 30))]
    joined = Measurements.joined(parts)
    for name in ("profiles", "features", "texture", "doubt", "posteriors"):
        np.testing.assert_array_equal(getattr(joined, name), getattr(whole, name))
    np.testing.assert_array_equal(joined.others["disagreement"], whole.others["disagreement"])
    assert assess(reference(), joined) == assess(reference(), whole)


def test_another_seed_divides_the_cells_in_another_way():
    assert fitted(seed=0, n=200) == fitted(seed=0, n=200)
    made, labels = cells(200, 1000)
    halves = [
        fit_anomaly_reference(made, labels, high_noise=HIGH, low_noise=LOW, seed=seed).surprises
        for seed in (0, 1)
    ]
    assert halves[0] != halves[1]


# The profile.


def test_a_profile_does_not_depend_on_where_in_their_bins_the_levels_fell():
    rng = np.random.default_rng(0)
    edges = np.linspace(-1, 6, 8)
    offsets = rng.uniform(size=(200, 1))
    log_snr = edges[:-1] + offsets
    errors = 100 * np.exp(-2 + 0.5 * log_snr - 0.01 * log_snr**2)
    profiles = error_profiles(errors, log_snr, edges, 100)
    middles = (edges[1:] + edges[:-1]) / 2
    np.testing.assert_allclose(
        profiles, np.tile(-2 + 0.5 * middles - 0.01 * middles**2, (200, 1)), atol=0.02
    )
    assert np.log(errors / 100).std(axis=0).min() > 0.1


def test_a_profile_is_the_log_of_the_mean_error_per_dimension():
    log_snr = np.array([[0.5, 0.5, 1.5, 1.5]])
    errors = np.array([[10.0, 30.0, 60.0, 100.0]])
    profiles = error_profiles(errors, log_snr, [0, 1, 2], 10)
    np.testing.assert_allclose(profiles, np.log([[2.0, 8.0]]))


def test_draws_in_one_bin_alone_are_refused():
    with pytest.raises(ValueError, match="fewer than two of the log-SNR bins"):
        error_profiles(np.ones((1, 4)), np.full((1, 4), 0.5), [0, 1, 2], 10)


def test_an_error_of_zero_is_refused():
    with pytest.raises(ValueError, match="has no logarithm"):
        error_profiles(np.array([[1.0, 0.0]]), np.array([[0.5, 1.5]]), [0, 1, 2], 10)


# The parts' mathematics.


def test_shrunk_covariances_are_closer_to_the_truth_and_can_be_inverted():
    rng = np.random.default_rng(0)
    true = np.diag(np.linspace(0.5, 2, 30))
    rows = rng.normal(size=(20, 30)) * np.sqrt(np.diag(true))
    sample = rows.T @ rows / 20
    shrunk = ledoit_wolf(rows)
    assert np.linalg.norm(shrunk - true) < 0.5 * np.linalg.norm(sample - true)
    assert np.linalg.eigvalsh(shrunk).min() > 0.05
    assert np.trace(shrunk) == pytest.approx(np.trace(sample))


def test_with_many_rows_nothing_is_shrunk():
    rows = np.random.default_rng(0).normal(size=(40_000, 3)) @ np.diag([1, 2, 3])
    np.testing.assert_allclose(ledoit_wolf(rows), rows.T @ rows / 40_000, atol=0.01)


def test_the_shrinkage_is_the_published_estimate():
    """Term by term as in Ledoit & Wolf (2004): m, d^2, b^2 with sums over rows spelled out."""
    rows = np.random.default_rng(1).normal(size=(12, 5)) * np.arange(1, 6)
    n, d = rows.shape
    sample = rows.T @ rows / n
    m = np.trace(sample) / d
    d2 = np.sum((sample - m * np.eye(d)) ** 2) / d
    b2 = min(sum(np.sum((np.outer(x, x) - sample) ** 2) / d for x in rows) / n**2, d2)
    expected = b2 / d2 * m * np.eye(d) + (d2 - b2) / d2 * sample
    np.testing.assert_allclose(ledoit_wolf(rows), expected)


def test_distances_are_mahalanobis():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(4000, 3)) @ np.array([[1, 0.5, 0], [0, 1, 0.2], [0, 0, 2]])
    labels = np.arange(4000) % 2
    values[labels == 1] += [3, 0, -1]
    found = fit_class_gaussians(values, labels).squared_distances(values[:50])
    for k in range(2):
        centred = values[labels == k] - values[labels == k].mean(axis=0)
        away = values[:50] - values[labels == k].mean(axis=0)
        exact = np.einsum("bi,ij,bj->b", away, np.linalg.inv(np.cov(centred.T)), away)
        np.testing.assert_allclose(found[:, k], exact, rtol=0.1, atol=0.05)


def test_a_unit_that_never_fires_does_not_hide_the_others():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(200, 5))
    values[:, 2] = 0
    found = fit_class_gaussians(values, np.zeros(200, dtype=np.int64))
    assert np.isfinite(found.squared_distances(values)).all()
    assert np.median(found.squared_distances(values)) < 10


def test_columns_that_do_not_vary_are_refused():
    with pytest.raises(ValueError, match="most columns have the same value"):
        fit_class_gaussians(np.ones((10, 3)), np.zeros(10, dtype=np.int64))


def test_the_tail_of_an_exponential_is_a_straight_line():
    scores = np.random.default_rng(0).exponential(2.0, 100_000)
    tail = fit_tail(scores)
    at = np.array([0.5, 2.0, 8.0, 40.0])
    np.testing.assert_allclose(tail.surprise(at), at / 2, rtol=0.06)


def test_surprise_never_falls_with_the_score():
    tail = Tail(quantiles=(0, 1, 1, 1, 2, 3, 5, 8, 9, 9.5), mean_excess=2.0)
    assert (np.diff(tail.surprise(np.linspace(-3, 50, 500))) >= 0).all()


def test_a_part_that_cannot_rank_is_refused():
    with pytest.raises(ValueError, match="it cannot rank"):
        fit_tail(np.ones(50))


def test_conformal_p_values_count_the_reference_at_or_above():
    found = conformal_p_values(np.array([0.0, 2.0, 2.5, 9.0]), np.array([1.0, 2.0, 3.0]))
    np.testing.assert_allclose(found, [1, 3 / 4, 2 / 4, 1 / 4])


def test_six_digits_are_what_is_left():
    np.testing.assert_array_equal(
        six_digits([0.0, 1234567.0, -1.23456789e-7]), [0.0, 1234570.0, -1.23457e-7]
    )


# Refusals.


def test_a_rate_that_the_reference_is_too_small_for_is_refused():
    (one,) = assess(reference(), cells(1, 1)[0])
    assert isinstance(one.is_anomalous(1 / 201), bool)
    with pytest.raises(ValueError, match="takes 999 ranked reference cells and there are 200"):
        one.is_anomalous(0.001)
    with pytest.raises(ValueError, match=r"give a fraction such as 0\.05"):
        one.is_anomalous(5)


def test_a_class_with_few_cells_is_refused():
    made, labels = cells(400, 1)
    few = (labels != 3) | (np.cumsum(labels == 3) <= 4)
    with pytest.raises(ValueError, match="give at least 20 reference cells of each of the 4"):
        fit_anomaly_reference(
            made.where(np.flatnonzero(few)), labels[few], high_noise=HIGH, low_noise=LOW
        )


def test_an_unknown_part_is_refused():
    with pytest.raises(ValueError, match=r"parts=\('magic',\); choose some of high_noise"):
        fitted(parts=["magic"])


def test_cells_measured_in_another_way_are_refused():
    new, _ = cells(3, 1)
    other = replace(new, profiles=new.profiles[:, :5])
    with pytest.raises(ValueError, match="measure both with the same model and plan"):
        assess(reference(), other)
    with pytest.raises(ValueError, match=r"\(10, 16, 5, 4, 'disagreement'\) but the reference has"):
        assess(reference(), replace(new, texture=new.texture[:, :5]))


def test_a_measurement_that_is_not_a_number_is_refused():
    new, _ = cells(3, 1)
    new.features[1, 1] = np.nan
    with pytest.raises(ValueError, match="features holds a value that is not a finite number"):
        new.where(np.arange(3))
    with pytest.raises(ValueError, match="doubt holds a value that is not a finite number"):
        replace(cells(3, 1)[0], doubt=np.array([0, np.inf, 0]))


def test_measurements_of_other_images_are_refused():
    new, _ = cells(3, 1)
    for name in ("features", "texture", "doubt", "posteriors"):
        with pytest.raises(ValueError, match=f"{name} has 2 rows for 3 profiles"):
            replace(new, **{name: getattr(new, name)[:2]})


# The published score.

BY_HAND = [
    # errors, as published, corrected
    ([0.0, 2.0], 0.0, 2.0),
    ([2.0, 1.0, 0.0], 0.5, 1.5 - 2 * 1 / 2),
    # k = 3. Published: j = 1, 2: (1 + 2)/3 - 2 * 1/6. Corrected: (1 + 2 + 5)/3 - 2 (1 + 4 + 3)/6.
    ([0.0, 1.0, 2.0, 5.0], 1.0 - 1 / 3, 8 / 3 - 16 / 6),
    ([1.0, 1.0, 1.0], 0.0, 0.0),
]


@pytest.mark.parametrize(("errors", "published", "corrected"), BY_HAND)
def test_zeta_is_what_a_hand_computes(errors, published, corrected):
    assert zeta([errors])[0] == pytest.approx(published)
    assert zeta_corrected([errors])[0] == pytest.approx(corrected)


def test_published_zeta_of_two_classes_is_always_zero():
    errors = np.random.default_rng(0).exponential(size=(50, 2))
    assert (zeta(errors) == 0).all()
    np.testing.assert_allclose(zeta_corrected(errors), np.abs(errors[:, 0] - errors[:, 1]))


def test_published_zeta_does_not_see_the_worst_class():
    errors = np.array([[0.0, 1.0, 2.0, 3.0], [0.0, 1.0, 2.0, 300.0]])
    assert zeta(errors)[0] == zeta(errors)[1]
    assert zeta_corrected(errors)[0] != zeta_corrected(errors)[1]


def test_zeta_looks_at_ten_classes_after_the_best_at_most():
    errors = np.arange(14.0)[None]
    assert zeta_corrected(errors) == zeta_corrected(errors[:, :11])


def test_class_errors_are_compared_draw_by_draw_and_have_mean_one():
    errors = np.array([[[3.0, 4.0, 8.0], [12.0, 10.0, 11.0]]])
    # Above the best: (0, 1, 5) and (2, 0, 1); means (1, 0.5, 3); mean of these 1.5.
    np.testing.assert_allclose(normalised_class_errors(errors), [[2 / 3, 1 / 3, 2]])
    assert (normalised_class_errors(np.ones((2, 3, 4))) == 0).all()


def test_zeta_of_one_class_is_refused():
    with pytest.raises(ValueError, match="at least two"):
        zeta([[1.0]])
