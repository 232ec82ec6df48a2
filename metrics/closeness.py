"""How close samples are to real data, seen through an extractor: what `evaluate` and `FrechetDistance` share."""

from collections.abc import Callable, Iterable, Iterator
from functools import cached_property, partial
from typing import Any, NamedTuple

import torch
from lightning.pytorch import LightningDataModule, Trainer
from torch import Tensor, nn

from genzoo.metrics.base import TwoSets, check_features, float64_device
from genzoo.metrics.copying import Memorisation, memorisation
from genzoo.metrics.data import Rows, beside, first_batch
from genzoo.metrics.extractors import FeatureExtractor
from genzoo.metrics.features import real_features
from genzoo.metrics.frechet import FeatureStatistics, FrechetDistance, frechet_error, frechet_floor_error
from genzoo.metrics.kernel import KernelDistance
from genzoo.metrics.manifold import ManifoldScores
from genzoo.zoo.drawing import blocks, draw
from genzoo.zoo.processes import gather, rank, share
from genzoo.zoo.value_range import (
    BYTES,
    SYMMETRIC,
    UNIT,
    ValueRange,
    contradicts,
    in_words,
    plain_range,
    range_of,
    to_unit,
)


class Floor(NamedTuple):
    """The Fréchet distance that a perfect model would reach: that of real data of another split."""

    value: float
    error: float  # its standard deviation over other divisions of the real data
    data: Rows


def check_extractor(extractor: FeatureExtractor, x: Tensor, value_range: ValueRange | None = None) -> None:
    """Raises ValueError unless the extractor makes features of such data, (B, *shape): before hours of training."""
    shown = _Shown([x[:2]], extractor, range_of(x) if value_range is None else value_range)
    try:
        for batch in shown:
            check_features(extractor(batch))
    except ValueError:
        raise
    except Exception as error:  # whatever a module of anybody's raises
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ValueError(
            f"The extractor {extractor.name} makes no features of data of shape {tuple(x.shape[1:])}: {reason}."
        ) from error


def check_apart(source: object, module: nn.Module) -> None:
    """Raises ValueError if an extractor is a part of the module that it judges, of which it would stop the training.

    Args:
        source: what `FeatureExtractor` is to be made of, which freezes it.
        module: that is judged.
    """
    own = {id(parameter) for parameter in module.parameters()}
    if isinstance(source, nn.Module) and any(id(parameter) in own for parameter in source.parameters()):
        raise ValueError(
            f"The extractor {type(source).__name__} is a part of {type(module).__name__}, which it is to judge: give"
            " another one, or a copy of it (copy.deepcopy)."
        )


class _Shown:
    """Batches as the extractor takes them: images in [0, 1], if it says so."""

    def __init__(
        self, batches: Iterable[Tensor], extractor: FeatureExtractor, value_range: ValueRange | None
    ) -> None:
        self.batches, self.range = batches, value_range if extractor.takes_unit_images else None

    def __iter__(self) -> Iterator[Tensor]:
        return (to_unit(x, self.range) for x in self.batches)


def _range_of(source: Trainer | LightningDataModule, split: str, extractor: FeatureExtractor) -> ValueRange | None:
    """As `range_of`; of standardised images that are to be brought to [0, 1] what all span, which no batch knows."""
    found = range_of(first_batch(source, split, "split"))
    if found in (None, UNIT, SYMMETRIC, BYTES) or not extractor.takes_unit_images:
        return found
    lows, highs = zip(*(x.detach().aminmax() for x in Rows(source, split)), strict=True)
    return float(min(lows)), float(max(highs))


class Closeness:
    """The real data, read once, and the distances of samples from them. Collective where there are processes.

    Args:
        source: where the real data come from: a datamodule, or a Trainer's own loaders.
        extractor: data to features.
        split: the real data that are the reference, all of them.
        num_samples: how many samples are compared, and at most how many real data in the scores that compare features
            one by one, and in the floor; they are spread evenly over their split.
        device: where features are computed.
        kid: also the kernel distance.
        prdc: also precision, recall, density and coverage.
        cache_dir: where statistics of real data are kept; None is $GENZOO_CACHE, or else ~/.cache/genzoo.
        value_range: of images, data and samples; None finds it out from the first of the data, or from all of them,
            where it is none of those that are usual.
    """

    def __init__(
        self,
        source: Trainer | LightningDataModule,
        extractor: FeatureExtractor,
        *,
        split: str,
        num_samples: int,
        device: torch.device,
        kid: bool = True,
        prdc: bool = True,
        cache_dir: str | None = None,
        value_range: ValueRange | None = None,
    ) -> None:
        self.source, self.extractor, self.split, self.device = source, extractor, split, device
        self.num_samples = num_samples
        self._features = partial(
            real_features, extractor=extractor, keep=num_samples, device=device, cache_dir=cache_dir
        )
        self._told = value_range is None  # found out, not stated: then samples that contradict are a mistake
        self.value_range = _range_of(source, split, extractor) if value_range is None else value_range
        statistics, self.real = self._features(self._shown(Rows(source, split)))
        self.num_real = statistics.count
        self.frechet = FrechetDistance().to(device)
        self.kernel = KernelDistance().to(device) if kid else None
        self.manifold = ManifoldScores().to(device) if prdc else None
        self.keeping: list[TwoSets] = [metric for metric in (self.kernel, self.manifold) if metric is not None]
        if rank() == 0:  # the metrics add up what the processes hold
            self.frechet.update(statistics, real=True)
            for metric in self.keeping:
                metric.update(self.real.to(device), real=True)

    def _shown(self, batches: Iterable[Tensor]) -> _Shown:
        return _Shown(batches, self.extractor, self.value_range)

    @property
    def name(self) -> str:
        """The Fréchet distance is called FID where the features are those of Inception, and there alone."""
        return "fid" if self.extractor.is_inception else "frechet"

    def scores(
        self,
        sample: Callable[..., Tensor],
        *,
        seed: int = 0,
        batch_size: int = 500,
        track: Callable[[Iterable[Any]], Iterable[Any]] = iter,
    ) -> dict[str, float]:
        """Draws samples, block by block from seeds of their own, and measures them.

        Args:
            sample: a module's method of that name.
            seed: of the samples.
            batch_size: samples drawn at a time. Other blocks draw other samples.
            track: wraps the blocks, to show progress.

        Raises:
            ValueError: if samples are not finite, or images plainly in another range than the data are in.
        """
        for metric in (self.frechet, *self.keeping):
            metric.reset()
        checked, parts = False, track(blocks(self.num_samples, min(batch_size, self.num_samples), seed))
        for _, (_, size, block), counts in share(parts):
            x = draw(sample, size, block).to(self.device)
            if not checked:
                checked = self._check_range(x)
            (features,) = (self.extractor(shown) for shown in self._shown([x]))
            if counts:
                for metric in (self.frechet, *self.keeping):
                    metric.update(features, real=False)
        found = {self.name: self.frechet.compute().item()}
        if self.kernel is not None:
            found["kid"] = self.kernel.compute().item()
        if self.manifold is not None:
            found |= {name: value.item() for name, value in self.manifold.compute().items()}
        return found

    def _check_range(self, samples: Tensor) -> bool:
        """True, or a ValueError, on every process."""
        if self._told and self.value_range is not None:
            bad = contradicts(samples, self.value_range) and plain_range(samples)
            if found := next(filter(None, gather(bad)), None):
                raise ValueError(
                    f"The images of the {self.split} split are in {in_words(self.value_range)}, but the samples in"
                    f" {in_words(found)}: a distance between them means nothing. Let `sample` return images as the"
                    " data are, or state `value_range` of `FrechetDistance` if both are right."
                )
        return True

    def errors(self) -> dict[str, float]:
        """Standard deviations of the scores under new draws of samples and data, by name, where there are any."""
        found: dict[str, float] = {}
        if self.kernel is not None:
            found["kid"] = self.kernel.standard_error()
        if self.manifold is not None:
            found |= self.manifold.standard_error()
        if self.keeping:  # the Fréchet distance itself keeps no features
            found[self.name] = frechet_error(*self.keeping[0].features(), num_real=self.num_real)
        return found

    def floor(self) -> Floor:
        """As many real data of another split, in place of the samples.

        Raises:
            NoOtherSplit: there is none, or it has no end.
        """
        data, statistics, features = self._other
        self.frechet.reset()
        if rank() == 0:
            self.frechet.update(statistics, real=False)
        device = float64_device(self.device)
        error = frechet_floor_error(self.real.to(device), features.to(device), num_a=self.num_real)
        return Floor(self.frechet.compute().item(), error, data)

    def memorisation(self) -> Memorisation | None:
        """Of the samples beside the split's data, if these are not the training data themselves. Collective."""
        if self.split == "train" or not self.keeping:
            return None
        real, samples = self.keeping[0].features()
        return memorisation(self._other[2].to(real), real, samples)

    @cached_property
    def _other(self) -> tuple[Rows, FeatureStatistics, Tensor]:
        """Data of another split, the training data if they are another, and their features."""
        data = beside(self.source, "val" if self.split == "train" else "train", self.num_samples)
        return data, *self._features(self._shown(data))
