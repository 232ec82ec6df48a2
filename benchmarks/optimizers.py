"""Muon and AdamW in the same recipe: how good it is after so many minutes of training by each.

    python -m benchmarks.optimizers --root data                   # shakespeare/gpt, in 1, 2 and 4 minutes
    python -m benchmarks.optimizers mnist/ddpm --minutes 5 15 --rates 0.001 0.002 --root data

A step of Muon takes longer than one of AdamW, so it has to take the loss further. Budgets are those of
`time_to_quality`, each a run of its own with a whole schedule. AdamW has the recipe's schedule up to one rate for all
parameters, once for each of the given rates, and Muon's weight decay and averages of gradients (betas); whether
another rate would have been better, only more of them say. What is in the file already is not run again.
"""

import argparse
import inspect
from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml

from benchmarks.results import RESULTS, hardware, merge, slug, stamp
from benchmarks.time_to_quality import measure, not_yet
from genzoo import recipes
from genzoo.zoo import Muon

KEY = ("recipe", "optimizer", "minutes")
MINUTES, RATES = (1.0, 2.0, 4.0), (0.002, 0.006)


def optimizers(recipe: str, rates: Sequence[float]) -> Iterator[tuple[str, list[str]]]:
    """Muon, and AdamW with each of the rates: what it is called, and what it changes in the recipe.

    Raises:
        ValueError: the recipe does not train by Muon, or one of its two stages alone does.
    """
    arguments = yaml.safe_load(recipes.find(recipe).read_text("utf-8"))["model"]["init_args"]
    if not str(arguments.get("optimizer", {}).get("class_path")).endswith("Muon"):
        raise ValueError(f"{recipe} does not train by Muon, or one of its two stages alone does: take another recipe")
    yield "Muon", []
    defaults = inspect.signature(Muon).parameters
    stated = arguments["optimizer"].get("init_args", {})
    same = {name: stated.get(name, defaults[name].default) for name in ("weight_decay", "betas")}
    groups = len(arguments["lr_scheduler"]["init_args"]["max_lr"])
    for rate in rates:
        adamw = {"class_path": "torch.optim.AdamW", "init_args": {"lr": rate, **same, "betas": list(same["betas"])}}
        stating = yaml.safe_dump(adamw, default_flow_style=True, width=10**6).strip()
        schedule = f"--model.lr_scheduler.init_args.max_lr={[rate] * groups}"
        yield f"AdamW, {rate:g}", [f"--model.optimizer={stating}", schedule]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="*", default=["shakespeare/gpt"], help="names (default: shakespeare/gpt)")
    parser.add_argument("--minutes", nargs="+", type=float, default=list(MINUTES), help="budgets (default: 1 2 4)")
    parser.add_argument("--rates", nargs="+", type=float, default=list(RATES), help="AdamW's (default: 0.002 0.006)")
    parser.add_argument("--root", default="data", help="the folder of the data (default: data)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the files are (default: in the clone)")
    given = parser.parse_args(argv)
    path = given.results / "optimizers" / f"{slug(hardware())}.csv"
    for recipe in given.recipes:
        for name, changes in optimizers(recipe, given.rates):
            left = not_yet(path, given.minutes, recipe=recipe, optimizer=name)
            print(f"\n{recipe} by {name}: {len(left)} of {len(given.minutes)} budgets to run", flush=True)
            for row in measure(recipe, left, given.root, *changes) if left else ():
                merge(path, [{"recipe": recipe, "optimizer": name} | row | stamp()], KEY)


if __name__ == "__main__":
    main()
