"""Solvers against normal distributions and mixtures, for which the best denoiser is known."""

import math
from itertools import pairwise

import pytest
import torch
from analytic import GaussianMixture

from genzoo.zoo import (
    DDIM,
    Ancestral,
    CosineBetas,
    DPMSolver,
    Euler,
    Heun,
    LinearBetas,
    OptimalTransport,
    PredictorCorrector,
    VarianceExploding,
    VariancePreserving,
)
from genzoo.zoo.diffusion.solvers import langevin, reverse_std, stops

SOLVERS = [
    Euler(),
    Heun(),
    DPMSolver(),
    DPMSolver(1.0),
    DDIM(0.0),
    DDIM(1.0),
    Ancestral("small"),
    Ancestral("large"),
    PredictorCorrector(),
]
DETERMINISTIC = [Euler(), Heun(), DPMSolver(), DDIM()]
SCHEDULES = [LinearBetas(), CosineBetas(), VariancePreserving(), VarianceExploding(), OptimalTransport()]


def gain(solver, schedule, times, std=1.0):
    """What a deterministic solver multiplies x by, for data from N(0, std²)."""
    x = torch.ones(1, 1, dtype=torch.float64)
    return float(solver.solve(GaussianMixture(schedule, std=std), schedule, x, times))


def leading(steps):
    """The steps 1 + i T/n and then 0: the last of them is the chain's own last step."""
    k = torch.arange(steps).flip(0) * (1000 // steps) + 1
    return torch.cat([k, torch.zeros(1, dtype=torch.long)]).double() / 1000


@pytest.mark.parametrize(
    ("steps", "expected"), [(10, 0.831696), (20, 0.912532), (50, 0.964079), (100, 0.981851), (1000, 0.998124)]
)
def test_ddim_turns_by_the_angle_between_noise_levels(steps, expected):
    """For N(0, 1) each step multiplies x by cos(θ_t − θ_s), cos θ = √ᾱ."""
    times = leading(steps)
    angles = LinearBetas()(times).alpha.acos()
    assert gain(DDIM(), LinearBetas(), times) == pytest.approx(float((angles[:-1] - angles[1:]).cos().prod()))
    assert gain(DDIM(), LinearBetas(), times) == pytest.approx(expected, abs=2e-6)


def test_the_default_spacing_trails():
    assert gain(DDIM(), LinearBetas(), LinearBetas().times(10)) == pytest.approx(0.829369, abs=1e-6)


def test_euler_is_ddim_and_first_order_dpm_solver():
    """Also where the schedule does not preserve the variance."""
    torch.manual_seed(0)
    x = torch.randn(50, 1).double()
    for schedule in SCHEDULES:
        times = schedule.times(7, "karras")
        denoiser, start = GaussianMixture(schedule, (-1.0, 1.0), (0.3, 0.7), 0.25), x * schedule.prior_std(times[0])
        euler = Euler().solve(denoiser, schedule, start, times)
        torch.testing.assert_close(DDIM(0.0).solve(denoiser, schedule, start, times), euler)
        first = DPMSolver().solve(denoiser, schedule, start, times[:2])
        torch.testing.assert_close(first, Euler().solve(denoiser, schedule, start, times[:2]))


@pytest.mark.parametrize(
    ("solver", "errors"),
    [
        (Euler(), (-0.1539, -0.0780, -0.0392)),
        (Heun(), (0.0553, 0.0122, 0.0029)),
        (DPMSolver(), (0.0623, 0.0131, 0.0030)),
    ],
    ids=lambda v: type(v).__name__,
)
def test_orders_of_convergence(solver, errors):
    """Karras' noise levels from 80 to 0.002 and then 0, data N(0, ½²): the exact gain is s/√(s² + 80²)."""
    schedule, exact = VarianceExploding(0.002, 80.0), 0.5 / math.hypot(0.5, 80)
    measured = [gain(solver, schedule, schedule.times(n, "karras"), 0.5) / exact - 1 for n in (18, 36, 72)]
    assert measured == pytest.approx(errors, abs=1e-4)
    order = math.log2(measured[1] / measured[2])
    assert order == pytest.approx(1 if isinstance(solver, Euler) else 2, abs=0.15)


def test_euler_on_straight_paths():
    """Flow matching of N(0, 1) to itself: gains that can be computed by hand."""
    for steps, expected in ((1, 0.0), (2, 0.5), (10, 0.878984), (100, 0.987228)):
        schedule = OptimalTransport()
        assert gain(Euler(), schedule, schedule.times(steps)) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("solver", SOLVERS, ids=repr)
def test_every_step_count_asks_the_denoiser_as_often_as_it_says(solver):
    schedule = LinearBetas(50)
    for steps in range(1, 51):
        denoiser = GaussianMixture(schedule)
        path = list(solver.path(denoiser, schedule, torch.ones(2, 1).double(), schedule.times(steps)))
        assert len(path) == steps
        assert denoiser.calls == solver.evaluations(steps)
        assert all(bool(x.isfinite().all()) for x in path)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("solver", DETERMINISTIC, ids=repr)
def test_deterministic_solvers_repeat_themselves_and_agree_in_the_limit(solver, schedule):
    torch.manual_seed(0)
    x = torch.randn(100, 1).double() * schedule.prior_std(torch.tensor(1.0))
    denoiser = GaussianMixture(schedule, (-1.0, 1.0), (0.3, 0.7), 0.25)
    times = schedule.times(400, "karras")
    out = solver.solve(denoiser, schedule, x, times)
    assert torch.equal(out, solver.solve(denoiser, schedule, x, times))
    reference = Heun().solve(denoiser, schedule, x, schedule.times(800, "karras"))
    assert float((out - reference).abs().max()) < (0.02 if isinstance(solver, Euler | DDIM) else 2e-3)


def test_the_same_flow_on_every_schedule():
    """Variance preserving, exploding and straight paths are one ODE: the same samples from the same noise."""
    torch.manual_seed(0)
    z = torch.randn(200, 1).double()
    out = []
    for schedule in (VariancePreserving(), VarianceExploding(0.001, 200.0), OptimalTransport()):
        log_snr = torch.linspace(-10, 12, 600).double()
        times = torch.cat([schedule.time(log_snr), torch.zeros(1).double()])
        start = schedule(times[:1])
        x = z * (start.alpha.square() + start.sigma.square()).sqrt()
        denoiser = GaussianMixture(schedule, (-1.0, 1.0), (0.3, 0.7), 0.25)
        out.append(Heun().solve(denoiser, schedule, x, times))
    torch.testing.assert_close(out[1], out[0], rtol=0, atol=1e-4)
    torch.testing.assert_close(out[2], out[0], rtol=0, atol=1e-4)


# ---- upwards


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("solver", DETERMINISTIC, ids=repr)
def test_deterministic_solvers_go_up_from_the_datum(solver, schedule):
    """N(0, ½²) from t = 0, where there is no noise, to as much as there is: its exact gain, and back again."""
    times = schedule.times(400, "karras").flip(0)
    last = schedule(times[-1])
    exact = math.sqrt(float(last.alpha**2 * 0.25 + last.sigma**2)) / 0.5
    error = 0.05 if isinstance(solver, Euler | DDIM) else 2e-3
    assert gain(solver, schedule, times, 0.5) == pytest.approx(exact, rel=error)
    assert gain(solver, schedule, times.flip(0), 0.5) == pytest.approx(1 / exact, rel=error)
    # one step: nothing but the datum itself is known there
    first = schedule(times[1])
    assert gain(solver, schedule, times[:2]) == pytest.approx(float(first.alpha), rel=1e-3)


@pytest.mark.parametrize("solver", DETERMINISTIC, ids=repr)
def test_they_go_up_to_nothing_but_noise(solver):
    """On straight paths α is 0 at t = 1."""
    schedule = OptimalTransport()
    error = 0.02 if isinstance(solver, Euler | DDIM) else 1e-3
    assert gain(solver, schedule, schedule.times(200).flip(0), 0.5) == pytest.approx(2, rel=error)
    # one step: dx/dt = ε − x̂₀ is −1 at the datum, and 0 where there is nothing but noise
    expected = 0.5 if isinstance(solver, Heun) else 0.0
    assert gain(solver, schedule, torch.tensor([0.0, 1.0]).double()) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    "solver", [DPMSolver(0.5), DDIM(0.1), Ancestral("small"), Ancestral("large"), PredictorCorrector()], ids=repr
)
def test_solvers_that_add_noise_do_not_go_up(solver):
    denoiser, x = GaussianMixture(VariancePreserving()), torch.ones(1, 1)
    with pytest.raises(ValueError, match=r"its times fall, but here 0\.7 follows 0\.5"):
        solver.solve(denoiser, VariancePreserving(), x, torch.tensor([0.9, 0.5, 0.7]).double())


@pytest.mark.parametrize("solver", SOLVERS, ids=repr)
def test_times_that_stand_still_are_refused(solver):
    denoiser, x = GaussianMixture(VariancePreserving()), torch.ones(1, 1)
    with pytest.raises(ValueError, match=r"all differ, but here 0\.5 follows itself"):
        solver.solve(denoiser, VariancePreserving(), x, torch.tensor([0.9, 0.5, 0.5, 0.2]).double())


# ---- the reverse chain


def test_posterior_variances_of_the_chain():
    """β̃ of steps 488 and 2, and 0 of the first (indices 487, 1 and 0 of a table that begins at 0)."""
    chain = stops(LinearBetas(), torch.tensor([488, 487, 2, 1, 0]).double() / 1000)
    for (now, then), expected in zip(pairwise(chain), (0.00979157, None, 5.453188e-5, 0.0), strict=True):
        if expected is not None:
            assert reverse_std(now, then, "small") ** 2 == pytest.approx(expected, rel=1e-6)


def test_steps_of_the_chain_have_the_papers_mean():
    """√ᾱ_{t−1} β_t/(1 − ᾱ_t) x̂₀ + √α_t (1 − ᾱ_{t−1})/(1 − ᾱ_t) x_t: 0.5452915 and 0.4547085 at step 2."""
    schedule, times = LinearBetas(), torch.tensor([2, 1]).double() / 1000
    noiseless = DDIM(1.0)

    def step(x0, x):
        # the noise is the same for the same seed, so differences are the mean's
        start = torch.full((1, 1), x, dtype=torch.float64)
        generator = torch.Generator().manual_seed(0)
        return float(noiseless.solve(lambda x, t: torch.full_like(x, x0), schedule, start, times, generator))

    assert step(1.0, 0.0) - step(0.0, 0.0) == pytest.approx(0.5452915, abs=1e-6)
    assert step(0.0, 1.0) - step(0.0, 0.0) == pytest.approx(0.4547085, abs=1e-6)
    assert gain(Ancestral(), schedule, times[1:].repeat(2) * torch.tensor([1.0, 0.0])) == pytest.approx(
        float(schedule(times[1:]).alpha)
    )  # the last step is x̂₀, without noise


def test_ddim_with_all_noise_is_ancestral():
    schedule, x = CosineBetas(), torch.randn(30, 1).double()
    denoiser, times = GaussianMixture(schedule, (-1.0, 1.0), (0.5, 0.5), 0.3), schedule.times(13)
    a, b = (
        solver.solve(denoiser, schedule, x, times, torch.Generator().manual_seed(0))
        for solver in (DDIM(1.0), Ancestral("small"))
    )
    torch.testing.assert_close(a, b)


def test_the_first_step_of_the_stochastic_dpm_solver_is_ancestral():
    schedule, x = CosineBetas(), torch.randn(30, 1).double()
    denoiser, times = GaussianMixture(schedule, (-1.0, 1.0), (0.5, 0.5), 0.3), schedule.times(13)[:2]
    a, b = (
        solver.solve(denoiser, schedule, x, times, torch.Generator().manual_seed(0))
        for solver in (DPMSolver(1.0), Ancestral("small"))
    )
    torch.testing.assert_close(a, b)
    with pytest.raises(ValueError, match="eta=2"):
        DPMSolver(2)


def variances(schedule, times, variance, var=1.0):
    """Those of ancestral samples at every stop, for data from N(0, 1): each step is x ← g x + s z."""
    out = [var]
    for now, then in pairwise(stops(schedule, times)):
        x0 = now.alpha / (now.alpha**2 + now.sigma**2)  # D(1, t)
        kept = math.sqrt(max(0.0, then.sigma**2 - reverse_std(now, then, "small") ** 2))
        g = then.alpha * x0 + kept * (1 - now.alpha * x0) / now.sigma
        added = reverse_std(now, then, variance) if then.sigma > 0 else 0.0
        out.append(g**2 * out[-1] + added**2)
    return out


@pytest.mark.parametrize(
    ("variance", "steps", "expected"),
    [
        ("large", 1000, 0.9999),
        ("large", 100, 0.9999),
        ("large", 10, 0.9999),
        ("small", 1000, 0.991067),
        ("small", 100, 0.920877),
        ("small", 10, 0.520785),
    ],
)
def test_variance_of_ancestral_samples(variance, steps, expected):
    """For N(0, 1), with steps spread evenly from 1 to T: a subset that keeps the first."""
    schedule, times = LinearBetas(), torch.linspace(1000, 1, steps).round().double() / 1000
    times = torch.cat([times, torch.zeros(1)])
    var = variances(schedule, times, variance)[-1]
    assert var == pytest.approx(expected, abs=2e-6)
    if steps < 1000:
        denoiser = GaussianMixture(schedule)
        x = torch.randn(20_000, 1, generator=torch.Generator().manual_seed(0)).double()
        x = Ancestral(variance).solve(denoiser, schedule, x, times, torch.Generator().manual_seed(1))
        assert float(x.var()) == pytest.approx(expected, abs=0.04)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
def test_large_variance_is_exact_for_white_data(schedule):
    """Ancestral steps with it leave N(0, I) data normal at any number of steps, on every schedule."""
    times = schedule.times(9, "karras")
    noise = schedule(times[:-1])
    expected = noise.alpha.square() + noise.sigma.square()
    assert variances(schedule, times, "large", float(expected[0]))[:-1] == pytest.approx(expected.tolist(), rel=1e-9)


def test_langevin_steps_have_their_stationary_variance():
    """x ← x − δ x + √(2 δ) z on N(0, 1) settles at 1/(1 − δ/2)."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(100_000, 1, generator=generator).double()
    for _ in range(60):
        x = langevin(x, -x, 0.1, generator)
    assert float(x.var()) == pytest.approx(1.0526316, abs=0.02)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("solver", [Ancestral("small"), DDIM(0.5), DPMSolver(1.0), PredictorCorrector()], ids=repr)
def test_stochastic_solvers_draw_the_data(solver, schedule):
    """Mean and variance of a mixture of two."""
    z = torch.randn(4000, 1, generator=torch.Generator().manual_seed(0)).double()
    denoiser = GaussianMixture(schedule, (-1.0, 1.0), (0.3, 0.7), 0.25)
    times = schedule.times(100, "karras")
    x = solver.solve(denoiser, schedule, z * schedule.prior_std(times[0]), times, torch.Generator().manual_seed(1))
    assert float(x.mean()) == pytest.approx(0.4, abs=0.05)
    assert float(x.var()) == pytest.approx(0.84 + 0.0625, abs=0.06)


def test_impossible_solvers_are_refused():
    with pytest.raises(ValueError, match="eta=2"):
        DDIM(2)
    with pytest.raises(ValueError, match="'small' or 'large'"):
        Ancestral("learned").solve(
            GaussianMixture(LinearBetas()), LinearBetas(), torch.ones(1, 1), LinearBetas().times(2)
        )
