"""Pairs, classes, ratings and a second round: known numbers, recovery, refusals by their words."""

import json
from math import sqrt

import numpy as np
import pandas as pd
import pytest
from scipy.special import ndtr
from typer.testing import CliRunner

from studies.__main__ import app
from studies.blocks import (
    analyse_blocks,
    analyse_classifications,
    analyse_pairs,
    analyse_ratings,
    analyse_second_round,
    read_block,
)
from studies.protocol import Protocol
from studies.response_table import ResponseError

LEVEL = 0.95
CLASSES = ("basophil", "monocyte", "neutrophil")


def pairs(n_readers=6, n_pairs=60, d_prime=1.0, seed=1):
    rng = np.random.default_rng(seed)
    rows = []
    for reader in range(n_readers):
        for pair in range(n_pairs):
            side = ("left", "right")[int(rng.integers(2))]
            is_right = rng.random() < ndtr(d_prime / sqrt(2))
            other = {"left": "right", "right": "left"}[side]
            real, generated = f"{pair:04x}r", f"{pair:04x}g"
            left, right = (real, generated) if side == "left" else (generated, real)
            rows.append(
                {
                    "participant_id": f"s-P{reader:02d}",
                    "repeat_number": 1,
                    "primed": False,
                    "left_stimulus_id": left,
                    "right_stimulus_id": right,
                    "class_name": CLASSES[pair % 3],
                    "truth": side,
                    "response": side if is_right else other,
                    "response_time_s": 2.0,
                }
            )
    return pd.DataFrame(rows)


def classifications(n_readers=5, per_kind=45, accuracy=(0.9, 0.6), seed=2):
    rng = np.random.default_rng(seed)
    rows = []
    for reader in range(n_readers):
        for picture in range(2 * per_kind):
            is_synthetic = picture >= per_kind
            name = CLASSES[picture % 3]
            is_right = rng.random() < accuracy[is_synthetic]
            wrong = [other for other in CLASSES if other != name]
            rows.append(
                {
                    "participant_id": f"s-P{reader:02d}",
                    "repeat_number": 1,
                    "primed": False,
                    "stimulus_id": f"{picture:04x}",
                    "is_synthetic": is_synthetic,
                    "truth": name,
                    "response": name if is_right else wrong[int(rng.integers(2))],
                    "confidence": int(rng.integers(1, 7)),
                }
            )
    return pd.DataFrame(rows)


def ratings(n_readers=5, per_kind=40, shift=-0.8, seed=3):
    rng = np.random.default_rng(seed)
    quality = rng.normal(size=2 * per_kind)
    rows = [
        {
            "participant_id": f"s-P{reader:02d}",
            "repeat_number": 1,
            "primed": False,
            "stimulus_id": f"{picture:04x}",
            "is_synthetic": picture >= per_kind,
            "response": float(
                np.clip(
                    round(3 + quality[picture] + shift * (picture >= per_kind) + rng.normal() / 2),
                    1,
                    5,
                )
            ),
        }
        for reader in range(n_readers)
        for picture in range(2 * per_kind)
    ]
    return pd.DataFrame(rows)


def written(folder, name, rows):
    table = rows.copy()
    for column in table.select_dtypes("bool").columns:
        table[column] = table[column].map({True: "true", False: "false"})
    path = folder / f"{name}.csv"
    table.to_csv(path, index=False)
    return path


def finding(found, label):
    return next(one for one in found.findings if one.label == label)


def test_the_share_of_pairs_is_the_count_and_d_prime_that_of_two_alternatives(tmp_path):
    rows = read_block(written(tmp_path, "pairs", pairs()))
    found = analyse_pairs(rows, LEVEL)
    share = finding(found, "Real one found").estimate
    right = (rows["response"] == rows["truth"]).mean()
    assert share.estimate == pytest.approx(right, abs=1e-12)
    d_prime = finding(found, "d′").estimate
    for end in ("estimate", "ci_low", "ci_high"):
        assert ndtr(getattr(d_prime, end) / sqrt(2)) == pytest.approx(getattr(share, end))
    assert (found.n_readers, found.n_cases, found.n_judgements) == (6, 60, 360)
    by_class = dict(found.groups)["class"]
    assert sum(part.n_correct for part in by_class) == (rows["response"] == rows["truth"]).sum()


def test_a_pair_is_the_same_case_whichever_side_it_was_shown_on(tmp_path):
    rows = read_block(written(tmp_path, "pairs", pairs()))
    assert rows.groupby("stimulus_id").size().eq(6).all()


def test_the_interval_for_pairs_covers_a_known_d_prime():
    covered = 0
    for seed in range(40):
        rows = pairs(n_readers=8, n_pairs=80, seed=seed)
        rows["stimulus_id"] = rows["left_stimulus_id"].str[:4]
        rows["is_correct"] = rows["response"] == rows["truth"]
        found = finding(analyse_pairs(rows, LEVEL), "d′").estimate
        covered += found.ci_low <= 1.0 <= found.ci_high
    # Binomial(40, 0.95): fewer than 34 in one run of a thousand.
    assert covered >= 34


def test_readers_who_guess_are_not_said_to_tell_pairs_apart():
    rows = pairs(d_prime=0.0, seed=5)
    rows["stimulus_id"] = rows["left_stimulus_id"].str[:4]
    rows["is_correct"] = rows["response"] == rows["truth"]
    assert finding(analyse_pairs(rows, LEVEL), "Real one found").p_value > 0.05


def test_classes_are_counted_apart_for_real_and_generated_and_their_difference_tested(tmp_path):
    rows = read_block(written(tmp_path, "classifications", classifications()))
    found = analyse_classifications(rows, LEVEL)
    shares = {}
    for label, kind in (("real", False), ("generated", True)):
        part = rows[rows["is_synthetic"] == kind]
        shares[label] = (part["response"] == part["truth"]).mean()
        estimate = finding(found, f"Class named, {label}").estimate
        assert estimate.estimate == pytest.approx(shares[label], abs=1e-12)
    difference = finding(found, "Generated less real")
    assert difference.estimate.estimate == pytest.approx(shares["generated"] - shares["real"])
    assert difference.p_value < 0.05
    for label, classes, counts in found.confusion:
        table = np.array(counts)
        part = rows[rows["is_synthetic"] == (label == "generated")]
        assert classes == CLASSES
        assert table.sum() == len(part)
        assert np.trace(table) == (part["response"] == part["truth"]).sum()


def test_ratings_give_means_their_difference_and_the_share_of_wins():
    rows = ratings()
    found = analyse_ratings(rows, LEVEL)
    real, generated = (rows[rows["is_synthetic"] == kind]["response"] for kind in (False, True))
    assert finding(found, "Mean rating, real").estimate.estimate == pytest.approx(real.mean())
    less = finding(found, "Generated less real")
    assert less.estimate.estimate == pytest.approx(generated.mean() - real.mean())
    assert less.estimate.ci_high < 0
    wins = finding(found, "Generated rated above real (ties half)").estimate
    by_reader = [
        np.mean(
            [
                (g > r) + 0.5 * (g == r)
                for g in part[part["is_synthetic"]]["response"]
                for r in part[~part["is_synthetic"]]["response"]
            ]
        )
        for _, part in rows.groupby("participant_id")
    ]
    assert wins.estimate == pytest.approx(np.mean(by_reader))
    assert finding(found, "Agreement, ICC(2, 1)").estimate.estimate > 0.5


def rounds(told):
    rng = np.random.default_rng(7)
    rows = [
        {
            "participant_id": f"s-P{reader}",
            "stimulus_id": f"{picture:04x}",
            "is_synthetic": picture % 2 == 0,
            "is_correct": bool(rng.random() < (0.8 if told else 0.55)),
        }
        for reader in range(6)
        for picture in range(60)
    ]
    return pd.DataFrame(rows)


def test_a_second_round_is_compared_on_the_same_pictures():
    first, second = rounds(False), rounds(True)
    found = analyse_second_round(first, second, LEVEL)
    change = second["is_correct"].mean() - first["is_correct"].mean()
    difference = finding(found, "Told less first round")
    assert difference.estimate.estimate == pytest.approx(change)
    assert difference.p_value < 0.001
    assert finding(found, "Accuracy, told").estimate.estimate == pytest.approx(
        second["is_correct"].mean()
    )


def test_one_reader_gets_an_interval_for_this_reader_only():
    rows = pairs(n_readers=1)
    rows["stimulus_id"] = rows["left_stimulus_id"].str[:4]
    rows["is_correct"] = rows["response"] == rows["truth"]
    assert finding(analyse_pairs(rows, LEVEL), "Real one found").estimate.is_estimable


def test_repeats_are_left_out(tmp_path):
    rows = pairs()
    again = rows.head(10).assign(repeat_number=2)
    path = written(tmp_path, "pairs", pd.concat([rows, again], ignore_index=True))
    assert len(read_block(path)) == len(rows)


def test_a_pair_that_was_judged_twice_is_refused(tmp_path):
    path = written(tmp_path, "pairs", pd.concat([pairs(), pairs().head(1)], ignore_index=True))
    with pytest.raises(ResponseError, match=r"row 362, .*judged it in an earlier row already"):
        read_block(path)


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("response", "up", r"row 2, column `response`: found 'up'"),
        ("truth", "", r"row 2, column `truth`"),
    ],
)
def test_a_cell_that_is_wrong_is_named(tmp_path, column, value, words):
    rows = pairs()
    rows.loc[0, column] = value
    with pytest.raises(ResponseError, match=words):
        read_block(written(tmp_path, "pairs", rows))


def test_a_missing_column_and_another_file_name_are_refused(tmp_path):
    with pytest.raises(ResponseError, match=r"row 1 lacks primed; export it again"):
        read_block(written(tmp_path, "pairs", pairs().drop(columns="primed")))
    with pytest.raises(ResponseError, match=r"is none of pairs, classifications, ratings"):
        read_block(written(tmp_path, "others", pairs()))


def test_a_folder_without_such_a_table_is_refused(tmp_path):
    with pytest.raises(ResponseError, match=r"holds none of pairs\.csv, classifications\.csv"):
        analyse_blocks(Protocol(study_id="s"), tmp_path)


def test_the_command_writes_a_report_with_a_section_for_each_table(tmp_path):
    written(tmp_path, "pairs", pairs())
    written(tmp_path, "classifications", classifications())
    written(tmp_path, "ratings", ratings())
    Protocol(study_id="s").write(tmp_path / "protocol.toml")
    done = CliRunner().invoke(
        app,
        [
            *("blocks", "--protocol", str(tmp_path / "protocol.toml")),
            *("--folder", str(tmp_path), "--out", str(tmp_path / "out")),
        ],
    )
    assert done.exit_code == 0, done.output
    assert "6 readers, 60 cases, 360 judgements" in done.output
    html = (tmp_path / "out" / "blocks.html").read_text()
    for heading in ("Which of the two is real?", "Which class?", "How good is the picture?"):
        assert heading in html
    values = json.loads((tmp_path / "out" / "blocks.json").read_text())
    assert [one["name"] for one in values] == ["pairs", "classifications", "ratings"]
    assert "http" not in html.replace("http-equiv", "")
