"""`genzoo` as a real process, and what its run leaves; and as a call that is to be refused."""

import csv
import itertools
import multiprocessing
import os
import runpy
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing import connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from lightning.pytorch.strategies import DDPStrategy

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["genzoo.fit"])

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


class _OfTheServer(DDPStrategy):
    """Lightning has processes that it spawns copy the weights, but leaves those of a server to share them."""

    def __init__(self) -> None:
        super().__init__(start_method="forkserver")

    def setup_environment(self) -> None:
        super().setup_environment()
        for tensor in [*self.lightning_module.parameters(), *self.lightning_module.buffers()]:
            tensor.data = tensor.data.clone()


def on_two_processes() -> dict[str, Any]:
    """For a Trainer, what "ddp_spawn" does but for the imports: its processes are forked as below."""
    os.environ["MASTER_PORT"] = a_port()  # where Lightning leaves the one that it takes, too
    return {"devices": 2, "strategy": _OfTheServer()}


PORTS = itertools.count()


def a_port() -> str:
    """Where processes of a test meet. One that is free now may be somebody's outgoing one a moment later: these are
    none that a system gives out by itself, and another for each process and each time."""
    while True:
        port = 10_000 + (20 * os.getpid() + next(PORTS) % 20) % 20_000
        with socket.socket() as found, suppress(OSError):  # what an earlier test has left may still be there
            found.bind(("", port))
            return str(port)


def python(*arguments: str, cwd: Path, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    """A process of its own with one thread, in the folder `cwd`, as `python` with these arguments.

    Code, `-c`, has a fresh interpreter. A module, `-m`, or a file does not wait for its imports: it is forked from a
    server that has them, and has done nothing else.
    """
    environment = {name: value for name, value in os.environ.items() if name != "GENZOO_RUN_FOLDER"}
    environment |= {"OMP_NUM_THREADS": "1", "MASTER_PORT": a_port()}
    if arguments[0] == "-c":
        command = [sys.executable, *arguments]
        return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=timeout)
    return _forked([environment], arguments, cwd, timeout)[0]


def as_two(script: Path, *arguments: str, timeout: float = 300) -> None:
    """A file as the two processes that `torchrun` makes of it, in its own folder; both are to end well."""
    group = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "0", "TORCHELASTIC_RUN_ID": "none"}
    group |= {"OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": a_port()}
    both = [{**os.environ, **group, "RANK": rank, "LOCAL_RANK": rank} for rank in ("0", "1")]
    both_ended = _forked(both, (str(script), *arguments), script.parent, timeout)
    for ended in sorted(both_ended, key=lambda ended: -ended.returncode):  # who was killed is not the cause
        assert ended.returncode == 0, ended.stderr


def _forked(
    environments: Sequence[dict[str, str]], arguments: Sequence[str], cwd: Path, timeout: float
) -> list[subprocess.CompletedProcess[str]]:
    """What a process in each of these environments says, all at the same time."""
    with TemporaryDirectory() as folder:
        streams = [[Path(folder) / f"{name}-{i}" for name in ("stdout", "stderr")] for i in range(len(environments))]
        processes = [
            SERVER.Process(target=_run, args=(arguments, cwd, environment, paths))
            for environment, paths in zip(environments, streams, strict=True)
        ]
        for process in processes:
            process.start()
        until, waiting = time.monotonic() + timeout, set(processes)
        while waiting and time.monotonic() < until:
            connection.wait([process.sentinel for process in waiting], until - time.monotonic())
            waiting = {process for process in waiting if process.exitcode is None}
            if any(process.exitcode for process in processes):  # the others would wait for it
                until = min(until, time.monotonic() + 5)
        for process in waiting:
            process.kill()
            process.join()
        if waiting and not any(process.exitcode for process in {*processes} - waiting):
            said = "\n".join(path.read_text() for _, path in streams)
            raise AssertionError(f"{arguments} did not end in {timeout} s: {said}")
        return [
            subprocess.CompletedProcess(arguments, process.exitcode, *(path.read_text() for path in paths))
            for process, paths in zip(processes, streams, strict=True)
        ]


def _run(arguments: Sequence[str], cwd: Path, environment: dict[str, str], streams: Sequence[Path]) -> None:
    for number, path in enumerate(streams, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    torch.set_num_threads(1)  # the server may have been started for more
    if arguments[0] == "-m":
        sys.argv, sys.path[0] = list(arguments[1:]), str(cwd)
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv, sys.path[0] = list(arguments), str(Path(arguments[0]).parent)
        runpy.run_path(arguments[0], run_name="__main__")


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
