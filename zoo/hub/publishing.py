"""From a model to an entry: written aside, loaded back as a proof, then put in its place in one step."""

import json
import os
import shlex
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from genzoo.version import __version__
from genzoo.zoo.files import at_home, staged
from genzoo.zoo.hub import entries
from genzoo.zoo.hub.addresses import check_address, upload
from genzoo.zoo.hub.card import model_card
from genzoo.zoo.hub.entries import (
    CARD,
    CONFIG,
    FILES,
    LEARNING,
    METRICS,
    NAME,
    PLACES,
    SAMPLES,
    WEIGHTS,
    Entry,
    file_of,
)
from genzoo.zoo.hub.loading import contract, load
from genzoo.zoo.hub.schema import DTYPES, SECTIONS, StoredAs
from genzoo.zoo.hub.tasks import name_of_place
from genzoo.zoo.hub.weights import write_weights
from genzoo.zoo.hub.wording import masked

if TYPE_CHECKING:
    from lightning.pytorch import LightningDataModule, LightningModule


def publish(
    module: "LightningModule",
    name: str,
    *,
    to: str | Path | None = None,
    data: "Mapping[str, Any] | LightningDataModule | None" = None,
    metrics: Mapping[str, Any] | None = None,
    card: Mapping[str, str] | None = None,
    samples: str | Path | None = None,
    learning: str | Path | None = None,
    dtype: StoredAs = "float32",
    allow: tuple[type, ...] = (),
    sending: Mapping[str, Any] | None = None,
) -> Path | str:
    """Makes an entry of a model: written aside, loaded back as a proof, then put in its place in one step.

    Args:
        module: The model, with the weights that are to be published.
        name: Its name, `<data>/<model>`.
        to: Where: a folder that becomes the entry, `hf://owner/name`, `wandb://entity/project/artifact`, or any URL
            that fsspec writes (`s3://bucket/name`); None is the embedded zoo of this installation, where `load(name)`
            finds it. An entry there is replaced; a folder that holds anything else is not.
        data: The datamodule it was trained on, or its {class_path, init_args}.
        metrics: The contents of metrics.json.
        card: What the model card says about `description`, `data`, `limits` and `licence`; and `spdx`,
            the identifier of the weights' licence (apache-2.0, mit, cc-by-4.0), of which there is none by default.
        samples: A .png, .wav or .txt file to put beside the weights.
        learning: A .png file of samples through training, one row for each moment; the moments, in optimiser steps,
            are `metrics["training"]["film"]`.
        dtype: How the floating-point weights are stored, see `storage`. Loading makes float32 of them.
        allow: Classes beyond genzoo's and torch.nn's that the model consists of.
        sending: Of a Hugging Face repository: whether one that is made is `private`, and the `commit_message`.

    Returns:
        What `load` takes to load it: the folder, or the address.

    Raises:
        ValueError: the model or its figures cannot be stated in a file, or an argument is not right; nothing was
            written.
        OSError: the address could not be reached, or the upload failed; the message says where the entry is kept.
    """
    check_name(name)
    if unknown := set(card or {}) - set(SECTIONS):
        raise ValueError(f"card has unknown sections {sorted(unknown)}; there are {', '.join(SECTIONS)}")
    if samples is not None and f"samples{Path(samples).suffix}" not in SAMPLES:
        raise ValueError(f"samples={str(samples)!r}: give a .png, .wav or .txt file")
    if learning is not None and Path(learning).suffix != ".png":
        raise ValueError(f"learning={str(learning)!r}: give a .png file")
    if dtype not in DTYPES:
        raise ValueError(f"dtype={dtype!r}: give one of {', '.join(DTYPES)}")
    address, target = name if to is None else str(to), None
    unreachable: OSError | None = None
    try:
        target = checked_target(name, to)
    except OSError as error:
        if "://" not in address:
            raise
        unreachable = error  # now; what was measured is kept, and sent later

    def write(folder: Path) -> None:
        config = {"genzoo": __version__, "name": name, **_describe(module, data)}
        config["weights"] = write_weights(folder / WEIGHTS, module, dtype)
        config["card"] = dict(card or {})
        config = _plain(config, f"{type(module).__name__} has arguments")  # plain values only, none of them shared
        stated = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
        (folder / CONFIG).write_text(stated, encoding="utf-8")
        measured = json.dumps(_plain(metrics or {}, "metrics holds values"), indent=2, ensure_ascii=False)
        (folder / METRICS).write_text(measured + "\n", encoding="utf-8")
        if samples is not None:
            shutil.copyfile(samples, folder / f"samples{Path(samples).suffix}")
        if learning is not None:
            shutil.copyfile(learning, folder / LEARNING)
        written, loaded_by = Entry(name, folder), address if target is None or to is None else "path/to/this/folder"
        (folder / CARD).write_text(model_card(masked(loaded_by), written.config, written.metrics), "utf-8")
        load(folder, allow=(type(module), *allow))

    if target is not None:
        with staged(target.resolve()) as staging:
            write(staging)
            check_replaceable(target)  # again, after all that time
        return target
    with tempfile.TemporaryDirectory() as temporary:
        write(Path(temporary))
        try:
            if unreachable is not None:
                raise unreachable
            return upload(Path(temporary), address, **(sending or {}))
        except OSError as error:
            kept = str(_kept(Path(temporary), name))
            again = ["genzoo", "publish", "--entry", kept, "--name", name, "--to", masked(address)]
            again += ["--private"] if (sending or {}).get("private") else []
            raise OSError(f"{error}. Nothing is lost: `{shlex.join(again)}` sends the entry again") from error


def _kept(entry: Path, name: str) -> Path:
    """A copy of an entry that could not be sent: in the current folder, or where files are temporary."""
    place = Path.cwd() if os.access(Path.cwd(), os.W_OK) else Path(tempfile.gettempdir())
    folder = Path(tempfile.mkdtemp(prefix=f"{name.replace('/', '-')}-unsent-", dir=place))
    return Path(shutil.copytree(entry, folder, dirs_exist_ok=True))


def republish(
    entry: Entry,
    name: str,
    *,
    to: str | Path | None = None,
    metrics: Mapping[str, Any] | None = None,
    allow: tuple[type, ...] = (),
    sending: Mapping[str, Any] | None = None,
) -> Path | str:
    """An entry as it is, under another name or at another address; or in its place, with other figures.

    Args:
        entry: whose weights, pictures and words are kept.
        name: the new entry's.
        to: as of `publish`, which also says what is raised.
        metrics: the contents of metrics.json; None keeps the entry's.
        allow, sending: as of `publish`.
    """
    config = entry.config
    return publish(
        load(entry.path, allow=allow),
        name,
        to=to,
        data=config.get("data"),
        metrics=entry.metrics if metrics is None else metrics,
        card=config.get("card"),
        samples=next(filter(None, (file_of(entry.path, sample) for sample in SAMPLES)), None),
        learning=file_of(entry.path, LEARNING),
        dtype=config["weights"]["dtype"],
        allow=allow,
        sending=sending,
    )


def _stated_value(value: Any) -> Any:
    """What JSON does not know of, such as a number of NumPy's, as a file states it; TypeError if it cannot."""
    from genzoo.zoo.statement import as_config  # which waits for PyTorch

    return as_config(value)


def check_replaceable(target: Path) -> None:
    """Raises ValueError if at `target` there is anything but an entry: its files, and no others."""
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    refusal = f"{target} exists and is no entry of a zoo, so it is not replaced; choose another"
    if not target.is_dir() or not (target / CONFIG).is_file() or not (target / WEIGHTS).is_file():
        raise ValueError(refusal)
    if foreign := sorted(path.name for path in target.iterdir() if path.name not in FILES or not path.is_file()):
        raise ValueError(f"{refusal} (of its files, {', '.join(foreign[:3])} would be lost)")
    if damage := Entry(target.name, target).damage:
        raise ValueError(f"{refusal} ({damage})")


def _plain(value: Any, what: str) -> Any:
    """A value as JSON gives it back; ValueError for what no file can state."""
    try:
        return json.loads(json.dumps(value, default=_stated_value))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{what} that no file can state: {error}") from None


def check_name(name: str) -> None:
    """ValueError if no entry can be called so."""
    if not NAME.fullmatch(name):
        raise ValueError(f"name={name!r}: give letters, digits, '.', '_' and '-', in parts divided by '/': mnist/vae")


def how_sent(private: bool, to: str | Path | None) -> dict[str, Any]:
    """What `publish` takes as `sending`; ValueError if nothing is private where it goes."""
    if private and not str(to).startswith("hf://"):
        raise ValueError(f"private is of a repository of Hugging Face's, hf://owner/name, which {to} is not")
    return {"private": True} if private else {}


def checked_target(name: str, to: str | Path | None) -> Path | None:
    """The folder that becomes the entry; None of an address.

    Raises:
        ValueError: where there can be none, or none of that name.
        OSError: the address could not be reached.
    """
    check_name(name)
    if to is not None and "://" in str(to) and not str(to).startswith("file://"):
        check_address(str(to), publishing=True)
        return None
    target = entries.EMBEDDED / name if to is None else at_home(str(to).removeprefix("file://"))
    check_replaceable(target)
    above = next(folder for folder in target.absolute().parents if folder.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise ValueError(f"{target} cannot be made: {above} is no folder that can be written to; choose another")
    return target


def _describe(module: "LightningModule", data: "Mapping[str, Any] | LightningDataModule | None") -> dict[str, Any]:
    if unstated := getattr(module, "unstated", []):
        raise ValueError(
            f"{type(module).__name__} was given live modules for {', '.join(unstated)}, which no"
            " file can state; train it from a recipe that names their classes, or build them inside a class"
        )
    return {
        "model": _stated(module),
        "data": None if data is None else _without_root(dict(data) if isinstance(data, Mapping) else _stated(data)),
        **contract(module),
    }


def _stated(built: Any) -> dict[str, Any]:
    """The {class_path, init_args} of a module or a datamodule, from the hyperparameters that it saved."""
    from genzoo.zoo.statement import class_path

    arguments = dict(built.hparams)
    arguments.pop("_instantiator", None)
    path = arguments.pop("_class_path", None) or class_path(type(built))
    return {"class_path": path, "init_args": arguments}


def _without_root(data: dict[str, Any]) -> dict[str, Any]:
    """Without where somebody keeps the data; the name of that folder or file stays, as a hint for its owner."""
    arguments = data.get("init_args") or {}
    kept = {**data, "init_args": {key: value for key, value in arguments.items() if key not in PLACES}}
    # a path is the data's own, where a root may be that of many
    name = next(filter(None, map(name_of_place, map(arguments.get, reversed(PLACES)))), None)
    return {**kept, "hint": name} if name else kept
