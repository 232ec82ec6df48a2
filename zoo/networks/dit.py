"""A diffusion transformer (Peebles & Xie 2023), for images and series: patches that all attend to each other.

    h ← h + g₁ · attention((1 + a₁) · norm(h) + b₁)
    h ← h + g₂ · swiglu((1 + a₂) · norm(h) + b₂),   swiglu(h) = W₃ (silu(W₁ h) · W₂ h)

Scales a, shifts b and gates g of each block come from the noise level and the class (the paper's adaLN-zero). What
transformers have learned since: queries and keys are turned by where a patch lies, so that attention knows how far
apart two of them are (rotary positions, Su et al. 2021, here for each axis of the grid); they are normalised, so that
no attention grows without bound (Dehghani et al. 2023); perceptrons are gated (SwiGLU, Shazeer 2020). The paper's
fixed waves, which say where a patch is in the whole, are still added at the inlet: how far apart equal patches are
tells none of them where it is, for their weighted means are all the same.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from genzoo.zoo.networks.attention import attend_to_all, grid_rotations, rotate
from genzoo.zoo.networks.conditioning import Conditioning
from genzoo.zoo.networks.linear import Linear
from genzoo.zoo.networks.patches import folded, unfolded
from genzoo.zoo.networks.unet import SMALL

#: the slowest rotation takes about so many patches to a radian: grids are far shorter than texts (Heo et al. 2024)
BASE = 100.0


class DiT(nn.Module):
    """From images, or series, and their noise levels to the same.

    Where a U-Net is nearly zero and nearly the identity at first, so is this one: all modulations, and the outlet,
    begin at a tenth of their usual size, where the paper's begin at zero, so that gradients reach every parameter
    from the first step.

    Args:
        shape: (C, H, W) of images, or (C, T) of series, of any size; a side that is no multiple of the patch is
            filled up with zeros, and cropped.
        patch: the side of the squares, or the length of the pieces, that are one position each; None takes what
            suits the data (`Plan.of`).
        width: numbers at each position; None takes what suits the data.
        depth: blocks; None takes what suits the data.
        heads: of attention in each block; width / heads is a multiple of four, for the rotations; None takes heads
            of 64 numbers, or of the next fewer that fit.
        dropout: of what each branch adds, while training.
        checkpointing: whether training keeps a block's input alone and computes the rest once more when the gradient
            comes by (Chen et al. 2016): a third more work, for activations of one block instead of all.
        num_classes: how many classes `labels` may name; None: the network takes no labels.

    Raises:
        ValueError: on a shape that is neither, or sizes that make no network.
    """

    places: Tensor
    cos: Tensor
    sin: Tensor

    def __init__(
        self,
        shape: Sequence[int],
        *,
        patch: int | None = None,
        width: int | None = None,
        depth: int | None = None,
        heads: int | None = None,
        dropout: float = 0.0,
        checkpointing: bool = False,
        num_classes: int | None = None,
    ) -> None:
        super().__init__()
        if len(shape) not in (2, 3):
            raise ValueError(
                f"A DiT is for images (C, H, W) and series (C, T), but shape={tuple(shape)}: no grid of patches."
            )
        plan = Plan.of(shape, patch, width, depth, heads)
        if min(plan) < 1 or plan.width % (4 * plan.heads):
            raise ValueError(
                f"patch={plan.patch}, width={plan.width}, depth={plan.depth}, heads={plan.heads}: all are at least"
                " 1, and width is a multiple of 4 × heads."
            )
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout={dropout}: a share of what is dropped, in [0, 1).")
        self.shape, self.patch, self.checkpointing = tuple(shape), plan.patch, checkpointing
        self.grid = tuple(math.ceil(side / plan.patch) for side in shape[1:])
        folded = shape[0] * plan.patch ** len(self.grid)
        self.conditioning = Conditioning(plan.width, num_classes)
        self.inlet = Linear(folded, plan.width)
        self.blocks = nn.ModuleList(Block(plan.width, plan.heads, dropout) for _ in range(plan.depth))
        self.modulation = Linear(plan.width, 2 * plan.width)
        self.norm = nn.LayerNorm(plan.width, elementwise_affine=False)
        self.outlet = Linear(plan.width, folded)
        with torch.no_grad():
            self.modulation.weight.mul_(SMALL)
            self.outlet.weight.mul_(SMALL)
        cos, sin = grid_rotations(self.grid, plan.width // plan.heads, BASE)
        places = torch.cat(grid_rotations(self.grid, plan.width, BASE), 1)
        self.register_buffer("places", places, persistent=False)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    @property
    def hidden(self) -> list[nn.Module]:
        """All that lies between the inlet and the outlet, whose matrices are `Muon`'s."""
        return [self.blocks, self.modulation]

    @property
    def shards(self) -> list[nn.Module]:
        """The parts whose weights are gathered one at a time where they are spread over devices."""
        return list(self.blocks)

    def forward(self, x: Tensor, c_noise: Tensor, labels: Tensor | None = None) -> Tensor:
        """A datum for each noisy datum.

        Args:
            x: (B, *shape), of order 1.
            c_noise: (B,), any real measure of the noise level that is of order 1, in float32 at least.
            labels: (B,) int64 in [0, num_classes], where num_classes stands for "no class"; None: no class for all.

        Returns:
            (B, *shape).

        Raises:
            ValueError: if x has another shape, or labels are given to a network without classes.
        """
        if x.shape[1:] != self.shape:
            raise ValueError(f"This DiT has shape={self.shape}, but was given data of {tuple(x.shape[1:])}.")
        condition = F.silu(self.conditioning(c_noise, labels))
        h = self.inlet(folded(x, self.patch)) + self.places
        for block in self.blocks:
            if self.checkpointing and torch.is_grad_enabled():
                h = checkpoint(block, h, condition, self.cos, self.sin, use_reentrant=False)
            else:
                h = block(h, condition, self.cos, self.sin)
        scale, shift = self.modulation(condition)[:, None].chunk(2, dim=2)
        return unfolded(self.outlet(modulated(self.norm(h), scale, shift)), self.shape, self.patch)


class Plan(NamedTuple):
    """A DiT's size."""

    patch: int
    width: int
    depth: int
    heads: int

    @classmethod
    def of(
        cls,
        shape: Sequence[int],
        patch: int | None = None,
        width: int | None = None,
        depth: int | None = None,
        heads: int | None = None,
    ) -> "Plan":
        """What suits images (C, H, W) or series (C, T), as far as it is not given.

        Patches double from 1 to 8 until there are 128 at most: attention costs little then, beside the products. Six
        blocks of 256 numbers, or four of 128 for what is 16 or fewer a side; but no fewer numbers than a patch has,
        or the noise in it would not fit through.
        """
        if patch is None:
            patch = 1
            while patch < 8 and math.prod(math.ceil(side / patch) for side in shape[1:]) > 128:
                patch *= 2
        small = math.prod(shape[1:]) <= 16 ** len(shape[1:])
        numbers = shape[0] * patch ** len(shape[1:])
        width = max(128 if small else 256, 64 * math.ceil(numbers / 64)) if width is None else width
        depth = (4 if small else 6) if depth is None else depth
        fitting = (h for h in range(math.ceil(width / 64), width) if width % (4 * h) == 0)
        return cls(patch, width, depth, next(fitting, 1) if heads is None else heads)


class Block(nn.Module):
    """Attention and a gated perceptron, each modulated by the condition."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        hidden = 32 * math.ceil(8 * width / 3 / 32)  # a perceptron of 4 · width without a gate has as many weights
        self.modulation = Linear(width, 6 * width)
        self.attention_norm, self.perceptron_norm = (nn.LayerNorm(width, elementwise_affine=False) for _ in range(2))
        self.queries, self.keys, self.values, self.attended = (Linear(width, width, bias=False) for _ in range(4))
        self.query_norm, self.key_norm = (nn.LayerNorm(width // heads, bias=False) for _ in range(2))
        self.gate, self.expand = (Linear(width, hidden, bias=False) for _ in range(2))
        self.contract = Linear(hidden, width, bias=False)
        with torch.no_grad():
            self.modulation.weight.mul_(SMALL)

    def forward(self, h: Tensor, condition: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """(B, N, width), (B, width) and the rotations of N patches to (B, N, width)."""
        modulation = self.modulation(condition)[:, None]
        scale_1, shift_1, gate_1, scale_2, shift_2, gate_2 = modulation.chunk(6, dim=2)
        branch = self.attention(modulated(self.attention_norm(h), scale_1, shift_1), cos, sin)
        h = torch.addcmul(h, gate_1, self.drop(branch))
        branch = self.perceptron(modulated(self.perceptron_norm(h), scale_2, shift_2))
        return torch.addcmul(h, gate_2, self.drop(branch))

    def attention(self, h: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """(B, N, width) to the same: Σ_s softmax_s(q_t · k_s / √d) v_s, for each head, with q and k of length √d."""
        q, k, v = (part(h).unflatten(2, (self.heads, -1)) for part in (self.queries, self.keys, self.values))
        q = rotate(self.query_norm(q).transpose(1, 2), cos, sin).to(v.dtype)
        k = rotate(self.key_norm(k).transpose(1, 2), cos, sin).to(v.dtype)
        return self.attended(attend_to_all(q, k, v.transpose(1, 2)).transpose(1, 2).flatten(2))

    def perceptron(self, h: Tensor) -> Tensor:
        """(B, N, width) to the same: SwiGLU."""
        return self.contract(F.silu(self.gate(h)) * self.expand(h))

    def drop(self, branch: Tensor) -> Tensor:
        """Dropout, where there is any."""
        return F.dropout(branch, self.dropout, self.training) if self.dropout else branch


def modulated(h: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """(1 + scale) h + shift."""
    return torch.addcmul(shift, h, 1 + scale)
