"""Gradient estimators against closed forms, and the importance-weighted objective against its definition."""

import math
from types import SimpleNamespace

import pytest
import torch
from linear_gaussian import DIMS, LATENT, NOISE, LinearGaussian
from torch.distributions import Normal, kl_divergence

from genzoo.zoo import VAE, PerDatum
from genzoo.zoo.latent.estimators import (
    gradient_moments,
    importance_weighted_bound,
    leave_one_out,
    leave_one_out_bound,
    score_term,
)


@pytest.fixture(scope="module")
def linear() -> LinearGaussian:
    torch.manual_seed(0)
    return LinearGaussian()


def cube_gradients(estimator, mean=0.7, scale=0.5, batches=200, draws=1000):
    """(batches, 2): estimates of d/dμ and d/d log σ of E z³ with z ~ N(μ, σ²), each from a thousand draws."""
    gradients = []
    for _ in range(batches):
        parameters = torch.tensor([mean, math.log(scale)], dtype=torch.float64, requires_grad=True)
        q = Normal(parameters[0], parameters[1].exp())
        if estimator == "pathwise":
            value = q.rsample((draws,)).pow(3).mean()
        else:
            z = q.sample((draws,))
            value = score_term(leave_one_out(z.pow(3)), q.log_prob(z)).mean()
        gradients.append(torch.autograd.grad(value, parameters)[0])
    return torch.stack(gradients)


def test_both_estimators_give_the_gradient_of_a_cube_and_the_path_scatters_less():
    """E z³ = μ³ + 3 μ σ², so dE/dμ = 3 (μ² + σ²) and dE/d log σ = 6 μ σ²."""
    torch.manual_seed(0)
    exact = torch.tensor([3 * (0.7**2 + 0.5**2), 6 * 0.7 * 0.5**2], dtype=torch.float64)
    path, score = cube_gradients("pathwise"), cube_gradients("score_function")
    for gradients in (path, score):
        error = gradients.std(0) / math.sqrt(len(gradients))
        assert bool(((gradients.mean(0) - exact).abs() < 4 * error).all())
        assert bool((error < 0.02 * exact).all())  # so that agreement says something
    assert bool((path.var(0) < 0.5 * score.var(0)).all())


def exact_encoder_gradient(linear, model, x):
    """The gradient of −ELBO, whose expectation is in closed form where everything is linear and Gaussian."""
    q = model.encode(x).base_dist
    residual = x - q.loc @ linear.weight.T - linear.bias
    spread = (linear.weight.square().sum(0) * q.scale.square()).sum(1)
    expected = -0.5 * (residual.square().sum(1) + spread) / NOISE**2 - DIMS * math.log(NOISE * math.sqrt(2 * math.pi))
    loss = (kl_divergence(q, Normal(0.0, 1.0)).sum(1) - expected).mean()
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.encoder.parameters()))])


def test_both_estimators_give_the_gradient_of_a_linear_gaussian_elbo(linear):
    model, x = linear.vae(error=0.3), linear.data[:16]
    exact = exact_encoder_gradient(linear, model, x)
    spreads = {}
    for estimator in ("pathwise", "score_function"):
        mean, variance = gradient_moments(model, x, estimator=estimator, num_draws=700)
        assert mean.shape == variance.shape == exact.shape
        error = (variance / 700).sqrt()
        assert float(((mean - exact) / error).square().mean()) == pytest.approx(
            1, abs=0.6
        )  # χ²: neither off nor idle
        spreads[estimator] = float(variance.sum())
    assert spreads["pathwise"] < 0.5 * spreads["score_function"]
    assert model.estimator == "pathwise"


def test_the_baseline_is_what_makes_the_score_function_bearable(linear, monkeypatch):
    model, x = linear.vae(error=0.3), linear.data[:16]
    _, with_baseline = gradient_moments(model, x, estimator="score_function", num_draws=300)
    monkeypatch.setattr("genzoo.zoo.latent.vae.leave_one_out", lambda values: values)
    _, without = gradient_moments(model, x, estimator="score_function", num_draws=300)
    assert float(with_baseline.sum()) < float(without.sum())


def test_both_estimators_agree_on_the_importance_weighted_bound(linear):
    model, x = linear.vae(error=0.5), linear.data[:8]
    model.num_particles = 4
    (path, path_variance), (score, score_variance) = (
        gradient_moments(model, x, estimator=estimator, num_draws=600) for estimator in ("pathwise", "score_function")
    )
    error = ((path_variance + score_variance) / 600).sqrt()
    assert float(((path - score) / error).abs().max()) < 4
    assert float((path / error).abs().max()) > 8


def test_the_decoder_has_the_same_gradient_either_way(linear):
    x, gradients = linear.data[:8], []
    for estimator in ("pathwise", "score_function"):
        model = linear.vae(error=0.5)
        model.estimator = estimator
        torch.manual_seed(0)
        model.objective(x, None)["loss"].mean().backward()
        gradients.append(model.decoder.weight.grad)
    torch.testing.assert_close(*gradients)


def test_the_moments_of_a_conditional_model():
    model = VAE((1, 4, 4), 2, latent_dim=2, network="mlp", width=4, depth=1, num_classes=2, conditional=True)
    x, y = (torch.rand(6, 1, 4, 4) > 0.5).float(), torch.tensor([0, 1, 0, 1, 0, 1])
    of_these, of_others = (
        gradient_moments(model, x, labels=labels, estimator="pathwise", num_draws=3)[0] for labels in (y, 1 - y)
    )
    assert of_these.isfinite().all() and not torch.equal(of_these, of_others)


def test_the_moments_are_of_a_seed_and_leave_the_random_state_alone(linear):
    model, x = linear.vae(error=0.3), linear.data[:4]
    before = torch.get_rng_state()
    first, again, other = (
        gradient_moments(model, x, estimator="pathwise", num_draws=5, seed=seed)[1] for seed in (0, 0, 1)
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, again) and not torch.equal(first, other)
    with pytest.raises(ValueError, match="num_draws=1"):
        gradient_moments(model, x, estimator="pathwise", num_draws=1)
    with pytest.raises(ValueError, match="estimator='magic'"):
        gradient_moments(model, x, estimator="magic")


def test_signals_are_what_each_draw_adds():
    values = torch.randn(5, dtype=torch.float64)
    apart = torch.stack([values[i] - torch.cat([values[:i], values[i + 1 :]]).mean() for i in range(5)])
    torch.testing.assert_close(leave_one_out(values), apart)
    assert torch.equal(leave_one_out(values[:1]), values[:1])

    log_weights = 3 * torch.randn(4, 6, dtype=torch.float64)
    signals = leave_one_out_bound(log_weights)
    for k in range(4):
        others = torch.cat([log_weights[:k], log_weights[k + 1 :]])
        replaced = torch.cat([others, others.mean(0, keepdim=True)])  # the geometric mean of the weights
        gain = log_weights.exp().mean(0).log() - replaced.exp().mean(0).log()
        torch.testing.assert_close(signals[k], gain)


@pytest.mark.parametrize("estimator", ["pathwise", "score_function"])
def test_the_loss_is_the_importance_weighted_bound_of_the_draws(linear, estimator):
    """−log (1/K) Σ w from the same noise, with densities of torch.distributions; the estimator never shows in it."""
    model, x = linear.vae(error=0.5), linear.data[:8]
    model.num_particles, model.estimator = 6, estimator
    torch.manual_seed(3)
    quantities = model.objective(x, None)
    torch.manual_seed(3)
    q = model.encode(x).base_dist
    z = q.loc + q.scale * torch.randn(6, 8, LATENT, dtype=torch.float64)
    likelihood = Normal(z @ linear.weight.T + linear.bias, NOISE).log_prob(x).sum(2)
    log_weights = likelihood + Normal(0.0, 1.0).log_prob(z).sum(2) - q.log_prob(z).sum(2)
    torch.testing.assert_close(quantities["loss"], -log_weights.exp().mean(0).log())
    torch.testing.assert_close(quantities["reconstruction"], likelihood.mean(0))
    torch.testing.assert_close(quantities["elbo"], likelihood.mean(0) - kl_divergence(q, Normal(0.0, 1.0)).sum(1))


def test_training_on_more_particles_validates_by_the_same_bound(linear):
    x = linear.data[:8]
    one, many = linear.vae(error=0.8), linear.vae(error=0.8)
    many.num_particles = 50
    exact = linear.marginal.log_prob(x)
    of_one, of_many = (model.evaluation(x, None, PerDatum(x)) for model in (one, many))
    torch.testing.assert_close(of_one["nll"], -of_one["elbo"])
    torch.testing.assert_close(of_many["elbo"], of_one["elbo"])
    assert bool(of_many["nll"].mean() < of_one["nll"].mean())
    torch.manual_seed(0)
    bounds = torch.stack([-many.evaluation(x, None, None)["nll"] for _ in range(200)])
    assert bool((bounds.mean(0) < exact + 4 * bounds.std(0) / math.sqrt(200)).all())
    again = torch.stack([many.log_prob(x, num_particles=50) for _ in range(200)])
    error = (bounds.var(0) / 200 + again.var(0) / 200).sqrt()
    assert bool(((bounds.mean(0) - again.mean(0)).abs() < 5 * error).all())


def test_beta_weighs_the_prior_and_the_posterior_in_the_importance_weights(linear):
    """At β = 0 the bound is of p(x | z) alone; training with K > 1 may warm up like the ELBO."""
    x = linear.data[:8]
    model = VAE((DIMS,), None, latent_dim=LATENT, num_particles=3, kl_warmup=10).double()
    model._trainer = SimpleNamespace(global_step=0)
    torch.manual_seed(0)
    loss = model.objective(x, None)["loss"]  # step 0
    torch.manual_seed(0)
    z = model.draw(model.encode(x), 3)
    torch.testing.assert_close(loss, -importance_weighted_bound(model.log_likelihood(x, z)))


def test_the_importance_weights_of_a_beta(linear):
    """−log (1/K) Σ p(x | z) (p(z) / q(z | x))^½, with densities of torch.distributions."""
    model, x = linear.vae(error=0.5), linear.data[:8]
    model.num_particles, model.beta, model.kl_warmup = 3, 2.0, 8
    model._trainer = SimpleNamespace(global_step=2)
    torch.manual_seed(3)
    loss = model.objective(x, None)["loss"]
    torch.manual_seed(3)
    q = model.encode(x).base_dist
    z = q.loc + q.scale * torch.randn(3, 8, LATENT, dtype=torch.float64)
    likelihood = Normal(z @ linear.weight.T + linear.bias, NOISE).log_prob(x).sum(2)
    ratio = (Normal(0.0, 1.0).log_prob(z) - q.log_prob(z)).sum(2)
    torch.testing.assert_close(loss, -(likelihood + 0.5 * ratio).exp().mean(0).log())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_particles": 0}, "num_particles=0"),
        ({"estimator": "magic"}, "estimator='magic'"),
        ({"num_particles": 5, "free_bits": 0.5}, "Choose one of the two"),
    ],
)
def test_impossible_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        VAE((1, 4, 4), 2, **arguments)


@pytest.mark.parametrize("num_particles", [1, 3])
def test_both_estimators_have_the_gradient_of_what_is_added_to_the_loss(linear, num_particles):
    model, x = linear.vae(error=0.5), linear.data[:8]
    model.num_particles, moments = num_particles, {}
    for estimator in ("pathwise", "score_function"):
        without, _ = gradient_moments(model, x, estimator=estimator, num_draws=100)
        model.added_loss = lambda x, shown: 20 * (shown - x).square().sum(1)
        moments[estimator] = gradient_moments(model, x, estimator=estimator, num_draws=600)
        model.added_loss = None
    (path, path_variance), (score, score_variance) = moments.values()
    error = ((path_variance + score_variance) / 600).sqrt()
    assert float(((path - score) / error).abs().max()) < 4
    assert float(((path - without) / error).abs().max()) > 8
