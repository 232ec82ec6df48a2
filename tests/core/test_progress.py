"""The progress bar ends with its run."""

import pytest
import torch
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader, TensorDataset

from genzoo.progress import Progress
from genzoo.zoo import VAE


def test_nobody_waits_for_the_bar_at_the_end(tmp_path, capsys):
    """Its thread would sleep for ten minutes before it draws again."""
    bar = Progress(refresh_rate=1 / 600)
    trainer = Trainer(
        max_steps=3,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        default_root_dir=tmp_path,
        callbacks=[bar],
    )
    trainer.fit(VAE((2,), None), DataLoader(TensorDataset(torch.randn(8, 2)), batch_size=2))
    assert trainer.global_step == 3
    assert "3/3" in capsys.readouterr().out


@pytest.mark.parametrize(("bounds", "said"), [({"max_steps": 3}, "Epoch 0 "), ({"max_epochs": 1}, "Epoch 0/0 ")])
def test_epochs_are_counted_up_to_their_number_where_there_is_one(bounds, said, tmp_path, capsys):
    quiet = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False, "enable_model_summary": False}
    trainer = Trainer(**bounds, **quiet, default_root_dir=tmp_path, callbacks=[Progress()])
    trainer.fit(VAE((2,), None), DataLoader(TensorDataset(torch.randn(8, 2)), batch_size=2))
    shown = capsys.readouterr().out
    assert said in shown and "-2" not in shown
