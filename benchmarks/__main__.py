"""Everything that genzoo is measured against, in one table: `python -m benchmarks`, or `make bench`.

    python -m benchmarks --quick                 # in less than ten minutes
    python -m benchmarks --only GPT Fréchet      # the contests whose names, or groups, hold one of these words
    python -m benchmarks --peers FOLDER          # where nanoGPT and pytorch-generative are cloned
    python -m benchmarks --clock cpu             # on a machine that does other things besides: CPU time, one thread

It is written to benchmarks/results, a file for each kind of hardware, as soon as a contest is over; what was there of
the same contest is replaced.
"""

import argparse
import logging
import time
import warnings
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from benchmarks import families, frechet, growth, peers, reading, sampling, starting
from benchmarks.contest import CLOCKS, Contest, Result, hold
from benchmarks.results import RESULTS, hardware, merge, precision, slug, stamp
from genzoo.memory import keep_memory

KEY = ("contest", "rival")


def contests(quick: bool) -> Iterator[Contest]:
    """All that there are."""
    yield from families.contests()
    yield from sampling.contests()
    yield from reading.contests(quick)
    yield from frechet.contests()
    yield from starting.contests()


def chosen(contest: Contest, only: list[str]) -> bool:
    """Whether its group or name holds one of these words, or none is asked for."""
    return not only or any(word.lower() in f"{contest.group} {contest.name}".lower() for word in only)


def table(results: list[Result]) -> Table:
    """Of ratios with their quartiles; above 1, ours is faster."""
    shown = Table("contest", "rival", "unit", "ours, ms", "theirs, ms", "ratio", "quartiles", "wanted", "")
    for r in results:
        numbers = [""] * 4
        if r.ratio is not None:
            numbers = [f"{r.ours_ms:.4g}", f"{r.theirs_ms:.4g}", f"{r.ratio:.2f}", f"{r.low:.2f} to {r.high:.2f}"]
        wanted = "" if r.wanted is None else f"{r.wanted:.2f}"
        shown.add_row(r.contest, r.rival, r.unit, *numbers, wanted, r.verdict)
    return shown


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="shorter runs, one round of each, shorter growth curves")
    parser.add_argument("--rounds", type=int, help="of each contest (default: 7, quick: 1)")
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall", help="cpu: CPU time, and one thread")
    parser.add_argument("--only", nargs="+", default=[], help="words of the contests' names or groups")
    parser.add_argument("--peers", type=Path, help="the folder of clones (default: GENZOO_PEERS, or peers)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the files are (default: in the clone)")
    given = parser.parse_args(argv)
    if given.peers is not None:
        peers.look_in(given.peers)
    if given.clock == "cpu":
        torch.set_num_threads(1)
    keep_memory()  # as `genzoo` does; here for all rivals alike
    logging.disable(logging.INFO)
    warnings.filterwarnings("ignore")
    path, results = given.results / f"{slug(hardware())}.csv", []
    print(f"{hardware()}, {precision()}; written to {path}", flush=True)
    for contest in contests(given.quick):
        if not chosen(contest, given.only):
            continue
        start, contest = time.perf_counter(), contest.halved() if given.quick else contest
        came = list(hold(contest, given.rounds or (1 if given.quick else 7), CLOCKS[given.clock]))
        merge(path, [{**asdict(result), "clock": given.clock, **stamp()} for result in came], KEY)
        results += came
        said = ", ".join(f"{r.ratio:.2f} × {r.rival}" if r.ratio is not None else f"no {r.rival}" for r in came)
        print(f"{contest.name}: {said} ({time.perf_counter() - start:.0f} s)", flush=True)
    if not given.only or "growth" in given.only:
        growth.measure(given.results, quick=given.quick)
    Console(width=200).print(table(results))


if __name__ == "__main__":
    main()
