"""`precision: auto`: the precision that is fastest on this hardware, or that of the run which goes on.

And `accelerator: auto` where that would be one without float64.
"""

from pathlib import Path

import torch
from jsonargparse import Namespace
from lightning.pytorch.trainer.connectors.accelerator_connector import _AcceleratorConnector

from genzoo.zoo.hub.checkpoints import read_run, run_config
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


def has_float64(accelerator: str | Namespace) -> bool:
    """Whether what Lightning would take has it: Apple's GPU has not.

    Likelihoods, the schedules of diffusions and the shares of classes are computed in it.
    """
    return _device_type(accelerator) != "mps"


def precision_of(checkpoint: Path) -> str | None:
    """The precision of the run in whose folder a checkpoint lies, as its `config.yaml` says; None if none does."""
    if (config := run_config(checkpoint)) is None:
        return None
    try:
        trainer = read_run(config).get("trainer")
    except (ValueError, OSError):  # of something else, then
        return None
    if not isinstance(trainer, dict):
        return None
    return "32-true" if trainer.get("precision") is None else str(trainer["precision"])


def _device_type(accelerator: str | Namespace) -> str:
    if isinstance(accelerator, Namespace):  # CUDAAccelerator and its like
        return str(accelerator.class_path).rpartition(".")[2].removesuffix("Accelerator").lower()
    if accelerator == "auto":
        return _AcceleratorConnector._choose_auto_accelerator()
    return ("cuda" if torch.cuda.is_available() else "mps") if accelerator == "gpu" else accelerator
