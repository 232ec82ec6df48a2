"""What columns are called goes from a table to the model, and by it they are found in others, wherever they stand."""

import csv
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from lightning.pytorch import Trainer

import genzoo
from genzoo.callbacks import StartFrom, evaluate
from genzoo.cli import main
from genzoo.datamodules import ArrayDataModule
from genzoo.zoo import VAE
from genzoo.zoo.hub import load_checkpoint
from genzoo.zoo.module import ASIDE

NAMES = ("a", "b", "c")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def rows(num: int = 40) -> dict[str, list[float]]:
    """Columns of very different size, so that one taken for another shows."""
    generator = torch.Generator().manual_seed(0)
    return {name: (10.0**k * torch.randn(num, generator=generator)).tolist() for k, name in enumerate(NAMES)}


def write(path: str, order: Any, **more: list[Any]) -> str:
    columns = rows() | more
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([order, *zip(*(columns[name] for name in order), strict=True)])
    return path


def trained(data: ArrayDataModule, *callbacks: Any, model: VAE | None = None) -> tuple[VAE, Trainer]:
    model = model or VAE(data.shape, data.levels, latent_dim=1, width=4, depth=1)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    trainer = Trainer(max_steps=2, enable_checkpointing=False, callbacks=list(callbacks), **quiet)
    trainer.fit(model, datamodule=data)
    return model, trainer


def scores(path: str) -> dict[str, list[float]]:
    """Of each row, by its number."""
    main(["score", "entry", path, "--out", "scores.csv", "--device", "cpu", "--num_particles", "2"])
    with open("scores.csv", encoding="utf-8", newline="") as file:
        return {name.partition(":")[2]: [float(v) for v in values] for name, *values in list(csv.reader(file))[1:]}


def test_names_travel_and_a_table_in_another_order_has_the_same_scores() -> None:
    """Also where nobody chose columns, and beside the label that training left out."""
    kinds = ["x", "y"] * 20
    data = ArrayDataModule(path=write("table.csv", (*NAMES, "kind"), kind=kinds), label="kind", batch_size=8)
    model, trainer = trained(data)
    trainer.save_checkpoint("model.ckpt")
    genzoo.publish(load_checkpoint("model.ckpt"), "own/model", to="entry", data=data)
    for named in (model, load_checkpoint("model.ckpt"), VAE.load_from_checkpoint("model.ckpt"), genzoo.load("entry")):
        assert named.column_names == NAMES
    assert "Its columns: a, b, c." in Path("entry/README.md").read_text()
    expected = scores("table.csv")
    assert len(expected) == 40 and scores(write("other.csv", ("c", "a", "b"))) == expected
    main(["sample", "entry", "--num_samples", "2", "--out", "samples.csv"])
    assert Path("samples.csv").read_text().splitlines()[0] == "a,b,c"


def test_data_in_another_order_are_refused(tmp_path: Path) -> None:
    """In a training that goes on or begins at another's weights, in a test, and where they are measured."""
    paths = [write(f"{k}.csv", names) for k, names in enumerate((NAMES, NAMES[::-1]))]
    right, wrong = (ArrayDataModule(path=path, batch_size=8) for path in paths)
    model, trainer = trained(right)
    says = "the same columns stand in two orders, a, b, c and c, b, a: choose those of the data by `columns`"
    with pytest.raises(ValueError, match=says):
        trainer.test(model, datamodule=wrong)
    with pytest.raises(ValueError, match=says):
        evaluate(model, wrong, only=["likelihood"], progress=False)
    with pytest.raises(ValueError, match=says):
        trained(wrong, model=model)
    genzoo.publish(model, "own/model", to="entry")
    with pytest.raises(ValueError, match=says):
        trained(wrong, StartFrom("entry"))
    chosen = ArrayDataModule(path="1.csv", columns=list(NAMES), batch_size=8)
    assert trained(chosen, StartFrom("entry"))[0].column_names == NAMES


@pytest.mark.parametrize(
    ("what", "ours", "theirs"),
    [("sample_rate", 8000, 16_000), ("class_names", ("cat", "dog"), ["dog", "cat"])],
)
def test_what_else_numbers_mean_is_the_same_or_refused(what: str, ours: Any, theirs: Any) -> None:
    model, data = VAE((3,), None, num_classes=2, conditional=True, width=4, depth=1), SimpleNamespace()
    for said in (None, ours, list(ours) if isinstance(ours, tuple) else ours):
        setattr(model, what, ours)
        setattr(data, what, said)
        model.check_source(data)
        model.check_source(None)
    setattr(data, what, theirs)
    with pytest.raises(ValueError, match=f"VAE: its {what} is .* but that of the data"):
        model.check_source(data)
    model.check_source(data, but=(what,))
    if what in ASIDE["fit"]:  # a training learns what its classes are called
        assert what == "class_names" and what in ASIDE["predict"]
    for of_another_kind in ({0: "dog"}, np.array(["dog", "cat"]), object()):  # of which nobody knows what it says
        setattr(data, what, of_another_kind)
        model.check_source(data)


@pytest.mark.parametrize("x", [torch.randn(40, 3), {"x": torch.randn(40, 3)}])
def test_what_has_no_names_is_given_none(x: Any) -> None:
    data = ArrayDataModule(x, batch_size=8)
    model, _ = trained(data)
    genzoo.publish(model, "own/model", to="entry")
    assert data.column_names == model.column_names == () and genzoo.load("entry").column_names == ()


@pytest.mark.parametrize("names", [["a", "b"], ["a", "b", "b"], ["a", "b", "c\nd"], ["a", "b", 3], "abc"])
def test_names_that_are_none_are_refused(names: Any) -> None:
    model = VAE((3,), None, latent_dim=1, width=4, depth=1)
    with pytest.raises(ValueError, match="column_names are a name in one line for each column"):
        model.name_columns(names)
    genzoo.publish(model, "own/model", to="entry")
    config = yaml.safe_load(Path("entry/config.yaml").read_text())
    Path("entry/config.yaml").write_text(yaml.safe_dump(config | {"column_names": names}))
    with pytest.raises(ValueError, match="column_names"):
        genzoo.load("entry")
