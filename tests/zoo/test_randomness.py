"""Noise that depends on a seed, or on the datum, and on nothing else."""

import random
from contextlib import nullcontext
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback
from running import on_two_processes
from torch.utils.data import DataLoader, SubsetRandomSampler

from genzoo.trainer import AutoTrainer
from genzoo.zoo import MADE, drawing, randomness
from genzoo.zoo.drawing import seeded
from genzoo.zoo.processes import gather
from genzoo.zoo.randomness import PerDatum, normal, order_together, uniform

X = torch.rand(10, 1, 4, 4)


def test_a_datums_stream_does_not_depend_on_its_batch_or_place():
    whole = normal((10, 3), like=X, generator=PerDatum(X))
    order = torch.randperm(10)
    assert torch.equal(normal((10, 3), like=X, generator=PerDatum(X[order])), whole[order])
    assert torch.equal(normal((4, 3), like=X, generator=PerDatum(X[3:7])), whole[3:7])
    particles = normal((6, 10, 3), like=X, generator=PerDatum(X), batch_dim=1)
    assert torch.equal(normal((6, 4, 3), like=X, generator=PerDatum(X[3:7]), batch_dim=1), particles[:, 3:7])


def test_streams_go_on_differ_between_data_and_seeds_and_are_normal():
    x = torch.rand(500, 8)
    generator = PerDatum(x)
    first, second = (normal((500, 40), like=x, generator=generator) for _ in range(2))
    other = normal((500, 40), like=x, generator=PerDatum(x, seed=1))
    for a, b in ((first, second), (first, other), (first[:-1], first[1:])):
        assert abs(float((a * b).mean())) < 0.03
    assert abs(float(first.mean())) < 0.03
    assert abs(float(first.var()) - 1) < 0.04
    assert abs(float(uniform((500, 40), like=x, generator=generator).mean()) - 0.5) < 0.01


def test_repeated_streams_begin_with_the_streams_themselves_and_the_others_are_their_own():
    def repeated(x, times, drawn=0):
        generator = PerDatum(x)
        normal((len(x), 5), like=x, generator=generator) if drawn else None
        return normal((times * len(x), 40), like=x, generator=generator.repeated(times)).view(times, len(x), 40)

    order = torch.randperm(10)
    three = repeated(X, 3)
    assert torch.equal(three[0], normal((10, 40), like=X, generator=PerDatum(X)))
    assert torch.equal(repeated(X[order], 3), three[:, order])
    assert torch.equal(repeated(X, 2), three[:2])
    assert not torch.isclose(repeated(X, 3, drawn=1), three).any(2).any(1).all()
    flat = torch.cat([three.flatten(0, 1), repeated(X, 3, drawn=1)[1:].flatten(0, 1)])
    correlations = torch.corrcoef(flat) - torch.eye(50)
    assert float(correlations.abs().max()) < 0.75
    assert len(PerDatum(X).repeated(3)) == 30


def test_a_torch_generator_repeats_and_leaves_the_global_state_alone():
    before = torch.get_rng_state()
    a, b = (normal((5,), like=X, generator=torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(a, b)
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(normal((5,), like=X), normal((5,), like=X))


def test_streams_of_another_batch_are_refused():
    with pytest.raises(ValueError, match="made for 10 data"):
        normal((9, 2), like=X, generator=PerDatum(X))


def test_what_is_drawn_inside_leaves_nothing_behind_also_where_it_fails() -> None:
    def state() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    def begin() -> None:
        random.seed(1), np.random.seed(1), torch.manual_seed(1)

    begin()
    expected = state()
    drawn = []
    for error in (None, ValueError, KeyboardInterrupt):
        begin()
        with nullcontext() if error is None else pytest.raises(error), seeded(2**40):
            drawn.append(state())
            if error is not None:
                raise error
        assert state() == expected
    assert drawn == drawn[:1] * 3 and drawn[0] != expected


class Parts(Callback):
    """That the two processes' shares of an epoch's data are all of them, each once."""

    def on_train_epoch_start(self, *_):
        self.mine = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.mine += batch.flatten().tolist()

    def on_train_epoch_end(self, *_):
        one, other = gather(self.mine)
        assert sorted(one + other) == list(range(40)), "data seen twice, and others not at all"


@dataclass
class Unhashable:
    """A sampler of somebody's own, whose generator may be his."""

    generator: Any = None


def test_whose_order_is_set_and_whose_is_not(monkeypatch):
    """By the seed of the first process and the epoch, wherever Lightning puts the sampler that it wraps."""
    monkeypatch.setattr("genzoo.zoo.randomness.world_size", lambda: 2)
    monkeypatch.setattr("genzoo.zoo.randomness.agree", lambda seed: 7)
    own = torch.Generator().manual_seed(3)
    free, of_batches, theirs = Unhashable(), SubsetRandomSampler([1, 2]), Unhashable(own)
    wrapped = lambda sampler: SimpleNamespace(dataset=SimpleNamespace(_sampler=sampler))  # noqa: E731
    loaders = {
        "a": SimpleNamespace(sampler=wrapped(free)),
        "b": [SimpleNamespace(sampler=None, batch_sampler=SimpleNamespace(sampler=wrapped(of_batches)))],
        "c": (SimpleNamespace(sampler=wrapped(theirs)), SimpleNamespace(sampler=wrapped(np.arange(3)))),
    }
    drawn = []
    for epoch in (0, 1, 0):
        order_together(loaders, epoch)
        drawn.append([torch.randperm(9, generator=s.generator).tolist() for s in (free, of_batches)])
    assert drawn[0][0] == drawn[0][1] and drawn[0] == drawn[2] != drawn[1]
    assert theirs.generator is own


def test_a_sampler_that_draws_has_one_order_for_all_processes(tmp_path):
    """Though the processes draw apart: each of them takes every other of what it lists."""
    loader = DataLoader(torch.arange(40.0)[:, None], batch_size=5, sampler=SubsetRandomSampler(range(40)))
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    torch.manual_seed(0)
    model = MADE((1,), None, width=4)
    trainer = AutoTrainer(max_epochs=3, default_root_dir=tmp_path, callbacks=[Parts()], **quiet, **on_two_processes())
    trainer.fit(model, loader)


def test_the_random_state_of_apple_s_accelerator_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seeding seeds it, too, and Lightning puts back that of other devices alone."""
    state, put_back = torch.arange(5, dtype=torch.uint8), []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.mps, "get_rng_state", lambda: state)
    monkeypatch.setattr(torch.mps, "set_rng_state", put_back.append)
    monkeypatch.setattr(torch, "manual_seed", torch.default_generator.manual_seed)
    with drawing.seeded(3):
        assert not put_back
    with pytest.raises(KeyError), drawing.seeded(3):
        raise KeyError
    assert len(put_back) == 2 and all(given is state for given in put_back)
    randomness.restore_random_states(randomness.random_states())
    assert len(put_back) == 3 and torch.equal(put_back[2], state)
    of_another_gpu = [torch.get_rng_state(), torch.zeros(16, dtype=torch.uint8)]  # as a run on CUDA leaves it
    randomness.restore_random_states(of_another_gpu)
    assert len(put_back) == 3
