"""The Fréchet distance between two sets of features, from statistics that stream.

Each set is summed up by a Gaussian, and the distance is that between the Gaussians:

    d² = ‖μ₁ − μ₂‖² + tr Σ₁ + tr Σ₂ − 2 tr (Σ₁ Σ₂)^½          (Dowson & Landau 1982; Heusel et al. 2017)

With Σ₁ = A Aᵀ the eigenvalues of Σ₁ Σ₂ are those of the symmetric Aᵀ Σ₂ A, so that tr (Σ₁ Σ₂)^½ = Σ
√eigvalsh(Aᵀ Σ₂ A): real and non-negative whatever the ranks, and cheap once A is known. The reference is
factored once.
"""

import hashlib
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genzoo.metrics.base import TwoSets, check_features, check_two_sets, float64_device, in_order
from genzoo.zoo.files import whole

BLOCK = 256  # rows of a scatter that are added to at once


class FeatureStatistics:
    """Number, mean and scatter Σ (x − μ)(x − μ)ᵀ of the features seen so far, in float64.

    Batches are merged by their centred moments (Chan, Golub & LeVeque 1983), so nothing is lost where the
    mean is large beside the spread, and any order or sharing-out of the batches gives the same to rounding.

    Args:
        count: how many features.
        mean: (d,).
        scatter: (d, d).
    """

    def __init__(self, count: int, mean: Tensor, scatter: Tensor) -> None:
        #: (d + 2, d), all of it in one tensor: the count, over and over; the mean; the scatter
        self.moments = torch.cat([torch.full_like(mean, count)[None], mean[None], scatter])

    @property
    def count(self) -> int:
        """How many features there were."""
        return int(self.moments[0, 0].item())

    @property
    def mean(self) -> Tensor:
        """(d,)."""
        return self.moments[1]

    @property
    def scatter(self) -> Tensor:
        """(d, d)."""
        return self.moments[2:]

    @property
    def covariance(self) -> Tensor:
        """(d, d), unbiased: the scatter over count − 1.

        Raises:
            ValueError: of fewer than two features.
        """
        if self.count < 2:
            raise ValueError(f"A covariance takes at least 2 feature vectors, but there are {self.count}.")
        return self.scatter / (self.count - 1)

    # ---- how they come about

    @classmethod
    def empty(cls, dim: int, device: torch.device | str = "cpu") -> "FeatureStatistics":
        """Those of no features at all, of dimension `dim`."""
        scatter = torch.zeros(dim, dim, dtype=torch.float64, device=float64_device(torch.device(device)))
        return cls(0, scatter.new_zeros(dim), scatter)

    @classmethod
    def of(cls, features: Tensor) -> "FeatureStatistics":
        """Those of one batch.

        Args:
            features: (B, d), finite.

        Raises:
            ValueError: if the features are not a matrix, or not finite.
        """
        statistics = cls.empty(check_features(features).shape[1], features.device)
        statistics.update(features)
        return statistics

    @classmethod
    def merged(cls, moments: Iterable[Tensor]) -> "FeatureStatistics":
        """One of many, of which there are the `moments`, (d + 2, d) each; it shares no memory with them.

        Raises:
            ValueError: if the dimensions differ.
        """
        first, *rest = (cls(int(m[0, 0].item()), m[1], m[2:]) for m in moments)
        for statistics in rest:
            first.merge(statistics)
        return first

    def update(self, features: Tensor) -> None:
        """Adds a batch of features, (B, d), in place.

        Raises:
            ValueError: if they are not a matrix of d columns, or not finite.
        """
        self._check_dim(check_features(features).shape[1])
        if len(features):
            x = features.detach().to(self.moments.device).double()  # float64 is not on every device
            mean = x.mean(0)
            between = self._grow(len(x), mean)
            rows = torch.cat([x, between[None]])
            rows[:-1] -= mean
            for first in range(0, len(mean), BLOCK):  # below the diagonal is what is above it
                here, on, below = slice(first, first + BLOCK), slice(first, None), slice(first + BLOCK, None)
                self.scatter[here, on].addmm_(rows[:, here].T, rows[:, on])
                self.scatter[below, here] = self.scatter[here, below].T

    def merge(self, other: "FeatureStatistics") -> None:
        """Adds the features that `other` has seen, in place.

        Raises:
            ValueError: if the dimensions differ.
        """
        self._check_dim(len(other.mean))
        if other.count:
            between = self._grow(other.count, other.mean.to(self.moments.device))
            self.scatter.add_(other.scatter.to(self.moments.device)).addr_(between, between)

    def _grow(self, count: int, mean: Tensor) -> Tensor:
        """Count and mean with `count` features more, of that mean; returns b, where b bᵀ is what the two means, being
        apart, add to the scatter.
        """
        before, delta = self.count, mean - self.mean
        total = before + count
        self.mean.add_(delta, alpha=count / total)
        self.moments[0] = total
        return delta * math.sqrt(before * count / total)

    def _check_dim(self, dim: int) -> None:
        if dim != len(self.mean):
            raise ValueError(f"Features of {dim} dimensions cannot join those of {len(self.mean)}.")

    # ---- on disk

    def save(self, path: Path, **more: Tensor) -> None:
        """Writes a .safetensors file, whole or not at all; `more` tensors lie beside."""
        from safetensors.torch import save

        tensors = {"count": torch.tensor(self.count), "mean": self.mean, "scatter": self.scatter, **more}
        tensors = {name: tensor.cpu().contiguous().clone() for name, tensor in tensors.items()}
        with whole(path) as half:
            half.write_bytes(save({**tensors, "digest": _digest(tensors)}))  # whose own file raises no OSError

    @classmethod
    def load(cls, path: Path) -> "FeatureStatistics":
        """Reads what `save` wrote; raises as `read` does."""
        return cls.read(path)[0]

    @classmethod
    def read(cls, path: Path) -> tuple["FeatureStatistics", dict[str, Tensor]]:
        """Reads what `save` wrote, and the tensors beside it by name.

        Raises:
            ValueError: if the file is damaged: it cannot be read, something in it is missing, of a wrong kind or not
                finite, or is not what was written.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            tensors = load_file(path)
        except (SafetensorError, OSError, ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{path} is damaged: {next(iter(str(error).splitlines()), 'unreadable')}") from error
        digest = tensors.pop("digest", None)  # not in a file of genzoo 0.1
        if digest is not None and not torch.equal(digest, _digest(tensors)):
            raise ValueError(f"{path} is damaged: its numbers are not those that were written")
        count, mean, scatter = (tensors.pop(name, torch.empty(0, 0, 0)) for name in ("count", "mean", "scatter"))
        if count.ndim != 0 or mean.ndim != 1 or tuple(scatter.shape) != 2 * tuple(mean.shape):
            shapes = [tuple(tensor.shape) for tensor in (count, mean, scatter)]
            raise ValueError(f"{path} is damaged: count, mean and scatter have the shapes {shapes}")
        if count.dtype != torch.int64 or count < 0 or mean.dtype != torch.float64 or scatter.dtype != torch.float64:
            raise ValueError(f"{path} is damaged: it counts {count.item()} features, in {mean.dtype}")
        if not all(tensor.isfinite().all() for tensor in (mean, scatter, *tensors.values())):
            raise ValueError(f"{path} is damaged: it holds NaN or infinite numbers")
        return cls(int(count.item()), mean, scatter), tensors


class FrechetReference:
    """One side of the distance, factored once; each further distance to it costs one symmetric eigenproblem.

    Args:
        statistics: of the reference; fewer features than dimensions are right too.

    Raises:
        ValueError: of fewer than two features, or if the statistics are not finite.
    """

    def __init__(self, statistics: FeatureStatistics) -> None:
        self.statistics = _finite(statistics)
        self.mean, covariance = statistics.mean, statistics.covariance
        self.trace = covariance.trace()
        values, vectors = torch.linalg.eigh(covariance)
        # Directions without spread add nothing but rounding errors, whose square roots are not small: left
        # out.
        real = values > values[-1].clamp_min(0) * len(values) * torch.finfo(values.dtype).eps
        factor = vectors[:, real] * values[real].sqrt()
        self.factor = torch.linalg.qr(factor.T, mode="r").R.T  # the same A Aᵀ, and A lower triangular

    def distance(self, statistics: FeatureStatistics) -> float:
        """d², which is what is reported as the Fréchet distance (and as FID), in the features' unit squared.

        Never negative: where rounding would make it so, it is 0.

        Raises:
            ValueError: of fewer than two features, or of another dimension than the reference's; or if the
                statistics are not finite, or so large that the distance is not.
        """
        if statistics.mean.shape != self.mean.shape:
            raise ValueError(
                f"Features of {len(statistics.mean)} dimensions cannot be compared with a reference of"
                f" {len(self.mean)}."
            )
        covariance = _finite(statistics).covariance.to(self.mean.device)
        values = torch.linalg.eigvalsh(_congruence(self.factor, covariance))  # reads the lower half
        means = (self.mean - statistics.mean.to(self.mean.device)).square().sum()
        distance = (means + self.trace + covariance.trace() - 2 * values.clamp_min(0).sqrt().sum()).item()
        if not math.isfinite(distance):  # max(0, NaN) would be 0, a perfect score
            raise ValueError(f"The Fréchet distance is {distance}: the features are too large to be told apart.")
        return max(0.0, distance)

    def influence(self, features: Tensor) -> Tensor:
        """By how much each feature draws the distance of its set from this reference away from what it is.

        The derivative of d² in a datum's weight, ψ(x) = 2 (μ₂ − μ₁)·(x − μ₂) + (x − μ₂)ᵀ (I − T) (x − μ₂) up to a
        constant, where T = A (Aᵀ Σ₂ A)^−½ Aᵀ carries the one Gaussian to the other, and ½ T is the derivative of
        tr (Σ₁ Σ₂)^½ in Σ₂.

        Args:
            features: (N, d), of the other set.

        Returns:
            (N,), whose variance over N is that of d² under new draws of the other set, to first order.
        """
        own = FeatureStatistics.of(features)
        x = features.to(own.mean) - own.mean
        values, vectors = torch.linalg.eigh(self.factor.T @ own.covariance @ self.factor)
        there = values > values.abs().sum() * torch.finfo(values.dtype).eps
        onto = self.factor @ vectors[:, there] / values[there] ** 0.25  # T is the product of this and its transpose
        return 2 * x @ (own.mean - self.mean) + x.square().sum(1) - (x @ onto).square().sum(1)


def frechet_distance(a: FeatureStatistics, b: FeatureStatistics) -> float:
    """d² between the Gaussians with these statistics; symmetric to rounding."""
    return FrechetReference(a).distance(b)


def frechet_error(real: Tensor, fake: Tensor, *, num_real: int | None = None) -> float:
    """The standard deviation of d² under new draws of both sets.

    By the delta method its variance is Var ψ₁ / N + Var ψ₂ / M, with ψ the influence of each datum. Measured on the
    draws themselves, ψ has their noise in it, so that what the variance is made of to second order is counted twice:
    once is taken away. That is the variance between two sets of one distribution, which has no other order, and less
    than that it never is. It says nothing of the bias upwards that few samples have.

    Args:
        real: (N, d).
        fake: (M, d).
        num_real: how many real data the distance is measured on, of which `real` are some; None: these.

    Raises:
        ValueError: of fewer than two features on either side.
    """
    check_two_sets(real, fake, 2)
    to_real = FrechetReference(FeatureStatistics.of(fake)).influence(real)
    to_fake = FrechetReference(FeatureStatistics.of(real)).influence(fake)
    both_orders = (to_real.var() / (num_real or len(real)) + to_fake.var() / len(fake)).item()
    second = frechet_floor_error(real, fake, num_a=num_real) ** 2
    return max(both_orders - second, second) ** 0.5


def frechet_floor_error(a: Tensor, b: Tensor, *, num_a: int | None = None, repeats: int = 30, seed: int = 0) -> float:
    """The standard deviation of d² under new draws of two sets of *one* distribution: the spread of a floor.

    All features are divided anew, at random, into sets of the same sizes, and measured again (as in a permutation
    test).

    Args:
        a: (N, d).
        b: (M, d).
        num_a: how many data the first set has, of which `a` are some; None: these. Between sets of one distribution
            d² goes as 1/N + 1/M.
        repeats: how many divisions.
        seed: of the divisions.

    Raises:
        ValueError: of fewer than two features on either side.
    """
    check_two_sets(a, b, 2)
    everything = in_order(torch.cat([a, b]))
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(repeats):
        order = torch.randperm(len(everything), generator=generator).to(everything.device)
        one, other = everything[order].split([len(a), len(b)])
        found.append(frechet_distance(FeatureStatistics.of(one), FeatureStatistics.of(other)))
    scale = (1 / (num_a or len(a)) + 1 / len(b)) / (1 / len(a) + 1 / len(b))
    return torch.tensor(found).std().item() * scale


class FrechetDistance(TwoSets):
    """d² between the Gaussians of real features and of samples' (`frechet_distance`), in the features' unit squared.

    With the extractor "inception" it is the FID. Nothing is kept but count, mean and scatter, in float64, and the
    real ones are factored once as long as they stay the same. Biased upwards for few samples: compare at equal
    numbers, and print the floor beside it.

    Args:
        extractor: data to features: what `FeatureExtractor` takes, or one; None: the metric is given features.
        kwargs: `reset_real_features`, see `TwoSets`; and torchmetrics' own.
    """

    higher_is_better = False
    plot_lower_bound = 0.0
    REAL, FAKE = "real_moments", "fake_moments"

    def __init__(self, extractor: Any = None, **kwargs: Any) -> None:
        super().__init__(extractor, **kwargs)
        self._own: dict[str, FeatureStatistics] = {}
        self._reference: FrechetReference | None = None

    def update(self, x: Tensor | FeatureStatistics, real: bool) -> None:
        """Adds a batch, as every `TwoSets` does; or features that were summed up before."""
        if isinstance(x, FeatureStatistics):
            self._grown(self.REAL if real else self.FAKE, len(x.mean), self.device).merge(x)
        else:
            super().update(x, real)

    def add(self, features: Tensor, name: str) -> None:
        """Adds features, (B, d), to the statistics of that name."""
        self._grown(name, features.shape[1], features.device).update(features)

    def compute(self) -> Tensor:
        """d², float64.

        Raises:
            ValueError: of fewer than two real data or samples, or if their features differ in dimension.
        """
        real, fake = self._all(self.REAL), self._all(self.FAKE)
        if self._reference is None or not _equal(self._reference.statistics.moments, real.moments):
            self._reference = FrechetReference(real)
        return torch.tensor(self._reference.distance(fake), dtype=torch.float64, device=real.moments.device)

    def _grown(self, name: str, dim: int, device: torch.device) -> FeatureStatistics:
        """The statistics of that name, which are this metric's alone, to be added to in place."""
        parts, own = getattr(self, name), self._own.get(name)
        if own is None or len(parts) != 1 or parts[0] is not own.moments:  # new, moved, loaded or reset
            own = FeatureStatistics.merged(parts) if parts else FeatureStatistics.empty(dim, device)
            self._own[name] = own
            setattr(self, name, [own.moments])
        return own

    def _all(self, name: str) -> FeatureStatistics:
        moments = self.state(name)
        if not moments.numel():
            raise ValueError(f"FrechetDistance has seen no {'real data' if name == self.REAL else 'samples'}.")
        return FeatureStatistics.merged(moments.unflatten(0, (-1, moments.shape[1] + 2)))


def _finite(statistics: FeatureStatistics) -> FeatureStatistics:
    if not statistics.moments.isfinite().all():
        raise ValueError("The statistics of the features are not finite, so there is no Fréchet distance to them.")
    return statistics


def _digest(tensors: Mapping[str, Tensor]) -> Tensor:
    """(32,) uint8, the SHA-256 of tensors and their names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.numpy().tobytes())
    return torch.tensor(list(digest.digest()), dtype=torch.uint8)


def _equal(a: Tensor, b: Tensor) -> bool:
    return a.device == b.device and torch.equal(a, b)


def _congruence(factor: Tensor, covariance: Tensor, block: int = 256) -> Tensor:
    """The lower half of Aᵀ Σ A for a lower triangular A, without the products by zeros: a quarter of the work.

    Args:
        factor: A, (d, r), zero above the diagonal.
        covariance: Σ, (d, d), symmetric.
        block: columns multiplied at a time.

    Returns:
        (r, r); its upper half has no meaning.
    """
    rank = factor.shape[1]
    half, out = torch.empty_like(factor), factor.new_zeros(rank, rank)
    for j in range(0, rank, block):  # rows of Σ A above j are multiplied by zeros below
        half[j:, j : j + block] = covariance[j:, j:] @ factor[j:, j : j + block]
    for i in range(0, rank, block):
        out[i : i + block, : i + block] = factor[i:, i : i + block].T @ half[i:, : i + block]
    return out
