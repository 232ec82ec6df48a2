"""From vectors to codes 0 … K − 1 and back: a finite grid, or a codebook that is learned.

    FSQ     each of a few numbers is rounded to one of a few levels (Mentzer et al. 2023)
    VQ      the nearest of K vectors, which follow the data (van den Oord et al. 2017)

Rounding has no gradient. The straight-through estimator takes for it that of what is rounded (Bengio et al. 2013).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from genzoo.zoo.checks import check_count
from genzoo.zoo.precision import MeasuredBuffers
from genzoo.zoo.processes import total, world_size


class Quantisation(ABC):
    """How vectors become codes: the argument of a model, from which it builds a `Quantiser` of its own."""

    @abstractmethod
    def build(self) -> "Quantiser":
        """What does it, with whatever it learns."""


class Quantiser(MeasuredBuffers, ABC):
    """Vectors to codes and back.

    Args:
        dim: d, of a vector.
        num_codes: K.
        commitment: β, nats for each unit of squared distance between a vector and the one that it becomes.
    """

    def __init__(self, dim: int, num_codes: int, commitment: float = 0.0) -> None:
        super().__init__()
        if not 2 <= num_codes <= MOST_CODES:
            raise ValueError(f"{num_codes} codes: give from 2 to {MOST_CODES} of them.")
        self.dim, self.num_codes, self.commitment = dim, num_codes, commitment

    @abstractmethod
    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors (..., d) to those of their codes, with a gradient straight through, and the codes: (...), int64."""

    @abstractmethod
    def vectors(self, codes: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Codes (...), int64 in [0, K), to their vectors, (..., d)."""

    def learn(self, z: Tensor) -> None:
        """Follows the vectors of a training batch, (..., d), before they are quantised. Collective."""


# ----------------------------------------------------------------------------------------- finite scalar quantisation


@dataclass(frozen=True)
class FSQ(Quantisation):
    """Finite scalar quantisation (Mentzer et al. 2023): a vector of d numbers, each one of L_i levels.

    The codes are the grid's points, K = L_1 · … · L_d, so no codebook is learned and none can collapse.

    Args:
        levels: L_1 … L_d, each at least 2. The paper advises 5 or more, and for about 2⁸, 2¹⁰ or 2¹² codes
            (8, 6, 5), (8, 5, 5, 5) or (7, 5, 5, 5, 5) (table 1).
    """

    levels: Sequence[int] = (8, 5, 5, 5)

    def __post_init__(self) -> None:
        if not len(self.levels):
            raise ValueError("levels=[]: a code has at least one number.")
        for number in self.levels:
            check_count("levels", number, least=2)
            if number > MOST_LEVELS:
                raise ValueError(
                    f"levels={list(self.levels)}: a number of a code has at most {MOST_LEVELS:,} levels, as no input"
                    " reaches the outermost of more; take more numbers."
                )

    def build(self) -> "FiniteScalarQuantiser":
        """With these levels."""
        return FiniteScalarQuantiser(self.levels)


class FiniteScalarQuantiser(Quantiser):
    """The grid of `FSQ`, scaled to [−1, 1] (to [−1, 1 − 2/L] where L is even)."""

    levels: Tensor  # (d,) int64
    basis: Tensor  # (d,) int64: what a level counts in the code, 1, L_1, L_1 L_2, …

    def __init__(self, levels: Sequence[int]) -> None:
        levels = [int(number) for number in levels]
        super().__init__(len(levels), math.prod(levels))
        basis = [math.prod(levels[:i]) for i in range(len(levels))]
        self.register_buffer("levels", torch.tensor(levels), persistent=False)
        self.register_buffer("basis", torch.tensor(basis), persistent=False)

    def bound(self, z: Tensor) -> Tensor:
        """f(z) = h tanh(z + s) − o, which rounds to the L levels −⌊L/2⌋ … ⌈L/2⌉ − 1 (appendix A.1 of the paper).

        h = (1 − ε)(L − 1)/2; where L is even the levels lie o = ½ off the middle, and s = tan(o/h) has f(0) ≈ 0.
        """
        half = (self.levels - 1).to(z.dtype) * (1 - EPSILON) / 2
        offset = (self.levels % 2 == 0).to(z.dtype) / 2
        return half * (z + (offset / half).tan()).tanh() - offset

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """round(f(z)) / ⌊L/2⌋, whose gradient is that of f(z) / ⌊L/2⌋, and its codes."""
        bounded, half_width = self.bound(z), self.levels // 2
        rounded = bounded.detach().round()
        codes = ((rounded.long() + half_width) * self.basis).sum(-1)
        return straight_through(rounded, bounded) / half_width, codes

    def vectors(self, codes: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """The digits of each code, scaled as in `forward`."""
        half_width = self.levels // 2
        digits = codes[..., None] // self.basis % self.levels
        return (digits - half_width).to(dtype) / half_width


# ------------------------------------------------------------------------------------------------ vector quantisation


@dataclass(frozen=True)
class VQ(Quantisation):
    """Vector quantisation (van den Oord et al. 2017): the nearest of K vectors, each the mean of what it stands for.

    The means are running ones (their appendix A.1; Razavi et al. 2019), not learned by gradient. A code that the data
    no longer use is dead: it is revived at a vector of the batch (Dhariwal et al. 2020, appendix A), as all of them
    are at the first batch.

    Args:
        num_codes: K.
        dim: d, the size of each vector.
        decay: γ of the running means, in [0, 1).
        commitment: β, how firmly the encoder is held to its codes: nats for each unit of squared distance.
        revive_below: a code is dead whose running use is no more than so much of 1/K of the vectors, which is what
            each has where all are used alike; in [0, 1), 0 for never.
    """

    num_codes: int = 512
    dim: int = 16
    decay: float = 0.99
    commitment: float = 0.25
    revive_below: float = 0.1

    def __post_init__(self) -> None:
        check_count("num_codes", self.num_codes, least=2)
        check_count("dim", self.dim)
        if not (0 <= self.decay < 1 and 0 <= self.revive_below < 1 and 0 <= self.commitment < math.inf):
            raise ValueError(
                f"decay={self.decay}, revive_below={self.revive_below}, commitment={self.commitment}: the first two"
                " lie in [0, 1), and none is negative or infinite."
            )

    def build(self) -> "VectorQuantiser":
        """With a codebook that begins at random, until the first batch."""
        return VectorQuantiser(self)


class VectorQuantiser(Quantiser):
    """The codebook of `VQ`, in buffers: it is saved with the weights, and no optimiser's."""

    #: running means already, of which `EMA` makes no average: a code that was revived would lie between two places
    not_averaged = frozenset({"codebook", "usage"})

    codebook: Tensor  # (K, d)
    usage: Tensor  # (K,), the running number of vectors that each code stands for in a batch; 0 before the first

    def __init__(self, options: VQ) -> None:
        super().__init__(options.dim, options.num_codes, options.commitment)
        self.decay, self.revive_below = options.decay, options.revive_below
        single = torch.float32
        self.register_buffer("codebook", torch.randn(options.num_codes, options.dim, dtype=single))
        self.register_buffer("usage", torch.zeros(options.num_codes, dtype=single))

    def nearest(self, z: Tensor) -> Tensor:
        """argmin_k ‖z − e_k‖ of vectors (N, d): (N,) int64."""
        # in full precision, also under autocast; one way to compute it for all sizes can be exported
        return torch.cdist(z, self.codebook.to(z.dtype), compute_mode="use_mm_for_euclid_dist").argmin(1)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """e_k of the nearest code k, whose gradient is that of z, and the codes."""
        codes = self.nearest(z.detach().flatten(0, -2)).view(z.shape[:-1])
        return straight_through(self.vectors(codes, z.dtype), z), codes

    def vectors(self, codes: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Rows of the codebook."""
        return self.codebook[codes].to(dtype)

    @torch.no_grad()
    def learn(self, z: Tensor) -> None:
        """N_k ← γ N_k + (1 − γ) n_k and e_k ← e_k + (1 − γ) Σ_{i: k_i = k} (z_i − e_k) / N_k.

        n_k of the batch's vectors are nearest to e_k; so e_k is the mean of all that were, weighted as N_k is. Dead
        codes are revived first, at vectors of the batch, with the use of a fair share of them.
        """
        z = z.detach().flatten(0, -2).to(self.codebook.dtype)
        running = self.usage.mean()  # and not this batch's, which may be larger than those before
        fair = torch.where(running > 0, running, total(z.new_full((), len(z))) / self.num_codes)
        dead = self.usage <= self.revive_below * running
        self.codebook.copy_(torch.where(dead[:, None], self.draw(z), self.codebook))
        self.usage.copy_(torch.where(dead, fair, self.usage))

        codes = self.nearest(z)
        counts = total(torch.zeros_like(self.usage).index_add_(0, codes, torch.ones_like(z[:, 0])))
        sums = total(torch.zeros_like(self.codebook).index_add_(0, codes, z))
        tiny = torch.finfo(self.usage.dtype).tiny  # a code that is not used keeps its place, for however long
        self.usage.copy_((self.decay * self.usage + (1 - self.decay) * counts).clamp_min(tiny))
        self.codebook.add_((1 - self.decay) * (sums - counts[:, None] * self.codebook) / self.usage[:, None])

    def draw(self, z: Tensor) -> Tensor:
        """K of the vectors (N, d), none twice before all were once; the same on every process: (K, d)."""
        places = torch.arange(self.num_codes, device=z.device) % len(z)
        drawn = z[torch.randperm(len(z), device=z.device)[places]]
        if world_size() > 1:
            torch.distributed.broadcast(drawn, src=0)
        return drawn


# ----------------------------------------------------------------------------------------------------- what both need


def straight_through(quantised: Tensor, z: Tensor) -> Tensor:
    """The first, to the last bit, with the gradient of the second."""
    return quantised.detach() + (z - z.detach())


EPSILON = 1e-3  # ε of FSQ, by which the outermost levels are reached before z is infinite
MOST_LEVELS = int(1 / EPSILON)  # of one number: of more the outermost are rounded away, as h ε > ½
MOST_CODES = 2**20
