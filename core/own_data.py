"""A user's own files and rows as data of a model: found, read one after another, and fitted to the model's shape.

| the model's data | files | rows |
|---|---|---|
| images | whatever Pillow reads; as `ImageFolderDataModule` fits them, rounded to the model's levels | .npy |
| sounds | as `AudioDataModule` reads them: the first T samples, at the model's rate | .npy |
| texts | UTF-8, of any length, where the model has a vocabulary | .npy of tokens |
| points | | .csv, .parquet, .npy |
| series | | .npy |

Nothing is held but the datum at hand. What cannot be read is no error: it is handed on with the reason why.
"""

import csv
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from genzoo.arguments import note
from genzoo.datamodules.audio import at_once, read_sound, sound_suffixes
from genzoo.datamodules.columns import delimiter_of, is_number, load_npy, rows_of
from genzoo.datamodules.files import FileSearch
from genzoo.datamodules.folder import decode, image_suffixes, natural
from genzoo.datamodules.reading import each, with_bar
from genzoo.datamodules.text import read_text
from genzoo.zoo.files import at_home
from genzoo.zoo.media import rate_of
from genzoo.zoo.modality import check_data, modality, sounding, to_grid


@dataclass(frozen=True)
class Datum:
    """One of them."""

    #: the file; of a row also which, from 1 on: `table.npy:17`; in a .csv the line on which an editor has it
    name: str
    #: of the model's shape; None where it cannot be had
    x: Tensor | None = None
    #: why not
    why: str = ""
    #: of a text, its length in UTF-8
    num_bytes: int | None = None


class OwnData:
    """What a model takes of a user's files.

    Args:
        module: states `shape` and `levels`, of sounds perhaps `sample_rate`; of texts, it reads them by `tokens`.
        columns: the names of a table's columns that its data are; None: not known, so that they go by their place.

    Raises:
        ValueError: if it does not say what its data are.
    """

    def __init__(self, module: Any, columns: Sequence[str] | None = None) -> None:
        if getattr(module, "shape", None) is None:
            raise ValueError(f"{type(module).__name__} does not say what its data are: it has no `shape`")
        self.module, self.shape, self.levels = module, tuple(module.shape), module.levels
        self.columns = columns
        self.kind = modality(self.shape, self.levels)
        self.reads_text = self.kind == "tokens" and getattr(module, "vocabulary", None) is not None
        self.tables = {".npy"} if self.reads_text else set(READERS)  # a .csv is a text, too
        self.rate = rate_of(module)
        self.num_cut = 0  # sounds that go on beyond the model's length

    def say(self) -> None:
        """Notes how data are fitted, where that is not to be expected."""
        if self.kind == "image" and self.levels not in (None, 256):
            note(f"images are rounded to the model's {self.levels} levels")
        if self.kind == "waveform" and getattr(self.module, "sample_rate", None) is None:
            note(f"the model does not say at which rate its sounds are: they are read at {self.rate:,} Hz")

    # ---- finding

    def find(self, paths: Sequence[str]) -> list[Path]:
        """The files that are named, and those below the folders, each once and there in natural order.

        Raises:
            FileNotFoundError: if there is no such file or folder, or nothing in it that the model takes.
        """
        found: list[Path] = []
        for path in map(existing, paths):
            if not path.is_dir():
                found.append(path)
                continue
            rows = tuple(READERS)
            kinds = {"image": image_suffixes(), "waveform": sound_suffixes(), "points": rows, "series": rows}
            search = FileSearch(kinds.get(self.kind))  # of a text any may be
            below = search.below(path).values()
            left = search.in_words()
            if not below:
                what = {"image": "image", "waveform": "sound", "points": "table", "tokens": "text"}.get(
                    self.kind, "table"
                )
                raise FileNotFoundError(f"there is no {what} in {path}" + (f". There are: {left}" if left else ""))
            if left:
                note(f"{path}: {search.num_found} files are read. Left out: {left}")
            found += sorted(below, key=lambda file: natural(str(file)))
        return list(dict.fromkeys(found))

    # ---- reading

    def read(self, files: Sequence[Path], what: str) -> Iterator[Datum]:
        """Each datum of the files, in their order.

        Args:
            files: as `find` found them.
            what: what the bar says.
        """
        tables = [path for path in files if path.suffix.lower() in self.tables]
        alone = [path for path in files if path.suffix.lower() not in self.tables]
        most = at_once(alone) if self.kind == "waveform" else None
        for path, raw in zip(alone, each(self.attempt, alone, what, most=most), strict=True):
            yield self.datum(str(path), raw, self.fitted)
        for path in tables:
            try:
                rows, count = table(path, columns=self.columns)
            except ValueError as error:
                yield Datum(str(path), why=str(error))
                continue
            for number, values in with_bar(rows, count, what):
                yield self.datum(f"{path}:{number}", values, self.row)

    def attempt(self, path: Path) -> Any:
        """What a file holds, before it is fitted; or the error that it is."""
        try:
            return self.raw(path)
        except (ValueError, OSError) as error:
            return error

    def raw(self, path: Path) -> Any:
        """What a file holds, as it is read in a process that knows nothing of the model.

        Raises:
            OSError: if it cannot be opened.
            ValueError: if it cannot be read, or is none that the model takes.
        """
        if self.kind == "image":
            if self.shape[0] not in (1, 3):
                raise ValueError(f"a file has 1 or 3 channels, but the model's images have the shape {self.shape}")
            return decode(path, self.shape)
        if self.kind == "waveform":
            return read_sound(path, self.rate).numpy()
        if self.reads_text:
            return read_text(path)
        if self.kind == "tokens":
            raise ValueError("the model has no vocabulary, and reads no text: give a .npy of tokens")
        if self.kind == "series":
            raise ValueError(f"the model's data are series {self.shape}: give a .npy of them")
        raise ValueError(f"the model's data are rows of {self.shape[0]} numbers: give a .csv, .parquet or .npy")

    def datum(self, name: str, raw: Any, fit: Callable[[Any], Tensor]) -> Datum:
        """What was read, fitted; or why it was not."""
        if isinstance(raw, Exception):
            return Datum(name, why=str(raw))
        try:
            return Datum(name, fit(raw), num_bytes=len(raw.encode()) if isinstance(raw, str) else None)
        except (TypeError, ValueError) as error:
            return Datum(name, why=str(error))

    # ---- fitting

    def fitted(self, raw: Any) -> Tensor:
        """What a file held, of the model's shape.

        Raises:
            ValueError: if it is no datum of the model.
        """
        if self.kind == "tokens":
            return self.module.check(self.module.tokens(raw)[None])[0]
        if self.kind == "image":
            return self.row(raw)
        kept, length = torch.from_numpy(raw[: self.shape[1]]), self.shape[1]
        self.num_cut += len(raw) > length
        kept = to_grid(kept, self.levels, "waveform")
        return F.pad(kept, (0, length - len(kept)))[None]  # after its end a sound is 0

    def row(self, values: np.ndarray) -> Tensor:
        """A row of a table as a datum of the model: of its shape, in its range, on its levels.

        Args:
            values: of the shape that the model states; texts of any length; images as bytes, or in [0, 1]. Of a model
                of two levels bytes up to 1 are these.

        Raises:
            TypeError: if the numbers are of a kind that it does not take.
            ValueError: if it is no datum of the model.
        """
        shape = values.shape if self.reads_text and values.ndim == 1 else self.shape
        if values.shape != shape:
            raise ValueError(f"it has the shape {values.shape}, but the model's data have {shape}")
        if self.kind == "tokens":
            x = torch.from_numpy(values.astype(np.int64) if values.dtype.kind in "iu" else values.astype(np.float32))
        else:
            grey = self.kind == "image" and values.dtype == np.uint8 and not (self.levels == 2 and values.max() <= 1)
            x = torch.from_numpy(np.divide(values, 255 if grey else 1, dtype=np.float32))
        check_data(x[None], shape, self.levels, set(), type(self.module).__name__, on_grid=False)
        if self.levels is None or self.kind == "tokens":
            return x
        on_grid = to_grid(x, self.levels, self.kind)
        return on_grid if self.kind == "image" else torch.where(sounding(x, self.levels), on_grid, 0.0)


def existing(path: str) -> Path:
    """The file or folder; FileNotFoundError if there is none."""
    found = at_home(path)
    if not found.exists():
        raise FileNotFoundError(f"there is no file or folder {path}")
    return found


# ---- tables

Rows = Iterator[tuple[int, np.ndarray | ValueError]]  # each row's number, and the row, or why it is none


def table(path: Path, *, columns: Sequence[str] | None = None, gaps: bool = False) -> tuple[Rows, int]:
    """The rows of a table, one after another, and how many there are, more or less.

    Args:
        path: of the file.
        columns: those that are asked for, in this order, where the file has names for its columns; None: all of them.
        gaps: whether an empty cell of text is NaN, as it is in files of other kinds; else its row is none.

    Raises:
        ValueError: naming it, if it cannot be read.
    """
    try:
        return READERS[path.suffix.lower()](path, columns, gaps)
    except (ValueError, OSError, EOFError, csv.Error) as error:
        raise ValueError(f"{path} cannot be used: {error}") from error


def places_of(columns: Sequence[str] | None, names: Sequence[str], path: Path) -> list[int]:
    """Where the columns that are asked for are among those of a file; those left out are noted.

    Raises:
        ValueError: if one of them is not there.
    """
    if columns is None:
        return list(range(len(names)))
    if missing := [name for name in columns if name not in names]:
        raise ValueError(f"its columns are {', '.join(names)}: the model's {', '.join(missing)} is not among them")
    if left := [name for name in names if name not in columns]:
        note(f"{path}: the model's data are the columns {', '.join(columns)}. Left out: {', '.join(left)}")
    return [names.index(name) for name in columns]


def from_csv(path: Path, columns: Sequence[str] | None, gaps: bool) -> tuple[Rows, int]:
    """Of text: commas, semicolons, tabs or bars between numbers.

    A first line without any number names the columns, and one with the name of a column that is asked for.
    """
    with path.open(encoding="utf-8-sig") as file:
        first, count = next((line for line in file if line.strip()), ""), sum(1 for _ in file)
    delimiter = delimiter_of(first, path)
    with path.open(newline="", encoding="utf-8-sig") as file:
        names = [name.strip() for name in next(rows_of(file, delimiter), (1, []))[1]]
    known = {name for name in columns or () if not is_number(name)}  # a year may name a column, and be a value
    asked = bool(columns) and set(columns or ()) <= set(names)
    header = any(names) and (not any(map(is_number, names)) or not known.isdisjoint(names) or asked)
    places = places_of(columns if header else None, names, path)
    otherwise = ": leave empty what is unknown" if gaps else ""

    def rows() -> Rows:
        with path.open(newline="", encoding="utf-8-sig") as file:
            below = not header
            for line, cells in lines(file, delimiter):
                if isinstance(cells, ValueError):
                    yield line, cells
                    continue
                if not below:
                    below = True
                    continue
                if header and len(cells) != len(names):
                    yield line, ValueError(f"it has {len(cells)} cells, the first line the names of {len(names)}")
                    continue
                if header:
                    cells = [cells[place] for place in places]
                if gaps:
                    cells = [cell if cell.strip() else "nan" for cell in cells]
                strange = next((cell for cell in cells if not is_number(cell)), None)
                what = f"{strange!r} is no number{otherwise}"
                yield line, np.array(cells, np.float64) if strange is None else ValueError(what)

    return rows(), count + (not header)


def lines(file: Iterable[str], delimiter: str) -> Iterator[tuple[int, list[str] | ValueError]]:
    """The rows of a .csv, by the lines that they begin in; at the end, why there are no more."""
    line = 0
    try:
        for line, cells in rows_of(file, delimiter):
            yield line, cells
    except ValueError as error:
        yield line + 1, error


def from_npy(path: Path) -> tuple[Rows, int]:
    """Of NumPy: along the first dimension; left on the disk but for the row at hand."""
    array = load_npy(path, mmap_mode="r")
    if array.ndim < 2 or array.dtype.kind not in "fiub":
        raise ValueError(f"it has the shape {array.shape} and {array.dtype}, but must be rows of numbers")
    return ((number, np.array(row)) for number, row in enumerate(array, start=1)), len(array)


def from_parquet(path: Path, columns: Sequence[str] | None, gaps: bool) -> tuple[Rows, int]:
    """Of Arrow: all columns must be of numbers, or with gaps of nothing; a gap is NaN."""
    if find_spec("pyarrow") is None:
        raise ValueError("it takes pyarrow to read it: pip install 'genzoo[parquet]'")
    from pyarrow import ArrowException, parquet, types

    try:
        file = parquet.ParquetFile(path)
    except ArrowException as error:
        raise ValueError(str(error)) from None
    names = file.schema_arrow.names
    places = places_of(columns, names, path)
    for column in map(file.schema_arrow.field, places):
        of_numbers = any(of(column.type) for of in (types.is_integer, types.is_floating, types.is_boolean))
        if not (of_numbers or (gaps and types.is_null(column.type))):
            raise ValueError(f"its column {column.name!r} is of {column.type}, and not of numbers: leave it out")

    def rows() -> Iterator[np.ndarray | ValueError]:
        try:
            for batch in file.iter_batches():
                chosen = [batch.columns[place].to_numpy(zero_copy_only=False).astype(np.float64) for place in places]
                yield from np.stack(chosen, 1)
        except (ArrowException, OSError) as error:
            yield ValueError(f"it cannot be read from here on: {error}")

    return enumerate(rows(), start=1), file.metadata.num_rows


READERS: dict[str, Callable[..., tuple[Rows, int]]] = {
    ".csv": from_csv,
    ".tsv": from_csv,
    ".npy": lambda path, *_: from_npy(path),  # whose columns have no names, and whose gaps are NaN already
    ".parquet": from_parquet,
}
