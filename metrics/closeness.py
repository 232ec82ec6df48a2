"""How close samples are to real data, seen through an extractor: what `evaluate` and `FrechetDistance` share."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

import torch
from lightning.pytorch import LightningDataModule, Trainer
from torch import Tensor

from genzoo.metrics.data import first_rows, split_batches
from genzoo.metrics.extractors import FeatureExtractor
from genzoo.metrics.features import features_of, real_features
from genzoo.metrics.frechet import FrechetReference
from genzoo.metrics.manifold import kernel_distance, manifold_scores
from genzoo.zoo.drawing import blocks, draw


class Score(NamedTuple):
    """A measured value, and its standard error where there is one."""

    value: float
    error: float | None = None


class Floor(NamedTuple):
    """The Fréchet distance that a perfect model would reach: that of real data of another split."""

    value: float
    split: str
    num_examples: int


class Closeness:
    """The real data, read once, and the distances of samples from them. Collective where there are processes.

    Args:
        source: where the real data come from, see `split_batches`.
        extractor: data to features.
        split: the real data that are the reference, all of them.
        num_samples: how many samples are compared, and how many real data of another split give the floor.
        keep: how many real features to keep for the scores that compare features one by one.
        device: where features are computed.
        cache_dir: where statistics of real data are kept; None is $GENZOO_CACHE, or else ~/.cache/genzoo.
    """

    def __init__(
        self,
        source: Trainer | LightningDataModule,
        extractor: FeatureExtractor,
        *,
        split: str,
        num_samples: int,
        keep: int,
        device: torch.device,
        cache_dir: str | None = None,
    ) -> None:
        self.source, self.extractor, self.split, self.device = source, extractor, split, device
        self.num_samples, self.keep = num_samples, keep
        self._features = partial(real_features, extractor=extractor, device=device, cache_dir=cache_dir)
        statistics, self.real = self._features(partial(self._rows, split), keep=keep)
        self.reference, self.num_real = FrechetReference(statistics), statistics.count

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
        kid: bool = True,
        prdc: bool = True,
        track: Callable[[Iterable[Any]], Iterable[Any]] = iter,
    ) -> dict[str, Score]:
        """Draws samples, block by block from seeds of their own, and measures them.

        Args:
            sample: a module's method of that name.
            seed: of the samples, and of KID's subsets.
            batch_size: samples drawn at a time. Other blocks draw other samples.
            kid: also the kernel distance.
            prdc: also precision, recall, density and coverage.
            track: wraps the blocks, to show progress.
        """
        parts = track(blocks(self.num_samples, min(batch_size, self.num_samples), seed))
        draws = (partial(draw, sample, size, block) for _, size, block in parts)
        keep = self.num_samples if kid or prdc else 0
        statistics, fake = features_of(draws, self.extractor, keep=keep, device=self.device)
        real = self.real
        if self.device.type == "cuda":  # float64 distances are quick there
            real, fake = real.to(self.device), fake.to(self.device)
        found = {self.name: Score(self.reference.distance(statistics))}
        if kid:
            found["kid"] = Score(*kernel_distance(real, fake, seed=seed))
        if prdc:
            found |= {name: Score(value) for name, value in manifold_scores(real, fake).items()}
        return found

    def floor(self) -> Floor:
        """As many real data of another split, in place of the samples."""
        other = "val" if self.split == "train" else "train"
        statistics, _ = self._features(partial(self._rows, other, self.num_samples))
        return Floor(self.reference.distance(statistics), other, statistics.count)

    def _rows(self, split: str, limit: int | None = None) -> Iterable[Tensor]:
        return first_rows(split_batches(self.source, split), limit)
