"""`precision: auto`: the precision that is fastest on this hardware, or that of the run which goes on."""

from pathlib import Path

import torch
import yaml
from jsonargparse import Namespace
from lightning.pytorch.trainer.connectors.accelerator_connector import _AcceleratorConnector

from genzoo.zoo.precision import fastest_precision


def settled(accelerator: str | Namespace, checkpoint: str | None) -> tuple[str, str]:
    """What `auto` comes to: the precision of the run that a checkpoint is of, else the fastest here; and why.

    Args:
        accelerator: as the Trainer is to be given it.
        checkpoint: its path or address; of an address, and where no run's `config.yaml` lies with it, nothing is
            known.

    Returns:
        The precision, and the reason in words.
    """
    device = _device_type(accelerator)
    fastest = fastest_precision(device) if device in ("cpu", "cuda") else "32-true"
    before = None if checkpoint is None or "://" in checkpoint else precision_of(Path(checkpoint))
    if before is None:
        return fastest, f"the fastest on this {device}; --trainer.precision gives another"
    return before, "that of the checkpoint's run" + ("" if before == fastest else f"; here {fastest} is the fastest")


def precision_of(checkpoint: Path) -> str | None:
    """The precision of the run in whose folder a checkpoint lies, as its `config.yaml` says; None if none does."""
    for folder in checkpoint.absolute().parents[:2]:
        if (folder / "config.yaml").is_file():
            config = yaml.safe_load((folder / "config.yaml").read_text("utf-8"))
            if isinstance(trainer := config.get("trainer"), dict):
                return "32-true" if trainer.get("precision") is None else str(trainer["precision"])
    return None


def _device_type(accelerator: str | Namespace) -> str:
    if isinstance(accelerator, Namespace):  # CUDAAccelerator and its like
        return str(accelerator.class_path).rpartition(".")[2].removesuffix("Accelerator").lower()
    if accelerator == "auto":
        return _AcceleratorConnector._choose_auto_accelerator()
    return ("cuda" if torch.cuda.is_available() else "mps") if accelerator == "gpu" else accelerator
