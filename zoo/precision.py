"""Half precision is for networks: data, latents and likelihoods are in float32 at least, whatever the weights."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn


def fast_bfloat16(device: torch.device | str) -> bool:
    """Whether a device multiplies matrices faster in bfloat16 than in float32.

    A GPU of NVIDIA's does from Ampere on, AMD's as PyTorch says, and a processor with AMX or AVX512_BF16. Any other
    processor converts forth and back, and is slower by it; of any other device nothing is known.
    """
    kind = torch.device(device).type
    if kind == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if kind == "cpu":
        multiplies = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
        return multiplies and torch.backends.mkldnn.is_available()
    return False


def fastest_precision(device: torch.device | str) -> Literal["bf16-mixed", "32-true"]:
    """The precision in which a Trainer makes the most steps on a device: by what it has, not by a clock that varies.

    The same answer on the same hardware, so that a seed gives the same weights. It does not depend on the network:
    where bfloat16 is fast all families gain by it, and where it is not all of them lose ("Precision" in
    `docs/runs.md`).
    """
    return "bf16-mixed" if fast_bfloat16(device) else "32-true"


@contextmanager
def without_tf32() -> Iterator[None]:
    """Float32 has all of its bits meanwhile, whatever `torch.set_float32_matmul_precision` was told.

    Convolutions are computed in TF32 on a GPU, with ten bits of each number, unless PyTorch is told otherwise: good
    enough to train with, but a figure would say something of the hardware.
    """
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    told: list[tuple[Any, str, Any]] = [(matmul, "allow_tf32", False), (cudnn, "allow_tf32", False)]
    try:
        # "medium" is bfloat16, on a CPU, too, of which those names say nothing
        rounds = torch.get_float32_matmul_precision() == "medium"
        before = [getattr(place, name) for place, name, _ in told]
    except RuntimeError:  # somebody has used PyTorch's newer names for the same, with which these do not go
        told = [(matmul, "fp32_precision", "ieee"), (cudnn.conv, "fp32_precision", "ieee")]  # type: ignore[attr-defined]
        before, rounds = [getattr(place, name) for place, name, _ in told], False
    try:
        if rounds:
            torch.set_float32_matmul_precision("highest")
        for place, name, value in told:
            setattr(place, name, value)
        yield
    finally:
        for (place, name, _), value in zip(told, before, strict=True):
            setattr(place, name, value)
        if rounds:
            torch.set_float32_matmul_precision("medium")


def full_precision(x: Tensor) -> Tensor:
    """Floats in float32 at least."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def to_network(x: Tensor, network: nn.Module) -> Tensor:
    """Floats in the precision of a network's weights, in which it computes; as they are, if it has none."""
    weight = next(network.parameters(), None)
    return x if weight is None else x.to(weight.dtype)


class MeasuredBuffers(nn.Module):
    """A module whose own buffers are measurements, not weights: `model.bfloat16()` leaves them in float32.

    Networks that it consists of, and their buffers, are rounded as usual.
    """

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        before = dict(self._buffers)
        super()._apply(fn, recurse)
        for name, buffer in self._buffers.items():
            measured = before[name]
            if buffer is not None and measured is not None and buffer.dtype in (torch.float16, torch.bfloat16):
                self._buffers[name] = full_precision(measured).to(buffer.device)
        return self
