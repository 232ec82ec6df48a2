"""Odd data in any batch, and weights that are no numbers: said in the library's own words, before they are kept."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from families import FIRST, random_data
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor
from torch.utils.data import DataLoader

from genzoo.callbacks import EMA, Newest
from genzoo.zoo import GPT, VAE, Classifier, WaveNet

IMAGE, WAVE, TEXT, POINT = ((1, 4, 4), 17), ((1, 64), 256), ((6,), 5), ((3,), None)
ODD = [
    (IMAGE, math.nan, "NaN"),
    (IMAGE, math.inf, "infinite"),
    (IMAGE, 255.0, r"in \[0, 1\]"),
    (IMAGE, -1.0, r"in \[0, 1\]"),
    (WAVE, math.nan, "NaN"),
    (WAVE, 1.5, r"in \[-1, 1\]"),
    (WAVE, -32768.0, r"in \[-1, 1\]"),
    (TEXT, 5, "levels=5"),
    (TEXT, -2, "levels=5"),
    (POINT, math.nan, "NaN"),
    (POINT, -math.inf, "infinite"),
]


def trainer(*callbacks: Callback, **options: Any) -> Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    keeps = any(isinstance(callback, Newest) for callback in callbacks)
    given = {"max_epochs": 1, "num_sanity_val_steps": 0} | quiet | options
    return Trainer(**given, enable_checkpointing=keeps, callbacks=list(callbacks))


def batches(
    shape: tuple[int, ...], levels: int | None, spoil: Callable[[Tensor], Any] = lambda x: None
) -> DataLoader:
    """Three batches of four, the last of them spoilt."""
    torch.manual_seed(0)
    data = [random_data(4, shape, levels) for _ in range(3)]
    spoil(data[-1])
    return DataLoader(data, batch_size=None)


@pytest.mark.parametrize("stage", ["fit", "validate", "test"])
@pytest.mark.parametrize(("data", "value", "says"), ODD)
def test_an_odd_value_in_a_later_batch(stage: str, data: Any, value: Any, says: str) -> None:
    model = {IMAGE: VAE, WAVE: WaveNet, TEXT: GPT, POINT: VAE}[data](*data)
    with pytest.raises(ValueError, match=says):
        getattr(trainer(), stage)(model, batches(*data, lambda x: x.view(-1)[5:6].fill_(value)))


@pytest.mark.parametrize(("family", "shape", "levels"), [(c.family, c.shape, c.levels) for c in FIRST])
def test_every_family_looks_at_every_batch(family: Any, shape: tuple[int, ...], levels: int | None) -> None:
    spoil: Callable[[Tensor], Any] = lambda x: x.view(-1)[0:1].fill_(-7 if x.dtype == torch.int64 else math.nan)  # noqa: E731
    loader = batches(shape, levels, spoil)
    labelled = DataLoader([(x, torch.arange(4) % 3) for x in loader.dataset], batch_size=None)
    options = {"num_classes": 3} if family is Classifier else {}
    with pytest.raises(ValueError, match=r"NaN|vocabulary"):
        trainer().fit(family(shape=shape, levels=levels, **options), labelled)


@pytest.mark.parametrize("label", [3, -1])
def test_an_odd_label_in_a_later_batch(label: int) -> None:
    data = [(x, torch.tensor([0, 1, 2, label if i == 2 else 0])) for i, x in enumerate(batches(*IMAGE).dataset)]
    with pytest.raises(ValueError, match="num_classes=3"):
        trainer().fit(Classifier(*IMAGE, num_classes=3), DataLoader(data, batch_size=None))


def test_another_shape_in_a_later_batch() -> None:
    data = [*batches(*IMAGE).dataset, torch.zeros(4, 1, 5, 5)]
    with pytest.raises(ValueError, match="built for data of shape"):
        trainer().fit(VAE(*IMAGE, network="mlp"), DataLoader(data, batch_size=None))


# ---- weights


class Diverge(Callback):
    """Puts one NaN into the weights, as an optimiser that diverges does."""

    def __init__(self, step: int):
        self.step = step

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *args: Any) -> None:
        if trainer.global_step == self.step:
            with torch.no_grad():
                next(pl_module.parameters()).view(-1)[0] = math.nan


@pytest.mark.parametrize("average", [[], [EMA(0.5)]])
@pytest.mark.parametrize("weights_only", [False, True])
def test_no_checkpoint_of_weights_that_are_no_numbers(average: list[Any], weights_only: bool, tmp_path: Path) -> None:
    """The steps between are not logged, so that nothing else notices."""
    others = ModelCheckpoint(tmp_path, filename="{step}", save_top_k=-1, save_weights_only=weights_only)
    model = VAE(*IMAGE, network="mlp", width=8)
    callbacks = [Diverge(5), *average, others, Newest(tmp_path)]
    with pytest.raises(ValueError, match="at step 6, so no checkpoint is written"):
        trainer(*callbacks, max_epochs=4, log_every_n_steps=1000).fit(model, batches(*IMAGE))
    assert {path.name for path in tmp_path.iterdir()} == {"step=3.ckpt", "last.ckpt"}
    for path in tmp_path.iterdir():
        state = torch.load(path, weights_only=True)
        assert state["global_step"] == 3 and all(v.isfinite().all() for v in state["state_dict"].values())
