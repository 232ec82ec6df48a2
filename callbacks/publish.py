"""From a finished training run to an entry of the zoo."""

import json
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities.cloud_io import _load
from lightning.fabric.utilities.load import _load_distributed_checkpoint  # what Lightning's consolidate command does
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info

from genzoo.callbacks.at_validation import AtValidation
from genzoo.callbacks.ema import averaged_weights
from genzoo.metrics.data import Rows
from genzoo.metrics.environment import environment, hardware
from genzoo.metrics.evaluation import (
    GROUPS,
    Evaluation,
    checked_arguments,
    checked_data,
    evaluate,
    measuring,
    unmeasured,
)
from genzoo.zoo import hub
from genzoo.zoo.drawing import seeded
from genzoo.zoo.hub.card import Card
from genzoo.zoo.hub.film import Film
from genzoo.zoo.hub.publishing import checked_target, how_sent
from genzoo.zoo.hub.run_folder import run_folder
from genzoo.zoo.hub.schema import METRICS, PUBLISHED, StoredAs
from genzoo.zoo.hub.storage import as_stored
from genzoo.zoo.hub.tasks import called, name_of
from genzoo.zoo.hub.wording import masked
from genzoo.zoo.interface import Samples
from genzoo.zoo.media import samples_of
from genzoo.zoo.processes import rank, world_size
from genzoo.zoo.sharding import gathered

LAID_OUT = 2000  # real points, among which those that are drawn are shown


class Publish(AtValidation):
    """Measures the trained model and writes it to the zoo at the end: one recipe trains and publishes.

    What is published is what was validated: the best checkpoint of the Trainer's ModelCheckpoint, if that one
    monitors a figure, and else the weights at the end. With `EMA` either is the average. Beside the entry's samples
    goes `learning.png`, a film of how they came to be so: one row for each of up to 24 validations (of epochs, in a
    run without).

    Args:
        name: of the entry, "mnist/vae"; None names it after its data (the folder, or the datamodule's class) and its
            recipe: "photos/vae".
        to: where to: a folder, `hf://owner/name`, `wandb://...`, see `genzoo.publish`; None is the folder `entry`
            beside the run's checkpoints.
        evaluation: arguments of `genzoo.callbacks.evaluate` ({"num_particles": 5000, "extractor":
            "mnist/classifier"}).
        recipe: the recipe's name, as recorded in the entry; None means the entry's own name.
        dtype: how the weights are stored. The figures are measured on the weights as stored.
        card: what only a person knows: sections of the model card, see `genzoo.publish`.
        num_samples: samples in the entry's picture.
        seed: of the picture.
        measure: False publishes at once, without figures; `genzoo evaluate ENTRY --write` measures them later.
        private: whether a repository of Hugging Face's that is made for it is; False is as the owner's are.

    Raises:
        ValueError: at construction without name and recipe, or if nothing is private where it goes; before training
            if there is no datamodule to evaluate on, the module was built in a way that no file can state, so that no
            entry could rebuild it, or `evaluate` or `genzoo.publish` would refuse their arguments.
    """

    def __init__(
        self,
        name: str | None = None,
        to: str | None = None,
        evaluation: Evaluation | None = None,
        recipe: str | None = None,
        dtype: StoredAs = "float32",
        card: Card | None = None,
        num_samples: int = 64,
        seed: int = 0,
        measure: bool = True,
        private: bool = False,
    ) -> None:
        super().__init__()
        try:
            PUBLISHED["num_samples"](num_samples, "num_samples")
            PUBLISHED["seed"](seed, "seed")
        except ValueError as error:
            raise ValueError(f"Publish: {error}") from None
        if name is None and recipe is None:
            raise ValueError("Publish: give the entry a name, or name the recipe that it is to be called after.")
        self.name = name
        self.to = to
        self.evaluation = evaluation or {}
        self.recipe = recipe
        self.dtype = dtype
        self.card: Mapping[str, Any] | None = card
        self.num_samples = num_samples
        self.seed = seed
        self.measure = measure
        self.sending = how_sent(private, to)
        self._seconds = 0.0  # of earlier runs that this one goes on from
        self._start: float | None = None
        self._hardware: str | None = None
        self._precision: str | None = None
        self._environment: dict[str, str | None] | None = None
        self._film = Film(seed=seed)

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
        self._rehearse(pl_module, trainer.datamodule)  # type: ignore[attr-defined]

    def _rehearse(self, module: LightningModule, data: LightningDataModule) -> None:
        """Goes as far as an untrained model can: an entry of it is written aside, loaded and thrown away."""
        try:
            given: dict[str, Any] = dict(self.evaluation)
            if not isinstance(module, Samples) and getattr(module, "will_sample", False):  # what it does once trained
                given.pop("extractor", None)
            how = checked_arguments(module, data, **given)
            metrics = json.loads(json.dumps(unmeasured(module, data, **given)))
            METRICS(metrics, "")  # what it is measured by has to fit in a file
            asked: dict[str, Any] = {"split": "test", "only": GROUPS, "weights_path": None} | given
            with seeded(self.seed), tempfile.TemporaryDirectory() as folder:  # building draws weights
                extractor = checked_data(
                    module, data, how, asked["split"], asked["only"], asked["weights_path"], learns=True
                )
                checked_target(self.name_for(data), self.to or folder)
                lazy = any(isinstance(p, torch.nn.UninitializedParameter) for p in module.parameters())
                if not lazy:
                    self._write(module, data, metrics, Path(folder) / "entry")
            if extractor is not None and self.measure:
                rank_zero_info(f"to be measured at the end, in the features of {extractor.name}")
        except ValueError as error:
            raise ValueError(f"Publish: {error}") from error

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock, and the film with a module that has learned nothing."""
        super().on_train_start(trainer, pl_module)
        if not self._film.steps and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            with measuring(pl_module):
                self._film.take(pl_module, trainer.global_step)
        self._start = time.monotonic()
        one = hardware(trainer.strategy.root_device)
        self._hardware = f"{world_size()} × {one}" if world_size() > 1 else one
        self._precision, self._environment = trainer.precision, environment()

    def act(self, trainer: Trainer, module: LightningModule) -> dict[str, float]:
        """Takes a frame of the film, on every rank, which keeps them in step."""
        if trainer.state.fn == TrainerFn.FITTING:
            self._film.take(module, trainer.global_step)
        return {}

    def state_dict(self) -> dict[str, Any]:
        """The seconds trained so far, by which a resumed run counts on, and on what; and the film."""
        return {
            "seconds": self._elapsed(),
            "hardware": self._hardware,
            "precision": self._precision,
            "environment": self._environment,
            "film": self._film.state_dict(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes over the seconds and the film of the interrupted run."""
        self._seconds, self._hardware = state_dict["seconds"], state_dict["hardware"]
        # these two earlier versions did not record
        self._precision, self._environment = state_dict.get("precision"), state_dict.get("environment")
        if "film" in state_dict:  # not in a checkpoint of genzoo 0.1
            self._film.load_state_dict(state_dict["film"])

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stops the clock."""
        super().on_train_end(trainer, pl_module)
        self._seconds, self._start = self._elapsed(), None

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Evaluates on all ranks and publishes on the first; but not a `fast_dev_run`, nor an untrained model."""
        if trainer.fast_dev_run or trainer.global_step == 0:  # type: ignore[attr-defined]
            return
        averaged = averaged_weights(trainer)  # which `EMA` puts in after this, where nothing was left to train
        with averaged, gathered(pl_module), _published_weights(trainer, pl_module, self.dtype) as steps:
            place = self.publish(
                pl_module,
                trainer.datamodule,  # type: ignore[attr-defined]
                to=self.to or str(run_folder(trainer) / "entry"),
                steps=steps,
                seed=int(os.environ["PL_GLOBAL_SEED"]) if "PL_GLOBAL_SEED" in os.environ else None,
                device=trainer.strategy.root_device,
                measure=self.measure,
                sending=self.sending,
                split_fingerprints=getattr(trainer.datamodule, "split_fingerprints", ()),  # type: ignore[attr-defined]
            )
        rank_zero_info(f"published {self.name_for(trainer.datamodule)}: {masked(str(place))}")  # type: ignore[attr-defined]

    def name_for(self, data: LightningDataModule) -> str:
        """The entry's name."""
        if self.name is not None:
            return self.name
        return name_of(called(data), self.recipe or "")

    def publish(
        self,
        module: LightningModule,
        datamodule: LightningDataModule,
        *,
        to: str | None,
        steps: int,
        seed: int | None,
        device: torch.device | str,
        measure: bool = True,
        split_fingerprints: Sequence[str] = (),
        allow: tuple[type, ...] = (),
        sending: Mapping[str, Any] | None = None,
    ) -> Path | str | None:
        """Measures a module and writes its entry: for a run at its end, or for a checkpoint of one, later.

        Args:
            module: with the weights to publish, as exact as they will be stored (`as_stored`).
            datamodule: what it was trained on.
            to: as the constructor's; here None is the embedded zoo.
            steps: of the optimiser, that made the weights.
            seed: of the run.
            device: where to measure.
            measure: False leaves the figures to `genzoo evaluate --write`, and only states how.
            split_fingerprints: of the data that it was trained on (`DataModule.split_fingerprints`).
            allow: classes beyond genzoo's and the module's own that it consists of.
            sending: as of `genzoo.publish`.

        Returns:
            Where it is; None on all ranks but the first.
        """
        if measure:
            metrics = evaluate(module, datamodule, device=device, **self.evaluation)
            rank_zero_info(f"measured: {_in_words(metrics['figures'])}")
        else:
            metrics = unmeasured(module, datamodule, **self.evaluation)
        training = {"recipe": self.recipe or self.name_for(datamodule), "steps": steps, "seed": seed}
        if split_fingerprints:
            training["split_fingerprints"] = list(split_fingerprints)
        if self._hardware is not None:  # the clock has run
            training |= {
                "seconds": round(self._elapsed(), 3),
                "hardware": self._hardware,
                "precision": self._precision,
                "environment": self._environment,
            }
        self._film.take(module.eval(), steps, last=True)
        if filmed := len(self._film.steps) > 1:  # a checkpoint of a run without Publish has no more than its end
            training["film"] = self._film.steps
        if rank() != 0:
            return None
        with tempfile.TemporaryDirectory() as folder:
            return self._write(
                module,
                datamodule,
                {**metrics, "training": training},
                to,
                samples=self._picture(module, Path(folder)),
                learning=self._learning(datamodule, metrics["evaluation"]["split"], Path(folder)) if filmed else None,
                allow=allow,
                sending=sending,
            )

    def _write(
        self,
        module: LightningModule,
        data: LightningDataModule,
        metrics: dict[str, Any],
        to: str | Path | None,
        *,
        allow: tuple[type, ...] = (),
        **more: Any,
    ) -> Path | str:
        return hub.publish(
            module,
            self.name_for(data),
            to=to,
            data=data,
            metrics=metrics,
            card=self.card,
            dtype=self.dtype,
            allow=(type(module), *allow),
            **more,
        )

    def _picture(self, module: LightningModule, folder: Path) -> Path | None:
        medium = samples_of(module.eval(), self.num_samples, self.seed)
        if medium is None:
            return None
        medium.write(path := folder / f"samples{medium.suffix}")
        return path

    def _learning(self, datamodule: LightningDataModule, split: str, folder: Path) -> Path | None:
        points = bool(self._film.frames) and self._film.frames[-1].ndim == 2  # which lie where the real ones do
        real = torch.cat(list(Rows(datamodule, split, LAID_OUT))) if points else None
        picture = self._film.picture(real)
        if picture is None:
            return None
        picture.write(path := folder / "learning.png")
        return path

    def _elapsed(self) -> float:
        return self._seconds + (0.0 if self._start is None else time.monotonic() - self._start)


def _in_words(figures: Sequence[Mapping[str, Any]]) -> str:
    """Each figure and, where it has one, its floor."""

    def number(value: float) -> str:
        return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"

    floors = [f" (floor {number(f['floor'])})" if f.get("floor") is not None else "" for f in figures]
    return ", ".join(f"{f['name']} {number(f['value'])}{floor}" for f, floor in zip(figures, floors, strict=True))


@contextmanager
def _published_weights(trainer: Trainer, module: LightningModule, dtype: StoredAs) -> Iterator[int]:
    """The weights to publish in the module, as exact as they will be stored; at the end its own again.

    They are the best checkpoint's, where one of the ModelCheckpoints monitors a figure. Yields the optimiser steps
    that made them.
    """
    checkpoints = [c for c in trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint) and c.monitor]
    own = {name: value.clone() for name, value in module.state_dict().items()}
    chosen, steps = own, trainer.global_step
    if checkpoints and (best := checkpoints[0].best_model_path):
        if os.path.isdir(best):  # a file of each process's share
            checkpoint = _load_distributed_checkpoint(Path(best))
        else:
            checkpoint = _load(best, map_location="cpu", weights_only=True)  # also from an address
        chosen, steps = checkpoint["state_dict"], checkpoint["global_step"]
    module.load_state_dict(as_stored(module, dtype, chosen))
    try:
        yield steps
    finally:
        module.load_state_dict(own)
