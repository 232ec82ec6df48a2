"""The files below a folder: which of them are data, and what is said of those that are not."""

import os
import re
from collections.abc import Collection
from pathlib import Path

from lightning.pytorch.utilities.rank_zero import rank_zero_warn

#: what systems leave beside a user's files, all of whose other litter begins with a dot
LITTER = {
    *("__MACOSX", "@eaDir", "#recycle", "Thumbs.db", "ehthumbs.db", "desktop.ini", "$RECYCLE.BIN"),
    *("lost+found", "System Volume Information"),  # at the root of a disk
}

#: what `SampleLogger` calls a picture: what it shows, and the step
SAMPLE = re.compile(r"[a-z_]+-\d{8}")

# Why a file is left out, as it is said of several.
HIDDEN = "hidden"
OTHER_KIND = "of other kinds"
AGAIN = "found again by another link"
NOWHERE = "no files, or links that lead nowhere"
OF_A_RUN = "folders of runs"
BESIDE = "beside the folder train"


def is_hidden(name: str) -> bool:
    """Whether a file or folder of that name is nobody's data: `.git`, `.DS_Store`, `Thumbs.db`, `__MACOSX`."""
    return name.startswith(".") or name in LITTER


def is_run(folder: Path) -> bool:
    """Whether a run was kept there, whose samples and checkpoints are nobody's data: by what such are called."""
    stated = any(os.path.isfile(folder / name) for name in ("config.yaml", "hparams.yaml"))
    pictures = (path.stem for path in (folder / "samples").glob("*-*"))
    return any((folder / "checkpoints").glob("*.ckpt")) or (stated and any(map(SAMPLE.fullmatch, pictures)))


class FileSearch:
    """Finds files below folders, at any depth and through links, and keeps count of what it leaves out.

    A file that several links lead to is found once, under its own name if that is below the folder; so a link to a
    folder that it lies in ends nothing and repeats nothing. Hidden files and folders are left out.

    Args:
        suffixes: of the files that are wanted, in lower case; None: any.
    """

    def __init__(self, suffixes: Collection[str] | None = None) -> None:
        self.suffixes = suffixes
        self.num_found = 0
        self.left_out: dict[str, list[str]] = {}  # why: what, by name or by suffix

    def below(self, folder: Path) -> dict[str, Path]:
        """The path below `folder` of each file, by where it really lies.

        Raises:
            OSError: for a folder that may not be read.
        """
        found: dict[str, Path] = {}
        linked: list[Path] = []  # files
        folders, folder_links = [folder], list[Path]()
        seen: set[str] = set()  # folders, by where they really lie
        while folders or folder_links:  # links come last: what lies here is known by its own name
            current = folders.pop() if folders else folder_links.pop(0)
            real = os.path.realpath(current)
            if real in seen:
                self.leave_out(AGAIN, current.name)
                continue
            seen.add(real)
            if current != folder and is_run(current):
                self.leave_out(OF_A_RUN, current.name)
                continue
            for entry in sorted(os.scandir(current), key=lambda entry: entry.name):
                path, is_link = current / entry.name, entry.is_symlink()
                if is_hidden(entry.name):
                    self.leave_out(HIDDEN, entry.name)
                elif os.path.isdir(path) if is_link else entry.is_dir():  # of most entries known without asking
                    (folder_links if is_link else folders).append(path)
                elif not (os.path.isfile(path) if is_link else entry.is_file()):
                    self.leave_out(NOWHERE, entry.name)
                elif self.suffixes is not None and path.suffix.lower() not in self.suffixes:
                    self.leave_out(OTHER_KIND, path.suffix.lower() or "without a suffix")
                elif is_link:
                    linked.append(path)
                else:
                    found[os.path.join(real, entry.name)] = path
        for path in linked:
            if found.setdefault(os.path.realpath(path), path) != path:
                self.leave_out(AGAIN, path.name)
        self.num_found += len(found)
        return found

    def leave_out(self, why: str, what: str) -> None:
        """Counts one."""
        self.left_out.setdefault(why, []).append(what)

    def in_words(self) -> str:
        """What was left out, how much of it and why; empty if nothing was."""
        return "; ".join(
            f"{len(names)} {why} ({', '.join(sorted(set(names))[:3])}{', …' if len(set(names)) > 3 else ''})"
            for why, names in self.left_out.items()
        )

    def say(self, folder: Path, advice: str = "") -> None:
        """Warns of what was left out below `folder`, if anything was; and of what can be done about it."""
        if self.left_out:
            beside = f" ({advice})" if advice else ""
            rank_zero_warn(f"{folder}: {self.num_found} files are read. Left out: {self.in_words()}{beside}.")
