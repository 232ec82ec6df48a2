"""Sounds from wav files of every format, labels and splits from their names, and the spoken digits."""

import math
import re
import sys
import tarfile
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fake_data import write_fsdd, write_wav
from scipy.io import wavfile
from torch import Tensor

from genzoo.datamodules import AudioDataModule, FSDDDataModule
from genzoo.datamodules import audio as module
from genzoo.datamodules.audio import END, cut, read_sound
from genzoo.zoo.modality import from_codes, sounding, to_codes


def tone(frequency: float, rate: int, seconds: float = 0.25, amplitude: float = 0.5) -> Tensor:
    return amplitude * (2 * math.pi * frequency * torch.arange(round(seconds * rate)) / rate).sin()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Twenty recordings of two animals, of 5 to 14 samples; the n-th has the constant value n / 32."""
    for n in range(20):
        write_wav(tmp_path / "pets" / f"{('cat', 'dog')[n % 2]}_{n}.wav", torch.full((5 + n // 2,), n / 32), 8000)
    (tmp_path / "pets" / ".hidden.wav").write_bytes(b"no sound")
    (tmp_path / "pets" / "notes.txt").write_text("no sound either")
    return tmp_path / "pets"


def audio(root: Path, **options: Any) -> AudioDataModule:
    data = AudioDataModule(**{"root": str(root), "length": 8, "sample_rate": 8000, "batch_size": 4, **options})
    data.setup()
    return data


def rows(data: AudioDataModule, split: str) -> Tensor:
    return torch.cat([x if isinstance(x, Tensor) else x[0] for x in getattr(data, f"{split}_dataloader")()])


# ---- files


@pytest.mark.parametrize(
    ("dtype", "stored", "expected"),
    [
        ("uint8", [0, 64, 128, 255], [-1, -0.5, 0, 127 / 128]),
        ("int16", [-32768, -16384, 0, 32767], [-1, -0.5, 0, 32767 / 32768]),
        ("int32", [-(2**31), -(2**30), 0, 2**30], [-1, -0.5, 0, 0.5]),
        ("float32", [-2.0, -0.5, 0, 0.25], [-1, -0.5, 0, 0.25]),
        ("float64", [-2.0, -0.5, 0, 0.25], [-1, -0.5, 0, 0.25]),
    ],
)
def test_full_scale_is_that_of_the_format(tmp_path: Path, dtype: str, stored: list, expected: list) -> None:
    wavfile.write(tmp_path / "x.wav", 8000, np.array(stored, dtype))
    sound = read_sound(tmp_path / "x.wav", 8000)
    assert sound.dtype == torch.float32 and sound.tolist() == pytest.approx(expected, abs=1e-7)


def test_channels_are_averaged(tmp_path: Path) -> None:
    wavfile.write(tmp_path / "x.wav", 8000, np.array([[16384, 0], [0, -8192]], "int16"))
    assert read_sound(tmp_path / "x.wav", 8000).tolist() == [0.25, -0.125]


@pytest.mark.parametrize("rate", [4000, 11_025, 16_000])
def test_another_rate_keeps_the_pitch_and_folds_nothing(tmp_path: Path, rate: int) -> None:
    write_wav(tmp_path / "low.wav", tone(440, rate), rate)
    heard = read_sound(tmp_path / "low.wav", 8000)
    assert len(heard) == pytest.approx(2000, abs=1)
    inside = slice(200, 1800)  # the filter has ends
    torch.testing.assert_close(heard[:2000][inside], tone(440, 8000)[inside], rtol=0, atol=5e-3)
    if rate == 16_000:  # 6 kHz cannot be heard at 8 kHz; folded over, it would be 2 kHz
        write_wav(tmp_path / "high.wav", tone(6000, rate), rate)
        assert read_sound(tmp_path / "high.wav", 8000)[inside].abs().max() < 5e-3


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    write_wav(tmp_path / "whole.wav", torch.zeros(100), 8000)
    (tmp_path / "cut.wav").write_bytes((tmp_path / "whole.wav").read_bytes()[:-50])
    (tmp_path / "text.wav").write_text("hello")
    write_wav(tmp_path / "empty.wav", torch.zeros(0), 8000)
    for name, value in (("nan", np.nan), ("inf", -np.inf)):
        wavfile.write(tmp_path / f"{name}.wav", 8000, np.array([0, 0.5, value], "float32"))
    for name in ("cut", "text", "empty", "nan", "inf"):
        with pytest.raises(ValueError, match=f"{name}.wav cannot be used"):
            read_sound(tmp_path / f"{name}.wav", 8000)


@pytest.mark.parametrize("more", [0, 1])
@pytest.mark.parametrize("stored", ["<i2", "<i2 stereo", "<i4", "<f4", "|u1"])
@pytest.mark.parametrize(
    ("whole", "sound"),
    [(0xFFFFFFFF, 0xFFFFFFFF), (0, 0), (0x7FFFF024, 0x7FFFF000), (0x80000024, 0x80000000), (36, 0)],
)
def test_what_came_out_of_a_pipe_is_read_to_its_end(
    tmp_path: Path, whole: int, sound: int, stored: str, more: int
) -> None:
    values = np.random.default_rng(0).integers(1, 100, (50, 2) if "stereo" in stored else 50)
    wavfile.write(tmp_path / "file.wav", 8000, values.astype(stored.split()[0]) / (100 if "f" in stored else 1))
    if "f" not in stored:
        wavfile.write(tmp_path / "file.wav", 8000, values.astype(stored.split()[0]))
    data = (tmp_path / "file.wav").read_bytes()
    begin = data.index(b"data")
    note = b"LIST\x03\x00\x00\x00abc\x00"  # of an odd length, as FFmpeg puts one before the sound
    piped = b"RIFF" + whole.to_bytes(4, "little") + data[8:begin] + note + b"data" + sound.to_bytes(4, "little")
    (tmp_path / "pipe.wav").write_bytes(piped + data[begin + 8 :] + b"\x01" * (more if stored != "|u1" else 0))
    expected = read_sound(tmp_path / "file.wav", 8000)
    assert torch.equal(read_sound(tmp_path / "pipe.wav", 8000), expected) and len(expected) == 50


def test_a_file_that_holds_nothing_or_was_cut_short_is_not_taken_for_a_pipe(tmp_path: Path) -> None:
    write_wav(tmp_path / "x.wav", torch.full((100,), 0.5), 8000)
    data = (tmp_path / "x.wav").read_bytes()
    for name, damaged in (("cut", data[:-50]), ("header", data[:44]), ("less", data[:40]), ("bytes", data[:7])):
        (tmp_path / f"{name}.wav").write_bytes(damaged)
        with pytest.raises(ValueError, match=rf"the sound .*{name}\.wav cannot be used: \S.*\. Repair or remove it$"):
            read_sound(tmp_path / f"{name}.wav", 8000)
    (tmp_path / "empty.wav").write_bytes(b"RIFF" + b"\xff" * 4 + data[8:40] + b"\xff" * 4)
    with pytest.raises(ValueError, match=r"empty\.wav cannot be used: it holds no sound"):
        read_sound(tmp_path / "empty.wav", 8000)


def test_threads_that_read_side_by_side_see_every_file_that_was_cut_short(tmp_path: Path) -> None:
    """Though SciPy says so by a warning, whose filters are those of the whole process."""
    write_wav(tmp_path / "whole.wav", torch.zeros(50_000), 8000)
    (tmp_path / "cut.wav").write_bytes((tmp_path / "whole.wav").read_bytes()[:-50_000])
    filters = list(warnings.filters)

    def is_whole(name: str) -> bool:
        try:
            return len(read_sound(tmp_path / name, 8000)) == 50_000
        except ValueError:
            return False

    names = ["whole.wav", "cut.wav", "cut.wav"] * 100
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(is_whole, names)) == [name == "whole.wav" for name in names]
    assert list(warnings.filters) == filters


def test_recordings_that_another_process_fetches_meanwhile_are_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetched(address: str, path: Path) -> Any:
        (tmp_path / "fsdd/recordings/now").mkdir(parents=True)  # by the other
        (tmp_path / "up/recordings/later").mkdir(parents=True)
        with tarfile.open(path, "w:gz") as tar:
            tar.add(tmp_path / "up", "up")
        return path, None

    monkeypatch.setattr("urllib.request.urlretrieve", fetched)
    FSDDDataModule(str(tmp_path)).prepare_data()
    assert [path.name for path in (tmp_path / "fsdd/recordings").iterdir()] == ["now"]


def test_a_damaged_recording_among_many_is_named(root: Path) -> None:
    (root / "dog_7.wav").write_bytes((root / "dog_7.wav").read_bytes()[:-3])
    with pytest.raises(ValueError, match=r"^the sound .*dog_7\.wav cannot be used: \S.*Repair or remove it$"):
        audio(root)


def test_notes_beside_the_sound_are_passed_over(tmp_path: Path) -> None:
    write_wav(tmp_path / "x.wav", torch.full((4,), 0.5), 8000)
    data = bytearray((tmp_path / "x.wav").read_bytes() + b"note\x04\x00\x00\x00abcd")
    data[4:8] = (len(data) - 8).to_bytes(4, "little")
    (tmp_path / "x.wav").write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_sound(tmp_path / "x.wav", 8000).tolist() == [0.5] * 4


def test_pieces() -> None:
    sound = torch.arange(1.0, 8.0)
    assert cut(sound, 3, "first").tolist() == [[1, 2, 3]]
    assert cut(sound, 3, "all").tolist() == [[1, 2, 3], [4, 5, 6], [7, END, END]]
    assert cut(sound, 9, "first").tolist() == cut(sound, 9, "all").tolist() == [[1, 2, 3, 4, 5, 6, 7, END, END]]
    assert cut(sound[:6], 3, "all").tolist() == [[1, 2, 3], [4, 5, 6]]


# ---- the folder


def test_every_recording_is_in_one_split_cropped_or_filled_up_with_what_is_no_sound(root: Path) -> None:
    data = audio(root, label="(?P<label>[a-z]+)_", test="_1[0-3]")
    assert (data.shape, data.levels, data.num_classes, data.sample_rate) == ((1, 8), 256, 2, 8000)
    assert data.class_names == ["cat", "dog"] and "val_size" not in data.hparams
    assert [len(data.sources[split]) for split in ("train", "val", "test")] == [14, 2, 4]
    found = []
    for split in ("train", "val", "test"):
        source = data.sources[split]
        for x, label in zip(data.scale(source.x), source.labels, strict=True):  # type: ignore[attr-defined, arg-type]
            n = round(float(x[0, 0]) * 32)
            sounds = min(8, 5 + n // 2)
            assert label == n % 2 and (split == "test") == (10 <= n <= 13)
            torch.testing.assert_close(x[0, :sounds], torch.full((sounds,), n / 32), rtol=0.03, atol=1e-4)
            assert (x[0, :sounds] != 0).all()  # silence neither: n = 0
            assert (x[0, sounds:] == 0).all()
            assert torch.equal(sounding(x, 256), torch.arange(8)[None] < sounds)
            found.append(n)
    assert sorted(found) == list(range(20))


def test_linked_recordings_are_read_and_what_is_left_out_is_said(root: Path, tmp_path: Path) -> None:
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "pets").symlink_to(root)
    (root / "round").symlink_to(tmp_path / "linked")
    for name in ("a.aiff", "b.m4a", "c.aiff"):
        (root / name).write_bytes(b"of another kind")
    with pytest.warns(UserWarning) as caught:
        data = AudioDataModule(str(tmp_path / "linked"), length=8, sample_rate=8000)
    assert sum(map(len, data.files.values())) == 20
    (said,) = [str(warning.message) for warning in caught]
    assert "20 files are read. Left out: 1 hidden (.hidden.wav); 4 of other kinds (.aiff, .m4a, .txt)" in said
    assert "1 found again by another link (round)" in said
    for file in root.glob("*.wav"):
        file.unlink()
    with pytest.raises(FileNotFoundError, match=r"no sound file in .*4 of other kinds \(\.aiff, \.m4a, \.txt\)"):
        AudioDataModule(str(root), length=8, sample_rate=8000)


def test_batches_lie_on_the_values_of_the_codes(root: Path) -> None:
    x = rows(audio(root, test_fraction=0.2), "train")  # without labels a batch is x
    assert x.dtype == torch.float32 and x.shape[1:] == (1, 8)
    assert torch.equal(from_codes(to_codes(x, 256, "waveform"), 256, "waveform") * (x != 0), x)


def test_all_pieces_of_a_recording_are_in_one_split(root: Path) -> None:
    data = audio(root, length=2, pieces="all", test="_1[0-3]", batch_size=2, val_fraction=0.25)
    held = {split: {round(float(x[0, 0]) * 32) for x in rows(data, split)} for split in ("val", "test")}
    train = data.sources["train"].x  # type: ignore[attr-defined]
    held["train"] = {round(float(x[0, 0]) * 32) for x in data.scale(train)}
    assert len(held["val"]) == 4 and held["test"] == {10, 11, 12, 13}
    assert held["train"] | held["val"] == set(range(20)) - held["test"] and not held["train"] & held["val"]
    lengths = [5 + n // 2 for n in range(20) if n not in held["test"]]
    assert len(train) + len(data.sources["val"]) == sum(math.ceil(length / 2) for length in lengths)


def test_a_limit_takes_pieces_of_all_recordings(root: Path) -> None:
    """A fixed choice: the same for everyone."""
    options: dict[str, Any] = {"length": 2, "pieces": "all", "test": "_1[0-3]", "batch_size": 2, "val_fraction": 0.25}
    seen = []
    for _ in range(2):
        data = audio(root, limit=12, **options)
        x = data.scale(data.sources["train"].x)  # type: ignore[attr-defined]
        assert len(x) == 12
        seen.append([round(float(piece[0, 0]) * 32) for piece in x])
    assert seen[0] == seen[1] and len(set(seen[0])) > 6


def test_folders_can_name_the_classes(tmp_path: Path) -> None:
    for name in ("b", "a", "10", "9"):
        for i in range(3):
            write_wav(tmp_path / name / f"{i}.wav", torch.zeros(4), 8000)
    data = audio(tmp_path, label="^(?P<label>[^/]+)/", classes=[1, 2], batch_size=2)
    assert data.class_names == ["9", "10", "a", "b"]
    assert set(data.sources["train"].labels.tolist()) <= {1, 2}  # type: ignore[union-attr]


def test_the_splits_and_the_order_are_the_same_every_time(root: Path) -> None:
    first, again, other = (audio(root, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(rows(first, "train"), rows(again, "train"))
    assert torch.equal(rows(first, "test"), rows(other, "test"))
    assert not torch.equal(rows(again, "train"), rows(other, "train"))
    loader = first.train_dataloader()
    passing = iter(loader)
    next(passing)
    state = loader.state_dict()
    rest = [x.tolist() for x in passing]
    resumed = again.train_dataloader()
    resumed.load_state_dict(state)
    assert [x.tolist() for x in resumed] == rest


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label": "(?P<label>cat)_"}, "fits 10 of 20 files, but not dog_1.wav"),
        ({"label": "(cat|dog)_"}, "no group called label"),
        ({"label": "(?P<label>cat"}, "no regular expression"),
        ({"test": "bird"}, "20 for training and 0 for testing"),
        ({"length": 0}, "length is 0"),
        ({"sample_rate": 0}, "sample_rate 0"),
        ({"pieces": "last"}, "pieces is 'last'"),
        ({"val_fraction": 1.5}, "val_fraction is 1.5"),
        ({"classes": [0]}, "no labels"),
    ],
)
def test_what_does_not_fit_is_refused(root: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        audio(root, **options)


def test_a_name_that_says_no_class_is_named(root: Path) -> None:
    """Also where the pattern is found, but without what names the class."""
    name = next(root.rglob("*.wav")).relative_to(root).as_posix()
    with pytest.raises(ValueError, match=rf"but not {re.escape(name)}: give a pattern|fits 0 of"):
        audio(root, label=rf"(?P<label>nobody)|{re.escape(name)}|wav")


def test_of_long_sounds_few_are_read_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the memory at hand, by what reading takes of the largest; one in any case."""
    for name, size in {"a.wav": 1000, "b.wav": 10, "c.mp3": 500}.items():
        (tmp_path / name).write_bytes(bytes(size))
    paths = sorted(tmp_path.iterdir())
    for there, of, most in (
        (120_000, paths[:2], 10),
        (120_000, paths, 1),
        (10, paths, 1),
        (None, paths, sys.maxsize),
    ):
        monkeypatch.setattr(module, "memory_at_hand", lambda _, there=there: there)
        assert module.at_once(of) == most
    assert module.at_once([]) >= 1


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*nowhere"):
        audio(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"there is no sound file in .* \(.*\.wav\)"):
        audio(tmp_path)


# ---- spoken digits


def test_the_spoken_digits_have_their_customary_split(tmp_path: Path) -> None:
    write_fsdd(tmp_path)
    data = FSDDDataModule(str(tmp_path), length=30, val_size=10)
    assert (data.shape, data.levels, data.num_classes, data.sample_rate) == ((1, 30), 256, 10, 8000)
    data.prepare_data()
    data.setup()
    assert [len(data.sources[split]) for split in ("train", "val", "test")] == [20, 10, 50]
    assert data.sources["test"].labels.bincount().tolist() == [5] * 10  # type: ignore[union-attr]
    write_wav(tmp_path / "fsdd/recordings/hello.wav", torch.zeros(4), 8000)
    with pytest.raises(ValueError, match=r"hello.wav is not named"):
        FSDDDataModule(str(tmp_path)).setup()


def test_the_spoken_digits_are_downloaded_whole_or_not_at_all(tmp_path: Path, monkeypatch: Any) -> None:
    write_fsdd(tmp_path / "there" / "free-spoken-digit-dataset-1.0.10")
    with tarfile.open(tmp_path / "archive.tar.gz", "w:gz") as tar:
        folder = tmp_path / "there" / "free-spoken-digit-dataset-1.0.10"
        tar.add(folder / "fsdd" / "recordings", "free-spoken-digit-dataset-1.0.10/recordings")
    monkeypatch.setattr(FSDDDataModule, "address", (tmp_path / "archive.tar.gz").as_uri())
    data = FSDDDataModule(str(tmp_path / "here"), length=30, val_size=10)
    data.prepare_data()
    data.prepare_data()  # not again
    data.setup()
    assert len(data.sources["test"]) == 50
    assert [path.name for path in (tmp_path / "here" / "fsdd").iterdir()] == ["recordings"]

    (tmp_path / "archive.tar.gz").write_bytes((tmp_path / "archive.tar.gz").read_bytes()[:-200])
    with pytest.raises(FileNotFoundError, match="could not be downloaded"):
        FSDDDataModule(str(tmp_path / "elsewhere")).prepare_data()
    assert not list((tmp_path / "elsewhere" / "fsdd").iterdir())


# ---- flac, mp3 and ogg


def test_flac_is_read_bit_for_bit_and_what_loses_something_nearly(tmp_path: Path) -> None:
    import soundfile

    sound = (tone(440, 8000, 0.5) + tone(1000, 8000, 0.5, 0.1)).numpy()
    stereo = (np.stack([sound, sound / 2], 1) * 2**15).astype(np.int16)
    soundfile.write(tmp_path / "x.wav", stereo, 8000)
    soundfile.write(tmp_path / "x.flac", stereo, 8000)
    expected = read_sound(tmp_path / "x.wav", 8000)
    assert torch.equal(read_sound(tmp_path / "x.flac", 8000), expected)
    assert torch.equal(read_sound(tmp_path / "x.flac", None), expected)  # at its own rate
    assert torch.equal(read_sound(tmp_path / "x.flac", 4000), read_sound(tmp_path / "x.wav", 4000))
    soundfile.write(tmp_path / "X.OGG", stereo[:, 0], 8000, format="OGG")
    soundfile.write(tmp_path / "x.mp3", stereo[:, 0], 8000, format="MP3")
    soundfile.write(tmp_path / "x.wav", stereo[:, 0], 8000)
    expected = read_sound(tmp_path / "x.wav", 8000)
    for name in ("X.OGG", "x.mp3"):
        heard = read_sound(tmp_path / name, 8000)
        loudest = heard[1000:3000].numpy()
        spectrum = np.abs(np.fft.rfft(loudest))
        assert spectrum.argmax() == np.abs(np.fft.rfft(expected[1000:3000].numpy())).argmax()
        assert loudest.std() == pytest.approx(float(expected[1000:3000].std()), rel=0.1)


def test_a_folder_has_sounds_of_all_kinds_where_they_can_be_read(
    root: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    import soundfile

    soundfile.write(root / "bird_30.flac", np.full(5, 0.25), 8000)
    (root / "notes.txt").unlink()
    assert len(audio(root).files["train"]) + len(audio(root).files["test"]) == 21
    recwarn.clear()
    monkeypatch.setattr("genzoo.datamodules.audio.find_spec", lambda name: None)  # as if it were not installed
    assert len(audio(root).files["train"]) + len(audio(root).files["test"]) == 20
    said = str(recwarn.pop(UserWarning).message)
    assert "1 of other kinds (.flac)" in said and "pip install 'genzoo[audio]'" in said
    with pytest.raises(ValueError, match=r"bird_30.flac cannot be used: .flac is not read without soundfile; .*pip"):
        read_sound(root / "bird_30.flac", 8000)
    alone = root.parent / "alone"
    alone.mkdir()
    (root / "bird_30.flac").rename(alone / "bird_30.flac")
    with pytest.raises(FileNotFoundError, match=r"no sound file in .*\.flac.*pip install 'genzoo\[audio\]'"):
        audio(alone)


def test_a_damaged_flac_is_named(tmp_path: Path) -> None:
    import soundfile

    soundfile.write(tmp_path / "x.flac", np.zeros(4000), 8000)
    (tmp_path / "x.flac").write_bytes((tmp_path / "x.flac").read_bytes()[:20])
    (tmp_path / "y.mp3").write_bytes(b"no sound")
    for name in ("x.flac", "y.mp3"):
        with pytest.raises(ValueError, match=rf"the sound .*{name} cannot be used: .*Repair or remove it"):
            read_sound(tmp_path / name, 8000)
