"""`genzoo publish`: from a checkpoint, or from another entry, to an entry of the zoo."""

from argparse import ArgumentParser, Namespace
from operator import itemgetter
from pathlib import Path
from typing import Any

from genzoo import recipes
from genzoo.arguments import (
    MODEL,
    PROTOCOL,
    add_protocol,
    allowed,
    build_data,
    device,
    found,
    protocol,
    stated_protocol,
)
from genzoo.zoo import hub
from genzoo.zoo.hub import schema
from genzoo.zoo.hub.checkpoints import published, read_checkpoint, read_run, run_config
from genzoo.zoo.hub.entries import LEARNING, SAMPLES, file_of
from genzoo.zoo.hub.weights import as_stored
from genzoo.zoo.hub.wording import blamed_on

EXAMPLE = "genzoo publish best.ckpt --name mnist/vae"
SAYS = "make an entry of a checkpoint"


def add_arguments(parser: ArgumentParser) -> None:
    """Of what, as what, where to, and how it is measured."""
    add = parser.add_argument
    add(
        "model",
        nargs="?",
        help=f"{MODEL}; a checkpoint is measured, an entry is published again elsewhere, with its figures",
    )
    add("--ckpt_path", help="the same, of a checkpoint")
    add("--entry", help="the same, of an entry")
    add(
        "--metrics",
        help="with an entry: a metrics.json of `genzoo evaluate`, whose figures replace those of their names",
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
    sources = {"the model": given.model, "--ckpt_path": given.ckpt_path, "--entry": given.entry}
    if len(named := {how: source for how, source in sources.items() if source is not None}) != 1:
        raise ValueError("genzoo publish takes a checkpoint (MODEL or --ckpt_path) or an entry, one of the two")
    ((how, source),) = named.items()
    model = found(source)
    if isinstance(model, hub.Checkpoint):
        refuse_beside(how, given, "metrics")
        with blamed_on(source):
            place = publish_checkpoint(model, given)
    else:
        refuse_beside(how, given, "config", "dtype", "root", *PROTOCOL, "odd", "device")
        place = republish(model, given)
    print(f"published {given.name}: {place}")


def refuse_beside(source: str, given: Namespace, *names: str) -> None:
    """Raises ValueError if an argument was given that means nothing beside `source`."""
    if meaningless := [f"--{name}" for name in names if getattr(given, name) is not None]:
        raise ValueError(
            f"{' and '.join(meaningless)} has no effect with {source}: a checkpoint is measured; an entry keeps the"
            " precision it has, and its figures but for those in the file of `genzoo evaluate … --out` that --metrics"
            " names"
        )


def republish(entry: hub.Entry, given: Namespace) -> Path | str:
    """An entry as it is, under another name or at another address; or in its place, with figures measured anew."""
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


def publish_checkpoint(checkpoint: hub.Checkpoint, given: Namespace) -> Path | str:
    """An entry of a checkpoint, as its run would have made it; what is given here goes before what the run says."""
    from genzoo.callbacks import Publish

    module = hub.load_checkpoint(checkpoint.path, allow=allowed(given))
    path = recipes.find(given.config) if given.config else run_config(checkpoint.path)
    if path is None:
        raise FileNotFoundError(f"no config.yaml beside {checkpoint.path}, to say what data it is for; give --config")
    config = read_run(path)
    data = build_data(config.get("data"), given, own=True)
    said = published(config)
    options = {**said, "recipe": said.get("recipe") or said.get("name") or given.name, "name": given.name}
    options["evaluation"] = stated_protocol(said.get("evaluation") or {}) | protocol(given, config["data"], own=True)
    publisher = Publish(**options | ({"dtype": given.dtype} if given.dtype else {}))
    kept = read_checkpoint(checkpoint.path)
    if "Publish" in kept.get("callbacks", {}):  # the time that training took, and its film
        publisher.load_state_dict(kept["callbacks"]["Publish"])
    module.load_state_dict(as_stored(module.state_dict(), publisher.dtype))
    place = publisher.publish(
        module,
        data,
        to=given.to,
        steps=kept["global_step"],
        seed=None if config.get("seed_everything") is False else config.get("seed_everything"),
        device=device(given),
        allow=allowed(given),
    )
    assert place is not None  # there is one process
    return place
