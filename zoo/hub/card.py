"""The model card: the README.md of an entry, written from its configuration and its measured figures.

A hub renders it. What an entry says may be Markdown, but no HTML; and in the table it is text.
"""

import re
from collections.abc import Mapping
from typing import Any, TypedDict

from genzoo.zoo.hub.tasks import task_of


class Card(TypedDict, total=False):
    """What only a person knows of an entry, by section of its card; a section not given has a plain default."""

    description: str
    data: str
    limits: str
    licence: str
    spdx: str  # the identifier of the weights' licence: apache-2.0


LIMITS = (
    "It knows what its training data showed it and nothing else: what it draws, scores or completes beyond"
    " such data means little. Figures compare only with figures of the same data, binarisation and protocol."
)
LICENCE = "None is stated for the weights; the data keep their own."
#: what a model is for, in the words that Hugging Face has for it
HUB_TASKS = {
    "image": "unconditional-image-generation",
    "waveform": "text-to-audio",
    "series": "time-series-forecasting",
    "tokens": "text-generation",
}


def model_card(address: str, config: Mapping[str, Any], metrics: Mapping[str, Any]) -> str:
    """The text of the card, Markdown below the YAML header that Hugging Face reads.

    Args:
        address: What `genzoo.load` takes to load it.
        config: What its config.yaml holds, with what only a person knows in `card`; a section of that which is not
            given has a plain default.
        metrics: What its metrics.json holds; may be empty.
    """
    family = config["model"]["class_path"].rpartition(".")[2]
    weights, said = config["weights"], config.get("card") or {}
    size = f"{weights['parameters']:,} parameters, stored as {weights['dtype']}"
    parts = [
        f"# {config['name']}",
        said.get("description", f"A {family} of genzoo.") + f"\n\n{size}, SHA-256 `{weights['sha256']}`.",
        f'## Use\n\n```python\nimport genzoo\n\nmodel = genzoo.load("{address}")  # eval mode, weights verified\n```',
        "## Data\n\n" + said.get("data", _data(config)),
        "## Training\n\n" + _training(metrics.get("training", {})),
        "## Figures\n\n" + _figures(metrics.get("figures", []), metrics.get("environment", {})),
        "## Limits\n\n" + said.get("limits", LIMITS),
        "## Licence\n\n" + said.get("licence", f"{said['spdx']}, of the weights." if "spdx" in said else LICENCE),
    ]
    return _without_html(f"---\n{_header(config, metrics)}\n---\n\n" + "\n\n".join(parts)) + "\n"


def _header(config: Mapping[str, Any], metrics: Mapping[str, Any]) -> str:
    """What Hugging Face reads: the licence, if one is stated, and the figures as its `model-index` has them."""
    from huggingface_hub import EvalResult, ModelCardData

    from genzoo.zoo.modality import modality

    family = config["model"]["class_path"].rpartition(".")[2]
    shape = config.get("shape")
    what = HUB_TASKS.get(modality(shape, config.get("levels")), "other") if shape else "other"
    results = [
        EvalResult(
            task_type="image-classification" if family == "Classifier" else what,
            dataset_type=config["name"].partition("/")[0].lower(),
            dataset_name=task_of(config),
            dataset_split=figure.get("split"),
            metric_type=figure["name"],
            metric_name=f"{figure['name']}, {figure['unit']}",
            metric_value=figure["value"],
        )
        for figure in metrics.get("figures", [])
        if "split" in figure  # the others are no figures of these data
    ]
    return ModelCardData(
        library_name="genzoo",
        license=(config.get("card") or {}).get("spdx"),
        tags=["genzoo", "generative", family.lower()],
        model_name=config["name"],
        eval_results=results or None,
    ).to_yaml()


def _without_html(text: str) -> str:
    """Markdown in which nothing begins a tag, a comment or the like; a < b stays as it is."""
    return re.sub(r"<(?=[A-Za-z/!?])", "&lt;", text)


def _cell(value: Any) -> str:
    """A value in a table of Markdown: nothing in it ends the cell, is a link, an image, code or set off."""
    return re.sub(r"([|\\`*\[\]])", r"\\\1", str(value))


def _data(config: Mapping[str, Any]) -> str:
    shape, levels = config.get("shape"), config.get("levels")
    where = {1: f"tokens from 0 to {(levels or 1) - 1}", 2: f"{levels} levels in [−1, 1]"}  # texts and sounds
    values = "real values" if levels is None else where.get(len(shape or ()), f"{levels} levels in [0, 1]")
    text = f"Data of shape {tuple(shape)}, {values}." if shape else "Not stated."
    if names := config.get("class_names"):
        text += f" Their classes: {', '.join(names[:100])}{', …' if len(names) > 100 else ''}."
    if names := config.get("column_names"):
        text += f" Its columns: {', '.join(names[:100])}{', …' if len(names) > 100 else ''}."
    if config.get("data"):
        arguments = ", ".join(f"{key}={value!r}" for key, value in (config["data"].get("init_args") or {}).items())
        text += f" They come from `{config['data']['class_path'].rpartition('.')[2]}({arguments})`."
    return text


def _training(training: Mapping[str, Any]) -> str:
    if not training:
        return "Not recorded."
    stated = {
        "recipe": training.get("recipe"),
        "optimiser steps": training.get("steps"),
        "time": _duration(training["seconds"]) if training.get("seconds") is not None else None,
        "hardware": training.get("hardware"),
        "precision": training.get("precision"),
        "seed": training.get("seed"),
        "with": _with(training.get("environment") or {}),
    }
    return "\n".join(f"- {key}: {value}" for key, value in stated.items() if value not in (None, ""))


def _with(environment: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in environment.items() if value)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _figures(figures: list[Mapping[str, Any]], environment: Mapping[str, Any]) -> str:
    if not figures:
        return "None were measured."
    rows = ["| figure | value | unit | split | examples | protocol |", "|---|---|---|---|---|---|"]
    for figure in figures:
        value = in_words(figure)
        cells = [figure.get(key, "") for key in ("unit", "split", "num_examples", "protocol")]
        rows.append(f"| {' | '.join(map(_cell, [figure['name'], value, *cells]))} |")
    others: dict[str, list[str]] = {}
    for figure in figures:
        if other := _with(figure.get("environment") or {}):
            of = f"{figure['name']} ({figure['split']})" if "split" in figure else figure["name"]
            others.setdefault(other, []).append(of)
    rows += ["", f"Measured with {_with(environment)}."] if environment else []
    rows += [f"But {', '.join(of)} with {other}." for other, of in others.items()]
    return "\n".join(rows)


def in_words(figure: Mapping[str, Any]) -> str:
    """A figure's value with its standard error, and its floor, if it has them."""
    value = in_digits(figure["value"])
    if figure.get("standard_error") is not None:
        value += f" ± {figure['standard_error']:.2g}"
    if figure.get("floor") is not None:
        value += f" ({floor_name(figure)}: {figure['floor']:.4g}{floor_spread(figure)})"
    return value


def in_digits(number: float) -> str:
    """A count with all its digits, any other number with six."""
    return f"{number:,}" if isinstance(number, int) else f"{number:.6g}"


def floor_name(figure: Mapping[str, Any]) -> str:
    """What a figure's floor is the score of."""
    return str(figure.get("floor_name", "real against real"))


def floor_spread(figure: Mapping[str, Any]) -> str:
    """The floor's standard error, where it has one."""
    error = figure.get("floor_standard_error")
    return "" if error is None else f" ± {error:.2g}"
