"""A second opinion for autoencoders: a reconstruction should also have the features of its datum."""

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn

from genzoo.metrics.closeness import check_apart, check_extractor
from genzoo.metrics.data import first_batch
from genzoo.metrics.extractors import ANY_IMAGE, FeatureExtractor
from genzoo.zoo.checks import check_number
from genzoo.zoo.interface import TakesAddedLoss
from genzoo.zoo.precision import full_precision
from genzoo.zoo.value_range import ValueRange, range_of, to_unit


class FeatureLoss(Callback):
    """Adds to an autoencoder's loss how far the features of a reconstruction are from those of the datum.

        loss = −log p(x | z) + weight · ‖φ(x) − φ(x̂)‖²,   x̂ = E[x | z]

    (Dosovitskiy & Brox 2016; Johnson, Alahi & Fei-Fei 2016.) A likelihood of independent pixels takes a blur over an
    edge in the wrong place; features do not. But for a constant the addition is −log of a normal distribution of the
    features around φ(x̂), of variance 1/(2 weight): nats. It is there in training only, logged as `train/added_loss`;
    what is validated is the likelihood alone.

    The extractor stays outside the module: in no checkpoint, in no optimiser, and it is not trained.

    Args:
        extractor: data to features: the name of a zoo entry with `features`, or an `nn.Module` (B, *shape) -> (B, d)
            with a derivative.
        weight: nats for each unit of squared distance, above 0.

    Raises:
        ValueError: if the weight is not above 0; before training if the module is no autoencoder, the extractor is a
            part of it, makes no features of its data, or none with a derivative.
    """

    def __init__(self, extractor: str | nn.Module = ANY_IMAGE, weight: float = 1.0) -> None:
        check_number("weight", weight)
        if weight <= 0:
            raise ValueError(f"FeatureLoss: weight={weight} must be above 0; without the callback nothing is added.")
        self.source, self.weight = extractor, weight
        self._extractor: FeatureExtractor | None = None
        self._range: ValueRange | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Finds the extractor, and refuses what has no features, before training starts."""
        if stage != TrainerFn.FITTING:
            return
        if not isinstance(pl_module, TakesAddedLoss):
            raise ValueError(
                f"FeatureLoss: {type(pl_module).__name__} takes no addition to its loss, as an Autoencoder does. Take"
                " the callback away."
            )
        check_apart(self.source, pl_module)
        if self._extractor is None:
            self._extractor = FeatureExtractor(self.source)
        data = first_batch(trainer, "train", "FeatureLoss: split")
        check_extractor(self._extractor, data)
        self._range = range_of(data) if self._extractor.takes_unit_images else None
        with torch.enable_grad():
            x = to_unit(data[:2].float(), self._range).requires_grad_()
            if not self._extractor.differentiable(x).requires_grad:
                raise ValueError(
                    f"FeatureLoss: the features of {self._extractor.name} have no derivative, by which to learn (as"
                    " Inception's, which rounds images to 8 bits): give another extractor."
                )
        pl_module.added_loss = self.distance

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The extractor goes where the module is."""
        assert self._extractor is not None
        self._extractor.to(pl_module.device)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """What was trained is a model without it."""
        if stage == TrainerFn.FITTING and getattr(pl_module, "added_loss", None) == self.distance:
            pl_module.added_loss = None  # type: ignore[assignment]

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """As `teardown`, which Lightning skips."""
        self.teardown(trainer, pl_module, TrainerFn.FITTING)

    def distance(self, x: Tensor, reconstruction: Tensor) -> Tensor:
        """weight · ‖φ(x) − φ(x̂)‖², (B,), nats."""
        assert self._extractor is not None
        with torch.no_grad():
            wanted = self._extractor.differentiable(to_unit(x, self._range))
        found = self._extractor.differentiable(to_unit(reconstruction, self._range))
        return self.weight * (full_precision(found) - full_precision(wanted)).square().flatten(1).sum(1)
