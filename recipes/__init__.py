"""The recipes, `<data>/<model>.yaml`, found by name: `mnist/vae`."""

from importlib.resources import files
from pathlib import Path

from genzoo.errors import did_you_mean
from genzoo.zoo.files import at_home

FOLDER = Path(str(files(__name__)))


def names() -> list[str]:
    """The names of all recipes, sorted: `digits/vae`, `mnist/vae`, …"""
    return sorted(path.relative_to(FOLDER).with_suffix("").as_posix() for path in FOLDER.glob("**/*.yaml"))


def find(name: str) -> Path:
    """The file of the recipe called `name`, or `name` itself where it is the path of a YAML file.

    A file of one's own called `digits/vae.yaml` goes before the recipe, whose name is `digits/vae`.

    Raises:
        FileNotFoundError: `name` is neither; the message suggests what was perhaps meant.
    """
    known, path = names(), at_home(name)
    if path.suffix == ".yaml" and path.is_file():
        return path
    if name.removesuffix(".yaml") in known:
        return FOLDER / f"{name.removesuffix('.yaml')}.yaml"
    if path.is_file():
        return path
    hint = did_you_mean(name, known, at_most=3, cutoff=0.4) or f"; the recipes are: {', '.join(known) or 'none'}."
    raise FileNotFoundError(f"{name!r} is neither a recipe nor the path of a YAML file{hint}")
