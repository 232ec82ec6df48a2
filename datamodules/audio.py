"""Recorded sound: a folder of it, and the spoken digits. Held in memory as mu-law codes, two bytes a sample.

Full scale is fixed: ±1 is the largest number that a file's format can hold, and no clip is made louder or softer to
fill it. Only so do the bits per sample of two clips, and of two models, refer to the same quantisation.
"""

import io
import os
import re
import sys
import tarfile
import tempfile
import urllib.request
import warnings
import zlib
from collections.abc import Collection, Sequence
from functools import partial
from importlib.util import find_spec
from math import gcd
from pathlib import Path
from threading import Lock
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from genzoo.datamodules.base import SPLIT_SEED, DataModule, InMemory, Source, seeded
from genzoo.datamodules.duplicates import same_files, say_copies
from genzoo.datamodules.files import OTHER_KIND, FileSearch
from genzoo.datamodules.folder import LabelledFile, hold_out, natural, part_of
from genzoo.datamodules.reading import each
from genzoo.zoo.files import at_home
from genzoo.zoo.memory import memory_at_hand
from genzoo.zoo.modality import from_codes, to_codes
from genzoo.zoo.processes import world_size

Pieces = Literal["first", "all"]

LEVELS = 256  # mu-law codes, as telephones have them (ITU-T G.711)
END = LEVELS  # what stands, in place of a code, where there is no sound any more
WAV = frozenset({".wav"})
COMPRESSED = frozenset({".flac", ".mp3", ".ogg"})  # which take the extra `audio`
READING = 6  # times a wav file's size, that reading takes: the file, its samples, those as floats, and resampled
SIZE = {".flac": 3, ".mp3": 12, ".ogg": 12}  # times a file's size, that a wav of the same sound has, about
FILTERS = Lock()  # those of warnings are the whole process's, and threads read files side by side
EXTRA = "to read .flac, .mp3 and .ogg, too: pip install 'genzoo[audio]'"


def sound_suffixes() -> frozenset[str]:
    """The suffixes of the sound files that this installation reads."""
    return WAV | COMPRESSED if find_spec("soundfile") else WAV


def read_sound(path: Path, sample_rate: int | None) -> Tensor:
    """One sound file as float32 (T,) in [−1, 1]: its channels averaged, at `sample_rate` Hz; None: at its own rate.

    PCM of 8 to 32 bits is divided by its full scale (32,768 for 16 bits); floats are taken as they are, and clipped.
    Another rate is converted by a polyphase filter, so that no frequency folds over. A wav file that came out of a
    pipe, whose lengths were not known when its header was written, is read to its end. Files that are no wav are read
    by `soundfile`.

    Raises:
        ValueError: naming the file, if it cannot be read, was cut short, or holds no sound, or NaN.
    """
    from scipy.signal import resample_poly

    try:
        if path.suffix.lower() in COMPRESSED - sound_suffixes():
            raise ValueError(f"{path.suffix} is not read without soundfile; {EXTRA}")
        rate, sound = read_pcm(path) if path.suffix.lower() in WAV else read_compressed(path)
        if len(sound) == 0:
            raise ValueError("it holds no sound")
        if not np.isfinite(sound).all():
            raise ValueError("it holds values that are no finite numbers")
    except Exception as error:  # a damaged file makes the reader stumble over nearly anything
        why = str(error) or type(error).__name__
        raise ValueError(f"the sound {path} cannot be used: {why}. Repair or remove it") from error
    sample_rate = rate if sample_rate is None else sample_rate
    if sound.ndim == 2:
        sound = sound.mean(1)
    if rate != sample_rate:
        common = gcd(rate, sample_rate)
        sound = resample_poly(sound, sample_rate // common, rate // common).astype(np.float32)
    return torch.from_numpy(sound).clamp(-1, 1)


def read_pcm(path: Path) -> tuple[int, np.ndarray]:
    """The rate of a wav file, and its samples as float32, (T,) or (T, channels), in parts of full scale."""
    from scipy.io import wavfile

    with FILTERS, warnings.catch_warnings():
        warnings.simplefilter("error", wavfile.WavFileWarning)  # how scipy says that a file was cut short
        warnings.filterwarnings("ignore", "Chunk")  # what a file holds beside the sound
        rate, stored = wavfile.read(io.BytesIO(with_lengths(path.read_bytes())))
    sound = stored.astype(np.float32)
    if stored.dtype == np.uint8:  # the one format whose silence is not 0
        sound = (sound - 128) / 128
    elif stored.dtype.kind == "i":
        sound /= -float(np.iinfo(stored.dtype).min)
    return rate, sound


def at_once(paths: Sequence[Path]) -> int:
    """How many sounds each process of a run can read at a time, at least one: of long ones not many.

    Together they take half of the memory at hand.
    """
    largest = max((SIZE.get(path.suffix.lower(), 1) * os.path.getsize(path) for path in paths), default=1)
    there = memory_at_hand(0)
    return sys.maxsize if there is None else max(1, there // (2 * READING * max(largest, 1) * world_size()))


def read_compressed(path: Path) -> tuple[int, np.ndarray]:
    """The rate of a file that `soundfile` reads, and its samples as float32 (T, channels), in parts of full scale."""
    import soundfile

    sound, rate = soundfile.read(path, dtype="float32", always_2d=True)
    return rate, sound


def read_codes(path: Path, sample_rate: int) -> np.ndarray:
    """One sound file as int16 (T,), the codes of `read_sound`'s sound."""
    return to_codes(read_sound(path, sample_rate), LEVELS, "waveform").short().numpy()


def with_lengths(wav: bytes) -> bytes:
    """A wav file, with the lengths filled in that its writer left open because it could not go back, in a pipe.

    Such a header says 0 (GStreamer), 2³² − 1 (FFmpeg) or something above 2³¹ − 2¹³ (SoX, ALSA) of the sound, and of
    the whole nothing that is true. Then the sound goes on to the end, but for a last sample that is not whole.
    """
    if wav[:4] != b"RIFF" or int.from_bytes(wav[4:8], "little") + 8 == len(wav):
        return wav
    begin, frame = 12, 1
    while (name := wav[begin : begin + 4]) != b"data" and begin + 8 <= len(wav):
        if name == b"fmt ":
            frame = int.from_bytes(wav[begin + 20 : begin + 22], "little") or 1  # bytes of one sample of all channels
        length = int.from_bytes(wav[begin + 4 : begin + 8], "little")
        begin += 8 + length + length % 2
    begin += 8
    length = int.from_bytes(wav[begin - 4 : begin], "little")
    if begin > len(wav) or 0 < length < 2**31 - 2**13:
        return wav
    end = begin + (len(wav) - begin) // frame * frame
    lengths = [(n).to_bytes(4, "little") for n in (end - 8, end - begin)]
    return wav[:4] + lengths[0] + wav[8 : begin - 4] + lengths[1] + wav[begin:end]


def cut(codes: Tensor, length: int, pieces: Pieces) -> Tensor:
    """A sound's codes (T,) as pieces (N, length), the last one filled up with `END`: the first of them, or all."""
    number = -(-len(codes) // length) if pieces == "all" else 1
    whole = codes.new_full((number * length,), END)
    kept = codes[: len(whole)]
    whole[: len(kept)] = kept
    return whole.view(number, length)


class WaveformDataModule(DataModule):
    """Base of the datamodules of sound: float32 (1, length) in [−1, 1], on the values of the 256 mu-law codes.

    What is shorter than `length` is filled up with exact zeros. No code has that value, that of silence neither, so
    that a model sees where a sound ends (`genzoo.zoo.modality.sounding`): a likelihood is that of the sound, in bits
    for each of its own samples.

    A subclass says which files a split has (`find`); they are read when they are first needed.

    Args:
        length: T, samples in one datum.
        sample_rate: Hz, of the data; files of another rate are resampled.
        pieces: of a recording longer than `length` keep the "first" T samples; or "all", as pieces of T samples, each
            a datum.
        split: batch_size, val_size (recordings, not pieces), classes, limit and seed, see `DataModule`.

    Raises:
        ValueError: for any argument out of its range.
    """

    levels: int | None = LEVELS
    sample_rate: int

    def __init__(self, *, length: int, sample_rate: int, pieces: Pieces = "first", **split: Any) -> None:
        if length < 1 or sample_rate < 1:
            raise ValueError(f"length is {length} and sample_rate {sample_rate}, but both must be at least 1")
        if pieces not in get_args(Pieces):
            raise ValueError(f"pieces is {pieces!r}, but must be one of {', '.join(get_args(Pieces))}")
        super().__init__(**split)
        self.shape = (1, length)
        self.sample_rate, self.pieces = sample_rate, pieces
        self.values = F.pad(from_codes(torch.arange(LEVELS), LEVELS, "waveform"), (0, 1)).numpy()  # that of END is 0

    def find(self, split: str) -> list[LabelledFile]:
        """The recordings of the "train" or "test" data; all of them labelled, or none."""
        raise NotImplementedError

    def load(self, split: str) -> Source:
        """All pieces of a split's recordings, as codes."""
        files = self.find(split)
        read_one = partial(read_codes, sample_rate=self.sample_rate)
        paths = [file.path for file in files]
        sounds = each(read_one, paths, "reading sounds", most=at_once(paths))
        pieces = [cut(torch.from_numpy(codes), self.shape[1], self.pieces) for codes in sounds]
        counts = torch.tensor([len(piece) for piece in pieces])
        if split == "train":
            self.recording = torch.arange(len(files)).repeat_interleave(counts)  # to which each row belongs
        labels = None
        if files[0].label is not None:
            labels = torch.tensor([file.label for file in files]).repeat_interleave(counts)
        names = [str(file.path) for file, piece in zip(files, pieces, strict=True) for _ in piece]
        return InMemory(torch.cat(pieces).unsqueeze(1), labels, names)

    def split(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Holds out whole recordings: pieces of one are alike."""
        recordings, belongs_to = self.recording[rows].unique(return_inverse=True)
        train, val = super().split(torch.arange(len(recordings)))
        kept, held_out = (torch.cat([rows[belongs_to == i] for i in of]) for of in (train, val))
        if self.limit is not None:  # of all recordings alike
            kept = kept[torch.randperm(len(kept), generator=seeded(SPLIT_SEED, 1))]
        return kept, held_out

    def scale(self, stored: Tensor) -> Tensor:
        """Codes to the values in the middle of their intervals; 0 from the end of the sound on."""
        return torch.from_numpy(self.values[stored.numpy()])


class AudioDataModule(WaveformDataModule):
    """A folder of the user's own sounds, at any depth, as float32 (1, length) in [−1, 1], 256 mu-law levels.

    They are wav files and, with the extra `audio` (`pip install 'genzoo[audio]'`), flac, mp3 and ogg.

    The end of a recording that is shorter than `length` is marked, and no part of any likelihood: after it come exact
    zeros. The silence within a recording is a part of it, and is none (`WaveformDataModule`).

    Sounds of other kinds, hidden files and those that several links lead to are left out; how many is said once.
    Labels and the test split can be read from the names of the files, as regular expressions search them in the path
    below `root` (`7_anna_12.wav`, or `dogs/rex.wav`):

        AudioDataModule(root="recordings", length=4096, sample_rate=8000,
                        label=r"(?P<label>\\d)_", test=r"_[0-4]\\.wav$")

    Args:
        root: the folder.
        length, sample_rate, pieces: see `WaveformDataModule`.
        label: finds a file's class, as its group `label`; the classes are numbered in natural order. None: no labels.
        test: finds something in the paths of the test recordings and in no other. None: a fixed random part.
        batch_size, classes, limit, seed: see `DataModule`.
        val_fraction: part of the training recordings that is held out for validation.
        test_fraction: part of all recordings that is held out for testing, where `test` does not say which.

    Raises:
        FileNotFoundError: if there is no such folder, or no sound in it.
        ValueError: for any argument out of its range, or a pattern that does not fit the names; from `setup`, naming
            it, for a file that cannot be read.
    """

    def __init__(
        self,
        root: str,
        length: int,
        sample_rate: int,
        label: str | None = None,
        test: str | None = None,
        pieces: Pieces = "first",
        batch_size: int = 16,
        val_fraction: float = 0.1,
        test_fraction: float = 0.1,
        classes: list[int] | None = None,
        limit: int | None = None,
        seed: int = 0,
    ):
        if not (0 < val_fraction < 1 and 0 < test_fraction < 1):
            raise ValueError(
                f"val_fraction is {val_fraction} and test_fraction {test_fraction}: each must lie between 0 and 1"
            )
        folder = at_home(root)
        names = find_sounds(folder, sound_suffixes())
        self.class_names, numbers = classes_of(names, label)
        self.num_classes = len(self.class_names) or None
        files = [LabelledFile(folder / name, number) for name, number in zip(names, numbers, strict=True)]
        if test is None:
            kept, held_out = hold_out(files, test_fraction)
        else:
            kept, held_out = [
                [file for file, name in zip(files, names, strict=True) if bool(pattern(test).search(name)) == wanted]
                for wanted in (False, True)
            ]
        if not kept or not held_out:
            raise ValueError(
                f"test={test!r} and {len(files)} recordings leave {len(kept)} for training and {len(held_out)} for"
                " testing: there must be some for each"
            )
        self.files = {"train": kept, "test": held_out}
        self.names = names if test is None else []
        pool = [file for file in kept if classes is None or file.label in classes]
        super().__init__(
            length=length,
            sample_rate=sample_rate,
            pieces=pieces,
            batch_size=batch_size,
            val_size=part_of(len(pool), val_fraction),
            classes=classes,
            limit=limit,
            seed=seed,
        )
        self.save_hyperparameters(logger=False)

    def divided(self) -> list[bytes]:
        """See `DataModule`: the recordings' names."""
        return [os.fsencode("\0".join([*self.names, str(len(self.files["test"]))]))] if self.names else []

    def prepare_data(self) -> None:
        """Look for copies."""
        held_out, trained_on = ([file.path for file in self.files[split]] for split in ("test", "train"))
        say_copies(same_files(held_out, trained_on), len(held_out), "recordings")

    def find(self, split: str) -> list[LabelledFile]:
        """As the constructor found them."""
        return self.files[split]


def find_sounds(root: Path, suffixes: Collection[str]) -> list[str]:
    """The paths below `root` of its sounds, also through links; 2.wav comes before 10.wav.

    What is left out is said once, and what to install where that would have been read.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"there is no folder {root.resolve()}: pass as root the folder that has the sounds")
    search = FileSearch(suffixes)
    names = [path.relative_to(root).as_posix() for path in search.below(root).values()]
    missed = COMPRESSED.difference(sound_suffixes()).intersection(search.left_out.get(OTHER_KIND, ()))
    if not names:
        raise FileNotFoundError(
            f"there is no sound file in {root.resolve()} ({', '.join(sorted(suffixes))})"
            + (f". There are: {search.in_words()}" if search.left_out else "")
            + (f". {EXTRA[0].upper()}{EXTRA[1:]}" if missed else "")
        )
    search.say(root, EXTRA if missed else "")
    return sorted(names, key=natural)


def classes_of(names: list[str], label: str | None) -> tuple[list[str], list[int | None]]:
    """The classes that the names tell, in natural order, and the number of each name's class."""
    if label is None:
        return [], [None] * len(names)
    if "label" not in pattern(label).groupindex:
        raise ValueError(f"label={label!r} has no group called label: (?P<label>...) marks what names the class")
    found = [pattern(label).search(name) for name in names]
    if strangers := [name for name, match in zip(names, found, strict=True) if not (match and match["label"])]:
        raise ValueError(
            f"label={label!r} fits {len(names) - len(strangers)} of {len(names)} files, but not {strangers[0]}:"
            " give a pattern that is found in every path, or remove the file"
        )
    words = [match["label"] for match in found if match]
    class_names = sorted(set(words), key=natural)
    return class_names, [class_names.index(word) for word in words]


def pattern(text: str) -> re.Pattern[str]:
    """The regular expression; ValueError if it is none."""
    try:
        return re.compile(text)
    except re.error as error:
        raise ValueError(f"{text!r} is no regular expression: {error}") from None


class FSDDDataModule(WaveformDataModule):
    """The Free Spoken Digit Dataset (Jackson et al. 2018): 3,000 recordings of six people saying 0 to 9, at 8 kHz.

    Named `{digit}_{speaker}_{index}.wav`, 0.14 to 2.3 seconds long, 0.44 on average. The customary split: the 300
    recordings with an index from 0 to 4 are for testing. After the end of a recording come exact zeros, and a
    likelihood ends there, too (`WaveformDataModule`): of the test data's 300 · 4,096 samples 79 % are sound.

    Args:
        root: the folder that holds, or will hold, the recordings as `<root>/fsdd/recordings/*.wav`. They are
            downloaded if that folder is missing.
        length, pieces: see `WaveformDataModule`.
        batch_size, val_size, classes, limit, seed: see `DataModule`.

    Raises:
        FileNotFoundError: (from `prepare_data`) if the recordings are missing and cannot be downloaded.
        ValueError: (from `setup`) if a file cannot be read.
    """

    address = "https://github.com/Jakobovski/free-spoken-digit-dataset/archive/refs/tags/v1.0.10.tar.gz"
    dataset = "the Free Spoken Digit Dataset"
    files = ("fsdd/recordings/0_george_0.wav",)  # under root, among others
    num_classes = 10
    num_train = 2700

    def __init__(
        self,
        root: str = "data",
        length: int = 4096,
        pieces: Pieces = "first",
        batch_size: int = 16,
        val_size: int = 300,
        classes: list[int] | None = None,
        limit: int | None = None,
        seed: int = 0,
    ):
        super().__init__(
            length=length,
            sample_rate=8000,
            pieces=pieces,
            batch_size=batch_size,
            val_size=val_size,
            classes=classes,
            limit=limit,
            seed=seed,
        )
        self.folder = at_home(root) / "fsdd" / "recordings"
        self.save_hyperparameters(logger=False)

    def prepare_data(self) -> None:
        """Download the recordings if they are missing: whole, or not at all."""
        if self.folder.is_dir():
            return
        try:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self.folder.parent) as temporary:
                archive, _ = urllib.request.urlretrieve(self.address, Path(temporary, "archive.tar.gz"))
                with tarfile.open(archive) as tar:
                    tar.extractall(temporary, filter="data")
                next(Path(temporary).glob("*/recordings")).rename(self.folder)
        except (OSError, EOFError, tarfile.TarError, StopIteration, zlib.error) as error:
            if self.folder.is_dir():  # by another process, in the meantime
                return
            raise FileNotFoundError(
                f"the recordings are not in {self.folder.resolve()}, and could not be downloaded. Without a network,"
                f" copy them there from {self.address}. The download said: {error!r}"
            ) from error

    def find(self, split: str) -> list[LabelledFile]:
        """The recordings, by the digit and the index in their names."""
        files = []
        for name in find_sounds(self.folder, WAV):
            match = re.fullmatch(r"(\d)_[^/]+_(\d+)\.wav", name)
            if match is None:
                raise ValueError(f"{self.folder / name} is not named {{digit}}_{{speaker}}_{{index}}.wav: remove it")
            if (int(match[2]) < 5) == (split == "test"):
                files.append(LabelledFile(self.folder / name, int(match[1])))
        return files
