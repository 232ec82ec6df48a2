"""Whose words an entry's card has: a recipe's are of the recipe's own data, and its licence is of our weights."""

import sys
from pathlib import Path

import pytest
import yaml
from jsonargparse import Namespace
from running import QUIET

from genzoo import recipes
from genzoo.cards import without_cards
from genzoo.cli import main
from genzoo.zoo import hub

Captured = pytest.CaptureFixture[str]
MINE = "from genzoo.datamodules import DigitsDataModule\n\n\nclass Mine(DigitsDataModule):\n    pass\n"
SHORT = ["--trainer.max_steps=1", "--trainer.limit_val_batches=1", "--trainer.accelerator=cpu", "--data.limit=64"]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    Path("mine.py").write_text(MINE)
    Path("others.yaml").write_text("data: {class_path: mine.Mine}\n")


OWN = yaml.safe_load(recipes.find("digits/vae").read_text("utf-8"))["trainer"]["callbacks"][-1]["init_args"]["card"]


@pytest.mark.parametrize(
    ("options", "card"),
    [
        ([], OWN),
        (["--data=mine.Mine"], {}),
        (["--config=others.yaml", "--trainer.callbacks.card.spdx=apache-2.0"], {"spdx": "apache-2.0"}),
    ],
)
def test_a_recipe_s_licence_is_stated_of_its_own_data_alone(
    options: list[str], card: dict[str, str], capsys: Captured
) -> None:
    main(["fit", "--config", "digits/vae", *options, *SHORT, *QUIET, "--trainer.callbacks.measure=false"])
    (entry,) = Path("runs/digits/vae").glob("*/entry")
    assert hub.read_config(entry)["card"] == card
    text = (entry / "README.md").read_text("utf-8")
    assert ("license: apache-2.0" in text) == ("spdx" in card)
    assert ("None is stated for the weights" in text) == (not card)
    assert ("the card of digits/vae is of its own data" in capsys.readouterr().err) == bool(options)


def used(recipe: str, class_path: str, /, **arguments: object) -> bool:
    """Whether the card of a recipe is used with such data."""
    argv = ["fit", "--config", str(recipes.find(recipe))]
    return without_cards(argv, Namespace(class_path=class_path, init_args=Namespace(**arguments))) == argv


def test_data_are_a_recipe_s_own_wherever_they_lie_and_however_they_are_batched() -> None:
    assert used("mnist/vae", "genzoo.datamodules.MNISTDataModule", root="elsewhere", batch_size=2, limit=3)
    assert not used("mnist/vae", "genzoo.datamodules.FashionMNISTDataModule", root="elsewhere")
    for root in ("data", "/elsewhere"):  # where it is downloaded to
        assert used(
            "shakespeare/gpt", "genzoo.datamodules.TextDataModule", path=None, source="shakespeare", root=root
        )
    assert not used("shakespeare/gpt", "genzoo.datamodules.TextDataModule", path="mine.txt", source=None)
    assert not used("shakespeare/gpt", "genzoo.datamodules.TextDataModule", path=None, source="stdlib")
    assert used("images/vae", "genzoo.datamodules.DigitsDataModule")  # whose card is of anybody's data
    for root in ("data/cifar10", "/elsewhere/cifar10", "photos", "data/cifar10/mine"):
        own = Path(root).name == "cifar10"
        assert used("cifar10/gan", "ImageFolderDataModule", root=root, size=32, flip=True) == own
    for binarize in ("dynamic", "none"):
        assert used("mnist/vae", "genzoo.datamodules.MNISTDataModule", binarize=binarize) == (binarize == "dynamic")
    stated = yaml.safe_load(recipes.find("points/ddpm").read_text("utf-8"))["data"]["init_args"]["name"]
    assert used("points/ddpm", "PointsDataModule", name=stated)
    assert not used("points/ddpm", "PointsDataModule", name="ring" if stated != "ring" else "moons")
    assert not used("points/ddpm", "PointsDataModule", name=stated, noise=0.3)  # which the recipe leaves as it is


@pytest.mark.parametrize("name", recipes.names())
def test_a_copy_of_a_recipe_is_the_recipe_without_its_licence(name: str, capsys: Captured) -> None:
    main(["cp", name, "my.yaml"])
    recipe, copy = (yaml.safe_load(path.read_text("utf-8")) for path in (recipes.find(name), Path("my.yaml")))
    cards = [block["init_args"]["card"] for block in recipe["trainer"]["callbacks"] if "'card'" in str(block)]
    licensed = [card.pop(key) for card in cards for key in ("spdx", "licence") if key in card]
    assert copy == recipe
    assert ("left out" in capsys.readouterr().err) == bool(licensed)
