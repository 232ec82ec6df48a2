"""What holds for the training of every family: two processes make one model; a broken run goes on bit for bit."""

import json
from pathlib import Path

import pytest
import torch
from families import CONDITIONAL, FIRST, Case, Noise
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from running import python
from torch import Tensor

from genzoo.callbacks import EMA

QUIET = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}


every_family = pytest.mark.parametrize("case", FIRST + CONDITIONAL, ids=str)


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    script = Path(__file__).with_name("two_processes.py")
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    ended = python(*launch, str(script), str(folder), cwd=script.parent)
    assert ended.returncode == 0, ended.stderr
    return folder


@every_family
def test_two_processes_hold_one_model_and_give_its_figures(case: Case, two_processes: Path) -> None:
    """The same weights bit for bit, and on ragged batches the validation of one process."""
    weights = [torch.load(two_processes / f"{case}-{rank}.pt", weights_only=True) for rank in range(2)]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    model = case.build()
    assert any(not torch.equal(value, weights[0][name]) for name, value in model.state_dict().items())
    model.load_state_dict(weights[0])
    (alone,) = Trainer(**QUIET).validate(model, datamodule=Noise(case.shape, case.levels), verbose=False)
    together = json.loads((two_processes / f"{case}.json").read_text())
    assert alone.keys() == together.keys()
    assert alone == pytest.approx(together, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("case", CONDITIONAL, ids=str)
def test_two_processes_count_the_classes_of_both(case: Case, two_processes: Path) -> None:
    """One epoch is all 24 training rows but none twice: as many of each class as there are."""
    counts = torch.load(two_processes / f"{case}-1.pt", weights_only=True)["class_counts"]
    assert torch.equal(counts, labels_of_training(case).bincount(minlength=3))


def labels_of_training(case: Case) -> Tensor:
    data = Noise(case.shape, case.levels)
    data.setup("fit")
    labels = data.sources["train"].labels
    assert labels is not None and labels.bincount(minlength=3).unique().numel() > 1
    return labels


@pytest.mark.parametrize("case", CONDITIONAL, ids=str)
def test_a_training_counts_the_classes_it_sees_and_a_new_one_counts_anew(case: Case, tmp_path: Path) -> None:
    model, data = case.build(), Noise(case.shape, case.levels)
    for epochs in (2, 1):  # the second begins with the weights and the counts of the first
        Trainer(max_epochs=epochs, default_root_dir=tmp_path, **QUIET).fit(model, datamodule=data)
        assert torch.equal(model.class_counts, epochs * labels_of_training(case).bincount(minlength=3))


@every_family
def test_an_interrupted_run_goes_on_bit_for_bit(case: Case, tmp_path: Path) -> None:
    """Twelve steps in two epochs, at once or broken off within the second one."""

    def train(folder: Path, max_steps: int, ckpt_path: str | None = None) -> dict:
        model = case.build(seed=0 if ckpt_path is None else 1)
        callbacks = [EMA(decay=0.5), ModelCheckpoint(folder, save_last=True, every_n_train_steps=1)]
        trainer = Trainer(max_steps=max_steps, callbacks=callbacks, default_root_dir=folder, **QUIET)
        trainer.fit(model, datamodule=Noise(case.shape, case.levels), ckpt_path=ckpt_path)
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
