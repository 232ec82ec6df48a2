"""Trains with weights that are spread over the processes, and keeps what came of it; `test_sharding.py` runs it."""

import json
import logging
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from families import Noise
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor

from genzoo.callbacks import EMA, Newest, Publish
from genzoo.trainer import AutoTrainer
from genzoo.zoo import FlowMatching, LatentModel, MaskedDiffusion, Muon, QuantisedAutoencoder
from genzoo.zoo.processes import rank
from genzoo.zoo.randomness import PerDatum
from genzoo.zoo.sharding import gathered, own

SHAPE, LEVELS, STEPS = (3, 8, 8), 17, 20
SIZES = {"patch": 3, "width": 20, "depth": 3, "heads": 1}  # which two processes do not share evenly
OPTIMIZERS = {"AdamW": partial(torch.optim.AdamW, lr=1e-3), "Muon": Muon}
TWO_STAGES = "two stages"  # with AdamW
#: gradients of eight data are of low rank, and what Muon makes of the rest of a matrix is rounding, made large
PRECISION = {"AdamW": torch.float32, "Muon": torch.float64, TWO_STAGES: torch.float32}


class Repeatable(FlowMatching):
    """Its training's noise, too, is each datum's own, so that any number of processes make the same step."""

    flow_steps = 4

    def objective(self, x: Tensor, labels: Tensor | None) -> dict[str, Tensor]:
        return self.evaluation(x, labels, PerDatum(x, seed=self.global_step))


class RepeatableStages(LatentModel):
    """The same for the prior of an autoencoder that stays as it is."""

    def objective(self, x: Tensor, labels: Tensor | None) -> dict[str, Tensor]:
        return {"loss": self.evaluation(x, labels, PerDatum(x, seed=self.global_step))["nll"]}


#: whether the checkpoints are folders with a file of each process
KEEPS = {"AdamW": False, "Muon": True, TWO_STAGES: False}


class Data(Noise):
    """In the precision of the model, so many for each process that all have eight together."""

    def __init__(self, dtype: torch.dtype, processes: int) -> None:
        super().__init__(SHAPE, LEVELS, batch_size=8 // processes)
        self.dtype = dtype

    def scale(self, stored: Tensor) -> Tensor:
        return stored.to(self.dtype)


def build(optimizer: str, seed: int = 0) -> Repeatable | RepeatableStages:
    torch.manual_seed(seed)
    if optimizer == TWO_STAGES:
        sizes = {"network": "dit", "width": 12, "depth": 2, "heads": 1, "optimizer": OPTIMIZERS["AdamW"]}
        autoencoder = partial(QuantisedAutoencoder, factor=2, width=4, depth=1)
        return RepeatableStages(
            SHAPE, LEVELS, autoencoder=autoencoder, prior=partial(MaskedDiffusion, **sizes), first_stage=0
        )
    model = Repeatable(SHAPE, LEVELS, network="dit", steps=2, optimizer=OPTIMIZERS[optimizer], **SIZES)
    return model.to(PRECISION[optimizer])


def trained(
    model: Repeatable | RepeatableStages,
    folder: Path,
    callbacks: Sequence[Callback] = (),
    *,
    steps: int = STEPS,
    processes: int = 1,
    folders: bool = False,
    ckpt_path: Path | None = None,
) -> Trainer:
    """So many steps with clipped gradients and an average."""
    spread = ModelParallelStrategy(tensor_parallel_size=1, save_distributed_checkpoint=folders)
    trainer = AutoTrainer(
        accelerator="cpu",
        devices=processes,
        strategy="auto" if processes == 1 else spread,
        max_steps=steps,
        gradient_clip_val=5.0,
        callbacks=[EMA(decay=0.9), *callbacks],
        default_root_dir=folder,
        enable_checkpointing=any(isinstance(callback, ModelCheckpoint) for callback in callbacks),
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, datamodule=Data(model.dtype, processes), ckpt_path=ckpt_path)
    assert trainer.global_step == steps
    return trainer


def main(folder: Path) -> None:
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    for optimizer, folders in KEEPS.items():
        own_folder = folder / optimizer
        train = partial(trained, folder=own_folder, processes=2, folders=folders)
        model = build(optimizer, seed=rank())  # the first process's weights count
        best = ModelCheckpoint(own_folder, monitor="val/loss", filename="best")
        publish = Publish("noise/dit", to=str(own_folder / "entry"), measure=False, num_samples=2)
        trainer = train(model, callbacks=[*([best] if folders else []), publish])
        trainer.save_checkpoint(own_folder / "whole.ckpt")
        if trainer.global_rank == 0:
            kept = {"best": float(best.best_model_score or 0), "bytes": held(trainer)}
            (own_folder / "kept.json").write_text(json.dumps(kept))
        said = {"samples": model.sample(4, generator=torch.Generator().manual_seed(0))}
        said["log_prob"] = model.log_prob(said["samples"], generator=PerDatum(said["samples"]))
        keep(model, own_folder / "whole.pt", **said)
        train(build(optimizer), steps=11).save_checkpoint(own_folder / "broken.ckpt")
        if folders:
            goes_on_elsewhere(train, own_folder, partial(build, optimizer))
        model = build(optimizer, seed=1)
        train(model, ckpt_path=own_folder / "broken.ckpt").save_checkpoint(own_folder / "resumed.ckpt")
        keep(model, own_folder / "resumed.pt")


def goes_on_elsewhere(train: Callable[..., Trainer], folder: Path, build: Callable[[], Repeatable]) -> None:
    """A run whose checkpoints are folders, the newest one among them, and one that resumes it in another place."""
    for place, steps, resumed in (("here", 6, None), ("there", 11, folder / "here/last.ckpt")):
        best = ModelCheckpoint(folder / place, monitor="val/loss", filename="best", save_top_k=1)
        train(build(), steps=steps, callbacks=[best, Newest(folder / place)], ckpt_path=resumed)


def held(trainer: Trainer) -> dict[str, int]:
    """Bytes that this process holds for good: weights, gradients, moments, averages."""
    (optimizer,), (average,) = trainer.optimizers, (c for c in trainer.callbacks if isinstance(c, EMA))
    weights = list(trainer.lightning_module.parameters())
    tensors = {
        "weights": weights,
        "gradients": [torch.zeros_like(p) for p in weights],
        "moments": [value for state in optimizer.state.values() for value in state.values() if value.ndim],
        "averages": list(average._average.values()),
    }
    return {name: sum(own(t).nbytes for t in some) for name, some in tensors.items()}


def keep(model: Repeatable | RepeatableStages, path: Path, **said: Tensor) -> None:
    with gathered(model):
        if rank() == 0:
            torch.save({"weights": model.state_dict(), **said}, path)


if __name__ == "__main__":
    import sharded  # by whose name the entries know the model's class

    sharded.main(Path(sys.argv[1]))
