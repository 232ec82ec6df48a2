"""A transformer that reads data some of whose entries are masked, and says of each entry what it may be.

Each position sees every other (Devlin et al. 2019). The positions of a text are its tokens, those of an image its
patches (Dosovitskiy et al. 2021), of whose entries each has symbols of its own.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genzoo.zoo.networks.linear import linear
from genzoo.zoo.networks.patches import folded, unfolded
from genzoo.zoo.networks.transformer import Transformer

MOST_POSITIONS = 256  # of an image, unless its sides have no divisor that makes them as few
MOST_PIXELS = 8  # along the side of a patch that is not asked for


class MaskedTransformer(nn.Module):
    """From symbols 0 … levels, of which the last is the mask, to the logits of the levels at each entry.

    The vectors of the symbols that are read are also those that are told apart at the output (Press & Wolf 2017).

    Args:
        shape: of one datum, tokens (T,) or an image (C, H, W).
        levels: how many values an entry can take.
        width: numbers at each position.
        depth: blocks.
        heads: of attention in each block; width is a multiple of 2 × heads, of images of 4 × heads.
        expansion: hidden units of a block's perceptron, as a multiple of `width`.
        dropout: of the embedding and of what each block adds, while training.
        patch: the side of a patch of an image, which divides H and W; None: the least with at most 256 patches, or
            the largest up to 8 where there are more.
        num_classes: how many classes `labels` may name; None: the network takes no labels.

    Raises:
        ValueError: if the sizes do not fit each other or the data.
    """

    offsets: Tensor

    def __init__(
        self,
        shape: Sequence[int],
        levels: int,
        *,
        width: int = 128,
        depth: int = 4,
        heads: int = 4,
        expansion: int = 4,
        dropout: float = 0.0,
        patch: int | None = None,
        num_classes: int | None = None,
    ) -> None:
        super().__init__()
        self.shape, self.levels = tuple(shape), levels
        self.patch = patch_of(self.shape, patch)
        self.channels, *self.sides = self.shape if len(self.shape) > 1 else (1, *self.shape)
        grid = [side // self.patch for side in self.sides]
        positions = math.prod(grid)
        self.entries = self.channels * self.patch ** len(grid)  # at each position
        self.transformer = Transformer(
            width, depth, heads, max_length=positions, expansion=expansion, dropout=dropout, causal=False, grid=grid
        )
        self.embedding = nn.Embedding(self.entries * (levels + 1), width)
        nn.init.normal_(self.embedding.weight, std=0.02)
        self.position = nn.Parameter(0.02 * torch.randn(positions, width))  # where all is masked, nothing else tells
        self.classes = None if num_classes is None else nn.Embedding(num_classes + 1, width)
        self.dropout = dropout
        self.register_buffer("offsets", torch.arange(self.entries) * (levels + 1), persistent=False)

    @property
    def hidden(self) -> list[nn.Module]:
        """All that lies between the inlet and the outlet, whose matrices are `Muon`'s."""
        return [self.transformer]

    def forward(self, symbols: Tensor, labels: Tensor | None = None) -> Tensor:
        """What each entry may be.

        Args:
            symbols: (B, *shape) int64 in [0, levels], `levels` where masked.
            labels: (B,) int64 in [0, num_classes], num_classes for "no class"; None: no class for all.

        Returns:
            (B, levels, *shape).

        Raises:
            ValueError: if labels are given to an unconditional network.
        """
        pieces = folded(symbols.reshape(-1, self.channels, *self.sides), self.patch)
        h = self.embedding(pieces + self.offsets).sum(2) + self.position
        if self.classes is not None:
            nothing = self.classes.num_embeddings - 1
            given = torch.full_like(symbols.flatten(1)[:, 0], nothing) if labels is None else labels
            h = h + self.classes(given).unsqueeze(1)
        elif labels is not None:
            raise ValueError("labels were given to a network without classes: construct it with num_classes.")
        h = self.transformer(F.dropout(h, self.dropout, self.training))
        told_apart = self.embedding.weight.unflatten(0, (self.entries, -1))[:, :-1].transpose(0, 1).flatten(0, 1)
        logits = unfolded(linear(h, told_apart), (self.levels * self.channels, *self.sides), self.patch)
        return logits.view(-1, self.levels, *self.shape)


def patch_of(shape: Sequence[int], patch: int | None) -> int:
    """The side of the patches that data of this shape are cut into; tokens are not.

    Raises:
        ValueError: if `patch` does not divide both sides of an image, or is given for tokens.
    """
    if len(shape) == 1:
        if patch not in (None, 1):
            raise ValueError(f"patch={patch}: tokens are not cut into patches; leave it out.")
        return 1
    height, width = shape[1:]
    divisors = [p for p in range(1, min(height, width) + 1) if height % p == width % p == 0]
    if patch is not None and patch not in divisors:
        raise ValueError(
            f"patch={patch}: the side of a patch divides those of the image, {height} × {width}: choose one of"
            f" {', '.join(map(str, divisors))}."
        )
    choices = [p for p in divisors if p <= MOST_PIXELS]
    return patch or next((p for p in choices if height * width <= MOST_POSITIONS * p**2), choices[-1])
