"""A contest: the same work done by ours and by others, in turns within one run. What counts is the ratio of times.

A machine that does something else meanwhile disturbs neighbours in time alike, so each round gives a ratio of its
own; their median is the figure, their quartiles its spread. Time is that on the wall, with all the threads that
PyTorch takes; or CPU time, of all processes together, which other work moves least.
"""

import contextlib
import io
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import median, quantiles

from benchmarks.results import precision

Run = Callable[[int], object]  # makes so many steps


def cpu_time() -> float:
    """Seconds of this process and of those that it has waited for."""
    used = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in used)


CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": cpu_time}


@dataclass(frozen=True)
class Rival:
    """Another way to the same end.

    Args:
        name: whose it is.
        run: makes so many steps.
        wanted: how many times as long as ours a step of it should take at least; None: it is only for comparison.
        missing: where it is not installed, how to install it; it then has no times.
        steps: of its own, as in `Contest`, where it cannot make as many.
    """

    name: str
    run: Run
    wanted: float | None = None
    missing: str = ""
    steps: tuple[int, int] | None = None


@dataclass(frozen=True)
class Contest:
    """What is contested.

    Args:
        group: of contests that a reader looks at together.
        name: of the work.
        unit: of the work; a run is asked for so many of them.
        ours: makes so many steps.
        rivals: the others.
        steps: of a short run and of a long one. A step's time is the difference of theirs for each step in between,
            so that beginning and ending do not count. A short run of 0 steps takes no time: where they shall count.
        precision: of ours; empty: that of all contests, `benchmarks.results.precision`.
    """

    group: str
    name: str
    unit: str
    ours: Run
    rivals: Sequence[Rival]
    steps: tuple[int, int]
    precision: str = ""

    def halved(self) -> "Contest":
        """With half as many steps between the short run and the long one: sooner over, and less sure."""
        rivals = [replace(rival, steps=rival.steps and half(rival.steps)) for rival in self.rivals]
        return replace(self, steps=half(self.steps), rivals=rivals)


def half(steps: tuple[int, int]) -> tuple[int, int]:
    """A short run as it is, and a long one that is nearer to it; without a short one all of the work is contested."""
    short, long = steps
    return (short, short + max(1, (long - short) // 2)) if short else steps


@dataclass(frozen=True)
class Result:
    """What came of it for one rival: a row of the table. One that is missing has no numbers."""

    group: str
    contest: str
    rival: str
    unit: str
    ours_ms: float | None = None  # of a unit, the median of the rounds
    theirs_ms: float | None = None
    ratio: float | None = None  # theirs over ours: above 1, ours is faster
    low: float | None = None  # the quartiles of the rounds' ratios
    high: float | None = None
    wanted: float | None = None
    rounds: int | None = None
    note: str = ""
    precision: str = ""  # of ours

    @property
    def verdict(self) -> str:
        """Whether it is as it should be."""
        if self.ratio is None:
            return self.note
        return "" if self.wanted is None else "met" if self.ratio >= self.wanted else "MISSED"


def hold(contest: Contest, rounds: int, clock: Callable[[], float] = time.perf_counter) -> Iterator[Result]:
    """Lets ours and every rival run, `rounds` times in turns, after a short run of each that does not count."""
    present = [rival for rival in contest.rivals if not rival.missing]
    entrants = [(contest.ours, contest.steps), *((rival.run, rival.steps or contest.steps) for rival in present)]
    if present:
        for run, (short, _) in entrants:
            seconds(run, max(1, short), clock)
    times: list[list[float]] = [[] for _ in entrants]
    for number in range(rounds if present else 0):
        for i in range(len(entrants)) if number % 2 == 0 else reversed(range(len(entrants))):
            run, (short, long) = entrants[i]
            times[i].append(time_of_a_step(run, short, long, clock))
    of = {rival.name: theirs for rival, theirs in zip(present, times[1:], strict=True)}
    for rival in contest.rivals:
        where = (contest.group, contest.name, rival.name, contest.unit)
        asked = {"wanted": rival.wanted, "precision": contest.precision or precision()}
        if rival.missing:
            yield Result(*where, **asked, note=f"not installed: {rival.missing}")
            continue
        ours, theirs = times[0], of[rival.name]
        low, ratio, high = quartiles([b / a for a, b in zip(ours, theirs, strict=True)])
        yield Result(*where, 1000 * median(ours), 1000 * median(theirs), ratio, low, high, rounds=rounds, **asked)


def time_of_a_step(run: Run, short: int, long: int, clock: Callable[[], float]) -> float:
    """Seconds.

    Raises:
        ValueError: if the long run took no longer, which says nothing of a step's time.
    """
    begin = seconds(run, short, clock) if short else 0.0
    step = (seconds(run, long, clock) - begin) / (long - short)
    if step <= 0:
        raise ValueError(
            f"{long} steps took no longer than {short}: give the contest more steps, or a quieter machine"
        )
    return step


def seconds(run: Run, steps: int, clock: Callable[[], float]) -> float:
    """Of a run; what is printed meanwhile nobody reads."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        start = clock()
        run(steps)
        return clock() - start


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """The lower quartile, the median and the upper quartile; of a single value, that value."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, middle, high = quantiles(values, n=4, method="inclusive")
    return low, middle, high
