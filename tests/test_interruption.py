"""A run that is killed goes on as if nothing had happened, and leaves no half of a file behind."""

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image
from running import QUIET, VAE_OF_DIGITS, genzoo, last_run, python

from genzoo.cli import main

# In the user's own folder: a callback that ends the process as a power cut would, or a scheduler.
OWN = """\
import os
import signal

from lightning.pytorch import Callback


class PowerCut(Callback):
    def __init__(self, step: int, kind: str = "SIGKILL"):
        self.step, self.kind = step, getattr(signal, kind)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == self.step:
            os.kill(os.getpid(), self.kind)
"""

# Everything that has a state: noise redrawn in every batch, a schedule, the average, the KL's warm-up, pictures.
MORE = """\
model:
  init_args:
    kl_warmup: 15
    lr_scheduler: {class_path: torch.optim.lr_scheduler.OneCycleLR, init_args: {max_lr: 0.01, total_steps: 24}}
data: {init_args: {binarize: dynamic}}
trainer:
  max_epochs: 3  # of 8 steps
  callbacks:
    - class_path: SampleLogger
      init_args: {num_samples: 4, num_examples: 2}
    - class_path: EMA
      init_args: {decay: 0.9}
    - class_path: ModelCheckpoint
      init_args: {every_n_train_steps: 3, save_top_k: -1, save_last: true}
"""
RECIPE = ["--config=small.yaml", "--config=more.yaml"]
POWER_CUT = "--trainer.callbacks+=interruption_own.PowerCut"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    (folder / "interruption_own.py").write_text(OWN)
    (folder / "small.yaml").write_text(VAE_OF_DIGITS)
    (folder / "more.yaml").write_text(MORE)
    return folder


@pytest.fixture(scope="module")
def uninterrupted(project: Path) -> Path:
    genzoo("fit", *RECIPE, cwd=project)
    return last_run(project)


def assert_same(one: Any, other: Any, where: str = "") -> None:
    """Equal bit for bit, all the way down."""
    assert type(one) is type(other), where
    if isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_same(one[key], other[key], f"{where}/{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for index, pair in enumerate(zip(one, other, strict=True)):
            assert_same(*pair, f"{where}/{index}")
    elif isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype and torch.equal(one, other), where
    else:
        assert one == other, where


@pytest.mark.parametrize("step", [13, pytest.param(7, marks=pytest.mark.slow)])
def test_killed_within_an_epoch_and_resumed(project: Path, uninterrupted: Path, step: int) -> None:
    """One step after the last checkpoint, in the second epoch; and in the first."""
    cut = python("-m", "genzoo", "fit", *RECIPE, *QUIET, POWER_CUT, f"--trainer.callbacks.step={step}", cwd=project)
    assert cut.returncode == -signal.SIGKILL, cut.stderr
    last = last_run(project) / "checkpoints" / "last.ckpt"
    assert torch.load(last, weights_only=True)["global_step"] == step // 3 * 3
    genzoo("fit", *RECIPE, "--ckpt_path", str(last), cwd=project)
    ours, whole = (
        torch.load(run / "checkpoints" / "last.ckpt", weights_only=True) for run in (last_run(project), uninterrupted)
    )
    assert whole["global_step"] == 24
    # the average, the raw weights, the optimiser, the schedule, the random state, the place in the data
    for part in ("state_dict", "optimizer_states", "lr_schedulers", "random_state", "global_step", "epoch"):
        assert_same(ours[part], whole[part], part)
    (average,) = (name for name in whole["callbacks"] if name.startswith("EMA"))
    assert_same(ours["callbacks"][average], whole["callbacks"][average])
    assert any(not torch.equal(raw, whole["state_dict"][k]) for k, raw in whole["callbacks"][average]["raw"].items())
    for page in sorted((last_run(project) / "samples").iterdir()):  # the same pictures, too
        assert page.read_bytes() == (uninterrupted / "samples" / page.name).read_bytes(), page.name


def test_a_terminated_run_does_not_end_as_if_it_were_done(project: Path) -> None:
    options = [POWER_CUT, "--trainer.callbacks.step=7", "--trainer.callbacks.kind=SIGTERM"]
    cut = python("-m", "genzoo", "fit", *RECIPE, *QUIET, *options, cwd=project)
    assert cut.returncode == 128 + signal.SIGTERM
    assert "terminated at step 7" in cut.stderr


BUSY = """\
trainer:
  max_epochs: 1000
  callbacks:
    - class_path: SampleLogger
    - class_path: ModelCheckpoint
      init_args: {every_n_train_steps: 1, save_last: true}
"""


def test_killed_at_any_moment_every_file_is_whole(tmp_path: Path) -> None:
    """This one is nearly always writing something."""
    (tmp_path / "small.yaml").write_text(VAE_OF_DIGITS)
    (tmp_path / "busy.yaml").write_text(BUSY)
    command = [sys.executable, "-m", "genzoo", "fit", "--config=small.yaml", "--config=busy.yaml", *QUIET]
    with (tmp_path / "output").open("w") as output:
        process = subprocess.Popen(command, cwd=tmp_path, stdout=output, stderr=output)
        while not list(tmp_path.glob("runs/small/*/samples/*.png")):
            assert process.poll() is None, (tmp_path / "output").read_text()
            time.sleep(0.05)
        time.sleep(1)
        process.kill()
        process.wait()
    run = last_run(tmp_path)
    assert yaml.safe_load((run / "config.yaml").read_text())["trainer"]["max_epochs"] == 1000
    checkpoints = list((run / "checkpoints").glob("*.ckpt"))
    assert run / "checkpoints" / "last.ckpt" in checkpoints
    for path in checkpoints:
        assert torch.load(path, weights_only=True)["global_step"] > 0
    for path in run.glob("samples/*.png"):
        Image.open(path).load()


def test_a_disk_that_is_full_spoils_no_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lightning moves checkpoints from a temporary folder: between two disks that is a copy, which can break off."""
    from fsspec.implementations import local

    def move(source: str, target: str) -> None:
        whole = Path(source).read_bytes()
        if len(moved) == 4:
            Path(target).write_bytes(whole[: len(whole) // 2])
            raise OSError(28, "No space left on device")
        moved.append(target)
        Path(target).write_bytes(whole)

    moved: list[str] = []
    monkeypatch.setattr(local.shutil, "move", move)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "small.yaml").write_text(VAE_OF_DIGITS)
    (tmp_path / "busy.yaml").write_text(BUSY)
    with pytest.raises(OSError, match="No space left"):
        main(["fit", "--config=small.yaml", "--config=busy.yaml", *QUIET])
    checkpoints = list(tmp_path.glob("runs/small/*/checkpoints/*.ckpt"))
    assert any(path.name == "last.ckpt" for path in checkpoints)
    assert all(torch.load(path, weights_only=True)["global_step"] > 0 for path in checkpoints)
