"""A hypothesis machine that runs system calls on address spaces."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from hypothesis import event
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ..address_space import AddressSpace
from ..errors import KernelError
from ..machine import Machine
from ..userfaultfd import Userfaultfd
from .strategies import AROUND_PMD, BACKINGS, PAGE, PROTS, map_area, ranges

P = ParamSpec("P")
R = TypeVar("R")

AREA = 32 * PAGE
RANGES = ranges(AROUND_PMD, AREA)
SPACES = st.integers(0, 7)
"""Taken modulo how many address spaces there are."""


class AddressSpaceMachine(RuleBasedStateMachine):
    """Runs system calls, accesses and reclaim on address spaces; `validate` judges each step.

    Subclass it, add rules and invariants of your own, and run its ``TestCase``. Calls that the
    kernel refuses are part of a run and do nothing here.

    Attributes
    ----------
    profile : str
        Class attribute: which kernel; default "6.18".
    max_spaces : int
        Class attribute: how many address spaces `fork` may make.
    spaces : list of AddressSpace
        Those of the run; the first one is there from the start.
    uffds : list of Userfaultfd
        Those of the run, closed ones included.

    Examples
    --------
    >>> class Log(AddressSpaceMachine):
    ...     @invariant()
    ...     def tables_are_few(self):
    ...         assert all(mm.stats.tables_modelled < 64 for mm in self.spaces)
    >>> TestLog = Log.TestCase
    """

    profile = "6.18"
    max_spaces = 3

    def __init__(self) -> None:
        super().__init__()
        self.machine = Machine(self.profile)
        self.spaces = [AddressSpace(machine=self.machine)]
        self.uffds: list[Userfaultfd] = []
        self._homes: dict[int, AddressSpace] = {}  # by the numbers of userfaultfds

    def attempt(self, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R | None:
        """Make a call and return its result; None where the kernel refuses it."""
        try:
            return call(*args, **kwargs)
        except KernelError as error:
            name = getattr(call, "__name__", repr(call))
            event(f"{name}: {errno.errorcode.get(error.errno, error.errno)}")
            return None

    def space(self, number: int) -> AddressSpace:
        """Return the address space that a drawn number stands for."""
        return self.spaces[number % len(self.spaces)]

    def inside(self, mm: AddressSpace, where: tuple[int, int]) -> tuple[int, int]:
        """Return the range, or the part of it that one mapping holds, moved there if need be."""
        vmas = mm.vmas
        if not vmas:
            return where
        start, length = where
        vma = next((v for v in vmas if v.start <= start < v.end), None)
        if vma is None:
            vma = vmas[start // PAGE % len(vmas)]
            start = vma.start + start % vma.length
        return start, min(length, vma.end - start)

    @initialize(
        backing=st.sampled_from(BACKINGS),
        mode=st.sampled_from(["", "wp", "missing|wp"]),
        armed=st.booleans(),
    )
    def map_first(self, backing: str, mode: str, armed: bool) -> None:
        """Begin with half of the area mapped, most often registered, and armed before any page."""
        map_area(self.spaces[0], AROUND_PMD, AREA // 2, "rw-", backing)
        if mode:
            self.userfaultfd(0, "")
            self.register(0, (AROUND_PMD, AREA // 2), mode)
            if armed:
                self.writeprotect(0, (AROUND_PMD, AREA // 2), True)

    @rule(
        mm=SPACES,
        where=RANGES,
        prot=st.sampled_from(PROTS),
        backing=st.sampled_from(BACKINGS),
    )
    def mmap(self, mm: int, where: tuple[int, int], prot: str, backing: str) -> None:
        """Map over whatever is there."""
        self.attempt(map_area, self.space(mm), *where, prot, backing)

    @rule(mm=SPACES, where=RANGES)
    def munmap(self, mm: int, where: tuple[int, int]) -> None:
        """Unmap a range."""
        self.attempt(self.space(mm).munmap, *where)

    @rule(mm=SPACES, where=RANGES, prot=st.sampled_from(PROTS))
    def mprotect(self, mm: int, where: tuple[int, int], prot: str) -> None:
        """Change the protection of a range."""
        self.attempt(self.space(mm).mprotect, *where, prot)

    @rule(mm=SPACES, where=RANGES, write=st.booleans())
    def access(self, mm: int, where: tuple[int, int], write: bool) -> None:
        """Touch the pages of a range in turn."""
        self.space(mm).access_many(range(where[0], sum(where), PAGE), write=write)

    @rule(
        mm=SPACES,
        where=RANGES,
        advice=st.sampled_from(["dontneed", "free", "remove", "pageout", "populate_write"]),
    )
    def madvise(self, mm: int, where: tuple[int, int], advice: str) -> None:
        """Zap a range, give its pages to reclaim, or bring them in."""
        self.attempt(self.space(mm).madvise, *where, advice)

    @rule(mm=SPACES, where=RANGES)
    def reclaim(self, mm: int, where: tuple[int, int]) -> None:
        """Let memory pressure take the pages of a range."""
        self.space(mm).reclaim(*where)

    @precondition(lambda self: len(self.spaces) < self.max_spaces)
    @rule(mm=SPACES)
    def fork(self, mm: int) -> None:
        """Copy an address space; userfaultfds with fork events are not used here."""
        child = self.attempt(self.space(mm).fork)
        if child is not None:
            self.spaces.append(child)

    @rule(mm=SPACES, features=st.sampled_from(["", "wp_unpopulated", "wp_async"]))
    def userfaultfd(self, mm: int, features: str) -> None:
        """Open a userfaultfd, where the kernel has the feature."""
        home = self.space(mm)
        uffd = self.attempt(home.userfaultfd, features or 0)
        if uffd is not None:
            self.uffds.append(uffd)
            self._homes[uffd.number] = home

    def _uffd(self, number: int) -> Userfaultfd:
        return self.uffds[number % len(self.uffds)]

    @precondition(lambda self: self.uffds)
    @rule(uffd=SPACES, where=RANGES, mode=st.sampled_from(["wp", "missing", "missing|wp"]))
    def register(self, uffd: int, where: tuple[int, int], mode: str) -> None:
        """Register a part of a mapping."""
        chosen = self._uffd(uffd)
        self.attempt(chosen.register, *self.inside(self._homes[chosen.number], where), mode)

    @precondition(lambda self: self.uffds)
    @rule(uffd=SPACES, where=RANGES)
    def unregister(self, uffd: int, where: tuple[int, int]) -> None:
        """Unregister a range."""
        self.attempt(self._uffd(uffd).unregister, *where)

    @precondition(lambda self: self.uffds)
    @rule(uffd=SPACES, where=RANGES, protect=st.booleans())
    def writeprotect(self, uffd: int, where: tuple[int, int], protect: bool) -> None:
        """Arm the entries of a part of a mapping, or resolve them."""
        chosen = self._uffd(uffd)
        self.attempt(
            chosen.writeprotect, *self.inside(self._homes[chosen.number], where), protect=protect
        )

    @precondition(lambda self: self.uffds)
    @rule(uffd=SPACES, where=RANGES, wp=st.booleans())
    def copy(self, uffd: int, where: tuple[int, int], wp: bool) -> None:
        """Fill missing pages of a mapping."""
        chosen = self._uffd(uffd)
        self.attempt(chosen.copy, *self.inside(self._homes[chosen.number], where), wp=wp)

    @precondition(lambda self: self.uffds)
    @rule(uffd=SPACES)
    def read(self, uffd: int) -> None:
        """Read the messages that wait."""
        self.attempt(self._uffd(uffd).read)

    @invariant()
    def is_valid(self) -> None:
        """No invariant of the tables, VMAs, pages and swap is broken."""
        for mm in self.spaces:
            assert mm.validate() == []

    @invariant()
    def holes_are_empty(self) -> None:
        """No entry of the area is left where nothing is mapped."""
        for mm in self.spaces:
            at, end = AROUND_PMD, AROUND_PMD + AREA
            starts = [(vma.start, vma.end) for vma in mm.vmas if at < vma.end and vma.start < end]
            for start, stop in [*starts, (end, end)]:
                assert start <= at or not mm.ptes(at, start - at).any(), "an entry in a hole"
                at = stop
