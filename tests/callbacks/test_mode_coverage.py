"""Modes found, against samples of which it is known what they have found."""

import math

import pytest
import torch
from torch import Tensor

from genzoo.callbacks import ModeCoverage
from genzoo.datamodules import PointsDataModule
from genzoo.metrics.modes import mode_coverage
from genzoo.zoo import GAN


def drawn(name: str, num: int) -> tuple[Tensor, Tensor, float]:
    data = PointsDataModule(name)
    x, _ = data.draw(num, torch.Generator().manual_seed(0))
    return x, data.centres, data.noise_std


@pytest.mark.parametrize(("name", "modes"), [("ring", 8), ("grid", 25)])
def test_the_data_themselves_find_every_mode(name: str, modes: int) -> None:
    """Within 3σ in the plane lie 1 − exp(−9/2) of them, and their divergence is (K − 1) / 2N on average."""
    num = 100_000
    found = mode_coverage(*drawn(name, num))
    assert found["modes"] == modes
    share = 1 - math.exp(-4.5)
    assert found["high_quality"] == pytest.approx(share, abs=5 * math.sqrt(share * (1 - share) / num))
    assert 0 < found["mode_kl"] < 3 * (modes - 1) / (2 * num)


def test_collapse_to_some_modes_is_counted_and_measured() -> None:
    _, centres, std = drawn("ring", 1)
    one = mode_coverage(centres[:1].expand(50, 2), centres, std)
    assert one == {"modes": 1.0, "high_quality": 1.0, "mode_kl": pytest.approx(math.log(8))}
    half = mode_coverage(centres[:4].repeat(10, 1), centres, std)
    assert (half["modes"], half["high_quality"]) == (4.0, 1.0)
    assert half["mode_kl"] == pytest.approx(math.log(2))


def test_bridges_between_modes_find_nothing() -> None:
    _, centres, std = drawn("ring", 1)
    between = (centres + centres.roll(1, 0)) / 2
    found = mode_coverage(between, centres, std)
    assert (found["modes"], found["high_quality"]) == (0.0, 0.0)
    just_inside, just_outside = (centres + torch.tensor([k * 3 * std, 0.0]) for k in (0.999, 1.001))
    assert mode_coverage(just_inside, centres, std)["modes"] == 8
    assert mode_coverage(just_outside, centres, std)["modes"] == 0


class Perfect(GAN):
    """A generator that draws the data."""

    def sample(self, num_samples, *, labels=None, generator=None):
        return PointsDataModule("ring").draw(num_samples, generator)[0].float()


def test_the_callback_logs_what_the_datamodule_s_modes_say(trainer) -> None:
    data = PointsDataModule("ring", train_size=600, val_size=100, batch_size=100)
    fit = trainer(ModeCoverage(num_samples=500), max_epochs=1)
    fit.fit(Perfect((2,), None, width=4), data)
    assert float(fit.callback_metrics["val/modes"]) == 8
    assert float(fit.callback_metrics["val/high_quality"]) == pytest.approx(0.989, abs=0.02)
    assert 0 <= float(fit.callback_metrics["val/mode_kl"]) < 0.05
    given = trainer(ModeCoverage(num_samples=500, centres=[[5.0, 5.0]], std=0.1), max_epochs=1)
    given.fit(Perfect((2,), None, width=4), data)
    assert float(given.callback_metrics["val/modes"]) == 0


def test_what_cannot_be_counted_is_refused(trainer) -> None:
    with pytest.raises(ValueError, match="where its modes are"):
        trainer(ModeCoverage()).fit(GAN((2,), None, width=4), PointsDataModule("moons", train_size=600, val_size=100))
    with pytest.raises(ValueError, match="num_samples=0"):
        ModeCoverage(num_samples=0)
    with pytest.raises(ValueError, match="takes samples"):
        mode_coverage(torch.zeros(3, 4), torch.zeros(2, 3), 0.1)
    with pytest.raises(ValueError, match="std is 0"):
        mode_coverage(torch.zeros(3, 2), torch.zeros(2, 2), 0.0)
