"""The processes that share an evaluation: one where torch.distributed is not in use."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, TypeVar

import torch
from torch import Tensor

Item = TypeVar("Item")


def rank() -> int:
    """This process's number."""
    return torch.distributed.get_rank() if _distributed() else 0


def world_size() -> int:
    """How many there are."""
    return torch.distributed.get_world_size() if _distributed() else 1


def gather(value: Any) -> list[Any]:
    """Every process's value, in the order of ranks, on every process. Collective.

    Its tensors are to be on the CPU: those of a GPU would come back on that GPU, in every process.
    """
    values = [value] * world_size()
    if _distributed():
        torch.distributed.all_gather_object(values, value)
    return values


def total(value: Tensor) -> Tensor:
    """The sum of every process's tensor, on every process, without waiting for it. Collective."""
    if _distributed():
        value = value.clone()
        torch.distributed.all_reduce(value)
    return value


def agree(value: Any) -> Any:
    """The first process's value, on every process. Collective."""
    return gather(value)[0]


def share(items: Iterable[Item]) -> Iterator[tuple[int, Item, bool]]:
    """This process's share of items that every process could iterate over.

    All processes get equally many, so that they stay in step where a model's weights are spread over them: in a last
    round that is not full, the processes left over get an item that counts for another one.

    Yields:
        (index among all items, the item, whether it counts for this process).
    """
    rest, done = iter(items), 0
    while batch := list(islice(rest, world_size())):
        counts = rank() < len(batch)
        yield done + rank(), batch[rank() if counts else -1], counts
        done += len(batch)


def _distributed() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()
