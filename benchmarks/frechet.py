"""The Fréchet distance: adding features, and computing it again for new samples against a reference that is known."""

import functools
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import peers
from benchmarks.contest import Contest, Rival
from genzoo.metrics.frechet import FeatureStatistics, FrechetReference

DIM = 2048  # of Inception's features
BATCH = 500


class Given(nn.Module):
    """A feature extractor for data that are features already."""

    num_features = DIM

    def forward(self, x: Tensor) -> Tensor:
        return x


def torchmetrics() -> Any:
    from torchmetrics.image.fid import FrechetInceptionDistance

    return FrechetInceptionDistance(Given(), reset_real_features=False).set_dtype(torch.float64)


def features(number: int, seed: int) -> Tensor:
    """Whose covariance is that of a random linear map."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(DIM, DIM, generator=torch.Generator().manual_seed(0)) / DIM**0.5
    return (1 + 0.1 * seed) * torch.randn(number, DIM, generator=generator) @ mix


@functools.cache
def reference() -> tuple[FrechetReference, Any]:
    """Ours, factored, and torchmetrics', both of the same features."""
    real = features(2 * DIM, 0)
    theirs = torchmetrics()
    theirs.update(real.double(), real=True)
    return FrechetReference(FeatureStatistics.of(real)), theirs


@functools.cache
def samples() -> FeatureStatistics:
    return FeatureStatistics.of(features(2 * DIM, 1))


def ours_computes(times: int) -> None:
    for _ in range(times):
        reference()[0].distance(samples())


def torchmetrics_computes(times: int) -> float:
    metric = reference()[1]
    metric.reset()
    metric.update(features(2 * DIM, 1).double(), real=False)
    for _ in range(times):
        metric._computed = None  # or it would return what it had
        value = metric.compute()
    return float(value)


def cleanfid_computes(times: int) -> None:
    from cleanfid.fid import frechet_distance

    real, fake = reference()[0].statistics, samples()
    for _ in range(times):
        frechet_distance(real.mean.numpy(), real.covariance.numpy(), fake.mean.numpy(), fake.covariance.numpy())


def ours_adds(thousands: int) -> None:
    statistics, x = FeatureStatistics.empty(DIM), batch()
    for _ in range(thousands * 1000 // BATCH):
        statistics.update(x)


def torchmetrics_adds(thousands: int) -> None:
    metric, x = torchmetrics(), batch().double()
    for _ in range(thousands * 1000 // BATCH):
        metric.update(x, real=False)


@functools.cache
def batch() -> Tensor:
    return features(BATCH, 1)


def contests() -> Iterator[Contest]:
    """Both."""
    name, absent = f"Fréchet, {DIM:,} dimensions", 'pip install "genzoo[bench]"'
    yield Contest(
        "metrics",
        f"{name}, adding",
        "1,000 features",
        ours_adds,
        [Rival("torchmetrics", torchmetrics_adds, 1.2)],
        (0, 10),
    )
    yield Contest(
        "metrics",
        f"{name}, computing again",
        "distance",
        ours_computes,
        [
            Rival("torchmetrics", torchmetrics_computes, 4.0, steps=(1, 2)),
            Rival("clean-fid", cleanfid_computes, 4.0, absent if peers.missing("cleanfid") else "", steps=(0, 1)),
        ],
        (1, 4),
    )
