"""Reading a split: every datum once, in one order, whoever trains on it and however."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from lightning.fabric.utilities.distributed import DistributedSamplerWrapper
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    RandomSampler,
    Sampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
    random_split,
)

from genzoo.datamodules import DigitsDataModule
from genzoo.metrics.data import NoOtherSplit, Rows, _unshuffled, beside, data_of, set_up_to_fit, split_batches


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


def test_a_sampler_that_is_the_split_is_heeded_also_in_a_share_of_several_processes() -> None:
    """Lightning wraps it then."""
    data = TensorDataset(torch.arange(20.0))
    rows_of_val, odd = [3, 1, 17], [5, 6]
    for sampler, expected in ((SubsetRandomSampler(rows_of_val), {1, 3, 17}), (Listed(odd), {5, 6})):
        wrapped = DistributedSamplerWrapper(sampler, num_replicas=2, rank=0)
        loader = _unshuffled(DataLoader(data, 2, sampler=wrapped))
        found = torch.cat([x for (x,) in loader]).tolist()
        assert set(found) == expected and len(found) == len(expected)


class Listed(Sampler[int]):
    """Somebody's own."""

    def __init__(self, rows: list[int]) -> None:
        self.rows = rows

    def __iter__(self) -> Iterator[int]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)


class Redrawn(LightningDataModule):
    """Divides its data by chance whenever it is set up."""

    def setup(self, stage: str) -> None:
        whole = TensorDataset(torch.arange(200.0)[:, None])
        self.train, self.val, self.test = random_split(whole, [100, 50, 50])

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.train, 10)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(self.val, 10)

    def test_dataloader(self) -> DataLoader:
        return DataLoader(self.test, 10)


class Line(LightningModule):
    """Somebody's model."""

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        return self.layer(batch[0]).square().mean()

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.0)


QUIET = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}


def test_what_was_trained_on_is_not_held_out_anew(tmp_path: Path) -> None:
    data = Redrawn()
    Trainer(max_epochs=1, default_root_dir=tmp_path, **QUIET).fit(Line(), datamodule=data)
    trained_on = set(data.train.indices)
    set_up_to_fit(data)
    found = {int(x) for batch in split_batches(data, "val") for x in batch[0]}
    assert set(data.train.indices) == trained_on and len(found) == 50 and found.isdisjoint(trained_on)


def test_what_no_trainer_has_set_up_for_it_is_set_up(tmp_path: Path) -> None:
    class Tidy(Redrawn):
        def teardown(self, stage: str) -> None:
            del self.train, self.val, self.test

    def fitted(data: LightningDataModule) -> Trainer:
        trainer = Trainer(max_epochs=1, default_root_dir=tmp_path, **QUIET)
        trainer.fit(Line(), datamodule=data)
        return trainer

    tidy, of_another = Tidy(), Redrawn()
    fitted(tidy)
    fitted(of_another).fit(Line(), datamodule=Redrawn())
    for data in (Redrawn(), tidy, of_another):
        set_up_to_fit(data)
        assert sum(len(batch[0]) for batch in split_batches(data, "val")) == 50
        assert sum(len(batch[0]) for batch in split_batches(data, "test")) == 50


def test_a_test_is_of_the_same_data_all_through_a_training(tmp_path: Path) -> None:
    """Of none that are trained on, and whoever asks."""

    class Looks(Callback):
        seen: ClassVar[list[set[int]]] = []

        def look(self, trainer: Trainer, *_: Any, **__: Any) -> None:
            for source in (trainer, trainer.datamodule, Rows(trainer, "test")):
                batches = map(data_of, split_batches(source, "test")) if not isinstance(source, Rows) else source
                self.seen.append({int(x) for batch in batches for x in batch})

        setup = on_train_epoch_end = on_fit_end = look

        def on_train_batch_start(self, trainer: Trainer, module: LightningModule, batch: Any, _: int) -> None:
            assert self.seen[0].isdisjoint(map(int, batch[0]))

    data, quiet = Redrawn(), {"max_epochs": 2, "default_root_dir": tmp_path, "callbacks": [Looks()], **QUIET}
    for length in (9, 18):
        Looks.seen = []
        Trainer(**quiet).fit(Line(), datamodule=data)
        assert len(Looks.seen) == 12 and all(seen == Looks.seen[0] for seen in Looks.seen), length


class AsksInSetup(Callback):
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        assert Rows(trainer, "test").total == 50


def test_a_training_that_is_over_decides_nothing(tmp_path: Path) -> None:
    """Nor does the one before, of the same Trainer."""

    class Tidy(Redrawn):
        def teardown(self, stage: str) -> None:
            self.train = self.val = self.test = None

    class Apart(Redrawn):
        def setup(self, stage: str) -> None:
            if stage == "fit":
                self.rows = torch.randperm(200)
            whole = TensorDataset(torch.arange(200.0)[:, None])
            self.train, self.val, self.test = (
                Subset(whole, rows.tolist()) for rows in self.rows.split([100, 50, 50])
            )

    quiet = {"max_epochs": 1, "default_root_dir": tmp_path, "callbacks": [AsksInSetup()], **QUIET}
    tidy, apart = Tidy(), Apart()
    Trainer(**quiet).fit(Line(), datamodule=tidy)
    assert sum(len(batch[0]) for batch in split_batches(tidy, "test")) == 50
    trainer = Trainer(**quiet)
    for _ in range(2):
        trainer.fit(Line(), datamodule=apart)
        found = {int(x) for batch in split_batches(apart, "test") for x in batch[0]}
        assert len(found) == 50 and found.isdisjoint(apart.rows[:100].tolist())


def test_a_fault_in_the_other_data_is_none_of_there_being_none() -> None:
    class Faulty(Dataset[torch.Tensor]):
        def __len__(self) -> int:
            return 9

        def __getitem__(self, row: int) -> torch.Tensor:
            raise ValueError("a bug of mine")

    class Data(LightningDataModule):
        def train_dataloader(self) -> DataLoader:
            return DataLoader(Faulty(), 3)

    with pytest.raises(ValueError, match="a bug of mine") as raised:
        beside(Data(), "train")
    assert not isinstance(raised.value, NoOtherSplit)
    with pytest.raises(NoOtherSplit, match="no test_dataloader"):
        beside(Data(), "test")


def test_what_a_test_is_of_is_asked_each_time() -> None:
    """It may be another fold."""

    class Folds(LightningDataModule):
        fold = 0

        def setup(self, stage: str) -> None:
            self.x = torch.arange(10.0)[self.fold :: 2]

        def test_dataloader(self) -> DataLoader:
            return DataLoader(self.x, 5)

    data, found = Folds(), []
    for data.fold in range(2):
        found.append(torch.cat(list(split_batches(data, "test"))).tolist())
    assert found == [[0, 2, 4, 6, 8], [1, 3, 5, 7, 9]]


def test_a_share_is_not_taken_for_all(tmp_path: Path) -> None:
    """A datamodule that shares its data out reads the rank from its Trainer, in `setup` as in its loaders."""

    class Shared(LightningDataModule):
        def setup(self, stage: str) -> None:
            self.x = torch.arange(10.0)[:: 1 if self.trainer is None else 2]

        def test_dataloader(self) -> DataLoader:
            return DataLoader(self.x, 5)

    data = Shared()
    data.trainer = Trainer(default_root_dir=tmp_path, **QUIET)
    assert Rows(data, "test").total == 10


class Counted(Dataset[torch.Tensor]):
    """Notes which rows are read."""

    def __init__(self) -> None:
        self.read: list[int] = []

    def __len__(self) -> int:
        return 1000

    def __getitem__(self, row: int) -> torch.Tensor:
        self.read.append(row)
        return torch.tensor([float(row)])


def test_of_a_data_set_with_numbers_what_is_wanted_is_read_and_nothing_else() -> None:
    data, more = Counted(), Counted()

    class Two(LightningDataModule):
        def test_dataloader(self) -> list[DataLoader]:
            return [DataLoader(data, 64), DataLoader(more, 64)]

    rows = Rows(Two(), "test", 10)
    assert rows.total == 2000 and not data.read
    found = torch.cat(list(rows)).flatten().tolist()
    assert found == [0, 200, 400, 600, 800] * 2 and data.read == more.read == [0, 200, 400, 600, 800]


def test_what_a_loader_makes_of_an_item_is_what_counts() -> None:
    """Batches made beforehand, or items that are left out."""
    batches = [torch.arange(10.0)[:, None] + 10 * i for i in range(20)]

    def some(items: list[torch.Tensor]) -> torch.Tensor:
        return torch.stack([item for item in items if item % 2 == 0])

    class Made(LightningDataModule):
        def test_dataloader(self) -> DataLoader:
            return DataLoader(batches, 1, collate_fn=lambda items: items[0])

    class LeftOut(LightningDataModule):
        def test_dataloader(self) -> DataLoader:
            return DataLoader(torch.arange(100.0), 10, collate_fn=some)

    for data, total, step in ((Made(), 200, 1), (LeftOut(), 50, 2)):
        rows = Rows(data, "test", 10)
        assert rows.total == total and str(rows) == "10 data spread evenly over the test split"
        found = torch.cat(list(rows)).flatten().tolist()
        assert found == [step * total // 10 * i for i in range(10)]


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
        # a loader that is given batches says itself that it has none, and goes through the data in order
        for loader in (
            DataLoader(rows, 4, sampler=sampler),
            DataLoader(rows, batch_sampler=BatchSampler(sampler, 4, False)),
        ):
            found = _unshuffled(loader)
            assert [int(x) for (batch,) in found for x in batch] == expected


def test_a_split_that_is_one_of_batches_is_read_as_that() -> None:
    class Batches(LightningDataModule):
        def test_dataloader(self) -> DataLoader:
            chosen = SubsetRandomSampler(range(10, 20))
            return DataLoader(TensorDataset(torch.arange(40.0)), batch_sampler=BatchSampler(chosen, 8, True))

    rows = Rows(Batches(), "test")
    assert rows.total == 10 and [x.tolist() for x in rows] == [list(range(10, 18)), [18, 19]]
    assert torch.cat(list(Rows(Batches(), "test", 5))).tolist() == [10, 12, 14, 16, 18]
