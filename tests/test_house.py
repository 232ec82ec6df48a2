"""Who may know whom: the contracts in pyproject.toml hold, and break where somebody imports what they forbid."""

import ast
import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from wheels import ROOT

LINT = "from importlinter.cli import lint_imports_command; lint_imports_command()"
GRAPH = """
import grimp, json
graph = grimp.build_graph(
    "genzoo", include_external_packages=True, exclude_type_checking_imports=True, cache_dir=None
)
print(json.dumps({name: sorted(graph.find_modules_directly_imported_by(name)) for name in graph.modules}))
"""


def lint(site: Path) -> tuple[int, str]:
    """import-linter's exit code and its report on the genzoo that lies in `site`, the report in one line."""
    command = [sys.executable, "-c", LINT, str(ROOT / "pyproject.toml"), "--no-cache"]
    ended = subprocess.run(command, cwd=site, capture_output=True, text=True)
    return ended.returncode, " ".join((ended.stdout + ended.stderr).split())


def imports(site: Path) -> dict[str, list[str]]:
    """What each file of the genzoo in `site` imports when it runs, now or later."""
    shown = subprocess.run([sys.executable, "-c", GRAPH], cwd=site, check=True, capture_output=True, text=True)
    return json.loads(shown.stdout)


def beyond_torch(graph: dict[str, list[str]]) -> set[str]:
    """What the networks import besides each other, torch and Python's own library."""
    own = {name for name in graph if f"{name}.".startswith("genzoo.zoo.networks.")}
    return {found for name in own for found in graph[name]} - own - {"torch"} - sys.stdlib_module_names


def plain_name(requirement: str) -> str:
    """`huggingface-hub` of `huggingface_hub>=0.24`."""
    return re.sub(r"[-_.]+", "-", re.split(r"[\[<>=!~; ]", requirement)[0]).lower()


def foreign_imports(code: ast.AST, late: bool = False) -> Iterator[tuple[str, bool]]:
    """The packages that a file imports besides Python's own and genzoo, and whether only when a call needs them."""
    for node in ast.iter_child_nodes(code):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
        for package in {name.partition(".")[0] for name in names} - sys.stdlib_module_names - {"genzoo"}:
            yield package, late
        yield from foreign_imports(
            node, late or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        )


installed = cache(packages_distributions)  # which reads what every package says of itself


def undeclared(site: Path) -> list[str]:
    """What the genzoo in `site` imports though pyproject.toml does not say so: an extra's only when it is needed."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    always = {plain_name(requirement) for requirement in project["dependencies"]}
    extras = [
        project["optional-dependencies"][extra]
        for extra in ("app", "audio", "inception", "onnx", "parquet", "tensorboard")
    ]
    at_times = always.union(*({plain_name(requirement) for requirement in extra} for extra in extras))
    providers, found = installed(), set()
    for file in (site / "genzoo").rglob("*.py"):
        for package, late in foreign_imports(ast.parse(file.read_text())):
            given_by = {plain_name(name) for name in providers.get(package, [package])}
            if not given_by & (at_times if late else always):
                found.add(f"{file.relative_to(site)}: {package}")
    return sorted(found)


def test_what_is_imported_is_declared(site: Path) -> None:
    assert undeclared(site) == []


def test_no_arrow_runs_up(site: Path) -> None:
    code, report = lint(site)
    assert code == 0 and "0 broken" in report, report


def test_no_circle_of_files(site: Path) -> None:
    graph = imports(site)
    assert graph["genzoo.cli"]  # it is the whole house
    TopologicalSorter(graph).prepare()


def test_the_networks_know_only_torch(site: Path) -> None:
    assert beyond_torch(imports(site)) == set()


# ---- the checks themselves


@pytest.fixture
def plant(site: Path, tmp_path: Path):
    """Writes lines into a file of a copy of the house, which it returns."""

    def planted(file: str, lines: str) -> Path:
        shutil.copytree(site, tmp_path / "site", ignore=shutil.ignore_patterns("weights", "*.dist-info"))
        with (tmp_path / "site" / "genzoo" / file).open("a") as end:
            end.write(f"\n{lines}\n")
        return tmp_path / "site"

    return planted


@pytest.mark.parametrize(
    ("file", "lines", "broken"),
    [
        ("metrics/frechet.py", "from genzoo.callbacks import EMA", "the floors of the house"),
        ("metrics/frechet.py", "def late():\n    from genzoo.callbacks import EMA", "the floors of the house"),
        ("datamodules/points.py", "import genzoo.callbacks.ema", "the floors of the house"),
        ("callbacks/ema.py", "import genzoo.datamodules.points", "the floors of the house"),
        ("errors.py", "from genzoo import fit", "the floors of the house"),
        ("fit.py", "from genzoo.commands import names", "the floors of the house"),
        ("utils.py", "", "the floors of the house"),
        ("zoo/randomness.py", "import genzoo", "the floors of the zoo"),
        ("zoo/randomness.py", "from genzoo.zoo import hub", "the floors of the zoo"),
        ("zoo/networks/mlp.py", "from genzoo.zoo.randomness import normal", "the floors of the zoo"),
        ("zoo/gan/losses.py", "import genzoo.zoo.latent.vae", "the floors of the zoo"),
        ("zoo/utils.py", "", "the floors of the zoo"),
        ("callbacks/ema.py", "from genzoo.zoo.latent.vae import VAE", "by its files to nobody"),
        ("zoo/hub/card.py", "from genzoo.zoo.gan import losses", "by its files to nobody"),
        ("zoo/gan/losses.py", "from genzoo.zoo import VAE", "the public names are for those above"),
        ("metrics/frechet.py", "from genzoo import __version__", "the public names are for those above"),
        ("zoo/modality.py", "import genzoo.zoo.module", "no circle"),
        ("zoo/hub/entries.py", "from genzoo.zoo.hub.loading import load", "no circle"),
    ],
)
def test_what_is_forbidden_is_found(plant, file: str, lines: str, broken: str) -> None:
    code, report = lint(plant(file, lines))
    assert code == 1 and f"{broken} BROKEN" in report, report


def test_a_circle_through_a_package_is_found(plant) -> None:
    with pytest.raises(CycleError):
        TopologicalSorter(imports(plant("zoo/hub/tasks.py", "from genzoo.zoo.hub import Entry"))).prepare()


def test_a_network_that_knows_more_than_torch_is_found(plant) -> None:
    assert beyond_torch(imports(plant("zoo/networks/mlp.py", "def late():\n    import lightning"))) == {"lightning"}


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        ("import pluggy", ["pluggy"]),
        ("from pytest import mark", ["pytest"]),
        ("def late():\n    import pluggy.hooks", ["pluggy"]),
        ("import torch_fidelity", ["torch_fidelity"]),
        ("def late():\n    import torch_fidelity", []),
        ("import numpy.random, PIL.Image, yaml, os.path", []),
        ("from . import unet", []),
    ],
)
def test_what_is_imported_and_not_declared_is_found(plant, lines: str, found: list[str]) -> None:
    assert undeclared(plant("zoo/networks/mlp.py", lines)) == [
        f"genzoo/zoo/networks/mlp.py: {name}" for name in found
    ]
