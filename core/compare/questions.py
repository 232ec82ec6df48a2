"""What the models of one task are asked about, and how these data are shown beside what they answer."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from operator import itemgetter

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor

from genzoo.compare.pictures import TILE, Picture, ink, sheet, still
from genzoo.metrics.anomalies import ODD
from genzoo.metrics.data import Rows
from genzoo.zoo.media import Window, window_of
from genzoo.zoo.value_range import ValueRange, range_of, to_unit

SAMPLES, COLUMNS = 36, 6  # real images, of each model as many samples, and images in a row of them
COMPLETED = 6  # data that are completed, three times each
PAIRS = 4  # of an interpolation
USUAL = 200  # data among which an odd one is ranked
CLOUD = 2000  # points that show where a density is


@dataclass
class Question:
    """The data that all models of one task are asked about."""

    levels: int | None
    real: Tensor  # what samples should look like
    training: Rows
    begun: Tensor  # to be completed
    pairs: tuple[Tensor, Tensor]  # to go between
    usual: Tensor  # to rank among
    odd: list[tuple[str, Tensor]]  # (how it was made, one image), the usual ones first
    window: Window | None  # where in the plane the points lie
    class_names: Sequence[str]  # what the data say that their classes are called, if they say so
    value_range: ValueRange | None = None  # of images

    @cached_property
    def inked(self) -> bool:
        """Whether they are grey and mostly black, like white ink, which a light page turns round."""
        return self.real.ndim == 4 and self.real.shape[1] == 1 and float(self.in_unit(self.real).mean()) < 0.5

    def shown(self, x: Tensor) -> Tensor:
        """Images, (…, C, H, W), as they are drawn: in [0, 1], and `on_paper`; points as they are."""
        return x if self.window is not None else self.on_paper(self.in_unit(x))

    def in_unit(self, x: Tensor) -> Tensor:
        """Images in [0, 1]."""
        return to_unit(x, self.value_range)

    def on_paper(self, x: Tensor) -> Tensor:
        """Images in [0, 1]; grey ones that are no ink in colour, which no page turns round."""
        return x if x.shape[-3] != 1 or self.inked else x.expand(*x.shape[:-3], 3, *x.shape[-2:])


@dataclass
class Shown:
    """What is shown of one task's data, beside the models' answers."""

    task: str
    about: str
    real: Picture
    asked: list[Picture]  # the two halves, with what they were taken from
    odd: list[tuple[str, list[Picture]]]  # by how they were made


def ask(data: LightningDataModule, seed: int) -> Question:
    """Data of the test split, chosen by the seed: the same for any datamodule with the same test images."""
    x = torch.cat(list(Rows(data, "test")))
    x = x[torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))]
    points, levels = x.ndim == 2, getattr(data, "levels", None)
    least = (CLOUD if points else SAMPLES) + USUAL
    x = torch.cat([x] * (-(-least // len(x))))  # a small split begins again
    window = None
    if points:
        centre, radius = window_of(x[:CLOUD])
        window = (centre, radius * 1.15)
    real = x[: CLOUD if points else SAMPLES]
    rest = x[len(real) :]
    begun = x[:CLOUD] if points else rest[:COMPLETED]
    ends = rest[COMPLETED : COMPLETED + 2 * PAIRS]
    usual = rest[-USUAL:]
    odd = []
    if not points and levels is not None:
        shown = x[: 3 + 2 * len(ODD)]
        odd = [("usual", image) for image in shown[:3]]
        for place, (name, make) in enumerate(ODD.items()):
            odd += [(name, image) for image in make(shown[3 + 2 * place : 5 + 2 * place], levels)]
    names = tuple(getattr(data, "class_names", None) or ())
    pairs = ends[:PAIRS], ends[PAIRS:]
    return Question(levels, real, Rows(data, "train"), begun, pairs, usual, odd, window, names, range_of(x))


def show(question: Question, task: str, about: str) -> Shown:
    """The data as the page shows them."""
    begun, asked = question.begun, []
    for half, name in enumerate(halves("image" if question.window is None else "points")):
        if question.window is None:
            known = half_known(begun, half)
            rows, mask = torch.stack([begun, begun]), torch.stack([known, torch.ones_like(known)])
            alt = f"{name} of six images, and the whole images"
            asked.append(still(sheet(question.shown(rows), mask, zoom=zoom(rows)), alt))
        else:
            asked.append(picture(begun, question, "the real points"))
    odd = []
    for made, images in groupby(question.odd, key=itemgetter(0)):
        word = "dark" if made == "faint" and not question.inked else made  # with less ink an image is faint
        odd.append((word, [still(sheet(question.shown(x)[None, None], zoom=zoom(x)), word) for _, x in images]))
    return Shown(task, about, picture(question.real, question, "real data"), asked, odd)


def halves(kind: str) -> tuple[str, str]:
    """The parts of which one is known, as `half_known` numbers them."""
    return ("the upper half", "the left half") if kind == "image" else ("the height", "the place across")


def picture(x: Tensor, question: Question, alt: str, columns: int = COLUMNS) -> Picture:
    """Images (N, C, H, W) as a sheet; points (N, 2) where they lie in the question's window."""
    if question.window is not None:
        return still(ink(x, question.window, 320), alt)
    return still(sheet(question.shown(x).unflatten(0, (-1, columns)), zoom=zoom(x)), alt)


def half_known(x: Tensor, half: int) -> Tensor:
    """(1, *shape), bool: the upper half (0) or the left half (1) of images; of points, y or x."""
    known = torch.zeros(1, *x.shape[1:], dtype=torch.bool, device=x.device)
    if x.ndim == 2:
        known[:, 1 - half] = True
    else:
        known.narrow(-2 + half, 0, x.shape[-2 + half] // 2).fill_(True)
    return known


def zoom(x: Tensor) -> int:
    """By how much a still picture of such images is enlarged."""
    return max(1, TILE // max(x.shape[-2:]))
