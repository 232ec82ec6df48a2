"""A film of the generator learning: the same few samples, again and again while it trains."""

from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.nn import functional as F

from genzoo.zoo.drawing import draw
from genzoo.zoo.interface import Samples
from genzoo.zoo.media import Medium, Picture, density, render, window_of
from genzoo.zoo.value_range import plain_range, to_unit


class Film:
    """At most `length` frames, spread evenly over however long training takes: when it is full, every second frame is
    dropped, and from then on only every second one taken.

    A frame is what `sample` draws from one seed: eight images, or enough points to see where they lie. Images of more
    than 32 pixels a side are shown smaller, each pixel the mean of 2 × 2 of theirs, or 3 × 3, and so on: there are
    many in a film. A module that does not sample, or whose data cannot be shown, has a film without frames.

    Args:
        length: most frames that are kept.
        seed: of the samples.
    """

    def __init__(self, length: int = 24, seed: int = 0) -> None:
        self.length, self.seed = length, seed
        self.steps: list[int] = []  # of training, one for each frame
        self.frames: list[Tensor] = []
        self._every = 1
        self._offered = 0

    @torch.no_grad()
    def take(self, module: LightningModule, step: int, *, last: bool = False) -> None:
        """Offers a frame of the module as it is, in evaluation mode.

        The last one is always kept, as the end of the film: what was taken of later steps is cut off.
        """
        shape = tuple(getattr(module, "shape", ()))
        if not isinstance(module, Samples) or not (shape == (2,) or (len(shape) == 3 and shape[0] in (1, 3))):
            return
        self._offered += 1
        if not last and (self._offered - 1) % self._every:
            return
        if last:
            self.steps = [s for s in self.steps if s < step]
            self.frames = self.frames[: len(self.steps)]
        if len(self.frames) >= self.length:
            self.steps, self.frames, self._every = self.steps[::2], self.frames[::2], 2 * self._every
            if (self._offered - 1) % self._every and not last:
                return
        x = draw(module.sample, 8 if len(shape) == 3 else 1024, self.seed).float().cpu()
        x = smaller(to_unit(x, plain_range(x))) if x.ndim == 4 else x
        self.steps.append(step)
        self.frames.append((x.clamp(0, 1) * 255).round().to(torch.uint8) if x.ndim == 4 else x)

    def picture(self, real: Tensor | None = None) -> Medium | None:
        """One row for each frame, the first at the top; None where there is no frame.

        Points are shown where the `real` ones lie, (N, 2), so that one sees what a collapsed generator has lost;
        without them, where those of the last frame lie.
        """
        if not self.frames:
            return None
        if self.frames[0].ndim == 4:
            return render(torch.cat(self.frames) / 255, columns=8)
        window = window_of(self.frames[-1] if real is None else real)
        return Picture(torch.cat([density(frame, 128, window) for frame in self.frames]))

    def state_dict(self) -> dict[str, Any]:
        """What an interrupted run goes on from."""
        return {"steps": self.steps, "frames": self.frames, "every": self._every, "offered": self._offered}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes over the frames of the interrupted run."""
        self.steps, self.frames = list(state["steps"]), list(state["frames"])
        self._every, self._offered = state["every"], state["offered"]


def smaller(x: Tensor) -> Tensor:
    """Images of at most 32 pixels a side, by means of squares of pixels."""
    factor = _times(x.shape[2:])
    return x if factor == 1 else F.avg_pool2d(x, factor, ceil_mode=True)


def frame_size(height: int, width: int) -> tuple[int, int]:
    """Of how many rows and columns an image of so many is in a film."""
    factor = _times((height, width))
    return -(-height // factor), -(-width // factor)


def _times(size: Sequence[int]) -> int:
    return -(-max(size) // 32)
