"""Loads the cases of whole change_protection walks into plain dataclasses.

The format is that of `data/vectors/WALK.md`; runs are expanded, hexadecimal strings become integers
and nothing is interpreted. Physical addresses of tables are left to the reader of a case: a slot
that points to a table is kept as (table id, flags).
"""

from __future__ import annotations

import gzip
import json
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

SLOTS = 512
_WORD = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class WalkTable:
    """One page table.

    Attributes
    ----------
    id, level, va : int
        Number in the case, level (1 PTE, 2 PMD, 3 PUD, 4 P4D or top, 5 PGD), lowest address mapped.
    words : array of 512 64-bit words
        The entries; 0 where `pointers` has the slot.
    pointers : dict of slot to (table id, flags)
        Entries that hold the physical address of another table of the case, OR flags.
    origin : {None, "alloc", "deposit"}
        How the call made the table; None: it was there before.
    """

    id: int
    level: int
    va: int
    words: array[int]
    pointers: dict[int, tuple[int, int]]
    origin: Literal["alloc", "deposit"] | None = None

    def slot_va(self, slot: int) -> int:
        """Return the lowest address that a slot maps."""
        return self.va + (slot << (12 + 9 * (self.level - 1)))


@dataclass(frozen=True, slots=True)
class WalkVma:
    """The VMA of a case; it covers the whole user address space."""

    kind: str
    anon: bool
    flags: int
    page_prot: int


@dataclass(frozen=True, slots=True)
class WalkOutput:
    """All that the call reported; `tables` are the changed and the new ones, whole."""

    tables: tuple[WalkTable, ...]
    pages: int
    alloc: int
    bad: tuple[tuple[int, int], ...]
    flush: tuple[int, int] | None
    pmd_flush: tuple[int, ...]
    mmu: tuple[tuple[str, int, int], ...]
    mmu_unended: int
    numa_huge: int
    splits: int
    rss: int
    dirtied: int
    referenced: int
    warn_alloc: int
    bad_pte: int


@dataclass(frozen=True, slots=True)
class WalkCase:
    """One call of the walk. `fail`: which PTE-table allocation fails, 1 for the first."""

    id: str
    tree: str
    levels: int
    pti: bool
    vma: WalkVma
    req: str
    cp: int
    start: int
    end: int
    newprot: int
    fail: int | None
    tables: tuple[WalkTable, ...]
    out: WalkOutput

    def tables_after(self) -> dict[int, WalkTable]:
        """Return every table as it must be after the call, by id."""
        after = {table.id: table for table in self.tables}
        after.update({table.id: table for table in self.out.tables})
        return after


def iter_walk_cases(path: Path) -> Iterator[WalkCase]:
    """Yield the cases of one .jsonl.gz file, one at a time."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            yield _parse_case(json.loads(line))


def _parse_case(case: dict[str, Any]) -> WalkCase:
    vma = case["vma"]
    start, end = case["range"]
    return WalkCase(
        id=case["id"],
        tree=case["tree"],
        levels=case["levels"],
        pti=bool(case["pti"]),
        vma=WalkVma(
            kind=vma["kind"],
            anon=bool(vma["anon"]),
            flags=int(vma["flags"], 16),
            page_prot=int(vma["page_prot"], 16),
        ),
        req=case["req"],
        cp=case["cp"],
        start=int(start, 16),
        end=int(end, 16),
        newprot=int(case["newprot"], 16),
        fail=case["fail"],
        tables=tuple(_parse_table(table) for table in case["in"]),
        out=_parse_output(case["out"]),
    )


def _parse_output(out: dict[str, Any]) -> WalkOutput:
    flush = out["flush"]
    return WalkOutput(
        tables=tuple(_parse_table(table) for table in out["tables"]),
        pages=out["pages"],
        alloc=out["alloc"],
        bad=tuple((level, int(va, 16)) for level, va in out["bad"]),
        flush=None if flush is None else (int(flush[0], 16), int(flush[1], 16)),
        pmd_flush=tuple(int(va, 16) for va in out["pmd_flush"]),
        mmu=tuple((kind, int(start, 16), int(end, 16)) for kind, start, end in out["mmu"]),
        mmu_unended=out.get("mmu_unended", 0),
        numa_huge=out["numa_huge"],
        splits=out["splits"],
        rss=out["rss"],
        dirtied=out["dirtied"],
        referenced=out["referenced"],
        warn_alloc=out["warn_alloc"],
        bad_pte=out["bad_pte"],
    )


def _parse_table(table: list[Any]) -> WalkTable:
    id_, level, va, entries, *origin = table
    words = array("Q", bytes(8 * SLOTS))
    pointers: dict[int, tuple[int, int]] = {}
    for entry in entries:
        match entry:
            case [int(slot), str(word)]:
                words[slot] = int(word, 16)
            case [int(slot), str(target), str(flags)]:
                pointers[slot] = (int(target.removeprefix("t")), int(flags, 16))
            case [int(slot), int(count), str(word), str(stride)]:
                first, step = int(word, 16), int(stride, 16)
                for k in range(count):
                    words[slot + k] = (first + k * step) & _WORD
            case _:
                raise ValueError(f"table {id_}: {entry!r} is none of the entry forms of WALK.md")
    return WalkTable(id_, level, int(va, 16), words, pointers, *origin)
