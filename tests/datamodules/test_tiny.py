"""With next to no data every datamodule works, or says what is missing, in terms of arguments that it has."""

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from test_splits import CASES, say
from torch import Tensor

from genzoo.datamodules import (
    ArrayDataModule,
    AudioDataModule,
    DataModule,
    FSDDDataModule,
    ImageFolderDataModule,
    InMemory,
    PointsDataModule,
    TextDataModule,
)

#: arguments whose names are no common words: in a message they mean the argument
NAMES = {
    name for cls in CASES for name in inspect.signature(cls).parameters if "_" in name or name in ("classes", "limit")
}


def images(
    root: Path, num: int, under: tuple[str, ...] = ("",), labelled: bool = False, **options: Any
) -> DataModule:
    for part in under:
        for i in range(num):
            file = root / part / (("cat", "dog")[i % 2] if labelled else "") / f"{i}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (4, 4), i).save(file)
    return ImageFolderDataModule(str(root), 4, **options)


def arrays(root: Path, num: int, size: int = 4, **options: Any) -> DataModule:
    x = torch.arange(num).view(num, 1, 1, 1).expand(num, 1, size, size).byte()
    return ArrayDataModule(x, [("cat", "dog")[i % 2] for i in range(num)], **options)


def tables(root: Path, num: int, **options: Any) -> DataModule:
    (root / "table.csv").write_text(
        "\n".join(["height,animal", *(f"{i}.5,{('cat', 'dog')[i % 2]}" for i in range(num))])
    )
    return ArrayDataModule(path=str(root / "table.csv"), label="animal", **options)


def sounds(root: Path, num: int, **options: Any) -> DataModule:
    say(root, (f"{('cat', 'dog')[i % 2]}_{i}.wav" for i in range(num)))
    return AudioDataModule(str(root), 8, 8000, **options)


def digits(root: Path, num: int, **options: Any) -> DataModule:
    say(root / "fsdd" / "recordings", (f"{i % 2}_anna_{index}.wav" for i in range(num) for index in (i, 5 + i)))
    return FSDDDataModule(str(root), 8, **options)


def text(root: Path, num: int, **options: Any) -> DataModule:
    (root / "text").write_text("abcdefghij"[:num])
    return TextDataModule(str(root / "text"), **options)


def points(root: Path, num: int, **options: Any) -> DataModule:
    return PointsDataModule(**{"train_size": num, "val_size": 1, "test_size": num, **options})


class Numbers(DataModule):
    shape, num_classes = (1,), 10

    def __init__(self, num: int, **options: Any) -> None:
        super().__init__(**{"val_size": 5, **options})
        self.num = num

    def load(self, split: str) -> InMemory:
        return InMemory(torch.arange(float(self.num))[:, None], torch.arange(self.num) % 2)


def own(root: Path, num: int, **options: Any) -> DataModule:
    return Numbers(num, **options)


FRACTIONS: list[dict[str, Any]] = [
    {"val_fraction": val, "test_fraction": test} for val in (0.01, 0.5, 0.99) for test in (0.01, 0.5, 0.99)
]
LABEL = {"label": "(?P<label>cat|dog)"}
TINY: list[tuple[Callable[..., DataModule], type[DataModule], list[dict[str, Any]]]] = [
    (
        images,
        ImageFolderDataModule,
        [
            *({}, *FRACTIONS, {"labelled": True, "classes": [1]}, {"limit": 1}, {"in_memory": False}),
            *({"under": ("train", "val", "test")}, {"under": ("train", "val"), "labelled": True, "classes": [1]}),
        ],
    ),
    (arrays, ArrayDataModule, [{}, *FRACTIONS, {"classes": [1]}, {"limit": 1}]),
    (tables, ArrayDataModule, [{}, *FRACTIONS, {"classes": [1]}, {"standardise": False}]),
    (
        sounds,
        AudioDataModule,
        [{}, *FRACTIONS, {"test": "_0"}, {**LABEL, "classes": [1]}, {"pieces": "all", "limit": 1}],
    ),
    (
        digits,
        FSDDDataModule,
        [{}, {"val_size": 1}, {"classes": [1], "val_size": 1}, {"classes": [7]}, {"pieces": "all", "val_size": 3}],
    ),
    (
        text,
        TextDataModule,
        [{}, {"context_length": 1}, {"tokenizer": "byte", "context_length": 1, "val_fraction": 0.4}],
    ),
    (points, PointsDataModule, [{}, {"val_size": 3}, {"limit": 1}, {"test_size": 0}]),
    (
        own,
        DataModule,
        [{}, {"val_size": 1}, {"classes": [1], "val_size": 1}, {"classes": [7]}, {"limit": 1, "val_size": 1}],
    ),
]


@pytest.mark.parametrize("batch_size", [None, 1])
@pytest.mark.parametrize("num", [0, 1, 2, 3, 5])
@pytest.mark.parametrize(
    ("make", "cls", "options"),
    [pytest.param(make, cls, o, id=f"{make.__name__}-{o}") for make, cls, settings in TINY for o in settings],
)
def test_next_to_no_data(
    make: Callable[..., DataModule],
    cls: type[DataModule],
    options: dict[str, Any],
    num: int,
    batch_size: int | None,
    tmp_path: Path,
) -> None:
    options = options if batch_size is None else {**options, "batch_size": batch_size}
    try:
        data = make(tmp_path, num, **options)
        data.setup()
        loaders = [data.train_dataloader(), data.val_dataloader(), data.test_dataloader()]
    except (ValueError, FileNotFoundError) as error:
        message = str(error)
        strangers = (NAMES - set(inspect.signature(cls).parameters)) & set(re.findall(r"\w+", message))
        assert not strangers and "\n" not in message, message
        missing = re.search(r"[^\d.]0 |there is no|\d+ example|give|name others|at least|or less", message)
        assert missing and not isinstance(error, UnicodeError), message
        return
    for loader in loaders:
        batches = list(loader)
        assert batches and all(len(batch if isinstance(batch, Tensor) else batch[0]) for batch in batches)


def test_the_names_are_those_of_the_constructors() -> None:
    assert {"val_size", "val_fraction", "test_fraction", "batch_size", "context_length", "classes"} <= NAMES
