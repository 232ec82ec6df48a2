"""Writes what the README says of the zoo's entries, from their own files: `python docs/entries_table.py`.

Between two HTML comments, `<!-- entries:pictures -->` and `<!-- /entries:pictures -->`, it puts the entries' samples;
between those of `figures`, a table. A test holds the README and the entries together.
"""

import os
from pathlib import Path
from typing import Any

from genzoo.zoo.hub import Entry, list_models

ROOT = Path(__file__).parent.parent
SHOWN = ("nll", "bits_per_dim", "fid", "frechet", "accuracy")  # the rest is on each entry's card


def render(text: str, entries: list[Entry]) -> str:
    """The README with its generated parts made anew."""
    for name, part in (("pictures", pictures(entries)), ("figures", figures(entries))):
        opening, closing = f"<!-- entries:{name} -->", f"<!-- /entries:{name} -->"
        head, separator, rest = text.partition(opening)
        _, end, tail = rest.partition(closing)
        if not (separator and end):
            raise ValueError(f"the README must have {opening} … {closing}")
        text = f"{head}{opening}\n{part}\n{closing}{tail}"
    return text


def pictures(entries: list[Entry]) -> str:
    """The samples that were drawn when each entry was published, side by side."""
    shown = [entry for entry in entries if (entry.path / "samples.png").is_file()]
    head = " | ".join(f"`{entry.name}`" for entry in shown)
    row = " | ".join(f"![samples of {entry.name}]({place(entry)}/samples.png)" for entry in shown)
    return f"| {head} |\n|{'---|' * len(shown)}\n| {row} |" if shown else ""


def figures(entries: list[Entry]) -> str:
    """One row for each figure."""
    rows = ["| entry | figure | value | unit | split | examples | protocol |", "|---|---|---|---|---|---|---|"]
    for entry in entries:
        name = f"[{entry.name}]({place(entry)}/README.md)"
        for figure in entry.metrics.get("figures", []):
            if figure["name"] in SHOWN:
                cells = (
                    figure["name"],
                    value(figure),
                    figure["unit"],
                    figure["split"],
                    f"{figure['num_examples']:,}",
                )
                rows.append(f"| {name} | {' | '.join(cells)} | {figure['protocol']} |")
                name = ""
    return "\n".join(rows)


def value(figure: dict[str, Any]) -> str:
    """The value with its standard error, and its floor: what real data, or a trivial model, would score."""
    text = ("≤ " if figure.get("kind") == "lower_bound" else "") + f"{figure['value']:.4g}"
    if figure.get("standard_error") is not None:
        text += f" ± {figure['standard_error']:.1g}"
    if figure.get("floor") is not None:
        text += f" ({figure.get('floor_name', 'real against real')}: {figure['floor']:.3g})"
    return text


def place(entry: Entry) -> str:
    """The entry's folder as a link in the README."""
    return entry.path.relative_to(ROOT).as_posix()


if __name__ == "__main__":
    readme = ROOT / "README.md"
    half = readme.with_suffix(".md.tmp")
    half.write_text(render(readme.read_text("utf-8"), list_models()), "utf-8")
    os.replace(half, readme)
