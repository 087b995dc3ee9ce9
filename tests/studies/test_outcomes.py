from math import sqrt

import numpy as np
import pandas as pd
import pytest
from scipy.stats import mannwhitneyu, norm, ttest_1samp, ttest_ind
from scipy.stats import t as student_t
from statsmodels.stats.multitest import multipletests

from studies.crossed import fixed_readers, random_readers_and_cases
from studies.detection import crossed_detection
from studies.obuchowski_rockette import obuchowski_rockette
from studies.outcomes import outcome, parts, secondary_tests
from studies.proportions import wilson
from studies.protocol import AnalysisPlan, Protocol
from studies.reader_figures import auc_jackknife
from tests.studies.results import limits
from tests.studies.sections import judged, with_answers
from tests.studies.test_crossed import VAN_DYKE, a_table_like

TABLE = judged(n_readers=6, n_cases=60, d_prime=0.8)


def planned(n_trials=60, **analysis):
    return Protocol(study_id="s", n_trials=n_trials, analysis=AnalysisPlan(**analysis))


def secondary(name, table):
    return secondary_tests(table, planned(secondary=(name,)))


def the_test(name, table):
    (found,) = secondary(name, table)
    return found


def long(correct, is_synthetic, **columns):
    """The responses of readers × pictures that are right as told. (R, N), (N,)"""
    correct, is_synthetic = np.asarray(correct, dtype=bool), np.asarray(is_synthetic, dtype=bool)
    n_readers, n_cases = correct.shape
    called = np.where(correct == is_synthetic, "generated", "real")
    table = pd.DataFrame(
        {
            "participant_id": np.repeat([f"r{i}" for i in range(n_readers)], n_cases),
            "stimulus_id": np.tile([f"c{i:04}" for i in range(n_cases)], n_readers),
            "is_synthetic": np.tile(is_synthetic, n_readers),
            "response": called.ravel(),
        }
        | {name: np.tile(values, n_readers) for name, values in columns.items()}
    )
    return with_answers(table)


def wide(table):
    """Readers × pictures that were judged right, and which pictures are generated."""
    found = table.pivot(index="participant_id", columns="stimulus_id", values="is_correct")
    truth = table.groupby("stimulus_id")["is_synthetic"].first()
    return found.to_numpy(), truth[found.columns].to_numpy()


def numbers(found):
    names = ("estimate", "standard_error", "df", "ci_low", "ci_high")
    return [-1 if getattr(found, name) is None else getattr(found, name) for name in names]


@pytest.mark.parametrize("name", ["sensitivity", "specificity"])
@pytest.mark.parametrize("modality", VAN_DYKE)
def test_the_van_dyke_readings_give_their_printed_interval(name, modality):
    # Case C5 of the reference: 5 readers, 45 cases of one kind; 20 cases of the other beside them.
    published = VAN_DYKE[modality]
    correct = np.hstack([a_table_like(published), np.eye(5, 20)])
    is_generated = (np.arange(65) < 45) == (name == "sensitivity")
    found = outcome(name, long(correct, is_generated), planned())
    for value, name in zip(numbers(found.headline), ("mean", "standard_error", "df"), strict=False):
        assert value == pytest.approx(published[name][0], abs=published[name][1], rel=0)
    assert limits(found.headline) == pytest.approx(published["ci"][0], abs=published["ci"][1])
    assert (found.n_readers, found.n_cases, found.n_judgements) == (5, 45, 225)
    assert found.n_correct == sum(published["n_correct"])


@pytest.mark.parametrize("name", ["sensitivity", "specificity"])
def test_one_kind_is_analysed_as_crossed_readers_and_cases(name):
    correct, is_generated = wide(TABLE)
    of_kind = correct[:, is_generated == (name == "sensitivity")]
    found = outcome(name, TABLE, planned())
    expected = random_readers_and_cases(of_kind)
    assert numbers(found.other_readers) == pytest.approx(numbers(expected), rel=1e-12)
    assert found.design_effect == pytest.approx(expected.design_effect, rel=1e-12)
    error = fixed_readers(of_kind).standard_error
    assert found.these_readers.standard_error == pytest.approx(error, rel=1e-12)


def stratified(correct, is_generated, level=0.95):
    """By hand: kinds are strata of fixed size, so their covariances over pictures add up."""
    n_readers, n_cases = correct.shape
    means = correct.mean(axis=1)
    cov2 = 0.0
    for kind in (True, False):
        part = correct[:, is_generated == kind]
        share = part.shape[1] / n_cases
        cov2 += share**2 * random_readers_and_cases(part).cov2
    ms = means.var(ddof=1)
    total = ms + n_readers * max(cov2, 0)
    error, df = sqrt(total / n_readers), total**2 / (ms**2 / (n_readers - 1))
    half = student_t.ppf(0.5 + level / 2, df) * error
    return means.mean(), error, df, means.mean() - half, means.mean() + half


@pytest.mark.parametrize("n_generated", [30, 20])
def test_accuracy_has_the_kinds_as_strata_and_each_counts_by_its_share(n_generated):
    order = TABLE["stimulus_id"].str[5:].astype(int)
    table = TABLE[~TABLE["is_synthetic"] | (order <= 2 * n_generated)]
    found = outcome("accuracy", table, planned()).other_readers
    assert numbers(found) == pytest.approx(stratified(*wide(table)), rel=1e-12)
    assert found.estimate == pytest.approx(table["is_correct"].mean(), rel=1e-12)


def test_where_the_kinds_are_alike_the_strata_change_the_degrees_of_freedom_alone():
    correct, is_generated = wide(TABLE)
    half = correct[:, is_generated]
    twice = np.hstack([half, half])
    found = outcome("accuracy", long(twice, np.arange(60) < 30), planned()).other_readers
    pooled = random_readers_and_cases(twice)
    # The same sum of squares over N − 2 instead of N − 1.
    expected = pooled.ms_reader / 6 + pooled.cov2 * 59 / 58
    assert found.standard_error**2 == pytest.approx(expected, rel=1e-12)
    assert found.estimate == pooled.estimate


def test_the_area_is_that_of_answers_and_confidence_as_one_scale():
    # 1 to 12, from the surest "real" to the surest "generated".
    sure, says = TABLE["confidence"].astype(float), TABLE["response"] == "generated"
    ratings, is_generated = wide(TABLE.assign(is_correct=np.where(says, 6 + sure, 7 - sure)))
    positive, negative = ratings[:, is_generated], ratings[:, ~is_generated]
    found = outcome("auc", TABLE, planned())
    expected = obuchowski_rockette(auc_jackknife(positive, negative)).means[0]
    assert numbers(found.other_readers) == pytest.approx(numbers(expected.estimate), rel=1e-12)
    assert found.design_effect == pytest.approx(expected.design_effect)
    by_reader = mannwhitneyu(positive, negative, axis=1).statistic / 900
    assert found.headline.estimate == pytest.approx(by_reader.mean())
    pooled = mannwhitneyu(positive.ravel(), negative.ravel()).statistic / 180**2
    assert found.naive.estimate == pytest.approx(pooled)


def test_the_naive_interval_is_wilsons():
    for name, rows in (("accuracy", TABLE), ("specificity", TABLE[~TABLE["is_synthetic"]])):
        found = outcome(name, TABLE, planned()).naive
        expected = wilson(rows["is_correct"].sum(), len(rows))
        assert found.estimate == expected.estimate
        assert limits(found) == limits(expected)


def test_one_reader_is_judged_for_other_pictures_only():
    alone = TABLE[TABLE["participant_id"] == "reader-2"]
    found = outcome("sensitivity", alone, planned())
    assert found.headline is found.these_readers
    error = fixed_readers(wide(alone)[0][:, wide(alone)[1]]).standard_error
    assert found.headline.standard_error == pytest.approx(error, rel=1e-12)
    assert not found.other_readers.is_estimable
    assert found.design_effect is not None


@pytest.mark.parametrize("name", ["accuracy", "sensitivity", "auc"])
def test_names_and_the_order_of_rows_do_not_matter(name):
    renamed = TABLE.assign(
        participant_id=TABLE["participant_id"].str[7:].astype(int).map(lambda i: f"P{9 - i}"),
        stimulus_id=TABLE["stimulus_id"].map(lambda text: text[::-1]),
    ).sample(frac=1, random_state=2)
    found, expected = outcome(name, renamed, planned()), outcome(name, TABLE, planned())
    for which in ("other_readers", "these_readers", "naive"):
        wanted = numbers(getattr(expected, which))
        assert numbers(getattr(found, which)) == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize(
    ("name", "table", "reason"),
    [
        ("auc", TABLE.assign(confidence=np.nan), "the responses have no confidence, or lack it"),
        (
            "accuracy",
            TABLE[(TABLE["participant_id"] != "reader-4") | (TABLE["trial_number"] == 1)],
            "reader-4 has judged fewer than 2 generated pictures",
        ),
        (
            "accuracy",
            with_answers(TABLE, response=np.where(TABLE["is_synthetic"], "generated", "real")),
            "the readings show no variance, which is no sign of certainty",
        ),
    ],
)
def test_what_cannot_be_estimated_says_why(name, table, reason):
    found = outcome(name, table, planned())
    assert limits(found.headline) == (None, None)
    assert reason in found.headline.reason
    assert found.design_effect is None


@pytest.mark.parametrize("name", ["sensitivity", "specificity", "auc"])
def test_a_share_is_tested_against_one_half(name):
    found, expected = the_test(name, TABLE), outcome(name, TABLE, planned()).headline
    assert found.estimate == expected
    assert found.null == 0.5
    t = (expected.estimate - 0.5) / expected.standard_error
    assert found.p_value == pytest.approx(2 * student_t.sf(abs(t), expected.df))


@pytest.mark.parametrize("name", ["d_prime", "criterion"])
def test_detection_is_tested_against_none(name):
    called = TABLE.assign(is_correct=TABLE["response"] == "generated")
    found, expected = the_test(name, TABLE), crossed_detection(*wide(called))
    assert (found.estimate, found.null) == (getattr(expected, name).mean, 0)
    assert (found.p_value < 0.05) == (found.estimate.ci_low > 0 or found.estimate.ci_high < 0)


def test_readers_who_learn_drift_by_as_much_as_they_learn():
    table = judged(
        n_readers=20, n_cases=400, d_prime=1.5, learning=1.5,
        d_prime_sd=0, criterion_sd=0, case_sd=0, lapse_rate=0,
    )  # fmt: skip
    at = np.linspace(-0.5, 0.5, 400)
    truth = np.polyfit(at, norm.cdf((1.5 + 1.5 * at) / 2), 1)[0]
    found = the_test("drift", table)
    assert truth == pytest.approx(0.224, abs=0.001)
    assert found.estimate.estimate == pytest.approx(truth, abs=0.05)
    assert found.estimate.ci_low < truth < found.estimate.ci_high
    assert (found.null, found.p_value < 1e-6) == (0, True)


def test_drift_is_each_readers_least_squares_slope_over_the_session():
    number = TABLE["participant_id"].str[7:].astype(int)
    table = TABLE.assign(is_correct=TABLE["trial_number"] > 9 * number)
    slopes = [
        59 * np.polyfit(rows["trial_number"], rows["is_correct"].astype(float), 1)[0]
        for _, rows in table.groupby("participant_id")
    ]
    found, expected = the_test("drift", table), ttest_1samp(slopes, 0)
    assert found.estimate.estimate == pytest.approx(np.mean(slopes))
    assert limits(found.estimate) == pytest.approx(tuple(expected.confidence_interval()))
    assert found.p_value == pytest.approx(expected.pvalue)


def test_wrong_answers_that_take_longer_are_told_as_a_logarithm():
    number = TABLE["participant_id"].str[7:].astype(float)
    ratio = np.where(TABLE["is_correct"], 1.0, 1.5 + 0.1 * number)
    found = the_test("response_time", TABLE.assign(response_time_s=4 * ratio))
    logs = np.log(1.5 + 0.1 * np.arange(1, 7))
    assert found.estimate.estimate == pytest.approx(logs.mean())
    assert found.p_value == pytest.approx(ttest_1samp(logs, 0).pvalue)


def test_a_class_that_is_easier_is_found_and_its_interval_is_that_of_two_sets_of_pictures():
    class_name = np.array(["a", "b", "c"])[np.arange(90) % 3]
    correct = np.random.default_rng(8).random((7, 90)) < np.where(class_name == "b", 0.85, 0.55)
    table = long(correct, np.arange(90) < 45, class_name=class_name)
    hard, easy, _ = secondary("class", table)
    assert easy.label == "Accuracy, class b less the others"
    here, there = correct[:, class_name == "b"], correct[:, class_name != "b"]
    change = here.mean(axis=1) - there.mean(axis=1)
    cov2 = random_readers_and_cases(here).cov2 + random_readers_and_cases(there).cov2
    variance = change.var(ddof=1) / 7 + max(cov2, 0)
    assert easy.estimate.estimate == pytest.approx(change.mean())
    assert easy.estimate.standard_error == pytest.approx(sqrt(variance))
    assert easy.estimate.ci_low < 0.3 < easy.estimate.ci_high
    assert (easy.null, easy.p_value < 0.001) == (0, True)
    assert hard.estimate.estimate < 0


def test_two_classes_are_one_question_and_an_unnamed_one_is_none():
    names = np.where(TABLE["class_name"].isin(["ig", "platelet"]), "a", "b")
    (two,) = secondary("class", TABLE.assign(class_name=names))
    assert two.label == "Accuracy, class a less the others"
    some = TABLE.assign(class_name=TABLE["class_name"].replace("ig", ""))
    assert len(secondary("class", some)) == 7
    one = the_test("class", TABLE.assign(class_name="x"))
    assert one.p_value is None
    assert "fewer than two in the column `class_name`" in one.estimate.reason


def test_generators_are_compared_on_generated_pictures_alone():
    number = TABLE["stimulus_id"].str[5:].astype(int)
    names = np.where(~TABLE["is_synthetic"], "", np.where(number % 4 == 0, "gan", "diffusion"))
    table = TABLE.assign(generator=names)
    (found,) = secondary("generator", table)
    accuracy = table[table["is_synthetic"]].groupby("generator")["is_correct"].mean()
    assert found.label == "Accuracy, generator diffusion less the others"
    assert found.estimate.estimate == pytest.approx(accuracy["diffusion"] - accuracy["gan"])
    assert "`generator`" in the_test("generator", TABLE).estimate.reason


def grouped(experts):
    experience = np.where(TABLE["participant_id"].isin(experts), "expert", "student")
    return TABLE.assign(experience=experience)


def test_groups_of_readers_are_compared_by_welchs_test():
    table = grouped(["reader-1", "reader-2", "reader-4", "reader-5"])
    accuracy = table.groupby(["experience", "participant_id"])["is_correct"].mean()
    expected = ttest_ind(accuracy["expert"], accuracy["student"], equal_var=False)
    (found,) = secondary("experience", table)
    assert found.label == "Accuracy, readers “expert” less the others"
    change = accuracy["expert"].mean() - accuracy["student"].mean()
    assert found.estimate.estimate == pytest.approx(change)
    assert (found.p_value, found.estimate.df) == pytest.approx((expected.pvalue, expected.df))
    assert limits(found.estimate) == pytest.approx(tuple(expected.confidence_interval()))
    is_right = (table["experience"] == "expert") | (table["trial_number"] % 9 == 0)
    better = table.assign(is_correct=is_right & (table["trial_number"] != table["confidence"]))
    assert the_test("experience", better).estimate.estimate > 0.5


def test_three_groups_make_three_tests_and_a_group_of_one_none():
    names = TABLE["participant_id"].str[7:].map(dict(zip("123456", "aabbcc", strict=True)))
    assert len(secondary("experience", TABLE.assign(experience=names))) == 3
    alone = the_test("experience", grouped(["reader-3"]))
    assert (alone.p_value, alone.estimate.estimate is None) == (None, False)
    assert "a group of one reader does not show how readers of it differ" in alone.estimate.reason
    unnamed = the_test("experience", TABLE.assign(experience=""))
    assert "fewer than two in the column `experience`" in unnamed.estimate.reason


def test_a_test_without_its_column_says_so():
    for name, column in (("drift", "trial_number"), ("response_time", "response_time_s")):
        found = the_test(name, TABLE.drop(columns=column))
        assert (found.p_value, found.p_adjusted) == (None, None)
        assert f"the responses have no `{column}`" in found.estimate.reason


def test_all_secondary_tests_are_corrected_together_by_holm():
    declared = ("sensitivity", "specificity", "auc", "d_prime", "criterion", "drift", "class")
    found = secondary_tests(TABLE, planned(secondary=declared))
    assert len(found) == 6 + 8
    expected = multipletests([one.p_value for one in found], method="holm")[1]
    assert [one.p_adjusted for one in found] == pytest.approx(expected)


def test_a_test_that_could_not_be_made_does_not_help_the_others():
    found = secondary_tests(TABLE, planned(secondary=("sensitivity", "d_prime", "generator")))
    assert found[2].p_adjusted is None
    expected = multipletests([found[0].p_value, found[1].p_value, 1.0], method="holm")[1]
    assert [one.p_adjusted for one in found[:2]] == pytest.approx(expected[:2])
    assert secondary_tests(TABLE, planned()) == ()


def test_parts_count_each_judgement_once_and_leave_out_what_has_no_group():
    by = TABLE["confidence"].where(TABLE["confidence"] > 1)
    found = parts(TABLE, by, 0.95)
    assert [float(one.name) for one in found] == [2, 3, 4, 5, 6]
    for one in found:
        rows = TABLE[by == float(one.name)]
        assert (one.n_correct, one.n_judgements) == (rows["is_correct"].sum(), len(rows))
        assert one.median_response_time_s == rows["response_time_s"].median()


@pytest.mark.parametrize(("name", "df"), [("accuracy", 58), ("sensitivity", 29), ("auc", 58)])
def test_these_readers_have_a_t_quantile_with_variances_within_each_kind(name, df):
    found = outcome(name, TABLE, planned()).these_readers
    assert found.df == df
    half = student_t.ppf(0.975, df) * found.standard_error
    assert limits(found) == pytest.approx((found.estimate - half, found.estimate + half))
    # As for fixed readers of a complete table of one kind.
    correct, is_synthetic = wide(TABLE)
    if name == "sensitivity":
        assert limits(found) == pytest.approx(limits(fixed_readers(correct[:, is_synthetic])))
