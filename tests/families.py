"""Every family with data that it is for: what the contract is tested on."""

import torch
from test_contract import FAMILIES
from torch import Tensor

from genzoo.datamodules import DataModule, InMemory
from genzoo.zoo.modality import from_codes

#: each family on the first kind of data in its line
FIRST = [(family, *data[0]) for family, data, _ in FAMILIES]


def random_data(num: int, shape: tuple[int, ...], levels: int | None) -> Tensor:
    """(num, *shape): noise that is valid data."""
    if levels is None:
        return torch.randn(num, *shape)
    return from_codes(torch.randint(levels, (num, *shape)), shape, levels)


class Noise(DataModule):
    """Random data with labels, the same for everyone; 24 rows for training, 13 for validation."""

    num_classes = 3

    def __init__(self, shape: tuple[int, ...], levels: int | None, batch_size: int = 4):
        super().__init__(val_size=13, batch_size=batch_size)
        self.shape, self.levels = shape, levels

    def load(self, split: str) -> InMemory:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return InMemory(random_data(37, self.shape, self.levels), torch.arange(37) % 3)

    def scale(self, stored: Tensor) -> Tensor:
        return stored
