"""`genzoo cp`: a recipe as a file of one's own."""

import re
from argparse import ArgumentParser, Namespace
from pathlib import Path

from genzoo import recipes
from genzoo.arguments import note

EXAMPLE = "genzoo cp mnist/vae my.yaml"
SAYS = "copy a recipe to edit"


def add_arguments(parser: ArgumentParser) -> None:
    """From where, and to where."""
    parser.add_argument("recipe", help="its name, as `genzoo list` shows it")
    parser.add_argument("file", help="where to; nothing is overwritten")


#: of a recipe's card, the licence: its first line and what is indented below it
LICENCE = re.compile(r"^( +)(?:spdx|licence):.*\n(?:\1 +.*\n)*", re.MULTILINE)


def run(given: Namespace) -> None:
    """Copies a recipe, to be edited and given to `genzoo fit --config`: all but the licence of the zoo's weights."""
    text, left_out = LICENCE.subn("", recipes.find(given.recipe).read_text("utf-8"))
    Path(given.file).parent.mkdir(parents=True, exist_ok=True)
    try:
        with open(given.file, "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise ValueError(f"{given.file} exists and is not overwritten; give another name") from None
    if left_out:
        note("the licence is left out, which is of the zoo's own weights: yours have the one that you state as spdx")
    print(f"{given.file}: train it with `genzoo fit --config {given.file}`")
