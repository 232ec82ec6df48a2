"""The small commands: `list`, `cp`, `sample`, `evaluate`, `compare`, `publish`. PyTorch is imported when needed."""

import json
from argparse import ArgumentParser, Namespace
from difflib import get_close_matches
from operator import itemgetter
from pathlib import Path
from typing import Any

from genzoo import recipes
from genzoo.arguments import (
    add_machine,
    add_protocol,
    allowed,
    build_data,
    device,
    keywords,
    protocol,
    ready,
    stated_protocol,
)
from genzoo.zoo import hub
from genzoo.zoo.hub import schema
from genzoo.zoo.hub.entries import LEARNING, SAMPLES, file_of
from genzoo.zoo.hub.wording import blamed_on

NAMES = ("fit", "validate", "test", "predict", "list", "cp", "sample", "evaluate", "compare", "publish")


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

    add = command("sample", sample, "Draws samples of an entry and writes them as one picture, sound or text.")
    add("entry", help="a name, a folder or an address")
    add("--num_samples", type=int, default=64, help="how many (default: 64)")
    add("--out", help="the file to write (default: samples.png, or .wav or .txt where the entry makes such)")
    add("--seed", type=int, default=0, help="the same seed draws the same samples (default: 0)")
    add(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an argument of this model's own `sample`: temperature=0.8, prompt='To be', labels='[3, 3, 7]',"
        " solver=Heun",
    )
    add_machine(add)

    add = command("evaluate", evaluate, "Measures an entry again, as it was measured for its publication.")
    add("entry", help="a name, a folder or an address")
    add_protocol(add)
    add("--only", help="groups of figures alone, with commas between: likelihood,anomaly (default: all)")
    add("--out", help="a metrics.json to write")

    add = command(
        "compare", compare, "Writes one page, for any browser, that shows models of the same data side by side."
    )
    add(
        "entries",
        nargs="+",
        help="the data (digits: all of the zoo's models of them), or entries: names, folders or addresses",
    )
    add("--out", default="compare.html", help="the page to write (default: compare.html)")
    add("--root", help="where the data lie, or are downloaded to (default: what the datamodule takes)")
    add("--seed", type=int, default=0, help="of everything that is drawn (default: 0)")
    add_machine(add)

    add = command("publish", publish, "Makes an entry of a checkpoint: measures it, writes its card, stores it.")
    add("--ckpt_path", help="the checkpoint")
    add("--entry", help="instead: an entry to publish again elsewhere, with its figures, like the one a run left")
    add(
        "--metrics",
        help="with --entry: a metrics.json of `genzoo evaluate`, whose figures replace those of their names",
    )
    add("--name", required=True, help="the entry's name, like mnist/vae")
    add(
        "--to",
        help="a folder, hf://owner/name or wandb://entity/project/artifact (default: the embedded zoo)",
    )
    add("--config", help="the run's config.yaml (default: the one beside the checkpoints)")
    add(
        "--dtype",
        choices=["float32", "float16", "bfloat16"],
        help="of the stored weights (default: what the run's Publish says, or float32)",
    )
    add_protocol(add)
    return main


# --------------------------------------------------------------------------------------------------- the zoo


def list_zoo(given: Namespace) -> None:
    """`genzoo list`."""
    everything = hub.list_models()
    if any(entry.name.startswith(f"{given.pattern}/") for entry in everything):
        given.pattern += "/*"  # the name of a data set alone
    entries = hub.list_models(given.pattern)
    table("entry", "figures", [(entry.name, entry.damage or figures_in_words(entry)) for entry in entries])
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


def figures_in_words(entry: hub.Entry) -> str:
    """All of them, with commas between."""
    return ", ".join(map(in_words, entry.metrics.get("figures", [])))


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
    from genzoo.zoo.media import samples_of

    module = hub.load(given.entry, allow=allowed(given)).to(device(given))
    settings = keywords(given.set, getattr(module, "sample", None))
    with blamed_on(given.entry):
        try:
            medium = samples_of(module, given.num_samples, given.seed, **settings)
        except TypeError as error:  # of a value that was given, and could be read, but is not what the model takes
            if not settings:
                raise
            raise ValueError(f"--set {' '.join(given.set)}: {error}") from error
    if medium is None:
        raise ValueError(f"{type(module).__name__} draws no samples, or none that can be shown")
    out = Path(given.out or f"samples{medium.suffix}")
    if out.suffix.lower() != medium.suffix:
        raise ValueError(f"--out {out}: samples of {given.entry} are written as {medium.suffix}; name such a file")
    medium.write(out)
    print(out)


def evaluate(given: Namespace) -> None:
    """`genzoo evaluate`."""
    import genzoo.callbacks
    from genzoo.zoo.files import whole

    out = ready(given.out) if given.out else None
    folder = hub.resolve(given.entry)
    entry = hub.Entry(given.entry, folder)
    module, data = hub.load(folder, allow=allowed(given)), build_data(entry.config.get("data"), given)
    options = stated_protocol(entry.metrics.get("evaluation", {})) | protocol(given, entry.config.get("data"))
    if given.only:
        options["only"] = given.only.split(",")
    with blamed_on(given.entry):
        metrics = genzoo.callbacks.evaluate(module, data, device=device(given), **options)

    published = {(f["name"], f.get("split")): f["value"] for f in entry.metrics.get("figures", [])}
    print(f"{'figure':<20}{'measured':>14}{'published':>14}{'floor':>14}  unit")
    for figure in metrics["figures"]:
        numbers = (figure["value"], published.get((figure["name"], figure.get("split"))), figure.get("floor"))
        shown = "".join(f"{'' if number is None else f'{number:.6g}':>14}" for number in numbers)
        print(f"{figure['name']:<20}{shown}  {figure['unit']}" + floor_in_words(figure))
    if out:
        with whole(out) as half:
            half.write_text(json.dumps(metrics, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        print(out)


def compare(given: Namespace) -> None:
    """`genzoo compare`."""
    from genzoo.compare import entries_to_compare, write_page

    out = ready(given.out)
    write_page(
        entries_to_compare(given.entries),
        out,
        build_data=lambda block: build_data(block, given),
        device=device(given),
        seed=given.seed,
        allow=allowed(given),
    )
    print(out)


def publish(given: Namespace) -> None:
    """`genzoo publish`."""
    if (given.ckpt_path is None) == (given.entry is None):
        raise ValueError("genzoo publish takes a checkpoint (--ckpt_path) or an entry (--entry), one of the two")
    if given.ckpt_path is None:
        measures = ("config", "dtype", "root", "split", "num_particles", "num_likelihood", "num_samples")
        refuse_beside("--entry", given, *measures, "extractor", "num_odd", "odd", "seed", "device")
        place = republish(given)
    else:
        refuse_beside("--ckpt_path", given, "metrics")
        with blamed_on(given.ckpt_path):
            place = publish_checkpoint(given)
    print(f"published {given.name}: {place}")


def refuse_beside(source: str, given: Namespace, *names: str) -> None:
    """Raises ValueError if an argument was given that means nothing beside `source`."""
    if meaningless := [f"--{name}" for name in names if getattr(given, name) is not None]:
        raise ValueError(
            f"{' and '.join(meaningless)} has no effect with {source}: a checkpoint is measured; an entry keeps the"
            " precision it has, and its figures but for those in the file of `genzoo evaluate … --out` that --metrics"
            " names"
        )


def republish(given: Namespace) -> Path | str:
    """An entry as it is, under another name or at another address; or in its place, with figures measured anew."""
    entry = hub.Entry(given.name, hub.resolve(given.entry))
    config = entry.config
    return hub.publish(
        hub.load(entry.path, allow=allowed(given)),
        given.name,
        to=given.to,
        data=config.get("data"),
        metrics=remeasured(entry.metrics, given.metrics) if given.metrics else entry.metrics,
        card=config.get("card"),
        samples=next(filter(None, (file_of(entry.path, name) for name in SAMPLES)), None),
        learning=file_of(entry.path, LEARNING),
        dtype=config["weights"]["dtype"],
        allow=allowed(given),
    )


def remeasured(before: dict[str, Any], file: str) -> dict[str, Any]:
    """An entry's metrics with the figures that `genzoo evaluate` wrote to `file`, in place of those of their names.

    Raises:
        ValueError: the file holds no figures, or they were measured otherwise than those that stay.
    """
    now = schema.read_json(Path(file))
    if not isinstance(now, dict) or not {"figures", "evaluation", "environment"} <= now.keys():
        raise ValueError(f"{file} does not hold what `genzoo evaluate --out` writes")
    schema.checked(now, schema.METRICS, Path(file))
    key = itemgetter("name")
    new = {key(figure): figure for figure in now["figures"]}
    names = dict.fromkeys([*map(key, before.get("figures", [])), *new])
    old = {key(figure): figure for figure in before.get("figures", []) if key(figure) not in new}
    asked, then = now["evaluation"], before.get("evaluation", {})
    changed = {name for name in then if then[name] != asked.get(name)}
    if stale := {name: both for name in old if (both := sorted(changed & arguments_of(name)))}:
        raise ValueError(
            f"{file} was measured with another {', '.join(sorted(set().union(*stale.values())))} than the figures"
            f" that stay ({', '.join(stale)}): measure all of them again, or give the same arguments"
        )
    return {
        **before,
        **now,
        "figures": [new.get(name) or old[name] for name in names],
        "evaluation": {**then, **asked},
    }


def arguments_of(name: str) -> set[str]:
    """The arguments of `evaluate` that a figure of that name depends on; what is odd, the name itself says."""
    if name in ("parameters", "sampling_time", "network_evaluations"):
        return set()
    if name in ("nll", "bits_per_dim"):
        own = {"num_particles", "num_likelihood"}
    elif name.startswith("auroc_"):
        own = {"num_odd"}
    else:
        own = {"num_samples", "extractor"}
    return own | {"split", "seed"}


def publish_checkpoint(given: Namespace) -> Path | str:
    """An entry of a checkpoint, as its run would have made it; what is given here goes before what the run says."""
    import torch

    from genzoo.callbacks import Publish
    from genzoo.callbacks.publish import as_stored

    module = hub.load_checkpoint(given.ckpt_path, allow=allowed(given))
    path = run_config(given)
    config = schema.checked(schema.read_yaml(path, own=True), schema.record({}), path)
    data = build_data(config.get("data"), given, own=True)
    said = schema.checked(publish_block(config), schema.record({}, schema.PUBLISHED), path)
    options = {**said, "recipe": said.get("recipe") or said.get("name") or given.name, "name": given.name}
    options["evaluation"] = stated_protocol(said.get("evaluation") or {}) | protocol(given, config["data"], own=True)
    publisher = Publish(**options | ({"dtype": given.dtype} if given.dtype else {}))
    checkpoint = torch.load(given.ckpt_path, map_location="cpu", weights_only=True)
    if "Publish" in (kept := checkpoint.get("callbacks", {})):  # the time that training took, and its film
        publisher.load_state_dict(kept["Publish"])
    module.load_state_dict(as_stored(module.state_dict(), publisher.dtype))
    place = publisher.publish(
        module,
        data,
        to=given.to,
        steps=checkpoint["global_step"],
        seed=None if config.get("seed_everything") is False else config.get("seed_everything"),
        device=device(given),
        allow=allowed(given),
    )
    assert place is not None  # there is one process
    return place


def publish_block(config: dict[str, Any]) -> dict[str, Any]:
    """What the run's configuration says of its `Publish`; nothing where it had none."""
    trainer = config.get("trainer")
    callbacks = trainer.get("callbacks") if isinstance(trainer, dict) else None
    for block in callbacks if isinstance(callbacks, list) else [callbacks]:
        if isinstance(block, dict) and str(block.get("class_path")).rpartition(".")[2] == "Publish":
            said = block.get("init_args")
            return {name: said[name] for name in schema.PUBLISHED if name in said} if isinstance(said, dict) else {}
    return {}


def run_config(given: Namespace) -> Path:
    """The configuration that the run left beside its checkpoints, or the one given."""
    if given.config:
        return recipes.find(given.config)
    beside = Path(given.ckpt_path).parent
    for folder in (beside.parent, beside):
        if (folder / "config.yaml").is_file():
            return folder / "config.yaml"
    raise FileNotFoundError(f"no config.yaml beside {given.ckpt_path}, to say what data it is for; give --config")


def floor_in_words(figure: dict[str, Any]) -> str:
    """What the figure's floor is, where it has one."""
    return f"  (floor: {figure.get('floor_name', 'real against real')})" if figure.get("floor") is not None else ""
