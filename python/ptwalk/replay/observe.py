"""What ptwalk's address spaces look like, in the form of the recorded traces.

Entries become the two words a page of `trace.Pages`, VMAs the smaps-like dicts, mincore() the
characters of the traces. Models fs/proc/task_mmu.c:show_smap_vma_flags and mm/mincore.c (v6.18).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from ..address_space import AddressSpace
from ..pte import Kind, decode
from ..vma import Vma
from .trace import (
    CLS_SHIFT,
    EX_SHIFT,
    I64,
    KIND_SHIFT,
    MK_SHIFT,
    PAGE_KINDS,
    PAGE_SHIFT,
    PAGE_SIZE,
    PAGEMAP_SHIFT,
    PM_SHIFT,
    U64,
    Json,
    Region,
)

_PRESENT_BITS = np.uint64(1 << 0 | 1 << 8)
_STRAY = np.uint64(1 << 5 | 1 << 6)
_FRAME_FIELD = np.uint64(0x000F_FFFF_FFFF_F000)
_OFFSET_FIELD = np.uint64(((1 << 50) - 1) << 9)
_TYPE_SHIFT, _OFFSET_SHIFT = np.uint64(59), np.uint64(9)
_PG_ANON, _PG_ANON_EXCLUSIVE = 2, 4
_PTRS_PER_TABLE = 512
_LONG = 64  # pages; from here on equal neighbours are looked at once

# The names in smaps (fs/proc/task_mmu.c:show_smap_vma_flags, v6.18) that the traces keep.
_SMAPS = {
    0x8: "sh",
    0x200: "um",
    0x800: "gu",
    0x1000: "uw",
    0x2000: "lo",
    0x20000: "dc",
    0x2000000: "wf",
    0x8000000: "sd",
    0x20000000: "hg",
    0x40000000: "nh",
    0x2000000000: "ui",
}


@dataclass(frozen=True)
class Entries:
    """The entries of a range, equal neighbours once.

    Attributes
    ----------
    heads : ndarray of intp, (runs,)
        First page of each run, ascending; the first is 0.
    words : ndarray of uint64, (runs,)
        The entries.
    raw, facts : ndarray of uint64, (runs,)
        What `trace.Pages` holds of them.
    ids : ndarray of int64, (runs,)
        In place of names: the serial number of a page, minus one minus offset and type of a swap
        entry, 0 elsewhere.
    """

    heads: npt.NDArray[np.intp]
    words: U64
    raw: U64
    facts: U64
    ids: I64

    def runs_of(self, pages: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
        """Return the runs in which pages lie."""
        return self.heads.searchsorted(pages, side="right") - 1


@cache
def _kind_of_type(profile: str) -> npt.NDArray[np.uint8]:
    """Return the Kind of each swap type: that of an entry with nothing but the type."""
    types = np.arange(32, dtype=np.uint64) << _TYPE_SHIFT
    kinds: npt.NDArray[np.uint8] = decode(types | np.uint64(2), profile=profile)["kind"]
    return kinds


def observe(mm: AddressSpace, start: int, nr_pages: int) -> Entries:
    """Return the entries of a range as `trace.Pages` has them."""
    length = nr_pages * PAGE_SIZE
    words, levels = mm.ptes(start, length), mm.levels(start, length)
    pagemap = mm.pagemap(start, length)
    if nr_pages < _LONG:
        heads = np.arange(nr_pages)
    else:
        heads = _heads(start, words, levels, pagemap)
        words, levels = words[heads], levels[heads]
        pagemap = pagemap[_read_at(start, heads, levels)]
    facts = levels | pagemap >> np.uint64(PAGEMAP_SHIFT) << np.uint64(PM_SHIFT)
    return Entries(heads, words, *_classify(mm, start, words, facts, heads))


def _heads(
    start: int, words: U64, levels: npt.NDArray[np.uint8], pagemap: U64
) -> npt.NDArray[np.intp]:
    """Return the pages that differ from the one before or begin 2 MiB."""
    change = (words[1:] != words[:-1]) | (levels[1:] != levels[:-1])
    change |= pagemap[1:] != pagemap[:-1]
    slots = np.arange(-(start >> PAGE_SHIFT) % _PTRS_PER_TABLE, len(words), _PTRS_PER_TABLE)
    return np.union1d(np.flatnonzero(change) + 1, np.append(slots, 0))


def _read_at(
    start: int, pages: npt.NDArray[np.intp], levels: npt.NDArray[np.uint8]
) -> npt.NDArray[np.intp]:
    """Return the pages whose pagemap words were recorded for `pages` of a long region.

    The recorder read one word for all that lies under an empty entry of an upper level: that of
    its first page in the region.
    """
    bits = 9 * (levels.astype(np.intp) - 1)
    first = np.intp(start >> PAGE_SHIFT)
    under: npt.NDArray[np.intp] = np.maximum((first + pages) >> bits << bits, first)
    return under - first


def _classify(
    mm: AddressSpace, start: int, words: U64, facts: U64, pages: npt.NDArray[np.intp]
) -> tuple[U64, U64, I64]:
    """Add class, marker bits, page kind and exclusivity to `facts`; `pages` are their positions."""
    present = (words & _PRESENT_BITS) != 0
    none = (words & ~_STRAY) == 0
    kinds = _kind_of_type(mm.profile)[(words >> _TYPE_SHIFT).astype(np.intp)]
    kinds = np.where(none, Kind.NONE, np.where(present, Kind.PRESENT, kinds)).astype(np.uint64)
    offsets = (~words & _OFFSET_FIELD) >> _OFFSET_SHIFT
    marker = kinds == Kind.MARKER
    located = (kinds == Kind.SWAP) | (kinds == Kind.MIGRATION) | (kinds == Kind.HWPOISON)
    facts = facts | kinds << np.uint64(CLS_SHIFT)
    facts |= np.where(marker, offsets & np.uint64(0xF), np.uint64(0)) << np.uint64(MK_SHIFT)
    raw = np.where(present, words & ~_FRAME_FIELD, np.where(located, words & ~_OFFSET_FIELD, words))
    ids = np.where(located, -1 - (offsets << np.uint64(5) | words >> _TYPE_SHIFT).view(np.int64), 0)
    where = np.flatnonzero(present)
    if where.size:
        page = _pages_at(mm, start, pages[where])
        flags, ids[where] = page["flags"], page["serial"]
        anon = (flags & _PG_ANON) != 0
        kind = np.where(page["serial"] == 0, PAGE_KINDS["zero"], PAGE_KINDS["file"])
        kind[anon] = PAGE_KINDS["anon"]
        exclusive = np.where(anon, 1 + ((flags & _PG_ANON_EXCLUSIVE) != 0), 0)
        facts[where] |= (kind << KIND_SHIFT | exclusive << EX_SHIFT).astype(np.uint64)
    return raw, facts, ids


def _pages_at(mm: AddressSpace, start: int, pages: npt.NDArray[np.intp]) -> npt.NDArray[np.void]:
    """Return the page facts at ascending positions, with a call for each run of neighbours."""
    first, end = int(pages[0]), int(pages[-1]) + 1
    if end - first <= _LONG:
        found = mm.pages(start + first * PAGE_SIZE, (end - first) * PAGE_SIZE)
        return found[pages - first]
    runs = np.split(pages, np.flatnonzero(np.diff(pages) != 1) + 1)
    return np.concatenate(
        [mm.pages(start + int(run[0]) * PAGE_SIZE, len(run) * PAGE_SIZE) for run in runs]
    )


def vmas_in(vmas: Iterable[Vma], region: Region) -> list[Json]:
    """Return the VMAs that meet a region as the traces list them, pages relative to it."""
    found = []
    for vma in vmas:
        if vma.start < region.end and vma.end > region.addr:
            flags = int(vma.vm_flags)
            found.append(
                {
                    "first": (vma.start - region.addr) >> PAGE_SHIFT,
                    "end": (vma.end - region.addr) >> PAGE_SHIFT,
                    "perm": vma.permissions[:3],
                    "flags": [name for bit, name in _SMAPS.items() if flags & bit],
                }
            )
    return found


def mincore(mm: AddressSpace, vmas: Iterable[Vma], region: Region) -> npt.NDArray[np.uint8]:
    """Return what mincore() says of each page as ASCII "0", "1" or "?" (not mapped).

    *Models* mm/mincore.c (v6.18): a present entry is resident, none and markers are when the page
    cache has the page. The swap cache is left out: a swap entry reads as not resident.
    """
    resident = np.full(region.pages, ord("?"), dtype=np.uint8)
    words = mm.ptes(region.addr, region.pages * PAGE_SIZE)
    for vma in vmas:
        start, end = max(vma.start, region.addr), min(vma.end, region.end)
        if start >= end:
            continue
        pages = resident[(start - region.addr) >> PAGE_SHIFT : (end - region.addr) >> PAGE_SHIFT]
        pages[:] = ord("0")
        if vma.file is not None:
            first = (vma.offset + start - vma.start) >> PAGE_SHIFT
            cached = vma.file.cached_pages.astype(np.int64) - first
            pages[cached[(cached >= 0) & (cached < len(pages))]] = ord("1")
    present = (words & _PRESENT_BITS) != 0
    kinds = _kind_of_type(mm.profile)[(words >> _TYPE_SHIFT).astype(np.intp)]
    resident[~present & (words & ~_STRAY != 0) & (kinds == Kind.SWAP)] = ord("0")
    resident[present] = ord("1")
    return resident
