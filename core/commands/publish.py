"""`genzoo publish`: from a checkpoint, or from another entry, to an entry of the zoo."""

from argparse import ArgumentParser, Namespace
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
    note_others,
    protocol,
    stated_protocol,
)
from genzoo.zoo import hub
from genzoo.zoo.files import at_home
from genzoo.zoo.hub import schema
from genzoo.zoo.hub.checkpoints import published, read_checkpoint, read_run, run_config
from genzoo.zoo.hub.publishing import checked_target, how_sent
from genzoo.zoo.hub.storage import as_stored
from genzoo.zoo.hub.wording import blamed_on, masked

EXAMPLE = "genzoo publish best.ckpt --name my/vae --to my/zoo/vae"
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
        help="a folder, hf://owner/name, wandb://entity/project/artifact, or a URL that fsspec writes"
        " (s3://bucket/name); an entry that is there is replaced (default: the embedded zoo)",
    )
    add(
        "--private",
        action="store_true",
        help="a repository of Hugging Face's that is made for it is (default: as the owner's are)",
    )
    add("--config", help="the run's config.yaml (default: the one beside the checkpoints)")
    add(
        "--dtype",
        choices=schema.DTYPES,
        help="of the stored weights (default: what the run's Publish says, or float32)",
    )
    add(
        "--no-evaluate",
        dest="evaluate",
        action="store_false",
        help="measure nothing now; `genzoo evaluate ENTRY --write` does it later",
    )
    add_protocol(parser)


def run(given: Namespace) -> None:
    """Makes an entry of a checkpoint: measures it, writes its card, stores it."""
    sources = {"the model": given.model, "--ckpt_path": given.ckpt_path, "--entry": given.entry}
    if len(named := {how: source for how, source in sources.items() if source is not None}) != 1:
        raise ValueError("genzoo publish takes a checkpoint (MODEL or --ckpt_path) or an entry, one of the two")
    ((how, source),) = named.items()
    sending = how_sent(given.private, given.to)
    checked_target(given.name, given.to)  # before it is measured
    model = found(source)
    if isinstance(model, hub.Checkpoint):
        refuse_beside(how, given, "metrics")
        with blamed_on(source):
            place = publish_checkpoint(model, given)
    else:
        refuse_beside(how, given, "config", "dtype", "root", *PROTOCOL, "only", "odd", "device")
        from genzoo.metrics.evaluation import remeasured

        metrics = remeasured(model.metrics, measured(given.metrics), given.metrics) if given.metrics else None
        place = hub.republish(model, given.name, to=given.to, metrics=metrics, allow=allowed(given), sending=sending)
    shown = masked(str(place))
    if "://" not in shown and not Path(shown).is_absolute():
        shown = f"./{shown}"  # which no entry of the zoo is called
    print(f"published {given.name}: {shown}")


def measured(file: str) -> dict[str, Any]:
    """What `genzoo evaluate` wrote to a file; ValueError if that is something else."""
    now = schema.read_json(at_home(file))
    if not isinstance(now, dict) or not {"figures", "evaluation", "environment"} <= now.keys():
        raise ValueError(f"{file} does not hold what `genzoo evaluate --out` writes")
    return schema.checked(now, schema.METRICS, Path(file))


def refuse_beside(source: str, given: Namespace, *names: str) -> None:
    """Raises ValueError if an argument was given that means nothing beside `source`."""
    if meaningless := [f"--{name}" for name in names if getattr(given, name) is not None]:
        raise ValueError(
            f"{' and '.join(meaningless)} has no effect with {source}: a checkpoint is measured; an entry keeps the"
            " precision it has, and its figures but for those in the file of `genzoo evaluate … --out` that --metrics"
            " names"
        )


def publish_checkpoint(checkpoint: hub.Checkpoint, given: Namespace) -> Path | str:
    """An entry of a checkpoint, as its run would have made it; what is given here goes before what the run says."""
    from genzoo.callbacks import Publish

    module = hub.load_checkpoint(checkpoint.path, allow=allowed(given))
    path = recipes.find(given.config) if given.config else run_config(checkpoint.path)
    if path is None:
        raise FileNotFoundError(f"no config.yaml beside {checkpoint.path}, to say what data it is for; give --config")
    config = read_run(path)
    data = build_data(config.get("data"), given, module, own=True)
    note_others(checkpoint, data)
    said = published(config)
    private = said.pop("private", False) and str(given.to).startswith("hf://")  # as its run would have made it
    options = {**said, "recipe": said.get("recipe") or said.get("name") or given.name, "name": given.name}
    asked = stated_protocol(said.get("evaluation") or {}, given, own=True)
    options["evaluation"] = asked | protocol(given, config["data"], module, own=True)
    publisher = Publish(**options | ({"dtype": given.dtype} if given.dtype else {}))
    kept = read_checkpoint(checkpoint.path)
    if "Publish" in kept.get("callbacks", {}):  # the time that training took, and its film
        publisher.load_state_dict(kept["callbacks"]["Publish"])
    module.load_state_dict(as_stored(module, publisher.dtype))
    place = publisher.publish(
        module,
        data,
        to=given.to,
        steps=kept["global_step"],
        seed=None if config.get("seed_everything") is False else config.get("seed_everything"),
        device=device(given),
        measure=given.evaluate,
        split_fingerprints=checkpoint.split_fingerprints,
        allow=allowed(given),
        sending=how_sent(given.private or private, given.to),
    )
    assert place is not None  # there is one process
    return place
