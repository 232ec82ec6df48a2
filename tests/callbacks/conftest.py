"""A model and data that owe genzoo nothing: what callbacks meet in somebody else's project."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from foreign import Foreign, points
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import Checkpoint
from torch.utils.data import DataLoader

from genzoo.trainer import AutoTrainer


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENZOO_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def trainer(tmp_path: Path) -> Callable[..., Trainer]:
    """Makes a silent Trainer on the CPU that writes below tmp_path."""

    def make(*callbacks: Callback, **options: Any) -> Trainer:
        silent = {
            "accelerator": "cpu",
            "devices": 1,
            "logger": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "enable_checkpointing": any(isinstance(c, Checkpoint) for c in callbacks),
            "default_root_dir": tmp_path,
            "max_epochs": 2,
        }
        kind = Trainer if options.get("devices", 1) == 1 else AutoTrainer  # whose processes end in peace
        return kind(callbacks=list(callbacks), **(silent | options))

    return make


@pytest.fixture
def fit() -> Callable[..., Foreign]:
    """Trains a model on plain DataLoaders, from a fixed seed."""

    def run(trainer: Trainer, module: Any = None, *, batch_size: int = 8, **options: Any) -> Any:
        if module is None:
            torch.manual_seed(0)
            module = Foreign()
        torch.manual_seed(1)
        train = DataLoader(points(40, 0), batch_size, shuffle=True)
        trainer.fit(module, train, DataLoader(points(30, 1), 8), **options)
        return module

    return run
