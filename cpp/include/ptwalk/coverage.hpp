// Branches of the rules, by name, and how often each was taken: what a fuzzer is guided by. An
// operation hits the branch that the kernel's function of that name would take. Leaf spans are
// counted by request, mapping and what became of the entries, so that every kernel gives the same.
#pragma once

#include <array>
#include <span>
#include <string>

#include "ptwalk/types.hpp"

namespace ptwalk {

struct LeafPlan;
struct SpanCounts;
struct Vma;

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
  X(skipped_absent, "change_pmd_range: a wr-protect passes an absent table by")              \
  X(bad_cleared, "pmd_none_or_clear_bad: a bad entry")                                       \
  X(huge_changed, "change_huge_pmd")                                                         \
  X(huge_split, "__split_huge_pmd")                                                          \
  X(populate_pgd, "change_prepare: a missing PUD table")                                     \
  X(populate_pud, "change_prepare: a missing PMD table")                                     \
  X(populate_pmd, "change_prepare: a missing PTE table")                                     \
  X(shared_pgd, "change_p4d_range: all that a PUD table maps, by one entry")                 \
  X(shared_pud, "change_pud_range: all that a PMD table maps, by one entry")                 \
  X(shared_pmd, "change_pmd_range: a whole PTE table, by one entry")

enum class Branch : u16 {
#define PTWALK_BRANCH_NAME(name, text) name,
  PTWALK_BRANCHES(PTWALK_BRANCH_NAME)
#undef PTWALK_BRANCH_NAME
      count
};

class Coverage {
 public:
  /// What a leaf span is counted by: what was asked, of which mapping, and what came of it.
  static constexpr std::size_t REQUESTS = 4, MAPPINGS = 3, OUTCOMES = 6;
  static constexpr std::size_t NAMED = std::size_t(Branch::count);
  static constexpr std::size_t SIZE = NAMED + REQUESTS * MAPPINGS * OUTCOMES;

  void hit(Branch branch, u64 times = 1) { counts_[std::size_t(branch)] += times; }
  /// The first branch of the spans of a request on a VMA.
  [[nodiscard]] static u16 first_of(const LeafPlan& plan, const Vma& vma);
  void hit_span(u16 first, const SpanCounts& counts);
  void clear() { counts_.fill(0); }

  [[nodiscard]] std::span<const u64> counts() const { return counts_; }
  /// "do_fault: …" of each count.
  [[nodiscard]] static std::span<const std::string> names();

 private:
  std::array<u64, SIZE> counts_{};
};

}  // namespace ptwalk
