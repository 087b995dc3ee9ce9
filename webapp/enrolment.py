"""A reader enters a study: the least filled order of the blocks, and the whole schedule at once."""

from collections import Counter
from datetime import datetime, timedelta

from sqlalchemy import Connection, exists, func, insert, select, update

from studies.allocation import Pools, n_arms, schedule
from studies.protocol import Protocol
from studies.stimuli import Stimulus
from webapp.queries import (
    LIVE,
    LOCKED_STUDY,
    READER,
    Facts,
    consent,
    participant,
    response,
    stimulus,
    trial,
)


def lock_study_of(connection: Connection, participant_id: str) -> Facts:
    """The facts about a reader, while nobody else enters the study: two would get one place.

    Two statements, because PostgreSQL answers a statement that waited from what it saw before.
    """
    them = {"participant_id": participant_id}
    connection.execute(LOCKED_STUDY, them)
    return connection.execute(READER, them).one()


def pools(connection: Connection, study_id: str) -> Pools:
    """The stimuli of a study as the allocation takes them, without their pictures."""
    rows = connection.execute(
        select(*(column for column in stimulus.c if column.name != "png"))
        .where(stimulus.c.study_id == study_id)
        .order_by(stimulus.c.stimulus_id)
    ).all()
    found: dict[str, list[Stimulus]] = {"main": [], "practice": [], "attention": []}
    for row in rows:
        # Not validated again: what the first schema kept has no digest of its source.
        found[row.pool].append(
            Stimulus.model_construct(
                stimulus_id=row.stimulus_id,
                file=f"{row.stimulus_id}.png",
                class_name=row.class_name,
                is_synthetic=row.is_synthetic,
                source_digest=row.source_digest,
                generator_digest=row.generator_digest,
                seed=row.seed,
            )
        )
    return Pools(**{pool: tuple(stimuli) for pool, stimuli in found.items()})


def enrol(
    connection: Connection, protocol: Protocol, stimuli: Pools, reader: Facts, *, now: datetime
) -> None:
    """Give a reader an arm and all trials; the study is locked."""
    arm = _least_filled(connection, protocol, reader, now)
    connection.execute(
        update(participant)
        .where(participant.c.participant_id == reader.participant_id)
        .values(arm=arm)
    )
    connection.execute(
        insert(trial),
        [
            {
                "trial_id": f"{reader.participant_id}-T{planned.position:03d}",
                "participant_id": reader.participant_id,
                "study_id": reader.study_id,
                "position": planned.position,
                "trial_number": planned.trial_number,
                "block_number": planned.block_number,
                "design": planned.design,
                "kind": planned.kind,
                "stimulus_id": planned.stimulus_ids[0],
                "second_stimulus_id": (*planned.stimulus_ids, None)[1],
                "repeats_position": planned.repeats_position,
            }
            for planned in schedule(protocol, stimuli, reader.participant_number, arm)
        ],
    )


def _least_filled(connection: Connection, protocol: Protocol, reader: Facts, now: datetime) -> int:
    """Finished and live readers count. Scripted ones are balanced among themselves."""
    if n_arms(protocol) == 1:
        return 0
    answered = exists().where(LIVE).correlate(trial)
    is_unfinished = exists().where(
        trial.c.participant_id == participant.c.participant_id, ~answered
    )
    last_answer_at = (
        select(func.max(response.c.responded_at))
        .select_from(trial.join(response, response.c.trial_id == trial.c.trial_id))
        .where(trial.c.participant_id == participant.c.participant_id)
        .scalar_subquery()
    )
    live_since = (now - timedelta(days=protocol.conduct.live_days)).isoformat()
    counted = connection.execute(
        select(participant.c.arm)
        .join_from(participant, consent)
        .where(
            participant.c.study_id == reader.study_id,
            participant.c.is_bot == reader.is_bot,
            participant.c.withdrawn_at == "",
            participant.c.arm.is_not(None),
            ~is_unfinished | (func.coalesce(last_answer_at, consent.c.consented_at) >= live_since),
        )
    ).scalars()
    filled = Counter(counted)
    return min(range(n_arms(protocol)), key=lambda arm: filled[arm])
