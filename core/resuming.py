"""How a run is written down, and how it goes on: what Lightning leaves undone, or does wrongly."""

import os
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loops.fit_loop import _FitLoop
from lightning.pytorch.loops.loop import _Loop
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor


class WholeFiles(TorchCheckpointIO):
    """Puts a checkpoint in its place at once, when all of it is on the disk.

    Lightning moves it there from the system's folder for temporary files. Where that is another disk, to move is to
    copy, and a run that is killed meanwhile would have spoilt the very checkpoint that it is to be resumed from.

    Raises:
        OSError: if it cannot be written: the disk is full, say. A checkpoint of that name stands as it was.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:  # noqa: D102
        if "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        half = Path(f"{path}.part")
        half.parent.mkdir(parents=True, exist_ok=True)
        try:
            with half.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(half, path)
        except (OSError, RuntimeError) as error:
            cause = error if isinstance(error, OSError) else error.__context__  # torch's own says "unexpected pos"
            if not isinstance(cause, OSError):
                raise
            raise OSError(f"{path} could not be written ({cause.strerror}); what was there before stands") from error
        finally:
            half.unlink(missing_ok=True)


class FitLoop(_FitLoop):
    """Lightning's loop over the epochs, which finds its place again wherever a checkpoint was written.

    Lightning's own loses its place in a checkpoint that was written

    * at an epoch's end, where `max_steps` is set: the end of that epoch is gone through once more and counted twice,
      so that the run ends an epoch too early if `max_epochs` is set, too;
    * where `max_steps` or a time limit ended the run within an epoch: the broken epoch counts as a whole one;
    * after a batch that a validation was to follow: that validation is never made;
    * within a validation: it goes on where it broke off, and its figures are those of the rest;
    * after an epoch's last batch: the next epoch never begins, and no later place within an epoch is found again.

    Its checkpoints also lack the figures that callbacks and schedules wait for, so that a schedule that waits for a
    plateau misses the end of the epoch in which the run goes on. Here they have them, and what was still to come is
    made up for: the validation, the end of the epoch or of the run with its hooks, the look at the plateau.
    """

    _owes = False  # a validation or an end, though the batches before it are done
    _figures: dict[str, Tensor] | None = None  # of the checkpoint, unless it is one of an earlier version

    @classmethod
    def install(cls, trainer: Trainer) -> None:
        """Takes the place of the Trainer's own."""
        own = trainer.fit_loop
        trainer.fit_loop = cls(trainer, own.min_epochs, own.max_epochs)
        trainer.fit_loop.epoch_loop = own.epoch_loop

    def on_save_checkpoint(self) -> dict[str, Any]:
        """Adds the figures that callbacks and schedules were shown last."""
        figures = {name: torch.as_tensor(value).cpu() for name, value in self.trainer.callback_metrics.items()}
        return super().on_save_checkpoint() | {"figures": figures}

    def on_load_checkpoint(self, state_dict: dict[str, Any]) -> None:
        """Keeps them until the run begins."""
        super().on_load_checkpoint(state_dict)
        self._figures = state_dict.get("figures")

    @_Loop.restarting.setter  # type: ignore[attr-defined]
    def restarting(self, restarting: bool) -> None:
        """Whether it goes on within an epoch; a whole one is followed by the next."""
        epoch: Any = self.epoch_progress.current
        counted = epoch.ready == epoch.started == epoch.processed
        whole = counted and self.epoch_loop.batch_progress.is_last_batch
        _Loop.restarting.fset(self, restarting and not whole)  # type: ignore[attr-defined]

    @property
    def done(self) -> bool:
        """As Lightning, but a run that has made all its steps may have a validation or its end to make."""
        return not (self.restarting and self._owes) and super().done

    def run(self) -> None:
        """As Lightning, from the place where the checkpoint was written."""
        self.setup_data()
        if self._figures is not None and self._loaded_from_state_dict:
            device = self.trainer.strategy.root_device
            self.trainer.callback_metrics.update({name: value.to(device) for name, value in self._figures.items()})
            ended: Any = self.epoch_progress.current
            if not self.restarting and ended.completed < ended.processed:  # written by a hook of an epoch's end
                self.epoch_loop.update_lr_schedulers("epoch", update_plateau_schedulers=True)
        if self.restarting:
            self._find_place()
        super().run()

    def on_advance_end(self) -> None:
        """As Lightning, which does not look at a plateau at the end of an epoch that a run went on within."""
        self.restarting = False
        super().on_advance_end()

    def _find_place(self) -> None:
        """Takes the counters to a state from which Lightning goes on rightly: between two batches, or two epochs."""
        loop: Any = self.epoch_loop
        epoch: Any = self.epoch_progress
        batches, validation = loop.batch_progress, loop.val_loop.batch_progress
        self._owes = validation.total.ready != validation.total.completed
        between = batches.current.completed == batches.current.processed
        if not between:  # written at the end of a batch, before the validation that is due now
            batches.increment_completed()
            assert self._data_fetcher is not None
            self._owes = loop._should_check_val_fx(self._data_fetcher)
        if self._owes:  # a validation, and all of it: Lightning takes it for the rest of one that broke off at once
            for counters in (validation.total, validation.current):
                counters.ready = counters.started = 1
                counters.processed = counters.completed = 0
            validation.is_last_batch = False
        elif loop._is_training_done and epoch.current.processed < epoch.current.started:
            self._finish_batch()
            self._finish_epoch()
        elif epoch.current.processed == epoch.current.started:  # counted though broken off
            for counters in (epoch.total, epoch.current):
                counters.processed = counters.completed = counters.started - 1
        elif not between:
            self._finish_batch()

    def _finish_batch(self) -> None:
        """What Lightning does after a batch, and after a validation if there is one."""
        loop: Any = self.epoch_loop
        if self._figures is not None:
            loop.update_lr_schedulers("step", update_plateau_schedulers=True)
        loop._batches_that_stepped += not loop._should_accumulate()

    def _finish_epoch(self) -> None:
        """The batches and validations of the epoch, or of the run, are done: what is left is its end."""
        loop: Any = self.epoch_loop
        if self._figures is not None:
            loop.val_loop._has_run = self._owes = True
        elif loop.batch_progress.is_last_batch:  # nobody could be shown a figure: it is counted, no more
            self.epoch_progress.increment_processed()
            self.epoch_progress.increment_completed()
            self.restarting = True
