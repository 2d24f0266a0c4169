"""What the tests of errors share: an address space to fail on, and rules as rows.

The space has one mapping of each sort that a system call tells apart, with gaps between them; every
profile can set it up. `snapshot` holds all that a failing call must leave alone.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import ptwalk
import pytest
from ptwalk import AddressSpace, KernelError, RegularFile, ShmemFile, Userfaultfd, Vm

PAGE, HUGE = 4096, 2 << 20
ALL = ptwalk.profiles()
FIRST = ("5.12", "uffd-wp-v2-11")  # before patch 23
SERIES = (*FIRST, "uffd-wp-v2")
ONE_VMA = (*SERIES, "6.1")
MANY_VMAS = ("6.12", "6.18")
MAINLINE = ("6.1", *MANY_VMAS)
FILE_WP = ("uffd-wp-v2", *MAINLINE)
TASK_SIZE = (1 << 47) - PAGE
TOP_PAGE = (1 << 64) - PAGE

ANON = 0x7F0000000000  # private anonymous, 4 MiB, registered for wp, page 0 written
SECOND = ANON + 2 * HUGE  # the next 2 MiB, read-only, so another VMA; registered as well
HOLE = ANON + 3 * HUGE  # 2 MiB of nothing
SHARED = ANON + 4 * HUGE  # memfd, shared, 2 MiB, page 0 written
PRIVATE = ANON + 6 * HUGE  # memfd, private, 2 MiB
REGULAR = ANON + 8 * HUGE  # file of a disk file system, shared, 2 MiB
READONLY = ANON + 10 * HUGE  # memfd opened for reading, shared, 2 MiB
OTHER = ANON + 12 * HUGE  # private anonymous, 2 MiB, registered with the other userfaultfd
HUGETLB = ANON + 14 * HUGE  # hugetlb, 4 MiB, as a VMA only
SPAN = 18 * HUGE


class Scene:
    """An address space with a mapping of each sort and two userfaultfds."""

    def __init__(self, profile: str, features: str | int = 0) -> None:
        self.mm = mm = AddressSpace(profile)
        self.uffd: Userfaultfd = mm.userfaultfd(features)
        self.other: Userfaultfd = mm.userfaultfd()
        self.children: list[AddressSpace] = []  # that forks left living
        mm.mmap(ANON, 2 * HUGE, "rw-")
        mm.mmap(SECOND, HUGE, "r--")
        mm.mmap(SHARED, HUGE, "rw-", "shared", ShmemFile(HUGE))
        mm.mmap(PRIVATE, HUGE, "rw-", "private", ShmemFile(HUGE))
        mm.mmap(REGULAR, HUGE, "rw-", "shared", RegularFile(HUGE))
        mm.mmap(READONLY, HUGE, "r--", "shared", ShmemFile(HUGE, writable=False))
        mm.mmap(OTHER, HUGE, "rw-")
        flags = Vm.READ | Vm.WRITE | Vm.MAYREAD | Vm.MAYWRITE | Vm.SHARED | Vm.MAYSHARE | Vm.HUGETLB
        mm.load_vma(HUGETLB, HUGETLB + 2 * HUGE, flags, kind="hugetlb")
        self.uffd.register(ANON, 3 * HUGE, "wp")
        self.other.register(OTHER, HUGE, "wp")
        for addr in (ANON, SHARED, OTHER):
            mm.access(addr, write=True)

    def snapshot(self) -> tuple[Any, ...]:
        mm = self.mm
        ptes, levels = mm.ptes(ANON, SPAN), mm.levels(ANON, SPAN)
        return mm.vmas, mm.stats, mm.pending, ptes.tobytes(), levels.tobytes()


Call = Callable[[Scene], object]


@dataclass(frozen=True)
class Row:
    """A call, what it must end in (0: success), where, and what comes before it."""

    name: str
    number: int
    call: Call
    profiles: tuple[str, ...] = ALL
    prepare: Call | None = None
    features: str | int = 0


def marker(at: int) -> Call:
    """Return a step that puts the profile's uffd-wp marker into one entry."""

    def store(s: Scene) -> None:
        words = {"6.1": 0xF7FFFFFFFFFFFC00, "6.12": 0xFFFFFFFFFFFFFC00, "6.18": 0xFFFFFFFFFFFFFC00}
        s.mm.set_ptes(at, np.array([words.get(s.mm.profile, 0x4)], np.uint64))

    return store


def remove_unread(s: Scene) -> None:
    """Leave a REMOVE event unread: the mapping is changing until it is read."""
    s.mm.madvise(ANON, PAGE, "dontneed")


def registered(at: int, mode: str) -> Call:
    return lambda s: s.uffd.register(at, HUGE, mode)


def range_rows(name: str, call: Callable[[Scene, int, int], object]) -> list[Row]:
    """Return the checks of validate_range, with which every range ioctl begins."""
    ranges = {
        "start unaligned": (ANON + 1, PAGE),
        "len unaligned": (ANON, PAGE + 1),
        "len 0": (ANON, 0),
        "below mmap_min_addr": (0, PAGE),
        "start at task size": (TASK_SIZE, PAGE),
        "leaves user memory": (TASK_SIZE - PAGE, 2 * PAGE),
        "wraps": (ANON, TOP_PAGE),
    }

    def at(start: int, length: int) -> Call:
        return lambda s: call(s, start, length)

    return [Row(f"{name}: {what}", errno.EINVAL, at(*span)) for what, span in ranges.items()]


def prepared(profile: str, row: Row) -> Scene:
    scene = Scene(profile, row.features)
    if row.prepare:
        row.prepare(scene)
    return scene


def check_row(profile: str, row: Row) -> None:
    """Make the call of a row; an error must be the right one and leave everything as it was."""
    scene = prepared(profile, row)
    if not row.number:
        row.call(scene)
        return
    before = scene.snapshot()
    with pytest.raises(KernelError) as caught:
        row.call(scene)
    assert caught.value.errno == row.number, str(caught.value)
    assert scene.snapshot() == before


def cases(rows: Iterable[Row]) -> list[Any]:
    """Return each row with each of its profiles, as parameters."""
    return [
        pytest.param(profile, row, id=f"{profile}-{row.name}")
        for row in rows
        for profile in row.profiles
    ]
