"""What models of one data set think of another: Fashion-MNIST's of digits, and MNIST's of clothes.

    python -m benchmarks.odd_data --root data

A likelihood can find clothes likelier than the digits it was trained on, or the other way round (Nalisnick et al.
2019). Of every embedded entry of either data set with `anomaly_score`, and of its scorers, the AUROC of 200 test data
against 200 of the other set: 1 where the score tells them apart, ½ where it says nothing, below where it is fooled.
"""

import argparse
from pathlib import Path
from typing import Any

import torch

from benchmarks.results import RESULTS, hardware, merge, slug, stamp
from genzoo import list_models, load
from genzoo.datamodules import FashionMNISTDataModule, MNISTDataModule
from genzoo.metrics.anomalies import AnomalyAUROC, PrincipalComponents
from genzoo.metrics.data import Rows
from genzoo.zoo.interface import HasLogProb, ScoresAnomalies

SETS = {"mnist": MNISTDataModule, "fashion": FashionMNISTDataModule}
KEY = ("entry", "scorer")


def scorers(module: Any) -> list[str | None]:
    """The score that a model's family recommends (None); and where it has a likelihood, that, "nll"."""
    return [None, "nll"] if isinstance(module, HasLogProb) else [None]


def scores(module: Any, batches: list[torch.Tensor], scorer: str | None) -> torch.Tensor:
    return torch.cat([module.anomaly_score(x, scorer=scorer) for x in batches])


def auroc(usual: torch.Tensor, odd: torch.Tensor) -> tuple[float, float]:
    metric = AnomalyAUROC()
    metric.update(usual, odd=False)
    metric.update(odd, odd=True)
    return metric.compute().item(), metric.standard_error()


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("entries", nargs="*", help="of mnist or fashion (default: all of both)")
    parser.add_argument("--number", type=int, default=200, help="of data of either set (default: 200)")
    parser.add_argument("--root", default="data", help="the folder of both data sets (default: data)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the files are (default: in the clone)")
    given = parser.parse_args(argv)
    path = given.results / "odd_data" / f"{slug(hardware())}.csv"
    for own, other in (("mnist", "fashion"), ("fashion", "mnist")):
        for entry in list_models(f"{own}/*"):
            module: Any = load(entry.name)
            if not isinstance(module, ScoresAnomalies) or (given.entries and entry.name not in given.entries):
                continue
            arguments = (entry.config["data"] or {}).get("init_args") or {}
            how = {"binarize": arguments.get("binarize", "none"), "root": given.root}
            datamodules = [SETS[name](**how) for name in (own, other)]
            for datamodule in datamodules:
                datamodule.setup("fit")
            usual, odd = ([*Rows(datamodule, "test", given.number)] for datamodule in datamodules)
            components = PrincipalComponents(Rows(datamodules[0], "train", 10_000))
            floor, _ = auroc(*(torch.cat([components.score(x) for x in batches]) for batches in (usual, odd)))
            for scorer in scorers(module):
                with torch.no_grad():
                    value, error = auroc(*(scores(module, batches, scorer) for batches in (usual, odd)))
                row = {
                    "entry": entry.name,
                    "odd": other,
                    "scorer": scorer or "recommended",
                    "data": given.number,
                    "auroc": value,
                    "standard_error": error,
                    "principal_components": floor,
                }
                print(", ".join(f"{key} {value}" for key, value in row.items()), flush=True)
                merge(path, [row | stamp()], KEY)


if __name__ == "__main__":
    main()
