"""What KL is spent on, against quadrature and closed forms."""

import math

import pytest
import torch
from torch.distributions import Independent, MixtureSameFamily, Normal, kl_divergence

from genzoo.zoo.latent import posterior
from genzoo.zoo.latent.posterior import log_aggregate, most, posterior_figures, thinned


def test_the_aggregate_is_the_mixture_of_all_posteriors():
    torch.manual_seed(0)
    mean, scale = torch.randn(700, 3).double(), torch.rand(700, 3).double() + 0.1
    z = 2 * torch.randn(600, 3).double()
    mixture = MixtureSameFamily(
        torch.distributions.Categorical(torch.ones(700).double()), Independent(Normal(mean, scale), 1)
    )
    torch.testing.assert_close(log_aggregate(z, mean, scale), mixture.log_prob(z), rtol=1e-9, atol=1e-9)


def test_kl_is_information_and_the_distance_of_the_aggregate_from_the_prior():
    """Both parts by quadrature in one dimension, over a thousand draws each of a few posteriors."""
    mean = torch.tensor([[-1.5], [0.2], [1.0], [2.5]]).double()
    scale = torch.tensor([[0.3], [0.5], [0.2], [0.8]]).double()
    z = torch.linspace(-9, 9, 20_001).double()[:, None]
    step, log_q = float(z[1] - z[0]), log_aggregate(z, mean, scale)
    marginal = float((log_q.exp() * (log_q - Normal(0.0, 1.0).log_prob(z)[:, 0])).sum() * step)
    kl = float(kl_divergence(Normal(mean, scale), Normal(0.0, 1.0)).sum(1).mean())
    # the figures take one draw of each posterior; repeating all of them changes q(z) not at all
    figures = posterior_figures(mean.repeat(2000, 1), scale.repeat(2000, 1))
    assert float(figures["marginal_kl"]) == pytest.approx(marginal, abs=0.02)
    assert float(figures["mutual_information"]) == pytest.approx(kl - marginal, abs=0.02)
    assert float(figures["active_units"]) == 1


def test_of_very_many_some_are_looked_at_spread_over_all(monkeypatch):
    monkeypatch.setattr(posterior, "MOST", 4)
    rows = torch.arange(10.0).view(1, 10, 1).expand(2, 10, 3)
    assert thinned(rows)[0, :, 0].tolist() == [0, 2, 5, 7]
    assert thinned(rows[:, :3])[0, :, 0].tolist() == [0, 1, 2]
    monkeypatch.setattr(posterior, "LATENTS", 1)  # of three, √3 times as few
    assert thinned(rows)[0, :, 0].tolist() == [0, 5]
    for rank, shares in ((0, [0, 2]), (1, [5, 7])):  # of two processes, whose data lie one after the other
        monkeypatch.setattr(posterior, "LATENTS", 256)
        monkeypatch.setattr(posterior, "gather", lambda count: [4, 6])
        monkeypatch.setattr(posterior, "rank", lambda rank=rank: rank)
        mine = rows[:, :4] if rank == 0 else rows[:, 4:]
        assert thinned(mine)[1, :, 2].tolist() == shares


def test_of_many_latents_as_much_is_done_as_of_few() -> None:
    assert [most(latents) for latents in (1, 256, 1024, 8192)] == [10_000, 10_000, 5_000, 1_767]


def test_posteriors_far_apart_tell_which_datum_it_is_and_equal_ones_nothing():
    apart = posterior_figures(100 * torch.randn(50, 2), torch.full((50, 2), 1e-3))
    assert float(apart["mutual_information"]) == pytest.approx(math.log(50), abs=1e-6)
    mean = torch.tensor([0.0, 0.7]).expand(50, 2)
    collapsed = posterior_figures(mean, torch.ones(50, 2))
    assert float(collapsed["mutual_information"]) == pytest.approx(0, abs=1e-9)
    assert float(collapsed["marginal_kl"]) == pytest.approx(0.5 * 0.7**2, abs=1e-6)
    assert float(collapsed["active_units"]) == 0
