"""The goals that ptwalk set itself, what a run measured of them, and why one was missed.

Each goal is a ratio within one run, or a size. Where several lines speak for a goal, the worst
counts. An explanation is made from the other figures of the same run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from . import (
    calls,
    dense,
    export,
    fuzzing,
    libfuzzer,
    memory,
    restore,
    simulated,
    start,
    threads,
    walks,
)
from .results import Line, Results

KIB, MIB = 1 << 10, 1 << 20


class Measured(NamedTuple):
    """A value and the line that it comes from."""

    value: float
    line: Line


@dataclass(frozen=True, slots=True)
class Goal:
    """A goal.

    Attributes
    ----------
    what : str
        In words.
    accept, stretch : float
        Lines to reach.
    at_most : bool
        Smaller is better.
    unit : str
        "" for a ratio, "ms", "ns", "bytes" or "/s".
    values : callable
        All values that a run has for it.
    why : callable, optional
        Says from the worst line what a miss comes from.
    """

    what: str
    accept: float
    stretch: float
    at_most: bool
    unit: str
    values: Callable[[Results], Iterable[Measured]]
    why: Callable[[Results, Line], str] | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """A goal and what a run says of it.

    Attributes
    ----------
    goal : Goal
    worst : Measured or None
        None where the run has no such line.
    verdict : str
        "stretch", "met", "missed by …" or "not measured".
    why : str
        For a miss: what it comes from.
    """

    goal: Goal
    worst: Measured | None
    verdict: str
    why: str = ""


def outcomes(results: Results) -> list[Outcome]:
    """Judge every goal by a run."""
    return [_outcome(goal, results) for goal in GOALS]


def _outcome(goal: Goal, results: Results) -> Outcome:
    values = list(goal.values(results))
    if not values:
        return Outcome(goal, None, "not measured")
    choose = max if goal.at_most else min
    worst = choose(values, key=lambda measured: measured.value)
    if _reaches(goal, worst.value, goal.stretch):
        return Outcome(goal, worst, "stretch")
    if _reaches(goal, worst.value, goal.accept):
        return Outcome(goal, worst, "met")
    why = goal.why(results, worst.line) if goal.why else ""
    return Outcome(goal, worst, f"missed by {_miss(goal, worst.value)}", why)


def _reaches(goal: Goal, value: float, line: float) -> bool:
    return value <= line if goal.at_most else value >= line


def _miss(goal: Goal, value: float) -> str:
    times = value / goal.accept if goal.at_most else goal.accept / max(value, 1e-12)
    return f"{100 * (times - 1):.0f} %" if times < 2 else f"{times:.1f} times"  # noqa: PLR2004 -- as read


# What a run has to say: ratios of two contenders, over the lines of a suite.


def _ratio(
    suite: str, over: str, under: str, mixes: Iterable[str] = (), **tags: str
) -> Callable[[Results], Iterator[Measured]]:
    wanted = tuple(mixes)

    def values(results: Results) -> Iterator[Measured]:
        for line in results.of(suite, **tags):
            ratio = line.ratio(over, under)
            if ratio is not None and (not wanted or line.tags["mix"] in wanted):
                yield Measured(ratio, line)

    return values


def _figure(suite: str, name: str, **tags: str) -> Callable[[Results], Iterator[Measured]]:
    def values(results: Results) -> Iterator[Measured]:
        for line in results.of(suite, **tags):
            if name in line.figures:
                yield Measured(line.figures[name].least, line)

    return values


def _rate(suite: str, name: str, **tags: str) -> Callable[[Results], Iterator[Measured]]:
    """Return how many make a second, of figures in ns."""

    def values(results: Results) -> Iterator[Measured]:
        for measured in _figure(suite, name, **tags)(results):
            yield Measured(1e9 / measured.value, measured.line)

    return values


def _fact(suite: str, name: str, **tags: str) -> Callable[[Results], Iterator[Measured]]:
    def values(results: Results) -> Iterator[Measured]:
        for line in results.of(suite, **tags):
            if name in line.facts:
                yield Measured(line.facts[name], line)

    return values


def _either(
    *sources: Callable[[Results], Iterator[Measured]],
) -> Callable[[Results], Iterator[Measured]]:
    def values(results: Results) -> Iterator[Measured]:
        for source in sources:
            yield from source(results)

    return values


# Why a goal is missed, from the figures of the run.


def _kernel_or_call(results: Results, line: Line) -> str:
    """Divide the time of the public call into the leaf kernel and what is around it."""
    kernel = dense.kernel(results.run["kernels"].split(", ")[-1])
    names = (dense.FIRST_LOOK, kernel, dense.LIMIT)
    if not all(name in line.figures for name in names):
        return ""
    entries = line.facts["entries"]
    first, alone, limit = (line.figures[name].least for name in names)
    around = max(first - alone, 0) * entries / 1000
    whole = line.figures[dense.PTWALK].least * entries / 1000
    return (
        f"at first sight {kernel} alone takes {alone / limit:.2f} of the limit and the public call "
        f"{first / limit:.2f}, so that the walk and the call add {around:.1f} µs; a request on "
        f"tables seen before takes {whole:.1f} µs"
    )


def _limit_scales(results: Results, line: Line) -> str:
    """Say what the second core gives to the limit."""
    ratio = line.ratio(dense.LIMIT, dense.LIMIT_2)
    return f"read-modify-write itself gains {ratio:.2f} times" if ratio else ""


def _numba(results: Results, line: Line) -> str:
    limit = line.ratio("numba, branch-free", dense.LIMIT)
    if limit is None:
        return ""
    return f"numba's loop takes {limit:.2f} of the limit. {_kernel_or_call(results, line)}"


def _noise(_results: Results, line: Line) -> str:
    """Say how far the trials of the line lie apart."""
    worst = max(figure.median / figure.least for figure in line.figures.values())
    return f"medians of this line lie up to {worst:.1f} times above the fastest trials"


def _calls(_results: Results, line: Line) -> str:
    """Say what the least call takes that goes through the same layers."""
    empty = line.figures[calls.EMPTY].least
    ratio = line.ratio("entry", calls.EMPTY)
    least = f"; `entry`, which reads one word, takes {ratio:.1f} times as long" if ratio else ""
    return f"the empty call takes {empty:.0f} ns{least}"


def _modules(_results: Results, line: Line) -> str:
    """Name the modules that take longest to import."""
    slowest = [f"{name} {ms:.1f} ms" for name, ms in [*line.facts.items()][:3]]
    numpy = line.figures.get(start.NUMPY)
    beside = f"; numpy itself takes {numpy.least:.0f} ms" if numpy else ""
    return f"slowest by themselves: {', '.join(slowest)}{beside}" if slowest else ""


def _operations(_results: Results, line: Line) -> str:
    """Say what an operation takes, and what is not operations."""
    whole, nothing = (line.figures[name].least for name in (fuzzing.CPP, fuzzing.NOTHING))
    each = (whole - nothing) / fuzzing.OPERATIONS
    return f"a program takes {whole:.0f} ns, one without operations {nothing:.0f}; {each:.0f} each"


def _frames(_results: Results, line: Line) -> str:
    """Say by how much more memory was taken than the tables need."""
    tables = line.figures[memory.KERNEL].least * line.facts["gib"]
    return f"{(line.facts['bytes'] - tables) / MIB:.1f} MiB beside the tables, however many"


_DENSE = (dense.NAME, dense.PTWALK, dense.LIMIT)
_SCALAR = (dense.NAME, dense.kernel("scalar"), dense.PTWALK)
_BRANCH_FREE = (dense.NAME, dense.BRANCH_FREE, dense.PTWALK)
_TIB = {"mapping": "never touched", "length": "1 TiB"}

GOALS = (
    Goal("DRAM, uniform, against read-modify-write", 1.20, 1.08, True, "",
         _ratio(*_DENSE, dense.UNIFORM, size="DRAM"), _kernel_or_call),
    Goal("DRAM, mixed, against read-modify-write", 1.40, 1.25, True, "",
         _ratio(*_DENSE, dense.MIXED, size="DRAM"), _kernel_or_call),
    Goal("L2, uniform, against read-modify-write", 1.7, 1.3, True, "",
         _ratio(*_DENSE, dense.UNIFORM, size="L2"), _kernel_or_call),
    Goal("L2, mixed, against read-modify-write", 3.2, 2.7, True, "",
         _ratio(*_DENSE, dense.MIXED, size="L2"), _kernel_or_call),
    Goal("L2, mixed, the branchy loop against ptwalk", 10, 15, False, "",
         _ratio(*_SCALAR, dense.MIXED, size="L2"), _kernel_or_call),
    Goal("DRAM, mixed, the branchy loop against ptwalk", 6, 10, False, "",
         _ratio(*_SCALAR, dense.MIXED, size="DRAM"), _kernel_or_call),
    Goal("L2, mixed, numba branch-free against ptwalk", 1.4, 1.8, False, "",
         _ratio(*_BRANCH_FREE, dense.MIXED, size="L2"), _numba),
    Goal("DRAM, numba branch-free against ptwalk", 0.95, 1.2, False, "",
         _ratio(*_BRANCH_FREE, size="DRAM"), _numba),
    Goal("1 TiB never touched, protect and resolve, with its address space", 10, 0.1, True, "ms",
         _figure(simulated.NAME, simulated.NEW, **_TIB), _noise),
    Goal("the same, memory", 8 * MIB, 64 * KIB, True, "bytes",
         _fact(memory.NAME, "bytes", mapping="untouched", length="1 TiB")),
    Goal("all tables dense against 1 % of them private", 20, 35, False, "",
         _ratio(simulated.NAME, simulated.DENSE, simulated.PRIVATE), _noise),
    Goal("one thread against two, L2 of each core", 1.8, 1.95, False, "",
         _ratio(threads.NAME, dense.PTWALK, dense.PTWALK_2),
         _limit_scales),
    Goal("one thread against two, DRAM, mixed", 1.5, 1.8, False, "",
         _ratio(dense.NAME, dense.PTWALK, dense.PTWALK_2, dense.MIXED, size="DRAM"),
         _limit_scales),
    Goal("batch translate: numba against ptwalk", 1.0, 1.3, False, "",
         _ratio(walks.NAME, "numba", walks.PTWALK, image="small image"), _noise),
    Goal("batch translate: drgn against ptwalk", 300, 900, False, "",
         _ratio(walks.NAME, "drgn", walks.PTWALK), _noise),
    Goal("batch translate: volatility3 against ptwalk", 1000, 3000, False, "",
         _ratio(walks.NAME, "volatility3", walks.PTWALK), _noise),
    Goal("export against a copy of the same bytes", 1.25, 1.05, True, "",
         _ratio(export.NAME, export.OUT, export.COPY), _noise),
    Goal("16-page protect against an empty pybind11 call", 5, 3, True, "",
         _either(_ratio(calls.NAME, calls.POSITIONAL, calls.EMPTY),
                 _ratio(calls.NAME, calls.KEYWORD, calls.EMPTY)), _calls),
    Goal("import ptwalk, beyond numpy", 20, 10, True, "ms",
         _figure(start.NAME, start.PTWALK), _modules),
    Goal("memory of a simulated GiB, dense", 2.05 * MIB, 2.02 * MIB, True, "bytes",
         _figure(memory.NAME, memory.PTWALK, mapping="dense"), _frames),
    Goal("memory of a simulated GiB, untouched", 4.3 * KIB, 64, True, "bytes",
         _figure(memory.NAME, memory.PTWALK, mapping="untouched", length="64 TiB")),
    Goal("programs of 20 operations on 16 pages, one core", 4e5, 1e6, False, "/s",
         _rate(fuzzing.NAME, fuzzing.CPP, pages="16 pages"), _operations),
    Goal("the same on two cores, against one", 1.7, 1.9, False, "",
         _ratio(fuzzing.NAME, fuzzing.BATCH, fuzzing.BATCH_2, pages="16 pages"), _noise),
    Goal("run_batch from Python against the loop in C++", 0.8, 0.95, False, "",
         _ratio(fuzzing.NAME, fuzzing.CPP, fuzzing.BATCH, pages="16 pages"), _noise),
    Goal("restore after a store, four levels touched", 300, 100, True, "ns",
         _figure(restore.NAME, restore.RESTORE), _noise),
    Goal("libFuzzer, target programs", 1e5, 3e5, False, "/s",
         _rate(libfuzzer.NAME, libfuzzer.PLAIN, target="programs"), _noise),
    Goal("libFuzzer, target programs, with ASan and UBSan", 4e4, 1e5, False, "/s",
         _rate(libfuzzer.NAME, libfuzzer.SANITIZED, target="programs"), _noise),
)  # fmt: skip
