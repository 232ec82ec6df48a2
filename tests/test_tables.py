"""A table whose columns differ by millions, learned in seconds: samples and densities are in its own units."""

from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from thorough import some
from torch.distributions import MultivariateNormal

from genzoo.datamodules import ArrayDataModule
from genzoo.zoo import DDPM, GAN, MADE, VAE, Autoencoder, FlowMatching, ScoreModel

MEAN = torch.tensor([180, 50_000, 0], dtype=torch.float64)
STD = torch.tensor([10, 30_000, 0.01], dtype=torch.float64)
CORRELATED = torch.tensor([[1, 0.6, 0], [0.6, 1, -0.3], [0, -0.3, 1]], dtype=torch.float64)
TRUTH = MultivariateNormal(MEAN, scale_tril=STD[:, None] * torch.linalg.cholesky(CORRELATED))


OPTIONS: dict[Any, dict[str, Any]] = {
    VAE: {"width": 64, "latent_dim": 3},
    Autoencoder: {"width": 64, "latent_dim": 3},
    GAN: {"width": 64},
}


@pytest.fixture(scope="module")
def data() -> ArrayDataModule:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return ArrayDataModule(TRUTH.sample((4000,)), batch_size=256)


def learned(family: Any, data: ArrayDataModule, **options: Any) -> Any:
    """A small model after 600 steps."""
    torch.manual_seed(0)
    model = family(data.shape, data.levels, **options)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    Trainer(max_steps=600, enable_checkpointing=False, limit_val_batches=0, **quiet).fit(model, datamodule=data)
    if isinstance(model, Autoencoder):
        model.fit_density(data.sources["train"].x, 3)  # type: ignore[attr-defined]
    return model.eval()


@pytest.mark.parametrize(
    "family",
    some([DDPM, FlowMatching, ScoreModel, MADE, VAE, Autoencoder, GAN], (FlowMatching, VAE).__contains__),
)
def test_samples_and_densities_of_a_table_are_in_its_units(family: Any, data: ArrayDataModule) -> None:
    model = learned(family, data, **OPTIONS.get(family, {}))
    samples = model.sample(4000, generator=torch.Generator().manual_seed(1)).double()
    assert bool(((samples.mean(0) - MEAN).abs() < 0.3 * STD).all())
    assert bool(((samples.std(0) / STD).log().abs() < torch.tensor(1.4).log()).all())
    correlation = samples.T.corrcoef()
    torch.testing.assert_close(correlation, CORRELATED, atol=0.3, rtol=0)
    if family in (FlowMatching, ScoreModel, MADE, VAE):
        data.setup("test")
        x = data.sources["test"].x  # type: ignore[attr-defined]
        density = model.log_prob(x, num_particles=16, generator=torch.Generator().manual_seed(0)).double()
        assert float((density - TRUTH.log_prob(x.double())).mean()) == pytest.approx(0, abs=0.1)
    known = torch.tensor([True, False, True])
    completed = model.complete(samples[:200].float(), known, generator=torch.Generator().manual_seed(2))
    assert torch.equal(completed[0, :, known], samples[:200, known].float())
    off = (completed[0, :, 1].double() - MEAN[1]) / STD[1]
    assert float(off.abs().mean()) < 3
