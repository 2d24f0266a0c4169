#include "ptwalk/page_table.hpp"

#include <algorithm>

namespace ptwalk {

PageTable::PageTable(FrameArena& frames, const Profile& profile, int levels)
    : frames_(&frames), profile_(&profile), levels_(levels), root_(frames.alloc(levels)) {}

EntryKind PageTable::kind(u64 word, Level level) const {
  const bool isolation = profile_->config.page_table_isolation;
  if (level == 5) {  // pgd_none() compares the whole word; pgd_bad() has its own flags
    if (word == 0) return EntryKind::none;
    const u64 ignore = _PAGE_USER | (isolation ? _PAGE_NX : 0);
    return (word & ~PTE_PFN_MASK & ~ignore) == _KERNPG_TABLE ? EntryKind::table : EntryKind::bad;
  }
  if (pte_none(word)) return EntryKind::none;
  if (level == P4D_LEVEL) {
    const u64 allowed = _PAGE_TABLE | (isolation ? _PAGE_NX : 0);
    return (word & ~PTE_PFN_MASK & ~allowed) ? EntryKind::bad : EntryKind::table;
  }
  if (level == PUD_LEVEL) {
    if (profile_->pud_leaves && (word & _PAGE_PSE)) return EntryKind::leaf;  // PROT_NONE ones too
    return pud_bad(word) ? EntryKind::bad : EntryKind::table;
  }
  // pmd: trans-huge (PSE), devmap, protnone and swap-format entries are leaves; then pmd_bad().
  if (is_swap_pmd(word) || (word & _PAGE_PSE) || (word & profile_->devmap_bit))
    return EntryKind::leaf;
  return pmd_bad(word) ? EntryKind::bad : EntryKind::table;
}

u64* PageTable::find(u64 addr, Level level) const {
  u64* table = root_table();
  for (Level at = levels_; at > level; --at) {
    const u64 entry = table[level_index(addr, at)];
    if (kind(entry, at) != EntryKind::table) return nullptr;
    table = below(entry);
    if (!table) return nullptr;
  }
  return &table[level_index(addr, level)];
}

WalkEnd PageTable::walk(u64 addr) const {
  u64* table = root_table();
  for (Level at = levels_;; --at) {
    u64* entry = &table[level_index(addr, at)];
    if (at == PTE_LEVEL || kind(*entry, at) != EntryKind::table) return {entry, at};
    table = below(*entry);
    if (!table) return {entry, at};
  }
}

u64* PageTable::ensure(u64 addr, Level level) {
  u64* table = root_table();
  for (Level at = levels_; at > level; --at) {
    u64* entry = &table[level_index(addr, at)];
    EntryKind what = kind(*entry, at);
    if (what == EntryKind::none) {
      if (!populate(entry, at)) return nullptr;
    } else if (what != EntryKind::table) {
      return nullptr;
    }
    table = below(*entry);
    if (!table) return nullptr;
  }
  return &table[level_index(addr, level)];
}

bool PageTable::populate(u64* entry, Level level, u64 flags) {
  if (fail_countdown_ && --fail_countdown_ == 0) return false;
  const Pfn pfn = frames_->alloc(level - 1);
  if (!pfn) return false;
  *entry = (pfn << PAGE_SHIFT) | flags;
  ++nr_tables_;
  return true;
}

u64* PageTable::deposit_table(u64* entry) {
  const Pfn pfn = frames_->alloc(PTE_LEVEL);
  if (!pfn) return nullptr;
  *entry = (pfn << PAGE_SHIFT) | _PAGE_TABLE;
  ++nr_tables_;
  return frames_->table(pfn);
}

void PageTable::free_below(u64* table, Level level, Range span, u64 base, Range bounds) {
  const u64 size = level_size(level);
  for (unsigned i = level_index(span.start, level);; ++i) {
    const u64 lo = base + i * size;
    if (i == PTRS_PER_TABLE || lo >= span.end) return;
    u64* entry = &table[i];
    if (kind(*entry, level) != EntryKind::table) continue;
    u64* child = below(*entry);
    if (!child) continue;
    const Range part{std::max(span.start, lo), std::min(span.end, lo + size)};
    if (level > PMD_LEVEL) free_below(child, level - 1, part, lo, bounds);
    if (lo < bounds.start || lo + size > bounds.end) continue;
    frames_->free((*entry & PTE_PFN_MASK) >> PAGE_SHIFT);
    *entry = 0;
    --nr_tables_;
  }
}

void PageTable::free_range(u64 start, u64 end, u64 floor, u64 ceiling) {
  if (start < end) free_below(root_table(), levels_, {start, end}, 0, {floor, ceiling});
}

void PageTable::free_pte_table(u64* pmd) {
  frames_->free((*pmd & PTE_PFN_MASK) >> PAGE_SHIFT);
  *pmd = 0;
  --nr_tables_;
}

void PageTable::free_all() {
  // One past the last user address of 4 levels may wrap at the top entry: bound by the root's
  // reach.
  const u64 reach = levels_ == 5 ? 1ull << 57 : 1ull << 48;
  free_range(0, reach, 0, reach);
  frames_->free(root_);
  root_ = 0;
}

}  // namespace ptwalk
