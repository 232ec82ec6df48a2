"""How precisely an entry stores its weights, and what becomes of them when they are loaded.

In half precision a weight takes 2 bytes. In int8 the matrices and kernels take 1: each row w (of an output, in most
layers) is stored as whole numbers q from -127 to 127 and one scale s, and read as

    w ≈ s q,    s = max |w| / 127,    q = round(w / s),    |w - s q| ≤ 0.7 s

so that rows of small weights lose no more, relatively, than rows of large ones (Krishnamoorthi 2018, section 3.1:
symmetric, per channel). What is no matrix, such as a bias, is in float16 then. Nothing is computed in int8: a loaded
model is in float32. The scales of `key` are the tensor `key.scale` of the file, a name that no module has beside it.
"""

from collections.abc import Mapping
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


SCALE = ".scale"  # what the name of a row's scales ends in


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
    matrices = {name for name, weight in module.named_parameters(remove_duplicate=False) if weight.dim() > 1}
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
        scale = state.pop(key + SCALE).float()
        state[key] = (state[key].flatten(1).float() * scale[:, None]).view(state[key].shape)
    return state


def is_scaled(key: str, stored: "Mapping[str, Tensor] | Mapping[str, Stored]") -> bool:
    """Whether that is a matrix or a kernel in whole numbers, with a scale for each of its rows.

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
        and tuple(scale.shape) == tuple(whole.shape[:1])
    )


def _rounded(weight: "Tensor") -> "tuple[Tensor, Tensor]":
    """q and s of each row; of s q, the same again: a scale in bfloat16 has so few digits that 127 s is exact."""
    import torch

    rows = weight.flatten(1)
    scale = (rows.abs().amax(1) / 127).clamp(min=torch.finfo(torch.bfloat16).tiny).bfloat16()  # a row may be all zero
    whole = (rows / scale.float()[:, None]).round().clamp(-127, 127)
    return whole.to(torch.int8).view(weight.shape), scale
