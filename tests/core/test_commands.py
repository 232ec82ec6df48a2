"""genzoo's own commands, each through the entry point that a user's shell calls."""

import csv
import json
import os
import re
import subprocess
import sys
import wave
from argparse import Namespace
from collections.abc import Callable
from fnmatch import fnmatchcase
from functools import partial, wraps
from pathlib import Path
from socket import socket
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from running import refused

import genzoo
from genzoo import arguments, commands, recipes
from genzoo.cli import LIGHTNING, main
from genzoo.commands.sample import keywords, names_of_columns
from genzoo.zoo import (
    DDIM,
    DDPM,
    FSQ,
    GPT,
    VAE,
    FlowMatching,
    Heun,
    LatentModel,
    QuantisedAutoencoder,
    WaveNet,
    hub,
)
from genzoo.zoo.hub import entries
from genzoo.zoo.media import RULE, rows_of

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def entry(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    module = VAE(shape=(1, 8, 8), levels=17, latent_dim=2, network="mlp", width=8, depth=1)
    data = {"class_path": "genzoo.datamodules.DigitsDataModule", "init_args": {"limit": 200}}
    figure = {"name": "nll", "value": 99.0, "unit": "nats", "split": "test", "protocol": "p", "num_examples": 9}
    metrics = {"figures": [figure], "evaluation": {"num_particles": 3, "num_samples": 50, "seed": 4}}
    return Path(genzoo.publish(module, "digits/vae", to=tmp_path / "entry", data=data, metrics=metrics))


def test_usage_names_every_command(capsys: Captured) -> None:
    main([])
    usage = capsys.readouterr().out
    main(["--help"])
    assert capsys.readouterr().out == usage
    assert set(commands.names()) >= {"compare", "cp", "evaluate", "list", "publish", "sample"}
    for name in (*LIGHTNING, *commands.names()):
        assert len([line for line in usage.splitlines() if line.startswith(f"  {name} ")]) == 1, name
    examples = {line.index("genzoo ") for line in usage.splitlines() if line.startswith("  ")}
    assert len(examples) == 1  # they stand one below the other
    main(["--version"])
    assert capsys.readouterr().out == f"genzoo {genzoo.__version__}\n"


def test_a_new_command_is_one_file(tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "greet.py").write_text(
        "EXAMPLE, SAYS = 'genzoo greet world', 'say hello'\n"
        "def add_arguments(parser):\n    parser.add_argument('whom')\n"
        "def run(given):\n"
        "    'Says hello, but not to nobody.'\n"
        "    if given.whom == 'nobody':\n        raise ValueError('there is nobody')\n"
        "    print('hello', given.whom)\n"
    )
    monkeypatch.setattr(commands, "__path__", [*commands.__path__, str(tmp_path)])
    monkeypatch.setitem(sys.modules, "genzoo.commands.greet", None)  # so that it is forgotten at the end
    del sys.modules["genzoo.commands.greet"]
    main(["greet", "world"])
    assert capsys.readouterr().out == "hello world\n"
    assert refused(["greet", "nobody"], capsys) == "genzoo: error: there is nobody"
    with pytest.raises(SystemExit):
        main(["greet", "--help"])
    assert "Says hello, but not to nobody." in capsys.readouterr().out
    main([])
    assert "\n  greet     genzoo greet world " in capsys.readouterr().out
    assert "did you mean greet?" in refused(["gret"], capsys)


@pytest.mark.parametrize("command", commands.names())
def test_help_waits_for_nothing_heavy(command: str) -> None:
    code = (
        "import sys\nfrom genzoo.cli import main\n"
        f"try: main([{command!r}, '--help'])\nexcept SystemExit as end: assert not end.code\n"
        "assert not {'torch', 'lightning', 'jsonargparse', 'wandb', 'huggingface_hub'} & set(sys.modules)"
    )
    shown = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert shown.stdout.startswith(f"usage: genzoo {command}")


@pytest.mark.parametrize("arguments", [[], ["list"]])
def test_the_usage_and_the_list_wait_for_nothing_heavy(arguments: list[str]) -> None:
    code = (
        f"import sys\nfrom genzoo.cli import main\nmain({arguments!r})\n"
        "assert not {'torch', 'lightning', 'jsonargparse', 'wandb', 'huggingface_hub'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_python_m_genzoo() -> None:
    shown = subprocess.run([sys.executable, "-m", "genzoo"], check=True, capture_output=True, text=True)
    assert shown.stdout.startswith("usage: genzoo")


# ---- list and cp


def test_list_shows_entries_with_figures_and_recipes(
    entry: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entries, "EMBEDDED", entry.parent)
    main(["list"])
    shown = capsys.readouterr().out
    heads, row = shown.splitlines()[1:3]
    assert heads.split() == ["nats"] and row.split() == ["entry", "99"]
    assert all(name in shown for name in recipes.names())
    assert "neither an entry nor a recipe matches 'no/*'" in refused(["list", "no/*"], capsys)
    assert "did you mean mnist?" in refused(["list", "mnits"], capsys)


@pytest.mark.parametrize("pattern", ["images", "vae", "m*", "mnist*", "*/masked"])
def test_a_pattern_means_the_same_for_entries_and_recipes(pattern: str, capsys: Captured) -> None:
    """The name of a data set alone, even of one without entries, or of a model alone, is all of it."""
    main(["list", pattern])
    listed = {line.split()[0] for line in capsys.readouterr().out.splitlines() if line.strip()}
    asked = {"images": "images/*", "vae": "*/vae"}.get(pattern, pattern)
    known = {*recipes.names(), *(entry.name for entry in hub.list_models())}
    assert listed & known == {name for name in known if fnmatchcase(name, asked)} != set()


def test_list_has_a_block_for_each_task(capsys: Captured) -> None:
    main(["list", "mnist"])
    listed: dict[str, set[str]] = {}
    for line in capsys.readouterr().out.splitlines():
        if line and not line.startswith(" "):
            block = listed[line.strip()] = set()
        elif line.strip() and not line.startswith("   "):  # neither heads nor what goes on from the line above
            block.add(line.split()[0])
    assert list(listed) == ["MNIST, binary (dynamic), 28×28", "MNIST, 256 levels, 28×28", "recipes"]
    assert "mnist/vae" in listed["MNIST, binary (dynamic), 28×28"]
    assert "mnist/ddpm" in listed["MNIST, 256 levels, 28×28"]
    assert listed["recipes"] == {name for name in recipes.names() if name.startswith("mnist/")}


def test_the_list_fits_a_terminal_and_shows_the_best_in_bold(
    monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    main(["list", "digits"])
    assert all(len(line) <= 80 for line in capsys.readouterr().out.splitlines())
    monkeypatch.setenv("FORCE_COLOR", "1")
    main(["list", "digits"])
    bold = re.findall("\x1b\\[1m(.*?)\x1b", capsys.readouterr().out)
    measured = {
        entry.name: {f["name"]: f for f in entry.metrics["figures"]} for entry in entries.list_models("digits/*")
    }
    least = min(
        (figures["bits_per_dim"]["value"], name) for name, figures in measured.items() if "bits_per_dim" in figures
    )
    assert f"{least[0]:.4g}" in {cell.strip("≤≈ ") for cell in bold}


def test_show_prints_the_card_with_every_figure(entry: Path, capsys: Captured) -> None:
    main(["show", str(entry)])
    shown = capsys.readouterr().out
    assert "digits/vae" in shown and re.search(r"nll +99 nats +test split, 9: p", shown)
    main(["show", "digits/pixelcnn"])
    shown = " ".join(capsys.readouterr().out.split())
    metrics = entries.Entry("", entries.EMBEDDED / "digits/pixelcnn").metrics
    assert all(figure["name"] in shown for figure in metrics["figures"])
    assert "neither an entry" in refused(["show", "no/such"], capsys)


@pytest.mark.parametrize("left_out", ["protocol", "split", "num_examples", "floor_standard_error", "standard_error"])
def test_show_does_without_what_a_figure_may_lack(left_out: str, entry: Path, capsys: Captured) -> None:
    metrics = json.loads((entry / "metrics.json").read_text("utf-8"))
    figure = metrics["figures"][0] | {"floor": 3.0, "floor_standard_error": 0.5}
    figure.pop(left_out, None)
    for whole in (figure, figure | ({left_out: None} if left_out.endswith("error") else {})):
        (entry / "metrics.json").write_text(json.dumps(metrics | {"figures": [whole]}), "utf-8")
        main(["show", str(entry)])
        assert "99" in capsys.readouterr().out


def test_every_recipe_begins_by_saying_what_it_trains() -> None:
    assert recipes.names()
    for name in recipes.names():
        assert recipes.find(name).read_text().startswith("# "), name


def test_cp_copies_and_never_overwrites(tmp_path: Path, capsys: Captured) -> None:
    target = tmp_path / "my.yaml"
    main(["cp", "digits/classifier", str(target)])
    text = recipes.find("digits/classifier").read_text()
    assert target.read_text() == text[: text.index("          spdx: ")]
    target.write_text("mine")
    capsys.readouterr()
    assert "exists and is not overwritten" in refused(["cp", "digits/classifier", str(target)], capsys)
    assert target.read_text() == "mine"
    assert "did you mean digits/classifier" in refused(["cp", "digits/clasifier", str(tmp_path / "x")], capsys)


# ---- sample, evaluate, publish


def test_sample_writes_a_picture_that_the_seed_decides(entry: Path, tmp_path: Path, capsys: Captured) -> None:
    from PIL import Image

    out = [tmp_path / f"{i}.png" for i in range(3)]
    for path, seed in zip(out, (7, 7, 8), strict=True):
        main(["sample", str(entry), "--num_samples", "9", "--out", str(path), "--seed", str(seed), "--device", "cpu"])
    assert out[0].read_bytes() == out[1].read_bytes() != out[2].read_bytes()
    assert Image.open(out[0]).size[0] > 3 * 8
    assert "--num_samples 0" in refused(["sample", str(entry), "--num_samples", "0"], capsys)
    assert "neither an entry" in refused(["sample", "no/such"], capsys)


def test_sample_writes_sounds_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    monkeypatch.chdir(tmp_path)
    net = WaveNet((1, 50), 256, channels=4, skip_channels=4, dilations=[1, 2], sample_rate=8000)
    genzoo.publish(net, "fsdd/wavenet", to=tmp_path / "entry")
    command = ["sample", "entry", "--num_samples", "3", "--device", "cpu"]
    main(command)
    assert capsys.readouterr().out == "samples.wav\n"
    with wave.open("samples.wav") as file:
        assert (file.getframerate(), file.getnframes()) == (8000, 3 * 50 + 2 * 2000)
    assert "are written as .wav" in refused([*command, "--out", "grid.png"], capsys)
    assert not Path("grid.png").exists()


def test_a_text_of_one_s_own_is_where_root_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    from genzoo.datamodules import TextDataModule

    monkeypatch.chdir(tmp_path)
    Path("mine.txt").write_text("abc cab bac " * 20)
    data = TextDataModule(path="mine.txt", context_length=6)
    net = GPT((6,), data.levels, width=8, depth=1, heads=1, vocabulary=data.vocabulary)
    genzoo.publish(net, "own/gpt", to="entry", data=data)
    command = ["evaluate", "entry", "--only", "likelihood", "--device", "cpu"]
    assert "say with --root" in refused(command, capsys)
    main([*command, "--root", "mine.txt"])
    assert "nll" in capsys.readouterr().out


def test_sample_hands_on_the_model_s_own_arguments(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Captured
) -> None:
    monkeypatch.chdir(tmp_path)
    net = GPT((6,), 4, width=8, depth=1, heads=1, vocabulary=" abc")
    genzoo.publish(net, "own/gpt", to=tmp_path / "entry")
    command = ["sample", "entry", "--num_samples", "2", "--device", "cpu"]
    main([*command, "--set", "prompt=ab c", "--set", "temperature=0.5", "--set", "length=9"])
    texts = Path("samples.txt").read_text().strip("\n").split(RULE)
    assert len(texts) == 2 and all(text.startswith("ab c") and len(text) == 9 for text in texts)
    assert "takes labels, length, prompt, temperature, top_k, top_p" in refused(
        [*command, "--set", "guidance=2"], capsys
    )
    assert "give name=value" in refused([*command, "--set", "prompt"], capsys)


def test_what_is_set_is_read_as_its_parameter_has_it() -> None:
    without = ("num_samples", "generator")
    gpt = GPT((6,), 4, width=8, depth=1, heads=1, vocabulary=" abc").sample
    for text in ("123", "[1, 2]", "null", "#", "a: b", " a"):
        assert keywords([f"prompt={text}"], gpt, without) == {"prompt": text}
    assert keywords(["temperature=1", "top_k=2"], gpt, without) == {"temperature": 1.0, "top_k": 2}
    assert keywords(["labels=[3, 3, 7]"], gpt, without)["labels"].tolist() == [3, 3, 7]
    sample = DDPM(shape=(2,), levels=None, width=8).sample
    assert keywords(["solver=Heun", "steps=3", "spacing=karras"], sample, without) == {
        "solver": Heun(),
        "steps": 3,
        "spacing": "karras",
    }
    stated = keywords(['solver={"class_path": "DDIM", "init_args": {"eta": 0.5}}'], sample, without)
    assert stated == {"solver": DDIM(eta=0.5)}


def test_a_model_of_two_stages_is_set_what_its_prior_takes(tmp_path: Path, capsys: Captured) -> None:
    """Each as the prior has it; and nothing that the codes of an image leave no choice of."""
    torch.manual_seed(0)
    codes = partial(QuantisedAutoencoder, quantiser=FSQ((3, 3)), width=4, factor=2)
    vectors = partial(VAE, network="spatial", latent_dim=2, width=4)
    writes = LatentModel((1, 8, 8), 17, autoencoder=codes, prior=partial(GPT, width=16, depth=1))
    flows = LatentModel((1, 8, 8), 17, autoencoder=vectors, prior=partial(FlowMatching, width=8, steps=2))
    without = ("num_samples", "generator")
    assert keywords(["solver=Heun", "steps=3"], flows.sample, without) == {"solver": Heun(), "steps": 3}
    for weight in writes.parameters():  # of some begin with zeros, and whatever was drawn would look alike
        torch.nn.init.normal_(weight, std=0.3)
    genzoo.publish(writes, "own/latent", to=tmp_path / "entry")
    command = ["sample", str(tmp_path / "entry"), "--num_samples", "16", "--device", "cpu", "--out"]
    drawn = []
    for number, temperature in enumerate(("1", "0.01", "0.01")):
        main([*command, str(tmp_path / f"{number}.png"), "--set", f"temperature={temperature}"])
        drawn.append((tmp_path / f"{number}.png").read_bytes())
    assert drawn[0] != drawn[1] == drawn[2]
    said = refused([*command, str(tmp_path / "x.png"), "--set", "steps=3"], capsys)
    assert "takes labels, length, prompt, temperature, top_k, top_p" in said
    assert "leave the length out" in refused([*command, str(tmp_path / "x.png"), "--set", "length=3"], capsys)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("guidance=abc", "guidance must be a number"),
        ("steps=2.5", "steps must be a whole number"),
        ("solver=heun", "solver must be Ancestral, DDIM, DPMSolver, Euler, Heun or PredictorCorrector"),
        ("spacing=foo", "spacing must be uniform or karras"),
        ('labels=["a"]', "no class has the name 'a'; they have none: give numbers"),
        ("steps=0", "steps"),
        ("labels=[0.5]", "no class has the name '0.5'"),
    ],
)
def test_a_wrong_value_is_refused_in_one_line(setting: str, message: str, tmp_path: Path, capsys: Captured) -> None:
    genzoo.publish(DDPM(shape=(2,), levels=None, width=8), "own/ddpm", to=tmp_path / "entry")
    command = ["sample", str(tmp_path / "entry"), "--num_samples", "1", "--device", "cpu"]
    assert message in refused([*command, "--set", setting], capsys)


def test_classes_are_named_on_the_command_line(tmp_path: Path, capsys: Captured) -> None:
    animals = ("cat", "dog", "horse", "3")
    torch.manual_seed(0)
    net = FlowMatching((2,), None, width=8, num_classes=4, conditional=True)
    net.name_classes(animals)
    genzoo.publish(net, "own/animals", to=tmp_path / "entry")
    stated = yaml.safe_load((tmp_path / "entry" / "config.yaml").read_text())
    assert stated["class_names"] == list(animals) and "cat, dog, horse" in (tmp_path / "entry/README.md").read_text()
    command = ["sample", str(tmp_path / "entry"), "--num_samples", "2", "--device", "cpu", "--out"]
    drawn = []
    for number, labels in enumerate(("horse", "2", "[horse, 2]", "cat", "[cat, dog]")):
        main([*command, str(tmp_path / f"{number}.png"), "--set", f"labels={labels}"])
        drawn.append((tmp_path / f"{number}.png").read_bytes())
    assert drawn[0] == drawn[1] == drawn[2] and len(set(drawn)) == 3
    assert keywords(["labels=3"], net.sample, ("num_samples", "generator"), animals, 2)["labels"].tolist() == [3, 3]
    said = refused([*command, str(tmp_path / "x.png"), "--set", "labels=hors"], capsys)
    assert "no class has the name 'hors'; did you mean horse?; there are cat, dog, horse, 3" in said
    assert "Labels for 2 data" in refused([*command, str(tmp_path / "x.png"), "--set", "labels=[cat]"], capsys)
    assert "labels lie in [0, 4)" in refused([*command, str(tmp_path / "x.png"), "--set", "labels=[0, 9]"], capsys)
    by_name, digits = partial(keywords, function=net.sample, without=("num_samples",)), ("7", "1", "8")
    assert by_name(["labels=[8, 7]"], class_names=digits, num_labels=2)["labels"].tolist() == [2, 0]
    with pytest.raises(ValueError, match=r"no class has the name '0'.*there are 7, 1, 8"):  # nor is it the first
        by_name(["labels=0"], class_names=digits)


def test_evaluate_uses_the_published_protocol(entry: Path, tmp_path: Path, capsys: Captured) -> None:
    main(["evaluate", str(entry), "--device", "cpu", "--out", str(tmp_path / "m.json")])
    shown = capsys.readouterr().out
    row = next(line.split() for line in shown.splitlines() if line.startswith("nll"))
    metrics = json.loads((tmp_path / "m.json").read_text("utf-8"))
    assert metrics["evaluation"]["num_particles"] == 3 and metrics["evaluation"]["seed"] == 4
    measured = {figure["name"]: figure["value"] for figure in metrics["figures"]}
    assert float(row[1]) == pytest.approx(measured["nll"], rel=1e-5) and row[2] == "99"
    main(["evaluate", str(entry), "--device", "cpu", "--num_particles", "1", "--out", str(tmp_path / "m.json")])
    metrics = json.loads((tmp_path / "m.json").read_text("utf-8"))
    assert metrics["evaluation"]["num_particles"] == 1


@pytest.mark.parametrize("command", ["evaluate", "compare"])
def test_the_folder_of_what_is_written_is_made_before_the_work(
    command: str, entry: Path, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "file" + (".json" if command == "evaluate" else ".html")
    out = tmp_path / "new" / "er" / name
    measure = [command, str(entry), "--device", "cpu", "--out"]
    main([*measure, str(out), *(("--num_particles", "1", "--only", "likelihood") if command == "evaluate" else ())])
    assert [path.name for path in out.parent.iterdir()] == [name]  # and nothing temporary
    monkeypatch.setattr(hub, "load", None)  # from here on nothing may be loaded
    (tmp_path / "taken").write_text("mine")
    assert "is a folder: name a file" in refused([*measure, str(tmp_path)], capsys)
    assert "cannot be written" in refused([*measure, str(tmp_path / "taken" / name)], capsys)


def test_evaluate_measures_a_part_and_other_odd_data(entry: Path, tmp_path: Path, capsys: Captured) -> None:
    common = ["evaluate", str(entry), "--device", "cpu", "--only", "anomaly", "--num_odd", "20"]
    main([*common, "--odd", "erased", "--out", str(tmp_path / "m.json")])
    shown = capsys.readouterr().out
    assert "auroc_erased" in shown and "(floor: principal components ± " in shown and "nll" not in shown
    assert "these are the model's own data, of which nothing is odd" in refused(
        [*common, "--odd", "DigitsDataModule"], capsys
    )
    error = refused([*common, "--odd", "nonsense"], capsys)
    assert "odd is ['nonsense'], but must be a list of some of faint, erased, flipped, shuffled" in error
    assert "Digitz" in refused([*common, "--odd", "DigitzDataModule"], capsys)
    assert "there is no group ['all']" in refused([*common[:-3], "all"], capsys)


def test_odd_data_have_a_place_of_their_own(
    tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    for name, grey in (("dark", 0), ("bright", 150)):
        (tmp_path / name).mkdir()
        for i in range(40):
            Image.new("L", (8, 8), grey + i).save(tmp_path / name / f"{i}.png")
    torch.manual_seed(0)
    model = VAE(shape=(1, 8, 8), levels=256, latent_dim=2, network="mlp", width=8, depth=1)
    kind = "ImageFolderDataModule"
    own = {"size": 8, "channels": 1, "test_fraction": 0.5, "batch_size": 4}
    data = {"class_path": f"genzoo.datamodules.{kind}", "init_args": {"root": "elsewhere", **own}}
    entry = str(genzoo.publish(model, "own/vae", to=tmp_path / "entry", data=data))
    common = ["evaluate", entry, "--device", "cpu", "--only", "anomaly", "--num_odd", "20", "--root", "dark", "--odd"]
    floors = []
    for odd in ("bright", str(tmp_path / "bright"), f"{kind}:bright"):
        main([*common, odd])
        (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("auroc_")]
        floors.append(float(line.split()[2]))
        assert line.split()[1] != "0.5"  # what the folder would have against itself
    assert floors == [1.0] * 3  # all odd images are brighter than all usual ones
    assert f"{kind} does not say which folder" in refused([*common, kind], capsys)
    for same in ("dark", "dark/", str(tmp_path / "dark"), f"{kind}:{tmp_path}/bright/../dark"):
        assert "these are the model's own data" in refused([*common, same], capsys)
    assert "there is no folder" in refused([*common, f"{kind}:nowhere"], capsys)
    assert "odd is ['nowhere/here']" in refused([*common, "nowhere/here"], capsys)


def test_odd_images_of_more_levels_are_rounded(
    tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    Path("bright").mkdir()
    for i in range(40):
        Image.new("L", (8, 8), 215 + i).save(f"bright/{i}.png")
    entry = str(tmp_path / "entry")
    torch.manual_seed(0)
    model = VAE(shape=(1, 8, 8), levels=17, latent_dim=2, network="mlp", width=8, depth=1)
    genzoo.publish(model, "own/vae", to=entry, data={"class_path": "genzoo.datamodules.DigitsDataModule"})
    main(["evaluate", entry, "--device", "cpu", "--only", "anomaly", "--num_odd", "4", "--odd", "bright", "--write"])
    (figure,) = [f for f in hub.find(entry).metrics["figures"] if f["name"].startswith("auroc")]
    assert "rounded to 17 levels" in figure["protocol"]
    assert capsys.readouterr().out.count("auroc_") == 1


def test_rows_are_written_as_numbers(tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a table, in its own units; of points in the plane where a file of numbers is asked for."""
    import numpy as np

    from genzoo.zoo.drawing import draw

    monkeypatch.chdir(tmp_path)
    for columns, default in ((3, "samples.csv"), (2, "samples.png")):
        torch.manual_seed(0)
        model = VAE(shape=(columns,), levels=None, latent_dim=2, width=8)
        model.standardise(torch.arange(1.0, columns + 1) * 1000, torch.tensor([0.01, 1.0, 100.0])[:columns])
        names = ["age", 'height, "cm"', "year"] if columns == 3 else None
        data = {"class_path": "genzoo.datamodules.ArrayDataModule", "init_args": {"columns": names}}
        entry = str(genzoo.publish(model, "own/vae", to=tmp_path / f"entry{columns}", data=data))
        main(["sample", entry, "--num_samples", "5", "--device", "cpu"])
        assert capsys.readouterr().out.strip() == default
        expected = draw(genzoo.load(entry).sample, 5, 0).detach().numpy()
        for name in ("rows.csv", "rows.npy"):
            main(["sample", entry, "--num_samples", "5", "--device", "cpu", "--out", name])
            found = np.load(name) if name.endswith("npy") else np.loadtxt(name, delimiter=",", skiprows=1)
            np.testing.assert_allclose(found, expected, rtol=1e-7)
        with open("rows.csv", newline="") as file:
            assert next(csv.reader(file)) == (names or ["x1", "x2"])
        said = refused(["sample", entry, "--device", "cpu", "--out", "rows.txt"], capsys)
        assert ".csv or .npy; name such a file" in said


def test_data_sets_that_share_a_place_share_the_root(tmp_path: Path) -> None:
    from fake_data import write_mnist

    from genzoo.arguments import odd_data
    from genzoo.commands import parser

    write_mnist(tmp_path)
    write_mnist(tmp_path, folder="FashionMNIST")
    block = {"class_path": "genzoo.datamodules.MNISTDataModule", "init_args": {"root": "data", "binarize": "static"}}
    given = ["mnist/vae", "--root", str(tmp_path), "--odd"]
    shared = odd_data(parser("evaluate").parse_args([*given, "FashionMNISTDataModule"]), block)
    assert dict(shared.hparams)["root"] == str(tmp_path) and dict(shared.hparams)["binarize"] == "static"
    own = odd_data(parser("evaluate").parse_args([*given, "FashionMNISTDataModule:there"]), block)
    assert dict(own.hparams)["root"] == "there"


def test_an_entry_is_published_again_with_figures_measured_anew(
    entry: Path, tmp_path: Path, capsys: Captured
) -> None:
    figures, again = tmp_path / "m.json", tmp_path / "again"
    publish = [
        "publish",
        "--entry",
        str(entry),
        "--name",
        "digits/vae",
        "--to",
        str(again),
        "--metrics",
        str(figures),
    ]
    measure = ["evaluate", str(entry), "--device", "cpu", "--out", str(figures), "--only", "anomaly"]
    main([*measure, "--odd", "faint", "--num_odd", "20"])
    main(publish)
    metrics = hub.Entry("digits/vae", again).metrics
    assert [figure["name"] for figure in metrics["figures"]] == ["nll", "parameters", "auroc_faint"]
    assert metrics["figures"][0]["value"] == 99.0 and metrics["evaluation"]["num_odd"] == 20
    assert "auroc_faint" in (again / "README.md").read_text()
    main([*measure, "--num_particles", "9", "--num_odd", "20"])
    assert "another num_particles than the figures that stay (nll)" in refused(publish, capsys)
    likelihood = ["--only", "likelihood", "--num_particles", "9", "--num_likelihood", "30"]  # of which no AUROC knows
    main(["evaluate", str(again), "--device", "cpu", "--out", str(figures), *likelihood])
    main(["publish", "--entry", str(again), *publish[3:]])
    metrics = hub.Entry("digits/vae", again).metrics
    measured = {figure["name"]: figure["num_examples"] for figure in metrics["figures"] if "num_examples" in figure}
    assert measured == {"nll": 30, "auroc_faint": 40, "bits_per_dim": 30}
    assert metrics["evaluation"]["num_particles"] == 9 and metrics["evaluation"]["num_odd"] == 20
    figures.write_text("[]")
    assert "does not hold what `genzoo evaluate --out` writes" in refused(publish, capsys)


def test_evaluate_writes_into_the_entry(entry: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    before = hub.Entry("digits/vae", entry)
    weights, config = (entry / "model.safetensors").read_bytes(), before.config
    measure = ["evaluate", str(entry), "--device", "cpu", "--write", "--only", "likelihood", "--num_particles", "2"]
    main(measure)
    assert f"written into {entry}" in capsys.readouterr().out
    after = hub.Entry("digits/vae", entry)
    values = {figure["name"]: figure["value"] for figure in after.metrics["figures"]}
    assert values["nll"] != 99.0 and after.metrics["evaluation"]["num_particles"] == 2
    assert f"{values['nll']:.6g}" in (entry / "README.md").read_text("utf-8")
    assert (entry / "model.safetensors").read_bytes() == weights and after.config == config
    (entry / "notes.txt").touch()  # which would be lost: known before anything is measured
    monkeypatch.setattr("genzoo.metrics.evaluation.evaluate", None)
    assert "notes.txt would be lost" in refused(measure, capsys)


def test_what_was_written_into_an_entry_while_it_was_measured_is_not_lost(
    entry: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Figures of others stay, and none is stated of weights that it was not measured on."""
    from genzoo.metrics import evaluation

    measure = evaluation.evaluate

    def meanwhile(change: Callable[[Any], Any]) -> Callable[..., Any]:
        @wraps(measure)
        def measured(*arguments: Any, **options: Any) -> Any:
            found, there = measure(*arguments, **options), hub.Entry("digits/vae", entry)
            change(there)
            return found

        return measured

    def other_figures(there: hub.Entry) -> None:
        metrics = there.metrics
        metrics["figures"].append({"name": "kid", "value": 0.5, "unit": "x", "protocol": "x", "split": "test"})
        hub.republish(there, "digits/vae", to=entry, metrics=metrics)

    def other_weights(there: hub.Entry) -> None:
        model = genzoo.load(entry)
        model.load_state_dict({key: value + 1 for key, value in model.state_dict().items()})
        genzoo.publish(model, "digits/vae", to=entry, data=there.config["data"])

    command = ["evaluate", str(entry), "--device", "cpu", "--write", "--only", "likelihood", "--num_particles", "2"]
    monkeypatch.setattr(evaluation, "evaluate", meanwhile(other_figures))
    main(command)
    names = [figure["name"] for figure in hub.Entry("digits/vae", entry).metrics["figures"]]
    assert "kid" in names and "bits_per_dim" in names
    monkeypatch.setattr(evaluation, "evaluate", meanwhile(other_weights))
    assert "has other weights by now than those that were measured" in refused(command, capsys)
    assert hub.Entry("digits/vae", entry).metrics == {}


def test_the_figures_of_an_entry_are_not_written_over(entry: Path, capsys: Captured) -> None:
    """They say how it was trained, too."""
    before = (entry / "metrics.json").read_bytes()
    command = [
        "evaluate",
        str(entry),
        "--device",
        "cpu",
        "--only",
        "likelihood",
        "--out",
        str(entry / "metrics.json"),
    ]
    assert "an entry's file, which also says how it was trained: --write keeps that" in refused(command, capsys)
    assert (entry / "metrics.json").read_bytes() == before


def test_evaluate_writes_into_an_entry_that_lies_elsewhere(
    entry: Path, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GENZOO_CACHE", str(tmp_path / "cache"))
    there = hub.republish(hub.Entry("digits/vae", entry), "digits/vae", to="memory://zoo/written")
    main(["evaluate", str(there), "--device", "cpu", "--write", "--only", "likelihood"])
    assert "written into memory://zoo/written" in capsys.readouterr().out
    values = {figure["name"]: figure["value"] for figure in hub.find(str(there)).metrics["figures"]}
    assert values["nll"] != 99.0 and "bits_per_dim" in values


@pytest.mark.parametrize(
    ("kind", "place", "name"),
    [
        ("ImageFolder", {"root": "/home/me/photos"}, "photos"),
        ("Array", {"path": "/home/me/rows.csv"}, "rows.csv"),
        ("Text", {"path": ["/home/me/a.txt", "/home/me/b.txt"], "root": "data"}, "a.txt"),
    ],
)
def test_whose_data_are_somebody_s_own_says_where_they_were(
    kind: str, place: dict[str, Any], name: str, tmp_path: Path, capsys: Captured
) -> None:
    model = VAE(shape=(1, 8, 8), levels=256, latent_dim=2, network="mlp", width=8, depth=1)
    data = {"class_path": f"genzoo.datamodules.{kind}DataModule", "init_args": place}
    entry = str(genzoo.publish(model, "own/vae", to=tmp_path / "entry", data=data))
    assert "/home/me" not in (tmp_path / "entry" / "config.yaml").read_text()
    for command in (["evaluate", entry], ["compare", entry]):
        said = refused([*command, "--device", "cpu"], capsys)
        assert f"in '{name}' when it was trained): say with --root where they are" in said


def test_evaluate_refuses_a_hostile_data_block(entry: Path, tmp_path: Path, capsys: Captured) -> None:
    text = (entry / "config.yaml").read_text()
    (entry / "config.yaml").write_text(text.replace("genzoo.datamodules.DigitsDataModule", "os.system"))
    assert "os.system" in refused(["evaluate", str(entry)], capsys)


def test_the_scores_of_a_file_of_any_name_are_written(entry: Path, tmp_path: Path) -> None:
    """As old archives have them, in another encoding than the system's."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in (b"caf\xe9.png", b"plain.png"):
        Image.new("L", (8, 8)).save(tmp_path / "one.png")
        (tmp_path / "one.png").rename(os.fsdecode(os.fsencode(photos) + b"/" + name))
    main(["score", str(entry), str(photos), "--device", "cpu", "--out", str(tmp_path / "scores.csv")])
    written = (tmp_path / "scores.csv").read_bytes()
    assert b"caf\xe9.png" in written and b"plain.png" in written


def test_an_entry_says_nothing_of_the_machine(entry: Path, tmp_path: Path) -> None:
    """How many processes read the data, and how much memory they take, is the user's to say."""
    block = {
        "class_path": "ImageFolderDataModule",
        "init_args": {"in_memory": False, "num_workers": 100_000, "size": 8},
    }
    for name in ("usual", "odd"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / name / "one.png")
    given = Namespace(root=str(tmp_path / "usual"), allow=[])
    theirs, own = (arguments.build_data(block, given, own=own).hparams for own in (False, True))
    assert theirs["size"] == own["size"] == 8 and own["num_workers"] == 100_000
    assert theirs["num_workers"] < 100 and theirs["in_memory"] is not False
    given = Namespace(root=str(tmp_path / "usual"), allow=[], odd=f"ImageFolderDataModule:{tmp_path / 'odd'}")
    odd = arguments.odd_data(given, block)
    assert not isinstance(odd, list) and odd.hparams["num_workers"] < 100  # of data in the form of theirs neither


def test_a_file_of_samples_is_refused_before_they_are_drawn(
    entry: Path, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("genzoo.zoo.media.samples_of", None)
    assert "are written as .png" in refused(["sample", str(entry), "--out", str(tmp_path / "grid.jpg")], capsys)
    (tmp_path / "grid.png").mkdir()
    assert "is a folder: name a file" in refused(["sample", str(entry), "--out", str(tmp_path / "grid.png")], capsys)


def test_rows_are_of_classes_as_often_as_the_data_s_and_say_which(
    tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    class Told(FlowMatching):
        """Draws what it was told."""

        def sample(self, num_samples: int, *, labels: torch.Tensor | None = None, **_: Any) -> torch.Tensor:
            return self.labels_to_sample(labels, num_samples, self.like, None)[:, None].expand(-1, 2).float()

    model = Told((2,), None, width=8, num_classes=3, conditional=True)
    model.count_classes(torch.tensor([0] * 80 + [2] * 20))
    model.name_classes(("usual", "never", 'rare, "very"'))
    rows = rows_of(model, 2000, 0)
    assert rows is not None and rows.classes is not None
    assert rows.classes == ["usual" if number == 0 else 'rare, "very"' for number in rows.x[:, 0].tolist()]
    assert rows.classes.count("usual") == pytest.approx(1600, abs=80)  # 4.5σ
    asked = rows_of(model, 3, 0, labels=torch.tensor([2, 2, 0]))
    assert asked is not None and asked.x[:, 0].tolist() == [2, 2, 0]
    asked.write(tmp_path / "asked.csv")
    with open("asked.csv", newline="") as file:
        assert list(csv.reader(file)) == [
            ["x1", "x2", "class"],
            ["2", "2", 'rare, "very"'],
            ["2", "2", 'rare, "very"'],
            ["0", "0", "usual"],
        ]


def test_nothing_in_the_current_folder_is_run_unless_it_is_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor then what is called like something that is installed."""
    monkeypatch.chdir(tmp_path)
    for name in ("json", "of_my_own"):
        (tmp_path / f"{name}.py").write_text("class Own:\n    pass\n")
    before = [folder for folder in sys.path if folder != str(tmp_path)]
    monkeypatch.setattr(sys, "path", list(before))
    assert arguments.allowed(Namespace(allow=[])) == () and sys.path == before
    (own,) = arguments.allowed(Namespace(allow=["of_my_own.Own"]))
    assert own.__name__ == "Own" and sys.path == [*before, str(tmp_path)]
    with pytest.raises(ValueError, match="json"):
        arguments.allowed(Namespace(allow=["json.Own"]))


def test_what_is_one_s_own_goes_before_what_is_called_so_or_is_said(
    entry: Path, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    main(["cp", "digits/vae", "digits/vae.yaml"])
    Path("digits/vae.yaml").write_text(Path("digits/vae.yaml").read_text().replace("latent_dim: 16", "latent_dim: 3"))
    for name, latents in (("digits/vae.yaml", 3), ("./digits/vae.yaml", 3), ("digits/vae", 16)):
        found = yaml.safe_load(recipes.find(name).read_text())
        assert found["model"]["init_args"]["latent_dim"] == latents, name
    assert recipes.find("digits/ae.yaml") == recipes.find("digits/ae")
    capsys.readouterr()
    main(["publish", "--entry", str(entry), "--name", "digits/vae", "--to", "digits/vae"])
    assert capsys.readouterr().out == "published digits/vae: ./digits/vae\n"
    main(["sample", "./digits/vae", "--num_samples", "1", "--device", "cpu"])
    assert not capsys.readouterr().err
    main(["sample", "digits/vae", "--num_samples", "1", "--device", "cpu"])
    assert "digits/vae is the zoo's own entry; what is called so here is ./digits/vae" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["evaluate", "compare"])
def test_no_data_are_written_over(command: str, entry: Path, tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "own.csv").write_text("a,b\n1,2\n")
    said = refused(
        [command, str(entry), "--root", str(tmp_path / "own.csv"), "--out", str(tmp_path / "own.csv")], capsys
    )
    assert "own.csv: this is written as" in said and (tmp_path / "own.csv").read_text() == "a,b\n1,2\n"


def test_an_interrupted_command_says_no_more_than_that(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, "parser", interrupted)
    with pytest.raises(SystemExit) as ended:
        main(["sample", "digits/vae"])
    assert ended.value.code == 130 and not capsys.readouterr().err


def test_a_table_with_more_columns_is_measured_by_those_of_the_model(tmp_path: Path, capsys: Captured) -> None:
    x = torch.randn(300, 2, generator=torch.Generator().manual_seed(0)).numpy()
    for name, header, rows in (("own", "a,b", x), ("more", "b,c,a", x[:, [1, 0, 0]])):
        np.savetxt(tmp_path / f"{name}.csv", rows, delimiter=",", header=header, comments="")
    torch.manual_seed(0)
    model = VAE((2,), None, latent_dim=2, width=8)
    model.name_columns(("a", "b"))
    data = {"class_path": "genzoo.datamodules.ArrayDataModule", "init_args": {}}
    entry = str(genzoo.publish(model, "own/vae", to=tmp_path / "entry", data=data))
    found = []
    for name in ("own", "more"):
        out = str(tmp_path / f"{name}.json")
        main(["evaluate", entry, "--root", str(tmp_path / f"{name}.csv"), "--only", "likelihood", "--out", out])
        found.append({f["name"]: f["value"] for f in json.loads(Path(out).read_text())["figures"]})
    assert found[0] == found[1] and "nll" in found[0]


@pytest.mark.parametrize("port", ["0", "99999999", "taken"])
def test_a_port_that_cannot_be_is_said_in_one_line(port: str, capsys: Captured) -> None:
    with socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        number = str(taken.getsockname()[1]) if port == "taken" else port
        said = refused(["app", "digits/made", "--port", number], capsys)
    assert f"--port {number}" in said


def test_what_allow_names_is_a_class(entry: Path, capsys: Captured) -> None:
    assert "--allow json: that is no class" in refused(["sample", str(entry), "--allow", "json"], capsys)


def test_labels_that_are_no_classes_are_refused_in_one_line(tmp_path: Path, capsys: Captured) -> None:
    model = DDPM(shape=(2,), levels=None, width=8, num_classes=3, conditional=True)
    genzoo.publish(model, "own/ddpm", to=tmp_path / "entry")
    command = ["sample", str(tmp_path / "entry"), "--num_samples", "2", "--device", "cpu", "--set"]
    assert "no class has the name '1.0'" in refused([*command, "labels=[1.0, 2.0]"], capsys)
    assert "labels lie in [0, 3)" in refused([*command, "labels=[1, 3]"], capsys)


def test_debugging_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENZOO_DEBUG", "1")
    with pytest.raises(FileNotFoundError):
        main(["sample", "no/such"])


def test_an_entry_is_published_again_elsewhere_with_its_figures(
    entry: Path, tmp_path: Path, capsys: Captured
) -> None:
    main(["publish", "--entry", str(entry), "--name", "mine/vae", "--to", str(tmp_path / "again")])
    assert str(tmp_path / "again") in capsys.readouterr().out
    again, first = hub.Entry("mine/vae", tmp_path / "again"), hub.Entry("digits/vae", entry)
    assert again.metrics == first.metrics
    assert again.config["weights"] == first.config["weights"]
    assert again.config["name"] == "mine/vae"
    both = ["--entry", str(entry), "--ckpt_path", "x.ckpt"]
    again_with = ["publish", "--entry", str(entry), "--name", "mine/vae", "--dtype", "float16", "--num_samples", "7"]
    assert "--dtype and --num_samples has no effect with --entry" in refused(again_with, capsys)
    assert "one of the two" in refused(["publish", "--name", "mine/vae", *both], capsys)
    assert "one of the two" in refused(["publish", "--name", "mine/vae"], capsys)


def test_a_reader_who_has_seen_enough_is_no_error() -> None:
    listing = f"{sys.executable} -m genzoo list | head -n 1"
    ended = subprocess.run(["bash", "-c", listing], capture_output=True, text=True, check=True)
    assert ended.stdout.startswith("cifar10, 256 levels") and not ended.stderr


@pytest.mark.parametrize("columns", [5, "ab", {"a": 1, "b": 2}, [1, 2], ["a"], None])
def test_columns_that_no_table_has_are_not_heeded(columns: Any) -> None:
    """Whatever an entry of somebody's states."""
    entry = SimpleNamespace(config={"data": {"init_args": {"columns": columns}}})
    assert names_of_columns(entry, SimpleNamespace(shape=(2,))) is None
