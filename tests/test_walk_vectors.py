"""Every recorded whole walk of change_protection, driven through the public AddressSpace.

Tables go in by raw stores, one VMA covers the user address space, and the tables, counts, flushes
and notifiers of the call are compared with what the kernel's code answered (data/vectors/WALK.md).
A recorded mm has two users; here pages without facts stand for that: none is on the target node.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from paths import walk_vector_files
from ptwalk import AddressSpace, ProtectResult
from walk_vectors import WalkCase, WalkOutput, WalkTable, iter_walk_cases

KINDS = {
    "anon": "anon",
    "shmem-shared": "shmem",
    "shmem-private": "shmem",
    "file-shared-wn": "regular",
    "dax-shared": "dax",
}
TREES = ("5.12", "uffd-wp-v2-11", "uffd-wp-v2")
PFN_FIELD = 0x000F_FFFF_FFFF_F000


@cache
def cases(path: Path) -> list[WalkCase]:
    return list(iter_walk_cases(path))


def load_table(mm: AddressSpace, table: WalkTable) -> None:
    """Store the entries of one table; the tables that it points to are made empty."""
    for slot, (_, flags) in table.pointers.items():
        mm.alloc_table(table.slot_va(slot), table.level, flags)
    if table.level == 1:
        mm.set_ptes(table.va, np.array(table.words, np.uint64))
        return
    for slot, word in enumerate(table.words):
        if word:
            mm.set_entry(table.slot_va(slot), table.level, word)


def load(case: WalkCase) -> AddressSpace:
    """Return the address space of a case as it is before the call."""
    config = {"PAGE_TABLE_ISOLATION": case.pti}
    mm = AddressSpace(case.tree, levels=case.levels, config=config)
    user_end = (1 << (47 if case.levels == 4 else 56)) - 4096
    mm.load_vma(0, user_end, case.vma.flags, kind=KINDS[case.vma.kind])
    for table in sorted(case.tables, key=lambda table: -table.level):
        load_table(mm, table)
    return mm


def level_number(name: str, levels: int) -> int:
    return levels if name == "pgd" else {"pte": 1, "pmd": 2, "pud": 3, "p4d": 4}[name]


def reported(result: ProtectResult, levels: int) -> WalkOutput:
    """Return a result in the form of the recorded answers, its tables left out."""
    kinds = {"protection_vma": "prot", "clear": "clear"}
    return WalkOutput(
        tables=(),
        pages=result.pages,
        alloc=result.tables_allocated,
        bad=tuple((level_number(name, levels), va) for name, va in result.bad_cleared),
        flush=result.flush,
        pmd_flush=result.pmd_flush,
        mmu=tuple((kinds[kind], start, end) for kind, start, end in result.notifier),
        mmu_unended=result.notifier_unended,
        numa_huge=result.numa_huge_pte_updates,
        splits=result.thp_split_pmd,
        rss=result.rss_file,
        dirtied=result.dirtied,
        referenced=result.referenced,
        warn_alloc=result.warnings.count("WARNING: page table allocation failed"),
        bad_pte=sum(text.startswith("BUG: Bad page map") for text in result.warnings),
    )


def table_differences(mm: AddressSpace, case: WalkCase) -> list[str]:
    """Compare every table that hangs below the root with the recorded one, all 512 words of it."""
    image = mm.tables()
    rows = {0: (mm.cr3 >> 12) - mm.table_base}
    after = case.tables_after()
    differences = []
    private = []  # rows that no other entry may point to; tables of 512 equal words may be shared
    for table in sorted(after.values(), key=lambda table: -table.level):
        if table.id not in rows:
            continue  # its pointer was found bad and cleared, or a huge page took its place
        got: npt.NDArray[np.uint64] = image[rows[table.id]]
        expected = np.array(table.words, np.uint64)
        for slot, (below, flags) in table.pointers.items():
            entry = int(got[slot])
            rows[below] = ((entry & PFN_FIELD) >> 12) - mm.table_base
            if not 0 < rows[below] < len(image):
                return [f"slot {slot} of table {table.id} points to no table: {entry:#x}"]
            if len(set(image[rows[below]].tolist())) > 1:
                private.append(rows[below])
            expected[slot] = (entry & PFN_FIELD) | flags
        differences += [
            f"table {table.id} (level {table.level}) slot {slot}: "
            f"{int(got[slot]):#018x}, recorded {int(expected[slot]):#018x}"
            for slot in np.flatnonzero(got != expected)[:3]
        ]
    if len(set(private)) != len(private):
        differences.append("one table hangs in two places")
    return differences


def differences_of(case: WalkCase) -> list[str]:
    """Run one case; return what differs from the recorded answer."""
    mm = load(case)
    # Only splits of anonymous pages read vm_page_prot. The recorded one of shared memory leaves out
    # that clear_refs, which takes VM_SOFTDIRTY away, also wants write-notify.
    if case.vma.anon and mm.vmas[0].page_prot != case.vma.page_prot:
        return [f"page_prot is {mm.vmas[0].page_prot:#x}, recorded {case.vma.page_prot:#x}"]
    before = mm.stats.tables_modelled
    mm.fail_table_alloc(case.fail or 0)
    result = mm.change_protection(case.start, case.end, case.newprot, case.cp)
    got, recorded = reported(result, case.levels), replace(case.out, tables=())
    differences = [f"{got}, recorded {recorded}"] if got != recorded else []
    made = sum(table.origin is not None for table in case.out.tables)
    if mm.stats.tables_modelled != before + made:
        differences.append(f"{mm.stats.tables_modelled - before} new tables, recorded {made}")
    return differences + table_differences(mm, case)


@pytest.mark.parametrize("tree", TREES)
@pytest.mark.parametrize("path", walk_vector_files(), ids=lambda path: path.name)
def test_walks(path: Path, tree: str) -> None:
    chosen = [case for case in cases(path) if case.tree == tree]
    assert chosen
    failed = {case.id: found for case in chosen if (found := differences_of(case))}
    assert not failed, f"{len(failed)} of {len(chosen)} differ, first: {next(iter(failed.items()))}"


def test_every_recorded_tree_is_run() -> None:
    assert {case.tree for path in walk_vector_files() for case in cases(path)} == set(TREES)


def test_one_changed_word_is_noticed() -> None:
    case = next(case for case in cases(walk_vector_files()[0]) if case.out.tables)
    assert differences_of(case) == []
    changed = replace(case.out.tables[0], words=case.out.tables[0].words[:])
    changed.words[511] ^= 1 << 11
    out = replace(case.out, tables=(changed, *case.out.tables[1:]))
    assert differences_of(replace(case, out=out))
    assert differences_of(replace(case, out=replace(case.out, pages=case.out.pages + 1)))
