"""The commands that are genzoo's own, one a file: what it takes, what it does, what it prints.

A new command is a new file here, called as the command is. It states

- `EXAMPLE`, a call of it, and `SAYS`, what that does, in a few words: its line of `genzoo --help`;
- `add_arguments(parser)`, what it takes;
- `run(given)`, what it does with what was given, and prints. Its docstring heads `--help`. A mistake
  of the user's is a ValueError, an OSError or a ModuleNotFoundError, of which the user sees the message alone.

`genzoo --help` imports every one of these files: what takes time to import (PyTorch, Lightning) is imported when the
command runs.
"""

import inspect
from argparse import ArgumentParser
from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType


def names() -> list[str]:
    """The names of the commands, sorted."""
    return sorted(module.name for module in iter_modules(__path__))


def modules() -> dict[str, ModuleType]:
    """The commands' files, by name."""
    return {name: import_module(f"{__name__}.{name}") for name in names()}


def parser(name: str) -> ArgumentParser:
    """What the command of that name takes; parsed arguments have its `run` as an attribute."""
    module = import_module(f"{__name__}.{name}")
    parser = ArgumentParser(prog=f"genzoo {name}", description=inspect.getdoc(module.run))
    parser.set_defaults(run=module.run)
    module.add_arguments(parser)
    return parser
