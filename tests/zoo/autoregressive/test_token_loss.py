"""The loss over a large vocabulary, made in parts, against the one made at once."""

import pytest
import torch
from torch.nn import functional as F

from genzoo.zoo import GPT
from genzoo.zoo.autoregressive import token_loss
from genzoo.zoo.autoregressive.token_loss import token_nats


@pytest.mark.parametrize("most", [1, 60, 100, 10**6], ids=lambda most: f"at most {most} logits")
@pytest.mark.parametrize("places", [1, 7, 10])
def test_nats_and_gradients_are_those_of_all_logits_at_once(most, places, monkeypatch):
    monkeypatch.setattr(token_loss, "MOST_LOGITS", most)
    torch.manual_seed(0)
    h = torch.randn(places, 6, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(20, 6, dtype=torch.float64, requires_grad=True)
    tokens, each = torch.randint(20, (places,)), torch.randn(places, dtype=torch.float64)
    ours, expected = token_nats(h, weight, tokens), F.cross_entropy(h @ weight.t(), tokens, reduction="none")
    torch.testing.assert_close(ours, expected)
    for gradient, other in zip(
        *(torch.autograd.grad((nats * each).sum(), (h, weight)) for nats in (ours, expected)), strict=True
    ):
        torch.testing.assert_close(gradient, other)


def test_in_half_precision_the_nats_are_in_full(monkeypatch):
    torch.manual_seed(0)
    h, weight, tokens = torch.randn(50, 16, requires_grad=True), torch.randn(30, 16), torch.randint(30, (50,))
    expected = F.cross_entropy(h @ weight.t(), tokens, reduction="none")
    for most in (100, 10**6):
        monkeypatch.setattr(token_loss, "MOST_LOGITS", most)
        with torch.autocast("cpu", torch.bfloat16):
            nats = token_nats(h, weight, tokens)
        assert nats.dtype == torch.float32
        torch.testing.assert_close(nats, expected, rtol=0.02, atol=0.05)
        (gradient,) = torch.autograd.grad(nats.mean(), h, retain_graph=True)
        (other,) = torch.autograd.grad(expected.mean(), h, retain_graph=True)
        assert gradient.dtype == torch.float32
        torch.testing.assert_close(gradient, other, rtol=0.05, atol=2e-3)


def test_a_gpt_learns_the_same_in_parts(monkeypatch):
    torch.manual_seed(0)
    model, x = GPT((12,), 30, width=16, depth=1), torch.randint(30, (3, 12))
    gradients = []
    for most in (60, 10**6):
        monkeypatch.setattr(token_loss, "MOST_LOGITS", most)
        model.zero_grad()
        model.objective(x, None)["loss"].mean().backward()
        gradients.append({name: parameter.grad.clone() for name, parameter in model.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], rtol=1e-5, atol=1e-5, msg=name)
