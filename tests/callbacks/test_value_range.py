"""Images in [−1, 1], bytes and what else there is: drawn as they are meant, compared only with their like."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from foreign import Foreign
from lightning.pytorch import LightningDataModule, Trainer
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader

from genzoo.callbacks import FrechetDistance, Publish, SampleLogger, evaluate
from genzoo.metrics.closeness import Closeness
from genzoo.metrics.extractors import FeatureExtractor
from genzoo.metrics.frechet import FeatureStatistics, frechet_distance
from genzoo.zoo import Classifier
from genzoo.zoo.media import samples_of
from genzoo.zoo.value_range import BYTES, SYMMETRIC, UNIT, contradicts, plain_range, range_of, to_unit

RANGES = {"unit": UNIT, "symmetric": SYMMETRIC, "bytes": BYTES}


def images(n: int, value_range: Any, seed: int = 0) -> Tensor:
    """Grey 4 × 4 images that span the range; the first goes evenly from its darkest to its brightest value."""
    low, high = value_range
    x = torch.rand(n, 1, 4, 4, generator=torch.Generator().manual_seed(seed))
    x[0] = torch.linspace(0, 1, 16).view(1, 4, 4)
    return low + (high - low) * x


class Data(LightningDataModule):
    def __init__(self, value_range: Any = UNIT, images: Any = images) -> None:
        super().__init__()
        self.value_range, self.images = value_range, images

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.images(40, self.value_range), 20)

    val_dataloader = test_dataloader = train_dataloader


class Paints(Foreign):
    """Its samples are images in a range of its own."""

    def __init__(self, value_range: Any = UNIT) -> None:
        super().__init__(lr=0.0)
        self.value_range = value_range
        self.shape = (1, 4, 4)

    def sample(self, num_samples: int, **_: Any) -> Tensor:
        return images(num_samples, self.value_range, seed=1)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return sum(p.sum() for p in self.net.parameters())  # type: ignore[return-value]


class Mirrors(Paints):
    """It also draws data."""

    def encode(self, x: Tensor) -> Any: ...

    def decode(self, z: Tensor) -> Any: ...

    def traverse(self, x: Tensor, dim: int, values: Any) -> Any: ...

    def reconstruct(self, x: Tensor) -> Tensor:
        return x

    def interpolate(self, a: Tensor, b: Tensor, steps: int) -> Tensor:
        return torch.stack([torch.lerp(a, b, w) for w in torch.linspace(0, 1, steps).tolist()])

    def complete(self, x: Tensor, known: Tensor, *, num_samples: int = 1, generator: Any = None) -> Tensor:
        return x.expand(num_samples, *x.shape)


def tiles(path: Path) -> np.ndarray:
    """(rows, columns, 4, 4), the pixels of a grid of 4 × 4 images, each shown as 64 × 64."""
    page = np.asarray(Image.open(path))[:, :, 0]
    rows, columns = ((side - 2) // 66 for side in page.shape)
    return np.stack(
        [
            [page[r * 66 + 10 : r * 66 + 66 : 16, c * 66 + 10 : c * 66 + 66 : 16] for c in range(columns)]
            for r in range(rows)
        ]
    )


RAMP = np.round(np.linspace(0, 1, 16) * 255).reshape(4, 4)


# ---- what is told of values


def test_the_range_of_data_is_the_least_that_holds_them() -> None:
    for value_range in (UNIT, SYMMETRIC, BYTES):
        assert range_of(images(5, value_range)) == value_range
    assert range_of(images(5, (-0.42, 2.8))) == pytest.approx((-0.42, 2.8))
    assert range_of(torch.zeros(3, 1, 4, 4, dtype=torch.uint8)) == BYTES
    for no_images in (torch.zeros(3, 2), torch.zeros(3, 1, 8), torch.zeros(3, 4, dtype=torch.int64)):
        assert range_of(no_images) is None and plain_range(no_images) is None


def test_samples_that_stray_a_little_are_plainly_nothing() -> None:
    strays = images(50, (-0.05, 1.05))
    assert plain_range(strays) is None and not contradicts(strays, UNIT) and not contradicts(strays, SYMMETRIC)
    small = images(50, (-0.3, 0.3))  # a tanh that has learned nothing
    assert plain_range(small) is None and not contradicts(small, UNIT)
    few = torch.zeros(50, 1, 4, 4)
    few[0, 0, 0, 0] = -0.9  # one stroke of a linear network
    assert not contradicts(few, UNIT)
    wide = images(50, (-0.42, 2.8))
    assert contradicts(images(50, UNIT), range_of(wide)) and not contradicts(wide, range_of(wide))


@pytest.mark.parametrize("value_range", [*RANGES.values(), (-0.4, 2.8)])
def test_images_are_brought_to_the_unit_range(value_range: Any) -> None:
    torch.testing.assert_close(to_unit(images(5, value_range), value_range), images(5, UNIT))
    byte = torch.tensor([0, 51, 255], dtype=torch.uint8)
    assert to_unit(byte, BYTES).tolist() == pytest.approx([0, 0.2, 1])


# ---- pictures


@pytest.mark.parametrize("stated", [True, False])
@pytest.mark.parametrize("name", RANGES)
def test_samples_are_drawn_from_black_to_white(
    tmp_path: Path, trainer: Any, caplog: pytest.LogCaptureFixture, name: str, stated: bool
) -> None:
    value_range = RANGES[name]
    logger = SampleLogger(4, num_examples=2, value_range=value_range if stated else None)
    trainer(logger, max_epochs=2).fit(Mirrors(value_range), Data(value_range))
    folder = tmp_path / "samples"
    np.testing.assert_array_equal(tiles(folder / "samples-00000004.png")[0, 0], RAMP)
    np.testing.assert_array_equal(tiles(folder / "reconstructions-00000004.png")[:, 0], np.stack([RAMP, RAMP]))
    known = tiles(folder / "completions-00000004.png")[0, 0]
    np.testing.assert_array_equal(known[:, :2], RAMP[:, :2])
    assert (abs(known[:, 2:].astype(int) - 128) <= 1).all()  # what is not known is grey
    said = [r.getMessage() for r in caplog.records if "value_range" in r.getMessage()]
    assert len(said) == (name != "unit")  # once
    assert not said or {"symmetric": "[−1, 1]", "bytes": "[0, 255]"}[name] in said[0]


@pytest.mark.parametrize(("data", "own"), [(UNIT, SYMMETRIC), (SYMMETRIC, UNIT), (BYTES, UNIT), (BYTES, SYMMETRIC)])
def test_samples_in_another_range_than_the_data(tmp_path: Path, trainer: Any, data: Any, own: Any) -> None:
    """Alone they are drawn as they are meant; beside data they are a mistake, unless the range is stated."""
    trainer(SampleLogger(4), max_epochs=1).fit(Paints(own), Data(data))
    np.testing.assert_array_equal(tiles(tmp_path / "samples/samples-00000002.png")[0, 0], RAMP)
    with pytest.raises(
        ValueError, match=r"SampleLogger: the data are images in \[.*\], but the samples in \[.*\]"
    ) as e:
        trainer(SampleLogger(4), max_epochs=1).fit(Mirrors(own), Data(data))
    assert "\n" not in str(e.value) and "`value_range`" in str(e.value)
    trainer(SampleLogger(4, value_range=data), max_epochs=1).fit(Mirrors(own), Data(data))


def test_standardised_data_are_drawn_from_their_least_to_their_greatest(tmp_path: Path, trainer: Any) -> None:
    trainer(SampleLogger(4), max_epochs=1).fit(Paints((-0.42, 2.8)), Data((-0.42, 2.8)))
    np.testing.assert_array_equal(tiles(tmp_path / "samples/samples-00000002.png")[0, 0], RAMP)


@pytest.mark.parametrize("batch", ["dictionary", "other shape"])
def test_where_batches_say_nothing_the_samples_do(tmp_path: Path, trainer: Any, batch: str) -> None:
    def rows(n: int, value_range: Any) -> Any:
        return [{"x": x} for x in images(n, value_range)] if batch == "dictionary" else torch.zeros(n, 3, 2, 2)

    trainer(SampleLogger(4), max_epochs=1, limit_val_batches=0).fit(Paints(SYMMETRIC), Data(UNIT, rows))
    np.testing.assert_array_equal(tiles(tmp_path / "samples/samples-00000002.png")[0, 0], RAMP)


def test_pictures_of_entries_are_drawn_so_too() -> None:
    from genzoo.zoo.hub.film import Film

    for value_range in (UNIT, SYMMETRIC):
        medium = samples_of(Paints(value_range), 4, 0)
        assert medium is not None
        np.testing.assert_array_equal(medium.pixels[10:66:16, 10:66:16, 0], RAMP)  # type: ignore[attr-defined]
        film = Film()
        film.take(Paints(value_range), 0)
        np.testing.assert_array_equal(film.frames[0][0, 0], RAMP)


# ---- distances


def flat() -> nn.Module:
    return nn.Flatten()


@pytest.mark.parametrize(("data", "own"), [(UNIT, SYMMETRIC), (SYMMETRIC, UNIT), (BYTES, UNIT), ((-0.4, 2.8), UNIT)])
def test_a_distance_between_two_ranges_is_refused(trainer: Any, data: Any, own: Any) -> None:
    callback = FrechetDistance(flat(), num_samples=50)
    with pytest.raises(ValueError, match=r"test split are in \[.*\], but the samples in \[.*\]: a distance") as error:
        trainer(callback, max_epochs=1).fit(Paints(own), Data(data))
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="a distance between them means nothing"):
        evaluate(Paints(own), Data(data), extractor=flat(), num_samples=50, only=["closeness"], progress=False)
    run = trainer(FrechetDistance(flat(), num_samples=50, value_range=data), max_epochs=1)
    run.fit(Paints(own), Data(data))  # they were told
    assert run.callback_metrics["val/frechet"] > 0.5


@pytest.mark.parametrize("name", RANGES)
def test_a_module_of_ones_own_sees_images_as_they_are_and_an_entry_in_the_unit_range(
    trainer: Any, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    value_range = RANGES[name]
    torch.manual_seed(0)
    classifier = Classifier((1, 4, 4), 17, 10, feature_dim=3, width=4)
    for extractor, shown in ((flat(), value_range), (classifier, UNIT)):
        run = trainer(FrechetDistance(extractor, num_samples=30, batch_size=30), max_epochs=1)
        run.fit(Paints(value_range), Data(value_range))
        features = FeatureExtractor(extractor)
        real, fake = (FeatureStatistics.of(features(images(n, shown, seed))) for n, seed in ((40, 0), (30, 1)))
        expected = frechet_distance(real, fake)
        assert run.callback_metrics["val/frechet"].item() == pytest.approx(expected, rel=1e-4)
    said = [r.getMessage() for r in caplog.records if "floor" in r.getMessage()]
    assert len(said) == 2 and all(("images in [" in line) == (name != "unit") for line in said)


def test_the_range_of_standardised_images_is_that_of_all_of_them() -> None:
    """Whatever the batches are that they come in."""
    standardised = images(40, (-1.8, 2.4))
    found = set()
    for size in (5, 20, 40):

        class Bare(LightningDataModule):
            def test_dataloader(self, size: int = size) -> DataLoader:
                return DataLoader(standardised, size)

        how: Any = {"split": "test", "num_samples": 30, "device": torch.device("cpu")}
        found.add(Closeness(Bare(), FeatureExtractor(Classifier((1, 4, 4), 17, 10, width=4)), **how).value_range)
    assert found == {(float(standardised.min()), float(standardised.max()))}
    assert to_unit(torch.full((2, 1, 4, 4), 7.0), (7.0, 7.0)).eq(0).all()


def test_a_range_that_is_none_is_refused() -> None:
    for bad in ((1.0, -1.0), (0.0, 0.0), (0.0,), (float("nan"), 1.0)):
        for make in (SampleLogger, lambda **options: FrechetDistance(flat(), **options)):
            with pytest.raises(ValueError, match="give the darkest and the brightest value"):
                make(value_range=bad)


# ---- refused before training


class Steps(Paints):
    """Counts the steps of training."""

    steps = 0

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.steps += 1
        return super().training_step(batch, batch_idx)


class Torn(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise KeyError("no such layer\nand more")


BAD_EXTRACTORS = {
    "of another width": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(5, 2)), "shape \\(1, 4, 4\\): mat1 and mat2"),
    "of another shape": (lambda: Classifier((1, 8, 8), 17, 10, width=4), r"is for data of shape \(1, 8, 8\)"),
    "of maps": (lambda: nn.Conv2d(1, 2, 3), "Features must be a matrix"),
    "of nothing finite": (lambda: nn.Sequential(nn.Flatten(), nn.Threshold(9, torch.nan)), "not finite"),
    "torn": (Torn, "makes no features of data of shape"),
}


@pytest.mark.parametrize("name", BAD_EXTRACTORS)
def test_an_extractor_that_does_not_fit(tmp_path: Path, trainer: Callable[..., Trainer], name: str) -> None:
    build, message = BAD_EXTRACTORS[name]
    module = Steps()
    with pytest.raises(ValueError, match=message) as error:
        trainer(FrechetDistance(build(), num_samples=20)).fit(module, Data())
    assert "\n" not in str(error.value) and module.steps == 0


def test_a_split_that_is_not_there(trainer: Callable[..., Trainer]) -> None:
    from genzoo.callbacks import LikelihoodLogger

    class NoTest(Data):
        test_dataloader = LightningDataModule.test_dataloader

    class Likely(Steps):
        log_prob_kind = "exact"

        def log_prob(self, x: Tensor, **_: Any) -> Tensor: ...

        def bits_per_dim(self, x: Tensor, **_: Any) -> Tensor: ...

    bare = DataLoader(images(40, UNIT), 20)
    for arguments in ((NoTest(),), (bare, bare), (bare,)):
        module = Steps()
        with pytest.raises(ValueError, match=r"FrechetDistance: reference='test': .* has? ?.*no test"):
            trainer(FrechetDistance(flat(), num_samples=20)).fit(module, *arguments)
        assert module.steps == 0
    module = Likely()
    with pytest.raises(ValueError, match=r"LikelihoodLogger: split='val': .*no val"):
        trainer(LikelihoodLogger()).fit(module, bare)
    assert module.steps == 0
    run = trainer(FrechetDistance(flat(), num_samples=20, reference="val"), max_epochs=1, limit_val_batches=0)
    run.fit(Steps(), bare, bare)  # it is there, though no validation reads it
    assert "val/frechet" in run.callback_metrics


def test_the_look_before_training_leaves_no_trace(trainer: Callable[..., Trainer]) -> None:
    class Draws(Foreign):
        pass

    found = []
    for callbacks in ([], [FrechetDistance(flat(), num_samples=20, every_n_epochs=9)]):
        torch.manual_seed(0)
        module = Draws()
        train = DataLoader(list(zip(images(40, UNIT), torch.zeros(40), strict=True)), 8, shuffle=True)
        trainer(*callbacks, max_epochs=2, limit_val_batches=0).fit(module, Shuffled(train))
        found.append({name: value.clone() for name, value in module.state_dict().items()})
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


class Shuffled(LightningDataModule):
    def __init__(self, loader: DataLoader) -> None:
        super().__init__()
        self.loader = loader

    def train_dataloader(self) -> DataLoader:
        return self.loader

    test_dataloader = train_dataloader


BAD_ENTRIES: dict[str, tuple[dict[str, Any], str]] = {
    "a section": ({"card": {"descripton": "x"}}, r"unknown sections \['descripton'\]"),
    "a name": ({"name": "my vae"}, "name='my vae'"),
    "an address": ({"to": "hf://owner"}, "hf://owner/name"),
    "another address": ({"to": "https://host/x"}, "publish to a folder"),
    "a dtype": ({"dtype": "flaot16"}, "dtype='flaot16': give one of float32, float16, bfloat16, int8"),
    "an extractor": ({"evaluation": {"extractor": nn.Sequential(nn.Flatten(), nn.Linear(5, 2))}}, "mat1 and mat2"),
    "an entry's shape": ({"evaluation": {"extractor": "mnist/classifier"}}, r"shape \(1, 28, 28\)"),
    "an argument": ({"evaluation": {"num_sampels": 3}}, "num_sampels"),
    "a number": ({"evaluation": {"num_samples": 0}}, "num_samples is 0"),
    "a word": ({"evaluation": {"num_samples": "many"}}, "num_samples is 'many'"),
    "half": ({"evaluation": {"num_odd": 2.5}}, "num_odd is 2.5"),
    "a split": ({"evaluation": {"split": "tset"}}, "split='tset' must be one of train, val, test"),
    "a group": ({"evaluation": {"only": ["likelyhood"]}}, r"no group \['likelyhood'\]"),
    "a group's name": ({"evaluation": {"only": "likelihood"}}, "give a list"),
    "odd": ({"evaluation": {"odd": ["green"]}}, r"odd is \['green'\]"),
    "a seed": ({"evaluation": {"seed": -1}}, "seed is -1"),
    "a device": ({"evaluation": {"device": "gpu0"}}, "device='gpu0'"),
    "more data than files state": ({"evaluation": {"num_likelihood": 10_000_000}}, "evaluation.num_likelihood"),
    "more particles": ({"evaluation": {"num_particles": 200_000}}, "evaluation.num_particles"),
}


@pytest.mark.parametrize("mistake", BAD_ENTRIES)
def test_what_publish_would_find_only_at_the_end(
    tmp_path: Path, trainer: Callable[..., Trainer], mistake: str
) -> None:
    from genzoo.datamodules import DigitsDataModule
    from genzoo.zoo import VAE

    arguments, message = BAD_ENTRIES[mistake]
    steps: list[int] = []

    class Watched(VAE):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            steps.append(batch_idx)
            return super().training_step(batch, batch_idx)

    publish = Publish(**{"name": "digits/vae", "to": str(tmp_path / "entry"), **arguments})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=message) as error:
        trainer(publish, max_epochs=1).fit(Watched((1, 8, 8), 17, network="mlp", width=8), DigitsDataModule(limit=64))
    assert str(error.value).startswith("Publish: ") and "\n" not in str(error.value)
    assert not steps and not (tmp_path / "entry").exists()


@pytest.mark.parametrize(
    "arguments", [{"num_samples": 20_000}, {"num_samples": 0}, {"seed": -1}, {"seed": 0.5}], ids=str
)
def test_what_the_entry_s_picture_cannot_be_of(arguments: dict[str, Any]) -> None:
    (name,) = arguments
    with pytest.raises(ValueError, match=f"Publish: {name} is "):
        Publish("digits/vae", **arguments)


def test_where_publish_could_not_write_at_the_end(tmp_path: Path, trainer: Callable[..., Trainer]) -> None:
    from genzoo.datamodules import DigitsDataModule
    from genzoo.zoo import VAE

    (full := tmp_path / "full").mkdir()
    (full / "thesis.tex").write_text("years of work")
    (plain := tmp_path / "plain").write_text("a file")
    for to in (full, plain, plain / "entry"):
        with pytest.raises(ValueError, match=r"^Publish: .*choose another$"):
            trainer(Publish("digits/vae", str(to))).fit(
                VAE((1, 8, 8), 17, network="mlp", width=8), DigitsDataModule(limit=64)
            )
    with pytest.raises(FileNotFoundError, match=r"did you mean .*digits/classifier"):
        trainer(Publish("digits/vae", evaluation={"extractor": "digits/clasifier"})).fit(
            VAE((1, 8, 8), 17, network="mlp", width=8), DigitsDataModule(limit=64)
        )
    assert (full / "thesis.tex").is_file() and plain.read_text() == "a file"


def test_the_rehearsal_leaves_no_trace(tmp_path: Path, trainer: Callable[..., Trainer]) -> None:
    from genzoo.datamodules import DigitsDataModule
    from genzoo.zoo import VAE

    found = []
    quick = {"num_particles": 2, "num_odd": 0, "progress": False, "only": ["likelihood"]}
    for callbacks in ([], [Publish("digits/vae", str(tmp_path / "entry"), evaluation=quick)]):
        torch.manual_seed(0)
        module = VAE((1, 8, 8), 17, network="mlp", width=8)
        trainer(*callbacks, max_epochs=1).fit(module, DigitsDataModule(limit=128))
        found.append(module.state_dict())
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
    stated = json.loads((tmp_path / "entry" / "metrics.json").read_text())
    assert stated["training"]["steps"] > 0
