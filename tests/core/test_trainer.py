"""`max_time: auto`: a quarter of an hour, unless something else says how long. And processes that end in peace."""

import atexit
import pickle
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import multiprocessing, nn

from genzoo.trainer import AutoTrainer, leave_group


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


# ---- processes


def threads_of_the_group() -> list[str]:
    names = [(task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()]
    return [name for name in names if "gloo" in name]


def in_a_group(rank: int, folder: str) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    model = nn.parallel.DistributedDataParallel(nn.Linear(2, 2))
    model.itself = [model]  # what holds it is a cycle, as a Trainer is
    model(torch.ones(1, 2)).sum().backward()
    assert threads_of_the_group()
    del model
    leave_group()
    assert not threads_of_the_group()


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads have names on Linux")
def test_no_thread_of_a_group_outlives_it(tmp_path: Path) -> None:
    multiprocessing.start_processes(in_a_group, (str(tmp_path),), nprocs=2, start_method="forkserver")


def test_each_of_its_processes_leaves_the_group_at_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[Any] = []
    monkeypatch.setattr(atexit, "register", left.append)
    trainer = AutoTrainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    assert left == [leave_group]
    pickle.loads(pickle.dumps(trainer))
    assert left == [leave_group] * 2


def test_spread_weights_are_measured_without_inference_mode() -> None:
    """In which they would stay for whatever takes a gradient through them."""
    strategy = ModelParallelStrategy(tensor_parallel_size=1)
    for given, inference in ((strategy, False), ("auto", True)):
        trainer = AutoTrainer(accelerator="cpu", devices=1, strategy=given, logger=False, enable_checkpointing=False)
        loops = (trainer.validate_loop, trainer.test_loop, trainer.predict_loop)
        assert [loop.inference_mode for loop in loops] == [inference] * 3
