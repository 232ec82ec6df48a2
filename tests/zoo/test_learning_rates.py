"""Schedules last as long as training does, and those that cannot are refused before the first step."""

import math
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.cli import ReduceLROnPlateau
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from ticking import Clock
from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR, StepLR

from genzoo import recipes
from genzoo.callbacks import EvenValidations, Newest
from genzoo.datamodules import DigitsDataModule
from genzoo.trainer import AutoTrainer
from genzoo.zoo import GAN, VAE, Cosine, OneCycle, WarmUp
from genzoo.zoo.learning_rates import TICKS

EPOCH = 3  # steps
CYCLE = {"max_lr": 0.02, "pct_start": 0.3, "cycle_momentum": False}


class Rates(Callback):
    """Notes the learning rates of each step, of all optimisers."""

    def __init__(self) -> None:
        self.rates: list[tuple[float, ...]] = []

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        self.rates.append(tuple(group["lr"] for o in trainer.optimizers for group in o.param_groups))


def vae(schedule: Any) -> VAE:
    sgd = partial(torch.optim.SGD, lr=0.01)
    return VAE((1, 8, 8), 17, latent_dim=2, network="mlp", width=8, optimizer=sgd, lr_scheduler=schedule)


def train(model: LightningModule, *callbacks: Callback, ckpt_path: Path | None = None, **options: Any) -> Trainer:
    keeps = any(isinstance(callback, Newest) for callback in callbacks)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    quiet["limit_val_batches"] = 1  # of 23
    trainer = Trainer(**quiet | options, enable_checkpointing=keeps, callbacks=list(callbacks))
    trainer.fit(model, DigitsDataModule(limit=24, batch_size=8), ckpt_path=ckpt_path)
    return trainer


@pytest.mark.parametrize("schedule", [partial(WarmUp, steps=200, then=Cosine), Cosine, partial(OneCycle, max_lr=0.1)])
def test_a_fast_dev_run_is_no_training_of_one_step(schedule: Any) -> None:
    """It tries the first batch of one that is longer than any rise, which a schedule of one step would refuse."""
    seen = Rates()
    trainer = train(vae(schedule), seen, fast_dev_run=True)
    assert trainer.global_step == 1 and 0 < seen.rates[0][0] <= 0.01


def rates(schedule: Any, ckpt_path: Path | None = None, **options: Any) -> list[float]:
    """Of each step."""
    seen = Rates()
    train(vae(schedule), seen, ckpt_path=ckpt_path, **options)
    return [rate for (rate,) in seen.rates]


def curve(schedule: Callable[[torch.optim.Optimizer], Any], steps: int, groups: int = 1) -> list[float]:
    """The rates of the last of the groups under a schedule by itself."""
    parameters = [{"params": [torch.zeros(1, requires_grad=True)]} for _ in range(groups)]
    optimizer = torch.optim.Adam(parameters, lr=0.01)
    made, seen = schedule(optimizer), []
    for _ in range(steps):
        seen.append(optimizer.param_groups[-1]["lr"])
        optimizer.step()
        made.step()
    return seen


@pytest.mark.parametrize(
    ("ours", "torchs"),
    [
        (partial(OneCycle, **CYCLE), partial(OneCycleLR, **CYCLE, total_steps=10)),
        (partial(OneCycleLR, **CYCLE), partial(OneCycleLR, **CYCLE, total_steps=10)),
        (
            partial(OneCycle, **CYCLE | {"anneal_strategy": "linear"}),
            partial(OneCycleLR, **CYCLE, anneal_strategy="linear", total_steps=10),
        ),
        (Cosine, partial(CosineAnnealingLR, T_max=10)),
        (partial(Cosine, eta_min=0.001), partial(CosineAnnealingLR, T_max=10, eta_min=0.001)),
    ],
)
@pytest.mark.parametrize(
    "options", [{"max_steps": 10}, {"max_steps": 10, "max_epochs": 9}, {"max_epochs": 5, "limit_train_batches": 2}]
)
def test_as_long_as_training_and_bit_for_bit_torchs(ours: Any, torchs: Any, options: dict[str, Any]) -> None:
    assert rates(ours, **options) == curve(torchs, 10)


def test_each_of_a_gans_optimisers_has_it() -> None:
    sgd = partial(torch.optim.SGD, lr=0.01)
    both = {"generator_optimizer": sgd, "discriminator_optimizer": sgd, "discriminator_steps": 2}
    seen = Rates()
    train(GAN((1, 8, 8), 17, network="mlp", width=8, **both, lr_scheduler=Cosine), seen, max_epochs=2)
    expected = curve(partial(CosineAnnealingLR, T_max=2 * EPOCH), 2 * EPOCH)
    assert seen.rates == [(rate, rate) for rate in expected]


@pytest.mark.parametrize("steps", range(1, 45))
def test_one_cycle_of_any_length(steps: int) -> None:
    """Where the share of the rise is one step, torch divides by zero."""
    found = curve(partial(OneCycle, max_lr=0.02, pct_start=0.05, total_steps=steps, cycle_momentum=False), steps)
    assert len(found) == steps and max(found) <= 0.02
    if steps == 20:
        assert found[0] == pytest.approx(0.02) and found[-1] == pytest.approx(0.02 / 25e4)


# ---- another, or longer, than the run that is resumed

IN_TURN = [
    None,
    partial(Cosine),
    partial(Cosine, eta_min=0.005),
    partial(WarmUp, steps=3, then=Cosine),
    partial(WarmUp, steps=5),
    partial(OneCycle, **CYCLE),
    partial(OneCycle, max_lr=0.1),  # and a momentum
    partial(StepLR, step_size=3, gamma=0.5),
]


@pytest.mark.parametrize("max_steps", [12, 16])
@pytest.mark.parametrize("number", range(len(IN_TURN)))
def test_a_resumed_run_has_the_schedule_that_it_states(number: int, max_steps: int, tmp_path: Path) -> None:
    """As long as the one before, or longer: the rates are those of a run that had it from the beginning."""
    stated = IN_TURN[number]
    train(vae(IN_TURN[number - 1]), Newest(tmp_path), Stop(7), max_steps=12)
    resumed = rates(stated, tmp_path / "last.ckpt", max_steps=max_steps)
    assert resumed == pytest.approx(rates(stated, max_steps=max_steps)[7:], rel=1e-12)


@pytest.mark.parametrize("schedule", [partial(OneCycle, **CYCLE), Cosine, partial(WarmUp, steps=2, then=Cosine)])
@pytest.mark.parametrize("epochs", [{}, {"max_epochs": 50}])
def test_a_resumed_run_trains_longer(schedule: Any, epochs: dict[str, int], tmp_path: Path) -> None:
    """At the step at which it was, on the longer schedule; nothing changes where the length is the same."""
    train(vae(schedule), Newest(tmp_path), max_steps=7, **epochs)
    assert rates(schedule, tmp_path / "last.ckpt", max_steps=20, **epochs) == pytest.approx(
        rates(schedule, max_steps=20, **epochs)[7:], rel=1e-12
    )
    train(vae(schedule), Newest(tmp_path / "cut"), Stop(4), max_steps=7, **epochs)
    assert rates(schedule, tmp_path / "cut/last.ckpt", max_steps=7, **epochs) == rates(schedule, max_steps=7)[4:]


class Stop(Callback):
    def __init__(self, step: int):
        self.step = step

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        trainer.should_stop = trainer.global_step >= self.step


def fitted(optimizer: Any, schedule: Any, *callbacks: Callback, **options: Any) -> dict[str, Any]:
    """The first group of the optimiser at the end of a training."""
    model = VAE((1, 8, 8), 17, latent_dim=2, network="mlp", width=8, optimizer=optimizer, lr_scheduler=schedule)
    (made,) = train(model, *callbacks, **options).optimizers
    return dict(made.param_groups[0])


ADAMW = partial(torch.optim.AdamW, lr=0.01, weight_decay=0.5)


def test_a_resumed_run_has_the_arguments_that_its_optimiser_states(tmp_path: Path) -> None:
    """What something else has moved goes on, where nothing else is stated."""

    class Decays(Callback):
        def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
            trainer.optimizers[0].param_groups[0]["weight_decay"] *= 0.5

    resume = {"max_steps": 6, "ckpt_path": tmp_path / "last.ckpt"}
    fitted(ADAMW, None, Newest(tmp_path), Decays(), max_steps=3)
    assert fitted(ADAMW, None, **resume)["weight_decay"] == 0.5**4
    written_out = partial(torch.optim.AdamW, lr=0.01, weight_decay=0.5, betas=(0.9, 0.999))  # which it has anyway
    assert fitted(written_out, None, **resume)["weight_decay"] == 0.5**4
    other = fitted(partial(torch.optim.AdamW, lr=9.0, weight_decay=0.1), None, **resume)
    assert (other["weight_decay"], other["lr"], other["fused"]) == (0.1, 0.01, True)
    assert fitted(partial(torch.optim.Adam, lr=9.0, betas=(0.5, 0.6)), None, **resume)["betas"] == (0.5, 0.6)
    for another in (torch.optim.Adamax, torch.optim.SGD):
        with pytest.raises(ValueError, match=f"another optimiser than {another.__name__}, AdamW: resume"):
            fitted(partial(another, lr=0.01), None, **resume)


def test_a_plateau_whose_defaults_are_written_out_is_the_same(tmp_path: Path) -> None:
    plateau = partial(ReduceLROnPlateau, monitor="train/loss", patience=0, threshold=1e9)
    fitted(ADAMW, plateau, Newest(tmp_path), max_epochs=3)
    stated = (plateau, partial(plateau, cooldown=0))
    found = [fitted(ADAMW, same, max_epochs=4, ckpt_path=tmp_path / "last.ckpt")["lr"] for same in stated]
    assert found[0] == found[1] < 1e-4


def test_a_length_on_the_command_line_wins_over_the_checkpoints(tmp_path: Path) -> None:
    train(vae(partial(Cosine, total_steps=7)), Newest(tmp_path), max_steps=7)
    longer = partial(Cosine, total_steps=30)
    assert rates(longer, tmp_path / "last.ckpt", max_steps=20) == pytest.approx(
        rates(longer, max_steps=20)[7:], rel=1e-12
    )


def test_a_checkpoint_of_torchs_schedule_goes_on(tmp_path: Path) -> None:
    """Which the recipes stated before."""
    train(vae(partial(OneCycleLR, **CYCLE, total_steps=7)), Newest(tmp_path), max_steps=7)
    one = partial(OneCycle, **CYCLE)
    assert rates(one, tmp_path / "last.ckpt", max_steps=20) == rates(one, max_steps=20)[7:]
    train(vae(partial(CosineAnnealingLR, T_max=7)), Newest(tmp_path), max_steps=7)
    assert rates(Cosine, tmp_path / "last.ckpt", max_steps=20) == rates(Cosine, max_steps=20)[7:]


# ---- where a time limit alone bounds training

TIMED = {"max_epochs": -1, "max_time": "00:00:00:40"}


@pytest.mark.parametrize("schedule", [partial(OneCycle, **CYCLE), Cosine, partial(WarmUp, steps=2000, then=Cosine)])
def test_as_far_as_time_has_passed(schedule: Any, clock: Clock) -> None:
    """Slow at first, then fast, then with a pause: the rate is that of the share of time, whatever the step."""
    seen = Rates()
    train(vae(schedule), seen, Varying(clock), **TIMED)
    whole = curve(partial(schedule, total_steps=TICKS), TICKS)
    at = [0, *Varying.passed[:-1]]
    assert [rate for (rate,) in seen.rates] == pytest.approx([whole[250 * second] for second in at], rel=1e-9)


class Varying(Callback):
    """A clock by which a step takes ten seconds, one, or, where there was a pause, twelve."""

    passed = (10, 20, 21, 22, 23, 24, 25, 37, 38, 39, 40)  # seconds, by the end of each step

    def __init__(self, clock: Clock) -> None:
        self.clock, self.begin = clock, clock.now

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        self.clock.now = self.begin + self.passed[trainer.global_step]


def test_a_cosine_by_the_clock_in_closed_form(clock: Clock) -> None:
    seen = Rates()
    train(vae(Cosine), seen, clock.ticking(4), **TIMED)
    expected = [0.01 * (1 + math.cos(math.pi * second / 40)) / 2 for second in range(0, 40, 4)]
    assert [rate for (rate,) in seen.rates] == pytest.approx(expected, rel=1e-9)


def test_it_ends_at_its_end(clock: Clock) -> None:
    model = vae(partial(OneCycle, **CYCLE))
    trainer = train(model, clock.ticking(1), **TIMED)
    (group,) = trainer.optimizers[0].param_groups
    assert group["lr"] == pytest.approx(0.02 / 25e4, rel=0.05)  # of 0.02


def test_a_gans_optimisers_go_by_the_clock(clock: Clock) -> None:
    sgd = partial(torch.optim.SGD, lr=0.01)
    both = {"generator_optimizer": sgd, "discriminator_optimizer": sgd}
    seen = Rates()
    model = GAN((1, 8, 8), 17, network="mlp", width=8, **both, lr_scheduler=Cosine)
    train(model, seen, clock.ticking(4), **TIMED)
    expected = [0.01 * (1 + math.cos(math.pi * second / 40)) / 2 for second in range(0, 40, 4)]
    assert seen.rates == [(pytest.approx(rate, rel=1e-9),) * 2 for rate in expected]


@pytest.mark.parametrize("before", [{"max_time": "00:00:00:40"}, {"max_time": "00:00:00:10"}, {"max_steps": 40}])
@pytest.mark.parametrize("after", [{"max_time": "00:00:00:40"}, {"max_time": "00:00:01:20"}, {"max_steps": 40}])
@pytest.mark.parametrize("earlier", [Cosine, partial(OneCycle, **CYCLE)])
def test_a_resumed_run_goes_on_where_it_was(
    earlier: Any, before: dict[str, Any], after: dict[str, Any], tmp_path: Path, clock: Clock
) -> None:
    """At the time that it has taken so far, or at its step; where no time was counted, it begins to be."""
    train(vae(earlier), Newest(tmp_path), clock.ticking(2), Stop(4), max_epochs=-1, **before)
    seen = Rates()
    train(vae(Cosine), seen, clock.ticking(2), ckpt_path=tmp_path / "last.ckpt", max_epochs=-1, **after)
    if "max_steps" in after:
        places = [step / 40 for step in range(4, 40)]
    else:
        length, begin = {"40": 40, "20": 80}[after["max_time"][-2:]], 8 if "max_time" in before else 0
        places = [second / length for second in range(begin, length, 2)]
    expected = [0.01 * (1 + math.cos(math.pi * place)) / 2 for place in places]
    assert [rate for (rate,) in seen.rates] == pytest.approx(expected, rel=1e-8)


def test_steps_go_before_time(clock: Clock) -> None:
    """A time limit beside a number of steps breaks the run off, no more."""
    seen = Rates()
    train(vae(Cosine), seen, clock.ticking(4), max_steps=20, max_time="00:00:00:40")
    assert [rate for (rate,) in seen.rates] == curve(partial(CosineAnnealingLR, T_max=20), 10)


# ---- warm-up and plateaus


def test_warm_up_then_another() -> None:
    found = rates(partial(WarmUp, steps=4, then=Cosine), max_steps=14)
    assert found[:5] == pytest.approx([0.002, 0.004, 0.006, 0.008, 0.01])
    assert found[4:] == pytest.approx(curve(partial(CosineAnnealingLR, T_max=10), 10))
    assert rates(partial(WarmUp, steps=3), max_steps=6) == pytest.approx([0.0025, 0.005, 0.0075, 0.01, 0.01, 0.01])


class Figure(Callback):
    """A figure that never gets better."""

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        pl_module.log("val/figure", 1.0)


@pytest.mark.parametrize("every", [1, 2])
def test_a_plateau_is_that_of_its_figure(every: int) -> None:
    """Halved at each validation after the first."""
    schedule = partial(ReduceLROnPlateau, monitor="val/figure", factor=0.5, patience=0)
    seen = Rates()
    options = {"max_epochs": 6, "check_val_every_n_epoch": every, "num_sanity_val_steps": 0}
    train(vae(schedule), seen, Figure(), **options)
    expected = [0.01 * 0.5 ** max(0, epoch // every - 1) for epoch in range(6)]
    assert [rate for (rate,) in seen.rates[::EPOCH]] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("options", "looks"),
    [
        ({"val_check_interval": 4, "check_val_every_n_epoch": None}, [4, 8, 12, 16]),  # in epochs of three steps
        ({"val_check_interval": 1}, [*range(1, 18)]),
        ({"val_check_interval": 1 / 3}, [*range(1, 18)]),
        ({"val_check_interval": timedelta(0), "check_val_every_n_epoch": None}, [*range(1, 18)]),  # after each batch
        ({}, [1, 6, 12]),  # those of EvenValidations(3)
    ],
)
def test_a_plateau_counts_validations_wherever_they_are(options: dict[str, Any], looks: list[int]) -> None:
    """Halved at each after the first, and at nothing else."""
    schedule, seen = partial(ReduceLROnPlateau, monitor="val/figure", factor=0.5, patience=0, eps=0), Rates()
    others = [] if options else [EvenValidations(3)]
    train(vae(schedule), seen, Figure(), *others, max_epochs=6, num_sanity_val_steps=0, **options)
    expected = [0.01 * 0.5 ** max(0, sum(step <= done for step in looks) - 1) for done in range(18)]
    assert [rate for (rate,) in seen.rates] == pytest.approx(expected)


class AsWritten(Checkpoint):
    """Writes a checkpoint as ModelCheckpoint does, at the end of a validation, where a plateau has yet to be seen."""

    def __init__(self, path: Path, step: int) -> None:
        self.path, self.step = path, step

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)


@pytest.mark.parametrize("step", [4, 8, 12])
def test_a_plateau_goes_on_where_a_checkpoint_was_written(step: int, tmp_path: Path) -> None:
    schedule = partial(ReduceLROnPlateau, monitor="val/figure", factor=0.5, patience=0, eps=0)
    options = {"val_check_interval": 4, "check_val_every_n_epoch": None, "max_steps": 17, "num_sanity_val_steps": 0}
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    found = []
    for ckpt_path in (None, tmp_path / "x.ckpt"):
        seen = Rates()
        callbacks = [seen, Figure(), AsWritten(tmp_path / "x.ckpt", step if ckpt_path is None else -1)]
        trainer = AutoTrainer(**quiet, **options, limit_val_batches=1, callbacks=callbacks)
        trainer.fit(vae(schedule), DigitsDataModule(limit=24, batch_size=8), ckpt_path=ckpt_path)
        found.append(seen.rates)
    assert found[1] == found[0][step:]


def test_a_plateau_of_a_figure_that_nothing_logs_is_said_at_the_first_look() -> None:
    schedule, seen = partial(ReduceLROnPlateau, monitor="val/figur"), Rates()
    with pytest.raises(MisconfigurationException, match="conditioned on metric val/figur which is not available"):
        train(vae(schedule), seen, Figure(), max_epochs=6, val_check_interval=2)
    assert len(seen.rates) == 2


# ---- what cannot be


@pytest.mark.parametrize(
    ("schedule", "options", "says"),
    [
        (partial(OneCycleLR, **CYCLE, total_steps=5), {"max_steps": 6}, "total_steps=5, but training takes 6 steps"),
        (partial(OneCycle, **CYCLE, total_steps=5), {"max_epochs": 2}, "total_steps=5, but training takes 6 steps"),
        (partial(OneCycleLR, **CYCLE, epochs=1, steps_per_epoch=3), {"max_steps": 6}, "total_steps=3, but"),
        (lambda o: OneCycleLR(o, 0.1, 5), {"max_steps": 6}, "total_steps=5, but training takes 6 steps"),
        (Cosine, {"max_epochs": -1}, "no end"),
        (partial(WarmUp, steps=6, then=Cosine), {"max_steps": 6}, "steps=6 of 6"),
        (partial(WarmUp, steps=0), {"max_steps": 6}, "steps=0"),
        (partial(WarmUp, steps=2, then=partial(WarmUp, steps=2)), {"max_steps": 6}, "WarmUp consists of schedules"),
        (
            partial(WarmUp, steps=2, then=partial(Cosine, total_steps=3)),
            {"max_steps": 6},
            "total_steps=3, but 4 steps",
        ),
        (torch.optim.lr_scheduler.ReduceLROnPlateau, {"max_steps": 6}, "which figure"),
        (partial(WarmUp, steps=2, then=partial(ReduceLROnPlateau, monitor="a")), {"max_steps": 6}, "waits"),
    ],
)
@pytest.mark.parametrize("family", ["vae", "gan"])
def test_refused_before_the_first_step(schedule: Any, options: dict[str, Any], says: str, family: str) -> None:
    model = vae(schedule) if family == "vae" else GAN((1, 8, 8), 17, network="mlp", width=8, lr_scheduler=schedule)
    seen = Rates()
    with pytest.raises(ValueError, match=says):
        train(model, seen, **options)
    assert not seen.rates


@pytest.mark.parametrize("every", [{}, {"val_check_interval": 2}])
def test_a_plateau_of_validations_needs_one(every: dict[str, int]) -> None:
    """Whether it would look at the end of an epoch or after a validation."""
    seen = Rates()
    with pytest.raises(ValueError, match="waits for val/figure, but this run has no validation"):
        train(vae(partial(ReduceLROnPlateau, monitor="val/figure")), seen, max_steps=4, **every, limit_val_batches=0)
    assert not seen.rates


def test_a_gan_has_no_plateau() -> None:
    schedule = partial(ReduceLROnPlateau, monitor="val/figure")
    with pytest.raises(ValueError, match="plateau"):
        train(GAN((1, 8, 8), 17, network="mlp", width=8, lr_scheduler=schedule), max_steps=2)


def test_a_schedule_without_length_is_left_alone() -> None:
    assert rates(partial(StepLR, step_size=2, gamma=0.5), max_steps=4) == [0.01, 0.01, 0.005, 0.005]


@pytest.mark.parametrize("name", recipes.names())
def test_every_recipes_schedule_is_torchs_over_all_its_steps(name: str) -> None:
    """So that `--trainer.max_steps` trains longer, and nothing else bounds a run or its schedule."""
    recipe = yaml.safe_load(recipes.find(name).read_text())
    lengths = {key: value for key, value in recipe["trainer"].items() if key.startswith("max_")}
    assert lengths == {"max_time": "auto"} or (lengths.keys() == {"max_steps"} and lengths["max_steps"] > 0)
    arguments = recipe["model"]["init_args"]
    parts = [arguments[part]["init_args"] for part in ("autoencoder", "prior") if part in arguments]
    for schedule in [part["lr_scheduler"] for part in parts or [arguments]]:
        options, steps = schedule.get("init_args", {}), 997
        ours = {"OneCycle": OneCycle, "Cosine": Cosine}[schedule["class_path"]]
        torchs = OneCycleLR if ours is OneCycle else lambda o, total_steps: CosineAnnealingLR(o, total_steps)
        groups = len(options["max_lr"]) if isinstance(options.get("max_lr"), list) else 1
        assert curve(partial(ours, **options, total_steps=steps), steps, groups) == curve(
            partial(torchs, **options, total_steps=steps), steps, groups
        )


@pytest.mark.parametrize("pct_start", [0.0, 0.25, 1.0])
def test_one_cycle_can_be_all_rise_or_all_fall(pct_start: float) -> None:
    """Lightning takes one step of the schedule after the last of the optimiser's."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(()))], lr=1.0)
    schedule = OneCycle(optimizer, 2.0, total_steps=5, pct_start=pct_start, cycle_momentum=False)
    rates = []
    for _ in range(4):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    assert all(rate > 0 for rate in rates)
    assert (rates == sorted(rates)) if pct_start == 1 else (rates[1:] == sorted(rates[1:], reverse=True))
