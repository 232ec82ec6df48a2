"""Each loss against the discriminator that is best for known p and q, found by minimising over all functions."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from genzoo.zoo import Hinge, LeastSquares, NonSaturating, Relativistic, Wasserstein
from genzoo.zoo.gan.losses import AdversarialLoss

P = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)
Q = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
LOSSES = [NonSaturating(), Hinge(), LeastSquares(), Wasserstein(), Relativistic()]


def expected(loss: AdversarialLoss, d: Tensor, p: Tensor, q: Tensor) -> Tensor:
    """The discriminator's mean loss over independent x ~ p and G(z) ~ q, exactly, for a table d of its values."""
    real, fake = torch.meshgrid(d, d, indexing="ij")
    return (p[:, None] * q[None] * loss.discriminator(real.flatten(), fake.flatten()).view(len(p), len(q))).sum()


def best(loss: AdversarialLoss, p: Tensor, q: Tensor) -> tuple[Tensor, float]:
    """The minimising table and the minimum."""
    torch.manual_seed(0)
    d = (0.1 * torch.randn(len(p), dtype=torch.float64)).requires_grad_()
    optimizer = torch.optim.LBFGS([d], max_iter=500, tolerance_grad=1e-12, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = expected(loss, d, p, q)
        value.backward()
        return value

    optimizer.step(closure)
    return d.detach(), float(expected(loss, d, p, q).detach())


def test_non_saturating_optimum_is_the_log_ratio_and_the_jensen_shannon_divergence() -> None:
    d, value = best(NonSaturating(), P, Q)
    torch.testing.assert_close(d, (P / Q).log(), atol=1e-4, rtol=0)
    m = (P + Q) / 2
    divergence = 0.5 * (P * (P / m).log()).sum() + 0.5 * (Q * (Q / m).log()).sum()
    assert value == pytest.approx(2 * math.log(2) - 2 * float(divergence), abs=1e-9)


def test_least_squares_optimum_is_the_share_of_the_real() -> None:
    d, value = best(LeastSquares(), P, Q)
    torch.testing.assert_close(d, P / (P + Q), atol=1e-6, rtol=0)
    assert value == pytest.approx(0.5 * float((P * Q / (P + Q)).sum()), abs=1e-10)


def test_hinge_optimum_is_the_sign_and_the_total_variation() -> None:
    sign = (P - Q).sign()
    value = float(expected(Hinge(), sign, P, Q))
    assert value == pytest.approx(2 - float((P - Q).abs().sum()), abs=1e-12)  # 2 − 2 TV
    for seed in range(200):
        other = 2 * torch.randn(4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        assert float(expected(Hinge(), other, P, Q)) >= value - 1e-12


def test_wasserstein_minimum_over_lipschitz_functions_is_the_distance() -> None:
    """On points of a line at distance 1, W₁ = Σ |F_p − F_q|, reached by slopes of ±1."""
    cumulated = (P - Q).cumsum(0)[:-1]
    slopes = -cumulated.sign()
    critic = torch.cat([torch.zeros(1, dtype=torch.float64), slopes.cumsum(0)])
    value = float(expected(Wasserstein(), critic, P, Q))
    assert value == pytest.approx(-float(cumulated.abs().sum()), abs=1e-12)
    for seed in range(200):
        other = 2 * torch.rand(3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) - 1
        lipschitz = torch.cat([torch.zeros(1, dtype=torch.float64), other.cumsum(0)])
        assert float(expected(Wasserstein(), lipschitz, P, Q)) >= value


def test_relativistic_cannot_tell_equal_distributions_and_sees_only_differences() -> None:
    d, value = best(Relativistic(), P, P)
    assert value == pytest.approx(math.log(2), abs=1e-9)
    torch.testing.assert_close(d, d.mean().expand(4), atol=1e-5, rtol=0)
    d, value = best(Relativistic(), P, Q)
    assert value < math.log(2) - 0.05
    assert bool((d.diff() < 0).all())  # p/q falls from the first to the last
    assert float(expected(Relativistic(), d + 3.7, P, Q)) == pytest.approx(value, abs=1e-9)


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
def test_gradients_push_the_two_in_opposite_directions(loss: AdversarialLoss) -> None:
    """Where no loss has reached its aim: D raises the real and lowers the generated, G raises its own."""
    real, fake = (torch.linspace(0.1, 0.9, 7).requires_grad_() for _ in range(2))
    loss.discriminator(real, fake).sum().backward()
    assert real.grad is not None and fake.grad is not None
    assert bool((real.grad < 0).all()) and bool((fake.grad > 0).all())
    fake.grad = None
    loss.generator(fake, real.detach()).sum().backward()
    assert bool((fake.grad < 0).all())
    assert loss.discriminator(real, fake).shape == (7,)


GENERATORS: dict[type[AdversarialLoss], Callable[[float, float], float]] = {
    NonSaturating: lambda fake, real: math.log(1 + math.exp(-fake)),
    Hinge: lambda fake, real: -fake,
    LeastSquares: lambda fake, real: 0.5 * (fake - 1) ** 2,
    Wasserstein: lambda fake, real: -fake,
    Relativistic: lambda fake, real: math.log(1 + math.exp(real - fake)),
}


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
def test_what_the_generator_minimises(loss: AdversarialLoss) -> None:
    fake, real = torch.linspace(-3, 3, 7).double(), torch.tensor([2.0, -1, 0, 0.5, 3, -2, 1]).double()
    by_hand = [GENERATORS[type(loss)](f, r) for f, r in zip(fake.tolist(), real.tolist(), strict=True)]
    torch.testing.assert_close(loss.generator(fake, real), torch.tensor(by_hand).double())


def test_the_non_saturating_generator_learns_most_where_it_is_caught() -> None:
    fake = torch.tensor([-20.0, 0.0], requires_grad=True)
    NonSaturating().generator(fake).sum().backward()
    torch.testing.assert_close(fake.grad, torch.tensor([-1.0, -0.5]), atol=1e-6, rtol=0)
