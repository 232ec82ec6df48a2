"""From a batch of data to something that can be looked at: written to a file and sent to a logger.

A medium is one class with a `suffix`, `write(path)` and `send(logger, key, step)`, and one branch of `render`. The
callbacks know no more than that.
"""

import csv
import io
import math
import operator
import tempfile
import wave
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
from torch import Tensor
from torch.nn.functional import pad

from genzoo.zoo.drawing import draw, supported
from genzoo.zoo.files import whole
from genzoo.zoo.interface import Samples
from genzoo.zoo.mixins import ConditionalMixin, is_conditional, present_classes
from genzoo.zoo.value_range import plain_range, to_unit

GAP = 2  # pixels between the tiles of a grid
MIN_TILE = 64  # a smaller picture is enlarged by a whole factor, up to about this many pixels
CAPTION = 12  # pixels below each tile, where it has one
PAUSE = 0.25  # seconds of silence between one sound and the next
SAMPLE_RATE = 16_000  # Hz, of sounds whose module does not say
CURVE = (192, 96)  # pixels of a tile with a series, across and down
INKS = ("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b")  # of a series' channels
RULE = "\n" + 40 * "-" + "\n"  # between one text and the next


class Medium(Protocol):
    """What `render` makes."""

    suffix: str

    def write(self, path: Path) -> None:
        """Writes the file, whole or not at all."""

    def send(self, logger: Logger, key: str, step: int) -> None:
        """Hands it to the logger, if that logger takes this kind of medium."""


@dataclass
class Picture:
    """An RGB picture: uint8, (height, width, 3)."""

    pixels: Tensor
    suffix: str = ".png"

    def write(self, path: Path) -> None:
        """Writes a PNG under a temporary name and renames it."""
        from PIL import Image

        with whole(path) as temporary:
            Image.fromarray(self.pixels.numpy()).save(temporary, format="PNG")

    def send(self, logger: Logger, key: str, step: int) -> None:
        """Sends the pixels to wandb or TensorBoard, as uint8: wandb would cast floats to 0 or 1."""
        if isinstance(logger, WandbLogger):
            logger.log_image(key, [self.pixels.numpy()], step=step)
        elif isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image(key, self.pixels, global_step=step, dataformats="HWC")


@dataclass
class Sound:
    """Sounds one after another, with a short pause between: (N, T) in [−1, 1], values beyond are clipped."""

    clips: Tensor
    sample_rate: int
    suffix: str = ".wav"

    @property
    def samples(self) -> Tensor:
        """(L,), int16."""
        pause = round(PAUSE * self.sample_rate)
        line = pad(self.clips.nan_to_num(0), (0, pause)).flatten()[: -pause or None]
        return (line * 2**15).round().clamp(-(2**15), 2**15 - 1).to(torch.int16)

    def write(self, path: Path) -> None:
        """Writes a WAV of 16-bit PCM under a temporary name and renames it."""
        with whole(path) as temporary, wave.open(str(temporary), "wb") as file:
            file.setparams((1, 2, self.sample_rate, 0, "NONE", ""))
            file.writeframes(self.samples.numpy().astype("<i2").tobytes())

    def send(self, logger: Logger, key: str, step: int) -> None:
        """Sends it to wandb, which takes a file's bytes as they are, or to TensorBoard."""
        if isinstance(logger, WandbLogger):
            import wandb

            with tempfile.TemporaryDirectory() as folder:
                self.write(file := Path(folder) / f"{key}.wav")
                # alone: a list of sounds, as log_audio makes it, is refused where there is no `soundfile`
                logger.log_metrics({key: wandb.Audio(str(file))}, step=step)  # type: ignore[dict-item]
        elif isinstance(logger, TensorBoardLogger):
            line = self.samples.float()[None] / 2**15
            logger.experiment.add_audio(key, line, global_step=step, sample_rate=self.sample_rate)


@dataclass
class Text:
    """Texts one after another, with a line between."""

    texts: list[str]
    suffix: str = ".txt"

    def write(self, path: Path) -> None:
        """Writes UTF-8 under a temporary name and renames it."""
        with whole(path) as temporary:
            temporary.write_text(RULE.join(self.texts) + "\n", encoding="utf-8", newline="")

    def send(self, logger: Logger, key: str, step: int) -> None:
        """Sends a table of them to wandb, or to TensorBoard as Markdown that shows each line as it is."""
        if isinstance(logger, WandbLogger):
            logger.log_text(key, columns=["text"], data=[[text] for text in self.texts], step=step)
        elif isinstance(logger, TensorBoardLogger):
            code = "".join(f"    {line}\n" for line in RULE.join(self.texts).split("\n"))
            logger.experiment.add_text(key, code, global_step=step)


@dataclass
class Rows:
    """Numbers, of a table or of series: for files alone, so that it is no `Medium`.

    Args:
        x: (N, D), or, where they are written as .npy, of any shape; float64, or taken as float32.
        names: of the columns; None calls them x1, x2, ….
        classes: what each row is of, the last column of a .csv.
        label: what that column is called.
    """

    x: Tensor
    names: Sequence[str] | None = None
    classes: Sequence[str] | None = None
    label: str = "class"
    suffix: str = ".csv"

    def write(self, path: Path) -> None:
        """Writes a .csv, whose first line names the columns, with as many digits as tell a number; or a .npy."""
        x = self.x.numpy() if self.x.dtype == torch.float64 else self.x.float().numpy()
        with whole(path) as temporary, open(temporary, "wb") as file:
            if path.suffix.lower() == ".npy":
                np.save(file, x)
            else:
                writer = csv.writer(text := io.TextIOWrapper(file, "utf-8", newline=""), lineterminator="\n")
                names = [*(self.names or [f"x{i + 1}" for i in range(x.shape[1])])]
                cells = ([cell.removesuffix(".0") for cell in row] for row in x.astype(str).tolist())
                if self.classes is None:
                    writer.writerows([names, *cells])
                else:
                    writer.writerows([[*names, self.label], *map(operator.add, cells, ([c] for c in self.classes))])
                text.detach()


def can_render(x: Tensor) -> bool:
    """Whether it can be shown: images (N, 1 or 3, H, W), sounds, series (N, C, T), points (N, 2), tokens (N, T)."""
    shape = tuple(x.shape[1:])
    if x.dtype == torch.int64:
        return len(shape) == 1
    return shape == (2,) or len(shape) == 2 or (len(shape) == 3 and shape[0] in (1, 3))


def render(x: Tensor, columns: int = 8, module: Any = None, captions: Sequence[str] | None = None) -> Medium:
    """Shows a batch: images and series as a grid, points in the plane as a picture of where they lie, sound, text.

    Args:
        x: (N, C, H, W) in [0, 1] with C = 1 or 3, values beyond are clipped; or (N, 2); or series, (N, C, T); or
            sounds, (N, 1, T) in [−1, 1]; or tokens, (N, T) int64.
        columns: images in one row of the grid.
        module: knows whether it is of sounds or of series of one channel (`modality`; sounds, unless it says so), how
            fast its sounds are played (`sample_rate`, in Hz) and what its tokens mean (`text(ids)`). Tokens whose
            meaning is unknown are shown as numbers.
        captions: of images and series, N words or few, each shown as far as its tile is wide.

    Raises:
        ValueError: for data of another shape.
    """
    if not can_render(x):
        raise ValueError(
            f"Data of shape {tuple(x.shape[1:])} cannot be shown; images (1 or 3, H, W), sounds (1, T), series"
            " (C, T), points (2,) and int64 tokens (T,) can."
        )
    x = x.detach().cpu()
    if x.dtype == torch.int64:
        text = getattr(module, "text", None) or (lambda ids: " ".join(map(str, ids.tolist())))
        return Text([text(row) for row in x])
    x = x.float()
    if x.ndim == 3 and x.shape[1] == 1 and getattr(module, "modality", None) != "series":
        return Sound(x.squeeze(1), rate_of(module))
    if x.ndim == 3:
        return Picture(_grid(curves(x), columns, captions))
    return Picture(_grid(x, columns, captions) if x.ndim == 4 else density(x))


def rate_of(module: Any) -> int:
    """How fast a model's sounds are played, in Hz."""
    return getattr(module, "sample_rate", None) or SAMPLE_RATE


def labels_to_show(module: Any, num_samples: int) -> Tensor | None:
    """(N,) int64, the classes of samples that are drawn to be looked at; None leaves them to the model.

    Of a conditional model whose classes have names that is each class in turn, as often as the others to within one
    sample, but for those that it has never seen.
    """
    names: Sequence[str] = getattr(module, "class_names", ())
    if not names or not is_conditional(module):
        return None
    classes = torch.tensor(present_classes(module))
    labels = classes[torch.arange(num_samples) * len(classes) // max(num_samples, len(classes))]
    return supported(module.sample, labels=labels).get("labels")


def captions_of(module: Any, labels: Tensor | None) -> list[str] | None:
    """What samples of these classes, (N,), are called; None where they are not chosen or have no names."""
    names = getattr(module, "class_names", ())
    return [names[label] for label in labels.tolist()] if names and labels is not None else None


@torch.inference_mode()
def samples_of(
    module: Any, num_samples: int, seed: int, *, labels: Tensor | None = None, **options: Any
) -> Medium | None:
    """`sample(num_samples, **options)` for a fixed seed; None for a module without samples that can be shown.

    Where nobody says of which classes they are (`labels`), `labels_to_show` does.
    """
    if not isinstance(module, Samples):
        return None
    x, labels = _drawn(module, num_samples, seed, labels, options)
    if x.ndim == 4:
        x = to_unit(x, plain_range(x))
    columns = max(1, round(num_samples**0.5))
    return render(x, columns, module, captions_of(module, labels)) if can_render(x) else None


@torch.inference_mode()
def rows_of(
    module: Any, num_samples: int, seed: int, *, labels: Tensor | None = None, **options: Any
) -> "Rows | None":
    """Samples as numbers, where a datum is a row of them, in the data's own units; None for a module without.

    They are there to be counted, not looked at: where nobody says of which classes they are (`labels`), these are
    drawn as the model draws them.
    """
    if not isinstance(module, Samples):
        return None
    if labels is None and isinstance(module, ConditionalMixin) and is_conditional(module):
        generator = torch.Generator().manual_seed(seed)
        labels = module.labels_to_sample(None, num_samples, torch.zeros(()), generator)
    given = {} if labels is None else {"labels": labels}
    x = draw(partial(module.sample, **given, **options), num_samples, seed).cpu()
    called = captions_of(module, labels) or (None if labels is None else [str(label) for label in labels.tolist()])
    return Rows(x, classes=called)


def _drawn(
    module: Any, num_samples: int, seed: int, labels: Tensor | None, options: dict[str, Any]
) -> tuple[Tensor, Tensor | None]:
    """Samples, and of which classes they are, where somebody chose."""
    labels = labels_to_show(module, num_samples) if labels is None else labels
    options = options if labels is None else {"labels": labels, **options}
    return draw(partial(module.sample, **options), num_samples, seed), labels


def _grid(images: Tensor, columns: int, captions: Sequence[str] | None = None) -> Tensor:
    n, _, height, width = images.shape
    pixels = (images.nan_to_num(0).clamp(0, 1) * 255).round().to(torch.uint8).expand(n, 3, height, width)
    zoom = max(1, MIN_TILE // max(height, width))
    pixels = pixels.repeat_interleave(zoom, -1).repeat_interleave(zoom, -2)
    if captions is not None:
        strips = torch.stack([_caption(caption, pixels.shape[-1]) for caption in captions])
        pixels = torch.cat([pixels, strips[:, None].expand(-1, 3, -1, -1)], dim=2)
    rows = math.ceil(n / columns)
    tiles = pad(pixels, (0, GAP, 0, GAP, 0, 0, 0, rows * columns - n), value=128)  # missing tiles are grey
    tiles = tiles.unflatten(0, (rows, columns)).permute(0, 3, 1, 4, 2).flatten(2, 3).flatten(0, 1)
    return pad(tiles.permute(2, 0, 1), (GAP, 0, GAP, 0), value=128).permute(1, 2, 0).contiguous()


def _caption(text: str, width: int) -> Tensor:
    """Black on white, uint8 (CAPTION, width); what has no room ends in an ellipsis."""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(size=10)
    shown = text
    while font.getlength(shown) > width - 2 and len(shown) > 1:
        shown = shown.rstrip("…")[:-1].rstrip() + "…"
    strip = Image.new("L", (width, CAPTION), 255)
    ImageDraw.Draw(strip).text((1, 0), shown, fill=0, font=font)
    return torch.frombuffer(bytearray(strip.tobytes()), dtype=torch.uint8).view(CAPTION, width)


def curves(series: Tensor) -> Tensor:
    """A tile for each series, a coloured line for each of its channels, all on one scale of values.

    Args:
        series: (N, C, T); a line is broken where it is not finite.

    Returns:
        (N, 3, h, w) in [0, 1].
    """
    from PIL import Image, ImageDraw

    width, height, fine = *CURVE, 3  # drawn as many times as large, as PIL's lines have steps
    finite = series[series.isfinite()]
    low, high = (finite.min(), finite.max()) if len(finite) else (torch.zeros(()), torch.ones(()))
    down = (1 - (series - low) / (high - low).clamp_min(1e-12)) * (fine * (height - 5)) + 2 * fine
    across = torch.linspace(2 * fine, fine * (width - 3), series.shape[2])
    tiles = []
    for one in down:
        tile = Image.new("RGB", (fine * width, fine * height), "white")
        pen = ImageDraw.Draw(tile)
        for channel, line in enumerate(one):
            ends = [(x, y) if math.isfinite(y) else None for x, y in zip(across.tolist(), line.tolist(), strict=True)]
            ink = INKS[channel % len(INKS)]
            for x, y in filter(None, ends):  # of which one alone has no line
                pen.ellipse((x - fine / 2, y - fine / 2, x + fine / 2, y + fine / 2), fill=ink)
            for begin, end in pairwise(ends):
                if begin is not None and end is not None:
                    pen.line((*begin, *end), ink, fine)
        small = tile.resize((width, height), Image.Resampling.BOX)
        tiles.append(torch.frombuffer(bytearray(small.tobytes()), dtype=torch.uint8).view(height, width, 3))
    return torch.stack(tiles).permute(0, 3, 1, 2) / 255


Window = tuple[Tensor, Tensor]  # centre (2,) and half the side of what a picture of points shows, or (2,) halves
LONG = 4  # times as much that one column spans than the other: they are of other units, and no square shows both


def window_of(points: Tensor) -> Window:
    """The square that holds all finite points, (N, 2); where their columns are of other units, a rectangle."""
    points = points[points.isfinite().all(1)]
    if len(points) == 0:
        return torch.zeros(2), torch.ones(())
    low, high = points.min(0).values, points.max(0).values
    half = ((high - low) / 2).clamp_min(1e-6) * 1.05
    return (low + high) / 2, half if half.max() > LONG * half.min() else half.max()


def density(points: Tensor, size: int = 384, window: Window | None = None) -> Tensor:
    """Where points in the plane lie: black on white, y upwards.

    Args:
        points: (N, 2), float; those outside the window are left out.
        size: pixels on each side.
        window: what is shown; None shows all of them.

    Returns:
        uint8, (size, size, 3).
    """
    centre, radius = window or window_of(points)
    points = points[(points.isfinite() & ((points - centre).abs() <= radius)).all(1)]
    if len(points) == 0:
        return torch.full((size, size, 3), 255, dtype=torch.uint8)
    cells = (((points - centre) / radius + 1) / 2 * (size - 3)).long() + 1
    counts = torch.zeros(size, size)
    counts.index_put_((size - 1 - cells[:, 1], cells[:, 0]), torch.ones(len(points)), accumulate=True)
    # A dot of one pixel would hardly be seen: every point covers 3 × 3.
    counts = torch.nn.functional.avg_pool2d(counts[None], 3, stride=1, padding=1, divisor_override=1)[0]
    ink = (counts / counts[counts > 0].quantile(0.9).clamp_min(1)).clamp(0, 1).sqrt()
    return (255 * (1 - ink)).round().to(torch.uint8)[..., None].repeat(1, 1, 3)
