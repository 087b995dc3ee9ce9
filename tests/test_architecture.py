"""The arrows between the parts; what the bento ships is checked in service/test_bento.py."""

import ast
from pathlib import Path

from importlinter import cli

ROOT = Path(__file__).parents[1]
PARTS = ("diffusion", "training", "service", "webapp", "studies")


def test_the_arrows_between_the_parts_are_those_of_the_architecture():
    assert cli.lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True) == 0


def test_every_public_function_and_class_says_what_it_is():
    # ruff's D1 rules hold the same, but a test cannot be switched off by a comment.
    silent = []
    for part in PARTS:
        for path in sorted((ROOT / part).glob("*.py")):
            for node in ast.parse(path.read_text()).body:
                is_public = isinstance(
                    node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
                ) and not node.name.startswith("_")
                if is_public and not ast.get_docstring(node):
                    silent.append(f"{path.name}: {node.name}")
    assert silent == []


def test_nothing_of_this_machine_is_in_the_tree():
    import subprocess

    tracked = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\0")
    telling = [
        name
        for name in tracked
        if name.endswith((".py", ".toml", ".md", ".json", ".yaml", ".txt", "Makefile"))
        and "/work" + "/" in (ROOT / name).read_text()
    ]
    assert telling == []
