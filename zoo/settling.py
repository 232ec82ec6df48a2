"""What a model fits beside its weights to the data last trained on: a density of codes, the variances of a chain.

It has to fit the weights that somebody looks at: those of a validation, of a checkpoint, of the model that a training
hands back. With `EMA` these are the average.
"""

import math
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn

from genzoo.zoo.modality import from_codes, to_codes
from genzoo.zoo.module import ZooModule
from genzoo.zoo.processes import gather


class SettlingModule(ZooModule):
    """The base of a family that fits such a thing: before each validation, and when training ends.

    Where no validation comes before a checkpoint, also at the end of training and after its first epoch, and after
    others as soon as so much was trained on that the time hardly counts (`settles_after` data).

    A family remembers data in `_seen`, and fits to them in `fit_to_seen`.
    """

    gathered = (*ZooModule.gathered, "_seen", "_since")
    settles = True

    #: the data last trained on
    _seen: list[Any]
    #: "data": how many were trained on since something was fitted to them; nothing, if nothing was
    _since: dict[str, int]

    @abstractmethod
    def fit_to_seen(self) -> None:
        """Fits to `_seen`, in which there is something. Collective."""

    def count_seen(self, number: int) -> None:
        """So many more."""
        if self._since:
            self._since["data"] += number

    def as_seen(self, x: Tensor) -> Tensor:
        """Data as they are remembered, and kept in checkpoints: those with levels as codes of a few bits."""
        x = x.detach()
        if self.levels is None:
            return x.clone()
        return to_codes(x, self.levels, self.modality).to(torch.uint8 if self.levels <= 256 else torch.int32)

    def from_seen(self, seen: Tensor) -> Tensor:
        """What was remembered, as it was; checkpoints of earlier versions have data with levels as they are."""
        if self.levels is None or seen.is_floating_point():
            return seen
        return from_codes(seen, self.levels, self.modality).to(self.like.dtype)

    def settle(self, least: int = 1) -> None:
        """See `ZooModule`; a training alone fits, for to measure a model is not to change it."""
        if self.trainer.state.fn != TrainerFn.FITTING:
            return
        seen, due = zip(*gather((bool(self._seen), self._since.get("data", math.inf) >= least)), strict=True)
        if all(seen) and any(due):
            self.fit_to_seen()
            self._since = {"data": 0}


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode, as of a model that is looked at; then each part's own mode again."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, training in modes.items():
            part.training = training
