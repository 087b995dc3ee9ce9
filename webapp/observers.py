"""What a scripted reader answers: signal detection with known sensitivity, bias and lapses.

In every design a picture gives evidence with noise of standard deviation 1, and `d_prime` is how
far apart the two kinds lie in it: what an analysis finds can be held against what was put in.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from statistics import NormalDist

import numpy as np

from studies.protocol import Design
from studies.stimuli import Stimulus

OBVIOUS = 6.0
"""d′ of an attention check: it is missed by lapses alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observer:
    """Equal-variance Gaussian signal detection; the signal is "generated".

    Source: Macmillan & Creelman (2005), chapters 1 (yes–no), 7 (two alternatives) and 9 (several).
    """

    d_prime: float = 1.0
    """Between generated and real, also in a quality rating: generated ones look so much worse."""
    class_d_prime: float = 3.0
    """Between a cell's class and every other one."""
    criterion: float = 0.0
    """Distance from the unbiased point; above 0 the reader says "real" more often. Of a pair both
    pictures are judged alike, so there it does not matter."""
    lapse_rate: float = 0.02
    """How often the answer is drawn blindly, whatever was seen."""
    confidence_noise: float = 0.0
    """Standard deviation of what is added to the evidence before confidence is read from it."""
    dropout: float = 0.0
    """Probability of leaving before the last trial, after any number of answers alike."""

    def judge(
        self,
        design: Design,
        stimuli: Sequence[Stimulus],
        responses: Sequence[str],
        confidence_points: int,
        rng: np.random.Generator,
        *,
        is_obvious: bool = False,
    ) -> tuple[str, int | None]:
        """Response and confidence.

        The edges of the confidence bins cut a standard normal, centred on the criterion, into
        equally likely parts.

        Args:
            stimuli: what is shown; of a pair the left one first.
            responses: what the page offers; of a rating in ascending order.
            confidence_points: 0 where no confidence is asked.
            is_obvious: an attention check.
        """
        eye = replace(self, d_prime=OBVIOUS, criterion=0.0) if is_obvious else self
        response, distance = eye._seen(design, stimuli, responses, rng)
        noise, lapses = rng.standard_normal(), rng.random() < self.lapse_rate
        blind = responses[int(rng.integers(len(responses)))]
        any_confidence = int(rng.integers(1, confidence_points + 1)) if confidence_points else None
        if lapses:
            return blind, any_confidence
        if not confidence_points:
            return response, None
        certainty = abs(distance + self.confidence_noise * noise)
        return response, _bin(certainty, confidence_points, lowest=0.5)

    def leaves_after(self, n_trials: int, rng: np.random.Generator) -> int:
        """After how many answers the reader leaves; all, or fewer for one who drops out."""
        leaves, after = rng.random() < self.dropout, int(rng.integers(n_trials))
        return after if leaves else n_trials

    def _seen(
        self,
        design: Design,
        stimuli: Sequence[Stimulus],
        responses: Sequence[str],
        rng: np.random.Generator,
    ) -> tuple[str, float]:
        """What the evidence says, and how far it lies from saying something else."""
        if design == "classification":
            means = [self.class_d_prime * (stimuli[0].class_name == name) for name in responses]
            evidence = rng.normal(means)
            second, best = np.sort(evidence)[-2:]
            # The difference of two has variance 2.
            return responses[int(evidence.argmax())], float(best - second) / np.sqrt(2)
        looks_generated = rng.normal([self.d_prime * (s.is_synthetic - 0.5) for s in stimuli])
        if design == "pair":
            left, right = looks_generated
            return "left" if right > left else "right", float(right - left) / np.sqrt(2)
        if design == "quality":
            return responses[_bin(-looks_generated[0], len(responses)) - 1], 0.0
        distance = float(looks_generated[0] - self.criterion)
        return "generated" if distance > 0 else "real", distance


def _bin(value: float, n_bins: int, *, lowest: float = 0.0) -> int:
    """From 1: in which of `n_bins` equally likely parts of a standard normal a value lies.

    Args:
        lowest: share of the normal below the first part; a half for a distance from the middle.
    """
    return 1 + bisect_left(_edges(n_bins, lowest), value)


@cache
def _edges(n_bins: int, lowest: float) -> list[float]:
    step = (1 - lowest) / n_bins
    return [NormalDist().inv_cdf(lowest + step * edge) for edge in range(1, n_bins)]
