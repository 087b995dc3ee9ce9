"""What the buttons of the researchers' pages do: each is one call to `Registry`, and a sentence."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studies.protocol import ProtocolError, load_protocol
from webapp.errors import WebappError
from webapp.registry import Registry


@dataclass(frozen=True, slots=True, kw_only=True)
class Press:
    """Who pressed a button, and on which study."""

    registry: Registry
    """Acts in the researcher's name."""
    researcher: str
    study_id: str


Updates = dict[Any, Any]
Done = tuple[str, Updates]
"""What to say, and what to show beside the study."""
Act = Callable[..., Done]
"""`(press, *values of the page)`."""


def show(_press: Press) -> Done:
    """Only what is there."""
    return "", {}


def freeze(press: Press, reason: str) -> Done:
    """From an audited study to one that is promised."""
    press.registry.freeze(press.study_id, override=reason)
    return "Frozen. Whatever is changed from now on shows in the log.", {}


def open_study(press: Press) -> Done:
    """For the first time or again."""
    press.registry.open(press.study_id)
    return "Open. Invited readers can begin, or go on where they stopped.", {}


def close(press: Press) -> Done:
    """No further answers."""
    press.registry.close(press.study_id)
    return "Closed. No further answer is taken.", {}


def unblind(press: Press, reason: str) -> Done:
    """For good."""
    press.registry.unblind(press.study_id, reason)
    return "Unblinded. Who did it and why are in the log.", {}


def report(press: Press, digest: str) -> Done:
    """Which report was made."""
    if not re.fullmatch("[0-9a-f]{64}", digest.strip().lower()):
        raise WebappError(
            "the report is noted by its SHA-256, 64 hex digits; `sha256sum report.html` prints it."
        )
    press.registry.mark_reported(press.study_id, digest.strip().lower())
    return "The report is recorded.", {}


def revoke(press: Press, reader: str | None) -> Done:
    """Shut one reader's links."""
    press.registry.revoke(chosen(reader))
    return f"The links of {reader} open nothing any more; their answers stay.", {}


def withdraw(press: Press, reader: str | None, reason: str) -> Done:
    """One reader stops for good."""
    press.registry.withdraw(chosen(reader), reason)
    kept = press.registry.summary(press.study_id).protocol.conduct.withdrawal == "keep"
    return f"{reader} has withdrawn; answers given are {'kept' if kept else 'erased'}.", {}


def amend(press: Press, file: str | None, reason: str) -> Done:
    """Another version of the protocol."""
    with uploaded(file, "the new version of the protocol (.toml)") as path:
        press.registry.amend(press.study_id, load_protocol(path), reason)
    return "Amended. Both versions' hashes and the reason are in the log.", {}


def verify(press: Press) -> Done:
    """The log's chain, and what is frozen."""
    if problems := press.registry.verify(press.study_id):
        raise WebappError(f"Study {press.study_id} is not whole: {'; '.join(problems)}.")
    newest = press.registry.events(press.study_id)[-1]
    return (
        f"The log is whole: {newest.number} events, the newest {newest.event_hash}. Protocol, "
        "stimuli and schedules are those it speaks of.",
        {},
    )


@contextmanager
def uploaded(path: str | None, what: str) -> Iterator[Path]:
    """A file that was uploaded; it is gone from this machine afterwards."""
    if path is None:
        raise WebappError(f"no file was chosen; choose {what} first.")
    try:
        yield Path(path)
    except ProtocolError as error:
        # It begins with the file's path, which means something on the server only.
        raise ProtocolError(str(error).replace(f"{Path(path).parent}/", "")) from None
    finally:
        Path(path).unlink()


def chosen(reader: str | None) -> str:
    """The reader in the list."""
    if not reader:
        raise WebappError("no reader was chosen; choose one first.")
    return reader
