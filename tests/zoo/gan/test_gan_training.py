"""Two optimisers that a Trainer takes for one: steps, schedules, checkpoints, averages, resuming, two processes."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from running import genzoo
from torch import Tensor, nn
from torch.optim import SGD, Adam
from torch.optim.lr_scheduler import LinearLR
from torch.utils.data import DataLoader, TensorDataset

from genzoo.callbacks import EMA
from genzoo.datamodules import PointsDataModule
from genzoo.zoo import GAN, R1, NonSaturating, PerDatum, Wasserstein

BATCH = 12
QUIET = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}


def data(batches: int = 4) -> DataLoader:
    x = torch.randn(batches * BATCH, 2, generator=torch.Generator().manual_seed(0))
    return DataLoader(TensorDataset(x), batch_size=BATCH)


def gan(**arguments: Any) -> GAN:
    torch.manual_seed(0)
    return GAN((2,), None, **({"latent_dim": 3, "width": 8, "depth": 1} | arguments))


def trainer(folder: Path, *callbacks: Callback, **options: Any) -> Trainer:
    return Trainer(
        **QUIET
        | {"default_root_dir": folder, "callbacks": list(callbacks), "enable_checkpointing": bool(callbacks)}
        | {"limit_val_batches": 1, "num_sanity_val_steps": 0}
        | options
    )


def weights(network: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in network.parameters()]


def moved(before: list[Tensor], network: nn.Module) -> set[bool]:
    return {not torch.equal(p, q) for p, q in zip(before, network.parameters(), strict=True)}


class Watch(Callback):
    """Notes the steps at which validations happen."""

    def __init__(self) -> None:
        self.validated: list[int] = []

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        self.validated.append(trainer.global_step)


def test_steps_are_iterations_of_the_generator(tmp_path: Path) -> None:
    """max_steps, checkpoints, validations, schedules and the average count alike, with three steps of D in each."""
    to_zero = partial(LinearLR, start_factor=1.0, end_factor=0.0, total_iters=6)
    model = gan(discriminator_steps=3, lr_scheduler=to_zero)
    watch, average = Watch(), EMA(0.9, modules=["generator"])
    saved = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=2, save_top_k=-1)
    fit = trainer(tmp_path, watch, average, saved, max_steps=6, val_check_interval=3, check_val_every_n_epoch=None)
    fit.fit(model, data(), data(1))
    assert (fit.global_step, int(model.iteration), average.num_updates) == (6, 6, 6)
    assert watch.validated == [3, 6]
    assert {path.stem for path in tmp_path.glob("*.ckpt")} == {"step=2", "step=4", "step=6"}
    generator, discriminator = fit.optimizers
    assert {int(state["step"]) for state in generator.state.values()} == {6}
    assert {int(state["step"]) for state in discriminator.state.values()} == {18}
    assert all(optimizer.param_groups[0]["lr"] == 0 for optimizer in fit.optimizers)


class Steps(GAN):
    """Looks at what each step moves."""

    def discriminator_step(self, x: Tensor, labels: Tensor | None, *rest: Any, **options: Any) -> dict[str, Tensor]:
        generator, discriminator = weights(self.generator), weights(self.discriminator)
        losses = super().discriminator_step(x, labels, *rest, **options)
        assert (moved(generator, self.generator), moved(discriminator, self.discriminator)) == ({False}, {True})
        return losses

    def generator_step(self, x: Tensor, labels: Tensor | None, *rest: Any) -> dict[str, Tensor]:
        generator, discriminator = weights(self.generator), weights(self.discriminator)
        losses = super().generator_step(x, labels, *rest)
        assert (moved(generator, self.generator), moved(discriminator, self.discriminator)) == ({True}, {False})
        assert all(p.requires_grad for p in self.parameters())
        return losses


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_each_step_moves_one_network_on_its_share_of_the_batch(tmp_path: Path, precision: str) -> None:
    shares: list[int] = []

    class Shares(Steps):
        def discriminator_loss(
            self, x: Tensor, labels: Tensor | None, *rest: Any, **options: Any
        ) -> dict[str, Tensor]:
            shares.append(len(x))
            return super().discriminator_loss(x, labels, *rest, **options)

    model = Shares((2,), None, width=8, discriminator_steps=5, loss=NonSaturating())
    trainer(tmp_path, max_steps=2, precision=precision).fit(model, data())
    assert shares == [3, 3, 2, 2, 2] * 2


def test_autocast_takes_the_weights_of_every_step_as_they_are_then(tmp_path: Path) -> None:
    """A cache of converted weights that outlives a step of one of the networks would be stale."""
    ends = []
    for precision in ("32-true", "bf16-mixed"):
        model = gan(
            loss=NonSaturating(), regularisers=[], discriminator_steps=4, discriminator_optimizer=partial(SGD, lr=1.0)
        )
        trainer(tmp_path, max_steps=1, precision=precision).fit(model, data())
        ends.append(torch.cat([p.detach().flatten() for p in model.discriminator.parameters()]))
    torch.manual_seed(0)
    begin = torch.cat([p.detach().flatten() for p in gan().discriminator.parameters()])
    assert float((ends[0] - ends[1]).norm()) < 0.05 * float((ends[0] - begin).norm())


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_micro_batches_add_up_to_the_gradient_of_the_whole(tmp_path: Path, precision: str) -> None:
    """BATCH = 12 in 5 unequal parts and in 12, the most that it has; the latents are the same however drawn."""

    class Given(GAN):
        def draw_latents(self, num: int, labels: Any = None, generator: Any = None) -> Tensor:
            table = torch.randn(BATCH, self.latent_dim, generator=torch.Generator().manual_seed(1))
            self.drawn = getattr(self, "drawn", 0) + num
            return table.roll(-((self.drawn - num) % BATCH), 0)[:num]

    ends = []
    for parts in (1, 5, 40):
        torch.manual_seed(0)
        model = Given(
            *((2,), None), latent_dim=3, width=8, micro_batches=parts, loss=NonSaturating(), regularisers=[R1(1.0)],
            generator_optimizer=partial(SGD, lr=1.0), discriminator_optimizer=partial(SGD, lr=1.0),
        )  # fmt: skip
        trainer(tmp_path, max_steps=1, precision=precision).fit(model, data())
        ends.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    for end in ends[1:]:
        torch.testing.assert_close(end, ends[0], atol=1e-5 if precision == "32-true" else 0.02, rtol=0)


def test_both_losses_under_one_autocast_reach_every_weight() -> None:
    model = gan(loss=NonSaturating())
    with torch.autocast("cpu", torch.bfloat16):
        loss = model.objective(torch.randn(6, 2), None)["loss"].mean()
    loss.backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())


def test_each_network_s_gradient_is_clipped_by_itself(tmp_path: Path) -> None:
    """With plain gradient descent of rate 1 a step is exactly as long as the clipped gradient."""
    model = gan(
        gradient_clip_norm=1e-3,
        generator_optimizer=partial(SGD, lr=1.0),
        discriminator_optimizer=partial(SGD, lr=1.0),
        loss=NonSaturating(),
        regularisers=[],
    )
    before = {name: weights(net) for name, net in model.named_children()}
    trainer(tmp_path, max_steps=1).fit(model, data())
    for name, network in model.named_children():
        step = torch.cat([(p - q).flatten() for p, q in zip(before[name], network.parameters(), strict=True)])
        assert float(step.detach().norm()) == pytest.approx(1e-3, rel=1e-2), name


def test_a_resumed_run_ends_bit_for_bit_where_the_whole_one_does(tmp_path: Path) -> None:
    """Stopped in the middle of an epoch: both networks, both optimisers, the schedules, the average, the noise."""

    def fit(steps: int, resume: Path | None) -> dict[str, Any]:
        seed_everything(0, verbose=False)
        schedule = partial(LinearLR, start_factor=1.0, end_factor=0.1, total_iters=8)
        model = gan(
            discriminator_steps=2,
            lr_scheduler=schedule,
            discriminator_optimizer=partial(Adam, lr=1e-3),
            regularisers=[R1(0.1, every=4)],  # due in the steps 3 and 7: the run stops after 6
        )
        run = trainer(tmp_path, EMA(0.9, modules=["generator"]), max_steps=steps)
        points = PointsDataModule(batch_size=BATCH, train_size=150, val_size=102)  # four batches
        run.fit(model, datamodule=points, ckpt_path=resume)
        run.save_checkpoint(path := tmp_path / f"{steps}-{resume is not None}.ckpt")
        return torch.load(path, weights_only=True)

    whole = fit(7, None)
    fit(3, None)
    resumed = fit(7, tmp_path / "3-False.ckpt")
    for part in ("state_dict", "callbacks", "optimizer_states", "lr_schedulers"):
        same(whole[part], resumed[part])


def same(a: Any, b: Any) -> None:
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            if not str(key).startswith(("ModelCheckpoint", "_get_lr")):
                same(a[key], b[key])
    elif isinstance(a, list):
        for one, other in zip(a, b, strict=True):
            same(one, other)
    elif isinstance(a, Tensor):
        assert torch.equal(a, b)
    else:
        assert a == b


def test_the_average_is_the_generator_s_alone(tmp_path: Path) -> None:
    average, states = EMA(0.5, warmup=False, modules=["generator"]), []

    class Keep(Callback):
        def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
            states.append({name: value.clone() for name, value in pl_module.state_dict().items()})

    model = gan(generator_optimizer=partial(Adam, lr=0.01))
    begin = {name: value.clone() for name, value in model.state_dict().items()}
    trainer(tmp_path, average, Keep(), max_steps=3).fit(model, data())
    for name, value in model.state_dict().items():
        if name.startswith("generator"):
            expected = begin[name] / 8 + states[0][name] / 8 + states[1][name] / 4 + states[2][name] / 2
            torch.testing.assert_close(value, expected)
        else:
            assert torch.equal(value, states[-1][name])


def test_what_is_logged_and_validated(tmp_path: Path) -> None:
    model = gan(loss=Wasserstein(), regularisers=[R1(0.5)])
    run = trainer(tmp_path, max_steps=1, log_every_n_steps=1, val_check_interval=1, limit_val_batches=2)
    run.fit(model, data(), data(2))
    logged = {name: float(value) for name, value in run.callback_metrics.items()}
    assert logged.keys() == {
        *("train/loss", "train/loss_generator", "train/loss_discriminator", "train/r1"),
        *("val/score_real", "val/score_fake"),
    }
    parts = sum(logged[f"train/{name}"] for name in ("loss_generator", "loss_discriminator", "r1"))
    assert logged["train/loss"] == pytest.approx(parts, rel=1e-5)
    x = torch.cat([batch[0] for batch in data(2)])
    scores = model.evaluation(x, None, PerDatum(x))
    for name in ("score_real", "score_fake"):
        assert logged[f"val/{name}"] == pytest.approx(float(scores[name].detach().mean()), rel=1e-4)


def test_a_run_that_diverged_says_so(tmp_path: Path) -> None:
    model = gan(generator_optimizer=partial(SGD, lr=float("inf")))
    with pytest.raises(ValueError, match="diverged"):
        trainer(tmp_path, max_steps=8, log_every_n_steps=1).fit(model, data())


def test_a_conditional_gan_trains_on_labels_and_draws_them() -> None:
    torch.manual_seed(0)
    model = GAN((1, 8, 8), 17, width=8, num_classes=3, conditional=True)
    x, labels = torch.zeros(4, 1, 8, 8), torch.tensor([0, 1, 2, 2])
    scores = model.score(x, labels)
    torch.testing.assert_close(scores, model.discriminator(x)[torch.arange(4), labels])
    latents = model.draw_latents(4, labels)
    assert torch.equal(latents[:, -3:], torch.eye(3)[labels])
    drawn = model.draw_latents(300, None, torch.Generator().manual_seed(0))[:, -3:]
    assert torch.equal(drawn.sum(1), torch.ones(300)) and bool((drawn.mean(0) > 0.25).all())
    with pytest.raises(ValueError, match="no labels"):
        model.objective(x, None)
    with pytest.raises(ValueError, match="unconditional"):
        GAN((1, 8, 8), 17).sample(4, labels=labels)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shape": (12,), "levels": 5}, "tokens"),
        ({"latent_dim": 0}, "latent_dim=0"),
        ({"discriminator_steps": 0}, "discriminator_steps=0"),
        ({"gradient_clip_norm": 0.0}, "gradient_clip_norm=0"),
        ({"network": "transformer"}, "network='transformer'"),
        ({"network": "dcgan"}, "images"),
        ({"network": "dcgan", "shape": (1, 8, 8), "depth": 2}, "depth=2"),
        ({"conditional": True}, "num_classes=None"),
    ],
)
def test_impossible_gans_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GAN(**{"shape": (2,), "levels": None, **arguments})


def test_networks_of_the_wrong_size_are_refused() -> None:
    x = torch.zeros(2, 2)
    with pytest.raises(ValueError, match="generator must map"):
        GAN((2,), None, latent_dim=3, generator=nn.Linear(3, 5)).objective(x, None)
    with pytest.raises(ValueError, match="discriminator must map"):
        GAN((2,), None, discriminator=nn.Linear(2, 2)).objective(x, None)


def test_files_from_before_there_were_others_mean_the_networks_that_they_meant() -> None:
    """They state `network: null` or `network: auto`, what was the default then; that of today has another name."""
    image, point = ((1, 9, 8), 17, "dcgan"), ((2,), None, "mlp")
    for (shape, levels, now), then, stated in (
        (image, "resnet", None),
        (image, "r3gan", "auto"),
        (point, "mlp", None),
        (point, "mlp", "auto"),
    ):
        torch.manual_seed(0)
        before = GAN(shape, levels, network=then, width=8)
        model = GAN(shape, levels, network=stated, width=8)
        model.load_state_dict(before.state_dict())
        draws = [m.sample(3, generator=torch.Generator().manual_seed(0)) for m in (before, model)]
        assert torch.equal(*draws)
        assert (
            GAN(shape, levels, width=8).state_dict().keys()
            == GAN(shape, levels, network=now, width=8).state_dict().keys()
        )
        assert before.hparams["network"] == then and GAN(shape, levels).hparams["network"] == "usual"


def test_what_r3gan_makes_is_cut_off_at_the_ends_of_the_range_and_no_sooner() -> None:
    """So that it learns there, too: the other networks' tanh keeps what they make within."""
    latents = 20 * torch.randn(5, 32)
    for network in ("r3gan", "dcgan", "resnet", "mlp"):
        torch.manual_seed(0)
        model = GAN((1, 8, 8), 17, network=network, width=16)
        made, raw = model.generate(latents), model.generator(latents).view(5, 1, 8, 8)
        assert torch.equal(made, raw if network == "r3gan" else raw.tanh())
        samples = model.on_grid(model.render(latents))
        assert torch.equal(samples, (16 * (made / 2 + 0.5).clamp(0, 1)).round() / 16)
    assert float(GAN((1, 8, 8), 17, network="r3gan").generate(10 * latents).detach().abs().max()) > 1


# ------------------------------------------------------------------------------------------------ two processes

RECIPE = """\
# A very small GAN of points.
model:
  class_path: GAN
  init_args:
    latent_dim: 3
    width: 8
    discriminator_steps: 2
    regularisers:
      - {class_path: R1, init_args: {weight: 0.1}}
      - {class_path: SpectralNorm}
data: {class_path: PointsDataModule, init_args: {train_size: 600, val_size: 100, test_size: 10, batch_size: 50}}
trainer:
  max_steps: 4
  max_epochs: 1
  accelerator: cpu
  log_every_n_steps: 1
  callbacks:
    - {class_path: EMA, init_args: {modules: [generator]}}
    - {class_path: gan_of_two.Keep}
"""

KEEP = """\
import torch
from lightning.pytorch import Callback


class Keep(Callback):
    def on_train_batch_end(self, trainer, pl_module, *_):
        torch.save(pl_module.state_dict(), f"{trainer.global_step}-{trainer.global_rank}.pt")
"""


def test_two_processes_keep_both_networks_in_step(tmp_path: Path) -> None:
    """Under plain `ddp`, in which each step leaves one of the networks without gradients."""
    (tmp_path / "gan_of_two.py").write_text(KEEP)
    (tmp_path / "gan.yaml").write_text(RECIPE)
    genzoo("fit", "--config=gan.yaml", "--trainer.strategy=ddp", "--trainer.devices=2", cwd=tmp_path)
    states = {path.stem: torch.load(path, weights_only=True) for path in tmp_path.glob("*.pt")}
    assert states.keys() == {f"{step}-{rank}" for step in (1, 2, 3, 4) for rank in (0, 1)}
    for step in (1, 4):
        first, second = states[f"{step}-0"], states[f"{step}-1"]
        assert all(torch.equal(first[name], second[name]) for name in first if "left" not in name)
    assert any(not torch.equal(states["1-0"][name], states["4-0"][name]) for name in states["1-0"])


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"width": 0}, "width=0, depth=None"),
        ({"width": -4}, "width=-4, depth=None"),
        ({"depth": -1}, "width=None, depth=-1"),
        ({"regularisers": R1(0.1)}, r"regularisers=R1.*give a list of them"),
    ],
)
def test_sizes_that_no_network_has_are_refused(given: dict[str, Any], says: str) -> None:
    with pytest.raises((ValueError, TypeError), match=says):
        GAN((1, 8, 8), 17, **given)
