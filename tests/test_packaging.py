"""What is installed is what stands in the tree: every module, recipe and weight, and nothing else."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import genzoo

ROOT = Path(__file__).parent.parent
HOUSES = {"core": "genzoo", **{f: f"genzoo/{f}" for f in ("zoo", "metrics", "datamodules", "callbacks", "recipes")}}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from a copy of the tree, which the build leaves its scratch files in."""
    copy = tmp_path_factory.mktemp("tree")
    for item in (*HOUSES, "tests", "typings", "pyproject.toml", "setup.py", "README.md", "LICENSE"):
        if (ROOT / item).is_dir():
            shutil.copytree(ROOT / item, copy / item, ignore=shutil.ignore_patterns("__pycache__"), symlinks=True)
        else:
            shutil.copy(ROOT / item, copy / item)
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", "dist", "."]
    subprocess.run(build, cwd=copy, check=True, capture_output=True)
    (built,) = (copy / "dist").glob("*.whl")
    return built


def test_the_wheel_holds_the_tree_and_nothing_else(wheel: Path) -> None:
    expected = {
        f"{package}/{path.relative_to(ROOT / house).as_posix()}"
        for house, package in HOUSES.items()
        for path in (ROOT / house).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and not path.name.startswith(".")
    }
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert held == expected
    assert "genzoo/py.typed" in held
    assert any(name.startswith("genzoo/recipes/") and name.endswith(".yaml") for name in held)


def test_the_wheel_says_who_it_is(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        text = archive.read(metadata).decode()
        (scripts,) = (name for name in archive.namelist() if name.endswith("entry_points.txt"))
        assert "genzoo = genzoo.cli:main" in archive.read(scripts).decode()
    assert f"Version: {genzoo.__version__}\n" in text and "License-Expression: Apache-2.0\n" in text


def test_an_installed_wheel_finds_its_recipes_and_entries(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    code = (
        f"import sys; sys.path[0] = {str(tmp_path / 'site')!r}\n"
        # not the editable installation, whose import hook would come first
        "sys.meta_path[:] = [f for f in sys.meta_path if 'editable' not in getattr(f, '__module__', '')"
        " and 'Editable' not in getattr(f, '__name__', '')]\n"
        "import genzoo; assert genzoo.__file__.startswith(sys.path[0]), genzoo.__file__\n"
        "from genzoo.cli import main; main(['list'])"
    )
    listing = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=tmp_path)
    for path in sorted((ROOT / "recipes").rglob("*.yaml")):
        assert path.relative_to(ROOT / "recipes").with_suffix("").as_posix() in listing.stdout
    for path in sorted((ROOT / "zoo/weights").rglob("config.yaml")):
        assert path.parent.relative_to(ROOT / "zoo/weights").as_posix() in listing.stdout


def test_the_links_for_type_checkers_are_complete() -> None:
    links = ROOT / "typings" / "genzoo"
    pointed = {path.resolve() for path in links.iterdir()}
    own = {path for path in (ROOT / "core").iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert pointed == own | {ROOT / house for house in HOUSES if house != "core"}


def test_public_names() -> None:
    assert set(genzoo.__all__) <= set(dir(genzoo))
    for name in genzoo.__all__:
        assert getattr(genzoo, name)
    with pytest.raises(AttributeError, match="nonsense"):
        genzoo.nonsense  # noqa: B018


def test_importing_genzoo_is_cheap() -> None:
    heavy = {"torch", "lightning", "wandb", "scipy", "torchvision", "sklearn", "yaml", "numpy"}
    code = f"import sys, genzoo, genzoo.zoo; assert not {heavy!r} & set(sys.modules), sorted(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
