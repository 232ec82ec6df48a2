"""−log p of tokens under a softmax over a large vocabulary, without holding all logits.

    nats_n = log Σ_k exp(e_k · h_n) − e_{x_n} · h_n,   ∂nats_n / ∂logits_nk = p_nk − [k = x_n]

The logits of 2,048 tokens over 8,000 words are 64 MiB, their probabilities as much, the gradient as much again. Here
they are made for a part of the tokens at a time, and once more on the way back: a product more, and less time all the
same, since what does not fit into the caches is not written out and read back.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from genzoo.zoo.networks.linear import linear
from genzoo.zoo.precision import full_precision

MOST_LOGITS = 2**22  # at a time


def token_nats(h: Tensor, weight: Tensor, tokens: Tensor) -> Tensor:
    """How unexpected tokens are.

    Args:
        h: (N, width), what the network says at each of N places.
        weight: (levels, width), e_k of each token.
        tokens: (N,) int64 in [0, levels), what stands there.

    Returns:
        (N,), nats, in float32 at least.
    """
    if tokens.numel() * len(weight) <= MOST_LOGITS:
        return F.cross_entropy(full_precision(linear(h, weight)), tokens, reduction="none")
    if torch.is_autocast_enabled(h.device.type):
        half = torch.get_autocast_dtype(h.device.type)
        h, weight = h.to(half), weight.to(half)
    return TokenNats.apply(h, weight, tokens)


class TokenNats(torch.autograd.Function):
    """`token_nats`, in parts; once differentiable."""

    @staticmethod
    def forward(ctx: Any, h: Tensor, weight: Tensor, tokens: Tensor) -> Tensor:
        """See `token_nats`."""
        ctx.save_for_backward(h, weight, tokens)
        parts = [
            F.cross_entropy(full_precision(linear(h[n], weight)), tokens[n], reduction="none")
            for n in parted(h, weight)
        ]
        return torch.cat(parts)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        """∂h = (p − onehot) E and ∂E = (p − onehot)ᵀ h, each place by its gradient."""
        h, weight, tokens = ctx.saved_tensors
        of_h, of_weight = torch.empty_like(h), torch.zeros_like(weight, dtype=gradient.dtype)
        for n in parted(h, weight):
            of_logits = full_precision(linear(h[n], weight)).softmax(1)
            of_logits[torch.arange(len(of_logits), device=h.device), tokens[n]] -= 1
            of_logits = of_logits.mul_(gradient[n, None]).to(h.dtype)
            of_h[n] = linear(of_logits, weight.t())
            of_weight += linear(of_logits.t(), h[n].t())
        return of_h, of_weight.to(weight.dtype), None


def parted(h: Tensor, weight: Tensor) -> Iterator[slice]:
    """The places, so many at a time that their logits are `MOST_LOGITS` or fewer."""
    size = max(1, MOST_LOGITS // len(weight))
    for begin in range(0, len(h), size):
        yield slice(begin, min(begin + size, len(h)))
