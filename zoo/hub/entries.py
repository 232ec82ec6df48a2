"""What an entry of the zoo is: a folder, and the files in it.

`model.safetensors`, `config.yaml` (the model as the command line states it, the data's contract, the weights'
SHA-256, what a person said for the card), `metrics.json` (the measured figures), `README.md` (the model card),
`samples.png` and, where its training was filmed, `learning.png`.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from genzoo.version import __version__
from genzoo.zoo.hub import schema
from genzoo.zoo.hub.schema import NAME
from genzoo.zoo.hub.tasks import task_of

CONFIG, WEIGHTS, METRICS, CARD = "config.yaml", "model.safetensors", "metrics.json", "README.md"
SAMPLES = ("samples.png", "samples.wav", "samples.txt")
LEARNING = "learning.png"
#: arguments of datamodules that say where somebody keeps the data, which is no part of what they are
PLACES = ("root", "path")
#: and those that say what it may use of the machine
MEANS = ("num_workers", "in_memory", "memory_limit")
FILES = (CONFIG, WEIGHTS, METRICS, CARD, *SAMPLES, LEARNING)

EMBEDDED = Path(__file__).parents[1] / "weights"


@dataclass(frozen=True)
class Entry:
    """One entry of the zoo; its files are read, and checked, when asked for. What they say is data, and no more."""

    name: str
    path: Path

    @property
    def config(self) -> dict[str, Any]:
        """What config.yaml holds: `genzoo`, `model`, `weights`, `data`, `shape`, `levels`, `num_classes`, …"""
        return read_config(self.path)

    @property
    def metrics(self) -> dict[str, Any]:
        """What metrics.json holds: `figures`, `evaluation`, `training`, `environment`; {} without it.

        Raises:
            ValueError: the file is damaged.
        """
        path = file_of(self.path, METRICS)
        return {} if path is None else schema.checked(schema.read_json(path), schema.METRICS, path)

    @property
    def split_fingerprints(self) -> list[str]:
        """Of the data that it was trained on (`DataModule.split_fingerprints`), as far as they are known."""
        return list(self.metrics.get("training", {}).get("split_fingerprints", []))

    @property
    def damage(self) -> str | None:
        """What is wrong with its configuration or its figures, in a line; None where they can be used."""
        try:
            _ = self.config, self.metrics
        except (ValueError, OSError) as error:
            return str(error)
        return None

    @property
    def task(self) -> str:
        """What its data are, and how they are quantised: figures compare between entries of one task."""
        return task_of(self.config)


def list_models(pattern: str = "*") -> list[Entry]:
    """The embedded entries whose names match `pattern` (as file names do: `mnist/*`), in natural order."""
    names = (path.parent.relative_to(EMBEDDED).as_posix() for path in EMBEDDED.glob(f"**/{CONFIG}"))
    named = sorted((name for name in names if NAME.fullmatch(name)), key=_natural)
    return [Entry(name, EMBEDDED / name) for name in named if fnmatchcase(name, pattern)]


def by_task(entries: Iterable[Entry]) -> dict[str, list[Entry]]:
    """The entries of each task, in the order in which the tasks first occur."""
    found: dict[str, list[Entry]] = {}
    for entry in entries:
        found.setdefault(entry.task, []).append(entry)
    return found


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.findall(r"\d+|\D+", name)]


def file_of(folder: Path, name: str) -> Path | None:
    """A file of an entry; None where it is not there.

    Raises:
        ValueError: it is no file, or a link that leads out of the entry: what lies elsewhere is none of its own.
    """
    path, home = folder / name, folder.resolve()
    if not path.exists():
        return None
    own = [home]
    if EMBEDDED in folder.parents and path.resolve().name == name:  # some installers link to a file of that name
        own.append(path.resolve().parent)
    if len(home.parents) > 1:  # Hugging Face's cache: a revision's files are links to blobs beside its `snapshots`
        own.append(home.parents[1] / "blobs")
    if not path.is_file() or path.resolve().parent not in own:
        raise ValueError(f"{path} is no file, or a link out of its folder: an entry consists of files of its own")
    return path


def read_config(folder: Path) -> dict[str, Any]:
    """The configuration of the entry in `folder`.

    Raises:
        FileNotFoundError: there is no entry.
        ValueError: the file is damaged, or was written by a newer genzoo.
    """
    path = file_of(folder, CONFIG)
    if path is None:
        raise FileNotFoundError(f"{folder} is no entry of a zoo: it has no {CONFIG}")
    config = schema.read_yaml(path)
    written = str(config.get("genzoo", ""))[:40] if isinstance(config, dict) else ""
    if _release(written) > _release(__version__):  # whose files may have another form
        raise ValueError(f"{path} was written by genzoo {written}, and this is {__version__}: pip install -U genzoo")
    return schema.checked(config, schema.CONFIG, path)


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])  # major, minor


def protocol_of(evaluation: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """What an entry, or a run's configuration, may ask of `evaluate`; and the names of what is left out of it.

    That is a fixed list of plain figures. An extractor is taken where it is an embedded entry, or Inception: no path
    or address that a file names is opened.

    Args:
        evaluation: as `schema.METRICS` has it.
    """
    embedded = {entry.name for entry in list_models()}
    stated = {name: value for name, value in evaluation.items() if value is not None and not isinstance(value, dict)}
    taken = {name: value for name, value in stated.items() if name in schema.EVALUATION}
    if taken.get("extractor") not in (None, "inception", *embedded):
        del taken["extractor"]
    return taken, [name for name, value in evaluation.items() if name not in taken and value is not None]
