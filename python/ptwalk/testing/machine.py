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
from ..files import File
from ..machine import Machine
from ..pages import Migration
from ..userfaultfd import Userfaultfd
from .strategies import AROUND_PMD, BACKINGS, PAGE, PROTS, map_area, ranges

P = ParamSpec("P")
R = TypeVar("R")

AREA = 32 * PAGE
RANGES = ranges(AROUND_PMD, AREA)
SPACES = st.integers(0, 7)
"""Taken modulo how many address spaces, userfaultfds or files there are."""
PAGES = st.integers(0, AREA // PAGE)
ADVICE = (
    *("dontneed", "free", "remove", "pageout", "populate_write", "populate_read"),
    *("cold", "dontneed_locked", "guard_install", "guard_remove"),
)
FILE_FLAGS = ("shared|fixed", "private|fixed")
MREMAP_FLAGS = ("", "maymove", "maymove|fixed", "maymove|dontunmap", "maymove|fixed|dontunmap")
FEATURES = ("", "wp_unpopulated", "wp_async", "event_remap|event_remove|event_unmap", "sigbus")
MODES = ("wp", "missing", "missing|wp", "minor", "minor|wp")


class AddressSpaceMachine(RuleBasedStateMachine):
    """Runs system calls, accesses, reclaim and migration; `validate` judges each step.

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
    files : list of File
        Those that were mapped in the run.

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
        self.files: list[File] = []
        self._homes: dict[int, AddressSpace] = {}  # by the numbers of userfaultfds
        self._migrations: list[Migration] = []

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
        mode=st.sampled_from(["", "wp", "missing|wp", "minor|wp"]),
        armed=st.booleans(),
    )
    def map_first(self, backing: str, mode: str, armed: bool) -> None:
        """Begin with half of the area mapped, most often registered, and armed before any page."""
        self.mmap(0, (AROUND_PMD, AREA // 2), "rw-", backing)
        if "minor" in mode:  # pages of the cache that nobody maps
            self.populate(0, (AROUND_PMD, AREA // 2), True)
            self.madvise(0, (AROUND_PMD, AREA // 2), "dontneed")
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
        file = self.attempt(map_area, self.space(mm), *where, prot, backing)
        if file is not None:
            self.files.append(file)

    @precondition(lambda self: self.files)
    @rule(mm=SPACES, file=SPACES, where=RANGES, page=PAGES, flags=st.sampled_from(FILE_FLAGS))
    def mmap_file(self, mm: int, file: int, where: tuple[int, int], page: int, flags: str) -> None:
        """Map a file again, from some page on."""
        self.attempt(self.space(mm).mmap, *where, "rw-", flags, self._file(file), page * PAGE)

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
        advice=st.sampled_from(ADVICE),
    )
    def madvise(self, mm: int, where: tuple[int, int], advice: str) -> None:
        """Zap a range, give its pages to reclaim, or bring them in."""
        self.attempt(self.space(mm).madvise, *where, advice)

    @rule(mm=SPACES, where=RANGES, to=RANGES, flags=st.sampled_from(MREMAP_FLAGS))
    def mremap(self, mm: int, where: tuple[int, int], to: tuple[int, int], flags: str) -> None:
        """Move, grow or shrink a part of a mapping."""
        space = self.space(mm)
        target = to[0] if "fixed" in flags else None
        self.attempt(space.mremap, *self.inside(space, where), to[1], flags, target)

    @rule(mm=SPACES, where=RANGES, lock=st.booleans())
    def mlock(self, mm: int, where: tuple[int, int], lock: bool) -> None:
        """Lock a range, or unlock it."""
        space = self.space(mm)
        self.attempt(space.mlock if lock else space.munlock, *where)

    @rule(mm=SPACES, where=RANGES, write=st.booleans())
    def populate(self, mm: int, where: tuple[int, int], write: bool) -> None:
        """Make the pages of a range present."""
        self.attempt(self.space(mm).populate, *where, write=write)

    @rule(mm=SPACES, where=RANGES, write=st.booleans())
    def kernel_access(self, mm: int, where: tuple[int, int], write: bool) -> None:
        """Access a page from kernel mode."""
        self.attempt(self.space(mm).kernel_access, where[0], write=write)

    @rule(mm=SPACES, where=RANGES)
    def migrate_start(self, mm: int, where: tuple[int, int]) -> None:
        """Begin to migrate the pages of a range."""
        self._migrations.append(self.space(mm).migrate_pages(*where))

    @precondition(lambda self: self._migrations)
    @rule()
    def migrate_finish(self) -> None:
        """End the migration that began first."""
        self._migrations.pop(0).finish()

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

    @rule(mm=SPACES, features=st.sampled_from(FEATURES))
    def userfaultfd(self, mm: int, features: str) -> None:
        """Open a userfaultfd, where the kernel has the feature."""
        home = self.space(mm)
        uffd = self.attempt(home.userfaultfd, features or 0)
        if uffd is not None:
            self.uffds.append(uffd)
            self._homes[uffd.number] = home

    def _open(self) -> list[Userfaultfd]:
        return [uffd for uffd in self.uffds if not uffd.closed]

    def _uffd(self, number: int) -> Userfaultfd:
        """Return an open one: calls on closed ones show nothing but EBADF."""
        uffds = self._open()
        return uffds[number % len(uffds)]

    def _file(self, number: int) -> File:
        return self.files[number % len(self.files)]

    def _inside(self, uffd: Userfaultfd, where: tuple[int, int]) -> tuple[int, int]:
        return self.inside(self._homes[uffd.number], where)

    @precondition(lambda self: self.uffds)
    @rule(uffd=SPACES, where=RANGES, mode=st.sampled_from(MODES))
    def register(self, uffd: int, where: tuple[int, int], mode: str) -> None:
        """Register a part of a mapping."""
        chosen = self._uffd(uffd)
        self.attempt(chosen.register, *self._inside(chosen, where), mode)

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
        self.attempt(chosen.writeprotect, *self._inside(chosen, where), protect=protect)

    @precondition(lambda self: self.uffds)
    @rule(uffd=SPACES, where=RANGES, wp=st.booleans())
    def copy(self, uffd: int, where: tuple[int, int], wp: bool) -> None:
        """Fill missing pages of a mapping."""
        chosen = self._uffd(uffd)
        self.attempt(chosen.copy, *self._inside(chosen, where), wp=wp)

    @precondition(lambda self: self.uffds)
    @rule(uffd=SPACES, where=RANGES)
    def zeropage(self, uffd: int, where: tuple[int, int]) -> None:
        """Fill missing pages of a mapping with zeroes."""
        chosen = self._uffd(uffd)
        self.attempt(chosen.zeropage, *self._inside(chosen, where))

    @precondition(lambda self: self.uffds)
    @rule(uffd=SPACES, where=RANGES, wp=st.booleans())
    def continue_(self, uffd: int, where: tuple[int, int], wp: bool) -> None:
        """Map pages of the page cache."""
        chosen = self._uffd(uffd)
        self.attempt(chosen.continue_, *self._inside(chosen, where), wp=wp)

    @precondition(lambda self: self.uffds)
    @rule(uffd=SPACES, where=RANGES)
    def poison(self, uffd: int, where: tuple[int, int]) -> None:
        """Poison missing pages of a mapping."""
        chosen = self._uffd(uffd)
        self.attempt(chosen.poison, *self._inside(chosen, where))

    @precondition(lambda self: self.uffds)
    @rule(uffd=SPACES, where=RANGES, source=RANGES, allow_src_holes=st.booleans())
    def move(
        self, uffd: int, where: tuple[int, int], source: tuple[int, int], allow_src_holes: bool
    ) -> None:
        """Move anonymous pages to another part of a mapping."""
        chosen = self._uffd(uffd)
        (dst, length), (src, limit) = self._inside(chosen, where), self._inside(chosen, source)
        self.attempt(chosen.move, dst, src, min(length, limit), allow_src_holes=allow_src_holes)

    @precondition(lambda self: self.uffds)
    @rule(uffd=SPACES, where=RANGES)
    def wake(self, uffd: int, where: tuple[int, int]) -> None:
        """Wake the faults that wait in a range."""
        self.attempt(self._uffd(uffd).wake, *where)

    @precondition(lambda self: len(self._open()) > 1)
    @rule(uffd=SPACES)
    def close(self, uffd: int) -> None:
        """Close a userfaultfd, where another one stays open."""
        self._uffd(uffd).close()

    @precondition(lambda self: self.uffds)
    @rule(uffd=SPACES)
    def read(self, uffd: int) -> None:
        """Read the messages that wait."""
        self.attempt(self._uffd(uffd).read)

    @precondition(lambda self: self.files)
    @rule(file=SPACES, page=PAGES, nr=PAGES, write=st.booleans())
    def file_access(self, file: int, page: int, nr: int, write: bool) -> None:
        """Read from a file or write to it."""
        chosen = self._file(file)
        (chosen.write if write else chosen.read)(page * PAGE, nr * PAGE)

    @precondition(lambda self: self.files)
    @rule(file=SPACES, pages=PAGES)
    def truncate(self, file: int, pages: int) -> None:
        """Set the length of a file."""
        self._file(file).truncate(pages * PAGE)

    @precondition(lambda self: self.files)
    @rule(file=SPACES, page=PAGES, nr=PAGES)
    def punch_hole(self, file: int, page: int, nr: int) -> None:
        """Make a hole in a file."""
        self._file(file).punch_hole(page * PAGE, nr * PAGE)

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
