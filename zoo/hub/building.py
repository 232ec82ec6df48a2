"""Builds what a downloaded `config.yaml` describes, out of a fixed table of classes.

A `class_path` is looked up in the table, letter by letter; nothing that a file names is ever imported, and a
string stays a string. The command line's parser, which imports what it reads, has no part in loading.
"""

import inspect
from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import Any

from torch import nn


def exported(package: ModuleType) -> dict[str, type]:
    """The classes in `package.__all__`, under the package's name and under that of their own module."""
    classes = {name: getattr(package, name) for name in package.__all__ if inspect.isclass(getattr(package, name))}
    return {f"{package.__name__}.{name}": cls for name, cls in classes.items()} | by_path(classes.values())


#: modules that have moved, and where to: entries and checkpoints written before name their classes by the old place
MOVED = {
    "genzoo.zoo.autoencoder": "genzoo.zoo.latent.autoencoder",
    "genzoo.zoo.vae": "genzoo.zoo.latent.vae",
}


def by_path(classes: Iterable[type]) -> dict[str, type]:
    """Classes under their full dotted names."""
    return {f"{cls.__module__}.{cls.__qualname__}": cls for cls in classes}


def model_classes(extra: Iterable[type] = ()) -> dict[str, type]:
    """What a model's configuration may name: what genzoo.zoo exports, torch.nn's modules, and `extra`."""
    import genzoo.zoo
    import genzoo.zoo.networks

    layers = {name: cls for name, cls in vars(nn).items() if inspect.isclass(cls) and issubclass(cls, nn.Module)}
    return {
        **{f"torch.nn.{name}": cls for name, cls in layers.items()},
        **by_path(layers.values()),
        **exported(genzoo.zoo.networks),
        **_under_former_names(exported(genzoo.zoo)),
        **by_path(extra),
    }


def _under_former_names(classes: dict[str, type]) -> dict[str, type]:
    """The same classes, also under the names of the modules that they have moved from."""
    homes = {home: former for former, home in MOVED.items()}
    former = {
        f"{homes[cls.__module__]}.{cls.__qualname__}": cls for cls in classes.values() if cls.__module__ in homes
    }
    return classes | former


def build(value: Any, classes: Mapping[str, type]) -> Any:
    """`value` with every {class_path, init_args} in it replaced by an instance, the innermost first.

    Args:
        value: What `yaml.safe_load` gave.
        classes: The classes that may be built, by their dotted names.

    Raises:
        ValueError: a class_path that is not in the table, or arguments that its class does not take.
    """
    if isinstance(value, list):
        return [build(item, classes) for item in value]
    if not isinstance(value, dict):
        return value
    if "class_path" not in value:
        return {key: build(item, classes) for key, item in value.items()}
    path, arguments = value["class_path"], value.get("init_args") or {}
    if not isinstance(path, str) or path not in classes:
        raise ValueError(
            f"class_path {path!r} is none of the classes that an entry may name (genzoo's and torch.nn's);"
            " if you trust it, allow it: load(..., allow=(TheClass,)), or --allow its_module.TheClass"
        )
    if not isinstance(arguments, dict) or not all(isinstance(key, str) for key in arguments):
        raise ValueError(f"the init_args of {path} must be a mapping from names to values, not {arguments!r}")
    built = {key: build(item, classes) for key, item in arguments.items()}
    try:
        inspect.signature(classes[path]).bind(**built)
    except TypeError as error:
        raise ValueError(f"{path} cannot be built from the given init_args: {error}") from None
    return classes[path](**built)
