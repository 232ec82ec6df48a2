"""What the benchmarks of training share: `genzoo fit` of a recipe, random MNIST, and runs that take turns.

The time of a short run is taken from that of a long one, so that starting and ending do not count. The runs take
turns, and the best round counts for each. Where all of them work in one thread and wait for nothing, ratios are taken
of CPU time, which other work on the machine moves least.
"""

import struct
import time
from collections.abc import Callable, Mapping
from math import inf
from pathlib import Path

import torch

from genzoo.cli import main as genzoo

Run = Callable[[int], None]  # trains for so many steps
WALL, CPU = 0, 1


def genzoo_fit(folder: Path, recipe: str, root: str, steps: int, precision: str) -> None:
    """`genzoo fit` of a recipe, given as text, in a folder of its own."""
    (folder / "recipe.yaml").write_text(recipe)
    options = {
        "data.root": root,
        "trainer.precision": precision,
        "trainer.max_steps": steps,
        "trainer.default_root_dir": folder,
    }
    genzoo(["fit", "--config", str(folder / "recipe.yaml"), *(f"--{key}={value}" for key, value in options.items())])


def has_mnist(root: str) -> bool:
    """Whether the files of MNIST are where torchvision would look for them."""
    return (Path(root) / "MNIST" / "raw").is_dir()


def random_mnist(root: Path) -> None:
    """Files in MNIST's format, with noise in them."""
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, n in (("train", 60_000), ("t10k", 10_000)):
        images, labels = torch.randint(256, (n, 28, 28)), torch.randint(10, (n,))
        for name, values in ((f"{part}-images-idx3-ubyte", images), (f"{part}-labels-idx1-ubyte", labels)):
            header = struct.pack(f">I{values.ndim}I", 0x800 + values.ndim, *values.shape)
            (raw / name).write_bytes(header + values.to(torch.uint8).numpy().tobytes())


def race(runs: Mapping[str, Run], *, short: int, long: int, rounds: int, wanted: Mapping[str, float]) -> None:
    """Prints each run's steps a second, and how many times as fast the first of the runs is.

    Args:
        runs: by name.
        short: steps of the short run.
        long: steps of the long one.
        rounds: the best of how many.
        wanted: the ratio that is wanted, for some of the names.
    """
    best: dict[str, dict[int, tuple[float, ...]]] = {name: {} for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            for steps in (short, long):
                before = best[name].get(steps, (inf, inf))
                best[name][steps] = tuple(map(min, before, seconds(run, steps)))

    def rate(name: str, clock: int) -> float:
        return (long - short) / (best[name][long][clock] - best[name][short][clock])

    first, width = next(iter(runs)), max(map(len, runs)) + 2
    for name in runs:
        ratio = rate(first, CPU) / rate(name, CPU)
        verdict = f", wanted {wanted[name]}: {'met' if ratio >= wanted[name] else 'MISSED'}" if name in wanted else ""
        print(
            f"{name:{width}}{rate(name, WALL):8.2f} a second{rate(name, CPU):8.2f} a second of CPU time;"
            f" {first} is {ratio:.2f} times as fast{verdict}"
        )


def seconds(run: Run, steps: int) -> tuple[float, float]:
    """By the clock on the wall, and of CPU time."""
    start = time.perf_counter(), time.process_time()
    run(steps)
    return time.perf_counter() - start[0], time.process_time() - start[1]
