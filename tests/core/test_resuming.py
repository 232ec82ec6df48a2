"""A run finds its place again wherever its checkpoint was written: the same batches and validations follow."""

from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, EarlyStopping
from thorough import some
from torch.optim.lr_scheduler import ReduceLROnPlateau

from genzoo.callbacks import Newest
from genzoo.datamodules import DigitsDataModule
from genzoo.resuming import FitLoop

BATCHES = 3  # in an epoch
QUIET = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}


class Diary(LightningModule):
    """Notes what happens to it: each batch with its learning rate, each whole validation, each epoch's end.

    It grows worse all the time, by a figure of its validations and one of its epochs.

    Args:
        monitor: which of them its learning rate depends on, if any.
        every: at every n-th epoch's end.
    """

    def __init__(self, monitor: str | None = None, every: int = 1) -> None:
        super().__init__()
        self.monitor, self.every = monitor, every
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.notes: list[tuple[Any, ...]] = []
        self.validated = 0

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        x = batch[0]
        epoch = self.trainer.fit_loop.epoch_progress.current.processed
        rate = self.trainer.optimizers[0].param_groups[0]["lr"]
        self.notes.append((epoch, self.trainer.global_step, float(x.sum()), rate))
        return (self.weight - x.mean()).square()

    def on_validation_epoch_start(self) -> None:
        self.validated = 0

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.validated += 1

    def on_validation_epoch_end(self) -> None:
        if not self.trainer.sanity_checking:
            self.notes.append(("validated", self.trainer.global_step, self.validated))
            self.log("val/figure", float(self.trainer.global_step))

    def on_train_epoch_end(self) -> None:
        self.notes.append(("ended", self.trainer.global_step))
        self.log("train/figure", float(self.trainer.global_step))

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
        if self.monitor is None:
            return optimizer
        schedule = ReduceLROnPlateau(optimizer, factor=0.9, patience=0)
        config = {"scheduler": schedule, "monitor": self.monitor, "interval": "epoch", "frequency": self.every}
        return {"optimizer": optimizer, "lr_scheduler": config}


class Cut(Exception):
    """A power cut, just after a checkpoint."""


class CutAt(Checkpoint):
    """Writes a checkpoint where those that write checkpoints do: at an epoch's end after the module."""

    def __init__(self, hook: str, step: int, path: Path):
        self.step, self.path, self.done = step, path, False
        setattr(self, hook, self.cut)

    def cut(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        if trainer.global_step == self.step and not trainer.sanity_checking:
            trainer.save_checkpoint(self.path)
            raise Cut


class Reached(Checkpoint):
    """Notes where those that write checkpoints could: each hook, and the steps that are done by then."""

    def __init__(self) -> None:
        self.places: dict[tuple[str, int], None] = {}
        for hook in HOOKS:
            setattr(self, hook, partial(self.note, hook))

    def note(self, hook: str, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        if not trainer.sanity_checking:
            self.places[hook, trainer.global_step] = None


def fit(
    bounds: dict[str, Any],
    *callbacks: Callback,
    ours: bool = True,
    ckpt_path: Path | None = None,
    module: Diary | None = None,
) -> list[Any]:
    """Trains, and returns what the module noted."""
    module = module or Diary()
    given = {"limit_val_batches": 2, **bounds, **QUIET}
    checkpoints = any(isinstance(callback, Checkpoint) for callback in callbacks)
    trainer = Trainer(**given, enable_checkpointing=checkpoints, callbacks=list(callbacks))
    if ours:
        FitLoop.install(trainer)
    with suppress(Cut):
        trainer.fit(module, datamodule=DigitsDataModule(limit=24, batch_size=8), ckpt_path=ckpt_path)
    return module.notes


def without_ends(notes: list[Any]) -> list[Any]:
    """Of batches and validations: a run that is over ends the epoch that it is in, whole or not."""
    return [note for note in notes if note[0] != "ended"]


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
@pytest.mark.parametrize("bound", some(BOUNDS, QUICK.__contains__))
def test_the_place_is_found_again(bound: str, validation: str, tmp_path: Path) -> None:
    """Wherever a checkpoint can be written: in every hook of every step."""
    bounds = BOUNDS[bound] | VALIDATIONS[validation]
    whole = fit(bounds, reached := Reached())
    for hook, step in reached.places:
        path = tmp_path / f"{hook}-{step}.ckpt"
        before = fit(bounds, CutAt(hook, step, path))
        assert before + fit(bounds, ckpt_path=path) == whole, f"cut at {hook}, step {step}"
    assert len(reached.places) > 10


@pytest.mark.filterwarnings("ignore")
def test_lightning_alone_loses_an_epoch(tmp_path: Path) -> None:
    """Or `FitLoop` could go."""
    bounds = BOUNDS["both, epochs first"]
    before = fit(bounds, CutAt("on_train_epoch_end", BATCHES, tmp_path / "cut.ckpt"), ours=False)
    after = fit(bounds, ours=False, ckpt_path=tmp_path / "cut.ckpt")
    assert len(before + after) == len(fit(bounds, ours=False)) - (BATCHES + 1)  # whose end is made twice


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("monitor", "validation"),
    [*(("train/figure", how) for how in VALIDATIONS), *(("val/figure", how) for how in [*VALIDATIONS][:-1])],
)
@pytest.mark.parametrize("bound", some(BOUNDS, QUICK[1:].__contains__))
def test_a_plateau_is_looked_at_as_if_nothing_had_happened(
    bound: str, validation: str, monitor: str, tmp_path: Path
) -> None:
    """The learning rate of every step, wherever the run was cut."""
    bounds, every = BOUNDS[bound] | VALIDATIONS[validation], 2 if validation == "every second epoch" else 1
    whole = fit(bounds, reached := Reached(), module=Diary(monitor, every))
    if every == 1:  # it falls at the end of each epoch but the first
        assert [note[3] for note in whole if len(note) == 4][2 * BATCHES] == pytest.approx(0.09)
    for hook, step in reached.places:
        path = tmp_path / f"{hook}-{step}.ckpt"
        before = fit(bounds, CutAt(hook, step, path), module=Diary(monitor, every))
        after = fit(bounds, ckpt_path=path, module=Diary(monitor, every))
        assert before + after == whole, f"cut at {hook}, step {step}"
    assert len(reached.places) > 10


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("validation", ["every epoch", "within epochs", "never"])
def test_a_callback_that_waits_for_a_figure_waits_as_long(validation: str, tmp_path: Path) -> None:
    """It stops after the third of five epochs, also where the second one's end is all that was left of it."""
    bounds = {"max_epochs": 5} | VALIDATIONS[validation]

    def waits() -> EarlyStopping:
        name = "train/figure" if validation == "never" else "val/figure"
        return EarlyStopping(name, patience=2, check_on_train_epoch_end=True)

    whole = fit(bounds, waits(), reached := Reached())
    assert whole[-1] == ("ended", 3 * BATCHES)
    places = [(hook, step) for hook, step in reached.places if hook != "on_train_end" and step < 3 * BATCHES]
    assert len(places) > 8
    for hook, step in places:
        path = tmp_path / f"{hook}-{step}.ckpt"
        before = fit(bounds, waits(), CutAt(hook, step, path))
        assert before + fit(bounds, waits(), ckpt_path=path) == whole, f"cut at {hook}, step {step}"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("hook", HOOKS[:4])
def test_a_checkpoint_without_figures_goes_on(hook: str, tmp_path: Path) -> None:
    """One of an earlier version: nobody is shown a figure that is not there."""
    bounds, path = {"max_epochs": 3}, tmp_path / "cut.ckpt"
    whole = fit(bounds)
    before = fit(bounds, CutAt(hook, BATCHES, path))
    checkpoint = torch.load(path, weights_only=True)
    del checkpoint["loops"]["fit_loop"]["state_dict"]["figures"]
    torch.save(checkpoint, path)
    after = fit(bounds, EarlyStopping("val/figure", patience=9), ckpt_path=path)
    steps = [[note for note in notes if len(note) == 4] for notes in (before + after, whole)]
    assert steps[0] == steps[1]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("steps", [3, 4, 6])
@pytest.mark.parametrize("validation", VALIDATIONS)
def test_training_longer_is_having_trained_longer(validation: str, steps: int, tmp_path: Path) -> None:
    """A run that `max_steps` ended within an epoch goes on within it."""
    how = VALIDATIONS[validation]
    before = fit({"max_steps": steps} | how, Newest(tmp_path))
    after = fit({"max_steps": 8} | how, ckpt_path=tmp_path / "last.ckpt")
    assert without_ends(before + after) == without_ends(fit({"max_steps": 8} | how))


@pytest.mark.filterwarnings("ignore")
def test_the_broken_epoch_of_an_older_checkpoint_goes_on(tmp_path: Path) -> None:
    """Which counts it as a whole one: Lightning wrote it when training was over."""
    before = fit({"max_steps": 4}, CutAt("on_train_end", 4, tmp_path / "cut.ckpt"))
    after = fit({"max_steps": 8}, ckpt_path=tmp_path / "cut.ckpt")
    assert without_ends(before + after) == without_ends(fit({"max_steps": 8}))
