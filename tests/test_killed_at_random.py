"""SIGKILL at random moments: every file is whole, and the resumed run comes to what the uninterrupted one does."""

import json
from pathlib import Path

import pytest
from killing import INTERVAL
from running import python

SCRIPT = str(Path(__file__).with_name("killing.py"))


def assert_nothing_lost(folder: Path, families: list[str], bounds: list[str], num: int) -> None:
    ended = python(SCRIPT, json.dumps([str(folder), families, bounds, num]), cwd=folder, timeout=3000)
    assert ended.returncode == 0, ended.stderr
    found = [json.loads(line) for line in ended.stdout.splitlines()]
    assert len(found) == num * len(families)
    for one in found:
        assert not (one["unreadable"] or one["failed"] or one["differs"]) and one["lost"] <= INTERVAL, one


@pytest.mark.thorough
def test_a_few_kills(tmp_path: Path) -> None:
    assert_nothing_lost(tmp_path, ["vae"], ["both"], 4)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("family", ["vae", "gan", "ddpm"])
def test_twenty_kills(family: str, tmp_path: Path) -> None:
    assert_nothing_lost(tmp_path, [family], ["steps", "epochs", "both"], 20)
