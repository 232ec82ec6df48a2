"""A diffusion transformer that reads data some of whose entries are masked, and says of each what it may be.

Each symbol has a vector, so that symbols become an image, or a series, of as many channels; a `DiT` makes of it
another, and what an entry may be is told by its vector there,

    logits_v = ⟨f(x)_i, e_v⟩ / √d,   e_v the vector of level v, the same that is read (Press & Wolf 2017).

All places share the vectors, so each is learned from every entry of every datum. The noise level is the share of
entries that are masked, which the data show: the network learns nothing that it could not count.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from genzoo.zoo.networks.dit import DiT, Plan
from genzoo.zoo.networks.masked_transformer import patch_of

#: numbers of a symbol's vector, at least; with as many levels or fewer, every distribution of an entry can be told
VECTOR = 32


class MaskedDiT(nn.Module):
    """From symbols 0 … levels, of which the last is the mask, to the logits of the levels at each entry.

    Args:
        shape: of one datum, tokens (T,) or an image (C, H, W).
        levels: how many values an entry can take.
        patch: the side of a patch of an image; None takes the least with at most 128 patches, but 8 at most. Tokens
            are a position each.
        width: numbers at each position; None takes what suits the data, as for `DiT`.
        depth: blocks; None takes what suits the data.
        heads: of attention in each block; width / heads is a multiple of four. None takes what suits the width.
        dropout: of what each branch adds, while training.
        checkpointing: whether training keeps a block's input alone and computes the rest once more, as in `DiT`.
        num_classes: how many classes `labels` may name; None: the network takes no labels.

    Raises:
        ValueError: if the sizes do not fit each other or the data.
    """

    def __init__(
        self,
        shape: Sequence[int],
        levels: int,
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
        self.shape, self.levels = tuple(shape), levels
        if len(self.shape) not in (1, 3) or min(self.shape) < 1 or levels < 1:
            raise ValueError(
                f"shape={self.shape}, levels={levels}: a MaskedDiT is for tokens (T,) and images (C, H, W)."
            )
        self.channels, *self.sides = self.shape if len(self.shape) == 3 else (1, *self.shape)
        patch = patch_of(self.shape, patch) if len(self.shape) == 1 else patch
        plan = Plan.of((self.channels, *self.sides), patch, width, depth, heads)
        self.vector = VECTOR if plan.patch > 1 or self.channels > 1 else max(VECTOR, plan.width)
        self.embedding = nn.Embedding(levels + 1, self.vector)
        self.dit = DiT(
            (self.channels * self.vector, *self.sides),
            **plan._asdict(),
            dropout=dropout,
            checkpointing=checkpointing,
            num_classes=num_classes,
        )

    @property
    def hidden(self) -> list[nn.Module]:
        """All that lies between the inlet and the outlet, whose matrices are `Muon`'s."""
        return self.dit.hidden

    @property
    def shards(self) -> list[nn.Module]:
        """The parts whose weights are gathered one at a time where they are spread over devices."""
        return self.dit.shards

    def forward(self, symbols: Tensor, labels: Tensor | None = None) -> Tensor:
        """What each entry may be.

        Args:
            symbols: (B, *shape) int64 in [0, levels], `levels` where masked.
            labels: (B,) int64 in [0, num_classes], num_classes for "no class"; None: no class for all.

        Returns:
            (B, levels, *shape).

        Raises:
            ValueError: if symbols have another shape, or labels are given to an unconditional network.
        """
        if symbols.shape[1:] != self.shape:
            raise ValueError(f"This MaskedDiT has shape={self.shape}, but was given {tuple(symbols.shape[1:])}.")
        own = torch.promote_types(self.embedding.weight.dtype, torch.float32)  # halves hold no share of many
        masked = (symbols == self.levels).flatten(1).to(own).mean(1)
        x = self.embedding(symbols.reshape(-1, self.channels, *self.sides)).movedim(-1, 2)  # (B, C, d, *sides)
        told = self.dit(x.flatten(1, 2), masked, labels).unflatten(1, (self.channels, self.vector)).flatten(3)
        levels = self.embedding.weight[:-1].to(told.dtype) / math.sqrt(self.vector)
        logits = torch.matmul(levels, told)  # (B, C, levels, places)
        return logits.transpose(1, 2).reshape(-1, self.levels, *self.shape)
