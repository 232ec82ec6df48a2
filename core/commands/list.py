"""`genzoo list`: what there is in the zoo, and how good it is."""

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from genzoo import recipes
from genzoo.errors import did_you_mean
from genzoo.zoo import hub

EXAMPLE = "genzoo list"
SAYS = "the entries with their figures, and the recipes"


def add_arguments(parser: ArgumentParser) -> None:
    """Which ones."""
    parser.add_argument(
        "pattern", nargs="?", default="*", help="which ones: 'mnist/*', as file names are matched (default: all)"
    )


def run(given: Namespace) -> None:
    """The zoo: entries with their measured figures, task by task, then the recipes."""
    pattern = given.pattern
    if any(entry.name.startswith(f"{pattern}/") for entry in hub.list_models()):
        pattern += "/*"  # the name of a data set alone
    entries = hub.list_models(pattern)
    found = [name for name in recipes.names() if Path(name).match(pattern) or pattern == "*"]
    if not entries and not found:
        known = {entry.name for entry in hub.list_models()} | set(recipes.names())
        known |= {name.partition("/")[0] for name in known}
        raise ValueError(f"neither an entry nor a recipe matches {pattern!r}{did_you_mean(pattern, known)}")
    width = max((len(entry.name) for entry in entries), default=0)
    damaged = {entry.name: entry.damage for entry in entries if entry.damage is not None}
    for task, members in hub.by_task(entry for entry in entries if entry.name not in damaged).items():
        print(task)
        for entry in members:
            print(f"  {entry.name:<{width}}  {', '.join(map(in_words, entry.metrics.get('figures', [])))}".rstrip())
        print()
    if damaged:
        print("not to be used")
        for name, damage in damaged.items():
            print(f"  {name:<{width}}  {damage}")
        print()
    width = max(map(len, found), default=0)
    print("recipes")
    for name in found:
        print(f"  {name:<{width}}  {first_comment(recipes.find(name))}")


def in_words(figure: dict[str, Any]) -> str:
    """`nll ≤ 85.9 nats`, as a line of the list has room for it."""
    kind = figure.get("kind", "exact")  # of the likelihood: its lower bound is an upper one of nll
    relation = {"exact": "", "lower_bound": " ≤", "estimate": " ≈"}[kind]
    value = figure["value"]
    shown = f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
    unit = figure["unit"] if figure["unit"] != figure["name"] else ""
    return f"{figure['name']}{relation} {shown} {unit}".rstrip()


def first_comment(recipe: Path) -> str:
    """The first line of the comment that each recipe begins with."""
    with recipe.open() as file:
        line = file.readline().strip()
    return line.removeprefix("#").strip() if line.startswith("#") else ""
