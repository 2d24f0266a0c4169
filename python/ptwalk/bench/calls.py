"""Calls: what one short call from Python costs, against a call that does nothing."""

from __future__ import annotations

import timeit
from collections.abc import Iterator
from typing import Any

import numpy as np

from .. import _core, workload
from ..pagemap import PAGE_SIZE
from .harness import Contender, Step, interleave
from .progress import Progress
from .results import Line
from .settings import Settings

NAME = "calls"
TITLE = "Short calls from Python"
EMPTY = "empty pybind11 call"
POSITIONAL = "writeprotect, 16 pages"
KEYWORD = "writeprotect, 16 pages, keywords"
STATEMENTS = {
    EMPTY: "empty(start, length)",
    POSITIONAL: "writeprotect(start, length)",
    KEYWORD: "writeprotect(start=start, length=length, protect=True)",
    "mprotect, 16 pages": "mprotect(start, length, 3)",
    "entry": "entry(start)",
    "access, a load": "access(start, write=False)",
    "ptes, 16 pages": "ptes(start, length)",
    "translate, 1 address": "translate(one)",
}
_PAGES = 16


def run(settings: Settings, progress: Progress) -> Iterator[Line]:
    """Measure every statement in one loop after the other, as timeit makes them."""
    progress(NAME, f"{_PAGES} present pages under 6.18")
    space = workload.build("present", length=2 << 20)
    mm = space.mm
    names = {
        "empty": _core.empty_call,
        "writeprotect": space.uffd.writeprotect,
        "mprotect": mm.mprotect,
        "entry": mm.entry,
        "access": mm.access,
        "ptes": mm.ptes,
        "translate": mm.translate,
        "start": space.start,
        "length": _PAGES * PAGE_SIZE,
        "one": np.array([space.start], np.uint64),
    }
    contenders = [
        Contender(name, [_loop(statement, names, settings.calls)], settings.calls)
        for name, statement in STATEMENTS.items()
    ]
    figures = interleave(contenders, rounds=settings.small_rounds, seconds=settings.seconds)
    yield Line(NAME, {"range": f"{_PAGES} pages"}, "ns/call", EMPTY, figures)


def _loop(statement: str, names: dict[str, Any], times: int) -> Step:
    timer = timeit.Timer(statement, globals=names)
    return lambda: timer.timeit(times)
