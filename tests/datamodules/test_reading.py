"""Many files are read in order, wherever the work is done, and decoded once where that takes long."""

import multiprocessing
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.progress import Progress

from genzoo.datamodules import ImageFolderDataModule, reading
from genzoo.datamodules.reading import each, kept

ITEMS = list(range(300))


def where(item: int) -> tuple[int, int, int]:
    """An item, and the process and thread that it was seen in."""
    time.sleep(1e-3)
    return item, os.getpid(), threading.get_ident()


@pytest.fixture
def no_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "can_fork", lambda: False)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The work is shared out over three, after two items."""
    monkeypatch.setattr(reading, "MOMENT", 0.0)
    monkeypatch.setattr(reading, "_processors", lambda: 3)


# ---- where the work is done


@pytest.mark.usefixtures("at_once")
def test_processes_share_what_takes_more_than_a_moment() -> None:
    found = list(each(where, ITEMS, "items"))
    assert [item for item, _, _ in found] == ITEMS
    processes = [process for _, process, _ in found]
    assert processes[:2] == [os.getpid()] * 2
    assert len(set(processes[2:])) == 3 and os.getpid() not in processes[2:]


@pytest.mark.usefixtures("at_once", "no_fork")
@pytest.mark.parametrize(("slow", "threads"), [(0.0, True), (1.0, False)])
def test_without_a_fork_threads_share_what_takes_long(
    monkeypatch: pytest.MonkeyPatch, slow: float, threads: bool
) -> None:
    monkeypatch.setattr(reading, "SLOW", slow)
    found = list(each(where, ITEMS, "items"))
    assert [item for item, _, _ in found] == ITEMS
    assert {process for _, process, _ in found} == {os.getpid()}
    assert (len({thread for _, _, thread in found[2:]}) > 1) == threads


def test_what_is_done_in_a_moment_is_done_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MOMENT", 100.0)
    assert {process for _, process, _ in each(where, ITEMS, "items")} == {os.getpid()}


@pytest.mark.usefixtures("at_once")
def test_what_is_to_be_done_here_is_done_here() -> None:
    assert {process for _, process, _ in each(where, ITEMS, "items", alone=True)} == {os.getpid()}


def in_a_daemon(answers: Any) -> None:
    reading.MOMENT, reading._processors = 0.0, lambda: 3  # type: ignore[assignment]
    answers.put(len({process for _, process, _ in each(where, ITEMS[:20], "items")}))


def test_a_process_that_may_have_no_children_reads_by_itself() -> None:
    fork = multiprocessing.get_context("fork")
    answers = fork.Queue()
    daemon = fork.Process(target=in_a_daemon, args=(answers,), daemon=True)
    daemon.start()
    assert answers.get(timeout=60) == 1
    daemon.join()


@pytest.mark.usefixtures("at_once")
def test_one_processor_has_nothing_to_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "world_size", lambda: 2)  # and three of them for two processes are one each
    assert {process for _, process, _ in each(where, ITEMS, "items")} == {os.getpid()}


@pytest.mark.usefixtures("at_once")
def test_the_random_state_is_left_alone() -> None:
    torch.manual_seed(0)
    state = torch.get_rng_state()
    assert len(list(each(where, ITEMS, "items"))) == len(ITEMS)
    assert torch.equal(torch.get_rng_state(), state)


# ---- what goes wrong


class OddFileError(ValueError):
    """An error of one's own, of two arguments in a sentence."""


def refuse(item: int) -> int:
    if item == 250:
        raise OddFileError(f"the file {item} cannot be used: it is odd")
    return item


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("way", ["processes", "threads", "here"])
def test_an_error_is_the_same_wherever_it_is_raised(monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    monkeypatch.setattr(reading, "SLOW", 0.0)
    monkeypatch.setattr(reading, "can_fork", lambda: way == "processes")
    with pytest.raises(OddFileError) as caught:
        list(each(refuse, ITEMS, "items", alone=way == "here"))
    assert str(caught.value) == "the file 250 cannot be used: it is odd"


def die(item: int) -> int:
    if item == 40:
        os._exit(9)
    return item


@pytest.mark.usefixtures("at_once")
def test_a_process_that_is_killed_is_missed() -> None:
    with pytest.raises(RuntimeError, match=r"worker .* exited unexpectedly"):
        list(each(die, ITEMS, "items"))


# ---- the bar


@pytest.mark.usefixtures("at_once")
def test_a_bar_may_stand_there_already(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress() as bar:
        bar.add_task("training")
        assert list(each(refuse, ITEMS[:100], "items")) == ITEMS[:100]


@pytest.mark.usefixtures("at_once")
def test_a_bar_leaves_nothing_behind(capfd: pytest.CaptureFixture[str]) -> None:
    assert list(each(refuse, ITEMS[:100], "items")) == ITEMS[:100]
    assert capfd.readouterr().out.strip() == ""


# ---- kept on the disk


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Three files, a cache of the test's own, and work that always takes long."""
    monkeypatch.setenv("GENZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(reading, "LONG", -1.0)
    paths = [tmp_path / name for name in "abc"]
    for path in paths:
        path.write_text(path.name)
    return paths


class Maker:
    """Makes numbers, and counts how often."""

    def __init__(self, numbers: np.ndarray) -> None:
        self.numbers, self.times = numbers, 0

    def __call__(self) -> np.ndarray:
        self.times += 1
        return self.numbers.copy()


@pytest.fixture
def make() -> Maker:
    return Maker(np.random.default_rng(0).integers(0, 256, (3, 3, 8, 8), dtype=np.uint8))


def kept_files() -> list[Path]:
    return sorted((Path(os.environ["GENZOO_CACHE"]) / "decoded").iterdir())


@pytest.mark.parametrize("shape", [(3, 3, 8, 8), (0, 3, 8, 8)])
def test_what_took_long_is_made_once(files: list[Path], shape: tuple[int, ...]) -> None:
    make = Maker(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))
    for _ in range(3):
        found = kept(make, files, {"size": 8})
        assert np.array_equal(found, make.numbers) and found.dtype == np.uint8
        torch.from_numpy(found).add_(1)  # it can be written to, and the file stays as it was
    assert make.times == 1
    (file,) = kept_files()
    assert np.array_equal(np.load(file), make.numbers)  # anybody's tools read it


def test_what_took_a_moment_is_not_kept(files: list[Path], make: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "LONG", 10.0)
    assert [np.array_equal(kept(make, files, {}), make.numbers) for _ in range(2)] == [True, True]
    assert make.times == 2 and not Path(os.environ["GENZOO_CACHE"]).exists()


def test_whatever_has_changed_is_made_anew(files: list[Path], make: Maker) -> None:
    changes: list[Callable[[], Any]] = [
        lambda: files[1].write_text("longer than it was"),
        lambda: os.utime(files[1], ns=(0, 10**18)),
        lambda: files.pop(),
        lambda: files.reverse(),
        lambda: files.__setitem__(0, files[0].rename(files[0].with_name("z"))),
    ]
    kept(make, files, {"size": 8})
    for times, change in enumerate(changes, start=2):
        change()
        for _ in range(2):
            kept(make, files, {"size": 8})
        assert make.times == times
    kept(make, files, {"size": 9})
    assert make.times == len(changes) + 2


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "zeros": lambda stored: stored[:200] + bytes(len(stored) - 200),
    "turned": lambda stored: stored[:300] + bytes([stored[300] ^ 1]) + stored[301:],
    "larger": lambda stored: stored.replace(b"(3, 3, 8, 8)", b"(9, 9, 9, 9)"),
    "cut": lambda stored: stored[:-100],
    "empty": lambda stored: b"",
    "other": lambda stored: b"PK" * 300,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_what_is_damaged_is_made_again_and_said(
    files: list[Path], make: Maker, damage: Callable[[bytes], bytes]
) -> None:
    kept(make, files, {})
    (file,) = kept_files()
    file.write_bytes(damage(file.read_bytes()))
    with pytest.warns(UserWarning, match=rf"{file.name} is damaged .* made again"):
        assert np.array_equal(kept(make, files, {}), make.numbers)
    assert np.array_equal(kept(make, files, {}), make.numbers)  # and is whole again
    assert make.times == 2 and kept_files() == [file]


def test_where_nothing_can_be_written_all_goes_on(files: list[Path], make: Maker) -> None:
    Path(os.environ["GENZOO_CACHE"]).write_text("a file where the folder would be")
    with pytest.warns(UserWarning, match=r"cannot be written \(.*\).*let GENZOO_CACHE name another folder"):
        assert np.array_equal(kept(make, files, {}), make.numbers)


def test_a_disk_that_is_full_leaves_nothing(files: list[Path], make: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(array: np.ndarray, path: Path) -> None:
        path.write_bytes(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(reading, "_save", full)
    with pytest.warns(UserWarning, match="No space left on device"):
        assert np.array_equal(kept(make, files, {}), make.numbers)
    assert kept_files() == []


def test_a_folder_of_images_is_decoded_once(files: list[Path], tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (20, 9, 9, 3), dtype=np.uint8)
    (tmp_path / "images").mkdir()
    for i, image in enumerate(noise):
        Image.fromarray(image).save(tmp_path / "images" / f"{i}.png")

    def batches(size: int = 8) -> list[torch.Tensor]:
        data = ImageFolderDataModule(root=str(tmp_path / "images"), size=size, batch_size=4)
        return [x for loader in (data.train_dataloader(), data.test_dataloader()) for x in loader]

    first = batches()
    before = {file: file.stat().st_mtime_ns for file in kept_files()}
    assert len(before) == 2  # one of what is trained on, one of the test images
    assert all(torch.equal(a, b) for a, b in zip(first, batches(), strict=True))
    assert {file: file.stat().st_mtime_ns for file in kept_files()} == before
    assert batches(9)[0].shape == (4, 3, 9, 9) and len(kept_files()) == 4


def test_a_cache_that_may_not_be_looked_into_is_none(
    files: list[Path], make: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As another user's home is, in a container: `pathlib` has an error for it."""

    def forbidden(self: Path, **_: Any) -> Any:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "stat", forbidden)
    monkeypatch.setattr(os.path, "isdir", lambda path: False)
    assert np.array_equal(kept(make, files, {}), make.numbers)


def test_no_more_processes_than_are_asked_for() -> None:
    assert len(set(each(who, range(200), "reading", most=1))) == 1


def who(number: int) -> int:
    time.sleep(0.001)
    return os.getpid()
