"""A user's own arrays: from anywhere the same batches, bit for bit; what they are is found out, and what is odd."""

import csv
import logging
import math
import sys
import tracemalloc
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas
import pyarrow
import pytest
import torch
from lightning.pytorch import Trainer
from PIL import Image
from pyarrow import parquet
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset

import genzoo
from genzoo.datamodules import ArrayDataModule, ImageFolderDataModule, arrays
from genzoo.datamodules.arrays import understood
from genzoo.datamodules.folder import decode, natural
from genzoo.zoo import GAN, VAE, WaveNet
from genzoo.zoo.hub import publish
from genzoo.zoo.modality import to_codes

NAMES = ["cat", "dog", "ox10", "ox9"]  # the natural order is another one: ox9 before ox10


class Pairs(Dataset):
    """A data set of torchvision's kind: an image of Pillow's and a number."""

    def __init__(self, images: np.ndarray, numbers: np.ndarray) -> None:
        self.images, self.numbers = images, numbers

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> tuple[Image.Image, int]:
        return Image.fromarray(self.images[row]), int(self.numbers[row])


class Mappings(Dataset):
    """A data set of mappings."""

    def __init__(self, images: np.ndarray, names: np.ndarray) -> None:
        self.images, self.names = images, names

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> dict[str, Any]:
        return {"picture": torch.from_numpy(self.images[row]), "animal": str(self.names[row])}


def pictures(num: int = 1000) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images (N, 6, 6, 3), uint8, in the order in which a folder has them; their classes, by name and by number."""
    generator = np.random.default_rng(0)
    classes = sorted(NAMES, key=natural)
    numbers = np.sort(generator.integers(0, len(classes), num))
    return generator.integers(0, 256, (num, 6, 6, 3), dtype=np.uint8), np.array(classes)[numbers], numbers


def batches(data: Any) -> list[tuple[Tensor, Tensor]]:
    """Two epochs of training, the validation and the test data."""
    train = data.train_dataloader()
    return [*train, *train, *data.val_dataloader(), *data.test_dataloader()]


def assert_same_batches(one: Any, other: Any) -> None:
    ours, theirs = batches(one), batches(other)
    assert len(ours) == len(theirs) > 10
    for (x, y), (x2, y2) in zip(ours, theirs, strict=True):
        assert x.dtype == x2.dtype == torch.float32 and torch.equal(x, x2)
        assert y.dtype == y2.dtype == torch.int64 and torch.equal(y, y2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> ImageFolderDataModule:
    root = tmp_path_factory.mktemp("pictures")
    images, names, _ = pictures()
    for row, (image, name) in enumerate(zip(images, names, strict=True)):
        (root / name).mkdir(exist_ok=True)
        Image.fromarray(image).save(root / name / f"{row}.png")
    return ImageFolderDataModule(str(root), 6, num_workers=0)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Callable[[], ArrayDataModule]]:
    """The same images from everywhere."""
    tmp_path = tmp_path_factory.mktemp("sources")
    images, names, numbers = pictures()
    first = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    unit = first.astype(np.float32) / 255
    pil = [Image.fromarray(image) for image in images]
    labelled = datasets.Dataset.from_dict(
        {"image": pil, "label": numbers.tolist(), "file": [f"{i}.png" for i in range(len(pil))]},
        datasets.Features(
            image=datasets.Image(),
            label=datasets.ClassLabel(names=sorted(NAMES, key=natural)),
            file=datasets.Value("string"),
        ),
    )
    np.savez(tmp_path / "pictures.npz", pictures=images, animals=names)
    np.savez(tmp_path / "floats.npz", pictures=unit, animals=numbers)
    return {
        "tensor": lambda: ArrayDataModule(torch.from_numpy(first), torch.from_numpy(numbers)),
        "tensor of floats": lambda: ArrayDataModule(torch.from_numpy(unit), numbers),
        "half precision": lambda: ArrayDataModule(torch.from_numpy(unit).half(), numbers),
        "ndarray": lambda: ArrayDataModule(images, names),
        "ndarray, names in a list": lambda: ArrayDataModule(images, names.tolist()),
        "symmetric": lambda: ArrayDataModule(2 * unit - 1, numbers.astype(np.float64)),
        "float bytes": lambda: ArrayDataModule(images.astype(np.float64), numbers.astype(np.int16)),
        "mapping": lambda: ArrayDataModule({"picture": images, "animal": names}, label="animal"),
        "dataset of tensors": lambda: ArrayDataModule(
            TensorDataset(torch.from_numpy(unit), torch.from_numpy(numbers))
        ),
        "dataset of pairs": lambda: ArrayDataModule(Pairs(images, numbers)),
        "dataset of mappings": lambda: ArrayDataModule(Mappings(first, names), label="animal"),
        "hugging face": lambda: ArrayDataModule(labelled, columns=["image"], label="label"),
        "npz": lambda: ArrayDataModule(path=str(tmp_path / "pictures.npz"), label="animals"),
        "npz of floats": lambda: ArrayDataModule(
            path=str(tmp_path / "floats.npz"), columns=["pictures"], label="animals"
        ),
    }


#: what `sources` has
SOURCES = [
    *("tensor", "tensor of floats", "half precision", "ndarray", "ndarray, names in a list", "symmetric"),
    *("float bytes", "mapping", "dataset of tensors", "dataset of pairs", "dataset of mappings", "hugging face"),
    *("npz", "npz of floats"),
]


@pytest.mark.parametrize("source", SOURCES)
def test_the_same_images_give_the_same_batches(
    source: str, sources: dict[str, Callable[[], ArrayDataModule]], folder: ImageFolderDataModule
) -> None:
    data = sources[source]()
    assert (data.shape, data.levels, data.num_classes) == ((3, 6, 6), 256, 4)
    assert_same_batches(data, folder)
    if source in ("ndarray", "mapping", "dataset of mappings", "hugging face", "npz"):
        assert list(data.class_names) == list(folder.class_names) == ["cat", "dog", "ox9", "ox10"]
    if source.startswith("tensor"):
        assert list(data.class_names) == []


class Called(Dataset):
    """Pictures in a mapping each."""

    def __init__(self, pictures: list[Image.Image]) -> None:
        self.pictures = pictures

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, row: int) -> dict[str, Image.Image]:
        return {"image": self.pictures[row]}


@pytest.mark.parametrize("kind", ["images", "hugging face", "rows"])
def test_a_palette_is_colours_and_not_places_in_it(kind: str, tmp_path: Path) -> None:
    """As from a folder, with what is transparent white."""
    pictures, folder = [], tmp_path / "pictures"
    folder.mkdir()
    for number in range(12):
        colours = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        picture = Image.fromarray(colours).quantize(16)
        picture.info["transparency"] = 3
        picture.save(folder / f"{number:02}.png", transparency=3)
        pictures.append(Image.open(folder / f"{number:02}.png"))
    assert pictures[0].mode == "P" and pictures[0].has_transparency_data
    if kind == "hugging face":
        data = ArrayDataModule(datasets.Dataset.from_dict({"image": pictures}))
    else:
        data = ArrayDataModule(pictures if kind == "images" else Called(pictures))
    expected = np.stack([decode(file, (3, 8, 8)) for file in sorted(folder.iterdir())])
    data.setup()
    found = torch.cat([data.sources[split].x for split in ("train", "val", "test")])  # type: ignore[attr-defined]
    assert data.shape == (3, 8, 8)
    assert {x.numpy().tobytes() for x in found} == {x.tobytes() for x in expected}


@pytest.mark.parametrize("kind", ["parquet", "hugging face"])
def test_row_numbers_that_pandas_saves_are_no_column(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    frame = pandas.DataFrame({name: table()[name] for name in COLUMNS})
    frame = frame[frame.height > 175]
    if kind == "parquet":
        frame.to_parquet(tmp_path / "table.parquet")
        source: dict[str, Any] = {"path": str(tmp_path / "table.parquet")}
    else:
        source = {"x": datasets.Dataset.from_pandas(frame)}
    with caplog.at_level("INFO"):
        data = ArrayDataModule(**source, batch_size=8)
    assert data.column_names == tuple(COLUMNS)
    assert "row numbers that pandas has saved, left out" in caplog.text
    assert ArrayDataModule(**source, columns=["share", "__index_level_0__"], batch_size=8).shape == (2,)


def test_a_structured_array_is_held_to_what_other_columns_are(tmp_path: Path) -> None:
    values = [(1.0, b"cat"), (2.0, b"dog")] * 20
    np.save(tmp_path / "x.npy", np.array(values, dtype=[("a", "f8"), ("kind", "S5")]))
    data = ArrayDataModule(path=str(tmp_path / "x.npy"), label="kind", batch_size=8)
    assert data.class_names == ("cat", "dog") or list(data.class_names) == ["cat", "dog"]
    np.save(tmp_path / "y.npy", np.array([(1.0, "2020-01-01")] * 40, dtype=[("a", "f8"), ("day", "M8[D]")]))
    with pytest.raises(ValueError, match="'day' holds datetime64"):
        ArrayDataModule(path=str(tmp_path / "y.npy"), batch_size=8)


def test_classes_and_limits_are_those_of_every_datamodule(folder: ImageFolderDataModule) -> None:
    images, names, _ = pictures()
    options: dict[str, Any] = {"classes": [1, 3], "limit": 200, "seed": 3, "batch_size": 16, "val_fraction": 0.2}
    theirs = ImageFolderDataModule(str(folder.hparams["root"]), 6, num_workers=0, flip=True, shift=1, **options)
    assert_same_batches(ArrayDataModule(images, names, flip=True, shift=1, **options), theirs)


@pytest.mark.parametrize(
    ("array", "shape", "levels", "says"),
    [
        (np.arange(30 * 64).reshape(30, 8, 8).astype(np.uint8), (1, 8, 8), 256, "30 images (1, 8, 8), bytes, grey"),
        (np.arange(30 * 64).reshape(30, 8, 8) % 2 == 0, (1, 8, 8), 2, "of 2 levels"),
        (np.arange(30 * 64).reshape(30, 1, 8, 8) % 2, (1, 8, 8), 2, "in [0, 1], channels first, of 2 levels"),
        (torch.linspace(-1, 1, 256)[torch.randint(256, (30, 8, 8, 1))], (1, 8, 8), 256, "in [−1, 1], channels last"),
        (torch.linspace(-1, 1, 30 * 50).view(30, 1, 50), (1, 50), 256, "30 sounds of 50 samples, on 256 mu"),
        (torch.randn(30, 4), (4,), None, "30 points of 4 column(s)"),
        (torch.randn(30).bfloat16(), (1,), None, "30 points of 1 column(s)"),
    ],
)  # fmt: skip
def test_what_arrays_are_is_found_out_and_said_once(
    array: Any, shape: tuple[int, ...], levels: int | None, says: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "lightning.pytorch"):
        data = ArrayDataModule(array, batch_size=4)
        x = next(iter(data.train_dataloader()))
    assert (data.shape, data.levels, data.num_classes) == (shape, levels, None)
    assert [record.message for record in caplog.records if says in record.message] and len(caplog.records) == 1
    family = WaveNet if len(shape) == 2 else VAE
    family(shape, levels).check(x)  # type: ignore[operator]


def test_values_between_the_levels_are_rounded_and_that_is_said() -> None:
    x = torch.rand(20, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    with pytest.warns(UserWarning, match=r"rounded to 256 levels, by up to 0\.[45]"):
        data = ArrayDataModule(x, batch_size=4)
    assert float((data.data.x / 255 - x).abs().max()) <= 0.5 / 255 + 1e-6


def test_sounds_keep_their_end() -> None:
    """Exact zeros at the end fill a sound up, and those amid it are sound: on a code, of which none is 0."""
    x = torch.full((8, 1, 10), 0.3)
    x[:, :, 4], x[:, :, 7:] = 0, 0
    data = ArrayDataModule(x, sample_rate=8000)
    assert data.sample_rate == 8000
    assert bool((data.data.x[:, :, 7:] == 0).all()) and bool((data.data.x[:, :, :7] != 0).all())
    assert torch.equal(to_codes(data.data.x, 256, "waveform"), to_codes(x, 256, "waveform"))


# ---------------------------------------------------------------------------------------------------------- tables


def table(num: int = 60) -> dict[str, list[Any]]:
    generator = np.random.default_rng(0)
    return {
        "height": (180 + 10 * generator.standard_normal(num)).round(3).tolist(),
        "income": (50_000 + 30_000 * generator.standard_normal(num)).round().astype(int).tolist(),
        "share": (0.01 * generator.standard_normal(num)).tolist(),
        "animal": [NAMES[i % 4] for i in range(num)],
    }


def write_csv(path: Path, columns: dict[str, list[Any]], delimiter: str = ",") -> str:
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return str(path)


COLUMNS = ["height", "income", "share"]


@pytest.mark.parametrize(
    "kind",
    ["csv", "semicolons", "tsv", "npz", "npy", "parquet", "arrow", "pandas", "hugging face", "mapping", "rows"],
)
def test_tables_of_every_kind_give_the_same_rows(kind: str, tmp_path: Path) -> None:
    columns = table()
    matrix = np.stack([np.array(columns[name], dtype=np.float64) for name in COLUMNS], 1)
    expected = ArrayDataModule(matrix, columns["animal"], batch_size=8)
    named: dict[str, Any] = {"columns": COLUMNS, "label": "animal", "batch_size": 8}
    if kind in ("csv", "semicolons", "tsv"):
        path = tmp_path / ("table.tsv" if kind == "tsv" else "table.csv")
        data = ArrayDataModule(path=write_csv(path, columns, {"csv": ",", "tsv": "\t"}.get(kind, ";")), **named)
    elif kind == "npz":
        np.savez(tmp_path / "table.npz", **{name: np.array(values) for name, values in columns.items()})
        data = ArrayDataModule(path=str(tmp_path / "table.npz"), **named)
    elif kind == "npy":
        fields = [(name, "U5" if name == "animal" else "f8") for name in columns]
        np.save(tmp_path / "table.npy", np.array(list(zip(*columns.values(), strict=True)), dtype=fields))
        data = ArrayDataModule(path=str(tmp_path / "table.npy"), **named)
    elif kind == "parquet":
        parquet.write_table(pyarrow.table(columns), tmp_path / "table.parquet")
        data = ArrayDataModule(path=str(tmp_path / "table.parquet"), **named)
    elif kind in ("arrow", "pandas"):
        data = ArrayDataModule(pyarrow.table(columns) if kind == "arrow" else pandas.DataFrame(columns), **named)
    elif kind == "rows":
        data = ArrayDataModule(matrix.tolist(), columns["animal"], batch_size=8)
    else:
        data = ArrayDataModule(datasets.Dataset.from_dict(columns) if kind == "hugging face" else columns, **named)
    assert (data.shape, data.levels, list(data.class_names)) == ((3,), None, ["cat", "dog", "ox9", "ox10"])
    assert_same_batches(data, expected)
    assert data.standardisation is not None and expected.standardisation is not None
    assert all(map(torch.equal, data.standardisation, expected.standardisation))


def of_kind(kind: str, columns: dict[str, list[Any]], folder: Path) -> dict[str, Any]:
    """A table as an argument of `ArrayDataModule`."""
    if kind == "csv":
        return {"path": write_csv(folder / "table.csv", columns)}
    if kind == "parquet":
        parquet.write_table(pyarrow.table(columns), folder / "table.parquet")
        return {"path": str(folder / "table.parquet")}
    made = {"arrow": pyarrow.table, "pandas": pandas.DataFrame, "hugging face": datasets.Dataset.from_dict}
    return {"x": made[kind](columns)}


@pytest.mark.parametrize("kind", ["csv", "parquet", "arrow", "pandas", "hugging face"])
@pytest.mark.parametrize("odd", [date(2000, 1, 1), None, "x" * 5000])
def test_columns_that_are_left_out_may_hold_anything(kind: str, odd: Any, tmp_path: Path) -> None:
    """Dates, gaps in text, cells so long that NumPy would make all of them as long: they are not converted."""
    columns = table() | {"left out": [odd] * 59 + [odd if isinstance(odd, date) else "a"]}
    named: dict[str, Any] = {"columns": COLUMNS, "label": "animal", "batch_size": 8}
    given = of_kind(kind, columns, tmp_path)
    data = ArrayDataModule(**given, **named)
    assert_same_batches(data, ArrayDataModule(table(), **named))
    assert data.column_names == tuple(COLUMNS)
    with pytest.raises(ValueError, match="left out"):
        ArrayDataModule(**given, label="animal")


def test_a_data_set_s_columns_are_columns_and_labels_a_frame_of_one() -> None:
    columns = table()
    whole = ArrayDataModule(columns, columns=COLUMNS, label="animal", batch_size=8)
    kept = datasets.Dataset.from_dict(columns)
    parts = {name: kept[name] for name in columns}  # each of which is no data set, though it knows of one
    assert_same_batches(ArrayDataModule(parts, columns=COLUMNS, label="animal", batch_size=8), whole)
    frame = pandas.DataFrame(columns)
    assert_same_batches(ArrayDataModule(frame[COLUMNS], frame[["animal"]], batch_size=8), whole)
    with pytest.raises(ValueError, match=r"y is a label for each row, but has the columns 'height', 'income'"):
        ArrayDataModule(frame[["share"]], frame[["height", "income"]])


def test_what_lies_between_is_made_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """To the same values, and the same largest deviation."""
    generator = np.random.default_rng(0)
    pictures, sounds = generator.random((9, 3, 4, 4)), generator.uniform(-1, 1, (9, 1, 40)) * (np.arange(40) < 30)
    whole = [understood(x) for x in (pictures, sounds)]
    monkeypatch.setattr(arrays, "AT_ONCE", 100)
    for expected, x in zip(whole, (pictures, sounds), strict=True):
        found = understood(x)
        assert torch.equal(found.stored, expected.stored) and found[1:] == expected[1:]
    assert "rounded" in whole[0].changed


def test_columns_are_standardised_as_the_training_rows_have_them() -> None:
    data = ArrayDataModule(table(), columns=COLUMNS, batch_size=8, val_fraction=0.4)
    data.setup()
    train = data.sources["train"].x.double()  # type: ignore[attr-defined]
    assert data.standardisation is not None and len(train) < 36
    mean, std = data.standardisation
    torch.testing.assert_close(mean, train.mean(0), rtol=1e-12, atol=0)
    torch.testing.assert_close(std, train.std(0, correction=0), rtol=1e-12, atol=0)
    assert ArrayDataModule(table(), columns=COLUMNS, standardise=False).standardisation is None


@pytest.mark.parametrize(
    ("column", "says"),
    [
        ([1, None, 3], "1 of 3 rows hold NaN or infinite values, the first of them row 2"),
        (["a", None, "b"], "row 2 of 'x' is 'None', which is neither a number nor text"),
        ([date(2026, 1, 1)] * 3, r"'x' holds datetime64|neither a number nor text"),
        ([[1.0, 2.0], [3.0], [4.0, 5.0]], "the rows of 'x' are not alike"),
    ],
)
def test_what_parquet_has_and_a_model_has_not_is_said(column: list[Any], says: str, tmp_path: Path) -> None:
    parquet.write_table(pyarrow.table({"x": column, "y": [1.0, 2.0, 3.0]}), tmp_path / "table.parquet")
    with pytest.raises(ValueError, match=says):
        ArrayDataModule(path=str(tmp_path / "table.parquet"), columns=["x"])


def test_without_parquets_reader_it_is_said_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    (tmp_path / "table.parquet").write_bytes(b"PAR1")
    with pytest.raises(ModuleNotFoundError, match=r'Parquet is read by pyarrow: pip install "genzoo\[parquet\]"'):
        ArrayDataModule(path=str(tmp_path / "table.parquet"))


GOOD = table(12)
IN_A_SET = datasets.Dataset.from_dict(GOOD)


def with_value(name: str, row: int, value: Any) -> dict[str, list[Any]]:
    """A table in which one value is odd."""
    columns = {key: list(values) for key, values in GOOD.items()}
    columns[name][row - 1] = value
    return columns


@pytest.mark.parametrize(
    ("columns", "options", "says"),
    [
        (with_value("height", 7, ""), {}, "column 'height' has nothing in row 7, where a number belongs"),
        (with_value("height", 7, "tall"), {}, "column 'height' has 'tall' in row 7, where a number belongs"),
        (with_value("height", 7, "nan"), {}, "1 of 12 rows hold NaN or infinite values.* row 7 in column 'height'"),
        (with_value("income", 3, "-inf"), {}, "row 3 in column 'income'"),
        (with_value("animal", 3, " "), {}, "1 of 12 rows have no label in 'animal'"),
        (GOOD, {"columns": None, "label": None}, "column 'animal' has 'cat' in row 1.*name it as `label`"),
        (GOOD, {"columns": ["height", "age"]}, r"there is no column 'age': there are 'height', 'income', 'share'"),
        (GOOD, {"label": "specis"}, "there is no column 'specis'"),
        (GOOD, {"columns": []}, "name one or more"),
        (GOOD, {"columns": ["height", "height"]}, "each once"),
        (GOOD, {"columns": ["height", "animal"]}, "and not the label"),
        (GOOD, {"label": "share", "columns": ["height"]}, "whole numbers, or names, but 'share' holds"),
        (GOOD, {"label": "income", "columns": ["height"]}, "'income' goes from"),
        ({**GOOD, "height": [3.5] * 12}, {}, "column 'height' is 3.5 in every row of the training data"),
        (
            {**GOOD, "height": [1.7e9 + 100 * i for i in range(12)]},
            {},
            "'height' has the mean 1.7e.09.*too few steps",
        ),
        ({name: [] for name in GOOD}, {}, "there is no row below the names of the columns"),
        ({name: values[:2] for name, values in GOOD.items()}, {}, r"2 example\(s\) are too few: give at least 3"),
        (GOOD, {"flip": True}, "these data are no images"),
        (GOOD, {"val_fraction": 1.0}, "val_fraction is 1.0"),
        (GOOD, {"classes": [7]}, r"classes is \[7\]"),
    ],
)
def test_odd_tables_get_one_clear_line(
    columns: dict[str, list[Any]], options: dict[str, Any], says: str, tmp_path: Path
) -> None:
    options = {"columns": COLUMNS, "label": "animal"} | options
    with pytest.raises(ValueError, match=says) as error:
        _ = ArrayDataModule(path=write_csv(tmp_path / "table.csv", columns), **options).standardisation
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("table.csv", b"", "is empty"),
        ("table.csv", b"a,b\n1,2\n3\n", "line 3 has 1 values, but the first line names 2 columns"),
        ("table.csv", b"a,b\n1,2\n3,4,5\n", "line 3 has 3 values"),
        ("table.csv", b"1,2\n3,4\n", "its first line must name the columns"),
        ("table.csv", b"5.1,3.5,setosa\n4.9,3.0,setosa\n", "its first line must name the columns"),  # a row, as well
        ("table.csv", b"a,a\n3,4\n", "each once"),
        ("table.csv", b"a,\n3,4\n", "must name the columns"),
        ("table.csv", b"a,b\n\xff\xfe,4\n", "no text in UTF-8"),
        ("table.csv", b'a,b\n1,2\n3,"4\n5,6\n', "the quote that opens in line 3 is never closed"),
        ("table.npy", b"nonsense", "cannot be used: it is no file of an array, or not a whole one"),
        ("table.npy", b"\x93NUMPY\x01\x00v\x00{", "cannot be used: it is no file of an array, or not a whole one"),
        ("table.npz", b"PK\x03\x04nonsense", "cannot be used"),
        ("table.xlsx", b"nonsense", r"none of the kinds that are read: \.npy, \.npz, \.csv, \.tsv, \.parquet"),
    ],
)
def test_odd_files_get_one_clear_line(name: str, content: bytes, says: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=says) as error:
        ArrayDataModule(path=str(tmp_path / name))
    assert "\n" not in str(error.value) and name in str(error.value)


@pytest.mark.parametrize("columns", [None, ["a", "b"]])
@pytest.mark.parametrize(
    ("text", "asks"),
    [
        (",a,b\n0,1,2\n1,3,5\n2,4,9\n3,6,7\n", False),  # as pandas writes it
        ("\n\na,b\n1,2\n3,5\n4,9\n6,7\n", False),  # as an editor leaves it
        ("a,b,\n1,2,\n3,5,\n4,9,\n6,7,\n", True),  # with a comma too many
        ("a,c,c,b\n1,7,8,2\n3,7,8,5\n4,7,8,9\n6,7,8,7\n", True),  # with names that are somebody's business
    ],
)
def test_columns_without_a_name_are_left_out(
    text: str, asks: bool, columns: list[str] | None, tmp_path: Path
) -> None:
    (tmp_path / "table.csv").write_text(text)
    if asks and columns is None:
        with pytest.raises(ValueError, match="each once"):
            ArrayDataModule(path=str(tmp_path / "table.csv"))
        return
    data = ArrayDataModule(path=str(tmp_path / "table.csv"), columns=columns)
    assert list(data.column_names) == ["a", "b"]
    assert sorted(data.data.x.tolist()) == [[1, 2], [3, 5], [4, 9], [6, 7]]


@pytest.mark.parametrize(
    ("column", "says"),
    [
        ([1.0, 1e39, 2.0, 3.0, 4.0], "row 2 in column 'b' has 1e\\+39, beyond the numbers of single precision"),
        ([1e18 + i for i in range(5)], "'b' is 1e\\+18 in every row of the training data, to single precision"),
        ([7.0] * 5, "'b' is 7 in every row of the training data, to single precision"),
    ],
)
def test_numbers_that_single_precision_does_not_tell_apart_are_named(
    column: list[float], says: str, tmp_path: Path
) -> None:
    write_csv(tmp_path / "table.csv", {"a": [1.0, 2.0, 3.0, 4.0, 5.0], "b": column})
    with pytest.raises(ValueError, match=says):
        data = ArrayDataModule(path=str(tmp_path / "table.csv"), val_fraction=0.2, test_fraction=0.2)
        _ = data.standardisation


def test_objects_in_a_file_are_not_unpickled(tmp_path: Path) -> None:
    np.save(tmp_path / "table.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"table\.npy cannot be used: .* holds Python objects"):
        ArrayDataModule(path=str(tmp_path / "table.npy"))
    with pytest.raises(FileNotFoundError, match="there is no file"):
        ArrayDataModule(path=str(tmp_path / "other.npy"))


IMAGES = torch.randint(256, (12, 3, 4, 4), dtype=torch.uint8)


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({}, ValueError, "give either x, the data themselves, or path"),
        ({"x": "table.csv"}, ValueError, "path='table.csv'"),
        ({"x": IMAGES, "path": "table.csv"}, ValueError, "give either x"),
        ({"x": 3.0}, TypeError, "x is float: give a tensor"),
        ({"x": iter([1, 2])}, TypeError, "has a length"),
        ({"x": IMAGES[:0]}, ValueError, "there are no rows"),
        ({"x": IMAGES[:, :2]}, ValueError, r"1 or 3 channels, first or last, but these are \(2, 4, 4\)"),
        ({"x": IMAGES.permute(0, 2, 3, 1).repeat(1, 1, 1, 2)[..., :4]}, ValueError, "leave an alpha channel out"),
        ({"x": IMAGES.int() - 128}, ValueError, r"values in \[-?−?1.*undo any normalisation"),
        ({"x": 4 * torch.randn(12, 3, 4, 4)}, ValueError, "undo any normalisation"),
        ({"x": 1.02 * torch.rand(40, 3, 4, 4).round()}, ValueError, r"values in \[0, 1.02\]: undo any normalisation"),
        ({"x": IMAGES / 255 * torch.nan}, ValueError, "12 of 12 rows hold NaN.*the first of them row 1:"),
        ({"x": 2 * torch.randn(12, 1, 40)}, ValueError, r"are in \[−1, 1\].*largest; or say series=True"),
        ({"x": torch.zeros(12, 1, 0)}, ValueError, "holds no numbers"),
        ({"x": torch.rand(12, 5, 40)}, ValueError, "may be grey images off the grid.*give images as"),
        ({"x": torch.rand(12, 1, 1, 1, 1)}, ValueError, "none that a model is for"),
        ({"x": IMAGES, "y": [0] * 11}, ValueError, "'x' has 12, 'y' has 11"),
        ({"x": IMAGES, "y": torch.eye(12)}, ValueError, "of one-hot labels give the argmax"),
        ({"x": IMAGES, "y": [-1] * 12}, ValueError, "'y' goes from -1 to -1"),
        ({"x": IMAGES, "y": [0.5] * 12}, ValueError, "holds '0.5'"),
        ({"x": IMAGES, "y": [0, "a"] * 6}, ValueError, "'x' mixes numbers and text: row 1 is '0', row 2 'a'"),
        ({"x": {"a": IMAGES, "y": [0] * 12}, "y": [0] * 12}, ValueError, "labels are given twice"),
        ({"x": {"a": IMAGES, "b": torch.rand(12)}}, ValueError, "'a', 'b' cannot stand side by side, as 'a'"),
        ({"x": datasets.DatasetDict(train=IN_A_SET, test=IN_A_SET)}, ValueError, "'test': give one of them"),
        ({"x": [[1.0, 2.0], [3.0]]}, ValueError, r"not alike: row 1 has the shape \(2,\), row 2 \(1,\)"),
        ({"x": [[[1.0], [2.0, 3.0]]] * 4}, ValueError, "row 1 of 'x' is ragged"),
        ({"x": {"a": [1.0, None, 2.0]}}, ValueError, "row 2 of 'a' is 'None', which is neither a number nor text"),
        ({"x": np.array(["2020-01-01"] * 4, dtype="datetime64[D]")}, ValueError, "holds datetime64"),
        ({"x": torch.rand(12, 2), "shift": 1}, ValueError, "no images"),
    ],
)  # fmt: skip
def test_odd_arrays_get_one_clear_line(arguments: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says) as raised:
        ArrayDataModule(**arguments)
    assert "\n" not in str(raised.value)


# ------------------------------------------------------------------------------------------------- with a model


def test_a_model_of_a_table_answers_in_the_users_units_wherever_it_is_loaded(tmp_path: Path) -> None:
    data = ArrayDataModule(path=write_csv(tmp_path / "table.csv", table()), columns=COLUMNS, batch_size=8)
    model = VAE(data.shape, data.levels, width=8)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    trainer = Trainer(max_epochs=1, enable_checkpointing=False, **quiet)
    trainer.fit(model, datamodule=data)
    trainer.test(model, datamodule=data, verbose=False)
    entry = publish(model, "table/vae", to=tmp_path / "entry", data=data)
    loaded = genzoo.load(entry)
    assert data.standardisation is not None
    torch.testing.assert_close(loaded.column_mean, data.standardisation[0].float())
    torch.testing.assert_close(loaded.column_std, data.standardisation[1].float())
    size = loaded.sample(500, generator=torch.Generator().manual_seed(0)).std(0) / data.standardisation[1]
    assert bool(((size > 0.2) & (size < 5)).all())  # next to untrained, but in units that differ by millions


def test_a_gan_of_images_from_a_tensor() -> None:
    data = ArrayDataModule(IMAGES, list(NAMES * 3), batch_size=4)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    model = GAN(data.shape, data.levels, num_classes=data.num_classes, conditional=True, width=4)
    Trainer(max_epochs=1, enable_checkpointing=False, **quiet).fit(model, datamodule=data)
    assert int(model.class_counts.sum()) == 8 and math.prod(model.shape) == 48


def test_a_column_of_a_frame_goes_by_place_and_not_by_label() -> None:
    frame = pandas.DataFrame({"a": np.arange(40.0), "b": np.arange(40.0), "label": np.arange(40) // 10})[::-1]
    data = ArrayDataModule(frame[["a", "b"]], frame["label"])
    assert torch.equal(data.data.labels, data.data.x[:, 0].long() // 10)
    kept = frame[frame["a"] % 2 == 0]
    assert len(ArrayDataModule(kept[["a", "b"]], kept["label"]).data) == 20


def test_columns_called_x_and_y_can_be_the_data() -> None:
    rows = {"x": np.random.default_rng(0).normal(size=40), "y": np.random.default_rng(1).normal(size=40)}
    data = ArrayDataModule(rows, columns=["x", "y"])
    assert data.shape == (2,) and data.num_classes is None


def test_a_label_that_is_infinite_is_named() -> None:
    with pytest.raises(ValueError, match="labels are whole numbers, or names, but 'y' holds 'inf'"):
        ArrayDataModule(np.random.default_rng(0).normal(size=(3, 2)), np.array([0.0, 1.0, np.inf]))


@pytest.mark.parametrize("channels", [1, 2])
def test_series_are_what_is_said_to_be_some(channels: int) -> None:
    """Of one channel they might be sounds, in an image's range images."""
    x = torch.rand(20, channels, 16, generator=torch.Generator().manual_seed(0))
    data = ArrayDataModule(x, series=True)
    data.setup("fit")
    assert (data.shape, data.levels) == ((channels, 16), None)
    assert all(bool((row == x).flatten(1).all(1).any()) for row in next(iter(data.val_dataloader())))
    if channels == 1:
        assert ArrayDataModule(x).levels == 256
    with pytest.raises(ValueError, match=r"series are arrays \(N, C, T\), but this one has the shape \(20, 16\)"):
        ArrayDataModule(x[:, 0], series=True)


def test_series_of_several_channels_are_taken_as_they_are() -> None:
    """(N, C, T) of any unit; what lies in an image's range, off its grid, might be one, and is asked about."""
    x = 3 * torch.randn(20, 4, 16, generator=torch.Generator().manual_seed(0)) - 2
    data = ArrayDataModule(x)
    data.setup("fit")
    assert (data.shape, data.levels) == ((4, 16), None)
    (batch,) = list(data.val_dataloader())
    assert all(bool((row == x).flatten(1).all(1).any()) for row in batch)
    assert getattr(data, "standardisation", None) is None


@pytest.mark.parametrize("low", [0.0, -1.0])
def test_images_a_hair_outside_their_range_are_in_it(low: float) -> None:
    """Interpolation leaves them there: they are no bytes, of which all would be black."""
    levels = torch.arange(256).repeat(3).view(12, 1, 8, 8)
    x = low + (1 - low) * levels.double() / 255
    for off in (-1e-7, 1e-7):
        data = ArrayDataModule((x + off).numpy())
        assert data.levels == 256 and torch.equal(data.data.x.long(), levels)


def test_floats_of_a_small_range_below_and_above_0_are_series() -> None:
    x = np.random.default_rng(0).uniform(-0.5, 1.5, size=(40, 3, 16))
    data = ArrayDataModule(x)
    assert data.levels is None and data.shape == (3, 16)


@pytest.mark.parametrize("names", ["400.5,401.0", "-1,0", "nan,inf"])
def test_a_number_may_name_a_column(names: str, tmp_path: Path) -> None:
    """Of a spectrum, say; but where the text beside it stands in other rows, too, the line is a row as they are."""
    rows = "".join(f"{'ab'[row % 2]},{row},{row / 2}\n" for row in range(12))
    (tmp_path / "x.csv").write_text(f"label,{names}\n{rows}")
    assert ArrayDataModule(path=str(tmp_path / "x.csv"), label="label").data.x.shape == (12, 2)
    (tmp_path / "x.csv").write_text(f"a,{names}\n{rows}")
    with pytest.raises(ValueError, match="and so a row like others"):
        ArrayDataModule(path=str(tmp_path / "x.csv"), label="a")


def test_labels_beside_a_file_are_labels(tmp_path: Path) -> None:
    y = np.arange(12) % 3
    (tmp_path / "table.csv").write_text("a,b\n" + "".join(f"{row},{row + 0.5}\n" for row in range(12)))
    np.save(tmp_path / "images.npy", np.random.default_rng(0).integers(256, size=(12, 4, 4), dtype=np.uint8))
    for name, options in (("table.csv", {}), ("table.csv", {"columns": ["b", "a"]}), ("images.npy", {})):
        data = ArrayDataModule(path=str(tmp_path / name), y=y, **options)
        assert data.num_classes == 3 and data.data.labels is not None and data.data.labels.tolist() == y.tolist()
        assert data.shape == ((2,) if name == "table.csv" else (1, 4, 4))


def test_a_table_with_a_column_that_does_not_vary_can_be_measured(tmp_path: Path) -> None:
    """As a month of the year's data; learned it cannot be."""
    from genzoo.callbacks import evaluate

    draws = np.random.default_rng(0)
    year = {"month": draws.integers(1, 13, 200).astype(float), "rain": draws.normal(5, 1, 200)}
    may = {"month": [5.0] * 30, "rain": draws.normal(5, 1, 30)}
    model = VAE((2,), None, latent_dim=2, width=8, depth=1)
    options: dict[str, Any] = {"enable_progress_bar": False, "logger": False, "enable_checkpointing": False}
    Trainer(max_steps=2, **options).fit(model, ArrayDataModule(year))
    data = ArrayDataModule(may)
    for split in ("test", "val"):
        found = evaluate(model, data, split=split, num_particles=2, progress=False)["figures"]
        assert [figure["name"] for figure in found][:2] == ["parameters", "nll"] and np.isfinite(found[1]["value"])
    assert Trainer(**options).test(model, ArrayDataModule(may), verbose=False)
    for standardise in (True, False):
        with pytest.raises(ValueError, match="column 'month' is 5 in every row of the training data"):
            Trainer(max_steps=1, **options).fit(model, ArrayDataModule(may, standardise=standardise))


def test_of_a_table_no_more_is_held_than_was_asked_for(tmp_path: Path) -> None:
    """Nor is what stands in other columns of any matter: notes as long as a book, in which lines end."""
    rows = "".join(f'{i},"{"line" + chr(10)}{"x" * 200_000}",{i * i}\n' for i in range(40))
    (tmp_path / "table.csv").write_text("a,note,2024\n" + rows)
    tracemalloc.start()
    data = ArrayDataModule(path=str(tmp_path / "table.csv"), columns=["a", "2024"], label=None)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sorted(data.data.x[:, 1].tolist()) == [i * i for i in range(40)] and peak < 3e6
    with pytest.raises(ValueError, match="row 1 of 'note' has 200,005 characters"):
        ArrayDataModule(path=str(tmp_path / "table.csv"))
    assert csv.field_size_limit() == 131_072  # of whoever reads other tables


def test_where_a_table_is_no_text_is_said(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_bytes(b"a,b\n1,2\n" + "é,3\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"no text in UTF-8 \(invalid .* in line 3\)"):
        ArrayDataModule(path=str(tmp_path / "table.csv"))


def test_quotes_are_read_as_they_are_written(tmp_path: Path) -> None:
    """Also by programs that know no other way to write one, in columns that nobody asks for."""
    lines = [
        '"a" ,"note",b',
        '1,"Weird Al" Yankovic,2',
        '3,"say \\"hi\\"",4',
        '"5","two',
        'lines" ,6',
        '7, "x",8',
        "",
        '9,="001",10',
    ]
    (tmp_path / "table.csv").write_text("\n".join(lines))
    data = ArrayDataModule(path=str(tmp_path / "table.csv"), columns=["a", "b"])
    assert sorted(data.data.x.tolist()) == [[1, 2], [3, 4], [5, 6], [7, 8], [9, 10]]
