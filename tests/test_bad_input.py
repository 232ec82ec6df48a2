"""What is wrong with a user's data, files or names is one clear error, before the first step."""

import errno
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningDataModule
from PIL import Image
from running import QUIET, VAE_OF_DIGITS
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

import genzoo
from genzoo.cli import main
from genzoo.datamodules import ImageFolderDataModule, MNISTDataModule


def with_nan(x: Tensor) -> Tensor:
    x = x.clone()
    x[3, 0, 2, 2] = float("nan")
    return x


FAULTS = {
    "shape": (lambda x: x.flatten(1), r"shape \(1, 8, 8\), so a batch is \(B, 1, 8, 8\), but was given \(16, 64\)"),
    "nan": (with_nan, "1 of 16 data in the batch hold NaN"),
    "range": (lambda x: 2 * x - 1, r"values in \[0, 1\], but was given values in \[-1, 1\].*normalisation"),
    "grid": (lambda x: 0.99 * x, "levels=17, so values lie on the grid k/16"),
    "bytes": (lambda x: (255 * x).to(torch.uint8), "torch.uint8. Divide uint8 images by 255"),
    "double": (lambda x: x.double(), "float64"),
}
WRONG_LABELS = {
    "too high": (lambda y: y + 1, r"Labels lie in \[1, 10\].* must lie in \[0, 9\]"),
    "negative": (lambda y: y - 1, r"Labels lie in \[-1, 8\]"),
    "floats": (lambda y: y.float(), "float32"),
    "one-hot": (lambda y: torch.nn.functional.one_hot(y, 10), r"shape \(16, 10\)"),
}


class FaultyData(LightningDataModule):
    """Digits of noise with one fault."""

    shape, levels, num_classes = (1, 8, 8), 17, 10

    def __init__(self, fault: str, split: str = "train") -> None:
        super().__init__()
        self.fault, self.split = fault, split

    def loader(self, split: str) -> DataLoader:
        x, y = torch.arange(64 * 64).view(64, 1, 8, 8) % 17 / 16, torch.arange(64) % 10
        if split == self.split:
            x = FAULTS[self.fault][0](x) if self.fault in FAULTS else x
            y = WRONG_LABELS[self.fault][0](y) if self.fault in WRONG_LABELS else y
        return DataLoader(TensorDataset(x, y), batch_size=16)

    def train_dataloader(self) -> DataLoader:
        return self.loader("train")

    def val_dataloader(self) -> DataLoader:
        return self.loader("val")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "small.yaml").write_text(VAE_OF_DIGITS)
    return tmp_path


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str], folder: Path) -> Any:
    """Runs a command that is to end with one line of error, without having trained or left a run."""

    def run(*argv: str) -> str:
        with pytest.raises(SystemExit) as ended:
            main(list(argv))
        assert ended.value.code == 2
        error = capsys.readouterr().err
        lines = [line for line in error.splitlines() if "error:" in line]
        assert len(lines) == 1 and "Traceback" not in error, error
        assert not list(folder.glob("runs/**/*.ckpt"))
        return lines[0]

    return run


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("fault", FAULTS)
def test_data_that_are_not_what_they_say(refused: Any, fault: str, split: str) -> None:
    data = ["--data=test_bad_input.FaultyData", f"--data.fault={fault}", f"--data.split={split}"]
    said = refused("fit", "--config=small.yaml", *data, *QUIET)
    assert re.search(FAULTS[fault][1], said), said


@pytest.mark.parametrize("fault", WRONG_LABELS)
def test_labels_that_are_none(refused: Any, fault: str) -> None:
    data = ["--data=test_bad_input.FaultyData", f"--data.fault={fault}", "--trainer.callbacks=null"]
    said = refused("fit", "--config=digits/classifier", *data, *QUIET)
    assert "abels" in said and re.search(WRONG_LABELS[fault][1], said), said


def test_a_folder_without_images(refused: Any, folder: Path) -> None:
    options = ["--config=small.yaml", "--data=ImageFolderDataModule", "--data.size=8", *QUIET]
    (folder / "pictures").mkdir()
    assert "there is no image in" in refused("fit", *options, "--data.root=pictures")
    assert "there is no folder" in refused("fit", *options, "--data.root=picturse")
    with pytest.raises(FileNotFoundError, match="there is no image in"):
        ImageFolderDataModule("pictures", 8)


@pytest.mark.parametrize("in_memory", ["true", "false"])
def test_a_damaged_image(refused: Any, folder: Path, in_memory: str) -> None:
    (folder / "pictures").mkdir()
    for i in range(20):
        Image.new("L", (9, 9), 10 * i).save(folder / "pictures" / f"{i}.png")
    whole = (folder / "pictures/7.png").read_bytes()
    (folder / "pictures/7.png").write_bytes(whole[:40])
    options = ["--data=ImageFolderDataModule", "--data.size=8", "--data.root=pictures", "--data.batch_size=4"]
    said = refused("fit", "--config=small.yaml", *options, f"--data.in_memory={in_memory}", *QUIET)
    assert "pictures/7.png cannot be used" in said and "Repair or remove it" in said


def test_data_that_are_not_there_and_no_network(refused: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*args: Any, **kwargs: Any) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setattr("urllib.request.urlopen", unreachable)
    said = refused("fit", "--config=small.yaml", "--data=MNISTDataModule", "--data.root=nowhere", *QUIET)
    assert "MNIST is not under root='nowhere'" in said and "copy the files there" in said
    with pytest.raises(FileNotFoundError, match="Without a network"):
        MNISTDataModule(root="nowhere").prepare_data()


def test_names_that_nothing_has(refused: Any) -> None:
    assert "did you mean digits/" in refused("fit", "--config=digits/classifer")
    assert "'vaes' is neither an entry of the zoo nor a folder" in refused("sample", "vaes")
    assert "--device gpu cannot be used" in refused("sample", "digits/vae", "--device=gpu")
    assert "'latent_dims' is not accepted" in refused("fit", "--config=small.yaml", "--model.latent_dims=3")
    assert "did you mean publish" in refused("publsh")
    with pytest.raises(FileNotFoundError, match="neither an entry of the zoo nor a folder"):
        genzoo.load("vaes")


def test_a_place_where_nothing_can_be_written(refused: Any, folder: Path) -> None:
    (folder / "runs").write_text("a file, where the folder of the runs would be")
    said = refused("fit", "--config=small.yaml", *QUIET)
    assert "no run can be kept in runs/small (Not a directory)" in said and "default_root_dir" in said


@pytest.mark.usefixtures("folder")
def test_a_folder_without_permission(refused: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    mkdir = Path.mkdir

    def closed(self: Path, *arguments: Any, **options: Any) -> None:  # to root no folder is closed
        if "runs" in self.parts:
            raise PermissionError(errno.EACCES, "Permission denied", str(self))
        mkdir(self, *arguments, **options)

    monkeypatch.setattr(Path, "mkdir", closed)
    assert "no run can be kept in runs/small (Permission denied)" in refused("fit", "--config=small.yaml", *QUIET)
