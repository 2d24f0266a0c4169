"""Many ranges in one call: equal to a call for each, and errors that say how far it got."""

from __future__ import annotations

import errno
from typing import Any

import numpy as np
import ptwalk
import pytest
from ptwalk import AddressSpace, InvalidArgument, KernelError, ShmemFile, Userfaultfd
from ptwalk.ranges import RangesDone

START, PAGE, PAGES = 0x7F0000000000, 4096, 2000


def registered() -> tuple[AddressSpace, Userfaultfd]:
    mm = AddressSpace("6.18")
    mm.mmap(START, PAGES * PAGE, "rw-", "shared", ShmemFile(PAGES * PAGE))
    mm.access_many(START + np.arange(0, PAGES, 3, dtype=np.uint64) * PAGE, write=True)
    uffd = mm.userfaultfd()
    uffd.register(START, PAGES * PAGE, "wp")
    return mm, uffd


def some_ranges(seed: int, nr: int) -> np.ndarray[Any, np.dtype[np.uint64]]:
    rng = np.random.default_rng(seed)
    starts = START + rng.integers(0, PAGES - 20, nr, dtype=np.uint64) * PAGE
    return np.stack([starts, rng.integers(1, 20, nr, dtype=np.uint64) * PAGE], axis=1)


@pytest.mark.parametrize("protect", [True, False])
def test_writeprotect_many_is_writeprotect_one_after_another(protect: bool) -> None:
    (many, uffd), (single, other) = registered(), registered()
    for each in (uffd, other):
        each.writeprotect(START, 900 * PAGE)
    ranges = some_ranges(1, 300)
    total = uffd.writeprotect_many(ranges, protect=protect)
    results = [other.writeprotect(int(a), int(n), protect=protect) for a, n in ranges]
    assert total.pages == sum(result.pages for result in results)
    assert total.present == sum(result.present for result in results)
    flushes = [result.flush for result in results if result.flush]
    assert total.flush == (min(f[0] for f in flushes), max(f[1] for f in flushes))
    assert total.notifier == tuple(start for result in results for start in result.notifier)
    np.testing.assert_array_equal(many.ptes(START, PAGES * PAGE), single.ptes(START, PAGES * PAGE))
    assert many.stats == single.stats


def test_mprotect_many_is_mprotect_one_after_another() -> None:
    (many, _), (single, _) = registered(), registered()
    ranges = some_ranges(2, 100)
    total = many.mprotect_many(ranges, "r--", threads=2)
    results = [single.mprotect(int(a), int(n), "r--") for a, n in ranges]
    assert total.pages == sum(result.pages for result in results)
    assert [str(vma) for vma in many.vmas] == [str(vma) for vma in single.vmas]
    np.testing.assert_array_equal(many.ptes(START, PAGES * PAGE), single.ptes(START, PAGES * PAGE))


def test_waiters_are_woken() -> None:
    mm, uffd = registered()
    uffd.writeprotect(START, 10 * PAGE)
    assert mm.access(START, write=True).outcome == "blocked"
    assert uffd.writeprotect_many([(START, PAGE)], protect=False, wake=False).pages == 1
    assert not mm.pending[0].woken
    uffd.writeprotect_many([(START, PAGE)], protect=False)
    assert mm.pending[0].woken


def test_an_error_says_which_range_and_what_was_done() -> None:
    mm, uffd = registered()
    ranges = [(START, 2 * PAGE), (START + 1, PAGE), (START + 9 * PAGE, PAGE)]
    with pytest.raises(KernelError, match=r"start 0x.*not page aligned.*range 1 of 3") as caught:
        uffd.writeprotect_many(ranges)
    done = caught.value.done
    assert isinstance(done, RangesDone)
    assert (caught.value.errno, done.ranges, done.result.pages) == (errno.EINVAL, 1, 2)
    mm.munmap(START + 5 * PAGE, PAGE)
    with pytest.raises(KernelError, match="range 0 of 1") as caught:
        mm.mprotect_many([(START, 20 * PAGE)], "r--")
    assert (caught.value.errno, caught.value.done.ranges) == (errno.ENOMEM, 0)
    assert caught.value.done.result.pages == 2  # those present before the hole
    uffd.close()
    with pytest.raises(KernelError, match="closed") as caught:
        uffd.writeprotect_many(ranges)
    assert caught.value.done == RangesDone(0, ptwalk.AddressSpace().mprotect_many([], "r--"))


@pytest.mark.parametrize("dtype", [np.uint64, np.int64, np.uint32])
def test_any_integers_do(dtype: type[np.generic]) -> None:
    mm = AddressSpace("6.18")
    mm.mmap(0x10000000, 16 * PAGE, "rw-")
    mm.populate(0x10000000, 16 * PAGE, write=True)
    ranges = np.array([[0x10000000, PAGE], [0x10002000, 2 * PAGE]], dtype)
    assert mm.mprotect_many(ranges, "r--").pages == 3
    assert mm.mprotect_many(np.asfortranarray(ranges), "rw-").pages == 3
    assert mm.mprotect_many(iter([]), "r--").pages == 0


@pytest.mark.parametrize(
    "ranges",
    [
        [(START,)],
        [START, PAGE],
        [(START, 1.5)],
        [(-1, PAGE)],
        [(1 << 64, PAGE)],
        np.zeros(4, np.uint64),
        np.zeros((2, 3), np.uint64),
        np.zeros((1, 2), np.float64),
        np.array([[-4096, 4096]]),
        5,
    ],
)
def test_what_are_no_ranges_is_refused(ranges: Any) -> None:
    mm, uffd = registered()
    with pytest.raises(InvalidArgument, match="ranges"):
        mm.mprotect_many(ranges, "r--")
    with pytest.raises(InvalidArgument, match="ranges"):
        uffd.writeprotect_many(ranges)
