"""The linear-Gaussian model (probabilistic PCA), where every quantity of a VAE has a closed form."""

import torch
from torch import nn
from torch.distributions import MultivariateNormal

from genzoo.zoo import VAE, Gaussian

NOISE = 0.6  # σ of x = W z + b + σ ε
LATENT, DIMS = 3, 7


class LinearGaussian:
    """p(x) = N(b, W Wᵀ + σ² I); with orthogonal columns of W the exact posterior is diagonal."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        basis, _ = torch.linalg.qr(torch.randn(DIMS, LATENT, generator=generator, dtype=torch.float64))
        self.weight = basis * torch.tensor([1.5, 1.0, 0.5], dtype=torch.float64)
        self.bias = torch.randn(DIMS, generator=generator, dtype=torch.float64)
        covariance = self.weight @ self.weight.T + NOISE**2 * torch.eye(DIMS, dtype=torch.float64)
        self.marginal = MultivariateNormal(self.bias, covariance)
        self.precision = self.weight.T @ self.weight / NOISE**2 + torch.eye(LATENT, dtype=torch.float64)
        self.to_mean = torch.linalg.solve(self.precision, self.weight.T) / NOISE**2
        self.data = self.marginal.sample((64,))

    def vae(self, *, error: float = 0.0) -> VAE:
        """The VAE that is this model, with the exact posterior, or one whose mean is off and scale too large."""
        encoder = nn.Linear(DIMS, 2 * LATENT, dtype=torch.float64)
        decoder = nn.Linear(LATENT, DIMS, dtype=torch.float64)
        with torch.no_grad():
            encoder.weight.zero_()
            encoder.weight[:LATENT] = self.to_mean
            encoder.bias[:LATENT] = -self.to_mean @ self.bias + error
            encoder.bias[LATENT:] = -0.5 * self.precision.diagonal().log() + error
            decoder.weight.copy_(self.weight)
            decoder.bias.copy_(self.bias)
        likelihood = Gaussian(scale=NOISE)
        return VAE((DIMS,), None, latent_dim=LATENT, encoder=encoder, decoder=decoder, likelihood=likelihood)
