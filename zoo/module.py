"""The LightningModule that all families extend: the data's contract, the steps, what is logged, how a run goes on."""

import math
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.plugins.precision import DeepSpeedPrecision, HalfPrecision
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor
from torch.optim.lr_scheduler import ReduceLROnPlateau

from genzoo.zoo import learning_rates, restating
from genzoo.zoo.interface import HasLogProb, ScoresAnomalies
from genzoo.zoo.length import has_validations, share_done
from genzoo.zoo.modality import (
    Modality,
    check_data,
    in_full,
    modality,
    no_number,
    parted,
    sounding,
    unusual_scale,
    value_range,
)
from genzoo.zoo.naming import NamingMixin
from genzoo.zoo.optimizers import fused, state_again
from genzoo.zoo.plain import make_plain
from genzoo.zoo.precision import MeasuredBuffers, full_precision
from genzoo.zoo.processes import gather
from genzoo.zoo.randomness import (
    Generator,
    PerDatum,
    draw_apart,
    order_together,
    random_states,
    restore_random_states,
)
from genzoo.zoo.sharding import agree, own, shard
from genzoo.zoo.sharing import SharingMixin
from genzoo.zoo.standardising import StandardisingMixin
from genzoo.zoo.statement import StatedModule

#: what may be called otherwise in data that are learned, and in such of which no label is looked at
ASIDE = {"fit": ("class_names",), "predict": ("class_names",)}


class ZooModule(SharingMixin, NamingMixin, StandardisingMixin, MeasuredBuffers, StatedModule):
    """The base of every module: the data's contract, the optimiser, logging, hyperparameters that can be stated.

    A family implements `objective`, the per-datum quantities of a training step with "loss" among them, and
    `evaluation`, those of a validation or test step; "nll" among them gives bits per dimension, too, where data are
    discrete. Everything is in nats, summed over the datum; the base averages over the batch, and over a dataset as
    Σ/N.

    Args:
        shape: of one datum, as the datamodule states it: (C, H, W), (T,), (1, T) or (D,).
        levels: how many values each dimension can take, k/(levels − 1) for images; None for continuous data.
        optimizer: builds the optimiser from the parameters; None takes the family's own (`default_optimizer`).
        lr_scheduler: builds the schedule from the optimiser; it advances with every optimiser step, and lasts as long
            as training, in steps or in time, unless it is given `total_steps` (see `learning_rates`). None: constant.

    Raises:
        ValueError: if shape or levels cannot describe data.
    """

    #: attributes, lists or dictionaries, in which a training gathers what it uses later: empty where it begins, and
    #: part of its checkpoints, in each process its own
    gathered: tuple[str, ...] = ("_noted", "_shown")

    def __init__(
        self,
        shape: Sequence[int],
        levels: int | None,
        *,
        optimizer: OptimizerCallable | None = None,
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__()
        self.modality: Modality = modality(shape, levels)
        self.shape: tuple[int, ...] = tuple(map(int, shape))
        self.levels = None if levels is None else int(levels)
        self.optimizer = optimizer
        self.lr_scheduler = lr_scheduler
        self._checked_stages: set[str] = set()
        self._value_range = value_range(shape, levels)
        self._suspicious = self._labels_are_sound = self._schedule_goes_by_time = False
        self._plateau_is_due = False  # after a validation
        self._changed: restating.Changed | None = None  # in a run that goes on
        self._figures_due: dict[str, float] = {}  # in a run that goes on from there
        self._streams: PerDatum | None = None  # of the batch that is on its way
        #: sum and number of what was trained on since callbacks looked, and the means that they were shown then
        self._noted: dict[str, tuple[Tensor, int]] = {}
        self._shown: dict[str, Tensor] = {}
        self._random_states: list[list[Tensor]] | None = None
        self._later_buffers: list[str] = []
        self.begin_in_own_units()

    @property
    def num_dims(self) -> int:
        """D, the number of dimensions of one datum."""
        return math.prod(self.shape)

    @property
    def like(self) -> Tensor:
        """A number on the model's device, in the precision of its data, noise and latents: float32 at least."""
        weight = next(self.parameters())  # perhaps a share of one, which would make shares
        return full_precision(torch.zeros((), dtype=weight.dtype, device=weight.device))

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
            (B,) tensors by name, "loss" among them, in nats; each is logged as `train/<name>`: the step's mean every
            `log_every_n_steps` steps, and for callbacks that monitor it, the mean since they last looked.
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

    #: whether there is such a thing, and after how many data it is fitted anew where nobody asks; see `settling`
    settles: bool = False
    settles_after: int = 1

    def settle(self, least: int = 1) -> None:
        """Fits what is fitted beside the weights to these, if `least` data were trained on since (see `settling`).

        It is called in a training, by all processes, where somebody is about to look. Of most families there is no
        such thing.
        """

    def settle_after_epoch(self) -> None:
        """For checkpoints that no validation comes before: after the last epoch, and wherever it hardly costs."""
        if not self.settles:
            return
        is_last = self.current_epoch + 1 == self.trainer.max_epochs or (share_done(self.trainer) or 0) >= 1
        if is_last or self.trainer.should_stop:
            self.settle()
        elif not has_validations(self.trainer):
            self.settle(self.settles_after)

    # ---- the steps

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """The mean of `objective`'s loss over the batch."""
        x, labels = self.unpack(batch, "train")
        quantities = self.objective(x, labels)
        self._note(quantities)
        if self._logs_this_step():
            self._log_training(quantities, x)
        return quantities["loss"].mean()

    def _log_training(self, quantities: dict[str, Tensor], x: Tensor) -> None:
        """Logs the means of `quantities` of a batch x under `train/`, and ends a run whose loss is no number."""
        means = {f"train/{name}": value.detach().mean() for name, value in quantities.items()}
        if not bool(torch.isfinite(means["train/loss"])):
            raise ValueError(
                f"The loss is {float(means['train/loss'])} at step {self.global_step}:"
                f" {no_number(self.standardised(x), getattr(self, 'data_scale', None))}."
                " Nothing after the last checkpoint is worth going on from."
            )
        self.log("train/loss", means.pop("train/loss"), prog_bar=True, batch_size=len(x))
        self.log_dict(means, batch_size=len(x))

    def _note(self, quantities: dict[str, Tensor]) -> None:
        """Adds a step's quantities to the means that callbacks are shown, without a log call or waiting for them."""
        for name, value in quantities.items():
            if name not in self._noted:
                precise = torch.float64 if value.device.type != "mps" else torch.float32
                self._noted[name] = value.new_zeros((), dtype=precise), 0
            total, count = self._noted[name]
            self._noted[name] = total + value.detach().sum(), count + value.numel()

    def _show_means(self) -> None:
        """For callbacks that monitor `train/<name>`: its mean over the data since they last looked.

        They look at the end of a validation and of an epoch, where what a step logged may be long out of date.
        Loggers have what the steps logged, and nothing of this.
        """
        if self.trainer.state.fn != TrainerFn.FITTING or self.trainer.sanity_checking:
            return
        if self._noted:
            self._shown = {f"train/{name}": total / count for name, (total, count) in self._noted.items()}
            self._noted = {}
        self.log_dict(self._shown, logger=False, sync_dist=True)

    def on_validation_epoch_end(self) -> None:
        """Figures of the training are current where callbacks look at them."""
        self._show_means()
        self._plateau_is_due = self.trainer.state.fn == TrainerFn.FITTING and not self.trainer.sanity_checking

    def on_validation_end(self) -> None:
        """See `learning_rates.look_at`; a checkpoint that was written just before knows that it is due."""
        if self._plateau_is_due:
            learning_rates.look_at(learning_rates.figures_of_plateaus(self.trainer), self.trainer)
        self._plateau_is_due = False

    def on_train_epoch_start(self) -> None:
        """See `order_together`."""
        order_together(self.trainer.train_dataloader, self.current_epoch)

    def on_train_epoch_end(self) -> None:
        """Figures of the training are current where callbacks look at them."""
        self._show_means()
        self.settle_after_epoch()

    def on_train_end(self) -> None:
        """See `settle`."""
        self.settle()

    def _logs_this_step(self) -> bool:
        """Whether a logger keeps this step's figures: a log call costs as much as a small layer."""
        every = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        return self.global_step == 0 or (every > 0 and (self.global_step + 1) % every == 0)

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Logs `evaluation` under `val/`."""
        self._log_evaluation(batch, "val")

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Logs `evaluation` under `test/`."""
        self._log_evaluation(batch, "test")

    def predict_step(self, batch: Any, batch_idx: int = 0, dataloader_idx: int = 0) -> dict[str, Tensor]:
        """What the model can say of each datum: "log_prob" (nats) and "anomaly_score", where it has them."""
        x, _ = self.unpack(batch, "predict")
        said: dict[str, Tensor] = {}
        if isinstance(self, HasLogProb):
            said["log_prob"] = self.log_prob(x, generator=self._streams_of(x))
        if isinstance(self, ScoresAnomalies):
            said["anomaly_score"] = self.anomaly_score(x)
        return said

    def _log_evaluation(self, batch: Any, stage: str) -> None:
        x, labels = self.unpack(batch, stage)
        quantities = self.evaluation(x, labels, self._streams_of(x))
        for name, value in quantities.items():
            self._log_mean(f"{stage}/{name}", value, float(len(x)))
        if "nll" in quantities and self.levels is not None:  # a density has no code length
            counts = self.num_observed(x)
            bits = quantities["nll"].sum() / (counts.sum() * math.log(2))
            # weighed by what it is a mean over: the figure of a dataset is all its bits over all its dimensions
            self._log_mean(f"{stage}/bits_per_dim", bits, float(counts.sum()) / self.num_dims)

    def _streams_of(self, x: Tensor) -> PerDatum:
        """The noise of a batch, from its own bytes: as they were before it was moved."""
        streams, self._streams = self._streams, None
        return PerDatum(x) if streams is None else streams

    def _log_mean(self, name: str, value: Tensor, weight: float) -> None:
        """Logs the mean over an epoch, Σ weight · mean(value) / Σ weight.

        In float64, or the sum over a dataset loses digits. The weight is no integer, which Lightning would average
        over the processes with the remainder dropped: (51 + 50) / 2 = 50.
        """
        self.log(
            name,
            value.double().mean() if value.device.type != "mps" else value.mean(),
            batch_size=weight,  # type: ignore[arg-type]
            on_step=False,
            on_epoch=True,
            sync_dist=True,
            prog_bar=name.endswith(("/nll", "/bits_per_dim", "/accuracy")),
        )

    def configure_optimizers(self) -> Any:
        """The optimiser over `parameter_groups`, and the schedule, which counts steps (on a plateau, validations)."""
        optimizer = fused((self.optimizer or self.default_optimizer)(self.parameter_groups()))
        if self.lr_scheduler is None:
            return optimizer
        schedule = learning_rates.schedule_for(self.lr_scheduler, optimizer, self._trainer)
        config = {"scheduler": schedule, "interval": "step"}
        if isinstance(schedule, ReduceLROnPlateau):
            config |= learning_rates.timetable(schedule, self._trainer)
        return {"optimizer": optimizer, "lr_scheduler": config}

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """A step of the schedule for each of the optimiser's; or as far as time has passed (see `learning_rates`)."""
        if self._schedule_goes_by_time:
            learning_rates.catch_up(scheduler, self.trainer)
        else:
            super().lr_scheduler_step(scheduler, metric)

    # ---- the data's contract

    def unpack(self, batch: Any, stage: str | None = None) -> tuple[Tensor, Tensor | None]:
        """A batch, `x`, `(x, y)` or `{"x": x, "y": y}`, as data and labels.

        The first of each stage is checked, and any odd one.

        Whether one is odd is seen while it is still on the CPU. Of batches that a loader hands out on an accelerator
        only the first of each stage is checked: to look at all would have every step wait for the accelerator.
        """
        x, labels = parted(batch)
        if not isinstance(x, Tensor):
            self.check(x)  # which says what it should be
        if self._must_check(stage):
            self.check(x)
            self._checked_stages.add(str(stage))
            continuous = stage == "train" and self.levels is None
            in_networks = self.standardised(x) if continuous else x
            if continuous and (unusual := unusual_scale(in_networks, getattr(self, "data_scale", None))):
                rank_zero_warn(f"{type(self).__name__}: {unusual}.")
        return in_full(x, self.levels, self.modality), labels

    def _must_check(self, stage: str | None) -> bool:
        return stage is not None and (stage not in self._checked_stages or self._suspicious)

    def _on_before_batch_transfer(self, batch: Any, dataloader_idx: int = 0) -> Any:
        """Looks at each batch while it is on the CPU, where that costs microseconds; `unpack` checks an odd one.

        There, too, the streams of an evaluation's noise are made of its bytes: later it would have to come back.

        The hook of this name without the underscore would do, if Lightning did not warn of it in every run.
        """
        batch = super()._on_before_batch_transfer(batch, dataloader_idx)
        x, labels = parted(batch)
        classes = (0.0, (getattr(self, "num_classes", None) or math.inf) - 1)
        are_classes = _within(labels, classes, ())
        self._suspicious = not (_within(x, self._value_range, self.shape) and are_classes)
        self._labels_are_sound = are_classes and _is_on_cpu(labels)
        evaluates = self._trainer is not None and not self.trainer.training and _is_on_cpu(x)
        self._streams = PerDatum(in_full(x, self.levels, self.modality)) if evaluates else None
        return batch

    def check(self, x: Tensor, *, on_grid: bool = True, in_range: bool = True) -> Tensor:
        """The batch, if it holds data that this model is for.

        A model whose weights are in half precision also takes float32, and what it is given in half precision comes
        back in float32: its images on their grid, which half precision does not hold.

        Args:
            x: (B, *shape).
            on_grid: whether images have to lie on the grid of their levels, or anywhere in its range.
            in_range: whether there, or anywhere at all, as noise does.

        Raises:
            TypeError: if x is no tensor, or of the wrong kind of number.
            ValueError: on a wrong shape, no data, NaN or infinite values, values out of range or off the grid.
        """
        precisions, levels = {p.dtype for p in self.parameters()}, self.levels if in_range else None
        check_data(x, self.shape, levels, precisions, type(self).__name__, on_grid=on_grid)
        return in_full(x, levels if on_grid else None, self.modality)

    def observed(self, x: Tensor) -> Tensor:
        """Which dimensions of x its likelihood counts, (B, *shape) bool: all, but of a sound none from its end on."""
        if self.modality == "waveform" and self.levels is not None:
            return sounding(x, self.levels)
        return torch.ones_like(x, dtype=torch.bool)

    def num_observed(self, x: Tensor) -> Tensor:
        """How many dimensions of each datum its likelihood counts, (B,) int64, at least 1."""
        return self.observed(x).flatten(1).sum(1)

    # ---- weights published before a buffer existed

    def register_later_buffer(self, name: str, value: Tensor) -> None:
        """A buffer that weights published earlier lack: loading them leaves it as it is, also where `strict`.

        Args:
            name: of the buffer, an attribute from then on.
            value: what it holds until there is something better to hold; of a fixed shape.
        """
        self.register_buffer(name, value)
        self._later_buffers.append(name)

    def with_later_buffers(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A state of this module, completed by the buffers that are younger than it, at their present values."""
        later = {
            f"{prefix}.{name}".removeprefix("."): module.get_buffer(name)
            for prefix, module in self.named_modules()
            if isinstance(module, ZooModule)
            for name in module._later_buffers
        }
        return {**later, **state}

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *arguments: Any) -> None:
        # where torch lets a module take a state of an earlier version, also as a part of another module
        for name in self._later_buffers:
            state_dict.setdefault(prefix + name, self.get_buffer(name))
        super()._load_from_state_dict(state_dict, prefix, *arguments)

    # ---- weights that are spread over devices

    def configure_model(self) -> None:
        """Spreads the networks over the devices if `ModelParallelStrategy` trains them (see `sharding.shard`)."""
        if self.device_mesh is not None:
            shard(self, self.device_mesh)

    def on_validation_start(self) -> None:
        """See `_agree`, and `settle`."""
        self._agree()
        self.settle()

    def on_test_start(self) -> None:
        """See `_agree`."""
        self._agree()

    def on_predict_start(self) -> None:
        """See `_agree`."""
        self._agree()

    def _agree(self) -> None:
        """Beside weights that are spread, all else is the first process's, which may have read it from a file."""
        if self.device_mesh is not None:
            agree(self)

    # ---- an interrupted run goes on with what it had gathered, and the random numbers it would have drawn

    def setup(self, stage: str) -> None:
        """A training gathers anew; one that goes on gets what it had from the checkpoint, after this.

        Points are standardised as the datamodule states, unless the model is told otherwise or was before; the
        classes are called as there, and the columns of a table.
        """
        super().setup(stage)
        plugin = getattr(self._trainer, "precision_plugin", None)
        if self.levels is None and isinstance(plugin, HalfPrecision | DeepSpeedPrecision):
            plugin.convert_input = _as_they_are  # type: ignore[method-assign]  # or the years 1990 to 1997 are one
        data = getattr(self._trainer, "datamodule", None)
        self.check_source(data, but=_aside(stage))
        if stage == TrainerFn.FITTING:
            self._random_states = None
            if columns := self.columns_of(data):
                self.name_columns(columns)
            stated = getattr(data, "standardisation", None)
            if stated is not None and self.modality == "points" and not self.is_standardising:
                self.standardise(*stated)
            if (names := getattr(data, "class_names", ())) and getattr(self, "num_classes", None) is not None:
                self.name_classes(names)
            for name in self.gathered:
                setattr(self, name, type(getattr(self, name))())

    def teardown(self, stage: str) -> None:
        """What another model of the same Trainer is given, is converted again."""
        super().teardown(stage)
        if (plugin := getattr(self._trainer, "precision_plugin", None)) is not None:
            vars(plugin).pop("convert_input", None)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds what every process has gathered, and its random state. What is in it by now, such as an optimiser's
        state, is made plain: it loads with `weights_only=True`.

        Raises:
            ValueError: if weights are no numbers any more; the checkpoints written before stay as they are.
        """
        if not all(gather(all(bool(own(p).isfinite().all()) for p in self.parameters()))):
            raise ValueError(
                f"The weights are NaN or infinite at step {self.global_step}, so no checkpoint is written: the"
                " training diverged (try a lower learning rate, or gradient clipping). The last one is from before."
            )
        super().on_save_checkpoint(checkpoint)
        make_plain(checkpoint)
        checkpoint["random_state"] = gather(random_states())
        # another process's tensors would come back on that one's GPU
        own_part = move_data_to_device({name: getattr(self, name) for name in self.gathered}, "cpu")
        checkpoint["gathered"] = gather(own_part)
        checkpoint |= self.stated_names
        if self._plateau_is_due and (figures := learning_rates.figures_of_plateaus(self.trainer)):
            checkpoint["figures_due"] = figures

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restores them, if it is a training run that goes on; and what the classes and columns are called."""
        super().on_load_checkpoint(checkpoint)
        self.take_names(checkpoint)
        if self._trainer is not None:  # whose data have said of this model what the checkpoint knew
            but = () if self.trainer.state.fn == TrainerFn.FITTING else _aside(self.trainer.state.fn)
            self.check_source(getattr(self.trainer, "datamodule", None), but=but)
            self.check_source(SimpleNamespace(**checkpoint.get("hyper_parameters", {})), called="the checkpoint")
        if self._trainer is not None and self.trainer.state.fn == TrainerFn.FITTING:
            self._changed = restating.changed(checkpoint, self.hparams)
            for name, value in dict(enumerate(checkpoint.get("gathered", []))).get(self.global_rank, {}).items():
                setattr(self, name, value)
            self._figures_due = checkpoint.get("figures_due", {})
            self._random_states = checkpoint.get("random_state")
            self._restore_random_state()

    def on_train_start(self) -> None:
        """Takes up what was gathered, the schedule, the place in the data and the random numbers of a resumed run.

        In a run that begins, each process draws its own noise from here on.
        """
        self._agree()
        if self._random_states is None or self.global_rank >= len(self._random_states):
            draw_apart()
        order_together(self.trainer.train_dataloader, self.current_epoch)  # an epoch that goes on does not begin
        for name in self.gathered:
            setattr(self, name, move_data_to_device(getattr(self, name), self.device))
        if self._changed is not None:
            for optimizer in self.trainer.optimizers:
                state_again(optimizer, arguments=self._changed.arguments, rates=self._changed.schedule)
            self._changed = None
        if self.lr_scheduler is not None:
            self._schedule_goes_by_time = learning_rates.goes_by_time(self.lr_scheduler, self.trainer)
            for config in self.trainer.lr_scheduler_configs:
                config.scheduler = learning_rates.going_on(self.lr_scheduler, config.scheduler, self.trainer)
        learning_rates.look_at(self._figures_due, self.trainer)
        self._figures_due = {}
        loop = self.trainer.fit_loop
        if loop.restarting and loop._combined_loader_states_to_load:
            # The schedule had asked how many batches there are, and Lightning restores a place only in data that
            # nobody has asked for before.
            loop._load_combined_loader_states()
            iter(loop._data_fetcher)  # type: ignore[arg-type]
        if loop.restarted_mid_epoch:  # once more: a `DataLoader` has drawn a seed
            self._restore_random_state()

    def _restore_random_state(self) -> None:
        if self._random_states is None or self.global_rank >= len(self._random_states):
            return
        restore_random_states(self._random_states[self.global_rank])


def _as_they_are(data: Any) -> Any:
    return data


def _aside(stage: Any) -> tuple[str, ...]:
    return ASIDE.get(getattr(stage, "value", stage), ())  # Lightning's own kind of text


def _is_on_cpu(t: Any) -> bool:
    return isinstance(t, Tensor) and t.device.type == "cpu"


def _within(t: Any, bounds: tuple[float, float], shape: tuple[int, ...]) -> bool:
    """Whether a tensor on the CPU holds values within bounds, which NaN is not, in the right shape."""
    if not _is_on_cpu(t):
        return True
    if not t.numel() or t.shape[1:] != shape:
        return False
    low, high = t.aminmax()
    return bounds[0] <= low.item() and high.item() <= bounds[1]
