"""What makes more of few pictures: the same ones flipped and shifted, anew each time that they are seen."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from torch import Tensor


class Augmentation:
    """Flips and shifts of the pictures of training batches; those of evaluation stay as they are.

    Done on a whole batch as it is stored, a byte a value, at a few times the cost of reading it from memory.

    Args:
        flip: mirror each picture, left to right, with probability ½.
        shift: move each picture by up to so many pixels, down or up and right or left, uniformly; what moves in at
            an edge is the picture itself, mirrored there.
        shape: (C, H, W) of a picture.

    Raises:
        ValueError: if shift is no whole number from 0 to the picture's side less one.
    """

    def __init__(self, flip: bool, shift: int, shape: Sequence[int]) -> None:
        most = min(shape[1:]) - 1
        if not isinstance(shift, int) or not 0 <= shift <= most:
            raise ValueError(f"shift is {shift!r}, but must be a whole number of pixels from 0 to {most}")
        self.flip, self.shift = bool(flip), shift

    def __bool__(self) -> bool:
        return self.flip or self.shift > 0

    def __call__(self, pictures: Tensor, generator: torch.Generator) -> Tensor:
        """(B, C, H, W) to the same, each picture flipped and shifted by itself."""
        x = pictures.numpy().copy()  # numpy copies rows several times as fast as torch
        if self.flip:
            flipped = torch.rand(len(x), generator=generator).numpy() < 0.5
            x[flipped] = x[flipped][..., ::-1]
        if self.shift:
            down, right = torch.randint(0, 2 * self.shift + 1, (2, len(x)), generator=generator).numpy()
            windows = sliding_window_view(mirrored_beyond(x, self.shift), x.shape[2:], axis=(2, 3))
            x = windows[np.arange(len(x)), :, down, right]
        return torch.from_numpy(x)


def mirrored_beyond(x: np.ndarray, by: int) -> np.ndarray:
    """Pictures (B, C, H, W) that go on for `by` pixels beyond each edge, mirrored at it.

    `numpy.pad(…, "reflect")` of the last two axes, at a third of its time.
    """
    height, width = x.shape[2:]
    larger = np.empty((*x.shape[:2], height + 2 * by, width + 2 * by), x.dtype)
    rows, columns = slice(by, by + height), slice(by, by + width)
    larger[:, :, rows, columns] = x
    larger[:, :, rows, :by] = x[..., 1 : by + 1][..., ::-1]
    larger[:, :, rows, by + width :] = x[..., -by - 1 : -1][..., ::-1]
    larger[:, :, :by] = larger[:, :, by + 1 : 2 * by + 1][:, :, ::-1]
    larger[:, :, by + height :] = larger[:, :, height - 1 : by + height - 1][:, :, ::-1]
    return larger
