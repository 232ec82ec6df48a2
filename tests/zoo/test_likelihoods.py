"""Every likelihood is a distribution: it sums to one over the levels, and its samples follow it."""

import math
from functools import partial
from itertools import product

import mpmath
import pytest
import torch
from scipy import stats

from genzoo.zoo.likelihoods import (
    Bernoulli,
    Categorical,
    DiscretisedLogistic,
    Gaussian,
    GaussianOutput,
    Likelihood,
    default_likelihood,
)
from genzoo.zoo.logistic_mixture import LogisticMixture
from genzoo.zoo.modality import from_codes, to_codes, to_grid

DISCRETE = [
    (Bernoulli(), 2),
    (Categorical(), 2),
    (Categorical(), 17),
    (Categorical(), 256),
    (DiscretisedLogistic(), 2),
    (DiscretisedLogistic(), 17),
    (DiscretisedLogistic(), 256),
    (DiscretisedLogistic(mixtures=5), 256),
    (Gaussian(), 17),
    (Gaussian(), 256),
    (Gaussian(scale=0.1), 256),
]
IDS = [f"{likelihood}-{levels}" for likelihood, levels in DISCRETE]


def parameters(likelihood, levels, shape, batch=3, scale=1.0):
    generator = torch.Generator().manual_seed(0)
    size = (batch, likelihood.num_parameters(levels), *shape)
    return scale * torch.randn(size, generator=generator)


@pytest.mark.parametrize(("likelihood", "levels"), DISCRETE, ids=IDS)
@pytest.mark.parametrize("scale", [0.3, 1.0, 5.0])
def test_mass_over_the_levels_is_one(likelihood, levels, scale):
    output = likelihood.output(parameters(likelihood, levels, (1, 2, 3), scale=scale), levels)
    grid = from_codes(torch.arange(levels), levels)
    log_probs = torch.stack([output.log_prob_per_dim(v.expand(3, 1, 2, 3)) for v in grid])
    total = log_probs.double().exp().sum(0)
    torch.testing.assert_close(total, torch.ones_like(total), atol=2e-5, rtol=0)


@pytest.mark.parametrize(("likelihood", "levels"), DISCRETE, ids=IDS)
def test_samples_lie_on_the_grid_and_follow_the_mass(likelihood, levels):
    one = parameters(likelihood, levels, (1, 1, 2), batch=1, scale=0.7)
    output = likelihood.output(one.expand(40_000, *one.shape[1:]), levels)
    x = output.sample(torch.Generator().manual_seed(1))
    assert torch.equal(to_grid(x, levels), x)
    single = likelihood.output(one, levels)
    grid = from_codes(torch.arange(levels), levels)
    expected = torch.stack([single.log_prob_per_dim(v.expand(1, 1, 1, 2)) for v in grid]).exp()
    for dim in range(2):
        counts = torch.bincount(to_codes(x[:, 0, 0, dim], levels), minlength=levels).double()
        probability = expected[:, 0, 0, 0, dim].double()
        often = probability * len(x) > 10
        observed = torch.cat([counts[often], counts[~often].sum()[None]])
        predicted = torch.cat([probability[often], (1 - probability[often].sum()).clamp_min(1e-9)[None]])
        if predicted[-1] * len(x) < 10:  # too few to compare
            observed, predicted = observed[:-1], predicted[:-1]
        assert stats.chisquare(observed, predicted / predicted.sum() * observed.sum()).pvalue > 1e-5


@pytest.mark.parametrize(("likelihood", "levels"), DISCRETE, ids=IDS)
def test_gradients_are_finite_even_far_out(likelihood, levels):
    far = (30 * parameters(likelihood, levels, (1, 2, 2))).requires_grad_()
    x = from_codes(torch.randint(levels, (3, 1, 2, 2), generator=torch.Generator().manual_seed(0)), levels)
    log_prob = likelihood.output(far, levels).log_prob(x)
    log_prob.sum().backward()
    assert bool(torch.isfinite(log_prob).all())
    assert bool(torch.isfinite(far.grad).all())


def test_log_prob_sums_over_the_datum_and_equals_torch_distributions():
    logits = torch.randn(4, 1, 1, 3, 3)
    x = torch.randint(2, (4, 1, 3, 3)).float()
    ours = Bernoulli().output(logits, 2).log_prob(x)
    theirs = torch.distributions.Bernoulli(logits=logits[:, 0]).log_prob(x).sum((1, 2, 3))
    torch.testing.assert_close(ours, theirs)

    logits = torch.randn(4, 17, 1, 3, 3)
    x = torch.randint(17, (4, 1, 3, 3))
    theirs = torch.distributions.Categorical(logits=logits.movedim(1, -1)).log_prob(x).sum((1, 2, 3))
    torch.testing.assert_close(Categorical().output(logits, 17).log_prob(from_codes(x, 17)), theirs)

    numbers, x = torch.randn(4, 2, 5), torch.randn(4, 5)
    theirs = torch.distributions.Normal(numbers[:, 0], numbers[:, 1].exp()).log_prob(x).sum(1)
    torch.testing.assert_close(Gaussian().output(numbers, None).log_prob(x), theirs)


@pytest.mark.parametrize(
    ("likelihood", "levels"),
    [(Bernoulli(), 2), (Categorical(), 17), (DiscretisedLogistic(mixtures=3), 256), (Gaussian(), 256)],
    ids=str,
)
def test_the_mean_is_that_of_the_levels(likelihood, levels):
    """Σ_k p_k k/(L − 1), of which the location is as good as all where the scale is small and the edges far."""
    numbers = parameters(likelihood, levels, (4,), scale=0.1)
    if isinstance(likelihood, DiscretisedLogistic):
        numbers[:, 3:6] -= 4  # of [−1, 1]: three bins of 256
    if isinstance(likelihood, Gaussian):
        numbers[:, 0] += 0.5
        numbers[:, 1] -= 4
    output = likelihood.output(numbers, levels)
    expected = torch.zeros(3, 4, dtype=torch.float64)
    for k in range(levels):
        level = torch.full((3, 4), k / (levels - 1))
        expected += output.log_prob_per_dim(level).double().exp() * k / (levels - 1)
    assert float(expected.std()) > 0.005
    torch.testing.assert_close(output.mean.double(), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("likelihood", "scipy_cdf"), [(Gaussian(), stats.norm.cdf), (DiscretisedLogistic(), stats.logistic.cdf)]
)
def test_a_bin_holds_the_difference_of_scipys_distribution_function(likelihood, scipy_cdf):
    numbers = parameters(likelihood, 17, (1,), batch=1).double()
    location, scale = float(numbers[0, 0, 0]), float(numbers[0, 1, 0].exp())
    output = likelihood.output(numbers, 17)
    for level in range(1, 16):
        edges = torch.tensor([level - 0.5, level + 0.5]).double() / 16
        if isinstance(likelihood, DiscretisedLogistic):
            edges = 2 * edges - 1  # its parameters are in the units of data in [−1, 1]
        mass = float(scipy_cdf((edges[1] - location) / scale) - scipy_cdf((edges[0] - location) / scale))
        ours = float(output.log_prob(torch.tensor([[level / 16]]).double()).exp())
        assert ours == pytest.approx(mass, rel=1e-9)


def test_far_bins_keep_their_digits():
    """A difference of two distribution functions that are both 1 in float32 would be −∞ here."""
    numbers = torch.tensor([[[0.0], [-3.0]]])  # at the left edge or middle, with a narrow scale
    gaussian = Gaussian().output(numbers, 256).log_prob(torch.tensor([[0.7]]).mul(255).round().div(255))
    z = torch.tensor(0.7).mul(255).round().div(255) / torch.exp(torch.tensor(-3.0))
    density = -0.5 * z**2 - 0.5 * torch.log(torch.tensor(2 * torch.pi)) + 3 - torch.log(torch.tensor(255.0))
    assert float(gaussian) == pytest.approx(float(density), abs=0.2)  # the bin is narrow beside the scale


def log_mass(location, log_scale, lower, upper):
    """ln [Φ(upper) − Φ(lower)] in mpmath's precision."""
    low, high = ((edge - location) / mpmath.exp(log_scale) for edge in (lower, upper))
    low, high = (-high, -low) if low + high > 0 else (low, high)
    return mpmath.log((mpmath.erfc(-high / mpmath.sqrt(2)) - mpmath.erfc(-low / mpmath.sqrt(2))) / 2)


def log_mass_far_out(location, log_scale, lower, upper):
    """The square of the nearest edge: all that is left of it beyond ten thousand σ."""
    nearest = lower if location < lower else upper
    inside = not mpmath.isfinite(nearest) or lower <= location <= upper
    return mpmath.mpf(0) if inside else -(((nearest - location) / mpmath.exp(log_scale)) ** 2) / 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("far", [0, 0.7, 3, 40, 1e3, 5e4, 1e5, 1e7, 1e12, 1e15])
@pytest.mark.parametrize("levels", [2, 17, 256])
@pytest.mark.parametrize("scale", [1e-3, 0.05, 1.0])
def test_a_bin_of_a_normal_distribution_and_its_gradient_anywhere(scale, levels, far, dtype):
    """Against arithmetic with 50 digits: the value, and its derivatives by the location and by the log-scale."""
    exact, half = log_mass if far < 1e4 else log_mass_far_out, mpmath.mpf(0.5) / (levels - 1)
    tolerance = 2e-3 if dtype == torch.float32 else 1e-6
    for level, sign in product({0, levels // 2, levels - 1}, (1, -1)):
        x = torch.tensor([[level / (levels - 1)]], dtype=dtype)
        location = (x + sign * far * scale).requires_grad_()
        log_scale = torch.full_like(location, math.log(scale)).requires_grad_()
        value = GaussianOutput(location, log_scale.exp(), levels).log_prob(x)
        value.sum().backward()
        with mpmath.workdps(50):
            lower = -mpmath.inf if level == 0 else x.item() - half
            upper = mpmath.inf if level == levels - 1 else x.item() + half
            at = mpmath.mpf(location.item()), mpmath.mpf(log_scale.item())
            f = partial(exact, lower=lower, upper=upper)
            expected = [f(*at), mpmath.diff(f, at, (1, 0)), mpmath.diff(f, at, (0, 1))]
        found = [value.item(), location.grad.item(), log_scale.grad.item()]
        assert found == pytest.approx([float(v) for v in expected], rel=tolerance, abs=tolerance), (level, sign)


@pytest.mark.parametrize("likelihood", [Bernoulli(), Categorical(), DiscretisedLogistic()])
def test_continuous_data_are_refused(likelihood):
    with pytest.raises(ValueError, match="levels=None"):
        likelihood.num_parameters(None)


def test_bernoulli_refuses_grey_data():
    with pytest.raises(ValueError, match="levels=256"):
        Bernoulli().num_parameters(256)


@pytest.mark.parametrize("build", [lambda: DiscretisedLogistic(mixtures=0), lambda: Gaussian(scale=0.0)])
def test_impossible_arguments_are_refused(build):
    with pytest.raises(ValueError):
        build()


def test_half_precision_parameters_are_evaluated_in_full():
    numbers = torch.randn(2, 1, 1, 4, 4)
    x = torch.ones(2, 1, 4, 4)
    low = Bernoulli().output(numbers.bfloat16(), 2).log_prob(x)
    assert low.dtype == torch.float32
    assert torch.equal(low, Bernoulli().output(numbers.bfloat16().float(), 2).log_prob(x))
    assert Bernoulli().output(numbers.double(), 2).log_prob(x).dtype == torch.float64


def test_defaults():
    assert default_likelihood(2) == Bernoulli()
    assert default_likelihood(17) == Categorical()
    assert default_likelihood(256) == DiscretisedLogistic()
    assert default_likelihood(None) == Gaussian()


@pytest.mark.parametrize("likelihood", [Categorical(), Gaussian(), DiscretisedLogistic()])
def test_one_datum_is_asked_of_a_whole_batch(likelihood: Likelihood) -> None:
    shape = (4, *likelihood.parameter_shape((2,), 3))
    output = likelihood.output(torch.randn(shape, generator=torch.Generator().manual_seed(0)), 3)
    x = torch.tensor([[0.0, 1.0]])
    torch.testing.assert_close(output.log_prob(x), output.log_prob(x.expand(4, -1)))


@pytest.mark.parametrize(
    ("likelihood", "levels"),
    [(Bernoulli(), 2), (Categorical(), 5), (DiscretisedLogistic(), 17), (LogisticMixture(2), 17), (Gaussian(), None)],
    ids=lambda value: type(value).__name__ if isinstance(value, Likelihood) else str(value),
)
def test_several_data_of_one_output_and_one_datum_of_several(likelihood: Likelihood, levels: int | None) -> None:
    generator = torch.Generator().manual_seed(0)
    parameters = torch.randn(5, *likelihood.parameter_shape((3, 2, 2), levels), generator=generator)
    x = torch.rand(5, 3, 2, 2, generator=generator)
    x = x if levels is None else to_grid(x, levels)
    of_one, of_five = likelihood.output(parameters[:1], levels), likelihood.output(parameters, levels)
    for ours, theirs in (
        (of_one.log_prob(x), [of_one.log_prob(one) for one in x.split(1)]),
        (of_five.log_prob(x[:1]), [likelihood.output(p, levels).log_prob(x[:1]) for p in parameters.split(1)]),
    ):
        torch.testing.assert_close(ours, torch.cat(theirs))


def test_the_mean_of_levels_is_in_full_precision_under_autocast_too() -> None:
    output = Categorical().output(torch.randn(6, 17, 1, 4, 4), 17)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mean = output.mean
    expected = (output.log_probs.double().exp() * (torch.arange(17) / 16).double().view(-1, 1, 1, 1)).sum(1)
    torch.testing.assert_close(mean, expected.float(), atol=1e-6, rtol=0)
