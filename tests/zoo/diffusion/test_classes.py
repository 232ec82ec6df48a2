"""The likelihood of a conditional model without a label: what the noise of its terms does, and does not, to it."""

import math

import pytest
import torch
from torch import nn

from genzoo.zoo import DDPM, GAN, CosineBetas, FlowMatching, PerDatum, PixelCNN, WaveNet
from genzoo.zoo.diffusion.parameterisation import predicted
from genzoo.zoo.randomness import normal, repeatable, twin


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def answered_by(monkeypatch, model, x, log_probs, noise=None):
    """Has log p(x | y) looked up, (classes, B), with or without noise; returns which classes were asked for."""
    asked = []

    def look_up(given, y, num_particles, generator):
        asked.extend(y.tolist())
        rows = (given.flatten(1)[:, None] == x.flatten(1)[None]).all(2).double().argmax(1)
        return log_probs[y, rows] + (0 if noise is None else noise(len(y), generator))

    for name in ("log_prob_given", "about_log_prob_given"):
        monkeypatch.setattr(model, name, look_up)
    return asked


def test_likelihood_without_a_label_is_the_mean_over_classes(monkeypatch):
    model = FlowMatching((1, 1, 2), 17, num_classes=3, conditional=True)
    x = torch.randint(17, (4, 1, 1, 2)) / 16
    log_probs = torch.randn(3, 4).double()
    answered_by(monkeypatch, model, x, log_probs)
    assert torch.equal(
        model.log_prob(x, labels=torch.tensor([2, 0, 1, 1])).double()[0], log_probs[2, 0].float().double()
    )
    torch.testing.assert_close(model.log_prob(x).double().exp(), log_probs.exp().mean(0), rtol=1e-5, atol=0)
    bits = model.bits_per_dim(x, labels=torch.tensor([2, 0, 1, 1])).double()
    torch.testing.assert_close(bits[0], -log_probs[2, 0] / (2 * math.log(2)), rtol=1e-5, atol=0)


def test_a_class_without_a_number_leaves_none(monkeypatch):
    """A likelihood of 1, the sum over no class, would be the best there is."""
    model = FlowMatching((1, 1, 2), 17, num_classes=3, conditional=True)
    x = torch.arange(8).view(4, 1, 1, 2) / 16
    log_probs = torch.randn(3, 4).double()
    log_probs[1, 2] = math.nan
    answered_by(monkeypatch, model, x, log_probs)
    assert model.log_prob(x).isnan().tolist() == [False, False, True, False]


@pytest.mark.parametrize("family", [DDPM, FlowMatching])
def test_likelihood_without_a_label_is_not_above_that_with_one_where_classes_are_alike(family, monkeypatch):
    """All p(x | y) are the same, so p(x) is it. The noise of the bounds must not pass for likelihood."""
    monkeypatch.setattr(family, "flow_steps", 4)
    torch.manual_seed(0)
    model = family((6,), None, num_classes=5, conditional=True, width=16).eval()
    with torch.no_grad():
        model.network.conditioning.classes.weight.zero_()
    x, y = torch.randn(400, 6, generator=seeded()), torch.randint(5, (400,), generator=seeded())
    given, marginal = model.log_prob(x, labels=y, generator=seeded(1)), model.log_prob(x, generator=seeded(2))
    error = float((marginal - given).std()) / math.sqrt(400)
    assert float((marginal - given).mean()) < 3 * error
    assert float(marginal.mean()) > float(given.mean()) - math.log(5) - 3 * error


@pytest.mark.parametrize(
    ("family", "shape", "levels"),
    [(DDPM, (2,), None), (GAN, (2,), None), (PixelCNN, (1, 4, 4), 4), (WaveNet, (1, 64), 256)],
)
def test_conditional_as_the_data_are(family, shape, levels):
    for num_classes, expected in ((None, None), (1, None), (2, 2), (10, 10)):
        assert family(shape, levels, num_classes=num_classes, conditional="auto").num_classes == expected
        assert family(shape, levels, num_classes=num_classes).num_classes is None
    with pytest.raises(ValueError, match="conditional='yes': choose true, false or 'auto'"):
        family(shape, levels, num_classes=2, conditional="yes")


class Prior:
    """Classes with shares, one of them with none."""

    @property
    def class_shares(self):
        return torch.tensor([0.75, 0.0, 0.25], dtype=torch.float64)


class DDPMWithPrior(Prior, DDPM):
    """A DDPM with it."""


def test_classes_count_by_their_shares(monkeypatch):
    model, x = DDPMWithPrior((2,), None, num_classes=3, conditional=True), torch.randn(4, 2)
    log_probs = torch.randn(3, 4, generator=seeded()).double()
    asked = answered_by(monkeypatch, model, x, log_probs)
    expected = 0.75 * log_probs[0].exp() + 0.25 * log_probs[2].exp()
    torch.testing.assert_close(model.log_prob(x).double().exp(), expected, rtol=1e-5, atol=0)
    assert set(asked) == {0, 2}  # what has no share is not even looked at


@pytest.mark.parametrize("kind", ["none", "generator", "per datum"])
def test_noise_that_all_classes_share_says_nothing_of_the_class(kind, monkeypatch):
    """L_y = truth_y + ε: q is exact, where with noise of their own it would be a guess, which costs hundreds."""
    model, x = DDPM((2,), None, num_classes=3, conditional=True), torch.randn(50, 2, generator=seeded())
    truth = torch.randn(3, 50, generator=seeded(1)).double()

    def noise(num, generator):
        return 300 * normal((num,), like=truth, generator=generator)

    def generator():
        torch.manual_seed(3)
        return {"none": None, "generator": seeded(2), "per datum": PerDatum(x)}[kind]

    answered_by(monkeypatch, model, x, truth, noise)
    same, replay = generator(), repeatable(generator(), x.device)
    noise(50, replay)  # finds q, and is the same for all classes
    torch.manual_seed(3)
    value = model.log_prob(x, generator=same)
    expected = truth.logsumexp(0) - math.log(3) + sum(q * noise(50, replay) for q in truth.softmax(0))
    torch.testing.assert_close(value, expected.float(), rtol=1e-5, atol=1e-3)
    if kind != "none":  # it has gone on by these draws, as is right for those that come after
        torch.testing.assert_close(normal((50,), like=x, generator=same), normal((50,), like=x, generator=replay))


def test_what_is_very_unlikely_is_not_looked_at_closely(monkeypatch):
    """Each datum for itself: and the bound loses nothing that could be seen."""
    model, x = DDPM((2,), None, num_classes=3, conditional=True), torch.randn(3, 2)
    log_probs = torch.tensor([[0.0, -20.0, 5.0], [-30.0, 0.0, 5.0], [-1.0, -50.0, -40.0]]).double()
    asked = answered_by(monkeypatch, model, x, log_probs)
    value = model.log_prob(x, generator=PerDatum(x))
    assert sorted(asked[9:]) == [0, 0, 1, 1, 2]  # after all three of the three data: 0 and 2, 1, 0 and 1
    torch.testing.assert_close(value.double(), log_probs.logsumexp(0) - math.log(3), rtol=0, atol=1e-3)


def test_half_the_steps_tell_classes_apart_as_well():
    """Of a flow: log_joint is rough, and what is made of it is as good as with all steps."""
    torch.manual_seed(0)
    model = FlowMatching((6,), None, num_classes=5, conditional=True, width=16).eval()
    x = torch.randn(40, 6, generator=seeded())
    found = model.log_prob(x, generator=PerDatum(x))
    model.about_log_prob_given = model.log_prob_given
    model.unlikely = 1e-300
    torch.testing.assert_close(model.log_prob(x, generator=PerDatum(x)), found, rtol=0, atol=0.05)


def test_a_twin_draws_what_the_other_will_draw():
    for generator in (seeded(), PerDatum(torch.randn(4, 2))):
        normal((4, 3), like=torch.zeros(()), generator=generator)
        other = twin(generator)
        first = normal((4, 3), like=torch.zeros(()), generator=other)
        assert torch.equal(first, normal((4, 3), like=torch.zeros(()), generator=generator))
        assert not torch.equal(first, normal((4, 3), like=torch.zeros(()), generator=generator))


class OfClasses(nn.Module):
    """The best network for N(m_y, 0.3²) around a mean for each class."""

    def __init__(self, schedule, means):
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros(()))
        self.schedule, self.means = schedule, means

    def forward(self, scaled, c_noise, labels=None):
        noise = self.schedule.at(-8 * c_noise.double()).like(scaled)
        x, mean = scaled * (noise.alpha.square() + noise.sigma.square()).sqrt(), self.means[labels]
        gain = noise.alpha * 0.09 / (noise.alpha.square() * 0.09 + noise.sigma.square())
        x0 = mean + gain * (x - noise.alpha * mean)
        return predicted("v", noise, x0, (x - noise.alpha * x0) / noise.sigma) + 0 * self.anchor


def test_the_likeliest_class_is_the_true_one():
    """By one look at one step of the chain: nearly always, where with noise of their own it was a guess."""
    schedule, means = CosineBetas(), torch.randn(5, 40, generator=seeded())
    network = OfClasses(schedule, means)
    model = DDPM(
        (40,), None, schedule=schedule, prediction="v", network=network, num_classes=5, conditional=True
    ).eval()
    y = torch.arange(5).repeat(40)
    x = means[y] + 0.3 * torch.randn(200, 40, generator=seeded(1))
    with torch.no_grad():
        own = torch.stack([model.log_prob_given(x, torch.full_like(y, c), 1, seeded(c)) for c in range(5)])
        common = model.log_joint(x, 1, PerDatum(x))
    shares = [float((values.argmax(0) == y).double().mean()) for values in (own, common)]
    assert shares[0] < 0.6
    assert shares[1] > 0.9
    exact = torch.distributions.Normal(means[y], 0.3).log_prob(x).sum(1) - math.log(5)  # the classes lie far apart
    model.fit_variances([(x, y)], num_particles=100)
    value = model.log_prob(x, num_particles=50, generator=PerDatum(x))
    error = float((value - exact).std()) / math.sqrt(200)
    assert error < 0.6
    assert float((value - exact).mean()) == pytest.approx(0, abs=4 * error)


@pytest.mark.parametrize("family", [DDPM, FlowMatching])
def test_every_step_of_a_completion_is_told_the_class(family, monkeypatch):
    torch.manual_seed(0)
    model = family((6,), None, num_classes=3, conditional=True, width=16).eval()
    x, labels, asked = torch.randn(2, 6), torch.tensor([2, 0]), []
    predict = family.predict
    monkeypatch.setattr(family, "predict", lambda self, x, t, y: asked.append(y) or predict(self, x, t, y))
    known = torch.arange(6) < 3
    out = model.complete(x, known, num_samples=2, labels=labels, generator=seeded())
    assert asked and all(torch.equal(y, torch.tensor([2, 0, 2, 0])) for y in asked)
    assert torch.equal(out[:, :, :3], x[:, :3].expand(2, 2, 3))
    asked.clear()
    model.complete(x, known, generator=seeded())
    assert asked and all(y is None for y in asked)
