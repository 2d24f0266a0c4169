"""Properties of every reachable state: the seven of section 9 of the v2 spec, and failing calls.

A state is reached by a drawn program of system calls, accesses, reclaim and forks. After each
property the invariants of `validate` must hold. A call that fails must leave everything as it was,
but for the calls that the kernel leaves half done; those are compared with their own first part.
"""

from __future__ import annotations

import contextlib
import errno
from typing import Any

import numpy as np
import numpy.typing as npt
import ptwalk
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from ptwalk import AddressSpace, KernelError, Kind, Machine, ProtectResult, ShmemFile, Userfaultfd

PAGE, HUGE = 4096, 2 << 20
BASE = 0x7F0000000000 + HUGE - 4 * PAGE  # the areas below lie on both sides of a table's end
AREA = 8 * PAGE
SPAN = 4 * AREA
KINDS = ("anon", "shared", "private")  # one area each, then a hole of the same size
V2 = "uffd-wp-v2"
A, D, SOFT_DIRTY, UFFD_WP, SWP_UFFD_WP = 1 << 5, 1 << 6, 1 << 11, 1 << 10, 1 << 2
READ_WORD, WRITE_WORD, NONE_WORD = 0x8000000000000025, 0x8000000000000027, 0x120

Op = tuple[Any, ...]

AREAS = st.integers(0, 2)
PAGES = st.integers(0, 7)
PROTS = st.sampled_from(["r--", "rw-", "---"])
OPS = st.lists(
    st.one_of(
        st.tuples(st.just("access"), AREAS, PAGES, st.booleans()),
        st.tuples(st.just("dontneed"), AREAS, PAGES, st.integers(1, 8)),
        st.tuples(st.just("reclaim"), AREAS, PAGES, st.integers(1, 8)),
        st.tuples(st.just("writeprotect"), AREAS, PAGES, st.integers(1, 8), st.booleans()),
        st.tuples(
            st.just("mprotect"),
            AREAS,
            PAGES,
            st.integers(1, 8),
            st.sampled_from(["r--", "rw-", "---"]),
        ),
        st.tuples(st.just("punch_hole"), PAGES, st.integers(1, 8)),
        st.tuples(st.just("fork")),
        st.tuples(st.just("munmap"), AREAS, PAGES),
    ),
    max_size=12,
)


class World:
    """Three neighbouring areas of 32 KiB, registered for wp, and the programs that run on them."""

    def __init__(self, profile: str, program: list[Op]) -> None:
        self.mm = AddressSpace(machine=Machine(profile))
        self.files = {"shared": ShmemFile(AREA), "private": ShmemFile(AREA)}
        for i, kind in enumerate(KINDS):
            flags = "private|anonymous" if kind == "anon" else kind
            self.mm.mmap(BASE + i * AREA, AREA, "rw-", flags, self.files.get(kind))
        self.uffd: Userfaultfd = self.mm.userfaultfd()
        self.uffd.register(BASE, AREA, "wp")
        if profile not in ("5.12", "uffd-wp-v2-11"):
            self.uffd.register(BASE + AREA, 2 * AREA, "wp")
        self.children: list[AddressSpace] = []
        for op in program:
            self.run(op)

    def run(self, op: Op) -> None:
        """Do one step; where the system call refuses it, the step does nothing."""
        name, *args = op
        if name == "fork":
            self.children = [self.mm.fork()]
            return
        if name == "punch_hole":
            self.files["shared"].punch_hole(args[0] * PAGE, args[1] * PAGE)
            return
        area, page, *rest = args
        start = BASE + area * AREA + page * PAGE
        length = min(rest[0], 8 - page) * PAGE if rest else PAGE
        try:
            match name:
                case "access":
                    self.mm.access(start, write=rest[0])
                case "dontneed":
                    self.mm.madvise(start, length, "dontneed")
                case "reclaim":
                    self.mm.reclaim(start, length)
                case "writeprotect":
                    self.uffd.writeprotect(start, length, protect=rest[1])
                case "mprotect":
                    self.mm.mprotect(start, length, rest[1])
                case "munmap":
                    self.mm.munmap(start, PAGE)
        except KernelError as error:
            event(f"{name}: {errno.errorcode[error.errno or 0]}")

    def words(self) -> npt.NDArray[np.uint64]:
        return self.mm.ptes(BASE, SPAN)

    def snapshot(self) -> tuple[Any, ...]:
        mm = self.mm
        levels = mm.levels(BASE, SPAN)
        return mm.stats, mm.pending, self.words().tobytes(), levels.tobytes(), repr(mm.vmas)

    def vmas(self) -> list[tuple[int, int, bool]]:
        """Return start and end of each VMA, and whether it is anonymous."""
        return [(vma.start, vma.end, vma.kind == "anon") for vma in self.mm.vmas]


def check(world: World) -> None:
    assert world.mm.validate() == []
    for child in world.children:
        assert child.validate() == []


def is_kind(world: World, *kinds: Kind) -> npt.NDArray[np.bool_]:
    return np.isin(world.mm.decode(world.words())["kind"], kinds)


def changed(
    world: World, newprot: int, cp_flags: int, *, anon: bool | None = None
) -> list[ProtectResult]:
    """Change the protection of every VMA, or of those that are (not) anonymous."""
    return [
        world.mm.change_protection(start, end, newprot, cp_flags)
        for start, end, is_anon in world.vmas()
        if anon in (None, is_anon)
    ]


with_trees = pytest.mark.parametrize("profile", [V2, "uffd-wp-v2-11"])
WP, RESOLVE, NUMA = ptwalk.MM_CP_UFFD_WP, ptwalk.MM_CP_UFFD_WP_RESOLVE, ptwalk.MM_CP_PROT_NUMA
REQUESTS = st.one_of(
    st.tuples(st.sampled_from([READ_WORD, NONE_WORD]), st.just(WP)),
    st.tuples(st.sampled_from([READ_WORD, WRITE_WORD]), st.just(RESOLVE)),
    st.tuples(st.just(NONE_WORD), st.just(NUMA)),
    st.tuples(st.sampled_from([READ_WORD, WRITE_WORD, NONE_WORD]), st.sampled_from([0, 1])),
)


# --- the seven properties -------------------------------------------------------------------------
@with_trees
@settings(deadline=None)
@given(program=OPS)
def test_1_wp_then_resolve_restores_a_file_backed_none_pte(profile: str, program: list[Op]) -> None:
    world = World(profile, program)
    none = is_kind(world, Kind.NONE)
    changed(world, READ_WORD, WP, anon=False)
    changed(world, READ_WORD, RESOLVE, anon=False)
    assert not world.words()[none].any()
    check(world)


@with_trees
@settings(deadline=None)
@given(program=OPS)
def test_2_wp_twice_is_wp_once_and_counts_present_entries_only(
    profile: str, program: list[Op]
) -> None:
    world = World(profile, program)
    changed(world, READ_WORD, WP)
    once = world.words()
    again = changed(world, READ_WORD, WP)
    assert (world.words() == once).all()
    present = int(is_kind(world, Kind.PRESENT).sum())
    assert sum(result.pages for result in again) == present
    assert sum(result.present for result in again) == present
    check(world)


@with_trees
@settings(deadline=None)
@given(program=OPS, requests=st.lists(REQUESTS, min_size=1, max_size=6))
def test_3_no_request_creates_a_marker_in_an_anonymous_vma(
    profile: str, program: list[Op], requests: list[tuple[int, int]]
) -> None:
    world = World(profile, program)
    for newprot, cp_flags in requests:
        changed(world, newprot, cp_flags)
        for start, end, anon in world.vmas():
            assert not anon or "marker" not in world.mm.count(start, end - start)
    check(world)


@with_trees
@settings(deadline=None)
@given(program=OPS, requests=st.lists(REQUESTS, min_size=1, max_size=6))
def test_4_the_pfn_of_a_present_pte_is_invariant(
    profile: str, program: list[Op], requests: list[tuple[int, int]]
) -> None:
    world = World(profile, program)
    present = is_kind(world, Kind.PRESENT)
    before = world.mm.decode(world.words())["pfn"][present]
    for newprot, cp_flags in requests:
        changed(world, newprot, cp_flags)
        after = world.mm.decode(world.words())
        assert (after["kind"][present] == Kind.PRESENT).all()
        assert (after["pfn"][present] == before).all()
    check(world)


@with_trees
@settings(deadline=None)
@given(program=OPS, numa=st.booleans(), prot=st.sampled_from(["r--", "rw-", "---"]))
def test_5_uffd_wp_is_invariant_under_mprotect_and_numa(
    profile: str, program: list[Op], numa: bool, prot: str
) -> None:
    world = World(profile, program)
    before, present = world.words(), is_kind(world, Kind.PRESENT)
    if numa:
        changed(world, NONE_WORD, NUMA)
    else:
        for start, end, _ in world.vmas():
            world.mm.mprotect(start, end - start, prot)
    moved = before ^ world.words()
    assert not (moved[present] & np.uint64(UFFD_WP)).any()
    assert not (moved[~present] & np.uint64(SWP_UFFD_WP)).any()
    check(world)


@with_trees
@settings(deadline=None)
@given(program=OPS, request=REQUESTS)
def test_6_pages_are_counted_iff_the_range_is_flushed_once(
    profile: str, program: list[Op], request: tuple[int, int]
) -> None:
    world = World(profile, program)
    for start, end, _ in world.vmas():
        result = world.mm.change_protection(start, end, *request)
        assert result.flush == ((start, end) if result.pages else None)
        assert result.pages == (
            result.none_to_marker + result.marker_to_none + result.present + result.swap
        )
    check(world)


@with_trees
@settings(deadline=None)
@given(program=OPS, request=REQUESTS)
def test_7_accessed_dirty_and_soft_dirty_never_change_on_present_ptes(
    profile: str, program: list[Op], request: tuple[int, int]
) -> None:
    world = World(profile, program)
    before, present = world.words(), is_kind(world, Kind.PRESENT)
    changed(world, *request)
    moved = (before ^ world.words())[present]
    assert not (moved & np.uint64(A | D | SOFT_DIRTY)).any()
    check(world)


# --- calls that fail ------------------------------------------------------------------------------
STARTS = st.integers(-2, 32).map(lambda page: BASE + page * PAGE)
ODD_STARTS = STARTS | st.sampled_from([BASE + 1, 0, (1 << 47) - PAGE, (1 << 64) - PAGE])
LENGTHS = st.integers(0, 34).map(lambda pages: pages * PAGE) | st.sampled_from(
    [1, PAGE + 1, 1 << 47, (1 << 64) - PAGE, (1 << 64) - 1]
)
CALLS = st.one_of(
    st.tuples(
        st.just("mmap"),
        ODD_STARTS,
        LENGTHS,
        st.sampled_from([0, 1, 3, 0x100]),
        st.sampled_from([0, 0x2, 0x22, 0x23, 0x32, 0x31, 0x100022]),
    ),
    st.tuples(st.just("munmap"), ODD_STARTS, LENGTHS),
    st.tuples(st.just("mprotect"), ODD_STARTS, LENGTHS, st.sampled_from([0, 1, 3, 0x100])),
    st.tuples(st.just("register"), ODD_STARTS, LENGTHS, st.integers(0, 8)),
    st.tuples(st.just("unregister"), ODD_STARTS, LENGTHS),
    st.tuples(st.just("writeprotect"), ODD_STARTS, LENGTHS, st.integers(0, 4)),
    st.tuples(st.just("mremap"), ODD_STARTS, LENGTHS, LENGTHS, st.integers(0, 8), ODD_STARTS),
    st.tuples(st.just("madvise"), ODD_STARTS, LENGTHS, st.sampled_from([0, 4, 8, 9, 18, 21, 99])),
)


def call(world: World, op: Op) -> object:
    name, *args = op
    match name:
        case "writeprotect":
            start, length, mode = args
            return world.uffd.writeprotect(start, length, mode=mode)
        case "register" | "unregister":
            return getattr(world.uffd, name)(*args)
    return getattr(world.mm, name)(*args)


def failure(world: World, op: Op) -> KernelError | None:
    """Make a call; return its error."""
    try:
        call(world, op)
    except KernelError as error:
        return error
    return None


def in_pieces(world: World, op: Op) -> list[object]:
    """Do the part of a call that lies before its first failure, VMA by VMA."""
    name, start, length, *rest = op
    if name == "mremap":  # what lies at the target goes first, and what the source loses
        new_length, _, target = rest
        world.mm.munmap(target, new_length)
        if (tail := ptwalk.page_align(length) - ptwalk.page_align(new_length)) > 0:
            rest = (start + ptwalk.page_align(new_length)) % (1 << 64)
            with contextlib.suppress(KernelError):
                world.mm.munmap(rest, tail)
        return []
    done: list[object] = []
    at = start
    for vma in world.mm.vmas:
        if vma.end <= at or at >= start + length:
            continue
        if vma.start > at and name == "mprotect":
            break  # a hole; the other calls go on behind it
        at = max(at, vma.start)
        end = min(vma.end, start + length)
        try:
            done.append(call(world, (name, at, end - at, *rest)))
        except KernelError:
            break
        at = end
    return done


@pytest.mark.parametrize("profile", ptwalk.profiles())
@settings(max_examples=400, deadline=None)
@given(program=OPS, op=CALLS)
def test_a_failing_call_changes_nothing(profile: str, program: list[Op], op: Op) -> None:
    world, twin = World(profile, program), World(profile, program)
    before = world.snapshot()
    error = failure(world, op)
    if error:
        name, number = op[0], errno.errorcode[error.errno or 0]
        event(f"{name}: {number}")
        parts: list[object] = []
        if world.snapshot() != before:
            assert (name, number) in HALF_DONE
            parts = in_pieces(twin, op)
            assert world.snapshot() == twin.snapshot()
            assert isinstance(error.done, ProtectResult) == (name in ("mprotect", "writeprotect"))
        if isinstance(error.done, ProtectResult):
            results = [part for part in parts if isinstance(part, ProtectResult)]
            assert error.done.pages == sum(result.pages for result in results)
        else:
            assert error.done is None
    check(world)


# Where the kernel stops half-way. mprotect and writeprotect say in `done` how far they got; madvise
# goes on behind a hole, and mremap unmaps its target before it judges the source.
# (do_mprotect_pkey, mwriteprotect_range, do_madvise, mremap_to)
HALF_DONE = {
    ("mprotect", "ENOMEM"),
    ("mprotect", "EACCES"),
    ("writeprotect", "ENOENT"),
    ("madvise", "ENOMEM"),
    ("madvise", "EINVAL"),
    ("mremap", "EFAULT"),
    ("mremap", "EINVAL"),
}
