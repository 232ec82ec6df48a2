"""Half precision is for networks: data, latents and likelihoods are in float32 at least, whatever the weights."""

from typing import Any, Self

import torch
from torch import Tensor, nn


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
