"""What the pages on speed are drawn from: the files that `python -m benchmarks` and its siblings write.

Each page is drawn anew when the docs are built, for every kind of hardware that was measured.
"""

import csv
import math
import re
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.ticker import LogLocator, NullLocator

RESULTS = Path(__file__).resolve().parent.parent / "benchmarks" / "results"
MET, MISSED, PLAIN = "#3a7d44", "#c8553d", "#8d99ae"  # bars: as wanted, less than wanted, nothing wanted

Rows = list[dict[str, str]]


def files(kind: str = "", results: Path = RESULTS) -> Iterator[tuple[str, Rows]]:
    """For each kind of hardware its name and its rows, what was measured last first.

    Of contests, or of the `kind` that has a folder of its own.
    """
    known = []
    for path in sorted((results / kind).glob("*.csv")):
        with path.open(newline="", encoding="utf-8") as file:
            known.append(list(csv.DictReader(file)))
    for rows in sorted(known, key=lambda rows: max(row["date"] for row in rows), reverse=True):
        yield rows[0]["hardware"], rows


# ---- contests


def bars(hardware: str, rows: Rows) -> None:
    """A bar for each rival: how many times as long as ours it takes, with quartiles, and a mark where it should."""
    groups = list(grouped([row for row in rows if row["ratio"]], "group"))
    sizes = [len(members) for _, members in groups]
    _, axes = plt.subplots(
        len(groups),
        figsize=(7, 0.19 * sum(sizes) + 0.65 * len(groups)),
        squeeze=False,
        gridspec_kw={"height_ratios": sizes},
        num=f"How many times as long as ours others take, with quartiles; a mark where it should be: {hardware}.",
    )
    for axis, ((group,), members) in zip(axes[:, 0], groups, strict=True):
        for y, row in enumerate(members):
            ratio, wanted = float(row["ratio"]), float(row["wanted"] or "nan")
            colour = PLAIN if math.isnan(wanted) else MET if ratio >= wanted else MISSED
            axis.barh(y, ratio - 1, left=1, color=colour, height=0.7)
            axis.plot([float(row["low"]), float(row["high"])], [y, y], color="black", linewidth=1)
            axis.plot([wanted, wanted], [y - 0.45, y + 0.45], color="black", linewidth=1.5)
        axis.set_yticks(range(len(members)), [f"{row['contest']}: {row['rival']}" for row in members], fontsize=5)
        axis.set(xscale="log", ylim=(len(members) - 0.4, -0.6))
        axis.set_title(group, fontsize=8, loc="left")
        axis.axvline(1, color="black", linewidth=0.5)
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axis.xaxis.set_minor_locator(NullLocator())
        axis.tick_params("x", labelsize=6)
    axis.set_xlabel("their time / ours", fontsize=7)


def table(rows: Rows) -> str:
    """Every contest, in Markdown."""
    head = ["contest", "rival", "unit", "ours, ms", "theirs, ms", "ratio", "quartiles", "wanted"]
    lines = []
    for row in rows:
        measured = [row["ours_ms"], row["theirs_ms"], f"**{float(row['ratio']):.2f}**"] if row["ratio"] else []
        measured += (
            [f"{float(row['low']):.2f} to {float(row['high']):.2f}"] if row["ratio"] else [row["note"], "", "", ""]
        )
        lines.append([row["contest"], row["rival"], row["unit"], *measured, row["wanted"]])
    return markdown(head, lines) + "\n\n" + origin(rows)


# ---- memory


def memory(rows: Rows) -> str:
    """What each recipe took, in Markdown."""
    lines = [[f"`{row['recipe']}`", f"{row['size']} × {row['size']}", f"**{row['gib']}**"] for row in rows]
    return markdown(["recipe", "pixels", "GiB"], lines) + "\n\n" + origin(rows)


# ---- equal time


def distances(rows: Rows) -> str:
    """What each came to, in Markdown."""
    head = [
        "rival",
        "data",
        "minutes",
        "parameters",
        "steps",
        "ms for a sample",
        "Fréchet distance",
        "real against real",
    ]
    lines = [
        [
            row["rival"],
            row["data"],
            row["minutes"],
            f"{int(row['parameters']):,}",
            f"{int(row['steps']):,}",
            row["ms_per_sample"],
            f"**{row['frechet']}**",
            row["floor"],
        ]
        for row in rows
    ]
    return markdown(head, lines) + "\n\n" + origin(rows)


# ---- growth


def curves(hardware: str, rows: Rows) -> None:
    """Time and memory against size: of a training step (lines), and of a sample (dots)."""
    kinds = list(dict.fromkeys(row["of"] for row in rows))
    _, axes = plt.subplots(
        2,
        len(kinds),
        figsize=(7, 4.4),
        squeeze=False,
        num=f"Time, above, and memory, below, against the size of a datum: {hardware}.",
    )
    for (upper, lower), kind in zip(axes.T, kinds, strict=True):
        for number, ((family,), points) in enumerate(grouped([row for row in rows if row["of"] == kind], "family")):
            for (what,), curve in grouped(points, "what"):
                curve = sorted(curve, key=lambda point: int(point["size"]))
                sizes = [int(point["size"]) for point in curve]
                style = {"color": f"C{number}", "marker": "o", "markersize": 3}
                style |= {"linestyle": "-", "label": family} if what == "step" else {"linestyle": ":"}
                upper.plot(sizes, [float(point["seconds"]) for point in curve], **style)
                lower.plot(sizes, [float(point["mib"]) for point in curve], **style)
        for axis in (upper, lower):
            axis.set(xscale="log", yscale="log")
            axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
            axis.yaxis.set_minor_locator(NullLocator())
            axis.xaxis.set_minor_locator(NullLocator())
            axis.set_xticks(sizes, [f"{size:,}" for size in sizes], fontsize=6)
            axis.tick_params("y", labelsize=6)
        upper.legend(fontsize=6)
        lower.set_xlabel(kind)
    axes[0, 0].set_ylabel("seconds: step –, sample ···", fontsize=7)
    axes[1, 0].set_ylabel("MiB: step –, sample ···", fontsize=7)


def exponents(rows: Rows) -> str:
    """How fast they grow, in Markdown: k of size^k, and what the largest size took."""
    lines = []
    for (family, what), points in grouped(rows, "family", "what"):
        largest = max(points, key=lambda point: int(point["size"]))
        lines.append(
            [
                family,
                f"{what} of {largest['batch_size']}",
                f"{largest['of']} {int(largest['size']):,}",
                f"{float(largest['seconds']):.3g}",
                f"{float(largest['mib']):,.0f}",
                largest["exponent_of_time"],
                largest["exponent_of_memory"],
            ]
        )
    head = ["family", "what", "at", "seconds", "MiB", "exponent of time", "of memory"]
    return markdown(head, lines) + "\n\n" + origin(rows)


# ---- time to quality


def quality(hardware: str, rows: Rows) -> None:
    """A curve for each recipe that was measured in several budgets: its figure against what a run took in all.

    And for each optimizer, where it was measured by several.
    """
    recipes = [(name, runs) for name, runs in grouped(rows, "recipe") if len(runs) > 1]
    if not recipes:  # of one there is no curve; the table has it
        return
    by = "by each optimizer" if "optimizer" in rows[0] else "lower is better but of accuracy"
    across = min(4, len(recipes))
    down = math.ceil(len(recipes) / across)
    figure, axes = plt.subplots(
        down,
        across,
        figsize=(7, 0.4 + 1.7 * down),
        squeeze=False,
        num=f"Each recipe's figure, {by}, against the minutes that it took: {hardware}.",
    )
    for axis in axes.flat[len(recipes) :]:
        axis.set_axis_off()
    for axis, ((recipe,), runs) in zip(axes.flat, recipes, strict=False):
        budgets = sorted({run["minutes"] for run in runs}, key=float)
        names = dict.fromkeys(run.get("optimizer") for run in runs)
        runs = sorted(runs, key=lambda run: float(run["seconds"]))
        for name in names:
            line = [run for run in runs if run.get("optimizer") == name]
            took = [float(run["seconds"]) / 60 for run in line]
            axis.plot(took, [float(run["value"]) for run in line], "o-", markersize=3, label=name)
        if any(names):
            axis.legend(fontsize=6, frameon=False)
        axis.set_title(recipe, fontsize=8)
        axis.set(xscale="log")
        axis.set_ylabel(runs[0]["figure"], fontsize=7)
        axis.minorticks_off()
        axis.set_xticks([float(budget) for budget in budgets], budgets)
        axis.tick_params(labelsize=6)
        axis.yaxis.set_major_locator(plt.MaxNLocator(3))
    figure.supxlabel("minutes", fontsize=8)


def runs(rows: Rows) -> str:
    """Every run, in Markdown, and the command that repeats it."""
    several = "optimizer" in rows[0]
    head = ["recipe", *(["optimizer"] if several else []), "minutes", "figure", "value", "steps", "seconds in all"]
    lines, commands = [], []
    for row in rows:
        seconds = f"{float(row['seconds']):,.0f}"
        begun = re.search(r"StartFrom, init_args: {source: (\S+?)}", row["command"])
        recipe = row["recipe"] + (f", from the entry `{begun[1]}`" if begun else "")
        what = [recipe, *([row["optimizer"]] if several else []), row["minutes"]]
        lines.append([*what, f"`{row['figure']}`", row["value"], f"{int(row['steps']):,}", seconds])
        commands.append(row["command"])
    shown = "\n".join(["```bash", *commands, "```"])
    return f"{markdown(head, lines)}\n\n{origin(rows)}\n\n{shown}"


# ---- what they share


def grouped(rows: Rows, *names: str) -> Iterator[tuple[tuple[str, ...], Rows]]:
    """Rows of the same value in these columns, which follow on each other or not."""
    ordered = sorted(rows, key=lambda row: tuple(row[name] for name in names))
    for key, group in groupby(ordered, key=lambda row: tuple(row[name] for name in names)):
        yield key, list(group)


def markdown(head: list[str], lines: list[list[str]]) -> str:
    """A table."""
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, ["---"] * len(head), *lines])


def origin(rows: Rows) -> str:
    """With what they were measured, and when."""
    said = {name: ", ".join(sorted({row[name] for row in rows if row[name]})) for name in ("commit", "torch", "date")}
    genzoo = f"genzoo at {said['commit']}" if said["commit"] else f"genzoo {rows[0]['genzoo']}"
    return f"{genzoo}, PyTorch {said['torch']}, {said['date']}."
