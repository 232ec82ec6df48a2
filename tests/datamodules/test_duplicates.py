"""Copies of training data among the test data, of which figures say too much."""

from pathlib import Path

import numpy as np
import pytest
import torch
from fake_data import write_wav
from PIL import Image

from genzoo.datamodules import ArrayDataModule, AudioDataModule, DataModule, ImageFolderDataModule, duplicates
from genzoo.datamodules.duplicates import TAIL, same_files, same_rows

RANDOM = np.random.default_rng(0)


def test_files_of_the_same_bytes_are_copies_and_no_others(tmp_path: Path) -> None:
    def write(name: str, data: bytes) -> Path:
        (tmp_path / name).write_bytes(data)
        return tmp_path / name

    long = RANDOM.bytes(3 * TAIL)
    silent = bytes(3) + long[3:]  # which ends as `long` does, as recordings that end in silence do
    trained_on = [write("a", long), write("b", b"short"), write("c", b""), write("d", silent)]
    same_end, same_size = bytes([long[0] ^ 1]) + long[1:], bytes(len(long))
    held_out = [
        write("copy of a", long),
        write("same end", same_end),
        write("same size", same_size),
        write("copy of b", b"short"),
        write("short too", b"shirt"),
        write("of a size of its own", b"1"),
        write("empty", b""),
    ]
    found = {(one.name, other.name) for one, other in same_files(held_out, trained_on)}
    assert found == {("copy of a", "a"), ("copy of b", "b"), ("empty", "c")}
    assert same_files([], trained_on) == same_files(held_out, []) == []


def test_nothing_is_read_of_files_of_other_sizes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [tmp_path / str(size) for size in range(8)]
    for size, path in enumerate(paths):
        path.write_bytes(bytes(size))
    monkeypatch.setattr("genzoo.datamodules.duplicates.end_of", lambda path: pytest.fail(f"reads {path}"))
    assert same_files(paths[::2], paths[1::2]) == []


def test_each_file_is_read_once_however_many_end_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As recordings do that are padded with silence to one length."""
    paths = [tmp_path / str(number) for number in range(40)]
    for number, path in enumerate(paths):
        path.write_bytes(bytes([number]) + bytes(2 * TAIL))
    read = []

    def noted(path: Path) -> bytes:
        read.append(path)
        return path.read_bytes()

    monkeypatch.setattr(duplicates, "digest_of", noted)
    assert same_files(paths[:20], paths[20:], alone=True) == []
    assert sorted(read) == sorted(paths)


def test_rows_of_the_same_bytes_are_copies() -> None:
    x = RANDOM.integers(256, size=(6, 1, 4, 4), dtype=np.uint8)
    x[5] = x[1]
    assert same_rows(x, held_out=[0, 5], trained_on=[1, 2, 3]) == [(5, 1)]
    assert same_rows(x, held_out=[0, 5], trained_on=[2, 3]) == []


def pictures(folder: Path, copies: bool) -> DataModule:
    for number, pixels in enumerate(RANDOM.integers(256, size=(8, 4, 4), dtype=np.uint8)):
        place = folder / ("test" if number < 2 else "train") / f"{number}.png"
        place.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(place)
    if copies:
        (folder / "test" / "0.png").write_bytes((folder / "train" / "5.png").read_bytes())
    return ImageFolderDataModule(str(folder), size=4, batch_size=2)


def pictures_on_disk(folder: Path, copies: bool) -> DataModule:
    pictures(folder, copies)
    return ImageFolderDataModule(str(folder), size=4, batch_size=2, in_memory=False, num_workers=0)


def sounds(folder: Path, copies: bool) -> DataModule:
    for number in range(8):
        write_wav(folder / f"{number}.wav", torch.full((64,), (5 if copies and number == 0 else number) / 10), 8000)
    return AudioDataModule(str(folder), length=64, sample_rate=8000, test=r"^[01]\.")


def rows(folder: Path, copies: bool) -> DataModule:
    x = RANDOM.integers(256, size=(40, 4, 4), dtype=np.uint8)
    (held_out, *_), (trained_on, *_) = (ArrayDataModule(x).rows[split] for split in ("test", "train"))
    if copies:
        x[held_out] = x[trained_on]
    return ArrayDataModule(x)


@pytest.mark.parametrize("make", [pictures, pictures_on_disk, sounds, rows])
@pytest.mark.parametrize("copies", [True, False])
def test_copies_are_said_before_training(
    make: object, copies: bool, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    make(tmp_path, copies).prepare_data()  # type: ignore[operator]
    said = [str(warned.message) for warned in recwarn if "copies" in str(warned.message)]
    assert len(said) == copies
    assert all(line.startswith("1 of ") and "figures of them say too much; keep one of each" in line for line in said)


def test_rows_of_numbers_may_well_be_alike(recwarn: pytest.WarningsRecorder) -> None:
    ArrayDataModule(np.tile(np.eye(2), (20, 1))).prepare_data()
    ArrayDataModule((np.arange(40 * 16).reshape(40, 4, 4) % 2).astype(np.uint8)).prepare_data()  # black and white
    assert not [warned for warned in recwarn if "copies" in str(warned.message)]
