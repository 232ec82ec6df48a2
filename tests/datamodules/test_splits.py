"""No two splits share a datum: in any datamodule, whatever it is told to hold out or to select.

The data are made so that no two are alike: a datum that is in two splits is then found by what it is, also where the
splits were read from two folders; and by its row, also where noise changes what it is.
"""

import inspect
from collections.abc import Callable, Iterable
from itertools import combinations
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from fake_data import write_cifar10, write_mnist, write_wav
from PIL import Image
from torch import Tensor

from genzoo import datamodules
from genzoo.datamodules import (
    ArrayDataModule,
    AudioDataModule,
    CIFAR10DataModule,
    DataModule,
    DigitsDataModule,
    EmojiDataModule,
    FashionMNISTDataModule,
    FSDDDataModule,
    ImageDataModule,
    ImageFolderDataModule,
    InMemory,
    KMNISTDataModule,
    MNISTDataModule,
    PointsDataModule,
    TextDataModule,
)
from genzoo.datamodules.points import Name
from genzoo.zoo.modality import from_codes

SPLITS = ("train", "val", "test")


class Numbers(DataModule):
    """Somebody's own data."""

    shape, num_classes = (1,), 10

    def load(self, split: str) -> InMemory:
        numbers = torch.arange(60.0) + 100 * (split == "test")
        return InMemory(numbers[:, None], torch.arange(60) % 10)


class Noise(ImageDataModule):
    """Somebody's own images."""

    shape, levels, num_classes = (1, 4, 4), 256, 10

    def load_images(self, split: str) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(len(split))
        return torch.randint(256, (60, 1, 4, 4), generator=generator).byte(), torch.arange(60) % 10


# ---- data of each kind, none of which are alike


def mnist(cls: type[DataModule]) -> Callable[..., DataModule]:
    def make(root: Path, **options: Any) -> DataModule:
        write_mnist(root, folder=cls.dataset)  # type: ignore[attr-defined]
        return cls(root=str(root), **{"val_size": 12, **options})

    return make


def cifar10(root: Path, **options: Any) -> DataModule:
    write_cifar10(root)
    return CIFAR10DataModule(root=str(root), **{"val_size": 12, **options})


def points(root: Path, **options: Any) -> DataModule:
    return PointsDataModule(**{"train_size": 600, "val_size": 100, "test_size": 600, **options})


def arrays(root: Path, **options: Any) -> DataModule:
    rows = torch.arange(60)
    x = rows.view(60, 1, 1, 1).expand(60, 1, 6, 6).byte() if options.pop("images") else rows.view(60, 1).double()
    return ArrayDataModule(x, rows % 10, **options)


def folder(root: Path, under: tuple[str, ...] = ("",), labelled: bool = True, **options: Any) -> DataModule:
    for part, name in enumerate(under):
        for i in range(20):
            file = root / name / (("cat", "dog")[i % 2] if labelled else "") / f"{i}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (6, 6), (part, i, 7)).save(file)
    return ImageFolderDataModule(root=str(root), size=6, num_workers=0, **options)


def say(root: Path, names: Iterable[str]) -> None:
    """One recording for each name, of one value of its own throughout: each of its pieces tells which it is of."""
    for code, name in enumerate(names):
        value = from_codes(torch.tensor([code]), 256, "waveform")
        write_wav(root / name, value.expand(9 + code % 17), 8000)


def audio(root: Path, **options: Any) -> DataModule:
    say(root, (f"{('cat', 'dog')[i % 2]}_{i}.wav" for i in range(40)))
    return AudioDataModule(root=str(root), sample_rate=8000, **{"length": 8, **options})


def spoken_digits(root: Path, **options: Any) -> DataModule:
    say(root / "fsdd" / "recordings", (f"{digit}_anna_{i}.wav" for digit in range(10) for i in range(8)))
    return FSDDDataModule(root=str(root), **{"length": 8, "val_size": 10, **options})


def text(root: Path, **options: Any) -> DataModule:
    (root / "text").write_text("".join(map(chr, range(0x4E00, 0x4E00 + 1000))), "utf-8")  # no character occurs twice
    return TextDataModule(str(root / "text"), **{"context_length": 16, **options})


HELD_OUT: list[dict[str, Any]] = [{}, {"val_size": 1}, {"limit": 5}, {"classes": [3, 7], "val_size": 5}, {"seed": 4}]
BITS: list[dict[str, Any]] = [{"binarize": how} for how in ("threshold", "static", "dynamic")]
FOLDERS = [("",), ("train",), ("train", "val"), ("train", "test"), ("train", "val", "test")]
CASES: dict[type[DataModule], tuple[Callable[..., DataModule], list[dict[str, Any]]]] = {
    DataModule: (lambda root, **options: Numbers(**{"val_size": 12, **options}), [*HELD_OUT, {"val_size": 59}]),
    ImageDataModule: (lambda root, **options: Noise(**{"val_size": 12, **options}), HELD_OUT + BITS),
    DigitsDataModule: (lambda root, **options: DigitsDataModule(**options), [*HELD_OUT, {"val_size": 1436}]),
    MNISTDataModule: (mnist(MNISTDataModule), HELD_OUT + BITS),
    FashionMNISTDataModule: (mnist(FashionMNISTDataModule), HELD_OUT + BITS),
    KMNISTDataModule: (mnist(KMNISTDataModule), HELD_OUT + BITS),
    CIFAR10DataModule: (cifar10, HELD_OUT + BITS),
    EmojiDataModule: (
        lambda root, **options: EmojiDataModule(**options),
        [{}, {"val_size": 1}, {"limit": 5}, {"classes": [3, 7], "val_size": 30}, {"flip": True, "shift": 3}],
    ),
    PointsDataModule: (points, [{"name": name} for name in get_args(Name)] + [{"val_size": 599}, {"limit": 5}]),
    ArrayDataModule: (
        arrays,
        [
            *({"images": True, "val_fraction": v, "test_fraction": t} for v in (1e-9, 0.99) for t in (1e-9, 0.85)),
            *({"images": False, **options} for options in ({}, {"limit": 5}, {"classes": [3, 7]}, {"seed": 4})),
        ],
    ),
    ImageFolderDataModule: (
        folder,
        [
            *({"under": under} for under in FOLDERS),
            *({"under": under, "labelled": False} for under in FOLDERS),
            *({"under": under, "classes": [1], "in_memory": False} for under in FOLDERS),
            *({"val_fraction": val, "test_fraction": test} for val in (1e-9, 0.99) for test in (1e-9, 0.85)),
            {"limit": 5},
        ],
    ),
    AudioDataModule: (
        audio,
        [
            *({"pieces": pieces, "test": test} for pieces in ("first", "all") for test in (None, "_1[0-9]")),
            {"pieces": "all", "label": "(?P<label>[a-z]+)_", "classes": [1], "limit": 9},
            {"pieces": "all", "length": 1},
            *({"val_fraction": val, "test_fraction": test} for val in (1e-9, 0.85) for test in (1e-9, 0.85)),
        ],
    ),
    FSDDDataModule: (spoken_digits, [{**options, "pieces": p} for options in HELD_OUT for p in ("first", "all")]),
    TextDataModule: (
        text,
        [
            *({"context_length": length} for length in (1, 16, 49, 50)),
            *({"tokenizer": tokenizer, "vocab_size": 300} for tokenizer in ("byte", "bpe")),
            *({"val_fraction": val} for val in (0.016, 0.1, 0.93)),
            {"val_fraction": 0.5, "test_fraction": 0.4},
            {"limit": 5},
        ],
    ),
}
EACH = [
    pytest.param(make, options, id=" ".join([cls.__name__.removesuffix("DataModule"), *map(str, options.values())]))
    for cls, (make, settings) in CASES.items()
    for options in settings
]
every_setting = pytest.mark.parametrize(("make", "options"), EACH)


@pytest.fixture(autouse=True)
def _no_checksums(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of CIFAR-10, whose files torchvision compares with the real ones."""
    from torchvision.datasets import CIFAR10

    monkeypatch.setattr(CIFAR10, "train_list", [[f"data_batch_{i}", None] for i in range(1, 6)])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", None]])
    monkeypatch.setattr(CIFAR10, "meta", {"filename": "batches.meta", "key": "label_names", "md5": None})


def what_is_in(data: DataModule, split: str) -> list[Any]:
    """What the data of a split are made of: themselves; the recordings that they are cut from; the characters."""
    if isinstance(data, TextDataModule):  # all that a window of the split may see
        source = data.sources[split]
        windows = next(iter(source.read([torch.arange(len(source))])))
        return [character for window in windows for character in data.decode(window).replace("\ufffd", "")]
    batches = getattr(data, f"{split}_dataloader")()
    rows = [batch if isinstance(batch, Tensor) else batch[0] for batch in batches]
    if data.sample_rate is not None:
        return [row.flatten()[0].item() for row in rows]
    return [row.numpy().tobytes() for row in rows]


def test_every_datamodule_is_here() -> None:
    exported = [getattr(datamodules, name) for name in datamodules.__all__]
    assert CASES.keys() == {cls for cls in exported if isinstance(cls, type) and issubclass(cls, DataModule)}


@every_setting
def test_nothing_is_in_two_splits(make: Callable[..., DataModule], options: dict[str, Any], tmp_path: Path) -> None:
    data = make(tmp_path, **{"batch_size": 1, **options})
    data.setup()
    found = {split: what_is_in(data, split) for split in SPLITS}
    assert all(found.values())
    for one, other in combinations(SPLITS, 2):
        assert not set(found[one]) & set(found[other]), f"in {one} and in {other}"
    if data.sample_rate is None and not isinstance(data, TextDataModule | EmojiDataModule):
        everything = [datum for split in SPLITS for datum in found[split]]
        assert len(set(everything)) == len(everything), "the data of this test are to be distinct"


@every_setting
def test_every_row_is_in_one_split(
    make: Callable[..., DataModule], options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make(tmp_path, **options)
    if isinstance(data, TextDataModule):  # has no rows before it has splits: its characters, in their order
        seen = [c for split in SPLITS for c in data.decode(data.sources[split].tokens)]  # type: ignore[attr-defined]
        assert "".join(seen) == (tmp_path / "text").read_text("utf-8")
        return
    load, wanted = data.load, {}

    def numbered(split: str) -> InMemory:
        """The data of a split, each of which is nothing but its number."""
        labels = load(split).labels
        numbers = torch.arange(len(load(split))) + 10_000 * (split == "test")
        if data.classes is None:
            wanted[split] = numbers.tolist()
        else:
            wanted[split] = [n for n, label in zip(numbers.tolist(), labels, strict=True) if label in data.classes]
        return InMemory(numbers, labels)

    monkeypatch.setattr(data, "load", numbered)
    monkeypatch.setattr(data, "freeze", lambda source, split: source)
    data.setup()
    train, val, test = (data.sources[split].x.tolist() for split in SPLITS)  # type: ignore[attr-defined]
    assert test == wanted["test"]
    if data.limit is None:
        assert sorted(train + val) == wanted["train"]
    else:
        assert len(train) == data.limit and len(set(train + val)) == len(train + val)
        assert set(train + val) <= set(wanted["train"])


@pytest.mark.parametrize(
    ("cls", "size"),
    [
        (cls, size)
        for cls in CASES
        for size in ("val_size", "val_fraction", "test_size", "test_fraction")
        if size in inspect.signature(cls).parameters
    ],
)
def test_no_split_can_be_left_out(cls: type[DataModule], size: str, tmp_path: Path) -> None:
    """Another one would have to stand for it."""
    make, (first, *_) = CASES[cls]
    with pytest.raises(ValueError, match=rf"{size} (is )?0"):
        make(tmp_path, **{**first, size: 0})
