"""Workloads: their entries against numpy's count, and script 3 of the usage guide at full size."""

from __future__ import annotations

import itertools

import numpy as np
import ptwalk
import pytest
from ptwalk import InvalidArgument, Kind, workload

MIB = 1 << 20
PMD = 2 * MIB


def kinds(w: workload.Workload) -> dict[Kind, int]:
    found = w.mm.decode(w.mm.ptes(w.start, w.length))["kind"]
    values, counts = np.unique(found, return_counts=True)
    return {Kind(kind): int(nr) for kind, nr in zip(values, counts, strict=True)}


@pytest.mark.parametrize("profile", ["uffd-wp-v2", "6.1", "6.12", "6.18"])
def test_a_mix_has_its_shares_and_requests_count_them(profile: str) -> None:
    w = workload.build("70/15/10/5", length=64 * PMD, profile=profile, seed=3)
    had = kinds(w)
    nr = 64 * 512
    assert sum(had.values()) == nr
    for kind, share in {Kind.PRESENT: 70, Kind.NONE: 15, Kind.SWAP: 10, Kind.MARKER: 5}.items():
        assert abs(had[kind] / nr - share / 100) < 0.01
    armed = w.uffd.writeprotect(w.start, w.length)
    assert armed.present == had[Kind.PRESENT]
    assert armed.swap == had[Kind.SWAP]
    assert armed.none_to_marker == had[Kind.NONE]
    resolved = w.uffd.writeprotect(w.start, w.length, protect=False)
    assert resolved.marker_to_none == had[Kind.NONE] + had[Kind.MARKER]
    assert resolved.pages == nr
    assert w.mm.validate() == []


def test_anonymous_pages_are_exclusive_and_get_rw_back() -> None:
    w = workload.build("70/15/10/5", length=8 * PMD, backing="anon")
    before, facts = w.mm.ptes(w.start, w.length), w.mm.pages(w.start, w.length)
    here = before & np.uint64(1) != 0
    pg_anon, pg_anon_exclusive = 2, 4
    wanted = pg_anon | pg_anon_exclusive
    np.testing.assert_array_equal(facts["flags"] & wanted == wanted, here)
    np.testing.assert_array_equal(
        facts["pfn"][here], before[here] >> np.uint64(12) & np.uint64(0xFFFFFFFFFF)
    )
    assert w.uffd.writeprotect(w.start, w.length).none_to_marker == 0  # without WP_UNPOPULATED
    w.uffd.writeprotect(w.start, w.length, protect=False)
    np.testing.assert_array_equal(w.mm.ptes(w.start, w.length)[here], before[here])
    assert w.mm.validate() == []


@pytest.mark.parametrize("profile", ["uffd-wp-v2", "6.18"])
def test_shared_shmem_has_the_entries_of_a_private_mapping(profile: str) -> None:
    shared, private = (
        workload.build("25/25/25/25", length=4 * PMD, profile=profile, backing=backing)
        for backing in ("shmem", "private-file")
    )
    assert [w.vma.flags for w in (shared, private)] == [ptwalk.MAP_SHARED, ptwalk.MAP_PRIVATE]
    np.testing.assert_array_equal(
        shared.mm.ptes(shared.start, shared.length), private.mm.ptes(private.start, private.length)
    )


@pytest.mark.parametrize(("profile", "word"), [("uffd-wp-v2", 4), ("6.18", 0xFFFFFFFFFFFFFC00)])
def test_the_marker_of_a_profile(profile: str, word: int) -> None:
    assert workload.marker(profile) == word


def test_a_seed_decides_every_entry() -> None:
    words = [
        workload.build("25/25/25/25", length=8 * PMD, seed=seed).mm.ptes(workload.START, 8 * PMD)
        for seed in (1, 1, 2)
    ]
    np.testing.assert_array_equal(words[0], words[1])
    assert (words[0] != words[2]).any()


def test_a_share_of_tables_leaves_the_others_untouched() -> None:
    w = workload.build("present", length=64 * PMD, tables=1 / 16)
    filled = w.mm.levels(w.start, w.length).reshape(64, 512)[:, 0] == 1
    assert np.flatnonzero(filled).tolist() == [0, 16, 32, 48]
    assert kinds(w)[Kind.PRESENT] == 4 * 512


@pytest.mark.parametrize(
    ("mix", "pages"),
    [("untouched", 8 * 512), ("marker", 0), ("none", 8 * 512), ("sparse", 8 * 512)],
)
def test_named_mixes(mix: str, pages: int) -> None:
    w = workload.build(mix, length=8 * PMD)
    assert w.uffd.writeprotect(w.start, w.length).pages == pages
    assert (w.vma.start, w.vma.length) == (w.start, w.length)
    assert "6.18" in repr(w)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"mix": "70/15/10/6", "length": PMD}, "add up to 100"),
        ({"mix": "full", "length": PMD}, "'full' is not known"),
        ({"mix": "present", "length": PMD, "backing": "tmpfs"}, "'tmpfs' is not known; use one of"),
        ({"mix": "untouched", "length": PMD, "backing": "anon"}, "untouched mapping .anon."),
        ({"mix": "present", "length": 4096}, "multiple of 2 MiB"),
        ({"mix": "present", "length": 128 << 40}, "64 TiB"),
        ({"mix": "present", "length": PMD, "tables": 0}, "share of tables"),
        ({"mix": "untouched", "length": PMD, "profile": "uffd-wp-v2"}, "protects nothing"),
    ],
)
def test_what_cannot_be_built_is_refused(options: dict[str, object], text: str) -> None:
    with pytest.raises(InvalidArgument, match=text):
        workload.build(**options)  # type: ignore[arg-type]


def test_16_tib_three_mixes_two_thread_counts() -> None:
    rows = []
    mixes = [("untouched", 1), ("marker", 1), ("70/15/10/5", 1 / 128)]
    for (mix, tables), threads in itertools.product(mixes, [1, 2]):
        w = workload.build(mix, length=16 << 40, tables=tables, profile="6.18", seed=1)
        markers = w.mm.count(w.start, w.length).get("marker", 0)
        for protect in (True, False):
            r = w.uffd.writeprotect(w.start, w.length, protect=protect, threads=threads)
            stats = w.mm.stats
            rows.append((mix, threads, protect, r.pages, r.tables_allocated, stats.tables_modelled))
            if mix != "70/15/10/5":
                assert stats.tables_resident < 16
            elif protect:
                assert r.pages == 2**32 - markers
        del w
        ptwalk.trim()
    assert all(row[5] == 8405025 for row in rows)
    by_mix = {key: list(group) for key, group in itertools.groupby(rows, key=lambda row: row[0])}
    for group in by_mix.values():
        assert [row[2:] for row in group[:2]] == [row[2:] for row in group[2:]]  # 1 thread and 2
        assert group[1][3] == 2**32
        assert group[1][4] == 0
    assert by_mix["untouched"][0][3:5] == (2**32, 8405024)
    assert by_mix["marker"][0][3:5] == (0, 0)
