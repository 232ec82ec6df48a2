"""`genzoo fit --from mnist/ddpm`: the architecture and the weights of a trained model, for other data.

What a recipe says of the model goes with it: its optimiser, its schedule, another argument. A recipe need not say
anything of it at all. A text is read in the model's vocabulary.
"""

import atexit
import json
import os
import tempfile
from collections.abc import Collection
from pathlib import Path

import yaml

from genzoo.zoo import hub
from genzoo.zoo.hub.building import TRAINING


def with_source(argv: list[str], contract: Collection[str]) -> list[str]:
    """The arguments without `--from`, and with what stands for it: the model's block before all recipes, `StartFrom`.

    The source is loaded first: it names no class but genzoo's and torch.nn's, or is refused, so that its block may be
    read as a recipe is. Of its optimisers and schedules nothing is taken.

    Args:
        argv: starting with the subcommand.
        contract: the names of what data say of a model, which is left to them.

    Raises:
        FileNotFoundError: there is no such model.
        ValueError: `--from` names none, or more than one, or a model that cannot be loaded.
    """
    rest, sources = [], []
    arguments = iter(argv)
    for argument in arguments:
        if argument == "--from":
            sources.append(next(arguments, ""))
        elif argument.startswith("--from="):
            sources.append(argument.removeprefix("--from="))
        else:
            rest.append(argument)
    if not sources:
        return argv
    if argv[0] != "fit" or len(sources) > 1 or not sources[0]:
        raise ValueError("--from: give `fit` one model to begin with: an entry's name, a folder, a checkpoint, a run")
    (source,) = sources
    entry = hub.find(source)
    hub.load(source)
    block = entry.config["model"]
    kept = {
        name: value
        for name, value in (block.get("init_args") or {}).items()
        if name not in contract and not name.startswith("_") and not name.endswith(TRAINING) and value is not None
    }
    recipe: dict[str, object] = {"model": {"class_path": block["class_path"], "init_args": kept}}
    if spoken := (block.get("init_args") or {}).get("vocabulary"):  # for the numbers of other texts, too
        recipe["data"] = {"class_path": "genzoo.datamodules.TextDataModule", "init_args": {"vocabulary": spoken}}
    model = written(recipe)
    begin = {"class_path": "genzoo.callbacks.StartFrom", "init_args": {"source": source}}
    return [rest[0], "--config", model, *rest[1:], f"--trainer.callbacks+={json.dumps(begin)}"]


def written(block: dict[str, object]) -> str:
    """The path of a recipe that holds no more than this, for as long as the program runs."""
    from genzoo.zoo.statement import as_config

    handle, name = tempfile.mkstemp(prefix="genzoo-from-", suffix=".yaml")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        yaml.safe_dump(as_config(block), file, sort_keys=False)
    atexit.register(Path(name).unlink, missing_ok=True)
    return name
