"""From noise to data: ways to run the corruption backwards with a denoiser.

A denoiser D(x, t) estimates the datum x₀ from x = x_t; the noise it finds in x is then ε̂ = (x − α x̂₀)/σ. No solver
knows more of the model than that, nor of the schedule than α and σ at the times where it stops. The deterministic
ones solve the probability-flow ODE (Song et al. 2021, eq. 13), which in these terms reads

    dx = x̂₀(x, t) dα + ε̂(x, t) dσ

and has the same solutions, up to a factor, for every schedule. The others add noise on the way.
"""

import math
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from genzoo.zoo.diffusion.schedules import Schedule
from genzoo.zoo.randomness import Generator, normal

#: (B, *shape) at one time (float64, of no dimension) to the estimated data, (B, *shape)
Denoiser = Callable[[Tensor, Tensor], Tensor]
Variance = Literal["small", "large"]


class Stop(NamedTuple):
    """One stop of a solver."""

    t: Tensor
    alpha: float
    sigma: float


class Solver(ABC):
    """A way from x at the first of some times to x at the last."""

    @abstractmethod
    def path(
        self, denoiser: Denoiser, schedule: Schedule, x: Tensor, times: Tensor, generator: Generator | None = None
    ) -> Iterator[Tensor]:
        """x at each of the times but the first.

        Args:
            denoiser: D(x, t).
            schedule: of the corruption that it was trained on.
            x: (B, *shape) at times[0].
            times: (n + 1,), float64; falling to 0 for samples. Deterministic solvers also go the other way, from
                the datum at t = 0 if need be.
            generator: of the noise.

        Yields:
            (B, *shape), n times.

        Raises:
            ValueError: if two of the times are the same, or they rise for a solver that adds noise.
        """

    def evaluations(self, steps: int) -> int:
        """How often the denoiser is asked in so many steps, the last of which ends at t = 0."""
        return steps

    def solve(
        self, denoiser: Denoiser, schedule: Schedule, x: Tensor, times: Tensor, generator: Generator | None = None
    ) -> Tensor:
        """The last of `path`."""
        return deque(self.path(denoiser, schedule, x, times, generator), maxlen=1).pop()


# ------------------------------------------------------------------------------------------------ deterministic


@dataclass(frozen=True)
class Euler(Solver):
    """x̂₀ and ε̂ are held constant over a step: x_s = α_s x̂₀ + σ_s ε̂. This is DDIM with η = 0, in every schedule."""

    def path(  # noqa: D102
        self, denoiser: Denoiser, schedule: Schedule, x: Tensor, times: Tensor, generator: Generator | None = None
    ) -> Iterator[Tensor]:
        for now, then in pairwise(stops(schedule, times)):
            x0, epsilon = _split(denoiser, x, now)
            x = then.alpha * x0 + then.sigma * epsilon
            yield x


@dataclass(frozen=True)
class Heun(Solver):
    """x̂₀ and ε̂ are the means of those at both ends of a step (the trapezoidal rule; Karras et al. 2022, algorithm 1).

    Of second order, with two evaluations a step, but one for a step that ends at t = 0.
    """

    def path(  # noqa: D102
        self, denoiser: Denoiser, schedule: Schedule, x: Tensor, times: Tensor, generator: Generator | None = None
    ) -> Iterator[Tensor]:
        for now, then in pairwise(stops(schedule, times)):
            x0, epsilon = _split(denoiser, x, now)
            end = then.alpha * x0 + then.sigma * epsilon
            if then.sigma > 0:
                x0_end, epsilon_end = _split(denoiser, end, then)
                end = (
                    x
                    + (then.alpha - now.alpha) * (x0 + x0_end) / 2
                    + (then.sigma - now.sigma) * (epsilon + epsilon_end) / 2
                )
            x = end
            yield x

    def evaluations(self, steps: int) -> int:  # noqa: D102
        return 2 * steps - 1


@dataclass(frozen=True)
class DPMSolver(Solver):
    """DPM-Solver++(2M) (Lu et al. 2022, algorithm 2): of second order with one evaluation a step.

    In λ = ln(α/σ) the ODE is linear but for x̂₀, which is extrapolated from the last two evaluations. The first step
    and one with an end where λ is infinite, as at t = 0, hold it constant. The same holds of the reverse SDE: with
    η = 1 this is their SDE-DPM-Solver++(2M), whose new noise corrects what a network got wrong before; between them,
    the noise is in proportion.

    Args:
        eta: η, in [0, 1]: from no new noise (the ODE) to as much as the ancestral sampler's (the SDE).
    """

    eta: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.eta <= 1:
            raise ValueError(f"eta={self.eta}: DPM-Solver adds between none (0) and all (1) of the noise.")

    def path(  # noqa: D102
        self, denoiser: Denoiser, schedule: Schedule, x: Tensor, times: Tensor, generator: Generator | None = None
    ) -> Iterator[Tensor]:
        previous: tuple[Tensor, float] | None = None
        for now, then in pairwise(stops(schedule, times, falling=self.eta > 0)):
            if now.sigma == 0 or then.alpha == 0:  # upwards from the datum alone, or to nothing but noise
                x0, epsilon = _split(denoiser, x, now)
                previous, x = None, then.alpha * x0 + then.sigma * epsilon
                yield x
                continue
            x0 = denoiser(x, now.t)
            decay = now.alpha * then.sigma / (now.sigma * then.alpha)  # e^(−h), where h is how much λ grows
            h = -math.log(decay) if decay > 0 else math.inf
            estimate = x0
            if previous is not None and h < math.inf:
                before, h_before = previous
                estimate = x0 + h / (2 * h_before) * (x0 - before)
            kept = decay**self.eta
            x = then.sigma / now.sigma * kept * x + then.alpha * (1 - decay * kept) * estimate
            if self.eta > 0 and then.sigma > 0:
                x = x + then.sigma * math.sqrt(1 - kept**2) * normal(x.shape, like=x, generator=generator)
            previous = x0, h
            yield x


# -------------------------------------------------------------------------------------------------- stochastic


@dataclass(frozen=True)
class DDIM(Solver):
    """Song, Meng & Ermon 2021 (eq. 12 and 16): from no new noise (η = 0) to as much as the ancestral sampler's (1).

    Args:
        eta: η, in [0, 1].
    """

    eta: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.eta <= 1:
            raise ValueError(f"eta={self.eta}: DDIM adds between none (0) and all (1) of the noise.")

    def path(  # noqa: D102
        self, denoiser: Denoiser, schedule: Schedule, x: Tensor, times: Tensor, generator: Generator | None = None
    ) -> Iterator[Tensor]:
        for now, then in pairwise(stops(schedule, times, falling=self.eta > 0)):
            std = self.eta * reverse_std(now, then, "small") if self.eta > 0 else 0.0
            x = _renoised(denoiser, x, now, then, std, std, generator)
            yield x


@dataclass(frozen=True)
class Ancestral(Solver):
    """x_s ~ N(the mean of q(x_s | x_t, x̂₀), v): the reverse chain (Ho et al. 2020, algorithm 2), in any strides.

    Args:
        variance: v, see `reverse_std`. The last step adds no noise.
    """

    variance: Variance = "small"

    def path(  # noqa: D102
        self, denoiser: Denoiser, schedule: Schedule, x: Tensor, times: Tensor, generator: Generator | None = None
    ) -> Iterator[Tensor]:
        for now, then in pairwise(stops(schedule, times, falling=True)):
            posterior = reverse_std(now, then, "small")
            std = reverse_std(now, then, self.variance) if then.sigma > 0 else 0.0
            x = _renoised(denoiser, x, now, then, posterior, std, generator)
            yield x


@dataclass(frozen=True)
class PredictorCorrector(Solver):
    """Ancestral steps, each followed by Langevin steps at the new noise level (Song et al. 2021, algorithm 1).

    Args:
        corrections: Langevin steps after each step but the last.
        snr: r; their size is 2 (r σ)², the paper's with the score's expected norm in place of the batch's.
    """

    corrections: int = 1
    snr: float = 0.16

    def path(  # noqa: D102
        self, denoiser: Denoiser, schedule: Schedule, x: Tensor, times: Tensor, generator: Generator | None = None
    ) -> Iterator[Tensor]:
        for now, then in pairwise(stops(schedule, times, falling=True)):
            std = reverse_std(now, then, "small")
            x = _renoised(denoiser, x, now, then, std, std, generator)
            for _ in range(self.corrections if then.sigma > 0 else 0):
                score = (then.alpha * denoiser(x, then.t) - x) / then.sigma**2
                x = langevin(x, score, 2 * (self.snr * then.sigma) ** 2, generator)
            yield x

    def evaluations(self, steps: int) -> int:  # noqa: D102
        return steps + self.corrections * (steps - 1)


def langevin(x: Tensor, score: Tensor, step: float, generator: Generator | None = None) -> Tensor:
    """x + δ ∇ ln p(x) + √(2 δ) z, a step of size δ that leaves p (nearly) as it is."""
    return x + step * score + math.sqrt(2 * step) * normal(x.shape, like=x, generator=generator)


def repaint(
    denoiser: Denoiser,
    schedule: Schedule,
    x: Tensor,
    times: Tensor,
    target: Tensor,
    known: Tensor,
    repeats: int,
    generator: Generator | None = None,
) -> Tensor:
    """Completes `target` where it is not `known` (Lugmayr et al. 2022, algorithm 1).

    After each ancestral step what is known is put in, with as much noise as belongs there. The step is then undone
    by adding its noise again, and repeated, so that the unknown comes to fit the known. Approximate: the better, the
    more repeats.
    """
    for pair, (now, then) in zip(times.unfold(0, 2, 1), pairwise(stops(schedule, times)), strict=True):
        for repeat in range(repeats if then.sigma > 0 else 1):
            if repeat > 0:
                noise = normal(x.shape, like=x, generator=generator)
                x = now.alpha / then.alpha * x + transition_std(now, then) * noise
            x = Ancestral().solve(denoiser, schedule, x, pair, generator)
            noise = normal(x.shape, like=x, generator=generator)
            x = torch.where(known, then.alpha * target + then.sigma * noise, x)
    return x


# ----------------------------------------------------------------------------------------------------- one step


def stops(schedule: Schedule, times: Tensor, *, falling: bool = False) -> list[Stop]:
    """The stops at the given times, as plain numbers: a step then waits for no device.

    Raises:
        ValueError: if two times in a row are the same, or, if they are to be falling, one rises.
    """
    times = times.double().cpu()
    for now, then in pairwise(times.tolist()):
        if now == then:
            raise ValueError(f"The times of a solver all differ, but here {now:g} follows itself.")
        if falling and now < then:
            raise ValueError(
                f"A solver that adds noise only goes towards the data, so its times fall, but here {then:g} follows"
                f" {now:g}. Upwards goes a deterministic one: Euler, Heun, DPMSolver or DDIM with eta=0."
            )
    noise = schedule(times)
    return [Stop(*stop) for stop in zip(times.unbind(), noise.alpha.tolist(), noise.sigma.tolist(), strict=True)]


def transition_std(now: Stop, then: Stop) -> float:
    """Standard deviation of q(x_t | x_s) for s ("then") before t ("now"): √(σ_t² − (α_t/α_s)² σ_s²)."""
    return math.sqrt(max(0.0, now.sigma**2 - (now.alpha / then.alpha * then.sigma) ** 2))


def reverse_std(now: Stop, then: Stop, variance: Variance) -> float:
    """Standard deviation of a step back, right for one of two extremes (Ho et al. 2020, section 3.2).

    "small" is that of q(x_s | x_t, x₀), right if all data are one point; "large" is that of q(x_s | x_t), right for
    data from N(0, I). With α² + σ² = 1 they are the β̃ and β of the paper.
    """
    if variance == "small":
        return then.sigma / now.sigma * transition_std(now, then)
    if variance != "large":
        raise ValueError(f"variance={variance!r}: choose 'small' or 'large'.")
    v_now, v_then = now.alpha**2 + now.sigma**2, then.alpha**2 + then.sigma**2
    return math.sqrt(max(0.0, v_then - (now.alpha / then.alpha * v_then) ** 2 / v_now))


def _split(denoiser: Denoiser, x: Tensor, at: Stop) -> tuple[Tensor, Tensor]:
    """x̂₀ and ε̂. At the datum no noise is left to be found, and ε̂ = −σ ∇ ln p there is 0, as in the limit."""
    if at.sigma == 0:
        return x / at.alpha, torch.zeros_like(x)
    x0 = denoiser(x, at.t)
    return x0, (x - at.alpha * x0) / at.sigma


def _renoised(
    denoiser: Denoiser,
    x: Tensor,
    now: Stop,
    then: Stop,
    forgotten: float,
    added: float,
    generator: Generator | None,
) -> Tensor:
    """α_s x̂₀ + √(σ_s² − f²) ε̂ + a z: a part of the noise that was found is replaced by new noise."""
    x0, epsilon = _split(denoiser, x, now)
    x = then.alpha * x0 + math.sqrt(max(0.0, then.sigma**2 - forgotten**2)) * epsilon
    return x + added * normal(x.shape, like=x, generator=generator) if added > 0 else x
