"""What one number hides: how well samples lie in the data (precision) and data in samples (recall)."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from genzoo.metrics.base import TwoSets, check_two_sets, in_order
from genzoo.zoo.checks import check_count

CHUNK = 1024  # rows of a distance matrix held at a time
PARTS = 4  # in which the features are cut to see how much the scores scatter


def manifold_scores(real: Tensor, fake: Tensor, *, k: int = 5) -> dict[str, float]:
    """Precision, recall (Kynkäänniemi et al. 2019), density and coverage (Naeem et al. 2020).

    With r(x) the distance from a datum to its k-th nearest neighbour in its own set, and "inside a ball"
    meaning strictly nearer than r, as in the reference implementation `prdc`:

    * precision: the share of samples inside the ball of some real datum;
    * recall: the share of real data inside the ball of some sample;
    * density: the number of real balls that a sample lies in, over k, on average. Not bounded by 1;
    * coverage: the share of real data whose ball holds a sample.

    Args:
        real: (N, d), N > k.
        fake: (M, d), M > k.
        k: which neighbour.

    Raises:
        ValueError: if either set has no k-th neighbour, or features are not finite.
    """
    check_two_sets(real, fake, k + 1)
    centre = real.double().mean(0)  # distances between centred vectors lose fewer digits
    real, fake = real.double() - centre, fake.double() - centre
    real_radius, fake_radius = _radii(real, k), _radii(fake, k)
    balls = torch.zeros(len(fake), device=real.device)  # how many real balls each sample lies in
    recalled, covered = [], []
    for rows, radius in zip(real.split(CHUNK), real_radius.split(CHUNK), strict=True):
        distance = torch.cdist(rows, fake)
        inside = distance < radius[:, None]
        balls += inside.sum(0)
        covered.append(inside.any(1))
        recalled.append((distance < fake_radius).any(1))
    return {
        "precision": (balls > 0).double().mean().item(),
        "recall": torch.cat(recalled).double().mean().item(),
        "density": balls.double().mean().item() / k,
        "coverage": torch.cat(covered).double().mean().item(),
    }


def manifold_errors(
    real: Tensor, fake: Tensor, scores: Mapping[str, float], *, k: int = 5, repeats: int = 8, seed: int = 0
) -> dict[str, float]:
    """The standard deviations of the `manifold_scores` under new draws of both sets.

    Nearest neighbours have no delta method, and a bootstrap fails them, for it draws the same datum twice (Abadie &
    Imbens 2008). So both sets are cut at random into four, each quarter is scored by itself, and the variance between
    the quarters is divided by four (subsampling: Politis & Romano 1994). Shares p are compared by asin √p, whose
    variance depends on p little; that of a share is at least binomial.

    Args:
        real: (N, d).
        fake: (M, d).
        scores: their `manifold_scores`.
        k: which neighbour.
        repeats: how many times the sets are cut anew.
        seed: of the cuts.

    Returns:
        By name; nothing, if a quarter has no k-th neighbour.

    Raises:
        ValueError: if features are not finite.
    """
    check_two_sets(real, fake, 0)
    if min(len(real), len(fake)) < PARTS * (k + 1):
        return {}
    generator = torch.Generator().manual_seed(seed)

    def cut(x: Tensor) -> Sequence[Tensor]:
        return x[torch.randperm(len(x), generator=generator).to(x.device)].tensor_split(PARTS)

    ordered = in_order(real), in_order(fake)
    quarters = [
        [manifold_scores(*both, k=k) for both in zip(*map(cut, ordered), strict=True)] for _ in range(repeats)
    ]
    found = {}
    for name, p in scores.items():
        values = torch.tensor([[score[name] for score in four] for four in quarters], dtype=torch.float64)
        if name == "density":
            found[name] = (values.var(1).mean() / PARTS).sqrt().item()
        else:
            angle = (values.sqrt().asin().var(1).mean() / PARTS).sqrt().item()
            num = len(fake if name == "precision" else real)
            found[name] = max(2 * angle, num**-0.5) * (p * (1 - p)) ** 0.5
    return found


def _radii(x: Tensor, k: int) -> Tensor:
    """(N,), the distance of each row to its k-th nearest other row."""
    # Itself is the nearest of the k + 1, at distance 0.
    return torch.cat([torch.cdist(rows, x).topk(k + 1, largest=False).values[:, -1] for rows in x.split(CHUNK)])


class ManifoldScores(TwoSets):
    """Precision, recall, density and coverage (PRDC) of samples among real data (`manifold_scores`).

    Args:
        extractor: data to features: what `FeatureExtractor` takes, or one; None: the metric is given features.
        k: which neighbour makes a datum's ball.
        kwargs: `reset_real_features`, see `TwoSets`; and torchmetrics' own.
    """

    higher_is_better = True

    def __init__(
        self, extractor: Any = None, *, k: int = 5, reset_real_features: bool = False, **kwargs: Any
    ) -> None:
        check_count("k", k)
        super().__init__(extractor, reset_real_features=reset_real_features, **kwargs)
        self.k = k

    def compute(self) -> dict[str, Tensor]:
        """By name, float64: "precision", "recall", "density" and "coverage".

        Raises:
            ValueError: of too few data or samples for a k-th neighbour, or if their features differ in dimension.
        """
        real, fake = self.state(self.REAL), self.state(self.FAKE)
        scores = manifold_scores(real, fake, k=self.k)
        return {name: torch.tensor(x, dtype=torch.float64, device=real.device) for name, x in scores.items()}

    def standard_error(self) -> dict[str, float]:
        """Of each score (`manifold_errors`); nothing of too few features. Collective."""
        scores = {name: value.item() for name, value in self.compute().items()}
        return manifold_errors(*self.features(), scores, k=self.k)
