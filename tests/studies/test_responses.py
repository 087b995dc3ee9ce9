import json
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from studies.protocol import AnalysisPlan, Block, ExclusionRules, Protocol
from studies.responses import (
    CHECKS,
    COLUMNS,
    NEEDED,
    Response,
    ResponseError,
    check_protocol,
    codebook_path,
    n_planned,
    read_responses,
    without_attention,
    write_responses,
)
from tests.studies.simulation import simulate, stimulus_set

PROTOCOL = Protocol(study_id="first-light", n_participants=2, n_trials=8)
FROM_ELSEWHERE = """\
participant_id,stimulus_id,is_synthetic,response,confidence,generator,entropy,note,code
P1,a,true,real,3,ours,0.25,first,007
P1,b,false,real,,,,"two
lines",008
P2,a,TRUE,generated,1.0,,-1e-3,,x
P2,b,False,generated,6,,2,NA,010
"""


def rows(protocol=PROTOCOL):
    stimuli = stimulus_set(2, ("NA", "platelet"))
    return simulate(protocol, stimuli, rng=np.random.default_rng(0))


def read(tmp_path, text):
    path = tmp_path / "elsewhere.csv"
    path.write_text(text, encoding="utf-8")
    return read_responses(path)


@pytest.fixture(params=["csv", "parquet"])
def path(request, tmp_path):
    return tmp_path / f"responses.{request.param}"


def test_the_format_needs_four_columns_and_knows_fourteen_more():
    assert NEEDED == ("participant_id", "stimulus_id", "is_synthetic", "response")
    assert " ".join(COLUMNS) == (
        "study_id protocol_hash participant_id trial_id trial_number stimulus_id class_name "
        "is_synthetic response confidence response_time_s presented_at responded_at generator "
        "experience repeat_number model_confidence is_attention"
    )


def test_what_was_written_reads_back_to_the_last_digit(path):
    write_responses(path, rows())
    table = read_responses(path)
    assert [Response(**row) for row in table.to_dict(orient="records")] == rows()


def test_a_column_that_no_row_fills_is_not_written(path):
    write_responses(path, rows())
    assert tuple(read_responses(path)) == COLUMNS[:13]


def test_gaps_are_written_and_read_back_as_gaps(path):
    one, two = (row.model_copy(update={"repeat_number": 1}) for row in rows()[:2])
    may_be_empty = ("class_name", "confidence", "response_time_s", "experience", "model_confidence")
    one = one.model_copy(update=dict.fromkeys(may_be_empty))
    two = two.model_copy(update={"experience": "expert", "model_confidence": 0.1})
    write_responses(path, [one, two])
    table = read_responses(path)
    assert table[["class_name", "experience"]].to_numpy().tolist() == [
        ["", ""],
        [two.class_name, "expert"],
    ]
    np.testing.assert_array_equal(
        table[["confidence", "response_time_s", "model_confidence"]],
        [[np.nan] * 3, [two.confidence, two.response_time_s, 0.1]],
    )


def test_csv_and_parquet_read_as_the_same_table(tmp_path):
    for name in ("r.csv", "r.parquet"):
        write_responses(tmp_path / name, rows())
    pd.testing.assert_frame_equal(
        read_responses(tmp_path / "r.csv"), read_responses(tmp_path / "r.parquet")
    )


def test_the_types_of_the_frame_are_those_that_its_docstring_promises(path):
    write_responses(path, rows())
    types = {name: str(dtype) for name, dtype in read_responses(path).dtypes.items()}
    others = {
        "is_synthetic": "bool",
        "trial_number": "int64",
        "confidence": "float64",
        "response_time_s": "float64",
        "presented_at": "datetime64[us, UTC]",
        "responded_at": "datetime64[us, UTC]",
    }
    assert types == dict.fromkeys(COLUMNS[:13], "str") | others


def test_a_class_called_na_is_not_a_gap(path):
    write_responses(path, rows())
    assert set(read_responses(path)["class_name"]) == {"NA", "platelet"}


def test_a_table_saved_by_a_spreadsheet_reads_the_same(tmp_path):
    path = tmp_path / "r.csv"
    write_responses(path, rows())
    before = read_responses(path)
    text = path.read_text(encoding="utf-8").replace(",true,", ",TRUE,") + "," * 12 + "\n\n"
    path.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    pd.testing.assert_frame_equal(read_responses(path), before)


def test_a_table_from_elsewhere_needs_no_more_than_four_columns(tmp_path):
    table = read(
        tmp_path,
        "response,stimulus_id,participant_id,is_synthetic\nreal,0012,7,true\nreal,0013,7,false\n",
    )
    assert table.to_dict(orient="list") == {
        "participant_id": ["7", "7"],
        "stimulus_id": ["0012", "0013"],
        "is_synthetic": [True, False],
        "response": ["real", "real"],
    }


def test_further_columns_are_kept_as_they_are(tmp_path):
    table = read(tmp_path, FROM_ELSEWHERE)
    assert tuple(table)[-3:] == ("entropy", "note", "code")
    np.testing.assert_array_equal(table["entropy"], [0.25, np.nan, -0.001, 2])
    assert list(table["note"]) == ["first", "two\nlines", "", "NA"]
    assert list(table["code"]) == ["007", "008", "x", "010"]


def test_empty_cells_are_allowed_where_the_codebook_says_so(tmp_path):
    table = read(tmp_path, FROM_ELSEWHERE)
    np.testing.assert_array_equal(table["confidence"], [3, np.nan, 1, 6])
    assert list(table["generator"]) == ["ours", "", "", ""]


def test_a_wholly_empty_optional_column_counts_as_absent(tmp_path):
    table = read(
        tmp_path,
        "participant_id,stimulus_id,is_synthetic,response,trial_number,class_name,note\n"
        "P1,a,true,real,,,\n",
    )
    assert tuple(table) == ("participant_id", "stimulus_id", "is_synthetic", "response", "note")


def test_the_types_of_a_foreign_parquet_file_are_understood(tmp_path):
    path = tmp_path / "r.parquet"
    berlin = pd.to_datetime(["2026-01-31 12:00"] * 2).tz_localize("Europe/Berlin")
    foreign = pd.DataFrame(
        {
            "participant_id": [1, 1],
            "stimulus_id": pd.Categorical(["b", "a"], categories=["a", "b", "never shown"]),
            "is_synthetic": [True, False],
            "response": ["real", "generated"],
            "confidence": pd.array([None, 2], dtype="Int8"),
            "presented_at": berlin,
        }
    )
    foreign.set_index("participant_id").to_parquet(path)
    table = read_responses(path)
    assert list(table["participant_id"]) == ["1", "1"]
    assert list(table.groupby("stimulus_id").size().index) == ["a", "b"]
    np.testing.assert_array_equal(table["confidence"], [np.nan, 2])
    assert table["presented_at"][0] == datetime(2026, 1, 31, 11, tzinfo=UTC)


def test_times_of_any_zone_are_stored_in_utc():
    noon = datetime(2026, 3, 2, 12, tzinfo=timezone(timedelta(hours=2)))
    one = Response(**(rows()[0].model_dump() | {"presented_at": noon}))
    assert one.presented_at == datetime(2026, 3, 2, 10, tzinfo=UTC)
    assert one.presented_at.tzinfo is UTC


def test_the_codebook_beside_the_table_explains_every_column(path):
    write_responses(path, rows())
    codebook = json.loads(codebook_path(path).read_text(encoding="utf-8"))
    columns = codebook["properties"]
    assert tuple(columns) == COLUMNS
    assert all(column["description"] and column["type"] for column in columns.values())
    assert {name for name, column in columns.items() if column["needed"]} == set(NEEDED)
    assert codebook["required"] == list(NEEDED)
    assert columns["response"]["enum"] == ["real", "generated"]
    assert columns["response_time_s"]["unit"] == "seconds"
    assert {name for name, column in columns.items() if column["may_be_empty"]} == {
        *("class_name", "confidence", "response_time_s"),
        *("generator", "experience", "model_confidence"),
    }
    assert codebook["additionalProperties"] is True


@pytest.mark.parametrize("column", COLUMNS)
def test_the_reader_allows_in_a_cell_what_the_web_app_may_write(column):
    cells = ["real", "true", "TRUE", "1", "3.0", "3.5", "0", "-1", "0.5", "0,5", "1e-3", "nan"]
    cells += ["inf", "NA", " x", "x ", "é", "a" * 64, "yes", "2026-03-02", "2026-03-02T09:00:00Z"]
    cells += ["2026-03-02 09:00:00+01:00", "2026-03-02T09:00:00", "2026-02-30T09:00:00Z"]
    if column.endswith("_at"):  # pydantic would take a number for seconds since 1970
        cells = [cell for cell in cells if "-" in cell[1:]]

    def may_be_written(cell):
        try:
            return bool(Response(**(rows()[0].model_dump() | {column: cell})))
        except ValidationError:
            return False

    check, _ = CHECKS[column]
    assert [
        cell
        for cell, value in zip(cells, check(pd.Series(cells)), strict=True)
        if not pd.isna(value)
    ] == [cell for cell in cells if may_be_written(cell)]


def table_of(path, protocol=PROTOCOL):
    write_responses(path, rows(protocol))
    return read_responses(path)


def test_responses_of_the_protocol_need_no_caution(path):
    assert check_protocol(table_of(path), PROTOCOL) == ()


def test_without_a_protocol_hash_it_is_said_that_the_file_proves_nothing(path):
    (caution,) = check_protocol(table_of(path).drop(columns="protocol_hash"), PROTOCOL)
    assert caution == (
        "The responses have no column `protocol_hash`, so the file does not prove under which "
        "protocol they were given."
    )


def test_a_misspelled_optional_column_is_pointed_out(path):
    names = {"responded_at": "Responded at", "presented_at": "time"}
    (caution,) = check_protocol(table_of(path).rename(columns=names), PROTOCOL)
    assert caution == (
        "The column `Responded at` is not one that the analysis knows; if it is `responded_at`, "
        "rename it."
    )


def test_repeats_may_go_beyond_the_trials_of_the_protocol(path):
    table = table_of(path).assign(repeat_number=1)
    again = table.iloc[[0]].assign(repeat_number=2, trial_number=9)
    assert check_protocol(pd.concat([table, again], ignore_index=True), PROTOCOL) == ()


REPEATED = Protocol(
    study_id="first-light",
    n_participants=2,
    blocks=(Block(n_trials=8, n_repeats=2, n_attention=1), Block(design="quality", n_trials=4)),
)


def test_planned_repeats_and_attention_checks_take_places_in_the_order(path):
    table = table_of(path).assign(protocol_hash=REPEATED.protocol_hash)
    table = table.assign(repeat_number=1, is_attention=False)
    again = table.iloc[[0]].assign(repeat_number=2, trial_number=15)
    check = table.iloc[[1]].assign(stimulus_id="obvious", trial_number=14, is_attention=True)
    both = pd.concat([table, again, check], ignore_index=True)
    assert (REPEATED.n_trials, REPEATED.n_shown) == (12, 15)
    assert check_protocol(both, REPEATED) == ()
    both.loc[16, "trial_number"] = 16
    words = "row 18, column `trial_number`: found 16 but the protocol gives each reader 15 trials;"
    with pytest.raises(ResponseError, match=words):
        check_protocol(both, REPEATED)


def test_of_several_designs_the_table_holds_the_authenticity_alone(path):
    table = table_of(path).assign(protocol_hash=REPEATED.protocol_hash)
    ninth = table.iloc[[0]].assign(stimulus_id="ninth", trial_number=9)
    words = "row 18, column `participant_id`: reader-1 has judged 8 stimuli in earlier rows"
    with pytest.raises(ResponseError, match=words):
        check_protocol(pd.concat([table, ninth], ignore_index=True), REPEATED)
    primed = {"primed": True, "introduction": "Look at the nucleus."}
    rounds = (Block(n_trials=8), Block(n_trials=6), Block(n_trials=4, **primed))
    assert n_planned(Protocol(study_id="s", blocks=rounds)) == 14


def test_attention_checks_read_back_as_such_and_are_no_judgements(path):
    some = [row.model_copy(update={"is_attention": i == 3}) for i, row in enumerate(rows())]
    write_responses(path, some)
    table = read_responses(path)
    assert str(table["is_attention"].dtype) == "bool"
    assert list(table.index[table["is_attention"]]) == [3]
    judged = without_attention(table)
    assert list(judged.index) == [0, 1, 2, *range(4, len(some))]
    assert "is_attention" not in judged
    without = table.drop(columns="is_attention")
    assert without_attention(without) is without


def test_a_rule_for_attention_that_the_responses_cannot_serve_is_pointed_out(path):
    rule = AnalysisPlan(exclusions=ExclusionRules(fewest_attention=0.75))
    protocol = PROTOCOL.model_copy(update={"analysis": rule})
    (caution,) = check_protocol(table_of(path, protocol), protocol)
    assert caution == (
        "The protocol leaves out readers by their attention checks, but the responses have no "
        "column `is_attention`, so that rule holds nobody back."
    )


def test_the_same_stimulus_may_be_judged_again_under_another_repeat_number(path):
    first = rows()[0].model_copy(update={"repeat_number": 1})
    changed = {"repeat_number": 2, "trial_number": 2, "trial_id": "again"}
    write_responses(path, [first, first.model_copy(update=changed)])
    assert list(read_responses(path)["repeat_number"]) == [1, 2]
