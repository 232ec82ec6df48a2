"""A batch that is a mapping, {"x": data, "y": labels}, is to every module and callback what (x, y) is."""

from pathlib import Path
from typing import Any

import pytest
import torch
from families import CONDITIONAL, FIRST, Case, few_steps, random_data, varied
from lightning.pytorch import Trainer
from sameness import assert_same
from torch.utils.data import DataLoader

from genzoo.callbacks import LikelihoodLogger, SampleLogger
from genzoo.zoo import VAE, Classifier

QUIET = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
CLASSIFIER = Case(Classifier, (1, 8, 8), 17, frozenset(), {"num_classes": 3})


def fitted(case: Case, batches: list[Any], folder: Path) -> dict[str, Any]:
    """What a run on these batches leaves behind: weights, figures, and the pictures that were drawn."""
    model = case.build()
    callbacks = [SampleLogger(num_samples=2, num_examples=2)] if case is not CLASSIFIER else []
    callbacks += [LikelihoodLogger(num_particles=1)] if hasattr(model, "log_prob") else []
    trainer = Trainer(max_epochs=1, default_root_dir=folder, callbacks=callbacks, **QUIET)
    loader = DataLoader(batches, batch_size=None)
    trainer.fit(model, loader, loader)
    figures = {name: value.clone() for name, value in trainer.callback_metrics.items()}
    said = trainer.predict(model, loader)
    files = {path.name: path.read_bytes() for path in sorted(folder.rglob("samples/*"))}
    return {"weights": model.state_dict(), "figures": figures, "files": files, "said": said}


@pytest.mark.parametrize("case", [*varied(FIRST + CONDITIONAL), CLASSIFIER], ids=str)
def test_a_mapping_is_what_a_pair_is(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few_steps(monkeypatch, flow=2, steps=3, repeats=1)
    monkeypatch.setattr(VAE, "completion_sweeps", 2)  # on for long, and say nothing more of batches
    torch.manual_seed(0)
    pairs = [(random_data(4, case.shape, case.levels), torch.tensor([0, 1, 2, 0])) for _ in range(2)]
    told = fitted(case, pairs, tmp_path / "pairs")
    mapped = fitted(case, [{"y": y, "x": x, "source": ["a file"] * 4} for x, y in pairs], tmp_path / "mappings")
    assert told["said"] and told["weights"]
    assert_same(mapped, told)


def test_without_labels() -> None:
    x = random_data(4, (2,), None)
    model = VAE((2,), None)
    assert model.unpack({"x": x}) == (x, None)


@pytest.mark.parametrize(
    ("batch", "says"), [({"image": torch.zeros(4, 2)}, "under 'x'.*but this one has 'image'"), ({}, "nothing")]
)
def test_a_mapping_without_data_says_what_it_has(batch: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Trainer(max_epochs=1, **QUIET).fit(VAE((2,), None), DataLoader([batch], batch_size=None))
