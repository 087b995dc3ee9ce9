"""Database -> the table of `studies.responses`."""

from pathlib import Path

from studies.responses import write_responses
from webapp.errors import WebappError
from webapp.store import Store


def export_responses(store: Store, path: Path, study_id: str | None = None) -> tuple[str, int]:
    """Write all answers of a study to `path` (.csv or .parquet) with a codebook beside it.

    Args:
        study_id: may be left out where the database holds one study.

    Returns:
        The study's id, and the number of answers.

    Raises:
        WebappError: if the study is not there, not clear, or has no answer yet.
    """
    known = store.study_ids()
    if study_id is None and len(known) == 1:
        study_id = known[0]
    if study_id not in known:
        asked = "one of several" if study_id is None else repr(study_id)
        raise WebappError(
            f"the database holds {', '.join(known) or 'no study'}, and {asked} was asked for; "
            "name one with --study."
        )
    rows = list(store.responses(study_id))
    if not rows:
        raise WebappError(
            f"study {study_id!r} has no answer yet; export it once a reader answered."
        )
    write_responses(path, rows)
    return study_id, len(rows)
