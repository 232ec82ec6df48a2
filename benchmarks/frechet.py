"""A repeated Fréchet distance at d = 2048: ours, with the reference factored once, against torchmetrics' `compute`.

Both get the same statistics (of features with the covariance of a random linear map) in one run, and the agreement is
printed too. An evaluation in mid-training is the repeated one: the reference is known, the samples are new.

    python benchmarks/frechet.py [--dim 2048] [--num_features 4096] [--repeat 2] [--device cpu]
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance

from genzoo.metrics.environment import hardware
from genzoo.metrics.frechet import FeatureStatistics, FrechetReference


class Given(nn.Module):
    """A feature extractor for data that are features already."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.num_features = dim

    def forward(self, x: Tensor) -> Tensor:
        return x


def seconds(function: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    value = function()
    return time.perf_counter() - start, value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dim", type=int, default=2048)
    parser.add_argument("--num_features", type=int, default=4096)
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    torch.set_default_device(args.device)

    torch.manual_seed(0)
    mix = torch.randn(args.dim, args.dim) / args.dim**0.5
    real = torch.randn(args.num_features, args.dim) @ mix
    fakes = [torch.randn(args.num_features, args.dim) @ mix * (1 + 0.1 * i) + 0.01 for i in range(1, args.repeat + 1)]

    once, reference = seconds(lambda: FrechetReference(FeatureStatistics.of(real)))
    metric = (
        FrechetInceptionDistance(Given(args.dim), reset_real_features=False).set_dtype(torch.float64).to(args.device)
    )
    metric.update(real.double(), real=True)
    mine, yours = [], []
    for fake in fakes:
        statistics = FeatureStatistics.of(fake)
        mine.append(seconds(lambda s=statistics: reference.distance(s)))
        metric.reset()
        metric.update(fake.double(), real=False)
        yours.append(seconds(lambda: metric.compute().item()))

    fast, slow = min(mine)[0], min(yours)[0]
    differences = [abs(a - b) / abs(b) for (_, a), (_, b) in zip(mine, yours, strict=True)]
    print(f"d = {args.dim}, {args.num_features} features on either side, {hardware(torch.device(args.device))}")
    print(f"factoring the reference, once   {once:8.2f} s")
    print(f"genzoo, each evaluation         {fast:8.2f} s")
    print(f"torchmetrics, each evaluation   {slow:8.2f} s")
    print(f"ratio {slow / fast:.1f}; largest relative difference {max(differences):.1e}")


if __name__ == "__main__":
    main()
