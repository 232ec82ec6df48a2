"""The quantised autoencoder: its objective term by term, its codes, what is logged of them, and what it lacks."""

import math

import pytest
import torch
from lightning.pytorch import Trainer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from genzoo.callbacks import FeatureLoss, SampleLogger
from genzoo.zoo import FSQ, VQ, Categorical, DiscretisedLogistic, Gaussian, PerDatum, QuantisedAutoencoder
from genzoo.zoo.hub import load, publish
from genzoo.zoo.interface import Completes, HasLatents, HasLogProb, Interpolates, Samples
from genzoo.zoo.logistic_mixture import LogisticMixture

SMALL = {"width": 8, "factor": 2}
QUANTISERS = pytest.mark.parametrize("quantiser", [FSQ((5, 4)), VQ(12, 3)], ids=lambda q: type(q).__name__)


def images(num=6, shape=(1, 8, 8), levels=5):
    return torch.randint(levels, (num, *shape), generator=torch.Generator().manual_seed(1)) / (levels - 1)


def build(quantiser=None, shape=(1, 8, 8), levels=5, **options):
    torch.manual_seed(0)
    return QuantisedAutoencoder(shape, levels, quantiser=quantiser, **{**SMALL, **options})


def trainer(folder, **options):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    return Trainer(default_root_dir=folder, **{"max_epochs": 1, **quiet, **options})


def test_it_lacks_what_takes_a_prior():
    model = build()
    for capability in (Samples, HasLogProb, Completes, HasLatents, Interpolates):
        assert not isinstance(model, capability)
    for name in ("sample", "log_prob", "complete", "interpolate", "traverse"):
        assert not hasattr(model, name)


@pytest.mark.parametrize("factor", [2, 4, 8])
@pytest.mark.parametrize("size", [(8, 8), (28, 28), (13, 30)])
def test_an_image_has_a_code_for_each_square_of_factor_pixels(factor, size):
    model, x = build(shape=(3, *size), levels=256, factor=factor), images(2, (3, *size), 256)
    grid = (math.ceil(size[0] / factor), math.ceil(size[1] / factor))
    assert model.grid == grid and model.codes(x).shape == (2, *grid)
    assert model.reconstruct(x).shape == x.shape
    assert model.num_codes == 8 * 5 * 5 * 5  # by default


def test_with_a_grid_of_one_code_everything_is_enumerated():
    """8×8 pixels by a factor of 8: the codes of images are among those that there are, and each has its image."""
    model = build(FSQ((5, 4)), factor=8)
    every = model.decode_codes(torch.arange(20).view(20, 1, 1))
    assert every.shape == (20, 1, 8, 8) and len(every.unique(dim=0)) == 20
    x = images(40)
    assert torch.equal(model.reconstruct(x), every[model.codes(x).flatten()])


@QUANTISERS
def test_the_loss_is_what_codes_leave_open_in_nats(quantiser):
    model, x = build(quantiser).eval(), images()
    error = -model.decode(model.codes(x)).log_prob(x)
    torch.testing.assert_close(model.evaluation(x, None, PerDatum(x))["loss"], error)
    torch.testing.assert_close(model.anomaly_score(x), error)
    logits = model.decoder(model.vectors(model.codes(x))).view(6, 5, 1, 8, 8)
    by_hand = nn.functional.cross_entropy(logits, (4 * x).long(), reduction="none").flatten(1).sum(1)
    torch.testing.assert_close(error, by_hand)
    with pytest.raises(ValueError, match="knows 'reconstruction'"):
        model.anomaly_score(x, scorer="nll")


@QUANTISERS
def test_the_objective_is_the_sum_of_its_terms(quantiser):
    model, x = build(quantiser), images()
    model.added_loss = lambda x, mean: (x - mean).abs().flatten(1).sum(1)
    terms = model.objective(x, None)  # by which a codebook has learned
    z, vectors = model.features(x), model.vectors(model.codes(x))
    expected = {
        "reconstruction_error": model.reconstruction_error(x),
        "added_loss": (x - model.reconstruct(x)).abs().flatten(1).sum(1),
    }
    if isinstance(quantiser, VQ):
        expected["commitment"] = 0.25 * (z - vectors).square().flatten(1).sum(1)
    assert terms.keys() == expected.keys() | {"loss"}
    for name, value in expected.items():
        torch.testing.assert_close(terms[name], value)
    torch.testing.assert_close(terms["loss"], sum(expected.values()))


@QUANTISERS
def test_the_encoder_s_gradient_goes_straight_through(quantiser):
    """∂loss/∂z is that of the loss with respect to the decoder's input, times the bound's slope; plus commitment."""
    model, x = build(quantiser), images()
    model.objective(x, None)  # its first batch
    z = model.features(x)
    model.quantiser.learn = lambda z: None
    model.features = lambda x: z
    (gradient,) = torch.autograd.grad(model.objective(x, None)["loss"].sum(), z)
    vectors = model.vectors(model.codes(x)).requires_grad_()
    (expected,) = torch.autograd.grad(-model.decoded(vectors).log_prob(x).sum(), vectors)
    if isinstance(quantiser, VQ):
        expected = expected + 2 * 0.25 * (z - vectors).detach()
    else:
        inside = z.detach().movedim(1, -1).requires_grad_()
        bounded = model.quantiser.bound(inside) / (model.quantiser.levels // 2)
        (expected,) = torch.autograd.grad(bounded, inside, expected.movedim(1, -1))
        expected = expected.movedim(-1, 1)
    torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize("likelihood", [Categorical(), DiscretisedLogistic(3), Gaussian(), LogisticMixture(2)])
def test_reconstructions_are_in_any_likelihood_of_images(likelihood):
    model, x = build(shape=(3, 8, 8), levels=32, likelihood=likelihood), images(4, (3, 8, 8), 32)
    assert model.anomaly_score(x).shape == (4,)
    model.check(model.reconstruct(x), on_grid=False)


@QUANTISERS
def test_how_a_validation_uses_the_codebook_is_that_of_the_whole_split(quantiser, tmp_path):
    """Ragged batches: the entropy of all codes, not the mean of the batches'."""
    model, x = build(quantiser), images(13)
    model.objective(x, None)
    (logged,) = trainer(tmp_path).validate(model, DataLoader(x, batch_size=4), verbose=False)
    shares = model.codes(x).flatten().bincount(minlength=model.num_codes).double() / model.codes(x).numel()
    entropy = -sum(p * math.log(p) for p in shares.tolist() if p > 0)
    assert logged["val/codebook_usage"] == pytest.approx(float((shares > 0).double().mean()), rel=1e-6)
    assert logged["val/codebook_perplexity"] == pytest.approx(math.exp(entropy), rel=1e-6)
    assert logged["val/loss"] == pytest.approx(float(model.anomaly_score(x).mean()), rel=1e-5)
    assert "val/nll" not in logged and "val/bits_per_dim" not in logged


@QUANTISERS
def test_it_learns_a_code_for_each_tile(quantiser):
    """Images of 2×2 tiles, each black or white by a fair coin: two of the codes tell all that there is."""
    torch.manual_seed(0)
    x = torch.randint(2, (32, 1, 2, 2)).float().repeat_interleave(4, 2).repeat_interleave(4, 3)
    model = QuantisedAutoencoder((1, 8, 8), 2, quantiser=quantiser, width=8, factor=4)
    assert float(model.anomaly_score(x).mean()) > 40  # 64 ln 2 = 44.4
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(300):
        optimizer.zero_grad()
        model.objective(x, None)["loss"].mean().backward()
        optimizer.step()
    assert torch.equal(model.reconstruct(x).round(), x)
    assert float(model.anomaly_score(x).max()) < 4


@QUANTISERS
def test_the_feature_loss_works_with_it(quantiser, tmp_path):
    class Halves(nn.Module):
        def forward(self, x):
            return x.flatten(1)[:, :32]

    model = build(quantiser)
    data = DataLoader(TensorDataset(images(8)), batch_size=4)
    run = trainer(tmp_path, callbacks=[FeatureLoss(Halves(), weight=3.0)], log_every_n_steps=1)
    run.fit(model, data)
    assert float(run.callback_metrics["train/added_loss"]) > 0
    assert model.added_loss is None


def test_a_sample_logger_shows_its_reconstructions(tmp_path):
    data = DataLoader(TensorDataset(images(8)), batch_size=4)
    trainer(tmp_path, callbacks=[SampleLogger()]).fit(build(), data, data)
    assert {path.name.partition("-")[0] for path in tmp_path.rglob("samples/*.png")} == {"reconstructions"}


@QUANTISERS
def test_it_is_published_with_its_codebook(quantiser, tmp_path):
    model, x = build(quantiser), images()
    model.objective(x, None)
    publish(model.eval(), "tiny/codes", to=tmp_path / "entry")
    again = load(tmp_path / "entry")
    assert torch.equal(again.codes(x), model.codes(x)) and torch.equal(again.reconstruct(x), model.reconstruct(x))
    assert again.state_dict().keys() == model.state_dict().keys()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shape": (2,), "levels": None}, "is for images, but the data are points"),
        ({"shape": (1, 40), "levels": 256}, "is for images, but the data are waveform"),
        ({"factor": 3}, "factor=3: one code is made of 2, 4 or 8 pixels"),
        ({"factor": 16}, "factor=16"),
    ],
)
def test_impossible_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        build(**arguments)


def test_networks_of_the_wrong_size_are_refused():
    with pytest.raises(ValueError, match=r"encoder must map \(B, \*shape\) to \(B, \*\(4, 4, 4\)\)"):
        build(encoder=nn.Conv2d(1, 4, 1)).codes(images())
    with pytest.raises(ValueError, match="decoder must map"):
        build(decoder=nn.Conv2d(4, 1, 1)).reconstruct(images())
    own = build(encoder=nn.Conv2d(1, 4, 2, stride=2), decoder=nn.ConvTranspose2d(4, 5, 2, stride=2))
    assert own.reconstruct(images()).shape == (6, 1, 8, 8)


def test_a_number_of_a_code_has_no_level_that_nothing_reaches() -> None:
    quantise = FSQ((1000, 999)).build()
    _, codes = quantise(torch.tensor([[-1e30, -1e30], [1e30, 1e30]]))
    assert codes.tolist() == [0, 1000 * 999 - 1]
    with pytest.raises(ValueError, match="at most 1,000 levels, as no input reaches the outermost of more"):
        FSQ((8, 1001))


@pytest.mark.parametrize("learns", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_a_codebook_learns_where_something_learns(training, learns):
    torch.manual_seed(0)
    model = QuantisedAutoencoder((1, 8, 8), 17, factor=2, width=4, quantiser=VQ(8, 2)).train(training)
    before = model.quantiser.codebook.clone()
    with torch.set_grad_enabled(learns):
        model.objective(torch.rand(4, 1, 8, 8), None)
    assert torch.equal(model.quantiser.codebook, before) != learns
