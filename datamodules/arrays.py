"""A user's own arrays: images, sounds, series or the rows of a table, from memory or from one file."""

import re
from collections.abc import Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn
from torch import Tensor

from genzoo.datamodules.augmentation import Augmentation
from genzoo.datamodules.base import DataModule, InMemory
from genzoo.datamodules.columns import TEXT, UNNAMED, columns_of, listed, read_file, shown
from genzoo.datamodules.duplicates import same_rows, say_copies
from genzoo.datamodules.folder import hold_out, natural, part_of
from genzoo.datamodules.images import rescale
from genzoo.zoo.files import at_home
from genzoo.zoo.lines import is_line
from genzoo.zoo.modality import from_codes, sounding, to_codes
from genzoo.zoo.naming import MOST_COLUMNS
from genzoo.zoo.value_range import BYTES, SYMMETRIC, UNIT, ValueRange, in_words

SOUND_LEVELS = 256  # mu-law codes, as of every sound here
MOST_CLASSES = 10_000  # labels beyond are no classes, but numbers of something
HAIR = 1e-5  # by which floats may be outside the range of images, in its unit
ROUNDING = 0.1  # of a level, by which images in half precision are off
FINEST = 64  # steps of single precision that a standard deviation has at least
AT_ONCE = 2**22  # numbers that are computed with
INDEX = re.compile(r"__index_level_\d+__")  # what pandas calls the numbers of a frame's rows in a file


class Understood(NamedTuple):
    """What an array was found to be."""

    stored: Tensor  # (N, *shape): images as uint8 from 0 to levels − 1, anything else as float32
    levels: int | None
    said: str
    changed: str = ""  # how its values were changed, if they were


class ArrayDataModule(DataModule):
    """Images, sounds, series or points from arrays of the user's own.

    What the numbers are is found out and said once:

    - images: (N, H, W, C) or (N, C, H, W) with C of 1 or 3, or (N, H, W); bytes, or floats in [0, 1], [−1, 1] or
      [0, 255]; 256 levels, or 2 where only the lowest and the highest value occur;
    - sounds: (N, 1, T) floats in [−1, 1], brought to the values of the 256 mu-law codes; zeros at the end of one are
      no part of it;
    - series, C numbers at each of T times: (N, C, T) floats that are plainly neither images nor sounds, or that
      `series` says are some, as they are: best less their mean, and divided by their standard deviation; continuous;
    - points, the rows of a table: (N, D) or (N,) numbers, or D columns of N numbers; continuous.

    The columns of points are standardised inside the model, which answers in the user's own units: the datamodule
    states their means and standard deviations (`standardisation`), those of the training rows.

    A fixed random part of the rows is held out for testing, and one of the rest for validation, by the same choice as
    of `ImageFolderDataModule`.

    Args:
        x: a tensor or an array; a mapping from names to such, a `datasets.Dataset` of Hugging Face's or a frame of
            pandas', whose columns have names; or a `torch.utils.data.Dataset` of x, (x, y) or mappings.
        y: (N,), labels of x: whole numbers from 0 on, or names, which become classes in their natural order.
        path: of a .npy, .npz, .csv, .tsv or .parquet file, in place of x. A table's first line names its columns.
        columns: the names of those that are the data: one that holds an array in each row, or several that hold a
            number each. None: all but the label.
        label: the name of the column with the labels; None: there are none (of a data set of pairs, the second; of
            x in memory a column that is called y, unless it is among `columns`).
        standardise: state the columns' means and standard deviations, so that a model standardises them.
        series: whether (N, C, T) floats are series, whatever their values; False finds it out.
        sample_rate: of sounds, in Hz: how fast they are played.
        batch_size, classes, limit, seed: see `DataModule`.
        val_fraction: part of the rows, without those for testing, that is held out for validation.
        test_fraction: part of the rows that is held out for testing.
        flip, shift: of the training images, see `Augmentation`.

    Raises:
        FileNotFoundError: if there is no such file.
        ModuleNotFoundError: for a Parquet file, without pyarrow (`pip install "genzoo[parquet]"`).
        TypeError: if x is no data of any kind.
        ValueError: for any argument out of its range; for rows that are not alike, NaN, infinite or missing values,
            text among numbers, constant columns, names that are not there, and arrays of other shapes or ranges.
    """

    def __init__(
        self,
        x: Any = None,
        y: Any = None,
        *,
        path: str | None = None,
        columns: Sequence[str] | None = None,
        label: str | None = None,
        standardise: bool = True,
        series: bool = False,
        sample_rate: int | None = None,
        batch_size: int = 128,
        val_fraction: float = 0.1,
        test_fraction: float = 0.1,
        classes: list[int] | None = None,
        limit: int | None = None,
        seed: int = 0,
        flip: bool = False,
        shift: int = 0,
    ):
        if (x is None) == (path is None) or isinstance(x, str | Path):
            raise ValueError(
                "give either x, the data themselves, or path, the name of a file"
                + (f": path={str(x)!r}" if isinstance(x, str | Path) else "")
            )
        if not (0 < val_fraction < 1 and 0 < test_fraction < 1):
            raise ValueError(
                f"val_fraction is {val_fraction} and test_fraction {test_fraction}: each must lie between 0 and 1"
            )
        if path is None:
            named = columns_of(x, partial(wanted, columns=columns, label=label, perhaps="y"))
        else:
            named = read_file(at_home(path), partial(wanted, columns=columns, label=label))
        if y is not None:
            if label is not None or "y" in named:
                raise ValueError("labels are given twice: leave out y, or the label in the data")
            named, label = {**named, "y": only_column(y)}, "y"
        if label is None and path is None and "y" in named and "y" not in (columns or ()):
            label = "y"
        array, labels, names = chosen(named, columns, label)
        found = understood(array, names, series=series)
        self._names = names
        self.shape, self.levels, self.sample_rate = tuple(found.stored.shape[1:]), found.levels, sample_rate
        if len(self.shape) == 1 and names != [UNNAMED]:
            can_be_stated = len(names) <= MOST_COLUMNS and all(map(is_line, names))
            self.column_names = tuple(names) if can_be_stated else ()
            if not can_be_stated:
                rank_zero_warn(
                    "ArrayDataModule: columns go by their places, for their names are no lines of text, or more than"
                    f" {MOST_COLUMNS:,}."
                )
        classes_said = ""
        if labels is None:
            self.data = InMemory(found.stored)
        else:
            numbers, self.class_names = classes_of(labels, str(label), class_label(x, label))
            self.data = InMemory(found.stored, numbers)
            self.num_classes = len(self.class_names) or int(numbers.max()) + 1
            classes_said = f", in {self.num_classes} classes"
        rank_zero_info(f"ArrayDataModule: {len(array):,} {found.said}{classes_said}.")
        if found.changed:
            rank_zero_warn(f"ArrayDataModule: {found.changed}.")
        if len(self.shape) == 3:
            self.augmentation = Augmentation(flip, shift, self.shape)
        elif flip or shift:
            raise ValueError(f"flip is {flip} and shift {shift}, but these data are no images: leave them out")
        if len(array) < 3:
            raise ValueError(f"{len(array)} example(s) are too few: give at least 3, to train, validate and test on")
        kept, held_out = hold_out(range(len(array)), test_fraction)
        self.rows = {"train": torch.tensor(kept), "test": torch.tensor(held_out)}
        inside = len(kept)
        if classes is not None and self.data.labels is not None:
            inside = int(torch.isin(self.data.labels[self.rows["train"]], torch.tensor(classes)).sum())
        super().__init__(
            batch_size=batch_size, val_size=part_of(inside, val_fraction), classes=classes, limit=limit, seed=seed
        )
        self._standardises = standardise
        self.save_hyperparameters(ignore=["x", "y"], logger=False)  # which no file can state

    def divided(self) -> list[bytes | np.ndarray]:
        """See `DataModule`: the values of all rows."""
        return [self.data.x.numpy(), str(len(self.rows["test"])).encode()]

    def prepare_data(self) -> None:
        """Look for copies among pictures and sounds; black and white ones, and rows of numbers, may well be alike."""
        if (self.levels or 0) > 2:
            held_out, trained_on = (self.rows[split].tolist() for split in ("test", "train"))
            found = same_rows(self.data.x.numpy(), held_out, trained_on)
            say_copies([(f"row {a + 1}", f"row {b + 1}") for a, b in found], len(held_out), "pictures or sounds")

    @property
    def standardisation(self) -> tuple[Tensor, Tensor] | None:  # type: ignore[override]
        """The means and the standard deviations of the training rows' columns, of points; None if nobody is to know.

        A model asks for them when it is to learn, and then a column that does not vary is refused either way: rows
        that are only measured, or few, may well have one.
        """
        scales = self._scales
        return scales if self._standardises else None

    @cached_property
    def _scales(self) -> tuple[Tensor, Tensor] | None:
        if self.levels is not None or len(self.shape) != 1:
            return None
        source = self.data.select(self.rows["train"])
        train, _ = self.split(self._rows_in_classes(source))
        return scales_of(source.select(train).x, self._names)

    def load(self, split: str) -> InMemory:
        """The rows of a split."""
        return self.data.select(self.rows[split])

    def scale(self, stored: Tensor) -> Tensor:
        """Images from levels to [0, 1]; anything else as it is."""
        return rescale(stored, self.levels - 1) if self.levels and len(self.shape) == 3 else stored


# ---------------------------------------------------------------------------------------- which columns are the data


def wanted(
    names: Sequence[str], columns: Sequence[str] | None, label: str | None, perhaps: str | None = None
) -> list[str]:
    """Of the names of all columns those that are read: the data's and the label's, and `perhaps` where there is one.

    Raises:
        ValueError: if columns are not there.
    """
    asked = [*(columns or ()), *([] if label is None else [label])]
    if strangers := [name for name in asked if name not in names]:
        raise ValueError(f"there is no column {listed(strangers)}: there are {listed(names) or 'none'}")
    numbered = [name for place, name in enumerate(names) if INDEX.fullmatch(name) or (place == 0 and not name)]
    left_out = numbered if columns is None else []
    if left_out:
        rank_zero_info(f"{listed(left_out)}: row numbers that pandas has saved, left out (name them in columns)")
    return [name for name in names if (columns is None and name not in left_out) or name in (*asked, perhaps)]


def only_column(y: Any) -> np.ndarray:
    """The labels, if they are one column; ValueError if they are several, or none."""
    named = columns_of(y)
    if len(named) != 1:
        raise ValueError(
            f"y is a label for each row, but has the columns {listed(named) or 'none'}: give one of them"
        )
    return next(iter(named.values()))


def chosen(
    named: dict[str, np.ndarray], columns: Sequence[str] | None, label: str | None
) -> tuple[np.ndarray, np.ndarray | None, list[str]]:
    """The data, (N, …) finite numbers, the labels, (N,), and the names of the data's columns where they have some.

    Raises:
        ValueError: if columns are not there, or cannot stand side by side, or hold what is no finite number.
    """
    there = wanted(list(named), columns, label)
    names = [name for name in there if name != label] if columns is None else list(columns)
    if not names or len(set(names)) < len(names) or label in names:
        raise ValueError(f"columns is {names}: name one or more, each once, and not the label")
    lengths = {name: len(named[name]) for name in (*names, *([] if label is None else [label]))}
    if len(set(lengths.values())) > 1:
        said = ", ".join(f"{name!r} has {length}" for name, length in lengths.items())
        raise ValueError(f"each column has a value for every row, but {said}")
    if not lengths[names[0]]:
        raise ValueError("there are no rows: give data")
    for name in names:
        if named[name].dtype.kind in TEXT:
            raise ValueError(why_no_numbers(name, named[name]))
    arrays = [named[name] for name in names]
    if len(arrays) > 1 and (odd := next((n for n, a in zip(names, arrays, strict=True) if a.ndim != 1), None)):
        raise ValueError(
            f"the columns {listed(names)} cannot stand side by side, as {odd!r} has {named[odd].shape[1:]} numbers"
            " in each row: choose by `columns`" + ("" if label else ", and name the labels by `label`")
        )
    array = arrays[0] if len(arrays) == 1 else np.stack(arrays, axis=1)
    return array, None if label is None else named[label], names if array.ndim < 3 and arrays[0].ndim == 1 else []


def why_no_numbers(name: str, values: np.ndarray) -> str:
    """What is wrong with a column of text that is to be one of numbers."""
    for row, value in enumerate(values.flat, start=1):
        try:
            float(value)
        except ValueError:
            what = "nothing" if not value.strip() else shown(value)
            return (
                f"column {name!r} has {what} in row {row}, where a number belongs: mend it, leave the column or the"
                " row out, or name it as `label`"
            )
    return f"column {name!r} holds numbers as text: convert them"


def scales_of(x: Tensor, names: Sequence[str]) -> tuple[Tensor, Tensor]:
    """The mean and the standard deviation of each column, float64 (D,).

    Raises:
        ValueError: for a column that is constant, and so has no density, or as good as that in single precision; for
            a single row.
    """
    if len(x) < 2:
        raise ValueError(f"{len(x)} example(s) are left for training, which have no standard deviation: give more")
    mean, std = x.double().mean(0), x.double().std(0, correction=0)
    finest = torch.from_numpy(np.spacing(x.abs().amax(0).numpy())).double()
    for column in (std < FINEST * finest).nonzero().flatten().tolist():
        name = repr(names[column]) if names else column
        if x[:, column].amin() == x[:, column].amax():
            raise ValueError(
                f"column {name} is {float(mean[column]):g} in every row of the training data, to single precision,"
                " and what is constant has no density: leave it out, or subtract a constant from it"
            )
        raise ValueError(
            f"column {name} has the mean {float(mean[column]):g} and the standard deviation {float(std[column]):.3g},"
            " in which single precision has too few steps: subtract a constant from it"
        )
    return mean, std


# ------------------------------------------------------------------------------------------------- what they are


def understood(x: np.ndarray, names: Sequence[str] = (), *, series: bool = False) -> Understood:
    """What the numbers are, by their shape and range, in the form in which they are kept.

    Args:
        x: (N, …).
        names: of the columns, for messages.
        series: whether that is what they are.

    Raises:
        ValueError: if they are nothing that a model is for.
    """
    if x.dtype.kind == "f" and not np.isfinite(x).all():
        bad = ~np.isfinite(x).reshape(len(x), -1)
        row, place = np.argwhere(bad)[0]
        where = f" in column {names[place]!r}" if len(names) > 1 else ""
        raise ValueError(
            f"{int(bad.any(1).sum())} of {len(x)} rows hold NaN or infinite values, the first of them row"
            f" {row + 1}{where}: fill them, or leave the rows out"
        )
    if x.size == 0:
        raise ValueError(f"an array of the shape {x.shape} holds no numbers")
    if series and x.ndim != 3:
        raise ValueError(f"series are arrays (N, C, T), but this one has the shape {x.shape}")
    if series:
        return of_series(x)
    if x.ndim in (1, 2):
        rows = x.reshape(len(x), -1)
        if too_large := np.argwhere(np.abs(rows) > np.finfo(np.float32).max).tolist():
            row, place = too_large[0]
            where = f" in column {names[place]!r}" if len(names) > 1 else ""
            raise ValueError(
                f"row {row + 1}{where} has {float(rows[row, place]):g}, beyond the numbers of single precision:"
                " divide it by a constant, or take its logarithm"
            )
        points = torch.from_numpy(np.ascontiguousarray(rows, dtype=np.float32))
        return Understood(points, None, f"points of {points.shape[1]} column(s)")
    if x.ndim == 3 and x.dtype.kind == "f":
        if x.shape[1] == 1:
            return of_sounds(x)
        low, high = float(x.min()), float(x.max())
        if range_of_images(low, high, whole=False) and not (grey := of_images(x[:, None], "grey")).changed:
            return grey
        if low >= 0 and high <= BYTES[1]:
            raise ValueError(
                f"floats of the shape {x.shape[1:]}, none below 0, may be grey images off the grid of 256 levels, or"
                " series (C, T): give images as (N, 1, H, W), or say series=True"
            )
        return of_series(x)
    if x.ndim == 3:
        return of_images(x[:, None], "grey")
    if x.ndim == 4:
        first, last = x.shape[1] in (1, 3), x.shape[3] in (1, 3)
        if not (first or last):
            raise ValueError(
                f"images have 1 or 3 channels, first or last, but these are {x.shape[1:]}: leave an alpha channel out"
            )
        return of_images(x if first else np.moveaxis(x, 3, 1), "channels first" if first else "channels last")
    raise ValueError(
        f"data of the shape {x.shape[1:]} are none that a model is for: images (H, W, C), sounds (1, T), points (D,)"
    )


def parts(x: np.ndarray) -> Iterator[slice]:
    """Rows that are computed with at once: of all of them what lies between would take many times their memory."""
    number = max(1, AT_ONCE * len(x) // x.size)
    yield from (slice(first, first + number) for first in range(0, len(x), number))


def range_of_images(low: float, high: float, whole: bool) -> ValueRange | None:
    """The range of images, of bytes or whole numbers or of floats, that span from `low` to `high`; None of no images.

    Floats a hair outside were interpolated, and those of at most 2 that no range has are bytes of nobody's.
    """
    hair, ranges = (0.0, (UNIT, BYTES)) if whole else (HAIR, (UNIT, SYMMETRIC, BYTES))
    found = next((known for known in ranges if known[0] - hair <= low and high <= known[1] + hair), None)
    return None if found == BYTES and not whole and high <= 2 else found


def of_images(x: np.ndarray, layout: str) -> Understood:
    """Images (N, C, H, W) of whatever range, as levels."""
    low, high = float(x.min()), float(x.max())
    whole = x.dtype.kind != "f"
    if (found := range_of_images(low, high, whole)) is None:
        raise ValueError(
            "images are bytes, or floats in [0, 1], [−1, 1] or [0, 255], but these have values in"
            f" {in_words((low, high))}: undo any normalisation"
            + (", or give sounds and series as floats" if whole else "")
        )
    if whole and found == BYTES:
        levels, off = x.astype(np.uint8), 0.0
    else:
        levels, off = np.empty(x.shape, np.uint8), 0.0
        for some in parts(x):
            scaled = (x[some].astype(np.float64) - found[0]) * (255 / (found[1] - found[0]))
            levels[some] = np.rint(scaled).clip(0, 255)
            off = max(off, float(np.abs(scaled - levels[some]).max()))
    binary = bool(((levels == 0) | (levels == 255)).all())
    stored = torch.from_numpy(np.ascontiguousarray(levels // 255 if binary else levels))
    kind = "bytes" if whole and found == BYTES else f"in {in_words(found)}"
    said = f"images {tuple(stored.shape[1:])}, {kind}, {layout}, of {2 if binary else 256} levels"
    changed = f"the images' values are rounded to 256 levels, by up to {off:.2g} of one" if off > ROUNDING else ""
    return Understood(stored, 2 if binary else 256, said, changed)


def of_sounds(x: np.ndarray) -> Understood:
    """Sounds (N, 1, T), on the values of mu-law codes."""
    low, high = float(x.min()), float(x.max())
    if low < -1 or high > 1:
        raise ValueError(
            f"sounds are in [−1, 1], but these have values in {in_words((low, high))}: divide them by their largest;"
            " or say series=True, if they are series of one channel"
        )
    stored = torch.from_numpy(np.array(x, dtype=np.float32, order="C"))
    for some in parts(x):
        quantised = from_codes(to_codes(stored[some], SOUND_LEVELS, "waveform"), SOUND_LEVELS, "waveform")
        stored[some] = torch.where(sounding(stored[some], SOUND_LEVELS), quantised, 0.0)
    return Understood(stored, SOUND_LEVELS, f"sounds of {x.shape[2]} samples, on {SOUND_LEVELS} mu-law codes")


def of_series(x: np.ndarray) -> Understood:
    """Series (N, C, T), C numbers at each of T times, as they are: models want them of about unit variance."""
    stored = torch.from_numpy(np.ascontiguousarray(x, dtype=np.float32))
    mean, std = float(x.mean()), float(x.std())
    said = (
        f"series of {x.shape[1]} channel(s) at {x.shape[2]} times, as they are (mean {mean:.3g}, deviation {std:.3g})"
    )
    return Understood(stored, None, said)


# ------------------------------------------------------------------------------------------------------- labels


def class_label(x: Any, label: str | None) -> Sequence[str] | None:
    """The names of the classes, where a data set of Hugging Face's states them (`ClassLabel`)."""
    features = getattr(x, "features", None)
    return getattr(features[label], "names", None) if features and label in features else None


def classes_of(labels: np.ndarray, name: str, names: Sequence[str] | None) -> tuple[Tensor, Sequence[str]]:
    """The number of each row's class, int64 (N,), and what the classes are called, if anything.

    Args:
        labels: (N,), text or whole numbers from 0 on.
        name: of their column.
        names: what the numbers stand for, where that is known.

    Raises:
        ValueError: if they are no classes.
    """
    if labels.ndim != 1:
        raise ValueError(
            f"labels are one to a row, (N,), but {name!r} is {labels.shape}: of one-hot labels give the argmax"
        )
    if labels.dtype.kind in TEXT:
        if missing := int((np.char.strip(labels) == "").sum()):
            raise ValueError(f"{missing} of {len(labels)} rows have no label in {name!r}: leave them out")
        found = sorted(set(labels.tolist()), key=natural)
        numbers = {one: number for number, one in enumerate(found)}
        return check_classes(torch.tensor([numbers[one] for one in labels.tolist()]), name), found
    if labels.dtype.kind == "f":
        whole = np.isfinite(labels) & (np.rint(labels) == labels)
        if not whole.all():
            raise ValueError(f"labels are whole numbers, or names, but {name!r} holds {shown(labels[~whole][0])}")
    return check_classes(torch.from_numpy(labels.astype(np.int64)), name), tuple(names or ())


def check_classes(numbers: Tensor, name: str) -> Tensor:
    """The numbers; ValueError if they count no classes."""
    low, high = int(numbers.min()), int(numbers.max())
    if low < 0 or high >= MOST_CLASSES:
        raise ValueError(
            f"labels number classes from 0 on, up to {MOST_CLASSES - 1:,}, but {name!r} goes from {low} to {high}"
        )
    return numbers
