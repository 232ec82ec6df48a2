"""Data of one's own that grow: others are held out then, and whoever measures a model on them is told."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fake_data import write_wav
from lightning.pytorch import Trainer
from PIL import Image
from running import last_run

import genzoo
from genzoo.cli import main
from genzoo.datamodules import (
    ArrayDataModule,
    AudioDataModule,
    DataModule,
    DigitsDataModule,
    ImageFolderDataModule,
    TextDataModule,
)
from genzoo.datamodules.base import OTHERS
from genzoo.zoo import VAE

QUIET = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def picture(path: str, value: int) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (8, 8), value).save(path)


def pictures() -> DataModule:
    for i in range(40):
        picture(f"photos/{i}.png", i)
    return ImageFolderDataModule("photos", batch_size=4)


def sounds() -> DataModule:
    for i in range(40):
        write_wav(Path(f"sounds/{i}.wav"), torch.full((64,), i / 40), 8000)
    return AudioDataModule("sounds", length=64, sample_rate=8000)


def table(rows: int = 40) -> DataModule:
    np.savetxt("table.csv", np.random.default_rng(0).normal(size=(rows, 2)), delimiter=",", header="a,b", comments="")
    return ArrayDataModule(path="table.csv", batch_size=4)


def text(begin: str = "") -> DataModule:
    Path("text.txt").write_text(begin + "to be or not to be\n" * 100)
    return TextDataModule("text.txt", context_length=8)


def another_picture() -> DataModule:
    picture("photos/41.png", 41)
    return ImageFolderDataModule("photos", batch_size=4)


def renamed_picture() -> DataModule:
    Path("photos/3.png").rename("photos/99.png")
    return ImageFolderDataModule("photos", batch_size=4)


def another_sound() -> DataModule:
    write_wav(Path("sounds/a.wav"), torch.zeros(64), 8000)
    return AudioDataModule("sounds", length=64, sample_rate=8000)


def divided_pictures() -> DataModule:
    """The user has moved them into folders."""
    for number, path in enumerate(sorted(Path("photos").glob("*.png"))):
        place = Path("photos") / ("test" if number < 4 else "train") / path.name
        place.parent.mkdir(exist_ok=True)
        path.rename(place)
    return ImageFolderDataModule("photos", batch_size=4)


def sorted_table() -> DataModule:
    header, *rows = Path("table.csv").read_text().splitlines()
    Path("table.csv").write_text("\n".join([header, *sorted(rows)]))
    return ArrayDataModule(path="table.csv", batch_size=4)


GROWN: list[tuple[Callable[[], DataModule], Callable[[], DataModule]]] = [
    (pictures, another_picture),
    (pictures, renamed_picture),
    (sounds, another_sound),
    (table, lambda: table(44)),
    (table, sorted_table),
    (pictures, lambda: ImageFolderDataModule("photos", batch_size=4, test_fraction=0.2)),
    (sounds, lambda: AudioDataModule("sounds", length=64, sample_rate=8000, test_fraction=0.2)),
    (table, lambda: ArrayDataModule(path="table.csv", batch_size=4, test_fraction=0.2)),
    (text, lambda: TextDataModule("text.txt", context_length=8, test_fraction=0.2)),
    (pictures, lambda: divided_pictures()),
    (sounds, lambda: AudioDataModule("sounds", length=64, sample_rate=8000, test="[01]")),
    (text, lambda: text("not to be\n" * 9)),
]


@pytest.mark.parametrize("before, after", GROWN)
def test_what_is_divided_by_chance_is_known_again_and_what_has_changed_is_not(
    before: Callable[[], DataModule], after: Callable[[], DataModule]
) -> None:
    known = before().split_fingerprint
    assert known is not None and before().split_fingerprint == known
    assert after().split_fingerprint not in (None, known)


def test_what_the_user_has_divided_may_grow() -> None:
    found = []
    for number in (8, 12):
        for i in range(number):
            picture(f"photos/{('train', 'test')[i % 2]}/{i}.png", i)
            write_wav(Path(f"sounds/{i}.wav"), torch.full((64,), i / 40), 8000)
        found.append(ImageFolderDataModule("photos", batch_size=1).split_fingerprint)
        found.append(AudioDataModule("sounds", 64, 8000, test="[01]").split_fingerprint)
    assert len(set(found)) == 1 and found[0] is not None


def test_data_that_are_always_the_same_need_none() -> None:
    assert DigitsDataModule().split_fingerprint is None


def test_where_the_folder_lies_and_how_it_is_read_is_no_change(home: Path) -> None:
    known = pictures().split_fingerprint
    Path("photos").rename("moved")
    again = ImageFolderDataModule(str(home / "moved"), size=4, in_memory=False, val_fraction=0.3)
    assert again.split_fingerprint == known


def test_a_subclass_may_have_a_root_of_its_own() -> None:
    class Cats(ImageFolderDataModule):
        def __init__(self, root: str = "cats") -> None:
            super().__init__(f"data/{root}", batch_size=4)

    known = pictures().split_fingerprint
    Path("data").mkdir()
    Path("photos").rename("data/cats")
    assert Cats().split_fingerprint == known


def test_what_is_validated_on_is_no_part_of_what_is_tested_on() -> None:
    for i in range(20):
        picture(f"photos/{('train', 'train', 'train', 'val')[i % 4]}/{i}.png", i)
    known = ImageFolderDataModule("photos", batch_size=4).split_fingerprint
    picture("photos/val/99.png", 99)
    assert ImageFolderDataModule("photos", batch_size=4).split_fingerprint == known


def test_of_data_that_are_always_the_same_a_limit_is_no_change(recwarn: pytest.WarningsRecorder) -> None:
    data = DigitsDataModule()
    data.setup("fit")
    for limit in (None, 200):
        again = DigitsDataModule(limit=limit)
        again.setup("fit")
        again.load_state_dict(data.state_dict())
        again.load_state_dict({})  # of a subclass that keeps other things
    assert not [warned for warned in recwarn if "for training" in str(warned.message)]
    larger = DigitsDataModule(val_size=300)
    larger.setup("fit")
    with pytest.warns(UserWarning, match="1137 examples are for training and 300 for validation, where there were"):
        larger.load_state_dict(data.state_dict())


def trained(data: DataModule) -> None:
    model = VAE(data.shape, data.levels, latent_dim=2, network="mlp", width=4, depth=1)
    trainer = Trainer(max_steps=2, default_root_dir="run", **QUIET)
    trainer.fit(model, datamodule=data)
    trainer.save_checkpoint("model.ckpt")


@pytest.mark.parametrize("stage", ["test", "validate", "fit"])
def test_a_trainer_says_so_when_it_takes_up_a_checkpoint(stage: str, recwarn: pytest.WarningsRecorder) -> None:
    def said(data: DataModule) -> list[str]:
        recwarn.clear()
        warnings.simplefilter("always")
        model = VAE(data.shape, data.levels, latent_dim=2, network="mlp", width=4, depth=1)
        trainer: Any = Trainer(max_steps=3, default_root_dir="run", **QUIET)
        getattr(trainer, stage)(model, datamodule=data, ckpt_path="model.ckpt", weights_only=True)
        lines = [str(warned.message) for warned in recwarn]
        return [line for line in lines if line == OTHERS or "for validation" in line]

    trained(pictures())
    assert said(pictures()) == said(ImageFolderDataModule("photos", batch_size=4, limit=8)) == []
    larger = said(ImageFolderDataModule("photos", batch_size=4, val_fraction=0.5))
    if stage == "test":
        assert not larger
    else:
        assert larger[0].startswith("18 examples are for training and 18 for validation, where there were 32 and 4: ")
    assert said(renamed_picture()) == [OTHERS]
    assert said(another_picture()) == [OTHERS]


def test_a_run_that_went_on_with_others_has_had_both(recwarn: pytest.WarningsRecorder) -> None:
    trained(pictures())
    grown = another_picture()
    model = VAE(grown.shape, grown.levels, latent_dim=2, network="mlp", width=4, depth=1)
    trainer = Trainer(max_steps=4, default_root_dir="run", **QUIET)
    trainer.fit(model, datamodule=grown, ckpt_path="model.ckpt", weights_only=True)
    trainer.save_checkpoint("longer.ckpt")
    assert len(grown.split_fingerprints) == 2 and grown.split_fingerprint in grown.split_fingerprints
    recwarn.clear()
    warnings.simplefilter("always")
    Trainer(**QUIET).test(model, datamodule=another_picture(), ckpt_path="longer.ckpt", weights_only=True)
    assert OTHERS in [str(warned.message) for warned in recwarn]


RECIPE = """\
# A very small VAE of a folder of pictures.
model: {class_path: VAE, init_args: {latent_dim: 2, network: mlp, width: 4, depth: 1}}
data: {class_path: ImageFolderDataModule, init_args: {root: photos, batch_size: 4}}
trainer:
  max_steps: 2
  accelerator: cpu
  callbacks:
  - class_path: Publish
    init_args: {recipe: vae, measure: false, num_samples: 2, evaluation: {only: [likelihood]}}
"""


def test_a_command_says_so_of_an_entry_and_of_a_checkpoint(capsys: pytest.CaptureFixture[str]) -> None:
    pictures()
    Path("small.yaml").write_text(RECIPE)
    main(["fit", "--config", "small.yaml"])
    run = last_run(Path())
    recorded = json.loads((run / "entry" / "metrics.json").read_text())["training"]["split_fingerprints"]
    assert recorded == [ImageFolderDataModule("photos").split_fingerprint]
    Path("elsewhere.ckpt").write_bytes((run / "checkpoints" / "last.ckpt").read_bytes())

    measuring = ["--only", "likelihood", "--num_likelihood", "2", "--device", "cpu"]
    once = ["--no-evaluate"]
    commands = [
        ["evaluate", str(run / "entry"), "--root", "photos", *measuring],
        ["evaluate", str(run), *measuring],
        ["publish", str(run), "--name", "own/vae", "--to", "published", "--no-evaluate"],
        ["publish", "elsewhere.ckpt", "--config", "small.yaml", "--name", "own/vae", "--to", "published", *once],
    ]
    capsys.readouterr()
    for grown in (False, True):
        if grown:
            another_picture()
        for command in commands:
            main(command)
            assert capsys.readouterr().err.count(OTHERS) == grown, command
    assert genzoo.load("published") is not None
    published = json.loads(Path("published/metrics.json").read_text())["training"]["split_fingerprints"]
    assert published == recorded, "what the training had, not what is there when it is published"
