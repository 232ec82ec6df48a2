"""The logistic mixture of whole pixels: it sums to one over all colours, and is what the paper's equations say."""

import itertools
import math

import pytest
import torch
from scipy import stats

from genzoo.zoo.likelihoods import DiscretisedLogistic
from genzoo.zoo.logistic_mixture import LogisticMixture
from genzoo.zoo.modality import from_codes, to_codes, to_grid


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def stated(mixtures, channels, levels, scale=1.0, size=(2, 3), batch=2):
    """An output with random parameters, and these."""
    likelihood = LogisticMixture(mixtures)
    shape = likelihood.parameter_shape((channels, *size), levels)
    parameters = scale * torch.randn(batch, *shape, generator=seeded())
    return likelihood.output(parameters, levels), parameters


def colours(channels, levels):
    """(levels ** channels, channels): every pixel that there is."""
    return from_codes(torch.tensor(list(itertools.product(range(levels), repeat=channels))), levels)


def of_every_colour(method, space, batch=2, size=(2, 3)):
    """What a method says of images of one colour, for each in turn: (colours, B, …)."""
    return torch.stack([method(colour[:, None, None].expand(batch, -1, *size)) for colour in space])


@pytest.mark.parametrize(
    ("mixtures", "channels", "levels"),
    [(1, 1, 2), (5, 1, 256), (10, 1, 17), (1, 3, 4), (5, 3, 4), (10, 3, 2), (3, 2, 16), (2, 4, 3), (2, 3, 8)],
)
@pytest.mark.parametrize("scale", [0.1, 1.0, 4.0, 20.0])
def test_the_mass_of_all_colours_is_one(mixtures, channels, levels, scale):
    output, _ = stated(mixtures, channels, levels, scale)
    log_prob = of_every_colour(output.log_prob_per_dim, colours(channels, levels)).sum(2)
    total = log_prob.double().exp().sum(0)
    torch.testing.assert_close(total, torch.ones_like(total), atol=1e-5, rtol=0)
    assert scale < 1 or float(log_prob.std(0).mean()) > 0.1  # and it is not the uniform distribution that does


@pytest.mark.parametrize("levels", [2, 17, 256, 1024])
def test_each_channel_sums_to_one_over_its_levels_whatever_came_before_it(levels):
    output, _ = stated(5, 3, levels, 2.0)
    x = from_codes(torch.randint(levels, (2, 3, 2, 3), generator=seeded(1)), levels)
    for c in range(3):
        total = torch.zeros(2, 2, 3, dtype=torch.float64)
        for value in from_codes(torch.arange(levels), levels):
            x[:, c] = value
            total += output.log_prob_per_dim(x)[:, c].double().exp()
        torch.testing.assert_close(total, torch.ones_like(total), atol=1e-5, rtol=0)


def by_the_papers_equation(parameters, x, mixtures, levels):
    """log p of one pixel of three channels in floats of Python and scipy, each term as in sections 2.1 and 2.2."""
    numbers, y = parameters.double().tolist(), (2 * x.double() - 1).tolist()
    logits, rest = numbers[:mixtures], numbers[mixtures:]
    location, log_scale, coefficients = (rest[i * 3 * mixtures : (i + 1) * 3 * mixtures] for i in range(3))
    total, half = 0.0, 1 / (levels - 1)
    for i, weight in enumerate(math.exp(logit) for logit in logits):
        mu, s, (a, b, g) = (t[3 * i : 3 * i + 3] for t in (location, log_scale, coefficients))
        red, green = y[0], y[1]
        means = [mu[0], mu[1] + math.tanh(a) * red, mu[2] + math.tanh(b) * red + math.tanh(g) * green]
        for value, mean, scale in zip(y, means, (math.exp(max(v, -7)) for v in s), strict=True):
            above = 1.0 if value > 1 - half else stats.logistic.cdf((value + half - mean) / scale)
            below = 0.0 if value < half - 1 else stats.logistic.cdf((value - half - mean) / scale)
            weight *= above - below
        total += weight
    return math.log(total / sum(math.exp(logit) for logit in logits))


def test_it_is_the_equation_of_the_paper():
    output, parameters = stated(4, 3, 256, 0.8)
    x = from_codes(torch.randint(256, (2, 3, 2, 3), generator=seeded(1)), 256)
    x[0, :, 0, 0], x[0, :, 0, 1] = torch.zeros(3), torch.ones(3)  # the open bins
    ours = output.log_prob_per_dim(x).sum(1)
    for b, i, j in itertools.product(range(2), range(2), range(3)):
        expected = by_the_papers_equation(parameters[b, :, i, j], x[b, :, i, j], 4, 256)
        assert float(ours[b, i, j]) == pytest.approx(expected, abs=1e-4)
    torch.testing.assert_close(output.log_prob(x), ours.sum((1, 2)))


def test_of_one_channel_it_is_the_discretised_logistic():
    output, parameters = stated(5, 1, 256)
    logits, location, log_scale = parameters.split(5, 1)
    other = DiscretisedLogistic(5).output(torch.cat([location, log_scale, logits], 1).unsqueeze(2), 256)
    x = from_codes(torch.randint(256, (2, 1, 2, 3), generator=seeded(1)), 256)
    torch.testing.assert_close(output.log_prob_per_dim(x), other.log_prob_per_dim(x))


def test_a_channel_depends_on_those_before_it_and_on_no_other():
    y = (2 * torch.rand(1, 4, 1, 1, generator=seeded()) - 1).double()
    output, _ = stated(3, 4, 256, size=(1, 1), batch=1)
    jacobian = torch.autograd.functional.jacobian(lambda y: output.conditionals(y)[0, :, :, 0, 0], y)
    influence = jacobian.abs().sum(0)[:, 0, :, 0, 0]
    earlier = torch.ones(4, 4).tril(-1).bool()
    assert torch.equal(influence > 0, earlier)


def test_samples_follow_the_mass_of_every_colour():
    output, parameters = stated(3, 3, 4, 1.5, size=(1, 1), batch=1)
    many = LogisticMixture(3).output(parameters.expand(40_000, -1, -1, -1), 4)
    x = many.sample(seeded(1))
    assert torch.equal(to_grid(x, 4), x)
    probability = of_every_colour(output.log_prob, colours(3, 4), 1, (1, 1)).exp().flatten()
    counts = (to_codes(x, 4)[..., 0, 0] @ torch.tensor([16, 4, 1])).bincount(minlength=64)
    often = probability * len(x) > 5
    observed, expected = counts[often].double(), probability[often].double() * len(x)
    assert int(often.sum()) > 20
    assert stats.chisquare(observed, expected * observed.sum() / expected.sum()).pvalue > 1e-4
    assert torch.equal(many.sample(seeded(1)), x) and not torch.equal(many.sample(seeded(2)), x)


@pytest.mark.parametrize("first", [1, 2])
def test_the_rest_of_a_pixel_is_drawn_given_its_first_channels(first):
    output, parameters = stated(3, 3, 4, 1.5, size=(1, 1), batch=1)
    many = LogisticMixture(3).output(parameters.expand(20_000, -1, -1, -1), 4)
    known = (torch.arange(3) < first)[:, None, None]
    given = from_codes(torch.tensor([2, 1, 0]), 4)[:, None, None]
    x = many.sample_rest(given.expand(20_000, 3, 1, 1), known.expand(20_000, 3, 1, 1), seeded())
    assert torch.equal(x[:, :first], given[:first].expand(20_000, -1, 1, 1))
    space = colours(3, 4)
    fits = (space[:, :first] == given[:first, 0, 0]).all(1)
    joint = of_every_colour(output.log_prob, space, 1, (1, 1)).exp().flatten()[fits].double()
    counts = (x[:, None, :, 0, 0] == space[fits]).all(2).sum(0).double()
    assert int(counts.sum()) == 20_000
    assert stats.chisquare(counts + 0.1, (joint / joint.sum()) * (counts + 0.1).sum()).pvalue > 1e-4


def test_the_mean_is_that_of_samples_where_the_scales_are_small():
    likelihood, k = LogisticMixture(2), 2
    parameters = torch.zeros(1, 20, 1, 1)
    parameters[:, k : k + 6] = torch.tensor([-0.4, 0.1, 0.3, 0.5, -0.2, 3.0])[:, None, None]  # blue: beyond white
    parameters[:, k + 6 : k + 12], parameters[:, k + 12 :] = -4.0, 0.6
    output = likelihood.output(parameters, 256)
    samples = likelihood.output(parameters.expand(20_000, -1, -1, -1), 256).sample(seeded())
    torch.testing.assert_close(output.mean[0], samples.mean(0), atol=0.01, rtol=0)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("levels", [2, 64, 256, 65536])
def test_values_and_gradients_are_finite_anywhere(channels, levels):
    likelihood = LogisticMixture(3)
    shape = likelihood.parameter_shape((channels, 2, 2), levels)
    for scale in (1e-3, 1.0, 30.0, 1e3):
        far = (scale * torch.randn(3, *shape, generator=seeded())).requires_grad_()
        x = from_codes(torch.randint(levels, (3, channels, 2, 2), generator=seeded(1)), levels)
        log_prob = likelihood.output(far, levels).log_prob(x)
        log_prob.sum().backward()
        assert bool(log_prob.isfinite().all()) and bool(far.grad.isfinite().all())
        assert float(far.grad.abs().sum()) > 0


def test_half_precision_and_autocast_are_evaluated_in_full():
    _, parameters = stated(5, 3, 256)
    x = from_codes(torch.randint(256, (2, 3, 2, 3), generator=seeded(1)), 256)
    rounded = parameters.bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        half = LogisticMixture(5).output(rounded, 256).log_prob(x)
    assert half.dtype == torch.float32
    assert torch.equal(half, LogisticMixture(5).output(rounded.float(), 256).log_prob(x))
    single = LogisticMixture(5).output(parameters, 256).log_prob(x)
    double = LogisticMixture(5).output(parameters.double(), 256).log_prob(x)
    assert double.dtype == torch.float64
    torch.testing.assert_close(single.double(), double, rtol=1e-5, atol=1e-4)


def test_impossible_arguments_are_refused():
    with pytest.raises(ValueError, match="mixtures=0"):
        LogisticMixture(0)
    with pytest.raises(ValueError, match="levels=None"):
        LogisticMixture().parameter_shape((3, 8, 8), None)
    with pytest.raises(ValueError, match=r"shape=\(8,\)"):
        LogisticMixture().parameter_shape((8,), 256)
