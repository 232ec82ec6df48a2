"""The three models as modules: one network, three readings; labels, guidance, completions, inversions."""

import math
import weakref

import pytest
import torch
from analytic import CorrelatedGaussian
from torch import nn

from genzoo.zoo import (
    DDPM,
    Ancestral,
    CosineBetas,
    DPMSolver,
    Euler,
    FlowMatching,
    Heun,
    LikelihoodWeighting,
    LinearBetas,
    MinSNR,
    OptimalTransport,
    PerDatum,
    ScoreModel,
    VarianceExploding,
    VariancePreserving,
)
from genzoo.zoo.diffusion.parameterisation import PREDICTIONS, predicted
from genzoo.zoo.networks import TimedMLP

FAMILIES = [DDPM, ScoreModel, FlowMatching]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


class Best(nn.Module):
    """The network that says what the best denoiser of N(0, C) would, whatever it is asked for."""

    def __init__(self, covariance, schedule, prediction):
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros((), dtype=covariance.dtype))
        self.covariance, self.schedule, self.prediction = covariance, schedule, prediction
        self.calls = 0

    def forward(self, scaled, c_noise, labels=None):
        self.calls += 1
        at = self.schedule.at(-8 * c_noise.double())
        noise = at.like(scaled)
        x = scaled * (noise.alpha.square() + noise.sigma.square()).sqrt()
        x0 = CorrelatedGaussian(self.schedule, self.covariance).denoise(x, at)
        return predicted(self.prediction, noise, x0, (x - noise.alpha * x0) / noise.sigma) + 0 * self.anchor


def best(family, covariance, schedule=None, prediction=None, **arguments):
    """The model of N(0, C)."""
    schedule, prediction = schedule or family.defaults[0], prediction or family.defaults[1]
    network = Best(covariance, schedule, prediction)
    return family(
        (len(covariance),), None, schedule=schedule, prediction=prediction, network=network, **arguments
    ).eval()


WHITE = torch.eye(2, dtype=torch.float64)
CORRELATED = torch.tensor([[1.0, 0.8], [0.8, 1.0]], dtype=torch.float64)


# ---- the loss


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_losses_of_the_best_denoiser(prediction):
    """For N(0, 1), in each dimension: ε ᾱ, x₀ 1 − ᾱ, v 1, score ᾱ/(1 − ᾱ), velocity 1/(t² + (1 − t)²)."""
    schedule = OptimalTransport() if prediction == "velocity" else VariancePreserving()
    model = best(DDPM, WHITE, schedule, prediction)
    x, u = torch.randn(8000, 2, generator=seeded()).double(), torch.full((8000,), 0.4).double()
    noise = schedule(schedule.training_times(u[:1]))
    kept = float(noise.alpha**2)
    expected = {
        "epsilon": kept,
        "x0": 1 - kept,
        "v": 1.0,
        "score": kept / (1 - kept),
        "velocity": 1 / float(noise.alpha**2 + noise.sigma**2),
    }[prediction]
    quantities = model.errors(x, None, u, seeded(1))
    assert float(quantities["mse"].detach().mean()) == pytest.approx(expected, rel=0.05)
    torch.testing.assert_close(quantities["loss"], 2 * quantities["mse"])


def _white(schedule, prediction, scaled, c_noise):
    """What is best to say for N(0, I), all at once."""
    noise = schedule(schedule.time(-8 * c_noise.double())).like(scaled)
    variance = noise.alpha.square() + noise.sigma.square()
    x = scaled * variance.sqrt()
    return predicted(prediction, noise, noise.alpha / variance * x, noise.sigma / variance * x)


class Zero(nn.Module):
    """Says nothing."""

    def __init__(self):
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros(()))

    def forward(self, x, c_noise, labels=None):
        return 0 * x + 0 * self.anchor


def test_an_empty_v_network_has_loss_one_at_every_noise_level():
    """Karras et al. 2022, table 1: their preconditioning makes the first loss 1 wherever it is measured."""
    model = ScoreModel((4,), None, network=Zero())
    x = torch.randn(20_000, 4, generator=seeded())
    for u in (0.01, 0.5, 0.99):
        mse = model.errors(x, None, torch.full((20_000,), u), seeded(1))["mse"]
        assert float(mse.detach().mean()) == pytest.approx(1, abs=0.02)


def test_straight_velocities_of_data_around_zero_are_half_pi():
    """∫ s²/(t² s² + (1 − t)²) dt = s π/2 for N(0, s²), time running from noise to data."""
    t = (torch.arange(4000).double() + 0.5) / 4000
    for s in (1.0, 0.5):
        assert float((s**2 / (t**2 * s**2 + (1 - t) ** 2)).mean()) == pytest.approx(s * math.pi / 2, abs=1e-4)
    model = FlowMatching((1,), None, network=Zero())
    model.network.forward = lambda x, c, labels=None: _white(OptimalTransport(), "velocity", x, c)
    x = torch.randn(40_000, 1, generator=seeded())
    mse = model.errors(x, None, torch.arange(40_000) / 40_000, seeded(1))["mse"].detach()
    assert float(mse.mean()) == pytest.approx(math.pi / 2, abs=0.04)


def test_times_of_a_batch_are_spread_evenly(monkeypatch):
    model, seen = FlowMatching((2,), None), []
    monkeypatch.setattr(model, "errors", lambda x, labels, u, generator: seen.append(u))
    for _ in range(3):
        model.objective(torch.randn(10, 2), None)
    for u in seen:
        gaps = u.sort().values.diff()
        torch.testing.assert_close(gaps, torch.full((9,), 0.1), rtol=0, atol=1e-6)
    assert not torch.equal(seen[0], seen[1])


def test_likelihood_weighting_is_in_nats_whatever_is_predicted():
    """The same network, read as ε and as v, has the same loss."""
    x, u = torch.randn(500, 2, generator=seeded()).double(), torch.rand(500, generator=seeded(2)) * 0.8 + 0.1
    losses = []
    for prediction in ("epsilon", "v", "x0"):
        model = DDPM(
            (2,),
            None,
            network=Zero(),
            prediction=prediction,
            weighting=LikelihoodWeighting(),
            schedule=VariancePreserving(),
        )
        model.network.forward = lambda x, c, labels=None, p=prediction: _white(VariancePreserving(), p, x, c)
        losses.append(model.double().errors(x, None, u, seeded(1))["loss"])
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(losses[2], losses[0], rtol=1e-6, atol=1e-9)


# ---- one network, three readings


@pytest.mark.parametrize("prediction", ["epsilon", "v", "x0"])
def test_the_same_weights_read_as_three_models_give_the_same_samples(prediction):
    """By the deterministic solver, from the same noise, at the same signal-to-noise ratios: to 1e-4."""
    torch.manual_seed(0)
    network = TimedMLP(2, width=32, blocks=2)
    readings = [
        DDPM((2,), None, schedule=VariancePreserving(), prediction=prediction, network=network),
        ScoreModel((2,), None, schedule=VarianceExploding(0.001, 200.0), prediction=prediction, network=network),
        FlowMatching((2,), None, prediction=prediction, network=network, spacing="karras"),
    ]
    z, out = torch.randn(64, 2, generator=seeded()), []
    for solver in (DPMSolver(), Euler()):
        out = []
        for model in readings:
            log_snr = torch.linspace(-9, 9, 40).double()
            times = torch.cat([model.schedule.time(log_snr), torch.zeros(1).double()])
            start = model.schedule(times[0])
            x = z * float((start.alpha**2 + start.sigma**2).sqrt())
            with torch.no_grad():
                out.append(solver.solve(model.denoiser(), model.schedule, x, times))
        assert float(out[0].std()) > 0.1
        torch.testing.assert_close(out[1], out[0], rtol=1e-5, atol=1e-4)
        torch.testing.assert_close(out[2], out[0], rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_default_samples_of_the_best_network_are_the_data(family):
    """N(0, C) again, with the family's own solver and steps."""
    model = best(family, CORRELATED)
    x = model.sample(1500, generator=seeded())
    assert model.network.calls == model.network_evaluations
    assert float((x.T.cov() - CORRELATED).abs().max()) < 0.15


# ---- sampling


def test_any_solver_and_number_of_steps_and_frames_that_end_in_the_sample():
    torch.manual_seed(0)
    model = DDPM((1, 8, 8), 17, width=16, schedule=LinearBetas()).eval()
    for solver, steps in ((Ancestral(), 7), (None, 1), (Euler(), 13), (Heun(), 3)):
        x = model.sample(3, generator=seeded(), solver=solver, steps=steps)
        model.check(x)
    frames = model.sample_path(3, num_frames=5, generator=seeded())
    assert torch.equal(frames[-1], model.sample(3, generator=seeded()))
    assert not torch.equal(frames[0], frames[1])
    assert model.sample_path(3, num_frames=1, generator=seeded()).shape == (1, 3, 1, 8, 8)
    with pytest.raises(ValueError, match="1000; give 1 to 1000"):
        model.sample(1, steps=1001)
    with pytest.raises(ValueError, match="num_frames=0"):
        model.sample_path(3, num_frames=0)


def test_a_sampler_holds_no_state_that_it_has_left(monkeypatch):
    states, held, shown = [], [], []

    class Watched(Euler):
        def path(self, *arguments):
            for y in super().path(*arguments):
                states.append(weakref.ref(y))
                held.append(sum(state() is not None for state in states))
                yield y
                del y

    model = DDPM((1, 8, 8), 17, width=16).eval()
    from_model = model.from_model
    monkeypatch.setattr(model, "from_model", lambda y: shown.append(1) or from_model(y))
    model.sample(2, solver=Watched(), steps=20)
    assert len(held) == 20 and max(held) <= 3 and len(shown) == 1


def test_guidance():
    """Scale 1 is the conditional model bit for bit; scale w is D₀ + w (D_y − D₀), in one batch."""
    torch.manual_seed(0)
    model = FlowMatching((2,), None, num_classes=3, conditional=True).eval()
    labels, x, t = torch.tensor([0, 1, 2, 2]), torch.randn(4, 2), torch.tensor(0.4).double()
    plain = model.sample(4, labels=labels, generator=seeded())
    assert torch.equal(model.sample(4, labels=labels, generator=seeded(), guidance=1.0), plain)
    assert not torch.equal(model.sample(4, labels=labels, generator=seeded(), guidance=3.0), plain)
    with torch.no_grad():
        conditional, free = model.denoiser(labels)(x, t), model.denoiser(None)(x, t)
        assert not torch.equal(conditional, free)
        guided = model.denoiser(labels, guidance=2.5)(x, t)
    torch.testing.assert_close(guided, free + 2.5 * (conditional - free), rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match=r"guidance=3\.0: this FlowMatching is unconditional"):
        FlowMatching((2,), None).sample(4, guidance=3.0)


def test_the_guidance_of_a_model_is_that_of_its_samples():
    """Unless it is told another; of a model without classes, which a recipe for any data makes, there is none."""
    labels = torch.tensor([0, 1, 2, 2])
    torch.manual_seed(0)
    plain = FlowMatching((2,), None, num_classes=3, conditional=True).eval()
    torch.manual_seed(0)
    guided = FlowMatching((2,), None, num_classes=3, conditional=True, guidance=3.0).eval()
    expected = plain.sample(4, labels=labels, generator=seeded(), guidance=3.0)
    assert torch.equal(guided.sample(4, labels=labels, generator=seeded()), expected)
    path = guided.sample_path(4, num_frames=2, labels=labels, generator=seeded())
    assert torch.equal(path[-1], expected)
    unguided = plain.sample(4, labels=labels, generator=seeded())
    assert torch.equal(guided.sample(4, labels=labels, generator=seeded(), guidance=1.0), unguided)
    assert guided.network_evaluations == 2 * plain.network_evaluations
    without = FlowMatching((2,), None, num_classes=1, conditional="auto", guidance=3.0).eval()
    assert without.guidance == 1.0 and without.sample(4, generator=seeded()).shape == (4, 2)
    with pytest.raises(ValueError, match=r"guidance.*nan"):
        FlowMatching((2,), None, num_classes=3, conditional=True, guidance=float("nan"))


def test_labels_are_hidden_at_the_rate_that_is_stated(monkeypatch):
    model, seen = FlowMatching((2,), None, num_classes=3, conditional=True, label_dropout=0.25), []
    monkeypatch.setattr(model, "errors", lambda x, labels, u, generator: seen.append(labels))
    labels = torch.randint(3, (20_000,))
    model.objective(torch.randn(20_000, 2), labels)
    hidden = seen[0] == 3
    assert float(hidden.double().mean()) == pytest.approx(0.25, abs=0.015)
    assert torch.equal(seen[0][~hidden], labels[~hidden])


def test_a_conditional_model_is_evaluated_given_the_class_and_says_so():
    model = DDPM((2,), None, num_classes=3, conditional=True).eval()
    x, y = torch.randn(4, 2, generator=seeded()), torch.tensor([0, 1, 2, 2])
    assert set(model.evaluation(x, y, PerDatum(x))) == {"loss", "mse", "conditional_nll"}
    with pytest.raises(ValueError, match="is conditional, and was given no labels"):
        model.evaluation(x, None, PerDatum(x))
    assert set(DDPM((2,), None).evaluation(x, y, PerDatum(x))) == {"loss", "mse", "nll"}


# ---- likelihood


@pytest.mark.parametrize("family", [ScoreModel, FlowMatching])
def test_density_of_the_best_network(family, monkeypatch):
    monkeypatch.setattr(family, "flow_steps", 30)
    x = torch.tensor([[0.3, -0.2], [1.0, 1.2]]).double()
    exact = torch.distributions.MultivariateNormal(torch.zeros(2).double(), CORRELATED).log_prob(x)
    torch.testing.assert_close(best(family, CORRELATED).log_prob(x), exact, rtol=0, atol=0.03)
    wide = best(family, CORRELATED, data_scale=3.0).log_prob(3 * x)
    torch.testing.assert_close(wide, exact - 2 * math.log(3), rtol=0, atol=0.03)


def test_the_bound_of_the_best_network():
    """It is tight for N(0, I): on average log p itself."""
    x = torch.randn(4000, 2, generator=seeded()).double()
    bound = best(DDPM, WHITE).log_prob(x, num_particles=10, generator=seeded(1))
    exact = torch.distributions.Normal(0, 1).log_prob(x).sum(1)
    error = float((bound - exact).std()) / math.sqrt(4000)
    assert float((bound - exact).mean()) == pytest.approx(0, abs=4 * error)
    assert error < 0.1


class Nothing(nn.Module):
    """Predicts x₀ = 0 by the velocity x/t of straight paths."""

    def __init__(self):
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros(()))

    def forward(self, scaled, c_noise, labels=None):
        t = OptimalTransport().time(-8 * c_noise.double()).to(scaled).view(-1, 1, 1, 1)
        x = scaled * (t.square() + (1 - t).square()).sqrt()
        return x / (t.square() + (1 - t).square()) * (2 * t - 1) + 0 * self.anchor  # data from N(0, I)


def test_images_get_the_mass_of_their_bins():
    """A flow whose density is N(0, I) on [−1, 1]: log P ≈ Σ ln N(y) + ln(2/255), to the bins' width."""
    model = FlowMatching((1, 4, 4), 256, network=Nothing()).eval()
    x = torch.randint(256, (6, 1, 4, 4), generator=seeded()) / 255
    exact = torch.distributions.Normal(0, 1).log_prob(2 * x - 1).flatten(1).sum(1) + 16 * math.log(2 / 255)
    value = model.log_prob(x, num_particles=4, generator=PerDatum(x))
    torch.testing.assert_close(value, exact, rtol=0, atol=0.15)


# ---- the other capabilities


@pytest.mark.parametrize("family", FAMILIES)
def test_inversion_and_back(family, monkeypatch):
    monkeypatch.setattr(family, "flow_steps", 30)
    model, x = best(family, CORRELATED), torch.randn(20, 2, generator=seeded()).double()
    z = model.invert(x)
    torch.testing.assert_close(model.generate(z), x, rtol=0, atol=0.05)
    # the flow of a normal distribution is linear: z has unit variance in each direction
    whitened = x @ torch.linalg.inv(torch.linalg.cholesky(CORRELATED)).T
    torch.testing.assert_close(z.square().sum(1), whitened.square().sum(1), rtol=0.08, atol=0.02)


def test_interpolation_keeps_the_norm_of_the_noise_and_ends_in_round_trips(monkeypatch):
    torch.manual_seed(0)
    model = FlowMatching((1, 8, 8), 17, width=16).eval()
    a, b = torch.randint(17, (2, 2, 1, 8, 8)) / 16
    path = model.interpolate(a, b, 3)
    assert torch.equal(path[0], model.generate(model.invert(a)))
    assert torch.equal(path[-1], model.generate(model.invert(b)))
    seen = []
    monkeypatch.setattr(model, "generate", lambda z: seen.append(z.flatten(1).norm(dim=1)) or z)
    u = torch.nn.functional.normalize(torch.randn(3, 64), dim=1).view(3, 1, 8, 8)
    v = torch.nn.functional.normalize(torch.randn(3, 64), dim=1).view(3, 1, 8, 8)
    monkeypatch.setattr(model, "invert", lambda x: 8 * x)
    model.interpolate(u, v, 5), model.interpolate(u, u, 2)
    assert all(bool((norm - 8).abs().max() < 1e-3) for norm in seen)
    with pytest.raises(ValueError, match="steps=1"):
        model.interpolate(a, b, 1)


def test_between_unequal_and_opposite_noises_none_is_longer_than_both(monkeypatch):
    """In a few dimensions lengths differ and directions may be nearly opposite."""
    model = FlowMatching((2,), None, width=8).eval()
    seen = []
    monkeypatch.setattr(model, "invert", lambda x: x)
    monkeypatch.setattr(model, "generate", lambda z: seen.append(z.norm(dim=1)) or z)
    start = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.5, 0.0]])
    end = torch.tensor([[-1.0, 1e-4], [-2.0, 0.0], [-3.0, 0.01]])
    model.interpolate(start, end, 9)
    longest = torch.maximum(start.norm(dim=1), end.norm(dim=1))
    assert bool((torch.stack(seen) <= longest + 1e-5).all())


@pytest.mark.parametrize("family", FAMILIES)
def test_completions_follow_the_conditional_distribution(family):
    """x₂ | x₁ = 1.5 of N(0, C) is N(1.2, 0.6²). RePaint approximates it, the better the more often it repeats."""
    out = best(family, CORRELATED).complete(
        torch.tensor([[1.5, 0.0]]).double(), torch.tensor([True, False]), num_samples=2000, generator=seeded()
    )
    assert bool((out[..., 0] == 1.5).all())
    assert float(out[..., 1].mean()) == pytest.approx(1.2, abs=0.1)  # 0.94 to 1.00 in as many steps as images take
    assert float(out[..., 1].std()) == pytest.approx(0.6, abs=0.1)


def test_a_score_asks_at_noise_levels_that_a_schedule_need_not_have():
    """Those are of the data, and the same whatever the least noise is that the schedule begins at."""
    torch.manual_seed(0)
    models = [ScoreModel((2,), None, width=8, blocks=1, schedule=VarianceExploding(s, 50.0)) for s in (0.01, 0.3)]
    models[1].load_state_dict(models[0].state_dict())
    x = torch.randn(5, 2, generator=seeded())
    one, other = (model.eval().anomaly_score(x) for model in models)
    assert bool(one.isfinite().all()) and torch.allclose(one, other, rtol=1e-5)


@pytest.mark.parametrize("covariance", [WHITE, CORRELATED], ids=["white", "correlated"])
@pytest.mark.parametrize("level", [-2.0, 0.0, 4.0])
def test_the_anomaly_score_of_the_models_own_data(covariance, level):
    """(1 + SNR) Σ λσ² / (α²λ + σ²) over the variances λ of the data: D, where they are white, at any level."""
    model = best(DDPM, covariance)
    model.anomaly_levels = (level,)
    x = torch.randn(6000, 2, generator=seeded()).double() @ torch.linalg.cholesky(covariance).T
    snr = math.exp(level)
    expected = float(sum((1 + snr) * v / (snr * v + 1) for v in torch.linalg.eigvalsh(covariance)))
    scores = model.anomaly_score(x)
    assert float(scores.mean()) == pytest.approx(expected, abs=4 * float(scores.std()) / math.sqrt(6000))
    model.anomaly_levels = (-2.0, level)
    both = model.anomaly_score(x)
    other = float(sum((1 + math.exp(-2)) * v / (math.exp(-2) * v + 1) for v in torch.linalg.eigvalsh(covariance)))
    assert float(both.mean()) == pytest.approx((expected + other) / 2, abs=4 * float(both.std()) / math.sqrt(6000))


def test_anomalies_are_far_from_what_the_model_denoises_them_to():
    model = best(DDPM, CORRELATED)
    usual = torch.randn(200, 2, generator=seeded()).double() @ torch.linalg.cholesky(CORRELATED).T
    odd = usual * torch.tensor([1.0, -1.0])
    for scorer in (None, "nll"):
        assert float(model.anomaly_score(odd, scorer=scorer).mean()) > 1.5 * float(
            model.anomaly_score(usual, scorer=scorer).mean()
        )
    with pytest.raises(ValueError, match="knows"):
        model.anomaly_score(odd, scorer="magic")


def test_the_score_is_the_gradient_of_the_log_density():
    """N(0, C + σ² I) at t, in the data's own units."""
    model = best(ScoreModel, CORRELATED, data_scale=2.0)
    t, x = torch.tensor(0.6).double(), torch.randn(5, 2, generator=seeded()).double()
    sigma = float(model.schedule(t).sigma)
    marginal = 4 * (CORRELATED + sigma**2 * WHITE)
    torch.testing.assert_close(model.score(x, t), -x @ torch.linalg.inv(marginal), rtol=1e-5, atol=1e-8)
    with pytest.raises(ValueError, match=r"t=0\.0: the score is that of noisy data"):
        model.score(x, torch.tensor(0.0).double())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prediction": "noise"}, "prediction='noise'"),
        ({"data_scale": 0.0}, "data_scale=0"),
        ({"label_dropout": 1.0}, "label_dropout=1"),
        ({"steps": 0}, "steps=0"),
        ({"steps": 60, "schedule": CosineBetas(50), "spacing": "uniform"}, "give 1 to 50"),
        ({"spacing": "even"}, "spacing='even'"),
        ({"conditional": True}, "num_classes=None"),
        ({"shape": (40,), "levels": 11}, "images, points and series"),
        ({"shape": (1, 40), "levels": 256}, "images, points and series"),
    ],
)
@pytest.mark.parametrize("family", FAMILIES)
def test_impossible_arguments_are_refused(family, arguments, message):
    with pytest.raises(ValueError, match=message):
        family(**{"shape": (1, 8, 8), "levels": 17, **arguments})


@pytest.mark.parametrize("prediction", ["epsilon", "score"])
def test_noise_is_not_predicted_from_nothing_but_noise(prediction):
    """Straight paths begin at α = 0, where x₀ = (x − σ ε̂)/α has no value; a little later it has."""
    with pytest.raises(ValueError, match=rf"prediction='{prediction}'.*OptimalTransport.*spacing='karras'"):
        FlowMatching((2,), None, prediction=prediction)
    model = FlowMatching((2,), None, prediction=prediction, spacing="karras").eval()
    assert bool(model.sample(8, generator=seeded()).isfinite().all())
    with pytest.raises(ValueError, match=f"prediction='{prediction}'"):
        model.sample(8, spacing="uniform")


def test_only_noise_of_the_datas_shape_is_made_into_data():
    with pytest.raises(ValueError, match=r"built for data of shape \(2,\)"):
        FlowMatching((2,), None).generate(torch.zeros(4, 3))


def test_a_network_of_another_size_is_refused():
    model = FlowMatching((3,), None, network=nn.Identity())
    model.network.forward = lambda x, c, labels=None: x[:, :2]
    with pytest.raises(ValueError, match="same shape"):
        model.errors(torch.randn(2, 3), None, torch.tensor([0.1, 0.2]), None)


def test_weightings_change_the_loss_and_not_the_error():
    torch.manual_seed(0)
    network, x, u = TimedMLP(2, width=16, blocks=1), torch.randn(6, 2), torch.linspace(0.05, 0.95, 6)
    plain, other = DDPM((2,), None, network=network), DDPM((2,), None, network=network, weighting=MinSNR(1.0))
    a, b = plain.errors(x, None, u, seeded()), other.errors(x, None, u, seeded())
    assert torch.equal(a["mse"], b["mse"])
    snr = plain.schedule(plain.schedule.training_times(u)).snr
    torch.testing.assert_close((b["loss"] / a["loss"]).double(), 1 / snr.clamp_min(1.0), rtol=1e-4, atol=0)


@pytest.mark.parametrize("num_classes", [None, 3])
def test_of_few_data_at_a_time_the_network_says_the_same(num_classes, monkeypatch):
    """Also of a number that is no multiple of theirs, and never of more than were asked for."""
    torch.manual_seed(0)
    model = FlowMatching(
        (3, 8, 8), 256, width=16, num_classes=num_classes, conditional=num_classes is not None
    ).eval()
    x, labels = torch.randn(7, 3, 8, 8), None if num_classes is None else torch.arange(7) % num_classes
    noise, sizes = model.schedule(torch.linspace(0.1, 0.9, 7)), []
    model.network.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    with torch.no_grad():
        whole = model.denoise(x, noise, labels)
        monkeypatch.setattr("genzoo.zoo.diffusion.denoising.CACHED", 3 * 64 * 3)
        parts = model.denoise(x, noise, labels)
        monkeypatch.setattr("genzoo.zoo.diffusion.denoising.CACHED", 1)
        each = model.denoise(x, noise, labels)
    model.denoise(x, noise, labels)  # with its gradient
    assert sizes == [7, 3, 2, 2, *[1] * 7, 7]
    torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(each, whole, rtol=1e-4, atol=1e-5)


def test_a_chain_shorter_than_a_completion_takes_is_gone_through_whole() -> None:
    model = DDPM((2,), None, schedule=CosineBetas(10), steps=10)
    x, known = torch.randn(5, 2), torch.tensor([True, False])
    filled = model.complete(x, known, num_samples=3)
    assert filled.shape == (3, 5, 2) and torch.equal(filled[..., 0], x[:, 0].expand(3, 5)) and filled.isfinite().all()
