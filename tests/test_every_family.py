"""What holds for the training of every family: two processes make one model; a broken run goes on bit for bit."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from families import CODEBOOKS, CONDITIONAL, FIRST, Case, Noise, varied
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from running import as_two
from sameness import assert_same
from thorough import some
from torch import Tensor

from genzoo.callbacks import EMA
from genzoo.resuming import FitLoop
from genzoo.zoo import GAN, Autoencoder, DenoisingAutoencoder
from genzoo.zoo.gan.regularisers import R1

QUIET = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}


every_family = pytest.mark.parametrize("case", varied(FIRST + CONDITIONAL + CODEBOOKS), ids=str)


@pytest.fixture(scope="module")
def two_processes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes came to, for each case that a test is going to ask of."""
    folder = tmp_path_factory.mktemp("two")
    asking = [item for item in request.session.items if "two_processes" in getattr(item, "fixturenames", ())]
    cases = {str(item.callspec.params["case"]) for item in asking}  # type: ignore[attr-defined]
    as_two(Path(__file__).with_name("two_processes.py"), str(folder), *cases)
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


@pytest.mark.parametrize("case", varied(CONDITIONAL), ids=str)
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


#: families that gather more than figures: data for a density, a penalty that is due in some steps only
GATHERING = [
    Case(family, (1, 8, 8), 17, frozenset(), options)
    for family, options in (
        (Autoencoder, {"density_components": 2}),
        (DenoisingAutoencoder, {"density_components": 2}),
        (GAN, {"regularisers": [R1(0.1, every=3)]}),
    )
]
#: what a resumed module need not know: the checks of data are made again, the last batch is gone, and random numbers
#: have a test of their own
FORGOTTEN = {"_checked_stages", "_random_states", "_sound_labels"}


class Memory(Callback):
    """What the module has in mind at the beginning of the ninth step, and which figures of training it shows."""

    def __init__(self) -> None:
        self.attributes: dict[str, Any] = {}
        self.figures: list[dict[str, Tensor]] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if trainer.global_step == 8:
            own = vars(pl_module).keys() - vars(LightningModule()).keys() - FORGOTTEN
            plain = (Tensor, int, float, str, list, tuple, dict, set)
            known = {name: value for name, value in vars(pl_module).items() if name in own}
            self.attributes = {
                name: copy.deepcopy(value) for name, value in known.items() if isinstance(value, plain)
            }

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            self.figures.append({name: value.clone() for name, value in trainer.callback_metrics.items()})


@pytest.mark.parametrize(
    "case", varied(FIRST + CONDITIONAL + CODEBOOKS) + some(GATHERING, lambda case: case.family is GAN), ids=str
)
def test_an_interrupted_run_goes_on_bit_for_bit(case: Case, tmp_path: Path) -> None:
    """Twelve steps in two epochs, at once or broken off within the second one."""

    def train(folder: Path, max_steps: int, ckpt_path: str | None = None) -> dict[str, Any]:
        model, memory = case.build(seed=0 if ckpt_path is None else 1), Memory()
        callbacks = [EMA(decay=0.5), memory, ModelCheckpoint(folder, save_last=True, every_n_train_steps=4)]
        trainer = Trainer(max_steps=max_steps, callbacks=callbacks, default_root_dir=folder, **QUIET)
        FitLoop.install(trainer)
        trainer.fit(model, datamodule=Noise(case.shape, case.levels), ckpt_path=ckpt_path)
        assert trainer.global_step == max_steps
        kept = torch.load(folder / "last.ckpt", weights_only=True)
        in_file = {name: kept[name] for name in ("state_dict", "optimizer_states", "gathered")}
        return in_file | {
            "model": model.state_dict(),
            "attributes": memory.attributes,
            "figures": memory.figures,
        }

    whole = train(tmp_path / "whole", 12)
    broken = train(tmp_path / "broken", 8)
    resumed = train(tmp_path / "resumed", 12, str(tmp_path / "broken" / "last.ckpt"))
    assert len(whole["optimizer_states"]) >= 1 and {"_noted", "_shown"} <= whole["attributes"].keys()
    assert len(whole["figures"]) == 2 and "train/loss" in whole["figures"][1]
    resumed["figures"] = broken["figures"] + resumed["figures"]
    assert_same(resumed, whole)
