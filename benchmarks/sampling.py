"""How fast autoregressive models sample: the cached way, which is the default, against the whole network each step.

    python benchmarks/sampling.py [--only PixelCNN]

Both ways draw from the same noise with the same random weights, one after the other in one run, in one thread. The
uncached way is timed over some of its steps, evenly spread, where all of them would take too long; each step costs it
the same. CPU time, which other work on the machine moves least.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from genzoo.zoo import GPT, PixelCNN, WaveNet


@dataclass(frozen=True)
class Case:
    """A model, sampled in two ways."""

    model: Callable[[], Any]
    batch_size: int
    uncached_steps: int  # that are timed, of the D
    least_ratio: float


CASES = {
    # the network of the recipe mnist/pixelcnn
    "PixelCNN, 28 x 28": [
        Case(lambda: PixelCNN((1, 28, 28), 2, channels=64, depth=6), batch_size, 4, 30) for batch_size in (16, 64)
    ],
    "GPT, 256 tokens": [Case(lambda: GPT((256,), 65), batch_size, 8, 10) for batch_size in (1, 16)],
    "WaveNet, 4,000 samples": [
        Case(lambda: WaveNet((1, 4000), 256), batch_size, steps, 100) for batch_size, steps in ((1, 8), (16, 2))
    ],
}


def cpu_seconds(sample: Callable[[], object]) -> float:
    """The best of two."""
    best = float("inf")
    for _ in range(2):
        start = time.process_time()
        sample()
        best = min(best, time.process_time() - start)
    return best


def race(case: Case) -> tuple[float, float]:
    """Seconds of a whole batch, cached and uncached."""
    torch.manual_seed(0)
    model = case.model().eval()
    noise = torch.rand(case.batch_size, *model.shape)
    codes, nothing = torch.zeros_like(noise, dtype=torch.int64), torch.zeros_like(noise, dtype=torch.bool)
    all_but_few = ~nothing
    all_but_few.flatten(1)[:, :: model.num_dims // case.uncached_steps] = False
    few = int((~all_but_few[0]).sum())
    cached = cpu_seconds(lambda: model.draw(codes, nothing, None, noise))
    uncached = cpu_seconds(lambda: model.draw_uncached(codes, all_but_few, None, noise))
    return cached, uncached * model.num_dims / few


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="the models whose names begin so")
    only = parser.parse_args().only
    torch.set_num_threads(1)
    print(f"{'':36}{'cached':>10}{'uncached':>12}{'ratio':>9}")
    for name, cases in CASES.items():
        for case in cases if name.startswith(only) else []:
            with torch.inference_mode():
                cached, uncached = race(case)
            ratio = uncached / cached
            print(
                f"{name + f', batch {case.batch_size}':36}{cached:8.2f} s{uncached:10.1f} s{ratio:8.0f} x"
                f"   expected at least {case.least_ratio:g}: {'met' if ratio >= case.least_ratio else 'MISSED'}",
                flush=True,
            )


if __name__ == "__main__":
    main()
