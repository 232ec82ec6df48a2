"""A run that is killed goes on as if nothing had happened, and leaves no half of a file behind."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image
from running import QUIET, VAE_OF_DIGITS, genzoo, last_run, python
from sameness import assert_same

# In the user's own folder: a callback that ends the process as a power cut would, or a scheduler.
OWN = """\
import os
import resource
import signal
import subprocess
import sys

from lightning.pytorch import Callback


class PowerCut(Callback):
    def __init__(self, step: int, kind: str = "SIGKILL", rank: int = 0, group: bool = False):
        self.step, self.kind, self.rank, self.group = step, getattr(signal, kind), rank, group
        if group:
            os.setpgrp()  # the tests' own is another

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == self.step and trainer.global_rank == self.rank:
            if self.group:  # by somebody else: what its parent sends a reader obeys without a word
                sends = f"import os; os.killpg({os.getpgrp()}, {int(self.kind)})"
                subprocess.run([sys.executable, "-c", sends], start_new_session=True, check=True)
                return
            os.kill(os.getpid(), self.kind)


class SmallDisk(Callback):  # from that step on, no file can be as large as a checkpoint
    def __init__(self, step: int):
        self.step = step

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == self.step:
            resource.setrlimit(resource.RLIMIT_FSIZE, (10000, resource.RLIM_INFINITY))
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


def assert_goes_on_to_the_same_end(project: Path, last: Path, step: int, uninterrupted: Path) -> None:
    """From a checkpoint of that step."""
    assert torch.load(last, weights_only=True)["global_step"] == step
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


@pytest.mark.parametrize("step", [13, pytest.param(7, marks=pytest.mark.thorough)])
def test_killed_within_an_epoch_and_resumed(project: Path, uninterrupted: Path, step: int) -> None:
    """One step after the last checkpoint, in the second epoch; and in the first."""
    cut = python("-m", "genzoo", "fit", *RECIPE, *QUIET, POWER_CUT, f"--trainer.callbacks.step={step}", cwd=project)
    assert cut.returncode == -signal.SIGKILL, cut.stderr
    last = last_run(project) / "checkpoints" / "last.ckpt"
    assert_goes_on_to_the_same_end(project, last, step // 3 * 3, uninterrupted)


@pytest.mark.parametrize(
    ("kind", "code"),
    [("SIGTERM", 128 + signal.SIGTERM), pytest.param("SIGINT", 128 + signal.SIGINT, marks=pytest.mark.thorough)],
)
def test_a_run_told_to_stop_keeps_its_newest_state(project: Path, kind: str, code: int, uninterrupted: Path) -> None:
    options = [POWER_CUT, "--trainer.callbacks.step=7", f"--trainer.callbacks.kind={kind}"]
    cut = python("-m", "genzoo", "fit", *RECIPE, *QUIET, *options, cwd=project)
    assert cut.returncode == code and "Traceback" not in cut.stderr, cut.stderr
    last = last_run(project) / "checkpoints" / "last.ckpt"
    assert f"step 7; the newest checkpoint is {last.relative_to(project)}" in cut.stderr
    pages = list((last_run(project) / "samples").glob("samples-00000007.png"))
    assert len(pages) == (kind == "SIGTERM")  # who presses Ctrl-C does not wait for it
    assert_goes_on_to_the_same_end(project, last, 7, uninterrupted)


@pytest.mark.parametrize("kind", ["SIGTERM", "SIGINT"])
def test_who_reads_ahead_leaves_a_signal_to_the_whole_group_to_the_run(project: Path, kind: str) -> None:
    """As a scheduler sends it, or a terminal: the run saves what it has, which a reader's death would prevent."""
    for i in range(40):
        path = project / "photos" / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("L", (8, 8), i).save(path)
    data = "{class_path: ImageFolderDataModule, init_args: {root: photos, size: 8, channels: 1, in_memory: false}}"
    (project / "photos.yaml").write_text(re.sub("(?m)^data: .*$", f"data: {data}", VAE_OF_DIGITS))
    options = ["--config=photos.yaml", "--data.batch_size=4", "--data.num_workers=2", *QUIET, POWER_CUT]
    options += ["--trainer.callbacks.step=4", f"--trainer.callbacks.kind={kind}", "--trainer.callbacks.group=true"]
    cut = python("-m", "genzoo", "fit", *options, cwd=project)
    assert "Traceback" not in cut.stderr and "step 4; the newest checkpoint is" in cut.stderr, cut.stderr
    assert torch.load(last_run(project) / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 4


def test_who_reads_ahead_ends_with_whoever_fails(project: Path, tmp_path: Path) -> None:
    """Python ends them at its exit by the signal that they leave to others, and waits for them."""
    for i in range(40):
        Image.new("L", (8, 8), i).save(tmp_path / f"{i}.png")
    (tmp_path / "script.py").write_text(
        "from genzoo.datamodules import ImageFolderDataModule, folder\n"
        "folder.LINGER = 1\n"
        "if __name__ == '__main__':\n"
        "    data = ImageFolderDataModule('.', 8, batch_size=2, in_memory=False, num_workers=2)\n"
        "    data.setup('fit')\n"
        "    for batch in data.train_dataloader():\n"
        "        raise KeyError('a bug')\n"
    )
    ended = python(str(tmp_path / "script.py"), cwd=tmp_path, timeout=60)
    assert ended.returncode == 1 and "KeyError: 'a bug'" in ended.stderr


@pytest.mark.parametrize("rank", [1, pytest.param(0, marks=pytest.mark.thorough)])
def test_one_of_two_processes_is_told_to_stop(project: Path, rank: int) -> None:
    """All of them end, with one checkpoint."""
    options = [POWER_CUT, "--trainer.callbacks.step=4", "--trainer.callbacks.kind=SIGTERM"]
    options += [f"--trainer.callbacks.rank={rank}", "--trainer.strategy=ddp", "--trainer.devices=2"]
    cut = python("-m", "genzoo", "fit", *RECIPE, *QUIET, *options, cwd=project)
    assert cut.returncode == 128 + signal.SIGTERM, cut.stderr
    assert torch.load(last_run(project) / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 4
    assert [page.name for page in (last_run(project) / "samples").glob("samples-*")] == ["samples-00000004.png"]


def test_a_requeued_job_goes_on(project: Path, uninterrupted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SLURM announces the end by SIGUSR1, is asked for a requeue, kills the job, and runs its command again."""
    scontrol = project / "bin" / "scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text('#!/bin/sh\necho "$@" > asked\nkill -KILL $PPID\n')
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", f"{scontrol.parent}{os.pathsep}{os.environ['PATH']}")
    job = {"JOB_ID": "4711", "JOB_NAME": "train", "NTASKS": "1", "PROCID": "0", "LOCALID": "0", "NODEID": "0"}
    for name, value in job.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    command = ["-m", "genzoo", "fit", *RECIPE, *QUIET, POWER_CUT, "--trainer.callbacks.kind=SIGUSR1"]
    command += ["--trainer.callbacks.step=7"]
    assert python(*command, cwd=project).returncode == -signal.SIGKILL
    assert (project / "asked").read_text() == "requeue 4711\n"
    first = last_run(project)
    # another command of the same job begins anew
    genzoo("fit", *RECIPE, "--trainer.max_steps=1", cwd=project)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    again = python(*command, cwd=project)
    assert again.returncode == 0 and f"job 4711 goes on from {first.relative_to(project)}" in again.stderr
    one, other = (
        torch.load(run / "checkpoints/last.ckpt", weights_only=True) for run in (last_run(project), uninterrupted)
    )
    assert last_run(project) != first and one["global_step"] == 24
    for part in ("state_dict", "optimizer_states", "lr_schedulers", "random_state", "epoch"):
        assert_same(one[part], other[part], part)


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


def test_a_disk_that_is_full_spoils_no_checkpoint(project: Path, uninterrupted: Path) -> None:
    """One line, nothing half written, and the run goes on from the checkpoint before."""
    options = ["--trainer.callbacks+=interruption_own.SmallDisk", "--trainer.callbacks.step=10"]
    full = python("-m", "genzoo", "fit", *RECIPE, *QUIET, *options, cwd=project)
    *_, line = full.stderr.strip().splitlines()
    assert full.returncode == 2 and "Traceback" not in full.stderr, full.stderr
    assert "step=12.ckpt could not be written (File too large)" in line
    last = last_run(project) / "checkpoints" / "last.ckpt"
    assert f"step 12; the newest checkpoint is {last.relative_to(project)}" in line
    assert not list(project.rglob("*.part")) and not list(last.parent.glob("*step=12*"))
    assert_goes_on_to_the_same_end(project, last, 9, uninterrupted)


def test_a_loss_that_is_no_number_is_one_line(project: Path) -> None:
    options = ["--model.optimizer.lr=1e30", "--trainer.log_every_n_steps=1"]
    diverged = python("-m", "genzoo", "fit", "--config=small.yaml", *QUIET, *options, cwd=project)
    assert diverged.returncode == 2 and "Traceback" not in diverged.stderr, diverged.stderr
    assert "at step" in diverged.stderr.strip().splitlines()[-1]
