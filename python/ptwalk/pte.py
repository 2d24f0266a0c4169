"""What a page-table entry says: kind, flags, frame or swap entry, for arrays and for one word.

Models the predicates and layouts of arch/x86/include/asm/pgtable.h, pgtable_types.h, pgtable_64.h
and pgtable-invert.h, and include/linux/swapops.h, from v5.12 to v6.18; which bits and swap types
exist is asked of the profile. Left out: shadow stacks (pte_write is bit RW) and the encryption bit.
"""

from __future__ import annotations

import enum
import operator
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from . import _core
from .errors import InvalidArgument

U64 = npt.NDArray[np.uint64]
Config = Mapping[str, bool]


class Kind(enum.IntEnum):
    """What an entry is; each of the 2**64 words is exactly one of these at a given level.

    PROT_NONE is PRESENT, as pte_present says, and the special pte of the v2 series is a MARKER.
    HUGE is a leaf above the PTE level, TABLE an entry that points to a lower table.
    """

    NONE = 0
    PRESENT = 1
    SWAP = 2
    MARKER = 3
    MIGRATION = 4
    DEVICE = 5
    HWPOISON = 6
    HUGE = 7
    TABLE = 8


DTYPE = np.dtype(
    [
        ("kind", np.uint8),
        ("write", np.bool_),
        ("dirty", np.bool_),
        ("uffd_wp", np.bool_),
        ("flags", np.uint64),
        ("pfn", np.uint64),
        ("type", np.uint8),
        ("offset", np.uint64),
    ]
)

LEVELS = {"pte": 1, "pmd": 2, "pud": 3, "p4d": 4, "pgd": 5}
PTE, PMD, PUD, P4D, PGD = LEVELS.values()

_P, _RW, _US, _A, _D = 1 << 0, 1 << 1, 1 << 2, 1 << 5, 1 << 6
_PSE, _PROTNONE, _UFFD_WP, _NX = 1 << 7, 1 << 8, 1 << 10, 1 << 63
_PKEY_SHIFT = 59
_ERRATUM = _A | _D  # a cleared entry may carry them: X86_ERRATUM_KNL4
_TABLE = _P | _RW | _US | _A | _D
_SWP_UFFD_WP, _SWP_EXCLUSIVE = 1 << 2, 1 << 3
_SWP_FLAGS = (1 << 9) - 1
_SWP_TYPE_SHIFT, _SWP_OFFSET_SHIFT, _SWP_OFFSET = 59, 9, (1 << 50) - 1
_SWP_PFN_BITS = 40  # young and dirty of a migration entry lie above (v6.1 on)
_SPECIAL_PTE = 0x4
_MARKER_UFFD_WP = 1
_MARKERS = {1: "UFFD_WP", 2: "POISONED", 4: "GUARD"}
_PFN_FIELD = {
    PTE: 0x000F_FFFF_FFFF_F000,
    PMD: 0x000F_FFFF_FFE0_0000,
    PUD: 0x000F_FFFF_C000_0000,
    P4D: 0x000F_FFFF_FFFF_F000,
    PGD: 0x000F_FFFF_FFFF_F000,
}
_BLOCK = 1 << 13  # entries that are decoded at once: what is computed on the way stays in cache
_NAMES = {1: "RW", 2: "US", 3: "PWT", 4: "PCD", 5: "A", 6: "D", 7: "PSE"}
_NAMES |= {9: "SPECIAL", 10: "UFFD_WP", 11: "SOFT_DIRTY", 12: "PAT_LARGE", 63: "NX"}
_KINDS = {  # by the core's names of the swap types
    "swap": Kind.SWAP,
    "hwpoison": Kind.HWPOISON,
    "migration_read": Kind.MIGRATION,
    "migration_read_exclusive": Kind.MIGRATION,
    "migration_write": Kind.MIGRATION,
    "device_private_read": Kind.DEVICE,
    "device_private_write": Kind.DEVICE,
    "device_exclusive_read": Kind.DEVICE,
    "device_exclusive_write": Kind.DEVICE,
    "pte_marker": Kind.MARKER,
    "swapin_error": Kind.SWAP,  # v5.19 to v6.1: a slot that could not be read
}
_HAS_FRAME = (Kind.MIGRATION, Kind.DEVICE, Kind.HWPOISON)


@dataclass(frozen=True)
class _Facts:
    """What decoding needs to know of a profile and its configuration."""

    swp_kinds: tuple[str, ...]
    kind_of_type: npt.NDArray[np.uint8]
    special_pte: bool
    marker_mask: int
    saved_dirty: int
    devmap: int
    swp_exclusive: bool
    isolation: bool


@cache
def _facts_of(profile: str, config: frozenset[tuple[str, bool]]) -> _Facts:
    info = _core.profile_info(profile, dict(config))
    kinds = tuple(info["swp_kinds"])
    return _Facts(
        swp_kinds=kinds,
        kind_of_type=np.array([_KINDS[name] for name in kinds], dtype=np.uint8),
        special_pte=info["marker_format"] == "special_pte",
        marker_mask=info["marker_mask"],
        saved_dirty=info["saved_dirty_bit"],
        devmap=info["devmap_bit"],
        swp_exclusive=info["swp_exclusive"],
        isolation=info["config"]["PAGE_TABLE_ISOLATION"],
    )


def _facts(profile: str, config: Config | None) -> _Facts:
    if not isinstance(profile, str):
        raise InvalidArgument(f"profile {profile!r} is not a name; use one of ptwalk.profiles()")
    return _facts_of(profile, frozenset((config or {}).items()))


def level_number(level: str | int) -> int:
    """Return the number of a level: 1 for "pte" to 5 for "pgd"; numbers are taken as they are.

    Raises
    ------
    InvalidArgument
        `level` is neither.
    """
    number = LEVELS.get(level) if isinstance(level, str) else level
    if number not in _PFN_FIELD:
        raise InvalidArgument(
            f"level {level!r} is not a paging level; use {', '.join(map(repr, LEVELS))} or 1 to 5"
        )
    return number


def _uint64(ptes: U64) -> U64:
    """Return `ptes` when it is a uint64 array."""
    if not isinstance(ptes, np.ndarray):
        raise InvalidArgument(
            f"ptes is a {type(ptes).__name__}; page-table entries are a uint64 array; "
            "use numpy.array(ptes, dtype=numpy.uint64)"
        )
    if ptes.dtype != np.uint64:
        way = "view" if ptes.dtype == np.int64 else "astype"
        raise InvalidArgument(
            f"ptes has dtype {ptes.dtype}; page-table entries are uint64; "
            f"use ptes.{way}(numpy.uint64)"
        )
    return ptes


def _kinds(words: U64, facts: _Facts, level: int) -> npt.NDArray[np.uint8]:
    """Return the Kind of each word: one predicate after the other, the last that fits wins."""
    if level >= P4D:  # pgd_none looks at the whole word, p4d_none forgives stray A and D
        none = words == 0 if level == PGD else (words & ~np.uint64(_ERRATUM)) == 0
        return np.where(none, Kind.NONE, Kind.TABLE).astype(np.uint8)
    kinds = facts.kind_of_type[(words >> np.uint64(_SWP_TYPE_SHIFT)).astype(np.intp)]
    if facts.special_pte:
        kinds[words == _SPECIAL_PTE] = Kind.MARKER
    if level == PTE:
        kinds[(words & np.uint64(_P | _PROTNONE)) != 0] = Kind.PRESENT
    else:  # pmd_present holds for PSE alone: a leaf that is being invalidated
        kinds[(words & np.uint64(_P | _PROTNONE)) != 0] = Kind.TABLE
        kinds[(words & np.uint64(_PSE)) != 0] = Kind.HUGE
    kinds[(words & ~np.uint64(_ERRATUM)) == 0] = Kind.NONE
    return kinds


def decode(
    ptes: U64, *, profile: str, level: str | int = "pte", config: Config | None = None
) -> npt.NDArray[np.void]:
    """Take page-table entries apart.

    Parameters
    ----------
    ptes : ndarray of uint64, any shape
        Raw entries.
    profile : str
        The kernel that wrote them: the same word is an entry of another kind under another one.
    level : str or int
        ``"pte"``, ``"pmd"``, ``"pud"``, ``"p4d"``, ``"pgd"``, or 1 to 5.
    config : mapping of str to bool, optional
        Build options that differ from the profile's; the swap type numbers follow from them.

    Returns
    -------
    ndarray, shape of `ptes`
        Structured, with the fields

        kind : uint8
            A `Kind`.
        write, dirty : bool
            pte_write and pte_dirty (SAVED_DIRTY counts) of a leaf; False for all else.
        uffd_wp : bool
            Wr-protected by userfaultfd: bit 10 of a leaf, bit 2 of a swap-format entry, or a
            UFFD_WP marker, as /proc/PID/pagemap shows it.
        flags : uint64
            The bits outside the PFN field; of a swap entry its bits 0 to 8.
        pfn : uint64
            Frame of a leaf (inversion undone), of the table pointed to, or of a migration, device
            or hwpoison entry; else 0.
        type : uint8
            Swap type, 0 where there is none.
        offset : uint64
            Swap offset; the bit mask of a PTE marker; 0 where there is none.

    Raises
    ------
    InvalidArgument
        `ptes` is not a uint64 array, or the profile, level or an option is unknown.

    Notes
    -----
    *Models* the predicates of arch/x86/include/asm/pgtable.h and include/linux/swapops.h, v5.12 to
    v6.18. Linear in the number of entries; the result has 29 bytes for each.

    Examples
    --------
    >>> import numpy as np, ptwalk
    >>> d = ptwalk.decode(np.array([0, 0xfffffffffffffc00], dtype=np.uint64), profile="6.18")
    >>> [ptwalk.Kind(k).name for k in d["kind"]], d["uffd_wp"].tolist()
    (['NONE', 'MARKER'], [False, True])
    """
    number = level_number(level)
    facts = _facts(profile, config)
    words = _uint64(ptes).reshape(-1)
    out = np.empty(words.shape, dtype=DTYPE)
    for at in range(0, len(words), _BLOCK):
        _decode(words[at : at + _BLOCK], out[at : at + _BLOCK], facts, number)
    return out.reshape(ptes.shape)


def _decode(words: U64, out: npt.NDArray[np.void], facts: _Facts, level: int) -> None:
    """Fill `out` with what `words` say, field by field."""
    kinds = _kinds(words, facts, level)
    leaf = (kinds == Kind.PRESENT) | (kinds == Kind.HUGE)
    table, none = kinds == Kind.TABLE, kinds == Kind.NONE
    marker = kinds == Kind.MARKER
    special = marker & facts.special_pte
    swap = ~(leaf | table | none | special)

    out["kind"] = kinds
    out["write"] = leaf & ((words & np.uint64(_RW)) != 0)
    out["dirty"] = leaf & ((words & np.uint64(_D | facts.saved_dirty)) != 0)
    field = np.where(leaf, np.uint64(_PFN_FIELD[level]), np.uint64(_PFN_FIELD[PTE]))
    out["flags"] = words & np.where(swap, np.uint64(_SWP_FLAGS), ~field)
    out["type"] = np.where(swap, words >> np.uint64(_SWP_TYPE_SHIFT), 0)
    offset = (~words >> np.uint64(_SWP_OFFSET_SHIFT)) & np.uint64(_SWP_OFFSET)
    out["offset"] = np.where(swap, offset, 0)
    armed = np.where(leaf, words & np.uint64(_UFFD_WP), words & np.uint64(_SWP_UFFD_WP)) != 0
    armed |= special | (marker & ((offset & np.uint64(_MARKER_UFFD_WP)) != 0))
    out["uffd_wp"] = armed & ~(table | none)
    stored = np.where(leaf & ((words & np.uint64(_P)) == 0), ~words, words)
    pfn = np.where(leaf | table, (stored & field) >> np.uint64(12), 0)
    frame = np.isin(kinds, _HAS_FRAME)
    out["pfn"] = np.where(frame, offset & np.uint64((1 << _SWP_PFN_BITS) - 1), pfn)


def pfn_cleared(ptes: U64, entries: npt.NDArray[np.void], level: str | int = "pte") -> U64:
    """Clear what differs from run to run: the PFN field, and the offset of a swap entry.

    Parameters
    ----------
    ptes : ndarray of uint64, shape (n,)
        Raw entries of `level`.
    entries : ndarray, shape (n,)
        The same, as `decode` returns them.
    level : str or int
        As for `decode`.

    Returns
    -------
    ndarray of uint64, shape (n,)
        None entries and markers are complete.
    """
    kinds = entries["kind"]
    field = np.zeros(ptes.shape, dtype=np.uint64)
    field[(kinds == Kind.PRESENT) | (kinds == Kind.HUGE)] = _PFN_FIELD[level_number(level)]
    field[kinds == Kind.TABLE] = _PFN_FIELD[PTE]
    field[(kinds == Kind.SWAP) | np.isin(kinds, _HAS_FRAME)] = _SWP_OFFSET << _SWP_OFFSET_SHIFT
    return ptes & ~field


def flag_names(word: int, profile: str, level: str | int = "pte") -> str:
    """Name the flags of a leaf or table entry, from bit 0 upwards.

    Parameters
    ----------
    word : int
        Raw entry; its PFN field does not matter.
    profile : str
        Bit 58 is DEVMAP or SAVED_DIRTY by profile.
    level : str or int
        Bit 7 is PAT or PSE by level.

    Returns
    -------
    str
        The kernel's _PAGE_ names, ``"P RW US A D NX"``; a bit without a name is ``"BIT52"``.

    Notes
    -----
    *Models* arch/x86/include/asm/pgtable_types.h, v5.12 to v6.18.
    """
    number = level_number(level)
    facts = _facts(profile, None)
    names = dict(_NAMES)
    names[0] = "P"
    names[8] = "G" if word & _P else "PROTNONE"
    if number == PTE:
        names[7] = "PAT"
    if facts.devmap:
        names[facts.devmap.bit_length() - 1] = "DEVMAP"
    if facts.saved_dirty:
        names[facts.saved_dirty.bit_length() - 1] = "SAVED_DIRTY"
    flags = word & ~_PFN_FIELD[PTE]
    if number in (PMD, PUD) and word & _P and word & _PSE:
        flags |= word & (1 << 12)  # PAT_LARGE lies inside the PFN field of a PTE
    pkey = flags >> _PKEY_SHIFT & 15
    flags &= ~(15 << _PKEY_SHIFT)
    found = [names.get(bit, f"BIT{bit}") for bit in range(63) if flags >> bit & 1]
    found += [f"PKEY {pkey}"] * (pkey != 0) + ["NX"] * (flags >> 63)
    return " ".join(found)


def _swp_flag_names(flags: int, facts: _Facts) -> list[str]:
    """Name bits 0 to 8 of a swap-format entry."""
    names = {**_NAMES, 1: "SWP_SOFT_DIRTY", 2: "SWP_UFFD_WP"}
    if facts.swp_exclusive:
        names[3] = "SWP_EXCLUSIVE"
    return [names[bit] for bit in range(1, 8) if flags >> bit & 1]


def _marker_name(offset: int, facts: _Facts) -> str:
    """Name the bits of a PTE marker; bits that the profile lacks as a number."""
    names = [n for bit, n in _MARKERS.items() if offset & bit & facts.marker_mask]
    if unknown := offset & ~facts.marker_mask:
        names.append(f"{unknown:#x}")
    return "PTE marker " + ("|".join(names) or "0x0")


def _frame_entry_names(entry: Any, facts: _Facts) -> list[str]:
    """Name a migration, device or hwpoison entry: its type, then young and dirty."""
    name = facts.swp_kinds[entry["type"]]
    words = name.partition("_")[2] if name.startswith(("migration", "device")) else name
    found = [] if words == "hwpoison" else [words.replace("_", "-")]
    if high := int(entry["offset"]) >> _SWP_PFN_BITS:
        if facts.swp_exclusive and entry["kind"] == Kind.MIGRATION:
            found += ["young"] * (high & 1) + ["dirty"] * (high >> 1 & 1)
        else:
            found.append(f"offset {int(entry['offset']):#x}")
    return found


def location(entry: Any) -> str:
    """Return the frame or the swap offset of a decoded entry, ``"pfn 0x12345"``; "" for none."""
    if entry["kind"] == Kind.SWAP:
        return f"offset {entry['offset']:#x}"
    return "" if entry["kind"] in (Kind.NONE, Kind.MARKER) else f"pfn {entry['pfn']:#x}"


def names(
    word: int,
    entry: Any,
    *,
    profile: str,
    level: str | int = "pte",
    config: Config | None = None,
) -> list[str]:
    """Say what an entry is beside its `location`: flags, swap type, marker bits.

    Parameters
    ----------
    word : int
        Raw entry.
    entry : numpy.void
        The same, as `decode` returns it.
    profile, level, config
        As for `decode`.
    """
    facts = _facts(profile, config)
    kind = entry["kind"]
    if kind in (Kind.NONE, Kind.PRESENT, Kind.HUGE, Kind.TABLE):
        found = flag_names(word, profile, level)
        return [f"stray {found}" if kind == Kind.NONE else found] if found else []
    if kind == Kind.MARKER and facts.special_pte:
        return ["uffd-wp special pte"]
    where = f"swap type {entry['type']}"
    if kind == Kind.MARKER:
        offset = int(entry["offset"])
        parts = [f"{_marker_name(offset, facts)} ({where}, offset {offset:#x})"]
    elif kind == Kind.SWAP:
        parts = [f"type {entry['type']}"]
        parts += ["swapin error"] * (facts.swp_kinds[entry["type"]] == "swapin_error")
    else:
        parts = [*_frame_entry_names(entry, facts), where]
    return parts + _swp_flag_names(int(entry["flags"]), facts)


def _is_bad(word: int, level: int, isolation: bool) -> bool:
    """Whether a table entry fails pmd_bad, pud_bad, p4d_bad or pgd_bad (pgtable.h, v5.12)."""
    flags = word & ~_PFN_FIELD[PTE]
    if level == PMD:
        return flags & ~_US != _TABLE & ~_US
    if isolation and level >= P4D:
        flags &= ~_NX
    return flags & ~_US != _TABLE & ~_US if level == PGD else flags & ~_TABLE != 0


def _meaning(word: int, entry: Any, level: int, facts: _Facts) -> str:
    """Say in parentheses what follows from the flags of a leaf, table or swap entry."""
    kind = entry["kind"]
    if kind == Kind.TABLE:
        words = ["bad: the kernel clears it"] if _is_bad(word, level, facts.isolation) else []
    elif kind in (Kind.PRESENT, Kind.HUGE):
        if word & _P:
            words = ["writable" if entry["write"] else "read-only"]
            words += ["dirty"] * bool(entry["dirty"])
        else:
            words = ["no access"]
        words += ["wr-protected"] * bool(entry["uffd_wp"])
    elif kind in (Kind.NONE, Kind.MARKER):
        words = []
    else:  # an offset field of zeros names no slot, so that such a word protects nothing
        empty = kind == Kind.SWAP and entry["offset"] == _SWP_OFFSET
        words = ["wr-protected"] * bool(entry["uffd_wp"] and not empty)
    return f" ({', '.join(words)})" if words else ""


def explain(
    word: int, *, profile: str, level: str | int = "pte", config: Config | None = None
) -> str:
    """Explain one page-table entry in one line.

    Parameters
    ----------
    word : int
        Raw entry, 64 bits.
    profile, level, config
        As for `decode`.

    Returns
    -------
    str
        Word, kind, frame or swap entry, flags by the kernel's names, and what they mean.

    Raises
    ------
    InvalidArgument
        `word` has no 64 bits, or the profile, level or an option is unknown.

    Examples
    --------
    >>> import ptwalk
    >>> print(ptwalk.explain(0x8400000012345425, profile="6.18"))
    0x8400000012345425 present: pfn 0x12345, P US A UFFD_WP SAVED_DIRTY NX (read-only, dirty, wr-protected)
    """  # noqa: E501 - the line is what it prints
    word = operator.index(word)
    if not 0 <= word < 1 << 64:
        raise InvalidArgument(
            f"word {word:#x} is outside 64 bits; a page-table entry is 0 to 2**64 - 1"
        )
    number, facts = level_number(level), _facts(profile, config)
    array = np.array([word], dtype=np.uint64)
    entry: Any = decode(array, profile=profile, level=number, config=config)[0]
    kind = Kind(entry["kind"])
    parts = names(word, entry, profile=profile, level=number, config=config)
    if where := location(entry):
        inverted = kind in (Kind.PRESENT, Kind.HUGE) and not word & _P
        after_name = kind in (Kind.SWAP, Kind.MIGRATION, Kind.DEVICE)
        parts.insert(after_name, where + " (stored inverted)" * inverted)
    text = f": {', '.join(parts)}{_meaning(word, entry, number, facts)}" if parts else ""
    return f"{word:#018x} {kind.name.lower()}{text}"
