"""Which entries answer the same question, by what their configurations say."""

import inspect
from pathlib import Path

import pytest

import genzoo
import genzoo.datamodules
from genzoo.datamodules import DataModule
from genzoo.zoo.hub import by_task
from genzoo.zoo.hub.tasks import ASIDE, OF_FILES, place_of, task_of

SAID = {"name", "source", "binarize", "tokenizer", "pieces", "classes", "noise", "sample_rate", "columns"}
KINDS = {
    name.removesuffix("DataModule"): inspect.signature(cls).parameters
    for name in genzoo.datamodules.__all__
    if inspect.isclass(cls := getattr(genzoo.datamodules, name)) and issubclass(cls, DataModule)
    if not any(p.kind is p.VAR_KEYWORD for p in inspect.signature(cls).parameters.values())  # a base class
}


def task(kind: str, shape: tuple[int, ...], levels: int | None, entry: str = "mine/vae", **arguments: object) -> str:
    block = {"class_path": f"genzoo.datamodules.{kind}DataModule", "init_args": arguments}
    return task_of({"name": entry, "data": block, "shape": list(shape), "levels": levels})


def test_a_task_is_the_data_and_how_they_are_quantised() -> None:
    digits = ("Digits", (1, 8, 8))
    assert task(*digits, 17, binarize="none", classes=None) == "Digits, 17 levels, 8×8"
    assert task(*digits, 17, classes=[3, 7]) == "Digits, 17 levels, 8×8, classes [3, 7]"
    assert task("CIFAR10", (3, 32, 32), 256) == "CIFAR10, 256 levels, 3×32×32"
    assert task("FSDD", (1, 4096), 256, pieces="all") == "FSDD, 256 levels, 4,096 samples, all pieces"
    text = task("Text", (260,), 65, source="shakespeare", tokenizer="character")
    assert text == "shakespeare, 65 levels, 260 tokens, character tokenizer"
    assert task("Points", (2,), None, name="ring", noise=None) == "ring"
    assert task("Points", (2,), None, name="ring", noise=0.1) == "ring, noise 0.1"
    assert task("Table", (13,), None) == "Table, 13 dimensions"
    for channels in (1, 2):
        assert task("Array", (channels, 24), None, "days/dit") == f"days, {channels} series of 24"


def test_the_binarisations_are_different_tasks() -> None:
    found = [task("MNIST", (1, 28, 28), 2, binarize=how) for how in ("static", "dynamic", "threshold")]
    assert found[1] == "MNIST, binary (dynamic), 28×28" and len(set(found)) == 3
    assert task("Bits", (1, 28, 28), 2, binarize="none") == "Bits, binary, 28×28"


@pytest.mark.parametrize("aside", [{"batch_size": 7}, {"seed": 3}, {"val_size": 9}, {"limit": 50}])
def test_how_a_run_read_its_data_is_no_other_task(aside: dict[str, int]) -> None:
    assert task("MNIST", (1, 28, 28), 256, **aside) == "MNIST, 256 levels, 28×28"


def test_what_lies_in_files_of_ones_own_the_entry_s_name_says() -> None:
    assert task("ImageFolder", (3, 64, 64), 256, "faces/vae", size=64) == "faces, 256 levels, 3×64×64"
    assert task("ImageFolder", (3, 64, 64), 256, "cats/vae", size=64) == "cats, 256 levels, 3×64×64"
    table = {"columns": ["height", "income"], "standardise": True, "label": None, "path": "people.csv"}
    assert task("Array", (2,), None, "people/vae", **table) == "people, columns ['height', 'income']"
    assert task_of({"name": "faces/vae", "data": None, "shape": [8], "levels": None}) == "faces, 8 dimensions"


@pytest.mark.parametrize("kind", KINDS)
def test_every_argument_of_a_datamodule_says_what_the_data_are_or_does_not(kind: str) -> None:
    new = KINDS[kind].keys() - SAID - ASIDE
    assert not new, f"does {new} change the task? Say so in hub/tasks.py, or add it to SAID here"
    of_files = "path" in KINDS[kind] or KINDS[kind].keys() >= {"root", "test_fraction"}
    assert of_files == (kind in OF_FILES)


def test_no_task_of_the_zoo_mixes_data() -> None:
    entries = genzoo.list_models()
    tasks = by_task(entries)
    assert sorted(e.name for members in tasks.values() for e in members) == sorted(e.name for e in entries)
    for name, members in tasks.items():
        asked = set()
        for config in (entry.config for entry in members):
            data = config["data"]
            choices = {key: value for key, value in data["init_args"].items() if key in SAID}
            asked.add(repr((data["class_path"], choices, config["levels"], config["shape"])))
        assert len(asked) == 1, name
    names = {name: {entry.name for entry in members} for name, members in tasks.items()}
    assert "mnist/vae" in names["MNIST, binary (dynamic), 28×28"]
    assert "mnist/ddpm" in names["MNIST, 256 levels, 28×28"]


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("books", "books"),
        ("books/**/*.txt", "books"),
        ("books/*/a.txt", "books"),
        (["books/part [1].txt", "other.txt"], "part [1].txt"),  # which there is
        ("books/20[01]?.txt", "books"),
        ("*.txt", "here"),
        ("nowhere/a.txt", "a.txt"),
        ([], None),
    ],
)
def test_data_are_called_after_their_file_or_their_folder(
    path: str | list[str], name: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here/books").mkdir(parents=True)
    (tmp_path / "here/books/part [1].txt").touch()
    monkeypatch.chdir(tmp_path / "here")
    assert place_of({"class_path": "TextDataModule", "init_args": {"path": path}}) == name
