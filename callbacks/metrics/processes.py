"""The processes that share an evaluation: one where torch.distributed is not in use."""

from typing import Any

import torch


def rank() -> int:
    """This process's number."""
    return torch.distributed.get_rank() if _distributed() else 0


def world_size() -> int:
    """How many there are."""
    return torch.distributed.get_world_size() if _distributed() else 1


def gather(value: Any) -> list[Any]:
    """Every process's value, in the order of ranks, on every process. Collective."""
    values = [value] * world_size()
    if _distributed():
        torch.distributed.all_gather_object(values, value)
    return values


def agree(value: Any) -> Any:
    """The first process's value, on every process. Collective."""
    return gather(value)[0]


def _distributed() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()
