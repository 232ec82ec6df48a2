"""Layers some of whose connections are cut: what a masked connection starts from cannot reach where it ends.

The mask is a buffer that multiplies the weight each time it is used. It is never written into the weight, so that
optimisers, averages of weights and compilers see an ordinary parameter; it is no part of the state.
"""

from typing import Any

import torch
from torch import Tensor, nn

from genzoo.zoo.networks.linear import Linear, linear


class MaskedLinear(Linear):
    """A linear layer without the connections where the mask is False.

    Args:
        mask: (out_features, in_features), bool.
        bias: whether to add one.
    """

    mask: Tensor

    def __init__(self, mask: Tensor, *, bias: bool = True) -> None:
        super().__init__(mask.shape[1], mask.shape[0], bias)
        self.register_buffer("mask", mask, persistent=False)

    def masked_weight(self) -> Tensor:
        """(out_features, in_features), zero where the mask is False."""
        return self.weight * self.mask

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) to (..., out_features)."""
        return linear(x, self.masked_weight(), self.bias)


class MaskedConv2d(nn.Conv2d):
    """A convolution without the connections where the mask is False.

    Args:
        in_channels: of the input.
        out_channels: of the output.
        kernel_size: (rows, columns).
        mask: bool, broadcastable to the weight, (out_channels, in_channels, rows, columns); None masks nothing.
        options: of `torch.nn.Conv2d`.
    """

    mask: Tensor | None

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: tuple[int, int], mask: Tensor | None, **options: Any
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, **options)
        if mask is not None:  # flat: `channels_last` gives an image-like buffer strides that DDP cannot pass on
            mask = mask.expand(self.weight.shape).flatten(2)
        self.register_buffer("mask", mask, persistent=False)

    def masked_weight(self) -> Tensor:
        """(out_channels, in_channels, rows, columns), zero where the mask is False."""
        return self.weight if self.mask is None else self.weight * self.mask.view_as(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) to (B, out_channels, H', W')."""
        return self._conv_forward(x, self.masked_weight(), self.bias)


def channel_mask(out_channels: int, in_channels: int, groups: int, *, strict: bool) -> Tensor:
    """Which channels may see which, where the channels belong to colours that come one after another (R, G, B).

    Channel c of n belongs to colour ⌊c · groups / n⌋.

    Args:
        out_channels: n of the output.
        in_channels: n of the input.
        groups: how many colours.
        strict: whether a colour sees only the colours before it (mask "A" of van den Oord et al. 2016) or also
            itself (mask "B").

    Returns:
        (out_channels, in_channels), bool.
    """
    out, into = (torch.arange(n) * groups // n for n in (out_channels, in_channels))
    return into < out[:, None] if strict else into <= out[:, None]
