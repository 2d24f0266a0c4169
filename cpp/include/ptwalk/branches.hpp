// The branches that coverage counts, as tables: decisions of functions, decisions by a rule of the
// profile, and walks with what they can meet. A row here and a `cover` where it happens make a new
// one.
#pragma once

#include "ptwalk/types.hpp"

namespace ptwalk {

/// X(name, what happens).
#define PTWALK_BRANCHES(X)                                                                   \
  X(numa_hint, "do_numa_page: PROT_NONE entry gets the protection of its VMA back")          \
  X(fault_spurious, "handle_pte_fault: the entry allows the access already")                 \
  X(anon_vma_reused, "anon_vma_prepare: a neighbour has one that fits")                      \
  X(anon_vma_new, "anon_vma_prepare: a new one")                                             \
  X(access_retry, "access: the retry of a fault that waited")                                \
  X(access_store, "access: a store that the entry allows")                                   \
  X(access_load, "access: a load that the entry allows")                                     \
  X(access_no_vma, "access: SIGSEGV, no VMA")                                                \
  X(access_denied, "access: SIGSEGV, the VMA does not allow it")                             \
  X(around_answers, "filemap_map_pages: a cached page answers the fault")                    \
  X(around_maps, "filemap_map_pages: a cached neighbour is mapped")                          \
  X(readahead, "do_sync_mmap_readahead: pages around are read")                              \
  X(read_armed, "do_read_fault: through a uffd-wp marker, comes in armed")                   \
  X(read_plain, "do_read_fault: a file page")                                                \
  X(cow_armed, "do_cow_fault: through a uffd-wp marker, comes in armed")                     \
  X(cow_plain, "do_cow_fault: a private copy")                                               \
  X(shared_armed, "do_shared_fault: through a uffd-wp marker, comes in armed")               \
  X(shared_plain, "do_shared_fault: a file page, written")                                   \
  X(beyond_eof, "file fault: SIGBUS, beyond the end of the file")                            \
  X(file_migrating, "file fault: waits for a page under migration")                          \
  X(anon_write_armed, "do_anonymous_page: a store through a uffd-wp marker, comes in armed") \
  X(anon_write, "do_anonymous_page: a new page")                                             \
  X(zero_armed, "do_anonymous_page: the zero page through a uffd-wp marker, armed")          \
  X(zero_plain, "do_anonymous_page: the zero page")                                          \
  X(marker_poisoned, "handle_pte_marker: poisoned, SIGBUS")                                  \
  X(marker_guard, "handle_pte_marker: guard, SIGSEGV")                                       \
  X(marker_stale, "handle_pte_marker: outlived its registration, cleared")                   \
  X(marker_anon, "handle_pte_marker: uffd-wp, anonymous memory comes in")                    \
  X(marker_file, "handle_pte_marker: uffd-wp, a file page comes in")                         \
  X(swap_migrating, "do_swap_page: waits for a page under migration")                        \
  X(swapin_exclusive, "do_swap_page: comes in exclusive")                                    \
  X(swapin_shared, "do_swap_page: comes in, perhaps shared")                                 \
  X(swapin_armed, "do_swap_page: comes in armed")                                            \
  X(swapin_writable, "do_swap_page: comes in writable")                                      \
  X(wp_copy_zero, "wp_page_copy: of the zero page")                                          \
  X(wp_copy, "wp_page_copy: of a page that others may need")                                 \
  X(wp_async, "do_wp_page: WP_ASYNC, disarmed without a message")                            \
  X(wp_shared, "do_wp_page: shared mapping, reused")                                         \
  X(wp_reuse, "do_wp_page: anonymous page of nobody else, reused")                           \
  X(swap_hwpoison, "do_swap_page: hwpoison, SIGBUS")                                         \
  X(swap_migration, "do_swap_page: migration entry, waits")                                  \
  X(zap_leaves_marker, "pte_install_uffd_wp_if_needed: an armed file page leaves a marker")  \
  X(zap_copy_stays, "zap_present_pte: a private copy stays")                                 \
  X(zap_special, "zap_present_pte: no page of its own")                                      \
  X(zap_anon, "zap_present_pte: anonymous page")                                             \
  X(zap_file, "zap_present_pte: file page")                                                  \
  X(zap_marker_stays, "zap_nonpresent_pte: uffd-wp marker of a file mapping stays")          \
  X(zap_marker_goes, "zap_nonpresent_pte: uffd-wp marker dropped")                           \
  X(zap_guard_goes, "zap_nonpresent_pte: guard marker dropped")                              \
  X(zap_guard_stays, "zap_nonpresent_pte: guard marker stays")                               \
  X(zap_swap_skipped, "zap_nonpresent_pte: swap entry skipped (v2)")                         \
  X(zap_swap, "zap_nonpresent_pte: swap entry")                                              \
  X(zap_migration, "zap_nonpresent_pte: migration entry")                                    \
  X(zap_other, "zap_nonpresent_pte: another entry")                                          \
  X(zap_frees_table, "zap_pte_range: an emptied PTE table is freed (PT_RECLAIM)")            \
  X(zap_shared_table, "zap_pte_range: tables without a private entry")                       \
  X(fork_special, "copy_present_pte: no page of its own")                                    \
  X(fork_private, "copy_present_pte: private mapping")                                       \
  X(fork_shared, "copy_present_pte: shared mapping")                                         \
  X(fork_arm_kept, "copy_present_pte: stays armed in the child")                             \
  X(fork_arm_dropped, "copy_present_pte: not armed in the child")                            \
  X(fork_marker, "copy_nonpresent_pte: marker copied")                                       \
  X(fork_marker_dropped, "copy_nonpresent_pte: marker not copied")                           \
  X(fork_swap, "copy_nonpresent_pte: swap entry")                                            \
  X(fork_nonpresent, "copy_nonpresent_pte: migration or another entry")                      \
  X(fork_wipes, "dup_mmap: VMA is empty in the child")                                       \
  X(fork_registered, "dup_userfaultfd: VMA is registered")                                   \
  X(fork_dontcopy, "dup_mmap: VMA is not in the child")                                      \
  X(fork_lazy, "vma_needs_copy: the child faults its entries in")                            \
  X(mremap_table, "move_normal_pmd: a whole table")                                          \
  X(mremap_shared_table, "move_ptes: a table without a private entry")                       \
  X(mremap_clears, "move_ptes: an entry of a VMA that loses its userfaultfd")                \
  X(mremap_entry, "move_ptes: an entry")                                                     \
  X(mremap_event, "mremap: EVENT_REMAP")                                                     \
  X(mremap_grows, "mremap: grows in place")                                                  \
  X(mremap_shrinks, "mremap: shrinks")                                                       \
  X(mremap_dontunmap, "mremap: moves and keeps the source")                                  \
  X(mremap_moves, "mremap: moves")                                                           \
  X(reclaim_lazyfree, "try_to_unmap: a clean lazyfree page is dropped")                      \
  X(reclaim_anon, "try_to_unmap: an anonymous page goes to swap")                            \
  X(reclaim_file, "try_to_unmap: a file page")                                               \
  X(migrate_write, "try_to_migrate: a writable entry")                                       \
  X(migrate_read, "try_to_migrate: a read-only entry")                                       \
  X(migrated_armed, "remove_migration_pte: comes back armed")                                \
  X(migrated, "remove_migration_pte: comes back")                                            \
  X(migrate_gone, "remove_migration_ptes: the page is gone")                                 \
  X(message_wp, "handle_userfault: a wr-protect message")                                    \
  X(message_minor, "handle_userfault: a minor message")                                      \
  X(message_missing, "handle_userfault: a missing message")                                  \
  X(message_sigbus, "handle_userfault: FEATURE_SIGBUS")                                      \
  X(unregistered, "userfaultfd_unregister: a VMA")                                           \
  X(reregistered, "userfaultfd_register: a VMA with other modes")                            \
  X(registered, "userfaultfd_register: a VMA")                                               \
  X(woken, "userfaultfd_wake: a waiter")                                                     \
  X(fill_over_marker, "mfill_atomic_install_pte: over a marker")                             \
  X(fill_shared, "mfill_atomic_install_pte: shared mapping")                                 \
  X(fill_private_cached, "mfill_atomic_install_pte: a cached page, privately")               \
  X(fill_private, "mfill_atomic_install_pte: a private page")                                \
  X(fill_wp, "mfill_atomic_install_pte: armed")                                              \
  X(fill_zero, "mfill_atomic_pte_zeropage: the zero page")                                   \
  X(fill_poison, "mfill_atomic_pte_poison: a marker")                                        \
  X(fill_partial, "mfill_atomic: stops part way")                                            \
  X(move_zero, "move_zeropage_pte: the zero page")                                           \
  X(move_page, "move_present_pte: a page")                                                   \
  X(move_hole, "move_pages: a hole")                                                         \
  X(move_swap, "move_swap_pte: a swap entry")                                                \
  X(free_page, "madvise_free_pte_range: a page becomes lazyfree")                            \
  X(free_swap, "madvise_free_pte_range: a swap entry goes")                                  \
  X(pageout_page, "madvise_cold_or_pageout: a page is reclaimed")                            \
  X(cold_page, "madvise_cold_or_pageout: a page grows old")                                  \
  X(guard_installed, "guard_install: a marker")                                              \
  X(guard_removed, "guard_remove: a marker")                                                 \
  X(mprotect_same, "mprotect: nothing changes")                                              \
  X(mprotect_upgrades, "mprotect_fixup: entries may become writable")                        \
  X(mprotect_plain, "mprotect_fixup: a VMA")                                                 \
  X(mmap_alone, "mmap_region: a VMA of its own")                                             \
  X(mmap_merged, "mmap_region: merged with a neighbour")                                     \
  X(vma_split, "split_vma")                                                                  \
  X(scan_arms_present, "make_uffd_wp_pte: a present entry")                                  \
  X(scan_arms_swap, "make_uffd_wp_pte: a swap entry")                                        \
  X(scan_arms_none, "make_uffd_wp_pte: a none entry")                                        \
  X(skipped_pgd, "change_p4d_range: a wr-protect passes an absent PUD table by")             \
  X(skipped_pud, "change_pud_range: a wr-protect passes an absent PMD table by")             \
  X(skipped_pmd, "change_pmd_range: a wr-protect passes an absent PTE table by")             \
  X(bad_cleared, "pmd_none_or_clear_bad: a bad entry")                                       \
  X(huge_changed, "change_huge_pmd")                                                         \
  X(huge_split, "__split_huge_pmd")                                                          \
  X(populate_pgd, "change_prepare: a missing PUD table")                                     \
  X(populate_pud, "change_prepare: a missing PMD table")                                     \
  X(populate_pmd, "change_prepare: a missing PTE table")                                     \
  X(shared_pgd, "change_p4d_range: all that a PUD table maps, by one entry")                 \
  X(shared_pud, "change_pud_range: all that a PMD table maps, by one entry")                 \
  X(shared_pmd, "change_pmd_range: a whole PTE table, by one entry")                         \
  X(fault_pgd, "__handle_mm_fault: a missing PUD table")                                     \
  X(fault_pud, "__handle_mm_fault: a missing PMD table")                                     \
  X(fault_pmd, "__handle_mm_fault: a missing PTE table")                                     \
  X(zap_pgd, "zap_p4d_range: an absent PUD table")                                           \
  X(zap_pud, "zap_pud_range: an absent PMD table")                                           \
  X(zap_pmd, "zap_pmd_range: an absent PTE table")                                           \
  X(fork_pgd, "copy_p4d_range: an absent PUD table")                                         \
  X(fork_pud, "copy_pud_range: an absent PMD table")                                         \
  X(fork_pmd, "copy_pmd_range: an absent PTE table")

/// X(name, what happens [the rule that decides it]).
#define PTWALK_RULE_BRANCHES(X)                                                                    \
  X(rule_devmap_bit, "vm_normal_page: a DEVMAP entry [devmap_bit]")                                \
  X(rule_saved_dirty_bit, "pte_wrprotect: an entry with D loses RW [saved_dirty_bit]")             \
  X(rule_modify_keeps_pat, "pte_modify: an entry with PAT [modify_keeps_pat]")                     \
  X(rule_mkuffd_wp_wrprotects, "__split_huge_pmd: armed and writable [mkuffd_wp_wrprotects]")      \
  X(rule_swp_exclusive, "try_to_unmap_one: an exclusive page [swp_exclusive]")                     \
  X(rule_marker_format, "make_pte_marker: a none entry is armed [marker_format]")                  \
  X(rule_marker_mask, "pte_marker_uffd_wp: a marker of another kind [marker_mask]")                \
  X(rule_swapin_error_type, "change_pte_range: a swap-in error [swapin_error_type]")               \
  X(rule_exclusive_types, "change_pte_range: a writable migration entry [exclusive_types]")        \
  X(rule_one_device_exclusive,                                                                     \
    "change_pte_range: a device-exclusive entry [one_device_exclusive]")                           \
  X(rule_populate, "change_prepare: an absent table, to be wr-protected [populate]")               \
  X(rule_populate_enomem, "change_prepare: no table can be had [populate_enomem]")                 \
  X(rule_marker_vmas, "userfaultfd_wp_use_markers: a none entry [marker_vmas]")                    \
  X(rule_marker_resolve_needs_file,                                                                \
    "change_pte_range: a marker in anonymous memory [marker_resolve_needs_file]")                  \
  X(rule_wp_splits_file_pmd, "change_pmd_range: a whole huge page of a file [wp_splits_file_pmd]") \
  X(rule_upgrade, "can_change_pte_writable: a present entry without RW [upgrade]")                 \
  X(rule_pmd_retry, "change_pmd_range: a bad PMD entry [pmd_retry]")                               \
  X(rule_numa_saves_write, "change_pte_range: NUMA hint on a writable entry [numa_saves_write]")   \
  X(rule_numa_skips_zone_device, "prot_numa_skip: a page of DAX [numa_skips_zone_device]")         \
  X(rule_migration_keeps_uffd,                                                                     \
    "make_readable_migration_entry: an armed one [migration_keeps_uffd]")                          \
  X(rule_huge_migration_uffd,                                                                      \
    "change_huge_pmd: a migration entry is armed or resolved [huge_migration_uffd]")               \
  X(rule_huge_upgrade, "can_change_pmd_writable: a huge page without RW [huge_upgrade]")           \
  X(rule_split_copies_dirty, "__split_huge_pmd: a dirty anonymous page [split_copies_dirty]")      \
  X(rule_split_zero_keeps_uffd, "__split_huge_zero_page_pmd: armed [split_zero_keeps_uffd]")       \
  X(rule_split_flushes_migration, "__split_huge_pmd: a migration entry [split_flushes_migration]") \
  X(rule_pud_leaves, "change_pud_range: a PUD leaf [pud_leaves]")                                  \
  X(rule_flush, "pte_needs_flush: an entry changes [flush]")                                       \
  X(rule_notifier, "change_pmd_range: begins with an absent PTE table [notifier]")                 \
  X(rule_writenotify_uffd_wp,                                                                      \
    "vma_wants_writenotify: shared, writable, registered for wp [writenotify_uffd_wp]")            \
  X(rule_manual_write_upgrade,                                                                     \
    "vma_wants_manual_pte_write_upgrade: writable memory [manual_write_upgrade]")                  \
  X(rule_ro_drops_account,                                                                         \
    "mprotect_fixup: untouched anonymous memory becomes read-only [ro_drops_account]")             \
  X(rule_uffd_features, "userfaultfd_api: a feature that not every kernel has [uffd_features]")    \
  X(rule_wp_file_backed, "vma_can_userfault: a file, for wp [wp_file_backed]")                     \
  X(rule_minor_shmem, "vma_can_userfault: shmem, for minor [minor_shmem]")                         \
  X(rule_wp_one_vma, "mwriteprotect_range: a range of several VMAs [wp_one_vma]")                  \
  X(rule_wp_table_word, "uffd_wp_range: the VMA is write-notified [wp_table_word]")                \
  X(rule_wp_upgrades, "uffd_wp_range: a resolve of writable memory [wp_upgrades]")                 \
  X(rule_unregister_resolves,                                                                      \
    "userfaultfd_unregister: a VMA registered for wp [unregister_resolves]")                       \
  X(rule_unregister_checks_ctx,                                                                    \
    "userfaultfd_unregister: a VMA of another userfaultfd [unregister_checks_ctx]")                \
  X(rule_register_merges_next, "userfaultfd_register: begins inside a VMA [register_merges_next]") \
  X(rule_uffd_cont_wp, "userfaultfd_continue: asks for wp [uffd_cont_wp]")                         \
  X(rule_fills_prepare_first, "mfill_atomic: refused, no anon_vma yet [fills_prepare_first]")      \
  X(rule_copy_private_over_marker,                                                                 \
    "mfill_atomic_install_pte: a marker in a private mapping [copy_private_over_marker]")          \
  X(rule_copy_ignores_wp_readonly,                                                                 \
    "mfill_atomic_install_pte: armed, not writable [copy_ignores_wp_readonly]")                    \
  X(rule_poison_ioctl, "userfaultfd_poison: called [poison_ioctl]")                                \
  X(rule_move_ioctl, "userfaultfd_move: called [move_ioctl]")                                      \
  X(rule_migration_wrprotects, "remove_migration_pte: armed [migration_wrprotects]")               \
  X(rule_pageout_checks_lru,                                                                       \
    "madvise_cold_or_pageout: a page off the LRU lists [pageout_checks_lru]")                      \
  X(rule_faultaround_dirty, "set_pte_range: a dirty folio, writable [faultaround_dirty]")          \
  X(rule_swapin_arms_first, "do_swap_page: an exclusive page, armed or read [swapin_arms_first]")  \
  X(rule_persist_needs_uffd_vma,                                                                   \
    "pte_install_uffd_wp_if_needed: armed, not registered [persist_needs_uffd_vma]")               \
  X(rule_fork_copies_wp_vma, "vma_needs_copy: registered for wp only [fork_copies_wp_vma]")        \
  X(rule_mremap_clears_uffd, "move_vma: registered, without EVENT_REMAP [mremap_clears_uffd]")     \
  X(rule_mremap_marks_markers, "move_soft_dirty_pte: a marker [mremap_marks_markers]")             \
  X(rule_move_realigns, "try_realign_addr: both ends equally unaligned [move_realigns]")           \
  X(rule_mremap_multi_vma, "remap_move: a range of several VMAs [mremap_multi_vma]")               \
  X(rule_populate_advice, "madvise: POPULATE [populate_advice]")                                   \
  X(rule_dontneed_locked, "madvise: DONTNEED_LOCKED [dontneed_locked]")                            \
  X(rule_guard_advice, "madvise: GUARD [guard_advice]")                                            \
  X(rule_pagemap_scan, "do_pagemap_cmd: PAGEMAP_SCAN [pagemap_scan]")                              \
  X(rule_anon_exclusive, "wp_can_reuse_anon_folio: asked [anon_exclusive]")                        \
  X(rule_mem_soft_dirty, "mmap_region: a new VMA is soft-dirty [MEM_SOFT_DIRTY]")                  \
  X(rule_memory_failure, "do_sigbus: a poisoned page [MEMORY_FAILURE]")                            \
  X(rule_device_private, "change_pte_range: a device-private entry [DEVICE_PRIVATE]")              \
  X(rule_page_table_isolation, "pgd_bad: a table entry with NX [PAGE_TABLE_ISOLATION]")            \
  X(rule_pt_reclaim, "zap_pte_range: a whole PTE table of MADV_DONTNEED [PT_RECLAIM]")

enum class Branch : u16 {
#define PTWALK_BRANCH_NAME(name, text) name,
  PTWALK_BRANCHES(PTWALK_BRANCH_NAME) PTWALK_RULE_BRANCHES(PTWALK_BRANCH_NAME)
#undef PTWALK_BRANCH_NAME
      count
};

/// X(name, what is done, what it can meet): the walks that meet leaves.
#define PTWALK_WALKS(X)                                            \
  X(mprotect, "change_pte_range: mprotect meets ", ANY)            \
  X(wr_protect, "change_pte_range: wr-protect meets ", ANY)        \
  X(resolve, "change_pte_range: resolve meets ", ANY)              \
  X(numa_hint, "change_pte_range: NUMA hint meets ", ANY)          \
  X(load, "handle_pte_fault: a load meets ", ANY)                  \
  X(store, "handle_pte_fault: a store meets ", ANY)                \
  X(zap, "zap_pte_range: meets ", MAPPED)                          \
  X(fork, "copy_pte_range: meets ", MAPPED)                        \
  X(mremap, "move_ptes: meets ", MAPPED)                           \
  X(unmap, "try_to_unmap_one: meets ", PAGES)                      \
  X(migrate, "try_to_migrate_one: meets ", PAGES)                  \
  X(fill, "mfill_atomic: meets ", ANY)                             \
  X(move, "move_pages_pte: meets ", ANY)                           \
  X(lazyfree, "madvise_free_pte_range: meets ", ANY)               \
  X(age, "madvise_cold_or_pageout_pte_range: meets ", ANY)         \
  X(guard_remove, "guard_remove_pte_entry: meets ", ANY)           \
  X(scan, "pagemap_scan_pmd_entry: meets ", ANY)                   \
  X(huge_mprotect, "change_huge_pmd: mprotect meets ", MAPPED)     \
  X(huge_wr_protect, "change_huge_pmd: wr-protect meets ", MAPPED) \
  X(huge_resolve, "change_huge_pmd: resolve meets ", MAPPED)       \
  X(huge_numa_hint, "change_huge_pmd: NUMA hint meets ", MAPPED)   \
  X(huge_zap, "zap_huge_pmd: meets ", MAPPED)                      \
  X(huge_split, "__split_huge_pmd: meets ", MAPPED)

/// Those of huge leaves come in the order of those of small ones.
enum class LeafWalk : u8 {
#define PTWALK_WALK_NAME(name, text, classes) name,
  PTWALK_WALKS(PTWALK_WALK_NAME)
#undef PTWALK_WALK_NAME
      count
};

}  // namespace ptwalk
