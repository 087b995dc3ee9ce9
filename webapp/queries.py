"""The readers' queries, built once: building a statement costs more than running it."""

from typing import Any, Literal, TypeAlias

from sqlalchemy import BindParameter, Select, Table, and_, bindparam, exists, func, select, update
from sqlmodel import SQLModel

from webapp import tables  # noqa: F401  (registers the tables)

_tables: dict[str, Table] = dict(SQLModel.metadata.tables)
study, stimulus = _tables["study"], _tables["stimulus"]
participant, link, consent = _tables["participant"], _tables["link"], _tables["consent"]
milestone, trial, presentation = _tables["milestone"], _tables["trial"], _tables["presentation"]
response, retraction = _tables["response"], _tables["retraction"]
event, researcher = _tables["event"], _tables["researcher"]

Facts: TypeAlias = Any
"""A row of one of the queries, its values by name."""

_them: BindParameter[str] = bindparam("participant_id")

LINK = (
    select(
        *(participant.c.participant_id, participant.c.study_id, participant.c.language),
        *(participant.c.withdrawn_at, link.c.expires_at, link.c.revoked_at),
    )
    .join_from(link, participant)
    .where(link.c.token_digest == bindparam("digest"))
)
"""Who holds the token of this digest."""

_facts = (
    *(participant.c.study_id, participant.c.participant_number, participant.c.language),
    *(participant.c.arm, participant.c.is_bot, participant.c.withdrawn_at),
    *(study.c.state, study.c.protocol_hash, consent.c.consented_at),
)

READER = (
    select(participant.c.participant_id, *_facts)
    .join_from(participant, study)
    .outerjoin(consent, consent.c.participant_id == participant.c.participant_id)
    .where(participant.c.participant_id == _them)
)
"""What decides what a reader may do."""

PROTOCOL_HASH = select(study.c.protocol_hash).where(study.c.study_id == bindparam("study_id"))

PROTOCOL_JSON = select(study.c.protocol_json).where(study.c.study_id == bindparam("study_id"))

MILESTONES = select(milestone.c.name).where(milestone.c.participant_id == _them)

LOCKED_READER = READER.with_for_update(of=participant, key_share=True)

LOCKED_STUDY = (
    select(study.c.study_id)
    .join_from(study, participant)
    .where(participant.c.participant_id == _them)
    .with_for_update(of=study, key_share=True)
)

SET_LANGUAGE = (
    update(participant)
    .where(participant.c.participant_id == bindparam("who"))
    .values(language=bindparam("new_language"))
)

LIVE = and_(
    response.c.trial_id == trial.c.trial_id,
    ~exists().where(
        retraction.c.trial_id == response.c.trial_id, retraction.c.revision == response.c.revision
    ),
)
"""Of `response` and `trial`: the answer counts, it was not taken back."""

OF_FIRST = and_(
    stimulus.c.study_id == trial.c.study_id, stimulus.c.stimulus_id == trial.c.stimulus_id
)
"""Of `stimulus` and `trial`: the picture, of a pair the left one."""


def _n(table: Table, showing: Any = trial) -> Any:
    """How many rows of `response` or `retraction` a trial has."""
    rows = select(func.count()).where(table.c.trial_id == showing.c.trial_id)
    return rows.correlate(showing).scalar_subquery()


IS_ANSWERED = _n(response) > _n(retraction)
"""Of `trial`. An answer that is taken back leaves a row in both."""

PLACE = (
    select(
        *(trial.c.trial_id, trial.c.position, trial.c.trial_number, trial.c.block_number),
        *(trial.c.design, trial.c.kind, IS_ANSWERED.label("is_answered")),
        _n(retraction).label("n_retracted"),
    )
    .where(
        trial.c.participant_id == _them,
        trial.c.position.between(bindparam("first"), bindparam("last")),
    )
    .order_by(trial.c.position)
)
"""A few trials of a reader."""

N_ANSWERED = select(func.coalesce(func.max(trial.c.position), 0)).where(
    trial.c.participant_id == _them, IS_ANSWERED
)
"""How many trials a reader has answered, practice too: it takes time, so `PLACE` is tried first."""

PRACTICE_NUMBER = select(func.count()).where(
    trial.c.participant_id == _them,
    trial.c.kind == "practice",
    trial.c.block_number == bindparam("block_number"),
    trial.c.position <= bindparam("position"),
)

N_NUMBERED = select(func.coalesce(func.max(trial.c.trial_number), 0)).where(
    trial.c.participant_id == _them, trial.c.position <= bindparam("position")
)
"""Trials without practice up to a position."""

SHOWINGS = select(presentation.c.trial_id, presentation.c.token, presentation.c.presented_at).where(
    presentation.c.trial_id.in_(bindparam("trial_ids", expanding=True))
)

PRESENT = (
    update(presentation)
    .where(presentation.c.token == bindparam("given"))
    .values(presented_at=bindparam("at"))
)
"""The page with a token that was given out ahead is sent now."""

_before = trial.alias("before")
_is_next = (trial.c.position == 1) | exists().where(
    _before.c.participant_id == trial.c.participant_id,
    _before.c.position == trial.c.position - 1,
    _n(response, _before) > _n(retraction, _before),
)

SHOWN = (
    select(
        *(presentation.c.presented_at, trial.c.trial_id, trial.c.study_id, trial.c.position),
        *(trial.c.block_number, trial.c.design, trial.c.kind),
        *(IS_ANSWERED.label("is_answered"), _is_next.label("is_next")),
        _n(response).label("n_given"),
        exists().where(response.c.presentation_token == presentation.c.token).label("is_used"),
    )
    .join_from(presentation, trial)
    .where(presentation.c.token == bindparam("token"), trial.c.participant_id == _them)
)
"""Which trial of a reader's a token showed, and how its answer stands."""

FEEDBACK = (
    select(response.c.response, stimulus.c.is_synthetic, stimulus.c.class_name)
    .select_from(trial)
    .join(response, LIVE)
    .join(stimulus, OF_FIRST)
    .where(trial.c.trial_id == bindparam("trial_id"))
)

JUDGED = (
    select(response.c.response, trial.c.design, stimulus.c.is_synthetic)
    .select_from(trial)
    .join(response, LIVE)
    .join(stimulus, OF_FIRST)
    .where(
        trial.c.participant_id == _them,
        trial.c.kind == "main",
        trial.c.design.in_(("authenticity", "pair")),
    )
)


def _picture(side: Literal["left", "right"] | None) -> Select[Any]:
    shown = trial.c.second_stimulus_id if side == "right" else trial.c.stimulus_id
    earlier = presentation.alias("earlier")
    first_shown_at = (
        select(func.min(earlier.c.presented_at))
        .where(earlier.c.trial_id == trial.c.trial_id, earlier.c.presented_at != "")
        .scalar_subquery()
    )
    return (
        select(
            *(stimulus.c.png, trial.c.design, trial.c.block_number, presentation.c.presented_at),
            *(*_facts, first_shown_at.label("first_shown_at")),
        )
        .select_from(presentation)
        .join(trial)
        .join(
            stimulus, and_(stimulus.c.study_id == trial.c.study_id, stimulus.c.stimulus_id == shown)
        )
        .join(participant, participant.c.participant_id == trial.c.participant_id)
        .join(study, study.c.study_id == trial.c.study_id)
        .join(consent, consent.c.participant_id == participant.c.participant_id)
        .where(
            presentation.c.token == bindparam("token"),
            trial.c.participant_id == _them,
            ~IS_ANSWERED,
        )
    )


PICTURE = {None: _picture(None), "left": _picture("left"), "right": _picture("right")}
"""By side of a pair: the picture under a token, with what decides whether it is sent."""
