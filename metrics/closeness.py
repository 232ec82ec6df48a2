"""How close samples are to real data, seen through an extractor: what `evaluate` and `FrechetDistance` share."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

import torch
from lightning.pytorch import LightningDataModule, Trainer
from torch import Tensor

from genzoo.metrics.base import TwoSets
from genzoo.metrics.data import Rows
from genzoo.metrics.extractors import FeatureExtractor
from genzoo.metrics.features import real_features
from genzoo.metrics.frechet import FrechetDistance, frechet_error, frechet_floor_error
from genzoo.metrics.kernel import KernelDistance
from genzoo.metrics.manifold import ManifoldScores
from genzoo.zoo.drawing import blocks, draw
from genzoo.zoo.processes import rank, share


class Floor(NamedTuple):
    """The Fréchet distance that a perfect model would reach: that of real data of another split."""

    value: float
    error: float  # its standard deviation over other divisions of the real data
    data: Rows


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
    ) -> None:
        self.source, self.extractor, self.split, self.device = source, extractor, split, device
        self.num_samples = num_samples
        self._features = partial(
            real_features, extractor=extractor, keep=num_samples, device=device, cache_dir=cache_dir
        )
        statistics, self.real = self._features(Rows(source, split))
        self.num_real = statistics.count
        self.frechet = FrechetDistance().to(device)
        self.kernel = KernelDistance().to(device) if kid else None
        self.manifold = ManifoldScores().to(device) if prdc else None
        self.keeping: list[TwoSets] = [metric for metric in (self.kernel, self.manifold) if metric is not None]
        if rank() == 0:  # the metrics add up what the processes hold
            self.frechet.update(statistics, real=True)
            for metric in self.keeping:
                metric.update(self.real.to(device), real=True)

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
        """
        for metric in (self.frechet, *self.keeping):
            metric.reset()
        parts = track(blocks(self.num_samples, min(batch_size, self.num_samples), seed))
        for _, (_, size, block), counts in share(parts):
            features = self.extractor(draw(sample, size, block).to(self.device))
            if counts:
                for metric in (self.frechet, *self.keeping):
                    metric.update(features, real=False)
        found = {self.name: self.frechet.compute().item()}
        if self.kernel is not None:
            found["kid"] = self.kernel.compute().item()
        if self.manifold is not None:
            found |= {name: value.item() for name, value in self.manifold.compute().items()}
        return found

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
        """As many real data of another split, in place of the samples."""
        other = "val" if self.split == "train" else "train"
        data = Rows(self.source, other, self.num_samples)
        statistics, features = self._features(data)
        self.frechet.reset()
        if rank() == 0:
            self.frechet.update(statistics, real=False)
        error = frechet_floor_error(self.real.to(self.device), features.to(self.device), num_a=self.num_real)
        return Floor(self.frechet.compute().item(), error, data)
