"""A leading `~` is the user's home wherever a place is named: in a recipe nobody's shell has made it one."""

import sys
from pathlib import Path

import pytest
import torch
from fake_data import write_mnist, write_shakespeare, write_wav
from PIL import Image
from running import QUIET, VAE_OF_DIGITS, refused

import genzoo
from genzoo.cli import main
from genzoo.datamodules import AudioDataModule, ImageFolderDataModule, MNISTDataModule, TextDataModule
from genzoo.zoo import VAE


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


def test_where_data_are(home: Path) -> None:
    for i in range(12):
        (home / "photos").mkdir(exist_ok=True)
        Image.new("L", (8, 8), i).save(home / "photos" / f"{i}.png")
        write_wav(home / "sounds" / f"{i}.wav", torch.full((50,), i / 16), 8000)
    write_mnist(home / "data")
    write_shakespeare(home / "data")
    assert ImageFolderDataModule("~/photos").name == "photos"
    assert len(AudioDataModule("~/sounds", 40, 8000).find("test")) == 1
    MNISTDataModule("~/data").prepare_data()
    TextDataModule(source="shakespeare", root="~/data", context_length=8)


def test_a_home_that_nobody_has_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert "neither a recipe nor the path" in refused(["fit", "--config=~nobody-of-that-name/own.yaml"], capsys)


def test_where_runs_and_answers_go(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("small.yaml").write_text(VAE_OF_DIGITS)
    main(["fit", "--config=small.yaml", *QUIET, "--trainer.max_epochs=1", "--trainer.default_root_dir=~/kept"])
    (last,) = (home / "kept" / "small").glob("*/checkpoints/last.ckpt")
    again = "~/" + last.relative_to(home).as_posix()
    main(["fit", "--config=small.yaml", *QUIET, "--trainer.default_root_dir=~/kept", "--ckpt_path", again])
    main(["sample", again, "--num_samples", "2", "--out", "~/drawn.png"])
    genzoo.publish(genzoo.load(again), "own/model", to="~/entry")
    assert type(VAE.from_pretrained("~/entry")) is VAE
    Path("small.yaml").rename(home / "small.yaml")
    main(["fit", "--config=~/small.yaml", *QUIET, "--trainer.max_epochs=1", "--trainer.default_root_dir=~/kept"])
    assert (home / "drawn.png").is_file()
    assert not list(Path().iterdir())
