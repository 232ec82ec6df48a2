"""Quiet, and the same on every machine."""

import logging
import os
import shutil
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from wheels import build_wheel

if TYPE_CHECKING:
    from ticking import Clock

os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("WANDB_SILENT", "true")
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or leaves anything in the user's cache; those of all workers share one."""
    own = tmp_path_factory.getbasetemp()
    monkeypatch.setenv("GENZOO_CACHE", str((own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "cache"))


@pytest.fixture(autouse=True)
def _few_looks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A diffusion's variances are fitted from few looks at its chain, but where that is what is tested."""
    variances = sys.modules.get("genzoo.zoo.diffusion.variances")
    if variances is not None and request.path.name != "test_variances.py":
        few = dict.fromkeys(variances.FittedVariances.variance_looks, 64)
        monkeypatch.setattr(variances.FittedVariances, "variance_looks", few)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> "Clock":
    """A clock that goes when it is told to, for all that bounds training in time."""
    from ticking import Clock  # which waits for PyTorch

    made = Clock()
    made.rule(monkeypatch)
    return made


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """genzoo's wheel, built from the tree."""
    return build_wheel(tmp_path_factory.mktemp("tree"))


@pytest.fixture(scope="session")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel's files in it, as `site-packages` has them."""
    folder = tmp_path_factory.mktemp("site")
    zipfile.ZipFile(wheel).extractall(folder)
    return folder


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A real Chromium, headless: the system's, or GENZOO_CHROMIUM. The tests that need it say so without."""
    names = (os.environ.get("GENZOO_CHROMIUM"), "chromium", "chromium-browser", "google-chrome")
    path = next((found for name in names if name and (found := shutil.which(name))), None)
    if path is None:
        pytest.skip("needs a browser: apt-get install chromium, or name one in GENZOO_CHROMIUM")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield started
        started.close()
