"""How long it will take: said as soon as it is known."""

import time
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torch.nn import UninitializedParameter

from genzoo.zoo.length import num_steps, steps_done, steps_per_batch, time_limit
from genzoo.zoo.processes import world_size

WARM = 2  # batches, in which kernels are chosen and memory is found
MEASURED = 16  # batches, in which penalties that are due in some of them alone come up
PATIENCE = 5.0  # seconds after which fewer must do


class Forecast(Callback):
    """Says before the first step how many parameters there are, how many steps, or until when; then how fast.

    After the first batches it says samples/s, and when training will end after how many steps: a rate known before
    would be that of another program. The time of validations is not in it, as far as steps bound training; nor is
    what comes after training.
    """

    def __init__(self) -> None:
        self._batches = 0  # of this training so far; -1: it is said
        self._since = self._spent = 0.0  # when the last one, or a validation, was over; seconds of those that count

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Says what is known, and begins to count."""
        self._batches, self._spent = (-1 if trainer.fast_dev_run else 0), 0.0  # type: ignore[attr-defined]
        if self._batches == 0:
            rank_zero_info(", ".join([_parameters(pl_module), *_bounds(trainer)]))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Takes the time of the first batches, at whose ends the device is waited for."""
        if self._batches < 0:
            return
        self._batches += 1
        now, measured = _now(pl_module), self._batches - WARM
        if measured > 0:
            self._spent += now - self._since
        self._since = now
        if measured == MEASURED or self._spent > PATIENCE:
            self._batches = -1
            rank_zero_info(_in_words(trainer, _size(batch), self._spent / measured))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The time of a validation is not the batches'."""
        self._since = time.monotonic()


def _parameters(module: LightningModule) -> str:
    """How many, as far as that is known before a batch was seen."""
    lazy = [isinstance(parameter, UninitializedParameter) for parameter in module.parameters()]
    number = sum(p.numel() for p, unknown in zip(module.parameters(), lazy, strict=True) if not unknown)
    return f"{number:,} parameters" + (" and those that the first batch makes" if any(lazy) else "")


def _bounds(trainer: Trainer) -> list[str]:
    """What ends the training: so many steps, a time, whichever comes first of both, or neither."""
    steps, limit = num_steps(trainer), time_limit(trainer)
    bounds = [] if steps is None else [f"{steps:,} steps"]
    if limit is not None:
        bounds.append(f"until {_clock(limit.time_remaining() or 0.0)} at most")
    return bounds


def _in_words(trainer: Trainer, batch_size: int, pace: float) -> str:
    """`pace` is seconds for a batch."""
    said = f"{batch_size * world_size() / pace:,.3g} samples/s"
    step = pace / steps_per_batch(trainer)
    steps, limit, done = num_steps(trainer), time_limit(trainer), steps_done(trainer)
    left = None if limit is None else max(0.0, limit.time_remaining() or 0.0)
    if steps is not None and (left is None or (steps - done) * step < left):
        left = (steps - done) * step
        said += f": {steps:,} steps"
    elif left is not None:
        about = done + round(left / step)
        said += f": about {about:,} steps" + ("" if steps is None else f" of {steps:,}")
    else:
        return said
    return f"{said} until {_clock(left)}, in {timedelta(seconds=round(left))}"


def _now(module: LightningModule) -> float:
    if module.device.type == "cuda":
        torch.cuda.synchronize(module.device)
    return time.monotonic()


def _size(batch: Any) -> int:
    x = batch.get("x") if isinstance(batch, Mapping) else batch[0] if isinstance(batch, list | tuple) else batch
    return len(x) if isinstance(x, Tensor) else 1


def _clock(seconds: float) -> str:
    """What a clock will show then; and the day, if it is another."""
    now = datetime.now()
    then = now + timedelta(seconds=seconds)
    return f"{then:%H:%M}" if then.date() == now.date() else f"{then:%H:%M on %d %B}"
