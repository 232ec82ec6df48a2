"""KID against closed forms, brute force, and two other implementations."""

import pytest
import torch
from torch import Tensor

from genzoo.metrics.kernel import kernel_distance


def normal(n: int, d: int, seed: int, shift: float = 0.0, scale: float = 1.0) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed)) * scale + shift


def test_between_shifted_gaussians() -> None:
    """3M/d + 3M²/d² + (M³ + 6M² + 3dM + 6M)/d³ for N(0, I_d) and N(m, I_d), M = ‖m‖²."""
    d, shift = 32, 1.0
    m = d * shift**2
    expected = 3 * m / d + 3 * m**2 / d**2 + (m**3 + 6 * m**2 + 3 * d * m + 6 * m) / d**3
    value, error = kernel_distance(normal(4000, d, 0), normal(4000, d, 1, shift))
    assert value == pytest.approx(expected, rel=0.02)
    assert abs(value - expected) < 3 * error < 0.3


def brute(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The three kernel matrices, those of a set with itself without their diagonals."""
    k = [(a @ b.T / x.shape[1] + 1) ** 3 for a, b in ((x, x), (y, y), (x, y))]
    return k[0] - k[0].diagonal().diag(), k[1] - k[1].diagonal().diag(), k[2]


def test_is_the_mean_over_all_pairs() -> None:
    x, y = normal(40, 5, 2).double(), normal(1100, 5, 3, 0.2).double()  # more rows than one chunk
    xx, yy, xy = brute(x, y)
    expected = xx.sum() / (40 * 39) + yy.sum() / (1100 * 1099) - 2 * xy.mean()
    assert kernel_distance(x, y)[0] == pytest.approx(expected.item(), rel=1e-11)


def test_is_what_the_mean_over_random_subsets_tends_to() -> None:
    x, y, g = normal(90, 4, 4).double(), normal(70, 4, 5, 0.3).double(), torch.Generator().manual_seed(0)
    parts = [
        kernel_distance(x[torch.randperm(90, generator=g)[:30]], y[torch.randperm(70, generator=g)[:30]])[0]
        for _ in range(2000)
    ]
    mean, error = torch.tensor(parts).mean().item(), torch.tensor(parts).std().item() / 2000**0.5
    assert kernel_distance(x, y)[0] == pytest.approx(mean, abs=4 * error)


def test_equals_torchmetrics_and_torch_fidelity_where_a_subset_is_the_whole_set() -> None:
    from torch_fidelity.metric_kid import kid_features_to_metric
    from torchmetrics.image.kid import KernelInceptionDistance

    class Given(torch.nn.Module):
        num_features = 8

        def forward(self, x: Tensor) -> Tensor:
            return x

    x, y = normal(200, 8, 6).double(), normal(200, 8, 7, 0.3).double()
    theirs = KernelInceptionDistance(feature=Given(), subsets=1, subset_size=200)
    theirs.update(x, real=True)
    theirs.update(y, real=False)
    value = kernel_distance(x, y)[0]
    assert value == pytest.approx(theirs.compute()[0].item(), rel=1e-5)
    fidelity = kid_features_to_metric(x, y, kid_subsets=1, kid_subset_size=200, verbose=False)
    assert value == pytest.approx(fidelity["kernel_inception_distance_mean"], rel=1e-6)


def test_is_unbiased_so_that_a_set_and_itself_come_out_negative() -> None:
    x = normal(300, 8, 2).double()
    xx, _, xy = brute(x, x)
    value, _ = kernel_distance(x, x)
    assert value < 0
    assert value == pytest.approx((2 * xx.sum() / (300 * 299) - 2 * xy.mean()).item(), rel=1e-9)


def test_the_error_is_that_of_the_formula_with_whole_matrices() -> None:
    x, y = normal(60, 5, 8).double(), normal(50, 5, 9, 0.3).double()
    n, m = 60, 50
    xx, yy, xy = brute(x, y)
    g, h = xx.sum(1) / (n - 1) - xy.mean(1), yy.sum(1) / (m - 1) - xy.mean(0)
    first = 4 * g.var() / n + 4 * h.var() / m

    def centred(k: Tensor, rows: Tensor, columns: Tensor, off: bool) -> Tensor:
        """Of all pairs, or of those off the diagonal: the mean square of what rows and columns do not explain."""
        mean = rows.mean()
        rest = (k - rows[:, None] - columns[None] + mean).square()
        return rest[~torch.eye(len(k), dtype=torch.bool)].mean() if off else rest.mean()

    rx, ry = xx.sum(1) / (n - 1), yy.sum(1) / (m - 1)
    second = 2 * centred(xx, rx, rx, True) / (n * (n - 1)) + 2 * centred(yy, ry, ry, True) / (m * (m - 1))
    second += 4 * centred(xy, xy.mean(1), xy.mean(0), False) / (n * m)
    assert kernel_distance(x, y)[1] == pytest.approx((first - second).sqrt().item(), rel=0.01)


def test_too_few_or_unlike_features_are_refused() -> None:
    with pytest.raises(ValueError, match="At least 2 features are needed on either side; there are 1 real"):
        kernel_distance(normal(1, 3, 0), normal(50, 3, 0))
    with pytest.raises(ValueError, match="matrices of one width"):
        kernel_distance(normal(50, 3, 0), normal(50, 4, 0))
