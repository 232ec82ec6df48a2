"""The likelihood of a whole split, as one number that depends on nothing but model and data."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from genzoo.callbacks.data import SPLITS, first_rows, split_batches, to_module
from genzoo.callbacks.sampling import due, seeded, supported
from genzoo.zoo.interface import HasLogProb
from genzoo.zoo.processes import gather, share
from genzoo.zoo.randomness import PerDatum

KINDS = {"exact": "exact", "lower_bound": "bound", "estimate": "estimate"}  # log_prob_kind, as it is logged


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


class LikelihoodLogger(Callback):
    """Logs the negative log-likelihood of a whole split, sharper than training can afford.

    The names say what the number is. With `log_prob_kind` "lower_bound" and 100 particles they are
    `val/nll_bound_k100` (nats; an upper bound on −log p) and `val/bits_per_dim_bound_k100`; an exact
    likelihood is `val/nll_exact`, an estimate `val/nll_estimate_k100`. Bits per dimension are left out for
    continuous data.

    Each datum counts once, also in a ragged last batch and over several processes. Averaged weights (`EMA`)
    are in force, in whatever order the callbacks are listed; the sanity check is skipped.

    Args:
        num_particles: K of the bound; a model with an exact likelihood ignores it.
        split: "train", "val" or "test".
        every_n_epochs: at every n-th epoch's validation, and at the last.
        seed: of the noise.

    Raises:
        ValueError: at construction on arguments out of range; before training if the module has no
            `log_prob`.
    """

    def __init__(self, num_particles: int = 100, split: str = "val", every_n_epochs: int = 1, seed: int = 0) -> None:
        if split not in SPLITS:
            raise ValueError(f"LikelihoodLogger: split={split!r} must be one of {', '.join(SPLITS)}.")
        if num_particles < 1 or every_n_epochs < 1:
            raise ValueError(
                "LikelihoodLogger: num_particles and every_n_epochs must be at least 1, but they are"
                f" {num_particles} and {every_n_epochs}."
            )
        self.num_particles = num_particles
        self.split = split
        self.every_n_epochs = every_n_epochs
        self.seed = seed

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuses a module that has no likelihood, before training starts."""
        if not isinstance(pl_module, HasLogProb):
            raise ValueError(
                f"LikelihoodLogger: {type(pl_module).__name__} has no likelihood (`log_prob`, `bits_per_dim`"
                " and `log_prob_kind`). Take the callback away."
            )

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Evaluates on all ranks, each its share, and logs the same on each."""
        if not due(trainer, self.every_n_epochs):
            return
        assert isinstance(pl_module, HasLogProb)  # setup has seen to it
        with seeded(self.seed), torch.inference_mode():  # reading data may draw, too
            rows = first_rows(split_batches(trainer, self.split), None)
            result = likelihood_of(pl_module, rows, num_particles=self.num_particles, seed=self.seed)
        kind = KINDS[pl_module.log_prob_kind]
        suffix = kind if kind == "exact" else f"{kind}_k{self.num_particles}"
        pl_module.log(f"{self.split}/nll_{suffix}", result.nll, prog_bar=True)
        if result.bits_per_dim is not None:
            pl_module.log(f"{self.split}/bits_per_dim_{suffix}", result.bits_per_dim)
