"""What a call from Python costs, and what protecting a range costs, as users see them.

Run with ``pytest benchmarks/bench_calls.py --benchmark-enable``. Compare rows of one run; times of
two machines, or of two runs on a busy one, say nothing. ``ptwalk bench`` compares with others.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import ptwalk
import pytest
from ptwalk import _core, workload

BASE, PAGE = 0x100000000000, 4096


def registered(profile: str, length: int, *, touch: int) -> tuple[ptwalk.AddressSpace, Any]:
    """Return shared shmem registered for wp, with every `touch`-th page present."""
    mm = ptwalk.AddressSpace(profile)
    mm.mmap(BASE, length, "rw-", "shared", ptwalk.ShmemFile(length))
    mm.access_many(np.arange(BASE, BASE + length, touch * PAGE, dtype=np.uint64), write=True)
    uffd = mm.userfaultfd()
    uffd.register(BASE, length, "wp")
    return mm, uffd


def test_an_empty_call(benchmark: Any) -> None:
    benchmark(_core.empty_call, BASE, PAGE)


def test_the_smallest_call(benchmark: Any) -> None:
    mm, _ = registered("6.18", 1 << 21, touch=1)
    benchmark(mm.entry, BASE)


@pytest.mark.parametrize("write", [False, True])
def test_access(benchmark: Any, write: bool) -> None:
    mm, _ = registered("6.18", 1 << 21, touch=1)
    benchmark(mm.access, BASE, write=write)


def test_write_fault_and_its_resolution(benchmark: Any) -> None:
    mm, uffd = registered("6.18", 1 << 21, touch=1)

    def fault() -> None:
        uffd.writeprotect(BASE, PAGE)
        mm.access(BASE, write=True)
        uffd.read()
        uffd.writeprotect(BASE, PAGE, protect=False)
        mm.access(BASE, write=True)

    benchmark(fault)


def test_protect_16_pages_by_position(benchmark: Any) -> None:
    _, uffd = registered("6.18", 1 << 21, touch=1)
    benchmark(uffd.writeprotect, BASE, 16 * PAGE)


def test_protect_16_pages_by_keyword(benchmark: Any) -> None:
    _, uffd = registered("6.18", 1 << 21, touch=1)
    benchmark(uffd.writeprotect, start=BASE, length=16 * PAGE, protect=True)


def scattered(nr: int) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """Return that many ranges of four pages, eight pages apart."""
    starts = BASE + np.arange(nr, dtype=np.uint64) * 8 * PAGE
    return np.stack([starts, np.full(nr, 4 * PAGE, np.uint64)], axis=1)


def test_protect_4096_ranges_at_once(benchmark: Any) -> None:
    _, uffd = registered("6.18", 1 << 27, touch=1)
    benchmark(uffd.writeprotect_many, scattered(4096))


def test_protect_4096_ranges_in_a_loop(benchmark: Any) -> None:
    _, uffd = registered("6.18", 1 << 27, touch=1)
    ranges = scattered(4096).tolist()

    def loop() -> None:
        for start, length in ranges:
            uffd.writeprotect(start, length)

    benchmark(loop)


def test_mprotect_16_pages(benchmark: Any) -> None:
    mm, _ = registered("6.18", 1 << 21, touch=1)
    benchmark(mm.mprotect, BASE, 16 * PAGE, ptwalk.PROT_READ | ptwalk.PROT_WRITE)


def test_map_touch_and_unmap(benchmark: Any) -> None:
    mm = ptwalk.AddressSpace("6.18")

    def cycle() -> None:
        mm.mmap(BASE, 16 * PAGE, "rw-")
        mm.populate(BASE, 16 * PAGE, write=True)
        mm.munmap(BASE, 16 * PAGE)

    benchmark(cycle)


@pytest.mark.parametrize("pages", [1, 16, 512])
def test_protect_and_resolve(benchmark: Any, pages: int) -> None:
    _, uffd = registered("6.18", 1 << 21, touch=1)

    def both() -> None:
        uffd.writeprotect(BASE, pages * PAGE)
        uffd.writeprotect(BASE, pages * PAGE, protect=False)

    benchmark(both)


@pytest.mark.parametrize("profile", ["uffd-wp-v2", "6.18"])
@pytest.mark.parametrize("touch", [1, 512], ids=["all present", "one page in 2 MiB"])
def test_protect_and_resolve_1_gib(benchmark: Any, profile: str, touch: int) -> None:
    _, uffd = registered(profile, 1 << 30, touch=touch)

    def both() -> None:
        uffd.writeprotect(BASE, 1 << 30)
        uffd.writeprotect(BASE, 1 << 30, protect=False)

    benchmark(both)


def test_protect_and_resolve_1_tib_never_touched(benchmark: Any) -> None:
    def whole() -> None:
        w = workload.build("untouched", length=1 << 40)
        w.uffd.writeprotect(w.start, w.length)
        w.uffd.writeprotect(w.start, w.length, protect=False)

    benchmark(whole)


def test_export_1_gib(benchmark: Any) -> None:
    mm, _ = registered("6.18", 1 << 30, touch=1)
    out = np.empty(1 << 18, dtype=np.uint64)
    benchmark(lambda: mm.ptes(BASE, 1 << 30, out=out))


def test_translate_a_million_random_addresses(benchmark: Any) -> None:
    mm, _ = registered("6.18", 1 << 30, touch=1)
    addrs = BASE + np.random.default_rng(1).integers(0, 1 << 30, 1 << 20, dtype=np.uint64)
    benchmark(mm.translate, addrs, out=np.empty_like(addrs))
