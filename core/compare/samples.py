"""What a model draws for each choice of its controls, and what there is to know about each of these samples.

A choice, of a class and of how strongly to guide towards it, is a draw of its own. All begin from one seed, so that
they differ by what was chosen. Of every image it is told which training image it is nearest to, and how odd it is to
each of the models: whether it was learned by heart, and whether anybody notices that it was drawn.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from genzoo.compare.pictures import Picture, gap_of
from genzoo.compare.questions import COLUMNS, Question, picture, zoom
from genzoo.metrics.copying import nearest_data
from genzoo.zoo.drawing import arguments_of, draw
from genzoo.zoo.mixins import is_conditional, present_classes
from genzoo.zoo.modality import to_grid

EACH, SIDE = 4, 2  # samples of one class, and images in a row of them
CLASSES = 20  # most classes to choose among
GUIDANCES = (1.0, 2.0, 4.0)  # to choose among; at 1 the model is as it was trained


@dataclass(frozen=True)
class Choice:
    """What is chosen of a model's controls; None is what the model does by itself."""

    label: int | None = None
    guidance: float | None = None

    def options(self, num_samples: int) -> dict[str, Any]:
        """The arguments of `sample`."""
        labels = {} if self.label is None else {"labels": torch.full((num_samples,), self.label)}
        return labels if self.guidance is None else labels | {"guidance": self.guidance}


@dataclass
class Drawing:
    """The samples of one choice."""

    choice: Choice
    chosen: str  # what was, in words
    x: Tensor  # (N, *shape)
    columns: int  # of the picture
    picture: Picture
    neighbours: Tensor | None = None  # (N, *shape), the training data that they are nearest to
    nearest: Picture | None = None  # of these, laid out as the samples are
    scores: dict[str, Tensor] = field(default_factory=dict)  # by model: (N,), the anomaly score
    shares: dict[str, Tensor] = field(default_factory=dict)  # by model: (N,), of usual data that are less odd

    def beside(self, num: int) -> Tensor:
        """(2, num, *shape), the first samples, and the training data that they are nearest to."""
        assert self.neighbours is not None
        return torch.stack([self.x[:num], self.neighbours[:num]])

    @property
    def as_data(self) -> dict[str, Any]:
        """What the page's script needs to know of it, beside the picture."""
        return {
            "label": self.choice.label,
            "guidance": self.choice.guidance,
            "chosen": self.chosen,
            "columns": self.columns,
            "count": len(self.x),
            "gap": gap_of(zoom(self.x)),
            "nearest": self.nearest and self.nearest.uri,
            "scores": [
                {
                    "name": name,
                    "scores": [f"{score:.4g}" for score in scores.tolist()],
                    "odder": [round(100 * share) for share in self.shares[name].tolist()],
                }
                for name, scores in self.scores.items()
            ],
        }


def class_names(module: Any, question: Question) -> list[str]:
    """What the model's classes are called: as it says, as its data say, or by their numbers; none without classes."""
    if not is_conditional(module):
        return []
    for names in (getattr(module, "class_names", ()), question.class_names):
        if len(names) == module.num_classes:
            return list(names)
    return [f"class {number}" for number in range(module.num_classes)]


def choices(module: Any) -> list[Choice]:
    """Of all that its `sample` takes, what it does by itself first.

    Guidance is the way from "no class" to a class, so that it needs a model that was told classes.
    """
    if not is_conditional(module):
        return [Choice()]
    takes = arguments_of(module.sample)
    guidances = dict.fromkeys((getattr(module, "guidance", 1.0), *GUIDANCES)) if "guidance" in takes else (None,)
    labels = [None, *present_classes(module)[:CLASSES]] if "labels" in takes else [None]
    return [Choice(label, guidance) for guidance in guidances for label in labels]


def drawings(module: Any, question: Question, name: str, seed: int) -> Iterator[Drawing]:
    """What the model draws for each of its choices: as many as there are real data, and fewer images of one class."""
    names, images = class_names(module, question), question.window is None
    for choice in choices(module):
        one_class = images and choice.label is not None
        num, columns = (EACH, SIDE) if one_class else (len(question.real), COLUMNS)
        x = draw(partial(module.sample, **choice.options(num)), num, seed).cpu()
        if images and not x.isfinite().all():
            raise ValueError(f"{name} draws images that hold NaN or infinite values: leave it out")
        label = [] if choice.label is None else [names[choice.label]]
        guidance = [] if choice.guidance in (None, 1) else [f"guidance {choice.guidance:g}"]
        chosen = ", ".join(label + guidance)
        alt = f"{name}: samples{' of ' if chosen else ''}{chosen}"
        yield Drawing(choice, chosen, x, columns, picture(x, question, alt, columns))


def find_nearest(drawn: Sequence[Drawing], question: Question) -> None:
    """Finds the nearest training datum of every sample, in one walk through the training data."""
    sizes = [len(drawing.x) for drawing in drawn]
    found = nearest_data(torch.cat([drawing.x for drawing in drawn]), question.training).split(sizes)
    for drawing, neighbours in zip(drawn, found, strict=True):
        drawing.neighbours = neighbours
        drawing.nearest = picture(neighbours, question, "the training images nearest to these", drawing.columns)


def judge(score: Callable[[Tensor], Tensor], judged: Sequence[Drawing], name: str, question: Question) -> list[float]:
    """Asks one model how odd the samples of all are, and the data of the question.

    Args:
        score: its anomaly score, of (B, *shape).
        judged: the samples; their scores are put there.
        name: of the model.
        question: whose usual data each one is ranked among.

    Returns:
        The shares of usual data that each odd one of the question scores above.
    """
    odd, samples = [image[None] for _, image in question.odd], [drawing.x for drawing in judged]
    if question.levels is not None:  # a model of anybody's may draw what lies between two levels: it is shown rounded
        samples = [to_grid(x, question.levels) for x in samples]
    x = torch.cat([question.usual, *odd, *samples])
    scores = torch.cat([score(part).cpu().double() for part in x.split(64)])
    usual, of_odd, *of_samples = scores.split([len(question.usual), len(odd), *map(len, samples)])
    for drawing, own in zip(judged, of_samples, strict=True):
        drawing.scores[name], drawing.shares[name] = own, shares(own, usual)
    return shares(of_odd, usual).tolist()


def shares(scores: Tensor, usual: Tensor) -> Tensor:
    """(N,), of usual scores, (M,), the share that each score is above; equal ones count one half."""
    above = (scores[:, None] > usual).double() + 0.5 * (scores[:, None] == usual).double()
    return above.mean(1)
