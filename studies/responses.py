"""The tidy response table: one row for each judgement, from the web app or from anywhere else.

CSV or Parquet, by the file's suffix. `Response` says what a row is: four columns are needed, the
others may be absent, and further ones are kept. The codebook says the same to machines and lies
beside every table that is written. Whether an answer was right is derived, never stored.
"""

import difflib
import json
import re
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
    StringConstraints,
)
from pydantic.json_schema import SkipJsonSchema

from studies.protocol import Protocol
from studies.response_table import (
    Check,
    is_empty,
    matching,
    moments,
    numbers,
    read_table,
    refuse,
    suffix_of,
    texts,
    truths,
)
from studies.response_table import ResponseError as ResponseError
from studies.stimuli import true_or_false

_DIGEST = r"^[0-9a-f]{64}$"

Absent = SkipJsonSchema[None]
Text = Annotated[str, StringConstraints(pattern=r"^\S(?s:.*\S)?$")]
Digest = Annotated[str, StringConstraints(pattern=_DIGEST)]
Truth = Annotated[bool, BeforeValidator(true_or_false)]
Count = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Moment = Annotated[AwareDatetime, AfterValidator(lambda moment: moment.astimezone(UTC))]


def _means(meaning: str, unit: str = "none") -> Any:
    return Field(description=meaning, json_schema_extra={"unit": unit})


class Response(BaseModel):
    """One judgement of one stimulus by one participant."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    study_id: Annotated[Text | Absent, _means("study, as in the protocol")] = None
    protocol_hash: Annotated[
        Digest | Absent, _means("SHA-256 of the protocol answered under, 64 hex digits")
    ] = None
    participant_id: Annotated[Text, _means("code of the reader; not a name")]
    trial_id: Annotated[Text | Absent, _means("one showing of one stimulus to one reader")] = None
    trial_number: Annotated[
        Count | Absent, _means("position in the reader's order, from 1", "trials")
    ] = None
    stimulus_id: Annotated[Text, _means("picture, as in the manifest of the stimuli")]
    class_name: Annotated[Text | Absent, _means("class of the cell shown")] = None
    is_synthetic: Annotated[Truth, _means("true if the picture is generated")]
    response: Annotated[Literal["real", "generated"], _means("what the reader said it is")]
    confidence: Annotated[
        Count | Absent,
        _means("1 is a guess; `confidence_points` of the protocol is certain", "points"),
    ] = None
    response_time_s: Annotated[
        Seconds | Absent, _means("from the picture painted to the answer", "seconds")
    ] = None
    presented_at: Annotated[
        Moment | Absent, _means("when the picture was sent, ISO 8601 with zone", "UTC")
    ] = None
    responded_at: Annotated[
        Moment | Absent, _means("when the answer arrived, ISO 8601 with zone", "UTC")
    ] = None
    generator: Annotated[
        Text | Absent, _means("what generated the picture; empty for a real one")
    ] = None
    experience: Annotated[Text | Absent, _means("group of the reader, such as expert")] = None
    repeat_number: Annotated[
        Count | Absent,
        _means("1 when this reader saw this picture for the first time; absent: 1", "showings"),
    ] = None
    model_confidence: Annotated[
        Fraction | Absent, _means("the model's confidence in the true class", "probability")
    ] = None
    is_attention: Annotated[
        Truth | Absent, _means("true if the picture is an obvious control, in no result")
    ] = None


COLUMNS: tuple[str, ...] = tuple(Response.model_fields)
NEEDED = tuple(name for name, field in Response.model_fields.items() if field.is_required())
_TIMES = ("presented_at", "responded_at")
_WHOLE = ("trial_number", "confidence", "repeat_number")
_MAY_BE_EMPTY = (
    *("class_name", "confidence", "response_time_s"),
    *("generator", "experience", "model_confidence"),
)

CHECKS: dict[str, tuple[Check, Any]] = dict.fromkeys(COLUMNS, (texts, "str")) | {
    "protocol_hash": (matching(_DIGEST), "str"),
    "trial_number": (numbers(1, 2**53, whole=True), "int64"),
    "is_synthetic": (truths, "bool"),
    "response": (matching("real|generated"), "str"),
    "confidence": (numbers(1, 2**53, whole=True), "float64"),
    "response_time_s": (numbers(0), "float64"),
    "presented_at": (moments, "datetime64[us, UTC]"),
    "responded_at": (moments, "datetime64[us, UTC]"),
    "repeat_number": (numbers(1, 2**53, whole=True), "int64"),
    "model_confidence": (numbers(0, 1), "float64"),
    "is_attention": (truths, "bool"),
}
"""How each column is checked, and its type in the frame."""

_ADVICE = dict.fromkeys(COLUMNS, "write a text without a space before or after it") | {
    "protocol_hash": "write the 64 hex digits that the export gives",
    "trial_number": "write a whole number from 1",
    "is_synthetic": "write true or false",
    "response": "write `real` or `generated`",
    "confidence": "write a whole number from 1 to the protocol's confidence_points",
    "response_time_s": "write seconds as a number of at least 0, such as 2.5, with a point",
    "presented_at": "write a time with its zone, such as 2026-01-31T09:30:00+00:00",
    "responded_at": "write a time with its zone, such as 2026-01-31T09:30:00+00:00",
    "repeat_number": "write a whole number, 1 for the first showing",
    "model_confidence": "write a number from 0 to 1, such as 0.85, with a point",
    "is_attention": "write true or false",
}


def write_responses(path: Path, rows: Iterable[Response]) -> None:
    """Write the table to `path` (.csv or .parquet) and its codebook beside it.

    An optional column that no row fills is left out.

    Raises:
        ResponseError: if the suffix is neither, or the file cannot be written.
    """
    suffix, rows = suffix_of(path), list(rows)
    filled = [
        column
        for column in COLUMNS
        if column in NEEDED or any(getattr(row, column) is not None for row in rows)
    ]
    table = pd.DataFrame({column: [getattr(row, column) for row in rows] for column in filled})
    types = dict.fromkeys(_WHOLE, "Int64") | dict.fromkeys(_TIMES, "datetime64[us, UTC]")
    table = table.astype({column: types[column] for column in filled if column in types})
    try:
        if suffix == ".csv":
            for column in table.columns.intersection(["is_synthetic", "is_attention"]):
                table[column] = table[column].map({True: "true", False: "false"})
            moments = "%Y-%m-%dT%H:%M:%S.%f+00:00"
            table.to_csv(path, index=False, lineterminator="\n", date_format=moments)
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
    """Each column's type, unit, meaning, and whether it is needed, as JSON Schema of one row."""
    schema = Response.model_json_schema() | {
        "title": "Responses, one row for each judgement",
        "additionalProperties": True,
    }
    for name, column in schema["properties"].items():
        column.pop("default", None)
        column |= {"needed": name in NEEDED, "may_be_empty": name in _MAY_BE_EMPTY}
    return schema


def read_responses(path: Path) -> pd.DataFrame:
    """The table in `path`, every cell of a known column checked.

    Known columns come first, in the order of `COLUMNS`: text ("" where the cell is empty), bool,
    int64, times in UTC, and float64 for `confidence`, `response_time_s` and `model_confidence` (NaN
    where empty); an optional one without a single value is left out. Other columns follow as they
    are, of a CSV as float64 if all cells are numbers, else as text. Row i of the frame is row i + 2
    of a spreadsheet, whose row 1 is the header.

    Raises:
        ResponseError: for a column that is missing, a cell that is not what its column says, a
            judgement that is there twice, or a stimulus whose class or truth changes between rows.
    """
    raw = read_table(path)
    columns = [str(column) for column in raw]
    _refuse_columns(path, columns)
    if raw.empty:
        raise ResponseError(f"{path} holds no response yet; export it again once readers answered.")
    filled = {name for name in columns if name in NEEDED or not is_empty(raw[name]).all()}
    # Popped one by one, so that the table lies in memory hardly more than once.
    table = pd.DataFrame(
        {name: _checked(f"{path} ", raw.pop(name)) for name in COLUMNS if name in filled}
    )
    for name in columns:
        if name not in COLUMNS:
            table[name] = _as_it_is(raw.pop(name), is_text=path.suffix.lower() == ".csv")
    _refuse_repeats(f"{path} ", table)
    _refuse_contradictions(f"{path} ", table)
    return table


def without_attention(responses: pd.DataFrame) -> pd.DataFrame:
    """The judgements that results are made of: no attention checks."""
    if "is_attention" not in responses:
        return responses
    return responses[~responses["is_attention"]].drop(columns="is_attention")


def n_planned(protocol: Protocol) -> int:
    """Stimuli that each reader judges in such a table: of the unprimed authenticity blocks."""
    return sum(
        block.n_trials
        for block in protocol.rounds
        if block.design == "authenticity" and not block.primed
    )


def check_protocol(responses: pd.DataFrame, protocol: Protocol) -> tuple[str, ...]:
    """What must be said about responses that can be those of `protocol`.

    Raises:
        ResponseError: if the hash or study differs, or the protocol lacks such a trial or level.
    """

    def refuse_other(column: str, wrong: pd.Series, sentence: str) -> None:
        refuse("", wrong, column, sentence, found=responses[column])

    cautions = []
    if "protocol_hash" in responses:
        refuse_other(
            "protocol_hash",
            responses["protocol_hash"] != protocol.protocol_hash,
            "the response was given under protocol {found:.12}… but this protocol is "
            f"{protocol.protocol_hash[:12]}…; analyse it with the protocol file that the study ran "
            "with, unchanged",
        )
    else:
        cautions.append(
            "The responses have no column `protocol_hash`, so the file does not prove under which "
            "protocol they were given."
        )
    if "study_id" in responses:
        refuse_other(
            "study_id",
            responses["study_id"] != protocol.study_id,
            f"found {{found!r}} but the protocol's study is {protocol.study_id!r}; keep one study "
            "in one file",
        )
    first, n_most = without_attention(responses), n_planned(protocol)
    if "repeat_number" in first:
        first = first[first["repeat_number"] == 1]
    # Repeats that the protocol does not plan may have been shown after its trials.
    has_other_repeats = (
        "repeat_number" in responses
        and responses["repeat_number"].max() > 1
        and not any(block.n_repeats for block in protocol.rounds)
    )
    if "trial_number" in responses and not has_other_repeats:
        refuse_other(
            "trial_number",
            responses["trial_number"] > protocol.n_shown,
            f"found {{found}} but the protocol gives each reader {protocol.n_shown} trials; keep "
            "other sessions out of this file",
        )
    refuse_other(
        "participant_id",
        first.groupby("participant_id").cumcount() >= n_most,
        f"{{found}} has judged {n_most} stimuli in earlier rows, which is all that the "
        "protocol gives a reader; keep other sessions out of this file",
    )
    if "confidence" in responses:
        refuse_other(
            "confidence",
            responses["confidence"] > protocol.confidence_points,
            f"found {{found:g}} but the protocol's scale ends at {protocol.confidence_points}; "
            "correct the row at its source and export again",
        )
    if protocol.analysis.rules.fewest_attention is not None and "is_attention" not in responses:
        cautions.append(
            "The protocol leaves out readers by their attention checks, but the responses have no "
            "column `is_attention`, so that rule holds nobody back."
        )
    cautions += [
        f"The column `{found}` is not one that the analysis knows; if it is `{meant}`, rename it."
        for meant, found in _misspelled(COLUMNS, [str(column) for column in responses])
    ]
    return tuple(cautions)


def _refuse_columns(path: Path, columns: list[str]) -> None:
    twice = [name for name in columns if columns.count(name) > 1]
    if twice:
        raise ResponseError(f"{path} row 1 names the column `{twice[0]}` twice; keep one of them.")
    missing = [name for name in NEEDED if name not in columns]
    if not missing:
        return
    advice = "add what is missing"
    renamed = [f"`{found}` to `{name}`" for name, found in _misspelled(NEEDED, columns)]
    if renamed:
        advice = f"if that is what they are, rename {', '.join(renamed)}"
    if len(columns) == 1 and re.search(r"[;\t]", columns[0]):
        advice = "separate cells by commas, and write numbers with a point"
    raise ResponseError(
        f"{path} row 1 lacks the needed column{'s' * (len(missing) > 1)} {', '.join(missing)}; "
        f"it has {', '.join(columns) or 'none'}; {advice}."
    )


def _misspelled(known: Iterable[str], columns: list[str]) -> list[tuple[str, str]]:
    """Known columns that are absent, each with an unknown one that is likely to be meant."""
    absent = [name for name in known if name not in columns]
    return [
        (meant, found)
        for found in columns
        if found not in COLUMNS
        for meant in difflib.get_close_matches(
            re.sub(r"[^a-z0-9]+", "_", found.lower()).strip("_"), absent, n=1, cutoff=0.75
        )
    ]


def _checked(where: str, cells: pd.Series) -> pd.Series:
    name = str(cells.name)
    check, dtype = CHECKS[name]
    values = check(cells)
    empty = is_empty(cells)
    if name not in _MAY_BE_EMPTY:
        or_else = "" if name in NEEDED else ", or leave out the whole column"
        refuse(where, empty, name, f"the cell is empty; {_ADVICE[name]}{or_else}")
    is_wrong = values.isna() & ~empty
    or_empty = ", or leave the cell empty" if name in _MAY_BE_EMPTY else ""
    refuse(
        where,
        is_wrong,
        name,
        f"found {{found!r:.80}}; {_ADVICE[name]}{or_empty}",
        found=cells[is_wrong].astype("str"),
    )
    filled: pd.Series = (values.fillna("") if dtype == "str" else values).astype(dtype)
    return filled


def _as_it_is(cells: pd.Series, *, is_text: bool) -> pd.Series:
    if not is_text:
        return cells
    values = numbers()(cells)
    return values if values.count() == cells.count() else cells.fillna("")


def _refuse_repeats(where: str, table: pd.DataFrame) -> None:
    showing = ["stimulus_id"] + ["repeat_number"] * ("repeat_number" in table)
    for columns, advice in (
        (
            showing,
            "delete the row if it is there by mistake; if the stimulus was shown again, number its "
            "showings in the column `repeat_number`",
        ),
        (["trial_number"], "number the trials of each reader from 1, or delete the row"),
        (["trial_id"], "give each showing its own, or delete the row"),
    ):
        keys = ["participant_id", *columns]
        if columns[0] in table and table.duplicated(keys).any():
            first = _first_rows(table, keys)
            refuse(
                where,
                first < first.index,
                columns[0],
                f"{{reader}} has answered {{found}} in row {{earlier}} already; {advice}",
                reader=table["participant_id"],
                found=table[columns[0]],
                earlier=first + 2,
            )


def _refuse_contradictions(where: str, table: pd.DataFrame) -> None:
    for of, column, advice in (
        ("stimulus_id", "is_synthetic", "a stimulus has one truth"),
        ("stimulus_id", "class_name", "a stimulus has one class"),
        ("stimulus_id", "generator", "a stimulus has one generator"),
        ("participant_id", "experience", "a reader belongs to one group"),
    ):
        if column not in table:
            continue
        known = table.loc[table[column] != "", [of, column]]
        if known.drop_duplicates()[of].is_unique:
            continue
        first = _first_rows(known, [of])
        before = known[column][first].set_axis(known.index)
        refuse(
            where,
            known[column] != before,
            column,
            f"{{who}} was {{before}} in row {{earlier}} and is {{found}} here; {advice}, so "
            "correct one of the two rows",
            who=known[of],
            before=before,
            earlier=first + 2,
            found=known[column],
        )
    if "generator" in table:
        refuse(
            where,
            ~table["is_synthetic"] & (table["generator"] != ""),
            "generator",
            "found {found!r} for a real picture; empty the cell, or correct `is_synthetic`",
            found=table["generator"],
        )


def _first_rows(table: pd.DataFrame, keys: list[str]) -> pd.Series:
    """For each row, the first row that is the same in all `keys`."""
    rows = table.index.to_series()
    return rows.groupby([table[key] for key in keys], sort=False).transform("min")
