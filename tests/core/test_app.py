"""The app: in a real browser, with the mouse; and its answers, by themselves."""

import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from socket import socket
from subprocess import Popen
from types import SimpleNamespace
from typing import Any
from urllib.request import urlopen

import pytest
import torch
from PIL import Image, ImageDraw
from playwright.sync_api import Browser, Page

import genzoo
from genzoo.app import STYLE, answers, build
from genzoo.app.answers import Shown, data_of
from genzoo.cli import main
from genzoo.zoo import VAE
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
    """The app in Chromium, and what its console complains of."""
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


def test_a_sound_alone_is_drawn() -> None:
    """Gradio takes a list for the values of several components, of which there is one."""
    model = Shown("tiny", SimpleNamespace(modality="waveform", shape=(1, 8), levels=256, sample_rate=8000))
    model.module.sample = lambda num_samples, *, labels=None, generator=None: torch.zeros(num_samples, 1, 8)
    app = build([model])
    (draw,) = (function for function in app.fns.values() if "drawn" in str(function.name))
    rate, sound = draw.fn(0)
    assert rate == 8000 and sound.shape == (8,)


def test_a_text_is_as_red_as_it_is_surprising() -> None:
    models = shown("shakespeare/gpt")
    assert answers.kind_of(models) == "tokens"
    usual, odd = (
        float(re.findall(r"([\d.]+) bits a token", answers.surprise(models, text))[0])
        for text in ("What is the matter with thee, my lord?", "zqxv jkwz vvqz xxjq zzkq qqvx jjz")
    )
    assert usual < 3 < 6 < odd
    assert "<pre>KING" in answers.samples(models, "tokens", {"seed": 0, "temperature": 0.5, "prompt": "KING"})


def test_what_cannot_be_shown_is_refused(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for names, says in [
        (["digits/vae", "mnist/vae"], "but these have: digits/vae (1, 8, 8), mnist/vae (1, 28, 28)"),
        (["points/ddpm"], "the app shows images, sounds and texts, but points/ddpm is of points"),
    ]:
        with pytest.raises(SystemExit):
            main(["app", *names])
        assert says in capsys.readouterr().err
    monkeypatch.setattr("genzoo.commands.app.find_spec", lambda name: None)
    with pytest.raises(SystemExit):
        main(["app"])
    assert "pip install 'genzoo[app]'" in capsys.readouterr().err
