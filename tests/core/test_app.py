"""The app: in a real browser, with the mouse; and its answers, by themselves."""

import math
import re
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from socket import socket
from subprocess import Popen
from types import SimpleNamespace
from typing import Any
from urllib.request import urlopen

import gradio
import pytest
import torch
from PIL import Image, ImageDraw
from playwright.sync_api import Browser, Page
from running import a_port

import genzoo
from genzoo.app import STYLE, answers, build
from genzoo.app.answers import Shown, data_of
from genzoo.cli import main
from genzoo.zoo import (
    FSQ,
    GAN,
    GPT,
    VAE,
    FlowMatching,
    LatentModel,
    MaskedDiffusion,
    QuantisedAutoencoder,
    WaveNet,
)
from genzoo.zoo.media import SAMPLE_RATE
from genzoo.zoo.modality import to_grid

DIGITS = ["digits/vae", "digits/pixelcnn", "digits/gan"]


def shown(*names: str) -> list[Shown]:
    return [Shown(name, genzoo.load(name)) for name in names]


def painted(box: tuple[int, ...], paper: str = "white", paint: str = "black") -> dict[str, Any]:
    """What the editor gives for a stroke on an empty sheet."""
    sheet = answers.blank(paper)["background"]
    layer = Image.new("RGBA", sheet.size)
    ImageDraw.Draw(layer).rectangle(box, fill=paint)
    composite = sheet.convert("RGBA")
    composite.alpha_composite(layer)
    return {"background": sheet, "layers": [layer], "composite": composite}


@pytest.fixture(scope="module")
def page(browser: Browser) -> Iterator[tuple[Page, list[str]]]:
    """The app in Chromium, with completions that take little time, and what its console complains of."""
    patch = pytest.MonkeyPatch()
    patch.setattr(VAE, "completion_sweeps", 4)
    patch.setattr(GAN, "inversion_pool", 8)
    patch.setattr(GAN, "inversion_steps", 2)
    app = build(shown(*DIGITS))
    _, address, _ = app.launch(server_name="127.0.0.1", quiet=True, css=STYLE, prevent_thread_lock=True)
    errors: list[str] = []
    page = browser.new_page(viewport={"width": 1200, "height": 1000})
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.set_default_timeout(120_000)  # of a busy machine
    page.goto(address)
    page.wait_for_selector("#canvas canvas")
    yield page, errors
    page.close()
    app.close()
    patch.undo()


def stroke(page: Page, across: float, top: float, bottom: float) -> None:
    box = page.query_selector("#canvas canvas").bounding_box()
    x, y, height = box["x"] + box["width"] * across, box["y"], box["height"]
    page.mouse.move(x, y + top * height)
    page.mouse.down()
    for i in range(1, 11):
        page.mouse.move(x, y + (top + (bottom - top) * i / 10) * height)
    page.mouse.up()


def row(page: Page, name: str) -> str:
    """What stands in the row of a model."""
    found = page.locator("#answers tr", has=page.locator(f"th:text-is('{name}')"))
    return str(found.inner_html()) if found.count() else ""


def colour(page: Page, number: int) -> None:
    """Takes another of the brush's colours; the last makes holes."""
    page.click("#canvas [aria-label='Color']")
    page.locator("#canvas button.color").nth(number).click()
    page.click("#canvas [aria-label='Brush']")  # the palette is put away


CHANGED = "old => !document.querySelector('#answers').innerHTML.includes(old)"


def test_a_stroke_changes_what_the_models_say_and_a_hole_is_filled_in(page: tuple[Page, list[str]]) -> None:
    browser, errors = page
    browser.wait_for_timeout(1000)  # the sheet is laid out
    stroke(browser, 0.5, 0.3, 0.7)
    browser.wait_for_function("document.querySelector('#answers')?.innerText.includes('nats')")
    before = row(browser, "digits/vae")
    assert "log p(x) ≥ " in before and "oddness" in before and "as it renders it" in before
    stroke(browser, 0.45, 0.3, 0.5)
    browser.wait_for_function(CHANGED, arg=re.findall(r"≥ [-\d.]+ nats", before)[0])
    colour(browser, -1)
    stroke(browser, 0.5, 0.5, 0.8)
    browser.wait_for_selector("#answers img[alt=completions]")
    filled = {name: row(browser, name) for name in DIGITS}
    assert all("completions" in cells for cells in filled.values())
    stroke(browser, 0.4, 0.3, 0.8)
    browser.wait_for_function(CHANGED, arg=re.findall(r'src="([^"]+)"', filled["digits/pixelcnn"])[0])
    assert not errors


def test_samples_are_drawn_anew_for_another_seed(page: tuple[Page, list[str]]) -> None:
    browser, errors = page
    browser.get_by_role("tab", name="Sample").click()
    seen = []
    for seed in (0, 1):
        browser.get_by_label("number input for seed").last.fill(str(seed))
        browser.locator("#draw").click()
        browser.wait_for_function(
            "old => { const all = document.querySelectorAll('#samples img');"
            " return all.length == 3 && all[0].src != old }",
            arg=seen[-1] if seen else "",
        )
        seen.append(str(browser.locator("#samples img").first.get_attribute("src")))
    assert seen[0] != seen[1] and not errors


def test_its_address_is_in_a_log_while_it_runs(tmp_path: Path) -> None:
    with socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path / "log"
    with log.open("w") as out:
        app = Popen([sys.executable, "-m", "genzoo", "app", "digits/made", "--port", str(port)], stdout=out)
    try:
        while not log.read_text() and app.poll() is None:
            time.sleep(0.1)
        assert log.read_text() == f"open http://127.0.0.1:{port}/ (Ctrl+C ends it)\n"
        with urlopen(f"http://127.0.0.1:{port}/") as page:
            assert b"genzoo: digits/made" in page.read()
    finally:
        app.terminate()
        app.wait()


def test_what_a_user_can_mend_is_said_on_the_page(browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one line of an error of ours; not that there was one."""
    opened: list[gradio.Blocks] = []
    monkeypatch.setattr(gradio.Blocks, "block_thread", lambda page: opened.append(page))
    main(["app", "shakespeare/gpt", "--port", a_port()])
    try:
        tab = browser.new_page()
        tab.set_default_timeout(120_000)
        tab.goto(opened[0].local_url)
        tab.get_by_role("tab", name="Sample").click()
        tab.get_by_label("prompt").fill("naïve")
        tab.locator("#draw").click()
        said = tab.get_by_test_id("toast-text")
        said.wait_for()
        assert "1 of the text's 5 characters are not in the vocabulary: 'ï'" in said.inner_text()
        tab.close()
    finally:
        opened[0].close()


# ---- the answers


def test_what_is_drawn_is_the_datum_and_pink_is_the_hole() -> None:
    models = shown("digits/vae")
    left = (0, 0, answers.CANVAS // 2 - 1, answers.CANVAS)
    x, known = data_of(painted(left), models)  # black on white is ink
    assert x.shape == (1, 1, 8, 8) and bool((x[..., :4] == 1).all()) and bool((x[..., 4:] == 0).all()) and known.all()
    x, known = data_of(painted(left, paper="black", paint=answers.HOLE), models)
    assert not x[..., :4].any() and bool((x[..., 4:] == 1).all())
    assert not known[..., :4].any() and known[..., 4:].all()
    assert torch.equal(to_grid(data_of(answers.drawn(models, 3), models)[0], 17), genzoo_sample(models, 3))


def genzoo_sample(models: list[Shown], seed: int) -> torch.Tensor:
    return models[0].module.sample(1, generator=torch.Generator().manual_seed(seed))


def test_each_model_answers_what_it_can() -> None:
    models = shown("digits/gan", "digits/made", "digits/vae")
    rows = answers.about(models, painted((150, 50, 200, 300)), 0).split("<tr>")[2:]
    gan, made, vae = rows
    assert "log p(x)" not in gan and "log p(x) " in made and "log p(x) ≥ " in vae
    assert "renders" in vae and "renders" not in made
    walked = answers.walk(models, painted((150, 50, 200, 300)), answers.drawn(models, 1))
    assert re.findall("<th>(.*?)</th>", walked) == ["digits/gan", "digits/vae"]
    drawn = answers.samples(models, "image", {"seed": 0, "steps": 5, "guidance": 2.0, "solver": "its own"})
    assert drawn.count("<img") == 3
    assert answers.walk(models, painted((150, 50, 200, 300)), None) == answers.as_html([])  # of a cleared sheet
    assert answers.walk(models, {"composite": None}, answers.drawn(models, 1)) == answers.as_html([])


def test_each_model_sees_what_is_drawn_in_its_own_levels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever of them comes first."""
    monkeypatch.setattr(answers, "is_ink", lambda models: False)
    fine, coarse = (Shown(str(levels), VAE((1, 8, 8), levels, width=8, depth=1).eval()) for levels in (256, 2))
    grey = painted((150, 50, 200, 300), paint="#808080")

    def said(*models: Shown) -> set[str]:
        return set(re.findall(r"<th>\d+</th>.*?</tr>", answers.about(models, grey, 0)))

    assert said(fine, coarse) == said(coarse, fine) == said(fine) | said(coarse)
    assert len(said(fine, coarse)) == 2


def test_images_of_levels_and_of_none_are_of_one_kind() -> None:
    fine, real = (Shown(str(levels), VAE((1, 8, 8), levels, width=8, depth=1).eval()) for levels in (256, None))
    assert answers.kind_of([fine, real]) == "image"
    assert answers.about([fine, real], painted((150, 50, 200, 300)), 0).count("<tr>") == 3


def test_a_sound_alone_is_drawn() -> None:
    """Gradio takes a list for the values of several components, of which there is one."""
    model = Shown("tiny", SimpleNamespace(modality="waveform", shape=(1, 8), levels=256, sample_rate=8000))
    model.module.sample = lambda num_samples, *, labels=None, generator=None: torch.zeros(num_samples, 1, 8)
    app = build([model])
    (draw,) = (function for function in app.fns.values() if "drawn" in str(function.name))
    rate, sound = draw.fn(0)
    assert rate == 8000 and sound.shape == (8,)


def test_sounds_of_a_model_that_does_not_say_their_rate_are_drawn() -> None:
    small = {"channels": 4, "skip_channels": 4, "dilations": [1, 2]}
    modules = [WaveNet((1, 40), 256, **small), WaveNet((1, 40), 256, **small, sample_rate=8000), GAN((1, 40), 256)]
    found = answers.samples([Shown("tiny", module.eval()) for module in modules], "waveform", {"seed": 0})
    assert [(rate, len(sound)) for rate, sound in found] == [(SAMPLE_RATE, 40), (8000, 40), (SAMPLE_RATE, 40)]


class Beyond:
    """Draws what is a little blacker than black."""

    shape, levels = (1, 8, 8), None

    def sample(self, num_samples: int, *, labels: Any = None, generator: Any = None) -> torch.Tensor:
        return torch.full((num_samples, *self.shape), -0.01)


def test_images_of_no_levels_are_asked_about_as_they_are_drawn() -> None:
    models = [Shown("fine", VAE((1, 8, 8), None, width=8, depth=1).eval())]
    stroke = (150, 50, 200, 300)
    assert "as it renders it" in answers.about(models, painted(stroke), 0)
    assert "completions" in answers.about(models, painted(stroke, paint=answers.HOLE), 0)
    assert "<img" in answers.walk(models, painted(stroke), answers.drawn(models, 1))
    assert answers.drawn([Shown("beyond", Beyond())], 0)["background"].getextrema() == ((255, 255),) * 3  # as ink


def test_a_model_of_two_stages_has_the_controls_of_its_prior_and_no_other() -> None:
    """Also where another model beside it has more."""
    torch.manual_seed(0)
    small = {"shape": (1, 8, 8), "levels": 17}
    codes = partial(QuantisedAutoencoder, quantiser=FSQ((3, 3)), width=4, factor=2)
    by_codes = LatentModel(**small, autoencoder=codes, prior=partial(GPT, width=16, depth=1))
    vectors = partial(VAE, network="spatial", latent_dim=2, width=4)
    flow = partial(FlowMatching, width=8, steps=3, guidance=3.0)
    by_flow = LatentModel(**small, autoencoder=vectors, prior=flow, num_classes=3, conditional=True)
    given = {"seed": 0, "class": 2, "guidance": 2.0, "steps": 2, "solver": "Heun", "temperature": 0.5}
    writes, flows = {"seed", "temperature"}, {"seed", "class", "guidance", "steps", "solver"}
    for modules, controls in [([by_codes], writes), ([by_flow], flows), ([by_codes, by_flow], writes | flows)]:
        app = build([Shown(str(number), module.eval()) for number, module in enumerate(modules)])
        (draw,) = (function for function in app.fns.values() if "drawn" in str(function.name))
        assert {control.label for control in draw.inputs} == controls
        assert {control.value for control in draw.inputs if control.label == "guidance"} <= {3.0}  # its own
        assert draw.fn(*(given[control.label] for control in draw.inputs)).count("<img") == len(modules)


def test_every_model_of_texts_draws_and_who_reads_them_is_surprised() -> None:
    gpt, masked, numbers = (
        family((6,), 4, width=32, depth=1, vocabulary=vocabulary).eval()
        for family, vocabulary in ((GPT, " abc"), (MaskedDiffusion, " abc"), (MaskedDiffusion, None))
    )
    for modules, tabs in [([masked], {"Sample"}), ([masked, gpt], {"Surprise", "Sample"})]:
        models = [Shown(type(module).__name__, module) for module in modules]
        assert {block.label for block in build(models).blocks.values() if isinstance(block, gradio.Tab)} == tabs
        assert answers.samples(models, "tokens", {"seed": 0, "steps": 3}).count("<pre>") == len(models)
    with pytest.raises(ValueError, match="the app shows images, sounds and texts, but numbers is of tokens"):
        build([Shown("numbers", numbers)])


def test_a_text_is_as_red_as_it_is_surprising() -> None:
    models = shown("shakespeare/gpt")
    assert answers.kind_of(models) == "tokens"
    usual, odd = (
        float(re.findall(r"([\d.]+) bits a token", answers.surprise(models, text))[0])
        for text in ("What is the matter with thee, my lord?", "zqxv jkwz vvqz xxjq zzkq qqvx jjz")
    )
    assert usual < 3 < 6 < odd
    (gpt,) = (each.module for each in models)
    nats = gpt.surprisal(gpt.tokens("What is the matter with thee, my lord?"))
    assert usual == pytest.approx(float(nats.mean()) / math.log(2), abs=0.006)
    assert "<pre>KING" in answers.samples(models, "tokens", {"seed": 0, "temperature": 0.5, "prompt": "KING"})


def test_what_cannot_be_shown_is_refused(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for names, says in [
        (["digits/vae", "mnist/vae"], "these have: digits/vae image (1, 8, 8), mnist/vae image (1, 28, 28)"),
        (["points/ddpm"], "the app shows images, sounds and texts, but points/ddpm is of points"),
    ]:
        with pytest.raises(SystemExit):
            main(["app", *names, "--port", a_port()])
        assert says in capsys.readouterr().err
    monkeypatch.setattr("genzoo.commands.app.find_spec", lambda name: None)
    with pytest.raises(SystemExit):
        main(["app", "--port", a_port()])
    assert "pip install 'genzoo[app]'" in capsys.readouterr().err
