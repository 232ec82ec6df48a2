"""A ± is the standard deviation of the figure under new draws of everything that was drawn.

So each is held against the spread of its figure over fresh draws: within a factor of 1.5 over two hundred in the slow
test, and of 2 over twenty in the quick one, with less data. (The spread over twenty is itself known to a sixth.)
"""

import math
import statistics
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from genzoo.metrics import figures
from genzoo.metrics.anomalies import auroc, auroc_error
from genzoo.metrics.base import in_order
from genzoo.metrics.frechet import FeatureStatistics, frechet_distance, frechet_error, frechet_floor_error
from genzoo.metrics.kernel import kernel_distance
from genzoo.metrics.likelihood import BitsPerDim, NegativeLogLikelihood
from genzoo.metrics.manifold import manifold_errors, manifold_scores
from genzoo.metrics.modes import ModeCoverage

Drawn = dict[str, tuple[float, float]]  # by name: the figure, and the ± that is printed beside it
DIM = 8


def normal(g: torch.Generator, *size: int) -> Tensor:
    return torch.randn(*size, generator=g)


def distance(a: Tensor, b: Tensor) -> float:
    return frechet_distance(FeatureStatistics.of(a), FeatureStatistics.of(b))


def features(g: torch.Generator, n: int, shift: float, scale: float) -> Drawn:
    """Real data with heavier tails than the samples', and half as many of them."""
    real, fake = normal(g, n // 2, DIM), normal(g, n, DIM) * scale + shift
    real = real * (1 + 0.3 * real.abs())
    scores = manifold_scores(real, fake)
    errors = manifold_errors(real, fake, scores)
    return {
        "frechet": (distance(real, fake), frechet_error(real, fake)),
        "kid": kernel_distance(real, fake),
        **{name: (scores[name], errors[name]) for name in scores},
    }


def one_distribution(g: torch.Generator, n: int) -> Drawn:
    """What is of second order alone: a floor, and a perfect model's figures."""
    real, fake = normal(g, n // 2, DIM), normal(g, n, DIM)
    value = distance(real, fake)
    return {
        "floor": (value, frechet_floor_error(real, fake)),
        "frechet": (value, frechet_error(real, fake)),
        "kid": kernel_distance(real, fake),
    }


def anomalies(g: torch.Generator, n: int) -> Drawn:
    usual, odd = normal(g, n), normal(g, n // 2) + 1
    datum = normal(g, n)  # odd data made from the usual ones score alike
    alike = (datum + 0.3 * normal(g, n)).round(decimals=1), (datum + 0.3 * normal(g, n) + 0.5).round(decimals=1)
    return {
        "auroc": (auroc(usual, odd), auroc_error(usual, odd)),
        "auroc of pairs": (auroc(*alike), auroc_error(*alike, paired=True)),
    }


def likelihoods(g: torch.Generator, n: int) -> Drawn:
    dims = torch.randint(10, 60, (n,), generator=g)
    log_prob = -dims * (1 + 0.1 * normal(g, n)) - 5 * normal(g, n).square()
    nats, bits = NegativeLogLikelihood(), BitsPerDim()
    nats.update(log_prob)
    bits.update(log_prob, dims)
    return {
        "nll": (float(nats.compute()), nats.standard_error()),
        "bits_per_dim": (float(bits.compute()), bits.standard_error()),
    }


def modes(g: torch.Generator, n: int, shares: list[float]) -> Drawn:
    angle = torch.arange(len(shares)) * (2 * math.pi / len(shares))
    centres = 3 * torch.stack([angle.cos(), angle.sin()], 1)
    which = torch.multinomial(torch.tensor(shares, dtype=torch.float32), n, replacement=True, generator=g)
    coverage = ModeCoverage(centres, 0.1)
    coverage.update(centres[which] + 0.13 * normal(g, n, 2))
    found, errors = coverage.compute(), coverage.standard_error()
    assert set(errors) == {"high_quality", "mode_kl"}  # a count has none
    return {name: (float(found[name]), errors[name]) for name in errors}


class Guess(nn.Module):
    device, dtype = torch.device("cpu"), torch.float32

    def forward(self, x: Tensor) -> Tensor:
        return x


def accuracies(g: torch.Generator, n: int) -> Drawn:
    class Data:
        trainer = None

        def setup(self, stage: str) -> None: ...

        def test_dataloader(self) -> Any:
            return zip(normal(g, n, 3).split(32), torch.randint(3, (n,), generator=g).split(32), strict=True)

    (figure,) = figures.accuracy(Guess(), Data(), "test", lambda items, what: items)  # type: ignore[arg-type]
    return {"accuracy": (figure["value"], figure["standard_error"])}


SITUATIONS: dict[str, Callable[[torch.Generator, int], Drawn]] = {
    "samples a little off": lambda g, n: features(g, n, 0.2, 1.1),
    "samples far off": lambda g, n: features(g, n, 0.8, 0.8),
    "one distribution": one_distribution,
    "anomalies": anomalies,
    "likelihoods": likelihoods,
    "equal modes": lambda g, n: modes(g, n, [1, 1, 1, 1, 1]),
    "unequal modes": lambda g, n: modes(g, n, [6, 3, 2, 1, 0]),
    "accuracies": accuracies,
}


def ratios(situation: str, n: int, num_draws: int = 20) -> dict[str, float]:
    g = torch.Generator().manual_seed(0)
    draws = [SITUATIONS[situation](g, n) for _ in range(num_draws)]
    found = {}
    for name in draws[0]:
        values, errors = (torch.tensor([draw[name][i] for draw in draws], dtype=torch.float64) for i in range(2))
        found[name] = (errors.square().mean().sqrt() / values.std()).item()
    return found


@pytest.mark.parametrize("situation", SITUATIONS)
def test_the_error_is_of_the_size_of_the_spread_over_fresh_draws(situation: str) -> None:
    for name, ratio in ratios(situation, 240).items():
        assert 1 / 2 < ratio < 2, name


@pytest.mark.slow
@pytest.mark.parametrize("situation", SITUATIONS)
def test_the_error_is_the_spread_over_fresh_draws(situation: str) -> None:
    for name, ratio in ratios(situation, 1200, 200).items():
        assert 1 / 1.5 < ratio < 1.5, name


def test_errors_of_shares_are_those_of_binomials() -> None:
    (share, error), _ = modes(torch.Generator().manual_seed(0), 200, [3, 1]).values()
    assert 0 < share < 1 and error == pytest.approx((share * (1 - share) / 200) ** 0.5)
    ((share, error),) = accuracies(torch.Generator().manual_seed(0), 200).values()
    assert 0 < share < 1 and error == pytest.approx((share * (1 - share) / 200) ** 0.5)


def test_the_error_of_a_divergence_is_that_of_a_mean_of_logarithms() -> None:
    """Var_p(log p) / N, less (K − 1) / 2N² of the second order that is in it."""
    coverage = ModeCoverage([[0.0], [10.0], [20.0]], 1.0)
    coverage.update(torch.tensor([0.0] * 60 + [10.0] * 30 + [20.0] * 10)[:, None])
    log = [math.log(0.6)] * 60 + [math.log(0.3)] * 30 + [math.log(0.1)] * 10
    mean = sum(log) / 100
    variance = sum((value - mean) ** 2 for value in log) / 100 / 100 - 2 / (2 * 100**2)
    assert coverage.standard_error()["mode_kl"] == pytest.approx(variance**0.5)


def test_errors_of_neighbourhoods_are_those_of_quarters() -> None:
    """One cut, whose quarters are scored by themselves; a share's error is no less than its binomial one."""
    g = torch.Generator().manual_seed(0)
    real, fake = normal(g, 60, 3), normal(g, 80, 3) + 0.5
    scores = manifold_scores(real, fake, k=2)
    found = manifold_errors(real, fake, scores, k=2, repeats=1, seed=3)
    cuts = torch.Generator().manual_seed(3)
    quarters = [
        [x[order] for order in torch.randperm(len(x), generator=cuts).tensor_split(4)]
        for x in map(in_order, (real, fake))
    ]
    apart = [manifold_scores(*both, k=2) for both in zip(*quarters, strict=True)]
    for name, p in scores.items():
        values = [score[name] for score in apart]
        if name == "density":
            expected = statistics.stdev(values) / 2
        else:
            spread = statistics.stdev(math.asin(v**0.5) for v in values) / 2
            expected = max(2 * spread, (80 if name == "precision" else 60) ** -0.5) * (p * (1 - p)) ** 0.5
        assert found[name] == pytest.approx(expected, rel=1e-6), name


def test_samples_that_are_all_the_same_have_errors_too() -> None:
    """Of a collapsed model: the spread of the real data alone."""
    g = torch.Generator().manual_seed(3)
    real, fake = normal(g, 200, DIM), torch.ones(200, DIM)
    collapsed = (real - fake[0]).square().sum(1)  # d² is its mean, but for the bias of the covariance
    expected = (collapsed.var() / 200).sqrt().item()
    assert frechet_error(real, fake) == pytest.approx(expected, rel=0.05)
    assert kernel_distance(real, fake)[1] > 0
    assert set(manifold_errors(real, fake, manifold_scores(real, fake))) == {
        *("precision", "recall", "density", "coverage")
    }
