"""Data: every datamodule states `shape`, `levels` and `num_classes`, and yields batches `(x, y)`."""

from genzoo.datamodules.base import BatchPlan, DataModule, InMemory, Loader, Source
from genzoo.datamodules.images import (
    CIFAR10DataModule,
    DigitsDataModule,
    FashionMNISTDataModule,
    KMNISTDataModule,
    MNISTDataModule,
)

__all__ = [
    "BatchPlan",
    "CIFAR10DataModule",
    "DataModule",
    "DigitsDataModule",
    "FashionMNISTDataModule",
    "InMemory",
    "KMNISTDataModule",
    "Loader",
    "MNISTDataModule",
    "Source",
]
