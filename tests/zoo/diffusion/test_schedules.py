"""Schedules, parameterisations and weightings against their published values and identities."""

import math
import pickle
from dataclasses import dataclass

import pytest
import torch

from genzoo.zoo import (
    P2,
    SNR,
    CosineBetas,
    LikelihoodWeighting,
    LinearBetas,
    MinSNR,
    OptimalTransport,
    Simple,
    VarianceExploding,
    VariancePreserving,
)
from genzoo.zoo.diffusion.parameterisation import PREDICTIONS, convert, predicted, to_epsilon, to_x0
from genzoo.zoo.diffusion.schedules import BetaSchedule

ALL = [LinearBetas(), CosineBetas(), VariancePreserving(), VarianceExploding(), OptimalTransport()]
PRESERVING = ALL[:3]
by_name = pytest.mark.parametrize("schedule", ALL, ids=lambda s: type(s).__name__)


def at(*t):
    return torch.tensor(t, dtype=torch.float64)


@pytest.mark.parametrize(
    ("schedule", "first", "middle", "last", "log_snr", "mean"),
    [
        (LinearBetas(), 0.9999, 0.07858724, 4.035830e-5, -10.11767, 0.2755132),
        (CosineBetas(), 0.99995872, 0.49384359, 2.428767e-9, -19.83588, 0.4955775),
    ],
)
def test_tables_have_the_published_values(schedule, first, middle, last, log_snr, mean):
    """ᾱ at 1, 500 and T = 1000, ln SNR_T and the mean of ᾱ."""
    alpha_bar = schedule(torch.arange(1, 1001).double() / 1000).alpha.square()
    torch.testing.assert_close(alpha_bar[[0, 499, 999]], at(first, middle, last), rtol=1e-6, atol=0)
    assert float(schedule(at(1.0)).log_snr) == pytest.approx(log_snr, abs=1e-5)
    assert float(alpha_bar.mean()) == pytest.approx(mean, abs=1e-7)


def test_other_step_counts():
    assert float(LinearBetas(100)(at(1.0)).alpha ** 2) == pytest.approx(2.0390e-5, rel=1e-4)
    assert float(LinearBetas(4000)(at(1.0)).alpha ** 2) == pytest.approx(4.2467e-5, rel=1e-4)
    assert int((CosineBetas().betas() == 0.999).sum()) == 1
    assert float(CosineBetas().betas()[-1]) == 0.999


def test_variance_preserving_sde():
    end = VariancePreserving()(at(1.0))
    assert float(end.alpha) == pytest.approx(0.006571586, rel=1e-6)
    assert float(end.log_snr) == pytest.approx(-10.04996, abs=1e-5)
    assert float(end.sigma / end.alpha) == pytest.approx(152.1670, rel=1e-6)


def test_variance_exploding_and_straight_paths():
    schedule = VarianceExploding(0.01, 50.0)
    noise = schedule(at(0.5, 1.0))
    torch.testing.assert_close(noise.sigma, at(math.sqrt(0.5), 50.0))
    assert schedule.prior_std(at(1.0)[0]) == pytest.approx(math.hypot(50, 1))
    noise = OptimalTransport()(at(0.25))
    assert [float(v) for v in noise] == [0.75, 0.25, -1.0, 1.0]


@pytest.mark.parametrize("schedule", PRESERVING, ids=lambda s: type(s).__name__)
def test_variance_is_preserved_also_where_digits_would_be_lost(schedule):
    t = torch.cat([at(1e-9, 1e-6), torch.linspace(0, 1, 777).double()])
    noise = schedule(t)
    torch.testing.assert_close(noise.alpha.square() + noise.sigma.square(), torch.ones_like(t), rtol=1e-12, atol=0)
    assert float(noise.sigma[0]) > 0


@by_name
def test_the_datum_is_at_time_zero(schedule):
    noise = schedule(at(0.0))
    assert (float(noise.alpha), float(noise.sigma)) == (1.0, 0.0)


@by_name
def test_derivatives_are_those_of_alpha_and_sigma(schedule):
    t = at(0.0213, 0.1507, 0.4999, 0.8311, 0.9777)  # inside a step of the discrete ones
    h, noise = 1e-7, schedule(t)
    later, earlier = schedule(t + h), schedule(t - h)
    torch.testing.assert_close(noise.d_alpha, (later.alpha - earlier.alpha) / (2 * h), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(noise.d_sigma, (later.sigma - earlier.sigma) / (2 * h), rtol=1e-6, atol=1e-6)


def test_the_derivative_at_a_step_is_that_of_the_next_one_wherever_rounding_falls():
    schedule = LinearBetas()
    k = torch.arange(1, 1000)
    slope = (schedule.log_alphas[k + 1] - schedule.log_alphas[k]) * 1000
    for times in (k.double() / 1000, k.double() * 1e-3):
        noise = schedule(times)
        torch.testing.assert_close(noise.d_alpha / noise.alpha, slope, rtol=1e-6, atol=0)


@by_name
def test_time_is_the_inverse_of_the_log_snr(schedule):
    t = torch.linspace(schedule.t_min, 0.999, 500).double()
    torch.testing.assert_close(schedule.time(schedule(t).log_snr), t, rtol=0, atol=1e-9)


@by_name
@pytest.mark.parametrize("spacing", ["uniform", "karras"])
def test_every_step_count_gives_so_many_steps(schedule, spacing):
    for steps in [*range(1, 40), 999, 1000]:
        times = schedule.times(steps, spacing)
        assert len(times) == steps + 1
        assert float(times[-1]) == 0
        assert float(times[0]) == 1 or (spacing == "karras" and float(schedule(times[:1]).log_snr) < -8.7)
        assert bool((times[1:] < times[:-1]).all())


@pytest.mark.parametrize("schedule", PRESERVING[:2], ids=lambda s: type(s).__name__)
def test_fewer_steps_are_a_subset_of_all(schedule):
    """The respaced ᾱ are the original ones."""
    table = (1 - schedule.betas()).cumprod(0)
    for steps in range(1, 1001, 37):
        k = (schedule.times(steps)[:-1] * 1000).round().long()
        torch.testing.assert_close(
            schedule(schedule.times(steps)[:-1]).alpha.square(), table[k - 1], rtol=1e-12, atol=0
        )


def test_the_noise_levels_of_karras():
    schedule = VarianceExploding(0.002, 80.0)
    sigma = schedule(schedule.times(18, "karras")).sigma
    torch.testing.assert_close(sigma[[0, 1, 16, 17, 18]], at(80, 57.585985, 0.007528, 0.002, 0), rtol=1e-4, atol=1e-6)


@by_name
def test_training_times_are_noisy_and_spread_evenly(schedule):
    t = schedule.training_times(torch.arange(1000) / 1000)
    noise = schedule(t)
    assert float(noise.sigma.min()) > 0
    assert float(t.max()) <= 1
    assert float(t.mean()) == pytest.approx(0.5, abs=2e-3)


@by_name
def test_every_prediction_becomes_every_other(schedule):
    torch.manual_seed(0)
    t = torch.rand(64).double() * 0.98 + 0.01
    x0, epsilon = torch.randn(2, 64, 3).double()
    noise = schedule(t).like(x0)
    x = noise.alpha * x0 + noise.sigma * epsilon
    for source in PREDICTIONS:
        p = predicted(source, noise, x0, epsilon)
        torch.testing.assert_close(to_x0(source, noise, x, p), x0, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(to_epsilon(source, noise, x, p), epsilon, rtol=1e-6, atol=1e-6)
        for target in PREDICTIONS:
            expected = predicted(target, noise, x0, epsilon)
            torch.testing.assert_close(convert(source, target, noise, x, p), expected, rtol=1e-5, atol=1e-5)


def test_predictions_mean_what_their_papers_say():
    torch.manual_seed(0)
    x0, epsilon = torch.randn(2, 5).double()
    noise = VariancePreserving()(at(0.3).expand(5))
    x = noise.alpha * x0 + noise.sigma * epsilon
    v = predicted("v", noise, x0, epsilon)
    torch.testing.assert_close(v, noise.alpha * epsilon - noise.sigma * x0)
    torch.testing.assert_close(noise.alpha * x - noise.sigma * v, x0)
    torch.testing.assert_close(noise.sigma * x + noise.alpha * v, epsilon)
    score = -(x - noise.alpha * x0) / noise.sigma.square()  # of the normal distribution q(x_t | x₀)
    torch.testing.assert_close(predicted("score", noise, x0, epsilon), score)
    beta = 0.1 + 0.3 * 19.9  # dx/dt = −½ β (x + score), the probability flow of one datum
    torch.testing.assert_close(predicted("velocity", noise, x0, epsilon), -beta / 2 * (x + score))
    straight = OptimalTransport()(at(0.3).expand(5))
    torch.testing.assert_close(predicted("velocity", straight, x0, epsilon), epsilon - x0)


def test_weights_are_the_published_ones_in_every_parameterisation():
    """Divided by the factor between the two errors, a weight of ‖x₀ − x̂₀‖² becomes one of the prediction's error."""
    schedule = CosineBetas()
    noise = schedule(at(0.02, 0.2, 0.5, 0.9))
    s = noise.snr

    def in_terms_of(prediction, weighting):
        return weighting(noise, prediction) / Simple()(noise, prediction)

    for prediction, least in (("epsilon", s), ("x0", torch.ones(4).double()), ("v", s + 1)):
        torch.testing.assert_close(in_terms_of(prediction, Simple()), torch.ones(4).double())
        torch.testing.assert_close(in_terms_of(prediction, MinSNR(5.0)), s.clamp_max(5) / least)
        torch.testing.assert_close(in_terms_of(prediction, SNR()), s / least)
    torch.testing.assert_close(in_terms_of("epsilon", P2(1.0, 0.5)), (1 + s) ** -0.5)
    h = 1e-7
    slope = (schedule(at(0.3456) + h).snr - schedule(at(0.3456) - h).snr) / (2 * h)
    torch.testing.assert_close(LikelihoodWeighting()(schedule(at(0.3456)), "v"), -slope / 2, rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: LinearBetas(10), "steps=10"),
        (lambda: LinearBetas(0), "steps=0"),
        (lambda: CosineBetas(largest=1.0), "largest=1.0"),
        (lambda: VariancePreserving(2.0, 1.0), "beta_min"),
        (lambda: VarianceExploding(0.0, 1.0), "sigma_min"),
        (lambda: LinearBetas().times(1001), "1000; give 1 to 1000"),
        (lambda: OptimalTransport().times(0), "steps=0: give a whole number"),
        (lambda: OptimalTransport().times(3, "random"), "'uniform' or 'karras'"),
    ],
)
def test_impossible_schedules_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@by_name
def test_noise_of_any_ratio(schedule):
    """Also less than the schedule has at any time; where it has it, with the derivatives of that time."""
    log_snr = torch.linspace(-7.5, 18, 100).double()
    noise = schedule.at(log_snr)
    torch.testing.assert_close(noise.log_snr, log_snr, rtol=0, atol=1e-6)
    inside = log_snr < schedule(at(schedule.t_min)).log_snr
    for ours, theirs in zip(noise, schedule(schedule.time(log_snr)), strict=True):
        torch.testing.assert_close(ours[inside], theirs[inside])


@dataclass  # not frozen, and so of no hash
class Constant(BetaSchedule):
    """β is the same in every step."""

    steps: int = 30

    def betas(self):
        return torch.full((self.steps,), 0.3, dtype=torch.float64)


def test_a_schedule_of_one_s_own_needs_no_hash_and_its_tables_are_not_kept():
    schedule, t = Constant(), torch.tensor([0.1, 1.0], dtype=torch.float64)
    noise = schedule(t)
    torch.testing.assert_close(noise.alpha, 0.7 ** (t * 30 / 2))
    again = pickle.loads(pickle.dumps(schedule))
    assert vars(again) == {"steps": 30}
    torch.testing.assert_close(again(t).alpha, noise.alpha, rtol=0, atol=0)
