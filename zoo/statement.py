"""What a model was built from, in the form in which a file states it.

A checkpoint and an entry of the zoo hold the constructor's arguments as plain values and `class_path`s only: they
load with `weights_only=True`, in a fresh interpreter. The command line has its arguments in that form, and Lightning
hands them on. Those of a model that is built from Python are taken down here, in `__new__`: Python calls it with the
arguments of the outermost constructor, whatever that passes on to its parents' ones. (Lightning's own
`save_hyperparameters` reads them off the callers' frames, and keeps live objects, which no such file can hold.)
"""

import inspect
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from functools import partial
from typing import Any, ClassVar, Self

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.core.mixins.hparams_mixin import _given_hyperparameters  # there is no public way to ask for it
from torch import Tensor, nn

from genzoo.zoo.plain import plain


class StatedModule(LightningModule):
    """A LightningModule whose `hparams` are the arguments of its constructor in a file's form."""

    #: arguments that no file can state, because they were given as live modules
    unstated: list[str]
    #: arguments whose default is younger than some files, and what it was before: what a file without them means
    former_arguments: ClassVar[Mapping[str, Any]] = {}

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Remembers what the constructor is called with."""
        self = super().__new__(cls)
        vars(self)["_given"] = args, kwargs
        return self

    def __init__(self) -> None:
        super().__init__()
        args, kwargs = vars(self).pop("_given")
        self.unstated = []
        if _given_hyperparameters.get() is not None:  # built by the command line, which states them itself
            self.save_hyperparameters()
            return
        stated: dict[str, Any] = {}
        for name, value in arguments_of(type(self), args, kwargs).items():
            try:
                stated[name] = as_config(value)
            except TypeError:
                if not name.endswith(("optimizer", "lr_scheduler")):  # these have no part in the weights
                    self.unstated.append(name)
        stated["_class_path"] = class_path(type(self))
        stated["_instantiator"] = "lightning.pytorch.cli.instantiate_module"
        self.save_hyperparameters(stated)

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Any, *args: Any, **arguments: Any) -> Self:
        """Lightning's, but that an argument the file is older than means what it did then."""
        if cls.former_arguments:
            stated = torch.load(checkpoint_path, map_location="cpu", weights_only=True).get("hyper_parameters", {})
            arguments = {k: v for k, v in cls.former_arguments.items() if k not in stated} | arguments
        return super().load_from_checkpoint(checkpoint_path, *args, **arguments)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the names of arguments that cannot be stated."""
        checkpoint["unstated_arguments"] = list(self.unstated)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Asks for what the file could not state.

        Raises:
            ValueError: if the checkpoint's model was given a module that this one was not.
        """
        missing = set(checkpoint.get("unstated_arguments", [])) - set(self.unstated)
        if missing:
            raise ValueError(
                f"The checkpoint's model was built with modules of its own for {sorted(missing)}, which no file can"
                f" state. Pass them again: {type(self).__name__}.load_from_checkpoint(path,"
                f" {', '.join(f'{name}=...' for name in sorted(missing))})."
            )


def arguments_of(cls: type, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of cls(*args, **kwargs) by name, with the defaults of those that are not given.

    What the constructor takes as `*args` or `**kwargs` it passes on: to the next class that has a constructor, which
    knows its name.
    """
    families = cls.__mro__[: cls.__mro__.index(StatedModule)]
    named: dict[str, Any] = {}
    for constructor in [vars(base)["__init__"] for base in families if "__init__" in vars(base)]:
        bound = inspect.signature(constructor).bind_partial(None, *args, **kwargs)
        bound.apply_defaults()
        args, kwargs, passes_on = (), {}, False
        for parameter in list(bound.signature.parameters.values())[1:]:  # but for self
            if parameter.kind == parameter.VAR_POSITIONAL:
                args, passes_on = bound.arguments[parameter.name], True
            elif parameter.kind == parameter.VAR_KEYWORD:
                kwargs, passes_on = bound.arguments[parameter.name], True
            elif parameter.name in bound.arguments:
                named.setdefault(parameter.name, bound.arguments[parameter.name])
        if not passes_on:
            break
    return named


def class_path(cls: type) -> str:
    """The dotted name under which a file states a class.

    One of ours has the name under which a package of ours exports it, `genzoo.zoo.VAE`: a file that is moved within
    the package then breaks no entry. Any other class has that of its module.
    """
    parts = cls.__module__.split(".")
    packages = (".".join(parts[:n]) for n in range(1, len(parts) + 1) if parts[0] == "genzoo")
    for package in packages:
        exported = getattr(sys.modules[package], "__all__", ())
        if cls.__qualname__ in exported and getattr(sys.modules[package], cls.__qualname__) is cls:
            return f"{package}.{cls.__qualname__}"
    return f"{cls.__module__}.{cls.__qualname__}"


def as_config(value: Any) -> Any:
    """A constructor argument in the form in which a YAML file states it.

    Plain values stay, numbers of NumPy's and PyTorch's become Python's own, paths text, sequences lists, a dataclass
    or a `functools.partial` of a class becomes {"class_path", "init_args"}.

    Raises:
        TypeError: for anything that no file can state, such as a live module or a lambda.
    """
    value = value.item() if isinstance(value, Tensor) and value.ndim == 0 else plain(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(k): as_config(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [as_config(v) for v in value]
    if is_dataclass(value) and not isinstance(value, type):
        arguments = {f.name: as_config(getattr(value, f.name)) for f in fields(value) if f.init}
        return {"class_path": class_path(type(value)), "init_args": arguments}
    if isinstance(value, partial) and isinstance(value.func, type) and not value.args:
        return {"class_path": class_path(value.func), "init_args": as_config(value.keywords)}
    if isinstance(value, type) and (not issubclass(value, nn.Module) or issubclass(value, StatedModule)):
        return {"class_path": class_path(value), "init_args": {}}
    raise TypeError(f"{value!r} cannot be stated in a file.")


# ------------------------------------------------------------------------------------- modules that consist of others


@contextmanager
def on_its_own() -> Iterator[None]:
    """Within a constructor: the modules that are built here state their own arguments, and not that constructor's."""
    token = _given_hyperparameters.set(None)
    try:
        yield
    finally:
        _given_hyperparameters.reset(token)


def built_class(builder: Callable[..., Any]) -> type:
    """The class that a builder builds: itself, or that of a partial, be it Python's or the command line's.

    Raises:
        ValueError: if it builds none.
    """
    held = (builder.func, *builder.args) if isinstance(builder, partial) else (builder,)
    found = next((part for part in held if isinstance(part, type)), None)
    if found is None:
        raise ValueError(f"{builder!r}: give a class, or a functools.partial of one.")
    return found


def block_of(module: StatedModule, *, without: Sequence[str] = ()) -> dict[str, Any]:
    """The {class_path, init_args} of a module, but for some of its arguments.

    Raises:
        ValueError: if it was given arguments that no file can state.
    """
    if module.unstated:
        raise ValueError(
            f"{type(module).__name__} was given live modules for {', '.join(module.unstated)}, which no file can"
            " state."
        )
    arguments = {name: value for name, value in module.hparams.items() if not name.startswith("_")}
    stated = {name: value for name, value in arguments.items() if name not in without}
    return {"class_path": class_path(type(module)), "init_args": stated}
