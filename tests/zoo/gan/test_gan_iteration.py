"""What one iteration is made of: which data each step sees, when a penalty is due, and what of it all is logged."""

from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from test_gan_training import BATCH, data, gan, trainer
from torch import Tensor, nn
from torch.optim import SGD
from torch.utils.data import DataLoader, TensorDataset

from genzoo.zoo import GAN, R1, NonSaturating, Packing, Relativistic
from genzoo.zoo.gan.losses import AdversarialLoss


class Watched(GAN):
    """Notes every pass of data through the discriminator's loss, and what came of it."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.steps: list[list[tuple[Tensor, Tensor | None]]] = []  # of each of the discriminator's steps, its parts
        self.losses: list[list[dict[str, Tensor]]] = []

    def discriminator_step(self, x: Tensor, labels: Tensor | None, *rest: Any, **options: Any) -> dict[str, Tensor]:
        self.steps.append([])
        self.losses.append([])
        return super().discriminator_step(x, labels, *rest, **options)

    def discriminator_loss(self, x: Tensor, labels: Tensor | None, *rest: Any, **options: Any) -> dict[str, Tensor]:
        losses = super().discriminator_loss(x, labels, *rest, **options)
        self.steps[-1].append((x, labels))
        self.losses[-1].append({name: value.detach() for name, value in losses.items()})
        return losses

    def draw_latents(self, num: int, labels: Tensor | None = None, generator: Any = None) -> Tensor:
        """Rows of a fixed table, a share of a batch long: they do not depend on how many are drawn at a time."""
        if labels is not None:
            return super().draw_latents(num, labels, generator)
        table = torch.randn(BATCH, self.latent_dim, generator=torch.Generator().manual_seed(1))
        rows = getattr(self, "drawn", 0) + torch.arange(num)
        self.drawn = int(rows[-1]) + 1
        return table[rows % (BATCH // self.discriminator_steps)]


def watched(**arguments: Any) -> Watched:
    torch.manual_seed(0)
    return Watched((2,), None, **({"latent_dim": 3, "width": 8, "depth": 1, "loss": NonSaturating()} | arguments))


class Logged(Callback):
    """What was logged in each iteration."""

    def __init__(self) -> None:
        self.iterations: list[dict[str, float]] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        self.iterations.append({name: float(value) for name, value in trainer.callback_metrics.items()})


def logs_of(folder: Path, model: GAN, loader: DataLoader, iterations: int) -> list[dict[str, float]]:
    logged = Logged()
    options = {"max_steps": iterations, "log_every_n_steps": 1, "enable_checkpointing": False}
    trainer(folder, logged, **options).fit(model, loader)
    return logged.iterations


# ---- when a penalty is due


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize(("steps", "every"), [(5, 4), (1, 4), (4, 4), (3, 7), (2, 1)])
def test_a_lazy_penalty_is_due_in_every_nth_step_of_the_discriminator(
    tmp_path: Path, steps: int, every: int, parts: int
) -> None:
    model = watched(discriminator_steps=steps, regularisers=[R1(every=every)], micro_batches=parts)
    trainer(tmp_path, max_steps=20).fit(model, data())
    due = [["r1" in losses for losses in step] for step in model.losses]
    assert due == [[(made + 1) % every == 0] * parts for made in range(20 * steps)]


def test_a_run_that_goes_on_from_a_checkpoint_goes_on_counting(tmp_path: Path) -> None:
    model = watched(discriminator_steps=2, regularisers=[R1(every=4)])
    first = trainer(tmp_path, max_steps=3)
    first.fit(model, data())
    first.save_checkpoint(tmp_path / "third.ckpt")
    model = watched(discriminator_steps=2, regularisers=[R1(every=4)])
    trainer(tmp_path, max_steps=8).fit(model, data(), ckpt_path=tmp_path / "third.ckpt")
    assert [6 + i for i, (losses,) in enumerate(model.losses) if "r1" in losses] == [7, 11, 15]


# ---- which data each step sees


@pytest.mark.parametrize("pack", [1, 2])
@pytest.mark.parametrize("num", [1, 2, 3, 4, 9, 10, 13])
def test_every_iteration_makes_every_step_though_its_batch_be_small(tmp_path: Path, num: int, pack: int) -> None:
    """Too few data for that are drawn again, in turn, so that each is seen as often as any other, or once more."""
    regularisers = [Packing(pack)] if pack > 1 else []
    model = watched(discriminator_steps=5, regularisers=regularisers)
    x = torch.arange(2.0 * num).view(num, 2)
    trainer(tmp_path, max_steps=1).fit(model, DataLoader(TensorDataset(x), batch_size=num))
    shares = [part[0] for (part,) in model.steps]
    assert len(shares) == 5
    assert all(len(share) >= pack for share in shares)
    seen = torch.cat(shares)
    assert len(seen) == max(num, 5 * pack)
    times = (seen[:, None] == x).all(2).sum(0)
    assert int(times.min()) >= 1 and int(times.max() - times.min()) <= 1
    if num >= pack:
        assert all(len(share.unique(dim=0)) >= pack for share in shares)  # no pack of a datum and itself


def test_the_ragged_last_batch_of_an_epoch_is_an_iteration_like_the_others(tmp_path: Path) -> None:
    """A last batch of 3, five steps: three epochs of a conditional model, each datum with its own label."""
    torch.manual_seed(0)
    model = Watched((2,), None, width=8, discriminator_steps=5, micro_batches=4, num_classes=3, conditional=True)
    labels = torch.arange(BATCH + 3) % 3
    x = labels[:, None] + torch.zeros(BATCH + 3, 2)
    fit = trainer(tmp_path, max_epochs=3)
    fit.fit(model, DataLoader(TensorDataset(x, labels), batch_size=BATCH))
    assert (fit.global_step, int(model.iteration)) == (6, 6)
    assert [sum(len(x) for x, _ in parts) for parts in model.steps] == [3, 3, 2, 2, 2, 1, 1, 1, 1, 1] * 3
    for parts in model.steps:
        for x, y in parts:
            assert y is not None and torch.equal(x[:, 0], y.to(x.dtype))
    assert {int(state["step"]) for state in fit.optimizers[1].state.values()} == {30}


@pytest.mark.parametrize(("pack", "sizes"), [(1, [1, 1, 1, 1, 1]), (2, [3, 2]), (5, [5]), (7, [5])])
def test_there_are_no_more_micro_batches_than_data_to_make_packs_of(
    tmp_path: Path, pack: int, sizes: list[int]
) -> None:
    model = watched(micro_batches=40, regularisers=[Packing(pack)] if pack > 1 else [])
    trainer(tmp_path, max_steps=1).fit(model, DataLoader(TensorDataset(torch.randn(5, 2)), batch_size=5))
    expected = [7] if pack == 7 else sizes  # five data make no pack of seven: they are drawn again
    assert [[len(x) for x, _ in parts] for parts in model.steps] == [expected]


# ---- what is logged


@pytest.mark.parametrize("steps", [1, 2])
def test_what_is_logged_does_not_depend_on_the_number_of_micro_batches(tmp_path: Path, steps: int) -> None:
    """In unequal parts too: the mean is that of the whole batch."""
    whole, parts = (
        logs_of(
            tmp_path,
            watched(micro_batches=parts, discriminator_steps=steps, regularisers=[R1(1.0)]),
            data(),
            3,
        )
        for parts in (1, 4)
    )
    assert whole[0].keys() == {"train/loss", "train/loss_discriminator", "train/loss_generator", "train/r1"}
    for ours, theirs in zip(parts, whole, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-6)


def test_what_is_logged_of_the_discriminator_is_the_mean_over_the_whole_batch(tmp_path: Path) -> None:
    """Over all its steps, weighed by their data (12 in shares of 3, 3, 2, 2, 2), in micro-batches."""
    model = watched(discriminator_steps=5, micro_batches=2, regularisers=[R1(1.0)])
    logged = logs_of(tmp_path, model, data(), 3)
    for i, figures in enumerate(logged):
        passes = [losses for step in model.losses[5 * i : 5 * i + 5] for losses in step]
        for name in ("loss_discriminator", "r1"):
            each = torch.cat([losses[name] for losses in passes])
            assert len(each) == BATCH
            assert figures[f"train/{name}"] == pytest.approx(float(each.mean()), rel=1e-6)
        total = sum(value for name, value in figures.items() if name != "train/loss")
        assert figures["train/loss"] == pytest.approx(total, rel=1e-6)


def test_a_lazy_penalty_is_logged_as_it_was_in_the_steps_in_which_it_was_due(tmp_path: Path) -> None:
    """Due in the steps 1, 3, 5, ..., of which there are three in an iteration: in one of them, then in two."""
    model = watched(discriminator_steps=3, regularisers=[R1(1.0, every=2)])
    for i, figures in enumerate(logs_of(tmp_path, model, data(), 4)):
        passes = [losses for step in model.losses[3 * i : 3 * i + 3] for losses in step]
        due = [losses["r1"] for losses in passes if "r1" in losses]
        assert len(due) == (1, 2, 1, 2)[i]
        assert figures["train/r1"] == pytest.approx(float(torch.cat(due).mean()), rel=1e-6)


def test_a_lazy_penalty_keeps_its_last_value_through_iterations_in_which_it_is_not_due(tmp_path: Path) -> None:
    model = watched(regularisers=[R1(1.0, every=3)])
    logged = logs_of(tmp_path, model, data(), 7)
    assert ["train/r1" in figures for figures in logged] == [False, False, True, True, True, True, True]
    third, sixth = (float(model.losses[i][0]["r1"].mean()) for i in (2, 5))
    assert third != pytest.approx(sixth, rel=1e-3)
    assert [f["train/r1"] for f in logged[2:]] == pytest.approx([third] * 3 + [sixth] * 2, rel=1e-6)
    for figures in logged:
        total = sum(value for name, value in figures.items() if name != "train/loss")
        assert figures["train/loss"] == pytest.approx(total, rel=1e-6)


def test_the_objective_shows_the_penalties_of_the_step_to_come() -> None:
    x = torch.randn(4, 2)
    assert "r1" in gan(regularisers=[R1()]).objective(x, None)
    assert "r1" not in gan(regularisers=[R1(every=2)]).objective(x, None)


# ---- what the generator makes is made once


@pytest.mark.parametrize(("steps", "parts", "calls"), [(1, 1, 1), (3, 1, 3), (1, 2, 4)])
def test_an_iteration_generates_once_for_both_players(tmp_path: Path, steps: int, parts: int, calls: int) -> None:
    """Once for each step of the discriminator; micro-batches, which are to save memory, keep no graph in between."""
    model = watched(discriminator_steps=steps, micro_batches=parts)
    made: list[int] = []
    model.generator.register_forward_hook(lambda *_: made.append(1))
    trainer(tmp_path, max_steps=5, limit_val_batches=0).fit(model, data())
    assert len(made) == 5 * calls


@pytest.mark.parametrize("loss", [NonSaturating(), Relativistic()], ids=lambda loss: type(loss).__name__)
def test_an_iteration_is_a_step_of_each_player_on_the_same_data(tmp_path: Path, loss: AdversarialLoss) -> None:
    """By hand: D descends on its loss and R1; then G on what the new D says of the data that the old one saw."""
    descent = {"generator_optimizer": partial(SGD, lr=0.1), "discriminator_optimizer": partial(SGD, lr=0.2)}
    model = watched(loss=loss, regularisers=[R1(0.3)], **descent)
    g, d = deepcopy(model.generator), deepcopy(model.discriminator)
    (x,) = next(iter(data()))
    made, critic = g(watched().draw_latents(BATCH)), lambda x: d(x)[:, 0]
    descend(d, loss.discriminator(critic(x), critic(made.detach())) + R1(0.3).penalty(critic, x, made), 0.2)
    descend(g, loss.generator(critic(made), critic(x).detach()), 0.1)
    trainer(tmp_path, max_steps=1).fit(model, data())
    for ours, by_hand in ((model.generator, g), (model.discriminator, d)):
        for p, q in zip(ours.parameters(), by_hand.parameters(), strict=True):
            torch.testing.assert_close(p, q, atol=1e-6, rtol=1e-5)


def descend(network: nn.Module, losses: Tensor, rate: float) -> None:
    """One step of gradient descent on the mean."""
    parameters = list(network.parameters())
    gradients = torch.autograd.grad(losses.mean(), parameters)
    with torch.no_grad():
        for p, gradient in zip(parameters, gradients, strict=True):
            p -= rate * gradient
