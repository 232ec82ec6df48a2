"""Image data sets: the digits themselves, and torchvision's formats with files made here."""

import inspect
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from genzoo import datamodules
from genzoo.datamodules import (
    CIFAR10DataModule,
    DataModule,
    DigitsDataModule,
    FashionMNISTDataModule,
    ImageDataModule,
    KMNISTDataModule,
    Loader,
    MNISTDataModule,
)

LOADERS = ("train_dataloader", "val_dataloader", "test_dataloader")


def everything(loader: Loader) -> tuple[Tensor, Tensor]:
    x, y = zip(*loader, strict=True)
    return torch.cat(x), torch.cat(y)


def write_idx(path: Path, array: Tensor) -> None:
    """The format of the MNIST files: magic number, sizes, bytes."""
    header = struct.pack(f">I{array.ndim}I", 0x0800 + array.ndim, *array.shape)
    path.write_bytes(header + array.numpy().tobytes())


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """MNIST, of 600 + 100 images whose level is their label * 25, with noise in the first row."""
    generator = torch.Generator().manual_seed(0)
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name, num in (("train", 600), ("t10k", 100)):
        labels = torch.randint(10, (num,), generator=generator, dtype=torch.uint8)
        images = (labels * 25)[:, None, None].repeat(1, 28, 28)
        images[:, 0] = torch.randint(256, (num, 28), generator=generator, dtype=torch.uint8)
        write_idx(raw / f"{name}-images-idx3-ubyte", images)
        write_idx(raw / f"{name}-labels-idx1-ubyte", labels)
    return tmp_path


def mnist(root: Path, **kwargs: Any) -> MNISTDataModule:
    return MNISTDataModule(**{"root": str(root), "batch_size": 32, "val_size": 100, **kwargs})


@pytest.mark.parametrize(
    ("name", "shape", "levels"),
    [
        ("DigitsDataModule", (1, 8, 8), 17),
        ("MNISTDataModule", (1, 28, 28), 256),
        ("FashionMNISTDataModule", (1, 28, 28), 256),
        ("KMNISTDataModule", (1, 28, 28), 256),
        ("CIFAR10DataModule", (3, 32, 32), 256),
    ],
)
def test_the_contract_is_known_before_any_data_are(name: str, shape: tuple[int, ...], levels: int) -> None:
    cls = getattr(datamodules, name)
    data = cls()
    assert (data.shape, data.levels, data.num_classes) == (shape, levels, 10)
    assert cls(binarize="dynamic").levels == 2
    assert set(data.hparams) == set(inspect.signature(cls).parameters)


def test_digits_are_the_whole_real_data_set_on_the_grid() -> None:
    data = DigitsDataModule(batch_size=1)
    splits = [everything(getattr(data, loader)()) for loader in LOADERS]
    assert [len(x) for x, _ in splits] == [1257, 180, 360]
    x, y = (torch.cat(parts) for parts in zip(*splits, strict=True))
    assert x.dtype == torch.float32 and y.dtype == torch.int64
    assert torch.equal((x * 16).round() / 16, x) and x.min() == 0 and x.max() == 1
    from sklearn.datasets import load_digits

    expected = {(*row.astype(int), label) for row, label in zip(*load_digits(return_X_y=True), strict=True)}
    found = {(*(16 * image).int().flatten().tolist(), label.item()) for image, label in zip(x, y, strict=True)}
    assert found == expected


def test_validation_and_test_rows_are_the_same_for_everyone() -> None:
    a, b = DigitsDataModule(seed=0, batch_size=9), DigitsDataModule(seed=1, limit=100, batch_size=50)
    for loader in LOADERS[1:]:
        (x, y), (x2, y2) = everything(getattr(a, loader)()), everything(getattr(b, loader)())
        assert torch.equal(x, x2) and torch.equal(y, y2)
    assert len(everything(b.train_dataloader())[0]) == 100
    larger = DigitsDataModule(seed=5, limit=200, batch_size=50)
    assert_subset(everything(b.train_dataloader())[0], everything(larger.train_dataloader())[0])


def assert_subset(few: Tensor, many: Tensor) -> None:
    assert {row.numpy().tobytes() for row in few} <= {row.numpy().tobytes() for row in many}


def test_reads_the_files_with_labels_and_images_together(root: Path) -> None:
    for loader in (mnist(root), mnist(root, classes=[3, 7], batch_size=4, val_size=20)):
        for name in LOADERS:
            x, y = everything(getattr(loader, name)())
            assert torch.equal((x[:, 0, 5, 5] * 255 / 25).round().long(), y)
            assert torch.equal((x * 255).round() / 255, x)
    assert len(everything(mnist(root).test_dataloader())[0]) == 100


def test_classes_are_a_subset_in_every_split_and_keep_their_numbers(root: Path) -> None:
    data = mnist(root, classes=[3, 7], val_size=20, batch_size=4)
    for name in LOADERS:
        assert set(everything(getattr(data, name)())[1].tolist()) == {3, 7}
    assert data.num_classes == 10


def test_threshold_is_above_one_half() -> None:
    grey, bits = DigitsDataModule(), DigitsDataModule(binarize="threshold")
    for name in LOADERS:
        (x, _), (b, _) = everything(getattr(grey, name)()), everything(getattr(bits, name)())
        assert torch.equal(b, (x > 0.5).float())


def test_static_is_drawn_once_and_dynamic_every_time() -> None:
    epochs = {}
    for binarize in ("static", "dynamic"):
        loader = DigitsDataModule(binarize=binarize, batch_size=1).train_dataloader()
        orders = [torch.cat(list(loader.plan.batches(epoch))) for epoch in range(2)]
        epochs[binarize] = [everything(loader)[0][order.argsort()] for order in orders]
        assert set(epochs[binarize][0].unique().tolist()) == {0, 1}
    assert torch.equal(*epochs["static"])
    assert not torch.equal(*epochs["dynamic"])


def test_static_bits_do_not_depend_on_what_is_selected() -> None:
    whole = everything(DigitsDataModule(binarize="static", batch_size=1).train_dataloader())[0]
    part = DigitsDataModule(binarize="static", batch_size=1, seed=4, limit=50).train_dataloader()
    assert_subset(everything(part)[0], whole)


def test_dynamic_evaluation_is_the_static_draw() -> None:
    static, dynamic = DigitsDataModule(binarize="static"), DigitsDataModule(binarize="dynamic", seed=9)
    for name in LOADERS[1:]:
        for _ in range(2):
            assert torch.equal(everything(getattr(static, name)())[0], everything(getattr(dynamic, name)())[0])


def test_a_bit_is_one_with_the_probability_of_its_grey_value() -> None:
    source = DigitsDataModule(batch_size=1257)
    dynamic = DigitsDataModule(binarize="dynamic", batch_size=1257).train_dataloader()
    grey = everything(source.train_dataloader())[0][dynamic.plan.batches(0)[0].argsort()]
    total = torch.zeros_like(grey)
    for epoch in range(200):
        rows = dynamic.plan.batches(epoch)[0]
        total += everything(dynamic)[0][rows.argsort()]
    z = (total / 200 - grey) / (grey * (1 - grey) / 200).sqrt()
    inside = (grey > 0) & (grey < 1)
    assert torch.equal(total[~inside] / 200, grey[~inside])  # 0 and 1 are certain
    assert abs(z[inside].mean()) < 5 / inside.sum().sqrt() and abs(z[inside].std() - 1) < 0.02


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"binarize": "otsu"}, "binarize is 'otsu', but must be one of none, threshold, static, dynamic"),
        ({"classes": [3, 10]}, r"classes is \[3, 10\], but DigitsDataModule has the labels 0 to 9"),
        ({"classes": []}, "name at least one"),
        ({"val_size": 1437}, "val_size is 1437, but there are only 1437 training examples"),
        ({"val_size": 0}, "val_size is 0, but must be at least 1"),
        ({"batch_size": 0}, "batch_size is 0, but must be at least 1"),
        ({"limit": 0}, "limit is 0, but must be at least 1"),
        ({"seed": -1}, "seed is -1, but must be at least 0"),
    ],
)
def test_bad_arguments_are_refused_at_once(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DigitsDataModule(**arguments)


def test_too_few_examples_are_said_before_training() -> None:
    with pytest.raises(ValueError, match="set val_size to"):
        DigitsDataModule(classes=[1], val_size=1000).setup()
    with pytest.raises(ValueError, match="10 training examples do not fill one batch of 64"):
        DigitsDataModule(limit=10).train_dataloader()


@pytest.mark.parametrize("cls", [MNISTDataModule, FashionMNISTDataModule, KMNISTDataModule, CIFAR10DataModule])
def test_without_files_and_network(cls: type[DataModule], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import urllib.request
    from urllib.error import URLError

    def no_network(*_: Any, **__: Any) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr(urllib.request, "urlopen", no_network)
    with pytest.raises(FileNotFoundError, match=r"not under root=.*missing in.*pass as root the folder"):
        cls(root=str(tmp_path / "none")).prepare_data()  # type: ignore[call-arg]


def test_a_damaged_file_is_named(root: Path) -> None:
    file = root / "MNIST" / "raw" / "train-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(ValueError, match=r"incomplete or damaged: delete .*train-images-idx3-ubyte"):
        mnist(root).setup()


def test_a_label_out_of_range_is_named(root: Path) -> None:
    file = root / "MNIST" / "raw" / "t10k-labels-idx1-ubyte"
    file.write_bytes(file.read_bytes()[:-1] + b"\x0a")
    with pytest.raises(ValueError, match="found labels from 0 to 10"):
        mnist(root).setup("test")


class Stripes(ImageDataModule):
    """Arrays of somebody's own."""

    shape, levels = (1, 4, 4), 4

    def load_images(self, split: str) -> tuple[Tensor, None]:
        return torch.arange(4, dtype=torch.uint8).expand(50, 1, 4, 4), None


def test_arrays_of_ones_own() -> None:
    x = next(iter(Stripes(val_size=10, batch_size=20).train_dataloader()))
    assert torch.equal(x, torch.tensor([0, 1 / 3, 2 / 3, 1]).expand(20, 1, 4, 4))
    with pytest.raises(ValueError, match="Stripes has no labels"):
        Stripes(val_size=10, classes=[1])


def test_cifar_is_read_as_channels_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np
    from torchvision import datasets

    class Fake:
        def __init__(self, root: str, train: bool):
            self.data = np.arange(20 * 32 * 32 * 3, dtype=np.uint8).reshape(20, 32, 32, 3)
            self.targets = [i % 10 for i in range(20)]

    monkeypatch.setattr(datasets, "CIFAR10", Fake)
    images, labels = CIFAR10DataModule(root=str(tmp_path)).load_images("train")
    assert images.shape == (20, 3, 32, 32) and labels.tolist() == Fake("", True).targets
    assert torch.equal(images[7, :, 3, 4], torch.from_numpy(Fake("", True).data[7, 3, 4]))
