"""MADE: the masks' degrees, any order, and continuous dimensions against quadrature and closed forms."""

import math

import pytest
import torch
from torch.distributions import Categorical, MixtureSameFamily, Normal

from genzoo.zoo import MADE


def loud(shape, levels, scale=2.0, **options):
    torch.manual_seed(0)
    model = MADE(shape, levels, **options).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(scale)
    return model


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("shape", "levels", "options"),
    [
        ((1, 4, 5), 2, {}),
        ((3, 3, 2), 7, {"depth": 3}),
        ((1, 4, 5), 2, {"order_seed": 5, "depth": 1}),
        ((9,), None, {"mixtures": 2, "order_seed": 0}),
        ((1, 12), 16, {"width": 16}),
    ],
)
def test_the_jacobian_is_exactly_zero_from_the_dimension_on_and_alive_before_it(shape, levels, options):
    model = loud(shape, levels, **{"width": 2 * math.prod(shape), **options})
    x = torch.rand(1, math.prod(shape), generator=seeded())

    def outputs(x):
        return model.network(x).view(model.num_outputs, -1)[:, model.order]

    jacobian = torch.autograd.functional.jacobian(outputs, x).abs().sum(0).squeeze(1)[:, model.order]
    earlier = torch.ones_like(jacobian).tril(-1).bool()
    assert torch.equal(jacobian[~earlier], torch.zeros_like(jacobian[~earlier]))
    assert bool((jacobian[earlier] > 0).all())


def test_tokens_are_read_as_such_and_causally():
    """One-hot inputs: the outputs of a token do not change with any token from it on."""
    model = loud((5,), 4, width=20, order_seed=2)
    a, b = torch.randint(4, (2, 30, 5), generator=seeded())
    for place in range(5):
        mixed = a.clone()
        mixed[:, model.order[place:]] = b[:, model.order[place:]]
        same, other = model.logits(a, None), model.logits(mixed, None)
        assert torch.equal(same[..., model.order[: place + 1]], other[..., model.order[: place + 1]])
        if place < 4:
            assert not torch.equal(same[..., model.order[place + 1]], other[..., model.order[place + 1]])


def test_an_order_seed_is_a_permutation_and_a_different_model():
    orders = [MADE((1, 4, 4), 2, order_seed=seed).order for seed in (None, 0, 1)]
    assert all(torch.equal(order.sort().values, torch.arange(16)) for order in orders)
    assert torch.equal(orders[0], torch.arange(16))
    assert not torch.equal(orders[1], orders[2])


def test_points_have_a_density_that_integrates_to_one():
    model = loud((2,), None, 1.5, width=16, mixtures=3).double()
    axis = torch.linspace(-30, 30, 1201, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    density = model.log_prob(grid).exp().view(1201, 1201)
    assert float(density.sum() * (axis[1] - axis[0]) ** 2) == pytest.approx(1, abs=1e-4)


def test_each_conditional_is_the_mixture_that_its_parameters_state():
    model = loud((3,), None, width=16, mixtures=4).double()
    x = torch.randn(50, 3, generator=seeded(), dtype=torch.float64)
    weight, mean, log_scale = model.components(model.logits(x, None))
    mixture = MixtureSameFamily(
        Categorical(logits=weight.movedim(1, -1)), Normal(mean.movedim(1, -1), log_scale.exp().movedim(1, -1))
    )
    torch.testing.assert_close(model.log_prob_per_dim(x, None), mixture.log_prob(x))
    assert float(mean.detach().std(0).max()) > 0.1  # and the parameters depend on what came before


def test_a_uniform_number_becomes_the_mixture_s_quantile_within_the_component_that_it_chooses():
    model = MADE((1,), None, mixtures=2)
    parameters = torch.tensor([math.log(0.25), math.log(0.75), -3.0, 5.0, math.log(2.0), math.log(0.5)])
    noise = (torch.arange(20000) + 0.5) / 20000
    x = model.choose(parameters.expand(20000, 6), noise)
    first, second = x[:5000], x[5000:]
    for part, (mean, scale) in ((first, (-3.0, 2.0)), (second, (5.0, 0.5))):
        quantiles = Normal(mean, scale).cdf(part)
        torch.testing.assert_close(quantiles, (torch.arange(len(part)) + 0.5) / len(part), atol=1e-3, rtol=0)


def test_it_learns_a_density():
    """Two moons of a kind: y = ±1 + x² with noise. The entropy is known, so the loss has a floor."""
    generator = seeded()
    x = torch.randn(4096, generator=generator)
    side = torch.randint(2, (4096,), generator=generator) * 2 - 1
    points = torch.stack([x, side + 0.5 * x**2 + 0.1 * torch.randn(4096, generator=generator)], 1)
    floor = 0.5 * math.log(2 * math.pi * math.e) + math.log(2) + 0.5 * math.log(2 * math.pi * math.e * 0.01)
    torch.manual_seed(0)
    model = MADE((2,), None, width=64, depth=2, mixtures=4)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for step in range(200):
        batch = points[torch.randint(3072, (128,), generator=generator)]
        loss = model.objective(batch, None)["loss"].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        optimizer.param_groups[0]["lr"] = 1e-2 * (1 - step / 200)
    nll = -float(model.eval().log_prob(points[3072:]).mean())
    assert floor - 0.1 < nll < floor + 0.2
    draws = model.sample(2000, generator=seeded())
    residual = draws[:, 1] - 0.5 * draws[:, 0] ** 2
    assert 0.45 < float((residual > 0).double().mean()) < 0.55
    assert float((residual.abs() - 1).abs().median()) < 0.15


@pytest.mark.parametrize("arguments", [{"width": 0}, {"depth": 0}, {"mixtures": 0}, {"dropout": 1.0}])
def test_impossible_arguments_are_refused(arguments):
    (name,) = arguments
    with pytest.raises(ValueError, match=f"{name}="):
        MADE((4,), None, **arguments)


def test_sounds_are_read_from_their_beginning():
    """What fills them up comes last, or it would be heeded by what sounds."""
    MADE((1, 8), 256)
    with pytest.raises(ValueError, match="order_seed: sounds end"):
        MADE((1, 8), 256, order_seed=1)
