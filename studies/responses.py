"""The tidy response table: one row for each judgement; the contract with the web app.

CSV or Parquet, by the file's suffix, with a machine-readable codebook beside it. Whether an answer
was right is derived from `response` and `is_synthetic`, never stored.
"""

import json
from collections.abc import Iterable
from datetime import UTC
from pathlib import Path
from typing import Annotated, Any, Literal

import pandas as pd
from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
)

from studies.protocol import Protocol
from studies.stimuli import true_or_false

Name = Annotated[str, Field(min_length=1)]
Moment = Annotated[AwareDatetime, AfterValidator(lambda moment: moment.astimezone(UTC))]


class ResponseError(ValueError):
    """A response table that cannot be used: which row, which column, and what to do."""


class Response(BaseModel):
    """One judgement of one stimulus by one participant."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    study_id: Annotated[Name, Field(description="study, as in the protocol")]
    protocol_hash: Annotated[
        str,
        Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the protocol answered under, hex"),
    ]
    participant_id: Annotated[Name, Field(description="code of the reader; not a name")]
    trial_id: Annotated[Name, Field(description="one presentation of one stimulus to one reader")]
    trial_number: Annotated[int, Field(ge=1, description="position in the reader's order, from 1")]
    stimulus_id: Annotated[Name, Field(description="picture, as in the manifest of the stimuli")]
    class_name: Annotated[Name, Field(description="class of the cell shown")]
    is_synthetic: Annotated[
        bool, BeforeValidator(true_or_false), Field(description="true if the picture is generated")
    ]
    response: Annotated[
        Literal["real", "generated"], Field(description="what the reader said it is")
    ]
    confidence: Annotated[
        int, Field(ge=1, description="1 is a guess; `confidence_points` of the protocol is certain")
    ]
    response_time_s: Annotated[
        float, Field(ge=0, allow_inf_nan=False, description="picture painted to answer, seconds")
    ]
    presented_at: Annotated[Moment, Field(description="when the picture was sent, UTC ISO 8601")]
    responded_at: Annotated[Moment, Field(description="when the answer arrived, UTC ISO 8601")]


COLUMNS: tuple[str, ...] = tuple(Response.model_fields)

_ADVICE = {
    "protocol_hash": "write the 64 hex digits that the export gives",
    "trial_number": "write a whole number from 1",
    "is_synthetic": "write true or false",
    "response": "write `real` or `generated`",
    "confidence": "write a whole number from 1 to the protocol's confidence_points",
    "response_time_s": "write seconds as a number of at least 0",
    "presented_at": "write a time with its zone, such as 2026-01-31T09:30:00+00:00",
    "responded_at": "write a time with its zone, such as 2026-01-31T09:30:00+00:00",
}


def write_responses(path: Path, rows: Iterable[Response]) -> None:
    """Write the table to `path` (.csv or .parquet) and its codebook beside it.

    Raises:
        ResponseError: if the suffix is neither, or the file cannot be written.
    """
    table, suffix = _frame(rows), _suffix(path)
    if suffix == ".csv":
        table["is_synthetic"] = table["is_synthetic"].map({True: "true", False: "false"})
        for column in ("presented_at", "responded_at"):
            table[column] = [moment.isoformat(timespec="microseconds") for moment in table[column]]
    try:
        if suffix == ".csv":
            table.to_csv(path, index=False, lineterminator="\n")
        else:
            table.to_parquet(path, index=False)
        explained = json.dumps(codebook(), indent=2, ensure_ascii=False) + "\n"
        codebook_path(path).write_text(explained, encoding="utf-8")
    except OSError as error:
        raise ResponseError(
            f"{path} cannot be written ({error.strerror or error}); "
            "give a path in a folder that exists and that you may write to."
        ) from None


def codebook_path(path: Path) -> Path:
    """Where the codebook of a response table lies: `responses.csv` → `responses.codebook.json`."""
    return path.with_suffix(".codebook.json")


def codebook() -> dict[str, Any]:
    """What each column means, as JSON Schema of one row."""
    return Response.model_json_schema() | {"title": "Responses, one row for each judgement"}


def read_responses(path: Path) -> pd.DataFrame:
    """The table in `path`, every cell checked; times as UTC timestamps.

    Rows are named as a spreadsheet counts them: the header is row 1.

    Raises:
        ResponseError: for the first cell that is not what its column says, a judgement that is
            there twice, or a stimulus whose class or truth changes between rows.
    """
    raw = _read_raw(path)
    missing = [column for column in COLUMNS if column not in raw.columns]
    unknown = [str(column) for column in raw.columns if column not in COLUMNS]
    if missing or unknown:
        found = " and ".join(
            [f"lacks the column {', '.join(missing)}"] * bool(missing)
            + [f"has the unknown column {', '.join(unknown)}"] * bool(unknown)
        )
        raise ResponseError(f"{path} {found}; export it anew with `python -m webapp export`.")
    if raw.empty:
        raise ResponseError(f"{path} holds no response yet; export it again once readers answered.")
    records = raw.to_dict(orient="records")
    table = _frame(_response(path, row, values) for row, values in enumerate(records, 2))
    _refuse_repeats(path, table)
    _refuse_changing_stimuli(path, table)
    return table


def check_protocol(responses: pd.DataFrame, protocol: Protocol) -> None:
    """Refuse responses that were not given under `protocol`.

    Raises:
        ResponseError: if the hash or study differs, or the protocol lacks such a trial or level.
    """
    for row, found in enumerate(responses["protocol_hash"], 2):
        if found != protocol.protocol_hash:
            raise ResponseError(
                f"row {row}, column `protocol_hash`: the response was given under protocol "
                f"{found[:12]}… but this protocol is {protocol.protocol_hash[:12]}…; analyse it "
                "with the protocol file that the study ran with, unchanged."
            )
    for row, found in enumerate(responses["study_id"], 2):
        if found != protocol.study_id:
            raise ResponseError(
                f"row {row}, column `study_id`: found {found!r} but the protocol's study is "
                f"{protocol.study_id!r}; keep one study in one file."
            )
    for row, found in enumerate(responses["trial_number"], 2):
        if found > protocol.n_trials:
            raise ResponseError(
                f"row {row}, column `trial_number`: found {found} but the protocol gives each "
                f"reader {protocol.n_trials} trials; keep other sessions out of this file."
            )
    for row, found in enumerate(responses["confidence"], 2):
        if found > protocol.confidence_points:
            raise ResponseError(
                f"row {row}, column `confidence`: found {found} but the protocol's scale ends at "
                f"{protocol.confidence_points}; correct the row at its source and export again."
            )


def _suffix(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix not in (".csv", ".parquet"):
        raise ResponseError(f"{path} is neither .csv nor .parquet; name the file so.")
    return suffix


def _read_raw(path: Path) -> pd.DataFrame:
    suffix = _suffix(path)
    try:
        if suffix == ".parquet":
            return pd.read_parquet(path)
        # As text: pandas would otherwise take a class named "NA" for a gap.
        return pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except OSError as error:
        raise ResponseError(
            f"{path} cannot be read ({error.strerror or error}); "
            "export it with `python -m webapp export`."
        ) from None
    except ValueError as error:  # pandas' parser errors, pyarrow's and UnicodeDecodeError
        reason = str(error).strip().splitlines()[0]
        raise ResponseError(f"{path} is not a response table: {reason}; export it anew.") from None


def _response(path: Path, row: int, values: dict[Any, Any]) -> Response:
    try:
        return Response.model_validate(values)
    except ValidationError as error:
        column = str(error.errors()[0]["loc"][0])
        raise ResponseError(
            f"{path} row {row}, column `{column}`: found {values[column]!r}; "
            f"{_ADVICE.get(column, 'write a text that is not empty')}."
        ) from None


def _frame(rows: Iterable[Response]) -> pd.DataFrame:
    columns: dict[str, list[object]] = {column: [] for column in COLUMNS}
    for row in rows:
        for column, values in columns.items():
            values.append(getattr(row, column))
    table = pd.DataFrame(columns)
    for column in ("presented_at", "responded_at"):
        table[column] = pd.to_datetime(table[column], utc=True).astype("datetime64[us, UTC]")
    return table.astype(
        {
            "is_synthetic": bool,
            "trial_number": "int64",
            "confidence": "int64",
            "response_time_s": "float64",
        }
    )


def _refuse_repeats(path: Path, table: pd.DataFrame) -> None:
    for first, second in (
        ("participant_id", "stimulus_id"),
        ("participant_id", "trial_number"),
        ("participant_id", "trial_id"),
    ):
        repeats = table.duplicated([first, second]).to_numpy().nonzero()[0]
        if len(repeats):
            values = table.iloc[repeats[0]]
            raise ResponseError(
                f"{path} row {repeats[0] + 2}, column `{second}`: {values[first]} has answered "
                f"{values[second]} in an earlier row already; keep the first answer only."
            )


def _refuse_changing_stimuli(path: Path, table: pd.DataFrame) -> None:
    for column in ("class_name", "is_synthetic"):
        first = table.groupby("stimulus_id")[column].transform("first")
        changed = (table[column] != first).to_numpy().nonzero()[0]
        if len(changed):
            row = changed[0]
            raise ResponseError(
                f"{path} row {row + 2}, column `{column}`: stimulus "
                f"{table['stimulus_id'].iloc[row]} was {first.iloc[row]} in an earlier row and is "
                f"{table[column].iloc[row]} here; a stimulus has one truth, so export it anew."
            )
