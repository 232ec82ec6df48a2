"""What an entry's files may say: here they are read and checked, and nowhere else.

An entry comes from anybody. So its files are small, shallow and plain before anything looks at them, and have the
form that genzoo gives them before anything uses them. What does not fit is a ValueError of one line.
"""

import json
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from genzoo.zoo.hub.wording import one_line, shortened
from genzoo.zoo.lines import is_line
from genzoo.zoo.naming import MOST_CLASSES, MOST_COLUMNS

CONFIG_BYTES, METRICS_BYTES = 8 * 2**20, 2**20  # of the whole file; a vocabulary is the longest that either holds
VALUES, DEPTH = 20_000, 32  # of a file, and how deep they are nested: genzoo's have some hundred, 6 deep
TOO_MUCH = f"it has more than {VALUES:,} values, or is nested more than {DEPTH} deep"
DIMENSIONS = 2**22  # of one datum: an image of 1182 × 1182 pixels in colour, 95 s of sound

NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)*")
SECTIONS = ("description", "data", "limits", "licence", "spdx")  # of the card; the last is a licence's identifier
StoredAs = Literal["float32", "float16", "bfloat16", "int8"]  # how weights are, in an entry's file (`storage.py`)
DTYPES = get_args(StoredAs)


# ------------------------------------------------------------------------------------------------------- reading


def read_yaml(path: Path, *, own: bool = False) -> Any:
    """What a YAML file says.

    Args:
        path: of the file.
        own: whether a person may have written it, for whom YAML has more to offer than genzoo makes use of.

    Raises:
        ValueError: it is damaged, or larger, deeper or more cunning than any that genzoo writes.
    """
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the same in C, where PyYAML was built with it
    text, depth = _text(path, CONFIG_BYTES), 0
    try:
        for number, event in enumerate(yaml.parse(text, loader)):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if number > VALUES or depth > DEPTH:
                raise ValueError(TOO_MUCH)
            if isinstance(event, yaml.AliasEvent) and not own:
                raise ValueError("genzoo writes no aliases, with which a small file grows without end")
            if (tag := getattr(event, "tag", None)) is not None:
                raise ValueError(f"the tag {shortened(tag)} would make more of a value than it is: leave it out")
        value = yaml.load(text, loader)
        _check_plain(value, strict=not own)
    except (yaml.YAMLError, ValueError) as error:
        raise _damaged(path, error) from None
    return value


def read_json(path: Path) -> Any:
    """What a JSON file says; ValueError as in `read_yaml`."""
    text = _text(path, METRICS_BYTES)
    try:
        value = json.loads(text)
        _check_plain(value, strict=True)
    except RecursionError:
        raise _damaged(path, TOO_MUCH) from None
    except ValueError as error:
        raise _damaged(path, error) from None
    return value


def _text(path: Path, most: int) -> str:
    if (size := path.stat().st_size) > most:
        raise _damaged(path, f"it has {size:,} bytes, where {most:,} are the most")
    try:
        return path.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, reason: Exception | str) -> ValueError:
    return ValueError(one_line(f"{path} is damaged, or not written by genzoo: {reason}"))


def _check_plain(value: Any, *, strict: bool) -> None:
    """Raises ValueError for too many values, or too deep; if strict, for what YAML and JSON cannot both say.

    That is text in Unicode, finite numbers, true, false, null, lists, and mappings from text in one line.
    """
    stack, left = [(value, "", 0)], VALUES
    while stack:
        item, where, depth = stack.pop()
        if isinstance(item, dict | list):
            left -= len(item)
            if left < 0 or depth == DEPTH:
                raise ValueError(TOO_MUCH)
            if isinstance(item, list):
                stack += [(inner, f"{where}[{place}]", depth + 1) for place, inner in enumerate(item)]
            elif strict and not all(isinstance(key, str) and is_line(key) for key in item):
                raise ValueError(f"{where or 'it'} has a name that is no text in one line")
            else:
                stack += [(inner, f"{where}.{key}".lstrip("."), depth + 1) for key, inner in item.items()]
        elif strict:
            _check_leaf(item, where or "it")


def _check_leaf(item: Any, where: str) -> None:
    if isinstance(item, str):
        item.encode()  # half a surrogate pair has no code; that error is a ValueError
    elif isinstance(item, int):
        if not -(2**63) <= item < 2**63:
            raise ValueError(f"{where} is a whole number of more than 64 bits")
    elif not (item is None or (isinstance(item, float) and math.isfinite(item))):
        raise ValueError(f"{where} is {shortened(item)}: neither text nor a finite number")


# ------------------------------------------------------------------------------------------------------ checking

Check = Callable[[Any, str], None]  # of a value that stands at a place; raises ValueError


def a(fits: Callable[[Any], bool], expected: str) -> Check:
    """A value of some kind."""

    def check(value: Any, where: str) -> None:
        if not fits(value):
            raise ValueError(f"{where} is {shortened(value)}, but must be {expected}")

    return check


def record(
    required: Mapping[str, Check], optional: Mapping[str, Check] | None = None, *, only: bool = False
) -> Check:
    """A mapping with the required values, and perhaps the optional ones; with `only`, it has no others."""
    known = {**required, **(optional or {})}

    def check(value: Any, where: str) -> None:
        place = f"{where}." if where else ""
        if not isinstance(value, dict):
            raise ValueError(f"{where or 'it'} is {shortened(value)}, but must be a mapping from names to values")
        if missing := [key for key in required if key not in value]:
            raise ValueError(f"{place}{missing[0]} is missing")
        if only and (unknown := [key for key in value if key not in known]):
            raise ValueError(f"{place}{unknown[0]} is unknown: there are {', '.join(known)}")
        for key in value.keys() & known.keys():
            known[key](value[key], place + key)

    return check


def nullable(of: Check) -> Check:
    """Such a value, or null."""
    return lambda value, where: None if value is None else of(value, where)


def every(item: Check, most: int = 1000) -> Check:
    """A list of such values."""

    def check(value: Any, where: str) -> None:
        if not isinstance(value, list) or len(value) > most:
            raise ValueError(f"{where} is {shortened(value)}, but must be a list of at most {most}")
        for number, member in enumerate(value):
            item(member, f"{where}[{number}]")

    return check


def whole(least: int, most: int) -> Check:
    """A whole number."""
    return a(
        lambda v: isinstance(v, int) and not isinstance(v, bool) and least <= v <= most,
        f"a whole number from {least:,} to {most:,}",
    )


def one_of(*choices: str) -> Check:
    """One of a few words."""
    return a(lambda v: isinstance(v, str) and v in choices, f"one of {', '.join(choices)}")


def like(pattern: str, expected: str) -> Check:
    """A text of some form."""
    return a(lambda v: isinstance(v, str) and re.fullmatch(pattern, v) is not None, expected)


NUMBER = a(lambda v: isinstance(v, int | float) and not isinstance(v, bool), "a number")
LINE = a(lambda v: isinstance(v, str) and is_line(v), "text in one line")
SHA256 = like(r"[0-9a-f]{64}", "64 hexadecimal digits")
PROSE = a(
    lambda v: isinstance(v, str) and is_line(v.replace("\n", "").replace("\t", "")),
    "text, without control characters",
)


def _shape(value: Any, where: str) -> None:
    every(whole(1, DIMENSIONS))(value, where)
    if not value or math.prod(value) > DIMENSIONS:
        raise ValueError(f"{where} is {shortened(str(value))}, but a datum has 1 to {DIMENSIONS:,} dimensions")


CLASS = {"class_path": like(r"[A-Za-z_][\w.]*", "a class's dotted name")}
ARGUMENTS = {"init_args": nullable(record({}))}
BLOCK = record(CLASS, ARGUMENTS, only=True)
#: also with the name, not the path, of the folder or file that the data were read from
DATA = record(CLASS, ARGUMENTS | {"hint": nullable(LINE)}, only=True)
CARD = record(
    {},
    dict.fromkeys(SECTIONS, PROSE) | {"spdx": like(r"[\w.+-]{1,40}", "a licence's identifier, like apache-2.0")},
    only=True,
)
CONFIG = record(
    {
        "genzoo": like(r"\d[\w.+-]{0,40}", "a version, like '0.1.0'"),
        "name": like(NAME.pattern, "a name, like mnist/vae"),
        "model": BLOCK,
        "weights": record(
            {
                "file": one_of("model.safetensors"),
                "sha256": SHA256,
                "dtype": one_of(*DTYPES),
                "parameters": whole(0, 2**48),
            }
        ),
    },
    {
        "data": nullable(DATA),
        "shape": nullable(_shape),
        "levels": nullable(whole(2, 2**31)),
        "num_classes": nullable(whole(1, 2**31)),
        "class_names": nullable(every(LINE, most=MOST_CLASSES)),
        "column_names": nullable(every(LINE, most=MOST_COLUMNS)),
        "card": nullable(CARD),
    },
)

COUNT = whole(0, 2**63 - 1)
#: what `evaluate` may be asked to do by an entry: plain figures, of which none is a path, an address or a class
EVALUATION = {
    "split": nullable(one_of("train", "val", "test")),
    "num_particles": nullable(whole(1, 100_000)),
    "num_likelihood": nullable(whole(1, 1_000_000)),
    "num_samples": nullable(whole(1, 1_000_000)),
    "num_odd": nullable(whole(0, 1_000_000)),
    "odd": nullable(every(LINE)),
    "extractor": nullable(LINE),
    "seed": nullable(COUNT),
}


def _environment(value: Any, where: str) -> None:
    record({}, dict.fromkeys(value, nullable(LINE)) if isinstance(value, dict) else {})(value, where)


FIGURE = record(
    {"name": LINE, "value": NUMBER, "unit": LINE},
    {
        "protocol": LINE,
        "split": LINE,
        "kind": one_of("exact", "lower_bound", "estimate"),
        "num_examples": COUNT,
        "standard_error": nullable(NUMBER),
        "floor": nullable(NUMBER),
        "floor_name": LINE,
        "floor_protocol": LINE,
        "floor_standard_error": nullable(NUMBER),
        "environment": _environment,  # if it is not that of the others
    },
)
TRAINING = record(
    {},
    {
        "recipe": nullable(LINE),
        "steps": nullable(COUNT),
        "seconds": nullable(a(lambda v: isinstance(v, int | float) and 0 <= v < 1e12, "a time in seconds")),
        "hardware": nullable(LINE),
        "precision": nullable(LINE),
        "seed": nullable(COUNT),
        "environment": nullable(_environment),
        "film": every(COUNT),
        "split_fingerprints": every(SHA256),
    },
)

METRICS = record(
    {},
    {
        "figures": every(FIGURE),
        "evaluation": record({}, EVALUATION),
        "training": TRAINING,
        "environment": _environment,
    },
)
#: what a run's configuration says of its `Publish`; where it published to is not gone back to
PUBLISHED = {
    "name": nullable(LINE),
    "recipe": nullable(LINE),
    "dtype": one_of(*DTYPES),
    "card": nullable(CARD),
    "num_samples": whole(1, 10_000),
    "seed": COUNT,
    "evaluation": nullable(record({}, EVALUATION)),
    "private": a(lambda v: isinstance(v, bool), "true or false"),
}


def checked(value: Any, form: Check, path: Path) -> dict[str, Any]:
    """The value, if it has the form; ValueError, naming the file that it was read from, if not."""
    try:
        form(value, "")
    except ValueError as error:
        raise _damaged(path, error) from None
    return value
