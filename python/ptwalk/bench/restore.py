"""Restore: going back to a checkpoint after a store to one page, timed in C++."""

from __future__ import annotations

from collections.abc import Iterator

from .. import _core
from .fuzzing import PROFILES
from .harness import Figure
from .progress import Progress
from .results import Line
from .settings import Settings

NAME = "restore"
TITLE = "Going back to a checkpoint, four levels of tables touched"
RESTORE = "restore"


def run(settings: Settings, progress: Progress) -> Iterator[Line]:
    """Measure both profiles; a trial is the fastest of many, for the clock takes as long."""
    for profile in PROFILES:
        progress(NAME, profile)
        trials = [_core.fuzz_restore_ns(profile, settings.programs) for _ in range(settings.rounds)]
        yield Line(NAME, {"profile": profile}, "ns", RESTORE, {RESTORE: Figure.of(trials)})
