"""Where figures are kept: a CSV file for each kind of hardware, whose rows say with what each was measured."""

import csv
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import torch

from genzoo.metrics.environment import environment

RESULTS = Path(__file__).resolve().parent / "results"
FEATURES = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")  # what decides how fast a processor multiplies matrices


def processor() -> tuple[str, list[str]]:
    """What the processor calls itself, and which of `FEATURES` it has."""
    try:
        said = Path("/proc/cpuinfo").read_text()
    except OSError:  # not Linux
        capability = torch.backends.cpu.get_cpu_capability().lower()
        return os.uname().machine, [capability]
    name = re.search(r"^model name\s*: (.*)$", said, re.M)
    flags = re.search(r"^flags\s*: (.*)$", said, re.M)
    known = flags[1].split() if flags else []
    plain = re.sub(r"\(R\)|\(TM\)|CPU|Processor|@.*", "", name[1] if name else os.uname().machine)
    family = re.search(r"^cpu family\s*: (\d+)$", said, re.M)
    if family and not re.search(r"\d", plain):  # a virtual machine's: generations of one brand differ by half
        plain = f"{plain} of family {family[1]}"
    return " ".join(plain.split()), [feature for feature in FEATURES if feature in known]


def hardware() -> str:
    """The processor's family, the threads that PyTorch takes, and its best feature, in words."""
    name, features = processor()
    threads = torch.get_num_threads()
    return ", ".join([name, f"{threads} thread{'s' * (threads > 1)}", *features[-1:]])


def precision() -> str:
    """As Lightning calls it: float32, as peers train, but bfloat16 with matrix units (AMX)."""
    return "bf16-mixed" if "amx_bf16" in processor()[1] else "32-true"


def slug(hardware: str) -> str:
    """As the name of a file."""
    return re.sub(r"[^a-z0-9]+", "-", hardware.lower()).strip("-")


def stamp() -> dict[str, Any]:
    """With what something was measured, and when."""
    known = environment()
    return {
        "hardware": hardware(),
        "genzoo": known["genzoo"],
        "commit": known["commit"],
        "torch": known["torch"],
        "date": date.today().isoformat(),
    }


def read(path: Path) -> list[dict[str, str]]:
    """The rows of a file; none, if there is no such file."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def merge(path: Path, rows: Iterable[Mapping[str, Any]], key: Sequence[str]) -> None:
    """Writes rows into a file, in whole: one of the same key is replaced where it stands, a new one put at the end.

    Args:
        path: of the file, whose folder is made.
        rows: what was measured; None is an empty cell, a number is kept to four digits.
        key: the columns that say what a row is about.
    """
    kept = {tuple(row[name] for name in key): row for row in read(path)}
    for row in rows:
        text = {name: cell(value) for name, value in row.items()}
        kept[tuple(text[name] for name in key)] = text
    columns = list(dict.fromkeys(name for row in kept.values() for name in row))
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_suffix(".tmp")
    with half.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n", restval="")
        writer.writeheader()
        writer.writerows(kept.values())
    os.replace(half, path)


def cell(value: Any) -> str:
    """A value as it is written."""
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
