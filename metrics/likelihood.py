"""The likelihood of a whole split, as one number that depends on nothing but model and data."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from genzoo.metrics.data import to_module
from genzoo.zoo.drawing import supported
from genzoo.zoo.interface import HasLogProb
from genzoo.zoo.processes import gather, share
from genzoo.zoo.randomness import PerDatum


@dataclass(frozen=True)
class Likelihood:
    """−log p(x) over a dataset."""

    nll: float  # nats, the mean over the data
    standard_error: float  # of that mean, from the spread between the data
    bits_per_dim: float | None  # None for continuous data, whose density has no such reading
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
        module: a module with `log_prob`, in evaluation mode.
        batches: (B, *shape) each, the same on every process.
        num_particles: passed on to `log_prob`.
        seed: of the noise.

    Raises:
        ValueError: if there are no data, or some log p(x) is NaN.
    """
    values: dict[int, Tensor] = {}
    num_dims = 0
    for index, x, counts in share(batches):
        num_dims = x[0].numel()
        options = supported(module.log_prob, num_particles=num_particles, generator=PerDatum(x, seed))
        value = module.log_prob(to_module(x, module), **options)
        if counts:
            values[index] = value.double().cpu()
    everyone = {index: part for share in gather(values) for index, part in share.items()}
    if not everyone:
        raise ValueError("There are no data to evaluate the likelihood of: the loader gave no batch.")
    nll = -torch.cat([everyone[index] for index in sorted(everyone)])
    if nll.isnan().any():
        raise ValueError(f"log_prob is NaN for {int(nll.isnan().sum())} of {len(nll)} data.")
    mean = nll.mean().item()
    error = nll.std().item() / math.sqrt(len(nll)) if len(nll) > 1 else math.nan
    discrete = getattr(module, "levels", 0) is not None
    return Likelihood(mean, error, mean / (num_dims * math.log(2)) if discrete else None, len(nll))
