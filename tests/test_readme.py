"""The pictures and figures on the zoo's page are those of the embedded entries."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from genzoo.zoo.hub import Entry, list_models

ROOT = Path(__file__).parent.parent
EMPTY = "".join(f"<!-- entries:{n} --><!-- /entries:{n} -->" for n in ("pictures", "figures"))


@pytest.fixture(scope="module")
def table() -> ModuleType:
    spec = importlib.util.spec_from_file_location("entries_table", ROOT / "docs" / "entries_table.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_shows_the_entries_as_they_are(table: ModuleType) -> None:
    text = (ROOT / "zoo" / "README.md").read_text("utf-8")
    assert text == table.render(text, list_models()), "run `python docs/entries_table.py`"
    assert all(f"[{entry.name}]" in text for entry in list_models())


def test_a_figure_is_shown_with_what_it_means(table: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    nll = {"name": "nll", "value": 85.949, "standard_error": 0.21, "kind": "lower_bound"}
    frechet = {"name": "frechet", "value": 1.5, "floor": 0.1234}
    monkeypatch.setattr(Entry, "metrics", {"figures": [nll, frechet, {"name": "kid", "value": 3}]})
    entries = [Entry(name, ROOT / "zoo/weights" / name) for name in ("mnist/vae", "mnist/ddpm", "mnist/iwae")]
    shown = table.render(EMPTY, entries)
    head = ["| entry | nats | Fréchet |", "| --- | --: | --: |"]

    def row(entry: Entry) -> str:
        return f"| [{entry.name}](weights/{entry.name}/README.md) | ≤ 85.95 ± 0.2 | 1.5 |"

    vae, ddpm, iwae = entries  # binary images and 8-bit images are two tasks
    floor = "| *floor* |  | 0.123 |"
    binary = ["### MNIST, binary (dynamic), 28×28", "", *head, row(vae), row(iwae), floor]
    assert "\n".join([*binary, "", "### MNIST, 256 levels, 28×28", "", *head, row(ddpm), floor]) in shown
    assert "kid" not in shown and table.render(shown, entries) == shown


def test_a_page_without_the_markers_is_refused(table: ModuleType) -> None:
    with pytest.raises(ValueError, match="must have <!-- entries:pictures -->"):
        table.render("# genzoo", [])
