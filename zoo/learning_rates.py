"""Learning-rate schedules that last as long as training does: the Trainer's steps, not a number of their own.

`ZooModule` gives the Trainer's `total_steps` to every schedule that takes it and was given none, torch's `OneCycleLR`
among them. So a run with another `max_steps` has another schedule, and one that is resumed in order to train longer
goes on at the same step of the longer schedule.

Where a time limit alone bounds training, nobody knows how many steps it will make. Such a schedule has `TICKS` steps,
and goes through as many of them as time has passed, be the machine fast or slow, or busy for a while with other
things: after each step of the optimiser it catches up with the clock.
"""

import inspect
import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal

from lightning.pytorch import Trainer
from lightning.pytorch.cli import LRSchedulerCallable
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.types import LRSchedulerConfig
from torch.optim import Optimizer
from torch.optim.lr_scheduler import (
    ChainedScheduler,
    ConstantLR,
    CosineAnnealingLR,
    LinearLR,
    LRScheduler,
    OneCycleLR,
    ReduceLROnPlateau,
    SequentialLR,
)

from genzoo.zoo.length import num_steps, share_done, time_limit

#: steps of a schedule that goes by the clock
TICKS = 10_000


class OneCycle(OneCycleLR):
    """A rise of the learning rate and a long fall (Smith & Topin 2019): torch's `OneCycleLR` over all of training.

    Args:
        optimizer: whose rate is set.
        max_lr: the highest rate, of all parameter groups or of each.
        total_steps: how many steps the schedule has; None: as many as training.
        pct_start: the share of them in which the rate rises, from max_lr / div_factor.
        anneal_strategy: how it rises and falls.
        cycle_momentum: whether the momentum (β₁) falls and rises inversely, between the two below.
        base_momentum: the lowest.
        max_momentum: the highest.
        div_factor: max_lr over the rate of the first step.
        final_div_factor: the rate of the first step over that of the last.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        max_lr: float | list[float],
        total_steps: int | None = None,
        pct_start: float = 0.3,
        anneal_strategy: Literal["cos", "linear"] = "cos",
        cycle_momentum: bool = True,
        base_momentum: float | list[float] = 0.85,
        max_momentum: float | list[float] = 0.95,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
    ) -> None:
        # a rise or a fall of no steps, whose share torch divides by
        if pct_start == 1 or (total_steps is not None and pct_start * total_steps == 1):
            pct_start = math.nextafter(pct_start, 0)
        super().__init__(
            optimizer,
            max_lr,
            total_steps,
            pct_start=pct_start,
            anneal_strategy=anneal_strategy,
            cycle_momentum=cycle_momentum,
            base_momentum=base_momentum,
            max_momentum=max_momentum,
            div_factor=div_factor,
            final_div_factor=final_div_factor,
        )


class Cosine(CosineAnnealingLR):
    """Half a cosine from the optimiser's rate down to `eta_min` (Loshchilov & Hutter 2017), over all of training.

    Args:
        optimizer: whose rate is set.
        total_steps: how many steps the schedule has; None: as many as training.
        eta_min: the rate at the end.

    Raises:
        ValueError: if nobody says how long it is.
    """

    def __init__(self, optimizer: Optimizer, total_steps: int | None = None, eta_min: float = 0.0) -> None:
        if total_steps is None:
            raise ValueError("Cosine: total_steps is missing; only in a ZooModule's training is it the Trainer's.")
        super().__init__(optimizer, total_steps, eta_min)

    @property
    def total_steps(self) -> int:
        """How many steps the schedule has."""
        return self.T_max


class WarmUp(SequentialLR):
    """A rise from almost nothing in the first steps, and then another schedule, over what is left of training.

    Args:
        optimizer: whose rate is set.
        steps: of the rise, which is linear and ends at the rate that the other schedule begins with. Where a time
            limit alone bounds training, they are ten-thousandths of its time.
        then: builds the other schedule; None: constant.
        total_steps: of both together; None: as many as training.

    Raises:
        ValueError: if the rise is no step long, or leaves nothing for the other schedule; if that one is over before
            `total_steps`, or is none that can follow.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        steps: int,
        then: LRSchedulerCallable | None = None,
        total_steps: int | None = None,
    ) -> None:
        if steps < 1 or (total_steps is not None and steps >= total_steps):
            raise ValueError(
                f"WarmUp: steps={steps} of {'any number' if total_steps is None else total_steps}: the rise takes at"
                " least one step, and fewer than training."
            )
        then = then or partial(ConstantLR, factor=1.0)
        left, stated = None if total_steps is None else total_steps - steps, _stated_steps(then)
        if left is not None and stated is not None and stated < left:
            raise ValueError(
                f"WarmUp: the schedule after it is over after total_steps={stated}, but {left} steps are left: leave"
                " its total_steps out, and it lasts as long as training."
            )
        other = then(optimizer) if left is None or stated is not None else _build(then, optimizer, left)
        if not isinstance(other, LRScheduler) or isinstance(other, ReduceLROnPlateau):
            raise ValueError(f"WarmUp: {type(other).__name__} waits for a figure, so nothing can come before it.")
        if isinstance(other, SequentialLR | ChainedScheduler):
            raise ValueError(
                f"WarmUp: {type(other).__name__} consists of schedules, and PyTorch lets none precede it."
            )
        rise = LinearLR(optimizer, start_factor=1 / (steps + 1), total_iters=steps)
        self.total_steps = total_steps
        super().__init__(optimizer, [rise, other], milestones=[steps])


# ------------------------------------------------------------------------------------------- what a ZooModule does

Schedule = LRScheduler | ReduceLROnPlateau
NEVER = 2**62  # epochs
TRIED = 10**6  # steps of the training that a `fast_dev_run` tries a few of


def schedule_for(builder: LRSchedulerCallable, optimizer: Optimizer, trainer: Trainer | None) -> Schedule:
    """The schedule that `builder` makes of an optimiser, as long as the Trainer trains unless it says how long.

    Raises:
        ValueError: before training, if it is over sooner than training, or training has no end; or if it waits for a
            figure and does not name it.
    """
    total_steps = _total_steps(builder, trainer)
    made = builder(optimizer) if total_steps is None else _build(builder, optimizer, total_steps)
    if total_steps is None and trainer is not None:  # a function that says so inside
        _check_length(getattr(made, "total_steps", None), trainer)
    if isinstance(made, ReduceLROnPlateau):
        monitor(made)
    return made


def monitor(plateau: ReduceLROnPlateau) -> str:
    """The figure that a schedule waits for."""
    if isinstance(name := getattr(plateau, "monitor", None), str):
        return name
    raise ValueError(
        "ReduceLROnPlateau does not say which figure it waits for: take lightning.pytorch.cli.ReduceLROnPlateau, with"
        " monitor: val/nll, say."
    )


def timetable(plateau: ReduceLROnPlateau, trainer: Trainer | None) -> dict[str, Any]:
    """When a schedule looks at the figure that it waits for, as Lightning is told.

    That is each epoch; or each that ends with a validation, where the figure is one of these. Where validations do
    not follow epochs, Lightning would take an old figure for one that has not improved. There it is told never to
    look, and `look_at` does so after each validation.

    Raises:
        ValueError: if it waits for a figure of validations in a run that has none.
    """
    figure, frequency = monitor(plateau), 1
    if trainer is not None and figure.startswith("val/"):
        if not trainer.enable_validation:
            raise ValueError(
                f"ReduceLROnPlateau waits for {figure}, but this run has no validation (limit_val_batches="
                f"{trainer.limit_val_batches}, or data without a split for it): let it have one, or wait for"
                " train/loss."
            )
        interval = getattr(trainer, "val_check_interval", None)  # of validations that go by the clock there is none
        with_epochs = isinstance(interval, float) and interval == 1  # 1, an integer, is each batch
        frequency = (trainer.check_val_every_n_epoch if with_epochs else None) or NEVER
    return {"interval": "epoch", "frequency": frequency, "monitor": figure}


def figures_of_plateaus(trainer: Trainer) -> dict[str, float]:
    """What the schedules that wait for validations are to look at after one, by name.

    Raises:
        MisconfigurationException: in Lightning's words, where nothing logs such a figure.
    """
    names = [str(config.monitor) for config in _after_validations(trainer)]
    if missing := [name for name in names if name not in trainer.callback_metrics]:
        raise MisconfigurationException(
            f"ReduceLROnPlateau conditioned on metric {missing[0]} which is not available. Available metrics are:"
            f" {list(trainer.callback_metrics)}."
        )
    return {name: float(trainer.callback_metrics[name]) for name in names}


def look_at(figures: dict[str, float], trainer: Trainer) -> None:
    """Has the schedules that wait for these look at them."""
    for config in _after_validations(trainer):
        if config.monitor in figures:
            config.scheduler.step(figures[config.monitor])  # type: ignore[arg-type]


def _after_validations(trainer: Trainer) -> list[LRSchedulerConfig]:
    return [c for c in trainer.lr_scheduler_configs if c.reduce_on_plateau and c.frequency == NEVER]


def goes_by_time(builder: LRSchedulerCallable, trainer: Trainer) -> bool:
    """Whether the schedule lasts as long as a training that a time limit alone bounds."""
    return _stated_steps(builder) is None and _takes_length(builder) and num_steps(trainer) is None


def schedule_of_stage(builder: LRSchedulerCallable, optimizer: Optimizer) -> LRScheduler:
    """A schedule of `TICKS` steps, for a stage of training: `catch_up` takes it through them.

    Raises:
        ValueError: if it states a length of its own, takes none, or waits for a figure.
    """
    if not _takes_length(builder) or _stated_steps(builder) is not None:
        raise ValueError(
            "lr_scheduler: of a stage of training it lasts as long as that stage, so take one that can (OneCycle,"
            " Cosine, WarmUp), and leave out total_steps."
        )
    schedule = _build(builder, optimizer, TICKS)
    assert isinstance(schedule, LRScheduler)
    return schedule


def catch_up(schedule: LRScheduler, trainer: Trainer, begin: float = 0.0, end: float = 1.0) -> None:
    """Takes a schedule of `TICKS` to where the training is between two shares of it. Collective."""
    now = _ticks(trainer, begin, end)
    while schedule.last_epoch < now:
        schedule.step()


def going_on_in_stage(
    builder: LRSchedulerCallable, restored: LRScheduler, trainer: Trainer, begin: float, end: float
) -> LRScheduler:
    """The schedule of a resumed run's stage: the restored one; or if training is longer, a new one at its place."""
    if 0 < restored.last_epoch <= _ticks(trainer, begin, end):
        return restored
    made = schedule_of_stage(builder, _at_its_beginning(restored.optimizer))
    with _steps_without_optimizer():
        catch_up(made, trainer, begin, end)
    return made


def _ticks(trainer: Trainer, begin: float = 0.0, end: float = 1.0) -> int:
    done = ((share_done(trainer) or 0.0) - begin) / (end - begin)
    return int(TICKS * min(1.0, max(0.0, done)))


def going_on(builder: LRSchedulerCallable, restored: Schedule, trainer: Trainer) -> Schedule:
    """The schedule of a resumed run: the restored one; or a new one at the same place, if that has another length, or
    is none of the checkpoint's and only begins.

    The place is the same step, or where a time limit alone bounds training, the time that it has taken so far.
    """
    total_steps = _total_steps(builder, trainer)
    if total_steps is None and (isinstance(restored, ReduceLROnPlateau) or restored.last_epoch):
        return restored
    by_time = goes_by_time(builder, trainer)
    place = _ticks(trainer) if by_time else trainer.global_step
    in_place = 0 < restored.last_epoch <= place if by_time else restored.last_epoch == place  # 0 if it is another
    if in_place and total_steps == getattr(restored, "total_steps", total_steps):
        return restored
    optimizer = _at_its_beginning(restored.optimizer)
    made = builder(optimizer) if total_steps is None else _build(builder, optimizer, total_steps)
    with _steps_without_optimizer():
        for _ in range(place):
            made.step()
    return made


def _at_its_beginning(optimizer: Optimizer) -> Optimizer:
    """With the learning rates that schedules start from; without a schedule so far, those that it has."""
    for group in optimizer.param_groups:
        group["lr"] = group.get("initial_lr", group["lr"])
    return optimizer


@contextmanager
def _steps_without_optimizer() -> Iterator[None]:
    """PyTorch warns of a schedule that steps before its optimiser, as one that catches up does."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*lr_scheduler.step.*before.*optimizer.step.*")
        yield


def _build(builder: Callable[..., Schedule], optimizer: Optimizer, total_steps: int) -> Schedule:
    takes = _takes_length(builder)
    return partial(builder, total_steps=total_steps)(optimizer) if takes else builder(optimizer)


def _total_steps(builder: LRSchedulerCallable, trainer: Trainer | None) -> int | None:
    """As the schedule was given it, or else the Trainer's; None if it takes none, or there is no Trainer."""
    if not _takes_length(builder):
        return None
    stated = _stated_steps(builder)
    if trainer is None:
        return stated
    if stated is not None:
        _check_length(stated, trainer)
        return stated
    if trainer.fast_dev_run:  # type: ignore[attr-defined]
        return TRIED
    if (steps := num_steps(trainer)) is not None:
        return steps
    if time_limit(trainer) is not None:
        return TICKS
    if trainer.max_epochs not in (None, -1):
        raise ValueError(
            "lr_scheduler lasts as long as training, but these data do not say how many batches an epoch has: give"
            " the Trainer max_steps, or the schedule its total_steps."
        )
    raise ValueError(
        "lr_scheduler lasts as long as training, which has no end here: give the Trainer max_steps, max_epochs or"
        " max_time, or the schedule its total_steps."
    )


def _check_length(total_steps: int | None, trainer: Trainer) -> None:
    steps = None if total_steps is None else num_steps(trainer)
    if steps is not None and total_steps is not None and total_steps < steps:
        raise ValueError(
            f"lr_scheduler is over after total_steps={total_steps}, but training takes {steps} steps: leave"
            " total_steps out, and it lasts as long as training."
        )


def _takes_length(builder: LRSchedulerCallable) -> bool:
    return "total_steps" in _arguments(builder)[1]


def _stated_steps(builder: LRSchedulerCallable) -> int | None:
    """The length that the schedule was given."""
    given, _ = _arguments(builder)
    if given.get("epochs") and given.get("steps_per_epoch"):  # which torch's OneCycleLR takes as well
        return given.get("total_steps") or given["epochs"] * given["steps_per_epoch"]
    return given.get("total_steps")


def _arguments(builder: Callable[..., Any]) -> tuple[dict[str, Any], Any]:
    """The arguments that a builder holds, and those that what it builds takes."""
    held = builder.keywords if isinstance(builder, partial) else {}
    inside = (*builder.args, builder.func) if isinstance(builder, partial) else (builder,)
    target = next(
        (part for part in inside if isinstance(part, type)), inside[-1]
    )  # jsonargparse has it for an argument
    return held, inspect.signature(target).parameters
