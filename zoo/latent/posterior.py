"""What a VAE's posteriors say when a whole dataset of them is looked at (Hoffman & Johnson 2016, "ELBO surgery").

The KL that every datum pays is spent on two things. With the aggregate posterior q(z) = (1/N) Σ_n q(z | x_n),

    (1/N) Σ_n KL(q(z | x_n) ‖ p(z)) = I_q(n; z) + KL(q(z) ‖ p(z)):

the information that the code holds on which datum it is, at most log N nats, and the distance of all codes together
from the prior, which is what samples suffer from.
"""

import math

import torch
from torch import Tensor

from genzoo.zoo.processes import gather, rank
from genzoo.zoo.randomness import normal

#: Var_x E[z_d | x] above which a latent variable is in use (Burda et al. 2016, section 5.2)
ACTIVE = 0.01
#: posteriors that are looked at, at most, spread over all: of N there are N² densities
MOST = 10_000
#: up to so many latents; of more, fewer posteriors, that it takes as long
LATENTS = 256


def most(latents: int) -> int:
    """How many posteriors of so many latents are looked at."""
    return int(MOST * min(1.0, LATENTS / latents) ** 0.5)


def thinned(posteriors: Tensor) -> Tensor:
    """This process's posteriors, (2, N, d), of which as many are left as are looked at of all processes'. Collective.

    They are spread over all data: the k-th of K is that of datum ⌊k N / K⌋.
    """
    counts = gather(posteriors.shape[1])
    total, before = sum(counts), sum(counts[: rank()])
    kept = min(total, most(posteriors.shape[2]))
    chosen = torch.arange(kept) * total // kept - before
    return posteriors[:, chosen[(chosen >= 0) & (chosen < posteriors.shape[1])]]


def posterior_figures(mean: Tensor, scale: Tensor, seed: int = 0) -> dict[str, Tensor]:
    """The figures of N posteriors N(μ_n, diag σ_n²) against the prior N(0, I).

    Args:
        mean: (N, d), all μ_n.
        scale: (N, d), all σ_n.
        seed: of the one draw from each posterior with which the logarithm of q(z) is averaged.

    Returns:
        "mutual_information" and "marginal_kl" in nats, which add up to the mean KL, and "active_units"; scalars.
    """
    mean, scale = mean.double(), scale.double()
    generator = torch.Generator().manual_seed(seed)
    z = mean + scale * normal(mean.shape, like=mean, generator=generator)
    own = (-0.5 * ((z - mean) / scale).square() - scale.log() - 0.5 * math.log(2 * math.pi)).sum(1)
    information = (own - log_aggregate(z, mean, scale)).mean()
    kl = (0.5 * (mean.square() + scale.square() - 1) - scale.log()).sum(1).mean()
    active = (mean.var(0, correction=0) > ACTIVE).sum().double()
    return {"mutual_information": information, "marginal_kl": kl - information, "active_units": active}


def log_aggregate(z: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
    """The log-density of the aggregate posterior, log (1/N) Σ_n N(z; μ_n, diag σ_n²): (M,) for z of shape (M, d).

    The square is multiplied out, so that all M N densities are two products of matrices; give float64.
    """
    precision = scale.square().reciprocal()
    constant = (-0.5 * mean.square() * precision - scale.log()).sum(1) - 0.5 * mean.shape[1] * math.log(2 * math.pi)
    columns = torch.cat([-0.5 * precision, mean * precision], 1).T
    rows = torch.cat([z.square(), z], 1)
    return torch.cat([(r @ columns + constant).logsumexp(1) for r in rows.split(512)]) - math.log(len(mean))
