"""Whether the model has found every mode of data whose modes are known."""

from collections.abc import Sequence

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from genzoo.callbacks.at_validation import AtValidation, will_sample
from genzoo.metrics import modes
from genzoo.zoo.drawing import draw
from genzoo.zoo.interface import Samples


class ModeCoverage(AtValidation):
    """Counts the modes among the model's samples, for a mixture of equal Gaussians (the ring, the grid).

    Logs `val/modes` (how many of the centres are found), `val/high_quality` (the share of samples
    within three standard deviations of a centre) and `val/mode_kl` (from the uniform distribution over the centres,
    nats); `genzoo.metrics.modes` has the definitions. When, `AtValidation` says: at validations, without them at the
    end of training epochs, and at the end of the run; of averaged weights, if there is an `EMA`.

    Args:
        num_samples: how many samples; the literature draws 2,500, and more find more modes.
        every_n_epochs: at every n-th epoch's validation, and at the end.
        centres: (K, D); None takes the datamodule's `centres`.
        std: of each component; None takes the datamodule's `noise_std`.
        seed: of the samples.

    Raises:
        ValueError: at construction on arguments out of range; before training if the module has no `sample`, nobody
            says where the modes are, or samples cannot lie there.
    """

    def __init__(
        self,
        num_samples: int = 2500,
        every_n_epochs: int = 1,
        centres: Sequence[Sequence[float]] | None = None,
        std: float | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(every_n_epochs)
        if num_samples < 1:
            raise ValueError(f"ModeCoverage: num_samples={num_samples}: give at least 1.")
        self.num_samples = num_samples
        self.centres = None if centres is None else torch.as_tensor(centres, dtype=torch.float64)
        self.std = std
        self.seed = seed

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Finds the modes, before training starts."""
        if not will_sample(pl_module, stage):
            raise ValueError(f"ModeCoverage: {type(pl_module).__name__} has no `sample` to draw from.")
        centres, std = self._modes(trainer)
        modes.mode_coverage(centres, centres, std)  # raises for what are no modes
        shape = getattr(pl_module, "shape", None)
        if shape is not None and tuple(shape) != tuple(centres.shape[1:]):
            raise ValueError(
                f"ModeCoverage: the centres are points {tuple(centres.shape[1:])}, but the samples of"
                f" {type(pl_module).__name__} have the shape {tuple(shape)}."
            )

    def act(self, trainer: Trainer, module: LightningModule) -> dict[str, float]:
        """Draws and counts; the same on every rank."""
        if not isinstance(module, Samples):  # an autoencoder that has seen no data yet
            return {}
        coverage = modes.ModeCoverage(*self._modes(trainer), sync_on_compute=False)  # all ranks draw the same
        coverage.update(draw(module.sample, self.num_samples, self.seed))
        return {f"val/{name}": value.item() for name, value in coverage.compute().items()}

    def _modes(self, trainer: Trainer) -> tuple[Tensor, float]:
        data = trainer.datamodule  # type: ignore[attr-defined]
        centres = getattr(data, "centres", None) if self.centres is None else self.centres
        std = getattr(data, "noise_std", None) if self.std is None else self.std
        if centres is None or std is None:
            raise ValueError(
                f"ModeCoverage: {type(data).__name__} does not say where its modes are (`centres`, (K, D), and"
                " `noise_std`), as PointsDataModule does for the ring and the grid. Give `centres` and `std`."
            )
        return centres, std
