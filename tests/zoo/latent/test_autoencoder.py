"""Autoencoders: what they can do, what they cannot before a density is fitted, and the score of a denoiser."""

import copy
import math
import pickle

import pytest
import torch
from lightning.pytorch import Trainer
from torch import nn
from torch.distributions import MultivariateNormal, Normal
from torch.utils.data import DataLoader, TensorDataset

from genzoo.zoo import Autoencoder, Categorical, DenoisingAutoencoder, Gaussian, GaussianNoise, Masking, PerDatum
from genzoo.zoo.hub import load, publish
from genzoo.zoo.interface import HasLogProb, Samples
from genzoo.zoo.modality import to_grid

QUIET = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
SMALL = {"network": "mlp", "width": 16, "depth": 1, "latent_dim": 3}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def linear(weights, bias=None, **arguments):
    """A linear autoencoder x → A x → B A x + b with a Gaussian output of scale 0.5, in float64."""
    down, up = weights
    encoder, decoder = nn.Linear(*down.T.shape, bias=False).double(), nn.Linear(*up.T.shape).double()
    with torch.no_grad():
        encoder.weight.copy_(down)
        decoder.weight.copy_(up)
        decoder.bias.copy_(torch.zeros(len(up)) if bias is None else bias)
    kind = DenoisingAutoencoder if "corruption" in arguments else Autoencoder
    networks = {"encoder": encoder, "decoder": decoder, "latent_dim": len(down)}
    return kind((down.shape[1],), None, likelihood=Gaussian(scale=0.5), **networks, **arguments)


def test_loss_is_what_the_reconstruction_leaves_open_in_nats():
    """Per datum, with all constants: the log-density of a normal distribution around B A x."""
    torch.manual_seed(0)
    basis = torch.linalg.qr(torch.randn(5, 2, dtype=torch.float64))[0]
    model, x = linear((basis.T, basis)), torch.randn(7, 5, dtype=torch.float64)
    expected = -Normal(x @ basis @ basis.T, 0.5).log_prob(x).sum(1)
    for loss in (model.objective(x, None)["loss"], model.evaluation(x, None, PerDatum(x))["loss"]):
        torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(model.anomaly_score(x), expected)


def test_the_best_linear_autoencoder_is_the_principal_subspace():
    """Baldi & Hornik 1989: trained by our objective, B A becomes the projection on the largest components."""
    torch.manual_seed(0)
    rotation = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64))[0]
    x = torch.randn(400, 6, dtype=torch.float64) * torch.tensor([3.0, 2.0, 0.5, 0.3, 0.2, 0.1]) @ rotation.T
    x = x - x.mean(0)
    model = linear((0.3 * torch.randn(2, 6), 0.3 * torch.randn(6, 2)))
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = model.objective(x, None)["loss"].mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    top = torch.linalg.eigh(x.T @ x)[1][:, -2:]
    projection = model.decoder.weight @ model.encoder.weight
    torch.testing.assert_close(projection, top @ top.T, atol=1e-3, rtol=0)


def test_there_is_no_likelihood_and_no_sampling_before_a_density_is_fitted():
    torch.manual_seed(0)
    model, x = Autoencoder((1, 4, 4), 5, **SMALL), torch.randint(5, (50, 1, 4, 4)) / 4
    assert not isinstance(model, HasLogProb) and not hasattr(model, "log_prob")
    assert not isinstance(model, Samples) and not hasattr(model, "sample")
    planned = Autoencoder((1, 4, 4), 5, **SMALL, density_components=3)
    assert not isinstance(planned, Samples)
    model.fit_density(x, 3)
    assert isinstance(model, Samples)
    assert model.hparams["density_components"] == 3
    model.check(model.sample(20, generator=seeded()))
    with pytest.raises(ValueError, match="unconditional"):
        model.sample(2, labels=torch.zeros(2, dtype=torch.long))
    # and an unfitted state takes the capability away again
    model.load_state_dict(planned.state_dict())
    assert not isinstance(model, Samples)


def test_isinstance_does_not_depend_on_how_a_python_looks_attributes_up():
    """Python 3.12's runtime protocols look without calling __getattr__; 3.11's ask hasattr."""
    import inspect

    model = Autoencoder((1, 4, 4), 5, **SMALL)
    missing = object()
    assert inspect.getattr_static(model, "sample", missing) is missing
    model.fit_density(torch.rand(20, 1, 4, 4).mul(4).round() / 4, 2)
    assert inspect.getattr_static(model, "sample", missing) is not missing


def test_a_loaded_density_counts_wherever_the_model_is_and_for_it_alone():
    """In a copy, whose original stays as it is, and in a model that another one holds."""
    torch.manual_seed(0)
    plain = Autoencoder((1, 4, 4), 5, **SMALL, density_components=2)
    fitted = copy.deepcopy(plain)
    fitted.fit_density(torch.randint(5, (50, 1, 4, 4)) / 4)
    assert isinstance(fitted, Samples) and not isinstance(plain, Samples)
    twin = copy.deepcopy(plain)
    twin.load_state_dict(fitted.state_dict())
    assert isinstance(twin, Samples) and not isinstance(plain, Samples)
    nn.ModuleList([plain]).load_state_dict(nn.ModuleList([fitted]).state_dict())
    assert isinstance(plain, Samples)
    draws = [model.sample(9, generator=seeded()) for model in (fitted, twin, plain)]
    assert torch.equal(draws[0], draws[1]) and torch.equal(draws[0], draws[2])


def test_samples_are_drawn_from_the_mixture_of_the_codes():
    """With identity networks the code is the datum: a fitted mixture is sampled with the data's moments."""
    torch.manual_seed(0)
    covariance = torch.tensor([[1.0, 0.6], [0.6, 0.5]], dtype=torch.float64)
    left = MultivariateNormal(torch.tensor([-4.0, 0.0], dtype=torch.float64), covariance)
    right = MultivariateNormal(torch.tensor([4.0, 1.0], dtype=torch.float64), 0.25 * covariance)
    x = torch.cat([left.sample((3000,)), right.sample((1000,))])
    model = linear((torch.eye(2), torch.eye(2)))
    model.fit_density(x, 2)
    z = model.density.sample(40_000, seeded())
    for side in (z[:, 0] < 0, z[:, 0] > 0):
        ours, theirs = z[side], x[(x[:, 0] < 0) == bool(z[side][0, 0] < 0)]
        assert len(ours) / len(z) == pytest.approx(len(theirs) / len(x), abs=0.01)
        torch.testing.assert_close(ours.mean(0), theirs.mean(0), atol=0.03, rtol=0)
        torch.testing.assert_close(ours.T.cov(), theirs.T.cov(), atol=0.05, rtol=0)
    # the datum adds the noise of p(x | z)
    noise = model.sample(40_000, generator=seeded()) - z
    torch.testing.assert_close(noise.T.cov(), 0.25 * torch.eye(2, dtype=torch.float64), atol=0.01, rtol=0)


def test_fewer_codes_than_components_leave_the_rest_without_weight():
    model = linear((torch.eye(2), torch.eye(2)))
    x = torch.tensor([[0.0, 0.0], [5.0, 5.0], [9.0, 0.0]], dtype=torch.float64)
    model.fit_density(x, 8)
    assert int((model.density.weights > 0).sum()) == 3
    nearest = torch.cdist(model.density.sample(200, seeded()), x).min(1).values
    assert float(nearest.max()) < 1
    with pytest.raises(ValueError, match="1 codes"):
        model.fit_density(x[:1])


def test_a_density_is_published_and_saved_with_the_weights(tmp_path):
    torch.manual_seed(0)
    model, x = Autoencoder((1, 4, 4), 5, **SMALL).eval(), torch.randint(5, (60, 1, 4, 4)) / 4
    model.fit_density(x, 4)
    publish(model, "tiny/ae", to=tmp_path / "entry")
    loaded = load(tmp_path / "entry")
    assert isinstance(loaded, Samples)
    ours, theirs = model.sample(9, generator=seeded()), loaded.sample(9, generator=seeded())
    assert torch.equal(ours, theirs)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert twin.sample.__self__ is twin
        assert torch.equal(twin.sample(9, generator=seeded()), ours)


@pytest.mark.parametrize("num_components", [0, -2, float("nan")])
def test_a_density_of_nothing_is_refused_and_leaves_the_model_as_it_was(num_components):
    model = Autoencoder((1, 4, 4), 5, **SMALL)
    with pytest.raises(ValueError, match=f"num_components={num_components}"):
        model.fit_density(torch.zeros(4, 1, 4, 4), num_components)
    with pytest.raises(ValueError, match="1 codes: give more data"):
        model.fit_density(torch.zeros(1, 1, 4, 4))
    with pytest.raises(ValueError, match="4 of 4 data in the batch hold NaN"):
        model.fit_density(torch.full((4, 1, 4, 4), torch.nan))
    assert model.density is None and not isinstance(model, Samples)


def test_training_fits_the_density_before_every_validation_to_the_codes_of_what_it_trained_on(tmp_path):
    torch.manual_seed(0)
    x = torch.randint(5, (60, 1, 4, 4)) / 4
    model = Autoencoder((1, 4, 4), 5, **SMALL, density_components=3)
    trainer = Trainer(max_epochs=2, default_root_dir=tmp_path, **QUIET)
    trainer.fit(model, DataLoader(TensorDataset(x), batch_size=16), DataLoader(TensorDataset(x), batch_size=16))
    assert isinstance(model, Samples)
    expected = copy.deepcopy(model)
    expected.fit_density(torch.cat([x, x]))
    assert all(torch.equal(a, b) for a, b in zip(model.density.buffers(), expected.density.buffers(), strict=True))
    path = trainer.checkpoint_callback.best_model_path
    again = Autoencoder.load_from_checkpoint(path)
    assert torch.equal(again.density.means, model.density.means)
    assert torch.equal(again.sample(3, generator=seeded()), model.sample(3, generator=seeded()))


@pytest.mark.parametrize("validated", [None, 2])
def test_a_training_hands_back_the_density_of_its_last_weights(validated, tmp_path):
    """Without a validation, and where steps follow the last one."""
    torch.manual_seed(0)
    loader = DataLoader(TensorDataset(torch.randint(5, (60, 1, 4, 4)) / 4), batch_size=20)
    model = Autoencoder((1, 4, 4), 5, **SMALL, density_components=2)
    trainer = Trainer(max_epochs=1, default_root_dir=tmp_path, val_check_interval=validated or 1.0, **QUIET)
    trainer.fit(model, loader, None if validated is None else loader)
    assert isinstance(model, Samples)
    expected = copy.deepcopy(model)
    expected.fit_density(torch.cat([model.from_seen(x) for x in model._seen]))
    assert all(torch.equal(a, b) for a, b in zip(model.density.buffers(), expected.density.buffers(), strict=True))


def test_to_fit_a_density_leaves_the_training_as_it_is(tmp_path):
    """An encoder of somebody's own, with statistics of batches and dropout: it is asked as it is after training."""
    torch.manual_seed(0)
    loader = DataLoader(TensorDataset(torch.randint(5, (60, 1, 4, 4)) / 4), batch_size=20)
    found = []
    for components in (0, 2):
        torch.manual_seed(0)
        layers = [nn.Flatten(), nn.Linear(16, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 2)]
        own = {"encoder": nn.Sequential(*layers), "latent_dim": 2, "width": 8, "network": "mlp"}
        model = Autoencoder((1, 4, 4), 5, **own, density_components=components)
        torch.manual_seed(1)
        Trainer(max_epochs=2, default_root_dir=tmp_path, **QUIET).fit(model, loader)
        found.append(model)
    plain, fitted = found
    assert all(torch.equal(value, fitted.state_dict()[name]) for name, value in plain.state_dict().items())
    again = copy.deepcopy(fitted).eval()
    again.fit_density(torch.cat([fitted.from_seen(x) for x in fitted._seen]))
    assert all(torch.equal(a, b) for a, b in zip(again.density.buffers(), fitted.density.buffers(), strict=True))


def test_a_checkpoint_of_a_training_without_validations_can_be_sampled(tmp_path):
    torch.manual_seed(0)
    loader = DataLoader(TensorDataset(torch.randint(5, (60, 1, 4, 4)) / 4), batch_size=20)
    model = Autoencoder((1, 4, 4), 5, **SMALL, density_components=2)
    trainer = Trainer(max_epochs=1, default_root_dir=tmp_path, **QUIET)
    trainer.fit(model, loader)
    again = Autoencoder.load_from_checkpoint(trainer.checkpoint_callback.best_model_path)
    assert torch.equal(again.sample(3, generator=seeded()), model.sample(3, generator=seeded()))


def test_a_density_fitted_in_inference_mode_is_as_any_other():
    x = torch.randint(5, (60, 1, 4, 4)) / 4
    torch.manual_seed(0)
    model = Autoencoder((1, 4, 4), 5, **SMALL)
    other = copy.deepcopy(model)
    with torch.inference_mode():
        model.fit_density(x, 2)
    other.fit_density(x, 2)
    assert all(torch.equal(a, b) for a, b in zip(model.density.buffers(), other.density.buffers(), strict=True))
    model.fit_density(x, 2)
    model.load_state_dict(other.state_dict())


def test_to_measure_is_not_to_fit(tmp_path):
    torch.manual_seed(0)
    loader = DataLoader(TensorDataset(torch.randint(5, (60, 1, 4, 4)) / 4), batch_size=20)
    model = Autoencoder((1, 4, 4), 5, **SMALL, density_components=2)
    trainer = Trainer(max_epochs=1, default_root_dir=tmp_path, **QUIET)
    trainer.fit(model, loader, loader)
    model.fit_density(torch.randint(5, (60, 1, 4, 4)) / 4, 2)
    own = copy.deepcopy(model.density)
    trainer.validate(model, loader, verbose=False)
    assert all(torch.equal(a, b) for a, b in zip(model.density.buffers(), own.buffers(), strict=True))


def test_the_training_data_that_are_remembered_are_bounded():
    model = Autoencoder((1, 4, 4), 5, **SMALL, density_components=2)
    model.density_data = 25
    for start in range(10):
        model.on_train_batch_start(torch.full((10, 1, 4, 4), start / 4 % 1), 0)
    assert sum(map(len, model._seen)) == 30
    assert int(model._seen[-1][0, 0, 0, 0]) == 9 % 4 and model._seen[-1].dtype == torch.uint8
    assert model.state_dict().keys() == Autoencoder((1, 4, 4), 5, **SMALL, density_components=2).state_dict().keys()


def test_a_density_is_fitted_to_the_codes_of_few_data_at_a_time(monkeypatch):
    """However many there are, and however large: what a network makes of them takes far more room than they do."""
    model, x = Autoencoder((1, 4, 4), 5, **SMALL), to_grid(torch.rand(50, 1, 4, 4, generator=seeded()), 5)
    whole = copy.deepcopy(model)
    whole.fit_density(x, 2)
    sizes, encode = [], model.encode
    monkeypatch.setattr(model, "encode", lambda x: sizes.append(len(x)) or encode(x))
    monkeypatch.setattr("genzoo.zoo.latent.autoencoder.ENCODED", 16 * 20)
    model.fit_density(x, 2)
    assert sizes == [20, 20, 10]
    torch.testing.assert_close(model.density.means, whole.density.means)


def test_completion_is_a_fixed_point_of_reconstructing_and_pasting():
    """For the projection on a line that is the point of the line with the known coordinates, as far as it has one."""
    direction = torch.tensor([[0.6, 0.0, 0.8]], dtype=torch.float64)
    model = linear((direction, direction.T))
    model.completion_sweeps = 500
    x = torch.tensor([[3.0, 7.0, 0.0]], dtype=torch.float64)
    known = torch.tensor([True, True, False])
    out = model.complete(x, known, num_samples=3, generator=seeded())
    assert torch.equal(out[:, :, :2], x[:, :2].expand(3, -1, -1))
    torch.testing.assert_close(out[:, 0, 2], torch.full((3,), 4.0, dtype=torch.float64), atol=1e-3, rtol=0)


def test_a_completion_that_has_settled_does_not_wait_for_another():
    direction = torch.tensor([[0.6, 0.0, 0.8]], dtype=torch.float64)
    model = linear((direction, direction.T))
    x = torch.tensor([[0.0, 7.0, 0.0], [30.0, 7.0, 0.0], [3000.0, 7.0, 0.0]], dtype=torch.float64)
    known = torch.tensor([True, True, False])
    together = model.complete(x, known, generator=PerDatum(x))
    alone = [model.complete(x[i : i + 1], known, generator=PerDatum(x[i : i + 1])) for i in range(3)]
    torch.testing.assert_close(together, torch.cat(alone, 1), atol=1e-9, rtol=0)


def test_anomaly_scores_know_one_scorer():
    model, x = Autoencoder((1, 4, 4), 5, **SMALL), torch.zeros(2, 1, 4, 4)
    torch.testing.assert_close(model.anomaly_score(x, scorer="reconstruction"), model.anomaly_score(x))
    with pytest.raises(ValueError, match="knows 'reconstruction'"):
        model.anomaly_score(x, scorer="nll")


def optimal_denoiser(noise):
    """Data N(m, S), and the linear map r(x̃) = E[x | x̃] for x̃ = x + noise · ε as an autoencoder, no bottleneck."""
    generator = seeded()
    root = torch.randn(4, 4, generator=generator, dtype=torch.float64)
    data = MultivariateNormal(
        torch.randn(4, generator=generator, dtype=torch.float64), root @ root.T + 0.1 * torch.eye(4)
    )
    gain = data.covariance_matrix @ torch.linalg.inv(data.covariance_matrix + noise**2 * torch.eye(4))
    bias = data.mean - gain @ data.mean
    model = linear((torch.eye(4), gain), bias, corruption=GaussianNoise(noise))
    return model, data


def test_the_score_of_the_optimal_linear_denoiser_is_that_of_the_noisy_gaussian():
    """(r(x) − x)/σ² = ∇ log N(x; m, S + σ² I), by autograd through the density."""
    model, data = optimal_denoiser(0.7)
    noisy = MultivariateNormal(data.mean, data.covariance_matrix + 0.7**2 * torch.eye(4))
    x = (2 * torch.randn(20, 4, dtype=torch.float64)).requires_grad_()
    (exact,) = torch.autograd.grad(noisy.log_prob(x).sum(), x)
    torch.testing.assert_close(model.score(x.detach()), exact)
    with pytest.raises(ValueError, match="only GaussianNoise"):
        linear((torch.eye(4), torch.eye(4)), corruption=Masking()).score(x.detach())


def test_the_optimal_denoiser_is_where_the_objective_has_no_gradient():
    model, data = optimal_denoiser(0.7)
    torch.manual_seed(0)
    gradients = []
    for _ in range(200):
        model.zero_grad()
        model.objective(data.sample((500,)), None)["loss"].mean().backward()
        gradients.append(torch.cat([model.decoder.weight.grad.flatten(), model.decoder.bias.grad]))
    stacked = torch.stack(gradients)
    error = stacked.std(0) / math.sqrt(len(stacked))
    assert bool((stacked.mean(0).abs() < 4 * error).all())
    # and elsewhere it has one
    with torch.no_grad():
        model.decoder.weight.add_(0.1)
    model.zero_grad()
    model.objective(data.sample((500,)), None)["loss"].mean().backward()
    assert float((model.decoder.weight.grad.flatten() / error[:16]).abs().max()) > 40


def test_corruptions_do_what_they_say():
    x = torch.ones(2000, 50)
    masked = Masking(0.3).corrupt(x, seeded())
    assert set(masked.unique().tolist()) == {0.0, 1.0}
    assert float(masked.mean()) == pytest.approx(0.7, abs=0.01)
    noisy = GaussianNoise(0.2).corrupt(x, seeded())
    assert float((noisy - x).std()) == pytest.approx(0.2, abs=0.002)
    batch = torch.rand(4, 50)
    alone = torch.cat([Masking(0.3).corrupt(row[None], PerDatum(row[None])) for row in batch])
    assert torch.equal(Masking(0.3).corrupt(batch, PerDatum(batch)), alone)


def test_a_denoiser_learns_from_what_is_corrupted_and_is_evaluated_on_both():
    torch.manual_seed(0)
    model = DenoisingAutoencoder((1, 4, 4), 5, **SMALL, corruption=Masking(0.9))
    x = torch.randint(5, (6, 1, 4, 4)) / 4
    quantities = model.evaluation(x, None, PerDatum(x))
    torch.testing.assert_close(quantities["clean_loss"], model.anomaly_score(x))
    noisy = Masking(0.9).corrupt(x, PerDatum(x))
    expected = -model.decode(model.encode(noisy).mean).log_prob(x)
    torch.testing.assert_close(quantities["loss"], expected)
    assert not torch.allclose(quantities["loss"], quantities["clean_loss"])


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Autoencoder((1, 4, 4), 5, latent_dim=0), "latent_dim=0"),
        (lambda: Autoencoder((1, 4, 4), 5, density_components=-1), "density_components=-1"),
        (lambda: Autoencoder((1, 4, 4), 5, network="unet"), "network='unet'"),
        (lambda: Autoencoder((4,), None, likelihood=Categorical()), "Use Gaussian"),
        (lambda: GaussianNoise(0.0), "scale=0"),
        (lambda: Masking(1.0), "probability=1"),
    ],
)
def test_impossible_arguments_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_networks_of_the_wrong_size_are_refused():
    x = torch.zeros(2, 1, 4, 4)
    with pytest.raises(ValueError, match="encoder must map"):
        Autoencoder((1, 4, 4), 2, latent_dim=3, encoder=nn.Sequential(nn.Flatten(), nn.Linear(16, 4))).encode(x)
    with pytest.raises(ValueError, match="decoder must map"):
        Autoencoder((1, 4, 4), 2, latent_dim=3, decoder=nn.Linear(3, 15)).decode(torch.zeros(2, 3))
