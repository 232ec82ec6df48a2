"""The kernel distance (KID): the squared MMD between two sets of features, without a Gaussian in between."""

from typing import Any

import torch
from torch import Tensor

from genzoo.metrics.base import TwoSets, check_two_sets

CHUNK = 1024  # rows of a kernel matrix held at a time


def kernel_distance(real: Tensor, fake: Tensor) -> tuple[float, float]:
    """KID: the unbiased squared MMD under the kernel k(x, y) = (x·y / d + 1)³ (Bińkowski et al. 2018).

        mean_{i≠j} k(xᵢ, xⱼ) + mean_{i≠j} k(yᵢ, yⱼ) − 2 mean_{ij} k(xᵢ, yⱼ)

    over all pairs. The mean over random subsets, by which it is often taken, tends to this as they become many, and
    costs as much for 100 subsets of 1,000 as this does for 10,000 features. Unbiased, so it may come out negative
    where the two sets are alike; so does that of a set and itself.

    Its variance under new draws of both sets has two orders (Hoeffding 1948):

        4 Var g / N + 4 Var h / M  +  2 E k̃ₓₓ² / N(N−1) + 2 E k̃ᵧᵧ² / M(M−1) + 4 E k̃ₓᵧ² / NM,

    with g(x) = E k(x, x′) − E k(x, y), h(y) = E k(y, y′) − E k(x, y), and k̃ the kernel with the means of its rows and
    columns taken away. The spread of g and h as measured has the second order in it, twice.

    Args:
        real: (N, d).
        fake: (M, d).

    Returns:
        The distance, and its standard deviation under new draws of both sets.

    Raises:
        ValueError: of fewer than two features on either side, or if they are not finite, or so large that the
            distance is not.
    """
    check_two_sets(real, fake, 2)
    x, y = real.double(), fake.double()
    n, m = len(x), len(y)
    xx, _, xx_square = _sums(x, x, same=True)
    yy, _, yy_square = _sums(y, y, same=True)
    xy, yx, xy_square = _sums(x, y)
    value = xx.sum() / (n * (n - 1)) + yy.sum() / (m * (m - 1)) - 2 * xy.sum() / (n * m)

    both_orders = 4 * (xx / (n - 1) - xy / m).var() / n + 4 * (yy / (m - 1) - yx / n).var() / m
    second = (
        2 * _centred_square(xx / (n - 1), xx / (n - 1), xx_square / (n * (n - 1))) / (n * (n - 1))
        + 2 * _centred_square(yy / (m - 1), yy / (m - 1), yy_square / (m * (m - 1))) / (m * (m - 1))
        + 4 * _centred_square(xy / m, yx / n, xy_square / (n * m)) / (n * m)
    )
    variance = torch.maximum(both_orders - second, second).clamp_min(0)
    if not value.isfinite():
        raise ValueError(f"The kernel distance is {value.item()}: the features are too large for a cubic kernel.")
    return value.item(), variance.sqrt().item()


def _sums(a: Tensor, b: Tensor, *, same: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """Of the matrix k(aᵢ, bⱼ), without its diagonal if the sets are the same: sums of rows, columns, and squares."""
    rows, columns, squares = [], a.new_zeros(len(b)), a.new_zeros(())
    for start, part in zip(range(0, len(a), CHUNK), a.split(CHUNK), strict=True):
        kernel = (part @ b.T / a.shape[1] + 1) ** 3
        if same:
            kernel.diagonal(start).zero_()
        rows.append(kernel.sum(1))
        columns += kernel.sum(0)
        squares += kernel.square().sum()
    return torch.cat(rows), columns, squares


def _centred_square(rows: Tensor, columns: Tensor, square: Tensor) -> Tensor:
    """E k̃², from the means of the kernel's rows and columns and of its square."""
    return square - rows.square().mean() - columns.square().mean() + rows.mean().square()


class KernelDistance(TwoSets):
    """KID: the squared MMD between real features and samples' (`kernel_distance`), over all pairs of them.

    Args:
        extractor: data to features: what `FeatureExtractor` takes, or one; None: the metric is given features.
        kwargs: `reset_real_features`, see `TwoSets`; and torchmetrics' own.
    """

    higher_is_better = False

    def compute(self) -> Tensor:
        """The distance, float64.

        Raises:
            ValueError: of fewer than two real data or samples, or if their features differ in dimension.
        """
        real, fake = self.state(self.REAL), self.state(self.FAKE)
        value, self._error = kernel_distance(real, fake)
        return torch.tensor(value, dtype=torch.float64, device=real.device)

    def standard_error(self) -> float:
        """Of what `compute` gives: its standard deviation under new draws of real data and samples. Collective."""
        self.compute()
        return self._error

    _error: Any = None
