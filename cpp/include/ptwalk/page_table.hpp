// One set of page tables: a root and the frames below it. Finds and makes entries; knows what a
// table entry is, not what a leaf means. Models pgd_offset() … pte_offset(), pte_alloc() and the
// accounting of mm_inc_nr_ptes() (include/linux/mm.h, v6.18).
#pragma once

#include "ptwalk/frame_arena.hpp"
#include "ptwalk/profile.hpp"

namespace ptwalk {

/// What an entry above the PTE level is.
enum class EntryKind : u8 { none, table, leaf, bad };

/// Where a walk ended: the entry, its level, and its word (0 where the root itself is empty).
struct WalkEnd {
  u64* entry = nullptr;
  Level level = 0;
};

class PageTable {
 public:
  PageTable(FrameArena& frames, const Profile& profile, int levels);

  [[nodiscard]] int levels() const { return levels_; }
  [[nodiscard]] Pfn root() const { return root_; }
  [[nodiscard]] u64* root_table() const { return frames_->table(root_); }
  [[nodiscard]] FrameArena& frames() const { return *frames_; }

  /// What the kernel takes `word` for at `level` (2 … levels) under the profile.
  /// (pmd_none, pmd_trans_huge, pmd_bad, … arch/x86/include/asm/pgtable.h)
  [[nodiscard]] EntryKind kind(u64 word, Level level) const;
  /// The table that a table entry points to; nullptr where it names no frame of ours.
  [[nodiscard]] u64* below(u64 entry) const {
    const Pfn pfn = (entry & PTE_PFN_MASK) >> PAGE_SHIFT;
    return frames_->owns(pfn) ? frames_->table(pfn) : nullptr;
  }

  /// The entry of `level` that maps `addr`, or nullptr where a level above it is no table.
  [[nodiscard]] u64* find(u64 addr, Level level) const;
  /// Descends as far as there are tables: down to the PTE, or to the entry that is none, leaf or
  /// bad.
  [[nodiscard]] WalkEnd walk(u64 addr) const;
  /// Like find(), but allocates the missing tables; nullptr when one cannot be allocated or an
  /// entry on the way is a leaf or bad. (__handle_mm_fault, pte_alloc)
  [[nodiscard]] u64* ensure(u64 addr, Level level);
  /// Puts a new table below a none `entry` of `level`; false when no frame can be had.
  [[nodiscard]] bool populate(u64* entry, Level level, u64 flags = _PAGE_TABLE);
  /// A table below `entry` that was deposited with a huge page: not counted, never fails.
  u64* deposit_table(u64* entry);

  /// Frees the tables that lie wholly in [floor, ceiling) and map any of [start, end); what they
  /// held must have been zapped. (free_pgd_range, mm/memory.c, v6.18)
  void free_range(u64 start, u64 end, u64 floor, u64 ceiling);
  /// Frees the PTE table below a PMD entry and clears it. (MADV_DONTNEED with PT_RECLAIM)
  void free_pte_table(u64* pmd);

  /// Table pages below the root, as mm_pgtables_bytes() would count them, in pages.
  [[nodiscard]] u64 nr_tables() const { return nr_tables_; }
  /// The n-th allocation from now fails (1 is the next); 0 switches the injection off.
  void fail_alloc(u64 n) { fail_countdown_ = n; }
  void free_all();

 private:
  void free_below(u64* table, Level level, Range span, u64 base, Range bounds);

  FrameArena* frames_;
  const Profile* profile_;
  int levels_;
  Pfn root_ = 0;
  u64 nr_tables_ = 0;
  u64 fail_countdown_ = 0;
};

}  // namespace ptwalk
