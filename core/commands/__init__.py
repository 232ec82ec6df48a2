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
import re
import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from importlib import import_module
from itertools import takewhile
from pkgutil import iter_modules
from types import ModuleType
from typing import Any, NoReturn

from genzoo.errors import did_you_mean, refuse


def names() -> list[str]:
    """The names of the commands, sorted."""
    return sorted(module.name for module in iter_modules(__path__))


def modules() -> dict[str, ModuleType]:
    """The commands' files, by name."""
    return {name: import_module(f"{__name__}.{name}") for name in names()}


class Parser(ArgumentParser):
    """A parser that answers a mistake in one line, with the name that was perhaps meant, and guesses nothing."""

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        """Looks for a name that is not taken first: argparse would rather miss the argument that it was to be."""
        given = [*(sys.argv[1:] if args is None else args)]  # `list` is a command here
        for argument in takewhile(lambda argument: argument != "--", given):
            name = argument.partition("=")[0]
            if name.startswith("--") and name not in self._option_string_actions:
                self.error(f"{name} is not accepted{did_you_mean(name, self._option_string_actions)}")
        return super().parse_args(given, namespace)

    def error(self, message: str) -> NoReturn:
        """Ends the program with one line."""
        if choice := re.search(r"invalid choice: '(.*?)' \(choose from (.*)\)", message):
            message += did_you_mean(choice[1], re.findall(r"[^\s,']+", choice[2]))
        refuse(f"{message} (`{self.prog} --help` lists what is accepted)")


def parser(name: str) -> ArgumentParser:
    """What the command of that name takes; parsed arguments have its `run` as an attribute."""
    module = import_module(f"{__name__}.{name}")
    parser = Parser(prog=f"genzoo {name}", description=inspect.getdoc(module.run), allow_abbrev=False)
    parser.set_defaults(run=module.run)
    module.add_arguments(parser)
    return parser
