"""The zoo's entries: listing, finding, loading and publishing them.

An entry is a folder: `model.safetensors`, `config.yaml` (the model as the command line states it, the data's
contract, the weights' SHA-256, what a person said for the card), `metrics.json` (the measured figures),
`README.md` (the model card), `samples.png` and, where its training was filmed, `learning.png`. It has an address:
the name of an embedded entry, a folder, `hf://owner/name[@revision]`, `wandb://entity/project/artifact:alias`, or any
URL that fsspec opens.

Loading never unpickles, and builds only classes of genzoo, of torch.nn and those allowed by hand. PyTorch is
imported when a model is loaded or published, not before.
"""

import hashlib
import json
import re
import shutil
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml

from genzoo.version import __version__
from genzoo.zoo.card import SECTIONS, model_card
from genzoo.zoo.sources import CARD, CONFIG, LEARNING, METRICS, SAMPLES, WEIGHTS, check_address, fetch, staged, upload

if TYPE_CHECKING:
    from lightning.pytorch import LightningDataModule, LightningModule

EMBEDDED = Path(__file__).parent / "weights"
NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)*")


# ---------------------------------------------------------------------------------------------------- entries


@dataclass(frozen=True)
class Entry:
    """One entry of the zoo; its files are read when asked for."""

    name: str
    path: Path

    @property
    def config(self) -> dict[str, Any]:
        """What config.yaml holds: `genzoo`, `model`, `data`, `shape`, `levels`, `num_classes`, `weights`."""
        return read_config(self.path)

    @property
    def metrics(self) -> dict[str, Any]:
        """What metrics.json holds: `figures`, `evaluation`, `training`, `environment`; {} without it."""
        path = self.path / METRICS
        return json.loads(path.read_text("utf-8")) if path.is_file() else {}


def list_models(pattern: str = "*") -> list[Entry]:
    """The embedded entries whose names match `pattern` (as file names do: `mnist/*`), in natural order."""
    names = (path.parent.relative_to(EMBEDDED).as_posix() for path in EMBEDDED.glob(f"**/{CONFIG}"))
    return [Entry(n, EMBEDDED / n) for n in sorted(names, key=_natural) if fnmatchcase(n, pattern)]


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.findall(r"\d+|\D+", name)]


def read_config(folder: Path) -> dict[str, Any]:
    """The configuration of the entry in `folder`.

    Raises:
        FileNotFoundError: there is no entry.
        ValueError: the file is damaged, or was written by a newer genzoo.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise FileNotFoundError(f"{folder} is no entry of a zoo: it has no {CONFIG}")
    try:
        text = path.read_text("utf-8")
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text)):
            raise ValueError(
                f"{path} is damaged: genzoo writes no aliases, with which a small file grows without end"
            )
        config = yaml.safe_load(text)
        written, stated = config["genzoo"], (config["model"]["class_path"], config["weights"]["sha256"])
    except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged or not written by genzoo ({type(error).__name__}: {error})") from None
    if not all(isinstance(text, str) for text in (written, *stated)):
        raise ValueError(f"{path} is damaged: genzoo, class_path and sha256 must be text")
    if _release(written) > _release(__version__):
        raise ValueError(f"{path} was written by genzoo {written}, and this is {__version__}: pip install -U genzoo")
    return config


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])  # major, minor


# ---------------------------------------------------------------------------------------------------- finding


def resolve(source: str | Path, *, revision: str | None = None) -> Path:
    """The local folder of an entry, which is fetched first where `source` is remote.

    Args:
        source: A name, a folder or an address.
        revision: The branch, tag or commit of a Hugging Face repository.

    Raises:
        FileNotFoundError: no entry has that name, or the folder holds none.
        OSError: the address could not be reached.
        ValueError: the address is malformed, or a revision was given for what has none.
    """
    address = str(source)
    scheme, separator, _ = address.partition("://")
    if revision is not None and scheme != "hf":
        raise ValueError(f"revision={revision!r} goes with hf:// addresses only, not with {address}")
    if separator:
        folder = fetch(address, revision)
    elif isinstance(source, str) and (EMBEDDED / source / CONFIG).is_file() and NAME.fullmatch(source):
        folder = EMBEDDED / source
    elif Path(source).expanduser().is_dir():
        folder = Path(source).expanduser()
    else:
        names = [entry.name for entry in list_models()]
        close = get_close_matches(address, names, n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(close)}?" if close else f"the zoo has: {', '.join(names) or 'no entry'}."
        raise FileNotFoundError(f"{address!r} is neither an entry of the zoo nor a folder; {hint}")
    if not (folder / CONFIG).is_file() or not (folder / WEIGHTS).is_file():
        raise FileNotFoundError(f"{address} is no entry of a zoo: it must hold {CONFIG} and {WEIGHTS}")
    return folder


# ---------------------------------------------------------------------------------------------------- loading


def load(source: str | Path, *, revision: str | None = None, allow: tuple[type, ...] = ()) -> "LightningModule":
    """The model of an entry, verified, on the CPU and in eval mode.

    Args:
        source: A name (`mnist/vae`), a folder, or an address (`hf://owner/name[@revision]`,
            `wandb://entity/project/artifact:version`, any URL that fsspec opens).
        revision: The branch, tag or commit of a Hugging Face repository.
        allow: Classes beyond genzoo's and torch.nn's that its configuration may name.

    Raises:
        FileNotFoundError: there is no such entry.
        OSError: it could not be fetched.
        ValueError: its files are damaged, do not fit together, or name a class that is not allowed.
    """
    folder = resolve(source, revision=revision)
    config = read_config(folder)
    state = _read_weights(folder / WEIGHTS, config["weights"]["sha256"])
    return _assemble(config["model"], state, allow, str(folder / WEIGHTS))


def load_checkpoint(path: str | Path, *, allow: tuple[type, ...] = ()) -> "LightningModule":
    """The model of a training checkpoint, rebuilt as carefully as that of an entry; on the CPU, in eval mode.

    Args:
        path: A file that ModelCheckpoint wrote.
        allow: Classes beyond genzoo's and torch.nn's that the model consists of.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no checkpoint of a model whose arguments are on record, or names other classes.
    """
    import pickle

    import torch

    if not zipfile.is_zipfile(path):  # raises nothing for a missing file
        Path(path).stat()
        raise ValueError(f"{path} is no checkpoint, or one that was cut short")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        arguments = dict(checkpoint["hyper_parameters"])
        block = {"class_path": arguments.pop("_class_path"), "init_args": arguments}
    except (pickle.UnpicklingError, KeyError) as error:
        raise ValueError(f"{path} does not say how its model was built ({type(error).__name__}: {error})") from None
    arguments.pop("_instantiator", None)
    return _assemble(block, checkpoint["state_dict"], allow, str(path))


def _assemble(
    block: Mapping[str, Any], state: dict[str, Any], allow: tuple[type, ...], origin: str
) -> "LightningModule":
    """Builds the model that `block` states and fills it with `state`, every key of it and no other."""
    import torch

    from genzoo.zoo.interface import ZooModule

    with torch.random.fork_rng(devices=[]):  # the initial weights are drawn, then overwritten
        model = _build_model(block, allow)
    if isinstance(model, ZooModule):
        state = model.with_later_buffers(state)
    expected = model.state_dict()
    for fault, keys in {
        "lacks": expected.keys() - state.keys(),
        "has, unknown to the model,": state.keys() - expected.keys(),
        "has in another shape": {k for k in expected.keys() & state.keys() if expected[k].shape != state[k].shape},
    }.items():
        if keys:
            shown = ", ".join(sorted(keys)[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")
            raise ValueError(f"{origin} does not fit {block['class_path']}: it {fault} {shown}")
    model.load_state_dict(state, strict=True)  # half precision on disk becomes the model's own
    return model.eval()


def _read_weights(path: Path, sha256: str) -> dict[str, Any]:
    from safetensors import SafetensorError
    from safetensors.torch import load as deserialise

    data = path.read_bytes()  # hashed and parsed from the same bytes
    if hashlib.sha256(data).hexdigest() != sha256:
        raise ValueError(f"{path} is not what {CONFIG} says: its SHA-256 differs; it was cut short or changed")
    try:
        return deserialise(data)
    except SafetensorError as error:
        raise ValueError(f"{path} is no safetensors file: {error}") from None


def _build_model(block: Mapping[str, Any], allow: tuple[type, ...]) -> "LightningModule":
    from lightning.pytorch import LightningModule
    from lightning.pytorch.core.mixins.hparams_mixin import _given_hyperparameters_context

    from genzoo.zoo.build import build, model_classes

    path, arguments = block["class_path"], block.get("init_args") or {}
    # How it was trained is on record in the file, but none of that is built: it names optimiser classes.
    kept = {k: v for k, v in arguments.items() if not k.endswith(("optimizer", "lr_scheduler"))}
    classes = model_classes(allow)
    if path in classes and not issubclass(classes[path], LightningModule):
        raise ValueError(f"{path} is no model, but a part of one")
    stated = {"_class_path": path, **arguments}
    with _given_hyperparameters_context(stated, "lightning.pytorch.cli.instantiate_module"):
        return build({"class_path": path, "init_args": kept}, classes)


# ------------------------------------------------------------------------------------------------- publishing


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
    dtype: Literal["float32", "float16", "bfloat16"] = "float32",
    allow: tuple[type, ...] = (),
) -> Path | str:
    """Makes an entry of a model: written aside, loaded back as a proof, then put in its place in one step.

    Args:
        module: The model, with the weights that are to be published.
        name: Its name, `<data>/<model>`.
        to: Where: a folder that becomes the entry, `hf://owner/name` or `wandb://entity/project/artifact`;
            None is the embedded zoo of this installation, where `load(name)` finds it. An entry there is
            replaced.
        data: The datamodule it was trained on, or its {class_path, init_args}.
        metrics: The contents of metrics.json.
        card: What the model card says about `description`, `data`, `limits` and `licence`.
        samples: A .png, .wav or .txt file to put beside the weights.
        learning: A .png file of samples through training, one row for each moment; the moments, in optimiser steps,
            are `metrics["training"]["film"]`.
        dtype: How the floating-point weights are stored. Loading casts them back.
        allow: Classes beyond genzoo's and torch.nn's that the model consists of.

    Returns:
        What `load` takes to load it: the folder, or the address.

    Raises:
        ValueError: the model cannot be stated in a file, or an argument is not right; nothing was written.
        OSError: the upload failed.
    """
    address = name if to is None else str(to)
    remote = "://" in address
    if not NAME.fullmatch(name):
        raise ValueError(f"name={name!r}: give letters, digits, '.', '_' and '-', in parts divided by '/': mnist/vae")
    if unknown := set(card or {}) - set(SECTIONS):
        raise ValueError(f"card has unknown sections {sorted(unknown)}; there are {', '.join(SECTIONS)}")
    if samples is not None and f"samples{Path(samples).suffix}" not in SAMPLES:
        raise ValueError(f"samples={str(samples)!r}: give a .png, .wav or .txt file")
    if learning is not None and Path(learning).suffix != ".png":
        raise ValueError(f"learning={str(learning)!r}: give a .png file")
    if remote:
        check_address(address, publishing=True)

    def write(folder: Path) -> None:
        config = {"genzoo": __version__, "name": name, **_describe(module, data)}
        config["weights"] = _write_weights(folder / WEIGHTS, module, dtype)
        config["card"] = dict(card or {})
        try:
            config = json.loads(json.dumps(config))  # plain values only, none of them shared
        except TypeError as error:
            raise ValueError(f"{type(module).__name__} has arguments that no file can state: {error}") from None
        stated = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
        (folder / CONFIG).write_text(stated, encoding="utf-8")
        measured = json.dumps(metrics or {}, indent=2, ensure_ascii=False)
        (folder / METRICS).write_text(measured + "\n", encoding="utf-8")
        loaded_by = address if remote or to is None else "path/to/this/folder"
        (folder / CARD).write_text(model_card(loaded_by, config, metrics or {}, card or {}), "utf-8")
        if samples is not None:
            shutil.copyfile(samples, folder / f"samples{Path(samples).suffix}")
        if learning is not None:
            shutil.copyfile(learning, folder / LEARNING)
        load(folder, allow=(type(module), *allow))

    if not remote:
        target = EMBEDDED / name if to is None else Path(to).expanduser()
        if target.exists() and not (target / CONFIG).is_file() and (target.is_file() or any(target.iterdir())):
            raise ValueError(f"{target} exists and is no entry of a zoo, so it is not replaced; choose another")
        with staged(target.absolute()) as staging:
            write(staging)
        return target
    with tempfile.TemporaryDirectory() as temporary:
        write(Path(temporary))
        return upload(Path(temporary), address)


def _describe(module: "LightningModule", data: "Mapping[str, Any] | LightningDataModule | None") -> dict[str, Any]:
    if unstated := getattr(module, "unstated", []):
        raise ValueError(
            f"{type(module).__name__} was given live modules for {', '.join(unstated)}, which no"
            " file can state; train it from a recipe that names their classes, or build them inside a class"
        )
    shape = getattr(module, "shape", None)
    return {
        "model": _stated(module),
        "data": None if data is None else _without_root(dict(data) if isinstance(data, Mapping) else _stated(data)),
        "shape": None if shape is None else list(shape),
        "levels": getattr(module, "levels", None),
        "num_classes": getattr(module, "num_classes", None),
    }


def _stated(built: Any) -> dict[str, Any]:
    """The {class_path, init_args} of a module or a datamodule, from the hyperparameters that it saved."""
    from genzoo.zoo.statement import class_path

    arguments = dict(built.hparams)
    arguments.pop("_instantiator", None)
    path = arguments.pop("_class_path", None) or class_path(type(built))
    return {"class_path": path, "init_args": arguments}


def _without_root(data: dict[str, Any]) -> dict[str, Any]:
    # where somebody keeps the data is no part of what they are
    arguments = data.get("init_args") or {}
    return {**data, "init_args": {key: value for key, value in arguments.items() if key not in ("root", "path")}}


def _write_weights(path: Path, module: "LightningModule", dtype: str) -> dict[str, Any]:
    import torch
    from safetensors.torch import save

    state = {}
    for key, value in module.state_dict().items():
        # only float32 is narrowed: tables that are kept in float64 are kept so for a reason
        stored = value.detach().cpu().to(getattr(torch, dtype) if value.dtype == torch.float32 else value.dtype)
        if not bool(torch.isfinite(stored).all()):
            raise ValueError(f"{key} holds NaN or infinite values as {stored.dtype}; these weights are not published")
        state[key] = stored.contiguous().clone()
    data = save(state)
    path.write_bytes(data)
    parameters = sum(p.numel() for p in module.parameters())
    digest = hashlib.sha256(data).hexdigest()
    return {"file": path.name, "sha256": digest, "dtype": dtype, "parameters": parameters}
