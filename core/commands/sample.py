"""`genzoo sample`: what a model draws, as a picture, a sound or a text."""

import inspect
import re
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, Union, get_args, get_origin, get_type_hints

from genzoo.arguments import add_compile, add_machine, add_model, load, ready
from genzoo.errors import did_you_mean
from genzoo.zoo.files import at_home
from genzoo.zoo.hub.wording import blamed_on

if TYPE_CHECKING:
    from torch import Tensor

EXAMPLE = "genzoo sample mnist/vae --out grid.png"
SAYS = "draw samples of a model"
TABLES = (".csv", ".npy")  # what rows of numbers are written as, where asked for or where no picture shows them
SUFFIXES = {"waveform": ".wav", "tokens": ".txt"}  # what samples are written as that are no picture


def add_arguments(parser: ArgumentParser) -> None:
    """Of which model, how many, and how."""
    add = parser.add_argument
    add_model(parser)
    add("--num_samples", type=int, default=64, help="how many (default: 64)")
    add(
        "--out",
        help="the file (default: samples.png, or .wav, .txt or .csv where the model makes such; rows: also .npy)",
    )
    add("--seed", type=int, default=0, help="the same seed draws the same samples (default: 0)")
    add_settings(parser, "sample", "temperature=0.8, prompt='To be', labels=horse, labels='[3, 3, 7]', solver=Heun")
    add_compile(parser)
    add_machine(parser)


def add_settings(parser: ArgumentParser, method: str, examples: str) -> None:
    """What sets arguments of a method of the model's."""
    help = f"an argument of this model's own `{method}`: {examples}"
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help=help)


def run(given: Namespace) -> None:
    """Draws samples of a model and writes them as one picture, sound or text."""
    if given.num_samples < 1:
        raise ValueError(f"--num_samples {given.num_samples}: give 1 or more")
    from genzoo.zoo.media import Rows, rows_of, samples_of

    entry, module = load(given)
    names = getattr(module, "class_names", ())
    settings = keywords(
        given.set, getattr(module, "sample", None), ("num_samples", "generator"), names, given.num_samples
    )
    rows = as_rows(module, given.out)
    suffixes = tables_of(module) if rows else (SUFFIXES.get(getattr(module, "modality", "image"), ".png"),)
    out = at_home(given.out or f"samples{suffixes[0]}")
    if out.suffix.lower() not in suffixes:
        shown = (".png",) if getattr(module, "modality", None) == "series" else ()
        named = " or ".join(dict.fromkeys([*shown, *suffixes, *(tables_of(module) if is_of_rows(module) else ())]))
        raise ValueError(f"--out {out}: samples of {given.model} are written as {named}; name such a file")
    ready(str(out))
    with blamed_on(given.model):
        try:
            medium = (rows_of if rows else samples_of)(module, given.num_samples, given.seed, **settings)
        except TypeError as error:  # of a value that was given, and could be read, but is not what the model takes
            if not settings:
                raise
            raise ValueError(f"--set {' '.join(given.set)}: {error}") from error
    if medium is None:
        raise ValueError(f"{type(module).__name__} draws no samples, or none that can be shown")
    if isinstance(medium, Rows):
        medium.names = names_of_columns(entry, module)
        stated = (entry.config.get("data") or {}).get("init_args") or {}
        medium.label = stated["label"] if isinstance(stated.get("label"), str) else "class"
    medium.write(out)
    print(out)


def is_of_rows(module: Any) -> bool:
    """Whether a datum is numbers that no picture stands for: a row of a table, or a series."""
    return getattr(module, "modality", None) in ("points", "series")


def tables_of(module: Any) -> tuple[str, ...]:
    """What they are written as: a series, of several rows, has no place in a table."""
    return TABLES if len(module.shape) == 1 else (".npy",)


def names_of_columns(entry: Any, module: Any) -> list[str] | None:
    """What the columns of a table are called, where its data said so; of older models, where they were chosen so."""
    if named := getattr(module, "column_names", ()):
        return list(named)
    columns: Any = ((entry.config.get("data") or {}).get("init_args") or {}).get("columns")
    columns = columns if isinstance(columns, list) else []
    fitting = (len(columns),) == tuple(module.shape) and all(isinstance(name, str) for name in columns)
    return columns if fitting else None


def as_rows(module: Any, out: str | None) -> bool:
    """Whether samples are written as numbers: those of a table, which no picture shows; of others where asked for."""
    shown = tuple(module.shape) == (2,) or len(module.shape) == 2
    return is_of_rows(module) and (not shown or Path(out or "").suffix.lower() in TABLES)


def keywords(
    settings: list[str],
    function: Any,
    without: Sequence[str],
    class_names: Sequence[str] = (),
    num_labels: int = 1,
) -> dict[str, Any]:
    """What `--set name=value` gives a function: each value as the annotation of its parameter has it.

    Text stays as it is where text is taken; a list is made a tensor; an object is stated by its class's name
    (`solver=Heun`), or by {"class_path": ..., "init_args": {...}}; `labels` as `classes` reads them.

    Args:
        settings: as they were given.
        function: a method of the model's.
        without: its arguments that are no settings.
        class_names: of the classes 0, 1, …, where they have some.
        num_labels: how many `labels` one class stands for.

    Raises:
        ValueError: for a name that the function does not take, or a value that it cannot be.
    """
    import torch
    from jsonargparse import ArgumentError, ArgumentParser

    from genzoo.zoo.drawing import arguments_of

    taken = {} if function is None else arguments_of(function)
    free = sorted(set(taken) - {*without, "**"})
    given: dict[str, Any] = {}
    for setting in settings:
        name, equals, _ = setting.partition("=")
        if not equals or name not in free:
            raise ValueError(
                f"--set {setting}: give name=value; this model's `{getattr(function, '__name__', 'sample')}` takes"
                f" {', '.join(free) or 'none'}" + did_you_mean(name, free)
            )
        try:
            hint = get_type_hints(taken[name]).get(name, Any)
        except NameError:  # annotations that do not resolve say nothing
            hint = Any
        kinds = alternatives(hint)
        if name == "labels":
            given[name] = classes(setting.partition("=")[2], class_names, num_labels)
            continue
        read_as = str if str in kinds else list if torch.Tensor in kinds else hint
        parser = ArgumentParser(exit_on_error=False)
        parser.add_argument(f"--{name}", type=read_as)
        try:
            value = parser.instantiate(parser.parse_args([f"--{setting}"]))[name]
            given[name] = torch.tensor(value) if read_as is list else value
        except (ArgumentError, TypeError, ValueError):
            raise ValueError(f"--set {setting}: {name} must be {' or '.join(map(in_words, kinds))}") from None
    return given


def classes(text: str, names: Sequence[str], num_samples: int) -> "Tensor":
    """The labels that a command line states, int64.

    Args:
        text: one class, for all samples, or a list with one for each: by number, or by name.
        names: of the classes 0, 1, …, where they have some.
        num_samples: how many samples there are.

    Raises:
        ValueError: for a name that no class has.
    """
    import torch
    import yaml

    try:
        read = text if text in names else yaml.load(text, yaml.BaseLoader)  # which leaves text as it is
    except yaml.YAMLError:
        read = text
    members = [str(member) for member in (read if isinstance(read, list) else [read] * num_samples)]
    by_number = not (names and all(re.fullmatch(r"-?\d+", name) for name in names))  # or else a number is a name
    for one in members:
        if one not in names and not (by_number and re.fullmatch(r"-?\d+", one)):
            called = f"there are {', '.join(names)}" if names else "they have none: give numbers, like '[3, 3, 7]'"
            near = did_you_mean(one, names)
            raise ValueError(f"--set labels={text}: no class has the name {one!r}{near}; {called}")
    return torch.tensor([names.index(one) if one in names else int(one) for one in members])


def alternatives(annotation: Any) -> list[Any]:
    """The members of a union; None, which nobody needs to give, is left out."""
    kinds = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    return [kind for kind in kinds if kind is not type(None)]


def in_words(kind: Any) -> str:
    """What a value of a type looks like on a command line."""
    import torch

    import genzoo.zoo
    from genzoo.zoo.hub.building import exported

    if kind is torch.Tensor:
        return "a list of numbers, like '[3, 3, 7]'"
    choices = [str(choice) for choice in get_args(kind)]
    if inspect.isabstract(kind):
        choices = sorted({cls.__name__ for cls in exported(genzoo.zoo).values() if issubclass(cls, kind)})
    *most, last = choices or [{int: "a whole number", float: "a number"}.get(kind, str(kind))]
    return f"{', '.join(most)} or {last}" if most else last
