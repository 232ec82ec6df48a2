"""How two models are trained in one run: both at once, one after the other, or only the second.

In the first stage the autoencoder learns, as it would alone; then it is frozen, the training data are encoded once
and kept, and in the second stage the prior learns on these codes, without a look at an image. Each stage has the
optimiser and the schedule of the part that learns, and the schedule lasts as long as the stage, in steps or in time.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

import torch
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, IterableDataset

from genzoo.zoo import learning_rates
from genzoo.zoo.length import share_done
from genzoo.zoo.modality import Modality, in_full, parted
from genzoo.zoo.optimizers import fused
from genzoo.zoo.processes import total, world_size
from genzoo.zoo.two_stage.spaces import CodeSpace

if TYPE_CHECKING:
    from genzoo.zoo.module import ZooModule

#: which parts learn
Stage = Literal["both", "autoencoder", "prior"]


class TwoStageMixin(nn.Module):
    """Gives a module of an `autoencoder`, a `space` of codes and a `prior` its stages.

    Its constructor calls `begin_with`; its `objective` asks `stage` what to learn, and in the second stage
    `kept_codes` what from.
    """

    autoencoder: "ZooModule"
    prior: "ZooModule"
    space: CodeSpace
    stage: Stage

    # from ZooModule
    trainer: Any
    device: torch.device
    levels: int | None
    modality: Modality
    class_counts: Tensor
    checked_labels: Callable[[Tensor | None, int], Tensor | None]
    count_classes: Callable[[Tensor], None]
    check: Callable[..., Tensor]
    _on_before_batch_transfer: Callable[..., Any]

    def begin_with(self, stage: Stage, first_stage: float | None) -> None:
        """The stage in which a training begins, and the share of it after which the first one is over."""
        self.stage = self._first = stage
        self.first_stage = first_stage
        self._begun = first_stage or 0.0  # the share of training at which the second stage began
        self._kept: tuple[Tensor, Tensor | None] | None = None  # what says q(z | x) of the training data, and labels

    @property
    def learning(self) -> nn.Module:
        """What learns in this stage."""
        return {"both": self, "autoencoder": self.autoencoder, "prior": self.prior}[self.stage]

    def kept_codes(self, number: int) -> tuple[Tensor, Tensor | None] | None:
        """So many of the training data's codes, drawn at random, and their labels; None where none are kept."""
        if self._kept is None or not self.training:
            return None
        posterior, labels = self._kept
        rows = torch.randint(len(posterior), (number,), device=posterior.device)
        return posterior[rows], None if labels is None else labels[rows]

    def train(self, mode: bool = True) -> Any:
        """As torch's; but an autoencoder that is frozen is used, not trained."""
        super().train(mode)
        if self.stage == "prior":
            self.autoencoder.eval()
        return self

    # ---- the stages of a run

    def setup(self, stage: str) -> None:
        """A training begins with its first stage; one that goes on gets its own from the checkpoint, after this."""
        super().setup(stage)  # type: ignore[misc]
        if stage == TrainerFn.FITTING:
            self.stage, self._kept, self._begun = self._first, None, self.first_stage or 0.0

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the stage, and when it began."""
        super().on_save_checkpoint(checkpoint)  # type: ignore[misc]
        checkpoint["stage"], checkpoint["stage_begun"] = self.stage, self._begun

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Goes on in the same stage."""
        super().on_load_checkpoint(checkpoint)  # type: ignore[misc]
        if getattr(self, "_trainer", None) is not None and self.trainer.state.fn == TrainerFn.FITTING:
            self.stage = checkpoint.get("stage", self.stage)
            self._begun = checkpoint.get("stage_begun", self._begun)

    def on_train_start(self) -> None:
        """Encodes the data of a run that begins, or goes on, in the second stage.

        A run that goes on for longer than it was to has schedules that are as long.

        Raises:
            ValueError: if there is to be a first stage, but training has no end of which it were a share; or if
                nobody knows how many data there are to encode.
        """
        super().on_train_start()  # type: ignore[misc]
        done = share_done(self.trainer)
        if self.stage == "autoencoder" and done is None:
            raise ValueError(
                f"first_stage={self.first_stage} is a share of training, which has no end here: give the Trainer"
                " max_steps, max_epochs or max_time."
            )
        if self.stage != "both" and self.trainer.num_training_batches == math.inf:
            raise ValueError(
                "first_stage: the training data are encoded once, but nobody says how many they are; give the Trainer"
                " limit_train_batches."
            )
        if self.stage == "prior":
            self._begun = min(self._begun, done or 0.0)
        part: Any = self.learning
        if self.stage != "both" and part.lr_scheduler is not None:
            for config in self.trainer.lr_scheduler_configs:
                config.scheduler = learning_rates.going_on_in_stage(
                    part.lr_scheduler, config.scheduler, self.trainer, *self._span
                )
        if self.stage == "prior":
            self._keep_codes(measure=self.trainer.global_step == 0)

    @property
    def _span(self) -> tuple[float, float]:
        """The shares of training between which the stage lies."""
        return (0.0, self.first_stage or 0.0) if self.stage == "autoencoder" else (self._begun, 1.0)

    def on_train_end(self) -> None:
        """Lets go of the codes, which are of these data."""
        super().on_train_end()  # type: ignore[misc]
        self._kept = None

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Ends the first stage, when it is time: collective, where training goes by the clock."""
        over = self.stage == "autoencoder" and (share_done(self.trainer) or 0.0) >= (self.first_stage or 0.0)
        if over:
            self.stage = "prior"
            self.autoencoder.zero_grad(set_to_none=True)
            self.autoencoder.eval()
            self._keep_codes(measure=True)
            self.trainer.strategy.setup_optimizers(self.trainer)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """As in `ZooModule`; of several processes each has a gradient, be it 0, for what does not learn."""
        loss = super().training_step(batch, batch_idx)  # type: ignore[misc]
        if self.stage != "both" and world_size() > 1:
            idle = self.prior if self.stage == "autoencoder" else self.autoencoder
            loss = loss + 0 * sum(parameter.sum() for parameter in idle.parameters())
        return loss

    def configure_optimizers(self) -> Any:
        """The optimiser of what learns, and a schedule that lasts as long as its stage."""
        if self.stage == "both":
            return super().configure_optimizers()  # type: ignore[misc]
        if self.stage == "autoencoder":
            self._optimizer_of(self.prior)  # what cannot be made is refused now, not half way
        return self._optimizer_of(self.learning)

    def _optimizer_of(self, part: Any) -> Any:
        optimizer = fused((part.optimizer or part.default_optimizer)(part.parameter_groups()))
        if part.lr_scheduler is None:
            return optimizer
        schedule = learning_rates.schedule_of_stage(part.lr_scheduler, optimizer)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Takes the schedule to where its stage is."""
        if self.stage == "both":
            super().lr_scheduler_step(scheduler, metric)  # type: ignore[misc]
        else:
            learning_rates.catch_up(scheduler, self.trainer, *self._span)

    # ---- the codes of the training data

    @torch.no_grad()
    def _keep_codes(self, *, measure: bool) -> None:
        """Encodes the training data, and their mirror images where these are seen in training.

        Each process keeps those of its own share. What else is random about training data is drawn once. Random
        numbers are left as they were: a run that goes on encodes again, and then draws what it would have drawn.
        """
        augmentation = getattr(self.trainer.datamodule, "augmentation", None)
        mirrored = bool(getattr(augmentation, "flip", False))
        found: list[Tensor] = []
        classes: list[Any] = []
        with torch.random.fork_rng(devices=[]), self.trainer.precision_plugin.val_step_context():
            torch.default_generator.manual_seed(0)  # the CPU's alone: `torch.manual_seed` is every device's
            for batch in self._training_batches():
                x, labels = parted(self._on_the_device(batch))
                labels = None if getattr(self, "num_classes", None) is None else labels  # which may be anything
                x = in_full(x, self.levels, self.modality)
                x = x if found else self.check(x)
                for seen in (x, x.flip(-1)) if mirrored else (x,):
                    found.append(self.space.posterior(self.autoencoder, seen))
                    classes.append(labels)
        posterior = torch.cat(found)
        found.clear()  # of a large data set they are as much again
        labels = None if classes[0] is None else torch.cat(classes)
        if getattr(self, "num_classes", None) is not None:
            if measure and labels is not None:  # of all data, however few of them the first stage has seen
                self.count_classes(labels)
                self.class_counts.copy_(total(self.class_counts))
            self.checked_labels(labels, len(posterior))
        if measure:
            self.space.measure(posterior)
        self._kept = posterior, labels
        rank_zero_info(f"{type(self).__name__}: {len(posterior):,} data are encoded; what learns is the prior.")

    def _on_the_device(self, batch: Any) -> Any:
        """By way of all that Lightning asks on the way of a batch of training."""
        batch = self.trainer.precision_plugin.convert_input(batch)
        batch = self._on_before_batch_transfer(batch, 0)
        return self.trainer.strategy.batch_to_device(batch, dataloader_idx=0)

    def _training_batches(self) -> Iterator[Any]:
        """Once through the training data, in an order that is always the same; as many as an epoch has, at most."""
        loader: Iterable[Any] = self.trainer.train_dataloader
        if hasattr(loader, "unshuffled"):
            loader = loader.unshuffled()
        elif isinstance(loader, DataLoader) and not isinstance(loader.dataset, IterableDataset):
            loader = _again(loader)
        sampler: Any = getattr(loader, "sampler", None)
        epoch = getattr(sampler, "epoch", None)
        if epoch is not None:  # by which a sampler for several processes shuffles
            sampler.set_epoch(0)
        try:
            yield from islice(loader, int(self.trainer.num_training_batches) if self._limited else None)
        finally:
            if epoch is not None:
                sampler.set_epoch(epoch)

    @property
    def _limited(self) -> bool:
        limit = self.trainer.limit_train_batches
        return isinstance(limit, int) or (limit is not None and limit < 1)


def _again(loader: DataLoader) -> DataLoader:
    """The same data, from a loader of its own: the other may be amid an epoch, with workers that persist."""
    again = partial(DataLoader, loader.dataset, collate_fn=loader.collate_fn)
    if loader.batch_sampler is not None and type(loader.batch_sampler) is not BatchSampler:
        return again(batch_sampler=loader.batch_sampler)
    return again(sampler=loader.sampler, batch_size=loader.batch_size, drop_last=loader.drop_last)
