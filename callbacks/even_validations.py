"""Validations that keep step with training, however long it is, and in whatever it is measured."""

from bisect import bisect_right
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.trainer.states import TrainerFn

from genzoo.zoo.length import share_done

#: shares of training after which there are two more, so that the first pictures and figures come soon
EARLY = (1 / 200, 1 / 50)
REST = 4  # between two validations as many times as long as the first of them took
NEVER = 2**62  # batches


class EvenValidations(Callback):
    """Validates so many times, spread evenly over training: over its steps, or over its time if that alone bounds it.

    The last one comes at the end, and two more soon after the beginning (`EARLY`): of a quarter of an hour after four
    seconds and after twenty. Where time alone bounds training, there are fewer if they take long: a fifth of the time
    is theirs, at most. All processes validate after the same batch. Where the Trainer itself was told when to
    validate (`val_check_interval`, `check_val_every_n_epoch`), that goes. An `EarlyStopping` by a figure of
    validations looks at these, and no more at the ends of epochs.

    Args:
        times: how many, without the early ones.

    Raises:
        ValueError: if that is below 1; before the first step, if training has no end.
    """

    def __init__(self, times: int = 20) -> None:
        if times < 1:
            raise ValueError(f"EvenValidations: times={times}: give at least 1, the one at the end.")
        self._marks = sorted({*EARLY, *((k + 1) / times for k in range(times))})
        self._passed = 0  # marks behind us
        self._due = False  # after this batch
        self._start = self._end = 0.0  # of the last validation, as shares of training
        self._active = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Takes the Trainer's own intervals away, unless somebody has stated them."""
        if stage != TrainerFn.FITTING or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        intervals = trainer.check_val_every_n_epoch, getattr(trainer, "val_check_interval", None)
        known = intervals in ((1, 1.0), (None, NEVER))  # Lightning's defaults; ours, of a training before
        self._active = known and trainer.enable_validation
        if known and not self._active:  # checkpoints go by the ends of epochs
            trainer.check_val_every_n_epoch, trainer.val_check_interval = 1, 1.0
        if self._active:
            trainer.check_val_every_n_epoch, trainer.val_check_interval = None, NEVER
            for callback in trainer.callbacks:  # type: ignore[attr-defined]
                # one that was set up before took validations for the ends of epochs, where it would see an old figure
                if isinstance(callback, EarlyStopping) and callback.monitor.startswith("val"):
                    callback._check_on_train_epoch_end = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Finds the place, which in a run that goes on is not the beginning."""
        if self._active:  # what a checkpoint had it make up for, Lightning has taken over by now
            trainer.val_check_interval = NEVER
        if (share := share_done(trainer)) is None and self._active:
            raise ValueError(
                "EvenValidations are spread over training, which has no end here: give the Trainer max_steps,"
                " max_epochs or max_time, or take the callback away."
            )
        self._start = self._end = share or 0.0
        self._passed = bisect_right(self._marks, self._end)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Calls for a validation if a mark was passed."""
        if not self._active:
            return
        share = share_done(trainer) or 0.0
        passed = bisect_right(self._marks, share)
        self._due = passed > self._passed and share - self._end >= REST * (self._end - self._start)
        self._passed = passed if self._due else self._passed
        trainer.val_check_batch = 1 if self._due else NEVER

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Where time alone bounds training, a validation takes of it; of steps it takes none."""
        if self._active and not trainer.sanity_checking:
            self._start = share_done(trainer) or 0.0

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """How much of it."""
        if self._active and not trainer.sanity_checking:
            self._end = share_done(trainer) or 0.0

    def state_dict(self) -> dict[str, Any]:
        """Whether a validation is still to come, in a checkpoint that was written between a batch and that."""
        return {"due": self._due}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Has it made up for."""
        if self._active and checkpoint["callbacks"].get(self.state_key, {}).get("due"):
            trainer.val_check_interval = 1
