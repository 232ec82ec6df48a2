"""A recipe's card is of the recipe's own data: with others nothing of it is published, its licence least of all."""

import inspect
from typing import Any

import yaml

from genzoo import datamodules, recipes
from genzoo.fine_tuning import written
from genzoo.zoo.hub.tasks import ASIDE, OF_FILES, name_of_place

#: arguments of datamodules that say which data they are, though models of them are compared
WHICH = {"path", "source"}


def without_cards(argv: list[str], data: Any) -> list[str]:
    """The arguments, with a recipe of ours that is used on other data than its own replaced by one without its card.

    A card that states no licence (that of `images/vae`) is of anybody's data, and stays; and so does what a person
    states, in a file or on the command line.

    Args:
        argv: in which recipes are paths.
        data: what they come to: the `class_path` and the `init_args` of the data.
    """
    found = list(argv)
    for place, argument in enumerate(argv):
        path = argument.removeprefix("--config=")
        if not path.startswith(str(recipes.FOLDER)):
            continue
        recipe = yaml.safe_load(recipes.find(path).read_text("utf-8"))
        if is_of(recipe.get("data") or {}, data):
            continue
        said = [block["init_args"] for block in recipe["trainer"]["callbacks"] if block["class_path"] == "Publish"]
        if [block.pop("card") for block in said if "spdx" in block.get("card", {})]:
            found[place] = argument.replace(path, written(recipe))
    return found


def is_of(block: dict[str, Any], data: Any) -> bool:
    """Whether a recipe's `data:` states the same data, however they are split, batched or stored."""
    own, given = block.get("init_args") or {}, data.get("init_args") or {}
    if name(block) != name(data):
        return False
    takes = inspect.signature(getattr(datamodules, name(block))).parameters
    asked = {key: argument.default for key, argument in takes.items() if key in WHICH or key not in ASIDE}
    stated = {key: own.get(key, default) for key, default in asked.items()}
    # of files their folder says which they are, wherever that lies
    of_files = name(block).removesuffix("DataModule") in OF_FILES and "root" in own
    elsewhere = of_files and name_of_place(own["root"]) != name_of_place(given.get("root"))
    return not elsewhere and all(given.get(key, said) == said for key, said in stated.items())


def name(block: Any) -> str:
    """Of the class, which a recipe may write without its module."""
    return str(block.get("class_path")).rpartition(".")[2]
