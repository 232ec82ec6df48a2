"""What kind of data a shape and a number of levels describe, and the discrete codes behind them.

| modality | a batch's x | shape | levels |
|---|---|---|---|
| image | float in [0, 1] on the grid k/(levels − 1), or any float | (C, H, W) | 256; 2 if binarised; or None |
| waveform | float in [−1, 1]; 0 from its end on | (1, T) | how many mu-law codes the likelihood refers to: 256 |
| series | any float: C values at each of T times | (C, T) | None: continuous |
| tokens | int64 in [0, levels) | (T,) | the vocabulary's size |
| points | any float | (D,) | None: continuous |

A batch is x, (x, y) with a label y for each datum, or {"x": …, "y": …}: `parted` tells the two apart.

A likelihood of discrete data is one of the codes 0 … levels − 1: `to_codes` and `from_codes` go between them and x.
"""

import math
from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any, Literal

import torch
from torch import Tensor

from genzoo.zoo.precision import full_precision

Modality = Literal["image", "waveform", "series", "tokens", "points"]

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
        if shape[0] != 1 and levels is not None:
            raise ValueError(
                f"shape={tuple(shape)}, levels={levels}: a waveform has the shape (1, T); images have (C, H, W); "
                "series (C, T) are continuous, of levels=None."
            )
        return "series" if levels is None else "waveform"
    if len(shape) == 1:
        return "points" if levels is None else "tokens"
    raise ValueError(
        f"shape={tuple(shape)}: one datum is an image (C, H, W), a waveform (1, T), a series (C, T), tokens (T,) or a"
        " point (D,)."
    )


def _is_whole(number: object) -> bool:
    return isinstance(number, Integral) and not isinstance(number, bool)


def parted(batch: Any) -> tuple[Any, Any]:
    """Data and labels, None where there are none, of a batch x, (x,), (x, y, …), or {"x": x, "y": y, …}.

    Raises:
        ValueError: if a mapping has nothing under "x".
    """
    if isinstance(batch, Mapping):
        if "x" not in batch:
            raise ValueError(
                "a batch that is a mapping has its data under 'x', and its labels under 'y', but this one has"
                f" {', '.join(map(repr, batch)) or 'nothing'}: rename them"
            )
        return batch["x"], batch.get("y")
    x, labels = (batch[0], batch[1]) if isinstance(batch, list | tuple) and len(batch) > 1 else (batch, None)
    return (x[0] if isinstance(x, list | tuple) else x), labels


def to_codes(x: Tensor, levels: int, kind: Modality = "image") -> Tensor:
    """The int64 codes in [0, levels) of data: the image's k, the waveform's mu-law code, the token itself.

    Args:
        x: of any shape, in the data's range; a waveform is quantised here, an image is taken to lie on its grid.
        levels: how many codes there are.
        kind: of data.
    """
    if kind == "tokens":
        return x.long()
    x = full_precision(x)
    if kind == "waveform":
        mu = levels - 1
        compressed = x.sign() * (mu * x.abs()).log1p() / math.log1p(mu)  # ITU-T G.711, in [−1, 1]
        return ((compressed + 1) / 2 * mu).round().long()
    return (x * (levels - 1)).round().long()


def from_codes(codes: Tensor, levels: int, kind: Modality = "image") -> Tensor:
    """The data of codes, in the data's range, float32 (tokens: int64); `to_codes` takes them back without loss."""
    if kind == "tokens":
        return codes.long()
    if kind == "waveform":
        mu = levels - 1
        compressed = 2 * codes.float() / mu - 1
        return compressed.sign() * torch.expm1(compressed.abs() * math.log1p(mu)) / mu
    return codes.float() / (levels - 1)


def to_grid(x: Tensor, levels: int, kind: Modality = "image") -> Tensor:
    """The data nearest to x, which may lie out of their range; float32, or x's own precision if that is wider."""
    x = full_precision(x).clamp(0 if kind == "image" else -1, 1)
    return from_codes(to_codes(x, levels, kind), levels, kind).to(x.dtype)


def sounding(x: Tensor, levels: int) -> Tensor:
    """Which samples of waveforms, (..., T), are sound: all up to the last one that is not exactly 0, bool.

    What is shorter than T is filled up with zeros at its end. That no silence is taken for them is because an even
    number of mu-law codes has none for 0: the two beside it are the least sounds that there are, and the silence of
    a recording that was quantised is made of those. (Of a recording that was not, digital silence at its very end is
    not counted.) Where levels are odd, 0 has a code, and everything is sound. A sound has at least one sample.
    """
    if levels % 2:
        return torch.ones_like(x, dtype=torch.bool)
    sound = (x != 0).flip(-1).cumsum(-1).flip(-1) > 0
    sound[..., 0] = True
    return sound


def in_full(x: Tensor, levels: int | None, kind: Modality) -> Tensor:
    """Data that came in half precision, in float32; images, whose grid half precision does not hold, back on it."""
    if not x.is_floating_point() or x.dtype == full_precision(x).dtype:
        return x
    return to_grid(x, levels) if kind == "image" and levels is not None else full_precision(x)


def value_range(shape: Sequence[int], levels: int | None) -> tuple[float, float]:
    """The lowest and the highest value that data can take; of continuous data, any finite one."""
    if levels is None:
        largest = torch.finfo(torch.float64).max
        return -largest, largest
    highest = {"image": 1.0, "waveform": 1.0, "tokens": levels - 1.0}[modality(shape, levels)]
    return (-1.0 if modality(shape, levels) == "waveform" else 0.0), highest


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
        precisions: the floating-point types of the model's weights; empty if it has none. Of half precision, data
            in float32 are taken, too.
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
    taken = precisions | {torch.promote_types(p, torch.float32) for p in precisions}
    if precisions and x.dtype not in taken:
        own = " or ".join(sorted(map(str, taken)))
        raise TypeError(
            f"{name} takes {own}, but was given {x.dtype}. Convert the batch: x.to({own.split(' or ')[-1]})."
        )
    if not bool(torch.isfinite(x).all()):
        bad = int((~torch.isfinite(x)).flatten(1).any(1).sum())
        raise ValueError(f"{bad} of {len(x)} data in the batch hold NaN or infinite values; clean the data.")
    if levels is None:
        return x
    lowest = 0 if kind == "image" else -1
    low, high = (float(value) for value in x.detach().aminmax())
    if low < lowest - ROUNDING or high > 1 + ROUNDING:
        raise ValueError(
            f"{name} takes values in [{lowest}, 1], but was given values in [{low:.4g}, {high:.4g}]. Undo any"
            " normalisation: the model scales its input itself."
        )
    if kind == "image" and on_grid:
        _check_grid(x, levels, name)
    return x


def unusual_scale(x: Tensor, data_scale: float | None = None) -> str | None:
    """What continuous data have that is far from unit scale, and what to do about it; None where there is nothing.

    Networks, their rates and the noise of a diffusion are made for data whose mean is about 0 and whose standard
    deviation is about 1. Each column of points (of images and sounds, each channel) should have a mean in [−10, 10]
    and a standard deviation in [0.1, 10]; one that is constant has none.

    Args:
        x: (B, D), (B, C, H, W) or (B, 1, T), at least eight data: of fewer, a standard deviation says little.
        data_scale: of a model that divides its data by such a number.
    """
    columns = x.detach().cpu().transpose(0, 1).flatten(1).double() / (data_scale or 1)  # some devices have no double
    mean, std = columns.mean(1), columns.std(1, correction=0)
    far = (mean.abs() > 10) | (std > 10) | ((std < 0.1) & (std > 1e-6 * mean.abs()))
    if len(x) < 8 or not bool(far.any()):
        return None
    size = torch.maximum(torch.maximum(mean.abs(), std), torch.where(std > 0, 1 / std, 0.0))
    worst = int(torch.where(far, size, 0.0).argmax())
    name = "column" if x.ndim == 2 else "channel"
    divided = f" after its division by data_scale={data_scale:g}" if data_scale not in (None, 1) else ""
    return (
        f"{name} {worst} of the data has the mean {float(mean[worst]):.3g} and the standard deviation"
        f" {float(std[worst]):.3g}{divided}, and {int(far.sum())} of {len(far)} {name}s are far from 0 and 1: a model"
        f" learns that badly, or not at all. Standardise each {name}: "
        + (
            "model.standardise(mean, std) before it is trained"
            if x.ndim == 2
            else "subtract its mean and divide by its standard deviation"
        )
        + ("" if data_scale is None else ", or set data_scale if all of them are of one size around 0")
    )


def no_number(x: Tensor, data_scale: float | None = None) -> str:
    """Why a loss is no number, as far as the batch tells that it is of."""
    if not bool(torch.isfinite(x).all()):
        bad = int((~torch.isfinite(x)).flatten(1).any(1).sum())
        return f"{bad} of {len(x)} data in the batch hold NaN or infinite values; clean the data"
    if x.is_floating_point() and (scale := unusual_scale(x, data_scale)):
        return f"the training diverged, and {scale}"
    return "the data are finite, so the training diverged; try a lower learning rate, or gradient clipping"


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
    rounding = (levels - 1) * torch.finfo(x.dtype).eps / 4  # of numbers below 1, in steps of the grid
    if rounding >= 0.5:
        raise ValueError(f"{name} has levels={levels}, which {x.dtype} cannot tell apart: give float32.")
    steps = full_precision(x.detach()) * (levels - 1)
    off = float((steps - steps.round()).abs().max())
    if off > 1e-3 + rounding:
        raise ValueError(
            f"{name} has levels={levels}, so values lie on the grid k/{levels - 1}, but a value was"
            f" {off:.3g} of a step away from it. Quantise the data, or"
            + (" binarise them" if levels == 2 else " give the right `levels`")
            + " (augmentations that interpolate leave the grid)."
        )
