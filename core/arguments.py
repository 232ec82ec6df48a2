"""The arguments that several commands take, and what they mean."""

import inspect
import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable, Sequence
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

from genzoo.zoo.files import at_home

if TYPE_CHECKING:
    from lightning.pytorch import LightningDataModule, LightningModule

    from genzoo.zoo.hub import Entry

#: what every command takes for a model
MODEL = "an entry's name, folder or address; a checkpoint's file; or the folder of a run (its best checkpoint)"

#: those of `evaluate`'s arguments that a command line gives as they are, under the same names
PROTOCOL = ("split", "num_particles", "num_likelihood", "num_samples", "extractor", "weights_path", "num_odd", "seed")


def add_model(parser: ArgumentParser) -> None:
    """The model that a command is about."""
    parser.add_argument("model", help=MODEL)


def found(source: str) -> "Entry":
    """The entry or the checkpoint that an argument names; says which checkpoint it is of a run's folder."""
    from genzoo.zoo import hub
    from genzoo.zoo.hub.entries import EMBEDDED

    entry = hub.find(source)
    if not isinstance(entry, hub.Checkpoint) and entry.path.is_relative_to(EMBEDDED) and at_home(source).exists():
        note(f"{source} is the zoo's own entry; what is called so here is ./{source}")
    if isinstance(entry, hub.Checkpoint) and at_home(source).is_dir():
        note(f"of {source} it is {os.path.relpath(entry.path, at_home(source))}")
    return entry


def load(given: Namespace) -> "tuple[Entry, LightningModule]":
    """The entry or checkpoint that was asked for, and its model: on the device, and compiled if it is to be."""
    from genzoo.zoo import hub

    entry = found(given.model)
    module = hub.load_found(entry, allow=allowed(given)).to(device(given))
    if "compile" in given:
        compiled(module, given)
    return entry, module


def add_protocol(parser: ArgumentParser) -> None:
    """The arguments of `evaluate` that a command line can give."""
    add = parser.add_argument
    add_root(parser)
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
    add(
        "--weights_path",
        help="with inception the file of its weights (default: downloaded, whatever its run says)",
    )
    add(
        "--only",
        help="groups of figures alone, with commas between: likelihood,anomaly (default: as its run says, or all)",
    )
    add("--num_odd", type=int, help="usual and odd data that anomalies are told by, each (default: as published)")
    add(
        "--odd",
        help="what is odd: a datamodule (FashionMNISTDataModule), also with its own place (AudioDataModule:FOLDER); a"
        " folder of images; or ways to make odd images, with commas between: faint, erased, flipped, shuffled"
        " (default: as published)",
    )
    add("--seed", type=int, help="of all noise (default: as published)")
    add_machine(parser)


def add_root(parser: ArgumentParser) -> None:
    """What every command that reads data takes."""
    parser.add_argument(
        "--root", help="where the model's data lie, or are downloaded to (default: what the datamodule takes)"
    )


def add_machine(parser: ArgumentParser) -> None:
    """What every command that loads a model takes."""
    parser.add_argument("--device", help="cpu, cuda, … (default: a GPU, if there is one)")
    add_allow(parser)


def add_allow(parser: ArgumentParser) -> None:
    """What every command takes that builds a model, wherever it runs."""
    parser.add_argument(
        "--allow", action="append", default=[], help="a class of your own that is part of it: my_file.MyClass"
    )


def add_compile(parser: ArgumentParser) -> None:
    """What the commands take that run a model's networks often."""
    parser.add_argument(
        "--compile", action="store_true", help="compile the networks by torch.compile: worth it for long work alone"
    )


def compiled(module: "LightningModule", given: Namespace) -> None:
    """Compiles the networks, in place, if that was asked for; ValueError where it cannot be."""
    if given.compile:
        from genzoo.zoo.compiling import compile_networks

        names = compile_networks(module, device(given))
        note(f"compiling {', '.join(names)}: the first call of each takes a while")


def import_from_here() -> None:
    """Lets a recipe, or `--allow`, name a class in a file of the current folder.

    What is installed goes before: a folder called `safetensors`, in an entry that somebody else made, is not run.
    """
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())


def allowed(given: Namespace) -> tuple[type, ...]:
    """The classes that `--allow` names; they alone are imported by name, for it is the user who names them."""
    if given.allow:
        import_from_here()
    try:
        found = [resolve_name(path) for path in given.allow]
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"--allow {' '.join(given.allow)}: {error}") from None
    for path, named in zip(given.allow, found, strict=True):
        if not isinstance(named, type):
            raise ValueError(f"--allow {path}: that is no class; name one, like my_file.MyClass")
    return tuple(found)


def build_data(block: Any, given: Namespace, module: Any = None, *, own: bool = False) -> "LightningDataModule":
    """The datamodule that {class_path, init_args} states, with the data at `--root`, texts in the model's vocabulary.

    Where they lie otherwise, a block of the user's own may say; an entry's has no say in what is read or written, nor
    in how many processes and how much memory that takes.
    """
    from lightning.pytorch import LightningDataModule

    import genzoo.datamodules
    from genzoo.zoo.hub.building import build, by_path, exported
    from genzoo.zoo.hub.entries import MEANS, PLACES

    if not isinstance(block, dict) or "class_path" not in block:
        raise ValueError("it is not on record what data it is for (no `data:` in its configuration)")
    if not isinstance(block.get("init_args") or {}, dict):
        raise ValueError("it is damaged: the init_args of its data are no mapping")
    classes = {**exported(genzoo.datamodules), **by_path(allowed(given))}
    classes = {path: cls for path, cls in classes.items() if issubclass(cls, LightningDataModule)}
    path, options = str(block["class_path"]), dict(block.get("init_args") or {})
    path = path if "." in path else f"genzoo.datamodules.{path}"  # a recipe may use the bare name
    if not own and (stated := [place for place in PLACES if options.pop(place, None) is not None]):
        note(f"the entry's {stated[0]} is not heeded: --root says where the data are")
    options = {key: value for key, value in options.items() if own or key not in MEANS}
    taken = inspect.signature(classes[path]).parameters if path in classes else {}
    spoken = getattr(getattr(module, "vocabulary", None), "statement", "")
    if "vocabulary" in taken:  # a run's own recipe states "" for none
        options["vocabulary"] = options.get("vocabulary") or spoken
    table = Path(given.root or "").suffix.lower() in (".csv", ".tsv", ".parquet")  # which has names for its columns
    if table and "columns" in taken and not options.get("columns"):  # and may have more of them
        options["columns"] = list(getattr(module, "column_names", ())) or None
    place = "path" if "path" in taken and not options.get("source") else "root"  # a text of one's own has a path
    if given.root is not None and place in taken:
        options[place] = given.root
    elif place in taken and taken[place].default in (inspect.Parameter.empty, None) and place not in options:
        kept = f" (they were in {block['hint']!r} when it was trained)" if block.get("hint") else ""
        raise ValueError(f"its data are somebody's own{kept}: say with --root where they are")
    return build({"class_path": path, "init_args": options}, classes)


def data_of(entry: "Entry", given: Namespace, module: Any = None) -> "LightningDataModule":
    """The datamodule of an entry's data, or of those that a checkpoint was trained on; ValueError if unknown."""
    from genzoo.zoo.hub import Checkpoint

    data = build_data(entry.config.get("data"), given, module, own=isinstance(entry, Checkpoint))
    note_others(entry, data)
    return data


def note_others(entry: "Entry", data: "LightningDataModule") -> None:
    """Says so where the data are not those of the training, and so others than then are held out."""
    from genzoo.datamodules.base import OTHERS, differs

    if differs(entry.split_fingerprints, getattr(data, "split_fingerprint", None)):
        note(f"{entry.name}: {OTHERS}")


def stated_protocol(evaluation: dict[str, Any], given: Namespace, *, own: bool = False) -> dict[str, Any]:
    """What an entry, or a run's configuration, may ask of `evaluate`; says once what of it is not heeded.

    What a run (`own`) is measured by may also leave some figures out.
    """
    from genzoo.zoo.hub.entries import protocol_of

    taken, left = protocol_of(evaluation)
    if own and "only" in left:
        left.remove("only")
        taken["only"] = evaluation["only"]
        if not given.only:
            note(
                f"as its run says, of the figures these alone: {', '.join(map(str, taken['only']))} (--only: others)"
            )
    if left:
        options = "an extractor of your own: --extractor, the file of Inception's weights: --weights_path"
        note(f"not heeded of the published protocol: {', '.join(left)} ({options})")
    return taken


def not_over(out: Path, files: Iterable[Path], option: str = "--out") -> None:
    """Raises ValueError if a command would write over one of the files that it reads."""
    if out.exists() and any(file.exists() and out.samefile(file) for file in files):
        raise ValueError(f"{option} {out}: that is a file to be read, and would be lost; name another")


def note(message: str) -> None:
    """One line beside what a command prints."""
    from genzoo.zoo.hub.wording import one_line

    print(f"genzoo: note: {one_line(message)}", file=sys.stderr)


def protocol(given: Namespace, block: Any, module: Any = None, *, own: bool = False) -> dict[str, Any]:
    """The arguments of `evaluate` that were given on the command line; `block` states the model's data."""
    options = {name: value for name in PROTOCOL if (value := getattr(given, name)) is not None}
    if given.only:
        options["only"] = given.only.split(",")
    return options | ({"odd": odd_data(given, block, module, own=own)} if given.odd else {})


def odd_data(
    given: Namespace, block: Any, module: Any = None, *, own: bool = False
) -> "list[str] | LightningDataModule":
    """What `--odd` names: other data, in the form of those that `block` states; or else ways to make odd data.

    `Class:PLACE` are the data there, and a folder by itself is one of images. A class by itself has its data where
    `--root` says that the model's are, if its `root` is a place of several data sets and not the data's own folder.

    Raises:
        ValueError: if it is not said where the data are, or they are the model's own, of which nothing is odd.
    """
    import genzoo.datamodules
    from genzoo.metrics.anomalies import ODD
    from genzoo.zoo.hub.entries import MEANS, PLACES

    usual, (name, _, place) = given, given.odd.partition(":")
    options = {
        key: value for key, value in (block.get("init_args") or {}).items() if own or key not in PLACES + MEANS
    }
    if at_home(given.odd).is_dir() and given.odd not in ODD:
        shape: tuple[int, ...] = getattr(build_data(block, given, own=own), "shape", ())
        if len(shape) != 3 or shape[1] != shape[2]:
            raise ValueError(f"--odd {given.odd} is a folder of images, but the model's data have the shape {shape}")
        name, place = "ImageFolderDataModule", given.odd
        options |= {"channels": shape[0], "size": shape[1], "classes": None}
    elif "." not in name and name not in genzoo.datamodules.__all__:
        return given.odd.split(",")  # `evaluate` knows which ways there are
    takes = inspect.signature(getattr(genzoo.datamodules, name, object)).parameters
    options = {key: value for key, value in options.items() if key in takes}
    where = "path" if "path" in takes else "root"
    if place:
        options = {key: value for key, value in options.items() if key not in ("path", "root", "source")}
        options[where], given = place, Namespace(**{**vars(given), "root": None})
    elif where in takes and takes[where].default is inspect.Parameter.empty:
        raise ValueError(f"--odd {name} does not say which folder (--root is for the model's data): {name}:FOLDER")
    odd = build_data({"class_path": name, "init_args": options}, given, module, own=True)  # the user names it
    own_data = build_data(block, usual, module, own=own)
    if type(odd) is type(own_data) and odd.hparams and read_from(odd) == read_from(own_data):
        raise ValueError(f"--odd {usual.odd}: these are the model's own data, of which nothing is odd; name others")
    return odd


def read_from(data: "LightningDataModule") -> dict[str, Any]:
    """A datamodule's arguments, in which a folder is the same however it is written."""
    return {key: os.path.realpath(at_home(value)) if key == "root" else value for key, value in data.hparams.items()}


def device(given: Namespace) -> str:
    """The device asked for, or a GPU, or else the CPU; ValueError if it cannot be had."""
    import torch

    chosen = given.device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError) as error:  # torch raises the latter where it was built without CUDA
        raise ValueError(f"--device {chosen} cannot be used: {str(error).splitlines()[0]}") from None
    return chosen


def ready(out: str, option: str = "--out", suffixes: Sequence[str] = ()) -> Path:
    """The file that a command is to write at its end: its folder made now, before the work that it takes.

    Raises:
        ValueError: if no such file can be written, or its name ends otherwise.
    """
    path = at_home(out)
    if suffixes and path.suffix.lower() not in suffixes and not path.is_dir():
        raise ValueError(f"{option} {out}: this is written as {' or '.join(suffixes)}; name such a file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"{option} {out} cannot be written: {error}") from None
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise ValueError(
            f"{option} {out} is {'a folder' if path.is_dir() else 'nothing that may be written'}: name a file"
        )
    return path
