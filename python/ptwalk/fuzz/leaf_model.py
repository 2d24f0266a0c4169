"""Pure-Python model of the leaf step of change_protection: what becomes of one 64-bit PTE.

It models one turn of `mm/mprotect.c:change_pte_range` under every profile, one `if` per sentence of
the rules, and judges the C++ core, with which it shares no code and no table. Left out: everything
above the PTE (walk, population, huge leaves, hugetlb), shadow stacks, and 6.18's batches over large
folios, which also spread A and D between the entries of one folio.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Literal

Kind = Literal["none", "present", "swap", "marker", "migration", "device", "hwpoison"]
Counter = Literal["present", "swap", "none_to_marker", "marker_to_none", "none_skipped"]
Config = Mapping[str, bool]
Step = tuple[int, int, Counter | None]  # new word, pages, counter

PROFILES = ("5.12", "uffd-wp-v2-11", "uffd-wp-v2", "6.1", "6.12", "6.18")
_SERIES = ("uffd-wp-v2-11", "uffd-wp-v2")  # the two trees differ in the PMD step only
_MAINLINE = ("6.1", "6.12", "6.18")

# --- bits of a present PTE (arch/x86/include/asm/pgtable_types.h) ---------------------------------
WORD = (1 << 64) - 1
PRESENT = 1 << 0
RW = 1 << 1
PWT = 1 << 3
PCD = 1 << 4
ACCESSED = 1 << 5
DIRTY = 1 << 6
PAT = 1 << 7
PROTNONE = 1 << 8  # when P is clear; GLOBAL otherwise
SPECIAL = 1 << 9
UFFD_WP = 1 << 10
SOFT_DIRTY = 1 << 11
PFN_FIELD = 0x000F_FFFF_FFFF_F000
SAVED_DIRTY_BIT = 1 << 58

# --- bits of a swap-format PTE --------------------------------------------------------------------
SWP_SOFT_DIRTY = 1 << 1
SWP_UFFD_WP = 1 << 2
SWP_OFFSET_FIELD = ((1 << 50) - 1) << 9  # holds the offset inverted

# --- vm_flags and cp_flags ------------------------------------------------------------------------
VM_READ = 0x1
VM_WRITE = 0x2
VM_EXEC = 0x4
VM_SHARED = 0x8
VM_MAYWRITE = 0x20
VM_UFFD_WP = 0x1000
VM_SOFTDIRTY = 0x0800_0000

MM_CP_DIRTY_ACCT = 1  # bit 0 up to v5.18
MM_CP_TRY_CHANGE_WRITABLE = 1  # the same bit today
MM_CP_PROT_NUMA = 2
MM_CP_UFFD_WP = 4
MM_CP_UFFD_WP_RESOLVE = 8

# --- what differs between the profiles ------------------------------------------------------------
SPECIAL_MARKER = 0x4  # the series' uffd-wp special pte: recognised by equality
MARKER_UFFD_WP = 1
MARKER_POISONED = 2
MARKER_GUARD = 4

# Marker bits that keep a marker out of reach of wr-protect and resolve (swapops.h).
_UNTOUCHABLE_MARKERS = {"6.1": 0, "6.12": MARKER_POISONED, "6.18": MARKER_POISONED | MARKER_GUARD}

# DEVMAP moved from bit 58 to 57 when SAVED_DIRTY took 58 (v6.6), and went away in v6.17.
_DEVMAP = {
    "5.12": 1 << 58,
    "uffd-wp-v2-11": 1 << 58,
    "uffd-wp-v2": 1 << 58,
    "6.1": 1 << 58,
    "6.12": 1 << 57,
    "6.18": 0,
}
_SAVED_DIRTY_PROFILES = ("6.12", "6.18")

# v6.2 replaced "savedwrite" of NUMA hinting (commit 6a56ccbcf6c6).
_SAVED_WRITE_PROFILES = ("5.12", *_SERIES, "6.1")

_ALL_ON = {"MEM_SOFT_DIRTY": True, "MEMORY_FAILURE": True, "DEVICE_PRIVATE": True}
_DEBIAN = {"MEM_SOFT_DIRTY": True, "MEMORY_FAILURE": True, "DEVICE_PRIVATE": False}
_ALL_OFF = {"MEM_SOFT_DIRTY": False, "MEMORY_FAILURE": False, "DEVICE_PRIVATE": False}
DEFAULT_CONFIG: dict[str, dict[str, bool]] = {
    "5.12": _ALL_ON,
    "uffd-wp-v2-11": _ALL_ON,
    "uffd-wp-v2": _ALL_ON,
    "6.1": _DEBIAN,
    "6.12": _DEBIAN,
    "6.18": _ALL_OFF,
}

# Special swap types in rising order (include/linux/swap.h). The last one is type 31; what the
# config leaves out moves those before it up; the rest, from 0, are swap areas.
_MIGRATION_2 = ("migration_read", "migration_write")
_MIGRATION_3 = ("migration_read", "migration_read_exclusive", "migration_write")
_DEVICE_2 = ("device_private_write", "device_private_read")
_DEVICE_3 = (*_DEVICE_2, "device_exclusive")
_DEVICE_4 = (*_DEVICE_2, "device_exclusive_write", "device_exclusive_read")
_SPECIAL_TYPES = {
    "5.12": ("hwpoison", *_MIGRATION_2, *_DEVICE_2),
    "uffd-wp-v2-11": ("hwpoison", *_MIGRATION_2, *_DEVICE_2),
    "uffd-wp-v2": ("hwpoison", *_MIGRATION_2, *_DEVICE_2),
    "6.1": ("hwpoison", *_MIGRATION_3, *_DEVICE_4, "marker", "swapin_error"),
    "6.12": ("hwpoison", *_MIGRATION_3, *_DEVICE_4, "marker"),
    "6.18": ("hwpoison", *_MIGRATION_3, *_DEVICE_3, "marker"),
}


_KIND_OF_PREFIX: dict[str, Kind] = {
    "swap": "swap",
    "swapin": "swap",  # treated as any entry that no rule names
    "hwpoison": "hwpoison",
    "migration": "migration",
    "device": "device",
    "marker": "marker",
}


@dataclass(frozen=True, slots=True)
class PageFacts:
    """What the step asks about the page behind an entry; the default is an ordinary file page.

    Attributes
    ----------
    normal : bool
        The page has a struct page to look at; false for the zero page. A SPECIAL entry has none.
    anon, exclusive : bool
        PageAnon and PageAnonExclusive.
    ksm, zone_device, pinned, dirty_file, on_target_node : bool
        Reasons for NUMA hinting to leave the entry alone: a KSM page, a device page (6.x), a page
        that may be pinned for DMA (6.x), a dirty page of the file LRU, the task's own node.
    mapcount : int
        Number of entries that map the page.
    """

    normal: bool = True
    anon: bool = False
    exclusive: bool = False
    ksm: bool = False
    zone_device: bool = False
    pinned: bool = False
    dirty_file: bool = False
    on_target_node: bool = False
    mapcount: int = 1


def resolve_config(profile: str, config: Config | None) -> dict[str, bool]:
    """Return the profile's default config with the options of `config` put over it."""
    return {**DEFAULT_CONFIG[profile], **(config or {})}


def swap_types(profile: str, config: Config | None = None) -> tuple[str, ...]:
    """Return the names of the 32 swap types; a swap area is "swap"."""
    options = resolve_config(profile, config)
    return _swap_types(profile, options["MEMORY_FAILURE"], options["DEVICE_PRIVATE"])


@cache
def _swap_types(profile: str, memory_failure: bool, device_private: bool) -> tuple[str, ...]:
    special = _SPECIAL_TYPES[profile]
    if not memory_failure:
        special = tuple(name for name in special if name != "hwpoison")
    if not device_private:
        special = tuple(name for name in special if not name.startswith("device"))
    return ("swap",) * (32 - len(special)) + special


def swap_type(word: int) -> int:
    """Return the 5-bit type of a swap-format word."""
    return word >> 59


def swap_offset(word: int) -> int:
    """Return the 50-bit offset of a swap-format word; the entry holds it inverted."""
    return (~word & SWP_OFFSET_FIELD) >> 9


def encode_swap(type_: int, offset: int) -> int:
    """Return the swap-format word of a type and an offset, all flag bits clear."""
    return type_ << 59 | (~(offset << 9) & SWP_OFFSET_FIELD)


def uffd_wp_marker(profile: str, config: Config | None = None) -> int:
    """Return the word that a wr-protect leaves in a none entry."""
    if profile in _SERIES:
        return SPECIAL_MARKER
    return encode_swap(swap_types(profile, config).index("marker"), MARKER_UFFD_WP)


def classify(profile: str, config: Config | None, word: int) -> Kind:
    """Return the kind of a PTE word; every word has exactly one."""
    if word & ~(ACCESSED | DIRTY) == 0:  # stray A and D of a CPU erratum do not count
        return "none"
    if word & (PRESENT | PROTNONE):
        return "present"
    if profile in _SERIES and word == SPECIAL_MARKER:
        return "marker"
    name = swap_types(profile, config)[swap_type(word)]
    return _KIND_OF_PREFIX[name.split("_")[0]]


def leaf_step(  # noqa: PLR0913 -- what the kernel asks
    profile: str,
    word: int,
    newprot: int,
    cp_flags: int,
    *,
    anon: bool,
    vm_flags: int,
    page: PageFacts,
    wp_unpopulated: bool = False,
    config: Config | None = None,
) -> Step:
    """Return what `change_pte_range` makes of one entry.

    Parameters
    ----------
    word, newprot : int
        The entry and the protection word of the request.
    cp_flags : int
        MM_CP_ bits; UFFD_WP and UFFD_WP_RESOLVE exclude each other.
    anon : bool
        The VMA is anonymous (has no operations table), whatever `page.anon` is.
    wp_unpopulated : bool
        The VMA's userfaultfd has UFFD_FEATURE_WP_UNPOPULATED (6.4 and later).
    config : Mapping[str, bool], optional
        Build options that differ from the profile's default.

    Returns
    -------
    tuple[int, int, Counter | None]
        New word, what it adds to the returned count, the counter of ProtectResult that it moves.
        "none_skipped": a none entry that a wr-protect left none; it is not counted as a page.
    """
    kind = classify(profile, config, word)
    if kind == "none":
        return _none_step(profile, word, cp_flags, anon, vm_flags, wp_unpopulated, config)
    if kind == "present":
        return _present_step(profile, word, newprot, cp_flags, vm_flags, page, config)
    if kind == "marker":
        return _marker_step(profile, word, cp_flags, anon)
    return _swap_step(profile, word, cp_flags, page, config)


def _none_step(
    profile: str,
    word: int,
    cp_flags: int,
    anon: bool,
    vm_flags: int,
    wp_unpopulated: bool,
    config: Config | None,
) -> Step:
    if not cp_flags & MM_CP_UFFD_WP:
        return word, 0, None
    if profile == "5.12":
        markers_used = False
    elif profile in (*_SERIES, "6.1"):
        markers_used = not anon
    else:
        markers_used = bool(vm_flags & VM_UFFD_WP) and (not anon or wp_unpopulated)
    if not markers_used:
        return word, 0, "none_skipped"
    return uffd_wp_marker(profile, config), 1, "none_to_marker"


def _marker_step(profile: str, word: int, cp_flags: int, anon: bool) -> Step:
    if not cp_flags & MM_CP_UFFD_WP_RESOLVE:
        return word, 0, None
    if profile in _SERIES:
        if anon:
            return word, 0, None
    elif swap_offset(word) & _UNTOUCHABLE_MARKERS[profile]:
        return word, 0, None
    return 0, 1, "marker_to_none"


def _swap_step(
    profile: str, word: int, cp_flags: int, page: PageFacts, config: Config | None
) -> Step:
    new = _downgrade(profile, word, page, config)
    if cp_flags & MM_CP_UFFD_WP:
        new |= SWP_UFFD_WP
    elif cp_flags & MM_CP_UFFD_WP_RESOLVE:
        new &= ~SWP_UFFD_WP
    if new == word:
        return word, 0, None
    return new, 1, "swap"


def _downgrade(profile: str, word: int, page: PageFacts, config: Config | None) -> int:
    """Turn a writable migration or device entry into a readable one of the same offset."""
    types = swap_types(profile, config)
    soft_dirty = word & SWP_SOFT_DIRTY if resolve_config(profile, config)["MEM_SOFT_DIRTY"] else 0
    uffd_wp = word & SWP_UFFD_WP
    name = types[swap_type(word)]
    if name == "migration_write":
        if profile not in _MAINLINE:
            readable, kept = "migration_read", soft_dirty | uffd_wp
        else:
            readable = "migration_read_exclusive" if page.anon else "migration_read"
            kept = soft_dirty | uffd_wp if profile == "6.1" else soft_dirty
    elif name == "device_private_write":
        readable, kept = "device_private_read", uffd_wp
    elif name == "device_exclusive_write":
        readable, kept = "device_exclusive_read", soft_dirty | uffd_wp
    else:
        return word
    return encode_swap(types.index(readable), swap_offset(word)) | kept


def _present_step(
    profile: str,
    word: int,
    newprot: int,
    cp_flags: int,
    vm_flags: int,
    page: PageFacts,
    config: Config | None,
) -> Step:
    numa = bool(cp_flags & MM_CP_PROT_NUMA)
    if numa and _numa_skips(profile, word, vm_flags, page):
        return word, 0, None

    new = pte_modify(profile, word, newprot)
    if numa and word & RW and profile in _SAVED_WRITE_PROFILES:
        new |= RW

    if cp_flags & MM_CP_UFFD_WP:
        new = _wrprotect(profile, new | UFFD_WP)
    elif cp_flags & MM_CP_UFFD_WP_RESOLVE:
        new &= ~UFFD_WP

    if profile in _MAINLINE:
        if (
            cp_flags & MM_CP_TRY_CHANGE_WRITABLE
            and not new & RW
            and can_change_pte_writable(profile, new, vm_flags, page, config)
        ):
            new = _mkwrite(profile, new)
    elif cp_flags & MM_CP_DIRTY_ACCT and new & DIRTY:
        tracked = resolve_config(profile, config)["MEM_SOFT_DIRTY"] and vm_flags & VM_SOFTDIRTY
        if new & SOFT_DIRTY or not tracked:  # the test is inverted in these kernels
            new |= RW
    return new, 1, "present"  # counted also when nothing changed


def is_protnone(word: int) -> bool:
    """Tell whether a present entry is closed to every access."""
    return bool(word & PROTNONE) and not word & PRESENT


def _numa_skips(profile: str, word: int, vm_flags: int, page: PageFacts) -> bool:
    if is_protnone(word) or word & SPECIAL or not page.normal or page.ksm:
        return True
    if profile in _MAINLINE and page.zone_device:
        return True
    copy_on_write = vm_flags & VM_MAYWRITE and not vm_flags & VM_SHARED
    if copy_on_write and (page.mapcount != 1 or (profile in _MAINLINE and page.pinned)):
        return True
    return page.dirty_file or page.on_target_node


def pte_modify(profile: str, word: int, newprot: int) -> int:
    """Return the entry with a new protection word (`pgtable.h:pte_modify`)."""
    keep = PFN_FIELD | PWT | PCD | ACCESSED | DIRTY | SPECIAL | UFFD_WP | SOFT_DIRTY
    keep |= _DEVMAP[profile]
    if profile in _MAINLINE:
        keep |= PAT  # lost before
    if profile in _SAVED_DIRTY_PROFILES:
        keep |= SAVED_DIRTY_BIT
    new = (word & keep) | (newprot & ~keep & WORD)
    if _needs_invert(word) != _needs_invert(new):
        new ^= PFN_FIELD
    if profile in _SAVED_DIRTY_PROFILES:
        new = _shift_dirty_out(new) if word & RW else _shift_dirty_in(new)
    return new


def _needs_invert(word: int) -> bool:
    """Tell whether an entry holds its PFN inverted (L1TF)."""
    return word != 0 and not word & PRESENT


def _shift_dirty_out(word: int) -> int:
    """Move D to SAVED_DIRTY in an entry without RW."""
    if not word & RW and word & DIRTY:
        return (word & ~DIRTY) | SAVED_DIRTY_BIT
    return word


def _shift_dirty_in(word: int) -> int:
    """Move SAVED_DIRTY to D in an entry with RW."""
    if word & RW and word & SAVED_DIRTY_BIT:
        return (word & ~SAVED_DIRTY_BIT) | DIRTY
    return word


def _wrprotect(profile: str, word: int) -> int:
    word &= ~RW
    return _shift_dirty_out(word) if profile in _SAVED_DIRTY_PROFILES else word


def _mkwrite(profile: str, word: int) -> int:
    word |= RW
    return _shift_dirty_in(word) if profile in _SAVED_DIRTY_PROFILES else word


def _is_dirty(profile: str, word: int) -> bool:
    saved = SAVED_DIRTY_BIT if profile in _SAVED_DIRTY_PROFILES else 0
    return bool(word & (DIRTY | saved))


def can_change_pte_writable(
    profile: str, word: int, vm_flags: int, page: PageFacts, config: Config | None
) -> bool:
    """Tell whether a read-only entry may become writable without a fault (6.x)."""
    if not vm_flags & VM_WRITE or is_protnone(word):
        return False
    tracking = resolve_config(profile, config)["MEM_SOFT_DIRTY"] and not vm_flags & VM_SOFTDIRTY
    if tracking and not word & SOFT_DIRTY:
        return False
    if vm_flags & VM_UFFD_WP and word & UFFD_WP:
        return False
    if (vm_flags & VM_SHARED or profile == "6.1") and not _is_dirty(profile, word):
        return False
    if vm_flags & VM_SHARED:
        return True
    return page.normal and not word & SPECIAL and page.anon and page.exclusive
