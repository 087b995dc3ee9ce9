"""A study as files that other programs read: tables, codebook, protocol, audit, log, and hashes.

Before a study is unblinded its answers come in code: real and generated are two letters.
"""

import hashlib
import io
import json
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

import pandas as pd

from studies.protocol import Design
from studies.responses import Response, codebook, write_responses
from webapp.errors import WebappError
from webapp.export_codebook import explained
from webapp.imrmc import imrmc_file
from webapp.readout import Judgement, ReaderRecord
from webapp.registry import BEFORE_UNBLINDING, Registry, StudySummary

SUMS = "SHA256SUMS"
TABLE_SUFFIXES = (".csv", ".parquet")

JUDGED = (
    *("study_id", "protocol_hash", "participant_id", "trial_id", "trial_number", "block_number"),
    *("primed", "repeat_number"),
)
ANSWERED = (
    *("response", "confidence", "response_time_s", "presented_at", "responded_at"),
    *("revision", "hidden_s"),
)
COLUMNS = {
    "pairs": ("left_stimulus_id", "right_stimulus_id", "class_name", "generator", "truth"),
    "classifications": ("stimulus_id", "is_synthetic", "generator", "truth"),
    "ratings": ("stimulus_id", "class_name", "is_synthetic", "generator"),
    "attention": ("design", "left_stimulus_id", "right_stimulus_id", "truth"),
}
"""What a table has between `JUDGED` and `ANSWERED`."""

AS_JUDGED = (
    *("study_id", "protocol_hash", "participant_id", "trial_id", "trial_number", "stimulus_id"),
    *("class_name", "is_synthetic", "response", "confidence", "response_time_s", "presented_at"),
    *("responded_at", "repeat_number"),
)
"""What `studies.responses` and a judgement call by the same name."""


def export_study(registry: Registry, study_id: str, out: Path) -> int:
    """Write a study to `out`, note it in the log, and return the number of answers.

    Args:
        out: ends in .csv or .parquet: the responses alone, with their codebook; in .zip: an
            archive; else a new folder.

    Raises:
        WebappError: if there is no answer yet, or the file is there already.
    """
    if out.suffix in TABLE_SUFFIXES:
        judged = list(registry.responses(study_id, design="authenticity"))
        responses = _responses(judged, registry.readers(study_id), is_primed=False)
        if not responses:
            raise _no_answer(study_id)
        write_responses(out, responses)
        registry.record_export(study_id, files=[out.name], answers=len(responses), coded=False)
        return len(responses)
    if out.exists() and (out.is_file() or any(out.iterdir())):
        raise WebappError(f"{out} is there already; give a new name for the export.")
    files, n_answers = study_files(registry, study_id)
    try:
        if out.suffix == ".zip":
            out.write_bytes(zipped(study_id, files))
        else:
            out.mkdir(parents=True, exist_ok=True)
            for name, content in files.items():
                (out / name).write_bytes(content)
    except OSError as error:
        raise WebappError(
            f"{out} cannot be written ({error.strerror}); give a path in a folder that exists and "
            "that you may write to."
        ) from None
    return n_answers


def export_zip(registry: Registry, study_id: str) -> bytes:
    """The archive of `export_study`, for a download."""
    return zipped(study_id, study_files(registry, study_id)[0])


def study_files(registry: Registry, study_id: str) -> tuple[dict[str, bytes], int]:
    """All files of an export by name, the hashes of the others last; and the number of answers.

    The export is an event of the log, but of the next export's.
    """
    summary = registry.summary(study_id)
    is_coded = summary.state in BEFORE_UNBLINDING
    files: dict[str, bytes] = {}
    if is_coded:
        tables = _coded_tables(registry, study_id)
        n_answers = sum(map(len, tables.values()))
    else:
        judged = {
            design: list(registry.responses(study_id, design=design)) for design in get_args(Design)
        }
        tables = _judged_tables(judged)
        n_answers = sum(map(len, judged.values()))
        files |= _response_files(judged["authenticity"], registry.readers(study_id))
        files |= _imrmc(judged["authenticity"], summary)
    if not n_answers:
        raise _no_answer(study_id)
    tables["readers"] = _readers(registry, study_id)
    columns = {
        name.removesuffix(".csv"): codebook()["properties"] for name in files if ".csv" in name
    }
    for name, table in tables.items():
        files |= _table_files(name, table)
        columns[name] = explained(table)
    files["codebook.json"] = _json(columns)
    files["protocol.toml"] = summary.protocol.to_toml().encode()
    if not is_coded:  # it names near-copies, which are generated
        files["blinding_audit.json"] = summary.audit_json.encode()
    files["log.json"] = _json([asdict(event) for event in registry.events(study_id)])
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    sums = "".join(f"{digest}  {name}\n" for name, digest in sorted(digests.items())).encode()
    registry.record_export(
        study_id,
        files=sorted(files),
        answers=n_answers,
        coded=is_coded,
        sums_digest=hashlib.sha256(sums).hexdigest(),
    )
    return files | {SUMS: sums}, n_answers


def zipped(folder: str, files: dict[str, bytes]) -> bytes:
    """One archive of all files, under a folder."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(f"{folder}/{name}", data)
    return content.getvalue()


# ----------------------------------------------------------- authenticity: format of `studies`


def _responses(
    judged: Sequence[Judgement], readers: Sequence[ReaderRecord], *, is_primed: bool
) -> list[Response]:
    """Repeats and attention checks too, which the analysis knows by their columns."""
    roles = {one.participant_id: _given(one, "background").get("role") for one in readers}
    chosen = [one for one in judged if one.is_primed == is_primed]
    has_attention = any(one.kind == "attention" for one in chosen)
    return [
        Response.model_validate(
            {name: getattr(one, name) for name in AS_JUDGED}
            | {
                "generator": one.generator_digest[:12] or None,
                "experience": roles[one.participant_id],
                "is_attention": one.kind == "attention" if has_attention else None,
            }
        )
        for one in chosen
    ]


def _response_files(
    judged: Sequence[Judgement], readers: Sequence[ReaderRecord]
) -> dict[str, bytes]:
    """`responses` and, of a primed block, `responses_primed`: CSV, Parquet and JSON."""
    files: dict[str, bytes] = {}
    for name, is_primed in (("responses", False), ("responses_primed", True)):
        rows = _responses(judged, readers, is_primed=is_primed)
        if not rows:
            continue
        with TemporaryDirectory() as folder:
            for suffix in TABLE_SUFFIXES:
                write_responses(Path(folder) / f"{name}{suffix}", rows)
                files[f"{name}{suffix}"] = (Path(folder) / f"{name}{suffix}").read_bytes()
        files[f"{name}.json"] = _json(
            [row.model_dump(mode="json", exclude_none=True) for row in rows]
        )
    return files


def _imrmc(judged: Sequence[Judgement], summary: StudySummary) -> dict[str, bytes]:
    """First showings as a file of iMRMC, the primed round as a modality of its own."""
    first = pd.DataFrame([asdict(one) for one in judged if one.kind == "main"])
    if first.empty:
        return {}
    rounds = {
        "primed" if is_primed else "unprimed": rows
        for is_primed, rows in first.groupby("is_primed")
    }
    return {"authenticity.imrmc": imrmc_file(rounds, summary.protocol).encode()}


# ------------------------------------------------------------------------------- other tables


def _judged_tables(judged: dict[Design, list[Judgement]]) -> dict[str, pd.DataFrame]:
    rows = {
        "pairs": judged["pair"],
        "classifications": judged["classification"],
        "ratings": judged["quality"],
        "attention": [one for of in judged.values() for one in of],
    }
    tables = {}
    for name, found in rows.items():
        chosen = [one for one in found if (one.kind == "attention") == (name == "attention")]
        if chosen:
            table = pd.DataFrame([_flat(one) for one in chosen])
            types = {"confidence": "Int64", "hidden_s": "float64"}
            columns = [*JUDGED, *COLUMNS[name], *ANSWERED]
            if name == "ratings":
                types["response"] = "int64"
                columns.remove("confidence")
            tables[name] = table.astype(types)[columns]
    return tables


def _flat(one: Judgement) -> dict[str, Any]:
    return asdict(one) | {
        "primed": one.is_primed,
        "left_stimulus_id": one.stimulus_id,
        "right_stimulus_id": one.second_stimulus_id,
        "generator": one.generator_digest[:12],
        "hidden_s": one.client.get("hidden_s"),
    }


def _coded_tables(registry: Registry, study_id: str) -> dict[str, pd.DataFrame]:
    tables = {}
    for design in get_args(Design):
        rows = [
            asdict(one)
            for one in registry.coded_responses(study_id, design=design)
            if one.kind != "attention"  # everybody is right there, which would give the code away
        ]
        if rows:
            table = (
                pd.DataFrame(rows).drop(columns="position").rename(columns={"is_primed": "primed"})
            )
            tables[f"coded_{design}"] = table.astype({"confidence": "Int64"})
    return tables


def _readers(registry: Registry, study_id: str) -> pd.DataFrame:
    status = {one.participant_id: one for one in registry.monitor(study_id)}
    readers = registry.readers(study_id)
    people = [one for one in readers if not one.is_bot]
    rows = []
    for one in people or readers:
        seen = status[one.participant_id]
        row = {name: getattr(one, name) for name in ("participant_id", "arm", "language", "is_bot")}
        row |= {
            "consent_version": one.consent_version or "",
            "consented_at": one.consented_at or "",
            "withdrawn_at": one.withdrawn_at,
            "n_answered": seen.n_answered,
            "median_response_time_s": seen.median_response_time_s,
            "last_seen_at": seen.last_seen_at,
            "hidden_share": seen.hidden_share,
            "attention_right": seen.attention[0],
            "attention_of": seen.attention[1],
        }
        for page in ("background", "calibration"):
            row |= {f"{page}_{name}": value for name, value in _given(one, page).items()}
        rows.append(row)
    # As objects: what some readers have not given would make decimals of the others' counts.
    return pd.DataFrame(rows, dtype=object).infer_objects()


def _given(reader: ReaderRecord, page: str) -> dict[str, Any]:
    return reader.milestones.get(page, ("", {}))[1]


def _table_files(name: str, table: pd.DataFrame) -> dict[str, bytes]:
    parquet = io.BytesIO()
    table.to_parquet(parquet, index=False)
    words = {True: "true", False: "false"}
    flags = {str(name): table[name].map(words) for name in table if table[name].dtype == "bool"}
    return {
        f"{name}.csv": table.assign(**flags).to_csv(index=False, lineterminator="\n").encode(),
        f"{name}.parquet": parquet.getvalue(),
        f"{name}.json": table.to_json(orient="records", indent=1, force_ascii=False).encode(),
    }


def _json(value: Iterable[Any]) -> bytes:
    return (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()


def _no_answer(study_id: str) -> WebappError:
    return WebappError(f"study {study_id!r} has no answer yet; export it once a reader answered.")
