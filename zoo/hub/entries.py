"""What an entry of the zoo is: a folder, and the files in it.

`model.safetensors`, `config.yaml` (the model as the command line states it, the data's contract, the weights'
SHA-256, what a person said for the card), `metrics.json` (the measured figures), `README.md` (the model card),
`samples.png` and, where its training was filmed, `learning.png`.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml

from genzoo.version import __version__
from genzoo.zoo.hub.tasks import task_of

CONFIG, WEIGHTS, METRICS, CARD = "config.yaml", "model.safetensors", "metrics.json", "README.md"
SAMPLES = ("samples.png", "samples.wav", "samples.txt")
LEARNING = "learning.png"

EMBEDDED = Path(__file__).parents[1] / "weights"
NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)*")


@dataclass(frozen=True)
class Entry:
    """One entry of the zoo; its files are read when asked for."""

    name: str
    path: Path

    @property
    def config(self) -> dict[str, Any]:
        """What config.yaml holds: `genzoo`, `model`, `data`, `shape`, `levels`, `num_classes`, `weights`."""
        return read_config(self.path)

    @property
    def metrics(self) -> dict[str, Any]:
        """What metrics.json holds: `figures`, `evaluation`, `training`, `environment`; {} without it."""
        path = self.path / METRICS
        return json.loads(path.read_text("utf-8")) if path.is_file() else {}

    @property
    def task(self) -> str:
        """What its data are, and how they are quantised: figures compare between entries of one task."""
        return task_of(self.config)


def list_models(pattern: str = "*") -> list[Entry]:
    """The embedded entries whose names match `pattern` (as file names do: `mnist/*`), in natural order."""
    names = (path.parent.relative_to(EMBEDDED).as_posix() for path in EMBEDDED.glob(f"**/{CONFIG}"))
    return [Entry(n, EMBEDDED / n) for n in sorted(names, key=_natural) if fnmatchcase(n, pattern)]


def by_task(entries: Iterable[Entry]) -> dict[str, list[Entry]]:
    """The entries of each task, in the order in which the tasks first occur."""
    found: dict[str, list[Entry]] = {}
    for entry in entries:
        found.setdefault(entry.task, []).append(entry)
    return found


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.findall(r"\d+|\D+", name)]


def read_config(folder: Path) -> dict[str, Any]:
    """The configuration of the entry in `folder`.

    Raises:
        FileNotFoundError: there is no entry.
        ValueError: the file is damaged, or was written by a newer genzoo.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise FileNotFoundError(f"{folder} is no entry of a zoo: it has no {CONFIG}")
    try:
        text = path.read_text("utf-8")
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text)):
            raise ValueError(
                f"{path} is damaged: genzoo writes no aliases, with which a small file grows without end"
            )
        config = yaml.safe_load(text)
        written, stated = config["genzoo"], (config["model"]["class_path"], config["weights"]["sha256"])
    except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged or not written by genzoo ({type(error).__name__}: {error})") from None
    if not all(isinstance(text, str) for text in (written, *stated)):
        raise ValueError(f"{path} is damaged: genzoo, class_path and sha256 must be text")
    if _release(written) > _release(__version__):
        raise ValueError(f"{path} was written by genzoo {written}, and this is {__version__}: pip install -U genzoo")
    return config


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])  # major, minor
