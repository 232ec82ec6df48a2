"""How time and memory grow with the data: of a training step and of a sample, against image, context and sound.

    python -m benchmarks.growth [--quick]

Each point is measured in a process of its own, which does nothing else: the best time of a few, and by how much the
most memory that it ever held exceeds what it held before. Models are the defaults of their families.
"""

import argparse
import math
import multiprocessing
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import linear_regression
from typing import Any

from benchmarks.results import RESULTS, hardware, merge, read, slug, stamp

IMAGES, TEXTS, SOUNDS = (8, 16, 32, 64, 128), (64, 128, 256, 512, 1024), (1000, 2000, 4000, 8000, 16000)
KEY = ("family", "what", "size")


@dataclass(frozen=True)
class Curve:
    """A family: what its size is, of which sizes, and how many data are in a batch."""

    family: str
    of: str
    sizes: tuple[int, ...]
    batch_size: int
    shape: Callable[[int], tuple[int, ...]]
    levels: int


def image(side: int) -> tuple[int, ...]:
    return (1, side, side)


def text(length: int) -> tuple[int, ...]:
    return (length,)


def sound(length: int) -> tuple[int, ...]:
    return (1, length)


CURVES = [
    Curve("VAE", "image side", IMAGES, 8, image, 256),
    Curve("GAN", "image side", IMAGES, 8, image, 256),
    Curve("DDPM", "image side", IMAGES, 8, image, 256),
    Curve("PixelCNN", "image side", IMAGES, 8, image, 2),
    Curve("GPT", "context", TEXTS, 4, text, 65),
    Curve("WaveNet", "samples", SOUNDS, 2, sound, 256),
]


@dataclass(frozen=True)
class Point:
    """A row of the file. Time is of a batch's training step, or of one sample; memory what it took besides."""

    family: str
    what: str  # "step" or "sample"
    of: str
    size: int
    batch_size: int
    seconds: float
    mib: float


def points(curve: Curve, quick: bool) -> Iterator[Point]:
    """From the smallest size on."""
    # From a process that has imported all and computed nothing: PyTorch's threads do not outlive a fork.
    fresh = multiprocessing.get_context("forkserver")
    fresh.set_forkserver_preload(["benchmarks.__main__", "genzoo.zoo"])
    for size in curve.sizes[: 3 if quick else None]:
        for what in ("step", "sample"):
            receiver, sender = multiprocessing.Pipe(duplex=False)
            process = fresh.Process(target=measured, args=(curve, size, what, sender))
            process.start()
            sender.close()
            seconds, mib = receiver.recv()
            process.join()
            batch_size = curve.batch_size if what == "step" else 1
            yield Point(curve.family, what, curve.of, size, batch_size, seconds, mib)


def measured(curve: Curve, size: int, what: str, sender: Any) -> None:
    """Sends seconds and MiB."""
    import torch

    from genzoo import zoo
    from genzoo.memory import keep_memory

    keep_memory()
    torch.manual_seed(0)
    model = getattr(zoo, curve.family)(curve.shape(size), curve.levels)
    work = step(model, curve) if what == "step" else lambda: model.eval().sample(1)
    before = most_memory()
    times = []
    while len(times) < 2 or (sum(times) < 1 and len(times) < 20):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
        if sum(times) > 20:
            break
    sender.send((min(times), max(1.0, most_memory() - before)))  # what is held before hides less than that


def step(model: Any, curve: Curve) -> Callable[[], None]:
    """Makes a training step in a bare loop."""
    import torch

    x = torch.randint(curve.levels, (curve.batch_size, *model.shape))
    if model.modality == "waveform":
        from genzoo.zoo.modality import from_codes

        x = from_codes(x, curve.levels, "waveform")
    elif model.modality == "image":
        x = x / (curve.levels - 1)
    optimizers = model.configure_optimizers()
    optimizers = optimizers[0] if isinstance(optimizers, tuple) else [optimizers]

    def make() -> None:
        model.objective(x, None)["loss"].mean().backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()

    return make


def most_memory() -> float:
    """The most that this process ever held, in MiB."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (2**20 if sys.platform == "darwin" else 2**10)


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """k of value ∝ sizeᵏ: the slope of the line of least squares through the logarithms."""
    return linear_regression([math.log(size) for size in sizes], [math.log(value) for value in values]).slope


def exponents(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """The rows of a file with the exponents of their curves, each over its three largest sizes."""
    fitted = []
    for row in rows:
        curve = [other for other in rows if all(other[name] == row[name] for name in ("family", "what"))]
        largest = sorted(curve, key=lambda other: int(other["size"]))[-3:]
        sizes = [float(other["size"]) for other in largest]
        for name, column in (("exponent_of_time", "seconds"), ("exponent_of_memory", "mib")):
            row = row | {name: f"{exponent(sizes, [float(other[column]) for other in largest]):.1f}"}
        fitted.append(row)
    return fitted


def measure(results: Path, *, quick: bool = False, families: list[str] | None = None) -> None:
    """Measures the curves and writes them, one after the other."""
    path = results / "growth" / f"{slug(hardware())}.csv"
    for curve in CURVES:
        if families and curve.family not in families:
            continue
        merge(path, [asdict(point) | stamp() for point in points(curve, quick)], KEY)
        merge(path, exponents(read(path)), KEY)
        for row in read(path):
            if row["family"] == curve.family:
                print(
                    f"{curve.family}, a {row['what']}, {curve.of} {int(row['size']):,}: {row['seconds']} s,"
                    f" {row['mib']} MiB; exponents {row['exponent_of_time']} and {row['exponent_of_memory']}",
                    flush=True,
                )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the three smallest sizes alone")
    parser.add_argument("--only", nargs="+", help="families")
    given = parser.parse_args()
    measure(RESULTS, quick=given.quick, families=given.only)
