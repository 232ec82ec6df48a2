"""What every family of generative model has in common.

The capabilities, as protocols: `isinstance(model, HasLogProb)` tells whether a model (of ours or of anybody) can do
a thing, and a capability that a family does not have is a method that it does not have. Then `ZooModule`, the
LightningModule that all families extend. (`mixins.py` completes a capability from its essential part.)
"""

import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import partial
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.core.mixins.hparams_mixin import HyperparametersMixin, _given_hyperparameters
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.parsing import collect_init_args
from torch import Tensor, nn

from genzoo.zoo.modality import Modality, check_data, modality
from genzoo.zoo.randomness import Generator, PerDatum

LogProbKind = Literal["exact", "lower_bound", "estimate"]


# ------------------------------------------------------------------------------------------------ the capabilities


@runtime_checkable
class Samples(Protocol):
    """Draws new data."""

    def sample(self, num_samples: int, *, labels: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        """(num_samples, *shape), in the data's range."""
        ...


@runtime_checkable
class HasLogProb(Protocol):
    """Evaluates the likelihood: exactly, by a lower bound, or by an estimate, as `log_prob_kind` says."""

    log_prob_kind: LogProbKind

    def log_prob(self, x: Tensor, *, num_particles: int = 1, generator: Generator | None = None) -> Tensor:
        """(B,), nats of the discrete datum (of the density, for continuous data), summed over the event."""
        ...

    def bits_per_dim(self, x: Tensor, *, num_particles: int = 1, generator: Generator | None = None) -> Tensor:
        """(B,), −log₂ p(x) / D."""
        ...


@runtime_checkable
class ScoresAnomalies(Protocol):
    """Tells the odd from the usual."""

    def anomaly_score(self, x: Tensor, *, scorer: str | None = None) -> Tensor:
        """(B,), higher = odder; raw, without threshold or normalisation; the same for the same x."""
        ...


@runtime_checkable
class Completes(Protocol):
    """Fills in what is missing."""

    def complete(
        self, x: Tensor, known: Tensor, *, num_samples: int = 1, generator: Generator | None = None
    ) -> Tensor:
        """(num_samples, B, *shape); where `known` is True, x bit for bit."""
        ...


@runtime_checkable
class HasLatents(Protocol):
    """Maps data to codes and back."""

    def encode(self, x: Tensor) -> Any:
        """A distribution over codes with a `.mean` of shape (B, d)."""
        ...

    def decode(self, z: Tensor) -> Any:
        """A distribution over data with a `.mean` of shape (B, *shape)."""
        ...

    def reconstruct(self, x: Tensor) -> Tensor:
        """(B, *shape): the mean of decode(the mean of encode(x))."""
        ...

    def interpolate(self, a: Tensor, b: Tensor, steps: int) -> Tensor:
        """(steps, B, *shape): from the reconstruction of a to that of b."""
        ...

    def traverse(self, x: Tensor, dim: int, values: Sequence[float] | Tensor) -> Tensor:
        """(len(values), B, *shape): reconstructions of x with code dimension `dim` set to each value."""
        ...


@runtime_checkable
class Interpolates(Protocol):
    """Goes from one datum to another through what the model takes for data."""

    def interpolate(self, a: Tensor, b: Tensor, steps: int) -> Tensor:
        """(steps, B, *shape): from the model's rendering of a to that of b."""
        ...


@runtime_checkable
class Inverts(Protocol):
    """Finds the latent from which the model would generate a datum."""

    def invert(self, x: Tensor) -> Tensor:
        """(B, ...), the latent of each datum."""
        ...


@runtime_checkable
class SamplesInSteps(Protocol):
    """Shows how a sample comes about: pixel by pixel, or out of noise."""

    def sample_path(
        self, num_samples: int, *, num_frames: int, labels: Tensor | None = None, generator: Generator | None = None
    ) -> Tensor:
        """(num_frames, num_samples, *shape); the last frame is what `sample` gives for the same generator.

        What is not yet drawn is 0 in the frames before.
        """
        ...


# ------------------------------------------------------------------------------------------------------- the base


class ZooModule(LightningModule):
    """The base of every module: the data's contract, the optimiser, logging, hyperparameters that can be stated.

    A family implements `objective`, the per-datum quantities of a training step with "loss" among them, and
    `evaluation`, those of a validation or test step; "nll" among them also gives bits per dimension. Everything is
    in nats, summed over the datum; the base averages over the batch, and over a dataset as Σ/N.

    Args:
        shape: of one datum, as the datamodule states it: (C, H, W), (T,), (1, T) or (D,).
        levels: how many values each dimension can take, k/(levels − 1) for images; None for continuous data.
        optimizer: builds the optimiser from the parameters; None takes the family's own (`default_optimizer`).
        lr_scheduler: builds the schedule from the optimiser; it advances with every optimiser step. None: constant.

    Raises:
        ValueError: if shape or levels cannot describe data.
    """

    #: constructor arguments that no file can state, because they were given as live modules; see `as_config`
    unstated: list[str]

    def __init__(
        self,
        shape: Sequence[int],
        levels: int | None,
        *,
        optimizer: OptimizerCallable | None = None,
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__()
        self._state_hyperparameters()
        self.modality: Modality = modality(shape, levels)
        self.shape: tuple[int, ...] = tuple(shape)
        self.levels = levels
        self.optimizer = optimizer
        self.lr_scheduler = lr_scheduler
        self._checked_stages: set[str] = set()
        self._random_states: list[list[Tensor]] | None = None

    @property
    def num_dims(self) -> int:
        """D, the number of dimensions of one datum."""
        return math.prod(self.shape)

    @property
    def network_evaluations(self) -> int:
        """How often `sample` runs the network, whatever the number of samples."""
        return 1

    # ---- what a family states

    def objective(self, x: Tensor, labels: Tensor | None) -> dict[str, Tensor]:
        """The quantities of a training step.

        Args:
            x: (B, *shape), in the data's range.
            labels: (B,) or None.

        Returns:
            (B,) tensors by name, "loss" among them, in nats; each is logged as `train/<name>`.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement objective(x, labels).")

    def evaluation(self, x: Tensor, labels: Tensor | None, generator: Generator) -> dict[str, Tensor]:
        """The quantities of a validation or test step, (B,) by name, logged as `val/<name>` or `test/<name>`."""
        raise NotImplementedError(f"{type(self).__name__} must implement evaluation(x, labels, generator).")

    def default_optimizer(self, parameters: Any) -> torch.optim.Optimizer:
        """AdamW with a learning rate of 1e-3, unless the family knows better."""
        return torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.0)

    def parameter_groups(self) -> list[Any]:
        """What the optimiser is built from: all trainable parameters, or groups of them where a family tells some."""
        return [p for p in self.parameters() if p.requires_grad]

    # ---- the steps

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """The mean of `objective`'s loss over the batch."""
        x, labels = self.unpack(batch, "train")
        quantities = self.objective(x, labels)
        if self._logs_this_step():
            self._log_training(quantities, len(x))
        return quantities["loss"].mean()

    def _log_training(self, quantities: dict[str, Tensor], batch_size: int) -> None:
        """Logs the means of `quantities` under `train/`, and ends a run whose loss is no number."""
        means = {f"train/{name}": value.detach().mean() for name, value in quantities.items()}
        if not bool(torch.isfinite(means["train/loss"])):
            raise ValueError(
                f"The loss is {float(means['train/loss'])} at step {self.global_step}: the data hold NaN, or the"
                " training diverged (try a lower learning rate, or gradient clipping). Nothing after the last"
                " checkpoint is worth going on from."
            )
        self.log("train/loss", means.pop("train/loss"), prog_bar=True, batch_size=batch_size)
        self.log_dict(means, batch_size=batch_size)

    def _logs_this_step(self) -> bool:
        """Whether a logger keeps this step's figures: a log call costs as much as a small layer."""
        every = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        return self.global_step == 0 or (every > 0 and (self.global_step + 1) % every == 0)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Logs `evaluation` under `val/`."""
        self._log_evaluation(batch, "val")

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Logs `evaluation` under `test/`."""
        self._log_evaluation(batch, "test")

    def predict_step(self, batch: Any, batch_idx: int = 0) -> dict[str, Tensor]:
        """What the model can say of each datum: "log_prob" (nats) and "anomaly_score", where it has them."""
        x, _ = self.unpack(batch, "predict")
        said: dict[str, Tensor] = {}
        if isinstance(self, HasLogProb):
            said["log_prob"] = self.log_prob(x, generator=PerDatum(x))
        if isinstance(self, ScoresAnomalies):
            said["anomaly_score"] = self.anomaly_score(x)
        return said

    def _log_evaluation(self, batch: Any, stage: str) -> None:
        x, labels = self.unpack(batch, stage)
        quantities = self.evaluation(x, labels, PerDatum(x))
        if "nll" in quantities:
            quantities["bits_per_dim"] = quantities["nll"] / (self.num_dims * math.log(2))
        for name, value in quantities.items():
            # float64, or the sum over a dataset loses digits. Lightning weighs by batch_size: the mean is Σ/N. An
            # integer one it would average over the processes with the remainder dropped: (51 + 50) / 2 = 50.
            self.log(
                f"{stage}/{name}",
                value.double().mean() if value.device.type != "mps" else value.mean(),
                batch_size=float(len(x)),  # type: ignore[arg-type]
                on_step=False,
                on_epoch=True,
                sync_dist=True,
                prog_bar=name in ("nll", "bits_per_dim", "accuracy"),
            )

    def configure_optimizers(self) -> Any:
        """The optimiser over `parameter_groups`, and the schedule, which counts steps."""
        optimizer = (self.optimizer or self.default_optimizer)(self.parameter_groups())
        if self.lr_scheduler is None:
            return optimizer
        schedule = self.lr_scheduler(optimizer)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    # ---- the data's contract

    def unpack(self, batch: Any, stage: str | None = None) -> tuple[Tensor, Tensor | None]:
        """A batch, `x` or `(x, y)`, as data and labels. The first batch of each stage is checked."""
        x, labels = (batch[0], batch[1]) if isinstance(batch, list | tuple) and len(batch) > 1 else (batch, None)
        if isinstance(x, list | tuple):
            x = x[0]
        if stage is not None and stage not in self._checked_stages:
            self.check(x)
            self._checked_stages.add(stage)
        return x, labels

    def check(self, x: Tensor, *, on_grid: bool = True, in_range: bool = True) -> Tensor:
        """The batch itself, if it holds data that this model is for.

        Args:
            x: (B, *shape).
            on_grid: whether images have to lie on the grid of their levels, or anywhere in its range.
            in_range: whether there, or anywhere at all, as noise does.

        Raises:
            TypeError: if x is no tensor, or of the wrong kind of number.
            ValueError: on a wrong shape, no data, NaN or infinite values, values out of range or off the grid.
        """
        precisions = {p.dtype for p in self.parameters()}
        levels = self.levels if in_range else None
        return check_data(x, self.shape, levels, precisions, type(self).__name__, on_grid=on_grid)

    # ---- hyperparameters

    def _state_hyperparameters(self) -> None:
        """Saves the constructor's arguments in the command line's own form, also when built from Python.

        A checkpoint then holds plain values and `class_path`s only: it loads with `weights_only=True`, in a fresh
        interpreter, and can be published.
        """
        self.unstated = []
        if _given_hyperparameters.get() is not None:  # built by the command line, which states them itself
            self.save_hyperparameters()
            return
        frame = inspect.currentframe()
        arguments: dict[str, Any] = {}
        if frame is not None and frame.f_back is not None:
            for found in collect_init_args(frame.f_back, [], classes=(HyperparametersMixin,)):
                arguments.update(found)
        stated: dict[str, Any] = {}
        for name, value in arguments.items():
            try:
                stated[name] = as_config(value)
            except TypeError:
                if not name.endswith(("optimizer", "lr_scheduler")):  # these have no part in the weights
                    self.unstated.append(name)
        stated["_class_path"] = class_path(type(self))
        stated["_instantiator"] = "lightning.pytorch.cli.instantiate_module"
        self.save_hyperparameters(stated)

    # ---- an interrupted run goes on with the random numbers it would have drawn

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the random state of every process, and the names of arguments that cannot be stated."""
        mine = [torch.get_rng_state(), *(torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [])]
        states: list[Any] = [mine]
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            states = [None] * torch.distributed.get_world_size()
            torch.distributed.all_gather_object(states, mine)
        checkpoint["random_state"] = states
        checkpoint["unstated_arguments"] = list(self.unstated)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restores the random state, if it is a training run that goes on.

        Raises:
            ValueError: if the checkpoint's model was given a module that this one was not.
        """
        missing = set(checkpoint.get("unstated_arguments", [])) - set(self.unstated)
        if missing:
            raise ValueError(
                f"The checkpoint's model was built with modules of its own for {sorted(missing)}, which no file can"
                f" state. Pass them again: {type(self).__name__}.load_from_checkpoint(path,"
                f" {', '.join(f'{name}=...' for name in sorted(missing))})."
            )
        if self._trainer is not None and self.trainer.state.fn == TrainerFn.FITTING:
            self._random_states = checkpoint.get("random_state")
            self._restore_random_state()

    def on_train_start(self) -> None:
        """Restores the random state once more where an epoch goes on: a `DataLoader` has drawn a seed from it."""
        if self.trainer.fit_loop.restarted_mid_epoch:
            self._restore_random_state()

    def _restore_random_state(self) -> None:
        if self._random_states is None or self.global_rank >= len(self._random_states):
            return
        cpu, *cuda = self._random_states[self.global_rank]
        torch.set_rng_state(cpu.cpu())
        if cuda and len(cuda) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all([state.cpu() for state in cuda])


# ------------------------------------------------------------------------------------- arguments in a file's form


def class_path(cls: type) -> str:
    """The dotted name under which a file states a class."""
    return f"{cls.__module__}.{cls.__qualname__}"


def as_config(value: Any) -> Any:
    """A constructor argument in the form in which a YAML file states it.

    Plain values stay, sequences become lists, a dataclass or a `functools.partial` of a class becomes
    {"class_path", "init_args"}.

    Raises:
        TypeError: for anything that no file can state, such as a live module or a lambda.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(k): as_config(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [as_config(v) for v in value]
    if is_dataclass(value) and not isinstance(value, type):
        arguments = {f.name: as_config(getattr(value, f.name)) for f in fields(value) if f.init}
        return {"class_path": class_path(type(value)), "init_args": arguments}
    if isinstance(value, partial) and isinstance(value.func, type) and not value.args:
        return {"class_path": class_path(value.func), "init_args": as_config(value.keywords)}
    if isinstance(value, type) and not issubclass(value, nn.Module):
        return {"class_path": class_path(value), "init_args": {}}
    raise TypeError(f"{value!r} cannot be stated in a file.")
