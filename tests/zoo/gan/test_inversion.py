"""Inversion against a linear generator, where the most probable latent is a ridge regression."""

import math

import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from genzoo.zoo import GAN
from genzoo.zoo.interface import Completes, HasLatents, HasLogProb, Interpolates, Inverts, Samples, ScoresAnomalies
from genzoo.zoo.mixins import great_circle

DIMS, LATENT = 7, 3


@pytest.fixture(scope="module")
def linear() -> GAN:
    """G(z) = W z + b."""
    torch.manual_seed(0)
    generator = nn.Linear(LATENT, DIMS)
    nn.init.orthogonal_(generator.weight)
    model = GAN((DIMS,), None, latent_dim=LATENT, generator=generator, width=8).eval()
    model.inversion_steps = 400  # enough to reach the optimum to the digits asked for below
    return model


def exact(model: GAN, x: Tensor, known: Tensor) -> Tensor:
    """argmin ‖(x − W z − b)_known‖² / 2σ² + ‖z‖² / 2, row by row."""
    weight, bias = model.generator.weight.detach().double(), model.generator.bias.detach().double()
    rows = []
    for row, mask in zip(x.double(), known.expand(x.shape), strict=True):
        w = weight[mask] / model.inversion_noise
        precision = w.T @ w + torch.eye(LATENT).double()
        rows.append(torch.linalg.solve(precision, w.T @ (row - bias)[mask] / model.inversion_noise))
    return torch.stack(rows).to(x.dtype)


def test_it_finds_the_most_probable_latent(linear: GAN) -> None:
    x = torch.randn(5, DIMS, generator=torch.Generator().manual_seed(1))
    everything = torch.ones(DIMS, dtype=torch.bool)
    torch.testing.assert_close(linear.invert(x), exact(linear, x, everything), atol=5e-3, rtol=0)
    projected = x - linear.render(exact(linear, x, everything))
    torch.testing.assert_close(linear.anomaly_score(x), projected.square().sum(1).detach(), atol=5e-3, rtol=1e-2)


def test_samples_are_what_the_generator_makes_of_a_standard_normal_distribution(linear: GAN) -> None:
    """N(b, W Wᵀ)."""
    x = linear.sample(40_000, generator=torch.Generator().manual_seed(0))
    weight, bias = linear.generator.weight.detach(), linear.generator.bias.detach()
    torch.testing.assert_close(x.mean(0), bias, atol=0.025, rtol=0)
    torch.testing.assert_close(x.T.cov(), weight @ weight.T, atol=0.035, rtol=0)
    z = linear.draw_latents(40_000, generator=torch.Generator().manual_seed(1)).double()
    for column in z.T:  # Kolmogorov's distance, of which 1.95 / √N is exceeded once in a thousand
        assert float(stats.kstest(column.numpy(), "norm").statistic) < 1.95 / math.sqrt(40_000)


def test_the_middle_of_an_interpolation_is_made_from_the_middle_of_the_arc(linear: GAN) -> None:
    a, b = torch.randn(2, 4, DIMS, generator=torch.Generator().manual_seed(4))
    everything = torch.ones(DIMS, dtype=torch.bool)
    middle = great_circle(exact(linear, a, everything), exact(linear, b, everything), 0.5)
    torch.testing.assert_close(linear.interpolate(a, b, 3)[1], linear.render(middle).detach(), atol=0.01, rtol=0)


def test_completions_are_what_the_known_part_asks_for(linear: GAN) -> None:
    x = torch.randn(4, DIMS, generator=torch.Generator().manual_seed(2))
    known = torch.tensor([1, 1, 1, 1, 1, 0, 0]).bool()
    out = linear.complete(x, known, num_samples=2, generator=torch.Generator().manual_seed(0))
    expected = linear.render(exact(linear, x, known)).detach()
    for completion in out:  # one optimum, whatever the start
        torch.testing.assert_close(completion[:, 5:], expected[:, 5:], atol=0.01, rtol=0)
    other = torch.where(known, x, -x)  # what is unknown is not read
    assert torch.equal(out, linear.complete(other, known, num_samples=2, generator=torch.Generator().manual_seed(0)))


def test_starts_differ_from_completion_to_completion() -> None:
    torch.manual_seed(0)
    model = GAN((1, 8, 8), 17, network="mlp", width=32).eval()
    x = torch.randint(17, (2, 1, 8, 8)) / 16
    known = torch.zeros(8, 8, dtype=torch.bool)
    known[:2] = True
    a, b = model.complete(x, known, num_samples=2, generator=torch.Generator().manual_seed(0))
    assert not torch.equal(a, b)


def test_completions_given_the_class_stay_within_it() -> None:
    """G(z, y) = W z + V y: of a class, what is unknown has one optimum, by which another class has another."""
    torch.manual_seed(0)
    generator = nn.Linear(LATENT + 3, DIMS)
    model = GAN(
        (DIMS,), None, latent_dim=LATENT, generator=generator, width=8, num_classes=3, conditional=True
    ).eval()
    model.inversion_steps = 400
    weight, of_class = generator.weight.detach().split([LATENT, 3], 1)
    x, labels = torch.randn(4, DIMS, generator=torch.Generator().manual_seed(2)), torch.tensor([2, 0, 2, 1])
    known = torch.tensor([1, 1, 1, 1, 1, 0, 0]).bool()
    out = model.complete(x, known, num_samples=2, labels=labels, generator=torch.Generator().manual_seed(0))
    for row, label in enumerate(labels.tolist()):
        alike = GAN((DIMS,), None, latent_dim=LATENT, generator=nn.Linear(LATENT, DIMS), width=8)
        with torch.no_grad():
            alike.generator.weight.copy_(weight)
            alike.generator.bias.copy_(generator.bias + of_class[:, label])
        expected = alike.render(exact(alike, x[row : row + 1], known)).detach()[0]
        for completion in out[:, row]:
            torch.testing.assert_close(completion[5:], expected[5:], atol=0.01, rtol=0)
    nothing = torch.zeros(DIMS, dtype=torch.bool)
    drawn = model.complete(x[:1], nothing, num_samples=2000, labels=labels[:1])[:, 0]
    centre = (generator.bias + of_class[:, 2]).detach()
    torch.testing.assert_close(drawn.mean(0), centre, atol=0.1, rtol=0)


def test_a_datum_of_which_nothing_is_known_is_a_sample(linear: GAN) -> None:
    """Not the one mode that the prior has: completions scatter as samples do, and other data are left in peace."""
    x = torch.randn(2, DIMS, generator=torch.Generator().manual_seed(2))
    known = torch.zeros(2, DIMS, dtype=torch.bool)
    known[1, :4] = True
    out = linear.complete(x, known, num_samples=300, generator=torch.Generator().manual_seed(0))
    samples = linear.sample(4000, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(out[:, 0].var(0), samples.var(0), atol=0.05, rtol=0.4)
    expected = linear.render(exact(linear, x[1:], known[1])).detach()
    torch.testing.assert_close(out[:, 1, 4:], expected[:, 4:].expand(300, -1), atol=0.02, rtol=0)


def test_a_datum_s_latent_does_not_depend_on_the_others(linear: GAN) -> None:
    x = torch.randn(6, DIMS, generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():  # as the Trainer measures
        together, alone = linear.invert(x.clone()), linear.invert(x[2:3].clone())
    torch.testing.assert_close(together[2:3], alone, atol=1e-5, rtol=1e-5)
    assert all(p.grad is None for p in linear.parameters())


def test_a_generated_datum_is_found_again_and_noise_is_not() -> None:
    torch.manual_seed(0)
    model = GAN((1, 8, 8), 256, latent_dim=2, network="mlp", width=32).eval()
    with torch.no_grad():
        model.generator.outlet.weight.mul_(4)  # an untrained generator hardly varies
    x = model.sample(4, generator=torch.Generator().manual_seed(5))
    noise = torch.randint(256, (4, 1, 8, 8)) / 255
    assert float(model.anomaly_score(x).max()) < 0.05 < 1 < float(model.anomaly_score(noise).min())


def test_the_class_is_found_too() -> None:
    """Each class of this generator has a brightness of its own, so a datum betrays its class."""
    torch.manual_seed(0)
    generator = nn.Linear(2 + 3, 4)
    with torch.no_grad():
        generator.weight[:, 2:] = torch.tensor([-5.0, 0.0, 5.0])
    model = GAN((4,), None, latent_dim=2, generator=generator, width=8, num_classes=3, conditional=True).eval()
    labels = torch.tensor([2, 0, 1, 2])
    x = model.sample(4, labels=labels, generator=torch.Generator().manual_seed(0))
    assert torch.equal(model.invert(x)[:, 2:].argmax(1), labels)
    assert model.anomaly_score(x, scorer="discriminator").shape == (4,)


def test_great_circles_turn_evenly() -> None:
    a, b = torch.tensor([[3.0, 0.0, 0.0]]), torch.tensor([[0.0, 5.0, 0.0]])
    third = great_circle(a, b, 1 / 3)
    angle, length = math.pi / 6, 3 + 2 / 3
    torch.testing.assert_close(third, length * torch.tensor([[math.cos(angle), math.sin(angle), 0.0]]))
    torch.testing.assert_close(great_circle(a, b, 0.0), a)
    torch.testing.assert_close(great_circle(a, b, 1.0), b)
    torch.testing.assert_close(great_circle(a, 2 * a, 0.25), 1.25 * a)
    zero = torch.zeros(1, 3)
    assert bool(torch.isfinite(great_circle(zero, a, 0.5)).all())


def test_it_has_the_capabilities_it_says_and_no_likelihood(linear: GAN) -> None:
    assert all(isinstance(linear, c) for c in (Samples, Completes, ScoresAnomalies, Inverts, Interpolates))
    assert not isinstance(linear, HasLogProb) and not isinstance(linear, HasLatents)
    with pytest.raises(ValueError, match="knows 'reconstruction'"):
        linear.anomaly_score(torch.zeros(1, DIMS), scorer="magic")
    with pytest.raises(ValueError, match="steps=1"):
        linear.interpolate(torch.zeros(1, DIMS), torch.zeros(1, DIMS), 1)


def test_classes_that_were_never_seen_judge_nothing():
    """Their outputs are what the first weights made of a network that learned."""
    torch.manual_seed(0)
    model = GAN((1, 8, 8), 17, network="mlp", width=8, num_classes=4, conditional=True)
    model.count_classes(torch.tensor([0, 1, 1]))
    x = torch.rand(3, 1, 8, 8).mul(16).round() / 16
    judged = model.discriminator(2 * x - 1)
    expected = -judged[:, :2].amax(1)
    with torch.no_grad():
        *_, last = (m for m in model.discriminator.modules() if isinstance(m, torch.nn.Linear))
        last.bias[2:] += 100
    torch.testing.assert_close(model.eval().anomaly_score(x, scorer="discriminator"), expected.detach())
