"""`genzoo publish`: from a checkpoint, or from another entry, to an entry of the zoo."""

from argparse import ArgumentParser, Namespace
from operator import itemgetter
from pathlib import Path
from typing import Any

from genzoo import recipes
from genzoo.arguments import PROTOCOL, add_protocol, allowed, build_data, device, protocol, stated_protocol
from genzoo.zoo import hub
from genzoo.zoo.hub import schema
from genzoo.zoo.hub.entries import LEARNING, SAMPLES, file_of
from genzoo.zoo.hub.wording import blamed_on

EXAMPLE = "genzoo publish --ckpt_path X --name mnist/vae"
SAYS = "make an entry of a checkpoint"


def add_arguments(parser: ArgumentParser) -> None:
    """Of what, as what, where to, and how it is measured."""
    add = parser.add_argument
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
    add_protocol(parser)


def run(given: Namespace) -> None:
    """Makes an entry of a checkpoint: measures it, writes its card, stores it."""
    if (given.ckpt_path is None) == (given.entry is None):
        raise ValueError("genzoo publish takes a checkpoint (--ckpt_path) or an entry (--entry), one of the two")
    if given.ckpt_path is None:
        refuse_beside("--entry", given, "config", "dtype", "root", *PROTOCOL, "odd", "device")
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
    from genzoo.metrics.evaluation import arguments_of

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
    above = list(Path(given.ckpt_path).absolute().parents)  # a metric with a slash in a file's name makes folders
    names = [folder.name for folder in above]
    for folder in above[: names.index("checkpoints") + 2 if "checkpoints" in names else 2]:
        if (folder / "config.yaml").is_file():
            return folder / "config.yaml"
    raise FileNotFoundError(f"no config.yaml beside {given.ckpt_path}, to say what data it is for; give --config")
