"""`genzoo score`: how odd one's own data are to a model, and how likely."""

import csv
import math
import time
from argparse import ArgumentParser, Namespace
from array import array
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genzoo.arguments import add_machine, add_model, device, load, not_over, note, ready
from genzoo.commands.sample import names_of_columns
from genzoo.zoo.hub.wording import blamed_on, one_line

if TYPE_CHECKING:
    from torch import Tensor

    from genzoo.own_data import Datum
    from genzoo.zoo.media import Picture

EXAMPLE = "genzoo score mnist/vae photos --sheet odd.png"
SAYS = "how odd your own files or rows are, how likely"

BATCH = 64  # data that a model is asked about at once
SHOWN = 10  # lines that are printed; a file has them all
SHEET, COLUMNS = 32, 8  # images at either end of a sheet, and in one row of it
GROUPS = ("anomaly", "likelihood")


def add_arguments(parser: ArgumentParser) -> None:
    """By which model, of what, and where to."""
    add = parser.add_argument
    add_model(parser)
    add(
        "paths",
        nargs="+",
        metavar="PATH",
        help="images, sounds, texts, folders of them; rows in .csv, .tsv, .parquet, .npy",
    )
    add("--out", help="a .csv of all scores to write, most odd first")
    add("--sheet", help="a .png to write: the oddest images above, the most usual below")
    add("--only", help="one of the two alone: anomaly or likelihood (default: whatever the model has)")
    add("--num_particles", type=int, default=1, help="importance samples of a likelihood bound (default: 1)")
    add_machine(parser)


def run(given: Namespace) -> None:
    """Scores one's own files and rows by a model: how odd each is, and its log-likelihood; most odd first."""
    from genzoo.compare.families import cannot, capabilities_of
    from genzoo.own_data import OwnData, existing

    for path in given.paths:
        existing(path)
    groups = given.only.split(",") if given.only else GROUPS
    if unknown := set(groups) - set(GROUPS):
        raise ValueError(f"--only {given.only}: there is no {min(unknown)!r}; there are {' and '.join(GROUPS)}")
    out = ready(given.out, suffixes=[".csv"]) if given.out else None
    sheet = ready(given.sheet, "--sheet", [".png"]) if given.sheet else None
    entry, module = load(given)
    needed = {"anomaly": "anomalies", "likelihood": "log_prob"}
    if not (asked := [group for group in groups if needed[group] in capabilities_of(module)]):
        raise ValueError(cannot(module, *(needed[group] for group in groups)))
    own = OwnData(module, names_of_columns(entry, module))
    if sheet and own.kind != "image":
        raise ValueError(f"--sheet {sheet}: a sheet shows images, but {given.model} is of {own.kind}")
    files = own.find(given.paths)
    for option, path in (("--out", out), ("--sheet", sheet)):
        if path:
            not_over(path, files, option)
    own.say()

    scores, ends, begin = Scores(module, asked, given.num_particles), Ends(SHEET), time.perf_counter()
    with blamed_on(given.model):
        for batch, x in batches(own.read(files, "scoring"), scores, 1 if own.kind == "tokens" else BATCH):
            odd = scores.add(batch, x.to(device(given)))
            if sheet:
                ends.add(odd, x)
    seconds = time.perf_counter() - begin
    scores.check()
    if own.num_cut:
        note(f"{own.num_cut} sounds are longer than {own.shape[1]:,} samples, of which these first are scored")
    order = scores.order()
    scores.show(order[:SHOWN])
    print(f"{len(order):,} scored, {len(order) / seconds:.3g} a second{scores.summary()}")
    if out:
        scores.write(out, order)
        print(out)
    if sheet:
        ends.picture().write(sheet)
        print(sheet)


def batches(data: "Iterator[Datum]", scores: "Scores", size: int) -> "Iterator[tuple[list[Datum], Tensor]]":
    """The data that could be read, so many at a time; `scores` hears of the others."""
    import torch

    readable = (datum for datum in data if datum.x is not None or scores.miss(datum))
    while batch := list(islice(readable, size)):
        yield batch, torch.stack([datum.x for datum in batch if datum.x is not None])


class Scores:
    """What the model said of each datum: a name and a few numbers, and no data.

    Args:
        module: the model.
        groups: what it is asked for: anomaly, likelihood or both.
        num_particles: of a likelihood bound.
    """

    def __init__(self, module: Any, groups: list[str], num_particles: int) -> None:
        self.module, self.groups, self.num_particles = module, groups, num_particles
        self.texts = getattr(module, "modality", None) == "tokens"
        self.names: list[str] = []
        #: by which they are ranked: the anomaly score, or else how unlikely each is (of a text, each token)
        self.odd = array("d")
        self.log_prob, self.tokens, self.bytes = (array("d") for _ in range(3))
        self.missed: list[str] = []  # the first few, and why
        self.num_missed = 0

    def miss(self, datum: "Datum") -> bool:
        """Counts one that could not be read; False."""
        self.num_missed += 1
        if len(self.missed) < 3:
            self.missed.append(datum.why if datum.name in datum.why else f"{datum.name}: {datum.why}")
        return False

    def check(self) -> None:
        """Notes how many there were of those; ValueError if there was nothing else."""
        if not self.names:
            missed = f"none of {self.num_missed} could be scored: {self.missed[0]}" if self.missed else ""
            raise ValueError(missed or "there is nothing to be scored: the tables have no rows")
        if self.num_missed:
            of = f"{self.num_missed} of {self.num_missed + len(self.names)} have no score"
            note(f"{of}: {'; '.join(self.missed)}{'; …' if self.num_missed > len(self.missed) else ''}")

    def add(self, batch: "list[Datum]", x: "Tensor") -> list[float]:
        """Asks the model about these: how odd each is; NaN where it gives no number, which is none of the scores."""
        from genzoo.own_data import Datum
        from genzoo.zoo.drawing import supported
        from genzoo.zoo.randomness import PerDatum

        count = x.shape[1] if self.texts else 1
        said: list[float] = [0.0] * len(x)
        if "likelihood" in self.groups:
            options = {"num_particles": self.num_particles, "generator": PerDatum(x)}
            said = self.module.log_prob(x, **supported(self.module.log_prob, **options)).cpu().double().tolist()
        odd = self.module.anomaly_score(x).cpu().double().tolist() if "anomaly" in self.groups else [-p for p in said]
        odd = [math.nan if math.isnan(p) else score / count for score, p in zip(odd, said, strict=True)]
        for datum, score, p in zip(batch, odd, said, strict=True):
            if math.isnan(score):
                self.miss(Datum(datum.name, why="what the model says of it is no number"))
                continue
            self.names.append(datum.name)
            self.tokens.append(count)
            self.bytes.append(math.nan if datum.num_bytes is None else datum.num_bytes)
            self.odd.append(score)
            if "likelihood" in self.groups:
                self.log_prob.append(p)
        return odd

    def order(self) -> list[int]:
        """All of them, most odd first."""
        return sorted(range(len(self.odd)), key=self.odd.__getitem__, reverse=True)

    # ---- what is said of them

    def columns(self) -> "dict[str, array[float] | list[float]]":
        """The numbers of each datum, by what they are: their unit, and the kind of a likelihood."""
        found: dict[str, array[float] | list[float]] = {}
        if "anomaly" in self.groups:
            found[f"anomaly_score ({'per token, ' if self.texts else ''}higher is odder)"] = self.odd
        if "likelihood" in self.groups:
            kind = self.module.log_prob_kind
            particles = "" if kind == "exact" else f", num_particles={self.num_particles}"
            found[f"log_prob (nats, {kind}{particles})"] = self.log_prob
            if self.texts:
                nats = [-p for p in self.log_prob]
                each = zip(nats, self.tokens, strict=True)
                found["tokens"] = self.tokens
                found["perplexity (per token)"] = [math.exp(n / count) for n, count in each]
                if not any(map(math.isnan, self.bytes)):
                    both = zip(nats, self.bytes, strict=True)
                    found["bits_per_byte"] = [n / (count * math.log(2)) for n, count in both]
        return found

    def summary(self) -> str:
        """The whole in a few words: the mean log-likelihood; of texts, what a token and a byte cost."""
        if "likelihood" not in self.groups:
            return ""
        nats = -math.fsum(self.log_prob)
        if not self.texts:
            return f"; log_prob on average {-nats / len(self.log_prob):.6g} nats ({self.module.log_prob_kind})"
        tokens, total = math.fsum(self.tokens), math.fsum(self.bytes)
        said = f"; {tokens:,.0f} tokens, perplexity {math.exp(nats / tokens):.4g} per token"
        return said if math.isnan(total) else f"{said}, {nats / (total * math.log(2)):.4g} bits per byte"

    def show(self, rows: list[int]) -> None:
        """Prints these as a table."""
        columns = self.columns()
        widths = {name: max(len(name), 10) for name in columns}
        print("  ".join(f"{name:>{width}}" for name, width in widths.items()) + "  file")
        for row in rows:
            numbers = (f"{columns[name][row]:>{width}.6g}" for name, width in widths.items())
            print("  ".join(numbers) + f"  {one_line(self.names[row])}")

    def write(self, out: Path, rows: list[int]) -> None:
        """Writes these as a table with commas between."""
        from genzoo.zoo.files import whole

        columns = self.columns()
        with whole(out) as half, half.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["file", *columns])
            writer.writerows(
                [self.names[row], *(f"{numbers[row]:.9g}" for numbers in columns.values())] for row in rows
            )


class Ends:
    """The images at both ends of a ranking: the oddest and the most usual.

    Args:
        most: how many of each.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.held: dict[bool, tuple[Tensor, Tensor]] = {}  # oddest or not: scores and images

    def add(self, odd: list[float], x: "Tensor") -> None:
        """Looks at some more; those whose score is NaN are at neither end."""
        import torch

        scores = torch.tensor(odd, dtype=torch.float64)
        scores, x = scores[~scores.isnan()], x[~scores.isnan().to(x.device)]
        for oddest in (True, False):
            before = self.held.get(oddest, (scores[:0], x[:0]))
            together, images = torch.cat([before[0], scores]), torch.cat([before[1], x])
            place = together.argsort(descending=oddest, stable=True)[: self.most]
            self.held[oddest] = together[place], images[place]

    def picture(self) -> "Picture":
        """The oddest, the first of them first; below a band the most usual."""
        import torch

        from genzoo.zoo.media import Picture, render
        from genzoo.zoo.value_range import plain_range, to_unit

        shown = torch.cat([images for _, images in self.held.values()])
        shown = to_unit(shown, plain_range(shown)).split([len(images) for _, images in self.held.values()])
        above, below = (render(images, COLUMNS) for images in shown)
        assert isinstance(above, Picture) and isinstance(below, Picture)
        band = torch.full((8, above.pixels.shape[1], 3), 255, dtype=torch.uint8)
        return Picture(torch.cat([above.pixels, band, below.pixels]))
