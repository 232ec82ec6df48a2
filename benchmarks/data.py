"""Random data of every kind: how long a step takes does not depend on them, and nothing need be downloaded."""

import functools
import random
import string
import struct
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from genzoo.datamodules import DataModule, ImageDataModule, InMemory, TextDataModule
from genzoo.datamodules.audio import LEVELS, WaveformDataModule


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


class Images(ImageDataModule):
    """As many images as MNIST has, of 256 levels or of two; with labels of ten classes."""

    def __init__(self, shape: tuple[int, ...], batch_size: int, *, binary: bool = False) -> None:
        self.shape, self.levels, self.num_classes = shape, 256, 10
        super().__init__(batch_size=batch_size, val_size=100, binarize="threshold" if binary else "none")

    def load_images(self, split: str) -> tuple[Tensor, Tensor]:
        return noise(self.shape), torch.arange(60_000) % 10


@functools.cache
def noise(shape: tuple[int, ...]) -> Tensor:
    return torch.randint(256, (60_000, *shape), dtype=torch.uint8, generator=generator())


class Codes(DataModule):
    """As many codes of an autoencoder, continuous."""

    def __init__(self, shape: tuple[int, ...], batch_size: int) -> None:
        self.shape, self.levels = shape, None
        super().__init__(batch_size=batch_size, val_size=100)

    def load(self, split: str) -> InMemory:
        return InMemory(torch.randn(60_000, *self.shape, generator=generator()))


class Sounds(WaveformDataModule):
    """400 sounds."""

    def __init__(self, length: int, batch_size: int) -> None:
        super().__init__(length=length, sample_rate=8000, batch_size=batch_size, val_size=40)

    def load(self, split: str) -> InMemory:
        self.recording = torch.arange(400)
        return InMemory(torch.randint(LEVELS, (400, *self.shape), dtype=torch.short, generator=generator()))


@functools.cache
def folder() -> Path:
    """For what has to lie in files, as long as this process lives."""
    held = tempfile.TemporaryDirectory(prefix="genzoo-bench-")
    folder.held = held  # type: ignore[attr-defined]  # or it would be gone at once
    return Path(held.name)


CHARACTERS = (string.ascii_letters + string.punctuation)[:65]  # as many as Shakespeare's plays have


@functools.cache
def text() -> Path:
    """A million characters, 65 of which are different."""
    path = folder() / "text.txt"
    path.write_text("".join(random.Random(0).choices(CHARACTERS, k=1_000_000)))
    return path


@functools.cache
def tokens() -> Path:
    """As many tokens of 65 kinds, in a file of 16-bit integers."""
    path = folder() / "tokens.bin"
    torch.randint(65, (1_000_000,), generator=generator()).numpy().astype(np.uint16).tofile(path)
    return path


def texts(context: int, batch_size: int) -> DataModule:
    """Windows of it."""
    return TextDataModule(str(text()), context_length=context, batch_size=batch_size)


@functools.cache
def pictures(number: int, shape: tuple[int, int, int], suffix: str) -> Path:
    """A folder of image files with two folders of classes in it: smooth, as photographs are, so no larger either."""
    root = folder() / f"{number}-{'x'.join(map(str, shape))}-{suffix}"
    coarse = torch.rand(number, shape[0], 8, 8, generator=generator())
    for start in range(0, number, 1000):
        smooth = F.interpolate(coarse[start : start + 1000], shape[1:], mode="bicubic").clamp(0, 1)
        pixels = (255 * smooth).byte().permute(0, 2, 3, 1).squeeze(3).numpy()
        for i, image in enumerate(pixels, start):
            path = root / "ab"[i % 2] / f"{i}.{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
    return root


@functools.cache
def mnist() -> Path:
    """The root of files in MNIST's format and of its size, with noise in them."""
    raw = folder() / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, n in (("train", 60_000), ("t10k", 10_000)):
        images, labels = torch.randint(256, (n, 28, 28)), torch.randint(10, (n,))
        for name, values in ((f"{part}-images-idx3-ubyte", images), (f"{part}-labels-idx1-ubyte", labels)):
            header = struct.pack(f">I{values.ndim}I", 0x800 + values.ndim, *values.shape)
            (raw / name).write_bytes(header + values.to(torch.uint8).numpy().tobytes())
    return folder()
