"""Attention, causal or to all, with rotary positions (Vaswani et al. 2017; Su et al. 2021), quick also on a CPU.

    o_t = Σ_{s ≤ t} w_ts v_s,   w_t = softmax_s(q_t · k_s / √d)

A GPU has a kernel that does all of it at once. The one that PyTorch has for CPUs takes longer than these products
written out, so there they are: for some rows t at a time, with the s that the last of them sees, so that half of the
products, those with the future, are left away.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

ROWS, BLOCKS = 64, 8  # at least so many at a time; in no more than so many parts
FEW = 1024  # positions, whose attention weights a memory holds easily


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal attention of the last t of T positions.

    Args:
        q: (B, heads, t, d), the queries of the last positions.
        k: (B, heads, T, d), the keys of all.
        v: (B, heads, T, d), the values of all.

    Returns:
        (B, heads, t, d).
    """
    t, length = q.shape[2], k.shape[2]
    if t > 1 and q.device.type == "cpu":
        return CausalAttention.apply(q, k, v)
    if t == 1 or t == length:  # `is_causal` lines the first query up with the first key: right for t = T alone
        return F.scaled_dot_product_attention(q, k, v, is_causal=t > 1)
    seen = torch.ones(t, length, dtype=torch.bool, device=q.device).tril(length - t)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=seen)


def attend_to_all(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention of each position to every one, (B, heads, T, d) each to the same.

    Written out for few positions in half precision on a CPU: there PyTorch's kernel takes about twice as long as the
    products, and its backward pass three to twelve times. In float32 it is as quick as they are.
    """
    if q.device.type == "cpu" and q.dtype.itemsize < 4 and q.shape[2] <= FEW:
        return (q * q.shape[3] ** -0.5 @ k.transpose(2, 3)).softmax(3) @ v
    return F.scaled_dot_product_attention(q, k, v)


class CausalAttention(torch.autograd.Function):
    """`attend`, in blocks of rows; its gradient is once differentiable."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """See `attend`."""
        queries, keys, values = (q * q.shape[-1] ** -0.5).flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1)
        batch, heads, t, _ = q.shape
        outputs, weights = q.new_empty(batch, t, heads, v.shape[3]).transpose(1, 2), []  # as what follows reads them
        for rows, seen in blocks(t, k.shape[2]):
            scores = queries[:, rows] @ keys[:, seen].transpose(1, 2)
            size = scores.shape[1]
            scores[:, :, -size:] += scores.new_full((size, size), -torch.inf).triu(1)  # the future
            weights.append(scores.softmax(2))
            outputs[:, :, rows] = (weights[-1] @ values[:, seen]).unflatten(0, (batch, heads))
        if any(ctx.needs_input_grad):
            ctx.save_for_backward(queries, keys, values, outputs, *weights)
        return outputs

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """∂v_s = Σ_t w_ts ∂o_t; ∂score_ts = w_ts (∂o_t · v_s − ∂o_t · o_t); the rest is the rule of products."""
        queries, keys, values, outputs, *weights = ctx.saved_tensors
        of_outputs, along = gradient.flatten(0, 1), (gradient * outputs).sum(3, keepdim=True).flatten(0, 1)
        of_queries = torch.empty_like(queries)
        of_keys: list[Tensor] = []
        of_values: list[Tensor] = []
        for (rows, seen), weight in zip(blocks(queries.shape[1], keys.shape[1]), weights, strict=True):
            of_scores = of_outputs[:, rows] @ values[:, seen].transpose(1, 2)
            of_scores.sub_(along[:, rows]).mul_(weight)
            of_queries[:, rows] = of_scores @ keys[:, seen]
            add_product(of_keys, of_scores, queries[:, rows])
            add_product(of_values, weight, of_outputs[:, rows])
        of_queries *= queries.shape[-1] ** -0.5
        found = of_queries, torch.cat(of_keys, 1), torch.cat(of_values, 1)
        of_q, of_k, of_v = (t.unflatten(0, gradient.shape[:2]) for t in found)
        return of_q, of_k, of_v


def add_product(parts: list[Tensor], left: Tensor, right: Tensor) -> None:
    """Adds leftᵀ right, (B, s, d), to a sum whose rows so far, fewer than s, are the parts in a row; the rest
    of its rows become one part more.

    Each part has memory of its own: into a piece of a larger one PyTorch multiplies a batch's matrices one by one.
    """
    first = 0
    for part in parts:
        last = first + part.shape[1]
        part.baddbmm_(left[:, :, first:last].transpose(1, 2), right)
        first = last
    parts.append(left[:, :, first:].transpose(1, 2) @ right)


def blocks(t: int, length: int) -> Iterator[tuple[slice, slice]]:
    """Rows of the last t of `length` positions, some at a time, and which positions they see."""
    size = max(ROWS, math.ceil(t / BLOCKS))
    for begin in range(0, t, size):
        end = min(begin + size, t)
        yield slice(begin, end), slice(0, length - t + end)


def rotations(length: int, dim: int, base: float = 10_000.0) -> tuple[Tensor, Tensor]:
    """cos and sin of the angles t · base^(−2i / dim), (length, dim / 2) each; float32."""
    angles = torch.arange(length).double()[:, None] * base ** (-torch.arange(0, dim, 2).double() / dim)
    return angles.cos().float(), angles.sin().float()


def grid_rotations(grid: Sequence[int], dim: int, base: float = 10_000.0) -> tuple[Tensor, Tensor]:
    """The same for each place of a grid, row by row: (N, dim / 2) each.

    Each axis turns an equal share of the pairs by the position on it, so that q_t · k_s depends on how far apart two
    places lie along each axis, and on nothing else. dim is a multiple of twice the number of axes.
    """
    axes = [rotations(side, dim // len(grid), base) for side in grid]

    def spread(tables: list[Tensor]) -> Tensor:
        placed = [
            table.view(*(len(table) if i == axis else 1 for i in range(len(grid))), -1).expand(*grid, -1)
            for axis, table in enumerate(tables)
        ]
        return torch.cat(placed, -1).flatten(0, -2)

    return spread([cos for cos, _ in axes]), spread([sin for _, sin in axes])


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotates each pair (x_i, x_{i + d/2}) by its position's angle, so that q_t · k_s depends on t − s (eq. 34).

    Args:
        x: (..., T, d).
        cos: (T, d / 2), of the positions' angles.
        sin: (T, d / 2).

    Returns:
        (..., T, d).
    """
    turn = Rotation.apply if torch.is_grad_enabled() else rotated
    return turn(x, cos.to(x.dtype), sin.to(x.dtype))


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """`rotate`, in one pass, of what asks for no gradient."""
    first, second = x.chunk(2, -1)
    if torch.compiler.is_compiling():  # which makes one pass of it itself
        return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)
    result = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    to_first, to_second = result.chunk(2, -1)
    torch.mul(first, cos, out=to_first).addcmul_(second, sin, value=-1)
    torch.mul(second, cos, out=to_second).addcmul_(first, sin)
    return result


class Rotation(torch.autograd.Function):
    """`rotate` with its gradient: the transpose of a rotation is the rotation back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """See `rotate`."""
        ctx.save_for_backward(cos, sin)
        return rotated(x, cos, sin)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """The gradient, rotated back."""
        cos, sin = ctx.saved_tensors
        return rotate(gradients[0], cos, -sin), None, None
