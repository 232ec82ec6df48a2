"""From a finished training run to an entry of the zoo."""

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_info

from genzoo.callbacks.evaluation import evaluate, hardware
from genzoo.callbacks.media import can_render, render
from genzoo.callbacks.metrics.processes import world_size
from genzoo.callbacks.run_folder import run_folder
from genzoo.callbacks.sampling import draw
from genzoo.zoo import hub
from genzoo.zoo.interface import Samples


class Publish(Callback):
    """Measures the trained model and writes it to the zoo at the end: one recipe trains and publishes.

    What is published is what was validated: the best checkpoint of the Trainer's ModelCheckpoint, if that one
    monitors a figure, and else the weights at the end. With `EMA` either is the average.

    Args:
        name: of the entry, "mnist/vae".
        to: where to: a folder, `hf://owner/name`, `wandb://...`, see `genzoo.publish`; None is the folder `entry`
            beside the run's checkpoints.
        evaluation: arguments of `genzoo.callbacks.evaluate` ({"num_particles": 5000, "extractor":
            "mnist/classifier"}).
        recipe: the recipe's name, as recorded in the entry; None means the entry's own name.
        dtype: how the weights are stored. The figures are measured on the weights as stored.
        card: what only a person knows: sections of the model card, see `genzoo.publish`.
        num_samples: samples in the entry's picture.
        seed: of the picture.

    Raises:
        ValueError: before training if there is no datamodule to evaluate on, or the module was built in a way
            that no file can state, so that no entry could rebuild it.
    """

    def __init__(
        self,
        name: str,
        to: str | None = None,
        evaluation: dict[str, Any] | None = None,
        recipe: str | None = None,
        dtype: Literal["float32", "float16", "bfloat16"] = "float32",
        card: dict[str, str] | None = None,
        num_samples: int = 64,
        seed: int = 0,
    ) -> None:
        self.name = name
        self.to = to
        self.evaluation = evaluation or {}
        self.recipe = recipe
        self.dtype = dtype
        self.card = card
        self.num_samples = num_samples
        self.seed = seed
        self._seconds = 0.0  # of earlier runs that this one goes on from
        self._start: float | None = None
        self._hardware: str | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuses what could not be published, before hours of training."""
        if stage != "fit":
            return
        if trainer.datamodule is None:  # type: ignore[attr-defined]
            raise ValueError("Publish: an entry states its data, so give `fit` a datamodule, not bare dataloaders.")
        if unstated := getattr(pl_module, "unstated", None):
            raise ValueError(
                f"Publish: {type(pl_module).__name__} was given {', '.join(unstated)} as live modules, which"
                " no config.yaml can state. Choose them by arguments that a recipe could write, or do without"
                " Publish."
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock."""
        self._start = time.monotonic()
        one = hardware(trainer.strategy.root_device)
        self._hardware = f"{world_size()} × {one}" if world_size() > 1 else one

    def state_dict(self) -> dict[str, Any]:
        """The seconds trained so far, by which a resumed run counts on, and on what."""
        return {"seconds": self._elapsed(), "hardware": self._hardware}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes over the seconds of the interrupted run."""
        self._seconds, self._hardware = state_dict["seconds"], state_dict["hardware"]

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stops the clock."""
        self._seconds, self._start = self._elapsed(), None

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Evaluates on all ranks and publishes on the first; but not a `fast_dev_run`, nor an untrained model."""
        if trainer.fast_dev_run or trainer.global_step == 0:  # type: ignore[attr-defined]
            return
        datamodule: LightningDataModule = trainer.datamodule  # type: ignore[attr-defined]
        device = trainer.strategy.root_device
        to = self.to or str(run_folder(trainer) / "entry")
        with _published_weights(trainer, pl_module, getattr(torch, self.dtype)) as steps:
            metrics = evaluate(pl_module, datamodule, device=device, **self.evaluation)
            metrics["training"] = {
                "recipe": self.recipe or self.name,
                "seconds": round(self._elapsed(), 3),
                "hardware": self._hardware,
                "steps": steps,
                "seed": int(os.environ["PL_GLOBAL_SEED"]) if "PL_GLOBAL_SEED" in os.environ else None,
            }
            if trainer.is_global_zero:
                self._publish(pl_module, datamodule, metrics, to)

    def _publish(
        self, module: LightningModule, datamodule: LightningDataModule, metrics: dict[str, Any], to: str
    ) -> None:
        with tempfile.TemporaryDirectory() as folder:
            place = hub.publish(
                module,
                self.name,
                to=to,
                data=datamodule,
                metrics=metrics,
                card=self.card,
                samples=self._picture(module, Path(folder)),
                dtype=self.dtype,
                allow=(type(module),),
            )
        rank_zero_info(f"published {self.name}: {place}")

    def _picture(self, module: LightningModule, folder: Path) -> Path | None:
        if not isinstance(module, Samples):
            return None
        with torch.inference_mode():
            x = draw(module.eval().sample, self.num_samples, self.seed)
        if not can_render(tuple(x.shape[1:])):
            return None
        medium = render(x, round(self.num_samples**0.5))
        medium.write(path := folder / f"samples{medium.suffix}")
        return path

    def _elapsed(self) -> float:
        return self._seconds + (0.0 if self._start is None else time.monotonic() - self._start)


@contextmanager
def _published_weights(trainer: Trainer, module: LightningModule, dtype: torch.dtype) -> Iterator[int]:
    """The weights to publish in the module, as exact as they will be stored; at the end its own again.

    They are the best checkpoint's, where one of the ModelCheckpoints monitors a figure. Yields the optimiser steps
    that made them.
    """
    checkpoints = [c for c in trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint) and c.monitor]
    own = {name: value.clone() for name, value in module.state_dict().items()}
    chosen, steps = own, trainer.global_step
    if checkpoints and (best := checkpoints[0].best_model_path):
        checkpoint = torch.load(best, map_location="cpu", weights_only=True)
        chosen, steps = checkpoint["state_dict"], checkpoint["global_step"]
    stored = {name: v.to(dtype) if v.dtype == torch.float32 else v for name, v in chosen.items()}
    module.load_state_dict(stored)
    try:
        yield steps
    finally:
        module.load_state_dict(own)
