"""Time to quality: how good a recipe is after so many minutes of training on this machine.

    python -m benchmarks.time_to_quality --root data                  # mnist and shakespeare, in 5, 15 and 60 minutes
    python -m benchmarks.time_to_quality mnist/vae --minutes 5 15 60 --root data

A learning-rate schedule is as long as its run, so a run that is looked at halfway is worse than one that was meant
to end there: each budget is a run of its own. A few seconds of training say how many steps there is time for;
`genzoo fit` then trains for so many, with a whole schedule, and validates once, at their end, with averaged weights
where the recipe averages them. Nothing is sampled or published meanwhile.

The figure is `val/nll`, in nats of a datum, where validation states it; otherwise `val/frechet`, where the recipe
measures it; otherwise what the recipe chooses its checkpoint by. What is in the file already is not run again.
"""

import argparse
import csv
import inspect
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import yaml

from benchmarks.results import RESULTS, hardware, merge, read, slug, stamp
from genzoo import datamodules, recipes

DATA, MINUTES = ("mnist", "shakespeare"), (5.0, 15.0, 60.0)
KEY = ("recipe", "minutes")
SLOW = {"FrechetDistance", "LikelihoodLogger", "ModelCheckpoint", "Publish", "SampleLogger"}  # callbacks left out
PILOT = 20  # seconds


def callbacks(recipe: str) -> list[dict[str, Any]]:
    return yaml.safe_load(recipes.find(recipe).read_text("utf-8"))["trainer"]["callbacks"]


def monitored(recipe: str) -> str | None:
    """The figure by which a recipe chooses its checkpoint."""
    chosen = [callback for callback in callbacks(recipe) if callback["class_path"] == "ModelCheckpoint"]
    return chosen[0]["init_args"]["monitor"] if chosen else None


def command(recipe: str, steps: int, *changes: str) -> list[str]:
    """Trains for so many steps and validates at their end: the arguments of `genzoo`, with changes of the recipe."""
    left_out = SLOW if monitored(recipe) == "val/nll" else SLOW - {"FrechetDistance"}
    kept = [callback for callback in callbacks(recipe) if callback["class_path"] not in left_out]
    options = {
        "max_steps": steps,
        "check_val_every_n_epoch": "null",
        "val_check_interval": steps,
        "num_sanity_val_steps": 0,
        "callbacks": yaml.safe_dump(kept, default_flow_style=True, width=10**6).strip(),
    }
    return ["fit", "--config", recipe, *changes, *(f"--trainer.{key}={value}" for key, value in options.items())]


def run(arguments: list[str], recipe: str, root: str, folder: Path) -> float:
    """Runs `genzoo`, whose progress is shown, in a process and a folder of its own; the seconds that it took."""
    data = yaml.safe_load(recipes.find(recipe).read_text("utf-8"))["data"]["class_path"]
    if "root" in inspect.signature(getattr(datamodules, data)).parameters:
        arguments = [*arguments, f"--data.root={root}"]
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "genzoo", *arguments, f"--trainer.default_root_dir={folder}"], check=True)
    return time.perf_counter() - start


def pace(recipe: str, root: str, *changes: str) -> tuple[float, float]:
    """Steps a second, and the seconds before the first."""
    with tempfile.TemporaryDirectory() as folder:
        endless = [
            *command(recipe, 10**9, *changes),
            f"--trainer.max_time=00:00:00:{PILOT}",
            "--trainer.limit_val_batches=0",
        ]
        took = run(endless, recipe, root, Path(folder))
        (newest,) = Path(folder).rglob("last.ckpt")
        return torch.load(newest, weights_only=True)["global_step"] / PILOT, took - PILOT


def figure(folder: Path, recipe: str) -> tuple[str, float]:
    """Of the last validation, its name first, in what the run logged."""
    (logged,) = folder.rglob("metrics.csv")
    with logged.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for name in ("val/nll", "val/frechet", monitored(recipe)):
        if values := [row[name] for row in rows if row.get(name)]:
            return name, float(values[-1])
    raise ValueError(f"{recipe} logs no val/nll, no val/frechet and not what it chooses its checkpoint by")


def measure(recipe: str, minutes: list[float], root: str, *changes: str) -> Iterator[dict[str, Any]]:
    """A row for each budget."""
    rate, start = pace(recipe, root, *changes)
    for budget in minutes:
        steps = max(1, int(rate * (60 * budget - start)))
        print(f"\n{recipe}, {budget:g} minutes: {steps:,} steps, at {rate:.1f} a second", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            seconds = run(command(recipe, steps, *changes), recipe, root, Path(folder))
            name, value = figure(Path(folder), recipe)
        print(f"{recipe}, {budget:g} minutes: {name} {value:.4g} after {seconds:.0f} s", flush=True)
        said = shlex.join(["genzoo", *command(recipe, steps, *changes)])
        yield {
            "recipe": recipe,
            "minutes": f"{budget:g}",
            "seconds": seconds,
            "steps": steps,
            "figure": name,
            "value": value,
            "command": said,
        }


def not_yet(path: Path, minutes: list[float], **about: str) -> list[float]:
    """The budgets, from the least on, of which the file has no row about that."""
    done = {row["minutes"] for row in read(path) if all(row[name] == value for name, value in about.items())}
    return [budget for budget in sorted(set(minutes)) if f"{budget:g}" not in done]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    of_data = [name for name in recipes.names() if name.startswith(tuple(f"{data}/" for data in DATA))]
    parser.add_argument("recipes", nargs="*", default=of_data, help="names (default: all of mnist and shakespeare)")
    parser.add_argument("--minutes", nargs="+", type=float, default=list(MINUTES), help="budgets (default: 5 15 60)")
    parser.add_argument("--root", default="data", help="the folder of the data (default: data)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the files are (default: in the clone)")
    given = parser.parse_args(argv)
    path = given.results / "time_to_quality" / f"{slug(hardware())}.csv"
    for number, recipe in enumerate(given.recipes, 1):
        left = not_yet(path, given.minutes, recipe=recipe)
        print(
            f"\n{number} of {len(given.recipes)}: {recipe}, {len(left)} of {len(given.minutes)} budgets to run",
            flush=True,
        )
        for row in measure(recipe, left, given.root) if left else ():
            merge(path, [row | stamp()], KEY)


if __name__ == "__main__":
    main()
