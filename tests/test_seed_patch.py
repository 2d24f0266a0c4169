"""One test for each sentence and each condition of the patch that the project grew from.

"shmem/userfaultfd: Allow wr-protect none pte for file-backed mem" (v2 11/24, 27 April 2021). Each
is shown with the whole series and with the patch as the last one; 5.12 is the kernel before.
First the commit message, then what the patch adds to mm/mprotect.c.
"""

from __future__ import annotations

import numpy as np
import ptwalk
import pytest
from ptwalk import AddressSpace, ShmemFile
from seed_server import (
    BASE,
    BEFORE,
    HUGE,
    HUGE_LEAF,
    LENGTH,
    NONE,
    PAGE,
    PAGES,
    PATCHED,
    READ_WORD,
    RW,
    SERIES,
    SPECIAL,
    SWP_UFFD_WP,
    UFFD_WP,
    WRITE_WP,
    Server,
    below_pud,
    change,
    one_pte,
    with_patch,
)


@with_patch
def test_even_if_the_pte_is_missing_the_data_could_still_reside_in_page_or_swap_cache(
    profile: str,
) -> None:
    """Show: "even if the pte is missing, the data could still resides … in page/swap cache"."""
    server = Server(profile)
    server.cache()
    assert not any(server.entries())
    assert len(server.file.cached_pages) == PAGES
    server.mm.access(BASE, write=False)
    assert server.mm.pages(BASE, PAGE)["mapcount"].tolist() == [1]
    assert server.mm.stats.pages == PAGES  # the frame that was there
    assert server.mm.reclaim(BASE, PAGE) == 1
    assert server.entries(BASE, PAGE) == [NONE]  # the data is in swap
    private = Server(profile, "anon")
    private.mm.access(BASE, write=True)
    private.mm.reclaim(BASE, PAGE)
    assert private.entries(BASE, PAGE) != [NONE]  # anonymous data never hides behind a none pte


@with_patch
def test_when_wr_protect_a_pte_we_need_to_consider_none_ptes_too(profile: str) -> None:
    """Show: "So when wr-protect a pte, we need to consider none ptes too."."""
    for tree, pages, skipped in (profile, PAGES, 0), (BEFORE, 1, PAGES - 1):
        server = Server(tree)
        server.touch_tables()
        result = server.protect()
        assert (result.pages, result.none_skipped) == (pages, skipped)


@with_patch
def test_we_do_that_by_installing_the_special_swap_pte_as_a_marker(profile: str) -> None:
    """Show: "We do that by installing the uffd-wp special swap pte as a marker."."""
    server = Server(profile)
    server.touch_tables()
    assert server.protect().none_to_marker == PAGES - 1
    assert set(server.entries()[1:]) == {SPECIAL}
    assert server.mm.count(BASE, LENGTH) == {"present": 1, "marker": PAGES - 1}
    assert "uffd-wp special pte" in server.mm.ptdump(BASE, LENGTH)


@with_patch
@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("kind", ["shmem", "shmem-private"])
def test_a_future_write_will_first_fault_in_the_page_as_read_only(
    profile: str, kind: str, cached: bool
) -> None:
    """Show: "will go the special path to first fault-in the page as read-only"."""
    server = Server(profile, kind)
    if cached:
        server.cache()
    server.touch_tables()
    server.protect()
    result = server.mm.access(BASE + PAGE, write=True)
    assert (result.before, result.outcome) == (SPECIAL, "blocked")
    entry = server.mm.decode(server.mm.ptes(BASE + PAGE, PAGE))[0]
    assert entry["kind"] == ptwalk.Kind.PRESENT
    assert (entry["write"], entry["uffd_wp"]) == (False, True)


@with_patch
def test_a_read_also_faults_in_the_page_as_read_only_and_armed(profile: str) -> None:
    """Show the same path for a read: no message, and the later write is still reported."""
    server = Server(profile)
    server.touch_tables()
    server.protect()
    server.uffd.read()
    assert server.mm.access(BASE + PAGE, write=False).outcome == "done"
    assert server.mm.entry(BASE + PAGE) & (RW | UFFD_WP) == UFFD_WP
    assert server.uffd.read() == []
    assert server.mm.access(BASE + PAGE, write=True).outcome == "blocked"


@with_patch
def test_then_report_to_userfaultfd_server_with_the_wr_protect_message(profile: str) -> None:
    """Show: "then report to userfaultfd server with the wr-protect message."."""
    server = Server(profile)
    server.touch_tables()
    server.protect()
    result = server.mm.access(BASE + PAGE + 8, write=True)
    (message,) = server.uffd.read()
    assert result.message == message
    assert (message.event, message.flags, message.address) == ("pagefault", WRITE_WP, BASE + PAGE)
    server.unprotect(BASE + PAGE, PAGE)
    assert server.mm.access(BASE + PAGE + 8, write=True).outcome == "done"
    lost = Server(BEFORE)
    lost.touch_tables()
    lost.protect()
    assert lost.mm.access(BASE + PAGE, write=True).outcome == "done"  # nobody was told
    assert lost.uffd.read() == []


@pytest.mark.parametrize("unmap", ["dontneed", "reclaim"])
def test_the_pte_got_unmapped_but_replaced_by_the_marker(unmap: str) -> None:
    """Show: "it's also possible that the pte got unmapped but replaced by the … marker"."""
    server = Server(SERIES)
    server.touch_tables()
    server.protect(BASE, PAGE)
    assert server.mm.entry(BASE) & UFFD_WP
    if unmap == "dontneed":
        server.mm.madvise(BASE, PAGE, "dontneed")
    else:
        server.mm.reclaim(BASE, PAGE)
    assert server.entries(BASE, PAGE) == [SPECIAL]
    assert server.unprotect(BASE, PAGE).marker_to_none == 1


@with_patch
def test_recover_from_a_special_swap_pte_into_a_none_pte(profile: str) -> None:
    """Show: "we'll need to be able to recover from a uffd-wp special swap pte into a none pte"."""
    server = Server(profile)
    server.touch_tables()
    server.protect()
    result = server.unprotect(BASE + PAGE, LENGTH - PAGE)
    assert (result.pages, result.marker_to_none) == (PAGES - 1, PAGES - 1)
    assert set(server.entries()[1:]) == {NONE}


@with_patch
@pytest.mark.parametrize("write", [False, True])
def test_the_next_access_will_fault_in_as_usual_rather_than_sending_a_message(
    profile: str, write: bool
) -> None:
    """Show: "will fault in correctly as usual … rather than sending a uffd-wp message"."""
    server, fresh = Server(profile), Server(profile)
    server.touch_tables()
    server.protect()
    server.unprotect()
    for one in server, fresh:
        one.cache()
        assert one.mm.access(BASE + PAGE, write=write).outcome == "done"
        assert one.uffd.read() == []
    entries = [int(one.mm.ptes(BASE + PAGE, PAGE)[0]) & 0xFFF for one in (server, fresh)]
    assert entries[0] == entries[1]
    assert not entries[0] & UFFD_WP


@with_patch
def test_pre_populate_the_page_table_entries_if_not_anonymous_and_uffd_wp(profile: str) -> None:
    """Show: "pre-populate … if we see !anonymous && MM_CP_UFFD_WP requests"."""
    server = Server(profile)
    server.touch_tables()  # the second 2 MiB have no PTE table
    assert server.mm.levels(BASE, LENGTH).tolist() == [1] * 512 + [2] * 512
    assert server.protect().tables_allocated == 1
    assert set(server.mm.levels(BASE, LENGTH).tolist()) == {1}
    assert set(server.entries(BASE + HUGE, HUGE)) == {SPECIAL}


@with_patch
@pytest.mark.parametrize(
    ("tree", "kind", "cp_flags"),
    [
        (BEFORE, "shmem", "uffd_wp"),
        (None, "anon", "uffd_wp"),
        (None, "shmem", "uffd_wp_resolve"),
        (None, "shmem", "prot_numa"),
        (None, "shmem", 0),
    ],
)
def test_otherwise_change_protection_range_will_always_skip(
    profile: str, tree: str | None, kind: str, cp_flags: str | int
) -> None:
    """Show: "otherwise … will always skip when the pgtable entry does not exist"."""
    server = Server(tree or profile, kind)
    server.touch_tables()
    tables = server.mm.stats.tables_modelled
    result = server.mm.change_protection(BASE + HUGE, BASE + LENGTH, READ_WORD, cp_flags)
    assert (result.pages, result.tables_allocated) == (0, 0)
    assert server.mm.stats.tables_modelled == tables
    assert server.mm.walk(BASE + HUGE)[-1].level == "pmd"


def huge(profile: str) -> Server:
    """Return a mapping whose first 2 MiB are one huge leaf."""
    server = Server(profile)
    for level in ("pgd", "pud"):
        server.mm.alloc_table(BASE, level)
    server.mm.set_entry(BASE, "pmd", HUGE_LEAF)
    return server


def test_this_patch_only_covers_the_small_pages() -> None:
    """Show: "only covers the small pages … but not … any of the transparent huge pages"."""
    whole = huge(PATCHED)
    assert whole.protect(BASE, HUGE).huge == 1
    assert whole.mm.entry(BASE, "pmd") == HUGE_LEAF & ~RW | UFFD_WP  # as before the patch
    part = huge(PATCHED)
    result = part.protect(BASE + PAGE, PAGE)
    assert (result.pages, result.none_skipped) == (0, 1)  # the split dropped it: nothing is left
    assert part.mm.entry(BASE, "pmd") == 0


def test_this_will_be_a_base_for_thps_too() -> None:
    """Show: "But this will be a base for thps too.": patch 12 splits, and small markers do it."""
    for start, length, markers in (BASE, HUGE, 512), (BASE + PAGE, PAGE, 1):
        server = huge(SERIES)
        result = server.protect(start, length)
        assert (result.none_to_marker, result.thp_split_pmd) == (markers, 1)
        assert server.mm.count(BASE, HUGE).get("marker") == markers


# --- change_pte_range: the special pte ------------------------------------------------------------
@with_patch
@pytest.mark.parametrize("word", [0x24, 0x44, 0x64, 0x6, 0xC, 0x1FFFFFFFFFDB9604])
def test_if_is_swap_special_pte(profile: str, word: int) -> None:
    """Condition `is_swap_special_pte(oldpte)`: one word only; all others with bit 2 are swap."""
    server = one_pte(profile, "anon", word)
    assert change(server, "uffd_wp_resolve") == (word & ~SWP_UFFD_WP, 1)  # anonymous or not
    assert change(one_pte(profile, "anon", SPECIAL), "uffd_wp_resolve") == (SPECIAL, 0)
    assert change(one_pte(BEFORE, "anon", SPECIAL), "uffd_wp_resolve") == (NONE, 1)


@with_patch
@pytest.mark.parametrize("cp_flags", ["uffd_wp", "prot_numa", "dirty_acct", 0])
def test_if_uffd_wp_resolve(profile: str, cp_flags: str | int) -> None:
    """Condition `uffd_wp_resolve`: no other request touches or counts the special pte."""
    server = one_pte(profile, "shmem", SPECIAL)
    assert change(server, cp_flags) == (SPECIAL, 0)
    assert change(server, "uffd_wp_resolve") == (NONE, 1)


@with_patch
@pytest.mark.parametrize(
    ("kind", "recovered"),
    [("shmem", True), ("shmem-private", True), ("regular", True), ("anon", False)],
)
def test_and_not_vma_is_anonymous(profile: str, kind: str, recovered: bool) -> None:
    """Condition `!vma_is_anonymous(vma)`: any mapping of a file, private ones too."""
    got = change(one_pte(profile, kind, SPECIAL), "uffd_wp_resolve")
    assert got == ((NONE, 1) if recovered else (SPECIAL, 0))


@with_patch
def test_and_pte_swp_uffd_wp_special(profile: str) -> None:
    """Condition `pte_swp_uffd_wp_special(oldpte)`: a swap pte is unprotected, not recovered."""
    swap = 0x1FFFFFFFFFDB9604
    for word, new in (SPECIAL, NONE), (swap, swap & ~SWP_UFFD_WP):
        assert change(one_pte(profile, "shmem-private", word), "uffd_wp_resolve") == (new, 1)


@with_patch
def test_simply_recover_the_pte_into_a_none_pte_the_next_page_fault_will_fault_in_the_page(
    profile: str,
) -> None:
    """Comment: "simply recover the pte into a none pte; the next page fault will fault in"."""
    server = one_pte(profile, "shmem", SPECIAL)
    server.cache()
    assert change(server, "uffd_wp_resolve") == (NONE, 1)
    assert server.mm.access(BASE + PAGE, write=False).outcome == "done"
    assert server.mm.pages(BASE + PAGE, PAGE)["file"].tolist() != [-1]


@with_patch
def test_pte_clear_counts_a_page(profile: str) -> None:
    """Statement `pages++` after `pte_clear`: counted, so the range is flushed."""
    server = one_pte(profile, "shmem", SPECIAL)
    result = server.unprotect(BASE + PAGE, PAGE)
    assert (result.pages, result.flush) == (1, (BASE + PAGE, BASE + 2 * PAGE))
    again = server.unprotect(BASE + PAGE, PAGE)
    assert (again.pages, again.flush) == (0, None)


# --- change_pte_range: the none pte ---------------------------------------------------------------
@with_patch
def test_it_must_be_an_none_page_or_what_else(profile: str) -> None:
    """Comment: "It must be an none page, or what else?..": no word is left to warn about."""
    words = np.random.default_rng(11).integers(0, 1 << 64, 4096, np.uint64)
    words = np.concatenate([words & np.uint64(0x7FF), words, words & ~np.uint64(0x101)])
    server = Server(profile)
    server.touch_tables()
    for at in range(0, len(words), PAGES):
        server.mm.set_ptes(BASE, np.ascontiguousarray(words[at : at + PAGES]))
        kinds = server.mm.count(BASE, LENGTH)
        result = server.protect()
        assert result.warnings == ()
        assert result.none_to_marker == kinds.get("none", 0)
        assert "none" not in server.mm.count(BASE, LENGTH)


@with_patch
@pytest.mark.parametrize("cp_flags", ["uffd_wp_resolve", "prot_numa", "dirty_acct"])
def test_if_uffd_wp(profile: str, cp_flags: str) -> None:
    """Condition `uffd_wp`: a none pte stays none under every other request."""
    server = one_pte(profile, "shmem", NONE)
    assert change(server, cp_flags) == (NONE, 0)
    assert change(server, "uffd_wp") == (SPECIAL, 1)


@with_patch
@pytest.mark.parametrize(
    ("kind", "marked"),
    [("shmem", True), ("shmem-private", True), ("regular", True), ("anon", False)],
)
def test_if_uffd_wp_and_not_vma_is_anonymous(profile: str, kind: str, marked: bool) -> None:
    """Condition `uffd_wp && !vma_is_anonymous(vma)`, the same for stray A and D."""
    for none in (NONE, 0x20, 0x40, 0x60):
        got = change(one_pte(profile, kind, none), "uffd_wp")
        assert got == ((SPECIAL, 1) if marked else (none, 0))
        assert change(one_pte(BEFORE, kind, none), "uffd_wp") == (none, 0)


@with_patch
@pytest.mark.parametrize("where", ["page cache", "swap cache"])
def test_wr_protect_even_for_a_none_pte_because_the_page_or_swap_cache_could_exist(
    profile: str, where: str
) -> None:
    """Comment: "even if the pte is null, the page/swap cache could exist": no write is missed."""
    server, reported = Server(profile), {}
    server.touch_tables()
    server.cache()
    if where == "swap cache":
        server.mm.access(BASE + PAGE, write=False)
        server.mm.reclaim(BASE, LENGTH)
    assert server.entries(BASE + PAGE, PAGE) == [NONE]
    server.protect()
    reported[profile] = server.mm.access(BASE + PAGE, write=True).outcome
    before = Server(BEFORE)
    before.touch_tables()
    before.cache()
    before.protect()
    reported[BEFORE] = before.mm.access(BASE + PAGE, write=True).outcome
    assert reported == {profile: "blocked", BEFORE: "done"}


@with_patch
def test_set_pte_at_counts_a_page(profile: str) -> None:
    """Statement `pages++` after `set_pte_at`: counted, so the range is flushed."""
    server = one_pte(profile, "shmem", NONE)
    result = server.protect(BASE + PAGE, PAGE)
    assert (result.pages, result.flush) == (1, (BASE + PAGE, BASE + 2 * PAGE))
    again = server.protect(BASE + PAGE, PAGE)
    assert (again.pages, again.flush) == (0, None)


# --- change_protection_prepare --------------------------------------------------------------------
@with_patch
@pytest.mark.parametrize("kind", ["shmem", "shmem-private", "regular"])
def test_file_backed_vma_allows_uffd_wr_protect_upon_none_ptes(profile: str, kind: str) -> None:
    """Comment: "File-backed vma allows uffd wr-protect upon none ptes"."""
    for tree, markers in (profile, 512), (BEFORE, 0):
        server = Server(tree, kind)
        server.mm.access(BASE + HUGE, write=False)
        result = server.mm.change_protection(BASE, BASE + HUGE, READ_WORD, "uffd_wp")
        assert (result.none_to_marker, result.none_skipped) == (markers, 512 - markers)


@with_patch
def test_the_wr_protect_information_will_be_stored_in_the_page_table_entries(
    profile: str,
) -> None:
    """Comment: "the … information will be stored in the page table entries with the marker"."""
    server = Server(profile)
    server.touch_tables()
    server.protect(BASE + 3 * PAGE, 5 * PAGE)
    armed = server.mm.decode(server.mm.ptes(BASE, LENGTH))["uffd_wp"]
    assert np.flatnonzero(armed).tolist() == [3, 4, 5, 6, 7]
    assert np.flatnonzero(server.mm.ptes(BASE, LENGTH) == SPECIAL).tolist() == [3, 4, 5, 6, 7]


@with_patch
def test_by_always_populating_the_page_tables_to_pte_level(profile: str) -> None:
    """Comment: "always populating the page tables to pte level", in the range only."""
    server = Server(profile)
    server.mm.mmap(BASE + LENGTH, LENGTH, "rw-", "shared", ShmemFile(LENGTH))
    server.mm.access(BASE + LENGTH, write=True)
    start, length = BASE + HUGE - PAGE, 2 * PAGE  # the last page of one slot, the first of the next
    result = server.protect(start, length)
    assert (result.tables_allocated, result.none_to_marker) == (2, 2)
    marked = np.flatnonzero(server.mm.ptes(BASE, LENGTH) == SPECIAL)
    assert marked.tolist() == [511, 512]
    assert server.mm.levels(BASE, LENGTH).tolist() == [1] * PAGES


@with_patch
@pytest.mark.parametrize("missing", ["pgd", "pud"])
def test_we_only_need_to_do_this_in_pmd_level(profile: str, missing: str) -> None:
    """Comment: "we only need to do this in pmd level": what is missing above is skipped."""
    server = Server(profile)
    if missing == "pud":
        server.mm.alloc_table(BASE, "pgd")
    tables = server.mm.stats.tables_modelled
    result = server.protect()
    assert (result.pages, result.tables_allocated, result.none_skipped) == (0, 0, PAGES)
    assert server.mm.walk(BASE)[-1].level == missing
    assert server.mm.stats.tables_modelled == tables
    if missing == "pud":
        server.mm.alloc_table(BASE, "pud")
        assert server.protect().pages == PAGES


@with_patch
def test_does_not_contain_any_valid_data_but_all_zeros_then_nothing_to_wr_protect(
    profile: str,
) -> None:
    """Comment: "does not contain any valid data but all zeros": the page cache says otherwise.

    The premise fails for pages that only others have mapped, and the write is lost; mainline
    populates every level.
    """
    server = Server(profile)
    server.cache()
    assert len(server.file.cached_pages) == PAGES
    assert server.protect().none_skipped == PAGES
    assert server.mm.access(BASE, write=True).outcome == "done"
    today = AddressSpace("6.18")
    today.mmap(BASE, LENGTH, "rw-", "shared", ShmemFile(LENGTH))
    uffd = today.userfaultfd()
    uffd.register(BASE, LENGTH, "wp")
    assert uffd.writeprotect(BASE, LENGTH).none_skipped == 0
    assert today.access(BASE, write=True).outcome == "blocked"


@with_patch
@pytest.mark.parametrize(
    ("kind", "pmd", "cp_flags", "allocated"),
    [
        ("shmem", 0x0, "uffd_wp", True),
        ("shmem", 0x60, "uffd_wp", True),  # stray A and D are none
        ("shmem", 0x0, "uffd_wp_resolve", False),
        ("anon", 0x0, "uffd_wp", False),
        ("shmem", 0x12345003, "uffd_wp", False),  # bad: not none, and cleared after that
    ],
)
def test_if_uffd_wp_and_pmd_none_and_not_anonymous(
    profile: str, kind: str, pmd: int, cp_flags: str, allocated: bool
) -> None:
    """Condition `(cp_flags & MM_CP_UFFD_WP) && pmd_none(*pmd) && !vma_is_anonymous(vma)`."""
    server = below_pud(profile, kind)
    server.mm.set_entry(BASE, "pmd", pmd)
    result = server.mm.change_protection(BASE, BASE + HUGE, READ_WORD, cp_flags)
    assert result.tables_allocated == allocated
    assert result.pages == (512 if allocated else 0)


@with_patch
def test_warn_on_once_pte_alloc(profile: str) -> None:
    """Statement `WARN_ON_ONCE(pte_alloc(…))`: a failure warns, is skipped and not an error."""
    server = below_pud(profile, "shmem")
    server.mm.fail_table_alloc(1)
    result = server.protect()
    assert len(result.warnings) == 1
    assert (result.pages, result.none_skipped, result.tables_allocated) == (512, 512, 1)
    assert server.mm.levels(BASE, LENGTH).tolist() == [2] * 512 + [1] * 512


@with_patch
def test_change_protection_prepare_comes_before_the_pmd_is_looked_at(profile: str) -> None:
    """Statement in change_pmd_range: prepare first, so the same turn of the loop marks."""
    server = below_pud(profile, "shmem")
    result = server.protect()
    assert (result.tables_allocated, result.none_to_marker) == (2, PAGES)
    assert result.notifier == (("protection_vma", BASE, BASE + LENGTH),)
    assert server.mm.validate() == []
