"""The rules of a profile by name, and hybrids: one kernel with some rules of another.

A hybrid is a profile name like any other: ``"uffd-wp-v2 with populate of 6.18"``. Where it behaves
as the other kernel, its rules are what makes the two differ.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

from . import _core
from .errors import InvalidArgument

# What a kernel does by the value of each rule, in the kernel's words; (yes, no) for a bool.
_SENTENCES: dict[str, dict[str, str] | tuple[str, str]] = {
    "devmap_bit": {"0": "leaves have no _PAGE_DEVMAP", "": "leaves have _PAGE_DEVMAP"},
    "saved_dirty_bit": {
        "0": "D stays in a read-only entry",
        "": "D of a read-only entry is kept in _PAGE_SAVED_DIRTY",
    },
    "modify_keeps_pat": ("pte_modify keeps the PAT bit", "pte_modify loses the PAT bit"),
    "mkuffd_wp_wrprotects": ("pte_mkuffd_wp clears RW", "pte_mkuffd_wp leaves RW alone"),
    "swp_exclusive": (
        "swap entries carry _PAGE_SWP_EXCLUSIVE",
        "swap entries forget whether their page was exclusive",
    ),
    "marker_format": {
        "none": "there is no uffd-wp marker",
        "special_pte": "the uffd-wp marker is the word 0x4",
        "swap_type": "the uffd-wp marker is a swap type",
    },
    "marker_mask": {
        "0": "there are no PTE markers",
        "0x1": "PTE markers know UFFD_WP only",
        "0x3": "PTE markers know UFFD_WP and POISONED",
        "0x7": "PTE markers know UFFD_WP, POISONED and GUARD",
    },
    "swapin_error_type": ("a swap-in error has its swap type", "a swap-in error has no swap type"),
    "exclusive_types": (
        "migration entries tell exclusive pages",
        "migration entries do not tell exclusive pages",
    ),
    "one_device_exclusive": (
        "device-exclusive is one swap type",
        "device-exclusive reads and writes are two swap types",
    ),
    "populate": {
        "never": "wr-protect does not populate",
        "pmd_only": "wr-protect does not populate above the PMD",
        "every_level": "wr-protect populates every level",
    },
    "populate_enomem": (
        "a table that cannot be populated is ENOMEM",
        "a table that cannot be populated is a warning, and success",
    ),
    "marker_vmas": {
        "none": "wr-protect leaves none entries none",
        "file_backed": "wr-protect leaves a marker in VMAs that are not anonymous, only there",
        "registered": "wr-protect leaves a marker where WP is registered (anonymous: UNPOPULATED)",
    },
    "marker_resolve_needs_file": (
        "resolving leaves a marker in an anonymous VMA",
        "resolving drops a marker in an anonymous VMA",
    ),
    "wp_splits_file_pmd": (
        "wr-protect splits huge pages of files",
        "wr-protect does not split huge pages of files",
    ),
    "upgrade": {
        "dirty_accountable": "dirty entries become writable by MM_CP_DIRTY_ACCT, armed or not",
        "dirty_or_exclusive_dirty": "dirty entries become writable, private ones if exclusive",
        "shared_dirty_private_exclusive": "shared dirty, private exclusive entries become writable",
    },
    "pmd_retry": ("a bad PMD is cleared and tried again", "a bad PMD is cleared and skipped"),
    "numa_saves_write": (
        "NUMA hinting saves RW in the entry",
        "NUMA hinting does not save RW in the entry",
    ),
    "numa_skips_zone_device": (
        "NUMA hinting leaves device memory alone",
        "NUMA hinting takes device memory too",
    ),
    "migration_keeps_uffd": (
        "a migration entry that loses write keeps SWP_UFFD_WP",
        "a migration entry that loses write is made anew, SWP_UFFD_WP by the request",
    ),
    "huge_migration_uffd": (
        "wr-protect arms migration PMDs",
        "wr-protect does not arm migration PMDs",
    ),
    "huge_upgrade": (
        "a PMD may become writable without a fault",
        "a PMD never becomes writable without a fault",
    ),
    "split_copies_dirty": (
        "a split of an anonymous PMD keeps D in its entries",
        "a split of an anonymous PMD moves D to the page",
    ),
    "split_zero_keeps_uffd": (
        "a split of the huge zero page keeps UFFD_WP",
        "a split of the huge zero page loses UFFD_WP",
    ),
    "split_flushes_migration": (
        "a split of a migration PMD flushes it",
        "a split of a migration PMD does not flush it",
    ),
    "pud_leaves": ("leaves of 1 GiB are changed", "leaves of 1 GiB are bad entries"),
    "flush": {
        "whole_range": "the closing flush takes the whole range",
        "gather": "the closing flush takes what changed",
    },
    "notifier": {
        "pmd": "the notifier starts with the first PMD",
        "pud": "the notifier starts with the first PUD",
    },
    "writenotify_uffd_wp": (
        "vma_wants_writenotify knows VM_UFFD_WP: no RW in vm_page_prot",
        "vma_wants_writenotify does not know VM_UFFD_WP: RW stays in vm_page_prot",
    ),
    "manual_write_upgrade": (
        "vma_wants_manual_pte_write_upgrade decides who becomes writable",
        "MM_CP_DIRTY_ACCT decides who becomes writable",
    ),
    "merge_adopts_anon_vma": (
        "a VMA with anon_vma merges with one without",
        "a VMA with anon_vma does not merge with one without",
    ),
    "ro_drops_account": (
        "an untouched VMA that loses write loses VM_ACCOUNT",
        "an untouched VMA that loses write keeps VM_ACCOUNT",
    ),
    "uffd_features": {"": "UFFDIO_API answers features {}"},
    "wp_file_feature": {"0": "WP_HUGETLBFS_SHMEM does not exist", "": "WP_HUGETLBFS_SHMEM is {}"},
    "wp_file_backed": (
        "WP may be registered on shmem",
        "WP may not be registered on shmem",
    ),
    "minor_shmem": (
        "MINOR may be registered on shmem",
        "MINOR may not be registered on shmem",
    ),
    "wp_one_vma": (
        "WRITEPROTECT wants the range in one VMA",
        "WRITEPROTECT goes over several VMAs",
    ),
    "wp_table_word": (
        "WRITEPROTECT takes the word of the VMA flags, not vm_page_prot",
        "WRITEPROTECT takes vm_page_prot",
    ),
    "wp_upgrades": (
        "resolving may make entries writable (TRY_CHANGE_WRITABLE)",
        "resolving does not upgrade entries",
    ),
    "unregister_resolves": (
        "UNREGISTER resolves wr-protection",
        "UNREGISTER leaves UFFD_WP bits and markers behind",
    ),
    "unregister_checks_ctx": (
        "UNREGISTER by another userfaultfd is EINVAL",
        "UNREGISTER by another userfaultfd works",
    ),
    "register_merges_next": (
        "REGISTER merges with the VMA after the range",
        "REGISTER does not merge with the VMA after the range",
    ),
    "uffd_cont_wp": ("CONTINUE has a WP mode", "CONTINUE has no WP mode"),
    "fills_prepare_first": (
        "fills make the anon_vma before they judge the range",
        "fills judge the range before they make the anon_vma",
    ),
    "copy_private_over_marker": (
        "COPY goes over a marker in a private mapping",
        "COPY is EEXIST over a marker in a private mapping",
    ),
    "copy_ignores_wp_readonly": (
        "COPY sets no WP where the VMA is not writable",
        "COPY sets WP where the VMA is not writable too",
    ),
    "poison_ioctl": ("there is UFFDIO_POISON", "there is no UFFDIO_POISON"),
    "move_ioctl": ("there is UFFDIO_MOVE", "there is no UFFDIO_MOVE"),
    "migration_wrprotects": (
        "an armed page comes back from migration without RW",
        "an armed page comes back from migration with RW",
    ),
    "pageout_checks_lru": (
        "PAGEOUT leaves the A bit of pages off the LRU",
        "PAGEOUT clears the A bit of pages off the LRU",
    ),
    "faultaround_dirty": (
        "a read fault maps dirty pages dirty",
        "a read fault maps dirty pages clean",
    ),
    "swapin_arms_first": (
        "swap-in arms the entry before RW is considered, also for a load",
        "swap-in considers RW for stores only, and arms last",
    ),
    "persist_needs_uffd_vma": (
        "a zap leaves markers in VM_UFFD_WP VMAs only",
        "a zap leaves markers in every file-backed VMA",
    ),
    "fork_copies_wp_vma": (
        "fork copies the tables of a VMA that stays registered for WP",
        "fork leaves the tables of shared VMAs to faults, armed or not",
    ),
    "mremap_clears_uffd": (
        "mremap without EVENT_REMAP drops UFFD_WP bits and markers",
        "mremap without EVENT_REMAP moves UFFD_WP bits and markers",
    ),
    "mremap_marks_markers": (
        "mremap sets soft-dirty on markers",
        "mremap moves markers unchanged",
    ),
    "move_realigns": (
        "mremap moves whole tables between unaligned ends",
        "mremap moves unaligned ends entry by entry",
    ),
    "mremap_multi_vma": (
        "mremap moves several VMAs in one call",
        "mremap moves one VMA in one call",
    ),
    "populate_advice": (
        "madvise has POPULATE_READ and POPULATE_WRITE",
        "madvise has no POPULATE_READ and POPULATE_WRITE",
    ),
    "dontneed_locked": ("madvise has DONTNEED_LOCKED", "madvise has no DONTNEED_LOCKED"),
    "guard_advice": (
        "madvise has GUARD_INSTALL and GUARD_REMOVE",
        "madvise has no GUARD_INSTALL and GUARD_REMOVE",
    ),
    "pagemap_scan": ("there is PAGEMAP_SCAN", "there is no PAGEMAP_SCAN"),
    "pagemap_uffd_wp": ("pagemap shows bit 57", "pagemap does not show bit 57"),
    "anon_exclusive": (
        "PageAnonExclusive decides whether a page is reused",
        "the map count decides whether a page is reused",
    ),
    "MEM_SOFT_DIRTY": ("CONFIG_MEM_SOFT_DIRTY is set", "CONFIG_MEM_SOFT_DIRTY is not set"),
    "MEMORY_FAILURE": ("CONFIG_MEMORY_FAILURE is set", "CONFIG_MEMORY_FAILURE is not set"),
    "DEVICE_PRIVATE": ("CONFIG_DEVICE_PRIVATE is set", "CONFIG_DEVICE_PRIVATE is not set"),
    "PAGE_TABLE_ISOLATION": (
        "page-table isolation is configured",
        "page-table isolation is not configured",
    ),
    "PT_RECLAIM": (
        "MADV_DONTNEED frees tables that it empties",
        "MADV_DONTNEED keeps tables that it empties",
    ),
}


@cache
def _values(profile: str) -> dict[str, str]:
    return _core.profile_rules(profile)


def rules(profile: str) -> dict[str, str]:
    """Return the rules of a profile and their values in words.

    Parameters
    ----------
    profile : str
        One of `ptwalk.profiles`, or a hybrid.

    Returns
    -------
    dict of str to str
        By the field names of ``struct Profile`` (profile.hpp), build options by their own.

    Raises
    ------
    InvalidArgument
        For an unknown profile.
    """
    return dict(_values(profile))


def differing(profile: str, other: str) -> tuple[str, ...]:
    """Return the names of the rules in which two profiles differ, in the order of `rules`."""
    of_other = _values(other)
    return tuple(name for name, value in _values(profile).items() if value != of_other[name])


def hybrid(profile: str, donor: str, names: Iterable[str]) -> str:
    """Return the name of `profile` with some rules of `donor`.

    Parameters
    ----------
    profile, donor : str
        Profiles; the donor is one of `ptwalk.profiles`.
    names : iterable of str
        Rules, as `rules` names them. Without any, the profile itself is returned.

    Returns
    -------
    str
        Usable wherever a profile's name is.

    Raises
    ------
    InvalidArgument
        For an unknown profile or rule, and where no kernel can have these rules together.
    """
    taken = ", ".join(names)
    name = f"{profile} with {taken} of {donor}" if taken else profile
    _values(name)  # refuses what does not exist
    return name


def sentence(rule: str, profile: str) -> str:
    """Return what a profile does by a rule, in the kernel's words.

    Raises
    ------
    InvalidArgument
        For an unknown profile or rule.
    """
    values = _values(profile)
    if rule not in values:
        raise InvalidArgument(f"rule {rule!r} is not known; ptwalk.rules({profile!r}) has them")
    words, value = _SENTENCES[rule], values[rule]
    if isinstance(words, tuple):
        return words[value == "no"]
    return words.get(value, words.get("", "")).format(value)
