"""Reading many files: in processes that do not wait for each other, and only once where it takes long."""

import hashlib
import json
import multiprocessing
import os
import sys
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch.utils.data import DataLoader, Dataset

from genzoo.zoo.files import cache_folder, whole
from genzoo.zoo.processes import rank, world_size

Item = TypeVar("Item")
Result = TypeVar("Result")

MOMENT = 0.03  # seconds: what it costs to start processes
SHARE = 0.01  # seconds of work that a process is given at once, …
LARGEST_SHARE = 128  # … and items at most
SLOW = 2e-3  # seconds: an item on which threads do not spend their time waiting for Python's lock
REFRESH = 0.1  # seconds between two looks of a bar
LONG = 10.0  # seconds of work that are worth a file on the disk


def each(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    what: str,
    *,
    alone: bool = False,
    most: int | None = None,
) -> Iterator[Result]:
    """`function` of each item, in their order, at the rate of all processors.

    What is done in a moment is done here. The rest is shared out over processes where a process can be forked: many
    small files are read slower by several threads than by one, because they wait for Python's lock at every turn.
    Without a safe fork (macOS, Windows) a new process would import everything and run the user's script again; there,
    threads share the items that take long, and this one does the others.

    Args:
        function: takes an item and returns what can be pickled; tensors as NumPy arrays.
        items: what it is called with.
        what: what the bar says, which is shown where it takes more than a moment.
        alone: do all of it here.
        most: processes, at most; None: as many as there are processors.

    Raises:
        Exception: what the function raises, as it would here.
    """
    begin, done = 0.0, 0
    for item in items:
        if done > 1 and time.perf_counter() - begin > MOMENT:
            break
        yield function(item)
        done += 1
        if done == 1:  # the first one may have imported what it needs
            begin = time.perf_counter()
    if rest := items[done:]:
        pace = (time.perf_counter() - begin) / (done - 1)
        workers = 1 if alone else min(_processors() // world_size(), most or sys.maxsize)
        if workers > 1 and can_fork():
            results = _forked(function, rest, workers, share=min(int(SHARE / pace) + 1, LARGEST_SHARE))
        elif workers > 1 and pace > SLOW:
            results = _in_threads(function, rest, workers)
        else:
            results = map(function, rest)
        yield from with_bar(results, len(rest), what)


def _processors() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def can_fork() -> bool:
    """Whether a copy of this process can go on by itself: not where system libraries forbid it, nor from a daemon."""
    return sys.platform == "linux" and not multiprocessing.current_process().daemon


def _in_threads(function: Callable[[Item], Result], items: Sequence[Item], workers: int) -> Iterator[Result]:
    with ThreadPoolExecutor(workers) as pool:
        yield from pool.map(function, items)


def _forked(function: Callable[[Item], Result], items: Sequence[Item], workers: int, share: int) -> Iterator[Result]:
    shares = _Shares(function, [items[start : start + share] for start in range(0, len(items), share)])
    # torch's loader, because its processes end with this one, however it ends
    for results in DataLoader(
        shares,
        batch_size=None,
        num_workers=min(workers, len(shares)),
        collate_fn=_as_they_are,
        multiprocessing_context="fork",
        generator=torch.Generator(),  # without one it would draw a seed from the training's random state
    ):
        if isinstance(results, Exception):
            raise results
        yield from results


class _Shares(Dataset, Generic[Item, Result]):
    """What a function makes of each share of items; or the error that one of them is."""

    def __init__(self, function: Callable[[Item], Result], shares: Sequence[Sequence[Item]]) -> None:
        self.function, self.shares = function, shares

    def __len__(self) -> int:
        return len(self.shares)

    def __getitem__(self, index: int) -> list[Result] | Exception:
        try:
            return [self.function(item) for item in self.shares[index]]
        except Exception as error:  # which the loader would bury under the lines of its traceback
            return error


def _as_they_are(results: Any) -> Any:
    return results


def with_bar(results: Iterable[Result], total: int, what: str) -> Iterator[Result]:
    """The results, and on the first process a bar that goes away at the end."""
    from rich.progress import Progress

    bar = Progress(transient=True, disable=rank() != 0)
    task = bar.add_task(what, total=total)
    bar.start()
    try:
        shown = time.perf_counter()
        for done, result in enumerate(results, start=1):
            yield result
            if (now := time.perf_counter()) - shown > REFRESH:  # to move the bar costs as much as a small image
                bar.update(task, completed=done)
                shown = now
    finally:
        bar.stop()


# ------------------------------------------------------------------------------------- once, where it takes long


def kept(
    make: Callable[[], np.ndarray], paths: Sequence[Path], made_by: Any, *, long: float | None = None
) -> np.ndarray:
    """What `make` makes of these files; if that takes long, from the disk the next time.

    It is kept in the cache (`genzoo.zoo.files`), under a name that changes with any file's path, size or time, and
    with what it is made by. A file of the cache that is damaged is made again, which is said; where none can be
    written, that is said, and all goes on without.

    Args:
        make: makes an array of numbers.
        paths: all files that it is made of, in order.
        made_by: whatever else it depends on, as JSON can state it.
        long: seconds of work that are worth a file on the disk; None is `LONG`.
    """
    folder = cache_folder() / "decoded"
    # by os.path: of a folder that may not be looked into there is nothing, where pathlib has an error
    place = folder / f"{_fingerprint(paths, made_by)}.npy" if os.path.isdir(folder) else None
    if place is not None and os.path.exists(place):
        try:
            return _load(place)
        except (OSError, ValueError) as error:
            rank_zero_warn(f"{place} is damaged ({error}), and what it held is made again.")
    begin = time.perf_counter()
    made = make()
    if time.perf_counter() - begin > (LONG if long is None else long) and rank() == 0:
        place = place or folder / f"{_fingerprint(paths, made_by)}.npy"
        try:
            with whole(place) as half:
                _save(made, half)
        except OSError as error:
            rank_zero_warn(
                f"{place} cannot be written ({error.strerror or error}), so that {len(paths)} files will have to be"
                " decoded again: let GENZOO_CACHE name another folder."
            )
    return made


def _fingerprint(paths: Sequence[Path], made_by: Any) -> str:
    here = os.getcwd()
    stats = [(os.path.join(here, path), os.stat(path)) for path in paths]
    stated = [made_by, [[path, stat.st_size, stat.st_mtime_ns] for path, stat in stats]]
    return hashlib.sha256(json.dumps(stated).encode()).hexdigest()[:32]


def _save(array: np.ndarray, path: Path) -> None:
    """A file of NumPy's, with a checksum of the numbers at its end."""
    array = np.ascontiguousarray(array)
    with path.open("wb") as file:
        np.lib.format.write_array(file, array, allow_pickle=False)
        file.write(_checksum(array))


def _load(path: Path) -> np.ndarray:
    """What `_save` wrote, mapped into memory; ValueError or OSError if anything of it has changed."""
    array = np.lib.format.open_memmap(path, mode="c")
    with path.open("rb") as file:
        file.seek(-4, os.SEEK_END)
        if file.read() != _checksum(array):
            raise ValueError("its checksum is another")
    return array


def _checksum(array: np.ndarray) -> bytes:
    return zlib.crc32(array.reshape(-1).view(np.uint8).data).to_bytes(4, "little")
