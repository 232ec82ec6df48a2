"""What is said of a training before it begins and when its first batches are done, by a clock of the tests' own."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
import torch
from foreign import Foreign, TwoOptimizers
from lightning.pytorch import Callback, LightningModule, Trainer
from ticking import Clock

from genzoo.callbacks import Forecast, forecast
from genzoo.callbacks.forecast import _size

Make = Callable[..., Trainer]
Fit = Callable[..., Any]

PARAMETERS = f"{sum(p.numel() for p in Foreign().parameters()):,} parameters"


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(forecast, "rank_zero_info", lines.append)

    class Noon(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> "Noon":
            return cls(2026, 1, 31, 12, 0)

    monkeypatch.setattr(forecast, "datetime", Noon)
    return lines


class Slow(Callback):
    """A validation that takes an hour, and two batches that take a minute: neither counts."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.clock.now += 60 * (trainer.current_epoch == 0 and batch_idx < 2)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.clock.now += 3600


@pytest.mark.parametrize(
    ("options", "bounds", "says"),
    [
        # batches of 8 that take half a second: two are not counted, and eleven take more than five seconds
        ({"max_steps": 135}, ", 135 steps", "16 samples/s: 135 steps until 12:01, in 0:01:01"),
        (
            {"max_steps": 135, "max_time": "00:03:00:00"},
            ", 135 steps, until 15:00 at most",
            "16 samples/s: 135 steps until 12:01, in 0:01:01",
        ),
        (
            {"max_epochs": 20_000},
            ", 100,000 steps",
            "16 samples/s: 100,000 steps until 01:53 on 01 February, in 13:53:14",
        ),
        (
            {"max_steps": 40_000, "max_time": "00:03:00:00"},
            ", 40,000 steps, until 15:00 at most",
            "16 samples/s: about 6,960 steps of 40,000 until 12:57, in 0:57:54",
        ),
        # three hours less two minutes, two validations and thirteen batches
        (
            {"max_time": "00:03:00:00"},
            ", until 15:00 at most",
            "16 samples/s: about 6,960 steps until 12:57, in 0:57:54",
        ),
        ({}, "", "16 samples/s"),
        (
            {"max_steps": 134, "accumulate_grad_batches": 2, "limit_train_batches": 4},
            ", 134 steps",
            "16 samples/s: 134 steps until 12:02, in 0:02:08",
        ),
    ],
)
def test_the_end_is_foreseen(
    trainer: Make, fit: Fit, clock: Clock, said: list[str], options: dict, bounds: str, says: str
) -> None:
    class Enough(Callback):
        def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
            trainer.should_stop = len(said) == 2

    class First(Callback):
        def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
            assert said[0] == PARAMETERS + bounds  # before anything is trained

    fit(trainer(clock.ticking(0.5), Slow(clock), Forecast(), First(), Enough(), **{"max_epochs": -1} | options))
    assert said == [PARAMETERS + bounds, says]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        # of thirteen batches the first, third and fifth … of each epoch of five make two steps
        ({"max_steps": 135}, "16 samples/s: 135 steps until 12:00, in 0:00:42"),
        ({"max_epochs": 20}, "16 samples/s: 100 steps until 12:00, in 0:00:44"),
    ],
)
def test_the_steps_of_several_optimizers(
    trainer: Make, fit: Fit, clock: Clock, said: list[str], options: dict, says: str
) -> None:
    fit(trainer(clock.ticking(0.5), Forecast(), limit_val_batches=0, **{"max_epochs": -1} | options), TwoOptimizers())
    assert said[1:] == [says]


def test_a_slow_one_waits_for_few(trainer: Make, fit: Fit, clock: Clock, said: list[str]) -> None:
    fit(trainer(clock.ticking(20), Forecast(), max_epochs=-1, max_steps=3))
    assert said[1:] == ["0.4 samples/s: 3 steps until 12:00, in 0:00:00"]


def test_a_fast_one_is_measured_over_sixteen_batches(trainer: Make, fit: Fit, clock: Clock, said: list[str]) -> None:
    fit(trainer(clock.ticking(0.01), Forecast(), max_epochs=-1, max_steps=17, limit_val_batches=0))
    assert said == [f"{PARAMETERS}, 17 steps"]  # before its time, and then it is over
    fit(trainer(clock.ticking(0.01), Forecast(), max_epochs=-1, max_steps=18, limit_val_batches=0))
    assert said[1:] == [f"{PARAMETERS}, 18 steps", "800 samples/s: 18 steps until 12:00, in 0:00:00"]


def test_what_the_first_batch_makes_is_not_counted_before(
    trainer: Make, fit: Fit, clock: Clock, said: list[str]
) -> None:
    class Lazy(Foreign):
        def __init__(self) -> None:
            super().__init__()
            self.later = torch.nn.LazyLinear(1)

    Forecast().on_train_start(trainer(max_epochs=-1, max_steps=2), Lazy())
    assert said == [f"{PARAMETERS} and those that the first batch makes, 2 steps"]


def test_nothing_of_a_dry_run(trainer: Make, fit: Fit, clock: Clock, said: list[str]) -> None:
    fit(trainer(clock.ticking(20), Forecast(), fast_dev_run=4))
    assert not said


def test_a_batch_has_as_many_samples_as_its_data_have() -> None:
    x = torch.zeros(5, 2)
    assert [_size(batch) for batch in (x, (x, x[:, 0]), {"x": x}, {"y": x})] == [5, 5, 5, 1]
