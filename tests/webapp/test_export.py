"""A study of all designs, answered through the store, and its files."""

import hashlib
import io
import json
import random
import zipfile
from contextlib import closing

import pandas as pd
import pytest

from studies.protocol import load_protocol
from studies.responses import check_protocol, read_responses
from tests.webapp.studies_at_hand import ALL_DESIGNS, open_study, protocol
from webapp.chain import Event, verify
from webapp.database import Database
from webapp.errors import WebappError
from webapp.export import export_study, export_zip
from webapp.export_codebook import MEANINGS
from webapp.registry import Registry
from webapp.store import Answer, ReaderStore
from webapp.visit import Background, Calibration

PLAN = protocol("whole", n_participants=3, **ALL_DESIGNS)
BACKGROUND = {"role": "physician", "years": 12, "colour_vision": "normal", "display": "laptop"}
N_SHOWN = PLAN.n_shown


def play(store, participant_id, *, leaves_after=10_000):
    """Answer by chance; every fifth answer is taken back once."""
    rng = random.Random(participant_id)
    store.record_consent(participant_id, "en")
    store.pass_milestone(participant_id, "background", BACKGROUND)
    n = 0
    while (trial := store.present(participant_id)) and n < leaves_after:
        responses = {
            "authenticity": ("real", "generated"),
            "pair": ("left", "right"),
            "classification": store.classes("whole"),
            "quality": ("1", "2", "3", "4", "5"),
        }[trial.design]
        recorded = store.record_response(
            participant_id,
            Answer(
                presentation_token=trial.presentation_token,
                response=rng.choice(responses),
                confidence=None if trial.design == "quality" else rng.randint(1, 6),
                response_time_s=0.5,
                client={"hidden_s": 1.5 * (n == 3)},
            ),
        )
        assert recorded.outcome == "stored"
        n += 1
        if n % 5 == 0:
            n -= store.undo(participant_id)


@pytest.fixture(scope="module")
def registry(tmp_path_factory, stimuli_48, practice_stimuli, attention_stimuli):
    """Three readers, of whom the last left early, and a scripted one; the study is closed."""
    path = tmp_path_factory.mktemp("export") / "studies.sqlite3"
    with closing(Database.create(f"sqlite:///{path}")) as database:
        registry, store = Registry(database), ReaderStore(database)
        open_study(
            registry, PLAN, stimuli_48, practice=practice_stimuli, attention=attention_stimuli
        )
        registry.invite("whole", [""], valid_days=1, is_bot=True)
        for number in (1, 2, 4):
            play(store, f"whole-P0{number}")
        play(store, "whole-P03", leaves_after=6)
        registry.close("whole")
        yield registry


@pytest.fixture(scope="module")
def coded(registry):
    return unzipped(export_zip(registry, "whole"))


@pytest.fixture(scope="module")
def files(registry, coded):
    """After unblinding."""
    registry.unblind("whole", "a test")
    return unzipped(export_zip(registry, "whole"))


def unzipped(content):
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert {name.split("/")[0] for name in archive.namelist()} == {"whole"}
        return {name.split("/")[1]: archive.read(name) for name in archive.namelist()}


def table(files, name):
    return pd.read_csv(io.BytesIO(files[f"{name}.csv"]))


def test_before_unblinding_no_file_tells_the_truth(coded, stimuli_48, practice_stimuli):
    every = b"".join(content for name, content in coded.items() if not name.endswith("parquet"))
    frames = [
        pd.read_parquet(io.BytesIO(content)).to_csv().encode()
        for name, content in coded.items()
        if name.endswith("parquet")
    ]
    every += b"".join(frames)
    for folder in (stimuli_48, practice_stimuli):
        for picture in folder.glob("*.png"):
            assert picture.stem.encode() not in every
    for telling in (b"is_synthetic", b"truth", b"abababab"):
        assert telling not in every


def test_before_unblinding_answers_come_with_letters_and_without_controls(coded):
    judged = table(coded, "coded_authenticity")
    assert set(judged["arm_code"]) == {"A", "B"}
    assert set(judged["kind"]) == {"main", "repeat"}
    assert len(table(coded, "coded_pair")) == 2 * 4
    # The class is the answer of a classification, and the audit names near-copies.
    assert table(coded, "coded_classification")["class_name"].isna().all()
    assert "blinding_audit.json" not in coded
    assert not any(name.startswith(("responses", "pairs", "authenticity")) for name in coded)


def test_the_sums_are_those_of_the_files(files, coded):
    for of in (files, coded):
        said = dict(line.split()[::-1] for line in of["SHA256SUMS"].decode().splitlines())
        assert set(said) == set(of) - {"SHA256SUMS"}
        assert all(hashlib.sha256(of[name]).hexdigest() == said[name] for name in said)


def test_responses_are_those_of_the_unprimed_block_as_the_analysis_reads_them(files, tmp_path):
    for name in ("responses.csv", "responses.parquet", "protocol.toml"):
        (tmp_path / name).write_bytes(files[name])
    responses = read_responses(tmp_path / "responses.csv")
    assert check_protocol(responses, load_protocol(tmp_path / "protocol.toml")) == ()
    pd.testing.assert_frame_equal(responses, read_responses(tmp_path / "responses.parquet"))
    assert load_protocol(tmp_path / "protocol.toml") == PLAN
    whole = responses[responses["participant_id"] != "whole-P03"]
    assert whole.groupby("participant_id").size().tolist() == [8 + 2 + 1] * 2
    assert whole.groupby("participant_id")["is_attention"].sum().tolist() == [1, 1]
    assert whole["repeat_number"].value_counts().to_dict() == {1: 2 * 9, 2: 2 * 2}
    assert set(responses["experience"]) == {"physician"}
    synthetic = responses[responses["is_synthetic"]]
    assert set(synthetic["generator"]) == {"ab" * 6}


def test_each_design_has_its_table(files):
    sizes = {"pairs": 4, "classifications": 4, "ratings": 4, "responses_primed": 8, "attention": 1}
    for name, n in sizes.items():
        of_whole = (
            table(files, name).groupby("participant_id").size().drop("whole-P03", errors="ignore")
        )
        assert of_whole.tolist() == [n, n], name
    pairs = table(files, "pairs")
    assert set(pairs["truth"]) == {"left", "right"}
    assert (pairs["left_stimulus_id"] != pairs["right_stimulus_id"]).all()
    assert set(table(files, "classifications")["truth"]) == {"basophil", "monocyte"}
    assert table(files, "ratings")["response"].between(1, 5).all()
    assert "confidence" not in table(files, "ratings")


def test_csv_parquet_and_json_hold_the_same(files):
    for name in ("pairs", "ratings", "attention", "readers", "responses_primed"):
        csv = table(files, name)
        parquet = pd.read_parquet(io.BytesIO(files[f"{name}.parquet"]))
        rows = json.loads(files[f"{name}.json"])
        assert len(csv) == len(parquet) == len(rows)
        assert list(csv) == list(parquet)
        same = "trial_id" if "trial_id" in csv else "participant_id"
        assert list(csv[same]) == list(parquet[same]) == [row[same] for row in rows]


def test_an_answer_that_was_taken_back_is_not_exported_but_its_number_is(files):
    revisions = pd.concat([table(files, name) for name in ("pairs", "classifications", "ratings")])
    assert set(revisions["revision"]) == {1, 2}
    assert not revisions["trial_id"].duplicated().any()


def test_readers_come_under_their_code_without_label_and_without_scripted_ones(files):
    readers = table(files, "readers")
    assert list(readers["participant_id"]) == ["whole-P01", "whole-P02", "whole-P03"]
    assert list(readers["n_answered"]) == [N_SHOWN, N_SHOWN, 4]
    assert list(readers["attention_of"])[:2] == [1, 1]
    assert list(readers["background_years"]) == [12, 12, 12]
    assert readers["is_bot"].tolist() == [False] * 3
    assert readers["hidden_share"].gt(0).all()
    assert b"reader 1" not in b"".join(files.values()).replace(b"reader 1: whole-P01", b"")
    assert b"whole-P04" not in files["responses.csv"]


def test_the_codebook_explains_every_column_of_every_table(files, coded):
    for of in (files, coded):
        codebook = json.loads(of["codebook.json"])
        tables = {name.removesuffix(".csv") for name in of if name.endswith(".csv")}
        assert set(codebook) == tables
        for name in tables:
            assert set(table(of, name)) <= set(codebook[name])


def test_the_codebook_knows_whatever_a_reader_may_be_asked():
    asked = {f"background_{name}" for name in Background.model_fields}
    asked |= {f"calibration_{name}" for name in Calibration.model_fields}
    assert asked <= set(MEANINGS)


def test_imrmc_gets_first_showings_with_the_primed_round_as_a_second_modality(files):
    head, data = files["authenticity.imrmc"].decode().split("BEGIN DATA:\n")
    assert "NM: 2" in head
    assert "modality 2: primed" in head
    readings = [line for line in data.splitlines() if not line.startswith("-1,")]
    assert len(readings) == 2 * 8 * 2 + len(table(files, "responses").query(
        "participant_id == 'whole-P03' and repeat_number == 1 and not is_attention"))  # fmt: skip


def test_the_log_in_the_export_is_a_whole_chain_that_says_who_unblinded(files, registry):
    log = [Event(**one) for one in json.loads(files["log.json"])]
    assert verify(log) == []
    assert log[-1].kind == "unblinded"
    exported = registry.events("whole")[-1]
    assert exported.kind == "exported"
    detail = json.loads(exported.detail_json)
    assert detail["sums_digest"] == hashlib.sha256(files["SHA256SUMS"]).hexdigest()
    assert detail["coded"] is False


def test_a_folder_or_one_table_may_be_asked_for(files, registry, tmp_path):
    n_answers = export_study(registry, "whole", tmp_path / "all")
    assert {path.name for path in (tmp_path / "all").iterdir()} == set(files)
    assert n_answers == 2 * N_SHOWN + 4
    export_study(registry, "whole", tmp_path / "responses.csv")
    assert (tmp_path / "responses.csv").read_bytes() == files["responses.csv"]
    assert (tmp_path / "responses.codebook.json").exists()


def test_nothing_is_overwritten(files, registry, tmp_path):
    (tmp_path / "all.zip").write_text("precious")
    with pytest.raises(WebappError, match="is there already; give a new name"):
        export_study(registry, "whole", tmp_path / "all.zip")
    with pytest.raises(WebappError, match="is there already; give a new name"):
        export_study(registry, "whole", tmp_path)
    with pytest.raises(WebappError, match=r"cannot be written .*; give a path in a folder"):
        export_study(registry, "whole", tmp_path / "none" / "all.zip")
