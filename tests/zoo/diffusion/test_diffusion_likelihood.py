"""Likelihoods of normal distributions and mixtures by the reverse chain."""

import math

import pytest
import torch
from analytic import GaussianMixture

from genzoo.zoo import (
    DDPM,
    CosineBetas,
    LikelihoodWeighting,
    LinearBetas,
    OptimalTransport,
    PerDatum,
    VarianceExploding,
    VariancePreserving,
)
from genzoo.zoo.diffusion.likelihood import ReverseChain, corrupt
from genzoo.zoo.diffusion.schedules import Noise, Schedule

SCHEDULES = [LinearBetas(), CosineBetas(), VariancePreserving(), VarianceExploding(), OptimalTransport()]
NATS = 0.5 * math.log(2 * math.pi * math.e)  # the entropy of N(0, 1): 1.4189385


def expected_bound(schedule, variance, std=1.0, times=None):
    """−E ELBO over N(0, std²) with the best denoiser, every term in closed form; and its three parts."""
    chain = ReverseChain(schedule, schedule.times(1000) if times is None else times, variance)
    noise = schedule(chain.times)
    left = std**2 * noise.sigma**2 / (noise.alpha**2 * std**2 + noise.sigma**2)  # E (x₀ − x̂₀)²
    prior = chain.prior(torch.full((1, 1), std, dtype=torch.float64))  # quadratic in x₀
    divergences = chain.error_weight * left[:-2] + chain.excess
    decoder = math.log(float(chain.last_std) * math.sqrt(2 * math.pi)) + float(left[-2]) / (
        2 * float(chain.last_std) ** 2
    )
    return float(prior), float(divergences.sum()), decoder


def test_the_bound_of_a_normal_distribution_telescopes_to_its_entropy():
    """½ ln(2πe) for every schedule, with the variance that is right for N(0, I)."""
    parts = expected_bound(LinearBetas(), "large")
    assert parts == pytest.approx((2.01796e-5, 4.6051500, -3.1862316), abs=1e-6)
    for schedule in SCHEDULES:
        prior, divergences, decoder = expected_bound(schedule, "large")
        assert prior + divergences + decoder == pytest.approx(NATS, abs=1e-9), schedule


@pytest.mark.parametrize("prediction", ["epsilon", "score"])
def test_a_chain_begins_where_a_prediction_of_noise_says_something(prediction):
    """Not at α = 0, of which a single look would make the bound of all data infinite."""
    schedule = OptimalTransport()
    model = DDPM((2,), None, schedule=schedule, prediction=prediction, spacing="karras", width=8, blocks=1).eval()
    times = model.chain_times()
    assert 0 < float(schedule(times[0]).alpha) < 0.02 and len(times) > 980 and float(times[-1]) == 0
    assert sum(expected_bound(schedule, "large", times=times)) == pytest.approx(NATS, abs=1e-9)
    generator = torch.Generator().manual_seed(0)
    assert bool(model.log_prob(torch.randn(4, 2), num_particles=3000, generator=generator).isfinite().all())
    given = DDPM((2,), None, schedule=schedule, prediction="x0", width=8, blocks=1)
    assert len(given.chain_times()) == given.chain_steps + 1


def test_a_chain_of_one_step_has_no_bound():
    schedule = LinearBetas(1, 5e-4, 5e-4)
    with pytest.raises(ValueError, match=r"LinearBetas\(steps=1, .*\) leaves 1: give it more steps"):
        ReverseChain(schedule, schedule.times(1), "small")


def test_the_smaller_variance_pays_for_it():
    assert sum(expected_bound(LinearBetas(), "small")) / math.log(2) == pytest.approx(2.881831, abs=1e-6)
    assert sum(expected_bound(CosineBetas(), "small")) / math.log(2) == pytest.approx(2.818155, abs=1e-6)


def test_with_the_posteriors_variance_the_weights_are_differences_of_snr():
    schedule = CosineBetas()
    chain = ReverseChain(schedule, schedule.times(1000), "small")
    snr = schedule(chain.times[:-1]).snr
    torch.testing.assert_close(chain.error_weight, (snr[1:] - snr[:-1]) / 2)
    torch.testing.assert_close(chain.excess, torch.zeros_like(chain.excess))


def test_divergences_are_those_of_normal_distributions():
    """Against torch.distributions, with a wrong estimate of x₀."""
    from torch.distributions import Normal, kl_divergence

    torch.manual_seed(0)
    schedule, x0, x0_hat = LinearBetas(), torch.randn(3, 4).double(), torch.randn(3, 4).double()
    chain = ReverseChain(schedule, schedule.times(1000), "large")
    k = torch.tensor([0, 500, 998])
    t, s = schedule(chain.times[k]).like(x0), schedule(chain.times[k + 1]).like(x0)
    x_t = t.alpha * x0 + t.sigma * torch.randn(3, 4).double()
    ratio = t.alpha / s.alpha
    var = t.sigma**2 - ratio**2 * s.sigma**2
    beta = 1 - ratio**2

    def posterior(x0, std):
        mean = s.alpha * var / t.sigma**2 * x0 + ratio * s.sigma**2 / t.sigma**2 * x_t
        return Normal(mean, std.expand(mean.shape))

    exact = kl_divergence(posterior(x0, s.sigma * (var / t.sigma**2).sqrt()), posterior(x0_hat, beta.sqrt())).sum(1)
    torch.testing.assert_close(chain.divergence(k, x0, x0_hat), exact, rtol=1e-6, atol=0)
    prior = kl_divergence(Normal(schedule(chain.times[:1]).alpha * x0, schedule(chain.times[:1]).sigma), Normal(0, 1))
    torch.testing.assert_close(chain.prior(x0), prior.sum(1), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("num_particles", [1, 4])
def test_a_few_divergences_estimate_all_without_bias(num_particles):
    schedule = CosineBetas()
    chain, denoiser = ReverseChain(schedule, schedule.times(1000), "large"), GaussianMixture(schedule, std=0.5)
    x0 = torch.randn(20_000, 1, generator=torch.Generator().manual_seed(0)).double() / 2
    estimate = chain.divergences(denoiser, x0, num_particles, torch.Generator().manual_seed(1))
    expected = expected_bound(schedule, "large", 0.5)[1]
    error = float(estimate.std()) / math.sqrt(len(x0))
    assert error < 0.07
    assert float(estimate.mean()) == pytest.approx(expected, abs=4 * error)
    few = x0[:4]
    per_datum = chain.divergences(denoiser, few, num_particles, PerDatum(few))
    backwards = chain.divergences(denoiser, few.flip(0), num_particles, PerDatum(few.flip(0)))
    torch.testing.assert_close(per_datum, backwards.flip(0))


class LogLinear(Schedule):
    """ln SNR falls linearly from 13.3 to −5: the schedule of Kingma et al. 2021."""

    def __call__(self, t):
        gamma = -13.3 + 18.3 * t
        alpha, sigma = (-gamma).sigmoid().sqrt(), gamma.sigmoid().sqrt()
        return Noise(alpha, sigma, -alpha * sigma**2 * 18.3 / 2, sigma * alpha**2 * 18.3 / 2)

    def time(self, log_snr):
        return (13.3 - log_snr) / 18.3


def test_the_weighted_loss_in_continuous_time_is_the_bounds_diffusion_term():
    """½ [softplus(13.3) − softplus(−5)] = 6.6466432 nats for N(0, 1); more with 1000 steps, and more with 100."""
    schedule = LogLinear()
    t = (torch.arange(100_000).double() + 0.5) / 100_000
    noise = schedule(t)
    loss = LikelihoodWeighting()(noise, "epsilon") * noise.sigma**2  # E (x₀ − x̂₀)² = σ²
    assert float(loss.mean()) == pytest.approx(6.6466432, abs=1e-6)
    for steps, expected in ((100, 7.2437929), (1000, 6.7032463)):
        noise = schedule(torch.linspace(1, 0, steps + 1).double())
        assert float((noise.snr.diff() / 2 * noise.sigma[:-1] ** 2).sum()) == pytest.approx(expected, abs=1e-6)


def test_corruption_has_the_mean_and_variance_it_states():
    schedule, t = CosineBetas(), torch.full((50_000,), 0.4, dtype=torch.float64)
    x_t = corrupt(schedule(t), torch.full((50_000, 1), 2.0), torch.randn(50_000, 1))
    assert float(x_t.mean()) == pytest.approx(2 * float(schedule(t[:1]).alpha), abs=0.02)
    assert float(x_t.var()) == pytest.approx(float(schedule(t[:1]).sigma ** 2), abs=0.02)
