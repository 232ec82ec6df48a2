"""What the app's models answer: pictures in, tables of pictures out; nothing here knows of the page.

A model is asked what it can do (`isinstance(module, Completes)`), and is not in the table of what it cannot.
"""

import html
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from PIL import Image, ImageColor, ImageOps
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor, to_pil_image

from genzoo.compare.pictures import sheet, still
from genzoo.zoo import DDIM, Ancestral, DPMSolver, Heun
from genzoo.zoo.drawing import arguments_of, draw, seeded, supported
from genzoo.zoo.interface import Completes, HasLatents, HasLogProb, Interpolates, Samples, ScoresAnomalies
from genzoo.zoo.media import rate_of
from genzoo.zoo.mixins import is_conditional
from genzoo.zoo.modality import modality, to_grid

CANVAS = 384  # pixels of a side of what is drawn on
SHOWN = 16  # samples of each model
SOLVERS = {kind.__name__: kind for kind in (Ancestral, DDIM, DPMSolver, Heun)}
HOLE = "#ff40c0"  # the colour that makes a hole
LARGE = 96  # pixels of a side of an image in a table, about


@dataclass(frozen=True)
class Shown:
    """A model, and what it is called on the page."""

    name: str
    module: Any

    @property
    def takes(self) -> set[str]:
        """The arguments of its `sample`."""
        return set(arguments_of(self.module.sample)) if isinstance(self.module, Samples) else set()

    @property
    def interpolates(self) -> bool:
        """Whether it goes from one datum to another."""
        return isinstance(self.module, Interpolates)

    @property
    def reads(self) -> bool:
        """Whether it says how surprising each token of a text is."""
        return hasattr(self.module, "surprisal")


def kind_of(models: Sequence[Shown]) -> str:
    """The kind of data that all of them are of.

    Raises:
        ValueError: if that is not one, or none that can be shown.
    """
    kinds = {m.name: (modality(m.module.shape, m.module.levels), m.module.shape) for m in models}
    if len(set(kinds.values())) > 1:
        each = ", ".join(f"{name} {kind} {shape}" for name, (kind, shape) in kinds.items())
        raise ValueError(f"the app shows models of data of one kind and shape, but these have: {each}")
    ((kind, _),) = set(kinds.values())
    writes = any(getattr(m.module, "vocabulary", None) is not None for m in models)
    if kind in ("points", "series") or (kind == "tokens" and not writes):
        raise ValueError(f"the app shows images, sounds and texts, but {models[0].name} is of {kind}")
    return kind


def is_ink(models: Sequence[Shown]) -> bool:
    """Whether the images are grey and mostly black: white ink, which is drawn black on white as on paper."""
    return _is_ink(tuple(models))


@lru_cache(maxsize=8)
def _is_ink(models: tuple[Shown, ...]) -> bool:
    """Every stroke asks, and samples answer: so they are drawn once."""
    module = next((m.module for m in models if isinstance(m.module, Samples)), None)
    return models[0].module.shape[0] == 1 and (module is None or float(draw(module.sample, 16, 0).mean()) < 0.5)


def blank(paper: str) -> dict[str, Any]:
    """What the editor begins with."""
    return _editor(Image.new("RGB", (CANVAS, CANVAS), paper))


def drawn(models: Sequence[Shown], number: int) -> dict[str, Any]:
    """A picture to begin with: what one of the models draws."""
    able = [m.module for m in models if isinstance(m.module, Samples)]
    if not able:
        return blank("white")
    x = draw(able[number % len(able)].sample, 1, number)[0].clamp(0, 1)  # of no levels, it may lie beyond
    x = 1 - x if is_ink(models) else x
    size = _fitted(x.shape[-2:])
    return _editor(to_pil_image(x).convert("RGB").resize(size, Image.Resampling.NEAREST))


def _editor(picture: Image.Image) -> dict[str, Any]:
    return {"background": picture, "layers": [], "composite": picture}


def _fitted(size: Sequence[int]) -> tuple[int, int]:
    """(width, height) of an image of so many rows and columns, as large as the canvas."""
    scale = CANVAS / max(size)
    return round(size[1] * scale), round(size[0] * scale)


def data_of(value: dict[str, Any], models: Sequence[Shown]) -> tuple[Tensor, Tensor]:
    """What was drawn, of any level, and what of it is known: (1, *shape) in [0, 1], and (1, 1, H, W) bool."""
    module = models[0].module
    channels, height, width = module.shape
    picture = value["composite"].convert("RGBA")
    flat = Image.new("RGB", picture.size, "white")
    flat.paste(picture.convert("RGB"), mask=picture.getchannel("A"))
    pixels = pil_to_tensor(flat).short()
    hole = (pixels - torch.tensor(ImageColor.getrgb(HOLE), dtype=torch.short)[:, None, None]).abs().amax(0) < 60
    covered = to_pil_image(255 * hole.byte()[None])
    size, method = (width, height), Image.Resampling.BOX
    x = pil_to_tensor(ImageOps.fit(flat.convert("L" if channels == 1 else "RGB"), size, method))[None].float() / 255
    known = pil_to_tensor(ImageOps.fit(covered, size, method))[None] < 32  # not an eighth of it under pink
    return (1 - x if is_ink(models) else x).masked_fill(~known, 0), known


def _rounded(picture: Tensor, module: Any) -> Tensor:
    """What was drawn as a datum of the model: at its levels, if it has any."""
    return picture if module.levels is None else to_grid(picture, module.levels)


def about(models: Sequence[Shown], value: dict[str, Any] | None, seed: int) -> str:
    """What every model says of a picture; HTML."""
    if value is None or value["composite"] is None:
        return as_html([])
    picture, known = data_of(value, models)
    whole, ink = bool(known.all()), is_ink(models)
    rows = [["what they see", _image(sheet(picture[None], known[None], zoom=_zoom(picture)), "your picture", ink)]]
    for model in models:
        pictures, says, x = "", "", _rounded(picture, model.module)
        with seeded(int(seed)) as generator, torch.no_grad():
            if whole:
                says = _scores(model.module, x)
            if whole and isinstance(model.module, HasLatents):
                pictures = _image(sheet(model.module.reconstruct(x)[None], zoom=_zoom(x)), "as it renders it", ink)
            elif not whole and isinstance(model.module, Completes):
                options = supported(model.module.complete, num_samples=4, generator=generator)
                completed = model.module.complete(x, known.expand(x.shape), **options)
                pictures = _image(sheet(completed.transpose(0, 1), zoom=_zoom(x)), "completions", ink)
        rows.append([model.name, pictures, says])
    return as_html(rows)


def _scores(module: Any, x: Tensor) -> str:
    says = []
    if isinstance(module, HasLogProb):
        sign = {"exact": "", "lower_bound": "≥ ", "estimate": "≈ "}[module.log_prob_kind]
        says.append(f"log p(x) {sign}{float(module.log_prob(x)[0]):.1f} nats")
    if isinstance(module, ScoresAnomalies):
        says.append(f"oddness {float(module.anomaly_score(x)[0]):.3g}")
    return "<br>".join(says)


def walk(models: Sequence[Shown], a: dict[str, Any] | None, b: dict[str, Any] | None) -> str:
    """From one picture to another through every model that goes such ways; HTML."""
    ends = [data_of(value, models)[0] for value in (a, b) if value is not None and value["composite"] is not None]
    if len(ends) < 2:
        return as_html([])
    rows = []
    for model in filter(lambda model: model.interpolates, models):
        x, y = (_rounded(picture, model.module) for picture in ends)
        with torch.no_grad():
            path = model.module.interpolate(x, y, 9).transpose(0, 1)
        rows.append([model.name, _image(sheet(path, zoom=_zoom(x)), f"{model.name}: a walk", is_ink(models))])
    return as_html(rows)


def samples(models: Sequence[Shown], kind: str, given: dict[str, Any]) -> Any:
    """What every model draws with these controls; HTML, or a sound for each of them."""
    num, seed = SHOWN if kind == "image" else 1, int(given.pop("seed"))
    drawn = [draw(_with(m.module, given, num), num, seed) if m.takes else None for m in models]
    if kind == "waveform":
        each = zip(models, drawn, strict=True)
        return [None if x is None else (rate_of(m.module), x[0, 0].numpy()) for m, x in each]
    rows = []
    for model, x in zip(models, drawn, strict=True):
        if x is None:
            rows.append([model.name, "draws no samples"])
        elif kind == "tokens":
            rows.append([model.name, f"<pre>{html.escape(model.module.text(x[0]))}</pre>"])
        else:
            picture = sheet(x.unflatten(0, (2, -1)), zoom=_zoom(x))
            rows.append([model.name, _image(picture, f"{model.name}: samples", is_ink(models))])
    return as_html(rows)


def _with(module: Any, given: dict[str, Any], num: int) -> Callable[..., Tensor]:
    """The module's `sample`, with those of the controls that it has."""
    options = supported(module.sample, **given)
    if not is_conditional(module):
        options = {name: value for name, value in options.items() if name not in ("labels", "guidance")}
    if (label := options.pop("labels", -1)) >= 0:
        options["labels"] = torch.full((num,), label)
    if "solver" in options:
        options["solver"] = SOLVERS[options["solver"]]() if options["solver"] in SOLVERS else None
    if options.get("prompt") == "":
        del options["prompt"]
    if "steps" in options:
        options["steps"] = int(options["steps"])

    def sample(num_samples: int, generator: Any = None) -> Tensor:
        return module.sample(num_samples, **options, **supported(module.sample, generator=generator))

    return sample


def classes(models: Sequence[Shown]) -> list[tuple[str, int]]:
    """The classes that one of the models was told, by name if they have names; none, if none was."""
    module = next((m.module for m in models if is_conditional(m.module)), None)
    if module is None:
        return []
    names = getattr(module, "class_names", None) or range(module.num_classes)
    return [(str(name), number) for number, name in enumerate(names)]


def surprise(models: Sequence[Shown], text: str) -> str:
    """The text once for each model, every token as red as it is surprising; HTML."""
    rows = []
    for model in models:
        if not model.reads or not text:
            continue
        try:
            tokens = model.module.tokens(text)
        except ValueError as error:
            rows.append([model.name, html.escape(str(error))])
            continue
        with torch.no_grad():
            bits = model.module.surprisal(tokens) / math.log(2)
        marked = "".join(
            f'<span class="token" title="{b:.1f} bits" style="background: rgb(255 60 40 / {min(1, b / 12):.2f})">'
            f"{html.escape(model.module.text(t[None]))}</span>"
            for t, b in zip(tokens, bits.tolist(), strict=True)
        )
        rows.append([model.name, f"<pre>{marked}</pre>", f"{sum(bits.tolist()) / len(bits):.2f} bits a token"])
    return as_html(rows)


def as_html(rows: Sequence[Sequence[str]]) -> str:
    """A table; the first cell of a row is its head."""
    lines = [
        f"<tr><th>{html.escape(row[0])}</th>{''.join(f'<td>{cell}</td>' for cell in row[1:])}</tr>" for row in rows
    ]
    return f"<table>{''.join(lines)}</table>"


def _image(pixels: Tensor, alt: str, ink: bool) -> str:
    picture = still(pixels, alt)
    kind = "grey" if ink else ""
    return (
        f'<span class="{kind}"><img src="{picture.uri}" width="{picture.width}" height="{picture.height}"'
        f' alt="{html.escape(alt)}"></span>'
    )


def _zoom(x: Tensor) -> int:
    return max(1, LARGE // max(x.shape[-2:]))
