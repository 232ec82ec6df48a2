"""SampleLogger: pictures, sounds and texts on disk and in the loggers, and that training does not notice."""

import json
import math
import wave
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from foreign import Foreign
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger, WandbLogger
from PIL import Image
from running import on_two_processes
from torch import Tensor
from torch.utils.data import DataLoader

from genzoo.callbacks import EMA, SampleLogger, run_folder
from genzoo.datamodules import DigitsDataModule
from genzoo.zoo import VAE
from genzoo.zoo.media import (
    Picture,
    Sound,
    can_render,
    captions_of,
    curves,
    density,
    labels_to_show,
    render,
    window_of,
)
from genzoo.zoo.modality import from_codes, to_codes


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


class Shades(Foreign):
    """Its sample i has the brightness i / 15 everywhere; it can reconstruct, interpolate and complete, in its way."""

    def sample(self, num_samples: int, **_: Any) -> Tensor:
        return torch.linspace(0, 1, num_samples).view(-1, 1, 1, 1).expand(-1, 1, 4, 4) + 0 * self.net[0].bias.sum()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.net(torch.randn(4, 3)).square().mean()

    def encode(self, x: Tensor) -> Any: ...

    def decode(self, z: Tensor) -> Any: ...

    def traverse(self, x: Tensor, dim: int, values: Any) -> Any: ...

    def reconstruct(self, x: Tensor) -> Tensor:
        return 1 - x

    def interpolate(self, a: Tensor, b: Tensor, steps: int) -> Tensor:
        return torch.stack([torch.lerp(a, b, w) for w in torch.linspace(0, 1, steps).tolist()])

    def complete(self, x: Tensor, known: Tensor, *, num_samples: int = 1, generator: Any = None) -> Tensor:
        noise = torch.rand(num_samples, *x.shape, generator=generator)
        return torch.where(known, x, noise)


class Codes(Foreign):
    """Its sample i is the mu-law code i, held; it completes what it is given by its last code, as 1 Hz takes time."""

    sample_rate = 4000
    data = from_codes(torch.arange(256), 256, "waveform").view(-1, 1, 1).expand(-1, 1, 6)

    def sample(self, num_samples: int, **_: Any) -> Tensor:
        return self.data[:num_samples]

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.net(torch.randn(4, 3)).square().mean()

    def complete(self, x: Tensor, known: Tensor, *, num_samples: int = 1, generator: Any = None) -> Tensor:
        assert torch.equal(known.sum((1, 2)), torch.full((len(x),), 3)) and bool(known[..., :3].all())
        return torch.where(known, x, self.data[-1, 0, 0]).expand(num_samples, *x.shape)


class Letters(Codes):
    """The same with tokens: sample i is the i-th small letter, six times."""

    data = torch.arange(26).view(-1, 1).expand(-1, 6)

    def complete(self, x: Tensor, known: Tensor, **_: Any) -> Tensor:
        return torch.where(known, x, 25)[None]

    def text(self, ids: Tensor) -> str:
        return "".join(chr(97 + i) for i in ids.tolist())


def show(trainer: Trainer, module: Codes) -> None:
    """One epoch of five batches, with four data to complete."""
    data = DataLoader(module.data[:10], batch_size=2)  # type: ignore[arg-type]
    trainer.fit(module, data, data)


def heard(path: Path) -> tuple[int, np.ndarray]:
    """The rate and the samples of a wav file, as somebody else reads it."""
    with wave.open(str(path)) as file:
        assert (file.getnchannels(), file.getsampwidth()) == (1, 2)
        return file.getframerate(), np.frombuffer(file.readframes(file.getnframes()), "<i2")


def test_draws_a_page_for_each_capability(tmp_path: Path, trainer: Callable[..., Trainer], fit: Any) -> None:
    fit(trainer(SampleLogger(num_samples=16), max_epochs=2), Shades())
    folder = tmp_path / "samples"
    kinds = ("completions", "interpolations", "reconstructions", "samples")
    assert sorted(p.name for p in folder.iterdir()) == [f"{k}-{step:08d}.png" for k in kinds for step in (5, 10)]

    page = pixels(folder / "samples-00000010.png")
    assert page.shape == (4 * 66 + 2, 4 * 66 + 2, 3)  # 4 × 4 tiles of 4 × 4 pixels, each pixel shown as 16 × 16
    centres = page[34::66, 34::66, 0].flatten()
    np.testing.assert_array_equal(centres, np.round(np.linspace(0, 1, 16) * 255))

    page = pixels(folder / "reconstructions-00000010.png")[:, :, 0].astype(int)
    above, below = page[2:66, 2:66], page[68:132, 2:66]
    assert abs(above + below - 255).max() <= 1  # a datum above its "reconstruction"

    page = pixels(folder / "completions-00000010.png")[:, :, 0]
    data = page[4 * 66 + 2 : 5 * 66, 2:66]
    left, right = np.s_[:, :32], np.s_[:, 32:]
    for row in range(1, 4):
        tile = page[row * 66 + 2 : row * 66 + 66, 2:66]
        assert (tile[left] == data[left]).all() and not (tile[right] == data[right]).all()
    assert (page[2:66, 2:66][right] == 128).all()  # what is not known is grey

    same = [(folder / f"completions-{step:08d}.png").read_bytes() for step in (5, 10)]
    assert same[0] == same[1]  # the same examples, the same noise


@pytest.mark.parametrize("options", [{}, {"limit_val_batches": 0}])
def test_a_resumed_run_goes_on_showing_the_same_examples(
    tmp_path: Path, trainer: Callable[..., Trainer], fit: Any, options: dict[str, Any]
) -> None:
    """Without validations they are the first data of the first epoch. Another of these callbacks has its own."""
    kept = ModelCheckpoint(tmp_path / "checkpoints", every_n_train_steps=7)
    fit(trainer(SampleLogger(4), SampleLogger(4, num_examples=3), kept, max_epochs=2, **options), Shades())
    page = tmp_path / "samples" / "reconstructions-00000010.png"
    shown = page.read_bytes()
    page.unlink()
    again = trainer(SampleLogger(4), SampleLogger(4, num_examples=3), max_epochs=2, **options)
    fit(again, Shades(), ckpt_path=kept.best_model_path)
    assert page.read_bytes() == shown


def test_training_does_not_notice(trainer: Callable[..., Trainer], fit: Callable[..., Foreign]) -> None:
    with_it, without = fit(trainer(SampleLogger())), fit(trainer())
    for name, value in without.state_dict().items():
        assert torch.equal(value, with_it.state_dict()[name]), name


@pytest.mark.parametrize("order", [0, 1])
def test_shows_averaged_weights(tmp_path: Path, trainer: Callable[..., Trainer], fit: Any, order: int) -> None:
    callbacks = [SampleLogger(4), EMA(0.99)]
    module = fit(trainer(*(callbacks[::-1] if order else callbacks), max_epochs=1))
    logger = SampleLogger(4)
    from genzoo.zoo.drawing import draw

    module.eval()
    with torch.no_grad():
        expected = render(draw(module.sample, 4, logger.seed), 2)
    np.testing.assert_array_equal(pixels(tmp_path / "samples/samples-00000005.png"), expected.pixels.numpy())


def test_wandb_stores_the_right_brightness(tmp_path: Path, trainer: Any, fit: Any, monkeypatch: Any) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    logger = WandbLogger(project="test", save_dir=tmp_path, offline=True)
    fit(trainer(SampleLogger(num_samples=16), logger=logger, max_epochs=1), Shades())
    wandb.finish()
    stored = {p.name.split("_")[0]: p for p in tmp_path.glob("wandb/offline-run-*/files/media/images/*.png")}
    assert set(stored) == {"samples", "reconstructions", "completions", "interpolations"}
    centres = pixels(stored["samples"])[34::66, 34::66, 0].flatten()
    np.testing.assert_array_equal(centres, np.round(np.linspace(0, 1, 16) * 255))
    (run,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    assert run.stat().st_size > 0


def test_tensorboard_reads_them_back(tmp_path: Path, trainer: Any, fit: Any) -> None:
    pytest.importorskip("tensorboard")
    from io import BytesIO

    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logger = TensorBoardLogger(tmp_path / "tb")
    fit(trainer(SampleLogger(num_samples=16), logger=[logger, CSVLogger(tmp_path / "csv")], max_epochs=1), Shades())
    events = EventAccumulator(logger.log_dir).Reload()
    assert set(events.Tags()["images"]) == {"samples", "reconstructions", "completions", "interpolations"}
    (image,) = events.Images("samples")
    assert image.step == 5
    centres = np.asarray(Image.open(BytesIO(image.encoded_image_string)))[34::66, 34::66, 0].flatten()
    np.testing.assert_array_equal(centres, np.round(np.linspace(0, 1, 16) * 255))


def test_two_processes_write_once(tmp_path: Path, trainer: Any, fit: Any) -> None:
    fit(trainer(SampleLogger(4), max_epochs=1, **on_two_processes()))
    assert [p.name for p in (tmp_path / "samples").iterdir()] == ["samples-00000003.png"]


def test_the_run_folder_is_the_one_with_the_checkpoints(tmp_path: Path, trainer: Any, fit: Any) -> None:
    run = tmp_path / "runs" / "one"
    fit(trainer(SampleLogger(4), ModelCheckpoint(run / "checkpoints"), max_epochs=1))
    assert (run / "samples").is_dir() and (run / "checkpoints").is_dir()
    assert run_folder(trainer()) == tmp_path
    assert run_folder(trainer(logger=CSVLogger(tmp_path / "logs", "a", "b"))) == tmp_path / "logs" / "a" / "b"


def test_nothing_to_show_is_refused_before_training(trainer: Any, fit: Any) -> None:
    class Mute(LightningModule):
        def training_step(self, batch: Any, batch_idx: int) -> None: ...

        def configure_optimizers(self) -> None: ...

    with pytest.raises(ValueError, match="Mute has no method to show anything with"):
        fit(trainer(SampleLogger()), Mute())
    with pytest.raises(ValueError, match="num_samples"):
        SampleLogger(num_samples=0)


def test_colour_and_ragged_grids() -> None:
    x = torch.zeros(5, 3, 64, 64)
    x[:, 0] = 1.5  # clipped
    page = render(x, 2).pixels  # type: ignore[attr-defined]
    assert page.shape == (3 * 66 + 2, 2 * 66 + 2, 3)
    assert page[10, 10].tolist() == [255, 0, 0]
    assert page[-10, -10].tolist() == [128, 128, 128]  # there is no sixth image


def test_captions_stand_below_their_tiles() -> None:
    x = torch.ones(3, 1, 64, 64)
    words = ["", "cat", "a name that no tile has room for"]
    page = render(x, 2, captions=words).pixels  # type: ignore[attr-defined]
    assert page.shape == (2 * (64 + 12 + 2) + 2, 2 * 66 + 2, 3)
    ink = [255 - page[66:78, 2:66].float(), 255 - page[66:78, 68:132].float(), 255 - page[144:156, 2:66].float()]
    assert ink[0].sum() == 0 < ink[1].sum() < ink[2].sum()
    assert (
        ink[1][:, 40:].sum() == 0 < ink[2][:, 40:].sum() and ink[2][:, 63:].sum() == 0
    )  # three letters; an ellipsis
    assert bool((page[2:66, 2:66] == 255).all())


def test_classes_with_names_are_shown_in_turn(tmp_path: Path, trainer: Callable[..., Trainer]) -> None:
    model = VAE((1, 8, 8), 17, latent_dim=2, network="mlp", width=8, depth=1, num_classes=10, conditional=True)
    assert labels_to_show(model, 4) is None  # they have no names
    model.name_classes([f"digit {k}" for k in range(10)])
    data = DigitsDataModule(limit=64, batch_size=8, classes=[0, 3, 4])
    run = trainer(SampleLogger(5, num_examples=0), max_epochs=1, limit_val_batches=1)
    model.count_classes(torch.tensor([0, 3, 4, 4]))
    labels = labels_to_show(model, 5)
    assert labels is not None and labels.tolist() == [0, 0, 3, 3, 4]
    captions = captions_of(model, labels)
    assert captions == ["digit 0", "digit 0", "digit 3", "digit 3", "digit 4"]
    assert captions_of(model, labels_to_show(model, 2)) == ["digit 0", "digit 3"]
    assert captions_of(model, torch.tensor([7, 9])) == ["digit 7", "digit 9"]
    run.fit(model, datamodule=data)
    from genzoo.zoo.drawing import draw

    (file,) = sorted((tmp_path / "samples").glob("samples-*.png"))[-1:]
    with torch.no_grad():
        x = draw(partial(model.eval().sample, labels=labels), 5, 0)
    np.testing.assert_array_equal(pixels(file), render(x, 2, captions=captions).pixels.numpy())  # type: ignore[attr-defined]


def test_somebody_s_own_classes_are_left_to_their_model(tmp_path: Path, trainer: Any, fit: Any) -> None:
    """A model that has classes, and names for them, but whose `sample` takes none, or that counts none."""

    class Own(Shades):
        num_classes, class_names = 2, ("dark", "bright")

        def sample(self, num_samples: int) -> Tensor:
            return super().sample(num_samples)

    fit(trainer(SampleLogger(4), max_epochs=1), Own())
    assert labels_to_show(Own(), 4) is None and len(list((tmp_path / "samples").glob("samples-*"))) == 1


def test_points_are_shown_where_they_lie() -> None:
    right, top = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    x = torch.stack([right, top, -right, -top, torch.full((2,), torch.nan)]).repeat(20, 1)
    ink = 255 - render(x, 1).pixels[:, :, 0].float()  # type: ignore[attr-defined]
    size = len(ink)
    rows, columns = ink.nonzero().T
    assert (columns[rows < size * 0.1].float().mean() / size - 0.5).abs() < 0.02  # (0, 1) is at the top
    assert (rows[columns > size * 0.9].float().mean() / size - 0.5).abs() < 0.02
    assert len(rows) == 4 * 9
    assert not can_render(torch.zeros(1, 7)) and not can_render(torch.zeros(1, 2, 8, 8))
    with pytest.raises(ValueError, match=r"shape \(7,\) cannot be shown"):
        render(torch.zeros(3, 7), 1)


def test_series_are_curves_on_one_scale() -> None:
    """A rise from the lowest to the highest value, and one to the middle; a gap is not bridged."""
    rise = torch.linspace(0, 1, 33)
    x = torch.stack([rise, rise / 2])[:, None]
    x[1, 0, 16] = torch.nan
    ink = 1 - curves(x).mean(1)
    full, half = ((tile > 0.2).nonzero().T for tile in ink)
    height, width = ink.shape[1:]
    assert full[0].min() <= 3 and full[0].max() >= height - 5 and full[1].min() <= 3 and full[1].max() >= width - 5
    assert abs(half[0].min() / height - 0.5) < 0.03
    at = [int((ink[:, :, column] > 0.2).any(1).sum()) for column in (width // 4, width // 2)]
    assert at == [2, 1]
    two = curves(torch.stack([rise, rise.flip(0)])[None])[0]
    assert len({tuple(color) for color in two.flatten(1).T.tolist() if min(color) < 0.3}) >= 2  # of either channel
    assert isinstance(render(x, 2), Sound) and isinstance(render(x, 2, SimpleNamespace(modality="series")), Picture)
    assert isinstance(render(x.expand(-1, 2, -1), 2), Picture)
    assert bool((curves(torch.full((1, 1, 4), torch.nan)) == 1).all())


def test_sounds_are_written_one_after_another(tmp_path: Path, trainer: Any) -> None:
    show(trainer(SampleLogger(num_samples=256, num_examples=4), max_epochs=1), Codes())
    rate, line = heard(tmp_path / "samples/samples-00000005.wav")
    assert rate == 4000 and len(line) == 256 * 6 + 255 * 1000  # a quarter of a second between them
    clips = np.pad(line, (0, 1000)).reshape(256, 1006)
    assert not clips[:, 6:].any()
    codes = to_codes(torch.from_numpy(clips[:, None, :6] / 2**15), 256, "waveform")
    assert torch.equal(codes, torch.arange(256).view(-1, 1, 1).expand(-1, 1, 6))  # 16 bits keep every code
    _, line = heard(tmp_path / "samples/completions-00000005.wav")
    datum, completed = np.split(np.pad(line, (0, 1000)).reshape(4, 1006)[:2], 2)
    assert (datum[0, :3] == completed[0, :3]).all() and (completed[0, 3:6] == 2**15 - 1).all()


def test_texts_are_written_in_words(tmp_path: Path, trainer: Any) -> None:
    show(trainer(SampleLogger(num_samples=3, num_examples=2), max_epochs=1), Letters())
    rule = 40 * "-"
    written = (tmp_path / "samples/samples-00000005.txt").read_text("utf-8")
    assert written == f"aaaaaa\n{rule}\nbbbbbb\n{rule}\ncccccc\n"
    written = (tmp_path / "samples/completions-00000005.txt").read_text("utf-8")
    assert written.split(f"\n{rule}\n") == ["aaaaaa", "aaazzz", "bbbbbb", "bbbzzz\n"]
    assert render(Letters.data[:1], 1).texts == ["0 0 0 0 0 0"]  # type: ignore[attr-defined]


def test_wandb_stores_sound_and_text(tmp_path: Path, trainer: Any, monkeypatch: Any) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    for module in (Codes(), Letters()):
        logger = WandbLogger(project="test", save_dir=tmp_path / type(module).__name__, offline=True)
        show(trainer(SampleLogger(num_samples=3, num_examples=0), logger=logger, max_epochs=1), module)
        wandb.finish()
    (sound,) = tmp_path.glob("Codes/wandb/offline-run-*/files/media/audio/samples_*.wav")
    (own,) = tmp_path.glob("Codes/**/samples-00000005.wav")
    assert sound.read_bytes() == own.read_bytes()
    (table,) = tmp_path.glob("Letters/wandb/offline-run-*/files/media/table/samples_*.json")
    stored = json.loads(table.read_text())
    assert stored["columns"] == ["text"] and stored["data"] == [["aaaaaa"], ["bbbbbb"], ["cccccc"]]


def test_tensorboard_reads_sound_and_text_back(tmp_path: Path, trainer: Any) -> None:
    pytest.importorskip("tensorboard")
    from io import BytesIO

    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = []
    for module in (Codes(), Letters()):
        logger = TensorBoardLogger(tmp_path / type(module).__name__)
        show(trainer(SampleLogger(num_samples=3, num_examples=0), logger=logger, max_epochs=1), module)
        found.append(EventAccumulator(logger.log_dir).Reload())
    (sound,) = found[0].Audio("samples")
    with wave.open(BytesIO(sound.encoded_audio_string)) as file:
        assert sound.sample_rate == file.getframerate() == 4000
        line = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    _, own = heard(*tmp_path.glob("Codes/**/samples-00000005.wav"))
    assert sound.step == 5 and abs(line.astype(int) - own).max() <= 1
    (text,) = found[1].Tensors("samples/text_summary")
    (markdown,) = text.tensor_proto.string_val
    assert markdown.decode().split("\n")[::2] == ["    aaaaaa", "    bbbbbb", "    cccccc"]


def test_columns_of_other_units_are_shown_side_by_side() -> None:
    """Centimetres and euros: in a square all would lie on one line. Of one unit it stays a square."""
    people = torch.stack([torch.linspace(150, 200, 99), torch.linspace(1e4, 1e5, 99)], 1)
    rows, columns = (density(people, 99)[..., 0] < 255).nonzero(as_tuple=True)
    assert columns.max() - columns.min() > 80 and rows.max() - rows.min() > 80
    _, radius = window_of(torch.tensor([[0.0, 0.0], [3.0, 1.0]]))
    assert radius.shape == () and float(radius) == pytest.approx(1.5 * 1.05)
    assert bool(torch.isfinite(density(torch.tensor([[1.0, 1.0], [2.0, 1.0]]), 9).float()).all())


def test_a_curve_is_broken_where_it_is_infinite() -> None:
    with_gap, without = (curves(torch.tensor([[[0.0, gap, 1.0, 0.5]]])) for gap in (math.nan, -math.inf))
    assert torch.equal(with_gap, without)
