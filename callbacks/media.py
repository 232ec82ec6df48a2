"""From a batch of data to something that can be looked at: written to a file and sent to a logger.

A modality is one class with a `suffix`, `write(path)` and `send(logger, key, step)`, and one branch of
`render`. The callbacks know no more than that, so sound and text need no change to them.
"""

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
from torch import Tensor
from torch.nn.functional import pad

GAP = 2  # pixels between the tiles of a grid
MIN_TILE = 64  # a smaller picture is enlarged by a whole factor, up to about this many pixels


class Medium(Protocol):
    """What `render` makes."""

    suffix: str

    def write(self, path: Path) -> None:
        """Writes the file, whole or not at all."""

    def send(self, logger: Logger, key: str, step: int) -> None:
        """Hands it to the logger, if that logger takes this kind of medium."""


@dataclass
class Picture:
    """An RGB picture: uint8, (height, width, 3)."""

    pixels: Tensor
    suffix: str = ".png"

    def write(self, path: Path) -> None:
        """Writes a PNG under a temporary name and renames it."""
        from PIL import Image

        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        Image.fromarray(self.pixels.numpy()).save(temporary, format="PNG")
        os.replace(temporary, path)

    def send(self, logger: Logger, key: str, step: int) -> None:
        """Sends the pixels to wandb or TensorBoard, as uint8: wandb would cast floats to 0 or 1."""
        if isinstance(logger, WandbLogger):
            logger.log_image(key, [self.pixels.numpy()], step=step)
        elif isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image(key, self.pixels, global_step=step, dataformats="HWC")


def can_render(shape: tuple[int, ...]) -> bool:
    """Whether data of this shape can be shown: images (1 or 3, H, W) and points in the plane (2,)."""
    return (len(shape) == 3 and shape[0] in (1, 3)) or tuple(shape) == (2,)


def render(x: Tensor, columns: int) -> Medium:
    """Shows a batch: images as a grid, points in the plane as a picture of where they lie.

    Args:
        x: (N, C, H, W) in [0, 1] with C = 1 or 3, values beyond are clipped; or (N, 2).
        columns: images in one row of the grid.

    Raises:
        ValueError: for data of another shape.
    """
    if not can_render(tuple(x.shape[1:])):
        raise ValueError(
            f"Data of shape {tuple(x.shape[1:])} cannot be shown; images (1 or 3, H, W) and points (2,) can."
        )
    x = x.detach().float().cpu()
    return Picture(_grid(x, columns) if x.ndim == 4 else _density(x))


def _grid(images: Tensor, columns: int) -> Tensor:
    n, _, height, width = images.shape
    pixels = (images.nan_to_num(0).clamp(0, 1) * 255).round().to(torch.uint8).expand(n, 3, height, width)
    zoom = max(1, MIN_TILE // max(height, width))
    pixels = pixels.repeat_interleave(zoom, -1).repeat_interleave(zoom, -2)
    rows = math.ceil(n / columns)
    tiles = pad(pixels, (0, GAP, 0, GAP, 0, 0, 0, rows * columns - n), value=128)  # missing tiles are grey
    tiles = tiles.unflatten(0, (rows, columns)).permute(0, 3, 1, 4, 2).flatten(2, 3).flatten(0, 1)
    return pad(tiles.permute(2, 0, 1), (GAP, 0, GAP, 0), value=128).permute(1, 2, 0).contiguous()


def _density(points: Tensor, size: int = 384) -> Tensor:
    """Black where there are points, on white: a histogram over the square that holds them all, y upwards."""
    points = points[points.isfinite().all(1)]
    if len(points) == 0:
        return torch.full((size, size, 3), 255, dtype=torch.uint8)
    low, high = points.min(0).values, points.max(0).values
    centre, radius = (low + high) / 2, ((high - low).max() / 2).clamp_min(1e-6) * 1.05
    cells = (((points - centre) / radius + 1) / 2 * (size - 3)).long() + 1
    counts = torch.zeros(size, size)
    counts.index_put_((size - 1 - cells[:, 1], cells[:, 0]), torch.ones(len(points)), accumulate=True)
    # A dot of one pixel would hardly be seen: every point covers 3 × 3.
    counts = torch.nn.functional.avg_pool2d(counts[None], 3, stride=1, padding=1, divisor_override=1)[0]
    ink = (counts / counts[counts > 0].quantile(0.9).clamp_min(1)).clamp(0, 1).sqrt()
    return (255 * (1 - ink)).round().to(torch.uint8)[..., None].repeat(1, 1, 3)
