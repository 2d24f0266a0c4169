"""Simulated terabytes: never-touched mappings, and those of which few tables are private.

Times are those of protect and resolve together, in ms for the whole mapping.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from .. import workload
from ..machine import trim
from ..running_kernel import KernelSpace, available
from ..workload import Workload
from .dense import both
from .harness import Contender, Step, interleave
from .progress import Progress
from .results import Line
from .running import WRITEPROTECT, vmpte
from .settings import GIB, TIB, Settings

NAME = "simulated"
TITLE = "Simulated sizes: protect and resolve, private mapping of a file, 6.18"
UNTOUCHED, MARKER = "untouched", "all marker"
NEW = "untouched, with its address space"
DENSE, PRIVATE = "all tables dense", "1 % of tables private"
_MIX = "70/15/10/5"
_FRAME = 4096


def size_name(length: int) -> str:
    """Write a length in TiB or GiB."""
    return f"{length // TIB} TiB" if length % TIB == 0 else f"{length / GIB:g} GiB"


def kernel_tables(length: int) -> int:
    """Return how many tables the kernel has for a mapping whose every page has an entry.

    The mapping starts where a PUD table does. All tables but the root are in VmPTE.
    """
    return 1 + sum(-(-length // (1 << shift)) for shift in (21, 30, 39))


class Fresh:
    """A space that every trial makes anew."""

    def __init__(self, length: int) -> None:
        self.length = length
        self.make()

    def make(self) -> None:
        """Make a never-touched mapping; the old one is gone before."""
        self.space: Workload | None = None
        self.space = workload.build("untouched", length=self.length)

    def steps(self) -> list[Step]:
        """Return protect and resolve of the space that is there when they run."""
        return [lambda: self._writeprotect(True), lambda: self._writeprotect(False)]

    def _writeprotect(self, protect: bool) -> None:
        assert self.space is not None
        self.space.uffd.writeprotect(self.space.start, self.length, protect=protect)


def run(settings: Settings, progress: Progress) -> Iterator[Line]:
    """Measure untouched and all-marker mappings by size, then dense ones against 1 % private."""
    for length in settings.simulated:
        progress(NAME, size_name(length))
        yield _whole(length, settings)
        trim()
    progress(NAME, f"{size_name(settings.dense)}, dense and 1 % private")
    yield _private(settings.dense, settings)
    trim()


def _whole(length: int, settings: Settings) -> Line:
    fresh, anew = Fresh(length), Fresh(length)
    armed = workload.build("marker", length=length)
    missing: dict[str, str] = {}
    with _running_kernel(length, missing) as (kernel, facts):
        contenders = [
            Contender(UNTOUCHED, fresh.steps(), prepare=fresh.make),
            Contender(NEW, [anew.make, *anew.steps()]),
            Contender(MARKER, both(armed, 1)[::-1]),
            *kernel,
        ]
        nanoseconds = interleave(contenders, rounds=settings.rounds, seconds=settings.seconds)
    figures = {name: figure.scaled(1e-6) for name, figure in nanoseconds.items()}
    assert fresh.space is not None
    stats = fresh.space.mm.stats
    facts |= {
        "bytes": stats.tables_resident * _FRAME,
        "tables_modelled": stats.tables_modelled,
        "kernel_tables": kernel_tables(length),
    }
    tags = {"mapping": "never touched", "length": size_name(length)}
    return Line(NAME, tags, "ms", UNTOUCHED, figures, missing, facts)


def _private(length: int, settings: Settings) -> Line:
    contenders = []
    for name, share in ((DENSE, 1.0), (PRIVATE, 0.01)):
        space = workload.build(_MIX, length=length, tables=share)
        contenders.append(Contender(name, both(space, 1)))
    nanoseconds = interleave(contenders, rounds=settings.rounds, seconds=settings.seconds)
    figures = {name: figure.scaled(1e-6) for name, figure in nanoseconds.items()}
    stats = space.mm.stats  # of the last one, PRIVATE
    facts: dict[str, float] = {
        "bytes": stats.tables_resident * _FRAME,
        "tables_modelled": stats.tables_modelled,
        "kernel_tables": kernel_tables(length),
    }
    tags = {"mapping": "private tables", "length": size_name(length)}
    return Line(NAME, tags, "ms", DENSE, figures, {}, facts)


@contextmanager
def _running_kernel(
    length: int, missing: dict[str, str]
) -> Iterator[tuple[list[Contender], dict[str, float]]]:
    """Yield the running kernel on new memfds, and by how much VmPTE grew for the first."""
    if length > GIB:  # its tables are real memory
        missing[WRITEPROTECT] = "up to 1 GiB only"
        yield [], {}
        return
    refused = available()
    if refused is not None:
        missing[WRITEPROTECT] = refused
        yield [], {}
        return
    with KernelSpace() as space:
        start = 0

        def make() -> None:
            nonlocal start
            start = space.mmap(length)
            space.register(start, length)

        make()
        before = vmpte()
        space.writeprotect(start, length)
        facts = {"vmpte_bytes": float(vmpte() - before)}
        steps: list[Step] = [
            lambda: space.writeprotect(start, length),
            lambda: space.writeprotect(start, length, protect=False),
        ]
        yield [Contender(WRITEPROTECT, steps, prepare=make)], facts
