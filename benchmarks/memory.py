"""The memory that the recipes for a folder of pictures take, at 64 × 64 pixels.

    python -m benchmarks.memory [--size 64] [--only gan vae]

Each recipe is run as a user runs it, in a process of its own, on pictures that are made for it: some steps, a
validation with its picture of samples, and what it publishes. The figure is the most that the process ever held,
PyTorch and the pictures included.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks import data
from benchmarks.results import RESULTS, hardware, merge, slug, stamp
from genzoo import recipes

PICTURES, STEPS = 2000, 20
KEY = ("recipe", "size")


@dataclass(frozen=True)
class Peak:
    """What a recipe took."""

    recipe: str
    size: int
    gib: float


def peak(recipe: str, size: int) -> Peak:
    """Runs a recipe.

    Raises:
        RuntimeError: if it fails, with what it said last.
    """
    root = data.pictures(PICTURES, (3, size, size), "png")
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as said:
        command = [sys.executable, "-m", "genzoo", "fit", "--config", recipe, "--data.root", str(root)]
        command += ["--data.size", str(size), "--trainer.max_steps", str(STEPS), "--trainer.default_root_dir", folder]
        process = subprocess.Popen(command, stdout=said, stderr=said)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            raise RuntimeError(f"{recipe} ended with {process.returncode}: {said.read()[-2000:].decode()}")
    return Peak(recipe, size, used.ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20))


def chosen(only: list[str] | None) -> list[str]:
    """The recipes for folders of pictures, or those of them whose names hold one of these words.

    Raises:
        ValueError: if there is none.
    """
    every = [name for name in recipes.names() if name.startswith("images/")]
    found = [name for name in every if not only or any(word in name for word in only)]
    if not found:
        raise ValueError(f"no recipe's name holds {' or '.join(only or [])}: there are {', '.join(every)}")
    return found


def measure(results: Path, size: int, only: list[str] | None = None) -> None:
    """Measures one recipe after the other, and writes what is found."""
    path = results / "memory" / f"{slug(hardware())}.csv"
    for recipe in chosen(only):
        found = peak(recipe, size)
        merge(path, [vars(found) | stamp()], KEY)
        print(f"{recipe}, {size} × {size}: {found.gib:.2f} GiB", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=64, help="of the pictures' sides")
    parser.add_argument("--only", nargs="+", help="recipes whose names hold one of these words")
    given = parser.parse_args()
    measure(RESULTS, given.size, given.only)
