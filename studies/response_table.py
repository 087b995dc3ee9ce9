"""From a file to checked columns: what any table of responses may hold, cell by cell.

Which column is checked how is the matter of `studies.responses`. pyarrow is imported where it is
used, because the web app writes its tables without it.
"""

import csv
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pandas.api.types import is_bool_dtype, is_numeric_dtype

from studies.stimuli import true_or_false

_NUMBER = r"-?(?:[0-9]{1,15}(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,2})?"
_MOMENT = r"[0-9-]{10}[T ][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]+)?)?(?:Z|[+-][0-9]{2}:?[0-9]{2})"

Check = Callable[[pd.Series], pd.Series]
"""A column as it was read → its values, and a gap for every cell that is not allowed."""


class ResponseError(ValueError):
    """A response table that cannot be used: which row, which column, and what to do."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.splitlines()))  # a cell may hold line breaks


def refuse(where: str, wrong: pd.Series, column: str, sentence: str, **cells: pd.Series) -> None:
    """Refuse the first row that is `wrong`, if any.

    Args:
        wrong: by row of the frame; the header of the file is row 1, so frame row 0 is named row 2.
        sentence: what is wrong, with the names of `cells` in braces.

    Raises:
        ResponseError: which also says how many more rows are wrong.
    """
    rows = wrong.index[wrong]
    if len(rows):
        said = sentence.format(**{name: values[rows[0]] for name, values in cells.items()})
        raise ResponseError(
            f"{where}row {rows[0] + 2}, column `{column}`: {said}{_others(len(rows) - 1)}."
        )


def read_table(path: Path) -> pd.DataFrame:
    """All cells of a CSV as text, of a Parquet file as they are typed; gaps where they are empty.

    "NA" is text: it may be a class. Empty rows at the end of a CSV are left out.

    Raises:
        ResponseError: if the file is no table that can be read.
    """
    is_csv = suffix_of(path) == ".csv"
    try:
        with path.open("rb") as file:
            start = file.read(4096)
        if not start:
            raise ValueError("it is empty")
        return _read_csv(path, start) if is_csv else _read_parquet(path)
    except ResponseError:
        raise
    except OSError as error:
        raise ResponseError(
            f"{path} cannot be read ({error.strerror or error}); "
            "export it with `python -m webapp export`, or give the path of your own table."
        ) from None
    except (ValueError, csv.Error) as error:  # pyarrow's errors are ValueErrors
        reason = str(error).strip().splitlines()[0]
        raise ResponseError(
            f"{path} is not a response table: {reason}; save it anew as CSV (UTF-8) or Parquet."
        ) from None


def suffix_of(path: Path) -> str:
    """`.csv` or `.parquet`; anything else is refused."""
    suffix = path.suffix.lower()
    if suffix not in (".csv", ".parquet"):
        raise ResponseError(
            f"{path} is neither .csv nor .parquet; save the table as one of the two, and name the "
            "file so."
        )
    return suffix


def texts(cells: pd.Series) -> pd.Series:
    """Text without a space at either end: "P01 " would be another reader than "P01"."""
    text = _as_text(cells)
    return text.where((text != "") & (text == text.str.strip()))


def matching(pattern: str) -> Check:
    """Text that is `pattern` as a whole."""

    def check(cells: pd.Series) -> pd.Series:
        text = _as_text(cells)
        return text.where(text.str.fullmatch(pattern, na=False))

    return check


def truths(cells: pd.Series) -> pd.Series:
    """`true` or `false`, as text or as Parquet's booleans."""

    def truth(cell: object) -> object:
        try:
            return true_or_false(cell)
        except ValueError:
            return None

    if cells.dtype == bool:
        return cells
    words = _as_text(cells)
    return words.map({word: truth(word) for word in words.unique().tolist()})


def numbers(lowest: float = -np.inf, highest: float = np.inf, *, whole: bool = False) -> Check:
    """Finite numbers from `lowest` to `highest`, with a decimal point."""

    def check(cells: pd.Series) -> pd.Series:
        is_typed = is_numeric_dtype(cells) and not is_bool_dtype(cells)
        values = (cells if is_typed else matching(_NUMBER)(cells)).astype("float64")
        allowed = values.between(lowest, highest) & np.isfinite(values)
        return values.where(allowed & (values % 1 == 0) if whole else allowed)

    return check


def moments(cells: pd.Series) -> pd.Series:
    """ISO 8601 times with their zone, in UTC."""
    if not isinstance(cells.dtype, pd.DatetimeTZDtype):
        text = matching(_MOMENT)(cells)
        cells = pd.to_datetime(text, utc=True, format="ISO8601", errors="coerce")
    return cells.astype("datetime64[us, UTC]")


def is_empty(cells: pd.Series) -> pd.Series:
    """Which cells hold nothing."""
    return cells.isna() | (cells == "")


def _as_text(cells: pd.Series) -> pd.Series:
    return cells.astype("str").where(cells.notna())


def _read_parquet(path: Path) -> pd.DataFrame:
    from pyarrow import parquet  # type: ignore[import-untyped]

    with path.open("rb") as file:
        table = parquet.ParquetFile(file).read()
    table.validate(full=True)
    # Without metadata, an index that pandas wrote is a column like the others.
    raw: pd.DataFrame = table.to_pandas(ignore_metadata=True, split_blocks=True, self_destruct=True)
    return raw


def _read_csv(path: Path, start: bytes) -> pd.DataFrame:
    if b"\0" in start:
        raise ValueError("it is not plain text in UTF-8")
    try:
        raw = _parse_csv(path, "utf-8")
    except ValueError as error:
        if isinstance(error, UnicodeDecodeError) or "UTF8" in str(error):
            _refuse_encoding(path)
        raise
    if len(raw) and raw.iloc[-1].isna().all():  # spreadsheets write empty rows below a table
        raw = raw.iloc[: np.flatnonzero(raw.notna().any(axis=1)).max(initial=-1) + 1]
    return raw


def _parse_csv(path: Path, encoding: str) -> pd.DataFrame:
    import pyarrow
    from pyarrow import csv as arrow_csv

    ragged: list[Any] = []

    def leave_out(row: Any) -> str:
        ragged.append(row)
        return "skip"

    with path.open(encoding=encoding.replace("utf-8", "utf-8-sig"), newline="") as file:
        names, *rows = list(islice(csv.reader(file), 2)) or [[]]
    if not rows or len(set(names)) < len(names):
        return pd.DataFrame(columns=names)
    table = arrow_csv.read_csv(
        path,
        # With threads, rows would lose their numbers.
        arrow_csv.ReadOptions(encoding=encoding, use_threads=False),
        arrow_csv.ParseOptions(
            newlines_in_values=True, ignore_empty_lines=False, invalid_row_handler=leave_out
        ),
        arrow_csv.ConvertOptions(
            column_types=dict.fromkeys(names, pyarrow.string()),
            null_values=[""],
            strings_can_be_null=True,
        ),
    )
    if ragged:
        raise ResponseError(
            f"{path} row {ragged[0].number} has {ragged[0].actual_columns} cells, but row 1 names "
            f"{len(names)} columns; look for a comma too few or too many (a decimal comma is one), "
            f"or a quotation mark without its partner{_others(len(ragged) - 1)}."
        )
    raw: pd.DataFrame = table.to_pandas(split_blocks=True, self_destruct=True)
    return raw


def _refuse_encoding(path: Path) -> None:
    def is_broken(cell: object) -> bool:
        try:
            str(cell).encode("latin-1").decode()
        except UnicodeDecodeError:
            return True
        return False

    raw = _parse_csv(path, "latin-1")  # which decodes any bytes
    header = pd.DataFrame([{name: name for name in raw}], index=[-1])
    for name, cells in pd.concat([header, raw]).items():
        refuse(
            f"{path} ",
            cells.map(is_broken),
            str(name),
            "found {found!r:.80}, which is not in UTF-8; save the table anew as CSV (UTF-8)",
            found=cells,
        )


def _others(n_rows: int) -> str:
    if not n_rows:
        return ""
    return f" ({n_rows} more {'row has' if n_rows == 1 else 'rows have'} the same fault)"
