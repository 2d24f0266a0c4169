"""The page-table entries that a process must have for its pagemap to read as it does.

Turns pagemap words (fs/proc/task_mmu.c:pte_to_pagemap_entry, v5.12 to v6.18) back into entries of
a profile. What pagemap does not show is inferred: A is set, RW and D follow from the VMA, and an
anonymous page that is mapped once is exclusive. Shadow stacks and NUMA hints read as ordinary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .flags import Vm
from .pagemap import (
    PAGE_SHIFT,
    PM_FILE,
    PM_GUARD_REGION,
    PM_MMAP_EXCLUSIVE,
    PM_PFRAME_MASK,
    PM_PRESENT,
    PM_SOFT_DIRTY,
    PM_SWAP,
    PM_UFFD_WP,
    U64,
    Entries,
)
from .vma import Vma

Flags = npt.NDArray[np.bool_]
Info = dict[str, Any]

# arch/x86/include/asm/pgtable_types.h, pgtable_64.h
_P, _RW, _D, _SPECIAL, _UFFD_WP = 1 << 0, 1 << 1, 1 << 6, 1 << 9, 1 << 10
_PFN_FIELD = 0x000F_FFFF_FFFF_F000
_SWP_UFFD_WP = 1 << 2
_SWP_TYPE_SHIFT, _SWP_OFFSET_SHIFT, _SWP_OFFSET = 59, 9, (1 << 50) - 1
_SPECIAL_PTE = 0x4
_MARKER_UFFD_WP, _MARKER_GUARD = 1, 4
_MAX_SWAPFILES_SHIFT = 5

# Facts of a page, as AddressSpace.load_pages takes them.
_ANON, _FILE, _EXCLUSIVE, _DIRTY, _ZERO, _SHARED = 1, 2, 4, 8, 16, 32


class Kernel(NamedTuple):
    """What else is known of the kernel that was read.

    Attributes
    ----------
    swp_kinds : sequence of str
        What each of its swap types means, as `profile_info` names it.
    zero_pfn : int
        Frame of its zero page; needed where there is no PAGEMAP_SCAN, 0 for unknown.
    swap_in_use : bool
        Whether any page is swapped out.
    """

    swp_kinds: Sequence[str]
    zero_pfn: int
    swap_in_use: bool


class Inferred(NamedTuple):
    """Entries for the rows of a pagemap.

    Attributes
    ----------
    ptes : ndarray of uint64, shape (n,)
        The words; pfn field 0 where the pfn is hidden, 0 for a marker that the profile lacks.
    facts : ndarray of uint8, shape (n,)
        As `AddressSpace.load_pages` takes them.
    marker : ndarray of bool, shape (n,)
        Rows that are markers.
    """

    ptes: U64
    facts: npt.NDArray[np.uint8]
    marker: Flags


def infer(entries: Entries, vmas: Sequence[Vma], profile: Info, kernel: Kernel) -> Inferred:
    """Return an entry for each row of a pagemap.

    Parameters
    ----------
    entries : Entries
        The rows, all of them inside `vmas`.
    vmas : sequence of Vma
        In order of address.
    profile : dict
        `profile_info` of the profile and configuration that the entries are made for.
    kernel : Kernel
        The kernel that was read.

    Returns
    -------
    Inferred
    """
    starts = np.array([vma.start for vma in vmas], dtype=np.uint64)
    rows = np.searchsorted(starts, entries.address, "right") - 1
    flags = np.array([vma.vm_flags for vma in vmas], dtype=np.uint64)[rows]
    prot = np.array([vma.page_prot for vma in vmas], dtype=np.uint64)[rows]
    ptes, facts = _present(entries, flags, prot, profile, kernel)
    absent, marker = _absent(entries.word, flags, profile, kernel)
    present = _has(entries.word, PM_PRESENT)
    return Inferred(
        np.where(present, ptes, absent), np.where(present, facts, np.uint8(0)), marker & ~present
    )


def _has(words: U64, bits: int) -> Flags:
    found: Flags = (words & np.uint64(bits)) != 0
    return found


def _bits(where: Flags, bits: int) -> U64:
    return np.where(where, np.uint64(bits), np.uint64(0))


def _present(
    entries: Entries, flags: U64, prot: U64, profile: Info, kernel: Kernel
) -> tuple[U64, npt.NDArray[np.uint8]]:
    """Return the rows as present entries, with the facts of their pages."""
    word = entries.word
    of_file, alone, armed = (_has(word, bit) for bit in (PM_FILE, PM_MMAP_EXCLUSIVE, PM_UFFD_WP))
    pfn = (word & np.uint64(PM_PFRAME_MASK)) << np.uint64(PAGE_SHIFT) & np.uint64(_PFN_FIELD)
    no_page = ~of_file & ~alone  # neither of a file nor mapped once: vm_normal_page() may be NULL
    if entries.zero is not None:  # of the scan, and so a moment older than the word
        zero = entries.zero & no_page
    else:
        zero = no_page & (pfn == kernel.zero_pfn << PAGE_SHIFT) & (kernel.zero_pfn != 0)
    special = no_page & ~zero & _has(flags, Vm.PFNMAP | Vm.IO)
    anon = ~of_file & ~zero & ~special

    soft_dirty = word & np.uint64(PM_SOFT_DIRTY)
    tracked = (soft_dirty == 0) & bool(profile["soft_dirty_bit"])  # the next write is to be seen
    shared = _has(flags, Vm.SHARED)
    write = _has(flags, Vm.WRITE) & ~armed & ~tracked & ~zero & (shared | (anon & alone))
    dirty = anon | (write & of_file)
    # A clean bit 55 is exact; a set one may be that of the VMA.
    soft = (soft_dirty != 0) & (dirty | ~_has(flags, Vm.SOFTDIRTY))

    ptes = prot & ~np.uint64(_RW | _PFN_FIELD)
    ptes |= _bits(write, _RW) | _bits(armed, _UFFD_WP) | _bits(special, _SPECIAL)
    ptes |= _bits(dirty & write, _D) | _bits(dirty & ~write, profile["saved_dirty_bit"] or _D)
    ptes |= _bits(soft, profile["soft_dirty_bit"])
    stored = np.where(_has(prot, _P), pfn, ~pfn & np.uint64(_PFN_FIELD))  # __pte_needs_invert
    ptes |= np.where(pfn != 0, stored, np.uint64(0))

    ordinary = anon | of_file
    facts = np.zeros(len(word), dtype=np.uint8)
    for fact, where in (
        (_ANON, anon),
        (_FILE, of_file),
        (_EXCLUSIVE, anon & alone),
        (_DIRTY, dirty & of_file),
        (_ZERO, zero),
        (_SHARED, ordinary & ~alone),
    ):
        facts |= np.where(where, np.uint8(fact), np.uint8(0))
    return ptes, facts


def _absent(word: U64, flags: U64, profile: Info, kernel: Kernel) -> tuple[U64, Flags]:
    """Return the rows as swap entries or markers, and which of them are markers."""
    frame = word & np.uint64(PM_PFRAME_MASK)
    offset = frame >> np.uint64(_MAX_SWAPFILES_SHIFT)
    armed, guard, swap = (_has(word, bit) for bit in (PM_UFFD_WP, PM_GUARD_REGION, PM_SWAP))
    shown = frame != 0  # no swap entry has type 0 and offset 0: that is the header of the area
    kinds = np.array(kernel.swp_kinds)[(frame & np.uint64(31)).astype(np.intp)]
    # Where types are hidden: what is swapped out of a shared mapping leaves none entries.
    guessed = guard | (armed & (_has(flags, Vm.SHARED) | (not kernel.swap_in_use)))
    marker = np.where(shown, kinds == "pte_marker", guessed) | ~swap
    held = np.where(guard, np.uint64(_MARKER_GUARD), np.uint64(0)) | _bits(armed, _MARKER_UFFD_WP)
    held = np.where(shown, offset, held) & np.uint64(profile["marker_mask"])

    own: list[str] = list(profile["swp_kinds"])
    number = {name: own.index(name) for name in set(own)}
    types = np.array([number.get(name, 0) for name in kernel.swp_kinds], dtype=np.uint64)
    swp_type = np.where(shown, types[(frame & np.uint64(31)).astype(np.intp)], np.uint64(0))
    soft = _has(word, PM_SOFT_DIRTY) & ~_has(flags, Vm.SOFTDIRTY)
    others = _swp_pte(swp_type, offset) | _bits(armed, _SWP_UFFD_WP)
    others |= _bits(soft, profile["swp_soft_dirty_bit"])
    markers = _swp_pte(np.uint64(number.get("pte_marker", 0)), held)
    if profile["marker_format"] == "special_pte":
        markers = np.full(len(word), _SPECIAL_PTE, dtype=np.uint64)
    return np.where(marker, np.where(held != 0, markers, np.uint64(0)), others), marker


def _swp_pte(swp_type: U64 | np.uint64, offset: U64) -> U64:
    inverted = ~offset & np.uint64(_SWP_OFFSET)
    return (swp_type << np.uint64(_SWP_TYPE_SHIFT)) | (inverted << np.uint64(_SWP_OFFSET_SHIFT))
