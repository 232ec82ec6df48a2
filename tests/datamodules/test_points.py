"""Points: the densities are normalised, and the points come from them."""

import math
from typing import Any, get_args

import pytest
import torch

from genzoo.datamodules import PointsDataModule
from genzoo.datamodules.points import NOISE, Name, moons, spirals

NAMES = get_args(Name)


def test_the_ring_has_eight_centres_on_the_unit_circle() -> None:
    centres = PointsDataModule("ring").centres
    assert centres is not None and centres.shape == (8, 2)
    assert torch.allclose(centres.norm(dim=1), torch.ones(8).double())
    angles = torch.atan2(centres[:, 1], centres[:, 0]).remainder(2 * math.pi)
    assert torch.allclose(angles, torch.arange(8).double() * math.pi / 4)


def test_the_grid_is_five_by_five() -> None:
    centres = PointsDataModule("grid").centres
    assert centres is not None
    assert {tuple(c) for c in centres.tolist()} == {(i, j) for i in range(-4, 5, 2) for j in range(-4, 5, 2)}


@pytest.mark.parametrize("name", NAMES)
def test_the_density_integrates_to_one(name: Name) -> None:
    # Noise wide enough for the grid of the midpoint rule, which then is exact to 1e-9.
    data = PointsDataModule(name, noise=0.2 if name in NOISE else None)
    step = 0.05
    axis = torch.arange(-6, 6, step, dtype=torch.float64) + step / 2
    mass = data.log_density(torch.cartesian_prod(axis, axis)).exp().sum() * step**2
    assert mass.item() == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("name", ["moons", "spirals"])
@pytest.mark.parametrize("noise", [0.02, 0.1])
def test_the_density_of_a_blurred_curve_is_the_integral_along_it(name: Name, noise: float) -> None:
    data = PointsDataModule(name, noise=noise)
    x = data.draw(20, torch.Generator().manual_seed(0))[0]
    root = (torch.arange(400_000).double() + 0.5) / 400_000  # the midpoint rule in √t
    curve = {"moons": moons, "spirals": spirals}[name](root**2)
    for point, log_density in zip(x, data.log_density(x), strict=True):
        gaussian = (-(curve - point).square().sum(-1) / (2 * noise**2)).exp() / (2 * math.pi * noise**2)
        integral = (gaussian * 2 * root).mean()
        assert log_density.item() == pytest.approx(integral.log().item(), abs=1e-7)


@pytest.mark.parametrize(
    ("name", "entropy"),
    [
        ("ring", math.log(8) + 1 + math.log(2 * math.pi * 1e-4)),
        ("grid", math.log(25) + 1 + math.log(2 * math.pi * 0.05**2)),
        ("checkerboard", math.log(8)),
    ],
)
def test_mean_log_density_of_the_points_is_minus_the_entropy(name: Name, entropy: float) -> None:
    # The components hardly overlap, so the entropy is that of the choice plus that of one component.
    log_density = PointsDataModule(name).log_density(PointsDataModule(name).draw(20_000, torch.Generator())[0])
    error = log_density.std().item() / math.sqrt(len(log_density))
    assert log_density.mean().item() == pytest.approx(-entropy, abs=4 * error + 1e-12)


@pytest.mark.parametrize("name", ["moons", "spirals"])
def test_the_points_of_a_curve_have_its_density(name: Name) -> None:
    # Against the entropy by quadrature.
    data = PointsDataModule(name, noise=0.2)
    step = 0.05
    axis = torch.arange(-5, 5, step, dtype=torch.float64) + step / 2
    log_p = data.log_density(torch.cartesian_prod(axis, axis))
    entropy = -(torch.special.xlogy(log_p.exp(), log_p.exp()).sum() * step**2).item()
    log_density = data.log_density(data.draw(20_000, torch.Generator().manual_seed(1))[0])
    error = log_density.std().item() / math.sqrt(len(log_density))
    assert log_density.mean().item() == pytest.approx(-entropy, abs=4 * error)


@pytest.mark.parametrize("name", NAMES)
def test_batches(name: Name) -> None:
    data = PointsDataModule(name, train_size=600, val_size=100, test_size=50, batch_size=100)
    assert (data.shape, data.levels) == ((2,), None)
    x, y = next(iter(data.train_dataloader()))
    assert x.shape == (100, 2) and x.dtype == torch.float32
    assert set(y.tolist()) <= set(range(data.num_classes or 0))
    assert [
        len(loader.source) for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader())
    ] == [500, 100, 50]
    assert data.log_density(x).isfinite().all()
    again = PointsDataModule(name, train_size=600, val_size=100, test_size=50, batch_size=100)
    assert torch.equal(next(iter(again.train_dataloader()))[0], x)


def test_the_label_is_the_component() -> None:
    data = PointsDataModule("grid")
    x, y = data.draw(500, torch.Generator())
    assert data.centres is not None
    assert torch.equal(torch.cdist(x, data.centres).argmin(1), y)


def test_outside_the_squares_the_density_is_zero() -> None:
    x = torch.tensor([[5.0, 0.0], [-1.5, -0.5], [-1.5, -1.5]])
    assert PointsDataModule("checkerboard").log_density(x).tolist() == [-math.inf, -math.inf, -math.log(8)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "rings"}, "name is 'rings', but must be one of ring, grid"),
        ({"noise": 0.0}, "noise is 0.0, but must be above 0"),
        ({"name": "checkerboard", "noise": 0.1}, "checkerboard has none"),
        ({"test_size": 0}, "test_size 0"),
        ({"train_size": 100, "val_size": 100}, "val_size is 100, but there are only 100"),
    ],
)
def test_bad_arguments_are_refused_at_once(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PointsDataModule(**arguments)
