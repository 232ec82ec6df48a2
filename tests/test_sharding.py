"""Weights spread over two processes by FSDP2: the training of one process, resumed and published."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from families import Noise
from lightning.fabric.utilities.load import _load_distributed_checkpoint
from lightning.pytorch import Trainer
from running import python
from sharded import LEVELS, OPTIMIZERS, SHAPE, build, trained
from torch import Tensor

import genzoo
from genzoo.zoo.randomness import PerDatum

CASES = [f"{optimizer}-{kind}" for optimizer in OPTIMIZERS for kind in ("files", "folders")]
every_case = pytest.mark.parametrize("case", CASES)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    script = Path(__file__).with_name("sharded.py")
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    ended = python(*launch, str(script), str(folder), cwd=script.parent)
    assert ended.returncode == 0, ended.stderr
    return folder


@pytest.fixture(scope="module", params=list(OPTIMIZERS))
def one(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    """What one process comes to: its averaged weights, and the raw ones."""
    folder = tmp_path_factory.mktemp("one")
    trained(build(request.param), folder).save_checkpoint(folder / "whole.ckpt")
    return request.param, weights_in(folder / "whole.ckpt")


def weights_in(path: Path) -> dict[str, dict[str, Tensor]]:
    if path.is_dir():
        checkpoint = _load_distributed_checkpoint(path)
    else:
        checkpoint = torch.load(path, weights_only=True)
    return {"averaged": checkpoint["state_dict"], "raw": checkpoint["callbacks"]["EMA"]["raw"]}


@pytest.mark.parametrize("run", ["whole", "resumed"])
@pytest.mark.parametrize("kind", ["files", "folders"])
def test_two_processes_train_as_one(one: tuple[str, dict[str, Any]], kind: str, run: str, two: Path) -> None:
    """In 20 steps, at once or broken off after 11, to 1e-5."""
    optimizer, alone = one
    started = build(optimizer).state_dict()
    folder = two / f"{optimizer}-{kind}"
    together = weights_in(folder / f"{run}.ckpt")
    together["returned"] = torch.load(folder / f"{run}.pt", weights_only=True)["weights"]
    for name, state in together.items():
        expected = alone["averaged" if name == "returned" else name]
        assert state.keys() == expected.keys()
        for key, value in expected.items():
            assert (state[key] - value).abs().max() < 1e-5, f"{name} {key}"
    assert all((value - started[key]).abs().max() > 1e-4 for key, value in alone["raw"].items())
