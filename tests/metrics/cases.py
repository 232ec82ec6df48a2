"""Every metric, with batches for it and the value that its function gives for all of them at once."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from genzoo.metrics import (
    AnomalyAUROC,
    BitsPerDim,
    FeatureStatistics,
    FrechetDistance,
    KernelDistance,
    ManifoldScores,
    ModeCoverage,
    NegativeLogLikelihood,
    auroc,
    frechet_distance,
    kernel_distance,
    manifold_scores,
    mode_coverage,
)


def normal(n: int, *shape: int, seed: int, shift: float = 0.0) -> Tensor:
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(seed)) + shift


REAL, FAKE = normal(61, 6, seed=0), normal(56, 6, seed=1, shift=0.3)
SCORES, ODD = normal(47, seed=2), normal(47, seed=3) > 0.4
LOG_PROB, DIMS = (
    normal(47, seed=4, shift=-90),
    torch.randint(20, 65, (47,), generator=torch.Generator().manual_seed(5)),
)
CENTRES = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [9.0, 9.0]])
POINTS = CENTRES[torch.arange(50) % 3] + 0.1 * normal(50, 2, seed=6)


@dataclass(frozen=True)
class Case:
    make: Callable[..., Metric]
    updates: list[dict[str, Any]]
    expected: dict[str, float]  # by name; a metric of one value has the name ""

    def values(self, metric: Metric) -> dict[str, float]:
        found = metric.compute()
        return {name: float(x) for name, x in (found if isinstance(found, dict) else {"": found}).items()}


def two_sets() -> list[dict[str, Any]]:
    return [{"x": x, "real": real} for real, rows in ((True, REAL), (False, FAKE)) for x in rows.split(16)]


def batches(**tensors: Tensor) -> list[dict[str, Any]]:
    parts = zip(*(tensor.split(16) for tensor in tensors.values()), strict=True)
    return [dict(zip(tensors, batch, strict=True)) for batch in parts]


FRECHET = frechet_distance(FeatureStatistics.of(REAL), FeatureStatistics.of(FAKE))
CASES = {
    "frechet": Case(FrechetDistance, two_sets(), {"": FRECHET}),
    "kernel": Case(KernelDistance, two_sets(), {"": kernel_distance(REAL, FAKE)[0]}),
    "manifold": Case(ManifoldScores, two_sets(), manifold_scores(REAL, FAKE)),
    "auroc": Case(AnomalyAUROC, batches(scores=SCORES, odd=ODD), {"": auroc(SCORES[~ODD], SCORES[ODD])}),
    "nll": Case(NegativeLogLikelihood, batches(log_prob=LOG_PROB), {"": -LOG_PROB.double().mean().item()}),
    "bits": Case(
        BitsPerDim,
        batches(log_prob=LOG_PROB, num_dims=DIMS),
        {"": -LOG_PROB.double().sum().item() / (DIMS.sum().item() * math.log(2))},
    ),
    "modes": Case(
        lambda **options: ModeCoverage(CENTRES, 0.1, **options),
        batches(samples=POINTS),
        mode_coverage(POINTS, CENTRES, 0.1),
    ),
}
