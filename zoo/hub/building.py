"""Builds what a downloaded `config.yaml` describes, out of a fixed table of classes.

A `class_path` is looked up in the table, letter by letter; nothing that a file names is ever imported, and a
string stays a string. The command line's parser, which imports what it reads, has no part in loading.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from types import ModuleType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from torch import nn

from genzoo.zoo.hub.wording import one_line, shortened


def exported(package: ModuleType) -> dict[str, type]:
    """The classes in `package.__all__`, under the package's name and under that of their own module."""
    classes = {name: getattr(package, name) for name in package.__all__ if inspect.isclass(getattr(package, name))}
    return {f"{package.__name__}.{name}": cls for name, cls in classes.items()} | by_path(classes.values())


#: modules that have moved, and where to: entries and checkpoints written before name their classes by the old place
MOVED = {
    "genzoo.zoo.autoencoder": "genzoo.zoo.latent.autoencoder",
    "genzoo.zoo.vae": "genzoo.zoo.latent.vae",
}


#: the largest whole number that a class of ours is built with from a file, where it may stand for memory; or for time
LARGEST, STEPS = 2**21, 10_000
#: ends of the names of arguments that stand for neither, however large
HARMLESS = ("seed", "limit", "warmup")
#: and of those that say how a model was trained: on record in its file, and never built
TRAINING = ("optimizer", "lr_scheduler")


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


def build(value: Any, classes: Mapping[str, type], *, builds: bool = False) -> Any:
    """`value` with every {class_path, init_args} in it replaced by an instance, the innermost first.

    Where a class takes a function that builds something, it is replaced by a partial of the class that is named.

    Args:
        value: What `yaml.safe_load` gave.
        classes: The classes that may be built, by their dotted names.
        builds: Whether `value` itself is to become such a partial.

    Raises:
        ValueError: a class_path that is not in the table, arguments that its class does not take or that are not of
            the types which the class states, or with which it cannot be built.
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
            f"class_path {shortened(path)} is none of the classes that an entry may name (genzoo's and torch.nn's);"
            " if you trust it, allow it: load(..., allow=(TheClass,)), or --allow its_module.TheClass"
        )
    if unknown := value.keys() - {"class_path", "init_args"}:
        raise ValueError(f"{path} is stated with {shortened(min(unknown))}: its arguments belong into init_args")
    if not isinstance(arguments, dict) or not all(isinstance(key, str) for key in arguments):
        raise ValueError(
            f"the init_args of {path} must be a mapping from names to values, not {shortened(arguments)}"
        )
    stated = {**getattr(classes[path], "former_arguments", {}), **arguments}
    if builds:
        stated = {key: item for key, item in stated.items() if not key.endswith(TRAINING)}
    hints = _hints(classes[path])
    built = {key: _built(item, classes, hints.get(key, Any), key) for key, item in stated.items()}
    try:
        _check_arguments(classes[path], built, hints, partly=builds)
        return partial(classes[path], **built) if builds else classes[path](**built)
    except Exception as error:  # a constructor that is given nonsense may raise anything
        said = f"{type(error).__name__}: {error}" if not isinstance(error, ValueError) else str(error)
        raise ValueError(one_line(f"{path} cannot be built from the given init_args: {said}")) from error


def _built(value: Any, classes: Mapping[str, type], hint: Any, name: str) -> Any:
    """An argument that a class of ours describes by a hint."""
    takes_builder = any(get_origin(option) is Callable for option in (hint, *get_args(hint)))
    if takes_builder and isinstance(value, str):  # where a person may name a model: no file opens another
        raise ValueError(f"{name} is {shortened(value)}, but an entry holds all its parts itself")
    return build(value, classes, builds=takes_builder)


def _hints(cls: type) -> dict[str, Any]:
    """What the classes of ours that it is, or extends, say of the arguments of their constructors.

    What a class hands on to the one that it extends, that one states; what somebody else's takes itself, nobody does.
    """
    hints: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        constructor = vars(base).get("__init__")
        if constructor is None:
            continue
        if base.__module__.startswith("genzoo."):
            hints |= get_type_hints(constructor)
        elif inspect.isfunction(constructor):
            for name in inspect.signature(constructor).parameters:
                hints.pop(name, None)
    return hints


def _check_arguments(cls: type, arguments: Mapping[str, Any], hints: Mapping[str, Any], *, partly: bool) -> None:
    """Raises ValueError for an argument that a class does not take, or, of genzoo's, that is of another type."""
    try:
        signature = inspect.signature(cls)
        (signature.bind_partial if partly else signature.bind)(**arguments)
    except TypeError as error:
        raise ValueError(str(error)) from None
    if not cls.__module__.startswith(("genzoo.", "torch.")):
        return
    for name, value in arguments.items():
        size, most = _largest(value), STEPS if name.endswith("steps") else LARGEST
        if size > most and not name.endswith(HARMLESS):
            raise ValueError(f"{name} is {shortened(size)}, but {most:,} is the most that a file may state")
    if cls.__module__.startswith("torch."):
        if "device" in arguments:
            raise ValueError("a model is built on the CPU: leave out `device`")
        return
    for name, value in arguments.items():
        if not fits(value, hints.get(name, Any)):
            expected = inspect.formatannotation(hints[name]).replace("collections.abc.", "")
            raise ValueError(f"{name} is {shortened(value)}, but must be {expected}")


def _largest(value: Any) -> int:
    """The largest whole number in an argument, by magnitude; 0 where there is none."""
    if isinstance(value, list | dict):
        return max(map(_largest, value.values() if isinstance(value, dict) else value), default=0)
    return abs(value) if isinstance(value, int) else 0


def fits(value: Any, hint: Any) -> bool:
    """Whether a value is what an annotation says: a plain one, a list of them, or an object that was built."""
    origin, options = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(fits(value, option) for option in options)
    if origin is Literal:
        return any(type(value) is type(option) and value == option for option in options)
    if hint in (None, type(None)):
        return value is None
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is bool:
        return isinstance(value, int) and value in (0, 1)
    if origin in (list, tuple, Sequence):
        return isinstance(value, list | tuple) and all(fits(item, options[0]) for item in value)
    return hint is Any or not isinstance(hint, type) or isinstance(value, hint)
