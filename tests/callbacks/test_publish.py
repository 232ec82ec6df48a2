"""From a run to an entry: the figures, the weights they were measured on, and the record of the training."""

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from lightning.pytorch import Callback, LightningDataModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from running import on_two_processes
from torch import nn

import genzoo
from genzoo.callbacks import EMA, Publish, evaluate
from genzoo.datamodules import ArrayDataModule, DigitsDataModule, PointsDataModule
from genzoo.zoo import VAE, Classifier, PerDatum, PixelCNN

QUICK = {"num_particles": 3, "num_samples": 100, "num_odd": 40, "progress": False}
AUROCS = ("auroc_faint", "auroc_erased", "auroc_flipped", "auroc_shuffled")


def tiny(**options: Any) -> VAE:
    torch.manual_seed(0)
    return VAE((1, 8, 8), 17, latent_dim=2, network="mlp", width=16, depth=1, **options)


def figures(metrics: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {figure["name"]: figure for figure in metrics["figures"]}


def features(d: int = 4) -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, d))


def test_every_figure_says_what_it_is() -> None:
    model, data = tiny(), DigitsDataModule(batch_size=100)
    model.train()
    before = [value.clone() for value in model.state_dict().values()]
    metrics = evaluate(model, data, extractor=features(), **QUICK)
    assert model.training and all(map(torch.equal, before, model.state_dict().values()))
    found = figures(metrics)
    assert list(found) == [
        *("parameters", "nll", "bits_per_dim", "sampling_time", "network_evaluations", "frechet"),
        *("kid", "precision", "recall", "density", "coverage", "memorisation"),
        *AUROCS,
    ]
    for figure in found.values():
        assert {"name", "value", "unit", "protocol"} <= figure.keys()
        if figure["name"] not in ("parameters", "sampling_time", "network_evaluations"):
            assert figure["split"] == "test"
            scored = {"nll": 360, "bits_per_dim": 360} | dict.fromkeys(AUROCS, 2 * QUICK["num_odd"])
            assert figure["num_examples"] == scored.get(figure["name"], QUICK["num_samples"])
    assert found["nll"]["kind"] == "lower_bound" and "3 samples" in found["nll"]["protocol"]
    assert found["nll"]["standard_error"] > 0
    assert found["bits_per_dim"]["value"] == pytest.approx(found["nll"]["value"] / 64 / 0.6931471805599453)
    assert 0 <= found["frechet"]["floor"] < found["frechet"]["value"]
    assert "100 real data spread evenly over the train split" in found["frechet"]["floor_protocol"]
    assert found["parameters"]["value"] == sum(p.numel() for p in model.parameters())
    assert 0 <= found["auroc_flipped"]["value"] <= 1
    assert "16 first principal components" in found["auroc_flipped"]["floor_protocol"]
    assert {"commit", "genzoo", "torch", "lightning", "python"} == metrics["environment"].keys()
    json.dumps(metrics)


def test_of_a_conditional_model_the_protocol_says_what_is_done_with_the_classes() -> None:
    model = PixelCNN((1, 8, 8), 17, channels=8, depth=1, num_classes=10, conditional=True)
    options = QUICK | {"extractor": features(), "num_likelihood": 20}
    found = figures(evaluate(model, DigitsDataModule(), only=["likelihood", "closeness"], **options))
    assert "p(x) is the mean of p(x | class)" in found["nll"]["protocol"]
    assert "100 samples of classes drawn uniformly" in found["frechet"]["protocol"]


def test_the_data_state_the_protocol_and_the_caller_has_the_last_word() -> None:
    class Digits(DigitsDataModule):
        protocol: ClassVar[Mapping[str, Any]] = {"num_particles": 2, "num_odd": 7, "odd": ["erased"]}

    metrics = evaluate(tiny(), Digits(), num_particles=4, only=["anomaly", "likelihood"], progress=False)
    found = figures(metrics)
    assert list(found) == ["parameters", "nll", "bits_per_dim", "auroc_erased"]
    assert found["auroc_erased"]["num_examples"] == 14 and "4 samples" in found["nll"]["protocol"]
    assert metrics["evaluation"] == {
        **{"split": "test", "num_particles": 4, "num_samples": 10_000, "odd": ["erased"], "num_odd": 7, "seed": 0},
    }
    with pytest.raises(ValueError, match=r"no group \['nothing'\]; there are likelihood"):
        evaluate(tiny(), Digits(), only=["nothing"])


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (
            {"odd": ["green"]},
            r"odd is \['green'\], but must be a list of some of faint, erased, flipped, shuffled; or",
        ),
        ({"odd": "faint"}, "odd is 'faint', but must be a list"),
        ({"num_odd": -3}, "num_odd is -3, but must be at least 0"),
        ({"num_likelihood": 0}, "num_likelihood is 0, but must be at least 1"),
        ({"num_particles": 0}, "num_particles is 0, but must be at least 1"),
        ({"num_samples": 0}, "num_samples is 0, but must be at least 1"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_is(asked: dict[str, Any], message: str) -> None:
    class Unread(DigitsDataModule):
        def prepare_data(self) -> None:
            raise AssertionError("measuring has begun")

    with pytest.raises(ValueError, match=message):
        evaluate(tiny(), Unread(), **asked)


def test_other_data_may_be_what_is_odd() -> None:
    class Blank(DigitsDataModule):
        def load_images(self, split: str) -> Any:
            images, labels = super().load_images(split)
            return torch.full_like(images, 16), labels

    metrics = evaluate(tiny(), DigitsDataModule(), odd=Blank(), num_odd=30, only=["anomaly"], progress=False)
    figure = figures(metrics)["auroc_blank"]
    assert figure["floor"] == 1.0  # all white is far from any plane through digits
    assert "odd" not in metrics["evaluation"]  # a live datamodule cannot be stated


def test_points_are_measured_against_their_density_and_its_modes() -> None:
    data = PointsDataModule("ring", train_size=300, val_size=50, test_size=400)
    torch.manual_seed(0)
    model = VAE((2,), None, latent_dim=2, width=8, depth=1)
    model.sample = lambda n, **_: data.draw(n, torch.Generator().manual_seed(1))[0].float()  # type: ignore[method-assign]
    found = figures(evaluate(model, data, num_particles=2, num_samples=2500, progress=False))
    points = data.draw(400, torch.Generator())[0]
    entropy = -data.log_density(points).mean().item()
    assert found["nll"]["floor"] == pytest.approx(entropy, abs=0.3) and found["nll"]["value"] > found["nll"]["floor"]
    assert found["modes"]["value"] == 8 and found["high_quality"]["value"] == pytest.approx(0.989, abs=0.01)
    assert found["mode_kl"]["value"] < 0.01 and "bits_per_dim" not in found and "frechet" not in found


def test_the_stated_arguments_give_the_figures_again() -> None:
    first = evaluate(tiny(), DigitsDataModule(batch_size=64), num_particles=3, progress=False)
    again = evaluate(tiny(), DigitsDataModule(batch_size=360), progress=False, **first["evaluation"])
    assert figures(again)["nll"]["value"] == pytest.approx(figures(first)["nll"]["value"], rel=1e-6)
    assert again["evaluation"] == first["evaluation"]


def test_the_likelihood_of_a_part_is_that_of_data_spread_over_the_split() -> None:
    data, model = DigitsDataModule(), tiny()
    (nll,) = (
        f for f in evaluate(model, data, num_likelihood=7, only=["likelihood"])["figures"] if f["name"] == "nll"
    )
    x = torch.cat([x for x, _ in data.test_dataloader()])[[0, 51, 102, 154, 205, 257, 308]]  # ⌊i · 360 / 7⌋
    expected = -model.log_prob(x, num_particles=100, generator=PerDatum(x)).mean()
    assert (nll["num_examples"], nll["value"]) == (7, pytest.approx(expected.item(), rel=1e-6))
    assert "7 data spread evenly" in nll["protocol"]
    (whole,) = (
        f for f in evaluate(model, data, num_likelihood=400, only=["likelihood"])["figures"] if f["name"] == "nll"
    )
    assert whole["num_examples"] == 360


def test_what_is_measured_on_a_single_datum_has_no_standard_error() -> None:
    metrics = evaluate(tiny(), DigitsDataModule(), num_likelihood=1, only=["likelihood"], progress=False)
    found = figures(metrics)
    assert found["nll"]["num_examples"] == 1 and "standard_error" not in found["nll"]
    assert "standard_error" not in found["bits_per_dim"]


def test_a_figure_that_is_infinite_is_left_out_and_said() -> None:
    """No file has a number for it, and the others are worth keeping."""
    model, data = tiny(), DigitsDataModule()
    known, sure = model.log_prob, evaluate(model, data, num_likelihood=20, only=["likelihood"], progress=False)
    model.log_prob = lambda x, **how: known(x, **how).index_fill(0, torch.tensor([0]), -torch.inf)  # type: ignore
    with pytest.warns(UserWarning, match="nll is inf, which no file can state: it is left out"):
        metrics = evaluate(model, data, num_likelihood=20, only=["likelihood"], progress=False)
    left_out = figures(sure).keys() - figures(metrics).keys()
    assert left_out == {"nll", "bits_per_dim"} and "parameters" in figures(metrics)


def test_a_classifier_has_an_accuracy() -> None:
    torch.manual_seed(0)
    model, data = Classifier((1, 8, 8), 17, 10, feature_dim=4, width=4), DigitsDataModule()
    found = figures(evaluate(model, data, progress=False))
    assert list(found) == ["parameters", "accuracy"]
    data.setup("test")
    x, y = (torch.cat(parts) for parts in zip(*data.test_dataloader(), strict=True))
    with torch.no_grad():
        expected = (model.eval()(x).argmax(1) == y).double().mean().item()
    assert found["accuracy"]["value"] == pytest.approx(expected)
    with pytest.raises(ValueError, match="Classifier has no `sample`"):
        evaluate(model, data, extractor=features())


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_publishes_the_average_as_it_is_stored(tmp_path: Path, trainer: Callable[..., Trainer], dtype: Any) -> None:
    entry = tmp_path / "entry"
    model, data = tiny(), DigitsDataModule(limit=256)
    publish = Publish("digits/vae", to=str(entry), evaluation=QUICK, dtype=dtype)
    run = trainer(publish, EMA(0.9), max_epochs=1)  # before EMA in the list: the order does not matter
    run.fit(model, data)
    metrics = json.loads((entry / "metrics.json").read_text())
    assert metrics["training"]["recipe"] == "digits/vae" and metrics["training"]["steps"] == run.global_step
    assert metrics["training"]["seconds"] > 0 and "CPU" in metrics["training"]["hardware"]
    assert metrics["training"]["film"] == [0, run.global_step]
    assert (entry / "samples.png").is_file() and (entry / "learning.png").is_file()
    assert "nll" in (entry / "README.md").read_text()

    loaded = genzoo.load(entry)
    for name, value in model.state_dict().items():
        expected = value.half().float() if dtype == "float16" else value  # the module itself keeps all its digits
        assert torch.equal(loaded.state_dict()[name], expected), name
    again = figures(evaluate(loaded, DigitsDataModule(), progress=False, **metrics["evaluation"]))
    assert again["nll"]["value"] == pytest.approx(figures(metrics)["nll"]["value"], rel=1e-6)


def test_publishes_the_best_checkpoint_and_leaves_the_module(tmp_path: Path, trainer: Callable[..., Trainer]) -> None:
    class Spoil(Callback):
        """From the second epoch on, the weights are worthless."""

        def on_train_epoch_start(self, trainer: Trainer, pl_module: Any) -> None:
            if trainer.current_epoch:
                for parameter in pl_module.parameters():
                    torch.nn.init.constant_(parameter, 3.0)

    entry, model = tmp_path / "entry", tiny()
    best = ModelCheckpoint(tmp_path / "checkpoints", monitor="val/nll")
    run = trainer(Spoil(), Publish("digits/vae", to=str(entry), evaluation=QUICK), best, max_epochs=2)
    run.fit(model, DigitsDataModule(limit=256))
    assert "epoch=0" in best.best_model_path
    saved = torch.load(best.best_model_path, weights_only=True)["state_dict"]
    loaded = genzoo.load(entry).state_dict()
    assert all(torch.equal(saved[name], value) for name, value in loaded.items())
    assert not any(torch.equal(saved[name], value) for name, value in model.state_dict().items())


def test_a_run_that_was_killed_while_it_was_measured_publishes_the_average(
    tmp_path: Path, trainer: Callable[..., Trainer]
) -> None:
    """Nothing is left to train when it goes on, so nobody has put the average into the module."""
    data, last = DigitsDataModule(limit=256), ModelCheckpoint(tmp_path, filename="c")
    trainer(EMA(0.9), last, max_epochs=1).fit(tiny(), data)
    averaged = torch.load(tmp_path / "c.ckpt", weights_only=True)["state_dict"]
    publish = Publish("digits/vae", to=str(tmp_path / "entry"), evaluation=QUICK, measure=False)
    trainer(publish, EMA(0.9), max_epochs=1).fit(tiny(), data, ckpt_path=tmp_path / "c.ckpt")
    loaded = genzoo.load(tmp_path / "entry").state_dict()
    assert all(torch.equal(averaged[name], value) for name, value in loaded.items())


def test_checkpoints_may_lie_at_an_address(tmp_path: Path, trainer: Callable[..., Trainer]) -> None:
    """The entry lies with the run's other files, on the disk."""
    best = ModelCheckpoint("memory://bucket/checkpoints", monitor="val/nll")
    publish = Publish("digits/vae", evaluation=QUICK, measure=False)
    trainer(best, publish, max_epochs=1).fit(tiny(), DigitsDataModule(limit=256))
    assert (tmp_path / "entry/model.safetensors").is_file()


def test_the_time_of_an_interrupted_run_counts(tmp_path: Path, trainer: Callable[..., Trainer]) -> None:
    data = DigitsDataModule(limit=256)
    trainer(Publish("a", str(tmp_path / "a"), QUICK), ModelCheckpoint(tmp_path, filename="c"), max_epochs=1).fit(
        tiny(), data
    )
    path = tmp_path / "c.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    assert checkpoint["callbacks"]["Publish"]["seconds"] > 0
    checkpoint["callbacks"]["Publish"]["seconds"] = 1000.0
    torch.save(checkpoint, path)
    trainer(Publish("b", str(tmp_path / "b"), QUICK), max_epochs=2).fit(tiny(), data, ckpt_path=path)
    assert 1000 < json.loads((tmp_path / "b" / "metrics.json").read_text())["training"]["seconds"] < 1100


def test_points_without_a_test_split_are_published_with_their_film(
    tmp_path: Path, trainer: Callable[..., Trainer]
) -> None:
    data = PointsDataModule("ring", batch_size=50, train_size=200, val_size=50)
    data.test_dataloader = partial(LightningDataModule.test_dataloader, data)  # as if it had none
    publish = Publish("points/vae", to=str(tmp_path / "entry"), evaluation=QUICK | {"split": "val"})
    trainer(publish, max_epochs=1).fit(VAE((2,), None, latent_dim=2, width=8, depth=1), data)
    assert (tmp_path / "entry" / "learning.png").is_file()


def test_two_processes_publish_one_entry(tmp_path: Path, trainer: Callable[..., Trainer]) -> None:
    entry = tmp_path / "entry"
    publish = Publish("digits/vae", to=str(entry), evaluation=QUICK)
    run = trainer(publish, EMA(0.9), max_epochs=1, **on_two_processes())
    run.fit(tiny(), DigitsDataModule(limit=256))
    metrics = json.loads((entry / "metrics.json").read_text())
    alone = figures(evaluate(genzoo.load(entry), DigitsDataModule(), progress=False, **metrics["evaluation"]))
    assert metrics["training"]["hardware"].startswith("2 × ")
    assert figures(metrics)["nll"]["num_examples"] == 360  # each once
    assert alone["nll"]["value"] == pytest.approx(figures(metrics)["nll"]["value"], rel=1e-6)


@pytest.mark.parametrize(
    ("called", "name"),
    [
        ("photos", "photos/vae"),
        ("My photos (2024)", "My-photos-2024/vae"),
        ("..photos--", "photos/vae"),
        ("фото", "data-фото/vae"),
        ("???", "data/vae"),
        (None, "digits/vae"),  # after the class, where the data have no name
    ],
)
def test_an_entry_is_named_after_its_data_and_its_recipe(called: str | None, name: str, tmp_path: Path) -> None:
    data = DigitsDataModule()
    data.name = called
    publisher = Publish(recipe="images/vae")
    assert publisher.name_for(data) == name
    assert Publish("mine", recipe="images/vae").name_for(data) == "mine"
    assert genzoo.publish(tiny(), publisher.name_for(data), to=tmp_path / "entry") == tmp_path / "entry"
    with pytest.raises(ValueError, match="give the entry a name, or name the recipe"):
        Publish()


def test_figures_are_said_beside_their_floors(
    tmp_path: Path, trainer: Callable[..., Trainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr("genzoo.callbacks.publish.rank_zero_info", said.append)
    asked = QUICK | {"extractor": features(), "only": ["closeness"]}
    trainer(Publish("a", str(tmp_path / "a"), asked), max_epochs=1).fit(tiny(), DigitsDataModule(limit=256))
    found = figures(json.loads((tmp_path / "a" / "metrics.json").read_text()))
    frechet, parameters = found["frechet"], found["parameters"]["value"]
    before, measured, published = said
    assert before == "to be measured at the end, in the features of Sequential"
    assert measured.startswith(f"measured: parameters {parameters:,}, frechet {frechet['value']:.4g} (floor ")
    assert f"(floor {frechet['floor']:.4g}), kid {found['kid']['value']:.4g}" in measured
    assert published == f"published a: {tmp_path / 'a'}"


def test_what_cannot_be_published_is_refused_before_training(
    tmp_path: Path, trainer: Callable[..., Trainer], fit: Any
) -> None:
    with pytest.raises(ValueError, match="give `fit` a datamodule"):
        fit(trainer(Publish("x", str(tmp_path / "x"))))
    model = tiny()
    model.unstated = ["encoder"]
    with pytest.raises(ValueError, match="VAE was given encoder as live modules"):
        trainer(Publish("x", str(tmp_path / "x"))).fit(model, DigitsDataModule())
    for asked, message in (
        ({"num_odd": -1}, "num_odd is -1"),
        ({"num_od": 1}, "unexpected keyword argument 'num_od'"),
    ):
        with pytest.raises(ValueError, match=message):
            trainer(Publish("x", str(tmp_path / "x"), evaluation=asked)).fit(tiny(), DigitsDataModule())
    for nothing in ({"fast_dev_run": True}, {"max_epochs": 0}):
        trainer(Publish("x", str(tmp_path / "x")), **nothing).fit(tiny(), DigitsDataModule())
    assert not (tmp_path / "x").exists()


def test_a_repository_that_is_made_may_be_private(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    sent: list[tuple[str, Any]] = []
    publish = genzoo.zoo.hub.publish

    def recorded(*arguments: Any, to: Any, sending: Any = None, **options: Any) -> Any:
        sent.append((str(to), sending))
        return publish(*arguments, to=tmp_path / f"entry{len(sent)}", **options)

    monkeypatch.setattr(genzoo.zoo.hub, "publish", recorded)
    monkeypatch.setattr("genzoo.callbacks.publish.checked_target", lambda *_: None)
    quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "accelerator": "cpu"}
    for private in (True, False):
        callback = Publish("digits/vae", to="hf://me/vae", measure=False, private=private)
        Trainer(max_steps=1, callbacks=[callback], default_root_dir=tmp_path, **quiet).fit(
            tiny(), DigitsDataModule(limit=200)
        )
        assert sent[-1] == ("hf://me/vae", {"private": True} if private else {})
    for to in (None, str(tmp_path), "wandb://me/zoo/vae"):
        with pytest.raises(ValueError, match="private is of a repository of Hugging Face's"):
            Publish("digits/vae", to=to, private=True)


def test_a_film_of_points_shows_where_all_of_them_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of a table in an order, whose first rows are a corner of it."""
    data = ArrayDataModule({"a": torch.arange(1000.0), "b": torch.arange(1000.0) % 7}, batch_size=8)
    data.setup("test")
    callback, seen = Publish("rows/vae"), []
    callback._film.frames = [torch.zeros(4, 2)]
    monkeypatch.setattr(callback._film, "picture", seen.append)
    assert callback._learning(data, "test", tmp_path) is None
    (real,) = seen
    test = torch.cat(list(data.test_dataloader()))
    assert torch.equal(real.amin(0), test.amin(0)) and torch.equal(real.amax(0), test.amax(0))
