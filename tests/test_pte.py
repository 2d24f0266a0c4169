"""Decoding of entries: every layout by profile, explain's lines, and the recorded kernels' entries.

Judges: words written down from the layouts, the pure-Python leaf model (which shares no code with
the decoder), and each distinct entry of the traces with its class and pagemap bits.
"""

from __future__ import annotations

import gzip
import json
import re
from functools import cache
from typing import Any

import numpy as np
import ptwalk
import pytest
from hypothesis import given
from hypothesis import strategies as st
from paths import trace_files
from ptwalk import InvalidArgument, Kind, pte
from ptwalk.fuzz import leaf_model

NX = 1 << 63
BIT58, BIT57 = 1 << 58, 1 << 57
PFN = 0x12345
ERA = ("5.12", "uffd-wp-v2-11", "uffd-wp-v2")
MAINLINE = ("6.1", "6.12", "6.18")
PROFILES = (*ERA, *MAINLINE)
LEVELS = ("pte", "pmd", "pud", "p4d", "pgd")
PM_UFFD_WP = 1 << 57


def array(*words: int) -> pte.U64:
    return np.array(words, dtype=np.uint64)


def decode_one(
    word: int, profile: str, level: str = "pte", config: dict[str, bool] | None = None
) -> Any:
    return ptwalk.decode(array(word), profile=profile, level=level, config=config)[0]


def swap(type_: int, offset: int, flags: int = 0) -> int:
    """Return a swap-format word, built from the layout and not from the decoder."""
    return sum(1 << 9 + bit for bit in range(50) if not offset >> bit & 1) | type_ << 59 | flags


SCRIPT_7 = [
    ("5.12", "0x0000000000000004 swap: type 0, offset 0x3ffffffffffff, SWP_UFFD_WP"),
    ("uffd-wp-v2", "0x0000000000000004 marker: uffd-wp special pte"),
    ("6.1", "0xf7fffffffffffc00 marker: PTE marker UFFD_WP (swap type 30, offset 0x1)"),
    ("6.18", "0xfffffffffffffc00 marker: PTE marker UFFD_WP (swap type 31, offset 0x1)"),
    ("6.18", "0xfffffffffffff600 marker: PTE marker GUARD (swap type 31, offset 0x4)"),
    (
        "6.18",
        "0x8400000012345425 present: pfn 0x12345, P US A UFFD_WP SAVED_DIRTY NX "
        "(read-only, dirty, wr-protected)",
    ),
    (
        "uffd-wp-v2",
        "0x000fffffedcba960 present: pfn 0x12345 (stored inverted), A D PROTNONE SOFT_DIRTY "
        "(no access)",
    ),
    (
        "uffd-wp-v2",
        "0x1fffffffffdb9604 swap: type 3, offset 0x1234, SWP_UFFD_WP (wr-protected)",
    ),
]
OTHER_LINES = [
    ("6.18", "pte", 0x0, "none"),
    ("6.18", "pte", 0x60, "none: stray A D"),
    ("uffd-wp-v2", "pte", 0x24, "swap: type 0, offset 0x3ffffffffffff, SWP_UFFD_WP, A"),
    ("6.18", "pte", 0x07FFFFFFFFFFFE08, "swap: type 0, offset 0x0, SWP_EXCLUSIVE"),
    ("6.1", "pte", 0xF7FFFFFFFFFFFA00, "marker: PTE marker 0x2 (swap type 30, offset 0x2)"),
    ("6.12", "pte", 0xFFFFFFFFFFFFFA00, "marker: PTE marker POISONED (swap type 31, offset 0x2)"),
    (
        "6.18",
        "pte",
        0xFFFFFFFFFFFFF604,
        "marker: PTE marker GUARD (swap type 31, offset 0x4), SWP_UFFD_WP",
    ),
    (
        "6.18",
        "pte",
        0xFFFFFFFFFFFFF800,
        "marker: PTE marker UFFD_WP|POISONED (swap type 31, offset 0x3)",
    ),
    ("6.1", "pte", 0xFFFFFFFFFFFDB600, "swap: type 31, offset 0x124, swapin error"),
    ("6.18", "pte", 0xEFFFFFFFFFFDB600, "migration: read-exclusive, pfn 0x124, swap type 29"),
    (
        "6.18",
        "pte",
        0xE5FDFFFFFFFDB606,
        "migration: read, pfn 0x124, young, swap type 28, SWP_SOFT_DIRTY, SWP_UFFD_WP "
        "(wr-protected)",
    ),
    ("5.12", "pte", 0xF7FFFFFFFFFDB600, "device: private-write, pfn 0x124, swap type 30"),
    ("5.12", "pte", 0xDFFFFFFFFFFDB600, "hwpoison: pfn 0x124, swap type 27"),
    (
        "5.12",
        "pte",
        0x8400000012345225,
        "present: pfn 0x12345, P US A SPECIAL DEVMAP NX (read-only)",
    ),
    (
        "6.12",
        "pte",
        0x8200000012345227,
        "present: pfn 0x12345, P RW US A SPECIAL DEVMAP NX (writable)",
    ),
    (
        "6.18",
        "pte",
        0x98100000123450E7,
        "present: pfn 0x12345, P RW US A D PAT BIT52 PKEY 3 NX (writable, dirty)",
    ),
    (
        "6.18",
        "pmd",
        0x80000000002010E7,
        "huge: pfn 0x200, P RW US A D PSE PAT_LARGE NX (writable, dirty)",
    ),
    ("6.18", "pmd", 0x12345067, "table: pfn 0x12345, P RW US A D"),
    ("6.18", "pmd", 0x12345065, "table: pfn 0x12345, P US A D (bad: the kernel clears it)"),
    (
        "6.18",
        "pgd",
        0x8000000012345067,
        "table: pfn 0x12345, P RW US A D NX (bad: the kernel clears it)",
    ),
]


@pytest.mark.parametrize(("profile", "line"), SCRIPT_7)
def test_explain_prints_the_lines_of_the_usage_script(profile: str, line: str) -> None:
    assert ptwalk.explain(int(line[:18], 16), profile=profile) == line


@pytest.mark.parametrize(("profile", "level", "word", "text"), OTHER_LINES)
def test_explain(profile: str, level: str, word: int, text: str) -> None:
    assert ptwalk.explain(word, profile=profile, level=level) == f"{word:#018x} {text}"


PRESENT_CASES = [
    # profiles, flags above the frame, write, dirty, uffd_wp
    (PROFILES, NX | 0x67, True, True, False),
    (PROFILES, NX | 0x27, True, False, False),
    (PROFILES, NX | 0x425, False, False, True),
    (PROFILES, NX | 0xC65, False, True, True),
    (ERA, NX | BIT58 | 0x225, False, False, False),  # DEVMAP
    (("6.1",), NX | BIT58 | 0x225, False, False, False),
    (("6.12", "6.18"), NX | BIT58 | 0x425, False, True, True),  # SAVED_DIRTY
    (("6.12",), NX | BIT57 | 0x225, False, False, False),
]


@pytest.mark.parametrize(("profiles", "flags", "write", "dirty", "uffd_wp"), PRESENT_CASES)
@pytest.mark.parametrize(("level", "kind"), [("pte", Kind.PRESENT), ("pmd", Kind.HUGE)])
def test_present(
    profiles: tuple[str, ...],
    flags: int,
    write: bool,
    dirty: bool,
    uffd_wp: bool,
    level: str,
    kind: Kind,
) -> None:
    flags |= 0x80 * (level == "pmd")
    frame = PFN if level == "pte" else PFN & ~511
    for profile in profiles:
        entry = decode_one(flags | frame << 12, profile, level)
        expected = (kind, write, dirty, uffd_wp, flags, frame, 0, 0)
        assert tuple(entry.tolist()) == expected, profile


@pytest.mark.parametrize(("level", "kind"), [("pte", Kind.PRESENT), ("pud", Kind.HUGE)])
def test_prot_none_is_present_and_its_frame_is_stored_inverted(level: str, kind: Kind) -> None:
    field, frame, flags = 0x000FFFFFFFFFF000, PFN, 0x120
    if level == "pud":
        field, frame, flags = 0x000FFFFFC0000000, PFN & ~0x3FFFF, 0x1A0
    word = flags | (~(frame << 12) & field)
    entry = decode_one(word, "6.18", level)
    assert tuple(entry.tolist()) == (kind, False, False, False, flags, frame, 0, 0)


TYPES = [
    ("uffd-wp-v2", {}, {26: "SWAP", 27: "HWPOISON", 28: "MIGRATION", 29: "MIGRATION"}),
    ("uffd-wp-v2", {}, {30: "DEVICE", 31: "DEVICE"}),
    ("5.12", {"DEVICE_PRIVATE": False}, {28: "SWAP", 29: "HWPOISON", 31: "MIGRATION"}),
    ("6.1", {}, {25: "SWAP", 26: "HWPOISON", 27: "MIGRATION", 29: "MIGRATION", 30: "MARKER"}),
    ("6.12", {}, {26: "SWAP", 27: "HWPOISON", 28: "MIGRATION", 30: "MIGRATION", 31: "MARKER"}),
    ("6.12", {"DEVICE_PRIVATE": True}, {22: "SWAP", 23: "HWPOISON", 27: "DEVICE", 30: "DEVICE"}),
    ("6.18", {}, {27: "SWAP", 28: "MIGRATION", 30: "MIGRATION", 31: "MARKER"}),
    ("6.18", {"MEMORY_FAILURE": True}, {26: "SWAP", 27: "HWPOISON", 28: "MIGRATION"}),
    ("6.18", {"DEVICE_PRIVATE": True}, {25: "MIGRATION", 28: "DEVICE", 30: "DEVICE"}),
]


@pytest.mark.parametrize(("profile", "config", "kinds"), TYPES)
@pytest.mark.parametrize("armed", [False, True])
def test_swap_types_follow_profile_and_config(
    profile: str, config: dict[str, bool], kinds: dict[int, str], armed: bool
) -> None:
    for type_, name in kinds.items():
        offset = 0x1234  # of a marker: no UFFD_WP
        entry = decode_one(swap(type_, offset, 4 * armed), profile, config=config)
        frame = offset if name in ("MIGRATION", "DEVICE", "HWPOISON") else 0
        expected = (Kind[name], False, False, armed, 4 * armed, frame, type_, offset)
        assert tuple(entry.tolist()) == expected, type_


def test_the_frame_of_a_migration_entry_lies_below_young_and_dirty() -> None:
    entry = decode_one(swap(28, PFN | 3 << 40), "6.18")
    assert (entry["kind"], entry["pfn"], entry["offset"]) == (Kind.MIGRATION, PFN, PFN | 3 << 40)


@pytest.mark.parametrize(
    ("profile", "word", "uffd_wp"),
    [
        ("uffd-wp-v2", 0x4, True),
        ("uffd-wp-v2-11", 0x4, True),
        ("6.1", 0xF7FFFFFFFFFFFC00, True),
        ("6.12", 0xFFFFFFFFFFFFFC00, True),
        ("6.12", 0xFFFFFFFFFFFFFA00, False),  # POISONED
        ("6.18", 0xFFFFFFFFFFFFFC02, True),  # moved by mremap with MEM_SOFT_DIRTY
        ("6.18", 0xFFFFFFFFFFFFF604, True),  # GUARD; PAGEMAP_SCAN has set bit 2
    ],
)
def test_markers(profile: str, word: int, uffd_wp: bool) -> None:
    entry = decode_one(word, profile)
    assert (entry["kind"], entry["uffd_wp"]) == (Kind.MARKER, uffd_wp)


@pytest.mark.parametrize("word", [0x24, 0x44, 0x64, 0x6])
def test_the_special_pte_is_recognised_by_equality(word: int) -> None:
    assert decode_one(word, "uffd-wp-v2")["kind"] == Kind.SWAP


def test_upper_levels() -> None:
    table = PFN << 12 | 0x67
    for level in ("pmd", "pud", "p4d", "pgd"):
        assert tuple(decode_one(table, "6.18", level).tolist()) == (
            (Kind.TABLE, False, False, False, 0x67, PFN, 0, 0)
        )
        assert decode_one(0, "6.18", level)["kind"] == Kind.NONE
    stray = [decode_one(0x20, "6.18", level)["kind"] for level in LEVELS]
    assert stray == [Kind.NONE] * 4 + [Kind.TABLE]  # pgd_none looks at the whole word
    # pmd_present holds for PSE alone: a huge leaf that is being invalidated
    assert decode_one(PFN & ~511 << 12 | 0x80, "6.18", "pmd")["kind"] == Kind.HUGE
    assert decode_one(swap(28, PFN), "6.18", "pmd")["kind"] == Kind.MIGRATION


@pytest.mark.parametrize("profile", PROFILES)
def test_bits_are_named_from_bit_0_upwards(profile: str) -> None:
    saved_dirty = {"6.12": "SAVED_DIRTY", "6.18": "SAVED_DIRTY"}.get(profile, "DEVMAP")
    bit57 = "DEVMAP" if profile == "6.12" else "BIT57"
    word = 1 << 64 | 0xF7F0000000000FFF | NX | BIT58 | BIT57
    names = pte.flag_names(word & (1 << 64) - 1, profile)
    assert names == (
        "P RW US PWT PCD A D PAT G SPECIAL UFFD_WP SOFT_DIRTY BIT52 BIT53 BIT54 BIT55 BIT56 "
        f"{bit57} {saved_dirty} PKEY 14 NX"
    )


words = st.one_of(
    st.integers(0, 2**64 - 1),
    st.builds(swap, st.integers(0, 31), st.integers(0, 2**50 - 1), st.integers(0, 511)),
    st.builds(lambda flags, pfn: flags | pfn << 12, st.integers(0, 4095), st.integers(0, 2**40)),
)


@given(st.lists(words, min_size=1), st.sampled_from(PROFILES))
def test_decode_agrees_with_the_leaf_model(values: list[int], profile: str) -> None:
    entries = ptwalk.decode(array(*values), profile=profile)
    for word, entry in zip(values, entries, strict=True):
        kind = leaf_model.classify(profile, None, word)
        assert Kind(entry["kind"]).name.lower() == kind
        if kind in ("swap", "migration", "device", "hwpoison"):
            assert entry["type"] == leaf_model.swap_type(word)
            assert entry["offset"] == leaf_model.swap_offset(word)


@given(words, st.sampled_from(PROFILES), st.sampled_from(LEVELS), st.booleans())
def test_decode_partitions_all_words(word: int, profile: str, level: str, device: bool) -> None:
    """Each word is of one kind, the fields of other kinds are 0, and the fields give the word."""
    config = {"DEVICE_PRIVATE": device}
    entry = decode_one(word, profile, level, config)
    kind, write, dirty, uffd_wp, flags, pfn, type_, offset = entry.tolist()
    if kind in (Kind.PRESENT, Kind.HUGE):
        assert write == bool(word & 2)
        assert uffd_wp == bool(word & 0x400)
        field = {"pte": 2**52 - 2**12, "pmd": 2**52 - 2**21, "pud": 2**52 - 2**30}[level]
        assert flags | ((pfn << 12 if word & 1 else ~(pfn << 12)) & field) == word
        assert (type_, offset) == (0, 0)
    elif kind == Kind.TABLE:
        assert (write, dirty, uffd_wp, flags | pfn << 12) == (False, False, False, word)
    elif kind == Kind.NONE:
        assert (word & ~0x60, pfn, type_, offset, uffd_wp) == (0, 0, 0, 0, False)
    elif profile in ERA and kind == Kind.MARKER:
        assert (word, uffd_wp, type_, offset) == (4, True, 0, 0)
    else:
        assert swap(type_, offset, flags) == word
        assert (write, dirty) == (False, False)


@given(words, st.sampled_from(PROFILES), st.sampled_from(LEVELS))
def test_explain_says_what_decode_says(word: int, profile: str, level: str) -> None:
    entry = decode_one(word, profile, level)
    line = ptwalk.explain(word, profile=profile, level=level)
    assert line.startswith(f"{word:#018x} {Kind(entry['kind']).name.lower()}")
    for pattern, field in [("pfn", "pfn"), ("offset", "offset")]:
        if found := re.search(rf"\b{pattern} (0x[0-9a-f]+)", line):
            assert int(found[1], 16) == entry[field]
    if found := re.search(r"\btype (\d+)", line):
        assert int(found[1]) == entry["type"]
    meaning = line.rpartition("(")[2]
    if "no access" not in meaning:
        assert ("writable" in meaning) == entry["write"]
    if "wr-protected" in meaning:
        assert entry["uffd_wp"]
    if "dirty" in meaning:
        assert entry["dirty"]


@given(st.lists(words), st.sampled_from(PROFILES))
def test_a_cleared_word_decodes_the_same_but_for_its_place(values: list[int], profile: str) -> None:
    ptes = array(*values)
    entries = ptwalk.decode(ptes, profile=profile)
    cleared = pte.pfn_cleared(ptes, entries)
    present = entries["kind"] == Kind.PRESENT
    assert not (cleared[present] & np.uint64(0x000FFFFFFFFFF000)).any()
    again = ptwalk.decode(cleared, profile=profile)
    same = ["kind", "write", "dirty", "flags", "type"]
    # Type 0 without an offset is the none entry, or the special pte, or one with stray bits.
    keep = ~((entries["kind"] == Kind.SWAP) & (entries["type"] == 0))
    assert (again[same][keep] == entries[same][keep]).all()


@cache
def recorded() -> list[tuple[str, str, str, int, int]]:
    """Return each distinct (kernel, level, class, entry, pagemap word) of the traces."""
    found = set()
    for path in trace_files():
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            kernel = json.loads(next(lines))["kernel"]
            for line in lines:
                for step in json.loads(line)["steps"]:
                    for regions in step.get("state", {}).values():
                        for run in (run for runs in regions.values() for run in runs):
                            raw, pm = run.get("raw", "0x0"), run.get("pm", "0x0")
                            found.add((kernel, run["lvl"], run["cls"], int(raw, 16), int(pm, 16)))
    return sorted(found)


@pytest.mark.parametrize("kernel", MAINLINE)
def test_recorded_entries_have_their_recorded_class_and_uffd_bit(kernel: str) -> None:
    cases = [case for case in recorded() if case[0] == kernel]
    assert len(cases) > 100
    for _, level, cls, masked, pm in cases:
        raw = masked | swap(0, 0x1234) if cls == "swap" else masked  # the offset is not recorded
        entry = decode_one(raw, kernel, level)
        assert Kind(entry["kind"]).name.lower() == cls, hex(raw)
        assert bool(entry["uffd_wp"]) == bool(pm & PM_UFFD_WP), hex(raw)


def test_shape_and_emptiness_are_kept() -> None:
    ptes = np.zeros((3, 4), dtype=np.uint64)
    assert ptwalk.decode(ptes, profile="6.18").shape == (3, 4)
    assert ptwalk.decode(ptes[:, ::2], profile="6.18").shape == (3, 2)
    assert ptwalk.decode(ptes[0, 0:0], profile="6.18").shape == (0,)
    assert ptwalk.decode(ptes, profile="6.18").dtype == pte.DTYPE


def test_only_uint64_arrays_are_entries() -> None:
    text = "ptes has dtype int64; page-table entries are uint64; use ptes.view(numpy.uint64)"
    with pytest.raises(InvalidArgument, match=re.escape(text)):
        ptwalk.decode(np.zeros(1, dtype=np.int64), profile="6.18")
    with pytest.raises(InvalidArgument, match=re.escape("use ptes.astype(numpy.uint64)")):
        ptwalk.decode(np.zeros(1, dtype=np.uint32), profile="6.18")
    with pytest.raises(InvalidArgument, match="ptes is a list"):
        ptwalk.decode([0], profile="6.18")  # type: ignore[arg-type]


@pytest.mark.parametrize("word", [-1, 1 << 64])
def test_a_word_has_64_bits(word: int) -> None:
    with pytest.raises(InvalidArgument, match="outside 64 bits"):
        ptwalk.explain(word, profile="6.18")


@pytest.mark.parametrize("level", ["page", 0, 6, None])
def test_unknown_level(level: Any) -> None:
    with pytest.raises(InvalidArgument, match="is not a paging level"):
        ptwalk.explain(0, profile="6.18", level=level)


def test_unknown_profile_and_option() -> None:
    with pytest.raises(InvalidArgument, match=r"7\.0.*6\.18"):
        ptwalk.explain(0, profile="7.0")
    with pytest.raises(InvalidArgument, match=r"6\.18 is not a name"):
        ptwalk.explain(0, profile=6.18)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="MEM_SOFT_DRITY"):
        ptwalk.explain(0, profile="6.18", config={"MEM_SOFT_DRITY": True})
