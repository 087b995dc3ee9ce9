"""The words of the reader's pages: one file a language, all with the same keys."""

import tomllib
from functools import cache
from pathlib import Path
from typing import Any, get_args

from studies.protocol import Language

FOLDER = Path(__file__).parent / "strings"
LANGUAGES: tuple[Language, ...] = get_args(Language)


@cache
def strings(language: str) -> dict[str, Any]:
    """All words in one language, by section and key."""
    return tomllib.loads((FOLDER / f"{language}.toml").read_text(encoding="utf-8"))


def preferred(accept_language: str) -> Language:
    """The first language of a browser, where it is one of ours, else English."""
    return next((one for one in LANGUAGES if accept_language.lower().startswith(one)), "en")
