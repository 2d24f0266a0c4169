"""Threads: one machine used by many at once, many machines, views that outlive spaces."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import ptwalk

THREADS, ROUNDS, LENGTH = 8, 60, 2 << 20
GIB = 1 << 30


def hammer(work: Callable[[int], None]) -> None:
    """Run `work` in many threads that start at the same moment."""
    gate = threading.Barrier(THREADS)

    def start(number: int) -> None:
        gate.wait(timeout=60)
        work(number)

    with ThreadPoolExecutor(THREADS) as pool:
        for done in [pool.submit(start, number) for number in range(THREADS)]:
            done.result(timeout=240)


def protect_cycle(mm: ptwalk.AddressSpace, number: int) -> None:
    """Map, fault in, protect, resolve and unmap in a slot of its own."""
    base = (number + 1) * GIB
    uffd = mm.userfaultfd()
    for _ in range(ROUNDS):
        mm.mmap(base, LENGTH, "rw-", "shared|fixed", ptwalk.ShmemFile(LENGTH))
        mm.populate(base, 16 * 4096, write=True)
        uffd.register(base, LENGTH, "wp")
        result = uffd.writeprotect(base, LENGTH)
        assert (result.present, result.none_to_marker) == (16, 496)
        assert mm.access(base, write=True).outcome == "blocked"
        assert uffd.writeprotect(base, LENGTH, protect=False).pages == 512
        assert mm.access(base, write=True).outcome == "done"
        assert np.count_nonzero(mm.ptes(base, LENGTH)) == 16
        mm.munmap(base, LENGTH)
    uffd.close()


def test_one_address_space() -> None:
    mm = ptwalk.AddressSpace("6.18")
    hammer(lambda number: protect_cycle(mm, number))
    assert mm.validate() == []
    assert mm.vmas == []
    assert mm.stats.tables_modelled == 1


def test_one_machine() -> None:
    machine = ptwalk.Machine("6.18")
    file = ptwalk.ShmemFile(LENGTH, machine=machine)

    def work(number: int) -> None:
        for _ in range(ROUNDS):
            mm = ptwalk.AddressSpace(machine=machine)
            vma = mm.mmap(GIB, LENGTH, "rw-", "shared", file)
            mm.access(vma.start + number * 4096, write=True)
            assert mm.count(vma.start, LENGTH)["present"] >= 1

    hammer(work)
    assert sorted(file.cached_pages.tolist()) == list(range(THREADS))


def test_machines_in_parallel() -> None:
    hammer(lambda number: protect_cycle(ptwalk.AddressSpace("6.18"), number))


def test_long_calls_let_short_ones_pass() -> None:
    length = 1 << 30
    mm = ptwalk.AddressSpace("6.18")
    mm.mmap(length, length, "rw-", "shared", ptwalk.ShmemFile(length))
    uffd = mm.userfaultfd()
    uffd.register(length, length, "wp")

    def work(number: int) -> None:
        for _ in range(4):
            if number % 2:
                assert uffd.writeprotect(length, length, protect=number % 4 == 1).pages >= 0
            else:
                assert len(mm.ptes(length, 32 << 20)) == 8192

    hammer(work)
    assert mm.validate() == []


def test_views_outlive_the_address_space() -> None:
    mm = ptwalk.AddressSpace("6.18")
    mm.mmap(GIB, 4096, "rw-")
    mm.access(GIB, write=True)
    tables, root = mm.tables(), (mm.cr3 >> 12) - mm.table_base
    before = tables[root].copy()
    assert before.any()
    del mm
    gc.collect()
    others = [ptwalk.AddressSpace("6.18") for _ in range(4)]
    assert all(other.stats.tables_modelled == 1 for other in others)
    assert tables[root].shape == before.shape  # the frames are still there to be read
