"""From a model to an entry: written aside, loaded back as a proof, then put in its place in one step."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml

from genzoo.version import __version__
from genzoo.zoo.files import staged
from genzoo.zoo.hub import entries
from genzoo.zoo.hub.addresses import check_address, upload
from genzoo.zoo.hub.card import SECTIONS, model_card
from genzoo.zoo.hub.entries import CARD, CONFIG, LEARNING, METRICS, NAME, SAMPLES, WEIGHTS
from genzoo.zoo.hub.loading import load

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
    if not NAME.fullmatch(name):
        raise ValueError(f"name={name!r}: give letters, digits, '.', '_' and '-', in parts divided by '/': mnist/vae")
    if unknown := set(card or {}) - set(SECTIONS):
        raise ValueError(f"card has unknown sections {sorted(unknown)}; there are {', '.join(SECTIONS)}")
    if samples is not None and f"samples{Path(samples).suffix}" not in SAMPLES:
        raise ValueError(f"samples={str(samples)!r}: give a .png, .wav or .txt file")
    if learning is not None and Path(learning).suffix != ".png":
        raise ValueError(f"learning={str(learning)!r}: give a .png file")
    if dtype not in ("float32", "float16", "bfloat16"):
        raise ValueError(f"dtype={dtype!r}: give float32, float16 or bfloat16")
    address, target = name if to is None else str(to), checked_target(name, to)

    def write(folder: Path) -> None:
        config = {"genzoo": __version__, "name": name, **_describe(module, data)}
        config["weights"] = write_weights(folder / WEIGHTS, module, dtype)
        config["card"] = dict(card or {})
        try:
            config = json.loads(json.dumps(config))  # plain values only, none of them shared
        except TypeError as error:
            raise ValueError(f"{type(module).__name__} has arguments that no file can state: {error}") from None
        stated = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
        (folder / CONFIG).write_text(stated, encoding="utf-8")
        measured = json.dumps(metrics or {}, indent=2, ensure_ascii=False)
        (folder / METRICS).write_text(measured + "\n", encoding="utf-8")
        loaded_by = address if target is None or to is None else "path/to/this/folder"
        (folder / CARD).write_text(model_card(loaded_by, config, metrics or {}, card or {}), "utf-8")
        if samples is not None:
            shutil.copyfile(samples, folder / f"samples{Path(samples).suffix}")
        if learning is not None:
            shutil.copyfile(learning, folder / LEARNING)
        load(folder, allow=(type(module), *allow))

    if target is not None:
        with staged(target.absolute()) as staging:
            write(staging)
        return target
    with tempfile.TemporaryDirectory() as temporary:
        write(Path(temporary))
        return upload(Path(temporary), address)


def checked_target(name: str, to: str | Path | None) -> Path | None:
    """The folder that becomes the entry; None of an address.

    Raises:
        ValueError: where there can be none.
    """
    if to is not None and "://" in str(to):
        check_address(str(to), publishing=True)
        return None
    target = entries.EMBEDDED / name if to is None else Path(to).expanduser()
    if target.exists() and not (target / CONFIG).is_file() and (target.is_file() or any(target.iterdir())):
        raise ValueError(f"{target} exists and is no entry of a zoo, so it is not replaced; choose another")
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


def write_weights(path: Path, module: "LightningModule", dtype: str) -> dict[str, Any]:
    """Writes the module's weights, and returns what config.yaml says of them; ValueError if some are not finite."""
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
