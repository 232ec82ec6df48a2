"""KID, precision, recall, density and coverage against what is known of them."""

import pytest
import torch
from torch import Tensor

from genzoo.metrics.manifold import kernel_distance, manifold_scores


def normal(n: int, d: int, seed: int, shift: float = 0.0, scale: float = 1.0) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed)) * scale + shift


def test_kernel_distance_between_shifted_gaussians() -> None:
    """3M/d + 3M²/d² + (M³ + 6M² + 3dM + 6M)/d³ for N(0, I_d) and N(m, I_d), M = ‖m‖²."""
    d, shift = 32, 1.0
    m = d * shift**2
    expected = 3 * m / d + 3 * m**2 / d**2 + (m**3 + 6 * m**2 + 3 * d * m + 6 * m) / d**3
    value, error = kernel_distance(normal(4000, d, 0), normal(4000, d, 1, shift), num_subsets=40)
    assert value == pytest.approx(expected, rel=0.02)
    assert 0 < error < 0.05


def test_kernel_distance_is_unbiased_so_that_a_set_and_itself_come_out_negative() -> None:
    x = normal(300, 8, 2)
    value, _ = kernel_distance(x, x, num_subsets=1, subset_size=300)
    k = (x.double() @ x.double().T / 8 + 1) ** 3
    off_diagonal = (k.sum() - k.diagonal().sum()) / (300 * 299)
    assert value < 0
    # every x is in both subsets here, though in another order, which the sums do not see
    assert value == pytest.approx((2 * off_diagonal - 2 * k.mean()).item(), rel=1e-9)


def test_kernel_distance_depends_on_the_seed_alone() -> None:
    x, y = normal(500, 8, 3), normal(400, 8, 4)
    torch.manual_seed(1)
    first = kernel_distance(x, y, num_subsets=5, subset_size=100)
    torch.manual_seed(2)
    assert kernel_distance(x, y, num_subsets=5, subset_size=100) == first
    assert kernel_distance(x, y, num_subsets=5, subset_size=100, seed=1) != first


def test_a_set_against_itself_scores_one_everywhere() -> None:
    scores = manifold_scores(x := normal(1500, 6, 5), x)  # more rows than one chunk
    assert scores == {"precision": 1.0, "recall": 1.0, "density": 1.0, "coverage": 1.0}


def test_two_samples_of_one_distribution() -> None:
    """E[coverage] = 1 − ∏ (N − i)/(2N − i), which tends to 1 − 2⁻ᵏ; E[density] = 1 (Naeem et al. 2020)."""
    scores = manifold_scores(normal(3000, 4, 6), normal(3000, 4, 7), k=5)
    assert scores["coverage"] == pytest.approx(1 - 2**-5, abs=0.012)
    assert scores["density"] == pytest.approx(1, abs=0.05)


def test_a_narrow_generator_is_precise_without_recall() -> None:
    scores = manifold_scores(normal(1000, 64, 8), normal(1000, 64, 9, scale=0.01))
    assert scores["precision"] == 1.0
    assert scores["recall"] < 0.01
    assert scores["density"] > 3


def test_constant_features_score_nothing() -> None:
    assert set(manifold_scores(torch.ones(20, 3), torch.ones(20, 3)).values()) == {0.0}


def test_a_brute_force_count_agrees() -> None:
    real, fake, k = normal(40, 3, 10).double(), normal(30, 3, 11, 0.7).double(), 5
    r = [sorted((a - b).norm().item() for b in real)[k] for a in real]
    f = [sorted((a - b).norm().item() for b in fake)[k] for a in fake]
    d = [[(a - b).norm().item() for b in fake] for a in real]
    expected = {
        "precision": sum(any(d[i][j] < r[i] for i in range(40)) for j in range(30)) / 30,
        "recall": sum(any(d[i][j] < f[j] for j in range(30)) for i in range(40)) / 40,
        "density": sum(d[i][j] < r[i] for i in range(40) for j in range(30)) / (5 * 30),
        "coverage": sum(any(d[i][j] < r[i] for j in range(30)) for i in range(40)) / 40,
    }
    assert manifold_scores(real, fake, k=k) == pytest.approx(expected, abs=1e-12)


def test_too_few_or_unlike_features_are_refused() -> None:
    with pytest.raises(ValueError, match="At least 6 features"):
        manifold_scores(normal(5, 3, 0), normal(50, 3, 0))
    with pytest.raises(ValueError, match="matrices of one width"):
        kernel_distance(normal(50, 3, 0), normal(50, 4, 0))
