"""`genzoo list`: what there is in the zoo, and how good it is."""

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from genzoo import recipes
from genzoo.errors import did_you_mean
from genzoo.zoo import hub

if TYPE_CHECKING:
    from genzoo.compare.figures import Column, Figures

EXAMPLE = "genzoo list"
SAYS = "the entries with their figures, and the recipes"

#: the figures that say most of a model, of which three are shown, and what it costs
QUALITY = ("bits_per_dim", "nll", "frechet", "fid", "coverage", "modes", "high_quality", "accuracy")
COST = ("sampling_time", "parameters")


def add_arguments(parser: ArgumentParser) -> None:
    """Which ones."""
    parser.add_argument(
        "pattern", nargs="?", default="*", help="which ones: 'mnist/*', as file names are matched (default: all)"
    )


def run(given: Namespace) -> None:
    """The zoo: entries with their measured figures, task by task, the best in bold; then the recipes.

    `genzoo show NAME` has all of an entry's figures, and how they were measured.
    """
    pattern, names = given.pattern, {*recipes.names(), *(entry.name for entry in hub.list_models())}
    if any(name.startswith(f"{pattern}/") for name in names):
        pattern += "/*"  # the name of a data set alone
    elif any(name.endswith(f"/{pattern}") for name in names):
        pattern = f"*/{pattern}"  # that of a model alone
    entries = hub.list_models(pattern)
    found = [name for name in recipes.names() if fnmatchcase(name, pattern)]
    if not entries and not found:
        known = names | {name.partition("/")[0] for name in names}
        raise ValueError(f"neither an entry nor a recipe matches {pattern!r}{did_you_mean(pattern, known)}")
    damaged = {entry.name: entry.damage for entry in entries if entry.damage is not None}
    for task, members in hub.by_task(entry for entry in entries if entry.name not in damaged).items():
        measured = {e.name: {f["name"]: f for f in e.metrics.get("figures", [])} for e in members}
        columns = chosen(list(measured.values()))
        best = [best_of(column, list(measured.values())) for column in columns]
        rows = [
            [
                (name, False),
                *((c.text(f), b is not None and c.number(f) == b) for c, b in zip(columns, best, strict=True)),
            ]
            for name, f in measured.items()
        ]
        show(task, [column.title for column in columns], rows)
    if damaged:
        show("not to be used", [], [[(name, False), (damage, False)] for name, damage in damaged.items()])
    if found:
        show("recipes", [], [[(name, False), (first_comment(recipes.find(name)), False)] for name in found])


def chosen(measured: "Sequence[Figures]") -> "list[Column]":
    """The five columns that there is room for."""
    from genzoo.compare.figures import columns_of

    known = {column.key: column for column in columns_of(measured)}
    if "bits_per_dim" in known:
        known.pop("nll", None)  # the same, in another unit
    quality = [known[key] for key in QUALITY if key in known]
    return quality[:3] + [known[key] for key in COST if key in known]


def best_of(column: "Column", measured: "Sequence[Figures]") -> float | None:
    """The best figure of a column, where there are several that one would choose between."""
    numbers = [number for figures in measured if (number := column.number(figures)) is not None]
    chooses = column.better and len(numbers) > 1 and column.compares(measured)
    return (max if column.better > 0 else min)(numbers) if chooses else None


def show(title: str, heads: Sequence[str], rows: Sequence[Sequence[tuple[str, bool]]]) -> None:
    """One block, as wide as the terminal; without columns of figures the second is a sentence, which is wrapped.

    Args:
        title: of the block.
        heads: of the columns after the first.
        rows: of cells, each with whether it is in bold; a cell is text, and nothing in it is markup.
    """
    from rich.console import Console
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, show_header=bool(heads), header_style="dim")
    table.add_column("", no_wrap=True)
    for head in heads or [""]:
        table.add_column(head, justify="right" if heads else "left", no_wrap=bool(heads))
    for row in rows:
        table.add_row(*(Text(text, "bold" if bold else "") for text, bold in row))
    console = Console(highlight=False)
    console.print(title, style="bold", markup=False)
    console.print(Padding(table, (0, 0, 1, 2), expand=False))


def first_comment(recipe: Path) -> str:
    """The first line of the comment that each recipe begins with."""
    with recipe.open(encoding="utf-8") as file:
        line = file.readline().strip()
    return line.removeprefix("#").strip() if line.startswith("#") else ""
