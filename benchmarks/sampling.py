"""How fast autoregressive models sample: the cached way, which is the default, against the whole network each step.

    python benchmarks/sampling.py [--only PixelCNN]

Both ways draw the same sample from the same noise with the same random weights, one after the other in one run, in
one thread. The uncached way is timed over some of its steps, evenly spread, where all of them would take too long;
each step costs it the same. CPU time, which other work on the machine moves least.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from genzoo.zoo import GPT, PixelCNN


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
    return [both_ways("PixelCNN, 28 x 28", model, batch, 4, 30) for batch in (16, 64)]


def gpt() -> list[Case]:
    """The network of the recipe shakespeare/gpt, of 256 characters."""
    torch.manual_seed(0)
    model = GPT((256,), 65, width=192, depth=3, heads=2, expansion=3).eval()
    return [both_ways("GPT, 256 tokens", model, batch, 8, ratio) for batch, ratio in ((1, 5), (16, 10), (64, 10))]


def both_ways(name: str, model: Any, batch_size: int, steps: int, least_ratio: float) -> Case:
    """Samples of an autoregressive model; the uncached way takes so many of its steps."""
    codes = torch.zeros(batch_size, *model.shape, dtype=torch.int64)
    noise, unknown = torch.rand(codes.shape), torch.zeros_like(codes).bool()
    few = ~unknown
    few.view(batch_size, -1)[:, :: model.num_dims // steps] = False
    return Case(
        f"{name}, batch {batch_size}",
        lambda: model.draw(codes, unknown, None, noise),
        lambda: model.draw_uncached(codes, few, None, noise),
        steps / model.num_dims,
        least_ratio,
    )


CASES = {"PixelCNN": pixelcnn, "GPT": gpt}


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
