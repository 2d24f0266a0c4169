"""Hypothesis strategies: programs, entries, ranges and address spaces."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hypothesis import strategies as st

from .. import _core
from ..address_space import AddressSpace
from ..errors import InvalidArgument
from ..files import File, RegularFile, ShmemFile
from ..fuzz.program import OPERATIONS, TABLE, Field, canonical, encode, op_number
from ..fuzz.text import to_text
from ..machine import profiles

PAGE = 4096
AROUND_PMD = 0x7F0000000000 + (2 << 20) - 8 * PAGE
"""Where areas begin: 8 pages before the end of a PMD entry, so that programs meet two tables."""
BACKINGS = ("anon", "shmem", "private shmem", "regular", "private regular")
PROTS = ("rw-", "r--", "---", "rwx")

_SWP_TYPE_SHIFT, _SWP_OFFSET_SHIFT, _SWP_OFFSET = 59, 9, (1 << 50) - 1
_SWP_FLAGS = (1 << 1, 1 << 2, 1 << 3)  # soft-dirty, uffd-wp, exclusive
_PRESENT, _PROTNONE = 1 << 0, 1 << 8
_PTE_FLAGS = tuple(1 << bit for bit in (1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 57, 58, 59, 63))
_PFN_SHIFT, _PFN_BITS, _PFN_FIELD = 12, 40, 0x000F_FFFF_FFFF_F000
_SPECIAL_PTE = 0x4


class Program(bytes):
    """A program of `ptwalk.fuzz` that shows itself as text where hypothesis prints it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"ptwalk.fuzz.from_text({to_text(self)!r})"


# --- programs -------------------------------------------------------------------------------------
def _values(field: Field) -> st.SearchStrategy[int]:
    """Draw the bits of a field: of a choice only those that mean something, names before files."""
    if field.name == "odd":  # most calls refuse it
        return st.sampled_from((0,) * 100 + tuple(range(1 << field.bits)))
    if field.role in ("choice", "choice_or_file"):
        files = 4 if field.role == "choice_or_file" else 0
        return st.integers(0, len(field.names) + files - 1)
    if field.role == "flags":
        return st.integers(0, (1 << len(field.names)) - 1)
    if field.role in ("length", "pages"):
        return st.integers(0, 16) | st.integers(0, 255)
    if field.member == "mm":
        return st.integers(0, 3)
    return st.integers(0, (1 << field.bits) - 1)


@st.composite
def _operation(draw: st.DrawFn, names: tuple[str, ...]) -> Program:
    row = TABLE[op_number(draw(st.sampled_from(names)))]
    op: dict[str, Any] = {"op": row.name}
    for field in row.fields:
        op[field.member] = op.get(field.member, 0) | draw(_values(field)) << field.shift
    return Program(canonical(encode([op])))


def operations(
    names: Iterable[str] | None = None, *, raw: bool = True
) -> st.SearchStrategy[Program]:
    """Draw single operations of the fuzzing backend.

    Parameters
    ----------
    names : iterable of str, optional
        Which, of `ptwalk.fuzz.OPERATIONS`; all by default.
    raw : bool
        Whether stores that no system call makes are among them.

    Returns
    -------
    strategy of Program
        Programs of one operation; they shrink to the first operation and to fields of 0.

    Raises
    ------
    InvalidArgument
        For an unknown name, or when none is left.
    """
    wanted = OPERATIONS if names is None else tuple(names)
    chosen = tuple(name for name in wanted if raw or not TABLE[op_number(name)].raw)
    if not chosen:
        raise InvalidArgument(f"no operation is left of {wanted!r}; name some, or pass raw=True")
    for name in chosen:
        op_number(name)
    return _operation(chosen)


def programs(
    names: Iterable[str] | None = None,
    *,
    raw: bool = True,
    min_size: int = 0,
    max_size: int = 20,
) -> st.SearchStrategy[Program]:
    """Draw programs for `ptwalk.fuzz.Executor`.

    Parameters
    ----------
    names, raw
        As for `operations`.
    min_size, max_size : int
        How many operations.

    Returns
    -------
    strategy of Program
        Bytes; a failing example is printed as text.

    Raises
    ------
    InvalidArgument
        As `operations`.
    """
    ops = st.lists(operations(names, raw=raw), min_size=min_size, max_size=max_size)
    return ops.map(lambda drawn: Program(b"".join(drawn)))


# --- entries and ranges ---------------------------------------------------------------------------
def _flags(bits: tuple[int, ...]) -> st.SearchStrategy[int]:
    return st.sets(st.sampled_from(bits)).map(sum)


def _swap_words(types: list[int], offsets: st.SearchStrategy[int]) -> st.SearchStrategy[int]:
    return st.builds(
        lambda kind, offset, flags: (
            kind << _SWP_TYPE_SHIFT | (~offset & _SWP_OFFSET) << _SWP_OFFSET_SHIFT | flags
        ),
        st.sampled_from(types),
        offsets,
        _flags(_SWP_FLAGS),
    )


def _present_word(pfn: int, flags: int, present: int) -> int:
    """Return a present entry; without bit P the frame is stored inverted (L1TF)."""
    field = pfn << _PFN_SHIFT
    return (field if present == _PRESENT else ~field & _PFN_FIELD) | flags | present


def entries(profile: str) -> st.SearchStrategy[int]:
    """Draw raw PTEs of every kind that a profile has, and words that no kernel would write.

    Parameters
    ----------
    profile : str
        One of `ptwalk.profiles`; `ptwalk.decode` says what a word is under it.

    Returns
    -------
    strategy of int
        64-bit words; they shrink to none.

    Raises
    ------
    InvalidArgument
        For an unknown profile.
    """
    info = _core.profile_info(profile, {})
    by_name: dict[str, list[int]] = {}
    for number, name in enumerate(info["swp_kinds"]):
        by_name.setdefault(name, []).append(number)
    marker_types = by_name.pop("pte_marker", [])
    pfns = st.integers(0, 64) | st.integers(0, (1 << _PFN_BITS) - 1)
    classes = [
        st.sampled_from([0, 1 << 5, 1 << 6, 1 << 5 | 1 << 6]),  # none; A and D may stray
        st.builds(_present_word, pfns, _flags(_PTE_FLAGS), st.sampled_from([_PRESENT, _PROTNONE])),
        *(
            _swap_words(types, st.integers(0, 64) | st.integers(0, _SWP_OFFSET))
            for types in by_name.values()
        ),
    ]
    if info["marker_format"] == "special_pte":
        classes.append(st.just(_SPECIAL_PTE))
    if marker_types:
        classes.append(_swap_words(marker_types, st.integers(0, info["marker_mask"])))
    return st.one_of(*classes, st.integers(0, (1 << 64) - 1))


def ranges(start: int, length: int, *, min_pages: int = 1) -> st.SearchStrategy[tuple[int, int]]:
    """Draw page-aligned ranges inside an area.

    Parameters
    ----------
    start, length : int
        The area in bytes, page aligned.
    min_pages : int
        The least length.

    Returns
    -------
    strategy of (int, int)
        Start and length in bytes; they shrink to the first pages.

    Raises
    ------
    InvalidArgument
        For an area that is not page aligned, or smaller than `min_pages`.
    """
    pages = length // PAGE
    if start % PAGE or length % PAGE or pages < min_pages:
        raise InvalidArgument(
            f"start {start:#x}, length {length:#x}: pass whole pages, at least {min_pages} of them"
        )
    firsts = st.integers(0, pages - min_pages)
    return firsts.flatmap(
        lambda first: st.integers(min_pages, pages - first).map(
            lambda nr: (start + first * PAGE, nr * PAGE)
        )
    )


# --- address spaces -------------------------------------------------------------------------------
def map_area(mm: AddressSpace, start: int, length: int, prot: str, backing: str) -> File | None:
    """Map fixed memory of one of `BACKINGS` and return its file, which starts there."""
    word, _, last = backing.rpartition(" ")
    flags = "private" if word or last == "anon" else "shared"
    file: File | None = None
    if last == "anon":
        flags += "|anonymous"
    else:
        file = (ShmemFile if last == "shmem" else RegularFile)(length)
    mm.mmap(start, length, prot, f"{flags}|fixed", file)
    return file


@st.composite
def _address_space(
    draw: st.DrawFn, among: tuple[str, ...], max_areas: int, area_pages: int
) -> AddressSpace:
    mm = AddressSpace(draw(st.sampled_from(among)))
    length = area_pages * PAGE
    for i in range(draw(st.integers(1, max_areas))):
        start = AROUND_PMD + i * length
        size = draw(st.sampled_from([length, max(PAGE, length - PAGE)]))
        map_area(mm, start, size, draw(st.sampled_from(PROTS)), draw(st.sampled_from(BACKINGS)))
        touched = draw(st.lists(st.tuples(ranges(start, size), st.booleans()), max_size=3))
        for (first, nr), write in touched:
            mm.access_many(range(first, first + nr, PAGE), write=write)
        swaps = draw(st.booleans())
        if touched and swaps:
            mm.reclaim(*draw(ranges(start, size)))
    return mm


def address_spaces(
    profile: str | None = None, *, max_areas: int = 4, area_pages: int = 8
) -> st.SearchStrategy[AddressSpace]:
    """Draw address spaces with mappings of all kinds, some of their pages present or in swap.

    Parameters
    ----------
    profile : str, optional
        One of `ptwalk.profiles`; by default any.
    max_areas : int
        How many mappings, each followed by a hole or by the next one.
    area_pages : int
        Pages of each; the first ones end a PMD entry.

    Returns
    -------
    strategy of AddressSpace
        Each on a machine of its own. What is mapped is in `AddressSpace.vmas`.

    Raises
    ------
    InvalidArgument
        For an unknown profile, and numbers that are not positive.
    """
    if profile is not None and profile not in profiles():
        raise InvalidArgument(f"profile {profile!r} is not known; use one of {profiles()}")
    numbers: dict[str, object] = {"max_areas": max_areas, "area_pages": area_pages}
    for name, value in numbers.items():
        if not isinstance(value, int) or value < 1:
            raise InvalidArgument(f"{name} {value!r} is not positive; pass an int from 1 on")
    among = profiles() if profile is None else (profile,)
    return _address_space(among, max_areas, area_pages)
