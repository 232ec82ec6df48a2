"""Standard image data sets, held in memory as uint8."""

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from genzoo.datamodules.augmentation import Augmentation
from genzoo.datamodules.base import DataModule, InMemory, Source, seeded
from genzoo.zoo.files import at_home

Binarize = Literal["none", "threshold", "static", "dynamic"]

# Constants, so that the test digits and the bits that are drawn once are the same for everyone.
DIGITS_SEED = 17_970_000
BINARIZE_SEED = 20_080_000


class ImageDataModule(DataModule):
    """Images as float32 in [0, 1] on the grid k / (levels - 1).

    For images in arrays of your own, state `shape`, `levels` and `num_classes` and return the arrays:

        class Faces(ImageDataModule):
            shape, levels = (1, 64, 64), 256

            def load_images(self, split):
                return torch.from_numpy(np.load(f"faces_{split}.npy")), None

        trainer.fit(model, Faces(val_size=1000, batch_size=64))

    Binarised data are three different tasks, whose likelihoods do not compare:

    - `threshold`: 1 where the grey value is above one half;
    - `static`: every pixel drawn once, 1 with the probability of its grey value (as Larochelle & Murray 2011;
      the draw is ours, not their file);
    - `dynamic`: training images are drawn anew each time they are seen (Salakhutdinov & Murray 2008; Burda et
      al. 2016); validation and test images have the bits of `static`.

    Args:
        binarize: none, threshold, static or dynamic.
        split: batch_size, val_size, classes, limit and seed, see `DataModule`.

    Raises:
        ValueError: for any argument out of its range.
    """

    def __init__(self, *, binarize: Binarize = "none", **split: Any) -> None:
        if binarize not in get_args(Binarize):
            raise ValueError(f"binarize is {binarize!r}, but must be one of {', '.join(get_args(Binarize))}")
        super().__init__(**split)
        if self.levels is None:
            raise TypeError(f"{type(self).__name__} must state `levels`: its images are stored as 0 to levels - 1")
        self.binarize = binarize
        self.top = self.levels - 1  # the stored value that means 1.0
        if binarize != "none":
            self.levels = 2

    def load_images(self, split: str) -> tuple[Tensor, Tensor | None]:
        """(N, C, H, W) uint8 levels, and (N,) int64 labels or None, of the "train" or "test" data."""
        raise NotImplementedError

    def load(self, split: str) -> Source:
        """The images of a split as training wants them."""
        images, labels = self.load_images(split)
        if self.binarize == "threshold":
            images = (images > self.top / 2).to(torch.uint8) * self.top
        if self.binarize == "static":
            images = draw_once(images, self.top, split)
        return InMemory(images, labels)

    def freeze(self, source: Source, split: str) -> Source:
        """The images of a split as evaluation wants them: without noise."""
        if self.binarize != "dynamic":
            return source
        assert isinstance(source, InMemory)
        return InMemory(draw_once(source.x, self.top, split), source.labels, source.files)

    def scale(self, stored: Tensor) -> Tensor:
        """Stored levels to [0, 1]."""
        return rescale(stored, self.top)

    @property
    def noise(self) -> Callable[[Tensor, torch.Generator], Tensor] | None:
        """The draw that dynamic binarisation makes for every training batch."""
        return draw if self.binarize == "dynamic" else None


def rescale(stored: Tensor, top: int) -> Tensor:
    """uint8 levels of 0 to `top` as float32 in [0, 1]."""
    # By numpy, in one thread: a batch is too small for torch to share it out over threads at a gain, and waiting
    # for them takes a hundred times as long as the work when the cores are busy with something else.
    return torch.from_numpy(np.divide(stored.numpy(), top, dtype=np.float32))


def draw(grey: Tensor, generator: torch.Generator) -> Tensor:
    """Bits as float32, each 1 with the probability that `grey`, in [0, 1], gives."""
    uniform = torch.rand(grey.shape, generator=generator)
    return torch.from_numpy(np.less(uniform.numpy(), grey.numpy()).astype(np.float32))  # see rescale


def draw_once(images: Tensor, top: int, split: str) -> Tensor:
    """uint8 images of 0 and `top`, each pixel `top` with probability pixel / top.

    The draw is over the whole data set before it is split or cut, so that an image has the same bits whatever
    `classes`, `val_size` or `limit` select.
    """
    generator = seeded(BINARIZE_SEED, ("train", "test").index(split))
    bits = [draw(rescale(chunk, top), generator).to(torch.uint8) for chunk in images.split(4096)]
    return torch.cat(bits) * top


class DigitsDataModule(ImageDataModule):
    """The 8 × 8 digits of the UCI repository with 17 grey levels, as scikit-learn ships them.

    Nothing is downloaded.

    1,797 images: 1,437 for training and validation, 360 for testing (a fixed random choice).

    Args:
        batch_size, val_size, classes, limit, seed: see `DataModule`.
        binarize: see `ImageDataModule`.
    """

    shape = (1, 8, 8)
    levels: int | None = 17
    num_classes = 10
    num_train = 1437
    protocol: Mapping[str, Any] = {"extractor": "digits/classifier", "num_samples": 1257, "num_odd": 360}

    def __init__(
        self,
        batch_size: int = 64,
        binarize: Binarize = "none",
        val_size: int = 180,
        classes: list[int] | None = None,
        limit: int | None = None,
        seed: int = 0,
    ):
        super().__init__(
            binarize=binarize,
            batch_size=batch_size,
            val_size=val_size,
            classes=classes,
            limit=limit,
            seed=seed,
        )
        self.save_hyperparameters(logger=False)

    def load_images(self, split: str) -> tuple[Tensor, Tensor]:
        """The images of scikit-learn's `load_digits`."""
        images, labels = _digits()
        order = torch.randperm(len(images), generator=seeded(DIGITS_SEED))
        rows = order[: self.num_train] if split == "train" else order[self.num_train :]
        return images[rows], labels[rows]


@cache
def _digits() -> tuple[Tensor, Tensor]:
    """All of them, which are a text that takes long to read."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    return torch.from_numpy(digits.images).to(torch.uint8).unsqueeze(1), torch.from_numpy(digits.target).long()


class TorchvisionDataModule(ImageDataModule):
    """A data set that torchvision knows how to download and to read, in torchvision's own layout.

    Args:
        root: the folder that holds, or will hold, the data set's own folder (`<root>/MNIST/raw`, for
            example). Files that are missing are downloaded.
        batch_size, val_size, classes, limit, seed: see `DataModule`.
        binarize: see `ImageDataModule`.
        flip, shift: of the training batches, see `Augmentation`; a mirrored digit may be none.

    Raises:
        FileNotFoundError: (from `prepare_data`) if files are missing and cannot be downloaded.
        ValueError: (from `setup`) if the files are there but cannot be read.
    """

    dataset: str  # the class's name in torchvision.datasets
    files: tuple[str, ...]  # under root
    levels: int | None = 256
    num_classes = 10

    def __init__(
        self,
        root: str = "data",
        batch_size: int = 128,
        binarize: Binarize = "none",
        val_size: int = 5000,
        classes: list[int] | None = None,
        limit: int | None = None,
        seed: int = 0,
        flip: bool = False,
        shift: int = 0,
    ):
        super().__init__(
            binarize=binarize,
            batch_size=batch_size,
            val_size=val_size,
            classes=classes,
            limit=limit,
            seed=seed,
        )
        self.root = str(at_home(root))
        self.augmentation = Augmentation(flip, shift, self.shape)
        self.save_hyperparameters(logger=False)

    def prepare_data(self) -> None:
        """Download what is missing."""
        missing = [file for file in self.files if not (Path(self.root) / file).is_file()]
        if not missing:
            return
        from torchvision import datasets

        try:
            getattr(datasets, self.dataset)(self.root, download=True)
        except (OSError, RuntimeError) as error:
            raise FileNotFoundError(
                f"{self.dataset} is not under root={self.root!r} ({', '.join(missing)} missing in "
                f"{Path(self.root).resolve()}), and could not be downloaded. Without a network, copy the "
                f"files there, or pass as root the folder that has them. The download said: {error}"
            ) from error

    def load_images(self, split: str) -> tuple[Tensor, Tensor]:
        """What torchvision reads from its files."""
        from torchvision import datasets

        try:
            data = getattr(datasets, self.dataset)(self.root, train=split == "train")
            images, labels = torch.as_tensor(data.data), torch.as_tensor(data.targets).long()
            images = images.unsqueeze(1) if images.ndim == 3 else images.permute(0, 3, 1, 2).contiguous()
            if images.shape[1:] != self.shape or len(images) != len(labels):
                raise ValueError(f"found images {tuple(images.shape)} and {len(labels)} labels")
            if not 0 <= labels.min() <= labels.max() < self.num_classes:
                raise ValueError(f"found labels from {labels.min()} to {labels.max()}")
        except Exception as error:  # whatever a damaged file makes the reader stumble over
            raise ValueError(
                f"the {self.dataset} files under {Path(self.root).resolve()} are incomplete or damaged: "
                f"delete {', '.join(self.files)} there and run again. The reader said: {error!r}"
            ) from error
        return images, labels


def _idx_files(folder: str) -> tuple[str, ...]:
    parts = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    return tuple(f"{folder}/raw/{part}-ubyte" for part in parts)


class MNISTDataModule(TorchvisionDataModule):
    """MNIST (LeCun et al. 1998): 60,000 + 10,000 grey images of handwritten digits, 28 × 28."""

    dataset = "MNIST"
    files = _idx_files("MNIST")
    shape = (1, 28, 28)
    protocol: Mapping[str, Any] = {"extractor": "mnist/classifier", "num_odd": 250}


class FashionMNISTDataModule(TorchvisionDataModule):
    """Fashion-MNIST (Xiao et al. 2017): 60,000 + 10,000 grey images of clothes, 28 × 28."""

    dataset = "FashionMNIST"
    files = _idx_files("FashionMNIST")
    shape = (1, 28, 28)
    class_names = (
        *("t-shirt/top", "trouser", "pullover", "dress", "coat"),
        *("sandal", "shirt", "sneaker", "bag", "ankle boot"),
    )
    protocol: Mapping[str, Any] = {"extractor": "fashion/classifier", "num_odd": 250}


class KMNISTDataModule(TorchvisionDataModule):
    """Kuzushiji-MNIST (Clanuwat et al. 2018): 60,000 + 10,000 cursive Japanese characters, 28 × 28."""

    dataset = "KMNIST"
    files = _idx_files("KMNIST")
    shape = (1, 28, 28)


class CIFAR10DataModule(TorchvisionDataModule):
    """CIFAR-10 (Krizhevsky 2009): 50,000 + 10,000 colour photographs in ten classes, 32 × 32."""

    dataset = "CIFAR10"
    files = tuple(
        f"cifar-10-batches-py/{file}"
        for file in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta")
    )
    shape = (3, 32, 32)
    class_names = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
