"""Blocks of four designs, a life cycle with its log, links that can be reissued, answers undone.

The old tables are copied aside, made anew and filled again: SQLite can change neither the checks
nor the keys of a table that is there, and one way for both databases is tested twice.
"""

import json

import sqlalchemy as sa
from alembic import op
from sqlalchemy import CheckConstraint, Column, ForeignKey, ForeignKeyConstraint, UniqueConstraint

from webapp.chain import event_hash

revision = "0002"
down_revision = "0001"

OLD = ("study", "stimulus", "participant", "consent", "trial", "presentation", "response")


def upgrade() -> None:
    """Make the tables of the reader study, with all that was stored."""
    for table in OLD:
        op.execute(f"CREATE TABLE old_{table} AS SELECT * FROM {table}")
    for table in reversed(OLD):
        op.drop_table(table)
    op.execute("DROP TABLE IF EXISTS schema_version")
    _create()
    for statement in FILL:
        op.execute(statement)
    _begin_the_log()
    for table in OLD:
        op.drop_table(f"old_{table}")


def text(name: str, *key: ForeignKey, **options: bool) -> Column[str]:
    """A text that is always there."""
    return Column(name, sa.String(), *key, **{"nullable": False} | options)  # type: ignore[arg-type]


def integer(name: str, **options: bool) -> Column[int]:
    """A whole number that is always there."""
    return Column(name, sa.Integer(), **{"nullable": False} | options)  # type: ignore[arg-type]


def _create() -> None:
    op.create_table(
        "study",
        text("study_id", primary_key=True),
        text("protocol_hash"),
        text("protocol_json"),
        text("created_at"),
        text("state"),
        text("frozen_hash"),
        text("audit_json"),
    )
    op.create_table(
        "event",
        text("study_id", ForeignKey("study.study_id"), primary_key=True),
        integer("number", primary_key=True),
        text("at"),
        text("actor"),
        text("kind"),
        text("detail_json"),
        text("previous_hash"),
        text("event_hash"),
    )
    op.create_table(
        "stimulus",
        text("study_id", ForeignKey("study.study_id"), primary_key=True),
        text("stimulus_id", primary_key=True),
        text("class_name"),
        Column("is_synthetic", sa.Boolean(), nullable=False),
        Column("png", sa.LargeBinary(), nullable=False),
        text("pool"),
        text("source_digest"),
        text("generator_digest"),
        integer("seed", nullable=True),
        CheckConstraint("pool IN ('main', 'practice', 'attention')"),
    )
    op.create_table(
        "participant",
        text("participant_id", primary_key=True),
        text("study_id", ForeignKey("study.study_id")),
        integer("participant_number"),
        text("label"),
        text("language"),
        integer("arm", nullable=True),
        Column("is_bot", sa.Boolean(), nullable=False),
        text("withdrawn_at"),
        UniqueConstraint("study_id", "participant_number"),
        CheckConstraint("participant_number >= 1"),
    )
    participant = "participant.participant_id"
    op.create_table(
        "link",
        text("token_digest", primary_key=True),
        text("participant_id", ForeignKey(participant)),
        text("issued_at"),
        text("expires_at"),
        text("revoked_at"),
    )
    op.create_index("ix_link_participant_id", "link", ["participant_id"])
    op.create_table(
        "consent",
        text("participant_id", ForeignKey(participant), primary_key=True),
        text("consent_version"),
        text("text_digest"),
        text("consented_at"),
        text("language"),
    )
    op.create_table(
        "milestone",
        text("participant_id", ForeignKey(participant), primary_key=True),
        text("name", primary_key=True),
        text("at"),
        text("detail_json"),
    )
    stimulus = ["stimulus.study_id", "stimulus.stimulus_id"]
    op.create_table(
        "trial",
        text("trial_id", primary_key=True),
        text("participant_id", ForeignKey(participant)),
        text("study_id"),
        integer("position"),
        integer("trial_number", nullable=True),
        integer("block_number"),
        text("design"),
        text("kind"),
        text("stimulus_id"),
        text("second_stimulus_id", nullable=True),
        integer("repeats_position", nullable=True),
        UniqueConstraint("participant_id", "position"),
        ForeignKeyConstraint(["study_id", "stimulus_id"], stimulus),
        ForeignKeyConstraint(["study_id", "second_stimulus_id"], stimulus),
        CheckConstraint("position >= 1"),
        CheckConstraint("kind IN ('main', 'repeat', 'attention', 'practice')"),
        CheckConstraint("design IN ('authenticity', 'pair', 'classification', 'quality')"),
    )
    op.create_table(
        "presentation",
        text("token", primary_key=True),
        text("trial_id", ForeignKey("trial.trial_id")),
        text("made_at"),
        text("presented_at"),
    )
    op.create_index("ix_presentation_trial_id", "presentation", ["trial_id"])
    op.create_table(
        "response",
        text("trial_id", ForeignKey("trial.trial_id"), primary_key=True),
        integer("revision", primary_key=True),
        text("presentation_token", ForeignKey("presentation.token"), unique=True),
        text("response"),
        integer("confidence", nullable=True),
        Column("response_time_s", sa.Float(), nullable=False),
        text("responded_at"),
        text("client_json"),
        CheckConstraint("confidence BETWEEN 1 AND 10"),
        CheckConstraint("response_time_s >= 0"),
        CheckConstraint("revision >= 1"),
    )
    op.create_table(
        "retraction",
        text("trial_id", primary_key=True),
        integer("revision", primary_key=True),
        text("retracted_at"),
        ForeignKeyConstraint(["trial_id", "revision"], ["response.trial_id", "response.revision"]),
    )
    op.create_table(
        "researcher",
        text("name", primary_key=True),
        text("password_scrypt"),
        text("created_at"),
    )


FILL = (
    """INSERT INTO study SELECT study_id, protocol_hash, protocol_json, created_at,
        'open', '', '' FROM old_study""",
    """INSERT INTO stimulus SELECT study_id, stimulus_id, class_name, is_synthetic, png,
        'main', '', '', NULL FROM old_stimulus""",
    """INSERT INTO participant SELECT participant_id, study_id, participant_number,
        '', 'en', 0, FALSE, '' FROM old_participant""",
    """INSERT INTO link SELECT token_digest, participant_id, created_at, link_expires_at, ''
        FROM old_participant JOIN old_study USING (study_id)""",
    """INSERT INTO consent SELECT participant_id, consent_version, text_digest, consented_at,
        'en' FROM old_consent""",
    """INSERT INTO trial SELECT trial_id, participant_id, study_id, trial_number, trial_number,
        1, 'authenticity', 'main', stimulus_id, NULL, NULL FROM old_trial""",
    """INSERT INTO presentation SELECT token, trial_id, presented_at, presented_at
        FROM old_presentation""",
    """INSERT INTO response SELECT trial_id, 1, presentation_token, response, confidence,
        response_time_s, responded_at, '{}' FROM old_response""",
    # Whoever had seen a trial had left the instructions behind.
    """INSERT INTO milestone SELECT participant_id, 'instructions', MIN(presented_at), '{}'
        FROM old_presentation JOIN old_trial USING (trial_id) GROUP BY participant_id""",
)


def _begin_the_log() -> None:
    connection = op.get_bind()
    studies = connection.execute(sa.text("SELECT study_id, protocol_hash, created_at FROM study"))
    for study_id, protocol_hash, created_at in studies.all():
        detail = json.dumps({"protocol_hash": protocol_hash, "study_id": study_id})
        content = (1, created_at, "migration", "migrated", detail)
        connection.execute(
            sa.text("INSERT INTO event VALUES (:study, :n, :at, :by, :kind, :detail, '', :hash)"),
            dict(zip(("n", "at", "by", "kind", "detail"), content, strict=True))
            | {"study": study_id, "hash": event_hash("", *content)},
        )
