"""The stimulus set: a folder of identically encoded PNGs under opaque names, and its manifest.

The manifest knows the answers, so it stays on the server: names, order, sizes and metadata of the
pictures themselves say nothing.
"""

import csv
import re
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

MANIFEST = "manifest.csv"


class StimulusError(ValueError):
    """A stimulus set that cannot be used, with what to change in it."""


def true_or_false(value: object) -> object:
    """The words `true` and `false`, in any case, as booleans; anything else but a boolean refused.

    pydantic alone would also take `yes`, `on`, `t` and 1, which hide a shifted column.
    """
    word = value.strip().lower() if isinstance(value, str) else value
    if isinstance(word, bool):
        return word
    if word in ("true", "false"):
        return word == "true"
    raise ValueError("write true or false")


def _empty_as_none(value: object) -> object:
    return None if value == "" else value


class Stimulus(BaseModel):
    """One picture of the set, with the answer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stimulus_id: Annotated[str, Field(pattern=r"^[0-9a-f]{8,64}$")]
    """Random hex: it says nothing about truth, class or order."""
    file: Annotated[str, Field(pattern=r"^[0-9a-f]{8,64}\.png$")]
    """Name inside the folder, as opaque as the id."""
    class_name: Annotated[str, Field(min_length=1)]
    is_synthetic: Annotated[bool, BeforeValidator(true_or_false)]
    source_digest: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """SHA-256 of the original file's bytes, or of the pixels of a generated picture."""
    generator_digest: str = ""
    seed: Annotated[int | None, BeforeValidator(_empty_as_none)] = None

    @model_validator(mode="after")
    def _a_real_picture_has_no_generator(self) -> Self:
        if not self.is_synthetic and (self.generator_digest or self.seed is not None):
            raise ValueError(
                "is_synthetic is false, but there is a generator_digest or a seed; "
                "empty those two, or set is_synthetic to true"
            )
        return self


COLUMNS: tuple[str, ...] = tuple(Stimulus.model_fields)


def read_stimuli(folder: Path) -> tuple[Stimulus, ...]:
    """All stimuli of a folder, in the manifest's order, each with its picture checked.

    Raises:
        StimulusError: if the manifest or a picture is missing, damaged, or would break the
            blinding: a telling file name, another size, colour mode or any metadata.
    """
    path = folder / MANIFEST
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            table = csv.DictReader(file)
            if tuple(table.fieldnames or ()) != COLUMNS:
                raise StimulusError(
                    f"{path} has the columns {', '.join(table.fieldnames or ['(none)'])}; "
                    f"a manifest has {', '.join(COLUMNS)}."
                )
            stimuli = tuple(_stimulus(path, row, values) for row, values in enumerate(table, 2))
    except OSError as error:
        raise StimulusError(
            f"{path} cannot be read ({error.strerror}); give the folder that "
            "`python -m webapp stimuli` wrote."
        ) from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise StimulusError(f"{path} is not a CSV file in UTF-8: {error}; write it anew.") from None
    if not stimuli:
        raise StimulusError(
            f"{path} lists no stimulus; make a set with `python -m webapp stimuli`."
        )
    _refuse_repeats(path, stimuli)
    _refuse_pictures_that_differ(folder, stimuli)
    return stimuli


def write_manifest(folder: Path, stimuli: Sequence[Stimulus]) -> Path:
    """Write the manifest beside the pictures and return its path.

    Raises:
        StimulusError: if two stimuli share an id or a file.
    """
    path = folder / MANIFEST
    _refuse_repeats(path, stimuli)
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(COLUMNS)
        for stimulus in stimuli:
            values = stimulus.model_dump()
            values["is_synthetic"] = "true" if stimulus.is_synthetic else "false"
            table.writerow(values[column] for column in COLUMNS)
    return path


def _stimulus(path: Path, row: int, values: dict[str, str]) -> Stimulus:
    try:
        return Stimulus.model_validate(values)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        column = str(problem["loc"][0]) if problem["loc"] else "is_synthetic"
        raise StimulusError(
            f"{path} row {row}, column `{column}`: found {values.get(column)!r}; "
            f"{problem['msg'].removeprefix('Value error, ')}."
        ) from None


def _refuse_repeats(path: Path, stimuli: Sequence[Stimulus]) -> None:
    for column in ("stimulus_id", "file"):
        seen: set[str] = set()
        for row, stimulus in enumerate(stimuli, 2):
            value = getattr(stimulus, column)
            if value in seen:
                raise StimulusError(
                    f"{path} row {row}, column `{column}`: {value} is there twice; "
                    "give each stimulus its own."
                )
            seen.add(value)


def _refuse_pictures_that_differ(folder: Path, stimuli: Sequence[Stimulus]) -> None:
    first: tuple[int, int] | None = None
    for stimulus in stimuli:
        path = folder / stimulus.file
        try:
            chunks = dict(_png_chunks(path.read_bytes()))
            width, height, bits, colour = struct.unpack(">IIBB", chunks["IHDR"][:10])
        except FileNotFoundError:
            raise StimulusError(
                f"{path} is in the manifest but not in the folder; make the set anew."
            ) from None
        except (OSError, KeyError, struct.error):
            raise StimulusError(f"{path} is not a whole PNG; make the set anew.") from None
        extra = sorted(set(chunks) - {"IHDR", "IDAT", "IEND"})
        if extra:
            raise StimulusError(
                f"{path} carries metadata ({', '.join(extra)}) that could tell the answer; "
                "re-encode all pictures alike."
            )
        if (bits, colour) != (8, 2):
            raise StimulusError(f"{path} is not 8-bit RGB; re-encode all pictures alike.")
        first = first or (width, height)
        if (width, height) != first:
            raise StimulusError(
                f"{path} is {width}×{height} but the first picture is {first[0]}×{first[1]}, and "
                "size could tell the answer; re-encode all pictures alike."
            )


def _png_chunks(png: bytes) -> Iterator[tuple[str, bytes]]:
    if not png.startswith(b"\x89PNG\r\n\x1a\n"):
        raise KeyError("signature")
    position, name = 8, ""
    while name != "IEND":
        length, raw_name = struct.unpack_from(">I4s", png, position)
        name = re.sub(r"[^A-Za-z]", "?", raw_name.decode("latin-1"))
        yield name, png[position + 8 : position + 8 + length]
        position += 12 + length
