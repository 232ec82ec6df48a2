"""A U-Net for noisy images (Ronneberger et al. 2015; Ho et al. 2020), made to be trained quickly, also on a CPU.

An image is halved at each level but the first and doubled again on the way back, where it meets what it was on the
way in. A CPU with bfloat16 units convolves as fast as it passes over memory, so this one is lean beside the usual
U-Net of diffusion models: pixels are first folded into patches, and nothing works at full size; the way back adds
what the way in left, where others concatenate; a residual block has one norm and one nonlinearity; attention, if
any, works at the lowest level alone.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genzoo.zoo.networks.conditioning import Conditioning
from genzoo.zoo.networks.pyramid import pad_to_multiple, pyramid


class UNet(nn.Module):
    """From images and their noise levels to images.

    Args:
        shape: (C, H, W) of the images, of any size.
        width: channels at the first level; None takes 32, or what suits the images where `multipliers` is None.
        multipliers: channels at each level in units of `width`; each level has half the size of the one before. None
            takes what suits the images (`Plan.of`).
        blocks: residual blocks at each level, on the way in and again on the way back.
        patch: the side of the patches that are folded into channels at the inlet (Shi et al. 2016) and out of them
            again at the outlet; None takes 2 for images of 16 × 16 and more, 1 for smaller ones, or what suits the
            images where `multipliers` is None.
        attention: whether the pixels of the lowest level attend to each other; None takes no, or what suits the
            images where `multipliers` is None.
        dropout: in each residual block.
        num_classes: how many classes `labels` may name; None: the network takes no labels.

    Raises:
        ValueError: on a shape that is no image's, or channels, levels or blocks that make no network.
    """

    def __init__(
        self,
        shape: Sequence[int],
        *,
        width: int | None = None,
        multipliers: Sequence[int] | None = (1, 2),
        blocks: int = 1,
        patch: int | None = None,
        attention: bool | None = None,
        dropout: float = 0.0,
        num_classes: int | None = None,
    ) -> None:
        super().__init__()
        if len(shape) != 3:
            raise ValueError(f"A U-Net is for images (C, H, W), but shape={tuple(shape)}.")
        plan = Plan.of(shape) if multipliers is None else Plan(2 if min(shape[1:]) >= 16 else 1, 32, multipliers)
        self.patch = plan.patch if patch is None else patch
        width, multipliers = plan.width if width is None else width, plan.multipliers
        attention = plan.attention if attention is None else attention
        if min(width, blocks, self.patch, *multipliers, len(multipliers)) < 1:
            raise ValueError(
                f"width={width}, multipliers={tuple(multipliers)}, blocks={blocks}, patch={self.patch}: a U-Net has"
                " at least one level, a channel and a block at each, and patches of at least one pixel."
            )
        channels = [width * multiplier for multiplier in multipliers]
        folded, features = shape[0] * self.patch**2, 2 * channels[-1]

        def stack(width: int) -> Stack:
            return Stack(ResidualBlock(width, features, dropout) for _ in range(blocks))

        self.conditioning = Conditioning(features, num_classes)
        self.inlet = nn.Conv2d(folded, channels[0], 3, padding=1)
        self.way_in = nn.ModuleList(stack(width) for width in channels)
        self.down = nn.ModuleList(
            nn.Conv2d(wide, narrow, 3, stride=2, padding=1) for wide, narrow in pairwise(channels)
        )
        self.attention = Attention(channels[-1]) if attention else None
        self.up = nn.ModuleList(nn.Conv2d(narrow, wide, 1) for wide, narrow in pairwise(channels))
        self.way_back = nn.ModuleList(stack(width) for width in channels)
        self.norm = _norm(channels[0])
        self.outlet = nn.Conv2d(channels[0], folded, 3, padding=1)
        with torch.no_grad():
            self.outlet.weight.mul_(SMALL)
        self.to(memory_format=torch.channels_last)  # several times faster in bfloat16, on a CPU and on a GPU

    @property
    def hidden(self) -> list[nn.Module]:
        """All that lies between the inlet and the outlet, whose matrices are `Muon`'s."""
        lowest = [] if self.attention is None else [self.attention]
        return [self.way_in, self.down, *lowest, self.up, self.way_back]

    def forward(self, x: Tensor, c_noise: Tensor, labels: Tensor | None = None) -> Tensor:
        """An image for each noisy image.

        Args:
            x: (B, C, H, W), of order 1.
            c_noise: (B,), any real measure of the noise level that is of order 1, in float32 at least.
            labels: (B,) int64 in [0, num_classes], where num_classes stands for "no class"; None: no class for all.

        Returns:
            (B, C, H, W).

        Raises:
            ValueError: if labels are given to a network without classes.
        """
        condition = F.silu(self.conditioning(c_noise, labels))
        height, width = x.shape[2:]
        h = self.inlet(F.pixel_unshuffle(pad_to_multiple(x, self.patch), self.patch))
        passed = []
        for level, stack in enumerate(self.way_in):
            if level > 0:
                h = self.down[level - 1](h)  # an odd size is rounded up
            h = stack(h, condition)
            passed.append(h)
        if self.attention is not None:
            h = self.attention(h)
        for level in reversed(range(len(passed))):
            h = self.way_back[level](h, condition)
            if level > 0:
                before = passed[level - 1]
                doubled = F.interpolate(self.up[level - 1](h), scale_factor=2.0)
                h = before + doubled[..., : before.shape[2], : before.shape[3]]
        h = F.pixel_shuffle(self.outlet(F.silu(self.norm(h))), self.patch)
        return h[..., :height, :width]


class Plan(NamedTuple):
    """A U-Net's size."""

    patch: int
    width: int
    multipliers: Sequence[int]
    attention: bool = False

    @classmethod
    def of(cls, shape: Sequence[int]) -> "Plan":
        """What suits images (C, H, W), so that no level costs much more than another.

        Patches are folded until 48 pixels of the shorter side are left at most, and levels go down to four. Channels
        double from one to the next, up to 128, from 64 at 16 pixels a side or 32 at 32; but there are no fewer than a
        patch has numbers, or the noise in it would not fit through. Tiny images have half as many, and no attention.
        """
        side, tiny = min(shape[1:]), min(shape[1:]) < 16
        patch = 1 if tiny else 2
        while side > 48 * patch:
            patch *= 2
        first = math.ceil(side / patch)
        levels = len(pyramid((shape[0], first, first)))
        width = max(32 if tiny or first >= 32 else 64, 32 * math.ceil(shape[0] * patch**2 / 32))
        most = max(1, 128 // width)
        return cls(patch, width, [min(2**level, most) for level in range(levels)], attention=not tiny)


#: The last convolution of a residual branch, and of the network, begins at this part of its usual size: nearly the
#: identity and nearly zero, as others begin exactly (Ho et al. 2020), but so that gradients reach every parameter
#: from the first step.
SMALL = 0.1


class Stack(nn.ModuleList):
    """Residual blocks one after the other."""

    def forward(self, h: Tensor, condition: Tensor) -> Tensor:
        """(B, channels, H, W) and (B, features) to (B, channels, H, W)."""
        for block in self:
            h = block(h, condition)
        return h


class ResidualBlock(nn.Module):
    """h + conv(silu((1 + a) · norm(conv(h)) + b)) with (a, b) from the condition (compare Dhariwal & Nichol 2021)."""

    def __init__(self, channels: int, features: int, dropout: float) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.modulation = nn.Linear(features, 2 * channels)
        self.norm = _norm(channels)
        self.dropout = nn.Dropout(dropout)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        with torch.no_grad():
            self.second.weight.mul_(SMALL)

    def forward(self, h: Tensor, condition: Tensor) -> Tensor:
        """(B, channels, H, W) and (B, features) to (B, channels, H, W)."""
        scale, shift = self.modulation(condition)[:, :, None, None].chunk(2, dim=1)
        branch = self.norm(self.first(h))
        return h + self.second(self.dropout(F.silu(branch * (1 + scale) + shift)))


class Attention(nn.Module):
    """h + the attention of each pixel to all (Vaswani et al. 2017), in heads of 32 channels or so.

    It is written out: for as few pixels as these, the backward pass of PyTorch's fused kernel for the CPU takes
    several times as long.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.heads = math.gcd(channels, max(1, channels // 32))
        self.norm = _norm(channels)
        self.queries_keys_values = nn.Conv2d(channels, 3 * channels, 1)
        self.outlet = nn.Conv2d(channels, channels, 1)
        with torch.no_grad():
            self.outlet.weight.mul_(SMALL)

    def forward(self, h: Tensor) -> Tensor:
        """(B, channels, H, W) to the same."""
        projected = self.queries_keys_values(self.norm(h))
        q, k, v = projected.flatten(2).unflatten(1, (3, self.heads, -1)).transpose(3, 4).unbind(1)
        weights = (q / math.sqrt(q.shape[3]) @ k.transpose(2, 3)).softmax(3)
        attended = weights @ v
        return h + self.outlet(attended.transpose(2, 3).reshape(h.shape))


def _norm(channels: int) -> nn.GroupNorm:
    """Normalises groups of 16 channels or so (Wu & He 2018): of 8, it takes several times as long on a CPU."""
    return nn.GroupNorm(math.gcd(channels, max(1, channels // 16)), channels)
