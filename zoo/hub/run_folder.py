"""Where a run keeps its files."""

from pathlib import Path

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from genzoo.zoo.hub.checkpoints import FOLDER


def run_folder(trainer: Trainer) -> Path:
    """The folder of this run: the one in which its `checkpoints` folder lies.

    That is the parent of a checkpoint callback's `dirpath`, if that is on a disk: of the first that is called
    `checkpoints`, or else of the first; without one, the folder of the logger's version of its name, as Lightning's
    own checkpoints lie there; without a logger, `trainer.default_root_dir`. Every rank must ask, for
    all of them agree on it.
    """
    stated = [str(getattr(callback, "dirpath", None) or "") for callback in trainer.checkpoint_callbacks]
    folders = [Path(dirpath) for dirpath in stated if dirpath and "://" not in dirpath]
    for found in sorted(folders, key=lambda folder: folder.name != FOLDER):  # which keeps their order
        return found.parent
    folder, logger = Path(trainer.log_dir or trainer.default_root_dir), trainer.logger
    of_one_run = isinstance(logger, CSVLogger | TensorBoardLogger)  # that of another logger holds all its runs
    if logger is not None and not of_one_run:
        version = logger.version if isinstance(logger.version, str) else f"version_{logger.version}"
        folder = Path(trainer.strategy.broadcast(str(folder / str(logger.name) / version)))
    return folder
