"""Noise schedules: how much of the datum is left at time t, and how much noise has been added.

Every model of this folder learns from the same corruption of data x₀ by noise ε ~ N(0, I),

    x_t = α(t) x₀ + σ(t) ε,    0 ≤ t ≤ 1,

from the datum itself (t = 0: α = 1, σ = 0) to what is nearly or wholly noise (t = 1). A schedule is the pair (α, σ)
with its derivatives; everything else (parameterisations, weights, solvers, likelihoods) derives from these four
numbers. They are float64, because likelihoods subtract nearly equal ones.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from genzoo.zoo.checks import check_count

Spacing = Literal["uniform", "karras"]


class Noise(NamedTuple):
    """The corruption at some times: α, σ and their derivatives by t, all of the times' shape, float64."""

    alpha: Tensor
    sigma: Tensor
    d_alpha: Tensor
    d_sigma: Tensor

    @property
    def log_snr(self) -> Tensor:
        """λ = ln(α² / σ²), ∞ at the datum, −∞ where nothing of it is left."""
        return 2 * (self.alpha.log() - self.sigma.log())

    @property
    def snr(self) -> Tensor:
        """α² / σ²."""
        return (self.alpha / self.sigma).square()

    def like(self, x: Tensor) -> "Noise":
        """In x's dtype and on its device, with dimensions of size 1 added, so that (B,) multiplies (B, *shape).

        What is one number for all stays where it is: it multiplies tensors on any device, and to move it there would
        be to wait for that device.
        """
        return Noise(*(v.to(x).view(*v.shape, *[1] * (x.ndim - 1)) if v.ndim else v.to(x.dtype) for v in self))


class Schedule(ABC):
    """A path from data to noise.

    Calling it with times gives the `Noise` there. Times are float64 in [0, 1]; t = 0 is the datum in every schedule.
    """

    #: the smallest time with any noise that a model is trained and evaluated at
    t_min: float = 1e-5

    @abstractmethod
    def __call__(self, t: Tensor) -> Noise:
        """α, σ, α̇ and σ̇ at the times t, float64."""

    @abstractmethod
    def time(self, log_snr: Tensor) -> Tensor:
        """The inverse: the time at which ln(α² / σ²) has the given value, float64."""

    def at(self, log_snr: Tensor) -> Noise:
        """The corruption where ln(α² / σ²) has the given value: also with less noise than at `t_min`.

        Likelihoods go down to where the noise no longer shows, whatever a sampler stops at. The ratio σ/α is all that
        a network is told, so it can be asked there too.
        """
        return self(self.time(log_snr))

    def prior_std(self, t: Tensor) -> float:
        """Standard deviation of the noise with which sampling begins at t: that of data from N(0, I) there."""
        noise = self(t)
        return math.hypot(float(noise.alpha), float(noise.sigma))

    def training_times(self, u: Tensor) -> Tensor:
        """The times to train at for u, uniform in [0, 1): uniform in [t_min, 1)."""
        return self.t_min + (1 - self.t_min) * u.double()

    def times(self, steps: int, spacing: Spacing = "uniform") -> Tensor:
        """The times at which a solver of so many steps stops.

        Args:
            steps: at least 1.
            spacing: "uniform" in t from 1, or "karras": uniform in (σ/α)^(1/7) from 80 to 0.002 (Karras et al. 2022,
                eq. 5) as far as the schedule goes, and then 0.

        Returns:
            (steps + 1,), falling to 0.

        Raises:
            ValueError: if there cannot be so many steps.
        """
        check_count("steps", steps)
        if spacing == "uniform":
            return self.uniform_times(steps)
        if spacing != "karras":
            raise ValueError(f"spacing={spacing!r}: choose 'uniform' or 'karras'.")
        first, last = self(torch.tensor([1.0, self.t_min], dtype=torch.float64)).log_snr.tolist()
        ratios = [min(RATIOS[0], math.exp(-first / 2)), max(RATIOS[1], math.exp(-last / 2))]
        root = torch.linspace(ratios[0] ** (1 / RHO), ratios[1] ** (1 / RHO), steps, dtype=torch.float64)
        return F.pad(self.time(-2 * RHO * root.log()), (0, 1))

    def uniform_times(self, steps: int) -> Tensor:
        """(steps + 1,), 1, 1 − 1/steps, …, 0."""
        return torch.linspace(1, 0, steps + 1, dtype=torch.float64)


RATIOS = (80.0, 0.002)  # the largest and the smallest σ/α of "karras"
RHO = 7


# ---------------------------------------------------------------------------------------- in discrete steps (DDPM)


class BetaSchedule(Schedule):
    """T steps x_k = √(1 − β_k) x_{k−1} + √β_k ε (Ho et al. 2020, eq. 2), at the times t = k/T.

    Hence α² = ᾱ_k = Π (1 − β_i) and σ² = 1 − ᾱ_k. Between two steps β is constant, so that ln α is linear in t and
    continuous solvers find a schedule at every time.
    """

    steps: int

    @abstractmethod
    def betas(self) -> Tensor:
        """β_1 … β_T, float64."""

    @cached_property
    def log_alphas(self) -> Tensor:
        """ln α at k = 0 … T: half the running sum of ln(1 − β)."""
        return F.pad((-self.betas()).log1p().cumsum(0) / 2, (1, 0))

    @cached_property
    def _copies(self) -> dict[torch.device, Tensor]:
        return {}

    def _log_alphas_on(self, device: torch.device) -> Tensor:
        """`log_alphas`, taken to a device once: each time would be to wait for it."""
        if device not in self._copies:
            self._copies[device] = self.log_alphas.to(device)
        return self._copies[device]

    def __getstate__(self) -> dict[str, Any]:
        """Without the tables, which are made again where they are needed."""
        return {name: value for name, value in vars(self).items() if name not in ("log_alphas", "_copies")}

    @property
    def t_min(self) -> float:  # type: ignore[override]
        """The first step."""
        return 1 / self.steps

    def __call__(self, t: Tensor) -> Noise:  # noqa: D102
        table = self._log_alphas_on(t.device)
        position = t.double() * self.steps
        step = position.round()
        position = torch.where((position - step).abs() < 1e-6, step, position)  # or rounding chooses a step's slope
        k = position.floor().long().clamp(0, self.steps - 1)
        slope = table[k + 1] - table[k]
        return _variance_preserving(table[k] + (position - k) * slope, slope * self.steps)

    def time(self, log_snr: Tensor) -> Tensor:  # noqa: D102
        log_alpha = F.logsigmoid(log_snr.double()) / 2
        falling = self._log_alphas_on(log_alpha.device)
        k = (torch.searchsorted(-falling, -log_alpha) - 1).clamp(0, self.steps - 1)
        return ((k + (log_alpha - falling[k]) / (falling[k + 1] - falling[k])) / self.steps).clamp(0, 1)

    def training_times(self, u: Tensor) -> Tensor:
        """k/T with k uniform in 1 … T."""
        return ((u.double() * self.steps).floor() + 1) / self.steps

    def uniform_times(self, steps: int) -> Tensor:
        """A subset of the T steps, as evenly spread as it can be (Nichol & Dhariwal 2021, section 4)."""
        if steps > self.steps:
            raise ValueError(f"steps={steps}: this schedule has {self.steps}; give 1 to {self.steps}.")
        return (torch.linspace(self.steps, 0, steps + 1, dtype=torch.float64)).round() / self.steps

    def __post_init__(self) -> None:
        if self.steps < 1 or not bool(((self.betas() > 0) & (self.betas() < 1)).all()):
            raise ValueError(f"{self}: every β must lie between 0 and 1; take more steps, or smaller β.")


@dataclass(frozen=True)
class LinearBetas(BetaSchedule):
    """β rises linearly (Ho et al. 2020). The β are those of 1,000 steps, and scaled by 1000/T for other T.

    Args:
        steps: T; more than 20 with the usual β.
        first: β_1.
        last: β_T.
    """

    steps: int = 1000
    first: float = 1e-4
    last: float = 0.02

    def betas(self) -> Tensor:  # noqa: D102
        return torch.linspace(self.first, self.last, self.steps, dtype=torch.float64) * 1000 / self.steps


@dataclass(frozen=True)
class CosineBetas(BetaSchedule):
    """ᾱ falls as cos² ((t + s)/(1 + s) π/2) (Nichol & Dhariwal 2021, eq. 17).

    So little of the datum is left at t = 1 that a guess of the noise tells nothing of it: without the range of images
    to clip to, take "karras" steps or another prediction.

    Args:
        steps: T.
        offset: s, which keeps the first steps from being too small.
        largest: no β is larger.
    """

    steps: int = 1000
    offset: float = 0.008
    largest: float = 0.999

    def betas(self) -> Tensor:  # noqa: D102
        t = torch.linspace(0, 1, self.steps + 1, dtype=torch.float64)
        alpha_bar = ((t + self.offset) / (1 + self.offset) * math.pi / 2).cos().square()
        return (1 - alpha_bar[1:] / alpha_bar[:-1]).clamp_max(self.largest)


# ------------------------------------------------------------------------------------------- in continuous time


@dataclass(frozen=True)
class VariancePreserving(Schedule):
    """dx = −½ β(t) x dt + √β(t) dw with β linear from `beta_min` to `beta_max` (Song et al. 2021, eq. 32)."""

    beta_min: float = 0.1
    beta_max: float = 20.0

    def __post_init__(self) -> None:
        if not 0 < self.beta_min < self.beta_max:
            raise ValueError(f"{self}: 0 < beta_min < beta_max is needed.")

    def __call__(self, t: Tensor) -> Noise:  # noqa: D102
        t, rise = t.double(), self.beta_max - self.beta_min
        return _variance_preserving(-(t.square() * rise / 4 + t * self.beta_min / 2), -(self.beta_min + t * rise) / 2)

    def time(self, log_snr: Tensor) -> Tensor:  # noqa: D102
        integral = -F.logsigmoid(log_snr.double())  # of β from 0 to t: β_min t + ½ (β_max − β_min) t²
        rise = self.beta_max - self.beta_min
        return 2 * integral / (self.beta_min + (self.beta_min**2 + 2 * rise * integral).sqrt())


@dataclass(frozen=True)
class VarianceExploding(Schedule):
    """x_t = x₀ + σ(t) ε with σ rising geometrically (Song & Ermon 2019; Song et al. 2021, eq. 30).

    σ begins at `sigma_min` right after t = 0, where it is 0 as in every schedule.
    """

    sigma_min: float = 0.01
    sigma_max: float = 50.0

    def __post_init__(self) -> None:
        if not 0 < self.sigma_min < self.sigma_max:
            raise ValueError(f"{self}: 0 < sigma_min < sigma_max is needed.")

    def __call__(self, t: Tensor) -> Noise:  # noqa: D102
        t = t.double()
        return self._with(torch.where(t > 0, self.sigma_min * (self._rate * t).exp(), 0.0))

    def time(self, log_snr: Tensor) -> Tensor:  # noqa: D102
        return (((-log_snr.double() / 2).exp() / self.sigma_min).log() / self._rate).clamp(0, 1)

    def at(self, log_snr: Tensor) -> Noise:
        """Below `sigma_min`, which no time has, σ goes on falling geometrically."""
        return self._with((-log_snr.double() / 2).exp())

    @property
    def _rate(self) -> float:
        """d ln σ / dt."""
        return math.log(self.sigma_max / self.sigma_min)

    def _with(self, sigma: Tensor) -> Noise:
        return Noise(torch.ones_like(sigma), sigma, torch.zeros_like(sigma), self._rate * sigma)


@dataclass(frozen=True)
class OptimalTransport(Schedule):
    """x_t = (1 − t) x₀ + t ε: each datum goes to its noise on a straight line (Lipman et al. 2023; Liu et al. 2023).

    Time runs from data to noise, as in every schedule here; in those papers it runs the other way.
    """

    t_min = 1e-4

    def __call__(self, t: Tensor) -> Noise:  # noqa: D102
        t = t.double()
        return Noise(1 - t, t, -torch.ones_like(t), torch.ones_like(t))

    def time(self, log_snr: Tensor) -> Tensor:  # noqa: D102
        return (-log_snr.double() / 2).sigmoid()


def _variance_preserving(log_alpha: Tensor, d_log_alpha: Tensor) -> Noise:
    """From ln α and its derivative to the noise with α² + σ² = 1."""
    alpha, sigma = log_alpha.exp(), (2 * log_alpha).expm1().abs().sqrt()  # no −0 where there is no noise
    d_alpha = alpha * d_log_alpha
    return Noise(alpha, sigma, d_alpha, -alpha * d_alpha / sigma)
