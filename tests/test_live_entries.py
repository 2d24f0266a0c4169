"""Entries made from pagemap words that are written down, by profile, kind of VMA and privilege."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from ptwalk import AddressSpace, Kind, RegularFile, ShmemFile, _core
from ptwalk.live_entries import Kernel, infer
from ptwalk.pagemap import (
    PM_FILE,
    PM_GUARD_REGION,
    PM_MMAP_EXCLUSIVE,
    PM_PRESENT,
    PM_SOFT_DIRTY,
    PM_SWAP,
    PM_UFFD_WP,
    Entries,
)

BASE, PAGE = 0x7F0000000000, 4096
PRIVATE, SHARED = "mayread|maywrite|mayexec", "mayread|maywrite|mayshare|shared"
ONCE, TWICE = PM_PRESENT | PM_MMAP_EXCLUSIVE, PM_PRESENT
CACHE = PM_FILE | PM_MMAP_EXCLUSIVE | PM_PRESENT
MARKER_TYPE = 31  # of 6.18


def loaded(
    words: Sequence[int],
    flags: str,
    *,
    kind: str = "anon",
    profile: str = "6.18",
    soft_dirty: bool = False,
    zero: Sequence[int] = (),
    swap_in_use: bool = True,
) -> AddressSpace:
    """Return an address space with one VMA whose pages have these pagemap words."""
    mm = AddressSpace(profile, config={"MEM_SOFT_DIRTY": soft_dirty})
    size = len(words) * PAGE
    file = {"shmem": ShmemFile, "regular": RegularFile}.get(kind)
    mm.load_vma(BASE, BASE + size, flags, kind=kind, file=file(size) if file else None)
    rows = np.arange(len(words), dtype=np.uint64)
    is_zero = np.isin(rows, np.array(zero, dtype=np.uint64))
    entries = Entries(
        BASE + rows * np.uint64(PAGE), np.array(words, dtype=np.uint64), is_zero, is_zero & False
    )
    kernel = Kernel(_core.profile_info("6.18", {})["swp_kinds"], 0, swap_in_use)
    found = infer(entries, mm.vmas, _core.profile_info(profile, mm.config), kernel)
    mm.load_pages(BASE, found.ptes, found.facts)
    assert mm.validate() == []
    return mm


def words_of(mm: AddressSpace) -> list[int]:
    """Return the entries of the VMA, the pfn field of present ones cleared."""
    ptes = mm.ptes(BASE, mm.vmas[0].length)
    present = mm.decode(ptes)["kind"] == Kind.PRESENT
    return [int(x) for x in np.where(present, ptes & ~np.uint64(0xFFFFFFFFFF000), ptes)]


@pytest.mark.parametrize(
    ("profile", "dirty", "saved"),
    [("5.12", 0x40, 0x40), ("6.1", 0x40, 0x40), ("6.18", 0x40, 1 << 58)],
)
def test_anonymous_pages_are_writable_where_they_are_mapped_once(
    profile: str, dirty: int, saved: int
) -> None:
    mm = loaded([ONCE, TWICE, ONCE | PM_UFFD_WP], f"read|write|uffd_wp|{PRIVATE}", profile=profile)
    nx = 0x8000000000000000
    assert words_of(mm) == [nx | 0x27 | dirty, nx | 0x25 | saved, nx | 0x425 | saved]
    exclusive = (mm.pages(BASE, 3 * PAGE)["flags"] & 4) != 0
    assert exclusive.tolist() == [True, False, True]


def test_a_page_that_others_map_is_copied_by_a_write() -> None:
    mm = loaded([ONCE, TWICE], f"read|write|{PRIVATE}")
    before = mm.pages(BASE, 2 * PAGE)["serial"].tolist()
    for page in (0, 1):
        mm.access(BASE + page * PAGE, write=True)
    after = mm.pages(BASE, 2 * PAGE)["serial"].tolist()
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, False]
    assert mm.validate() == []


def test_pages_of_the_page_cache() -> None:
    assert words_of(loaded([CACHE], f"read|write|{PRIVATE}", kind="regular")) == [
        0x8000000000000025
    ]
    assert words_of(loaded([CACHE], f"read|write|{SHARED}", kind="shmem")) == [0x8000000000000067]
    assert words_of(loaded([CACHE], f"read|exec|{PRIVATE}", kind="regular")) == [0x25]
    armed = loaded([CACHE | PM_UFFD_WP], f"read|write|uffd_wp|{SHARED}", kind="shmem")
    assert words_of(armed) == [0x8000000000000425]


def test_prot_none_keeps_the_pfn_inverted() -> None:
    mm = loaded([ONCE | 0x12345, ONCE], PRIVATE)
    assert words_of(mm) == [0x0400000000000120] * 2
    found = mm.decode(mm.ptes(BASE, 2 * PAGE))
    assert found["pfn"][0] == 0x12345
    assert found["kind"].tolist() == [Kind.PRESENT] * 2
    assert mm.mprotect(BASE, 2 * PAGE, "r--").present == 2
    assert mm.decode(mm.ptes(BASE, PAGE))["pfn"][0] == 0x12345


def test_the_zero_page_is_special_and_has_no_facts() -> None:
    mm = loaded([TWICE | 0x777, TWICE | 0x777], f"read|write|{PRIVATE}", zero=[0])
    assert words_of(mm) == [0x8000000000000225, 0x8400000000000025]
    assert mm.pages(BASE, 2 * PAGE)["mapcount"].tolist() == [0, 2]


def test_a_frame_with_a_role_of_its_own_is_replaced() -> None:
    mm = loaded([ONCE | 0x1A2B, ONCE | 0x600, ONCE | 1 << 32, ONCE | 7], f"read|write|{PRIVATE}")
    assert (mm.decode(mm.ptes(BASE, 4 * PAGE))["pfn"] == 7).tolist() == [False] * 3 + [True]


def test_a_frame_that_changed_its_role_while_it_was_read() -> None:
    mm = loaded([CACHE | 0x500, CACHE | 0x500, ONCE | 0x500], f"read|{PRIVATE}", kind="regular")
    assert len(set(mm.pages(BASE, 3 * PAGE)["pfn"].tolist())) == 3


def test_soft_dirty_is_exact_where_the_vma_is_not() -> None:
    words = [ONCE | PM_SOFT_DIRTY, ONCE]
    tracked = loaded(words, f"read|write|{PRIVATE}", soft_dirty=True)
    assert words_of(tracked) == [0x8000000000000867, 0x8400000000000025]
    whole = loaded([words[0]], f"read|write|softdirty|{PRIVATE}", soft_dirty=True)
    assert words_of(whole) == [0x8000000000000867]


def test_pages_without_struct_page_are_special() -> None:
    mm = loaded([PM_PRESENT | 0xFEE00], "read|mayread|pfnmap|io", kind="other")
    assert words_of(mm) == [0x8000000000000225]
    assert mm.decode(mm.ptes(BASE, PAGE))["pfn"][0] == 0xFEE00


def shown(swp_type: int, offset: int) -> int:
    return PM_SWAP | swp_type | offset << 5


def kinds_of(mm: AddressSpace) -> list[str]:
    kinds = mm.decode(mm.ptes(BASE, mm.vmas[0].length))["kind"]
    return [Kind(kind).name for kind in kinds]


def test_swap_entries_with_their_types_shown() -> None:
    words = [
        shown(0, 5),
        shown(1, 9) | PM_UFFD_WP,
        shown(30, 0x1234) | PM_FILE,  # migration_write
        shown(MARKER_TYPE, 1) | PM_UFFD_WP,
        shown(MARKER_TYPE, 4) | PM_GUARD_REGION,
        shown(MARKER_TYPE, 2),
    ]
    mm = loaded(words, f"read|write|uffd_wp|{PRIVATE}")
    assert kinds_of(mm) == ["SWAP", "SWAP", "MIGRATION", "MARKER", "MARKER", "MARKER"]
    decoded = mm.decode(mm.ptes(BASE, 6 * PAGE))
    assert decoded["uffd_wp"].tolist() == [False, True, False, True, False, False]
    assert decoded["pfn"][2] == 0x1234
    assert decoded["offset"][3:].tolist() == [1, 4, 2]


def test_markers_of_another_profile() -> None:
    words = [shown(MARKER_TYPE, 1) | PM_UFFD_WP, shown(MARKER_TYPE, 4) | PM_GUARD_REGION]
    flags = f"read|write|uffd_wp|{SHARED}"
    assert words_of(loaded(words, flags, kind="shmem", profile="uffd-wp-v2")) == [0x4, 0]
    assert words_of(loaded(words, flags, kind="shmem", profile="6.1")) == [0xF7FFFFFFFFFFFC00, 0]
    assert words_of(loaded(words, flags, kind="shmem", profile="5.12")) == [0, 0]


@pytest.mark.parametrize(
    ("flags", "kind", "swap_in_use", "armed"),
    [
        (PRIVATE, "anon", True, "SWAP"),
        (PRIVATE, "anon", False, "MARKER"),
        (SHARED, "shmem", True, "MARKER"),
    ],
)
def test_swap_entries_with_their_types_hidden(
    flags: str, kind: str, swap_in_use: bool, armed: str
) -> None:
    words = [PM_SWAP, PM_SWAP | PM_UFFD_WP, PM_SWAP | PM_GUARD_REGION, PM_UFFD_WP]
    mm = loaded(words, f"read|write|uffd_wp|{flags}", kind=kind, swap_in_use=swap_in_use)
    assert kinds_of(mm) == ["SWAP", armed, "MARKER", "MARKER"]
