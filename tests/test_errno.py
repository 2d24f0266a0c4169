"""Every errno of the system calls, in the kernel's order of checks, by profile.

One row a rule of the specification: mprotect, and registration and wr-protect of userfaultfd; the
ioctls that fill pages are in test_errno_fills.py. A call that fails leaves the address space as it
was; where the kernel stops half-way, `done` says how far it got. Left out: EINTR, protection keys,
the commit limit, security modules.
"""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest
from errno_scene import (
    ALL,
    ANON,
    FILE_WP,
    FIRST,
    HOLE,
    HUGE,
    HUGETLB,
    MANY_VMAS,
    ONE_VMA,
    OTHER,
    PAGE,
    PRIVATE,
    READONLY,
    REGULAR,
    SECOND,
    SERIES,
    SHARED,
    TOP_PAGE,
    Row,
    Scene,
    cases,
    check_row,
    range_rows,
    registered,
    remove_unread,
)
from ptwalk import AddressSpace, KernelError, ProtectResult

GROWS_DOWN, GROWS_UP = 0x01000000, 0x02000000

MPROTECT = [
    Row(
        "mprotect: both grow flags, before alignment",
        errno.EINVAL,
        lambda s: s.mm.mprotect(ANON + 1, PAGE, GROWS_DOWN | GROWS_UP),
    ),
    Row(
        "mprotect: start unaligned, before len 0",
        errno.EINVAL,
        lambda s: s.mm.mprotect(ANON + 1, 0, 1),
    ),
    Row("mprotect: len 0, before bad prot", 0, lambda s: s.mm.mprotect(ANON, 0, 0x100)),
    Row(
        "mprotect: wraps, before bad prot",
        errno.ENOMEM,
        lambda s: s.mm.mprotect(ANON, TOP_PAGE, 0x100),
    ),
    Row(
        "mprotect: wraps when rounded up",
        errno.ENOMEM,
        lambda s: s.mm.mprotect(ANON, (1 << 64) - 1, 1),
    ),
    Row(
        "mprotect: bad prot, before the VMA",
        errno.EINVAL,
        lambda s: s.mm.mprotect(HOLE, PAGE, 0x100),
    ),
    Row("mprotect: no VMA", errno.ENOMEM, lambda s: s.mm.mprotect(HOLE, PAGE, "r--")),
    Row("mprotect: grows down", errno.EINVAL, lambda s: s.mm.mprotect(ANON, PAGE, GROWS_DOWN | 1)),
    Row("mprotect: no MAY flag", errno.EACCES, lambda s: s.mm.mprotect(READONLY, PAGE, "rw-")),
    Row("mprotect: same flags", 0, lambda s: s.mm.mprotect(READONLY, HUGE, "r--")),
]


def registered_by_hand(s: Scene) -> None:
    s.uffd.register(SHARED, HUGE, "missing")
    s.mm.set_vm_flags(SHARED, HUGE, add="uffd_wp")


WRITEPROTECT = [
    *range_rows("writeprotect", lambda s, at, n: s.uffd.writeprotect(at, n)),
    Row(
        "writeprotect: mapping changes, before the range",
        errno.EAGAIN,
        lambda s: s.uffd.writeprotect(ANON + 1, PAGE),
        prepare=remove_unread,
        features="event_remove",
    ),
    Row(
        "writeprotect: event read, no longer changing",
        0,
        lambda s: (s.uffd.read(), s.uffd.writeprotect(ANON + PAGE, PAGE)),
        prepare=remove_unread,
        features="event_remove",
    ),
    Row(
        "writeprotect: range, before the mode",
        errno.EINVAL,
        lambda s: s.uffd.writeprotect(0, PAGE, mode=4),
    ),
    Row(
        "writeprotect: unknown mode, before the VMA",
        errno.EINVAL,
        lambda s: s.uffd.writeprotect(HOLE, PAGE, mode=4),
    ),
    Row(
        "writeprotect: WP with DONTWAKE",
        errno.EINVAL,
        lambda s: s.uffd.writeprotect(ANON, PAGE, mode=3),
    ),
    Row("writeprotect: no VMA", errno.ENOENT, lambda s: s.uffd.writeprotect(HOLE, PAGE)),
    Row("writeprotect: not registered", errno.ENOENT, lambda s: s.uffd.writeprotect(SHARED, PAGE)),
    Row(
        "writeprotect: over two VMAs",
        errno.ENOENT,
        lambda s: s.uffd.writeprotect(SECOND - PAGE, 2 * PAGE),
        ONE_VMA,
    ),
    Row(
        "writeprotect: starts in a hole",
        errno.ENOENT,
        lambda s: s.uffd.writeprotect(HOLE, 2 * HUGE),
    ),
    Row(
        "writeprotect: registered for missing only",
        errno.ENOENT,
        lambda s: s.uffd.writeprotect(PRIVATE, PAGE),
        prepare=registered(PRIVATE, "missing"),
    ),
    Row(
        "writeprotect: shared memory before patch 23",
        errno.ENOENT,
        lambda s: s.uffd.writeprotect(SHARED, PAGE),
        FIRST,
        prepare=registered_by_hand,
    ),
    Row(
        "writeprotect: hugetlb unaligned",
        errno.EINVAL,
        lambda s: s.uffd.writeprotect(HUGETLB + PAGE, PAGE),
        FILE_WP,
        prepare=registered(HUGETLB, "wp"),
    ),
]

REGISTER = [
    *range_rows("register", lambda s, at, n: s.uffd.register(at, n, "wp")),
    Row(
        "register: mode 0, before the range",
        errno.EINVAL,
        lambda s: s.uffd.register(ANON + 1, PAGE, 0),
    ),
    Row("register: unknown mode", errno.EINVAL, lambda s: s.uffd.register(ANON, PAGE, 8)),
    Row("register: no VMA", errno.EINVAL, lambda s: s.uffd.register(HOLE, HUGE, "wp")),
    Row("register: disk file", errno.EINVAL, lambda s: s.uffd.register(REGULAR, HUGE, "wp")),
    Row(
        "register: disk file with WP_ASYNC",
        0,
        lambda s: s.uffd.register(REGULAR, HUGE, "wp"),
        MANY_VMAS,
        features="wp_async",
    ),
    Row(
        "register: disk file with WP_ASYNC, but not for wp alone",
        errno.EINVAL,
        lambda s: s.uffd.register(REGULAR, HUGE, "wp|missing"),
        MANY_VMAS,
        features="wp_async",
    ),
    Row(
        "register: shared memory for wp before patch 23",
        errno.EINVAL,
        lambda s: s.uffd.register(SHARED, HUGE, "wp"),
        FIRST,
    ),
    Row("register: shared memory", 0, lambda s: s.uffd.register(SHARED, HUGE, "wp"), FILE_WP),
    Row("register: minor anonymous", errno.EINVAL, lambda s: s.uffd.register(ANON, PAGE, "minor")),
    Row(
        "register: minor shared memory",
        errno.EINVAL,
        lambda s: s.uffd.register(SHARED, PAGE, "minor"),
        SERIES,
    ),
    Row(
        "register: special VMA",
        errno.EINVAL,
        lambda s: s.uffd.register(OTHER, HUGE, "wp"),
        prepare=lambda s: s.mm.set_vm_flags(OTHER, HUGE, add="pfnmap"),
    ),
    Row(
        "register: no VM_MAYWRITE",
        errno.EPERM,
        lambda s: s.uffd.register(READONLY, HUGE, "missing"),
    ),
    Row("register: of another", errno.EBUSY, lambda s: s.uffd.register(OTHER, HUGE, "wp")),
    Row(
        "register: hugetlb unaligned",
        errno.EINVAL,
        lambda s: s.uffd.register(HUGETLB, HUGE + PAGE, "missing"),
    ),
    Row("api: unknown feature", errno.EINVAL, lambda s: s.mm.userfaultfd(1 << 40)),
]

UNREGISTER = [
    *range_rows("unregister", lambda s, at, n: s.uffd.unregister(at, n)),
    Row("unregister: no VMA", errno.EINVAL, lambda s: s.uffd.unregister(HOLE, HUGE)),
    Row("unregister: disk file", errno.EINVAL, lambda s: s.uffd.unregister(REGULAR, HUGE)),
    Row("unregister: not registered", 0, lambda s: s.uffd.unregister(SHARED, HUGE)),
    Row(
        "unregister: of another",
        errno.EINVAL,
        lambda s: s.uffd.unregister(OTHER, HUGE),
        MANY_VMAS,
    ),
    Row("unregister: of another", 0, lambda s: s.uffd.unregister(OTHER, HUGE), ONE_VMA),
]


@pytest.mark.parametrize(
    ("profile", "row"), cases([*MPROTECT, *WRITEPROTECT, *REGISTER, *UNREGISTER])
)
def test_errno(profile: str, row: Row) -> None:
    check_row(profile, row)


# --- calls that the kernel leaves half done -------------------------------------------------------
@pytest.mark.parametrize("profile", ALL)
@pytest.mark.parametrize(
    ("start", "length", "prot", "number", "pieces"),
    [
        (ANON, 4 * HUGE, "---", errno.ENOMEM, [(ANON, 2 * HUGE), (SECOND, HUGE)]),
        (SHARED, HUGE + PAGE, "r--", errno.ENOMEM, [(SHARED, HUGE)]),
        (OTHER, 3 * HUGE, "r--", errno.ENOMEM, [(OTHER, HUGE)]),
    ],
)
def test_mprotect_stops_at_a_hole(
    profile: str, start: int, length: int, prot: str, number: int, pieces: list[tuple[int, int]]
) -> None:
    scene, twin = Scene(profile), Scene(profile)
    with pytest.raises(KernelError) as caught:
        scene.mm.mprotect(start, length, prot)
    assert caught.value.errno == number
    parts = [twin.mm.mprotect(*piece, prot) for piece in pieces]
    assert scene.snapshot()[3:] == twin.snapshot()[3:]
    assert [repr(vma) for vma in scene.mm.vmas] == [repr(vma) for vma in twin.mm.vmas]
    assert isinstance(caught.value.done, ProtectResult)
    assert caught.value.done.pages == sum(part.pages for part in parts) > 0


@pytest.mark.parametrize("profile", ALL)
def test_mprotect_stops_where_the_right_is_missing(profile: str) -> None:
    scene = Scene(profile)
    scene.mm.mmap(READONLY - HUGE, HUGE, "r--", "private|anonymous|fixed")
    with pytest.raises(KernelError, match="EACCES"):
        scene.mm.mprotect(READONLY - HUGE, 2 * HUGE, "rw-")
    prots = {vma.start: vma.permissions for vma in scene.mm.vmas}
    assert (prots[READONLY - HUGE], prots[READONLY]) == ("rw-p", "r--s")


@pytest.mark.parametrize("profile", MANY_VMAS)
@pytest.mark.parametrize(("at", "length"), [(SECOND - PAGE, 5 * HUGE), (ANON, 5 * HUGE)])
def test_writeprotect_stops_at_a_vma_not_registered(profile: str, at: int, length: int) -> None:
    """The hole between them is skipped; what lies before it stays protected."""
    scene, twin = Scene(profile), Scene(profile)
    with pytest.raises(KernelError, match="ENOENT") as caught:
        scene.uffd.writeprotect(at, length)
    result = twin.uffd.writeprotect(at, HOLE - at)
    assert caught.value.done == result
    assert scene.snapshot()[3:] == twin.snapshot()[3:]


@pytest.mark.parametrize("profile", MANY_VMAS)
def test_writeprotect_skips_holes(profile: str) -> None:
    scene = Scene(profile)
    scene.mm.munmap(SHARED, HUGE)
    result = scene.uffd.writeprotect(ANON, 5 * HUGE)
    assert (result.pages, result.none_skipped) == (1, 3 * 512 - 1)


@pytest.mark.parametrize("profile", MANY_VMAS)
def test_writeprotect_without_memory_for_a_table(profile: str) -> None:
    scene = Scene(profile, "wp_unpopulated")
    scene.mm.fail_table_alloc(1)
    with pytest.raises(KernelError, match="ENOMEM"):
        scene.uffd.writeprotect(ANON + HUGE, HUGE)
    assert not scene.mm.ptes(ANON + HUGE, HUGE).any()


# --- the limit of VMAs ----------------------------------------------------------------------------
def crowded() -> AddressSpace:
    """Return an address space with 65530 VMAs, the most that vm.max_map_count allows."""
    mm = AddressSpace("6.18")
    for i in range(65530 - 1):
        mm.load_vma((1 << 30) + i * PAGE, (1 << 30) + (i + 1) * PAGE, "read", kind="other")
    mm.mmap(ANON, HUGE, "rw-")
    return mm


def test_no_call_may_split_beyond_the_limit_of_vmas() -> None:
    mm = crowded()
    uffd = mm.userfaultfd()
    calls: list[Callable[[], object]] = [
        lambda: mm.mprotect(ANON + PAGE, PAGE, "r--"),
        lambda: mm.munmap(ANON + PAGE, PAGE),
        lambda: uffd.register(ANON + PAGE, PAGE, "wp"),
        lambda: mm.madvise(ANON + PAGE, PAGE, "dontfork"),
    ]
    for call in calls:
        with pytest.raises(KernelError, match=r"ENOMEM.*65530"):
            call()
        assert mm.stats.vmas == 65530
    mm.mmap(HOLE, PAGE, "rw-")  # one more is let through, as the kernel does
    with pytest.raises(KernelError, match=r"ENOMEM.*65530"):
        mm.mmap(HOLE + HUGE, PAGE, "rw-")
    mm.munmap(ANON, HUGE)
