"""The convolutional pair of DCGAN (Radford, Metz & Chintala 2016) for images of any size.

The image is halved until its shorter side has at most four pixels (28 → 14 → 7 → 4), and doubled from there by
transposed convolutions, cropped where a size was odd. Batch normalisation stands in the generator only: with it in
the discriminator a datum's verdict would depend on its batch, and gradient penalties would not be per datum.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class DCGANGenerator(nn.Module):
    """From flat vectors to images.

    Args:
        in_features: of the input.
        shape: (C, H, W) of the output.
        width: channels at half size; doubled with each halving.
    """

    def __init__(self, in_features: int, shape: Sequence[int], *, width: int = 32) -> None:
        super().__init__()
        channels, self.sizes = pyramid(shape, width)
        self.top = (channels[-1], *self.sizes[-1])
        self.inlet = nn.Linear(in_features, math.prod(self.top), bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(c) for c in reversed(channels[1:]))
        self.convolutions = nn.ModuleList(
            nn.ConvTranspose2d(big, small, 4, stride=2, padding=1, bias=i == 0)
            for i, (small, big) in reversed(list(enumerate(pairwise(channels))))
        )
        self.to(memory_format=torch.channels_last)  # several times faster in bfloat16, on a CPU and on a GPU

    def forward(self, z: Tensor) -> Tensor:
        """(B, in_features) to (B, C, H, W)."""
        h = self.inlet(z).unflatten(1, self.top).contiguous(memory_format=torch.channels_last)
        for norm, convolution, size in zip(self.norms, self.convolutions, reversed(self.sizes[:-1]), strict=True):
            h = convolution(F.relu(norm(h)))[..., : size[0], : size[1]]
        return h


class DCGANDiscriminator(nn.Module):
    """From images to flat vectors.

    Args:
        shape: (C, H, W) of the input.
        out_features: of the output.
        width: channels at half size; doubled with each halving.
    """

    def __init__(self, shape: Sequence[int], out_features: int, *, width: int = 32) -> None:
        super().__init__()
        channels, sizes = pyramid(shape, width)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(big, small, 4, stride=2, padding=1) for big, small in pairwise(channels)
        )
        self.outlet = nn.Linear(channels[-1] * math.prod(sizes[-1]), out_features)
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, out_features)."""
        h = x
        for convolution in self.convolutions:
            h = F.pad(h, (0, h.shape[3] % 2, 0, h.shape[2] % 2))  # an odd size is padded to the next even one
            h = F.leaky_relu(convolution(h), 0.2)
        return self.outlet(h.flatten(1))


def pyramid(shape: Sequence[int], width: int) -> tuple[list[int], list[tuple[int, int]]]:
    """The channels and the (height, width) of each stage, from the image down."""
    if len(shape) != 3:
        raise ValueError(f"DCGAN's convolutions are for images (C, H, W), but shape={tuple(shape)}.")
    channels, sizes = [shape[0]], [(shape[1], shape[2])]
    while min(sizes[-1]) > 4 or len(sizes) == 1:
        sizes.append(((sizes[-1][0] + 1) // 2, (sizes[-1][1] + 1) // 2))
        channels.append(width * 2 ** (len(sizes) - 2))
    return channels, sizes
