"""EMA: the arithmetic, where the average is in force, and what an interruption leaves."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from foreign import Foreign, TwoOptimizers, points
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins import TorchCheckpointIO
from running import on_two_processes
from torch import Tensor, nn
from torch.utils.data import DataLoader

from genzoo.callbacks import EMA
from genzoo.callbacks.at_validation import AtValidation
from genzoo.callbacks.ema import AveragedCheckpointIO, exponent_of

State = dict[str, Tensor]


def copied(module: LightningModule) -> State:
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(a: State, b: State) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


class Record(Callback):
    """Keeps the module's weights as the hooks see them."""

    def __init__(self) -> None:
        self.start: State = {}
        self.steps: list[State] = []
        self.seen: dict[str, list[State]] = {"start": [], "epoch_end": []}
        self.after: list[State] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self.steps:
            self.start = copied(pl_module)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self.steps.append(copied(pl_module))

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            self.seen["start"].append(copied(pl_module))

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            self.seen["epoch_end"].append(copied(pl_module))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.after.append(copied(pl_module))


def averaged(start: State, steps: list[State], decay: float = 0.9) -> State:
    """The average, recomputed from the recorded weights of each step."""
    average = dict(start)
    for n, weights in enumerate(steps):
        d = min(decay, (1 + n) / (10 + n))
        for name, value in weights.items():
            average[name] = d * average[name] + (1 - d) * value if value.is_floating_point() else value
    return average


def close(a: State, b: State) -> None:
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-5, atol=1e-6, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.parametrize("order", [0, 1])
def test_validation_sees_the_average_in_any_order(
    trainer: Callable[..., Trainer], fit: Callable[..., Foreign], order: int
) -> None:
    record, callbacks = Record(), []
    callbacks = [record, EMA(0.9)] if order else [EMA(0.9), record]
    module = fit(trainer(*callbacks))
    first, second = averaged(record.start, record.steps[:5]), averaged(record.start, record.steps)
    for hook in ("start", "epoch_end"):
        close(record.seen[hook][0], first)
        close(record.seen[hook][1], second)
    assert same(record.after[0], record.steps[4])  # training went on from the raw weights
    close(copied(module), second)  # what fit hands back is what was validated
    assert module.net[1].num_batches_tracked == 10  # an integer buffer is copied, not averaged


def test_training_is_what_it_was_without_the_callback(
    trainer: Callable[..., Trainer], fit: Callable[..., Foreign]
) -> None:
    with_ema, without = Record(), Record()
    fit(trainer(EMA(), with_ema))
    fit(trainer(without))
    assert same(with_ema.steps[-1], without.steps[-1])


def test_the_module_hook_sees_the_average_too(trainer: Callable[..., Trainer], fit: Callable[..., Any]) -> None:
    class Looks(Foreign):
        seen: State

        def on_validation_epoch_end(self) -> None:
            self.seen = copied(self)

    torch.manual_seed(0)
    module = fit(trainer(EMA(0.9), max_epochs=1), Looks())
    assert same(module.seen, copied(module))


def test_accumulation_and_several_optimisers_count_batches(
    trainer: Callable[..., Trainer], fit: Callable[..., Foreign]
) -> None:
    accumulating = EMA()
    fit(trainer(accumulating, accumulate_grad_batches=2, max_epochs=1))
    assert accumulating.num_updates == 3  # five batches: after the 2nd, the 4th and the last

    torch.manual_seed(0)
    ema, record = EMA(0.9), Record()
    module = fit(trainer(ema, record), TwoOptimizers())
    assert ema.num_updates == 10
    close(copied(module), averaged(record.start, record.steps))


def test_only_named_modules_are_averaged(trainer: Callable[..., Trainer], fit: Callable[..., Foreign]) -> None:
    torch.manual_seed(0)
    ema, record = EMA(0.9, modules=["net"]), Record()
    module = fit(trainer(ema, record), TwoOptimizers())
    assert torch.equal(module.critic.weight, record.steps[-1]["critic.weight"])
    assert not torch.equal(module.net[0].weight, record.steps[-1]["net.0.weight"])


def test_frozen_networks_cost_nothing(trainer: Callable[..., Trainer], fit: Callable[..., Foreign]) -> None:
    ema = EMA()
    run = trainer(ema)
    fit(run)
    assert {name.split(".")[0] for name in ema.state_dict()["raw"]} == {"net"}


def test_a_network_unfrozen_on_the_way_is_followed(
    trainer: Callable[..., Trainer], fit: Callable[..., Foreign]
) -> None:
    class Unfreeze(Callback):
        def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
            if trainer.current_epoch == 1:
                pl_module.frozen.requires_grad_(True)
                trainer.optimizers[0].add_param_group({"params": list(pl_module.frozen.parameters())})

    ema = EMA()
    fit(trainer(ema, Unfreeze()))
    assert "frozen.0.weight" in ema.state_dict()["raw"]


def checkpoint(tmp_path: Path, **options: Any) -> ModelCheckpoint:
    return ModelCheckpoint(tmp_path, filename="{step}", save_top_k=-1, **options)


@pytest.mark.parametrize("step", [3, 5])
def test_resuming_goes_on_bit_for_bit(tmp_path: Path, trainer: Callable[..., Trainer], step: int) -> None:
    """Whole epochs of a fixed order, so that nothing but weights and averages decides."""

    def run(*callbacks: Callback, ckpt_path: Path | None = None) -> Foreign:
        torch.manual_seed(0)
        module = Deterministic()
        loader = DataLoader(points(40, 0), 8)
        trainer(*callbacks, num_sanity_val_steps=0).fit(
            module, loader, DataLoader(points(8, 1), 8), ckpt_path=ckpt_path
        )
        return module

    straight, record = EMA(0.9), Record()
    whole = run(straight, record, checkpoint(tmp_path, every_n_train_steps=step))
    path = tmp_path / f"step={step}.ckpt"
    resumed, after = EMA(0.9), Record()
    again = run(resumed, after, ckpt_path=path)
    if step == 5:  # mid-epoch, torch's DataLoader starts the epoch anew: other batches, and so other weights
        assert same(copied(whole), copied(again))
        assert same(record.steps[-1], after.steps[-1])
        assert resumed.num_updates == straight.num_updates == 10
    assert same(after.start, record.steps[step - 1])  # the raw weights, as they were
    saved = torch.load(path, weights_only=True)
    close(saved["state_dict"], averaged(record.start, record.steps[:step]))
    loaded = Foreign.load_from_checkpoint(path)
    assert same(copied(loaded), saved["state_dict"])


class Deterministic(Foreign):
    """Draws its noise from the step's number, as a resumed run would otherwise need the random state."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        torch.manual_seed(self.global_step)
        return super().training_step(batch, batch_idx)


def test_weights_only_checkpoints_hold_the_average(
    tmp_path: Path, trainer: Callable[..., Trainer], fit: Callable[..., Foreign]
) -> None:
    record = Record()
    fit(trainer(EMA(0.9), record, checkpoint(tmp_path, save_weights_only=True, every_n_train_steps=3)))
    saved = torch.load(tmp_path / "step=3.ckpt", weights_only=True)
    assert "callbacks" not in saved
    close(saved["state_dict"], averaged(record.start, record.steps[:3]))
    close(copied(Foreign.load_from_checkpoint(tmp_path / "step=9.ckpt")), averaged(record.start, record.steps[:9]))


class Disk(TorchCheckpointIO):
    """Somebody's own way of keeping checkpoints; notes what it is asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def save_checkpoint(self, checkpoint: Any, path: Any, storage_options: Any = None) -> None:
        self.asked.append(f"save {Path(path).name}")
        super().save_checkpoint(checkpoint, path, storage_options)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: Any = None) -> Any:
        self.asked.append(f"load {Path(path).name}")
        return super().load_checkpoint(path, map_location, weights_only)

    def remove_checkpoint(self, path: Any) -> None:
        self.asked.append(f"remove {Path(path).name}")
        super().remove_checkpoint(path)

    def teardown(self) -> None:
        self.asked.append("teardown")


def test_somebody_s_own_way_of_keeping_checkpoints_stays_in_use(
    tmp_path: Path, trainer: Callable[..., Trainer], fit: Callable[..., Foreign]
) -> None:
    """It is handed the average and does the rest, in a second fit of the same Trainer too."""
    disk, record = Disk(), Record()
    saver = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=5)  # the last only
    run = trainer(EMA(0.9), record, saver, plugins=[disk])
    module = fit(run)
    assert disk.asked == ["save step=5.ckpt", "save step=10.ckpt", "remove step=5.ckpt", "teardown"]
    disk.asked.clear()
    run.fit_loop.max_epochs = 3
    fit(run, module, ckpt_path=tmp_path / "step=10.ckpt")
    assert disk.asked == ["load step=10.ckpt", "save step=15.ckpt", "teardown"]
    saved = torch.load(tmp_path / "step=15.ckpt", weights_only=True)
    close(saved["state_dict"], averaged(record.start, record.steps))


@pytest.mark.parametrize("weights_only", [False, True])
def test_the_module_is_left_as_it_is(
    tmp_path: Path, trainer: Callable[..., Trainer], fit: Callable[..., Foreign], weights_only: bool
) -> None:
    """No method of it is replaced, in training or after, and its own hook is called as it is without us."""

    class Hooked(Foreign):
        saved = 0

        def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
            self.saved += 1

    class Look(Callback):
        def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
            assert replaced(pl_module) == []

    def replaced(module: LightningModule) -> list[str]:
        return [name for name in vars(module) if callable(getattr(type(module), name, None))]

    torch.manual_seed(0)
    saver = checkpoint(tmp_path, save_weights_only=weights_only, every_n_train_steps=2)
    module = fit(trainer(EMA(0.9), Look(), saver), Hooked())
    assert module.saved == 5
    assert replaced(module) == []


def test_another_average_of_the_same_trainer_takes_the_place_of_the_first(
    tmp_path: Path, trainer: Callable[..., Trainer], fit: Callable[..., Foreign]
) -> None:
    run, record = trainer(EMA(0.9), max_epochs=1), Record()
    fit(run)
    run.callbacks[:] = [EMA(0.5), record]
    run.fit_loop.max_epochs = 2
    module = fit(run)
    run.save_checkpoint(tmp_path / "second.ckpt", weights_only=True)
    assert same(torch.load(tmp_path / "second.ckpt", weights_only=True)["state_dict"], copied(module))
    close(copied(module), averaged(record.start, record.steps, 0.5))


def test_a_checkpoint_before_the_first_update_holds_the_weights(
    tmp_path: Path, trainer: Callable[..., Trainer], fit: Callable[..., Foreign]
) -> None:
    class SaveAtStart(Callback):
        def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
            trainer.save_checkpoint(tmp_path / "start.ckpt")

    record = Record()
    fit(trainer(EMA(0.9), SaveAtStart(), record))
    assert same(torch.load(tmp_path / "start.ckpt", weights_only=True)["state_dict"], record.start)


def test_the_last_checkpoint_and_one_saved_after_fit(
    tmp_path: Path, trainer: Callable[..., Trainer], fit: Callable[..., Foreign]
) -> None:
    record, ema = Record(), EMA(0.9)
    run = trainer(ema, record, ModelCheckpoint(tmp_path, save_last=True))
    module = fit(run)
    run.save_checkpoint(tmp_path / "after.ckpt")
    for name in ("last.ckpt", "after.ckpt"):
        saved = torch.load(tmp_path / name, weights_only=True)
        assert same(saved["state_dict"], copied(module))
        raw = saved["callbacks"]["EMA"]["raw"]
        assert raw and all(torch.equal(value, record.steps[-1][key]) for key, value in raw.items())

    more = Record()  # and a run that has nothing left to do still gives back the average
    other = fit(trainer(EMA(0.9), more), Foreign(), ckpt_path=tmp_path / "last.ckpt")
    assert same(copied(other), copied(module))


def test_a_second_fit_goes_on_from_the_raw_weights(
    trainer: Callable[..., Trainer], fit: Callable[..., Foreign]
) -> None:
    ema, record = EMA(0.9), Record()
    module = fit(trainer(ema, record, max_epochs=1))
    fit(trainer(ema, more := Record(), max_epochs=1), module)
    assert same(more.start, record.steps[-1])
    assert ema.num_updates == 10
    fit(trainer(ema, fresh := Record(), max_epochs=1))  # another module: another average
    assert ema.num_updates == 5
    close(fresh.seen["epoch_end"][0], averaged(fresh.start, fresh.steps))


def test_a_checkpoint_of_weights_that_were_loaded_after_training_holds_those(
    tmp_path: Path, trainer: Callable[..., Trainer], fit: Callable[..., Foreign]
) -> None:
    run = trainer(EMA(0.9))
    module = fit(run)
    other = {name: torch.full_like(value, 0.5) for name, value in module.state_dict().items()}
    module.load_state_dict(other)
    run.save_checkpoint(tmp_path / "other.ckpt")
    saved = torch.load(tmp_path / "other.ckpt", weights_only=True)
    assert same(saved["state_dict"], other) and not saved["callbacks"].get("EMA")


def test_an_average_of_a_training_that_broke_off_is_not_put_into_other_weights(
    trainer: Callable[..., Trainer], fit: Callable[..., Foreign]
) -> None:
    class Breaks(Callback):
        def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
            if trainer.global_step == 3:
                raise KeyError("stop")

    module = Foreign()
    run = trainer(EMA(0.9), Breaks())
    with pytest.raises(KeyError):
        fit(run, module)
    module.load_state_dict({name: torch.full_like(value, 0.5) for name, value in module.state_dict().items()})
    before = copied(module)

    class Looks(AtValidation):
        def act(self, trainer: Trainer, module: Any) -> dict[str, float]:
            self.seen = copied(module)
            return {}

    run.callbacks.append(looks := Looks())
    run.validate(module, DataLoader(points(8, 1), 8), verbose=False)
    assert same(looks.seen, before) and same(copied(module), before)


def test_a_failed_validation_leaves_the_raw_weights(
    trainer: Callable[..., Trainer], fit: Callable[..., Foreign]
) -> None:
    class Fail(Callback):
        def on_validation_batch_end(self, trainer: Trainer, *_: Any) -> None:
            if not trainer.sanity_checking:
                raise RuntimeError("on purpose")

    torch.manual_seed(0)
    module, record = Foreign(), Record()
    with pytest.raises(RuntimeError, match="on purpose"):
        fit(trainer(EMA(0.9), record, Fail()), module)
    assert same(copied(module), record.steps[-1])


def test_a_checkpoint_without_an_average_begins_one(
    tmp_path: Path, trainer: Callable[..., Trainer], fit: Callable[..., Foreign]
) -> None:
    before = Record()
    fit(trainer(before, ModelCheckpoint(tmp_path, filename="plain"), max_epochs=1))
    ema, record = EMA(0.9), Record()
    module = fit(trainer(ema, record), ckpt_path=tmp_path / "plain.ckpt")
    assert ema.num_updates == 5
    close(copied(module), averaged(before.steps[-1], record.steps))


class Odd(Foreign):
    """Tied weights, half precision, a mask of −inf, and a buffer that is replaced, not written into."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 16), nn.Linear(16, 16), nn.Linear(16, 16))
        self.net[2].weight = self.net[1].weight
        self.net.register_buffer("mask", torch.tensor([0.0, -torch.inf]))
        self.net.register_buffer("count", torch.zeros(()))
        self.narrow = nn.Linear(16, 16).bfloat16()

    def sample(self, num_samples: int) -> Tensor:
        hidden = self.net(torch.randn(num_samples, 3))
        return (hidden + self.narrow(hidden.bfloat16()).float()).sigmoid().view(-1, 1, 4, 4)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.net.count = self.net.count + 1
        return super().training_step(batch, batch_idx)


def test_odd_weights(tmp_path: Path, trainer: Callable[..., Trainer], fit: Callable[..., Any]) -> None:
    torch.manual_seed(0)
    record = Record()
    module = fit(trainer(EMA(0.999, warmup=False), record, ModelCheckpoint(tmp_path, save_last=True)), Odd())
    assert module.net[2].weight is module.net[1].weight
    assert module.net.mask.tolist() == [0.0, -torch.inf]
    average = 0.0
    for n in range(1, 11):
        average = 0.999 * average + 0.001 * n
    assert module.net.count.item() == pytest.approx(average)
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]
    # in bfloat16 steps of a thousandth would be lost: the average is kept, and saved, in float32
    expected = {k: v.float() for k, v in record.start.items() if k.startswith("narrow.")}
    for weights in record.steps:
        expected = {k: 0.999 * v + 0.001 * weights[k].float() for k, v in expected.items()}
    for name, value in expected.items():
        assert saved[name].dtype == torch.float32
        torch.testing.assert_close(saved[name], value, rtol=1e-5, atol=1e-7)
    assert not torch.equal(saved["narrow.weight"], record.start["narrow.weight"].float())


class Differ(Foreign):
    """Every process trains on other noise, so that the batch statistics differ from one to the other."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        torch.manual_seed(self.global_step * 2 + self.global_rank)
        return super().training_step(batch, batch_idx)

    def apart(self) -> float:
        flat = torch.cat([v.double().flatten() for v in self.state_dict().values()])
        return (self.all_gather(flat) - flat).abs().max().item()

    def on_train_epoch_end(self) -> None:
        assert self.apart() > 0  # or the next assertion would be empty

    def on_train_end(self) -> None:
        assert self.apart() == 0


def test_two_processes_hold_one_average(trainer: Callable[..., Trainer], fit: Callable[..., Any]) -> None:
    torch.manual_seed(0)
    fit(trainer(EMA(0.9), max_epochs=1, limit_val_batches=0, **on_two_processes()), Differ())


# ---- an average as wide as a share of training, however long that is


def test_a_width_weighs_steps_by_a_power_of_their_number(
    trainer: Callable[..., Trainer], fit: Callable[..., Foreign]
) -> None:
    """β of step t is (1 − 1/t)^(γ + 1): the first forgets what there was before."""
    record = Record()
    module = fit(trainer(EMA(width=0.1), record))
    expected = dict(record.start)
    for t, weights in enumerate(record.steps, start=1):
        beta = (1 - 1 / t) ** (exponent_of(0.1) + 1)
        for name, value in weights.items():
            expected[name] = beta * expected[name] + (1 - beta) * value if value.is_floating_point() else value
    close(copied(module), expected)


@pytest.mark.parametrize(("width", "exponent"), [(0.05, 16.97), (0.10, 6.94)])
def test_its_exponent_is_the_published_one(width: float, exponent: float) -> None:
    """Karras et al. 2024."""
    assert exponent_of(width) == pytest.approx(exponent, abs=0.005)


@pytest.mark.parametrize("width", [0.02, 0.05, 0.15, 0.28])
@pytest.mark.parametrize("steps", [1000, 4000])
def test_the_steps_that_count_spread_by_the_width(width: float, steps: int) -> None:
    ema, weights = EMA(width=width), np.zeros(steps)
    for n in range(steps):
        weights *= ema._decay(n)
        weights[n] += 1 - ema._decay(n)
    times = np.arange(1, steps + 1) / steps
    spread = np.sqrt(weights @ times**2 - (weights @ times) ** 2)
    assert weights.sum() == pytest.approx(1) and spread == pytest.approx(width, rel=20 / steps)


@pytest.mark.parametrize("width", [0.0, -0.1, 0.3, float("nan")])
def test_no_other_width_can_be(width: float) -> None:
    with pytest.raises(ValueError, match=r"EMA: width is .*; it must lie above 0 and at most at 0\.28"):
        EMA(width=width)


def test_bad_arguments_are_refused(trainer: Callable[..., Trainer], fit: Callable[..., Foreign]) -> None:
    with pytest.raises(ValueError, match=r"decay is 1\.0; it must lie in \[0, 1\)"):
        EMA(1.0)
    with pytest.raises(ValueError, match=r"\['generator'\], which Foreign does not have; it has: net, frozen"):
        fit(trainer(EMA(modules=["generator"])))


class Fails(Callback):
    """As if somebody had stopped it, after training."""

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == "validate":
            raise KeyError("stop")


def test_a_validation_after_training_that_breaks_off_leaves_the_average(trainer: Callable[..., Trainer]) -> None:
    module, data = Foreign(), DataLoader(points(64, 0), batch_size=8)
    run = trainer(EMA(0.9), Fails(), max_epochs=1)
    run.fit(module, data)
    average = copied(module)
    with pytest.raises(KeyError):
        run.validate(module, data, verbose=False)
    assert same(copied(module), average)


def test_weights_that_were_loaded_between_two_trainings_are_begun_with(trainer: Callable[..., Trainer]) -> None:
    module, data, ema = Foreign(), DataLoader(points(64, 0), batch_size=8), EMA(0.9)
    trainer(ema, max_epochs=1).fit(module, data)
    other = {name: torch.full_like(value, 0.5) for name, value in module.state_dict().items()}
    module.load_state_dict(other)
    record = Record()
    trainer(ema, record, max_epochs=1).fit(module, data)
    assert same(record.start, other)
    assert ema.num_updates == len(record.steps)


def test_where_to_a_checkpoint_is_read_the_plugin_knows_if_nobody_says(tmp_path: Path) -> None:
    """Lightning's reads to the CPU; told None, it would read to the GPU that wrote it, each process's to the same."""
    asked: list[Any] = []

    class Watched(TorchCheckpointIO):
        def load_checkpoint(self, path: Any, *where: Any, **how: Any) -> dict[str, Any]:
            asked.append((where, how))
            return super().load_checkpoint(path, *where, **how)

    torch.save({"x": torch.zeros(1)}, tmp_path / "x.ckpt")
    plugin = AveragedCheckpointIO(Watched(), EMA())
    assert plugin.load_checkpoint(tmp_path / "x.ckpt")["x"].device.type == "cpu"
    plugin.load_checkpoint(tmp_path / "x.ckpt", weights_only=True)
    assert asked == [((), {}), ((), {"weights_only": True})]
