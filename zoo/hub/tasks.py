"""What the model of an entry was asked: the data, and how they are quantised.

Likelihoods and distances compare within one task alone. Static, dynamic and thresholded binarised MNIST are three
different tasks, and so are binary and 8-bit MNIST: no table mixes them. The configuration decides, without PyTorch.
"""

import os
import re
from collections.abc import Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

from genzoo.zoo.files import at_home
from genzoo.zoo.hub.schema import NAME

#: arguments of a datamodule that leave the task as it is, or that `shape` and `levels` have said already
ASIDE = {
    *("root", "path", "x", "y", "label", "test"),  # where the data lie, and what the files are called
    *("batch_size", "num_workers", "in_memory", "memory_limit"),  # how they are read
    *("train_size", "val_size", "test_size", "val_fraction", "test_fraction", "limit", "seed"),  # how many there are
    *("flip", "shift"),  # what training makes more of them by
    "standardise",  # how a model is told of columns' units, in which it answers either way
    *("size", "channels", "length", "context_length", "vocab_size", "vocabulary", "series"),  # shape and levels
}
#: datamodules of anybody's files, of whose data the name of the entry, or of the run, alone says what they are:
#: `faces/vae`
OF_FILES = {"Array", "Audio", "ImageFolder", "Text"}
WILD = frozenset("*?[")  # in a glob


def task_of(config: Mapping[str, Any]) -> str:
    """Of the entry with that config.yaml: `MNIST, binary (dynamic), 28×28`, `Digits, 17 levels, 8×8`, `ring`."""
    levels, block = config.get("levels"), config.get("data") or {}
    said = {key: value for key, value in (block.get("init_args") or {}).items() if key not in ASIDE}
    chosen = {key: value for key, value in said.items() if value not in (None, "none")}
    kind = _kind(block)
    if not kind or kind in OF_FILES:
        kind = str(config.get("name", "")).partition("/")[0]
    parts = [str(chosen.pop("name", None) or chosen.pop("source", None) or kind)]  # of points; of texts
    binarised = chosen.pop("binarize", None)
    if levels is not None:
        parts.append(f"{levels} levels" if levels != 2 else "binary" + (f" ({binarised})" if binarised else ""))
    parts += _size(config.get("shape") or (), levels)
    for key, value in chosen.items():
        parts.append(f"{value} {key}" if isinstance(value, str) else f"{key} {value}")  # first pieces; noise 0.1
    return ", ".join(parts)


def name_of(called: str, recipe: str) -> str:
    """Of an entry, after its data, whatever they are called, and its recipe: `My-photos/vae`."""
    letters = re.sub(r"[^\w.-]+", "-", called).strip("-._")
    if not NAME.fullmatch(letters):  # which begins with a letter or a digit of ASCII
        letters = f"data-{letters}".rstrip("-")
    return f"{letters}/{recipe.rpartition('/')[2]}"


def called(data: Any) -> str:
    """What data are called: as they say themselves, after their folder or file, or else after their kind.

    Args:
        data: a datamodule, or {class_path, init_args} of one.
    """
    block = data
    if not isinstance(data, Mapping):
        block = {"class_path": type(data).__name__, "init_args": dict(getattr(data, "hparams", {}))}
    return getattr(data, "name", None) or place_of(block) or _kind(block).lower()


def place_of(block: Any) -> str | None:
    """What the folder or the file is called in which data of somebody's own lie; None of other data.

    Args:
        block: {class_path, init_args}, as a run's configuration has it.
    """
    arguments = block.get("init_args") if isinstance(block, Mapping) else None
    if not isinstance(arguments, Mapping) or _kind(block) not in OF_FILES or arguments.get("source"):
        return None
    return name_of_place(arguments.get("path") or arguments.get("root"))


def name_of_place(place: Any) -> str | None:
    """What a folder or a file is called, the first of several; of a glob the folder that it begins at; or None."""
    first = place[0] if isinstance(place, list | tuple) and place else place
    if not first:
        return None
    path = at_home(str(first)).resolve()
    if not os.path.exists(path):  # by which what may not be looked at is not there, where pathlib has an error
        path = Path(*takewhile(lambda part: WILD.isdisjoint(part), path.parts))
    return path.name or None


def _kind(block: Mapping[str, Any]) -> str:
    """`ImageFolder`, of {class_path, init_args}."""
    return str(block.get("class_path", "")).rpartition(".")[2].removesuffix("DataModule")


def _size(shape: Sequence[int], levels: int | None) -> list[str]:
    """How large a datum is, in words; of points in the plane nothing needs to be said."""
    if len(shape) == 3:
        return ["×".join(map(str, shape if shape[0] != 1 else shape[1:]))]
    if len(shape) == 2:
        return [f"{shape[0]} series of {shape[1]:,}" if levels is None else f"{shape[1]:,} samples"]
    if len(shape) == 1 and levels is not None:
        return [f"{shape[0]:,} tokens"]
    return [f"{shape[0]} dimensions"] if shape and shape[0] != 2 else []
