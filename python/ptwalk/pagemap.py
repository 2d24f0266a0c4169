"""/proc/PID/pagemap as columns: one row for each page that is not empty.

Models nothing: it reads what fs/proc/task_mmu.c shows of a process. Holes are skipped with
PAGEMAP_SCAN (6.7 and later), so that reserved terabytes cost nothing; older kernels are read in
blocks of words, about a second for each reserved TiB. Writing (WP_MATCHING) is left out.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

PAGE_SHIFT = 12
PAGE_SIZE = 1 << PAGE_SHIFT

# Bits of a pagemap word (fs/proc/task_mmu.c, v6.18; Documentation/admin-guide/mm/pagemap.rst).
PM_PRESENT = 1 << 63
PM_SWAP = 1 << 62
PM_FILE = 1 << 61
PM_GUARD_REGION = 1 << 58
PM_UFFD_WP = 1 << 57
PM_MMAP_EXCLUSIVE = 1 << 56
PM_SOFT_DIRTY = 1 << 55
PM_PFRAME_MASK = (1 << 55) - 1

# Categories of PAGEMAP_SCAN (include/uapi/linux/fs.h, v6.18).
PAGE_IS_PRESENT = 1 << 3
PAGE_IS_SWAPPED = 1 << 4
PAGE_IS_PFNZERO = 1 << 5
PAGE_IS_HUGE = 1 << 6

PAGEMAP_SCAN = 0xC0606610  # _IOWR('f', 16, struct pm_scan_arg)
_SCAN_ARG = struct.Struct("12Q")  # size flags start end walk_end vec vec_len max_pages, 4 masks
_SCAN_REGIONS = 1 << 15  # page_regions that one ioctl may return
_NO_SCAN = {errno.ENOTTY, errno.ENOSYS, errno.EINVAL, errno.EPERM, errno.EOPNOTSUPP}

_BLOCK = 1 << 18  # words that are read before the empty ones are dropped (2 MiB)
_GAP = 128  # empty pages that are cheaper to read than another system call

U64 = npt.NDArray[np.uint64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False, slots=True)
class Entries:
    """Pagemap words of the pages that are not empty, in order of address.

    A page is empty when its word is 0 but for PM_SOFT_DIRTY, which a VMA gives to all its pages.

    Attributes
    ----------
    address : ndarray of uint64, shape (n,)
        Addresses of the pages, in bytes.
    word : ndarray of uint64, shape (n,)
        Their pagemap words; PFN and swap fields are 0 without CAP_SYS_ADMIN.
    zero : ndarray of bool, shape (n,), or None
        The page is the zero page. None where the kernel has no PAGEMAP_SCAN.
    huge : ndarray of bool, shape (n,), or None
        The page is mapped by a PMD leaf or is a hugetlb page. None without PAGEMAP_SCAN.
    """

    address: U64
    word: U64
    zero: Flags | None
    huge: Flags | None

    def __len__(self) -> int:
        return len(self.address)

    def __repr__(self) -> str:
        return f"Entries(pages={len(self)}, present={self.present}, swap={self.swap})"

    @property
    def present(self) -> int:
        """Number of pages with PM_PRESENT."""
        return self.count(PM_PRESENT)

    @property
    def swap(self) -> int:
        """Number of pages with PM_SWAP: swapped, migrating, or a marker."""
        return self.count(PM_SWAP)

    @property
    def pfn_visible(self) -> bool:
        """Whether the kernel shows page frame numbers to the reader (CAP_SYS_ADMIN)."""
        return bool(np.any(self.word & np.uint64(PM_PFRAME_MASK)))

    def count(self, bits: int) -> int:
        """Count the pages that have one of `bits` in their word."""
        return int(np.count_nonzero(self.word & np.uint64(bits)))

    def within(self, start: int, end: int) -> Entries:
        """Return views of the rows in ``[start, end)``."""
        bounds = np.array([start, end], dtype=np.uint64)
        first, last = np.searchsorted(self.address, bounds).tolist()
        return self._select(slice(first, last))

    def inside(self, ranges: U64) -> Entries:
        """Return the rows inside `ranges`, sorted (start, end) pairs of shape (n, 2)."""
        if not len(ranges):
            return self._select(slice(0, 0))
        at = np.searchsorted(ranges[:, 0], self.address, "right") - 1
        keep = (at >= 0) & (self.address < ranges[at, 1])
        return self if keep.all() else self._select(keep)

    def runs(self) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
        """Return the row of the first page and the number of pages of each gapless run."""
        breaks = np.flatnonzero(np.diff(self.address) != PAGE_SIZE) + 1
        first = np.concatenate([np.zeros(min(len(self), 1), dtype=np.intp), breaks])
        return first, np.diff(first, append=len(self))

    def _select(self, rows: slice | Flags) -> Entries:
        return Entries(
            self.address[rows],
            self.word[rows],
            None if self.zero is None else self.zero[rows],
            None if self.huge is None else self.huge[rows],
        )


class Pagemap:
    """An open /proc/PID/pagemap.

    Parameters
    ----------
    fd : int
        The open file, which this object closes.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd

    @classmethod
    def open(cls, directory: str | int = "/proc/self") -> Pagemap:
        """Open the pagemap in a /proc/PID directory: its path, or an open descriptor."""
        flags = os.O_RDONLY | os.O_CLOEXEC
        if isinstance(directory, int):
            return cls(os.open("pagemap", flags, dir_fd=directory))
        return cls(os.open(f"{directory}/pagemap", flags))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

    def words(self, start: int, length: int) -> U64:
        """Read the pagemap words of a range, empty pages included.

        Parameters
        ----------
        start, length : int
            The range in bytes, page aligned and in user space.

        Returns
        -------
        ndarray of uint64, shape (length // 4096,)

        Raises
        ------
        ProcessLookupError
            The process has exited or has called execve since the file was opened.
        """
        words = np.empty(length >> PAGE_SHIFT, dtype=np.uint64)
        self._fill(words.data, start >> PAGE_SHIFT)
        return words

    def entries(self, ranges: U64, *, scan: bool = True) -> Entries:
        """Read the pages of `ranges` that are not empty.

        Parameters
        ----------
        ranges : ndarray of uint64, shape (n, 2)
            Page aligned (start, end) pairs in user space, sorted and disjoint.
        scan : bool
            Skip holes with PAGEMAP_SCAN where the kernel has it.

        Returns
        -------
        Entries
            `zero` and `huge` are those of the scan, a moment before `word`.

        Raises
        ------
        ProcessLookupError
            As for `words`.
        """
        regions = None
        if scan and len(ranges):
            regions = self._scan(int(ranges[0, 0]), int(ranges[-1, 1]))
        pages = (ranges if regions is None else regions[:, :2]) >> np.uint64(PAGE_SHIFT)
        columns = list(self._nonempty(_extents(pages)))
        empty = np.empty(0, dtype=np.uint64)
        address = np.concatenate([empty, *(a for a, _ in columns)])
        word = np.concatenate([empty, *(w for _, w in columns)])
        if regions is None:
            return Entries(address, word, None, None).inside(ranges)
        category = _category(regions, address)
        zero = (category & np.uint64(PAGE_IS_PFNZERO)) != 0
        huge = (category & np.uint64(PAGE_IS_HUGE)) != 0
        return Entries(address, word, zero, huge).inside(ranges)

    def _scan(self, start: int, end: int) -> U64 | None:
        """Return page_regions (start, end, categories) of all that is not none, or None."""
        vec = np.empty((_SCAN_REGIONS, 3), dtype=np.uint64)
        found = [vec[:0]]
        anyof, returned = PAGE_IS_PRESENT | PAGE_IS_SWAPPED, PAGE_IS_PFNZERO | PAGE_IS_HUGE
        n = len(vec)
        while n == len(vec) and start < end:
            masks = (0, 0, anyof, returned)
            head = (_SCAN_ARG.size, 0, start, end, 0, vec.ctypes.data, len(vec), 0)
            arg = bytearray(_SCAN_ARG.pack(*head, *masks))
            try:
                n = fcntl.ioctl(self._fd, PAGEMAP_SCAN, arg)
            except OSError as e:
                if e.errno in _NO_SCAN:
                    return None
                raise
            found.append(vec[:n].copy())
            # Not walk_end: do_pagemap_scan leaves that of an earlier of its own, shorter buffers.
            start = int(vec[n - 1, 1])
        return np.concatenate(found)

    def _nonempty(self, extents: U64) -> Iterator[tuple[U64, U64]]:
        """Yield (addresses, words) of the pages of `extents` that are not empty."""
        words = np.empty(_BLOCK, dtype=np.uint64)
        view = words.data
        for block in _blocks(extents):
            at = 0
            for first, count in block:
                self._fill(view[at : at + count], first)
                at += count
            index = np.flatnonzero(words[:at])
            index = index[(words[index] & np.uint64(~PM_SOFT_DIRTY % 2**64)) != 0]
            firsts, counts = np.array(block, dtype=np.uint64).T
            offsets = np.cumsum(counts) - counts
            rows = index.astype(np.uint64)
            piece = np.searchsorted(offsets, rows, "right") - 1
            page = firsts[piece] + (rows - offsets[piece])
            yield page << np.uint64(PAGE_SHIFT), words[index]

    def _fill(self, view: memoryview[int], page: int) -> None:
        """Fill `view` with words from `page` on; reads may come back short."""
        while len(view):
            n = os.preadv(self._fd, [view], page * 8) // 8
            if n == 0:  # pagemap_read: mmget_not_zero failed
                raise ProcessLookupError(errno.ESRCH, "the address space is gone")
            view, page = view[n:], page + n


def _extents(pages: U64) -> U64:
    """Join (first, end) page ranges that lie less than `_GAP` pages apart into (first, count)."""
    if not len(pages):
        return pages
    first, end = pages[:, 0], pages[:, 1]
    apart = first[1:] - end[:-1] > _GAP
    first = first[np.concatenate([[True], apart])]
    end = end[np.concatenate([apart, [True]])]
    return np.stack([first, end - first], axis=1)


def _blocks(extents: U64) -> Iterator[list[tuple[int, int]]]:
    """Cut (first, count) extents into blocks of at most `_BLOCK` pages."""
    block: list[tuple[int, int]] = []
    room = _BLOCK
    for first, count in extents.tolist():
        at, end = first, first + count
        while at < end:
            n = min(end - at, room)
            block.append((at, n))
            at, room = at + n, room - n
            if not room:
                yield block
                block, room = [], _BLOCK
    if block:
        yield block


def _category(regions: U64, address: U64) -> U64:
    """Return the scan's categories for each address; 0 for one that no region holds."""
    if not len(regions):
        return np.zeros(len(address), dtype=np.uint64)
    at = np.searchsorted(regions[:, 0], address, "right") - 1
    inside = (at >= 0) & (address < regions[at, 1])
    return np.where(inside, regions[at, 2], np.uint64(0))
