"""A cache that cannot be written: a warning, and the work is done all the same."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from genzoo.metrics.features import real_features
from genzoo.zoo.files import cache_folder, cached


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache below a file, where nobody can make a folder: root neither, whom permissions do not stop."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GENZOO_CACHE", str(tmp_path / "file" / "cache"))
    return tmp_path / "file" / "cache"


def test_what_cannot_be_kept_goes_with_the_process(nowhere: Path) -> None:
    with pytest.warns(UserWarning, match=r"file/cache/a/b cannot be kept \(Not a directory\).*GENZOO_CACHE"):
        path = cached("a/b")
    assert not path.is_relative_to(nowhere)


def test_no_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is there already is read all the same."""
    monkeypatch.setenv("GENZOO_CACHE", str(tmp_path))
    (tmp_path / "there").write_text("")
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert cached("there") == tmp_path / "there"
    with pytest.warns(UserWarning, match="no permission"):
        assert not cached("elsewhere").is_relative_to(tmp_path)


def test_a_cache_that_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENZOO_CACHE", str(tmp_path))
    assert cached("a/b") == tmp_path / "a" / "b" and cached("a/b", tmp_path / "c") == tmp_path / "c" / "a" / "b"


def test_a_cache_at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody else has put in what `~` is: a service's environment, a quoted export."""
    monkeypatch.setenv("GENZOO_CACHE", "~/somewhere")
    assert cache_folder() == Path.home() / "somewhere"


class Flat(torch.nn.Flatten):
    fingerprint = name = "flat"


def test_statistics_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENZOO_CACHE", str(tmp_path))
    x = torch.randn(32, 4, generator=torch.Generator().manual_seed(0))

    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    statistics, _ = real_features([x], Flat())  # type: ignore[arg-type]
    assert torch.allclose(statistics.mean, x.double().mean(0)) and not list(tmp_path.rglob("*.safetensors"))


def test_statistics_without_a_cache(nowhere: Path) -> None:
    x = torch.randn(32, 4, generator=torch.Generator().manual_seed(0))
    with pytest.warns(UserWarning, match="cannot be kept"):
        statistics, _ = real_features([x], Flat())  # type: ignore[arg-type]
    assert torch.allclose(statistics.mean, x.double().mean(0))
