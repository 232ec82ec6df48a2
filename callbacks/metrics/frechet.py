"""The Fréchet distance between two sets of features, from statistics that stream.

Each set is summed up by a Gaussian, and the distance is that between the Gaussians:

    d² = ‖μ₁ − μ₂‖² + tr Σ₁ + tr Σ₂ − 2 tr (Σ₁ Σ₂)^½          (Dowson & Landau 1982; Heusel et al. 2017)

With Σ₁ = A Aᵀ the eigenvalues of Σ₁ Σ₂ are those of the symmetric Aᵀ Σ₂ A, so that tr (Σ₁ Σ₂)^½ = Σ
√eigvalsh(Aᵀ Σ₂ A): real and non-negative whatever the ranks, and cheap once A is known. The reference is
factored once.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from genzoo.zoo.processes import world_size


@dataclass
class FeatureStatistics:
    """Number, mean and scatter Σ (x − μ)(x − μ)ᵀ of the features seen so far, in float64.

    Batches are merged by their centred moments (Chan, Golub & LeVeque 1983), so nothing is lost where the
    mean is large beside the spread, and any order or sharing-out of the batches gives the same to rounding.
    """

    count: int
    mean: Tensor  # (d,)
    scatter: Tensor  # (d, d)

    @classmethod
    def empty(cls, dim: int, device: torch.device | str = "cpu") -> "FeatureStatistics":
        """Those of no features at all, of dimension `dim`."""
        zeros = torch.zeros(dim, dim, dtype=torch.float64, device=device)
        return cls(0, zeros[0].clone(), zeros)

    @classmethod
    def of(cls, features: Tensor) -> "FeatureStatistics":
        """Those of one batch.

        Args:
            features: (B, d), finite.

        Raises:
            ValueError: if the features are not a matrix, or not finite.
        """
        if features.ndim != 2:
            raise ValueError(
                f"Features must be a matrix (data, dimensions), but their shape is {tuple(features.shape)}."
                " Let the extractor flatten or average what it returns."
            )
        if not features.isfinite().all():
            bad = (~features.isfinite().all(1)).sum().item()
            raise ValueError(f"{bad} of {len(features)} feature vectors are not finite.")
        x = features.detach().to(_float64_device(features.device), torch.float64)
        mean = x.mean(0) if len(x) else x.new_zeros(x.shape[1])
        x = x - mean
        return cls(len(x), mean, x.T @ x)

    def update(self, features: Tensor) -> None:
        """Adds a batch of features, (B, d)."""
        self.merge(FeatureStatistics.of(features))

    def merge(self, other: "FeatureStatistics") -> None:
        """Adds the features that `other` has seen.

        Raises:
            ValueError: if the dimensions differ.
        """
        if self.mean.shape != other.mean.shape:
            raise ValueError(f"Features of {len(other.mean)} dimensions cannot join those of {len(self.mean)}.")
        count = self.count + other.count
        if other.count == 0:
            return
        mean, scatter = other.mean.to(self.mean.device), other.scatter.to(self.mean.device)
        delta = mean - self.mean
        self.scatter += scatter + torch.outer(delta, delta) * (self.count * other.count / count)
        self.mean += delta * (other.count / count)
        self.count = count

    def all_reduce(self) -> None:
        """Merges the statistics of all processes: the same on every one of them. Collective."""
        if world_size() == 1:
            return
        sums = torch.cat([self.mean.new_tensor([float(self.count)]), self.count * self.mean])
        torch.distributed.all_reduce(sums)
        mean = sums[1:] / sums[0].clamp_min(1)
        delta = self.mean - mean
        self.scatter += torch.outer(delta, delta) * self.count
        torch.distributed.all_reduce(self.scatter)
        self.count, self.mean = int(sums[0].item()), mean

    @property
    def covariance(self) -> Tensor:
        """(d, d), unbiased: the scatter over count − 1.

        Raises:
            ValueError: of fewer than two features.
        """
        if self.count < 2:
            raise ValueError(f"A covariance takes at least 2 feature vectors, but there are {self.count}.")
        return self.scatter / (self.count - 1)

    def save(self, path: Path, **more: Tensor) -> None:
        """Writes a .safetensors file under a temporary name and renames it; `more` tensors lie beside."""
        from safetensors.torch import save_file

        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        tensors = {"count": torch.tensor(self.count), "mean": self.mean, "scatter": self.scatter, **more}
        save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, temporary)
        os.replace(temporary, path)

    @classmethod
    def load(cls, path: Path) -> "FeatureStatistics":
        """Reads what `save` wrote."""
        from safetensors.torch import load_file

        tensors = load_file(path)
        return cls(int(tensors["count"].item()), tensors["mean"], tensors["scatter"])


class FrechetReference:
    """One side of the distance, factored once; each further distance to it costs one symmetric eigenproblem.

    Args:
        statistics: of the reference; fewer features than dimensions are right too.
    """

    def __init__(self, statistics: FeatureStatistics) -> None:
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
            ValueError: of fewer than two features, or of another dimension than the reference's.
        """
        if statistics.mean.shape != self.mean.shape:
            raise ValueError(
                f"Features of {len(statistics.mean)} dimensions cannot be compared with a reference of"
                f" {len(self.mean)}."
            )
        covariance = statistics.covariance.to(self.mean.device)
        values = torch.linalg.eigvalsh(_congruence(self.factor, covariance))  # reads the lower half
        means = (self.mean - statistics.mean.to(self.mean.device)).square().sum()
        distance = means + self.trace + covariance.trace() - 2 * values.clamp_min(0).sqrt().sum()
        return max(0.0, distance.item())


def frechet_distance(a: FeatureStatistics, b: FeatureStatistics) -> float:
    """d² between the Gaussians with these statistics; symmetric to rounding."""
    return FrechetReference(a).distance(b)


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


def _float64_device(device: torch.device) -> torch.device:
    """Apple's accelerator has no float64."""
    return torch.device("cpu") if device.type == "mps" else device
