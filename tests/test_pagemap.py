"""Pagemap columns, from a file of known words and from processes.

The file judges what counts as empty; the processes judge PAGEMAP_SCAN against plain reads.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from live_processes import child
from ptwalk import pagemap
from ptwalk.pagemap import (
    PAGE_SIZE,
    PM_FILE,
    PM_GUARD_REGION,
    PM_PRESENT,
    PM_SOFT_DIRTY,
    PM_SWAP,
    PM_UFFD_WP,
    U64,
    Entries,
    Pagemap,
)

BASE = 0x100000000  # page 0x100000
WORDS = [
    PM_SOFT_DIRTY,  # none, in a soft-dirty VMA
    PM_PRESENT | PM_SOFT_DIRTY | 0x1234,
    0,
    PM_SWAP | PM_UFFD_WP | 0x3F,  # a marker
    PM_UFFD_WP,  # a marker of hugetlb
    PM_SWAP | PM_GUARD_REGION,
    0,
    PM_PRESENT | PM_FILE,
]
FULL = [1, 3, 4, 5, 7]  # rows of WORDS that are not empty


@pytest.fixture
def known(tmp_path: Path) -> Iterator[Pagemap]:
    path = tmp_path / "pagemap"
    with path.open("wb") as file:
        file.seek(BASE // PAGE_SIZE * 8)
        file.write(np.array(WORDS, dtype=np.uint64).tobytes())
    with Pagemap.open(str(tmp_path)) as it:
        yield it


def ranges(*pairs: tuple[int, int]) -> U64:
    return np.array(pairs, dtype=np.uint64).reshape(-1, 2)


ALL = ranges((BASE, BASE + len(WORDS) * PAGE_SIZE))


def test_words_are_the_whole_range(known: Pagemap) -> None:
    words = known.words(BASE, len(WORDS) * PAGE_SIZE)
    assert words.dtype == np.uint64
    assert words.tolist() == WORDS


@pytest.mark.parametrize("block", [1, 3, 1 << 18])
def test_entries_leave_out_empty_pages(
    known: Pagemap, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pagemap, "_BLOCK", block)
    entries = known.entries(ALL)
    assert entries.address.tolist() == [BASE + i * PAGE_SIZE for i in FULL]
    assert entries.word.tolist() == [WORDS[i] for i in FULL]
    assert (entries.present, entries.swap, len(entries)) == (2, 2, 5)
    assert entries.pfn_visible
    assert entries.zero is None  # a plain file has no PAGEMAP_SCAN
    assert entries.huge is None


def test_entries_outside_the_ranges_are_left_out(known: Pagemap) -> None:
    pairs = ranges((BASE, BASE + 2 * PAGE_SIZE), (BASE + 5 * PAGE_SIZE, BASE + 7 * PAGE_SIZE))
    assert ((known.entries(pairs).address - BASE) // PAGE_SIZE).tolist() == [1, 5]
    assert len(known.entries(ranges())) == 0


def test_short_reads_are_continued(known: Pagemap, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, sizes = os.preadv, []

    def short(fd: int, buffers: list[memoryview[int]], offset: int) -> int:
        sizes.append(len(buffers[0]))
        return whole(fd, [buffers[0][:2]], offset)

    monkeypatch.setattr(os, "preadv", short)
    assert known.words(BASE, len(WORDS) * PAGE_SIZE).tolist() == WORDS
    assert sizes == [8, 6, 4, 2]


def test_end_of_file_is_a_dead_address_space(known: Pagemap) -> None:
    with pytest.raises(ProcessLookupError):
        known.words(BASE, (len(WORDS) + 1) * PAGE_SIZE)


def test_runs_and_within(known: Pagemap) -> None:
    entries = known.entries(ALL)
    first, count = entries.runs()
    assert list(zip(first.tolist(), count.tolist(), strict=True)) == [(0, 1), (1, 3), (4, 1)]
    part = entries.within(BASE + 4 * PAGE_SIZE, BASE + 7 * PAGE_SIZE)
    assert part.word.tolist() == [WORDS[4], WORDS[5]]
    assert np.shares_memory(part.word, entries.word)
    empty = entries.within(BASE, BASE + PAGE_SIZE)
    assert [a.tolist() for a in empty.runs()] == [[], []]


TOUCHED = """
import mmap, ctypes
def put(m, i): m[i * 4096] = 1
a = mmap.mmap(-1, 1 << 40, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000)  # MAP_NORESERVE
a.madvise(15)  # MADV_NOHUGEPAGE
for i in (0, 2, 4, 600, 1 << 20, (1 << 28) - 1): put(a, i)
a[6 * 4096]
print(ctypes.addressof(ctypes.c_char.from_buffer(a)), flush=True)
"""
TIB = 1 << 40


def kernel_has_scan() -> bool:
    with Pagemap.open() as own:
        return own.entries(ranges((PAGE_SIZE, 2 * PAGE_SIZE))).zero is not None


needs_scan = pytest.mark.skipif(
    not kernel_has_scan(), reason=f"Linux {os.uname().release} has no PAGEMAP_SCAN (6.7)"
)


def read(pid: int, start: int, end: int, *, scan: bool) -> Entries:
    with Pagemap.open(f"/proc/{pid}") as it:
        return it.entries(ranges((start, end)), scan=scan)


@needs_scan
@pytest.mark.parametrize("regions", [1, 2, 1 << 15])
def test_a_reserved_terabyte_costs_what_is_touched(
    regions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = 0
    whole = os.preadv

    def counted(fd: int, buffers: list[memoryview[int]], offset: int) -> int:
        nonlocal words
        words += len(buffers[0])
        return whole(fd, buffers, offset)

    monkeypatch.setattr(pagemap, "_SCAN_REGIONS", regions)
    with child(TOUCHED) as it:
        start = int(it.line)
        monkeypatch.setattr(os, "preadv", counted)
        entries = read(it.pid, start, start + TIB, scan=True)
        pages = ((entries.address - np.uint64(start)) // PAGE_SIZE).tolist()
        assert pages == [0, 2, 4, 6, 600, 1 << 20, (1 << 28) - 1]
        assert entries.present == len(pages)
        assert words == 7 + 3  # [0, 7) in one read, 600, 2**20 and the last one
        assert entries.zero is not None
        assert entries.zero.tolist() == [False, False, False, True, False, False, False]


@needs_scan
def test_scan_and_plain_reads_give_the_same_columns() -> None:
    with child(TOUCHED) as it:
        start = int(it.line)
        end = start + (4 << 30) + PAGE_SIZE  # up to page 2**20
        scanned, plain = (read(it.pid, start, end, scan=scan) for scan in (True, False))
        assert len(plain) == 6
        assert plain.zero is None
        assert scanned.address.tolist() == plain.address.tolist()
        assert scanned.word.tolist() == plain.word.tolist()


SPARSE = """
import mmap
memory = mmap.mmap(-1, 4000 * 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
for page in range(0, 4000, 2):
    memory[page * 4096] = 1
import ctypes
print(ctypes.addressof(ctypes.c_char.from_buffer(memory)), flush=True)
"""


@needs_scan
@pytest.mark.parametrize("regions", [700, 2000, 1 << 15])
def test_more_regions_than_the_kernel_buffers(
    regions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pagemap, "_SCAN_REGIONS", regions)
    with child(SPARSE) as it:
        start = int(it.line)
        entries = read(it.pid, start, start + 4000 * PAGE_SIZE, scan=True)
    assert ((entries.address - np.uint64(start)) // PAGE_SIZE).tolist() == [*range(0, 4000, 2)]


HUGE = """
import mmap, ctypes
a = mmap.mmap(-1, 6 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
a.madvise(14)  # MADV_HUGEPAGE
start = ctypes.addressof(ctypes.c_char.from_buffer(a)) + (2 << 20) - 1 & -(2 << 20)
ctypes.memset(start, 1, 4096)
print(start, flush=True)
"""


@needs_scan
def test_pages_of_a_pmd_leaf_are_huge() -> None:
    with child(HUGE) as it:
        start = int(it.line)
        rollup = Path(f"/proc/{it.pid}/smaps_rollup").read_text()
        if "AnonHugePages:         0 kB" in rollup:
            pytest.skip("the kernel gave no huge page")
        entries = read(it.pid, start, start + (2 << 20), scan=True)
        assert entries.present == 512
        assert entries.huge is not None
        assert entries.huge.all()


def test_other_errors_of_the_scan_are_not_hidden(
    known: Pagemap, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> int:
        raise MemoryError

    monkeypatch.setattr(fcntl, "ioctl", fails)
    with pytest.raises(MemoryError):
        known.entries(ALL)
