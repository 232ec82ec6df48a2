"""How what came from elsewhere is put into a message: in one plain line, without passwords, as somebody's fault."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

SECRET = re.compile(r"://(?:[^\s/@]*|[^\s/:@]*:\S*)@")  # user:password@, the password perhaps with a slash in it


def masked(text: str) -> str:
    """The text without the user names and passwords of the addresses in it: `https://***@host/path`."""
    return SECRET.sub("://***@", text)


def one_line(text: str) -> str:
    """The text as a message may hold it: without passwords, line breaks, or characters that command a terminal."""
    return "".join(c if c.isprintable() else "�" for c in " ".join(masked(text).split()))


def shortened(value: object, length: int = 60) -> str:
    """A value in so few characters that a message can quote it."""
    said = repr(value) if isinstance(value, str | int | float | None) else f"a {type(value).__name__}"
    return said if len(said) <= length else f"{said[:length]}…"


@contextmanager
def blamed_on(what: str) -> Iterator[None]:
    """Whatever goes wrong inside is a ValueError about `what`: models of strangers fail in a hundred ways.

    Errors that say what is wrong, ValueError and OSError, stay as they are.
    """
    try:
        yield
    except (ValueError, OSError):
        raise
    except Exception as error:
        said = one_line(str(error)) or "no reason given"
        raise ValueError(f"{what}: {type(error).__name__}: {said}") from error
