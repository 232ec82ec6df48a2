"""genzoo as it is installed: the wheel that the tree becomes, and the wheel unpacked."""

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
#: the folders of the tree, and the packages that they are installed as
HOUSES = {"core": "genzoo", **{f: f"genzoo/{f}" for f in ("zoo", "metrics", "datamodules", "callbacks", "recipes")}}


def build_wheel(copy: Path) -> Path:
    """A wheel built from a copy of the tree, which the build leaves its scratch files in."""
    for item in (*HOUSES, "tests", "typings", "pyproject.toml", "setup.py", "README.md", "LICENSE"):
        if (ROOT / item).is_dir():
            shutil.copytree(ROOT / item, copy / item, ignore=shutil.ignore_patterns("__pycache__"), symlinks=True)
        else:
            shutil.copy(ROOT / item, copy / item)
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", "dist", "."]
    subprocess.run(build, cwd=copy, check=True, capture_output=True)
    (built,) = (copy / "dist").glob("*.whl")
    return built
