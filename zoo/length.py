"""How long a training is, in steps or in time, and how far it has come.

`max_steps` or `max_epochs` say how many steps a Trainer makes, and then a time limit is no more than that: the run
may break off there, to go on later. Where neither is given, `max_time` is all that is known of a training's length,
and how far it has come is the share of that time that has passed, validations included.
"""

import math

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Timer

from genzoo.zoo.processes import world_size


def num_steps(trainer: Trainer) -> int | None:
    """The optimiser steps of the whole training; None where no number of steps or epochs bounds it."""
    steps = trainer.estimated_stepping_batches
    return int(steps) if 0 <= steps < math.inf else None


def steps_done(trainer: Trainer) -> int:
    """How many of them are made.

    A module that steps several optimisers itself has all their steps counted, but where epochs bound its training,
    `num_steps` is of its batches, and then so is this, with the one that is under way.
    """
    if trainer.lightning_module.automatic_optimization or num_steps(trainer) == trainer.max_steps:
        return trainer.global_step
    return trainer.fit_loop.epoch_loop.total_batch_idx + 1


def steps_per_batch(trainer: Trainer) -> float:
    """How many of them a batch makes, by those that are made."""
    batches = trainer.fit_loop.epoch_loop.total_batch_idx + 1
    if trainer.lightning_module.automatic_optimization or not steps_done(trainer):
        return 1 / trainer.accumulate_grad_batches
    return steps_done(trainer) / max(1, batches)


def time_limit(trainer: Trainer) -> Timer | None:
    """What ends the training after some time, if anything does. It counts on in a run that is resumed."""
    timers = [callback for callback in trainer.callbacks if isinstance(callback, Timer)]  # type: ignore[attr-defined]
    return next((timer for timer in timers if timer.time_remaining() is not None), None)


def share_of_time(timer: Timer) -> float:
    """How much of its time has passed, in [0, 1]."""
    passed, left = timer.time_elapsed(), timer.time_remaining() or 0.0
    return min(1.0, passed / (passed + left)) if passed + left > 0 else 1.0


def share_done(trainer: Trainer) -> float | None:
    """How far the training has come, in [0, 1]; None where nothing bounds it.

    In steps, where their number is known; else in time, by the first process's clock. Collective.
    """
    if (steps := num_steps(trainer)) is not None:
        return min(1.0, steps_done(trainer) / max(1, steps))
    if (timer := time_limit(trainer)) is None:
        return None
    share = share_of_time(timer)
    return trainer.strategy.broadcast(share) if world_size() > 1 else share


def has_validations(trainer: Trainer) -> bool:
    """Whether the Trainer's run stops to validate: it has the data, and an epoch at whose end it does."""
    empty = trainer.val_dataloaders is not None and not sum(trainer.num_val_batches)
    every, epochs = trainer.check_val_every_n_epoch, trainer.max_epochs
    never = every is not None and epochs is not None and 0 <= epochs < every
    return trainer.enable_validation and not empty and not never
