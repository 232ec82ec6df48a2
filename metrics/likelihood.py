"""The likelihood of a whole split, as one number that depends on nothing but model and data."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from genzoo.metrics.base import Measure, double
from genzoo.metrics.data import to_module
from genzoo.zoo.drawing import supported
from genzoo.zoo.interface import HasLogProb
from genzoo.zoo.processes import gather, share
from genzoo.zoo.randomness import PerDatum


@runtime_checkable
class CountsDimensions(Protocol):
    """A model whose likelihood leaves out some dimensions of a datum, such as the padding of a sound."""

    def num_observed(self, x: Tensor) -> Tensor:
        """(B,), how many dimensions of each datum `log_prob` counts."""
        ...


class NegativeLogLikelihood(Measure):
    """−log p(x), the mean over data, in nats."""

    higher_is_better = False

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("nll", [], dist_reduce_fx="cat")

    def update(self, log_prob: Tensor) -> None:
        """Adds a batch of log p(x), (B,), in nats, summed over the event."""
        self.nll.append(-double(log_prob.detach()))  # type: ignore[operator, union-attr]

    def compute(self) -> Tensor:
        """The mean, float64; infinite if a datum is impossible.

        Raises:
            ValueError: if there are no data, or some log p(x) is NaN or +∞, which no density is.
        """
        return self._values().mean()

    def standard_error(self) -> float:
        """The standard deviation of the mean under new draws of the data, and of the noise of a bound. Collective."""
        with self.synced():
            nll = self._values()
        return nll.std().item() / math.sqrt(len(nll)) if len(nll) > 1 else math.nan

    def _values(self) -> Tensor:
        nll = self.state("nll")
        if not len(nll):
            raise ValueError("There are no data to evaluate the likelihood of: the loader gave no batch.")
        for what, found in (("NaN", nll.isnan()), ("+∞", nll == -math.inf)):
            if found.any():
                raise ValueError(f"log_prob is {what} for {int(found.sum())} of {len(nll)} data.")
        return nll


class BitsPerDim(NegativeLogLikelihood):
    """Σ −log p(x) / (ln 2 · Σ D) over data: the bits that an ideal code needs for each dimension."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("num_dims", [], dist_reduce_fx="cat")

    def update(self, log_prob: Tensor, num_dims: int | Tensor) -> None:  # type: ignore[override]
        """Adds a batch.

        Args:
            log_prob: (B,), nats, summed over the event.
            num_dims: D, the number of dimensions of a datum; or (B,), that of each.

        Raises:
            ValueError: if a datum has no finite number of dimensions, at least 1.
        """
        super().update(log_prob)
        dims = torch.as_tensor(num_dims, device=log_prob.device).expand_as(log_prob)
        if not ((dims >= 1) & dims.isfinite()).all():
            raise ValueError("BitsPerDim: each datum has a finite number of dimensions, at least 1.")
        self.num_dims.append(double(dims))  # type: ignore[operator, union-attr]

    def compute(self) -> Tensor:
        """Bits per dimension, float64; raises as the nats do."""
        return self._values().sum() / (self.state("num_dims").sum() * math.log(2))

    def standard_error(self) -> float:
        """As of the nats; of a ratio of two means, by the delta method. Collective."""
        with self.synced():
            nll, dims = self._values(), self.state("num_dims")
        rest = nll - dims * (nll.sum() / dims.sum())
        scale = dims.mean().item() * math.log(2) * math.sqrt(len(nll))
        return rest.std().item() / scale if len(nll) > 1 else math.nan


@dataclass(frozen=True)
class Likelihood:
    """−log p(x) over a dataset."""

    nll: float  # nats, the mean over the data
    standard_error: float  # of that mean, from the spread between the data
    bits_per_dim: float | None  # None for continuous data, whose density has no such reading
    bits_per_dim_error: float | None
    num_examples: int


def likelihood_of(
    module: HasLogProb,
    batches: Iterable[Tensor],
    *,
    num_particles: int = 1,
    seed: int = 0,
) -> Likelihood:
    """Evaluates `module.log_prob` on each datum once. Collective: the processes share out the batches.

    Every datum draws its own noise (`PerDatum`), so the figure is the same for any batch size, any order and
    any number of processes.

    Args:
        module: a module with `log_prob`, in evaluation mode. If it also says which dimensions count
            (`CountsDimensions`), bits per dimension are those of these dimensions.
        batches: (B, *shape) each, the same on every process.
        num_particles: passed on to `log_prob`.
        seed: of the noise.

    Raises:
        ValueError: if there are no data, or some log p(x) is NaN or +∞.
    """
    nats, bits, seen = NegativeLogLikelihood(), BitsPerDim(), 0
    for _, x, counts in share(batches):
        options = supported(module.log_prob, num_particles=num_particles, generator=PerDatum(x, seed))
        given = to_module(x, module)
        value = module.log_prob(given, **options)
        if counts:
            nats.update(value)
            bits.update(value, module.num_observed(given) if isinstance(module, CountsDimensions) else x[0].numel())
            seen += len(x)
    num_examples = sum(gather(seen))
    if not num_examples:
        raise ValueError("There are no data to evaluate the likelihood of: the loader gave no batch.")
    nll, error = nats.compute().item(), nats.standard_error()
    if getattr(module, "levels", 0) is None:
        return Likelihood(nll, error, None, None, num_examples)
    return Likelihood(nll, error, bits.compute().item(), bits.standard_error(), num_examples)
