"""What callbacks that look at the model have in common: when their turn comes, and where their figures go."""

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.exceptions import SIGTERMException

from genzoo.callbacks.ema import averaged_weights
from genzoo.callbacks.newest import Newest
from genzoo.metrics.evaluation import measuring
from genzoo.zoo.interface import Samples
from genzoo.zoo.length import has_validations
from genzoo.zoo.module import ZooModule
from genzoo.zoo.processes import world_size


class AtValidation(Callback):
    """A callback whose turn comes at some of the validations, and at the end, whatever ends the run but Ctrl-C.

    `act` is called

    * at every n-th epoch's validations, and at one that is known to be the last; never in the sanity check;
    * in a run without validations, at the end of every n-th training epoch;
    * when training has ended (by its epochs, its steps, its time, early, or by SIGTERM), if the last weights were not
      looked at, be it before the first validation. Not on Ctrl-C: who interrupts a run does not want to wait.

    Each time the module is in evaluation mode, without gradients, and averaged weights (`EMA`) are in force, in
    whatever order the callbacks are listed. The figures that it returns are logged in a validation as the module's
    own, so that a ModelCheckpoint can monitor them; at the end loggers and `trainer.callback_metrics` get them under
    the same names.

    Args:
        every_n_epochs: at every n-th epoch's validation, and at the end.

    Raises:
        ValueError: if that is below 1.
    """

    def __init__(self, every_n_epochs: int = 1) -> None:
        if every_n_epochs < 1:
            raise ValueError(
                f"{type(self).__name__}: every_n_epochs={every_n_epochs}: at every n-th epoch, n at least 1."
            )
        self.every_n_epochs = every_n_epochs
        self._looked_at: int | None = None  # the step of the weights that were looked at last, in a training

    def act(self, trainer: Trainer, module: LightningModule) -> Mapping[str, float]:
        """Looks at the model. Collective.

        Returns:
            Figures by the names that they are logged under, the same on every process; the first is also shown in the
            progress bar.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement act(trainer, module).")

    def is_due(self, trainer: Trainer) -> bool:
        """Whether this epoch counts: every n-th one, and one that is known to be the last."""
        if trainer.state.fn != TrainerFn.FITTING:
            return True
        epoch = trainer.current_epoch + 1
        ends = epoch == trainer.max_epochs or 0 <= trainer.max_steps <= trainer.global_step or trainer.should_stop
        return ends or epoch % self.every_n_epochs == 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Weights that are not trained on are none to look at."""
        self._looked_at = trainer.global_step

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Acts if it is its turn."""
        if not trainer.sanity_checking and self.is_due(trainer):
            self._log(pl_module, self._look(trainer, pl_module))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Acts if it is its turn, in a run that does not validate."""
        if not has_validations(trainer) and self.is_due(trainer):
            self._log(pl_module, self._look(trainer, pl_module))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Acts on the last weights."""
        self._look_last(trainer, pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Acts on the last weights where SIGTERM ends training.

        Several processes act together, so all of them have to have heard of it: by `Newest`.
        """
        together = world_size() == 1 or any(isinstance(c, Newest) for c in trainer.checkpoint_callbacks)
        if isinstance(exception, SIGTERMException) and together:
            self._look_last(trainer, pl_module)
        self._looked_at = None

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Until another training there is nothing to look at."""
        self._looked_at = None

    def _look_last(self, trainer: Trainer, module: LightningModule) -> None:
        """Acts if it has not yet; a module can log no more, so the figures go where its would."""
        if self._looked_at in (None, trainer.global_step):
            return
        figures = dict(self._look(trainer, module))
        for shown in (trainer.callback_metrics, trainer.logged_metrics):
            shown.update({name: torch.tensor(value) for name, value in figures.items()})
        # Private names. Loggers know a batch by its number, from 0: one less than there were by now. But if SIGTERM
        # came in its last hook, or in the validation after it, it is not among them yet.
        loop: Any = trainer.fit_loop
        batches, epochs = loop.epoch_loop.batch_progress.current, loop.epoch_progress.current
        counted = batches.completed == batches.processed and not trainer.validating
        step = loop.epoch_loop._batches_that_stepped - counted
        epoch = epochs.completed - (epochs.completed == epochs.started)
        for logger in trainer.loggers if figures else ():
            logger.log_metrics({**figures, "epoch": epoch}, step)
            logger.save()

    def _look(self, trainer: Trainer, module: LightningModule) -> Mapping[str, float]:
        with averaged_weights(trainer), measuring(module), torch.no_grad():
            if trainer.state.fn == TrainerFn.FITTING and isinstance(module, ZooModule):
                module.settle()
            figures = self.act(trainer, module)
        if trainer.state.fn == TrainerFn.FITTING:
            self._looked_at = trainer.global_step
        return figures

    def _log(self, module: LightningModule, figures: Mapping[str, float]) -> None:
        for i, (name, value) in enumerate(figures.items()):
            module.log(name, value, prog_bar=i == 0)


def will_sample(module: LightningModule, stage: str) -> bool:
    """Whether it can be sampled: now, or as soon as a training has begun."""
    return isinstance(module, Samples) or (stage == TrainerFn.FITTING and getattr(module, "will_sample", False))
