// change_protection(): the walk that mprotect, userfaultfd wr-protect and NUMA balancing share, and
// the account of everything that it did. Models mm/mprotect.c:change_protection … change_pte_range
// and mm/huge_memory.c:change_huge_pmd, __split_huge_pmd (v5.12 with the seed series, v6.1, v6.12,
// v6.18); hugetlb_change_protection is not modelled.
#pragma once

#include <vector>

#include "ptwalk/error.hpp"
#include "ptwalk/short_list.hpp"
#include "ptwalk/types.hpp"

namespace ptwalk {

class AddressSpace;
struct Vma;

/// Flags of a change-protection request. (include/linux/mm.h, v6.18; bit 0 was MM_CP_DIRTY_ACCT)
inline constexpr u32 MM_CP_DIRTY_ACCT = 1;
inline constexpr u32 MM_CP_TRY_CHANGE_WRITABLE = 1;
inline constexpr u32 MM_CP_PROT_NUMA = 2;
inline constexpr u32 MM_CP_UFFD_WP = 4;
inline constexpr u32 MM_CP_UFFD_WP_RESOLVE = 8;
inline constexpr u32 MM_CP_UFFD_WP_ALL = MM_CP_UFFD_WP | MM_CP_UFFD_WP_RESOLVE;

enum class NotifierKind : u8 { protection_vma, clear };

/// One mmu-notifier invalidation that the walk started.
struct NotifierStart {
  NotifierKind kind = NotifierKind::protection_vma;
  u64 start = 0;
  u64 end = 0;
  bool ended = true;  ///< false: the walk at address 0 loses one (spec: walks, quirks)
};

/// A table entry that was found bad, reported and cleared.
struct BadEntry {
  Level level = 0;
  u64 addr = 0;  ///< lowest address that the entry maps
};

/// What the kernel would print.
enum class Warning : u8 { table_alloc_failed, bad_page_map };

/// Everything that one or more calls of change_protection() did.
struct ProtectResult {
  ProtectResult() {}  // not the compiler's: value-initialization would fill the list's room too
  u64 pages = 0;      ///< the kernel's return value; 0 with an error
  u64 none_to_marker = 0;
  u64 marker_to_none = 0;
  u64 present = 0;       ///< present entries counted, changed or not; NUMA skips are not
  u64 swap = 0;          ///< swap-format entries changed
  u64 huge = 0;          ///< huge leaves changed whole
  u64 none_skipped = 0;  ///< pages that a wr-protect left none, tables or not
  u64 tables_allocated = 0;
  u64 numa_huge_pte_updates = 0;  ///< NUMA_HUGE_PTE_UPDATES
  u64 thp_split_pmd = 0;          ///< THP_SPLIT_PMD
  i64 rss_file = 0;               ///< change of the file or shmem RSS counter, in pages
  u64 dirtied = 0;                ///< huge pages that a split marked dirty
  u64 referenced = 0;             ///< huge pages that a split marked referenced
  Range flush{};                  ///< closing TLB range flush; empty: none
  std::vector<u64> pmd_flush;     ///< start of each flush of a huge leaf made at once, in order
  ShortList<NotifierStart, 8> notifier;
  std::vector<BadEntry> bad_cleared;
  std::vector<Warning> warnings;  ///< each occurrence, "once" not applied

  /// Adds the account of a later system call.
  void add(const ProtectResult& later);
  /// Extends the closing flush to hold [start, end). (tlb_flush_pte_range, asm-generic/tlb.h,
  /// v6.18)
  void gather_flush(u64 start, u64 end);
};

/// Changes the protection of [start, end) of `vma` in `mm`'s tables and adds to the account of the
/// system call. Page aligned, start < end, within the VMA, not both UFFD_WP and RESOLVE (the caller
/// has checked).
/// The error, if any, is table_alloc_failed (v6.4 on); what was changed stays changed. As in the
/// kernel, -ENOMEM of a table below the top is added to the pages counted elsewhere: with more than
/// twelve of those there is no error, and `pages` is twelve short for each failure.
/// Models mm/mprotect.c:change_protection. `prot_numa` requests use PAGE_NONE as newprot.
Error change_protection(AddressSpace& mm, const Vma& vma, Range range, u64 newprot, u32 cp_flags,
                        ProtectResult& account);

}  // namespace ptwalk
