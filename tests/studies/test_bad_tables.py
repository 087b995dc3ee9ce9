"""Tables that cannot be used are refused in one sentence: where, what was found, what to do."""

import time

import numpy as np
import pandas as pd
import pytest

from studies.protocol import Protocol
from studies.responses import (
    ResponseError,
    check_protocol,
    read_responses,
    write_responses,
)
from tests.studies.simulation import simulate, stimulus_set

PROTOCOL = Protocol(study_id="first-light", n_participants=2, n_trials=8)
HEADER = "participant_id,stimulus_id,is_synthetic,response"
N_MANY = 1_000_000


def rows(protocol=PROTOCOL):
    stimuli = stimulus_set(2, ("NA", "platelet"))
    return simulate(protocol, stimuli, rng=np.random.default_rng(0))


@pytest.fixture(params=["csv", "parquet"])
def path(request, tmp_path):
    return tmp_path / f"responses.{request.param}"


@pytest.fixture
def refusal_of(tmp_path):
    """The words with which a CSV of these bytes, or of this text in UTF-8, is refused."""

    def refusal(content):
        path = tmp_path / "r.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        with pytest.raises(ResponseError) as caught:
            read_responses(path)
        words = str(caught.value)
        assert words.startswith(f"{path} ")
        assert "\n" not in words
        return words.removeprefix(f"{path} ")

    return refusal


@pytest.fixture
def refused(tmp_path, refusal_of):
    """The same for a whole table of which some cells of one column are changed."""

    def refusal(row, column, *values):
        write_responses(tmp_path / "whole.csv", rows())
        table = pd.read_csv(tmp_path / "whole.csv", dtype=str, keep_default_na=False)
        for column_absent in {column} - set(table):
            table[column_absent] = ""
        table.loc[row - 2 : row - 3 + len(values), column] = values
        return refusal_of(table.to_csv(index=False))

    return refusal


TIME = "write a time with its zone, such as 2026-01-31T09:30:00+00:00"
SCALE = "write a whole number from 1 to the protocol's confidence_points, or leave the cell empty"


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("response", "fake", "found 'fake'; write `real` or `generated`."),
        ("response", "Real", "found 'Real'; write `real` or `generated`."),
        ("confidence", "0", f"found '0'; {SCALE}."),
        ("confidence", "3.5", f"found '3.5'; {SCALE}."),
        ("confidence", "3,5", f"found '3,5'; {SCALE}."),
        ("confidence", "NA", f"found 'NA'; {SCALE}."),
        ("is_synthetic", "1", "found '1'; write true or false."),
        ("is_synthetic", "yes", "found 'yes'; write true or false."),
        ("presented_at", "2026-03-02T09:00:00", f"found '2026-03-02T09:00:00'; {TIME}."),
        ("presented_at", "2026-02-30T09:00:00Z", f"found '2026-02-30T09:00:00Z'; {TIME}."),
        ("responded_at", "yesterday", f"found 'yesterday'; {TIME}."),
        ("response_time_s", "-1", "found '-1'; write seconds as a number of at least 0"),
        ("response_time_s", "nan", "found 'nan'; write seconds as a number of at least 0"),
        ("response_time_s", "2,5", "found '2,5'; write seconds as a number of at least 0, such as"),
        ("trial_number", "0", "found '0'; write a whole number from 1."),
        ("repeat_number", "1.5", "found '1.5'; write a whole number, 1 for the first showing."),
        ("model_confidence", "85", "found '85'; write a number from 0 to 1, such as 0.85, with a"),
        ("protocol_hash", "abc", "found 'abc'; write the 64 hex digits that the export gives."),
        ("participant_id", "P1 ", "found 'P1 '; write a text without a space before or after it."),
        ("experience", " expert", "found ' expert'; write a text without a space before or after"),
    ],
)
def test_a_cell_that_is_not_what_its_column_says_is_refused(refused, column, value, words):
    if column == "repeat_number":
        assert f"row 2, column `{column}`: {words}" in refused(2, column, value, *["1"] * 15)
    else:
        assert f"row 5, column `{column}`: {words}" in refused(5, column, value)


@pytest.mark.parametrize("column", ["participant_id", "stimulus_id", "is_synthetic", "response"])
def test_an_empty_cell_of_a_needed_column_is_refused(refused, column):
    words = refused(5, column, "")
    assert words.startswith(f"row 5, column `{column}`: the cell is empty; write ")
    assert "leave out" not in words


@pytest.mark.parametrize("column", ["trial_number", "protocol_hash", "presented_at", "trial_id"])
def test_a_partly_empty_column_is_refused_where_all_or_none_must_be_filled(refused, column):
    words = refused(5, column, "", "")
    assert words.startswith(f"row 5, column `{column}`: the cell is empty; write ")
    assert words.endswith("or leave out the whole column (1 more row has the same fault).")


def test_only_the_first_of_many_faults_is_shown_and_the_others_are_counted(refused):
    assert refused(5, "response", "fake", "", "no", "fake").endswith(
        "row 6, column `response`: the cell is empty; write `real` or `generated`."
    )
    assert refused(5, "response", "fake", "no", "fake").endswith(
        "row 5, column `response`: found 'fake'; write `real` or `generated` "
        "(2 more rows have the same fault)."
    )


def test_blank_lines_count_as_the_rows_that_a_spreadsheet_shows(refusal_of):
    assert "row 3, column `participant_id`: the cell is empty" in refusal_of(
        f"{HEADER}\nP1,a,true,real\n\nP1,b,true,real\n"
    )
    assert "row 4, column `response`: found 'no'" in refusal_of(
        f'{HEADER}\n"P\n1",a,true,real\nP1,b,true,real\nP1,c,true,no\n'
    )


def test_missing_columns_are_all_named_with_those_that_are_there(refusal_of):
    assert refusal_of("participant_id,answer\nP1,real\n") == (
        "row 1 lacks the needed columns stimulus_id, is_synthetic, response; "
        "it has participant_id, answer; add what is missing."
    )


def test_a_misspelled_column_is_recognised(refusal_of):
    assert refusal_of("Participant ID,stimulus,is_synthetic,response\nP1,a,true,real\n") == (
        "row 1 lacks the needed columns participant_id, stimulus_id; "
        "it has Participant ID, stimulus, is_synthetic, response; if that is what they are, "
        "rename `Participant ID` to `participant_id`, `stimulus` to `stimulus_id`."
    )


@pytest.mark.parametrize("separator", [";", "\t"])
def test_another_separator_than_a_comma_is_refused_by_what_to_do(refusal_of, separator):
    words = refusal_of(f"{HEADER}\nP1,a,true,real\n".replace(",", separator))
    assert "separate cells by commas, and write numbers with a point" in words


def test_a_column_that_is_named_twice_is_refused(refusal_of):
    words = refusal_of(f"{HEADER},response\nP1,a,true,real,generated\n")
    assert words == "row 1 names the column `response` twice; keep one of them."


def test_a_row_that_is_there_twice_is_refused_with_both_rows(refusal_of):
    words = refusal_of(f"{HEADER}\nP1,a,true,real\nP2,a,true,real\nP1,a,true,real\n")
    assert words == (
        "row 4, column `stimulus_id`: P1 has answered a in row 2 already; delete the row if it is "
        "there by mistake; if the stimulus was shown again, number its showings in the column "
        "`repeat_number`."
    )


def test_the_same_reader_stimulus_and_repeat_twice_is_refused(refusal_of):
    text = f"{HEADER},repeat_number\nP1,a,true,real,1\nP1,a,true,real,2\nP1,a,true,generated,2\n"
    assert "row 4, column `stimulus_id`: P1 has answered a in row 3 already" in refusal_of(text)


@pytest.mark.parametrize("column", ["trial_number", "trial_id"])
def test_a_trial_that_is_there_twice_is_refused(refused, column):
    first = str(getattr(rows()[0], column))
    words = refused(4, column, first)
    assert f"row 4, column `{column}`: reader-1 has answered {first} in row 2 already" in words


@pytest.mark.parametrize(
    ("column", "cells", "words"),
    [
        ("class_name", ("ig", "", "monocyte"), "was ig in row 2 and is monocyte here; a stimulus"),
        ("generator", ("v1", "v1", "v2"), "was v1 in row 2 and is v2 here; a stimulus has one gen"),
    ],
)
def test_a_stimulus_with_two_classes_or_generators_is_refused(refusal_of, column, cells, words):
    lines = [f"P{number},a,true,real,{cell}" for number, cell in enumerate(cells)]
    assert f"row 4, column `{column}`: a {words}" in refusal_of(
        "\n".join([f"{HEADER},{column}", *lines])
    )


def test_a_stimulus_with_two_truths_is_refused(refusal_of):
    words = refusal_of(f"{HEADER}\nP1,a,true,real\nP1,b,true,real\nP2,b,false,real\n")
    assert words == (
        "row 4, column `is_synthetic`: b was True in row 3 and is False here; a stimulus has one "
        "truth, so correct one of the two rows."
    )


def test_a_reader_of_two_groups_is_refused(refusal_of):
    words = refusal_of(f"{HEADER},experience\nP1,a,true,real,expert\nP1,b,true,real,novice\n")
    assert "row 3, column `experience`: P1 was expert in row 2 and is novice here" in words


def test_a_real_picture_with_a_generator_is_refused(refusal_of):
    words = refusal_of(f"{HEADER},generator\nP1,a,true,real,v1\nP1,b,false,real,v1\n")
    assert "row 3, column `generator`: found 'v1' for a real picture; empty the cell" in words


@pytest.mark.parametrize("line", ["P1,a,true", "P1,a,true,real,2,5"])
def test_a_row_with_too_few_or_too_many_cells_is_refused(refusal_of, line):
    words = refusal_of(f"{HEADER}\nP1,b,true,real\n{line}\n{line}\n")
    n_cells = line.count(",") + 1
    assert words.startswith(f"row 3 has {n_cells} cells, but row 1 names 4 columns; look for a ")
    assert words.endswith("without its partner (1 more row has the same fault).")


def test_a_quotation_mark_without_its_partner_is_refused(refusal_of):
    words = refusal_of(f'{HEADER}\nP1,a,true,real\n"P1,b,true,real\nP1,c,true,real\n')
    assert "row 3 has 1 cells" in words
    assert "a quotation mark without its partner" in words


def test_letters_in_another_encoding_are_refused_with_their_row(refusal_of):
    text = f'{HEADER}\n"P\n1",a,true,real\nJörg,b,true,real\nJürg,b,true,real\n'
    assert refusal_of(text.encode("latin-1")) == (
        "row 3, column `participant_id`: found 'Jörg', which is not in UTF-8; save the table anew "
        "as CSV (UTF-8) (1 more row has the same fault)."
    )
    words = refusal_of(f"{HEADER},Größe\nP1,a,true,real,1\n".encode("latin-1"))
    assert words.startswith("row 1, column `Größe`: found 'Größe', which is not in UTF-8")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_an_encoding_of_wider_letters_is_refused(refusal_of, encoding):
    words = refusal_of(f"{HEADER}\nP1,a,true,real\n".encode(encoding))
    assert "is not a response table: it is not plain text in UTF-8; save it anew as CSV" in words


@pytest.mark.parametrize("content", [f"{HEADER}\n", HEADER, f"{HEADER}\n,,,\n\n", f"{HEADER}\n\n"])
def test_a_csv_of_a_header_only_is_refused(refusal_of, content):
    assert refusal_of(content).startswith("holds no response yet; export it again once readers")


def test_a_table_without_rows_is_refused(path):
    write_responses(path, [])
    with pytest.raises(ResponseError, match="holds no response yet"):
        read_responses(path)


def test_an_empty_file_is_refused(path):
    path.write_bytes(b"")
    with pytest.raises(ResponseError, match="is not a response table: it is empty; save it anew"):
        read_responses(path)


@pytest.mark.parametrize("content", [b"PK\x03\x04\x14\0\x06\0workbook", b"PAR1\x15\x04\0PAR1"])
def test_a_binary_file_is_refused(path, content):
    path.write_bytes(content)
    with pytest.raises(ResponseError, match=r"is not a response table|cannot be read"):
        read_responses(path)


def test_a_parquet_file_that_was_cut_off_is_refused(tmp_path):
    path = tmp_path / "r.parquet"
    write_responses(path, rows())
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ResponseError, match="is not a response table: Parquet magic bytes not"):
        read_responses(path)


def test_a_missing_file_is_refused_with_the_command_that_writes_one(path):
    with pytest.raises(ResponseError, match="export it with `python -m webapp export`, or give"):
        read_responses(path)


@pytest.mark.parametrize("name", ["r.xlsx", "r.csv.gz", "r"])
def test_another_kind_of_file_is_refused(tmp_path, name):
    words = r"is neither \.csv nor \.parquet; save the table as one of the two"
    with pytest.raises(ResponseError, match=words):
        read_responses(tmp_path / name)
    with pytest.raises(ResponseError, match=words):
        write_responses(tmp_path / name, rows())


def test_a_folder_that_does_not_exist_is_refused_with_advice(tmp_path, path):
    with pytest.raises(ResponseError, match="give a path in a folder that exists"):
        write_responses(tmp_path / "none" / path.name, rows())


@pytest.mark.parametrize(
    ("column", "values", "found"),
    [
        ("is_synthetic", [1, 0], "found '1'; write true or false"),
        ("is_synthetic", [[1], [0]], "found '[1]'; write true or false"),
        ("confidence", [True, False], "found 'True'; write a whole number"),
        ("response_time_s", [np.inf, 1.0], "found 'inf'; write seconds"),
        ("presented_at", pd.to_datetime(["2026-03-02"] * 2), "found '2026-03-02'; write a time wi"),
    ],
)
def test_a_parquet_column_of_another_type_is_refused(tmp_path, column, values, found):
    needed = {"participant_id": "P1", "stimulus_id": ["a", "b"], "is_synthetic": True}
    table = pd.DataFrame(needed | {"response": "real", column: values})
    table.to_parquet(tmp_path / "r.parquet")
    with pytest.raises(ResponseError) as caught:
        read_responses(tmp_path / "r.parquet")
    assert f"row 2, column `{column}`: {found}" in str(caught.value)


def table_of(path, protocol):
    write_responses(path, rows(protocol))
    return read_responses(path)


def test_responses_of_another_protocol_are_refused_with_both_hashes(path):
    other = Protocol(study_id="first-light", n_participants=2, n_trials=8, seed=2)
    with pytest.raises(ResponseError) as caught:
        check_protocol(table_of(path, other), PROTOCOL)
    assert str(caught.value) == (
        "row 2, column `protocol_hash`: the response was given under protocol "
        f"{other.protocol_hash[:12]}… but this protocol is {PROTOCOL.protocol_hash[:12]}…; analyse "
        "it with the protocol file that the study ran with, unchanged (15 more rows have the same "
        "fault)."
    )


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("confidence", 7, "row 3, column `confidence`: found 7 but the protocol's scale ends at 6"),
        ("trial_number", 9, "row 3, column `trial_number`: found 9 but the protocol gives each"),
        ("study_id", "other", "row 3, column `study_id`: found 'other' but the protocol's study"),
        ("participant_id", "reader-2", "row 17, column `participant_id`: reader-2 has judged 8 st"),
    ],
)
def test_values_beyond_the_protocol_are_refused(path, column, value, words):
    table = table_of(path, PROTOCOL)
    table.loc[1, column] = value
    with pytest.raises(ResponseError) as caught:
        check_protocol(table, PROTOCOL)
    assert words in str(caught.value)


def test_a_million_rows_of_one_reader_are_read_and_refused_for_their_number(tmp_path):
    path = tmp_path / "many.csv"
    lines = (f"P1,{number:x},{'true' if number % 2 else 'false'},real" for number in range(N_MANY))
    path.write_text("\n".join([HEADER, *lines]), encoding="ascii")
    began = time.process_time()
    table = read_responses(path)
    with pytest.raises(ResponseError) as caught:
        check_protocol(table, PROTOCOL)
    assert time.process_time() - began < 10
    assert len(table) == N_MANY
    assert str(caught.value) == (
        "row 10, column `participant_id`: P1 has judged 8 stimuli in earlier rows, which is all "
        "that the protocol gives a reader; keep other sessions out of this file "
        f"({N_MANY - 9} more rows have the same fault)."
    )


def test_a_million_rows_of_one_reader_and_one_stimulus_are_refused_as_repeats(tmp_path):
    needed = {"participant_id": "P1", "stimulus_id": ["a"] * N_MANY, "is_synthetic": True}
    pd.DataFrame(needed | {"response": "real"}).to_parquet(tmp_path / "many.parquet")
    began = time.process_time()
    with pytest.raises(ResponseError) as caught:
        read_responses(tmp_path / "many.parquet")
    assert time.process_time() - began < 10
    assert "row 3, column `stimulus_id`: P1 has answered a in row 2 already" in str(caught.value)
    assert f"({N_MANY - 2} more rows have the same fault)" in str(caught.value)
