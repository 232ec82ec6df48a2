"""A model in half precision computes in half precision within its network, and nowhere else."""

import copy

import pytest
import torch
from families import few_steps
from torch import nn

from genzoo.zoo import DDPM, FlowMatching, PerDatum, ScoreModel

HALVES = [torch.bfloat16, torch.float16]
DATA = [((1, 8, 8), 17), ((1, 8, 8), 256), ((2,), None)]
cases = [pytest.param(f, *d, id=f"{f.__name__}-{d[1]}") for f in (DDPM, ScoreModel, FlowMatching) for d in DATA]


def data(shape, levels):
    generator = torch.Generator().manual_seed(0)
    if levels is None:
        return torch.randn(6, *shape, generator=generator)
    return torch.randint(levels, (6, *shape), generator=generator) / (levels - 1)


class Halves(nn.Module):
    """Says numbers that any precision can hold, whatever it is asked for."""

    def __init__(self):
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros(()))
        self.asked = set()

    def forward(self, x, c_noise, labels=None):
        self.asked.add((x.dtype, c_noise.dtype))
        return (2 * torch.ones_like(x).cumsum(-1) % 3 - 1) / 2 + self.anchor


@pytest.mark.parametrize("half", HALVES, ids=str)
@pytest.mark.parametrize(("family", "shape", "levels"), cases)
def test_figures_are_those_of_single_precision_where_the_network_says_the_same(family, shape, levels, half):
    x, network = data(shape, levels), Halves()
    single = family(shape, levels, network=network).eval()
    low = family(shape, levels, network=copy.deepcopy(network)).eval().to(half)
    u = torch.linspace(0.1, 0.9, 6)
    for figure in (
        lambda model: model.log_prob(x, num_particles=3, generator=PerDatum(x)),
        lambda model: model.anomaly_score(x),
        lambda model: model.errors(x, None, u, torch.Generator().manual_seed(1))["loss"].detach(),
        lambda model: model.evaluation(x, None, PerDatum(x))["loss"].detach(),
        lambda model: model.invert(x),
    ):
        ours, theirs = figure(low), figure(single)
        assert ours.dtype == torch.float32
        assert torch.equal(ours, theirs)
    assert low.network.asked == {(half, torch.float32)}  # a noise level is a measurement


@pytest.mark.parametrize("half", HALVES, ids=str)
@pytest.mark.parametrize(("family", "shape", "levels"), cases)
def test_it_takes_what_it_gives(family, shape, levels, half, monkeypatch):
    few_steps(monkeypatch, flow=2, steps=3, repeats=3)
    torch.manual_seed(0)
    model = family(shape, levels, width=16).eval().to(half)
    x = model.sample(3, generator=torch.Generator().manual_seed(0))
    known = torch.zeros(shape, dtype=torch.bool)
    made = (x, model.complete(x, known, generator=PerDatum(x))[0], model.generate(model.invert(x)))
    for given in (*made, model.interpolate(x, x.flip(0), 3)[1], model.sample_path(3, num_frames=2)[0]):
        assert given.dtype == torch.float32
        assert model.log_prob(given, generator=PerDatum(given)).dtype == torch.float32
    model.objective(data(shape, levels), None)["loss"].mean().backward()
    assert all(bool(p.grad.isfinite().all()) and p.grad.dtype == half for p in model.parameters())


def test_data_in_half_precision_are_taken_where_they_lie_on_the_grid():
    model = DDPM((1, 8, 8), 17, network=Halves()).eval().bfloat16()
    x = data((1, 8, 8), 17)
    low = model.log_prob(x.bfloat16(), generator=PerDatum(x))
    assert low.dtype == torch.float32
    assert torch.equal(low, model.log_prob(x, generator=PerDatum(x)))
    model.fit_variances([x.bfloat16()])
    assert bool(model.log_errors.isfinite().all())
