"""The known problems of the v2 series exist under its profile and are gone where they were fixed.

One test a hazard, named as in the review record (HZ1 … HZ5, HZ12); each compares uffd-wp-v2 with
the kernels that people run.
"""

from __future__ import annotations

import ptwalk
import pytest

BASE, PAGE = 0x7F0000000000, 4096
LENGTH = 16 * PAGE
RW_BIT, UFFD_WP_BIT = 1 << 1, 1 << 10
FIXED = ["6.1", "6.12", "6.18"]
EVERY = ["uffd-wp-v2", *FIXED]


def armed_page(profile: str, prot: str = "rw-") -> tuple[ptwalk.AddressSpace, ptwalk.Userfaultfd]:
    """Return a shared shmem mapping whose first page was written and then wr-protected."""
    mm = ptwalk.AddressSpace(profile)
    mm.mmap(BASE, LENGTH, prot, "shared", ptwalk.ShmemFile(LENGTH))
    mm.access(BASE, write=True)
    uffd = mm.userfaultfd()
    uffd.register(BASE, LENGTH, "wp")
    uffd.writeprotect(BASE, LENGTH)
    return mm, uffd


def lost(mm: ptwalk.AddressSpace) -> bool:
    """Whether a store to the armed page goes unreported."""
    return mm.access(BASE, write=True).outcome == "done"


@pytest.mark.parametrize("profile", EVERY)
def test_hz1_mprotect_gives_rw_back_to_an_armed_shared_page(profile: str) -> None:
    mm, _ = armed_page(profile)
    mm.mprotect(BASE, LENGTH, "r--")
    mm.mprotect(BASE, LENGTH, "rw-")
    entry = mm.entry(BASE)
    assert entry & UFFD_WP_BIT
    assert bool(entry & RW_BIT) == (profile == "uffd-wp-v2")
    assert lost(mm) == (profile == "uffd-wp-v2")


@pytest.mark.parametrize("profile", EVERY)
def test_hz2_a_numa_hint_fault_gives_rw_back_to_an_armed_shared_page(profile: str) -> None:
    mm, _ = armed_page(profile)
    protnone = 0x120
    # With two users of the mm every page may be sampled. (mm/mprotect.c:change_pte_range)
    mm.change_protection(BASE, BASE + PAGE, protnone, ptwalk.MM_CP_PROT_NUMA)
    assert not mm.entry(BASE) & 1
    assert mm.access(BASE, write=False).outcome == "done"
    assert bool(mm.entry(BASE) & RW_BIT) == (profile == "uffd-wp-v2")
    assert lost(mm) == (profile == "uffd-wp-v2")


@pytest.mark.parametrize("profile", EVERY)
def test_hz3_migration_of_an_armed_shared_page_gives_rw_back(profile: str) -> None:
    mm, _ = armed_page(profile)
    with mm.migrate_pages(BASE, PAGE):
        kind = mm.decode(mm.ptes(BASE, PAGE))["kind"][0]
        assert kind == ptwalk.Kind.MIGRATION
    entry = mm.entry(BASE)
    assert entry & UFFD_WP_BIT
    assert bool(entry & RW_BIT) == (profile == "uffd-wp-v2")
    assert mm.validate() == []


@pytest.mark.parametrize("profile", EVERY)
def test_hz4_resolve_grants_rw_at_once_on_shared_memory(profile: str) -> None:
    mm, uffd = armed_page(profile)
    uffd.writeprotect(BASE, LENGTH, protect=False)
    # 6.1 still takes the table word of the flags; later kernels use vm_page_prot, without RW.
    assert bool(mm.entry(BASE) & RW_BIT) == (profile in {"uffd-wp-v2", "6.1"})


@pytest.mark.parametrize("profile", EVERY)
def test_hz5_dirty_accounting_can_make_an_armed_entry_writable(profile: str) -> None:
    mm, _ = armed_page(profile)
    word = 0x8000000000000025
    mm.change_protection(BASE, BASE + PAGE, word, ptwalk.MM_CP_DIRTY_ACCT)
    assert bool(mm.entry(BASE) & RW_BIT) == (profile == "uffd-wp-v2")


@pytest.mark.parametrize("profile", EVERY)
def test_hz12_unregister_leaves_uffd_wp_bits_and_markers(profile: str) -> None:
    mm, uffd = armed_page(profile)
    uffd.unregister(BASE, LENGTH)
    decoded = mm.decode(mm.ptes(BASE, LENGTH))
    left = profile == "uffd-wp-v2"
    assert bool(decoded["uffd_wp"][0]) == left
    assert (decoded["kind"][1] == ptwalk.Kind.MARKER) == left
    # What is left is inert: no message, and a marker is cleared by the next fault.
    assert mm.access(BASE, write=True).outcome == "done"
    assert mm.access(BASE + PAGE, write=True).outcome == "done"
    assert not mm.entry(BASE + PAGE) & UFFD_WP_BIT


@pytest.mark.parametrize("profile", FIXED)
def test_a_marker_survives_what_happens_to_its_page(profile: str) -> None:
    """The seed's reason to be: file pages are unmapped and swapped, the protection stays."""
    mm, uffd = armed_page(profile)
    second = ptwalk.AddressSpace(machine=mm.machine)
    second.mmap(BASE, LENGTH, "rw-", "shared", mm.vmas[0].file)
    assert mm.reclaim(BASE, PAGE) == 1
    assert mm.decode(mm.ptes(BASE, PAGE))["kind"][0] == ptwalk.Kind.MARKER
    second.access(BASE, write=True)  # back from swap, in the page cache again
    mm.madvise(BASE, PAGE, "dontneed")
    blocked = mm.access(BASE, write=True)
    assert blocked.outcome == "blocked"
    (message,) = uffd.read()
    assert message.address == BASE
    assert mm.validate() == []
    assert second.validate() == []
