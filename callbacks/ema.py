"""An exponential moving average of the weights, in force wherever the model is looked at.

Generative models sample better from averaged weights than from the last step's. This callback keeps the
average beside the module, puts it into the module for every validation (so that likelihoods, samples and
Fréchet distances are the average's, whatever the order of the callbacks) and takes it out again before
training goes on.
"""

import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.plugins import CheckpointIO
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from genzoo.zoo.module import ZooModule
from genzoo.zoo.processes import world_size
from genzoo.zoo.sharding import is_shared, own, share_of, whole

Place = tuple[dict[str, Any], str]  # where a module keeps one of its tensors: its dictionary, and the key there


class EMA(Callback):
    """Averages the trained weights: average ← d · average + (1 − d) · weights, after every optimiser step.

    What is averaged: the parameters that an optimiser of the Trainer owns, and the floating-point buffers of
    the networks (the module's direct children) that hold such parameters. Frozen networks and integer buffers
    are left alone. A batch counts once however many optimisers stepped in it, and not at all while gradients
    accumulate.

    Where it is used: in validation, from `on_validation_start` to `on_validation_end`, and wherever else a callback
    looks at the model (`averaged_weights`); in every checkpoint,
    whose `state_dict` holds the average (weights-only checkpoints too), so that `load_from_checkpoint`,
    `trainer.test` and publishing give the model that was validated; and in the module itself once `fit` has
    returned. The raw weights lie in the checkpoint under this callback's own key, and resuming with the
    callback restores both bit for bit. Resuming such a checkpoint *without* this callback trains on from the
    average: nothing here can see that.

    A network that is trained no more, as its optimiser has gone, keeps the weights that it has, and the average of
    another one begins where that does.

    The average of a half-precision weight is kept in float32, where small updates are not lost. Where the weights are
    spread over devices (`ModelParallelStrategy`), each process averages its share of them; checkpoints have all.

    How far back a fixed d reaches, 1 / (1 − d) steps, should fit the length of the training. A `width` fits any: the
    weights of step t count as t^γ, and d follows from how many steps there were (Karras et al. 2024, section 3.1).

    Args:
        decay: d, in [0, 1).
        warmup: use min(d, (1 + n) / (10 + n)) after n updates, so that the random initial weights are soon
            forgotten.
        width: instead of both: how far the averaged steps spread, as their standard deviation in units of all steps
            so far, σ_rel; usually from 0.02 to 0.15.
        modules: average only these submodules, by name (`["generator"]`); None averages all that is trained.

    Raises:
        ValueError: at construction if decay is outside [0, 1), or width of what can be; before training if a name in
            `modules` is not a submodule, or if the strategy keeps the weights in a form of its own (FSDP's first
            version, DeepSpeed).
    """

    def __init__(
        self,
        decay: float = 0.999,
        warmup: bool = True,
        modules: Sequence[str] | None = None,
        width: float | None = None,
    ) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"EMA: decay is {decay}; it must lie in [0, 1), usually from 0.99 to 0.9999.")
        if width is not None and not 0 < width <= WIDEST:
            raise ValueError(f"EMA: width is {width}; it must lie above 0 and at most at {WIDEST}, usually 0.05.")
        self.decay = decay
        self.warmup = warmup
        self.width = width
        self._exponent = None if width is None else exponent_of(width)
        if modules is not None and not modules:
            raise ValueError(
                "EMA: modules names none, so there is nothing to average: leave it out, or the callback."
            )
        self.modules = modules
        self.num_updates = 0
        self._owner: weakref.ref[LightningModule] | None = None
        self._places: dict[str, Place] = {}  # by the name in the module's state_dict
        self._average: dict[str, Tensor] = {}  # likewise; tied weights share one tensor
        self._raw: dict[str, Tensor] | None = None  # the weights being trained, while the average is in the module
        self._seen_step = 0
        self._owners: list[tuple[Any, int]] = []

    # ---- the average

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuses what cannot work, before training starts."""
        if isinstance(trainer.strategy, FSDPStrategy | DeepSpeedStrategy):
            raise ValueError(
                f"EMA cannot average the weights as {type(trainer.strategy).__name__} keeps them. Use one that"
                " replicates the module (ddp), ModelParallelStrategy for a model that no device holds whole, or train"
                " without EMA."
            )
        known = {name for name, _ in pl_module.named_modules()}
        if unknown := [name for name in self.modules or () if name not in known]:
            children = ", ".join(name for name, _ in pl_module.named_children())
            raise ValueError(
                f"EMA: modules names {unknown}, which {type(pl_module).__name__} does not have; it has: {children}."
            )
        if self._owner is None or self._owner() is not pl_module:
            self._owner, self._average, self._raw, self.num_updates = weakref.ref(pl_module), {}, None, 0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begins the average at the weights as they are, or goes on with the one at hand."""
        if self._is_over():
            self._average, self._raw, self.num_updates = {}, None, 0
        self._swap_out()  # an earlier fit left the average in the module
        self._follow(trainer, pl_module)
        if isinstance(trainer.strategy, ModelParallelStrategy):  # whose plugin, if it has any, is given whole weights
            trainer.strategy.lightning_module_state_dict = partial(_averaged_state, trainer)  # type: ignore[method-assign]
            return
        plugin = trainer.strategy.checkpoint_io
        if isinstance(plugin, AveragedCheckpointIO):  # of an earlier fit
            plugin = plugin.plugin
        trainer.strategy.checkpoint_io = AveragedCheckpointIO(plugin, self)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Steps are counted from here: a resumed Trainer starts at a later one."""
        self._seen_step = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Updates the average if an optimiser stepped in this batch.

        `global_step` counts the steps of all optimisers together, so only that it moved says something.
        """
        if trainer.global_step == self._seen_step:
            return
        self._seen_step = trainer.global_step
        if _owners(trainer) != self._owners:  # a network was unfrozen on the way, or another one is trained now
            self._follow(trainer, pl_module)
        self._update()

    def _decay(self, n: int) -> float:
        """d of the update after n others."""
        if self._exponent is not None:
            return (n / (n + 1)) ** (self._exponent + 1)  # β of step t is (1 − 1/t)^(γ + 1)
        return min(self.decay, (1 + n) / (10 + n)) if self.warmup else self.decay

    @torch.no_grad()
    def _update(self) -> None:
        weight = 1 - self._decay(self.num_updates)
        averages, weights = [], []
        for average, live in self._pairs():
            if isinstance(live, torch.nn.Parameter):
                averages.append(average)
                weights.append(live.to(average.dtype))
            else:  # a buffer may hold ±inf (an attention mask), and inf − inf is NaN
                average.copy_(torch.where(average == live, average, average.lerp(live.to(average.dtype), weight)))
        if averages:
            torch._foreach_lerp_(averages, weights, weight)
        self.num_updates += 1

    def _follow(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Finds the tensors to average; those not averaged yet begin at their present value."""
        self._places = dict(self._trained(trainer, pl_module))
        self._owners = _owners(trainer)
        if self._average and not self._average.keys() & self._places.keys():  # nothing of that is trained any more
            self.num_updates = 0
        begun: dict[int, Tensor] = {}
        for name, (store, key) in self._places.items():
            live = store[key].detach()
            if is_shared(live) and live.dtype != _at_least_single(live.dtype):
                raise ValueError(
                    f"EMA keeps averages in float32, but checkpoints of weights that are spread over devices have"
                    f" them as the weights are, in {live.dtype}: train in bf16-mixed, or without EMA."
                )
            if name in self._average:
                average = self._average[name].to(live.device)
            else:
                average = live.to(_at_least_single(live.dtype), copy=True)
            self._average[name] = begun.setdefault(id(store[key]), average)
        self._average = {name: self._average[name] for name in self._places}

    def _trained(self, trainer: Trainer, pl_module: LightningModule) -> Iterator[tuple[str, Place]]:
        """The tensors to average, by their names in the module's state_dict."""
        owned = {id(p) for o in trainer.optimizers for group in o.param_groups for p in group["params"]}
        networks = {
            child for child, net in pl_module.named_children() if any(id(p) in owned for p in net.parameters())
        }
        if any(id(p) in owned for p in pl_module.parameters(recurse=False)):
            networks.add("")
        for prefix, module in pl_module.named_modules(remove_duplicate=False):
            if self.modules is not None and not any(f"{prefix}.".startswith(f"{m}.") for m in self.modules):
                continue
            dot = f"{prefix}." if prefix else ""
            for key, parameter in module._parameters.items():
                if parameter is not None and id(parameter) in owned:
                    yield dot + key, (module._parameters, key)
            if prefix.partition(".")[0] not in networks:
                continue
            for key, buffer in module._buffers.items():
                if key in getattr(module, "not_averaged", ()):
                    continue
                persistent = key not in module._non_persistent_buffers_set
                if buffer is not None and persistent and buffer.is_floating_point():
                    yield dot + key, (module._buffers, key)

    def _pairs(self) -> list[tuple[Tensor, Tensor]]:
        """(average, the module's tensor), each tensor once though its weights be tied under several names."""
        pairs = {id(self._average[name]): (self._average[name], s[k]) for name, (s, k) in self._places.items()}
        return list(pairs.values())

    # ---- into the module and out of it

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The average goes in before any other callback's validation hook of a later phase can look."""
        if trainer.state.fn == TrainerFn.FITTING:
            self._swap_in()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The raw weights come back."""
        if trainer.state.fn == TrainerFn.FITTING:
            self._swap_out()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """What is fitted beside the weights fits the average that a checkpoint has, also without validations."""
        if isinstance(pl_module, ZooModule) and pl_module.settles:
            with averaged_weights(trainer):
                pl_module.settle_after_epoch()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """The raw weights come back if a validation of training broke off; after training the average stays."""
        if trainer.state.fn == TrainerFn.FITTING:
            self._swap_out()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The average stays in the module: what `fit` hands back is what was validated."""
        self._swap_in()

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """As `on_train_end`, which Lightning skips when a resumed run had nothing left to train."""
        self._swap_in()

    @torch.inference_mode(False)  # validation runs in inference mode, whose tensors training may not touch
    @torch.no_grad()
    def _swap_in(self) -> bool:
        """Puts the average into the module; whether it was not there before."""
        if self._raw is not None or not self._average:
            return False
        self._raw = {name: store[key].detach().clone() for name, (store, key) in self._places.items()}
        for average, live in self._pairs():
            if world_size() > 1 and not isinstance(live, torch.nn.Parameter):
                torch.distributed.broadcast(average, src=0)  # each process saw its own batches' statistics
            live.copy_(average)
        return True

    def _is_in(self) -> bool:
        """Whether the module's parameters are the average. (Its buffers may have seen data since.)"""
        both = ((own(a), own(live)) for a, live in self._pairs() if isinstance(live, torch.nn.Parameter))
        return all(torch.equal(average.to(live.device, live.dtype), live) for average, live in both)

    @torch.inference_mode(False)
    @torch.no_grad()
    def _swap_out(self) -> None:
        if self._raw is None:
            return
        for name, (store, key) in self._places.items():
            store[key].copy_(self._raw[name])
        self._raw = None

    # ---- checkpoints

    def averaged(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The weights of a module by name, the average in place of those that are averaged.

        After a training, where others have been put into the module since, those.
        """
        average = {} if self._is_over() else self._average
        return {name: average.get(name, value) for name, value in weights.items()}

    def _is_over(self) -> bool:
        """Whether somebody has given the module other weights since the average was left in it."""
        return self._raw is not None and not self._is_in()

    def state_dict(self) -> dict[str, Any]:
        """The number of updates and the raw weights: the average itself is the checkpoint's `state_dict`."""
        if not self._average or self._is_over():
            return {}
        raw = self._raw or {name: store[key].detach() for name, (store, key) in self._places.items()}
        raw = {name: whole(value).cpu() if is_shared(value) else value for name, value in raw.items()}
        return {"num_updates": self.num_updates, "raw": raw}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """On resuming, takes the average from `state_dict` and gives the module its raw weights back."""
        if trainer.state.fn != TrainerFn.FITTING:
            return
        self._average, self._raw, self.num_updates = {}, None, 0
        state = checkpoint["callbacks"].get(self.state_key)
        if state is None:
            rank_zero_info("EMA: the checkpoint holds no average; a new one begins at its weights.")
            return
        self.num_updates = state["num_updates"]
        if isinstance(trainer.strategy, ModelParallelStrategy):  # which has put it into the module by now
            self._follow(trainer, pl_module)
        else:
            self._average = {name: checkpoint["state_dict"][name].clone() for name in state["raw"]}
        weights = pl_module.state_dict(keep_vars=True)
        with torch.no_grad():
            for name, value in state["raw"].items():
                own(weights[name]).copy_(share_of(value, weights[name]))


#: σ_rel of γ = 0, where all steps count the same
WIDEST = 0.28


def exponent_of(width: float) -> float:
    """γ of the weights t^γ, t from 0 to 1, whose standard deviation is `width`.

    Their variance is (γ + 1) / ((γ + 2)² (γ + 3)) (Karras et al. 2024, appendix C), so γ is the largest root of a
    cubic.
    """
    precision = width**-2
    return float(np.roots([1, 7, 16 - precision, 12 - precision]).real.max())


@contextmanager
def averaged_weights(trainer: Trainer) -> Iterator[None]:
    """The average in the module, if an `EMA` trains it, also outside validation; then what was there before."""
    averages: list[EMA] = [callback for callback in trainer.callbacks if isinstance(callback, EMA)]  # type: ignore[attr-defined]
    fits = trainer.state.fn == TrainerFn.FITTING  # else it may be the average of other weights
    put_in = [average for average in averages if fits and average._swap_in()]
    try:
        yield
    finally:
        for average in put_in:
            average._swap_out()


def _averaged_state(trainer: Trainer) -> dict[str, Any]:
    """The weights as `ModelParallelStrategy` hands them to a checkpoint, averaged."""
    strategy = trainer.strategy
    with averaged_weights(trainer):
        state = type(strategy).lightning_module_state_dict(strategy)
        return {name: value.clone() for name, value in state.items()}  # some are the module's own


class AveragedCheckpointIO(CheckpointIO):
    """Keeps checkpoints as another plugin does, with the average for their weights.

    Lightning asks callbacks about whole checkpoints, but not about weights-only ones; all of them pass through here.

    Args:
        plugin: the one that writes, reads and removes.
        ema: has the average.
    """

    def __init__(self, plugin: CheckpointIO, ema: EMA) -> None:
        self.plugin, self.ema = plugin, ema

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Writes the checkpoint, its `state_dict` averaged."""
        if "state_dict" in checkpoint:  # a spawned process hands bare weights back to its parent, averaged already
            checkpoint = {**checkpoint, "state_dict": self.ema.averaged(checkpoint["state_dict"])}
        self.plugin.save_checkpoint(checkpoint, path, storage_options)

    def load_checkpoint(self, path: Any, *where: Any, **how: Any) -> dict[str, Any]:
        """As the plugin does, which knows where to, if nobody says: Lightning's to the CPU."""
        return self.plugin.load_checkpoint(path, *where, **how)

    def remove_checkpoint(self, path: Any) -> None:
        """As the plugin does."""
        self.plugin.remove_checkpoint(path)

    def teardown(self) -> None:
        """As the plugin does."""
        self.plugin.teardown()


def _owners(trainer: Trainer) -> list[tuple[Any, int]]:
    """The optimisers, and how many parameters each of them owns."""
    return [(o, sum(len(group["params"]) for group in o.param_groups)) for o in trainer.optimizers]


def _at_least_single(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype
