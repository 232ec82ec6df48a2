"""Trains families on two processes and keeps what each of them came to; `test_every_family.py` runs it."""

import json
import logging
import sys
from collections.abc import Container
from pathlib import Path

import torch
from families import CODEBOOKS, CONDITIONAL, FIRST, Noise

from genzoo.callbacks import EMA
from genzoo.trainer import AutoTrainer


def main(folder: Path, names: Container[str]) -> None:
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    for case in (case for case in FIRST + CONDITIONAL + CODEBOOKS if str(case) in names):
        model = case.build()
        quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        trainer = AutoTrainer(
            max_epochs=1,
            accelerator="cpu",
            devices=2,
            strategy="ddp",
            default_root_dir=folder,
            enable_checkpointing=False,
            callbacks=[EMA(decay=0.5)],
            **quiet,
        )
        trainer.fit(model, datamodule=Noise(case.shape, case.levels))
        assert trainer.global_step == 3, trainer.global_step
        (figures,) = trainer.validate(model, datamodule=Noise(case.shape, case.levels), verbose=False)
        torch.save(model.state_dict(), folder / f"{case}-{trainer.global_rank}.pt")
        if trainer.global_rank == 0:
            (folder / f"{case}.json").write_text(json.dumps(figures))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
