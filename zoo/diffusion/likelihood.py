"""The likelihood of the reverse chain: an evidence lower bound, as of any latent-variable model.

The chain with n steps is a latent-variable model whose posterior is the corruption (Sohl-Dickstein et al. 2015; Ho et
al. 2020, eq. 5). All terms of its bound but one are divergences between normal distributions. Everything is in nats
of the data as scaled for the model, summed over the datum. (The other likelihood, that of the probability flow, is in
`flow.py`.)
"""

import math
from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor

from genzoo.zoo.diffusion.schedules import Noise, Schedule
from genzoo.zoo.diffusion.solvers import Denoiser, Variance, reverse_std, stops
from genzoo.zoo.randomness import Generator, normal, uniform


class ReverseChain:
    """The terms of −ELBO = KL(q(x_1 | x₀) ‖ p(x_1)) + Σ_k KL(q(x_s | x_t, x₀) ‖ p(x_s | x_t)) − E ln p(x₀ | x_t1).

    The bound is tightest where the variance of p(x_s | x_t) is the expected squared distance between what is drawn
    from q(x_s | x_t, x₀) and the mean of p (Bao et al. 2022): the posterior variance, and what the denoiser's error
    adds to it,

        s² = β̃ + m² E(x₀ − x̂₀)²,    with m the mean's factor of x₀.

    For the best denoiser of data from N(0, I), E(x₀ − x̂₀)² = σ²/(α² + σ²); this is the "large" variance of Ho et al.,
    β̃ itself the "small" one. Between and beyond them lies every s² = small² + ρ (large² − small²), where ρ says how
    large the error is beside that one.

    Args:
        schedule: of the corruption.
        times: (n + 1,), falling from 1 to 0, n at least 2: the chain's steps.
        variance: of p(x_s | x_t), see `solvers.reverse_std`; or ρ of each step, (n,). That of the last step,
            p(x₀ | x_t1), would be 0 with "small"; the one before it stands in, as in Ho et al. 2020.

    Raises:
        ValueError: if there are fewer than two steps.
    """

    def __init__(self, schedule: Schedule, times: Tensor, variance: Variance | Tensor) -> None:
        if len(times) < 3:
            raise ValueError(
                f"The bound is that of a chain of at least two steps, but {schedule} leaves {len(times) - 1}: give it"
                " more steps."
            )
        self.schedule, self.times = schedule, times
        steps = list(pairwise(stops(schedule, times)))
        small, large = (
            torch.tensor([reverse_std(now, then, which) for now, then in steps], dtype=torch.float64).square()
            for which in ("small", "large")
        )
        noise = schedule(times)
        error: Tensor | float = float(variance == "large")
        if isinstance(variance, Tensor):  # where the model is: all that follows from it is there, too
            error = variance.double()
            small, large = small.to(error.device), large.to(error.device)
            noise = Noise(*(v.to(error.device) for v in noise))
        squared_std = small + error * (large - small)
        #: (), the standard deviation of the last step
        self.last_std = torch.where(squared_std[-1] > 0, squared_std[-1], squared_std[-2]).sqrt()

        #: (n,), the squared error of the best denoiser of N(0, I) at the beginning of each step
        self.white_error = (noise.sigma.square() / (noise.alpha.square() + noise.sigma.square()))[:-1]
        now, then = Noise(*(v[:-2] for v in noise)), Noise(*(v[1:-1] for v in noise))  # the last step apart
        squared_std, small, large = squared_std[:-1], small[:-1], large[:-1]
        # KL = ½ Σ_d [(m/s)² (x₀ − x̂₀)² + r − 1 − ln r], with r = β̃/s²
        m = then.alpha * (1 - (now.alpha * then.sigma / (then.alpha * now.sigma)).square())
        ratio = small / squared_std
        self.error_weight = m.square() / squared_std / 2
        self.excess = (ratio - 1 - ratio.log()) / 2
        # Where a divergence is large, it is looked at more often: with the best variance it is −½ D ln r on average
        # ("small" says nothing of it, and is looked at like "large"). But a network may be at a loss where it should
        # be small: half of the looks go everywhere alike (Hesterberg 1995).
        size = -(small / (squared_std if isinstance(variance, Tensor) else large)).log()
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
        error = (x0 - x0_hat).double().flatten(1).square().sum(1)
        return self.error_weight.to(error)[k] * error + x0[0].numel() * self.excess.to(error)[k]

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
        total = torch.zeros(len(x0), dtype=torch.float64, device=x0.device)
        for k, x0_hat in self.looks(denoiser, x0, num_particles, generator):
            total += self.divergence(k, x0, x0_hat) / self.chances.to(total)[k]
        return total / num_particles

    def looks(
        self, denoiser: Denoiser, x0: Tensor, num_particles: int, generator: Generator | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """So many looks at the chain of each datum: at which step, (B,), drawn by `chances`, and x̂₀ there."""
        offset = uniform((len(x0),), like=x0, generator=generator).double()
        cumulative, times = self.chances.cumsum(0).to(offset), self.times.to(x0.device)
        for i in range(num_particles):
            k = torch.searchsorted(cumulative, (offset + i) / num_particles).clamp_max(len(self.chances) - 1)
            yield k, self.look(denoiser, x0, times[k], generator)

    def last_look(self, denoiser: Denoiser, x0: Tensor, generator: Generator | None = None) -> Tensor:
        """x̂₀ at the beginning of the last step: the mean of p(x₀ | x_t1)."""
        return self.look(denoiser, x0, self.times[-2:-1].to(x0.device).expand(len(x0)), generator)

    def look(self, denoiser: Denoiser, x0: Tensor, t: Tensor, generator: Generator | None) -> Tensor:
        """x̂₀ at the times t of (B,), with noise of its own for each datum."""
        return denoiser(corrupt(self.schedule(t), x0, normal(x0.shape, like=x0, generator=generator)), t)


def corrupt(noise: Noise, x0: Tensor, epsilon: Tensor) -> Tensor:
    """x_t = α x₀ + σ ε, with the noise of times (B,)."""
    like = noise.like(x0)
    return like.alpha * x0 + like.sigma * epsilon
