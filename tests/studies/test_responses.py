import json
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pandas as pd
import pytest

from studies.protocol import Protocol
from studies.responses import (
    COLUMNS,
    Response,
    ResponseError,
    check_protocol,
    codebook_path,
    read_responses,
    write_responses,
)
from tests.studies.simulation import simulate, stimulus_set

PROTOCOL = Protocol(study_id="first-light", n_participants=2, n_trials=8)


def rows():
    stimuli = stimulus_set(2, ("NA", "platelet"))
    return simulate(PROTOCOL, stimuli, rng=np.random.default_rng(0))


@pytest.fixture(params=["csv", "parquet"])
def path(request, tmp_path):
    return tmp_path / f"responses.{request.param}"


@pytest.fixture
def refused(tmp_path):
    """The words with which a table is refused once one cell is changed; the header is row 1."""

    def refusal(row, column, value):
        path = tmp_path / "responses.csv"
        write_responses(path, rows())
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        table.loc[row - 2, column] = value
        table.to_csv(path, index=False)
        with pytest.raises(ResponseError) as caught:
            read_responses(path)
        return str(caught.value)

    return refusal


def test_the_table_has_the_columns_of_the_contract():
    assert COLUMNS == (
        "study_id",
        "protocol_hash",
        "participant_id",
        "trial_id",
        "trial_number",
        "stimulus_id",
        "class_name",
        "is_synthetic",
        "response",
        "confidence",
        "response_time_s",
        "presented_at",
        "responded_at",
    )


def test_what_was_written_reads_back_to_the_last_digit(path):
    write_responses(path, rows())
    table = read_responses(path)
    assert [Response(**row) for row in table.to_dict(orient="records")] == rows()


def test_csv_and_parquet_read_as_the_same_table(tmp_path):
    for name in ("r.csv", "r.parquet"):
        write_responses(tmp_path / name, rows())
    pd.testing.assert_frame_equal(
        read_responses(tmp_path / "r.csv"), read_responses(tmp_path / "r.parquet")
    )


def test_a_class_called_na_is_not_a_gap(path):
    write_responses(path, rows())
    assert set(read_responses(path)["class_name"]) == {"NA", "platelet"}


def test_a_table_saved_by_a_spreadsheet_reads_the_same(tmp_path):
    path = tmp_path / "r.csv"
    write_responses(path, rows())
    before = read_responses(path)
    text = path.read_text(encoding="utf-8").replace(",true,", ",TRUE,").replace("\n", "\r\n")
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    pd.testing.assert_frame_equal(read_responses(path), before)


def test_times_of_any_zone_are_stored_in_utc():
    noon = datetime(2026, 3, 2, 12, tzinfo=timezone(timedelta(hours=2)))
    one = Response(**(rows()[0].model_dump() | {"presented_at": noon}))
    assert one.presented_at == datetime(2026, 3, 2, 10, tzinfo=UTC)
    assert one.presented_at.tzinfo is UTC


def test_the_codebook_beside_the_table_explains_every_column(path):
    write_responses(path, rows())
    codebook = json.loads(codebook_path(path).read_text(encoding="utf-8"))
    assert tuple(codebook["properties"]) == COLUMNS
    assert all(column["description"] for column in codebook["properties"].values())
    assert codebook["properties"]["response"]["enum"] == ["real", "generated"]


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("response", "fake", "row 5, column `response`: found 'fake'; write `real` or `generated`"),
        ("confidence", "0", "row 5, column `confidence`: found '0'; write a whole number from 1"),
        ("confidence", "3.5", "column `confidence`: found '3.5'; write a whole number"),
        ("is_synthetic", "1", "row 5, column `is_synthetic`: found '1'; write true or false"),
        ("is_synthetic", "", "column `is_synthetic`: found ''; write true or false"),
        (
            "presented_at",
            "2026-03-02T09:00:00",
            "row 5, column `presented_at`: found '2026-03-02T09:00:00'; write a time with its zone",
        ),
        ("responded_at", "yesterday", "column `responded_at`: found 'yesterday'; write a time"),
        ("response_time_s", "-1", "column `response_time_s`: found '-1'; write seconds"),
        ("response_time_s", "nan", "column `response_time_s`: found 'nan'; write seconds"),
        ("trial_number", "0", "column `trial_number`: found '0'; write a whole number from 1"),
        ("participant_id", "", "column `participant_id`: found ''; write a text that is not empty"),
        ("protocol_hash", "abc", "column `protocol_hash`: found 'abc'; write the 64 hex digits"),
    ],
)
def test_a_cell_that_is_not_what_its_column_says_is_refused(refused, column, value, words):
    assert words in refused(5, column, value)


def test_a_stimulus_that_a_reader_judged_twice_is_refused(refused):
    first = rows()[0].stimulus_id
    assert f"row 4, column `stimulus_id`: reader-1 has answered {first} in an earlier row" in (
        refused(4, "stimulus_id", first)
    )


def test_a_trial_number_that_is_there_twice_is_refused(refused):
    assert "row 4, column `trial_number`: reader-1 has answered 1 in an earlier row" in refused(
        4, "trial_number", "1"
    )


def test_a_stimulus_whose_truth_changes_is_refused(refused):
    row = rows()[12]
    assert f"row 14, column `is_synthetic`: stimulus {row.stimulus_id} was" in refused(
        14, "is_synthetic", str(not row.is_synthetic).lower()
    )


def test_a_stimulus_whose_class_changes_is_refused(refused):
    words = refused(14, "class_name", "monocyte")
    assert "row 14, column `class_name`" in words
    assert "a stimulus has one truth" in words


def test_missing_and_unknown_columns_are_refused_by_name(tmp_path):
    path = tmp_path / "r.csv"
    write_responses(path, rows())
    pd.read_csv(path).rename(columns={"confidence": "sureness"}).to_csv(path, index=False)
    with pytest.raises(
        ResponseError, match="lacks the column confidence and has the unknown column sureness"
    ):
        read_responses(path)


def test_a_table_without_rows_is_refused(path):
    write_responses(path, [])
    with pytest.raises(ResponseError, match="holds no response yet"):
        read_responses(path)


def test_a_missing_file_is_refused_with_the_command_that_writes_one(path):
    with pytest.raises(ResponseError, match="export it with `python -m webapp export`"):
        read_responses(path)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00\x81", b'a,"b\n1'])
def test_a_file_that_is_no_table_is_refused(path, content):
    path.write_bytes(content)
    with pytest.raises(ResponseError, match=r"is not a response table|lacks the column"):
        read_responses(path)


def test_another_kind_of_file_is_refused(tmp_path):
    with pytest.raises(ResponseError, match=r"is neither \.csv nor \.parquet"):
        write_responses(tmp_path / "r.xlsx", rows())


def test_a_folder_that_does_not_exist_is_refused_with_advice(tmp_path, path):
    with pytest.raises(ResponseError, match="give a path in a folder that exists"):
        write_responses(tmp_path / "none" / path.name, rows())


def table_of(path, protocol):
    write_responses(path, simulate(protocol, stimulus_set(2), rng=np.random.default_rng(0)))
    return read_responses(path)


def test_responses_of_another_protocol_are_refused_with_both_hashes(path):
    other = Protocol(study_id="first-light", n_trials=8, seed=2)
    with pytest.raises(ResponseError) as caught:
        check_protocol(table_of(path, other), PROTOCOL)
    words = str(caught.value)
    assert "row 2, column `protocol_hash`: the response was given under protocol" in words
    assert other.protocol_hash[:12] in words
    assert PROTOCOL.protocol_hash[:12] in words
    assert "with the protocol file that the study ran with, unchanged" in words


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("confidence", 7, "row 3, column `confidence`: found 7 but the protocol's scale ends at 6"),
        ("trial_number", 9, "row 3, column `trial_number`: found 9 but the protocol gives each"),
        ("study_id", "other", "row 3, column `study_id`: found 'other' but the protocol's study"),
    ],
)
def test_values_beyond_the_protocol_are_refused(path, column, value, words):
    table = table_of(path, PROTOCOL)
    check_protocol(table, PROTOCOL)
    table.loc[1, column] = value
    with pytest.raises(ResponseError) as caught:
        check_protocol(table, PROTOCOL)
    assert words in str(caught.value)
