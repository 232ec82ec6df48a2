"""What the page shows: the same questions, put to every model that can answer them.

A question is put by capability: `isinstance(module, Completes)`, and so on. What a model cannot do is a sentence
instead of a picture.
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from warnings import warn

import torch
from lightning.pytorch import LightningDataModule, LightningModule
from torch import Tensor

from genzoo.compare.families import CAPABILITIES, Family, capabilities_of, family_of, in_order, said, why_not
from genzoo.compare.figures import OF_THE_MODEL, Column, columns_of, floors
from genzoo.compare.pictures import Picture, film, ink, png, sheet, still
from genzoo.compare.questions import Question, Shown, ask, half_known, halves, picture, show, zoom
from genzoo.compare.samples import Drawing, class_names, drawings, find_nearest, judge
from genzoo.zoo import hub
from genzoo.zoo.drawing import seeded, supported
from genzoo.zoo.hub import Entry
from genzoo.zoo.hub.entries import EMBEDDED, LEARNING, NAME, file_of
from genzoo.zoo.hub.film import frame_size
from genzoo.zoo.media import GAP
from genzoo.zoo.mixins import is_conditional, present_classes
from genzoo.zoo.modality import Modality, modality

FILMED = 8  # samples whose coming about is filmed
FRAMES = 64  # most frames of a film
FILM = 2**24  # most pixels of a film that an entry brings along
STEPS = 9  # of an interpolation
QUIZ, ASKED = 16, 3  # images of the quiz: real ones of each task, and of each model
BESIDE = 8  # samples that are shown beside their nearest training data


@dataclass
class Exhibit:
    """A model, and its answers."""

    entry: Entry
    task: str  # what a likelihood is about, or a distance: they compare within one task
    module: Any
    family: Family
    question: Question
    can: set[str]
    figures: dict[str, dict[str, Any]]
    drawings: list[Drawing] = field(default_factory=list)  # its samples, by what can be chosen; the first by itself
    neighbours: Picture | None = None  # samples, and below each its nearest training datum
    process: Picture | None = None
    process_kind: str = ""
    completions: list[tuple[Picture, str]] = field(default_factory=list)  # one for each half, and how exact
    interpolation: Picture | None = None
    oddness: list[float] = field(default_factory=list)  # share of usual data that each is odder than

    @property
    def name(self) -> str:
        """Of the entry."""
        return self.entry.name

    @property
    def embedded(self) -> bool:
        """Whether it is the zoo's own, and no user's."""
        return EMBEDDED in self.entry.path.parents

    @property
    def class_name(self) -> str:
        """Of the model."""
        return type(self.module).__name__

    @property
    def summary(self) -> str:
        """The first sentence of the class's docstring."""
        return (inspect.getdoc(type(self.module)) or "").partition("\n")[0]

    @property
    def samples(self) -> Picture | None:
        """What it draws by itself."""
        return self.drawings[0].picture if self.drawings else None

    @property
    def drawn(self) -> Sequence[Tensor]:
        """The first of the images that it draws by itself."""
        return list(self.drawings[0].x[:BESIDE]) if self.drawings and self.question.window is None else []

    @property
    def classes(self) -> list[tuple[int, str]]:
        """The classes that can be chosen, with what they are called."""
        names = class_names(self.module, self.question)
        labels = dict.fromkeys(drawing.choice.label for drawing in self.drawings)
        return [(label, names[label]) for label in labels if label is not None]

    @property
    def left_out(self) -> int:
        """How many classes more it knows than can be chosen here."""
        return len(present_classes(self.module)) - len(self.classes) if self.classes else 0

    @property
    def guidances(self) -> list[float]:
        """The strengths of guidance that can be chosen, ascending."""
        return sorted({own for drawing in self.drawings if (own := drawing.choice.guidance) is not None})

    @property
    def conditional(self) -> bool:
        """Whether its training was told the class of each datum."""
        return is_conditional(self.module)

    def why_not(self, capability: str) -> str:
        """Why it lacks a capability."""
        return why_not(self.family, capability, "image" if self.question.window is None else "points")

    def says(self, capability: str) -> str:
        """How it does what it can: for a likelihood, what kind it is of."""
        if capability not in self.can:
            return ""
        if capability != "log_prob":
            return "yes"
        return {"exact": "exact", "lower_bound": "a bound", "estimate": "estimated"}[self.module.log_prob_kind]


@dataclass
class Exhibition:
    """All of the page."""

    title: str
    kind: Modality  # "image" or "points"
    device: str
    seed: int
    exhibits: list[Exhibit]
    shown: list[Shown]  # one for each task
    columns: list[Column]

    capabilities = CAPABILITIES

    def compares(self, column: Column) -> bool:
        """Whether the models of each task were measured in one way; or all of them, where they are compared."""
        if column.key in OF_THE_MODEL:
            return column.compares([exhibit.figures for exhibit in self.exhibits])
        tasks = {exhibit.task for exhibit in self.exhibits}
        return all(column.compares([e.figures for e in self.exhibits if e.task == task]) for task in tasks)

    def marks_best(self, column: Column) -> bool:
        """Whether the best of a column is one of all that are on the page."""
        of_one_task = len(self.shown) == 1 or column.key in OF_THE_MODEL
        return of_one_task and self.compares(column)

    @property
    def apart(self) -> list[str]:
        """The titles of the columns of which that is not so."""
        return [column.title for column in self.columns if not self.compares(column)]

    @property
    def usual(self) -> int:
        """How many data an odd one is ranked among."""
        return len(self.exhibits[0].question.usual)

    @property
    def halves(self) -> tuple[str, str]:
        """What is known in each of the two completions."""
        return halves(self.kind)

    @cached_property
    def namesakes(self) -> dict[str, list[Exhibit]]:
        """The models that share a name, by that name: those of a run and of the zoo, say, by the same recipe."""
        named: dict[str, list[Exhibit]] = {}
        for exhibit in self.exhibits:
            named.setdefault(exhibit.entry.config["name"], []).append(exhibit)
        return {name: members for name, members in named.items() if len(members) > 1}

    @cached_property
    def banner(self) -> Picture | None:
        """Of images, a row of what one model of each family draws: what the page is about, at a glance."""
        first = {e.family.key: [*map(e.question.shown, e.drawn)] for e in reversed(self.exhibits) if e.drawn}
        if not first:
            return None
        each = max(1, BESIDE // len(first))
        images = [image for drawn in reversed(first.values()) for image in drawn[:each]]
        channels = max(map(len, images))  # ink among scans on paper stays as it is
        row = torch.stack([image.expand(channels, -1, -1) for image in images])[None]
        return still(sheet(row, zoom=zoom(row)), f"samples of {len(first)} families of models")

    @cached_property
    def quiz(self) -> list[dict[str, str]]:
        """Single images, real and drawn, each with whose it is: for "real or drawn?"; none where none was drawn.

        Those of one task are told apart, for whose levels differ is known at a glance.
        """
        pool = [
            (e.task, e.family.title, self.short(e), e.question.shown(image))
            for e in self.exhibits
            for image in e.drawn[:ASKED]
        ]
        questions = {e.task: e.question for e in self.exhibits if e.drawn}
        pool += [
            (task, "real", "real", asked.shown(image))
            for task, asked in questions.items()
            for image in asked.real[:QUIZ]
        ]
        return [
            {
                "task": task,
                "family": family,
                "name": name,
                "kind": "ink" if len(image) == 1 else "",
                "uri": png(sheet(image[None, None], zoom=zoom(image))),
            }
            for task, family, name, image in pool
        ]

    def said(self, sentence: str) -> str:
        """A sentence on a family, of these data."""
        return said(sentence, self.kind)

    def short(self, exhibit: Exhibit) -> str:
        """Its name; without the data's, where that is the same for all."""
        names = [e.name for e in self.exhibits]  # or, of models of one name, where they lie
        alike = all(map(NAME.fullmatch, names)) and len({name.partition("/")[0] for name in names}) == 1
        return exhibit.name.partition("/")[2] or exhibit.name if alike else exhibit.name

    def floor(self, column: Column) -> str:
        """What a perfect or a trivial model would score."""
        return floors(column, [exhibit.figures for exhibit in self.exhibits])

    def fill(self, exhibit: Exhibit) -> None:
        """Puts every question to one model."""
        module, question = exhibit.module.to(self.device), exhibit.question
        with torch.no_grad(), seeded(self.seed):
            if "samples" in exhibit.can:
                exhibit.drawings = list(drawings(module, question, exhibit.name, self.seed))
                if self.kind == "image":
                    find_nearest(exhibit.drawings, question)
                    pairs = exhibit.drawings[0].beside(BESIDE)
                    alt = f"{exhibit.name}: samples, and below each its nearest training image"
                    exhibit.neighbours = still(sheet(question.shown(pairs), zoom=zoom(pairs)), alt)
            exhibit.process, exhibit.process_kind = self._process(exhibit)
            if "completes" in exhibit.can:
                exhibit.completions = [self._completion(exhibit, axis) for axis in (0, 1)]
            if "interpolates" in exhibit.can and self.kind == "image":
                a, b = (x.to(self.device) for x in question.pairs)
                path = module.interpolate(a, b, STEPS).cpu().transpose(0, 1)
                shown = sheet(question.shown(path), zoom=zoom(path))
                exhibit.interpolation = still(shown, f"{exhibit.name}: interpolations")
        module.to("cpu")

    def judge(self, exhibit: Exhibit) -> None:
        """Asks one model, after all were filled, how odd it finds what was changed, and what the models drew.

        It judges samples of its own task alone: those of another are no data of its kind.
        """
        if self.kind != "image" or "anomalies" not in exhibit.can:
            return
        module = exhibit.module.to(self.device)
        with torch.no_grad(), seeded(self.seed):
            exhibit.oddness = judge(
                lambda x: module.anomaly_score(x.to(self.device)),
                [drawing for other in self.exhibits if other.task == exhibit.task for drawing in other.drawings],
                self.short(exhibit),
                exhibit.question,
            )
        module.to("cpu")

    # ---- how a sample comes about

    def _process(self, exhibit: Exhibit) -> tuple[Picture | None, str]:
        module, alt = exhibit.module, f"{exhibit.name}: "
        if "steps" in exhibit.can:
            return self._steps(exhibit, alt + "a sample comes about"), "a sample comes about"
        if {"latents", "interpolates"} <= exhibit.can and self.kind == "image":
            return self._walk(module, exhibit.question, alt + "a walk through the codes"), (
                "a walk through the codes"
            )
        learned = self._learning(exhibit, alt + "the generator learns")
        return (learned, "the generator learns") if learned else (None, "")

    def _steps(self, exhibit: Exhibit, alt: str) -> Picture:
        dims = exhibit.module.num_dims
        real = exhibit.question.real
        num, count = (FILMED, min(FRAMES, dims)) if self.kind == "image" else (len(real), min(FRAMES, 32))
        with seeded(self.seed) as generator:
            path = exhibit.module.sample_path(num, num_frames=count, generator=generator).cpu()
        first = exhibit.family.first
        percents = [100 * (k + first) / max(1, len(path) - 1 + first) for k in range(len(path))]
        captions = [
            exhibit.family.progress.format(percent=round(p), done=round(dims * p / 100), dims=dims) for p in percents
        ]
        return self._film(exhibit.question.shown(path), captions, alt, exhibit.question)

    def _walk(self, module: Any, question: Question, alt: str) -> Picture:
        """From each of eight data to the next, until it is back where it began."""
        stops = question.real[:FILMED].to(self.device)
        hops = 4  # along the circle
        legs = [
            module.interpolate(stops.roll(-hop, 0), stops.roll(-hop - 1, 0), FRAMES // hops + 1)[:-1].cpu()
            for hop in range(hops)
        ]
        captions = [
            f"{round(100 * k / len(leg))} % of the way from one image's code to the next"
            for leg in legs
            for k in range(len(leg))
        ]
        return self._film(question.shown(torch.cat(legs)), captions, alt, question)

    def _film(self, frames: Tensor, captions: Sequence[str], alt: str, question: Question) -> Picture:
        if question.window is not None:
            return film([ink(x, question.window) for x in frames], captions, alt)
        return film([sheet(x.unflatten(0, (2, -1))) for x in frames], captions, alt)

    def _learning(self, exhibit: Exhibit, alt: str) -> Picture | None:
        """The entry's film of its training: one row of pictures for each moment."""
        path, steps = file_of(exhibit.entry.path, LEARNING), exhibit.entry.metrics.get("training", {}).get("film")
        if path is None or not steps:
            return None
        from PIL import Image
        from torchvision.transforms.functional import pil_to_tensor

        with Image.open(path, formats=["PNG"]) as picture:  # Pillow would also run programs, for files of other kinds
            if picture.width * picture.height > FILM:
                raise ValueError(f"{path} has {picture.width} × {picture.height} pixels, too many for a film")
            pixels = pil_to_tensor(picture.convert("RGB"))
        captions = [f"after {step:,} training steps" for step in steps]
        if self.kind == "points":  # black on white: the darker, the denser
            rows = [255 - row.permute(1, 2, 0)[..., :1] for row in pixels.chunk(len(steps), dim=1)]
            return film([torch.cat([torch.full_like(ink, 255), ink], -1) for ink in rows], captions, alt)
        channels, height, width = exhibit.module.shape
        images = _tiles(pixels[:channels] / 255, len(steps), *frame_size(height, width))
        return self._film(exhibit.question.on_paper(images), captions, alt, exhibit.question)

    # ---- the rest

    def _completion(self, exhibit: Exhibit, half: int) -> tuple[Picture, str]:
        module, x = exhibit.module, exhibit.question.begun.to(self.device)
        known = half_known(x, half)
        with seeded(self.seed) as generator:
            options = supported(module.complete, num_samples=3, generator=generator)
            if self.kind == "points":
                options["num_samples"] = 1
            completed = module.complete(x, known, **options).cpu()
        exact = module.completion_kind(known) if hasattr(module, "completion_kind") else ""
        alt = f"{exhibit.name}: completions, {self.halves[half]} known"
        if self.kind == "points":
            return picture(completed[0], exhibit.question, alt), exact
        return still(sheet(exhibit.question.shown(completed), zoom=zoom(x)), alt), exact


def open_exhibition(
    entries: Sequence[Entry],
    *,
    data_of: Callable[[Entry], LightningDataModule],
    device: str,
    seed: int,
    allow: tuple[type, ...],
) -> Exhibition:
    """Loads the models and chooses the data that they are asked about; `write_page` says what is raised."""
    loaded: list[tuple[Entry, LightningModule]] = []
    for entry in entries:
        module = hub.load_found(entry, allow=allow)
        if capabilities_of(module) - {"anomalies"}:  # a classifier is no generative model, nor is a tokenizer
            loaded.append((entry, module))
    if not loaded:
        raise ValueError("none of these entries is a generative model: there is nothing to compare")
    if left := [entry.name for entry in entries if entry.name not in {entry.name for entry, _ in loaded}]:
        warn(f"no generative models, and not on the page: {', '.join(left)}", stacklevel=3)
    shapes = {tuple(entry.config.get("shape") or ()) for entry, _ in loaded}
    if len(shapes) > 1:
        raise ValueError(
            "a page compares models of data of one shape, but these have "
            + ", ".join(f"{tuple(entry.config.get('shape') or ())} ({entry.name})" for entry, _ in loaded)
        )
    shape = shapes.pop()
    kind = modality(shape, loaded[0][0].config.get("levels"))
    if kind not in ("image", "points") or (kind == "points" and shape != (2,)):
        raise ValueError(
            f"the page shows images and points in the plane, but {loaded[0][0].name} is of {kind} {shape}"
        )

    asked: dict[str, tuple[Question, str]] = {}  # by the data; with what these say of themselves
    shown: dict[str, Shown] = {}  # by the task
    first: dict[str, tuple[str, Question]] = {}  # the name of its first model, and what that is asked
    exhibits = []
    for entry, module in loaded:
        block, task = entry.config.get("data"), entry.task
        if str(block) not in asked:
            data = data_of(entry)
            if (own := tuple(getattr(data, "shape", shape))) != shape:
                raise ValueError(f"{entry.name} is of data of shape {shape}, but names data of shape {own}")
            data.prepare_data()
            data.setup("fit")  # samples are held against the training data
            asked[str(block)] = ask(data, seed), (inspect.getdoc(type(data)) or "").partition("\n")[0]
        question, about = asked[str(block)]
        if task not in shown:
            shown[task], first[task] = show(question, task, about), (entry.name, question)
        elif not torch.equal(question.usual, first[task][1].usual):
            raise ValueError(
                f"{first[task][0]} and {entry.name} have other test data (by their folder, or their test_fraction):"
                " a page puts the same questions to all models of a task"
            )
        figures = {figure["name"]: figure for figure in entry.metrics.get("figures", [])}
        exhibits.append(Exhibit(entry, task, module, family_of(module), question, capabilities_of(module), figures))
    return Exhibition(
        title=entries[0].config["name"].partition("/")[0],
        kind=kind,
        device=device,
        seed=seed,
        exhibits=[exhibit for _, members in in_order(exhibits) for exhibit in members],
        shown=list(shown.values()),
        columns=columns_of([e.figures for e in exhibits]),
    )


def _tiles(pixels: Tensor, rows: int, height: int, width: int) -> Tensor:
    """The images in a picture that `render` made: (C, ·, ·) to (rows, columns, C, height, width)."""
    pixels = pixels[:, GAP:, GAP:]
    zoomed = pixels.shape[1] // rows - GAP
    factor = zoomed // height
    columns = pixels.shape[2] // (width * factor + GAP)
    tiles = pixels.unflatten(1, (rows, -1)).unflatten(3, (columns, -1))  # (C, rows, H·z + GAP, columns, W·z + GAP)
    tiles = tiles[:, :, : height * factor : factor, :, : width * factor : factor]
    return tiles.permute(1, 3, 0, 2, 4)
