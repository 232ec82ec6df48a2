"""Every recipe: it says what to expect, states all that it resolves to, and trains, validates and tests."""

import inspect
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Literal, get_args, get_origin

import pytest
import torch
import yaml
from fake_data import write_fsdd, write_mnist, write_pictures, write_shakespeare
from families import few_steps
from running import last_run, logged
from thorough import some

import genzoo
import genzoo.callbacks
import genzoo.datamodules
import genzoo.metrics.anomalies
import genzoo.metrics.figures
import genzoo.zoo
from genzoo import recipes
from genzoo.cli import main
from genzoo.parsing import taken
from genzoo.trainer import leave_group
from genzoo.zoo import DDPM, FlowMatching, MaskedDiffusion, ScoreModel

# A few batches; what measures for minutes at the end of a real run measures little here.
BRIEF = {
    "accelerator": "cpu",
    "max_epochs": 1,
    "max_steps": 2,
    "limit_val_batches": 1,
    "limit_test_batches": 1,
    "check_val_every_n_epoch": 1,
    "val_check_interval": 1.0,
    "log_every_n_steps": 1,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}
FEW = {"split": "val", "num_particles": 1, "num_likelihood": 1, "num_samples": 10, "num_odd": 2}
SMALL = {
    "FrechetDistance": {"num_samples": 10, "batch_size": 10},
    "LikelihoodLogger": {"num_particles": 2},
    "SampleLogger": {"num_samples": 4, "num_examples": 2},
    "Publish": {"num_samples": 4},
}

SMALL_MODELS = {"cluster/dit": {"patch": 16, "width": 32, "depth": 2, "heads": 1}} | {
    f"{data}/pixelcnn": {"channels": 16, "depth": 1} for data in ("emoji", "fashion", "images", "mnist")
}


def unlike_others() -> set[str]:
    """Recipes with every class and every network that one names, small digits first."""
    found: dict[str, str] = {}
    for name in sorted(recipes.names(), key=lambda name: not name.startswith("digits/")):
        for what in re.findall(r"(?:class_path|network): *(\w[\w.]*)", recipes.find(name).read_text()):
            found.setdefault(what, name)
    return set(found.values())


CHOSEN = unlike_others()
STEPS = (DDPM, FlowMatching, MaskedDiffusion, ScoreModel)  # have them


def brief(name: str, root: Path) -> dict:
    """What to lay over a recipe, so that a few small batches go through all of it."""
    recipe = yaml.safe_load(recipes.find(name).read_text())
    callbacks = recipe["trainer"].get("callbacks", [])
    for callback in callbacks:
        options = callback.setdefault("init_args", {})
        stated = options.get("num_examples")  # none, as a rule, where completing one takes long
        options |= SMALL.get(callback["class_path"].rpartition(".")[2], {})
        if stated == 0:
            options["num_examples"] = 0
        if callback["class_path"].endswith("Publish"):
            evaluation = options.get("evaluation", {})
            options["evaluation"] = evaluation | FEW
    datamodule = getattr(genzoo.datamodules, recipe["data"]["class_path"].rpartition(".")[2])
    takes = inspect.signature(datamodule).parameters
    own = datamodule is genzoo.datamodules.ImageFolderDataModule
    small = {
        "batch_size": 4,
        "val_size": 12,
        "limit": 20,
        "length": 256,
        "root": str(root / "pictures" if own else root),
    }
    data = {option: value for option, value in small.items() if option in takes}
    over = {"trainer": {**BRIEF, "callbacks": callbacks}, "data": {"init_args": data}}
    model, arguments = {**SMALL_MODELS.get(name, {})}, recipe["model"]["init_args"]
    if has_steps(recipe["model"]):
        model["steps"] = 4
    if has_steps(arguments.get("prior")):
        model["prior"] = {"init_args": {"steps": 4}}
    return over | ({"model": {"init_args": model}} if model else {})


def has_steps(block: dict | None) -> bool:
    """Whether the sampler of a model, as a recipe states it, takes steps."""
    return block is not None and issubclass(getattr(genzoo.zoo, block["class_path"].rpartition(".")[2]), STEPS)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the data of all recipes, of noise."""
    made = tmp_path_factory.mktemp("data")
    write_mnist(made)
    write_mnist(made, folder="FashionMNIST")
    write_pictures(made)
    write_fsdd(made)
    write_shakespeare(made)
    return made


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    # pictures of completions, likelihoods and what they are held against take most of the time otherwise
    for family in (genzoo.zoo.VAE, genzoo.zoo.Autoencoder):
        monkeypatch.setattr(family, "completion_sweeps", 4)
    monkeypatch.setattr(MaskedDiffusion, "anomaly_particles", 1)
    few_steps(monkeypatch, flow=4, steps=2, repeats=1)
    for attribute, few in (("inversion_pool", 8), ("inversion_steps", 2)):
        monkeypatch.setattr(genzoo.zoo.GAN, attribute, few)
    monkeypatch.setattr(genzoo.metrics.anomalies, "MOST_DIMENSIONS", 1000)
    monkeypatch.setattr(genzoo.metrics.figures, "TIMED", 4)
    before = dict(os.environ)
    yield tmp_path
    leave_group()  # of one process, in which a strategy for many has put this one
    os.environ.clear()  # which says now where that group met: another would be in its way there
    os.environ.update(before)


def printed(capsys: pytest.CaptureFixture[str], config: str) -> dict:
    with pytest.raises(SystemExit) as ended:
        main(["fit", "--config", config, "--print_config"])
    assert not ended.value.code
    return yaml.safe_load(capsys.readouterr().out)


def test_there_are_recipes() -> None:
    assert {"digits/vae", "mnist/vae", "mnist/vae-gray", "digits/classifier", "mnist/classifier"} <= set(
        recipes.names()
    )


@pytest.mark.parametrize("name", recipes.names())
def test_it_says_what_to_expect(name: str) -> None:
    """What it trains, the figures, and the time and the hardware that they took."""
    lines = recipes.find(name).read_text().splitlines()
    comment = " ".join(line.removeprefix("#").strip() for line in lines if line.startswith("#"))
    assert lines[0].startswith("# ") and lines[0].endswith(".")
    for what, pattern in {
        "expected figures": r"Expected: .*\d",
        "the time": r"(second|minute|hour)",
        "the hardware": r"(core|CPU|GPU)",
    }.items():
        assert re.search(pattern, comment), f"{name} does not say {what}"


@pytest.mark.parametrize("name", recipes.names())
def test_it_is_understood(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    whole = printed(capsys, name)
    assert isinstance(whole["seed_everything"], int) and whole["model"]["class_path"].startswith("genzoo.")


@pytest.mark.parametrize("name", ["cifar10/latent-dit", "digits/vae", "shakespeare/gpt"])
def test_it_prints_as_it_parses(name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of others `test_it_runs` knows by what a run leaves, which is the same."""
    whole = printed(capsys, name)
    (folder / "again.yaml").write_text(yaml.safe_dump(whole))
    assert printed(capsys, "again.yaml") == whole


@pytest.mark.parametrize("package", [genzoo.callbacks, genzoo.datamodules, genzoo.zoo])
def test_a_name_is_tried_before_a_class_of_that_name(package: ModuleType) -> None:
    """`network: dit` is one of ours: a parser that looked for such a class first would ask all that PyTorch has.

    Python keeps one Union of the same members, in the order of whoever named them first, here or elsewhere.
    """
    for cls in filter(inspect.isclass, (getattr(package, name) for name in package.__all__)):
        for argument, parameter in taken(cls).items():
            kinds = get_args(parameter.annotation)
            names = [kind is str or get_origin(kind) is Literal for kind in kinds]
            modules = [inspect.isclass(kind) and issubclass(kind, torch.nn.Module) for kind in kinds]
            if any(names) and any(modules):
                assert names.index(True) < modules.index(True), f"{cls.__name__}: {argument}"


@pytest.mark.parametrize("name", some(recipes.names(), CHOSEN.__contains__))
def test_it_runs(name: str, folder: Path, root: Path) -> None:
    (folder / "brief.yaml").write_text(yaml.safe_dump(brief(name, root)))
    configs = ["--config", name, "--config", "brief.yaml"]
    main(["fit", *configs, "--trainer.limit_train_batches=2"])
    run = last_run(folder)
    resolved = yaml.safe_load((run / "config.yaml").read_text())
    assert isinstance(resolved["seed_everything"], int) and resolved["model"]["class_path"].startswith("genzoo.")
    figures = logged(run)
    assert run.parent == folder / "runs" / name
    assert all(value == value and abs(value) < float("inf") for value in figures.values())
    assert any(figure.startswith("train/") for figure in figures) and any(f.startswith("val/") for f in figures)
    checkpoint = run / "checkpoints" / "last.ckpt"
    assert torch.load(checkpoint, weights_only=True)["global_step"] == 2
    model = genzoo.load(run / "entry")  # every recipe trains and publishes
    called = yaml.safe_load((run / "entry" / "config.yaml").read_text())["name"]
    assert called == name.replace("images/", "pictures/")  # which is the folder
    assert sum(p.numel() for p in model.parameters()) > 0
    main(["test", "--config", str(run / "config.yaml"), "--ckpt_path", str(checkpoint)])
    tested = last_run(folder)
    assert any(figure.startswith("test/") for figure in logged(tested))
    again = yaml.safe_load((tested / "config.yaml").read_text())
    known = {key: again[key] for key in resolved}  # to test has an argument of its own more
    assert known == resolved | {"ckpt_path": str(checkpoint)}, "what a run left says all that it was"
