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

from genzoo.zoo.networks.pyramid import pad_to_multiple, pyramid


class DCGANGenerator(nn.Module):
    """From flat vectors to images.

    Args:
        in_features: of the input.
        shape: (C, H, W) of the output.
        width: channels at half size; doubled with each halving.
    """

    def __init__(self, in_features: int, shape: Sequence[int], *, width: int = 32) -> None:
        super().__init__()
        self.sizes = pyramid(shape)
        channels = [shape[0], *(width * 2**i for i in range(len(self.sizes) - 1))]
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
        sizes = pyramid(shape)
        channels = [shape[0], *(width * 2**i for i in range(len(sizes) - 1))]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(big, small, 4, stride=2, padding=1) for big, small in pairwise(channels)
        )
        self.outlet = nn.Linear(channels[-1] * math.prod(sizes[-1]), out_features)
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, out_features)."""
        h = x
        for convolution in self.convolutions:
            h = F.leaky_relu(convolution(pad_to_multiple(h, 2)), 0.2)
        return self.outlet(h.flatten(1))
