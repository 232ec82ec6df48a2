"""The README's pictures and figures are those of the embedded entries."""

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


def test_the_readme_shows_the_entries_as_they_are(table: ModuleType) -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    assert text == table.render(text, list_models()), "run `python docs/entries_table.py`"
    assert all(f"[{entry.name}]" in text for entry in list_models())


def test_a_figure_is_shown_with_all_that_it_means(table: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    about = {"split": "test", "num_examples": 10_000, "protocol": "K = 5"}
    nll = {"name": "nll", "value": 85.949, "unit": "nats", "standard_error": 0.21, "kind": "lower_bound", **about}
    frechet = {"name": "frechet", "value": 1.5, "unit": "squared feature distance", "floor": 0.1234, **about}
    monkeypatch.setattr(
        Entry, "metrics", {"figures": [nll, frechet, {"name": "parameters", "value": 3, "unit": "p"}]}
    )
    shown = table.render(EMPTY, [Entry("mnist/vae", ROOT / "zoo/weights/mnist/vae")])
    card = "[mnist/vae](zoo/weights/mnist/vae/README.md)"
    assert f"| {card} | nll | ≤ 85.95 ± 0.2 | nats | test | 10,000 | K = 5 |" in shown
    assert "| frechet | 1.5 (real against real: 0.123) | squared feature distance | test |" in shown
    assert "parameters" not in shown
    assert table.render(shown, [Entry("mnist/vae", ROOT / "zoo/weights/mnist/vae")]) == shown


def test_a_readme_without_the_markers_is_refused(table: ModuleType) -> None:
    with pytest.raises(ValueError, match="must have <!-- entries:pictures -->"):
        table.render("# genzoo", [])
