from statistics import NormalDist

import numpy as np
import pytest

from webapp.bots import Counts, Observer, read_links, truth_by_pixels
from webapp.errors import WebappError

N = 20_000


def rates(observer, n=N):
    """Hit and false-alarm rate of an observer over many trials of each kind."""
    rng = np.random.default_rng(0)
    return [
        sum(observer.judge(is_synthetic, 6, rng)[0] == "generated" for _ in range(n)) / n
        for is_synthetic in (True, False)
    ]


@pytest.mark.parametrize(
    ("d_prime", "criterion"), [(0.0, 0.0), (1.0, 0.0), (1.5, 0.4), (1.0, -0.7)]
)
def test_the_observer_has_the_sensitivity_and_criterion_it_was_given(d_prime, criterion):
    z = NormalDist().inv_cdf
    hit, false_alarm = rates(Observer(d_prime=d_prime, criterion=criterion, lapse_rate=0))
    # Four standard errors of a z-transformed rate of 20,000 trials.
    assert z(hit) - z(false_alarm) == pytest.approx(d_prime, abs=0.06)
    assert -(z(hit) + z(false_alarm)) / 2 == pytest.approx(criterion, abs=0.04)


def test_who_always_lapses_is_right_half_of_the_time_however_sensitive():
    assert rates(Observer(d_prime=5, lapse_rate=1)) == pytest.approx([0.5, 0.5], abs=0.015)


def test_confidence_uses_the_whole_scale_and_goes_with_being_right():
    rng = np.random.default_rng(0)
    answers = [Observer(d_prime=1.0, lapse_rate=0).judge(True, 6, rng) for _ in range(N)]
    right = {
        confidence: np.mean([said == "generated" for said, sure in answers if sure == confidence])
        for confidence in range(1, 7)
    }
    assert all(right[confidence] < right[confidence + 1] for confidence in range(1, 6))


def test_without_sensitivity_each_confidence_is_equally_frequent():
    rng = np.random.default_rng(0)
    sure = [Observer(d_prime=0, lapse_rate=0).judge(False, 6, rng)[1] for _ in range(N)]
    assert np.bincount(sure, minlength=7)[1:] / N == pytest.approx(np.full(6, 1 / 6), abs=0.011)


def test_counts_are_named_as_signal_detection_names_them():
    counts = Counts(participant_id="P01")
    for response, is_synthetic in [
        ("generated", True),
        ("generated", True),
        ("real", True),
        ("generated", False),
        ("real", False),
    ]:
        counts.add(response, is_synthetic)
    assert counts.to_json() == {
        "participant_id": "P01",
        "hits": 2,
        "misses": 1,
        "false_alarms": 1,
        "correct_rejections": 1,
        "n": 5,
    }


def test_the_truth_is_known_by_pixels_alone(stimuli):
    truth = truth_by_pixels(stimuli)
    assert len(truth) == 12
    assert sum(truth.values()) == 6


@pytest.mark.parametrize("line", ["http://x/s/1", "P01 http://x/other/1", "P01 http://x/s/1 more"])
def test_a_line_that_is_no_link_is_named_with_advice(tmp_path, line):
    path = tmp_path / "links.txt"
    path.write_text(f"P00 http://127.0.0.1/s/0\n{line}\n")
    with pytest.raises(WebappError, match="line 2 is not `participant link`"):
        read_links(path)
