"""`genzoo evaluate`: a model's figures; of an entry, measured anew beside those that it published."""

import json
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from genzoo.arguments import (
    add_compile,
    add_model,
    add_protocol,
    allowed,
    data_of,
    device,
    load,
    protocol,
    ready,
    stated_protocol,
)
from genzoo.zoo import hub
from genzoo.zoo.hub.entries import EMBEDDED, METRICS, WEIGHTS
from genzoo.zoo.hub.publishing import checked_target
from genzoo.zoo.hub.wording import blamed_on, masked

EXAMPLE = "genzoo evaluate mnist/vae"
SAYS = "measure a model, beside what it published"


def add_arguments(parser: ArgumentParser) -> None:
    """Which model, what of it, and how."""
    add_model(parser)
    add_protocol(parser)
    add_compile(parser)
    parser.add_argument("--out", help="a metrics.json to write")
    parser.add_argument(
        "--write", action="store_true", help="into the entry, in place of its figures of the same names"
    )


def run(given: Namespace) -> None:
    """Measures an entry again, as it was measured for its publication; a checkpoint, as it would be."""
    from genzoo.metrics.evaluation import evaluate, remeasured
    from genzoo.zoo.files import whole
    from genzoo.zoo.hub.card import in_digits

    out = ready(given.out, suffixes=[".json"]) if given.out else None
    if out is not None and out.name == METRICS and out.exists() and (out.parent / WEIGHTS).exists():
        raise ValueError(
            f"--out {given.out}: an entry's file, which also says how it was trained: --write keeps that"
        )
    entry, module = load(given)
    if given.write:
        home, weights = home_of(entry), entry.config["weights"]["sha256"]
    data, own = data_of(entry, given, module), isinstance(entry, hub.Checkpoint)
    options = stated_protocol(entry.metrics.get("evaluation", {}), given, own=own)
    options |= protocol(given, entry.config.get("data"), module, own=own)
    with blamed_on(given.model):
        metrics = evaluate(module, data, device=device(given), **options)

    published = {(f["name"], f.get("split")): f["value"] for f in entry.metrics.get("figures", [])}
    print(f"{'figure':<20}{'measured':>14}{'published':>14}{'floor':>14}  unit")
    for figure in metrics["figures"]:
        numbers = (figure["value"], published.get((figure["name"], figure.get("split"))), figure.get("floor"))
        shown = "".join(f"{'' if number is None else in_digits(number):>14}" for number in numbers)
        print(f"{figure['name']:<20}{shown}  {figure['unit']}" + floor_in_words(figure))
    if out:
        with whole(out) as half:
            half.write_text(json.dumps(metrics, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        print(out)
    if given.write:
        entry = hub.find(given.model)  # as it is after all that time: others may have written there, too
        if entry.config["weights"]["sha256"] != weights:
            raise ValueError(
                f"{given.model} has other weights by now than those that were measured: measure it again"
            )
        anew = remeasured(entry.metrics, metrics, given.model)
        place = hub.republish(entry, entry.config["name"], to=home, metrics=anew, allow=allowed(given))
        print(f"written into {masked(str(place))}")


def home_of(entry: hub.Entry) -> str | Path | None:
    """Where its figures go, as `publish` takes it: looked at before they are measured.

    Raises:
        ValueError: nothing can be written there, or it is a checkpoint, which has no figures.
    """
    if isinstance(entry, hub.Checkpoint):
        raise ValueError(f"--write is for entries, and {entry.name} is a checkpoint: `genzoo publish` it")
    embedded = entry.path.resolve().is_relative_to(EMBEDDED.resolve())
    home = entry.name if "://" in entry.name else None if embedded else entry.path
    checked_target(entry.config["name"], home)
    return home


def floor_in_words(figure: dict[str, Any]) -> str:
    """What the figure's floor is, where it has one."""
    from genzoo.zoo.hub.card import floor_name, floor_spread

    if figure.get("floor") is None:
        return ""
    return f"  (floor: {floor_name(figure)}{floor_spread(figure)})"
