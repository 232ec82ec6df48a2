"""The likelihood of the reverse chain: an evidence lower bound, as of any latent-variable model.

The chain with n steps is a latent-variable model whose posterior is the corruption (Sohl-Dickstein et al. 2015; Ho et
al. 2020, eq. 5). All terms of its bound but one are divergences between normal distributions. Everything is in nats
of the data as scaled for the model, summed over the datum. (The other likelihood, that of the probability flow, is in
`flow.py`.)
"""

import math
from itertools import pairwise

import torch
from torch import Tensor

from genzoo.zoo.diffusion.schedules import Noise, Schedule
from genzoo.zoo.diffusion.solvers import Denoiser, Variance, levels, reverse_std
from genzoo.zoo.randomness import Generator, normal, uniform


class ReverseChain:
    """The terms of −ELBO = KL(q(x_1 | x₀) ‖ p(x_1)) + Σ_k KL(q(x_s | x_t, x₀) ‖ p(x_s | x_t)) − E ln p(x₀ | x_t1).

    Args:
        schedule: of the corruption.
        times: (n + 1,), falling from 1 to 0, n at least 2: the chain's steps.
        variance: of p(x_s | x_t), see `solvers.reverse_std`. That of the last step, p(x₀ | x_t1), would be 0 with
            "small"; the one before it stands in, as in Ho et al. 2020.

    Raises:
        ValueError: if there are fewer than two steps.
    """

    def __init__(self, schedule: Schedule, times: Tensor, variance: Variance) -> None:
        if len(times) < 3:
            raise ValueError(
                f"The bound is that of a chain of at least two steps, but {schedule} leaves {len(times) - 1}: give it"
                " more steps."
            )
        self.schedule, self.times = schedule, times
        steps = list(pairwise(levels(schedule, times)))
        std = torch.tensor([reverse_std(now, then, variance) for now, then in steps], dtype=torch.float64)
        posterior = torch.tensor([reverse_std(now, then, "small") for now, then in steps], dtype=torch.float64)
        self.last_std = float(std[-1]) if variance == "large" else float(std[-2])

        noise = schedule(times)
        now, then = Noise(*(v[:-2] for v in noise)), Noise(*(v[1:-1] for v in noise))  # the last step apart
        std, posterior = std[:-1], posterior[:-1]
        # KL = ½ Σ_d [(m/s)² (x₀ − x̂₀)² + r − 1 − ln r], with r = posterior variance / s², m the mean's factor of x₀
        m = then.alpha * (1 - (now.alpha * then.sigma / (then.alpha * now.sigma)).square())
        ratio = (posterior / std).square()
        self.error_weight = (m / std).square() / 2
        self.excess = (ratio - 1 - ratio.log()) / 2
        # Where a divergence is large, it is looked at more often; for data from N(0, I) it is `size`. But a network
        # may be at a loss where it should be small: half of the looks go everywhere alike (Hesterberg 1995).
        size = (now.sigma.square() / (now.alpha.square() + now.sigma.square())).log()
        size = size - (then.sigma.square() / (then.alpha.square() + then.sigma.square())).log()
        self.chances = (size / size.sum() + 1 / len(size)) / 2

    def prior(self, x0: Tensor) -> Tensor:
        """KL(q(x_1 | x₀) ‖ N(0, s²)), (B,), with the schedule's `prior_std`."""
        noise, std = self.schedule(self.times[0]), self.schedule.prior_std(self.times[0])
        alpha, sigma = float(noise.alpha), float(noise.sigma)
        square = x0.double().flatten(1).square().sum(1)
        constant = x0[0].numel() * ((sigma / std) ** 2 - 1 - 2 * math.log(sigma / std))
        return ((alpha / std) ** 2 * square + constant) / 2

    def divergence(self, k: Tensor, x0: Tensor, x0_hat: Tensor) -> Tensor:
        """KL(q(x_s | x_t, x₀) ‖ p(x_s | x_t)) of the steps from times[k] to times[k + 1], (B,), for k of (B,)."""
        k = k.cpu()
        error = (x0 - x0_hat).double().flatten(1).square().sum(1)
        return self.error_weight[k].to(error) * error + x0[0].numel() * self.excess[k].to(error)

    def divergences(
        self,
        denoiser: Denoiser,
        x0: Tensor,
        num_particles: int,
        generator: Generator | None = None,
    ) -> Tensor:
        """An unbiased estimate of Σ_k E KL_k, (B,), from so many steps of the chain, drawn in strata.

        Args:
            denoiser: D(x, t), here with (B,) times.
            x0: (B, *shape).
            num_particles: how many of the divergences are looked at for each datum.
            generator: of the draws.
        """
        cumulative = self.chances.cumsum(0)
        offset = uniform((len(x0),), like=x0, generator=generator).double().cpu()
        total = torch.zeros(len(x0), dtype=torch.float64, device=x0.device)
        for i in range(num_particles):
            k = torch.searchsorted(cumulative, (offset + i) / num_particles).clamp_max(len(self.chances) - 1)
            t = self.times[k].to(x0.device)
            x_t = corrupt(self.schedule(t), x0, normal(x0.shape, like=x0, generator=generator))
            total += self.divergence(k, x0, denoiser(x_t, t)) / self.chances[k].to(total)
        return total / num_particles


def corrupt(noise: Noise, x0: Tensor, epsilon: Tensor) -> Tensor:
    """x_t = α x₀ + σ ε, with the noise of times (B,)."""
    like = noise.like(x0)
    return like.alpha * x0 + like.sigma * epsilon
