"""The bento ships what the service imports, all of it and nothing else."""

import os
import subprocess
import sys
from pathlib import Path

import grimp
import pytest
import yaml

ROOT = Path(__file__).parents[2]
PACKAGES = ("service", "diffusion", "training", "webapp", "studies")


@pytest.fixture(scope="module")
def bento(tmp_path_factory) -> Path:
    """A bento built in a home of its own."""
    home = tmp_path_factory.mktemp("bentoml")
    environment = os.environ | {"BENTOML_HOME": str(home), "BENTOML_DO_NOT_TRACK": "True"}
    command = [sys.executable, "-m", "bentoml", "build", "--output", "tag", "."]
    built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    (yaml_path,) = home.glob("bentos/cytoverity/*/bento.yaml")
    return yaml_path.parent


@pytest.fixture(scope="module")
def imported() -> set[str]:
    """Modules of ours that `service.app` needs, also those it imports late."""
    graph = grimp.build_graph(*PACKAGES, cache_dir=None)
    modules = graph.find_upstream_modules("service.app") | {"service.app"}
    parents = {module.rpartition(".")[0] for module in modules} - {""}
    return modules | parents


def shipped_files(bento: Path) -> set[str]:
    source = bento / "src"
    return {path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file()}


def shipped_modules(bento: Path) -> set[str]:
    names = {name.removesuffix(".py") for name in shipped_files(bento) if name.endswith(".py")}
    return {name.removesuffix("/__init__").replace("/", ".") for name in names}


def test_every_module_that_the_service_imports_is_shipped(bento, imported):
    assert "diffusion.checkpoint" in imported
    assert imported - shipped_modules(bento) == set()


def test_no_folder_is_shipped_that_the_service_does_not_import(bento, imported):
    used = {module.partition(".")[0] for module in imported}
    assert used == {"service", "diffusion"}
    assert {module.partition(".")[0] for module in shipped_modules(bento)} == used


def test_nothing_but_python_is_shipped(bento):
    others = {name for name in shipped_files(bento) if not name.endswith(".py")}
    assert others <= {"bentofile.yaml"}


def test_the_bento_installs_the_pinned_versions_of_what_runs_here(bento):
    from importlib.metadata import version

    lines = (ROOT / "service" / "requirements.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    assert {name: version(name).partition("+")[0] for name in pins} == pins
    installed = (bento / "env" / "python" / "requirements.txt").read_text()
    assert all(f"{name}=={pin}" in installed for name, pin in pins.items())


def test_every_package_that_the_service_imports_is_pinned():
    graph = grimp.build_graph(
        "service", "diffusion", include_external_packages=True, cache_dir=None
    )
    outside = {module for module in graph.modules if graph.is_module_squashed(module)}
    ours = {"service", "diffusion"}
    third_party = outside - set(sys.stdlib_module_names) - ours
    lines = (ROOT / "service" / "requirements.txt").read_text().splitlines()
    pinned = {line.partition("==")[0].replace("-", "_") for line in lines}
    pinned |= {"PIL"} if "pillow" in pinned else set()
    via_bentoml = {"click"}
    assert third_party - pinned - via_bentoml == set()


def test_the_container_listens_outside_itself(bento):
    environment = yaml.safe_load((bento / "bento.yaml").read_text())["envs"]
    assert {"name": "BENTOML_HOST", "value": "0.0.0.0"}.items() <= environment[0].items()
