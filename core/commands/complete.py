"""`genzoo complete`: what a model puts where a picture, sound, text, table or series of one's own is unknown."""

import re
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from inspect import signature
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple

from genzoo.arguments import add_machine, add_model, device, load, not_over, note, ready
from genzoo.commands.sample import TABLES, add_settings, keywords, names_of_columns
from genzoo.zoo.files import at_home
from genzoo.zoo.hub.wording import blamed_on

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from torch import Tensor

    from genzoo.own_data import OwnData
    from genzoo.zoo.media import Medium, Rows

EXAMPLE = "genzoo complete mnist/vae seven.png --known upper"
SAYS = "fill in what is missing of your own file"

HALVES = {
    "upper": (-2, 0),
    "lower": (-2, 1),
    "left": (-1, 0),
    "right": (-1, 1),
}  # which dimension, which of its halves
WHITE = 250  # of 255: what a mask must reach to be known
UNKNOWN = 0.5  # the grey that shows what is not known
AT_ONCE = 256  # rows of a table that are filled in together
SHOWN = 16  # series in a picture


def add_arguments(parser: ArgumentParser) -> None:
    """By which model, of what, what is known of it, and where to."""
    add = parser.add_argument
    add_model(parser)
    add("file", help="a picture, a sound, a text, or a table or series with gaps (empty cells; NaN)")
    add(
        "--known",
        help="of a picture upper, lower, left, right or box:x,y,w,h (in the model's pixels, from the upper left);"
        " of a sound its beginning, as 0.5s; of a text how many characters (default: all, it goes on from there), or"
        " where the model fills gaps which tokens, as :40,80:; of a series how many of its times",
    )
    add("--mask", help="of a picture instead: another of the same size, white where it is known")
    add("--num_samples", type=int, default=3, help="how many completions (default: 3)")
    add(
        "--out",
        help="the file to write (default: completed.png, or .wav, .txt or .csv; of tables and series also .npy)",
    )
    add("--seed", type=int, default=0, help="the same seed gives the same completions (default: 0)")
    add_settings(parser, "complete", "labels='[3]'; of a text `sample`'s: temperature=0.8, length=500")
    add_machine(parser)


def run(given: Namespace) -> None:
    """Completes a picture, sound, text, table or series, and shows what was known beside what was filled in."""
    from genzoo.compare.families import cannot
    from genzoo.own_data import OwnData, existing
    from genzoo.zoo.drawing import seeded
    from genzoo.zoo.interface import Completes
    from genzoo.zoo.media import Rows

    file = existing(given.file)
    if file.is_dir():
        raise ValueError(f"{file} is a folder: name a single file")
    if given.num_samples < 1:
        raise ValueError(f"--num_samples {given.num_samples}: give 1 or more")
    entry, module = load(given)
    if not isinstance(module, Completes):
        raise ValueError(cannot(module, "completes"))
    own = OwnData(module, names_of_columns(entry, module))
    of_rows = own.kind in ("points", "series")
    if given.mask and own.kind != "image":
        instead = "leave empty what is unknown" if own.kind == "points" else "give --known"
        raise ValueError(f"--mask {given.mask}: that is for pictures, but {given.model} is of {own.kind}; {instead}")
    make, suffixes = MAKERS[own.kind]
    out = ready(given.out or f"completed{suffixes[0]}", suffixes=suffixes)
    not_over(out, [file, *([at_home(given.mask)] if given.mask else [])])
    own.say()
    raw: Any = with_gaps(own, file, given) if of_rows else own.raw(file)
    with blamed_on(given.model), seeded(given.seed) as generator:
        medium: Any = make(own, raw, given, generator)
    if isinstance(medium, Rows):
        medium.names = own.columns
    medium.write(out)
    print(out)


def completed(own: "OwnData", x: "Tensor", known: "Tensor", given: Namespace, generator: Any) -> "Tensor":
    """(num_samples, *shape), on the CPU: completions of one datum."""
    return all_completed(own, x[None], known[None], given, generator)[:, 0]


def all_completed(
    own: "OwnData", x: "Tensor", known: "Tensor", given: Namespace, generator: Any, labels: int = 1
) -> "Tensor":
    """(num_samples, B, *shape), on the CPU: completions of many data, some at a time.

    Args:
        own: whose model completes.
        x: (B, *shape).
        known: (B, …), bool.
        given: what the command was given.
        generator: of all noise.
        labels: how many classes are to be stated, of which the first B are those of x; or one for all.

    Raises:
        ValueError: if the model does not take the settings, or makes of these data no numbers.
    """
    import torch

    from genzoo.datamodules.reading import with_bar

    complete = own.module.complete
    without = ("x", "known", "num_samples", "generator")
    settings = keywords(given.set, complete, without, getattr(own.module, "class_names", ()), labels)
    classes = settings.pop("labels", None)
    if classes is not None and len(classes) != labels:
        raise ValueError(f"--set labels: {len(classes)} classes of {labels} data; give one, or one for each")
    at = device(given)

    def parts() -> "Iterator[Tensor]":
        for start in range(0, len(x), AT_ONCE):
            here = slice(start, start + AT_ONCE)
            told = {} if classes is None else {"labels": classes[: len(x)][here]}
            yield complete(
                x[here].to(at),
                known[here].to(at),
                num_samples=given.num_samples,
                generator=generator,
                **settings,
                **told,
            ).cpu()

    try:
        filled = torch.cat(list(with_bar(parts(), -(-len(x) // AT_ONCE), "complete")), 1)
    except TypeError as error:  # of a value that was given, and could be read, but is not what the model takes
        raise ValueError(f"--set {' '.join(given.set)}: {error}") from error
    if not filled.isfinite().all():
        raise ValueError(
            "the model makes of these data no finite numbers: are they in the units, and of the size, of its own?"
        )
    return filled


def picture(own: "OwnData", raw: Any, given: Namespace, generator: Any) -> "Medium":
    """What is known, on grey, then the completions, side by side."""
    import torch

    from genzoo.zoo.media import render

    x = own.fitted(raw)
    known = mask_of(given, own.shape)
    filled = completed(own, x, known, given, generator)
    return render(torch.cat([torch.where(known, x, UNKNOWN)[None], filled]), given.num_samples + 1)


def mask_of(given: Namespace, shape: tuple[int, ...]) -> "Tensor":
    """(1, H, W), bool: the pixels of the model's that are known.

    Raises:
        ValueError: if it is not said which, or that cannot be.
    """
    import torch

    from genzoo.datamodules.folder import decode, upright_size
    from genzoo.own_data import existing

    _, height, width = shape
    if (given.mask is None) == (given.known is None):
        raise ValueError(
            "say what is known of the picture: --known upper, lower, left, right or box:x,y,w,h; or --mask FILE"
        )
    if given.mask is not None:
        sizes = [upright_size(existing(path)) for path in (given.mask, given.file)]
        if sizes[0] not in (sizes[1], (width, height)):
            (w, h), (own_w, own_h) = sizes
            raise ValueError(
                f"--mask {given.mask} has {w} × {h} pixels, but {given.file} has {own_w} × {own_h}: a mask is of the"
                f" picture's size (or of the model's, {width} × {height})"
            )
        known = torch.from_numpy(decode(at_home(given.mask), (1, height, width)) >= WHITE)
        if bool(known.all()):
            raise ValueError(f"--mask {given.mask} is white all over: nothing is left to fill in; paint that black")
        if not bool(known.any()):
            raise ValueError(f"--mask {given.mask} is white nowhere: nothing is known; paint white what is")
        return known
    known = torch.zeros(1, height, width, dtype=torch.bool)
    if given.known in HALVES:
        dimension, half = HALVES[given.known]
        size = known.shape[dimension]
        known.narrow(dimension, half * (size // 2), size - size // 2 if half else size // 2).fill_(True)
        return known
    if not (box := re.fullmatch(r"box:(\d+),(\d+),(\d+),(\d+)", given.known)):
        raise ValueError(f"--known {given.known}: give upper, lower, left, right or box:x,y,w,h")
    left, top, w, h = map(int, box.groups())
    if w < 1 or h < 1 or left + w > width or top + h > height:
        raise ValueError(f"--known {given.known}: no such box in the model's {width} × {height} pixels")
    known[:, top : top + h, left : left + w] = True
    return known


def sound(own: "OwnData", raw: Any, given: Namespace, generator: Any) -> "Medium":
    """What is known, then each completion, with a pause between."""
    import torch

    from genzoo.zoo.media import Sound

    seconds = re.fullmatch(r"(\d+|\d*\.\d+)s?", given.known or "")
    if not seconds:
        raise ValueError(f"--known {given.known}: give how much of the sound's beginning is known, in seconds: 0.5s")
    length, begin = own.shape[1], round(float(seconds[1]) * own.rate)
    if not 1 <= begin <= min(length - 1, len(raw)):
        raise ValueError(
            f"--known {given.known}: {given.file} has {len(raw) / own.rate:.3g} s and the model's sounds"
            f" {length / own.rate:.3g} s at {own.rate:,} Hz, so give less than that, and more than nothing"
        )
    known = torch.arange(length)[None] < begin
    x = own.fitted(raw[:length])
    filled = completed(own, x, known, given, generator)
    return Sound(torch.cat([torch.where(known, x, 0.0)[None], filled]).squeeze(1), own.rate)


def text(own: "OwnData", raw: str, given: Namespace, generator: Any) -> "Medium":
    """What is known, then each text that goes on from there; or whose gaps are filled in, by a model that can."""
    from genzoo.zoo.media import Text

    if "prompt" not in signature(own.module.sample).parameters:
        return text_with_gaps(own, raw, given, generator)
    if given.known is not None and not re.fullmatch(r"[1-9]\d*", given.known):
        raise ValueError(f"--known {given.known}: give how many characters of the text's beginning are known")
    begin = raw if given.known is None else raw[: int(given.known)]
    if not begin:
        raise ValueError(f"{given.file} is empty: there is nothing to go on from")
    names = getattr(own.module, "class_names", ())
    settings = keywords(
        given.set, own.module.sample, ("num_samples", "generator", "prompt"), names, given.num_samples
    )
    if len(classes := settings.get("labels", ())) == 1:  # as of other data, one for each that is completed
        settings["labels"] = classes.expand(given.num_samples)
    drawn = own.module.sample(given.num_samples, prompt=begin, generator=generator, **settings)
    return Text([begin, *map(own.module.text, drawn)])


def text_with_gaps(own: "OwnData", raw: str, given: Namespace, generator: Any) -> "Medium":
    """What is known, on … elsewhere, then each text of the model's length that has it where it was."""
    import torch

    from genzoo.zoo.media import Text

    said = given.known or ":"
    if not re.fullmatch(r"[1-9]\d*|\d*:\d*(,\d*:\d*)*", said):
        raise ValueError(
            f"--known {given.known}: give how many characters of the text's beginning are known, or which of its"
            " tokens, counted from 0: :40,80: for all but the 40 from the 40th on"
        )
    if ":" not in said:
        raw, said = raw[: int(said)], ":"
    (length,), tokens = own.shape, own.module.tokens(raw)
    if not 0 < len(tokens) <= length:
        raise ValueError(f"{given.file} has {len(tokens):,} tokens: give 1 to {length:,}, as the model's texts have")
    x, known = torch.zeros(length, dtype=torch.long), torch.zeros(length, dtype=torch.bool)
    x[: len(tokens)] = tokens
    for part in said.split(","):
        known[: len(tokens)][slice(*(int(end) if end else None for end in part.split(":")))] = True
    if bool(known.all()) or not bool(known.any()):
        raise ValueError(
            f"--known {given.known or 'all'}: of {length:,} tokens"
            f" {'none is left to fill in' if known.all() else 'nothing is known'}; name some, as :40,80:"
        )
    filled = completed(own, x, known, given, generator)
    runs = groupby(range(length), key=known.tolist().__getitem__)
    begin = "".join(own.module.text(x[list(places)]) if told else "…" for told, places in runs)
    return Text([begin, *map(own.module.text, filled)])


# ---- rows of numbers


class Gaps(NamedTuple):
    """The rows of a file: as they are there, as the model's data, and which of their numbers are known."""

    values: "np.ndarray"  # (N, *shape) float64; NaN where there is none
    x: "Tensor"  # (N, *shape), of any value there
    known: "Tensor"  # (N, *shape), bool

    def first(self, number: int) -> "Gaps":
        """Of so many rows at most."""
        return Gaps(self.values[:number], self.x[:number], self.known[:number])

    def filled(self, drawn: "Tensor") -> "Tensor":
        """(num_samples, N, *shape) float64: what is known, to its last digit, and else what was drawn.

        A drawn number in float32 is the shortest decimal that tells it from its neighbours.
        """
        import numpy as np
        import torch

        decimals = drawn.float().numpy().astype(str).astype(np.float64)
        return torch.from_numpy(np.where(self.known.numpy(), self.values, decimals))


def with_gaps(own: "OwnData", file: "Path", given: Namespace) -> Gaps:
    """What is known and what is not: unknown are the gaps, NaN or empty.

    Of series also what comes after the times that `--known` says, and after the end of those that are shorter.

    Raises:
        ValueError: if a row is no datum of the model, or nothing is unknown.
    """
    import numpy as np
    import torch

    from genzoo.own_data import READERS, table

    readable = [".npy"] if own.kind == "series" else list(READERS)
    if file.suffix.lower() not in readable:
        raise ValueError(f"{file}: {given.model} completes rows of numbers: give a {' or '.join(readable)}")
    times, known = own.shape[-1], given.known
    if known is not None and own.kind == "points":
        raise ValueError(f"--known {known}: leave empty what is unknown")
    if known is not None and not (re.fullmatch(r"[1-9]\d{0,9}", known) and int(known) < times):
        raise ValueError(f"--known {known}: give how many of the {times:,} times are known, fewer than all")
    values, x = [], []
    for number, row in table(file, columns=own.columns, gaps=True)[0]:
        try:
            if isinstance(row, ValueError):
                raise row
            if np.isinf(row).any():
                raise ValueError("it holds an infinite number: leave that empty, if it is unknown")
            if own.kind == "series" and row.ndim != 2:
                raise ValueError(f"a series is {own.shape}, so give an array (N, {own.shape[0]}, {times}) or shorter")
            row = row.astype(np.float64)
            if own.kind == "series" and row.shape[1] < times:
                row = np.pad(row, ((0, 0), (0, times - row.shape[1])), constant_values=np.nan)
            x.append(own.row(np.where(np.isnan(row), 0, row)))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{file}:{number}: {error}") from None
        values.append(row)
    if not x:
        raise ValueError(f"{file} has no rows")
    held = torch.from_numpy(~np.isnan(values))
    if known is not None:
        held &= torch.arange(times) < int(known)
    if bool(held.all()):
        more = "" if own.kind == "points" else f", or say how many of the {times:,} times are known (--known)"
        raise ValueError(f"{file} has no gaps: nothing is left to fill in; leave cells empty (in a .npy NaN){more}")
    return Gaps(np.array(values), torch.stack(x), held)


def rows(own: "OwnData", raw: Gaps, given: Namespace, generator: Any) -> "Rows":
    """Of each row its completions: in text one below the other, as an array (num_samples, N, *shape)."""
    from genzoo.zoo.media import Rows

    filled = raw.filled(all_completed(own, raw.x, raw.known, given, generator, len(raw.x)))
    as_array = (given.out or "").lower().endswith(".npy")
    return Rows(filled if as_array else filled.transpose(0, 1).flatten(0, 1))


def series(own: "OwnData", raw: Gaps, given: Namespace, generator: Any) -> "Medium | Rows":
    """An array of completions; or a picture of the first, in each row a series as it is known and its completions."""
    import torch

    from genzoo.zoo.media import render

    if (given.out or "").lower().endswith(".npy"):
        return rows(own, raw, given, generator)
    if len(raw.x) > SHOWN:
        note(f"the first {SHOWN} of {len(raw.x):,} series are completed and shown; --out completed.npy is of all")
    shown = raw.first(SHOWN)
    filled = all_completed(own, shown.x, shown.known, given, generator, len(raw.x))
    beside = torch.cat([torch.where(shown.known, shown.x, torch.nan)[None], filled])
    return render(beside.transpose(0, 1).flatten(0, 1), given.num_samples + 1, own.module)


#: what completes each kind of data, and what it is written as, the usual one first
MAKERS: dict[str, tuple[Callable[..., Any], tuple[str, ...]]] = {
    "image": (picture, (".png",)),
    "waveform": (sound, (".wav",)),
    "tokens": (text, (".txt",)),
    "points": (rows, TABLES),
    "series": (series, (".png", ".npy")),
}
