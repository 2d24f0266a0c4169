"""Proves the leaf model against the recorded answers of the kernel's own code.

Named vectors (groups A, B, N, S, M), every random PTE step, and every PTE table that a whole walk
changed. The rules of the 6.x profiles are held against traces in test_leaf_model_traces.py.
"""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest
from paths import named_vector_files, pte_vector_files, walk_vector_files
from ptwalk.fuzz import leaf_model as lm
from ptwalk.fuzz.leaf_model import PageFacts, classify, leaf_step, swap_types
from walk_vectors import WalkCase, WalkTable, iter_walk_cases

V2 = "uffd-wp-v2"
ORDINARY = PageFacts()


def leaf_cases() -> list[dict[str, Any]]:
    """Return the named cases that are one PTE step."""
    cases = [case for path in named_vector_files() for case in json.loads(path.read_text())]
    return [case for case in cases if case["id"][0] in "ABNSM" and case["level"] == "PTE"]


def named_request(case: dict[str, Any]) -> tuple[int, int, int]:
    """Return newprot, cp_flags and vm_flags of a named case."""
    found = re.fullmatch(r"([\w+]+) \(newprot (0x[0-9a-f]+)\)", case["req"])
    assert found, case["req"]
    flags = {
        "WP": lm.MM_CP_UFFD_WP,
        "RESOLVE": lm.MM_CP_UFFD_WP_RESOLVE,
        "mprotect": 0,
        "mprotect+DIRTY_ACCT": lm.MM_CP_DIRTY_ACCT,
        "PROT_NUMA": lm.MM_CP_PROT_NUMA,
    }
    soft_dirty = 0 if "VM_SOFTDIRTY clear" in case["vma"] else lm.VM_SOFTDIRTY
    return int(found[2], 16), flags[found[1]], lm.VM_UFFD_WP | soft_dirty


@pytest.mark.parametrize("profile", ["uffd-wp-v2-11", V2])
@pytest.mark.parametrize("case", leaf_cases(), ids=lambda case: case["id"])
def test_named_vector(profile: str, case: dict[str, Any]) -> None:
    newprot, cp_flags, vm_flags = named_request(case)
    new, pages, kind = leaf_step(
        profile,
        int(case["old"], 16),
        newprot,
        cp_flags,
        anon=case["vma"].startswith("anon"),
        vm_flags=vm_flags,
        page=ORDINARY,
    )
    assert (f"{new:#018x}", pages) == (case["new"], case["pages"])
    assert (pages == 1) == (kind not in (None, "none_skipped"))


def test_every_group_has_named_vectors() -> None:
    assert {case["id"][0] for case in leaf_cases()} == set("ABNSM")


@pytest.mark.parametrize("path", pte_vector_files(), ids=lambda path: path.name)
def test_random_pte_steps(path: Path) -> None:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    assert rows
    for row in rows:
        old, newprot, cp_flags, anon, vm_softdirty, new, pages = row
        got = leaf_step(
            V2,
            int(old, 16),
            int(newprot, 16),
            cp_flags,
            anon=bool(anon),
            vm_flags=lm.VM_SOFTDIRTY if vm_softdirty else 0,
            page=ORDINARY,
        )
        assert got[:2] == (int(new, 16), pages), row


def check_changed_table(case: WalkCase, before: WalkTable, after: WalkTable) -> None:
    """Hold each entry of a walked PTE table against the model."""
    for slot in range(512):
        old = before.words[slot]
        if case.start <= before.slot_va(slot) < case.end:
            expected, _, _ = leaf_step(
                case.tree,
                old,
                case.newprot,
                case.cp,
                anon=case.vma.anon,
                vm_flags=case.vma.flags,
                page=ORDINARY,
            )
        else:
            expected = old
        assert after.words[slot] == expected, (case.id, hex(before.slot_va(slot)), hex(old))


@pytest.mark.parametrize("path", walk_vector_files(), ids=lambda path: path.name)
def test_pte_tables_of_walks(path: Path) -> None:
    checked = dict.fromkeys(("5.12", "uffd-wp-v2-11", V2), 0)
    for case in iter_walk_cases(path):
        before = {table.id: table for table in case.tables if table.level == 1}
        for after in case.out.tables:
            if after.id in before:
                check_changed_table(case, before[after.id], after)
                checked[case.tree] += 1
    assert all(checked.values())


def test_there_are_vectors_of_every_kind() -> None:
    assert all((named_vector_files(), pte_vector_files(), walk_vector_files()))


# --- the tree before the series -------------------------------------------------------------------
@pytest.mark.parametrize("anon", [False, True])
def test_5_12_takes_the_special_pte_for_a_swap_word(anon: bool) -> None:
    def step(word: int, cp_flags: int) -> tuple[int, int, str | None]:
        prot = 0x8000000000000025
        return leaf_step("5.12", word, prot, cp_flags, anon=anon, vm_flags=0, page=ORDINARY)

    assert classify("5.12", None, 0x4) == "swap"
    assert step(0x4, lm.MM_CP_UFFD_WP_RESOLVE) == (0, 1, "swap")
    assert step(0x4, lm.MM_CP_UFFD_WP) == (0x4, 0, None)
    assert step(0x0, lm.MM_CP_UFFD_WP) == (0, 0, "none_skipped")
    assert step(0x0, lm.MM_CP_UFFD_WP_RESOLVE) == (0, 0, None)


# --- swap type numbers ----------------------------------------------------------------------------
ALL_OFF = {"MEMORY_FAILURE": False, "DEVICE_PRIVATE": False}
ALL_ON = {"MEMORY_FAILURE": True, "DEVICE_PRIVATE": True}


@pytest.mark.parametrize(
    ("profile", "config", "numbers"),
    [
        (V2, ALL_ON, {"hwpoison": 27, "migration_read": 28, "device_private_read": 31}),
        (V2, {"DEVICE_PRIVATE": False}, {"hwpoison": 29, "migration_write": 31}),
        ("6.1", None, {"hwpoison": 26, "migration_read": 27, "marker": 30, "swapin_error": 31}),
        ("6.1", ALL_ON, {"hwpoison": 22, "device_private_write": 26, "marker": 30}),
        ("6.12", None, {"hwpoison": 27, "migration_write": 30, "marker": 31}),
        ("6.12", ALL_ON, {"hwpoison": 23, "device_exclusive_read": 30, "marker": 31}),
        ("6.18", None, {"migration_read": 28, "migration_write": 30, "marker": 31}),
        ("6.18", ALL_ON, {"hwpoison": 24, "device_private_read": 29, "device_exclusive": 30}),
    ],
)
def test_swap_type_numbers(
    profile: str, config: dict[str, bool] | None, numbers: dict[str, int]
) -> None:
    types = swap_types(profile, config)
    assert len(types) == 32
    assert {name: types.index(name) for name in numbers} == numbers


@pytest.mark.parametrize(
    ("profile", "areas", "all_off", "all_on"),
    [(V2, 27, 30, 27), ("6.1", 26, 27, 22), ("6.12", 27, 28, 23), ("6.18", 28, 28, 24)],
)
def test_number_of_swap_areas(profile: str, areas: int, all_off: int, all_on: int) -> None:
    counts = [swap_types(profile, config).count("swap") for config in (None, ALL_OFF, ALL_ON)]
    assert counts == [areas, all_off, all_on]


@pytest.mark.parametrize(
    ("profile", "word"),
    [
        ("uffd-wp-v2-11", 0x4),
        (V2, 0x4),
        ("6.1", 0xF7FFFFFFFFFFFC00),
        ("6.12", 0xFFFFFFFFFFFFFC00),
        ("6.18", 0xFFFFFFFFFFFFFC00),
    ],
)
def test_uffd_wp_marker_words(profile: str, word: int) -> None:
    assert lm.uffd_wp_marker(profile) == word
    assert classify(profile, None, word) == "marker"


@pytest.mark.parametrize("word", [0x24, 0x44, 0x64, 0x6])
def test_special_pte_is_recognised_by_equality(word: int) -> None:
    assert classify(V2, None, word) == "swap"


@pytest.mark.parametrize("flags", range(0, 16, 2))
def test_mainline_marker_is_recognised_by_type(flags: int) -> None:
    assert classify("6.18", None, 0xFFFFFFFFFFFFF600 | flags) == "marker"


@pytest.mark.parametrize("profile", lm.PROFILES)
def test_none_present_and_areas_are_the_same_everywhere(profile: str) -> None:
    for stray in (0x0, 0x20, 0x40, 0x60):
        assert classify(profile, None, stray) == "none"
    for present in (0x1, 0x100, 0x8000000000000025, 0x000FFFFFEDCBA960):
        assert classify(profile, None, present) == "present"
    assert classify(profile, None, lm.encode_swap(3, 0x1234)) == "swap"


# --- 6.x rules that no trace can show -------------------------------------------------------------
def mainline(profile: str, word: int, cp_flags: int, **facts: Any) -> tuple[int, int, str | None]:
    """Step in a private anonymous writable VMA, unless `facts` say otherwise."""
    arguments: dict[str, Any] = {
        "newprot": 0x8000000000000025,
        "anon": True,
        "vm_flags": lm.VM_READ | lm.VM_WRITE | lm.VM_MAYWRITE | lm.VM_SOFTDIRTY,
        "page": PageFacts(anon=True, exclusive=True),
    }
    return leaf_step(profile, word, cp_flags=cp_flags, **(arguments | facts))


@pytest.mark.parametrize("profile", ["6.1", "6.12", "6.18"])
@pytest.mark.parametrize("anon_page", [False, True])
def test_writable_migration_entry_becomes_readable(profile: str, anon_page: bool) -> None:
    types = swap_types(profile)
    readable = types.index("migration_read_exclusive" if anon_page else "migration_read")
    old = lm.encode_swap(types.index("migration_write"), 0x77) | lm.SWP_SOFT_DIRTY
    soft_dirty = 0 if profile == "6.18" else lm.SWP_SOFT_DIRTY  # not built there: the bit is lost
    uffd_wp = lm.SWP_UFFD_WP if profile == "6.1" else 0  # re-added on 6.1 only
    expected = lm.encode_swap(readable, 0x77) | soft_dirty
    page = PageFacts(anon=anon_page)
    assert mainline(profile, old, 0, page=page) == (expected, 1, "swap")
    armed = old | lm.SWP_UFFD_WP
    assert mainline(profile, armed, 0, page=page) == (expected | uffd_wp, 1, "swap")


@pytest.mark.parametrize("profile", ["6.1", "6.12"])
def test_device_exclusive_entry_keeps_both_bits(profile: str) -> None:
    types = swap_types(profile, ALL_ON)
    bits = lm.SWP_SOFT_DIRTY | lm.SWP_UFFD_WP
    for kind, kept in (("exclusive", bits), ("private", lm.SWP_UFFD_WP)):
        old = lm.encode_swap(types.index(f"device_{kind}_write"), 5) | bits
        new = lm.encode_swap(types.index(f"device_{kind}_read"), 5) | kept
        assert mainline(profile, old, 0, config=ALL_ON) == (new, 1, "swap")


@pytest.mark.parametrize("marker", [lm.MARKER_POISONED, lm.MARKER_GUARD])
@pytest.mark.parametrize("cp_flags", [0, lm.MM_CP_UFFD_WP, lm.MM_CP_UFFD_WP_RESOLVE])
def test_poisoned_and_guard_markers_stay(marker: int, cp_flags: int) -> None:
    word = lm.encode_swap(31, marker)
    assert mainline("6.18", word, cp_flags) == (word, 0, None)


def test_hwpoison_and_swap_entries_take_bit_2_only_once() -> None:
    for word in (lm.encode_swap(27, 0x99), lm.encode_swap(3, 0x1234) | 1 << 3):
        armed = word | lm.SWP_UFFD_WP
        assert mainline("6.12", word, lm.MM_CP_UFFD_WP) == (armed, 1, "swap")
        assert mainline("6.12", armed, lm.MM_CP_UFFD_WP) == (armed, 0, None)
        assert mainline("6.12", armed, lm.MM_CP_UFFD_WP_RESOLVE) == (word, 1, "swap")


@pytest.mark.parametrize(
    ("profile", "word", "new"),
    [
        ("5.12", 0x80000000123458E7, 0x8000000012345865),  # loses PAT
        ("6.1", 0x80000000123458E7, 0x80000000123458E5),
        ("6.12", 0x80000000123458E7, 0x84000000123458A5),  # D goes to SAVED_DIRTY
        ("6.12", 0x8200000012345067, 0x8600000012345025),  # DEVMAP is bit 57
        ("6.18", 0x8200000012345067, 0x8400000012345025),  # and gone
        ("6.1", 0x8400000012345067, 0x8400000012345065),  # bit 58 is DEVMAP
    ],
)
def test_what_pte_modify_keeps(profile: str, word: int, new: int) -> None:
    assert mainline(profile, word, 0) == (new, 1, "present")


@pytest.mark.parametrize(
    ("profile", "new"),
    [("6.1", 0x8000000012345465), ("6.12", 0x8400000012345425), ("6.18", 0x8400000012345425)],
)
def test_wr_protect_moves_d_though_newprot_has_rw(profile: str, new: int) -> None:
    step = mainline(profile, 0x8000000012345067, lm.MM_CP_UFFD_WP, newprot=0x8000000000000027)
    assert step == (new, 1, "present")


@pytest.mark.parametrize(
    "page",
    [
        PageFacts(normal=False),
        PageFacts(ksm=True),
        PageFacts(mapcount=2),
        PageFacts(dirty_file=True),
        PageFacts(on_target_node=True),
    ],
)
@pytest.mark.parametrize("profile", lm.PROFILES)
def test_numa_hinting_skips(profile: str, page: PageFacts) -> None:
    word = 0x8000000012345867
    assert mainline(profile, word, lm.MM_CP_PROT_NUMA, newprot=0x120, page=page) == (word, 0, None)
    new, pages, _ = mainline(profile, word, lm.MM_CP_PROT_NUMA, newprot=0x120)
    assert pages == 1
    assert new & lm.PROTNONE


def test_soft_dirty_tracking_holds_back_rw() -> None:
    flags = lm.VM_READ | lm.VM_WRITE
    word = 0x8400000012345025  # dirty, not soft-dirty
    for config, writable in ({"MEM_SOFT_DIRTY": True}, False), ({"MEM_SOFT_DIRTY": False}, True):
        new, _, _ = mainline("6.18", word, 1, vm_flags=flags, config=config)
        assert bool(new & lm.RW) == writable
