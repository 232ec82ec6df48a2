"""How many modes a GAN finds: the recipes points/gan-collapse and points/wgan-gp on the ring and on the grid.

    python benchmarks/mode_coverage.py [--seeds 5]

Each recipe is run by `genzoo fit` with seeds 0, 1, …; the figures are those of its last validation: modes found by
2,500 samples, the share of samples within three standard deviations of a centre, and the divergence from the uniform
distribution over the centres (`genzoo.metrics.modes`).
"""

import argparse
import csv
import logging
import statistics
import tempfile
from pathlib import Path

import torch

from genzoo.cli import main as genzoo

RECIPES, DENSITIES = ("points/gan-collapse", "points/wgan-gp"), {"ring": 8, "grid": 25}
FIGURES = ("val/modes", "val/high_quality", "val/mode_kl")
QUIET = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]


def fit(recipe: str, density: str, seed: int) -> list[float]:
    """The figures of the last validation of a run."""
    with tempfile.TemporaryDirectory() as folder:
        given = {"seed_everything": seed, "data.name": density, "trainer.default_root_dir": folder}
        genzoo(["fit", "--config", recipe, *(f"--{key}={value}" for key, value in given.items()), *QUIET])
        (logged,) = Path(folder).rglob("metrics.csv")
        with logged.open() as file:
            rows = [row for row in csv.DictReader(file) if row["val/modes"]]
    return [float(rows[-1][figure]) for figure in FIGURES]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5, help="runs of each (default: 5)")
    given = parser.parse_args()
    logging.disable(logging.INFO)
    torch.set_num_threads(1)
    lines = []
    for recipe in RECIPES:
        for density, modes in DENSITIES.items():
            runs = [fit(recipe, density, seed) for seed in range(given.seeds)]
            found, quality, divergence = (statistics.mean(column) for column in zip(*runs, strict=True))
            each = ", ".join(f"{run[0]:.0f}" for run in runs)
            lines.append(
                f"{recipe:20} {density:5} {found:5.1f} of {modes} modes ({each}); {100 * quality:5.1f} % of high"
                f" quality; KL {divergence:.3f} nats"
            )
            print(lines[-1], flush=True)
    print("\n" + "\n".join(lines))


if __name__ == "__main__":
    main()
