"""From data to pictures inside a page: PNG files as data URIs.

Grey pictures hold white ink on black; the page turns them round where it is light. What is not there (gaps, unknown
pixels, places without points) is transparent.
"""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from genzoo.zoo.media import Window, density

TILE = 48  # pixels; smaller images are enlarged by a whole factor up to this


@dataclass(frozen=True)
class Picture:
    """A still picture, or a film: frames below one another, each with a caption."""

    uri: str
    width: int
    height: int  # of one frame
    alt: str
    grey: bool
    captions: tuple[str, ...] = ()

    @property
    def frames(self) -> int:
        """How many frames it has; 1 for a still picture."""
        return max(1, len(self.captions))


def sheet(x: Tensor, known: Tensor | None = None, *, zoom: int = 1) -> Tensor:
    """A grid of images with transparent gaps, one pixel wide, or about half a pixel where they are enlarged.

    Args:
        x: (rows, columns, C, H, W) in [0, 1], C = 1 or 3.
        known: bool, broadcastable to x; what is not known is transparent.
        zoom: how large each pixel becomes.

    Returns:
        uint8, (height, width, 2 or 4), the last channel being alpha.
    """
    colours = (x.float().nan_to_num(0).clamp(0, 1) * 255).round()
    alpha = torch.full_like(colours[:, :, :1], 255)
    if known is not None:
        alpha = alpha * known.expand(x.shape)[:, :, :1]
    pixels = torch.cat([colours, alpha], 2).to(torch.uint8)
    pixels = pixels.repeat_interleave(zoom, -1).repeat_interleave(zoom, -2)
    gap = gap_of(zoom)
    pixels = pad(pixels, (0, gap, 0, gap))  # right and below; the last of them is cut off again
    return pixels.permute(0, 3, 1, 4, 2).flatten(2, 3).flatten(0, 1)[:-gap, :-gap]


def gap_of(zoom: int) -> int:
    """How many pixels lie between the images of a sheet."""
    return (zoom + 1) // 2


def ink(points: Tensor, window: Window, size: int = 160) -> Tensor:
    """Where points, (N, 2), lie in the window: uint8, (size, size, 2), opaque where they are dense."""
    alpha = 255 - density(points.float().cpu(), size, window)[..., :1]
    return torch.cat([torch.full_like(alpha, 255), alpha], -1)


def still(pixels: Tensor, alt: str) -> Picture:
    """One picture of (height, width, channels with alpha)."""
    return Picture(png(pixels), pixels.shape[1], pixels.shape[0], alt, grey=pixels.shape[2] == 2)


def film(frames: Sequence[Tensor], captions: Sequence[str], alt: str) -> Picture:
    """Pictures of one size, below one another."""
    height, width, channels = frames[0].shape
    return Picture(png(torch.cat(list(frames))), width, height, alt, channels == 2, tuple(captions))


def png(pixels: Tensor) -> str:
    """The data URI of uint8 (height, width, 2 or 4): grey or colour, with alpha."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels.contiguous().numpy(), mode={2: "LA", 4: "RGBA"}[pixels.shape[2]]).save(
        buffer, format="PNG", optimize=True
    )
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
