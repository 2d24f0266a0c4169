#include "ptwalk/page_table.hpp"
#include "ptwalk/mutants.hpp"

#include <algorithm>

namespace ptwalk {

PageTable::PageTable(SharedTables& shared, const Profile& profile, int levels, UndoLog* undo)
    : shared_(&shared),
      frames_(&shared.frames()),
      profile_(&profile),
      undo_(undo),
      levels_(levels),
      root_(frames_->alloc_beyond_limit(levels)),
      counts_stamp_(epoch_of(undo)) {}

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

const u64* PageTable::search(u64 addr, Level level) const {
  const u64* table = root_table();
  for (Level at = levels_; at > level; --at) {
    const u64 entry = table[level_index(addr, at)];
    if (kind(entry, at) != EntryKind::table) return nullptr;
    table = below(entry);
    if (!table) return nullptr;
  }
  return &table[level_index(addr, level)];
}

WalkEnd PageTable::descend(u64 addr) const {
  const u64* table = root_table();
  for (Level at = levels_;; --at) {
    const u64* entry = &table[level_index(addr, at)];
    if (at == PTE_LEVEL || kind(*entry, at) != EntryKind::table) return {entry, at};
    table = below(*entry);
    if (!table) return {entry, at};
  }
}

namespace {

/// The end of what the entry of `addr` and equal ones after it in its table map, cut to `limit`.
u64 end_of_equals(const u64* entry, Level level, u64 addr, u64 limit) {
  const u64 size = level_size(level);
  u64 last = addr | (size - 1);
  for (u64 left = PTRS_PER_TABLE - 1 - level_index(addr, level); left && last < limit - 1; --left) {
    if (entry[1] != *entry) break;
    ++entry;
    last += size;
  }
  return std::min(limit - 1, last) + 1;
}

}  // namespace

Extent PageTable::extent(u64 addr, u64 limit) const {
  if (is_recent(addr))
    return {recent_pte(addr), PTE_LEVEL, false, std::min(limit - 1, addr | (PMD_SIZE - 1)) + 1};
  const u64* table = root_table();
  for (Level at = levels_;; --at) {
    const u64* entry = &table[level_index(addr, at)];
    const u64 end = std::min(limit - 1, addr | (level_size(at) - 1)) + 1;
    const EntryKind what = kind(*entry, at);
    if (what == EntryKind::none) return {entry, at, true, end_of_equals(entry, at, addr, limit)};
    const u64* const next = what == EntryKind::table ? below(*entry) : nullptr;
    if (!next) return {entry, at, true, end};
    if (uniform_below(*entry) != Uniform::no)
      return {walk(addr).entry, PTE_LEVEL, true, end_of_equals(entry, at, addr, limit)};
    table = next;
    if (at == PMD_LEVEL) return {&table[level_index(addr, PTE_LEVEL)], PTE_LEVEL, false, end};
  }
}

u64* PageTable::to_store(u64* entry, u64 addr, Level level, u64 nr) {
  frames_->will_store(entry, nr);
  if (level == PTE_LEVEL) remember(addr, entry - level_index(addr, PTE_LEVEL));
  return entry;
}

u64* PageTable::find_to_store(u64 addr, Level level, u64 nr) {
  auto* found = const_cast<u64*>(find(addr, level));
  if (!found) return nullptr;
  // Only private tables point to a private one.
  if (frames_->info(frames_->pfn_of(found)).uniform != Uniform::no) {
    u64* table = root_table();
    for (Level at = levels_; at > level; --at) table = own(&table[level_index(addr, at)]);
    found = &table[level_index(addr, level)];
  }
  return to_store(found, addr, level, nr);
}

u64* PageTable::make_to_store(u64 addr, Level level, u64 nr) {
  u64* table = root_table();
  for (Level at = levels_; at > level; --at) {
    u64* entry = &table[level_index(addr, at)];
    const EntryKind what = kind(*entry, at);
    if (what == EntryKind::none) {
      const Pfn made = populate(entry, at);
      table = made ? frames_->table(made) : nullptr;
    } else {
      table = what == EntryKind::table ? own(entry) : nullptr;
    }
    if (!table) return nullptr;
  }
  return to_store(&table[level_index(addr, level)], addr, level, nr);
}

u64* PageTable::own(u64* entry) {
  const Pfn pfn = (*entry & PTE_PFN_MASK) >> PAGE_SHIFT;
  if (!frames_->owns(pfn)) return nullptr;
  const FrameInfo info = frames_->info(pfn);
  if (info.uniform == Uniform::no || planted(Mutant::shared_written_in_place))
    return frames_->table(pfn);
  const Pfn copy = frames_->alloc_beyond_limit(info.level);
  frames_->will_fill(copy);
  std::copy_n(frames_->table(pfn), PTRS_PER_TABLE, frames_->table(copy));
  shared_->take_all(info.uniform, info.level);
  shared_->drop(pfn);
  store(entry, (copy << PAGE_SHIFT) | (*entry & ~PTE_PFN_MASK));
  return frames_->table(copy);
}

Pfn PageTable::populate(u64* entry, Level level, u64 flags, Uniform uniform) {
  if (counts_.fail_countdown && --counts().fail_countdown == 0) return 0;
  const bool shares = uniform != Uniform::no;
  const Pfn pfn = shares ? shared_->take(uniform, level - 1) : frames_->alloc(level - 1);
  if (!pfn) return 0;
  store(entry, (pfn << PAGE_SHIFT) | flags);
  counts().tables += shares ? tables_in(level - 1) : 1;
  return pfn;
}

bool PageTable::fill(u64 start, u64 end, Uniform uniform) {
  return start == end || fill_below(root_table(), levels_, {start, end}, uniform);
}

bool PageTable::fill_below(u64* table, Level level, Range range, Uniform uniform) {
  const u64 size = level_size(level);
  for (u64 addr = range.start, next; addr < range.end; addr = next) {
    next = std::min(align_down(addr, size) + size, range.end);
    u64* entry = &table[level_index(addr, level)];
    if (level == PTE_LEVEL) {
      store(entry, shared_->word(uniform));
      continue;
    }
    const bool whole = next - addr == size && level <= SharedTables::TOP_LEVEL + 1;
    const bool none = kind(*entry, level) == EntryKind::none;
    if (whole && !none && uniform_below(*entry) != Uniform::no) {
      exchange(entry, uniform);
    } else if (whole && none && !may_fail()) {
      if (!populate(entry, level, _PAGE_TABLE, uniform)) return false;
    } else {
      if (none && !populate(entry, level)) return false;
      if (!fill_below(own(entry), level - 1, {addr, next}, uniform)) return false;
      if (whole) share_if_uniform(entry);
    }
  }
  return true;
}

void PageTable::share_below(u64* table, Level level, Range range) {
  const u64 size = level_size(level);
  for (u64 addr = range.start, next; addr < range.end; addr = next) {
    next = std::min(align_down(addr, size) + size, range.end);
    u64* entry = &table[level_index(addr, level)];
    if (kind(*entry, level) != EntryKind::table || uniform_below(*entry) != Uniform::no) continue;
    u64* own_table = below(*entry) ? own(entry) : nullptr;
    if (!own_table) continue;
    if (level > PUD_LEVEL) share_below(own_table, level - 1, {addr, next});
    if (next - addr == size) share_if_uniform(entry);
  }
}

u64 PageTable::own_below(const u64* table, Level level) const {
  u64 own = 1;
  for (unsigned i = 0; level > PTE_LEVEL && i < PTRS_PER_TABLE; ++i) {
    if (kind(table[i], level) != EntryKind::table || uniform_below(table[i]) != Uniform::no)
      continue;
    if (const u64* next = below(table[i])) own += own_below(next, level - 1);
  }
  return own;
}

u64 PageTable::frames_to_map(u64 start, u64 end) const {
  return start == end ? 0 : frames_below(root_table(), levels_, {start, end});
}

/// The same below one table; `table` is nullptr where all of them are missing or shared.
u64 PageTable::frames_below(const u64* table, Level level, Range range) const {
  const u64 first = range.start >> level_shift(level), last = (range.end - 1) >> level_shift(level);
  u64 needed = 0;
  if (!table) {  // a table for each entry on every level below
    for (Level at = level; at > PTE_LEVEL; --at)
      needed += ((range.end - 1) >> level_shift(at)) - (range.start >> level_shift(at)) + 1;
    return needed;
  }
  for (u64 i = first; i <= last; ++i) {
    const u64 entry = table[i % PTRS_PER_TABLE], base = i << level_shift(level);
    const u64* own = uniform_below(entry) == Uniform::no ? below(entry) : nullptr;
    if (kind(entry, level) != EntryKind::table) own = nullptr;
    const Range part{std::max(range.start, base), std::min(range.end, base + level_size(level))};
    needed += !own;
    if (level > PMD_LEVEL) needed += frames_below(own, level - 1, part);
  }
  return needed;
}

void PageTable::exchange(u64* entry, Uniform uniform, u64 nr) {
  const Pfn old = (*entry & PTE_PFN_MASK) >> PAGE_SHIFT;
  const Pfn now = shared_->take(uniform, frames_->info(old).level, nr);
  shared_->drop(old, nr);
  frames_->will_store(entry, nr);
  std::fill_n(entry, nr, (now << PAGE_SHIFT) | (*entry & ~PTE_PFN_MASK));
}

void PageTable::share_if_uniform(u64* entry) {
  const Pfn pfn = (*entry & PTE_PFN_MASK) >> PAGE_SHIFT;
  const FrameInfo info = frames_->info(pfn);
  if (info.uniform != Uniform::no || info.level > SharedTables::TOP_LEVEL) return;
  const u64* const table = frames_->table(pfn);
  const Uniform uniform =
      info.level == PTE_LEVEL ? shared_->uniform_of(*table) : uniform_below(*table);
  if (uniform == Uniform::no || *table != shared_->entry_of(uniform, info.level)) return;
  // The middle first: most tables that begin alike differ there.
  const unsigned last = PTRS_PER_TABLE - 1 - planted(Mutant::shared_though_last_differs);
  if (table[PTRS_PER_TABLE / 2] != *table || table[last] != *table) return;
  if (!std::equal(table + 1, table + last + 1, table)) return;
  shared_->drop_all(uniform, info.level);
  frames_->free(pfn);
  store(entry, (shared_->take(uniform, info.level) << PAGE_SHIFT) | (*entry & ~PTE_PFN_MASK));
}

u64* PageTable::deposit_table(u64* entry) {
  const Pfn pfn = frames_->alloc_beyond_limit(PTE_LEVEL);
  frames_->will_fill(pfn);
  store(entry, (pfn << PAGE_SHIFT) | _PAGE_TABLE);
  ++counts().tables;
  return frames_->table(pfn);
}

/// Frees the table below `entry`; what hangs below that went before, unless it is shared.
void PageTable::free_table(u64* entry) {
  const Pfn pfn = (*entry & PTE_PFN_MASK) >> PAGE_SHIFT;
  const FrameInfo info = frames_->info(pfn);
  store(entry, 0);
  if (info.uniform == Uniform::no) {
    frames_->free(pfn);
    --counts().tables;
  } else {
    shared_->drop(pfn);
    counts().tables -= tables_in(info.level);
  }
}

void PageTable::free_below(u64* table, Level level, Range span, u64 base, Range bounds) {
  const u64 size = level_size(level);
  const u64 last = (span.end - 1 - base) >> level_shift(level);
  // Downwards, so that the frames are handed out again in the order of addresses.
  for (u64 i = std::min<u64>(last, PTRS_PER_TABLE - 1) + 1; i-- > level_index(span.start, level);) {
    u64* entry = &table[i];
    if (kind(*entry, level) != EntryKind::table || !below(*entry)) continue;
    const u64 lo = base + i * size;
    const Range part{std::max(span.start, lo), std::min(span.end, lo + size)};
    const bool whole = lo >= bounds.start && lo + size <= bounds.end;
    const bool shared = uniform_below(*entry) != Uniform::no;
    if (level > PMD_LEVEL && !(whole && shared))
      free_below(own(entry), level - 1, part, lo, bounds);
    if (whole) free_table(entry);
  }
}

void PageTable::free_range(u64 start, u64 end, u64 floor, u64 ceiling) {
  // Most often a neighbour needs every table of the range.
  const u64 low = std::max(align_down(start, PMD_SIZE), align_up(floor, PMD_SIZE));
  const u64 high = std::min(align_up(end, PMD_SIZE), align_down(ceiling, PMD_SIZE));
  if (start < end && low < high)
    free_below(root_table(), levels_, {start, end}, 0, {floor, ceiling});
}

void PageTable::free_pte_table(u64* pmd) { free_table(pmd); }

void PageTable::free_all() {
  // One past the last user address of 4 levels may wrap at the top entry: bound by the root's
  // reach.
  const u64 reach = levels_ == 5 ? 1ull << 57 : 1ull << 48;
  free_range(0, reach, 0, reach);
  frames_->free(root_);
}

}  // namespace ptwalk
