"""The loaders under a real Lightning Trainer: epochs, interruption, two processes."""

import json
import signal
import subprocess
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from running import python
from torch import Tensor

from genzoo.datamodules import DigitsDataModule, TextDataModule
from genzoo.trainer import AutoTrainer


class Witness(LightningModule):
    """Somebody's own module: writes down a fingerprint of every batch, and learns a little from it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(8, 8))
        self.seen: list[tuple[int, int, float]] = []

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        x, y = batch
        fingerprint = (x.flatten(1).double() @ torch.arange(1.0, 65, dtype=torch.double)).sum() + (y * 1e6).sum()
        self.seen.append((self.current_epoch, batch_idx, fingerprint.item()))
        return ((self.weight - x) ** 2).mean()

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self.log("val", batch[0].mean(), batch_size=len(batch[0]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Interrupt(Callback):
    """What a power cut is to a test in one process: nothing after this step happens."""

    def __init__(self, step: int):
        self.step = step

    def on_train_batch_end(self, trainer: Trainer, *_: object) -> None:
        if trainer.global_step == self.step:
            raise RuntimeError("power cut")


def quiet(folder: Path, **kwargs: Any) -> Trainer:
    return AutoTrainer(
        default_root_dir=folder,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **{"enable_checkpointing": False, "max_epochs": 4, **kwargs},
    )


def digits() -> DigitsDataModule:
    return DigitsDataModule(batch_size=128, binarize="dynamic", seed=3)  # 9 batches an epoch


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Witness:
    module = Witness()
    quiet(tmp_path_factory.mktemp("whole")).fit(module, datamodule=digits())
    return module


def test_epochs_differ(uninterrupted: Witness) -> None:
    assert len(uninterrupted.seen) == 4 * 9
    assert len({fingerprint for *_, fingerprint in uninterrupted.seen}) == 4 * 9


# 4: within an epoch; 9: after its last batch; 18: after that of the second; 23: within the third.
@pytest.mark.parametrize("step", [1, 4, 9, 18, 23])
def test_resumed_run_sees_the_batches_it_would_have_seen(step: int, uninterrupted: Witness, tmp_path: Path) -> None:
    checkpoint = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=step, save_top_k=-1)
    interrupted = Witness()
    with pytest.raises(RuntimeError, match="power cut"):
        quiet(tmp_path, callbacks=[checkpoint, Interrupt(step + 2)], enable_checkpointing=True).fit(
            interrupted, datamodule=digits()
        )

    resumed = Witness()
    quiet(tmp_path).fit(resumed, datamodule=digits(), ckpt_path=tmp_path / f"step={step}.ckpt")
    assert resumed.seen == uninterrupted.seen[step:]
    assert torch.equal(resumed.weight, uninterrupted.weight)


@pytest.mark.parametrize("when", ["on_train_epoch_end", "on_validation_end"])
def test_resumed_from_the_end_of_an_epoch(when: str, uninterrupted: Witness, tmp_path: Path) -> None:
    checkpoint = ModelCheckpoint(
        tmp_path, filename="{epoch}", save_top_k=-1, save_on_train_epoch_end=when == "on_train_epoch_end"
    )
    with pytest.raises(RuntimeError, match="power cut"):
        quiet(tmp_path, callbacks=[checkpoint, Interrupt(20)], enable_checkpointing=True).fit(
            Witness(), datamodule=digits()
        )
    resumed = Witness()
    quiet(tmp_path).fit(resumed, datamodule=digits(), ckpt_path=tmp_path / "epoch=1.ckpt")
    assert resumed.seen == uninterrupted.seen[18:]


def test_reloaded_dataloaders_go_on_with_the_epochs(uninterrupted: Witness, tmp_path: Path) -> None:
    module = Witness()
    quiet(tmp_path, reload_dataloaders_every_n_epochs=1).fit(module, datamodule=digits())
    assert module.seen == uninterrupted.seen


def test_a_limited_epoch_is_the_beginning_of_the_whole_one(uninterrupted: Witness, tmp_path: Path) -> None:
    module = Witness()
    quiet(tmp_path, limit_train_batches=4).fit(module, datamodule=digits())
    assert module.seen == [s for s in uninterrupted.seen if s[1] < 4]


def test_a_longer_run_goes_on_where_max_steps_stopped_a_shorter_one(uninterrupted: Witness, tmp_path: Path) -> None:
    short, long = (quiet(tmp_path, max_steps=steps, max_epochs=-1) for steps in (13, 30))
    short.fit(Witness(), datamodule=digits())
    short.save_checkpoint(tmp_path / "short.ckpt")
    module = Witness()
    long.fit(module, datamodule=digits(), ckpt_path=tmp_path / "short.ckpt")
    # Lightning counts the broken epoch as one, so that its own numbers run ahead of the loader's.
    assert [seen for *_, seen in module.seen] == [seen for *_, seen in uninterrupted.seen[13:30]]


@pytest.mark.parametrize("batches", [1, 3, 0.5, 1.0])
@pytest.mark.parametrize("reload", [0, 1])
def test_overfitting_keeps_the_batches(
    batches: float, reload: int, uninterrupted: Witness, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    class Both(Witness):
        def __init__(self) -> None:
            super().__init__()
            self.validated: list[tuple[int, int, float]] = []

        def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
            self.validated.append((self.current_epoch, batch_idx, batch[0].double().sum().item()))

    module, options = Both(), {"overfit_batches": batches, "num_sanity_val_steps": 0, "max_epochs": 3}
    quiet(tmp_path, reload_dataloaders_every_n_epochs=reload, **options).fit(module, datamodule=digits())
    number = batches if isinstance(batches, int) else int(9 * batches)
    first = [fingerprint for _, _, fingerprint in uninterrupted.seen[:number]]
    assert module.seen == [(epoch, i, first[i]) for epoch in range(3) for i in range(number)]
    epochs = [[seen[1:] for seen in module.validated if seen[0] == epoch] for epoch in range(3)]
    assert epochs[0] == epochs[1] == epochs[2] != []
    assert not [w for w in recwarn if "enabled val dataloader shuffling" in str(w.message)]  # which there is not


def test_overfitting_goes_on_where_it_was_interrupted(tmp_path: Path) -> None:
    whole, half, rest = Witness(), Witness(), Witness()
    quiet(tmp_path, overfit_batches=3, max_steps=12, max_epochs=-1).fit(whole, datamodule=digits())
    for step in (5, 6):  # within an epoch, and at its end
        trainer = quiet(tmp_path, overfit_batches=3, max_steps=step, max_epochs=-1)
        trainer.fit(half, datamodule=digits())
        trainer.save_checkpoint(tmp_path / f"{step}.ckpt")
        rest = Witness()
        quiet(tmp_path, overfit_batches=3, max_steps=12, max_epochs=-1).fit(
            rest, datamodule=digits(), ckpt_path=tmp_path / f"{step}.ckpt"
        )
        assert [seen[2] for seen in rest.seen] == [seen[2] for seen in whole.seen[step:]]


@pytest.mark.parametrize("overfit", [0, 1])
def test_overfitting_keeps_the_windows_of_a_text(overfit: int, tmp_path: Path) -> None:
    class Windows(Witness):
        def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:  # type: ignore[override]
            self.seen.append(
                (0, batch_idx, (batch.double() @ torch.arange(1.0, 17, dtype=torch.double)).sum().item())
            )
            return self.weight.sum()

        def validation_step(self, batch: Tensor, batch_idx: int) -> None:  # type: ignore[override]
            pass

    (tmp_path / "text").write_text("".join(f"{i} " for i in range(2000)))
    module, data = Windows(), TextDataModule(str(tmp_path / "text"), context_length=16, batch_size=8)
    limits = {"overfit_batches": 1} if overfit else {"limit_train_batches": 1, "limit_val_batches": 1}
    quiet(tmp_path, **limits).fit(module, datamodule=data)
    assert len(module.seen) == 4 and len(set(module.seen)) == (1 if overfit else 4)


def test_resumed_from_the_end_of_a_limited_epoch(uninterrupted: Witness, tmp_path: Path) -> None:
    first = quiet(tmp_path, limit_train_batches=4, max_epochs=2)
    first.fit(Witness(), datamodule=digits())
    first.save_checkpoint(tmp_path / "two.ckpt")
    module = Witness()
    rest = quiet(tmp_path, limit_train_batches=4, max_epochs=4)
    rest.fit(module, datamodule=digits(), ckpt_path=tmp_path / "two.ckpt")
    assert module.seen == [s for s in uninterrupted.seen if s[1] < 4 and s[0] >= 2]


def test_validation_and_a_second_look_do_not_move_the_training_order(uninterrupted: Witness, tmp_path: Path) -> None:
    class Look(Callback):
        def on_train_batch_end(self, trainer: Trainer, *_: object) -> None:
            next(iter(trainer.datamodule.train_dataloader()))
            torch.rand(3)

    module = Witness()
    quiet(tmp_path, callbacks=[Look()], val_check_interval=3).fit(module, datamodule=digits())
    assert module.seen == uninterrupted.seen


def run(script: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A script in a process of its own, with this file's names at hand."""
    file = folder / "script.py"
    here = [str(parent) for parent in Path(__file__).parents[:2]]
    header = f"import sys; sys.path[:0] = {here}\nfrom test_under_trainer import *\n"
    file.write_text(header + textwrap.dedent(script))
    return python(str(file), str(folder), *arguments, cwd=folder)


def test_resumed_after_sigkill(uninterrupted: Witness, tmp_path: Path) -> None:
    script = """
        import os, signal
        folder = Path(sys.argv[1])

        class Kill(Callback):
            def on_train_batch_end(self, trainer, *_):
                if trainer.global_step == 16:
                    os.kill(os.getpid(), signal.SIGKILL)

        checkpoint = ModelCheckpoint(folder, filename="{step}", every_n_train_steps=7, save_top_k=-1)
        trainer = quiet(folder, callbacks=[Kill(), checkpoint], enable_checkpointing=True)
        trainer.fit(Witness(), datamodule=digits())
    """
    assert run(script, tmp_path).returncode == -signal.SIGKILL
    resumed = Witness()
    quiet(tmp_path).fit(resumed, datamodule=digits(), ckpt_path=tmp_path / "step=14.ckpt")
    assert resumed.seen == uninterrupted.seen[14:]
    assert torch.equal(resumed.weight, uninterrupted.weight)


def test_two_processes_share_the_rows_out(tmp_path: Path) -> None:
    script = """
        class Rows(Witness):
            def __init__(self):
                super().__init__()
                self.rows = {"train": [], "val": [], "test": []}

            def note(self, split, batch):
                self.rows[split].append([x.numpy().tobytes().hex() for x in batch[0]])

            def training_step(self, batch, batch_idx):
                self.note("train", batch)
                return super().training_step(batch, batch_idx)

            def validation_step(self, batch, batch_idx):
                self.note("val", batch)

            def test_step(self, batch, batch_idx):
                self.note("test", batch)

        folder = Path(sys.argv[1])
        module, data = Rows(), DigitsDataModule(batch_size=7, val_size=101)
        trainer = quiet(folder, devices=2, strategy="ddp", max_epochs=1, num_sanity_val_steps=0)
        trainer.fit(module, datamodule=data)
        trainer.test(module, datamodule=data)
        (folder / f"{trainer.global_rank}.json").write_text(json.dumps(module.rows))
    """
    done = run(script, tmp_path)
    assert done.returncode == 0, done.stderr
    ranks = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
    data = DigitsDataModule(batch_size=7, val_size=101)
    for split, loader in (("val", data.val_dataloader()), ("test", data.test_dataloader())):
        seen = [row for rank in ranks for batch in rank[split] for row in batch]
        assert sorted(seen) == sorted(x.numpy().tobytes().hex() for xs, _ in loader for x in xs)
        assert len(ranks[0][split]) == len(ranks[1][split])
    first, second = ({row for batch in rank["train"] for row in batch} for rank in ranks)
    assert not first & second
    assert {len(batch) for rank in ranks for batch in rank["train"]} == {7}
    assert len(ranks[0]["train"]) == len(ranks[1]["train"]) == (1437 - 101) // 14
