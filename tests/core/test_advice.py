"""Lightning's advice, as a user of a recipe meets it: through the command, in one line, with the option to give."""

import sys
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from running import QUIET, VAE_OF_DIGITS

from genzoo.advice import in_our_words
from genzoo.cli import main
from genzoo.datamodules import DigitsDataModule
from genzoo.zoo import VAE

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    Path("small.yaml").write_text(VAE_OF_DIGITS)
    gan = "class_path: GAN\n  init_args: {network: mlp, width: 8, depth: 1, latent_dim: 2}\n"
    Path("gan.yaml").write_text(f"model:\n  {gan}" + VAE_OF_DIGITS[VAE_OF_DIGITS.index("data:") :])


@pytest.mark.parametrize(
    ("recipe", "options", "says"),
    [
        ("gan", "--trainer.gradient_clip_val=1", "give --model.gradient_clip_norm in place of"),
        ("gan", "--trainer.accumulate_grad_batches=2", "give --model.micro_batches in place of"),
        ("small", "--trainer.val_check_interval=9", "val_check_interval=9, but an epoch has 8 batches"),
        ("small", "--trainer.callbacks+=ModelCheckpoint --trainer.callbacks.monitor=val/nl", "did you mean val/nll?"),
        ("small", "--trainer.callbacks+=EarlyStopping --trainer.callbacks.monitor=val/nl", "did you mean val/nll?"),
        ("small", "--trainer.accelerator=cpuu", "no accelerator is called cpuu"),
        ("small", "--trainer.accelerator=mps", "there is no MPS on this machine"),
        ("small", "--trainer.strategy=dpd", "no strategy is called dpd"),
        (
            "small",
            "--trainer.enable_checkpointing=false --trainer.callbacks+=ModelCheckpoint",
            "a ModelCheckpoint among",
        ),
        ("small", "--trainer.callbacks+=EMA --trainer.callbacks+=EMA", "there are two EMA among the callbacks"),
    ],
)
def test_what_to_give_instead(recipe: str, options: str, says: str, capsys: Captured) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["fit", "--config", f"{recipe}.yaml", *QUIET, *options.split()])
    assert ended.value.code == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("genzoo: error: ") and says in error, error
    assert "HINT" not in error and "LightningModule" not in error and "Trainer(" not in error, error


class OnPlateau(VAE):
    """A module of somebody's own, whose schedule watches a figure that is not there."""

    def configure_optimizers(self) -> dict:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.0)
        schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "monitor": "val/nl"}}


class Fused(VAE):
    """Likewise, whose optimiser is fused as PyTorch does it; that of a module of ours can be clipped."""

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), fused=True)


def test_a_fused_optimiser_that_cannot_be_clipped() -> None:
    module = Fused(shape=(1, 8, 8), levels=17, network="mlp", width=8, depth=1, latent_dim=2)
    trainer = Trainer(accelerator="cpu", precision="bf16-mixed", max_steps=1, gradient_clip_val=1, logger=False)
    with pytest.raises(RuntimeError) as raised:
        trainer.fit(module, DigitsDataModule(limit=128, batch_size=16))
    said = in_our_words(raised.value)
    assert said is not None and said.startswith("a fused AdamW cannot have its gradients clipped in mixed precision")


def test_what_a_plateau_watches(tmp_path: Path) -> None:
    trainer = Trainer(
        default_root_dir=tmp_path,
        accelerator="cpu",
        max_epochs=1,
        limit_train_batches=1,
        limit_val_batches=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    module = OnPlateau(shape=(1, 8, 8), levels=17, network="mlp", width=8, depth=1, latent_dim=2)
    with pytest.raises(MisconfigurationException) as raised:
        trainer.fit(module, DigitsDataModule(limit=128, batch_size=16))
    said = in_our_words(raised.value)
    assert said == "ReduceLROnPlateau monitors val/nl, which nothing logs; did you mean val/nll?"
    assert in_our_words(ValueError("a bug")) is None
