"""Listings and walks: the lines of the usage scripts, grouping, ranges that are mostly absent."""

from __future__ import annotations

import re
from itertools import pairwise

import numpy as np
import ptwalk
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ptwalk import AddressSpace, InvalidArgument, Kind, ShmemFile, Walk

BASE, PAGE, MIB, GIB = 0x7F00_0000_0000, 4096, 1 << 20, 1 << 30


def shmem(profile: str = "6.18", length: int = 4 * MIB, levels: int = 4) -> AddressSpace:
    mm = AddressSpace(profile=profile, levels=levels)
    mm.mmap(BASE, length, "rw-", "shared", ShmemFile(length))
    return mm


def rows(text: str) -> list[tuple[int, int, str, str, int]]:
    """Return address, pages, level, kind and word of each line."""
    found = []
    for line in text.splitlines():
        match = re.match(r"(0x[0-9a-f]{16}) +(\d+)  (\w+) +(\w+) +(0x[0-9a-f]{16})(?:$|  )", line)
        assert match, line
        address, pages, level, kind, word = match.groups()
        found.append((int(address, 16), int(pages), level, kind, int(word, 16)))
    return found


def test_listing_of_the_seed_story() -> None:
    mm = shmem("uffd-wp-v2")
    mm.access(BASE, write=True)
    uffd = mm.userfaultfd()
    uffd.register(BASE, 4 * MIB, "wp")
    uffd.writeprotect(BASE, 4 * MIB)
    text = mm.ptdump(BASE, 4 * MIB)
    pfn = int(mm.decode(mm.ptes(BASE, PAGE))["pfn"][0])
    assert text.splitlines() == [
        f"0x00007f0000000000     1  pte  present  0x8000000000000c65  pfn {pfn:#x}  "
        "P US A D UFFD_WP SOFT_DIRTY NX",
        f"0x00007f0000001000  1023  pte  marker   0x0000000000000004  {'':{len(f'pfn {pfn:#x}')}}  "
        "uffd-wp special pte",
    ]


def test_absent_tables_are_named_by_the_level_that_is_none() -> None:
    base, length = 32 << 39, 2048 * GIB
    mm = AddressSpace(profile="6.18")
    mm.mmap(base, length, "rw-", "shared", ShmemFile(length))
    assert mm.ptdump(base, PAGE) == "0x0000100000000000  1  pgd  none  0x0000000000000000"
    mm.access(base + length - PAGE, write=True)
    assert rows(mm.ptdump(base, length)) == [
        (base, 3 << 27, "pgd", "none", 0),
        (base + 1536 * GIB, (1 << 27) - (1 << 18), "pud", "none", 0),
        (base + 2047 * GIB, (1 << 18) - 512, "pmd", "none", 0),
        (base + length - 2 * MIB, 511, "pte", "none", 0),
        (base + length - PAGE, 1, "pte", "present", 0x8000000000000067),
    ]


def test_frames_beside_a_group() -> None:
    mm = shmem()
    mm.access(BASE, write=True)  # so that a PTE table exists
    flags, place = 0x8000000000000025, []
    for pfns in ([7, 7, 7], [7, 8, 9], [7, 9, 8]):
        ptes = np.array([pfn << 12 | flags for pfn in pfns], dtype=np.uint64)
        mm.set_ptes(BASE, ptes)
        place.append(re.findall(r"pfn \S+", mm.ptdump(BASE, 3 * PAGE)))
    assert place == [["pfn 0x7"], ["pfn 0x7..0x9"], ["pfn 0x7,…"]]


def test_groups_go_on_over_a_table_and_frames_with_them() -> None:
    mm = shmem()
    mm.populate(BASE, 4 * MIB, write=True)
    ptes = np.arange(1024, dtype=np.uint64) << np.uint64(12) | np.uint64(0x8000000000000025)
    mm.set_ptes(BASE, ptes)
    assert mm.ptdump(BASE, 4 * MIB) == (
        "0x00007f0000000000  1024  pte  present  0x8000000000000025  pfn 0x0..0x3ff  P US A NX"
    )


def test_swap_entries_are_listed_without_their_offset() -> None:
    mm = shmem()
    mm.access(BASE, write=True)
    offsets = [~(offset << 9) & 0x07FFFFFFFFFFFE00 for offset in (0x10, 0x11)]
    mm.set_ptes(BASE, np.array([3 << 59 | 4 | o for o in offsets], dtype=np.uint64))
    assert mm.ptdump(BASE, 2 * PAGE) == (
        "0x00007f0000000000  2  pte  swap  0x1800000000000004  offset 0x10..0x11  "
        "type 3, SWP_UFFD_WP"
    )


def test_a_huge_leaf_is_one_line() -> None:
    mm = shmem(length=8 * MIB)
    mm.access(BASE + 6 * MIB, write=True)  # so that a PMD table exists
    for i in range(2):
        mm.set_entry(BASE + 2 * i * MIB, "pmd", 0x80000000400000E7 + 2 * i * MIB)
    assert mm.ptdump(BASE + PAGE, 4 * MIB - PAGE) == (
        "0x00007f0000001000  1023  pmd  huge  0x80000000000000e7  pfn 0x40000..0x40200  "
        "P RW US A D PSE NX"
    )


entries = st.sampled_from(
    [
        0,
        0x20,
        0xFFFFFFFFFFFFFC00,
        0xFFFFFFFFFFFFF600,
        0x8000000000005067,
        0x8000000000006067,
        0x8400000000005425,
        0x000FFFFFFFFFA120,
        0x07FFFFFFFFFFD604,
        0xE7FFFFFFFFFFD604,
    ]
)


@settings(deadline=None)
@given(st.lists(entries, min_size=1, max_size=40), st.integers(0, 600))
def test_the_listing_covers_the_range_and_its_groups_differ(words: list[int], first: int) -> None:
    mm = shmem()
    mm.populate(BASE, 4 * MIB, write=False)
    start = BASE + first * PAGE
    ptes = np.array(words, dtype=np.uint64)
    mm.set_ptes(start, ptes)
    found = rows(mm.ptdump(start, len(words) * PAGE))
    decoded = mm.decode(ptes)
    at = start
    for address, pages, level, kind, word in found:
        assert (address, level) == (at, "pte")
        here = slice((at - start) // PAGE, (at - start) // PAGE + pages)
        assert {Kind(k).name.lower() for k in decoded["kind"][here]} == {kind}
        assert all(int(w) & word == word for w in ptes[here])
        at += pages * PAGE
    assert at == start + len(words) * PAGE
    assert all(a[3:] != b[3:] for a, b in pairwise(found))


@pytest.mark.parametrize(("start", "length"), [(BASE + 1, PAGE), (BASE, 100), (1 << 47, PAGE)])
def test_a_range_is_judged_before_it_is_listed(start: int, length: int) -> None:
    with pytest.raises(InvalidArgument):
        shmem().ptdump(start, length)


def test_nothing_is_listed_as_nothing() -> None:
    assert shmem().ptdump(BASE, 0) == ""


def test_walk_of_the_usage_script() -> None:
    mm, a = shmem(), BASE + 2 * PAGE
    assert (
        str(mm.walk(a)) == "0x00007f0000002000: pgd[254] none; stopped at pgd, nothing mapped below"
    )
    mm.access(a, write=True)
    pfn = int(mm.decode(mm.ptes(a, PAGE))["pfn"][0])
    tables = "pgd[254] table, pud[0] table, "
    assert str(mm.walk(a)) == (
        f"0x00007f0000002000: {tables}pmd[0] table, pte[2] present 0x8000000000000067 pfn {pfn:#x}"
    )
    assert str(mm.walk(a + 2 * MIB)) == (
        f"0x00007f0000202000: {tables}pmd[1] none; stopped at pmd, no PTE table"
    )
    assert str(mm.walk(a + PAGE)) == f"0x00007f0000003000: {tables}pmd[0] table, pte[3] none"


def test_walk_is_a_sequence() -> None:
    mm = shmem()
    mm.access(BASE, write=True)
    walk = mm.walk(BASE)
    assert isinstance(walk, Walk)
    assert [step.level for step in walk] == ["pgd", "pud", "pmd", "pte"]
    assert [step.index for step in walk] == [254, 0, 0, 0]
    assert [step.kind for step in walk] == [Kind.TABLE] * 3 + [Kind.PRESENT]
    assert (len(walk), walk[-1].entry, walk.stopped) == (4, int(mm.ptes(BASE, PAGE)[0]), "pte")
    assert [step.level for step in walk[1:3]] == ["pud", "pmd"]
    for step in walk:
        assert mm.entry(BASE, step.level) == step.entry


def test_five_levels() -> None:
    mm = shmem(levels=5)
    assert mm.walk(BASE).stopped == "pgd"
    mm.access(BASE, write=True)
    assert [step.level for step in mm.walk(BASE)] == ["pgd", "p4d", "pud", "pmd", "pte"]
    assert str(mm.walk(BASE - 512 * GIB)).endswith("stopped at p4d, no PUD table")
    assert str(mm.walk(BASE + GIB)).endswith("stopped at pud, no PMD table")
    assert rows(mm.ptdump(BASE - 512 * GIB, PAGE))[0][2] == "p4d"


def test_a_walk_to_a_marker_shows_it() -> None:
    mm = shmem("6.1")
    uffd = mm.userfaultfd()
    uffd.register(BASE, 4 * MIB, "wp")
    uffd.writeprotect(BASE, PAGE)
    assert str(mm.walk(BASE)).endswith("pte[0] marker 0xf7fffffffffffc00")
    assert ptwalk.decode(mm.ptes(BASE, PAGE), profile="6.1")["uffd_wp"].all()
