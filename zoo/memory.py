"""A network that cannot be trained here for want of memory is refused before it is given any."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

Networks = TypeVar("Networks", bound=nn.Module | tuple[nn.Module, ...])

TRAINED = 4  # numbers that are kept for each weight: itself, its gradient and Adam's two moments
USED = 1  # itself alone
GIB = 2**30

_kept: ContextVar[int] = ContextVar("kept", default=TRAINED)


def within_memory(build: Callable[[], Networks], instead: str) -> Networks:
    """What `build` makes, if there is the memory to train it.

    It is built on PyTorch's device `meta` first, where tensors have a shape and no content: that takes milliseconds
    and no memory, however large it is.

    Args:
        build: makes one network or several. It is called twice, so it must have no other effect.
        instead: what to choose where there is not enough memory, to follow "choose".

    Raises:
        ValueError: if weights, their gradients and two moments of each, with all tables, exceed the memory at hand.
    """
    if torch.get_default_device().type != "meta":  # where it is, this is itself a rehearsal
        with torch.device("meta"):
            rehearsed = build()
        networks: tuple[nn.Module, ...] = rehearsed if isinstance(rehearsed, tuple) else (rehearsed,)
        needed = sum(map(bytes_of, networks))
        there = memory_at_hand(needed)
        if there is not None and needed > there:
            weights = sum(p.numel() for network in networks for p in network.parameters())
            raise ValueError(
                f"A network of {weights:,} weights takes {needed / GIB:,.1f} GiB"
                f" {'to train' if _kept.get() == TRAINED else 'to load'}, but there are {there / GIB:,.1f} GiB of"
                f" memory: choose {instead}."
            )
    return build()


@contextmanager
def only_to_use() -> Iterator[None]:
    """Inside, what is built will not be trained: there need only be memory for the weights."""
    token = _kept.set(USED)
    try:
        yield
    finally:
        _kept.reset(token)


def bytes_of(network: nn.Module) -> int:
    """Of its weights, with what is kept for each, and of its tables."""
    weights = sum(p.numel() * p.element_size() for p in network.parameters())
    return _kept.get() * weights + sum(b.numel() * b.element_size() for b in network.buffers())


def memory_at_hand(needed: int) -> int | None:
    """Bytes that this process can still be given, or that the largest GPU has, whichever is more; None: unknown.

    It is what the kernel calls available, within the limit of the container (cgroup v2, v1), where there is one. GPUs
    are asked only where that is less than is needed: it starts CUDA, after which a process cannot be forked for more.
    """
    ours = [read() for read in (_available, _limit)]
    host = min((size for size in ours if size is not None), default=None)
    if host is None or needed <= host:
        return host
    return max(host, *(torch.cuda.get_device_properties(i).total_memory for i in range(torch.cuda.device_count())), 0)


def _available() -> int | None:
    for line in _lines("/proc/meminfo"):
        if line.startswith("MemAvailable:"):
            return 1024 * int(line.split()[1])
    return None


def _limit() -> int | None:
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        for line in _lines(path):
            return int(line) if line.isdigit() else None  # "max": as much as there is
    return None


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).is_file() else []
