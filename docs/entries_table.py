"""Writes what zoo/README.md says of the zoo's entries, from their own files: `python docs/entries_table.py`.

Between two HTML comments, `<!-- entries:pictures -->` and `<!-- /entries:pictures -->`, it puts the entries' samples;
between those of `figures`, a table for each task, since figures compare within one alone. A test holds the page and
the entries together.
"""

import os
from pathlib import Path

from genzoo.compare.figures import columns_of, floors
from genzoo.zoo.hub import Entry, by_task, list_models

PAGE = Path(__file__).resolve().parent.parent / "zoo" / "README.md"
ON_THE_CARD = {"precision", "recall", "auroc_faint", "auroc_shuffled"}  # alone: the table has room for no more
WIDE = 5  # pictures in a row


def render(text: str, entries: list[Entry]) -> str:
    """The page with its generated parts made anew."""
    for name, part in (("pictures", pictures(entries)), ("figures", figures(entries))):
        opening, closing = f"<!-- entries:{name} -->", f"<!-- /entries:{name} -->"
        head, separator, rest = text.partition(opening)
        _, end, tail = rest.partition(closing)
        if not (separator and end):
            raise ValueError(f"the page must have {opening} … {closing}")
        text = f"{head}{opening}\n{part}\n{closing}{tail}"
    return text


def pictures(entries: list[Entry]) -> str:
    """The samples that were drawn when each entry was published, some in a row."""
    shown = [entry for entry in entries if (entry.path / "samples.png").is_file()]
    tables = []
    for start in range(0, len(shown), WIDE):
        row = shown[start : start + WIDE]
        head = " | ".join(f"`{entry.name}`" for entry in row)
        samples = " | ".join(f"![samples of {entry.name}]({place(entry)}/samples.png)" for entry in row)
        tables.append(f"| {head} |\n|{'---|' * len(row)}\n| {samples} |")
    return "\n\n".join(tables)


def figures(entries: list[Entry]) -> str:
    """One table for each task: a row for each entry, and one for the floors."""
    return "\n\n".join(f"### {task}\n\n{table(members)}" for task, members in by_task(entries).items())


def table(entries: list[Entry]) -> str:
    """Of one task; ≤ is a bound, ≈ an estimate, ± the standard error."""
    measured = [{figure["name"]: figure for figure in entry.metrics.get("figures", [])} for entry in entries]
    columns = [column for column in columns_of(measured) if column.key not in ON_THE_CARD]
    rows = [["entry", *(column.title for column in columns)], ["---"] + ["--:"] * len(columns)]
    for entry, known in zip(entries, measured, strict=True):
        name = f"[{entry.name}]({place(entry)}/README.md)"
        rows.append([name, *(column.text(known) + column.error(known) for column in columns)])
    least = [floors(column, measured) for column in columns]
    if any(least):
        rows.append(["*floor*", *least])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def place(entry: Entry) -> str:
    """The entry's folder as a link of the page."""
    return entry.path.resolve().relative_to(PAGE.parent).as_posix()


if __name__ == "__main__":
    half = PAGE.with_suffix(".md.tmp")
    half.write_text(render(PAGE.read_text("utf-8"), list_models()), "utf-8")
    os.replace(half, PAGE)
