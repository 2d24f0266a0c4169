// One set of page tables: a root and the frames below it. Finds and makes entries; knows what a
// table entry is, not what a leaf means. Some of its tables may be shared (shared_tables.hpp): who
// reads never notices, and who stores asks for a writable entry. Models pgd_offset() …
// pte_offset(), pte_alloc() and the accounting of mm_inc_nr_ptes() (include/linux/mm.h, v6.18).
#pragma once

#include "ptwalk/shared_tables.hpp"

namespace ptwalk {

/// What an entry above the PTE level is.
enum class EntryKind : u8 { none, table, leaf, bad };

/// Where a walk ended: the entry and its level.
struct WalkEnd {
  const u64* entry = nullptr;
  Level level = 0;
};

/// Pages that one walk answers for: those under one PTE table, one entry above the PTE level, or
/// equal entries of one table that are none or point to a shared table.
struct Extent {
  const u64* entry = nullptr;  ///< of the first page asked for, or of all of them
  Level level = 0;             ///< of that entry
  bool uniform = false;        ///< every page has the word of `entry`: a leaf, no table, or shared
  u64 end = 0;                 ///< first address beyond
};

class PageTable {
 public:
  PageTable(SharedTables& shared, const Profile& profile, int levels, UndoLog* undo = nullptr);

  [[nodiscard]] int levels() const { return levels_; }
  [[nodiscard]] Pfn root() const { return root_; }
  [[nodiscard]] u64* root_table() { return frames_->table(root_); }
  [[nodiscard]] const u64* root_table() const { return frames_->table(root_); }
  [[nodiscard]] FrameArena& frames() const { return *frames_; }

  /// What the kernel takes `word` for at `level` (2 … levels) under the profile.
  /// (pmd_none, pmd_trans_huge, pmd_bad, … arch/x86/include/asm/pgtable.h)
  [[nodiscard]] EntryKind kind(u64 word, Level level) const;
  /// The table that a table entry points to; nullptr where it names no frame of ours.
  [[nodiscard]] const u64* below(u64 entry) const {
    const Pfn pfn = (entry & PTE_PFN_MASK) >> PAGE_SHIFT;
    return frames_->owns(pfn) ? frames_->table(pfn) : nullptr;
  }
  /// The table below an entry of `level` that points to one which nothing else points to; nullptr
  /// for every other entry.
  [[nodiscard]] u64* private_table(u64 entry, Level level) const {
    if (kind(entry, level) != EntryKind::table) return nullptr;
    const Pfn pfn = (entry & PTE_PFN_MASK) >> PAGE_SHIFT;
    return frames_->owns(pfn) && frames_->info(pfn).uniform == Uniform::no ? frames_->table(pfn)
                                                                           : nullptr;
  }
  /// What a table entry's pages all have, if it points to a shared table.
  [[nodiscard]] Uniform uniform_below(u64 entry) const {
    const Pfn pfn = (entry & PTE_PFN_MASK) >> PAGE_SHIFT;
    return frames_->owns(pfn) ? frames_->info(pfn).uniform : Uniform::no;
  }

  /// The entry of `level` that maps `addr`, or nullptr where a level above it is no table.
  [[nodiscard]] const u64* find(u64 addr, Level level) const {
    return level == PTE_LEVEL && is_recent(addr) ? recent_pte(addr) : search(addr, level);
  }
  /// Descends as far as there are tables: down to the PTE, or to the entry that is none, leaf or
  /// bad.
  [[nodiscard]] WalkEnd walk(u64 addr) const {
    return is_recent(addr) ? WalkEnd{recent_pte(addr), PTE_LEVEL} : descend(addr);
  }
  /// Like walk(), but a shared table ends it too. Equal entries after it that are none or point to
  /// the same shared table belong to it, as far as their table goes; its end is cut to `limit`.
  [[nodiscard]] Extent extent(u64 addr, u64 limit) const;

  /// Like find(), for storing `nr` entries from there on in the same table: shared tables on the
  /// way are copied first.
  [[nodiscard]] u64* writable(u64 addr, Level level, u64 nr = 1) {
    return level == PTE_LEVEL && is_recent(addr) ? recent_to_store(addr, nr)
                                                 : find_to_store(addr, level, nr);
  }
  /// Like writable(), but allocates the missing tables; nullptr when one cannot be allocated or an
  /// entry on the way is a leaf or bad. (__handle_mm_fault, pte_alloc)
  [[nodiscard]] u64* ensure(u64 addr, Level level, u64 nr = 1) {
    return level == PTE_LEVEL && is_recent(addr) ? recent_to_store(addr, nr)
                                                 : make_to_store(addr, level, nr);
  }
  /// The table below a table entry that lies in a table of its own, for storing with store();
  /// nullptr where the entry names no frame of ours.
  [[nodiscard]] u64* own(u64* entry);
  /// Stores to an entry that own() led to.
  void store(u64* entry, u64 value) {
    frames_->will_store(entry);
    *entry = value;
  }
  /// Puts a new table below a none `entry` of `level`, or with `uniform` shared tables down to the
  /// PTE level; its frame, or 0 when none can be had.
  [[nodiscard]] Pfn populate(u64* entry, Level level, u64 flags = _PAGE_TABLE,
                             Uniform uniform = Uniform::no);
  /// The entries of a range that lies in the PTE table that was stored to last and is not all of
  /// it; nullptr for other ranges.
  [[nodiscard]] u64* recent(Range range) const {
    const bool inside = range.end - range.start < PMD_SIZE && is_recent(range.start) &&
                        range.start / PMD_SIZE == (range.end - 1) / PMD_SIZE;
    return inside ? recent_pte(range.start) : nullptr;
  }
  /// `table` is the PTE table of `addr`, and not shared: what comes next may lie there too.
  void remember(u64 addr, u64* table) { recent_ = {addr / PMD_SIZE, frames_->shape(), table}; }
  /// Gives every page of [start, end) that word and makes the tables that are missing, shared ones
  /// where an entry is covered whole. What tables of their own hold there must be none or markers.
  /// False when no frame can be had.
  [[nodiscard]] bool fill(u64 start, u64 end, Uniform uniform);
  /// Makes `nr` equal entries that point to a shared table point to another one of the same level.
  void exchange(u64* entry, Uniform uniform, u64 nr = 1);
  /// Replaces the table below `entry` by a shared one if all its entries are the same. Entries of a
  /// PTE table must be none or markers then, those of others point to one shared table.
  void share_if_uniform(u64* entry);
  /// Does so for every table above the PTE level that [start, end) covers whole, lowest first.
  void share_range(u64 start, u64 end) { share_below(root_table(), levels_, {start, end}); }
  /// A table below `entry` that was deposited with a huge page: not counted, never fails.
  u64* deposit_table(u64* entry);

  /// Tables of this set that are its own: what a copy of it may need.
  [[nodiscard]] u64 own_tables() const { return own_below(root_table(), levels_); }
  /// Frames that it takes to give every page of [start, end) a PTE of its own.
  [[nodiscard]] u64 frames_to_map(u64 start, u64 end) const;
  /// Frees the tables that lie wholly in [floor, ceiling) and map any of [start, end); what they
  /// held must have been zapped. (free_pgd_range, mm/memory.c, v6.18)
  void free_range(u64 start, u64 end, u64 floor, u64 ceiling);
  /// Frees the PTE table below a PMD entry and clears it. (MADV_DONTNEED with PT_RECLAIM)
  void free_pte_table(u64* pmd);

  /// Table pages below the root, as mm_pgtables_bytes() would count them, in pages.
  [[nodiscard]] u64 nr_tables() const { return counts_.tables; }
  /// The n-th allocation from now fails (1 is the next); 0 switches the injection off.
  void fail_alloc(u64 n) { counts().fail_countdown = n; }
  /// Whether an allocation may be made to fail: tables must then be made one by one.
  [[nodiscard]] bool may_fail() const { return counts_.fail_countdown != 0; }
  void free_all();

 private:
  /// The PTE table of its own that was stored to last: most often the next address lies there too.
  struct Recent {
    u64 index = ~0ull;  ///< of the 2 MiB that it maps
    u64 shape = 0;      ///< FrameArena::shape() of then; it holds until that changes
    u64* table = nullptr;
  };
  [[nodiscard]] bool is_recent(u64 addr) const {
    return recent_.index == addr / PMD_SIZE && recent_.shape == frames_->shape();
  }
  [[nodiscard]] u64* recent_pte(u64 addr) const {
    return recent_.table + level_index(addr, PTE_LEVEL);
  }
  u64* recent_to_store(u64 addr, u64 nr) {
    u64* const pte = recent_pte(addr);
    frames_->will_store(pte, nr);
    return pte;
  }
  [[nodiscard]] u64* find_to_store(u64 addr, Level level, u64 nr);
  [[nodiscard]] u64* make_to_store(u64 addr, Level level, u64 nr);
  /// An entry that is about to be stored to; a PTE's table is remembered.
  u64* to_store(u64* entry, u64 addr, Level level, u64 nr);
  [[nodiscard]] const u64* search(u64 addr, Level level) const;
  [[nodiscard]] WalkEnd descend(u64 addr) const;
  [[nodiscard]] u64 own_below(const u64* table, Level level) const;
  [[nodiscard]] u64 frames_below(const u64* table, Level level, Range range) const;
  void share_below(u64* table, Level level, Range range);
  bool fill_below(u64* table, Level level, Range range, Uniform uniform);
  void free_below(u64* table, Level level, Range span, u64 base, Range bounds);
  void free_table(u64* entry);

  struct Counts {
    u64 tables = 0;
    u64 fail_countdown = 0;
  };
  /// The counts, to be changed.
  Counts& counts() {
    if (must_save(undo_, counts_stamp_)) undo_->save(counts_);
    return counts_;
  }

  SharedTables* shared_;
  FrameArena* frames_;
  const Profile* profile_;
  UndoLog* undo_;
  int levels_;
  Pfn root_ = 0;
  Counts counts_;
  u64 counts_stamp_;
  Recent recent_;
};

}  // namespace ptwalk
