"""What holds for the training of every family: two processes make one model; a broken run goes on bit for bit."""

import json
from pathlib import Path

import pytest
import torch
from families import FIRST, Noise
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from running import python

from genzoo.callbacks import EMA

QUIET = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}


@pytest.fixture(params=FIRST, ids=lambda case: case[0].__name__)
def case(request):
    return request.param


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    script = Path(__file__).with_name("two_processes.py")
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    ended = python(*launch, str(script), str(folder), cwd=script.parent)
    assert ended.returncode == 0, ended.stderr
    return folder


def test_two_processes_hold_one_model_and_give_its_figures(case, two_processes: Path) -> None:
    """The same weights bit for bit, and on ragged batches the validation of one process."""
    family, shape, levels = case
    weights = [torch.load(two_processes / f"{family.__name__}-{rank}.pt", weights_only=True) for rank in range(2)]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    torch.manual_seed(0)
    model = family(shape=shape, levels=levels)
    assert any(not torch.equal(value, weights[0][name]) for name, value in model.state_dict().items())
    model.load_state_dict(weights[0])
    (alone,) = Trainer(**QUIET).validate(model, datamodule=Noise(shape, levels), verbose=False)
    together = json.loads((two_processes / f"{family.__name__}.json").read_text())
    assert alone.keys() == together.keys()
    assert alone == pytest.approx(together, rel=1e-5, abs=1e-6)


def test_an_interrupted_run_goes_on_bit_for_bit(case, tmp_path: Path) -> None:
    """Twelve steps in two epochs, at once or broken off within the second one."""
    family, shape, levels = case

    def train(folder: Path, max_steps: int, ckpt_path: str | None = None) -> dict:
        torch.manual_seed(0 if ckpt_path is None else 1)
        model = family(shape=shape, levels=levels)
        callbacks = [EMA(decay=0.5), ModelCheckpoint(folder, save_last=True, every_n_train_steps=1)]
        trainer = Trainer(max_steps=max_steps, callbacks=callbacks, default_root_dir=folder, **QUIET)
        trainer.fit(model, datamodule=Noise(shape, levels), ckpt_path=ckpt_path)
        assert trainer.global_step == max_steps
        return torch.load(folder / "last.ckpt", weights_only=True)

    whole = train(tmp_path / "whole", 12)
    train(tmp_path / "broken", 8)
    resumed = train(tmp_path / "resumed", 12, str(tmp_path / "broken" / "last.ckpt"))
    for name, value in whole["state_dict"].items():
        assert torch.equal(value, resumed["state_dict"][name]), name
    assert len(whole["optimizer_states"]) == len(resumed["optimizer_states"]) >= 1
    for ours, theirs in zip(whole["optimizer_states"], resumed["optimizer_states"], strict=True):
        for index, state in ours["state"].items():
            assert all(torch.equal(value, theirs["state"][index][key]) for key, value in state.items()), index
