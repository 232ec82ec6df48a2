"""The VAE against the linear-Gaussian model, where every quantity has a closed form (probabilistic PCA)."""

import math
from types import SimpleNamespace

import pytest
import torch
from linear_gaussian import DIMS, LATENT, NOISE, LinearGaussian
from torch import nn
from torch.distributions import Normal, kl_divergence

from genzoo.zoo import VAE, Autoencoder, Bernoulli, DenoisingAutoencoder, LogisticMixture, PerDatum
from genzoo.zoo.hub import load, publish
from genzoo.zoo.interface import Completes, HasLatents, HasLogProb, Samples, ScoresAnomalies


@pytest.fixture(scope="module")
def linear() -> LinearGaussian:
    torch.manual_seed(0)
    return LinearGaussian()


def test_exact_posterior_makes_every_importance_weight_the_marginal(linear):
    model, x = linear.vae(), linear.data
    exact = linear.marginal.log_prob(x)
    for particles in (1, 2, 7):
        bound = model.log_prob(x, num_particles=particles)
        torch.testing.assert_close(bound, exact, atol=1e-10, rtol=0)


def test_elbo_with_exact_posterior_is_log_p_in_expectation_by_quadrature(linear):
    """E_q log p(x | z) − KL in closed form: Gaussian expectations are exact, so no Monte Carlo remains."""
    model, x = linear.vae(), linear.data
    q = model.encode(x).base_dist
    residual = x - q.loc @ linear.weight.T - linear.bias
    spread = (linear.weight.square().sum(0) * q.scale.square()).sum(1)
    expected = -0.5 * (residual.square().sum(1) + spread) / NOISE**2 - DIMS * math.log(NOISE * math.sqrt(2 * math.pi))
    elbo = expected - kl_divergence(q, Normal(0.0, 1.0)).sum(1)
    torch.testing.assert_close(elbo, linear.marginal.log_prob(x), atol=1e-10, rtol=0)
    # and the model's own estimate agrees with these closed forms
    likelihood, kl = model.elbo(x.repeat(4000, 1))
    draws = likelihood.view(4000, len(x))
    assert bool(((draws.mean(0) - expected).abs() < 5 * draws.std(0) / math.sqrt(4000)).all())
    torch.testing.assert_close(kl[: len(x)].sum(1), kl_divergence(q, Normal(0.0, 1.0)).sum(1))


def test_bound_rises_with_particles_to_log_p_and_never_above(linear):
    model, x = linear.vae(error=0.8), linear.data[:16]
    exact = linear.marginal.log_prob(x).mean()
    torch.manual_seed(0)
    means, errors = [], []
    for particles, repeats in ((1, 2000), (5, 800), (50, 200), (500, 60), (5000, 20)):
        values = model.log_prob(x.repeat(repeats, 1), num_particles=particles).view(repeats, len(x)).mean(1)
        means.append(float(values.mean()))
        errors.append(float(values.std() / math.sqrt(repeats)))
    for k in range(4):
        assert means[k] < means[k + 1] + 3 * math.hypot(errors[k], errors[k + 1])
    assert all(mean < float(exact) + 3 * error for mean, error in zip(means, errors, strict=True))
    assert means[0] < float(exact) - 0.5
    assert means[-1] == pytest.approx(float(exact), abs=0.02)


def test_gap_of_a_wrong_posterior_is_its_divergence(linear):
    """ELBO = log p(x) − KL(q ‖ posterior)."""
    model, x = linear.vae(error=0.3), linear.data
    q, exact = model.encode(x).base_dist, linear.vae().encode(x).base_dist
    gap = kl_divergence(q, exact).sum(1)
    torch.manual_seed(1)
    likelihood, kl = model.elbo(x.repeat(4000, 1))
    elbo = (likelihood - kl.sum(1)).view(4000, len(x))
    error = elbo.std(0) / math.sqrt(len(elbo))
    assert bool(((linear.marginal.log_prob(x) - gap - elbo.mean(0)).abs() < 5 * error).all())


def test_chunks_of_particles_do_not_change_the_bound(linear, monkeypatch):
    model, x = linear.vae(error=0.5), linear.data[:8]
    whole = model.log_prob(x, num_particles=60, generator=PerDatum(x))
    monkeypatch.setattr("genzoo.zoo.latent.vae.PARTICLE_BUDGET", 7 * DIMS + 1)
    torch.testing.assert_close(model.log_prob(x, num_particles=60, generator=PerDatum(x)), whole, rtol=0, atol=0.5)
    torch.manual_seed(0)
    many = torch.stack([model.log_prob(x, num_particles=60) for _ in range(300)])
    monkeypatch.undo()
    again = torch.stack([model.log_prob(x, num_particles=60) for _ in range(300)])
    error = (many.std(0) ** 2 / 300 + again.std(0) ** 2 / 300).sqrt()
    assert bool(((many.mean(0) - again.mean(0)).abs() < 5 * error).all())


def test_the_bound_of_a_datum_does_not_depend_on_its_batch(monkeypatch):
    monkeypatch.setattr("genzoo.zoo.latent.vae.PARTICLE_BUDGET", 5 * 64)
    model = VAE((1, 8, 8), 2, network="mlp", width=8, latent_dim=3).eval()
    x = torch.rand(6, 1, 8, 8).round()
    together, alone = model.log_prob(x, num_particles=12, generator=PerDatum(x)), x[:1]
    torch.testing.assert_close(model.log_prob(alone, num_particles=12, generator=PerDatum(alone)), together[:1])


def test_without_pixel_noise_samples_and_completions_are_means(linear):
    """cov W z = W Wᵀ; of completions, whose z given what is known is Gaussian, W cov(z | x_k) Wᵀ."""
    model = linear.vae()
    model.pixel_noise = False
    spread = linear.weight @ linear.weight.T
    x = model.sample(40_000, generator=torch.Generator().manual_seed(0))
    assert (x.mean(0) - linear.marginal.mean).abs().max() < 0.04
    assert (x.T.cov() - spread).abs().max() < 0.08
    known = torch.zeros(DIMS, dtype=torch.bool)
    known[:4] = True
    out = model.complete(linear.data[:1], known, num_samples=4000, generator=torch.Generator().manual_seed(0))[:, 0]
    assert torch.equal(out[:, known], linear.data[:1, known].expand(4000, -1))
    seen = linear.weight[:4]
    given = torch.linalg.inv(torch.eye(LATENT) + seen.T @ seen / NOISE**2)
    assert (out[:, 4:].T.cov() - linear.weight[4:] @ given @ linear.weight[4:].T).abs().max() < 0.08


def test_without_pixel_noise_samples_are_on_the_grid():
    model = VAE((1, 4, 4), 5, latent_dim=3, network="mlp", width=8, pixel_noise=False)
    torch.nn.init.normal_(list(model.decoder.parameters())[-1], std=3)  # so that pixels differ
    x = model.sample(6, generator=torch.Generator().manual_seed(0))
    assert torch.equal((4 * x).round(), 4 * x) and x.unique().numel() > 1


@pytest.mark.parametrize("error", [0.0, 0.4])
def test_completion_reaches_the_analytic_conditional(linear, error):
    """Metropolis-within-Gibbs leaves p(x_u | x_k) fixed even with a wrong posterior."""
    model = linear.vae(error=error)
    known = torch.zeros(DIMS, dtype=torch.bool)
    known[:4] = True
    x = linear.data[:1]
    out = model.complete(x, known, num_samples=4000, generator=torch.Generator().manual_seed(0))[:, 0]
    assert torch.equal(out[:, known], x[:, known].expand(4000, -1))
    covariance, mean = linear.marginal.covariance_matrix, linear.marginal.mean
    gain = covariance[4:, :4] @ torch.linalg.inv(covariance[:4, :4])
    conditional_mean = mean[4:] + gain @ (x[0, :4] - mean[:4])
    conditional = covariance[4:, 4:] - gain @ covariance[:4, 4:]
    assert (out[:, 4:].mean(0) - conditional_mean).abs().max() < 0.06
    assert (out[:, 4:].T.cov() - conditional).abs().max() < 0.08


def test_samples_have_the_models_moments(linear):
    x = linear.vae().sample(40_000, generator=torch.Generator().manual_seed(0))
    assert (x.mean(0) - linear.marginal.mean).abs().max() < 0.04
    assert (x.T.cov() - linear.marginal.covariance_matrix).abs().max() < 0.08


def test_codes_are_had_of_images_off_the_grid_and_only_codes_are_decoded():
    model = VAE((1, 4, 4), 5, latent_dim=3, network="mlp", width=8)
    off_grid = torch.rand(2, 1, 4, 4)
    assert model.reconstruct(off_grid).shape == (2, 1, 4, 4)
    assert model.encode(off_grid).mean.requires_grad
    with pytest.raises(TypeError, match="float64"):
        model.encode(off_grid.double())
    for z in (torch.zeros(2, 4), torch.zeros(3), torch.zeros(2, 2, 3)):
        with pytest.raises(ValueError, match=r"Codes have the shape \(B, 3\)"):
            model.decode(z)


@pytest.mark.parametrize(("shape", "levels", "kind"), [((1, 40), 256, "waveform"), ((12,), 11, "tokens")])
@pytest.mark.parametrize("family", [VAE, Autoencoder, DenoisingAutoencoder])
def test_sounds_and_texts_are_not_what_it_is_for(family, shape, levels, kind):
    with pytest.raises(ValueError, match=f"{family.__name__} is for images and points, but the data are {kind}"):
        family(shape, levels)


def test_kl_is_zero_exactly_where_the_posterior_is_the_prior():
    encoder = nn.Linear(4, 4)
    nn.init.zeros_(encoder.weight), nn.init.zeros_(encoder.bias)
    model = VAE((4,), None, latent_dim=2, encoder=encoder)
    _, kl = model.elbo(torch.randn(5, 4))
    assert torch.equal(kl, torch.zeros(5, 2))


def test_discrete_model_sums_to_one_over_all_images():
    """Σ_x p(x) over all binary 2×2 images, p(x) = ∫ p(x | z) p(z) dz on a grid of z; the bound stays below."""
    torch.manual_seed(0)
    model = VAE((1, 2, 2), 2, latent_dim=1, network="mlp", width=16, depth=1).double()
    images = torch.tensor([[i >> b & 1 for b in range(4)] for i in range(16)]).double().view(16, 1, 2, 2)
    z = torch.linspace(-8, 8, 4001).double()[:, None]
    prior = Normal(0.0, 1.0).log_prob(z[:, 0]) + math.log(16 / 4000)
    log_p = torch.stack([(model.decode(z).log_prob(x.expand(4001, 1, 2, 2)) + prior).logsumexp(0) for x in images])
    assert float(log_p.detach().exp().sum()) == pytest.approx(1, abs=1e-6)
    bound = model.log_prob(images, num_particles=20_000, generator=PerDatum(images))
    torch.testing.assert_close(bound, log_p, atol=0.02, rtol=0)


def by_quadrature(model, images, labels=None):
    """log p(x) or log p(x | y) of each image, ∫ p(x | z, y) p(z) dz on a grid of a single z: (N,) float64."""
    z = torch.linspace(-8, 8, 2001).double()[:, None]
    prior = Normal(0.0, 1.0).log_prob(z[:, 0]) + math.log(16 / 2000)
    labels = None if labels is None else torch.full((len(z),), labels)
    output = model.decode(model.code(z, labels))
    with torch.no_grad():
        return torch.stack([(output.log_prob(x.expand(len(z), *x.shape)) + prior).logsumexp(0) for x in images])


def test_a_decoder_that_couples_channels_sums_to_one_over_all_colours():
    torch.manual_seed(0)
    options = {"latent_dim": 1, "network": "mlp", "width": 16, "depth": 1, "likelihood": LogisticMixture(2)}
    model = VAE((3, 1, 1), 4, **options).double()
    colours = torch.cartesian_prod(*[torch.arange(4).double() / 3] * 3)[..., None, None]
    log_p = by_quadrature(model, colours)
    assert float(log_p.exp().sum()) == pytest.approx(1, abs=1e-6)
    bound = model.log_prob(colours, num_particles=20_000, generator=PerDatum(colours))
    torch.testing.assert_close(bound, log_p, atol=0.03, rtol=0)
    big = VAE((3, 8, 8), 256, likelihood=LogisticMixture(3))
    assert big.sample(2).shape == big.reconstruct(torch.zeros(2, 3, 8, 8)).shape == (2, 3, 8, 8)


@pytest.fixture(scope="module")
def conditional():
    """Three classes of binary 2×2 images, one latent; large weights, and classes of different shares."""
    torch.manual_seed(1)
    options = {"latent_dim": 1, "network": "mlp", "width": 16, "depth": 1, "num_classes": 3, "conditional": True}
    model = VAE((1, 2, 2), 2, **options).double().eval()
    with torch.no_grad():
        model.decoder.outlet.weight.mul_(5)
        model.decoder.inlet.weight.mul_(3)
        model.class_.weight.normal_(std=0.5)
    model.count_classes(torch.tensor([0, 0, 1, 2, 2, 2]))
    images = torch.tensor([[i >> b & 1 for b in range(4)] for i in range(16)]).double().view(16, 1, 2, 2)
    given = torch.stack([by_quadrature(model, images, y) for y in range(3)])
    return model, images, given


def agrees(draws, images, probability, num_sigmas=4.5):
    """Whether draws have these probabilities of the images."""
    counts = (draws.flatten(1)[:, None] == images.flatten(1)).all(2).sum(0).double()
    expected = len(draws) * probability
    return bool(((counts - expected).abs() <= num_sigmas * (expected * (1 - probability)).sqrt() + 1).all())


def test_a_conditional_bound_is_of_its_class_and_the_marginal_is_the_mixture(conditional):
    model, images, given = conditional
    torch.testing.assert_close(given.exp().sum(1), torch.ones(3).double(), atol=1e-6, rtol=0)
    assert float((given[0] - given[1]).abs().max()) > 0.3  # the class matters
    many = {"num_particles": 20_000, "generator": PerDatum(images)}
    for y in range(3):
        labels = torch.full((16,), y)
        torch.testing.assert_close(model.log_prob(images, labels=labels, **many), given[y], atol=0.05, rtol=0)
    marginal = (given + model.class_log_prior[:, None]).logsumexp(0)
    torch.testing.assert_close(model.log_prob(images, **many), marginal, atol=0.05, rtol=0)
    one = torch.stack([model.log_prob(images) for _ in range(100)])
    assert bool((one.mean(0) < marginal + 3 * one.std(0) / 10).all())  # a bound, also of few particles
    with pytest.raises(ValueError, match=r"labels lie in \[0, 3\)"):
        model.log_prob(images, labels=torch.full((16,), 3))


def test_conditional_samples_are_of_their_class_and_others_of_the_mixture(conditional):
    model, images, given = conditional
    for y in range(3):
        draws = model.sample(4000, labels=torch.full((4000,), y), generator=torch.Generator().manual_seed(y))
        assert agrees(draws, images, given[y].exp())
    marginal = (given + model.class_log_prior[:, None]).logsumexp(0).exp()
    assert agrees(model.sample(4000, generator=torch.Generator().manual_seed(5)), images, marginal)


@pytest.mark.parametrize("known", [[True, False, False, False], [False, True, True, True], [False] * 4])
def test_completions_of_a_conditional_model_infer_the_class(conditional, known):
    model, images, given = conditional
    mask = torch.tensor(known).view(1, 2, 2)
    fits = (images[:, mask] == images[5][mask]).all(1)
    marginal = (given + model.class_log_prior[:, None]).logsumexp(0).exp() * fits
    generator = torch.Generator().manual_seed(0)
    draws = model.complete(images[5:6], mask, num_samples=6000, generator=generator)[:, 0]
    assert agrees(draws, images, marginal / marginal.sum())


def test_a_code_of_a_conditional_model_is_the_latents_and_the_class(conditional):
    model, images, _ = conditional
    labels = torch.arange(16) % 3
    q = model.encode(images, labels=labels)
    assert torch.equal(q.mean[:, 1:], torch.eye(3)[labels].double())
    assert torch.equal(q.base_dist.scale[:, 1:], torch.zeros(16, 3).double())
    torch.testing.assert_close(q.mean[:, :1], model.posterior(images, labels).mean)
    said = [model.posterior(images, torch.full((16,), y)).mean for y in range(3)]
    assert float((said[0] - said[1]).detach().abs().min()) > 1e-3  # the encoder is told the class
    guessed = model.encode(images).mean[:, 1:].argmax(1)
    joint = torch.stack(
        [
            model.log_weights(images, model.posterior(images, y), model.posterior(images, y).mean[None], y)[0]
            + model.class_log_prior[int(y[0])]
            for y in (torch.full((16,), k) for k in range(3))
        ]
    )
    assert torch.equal(guessed, joint.argmax(0)) and len(guessed.unique()) > 1
    torch.testing.assert_close(model.reconstruct(images), model.decode(model.encode(images).mean).mean)
    with pytest.raises(ValueError, match=r"Codes have the shape \(B, 4\)"):
        model.decode(torch.zeros(2, 1).double())


def test_a_conditional_model_trains_on_its_labels_and_is_published_with_its_classes(tmp_path):
    torch.manual_seed(0)
    labels = torch.arange(64) % 4
    x = torch.zeros(64, 3, 8, 8)
    x[torch.arange(64), :, :, 0] = torch.eye(4)[labels][:, :3, None]  # a colour at the left edge tells the class
    options = {"likelihood": LogisticMixture(2), "num_classes": 4, "conditional": True, "class_prior": "uniform"}
    model = VAE((3, 8, 8), 256, latent_dim=2, width=8, **options)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        model.objective(x, labels)["loss"].mean().backward()
        optimizer.step()
    assert torch.equal(model.classes(x, None), labels)
    nats = torch.stack([model.log_prob(x, labels=torch.full_like(labels, y)) for y in range(4)])
    assert torch.equal(nats.argmax(0), labels)
    quantities = model.evaluation(x, labels, PerDatum(x))
    assert set(quantities) == {"nll", "elbo", "reconstruction", "kl"}
    with pytest.raises(ValueError, match="is conditional"):
        model.objective(x, None)
    model.count_classes(labels)
    publish(model, "tiny/vae", to=tmp_path / "entry")
    again = load(tmp_path / "entry")
    assert again.num_classes == 4 and again.likelihood == LogisticMixture(2)
    torch.testing.assert_close(again.reconstruct(x), model.eval().reconstruct(x), atol=0.01, rtol=0)


def test_training_loss_is_the_negative_elbo_when_beta_is_one():
    x = torch.randint(2, (6, 1, 4, 4)).float()
    quantities = VAE((1, 4, 4), 2).objective(x, None)
    torch.testing.assert_close(quantities["loss"], -quantities["elbo"])
    torch.testing.assert_close(quantities["elbo"], quantities["reconstruction"] - quantities["kl"])


@pytest.mark.parametrize(("step", "beta"), [(0, 0.0), (25, 1.0), (1000, 4.0), (None, 4.0)])
def test_beta_weighs_the_divergence_in_the_loss(linear, step, beta):
    """Without a Trainer nobody counts steps: in a loop of one's own the weight is whole from the beginning."""
    model = VAE((DIMS,), None, latent_dim=LATENT, beta=4.0, kl_warmup=100).double()
    if step is not None:
        model._trainer = SimpleNamespace(global_step=step)
    quantities = model.objective(linear.data, None)
    torch.testing.assert_close(quantities["loss"], beta * quantities["kl"] - quantities["reconstruction"])


def test_beta_warmup_and_free_bits_shape_the_loss_but_never_the_evaluation():
    x = torch.randint(2, (6, 1, 4, 4)).float()
    model = VAE((1, 4, 4), 2, latent_dim=5, beta=4.0, kl_warmup=100, free_bits=0.7)
    assert model.beta_at(0) == 0
    assert model.beta_at(25) == pytest.approx(1.0)
    assert model.beta_at(1000) == 4.0
    plain = VAE((1, 4, 4), 2, latent_dim=5)
    plain.load_state_dict(model.state_dict())
    ours, theirs = model.evaluation(x, None, PerDatum(x)), plain.evaluation(x, None, PerDatum(x))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)

    bits = VAE((1, 4, 4), 2, latent_dim=5, free_bits=0.7)
    bits.load_state_dict(model.state_dict())
    quantities = bits.objective(x, None)
    _, kl = bits.elbo(x)
    penalty = kl.mean(0).clamp_min(0.7).sum()
    torch.testing.assert_close(quantities["loss"] + quantities["reconstruction"], penalty.expand(6))


def test_it_has_the_capabilities_it_says():
    model = VAE((1, 4, 4), 2)
    assert all(isinstance(model, c) for c in (Samples, HasLogProb, ScoresAnomalies, Completes, HasLatents))
    assert model.log_prob_kind == "lower_bound"


def test_interpolation_ends_at_the_reconstructions_and_traversal_moves_one_code():
    model = VAE((1, 8, 8), 17, latent_dim=4).eval()
    a, b = torch.randint(17, (2, 3, 1, 8, 8)) / 16
    path = model.interpolate(a, b, 5)
    assert path.shape == (5, 3, 1, 8, 8)
    torch.testing.assert_close(path[0], model.reconstruct(a))
    torch.testing.assert_close(path[-1], model.reconstruct(b))
    z = model.encode(a).mean
    moved = z.clone()
    moved[:, 2] = 1.5
    torch.testing.assert_close(model.traverse(a, 2, [0.0, 1.5])[1], model.decode(moved).mean)
    with pytest.raises(ValueError, match="4 dimensions"):
        model.traverse(a, 4, [0.0])
    with pytest.raises(ValueError, match="steps=1"):
        model.interpolate(a, b, 1)


def test_anomaly_scores_are_the_two_closed_forms(linear):
    """−log p(x | E z) of a Gaussian; and with the exact posterior, whose weights are all p(x), −log p(x)."""
    model, x = linear.vae(), linear.data
    around = Normal(model.encode(x).mean @ linear.weight.T + linear.bias, NOISE)
    torch.testing.assert_close(model.anomaly_score(x), -around.log_prob(x).sum(1))
    model.num_particles = 3
    torch.testing.assert_close(model.anomaly_score(x, scorer="nll"), -linear.marginal.log_prob(x))


def test_anomaly_scores_rank_noise_above_what_was_learned():
    torch.manual_seed(0)
    x = torch.zeros(64, 1, 8, 8)
    x[:, :, 2:6, 2:6] = 1
    model = VAE((1, 8, 8), 2, latent_dim=2, network="mlp", width=32, depth=1)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        model.objective(x, None)["loss"].mean().backward()
        optimizer.step()
    odd = torch.randint(2, (64, 1, 8, 8)).float()
    for scorer in (None, "nll"):
        assert model.anomaly_score(odd, scorer=scorer).min() > model.anomaly_score(x, scorer=scorer).max()
        assert torch.equal(model.anomaly_score(odd, scorer=scorer), model.anomaly_score(odd, scorer=scorer))
    with pytest.raises(ValueError, match="knows"):
        model.anomaly_score(x, scorer="magic")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"latent_dim": 0}, "latent_dim=0"),
        ({"beta": -1.0}, "beta=-1"),
        ({"network": "transformer"}, "network='transformer'"),
        ({"likelihood": Bernoulli(), "levels": 256}, "levels=256"),
        ({"network": "resnet", "shape": (4,)}, "images"),
        ({"shape": (1, 0, 4)}, "positive integers"),
        ({"levels": 1}, "levels=1"),
    ],
)
def test_impossible_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        VAE(**{"shape": (1, 4, 4), "levels": 2, **arguments})


def test_networks_of_the_wrong_size_are_refused():
    x = torch.zeros(2, 1, 4, 4)
    with pytest.raises(ValueError, match="encoder must map"):
        VAE((1, 4, 4), 2, latent_dim=3, encoder=nn.Sequential(nn.Flatten(), nn.Linear(16, 3))).encode(x)
    with pytest.raises(ValueError, match="decoder must map"):
        VAE((1, 4, 4), 2, latent_dim=3, decoder=nn.Linear(3, 15)).sample(2)


def test_labels_are_refused_and_particles_counted():
    model = VAE((1, 4, 4), 2)
    with pytest.raises(ValueError, match="unconditional"):
        model.sample(2, labels=torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="num_particles=0"):
        model.log_prob(torch.zeros(2, 1, 4, 4), num_particles=0)


@pytest.mark.parametrize("which", ["first", "second", "neither"])
def test_the_class_of_a_completion_is_drawn_given_what_is_said_of_it(which: str) -> None:
    """Of coupled channels by the whole state, where a known one comes after an unknown; else by what is known."""
    torch.manual_seed(0)
    options = {"latent_dim": 2, "network": "mlp", "width": 16, "num_classes": 2, "conditional": True}
    model = VAE((2, 1, 1), 5, likelihood=LogisticMixture(2), class_prior="uniform", **options).eval()
    for parameter in model.parameters():
        parameter.data *= 3
    z, x, state = torch.randn(1, 2), torch.tensor([0.5, 0.25]).view(1, 2, 1, 1), torch.tensor([1.0, 0.25])
    state = state.view(1, 2, 1, 1)
    known = torch.tensor([which == "first", which == "second"]).view(1, 2, 1, 1)
    log_joint = []
    for y in range(2):
        output = model.decoded(model.code(z, torch.tensor([y])))
        first = output.log_prob_per_dim(x).flatten()[0] if which == "first" else torch.zeros(())
        log_joint.append(output.log_prob(state).squeeze() if which == "second" else first)
    share = float(torch.stack(log_joint).softmax(0)[1])
    many = [tensor.expand(20_000, *tensor.shape[1:]) for tensor in (z, x, known, state)]
    drawn = model._classes_given(*many, torch.Generator().manual_seed(0))
    assert float(drawn.float().mean()) == pytest.approx(share, abs=0.015)
    assert (share == 0.5) == (which == "neither")
