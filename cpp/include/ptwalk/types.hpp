// Integer names, page and table geometry, ranges. Everything else includes this file.
// Models the constants of arch/x86/include/asm/page_types.h and pgtable_64_types.h (v6.18);
// 4 and 5 paging levels only, 4 KiB base pages only.
#pragma once

#include <cstddef>
#include <cstdint>

namespace ptwalk {

using u8 = std::uint8_t;
using u16 = std::uint16_t;
using u32 = std::uint32_t;
using u64 = std::uint64_t;
using i64 = std::int64_t;

/// Page frame number: physical address >> 12. (include/linux/pfn.h)
using Pfn = u64;

inline constexpr unsigned PAGE_SHIFT = 12;
inline constexpr unsigned PTRS_PER_TABLE = 512;
inline constexpr u64 PAGE_SIZE = 1ull << PAGE_SHIFT;
inline constexpr u64 PMD_SIZE = 1ull << 21;
inline constexpr u64 PUD_SIZE = 1ull << 30;

/// Paging level of an entry: 1 pte, 2 pmd, 3 pud, 4 p4d (the top with 4 levels), 5 pgd.
using Level = int;
inline constexpr Level PTE_LEVEL = 1;
inline constexpr Level PMD_LEVEL = 2;
inline constexpr Level PUD_LEVEL = 3;
inline constexpr Level P4D_LEVEL = 4;

/// log2 of the bytes that one entry of `level` maps.
constexpr unsigned level_shift(Level level) { return PAGE_SHIFT + 9u * unsigned(level - 1); }
/// Bytes that one entry of `level` maps.
constexpr u64 level_size(Level level) { return 1ull << level_shift(level); }
/// Index of the entry of `level` that maps `addr`.
constexpr unsigned level_index(u64 addr, Level level) {
  return unsigned(addr >> level_shift(level)) & (PTRS_PER_TABLE - 1);
}

constexpr u64 align_down(u64 value, u64 size) { return value & ~(size - 1); }
constexpr u64 align_up(u64 value, u64 size) { return (value + size - 1) & ~(size - 1); }
constexpr bool is_aligned(u64 value, u64 size) { return (value & (size - 1)) == 0; }

/// End of the user address space. (TASK_SIZE_MAX, arch/x86/include/asm/page_64.h, v6.18)
constexpr u64 task_size(int levels) { return (1ull << (levels == 5 ? 56 : 47)) - PAGE_SIZE; }

/// Lowest mappable address: the default of vm.mmap_min_addr.
inline constexpr u64 MMAP_MIN_ADDR = 65536;

/// A half-open range of bytes; empty when start == end.
struct Range {
  u64 start = 0;
  u64 end = 0;
  [[nodiscard]] constexpr bool empty() const { return start == end; }
  bool operator==(const Range&) const = default;
};

}  // namespace ptwalk
