// Reading the tables: entries, levels, walks, translation, counts. Nothing here changes anything. A
// PMD or PUD leaf reads as the entry of each of its pages; an absent table reads as none.
#include <algorithm>

#include "ptwalk/address_space.hpp"

namespace ptwalk {
namespace {

/// Calls visit(end_of_walk, addr, pages) for each extent of [start, start + 4096 * nr) that lies
/// under one PTE table or under one entry above it.
template <class Visit>
void for_each_extent(const PageTable& tables, u64 start, u64 nr, Visit visit) {
  const u64 end = start + (nr << PAGE_SHIFT);
  for (u64 addr = start; addr < end;) {
    const WalkEnd at = tables.walk(addr);
    const u64 size = level_size(std::max(at.level, PMD_LEVEL));
    const u64 next = std::min(end, align_down(addr, size) + size);
    visit(at, addr, (next - addr) >> PAGE_SHIFT);
    addr = next;
  }
}

u64& counter(EntryCounts& counts, const Profile& p, u64 entry) {
  if (pte_none(entry)) return counts.none;
  if (pte_present(entry)) return counts.present;
  if (p.is_marker(entry)) return counts.marker;
  switch (p.swp_kind(entry)) {
    case SwpKind::hwpoison: return counts.hwpoison;
    case SwpKind::migration_read:
    case SwpKind::migration_read_exclusive:
    case SwpKind::migration_write: return counts.migration;
    case SwpKind::device_private_read:
    case SwpKind::device_private_write:
    case SwpKind::device_exclusive_read:
    case SwpKind::device_exclusive_write: return counts.device;
    default: return counts.swap;
  }
}

}  // namespace

void AddressSpace::ptes(u64 start, std::span<u64> out) const {
  for_each_extent(tables, start, out.size(), [&](WalkEnd at, u64 addr, u64 nr) {
    u64* const to = out.data() + ((addr - start) >> PAGE_SHIFT);
    if (at.level == PTE_LEVEL)
      std::copy_n(at.entry, nr, to);
    else
      std::fill_n(to, nr, tables.kind(*at.entry, at.level) == EntryKind::leaf ? *at.entry : 0);
  });
}

void AddressSpace::levels(u64 start, std::span<u8> out) const {
  for_each_extent(tables, start, out.size(), [&](WalkEnd at, u64 addr, u64 nr) {
    std::fill_n(out.data() + ((addr - start) >> PAGE_SHIFT), nr, u8(at.level));
  });
}

void AddressSpace::translate(std::span<const u64> addrs, std::span<u64> out) const {
  for (std::size_t i = 0; i < addrs.size(); ++i) {
    out[i] = ~0ull;
    if (addrs[i] >= task_size()) continue;
    const WalkEnd at = tables.walk(addrs[i]);
    // A 1 GiB leaf is bad to early profiles, but the MMU translates it all the same.
    const bool leaf = at.level <= PUD_LEVEL && (*at.entry & _PAGE_PSE);
    if (at.level == PTE_LEVEL ? pte_present(*at.entry) : leaf && pmd_present(*at.entry))
      out[i] = leaf_address(*at.entry, at.level) | (addrs[i] & (level_size(at.level) - 1));
  }
}

std::vector<WalkStep> AddressSpace::walk(u64 addr) const {
  std::vector<WalkStep> steps;
  const u64* table = tables.root_table();
  for (Level level = tables.levels(); table; --level) {
    const unsigned index = level_index(addr, level);
    steps.push_back({level, index, table[index]});
    if (level == PTE_LEVEL || tables.kind(table[index], level) != EntryKind::table) break;
    table = tables.below(table[index]);
  }
  return steps;
}

EntryCounts AddressSpace::count(u64 start, u64 length) const {
  EntryCounts counts;
  for_each_extent(tables, start, length >> PAGE_SHIFT, [&](WalkEnd at, u64, u64 nr) {
    if (at.level == PTE_LEVEL) {
      for (u64 i = 0; i < nr; ++i) ++counter(counts, profile(), at.entry[i]);
    } else if (tables.kind(*at.entry, at.level) != EntryKind::leaf) {
      counts.none += nr;
    } else if (pmd_present(*at.entry)) {
      counts.huge += nr;
    } else {
      counter(counts, profile(), *at.entry) += nr;
    }
  });
  return counts;
}

}  // namespace ptwalk
