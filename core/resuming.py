"""How a run is written down, and how it goes on: what Lightning leaves undone, or does wrongly."""

import os
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loops.fit_loop import _FitLoop
from lightning.pytorch.loops.loop import _Loop
from lightning.pytorch.plugins.io import TorchCheckpointIO


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
    """

    _owes_validation = False

    @classmethod
    def install(cls, trainer: Trainer) -> None:
        """Takes the place of the Trainer's own."""
        own = trainer.fit_loop
        trainer.fit_loop = cls(trainer, own.min_epochs, own.max_epochs)
        trainer.fit_loop.epoch_loop = own.epoch_loop

    @_Loop.restarting.setter  # type: ignore[attr-defined]
    def restarting(self, restarting: bool) -> None:
        """Whether it goes on within an epoch; a whole one is followed by the next."""
        epoch: Any = self.epoch_progress.current
        counted = epoch.ready == epoch.started == epoch.processed
        whole = counted and self.epoch_loop.batch_progress.is_last_batch
        _Loop.restarting.fset(self, restarting and not whole)  # type: ignore[attr-defined]

    @property
    def done(self) -> bool:
        """As Lightning, but a run that has made all its steps may have a validation to make."""
        return not (self.restarting and self._owes_validation) and super().done

    def run(self) -> None:
        """As Lightning, from the place where the checkpoint was written."""
        self.setup_data()
        if self.restarting:
            self._find_place()
        super().run()

    def _find_place(self) -> None:
        """Takes the counters to a state from which Lightning goes on rightly: between two batches, or two epochs."""
        loop: Any = self.epoch_loop
        epoch: Any = self.epoch_progress
        batches, validation = loop.batch_progress, loop.val_loop.batch_progress
        self._owes_validation = validation.total.ready != validation.total.completed
        between = batches.current.completed == batches.current.processed
        if not between:  # written at the end of a batch, before the validation that is due now
            batches.increment_completed()
            assert self._data_fetcher is not None
            self._owes_validation = loop._should_check_val_fx(self._data_fetcher)
        if (
            self._owes_validation
        ):  # all of it, which Lightning takes for the rest of one that broke off in its first batch
            for counters in (validation.total, validation.current):
                counters.ready = counters.started = 1
                counters.processed = counters.completed = 0
            validation.is_last_batch = False
        elif batches.is_last_batch:  # all that is left of this epoch is to count it
            loop._batches_that_stepped += 1
            epoch.increment_processed()
            epoch.increment_completed()
            self.restarting = True
        elif epoch.current.processed == epoch.current.started:  # counted though broken off
            for counters in (epoch.total, epoch.current):
                counters.processed = counters.completed = counters.started - 1
        elif not between:
            loop._batches_that_stepped += not loop._should_accumulate()
