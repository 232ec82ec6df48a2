"""Named columns, each with a value for every row: read from a file, or from what Python has in memory.

A file and a data set of anybody's library come down to the same thing, a name and an array for each column; what the
arrays are good for is found out in `arrays.py`. What cannot be read is one line that says where it stands.
"""

import csv
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

SHOWN = 12  # names that a message has room for
NUMBERS, TEXT = "biuf", "U"  # NumPy's kinds
UNNAMED = "x"  # what the one column of a bare array is called
END = "\x03 the end of the table"  # a line of its own, unless a quote is open
LONGEST = 1000  # characters of a cell: no number has so many, and no class's name

Wanted = Callable[[Sequence[str]], Sequence[str]]  # of the names that there are, those whose columns are read


def listed(names: Iterable[str]) -> str:
    """Names in a message: the first few, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(map(repr, names[:SHOWN])) + more


# ------------------------------------------------------------------------------------------------------ in memory


def columns_of(data: Any, wanted: Wanted = list) -> dict[str, np.ndarray]:
    """The columns of data in memory, by name; of a bare array the one column "x".

    Args:
        data: a tensor or an array; a mapping from names to such; what has `column_names` (a data set of Hugging
            Face's `datasets`, a table of pyarrow's) or `columns` (a frame of pandas'), and gives a column by its
            name; or a `torch.utils.data.Dataset` of x, (x, y) or mappings.
        wanted: which of them; the others may hold whatever they like.

    Raises:
        TypeError: if it is none of these.
        ValueError: if its rows are not alike.
    """
    if isinstance(data, Tensor | np.ndarray):
        return {UNNAMED: as_array(data, UNNAMED)}
    names = getattr(data, "column_names", None)
    names = getattr(data, "columns", None) if names is None else names
    if names is None and hasattr(data, "to_numpy"):  # one column of a table, whose rows go by labels, not by place
        return {UNNAMED: as_array(data.to_numpy(), UNNAMED)}
    if isinstance(names, Mapping) or (
        isinstance(data, Mapping) and any(hasattr(v, "column_names") for v in data.values())
    ):
        raise ValueError(f"these are several data sets, {listed(data)}: give one of them")
    if isinstance(data, Mapping) or names is not None:
        called = {str(name): name for name in (data if names is None else names)}
        return {name: as_array(data[called[name]], name) for name in wanted(list(called))}
    if isinstance(data, list | tuple):
        return {UNNAMED: as_array(data, UNNAMED)}
    if not hasattr(data, "__getitem__") or not hasattr(data, "__len__"):
        raise TypeError(
            f"x is {type(data).__name__}: give a tensor, an array, a mapping from names to arrays, or a data set that"
            " has a length and gives its rows by number"
        )
    rows = [data[row] for row in range(len(data))]
    if rows and isinstance(rows[0], Mapping):
        called = {str(name): name for name in rows[0]}
        return {name: as_array([row[called[name]] for row in rows], name) for name in wanted(list(called))}
    if rows and isinstance(rows[0], tuple):
        return {name: as_array([row[k] for row in rows], name) for k, name in enumerate("xy"[: len(rows[0])])}
    return {UNNAMED: as_array(rows, UNNAMED)}


def as_array(values: Any, name: str) -> np.ndarray:
    """One column as an array, (N, …): numbers, or text.

    Raises:
        ValueError: if its rows have several shapes, or are neither numbers nor text throughout.
    """
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        return values.numpy() if values.dtype != torch.bfloat16 else values.float().numpy()
    if hasattr(values, "to_numpy"):  # a column of pyarrow's, pandas' or polars'
        values = values.to_numpy()
    if not isinstance(values, np.ndarray) or values.dtype.kind == "O":
        rows: list[np.ndarray] = []
        for number, value in enumerate(values, start=1):
            try:
                row = as_array(value, name) if isinstance(value, Tensor) else np.asarray(of_colours(value))
            except ValueError:  # a list of lists of several lengths
                raise ValueError(f"row {number} of {name!r} is ragged: its own parts differ in length") from None
            if row.dtype.kind not in NUMBERS + TEXT:
                raise ValueError(f"row {number} of {name!r} is {shown(value)}, which is neither a number nor text")
            first = rows[0] if rows else row
            if row.shape != first.shape:
                raise ValueError(
                    f"the rows of {name!r} are not alike: row 1 has the shape {first.shape}, row {number} {row.shape}"
                )
            if (row.dtype.kind in TEXT) != (first.dtype.kind in TEXT):
                raise ValueError(
                    f"{name!r} mixes numbers and text: row 1 is {shown(first)}, row {number} {shown(row)}"
                )
            rows.append(row)
        values = np.stack(rows) if rows else np.empty(0)
    if values.dtype.kind == "S":
        values = np.char.decode(values)
    if values.dtype.kind not in NUMBERS + TEXT:
        raise ValueError(f"{name!r} holds {values.dtype}: give numbers (of a date, such as days), or text")
    return values


def of_colours(value: Any) -> Any:
    """A picture of Pillow's that has a palette, in colours instead of places in it; transparency becomes white."""
    if getattr(value, "mode", None) not in ("P", "PA"):
        return value
    from PIL import Image

    white = Image.new("RGBA", value.size, "white")
    return Image.alpha_composite(white, value.convert("RGBA")).convert("RGB")


def shown(value: Any) -> str:
    """A value in a message."""
    text = str(value)
    return repr(text if len(text) < 30 else f"{text[:29]}…")


# --------------------------------------------------------------------------------------------------------- files


def read_file(path: Path, wanted: Wanted = list) -> dict[str, np.ndarray]:
    """The columns of a .npy, .npz, .csv, .tsv or .parquet file; the one array of a .npy file is called "x".

    Args:
        path: of the file.
        wanted: as of `columns_of`.

    Raises:
        FileNotFoundError: if there is no such file.
        ModuleNotFoundError: for Parquet without pyarrow.
        ValueError: if it is of another kind, or damaged.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path.resolve()}: pass as path the file that has the data")
    read = READERS.get(path.suffix.lower())
    if read is None:
        raise ValueError(f"{path} is none of the kinds that are read: {', '.join(READERS)}")
    if not path.stat().st_size:
        raise ValueError(f"{path} is empty: give a file with data")
    try:
        return read(path, wanted)
    except (ValueError, EOFError, OSError, zipfile.BadZipFile, csv.Error) as error:
        said = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{path} cannot be used: {said}") from error


def load_npy(path: Path, mmap_mode: Literal["r"] | None = None) -> np.ndarray:
    """An array from a file of NumPy's.

    Raises:
        ValueError: if it is none, not a whole one, or one of Python objects.
    """
    try:
        array: np.ndarray = np.load(path, mmap_mode=mmap_mode, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(
            "it is no file of an array, or not a whole one, or holds Python objects; write it anew by numpy.save"
        ) from error
    return array


def _read_npy(path: Path, wanted: Wanted) -> dict[str, np.ndarray]:
    array = load_npy(path)
    names = array.dtype.names
    return {name: as_array(array[name], name) for name in wanted(names)} if names else columns_of(array)


def _read_npz(path: Path, wanted: Wanted) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as arrays:
        return {name: as_array(arrays[name], name) for name in wanted(arrays.files)}


def _read_parquet(path: Path, wanted: Wanted) -> dict[str, np.ndarray]:
    try:
        from pyarrow.parquet import ParquetFile
    except ModuleNotFoundError:
        raise ModuleNotFoundError(f'{path}: Parquet is read by pyarrow: pip install "genzoo[parquet]"') from None
    with ParquetFile(path) as file:
        names = wanted(file.schema_arrow.names)
        return columns_of(file.read(columns=list(names)), lambda _: names)


def _read_csv(path: Path, wanted: Wanted) -> dict[str, np.ndarray]:
    """A header and rows of as many values; numbers where all of a column's values are, else text.

    Of a row no more is kept than what is wanted of it.
    """
    with path.open(encoding="utf-8-sig", newline="") as file:
        try:
            delimiter = delimiter_of(next((line for line in file if line.strip("\r\n")), ""), path)
            file.seek(0)
            rows = rows_of(file, delimiter)
            header = [name.strip() for name in next(rows, (1, []))[1]]
            chosen = wanted(header)
            misnamed = f"its first line must name the columns, each once, but is {listed(header)}"
            doubled = any(header.count(name) > 1 for name in chosen)
            if not all(chosen) or doubled or all(map(is_number, filter(None, header))):
                raise ValueError(misnamed)
            places = [header.index(name) for name in chosen]
            columns: list[list[str]] = [[] for _ in chosen]
            for line, row in rows:
                if len(row) != len(header):
                    raise ValueError(
                        f"line {line} has {len(row)} values, but the first line names {len(header)} columns"
                    )
                for column, place in zip(columns, places, strict=True):
                    column.append(row[place])
        except UnicodeDecodeError as error:
            with path.open("rb") as raw:
                number = next(number for number, line in enumerate(raw, start=1) if not is_utf8(line))
            raise ValueError(f"it is no text in UTF-8 ({error.reason} in line {number})") from None
    if not any(columns):
        raise ValueError("there is no row below the names of the columns")
    named = dict(zip(chosen, columns, strict=True))
    texts = [name for name in chosen if not is_number(name)]  # a year may name a column
    if (
        texts
        and len(texts) < len(header)
        and all(any(cell.strip() == name for cell in named[name]) for name in texts)
    ):
        raise ValueError(f"{misnamed}, and so a row like others")
    return {name: _numbers_or_text(cells, name) for name, cells in named.items()}


def rows_of(file: Iterable[str], delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """The rows of a .csv that are not empty: the line that each begins in, and its cells, of whatever length.

    Raises:
        ValueError: at the end, if a quote is never closed, so that all below it is no row of its own.
    """
    reader = csv.reader(chain(file, [END]), delimiter=delimiter)
    while True:
        line = reader.line_num + 1
        before = csv.field_size_limit(2**31 - 1)  # a cell that nobody asks for is in nobody's way
        try:
            cells = next(reader)
        finally:
            csv.field_size_limit(before)
        if cells == [END]:
            return
        if cells and cells[-1].endswith(END):
            raise ValueError(f"the quote that opens in line {line} is never closed, and has all that follows in it")
        if cells:
            yield line, cells


def _numbers_or_text(values: Sequence[str], name: str) -> np.ndarray:
    long = next((row for row, value in enumerate(values, start=1) if len(value) > LONGEST), None)
    if long is not None:  # NumPy would make all cells as long
        raise ValueError(
            f"row {long} of {name!r} has {len(values[long - 1]):,} characters, more than a number has, or the name of"
            " a class: choose other columns by `columns`"
        )
    text = np.array(values, dtype=str)
    try:
        return text.astype(np.int64)
    except (ValueError, OverflowError):
        try:
            return text.astype(np.float64)
        except ValueError:
            return np.char.strip(text)


def delimiter_of(line: str, path: Path) -> str:
    """What stands between the values of a table's first line: a comma, a semicolon, a tab or a bar; in a .tsv a tab.

    What is in quotes stands between nothing.
    """
    if path.suffix.lower() == ".tsv":
        return "\t"
    return max(",;\t|", key=re.sub(r'"[^"]*"', "", line).count)


def is_utf8(line: bytes) -> bool:
    """Whether it is text in UTF-8."""
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def is_number(text: str) -> bool:
    """Whether a cell holds a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True


READERS: dict[str, Callable[[Path, Wanted], dict[str, np.ndarray]]] = {
    ".npy": _read_npy,
    ".npz": _read_npz,
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".parquet": _read_parquet,
}
