"""Weights spread over two processes by FSDP2: the training of one process, resumed and published."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.fabric.utilities.load import _load_distributed_checkpoint
from lightning.pytorch import Trainer
from running import as_two, python
from sameness import assert_same
from sharded import KEEPS, OPTIMIZERS, SHAPE, SIZES, TWO_STAGES, Data, Repeatable, RepeatableStages, build, trained
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

import genzoo
from genzoo.zoo.networks.dit import DiT
from genzoo.zoo.randomness import PerDatum
from genzoo.zoo.sharding import memory

every_optimizer = pytest.mark.parametrize("optimizer", list(OPTIMIZERS))


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    as_two(Path(__file__).with_name("sharded.py"), str(folder))
    return folder


@pytest.fixture(scope="module", params=list(KEEPS))
def one(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    """What one process comes to: its averaged weights, and the raw ones."""
    folder = tmp_path_factory.mktemp("one")
    trained(build(request.param), folder).save_checkpoint(folder / "whole.ckpt")
    return request.param, weights_in(folder / "whole.ckpt")


def weights_in(path: Path) -> dict[str, dict[str, Tensor]]:
    checkpoint = _load_distributed_checkpoint(path) if path.is_dir() else torch.load(path, weights_only=True)
    return {"averaged": checkpoint["state_dict"], "raw": checkpoint["callbacks"]["EMA"]["raw"]}


@pytest.mark.parametrize("run", ["whole", "resumed"])
def test_two_processes_train_as_one(one: tuple[str, dict[str, Any]], run: str, two: Path) -> None:
    """In 20 steps, at once or broken off after 11, to 1e-5; of two stages, the first is the first process's."""
    optimizer, alone = one
    started = build(optimizer).state_dict()
    together = weights_in(two / optimizer / f"{run}.ckpt")
    together["returned"] = torch.load(two / optimizer / f"{run}.pt", weights_only=True)["weights"]
    for name, state in together.items():
        expected = alone["averaged" if name == "returned" else name]
        assert state.keys() == expected.keys()
        for key, value in expected.items():
            assert (state[key] - value).abs().max() < 1e-5, f"{name} {key}"
    moved = {key for key, value in alone["raw"].items() if (value - started[key]).abs().max() > 1e-4}
    assert moved == {key for key in alone["raw"] if not key.startswith("autoencoder.")}


@pytest.mark.parametrize("optimizer", list(KEEPS))
def test_a_run_goes_on_bit_for_bit(optimizer: str, two: Path) -> None:
    """From the file that the first process writes, or the folder with a file of each."""
    whole, resumed = (weights_in(two / optimizer / f"{run}.ckpt") for run in ("whole", "resumed"))
    assert_same(resumed, whole)


def test_what_is_published_says_what_the_two_said(two: Path) -> None:
    model = genzoo.load(two / "AdamW" / "entry", allow=(Repeatable,))
    said = torch.load(two / "AdamW" / "whole.pt", weights_only=True)
    assert_same(dict(model.state_dict()), dict(said["weights"]))
    samples = model.sample(4, generator=torch.Generator().manual_seed(0))
    assert (samples - said["samples"]).abs().max() < 1e-5
    log_prob = model.log_prob(said["samples"], generator=PerDatum(said["samples"]))
    assert torch.allclose(log_prob, said["log_prob"], rtol=1e-6)


def test_an_entry_of_two_stages_has_both_whole(two: Path) -> None:
    model = genzoo.load(two / TWO_STAGES / "entry", allow=(RepeatableStages,))
    said = torch.load(two / TWO_STAGES / "whole.pt", weights_only=True)
    assert_same(dict(model.state_dict()), dict(said["weights"]))
    log_prob = model.log_prob(said["samples"], generator=PerDatum(said["samples"]))
    assert torch.allclose(log_prob, said["log_prob"], rtol=1e-6)


def test_what_is_published_is_the_best_there_was(two: Path) -> None:
    """Also from a checkpoint that is a folder."""
    model = genzoo.load(two / "Muon" / "entry", allow=(Repeatable,)).double()  # which it was, and draws its noise by
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    (figures,) = Trainer(accelerator="cpu", **quiet).validate(model, Data(model.dtype, 1), verbose=False)
    best = json.loads((two / "Muon" / "kept.json").read_text())["best"]
    assert figures["val/loss"] == pytest.approx(best, rel=1e-5)


def test_folders_are_written_whole_and_come_along(two: Path) -> None:
    """`last.ckpt`, in which nothing is left of an earlier one, and the best of a run that goes on elsewhere."""
    for place, steps in (("here", 6), ("there", 11)):
        folder = two / "Muon" / place
        assert torch.load(folder / "last.ckpt/meta.pt", weights_only=True)["global_step"] == steps
        assert not list(folder.glob("*.part")) and not list(folder.glob("*.old"))
    state = torch.load(two / "Muon/there/last.ckpt/meta.pt", weights_only=True)["callbacks"]
    (best,) = (kept for name, kept in state.items() if "ModelCheckpoint" in name)
    assert "there" in best["best_model_path"] and Path(best["best_model_path"]).is_dir()


@every_optimizer
def test_a_process_keeps_its_share_as_computed(optimizer: str, two: Path) -> None:
    """Half of it, and the odd rows."""
    model = build(optimizer)
    held = json.loads((two / optimizer / "kept.json").read_text())["bytes"]
    whole = sum(p.nbytes for p in model.parameters())
    for name in ("weights", "gradients", "averages"):
        assert whole / 2 < held[name] < 1.04 * whole / 2
    if optimizer == "AdamW":
        computed = memory(lambda: DiT(SHAPE, **SIZES), batch=4, devices=2)
        assert computed.kept == sum(held.values())
    else:  # one moment of a matrix, where Adam has two
        assert held["weights"] < held["moments"] < 1.3 * held["weights"]


def test_activations_are_as_computed() -> None:
    """What PyTorch says of its allocations: it frees what was not kept by the end of the forward pass."""

    def computed(depth: int, checkpointing: bool) -> int:
        return memory(lambda: network(depth, checkpointing), batch=8, devices=1).activations

    def network(depth: int, checkpointing: bool) -> DiT:
        return DiT((3, 16, 16), patch=2, width=64, depth=depth, heads=2, checkpointing=checkpointing)

    def kept(checkpointing: bool) -> int:
        net, x, noise = network(3, checkpointing), torch.randn(8, 3, 16, 16), torch.zeros(8)
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
            y = net(x, noise)
        return sum(event.self_cpu_memory_usage for event in profiled.key_averages()) - y.nbytes

    of_one_block = computed(3, False) - computed(2, False)
    assert computed(3, False) == pytest.approx(kept(False), rel=0.01)
    assert computed(3, True) - of_one_block == pytest.approx(kept(True), rel=0.05)
    assert computed(3, True) < 0.5 * computed(3, False)


def test_what_cannot_be_spread_is_refused_in_a_line(tmp_path: Path) -> None:
    """In a group of one process, of its own."""
    (tmp_path / "script.py").write_text(REFUSED)
    ended = python(str(tmp_path / "script.py"), cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    unet, shared = ended.stdout.strip().splitlines()
    assert unet.startswith("DDPM cannot be spread over devices: network.") and "ddp" in unet
    assert "tensor_parallel_size=1 and data_parallel_size=2" in shared


REFUSED = """
import os
from types import SimpleNamespace
import torch
from torch.distributed.device_mesh import init_device_mesh
from genzoo.zoo import DDPM
from genzoo.zoo.sharding import shard
os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="0")
torch.distributed.init_process_group("gloo", rank=0, world_size=1, store=torch.distributed.HashStore())
mesh = init_device_mesh("cpu", (1, 1), mesh_dim_names=("data_parallel", "tensor_parallel"))
class Two(dict):
    size = lambda self: 2
for over in (mesh, Two(tensor_parallel=SimpleNamespace(size=lambda: 2))):
    try:
        shard(DDPM((1, 8, 8), 2), over)
    except ValueError as error:
        print(error)
torch.distributed.destroy_process_group()
"""
