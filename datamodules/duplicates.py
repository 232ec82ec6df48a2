"""Data that are copies of others: where a model has seen what it is tested on, figures say too much."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from genzoo.datamodules.reading import each

TAIL = 4096  # bytes: of pictures and sounds of one size those at the end are hardly ever the same by chance


def same_files(
    held_out: Sequence[Path], trained_on: Sequence[Path], *, alone: bool = False
) -> list[tuple[Path, Path]]:
    """Those of the first files that are copies, byte for byte, of one of the second, and that one.

    Of files whose size no file on the other side has, nothing is read, and of the others the end; all of it of those
    that have the same end.

    Args:
        held_out, trained_on: N and M files.
        alone: read them in this process.
    """
    sides = [[(path, os.path.getsize(path)) for path in files] for files in (held_out, trained_on)]
    both = {size for _, size in sides[0]} & {size for _, size in sides[1]}
    ours, theirs = ([path for path, size in side if size in both] for side in sides)
    ends = list(each(end_of, [*ours, *theirs], "looking for copies", alone=alone))
    here, there = ends[: len(ours)], ends[len(ours) :]
    alike = set(here) & set(there)
    ours = [path for path, end in zip(ours, here, strict=True) if end in alike]
    theirs = [path for path, end in zip(theirs, there, strict=True) if end in alike]
    digests = list(each(digest_of, [*ours, *theirs], "looking for copies", alone=alone))
    known = dict(zip(digests[len(ours) :], theirs, strict=True))
    return [(path, known[digest]) for path, digest in zip(ours, digests, strict=False) if digest in known]


def end_of(path: Path) -> tuple[int, bytes]:
    """The size of a file, and a digest of its last bytes."""
    size = os.path.getsize(path)
    with path.open("rb") as file:
        file.seek(max(0, size - TAIL))
        return size, hashlib.sha256(file.read()).digest()


def digest_of(path: Path) -> bytes:
    """Of all of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def same_rows(x: np.ndarray, held_out: Sequence[int], trained_on: Sequence[int]) -> list[tuple[int, int]]:
    """As `same_files`, of the rows of an array (N, …) with these numbers."""
    digests = [hashlib.sha256(row.tobytes()).digest() for row in x]
    known = {digests[number]: number for number in trained_on}
    return [(number, known[digests[number]]) for number in held_out if digests[number] in known]


def say_copies(found: Sequence[tuple[object, object]], of: int, what: str) -> None:
    """Warns of them, if there are any."""
    if found:
        one, other = found[0]
        rank_zero_warn(
            f"{len(found)} of {of} {what} for testing are copies of some for training (such as {one}, of {other}):"
            " figures of them say too much; keep one of each"
        )


def say_repeated(files: Sequence[Path], texts: Sequence[str]) -> None:
    """Warns of files that say word for word what another one does: training may have read what is tested on."""
    first: dict[str, Path] = {}
    found = [(file, first.setdefault(text, file)) for file, text in zip(files, texts, strict=True) if text.strip()]
    if copies := [(file, other) for file, other in found if file != other]:
        file, other = copies[0]
        rank_zero_warn(
            f"{len(copies)} of {len(files)} files are copies of others (such as {file}, of {other}): where one is for"
            " training and one for testing, figures of it say too much; keep one of each"
        )
