"""The transformer: causal, position t of the output sees positions 0 … t of the input and no other; or each sees all.

Pre-norm residual blocks (Vaswani et al. 2017; Xiong et al. 2020) with rotary positions (Su et al. 2021). No
biases.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genzoo.zoo.networks.attention import attend, attend_to_all, grid_rotations, rotate
from genzoo.zoo.networks.linear import Linear


class KeyValueCache:
    """The keys and values of the positions so far, which is all that later positions ask of them.

    Allocated once, filled from the left; `Transformer.forward` goes on from position `length`.

    Args:
        transformer: whose layers it serves.
        batch_size: B.
        like: gives device and dtype.
    """

    def __init__(self, transformer: "Transformer", batch_size: int, like: Tensor) -> None:
        heads, head_dim = transformer.heads, transformer.width // transformer.heads
        size = (batch_size, heads, transformer.max_length, head_dim)
        self.held = [(like.new_zeros(size), like.new_zeros(size)) for _ in transformer.blocks]
        self.length = 0

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Puts the new positions' keys and values, (B, heads, t, head_dim), behind the old; returns all of them."""
        end = self.length + keys.shape[2]
        held_keys, held_values = self.held[layer]
        held_keys[:, :, self.length : end], held_values[:, :, self.length : end] = keys, values
        return held_keys[:, :, :end], held_values[:, :, :end]


class Transformer(nn.Module):
    """A stack of blocks and a final norm.

    Args:
        width: numbers at each position.
        depth: blocks.
        heads: of attention in each block; width / heads is even, for the rotations.
        expansion: hidden units of a block's perceptron, as a multiple of `width`.
        max_length: the most positions.
        dropout: of what each branch adds, while training.
        causal: whether a position sees those before it and itself, or all.
        grid: rows and columns, if the positions are those of a grid, row by row; width / heads is then a multiple of
            4, and max_length their number. None: the positions are a line.

    Raises:
        ValueError: if the sizes do not fit each other.
    """

    cos: Tensor
    sin: Tensor

    def __init__(
        self,
        width: int,
        depth: int,
        heads: int,
        *,
        max_length: int,
        expansion: int = 4,
        dropout: float = 0.0,
        causal: bool = True,
        grid: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        grid = (max_length,) if grid is None else tuple(grid)
        turns = 2 * len(grid)
        if min(width, depth, heads, expansion, max_length) < 1 or width % (turns * heads):
            raise ValueError(
                f"width={width}, depth={depth}, heads={heads}, expansion={expansion}, max_length={max_length}: all"
                f" are at least 1, and width is a multiple of {turns} × heads."
            )
        if math.prod(grid) != max_length:
            raise ValueError(f"grid={grid} has {math.prod(grid)} positions, but max_length={max_length}.")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout={dropout}: a share of what is dropped, in [0, 1).")
        self.width, self.heads, self.max_length, self.hidden = width, heads, max_length, expansion * width
        self.blocks = nn.ModuleList(Block(width, heads, expansion, depth, dropout, causal) for _ in range(depth))
        self.norm = nn.LayerNorm(width, bias=False)
        cos, sin = grid_rotations(grid, width // heads)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def forward(self, h: Tensor, cache: KeyValueCache | None = None) -> Tensor:
        """(B, t, width) to the same: t positions from the first on, or those after what the cache holds.

        Raises:
            ValueError: if they are more than `max_length` in all.
        """
        start = 0 if cache is None else cache.length
        end = start + h.shape[1]
        if end > self.max_length:
            raise ValueError(f"{end} positions were given to a transformer of max_length={self.max_length}.")
        cos, sin = self.cos[start:end], self.sin[start:end]
        for layer, block in enumerate(self.blocks):
            h = block(h, cos, sin, cache, layer)
        if cache is not None:
            cache.length = end
        return self.norm(h)


class Block(nn.Module):
    """h + attention(norm(h)), then h + perceptron(norm(h))."""

    def __init__(
        self, width: int, heads: int, expansion: int, depth: int, dropout: float, causal: bool = True
    ) -> None:
        super().__init__()
        self.heads, self.dropout, self.attend = heads, dropout, attend if causal else attend_to_all
        self.attention_norm, self.perceptron_norm = (nn.LayerNorm(width, bias=False) for _ in range(2))
        self.queries_keys_values = Linear(width, 3 * width, bias=False)
        self.attended = Linear(width, width, bias=False)
        self.expand = Linear(width, expansion * width, bias=False)
        self.contract = Linear(expansion * width, width, bias=False)
        with torch.no_grad():  # the 2 · depth branches that add to h begin small (Radford et al. 2019)
            for outlet in (self.attended, self.contract):
                outlet.weight.mul_((2 * depth) ** -0.5)

    def forward(self, h: Tensor, cos: Tensor, sin: Tensor, cache: KeyValueCache | None, layer: int) -> Tensor:
        """(B, t, width) to the same; `cos` and `sin` are the rotations of these t positions."""
        h = h + self.drop(self.attended(self.attention(self.attention_norm(h), cos, sin, cache, layer)))
        return h + self.drop(self.contract(F.gelu(self.expand(self.perceptron_norm(h)))))

    def attention(self, h: Tensor, cos: Tensor, sin: Tensor, cache: KeyValueCache | None, layer: int) -> Tensor:
        """Σ_s softmax_s(q_t · k_s / √d) v_s over the positions s ≤ t, or over all, for each head."""
        projected = self.queries_keys_values(h).view(*h.shape[:2], 3, self.heads, -1)
        q, k, v = (part.transpose(1, 2) for part in projected.unbind(2))
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        if cache is not None:
            k, v = cache.extend(layer, k, v)
        return self.attend(q, k, v).transpose(1, 2).flatten(2)

    def drop(self, branch: Tensor) -> Tensor:
        """Dropout, where there is any."""
        return F.dropout(branch, self.dropout, self.training) if self.dropout else branch
