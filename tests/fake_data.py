"""Small files in the layout of the real data sets."""

import pickle
import struct
import wave
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor


def write_idx(path: Path, array: Tensor) -> None:
    """The format of the MNIST files: magic number, sizes, bytes."""
    header = struct.pack(f">I{array.ndim}I", 0x0800 + array.ndim, *array.shape)
    path.write_bytes(header + array.numpy().tobytes())


def write_mnist(root: Path, num_train: int = 60, num_test: int = 30, folder: str = "MNIST") -> None:
    """MNIST as torchvision lays it out, of noise; or a data set like it, in its own folder."""
    generator = torch.Generator().manual_seed(0)
    raw = root / folder / "raw"
    raw.mkdir(parents=True)
    for name, num in (("train", num_train), ("t10k", num_test)):
        images = torch.randint(256, (num, 28, 28), generator=generator, dtype=torch.uint8)
        write_idx(raw / f"{name}-images-idx3-ubyte", images)
        write_idx(raw / f"{name}-labels-idx1-ubyte", torch.arange(num, dtype=torch.uint8) % 10)


def write_cifar10(root: Path, num_each: int = 12) -> None:
    """CIFAR-10 as torchvision lays it out, of noise: five files for training, one for testing."""
    generator = torch.Generator().manual_seed(0)
    folder = root / "cifar-10-batches-py"
    folder.mkdir()
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        pixels = torch.randint(256, (num_each, 3 * 32 * 32), generator=generator, dtype=torch.uint8).numpy()
        labels = [i % 10 for i in range(num_each)]
        (folder / name).write_bytes(pickle.dumps({"data": pixels, "labels": labels}))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": [str(i) for i in range(10)]}))


def write_wav(path: Path, sound: Tensor, sample_rate: int) -> None:
    """A sound (T,) in [−1, 1) as 16-bit PCM."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, sample_rate, 0, "NONE", ""))
        file.writeframes((sound * 2**15).round().to(torch.int16).numpy().astype("<i2").tobytes())


def write_fsdd(root: Path, num_each: int = 8) -> None:
    """The spoken digits in their own layout, of noise: 0 to 4 are for testing, the others for training."""
    generator = torch.Generator().manual_seed(0)
    for digit in range(10):
        for index in range(num_each):
            sound = torch.rand(20 + 5 * digit, generator=generator) - 0.5
            write_wav(root / "fsdd" / "recordings" / f"{digit}_anna_{index}.wav", sound, 8000)


def write_shakespeare(root: Path) -> None:
    """A text where Shakespeare's plays would be."""
    (root / "tinyshakespeare").mkdir()
    (root / "tinyshakespeare" / "input.txt").write_text("Enter two clowns, with spades.\n" * 200)


def write_pictures(root: Path, num_classes: int = 10) -> Path:
    """A folder of one's own pictures, of noise, in classes, for training and for testing; returns where it is."""
    generator = torch.Generator().manual_seed(0)
    for split, num in (("train", 6), ("test", 2)):
        for name in (f"class {i}" for i in range(num_classes)):
            folder = root / "pictures" / split / name
            folder.mkdir(parents=True)
            for i in range(num):
                pixels = torch.randint(256, (8, 8, 3), generator=generator, dtype=torch.uint8).numpy()
                Image.fromarray(pixels).save(folder / f"{i}.png")
    return root / "pictures"
