"""What callbacks that look at the model at its validations have in common: when their turn comes."""

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.trainer.states import TrainerFn


class AtValidation(Callback):
    """A callback whose turn comes at some of the validations.

    Args:
        every_n_epochs: at every n-th epoch's validation, and at the last.

    Raises:
        ValueError: if that is below 1.
    """

    def __init__(self, every_n_epochs: int = 1) -> None:
        if every_n_epochs < 1:
            raise ValueError(
                f"{type(self).__name__}: every_n_epochs={every_n_epochs}: at every n-th epoch, n at least 1."
            )
        self.every_n_epochs = every_n_epochs

    def is_due(self, trainer: Trainer) -> bool:
        """Whether this validation counts: every n-th epoch and the last one, and never the sanity check."""
        if trainer.sanity_checking:
            return False
        if trainer.state.fn != TrainerFn.FITTING:
            return True
        epoch = trainer.current_epoch + 1
        return epoch % self.every_n_epochs == 0 or epoch == trainer.max_epochs
