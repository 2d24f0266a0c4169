"""Batched accesses, reclaim and migration reach every mapping of a page."""

from __future__ import annotations

import numpy as np
import ptwalk
import pytest

BASE, PAGE = 0x7F0000000000, 4096
LENGTH = 8 * PAGE
PAGES = np.arange(BASE, BASE + LENGTH, PAGE, dtype=np.uint64)


def two_mappings(profile: str = "6.18") -> tuple[ptwalk.AddressSpace, ptwalk.AddressSpace]:
    machine = ptwalk.Machine(profile)
    file = ptwalk.ShmemFile(LENGTH)
    spaces = [ptwalk.AddressSpace(machine=machine) for _ in range(2)]
    for mm in spaces:
        mm.mmap(BASE, LENGTH, "rw-", "shared", file)
        mm.access_many(PAGES, write=True)
    return spaces[0], spaces[1]


@pytest.mark.parametrize("profile", ["uffd-wp-v2", "6.1", "6.12", "6.18"])
def test_access_many_equals_access_one_by_one(profile: str) -> None:
    batched, single = ptwalk.AddressSpace(profile), ptwalk.AddressSpace(profile)
    addrs = np.concatenate([PAGES, PAGES[::2], [np.uint64(BASE - PAGE)]])
    stores = np.arange(addrs.size) % 3 == 0
    for mm in (batched, single):
        mm.mmap(BASE, LENGTH, "rw-")
        uffd = mm.userfaultfd()
        uffd.register(BASE, 4 * PAGE, "missing|wp")
    got = batched.access_many(addrs, write=stores)
    for record, addr, write in zip(got, addrs, stores, strict=True):
        one = single.access(int(addr), write=bool(write))
        assert ptwalk.Outcome(record["outcome"]).name.lower() == one.outcome
        assert (record["before"], record["after"]) == (one.before, one.after)
        signal = (one.signal.signo, one.signal.code) if one.signal else (0, 0)
        assert (record["signo"], record["code"]) == signal
    np.testing.assert_array_equal(batched.ptes(BASE, LENGTH), single.ptes(BASE, LENGTH))


@pytest.mark.parametrize(
    ("addrs", "write", "text"),
    [
        ([-PAGE], True, "not negative"),
        (["a"], True, "dtype"),
        ([[BASE]], True, "shape"),
        ([BASE], [True, False], "write has shape"),
        ([1 << 50], True, "not canonical"),
    ],
)
def test_access_many_refuses_what_is_no_address(addrs: object, write: object, text: str) -> None:
    mm = ptwalk.AddressSpace()
    mm.mmap(BASE, LENGTH, "rw-")
    with pytest.raises(ptwalk.InvalidArgument, match=text):
        mm.access_many(addrs, write=write)  # type: ignore[arg-type]
    assert mm.count(BASE, LENGTH) == {"none": 8}


def test_reclaim_takes_a_page_out_of_every_mapping() -> None:
    one, two = two_mappings()
    assert one.reclaim(BASE, LENGTH) == 8
    assert one.count(BASE, LENGTH) == {"none": 8}
    assert two.count(BASE, LENGTH) == {"none": 8}
    assert one.validate() == []
    two.access_many(PAGES, write=False)
    assert two.count(BASE, LENGTH)["present"] == 8
    assert two.validate() == []


def test_reclaimed_anonymous_pages_are_shared_by_parent_and_child_in_swap() -> None:
    parent = ptwalk.AddressSpace("6.18")
    parent.mmap(BASE, LENGTH, "rw-")
    parent.access_many(PAGES, write=True)
    child = parent.fork()
    assert child.reclaim(BASE, LENGTH) == 8
    for mm in (parent, child):
        assert mm.count(BASE, LENGTH) == {"swap": 8}
    child.access_many(PAGES, write=True)
    parent.access_many(PAGES, write=False)
    assert set(parent.pages(BASE, LENGTH)["pfn"]).isdisjoint(child.pages(BASE, LENGTH)["pfn"])
    assert parent.validate() == []


def test_migration_entries_are_seen_by_every_mapping_until_it_finishes() -> None:
    one, two = two_mappings()
    before = one.pages(BASE, LENGTH)["pfn"].copy()
    migration = one.migrate_pages(BASE, LENGTH)
    assert two.count(BASE, LENGTH) == {"migration": 8}
    assert two.access(BASE, write=False).outcome == "blocked"
    assert two.access(BASE, write=False).message is None
    fresh = ptwalk.AddressSpace(machine=one.machine)
    fresh.mmap(BASE, LENGTH, "rw-", "shared", one.vmas[0].file)
    assert fresh.access(BASE, write=True).outcome == "blocked"  # the page is locked
    frames = migration.finish()
    assert migration.finish() == ()
    assert list(two.pages(BASE, LENGTH)["pfn"]) == list(frames)
    assert all(old != new for old, new in zip(before, frames, strict=True))
    assert fresh.access(BASE, write=True).outcome == "done"
    assert one.validate() == []


def test_a_page_that_goes_during_its_migration_has_no_new_frame() -> None:
    mm = ptwalk.AddressSpace("6.18")
    mm.mmap(BASE, LENGTH, "rw-")
    mm.access_many(PAGES, write=True)
    migration = mm.migrate_pages(BASE, 2 * PAGE)
    mm.madvise(BASE, PAGE, "dontneed")
    mm.access(BASE, write=True)  # its frame may be used again by now
    frames = migration.finish()
    assert frames[0] == 0
    assert frames[1] != 0
    assert mm.count(BASE, LENGTH) == {"present": 8}
    assert mm.validate() == []


def test_writable_migration_entries_lose_their_write_right_to_mprotect_and_fork() -> None:
    mm = ptwalk.AddressSpace("6.18")
    mm.mmap(BASE, LENGTH, "rw-")
    mm.access_many(PAGES, write=True)
    with mm.migrate_pages(BASE, LENGTH):
        child = mm.fork()
        mm.mprotect(BASE, LENGTH, "r--")
    assert not (mm.ptes(BASE, LENGTH) & 2).any()
    assert not (child.ptes(BASE, LENGTH) & 2).any()
    assert mm.validate() == []


def test_a_terabyte_file_with_ten_cached_pages_costs_ten_pages() -> None:
    mm = ptwalk.AddressSpace("6.18")
    size = 1 << 40
    file = ptwalk.ShmemFile(size)
    vma = mm.mmap(None, size, "rw-", "shared", file)
    addrs = vma.start + np.arange(10, dtype=np.uint64) * np.uint64(size // 16)
    mm.access_many(addrs, write=True)
    assert file.cached_pages.size == 10
    assert mm.stats.pages == 10
    file.truncate(size // 2)
    assert file.cached_pages.size == 8
    assert mm.stats.pages == 8
    assert mm.validate() == []


def test_a_terabyte_with_every_2_mib_touched_is_protected_and_resolved() -> None:
    size, slot = 1 << 40, 2 << 20
    mm = ptwalk.AddressSpace("6.18")
    base = 0x100000000000
    mm.mmap(base, size, "rw-", "shared", ptwalk.ShmemFile(size))
    mm.access_many(np.arange(base, base + size, slot, dtype=np.uint64), write=True)
    uffd = mm.userfaultfd()
    uffd.register(base, size, "wp")
    total, touched = size // PAGE, size // slot
    protected = uffd.writeprotect(base, size)
    assert (protected.pages, protected.present) == (total, touched)
    assert (protected.none_to_marker, protected.tables_allocated) == (total - touched, 0)
    resolved = uffd.writeprotect(base, size, protect=False)
    assert (resolved.pages, resolved.marker_to_none) == (total, total - touched)
    assert mm.count(base, size) == {"none": total - touched, "present": touched}
    assert mm.stats.tables_modelled == 1 + 2 + 1024 + touched
