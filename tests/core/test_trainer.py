"""`max_time: auto`: a quarter of an hour, unless something else says how long."""

from datetime import timedelta
from typing import Any

import pytest
from lightning.pytorch.callbacks import Timer

from genzoo.trainer import AutoTrainer


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        ({"max_time": "auto"}, 900),
        ({"max_time": "auto", "max_steps": -1}, 900),
        ({"max_time": "auto", "max_steps": 5}, None),
        ({"max_time": "auto", "max_epochs": 5}, None),
        ({"max_time": "00:01:00:00"}, 3600),
        ({"max_time": timedelta(minutes=1), "max_steps": 5}, 60),  # both bound it
        ({"max_steps": 5}, None),
    ],
)
def test_how_long_it_trains(given: dict[str, Any], seconds: int | None) -> None:
    trainer = AutoTrainer(accelerator="cpu", logger=False, enable_checkpointing=False, **given)
    limits = [callback.time_remaining() for callback in trainer.callbacks if isinstance(callback, Timer)]
    assert limits == ([] if seconds is None else [seconds])
    assert trainer.max_steps == given.get("max_steps", -1)
