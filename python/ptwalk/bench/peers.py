"""Loops over entries that a careful user of Python, numpy or numba writes for one request.

Each does for present, none, swap and marker words exactly what the request does; `dense` checks
that before it times them. They leave out what ptwalk's kernels also look at: migration, device and
poisoned entries, PROT_NONE, NUMA, bad page maps, TLB flushes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .harness import U64

_PAGE_RW, _PAGE_DIRTY, _PAGE_UFFD_WP = 1 << 1, 1 << 6, 1 << 10
_SAVED_DIRTY, _SAVED_SHIFT = 1 << 58, 52  # _PAGE_SAVED_DIRTY lies 52 bits above _PAGE_DIRTY
_SWP_UFFD_WP = 1 << 2
_FRAME = 0xFFFFFFFFFF000
_BLOCK = 32 * 512  # words that fit the L2 cache beside their masks


@dataclass(frozen=True, slots=True)
class Rules:
    """What one request makes of four kinds of words.

    Attributes
    ----------
    clear, set : int
        Bits of a present entry.
    saves_dirty : bool
        Whether D moves to SAVED_DIRTY, for RW is taken away.
    upgrades : bool
        Whether an entry whose page is exclusive gets RW, and D back.
    marker, marker_becomes, none_becomes : int
        Words.
    swap_clear, swap_set : int
        Bits of a swap entry.
    """

    clear: int
    set: int
    saves_dirty: bool
    upgrades: bool
    marker: int
    marker_becomes: int
    none_becomes: int
    swap_clear: int
    swap_set: int


def rules(*, protect: bool, marker: int, anon: bool, saves_dirty: bool) -> Rules:
    """Return the rules of wr-protecting or resolving.

    Parameters
    ----------
    protect : bool
        Wr-protect, or resolve.
    marker : int
        The word of a marker.
    anon : bool
        Private anonymous memory: none entries get no marker, exclusive pages get RW back.
    saves_dirty : bool
        The kernel has SAVED_DIRTY.
    """
    if protect:
        none = 0 if anon else marker
        clear = _PAGE_RW
        return Rules(
            clear, _PAGE_UFFD_WP, saves_dirty, False, marker, marker, none, 0, _SWP_UFFD_WP
        )
    clear = _PAGE_UFFD_WP | (_PAGE_RW if anon else 0)
    gets = 0 if anon else _PAGE_RW
    return Rules(clear, gets, False, anon, marker, 0, 0, _SWP_UFFD_WP, 0)


# Plain Python.


def python_loop(words: list[int], r: Rules, exclusive: Any) -> int:
    """Change a list in place; the number of pages, as the kernel counts them."""
    pages = 0
    for i, old in enumerate(words):
        if old & 1:
            now = old & ~r.clear | r.set
            if r.saves_dirty and now & _PAGE_DIRTY:
                now ^= _PAGE_DIRTY | _SAVED_DIRTY
            if r.upgrades and exclusive[(old & _FRAME) >> 12]:
                now |= _PAGE_RW
                if now & _SAVED_DIRTY:
                    now ^= _PAGE_DIRTY | _SAVED_DIRTY
            pages += 1
        elif old == 0:
            now = r.none_becomes
            pages += now != old
        elif old == r.marker:
            now = r.marker_becomes
            pages += now != old
        else:
            now = old & ~r.swap_clear | r.swap_set
            pages += now != old
        words[i] = now
    return pages


# numpy.


def _present(old: U64, r: Rules, exclusive: Any) -> U64:
    """Present words after the request."""
    now = old & np.uint64(~r.clear & 2**64 - 1) | np.uint64(r.set)
    if r.saves_dirty:
        dirty = now & np.uint64(_PAGE_DIRTY)
        now = (now ^ dirty) | dirty << np.uint64(_SAVED_SHIFT)
    if r.upgrades:
        gets = exclusive[(old & np.uint64(_FRAME)) >> np.uint64(12)].astype(np.uint64)
        saved = now & (gets << np.uint64(58))
        now = (now ^ saved) | saved >> np.uint64(_SAVED_SHIFT) | gets << np.uint64(1)
    return now


def numpy_where(words: U64, r: Rules, exclusive: Any) -> int:
    """Choose among whole arrays, as one writes it first."""
    present = words & np.uint64(1) != 0
    absent = np.where(present, np.uint64(0), words)
    swap = absent & np.uint64(~r.swap_clear & 2**64 - 1) | np.uint64(r.swap_set)
    absent = np.where(absent == np.uint64(r.marker), np.uint64(r.marker_becomes), swap)
    absent = np.where(words == 0, np.uint64(r.none_becomes), absent)
    safe = np.where(present, words, np.uint64(0))
    now = np.where(present, _present(safe, r, exclusive), absent)
    pages = int(np.count_nonzero(present | (now != words)))
    words[:] = now
    return pages


def numpy_masks(words: U64, r: Rules, exclusive: Any) -> int:
    """Change one class after the other, in blocks that stay in the cache."""
    pages = 0
    for start in range(0, len(words), _BLOCK):
        block = words[start : start + _BLOCK]
        present = (block & np.uint64(1)).astype(bool)
        none = block == 0
        marker = block == np.uint64(r.marker)
        swap = ~(present | none | marker)
        pages += int(np.count_nonzero(present))
        if r.none_becomes:
            block[none] = r.none_becomes
            pages += int(np.count_nonzero(none))
        if r.marker_becomes != r.marker:
            block[marker] = r.marker_becomes
            pages += int(np.count_nonzero(marker))
        if swap.any():
            old = block[swap]
            now = old & np.uint64(~r.swap_clear & 2**64 - 1) | np.uint64(r.swap_set)
            pages += int(np.count_nonzero(now != old))
            block[swap] = now
        if present.all():
            block[:] = _present(block, r, exclusive)
        else:
            block[present] = _present(block[present], r, exclusive)
    return pages


# numba compiles these. Constants are globals, which it takes as they are.

Loop = Callable[[Any, Rules, Any], int]
_P, _ONE, _ZERO, _TWELVE = np.uint64(1), np.uint64(1), np.uint64(0), np.uint64(12)
_RW, _D, _SD = np.uint64(_PAGE_RW), np.uint64(_PAGE_DIRTY), np.uint64(_SAVED_DIRTY)
_PFN, _UP, _SD_BIT = np.uint64(_FRAME), np.uint64(_SAVED_SHIFT), np.uint64(58)


def _branchy(words: Any, exclusive: Any, saves: Any, upgrades: Any, r: Any) -> int:
    """Test entry by entry, as the kernel does and as one writes it first."""
    clear, sets, marker, marker_becomes, none_becomes, swap_clear, swap_set = r
    pages = 0
    for i in range(len(words)):
        old = words[i]
        if old & _P:
            now = (old & ~clear) | sets
            if saves and now & _D:
                now ^= _D | _SD
            if upgrades and exclusive[(old & _PFN) >> _TWELVE]:
                now |= _RW
                if now & _SD:
                    now ^= _D | _SD
            pages += 1
        else:
            if old == _ZERO:
                now = none_becomes
            elif old == marker:
                now = marker_becomes
            else:
                now = (old & ~swap_clear) | swap_set
            if now == old:
                continue
            pages += 1
        words[i] = now
    return pages


def _branch_free(words: Any, moved: Any, r: Any) -> int:
    """Choose by masks, which the compiler turns into vectors; `moved` is D or 0."""
    clear, sets, marker, marker_becomes, none_becomes, swap_clear, swap_set = r
    pages = 0
    for i in range(len(words)):
        old = words[i]
        now = (old & ~clear) | sets
        dirty = now & moved
        now = (now ^ dirty) | (dirty << _UP)
        swap = (old & ~swap_clear) | swap_set
        absent = marker_becomes if old == marker else (none_becomes if old == _ZERO else swap)
        now = now if old & _P else absent
        pages += (old & _P != _ZERO) | (now != old)
        words[i] = now
    return pages


def _branch_free_upgrade(words: Any, exclusive: Any, r: Any) -> int:
    """Do the same with a look at each page, in a loop of its own: the other needs no gathers."""
    clear, sets, marker, marker_becomes, none_becomes, swap_clear, swap_set = r
    pages = 0
    for i in range(len(words)):
        old = words[i]
        here = old & _P
        gets = np.uint64(exclusive[((old & _PFN) >> _TWELVE) * here]) & here
        now = (old & ~clear) | sets | (gets << _ONE)
        saved = now & (gets << _SD_BIT)
        now = (now ^ saved) | (saved >> _UP)
        swap = (old & ~swap_clear) | swap_set
        absent = marker_becomes if old == marker else (none_becomes if old == _ZERO else swap)
        now = now if here else absent
        pages += (here != _ZERO) | (now != old)
        words[i] = now
    return pages


def numba_loops() -> tuple[Loop, Loop]:
    """Return the branchy and the branch-free loop; the first call of each compiles it.

    Raises
    ------
    ImportError
        numba is not installed.
    """
    import numba

    njit: Any = numba.njit
    branchy, branch_free = njit(_branchy), njit(_branch_free)
    upgrade = njit(_branch_free_upgrade)

    def numbers(r: Rules) -> tuple[Any, ...]:
        names = ("clear", "set", "marker", "marker_becomes", "none_becomes", "swap_clear")
        return tuple(np.uint64(getattr(r, name)) for name in (*names, "swap_set"))

    def run_branchy(words: Any, r: Rules, exclusive: Any) -> int:
        return int(branchy(words, exclusive, r.saves_dirty, r.upgrades, numbers(r)))

    def run_branch_free(words: Any, r: Rules, exclusive: Any) -> int:
        if r.upgrades:
            return int(upgrade(words, exclusive, numbers(r)))
        return int(branch_free(words, _D if r.saves_dirty else _ZERO, numbers(r)))

    return run_branchy, run_branch_free
