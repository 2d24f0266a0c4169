"""The suites by name, in the order in which they are measured; a new one is a line here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

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
from .progress import Progress
from .results import Line
from .settings import Settings


class Suite(Protocol):
    """A module that measures one subject."""

    NAME: str
    TITLE: str

    def run(self, settings: Settings, progress: Progress) -> Iterator[Line]:
        """Measure, and yield a line for each case."""
        ...


_MODULES: tuple[Suite, ...] = (
    start, calls, simulated, memory, walks, export, threads, fuzzing, restore, libfuzzer, dense,
)  # fmt: skip
SUITES = {module.NAME: module for module in _MODULES}
