"""The feature loss: the equation, its gradient, and that its extractor is nobody's weights."""

import copy
from functools import partial

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from genzoo.callbacks import FeatureLoss
from genzoo.datamodules import DigitsDataModule
from genzoo.zoo import (
    GPT,
    MADE,
    VAE,
    Autoencoder,
    DenoisingAutoencoder,
    LatentModel,
    Masking,
    QuantisedAutoencoder,
    hub,
)

SMALL = {"network": "mlp", "width": 16, "depth": 1, "latent_dim": 3}


def trainer(folder, *callbacks, max_epochs=1, **options):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    return Trainer(default_root_dir=folder, max_epochs=max_epochs, callbacks=list(callbacks), **quiet, **options)


def grey(num=24):
    torch.manual_seed(0)
    return DataLoader(TensorDataset(torch.randint(5, (num, 1, 4, 4)) / 4), batch_size=8)


class Quadratic(nn.Module):
    """Features that are no linear function, with weights of their own, and a dropout that must not be in use."""

    def __init__(self):
        super().__init__()
        self.linear, self.dropout = nn.Linear(16, 5), nn.Dropout(0.5)

    def forward(self, x):
        return self.dropout(self.linear(x.flatten(1))).square()


class Watch(FeatureLoss):
    """Looks at the loss of the first step."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch_idx == 0:
            self.quantities = pl_module.objective(batch[0], None)
            self.expected = by_hand(pl_module, self.source, batch[0], self.weight)
            pl_module.zero_grad()
            self.quantities["added_loss"].sum().backward()
            self.gradient = {name: p.grad.clone() for name, p in pl_module.named_parameters() if p.grad is not None}
            pl_module.zero_grad()


def by_hand(model, network, x, weight):
    wanted, found = (network.linear(v.flatten(1)).square() for v in (x, model.reconstruct(x)))
    return weight * (found - wanted).square().sum(1)


def test_the_loss_is_the_likelihood_and_the_weighted_distance_of_features(tmp_path):
    torch.manual_seed(0)
    model, network = Autoencoder((1, 4, 4), 5, **SMALL), Quadratic()
    before, watch = copy.deepcopy(network.state_dict()), Watch(network, weight=3.0)
    run = trainer(tmp_path, watch)
    run.fit(model, grey(), grey())
    torch.testing.assert_close(watch.quantities["added_loss"], watch.expected)
    parts = watch.quantities["reconstruction_error"] + watch.quantities["added_loss"]
    torch.testing.assert_close(watch.quantities["loss"], parts)
    assert watch.gradient.keys() == dict(model.named_parameters()).keys()
    assert all(float(gradient.abs().sum()) > 0 for gradient in watch.gradient.values())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(p.grad is None and not p.requires_grad for p in network.parameters())
    assert "train/added_loss" in run.callback_metrics
    # and what was trained is an autoencoder like any other
    assert model.added_loss is None and set(model.objective(next(iter(grey()))[0], None)) == {"loss"}
    assert model.state_dict().keys() == Autoencoder((1, 4, 4), 5, **SMALL).state_dict().keys()
    checkpoint = torch.load(run.checkpoint_callback.best_model_path, weights_only=True)
    assert checkpoint["state_dict"].keys() == model.state_dict().keys()
    trained = sum(p.numel() for group in run.optimizers[0].param_groups for p in group["params"])
    assert trained == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("num_particles", [1, 3])
def test_of_a_vae_it_is_the_mean_over_the_draws(num_particles):
    model, x = VAE((1, 4, 4), 5, **SMALL, num_particles=num_particles), next(iter(grey()))[0]
    torch.manual_seed(1)
    alone = model.objective(x, None)
    model.added_loss = lambda x, mean: (x - mean).abs().flatten(1).sum(1)
    torch.manual_seed(1)
    together = model.objective(x, None)
    torch.manual_seed(1)
    draws = model.draw(model.posterior(x), num_particles)
    expected = sum(model.added_loss(x, model.decoded(z).mean) for z in draws) / num_particles
    torch.testing.assert_close(together["added_loss"], expected)
    torch.testing.assert_close(together["loss"], alone["loss"] + expected)
    assert all(torch.equal(together[name], value) for name, value in alone.items() if name != "loss")


def test_of_a_latent_model_it_is_the_autoencoders(tmp_path):
    """In its first stage; the prior has no reconstructions."""
    parts = {"autoencoder": partial(QuantisedAutoencoder, width=8, depth=1), "prior": partial(GPT, width=8, depth=1)}
    model, watch = LatentModel((1, 4, 4), 5, **parts, first_stage=0.5), Watch(Quadratic(), weight=3.0)
    run = trainer(tmp_path, watch, max_epochs=2)
    run.fit(model, grey(), grey())
    torch.testing.assert_close(watch.quantities["added_loss"], watch.expected)
    assert "train/added_loss" in run.callback_metrics and model.stage == "prior"
    assert model.added_loss is None and model.autoencoder.added_loss is None


@pytest.mark.parametrize("family", [Autoencoder, DenoisingAutoencoder])
def test_features_come_closer_than_without_it(family, tmp_path):
    """By an entry of the zoo, on its own data."""
    distances = []
    extractor = hub.load("digits/classifier")
    options = {"corruption": Masking(0.2)} if family is DenoisingAutoencoder else {}
    for callbacks in ([], [FeatureLoss("digits/classifier", weight=20.0)]):
        torch.manual_seed(0)
        model, data = family((1, 8, 8), 17, **SMALL, **options), DigitsDataModule(batch_size=32, limit=512)
        quick = {"limit_val_batches": 0, "enable_checkpointing": False}
        trainer(tmp_path, *callbacks, max_epochs=10, **quick).fit(model, data)
        (x, _), *_ = data.val_dataloader()
        with torch.no_grad():
            difference = extractor.features(x) - extractor.features(model.eval().reconstruct(x))
        distances.append(float(difference.square().sum(1).mean()))
    assert distances[1] < 0.8 * distances[0]


def test_what_it_cannot_do_is_refused_before_training(tmp_path):
    for weight in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match=f"weight={weight}"):
            FeatureLoss(weight=weight)
    with pytest.raises(ValueError, match="FeatureLoss: MADE takes no addition to its loss"):
        trainer(tmp_path, FeatureLoss(Quadratic())).fit(MADE((1, 4, 4), 5), grey())
    with pytest.raises(ValueError, match=r"is for data of shape \(1, 8, 8\)"):
        trainer(tmp_path, FeatureLoss("digits/classifier")).fit(Autoencoder((1, 4, 4), 5, **SMALL), grey())


def test_a_run_that_breaks_off_leaves_the_model_without_it(tmp_path):
    class Fails(Callback):
        def on_train_batch_end(self, *_):
            raise RuntimeError("a bug")

    model = Autoencoder((1, 4, 4), 5, **SMALL)
    with pytest.raises(RuntimeError, match="a bug"):
        trainer(tmp_path, FeatureLoss(Quadratic()), Fails()).fit(model, grey())
    assert model.added_loss is None


class Rounding(Quadratic):
    """As Inception is shown images of 8 bits."""

    def forward(self, x):
        return super().forward((x * 255).round().to(torch.uint8).float())


def test_features_that_teach_nothing_are_refused_before_training(tmp_path):
    """Of a part of the model, which would stop to be trained, and without a derivative."""
    model = Autoencoder((1, 4, 4), 5, **SMALL)
    with pytest.raises(ValueError, match="Sequential is a part of Autoencoder"):
        trainer(tmp_path, FeatureLoss(nn.Sequential(model.encoder))).fit(model, grey())
    assert all(parameter.requires_grad for parameter in model.parameters())
    with pytest.raises(ValueError, match="the features of Rounding have no derivative"):
        trainer(tmp_path, FeatureLoss(Rounding())).fit(model, grey())
