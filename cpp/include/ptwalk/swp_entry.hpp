// The swap format of a non-present entry: 5-bit type, 50-bit inverted offset, flag bits 1..3; and
// the table of special types. Models arch/x86/include/asm/pgtable_64.h and
// include/linux/{swap.h,swapops.h}, v5.12 to v6.18. Which types exist depends on the profile and
// its configuration.
#pragma once

#include "ptwalk/pte.hpp"

namespace ptwalk {

inline constexpr unsigned SWP_TYPE_SHIFT = 59;
inline constexpr unsigned SWP_OFFSET_SHIFT = 9;
inline constexpr u64 SWP_OFFSET_MASK = (1ull << 50) - 1;
/// A migration offset keeps the frame in its low bits; young and dirty lie above. (v6.1 on)
inline constexpr u64 SWP_PFN_MASK = (1ull << 40) - 1;

constexpr u64 make_swp_pte(unsigned type, u64 offset) {
  return (u64(type) << SWP_TYPE_SHIFT) | ((~offset & SWP_OFFSET_MASK) << SWP_OFFSET_SHIFT);
}
constexpr unsigned swp_type(u64 v) { return unsigned(v >> SWP_TYPE_SHIFT); }
constexpr u64 swp_offset(u64 v) { return (~v >> SWP_OFFSET_SHIFT) & SWP_OFFSET_MASK; }
/// The same entry under another type: offset and flag bits stay.
constexpr u64 swp_with_type(u64 v, unsigned type) {
  return (v & ~(31ull << SWP_TYPE_SHIFT)) | (u64(type) << SWP_TYPE_SHIFT);
}

static_assert(make_swp_pte(3, 0x1234) == 0x1fffffffffdb9600ull);
static_assert(make_swp_pte(31, 1) == 0xfffffffffffffc00ull);
static_assert(swp_offset(make_swp_pte(0, 0)) == 0);

/// What a swap type means.
enum class SwpKind : u8 {
  swap,
  hwpoison,
  migration_read,
  migration_read_exclusive,
  migration_write,
  device_private_read,
  device_private_write,
  device_exclusive_read,
  device_exclusive_write,
  pte_marker,
  swapin_error,
};

/// Offset bits of a PTE marker. (include/linux/swapops.h, v6.18)
inline constexpr u64 PTE_MARKER_UFFD_WP = 1;
inline constexpr u64 PTE_MARKER_POISONED = 2;
inline constexpr u64 PTE_MARKER_GUARD = 4;

}  // namespace ptwalk
