"""From an entry, or a checkpoint, to a model: verified, rebuilt out of a fixed table of classes, never unpickled."""

import hashlib
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genzoo.zoo.hub.addresses import resolve
from genzoo.zoo.hub.entries import CONFIG, WEIGHTS, read_config

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule


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
    state = read_weights(folder / WEIGHTS, config["weights"]["sha256"])
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


def read_weights(path: Path, sha256: str) -> dict[str, Any]:
    """The tensors of a safetensors file whose SHA-256 is the one given; ValueError if it is not."""
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

    from genzoo.zoo.hub.building import build, model_classes

    path, arguments = block["class_path"], block.get("init_args") or {}
    # How it was trained is on record in the file, but none of that is built: it names optimiser classes.
    kept = {k: v for k, v in arguments.items() if not k.endswith(("optimizer", "lr_scheduler"))}
    classes = model_classes(allow)
    if path in classes and not issubclass(classes[path], LightningModule):
        raise ValueError(f"{path} is no model, but a part of one")
    stated = {"_class_path": path, **arguments}
    with _given_hyperparameters_context(stated, "lightning.pytorch.cli.instantiate_module"):
        return build({"class_path": path, "init_args": kept}, classes)
