"""From an entry, or a checkpoint, to a model: verified, rebuilt out of a fixed table of classes, never unpickled."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genzoo.zoo.hub.addresses import find
from genzoo.zoo.hub.checkpoints import Checkpoint, read_checkpoint
from genzoo.zoo.hub.entries import CONFIG, WEIGHTS, Entry
from genzoo.zoo.hub.storage import Stored, as_stored
from genzoo.zoo.hub.weights import check_finite, check_fit, largest, read_header, read_weights
from genzoo.zoo.hub.wording import blamed_on, one_line
from genzoo.zoo.naming import NamingMixin

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule


#: how many times as long as its file the weights of a checkpoint can be, where layers share them
SHARED = 64


def load(source: str | Path, *, revision: str | None = None, allow: tuple[type, ...] = ()) -> "LightningModule":
    """The model of an entry or of a checkpoint, verified, on the CPU and in eval mode.

    Args:
        source: A name (`mnist/vae`), the folder of an entry, an address (`hf://owner/name[@revision]`,
            `wandb://entity/project/artifact:version`, any URL that fsspec opens), the file of a checkpoint, or the
            folder of a run: its best checkpoint, or its last where no figure was monitored.
        revision: The branch, tag or commit of a Hugging Face repository.
        allow: Classes beyond genzoo's and torch.nn's that its configuration may name.

    Raises:
        FileNotFoundError: there is no such entry, checkpoint or run.
        OSError: it could not be fetched.
        ValueError: its files are damaged, do not fit together, or name a class that is not allowed.
    """
    import torch

    found = find(source, revision=revision)
    with torch.inference_mode(False):  # a model may have to be differentiated by its data, whoever loads it where
        if isinstance(found, Checkpoint):
            return load_checkpoint(found.path, allow=allow)
        return _load_entry(found, allow)


def load_found(found: Entry, *, allow: tuple[type, ...] = ()) -> "LightningModule":
    """The model of what `find` has found, with the weights that its entry has, or would have: as exact as stored.

    Args:
        found: An entry, or a checkpoint, whose weights are rounded if its run would have published them so.
        allow: as in `load`, which also says what is raised.
    """
    if not isinstance(found, Checkpoint):
        return _load_entry(found, allow)
    model = load_checkpoint(found.path, allow=allow)
    return _filled(model, as_stored(model, found.dtype), str(found.path))


def load_checkpoint(path: str | Path, *, allow: tuple[type, ...] = ()) -> "LightningModule":
    """The model of a training checkpoint, rebuilt as carefully as that of an entry; on the CPU, in eval mode.

    Where an `EMA` averaged the weights, they are the average.

    Args:
        path: A file that ModelCheckpoint wrote.
        allow: Classes beyond genzoo's and torch.nn's that the model consists of.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no checkpoint of a model whose arguments are on record, or names other classes.
    """
    checkpoint = read_checkpoint(Path(path))
    arguments, state = checkpoint["hyper_parameters"], checkpoint["state_dict"]
    try:
        block = {"class_path": arguments.pop("_class_path"), "init_args": arguments}
        stored = {key: Stored(value.dtype, tuple(value.shape)) for key, value in state.items()}
        claimed = [value.numel() * value.element_size() for value in state.values()]
        held = [value.untyped_storage().nbytes() for value in state.values()]
    except Exception as error:  # as in `read_checkpoint`
        said = one_line(f"{path} does not say how its model was built ({type(error).__name__}: {error})")
        raise ValueError(said) from None
    most = SHARED * Path(path).stat().st_size
    if sum(claimed) > most or any(a > b for a, b in zip(claimed, held, strict=True)):  # one number for a matrix, say
        raise ValueError(f"{path} is damaged: its weights would be {sum(claimed):,} bytes, far more than it holds")
    arguments.pop("_instantiator", None)
    model = _build_to_fit(block, stored, allow, str(path))
    _take_names(model, checkpoint, str(path))
    return _filled(model, state, str(path))


def _load_entry(entry: Entry, allow: tuple[type, ...]) -> "LightningModule":
    config, path = entry.config, entry.path / WEIGHTS
    weights = config["weights"]
    if path.stat().st_size > largest(weights["parameters"]):
        raise ValueError(f"{path} is too large for the {weights['parameters']:,} parameters that {CONFIG} states")
    model = _build_to_fit(config["model"], read_header(path), allow, str(path))
    stated = {name: config.get(name) for name in ("shape", "levels", "num_classes")}
    stated["parameters"] = weights["parameters"]
    own = {**contract(model), "parameters": sum(p.numel() for p in model.parameters())}
    if wrong := [name for name in stated if stated[name] != own[name]]:
        said, has = (", ".join(f"{name}={values[name]!r}" for name in wrong) for values in (stated, own))
        raise ValueError(f"{entry.path / CONFIG} says {said}, but its model has {has}")
    _take_names(model, config, str(entry.path / CONFIG))
    return _filled(model, read_weights(path, weights["sha256"]), str(path))


def contract(module: Any) -> dict[str, Any]:
    """What a module says of the data that it is for, as config.yaml states it."""
    shape, names = getattr(module, "shape", None), getattr(module, "class_names", None)
    named = {"class_names": list(names)} if names else {}
    return {
        "shape": None if shape is None else list(shape),
        "levels": getattr(module, "levels", None),
        "num_classes": getattr(module, "num_classes", None),
        **(module.stated_names if isinstance(module, NamingMixin) else named),
    }


def _take_names(model: "LightningModule", stated: Mapping[str, Any], origin: str) -> None:
    """Tells a model what its file says that its classes and columns are called, if it says so."""
    if isinstance(model, NamingMixin):
        with blamed_on(origin):
            model.take_names(stated)


def _build_to_fit(
    block: Mapping[str, Any], stored: Mapping[str, Stored], allow: tuple[type, ...], origin: str
) -> "LightningModule":
    """The model that `block` states, with initial weights, if its tensors are those that are stored.

    It is rehearsed first, without memory, but for models with parts that were allowed by hand: whose classes do who
    knows what when they are built.
    """
    import torch

    from genzoo.zoo.hub.rehearsal import check_tables, rehearsal
    from genzoo.zoo.memory import only_to_use

    # the initial weights are drawn, then overwritten; nobody is going to train them
    with only_to_use(), torch.random.fork_rng(devices=[]), blamed_on(origin):
        if not _is_foreign(block, allow):
            with rehearsal(len(stored)):
                rehearsed = _build_model(block, allow)
            check_fit(rehearsed, stored, origin)
            check_tables(rehearsed)
        model = _build_model(block, allow)
        check_fit(model, stored, origin)
    return model


def _filled(model: "LightningModule", state: dict[str, Any], origin: str) -> "LightningModule":
    """The model with these weights, in eval mode."""
    model.load_state_dict(state, strict=True)  # half precision on disk becomes the model's own
    check_finite(model, origin)
    return model.eval()


def _is_foreign(block: Any, allow: tuple[type, ...]) -> bool:
    """Whether a class that was allowed by hand, and is none of genzoo's or torch.nn's, has a part in it."""
    from genzoo.zoo.hub.building import by_path, model_classes

    if isinstance(block, Mapping):
        path = block.get("class_path")
        foreign = isinstance(path, str) and path in by_path(allow).keys() - model_classes().keys()
        return foreign or any(_is_foreign(item, allow) for item in block.values())
    return isinstance(block, list) and any(_is_foreign(item, allow) for item in block)


def _build_model(block: Mapping[str, Any], allow: tuple[type, ...]) -> "LightningModule":
    from lightning.pytorch import LightningModule
    from lightning.pytorch.core.mixins.hparams_mixin import _given_hyperparameters_context

    from genzoo.zoo.hub.building import TRAINING, build, model_classes

    path, arguments = block["class_path"], block.get("init_args") or {}
    kept = {k: v for k, v in arguments.items() if not k.endswith(TRAINING)}
    classes = model_classes(allow)
    if path in classes and not issubclass(classes[path], LightningModule):
        raise ValueError(f"{path} is no model, but a part of one")
    stated = {"_class_path": path, **arguments}
    with _given_hyperparameters_context(stated, "lightning.pytorch.cli.instantiate_module"):
        return build({"class_path": path, "init_args": kept}, classes)
