"""Data: every datamodule states `shape`, `levels` and `num_classes`, and yields batches `(x, y)`."""

from genzoo.datamodules.arrays import ArrayDataModule
from genzoo.datamodules.audio import AudioDataModule, FSDDDataModule
from genzoo.datamodules.augmentation import Augmentation
from genzoo.datamodules.base import BatchPlan, DataModule, InMemory, Loader, Source
from genzoo.datamodules.emoji import EmojiDataModule
from genzoo.datamodules.folder import ImageFolderDataModule
from genzoo.datamodules.images import (
    CIFAR10DataModule,
    DigitsDataModule,
    FashionMNISTDataModule,
    ImageDataModule,
    KMNISTDataModule,
    MNISTDataModule,
)
from genzoo.datamodules.points import PointsDataModule
from genzoo.datamodules.text import TextDataModule

__all__ = [
    "ArrayDataModule",
    "AudioDataModule",
    "Augmentation",
    "BatchPlan",
    "CIFAR10DataModule",
    "DataModule",
    "DigitsDataModule",
    "EmojiDataModule",
    "FSDDDataModule",
    "FashionMNISTDataModule",
    "ImageDataModule",
    "ImageFolderDataModule",
    "InMemory",
    "KMNISTDataModule",
    "Loader",
    "MNISTDataModule",
    "PointsDataModule",
    "Source",
    "TextDataModule",
]
