"""Simulated studies: readers of known d′ and criterion, which the analysis must recover."""

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import numpy as np

from studies.allocation import Pools, schedule
from studies.bots import PBC_CLASSES
from studies.protocol import Protocol
from studies.responses import Response
from studies.stimuli import Stimulus

START = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def stimulus_set(n_per_class: int, class_names: Sequence[str] = PBC_CLASSES) -> list[Stimulus]:
    """`n_per_class` real and as many generated stimuli of each class, without pictures."""
    stimuli = []
    for class_name in class_names:
        for is_synthetic in (False, True):
            for i in range(n_per_class):
                source = digest(f"{class_name} {is_synthetic} {i}")
                stimuli.append(
                    Stimulus(
                        stimulus_id=source[:16],
                        file=source[:16] + ".png",
                        class_name=class_name,
                        is_synthetic=is_synthetic,
                        source_digest=source,
                        generator_digest=digest("generator") if is_synthetic else "",
                        seed=i if is_synthetic else None,
                    )
                )
    return stimuli


def simulate(
    protocol: Protocol,
    stimuli: Sequence[Stimulus],
    *,
    rng: np.random.Generator,
    d_prime: float = 1.0,
    criterion: float = 0.0,
    reader_sd: float = 0.0,
    case_sd: float = 0.0,
    n_trials_done: Sequence[int] | None = None,
) -> list[Response]:
    """Responses of an equal-variance observer: evidence ± d′/2, "generated" above the criterion.

    `n_trials_done[i]` is where participant i stops; without it all finish.
    """
    by_id = {stimulus.stimulus_id: stimulus for stimulus in stimuli}
    pools = Pools(main=tuple(stimuli))
    case_effect = {stimulus_id: rng.normal(0, case_sd) for stimulus_id in sorted(by_id)}
    rows = []
    for number in range(1, protocol.n_participants + 1):
        sensitivity = d_prime + rng.normal(0, reader_sd)
        clock = START + timedelta(hours=5 * number)
        done = protocol.n_trials if n_trials_done is None else n_trials_done[number - 1]
        for trial in schedule(protocol, pools, number)[:done]:
            (stimulus_id,), trial_number = trial.stimulus_ids, trial.trial_number
            stimulus = by_id[stimulus_id]
            side = 1 if stimulus.is_synthetic else -1
            evidence = rng.normal(side * (sensitivity / 2 + case_effect[stimulus_id]))
            seconds = float(rng.lognormal(1.5, 0.4))
            rows.append(
                Response(
                    study_id=protocol.study_id,
                    protocol_hash=protocol.protocol_hash,
                    participant_id=f"reader-{number}",
                    trial_id=digest(f"{number} {trial_number}")[:16],
                    trial_number=trial_number,
                    stimulus_id=stimulus_id,
                    class_name=stimulus.class_name,
                    is_synthetic=stimulus.is_synthetic,
                    response="generated" if evidence > criterion else "real",
                    confidence=int(
                        np.clip(1 + 2.4 * abs(evidence - criterion), 1, protocol.confidence_points)
                    ),
                    response_time_s=seconds,
                    presented_at=clock,
                    responded_at=clock + timedelta(seconds=seconds),
                )
            )
            clock += timedelta(seconds=seconds + 1)
    return rows
