"""The table of figures: which columns there are, and how a figure is written."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Figures = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Column:
    """One figure of every model."""

    key: str
    title: str
    means: str
    better: int = 0  # −1 where less is better, 1 where more is
    scale: float = 1.0
    digits: int = 3

    def compares(self, models: Sequence[Figures]) -> bool:
        """Whether all that have the figure were measured in one way."""
        return len({setting(figures[self.key]) for figures in models if self.key in figures}) < 2

    def number(self, figures: Figures) -> float | None:
        """The value, in the column's unit; None where it was not measured."""
        return figures[self.key]["value"] * self.scale if self.key in figures else None

    def floor(self, figures: Figures) -> str | None:
        """What a perfect or a trivial model would score, as it is written, with its own standard error."""
        figure = figures.get(self.key, {})
        if figure.get("floor") is None:
            return None
        return self.write(figure["floor"] * self.scale) + self.spread(figure.get("floor_standard_error"))

    def error(self, figures: Figures) -> str:
        """` ± ` and the standard error, where one was measured."""
        return self.spread(figures.get(self.key, {}).get("standard_error"))

    def spread(self, error: float | None) -> str:
        """` ± ` and an error, to one digit, or to whole numbers; nothing for None."""
        if error is None:
            return ""
        scaled = error * self.scale
        return f" ± {scaled:,.0f}" if scaled >= 1 else f" ± {scaled:.1g}"

    def text(self, figures: Figures) -> str:
        """As it is written, with ≤ before a bound and ≈ before an estimate."""
        number = self.number(figures)
        if number is None:
            return "–"
        return {"lower_bound": "≤ ", "estimate": "≈ "}.get(figures[self.key].get("kind", ""), "") + self.write(number)

    def write(self, number: float) -> str:
        """A number with as many digits as mean something."""
        if float(number).is_integer() and abs(number) < 1e15:
            return f"{int(number):,}"
        if 999.5 <= abs(number) < 1e15:
            return f"{number:,.0f}"
        return f"{number:.{self.digits}g}"


COLUMNS = (
    Column("nll", "nats", "−log p(x) of a test datum, averaged: less is better", -1, digits=4),
    Column("bits_per_dim", "bits/dim", "the same for each dimension, in bits: an ideal code's length", -1, digits=4),
    Column("frechet", "Fréchet", "distance of samples from test data, seen through a classifier's features", -1),
    Column("fid", "FID", "distance of samples from test data, seen through Inception's features", -1),
    Column("precision", "precision %", "share of samples that lie among real data: quality", 1, 100),
    Column("recall", "recall %", "share of real data that lie among samples: variety", 1, 100),
    Column("coverage", "coverage %", "share of real data that have a sample near", 1, 100),
    Column(
        "memorisation",
        "copies %",
        "how often samples are nearer to training data than test data are; best is 50",
        0,
        100,
    ),
    Column("psnr", "PSNR dB", "how near the codes of test images lead back to them: more is better", 1),
    Column("codebook_usage", "codes used %", "share of the codes that test data have", 1, 100),
    Column("modes", "modes", "how many of the data's modes are found", 1),
    Column("high_quality", "on target %", "share of samples within 3σ of a mode", 1, 100),
    Column("auroc_faint", "finds faint %", "AUROC of the anomaly score: of images a quarter as bright", 1, 100),
    Column("auroc_erased", "erased %", "the same: of images without their lower half", 1, 100),
    Column("auroc_flipped", "flipped %", "the same: of images turned upside down", 1, 100),
    Column("auroc_shuffled", "shuffled %", "the same: of images cut up and put together wrongly", 1, 100),
    Column("accuracy", "accuracy %", "share of test data whose likeliest class is the true one", 1, 100),
    Column("sampling_time", "ms/sample", "time that one sample takes, of 64 drawn at once", -1, 1000),
    Column("network_evaluations", "evaluations", "how often the network runs for one draw", -1),
    Column("parameters", "parameters", "numbers that were learned", 0),
)


def floors(column: Column, models: Sequence[Figures]) -> str:
    """What the column's floor is: more than one where the models were measured against different data."""
    found = {
        floor: figures[column.key]["floor"] for figures in models if (floor := column.floor(figures)) is not None
    }
    return " / ".join(sorted(found, key=found.__getitem__))


#: scores of features: they depend on which, of how many samples, against which data
OF_FEATURES = {"frechet", "fid", "kid", "precision", "recall", "density", "coverage", "memorisation"}


#: means over data, shares of them, and what is counted of the model
OF_ANY = {"nll", "bits_per_dim", "accuracy", "codebook_usage", "parameters", "network_evaluations"}
#: what compares between tasks, too
OF_THE_MODEL = {"sampling_time", "network_evaluations"}


def setting(figure: Mapping[str, Any]) -> tuple[Any, ...]:
    """How a figure was measured: the best of some is only one among figures of one setting.

    A likelihood is a mean, be it over many data or few, and the classes that a model draws are the model's own.
    """
    protocol, split = figure.get("protocol", ""), figure.get("split")
    if figure["name"] in OF_FEATURES:
        return split, re.sub(r" of classes drawn [^,;]*", "", protocol)
    return (split,) if figure["name"] in OF_ANY else (split, protocol)


def columns_of(models: Sequence[Figures]) -> list[Column]:
    """The columns that at least one model has a figure for."""
    return [column for column in COLUMNS if any(column.key in figures for figures in models)]
