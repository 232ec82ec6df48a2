"""Reading data: MNIST's files and a folder of images, beside torchvision's data sets in a DataLoader.

An epoch of ours counts from the datamodule's construction to the last batch where it says "first", so with finding,
decoding and keeping the files; and over what is in memory where it says "later". torchvision's begins each time anew.
"""

import functools
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from benchmarks import data
from benchmarks.contest import Contest, Rival
from genzoo.datamodules import ImageFolderDataModule, MNISTDataModule

SIDE, SHIFT = 32, 4


def contests(quick: bool) -> Iterator[Contest]:
    """All of them."""

    def theirs(kind: Any, *moved: Any) -> Iterable[Any]:
        transform = transforms.Compose([*moved, transforms.ToTensor()])
        return DataLoader(kind(transform=transform), 128, shuffle=True, drop_last=True, num_workers=2)

    def mnist(kind: str, wanted: float | None) -> Contest:
        module = functools.cache(lambda: prepared(MNISTDataModule(str(data.mnist()), binarize=kind)))
        torchvision = partial(datasets.MNIST, str(data.mnist()))
        rival = Rival("torchvision, 2 workers", lambda n: epochs(n, theirs(torchvision)), wanted)
        name = "MNIST, binarised anew" if kind == "dynamic" else "MNIST"
        return Contest("reading", name, "epoch", lambda n: epochs(n, module().train_dataloader()), [rival], (0, 1))

    yield mnist("none", 20)
    yield mnist("dynamic", None)

    number = 2_000 if quick else 10_000
    root = functools.cache(lambda: str(data.pictures(number, (3, SIDE, SIDE), "jpg")))
    in_memory = functools.cache(lambda: images(root()))
    rival = Rival(
        "torchvision, 2 workers", lambda n: epochs(n, theirs(lambda **kw: datasets.ImageFolder(root(), **kw))), 1.0
    )
    first = Contest(
        "reading",
        f"{number:,} JPEG of 32×32, first epoch",
        "epoch",
        lambda n: [epochs(1, images(root()).train_dataloader()) for _ in range(n)],
        [rival],
        (0, 1),
    )
    yield first
    later = Rival(rival.name, rival.run, 50, steps=(0, 1))
    name = first.name.replace("first epoch", "later epochs")
    yield Contest("reading", name, "epoch", lambda n: epochs(n, in_memory().train_dataloader()), [later], (0, 10))

    augmented = functools.cache(lambda: images(root(), flip=True, shift=SHIFT))
    moved = (transforms.RandomHorizontalFlip(), transforms.RandomCrop(SIDE, padding=SHIFT, padding_mode="reflect"))
    held = functools.cache(lambda: theirs(partial(decoded, root()), *moved))
    name = f"{number:,} pictures of 32×32 in memory, flipped and shifted"
    rival = Rival(rival.name, lambda n: epochs(n, held()), 20, steps=(0, 1))
    yield Contest("reading", name, "epoch", lambda n: epochs(n, augmented().train_dataloader()), [rival], (0, 10))


def decoded(root: str, transform: Any) -> datasets.ImageFolder:
    """With its pictures in memory, as torchvision's CIFAR10 has them."""
    read = functools.cache(datasets.folder.default_loader)
    pictures = datasets.ImageFolder(root, transform, loader=read)
    for path, _ in pictures.samples:
        read(path)
    return pictures


def images(root: str, **augmentation: Any) -> ImageFolderDataModule:
    """Nearly all of them for training, as torchvision has all."""
    few = {"val_fraction": 0.001, "test_fraction": 0.001}
    return prepared(ImageFolderDataModule(root, SIDE, batch_size=128, **few, **augmentation))


def prepared(module: Any) -> Any:
    module.prepare_data()
    module.setup("fit")
    return module


def epochs(number: int, loader: Iterable[Any]) -> None:
    for _ in range(number):
        for _ in loader:
            pass
