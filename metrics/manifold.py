"""What one number hides: KID, how well samples lie in the data (precision) and data in samples (recall).

All of them compare two sets of features as they are, without a Gaussian in between.
"""

import torch
from torch import Tensor

CHUNK = 1024  # rows of a distance matrix held at a time


def kernel_distance(
    real: Tensor, fake: Tensor, *, num_subsets: int = 100, subset_size: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """KID: the unbiased squared MMD under the kernel (x·y / d + 1)³ (Bińkowski et al. 2018).

    Averaged over subsets drawn without replacement by `seed`, the same on every process. Unbiased, so it may
    come out negative where the two sets are alike; so does MMD(x, x).

    Args:
        real: (N, d).
        fake: (M, d).
        num_subsets: how many subsets.
        subset_size: data in each; at most what the smaller set has, and less is used where there is less.
        seed: of the subsets.

    Returns:
        The mean over the subsets, and the standard error of that mean.

    Raises:
        ValueError: of fewer than two features on either side.
    """
    _check(real, fake, 2)
    real, fake = real.double(), fake.double()
    size = min(subset_size, len(real), len(fake))
    generator = torch.Generator().manual_seed(seed)
    values = torch.stack(
        [_mmd(_subset(real, size, generator), _subset(fake, size, generator)) for _ in range(num_subsets)]
    )
    error = values.std().item() / num_subsets**0.5 if num_subsets > 1 else float("nan")
    return values.mean().item(), error


def manifold_scores(real: Tensor, fake: Tensor, *, k: int = 5) -> dict[str, float]:
    """Precision, recall (Kynkäänniemi et al. 2019), density and coverage (Naeem et al. 2020).

    With r(x) the distance from a datum to its k-th nearest neighbour in its own set, and "inside a ball"
    meaning strictly nearer than r, as in the reference implementation `prdc`:

    * precision: the share of samples inside the ball of some real datum;
    * recall: the share of real data inside the ball of some sample;
    * density: the number of real balls that a sample lies in, over k, on average. Not bounded by 1;
    * coverage: the share of real data whose ball holds a sample.

    Args:
        real: (N, d), N > k.
        fake: (M, d), M > k.
        k: which neighbour.

    Raises:
        ValueError: if either set has no k-th neighbour.
    """
    _check(real, fake, k + 1)
    centre = real.double().mean(0)  # distances between centred vectors lose fewer digits
    real, fake = real.double() - centre, fake.double() - centre
    real_radius, fake_radius = _radii(real, k), _radii(fake, k)
    balls = torch.zeros(len(fake), device=real.device)  # how many real balls each sample lies in
    recalled, covered = [], []
    for rows, radius in zip(real.split(CHUNK), real_radius.split(CHUNK), strict=True):
        distance = torch.cdist(rows, fake)
        inside = distance < radius[:, None]
        balls += inside.sum(0)
        covered.append(inside.any(1))
        recalled.append((distance < fake_radius).any(1))
    return {
        "precision": (balls > 0).double().mean().item(),
        "recall": torch.cat(recalled).double().mean().item(),
        "density": balls.double().mean().item() / k,
        "coverage": torch.cat(covered).double().mean().item(),
    }


def _radii(x: Tensor, k: int) -> Tensor:
    """(N,), the distance of each row to its k-th nearest other row."""
    # Itself is the nearest of the k + 1, at distance 0.
    return torch.cat([torch.cdist(rows, x).topk(k + 1, largest=False).values[:, -1] for rows in x.split(CHUNK)])


def _mmd(x: Tensor, y: Tensor) -> Tensor:
    m, d = x.shape

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.T / d + 1) ** 3

    within = sum(k.sum() - k.diagonal().sum() for k in (kernel(x, x), kernel(y, y)))
    return within / (m * (m - 1)) - 2 * kernel(x, y).mean()


def _subset(x: Tensor, size: int, generator: torch.Generator) -> Tensor:
    return x[torch.randperm(len(x), generator=generator)[:size].to(x.device)]


def _check(real: Tensor, fake: Tensor, least: int) -> None:
    if real.ndim != 2 or fake.ndim != 2 or real.shape[1] != fake.shape[1]:
        raise ValueError(
            f"Features must be matrices of one width, but are {tuple(real.shape)} and {tuple(fake.shape)}."
        )
    if min(len(real), len(fake)) < least:
        raise ValueError(
            f"At least {least} features are needed on either side; there are {len(real)} and {len(fake)}."
        )
