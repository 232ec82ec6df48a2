"""Precision, recall, density and coverage against what is known of them."""

import numpy as np
import pytest
import torch
from torch import Tensor

from genzoo.metrics.manifold import manifold_errors, manifold_scores


def normal(n: int, d: int, seed: int, shift: float = 0.0, scale: float = 1.0) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed)) * scale + shift


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
        manifold_scores(normal(50, 3, 0), normal(50, 4, 0))


def test_against_the_formulas_of_prdc() -> None:
    """compute_prdc of the package `prdc` (Naeem et al. 2020), written out with NumPy."""
    real, fake, k = normal(150, 5, 12).double().numpy(), normal(120, 5, 13, 0.4).double().numpy(), 5

    def distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.sqrt(((a[:, None] - b[None]) ** 2).sum(-1))

    def radii(x: np.ndarray) -> np.ndarray:
        return np.partition(distances(x, x), k, axis=1)[:, k]  # each is its own nearest

    between = distances(real, fake)
    expected = {
        "precision": (between < radii(real)[:, None]).any(0).mean(),
        "recall": (between < radii(fake)[None]).any(1).mean(),
        "density": (between < radii(real)[:, None]).sum(0).mean() / k,
        "coverage": (between.min(1) < radii(real)).mean(),
    }
    assert manifold_scores(torch.tensor(real), torch.tensor(fake), k=k) == pytest.approx(expected, abs=1e-12)


def test_the_errors_do_not_depend_on_the_order_of_the_features() -> None:
    real, fake = normal(100, 3, 14), normal(90, 3, 15)
    scores = manifold_scores(real, fake)
    errors = manifold_errors(real, fake, scores)
    assert errors == pytest.approx(manifold_errors(real.flip(0), fake.roll(7, 0), scores), rel=1e-12)
    assert manifold_errors(real[:23], fake, scores) == {}  # a quarter of 5 has no fifth neighbour
