"""How files are written, whole or not at all, and where those are kept that can be had again."""

import errno
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path


def at_home(path: str | Path) -> Path:
    """A path in which a leading `~` or `~name` is that home; where nobody is called so it stays as it is."""
    return Path(os.path.expanduser(path))


def cache_folder() -> Path:
    """Where downloads and reference statistics are kept: $GENZOO_CACHE, or ~/.cache/genzoo."""
    return at_home(os.environ.get("GENZOO_CACHE") or "~/.cache/genzoo")


def cached(name: str, folder: Path | None = None) -> Path:
    """Where a file of the cache (of another folder) is, or is to be written.

    Where it is not there and cannot be written there, that is a folder which goes with this process, and a warning.
    """
    path = (folder or cache_folder()) / name
    if os.path.exists(path):
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if os.access(path.parent, os.W_OK):
            return path
        reason = "no permission to write"
    except OSError as error:
        reason = str(error.strerror)
    warnings.warn(
        f"{path} cannot be kept ({reason}) and will have to be made anew: let GENZOO_CACHE name another folder.",
        stacklevel=2,
    )
    return Path(_temporary().name) / name


@cache
def _temporary() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="genzoo-")


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A temporary name beside `path`; what was written there takes its place at the end, if nothing went wrong."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def staged(target: Path) -> Iterator[Path]:
    """A folder that takes the place of `target` when the block ends well, and vanishes when it does not."""
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    old = staging.with_name(staging.name + ".old")
    try:
        yield staging
        staging.chmod(0o755)  # mkdtemp's folders are private
        put_in_place(target, staging, old)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def put_in_place(target: Path, staging: Path, old: Path) -> None:
    """`staging` becomes `target`, and what was there `old`; where several processes do so at once, the last stays."""
    try:
        while True:
            with suppress(FileNotFoundError):  # nothing is there, or another process has just taken it away
                target.rename(old)
            try:
                staging.rename(target)
                return
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
            # another process was quicker: what it has put there is the old one now
            shutil.rmtree(old, ignore_errors=True)
    except BaseException:  # whatever came between, Ctrl-C too
        if old.exists() and not target.exists():
            old.rename(target)
        raise
