"""A model built without its memory: what it would need is known before it is given anything.

PyTorch's device `meta` has tensors with a shape and no content, however large. What a file of a few bytes may state,
a width of a million or a depth of a billion, costs nothing there; and it is given up as soon as it goes beyond any
model whose weights the file at hand could be.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

CALLS = 2_000, 100  # of torch, while a model is built: at most so many, and so many for each of its tensors
TABLE_BYTES = 32 * 2**20  # of all buffers, and as much again as the weights take


@contextmanager
def rehearsal(num_tensors: int) -> Iterator[None]:
    """Inside, modules are built on `meta`.

    Args:
        num_tensors: how many tensors the model is to have. One of ours takes about 15 calls of torch for each.

    Raises:
        ValueError: when what is built has gone far beyond that.
    """
    with torch.device("meta"), _Counted(CALLS[0] + CALLS[1] * num_tensors):
        yield


class _Counted(TorchFunctionMode):
    """Counts the calls of torch. Tables that are asked for in float64 by name are arithmetic, and stay real."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.left = most

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.left -= 1
        if self.left < 0:
            raise ValueError("it would have far more layers than there are weights for")
        kwargs = kwargs or {}
        if kwargs.get("dtype") is torch.float64:
            with torch.device("cpu"):
                return func(*args, **kwargs)
        return func(*args, **kwargs)


def check_tables(module: nn.Module) -> None:
    """Raises ValueError if a module's buffers, which no file need hold, would take memory out of all proportion."""
    tables, weights = (
        sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        for tensors in (module.buffers(), module.parameters())
    )
    if tables > TABLE_BYTES + weights:
        raise ValueError(f"it would take {tables:,} bytes for tables, beside {weights:,} bytes of weights")
