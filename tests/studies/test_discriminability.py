import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from studies.discriminability import (
    blocks_of_equal_count,
    compare_observers,
    consensus_confidence,
    threshold_difference,
)
from studies.psychometric_model import (
    PsychometricError,
    proportion_correct_at,
)


def test_blocks_have_equal_counts_and_do_not_overlap():
    rng = np.random.default_rng(4)
    index = rng.random(203)
    blocks = blocks_of_equal_count(index, rng.random(203) < index, n_blocks=10)
    assert blocks.n_trials.sum() == 203
    assert set(blocks.n_trials) == {20, 21}
    assert (blocks.highest[:-1] < blocks.lowest[1:]).all()
    assert blocks.levels @ blocks.n_trials == pytest.approx(index.sum())


def test_equal_trials_share_a_block_and_a_rating_scale_makes_one_of_each_rating():
    ratings = [1] * 50 + [2] * 5 + [3] * 20 + [4] * 125
    blocks = blocks_of_equal_count(ratings, [1, 0] * 100, n_blocks=10)
    # Places of 20, 40, …, 180 of 200; ends can only be at 50, 55, 75 and 200.
    assert blocks.n_trials.tolist() == [50, 5, 20, 125]
    assert blocks.levels.tolist() == [1, 2, 3, 4]
    assert (blocks.lowest == blocks.highest).all()
    # Halves: the end nearest to 100 is 75.
    assert blocks_of_equal_count(ratings, [1, 0] * 100, n_blocks=2).n_trials.tolist() == [75, 125]


def test_of_two_places_as_near_the_lower_ends_the_block():
    # Half of 4 is 2; ends are possible after 1 and after 3.
    assert blocks_of_equal_count([1, 2, 2, 3], [1, 0, 1, 1], n_blocks=2).n_trials.tolist() == [1, 3]


def test_the_order_of_trials_does_not_matter():
    rng = np.random.default_rng(6)
    index, correct = rng.integers(0, 30, 300) / 30, rng.random(300) < 0.7
    one = blocks_of_equal_count(index, correct)
    order = rng.permutation(300)
    other = blocks_of_equal_count(index[order], correct[order])
    for name in ("levels", "lowest", "highest", "n_correct", "n_trials"):
        assert getattr(one, name) == pytest.approx(getattr(other, name))


def test_trials_that_are_none_are_refused_with_their_row():
    with pytest.raises(PsychometricError, match="row 2: the index is no finite number"):
        blocks_of_equal_count([0.1, np.nan, 0.3], [1, 0, 1])
    with pytest.raises(PsychometricError, match="row 3: the answer is neither right"):
        blocks_of_equal_count([0.1, 0.2, 0.3], [1, 0, 2])
    with pytest.raises(PsychometricError, match="a text or an empty cell is neither"):
        blocks_of_equal_count([0.1, 0.2], ["yes", "no"])
    with pytest.raises(PsychometricError, match="not two lists of one length"):
        blocks_of_equal_count([0.1, 0.2], [1])
    with pytest.raises(PsychometricError, match="n_blocks=1; a curve needs"):
        blocks_of_equal_count([0.1, 0.2], [1, 0], n_blocks=1)
    assert blocks_of_equal_count([], []).n_trials.tolist() == []


def test_consensus_leaves_the_reader_out_and_counts_each_other_reader_once():
    responses = pd.DataFrame(
        [("a", "s", 1), ("a", "s", 3), ("b", "s", 4), ("c", "s", 5), ("a", "t", 2), ("b", "u", 1),
         ("c", "u", 5)],
        columns=["participant_id", "stimulus_id", "confidence"],
    )  # fmt: skip
    found = consensus_confidence(responses)
    # On s the readers' means are 2, 4 and 5; nobody else judged t.
    expected = [4.5, 4.5, 3.5, 3.0, np.nan, 5.0, 1.0]
    assert found == pytest.approx(expected, nan_ok=True)
    shuffled = responses.sample(frac=1, random_state=1)
    again = pd.Series(consensus_confidence(shuffled), index=shuffled.index).sort_index()
    assert again.to_numpy() == pytest.approx(expected, nan_ok=True)


def test_consensus_of_a_bad_table_is_refused_with_its_row():
    table = pd.DataFrame(
        {"participant_id": ["a", None], "stimulus_id": ["s", "s"], "confidence": [1, "high"]}
    )
    with pytest.raises(PsychometricError, match="row 2: `participant_id` is empty"):
        consensus_confidence(table)
    with pytest.raises(PsychometricError, match="row 2: `confidence` is no finite number"):
        consensus_confidence(table.assign(participant_id="a"))
    with pytest.raises(PsychometricError, match="column `confidence` is missing; the table has"):
        consensus_confidence(table.drop(columns="confidence"))


@pytest.fixture(scope="module")
def comparison():
    rng = np.random.default_rng(9)
    rows = []
    for name, threshold, n_trials in (
        ("expert", 0.5, 400),
        ("novice", 0.75, 400),
        ("model", 0.2, 2000),
    ):
        index = rng.random(n_trials)
        psi = proportion_correct_at(
            index, threshold=threshold, width=0.4, lapse_rate=0.02, guess_rate=0.1
        )
        rows.append(pd.DataFrame(
            {"participant_id": name, "ease": index, "is_correct": rng.random(n_trials) < psi}
        ))  # fmt: skip
    perfect = pd.DataFrame(
        {"participant_id": "perfect", "ease": rng.random(60), "is_correct": True}
    )
    unknown = pd.DataFrame({"participant_id": "expert", "ease": np.nan, "is_correct": [True] * 7})
    trials = pd.concat([*rows, perfect, unknown], ignore_index=True)
    return compare_observers(trials, index="ease", guess_rate=0.1)


def test_observers_are_compared_on_one_axis(comparison):
    expert, novice, model, perfect = comparison.observers
    for observer, threshold in ((expert, 0.5), (novice, 0.75), (model, 0.2)):
        truth = threshold + 0.4 * norm.ppf(0.8) / (2 * norm.ppf(0.95))
        assert (
            observer.fit.threshold_unscaled.ci_low < truth < observer.fit.threshold_unscaled.ci_high
        )
        assert len(observer.blocks.levels) == 10
    assert (expert.n_trials, expert.n_left_out, novice.n_left_out) == (400, 7, 0)
    assert model.fit.width.standard_error < expert.fit.width.standard_error
    assert "all 60 answers are right" in perfect.fit.reason
    low, high = comparison.stimulus_range
    assert 0 < low < 0.1 < 0.9 < high < 1


def test_the_probability_that_a_threshold_exceeds_another(comparison):
    greater = comparison.probability_greater
    assert greater[1][0] > 0.999
    assert greater[0][2] > 0.999
    assert greater[0][1] == pytest.approx(1 - greater[1][0])
    assert [greater[i][i] for i in range(4)] == [None] * 4
    assert [greater[3][i] for i in range(4)] == [None] * 4
    fits = [observer.fit for observer in comparison.observers]
    found = threshold_difference(fits[1], fits[0])
    assert found.probability_greater == pytest.approx(greater[1][0], abs=1e-5)
    assert 0 < found.difference.ci_low < 0.25 < found.difference.ci_high
    refused = threshold_difference(fits[0], fits[3])
    assert refused.probability_greater is None
    assert "one of the thresholds is not estimable: all 60 answers" in refused.difference.reason


def test_the_table_says_none_and_why_never_nan(comparison):
    table = comparison.table()
    assert table["observer"].tolist() == ["expert", "novice", "model", "perfect"]
    perfect = table.iloc[3]
    assert perfect["threshold_unscaled"] is None
    assert perfect["width_ci_high"] is None
    assert "all 60 answers are right" in perfect["reason"]
    expert = table.iloc[0]
    assert expert["threshold_unscaled_ci_low"] < expert["threshold_unscaled"]
    assert expert["reason"] is None
    cells = table.to_numpy().ravel()
    assert not any(isinstance(cell, float) and not np.isfinite(cell) for cell in cells)


def test_an_index_that_does_not_vary_and_an_empty_table_compare_to_nothing():
    trials = pd.DataFrame(
        {"participant_id": ["a", "b"] * 30, "x": 1.0, "is_correct": [1, 1, 0] * 20}
    )
    found = compare_observers(trials, index="x", guess_rate=0.5)
    assert "so the index does not vary" in found.observers[0].fit.reason
    assert found.stimulus_range is None
    missing = compare_observers(trials.assign(x=np.nan), index="x", guess_rate=0.5)
    assert missing.observers[0].fit.reason == "there are no trials"
    assert missing.observers[0].n_left_out == 30
    assert compare_observers(trials.iloc[:0], index="x", guess_rate=0.5).observers == ()


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("x", "much", "row 2: `x` is no finite number; give a number, or leave the cell empty"),
        ("x", np.inf, "row 2: `x` is no finite number"),
        ("is_correct", "yes", "row 2: `is_correct` is neither right nor wrong"),
        ("is_correct", None, "row 2: `is_correct` is neither right nor wrong"),
        ("participant_id", None, "row 2: `participant_id` is empty"),
    ],
)
def test_a_bad_cell_is_refused_with_its_row_and_column(column, value, message):
    trials = pd.DataFrame(
        {"participant_id": ["a", "b"], "x": [1.0, 2.0], "is_correct": [True, False]}, dtype=object
    )
    trials.loc[1, column] = value
    with pytest.raises(PsychometricError, match=message):
        compare_observers(trials, index="x", guess_rate=0.5)


def test_a_missing_column_is_named():
    with pytest.raises(PsychometricError, match="column `ease` is missing; the table has a, b"):
        compare_observers(pd.DataFrame({"a": [1], "b": [2]}), index="ease", guess_rate=0.5)
