"""What the tests of the report's sections share: a judged table, and the section as text."""

import html
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

import studies
from studies.bots import simulated_responses


def plan(index=None, confidence_points=6):
    """As much of a protocol as the sections read."""
    return SimpleNamespace(
        confidence_points=confidence_points,
        analysis=SimpleNamespace(confidence_level=0.95, index=index),
    )


def judged(**settings):
    """First presentations of included readers."""
    return with_answers(simulated_responses(**{"n_readers": 6, "n_cases": 60, **settings}))


def with_answers(table, **columns):
    """The table with other columns, and whether each answer is then right."""
    table = table.assign(**columns)
    is_correct = (table["response"] == "generated") == table["is_synthetic"]
    return table.assign(is_correct=is_correct)


def all_right(table):
    return with_answers(table, response=np.where(table["is_synthetic"], "generated", "real"))


def nothing_of(table):
    """No repeats."""
    return table.iloc[:0]


def text_of(template, context):
    """The section as it is read. Every figure is well-formed, loads nothing, and none is NaN."""
    environment = Environment(
        loader=FileSystemLoader(Path(studies.__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template(template).render(**context)
    for svg in re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL):
        assert ET.fromstring(svg).get("aria-label")
    assert all(target.startswith("#") for target in re.findall(r'(?:href|src)="(.*?)"', page))
    assert not re.search(r"\b(nan|inf)\b", page, flags=re.IGNORECASE)
    assert "None" not in page
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", page)))
