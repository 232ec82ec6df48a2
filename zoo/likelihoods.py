"""The output distributions p(x | ·): what a network's last layer states about a datum.

A `Likelihood` says how many numbers it needs for each dimension of the datum (`num_parameters`) and turns a tensor
of them, shaped (..., P, *shape), into an `Output`: something with a mean, a `log_prob` in nats summed over the
datum, and samples on the data's own grid. Discrete data (an integer `levels`) always get a probability mass that
sums to one over the levels; only continuous data (`levels=None`) get a density.

In those of this file the dimensions are independent of each other. `logistic_mixture` has one that couples the
channels of a pixel.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from genzoo.zoo.modality import from_codes, to_codes, to_grid
from genzoo.zoo.precision import full_precision
from genzoo.zoo.randomness import Generator, uniform


class Output(ABC):
    """A distribution over data of a given shape, with any leading batch dimensions."""

    event_dims: int
    #: whether what is said of a pixel's channel is given the channels before it
    coupled = False

    @property
    @abstractmethod
    def mean(self) -> Tensor:
        """(..., *shape), the expected datum, in the data's range."""

    @abstractmethod
    def log_prob_per_dim(self, x: Tensor) -> Tensor:
        """(..., *shape), nats: log p of every single dimension of x, which broadcasts against the batch."""

    @abstractmethod
    def sample(self, generator: Generator | None = None, *, batch_dim: int = 0) -> Tensor:
        """(..., *shape), a draw of the datum, on the data's grid; `batch_dim` as in `randomness.uniform`."""

    def sample_rest(self, x: Tensor, known: Tensor, generator: Generator | None = None) -> Tensor:
        """(B, *shape), x where `known`, and a draw of the other dimensions given these."""
        return torch.where(known, x, self.sample(generator))

    def log_prob(self, x: Tensor) -> Tensor:
        """(...), nats, summed over the datum's dimensions."""
        return self.log_prob_per_dim(x).flatten(-self.event_dims).sum(-1)


class Likelihood(ABC):
    """Which distribution a network states, and with how many numbers for each dimension."""

    @abstractmethod
    def num_parameters(self, levels: int | None) -> int:
        """P, the numbers needed for each dimension of a datum with so many levels.

        Raises:
            ValueError: if the distribution cannot describe such data.
        """

    def parameter_shape(self, shape: Sequence[int], levels: int | None) -> tuple[int, ...]:
        """The numbers for one datum as `output` takes them: (P, *shape), unless dimensions are coupled."""
        return self.num_parameters(levels), *shape

    @abstractmethod
    def output(self, parameters: Tensor, levels: int | None) -> Output:
        """The distribution stated by parameters of shape (..., P, *shape); all but the first two are the datum."""


def shown(output: Output, levels: int | None, noise: bool, generator: Generator | None = None) -> Tensor:
    """What p(x | z) is shown by: a draw; or without its noise the mean, at the nearest level of discrete data.

    Args:
        output: p(x | z), of B data.
        levels: of the data; None if they are continuous.
        noise: whether to draw.
        generator: of the draw.

    Returns:
        (B, *shape), in the data's range and on its grid.
    """
    if noise:
        return output.sample(generator)
    return output.mean if levels is None else to_grid(output.mean, levels)


def default_likelihood(levels: int | None) -> Likelihood:
    """The usual choice: Bernoulli for 2 levels, categorical up to 32, a discretised logistic above, Gaussian else."""
    if levels is None:
        return Gaussian()
    if levels == 2:
        return Bernoulli()
    return Categorical() if levels <= 32 else DiscretisedLogistic()


@dataclass(frozen=True)
class Bernoulli(Likelihood):
    """p(x | ℓ) = σ(ℓ)^x (1 − σ(ℓ))^(1 − x) for binary x, from a logit ℓ for each dimension."""

    def num_parameters(self, levels: int | None) -> int:
        """One logit. Raises ValueError for data that are not binary."""
        if levels != 2:
            raise ValueError(
                f"Bernoulli describes binary data (levels=2), but the data have levels={levels}. Binarise them"
                " (`binarize: dynamic` in the datamodule) or choose Categorical, DiscretisedLogistic or Gaussian."
            )
        return 1

    def output(self, parameters: Tensor, levels: int | None) -> "BernoulliOutput":
        """From logits of shape (B, 1, *shape)."""
        return BernoulliOutput(parameters.select(1, 0))


class BernoulliOutput(Output):
    """Independent binary dimensions with logits of shape (B, *shape)."""

    def __init__(self, logits: Tensor) -> None:
        self.logits = full_precision(logits)
        self.event_dims = logits.ndim - 1

    @property
    def mean(self) -> Tensor:
        """σ(ℓ): the probability of a one."""
        return self.logits.sigmoid()

    def log_prob_per_dim(self, x: Tensor) -> Tensor:
        """log p(x) = x ℓ − log(1 + e^ℓ) = log σ(±ℓ), + where x is 1: the latter passes over memory less often."""
        return F.logsigmoid((2 * x - 1) * self.logits)

    def sample(self, generator: Generator | None = None, *, batch_dim: int = 0) -> Tensor:
        """Zeros and ones."""
        noise = uniform(self.logits.shape, like=self.logits, generator=generator, batch_dim=batch_dim)
        return (noise < self.mean).to(self.logits.dtype)


@dataclass(frozen=True)
class Categorical(Likelihood):
    """p(x = k/(L − 1)) = softmax(ℓ)_k: any distribution over the L levels, from L logits for each dimension."""

    def num_parameters(self, levels: int | None) -> int:
        """As many as there are levels. Raises ValueError for continuous data."""
        return _discrete(levels, self)

    def output(self, parameters: Tensor, levels: int | None) -> "CategoricalOutput":
        """From logits of shape (B, L, *shape)."""
        return CategoricalOutput(parameters)


class CategoricalOutput(Output):
    """Independent dimensions with logits of shape (B, L, *shape)."""

    def __init__(self, logits: Tensor) -> None:
        self.log_probs = full_precision(logits).log_softmax(1)
        self.levels = logits.shape[1]
        self.event_dims = logits.ndim - 2

    @property
    def mean(self) -> Tensor:
        """Σ_k p_k k/(L − 1)."""
        grid = torch.linspace(0, 1, self.levels, dtype=self.log_probs.dtype, device=self.log_probs.device)
        # no product of matrices, which autocast would round
        return (self.log_probs.exp() * grid.view(-1, *[1] * self.event_dims)).sum(1)

    def log_prob_per_dim(self, x: Tensor) -> Tensor:
        """The log-probability of x's level."""
        codes = to_codes(x, self.levels)
        size = torch.broadcast_shapes(codes.shape, self.log_probs[:, 0].shape)
        log_probs = self.log_probs.expand(size[0], self.levels, *size[1:])
        return log_probs.gather(1, codes.expand(size).unsqueeze(1)).squeeze(1)

    def sample(self, generator: Generator | None = None, *, batch_dim: int = 0) -> Tensor:
        """By the Gumbel-max trick: argmax_k (ℓ_k + Gumbel noise)."""
        size = self.log_probs.shape
        noise = uniform(size, like=self.log_probs, generator=generator, batch_dim=batch_dim)
        gumbel = -(-noise.clamp_min(torch.finfo(noise.dtype).tiny).log()).log()
        return from_codes((self.log_probs + gumbel).argmax(1), self.levels).to(self.log_probs.dtype)


@dataclass(frozen=True)
class DiscretisedLogistic(Likelihood):
    """A mixture of logistic distributions, integrated over the bins of the levels (Salimans et al. 2017, eq. 2).

    p(x) = Σ_i π_i [σ((x + ½ − μ_i)/s_i) − σ((x − ½ − μ_i)/s_i)] in units of a bin, where the lowest and the highest
    bin reach to ∓∞, so that the mass is one.

    Args:
        mixtures: how many components, at least 1.
    """

    mixtures: int = 1

    def __post_init__(self) -> None:
        if self.mixtures < 1:
            raise ValueError(f"mixtures={self.mixtures}: a DiscretisedLogistic needs at least one component.")

    def num_parameters(self, levels: int | None) -> int:
        """A location and a log-scale for each component, and a logit where there are several."""
        _discrete(levels, self)
        return 2 if self.mixtures == 1 else 3 * self.mixtures

    def output(self, parameters: Tensor, levels: int | None) -> "DiscretisedLogisticOutput":
        """From locations, log-scales (and logits), each (B, mixtures, *shape), one after the other along dim 1."""
        return DiscretisedLogisticOutput(full_precision(parameters), self.mixtures, _discrete(levels, self))


class DiscretisedLogisticOutput(Output):
    """Independent dimensions; locations and scales are in the units of data scaled to [−1, 1]."""

    def __init__(self, parameters: Tensor, mixtures: int, levels: int) -> None:
        self.levels, self.event_dims = levels, parameters.ndim - 2
        chunks = parameters.split(mixtures, dim=1)
        self.location, self.log_scale = chunks[0], chunks[1].clamp_min(MIN_LOG_SCALE)
        logits = chunks[2] if mixtures > 1 else torch.zeros_like(self.location)
        self.log_weight = logits.log_softmax(1)

    @property
    def mean(self) -> Tensor:
        """The mixture's mean location, clipped to [0, 1]."""
        location = (self.log_weight.exp() * self.location).sum(1)
        return ((location + 1) / 2).clamp(0, 1)

    def log_prob_per_dim(self, x: Tensor) -> Tensor:
        """The mass of its bin, log Σ_i π_i P_i(bin of x)."""
        log_mass = log_bin_mass((2 * x - 1).unsqueeze(1), self.location, self.log_scale, self.levels)
        return (self.log_weight + log_mass).logsumexp(1)

    def sample(self, generator: Generator | None = None, *, batch_dim: int = 0) -> Tensor:
        """A component by Gumbel-max, a logistic by its inverse distribution function, rounded to the grid."""
        noise = uniform(
            (2, *self.location.shape), like=self.location, generator=generator, batch_dim=batch_dim + 1
        ).clamp(1e-7, 1 - 1e-7)
        gumbel = -(-noise[0].log()).log()
        chosen = (self.log_weight + gumbel).argmax(1, keepdim=True)
        logistic = noise[1].log() - (-noise[1]).log1p()
        y = (self.location + self.log_scale.exp() * logistic).gather(1, chosen).squeeze(1)
        return to_grid((y + 1) / 2, self.levels)


@dataclass(frozen=True)
class Gaussian(Likelihood):
    """A normal distribution for each dimension; for discrete data integrated over the bins of the levels.

    Args:
        scale: the standard deviation in the data's own units (of points that are standardised, in standard deviations
            of each column); None lets the network state it.
    """

    scale: float | None = None

    def __post_init__(self) -> None:
        if self.scale is not None and not self.scale > 0:
            raise ValueError(f"scale={self.scale}: a Gaussian's standard deviation must be positive, or None.")

    def num_parameters(self, levels: int | None) -> int:
        """The mean, and the log-scale where it is learned."""
        return 1 if self.scale is not None else 2

    def output(self, parameters: Tensor, levels: int | None) -> "GaussianOutput":
        """From means (and log-scales) of shape (B, 1 or 2, *shape)."""
        parameters = full_precision(parameters)
        location = parameters.select(1, 0)
        if self.scale is not None:
            scale = torch.full_like(location, self.scale)
        else:
            scale = parameters.select(1, 1).clamp_min(MIN_LOG_SCALE).exp()
        return GaussianOutput(location, scale, levels)


class GaussianOutput(Output):
    """Independent dimensions with location and scale of shape (B, *shape) in the data's units."""

    def __init__(self, location: Tensor, scale: Tensor, levels: int | None) -> None:
        self.location, self.scale, self.levels = location, scale, levels
        self.event_dims = location.ndim - 1

    @property
    def mean(self) -> Tensor:
        """The location; clipped to [0, 1] for discrete data."""
        return self.location if self.levels is None else self.location.clamp(0, 1)

    def log_prob_per_dim(self, x: Tensor) -> Tensor:
        """The log-density, or for discrete data log [Φ(upper edge) − Φ(lower edge)] of x's bin."""
        if self.levels is None:
            z = (x - self.location) / self.scale
            return -0.5 * z.square() - self.scale.log() - 0.5 * math.log(2 * math.pi)
        z = (x - self.location) / self.scale
        half = 0.5 / (self.levels - 1) / self.scale  # a bin in σ
        level = to_codes(x, self.levels)
        lowest, highest = level == 0, level == self.levels - 1
        # Φ(z + half) − Φ(z − half) = Φ(a) − Φ(b): on the side where both are small no digits are lost
        a = half + torch.where(lowest, z, torch.where(highest, -z, -z.abs()))
        b = a - 2 * half
        # ln Φ(a) = −a²/2 + ln ½ erfcx(−a/√2): far out the square is all there is, and in ln Φ(a) − ln Φ(b), where two
        # of them nearly cancel, it is left out
        far, rest_a, rest_b = a < -1, _log_mills(a.clamp_max(-1)), _log_mills(b.clamp_max(-1))
        near_a, near_b = torch.special.log_ndtr(a.clamp_min(-1)), torch.special.log_ndtr(b.clamp_min(-30))
        log_a = torch.where(far, rest_a - a.square() / 2, near_a)
        fall = torch.where(far, rest_a - rest_b + 2 * half * z.abs(), near_a - near_b)
        return log_a + torch.where(lowest | highest, 0.0, _log1mexp(fall))

    def sample(self, generator: Generator | None = None, *, batch_dim: int = 0) -> Tensor:
        """By the inverse distribution function; rounded to the grid for discrete data."""
        noise = uniform(self.location.shape, like=self.location, generator=generator, batch_dim=batch_dim)
        x = self.location + self.scale * torch.special.ndtri(noise.clamp(1e-7, 1 - 1e-7))
        return x if self.levels is None else to_grid(x, self.levels)


def log_bin_mass(y: Tensor, location: Tensor, log_scale: Tensor, levels: int) -> Tensor:
    """The mass of a logistic distribution in the bin of a level, the lowest and the highest reaching to ∓∞.

    Args:
        y: the level, scaled to [−1, 1]: 2k/(levels − 1) − 1.
        location, log_scale: of the distribution in the same units; all three broadcast.
        levels: how many there are.

    Returns:
        log [σ((y + h − location)/scale) − σ((y − h − location)/scale)], h = 1/(levels − 1) being half a bin; nats.
    """
    half_bin, inverse_scale = 1 / (levels - 1), (-log_scale).exp()
    centre, half = (y - location) * inverse_scale, half_bin * inverse_scale
    below_upper, above_lower = F.logsigmoid(half + centre), F.logsigmoid(half - centre)
    # σ(a) − σ(b) = σ(a) σ(−b) (1 − e^(b − a)), which loses no digits where both are near 0 or near 1
    inside = below_upper + above_lower + (-torch.expm1((-2 * half).clamp_max(-1e-20))).log()
    return torch.where(y < half_bin - 1, below_upper, torch.where(y > 1 - half_bin, above_lower, inside))


MIN_LOG_SCALE = -7.0  # as in Salimans et al. 2017: keeps the likelihood of a bin bounded in float32


def _log_mills(a: Tensor) -> Tensor:
    """ln [Φ(a) e^(a²/2)] for a < 0: Mills' ratio but for a constant, and hardly bent."""
    return (torch.special.erfcx(-a / math.sqrt(2)) / 2).log()


def _log1mexp(x: Tensor) -> Tensor:
    """The log of 1 − e^(−x) for x > 0, no digits lost (Mächler 2012); finite, with its gradient, also at x = 0."""
    split = math.log(2)
    small, large = x.clamp(1e-20, split), x.clamp_min(split)
    return torch.where(x < split, (-torch.expm1(-small)).log(), (-torch.exp(-large)).log1p())


def _discrete(levels: int | None, likelihood: Likelihood) -> int:
    if levels is None or levels < 2:
        raise ValueError(
            f"{type(likelihood).__name__} describes discrete data, but the data have levels={levels}."
            " Use Gaussian for continuous data."
        )
    return levels
