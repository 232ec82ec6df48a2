"""The page that compares: what is on it, what it says of what a model cannot do, and what it refuses."""

import base64
import html
import io
import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jinja2
import pytest
import torch
import yaml
from families import FAMILIES as ZOO
from families import few_steps
from PIL import Image
from running import refused

import genzoo
from genzoo.callbacks import Publish
from genzoo.cli import main
from genzoo.commands.list import best_of
from genzoo.compare import entries_to_compare, samples, write_page
from genzoo.compare.exhibits import Exhibition, _tiles, open_exhibition
from genzoo.compare.families import CAPABILITIES, FAMILIES, OTHER, WORDS, capabilities_of, family_of, said, why_not
from genzoo.compare.figures import COLUMNS, columns_of, floors
from genzoo.compare.pictures import ink, png, sheet
from genzoo.compare.questions import SAMPLES, USUAL, ask, half_known, picture, show
from genzoo.compare.samples import EACH, GUIDANCES, Choice, choices
from genzoo.datamodules import DigitsDataModule, ImageFolderDataModule
from genzoo.datamodules.base import Source
from genzoo.metrics.data import Rows
from genzoo.zoo import GAN, MADE, VAE, Autoencoder, Classifier, FlowMatching, LatentModel, hub
from genzoo.zoo.hub.film import frame_size, smaller
from genzoo.zoo.media import Picture, render

DIGITS = {"class_path": "genzoo.datamodules.DigitsDataModule", "init_args": {}}
POINTS = {
    "class_path": "genzoo.datamodules.PointsDataModule",
    "init_args": {"test_size": 300, "train_size": 500, "val_size": 50},
}
NAMES = [f"a {word}" for word in ["nought", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]]
Captured = pytest.CaptureFixture[str]


class FewDigits(DigitsDataModule):
    def load(self, split: str) -> Source:
        return super().load(split).select(torch.arange(7))


class Mute(GAN):
    """Draws, and finds nothing odd."""

    anomaly_score = None  # type: ignore[assignment]


def figure(name: str, value: float, **more: object) -> dict:
    return {"name": name, "value": value, "unit": "?", "protocol": "?", "split": "test", "num_examples": 9, **more}


def measured(frechet: float, recall: float) -> list[dict]:
    return [figure("frechet", frechet, floor=2.0), figure("recall", recall)]


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three small models of the digits, untrained."""
    folder = tmp_path_factory.mktemp("zoo")
    torch.manual_seed(0)
    small = {"shape": (1, 8, 8), "levels": 17}
    vae = VAE(**small, latent_dim=2, network="mlp", width=8, depth=1)
    ae = Autoencoder(**small, latent_dim=2, network="mlp", width=8, depth=1)
    made = MADE(**small, width=16)
    film = folder / "film.png"
    render(torch.rand(3 * 8, 1, 8, 8, generator=torch.Generator().manual_seed(0)), columns=8).write(film)
    exact = {
        "figures": [figure("nll", 90.0, kind="exact"), figure("frechet", 20.0, floor=2.0), figure("recall", 0.5)]
    }
    bound = {
        "figures": [
            figure("nll", 120.5, kind="lower_bound"),
            figure("frechet", 1000.0, floor=2.0),
            figure("recall", 0.2),
        ]
    }
    genzoo.publish(vae, "tiny/vae", to=folder / "vae", data=DIGITS, metrics=bound)
    genzoo.publish(made, "tiny/made", to=folder / "made", data=DIGITS, metrics=exact)
    training = {
        "training": {"film": [0, 10, 1200]},
        "figures": [figure("frechet", 44.0, floor=2.0)],
    }
    genzoo.publish(ae, "tiny/ae", to=folder / "ae", data=DIGITS, metrics=training, learning=film)
    return folder


@pytest.fixture(scope="module")
def page(zoo: Path) -> Path:
    out = zoo / "page.html"
    main(["compare", *(str(zoo / name) for name in ("vae", "made", "ae")), "--out", str(out), "--device", "cpu"])
    return out


# ---- the page


def test_it_is_one_file_that_needs_no_other(page: Path) -> None:
    text = page.read_text("utf-8")
    assert len(text) < 5e6 and {p.name for p in page.parent.iterdir()} >= {"page.html"}
    assert not [p for p in page.parent.iterdir() if p.name.startswith(".page")]
    assert not re.findall(r"(?:https?:)?//[a-z]", re.sub(r"data:[^\"]+", "", text).replace("// ", ""))
    for tag in re.findall(r"<(?:img|script|link)[^>]*>", text):
        assert "src=" not in tag or 'src="data:' in tag
        assert "href=" not in tag or 'href="data:' in tag


def test_it_answers_every_question_or_says_why_not(page: Path) -> None:
    text = page.read_text("utf-8")
    for section in ("samples", "process", "completions", "interpolations", "odd", "figures", "can"):
        assert f'<section id="{section}"' in text
    families = {family.key: family for family in FAMILIES}
    assert said(families["latent"].lacks["samples"], "image") in text  # the autoencoder
    assert said(families["autoregressive"].lacks["interpolates"], "image") in text
    assert "64 of 64 dimensions drawn" in text and "of the way from one image" in text
    assert "exact: drawn from p(unknown | known)" in text and "approximate" in text
    assert "≤ 120.5" in text
    assert "Implicit" not in text  # a family that is not there


def test_every_picture_can_be_read(page: Path) -> None:
    uris = re.findall(r"data:image/png;base64,([A-Za-z0-9+/=]+)", page.read_text("utf-8"))
    assert len(uris) > 20
    for uri in uris:
        image = Image.open(io.BytesIO(base64.b64decode(uri)))
        image.load()
        assert image.mode == "LA"


def test_the_same_seed_writes_the_same_page(page: Path, zoo: Path, tmp_path: Path) -> None:
    for seed in ("0", "1"):
        out = str(tmp_path / f"{seed}.html")
        main(["compare", str(zoo / "made"), "--out", out, "--seed", seed, "--device", "cpu"])
    main(["compare", str(zoo / "made"), "--out", str(tmp_path / "again.html"), "--device", "cpu"])
    again, zero, one = ((tmp_path / f"{name}.html").read_bytes() for name in ("again", "0", "1"))
    assert again == zero != one


def test_points_are_shown_as_clouds(tmp_path: Path) -> None:
    torch.manual_seed(0)
    made = MADE(shape=(2,), levels=None, width=16)
    genzoo.publish(made, "points/made", to=tmp_path / "made", data=POINTS)
    main(["compare", str(tmp_path / "made"), "--out", str(tmp_path / "p.html"), "--device", "cpu"])
    text = (tmp_path / "p.html").read_text("utf-8")
    assert '<section id="process"' in text and '<section id="odd"' not in text and "the height" in text
    words = text.partition("<summary>The models")[0]
    words = re.sub(r"<(style|script)\b.*?</\1>", "", words, flags=re.DOTALL)
    words = re.sub(r'<[^>]*?(?: alt="([^"]*)"[^>]*)?>', r"\1 ", words)
    assert not re.findall(r"[^.]*\b(?:images?|pixels?)\b[^.]*", words)  # nothing is said that is not of points
    assert "coordinate after coordinate" in words and "told the class" not in words


def test_each_model_is_shown_beside_its_own_data(tmp_path: Path) -> None:
    torch.manual_seed(0)
    for name in ("ring", "spirals"):
        block = {**POINTS, "init_args": {**POINTS["init_args"], "name": name}}
        made = MADE(shape=(2,), levels=None, width=8)
        genzoo.publish(made, f"{name}/made", to=tmp_path / name, data=block)
    names = [str(tmp_path / name) for name in ("ring", "spirals")]
    main(["compare", *names, "--out", str(tmp_path / "p.html"), "--device", "cpu"])
    text = (tmp_path / "p.html").read_text("utf-8")
    for task in ("ring", "spirals"):
        assert f"<strong>real</strong> <span>{task}</span>" in text
        assert f"<strong>{task}/made</strong> <span>Autoregressive: {task}</span>" in text  # both are called made
    assert "the same data" not in text and "only between models of the same task" in text
    real = re.findall(r'src="([^"]+)"[^>]+alt="real data"', text)
    assert len(set(real)) == 2


def a_run(folder: Path, module: genzoo.zoo.ZooModule, data: dict[str, Any], **publish: str) -> hub.Entry:
    """What is found of a run on these data: its configuration and a checkpoint are all that it left."""
    (folder / "checkpoints").mkdir(parents=True)
    callback = {"class_path": "genzoo.callbacks.Publish", "init_args": publish}
    (folder / "config.yaml").write_text(yaml.safe_dump({"data": data, "trainer": {"callbacks": [callback]}}))
    checkpoint = {"state_dict": module.state_dict(), "hyper_parameters": dict(module.hparams)}
    torch.save(checkpoint, folder / "checkpoints" / "last.ckpt")
    return hub.find(folder)


def test_runs_on_two_folders_are_of_two_tasks_and_each_is_of_its_entry_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the same recipe, or by others; the recipes for anybody's pictures do not say what the data are called."""
    monkeypatch.chdir(tmp_path)
    model, tasks = VAE((1, 8, 8), 256, latent_dim=2, network="mlp", width=8, depth=1), {}
    for recipe, folder in (("vae", "My cats (2024)"), ("gan", "dogs"), ("ae", "dogs")):
        Path(folder).mkdir(exist_ok=True)
        for i in range(5):
            Image.new("L", (8, 8), i).save(Path(folder) / f"{i}.png")
        arguments = {"root": folder, "size": 8, "channels": 1}
        block = {"class_path": "genzoo.datamodules.ImageFolderDataModule", "init_args": arguments}
        place = Path("runs") / "images" / recipe / "2026-01-31_12-00-00"
        run = a_run(place, model, block, recipe=f"images/{recipe}")
        data = ImageFolderDataModule(**arguments)
        name = Publish(recipe=f"images/{recipe}").name_for(data)
        entry = hub.find(genzoo.publish(model, name, to=place / "entry", data=data))
        assert (run.config["name"], run.task) == (name, entry.task)
        tasks[recipe] = run.task
    assert tasks["vae"] != tasks["gan"] == tasks["ae"]
    table = {"class_path": "genzoo.datamodules.ArrayDataModule"}
    rows = MADE(shape=(2,), levels=None, width=8)
    runs = [a_run(Path("runs/own") / kept, rows, {**table, "init_args": {"path": f"{kept}.csv"}}) for kept in "ab"]
    assert len({run.task for run in runs}) == 2


def test_models_of_one_task_are_asked_about_the_same_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    """Or an answer would stand beside a question that its model was not asked."""
    monkeypatch.chdir(tmp_path)
    model = VAE((1, 8, 8), 256, latent_dim=2, network="mlp", width=8, depth=1)
    Path("dogs").mkdir()
    for i in range(40):
        Image.new("L", (8, 8), 5 * i).save(Path("dogs") / f"{i}.png")
    for name, fraction in (("a", 0.2), ("b", 0.4), ("c", 0.2)):
        arguments = {"root": "dogs", "size": 8, "channels": 1, "test_fraction": fraction, "batch_size": len(name)}
        block = {"class_path": "genzoo.datamodules.ImageFolderDataModule", "init_args": arguments}
        a_run(Path("runs/images/vae") / name, model, block, recipe="images/vae")
    both = [f"runs/images/vae/{name}" for name in "abc"]
    assert "have other test data" in refused(["compare", *both[:2], "--device", "cpu"], capsys)
    main(["compare", both[0], both[2], "--out", "page.html", "--device", "cpu"])


def test_what_cannot_be_compared_is_refused(zoo: Path, tmp_path: Path, capsys: Captured) -> None:
    error = refused(["compare", "digitss"], capsys)
    assert "no models of 'digitss'" in error and "digits, emoji, fashion, fsdd, mnist" in error
    torch.manual_seed(0)
    other = VAE((1, 4, 4), 2, latent_dim=2, network="mlp", width=8, depth=1)
    genzoo.publish(other, "x/vae", to=tmp_path / "x", data=DIGITS)
    assert "(1, 4, 4)" in refused(["compare", str(zoo / "vae"), str(tmp_path / "x")], capsys)
    genzoo.publish(Classifier((1, 8, 8), 17, 10, feature_dim=4, width=4), "x/c", to=tmp_path / "c", data=DIGITS)
    assert "none of these entries is a generative model" in refused(["compare", str(tmp_path / "c")], capsys)
    tokens = MADE(shape=(5,), levels=4, width=8)
    genzoo.publish(tokens, "x/t", to=tmp_path / "t", data=DIGITS)
    assert "images and points in the plane" in refused(["compare", str(tmp_path / "t")], capsys)


def test_of_a_data_set_the_entries_of_one_shape_are_meant() -> None:
    """Those of most, or of what is named beside it."""

    def found(*names: str) -> tuple[list[str], str]:
        notes: list[str] = []
        return [entry.name for entry in entries_to_compare(names, note=notes.append)], "".join(notes)

    small, said = found("emoji")
    assert {"emoji/flow-matching", "emoji/vae"} <= set(small) and "emoji/latent-gpt" not in small
    large = ["emoji/latent-flow", "emoji/latent-gpt", "emoji/tokenizer"]
    assert said == f"a page shows data of one shape, here (3, 32, 32): without {', '.join(large)}"
    for names in (("emoji/latent-gpt", "emoji"), ("emoji", "emoji/latent-gpt")):
        shown, said = found(*names)
        assert sorted(shown) == large
        assert "here (3, 64, 64): without emoji/ae, emoji/flow-matching" in said
    assert found("digits")[1] == "" == found("emoji/vae")[1]
    with pytest.warns(UserWarning, match="without emoji/latent-flow"):
        entries_to_compare(["emoji"])


def test_what_draws_nothing_is_named() -> None:
    both = entries_to_compare(["digits/classifier", "digits/vae"])
    with pytest.warns(UserWarning, match="no generative models, and not on the page: digits/classifier"):
        shown = open_exhibition(both, data_of=lambda entry: DigitsDataModule(), device="cpu", seed=0, allow=())
    assert [exhibit.name for exhibit in shown.exhibits] == ["digits/vae"]


def test_a_data_set_stands_for_all_its_entries() -> None:
    names = [entry.name for entry in entries_to_compare(["digits"])]
    assert "digits/vae" in names and all(name.startswith("digits/") for name in names)
    assert [entry.name for entry in entries_to_compare(["digits/vae", "mnist/vae"])] == ["digits/vae", "mnist/vae"]


def test_a_model_of_one_s_own_among_those_of_the_zoo(zoo: Path) -> None:
    names = [entry.name for entry in entries_to_compare(["digits", str(zoo / "made")])]
    assert names == [*(entry.name for entry in entries_to_compare(["digits"])), "tiny/made"]


def test_a_folder_of_data_does_not_hide_the_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").mkdir()
    assert "digits/vae" in [entry.name for entry in entries_to_compare(["digits"])]


def test_entries_of_one_name_are_told_apart_by_where_they_lie(zoo: Path) -> None:
    copy = shutil.copytree(zoo / "vae", zoo / "copy")
    names = [str(zoo / "vae"), str(copy), str(zoo / "made")]
    assert [entry.name for entry in entries_to_compare(names)] == [*names[:2], "tiny/made"]


def test_who_was_told_the_class_is_said(tmp_path: Path) -> None:
    torch.manual_seed(0)
    for conditional in (False, True):
        model = GAN((1, 8, 8), 17, network="mlp", width=8, depth=1, num_classes=10, conditional=conditional)
        genzoo.publish(model, f"tiny/gan{conditional:d}", to=tmp_path / f"gan{conditional:d}", data=DIGITS)
    names = [str(tmp_path / "gan0"), str(tmp_path / "gan1")]
    main(["compare", *names, "--out", str(tmp_path / "p.html"), "--device", "cpu"])
    text = (tmp_path / "p.html").read_text("utf-8")
    assert "<strong>gan0</strong> <span>Implicit</span>" in text
    assert "<strong>gan1</strong> <span>Implicit, told the class</span>" in text


# ---- its samples

Told = tuple[Path, dict[str, genzoo.zoo.ZooModule]]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Told:
    """A page of models of which one takes class and guidance, one has no anomaly score, and one is neither."""
    folder = tmp_path_factory.mktemp("told")
    torch.manual_seed(0)
    small = {"shape": (1, 8, 8), "levels": 17}
    net = {"width": 8, "multipliers": [1], "blocks": 1, "attention": False, "steps": 3}
    models = {
        "flow": FlowMatching(**small, **net, num_classes=10, conditional=True),
        "mute": Mute(**small, network="mlp", width=8, depth=1),
        "vae": VAE(**small, latent_dim=2, network="mlp", width=8, depth=1),
    }
    for weight in models["flow"].parameters():  # it begins with zeros, and would not heed the class
        torch.nn.init.normal_(weight, std=0.3)
    models["flow"].name_classes(NAMES)
    for name, model in models.items():
        genzoo.publish(model, f"tiny/{name}", to=folder / name, data=DIGITS, allow=(Mute,))
    entries = entries_to_compare([str(folder / name) for name in models])
    write_page(entries, folder / "told.html", data_of=lambda _: DigitsDataModule(), allow=(Mute,))
    return folder / "told.html", {name: genzoo.load(folder / name, allow=(Mute,)) for name in models}


def data_in(page: Path) -> dict[str, list[dict]]:
    """What the script knows of the samples, by model."""
    texts = re.findall(r"<script[^>]+data-drawings[^>]+>(.*?)</script>", page.read_text("utf-8"))
    return {found["name"]: found["drawings"] for found in map(json.loads, texts)}


def sheets_in(page: Path, name: str) -> list[tuple[str, str]]:
    """The descriptions and addresses of a model's pictures of samples."""
    found = re.findall(r'<img src="([^"]+)"[^>]+alt="([^"]*)"', page.read_text("utf-8"))
    return [
        (html.unescape(alt), uri)
        for uri, alt in found
        if re.fullmatch(f"tiny/{name}: samples(?!,).*", html.unescape(alt))
    ]


def drawn_by(model, data: dict) -> torch.Tensor:
    """The samples that are said to have been drawn."""
    options = {} if data["guidance"] is None else {"guidance": data["guidance"]}
    if data["label"] is not None:
        options["labels"] = torch.full((data["count"],), data["label"])
    return model.sample(data["count"], **options, generator=torch.Generator().manual_seed(0))


def images_in(uri: str, columns: int) -> torch.Tensor:
    """The images of a sheet of 8 × 8 digits, six times as large and three apart: (N, 1, 8, 8) on their grid."""
    pixels = Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
    grey = torch.frombuffer(bytearray(pixels.getchannel(0).tobytes()), dtype=torch.uint8).view(pixels.height, -1)
    tiles = [
        grey[y : y + 48 : 6, x : x + 48 : 6] for y in range(0, pixels.height, 51) for x in range(0, 51 * columns, 51)
    ]
    return (torch.stack(tiles)[:, None] / 255 * 16).round() / 16


def test_each_class_s_samples_are_those_of_the_class_at_each_guidance(told: Told) -> None:
    page, models = told
    data = data_in(page)
    assert list(data) == ["vae", "mute", "flow"]
    choices = [(label, guidance) for guidance in GUIDANCES for label in (None, *range(10))]
    assert [(d["label"], d["guidance"]) for d in data["flow"]] == choices
    assert [(d["label"], d["guidance"]) for d in data["vae"]] == [(None, None)]
    seen = set()
    for name, drawings in data.items():
        sheets = sheets_in(page, name)
        assert len(sheets) == len(drawings)
        for (alt, uri), drawing in zip(sheets, drawings, strict=True):
            images = images_in(uri, drawing["columns"])
            assert len(images) == drawing["count"] == (SAMPLES if drawing["label"] is None else EACH)
            assert torch.equal(images, drawn_by(models[name], drawing))
            words = [] if drawing["label"] is None else [NAMES[drawing["label"]]]
            words += [] if drawing["guidance"] in (None, 1) else [f"guidance {drawing['guidance']:g}"]
            assert drawing["chosen"] == ", ".join(words)
            assert alt.endswith(drawing["chosen"])
            seen.add(uri)
    assert len(seen) == len(choices) + 2  # all of them differ
    text = page.read_text("utf-8")
    named = [(str(number), name) for number, name in enumerate(NAMES)]
    assert re.findall(r'<option value="(\d*)">([^<]+)<', text) == [("", "all classes"), *named]


def test_a_sample_s_scores_are_the_models_own_and_who_has_none_is_absent(told: Told) -> None:
    page, models = told
    usual = ask(DigitsDataModule(), 0).usual
    scorers = {name: model.anomaly_score for name, model in models.items() if name != "mute"}
    of_usual = {name: score(usual) for name, score in scorers.items()}
    for name, drawings in data_in(page).items():
        for drawing in drawings[:1] + drawings[-1:]:
            x = drawn_by(models[name], drawing)
            assert [by["name"] for by in drawing["scores"]] == ["vae", "flow"]
            for by in drawing["scores"]:
                assert len(by["scores"]) == len(by["odder"]) == len(x)
                for i in (0, len(x) - 1):
                    score = scorers[by["name"]](x[i : i + 1])  # by itself, not in a batch
                    assert float(by["scores"][i]) == pytest.approx(float(score), rel=1e-3)
                    less = sum(float(score > other) for other in of_usual[by["name"]]) / USUAL
                    assert abs(by["odder"][i] - 100 * less) <= 1  # and half a percent for each equal one


def test_beside_each_sample_is_the_training_image_nearest_to_it(told: Told) -> None:
    page, models = told
    data = DigitsDataModule()
    data.prepare_data()
    data.setup("fit")
    training = torch.cat(list(Rows(data, "train")))
    for name, drawings in data_in(page).items():
        for drawing in drawings[:1] + drawings[-1:]:
            x, beside = drawn_by(models[name], drawing), images_in(drawing["nearest"], drawing["columns"])
            for one, other in zip(x, beside, strict=True):
                distances = (training - one).square().flatten(1).sum(1)  # on a grid of 1/16, so exact
                assert float((other - one).square().sum()) == float(distances.min())
                assert bool((training == other).flatten(1).all(1).any())


def test_many_classes_are_not_all_drawn_and_it_is_said_how_many_are_not(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = GAN((1, 8, 8), 17, network="mlp", width=8, depth=1, num_classes=30, conditional=True)
    model.count_classes(torch.arange(1, 29))  # the first class and the last were never seen
    genzoo.publish(model, "tiny/gan", to=tmp_path / "gan", data=DIGITS)
    main(["compare", str(tmp_path / "gan"), "--out", str(tmp_path / "p.html"), "--device", "cpu"])
    drawings = data_in(tmp_path / "p.html")["gan"]
    assert [(d["label"], d["guidance"]) for d in drawings] == [(label, None) for label in (None, *range(1, 21))]
    text = (tmp_path / "p.html").read_text("utf-8")
    assert "<option disabled>and 8 more</option>" in text and '<option value="20">class 20</option>' in text
    assert '<input type="range" min="0" max' not in text.replace('id="progress" ', "id")  # no guidance
    assert "Here one model gives its answers" in re.sub(r"\s+", " ", text)


def test_a_model_of_two_stages_is_guided_as_its_prior_is() -> None:
    vectors = partial(VAE, network="spatial", latent_dim=2, width=4)
    flow = partial(FlowMatching, width=8, guidance=3.0)
    model = LatentModel((1, 8, 8), 17, autoencoder=vectors, prior=flow, num_classes=2, conditional=True)
    guidances = (3.0, *GUIDANCES)  # its own first
    assert choices(model) == [Choice(label, guidance) for guidance in guidances for label in (None, 0, 1)]


# ---- its parts


@pytest.mark.parametrize("number", range(1, len(FAMILIES) + 3))
def test_the_title_counts_the_families(number: int) -> None:
    """Those of the zoo, those of one's own, and should there ever be more."""
    (title,) = re.findall("<h1>.*</h1>", (files("genzoo.compare") / "page.html").read_text("utf-8"))
    said = jinja2.Template(title).render(families=[None] * number)
    assert re.fullmatch(r"<h1>One question, \w+ ways?</h1>", said)


def test_families_are_told_by_where_a_class_comes_from() -> None:
    class Mine(VAE):
        pass

    model = Mine((1, 4, 4), 2, latent_dim=2, network="mlp", width=8, depth=1)
    assert family_of(model).key == "latent" and family_of(torch.nn.Linear(1, 1)) is OTHER
    assert capabilities_of(model) == {"samples", "log_prob", "anomalies", "completes", "latents", "interpolates"}
    keys = {cls.__name__: family_of(cls.__new__(cls)).key for cls, *_ in ZOO}
    assert "other" not in keys.values()
    assert (keys["FlowMatching"], keys["MaskedDiffusion"], keys["LatentModel"]) == (
        "diffusion",
        "masked",
        "two-stage",
    )
    for family in (*FAMILIES, OTHER):
        assert set(family.lacks) <= {c.key for c in CAPABILITIES}
        assert all(why_not(family, c.key, kind).endswith(".") for c in CAPABILITIES for kind in WORDS)
        for sentence in (family.idea, family.tractability, family.quality, family.stability):
            assert "image" not in said(sentence, "points") and "{" not in said(sentence, "points")


def test_a_sheet_holds_every_pixel_and_leaves_out_what_is_unknown() -> None:
    x = torch.rand(2, 3, 1, 4, 5, generator=torch.Generator().manual_seed(0))
    known = half_known(x.flatten(0, 1), 0)
    pixels = sheet(x, known, zoom=3)
    assert pixels.shape == (2 * 12 + 2, 3 * 15 + 4, 2)
    tile = pixels[14:26, 17:32]
    assert torch.equal(tile[1::3, 1::3, 0], (x[1, 1, 0] * 255).round().byte())
    assert bool((tile[:6, :, 1] == 255).all()) and bool((tile[6:, :, 1] == 0).all())
    assert bool((pixels[12:14, :, 1] == 0).all())  # the gap
    image = Image.open(io.BytesIO(base64.b64decode(png(pixels).partition(",")[2])))
    assert image.mode == "LA" and image.size == (49, 26)


def test_ink_lies_where_the_points_are() -> None:
    window = (torch.zeros(2), torch.ones(()))
    picture = ink(torch.tensor([[0.5, 0.5]]).repeat(9, 1), window, size=40)
    rows, columns = picture[..., 1].nonzero(as_tuple=True)
    assert rows.max() < 20 and columns.min() > 20  # above and to the right


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 28, 26), (1, 36, 36), (3, 64, 40), (3, 96, 33), (1, 130, 128)])
def test_the_film_of_a_training_is_cut_into_its_images(shape: tuple[int, ...]) -> None:
    """Those of large images are smaller than the images."""
    x = torch.rand(3 * 8, *shape, generator=torch.Generator().manual_seed(0))
    shown = smaller(x)
    picture = render(shown, columns=8)
    assert isinstance(picture, Picture)
    pixels = picture.pixels.permute(2, 0, 1)[: shape[0]] / 255
    tiles = _tiles(pixels, 3, *frame_size(*shape[1:]))
    torch.testing.assert_close(tiles, shown.view(3, 8, *shown.shape[1:]), atol=0.5 / 255 + 1e-6, rtol=0)


def test_images_are_drawn_as_they_are() -> None:
    """In whatever range they come; and what is no white ink on black is turned round by no page."""
    digits = ask(DigitsDataModule(), 0)
    assert digits.inked and torch.equal(digits.shown(digits.real), digits.real)
    tanh = replace(digits, real=2 * digits.real - 1, value_range=(-1.0, 1.0))
    assert tanh.inked
    torch.testing.assert_close(tanh.shown(tanh.real), digits.real)
    scans = replace(digits, real=1 - digits.real)
    assert not scans.inked and torch.equal(scans.shown(scans.real), scans.real.expand(-1, 3, -1, -1))
    assert not picture(scans.real, scans, "").grey and picture(digits.real, digits, "").grey
    drawn: list[Any] = [
        SimpleNamespace(family=SimpleNamespace(key=str(key)), question=asked, drawn=list(asked.real[:8]))
        for key, asked in enumerate((digits, scans))
    ]
    for exhibits, grey in ((drawn, False), (drawn[:1], True), (drawn[1:], False)):
        banner = Exhibition("", "image", "cpu", 0, exhibits, [], []).banner
        assert banner is not None and banner.grey == grey
    word = [word for word, _ in show(scans, "scans", "").odd]
    assert "dark" in word and "faint" not in word and "faint" in [word for word, _ in show(digits, "", "").odd]


def test_a_model_that_draws_no_numbers_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    model = VAE((1, 8, 8), 17, latent_dim=2, network="mlp", width=8, depth=1)
    monkeypatch.setattr(
        VAE, "sample", lambda self, num_samples, *, generator=None: torch.full((num_samples, 1, 8, 8), torch.nan)
    )
    with pytest.raises(ValueError, match="runs/mine draws images that hold NaN or infinite values: leave it out"):
        list(samples.drawings(model, ask(DigitsDataModule(), 0), "runs/mine", 0))


def test_a_model_is_called_by_where_it_lies_in_whole() -> None:
    def short(*names: str) -> list[str]:
        exhibits: list[Any] = [SimpleNamespace(name=name) for name in names]
        page = Exhibition("", "image", "cpu", 0, exhibits, [], [])
        return [page.short(exhibit) for exhibit in exhibits]

    assert short("mnist/vae", "mnist/gan") == ["vae", "gan"]
    assert short("mnist/vae", "digits/vae") == ["mnist/vae", "digits/vae"]
    for places in (("/home/u/a/entry", "/home/u/b/entry"), ("hf://a/vae", "hf://b/vae")):
        assert short(*places) == list(places)


def test_the_question_is_the_same_for_the_same_images() -> None:
    grey, binary = ask(DigitsDataModule(), 0), ask(DigitsDataModule(binarize="threshold", batch_size=7), 0)
    assert torch.equal((grey.begun > 0.5).float(), binary.begun) and grey.levels == 17 and binary.levels == 2
    assert [made for made, _ in grey.odd] == ["usual"] * 3 + [
        n for n in ("faint", "erased", "flipped", "shuffled") for _ in "ab"
    ]
    small = ask(FewDigits(), 0)  # begins again
    assert len(small.real) == SAMPLES and len(small.usual) == USUAL and len(small.pairs[1]) == 4
    assert picture(small.real, small, "").height == picture(grey.real, grey, "").height
    assert len(grey.usual) == 200 and not torch.equal(ask(DigitsDataModule(), 1).begun, grey.begun)


def test_figures_are_written_with_what_they_are() -> None:
    by_key = {column.key: column for column in COLUMNS}
    figures = {
        "nll": figure("nll", 81.3288, kind="lower_bound"),
        "auroc_faint": figure("auroc_faint", 0.97281, floor=0.5),
    }
    assert by_key["nll"].text(figures) == "≤ 81.33" and by_key["auroc_faint"].text(figures) == "97.3"
    assert by_key["auroc_faint"].floor(figures) == "50" and by_key["frechet"].text(figures) == "–"
    assert by_key["parameters"].write(314916) == "314,916" and by_key["frechet"].write(1234.5) == "1,234"
    assert [by_key["frechet"].write(number) for number in (999.4, 999.5, 999.97, 1000.4)] == [
        "999",
        "1,000",
        "1,000",
        "1,000",
    ]
    assert [column.key for column in columns_of([figures, {}])] == ["nll", "auroc_faint"]
    assert by_key["nll"].error({"nll": figure("nll", 9.0, standard_error=234.1)}) == " ± 234"
    assert by_key["nll"].error({"nll": figure("nll", 9.0, standard_error=0.0123)}) == " ± 0.01"
    spread = figure("auroc_faint", 1.0, floor=0.25, floor_standard_error=0.021)
    assert by_key["auroc_faint"].floor({"auroc_faint": spread}) == "25 ± 2"
    other = {"auroc_faint": figure("auroc_faint", 1.0, floor=0.25)}
    assert floors(by_key["auroc_faint"], [figures, {}, figures]) == "50"
    assert floors(by_key["auroc_faint"], [figures, other]) == "25 / 50" and floors(by_key["nll"], [figures]) == ""


def test_figures_compare_if_they_were_measured_in_one_way() -> None:
    by_key = {column.key: column for column in COLUMNS}
    how = {
        "split": "test",
        "protocol": "features of c (1), 50 samples of classes drawn evenly, seed 0, against 9 data",
    }
    one = {name: figure(name, 1.0, **how) for name in ("frechet", "nll", "sampling_time")}
    for key, changed, compares in (
        ("frechet", {"protocol": "features of c (1), 50 samples, seed 0, against 9 data"}, True),
        ("frechet", {"protocol": how["protocol"].replace("50", "60")}, False),
        ("frechet", {"protocol": how["protocol"].replace("c (1)", "d (2)")}, False),
        ("nll", {"protocol": "exact", "num_examples": 7}, True),
        ("nll", {"split": "train"}, False),
        ("sampling_time", {"protocol": "on another machine"}, False),
    ):
        other = {key: one[key] | {"value": 2.0} | changed}
        assert by_key[key].compares([one, other, {}]) == compares, (key, changed)
        assert best_of(by_key[key], [one, other]) == (1.0 if compares else None)


# ---- in a browser


@pytest.fixture
def opened(browser) -> Iterator[Callable[..., Any]]:
    """Opens a page without a network; in the end nothing has complained."""
    complaints: list[str] = []

    def open_page(page: Path, **options):
        tab = browser.new_page(offline=True, **options)
        tab.on(
            "console",
            lambda message: complaints.append(message.text) if message.type in ("error", "warning") else None,
        )
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.on(
            "request",
            lambda request: complaints.append(request.url) if request.url[:5] not in ("file:", "data:") else None,
        )
        tab.goto(page.as_uri())
        tab.wait_for_function("films.every(film => film.strip.complete)")
        return tab

    yield open_page
    assert complaints == []


PHONE = {"viewport": {"width": 390, "height": 844}, "color_scheme": "light", "reduced_motion": "reduce"}


def test_a_sample_is_looked_at_closely_by_keyboard_alone(told: Told, opened) -> None:
    page, models = told
    tab = opened(page, **PHONE)
    drawing = data_in(page)["vae"][0]
    x, beside = drawn_by(models["vae"], drawing), images_in(drawing["nearest"], 6)
    buttons = tab.locator("figure", has=tab.locator("strong", has_text="vae")).first.locator(".pick button")
    assert buttons.count() == SAMPLES
    buttons.first.focus()
    assert tab.locator(".pick:visible button[tabindex='0']").count() == 3  # Tab comes to each model once
    for key in ("ArrowDown", "ArrowRight", "ArrowRight", "ArrowLeft", "ArrowUp", "ArrowUp", "ArrowDown"):
        tab.keyboard.press(key)  # to the second row's second; there is nothing above the first row
    for key in ("Enter", "Space"):
        tab.keyboard.press(key)
        closer = tab.get_by_role("dialog", name="Sample 8 of vae")
        closer.wait_for()
        for label, images in (("the sample", x), ("its nearest training image", beside)):
            uri = closer.get_by_label(label, exact=True).evaluate("canvas => canvas.toDataURL()")
            assert torch.equal(images_in(uri, 1), images[7:8])
        rows = [row.locator("th, td").all_inner_texts() for row in closer.locator("tbody tr").all()]
        own = {"vae": "vae (drew it)"}
        assert rows == [
            [own.get(by["name"], by["name"]), by["scores"][7], f"{by['odder'][7]} %"] for by in drawing["scores"]
        ]
        assert "the higher the score, the odder" in closer.inner_text()
        box = closer.bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= 390 and box["y"] >= 0 and box["y"] + box["height"] <= 844
        assert closer.evaluate("dialog => dialog.scrollWidth <= dialog.clientWidth")
        tab.keyboard.press("Escape")
        closer.wait_for(state="hidden")
        assert buttons.nth(7).evaluate("button => button === document.activeElement")
    buttons.nth(35).click()
    tab.get_by_role("dialog", name="Sample 36 of vae").get_by_role("button", name="Close").click()
    assert buttons.nth(35).evaluate("button => button === document.activeElement")
    buttons.nth(0).click()
    tab.mouse.click(195, 2)  # beside it
    tab.get_by_role("dialog").wait_for(state="hidden")
    tab.close()


def test_class_and_guidance_are_chosen(told: Told, opened) -> None:
    page, models = told
    tab = opened(page, **PHONE)
    figure = tab.locator("#samples figure", has=tab.locator("select"))
    assert figure.count() == 1
    shown = figure.locator("img:visible")
    assert shown.get_attribute("alt") == "tiny/flow: samples"
    figure.get_by_role("combobox", name="class").select_option("a three")
    assert shown.get_attribute("alt") == "tiny/flow: samples of a three"
    guidance = figure.get_by_role("slider")
    guidance.press("ArrowRight")
    assert guidance.get_attribute("aria-valuetext") == "2" and figure.locator("output").inner_text() == "2"
    assert shown.count() == 1 and shown.get_attribute("alt") == "tiny/flow: samples of a three, guidance 2"
    figure.locator(".pick:visible button").last.press("Enter")
    closer = tab.get_by_role("dialog", name="Sample 4 of flow: a three, guidance 2")
    uri = closer.get_by_label("the sample", exact=True).evaluate("canvas => canvas.toDataURL()")
    options = {"labels": torch.full((EACH,), 3), "guidance": 2.0, "generator": torch.Generator().manual_seed(0)}
    assert torch.equal(images_in(uri, 1), models["flow"].sample(EACH, **options)[3:])
    tab.close()


def test_guidance_ascends_and_begins_with_the_model_s_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opened
) -> None:
    few_steps(monkeypatch, flow=FlowMatching.flow_steps, steps=3, repeats=1)
    torch.manual_seed(0)
    model = FlowMatching((2,), None, width=8, steps=3, num_classes=2, conditional=True, guidance=2.0)
    genzoo.publish(model, "tiny/flow", to=tmp_path / "flow", data=POINTS)
    main(["compare", str(tmp_path / "flow"), "--out", str(tmp_path / "p.html"), "--device", "cpu"])
    tab = opened(tmp_path / "p.html", **PHONE)
    guidance = tab.locator("#samples").get_by_role("slider")
    shown = tab.locator("#samples figure[data-drawn] img:visible")
    seen = [(guidance.get_attribute("aria-valuetext"), shown.get_attribute("alt"))]
    for key in ("Home", "ArrowRight", "ArrowRight"):
        guidance.press(key)
        seen.append((guidance.get_attribute("aria-valuetext"), shown.get_attribute("alt")))
    one, two, four = (f"tiny/flow: samples{chosen}" for chosen in ("", " of guidance 2", " of guidance 4"))
    assert seen == [("2", two), ("1", one), ("2", two), ("4", four)]
    tab.close()


def test_the_half_that_a_browser_remembers_is_shown(page: Path, tmp_path: Path, opened) -> None:
    """As Firefox does when a page is loaded again, without an event."""
    text = page.read_text("utf-8")
    first, second = re.findall('<input type="radio"[^>]*>', text)
    text = text.replace(first, first.replace("checked", "")).replace(second, second.replace(">", "checked>"))
    (tmp_path / "again.html").write_text(text, "utf-8")
    tab = opened(tmp_path / "again.html", **PHONE)
    assert tab.get_by_label("the left half").is_checked()
    assert tab.locator("#completions div[data-half='0']:visible").count() == 0
    assert tab.locator("#completions div[data-half='1']:visible").count() == 4
    tab.close()


def test_the_quiz_is_about_real_and_drawn_images_of_one_task(tmp_path: Path, opened) -> None:
    """Or else the levels would tell them apart."""
    torch.manual_seed(0)
    for name, levels, how in (("grey", 17, "none"), ("black", 2, "threshold")):
        model = VAE((1, 8, 8), levels, latent_dim=2, network="mlp", width=8, depth=1)
        block = {**DIGITS, "init_args": {"binarize": how}}
        genzoo.publish(model, f"tiny/{name}", to=tmp_path / name, data=block)
    names = [str(tmp_path / name) for name in ("grey", "black")]
    main(["compare", *names, "--out", str(tmp_path / "p.html"), "--device", "cpu"])
    (stated,) = re.findall('id="quiz-data">(.*?)</script>', (tmp_path / "p.html").read_text("utf-8"))
    pool = json.loads(stated)
    drawn = [one for one in pool if one["family"] != "real"]
    assert {one["name"]: one["task"] for one in drawn} == {
        "grey": "Digits, 17 levels, 8×8",
        "black": "Digits, binary (threshold), 8×8",
    }
    for one in pool:
        levels = set(images_in(one["uri"], 1).unique().tolist())
        assert (levels <= {0.0, 1.0}) == ("binary" in one["task"])
    tab = opened(tmp_path / "p.html", **PHONE)
    for place, beside in enumerate(drawn):  # which is what chance is made to fall on, and then on a real one
        chance = [(place + 0.5) / len(drawn), 0, 0]
        tab.evaluate("chance => { Math.random = () => chance.shift(); }", chance)
        tab.locator("[data-answer=real]").click()
        uri = tab.locator("#quiz-image").get_attribute("src")
        (asked,) = [one for one in pool if one["uri"] == uri]
        assert (asked["family"], asked["task"]) == ("real", beside["task"])
    tab.close()


def test_no_tile_stands_alone_and_on_a_phone_what_is_odd_is_readable(page: Path, told: Told, opened) -> None:
    rows_of_galleries = """() => [null, ...document.querySelectorAll("[data-toggle]")].flatMap(toggle => {
        toggle?.click();  // without one family, then without two, and so on; and the second time back
        return [...document.querySelectorAll(".gallery")].map(gallery => {
            const rows = {};
            for (const tile of gallery.children) {
                const box = tile.getBoundingClientRect();
                if (box.width) (rows[Math.round(box.top)] ??= []).push(box.width / gallery.clientWidth);
            }
            return Object.values(rows);
        });
    })"""
    for file in (page, told[0]):
        tab = opened(file, **PHONE)
        for width in (1100, 800, 390):
            tab.set_viewport_size({"width": width, "height": 844})
            found = [rows for rows in tab.evaluate(rows_of_galleries) if sum(map(len, rows)) > 1]
            assert len(found) > 3
            for rows in found:
                assert len(rows[-1]) > 1 or rows[-1][0] > 0.9
                assert width > 390 or all(sum(row) > 0.9 for row in rows)
    table = tab.locator("table.odd")
    assert table.evaluate("table => table.scrollWidth <= table.parentElement.clientWidth")
    cells = table.evaluate("""table => [...table.querySelectorAll("td, th")].map(
        cell => [cell.scrollWidth <= cell.clientWidth, parseFloat(getComputedStyle(cell).fontSize)])""")
    assert len(cells) > 40 and all(fits and size >= 11 for fits, size in cells)
    assert min(table.evaluate("table => [...table.querySelectorAll('img')].map(img => img.clientWidth)")) >= 20
    tab.close()


def test_however_many_tiles_there_are_the_last_row_is_as_good_as_full(page: Path, opened) -> None:
    tab = opened(page, **PHONE)
    filled = """([kind, count]) => {
        const gallery = [...document.querySelectorAll(".gallery")].find(g => g.matches(".wide") == (kind == "wide"));
        const one = gallery.lastElementChild;
        gallery.replaceChildren(...Array.from({length: count}, () => one.cloneNode(true)));
        const boxes = [...gallery.children].map(tile => tile.getBoundingClientRect());
        const last = boxes.filter(box => box.top == boxes.at(-1).top), all = gallery.getBoundingClientRect();
        return [(last.at(-1).right - all.left) / all.width, new Set(boxes.map(box => box.top)).size];
    }"""
    for width in (1100, 800, 390):
        tab.set_viewport_size({"width": width, "height": 844})
        for kind in ("narrow", "wide"):
            for count in range(1, 20):
                reaches, rows = tab.evaluate(filled, [kind, count])
                assert rows == 1 or reaches > 0.59, (width, kind, count)
    tab.close()


def test_a_name_of_any_length_stands_unbroken_above_its_scores_on_a_phone(page: Path, opened) -> None:
    tab = opened(page, **PHONE)
    renamed = """() => [...document.querySelectorAll("table.odd tbody th")].map(th => {
        th.textContent = "runs/experiments/flow-matching-of-mine";
        const range = document.createRange();
        range.selectNodeContents(th);
        return range.getClientRects().length;
    })"""
    shown = [lines for lines in tab.evaluate(renamed) if lines]
    assert shown == [1] * 3
    table = tab.locator("table.odd")
    assert table.evaluate("table => table.scrollWidth <= table.parentElement.clientWidth")
    tab.set_viewport_size({"width": 1100, "height": 844})
    assert tab.locator("table.odd tbody th:visible").count() == 3  # beside them
    tab.close()


def test_two_models_of_one_name_are_told_apart_in_a_sentence(tmp_path: Path) -> None:
    copy = shutil.copytree(hub.find("digits/gan").path, tmp_path / "entry")
    main(["compare", "digits/gan", str(copy), "--out", str(tmp_path / "page.html"), "--device", "cpu"])
    said = html.unescape(" ".join(re.sub("<[^>]+>", "", (tmp_path / "page.html").read_text("utf-8")).split()))
    assert "2 models are named digits/gan, so each is called by where it lies: digits/gan is the zoo's own," in said
    assert f"{copy} is the one there." in said


def test_where_nothing_is_drawn_there_is_no_quiz_and_nothing_to_look_at(zoo: Path, opened) -> None:
    main(["compare", str(zoo / "ae"), "--out", str(zoo / "alone.html"), "--device", "cpu"])
    tab = opened(zoo / "alone.html", **PHONE)
    assert tab.locator("#quiz, dialog, .pick").count() == 0
    assert "no distribution of codes was fitted" in tab.locator("#samples").inner_text()
    assert "never seen" not in tab.locator("#samples").inner_text()
    tab.close()


def test_it_works_in_a_browser_on_a_phone_by_keyboard_in_light_and_dark(page: Path, opened) -> None:
    # without motion nothing moves by itself, and everything is at its end
    tab = opened(page, reduced_motion="reduce", color_scheme="light")
    assert tab.locator("#play").inner_text() == "Play" and tab.locator("#progress").input_value() == "1000"
    assert tab.locator("canvas.film").count() == 3
    drawn = "canvas => canvas.toDataURL()"
    film = tab.locator("canvas.film").first
    last = film.evaluate(drawn)
    assert last != tab.locator("canvas.film").nth(1).evaluate(drawn)

    # the quiz counts, and goes on to another image
    tab.locator("[data-answer=real]").click()
    assert tab.locator("#quiz-verdict").inner_text().startswith(("Right. It is real.", "Wrong. It was drawn by "))
    for _ in range(20):
        tab.locator("[data-answer=drawn]").click()
    told = re.findall(r"(\d+) of (\d+)", tab.locator("#quiz-score").inner_text())
    assert sum(int(of) for _, of in told) == 21 and 0 < sum(int(right) for right, _ in told) < 21
    assert tab.locator(".banner img").bounding_box()["y"] < 844  # above the fold

    # step by step, by keyboard alone
    tab.locator("#back").focus()
    for _ in range(5):
        tab.keyboard.press("Enter")
    assert tab.locator("[data-moment]").first.inner_text() == "59 of 64 dimensions drawn"
    tab.locator("#forth").press("Space")
    assert tab.locator("[data-moment]").first.inner_text() == "60 of 64 dimensions drawn"
    tab.locator("#progress").focus()
    tab.keyboard.press("Home")
    assert tab.locator("[data-moment]").first.inner_text() == "1 of 64 dimensions drawn"
    assert film.evaluate(drawn) != last
    tab.locator("#play").click()
    assert tab.locator("#play").inner_text() == "Pause"
    tab.wait_for_function("Number(document.querySelector('#progress').value) > 20")
    tab.locator("#play").click()
    assert tab.locator("#play").inner_text() == "Play"

    # the other half
    assert tab.locator("#completions div[data-half='0']:visible").count() == 4
    tab.get_by_label("the left half").check()
    assert tab.locator("#completions div[data-half='0']:visible").count() == 0
    assert tab.locator("#completions div[data-half='1']:visible").count() == 4

    # sorted by a column's head: the best first, then the other way round; what was not measured comes last
    head = tab.locator("#table thead th", has_text="nats")
    names = lambda: tab.locator("#table tbody th").all_inner_texts()  # noqa: E731
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "ascending" and names() == ["made", "vae", "ae"]
    head.get_by_role("button").press("Enter")
    assert head.get_attribute("aria-sort") == "descending" and names() == ["vae", "made", "ae"]
    tab.locator("#table thead th", has_text="Fréchet").get_by_role("button").click()
    assert names() == ["made", "ae", "vae"] and head.get_attribute("aria-sort") == "none"
    recall = tab.locator("#table thead th", has_text="recall").get_by_role("button")
    for order in (["made", "vae", "ae"], ["vae", "made", "ae"]):  # no more has a place what is no number
        recall.click()
        assert names() == order
    assert sorted(tab.locator("#table td.best").all_inner_texts()) == ["20", "50", "90"]

    # a family can be left out
    toggle = tab.get_by_role("button", name="Autoregressive")
    toggle.click()
    assert toggle.get_attribute("aria-pressed") == "false"
    assert sorted(tab.locator("#table tbody tr:visible th").all_inner_texts()) == ["ae", "vae"]
    toggle.click()
    for summary in tab.locator("summary").all():
        summary.click()
    tab.close()

    # with motion the films begin by themselves once they are seen
    tab = opened(page, color_scheme="dark")
    paper = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    tab.locator("#process").scroll_into_view_if_needed()
    tab.wait_for_function("document.querySelector('#play').textContent === 'Pause'")
    tab.close()

    # on a phone nothing stands out of the page to the right
    tab = opened(page, viewport={"width": 360, "height": 740}, color_scheme="light", reduced_motion="reduce")
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") != paper
    assert tab.evaluate("document.documentElement.scrollWidth") == 360
    assert all(box["width"] <= 330 for box in (f.bounding_box() for f in tab.locator("figure").all()) if box)
    tab.close()
