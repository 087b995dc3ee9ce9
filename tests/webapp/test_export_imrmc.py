"""The file is read back as the manual of iMRMC says, by a reader of its own."""

import numpy as np
import pytest

from studies.bots import simulated_responses
from studies.outcomes import table as readers_by_cases
from studies.protocol import Protocol
from studies.u_statistics import u_statistics_auc
from webapp.imrmc import imrmc_file

PLAN = Protocol(study_id="tiny", n_participants=5, n_trials=40)


def judged(d_prime, seed=1):
    return simulated_responses(n_readers=5, n_cases=40, d_prime=d_prime, seed=seed)


def read(text):
    """Sizes, truth by case, and score by (reader, case, modality)."""
    head, data = text.split("BEGIN DATA:\n")
    sizes = dict(line.split(": ") for line in head.splitlines() if line[:2] in ("N0", "N1", "NR"))
    sizes["NM"] = head.rsplit("NM: ", 1)[1].split()[0]
    rows = [line.split(",") for line in data.splitlines()]
    assert all(len(row) == 4 and " " not in "".join(row) for row in rows)
    truth = [(case, int(score)) for reader, case, _, score in rows if reader == "-1"]
    assert len(truth) == len(dict(truth)), "the truth of a case is there once"
    scores = {tuple(row[:3]): int(row[3]) for row in rows if row[0] != "-1"}
    assert len(scores) + len(truth) == len(rows), "no reading twice"
    return {name: int(size) for name, size in sizes.items()}, dict(truth), scores


def figures(text, modality):
    """Gallas' analysis of the file, as iMRMC makes it."""
    _, truth, scores = read(text)
    readers = sorted({reader for reader, _, _ in scores})

    def of(kind):
        cases = [case for case, synthetic in truth.items() if synthetic == kind]
        return np.array([[scores[reader, case, modality] for case in cases] for reader in readers])

    return u_statistics_auc(of(1), of(0)).means[0].estimate


def test_the_file_says_its_sizes_and_the_truth_of_every_case_once():
    sizes, truth, scores = read(imrmc_file({"unprimed": judged(1.0)}, PLAN))
    assert sizes == {"N0": 20, "N1": 20, "NR": 5, "NM": 1}
    assert sum(truth.values()) == 20
    assert len(scores) == 5 * 40
    assert set(scores.values()) <= set(range(1, 13))


def test_the_file_analysed_gives_our_area_under_the_curve_and_its_standard_error():
    responses = judged(1.0)
    sign = np.where(responses["response"] == "generated", 1, -1)
    ours = readers_by_cases(responses, sign * (responses["confidence"] - 0.5))
    kinds = responses.groupby("stimulus_id")["is_synthetic"].first().to_numpy()
    expected = u_statistics_auc(ours[:, kinds], ours[:, ~kinds]).means[0].estimate
    found = figures(imrmc_file({"unprimed": responses}, PLAN), "1")
    assert expected.estimate > 0.6
    assert found.estimate == pytest.approx(expected.estimate, abs=1e-12)
    assert found.standard_error == pytest.approx(expected.standard_error, abs=1e-12)


def test_the_primed_round_is_a_second_modality_of_the_same_readers_and_cases():
    text = imrmc_file({"unprimed": judged(0.2), "primed": judged(2.0, seed=2)}, PLAN)
    assert read(text)[0] == {"N0": 20, "N1": 20, "NR": 5, "NM": 2}
    assert figures(text, "2").estimate > figures(text, "1").estimate + 0.1


def test_the_numbers_have_a_key():
    text = imrmc_file({"unprimed": judged(1.0)}, PLAN)
    assert "reader 1: reader-1\n" in text
    assert "modality 1: unprimed\n" in text
    assert "case 40: case-9\n" in text
    assert PLAN.protocol_hash in text
