"""The newest state of a run, from which an interrupted one goes on."""

import os
import shutil
import signal
import threading
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any

from lightning.fabric.plugins.environments import SLURMEnvironment
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.exceptions import SIGTERMException

from genzoo.callbacks.ema import averaged_weights
from genzoo.zoo.files import put_in_place, staged
from genzoo.zoo.hub.run_folder import run_folder
from genzoo.zoo.module import ZooModule
from genzoo.zoo.processes import world_size


class Newest(Checkpoint):
    """Keeps `last.ckpt`, the newest state of the run, whatever becomes of it.

    It is written after every validation (without any, after every epoch), whenever a ModelCheckpoint has written one
    of its own, and when training ends: because it is over, on a time limit, on Ctrl-C, on SIGTERM. These signals, and
    the one that announces a requeue by SLURM, are obeyed as soon as the batch at hand is done (on several processes,
    as soon as all have heard of it), so that no half of an optimiser's step is ever written; a second Ctrl-C ends the
    run at once.

    `trainer.fit(…, ckpt_path=newest.path)` goes on from there (Lightning's "last" knows of its own callback alone).

    A run that goes on in another folder takes the best checkpoints along, so that a ModelCheckpoint goes on comparing
    with them, and `Publish` finds the best of both runs.

    Args:
        dirpath: where `last.ckpt` lies; None is the folder `checkpoints` of the run.
    """

    def __init__(self, dirpath: str | Path | None = None) -> None:
        self.dirpath = None if dirpath is None else str(dirpath)
        self._signal: int | None = None  # that arrived and waits to be obeyed
        self._replaced: dict[int, Any] = {}  # the handlers of signals before ours
        self._at_once = False
        self._saved_step = self._validated_step = -1
        self._others: list[ModelCheckpoint] = []

    @property
    def best_model_path(self) -> str:
        """What a Trainer takes for "best", of which this may be the first checkpoint callback: the first that another
        one has; where there is no other, the newest.
        """
        newest = self.path if self._saved_step >= 0 and not self._others else ""
        return next((other.best_model_path for other in self._others if other.best_model_path), newest)

    @property
    def path(self) -> str:
        """Of the newest state."""
        return os.path.join(self.dirpath or "", "last.ckpt")

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Finds the folder, which all processes agree on."""
        self._others = [c for c in trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint)]
        if stage == TrainerFn.FITTING:
            self.dirpath = trainer.strategy.broadcast(self.dirpath or str(run_folder(trainer) / "checkpoints"))
            self._signal, self._at_once, self._saved_step = None, False, -1

    # ---- when

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Obeys a signal; else writes where training may end within an epoch, or another checkpoint was written."""
        asked, loop = self._asked(trainer), trainer.fit_loop
        ends = trainer.global_step == loop.max_steps or (trainer.should_stop and loop._can_stop_early)
        if asked or ends or self._is_behind(trainer):
            if ends:  # and no validation need come first
                self._settle(trainer, pl_module)
            self._save(trainer)
            self._obey(asked, trainer)

    def on_validation_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """Obeys a signal within a validation, which the resumed run makes anew."""
        fitting = trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking
        if self._signal and world_size() == 1 and fitting:
            self._save(trainer)
            self._obey(self._signal, trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes after a validation within an epoch; the state after one at its end is that of the epoch's end."""
        if trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking:
            return
        self._validated_step = trainer.global_step
        if not _at_epoch_end(trainer):
            self._save(trainer)
            self._obey(self._asked(trainer), trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes after an epoch that ended with a validation, or if there are none."""
        due = not trainer.enable_validation or self._validated_step == trainer.global_step
        if _at_epoch_end(trainer) and (due or self._is_behind(trainer)):
            if trainer.should_stop:  # since a callback has looked at the epoch's figures
                self._settle(trainer, pl_module)
            self._save(trainer)
            self._obey(self._asked(trainer), trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the end of training, and obeys a signal that came meanwhile; one that comes later, while a model is
        measured, ends the run at once.
        """
        if self._saved_step != trainer.global_step:
            self._save(trainer)
        asked, self._at_once = self._asked(trainer), True
        self._obey(asked, trainer)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """As `on_train_end`, which Lightning skips when a resumed run had nothing left to train."""
        if self._saved_step != trainer.global_step and trainer.global_step > 0:
            self._save(trainer)

    def _settle(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if isinstance(pl_module, ZooModule) and pl_module.settles:
            with averaged_weights(trainer):
                pl_module.settle()

    def _is_behind(self, trainer: Trainer) -> bool:
        """Whether a ModelCheckpoint has written this step, and this one not."""
        step = trainer.global_step
        return step != self._saved_step and any(other._last_global_step_saved == step > 0 for other in self._others)

    def _save(self, trainer: Trainer) -> None:
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        on_disk = "://" not in self.path
        if on_disk and self._saved_step < 0 and trainer.is_global_zero and not self._is_own(Path(self.path), trainer):
            _set_aside(Path(self.path))
        if on_disk and _writes_folders(trainer):
            _save_folder(trainer, Path(self.path))
        else:
            trainer.save_checkpoint(self.path)
        self._saved_step = trainer.global_step

    def _is_own(self, path: Path, trainer: Trainer) -> bool:
        """Whether what lies there is of this run: it goes on from there, or its ModelCheckpoint has written it."""
        begun = Path(str(trainer.ckpt_path)).absolute().parent if trainer.ckpt_path else None
        written = [getattr(other, "last_model_path", "") for other in trainer.checkpoint_callbacks]
        return begun in (path.absolute().parent, path.absolute().parent.parent) or str(path) in written

    # ---- signals

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Hears signals from here on: Lightning has set its own handlers just before."""
        self._listen(trainer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Hears signals from here on, where there was no sanity check."""
        self._listen(trainer)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Gives the signals back; where Lightning has done so already, its own handlers are gone."""
        for number, handler in self._replaced.items():
            if signal.getsignal(number) == self._hear:
                signal.signal(number, handler)
        self._replaced, self._signal = {}, None

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Gives the signals back; Lightning skips `teardown`."""
        self.teardown(trainer, pl_module, TrainerFn.FITTING)

    def _listen(self, trainer: Trainer) -> None:
        # Lightning's handler of SIGTERM broadcasts, in the middle of whatever the processes have to say to each other
        # just then: where one of several gets the signal, all of them hang. Its handler of a requeue writes a
        # checkpoint in the middle of a step.
        if self._replaced or threading.current_thread() is not threading.main_thread():
            return
        numbers = [signal.SIGINT, signal.SIGTERM]
        environment = trainer._accelerator_connector.cluster_environment
        if isinstance(environment, SLURMEnvironment) and environment.auto_requeue and environment.requeue_signal:
            numbers.append(environment.requeue_signal)
        self._replaced = {number: signal.signal(number, self._hear) for number in numbers}

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self._at_once or (number == self._signal == signal.SIGINT):
            raise KeyboardInterrupt if number == signal.SIGINT else SIGTERMException
        self._signal = number

    def _asked(self, trainer: Trainer) -> int | None:
        """The signal that this process or another has heard, which counts as SIGTERM here."""
        if world_size() == 1:
            return self._signal
        heard = trainer.strategy.reduce_boolean_decision(self._signal is not None, all=False)
        return (self._signal or signal.SIGTERM) if heard else None

    def _obey(self, number: int | None, trainer: Trainer) -> None:
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        if number == signal.SIGTERM:
            self._at_once = True  # another one does not wait for what callbacks do at the end
            raise SIGTERMException
        if number:
            self._signal = None
            self._replaced[number](number, None)  # requeues the job, which ends this process

    # ---- what a resumed run takes along

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Brings the best checkpoints of the interrupted run into the folder of this one.

        Lightning forgets them where the folder has changed, and would take the first checkpoint of the resumed run
        for the best.
        """
        if trainer.state.fn != TrainerFn.FITTING:
            return
        for callback in trainer.checkpoint_callbacks:
            state = checkpoint["callbacks"].get(callback.state_key)
            if isinstance(callback, ModelCheckpoint) and state and state["dirpath"] != callback.dirpath:
                carried = _carried(state, str(callback.dirpath), Path(str(trainer.ckpt_path)).parent, trainer)
                if carried is None:
                    del checkpoint["callbacks"][callback.state_key]
                else:
                    checkpoint["callbacks"][callback.state_key] = carried


def _at_epoch_end(trainer: Trainer) -> bool:
    return trainer.fit_loop.epoch_loop._num_ready_batches_reached()


def _carried(state: dict[str, Any], folder: str, beside: Path, trainer: Trainer) -> dict[str, Any] | None:
    """A ModelCheckpoint's state with its files in `folder`; None if they are gone.

    They are looked for where they were, and beside the checkpoint that is resumed, should the run have been moved; a
    metric with a slash in their names makes folders.
    """
    found: dict[str, str] = {}
    for old in filter(None, {*state["best_k_models"], state["best_model_path"], state["kth_best_model_path"]}):
        path = Path(old)
        name = path.relative_to(state["dirpath"]) if path.is_relative_to(state["dirpath"]) else Path(path.name)
        places = [place for place in (path, beside / name, beside.parent / name) if place.exists()]
        if not places:
            rank_zero_warn(f"{old}, the best checkpoint so far, is gone: the resumed run looks for the best anew.")
            return None
        found[old] = os.path.join(folder, name)
        if trainer.is_global_zero and not os.path.exists(found[old]):
            _bring(places[0], Path(found[old]))
    trainer.strategy.barrier()
    return {
        **state,
        "dirpath": folder,
        "best_k_models": {found[old]: score for old, score in state["best_k_models"].items()},
        "best_model_path": found.get(state["best_model_path"], ""),
        "kth_best_model_path": found.get(state["kth_best_model_path"], ""),
        "last_model_path": "",
    }


def _writes_folders(trainer: Trainer) -> bool:
    """Whether a checkpoint is a folder with a file of each process."""
    sharded = getattr(trainer.strategy, "_state_dict_type", "") == "sharded"
    return sharded or getattr(trainer.strategy, "_save_distributed_checkpoint", False)


def _save_folder(trainer: Trainer, path: Path) -> None:
    """Writes such a checkpoint aside, and then puts it in its place."""
    half, old = path.with_name(f"{path.name}.part"), path.with_name(f"{path.name}.old")
    if trainer.is_global_zero:
        shutil.rmtree(half, ignore_errors=True)
    trainer.strategy.barrier()
    trainer.save_checkpoint(half)
    if trainer.is_global_zero:
        put_in_place(path, half, old)
        shutil.rmtree(old, ignore_errors=True)
    trainer.strategy.barrier()


def _set_aside(path: Path) -> None:
    """Another run's newest state, where this one keeps its own in the same folder."""
    if path.exists():
        aside = next(a for n in count(1) if not (a := path.with_name(f"{path.stem}-v{n}{path.suffix}")).exists())
        path.rename(aside)
        rank_zero_warn(f"{path} was there before this run, and is {aside.name} now.")


def _bring(source: Path, target: Path) -> None:
    """A link, which takes no room and outlives the first run; a copy where the disk has no links, and of a folder."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        with staged(target) as half:
            shutil.copytree(source, half, dirs_exist_ok=True)
        return
    try:
        os.link(source, target)
    except OSError:
        half = target.with_name(f"{target.name}.part")
        shutil.copyfile(source, half)
        os.replace(half, target)
