"""Reading a whole split, every datum once, whoever made the loaders and however many processes there are.

The loaders a Trainer holds are made for training: cut into shares, padded so that the shares are equal,
shuffled. A figure about a dataset needs each datum exactly once. So these functions read the split from the
start on every rank; the ranks then share out the batches, because reading is cheap where features and
likelihoods are not.
"""

from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from functools import cached_property
from typing import Any, TypeGuard
from weakref import ReferenceType, WeakKeyDictionary, ref

import torch
from lightning.fabric.utilities.distributed import DistributedSamplerWrapper
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn, TrainerStatus
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    WeightedRandomSampler,
    default_collate,
)

from genzoo.zoo.drawing import seeded
from genzoo.zoo.modality import parted
from genzoo.zoo.processes import world_size

SPLITS = ("train", "val", "test")
FEW = 32  # data that are worth a batch


def data_of(batch: Any) -> Tensor:
    """x of a batch that is `x`, `(x, y, ...)` or `{"x": x, "y": y}`."""
    return parted(batch)[0]


def to_module(x: Tensor, module: Any) -> Tensor:
    """Data as a Trainer would hand them over: on the module's device, and in the precision it was converted to.

    Continuous data keep theirs: in half precision the years of a century are twelve numbers.
    """
    continuous = getattr(module, "levels", 0) is None
    converted = x.is_floating_point() and not continuous and module.dtype != torch.get_default_dtype()
    return x.to(module.device, module.dtype if converted else x.dtype)


def split_batches(source: Trainer | LightningDataModule, split: str) -> Generator[Any, None, None]:
    """The batches of a split, unshared: from the datamodule, or without one from the Trainer's own loaders.

    Raises:
        ValueError: if there is no such split.
    """
    with _loaders(source, split) as loaders:
        for loader in loaders:
            yield from loader


def first_batch(source: Trainer | LightningDataModule, split: str, argument: str) -> Tensor:
    """The first data of a split, by which a mistake is found before anything is trained or measured.

    Args:
        source: a datamodule, set up; or a Trainer with one, or with loaders of its own.
        split: "train", "val" or "test".
        argument: which names that split, for the message.

    Raises:
        ValueError: if there is no such split, or nothing in it.
    """
    with seeded(0), closing(split_batches(source, split)) as batches:
        try:
            batch = next(batches, None)
        except ValueError as error:
            raise ValueError(f"{argument}={split!r}: {error}") from error
    if batch is None:
        raise ValueError(f"{argument}={split!r}: its loader gives no batch.")
    return data_of(batch)


def at_most(batches: Iterable[Tensor], limit: int) -> int:
    """How many data there are, counted no further than to a limit."""
    num = 0
    with seeded(0):
        for x in batches:
            num += len(x)
            if num >= limit:
                break
    return min(num, limit)


class Rows:
    """The data of a split, batch by batch, each once; with a limit, so many of them, spread evenly over the split.

    The first data of a test set may be its easiest: MNIST's two halves are further from one another than good samples
    are from it. The few that a batch of the loader has of them make up batches with those of the next, of a size that
    keeps a processor busy, each process too, and a bar moving. Iterating starts at the beginning; the text of it says
    which data they are, for a protocol.

    Args:
        source: a datamodule, or a Trainer with one, or with loaders of its own.
        split: "train", "val" or "test".
        limit: at most so many data.
    """

    def __init__(self, source: Trainer | LightningDataModule, split: str, limit: int | None = None) -> None:
        self.source, self.split, self.limit = source, split, limit

    def __iter__(self) -> Iterator[Tensor]:
        if self.limit is None:
            yield from map(data_of, split_batches(self.source, self.split))
            return
        held, size = None, 0
        for x, wanted in self._marked(spread(self.total, self.limit)):
            size = size or max(1, min(len(x), max(FEW, self.limit // 10), -(-self.limit // world_size())))
            chosen = x[wanted.to(x.device)]
            if held is not None and held.shape[1:] != chosen.shape[1:]:  # texts of another length
                if len(held):
                    yield held
                held = None
            held = chosen if held is None else torch.cat([held, chosen])
            while len(held) >= size:
                yield held[:size]
                held = held[size:]
        if held is not None and len(held):
            yield held

    def _marked(self, kept: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches and which of their data are kept; of a data set that has numbers nothing else is read."""
        start = 0
        with _loaders(self.source, self.split) as loaders:
            for loader in loaders:
                if _has_numbers(loader):
                    number = _num_data(loader)
                    rows = kept[start : start + number].nonzero().flatten().tolist()
                    start += number
                    for x in map(data_of, _reading(loader, Subset(loader.dataset, rows))):
                        yield x, torch.ones(len(x), dtype=torch.bool)
                    continue
                for x, wanted in marked(map(data_of, loader), kept[start:]):
                    start += len(x)
                    yield x, wanted

    @property
    def may_be_endless(self) -> bool:
        """Whether some of the data come one after the other, as many as there may be (an `IterableDataset`)."""
        with _loaders(self.source, self.split) as loaders:
            data = [getattr(loader, "dataset", None) for loader in loaders]
        return any(isinstance(some, IterableDataset) and not hasattr(some, "__len__") for some in data)

    @cached_property
    def total(self) -> int:
        """How many data the split has; counted without reading them, where its loaders know."""
        with _loaders(self.source, self.split) as loaders:
            return sum(map(_num_data, loaders))

    def __str__(self) -> str:
        if self.limit is None or self.limit >= self.total:
            return f"{self.total} data of the {self.split} split"
        return f"{self.limit} data spread evenly over the {self.split} split"


class NoSplit(ValueError):
    """There is no such split."""


class NoOtherSplit(ValueError):
    """There are no real data to hold beside those that are measured."""


def beside(source: Trainer | LightningDataModule, split: str, limit: int | None = None) -> Rows:
    """Data of another split than what is measured is of.

    Raises:
        NoOtherSplit: there is none, or less than two data; or they may have no end, of a Trainer's own loaders.
    """
    data = Rows(source, split, limit)
    try:
        if isinstance(source, Trainer) and data.may_be_endless:
            raise NoOtherSplit(f"the {split} data have no length, and may have no end")
        few = at_most(Rows(source, split), 2)
    except NoSplit as error:
        raise NoOtherSplit(str(error)) from error
    if few < 2:
        raise NoOtherSplit(f"the {split} split has {few} data")
    return data


def spread(total: int, limit: int) -> Tensor:
    """Which of so many rows are kept where `limit` are, evenly: (total,) bool, True at ⌊i · total / limit⌋."""
    kept = torch.zeros(total, dtype=torch.bool)
    limit = min(limit, total)
    kept[torch.arange(limit) * total // max(limit, 1)] = True
    return kept


def marked(batches: Iterable[Tensor], kept: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Each batch with its part of the marks of all rows."""
    start = 0
    for x in batches:
        yield x, kept[start : start + len(x)]
        start += len(x)


def set_up_to_fit(datamodule: LightningDataModule) -> None:
    """Has a datamodule do so, unless a Trainer has done it for the training that was its last.

    Some divide their data anew whenever they are set up, by chance: what was trained on would then be held out.
    """
    trainer = datamodule.trainer
    done = (
        trainer is not None
        and trainer.datamodule is datamodule  # type: ignore[attr-defined]
        and trainer.state.fn == TrainerFn.FITTING
        and trainer.train_dataloader is not None
        and type(datamodule).teardown is LightningDataModule.teardown  # which may have let its data go
    )
    if not done:
        datamodule.setup("fit")


#: for which attempt at training a datamodule was set up for its test split, which a fit need not have done
_SET_UP: WeakKeyDictionary[LightningDataModule, ReferenceType[Any]] = WeakKeyDictionary()


def _set_up_to_test(datamodule: LightningDataModule) -> None:
    """Has a datamodule do so; in a training once, before it begins: see `set_up_to_fit`."""
    trainer = datamodule.trainer
    state = None if trainer is None else trainer.state
    trains = state is not None and state.fn == TrainerFn.FITTING and state.status == TrainerStatus.RUNNING
    attempt = trainer.fit_loop._data_source if trains else None  # type: ignore[union-attr]  # another one each time
    known = _SET_UP.get(datamodule)
    if attempt is not None and known is not None and known() is attempt:
        return
    with _without_trainer(datamodule):
        datamodule.setup("test")
    if attempt is not None:
        _SET_UP[datamodule] = ref(attempt)


@contextmanager
def _loaders(source: Trainer | LightningDataModule, split: str) -> Iterator[list[Iterable[Any]]]:
    """Those of a split, unshared and in order; `split_batches` says what is raised."""
    datamodule = source.datamodule if isinstance(source, Trainer) else source  # type: ignore[attr-defined]
    if datamodule is None:
        yield _in_order(_trainer_loaders(source, split))
        return
    if split == "test":
        _set_up_to_test(datamodule)
    with _without_trainer(datamodule):
        try:
            loaders = getattr(datamodule, f"{split}_dataloader")()
        except MisconfigurationException as error:
            raise NoSplit(
                f"{type(datamodule).__name__} has no {split}_dataloader, but the {split} split was asked for."
            ) from error
        yield _in_order(loaders)


def _num_data(loader: Iterable[Any]) -> int:
    if hasattr(loader, "batch_rows"):  # genzoo's
        return sum(map(len, loader.batch_rows()))
    if _has_numbers(loader):
        return len(loader.batch_sampler.sampler)  # type: ignore[union-attr]
    return sum(len(data_of(batch)) for batch in loader)


def _trainer_loaders(trainer: Any, split: str) -> Any:
    loaders, loops = {
        "train": (trainer.train_dataloader, [trainer.fit_loop]),
        "val": (trainer.val_dataloaders, [trainer.fit_loop.epoch_loop.val_loop, trainer.validate_loop]),
        "test": (trainer.test_dataloaders, [trainer.test_loop]),
    }[split]
    # A private name, of what a loop has not made loaders of: in `setup`, or in a run that does not validate
    sources = [loop._data_source for loop in loops if loop._data_source.instance is not None]
    if loaders is None:
        loaders = next((source.dataloader() for source in sources if source.is_defined()), None)
    if loaders is None:
        raise NoSplit(
            f"The Trainer has no {split} dataloader at this point. Pass `fit` a datamodule, whose"
            f" {split}_dataloader can be asked at any time, or choose another split."
        )
    return loaders


def _in_order(loaders: Any) -> list[Iterable[Any]]:
    return [_unshuffled(loader) for loader in (loaders if isinstance(loaders, list | tuple) else [loaders])]


def _is_plain(loader: Any) -> TypeGuard[DataLoader[Any]]:
    """Whether it is torch's, of data that have numbers, in batches of torch's `BatchSampler`.

    That one, stated or not, says in which order and in batches of which size: a loader that was given one does not
    know.
    """
    torchs = isinstance(loader, DataLoader) and type(loader.batch_sampler) is BatchSampler
    return torchs and not isinstance(loader.dataset, IterableDataset)


def _has_numbers(loader: Any) -> TypeGuard[DataLoader[Any]]:
    """Whether what its data set has is a datum each, and comes once, in order, as `_unshuffled` leaves them."""
    if not _is_plain(loader) or loader.collate_fn is not default_collate:  # others do as they like
        return False
    batches: Any = loader.batch_sampler
    return isinstance(batches.sampler, SequentialSampler) and not batches.drop_last


def _unshuffled(loader: Any) -> Iterable[Any]:
    """The loader without shuffling and without a share.

    So it is where it says itself how (`unshuffled`), or is torch's with torch's own sampling.
    """
    if hasattr(loader, "unshuffled"):
        return loader.unshuffled()
    if not _is_plain(loader):
        return loader
    data, sampler = loader.dataset, loader.batch_sampler.sampler  # type: ignore[union-attr]
    if wrapped := isinstance(sampler, DistributedSamplerWrapper):  # a Trainer's, of several processes
        sampler = sampler.dataset._sampler  # type: ignore[attr-defined]
    if isinstance(sampler, SubsetRandomSampler):  # which is the split
        data = Subset(data, list(sampler.indices))
    elif not isinstance(sampler, SAMPLERS):
        if not wrapped:
            return loader
        data = Subset(data, list(sampler))
    return _reading(loader, data)


def _reading(loader: DataLoader[Any], data: Any) -> DataLoader[Any]:
    """Other data, in order, as a loader reads its own."""
    size = loader.batch_sampler.batch_size  # type: ignore[union-attr]
    return DataLoader(data, size, num_workers=loader.num_workers, collate_fn=loader.collate_fn)


#: of PyTorch, that only say in which order, how often, or by whom the data of a split are seen
SAMPLERS = (SequentialSampler, RandomSampler, WeightedRandomSampler, DistributedSampler)


@contextmanager
def _without_trainer(datamodule: LightningDataModule) -> Iterator[None]:
    """A datamodule that shares out its data reads the rank from its Trainer: without one, it gives all."""
    trainer, datamodule.trainer = datamodule.trainer, None
    try:
        yield
    finally:
        datamodule.trainer = trainer
