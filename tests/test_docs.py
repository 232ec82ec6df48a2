"""What README and docs say is so: their Python runs, their files and commands are accepted."""

import importlib
import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from pkgutil import walk_packages

import numpy as np
import pytest
import torch
from fake_data import write_wav
from PIL import Image
from thorough import some

import genzoo
from genzoo import commands
from genzoo.cli import main

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
#: what takes long: the lessons that train most, which building the docs runs, too, and memory on a cluster
LONG = {"capabilities", "cluster", "codes", "masks"}
FENCE = re.compile(r"^```(\w+)(?: title=\"(.+?)\")?( exec=\"1\"[^\n]*)?\n(.*?)^```$", re.M | re.S)


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@dataclass(frozen=True)
class Block:
    language: str
    file: str | None  # what the page says this block is saved as
    options: str  # of a block that is run when the docs are built: what it prints, pictures too, is part of the page
    text: str


def blocks(page: Path) -> list[Block]:
    found = FENCE.findall(page.read_text("utf-8"))
    return [Block(language, title or None, options, text) for language, title, options, text in found]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder, with the data that the pages speak of; and a Trainer that takes two batches an epoch."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    for option in ("LIMIT_TRAIN_BATCHES", "LIMIT_VAL_BATCHES"):
        monkeypatch.setenv(f"PL_TRAINER_{option}", "2")
    monkeypatch.setenv("PL_TRAINER_ENABLE_PROGRESS_BAR", "False")
    pixels = np.random.default_rng(0).integers(256, size=(100, 16, 16), dtype=np.uint8)
    (tmp_path / "photos").mkdir()
    for i, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / "photos" / f"{i}.png")
    for i in range(24):
        sound = torch.rand(1000, generator=torch.Generator().manual_seed(i)) - 0.5
        write_wav(tmp_path / "recordings" / ("anna", "ben")[i % 2] / f"{i}.wav", sound, 8000)
    (tmp_path / "notes").mkdir()
    for name, lines in (("today", 100), ("gap", 4)):
        (tmp_path / "notes" / f"{name}.md").write_text("- To do: nothing in particular.\n" * lines)
    people = np.random.default_rng(0).normal((170, 40_000, 0), (10, 30_000, 0.01), (200, 3))
    np.savetxt("people.csv", people, delimiter=",", header="height,income,share", comments="")
    np.save("days.npy", np.random.default_rng(0).normal(size=(100, 2, 24)).astype(np.float32))
    for split in ("train", "test"):
        np.save(f"faces_{split}.npy", np.random.default_rng(0).integers(256, size=(100, 3, 32, 32), dtype=np.uint8))
    monkeypatch.setattr("genzoo.zoo.hub.addresses._check_repository", lambda repository: None)  # takes an account
    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.syspath_prepend(ROOT / "docs")
    monkeypatch.setattr("matplotlib.pyplot.show", importlib.import_module("pictures").show)
    before = set(sys.modules)
    yield tmp_path
    for module in set(sys.modules) - before:
        if getattr(sys.modules[module], "__file__", None) and tmp_path in Path(sys.modules[module].__file__).parents:
            del sys.modules[module]


@pytest.mark.parametrize("page", some(PAGES, lambda page: page.stem not in LONG), ids=name_of)
def test_a_page_does_what_it_says(
    page: Path, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if "lessons" not in page.parts:  # where completions are looked at, these are but pictures on the way
        monkeypatch.setattr("genzoo.zoo.VAE.completion_sweeps", 4)
    names: dict[str, object] = {"__name__": "page"}
    for block in blocks(page):
        assert block.language in {"python", "bash", "yaml"} or (block.file or "").endswith(f".{block.language}")
        if block.file:
            (folder / block.file).write_text(block.text)
        elif block.language == "python":
            capsys.readouterr()
            exec(compile(block.text, f"{page.name}: {block.text[:40]!r}", "exec"), names)
            printed = capsys.readouterr().out
            assert bool(block.options) <= bool(printed), "a block of a lesson shows something"
            assert ("plt.show()" in block.text) == ("<img" in printed)
            for caption in re.findall('<img alt="(.*?)"', printed):
                assert re.fullmatch(r"[A-Z].*\.", caption), "a picture's label is a sentence that says what it shows"
        elif block.language == "bash":
            for line in block.text.splitlines():
                words = shlex.split(line, comments=True)
                if words[:1] == ["genzoo"]:
                    accepted(words[1:], capsys)
                elif words[:1] == ["make"]:
                    assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.M), line


def accepted(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """The command is run; or parsed, where it would train for long, or wants data or a run that are not here."""
    config = argv[argv.index("--config") + 1] if "--config" in argv else ""
    if argv[0] in {"fit", "validate", "test", "predict"}:
        with pytest.raises(SystemExit) as ended:
            main(argv if {"--model.help", "--print_config"} & set(argv) else [*argv, "--print_config"])
        assert not ended.value.code, capsys.readouterr().err
        here = Path(config).is_file() or "--data" in argv  # a class of the page's, or emoji
        if here and not {"--ckpt_path", "--from", "--print_config"} & set(argv):
            main([*argv, "--trainer.fast_dev_run=1", "--trainer.accelerator=cpu", "--trainer.logger=false"])
    elif argv[0] in {"--help", "list", "cp"} or can_run(argv) or argv[0] == "export":
        main(argv)
    else:
        commands.parser(argv[0]).parse_args(argv[1:])


def can_run(argv: list[str]) -> bool:
    """Whether it is a question to a small model about data that are here."""
    if argv[0] in {"score", "complete"}:
        return Path(argv[2]).exists() and not argv[1].startswith("runs/")
    return argv[:2] == ["sample", "digits/vae"]


# ---- equations, pictures, exercises


def equations(page: Path) -> list[str]:
    prose = re.sub(r"`[^`]+`", "", re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.M | re.S))
    return [either or other for either, other in re.findall(r"\$\$\n(.+?)\n\$\$|\$([^$]+)\$", prose, re.S)]


@pytest.mark.parametrize("page", PAGES[1:], ids=name_of)
def test_equations_are_set(page: Path) -> None:
    set_ = importlib.import_module("equations").mathml
    for latex in equations(page):
        assert set_(latex).startswith("<math>") and "\n\n" not in latex
    prose = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.M | re.S)
    assert not re.search(r"^ {4}\S.*[=≤~∇]", prose, re.M), "an equation is LaTeX between dollars, not a block of code"


def test_an_equation_becomes_mathml_and_a_mistake_in_one_is_said() -> None:
    """What pymdownx.arithmatex makes of `$a < b$` and of a line of its own; and nothing else is touched."""
    hook = importlib.import_module("equations").on_page_content
    inline = hook(r'<p>is <span class="arithmatex">\(a &lt; b\)</span>, <code>$x$</code></p>')
    letters = "<mi>a</mi><mo>&lt;</mo><mi>b</mi>"
    assert inline == f'<p>is <span class="equation"><math>{letters}</math>,</span> <code>$x$</code></p>'
    block = hook('<div class="arithmatex">\\[\na &lt; b\n\\]</div>')
    assert block == f'<div class="equation"><math display="block">{letters}</math></div>'
    with pytest.raises(ValueError, match=r"the equation .*nonsense.* cannot be set: .*nknown command"):
        hook(r'<span class="arithmatex">\(\nonsense\)</span>')


def test_what_is_said_of_a_picture_is_its_caption() -> None:
    hook = importlib.import_module("pictures").on_page_content
    image = '<img alt="Ten &lt;b&gt; digits." src="front.png" />'
    caption = '<figcaption aria-hidden="true">Ten &lt;b&gt; digits.</figcaption>'
    assert hook(f"<h1>A</h1><p>{image}</p>") == f"<h1>A</h1><figure>{image}{caption}</figure>"
    assert hook(f"<p>In a line: {image}</p>") == f"<p>In a line: {image}</p>"


LESSONS = sorted(set((ROOT / "docs/lessons").glob("*.md")) - {ROOT / "docs/lessons/index.md"})


@pytest.mark.parametrize("page", LESSONS, ids=lambda page: page.stem)
def test_a_lesson_asks_and_answers_by_code_that_runs(page: Path) -> None:
    """That it runs, and that what it asserts is so, is tested with the rest of the page."""
    exercises = page.read_text("utf-8").partition("\n## Exercises\n")[2]
    questions = [int(number) for number in re.findall(r"^\*\*(\d)\. ", exercises, re.M)]
    answers = re.findall(r"^<details markdown>\n<summary>Answer</summary>\n(.+?)^</details>$", exercises, re.M | re.S)
    assert questions in ([1, 2], [1, 2, 3]) and len(answers) == len(questions)
    for answer in answers:
        assert re.search(r'^```python exec="1" .*?^assert |^    assert ', answer, re.M | re.S), answer


# ---- links and the menu


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#\s]+)\)", page.read_text("utf-8")):
            assert target.startswith("https://") or (page.parent / target).exists(), f"{page}: {target}"


def test_every_page_is_in_the_menu() -> None:
    menu = (ROOT / "mkdocs.yml").read_text("utf-8")
    for page in PAGES[1:]:
        assert f"- {page.relative_to(ROOT / 'docs').as_posix()}\n" in menu


# ---- the reference


def shown(path: str) -> set[object]:
    """What mkdocstrings shows for `::: path`: an object, or what is public and defined in a module."""
    try:
        module = importlib.import_module(path)
    except ModuleNotFoundError:
        module_path, _, name = path.rpartition(".")
        return {getattr(importlib.import_module(module_path), name)}
    own = [name for name, value in vars(module).items() if getattr(value, "__module__", None) == path]
    return {getattr(module, name) for name in own if not name.startswith("_")}


def test_every_public_name_is_on_one_page_of_the_reference() -> None:
    pages: dict[object, list[str]] = {}
    for page in (ROOT / "docs/api").rglob("*.md"):
        for path in re.findall(r"^::: (\S+)$", page.read_text("utf-8"), re.M):
            for what in shown(path):
                pages.setdefault(what, []).append(page.name)
    packages = [module.name for module in walk_packages(genzoo.__path__, "genzoo.") if module.ispkg]
    for package in map(importlib.import_module, ["genzoo", *packages]):
        for name in set(getattr(package, "__all__", ())) - {"__version__"}:
            found = pages.get(getattr(package, name), [])
            assert len(found) == 1, f"{package.__name__}.{name} is on {found or 'no page'}"
    assert all(len(found) == 1 for found in pages.values()), "what is shown is shown once"
