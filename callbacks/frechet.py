"""How far the model's samples are from real data, at every validation."""

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn

from genzoo.callbacks.at_validation import AtValidation, will_sample
from genzoo.metrics.closeness import Closeness, check_apart, check_extractor
from genzoo.metrics.data import SPLITS, NoOtherSplit, Rows, at_most, first_batch
from genzoo.metrics.evaluation import LEAST
from genzoo.metrics.extractors import AUTO, FeatureExtractor, fitting
from genzoo.zoo.checks import check_count
from genzoo.zoo.drawing import seeded
from genzoo.zoo.interface import Samples
from genzoo.zoo.processes import agree
from genzoo.zoo.value_range import UNIT, checked_range, in_words


class FrechetDistance(AtValidation):
    """Logs the Fréchet distance between samples and a split of the real data, for any module with `sample`.

    It is logged as `val/fid` if the extractor is Inception, the network of the FID, and as `val/frechet` for
    any other; with `kid` also `val/kid`, with `prdc` also `val/precision`, `val/recall`, `val/density`,
    `val/coverage` (`genzoo.metrics` has the definitions, and the metrics for use without this callback). A
    ModelCheckpoint can monitor each.

    A distance says little without its floor: the distance of as many *real* data of another split from the
    same reference, which a perfect model would reach. It is printed once, with its spread, beside the first score.

    The samples come from fixed seeds, so a run's figures compare. They are drawn in blocks that the processes
    share, so the figure does not depend on how many processes there are; nor does it move training's random
    state. The extractor stays outside the module: in no checkpoint, in no optimiser. It is logged when
    `AtValidation` says: at validations, without them at the end of training epochs, and at the end of the run; of
    averaged weights, if there is an `EMA`.

    Args:
        extractor: data to features: an `nn.Module` (B, *shape) -> (B, d), the name of a zoo entry with
            `features` ("mnist/classifier"), or "inception"; "auto" is the entry that fits the data (see
            `genzoo.metrics.extractors.fitting`).
        num_samples: how many samples. The distance is biased upwards for few; compare at equal numbers only.
        reference: the split of real data: "train", "val" or "test", whole.
        every_n_epochs: at every n-th epoch's validation, and at the end.
        batch_size: samples drawn at a time.
        seed: of the samples.
        kid: also the kernel distance.
        prdc: also precision, recall, density and coverage.
        weights_path: a file with Inception's weights, for machines without a network.
        cache_dir: where the reference's statistics are kept; None is $GENZOO_CACHE, or else ~/.cache/genzoo.
        value_range: the darkest and the brightest value of images, data and samples; None finds it out from the data,
            and refuses samples that are plainly in another one. Inception and entries of the zoo are shown the images
            in [0, 1], a module of your own as they are.

    Raises:
        ValueError: at construction on arguments out of range; before training if the module has no `sample`, there is
            no such split, or the extractor makes no features of its data; and if data and samples are in two ranges.
    """

    def __init__(
        self,
        extractor: str | nn.Module = AUTO,
        num_samples: int = 10_000,
        reference: str = "test",
        every_n_epochs: int = 1,
        batch_size: int = 500,
        seed: int = 0,
        kid: bool = False,
        prdc: bool = False,
        weights_path: str | None = None,
        cache_dir: str | None = None,
        value_range: tuple[float, float] | None = None,
    ) -> None:
        super().__init__(every_n_epochs)
        if reference not in SPLITS:
            raise ValueError(f"FrechetDistance: reference={reference!r} must be one of {', '.join(SPLITS)}.")
        self._least = LEAST if prdc else 2
        check_count("FrechetDistance: num_samples", num_samples, self._least)
        check_count("FrechetDistance: batch_size", batch_size)
        check_count("FrechetDistance: seed", seed, 0)
        self.source = extractor
        self.num_samples = num_samples
        self.reference = reference
        self.batch_size = batch_size
        self.seed = seed
        self.kid = kid
        self.prdc = prdc
        self.weights_path = weights_path
        self.cache_dir = cache_dir
        self.value_range = checked_range(value_range, "FrechetDistance")
        self._extractor: FeatureExtractor | None = None
        self._closeness: Closeness | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Finds the extractor, and refuses what cannot be measured, before training starts."""
        if not will_sample(pl_module, stage):
            raise ValueError(
                f"FrechetDistance: {type(pl_module).__name__} has no `sample(num_samples, *, generator=None)`"
                " to draw from. Give it one, or take the callback away."
            )
        self._closeness = None  # it is of the data of another run
        check_apart(self.source, pl_module)
        if self.source == AUTO:
            self._extractor = None
        elif self._extractor is None:
            self._extractor = FeatureExtractor(self.source, self.weights_path)
        if stage in (TrainerFn.FITTING, TrainerFn.VALIDATING):
            data = first_batch(trainer, self.reference, "FrechetDistance: reference")
            if self._extractor is None:
                self._extractor = FeatureExtractor(self._fitting(trainer, data), self.weights_path)
            check_extractor(self._extractor, data, self.value_range)
            if (num := at_most(Rows(trainer, self.reference), self._least)) < self._least:
                raise ValueError(
                    f"FrechetDistance: distances are those to at least {self._least} data, but the {self.reference}"
                    f" split has {num}."
                )

    def _fitting(self, trainer: Trainer, data: Tensor) -> str:
        protocol = getattr(trainer.datamodule, "protocol", {})  # type: ignore[attr-defined]
        if (found := fitting(protocol, data.shape[1:])) is None:
            raise ValueError(
                f"FrechetDistance: no extractor of the zoo is for data of shape {tuple(data.shape[1:])}: give one of"
                " your own, a module from (B, *shape) to (B, d)."
            )
        rank_zero_info(f"FrechetDistance: in the features of {found}, which are for such data")
        return found

    def act(self, trainer: Trainer, module: LightningModule) -> dict[str, float]:
        """Draws and compares; the same on every rank."""
        if not isinstance(module, Samples):  # an autoencoder that has seen no data yet
            return {}
        with seeded(self.seed):  # reading data may draw, too
            first, closeness = self._closeness is None, self._real(trainer, module)
            scores = agree(closeness.scores(module.sample, seed=self.seed, batch_size=self.batch_size))
            if first:
                found = closeness.value_range
                images = "" if found in (None, UNIT) else f" (images in {in_words(found)})"
                rank_zero_info(
                    f"{closeness.name} ({closeness.extractor.name}): {scores[closeness.name]:.4g} for"
                    f" {self.num_samples} samples against the {self.reference} split{images}; {_floor(closeness)}."
                )
        return {f"val/{name}": value for name, value in scores.items()}

    def _real(self, trainer: Trainer, module: LightningModule) -> Closeness:
        """The real data, which are read at the first of the validations."""
        assert self._extractor is not None  # setup has seen to it
        if self._closeness is None:
            self._closeness = Closeness(
                trainer,
                self._extractor.to(module.device),
                split=self.reference,
                num_samples=self.num_samples,
                device=module.device,
                kid=self.kid,
                prdc=self.prdc,
                cache_dir=self.cache_dir,
                value_range=self.value_range,
            )
        return self._closeness


def _floor(closeness: Closeness) -> str:
    """The floor in words, or why there is none."""
    try:
        floor = closeness.floor()
    except NoOtherSplit as error:
        return f"without a floor: {str(error).rstrip('.')}"
    data, few = str(floor.data).replace(" data", " real data", 1), floor.data.total < closeness.num_samples
    return f"floor {floor.value:.4g} ± {floor.error:.1g}, of {data}" + (", so few that it is too high" if few else "")
