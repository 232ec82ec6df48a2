"""How far the model's samples are from real data, at every validation."""

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import nn

from genzoo.callbacks.closeness import Closeness
from genzoo.callbacks.data import SPLITS
from genzoo.callbacks.metrics.extractors import FeatureExtractor
from genzoo.callbacks.sampling import due, seeded
from genzoo.zoo.interface import Samples
from genzoo.zoo.processes import agree


class FrechetDistance(Callback):
    """Logs the Fréchet distance between samples and a split of the real data, for any module with `sample`.

    It is logged as `val/fid` if the extractor is Inception, the network of the FID, and as `val/frechet` for
    any other; with `kid` also `val/kid`, with `prdc` also `val/precision`, `val/recall`, `val/density`,
    `val/coverage` (`genzoo.callbacks.metrics.manifold` has the definitions). A ModelCheckpoint can monitor
    each.

    A distance says little without its floor: the distance of as many *real* data of another split from the
    same reference, which a perfect model would reach. It is printed once, beside the first score.

    The samples come from fixed seeds, so a run's figures compare. They are drawn in blocks that the processes
    share, so the figure does not depend on how many processes there are; nor does it move training's random
    state. The extractor stays outside the module: in no checkpoint, in no optimiser. Averaged weights (`EMA`)
    are in force, in whatever order the callbacks are listed. The sanity check is skipped.

    Args:
        extractor: data to features: an `nn.Module` (B, *shape) -> (B, d), the name of a zoo entry with
            `features` ("mnist/classifier"), or "inception".
        num_samples: how many samples. The distance is biased upwards for few; compare at equal numbers only.
        reference: the split of real data: "train", "val" or "test", whole.
        every_n_epochs: at every n-th epoch's validation, and at the last.
        batch_size: samples drawn at a time.
        seed: of the samples.
        kid: also the kernel distance.
        prdc: also precision, recall, density and coverage.
        weights_path: a file with Inception's weights, for machines without a network.
        cache_dir: where the reference's statistics are kept; None is $GENZOO_CACHE, or else ~/.cache/genzoo.

    Raises:
        ValueError: at construction on arguments out of range; before training if the module has no `sample`.
    """

    def __init__(
        self,
        extractor: str | nn.Module,
        num_samples: int = 10_000,
        reference: str = "test",
        every_n_epochs: int = 1,
        batch_size: int = 500,
        seed: int = 0,
        kid: bool = False,
        prdc: bool = False,
        weights_path: str | None = None,
        cache_dir: str | None = None,
    ) -> None:
        if reference not in SPLITS:
            raise ValueError(f"FrechetDistance: reference={reference!r} must be one of {', '.join(SPLITS)}.")
        if num_samples < 2 or every_n_epochs < 1 or batch_size < 1:
            raise ValueError(
                "FrechetDistance: num_samples must be at least 2, every_n_epochs and batch_size at least 1,"
                f" but they are {num_samples}, {every_n_epochs} and {batch_size}."
            )
        self.source = extractor
        self.num_samples = num_samples
        self.reference = reference
        self.every_n_epochs = every_n_epochs
        self.batch_size = batch_size
        self.seed = seed
        self.kid = kid
        self.prdc = prdc
        self.weights_path = weights_path
        self.cache_dir = cache_dir
        self._extractor: FeatureExtractor | None = None
        self._closeness: Closeness | None = None
        self._floor_printed = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Finds the extractor, and refuses a module that cannot be sampled, before training starts."""
        if not isinstance(pl_module, Samples):
            raise ValueError(
                f"FrechetDistance: {type(pl_module).__name__} has no `sample(num_samples, *, generator=None)`"
                " to draw from. Give it one, or take the callback away."
            )
        if self._extractor is None:
            self._extractor = FeatureExtractor(self.source, self.weights_path)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws, compares and logs; the same on every rank."""
        if not due(trainer, self.every_n_epochs):
            return
        with seeded(self.seed):  # reading data may draw, too
            scores = self._scores(trainer, pl_module)
        for name, value in scores.items():
            pl_module.log(f"val/{name}", value, prog_bar=name in ("frechet", "fid"))

    @torch.no_grad()
    def _scores(self, trainer: Trainer, module: LightningModule) -> dict[str, float]:
        assert self._extractor is not None and isinstance(module, Samples)  # setup has seen to both
        if self._closeness is None:
            self._closeness = Closeness(
                trainer,
                self._extractor.to(module.device),
                split=self.reference,
                num_samples=self.num_samples,
                keep=self.num_samples if self.kid or self.prdc else 0,
                device=module.device,
                cache_dir=self.cache_dir,
            )
        closeness = self._closeness
        found = closeness.scores(
            module.sample, seed=self.seed, batch_size=self.batch_size, kid=self.kid, prdc=self.prdc
        )
        scores = {name: score.value for name, score in found.items()}
        if not self._floor_printed:
            floor = closeness.floor()
            rank_zero_info(
                f"{closeness.name} ({self._extractor.name}): {scores[closeness.name]:.4g} for {self.num_samples}"
                f" samples against the {self.reference} split; floor {floor.value:.4g}, of {floor.num_examples} real"
                f" data of the {floor.split} split."
            )
            self._floor_printed = True
        return agree(scores)
