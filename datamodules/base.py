"""What all datamodules share: the plan of batches, the loader that follows it, and the splits.

A data set that fits is held in memory as it is stored (uint8 for images) and sliced a whole batch at a time;
nothing is done per example. Which rows make up a batch depends only on (seed, epoch, batch, rank), so a run
is reproducible, can be resumed in the middle of an epoch, and is sharded over processes without a distributed
sampler.
"""

import hashlib
import inspect
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from numbers import Integral
from types import FrameType
from typing import Any, Protocol

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor

from genzoo.datamodules.augmentation import Augmentation
from genzoo.zoo.plain import make_plain

Batch = Tensor | tuple[Tensor, Tensor]

OTHERS = (
    "the data are not those of the training, or not divided as then (files or rows came, went, were renamed or stand"
    " in another order), so that others are held out: where some of these were trained on, figures of them say too"
    " much"
)
SPLIT_SEED = 20_130_000  # which rows are validation rows; a constant, so that everyone's validation set is the same


def seeded(*key: int) -> torch.Generator:
    """A CPU generator of its own for every tuple of non-negative integers."""
    # The length goes first, because SeedSequence takes no notice of zeros at the end.
    return torch.Generator().manual_seed(int(np.random.SeedSequence((len(key), *key)).generate_state(1)[0]))


@dataclass(frozen=True)
class BatchPlan:
    """Which rows of a split make up each batch of this process.

    Shuffled (training): every process gets the same number of full batches; the rows left over, fewer than
    `batch_size * world_size`, are other ones in every epoch. Batch b of all ranks together is slice b of one
    permutation, so W processes with batches of B see what one process with batches of W * B sees.

    In order (evaluation): every row is in exactly one batch of one rank, and every rank has the same number
    of batches, at most one row apart in size, because a collective operation in a step must be met by all of
    them. (Single rows cannot always be shared out so: with batch_size 1 some batches have two.)

    Args:
        num_rows: rows in the split.
        batch_size: rows in a batch of one process.
        seed: of the permutations.
        shuffle: training (True) or evaluation (False).
        rank, world_size: of this process.

    Raises:
        ValueError: if the rows do not give every process one batch.
    """

    num_rows: int
    batch_size: int
    seed: int = 0
    shuffle: bool = False
    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        if self.shuffle and not len(self):
            raise ValueError(
                f"{self.num_rows} training examples do not fill one batch of {self.batch_size} on each of "
                f"{self.world_size} process(es): set batch_size to "
                f"{max(1, self.num_rows // self.world_size)} or less"
            )
        if self.num_rows < self.world_size:
            raise ValueError(
                f"{self.num_rows} examples cannot be shared out over {self.world_size} process(es): there must be "
                "at least one for each"
            )

    def __len__(self) -> int:
        """Batches per epoch, the same on every rank."""
        if self.shuffle:
            return self.num_rows // (self.batch_size * self.world_size)
        # Never more batches than the shortest rank has rows: an empty batch has no mean.
        fewest = self.num_rows // self.world_size
        return min(math.ceil(self.num_rows / (self.batch_size * self.world_size)), fewest)

    def batches(self, epoch: int) -> Sequence[Tensor]:
        """The row numbers of each batch of this rank in `epoch`: len(self) tensors of int64."""
        if not self.shuffle:
            own = torch.arange(self.num_rows).tensor_split(self.world_size)[self.rank]
            return own.tensor_split(len(self))
        order = torch.randperm(self.num_rows, generator=seeded(self.seed, epoch))
        return order.split(self.batch_size)[self.rank :: self.world_size][: len(self)]


class Source(Protocol):
    """Rows of stored data that can be read batch by batch."""

    labels: Tensor | None

    def __len__(self) -> int: ...

    def select(self, rows: Tensor) -> "Source":
        """The source that has only these rows, in this order."""

    def read(self, batches: Sequence[Tensor]) -> Iterator[Tensor]:
        """The stored data of each batch of row numbers, (B, *shape)."""


class InMemory:
    """A source held in memory.

    Args:
        x: (N, *shape), of any dtype.
        labels: (N,) int64, or None.
        files: N paths from which the rows were read, or None.
    """

    def __init__(self, x: Tensor, labels: Tensor | None = None, files: Sequence[str] | None = None):
        self.x, self.labels, self.files = x, labels, files

    def __len__(self) -> int:
        return len(self.x)

    def select(self, rows: Tensor) -> "InMemory":
        """See `Source`."""
        files = None if self.files is None else [self.files[row] for row in rows.tolist()]
        x = torch.from_numpy(self.x.numpy()[rows.numpy()])  # as in `read`
        return InMemory(x, None if self.labels is None else self.labels[rows], files)

    def read(self, batches: Sequence[Tensor]) -> Iterator[Tensor]:
        """See `Source`."""
        x = self.x.numpy()  # the same memory; numpy copies rows several times as fast as torch's indexing
        for rows in batches:
            yield torch.from_numpy(x[rows.numpy()])


class Loader:
    """Iterates over a source by its plan: `(x, y)`, or `x` where there are no labels.

    It is to a Trainer what a torch DataLoader is, and keeps its place: `state_dict` says how many batches of
    which epoch have been handed out, and after `load_state_dict` the next pass goes on from there. The state
    is the same on every rank (Lightning saves that of rank 0).

    A new epoch, with another order and other noise, begins after a completed pass, and when a Trainer
    announces one. Without an announcement a pass that was broken off is repeated: `next(iter(loader))` is
    always the same batch.

    Args:
        source: the stored rows.
        plan: which rows make up each batch.
        scale: stored batch -> float32 batch in the data's range.
        noise: (float32 batch, generator) -> batch: what is random about a batch beyond its rows. The
            generator is seeded by (seed, epoch, batch, rank).
        batches_per_epoch: how many batches the Trainer takes in an epoch, if not all of them; asked when it
            announces an epoch.
        overfits: whether every epoch is the first one over again, in its rows, their order and their noise.
        augment: (stored batch, generator) -> stored batch: as `noise`, before the batch is scaled, by the same
            generator.
    """

    batch_sampler = None

    def __init__(
        self,
        source: Source,
        plan: BatchPlan,
        scale: Callable[[Tensor], Tensor],
        noise: Callable[[Tensor, torch.Generator], Tensor] | None = None,
        batches_per_epoch: Callable[[], float] | None = None,
        overfits: bool = False,
        augment: Callable[[Tensor, torch.Generator], Tensor] | None = None,
    ):
        self.source, self.plan, self.scale, self.noise, self.augment = source, plan, scale, noise, augment
        self.batches_per_epoch, self.overfits = batches_per_epoch or self.__len__, overfits
        if plan.shuffle:  # Lightning takes what has a sampler of its own for shuffled
            self.sampler = self  # whose `set_epoch` it calls to announce an epoch, as it does to torch's samplers
        self.epoch = 0
        self.handed_out = 0  # batches of this epoch
        self._resume_at: int | None = None  # the batch at which the next pass starts, after load_state_dict
        self._announced: int | None = None

    def set_epoch(self, epoch: int) -> None:
        """Begin a new epoch, if `epoch` is not the number announced before.

        The first announcement gives the epoch its number, unless a place was restored: then that place
        counts, because a Trainer that was stopped by `max_steps` takes the broken epoch for a whole one.
        """
        if epoch == self._announced:
            return
        first, self._announced = self._announced is None, epoch
        if first and self._resume_at is None:
            self.epoch = epoch
        elif self.handed_out >= (self.batches_per_epoch() if first else 1):
            self._next_epoch()

    def _next_epoch(self) -> None:
        self.epoch, self.handed_out, self._resume_at = self.epoch + 1, 0, None

    def __len__(self) -> int:
        return len(self.plan)

    def __iter__(self) -> Iterator[Batch]:
        # A generator: nothing here runs before the first batch is asked for. Lightning makes iterators that
        # it never uses, and makes the first one before it announces the epoch.
        epoch, start, self._resume_at = 0 if self.overfits else self.epoch, self._resume_at or 0, None
        self.handed_out = start
        batches = self.plan.batches(epoch)
        for index, stored in enumerate(self.source.read(batches[start:]), start=start):
            x = self._prepared(stored, epoch, index)
            self.handed_out = index + 1
            yield x if self.source.labels is None else (x, self.source.labels[batches[index]])
        self._next_epoch()

    def _prepared(self, stored: Tensor, epoch: int, index: int) -> Tensor:
        if not (self.augment or self.noise):
            return self.scale(stored)
        generator = seeded(self.plan.seed, epoch, index, self.plan.rank)
        x = self.scale(self.augment(stored, generator) if self.augment else stored)
        return self.noise(x, generator) if self.noise else x

    def unshuffled(self) -> "Loader":
        """The same data for whoever measures them: each once, in order, whatever the batches of training leave over.

        What is random about them is drawn as in the first epoch; they are not augmented.
        """
        return Loader(self.source, replace(self.plan, shuffle=False), self.scale, self.noise)

    def batch_rows(self) -> Sequence[Tensor]:
        """The row numbers of each of this process's batches of this epoch."""
        return self.plan.batches(self.epoch)

    @property
    def files(self) -> Sequence[str] | None:
        """The path that each row of the source was read from, where there is one."""
        return getattr(self.source, "files", None)

    def state_dict(self) -> dict[str, Any]:
        """Epoch, batches handed out, and the plan that gives them their meaning."""
        plan = asdict(self.plan)
        del plan["rank"]
        return {"epoch": self.epoch, "batch": self.handed_out, "plan": plan}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken."""
        self.epoch, self.handed_out, self._announced = state["epoch"], state["batch"], None
        self._resume_at = self.handed_out
        plan = self.state_dict()["plan"]
        changed = [f"{k} {state['plan'].get(k)} -> {v}" for k, v in plan.items() if state["plan"].get(k) != v]
        if changed and 0 < self.handed_out < len(self):
            warnings.warn(
                f"resuming within epoch {self.epoch} with other batches ({', '.join(changed)}): the rest of "
                "this epoch is not what the interrupted run would have seen",
                stacklevel=2,
            )


def differs(then: Iterable[str], now: str | None) -> bool:
    """Whether a training had data of another fingerprint than those that are there now, as far as that is known."""
    return now is not None and any(before != now for before in then)


class DataModule(LightningDataModule):
    """Base of the datamodules: splits, shards and batches what a subclass loads.

    A subclass states `shape`, `levels` and `num_classes` in its constructor or on the class, before any data
    are there, and implements `load`. Rows are shared out over the processes of the Trainer, if there is one.

    The validation rows are drawn from the training data with a fixed seed, the same for everyone; `seed`
    moves only the order of the training batches and the noise in them.

    Args:
        batch_size: examples in a batch of one process.
        val_size: examples held out of the training data for validation.
        classes: use only the examples with these labels, in every split. Labels keep their numbers, and `num_classes`
            still counts all, so that models of a part and of the whole agree on what a label means.
        limit: train on the first `limit` examples only (of a fixed random order); at most all of them.
        seed: of the training order and of noise redrawn in training.

    Raises:
        ValueError: for any argument out of its range.
    """

    shape: tuple[int, ...]
    levels: int | None = None
    num_classes: int | None = None
    class_names: Sequence[str] = ()  # what the labels 0, 1, … stand for, where that is known
    column_names: Sequence[str] = ()  # of points: what their columns are called, where that is known
    vocabulary: str | None = None  # of tokens: what they stand for
    sample_rate: int | None = None  # of waveforms: Hz
    #: of points: the mean and the standard deviation of each column, (D,), by which a model standardises them
    standardisation: tuple[Tensor, Tensor] | None = None
    #: how models of these data are measured: arguments of `genzoo.callbacks.evaluate`
    protocol: Mapping[str, Any] = {}
    augmentation: Augmentation | None = None  # what makes more of the pictures of training
    num_train: int | None = None  # examples that val_size is taken from, where that is known beforehand

    def __init__(
        self,
        *,
        val_size: int,
        batch_size: int = 128,
        classes: list[int] | None = None,
        limit: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        for name, value, least in (
            ("batch_size", batch_size, 1),
            ("val_size", val_size, 1),
            ("limit", 1 if limit is None else limit, 1),
            ("seed", seed, 0),
        ):
            if value < least:
                raise ValueError(f"{name} is {value}, but must be at least {least}")
            if not isinstance(value, Integral):
                raise ValueError(f"{name} is {value!r}, but must be a whole number")
        if classes is not None:
            known = range(self.num_classes or 0)
            if not classes or any(c not in known for c in classes):
                raise ValueError(
                    f"classes is {classes}, but {type(self).__name__} has "
                    + (f"the labels 0 to {len(known) - 1}: name at least one of them" if known else "no labels")
                )
        self.batch_size, self.val_size, self.seed = int(batch_size), int(val_size), int(seed)
        self.classes, self.limit = classes, limit
        self.sources: dict[str, Source] = {}
        self._fingerprints_before: list[str] = []  # of the run that this one goes on from
        self._numbers: dict[str, int] = {}  # of examples for training, without a limit, and for validation
        if self.num_train is not None:
            self._check_val_size(self.num_train)

    def save_hyperparameters(self, *names: Any, frame: FrameType | None = None, **options: Any) -> None:
        """As Lightning's; in plain values, so that a checkpoint that holds them loads with `weights_only=True`."""
        caller = inspect.currentframe()
        assert caller is not None
        super().save_hyperparameters(*names, frame=frame or caller.f_back, **options)
        make_plain(self.hparams)

    # What a subclass says about its data

    def load(self, split: str) -> Source:
        """All rows of the "train" data (of which the validation rows are a part) or of the "test" data."""
        raise NotImplementedError

    def split(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The training rows, shuffled, and the validation rows, out of these rows of the "train" data."""
        self._check_val_size(len(rows))
        rows = rows[torch.randperm(len(rows), generator=seeded(SPLIT_SEED))]
        return rows[self.val_size :], rows[: self.val_size]

    def freeze(self, source: Source, split: str) -> Source:
        """`source` as evaluation wants it: the noise of training drawn once and for all."""
        return source

    def scale(self, stored: Tensor) -> Tensor:
        """A stored batch as the floats that a model is given."""
        return stored.float()

    @property
    def noise(self) -> Callable[[Tensor, torch.Generator], Tensor] | None:
        """What is redrawn for each training batch, if anything."""
        return None

    def divided(self) -> Iterable[bytes | np.ndarray] | None:
        """What decides which data are held out for testing: the names of the files, or the values, and how many are.

        Nothing where the user has said which they are, as by a folder `test`; None where they never change.
        """
        return None

    @cached_property
    def split_fingerprint(self) -> str | None:
        """SHA-256 of what `divided` says, by which it is known whether others are held out than in a training."""
        if (parts := self.divided()) is None:
            return None
        digest = hashlib.sha256()
        for part in parts:
            digest.update(part if isinstance(part, bytes) else np.ascontiguousarray(part).data)
        return digest.hexdigest()

    @property
    def split_fingerprints(self) -> list[str]:
        """Those of all data that the training has had, also before it was broken off."""
        own = [] if self.split_fingerprint is None else [self.split_fingerprint]
        return sorted({*self._fingerprints_before, *own})

    # What Lightning calls

    def state_dict(self) -> dict[str, Any]:
        """In a checkpoint: how many examples there were, and which were held out."""
        return {**self._numbers, "split_fingerprints": self.split_fingerprints}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Says so where those of the checkpoint were others."""
        self._fingerprints_before = list(state.get("split_fingerprints", ()))
        then, now = ({name: numbers.get(name) for name in ("train", "val")} for numbers in (state, self._numbers))
        if differs(self._fingerprints_before, self.split_fingerprint):
            rank_zero_warn(OTHERS)
        elif then != now and None not in (*then.values(), *now.values()):
            rank_zero_warn(
                f"{now['train']} examples are for training and {now['val']} for validation, where there were"
                f" {then['train']} and {then['val']}: if some that were for validation are trained on now, or were"
                " trained on and are for validation, figures of validation say too much"
            )

    def setup(self, stage: str | None = None) -> None:
        """Load and split what `stage` needs (all of it for None); once."""
        if stage in ("fit", "validate", None) and "train" not in self.sources:
            data = self.load("train")
            train, val = self.split(self._rows_in_classes(data))
            self._numbers = {"train": len(train), "val": len(val)}
            self.sources["val"] = self.freeze(data, "train").select(val)
            self.sources["train"] = data.select(train[: self.limit])
        if stage in ("test", "predict", None) and "test" not in self.sources:
            data = self.load("test")
            self.sources["test"] = self.freeze(data, "test").select(self._rows_in_classes(data))

    def train_dataloader(self) -> Loader:
        """Shuffled, full batches."""
        return self._loader("train", "fit")

    def val_dataloader(self) -> Loader:
        """Every validation example once."""
        return self._loader("val", "validate")

    def test_dataloader(self) -> Loader:
        """Every test example once."""
        return self._loader("test", "test")

    def predict_dataloader(self) -> Loader:
        """The test examples."""
        return self.test_dataloader()

    def _loader(self, split: str, stage: str) -> Loader:
        if split not in self.sources:  # used without a Trainer
            self.prepare_data()
            self.setup(stage)
        source, training = self.sources[split], split == "train"
        if not len(source):
            of_classes = "" if self.classes is None else f" of classes={self.classes}: name others, too"
            raise ValueError(f"there is no example in the {split} data{of_classes}")
        trainer = self.trainer
        rank, world_size = (trainer.global_rank, trainer.world_size) if trainer else (0, 1)
        plan = BatchPlan(len(source), self.batch_size, self.seed, training, rank, world_size)
        if not training:
            return Loader(source, plan, self.scale)
        loader = Loader(source, plan, self.scale, self.noise, augment=self.augmentation or None)
        if trainer is not None:
            loader.batches_per_epoch = lambda: trainer.num_training_batches
            # Lightning sees to the order of a torch DataLoader alone
            loader.overfits = trainer.overfit_batches > 0  # type: ignore[attr-defined]
        return loader

    def _rows_in_classes(self, source: Source) -> Tensor:
        if self.classes is None:
            return torch.arange(len(source))
        assert source.labels is not None  # checked by the constructor
        return torch.isin(source.labels, torch.tensor(self.classes)).nonzero().squeeze(1)

    def _check_val_size(self, available: int) -> None:
        if available < 2:
            raise ValueError(
                f"{available} example(s) are left for training and validation together, but each needs one: give"
                " more, with those for testing at least 3"
            )
        if self.val_size >= available:
            raise ValueError(
                f"val_size is {self.val_size}, but there are only {available} training examples to take it "
                f"from: set val_size to {available - 1} or less"
            )
