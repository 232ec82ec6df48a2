"""`genzoo` as a real process, and what its run leaves; and as a call that is to be refused."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

QUIET = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]

VAE_OF_DIGITS = """\
# A very small VAE of digits.
model:
  class_path: VAE
  init_args:
    latent_dim: 2
    network: mlp
    width: 8
    depth: 1
    likelihood: {class_path: DiscretisedLogistic}
    optimizer: {class_path: torch.optim.AdamW, init_args: {lr: 0.01}}
data: {class_path: DigitsDataModule, init_args: {limit: 128, batch_size: 16}}
trainer: {max_epochs: 2, accelerator: cpu, log_every_n_steps: 1}
"""


def python(*arguments: str, cwd: Path, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter with one thread, in the folder `cwd`."""
    environment = {name: value for name, value in os.environ.items() if name != "GENZOO_RUN_FOLDER"}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env=environment | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def genzoo(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """One command in a process of its own, which is to end well."""
    ended = python("-m", "genzoo", *arguments, *QUIET, cwd=cwd)
    assert ended.returncode == 0, ended.stderr
    return ended


def last_run(folder: Path) -> Path:
    """The run folder that was made last below `folder`."""
    configs = (path for path in folder.glob("runs/**/config.yaml") if path.parent.name != "entry")
    return max(configs, key=lambda path: path.stat().st_mtime_ns).parent


def logged(run: Path) -> dict[str, float]:
    """The last value of each figure in a run's metrics.csv."""
    with (run / "metrics.csv").open() as file:
        return {name: float(value) for row in csv.DictReader(file) for name, value in row.items() if value}


def refused(argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line with which a command refuses."""
    from genzoo.cli import main

    with pytest.raises(SystemExit) as ended:
        main(argv)
    assert ended.value.code == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("genzoo: error: ") and "\n" not in error, error
    return error
