"""What kind of data a shape and a number of levels describe, and the discrete codes behind them.

| modality | a batch's x | shape | levels |
|---|---|---|---|
| image | float in [0, 1] on the grid k/(levels − 1), or any float | (C, H, W) | 256; 2 if binarised; or None |
| waveform | float in [−1, 1] | (1, T) | how many mu-law codes the likelihood refers to: 256 |
| tokens | int64 in [0, levels) | (T,) | the vocabulary's size |
| points | any float | (D,) | None: continuous |

A likelihood of discrete data is one of the codes 0 … levels − 1: `to_codes` and `from_codes` go between them and x.
"""

import math
from collections.abc import Sequence
from numbers import Integral
from typing import Literal

import torch
from torch import Tensor

Modality = Literal["image", "waveform", "tokens", "points"]

ROUNDING = 1e-5  # by which an expected value, a sum over the levels, may leave their range


def modality(shape: Sequence[int], levels: int | None) -> Modality:
    """The kind of data with this shape of one datum and this number of levels.

    Raises:
        ValueError: if they cannot describe data.
    """
    if not shape or any(not _is_whole(n) or n < 1 for n in shape):
        raise ValueError(f"shape={shape!r}: give the shape of one datum as positive integers, e.g. (1, 28, 28).")
    if levels is not None and (not _is_whole(levels) or levels < 2):
        raise ValueError(f"levels={levels!r}: data have a whole number of levels, at least 2; None means continuous.")
    if len(shape) == 3:
        return "image"
    if len(shape) == 2:
        if shape[0] != 1:
            raise ValueError(f"shape={tuple(shape)}: a waveform has the shape (1, T); images have (C, H, W).")
        return "waveform"
    if len(shape) == 1:
        return "points" if levels is None else "tokens"
    raise ValueError(
        f"shape={tuple(shape)}: one datum is an image (C, H, W), a waveform (1, T), tokens (T,) or a point (D,)."
    )


def _is_whole(number: object) -> bool:
    return isinstance(number, Integral) and not isinstance(number, bool)


def to_codes(x: Tensor, shape: Sequence[int], levels: int) -> Tensor:
    """The int64 codes in [0, levels) of data: the image's k, the waveform's mu-law code, the token itself.

    Args:
        x: (..., *shape), in the data's range; a waveform is quantised here, an image is taken to lie on its grid.
    """
    kind = modality(shape, levels)
    if kind == "tokens":
        return x.long()
    if kind == "waveform":
        mu = levels - 1
        compressed = x.sign() * (mu * x.abs()).log1p() / math.log1p(mu)  # ITU-T G.711, in [−1, 1]
        return ((compressed + 1) / 2 * mu).round().long()
    return (x * (levels - 1)).round().long()


def from_codes(codes: Tensor, shape: Sequence[int], levels: int) -> Tensor:
    """The data of codes, in the data's range, float32 (tokens: int64); `to_codes` takes them back without loss."""
    kind = modality(shape, levels)
    if kind == "tokens":
        return codes.long()
    if kind == "waveform":
        mu = levels - 1
        compressed = 2 * codes.float() / mu - 1
        return compressed.sign() * torch.expm1(compressed.abs() * math.log1p(mu)) / mu
    return codes.float() / (levels - 1)


def check_data(
    x: Tensor,
    shape: Sequence[int],
    levels: int | None,
    precisions: set[torch.dtype],
    name: str,
    *,
    on_grid: bool = True,
) -> Tensor:
    """The batch itself, if it holds data of this shape and these levels.

    Args:
        x: the batch.
        shape: of one datum.
        levels: as above.
        precisions: the floating-point types that the model computes in; empty if it has no parameters.
        name: of the model, for the message.
        on_grid: whether images have to lie on the grid of their levels, or anywhere in its range.

    Raises:
        TypeError: if x is no tensor, or of the wrong kind of number.
        ValueError: on a wrong shape, no data at all, NaN or infinite values, values out of range or off the grid of
            levels.
    """
    kind = modality(shape, levels)
    event = ", ".join(map(str, shape))
    if not isinstance(x, Tensor):
        raise TypeError(f"{name} takes a batch as a tensor of shape (B, {event}), but was given {type(x).__name__}.")
    if x.ndim != len(shape) + 1 or tuple(x.shape[1:]) != tuple(shape):
        raise ValueError(
            f"{name} was built for data of shape {tuple(shape)}, so a batch is (B, {event}), but was given"
            f" {tuple(x.shape)}. Build it with the datamodule's shape, or reshape the batch."
        )
    if not len(x):
        raise ValueError(f"{name} was given an empty batch, {tuple(x.shape)}: give at least one datum.")
    if kind == "tokens":
        return _check_tokens(x, levels or 0, name)
    if not x.is_floating_point():
        raise TypeError(
            f"{name} takes float data"
            + (
                ""
                if levels is None
                else f" on the grid k/{levels - 1} in [0, 1]"
                if kind == "image"
                else " in [−1, 1]"
            )
            + f", but was given {x.dtype}."
            + (" Divide uint8 images by 255." if x.dtype == torch.uint8 else "")
        )
    if precisions and x.dtype not in precisions:
        own = " or ".join(sorted(map(str, precisions)))
        raise TypeError(f"{name} computes in {own}, but was given {x.dtype}. Convert the batch: x.to({own}).")
    if not bool(torch.isfinite(x).all()):
        bad = int((~torch.isfinite(x)).flatten(1).any(1).sum())
        raise ValueError(f"{bad} of {len(x)} data in the batch hold NaN or infinite values; clean the data.")
    if levels is None:
        return x
    lowest = 0 if kind == "image" else -1
    low, high = float(x.min()), float(x.max())
    if low < lowest - ROUNDING or high > 1 + ROUNDING:
        raise ValueError(
            f"{name} takes values in [{lowest}, 1], but was given values in [{low:.4g}, {high:.4g}]. Undo any"
            " normalisation: the model scales its input itself."
        )
    if kind == "image" and on_grid:
        _check_grid(x, levels, name)
    return x


def _check_tokens(x: Tensor, levels: int, name: str) -> Tensor:
    if x.dtype != torch.int64:
        raise TypeError(f"{name} takes tokens as int64 in [0, {levels}), but was given {x.dtype}: x.long().")
    if not 0 <= int(x.min()) <= int(x.max()) < levels:
        raise ValueError(
            f"{name} was built for a vocabulary of levels={levels}, so tokens lie in [0, {levels}), but was given"
            f" tokens in [{int(x.min())}, {int(x.max())}]. Give the datamodule's `levels`."
        )
    return x


def _check_grid(x: Tensor, levels: int, name: str) -> None:
    steps = x * (levels - 1)
    off = float((steps - steps.round()).abs().max())
    if off > 1e-3:
        raise ValueError(
            f"{name} has levels={levels}, so values lie on the grid k/{levels - 1}, but a value was"
            f" {off:.3g} of a step away from it. Quantise the data, or"
            + (" binarise them" if levels == 2 else " give the right `levels`")
            + " (augmentations that interpolate leave the grid)."
        )
