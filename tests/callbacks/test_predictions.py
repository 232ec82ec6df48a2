"""What a model says of each datum is in a table, beside what the datum is."""

import csv
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_data import write_wav
from foreign import Foreign, points
from lightning.pytorch import Trainer
from PIL import Image
from running import VAE_OF_DIGITS, genzoo, last_run
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from genzoo.callbacks import PredictionWriter
from genzoo.callbacks.predictions import write
from genzoo.datamodules import AudioDataModule, DigitsDataModule, ImageFolderDataModule
from genzoo.datamodules.folder import decode
from genzoo.zoo import VAE, Classifier

Make = Callable[..., Trainer]


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


class Sums(Foreign):
    """Says of an image the sum of its pixels, or whatever else it is told to."""

    def __init__(self, say: Callable[[Tensor], Any] = lambda x: x.flatten(1).sum(1)) -> None:
        super().__init__()
        self.say = say

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Any:
        return self.say(batch[0] if isinstance(batch, list | tuple) else batch)


@pytest.mark.parametrize("in_memory", [True, False])
def test_a_row_for_each_file(
    in_memory: bool, trainer: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(30):
        file = tmp_path / "photos" / ("cat", "dog")[i % 2] / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), 8 * i).save(file)
    torch.manual_seed(0)
    model = VAE(shape=(1, 8, 8), levels=256, latent_dim=2, network="mlp", width=8, depth=1).eval()
    data = ImageFolderDataModule(
        str(tmp_path / "photos"), 8, channels=1, batch_size=4, test_fraction=0.3, in_memory=in_memory, num_workers=0
    )
    monkeypatch.chdir(tmp_path)
    with caplog.at_level(logging.INFO, logger="lightning.pytorch"):
        trainer(PredictionWriter()).predict(model, datamodule=data)
    assert "What VAE says of 9 data is in predictions.csv" in caplog.text
    said = table(tmp_path / "predictions.csv")
    assert list(said[0]) == ["row", "file", "log_prob", "anomaly_score"]
    assert [line["row"] for line in said] == [str(row) for row in range(9)]
    assert [line["file"] for line in said] == [str(file.path) for file in data.files["test"]]
    for line in said:
        x = torch.from_numpy(decode(Path(line["file"]), (1, 8, 8)))[None] / 255
        expected = model.predict_step(x)
        for name in ("log_prob", "anomaly_score"):
            assert float(line[name]) == pytest.approx(float(expected[name]), rel=1e-6)


def test_a_file_of_any_name_has_its_row(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.png")  # Latin-1, as many a disk has it
    write(tmp_path / "said.csv", [{"data": 0, "row": 0, "file": name, "score": "1.5"}], several=False)
    assert b"0,caf\xe9.png,1.5" in (tmp_path / "said.csv").read_bytes()


def test_the_pieces_of_a_recording_have_its_name(trainer: Make, tmp_path: Path) -> None:
    for i in range(10):
        write_wav(tmp_path / "sounds" / f"{i}.wav", torch.full((5 + 2 * i,), i / 16), 8000)
    data = AudioDataModule(str(tmp_path / "sounds"), 4, 8000, pieces="all", test="[37]", batch_size=2)
    trainer(PredictionWriter()).predict(Sums(lambda x: x.flatten(1)[:, 0]), datamodule=data)
    said = [
        (Path(line["file"]).name, round(float(line["prediction"]) * 16))
        for line in table(tmp_path / "predictions.csv")
    ]
    assert said == [("3.wav", 3)] * 3 + [("7.wav", 7)] * 5


def test_several_numbers_have_a_column_each(trainer: Make, tmp_path: Path) -> None:
    model = Classifier(shape=(1, 8, 8), levels=17, num_classes=10, width=2, feature_dim=4).eval()
    data = DigitsDataModule(batch_size=50)
    trainer(PredictionWriter(str(tmp_path / "deep" / "own.csv"))).predict(model, datamodule=data)
    said = table(tmp_path / "deep" / "own.csv")
    assert list(said[0]) == ["row", *(f"probabilities_{i}" for i in range(10))]
    found = torch.tensor([[float(line[f"probabilities_{i}"]) for i in range(10)] for line in said])
    x = torch.cat([x for x, _ in data.test_dataloader()])
    torch.testing.assert_close(found, model.predict_step(x)["probabilities"].detach(), rtol=1e-5, atol=1e-7)


def test_somebody_s_own_module_and_loaders(trainer: Make, tmp_path: Path) -> None:
    class Stream(IterableDataset):
        def __iter__(self) -> Any:
            return iter(points(5, 3).tensors[0])

    shuffled = DataLoader(points(30, 0), 7, shuffle=True)
    loaders = [shuffled, DataLoader(points(3, 1), 2), DataLoader(Stream(), 2)]
    trainer(PredictionWriter()).predict(Sums(), loaders)
    said = table(tmp_path / "predictions.csv")
    assert list(said[0]) == ["data", "row", "prediction"]
    found = [float(line["prediction"]) for line in said]
    expected = [points(n, seed).tensors[0].flatten(1).sum(1) for n, seed in ((30, 0), (3, 1), (5, 3))]
    assert found == pytest.approx(torch.cat(expected).tolist(), rel=1e-6)
    assert [(int(line["data"]), int(line["row"])) for line in said] == [
        (data, row) for data, number in enumerate((30, 3, 5)) for row in range(number)
    ]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64])
def test_every_digit_is_kept(dtype: torch.dtype, trainer: Make, tmp_path: Path) -> None:
    values = (torch.randn(64, generator=torch.Generator().manual_seed(0)) * 1000).to(dtype)
    module = Sums(lambda x: {"a": values[: len(x)], "b": values[: len(x), None]})
    trainer(PredictionWriter()).predict(module, DataLoader(points(64, 0), 64))
    for line, value in zip(table(tmp_path / "predictions.csv"), values, strict=True):
        assert torch.tensor(float(line["a"]), dtype=torch.float64).to(dtype) == value and line["a"] == line["b"]


@pytest.mark.parametrize(
    ("say", "message"),
    [
        (lambda x: None, r"Sums.predict_step returned \{'prediction': 'NoneType'\}, but a table takes"),
        (lambda x: {}, "returned nothing, but"),
        (lambda x: x.sum(), r"returned \{'prediction': \(\)\}"),
        (lambda x: {"a": x, "b": x[1:]}, r"'a': \(8, 1, 4, 4\), 'b': \(7, 1, 4, 4\)"),
        (lambda x: {"a": x, "b": "said"}, r"'b': 'str'"),
        (lambda x: x[1:], "returned 28 rows for 32 data"),
    ],
)
def test_what_is_no_table_is_refused(say: Any, message: str, trainer: Make, tmp_path: Path) -> None:
    data: Dataset = points(32, 0)
    with pytest.raises(ValueError, match=message):
        trainer(PredictionWriter()).predict(Sums(say), DataLoader(data, 8))
    assert not (tmp_path / "predictions.csv").exists()


def test_genzoo_predict_leaves_a_table_in_its_run_folder(tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(VAE_OF_DIGITS)
    genzoo("fit", "--config=small.yaml", "--trainer.max_epochs=1", cwd=tmp_path)
    (checkpoint,) = last_run(tmp_path).glob("checkpoints/*.ckpt")
    predict = ["predict", "--config=small.yaml", f"--ckpt_path={checkpoint}"]
    ended = genzoo(*predict, cwd=tmp_path)
    (one,) = tmp_path.glob("runs/small/*_predict/predictions.csv")
    assert str(one.relative_to(tmp_path)) in ended.stdout + ended.stderr
    one = one.rename(tmp_path / "one.csv")
    genzoo(*predict, "--trainer.strategy=ddp", "--trainer.devices=2", cwd=tmp_path)
    (two,) = tmp_path.glob("runs/small/*_predict*/predictions.csv")
    assert [line["row"] for line in table(two)] == [str(row) for row in range(360)]
    for name in ("log_prob", "anomaly_score"):
        alone, shared = (torch.tensor([float(line[name]) for line in table(path)]) for path in (one, two))
        torch.testing.assert_close(alone, shared, rtol=1e-5, atol=1e-4)
