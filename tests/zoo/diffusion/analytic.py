"""Data of which the best denoiser is known: E[x₀ | x_t] in closed form."""

import math

import torch
from torch import Tensor

from genzoo.zoo.diffusion.flow import ProbabilityFlow
from genzoo.zoo.diffusion.schedules import RATIOS, Noise, Schedule


class GaussianMixture:
    """Σ_i w_i N(m_i, s²) in one dimension, its exact denoiser and its exact density."""

    def __init__(self, schedule: Schedule, means=(0.0,), weights=(1.0,), std: float = 1.0) -> None:
        self.schedule, self.std = schedule, std
        self.means = torch.tensor(means, dtype=torch.float64)
        self.log_weights = torch.tensor(weights, dtype=torch.float64).log()
        self.calls = 0

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        """D(x, t)."""
        self.calls += 1
        return self.denoise(x, self.schedule(t))

    def denoise(self, x: Tensor, noise: Noise) -> Tensor:
        """The posterior means of the components, weighed by their posterior probabilities."""
        noise = noise.like(x)
        variance = noise.alpha.square() * self.std**2 + noise.sigma.square()
        centred = x.unsqueeze(-1) - noise.alpha.unsqueeze(-1) * self.means
        chosen = (self.log_weights - centred.square() / (2 * variance.unsqueeze(-1))).softmax(-1)
        gain = (noise.alpha * self.std**2 / variance).unsqueeze(-1)
        return (chosen * (self.means + gain * centred)).sum(-1)

    def log_prob(self, x: Tensor) -> Tensor:
        """ln p(x), elementwise."""
        squares = (x.unsqueeze(-1) - self.means).square() / (2 * self.std**2)
        return (self.log_weights - squares).logsumexp(-1) - math.log(self.std * math.sqrt(2 * math.pi))


class CorrelatedGaussian:
    """N(0, C) in several dimensions and its exact denoiser."""

    def __init__(self, schedule: Schedule, covariance: Tensor) -> None:
        self.schedule, self.covariance = schedule, covariance

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        """D(x, t)."""
        return self.denoise(x, self.schedule(t))

    def denoise(self, x: Tensor, noise: Noise) -> Tensor:
        """α C (α² C + σ² I)⁻¹ x, for one noise level or as many as there are data."""
        alpha, sigma, *_ = (v.view(-1, 1, 1) for v in noise)
        identity = torch.eye(len(self.covariance), dtype=x.dtype)
        marginal = alpha.square() * self.covariance + sigma.square() * identity
        return (alpha * self.covariance @ torch.linalg.solve(marginal, x.unsqueeze(-1))).squeeze(-1)


def flow_of(data: GaussianMixture | CorrelatedGaussian, steps: int, ratios: tuple[float, float] = RATIOS):
    """The probability flow of data whose best denoiser is known, on the schedule of that denoiser."""

    def denoiser(w: Tensor, u: float) -> Tensor:
        noise = data.schedule.at(torch.tensor(-2 * u, dtype=torch.float64))
        return data.denoise(w * math.hypot(noise.alpha, noise.sigma), noise)

    return ProbabilityFlow(denoiser, ratios, steps)
