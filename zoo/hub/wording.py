"""How what came from elsewhere is put into a message: in one plain line, without passwords, as somebody's fault."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from genzoo.zoo.lines import is_line

USER = re.compile(r"(?<=://)(?:[^\s/]*|[^\s/:@]*:\S*)(?=@)")  # user:password, the latter perhaps with a slash in it
TOKEN = re.compile(r"(?<=[?&])([^\s=&]*(?:token|key|secret|sign|sig|pass)[^\s=&]*=)([^\s&]+)", re.IGNORECASE)


def masked(text: str, address: str = "") -> str:
    """A text without the user names, passwords and keys of the addresses in it: `https://***@host/path?token=***`.

    Args:
        text: of a message, say.
        address: whose secrets are looked for in all of the text, not in addresses alone.
    """
    users, tokens = USER.findall(address), [value for _, value in TOKEN.findall(address)]
    for secret in (*users, *tokens, *(user.partition(":")[2] for user in users)):
        text = text.replace(secret, "***") if secret else text
    return TOKEN.sub(r"\1***", USER.sub("***", text))


def one_line(text: str) -> str:
    """The text as a message may hold it: without passwords, line breaks, or characters that command a terminal."""
    return "".join(c if is_line(c) else "�" for c in " ".join(masked(text).split()))


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
