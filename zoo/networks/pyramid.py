"""Images of any size, halved stage by stage: an odd side is padded to be halved, and rounded up.

28 → 14 → 7 → 4; on the way back 4 → 8 → 16 → 32, what exceeds a stage's size being cropped.
"""

import math
from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F


def pyramid(shape: Sequence[int], halvings: int | None = None) -> list[tuple[int, int]]:
    """The (height, width) of each stage, from the full size down.

    Args:
        shape: (C, H, W) of the image.
        halvings: how many; None: until the shorter side has at most four pixels, at least one.

    Raises:
        ValueError: if that is the shape of no image.
    """
    if len(shape) != 3:
        raise ValueError(f"A convolutional network is for images (C, H, W), but shape={tuple(shape)}.")
    _, height, width = shape
    if halvings is None:
        halvings = max(1, math.ceil(math.log2(min(height, width) / 4)))
    return [(math.ceil(height / 2**k), math.ceil(width / 2**k)) for k in range(halvings + 1)]


def pad_to_multiple(x: Tensor, n: int) -> Tensor:
    """(B, C, H, W) with zeros below and to the right, so that n divides height and width."""
    return F.pad(x, (0, -x.shape[3] % n, 0, -x.shape[2] % n))
