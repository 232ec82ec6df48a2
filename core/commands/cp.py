"""`genzoo cp`: a recipe as a file of one's own."""

from argparse import ArgumentParser, Namespace

from genzoo import recipes

EXAMPLE = "genzoo cp mnist/vae my.yaml"
SAYS = "copy a recipe to edit"


def add_arguments(parser: ArgumentParser) -> None:
    """From where, and to where."""
    parser.add_argument("recipe", help="its name, as `genzoo list` shows it")
    parser.add_argument("file", help="where to; nothing is overwritten")


def run(given: Namespace) -> None:
    """Copies a recipe, to be edited and given to `genzoo fit --config`."""
    text = recipes.find(given.recipe).read_text()
    try:
        with open(given.file, "x") as file:
            file.write(text)
    except FileExistsError:
        raise ValueError(f"{given.file} exists and is not overwritten; give another name") from None
    print(f"{given.file}: train it with `genzoo fit --config {given.file}`")
