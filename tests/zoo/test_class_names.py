"""What the classes are called goes from the data to the model, and with it into checkpoints and entries."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from families import CONDITIONAL, Case, Noise
from lightning.pytorch import Trainer

import genzoo
from genzoo.callbacks import Publish, evaluate
from genzoo.datamodules import FashionMNISTDataModule
from genzoo.zoo import VAE, Classifier
from genzoo.zoo.hub import load_checkpoint, publish
from genzoo.zoo.lines import is_line

ANIMALS = ["cat", "dog", "ox"]
QUIET = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
NAMED = [*CONDITIONAL, Case(Classifier, (1, 8, 8), 17, frozenset(), {"num_classes": 3})]


def fitted(case: Case, names: Any = ANIMALS) -> tuple[Any, Trainer]:
    model, data = case.build(), Noise(case.shape, case.levels)
    data.class_names = names
    trainer = Trainer(max_steps=1, limit_val_batches=0, enable_checkpointing=False, **QUIET)
    trainer.fit(model, datamodule=data)
    return model, trainer


@pytest.mark.parametrize("case", NAMED, ids=str)
def test_names_travel(case: Case, tmp_path: Path) -> None:
    model, trainer = fitted(case)
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    entry = publish(load_checkpoint(tmp_path / "model.ckpt"), "own/model", to=tmp_path / "entry")
    for named in (
        model,
        load_checkpoint(tmp_path / "model.ckpt"),
        case.family.load_from_checkpoint(tmp_path / "model.ckpt"),
        genzoo.load(entry),
    ):
        assert named.class_names == ("cat", "dog", "ox")


def test_classes_that_are_called_otherwise(tmp_path: Path) -> None:
    """Where labels are looked at they would mean others; where nobody looks, or a model learns, nothing is wrong."""
    model, trainer = fitted(CONDITIONAL[0])
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    data = Noise(model.shape, model.levels)
    data.class_names = ANIMALS[::-1]
    says = "its class_names is .* but that of the data"
    with pytest.raises(ValueError, match=says):
        trainer.test(model, datamodule=data)
    fresh = CONDITIONAL[0].build()
    with pytest.raises(ValueError, match=says):  # what the checkpoint knows is known after it is read
        trainer.test(fresh, datamodule=data, ckpt_path=tmp_path / "model.ckpt")
    few: dict[str, Any] = {"only": ["likelihood"], "num_likelihood": 3}
    evaluate(model, data, **few, progress=False)
    publish_it = Publish("own/model", to=str(tmp_path / "entry"), evaluation={**few, "odd": ("faint",)})
    run = Trainer(max_steps=1, limit_val_batches=0, enable_checkpointing=False, callbacks=[publish_it], **QUIET)
    run.fit(model, datamodule=data)
    assert genzoo.load(tmp_path / "entry").class_names == ("ox", "dog", "cat")


def test_data_without_names_leave_none(tmp_path: Path) -> None:
    model, trainer = fitted(CONDITIONAL[0], ())
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    assert "class_names" not in torch.load(tmp_path / "model.ckpt", weights_only=True)
    config = yaml.safe_load((Path(publish(model, "own/model", to=tmp_path / "entry")) / "config.yaml").read_text())
    assert "class_names" not in config and genzoo.load(tmp_path / "entry").class_names == ()


def test_a_model_that_is_told_no_classes_has_no_names() -> None:
    model, _ = fitted(Case(VAE, (1, 8, 8), 17, frozenset()))
    assert model.class_names == ()


def test_names_are_of_any_script(tmp_path: Path) -> None:
    """With all of Unicode's spaces and joiners: macOS writes a narrow space, Persian a non-joiner, emoji a joiner."""
    names = ["New\u00a0York\u202f1", "می\u200cروم", "東京\u3000👩\u200d🔬"]
    model, _ = fitted(CONDITIONAL[0], names)
    data = {"class_path": "X", "init_args": {"root": names[0]}}
    entry = publish(model, "own/model", to=tmp_path / "entry", data=data)
    assert list(genzoo.load(entry).class_names) == names
    assert yaml.safe_load((Path(entry) / "config.yaml").read_text("utf-8"))["data"]["hint"] == names[0]


@pytest.mark.parametrize("bad", ["a\nb", "\x1b[31m", "a\u2028b", "\udc80", "a\u202eb", "a\u2066b"])
def test_what_commands_a_terminal_or_turns_a_name_around_is_no_line(bad: str) -> None:
    assert is_line("a b\u00a0c") and not is_line(bad)


@pytest.mark.parametrize(
    "names", [["cat", "dog"], ["cat", "dog", "dog"], ["cat", "dog", "o\nx"], ["cat", "dog", 3], "cat"]
)
def test_names_that_are_none_are_refused(names: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="class_names are a name in one line for each of num_classes=3 classes"):
        fitted(CONDITIONAL[0], names)
    model, trainer = fitted(CONDITIONAL[0])
    entry = Path(publish(model, "own/model", to=tmp_path / "entry"))
    config = yaml.safe_load((entry / "config.yaml").read_text())
    (entry / "config.yaml").write_text(yaml.safe_dump(config | {"class_names": names}))
    with pytest.raises(ValueError, match="class_names"):
        genzoo.load(entry)
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    kept = torch.load(tmp_path / "model.ckpt", weights_only=True)
    torch.save(kept | {"class_names": names}, tmp_path / "model.ckpt")
    with pytest.raises(ValueError, match="class_names"):
        load_checkpoint(tmp_path / "model.ckpt")


def test_names_of_known_data_fit_their_number() -> None:
    assert len(FashionMNISTDataModule.class_names) == FashionMNISTDataModule.num_classes


def test_of_very_many_classes_an_entry_is_made_all_the_same(tmp_path: Path) -> None:
    """No file states so many names: the classes go by their numbers, which is said before training."""
    case = Case(Classifier, (1, 8, 8), 17, frozenset(), {"num_classes": 10_001})
    with pytest.warns(UserWarning, match="classes go by their numbers: no file states the names of more than 10,000"):
        model, _ = fitted(case, [f"person {i}" for i in range(10_001)])
    entry = publish(model, "people/classifier", to=tmp_path / "entry")
    assert model.class_names == () and genzoo.load(entry).num_classes == 10_001
