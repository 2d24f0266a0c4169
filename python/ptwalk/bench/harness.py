"""Interleaved timing: contenders take turns, so that what slows the machine slows them all.

Only ratios of figures from one call of `interleave` mean anything.
"""

from __future__ import annotations

import gc
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

U64 = npt.NDArray[np.uint64]
Clock = Callable[[], int]
Step = Callable[[], object]

_PAGE = 4096
_WARM_NS = 200_000_000
_FEWEST = 3  # trials of a contender that has used up its time


@dataclass(frozen=True, slots=True)
class Contender:
    """Something to be timed.

    Attributes
    ----------
    name : str
        What its figures are called.
    steps : sequence of callable
        What a trial does, each step timed; their sum is the time of the trial.
    work : int
        Units of work in one trial; its time is divided by it.
    prepare : callable, optional
        What is done before every trial, not timed.
    """

    name: str
    steps: Sequence[Step]
    work: int = 1
    prepare: Step | None = None


@dataclass(frozen=True, slots=True)
class Figure:
    """The trials of one contender, in the unit of its line.

    Attributes
    ----------
    least, median, most : float
        Of the trials.
    trials : int
        How many there were.
    """

    least: float
    median: float
    most: float
    trials: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Figure:
        """Summarise trials; there must be one at least."""
        return cls(min(values), statistics.median(values), max(values), len(values))

    def scaled(self, factor: float) -> Figure:
        """Return the same trials in another unit."""
        return Figure(self.least * factor, self.median * factor, self.most * factor, self.trials)


def interleave(
    contenders: Sequence[Contender],
    *,
    rounds: int,
    seconds: float,
    settle: bool = False,
    clock: Clock = time.perf_counter_ns,
) -> dict[str, Figure]:
    """Time contenders in turns.

    Parameters
    ----------
    contenders : sequence of Contender
        At least one; each round starts with another one.
    rounds : int
        Trials of each.
    seconds : float
        A contender that has used this much time, preparations included, drops out after three
        trials.
    settle : bool
        Make each trial twice and time the second, so that what fits into the caches is there,
        whoever had them before.
    clock : callable
        Nanoseconds.

    Returns
    -------
    dict of str to Figure
        Nanoseconds per unit of work.
    """
    trials: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    used = dict.fromkeys(trials, 0)
    warm(clock)
    with _no_garbage_collection():
        for number in range(rounds):
            shift = number % len(contenders)
            for contender in [*contenders[shift:], *contenders[:shift]]:
                done = trials[contender.name]
                if len(done) >= _FEWEST and used[contender.name] > seconds * 1e9:
                    continue
                start = clock()
                if settle:
                    _trial(contender, clock)
                done.append(_trial(contender, clock))
                used[contender.name] += clock() - start
    return {name: Figure.of(values) for name, values in trials.items()}


def _trial(contender: Contender, clock: Clock) -> float:
    if contender.prepare is not None:
        contender.prepare()
    spent = 0
    for step in contender.steps:
        start = clock()
        step()
        spent += clock() - start
    return spent / contender.work


def warm(clock: Clock = time.perf_counter_ns) -> None:
    """Keep the processor busy for 200 ms: the first moments of a run are slower."""
    end = clock() + _WARM_NS
    while clock() < end:
        pass


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def aligned(nr: int) -> U64:
    """Return zeroed words that start at a page, as tables do; numpy asks for huge pages itself."""
    raw = np.zeros(nr + _PAGE // 8, np.uint64)
    skip = -raw.ctypes.data % _PAGE // 8
    words: U64 = raw[skip : skip + nr]
    return words


def processors() -> int:
    """Return how many processors this process may use; with one, two threads are not measured."""
    return len(os.sched_getaffinity(0))
