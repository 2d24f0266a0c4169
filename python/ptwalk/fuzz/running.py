"""ptwalk against the running kernel: the same operations on both sides, compared after each.

Compared are errno and value, VMAs with their flags, the upper bits of pagemap and the page tables
allocated. Nothing may sleep: the userfaultfd has SIGBUS, and pages are touched by system calls.
"""

from __future__ import annotations

import atexit
import errno
import json
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Self

import numpy as np

from ..pagemap import PAGE_SIZE, PM_SOFT_DIRTY, Pagemap
from ..running_kernel import KernelSpace, available
from .corpus import Mask
from .executor import SETUPS
from .findings import Finding
from .judges import Ranks
from .mutate import Programs
from .program_model import Modelled, Ranges
from .statements import pattern_access
from .task import Batch
from .translate import (
    FIRST,
    LAST,
    MADV_DONTDUMP,
    MADV_RANDOM,
    MADV_SEQUENTIAL,
    RANGES,
    SIGBUS,
    WP_ASYNC,
    WP_UNPOPULATED,
    Operation,
    Step,
    translate,
)

RELEASE = "6.18.44"  # what the profile 6.18 models, stable fixes included
_CAP_IPC_LOCK, _MAP_LOCKED = 14, 0x2000
ANSWER = "errno", "value", "VMAs", "pagemap", "VmPTE"


@cache
def reason() -> str | None:
    """Say why the running kernel is no judge of the profile 6.18, None if it is."""
    if not platform.release().startswith(RELEASE):
        return f"the running kernel is {platform.release()}; the profile 6.18 models {RELEASE}"
    if refused := available():
        return refused
    with KernelSpace() as space, Pagemap.open() as pagemap:
        start = space.mmap(PAGE_SIZE)
        if int(pagemap.words(start, PAGE_SIZE)[0]) & PM_SOFT_DIRTY:
            return "the running kernel has CONFIG_MEM_SOFT_DIRTY, the profile has not"
    return None


class Running:
    """A process that does operations on the running kernel."""

    def __enter__(self) -> Self:
        """Start it."""
        script = Path(__file__).with_name("program_kernel.py")
        self._process = subprocess.Popen(
            [sys.executable, str(script), str(FIRST), str(LAST)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONMALLOC": "malloc"},  # whose heap keeps its page tables
        )
        return self

    def __exit__(self, *_: object) -> None:
        """End it."""
        self._process.kill()
        self._process.communicate()

    def ask(self, *words: Any) -> list[Any]:
        """Do one operation; return errno, value and what the ranges look like then."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(words) + "\n")
        self._process.stdin.flush()
        answer: list[Any] = json.loads(self._process.stdout.readline())
        return answer


@dataclass(frozen=True, slots=True)
class Difference:
    """Where two sides differ: after which operation, in what, and how it is on each."""

    operation: int
    what: str
    running: Any
    modelled: Any

    def __str__(self) -> str:
        return f"operation {self.operation}: {self.what}\n{self.running}\n{self.modelled}"


def first_difference(
    running: Running, steps: Iterable[Step], ranges: Ranges, profile: str = "6.18"
) -> Difference | None:
    """Do operations on both sides until they differ.

    Parameters
    ----------
    running : Running
        The other side; what it did before is forgotten.
    steps : iterable of Step
        The operations; userfaultfds have SIGBUS.
    ranges : list of (int, int)
        Start address and pages of what is looked at.
    profile : str
        Which kernel ptwalk models.

    Returns
    -------
    Difference or None
        None also where the two cannot be compared any more: the kernel picks addresses at random,
        there is no disk for a regular file, or process 0, which asks the others, would exit.
    """
    *_, tables = running.ask("start", ranges)
    modelled = Modelled(ranges, profile)
    own_tables = modelled.state()[-1]
    for i, step in enumerate(steps):
        name, *_ = step.operation
        words = step.process, step.uffd, *_asked(step.operation)
        if name == "exit" and step.process == 0:
            return None
        got = modelled.ask(*words)
        if got[0] == errno.EINTR:  # a guard install that the kernel would try for ever
            return None
        want = running.ask(*words)
        if name == "make_file" and want[0]:
            return None
        moved = name in ("mmap", "mremap")
        if moved and _outside(want[1], ranges) and _outside(got[1], ranges):
            return None
        want[-1], tables = want[-1] - tables, want[-1]
        got[-1], own_tables = got[-1] - own_tables, got[-1]
        for what, a, b in zip(ANSWER, want, got, strict=True):
            if a != b:
                return Difference(i, what, a, b)
    wrong = [text for mm in modelled.spaces.values() for text in mm.validate()]
    return Difference(i, "invariants", [], wrong) if wrong else None


def _asked(operation: Operation) -> Operation:
    """Return an operation as both sides take it."""
    match operation:
        case "access_many", start, nr, pattern:
            accesses = (pattern_access(pattern, i, nr) for i in range(nr))
            return "access_many", [(start + page * PAGE_SIZE, write) for page, write in accesses]
        case "userfaultfd", features, _, _:
            return "userfaultfd", features & (WP_UNPOPULATED | WP_ASYNC) | SIGBUS
    return operation


@cache
def may_lock() -> bool:
    """Say whether RLIMIT_MEMLOCK, which ptwalk has not, limits nothing here."""
    status = Path("/proc/self/status").read_text()
    capabilities = int(status.partition("CapEff:")[2].split()[0], 16)
    unlimited = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0] == resource.RLIM_INFINITY
    return unlimited or bool(capabilities >> _CAP_IPC_LOCK & 1)


def _is_asked(operation: Operation) -> bool:
    """Say whether both sides do an operation alike: it must not sleep."""
    name, *args = operation
    if (name == "mlock" or (name == "mmap" and args[3] & _MAP_LOCKED)) and not may_lock():
        return False
    # ptwalk has no VM_RAND_READ, VM_SEQ_READ and VM_DONTDUMP, which split VMAs.
    splits = (MADV_RANDOM, MADV_SEQUENTIAL, MADV_DONTDUMP)
    return name != "read" and not (name == "madvise" and args[2] in splits)


def _outside(start: int | None, ranges: Ranges) -> bool:
    return start is not None and not any(
        at <= start < at + pages * PAGE_SIZE for at, pages in ranges
    )


class RunningKernel:
    """ptwalk against the running kernel, on a few programs of each batch.

    Parameters
    ----------
    profile, setup : str
        What programs run on.

    Attributes
    ----------
    skipped : str or None
        Why this judge looks at nothing.
    """

    name = "running-kernel"
    limit = 4

    def __init__(self, profile: str, setup: str) -> None:
        self._profile, self._setup = profile, setup
        self.skipped = reason()
        if profile != "6.18":
            self.skipped = f"the running kernel is no judge of the profile {profile}"
        self._running: Running | None = None

    def suspects(
        self, programs: Programs, batch: Batch, fresh: Mask, known: frozenset[str]
    ) -> Ranks:
        """Take any; those that reached something new come first."""
        return np.full(len(programs), 0 if self.skipped else 1, np.int64)

    def __call__(self, program: bytes) -> Finding | None:
        """Return the first difference, if it is there twice."""
        if self.skipped:
            return None
        if self._running is None:
            self._running = Running().__enter__()
            atexit.register(self._running.__exit__)
        made = translate(SETUPS[self._setup], program)
        both = [step for step in made.steps if _is_asked(step.operation)]
        # The other side's own heap may take a page table; not twice at the same place.
        found = self._ask(both) and self._ask(both)
        if not found:
            return None
        name = both[found.operation].operation[0]
        return Finding(
            judge=self.name,
            kind=f"{found.what} differs",
            title=f"{name}: {found.what} differs from the running kernel",
            program=program,
            profile=self._profile,
            setup=self._setup,
            against=platform.release(),
            operation=name,
            states=(f"running  {found.running}", f"ptwalk   {found.modelled}"),
        )

    def _ask(self, both: list[Step]) -> Difference | None:
        assert self._running
        return first_difference(self._running, both, RANGES, self._profile)

    def look(self, program: bytes, known: frozenset[str]) -> Finding | None:
        """Judge it; nothing known hides anything."""
        return self(program)

    def same(self, finding: Finding) -> Callable[[bytes], bool]:
        """Test for the same difference after the same operation."""

        def shows(program: bytes) -> bool:
            found = self(program)
            return found is not None and found.key == finding.key

        return shows
