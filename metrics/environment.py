"""Where something was measured."""

import platform
import subprocess
from pathlib import Path

import lightning
import torch

from genzoo.version import __version__


def environment() -> dict[str, str | None]:
    """Versions, and the commit of genzoo where it runs from a clone ("+" marks uncommitted changes)."""
    return {
        "commit": _commit(),
        "genzoo": __version__,
        "torch": str(torch.__version__),
        "lightning": lightning.__version__,
        "python": platform.python_version(),
    }


def hardware(device: torch.device) -> str:
    """What the device is, in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{torch.get_num_threads()} CPU threads ({platform.machine()})" if device.type == "cpu" else device.type


def _commit() -> str | None:
    here = Path(__file__).resolve().parent
    if not (here.parent / ".git").exists():  # installed as a wheel, perhaps inside somebody else's repository
        return None
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--abbrev=12", "--exclude=*", "--dirty=+"],
            cwd=here,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):  # no git, or a clone without commits
        return None
    return described.stdout.strip()
