"""The FrechetDistance callback: what it logs, what it leaves alone, and that every process agrees."""

import json
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from foreign import Foreign, points
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from running import on_two_processes
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from genzoo.callbacks import EMA, FrechetDistance
from genzoo.datamodules import DigitsDataModule
from genzoo.metrics.closeness import Closeness
from genzoo.metrics.extractors import FeatureExtractor, fingerprint
from genzoo.metrics.features import real_features
from genzoo.metrics.frechet import FeatureStatistics, frechet_distance
from genzoo.metrics.kernel import kernel_distance
from genzoo.metrics.manifold import manifold_scores
from genzoo.zoo import Autoencoder, Classifier


def extractor(d: int = 5, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, d), nn.BatchNorm1d(d))


class Points(LightningDataModule):
    """Plain loaders, with a last batch that is not full."""

    def __init__(self, test: int = 61) -> None:
        super().__init__()
        self.test = test

    def train_dataloader(self) -> DataLoader:
        return DataLoader(points(80, 0), 16, shuffle=True)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(points(50, 1), 16)

    def test_dataloader(self) -> DataLoader:
        return DataLoader(points(self.test, 2), 16)


class Repeats(Foreign):
    """Its samples come from the generator, and are near real data."""

    def sample(self, num_samples: int, *, generator: torch.Generator | None = None) -> Tensor:  # type: ignore[override]
        x = torch.rand(num_samples, 1, 4, 4, generator=generator)
        return (x * self.net[0].weight.sigmoid().mean()).clamp(0, 1)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return sum(p.sum() for p in self.net.parameters())


def test_logs_the_distance_of_the_samples_from_the_reference(trainer: Callable[..., Trainer]) -> None:
    run = trainer(FrechetDistance(extractor(), num_samples=70, batch_size=32, kid=True, prdc=True), max_epochs=1)
    torch.manual_seed(0)
    module, data = Repeats(lr=0.0), Points()
    run.fit(module, data)

    features = FeatureExtractor(extractor())
    assert run.callbacks[0]._extractor.fingerprint == features.fingerprint
    real = FeatureStatistics.of(features(points(61, 2).tensors[0]))
    again = trainer(FrechetDistance(extractor(), num_samples=70, batch_size=32), max_epochs=1)
    again.validate(module, datamodule=data, verbose=False)
    assert again.callback_metrics["val/frechet"] == run.callback_metrics["val/frechet"]

    from genzoo.zoo.drawing import blocks, draw

    samples = torch.cat([draw(module.sample, size, seed) for _, size, seed in blocks(70, 32, 0)])
    expected = frechet_distance(real, FeatureStatistics.of(features(samples)))
    assert run.callback_metrics["val/frechet"].item() == pytest.approx(expected, rel=1e-6)
    of_real, of_samples = features(points(61, 2).tensors[0]), features(samples)
    found = {"kid": kernel_distance(of_real, of_samples)[0], **manifold_scores(of_real, of_samples)}
    assert set(found) == {"kid", "precision", "recall", "density", "coverage"}
    for name, value in found.items():
        assert run.callback_metrics[f"val/{name}"].item() == pytest.approx(value, rel=1e-6), name


def test_the_floor_is_the_distance_of_as_many_real_data() -> None:
    """Of the training data, spread over all of them, in the order that they have without shuffling."""
    features = FeatureExtractor(extractor())
    closeness = Closeness(Points(), features, split="test", num_samples=70, device=torch.device("cpu"))
    train = points(80, 0).tensors[0][torch.arange(70) * 80 // 70]
    real, others = (FeatureStatistics.of(features(x)) for x in (points(61, 2).tensors[0], train))
    assert closeness.floor().value == pytest.approx(frechet_distance(real, others), rel=1e-6)


@pytest.mark.parametrize("validates", [True, False])
def test_an_autoencoder_is_compared_as_soon_as_it_can_be_sampled(
    trainer: Callable[..., Trainer], validates: bool
) -> None:
    options: Any = {"network": "mlp", "width": 8, "latent_dim": 2}
    torch.manual_seed(0)
    data = DataLoader(TensorDataset((points(80, 0).tensors[0] * 16).round() / 16), 16)
    how: Any = {} if validates else {"limit_val_batches": 0}
    reference = "val" if validates else "train"
    run = trainer(FrechetDistance(extractor(), num_samples=30, reference=reference), max_epochs=1, **how)
    run.fit(Autoencoder((1, 4, 4), 17, density_components=2, **options), data, data)
    assert run.callback_metrics["val/frechet"] > 0
    with pytest.raises(ValueError, match="Autoencoder has no `sample"):
        trainer(FrechetDistance(extractor()), max_epochs=1).fit(Autoencoder((1, 4, 4), 17, **options), data, data)


def test_better_samples_score_lower_and_real_ones_near_the_floor(
    trainer: Callable[..., Trainer], capsys: pytest.CaptureFixture, caplog: pytest.LogCaptureFixture
) -> None:
    class Perfect(Repeats):
        def sample(self, num_samples: int, *, generator: torch.Generator | None = None) -> Tensor:  # type: ignore[override]
            return torch.rand(num_samples, 1, 4, 4, generator=generator)

    scores = {}
    for kind in (Perfect, Repeats):
        run = trainer(FrechetDistance(extractor(), num_samples=80), max_epochs=1)
        run.fit(kind(lr=0.0), Points(test=80))
        scores[kind] = run.callback_metrics["val/frechet"].item()
    said = [r.getMessage() for r in caplog.records if "floor" in r.getMessage()]
    assert (
        len(said) == 2 and "80 samples against the test split" in said[0] and "80 real data of the train" in said[0]
    )
    floor = float(said[0].split("floor ")[1].split(" ± ")[0])
    assert 0 < float(said[0].split(" ± ")[1].split(",")[0]) < floor
    assert scores[Repeats] > 3 * scores[Perfect]
    assert scores[Perfect] < 3 * floor


def test_leaves_training_checkpoint_and_optimiser_alone(
    tmp_path: Path, trainer: Callable[..., Trainer], fit: Callable[..., Foreign]
) -> None:
    class Draws(Foreign):
        """Without a generator argument: it draws from the global state."""

    kept = ModelCheckpoint(tmp_path, monitor="val/frechet")
    with_it = fit(trainer(FrechetDistance(extractor(), num_samples=20, reference="val"), kept))
    without = fit(trainer())
    for name, value in without.state_dict().items():
        assert torch.equal(value, with_it.state_dict()[name]), name
    saved = torch.load(kept.best_model_path, weights_only=True)
    assert saved["state_dict"].keys() == without.state_dict().keys()
    assert kept.best_model_score is not None


def test_the_extractor_stays_frozen_and_in_eval_mode(trainer: Callable[..., Trainer]) -> None:
    module = extractor()
    before = fingerprint(module)
    trainer(FrechetDistance(module, num_samples=20), max_epochs=1).fit(Repeats(), Points())
    assert fingerprint(module) == before and not module.training
    assert not any(p.requires_grad for p in module.parameters())


def test_the_reference_is_read_from_disk_and_keyed_by_the_data(tmp_path: Path) -> None:
    x = points(61, 2).tensors[0]
    calls = []

    class Counts(nn.Flatten):
        def forward(self, x: Tensor) -> Tensor:
            calls.append(len(x))
            return super().forward(x)

    features = FeatureExtractor(Counts())

    def look(x: Tensor, keep: int = 0) -> Any:
        return real_features(x.split(16), features, keep=keep, cache_dir=tmp_path)

    first, kept = look(x, keep=20)
    again, kept_again = look(x, keep=20)
    assert calls == [16, 16, 16, 13, 6]  # the second time came from the disk, but for a look at some of the first
    assert torch.equal(first.mean, again.mean) and torch.equal(first.scatter, again.scatter)
    assert torch.equal(kept, kept_again) and torch.equal(kept, x[torch.arange(20) * 61 // 20].flatten(1))
    changed = x.clone()
    changed[60, 0, 3, 3] += 1e-3
    assert not torch.equal(look(changed)[0].mean, first.mean)
    assert sum(calls) == 128
    files = len(list(tmp_path.glob("**/*.safetensors")))
    for seed in (1, 2):  # the same structure, other weights
        real_features(x.split(16), FeatureExtractor(extractor(seed=seed)), cache_dir=tmp_path)
    assert len(list(tmp_path.glob("**/*.safetensors"))) == files + 2
    assert not list(tmp_path.glob("**/.*"))


class Own(nn.Module):
    """Somebody's extractor, whose code and whose attributes change."""

    def __init__(self, gain: float = 1.0, width: int = 16) -> None:
        super().__init__()
        self.gain, self.width = gain, width

    def forward(self, x: Tensor) -> Tensor:
        return self.gain * x.flatten(1)[:, : self.width]


@pytest.mark.parametrize("keep", [0, 20])
def test_what_another_code_gave_is_not_taken(keep: int, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Neither is in a fingerprint: of what is kept, some is computed again."""
    x = points(61, 2).tensors[0]
    caplog.set_level("INFO")

    def look(module: nn.Module) -> tuple[FeatureStatistics, Tensor]:
        return real_features(x.split(16), FeatureExtractor(module), keep=keep, cache_dir=tmp_path)

    assert fingerprint(Own()) == fingerprint(Own(2.0)) == fingerprint(Own(width=3))
    for module in (Own(), Own(2.0), Own(width=3)):
        for again in (False, True):
            caplog.clear()
            statistics, kept = look(module)
            assert torch.allclose(statistics.mean, module(x).double().mean(0), rtol=1e-5)
            assert torch.equal(kept, module(x)[torch.arange(keep) * 61 // max(keep, 1)])
            said = [record for record in caplog.records if "computed again" in record.getMessage()]
            assert len(said) == (not again and (module.gain, module.width) != (1.0, 16))


class Stream(IterableDataset):
    """Data without an end."""

    def __iter__(self) -> Iterator[Tensor]:
        while True:
            yield torch.rand(1, 4, 4)


def said_by(run: Trainer, caplog: pytest.LogCaptureFixture, **loaders: Any) -> str:
    caplog.set_level("INFO")
    run.fit(Repeats(), **loaders)
    (line,) = (text for record in caplog.records if "samples against" in (text := record.getMessage()))
    return line


def test_without_another_split_there_is_no_floor_and_the_run_goes_on(
    trainer: Callable[..., Trainer], caplog: pytest.LogCaptureFixture
) -> None:
    run = trainer(FrechetDistance(extractor(), num_samples=40, reference="train"), max_epochs=1)
    line = said_by(run, caplog, train_dataloaders=DataLoader(points(80, 0), 16))
    assert "without a floor: The Trainer has no val dataloader" in line
    assert run.callback_metrics["val/frechet"] > 0


def test_data_without_an_end_give_no_floor(trainer: Callable[..., Trainer], caplog: pytest.LogCaptureFixture) -> None:
    looks = FrechetDistance(extractor(), num_samples=40, reference="val")
    run = trainer(looks, max_steps=4, val_check_interval=4)
    loaders = {
        "train_dataloaders": DataLoader(Stream(), 16),
        "val_dataloaders": DataLoader(points(50, 1), 16),
    }
    assert "without a floor: the train data have no length, and may have no end" in said_by(run, caplog, **loaders)
    assert run.callback_metrics["val/frechet"] > 0


def test_a_floor_of_fewer_than_the_samples_says_so(
    trainer: Callable[..., Trainer], caplog: pytest.LogCaptureFixture
) -> None:
    for num_samples in (80, 81):
        caplog.clear()
        run = trainer(FrechetDistance(extractor(), num_samples=num_samples), max_epochs=1)
        assert ("so few that it is too high" in said_by(run, caplog, datamodule=Points())) == (num_samples > 80)


def test_the_sanity_check_and_epochs_in_between_are_skipped(trainer: Callable[..., Trainer]) -> None:
    drawn = []

    class Counts(Repeats):
        def sample(self, num_samples: int, *, generator: torch.Generator | None = None) -> Tensor:  # type: ignore[override]
            drawn.append(self.trainer.current_epoch if self.trainer.validating else None)
            return super().sample(num_samples, generator=generator)

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return self.net(torch.zeros(2, 3)).sum()

    callback = FrechetDistance(extractor(), num_samples=20, every_n_epochs=2)
    trainer(callback, max_epochs=5).fit(Counts(), Points())
    assert drawn == [1, 3, 4]  # every second epoch, and the last


def test_sees_averaged_weights(trainer: Callable[..., Trainer]) -> None:
    scores = []
    for order in (0, 1):
        callbacks = [FrechetDistance(extractor(), num_samples=50), EMA(0.99)]
        run = trainer(*(callbacks[::-1] if order else callbacks))
        torch.manual_seed(0)
        module = Repeats()
        run.fit(module, Points())
        scores.append(run.callback_metrics["val/frechet"].item())
        after = trainer(FrechetDistance(extractor(), num_samples=50))
        after.validate(module, datamodule=Points(), verbose=False)  # fit hands back the average
        scores.append(after.callback_metrics["val/frechet"].item())
    assert len(set(scores)) == 1


@pytest.mark.parametrize("data", [Points, DigitsDataModule])
def test_two_processes_measure_what_one_does(trainer: Callable[..., Trainer], data: Any) -> None:
    metrics = []
    for options in ({}, on_two_processes()):
        digits = data is DigitsDataModule
        net = nn.Sequential(nn.Flatten(), nn.Linear(64, 5)) if digits else extractor()
        if digits:
            nn.init.constant_(net[1].weight, 0.1)
            net[1].weight.data[:, ::3] *= torch.arange(1, 6)[:, None]
            nn.init.zeros_(net[1].bias)
        callback = FrechetDistance(net, num_samples=70, batch_size=16, kid=True, prdc=True)
        run = trainer(callback, max_epochs=1, **options)
        torch.manual_seed(0)
        run.fit((Eights if digits else Repeats)(lr=0.0), data())
        metrics.append({k: v.item() for k, v in run.callback_metrics.items() if k.startswith("val/")})
    for name in ("val/frechet", "val/kid", "val/precision", "val/recall", "val/density", "val/coverage"):
        assert metrics[1][name] == pytest.approx(metrics[0][name], rel=1e-6), name


class Eights(Repeats):
    """Samples of the digits' shape."""

    def sample(self, num_samples: int, *, generator: torch.Generator | None = None) -> Tensor:  # type: ignore[override]
        return torch.rand(num_samples, 1, 8, 8, generator=generator)


class Without(LightningModule):
    def training_step(self, batch: Any, batch_idx: int) -> None: ...

    def configure_optimizers(self) -> None: ...


def test_mistakes_are_refused_before_training(trainer: Callable[..., Trainer], fit: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match="Without has no `sample"):
        fit(trainer(FrechetDistance(extractor())), Without())
    with pytest.raises(ValueError, match="reference='tset' must be one of train, val, test"):
        FrechetDistance(extractor(), reference="tset")
    with pytest.raises(ValueError, match="num_samples=1: give a whole number of at least 2"):
        FrechetDistance(extractor(), num_samples=1)
    with pytest.raises(ValueError, match="goes with the extractor 'inception' alone"):
        fit(trainer(FrechetDistance("digits/classifier", weights_path="x.pth")))
    with pytest.raises(ValueError, match="no test dataloader"):
        fit(trainer(FrechetDistance(extractor(), num_samples=20)))


def test_inception_without_weights_says_what_to_do(tmp_path: Path, trainer: Callable[..., Trainer], fit: Any) -> None:
    missing = str(tmp_path / "weights.pth")
    with pytest.raises(RuntimeError, match="name the file as `weights_path`"):
        fit(trainer(FrechetDistance("inception", weights_path=missing)))


def test_inception_s_weights_are_not_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What they hold is tensors, or they are refused; and the tensors are those of the file."""
    import torch_fidelity.feature_extractor_inceptionv3 as fidelity

    from genzoo.metrics.extractors import Inception

    class Payload:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return Path.touch, (tmp_path / "pwned",)

    torch.save({"fc.weight": Payload()}, tmp_path / "payload.pth")
    (tmp_path / "bare.pth").write_bytes(pickle.dumps(Payload()))
    for file in ("payload.pth", "bare.pth"):
        with pytest.raises(RuntimeError, match="weights could not be had"):
            FeatureExtractor("inception", str(tmp_path / file))
    assert not (tmp_path / "pwned").exists()

    torch.manual_seed(0)
    with monkeypatch.context() as patched:
        patched.setattr(nn.Module, "load_state_dict", lambda self, state: None)  # an Inception that is drawn
        torch.save({}, tmp_path / "none.pth")
        net = fidelity.FeatureExtractorInceptionV3("inception", ["2048"], str(tmp_path / "none.pth"))
    torch.save(net.state_dict(), tmp_path / "drawn.pth")
    loaded = Inception(str(tmp_path / "drawn.pth")).net.state_dict()
    assert loaded.keys() == net.state_dict().keys()
    assert all(torch.equal(value, loaded[key]) for key, value in net.state_dict().items())


def test_inception_takes_grey_images_and_rounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch_fidelity.feature_extractor_inceptionv3 as fidelity

    from genzoo.metrics.extractors import Inception

    given = []
    file = str(tmp_path / "file.pth")
    torch.save({"weight": torch.ones(1)}, file)

    class Net(nn.Module):
        def __init__(self, name: str, features: list[str], feature_extractor_weights_path: Any) -> None:
            super().__init__()
            assert (features, torch.load(feature_extractor_weights_path)) == (["2048"], {"weight": torch.ones(1)})

        def forward(self, x: Tensor) -> tuple[Tensor]:
            given.append(x)
            return (x.float().mean((2, 3)),)

    monkeypatch.setattr(fidelity, "FeatureExtractorInceptionV3", Net)
    features = FeatureExtractor("inception", file)
    assert features.is_inception and features.name == "inception"
    features(torch.tensor([0.0, 0.5, 0.999, 1.0]).view(1, 1, 2, 2))
    assert given[0].dtype == torch.uint8
    assert given[0][0, 2].flatten().tolist() == [0, 128, 255, 255]  # rounded; truncation would give 127 and 254
    with pytest.raises(ValueError, match=r"images \(B, 1 or 3, H, W\), but it was given \(2, 5\)"):
        Inception(file)(torch.zeros(2, 5))


def test_a_fingerprint_is_of_what_a_module_is_and_not_of_how_torch_prints_it(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = Classifier((1, 8, 8), 17, 10, width=2)
    before, foreign = fingerprint(model), fingerprint(nn.AvgPool2d(2))
    assert foreign != fingerprint(nn.AvgPool2d(4))  # without weights, and of other features
    monkeypatch.setattr(nn.BatchNorm2d, "extra_repr", lambda self: "as a later release prints it")
    assert fingerprint(model) == before
    with torch.no_grad():
        model.embed.bias[0] += 1
    assert fingerprint(model) != before


def test_a_zoo_entry_is_an_extractor(trainer: Callable[..., Trainer], tmp_path: Path) -> None:
    from genzoo.zoo import hub

    torch.manual_seed(0)
    folder = hub.publish(Classifier((1, 8, 8), 17, 10, feature_dim=6, width=4), "digits/c", to=tmp_path / "entry")
    features = FeatureExtractor(str(folder))
    assert features(torch.rand(3, 1, 8, 8)).shape == (3, 6)
    assert json.loads((Path(folder) / "metrics.json").read_text()) == {}


def test_an_extractor_of_other_data_says_so() -> None:

    extractor = FeatureExtractor(Classifier((1, 28, 28), 256, 10, width=2))
    with pytest.raises(ValueError, match=r"for data of shape \(1, 28, 28\), but these are \(1, 8, 8\)"):
        extractor(torch.rand(3, 1, 8, 8))


def test_another_run_is_measured_against_its_own_data(trainer: Callable[..., Trainer]) -> None:
    class Scaled(LightningDataModule):
        def __init__(self, scale: float) -> None:
            super().__init__()
            self.rows = TensorDataset(points(30, 1).tensors[0] * scale, torch.zeros(30))

        def train_dataloader(self) -> DataLoader:
            return DataLoader(self.rows, 8)

        val_dataloader = train_dataloader

    run = trainer(FrechetDistance(extractor(), num_samples=20, reference="val"))
    torch.manual_seed(0)
    module, found = Foreign(), []
    for scale in (1.0, 0.2, 1.0):
        run.validate(module, datamodule=Scaled(scale), verbose=False)
        found.append(float(run.callback_metrics["val/frechet"]))
    assert found[0] == found[2] and found[1] > 2 * found[0]


def test_too_few_samples_for_what_is_asked_are_refused() -> None:
    with pytest.raises(ValueError, match="num_samples=5: give a whole number of at least 6"):
        FrechetDistance(extractor(), num_samples=5, prdc=True)
    FrechetDistance(extractor(), num_samples=5)
