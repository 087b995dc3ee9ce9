"""What a researcher does with a study. Whatever changes something is an event of its log."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Connection, exists, insert, select, update

from studies.allocation import Pools, check
from studies.protocol import Design, Protocol
from studies.stimuli import Stimulus
from webapp import enrolment, freezing, log, monitor, passwords, people, readout
from webapp.chain import Event
from webapp.database import Database, utc_now
from webapp.errors import WebappError
from webapp.freezing import AMENDABLE
from webapp.monitor import ReaderStatus
from webapp.monitor import StudySummary as StudySummary
from webapp.people import Invitation as Invitation
from webapp.queries import Facts, participant, stimulus, study
from webapp.readout import CodedJudgement, Judgement, ReaderRecord

Pool = Literal["main", "practice", "attention"]
Picture = tuple[Stimulus, bytes]
"""A stimulus and its PNG."""

NEXT_STEP = {
    "draft": "audit",
    "audited": "freeze",
    "frozen": "open",
    "open": "close",
    "closed": "unblind",
}
"""By state, the command that leads on. The states after that are unblinded and reported."""

BEFORE_UNBLINDING = ("draft", "audited", "frozen", "open", "closed")


class Registry:
    """The researchers' side of a study database."""

    def __init__(
        self,
        database: Database,
        now: Callable[[], datetime] = utc_now,
        actor: str = "command line",
    ) -> None:
        self._database = database
        self._now = now
        self._actor = actor

    # From draft to report

    def create(self, protocol: Protocol, pools: Mapping[Pool, Sequence[Picture]]) -> None:
        """Store a protocol with its stimuli as a draft.

        Raises:
            WebappError: if there is a study under this id already.
            AllocationError: if the stimuli cannot serve the protocol.
        """
        check(
            protocol,
            Pools(**{pool: tuple(one for one, _ in pictures) for pool, pictures in pools.items()}),
        )
        with self._database.write() as connection:
            self._refuse_second(connection, protocol)
            connection.execute(
                insert(study),
                {
                    "study_id": protocol.study_id,
                    "protocol_hash": protocol.protocol_hash,
                    "protocol_json": protocol.model_dump_json(),
                    "created_at": self._now().isoformat(),
                    "state": "draft",
                    "frozen_hash": "",
                    "audit_json": "",
                },
            )
            for pool, pictures in pools.items():
                for one, png in pictures:
                    facts = one.model_dump(exclude={"file"})
                    place = {"study_id": protocol.study_id, "pool": pool}
                    connection.execute(insert(stimulus), facts | place | {"png": png})
            self._log(
                connection,
                protocol.study_id,
                "created",
                study_id=protocol.study_id,
                protocol_hash=protocol.protocol_hash,
                n_stimuli={pool: len(pictures) for pool, pictures in pools.items()},
            )

    def refuse_second(self, protocol: Protocol) -> None:
        """Refuse a protocol whose study id is taken."""
        with self._database.read() as connection:
            self._refuse_second(connection, protocol)

    def record_audit(self, study_id: str, report_json: str, passed: bool) -> None:
        """Keep the blinding audit's report: a draft is audited now, passed or not."""
        with self._database.write() as connection:
            self._locked(connection, study_id, "audited", "draft", "audited")
            self._change(connection, study_id, state="audited", audit_json=report_json)
            digest = freezing.digest(report_json)
            self._log(connection, study_id, "audited", passed=passed, report_digest=digest)

    def freeze(self, study_id: str, *, override: str = "") -> None:
        """Hash protocol, stimuli, allocation and analysis plan together; none changes any more.

        Args:
            override: why the study goes on although its audit failed; it stands in the log.

        Raises:
            WebappError: if the audit failed and nobody says why that does not matter.
        """
        with self._database.write() as connection:
            found = self._locked(connection, study_id, "frozen", "audited")
            has_passed = log.said(log.events(connection, study_id))["passed"]
            if not has_passed and not override.strip():
                raise WebappError(
                    f"the blinding audit of study {study_id!r} failed; make the stimuli alike "
                    "and audit again, or go on with --override and the reason, which the log and "
                    "the report will show."
                )
            if not has_passed:
                self._log(connection, study_id, "override", reason=override)
            digest = freezing.frozen_hash(connection, _protocol(found))
            self._change(connection, study_id, state="frozen", frozen_hash=digest)
            self._log(connection, study_id, "frozen", frozen_hash=digest)

    def open(self, study_id: str) -> None:
        """Let readers in, for the first time or again."""
        self._step(study_id, "opened", "open", "frozen", "closed")

    def close(self, study_id: str) -> None:
        """Take no more answers."""
        self._step(study_id, "closed", "closed", "open")

    def unblind(self, study_id: str, reason: str) -> None:
        """Give the truth to the analysts: there is no way back."""
        if not reason.strip():
            raise WebappError("unblinding needs a reason, which the log keeps; give one.")
        self._step(study_id, "unblinded", "unblinded", "closed", reason=reason)

    def mark_reported(self, study_id: str, report_hash: str) -> None:
        """Note which report was made of the study; a later one may follow."""
        self._step(
            study_id, "reported", "reported", "unblinded", "reported", report_hash=report_hash
        )

    def amend(self, study_id: str, protocol: Protocol, reason: str) -> None:
        """Put another version of the protocol in force; the log keeps both hashes and the reason.

        Before any reader has agreed, everything may change, and a change of more than words
        sends the study back to draft. After that only what leaves given answers valid may.

        Raises:
            WebappError: if it is another study's, or would make given answers worthless.
        """
        if not reason.strip():
            raise WebappError("an amendment needs a reason, which the log keeps; give one.")
        if protocol.study_id != study_id:
            raise WebappError(
                f"this protocol is of study {protocol.study_id!r}; an amendment keeps the "
                f"study_id {study_id!r}."
            )
        with self._database.write() as connection:
            found = self._locked(connection, study_id, "amended", *BEFORE_UNBLINDING)
            before = _protocol(found)
            changed = freezing.changes(before, protocol)
            if not changed:
                raise WebappError(
                    f"this protocol is the one in force ({found.protocol_hash[:12]}…); change it "
                    "before you amend with it."
                )
            beyond = sorted(changed - AMENDABLE)
            if beyond and _has_begun(connection, study_id):
                raise WebappError(
                    f"readers of study {study_id!r} have begun, and {', '.join(beyond)} would "
                    f"change what they answered to; only {', '.join(sorted(AMENDABLE))} can be "
                    "amended now. Give the changed study another study_id."
                )
            check(protocol, enrolment.pools(connection, study_id))
            digest, state = found.frozen_hash, found.state
            if beyond:
                digest, state = "", "draft"
            elif digest:
                digest = freezing.frozen_hash(connection, protocol)
            self._change(
                connection,
                study_id,
                protocol_hash=protocol.protocol_hash,
                protocol_json=protocol.model_dump_json(),
                frozen_hash=digest,
                state=state,
            )
            self._log(
                connection,
                study_id,
                "amended",
                reason=reason,
                changed=sorted(changed),
                previous_protocol_hash=found.protocol_hash,
                protocol_hash=protocol.protocol_hash,
                frozen_hash=digest,
                state=state,
            )

    # Readers

    def invite(
        self,
        study_id: str,
        labels: Sequence[str],
        *,
        valid_days: int,
        is_bot: bool = False,
        language: str | None = None,
    ) -> list[Invitation]:
        """Add a reader for each label, with a link; labels stay with the researcher.

        Args:
            labels: what the researcher calls the readers; empty ones may repeat.
            language: in which they begin; the protocol's first if None.
        """
        with self._database.write() as connection:
            found = self._locked(connection, study_id, "joined by readers", *BEFORE_UNBLINDING)
            known = _protocol(found).languages
            if language not in (None, *known):
                raise WebappError(
                    f"language {language!r} is not one of the study's ({', '.join(known)}); "
                    "invite in one of them, or amend the protocol first."
                )
            invitations = people.add(
                connection,
                study_id,
                labels,
                language=language or known[0],
                is_bot=is_bot,
                now=self._now(),
                valid_days=valid_days,
            )
            self._log(
                connection,
                study_id,
                "invited",
                participants=[one.participant_id for one in invitations],
                valid_days=valid_days,
                is_bot=is_bot,
            )
        return invitations

    def reissue(self, participant_id: str, valid_days: int) -> str:
        """The token of a new link to the same place; the old ones open nothing any more."""
        with self._database.write() as connection:
            reader = self._locked_reader(connection, participant_id)
            if reader.withdrawn_at:
                raise WebappError(
                    f"{participant_id} has withdrawn and gets no new link; invite another reader."
                )
            people.revoke_links(connection, participant_id, self._now())
            token = people.new_link(
                connection, participant_id, now=self._now(), valid_days=valid_days
            )
            detail = {"participant_id": participant_id, "valid_days": valid_days}
            self._log(connection, reader.study_id, "reissued", **detail)
        return token

    def revoke(self, participant_id: str) -> None:
        """Shut all links of a reader; what was answered stays."""
        with self._database.write() as connection:
            reader = self._locked_reader(connection, participant_id)
            people.revoke_links(connection, participant_id, self._now())
            self._log(connection, reader.study_id, "revoked", participant_id=participant_id)

    def withdraw(self, participant_id: str, reason: str) -> None:
        """A reader stops for good; what they gave is kept or erased as the protocol says.

        Erased are the answers, what was noted about them, the background and the label. That
        there was a reader of this code who agreed, and which trials were planned, remains.
        """
        with self._database.write() as connection:
            reader = self._locked_reader(connection, participant_id)
            if reader.withdrawn_at:
                raise WebappError(f"{participant_id} has withdrawn already; nothing is to be done.")
            found = _study(connection, reader.study_id)
            policy = _protocol(found).conduct.withdrawal
            n_answers = people.withdraw(
                connection, participant_id, erases=policy == "erase", now=self._now()
            )
            self._log(
                connection,
                reader.study_id,
                "withdrawn",
                participant_id=participant_id,
                reason=reason,
                policy=policy,
                n_answers=n_answers,
            )

    # What is known

    def studies(self) -> list[StudySummary]:
        """All studies of the database, the oldest first."""
        with self._database.read() as connection:
            return [
                monitor.summary(connection, found)
                for found in connection.execute(select(study).order_by(study.c.created_at)).all()
            ]

    def summary(self, study_id: str) -> StudySummary:
        """One of the studies."""
        with self._database.read() as connection:
            return monitor.summary(connection, _study(connection, study_id))

    def monitor(self, study_id: str) -> list[ReaderStatus]:
        """How each reader is getting on; nothing in it says how well they judge."""
        with self._database.read() as connection:
            return monitor.statuses(
                connection, _protocol(_study(connection, study_id)), self._now()
            )

    def events(self, study_id: str) -> list[Event]:
        """The log, the oldest first."""
        with self._database.read() as connection:
            return log.events(connection, study_id)

    def verify(self, study_id: str) -> list[str]:
        """What does not fit the log any more, in words; empty if the study is whole."""
        with self._database.read() as connection:
            return freezing.problems(connection, _study(connection, study_id))

    # For analysts

    def responses(self, study_id: str, *, design: Design) -> Iterator[Judgement]:
        """The answers of one design that count, with their truth; no practice, no dry runs.

        Raises:
            WebappError: if the study is not unblinded.
        """
        with self._database.read() as connection:
            found = _study(connection, study_id)
        if found.state in BEFORE_UNBLINDING:
            raise WebappError(
                f"study {study_id!r} is {found.state}, and nobody sees the truth before it is "
                "unblinded; close it and run `python -m webapp unblind`, or export coded arms."
            )
        return self._judgements(_protocol(found), design)

    def coded_responses(self, study_id: str, *, design: Design) -> Iterator[CodedJudgement]:
        """The same at any time, with letters for real and generated."""
        with self._database.read() as connection:
            found = _study(connection, study_id)
            yield from readout.coded_judgements(
                connection, _protocol(found), design, found.frozen_hash or found.protocol_hash
            )

    def readers(self, study_id: str) -> list[ReaderRecord]:
        """Arm, language, background and times of each reader, under the code."""
        with self._database.read() as connection:
            return readout.readers(connection, study_id)

    def record_export(self, study_id: str, **detail: Any) -> None:
        """Note in the log what was given out."""
        with self._database.write() as connection:
            _study(connection, study_id, lock=True)
            self._log(connection, study_id, "exported", **detail)

    # Researchers

    def set_password(self, name: str, password: str) -> None:
        """Let a researcher log in to the admin app, or change how.

        Raises:
            WebappError: if the password is too short.
        """
        with self._database.write() as connection:
            passwords.store(connection, name, password, at=self._now().isoformat())

    def check_password(self, name: str, password: str) -> bool:
        """Whether this researcher has this password."""
        with self._database.read() as connection:
            return passwords.check(connection, name, password)

    def has_researcher(self) -> bool:
        """Whether anybody can log in."""
        with self._database.read() as connection:
            return passwords.is_any(connection)

    # Behind them

    def _judgements(self, protocol: Protocol, design: Design) -> Iterator[Judgement]:
        with self._database.read() as connection:
            yield from readout.judgements(connection, protocol, design)

    def _step(self, study_id: str, verb: str, state: str, *before: str, **detail: str) -> None:
        with self._database.write() as connection:
            self._locked(connection, study_id, verb, *before)
            self._change(connection, study_id, state=state)
            self._log(connection, study_id, verb, **detail)

    @staticmethod
    def _locked(connection: Connection, study_id: str, verb: str, *states: str) -> Facts:
        found = _study(connection, study_id, lock=True)
        if found.state not in states:
            step = NEXT_STEP.get(found.state)
            way_out = f"its next step is `python -m webapp {step}`" if step else "it stays as it is"
            raise WebappError(
                f"study {study_id!r} is {found.state} and cannot be {verb}, which needs one that "
                f"is {' or '.join(states)}; {way_out}."
            )
        return found

    @staticmethod
    def _locked_reader(connection: Connection, participant_id: str) -> Facts:
        study_id = connection.execute(
            select(participant.c.study_id).where(participant.c.participant_id == participant_id)
        ).scalar()
        if study_id is None:
            raise WebappError(
                f"there is no participant {participant_id!r}; `python -m webapp status` lists them."
            )
        _study(connection, study_id, lock=True)  # the log's next number is ours
        return connection.execute(
            select(participant)
            .where(participant.c.participant_id == participant_id)
            .with_for_update(key_share=True)
        ).one()

    @staticmethod
    def _change(connection: Connection, study_id: str, **values: str) -> None:
        connection.execute(update(study).where(study.c.study_id == study_id).values(values))

    def _log(self, connection: Connection, study_id: str, kind: str, /, **detail: Any) -> None:
        at = self._now().isoformat()
        log.append(connection, study_id, kind, detail, actor=self._actor, at=at)

    @staticmethod
    def _refuse_second(connection: Connection, protocol: Protocol) -> None:
        existing = connection.execute(
            select(study.c.protocol_hash).where(study.c.study_id == protocol.study_id)
        ).first()
        if existing is None:
            return
        if existing.protocol_hash == protocol.protocol_hash:
            raise WebappError(
                f"study {protocol.study_id!r} was created already; go on with it (`python -m "
                "webapp status`), or give the new study another study_id."
            )
        raise WebappError(
            f"study {protocol.study_id!r} is there under protocol {existing.protocol_hash[:12]}… "
            f"but this file is {protocol.protocol_hash[:12]}…; amend it (`python -m webapp "
            "amend`), or give the changed one another study_id."
        )


def _study(connection: Connection, study_id: str, *, lock: bool = False) -> Facts:
    wanted = select(study).where(study.c.study_id == study_id)
    found = connection.execute(wanted.with_for_update(key_share=True) if lock else wanted).first()
    if found is None:
        known = ", ".join(connection.execute(select(study.c.study_id)).scalars()) or "none"
        raise WebappError(
            f"there is no study {study_id!r} in this database, which holds {known}; name one of "
            "them, or make it with `python -m webapp create`."
        )
    return found


def _protocol(found: Facts) -> Protocol:
    return Protocol.model_validate_json(found.protocol_json)


def _has_begun(connection: Connection, study_id: str) -> bool:
    """Whether any reader was given a schedule."""
    given = exists().where(participant.c.study_id == study_id, participant.c.arm.is_not(None))
    return bool(connection.execute(select(given)).scalar())
