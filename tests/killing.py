"""Kills runs at random moments, resumes them, and compares what they come to; `test_killed_at_random.py` runs it.

One process has imported everything; each run is a fork of it, so that its time is spent in training, checkpoints and
Publish, and not in imports.
"""

import json
import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.pytorch import Callback, Trainer

import genzoo.fit
from genzoo.cli import main
from genzoo.zoo import VAE

QUIET = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false", "--trainer.accelerator=cpu"]
INTERVAL = 2 * 8  # steps from one validation to the next
BOUNDS = {
    "steps": ["--trainer.max_steps=61"],
    "epochs": ["--trainer.max_steps=-1", "--trainer.max_epochs=8"],
    "both": ["--trainer.max_steps=999", "--trainer.max_epochs=8"],
}
MONITOR = {"vae": "val/nll", "gan": "val/frechet", "ddpm": "val/loss"}


class Progress(Callback):
    """Leaves one byte for each step in a file that outlives the process."""

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        with Path("progress").open("a") as file:
            file.write(".")


def overlay(family: str) -> dict[str, Any]:
    """The recipe's callbacks, on few data."""
    distance = {"extractor": "digits/classifier", "num_samples": 40, "reference": "train"}
    evaluation = {"split": "val", "num_particles": 1, "num_likelihood": 12, "num_samples": 40, "num_odd": 12}
    publish = {"name": f"digits/{family}", "dtype": "float16", "num_samples": 4}
    callbacks = {
        "EMA": {"decay": 0.9} | ({"modules": ["generator"]} if family == "gan" else {}),
        "FrechetDistance": distance,
        "SampleLogger": {"num_samples": 4, "num_examples": 2},
        "ModelCheckpoint": {"monitor": MONITOR[family]},
        "Publish": publish | {"evaluation": evaluation | {"extractor": "digits/classifier"}},
        "killing.Progress": {},
    }
    listed = [{"class_path": name, "init_args": options} for name, options in callbacks.items()]
    return {
        "data": {"init_args": {"limit": 128, "batch_size": 16, "val_size": 24}},
        "trainer": {"callbacks": listed, "check_val_every_n_epoch": 2, "log_every_n_steps": 4},
    }


def start(folder: Path, family: str, bound: str, *more: str) -> int:
    """Forks a run; returns its process."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "overlay.yaml").write_text(yaml.safe_dump(overlay(family)))
    output = os.open(folder / "output", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    if process := os.fork():
        os.close(output)
        return process
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.chdir(folder)
    code = 1
    try:
        main(["fit", "--config", f"digits/{family}", "--config", "overlay.yaml", *QUIET, *BOUNDS[bound], *more])
        code = 0
    except BaseException:
        traceback.print_exc()
    os._exit(code)


def ends_well(process: int) -> bool:
    return os.waitpid(process, 0)[1] == 0


def last_run(folder: Path) -> Path | None:
    runs = [path.parent for path in folder.glob("runs/digits/*/*/config.yaml")]
    return max(runs, key=lambda path: path.stat().st_mtime_ns, default=None)


def kill(process: int, folder: Path, whole: dict[str, Any], how: str) -> None:
    """At a random moment of the run, of a checkpoint's writing, or of Publish."""
    begun = time.monotonic()
    if how == "writing":
        sightings = random.randint(1, 4)
        while sightings and time.monotonic() < begun + 60:
            if any(folder.glob("runs/digits/*/*/checkpoints/*.part")):
                sightings -= 1
                if sightings:
                    time.sleep(0.05)
    elif how == "publishing":
        while "stopped:" not in (folder / "output").read_text() and time.monotonic() < begun + 60:
            time.sleep(0.002)
        time.sleep(random.random() * whole["publishing"])
    else:
        time.sleep(random.random() * whole["seconds"])
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)


def state(run: Path) -> dict[str, Any]:
    """What a run came to: all that counts in its last checkpoint, and its entry."""
    checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    metrics = json.loads((run / "entry" / "metrics.json").read_text())
    del metrics["training"]["seconds"]
    metrics["figures"] = [figure for figure in metrics["figures"] if figure["name"] != "sampling_time"]
    kept = ("state_dict", "optimizer_states", "lr_schedulers", "global_step")
    return {
        **{part: checkpoint[part] for part in kept},
        "average": checkpoint["callbacks"][next(name for name in checkpoint["callbacks"] if name.startswith("EMA"))],
        "metrics": metrics,
        **{
            name: (run / "entry" / name).read_bytes() for name in ("model.safetensors", "samples.png", "learning.png")
        },
    }


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    return bool(one == other)


def uninterrupted(folder: Path, family: str, bound: str) -> dict[str, Any]:
    begun = time.monotonic()
    process, trained = start(folder, family, bound), 0.0
    while not trained:
        time.sleep(0.01)
        trained = time.monotonic() * ("stopped:" in (folder / "output").read_text())
    assert ends_well(process), (folder / "output").read_text()
    ended, run = time.monotonic(), last_run(folder)
    assert run is not None
    return {"seconds": ended - begun, "publishing": ended - trained, "state": state(run)}


def one_kill(folder: Path, family: str, bound: str, whole: dict[str, Any], how: str) -> dict[str, Any]:
    """What became of one run: the faults, by name, and the steps lost."""
    process = start(folder, family, bound)
    kill(process, folder, whole, how)
    run = last_run(folder)
    files = [] if run is None else list((run / "checkpoints").glob("*.ckpt"))
    unreadable = 0
    for path in files:
        try:
            torch.load(path, weights_only=True)
        except Exception:
            unreadable += 1
    last = None if run is None else run / "checkpoints" / "last.ckpt"
    step = 0
    resume: list[str] = []
    if last is not None and last.exists():
        step, resume = torch.load(last, weights_only=True)["global_step"], ["--ckpt_path", str(last)]
    reached = (folder / "progress").stat().st_size if (folder / "progress").exists() else 0
    resumed = ends_well(start(folder, family, bound, *resume))
    ended = last_run(folder)
    differs = []
    if resumed and ended is not None:
        found = state(ended)
        differs = [part for part in found if not same(found[part], whole["state"][part])]
    return {
        "family": family,
        "bound": bound,
        "how": how,
        "reached": reached,
        "lost": reached - step,
        "unreadable": unreadable,
        "failed": not resumed,
        "differs": differs,
    }


def kills(root: Path, families: list[str], bounds: list[str], num: int) -> list[dict[str, Any]]:
    """So many kills of each family, shared out over the bounds."""
    os.environ["GENZOO_CACHE"] = str(root / "cache")
    VAE.completion_sweeps = 4  # of the pictures
    ways = ["any moment", "writing", "any moment", "publishing"]
    found = []
    for family in families:
        wholes = {bound: uninterrupted(root / family / bound, family, bound) for bound in bounds}
        for index in range(num):
            bound, how = bounds[index % len(bounds)], ways[index % len(ways)]
            found.append(one_kill(root / family / f"{index}", family, bound, wholes[bound], how))
            print(json.dumps(found[-1]), flush=True)
    return found


if __name__ == "__main__":
    assert genzoo.fit is not None and torch.get_num_threads() == 1  # a fork has no threads but its own
    random.seed(0)
    folder, families, bounds, num = json.loads(sys.argv[1])
    kills(Path(folder), families, bounds, num)
