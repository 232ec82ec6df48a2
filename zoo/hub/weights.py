"""The weights of an entry: a safetensors file, whose header is read before anything else.

It says which tensors the file holds, of what kind and shape. A model that has others is refused before it is built,
and before the weights are read.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from genzoo.zoo.hub.entries import CONFIG
from genzoo.zoo.hub.schema import StoredAs
from genzoo.zoo.hub.storage import SCALE, Stored, is_scaled, narrowed, widened
from genzoo.zoo.hub.wording import one_line

if TYPE_CHECKING:
    from torch import Tensor, nn

HEADER_BYTES = 4 * 2**20  # of some ten thousand tensors
#: what safetensors and torch call the numbers that weights consist of
FLOATS = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
WHOLE = {"I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool"}


def largest(parameters: int) -> int:
    """Bytes, more than the weights of a model with so many parameters can take, with whatever buffers it has."""
    return 16 * parameters + 64 * 2**20


def read_header(path: Path) -> dict[str, Stored]:
    """The tensors of a safetensors file, by name; those in whole numbers with scales are one each, of float32.

    Raises:
        ValueError: it is no such file, or was cut short.
    """
    import torch
    from safetensors import SafetensorError, safe_open

    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if length > HEADER_BYTES:
        raise ValueError(f"{path} is no safetensors file, or one of more tensors than any model has")
    try:
        with safe_open(path, "pt") as file:
            slices = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118
            names = {key: (FLOATS | WHOLE).get(part.get_dtype(), "") for key, part in slices.items()}
            stored = {
                key: Stored(getattr(torch, names[key], None), tuple(part.get_shape())) for key, part in slices.items()
            }
    except SafetensorError as error:
        raise ValueError(one_line(f"{path} is no safetensors file, or was cut short: {error}")) from None
    scaled = [key for key in stored if is_scaled(key, stored)]
    for key in scaled:
        del stored[key + SCALE]
        stored[key] = Stored(torch.float32, stored[key].shape)
    return stored


def read_weights(path: Path, sha256: str) -> "dict[str, Tensor]":
    """The tensors of a safetensors file, as `read_header` has them; ValueError if its SHA-256 is not this one."""
    from safetensors import SafetensorError
    from safetensors.torch import load as deserialise

    data = path.read_bytes()  # hashed and parsed from the same bytes
    if hashlib.sha256(data).hexdigest() != sha256:
        raise ValueError(f"{path} is not what {CONFIG} says: its SHA-256 differs; it was cut short or changed")
    try:
        return widened(deserialise(data))
    except SafetensorError as error:
        raise ValueError(f"{path} is no safetensors file: {error}") from None


def write_weights(path: Path, module: "nn.Module", dtype: StoredAs) -> dict[str, str | int]:
    """Writes the module's weights, and returns what config.yaml says of them; ValueError if some are not finite."""
    import torch
    from safetensors.torch import save

    state = {key: value.detach().cpu().contiguous().clone() for key, value in narrowed(module, dtype).items()}
    for key, stored in state.items():
        if not bool(torch.isfinite(stored).all()):
            raise ValueError(f"{key} holds NaN or infinite values as {stored.dtype}; these weights are not published")
    data = save(state)
    path.write_bytes(data)
    parameters = sum(p.numel() for p in module.parameters())
    digest = hashlib.sha256(data).hexdigest()
    return {"file": path.name, "sha256": digest, "dtype": dtype, "parameters": parameters}


def check_fit(module: "nn.Module", stored: Mapping[str, Stored], origin: str) -> None:
    """Raises ValueError unless the module has these tensors, each with such numbers, and no others."""
    from genzoo.zoo.module import ZooModule

    own = module.state_dict()
    later = module.with_later_buffers({}).keys() if isinstance(module, ZooModule) else set()
    both = own.keys() & stored.keys()
    for fault, keys in {
        "lacks": own.keys() - stored.keys() - later,
        "has, unknown to the model,": stored.keys() - own.keys(),
        "has in another shape": {key for key in both if tuple(own[key].shape) != stored[key].shape},
        "has as another kind of number": {key for key in both if not _same_kind(own[key], stored[key])},
    }.items():
        if keys:
            shown = ", ".join(sorted(keys)[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")
            raise ValueError(one_line(f"{origin} does not fit {type(module).__name__}: it {fault} {shown}"))


def check_finite(module: "nn.Module", origin: str) -> None:
    """Raises ValueError if a weight of the module is NaN or infinite, or a column's standard deviation is none."""
    import torch

    for key, value in module.state_dict().items():
        if not bool(torch.isfinite(value).all()):
            raise ValueError(f"{origin} holds NaN or infinite values in {key}: such weights are of no use")
        if key.rpartition(".")[2] in ("column_std", "channel_std") and not bool((value > 0).all()):
            raise ValueError(f"{origin} holds standard deviations in {key} that are not above 0: no data have such")


def _same_kind(own: "Tensor", stored: Stored) -> bool:
    """Whether numbers as stored are the tensor's own: floating-point ones in any precision, others as they are."""
    return stored.dtype is not None and (
        stored.dtype.is_floating_point if own.is_floating_point() else stored.dtype == own.dtype
    )
