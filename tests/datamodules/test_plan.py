"""The batch plan and the loader: nothing lost, nothing doubled, everything reproducible."""

import pytest
import torch
from torch import Tensor

from genzoo.datamodules import BatchPlan, InMemory, Loader
from genzoo.datamodules.base import seeded

SIZES = [(n, b) for n in (4, 5, 17, 64, 101) for b in (1, 2, 7, 16)]


def rows_of(*ranks: BatchPlan, epoch: int = 0) -> list[int]:
    return [row for plan in ranks for batch in plan.batches(epoch) for row in batch.tolist()]


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
@pytest.mark.parametrize(("num_rows", "batch_size"), SIZES)
def test_evaluation_sees_every_row_once_in_as_many_batches_on_every_rank(
    num_rows: int, batch_size: int, world_size: int
) -> None:
    ranks = [BatchPlan(num_rows, batch_size, rank=r, world_size=world_size) for r in range(world_size)]
    assert sorted(rows_of(*ranks)) == list(range(num_rows))
    sizes = [len(batch) for plan in ranks for batch in plan.batches(0)]
    assert {len(plan.batches(0)) for plan in ranks} == {len(ranks[0])}
    assert min(sizes) >= 1 and max(sizes) - min(sizes) <= 1
    # Only with single rows, which cannot be shared out evenly, may a batch be one row larger than asked for.
    assert max(sizes) <= batch_size + (batch_size == 1)


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
@pytest.mark.parametrize(("num_rows", "batch_size"), SIZES)
def test_training_has_as_many_full_batches_on_every_rank(num_rows: int, batch_size: int, world_size: int) -> None:
    if num_rows < batch_size * world_size:
        with pytest.raises(ValueError, match=f"set batch_size to {max(1, num_rows // world_size)} or less"):
            BatchPlan(num_rows, batch_size, shuffle=True, world_size=world_size)
        return
    ranks = [BatchPlan(num_rows, batch_size, 1, True, r, world_size) for r in range(world_size)]
    rows = rows_of(*ranks)
    assert len(set(rows)) == len(rows)
    assert num_rows - len(rows) < batch_size * world_size
    assert {tuple(map(len, plan.batches(0))) for plan in ranks} == {(batch_size,) * len(ranks[0])}


def test_two_processes_see_together_what_one_sees_with_twice_the_batch() -> None:
    one = BatchPlan(50, 8, seed=2, shuffle=True).batches(3)
    two = [BatchPlan(50, 4, seed=2, shuffle=True, rank=r, world_size=2).batches(3) for r in (0, 1)]
    assert all(torch.equal(a, torch.cat([b, c])) for a, b, c in zip(one, *two, strict=True))


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    def order(seed: int, epoch: int) -> tuple[int, ...]:
        return tuple(rows_of(BatchPlan(64, 8, seed, shuffle=True), epoch=epoch))

    orders = {order(seed, epoch) for seed in range(4) for epoch in range(4)}
    assert len(orders) == 16
    torch.manual_seed(5)
    assert order(1, 2) == order(1, 2)


def test_too_few_rows_for_the_processes() -> None:
    with pytest.raises(ValueError, match="3 examples cannot be shared out over 4 process"):
        BatchPlan(3, 8, world_size=4)


def noisy(shuffle: bool = True, **plan: int) -> Loader:
    def noise(x: Tensor, generator: torch.Generator) -> Tensor:
        return x + torch.rand(x.shape, generator=generator)

    source = InMemory(torch.arange(40, dtype=torch.uint8)[:, None], torch.arange(40))
    return Loader(source, BatchPlan(40, 8, shuffle=shuffle, **plan), Tensor.float, noise)


def passes(loader: Loader, num: int) -> list[Tensor]:
    return [x for _ in range(num) for x, _ in loader]


def test_a_loader_repeats_itself_exactly_and_its_epochs_and_batches_do_not() -> None:
    a, b = passes(noisy(), 3), passes(noisy(), 3)
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    assert len({x.frac().sum().item() for x in a}) == 15
    assert not torch.equal(noisy(seed=1).plan.batches(0)[0], noisy().plan.batches(0)[0])


def test_labels_stay_with_their_rows() -> None:
    for x, y in noisy():
        assert torch.equal(x.floor().long().squeeze(1), y)


@pytest.mark.parametrize("taken", range(12))
def test_state_goes_on_where_it_was_taken(taken: int) -> None:
    whole = passes(noisy(), 3)
    loader = noisy()
    iterator = iter(loader)
    for _ in range(taken):
        try:
            next(iterator)
        except StopIteration:
            iterator = iter(loader)
            next(iterator)
    state = loader.state_dict()
    resumed = noisy()
    resumed.load_state_dict(state)
    rest = passes(resumed, 3)[: 15 - taken]
    assert all(torch.equal(x, y) for x, y in zip(rest, whole[taken:], strict=True))


def test_the_first_batch_is_always_the_first() -> None:
    loader = noisy(shuffle=False)
    assert torch.equal(next(iter(loader))[0], next(iter(loader))[0])
    assert len(list(loader)) == len(loader) == 5


def test_resuming_with_other_batches_within_an_epoch_is_said() -> None:
    loader = noisy()
    next(iter(loader))
    other = Loader(loader.source, BatchPlan(40, 4, shuffle=True), Tensor.float)
    with pytest.warns(UserWarning, match="batch_size 8 -> 4"):
        other.load_state_dict(loader.state_dict())


def test_generators_differ_for_every_key() -> None:
    keys = [(0,), (1,), (0, 1), (1, 0), (0, 0, 1), (1, 0, 0)]
    assert len({torch.rand(1, generator=seeded(*key)).item() for key in keys}) == len(keys)
