"""Images and series cut into patches, each of which is one position of a transformer (Dosovitskiy et al. 2021)."""

import math
from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F


def folded(x: Tensor, patch: int) -> Tensor:
    """(B, C, H, W) to (B, N, C · patch²), or (B, C, T) to (B, N, C · patch): patches row by row, zeros at the end."""
    sides = range(2, x.ndim)
    x = F.pad(x, [n for side in reversed(sides) for n in (0, -x.shape[side] % patch)])
    for side in reversed(sides):
        x = x.unflatten(side, (-1, patch))  # (B, C, h, patch, w, patch)
    places, within = [2 * side - 2 for side in sides], [2 * side - 1 for side in sides]
    return x.permute(0, *places, 1, *within).flatten(len(places) + 1).flatten(1, len(places))


def unfolded(h: Tensor, shape: Sequence[int], patch: int) -> Tensor:
    """The inverse of `folded`, for data of this shape."""
    channels, *sides = shape
    grid = [math.ceil(side / patch) for side in sides]
    h = h.view(-1, *grid, channels, *[patch] * len(grid))
    order = [n for axis in range(len(grid)) for n in (1 + axis, 2 + len(grid) + axis)]
    x = h.permute(0, 1 + len(grid), *order).reshape(-1, channels, *(patch * n for n in grid))
    for axis, side in enumerate(sides):
        x = x.narrow(2 + axis, 0, side)
    return x
