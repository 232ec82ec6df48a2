"""The small commands: `list`, `cp`, `sample`, `evaluate`, `publish`. PyTorch is imported if one needs it."""

import json
import os
from argparse import ArgumentParser, Namespace
from difflib import get_close_matches
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

from genzoo import recipes
from genzoo.cli import import_from_here
from genzoo.zoo import hub

if TYPE_CHECKING:
    from lightning.pytorch import LightningDataModule, LightningModule

NAMES = ("fit", "validate", "test", "predict", "list", "cp", "sample", "evaluate", "publish")


def run(argv: list[str]) -> None:
    """Runs one of the small commands; `argv` starts with its name."""
    if argv[0] not in NAMES:
        close = get_close_matches(argv[0], NAMES, n=1)
        hint = f"did you mean {close[0]}?" if close else f"the commands are: {', '.join(NAMES)}."
        raise ValueError(f"{argv[0]!r} is no command of genzoo; {hint}")
    arguments = parser().parse_args(argv)
    arguments.run(arguments)


def parser() -> ArgumentParser:
    """What each command takes."""
    main = ArgumentParser(prog="genzoo")
    commands = main.add_subparsers(required=True)

    def command(name: str, action: Any, says: str) -> Any:
        added = commands.add_parser(name, description=says)
        added.set_defaults(run=action)
        return added.add_argument

    add = command("list", list_zoo, "The zoo: entries with their measured figures, then the recipes.")
    add(
        "pattern",
        nargs="?",
        default="*",
        help="which ones: 'mnist/*', as file names are matched",
    )

    add = command("cp", copy_recipe, "Copies a recipe, to be edited and given to `genzoo fit --config`.")
    add("recipe", help="its name, as `genzoo list` shows it")
    add("file", help="where to; nothing is overwritten")

    add = command("sample", sample, "Draws samples of an entry and writes them as one picture.")
    add("entry", help="a name, a folder or an address")
    add("--num_samples", type=int, default=64, help="how many (default: 64)")
    add("--out", default="samples.png", help="the picture to write (default: samples.png)")
    add("--seed", type=int, default=0, help="the same seed draws the same samples (default: 0)")
    add_machine(add)

    add = command("evaluate", evaluate, "Measures an entry again, as it was measured for its publication.")
    add("entry", help="a name, a folder or an address")
    add_protocol(add)
    add("--out", help="a metrics.json to write")

    add = command("publish", publish, "Makes an entry of a checkpoint: measures it, writes its card, stores it.")
    add("--ckpt_path", help="the checkpoint")
    add("--entry", help="instead: an entry to publish again elsewhere, with its figures, like the one a run left")
    add("--name", required=True, help="the entry's name, like mnist/vae")
    add(
        "--to",
        help="a folder, hf://owner/name or wandb://entity/project/artifact (default: the embedded zoo)",
    )
    add("--config", help="the run's config.yaml (default: the one beside the checkpoints)")
    add(
        "--dtype",
        default="float32",
        choices=["float32", "float16", "bfloat16"],
        help="of the stored weights (default: float32)",
    )
    add_protocol(add)
    return main


def add_protocol(add: Any) -> None:
    """The arguments of `genzoo.callbacks.evaluate` that a command line can give."""
    add("--root", help="where the data lie, or are downloaded to (default: what the datamodule takes)")
    add(
        "--split",
        choices=["train", "val", "test"],
        help="the data to measure on (default: the published protocol)",
    )
    add("--num_particles", type=int, help="importance samples of a likelihood bound (default: as published)")
    add("--num_samples", type=int, help="samples that distances are measured on (default: as published)")
    add(
        "--extractor",
        help="the entry whose features give the distances, or inception (default: as published)",
    )
    add("--seed", type=int, help="of all noise (default: as published)")
    add_machine(add)


def add_machine(add: Any) -> None:
    """What every command that loads a model takes."""
    add("--device", help="cpu, cuda, … (default: a GPU, if there is one)")
    add("--allow", action="append", default=[], help="a class of your own that is part of it: my_file.MyClass")


# --------------------------------------------------------------------------------------------------- the zoo


def list_zoo(given: Namespace) -> None:
    """`genzoo list`."""
    entries = hub.list_models(given.pattern)
    rows = [(entry.name, ", ".join(map(in_words, entry.metrics.get("figures", [])))) for entry in entries]
    table("entry", "figures", rows)
    print()
    found = [name for name in recipes.names() if Path(name).match(given.pattern) or given.pattern == "*"]
    table("recipe", "what it trains", [(name, first_comment(recipes.find(name))) for name in found])


def table(left: str, right: str, rows: list[tuple[str, str]]) -> None:
    """Two columns, as wide as they need to be."""
    width = max((len(name) for name, _ in rows), default=0)
    width = max(width, len(left))
    print(f"{left:<{width}}  {right}")
    for name, text in rows:
        print(f"{name:<{width}}  {text}")


def in_words(figure: dict[str, Any]) -> str:
    """`nll ≤ 85.9 nats`, as a line of the list has room for it."""
    relation = " ≤" if figure.get("kind") == "lower_bound" else ""  # of the likelihood: an upper bound here
    value = figure["value"]
    shown = f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
    unit = figure["unit"] if figure["unit"] != figure["name"] else ""
    return f"{figure['name']}{relation} {shown} {unit}".rstrip()


def first_comment(recipe: Path) -> str:
    """The first line of the comment that each recipe begins with."""
    with recipe.open() as file:
        line = file.readline().strip()
    return line.removeprefix("#").strip() if line.startswith("#") else ""


def copy_recipe(given: Namespace) -> None:
    """`genzoo cp`."""
    text = recipes.find(given.recipe).read_text()
    try:
        with open(given.file, "x") as file:
            file.write(text)
    except FileExistsError:
        raise ValueError(f"{given.file} exists and is not overwritten; give another name") from None
    print(f"{given.file}: train it with `genzoo fit --config {given.file}`")


# ---------------------------------------------------------------------------------------- using and measuring


def sample(given: Namespace) -> None:
    """`genzoo sample`."""
    if given.num_samples < 1:
        raise ValueError(f"--num_samples {given.num_samples}: give 1 or more")
    module = hub.load(given.entry, allow=allowed(given)).to(device(given))
    picture(module, Path(given.out), given.num_samples, given.seed)
    print(given.out)


def picture(module: "LightningModule", file: Path, num_samples: int, seed: int) -> None:
    """Writes samples as one picture.

    Raises:
        ValueError: the model does not sample, or what it samples cannot be shown.
    """
    import torch

    from genzoo.callbacks.media import render
    from genzoo.callbacks.sampling import draw
    from genzoo.zoo.interface import Samples

    if not isinstance(module, Samples):
        raise ValueError(f"{type(module).__name__} draws no samples")
    with torch.inference_mode():
        x = draw(module.sample, num_samples, seed)
    render(x, max(1, round(num_samples**0.5))).write(file)


def evaluate(given: Namespace) -> None:
    """`genzoo evaluate`."""
    import genzoo.callbacks

    folder = hub.resolve(given.entry)
    entry = hub.Entry(given.entry, folder)
    module, data = hub.load(folder, allow=allowed(given)), build_data(entry.config.get("data"), given)
    options = {**entry.metrics.get("evaluation", {}), **protocol(given)}
    metrics = genzoo.callbacks.evaluate(module, data, device=device(given), **options)

    published = {(f["name"], f.get("split")): f["value"] for f in entry.metrics.get("figures", [])}
    print(f"{'figure':<16}{'measured':>14}{'published':>14}  unit")
    for figure in metrics["figures"]:
        before = published.get((figure["name"], figure.get("split")))
        shown = "" if before is None else f"{before:.6g}"
        print(f"{figure['name']:<16}{figure['value']:>14.6g}{shown:>14}  {figure['unit']}")
    if given.out:
        half = Path(f"{given.out}.tmp")
        half.write_text(json.dumps(metrics, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        os.replace(half, given.out)
        print(given.out)


def publish(given: Namespace) -> None:
    """`genzoo publish`."""
    if (given.ckpt_path is None) == (given.entry is None):
        raise ValueError("genzoo publish takes a checkpoint (--ckpt_path) or an entry (--entry), one of the two")
    place = republish(given) if given.ckpt_path is None else publish_checkpoint(given)
    print(f"published {given.name}: {place}")


def republish(given: Namespace) -> Path | str:
    """An entry as it is, under another name or at another address."""
    entry = hub.Entry(given.name, hub.resolve(given.entry))
    config = entry.config
    return hub.publish(
        hub.load(entry.path, allow=allowed(given)),
        given.name,
        to=given.to,
        data=config["data"],
        metrics=entry.metrics,
        card=config.get("card"),
        samples=next(entry.path.glob("samples.*"), None),
        dtype=config["weights"]["dtype"],
        allow=allowed(given),
    )


def publish_checkpoint(given: Namespace) -> Path | str:
    """An entry of a checkpoint, measured as it will be stored."""
    import tempfile

    import torch
    import yaml

    import genzoo.callbacks
    from genzoo.callbacks.media import can_render
    from genzoo.zoo.interface import Samples

    module = hub.load_checkpoint(given.ckpt_path, allow=allowed(given))
    config = yaml.safe_load(run_config(given).read_text())
    data = build_data(config.get("data"), given)
    dtype = getattr(torch, given.dtype)
    state = module.state_dict()  # measured as it will be stored
    module.load_state_dict({k: v.to(dtype) if v.dtype == torch.float32 else v for k, v in state.items()})
    metrics = genzoo.callbacks.evaluate(module, data, device=device(given), **protocol(given))
    checkpoint = torch.load(given.ckpt_path, map_location="cpu", weights_only=True)
    clock = checkpoint.get("callbacks", {}).get("Publish", {})  # the callback of that name keeps the time
    metrics["training"] = {
        "recipe": given.name,
        "steps": checkpoint["global_step"],
        "seed": config.get("seed_everything"),
        **clock,
    }
    with tempfile.TemporaryDirectory() as folder:
        samples = None
        if isinstance(module, Samples) and can_render(tuple(module.hparams["shape"])):
            samples = Path(folder) / "samples.png"
            picture(module, samples, 64, 0)
        return hub.publish(
            module,
            given.name,
            to=given.to,
            data=data,
            metrics=metrics,
            samples=samples,
            dtype=given.dtype,
            allow=allowed(given),
        )


def run_config(given: Namespace) -> Path:
    """The configuration that the run left beside its checkpoints, or the one given."""
    if given.config:
        return recipes.find(given.config)
    beside = Path(given.ckpt_path).parent
    for folder in (beside.parent, beside):
        if (folder / "config.yaml").is_file():
            return folder / "config.yaml"
    raise FileNotFoundError(f"no config.yaml beside {given.ckpt_path}, to say what data it is for; give --config")


def allowed(given: Namespace) -> tuple[type, ...]:
    """The classes that `--allow` names; they alone are imported by name, for it is the user who names them."""
    import_from_here()
    try:
        return tuple(resolve_name(path) for path in given.allow)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"--allow {' '.join(given.allow)}: {error}") from None


def build_data(block: Any, given: Namespace) -> "LightningDataModule":
    """The datamodule that {class_path, init_args} states, with the data at `--root`."""
    import inspect

    import genzoo.datamodules
    from genzoo.zoo.build import build, by_path, exported

    if not isinstance(block, dict) or "class_path" not in block:
        raise ValueError("it is not on record what data it is for (no `data:` in the configuration)")
    classes = {**exported(genzoo.datamodules), **by_path(allowed(given))}
    path, options = str(block["class_path"]), dict(block.get("init_args") or {})
    path = path if "." in path else f"genzoo.datamodules.{path}"  # a recipe may use the bare name
    if path in classes and given.root is not None and "root" in inspect.signature(classes[path]).parameters:
        options["root"] = given.root
    return build({"class_path": path, "init_args": options}, classes)


def protocol(given: Namespace) -> dict[str, Any]:
    """The arguments of `evaluate` that were given on the command line."""
    names = ("split", "num_particles", "num_samples", "extractor", "seed")
    return {name: value for name in names if (value := getattr(given, name)) is not None}


def device(given: Namespace) -> str:
    """The device asked for, or a GPU, or else the CPU; ValueError if it cannot be had."""
    import torch

    chosen = given.device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError) as error:  # torch raises the latter where it was built without CUDA
        raise ValueError(f"--device {chosen} cannot be used: {str(error).splitlines()[0]}") from None
    return chosen
