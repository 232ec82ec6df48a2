"""What a command does besides its work: files that it opens, programs that it starts, addresses that it calls.

Python's audit hooks see all of that, and every name that a pickle asks for. A hook stays for the rest of the process;
it is idle unless somebody watches.
"""

import os
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import genzoo

ROOT = Path(__file__).resolve().parents[2]
#: where this Python, its packages and genzoo lie, and what every process reads of its machine
READABLE = [
    str(Path(path).resolve())
    for path in (
        sys.prefix,
        sys.base_prefix,
        *sysconfig.get_paths().values(),
        ROOT,
        Path(genzoo.__file__).parent,
        "/proc",
        "/sys",
        "/dev/null",
        "/dev/urandom",
        "/etc/localtime",
        "/etc/mime.types",
        "/usr/share/zoneinfo",
    )
]
PROGRAMS = ("os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "os.spawn", "os.startfile", "os.fork")
NETWORK = ("socket.connect", "socket.bind", "socket.getaddrinfo", "socket.gethostbyname", "urllib.Request")
CHANGES = (
    "shutil.rmtree",
    "os.mkdir",
    "os.remove",
    "os.rename",
    "os.rmdir",
    "os.symlink",
    "os.link",
    "os.chmod",
    "os.truncate",
)

_now: dict[str, Any] = {"seen": None}


@contextmanager
def watched(readable: list[Path], writable: list[Path]) -> Iterator[list[str]]:
    """Inside, everything is noted that is neither reading below `readable` nor writing below `writable`."""
    read = [*READABLE, *(str(path.resolve()) for path in (*readable, *writable))]
    _now.update(seen=[], read=read, write=[str(path.resolve()) for path in writable])
    seen = _now["seen"]
    try:
        yield seen
    finally:
        _now["seen"] = None


def _below(path: Any, places: list[str]) -> bool:
    if isinstance(path, int):  # a file that is open already
        return True
    real = os.path.realpath(os.fsdecode(path))
    return any(real == place or real.startswith(f"{place}/") for place in places)


def _hook(event: str, given: tuple[Any, ...]) -> None:
    seen = _now["seen"]
    if seen is None:
        return
    if event == "open":
        path, mode, flags = given
        writes = any(c in (mode or "") for c in "wax+") or bool(flags and flags & (os.O_WRONLY | os.O_RDWR))
        if path is not None and not _below(path, _now["write" if writes else "read"]):
            seen.append(f"{'writes' if writes else 'reads'} {path}")
    elif event in ("os.remove", "os.rmdir") and given[-1] != -1:  # by rmtree, within the folder that it was given
        return
    elif event in CHANGES:
        seen.extend(
            f"{event} {path}" for path in given[:2] if isinstance(path, str) and not _below(path, _now["write"])
        )
    elif event in PROGRAMS:
        if not (event == "subprocess.Popen" and list(given[1])[:2] == ["git", "describe"]):  # of genzoo's own commit
            seen.append(f"runs {given[:2]}")
    elif event in NETWORK or event == "pickle.find_class":
        seen.append(f"{event} {given[1:] if event.startswith('socket') else given}")


sys.addaudithook(_hook)
