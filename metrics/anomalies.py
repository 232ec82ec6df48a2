"""Telling odd data from usual ones: the area under the ROC curve, odd images to try, and the floor to beat.

A likelihood can be fooled in one direction: simple images are often *likelier* than the data themselves (Nalisnick et
al. 2019). So odd images come in both: simpler than the data, and more complex. All are made from the data, on their
grid of levels, and depend on nothing but the image.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from genzoo.metrics.base import Measure, double, float64_device
from genzoo.metrics.frechet import FeatureStatistics
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
    return _placements(usual, odd)[1].mean().item()


def auroc_error(usual: Tensor, odd: Tensor, *, paired: bool = False) -> float:
    """The standard deviation of the AUROC under new draws of the data (DeLong, DeLong & Clarke-Pearson 1988).

    With u the share of odd data above a usual datum, and o the share of usual data below an odd one, the AUROC is the
    mean of either, and its variance Var u / N + Var o / M. Where the odd data are made from the usual ones, one draw
    of a datum changes a u and an o: then it is Var(u + o) / N.

    Args:
        usual: (N,), raw scores, higher = odder.
        odd: (M,).
        paired: the i-th odd datum is made from the i-th usual one.

    Returns:
        NaN of a single datum on either side.

    Raises:
        ValueError: if either is empty, a score is NaN, or the pairs do not come out even.
    """
    u, o = _placements(usual, odd)
    if not paired:
        return (u.var(correction=1) / len(u) + o.var(correction=1) / len(o)).sqrt().item()
    if len(u) != len(o):
        raise ValueError(f"auroc_error: paired, but there are {len(u)} usual scores and {len(o)} odd ones.")
    return ((u + o).var(correction=1) / len(u)).sqrt().item()


def _placements(usual: Tensor, odd: Tensor) -> tuple[Tensor, Tensor]:
    """(N,) the share of odd scores above each usual one, and (M,) of usual scores below each odd one; a tie is ½."""
    if usual.ndim != 1 or odd.ndim != 1 or not len(usual) or not len(odd):
        raise ValueError(
            f"auroc takes two vectors of scores, but was given {tuple(usual.shape)}, {tuple(odd.shape)}."
        )
    scores = torch.cat([usual, odd]).double()
    if scores.isnan().any():
        raise ValueError(f"{int(scores.isnan().sum())} of {len(scores)} anomaly scores are NaN.")
    n, m = len(usual), len(odd)
    ranks = _ranks(scores)
    return 1 - (ranks[:n] - _ranks(scores[:n])) / m, (ranks[n:] - _ranks(scores[n:])) / n


def _ranks(scores: Tensor) -> Tensor:
    """From 1; equal scores share the middle of their ranks."""
    _, place, ties = scores.unique(return_inverse=True, return_counts=True)
    ties = ties.double()
    return (ties.cumsum(0) - (ties - 1) / 2)[place]


class AnomalyAUROC(Measure):
    """The area under the ROC curve of raw anomaly scores (`auroc`): only their order matters.

    Args:
        paired: the odd data are made from the usual ones, and each process adds them in the same order: it matters
            for the standard error alone.
        kwargs: torchmetrics' own.
    """

    higher_is_better = True
    plot_lower_bound, plot_upper_bound = 0.0, 1.0

    def __init__(self, *, paired: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.paired = paired
        for name in ("usual", "odd"):
            self.add_state(name, [], dist_reduce_fx="cat")

    def update(self, scores: Tensor, odd: bool | Tensor) -> None:
        """Adds a batch.

        Args:
            scores: (B,), higher = odder.
            odd: whether all of them are odd; or (B,), which ones (True or 1).
        """
        scores = double(scores.detach())
        which = torch.as_tensor(odd, device=scores.device).bool().expand_as(scores)
        self.usual.append(scores[~which])  # type: ignore[operator, union-attr]
        self.odd.append(scores[which])  # type: ignore[operator, union-attr]

    def compute(self) -> Tensor:
        """The area, float64.

        Raises:
            ValueError: if there are no usual or no odd data, or a score is NaN.
        """
        usual = self.state("usual")
        return torch.tensor(auroc(usual, self.state("odd")), dtype=torch.float64, device=usual.device)

    def standard_error(self) -> float:
        """Its standard deviation under new draws of the data (`auroc_error`). Collective."""
        with self.synced():
            return auroc_error(self.state("usual"), self.state("odd"), paired=self.paired)


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

    Of data of more than 4,096 dimensions, whose covariance would be large, the components are found by subspace
    iteration from the data themselves (Halko, Martinsson & Tropp 2011, algorithm 4.4), always with the same draws.

    Args:
        batches: (B, *shape) each, the training data.
        num_components: at most; no more than a quarter of the dimensions are kept.

    Raises:
        ValueError: if there are fewer than two data.
    """

    def __init__(self, batches: Iterable[Tensor], num_components: int = 32) -> None:
        statistics: FeatureStatistics | None = None
        rows: list[Tensor] = []
        for x in batches:
            if x[0].numel() > MOST_DIMENSIONS:
                rows.append(x.flatten(1).float())
            else:
                statistics = statistics or FeatureStatistics.empty(x[0].numel(), x.device)
                statistics.update(x.flatten(1))
        if rows:
            data = torch.cat(rows)
            rows.clear()  # they are large
            if len(data) < 2:
                raise ValueError("Principal components take at least 2 data, but there is 1.")
            self.mean = data.to(float64_device(data.device)).mean(0, dtype=torch.float64)
            self.num_components = min(num_components, len(data) - 1)
            self.components = leading(data.sub_(self.mean.to(data)), self.num_components).to(self.mean)
        elif statistics is not None:
            self.mean = statistics.mean
            self.num_components = min(num_components, len(self.mean) // 4, statistics.count - 1)
            _, vectors = torch.linalg.eigh(statistics.covariance)  # ascending
            self.components = vectors[:, len(self.mean) - self.num_components :]
        else:
            raise ValueError("There are no training data to take principal components of.")

    def score(self, x: Tensor) -> Tensor:
        """(B,), the squared distance of x, (B, *shape), from the plane of the components."""
        centred = x.flatten(1).to(self.mean) - self.mean
        return (centred - centred @ self.components @ self.components.T).square().sum(1)


def leading(data: Tensor, number: int, *, iterations: int = 8) -> Tensor:
    """About the first principal directions of centred data (N, D), by subspace iteration: (D, number)."""
    more = min(number + 16, *data.shape)  # a few directions more than are wanted make the wanted ones exact sooner
    start = torch.randn(data.shape[1], more, generator=torch.Generator().manual_seed(0)).to(data)
    basis = torch.linalg.qr(start).Q
    for _ in range(iterations):
        basis = torch.linalg.qr(data.T @ (data @ basis)).Q
    return basis @ torch.linalg.svd(data @ basis, full_matrices=False).Vh[:number].T


#: of a datum, up to which the covariance is held whole
MOST_DIMENSIONS = 4096
