"""`train/<name>` is current where callbacks look at it, however rarely the steps log, and loggers do not notice."""

import csv
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from running import on_two_processes
from torch import nn
from torch.utils.data import DataLoader

from genzoo.trainer import AutoTrainer
from genzoo.zoo import GAN, VAE
from genzoo.zoo.gan.regularisers import R1
from genzoo.zoo.module import ZooModule


class Toy(ZooModule):
    """Its loss at step t is losses[t], whatever its weight; the datum adds its own value."""

    def __init__(self, losses, **options):
        super().__init__((1,), None, **options)
        self.weight = nn.Parameter(torch.zeros(()))
        self.losses = losses

    def objective(self, x, labels):
        loss = self.losses[self.global_step] + x[:, 0] + 0 * self.weight
        return {"loss": loss, "double": 2 * loss.detach()}

    def evaluation(self, x, labels, generator):
        return {"nll": x[:, 0]}


class Watch(Callback):
    """What callbacks see at the end of validations and of epochs."""

    def __init__(self, name="train/loss"):
        self.name, self.validations, self.epochs = name, [], []

    def on_validation_end(self, trainer, pl_module):
        if not trainer.sanity_checking:
            self.validations.append(float(trainer.callback_metrics[self.name]))


class WatchEpochs(EarlyStopping):
    """One of the callbacks that Lightning calls after the module's own hooks."""

    def __init__(self, name="train/loss"):
        super().__init__(name, patience=10**9, check_on_train_epoch_end=True)
        self.seen = []

    def _run_early_stopping_check(self, trainer):
        self.seen.append(float(trainer.callback_metrics[self.monitor]))


def fit(folder, module, *callbacks, size=10, val=True, **options):
    """Batches of 4, 4 and 2 of `size` data that are 0, 1, 2, …"""
    x = torch.arange(size).float()[:, None]
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False, "accelerator": "cpu"}
    quiet["enable_checkpointing"] = any(isinstance(callback, ModelCheckpoint) for callback in callbacks)
    run = AutoTrainer(default_root_dir=folder, callbacks=list(callbacks), **{**quiet, **options})
    run.fit(module, DataLoader(x, batch_size=4), DataLoader(x, batch_size=4) if val else None)
    return run


def mean(losses, steps, per_datum=1.0):
    """Σ/N over the data of these steps of an epoch of 10."""
    batches = [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    values = [losses[step] + x for step in steps for x in batches[step % 3]]
    return pytest.approx(per_datum * sum(values) / len(values), rel=1e-6)


@pytest.mark.parametrize("every", [1, 2, 50, 0])
@pytest.mark.parametrize("name", ["train/loss", "train/double"])
def test_at_the_end_of_an_epoch_it_is_the_epoch_s_mean(tmp_path, every, name):
    losses = [float(3 * t % 7) for t in range(9)]
    times = 2 if name == "train/double" else 1
    for val in (True, False):
        watch, epochs = Watch(name), WatchEpochs(name)
        run = fit(tmp_path, Toy(losses), watch, epochs, val=val, max_epochs=3, log_every_n_steps=every)
        expected = [mean(losses, range(start, start + 3), times) for start in (0, 3, 6)]
        assert epochs.seen == expected and watch.validations == (expected if val else [])
        assert run.callback_metrics[name] == expected[-1]


def test_at_validations_within_an_epoch_it_is_the_mean_since_the_last_one(tmp_path):
    losses, watch, epochs = [float(t**2) for t in range(6)], Watch(), WatchEpochs()
    fit(tmp_path, Toy(losses), watch, epochs, max_epochs=2, val_check_interval=2)
    assert watch.validations == [mean(losses, [0, 1]), mean(losses, [3, 4])]
    assert epochs.seen == [mean(losses, [2]), mean(losses, [5])]


@pytest.mark.parametrize("end", [{"max_steps": 4}, {"max_epochs": 2, "limit_train_batches": 2}])
def test_it_is_current_where_an_epoch_is_cut_short(tmp_path, end):
    losses, epochs = [float(t) for t in range(6)], WatchEpochs()
    run = fit(tmp_path, Toy(losses), epochs, **{"max_epochs": 9, **end})
    last = [3] if "max_steps" in end else None
    if last is None:
        assert epochs.seen[-1] == pytest.approx(sum([2 + 0, 2 + 1, 2 + 2, 2 + 3, 3 + 4, 3 + 5, 3 + 6, 3 + 7]) / 8)
    else:
        assert epochs.seen[-1] == mean(losses, last)
    assert run.callback_metrics["train/loss"] == pytest.approx(epochs.seen[-1])


@pytest.mark.parametrize("every", [1, 50])
def test_early_stopping_goes_on_while_the_loss_falls_and_stops_when_it_does_not(tmp_path, every):
    """Falling for 12 epochs; and falling for 6, then not."""
    falling = [100.0 - t for t in range(36)]
    run = fit(tmp_path, Toy(falling), EarlyStopping("train/loss", patience=3), max_epochs=12, log_every_n_steps=every)
    assert run.global_step == 36
    flat = falling[:18] + 18 * [200.0]
    run = fit(tmp_path, Toy(flat), EarlyStopping("train/loss", patience=3), max_epochs=12, log_every_n_steps=every)
    assert run.global_step == 18 + 3 * 3


def test_a_checkpoint_is_kept_by_it(tmp_path):
    losses = [5.0] * 3 + [1.0] * 3 + [4.0] * 3
    kept = ModelCheckpoint(tmp_path, monitor="train/loss", filename="{epoch}")
    fit(tmp_path, Toy(losses), kept, max_epochs=3)
    assert kept.best_model_path.endswith("epoch=1.ckpt") and kept.best_model_score == mean(losses, [3, 4, 5])


def test_loggers_have_the_steps_alone(tmp_path):
    logger, losses = CSVLogger(tmp_path), [float(t) for t in range(9)]
    fit(tmp_path, Toy(losses), max_epochs=3, log_every_n_steps=2, logger=logger)
    with (Path(logger.log_dir) / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["train/loss"]]
    assert [int(row["step"]) for row in rows] == [1, 3, 5, 7]
    assert [float(row["train/loss"]) for row in rows] == [mean(losses, [t]) for t in (1, 3, 5, 7)]


def test_another_run_does_not_see_the_last_one_s(tmp_path):
    module = Toy([7.0] * 3)
    fit(tmp_path, module, max_epochs=1)
    run = Trainer(logger=False, accelerator="cpu", enable_progress_bar=False, enable_checkpointing=False)
    (found,) = run.validate(module, DataLoader(torch.zeros(4, 1)), verbose=False)
    assert set(found) == {"val/nll"}


def test_it_is_the_mean_over_two_processes(tmp_path):
    """Each process has every second datum: its own mean would be off by a half."""
    run = fit(tmp_path, Toy([0.0] * 9), size=16, max_epochs=1, **on_two_processes())
    assert run.callback_metrics["train/loss"] == pytest.approx(7.5)


def test_a_family_with_a_hook_of_its_own_shows_it_too(tmp_path):
    epochs = WatchEpochs("train/kl")
    x = torch.rand(20, 2)
    quiet = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "default_root_dir": tmp_path}
    run = Trainer(max_epochs=2, callbacks=[epochs, watch := Watch()], **quiet)
    run.fit(VAE((2,), None, width=8), DataLoader(x, batch_size=10), DataLoader(x, batch_size=10))
    assert len(epochs.seen) == 2 and len(set(epochs.seen)) == 2 and len(set(watch.validations)) == 2


def test_a_gan_s_losses_are_current_and_add_up(tmp_path):
    torch.manual_seed(0)
    module, means = GAN((1,), None, width=4, regularisers=[R1(0.1)], discriminator_steps=2), []
    original = module._note

    def note(quantities):
        means.append({name: float(value.mean()) for name, value in quantities.items()})
        original(quantities)

    module._note = note
    watched = {name: WatchEpochs(f"train/{name}") for name in ("loss", "loss_generator", "loss_discriminator", "r1")}
    fit(tmp_path, module, *watched.values(), size=8, max_epochs=3)
    assert len(means) == 6
    for name, watch in watched.items():
        expected = [(means[t][name] + means[t + 1][name]) / 2 for t in (0, 2, 4)]
        assert watch.seen == pytest.approx(expected, rel=1e-5), name
    for epoch in range(3):
        parts = sum(watch.seen[epoch] for name, watch in watched.items() if name != "loss")
        assert watched["loss"].seen[epoch] == pytest.approx(parts, rel=1e-5)
