"""Points in the plane from densities that are known: models can be checked against them exactly."""

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from genzoo.datamodules.base import DataModule, InMemory, Source, seeded

Name = Literal["ring", "grid", "moons", "spirals", "checkerboard"]

POINTS_SEED = 20_170_000  # the points are the same for everyone


def ring() -> Tensor:
    """Eight centres at the angles 2πi/8 on the unit circle: (8, 2)."""
    angle = torch.arange(8).double() * (2 * math.pi / 8)
    return torch.stack([angle.cos(), angle.sin()], -1)


def grid() -> Tensor:
    """5 × 5 centres at -4, -2, 0, 2 and 4: (25, 2)."""
    axis = torch.linspace(-4, 4, 5).double()
    return torch.cartesian_prod(axis, axis)


def moons(t: Tensor) -> Tensor:
    """Two half circles that reach into each other, as scikit-learn's, at t in [0, 1]: (2, N, 2)."""
    cos, sin = (math.pi * t).cos(), (math.pi * t).sin()
    return torch.stack([torch.stack([cos, sin], -1), torch.stack([1 - cos, 0.5 - sin], -1)])


def spirals(t: Tensor) -> Tensor:
    """Two Archimedean arms of one and a half turns, at t in [0, 1]: (2, N, 2).

    The radius is 3 √t, so that t is nearly proportional to the length of the arm.
    """
    radius = 3 * t.sqrt()
    arm = torch.stack([(math.pi * radius).cos(), (math.pi * radius).sin()], -1) * radius[:, None]
    return torch.stack([arm, -arm])


CENTRES: dict[str, Callable[[], Tensor]] = {"ring": ring, "grid": grid}
CURVES: dict[str, Callable[[Tensor], Tensor]] = {"moons": moons, "spirals": spirals}
NOISE = {"ring": 0.01, "grid": 0.05, "moons": 0.1, "spirals": 0.1}

# Lower left corners of the dark squares of a 4 × 4 board on [-2, 2]².
SQUARES = torch.tensor([(i, j) for i in range(-2, 2) for j in range(-2, 2) if (i + j) % 2 == 0]).double()


class PointsDataModule(DataModule):
    """Points in the plane, float32 (2,), labelled with the component that each was drawn from.

    | name | components | noise |
    |---|---|---|
    | `ring` | 8 Gaussians on the unit circle (VEEGAN, PacGAN) | 0.01 |
    | `grid` | 5 × 5 Gaussians, 2 apart (VEEGAN, PacGAN) | 0.05 |
    | `moons` | 2 half circles, blurred | 0.1 |
    | `spirals` | 2 arms, blurred | 0.1 |
    | `checkerboard` | 8 unit squares, uniform | |

    Args:
        name: of the density.
        noise: standard deviation of the Gaussian noise in each direction; None is that of the table.
        batch_size, val_size, limit, seed: see `DataModule`.
        train_size, test_size: points for training and validation, and for testing.

    Attributes:
        centres: (K, 2) float64, the means of `ring` and `grid`; None for the others.

    Raises:
        ValueError: for any argument out of its range.
    """

    shape = (2,)
    levels: int | None = None
    protocol: Mapping[str, Any] = {"num_samples": 2500}  # of which VEEGAN and PacGAN count the modes

    def __init__(
        self,
        name: Name = "ring",
        noise: float | None = None,
        batch_size: int = 256,
        train_size: int = 50_000,
        val_size: int = 5_000,
        test_size: int = 10_000,
        limit: int | None = None,
        seed: int = 0,
    ):
        if name not in get_args(Name):
            raise ValueError(f"name is {name!r}, but must be one of {', '.join(get_args(Name))}")
        if noise is not None and (name not in NOISE or noise <= 0):
            raise ValueError(f"noise is {noise}, but " + ("must be above 0" if name in NOISE else f"{name} has none"))
        if train_size < 2 or test_size < 1:
            raise ValueError(f"train_size is {train_size} and test_size {test_size}, but must be at least 2 and 1")
        self.density, self.noise_std = name, NOISE.get(name, 0.0) if noise is None else noise
        self.num_train, self.sizes = train_size, {"train": train_size, "test": test_size}
        self.centres = CENTRES[name]() if name in CENTRES else None
        self.num_classes = 2 if name in CURVES else len(SQUARES if self.centres is None else self.centres)
        super().__init__(batch_size=batch_size, val_size=val_size, classes=None, limit=limit, seed=seed)
        self.save_hyperparameters(logger=False)

    def load(self, split: str) -> Source:
        """The points of a split, drawn with a fixed seed."""
        generator = seeded(POINTS_SEED, ("train", "test").index(split))
        x, component = self.draw(self.sizes[split], generator)
        return InMemory(x.float(), component)

    def draw(self, num_points: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Points of the density, float64 (N, 2), and the components that they come from, int64 (N,)."""
        component = torch.randint(self.num_classes or 0, (num_points,), generator=generator)
        uniform = torch.rand(num_points, 2, dtype=torch.float64, generator=generator)
        if self.density == "checkerboard":
            return SQUARES[component] + uniform, component
        if self.centres is not None:
            mean = self.centres[component]
        else:
            mean = CURVES[self.density](uniform[:, 0])[component, torch.arange(num_points)]
        noise = torch.randn(num_points, 2, dtype=torch.float64, generator=generator)
        return mean + self.noise_std * noise, component

    def log_density(self, x: Tensor) -> Tensor:
        """log p(x), exactly.

        Args:
            x: (B, 2).

        Returns:
            (B,) float64, nats; -inf outside the squares of `checkerboard`.
        """
        x = x.double()
        if self.density == "checkerboard":
            inside = ((x[:, None] >= SQUARES) & (x[:, None] < SQUARES + 1)).all(-1).any(-1)
            return (inside.double() / len(SQUARES)).log()
        means, log_weights = self._mixture()
        normaliser = math.log(2 * math.pi * self.noise_std**2)
        chunks = [
            (
                log_weights
                - torch.cdist(chunk, means, compute_mode="donot_use_mm_for_euclid_dist").square()
                / (2 * self.noise_std**2)
            ).logsumexp(1)
            for chunk in x.split(1024)
        ]
        return torch.cat(chunks) - normaliser

    def _mixture(self) -> tuple[Tensor, Tensor]:
        """The Gaussians whose mixture the density is: means (K, 2) and log weights (K,).

        A blurred curve is the integral of Gaussians along it: by Gauss-Legendre quadrature in √t (in which
        both curves are smooth), with 16 nodes on every piece of at most four standard deviations' length.
        """
        if self.centres is not None:
            return self.centres, -torch.full((len(self.centres),), len(self.centres)).double().log()
        nodes, weights = (torch.from_numpy(a) for a in np.polynomial.legendre.leggauss(16))
        pieces = math.ceil(30 / (4 * self.noise_std))  # neither curve is faster than 30 in √t
        root = ((torch.arange(pieces)[:, None] + (nodes + 1) / 2) / pieces).flatten()
        weights = (weights / (2 * pieces)).repeat(pieces) * 2 * root  # dt = 2 √t d√t
        return CURVES[self.density](root**2).flatten(0, 1), (weights / 2).log().repeat(2)
