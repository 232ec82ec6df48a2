"""How a command says that something is wrong: in one plain line; with a traceback for whoever asks for it."""

import os
import sys
from typing import NoReturn


def debugging() -> bool:
    """Whether GENZOO_DEBUG asks for tracebacks."""
    return bool(os.environ.get("GENZOO_DEBUG"))


def refuse(message: str) -> NoReturn:
    """Ends the program with one error for the user, exit code 2."""
    print(f"genzoo: error: {message}", file=sys.stderr)
    raise SystemExit(2)
