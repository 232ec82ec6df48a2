"""genzoo's parts in somebody else's project, and somebody else's Trainer around genzoo's model: without the CLI."""

from pathlib import Path

from running import VAE_OF_DIGITS, genzoo, last_run, python

# A model that owes genzoo nothing: pixels that are independent given the class. It samples and has a likelihood.
MODEL = """\
import math

import torch
from lightning.pytorch import LightningModule
from torch import nn
from torch.distributions import Categorical


class Pixels(LightningModule):
    log_prob_kind = "exact"

    def __init__(self):
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(64, 17))

    def log_prob(self, x):
        return Categorical(logits=self.logits).log_prob((x.flatten(1) * 16).round()).sum(1)

    def bits_per_dim(self, x):
        return -self.log_prob(x) / (64 * math.log(2))

    def sample(self, num_samples):
        return Categorical(logits=self.logits).sample((num_samples,)).view(-1, 1, 8, 8) / 16

    def training_step(self, batch, batch_idx):
        return -self.log_prob(batch[0]).mean()

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", -self.log_prob(batch[0]).mean())

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 0.1)


class Features(nn.Module):
    def forward(self, x):
        return nn.functional.avg_pool2d(x, 2).flatten(1)
"""

TRAIN = """\
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from model import Features, Pixels

from genzoo.callbacks import EMA, FrechetDistance, LikelihoodLogger, SampleLogger
from genzoo.datamodules import DigitsDataModule

seed_everything(0)
trainer = Trainer(
    max_epochs=3,
    accelerator="cpu",
    logger=False,
    enable_progress_bar=False,
    enable_model_summary=False,
    callbacks=[
        SampleLogger(num_samples=9),
        FrechetDistance(Features(), num_samples=200),
        LikelihoodLogger(),
        EMA(decay=0.9),
        ModelCheckpoint("checkpoints", monitor="val/frechet"),
    ],
)
model = Pixels()
trainer.fit(model, datamodule=DigitsDataModule())
figures = {name: float(value) for name, value in trainer.callback_metrics.items()}
assert figures["val/nll_exact"] < 64 * 2.833  # log 17: better than knowing nothing
assert abs(figures["val/bits_per_dim_exact"] - figures["val/nll_exact"] / (64 * 0.693147)) < 1e-3
assert figures["val/frechet"] > 0
again = Pixels.load_from_checkpoint(trainer.checkpoint_callback.best_model_path)  # nothing of ours is in the way
assert set(again.state_dict()) == {"logits"}
"""

BARE = """\
import torch
from lightning.pytorch import Trainer
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset

from genzoo.zoo import VAE

digits = load_digits()
x = torch.tensor(digits.images[:203], dtype=torch.float32).unsqueeze(1) / 16  # the last batch is ragged
pairs = DataLoader(TensorDataset(x, torch.tensor(digits.target[:203])), batch_size=32, shuffle=True)
torch.manual_seed(0)
model = VAE(shape=(1, 8, 8), levels=17, latent_dim=2, network="mlp", width=16)
trainer = Trainer(max_epochs=6, accelerator="cpu", logger=False, enable_progress_bar=False)
trainer.fit(model, pairs, DataLoader(x[:50], batch_size=1))
assert 0 < trainer.callback_metrics["val/nll"] < 64 * 2.833 - 3  # uniform guesses: ln 17 for each pixel
trainer.save_checkpoint("bare.ckpt")
torch.save(model.eval().reconstruct(x), "expected.pt")
torch.save(x, "x.pt")
"""


def run(script: str, folder: Path, *, fresh: bool = False) -> None:
    """A script; `fresh`: in an interpreter that has imported nothing yet."""
    file = folder / "script.py"
    file.write_text(script)
    ended = python(*(("-c", script) if fresh else (str(file),)), cwd=folder)
    assert ended.returncode == 0, ended.stderr


def test_our_callbacks_and_data_around_a_model_that_is_not_ours(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(MODEL)
    run(TRAIN, tmp_path)
    assert len(list((tmp_path / "samples").glob("samples-*.png"))) == 3


def test_a_bare_trainer_around_our_model(tmp_path: Path) -> None:
    run(BARE, tmp_path)
    run(
        "import torch\n"
        "from genzoo.zoo import VAE\n"
        "model = VAE.load_from_checkpoint('bare.ckpt').eval()\n"
        "assert (model.shape, model.levels, model.latent_dim) == ((1, 8, 8), 17, 2)\n"
        "assert torch.equal(model.reconstruct(torch.load('x.pt')), torch.load('expected.pt'))",
        tmp_path,
        fresh=True,
    )


def test_a_checkpoint_of_the_command_line_without_it(tmp_path: Path) -> None:
    """By Lightning's base class, which finds the class by its name, and by that class itself."""
    (tmp_path / "small.yaml").write_text(VAE_OF_DIGITS)
    genzoo("fit", "--config=small.yaml", "--model.likelihood.mixtures=2", cwd=tmp_path)
    (checkpoint,) = (last_run(tmp_path) / "checkpoints").glob("*.ckpt")
    checkpoint.rename(tmp_path / "trained.ckpt")
    run(
        "import genzoo.zoo\n"
        "from lightning.pytorch import LightningModule\n"
        "found = LightningModule.load_from_checkpoint('trained.ckpt')\n"
        "asked = genzoo.zoo.VAE.load_from_checkpoint('trained.ckpt')\n"
        "for model in (found, asked):\n"
        "    assert type(model) is genzoo.zoo.VAE and model.shape == (1, 8, 8) and model.latent_dim == 2\n"
        "    assert type(model.likelihood) is genzoo.zoo.DiscretisedLogistic and model.likelihood.mixtures == 2\n"
        "    assert model.sample(2).shape == (2, 1, 8, 8)",
        tmp_path,
        fresh=True,
    )
