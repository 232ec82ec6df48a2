"""Every datamodule can be chosen and configured by a LightningCLI in subclass mode, ours or anybody's."""

import inspect
from pathlib import Path

import pytest
import torch
from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.cli import LightningCLI
from PIL import Image

from genzoo import datamodules


class Linked(LightningModule):
    """A module that is told what its data are."""

    def __init__(self, shape: tuple[int, ...], levels: int | None = None, num_classes: int | None = None):
        super().__init__()
        self.contract = shape, levels, num_classes


class CLI(LightningCLI):
    def add_arguments_to_parser(self, parser) -> None:  # type: ignore[no-untyped-def]
        for name in ("shape", "levels", "num_classes"):
            parser.link_arguments(f"data.{name}", f"model.{name}", apply_on="instantiate")


def cli(*arguments: str) -> LightningDataModule:
    built = CLI(
        Linked,
        LightningDataModule,
        subclass_mode_data=True,
        run=False,
        save_config_callback=None,
        trainer_defaults={"logger": False, "enable_checkpointing": False, "accelerator": "cpu"},
        args=["--data", *arguments],
    )
    data = built.datamodule
    assert built.model.contract == (data.shape, data.levels, data.num_classes)
    return data


@pytest.mark.parametrize(
    ("name", "arguments", "levels"),
    [
        ("DigitsDataModule", ["--data.binarize=none"], 17),
        ("MNISTDataModule", ["--data.binarize=dynamic", "--data.classes=[1,2]", "--data.limit=100"], 2),
        ("FashionMNISTDataModule", ["--data.root=elsewhere"], 256),
        ("KMNISTDataModule", [], 256),
        ("CIFAR10DataModule", ["--data.flip=true", "--data.shift=4"], 256),
        ("EmojiDataModule", ["--data.size=16", "--data.flip=true"], 256),
        ("FSDDDataModule", ["--data.root=elsewhere", "--data.length=100"], 256),
        ("PointsDataModule", ["--data.name=moons", "--data.noise=0.3"], None),
    ],
)
def test_built_by_the_command_line(name: str, arguments: list[str], levels: int | None, tmp_path: Path) -> None:
    data = cli(name, "--data.batch_size=5", *arguments)
    assert type(data) is getattr(datamodules, name) and data.batch_size == 5
    assert data.levels == levels
    # What a checkpoint keeps: plain values that build the same datamodule again.
    torch.save(dict(data.hparams), tmp_path / "hparams.pt")
    assert torch.load(tmp_path / "hparams.pt", weights_only=True) == dict(data.hparams)
    plain = {key: value for key, value in data.hparams.items() if not key.startswith("_")}
    assert set(plain) == set(inspect.signature(type(data)).parameters)
    assert type(data)(**plain).hparams == {**plain}


@pytest.mark.parametrize("in_memory", ["auto", "true", "false"])
def test_an_image_folder_built_by_the_command_line(tmp_path: Path, in_memory: str) -> None:
    for i in range(10):
        Image.new("L", (4, 4), i).save(tmp_path / f"{i}.png")
    data = cli("ImageFolderDataModule", f"--data.root={tmp_path}", "--data.size=4", f"--data.in_memory={in_memory}")
    assert data.in_memory is (in_memory != "false")


def test_a_table_built_by_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("age,pay,name\n" + "".join(f"{i},{i * i},{i % 2 == 0}\n" for i in range(20)))
    named = ["--data.columns=[pay,age]", "--data.label=name"]
    data = cli("ArrayDataModule", f"--data.path={tmp_path / 'table.csv'}", *named, "--data.batch_size=5")
    assert (data.shape, data.levels, data.num_classes, data.class_names) == ((2,), None, 2, ["False", "True"])
    torch.save(dict(data.hparams), tmp_path / "hparams.pt")
    assert torch.load(tmp_path / "hparams.pt", weights_only=True) == dict(data.hparams)
    plain = {key: value for key, value in data.hparams.items() if not key.startswith("_")}
    assert set(plain) == set(inspect.signature(type(data)).parameters) - {"x", "y"}
    assert type(data)(**plain).hparams == {**plain}


def test_a_mistake_is_said_by_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli("MNISTDataModule", "--data.binarize=otsu")
    assert "otsu" in capsys.readouterr().err
