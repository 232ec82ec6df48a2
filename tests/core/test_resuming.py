"""A run finds its place again wherever its checkpoint was written: the same batches and validations follow."""

from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from genzoo.callbacks import Newest
from genzoo.datamodules import DigitsDataModule
from genzoo.resuming import FitLoop

BATCHES = 3  # in an epoch
QUIET = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}


class Diary(LightningModule):
    """Notes what happens to it: (epoch, step, sum of the batch), and (step, batches) of each whole validation."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.notes: list[tuple[Any, ...]] = []
        self.validated = 0

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        x = batch[0]
        epoch = self.trainer.fit_loop.epoch_progress.current.processed
        self.notes.append((epoch, self.trainer.global_step, float(x.sum())))
        return (self.weight - x.mean()).square()

    def on_validation_epoch_start(self) -> None:
        self.validated = 0

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.validated += 1

    def on_validation_epoch_end(self) -> None:
        if not self.trainer.sanity_checking:
            self.notes.append(("validated", self.trainer.global_step, self.validated))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Cut(Exception):
    """A power cut, just after a checkpoint."""


class CutAt(Callback):
    def __init__(self, hook: str, step: int, path: Path):
        self.step, self.path, self.done = step, path, False
        setattr(self, hook, self.cut)

    def cut(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        if trainer.global_step == self.step and not trainer.sanity_checking:
            trainer.save_checkpoint(self.path)
            raise Cut


def fit(bounds: dict[str, Any], *callbacks: Callback, ours: bool = True, ckpt_path: Path | None = None) -> list[Any]:
    """Trains, and returns what the module noted."""
    module = Diary()
    given = {"limit_val_batches": 2, **bounds, **QUIET}
    checkpoints = any(isinstance(callback, Newest) for callback in callbacks)
    trainer = Trainer(**given, enable_checkpointing=checkpoints, callbacks=list(callbacks))
    if ours:
        FitLoop.install(trainer)
    with suppress(Cut):
        trainer.fit(module, datamodule=DigitsDataModule(limit=24, batch_size=8), ckpt_path=ckpt_path)
    return module.notes


HOOKS = ("on_train_batch_end", "on_validation_batch_end", "on_validation_end", "on_train_epoch_end", "on_train_end")
BOUNDS = {
    "epochs": {"max_epochs": 3},
    "steps": {"max_steps": 8},
    "both, steps first": {"max_epochs": 3, "max_steps": 8},
    "both, epochs first": {"max_epochs": 3, "max_steps": 99},
}
VALIDATIONS = {
    "every epoch": {},
    "every second epoch": {"check_val_every_n_epoch": 2},
    "within epochs": {"val_check_interval": 2, "check_val_every_n_epoch": None},
    "every step": {"val_check_interval": 1},
    "never": {"limit_val_batches": 0},
}
QUICK = ("both, steps first", "both, epochs first")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("validation", VALIDATIONS)
@pytest.mark.parametrize("bound", [pytest.param(b, marks=() if b in QUICK else pytest.mark.slow) for b in BOUNDS])
def test_the_place_is_found_again(bound: str, validation: str, tmp_path: Path) -> None:
    """Wherever a checkpoint can be written: in every hook of every step."""
    bounds = BOUNDS[bound] | VALIDATIONS[validation]
    whole = fit(bounds)
    num_cuts = 0
    for hook, step in product(HOOKS, range(1, 10)):
        path = tmp_path / f"{hook}-{step}.ckpt"
        before = fit(bounds, CutAt(hook, step, path))
        if path.exists():
            num_cuts += 1
            assert before + fit(bounds, ckpt_path=path) == whole, f"cut at {hook}, step {step}"
    assert num_cuts > 10


@pytest.mark.filterwarnings("ignore")
def test_lightning_alone_loses_an_epoch(tmp_path: Path) -> None:
    """Or `FitLoop` could go."""
    bounds = BOUNDS["both, epochs first"]
    before = fit(bounds, CutAt("on_train_epoch_end", BATCHES, tmp_path / "cut.ckpt"), ours=False)
    after = fit(bounds, ours=False, ckpt_path=tmp_path / "cut.ckpt")
    assert len(before + after) == len(fit(bounds, ours=False)) - (BATCHES + 1)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("steps", [3, 4, 6])
@pytest.mark.parametrize("validation", VALIDATIONS)
def test_training_longer_is_having_trained_longer(validation: str, steps: int, tmp_path: Path) -> None:
    """A run that `max_steps` ended within an epoch goes on within it."""
    how = VALIDATIONS[validation]
    before = fit({"max_steps": steps} | how, Newest(tmp_path))
    assert before + fit({"max_steps": 8} | how, ckpt_path=tmp_path / "last.ckpt") == fit({"max_steps": 8} | how)


@pytest.mark.filterwarnings("ignore")
def test_the_broken_epoch_of_an_older_checkpoint_goes_on(tmp_path: Path) -> None:
    """Which counts it as a whole one: Lightning wrote it when training was over."""
    before = fit({"max_steps": 4}, CutAt("on_train_end", 4, tmp_path / "cut.ckpt"))
    assert before + fit({"max_steps": 8}, ckpt_path=tmp_path / "cut.ckpt") == fit({"max_steps": 8})
