"""What is installed is what stands in the tree: every module, recipe and weight, and nothing else."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from wheels import HOUSES, ROOT

import genzoo


def test_the_wheel_holds_the_tree_and_nothing_else(wheel: Path) -> None:
    expected = {
        f"{package}/{path.relative_to(ROOT / house).as_posix()}"
        for house, package in HOUSES.items()
        for path in (ROOT / house).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and not path.name.startswith(".")
        if path != ROOT / "zoo" / "README.md"  # for readers of the repository
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


def test_an_installed_wheel_finds_its_recipes_and_entries(site: Path, tmp_path: Path) -> None:
    code = (
        f"import sys; sys.path[0] = {str(site)!r}\n"
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
    links = {path.name: path.resolve() for path in (ROOT / "typings" / "genzoo").iterdir()}
    own = [path for path in (ROOT / "core").iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()]
    houses = [ROOT / house for house in HOUSES if house != "core"]
    assert links == {path.name: path for path in (*own, *houses)}


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
