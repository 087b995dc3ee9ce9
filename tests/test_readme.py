"""What README and docs tell a newcomer to type exists, down to the options."""

import re
import shlex
from pathlib import Path

import pytest
import typer

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def code_lines(page: Path) -> list[str]:
    blocks = re.findall(r"```(?:sh|bash)\n(.*?)```", page.read_text(), flags=re.DOTALL)
    joined = "\n".join(blocks).replace("\\\n", " ")
    return [line.split(" #")[0].strip() for line in joined.splitlines()]


def commands_of(part: str) -> dict:
    if part == "training":
        from training.__main__ import app
    elif part == "studies":
        from studies.__main__ import app
    else:
        from webapp.__main__ import cli as app
    return typer.main.get_command(app).commands


def test_the_two_commands_of_the_readme_are_make_demo_and_make_test():
    assert {"make demo", "make test"} <= set(code_lines(PAGES[0]))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_make_target_exists(page):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    named = set(re.findall(r"`?make ([a-z-]+)", "\n".join(code_lines(page))))
    assert named <= targets


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_python_command_and_its_options_exist(page):
    for line in code_lines(page):
        found = re.search(r"python -m (training|studies|webapp)\b(.*)", line)
        if not found:
            continue
        part, words = found.group(1), shlex.split(found.group(2))
        if not words:
            continue
        command = commands_of(part)[words[0]]
        known = {option for p in command.params for option in (*p.opts, *p.secondary_opts)}
        asked = {word.split("=")[0] for word in words[1:] if word.startswith("--")}
        assert asked <= known, line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_and_picture_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target
    for script in re.findall(r"python (benchmarks/\w+\.py)", page.read_text()):
        assert (ROOT / script).is_file(), script
