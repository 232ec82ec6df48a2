"""A clock that goes when it is told to."""

from types import SimpleNamespace
from typing import Any

import pytest
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import timer

from genzoo.callbacks import forecast


class Clock:
    """What a Trainer's time limit, and whoever else takes it for `time`, goes by."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def ticking(self, seconds: float) -> Callback:
        """A callback by which a batch takes that long."""
        return Ticking(self, seconds)

    def rule(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """From now on."""
        for module in (timer, forecast):
            monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=self.monotonic))


class Ticking(Callback):
    def __init__(self, clock: Clock, seconds: float) -> None:
        self.clock, self.seconds = clock, seconds

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self.clock.now += self.seconds
