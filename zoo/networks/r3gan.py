"""The residual pair of R3GAN (Huang et al. 2024), made to be trained on a CPU, for images of any size.

No normalisation, no attention, no tricks: bottlenecks whose middle is a grouped convolution (Xie et al. 2017), leaky
ReLUs, bilinear resampling, and a start at which a residual branch is nearly nothing (as in Zhang et al. 2019,
"Fixup"). A datum's verdict and its gradient depend on that datum alone.

What is at full size is thin, and the lower a level, the wider it is: channels halve where sides double, down to 32,
so that the cost of a step grows less than an image's area. The generator ends in a few channels that are smoothed
at full size; the discriminator begins with two overlapping strided convolutions. Neither knows where one patch ends
and the next begins, as folded pixels do, of which images get a grid.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genzoo.zoo.networks.pyramid import pad_to_multiple, pyramid

SLOPE = 0.2  # of the leaky ReLU, where it leaks
GAIN = math.sqrt(2 / (1 + SLOPE**2))  # by which weights after it keep the variance (He et al. 2015)
SMALL = 0.1  # of its usual size, a residual branch begins at: not at nothing, so that all of it learns from the first
GROUP = 16  # channels that a convolution of the bottleneck sees at a time, as many as a vector of a CPU holds
NARROWEST, THIN = 32, 16  # channels: of any level, and at full size


class R3GANGenerator(nn.Module):
    """From flat vectors to images, that are not bounded: a bound that saturates stops an unnormalised network.

    Args:
        in_features: of the input.
        shape: (C, H, W) of the output.
        width: channels at the lowest level, of at least four pixels a side; halved with each doubling, down to 32.
        depth: residual blocks at each level.
    """

    def __init__(self, in_features: int, shape: Sequence[int], *, width: int = 128, depth: int = 1) -> None:
        super().__init__()
        self.sizes = pyramid(shape)
        channels = _channels(width, len(self.sizes) - 1)
        self.top = (channels[-1], *self.sizes[-1])
        self.inlet = _begun(nn.Linear(in_features, math.prod(self.top)), 1.0)
        self.levels = nn.ModuleList(_stack(c, depth) for c in reversed(channels))
        self.up = nn.ModuleList(_conv(low, high, 1, 1.0) for high, low in reversed(list(pairwise([THIN, *channels]))))
        self.outlet = _conv(THIN, shape[0], 3, 0.5 * GAIN)
        self.to(memory_format=torch.channels_last)  # several times faster, on a CPU and on a GPU

    def forward(self, z: Tensor) -> Tensor:
        """(B, in_features) to (B, C, H, W)."""
        h = self.inlet(z).unflatten(1, self.top).contiguous(memory_format=torch.channels_last)
        for level, up, (height, width) in zip(self.levels, self.up, reversed(self.sizes[:-1]), strict=True):
            h = F.interpolate(up(level(h)), scale_factor=2.0, mode="bilinear")[..., :height, :width]
        return self.outlet(F.leaky_relu(h, SLOPE))


class R3GANDiscriminator(nn.Module):
    """From images to flat vectors.

    Args:
        shape: (C, H, W) of the input.
        out_features: of the output.
        width: channels at the lowest level, as in the generator.
        depth: residual blocks at each level, but at half size, unless that is the lowest.
    """

    def __init__(self, shape: Sequence[int], out_features: int, *, width: int = 128, depth: int = 1) -> None:
        super().__init__()
        sizes = pyramid(shape)
        half, *channels = _channels(width, len(sizes) - 1)
        self.inlet = _conv(shape[0], half, 4, 1.0, stride=2)
        self.fold = _conv(half, channels[0], 4, GAIN, stride=2) if channels else None
        self.levels = nn.ModuleList(_stack(c, depth) for c in channels or [half])
        self.down = nn.ModuleList(_conv(high, low, 1, 1.0) for high, low in pairwise(channels))
        self.outlet = _begun(nn.Linear([half, *channels][-1] * math.prod(sizes[-1]), out_features), GAIN)
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, out_features)."""
        h = self.inlet(pad_to_multiple(x, 2))
        if self.fold is not None:
            h = self.fold(pad_to_multiple(F.leaky_relu(h, SLOPE), 2))
        for number, level in enumerate(self.levels):
            if number > 0:
                h = self.down[number - 1](F.avg_pool2d(h, 2, ceil_mode=True))
            h = level(h)
        return self.outlet(F.leaky_relu(h, SLOPE).flatten(1))


class Bottleneck(nn.Module):
    """h + a narrow view of what convolutions in groups make of a wide one: 1×1, 3×3 grouped, 1×1."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        wide = 2 * channels
        self.widen = _conv(channels, wide, 1, GAIN)
        self.look = _conv(wide, wide, 3, GAIN, groups=wide // math.gcd(wide, GROUP))
        self.narrow = _conv(wide, channels, 1, SMALL)

    def forward(self, h: Tensor) -> Tensor:
        """(B, channels, H, W) to the same."""
        return h + self.narrow(F.leaky_relu(self.look(F.leaky_relu(self.widen(h), SLOPE)), SLOPE))


def _channels(width: int, levels: int) -> list[int]:
    """Channels of each level, from half the full size down."""
    return [max(width // 2**k, min(width, NARROWEST)) for k in reversed(range(levels))]


def _stack(channels: int, depth: int) -> nn.Sequential:
    return nn.Sequential(*(Bottleneck(channels) for _ in range(depth)))


def _conv(into: int, out: int, size: int, gain: float, *, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    return _begun(nn.Conv2d(into, out, size, stride, (size - 1) // 2, groups=groups), gain)


Layer = TypeVar("Layer", nn.Linear, nn.Conv2d)


def _begun(layer: Layer, gain: float) -> Layer:
    """The layer with biases of nothing, and weights of a variance that makes the output's gain² times the input's."""
    nn.init.normal_(layer.weight, std=gain / math.sqrt(layer.weight[0].numel()))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
