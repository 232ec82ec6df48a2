"""How a command says that something is wrong: in one plain line; with a traceback for whoever asks for it."""

import os
import sys
from collections.abc import Iterable
from difflib import get_close_matches
from typing import NoReturn


def debugging() -> bool:
    """Whether GENZOO_DEBUG asks for tracebacks."""
    return bool(os.environ.get("GENZOO_DEBUG"))


def refuse(message: str) -> NoReturn:
    """Ends the program with one error for the user, exit code 2: one line, whoever's words are in it."""
    from genzoo.zoo.hub.wording import one_line

    print(f"genzoo: error: {one_line(message)}", file=sys.stderr)
    raise SystemExit(2)


def did_you_mean(given: str, known: Iterable[str], *, at_most: int = 1, cutoff: float = 0.6) -> str:
    """`; did you mean latent_dim?`, of those `known` that are near to what was `given`; nothing where none is.

    What begins as it was given (`num`, for `num_samples`) is nearer than what has as many letters in common.
    """
    names = sorted(set(known))
    longer = [name for name in names if name.startswith(given)] if len(given) > 2 else []
    close = get_close_matches(given, longer or names, n=at_most, cutoff=0.0 if longer else cutoff)
    return f"; did you mean {' or '.join(close)}?" if close else ""
