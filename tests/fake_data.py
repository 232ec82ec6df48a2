"""Small files in the layout of the real data sets."""

import struct
from pathlib import Path

import torch
from torch import Tensor


def write_idx(path: Path, array: Tensor) -> None:
    """The format of the MNIST files: magic number, sizes, bytes."""
    header = struct.pack(f">I{array.ndim}I", 0x0800 + array.ndim, *array.shape)
    path.write_bytes(header + array.numpy().tobytes())


def write_mnist(root: Path, num_train: int = 60, num_test: int = 30) -> None:
    """MNIST as torchvision lays it out, of noise."""
    generator = torch.Generator().manual_seed(0)
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name, num in (("train", num_train), ("t10k", num_test)):
        images = torch.randint(256, (num, 28, 28), generator=generator, dtype=torch.uint8)
        write_idx(raw / f"{name}-images-idx3-ubyte", images)
        write_idx(raw / f"{name}-labels-idx1-ubyte", torch.arange(num, dtype=torch.uint8) % 10)
