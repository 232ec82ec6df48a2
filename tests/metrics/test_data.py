"""Reading a split: every datum once, in one order, whoever trains on it and however."""

import pytest
import torch
from torch.utils.data import (
    DataLoader,
    DistributedSampler,
    RandomSampler,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from genzoo.datamodules import DigitsDataModule
from genzoo.metrics.data import Rows, _unshuffled, data_of, split_batches


def rows(data: DigitsDataModule, split: str) -> torch.Tensor:
    return torch.cat([data_of(batch) for batch in split_batches(data, split)])


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_the_data_of_a_split_do_not_depend_on_the_batches_nor_on_who_read_them_before(split: str) -> None:
    """Training leaves over what fills no batch, and shuffles: neither is a property of the data."""
    first, other = DigitsDataModule(batch_size=64), DigitsDataModule(batch_size=97)
    for data in (first, other):
        data.setup("fit")
    for _ in range(3):
        list(other.train_dataloader())
    a, b = rows(first, split), rows(other, split)
    assert torch.equal(a, b)
    assert len(a) == len(first.sources[split]) > 97
    assert torch.equal(torch.cat(list(Rows(first, split, 50))), torch.cat(list(Rows(other, split, 50))))


def test_they_are_counted_without_being_read(monkeypatch: pytest.MonkeyPatch) -> None:
    data = DigitsDataModule(batch_size=64)
    data.setup("fit")
    expected = {split: len(rows(data, split)) for split in ("train", "val", "test")}
    monkeypatch.setattr(type(data.sources["train"]), "read", None)
    assert {split: Rows(data, split).total for split in expected} == expected


def test_what_training_shuffles_is_read_in_order() -> None:
    data = DigitsDataModule(batch_size=64)
    data.setup("fit")
    loader = data.train_dataloader()
    in_order = torch.cat([x for x, _ in loader.unshuffled()])
    assert torch.equal(in_order, rows(data, "train"))
    assert not torch.equal(in_order[:64], next(iter(loader))[0])


def test_the_noise_of_the_data_is_that_of_the_first_epoch() -> None:
    data = DigitsDataModule(batch_size=64, binarize="dynamic")
    data.setup("fit")
    assert torch.equal(rows(data, "train"), rows(data, "train"))
    assert set(rows(data, "train").unique().tolist()) == {0.0, 1.0}


def test_a_sampler_that_is_the_split_is_heeded() -> None:
    """One that only says in which order, how often or by whom the data are seen is not."""
    rows = TensorDataset(torch.arange(10.0))
    everything = list(range(10))
    for sampler, expected in (
        (SubsetRandomSampler([1, 4, 6]), [1, 4, 6]),
        (RandomSampler(rows), everything),
        (WeightedRandomSampler([1.0] * 10, 30), everything),
        (DistributedSampler(rows, 2, 0), everything),
    ):
        found = _unshuffled(DataLoader(rows, 4, sampler=sampler))
        assert [int(x) for (batch,) in found for x in batch] == expected
