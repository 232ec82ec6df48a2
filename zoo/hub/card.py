"""The model card: the README.md of an entry, written from its configuration and its measured figures."""

from collections.abc import Mapping
from typing import Any, TypedDict


class Card(TypedDict, total=False):
    """What only a person knows of an entry, by section of its card; a section not given has a plain default."""

    description: str
    data: str
    limits: str
    licence: str


SECTIONS = tuple(Card.__annotations__)

LIMITS = (
    "It knows what its training data showed it and nothing else: what it draws, scores or completes beyond"
    " such data means little. Figures compare only with figures of the same data, binarisation and protocol."
)
LICENCE = "The weights are under the Apache License 2.0; the data keep their own licence."


def model_card(address: str, config: Mapping[str, Any], metrics: Mapping[str, Any], said: Mapping[str, str]) -> str:
    """The text of the card, Markdown below the YAML header that Hugging Face reads.

    Args:
        address: What `genzoo.load` takes to load it.
        config: What its config.yaml holds.
        metrics: What its metrics.json holds; may be empty.
        said: What only a person knows, by section (`SECTIONS`); a section not given has a plain default.
    """
    family = config["model"]["class_path"].rpartition(".")[2]
    weights = config["weights"]
    size = f"{weights['parameters']:,} parameters, stored as {weights['dtype']}"
    parts = [
        f"---\nlibrary_name: genzoo\nlicense: apache-2.0\ntags: [genzoo, generative, {family.lower()}]\n---",
        f"# {config['name']}",
        said.get("description", f"A {family} of genzoo.") + f"\n\n{size}, SHA-256 `{weights['sha256']}`.",
        f'## Use\n\n```python\nimport genzoo\n\nmodel = genzoo.load("{address}")  # eval mode, weights verified\n```',
        "## Data\n\n" + said.get("data", _data(config)),
        "## Training\n\n" + _training(metrics.get("training", {}), metrics.get("environment", {})),
        "## Figures\n\n" + _figures(metrics.get("figures", [])),
        "## Limits\n\n" + said.get("limits", LIMITS),
        "## Licence\n\n" + said.get("licence", LICENCE),
    ]
    return "\n\n".join(parts) + "\n"


def _data(config: Mapping[str, Any]) -> str:
    shape, levels = config.get("shape"), config.get("levels")
    values = "real values" if levels is None else f"{levels} levels in [0, 1]"
    text = f"Data of shape {tuple(shape)}, {values}." if shape else "Not stated."
    if config.get("data"):
        arguments = ", ".join(f"{key}={value!r}" for key, value in config["data"]["init_args"].items())
        text += f" They come from `{config['data']['class_path'].rpartition('.')[2]}({arguments})`."
    return text


def _training(training: Mapping[str, Any], environment: Mapping[str, Any]) -> str:
    if not training:
        return "Not recorded."
    stated = {
        "recipe": training.get("recipe"),
        "optimiser steps": training.get("steps"),
        "time": _duration(training["seconds"]) if training.get("seconds") is not None else None,
        "hardware": training.get("hardware"),
        "seed": training.get("seed"),
        "with": ", ".join(f"{key} {value}" for key, value in environment.items() if value),
    }
    return "\n".join(f"- {key}: {value}" for key, value in stated.items() if value not in (None, ""))


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _figures(figures: list[Mapping[str, Any]]) -> str:
    if not figures:
        return "None were measured."
    rows = ["| figure | value | unit | split | examples | protocol |", "|---|---|---|---|---|---|"]
    for figure in figures:
        value = f"{figure['value']:.6g}"
        if figure.get("standard_error") is not None:
            value += f" ± {figure['standard_error']:.2g}"
        if figure.get("floor") is not None:
            spread = f" ± {figure['floor_standard_error']:.2g}" if "floor_standard_error" in figure else ""
            value += f" ({figure.get('floor_name', 'real against real')}: {figure['floor']:.4g}{spread})"
        cells = (figure.get(key, "") for key in ("unit", "split", "num_examples", "protocol"))
        rows.append(f"| {figure['name']} | {value} | " + " | ".join(map(str, cells)) + " |")
    return "\n".join(rows)
