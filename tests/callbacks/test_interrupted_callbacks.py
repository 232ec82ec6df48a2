"""A run killed in the middle of an epoch, and resumed, ends with the weights of one that was left in peace."""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from running import python


def run(folder: Path, *, kill_at: int | None, ckpt_path: str | None) -> None:
    """Trains with every callback that draws or averages; dies without warning after `kill_at` steps."""
    from lightning.pytorch import Callback, Trainer, seed_everything
    from lightning.pytorch.callbacks import ModelCheckpoint

    from genzoo.callbacks import EMA, FrechetDistance, LikelihoodLogger, SampleLogger
    from genzoo.datamodules import DigitsDataModule
    from genzoo.zoo import VAE

    class Kill(Callback):
        def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
            if trainer.global_step == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    seed_everything(0)
    features = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 4))
    kept = ModelCheckpoint(folder / "checkpoints", every_n_train_steps=5, save_top_k=-1, filename="{step}")
    callbacks = [
        *(SampleLogger(4), FrechetDistance(features, num_samples=40, cache_dir=str(folder))),
        *(EMA(0.9), LikelihoodLogger(2), kept, Kill()),
    ]
    trainer = Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        default_root_dir=folder,
        callbacks=callbacks,
    )
    model = VAE((1, 8, 8), 17, latent_dim=2, network="mlp", width=16, depth=1)
    trainer.fit(model, DigitsDataModule(batch_size=16, limit=192), ckpt_path=ckpt_path)
    trainer.save_checkpoint(folder / "end.ckpt")


def start(folder: Path, kill_at: int | None, ckpt_path: Path | None) -> int:
    arguments = json.dumps([str(folder), kill_at, ckpt_path and str(ckpt_path)])
    return python(__file__, arguments, cwd=folder.parent).returncode


def test_killed_and_resumed(tmp_path: Path) -> None:
    """12 steps an epoch; killed after 17, in the second epoch, and resumed from the checkpoint at 15."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert start(whole, None, None) == 0
    assert start(killed, 17, None) == -signal.SIGKILL
    assert not (killed / "end.ckpt").exists()
    assert start(killed, None, killed / "checkpoints" / "step=15.ckpt") == 0
    one, two = (torch.load(folder / "end.ckpt", weights_only=True) for folder in (whole, killed))
    assert one["global_step"] == two["global_step"] == 24
    assert one["callbacks"]["EMA"]["num_updates"] == two["callbacks"]["EMA"]["num_updates"] == 24
    for a, b in ((one, two), (one["callbacks"]["EMA"]["raw"], two["callbacks"]["EMA"]["raw"])):
        a, b = a.get("state_dict", a), b.get("state_dict", b)
        assert a.keys() == b.keys()
        assert all(torch.equal(a[name], b[name]) for name in a)
    page = [folder / "samples" / "samples-00000024.png" for folder in (whole, killed)]
    assert page[0].read_bytes() == page[1].read_bytes()


if __name__ == "__main__":
    folder, kill_at, ckpt_path = json.loads(sys.argv[1])
    run(Path(folder), kill_at=kill_at, ckpt_path=ckpt_path)
