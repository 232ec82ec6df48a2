"""Validations keep step with training, be it bounded by steps, by epochs or by time; by a clock of the tests' own."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from foreign import Foreign, TwoOptimizers, points
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, EarlyStopping, ModelCheckpoint
from running import on_two_processes
from ticking import Clock
from torch.utils.data import DataLoader

from genzoo.callbacks import EvenValidations
from genzoo.datamodules import DigitsDataModule
from genzoo.resuming import FitLoop
from genzoo.zoo import VAE, Cosine

Fit = Callable[..., Any]
Make = Callable[..., Trainer]


class Seen(Callback):
    """The step of each validation, which takes so many seconds of the clock."""

    def __init__(self, clock: Clock | None = None, seconds: float = 0.0) -> None:
        self.steps: list[int] = []
        self.clock, self.seconds = clock, seconds

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            self.steps.append(trainer.global_step)
            if self.clock is not None:
                self.clock.now += self.seconds


@pytest.mark.parametrize("options", [{"max_steps": 50}, {"max_epochs": 10}, {"max_epochs": 10, "max_steps": 60}])
def test_spread_over_steps_the_first_soon_the_last_at_the_end(trainer: Make, fit: Fit, options: dict) -> None:
    seen = Seen()
    fit(trainer(seen, EvenValidations(5), **{"max_epochs": -1} | options))  # epochs of five steps
    assert seen.steps == [1, 10, 20, 30, 40, 50]  # after 1/200 and 1/50, which is the first step, and every fifth


@pytest.mark.parametrize("options", [{"limit_val_batches": 0}, {}])
def test_a_training_without_validations_keeps_its_checkpoints(trainer: Make, tmp_path: Path, options: Any) -> None:
    """They are written at the ends of epochs, as Lightning does of itself."""
    keep, early = ModelCheckpoint(tmp_path), EarlyStopping("train/loss", patience=1, min_delta=1e9)

    class Logs(Foreign):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            loss = super().training_step(batch, batch_idx)
            self.log("train/loss", loss)
            return loss

    run = trainer(EvenValidations(3), keep, early, max_epochs=9, **options)
    run.fit(Logs(), DataLoader(points(40, 0), 8), DataLoader(points(8, 1), 8) if options else None)
    assert Path(keep.best_model_path).is_file() and run.current_epoch == 2


def test_a_trainer_is_used_again_without_validations(trainer: Make, tmp_path: Path) -> None:
    keep, data = ModelCheckpoint(tmp_path, monitor=None), DataLoader(points(40, 0), 8)
    run = trainer(EvenValidations(3), keep, max_epochs=1)
    run.fit(Foreign(), data, DataLoader(points(8, 1), 8))
    before = keep.best_model_path
    run.fit_loop.max_epochs = 2
    run.fit(Foreign(), data)
    assert keep.best_model_path != before and Path(keep.best_model_path).is_file()


def test_steps_of_several_optimizers_are_not_taken_for_batches(trainer: Make, fit: Fit) -> None:
    """Where epochs bound training: `global_step` counts the steps of both."""

    class Batches(Callback):
        def __init__(self) -> None:
            self.seen: list[int] = []

        def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
            if not trainer.sanity_checking:
                self.seen.append(trainer.fit_loop.epoch_loop.total_batch_idx + 1)

    batches = Batches()
    run = trainer(batches, EvenValidations(5), max_epochs=10)
    fit(run, TwoOptimizers())
    assert batches.seen == [1, 10, 20, 30, 40, 50] and run.global_step == 50 + 20  # the second in 2 of 5 batches


def test_spread_over_time(trainer: Make, fit: Fit, clock: Clock) -> None:
    seen = Seen()
    timed = {"max_epochs": -1, "max_time": "00:00:08:20"}  # 500 seconds, and a step takes five
    fit(trainer(clock.ticking(5), seen, EvenValidations(4), **timed))
    assert seen.steps == [1, 2, 25, 50, 75, 100]


def test_those_that_take_long_are_fewer(trainer: Make, fit: Fit, clock: Clock) -> None:
    """A fifth of the time, and the last one, which comes when time is over."""
    seen = Seen(clock, 19.9)
    timed = {"max_epochs": -1, "max_time": "00:00:08:20"}
    fit(trainer(clock.ticking(1), seen, EvenValidations(100), **timed))
    assert seen.steps == [3, 83, 163, 243, 323, 401]  # 80 steps, of a second each, from the end of one to the next


class Break(Checkpoint):
    """Writes after the batch of some step, before a validation that may follow, and breaks the run off."""

    def __init__(self, path: Path, step: int) -> None:
        self.path, self.step = path, step

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)
            raise KeyboardInterrupt


@pytest.mark.parametrize("step", range(1, 16))
def test_a_run_that_goes_on_makes_those_of_one_that_was_never_interrupted(
    trainer: Make, fit: Fit, tmp_path: Path, step: int
) -> None:
    """Within an epoch of five steps and at its end, before a validation and between two."""
    first, second, path = Seen(), Seen(), tmp_path / "at.ckpt"
    with pytest.raises(SystemExit):
        fit(trainer(first, EvenValidations(4), Break(path, step), max_epochs=-1, max_steps=16))
    goes_on = trainer(second, EvenValidations(4), max_epochs=-1, max_steps=16)
    FitLoop.install(goes_on)  # as the command line does
    fit(goes_on, ckpt_path=path)
    assert first.steps + second.steps == [1, 4, 8, 12, 16]


class Worse(Callback):
    """A figure that never gets better, noted when it is looked at."""

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        pl_module.log("val/worse", 1.0)


@pytest.mark.parametrize("first", [True, False])
def test_who_waits_for_a_figure_waits_for_validations(first: bool, trainer: Make, fit: Fit) -> None:
    """Whoever is set up first: before the first validation, which ends no epoch, there is nothing to look at."""
    stopping = EarlyStopping("val/worse", patience=2)
    even = EvenValidations(5)
    seen = Seen()
    fit(trainer(seen, Worse(), *([stopping, even] if first else [even, stopping]), max_epochs=20))
    assert seen.steps == [1, 2, 20]  # in epochs of five steps: 1/200, 1/50 and a fifth of a hundred


def test_what_the_trainer_was_told_goes(trainer: Make, fit: Fit) -> None:
    for options, expected in (
        ({"val_check_interval": 2}, [2, 4, 7, 9]),
        ({"check_val_every_n_epoch": 2}, [10]),
    ):
        seen = Seen()
        fit(trainer(seen, EvenValidations(5), max_epochs=2, **options))
        assert seen.steps == expected


def test_again_with_the_same_trainer(trainer: Make, fit: Fit) -> None:
    seen = Seen()
    made = trainer(seen, EvenValidations(2), max_epochs=-1, max_steps=10)
    module = fit(made)
    made.fit_loop.epoch_loop.max_steps = 20
    fit(made, module)
    assert seen.steps == [1, 5, 10, 20]


def test_again_with_the_same_trainer_after_a_run_that_went_on(trainer: Make, fit: Fit, tmp_path: Path) -> None:
    """From a checkpoint that was written before a validation, which it made up for at once."""
    seen, path = Seen(), tmp_path / "at.ckpt"
    with pytest.raises(SystemExit):
        fit(trainer(EvenValidations(2), Break(path, 5), max_epochs=-1, max_steps=10))
    made = trainer(seen, EvenValidations(2), max_epochs=-1, max_steps=10)
    FitLoop.install(made)
    module = fit(made, ckpt_path=path)
    made.fit_loop.epoch_loop.max_steps = 20
    fit(made, module)
    assert seen.steps == [5, 10, 20]


def test_refused(trainer: Make, fit: Fit) -> None:
    with pytest.raises(ValueError, match="times=0: give at least 1"):
        EvenValidations(0)
    seen = Seen()
    with pytest.raises(ValueError, match="which has no end here: give the Trainer max_steps"):
        fit(trainer(seen, EvenValidations(), max_epochs=-1), Foreign())
    assert not seen.steps


class Alike(Callback):
    """Fails where the processes have other learning rates, or are not in the same validation after the same step."""

    def __init__(self) -> None:
        self.seen = 0

    def compare(self, trainer: Trainer, module: LightningModule) -> None:
        here = torch.tensor([trainer.global_step, trainer.optimizers[0].param_groups[0]["lr"]], dtype=torch.float64)
        both = module.all_gather(here)
        assert bool((both == both[0]).all()), both

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        time.sleep(0.05 * (1 + trainer.global_rank))  # their clocks tell them apart
        self.compare(trainer, pl_module)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            self.seen += 1
            self.compare(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert self.seen >= 1 and trainer.optimizers[0].param_groups[0]["lr"] < 1e-3


def test_two_processes_go_by_one_clock(trainer: Make) -> None:
    """Else one would wait for the other, which does not validate, for ever."""
    model = VAE((1, 8, 8), 17, latent_dim=2, network="mlp", width=8, depth=1, lr_scheduler=Cosine)
    timed = {"max_epochs": -1, "max_time": "00:00:00:04", **on_two_processes()}
    trainer(EvenValidations(5), Alike(), **timed).fit(model, DigitsDataModule(limit=64, batch_size=8))
