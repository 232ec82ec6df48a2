"""A user's own images: held in memory where they fit, read by workers where they do not."""

import math
import os
import re
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import PIL
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn
from PIL import ExifTags, Image, ImageOps
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from genzoo.datamodules.augmentation import Augmentation
from genzoo.datamodules.base import SPLIT_SEED, DataModule, InMemory, Source, seeded
from genzoo.datamodules.duplicates import same_files, say_copies
from genzoo.datamodules.files import BESIDE, HIDDEN, FileSearch, is_hidden
from genzoo.datamodules.images import rescale
from genzoo.datamodules.reading import can_fork, each, kept
from genzoo.zoo.files import at_home

# Formats that Pillow knows by sight only, or reads by way of another program.
NOT_READ = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "PDF", "WMF"}
SEVERAL_FRAMES = {"AVIF", "DCX", "FLI", "GIF", "PNG", "TIFF", "WEBP"}  # formats of animations, or of several pages

#: how an image is turned upright, by what EXIF calls its orientation
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

Item = TypeVar("Item")

TEST_SEED = 20_150_000  # which files are test files, where there is no folder of them

LOOKED_AT = 100  # pictures of a folder, by which size and colour are chosen
LARGEST = 32  # pixels a side that are chosen: what a processor learns in a quarter of an hour
GREY = 8  # of 255: how far apart red, green and blue may lie in a picture without colour


@cache
def image_suffixes() -> frozenset[str]:
    """The suffixes of the image files that this installation of Pillow reads."""
    Image.preinit()  # the usual kinds first: a file is tried as each kind in this order
    Image.init()
    known = Image.registered_extensions().items()
    return frozenset(suffix for suffix, kind in known if kind in Image.OPEN and kind not in NOT_READ)


def decode(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """One image file as uint8 (C, H, W): turned upright, cut to its middle, resized by Lanczos.

    Grey becomes colour and colour grey (by luma, ITU-R 601), as `shape` asks; palettes and CMYK become colour.
    Transparent parts become white. Of an animation, or of several pages, it is the first. Of 16 bits a channel Pillow
    reads the upper 8 where there is colour; grey images of 16 bits are refused, because what is white is not certain.

    Raises:
        ValueError: naming the file, if it cannot be decoded or has more than 8 bits a channel.
    """
    channels, height, width = shape
    mode = "L" if channels == 1 else "RGB"
    try:
        with Image.open(path) as file:
            if file.mode[0] in "IF":
                raise ValueError(
                    f"it has more than 8 bits a channel (Pillow's mode {file.mode!r}), and what is white is not"
                    " certain; convert it to 8 bits"
                )
            image = upright(file)
            if image.has_transparency_data:
                image = image.convert("RGBA")
                image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
            # each of these would copy, where it has nothing to do
            if image.mode != mode:
                image = image.convert(mode)
            if image.size != (width, height):
                image = ImageOps.fit(image, (width, height), method=Image.Resampling.LANCZOS)
            pixels = np.array(image)
    except Exception as error:  # a damaged file makes Pillow's decoders raise nearly anything
        why = str(error) or type(error).__name__
        raise ValueError(f"the image {path} cannot be used: {why}. Repair or remove it") from error
    return np.ascontiguousarray(pixels.reshape(height, width, channels).transpose(2, 0, 1))


def upright(image: Image.Image) -> Image.Image:
    """An image turned as its EXIF note says; as it is, where there is none, or none that can be read."""
    image.load()  # TIFF turns itself
    try:
        way = TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # a damaged note makes Pillow raise several kinds of error, and spoils no picture
        way = None
    return image if way is None else image.transpose(way)


def look_at(paths: Sequence[Path]) -> tuple[int, bool]:
    """The median of the pictures' shorter sides, and whether any has colour; of `LOOKED_AT`, spread over all.

    Raises:
        ValueError: as `decode`, if none of them can be used.
    """
    chosen = paths[:: math.ceil(len(paths) / LOOKED_AT)]
    sides, colour, shape = [], False, (3, LARGEST, LARGEST)
    for path in chosen:
        try:
            with Image.open(path) as file:
                side, grey = min(file.size), file.mode in ("1", "L", "LA")
            if not (grey or colour):
                colour = bool(np.ptp(decode(path, shape), axis=0).max() > GREY)
            sides.append(side)
        except Exception:  # as in `decode`, which will speak of it where it is read
            continue
    if not sides:
        decode(chosen[0], shape)
    return round(float(np.median(sides))), colour


def upright_size(path: Path) -> tuple[int, int]:
    """The width and the height of an image, turned as `decode` turns it; ValueError, naming it, if it is none."""
    try:
        with Image.open(path) as file:
            return upright(file).size
    except Exception as error:  # as in `decode`
        raise ValueError(f"the image {path} cannot be used: {error or type(error).__name__}") from error


def verify(path: Path, shape: tuple[int, ...]) -> None:
    """Find a damaged file at a fraction of the cost of decoding it.

    A PNG file has checksums, and a JPEG file that was cut short lacks its end marker. `decode` judges
    whatever is not seen to be whole in that way.

    Raises:
        ValueError: as `decode`.
    """
    try:
        with Image.open(path) as file, open(path, "rb") as raw:
            raw.seek(-min(64, path.stat().st_size), os.SEEK_END)
            whole = file.format == "PNG" or (file.format == "JPEG" and b"\xff\xd9" in raw.read())
            whole = whole and file.mode[0] not in "IF"
            file.verify()
    except Exception:
        whole = False
    if not whole:
        decode(path, shape)


def kind_of(path: Path) -> str | None:
    """Pillow's name of the format, by the file's suffix."""
    return Image.registered_extensions().get(path.suffix.lower())


def has_several_frames(path: Path) -> bool:
    """Whether an image file is an animation or has several pages; of a damaged one `decode` will speak."""
    try:
        with Image.open(path) as file:
            return getattr(file, "is_animated", False)
    except Exception:  # as in `decode`
        return False


class OnDisk(Dataset):
    """A source that reads its files when they are wanted, ahead of time, in worker processes.

    Args:
        paths: N image files.
        labels: (N,) int64, or None.
        shape: (C, H, W) of the decoded images.
        num_workers: processes that read ahead, where they can be forked; 0 reads in this one.
    """

    def __init__(self, paths: Sequence[Path], labels: Tensor | None, shape: tuple[int, ...], num_workers: int):
        self.paths, self.labels, self.shape, self.num_workers = paths, labels, shape, num_workers

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def files(self) -> list[str]:
        """The path of each row."""
        return [str(path) for path in self.paths]

    def __getitem__(self, rows: Tensor) -> Tensor | ValueError:
        try:
            return torch.from_numpy(np.stack([decode(self.paths[row], self.shape) for row in rows.tolist()]))
        except ValueError as error:  # which a worker would bury under the lines of its traceback
            return error

    def select(self, rows: Tensor) -> "OnDisk":
        """See `Source`."""
        labels = None if self.labels is None else self.labels[rows]
        return OnDisk([self.paths[row] for row in rows.tolist()], labels, self.shape, self.num_workers)

    def read(self, batches: Sequence[Tensor]) -> Iterator[Tensor]:
        """See `Source`."""
        workers = self.num_workers if can_fork() else 0  # a process that is started anew runs the user's script again
        # A generator of its own: a DataLoader without one draws a seed from the training's random state.
        for batch in DataLoader(
            self,
            batch_size=None,
            sampler=batches,
            num_workers=workers,
            generator=torch.Generator(),
            worker_init_fn=deaf,
            multiprocessing_context="fork" if workers else None,
        ):
            if isinstance(batch, ValueError):
                raise batch
            yield batch

    def to_memory(self) -> InMemory:
        """The same images, decoded now; or from the disk, where decoding them took long before."""
        made_by = {"what": "genzoo.datamodules.folder.decode", "shape": self.shape, "Pillow": PIL.__version__}
        images = torch.from_numpy(kept(self.decoded, self.paths, made_by))
        return InMemory(images, self.labels, self.files)

    def decoded(self) -> np.ndarray:
        """All images, (N, C, H, W) uint8."""
        images = np.empty((len(self), *self.shape), np.uint8)
        decode_one = partial(decode, shape=self.shape)
        for row, image in enumerate(each(decode_one, self.paths, "decoding images", alone=self.num_workers == 0)):
            images[row] = image
        return images


LINGER = 30  # seconds


def deaf(worker: int) -> None:
    """Leaves signals to the main process, which saves and then ends its workers: a whole group may be sent one.

    Not for ever: at its exit Python ends what is left of them by the same SIGTERM, and then waits.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "alarm"):  # not on Windows, which sends none of these to a group
        signal.signal(signal.SIGTERM, lambda *_: signal.alarm(LINGER))


def natural(name: str) -> tuple[list[tuple[int, int | str]], str]:
    """The sort key that puts numbers within names in the order of their values, no two names in the same place."""
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in re.split(r"(\d+)", name)], name


@dataclass(frozen=True)
class LabelledFile:
    """Where a datum is, and the number of its class if it has one."""

    path: Path
    label: int | None


def scan(root: Path) -> tuple[dict[str, list[LabelledFile]], list[str]]:
    """The images of each split that has a folder (otherwise all are "train"), and the class names.

    Within a split 2.png comes before 10.png. What is left out is said once.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"there is no folder {root.resolve()}: pass as root the folder that has the images")
    search = FileSearch(image_suffixes())
    splits: dict[str, list[LabelledFile]] = {}
    class_names: list[str] = []
    taken: dict[str, str] = {}  # the split of each file, by where it really lies
    for split, folder in folders_of_splits(root, search).items():
        found = search.below(folder)
        if not found:
            raise FileNotFoundError(
                f"there is no image in {folder.resolve()}, of any kind that Pillow reads"
                + (f". There are: {search.in_words()}" if search.left_out else "")
            )
        for file, path in found.items():
            if taken.setdefault(file, split) != split:
                raise ValueError(
                    f"{path} is the same file as one of {root / taken[file]}: an image is in one split alone"
                )
        paths = sorted(found.values(), key=lambda file: natural(file.as_posix()))
        depth = len(folder.parts)
        names = [path.parts[depth] if len(path.parts) > depth + 1 else "" for path in paths]
        if split == "train":
            class_names = sorted(set(names) - {""}, key=natural)
        if not set(names) <= (set(class_names) or {""}):
            raise ValueError(
                f"the images in {folder.resolve()} must lie directly in it, or in class folders that the "
                f"training images have too; found {', '.join(sorted({n or '(none)' for n in names}))}"
            )
        numbers = {name: number for number, name in enumerate(class_names)}
        splits[split] = [LabelledFile(path, numbers.get(name)) for path, name in zip(paths, names, strict=True)]
    search.say(root)
    return splits, class_names


LOOK_LIKE_SPLITS = {"train", "training", "val", "valid", "validation", "test", "testing"}


def folders_of_splits(root: Path, search: FileSearch) -> dict[str, Path]:
    """The folders train, val and test, as far as there are any of them; or else `root`, for training."""
    inside = {path.name: path for path in sorted(root.iterdir())}
    folders = {name: path for name, path in inside.items() if path.is_dir() and not is_hidden(name)}
    if "train" not in folders:
        if folders and {name.lower() for name in folders} <= LOOK_LIKE_SPLITS:
            raise ValueError(
                f"{root.resolve()} has the folders {', '.join(sorted(folders))}, which look like splits: call them"
                " train, and val and test as far as there are any"
            )
        return {"train": root}
    if others := sorted(set(folders) - {"train", "val", "test"}):
        raise ValueError(
            f"{root.resolve()} has a folder train, so its others must be val and test, but there is also "
            f"{', '.join(others)}: rename or move it"
        )
    for name in inside.keys() - folders.keys():
        search.leave_out(HIDDEN if is_hidden(name) else BESIDE, name)
    return {split: folders[split] for split in ("train", "val", "test") if split in folders}


def part_of(number: int, fraction: float) -> int:
    """How many of so many examples a fraction is: at least one, and not all if there are several."""
    return max(1, min(round(fraction * number), number - 1))


def hold_out(files: Sequence[Item], fraction: float) -> tuple[list[Item], list[Item]]:
    """The files (or rows) that are kept and those that are held out for testing, by a fixed random choice."""
    order = torch.randperm(len(files), generator=seeded(TEST_SEED)).tolist()
    held_out = set(order[: part_of(len(files), fraction)])
    kept = [file for row, file in enumerate(files) if row not in held_out]
    return kept, [file for row, file in enumerate(files) if row in held_out]


def suitable_batch(size: int, num_train: int) -> int:
    """How many pictures of that size, of so many, make up a batch: see `ImageFolderDataModule`."""
    return max(1, min(64, 64 * 64**2 // size**2, num_train // 8))


class ImageFolderDataModule(DataModule):
    """A folder of the user's own images as float32 (C, size, size) in [0, 1], 256 levels.

    Every kind of image that Pillow reads is read, at any depth and through links; see `decode` for what becomes of
    transparency and the like. Files of other kinds, hidden ones and those that several links lead to are counted, and
    what is left out is said once. The folder has one of these forms, recognised by itself:

    - `root/*.png`: images without labels; a batch is x;
    - `root/<class>/**/*.png`: labelled images; the classes are numbered in natural order; a batch is (x, y);
    - `root/train`, and `root/val` and `root/test` or either of them, each in one of the first two forms.

    Where there is no `val` or `test`, a fixed random part of the others is held out.

    Args:
        root: the folder.
        size: height and width to which images are brought (the middle square, resized); auto: as most of them are,
            but 32 at most.
        channels: 3 for colour, 1 for grey; auto: as they are.
        batch_size: see `DataModule`; auto: 64 up to 64 × 64 pixels, of larger ones fewer, so that they take as much
            memory; at most an eighth of those for training.
        classes, limit, seed: see `DataModule`.
        val_fraction: part of the training images that is held out where there is no `root/val`.
        test_fraction: part of all images that is held out where there is no `root/test`.
        in_memory: decode all images once and keep them (true), read them for each batch (false), or keep them
            if they take no more than `memory_limit` (auto). The batches are the same, bit for bit.
        memory_limit: bytes of decoded images, one byte a value.
        num_workers: processes that read images which are not kept. What is decoded to be kept is decoded by as many
            as there are processors, if it takes more than a moment. 0: this one does all of it.
        flip, shift: of the training batches, see `Augmentation`.

    Raises:
        FileNotFoundError: if there is no such folder, or no image in it.
        ValueError: for any argument out of its range, a folder of another form, or an image that is in two splits by
            a link; from `prepare_data` or `setup`, naming it, for an image that cannot be decoded.
    """

    levels: int | None = 256

    def __init__(
        self,
        root: str,
        size: int | Literal["auto"] = "auto",
        channels: int | Literal["auto"] = 3,
        batch_size: int | Literal["auto"] = 128,
        val_fraction: float = 0.1,
        test_fraction: float = 0.1,
        classes: list[int] | None = None,
        limit: int | None = None,
        seed: int = 0,
        in_memory: bool | Literal["auto"] = "auto",
        memory_limit: int = 2 * 2**30,
        num_workers: int = 2,
        flip: bool = False,
        shift: int = 0,
    ):
        for name, value, fits, expected in (
            ("size", size, isinstance(size, int) and size >= 1, "a whole number, at least 1"),
            ("channels", channels, channels in (1, 3), "1 or 3"),
            ("batch_size", batch_size, not isinstance(batch_size, str), "a whole number, at least 1"),
        ):
            if not fits and value != "auto":
                raise ValueError(f"{name} is {value!r}, but must be {expected}, or auto")
        if not (0 < val_fraction < 1 and 0 < test_fraction < 1):
            raise ValueError(
                f"val_fraction is {val_fraction} and test_fraction {test_fraction}: each must lie between 0 and 1"
            )
        if in_memory not in (True, False, "auto"):
            raise ValueError(f"in_memory is {in_memory!r}, but must be true, false or auto")
        if num_workers < 0:
            raise ValueError(f"num_workers is {num_workers}, but must be at least 0")
        self.name = at_home(root).resolve().name
        self._root = at_home(root)
        self.files, self.class_names = scan(self._root)
        self.by_chance = "test" not in self.files
        self.num_classes = len(self.class_names) or None
        followed = [name for name, value in {"size": size, "channels": channels}.items() if value == "auto"]
        if followed:
            side, colour = look_at([file.path for file in self.files["train"]])
            size = min(side, LARGEST) if size == "auto" else size
            channels = (3 if colour else 1) if channels == "auto" else channels
        assert size != "auto" and channels != "auto"
        self.shape = (channels, size, size)
        if self.by_chance:
            self.files["train"], self.files["test"] = hold_out(self.files["train"], test_fraction)
        pool = [f for f in self.files["train"] if classes is None or f.label in classes]
        val_size = part_of(len(pool), val_fraction)
        if batch_size == "auto":
            num_train = len(pool) - (0 if "val" in self.files else val_size)
            batch_size = suitable_batch(size, num_train if limit is None else min(limit, num_train))
            followed.append("batch_size")
        super().__init__(
            batch_size=batch_size,
            val_size=val_size,
            classes=classes,
            limit=limit,
            seed=seed,
        )
        decoded_bytes = sum(map(len, self.files.values())) * math.prod(self.shape)
        self.in_memory = decoded_bytes <= memory_limit if in_memory == "auto" else in_memory
        self.num_workers = num_workers
        self.augmentation = Augmentation(flip, shift, self.shape)
        self.save_hyperparameters(logger=False)
        self.hparams.update(size=size, channels=channels, batch_size=batch_size)  # as they came to be
        if followed:
            self._say(followed)

    def _say(self, followed: list[str]) -> None:
        """What the pictures are taken for, and which arguments say otherwise."""
        num, (channels, size, _) = sum(map(len, self.files.values())), self.shape
        kind = f"{size} × {size} pixels, {'grey' if channels == 1 else 'in colour'}"
        classes = f", {self.num_classes} classes" if self.num_classes else ""
        mirrored = ", mirrored at random in training (--data.flip false)" if self.hparams["flip"] else ""
        others = ", ".join(f"--data.{name}" for name in followed)
        rank_zero_info(
            f"{self.name}: {num:,} pictures, read at {kind}{classes}, in batches of {self.batch_size}{mirrored};"
            f" {others} will have it otherwise."
        )

    def divided(self) -> list[bytes]:
        """See `DataModule`: the pictures' names."""
        if not self.by_chance:
            return []
        files = self.files["train"] + self.files["test"]
        names = sorted(file.path.relative_to(self._root).as_posix() for file in files)
        return [os.fsencode("\0".join([*names, str(len(self.files["test"]))]))]

    def prepare_data(self) -> None:
        """Look for damaged files, where `setup` will not decode them all, for copies, and for several frames."""
        paths, alone = [file.path for files in self.files.values() for file in files], self.num_workers == 0
        if not self.in_memory:
            for _ in each(partial(verify, shape=self.shape), paths, "looking at images", alone=alone):
                pass
        held_out = [file.path for file in self.files["test"]]
        trained_on = [file.path for split in ("train", "val") for file in self.files.get(split, [])]
        say_copies(same_files(held_out, trained_on, alone=alone), len(held_out), "pictures")
        perhaps = [path for path in paths if kind_of(path) in SEVERAL_FRAMES]
        found = each(has_several_frames, perhaps, "counting frames", alone=alone)
        animated = [path for path, several in zip(perhaps, found, strict=True) if several]
        if animated:
            rank_zero_warn(
                f"{len(animated)} of {len(paths)} images have several frames or pages, of which the first is read"
                f" (such as {animated[0]}): store them as images of their own to have the others read, too"
            )

    def load(self, split: str) -> Source:
        """The images of a split; those of `root/val`, if there are any, come after those of "train"."""
        files = self.files[split] + (self.files.get("val", []) if split == "train" else [])
        labels = torch.tensor([file.label for file in files]) if self.class_names else None
        source = OnDisk([file.path for file in files], labels, self.shape, self.num_workers)
        return source.to_memory() if self.in_memory else source

    def split(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """As the folders say, or else as in `DataModule`."""
        if "val" not in self.files:
            return super().split(rows)
        own = rows < len(self.files["train"])
        train, val = rows[own], rows[~own]
        if not len(train) or not len(val):
            raise ValueError(
                f"classes={self.classes} leave {len(train)} images in train and {len(val)} in val: name others, too"
            )
        train = train[torch.randperm(len(train), generator=seeded(SPLIT_SEED))]
        # the first of them, which are all that some runs validate on, are of all classes
        return train, val[torch.randperm(len(val), generator=seeded(SPLIT_SEED, 1))]

    def scale(self, stored: Tensor) -> Tensor:
        """uint8 to [0, 1]."""
        return rescale(stored, 255)
