"""The page that compares: what is on it, what it says of what a model cannot do, and what it refuses."""

import base64
import io
import re
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from running import refused

import genzoo
from genzoo.cli import main
from genzoo.compare import entries_to_compare
from genzoo.compare.exhibits import _tiles
from genzoo.compare.families import CAPABILITIES, FAMILIES, OTHER, capabilities_of, family_of, why_not
from genzoo.compare.figures import COLUMNS, columns_of, floors
from genzoo.compare.pictures import ink, png, sheet
from genzoo.compare.questions import SAMPLES, USUAL, ask, half_known, picture
from genzoo.datamodules import DigitsDataModule
from genzoo.datamodules.base import Source
from genzoo.zoo import GAN, MADE, VAE, Autoencoder, Classifier
from genzoo.zoo.media import Picture, render

DIGITS = {"class_path": "genzoo.datamodules.DigitsDataModule", "init_args": {}}
POINTS = {
    "class_path": "genzoo.datamodules.PointsDataModule",
    "init_args": {"test_size": 300, "train_size": 500, "val_size": 50},
}
LOCAL = re.compile("file:|data:")
Captured = pytest.CaptureFixture[str]


class FewDigits(DigitsDataModule):
    def load(self, split: str) -> Source:
        return super().load(split).select(torch.arange(7))


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
    assert families["latent"].lacks["samples"] in text  # the autoencoder
    assert families["autoregressive"].lacks["interpolates"] in text
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
        main(["compare", str(zoo / "made"), "--out", str(tmp_path / seed), "--seed", seed, "--device", "cpu"])
    main(["compare", str(zoo / "made"), "--out", str(tmp_path / "again"), "--device", "cpu"])
    assert (tmp_path / "again").read_bytes() == (tmp_path / "0").read_bytes() != (tmp_path / "1").read_bytes()


def test_points_are_shown_as_clouds(tmp_path: Path) -> None:
    torch.manual_seed(0)
    made = MADE(shape=(2,), levels=None, width=16)
    genzoo.publish(made, "points/made", to=tmp_path / "made", data=POINTS)
    main(["compare", str(tmp_path / "made"), "--out", str(tmp_path / "p.html"), "--device", "cpu"])
    text = (tmp_path / "p.html").read_text("utf-8")
    assert '<section id="process"' in text and '<section id="odd"' not in text and "the height" in text


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


# ---- its parts


def test_families_are_told_by_where_a_class_comes_from() -> None:
    class Mine(VAE):
        pass

    model = Mine((1, 4, 4), 2, latent_dim=2, network="mlp", width=8, depth=1)
    assert family_of(model).key == "latent" and family_of(torch.nn.Linear(1, 1)) is OTHER
    assert capabilities_of(model) == {"samples", "log_prob", "anomalies", "completes", "latents", "interpolates"}
    for family in (*FAMILIES, OTHER):
        assert set(family.lacks) <= {c.key for c in CAPABILITIES}
        assert all(why_not(family, c.key).endswith(".") for c in CAPABILITIES)


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


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 28, 26)])
def test_the_film_of_a_training_is_cut_into_its_images(shape: tuple[int, ...]) -> None:
    x = torch.rand(3 * 8, *shape, generator=torch.Generator().manual_seed(0))
    picture = render(x, columns=8)
    assert isinstance(picture, Picture)
    pixels = picture.pixels.permute(2, 0, 1)[: shape[0]] / 255
    tiles = _tiles(pixels, 3, *shape[1:])
    torch.testing.assert_close(tiles, x.view(3, 8, *shape), atol=0.5 / 255 + 1e-6, rtol=0)


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
    assert [column.key for column in columns_of([figures, {}])] == ["nll", "auroc_faint"]
    assert by_key["nll"].error({"nll": figure("nll", 9.0, standard_error=234.1)}) == " ± 234"
    assert by_key["nll"].error({"nll": figure("nll", 9.0, standard_error=0.0123)}) == " ± 0.01"
    spread = figure("auroc_faint", 1.0, floor=0.25, floor_standard_error=0.021)
    assert by_key["auroc_faint"].floor({"auroc_faint": spread}) == "25 ± 2"
    other = {"auroc_faint": figure("auroc_faint", 1.0, floor=0.25)}
    assert floors(by_key["auroc_faint"], [figures, {}, figures]) == "50"
    assert floors(by_key["auroc_faint"], [figures, other]) == "25 / 50" and floors(by_key["nll"], [figures]) == ""


# ---- in a browser


def test_it_works_in_a_browser_on_a_phone_by_keyboard_in_light_and_dark(page: Path, browser) -> None:
    complaints: list[str] = []

    def opened(**options):
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

    # without motion nothing moves by itself, and everything is at its end
    tab = opened(reduced_motion="reduce", color_scheme="light")
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
    tab = opened(color_scheme="dark")
    paper = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    tab.locator("#process").scroll_into_view_if_needed()
    tab.wait_for_function("document.querySelector('#play').textContent === 'Pause'")
    tab.close()

    # on a phone nothing stands out of the page to the right
    tab = opened(viewport={"width": 360, "height": 740}, color_scheme="light", reduced_motion="reduce")
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") != paper
    assert tab.evaluate("document.documentElement.scrollWidth") == 360
    assert all(box["width"] <= 330 for box in (f.bounding_box() for f in tab.locator("figure").all()) if box)
    tab.close()
    assert complaints == []
