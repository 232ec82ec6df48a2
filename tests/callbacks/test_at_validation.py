"""When callbacks look at the model: at validations, in runs that have none, and at whatever end, with the average."""

import csv
import os
import signal
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from foreign import Foreign, TwoOptimizers, points
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, Timer
from lightning.pytorch.loggers import CSVLogger
from running import on_two_processes
from torch import Tensor, nn
from torch.utils.data import DataLoader

from genzoo.callbacks import EMA, FrechetDistance, LikelihoodLogger, ModeCoverage, Newest, SampleLogger
from genzoo.callbacks.at_validation import AtValidation
from genzoo.datamodules import PointsDataModule
from genzoo.zoo import VAE

STEPS = 5  # in an epoch of `fit`


class Looks(AtValidation):
    """Keeps the step and the weights that it was shown."""

    def __init__(self, every_n_epochs: int = 1) -> None:
        super().__init__(every_n_epochs)
        self.steps: list[int] = []
        self.weights: list[dict[str, Tensor]] = []

    def act(self, trainer: Trainer, module: LightningModule) -> dict[str, float]:
        assert not torch.is_grad_enabled() and not any(m.training for m in module.modules())
        self.steps.append(trainer.global_step)
        self.weights.append({name: value.clone() for name, value in module.state_dict().items()})
        return {"val/looked": float(trainer.global_step), "val/other": 1.0}


class StopAt(Callback):
    """Ends the run as a time limit does: in the middle of an epoch."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        trainer.should_stop = trainer.should_stop or trainer.global_step == self.step


class Unchecked(Foreign):
    """Without a validation step."""

    validation_step = LightningModule.validation_step


NO_VALIDATION: dict[str, dict[str, Any]] = {
    "limit_val_batches": {"limit_val_batches": 0},
    "check_val_every_n_epoch": {"check_val_every_n_epoch": 100},
    "no validation_step": {},
    "no val_dataloader": {},
}


def run_of(trainer: Callable[..., Trainer], kind: str, *callbacks: Callback, **options: Any) -> Trainer:
    """A run of that kind without validations."""
    torch.manual_seed(0)
    module = Unchecked() if kind == "no validation_step" else Foreign()
    run = trainer(*callbacks, **(NO_VALIDATION[kind] | options))
    val = None if kind == "no val_dataloader" else DataLoader(points(30, 1), 8)
    run.fit(module, DataLoader(points(40, 0), 8, shuffle=True), val)
    return run


@pytest.mark.parametrize(
    ("options", "stop", "expected"),
    [
        ({"max_epochs": 7}, None, [15, 30, 35]),
        ({"max_epochs": -1, "max_steps": 22}, None, [15, 22]),
        ({"max_epochs": -1, "max_steps": 20}, None, [15, 20]),
        ({"max_epochs": 40, "max_steps": 30}, None, [15, 30]),
        ({"max_epochs": 40}, StopAt(23), [15, 23]),
        ({"max_epochs": 40}, StopAt(3), [3]),
        ({"max_epochs": 40, "check_val_every_n_epoch": 2}, StopAt(33), [30, 33]),
        ({"max_epochs": 40, "val_check_interval": 2}, StopAt(4), [4]),
        # its steps, before the first validation
        ({"max_epochs": -1, "max_steps": 3}, None, [3]),
        ({"max_epochs": 40, "max_steps": 8, "check_val_every_n_epoch": 9}, None, [8]),
        ({"max_epochs": -1, "max_steps": 3, "check_val_every_n_epoch": None, "val_check_interval": 4}, None, [3]),
        ({"max_epochs": -1, "max_steps": 3, "limit_val_batches": 0}, None, [3]),
    ],
)
def test_the_last_weights_are_looked_at_whatever_ends_the_run(
    tmp_path: Path, trainer: Callable[..., Trainer], fit: Any, options: Any, stop: Any, expected: list[int]
) -> None:
    looks, logger = Looks(every_n_epochs=3), CSVLogger(tmp_path)
    run = trainer(looks, *([stop] if stop else []), logger=logger, **options)
    fit(run)
    assert looks.steps == expected and run.global_step == expected[-1]
    assert run.callback_metrics["val/looked"] == run.logged_metrics["val/looked"] == expected[-1]
    with (Path(logger.log_dir) / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["val/looked"]]
    assert [(float(row["val/looked"]), int(row["step"])) for row in rows] == [(n, n - 1) for n in expected]
    assert int(rows[-1]["epoch"]) == (expected[-1] - 1) // STEPS and float(rows[-1]["val/other"]) == 1.0


def test_early_stopping_and_a_time_limit_are_ends(trainer: Callable[..., Trainer], fit: Any) -> None:
    looks = Looks(every_n_epochs=100)
    run = trainer(looks, EarlyStopping("val/size", patience=2), max_epochs=50)
    fit(run)
    assert looks.steps == [run.global_step] and 0 < run.global_step < 50 * STEPS
    looks, timer = Looks(every_n_epochs=100), Timer({"hours": 1})

    class Later(StopAt):
        def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
            timer._offset = 4000 if trainer.global_step == self.step else 0  # seconds that have gone by

    fit(trainer(looks, Later(8), timer, max_epochs=50))
    assert looks.steps == [8]


def test_its_steps_end_a_run_before_its_first_validation(tmp_path: Path, trainer: Any, fit: Any) -> None:
    """One picture, and the newest checkpoint is of the step that it shows."""
    run = trainer(SampleLogger(4), Newest(tmp_path / "checkpoints"), max_epochs=-1, max_steps=3)
    fit(run)
    assert [path.name for path in (tmp_path / "samples").iterdir()] == ["samples-00000003.png"]
    assert torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)["global_step"] == 3


class Signal(Callback):
    """Sends this process a signal, or several, in one hook of one step."""

    def __init__(self, hook: str, step: int, *numbers: int) -> None:
        self.step, self.numbers = step, numbers
        setattr(self, hook, self.send)

    def send(self, trainer: Trainer, *_: Any, **__: Any) -> None:
        if trainer.global_step == self.step and not trainer.sanity_checking:
            for number in self.numbers:
                os.kill(os.getpid(), number)


@pytest.mark.parametrize("newest", [True, False])
@pytest.mark.parametrize("two_optimizers", [False, True])
@pytest.mark.parametrize(
    ("hook", "step", "expected"),
    [
        ("on_train_batch_end", 3, [(3, 2, 0)]),
        ("on_train_batch_end", 8, [(5, 4, 0), (8, 7, 1)]),
        ("on_validation_batch_start", 5, [(5, 4, 0)]),
        ("on_validation_epoch_end", 10, [(5, 4, 0), (10, 9, 1)]),
        ("on_train_epoch_end", 5, [(5, 4, 0)]),
    ],
)
def test_sigterm_is_an_end(
    tmp_path: Path,
    trainer: Callable[..., Trainer],
    fit: Any,
    hook: str,
    step: int,
    expected: list[tuple[int, int, int]],
    two_optimizers: bool,
    newest: bool,
) -> None:
    """Under the batch's own number in the loggers, once; in a bare Trainer too, which heeds it at a batch's end."""
    looks, logger, ema = Looks(), CSVLogger(tmp_path), EMA(0.9)
    # of two optimisers the second steps in the first and the fourth batch of five
    steps = {3: 4, 5: 7, 8: 11, 10: 14} if two_optimizers else {n: n for n in (3, 5, 8, 10)}
    kept = [Newest(tmp_path / "checkpoints")] if newest else []
    run = trainer(ema, looks, Signal(hook, steps[step], signal.SIGTERM), *kept, logger=logger, max_epochs=9)
    with pytest.raises(SystemExit):
        fit(run, TwoOptimizers() if two_optimizers else None)
    with (Path(logger.log_dir) / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["val/looked"]]
    found = [(int(float(row["val/looked"])), int(row["step"]), int(row["epoch"])) for row in rows]
    assert found == [(steps[at], batch, epoch) for at, batch, epoch in expected]
    assert looks.steps == [steps[at] for at, _, _ in expected]
    last = ema.state_dict()["raw"]
    assert not all(torch.equal(raw, looks.weights[-1][name]) for name, raw in last.items())  # it was the average
    if newest:
        kept_step = torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)["global_step"]
        assert kept_step == run.global_step


def test_who_interrupts_does_not_wait(tmp_path: Path, trainer: Callable[..., Trainer], fit: Any) -> None:
    """Ctrl-C; and a second SIGTERM, or Ctrl-C, while something is looked at for the first."""
    looks = Looks(every_n_epochs=9)
    with pytest.raises(SystemExit):
        fit(trainer(looks, Signal("on_train_batch_end", 3, signal.SIGINT), Newest(tmp_path), max_epochs=9))
    assert looks.steps == [] and torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 3
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which Lightning deafens for the rest of the program

    class Slow(Looks):
        def __init__(self, number: int) -> None:
            super().__init__(every_n_epochs=9)
            self.number = number

        def act(self, trainer: Trainer, module: LightningModule) -> dict[str, float]:
            os.kill(os.getpid(), self.number)
            return super().act(trainer, module)

    for number, raised in ((signal.SIGTERM, SystemExit), (signal.SIGINT, KeyboardInterrupt)):
        slow, looks = Slow(number), Looks(every_n_epochs=9)
        with pytest.raises(raised):
            fit(trainer(slow, looks, Signal("on_train_batch_end", 3, signal.SIGTERM), Newest(tmp_path), max_epochs=9))
        assert slow.steps == looks.steps == []
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_at_the_very_end_ends_the_run_before_anything_follows(
    tmp_path: Path, trainer: Callable[..., Trainer], fit: Any, number: int
) -> None:
    """While callbacks look at the last weights: they come to their end, and nobody publishes."""
    followed: list[int] = []

    class Follows(Callback):
        def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
            followed.append(trainer.global_step)

    looks = Looks(every_n_epochs=9)
    at_the_end = Signal("on_train_end", 8, number)
    run = trainer(at_the_end, looks, Follows(), Newest(tmp_path), max_epochs=-1, max_steps=8)
    with pytest.raises(SystemExit):
        fit(run)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    assert looks.steps == [8] and followed == []
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 8


@pytest.mark.parametrize("kind", NO_VALIDATION)
def test_a_run_without_validations_is_looked_at_after_every_nth_epoch(
    tmp_path: Path, trainer: Callable[..., Trainer], kind: str
) -> None:
    looks = Looks(every_n_epochs=2)
    kept = ModelCheckpoint(tmp_path, monitor="val/looked", mode="max", save_top_k=-1, filename="{step}")
    run = run_of(trainer, kind, looks, kept, max_epochs=5)
    assert looks.steps == [10, 20, 25] and run.callback_metrics["val/looked"] == 25
    if kind != "check_val_every_n_epoch":  # where a ModelCheckpoint waits for the validation that never comes
        assert kept.best_model_score == 25 and kept.best_model_path.endswith("step=25.ckpt")
    looks = Looks(every_n_epochs=2)
    run = run_of(trainer, kind, looks, StopAt(23), max_epochs=50)
    assert looks.steps == [10, 20, 23] and run.callback_metrics["val/looked"] == 23


def test_weights_that_were_not_trained_are_none_to_look_at(trainer: Callable[..., Trainer], fit: Any) -> None:
    looks = Looks()
    fit(trainer(looks, max_epochs=0))
    assert looks.steps == []
    module = fit(trainer(looks, max_epochs=1))
    assert looks.steps == [5]
    fit(trainer(looks, max_epochs=-1, max_steps=5, limit_val_batches=0), module)  # another run, of as many steps
    assert looks.steps == [5, 5]
    trainer(looks).validate(module, DataLoader(points(30, 1), 8), verbose=False)
    assert looks.steps == [5, 5, 0]


def test_steps_are_the_loggers_also_with_two_optimisers(tmp_path: Path, trainer: Any, fit: Any) -> None:
    looks, logger = Looks(every_n_epochs=3), CSVLogger(tmp_path)
    fit(trainer(looks, StopAt(9), logger=logger, max_epochs=9), TwoOptimizers())
    with (Path(logger.log_dir) / "metrics.csv").open() as file:
        steps = [int(row["step"]) for row in csv.DictReader(file)]
    assert all(a <= b for a, b in pairwise(steps))


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("options", [{}, {"limit_val_batches": 0}])
def test_what_is_looked_at_is_the_average_and_training_does_not_notice(
    trainer: Callable[..., Trainer], fit: Any, before: bool, options: dict[str, Any]
) -> None:
    looks, ema = Looks(every_n_epochs=2), EMA(0.9)
    module = fit(trainer(*((looks, ema) if before else (ema, looks)), StopAt(13), max_epochs=9, **options))
    without_looks = EMA(0.9)
    alone = fit(trainer(without_looks, StopAt(13), max_epochs=9, **options))
    assert looks.steps == [10, 13]
    for name, value in alone.state_dict().items():
        assert torch.equal(module.state_dict()[name], value), name  # fit hands back the average
        assert torch.equal(looks.weights[-1][name], value), name
    raw, raw_alone = (callback.state_dict()["raw"] for callback in (ema, without_looks))
    assert all(torch.equal(raw[name], raw_alone[name]) for name in raw_alone)
    assert not all(torch.equal(raw[name], looks.weights[-1][name]) for name in raw)


class Shades(Foreign):
    """Its samples come from the generator."""

    def sample(self, num_samples: int, *, generator: torch.Generator | None = None) -> Tensor:  # type: ignore[override]
        return torch.rand(num_samples, 1, 4, 4, generator=generator)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return sum(p.sum() for p in self.net.parameters())  # type: ignore[return-value]


class Images(LightningDataModule):
    """Every split can be asked for."""

    def train_dataloader(self) -> DataLoader:
        return DataLoader((points(40, 0).tensors[0] > 0.5).float(), 8)

    val_dataloader = test_dataloader = train_dataloader


@pytest.mark.parametrize("options", [{"limit_val_batches": 0}, {"check_val_every_n_epoch": 9}])
def test_all_of_them_do_what_they_say_without_validations(
    tmp_path: Path, trainer: Callable[..., Trainer], options: dict[str, Any]
) -> None:
    features = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    looking = [SampleLogger(4, num_examples=2), FrechetDistance(features, 20), LikelihoodLogger(2)]
    run = trainer(*looking, StopAt(8), max_epochs=5, **options)
    run.fit(VAE((1, 4, 4), 2, latent_dim=2, network="mlp", width=8), Images())
    kinds = ("completions", "interpolations", "reconstructions", "samples")
    assert sorted(p.name for p in (tmp_path / "samples").iterdir()) == [
        f"{kind}-{step:08d}.png" for kind in kinds for step in (5, 8)
    ]
    assert {"val/frechet", "val/nll_bound_k2", "val/bits_per_dim_bound_k2"} <= run.callback_metrics.keys()
    run = trainer(ModeCoverage(50), StopAt(3), max_epochs=5, **options)
    run.fit(VAE((2,), None, width=8), PointsDataModule("ring", train_size=100, val_size=10, batch_size=20))
    assert {"val/modes", "val/high_quality", "val/mode_kl"} <= run.callback_metrics.keys()


def test_two_processes_look_together(trainer: Callable[..., Trainer]) -> None:
    options = {**on_two_processes(), "max_epochs": 5, "limit_val_batches": 0}
    features = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    found = []
    for more in ({}, options):
        run = trainer(FrechetDistance(features, 20), EMA(0.9), StopAt(2), **({"limit_val_batches": 0} | more))
        torch.manual_seed(0)
        run.fit(Shades(lr=0.0), Images())
        found.append(run.callback_metrics["val/frechet"].item())
    assert found[1] == pytest.approx(found[0], rel=1e-5)
