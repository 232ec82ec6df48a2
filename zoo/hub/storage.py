"""How precisely an entry stores its weights, and what becomes of them when they are loaded.

In half precision a weight takes 2 bytes. In int8 those of matrices and kernels take 1: of a row (of an output, in
most layers) every 32 of them, a block w, are whole numbers q from -127 to 127 and one scale s,

    w ≈ s q,    s = max |w| / 127,    q = round(w / s),    |w - s q| ≤ 0.7 s.

One scale for a row is the usual choice (Krishnamoorthi 2018, section 3.1), but its largest weight makes all others
of a long row coarse: the negative log-likelihood of twelve photographs by a flow grew by 3.5 % with rows, and by
0.5 % with blocks. What is no matrix, such as a bias, and what has few weights, such as the first and the last
layer, which matter most, are in float16 then. Nothing is computed in int8: a loaded model is in float32. The scales
of `key` are the tensor `key.scale` of the file, a name that no module has beside it.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from genzoo.zoo.hub.schema import StoredAs

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    State = Mapping[str, Tensor]


class Stored(NamedTuple):
    """What is stored of a tensor: its kind of number, None for one that no weights have, and its shape."""

    dtype: "torch.dtype | None"
    shape: tuple[int, ...]


SCALE = ".scale"  # what the name of the scales ends in
BLOCK = 32  # weights to a scale
FEW = 8192  # weights of a matrix, below which it is in float16


def as_stored(
    module: "nn.Module", dtype: StoredAs, state: "Mapping[str, Tensor] | None" = None
) -> "dict[str, Tensor]":
    """A state dict as it is after it was stored so and loaded again: what an entry's figures are measured on.

    Args:
        module: whose weights they are.
        dtype: as an entry stores them.
        state: the state dict; None is the module's own.
    """
    return widened(narrowed(module, dtype, state))


def narrowed(
    module: "nn.Module", dtype: StoredAs, state: "Mapping[str, Tensor] | None" = None
) -> "dict[str, Tensor]":
    """The tensors that an entry's file holds; the arguments are those of `as_stored`."""
    import torch

    from genzoo.zoo.module import ZooModule

    measured = module.with_later_buffers({}).keys() if isinstance(module, ZooModule) else set()
    parameters = module.named_parameters(remove_duplicate=False)
    matrices = {name for name, weight in parameters if weight.dim() > 1 and weight.numel() >= FEW}
    half = torch.float16 if dtype == "int8" else getattr(torch, dtype)
    stored = {}
    for key, value in (module.state_dict() if state is None else state).items():
        # only float32 is narrowed, and only weights: tables that are kept in float64 are kept so for a reason, and a
        # column's mean of 70,000 is none in half precision
        if value.dtype != torch.float32 or key in measured:
            stored[key] = value
        elif dtype == "int8" and key in matrices and bool(torch.isfinite(value).all()):
            stored[key], stored[key + SCALE] = _rounded(value)
        else:
            stored[key] = value.to(half)
    return stored


def widened(stored: "State") -> "dict[str, Tensor]":
    """The tensors of a file with whole numbers times their scales, as one tensor each, in float32."""
    state = dict(stored)
    for key in [key for key in stored if is_scaled(key, stored)]:
        state[key] = _unblocked(
            _blocks(state[key]).float() * state.pop(key + SCALE).float()[:, :, None], state[key].shape
        )
    return state


def is_scaled(key: str, stored: "Mapping[str, Tensor] | Mapping[str, Stored]") -> bool:
    """Whether that is a matrix or a kernel in whole numbers, with scales for the blocks of its rows.

    Args:
        key: of the tensor.
        stored: the tensors of a file, or what its header says of each.
    """
    import torch

    if key + SCALE not in stored:
        return False
    whole, scale = stored[key], stored[key + SCALE]
    return (
        whole.dtype == torch.int8
        and scale.dtype == torch.bfloat16
        and len(whole.shape) > 1
        and tuple(scale.shape) == (whole.shape[0], math.ceil(math.prod(whole.shape[1:]) / BLOCK))
    )


def _rounded(weight: "Tensor") -> "tuple[Tensor, Tensor]":
    """q and s of each block; of s q, the same again: a scale in bfloat16 has so few digits that 127 s is exact."""
    import torch

    blocks = _blocks(weight)
    scale = (blocks.abs().amax(2) / 127).clamp(min=torch.finfo(torch.bfloat16).tiny).bfloat16()  # all may be zero
    whole = (blocks / scale.float()[:, :, None]).round().clamp(-127, 127)
    return _unblocked(whole.to(torch.int8), weight.shape), scale


def _blocks(weight: "Tensor") -> "Tensor":
    """(rows, blocks, BLOCK), with zeros at the end of a row that is no multiple."""
    from torch.nn import functional as F

    rows = weight.flatten(1)
    return F.pad(rows, (0, -rows.shape[1] % BLOCK)).unflatten(1, (-1, BLOCK))


def _unblocked(blocks: "Tensor", shape: "Sequence[int]") -> "Tensor":
    """The inverse of `_blocks`, for weights of this shape."""
    return blocks.flatten(1)[:, : math.prod(shape[1:])].reshape(*shape)
