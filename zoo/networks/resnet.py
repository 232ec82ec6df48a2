"""Residual convolutional encoders and decoders for images of any size, with codes that are vectors or grids of them.

No normalisation by the batch: residual branches begin small (as in Zhang et al. 2019, "Fixup"), so that a datum's
output depends on it alone. An encoder halves the image (to a vector: twice), a decoder doubles it as often by pixel
shuffling (Shi et al. 2016) and crops where a size was odd.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genzoo.zoo.networks.pyramid import pad_to_multiple, pyramid

STAGES = 2  # halvings on the way to a vector: 28 → 14 → 7, 32 → 16 → 8, 8 → 4 → 2


class ResNetEncoder(nn.Module):
    """From images to flat vectors.

    Args:
        shape: (C, H, W) of the input.
        out_features: of the output.
        width: channels at full size; doubled with each halving.
        depth: residual blocks after each halving.
    """

    def __init__(self, shape: Sequence[int], out_features: int, *, width: int = 32, depth: int = 1) -> None:
        super().__init__()
        sizes, channels = pyramid(shape, STAGES), doubling(width, STAGES)
        self.layers = halvings([shape[0], *channels[1:]], depth)
        height, width_ = sizes[-1]
        self.outlet = nn.Linear(channels[-1] * height * width_, out_features)
        self.to(memory_format=torch.channels_last)  # several times faster in bfloat16, on a CPU and on a GPU

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, out_features)."""
        return self.outlet(F.silu(halved(x, self.layers)).flatten(1))


class ResNetDecoder(nn.Module):
    """From flat vectors to images.

    Args:
        in_features: of the input.
        shape: (C, H, W) of the output.
        num_parameters: P, how many numbers for each dimension of the image.
        width: channels at full size; doubled with each halving.
        depth: residual blocks at each size but the full one.
    """

    def __init__(
        self,
        in_features: int,
        shape: Sequence[int],
        num_parameters: int = 1,
        *,
        width: int = 32,
        depth: int = 1,
    ) -> None:
        super().__init__()
        self.sizes, channels = pyramid(shape, STAGES), doubling(width, STAGES)
        self.shape, self.num_parameters = tuple(shape), num_parameters
        self.top = (channels[-1], *self.sizes[-1])
        self.inlet = nn.Linear(in_features, channels[-1] * self.sizes[-1][0] * self.sizes[-1][1])
        self.stages = doublings([num_parameters * shape[0], *channels[1:]], depth)
        self.to(memory_format=torch.channels_last)

    def forward(self, z: Tensor) -> Tensor:
        """(B, in_features) to (B, P, C, H, W)."""
        h = self.inlet(z).unflatten(1, self.top)
        return doubled(h, self.stages, self.sizes).unflatten(1, (self.num_parameters, self.shape[0]))


class SpatialEncoder(nn.Module):
    """From images to grids of vectors, each of which has seen its place and what is around it.

    What the last layer sees is normalised over the datum, so that the vectors begin with a scale of about ½: one that
    is rounded should not begin with all of them at one code.

    Args:
        shape: (C, H, W) of the input.
        out_channels: d, the size of each vector.
        stages: halvings, n.
        width: channels at full size; doubled with each halving.
        depth: residual blocks after each halving.
    """

    def __init__(
        self, shape: Sequence[int], out_channels: int, stages: int, *, width: int = 32, depth: int = 1
    ) -> None:
        super().__init__()
        channels = doubling(width, stages)
        self.layers = halvings([shape[0], *channels[1:]], depth)
        self.norm = nn.GroupNorm(1, channels[-1])
        self.outlet = nn.Conv2d(channels[-1], out_channels, 1)
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, d, ⌈H/2ⁿ⌉, ⌈W/2ⁿ⌉)."""
        return self.outlet(F.silu(self.norm(halved(x, self.layers))))


class SpatialDecoder(nn.Module):
    """From grids of vectors to images.

    Args:
        in_channels: d, the size of each vector.
        shape: (C, H, W) of the output.
        stages: doublings, n.
        width: channels at full size; doubled with each halving.
        depth: residual blocks at each size but the full one.
    """

    def __init__(
        self, in_channels: int, shape: Sequence[int], stages: int, *, width: int = 32, depth: int = 1
    ) -> None:
        super().__init__()
        self.sizes, channels = pyramid(shape, stages), doubling(width, stages)
        self.inlet = nn.Conv2d(in_channels, channels[-1], 3, padding=1)
        self.stages = doublings([shape[0], *channels[1:]], depth)
        self.to(memory_format=torch.channels_last)

    def forward(self, z: Tensor) -> Tensor:
        """(B, d, ⌈H/2ⁿ⌉, ⌈W/2ⁿ⌉) to (B, C, H, W)."""
        return doubled(self.inlet(z), self.stages, self.sizes)


class FlatDecoder(nn.Module):
    """From grids of vectors that come flat, and numbers behind them that every place is told.

    Args:
        decoder: of grids, (B, c + n, h, w) to images, for n such numbers.
        shape: (c, h, w) of a grid.
    """

    def __init__(self, decoder: nn.Module, shape: Sequence[int]) -> None:
        super().__init__()
        self.decoder, self.shape = decoder, tuple(shape)

    def forward(self, z: Tensor) -> Tensor:
        """(B, c · h · w + n) to images."""
        channels, height, width = self.shape
        grid = z[:, : channels * height * width].unflatten(1, self.shape)
        told = z[:, channels * height * width :, None, None].expand(-1, -1, height, width)
        return self.decoder(torch.cat([grid, told], 1))


class ResidualBlock(nn.Module):
    """h + conv(silu(conv(silu(h)))), the second convolution beginning at a tenth of its usual size."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        with torch.no_grad():
            self.second.weight.mul_(0.1)

    def forward(self, h: Tensor) -> Tensor:
        """(B, channels, H, W) to the same."""
        return h + self.second(F.silu(self.first(F.silu(h))))


def doubling(width: int, stages: int) -> list[int]:
    """The channels at each size, from the full one down."""
    return [width * 2**i for i in range(stages + 1)]


def halvings(channels: Sequence[int], depth: int) -> nn.Sequential:
    """The layers of an encoder, from the image's channels to those of the smallest size."""
    layers: list[nn.Module] = []
    for before, after in pairwise(channels):
        layers.append(nn.Conv2d(before, after, 4, stride=2, padding=1))
        layers += [ResidualBlock(after) for _ in range(depth)]
    return nn.Sequential(*layers)


def halved(h: Tensor, layers: nn.Sequential) -> Tensor:
    """What `halvings` make of an image."""
    for layer in layers:
        h = layer(pad_to_multiple(h, 2) if isinstance(layer, nn.Conv2d) else h)
    return h


def doublings(channels: Sequence[int], depth: int) -> nn.ModuleList:
    """The stages of a decoder, from the channels of the smallest size to the image's: `channels` backwards."""
    return nn.ModuleList(
        nn.Sequential(
            *(ResidualBlock(before) for _ in range(depth)),
            nn.SiLU(),
            nn.Conv2d(before, 4 * after, 3, padding=1),
            nn.PixelShuffle(2),
        )
        for before, after in pairwise(reversed(channels))
    )


def doubled(h: Tensor, stages: nn.ModuleList, sizes: Sequence[tuple[int, int]]) -> Tensor:
    """What `doublings` make of the smallest image, each cropped to the size that the encoder saw there."""
    for stage, (height, width) in zip(stages, reversed(sizes[:-1]), strict=True):
        h = stage(h)[..., :height, :width]
    return h
