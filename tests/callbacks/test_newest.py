"""`last.ckpt` is the newest state, whatever ends the run; and what was best stays best when the run goes on."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from foreign import Foreign, points
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import Logger
from torch.utils.data import DataLoader

from genzoo.callbacks import EMA, Newest

Make = Callable[..., Trainer]
Fit = Callable[..., Foreign]
EPOCH = 5  # steps


class At(Callback):
    """Does something in one hook of one step."""

    def __init__(self, hook: str, step: int, what: Callable[[Trainer], Any]):
        self.step, self.what = step, what
        setattr(self, hook, self.act)

    def act(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        if trainer.global_step == self.step and not trainer.sanity_checking:
            self.what(trainer)


class Score(Callback):
    """Logs figures of our choosing, one a validation."""

    def __init__(self, *figures: float):
        self.figures = list(figures)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        if not trainer.sanity_checking:
            pl_module.log("val/score", self.figures.pop(0))


class Steps(Callback):
    """Notes the step that each `last.ckpt` holds, as it is written."""

    def __init__(self) -> None:
        self.steps: list[int] = []

    def on_save_checkpoint(self, trainer: Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        self.steps.append(checkpoint["global_step"])


def test_the_best_is_that_of_another_checkpoint_callback(tmp_path: Path, trainer: Make, fit: Fit) -> None:
    """Lightning asks the first of them, which this may be."""
    best = ModelCheckpoint(tmp_path / "best", monitor="val/score", mode="min", filename="{step}")
    run = trainer(Newest(tmp_path), Score(2.0, 1.0, 3.0), best, max_epochs=3)
    module = fit(run)
    data = DataLoader(points(30, 1), 8)
    run.validate_loop._results.clear()
    loaded: list[int] = []
    run.callbacks.append(At("on_validation_start", run.global_step, lambda trainer: loaded.append(1)))
    run.callbacks = [callback for callback in run.callbacks if not isinstance(callback, Score)]
    run.validate(module, data, ckpt_path="best", verbose=False)
    weights = torch.load(tmp_path / "best" / f"step={2 * EPOCH}.ckpt", weights_only=True)["state_dict"]
    assert loaded and all(torch.equal(value, weights[name]) for name, value in module.state_dict().items())

    alone = trainer(Newest(tmp_path / "alone"), max_epochs=1)
    fit(alone, module)
    newest = torch.load(tmp_path / "alone" / "last.ckpt", weights_only=True)["state_dict"]
    module.load_state_dict({name: torch.zeros_like(value) for name, value in newest.items()})
    alone.validate(module, data, ckpt_path="best", verbose=False)
    assert all(torch.equal(value, newest[name]) for name, value in module.state_dict().items())


def step_of(folder: Path) -> int:
    return torch.load(folder / "last.ckpt", weights_only=True)["global_step"]


def test_written_also_where_the_figure_grows_worse(tmp_path: Path, trainer: Make, fit: Fit) -> None:
    best = ModelCheckpoint(tmp_path / "best", monitor="val/score", filename="best")
    seen = []
    note = At("on_train_epoch_start", 2 * EPOCH, lambda _: seen.append(step_of(tmp_path)))
    fit(trainer(Score(1.0, 2.0, 3.0), best, note, Newest(tmp_path), max_epochs=3))
    assert step_of(tmp_path) == 3 * EPOCH and seen == [2 * EPOCH]
    assert torch.load(tmp_path / "best/best.ckpt", weights_only=True)["global_step"] == EPOCH


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({}, [5, 10]),
        ({"check_val_every_n_epoch": 2}, [10]),
        ({"check_val_every_n_epoch": 2, "max_epochs": 3}, [10, 15]),
        ({"val_check_interval": 2}, [2, 4, 7, 9, 10]),
        ({"check_val_every_n_epoch": None, "val_check_interval": 3, "max_epochs": 1}, [3, 5]),
        ({"limit_val_batches": 0}, [5, 10]),
        ({"max_epochs": -1, "max_steps": 7}, [5, 7]),
        ({"max_epochs": 50, "max_steps": 3, "check_val_every_n_epoch": 9}, [3]),
        ({"fast_dev_run": True}, []),
    ],
)
def test_when_it_is_written(
    options: dict[str, Any], steps: list[int], tmp_path: Path, trainer: Make, fit: Fit
) -> None:
    """After each validation, or each epoch without any; and at the end."""
    seen = Steps()
    fit(trainer(seen, Newest(tmp_path), **options))
    assert seen.steps == steps
    assert [path.name for path in tmp_path.rglob("*.ckpt")] == ["last.ckpt"] * bool(steps)


def test_no_older_than_any_other_checkpoint(tmp_path: Path, trainer: Make, fit: Fit) -> None:
    others = ModelCheckpoint(tmp_path / "all", every_n_train_steps=2, save_top_k=-1)
    seen: list[int] = []
    note = At("on_train_batch_start", 4, lambda _: seen.append(step_of(tmp_path)))
    fit(trainer(others, note, Newest(tmp_path), max_epochs=1))
    assert seen == [4] and step_of(tmp_path) == EPOCH


def stop(trainer: Trainer) -> None:
    trainer.should_stop = True


def test_a_time_limit_before_the_first_validation(tmp_path: Path, trainer: Make, fit: Fit) -> None:
    """Which tells the Trainer to stop at the end of a batch."""
    fit(trainer(At("on_train_batch_end", 3, stop), Newest(tmp_path), check_val_every_n_epoch=2))
    assert step_of(tmp_path) == 3
    fit(trainer(Newest(tmp_path / "limited"), max_epochs=-1, max_time="00:00:00:01", limit_val_batches=0))
    assert step_of(tmp_path / "limited") > 0


def send(number: int) -> Callable[[Trainer], None]:
    return lambda _: os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    ("hook", "before", "step"),
    [
        ("on_before_optimizer_step", 2, 3),  # the step that is half done is finished first
        ("on_train_batch_end", 3, 3),
        ("on_train_batch_end", 5, 5),  # a validation is due
        ("on_validation_batch_start", 5, 5),
        ("on_validation_epoch_end", 5, 5),
        ("on_train_start", 0, 1),
    ],
)
def test_a_signal(number: int, hook: str, before: int, step: int, tmp_path: Path, trainer: Make, fit: Fit) -> None:
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit):
        fit(trainer(At(hook, before, send(number)), EMA(0.5), Newest(tmp_path)))
    signal.signal(signal.SIGINT, handlers[0])  # which Lightning deafens for the rest of the program
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers
    checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == step
    assert checkpoint["callbacks"]["EMA"]["num_updates"] == step


def test_it_listens_in_the_next_fit_too(tmp_path: Path, trainer: Make, fit: Fit) -> None:
    newest = Newest(tmp_path)
    for step in (2, 4):
        with pytest.raises(SystemExit):
            fit(trainer(At("on_before_optimizer_step", step, send(signal.SIGTERM)), newest))
        assert step_of(tmp_path) == step + 1


def test_a_second_ctrl_c_ends_it_at_once(tmp_path: Path, trainer: Make, fit: Fit) -> None:
    def twice(_: Trainer) -> None:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(SystemExit):
        fit(trainer(At("on_before_optimizer_step", 2, twice), Newest(tmp_path)))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    assert not (tmp_path / "last.ckpt").exists()  # nothing of a step that is half done


def test_an_error_leaves_the_newest_alone(tmp_path: Path, trainer: Make, fit: Fit) -> None:
    def fail(_: Trainer) -> None:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        fit(trainer(At("on_train_batch_end", 7, fail), Newest(tmp_path)))
    assert step_of(tmp_path) == EPOCH


# ---- what a resumed run takes along


def resume(
    trainer: Make, fit: Fit, folder: Path, last: Path, *figures: float, **options: Any
) -> tuple[ModelCheckpoint, Trainer]:
    best = ModelCheckpoint(folder, monitor="val/score", **options)
    going_on = trainer(Score(*figures), best, Newest(folder), max_epochs=4)
    fit(going_on, ckpt_path=last)
    return best, going_on


@pytest.fixture
def first(tmp_path: Path, trainer: Make, fit: Fit) -> Path:
    """The folder of a run of two epochs, of which the first was the better one."""
    folder = tmp_path / "first"
    fit(trainer(Score(1.0, 2.0), ModelCheckpoint(folder, monitor="val/score"), Newest(folder)))
    assert {path.name for path in folder.iterdir()} == {"epoch=0-step=5.ckpt", "last.ckpt"}
    return folder


def test_the_best_comes_along(first: Path, tmp_path: Path, trainer: Make, fit: Fit) -> None:
    best, _ = resume(trainer, fit, tmp_path / "second", first / "last.ckpt", 1.5, 3.0)
    assert best.best_model_path == str(tmp_path / "second/epoch=0-step=5.ckpt") and best.best_model_score == 1.0
    assert Path(best.best_model_path).read_bytes() == (first / "epoch=0-step=5.ckpt").read_bytes()
    assert {path.name for path in (tmp_path / "second").iterdir()} == {"epoch=0-step=5.ckpt", "last.ckpt"}


def test_a_better_one_takes_its_place(first: Path, tmp_path: Path, trainer: Make, fit: Fit) -> None:
    best, _ = resume(trainer, fit, tmp_path / "second", first / "last.ckpt", 1.5, 0.5)
    assert best.best_model_score == 0.5
    assert {path.name for path in (tmp_path / "second").iterdir()} == {"epoch=3-step=20.ckpt", "last.ckpt"}
    assert (first / "epoch=0-step=5.ckpt").exists()  # the first run keeps its own


def test_the_best_comes_along_twice(first: Path, tmp_path: Path, trainer: Make, fit: Fit) -> None:
    """Also where the folder of the first run is gone, and the second was moved."""
    resume(trainer, fit, tmp_path / "second", first / "last.ckpt", 1.5, 3.0)
    first.rename(tmp_path / "gone")
    (tmp_path / "second").rename(tmp_path / "moved")
    best, _ = resume(trainer, fit, tmp_path / "third", tmp_path / "moved/last.ckpt")
    assert best.best_model_path == str(tmp_path / "third/epoch=0-step=5.ckpt") and best.best_model_score == 1.0
    assert step_of(tmp_path / "third") == 4 * EPOCH  # though nothing was left to train


def test_several_of_the_best_come_along(tmp_path: Path, trainer: Make, fit: Fit) -> None:
    folder = tmp_path / "first"
    kept = ModelCheckpoint(folder, monitor="val/score", save_top_k=2)
    fit(trainer(Score(1.0, 2.0), kept, Newest(folder)))
    best, _ = resume(trainer, fit, tmp_path / "second", folder / "last.ckpt", 1.5, 3.0, save_top_k=2)
    assert sorted(map(float, best.best_k_models.values())) == [1.0, 1.5]
    names = {path.name for path in (tmp_path / "second").iterdir()}
    assert names == {"epoch=0-step=5.ckpt", "epoch=2-step=15.ckpt", "last.ckpt"}


def test_names_with_folders_come_along(tmp_path: Path, trainer: Make, fit: Fit) -> None:
    """A metric with a slash in its name makes them, and the same name may be in two of them."""
    name = {"filename": "{epoch}-{val/score:.0f}", "save_top_k": 2}
    folder = tmp_path / "first"
    fit(trainer(Score(1.1, 1.2), ModelCheckpoint(folder, monitor="val/score", **name), Newest(folder)))
    names = {path.relative_to(folder) for path in folder.rglob("*.ckpt")}
    assert names == {Path("last.ckpt"), *(Path(f"epoch={epoch}-val/score=1.ckpt") for epoch in (0, 1))}
    folder.rename(tmp_path / "moved")
    best, _ = resume(trainer, fit, tmp_path / "second", tmp_path / "moved/last.ckpt", 1.5, 3.0, **name)
    found = {Path(path).relative_to(tmp_path / "second"): float(score) for path, score in best.best_k_models.items()}
    assert {path: round(score, 1) for path, score in found.items()} == {
        Path("epoch=0-val/score=1.ckpt"): 1.1,
        Path("epoch=1-val/score=1.ckpt"): 1.2,
    }
    for path in found:
        assert (tmp_path / "second" / path).read_bytes() == (tmp_path / "moved" / path).read_bytes()


def test_a_best_that_is_gone_is_said(first: Path, tmp_path: Path, trainer: Make, fit: Fit) -> None:
    (first / "epoch=0-step=5.ckpt").unlink()
    with pytest.warns(UserWarning, match="epoch=0-step=5.ckpt.* is gone"):
        best, _ = resume(trainer, fit, tmp_path / "second", first / "last.ckpt", 1.5, 3.0)
    assert best.best_model_score == 1.5


def test_a_copy_where_there_are_no_links(
    first: Path, tmp_path: Path, trainer: Make, fit: Fit, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    best, _ = resume(trainer, fit, tmp_path / "second", first / "last.ckpt", 1.5, 3.0)
    assert Path(best.best_model_path).read_bytes() == (first / "epoch=0-step=5.ckpt").read_bytes()


# ---- after a run, and beside others


def test_after_a_run_signals_do_what_they_did_before(tmp_path: Path, trainer: Make, fit: Fit) -> None:
    """Lightning has given them back by then, and its own handlers only take notes."""
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    fit(trainer(Newest(tmp_path)))
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers


def test_a_validation_after_an_interrupted_run_leaves_its_state_alone(
    tmp_path: Path, trainer: Make, fit: Fit
) -> None:
    run = trainer(At("on_train_batch_end", 3, send(signal.SIGTERM)), Newest(tmp_path))
    with pytest.raises(SystemExit):
        fit(run)
    written = (tmp_path / "last.ckpt").read_bytes()
    run.validate(Foreign(), DataLoader(points(30, 1), 8), verbose=False)
    assert (tmp_path / "last.ckpt").read_bytes() == written


def test_the_newest_state_of_another_run_is_set_aside(tmp_path: Path, trainer: Make, fit: Fit) -> None:
    for epochs in (1, 2, 3):
        fit(trainer(Newest(tmp_path), max_epochs=epochs))
    names = ("last-v1.ckpt", "last-v2.ckpt", "last.ckpt")
    assert [torch.load(tmp_path / name, weights_only=True)["epoch"] for name in names] == [0, 1, 2]
    fit(trainer(Newest(tmp_path), max_epochs=4), ckpt_path=tmp_path / "last.ckpt")  # the same run
    assert sorted(path.name for path in tmp_path.glob("*.ckpt")) == list(names) and step_of(tmp_path) == 4 * EPOCH


class Elsewhere(Logger):
    """As loggers of services are: their folder is that of all their runs."""

    def __init__(self, folder: Path, version: int | str) -> None:
        super().__init__()
        self.save_dir, self.name, self.version = str(folder), "project", version

    save_dir = name = version = None  # type: ignore[assignment]

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None: ...

    def log_metrics(self, *args: Any, **kwargs: Any) -> None: ...


@pytest.mark.parametrize(("version", "folder"), [("a1b2", "project/a1b2"), (3, "project/version_3")])
def test_each_run_of_a_logger_has_a_folder_of_its_own(
    version: int | str, folder: str, tmp_path: Path, trainer: Make, fit: Fit
) -> None:
    """The one that Lightning's own checkpoints would have."""
    fit(trainer(Newest(), logger=Elsewhere(tmp_path, version)))
    assert step_of(tmp_path / folder / "checkpoints") == 2 * EPOCH
