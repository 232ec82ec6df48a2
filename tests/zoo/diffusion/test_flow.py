"""The probability flow of normal distributions and mixtures: its map, its density, and where it stops."""

import math

import pytest
import torch
from analytic import CorrelatedGaussian, GaussianMixture, flow_of
from thorough import some
from torch import nn
from torch.distributions import MultivariateNormal, Normal

from genzoo.zoo import (
    CosineBetas,
    FlowMatching,
    LinearBetas,
    OptimalTransport,
    PerDatum,
    ScoreModel,
    VarianceExploding,
    VariancePreserving,
)
from genzoo.zoo.diffusion.parameterisation import PREDICTIONS, predicted

SCHEDULES = [LinearBetas(), CosineBetas(), VariancePreserving(), VarianceExploding(), OptimalTransport()]
by_name = pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)


@by_name
def test_white_data_stand_still(schedule):
    """The flow of N(0, 1) does not move, so that x is its own noise and its density that of the prior."""
    x = torch.randn(9, 3, generator=torch.Generator().manual_seed(0)).double()
    flow = flow_of(GaussianMixture(schedule), 5, (80.0, 1e-7))
    torch.testing.assert_close(flow.encode(x), x, rtol=0, atol=1e-9)
    torch.testing.assert_close(flow.log_prob(x), Normal(0, 1).log_prob(x).sum(1), rtol=0, atol=1e-9)


@by_name
def test_density_of_a_normal_distribution(schedule):
    """N(0, s²) is scaled from a² s² + 1 − a² at the one end to that at the other: to all digits of the steps."""
    x, s = torch.tensor([[-0.7], [0.0], [0.3], [1.2]]).double(), 0.5
    data = GaussianMixture(schedule, std=s)
    (noisy, clean), value = (80.0, 0.002), flow_of(data, 160).log_prob(x)
    variance = [(s**2 + ratio**2) / (1 + ratio**2) for ratio in (noisy, clean)]
    gain = math.sqrt(variance[0] / variance[1] / (1 + clean**2))
    torch.testing.assert_close(value, (Normal(0, 1).log_prob(gain * x) + math.log(gain))[:, 0], rtol=0, atol=1e-6)
    # and the data's own density, but for what is left of them under most noise and the little noise at the other end
    torch.testing.assert_close(value, data.log_prob(x)[:, 0], rtol=0, atol=2e-3)


def test_the_flow_of_a_normal_distribution_scales_it():
    """z = x √(v_T/v_ε), in units of the noise: N(0, ½²) becomes N(0, 1), but for what is left of it."""
    x = torch.tensor([[0.3], [-1.0]]).double()
    flow = flow_of(GaussianMixture(VariancePreserving(), std=0.5), 40)
    torch.testing.assert_close(flow.encode(x), 2 * x, rtol=1e-3, atol=0)
    torch.testing.assert_close(flow.decode(flow.encode(x)), x, rtol=1e-5, atol=0)


def test_it_is_of_fourth_order():
    x = torch.tensor([[-1.0], [0.0], [0.5], [1.0]]).double()
    data = GaussianMixture(VariancePreserving(), (-1.0, 1.0), (0.3, 0.7), 0.25)
    exact = flow_of(data, 320).log_prob(x)
    errors = [float((flow_of(data, n).log_prob(x) - exact).abs().max()) for n in (40, 80)]
    assert math.log2(errors[0] / errors[1]) > 3.8
    assert errors[1] < 2e-5


def test_density_of_a_mixture():
    """Beside the exact density there is the probability flow's own, with what its prior leaves out."""
    schedule = VariancePreserving()
    data = GaussianMixture(schedule, (-1.0, 1.0), (0.3, 0.7), 0.25)
    x = torch.tensor([[-1.0], [0.0], [0.5], [1.0]]).double()
    ends = (-schedule(torch.tensor([1.0, 1e-5])).log_snr / 2).exp().tolist()
    value = flow_of(data, 150, ends).log_prob(x)
    expected = torch.tensor([-0.733903, -7.531150, -1.888038, 0.109655]).double()
    torch.testing.assert_close(value, expected, rtol=0, atol=2e-5)
    torch.testing.assert_close(value, data.log_prob(x)[:, 0], rtol=0, atol=3e-3)


def test_a_probe_is_off_by_exactly_artanh_of_the_correlation():
    """Unit variances with ρ = 0.8: with one fixed probe the value is the truth ± artanh ρ, and nothing else."""
    covariance = torch.tensor([[1.0, 0.8], [0.8, 1.0]]).double()
    flow = flow_of(CorrelatedGaussian(VariancePreserving(), covariance), 40)
    x = torch.tensor([[0.3, -0.2]]).double()
    truth = float(MultivariateNormal(torch.zeros(2).double(), covariance).log_prob(x))
    assert truth == pytest.approx(-1.6409, abs=1e-4)
    assert float(flow.log_prob(x)) == pytest.approx(truth, abs=1e-3)
    values = [float(flow.log_prob(x, torch.tensor([p]).double())) for p in ((1, 1), (-1, -1), (1, -1), (-1, 1))]
    assert values[0] == pytest.approx(values[1])
    assert values[2] == pytest.approx(values[3])
    assert sorted(values[1:3]) == pytest.approx([-2.7395, -0.5424], abs=1e-3)


def test_it_works_in_inference_mode_and_leaves_no_gradient():
    with torch.inference_mode():
        x = torch.randn(3, 2).double() * 2
        value = flow_of(GaussianMixture(OptimalTransport()), 5).log_prob(x)
    assert value.shape == (3,)
    assert not value.requires_grad


# ---- where it stops


class OfMixture(nn.Module):
    """The network that knows the best denoiser of two narrow peaks, at whatever noise it is asked."""

    def __init__(self, schedule, prediction, std):
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros((), dtype=torch.float64))
        self.data, self.prediction = GaussianMixture(schedule, (-0.5, 0.5), (0.3, 0.7), std), prediction
        self.least = math.inf

    def forward(self, scaled, c_noise, labels=None):
        self.least = min(self.least, float((4 * c_noise).exp().min()))
        at = self.data.schedule.at(-8 * c_noise.double())
        noise = at.like(scaled)
        x = scaled * (noise.alpha.square() + noise.sigma.square()).sqrt()
        x0 = self.data.denoise(x, at)
        return predicted(self.prediction, noise, x0, (x - noise.alpha * x0) / noise.sigma) + 0 * self.anchor


@pytest.mark.parametrize("prediction", some(PREDICTIONS, {"epsilon", "velocity"}.__contains__))
def test_a_likelihood_does_not_depend_on_where_the_sampler_stops(prediction, monkeypatch):
    """Peaks of 3 bins, noise of 38 bins or none at the sampler's end: the same likelihood, which is the true one."""
    monkeypatch.setattr(ScoreModel, "flow_steps", 100)
    x = torch.tensor([60, 64, 66, 70, 186, 190, 191, 195]).view(2, 1, 2, 2).double() / 255
    values = {}
    for sigma_min in (0.3, 1e-4):
        schedule = VarianceExploding(sigma_min, 100.0)
        network = OfMixture(schedule, prediction, 3 * 2 / 255)
        model = ScoreModel((1, 2, 2), 256, schedule=schedule, prediction=prediction, network=network).eval()
        values[sigma_min] = model.log_prob(x, num_particles=3, generator=PerDatum(x))
        assert network.least == pytest.approx(2 / 255 / 32, rel=1e-6)
    generator, exact = PerDatum(x), 0
    for _ in range(3):
        exact = exact + network.data.log_prob(model.to_model(model.dequantised(x, generator))).flatten(1).sum(1) / 3
    # (what is left of the data under most noise, 1/80 of them, is not in N(0, I))
    torch.testing.assert_close(values[0.3], exact + 4 * math.log(2 / 255), rtol=0, atol=0.02)
    torch.testing.assert_close(values[0.3], values[1e-4], rtol=0, atol=1e-6)


@pytest.mark.parametrize("family", [ScoreModel, FlowMatching])
@pytest.mark.parametrize("levels", [256, None])
def test_it_no_longer_moves_when_the_stop_is_halved(family, levels, monkeypatch):
    """Peaks of one bin and of 1/128; with the usual steps the halves differ by less than the steps' own error."""
    schedule = VarianceExploding(0.02, 50.0) if family is ScoreModel else OptimalTransport()
    network = OfMixture(schedule, family.defaults.prediction, 2 / 255)
    shape = (4,) if levels is None else (1, 2, 2)
    model = family(shape, levels, schedule=schedule, network=network).eval()
    x = torch.tensor([64, 63, 65, 64, 191, 192, 191, 190]).view(2, *shape).double() / 255
    x = x if levels else 2 * x - 1
    ratios, values = model.flow_ratios(), []
    for part in (1, 1 / 2):
        monkeypatch.setattr(model, "flow_ratios", lambda part=part: (ratios[0], part * ratios[1]))
        values.append(model.log_prob(x, num_particles=3, generator=PerDatum(x)))
    torch.testing.assert_close(values[0], values[1], rtol=0, atol=0.1)


def test_the_stop_is_stated():
    images = FlowMatching((1, 8, 8), 17)
    assert images.flow_ratios() == pytest.approx((80, 0.002))
    assert images.log_prob_protocol == (
        "probability flow from σ/α = 80 to 0.002 in 24 Runge-Kutta steps, Hutchinson's probes"
    )
    fine = ScoreModel((1, 8, 8), 256, schedule=VarianceExploding(0.01, 25.0), data_scale=0.5)
    assert fine.flow_ratios() == pytest.approx((25, 4 / 255 / 32))
    assert "from σ/α = 25 to 0.00049 in" in fine.log_prob_protocol
    points = ScoreModel((2,), None, data_scale=3.0)
    assert points.flow_ratios() == pytest.approx((50, 0.002))
    assert points.log_prob_protocol.endswith("exact divergence")


def test_a_schedule_that_does_not_go_on_is_refused():
    class Clamped(OptimalTransport):
        def time(self, log_snr):
            return super().time(log_snr).clamp_min(0.01)

    model = FlowMatching((2,), None, schedule=Clamped(), spacing="uniform")
    with pytest.raises(ValueError, match=r"goes down to σ/α = 0\.002, but .*Clamped.* define its method `at"):
        model.log_prob(torch.zeros(1, 2))
