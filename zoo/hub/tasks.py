"""What the model of an entry was asked: the data, and how they are quantised.

Likelihoods and distances compare within one task alone. Static, dynamic and thresholded binarised MNIST are three
different tasks, and so are binary and 8-bit MNIST: no table mixes them. The configuration decides, without PyTorch.
"""

from collections.abc import Mapping, Sequence
from typing import Any

#: arguments of a datamodule that leave the task as it is, or that `shape` and `levels` have said already
ASIDE = {
    *("root", "path", "x", "y", "label", "test"),  # where the data lie, and what the files are called
    *("batch_size", "num_workers", "in_memory", "memory_limit"),  # how they are read
    *("train_size", "val_size", "test_size", "val_fraction", "test_fraction", "limit", "seed"),  # how many there are
    *("flip", "shift"),  # what training makes more of them by
    "standardise",  # how a model is told of columns' units, in which it answers either way
    *("size", "channels", "length", "context_length", "vocab_size", "series"),  # the shape and the levels
}
#: datamodules of anybody's files, of whose data the entry's own name alone says what they are: `faces/vae`
OF_FILES = {"Array", "Audio", "ImageFolder", "Text"}


def task_of(config: Mapping[str, Any]) -> str:
    """Of the entry with that config.yaml: `MNIST, binary (dynamic), 28×28`, `Digits, 17 levels, 8×8`, `ring`."""
    levels, block = config.get("levels"), config.get("data") or {}
    said = {key: value for key, value in (block.get("init_args") or {}).items() if key not in ASIDE}
    chosen = {key: value for key, value in said.items() if value not in (None, "none")}
    kind = block.get("class_path", "").rpartition(".")[2].removesuffix("DataModule")
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


def _size(shape: Sequence[int], levels: int | None) -> list[str]:
    """How large a datum is, in words; of points in the plane nothing needs to be said."""
    if len(shape) == 3:
        return ["×".join(map(str, shape if shape[0] != 1 else shape[1:]))]
    if len(shape) == 2:
        return [f"{shape[0]} series of {shape[1]:,}" if levels is None else f"{shape[1]:,} samples"]
    if len(shape) == 1 and levels is not None:
        return [f"{shape[0]:,} tokens"]
    return [f"{shape[0]} dimensions"] if shape and shape[0] != 2 else []
