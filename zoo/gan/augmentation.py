"""Differentiable augmentation (Zhao et al. 2020): with few data, a discriminator soon knows them by heart.

It is shown real and generated images changed at random, in the same ways and by fresh draws each time, in its own
step and in the generator's. So it cannot tell the two by the change, and the generator, which learns through the
change, need not learn it. A function here takes images (B, C, H, W) in [−1, 1], draws for each of them on its own,
and is differentiable in them; amounts are the paper's.
"""

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from genzoo.zoo.randomness import uniform

Augment = Literal["color", "translation", "cutout"]


def color(x: Tensor) -> Tensor:
    """Adds up to ±0.5 to all of an image; multiplies its saturation by 0 to 2, then its contrast by 0.5 to 1.5.

    Saturation is the distance from the mean of a pixel's channels, of which one alone has none; contrast that from
    the mean of the image.
    """
    brightness, saturation, contrast = uniform((3, len(x), 1, 1, 1), like=x)
    x = x + (brightness - 0.5)
    grey = x.mean(1, keepdim=True)
    x = grey + 2 * saturation * (x - grey)
    mean = x.mean((1, 2, 3), keepdim=True)
    return mean + (0.5 + contrast) * (x - mean)


def translation(x: Tensor) -> Tensor:
    """Moves an image by up to an eighth of its size, in whole pixels; where nothing comes from, it is 0 (grey)."""
    for dim in (2, 3):
        size = x.shape[dim]
        most = (size + 4) // 8
        by = torch.randint(-most, most + 1, (len(x), 1), device=x.device)
        source = torch.arange(size, device=x.device) - by  # (B, size): where what comes here was
        inside = (source >= 0) & (source < size)
        along = [len(x), 1, 1, 1]
        along[dim] = size
        index = source.clamp(0, size - 1).view(along).expand(x.shape)
        x = x.gather(dim, index) * inside.view(along).to(x.dtype)
    return x


def cutout(x: Tensor) -> Tensor:
    """Sets a rectangle of half the height and width to 0, around any pixel: what of it is outside, is lost."""
    kept = torch.zeros(1, dtype=torch.bool, device=x.device)
    for dim in (2, 3):
        size = x.shape[dim]
        length = (size + 1) // 2
        # of an even length one place more, so that no side is cut more often than the other
        start = torch.randint(size + 1 - length % 2, (len(x), 1), device=x.device) - length // 2
        place = torch.arange(size, device=x.device)
        along = [len(x), 1, 1, 1]
        along[dim] = size
        kept = kept | ((place < start) | (place >= start + length)).view(along)
    return x * kept.to(x.dtype)


AUGMENTATIONS: dict[Augment, Callable[[Tensor], Tensor]] = {
    "color": color,
    "translation": translation,
    "cutout": cutout,
}


def augmented(x: Tensor, kinds: Sequence[Augment]) -> Tensor:
    """The images, (B, C, H, W) in [−1, 1], changed at random in each of these ways, one after the other."""
    for kind in kinds:
        x = AUGMENTATIONS[kind](x)
    return x


def check_kinds(kinds: Sequence[Augment], modality: str) -> tuple[Augment, ...]:
    """Raises ValueError unless these are names of augmentations, each once, and for images."""
    known = get_args(Augment)
    if isinstance(kinds, str) or set(kinds) - set(known) or len(set(kinds)) < len(kinds):
        raise ValueError(f"augment={kinds!r}: give a list of some of {', '.join(map(repr, known))}, each once.")
    if kinds and modality != "image":
        raise ValueError(f"augment={list(kinds)}: only images are augmented, but the data are {modality}.")
    return tuple(kinds)
