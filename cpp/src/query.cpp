// Reading the tables: entries, levels, walks, translation, counts. Nothing here changes anything. A
// PMD or PUD leaf reads as the entry of each of its pages; an absent table reads as none.
#include <algorithm>

#if defined(__x86_64__)
#include <emmintrin.h>
#endif

#include "ptwalk/address_space.hpp"

namespace ptwalk {
namespace {

/// Calls visit(extent, addr, pages) for each extent of [start, start + 4096 * nr).
template <class Visit>
void for_each_extent(const PageTable& tables, u64 start, u64 nr, Visit visit) {
  const u64 end = start + (nr << PAGE_SHIFT);
  for (u64 addr = start; addr < end;) {
    const Extent at = tables.extent(addr, end);
    visit(at, addr, (at.end - addr) >> PAGE_SHIFT);
    addr = at.end;
  }
}

/// What a page of a uniform extent reads as: above the PTE level only a leaf has a word.
u64 word_of(const PageTable& tables, const Extent& at) {
  const bool has_word =
      at.level == PTE_LEVEL || tables.kind(*at.entry, at.level) == EntryKind::leaf;
  return has_word ? *at.entry : 0;
}

/// From so many entries on, 4 MiB, an export goes past the caches, which it would only wash out.
constexpr std::size_t LARGE_EXPORT = 1 << 19;

/// Copies a whole table past the caches; publish_stream() makes it seen by other threads.
void stream_table(u64* to, const u64* from) {
#if defined(__x86_64__)
  constexpr u64 LINE = 8;
  if (reinterpret_cast<std::uintptr_t>(to) % 16 == 0) {
    for (u64 i = 0; i < PTRS_PER_TABLE; i += LINE) {
      __m128i words[LINE / 2];
      for (u64 j = 0; j < LINE / 2; ++j)
        words[j] = _mm_load_si128(reinterpret_cast<const __m128i*>(from + i) + j);
      for (u64 j = 0; j < LINE / 2; ++j)
        _mm_stream_si128(reinterpret_cast<__m128i*>(to + i) + j, words[j]);
    }
    return;
  }
#endif
  std::copy_n(from, PTRS_PER_TABLE, to);
}

void publish_stream() {
#if defined(__x86_64__)
  _mm_sfence();
#endif
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

/// Many addresses at once: the PMD table of the last GiB is remembered, as by a processor's
/// paging-structure cache, and entries are fetched ahead of their use.
class Translation {
 public:
  Translation(const PageTable& tables, u64 task_size)
      : tables_(tables),
        task_size_(task_size),
        image_(tables.frames().image()),
        rows_(tables.frames().rows()) {}

  void apply(std::span<const u64> addrs, std::span<u64> out) {
    constexpr std::size_t BATCH = 32;
    const u64* entries[BATCH];
    for (std::size_t first = 0; first < addrs.size(); first += BATCH) {
      const std::size_t nr = std::min(BATCH, addrs.size() - first);
      for (std::size_t i = 0; i < nr; ++i) {
        entries[i] = pte(addrs[first + i]);
        __builtin_prefetch(entries[i]);
      }
      for (std::size_t i = 0; i < nr; ++i) {
        const u64 addr = addrs[first + i];
        out[first + i] = entries[i] ? page(*entries[i], addr) : walked(addr);
      }
    }
  }

 private:
  static u64 page(u64 pte, u64 addr) {
    if (!pte_present(pte)) return ~0ull;
    return leaf_address(pte, PTE_LEVEL) | (addr & (PAGE_SIZE - 1));
  }
  /// The PTE of `addr` where plain table entries lead to one; nullptr: walk.
  const u64* pte(u64 addr) {
    if (addr >= task_size_) return nullptr;
    if (addr >> 30 != gib_) {
      const u64* pmd = tables_.find(addr, PMD_LEVEL);
      if (!pmd) return nullptr;
      gib_ = addr >> 30;
      pmd_table_ = pmd - level_index(addr, PMD_LEVEL);
    }
    const u64 pmd = pmd_table_[level_index(addr, PMD_LEVEL)];
    if ((pmd & ~PTE_PFN_MASK) != _PAGE_TABLE) return nullptr;
    // A table entry that names a frame names one in use, whose info need not be looked at.
    const u64 row = (pmd >> PAGE_SHIFT) - TABLE_PFN_BASE;
    return row < rows_ ? image_ + row * PTRS_PER_TABLE + level_index(addr, PTE_LEVEL) : nullptr;
  }
  [[nodiscard]] u64 walked(u64 addr) const {
    if (addr >= task_size_) return ~0ull;
    const WalkEnd at = tables_.walk(addr);
    if (at.level == PTE_LEVEL) return page(*at.entry, addr);
    // A 1 GiB leaf is bad to early profiles, but the MMU translates it all the same.
    if (at.level > PUD_LEVEL || !(*at.entry & _PAGE_PSE) || !pmd_present(*at.entry)) return ~0ull;
    return leaf_address(*at.entry, at.level) | (addr & (level_size(at.level) - 1));
  }

  const PageTable& tables_;
  const u64 task_size_;
  const u64* const image_;
  const u64 rows_;
  u64 gib_ = ~0ull;
  const u64* pmd_table_ = nullptr;
};

/// Copies the entries of one part of an export; `streams`: the whole of it is large.
void copy_entries(const PageTable& tables, u64 start, std::span<u64> out, bool streams) {
  for_each_extent(tables, start, out.size(), [&](const Extent& at, u64 addr, u64 nr) {
    u64* const to = out.data() + ((addr - start) >> PAGE_SHIFT);
    if (at.uniform)
      std::fill_n(to, nr, word_of(tables, at));
    else if (streams && nr == PTRS_PER_TABLE)
      stream_table(to, at.entry);
    else
      std::copy_n(at.entry, nr, to);
  });
  if (streams) publish_stream();
}

}  // namespace

void AddressSpace::ptes(u64 start, std::span<u64> out) const {
  constexpr std::size_t CHUNK = 64 * PTRS_PER_TABLE;
  // Chunks begin where PTE tables do.
  const std::size_t head = (start >> PAGE_SHIFT) % PTRS_PER_TABLE;
  ThreadPool::shared().run(
      machine->threads, (head + out.size() + CHUNK - 1) / CHUNK, [&](std::size_t chunk) {
        const std::size_t first = chunk ? chunk * CHUNK - head : 0;
        const std::size_t last = std::min((chunk + 1) * CHUNK - head, out.size());
        copy_entries(tables, start + (u64(first) << PAGE_SHIFT), out.subspan(first, last - first),
                     out.size() >= LARGE_EXPORT);
      });
}

void AddressSpace::levels(u64 start, std::span<u8> out) const {
  for_each_extent(tables, start, out.size(), [&](const Extent& at, u64 addr, u64 nr) {
    std::fill_n(out.data() + ((addr - start) >> PAGE_SHIFT), nr, u8(at.level));
  });
}

void AddressSpace::translate(std::span<const u64> addrs, std::span<u64> out) const {
  constexpr std::size_t CHUNK = 1 << 14;
  ThreadPool::shared().run(
      machine->threads, (addrs.size() + CHUNK - 1) / CHUNK, [&](std::size_t chunk) {
        const std::size_t first = chunk * CHUNK;
        const std::size_t nr = std::min(CHUNK, addrs.size() - first);
        Translation(tables, task_size()).apply(addrs.subspan(first, nr), out.subspan(first, nr));
      });
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
  for_each_extent(tables, start, length >> PAGE_SHIFT, [&](const Extent& at, u64, u64 nr) {
    if (at.level == PTE_LEVEL) {
      if (at.uniform) counter(counts, profile(), *at.entry) += nr;
      for (u64 i = 0; !at.uniform && i < nr; ++i) ++counter(counts, profile(), at.entry[i]);
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
