"""How fast autoregressive models sample: the cached way, which is the default, against the whole network each step.

    python benchmarks/sampling.py [--only PixelCNN]

Both ways draw the same sample from the same noise with the same random weights, one after the other in one run, in
one thread. The uncached way is timed over some of its steps, evenly spread, where all of them would take too long;
each step costs it the same. CPU time, which other work on the machine moves least.
"""

import argparse
import time
from collections.abc import Callable
from typing import NamedTuple

import torch

from genzoo.zoo import PixelCNN


class Case(NamedTuple):
    """One model and batch size, sampled in two ways."""

    name: str
    cached: Callable[[], object]  # a whole sample
    uncached: Callable[[], object]  # some of its steps
    share: float  # of all steps that `uncached` takes
    least_ratio: float


def pixelcnn() -> list[Case]:
    """The network of the recipe mnist/pixelcnn: 784 pixels."""
    torch.manual_seed(0)
    model = PixelCNN((1, 28, 28), 2, channels=64, depth=6).eval()
    cases = []
    for batch in (16, 64):
        noise = torch.rand(batch, 1, 28, 28)
        codes, unknown = torch.zeros(batch, 1, 28, 28, dtype=torch.int64), torch.zeros(batch, 1, 28, 28).bool()
        few = ~unknown
        few.view(batch, -1)[:, ::196] = False
        cases.append(
            Case(
                f"PixelCNN, 28 x 28, batch {batch}",
                lambda codes=codes, unknown=unknown, noise=noise: model.draw(codes, unknown, None, noise),
                lambda codes=codes, few=few, noise=noise: model.draw_uncached(codes, few, None, noise),
                4 / 784,
                30,
            )
        )
    return cases


CASES = {"PixelCNN": pixelcnn}


def cpu_seconds(sample: Callable[[], object]) -> float:
    """The best of two."""
    best = float("inf")
    for _ in range(2):
        start = time.process_time()
        sample()
        best = min(best, time.process_time() - start)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=list(CASES), help="one of the models")
    only = parser.parse_args().only
    torch.set_num_threads(1)
    print(f"{'':36}{'cached':>10}{'uncached':>12}{'ratio':>9}")
    with torch.inference_mode():
        for name, cases in CASES.items():
            for case in cases() if only in (None, name) else []:
                cached, uncached = cpu_seconds(case.cached), cpu_seconds(case.uncached) / case.share
                ratio = uncached / cached
                verdict = "met" if ratio >= case.least_ratio else "MISSED"
                print(
                    f"{case.name:36}{cached:8.2f} s{uncached:10.1f} s{ratio:8.0f} x   expected at least"
                    f" {case.least_ratio:g}: {verdict}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
