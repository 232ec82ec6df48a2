"""The arguments that several of the small commands take, and what they mean."""

import inspect
import os
import sys
from argparse import Namespace
from pathlib import Path
from pkgutil import resolve_name
from types import UnionType
from typing import TYPE_CHECKING, Any, Union, get_args, get_origin, get_type_hints

from genzoo.cli import import_from_here

if TYPE_CHECKING:
    from lightning.pytorch import LightningDataModule


def add_protocol(add: Any) -> None:
    """The arguments of `genzoo.callbacks.evaluate` that a command line can give."""
    add("--root", help="where the data lie, or are downloaded to (default: what the datamodule takes)")
    add(
        "--split",
        choices=["train", "val", "test"],
        help="the data to measure on (default: the published protocol)",
    )
    add("--num_particles", type=int, help="importance samples of a likelihood bound (default: as published)")
    add("--num_likelihood", type=int, help="data that the likelihood is measured on, spread over the split")
    add("--num_samples", type=int, help="samples that distances are measured on (default: as published)")
    add(
        "--extractor",
        help="the entry whose features give the distances, or inception (default: as published)",
    )
    add("--num_odd", type=int, help="usual and odd data that anomalies are told by, each (default: as published)")
    add(
        "--odd",
        help="what is odd: a datamodule (FashionMNISTDataModule), or ways to make odd images, with commas between:"
        " faint, erased, flipped, shuffled (default: as published)",
    )
    add("--seed", type=int, help="of all noise (default: as published)")
    add_machine(add)


def add_machine(add: Any) -> None:
    """What every command that loads a model takes."""
    add("--device", help="cpu, cuda, … (default: a GPU, if there is one)")
    add("--allow", action="append", default=[], help="a class of your own that is part of it: my_file.MyClass")


def allowed(given: Namespace) -> tuple[type, ...]:
    """The classes that `--allow` names; they alone are imported by name, for it is the user who names them."""
    import_from_here()
    try:
        found = [resolve_name(path) for path in given.allow]
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"--allow {' '.join(given.allow)}: {error}") from None
    for path, named in zip(given.allow, found, strict=True):
        if not isinstance(named, type):
            raise ValueError(f"--allow {path}: that is no class; name one, like my_file.MyClass")
    return tuple(found)


def keywords(settings: list[str], function: Any) -> dict[str, Any]:
    """What `--set name=value` gives a function: each value as the annotation of its parameter has it.

    Text stays as it is where text is taken; a list is made a tensor; an object is stated by its class's name
    (`solver=Heun`), or by {"class_path": ..., "init_args": {...}}.

    Raises:
        ValueError: for a name that the function does not take, or a value that it cannot be.
    """
    import torch
    from jsonargparse import ArgumentError, ArgumentParser

    taken = {} if function is None else dict(inspect.signature(function).parameters)
    free = sorted(set(taken) - {"num_samples", "generator"})
    given: dict[str, Any] = {}
    for setting in settings:
        name, equals, _ = setting.partition("=")
        if not equals or name not in free:
            raise ValueError(
                f"--set {setting}: give name=value; this model's `sample` takes {', '.join(free) or 'none'}"
            )
        try:
            hint = get_type_hints(function).get(name, Any)
        except NameError:  # annotations that do not resolve say nothing
            hint = Any
        kinds = alternatives(hint)
        read_as = str if str in kinds else list if torch.Tensor in kinds else hint
        parser = ArgumentParser(exit_on_error=False)
        parser.add_argument(f"--{name}", type=read_as)
        try:
            value = parser.instantiate(parser.parse_args([f"--{setting}"]))[name]
            given[name] = torch.tensor(value) if read_as is list else value
        except (ArgumentError, TypeError, ValueError):
            raise ValueError(f"--set {setting}: {name} must be {' or '.join(map(in_words, kinds))}") from None
    return given


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


def build_data(block: Any, given: Namespace, *, own: bool = False) -> "LightningDataModule":
    """The datamodule that {class_path, init_args} states, with the data at `--root`.

    Where they lie otherwise, a block of the user's own may say; an entry's has no say in what is read or written.
    """
    from lightning.pytorch import LightningDataModule

    import genzoo.datamodules
    from genzoo.zoo.hub.building import build, by_path, exported
    from genzoo.zoo.hub.entries import PLACES

    if not isinstance(block, dict) or "class_path" not in block:
        raise ValueError("it is not on record what data it is for (no `data:` in the configuration)")
    classes = {**exported(genzoo.datamodules), **by_path(allowed(given))}
    classes = {path: cls for path, cls in classes.items() if issubclass(cls, LightningDataModule)}
    path, options = str(block["class_path"]), dict(block.get("init_args") or {})
    path = path if "." in path else f"genzoo.datamodules.{path}"  # a recipe may use the bare name
    if not own and (stated := [place for place in PLACES if options.pop(place, None) is not None]):
        note(f"the entry's {stated[0]} is not heeded: --root says where the data are")
    taken = inspect.signature(classes[path]).parameters if path in classes else {}
    place = "path" if "path" in taken and not options.get("source") else "root"  # a text of one's own has a path
    if given.root is not None and place in taken:
        options[place] = given.root
    return build({"class_path": path, "init_args": options}, classes)


def stated_protocol(evaluation: dict[str, Any]) -> dict[str, Any]:
    """What an entry, or a run's configuration, may ask of `evaluate`; says once what of it is not heeded."""
    from genzoo.zoo.hub.entries import protocol_of

    taken, left = protocol_of(evaluation)
    if left:
        note(f"not heeded of the published protocol: {', '.join(left)}. An extractor of your own: --extractor")
    return taken


def note(message: str) -> None:
    """One line beside what a command prints."""
    from genzoo.zoo.hub.wording import one_line

    print(f"genzoo: note: {one_line(message)}", file=sys.stderr)


def protocol(given: Namespace, block: Any, *, own: bool = False) -> dict[str, Any]:
    """The arguments of `evaluate` that were given on the command line; `block` states the data."""
    names = ("split", "num_particles", "num_likelihood", "num_samples", "extractor", "num_odd", "seed")
    options = {name: value for name in names if (value := getattr(given, name)) is not None}
    return options | ({"odd": odd_data(given, block, own=own)} if given.odd else {})


def odd_data(given: Namespace, block: Any, *, own: bool = False) -> "list[str] | LightningDataModule":
    """What `--odd` names: other data, in the form of those that `block` states; or else ways to make odd data."""
    import genzoo.datamodules
    from genzoo.zoo.hub.entries import PLACES

    if "." not in given.odd and given.odd not in genzoo.datamodules.__all__:
        return given.odd.split(",")  # `evaluate` knows which ways there are
    takes = inspect.signature(getattr(genzoo.datamodules, given.odd, object)).parameters
    options = {
        name: value
        for name, value in (block.get("init_args") or {}).items()
        if name in takes and (own or name not in PLACES)
    }
    return build_data({"class_path": given.odd, "init_args": options}, given, own=own)


def device(given: Namespace) -> str:
    """The device asked for, or a GPU, or else the CPU; ValueError if it cannot be had."""
    import torch

    chosen = given.device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError) as error:  # torch raises the latter where it was built without CUDA
        raise ValueError(f"--device {chosen} cannot be used: {str(error).splitlines()[0]}") from None
    return chosen


def ready(out: str) -> Path:
    """The file that a command is to write at its end: its folder made now, before the work that it takes.

    Raises:
        ValueError: if no such file can be written.
    """
    path = Path(out)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"--out {out} cannot be written: {error}") from None
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise ValueError(
            f"--out {out} is {'a folder' if path.is_dir() else 'nothing that may be written'}: name a file"
        )
    return path
