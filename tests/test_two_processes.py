"""Two processes under DDP: the figures of one, and one model on both."""

from pathlib import Path

import pytest
import torch
from running import VAE_OF_DIGITS, genzoo, last_run, logged

# In the user's own folder: features for the distance, and a callback that keeps what each process came to.
OWN = """\
import torch
from lightning.pytorch import Callback
from torch import nn


class Features(nn.Module):
    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.register_buffer("weight", torch.randn(64, 6, generator=generator))

    def forward(self, x):
        return (x.flatten(1) @ self.weight).tanh()


class Keep(Callback):
    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        torch.save(torch.get_rng_state(), f"noise-{trainer.world_size}-{trainer.global_rank}.pt")

    def on_validation_start(self, trainer, pl_module):
        self.keep(trainer, pl_module, "validated")

    def on_validation_end(self, trainer, pl_module):
        self.keep(trainer, pl_module, "trained")

    def on_fit_end(self, trainer, pl_module):
        self.keep(trainer, pl_module, "returned")

    def keep(self, trainer, pl_module, when):
        if not trainer.sanity_checking:
            torch.save(pl_module.state_dict(), f"{when}-{trainer.world_size}-{trainer.global_rank}.pt")
"""

CALLBACKS = """\
trainer:
  callbacks:
    - class_path: FrechetDistance
      init_args: {extractor: {class_path: two_processes_own.Features}, num_samples: 30, batch_size: 7, kid: true}
    - class_path: LikelihoodLogger
      init_args: {num_particles: 5}
    - class_path: LikelihoodLogger
      init_args: {num_particles: 2, split: test}
    - class_path: EMA
      init_args: {decay: 0.9}
    - class_path: SampleLogger
      init_args: {num_samples: 4, num_examples: 2}
    - class_path: two_processes_own.Keep
"""

# 101 rows in batches of 8: neither the rows nor the batches come out even.
RECIPE = ["--config=small.yaml", "--config=callbacks.yaml", "--data.val_size=101", "--data.batch_size=8"]
TWO = ["--trainer.strategy=ddp", "--trainer.devices=2"]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which two processes have trained a VAE with every callback."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "two_processes_own.py").write_text(OWN)
    (folder / "small.yaml").write_text(VAE_OF_DIGITS)
    (folder / "callbacks.yaml").write_text(CALLBACKS)
    genzoo("fit", *RECIPE, *TWO, cwd=folder)
    return folder


def test_they_share_one_run(project: Path) -> None:
    (run,) = (project / "runs/small").iterdir()
    assert {path.name for path in run.iterdir()} >= {"checkpoints", "config.yaml", "metrics.csv", "samples"}
    pages = sorted(path.name for path in (run / "samples").iterdir())
    kinds = ("completions", "interpolations", "reconstructions", "samples")
    assert pages == [f"{kind}-{step:08d}.png" for kind in kinds for step in (8, 16)]


@pytest.mark.parametrize("when", ["validated", "trained", "returned"])
def test_both_hold_the_same_weights(project: Path, when: str) -> None:
    """The averaged ones in validation and at the end, the raw ones in between."""
    first, second = (torch.load(project / f"{when}-2-{rank}.pt", weights_only=True) for rank in range(2))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_each_draws_its_own_noise(project: Path) -> None:
    """Of which there is as much as in one process with all the data."""
    first, second = (torch.load(project / f"noise-2-{rank}.pt", weights_only=True) for rank in range(2))
    drawn = [torch.Generator().set_state(state) for state in (first, second)]
    assert not torch.equal(*(torch.rand(10, generator=generator) for generator in drawn))


def test_the_average_is_not_the_last_step(project: Path) -> None:
    trained, returned = (
        torch.load(project / f"{when}-2-0.pt", weights_only=True) for when in ("trained", "returned")
    )
    assert any(not torch.equal(trained[name], returned[name]) for name in trained)


def test_their_figures_are_those_of_one(project: Path) -> None:
    """Of the same checkpoint: measured in training by two, then validated by one and by two."""
    trained = last_run(project)
    (checkpoint,) = (trained / "checkpoints").glob("*.ckpt")
    measured = {"two, while training": logged(trained)}
    for processes, options in (("one", []), ("two", TWO)):
        genzoo("validate", *RECIPE, "--ckpt_path", str(checkpoint), *options, cwd=project)
        measured[processes] = logged(last_run(project))
    one = measured.pop("one")
    figures = {name for name in one if name.startswith(("val/", "test/"))}
    assert figures >= {
        *("val/nll", "val/elbo", "val/kl", "val/bits_per_dim", "val/frechet", "val/kid"),
        *("val/nll_bound_k5", "val/bits_per_dim_bound_k5", "test/nll_bound_k2"),
    }
    for processes, values in measured.items():
        for name in figures:
            assert values[name] == pytest.approx(one[name], rel=1e-5), f"{name}: {processes}"
