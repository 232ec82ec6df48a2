"""Where a run keeps its files."""

from pathlib import Path

from lightning.pytorch import Trainer


def run_folder(trainer: Trainer) -> Path:
    """The folder of this run: the one in which its `checkpoints` folder lies.

    That is the parent of the first checkpoint callback's `dirpath`; without one, the logger's folder
    (`trainer.log_dir`); without a logger, `trainer.default_root_dir`. Every rank must ask: `log_dir` is
    agreed on by all of them.
    """
    for callback in trainer.checkpoint_callbacks:
        if dirpath := getattr(callback, "dirpath", None):
            return Path(dirpath).parent
    return Path(trainer.log_dir or trainer.default_root_dir)
