"""The likelihood of a split: Σ/N, whatever the batches and the processes."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from foreign import Foreign, points
from lightning.pytorch import Trainer
from running import on_two_processes
from torch import Tensor, nn
from torch.utils.data import DataLoader

from genzoo.callbacks import EMA, FrechetDistance, LikelihoodLogger, SampleLogger
from genzoo.callbacks.likelihood import likelihood_of
from genzoo.datamodules import DigitsDataModule
from genzoo.zoo import VAE, PerDatum


class Noisy(Foreign):
    """log p = −Σx − |noise| / K, where the noise comes from the generator."""

    log_prob_kind = "lower_bound"

    def log_prob(self, x: Tensor, *, num_particles: int = 1, generator: Any = None) -> Tensor:
        noise = torch.stack([torch.rand((), generator=g) for g in generator.streams])
        return -x.flatten(1).sum(1) - noise / num_particles + 0 * self.net[0].weight.sum()

    def bits_per_dim(self, x: Tensor, **_: Any) -> Tensor: ...


def split(n: int, size: int) -> list[Tensor]:
    return list(points(n, 1).tensors[0].split(size))


def test_is_one_number_for_any_batch_size_and_order() -> None:
    results = [likelihood_of(Noisy(), batches) for batches in (split(30, 8), split(30, 30), split(30, 7)[::-1])]
    x = points(30, 1).tensors[0]
    assert results[0].num_examples == 30
    for other in results[1:]:
        assert other.nll == pytest.approx(results[0].nll, rel=1e-12)
        assert other.standard_error == pytest.approx(results[0].standard_error, rel=1e-9)
    assert 0 < results[0].nll - x.flatten(1).sum(1).double().mean().item() < 1
    sharper = likelihood_of(Noisy(), split(30, 8), num_particles=1000)
    assert sharper.nll == pytest.approx(x.flatten(1).sum(1).double().mean().item(), abs=1e-3)
    assert results[0].bits_per_dim == pytest.approx(results[0].nll / 16 / 0.6931471805599453)


def test_logs_under_a_name_that_says_what_it_is(trainer: Callable[..., Trainer], fit: Any) -> None:
    run = trainer(LikelihoodLogger(7), max_epochs=1)
    module = fit(run, Noisy())
    expected = likelihood_of(module, split(30, 30), num_particles=7)
    assert run.callback_metrics["val/nll_bound_k7"].item() == pytest.approx(expected.nll, rel=1e-6)
    assert run.callback_metrics["val/bits_per_dim_bound_k7"].item() == pytest.approx(expected.bits_per_dim, rel=1e-6)

    class OfOneDraw(Noisy):
        def log_prob(self, x: Tensor) -> Tensor:  # type: ignore[override]
            return -x.flatten(1).sum(1) + 0 * self.net[0].weight.sum()

    run = trainer(LikelihoodLogger(100), max_epochs=1)
    fit(run, OfOneDraw())
    assert "val/nll_bound" in run.callback_metrics  # a hundred would be untrue
    assert not [name for name in run.callback_metrics if "_k" in name]

    class Exact(Noisy):
        log_prob_kind = "exact"
        levels = None  # continuous

    run = trainer(LikelihoodLogger(split="train"), max_epochs=1)
    fit(run, Exact())
    assert "train/nll_exact" in run.callback_metrics
    assert not any("bits" in name for name in run.callback_metrics)


@pytest.mark.parametrize("devices", [1, 2])
def test_every_datum_counts_once_over_two_processes(trainer: Callable[..., Trainer], devices: int) -> None:
    """31 data in batches of 8 over 2 processes: Lightning's own sampler would count one of them twice."""
    options = {} if devices == 1 else on_two_processes()
    run = trainer(LikelihoodLogger(), EMA(), max_epochs=1, **options)
    torch.manual_seed(0)
    module = Noisy(lr=0.0)
    run.fit(module, DataLoader(points(16, 0), 8), DataLoader(points(31, 1), 8))
    expected = likelihood_of(module, split(31, 31), num_particles=100)
    assert run.callback_metrics["val/nll_bound_k100"].item() == pytest.approx(expected.nll, rel=1e-6)


def test_our_own_family() -> None:
    torch.manual_seed(0)
    model = VAE((1, 4, 4), 2, latent_dim=2).eval()
    x = points(20, 1).tensors[0].round()
    with torch.no_grad():
        expected = -model.log_prob(x, num_particles=50, generator=PerDatum(x)).double().mean()
        measured = likelihood_of(model, x.split(6), num_particles=50)
    assert measured.nll == pytest.approx(expected.item(), rel=1e-6)


def test_no_likelihood_is_refused_before_training(trainer: Callable[..., Trainer], fit: Any) -> None:
    with pytest.raises(ValueError, match="Foreign has no likelihood"):
        fit(trainer(LikelihoodLogger()))
    with pytest.raises(ValueError, match="split='tset' must be one of"):
        LikelihoodLogger(split="tset")

    class Broken(Noisy):
        def log_prob(self, x: Tensor, **_: Any) -> Tensor:
            return torch.where(torch.arange(len(x)) == 0, torch.nan, 0.0)

    with pytest.raises(ValueError, match="NaN for 4 of 30 data"):
        likelihood_of(Broken(), split(30, 8))


@pytest.mark.parametrize("precision", ["64-true", "bf16-true"])
def test_data_come_in_the_precision_of_the_module(trainer: Callable[..., Trainer], precision: Any) -> None:
    callbacks = [
        LikelihoodLogger(2),
        FrechetDistance(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), 20),
        SampleLogger(4, num_examples=0),
    ]
    run = trainer(*callbacks, precision=precision, max_epochs=1)
    run.fit(VAE((1, 8, 8), 17, network="mlp", width=8, latent_dim=2), DigitsDataModule(limit=64))
    whole, bound = run.callback_metrics["val/nll"], run.callback_metrics["val/nll_bound_k2"]
    assert bound == pytest.approx(float(whole), rel=0.05)
    assert run.callback_metrics["val/frechet"].isfinite()
