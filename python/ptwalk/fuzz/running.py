"""ptwalk against the running kernel: the same operations on both sides, compared after each.

Compared are errno and value, VMAs with their flags, the upper bits of pagemap and the page tables
allocated. Nothing may sleep: the userfaultfd has SIGBUS, and pages are touched by system calls.
"""

from __future__ import annotations

import atexit
import errno
import json
import platform
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Self

import numpy as np

from ..address_space import AddressSpace
from ..errors import KernelError
from ..files import ShmemFile
from ..pagemap import PAGE_SIZE, PM_SOFT_DIRTY, Pagemap
from ..running_kernel import KernelSpace, available
from .corpus import Mask
from .executor import SETUPS
from .findings import Finding
from .judges import Ranks
from .mutate import Programs
from .program_kernel import FILE_PAGES
from .task import Batch
from .translate import FIRST, LAST, RANGES, Operation, Translation, translate

RELEASE = "6.18.44"  # what the profile 6.18 models, stable fixes included
ANSWER = "errno", "value", "VMAs", "pagemap", "VmPTE"
Ranges = list[tuple[int, int]]


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


class Modelled:
    """ptwalk's side, with answers of the same form.

    Parameters
    ----------
    features : int
        UFFD_FEATURE_ bits of the userfaultfd.
    ranges : list of (int, int)
        Start address and pages of what is looked at.
    profile : str
        Which kernel.
    """

    def __init__(self, features: int, ranges: Ranges, profile: str = "6.18") -> None:
        self.mm = AddressSpace(profile)
        self.uffd = self.mm.userfaultfd(features, user_mode_only=True)
        self._ranges = ranges
        self._files: dict[str, ShmemFile] = {}

    def _file(self, name: str, size: int = FILE_PAGES * PAGE_SIZE) -> ShmemFile:
        if name not in self._files:
            self._files[name] = ShmemFile(size, machine=self.mm.machine)
        return self._files[name]

    def _perform(self, name: str, *args: Any) -> Any:
        mm, uffd = self.mm, self.uffd
        match name, args:
            case "mmap", (start, length, prot, flags, file, offset):
                backing = None if file is None else self._file(file)
                return mm.mmap(start, length, prot, flags, backing, offset).start
            case "mremap", _:
                return mm.mremap(*args).start
            case (("access" | "kernel_access"), (address, write)):
                mm.kernel_access(address, write=write)
            case "scan", (start, length, flags, masks, limits):
                names = "inverted", "mask", "anyof", "returned", "max_pages", "vec_len"
                words = dict(zip(names, [*masks, *limits], strict=True))
                found = mm.pagemap_scan(start, length, flags=flags, **words)
                return [[[int(word) for word in row] for row in found.ranges], found.walk_end]
            case "file", (file, size):
                self._file(file, size)
            case (("truncate" | "write" | "punch_hole"), (file, *rest)):
                getattr(self._file(file), name)(*rest)
            case "register", _:
                return uffd.register(*args)
            case (("unregister" | "wake" | "close"), _):
                getattr(uffd, name)(*args)
            case (("writeprotect" | "copy" | "zeropage" | "continue_" | "poison" | "move"), _):
                done = getattr(uffd, name)(*args[:-1], mode=args[-1])
                return None if name == "writeprotect" else done
            case _:
                getattr(mm, name)(*args)
        return None

    def ask(self, name: str, *args: Any) -> list[Any]:
        """Do one operation; return errno, value and what the ranges look like then."""
        failed, value = 0, None
        try:
            value = self._perform(name, *args)
        except KernelError as error:
            failed = error.errno or 0
            if name in ("copy", "zeropage", "continue_", "poison", "move"):
                value = 0 if error.done is None else error.done  # the ioctl's word as it was
        return [failed, value, *self.state()]

    def state(self) -> list[Any]:
        """Return VMAs, upper bits of pagemap and KiB of page tables."""
        vmas = [
            [vma.start, vma.end, vma.permissions, vma.offset, int(vma.vm_flags)]
            for vma in self.mm.vmas
        ]
        words = [
            int(word) >> 55
            for start, pages in self._ranges
            for word in self.mm.pagemap(start, pages * PAGE_SIZE)
        ]
        return [vmas, words, 4 * self.mm.stats.tables_modelled]


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
    running: Running,
    operations: Iterable[Operation],
    features: int,
    ranges: Ranges,
    profile: str = "6.18",
) -> Difference | None:
    """Do operations on both sides until they differ.

    Parameters
    ----------
    running : Running
        The other side; what it did before is forgotten.
    operations : iterable of tuple
        Name and arguments each.
    features : int
        UFFD_FEATURE_ bits for both userfaultfds, SIGBUS among them.
    ranges : list of (int, int)
        Start address and pages of what is looked at.
    profile : str
        Which kernel ptwalk models.

    Returns
    -------
    Difference or None
        None also where the two cannot be compared any more: the kernel picks addresses at random.
    """
    *_, tables = running.ask("start", features, ranges)
    modelled = Modelled(features, ranges, profile)
    own_tables = modelled.state()[-1]
    for i, operation in enumerate(operations):
        got = modelled.ask(*operation)
        if got[0] == errno.EINTR:  # a guard install that the kernel would try for ever
            return None
        want = running.ask(*operation)
        moved = operation[0] in ("mmap", "mremap")
        if moved and _outside(want[1], ranges) and _outside(got[1], ranges):
            return None
        want[-1], tables = want[-1] - tables, want[-1]
        got[-1], own_tables = got[-1] - own_tables, got[-1]
        for what, a, b in zip(ANSWER, want, got, strict=True):
            if a != b:
                return Difference(i, what, a, b)
    wrong = modelled.mm.validate()
    return Difference(i, "invariants", [], wrong) if wrong else None


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
        both = translate(SETUPS[self._setup] + program)
        # The other side's own heap may take a page table; not twice at the same place.
        found = self._ask(both) and self._ask(both)
        if not found:
            return None
        name = both.operations[found.operation][0]
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

    def _ask(self, both: Translation) -> Difference | None:
        assert self._running
        return first_difference(
            self._running, both.operations, both.features, RANGES, self._profile
        )

    def look(self, program: bytes, known: frozenset[str]) -> Finding | None:
        """Judge it; nothing known hides anything."""
        return self(program)

    def same(self, finding: Finding) -> Callable[[bytes], bool]:
        """Test for the same difference after the same operation."""

        def shows(program: bytes) -> bool:
            found = self(program)
            return found is not None and found.key == finding.key

        return shows
