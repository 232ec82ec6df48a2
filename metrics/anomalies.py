"""Telling odd data from usual ones: the area under the ROC curve, odd images to try, and the floor to beat.

A likelihood can be fooled in one direction: simple images are often *likelier* than the data themselves (Nalisnick et
al. 2019). So odd images come in both: simpler than the data, and more complex. All are made from the data, on their
grid of levels, and depend on nothing but the image.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from genzoo.zoo.randomness import PerDatum, uniform


def auroc(usual: Tensor, odd: Tensor) -> float:
    """The probability that an odd datum scores above a usual one, a tie counting one half (Mann & Whitney 1947).

    Args:
        usual: (N,), raw scores, higher = odder.
        odd: (M,).

    Returns:
        1 where the scores tell them apart, 0.5 where they say nothing, 0 where they mean the opposite. Only the order
        of the scores matters.

    Raises:
        ValueError: if either is empty, or a score is NaN.
    """
    if usual.ndim != 1 or odd.ndim != 1 or not len(usual) or not len(odd):
        raise ValueError(
            f"auroc takes two vectors of scores, but was given {tuple(usual.shape)}, {tuple(odd.shape)}."
        )
    scores = torch.cat([usual, odd]).double()
    if scores.isnan().any():
        raise ValueError(f"{int(scores.isnan().sum())} of {len(scores)} anomaly scores are NaN.")
    _, place, ties = scores.unique(return_inverse=True, return_counts=True)
    ties = ties.double()
    ranks = (ties.cumsum(0) - (ties - 1) / 2)[place]  # from 1; equal scores share the middle of their ranks
    n, m = len(usual), len(odd)
    return ((ranks[n:].sum() - m * (m + 1) / 2) / (n * m)).item()


# ---- odd images


def faint(x: Tensor, levels: int) -> Tensor:
    """A quarter of the ink: grey values over four; of a binary image, each white pixel stays with probability 1/4."""
    if levels == 2:
        return x * (uniform(x.shape, like=x, generator=PerDatum(x)) < 0.25)
    return (x * (levels - 1) / 4).round() / (levels - 1)


def erased(x: Tensor, levels: int) -> Tensor:
    """The lower half black."""
    x = x.clone()
    x[..., x.shape[-2] // 2 :, :] = 0
    return x


def flipped(x: Tensor, levels: int) -> Tensor:
    """Upside down: as complex as the data."""
    return x.flip(-2)


def shuffled(x: Tensor, levels: int) -> Tensor:
    """Cut into four by four patches (more, where the sides do not divide by four), put together in another order."""
    b, c, h, w = x.shape
    rows, columns = (next(n for n in range(min(4, side), side + 1) if side % n == 0) for side in (h, w))
    patches = x.reshape(b, c, rows, h // rows, columns, w // columns).permute(0, 2, 4, 1, 3, 5).flatten(1, 2)
    order = uniform(patches.shape[:2], like=x, generator=PerDatum(x)).argsort(1)
    patches = patches[torch.arange(b)[:, None], order].unflatten(1, (rows, columns))
    return patches.permute(0, 3, 1, 4, 2, 5).reshape(x.shape)


#: by name: how odd images (B, C, H, W) are made of usual ones with so many levels
ODD: dict[str, Callable[[Tensor, int], Tensor]] = {
    "faint": faint,
    "erased": erased,
    "flipped": flipped,
    "shuffled": shuffled,
}


# ---- the floor


class PrincipalComponents:
    """The reconstruction error of a principal component analysis: what an anomaly score has to beat.

    Args:
        batches: (B, *shape) each, the training data.
        num_components: at most; no more than a quarter of the dimensions are kept.

    Raises:
        ValueError: if there are fewer than two data.
    """

    def __init__(self, batches: Iterable[Tensor], num_components: int = 32) -> None:
        from genzoo.metrics.frechet import FeatureStatistics

        first, *rest = (FeatureStatistics.of(x.flatten(1)) for x in batches)
        for statistics in rest:
            first.merge(statistics)
        self.mean = first.mean
        self.num_components = min(num_components, len(self.mean) // 4)
        _, vectors = torch.linalg.eigh(first.covariance)  # ascending
        self.components = vectors[:, len(self.mean) - self.num_components :]

    def score(self, x: Tensor) -> Tensor:
        """(B,), the squared distance of x, (B, *shape), from the plane of the components."""
        centred = x.flatten(1).to(self.mean) - self.mean
        return (centred - centred @ self.components @ self.components.T).square().sum(1)
