// What is known about the words of a whole PTE table: the result of one look at them, kept until
// somebody stores. With it a kernel changes the table without telling its entries apart again. No
// counterpart in the kernel, which asks entry by entry.
#pragma once

#include <span>

#include "ptwalk/page.hpp"

namespace ptwalk {

/// A table all of whose words are plain: with P, none, the usual marker, or of a swap file.
/// PROT_NONE and stray bits, migration, device and other special entries are not, nor is a swap
/// word without any bit but uffd-wp, which would become none.
struct LeafFacts {
  static constexpr unsigned BLOCK_SHIFT = 8;  ///< frames are named in blocks of so many
  static constexpr u32 MOST_BLOCKS = 64;

  bool known = false;  ///< false: nobody looked, or there is a word that is not plain
  bool alike = false;  ///< all words have P, and are the same but for their frames
  u8 blocks = 0;       ///< 0: not known; otherwise every entry with P is not SPECIAL and its frame
                       ///< lies in so many blocks from first_frame() on
  u16 present = 0, none = 0, marker = 0;
  u16 armed = 0;  ///< swap entries with the uffd-wp bit
  u16 first_low = 0, first_high = 0;
  u16 clears[3] = {0xffff, 0xffff, 0xffff};  ///< a count, lowest first; such a one is never reached

  [[nodiscard]] Pfn first_frame() const {
    return (Pfn(first_high) << 16 | first_low) << BLOCK_SHIFT;
  }
  [[nodiscard]] u64 frames() const { return u64(blocks) << BLOCK_SHIFT; }
  /// Notes the first and the last block, if they are near.
  void set_blocks(u32 first, u32 last) {
    blocks = last - first < MOST_BLOCKS ? u8(last - first + 1) : u8(0);
    first_low = u16(first);
    first_high = u16(first >> 16);
  }
  /// Whether the page of every entry with P is AnonExclusive for sure: it was when somebody asked,
  /// and no page near them has ceased to be. Needs blocks.
  [[nodiscard]] bool all_exclusive(const PagePool& pages) const {
    const u64 counted = u64(clears[2]) << 32 | u64(clears[1]) << 16 | clears[0];
    return counted == pages.exclusive_clears(first_frame(), frames());
  }
  /// Notes that it is.
  void set_all_exclusive(const PagePool& pages) {
    const u64 count = pages.exclusive_clears(first_frame(), frames());
    for (unsigned i = 0; i < 3; ++i) clears[i] = u16(count >> 16 * i);
  }
};

/// The facts of a table whose usual marker is `marker` (0: there is none). Entry by entry: what
/// kernels find out in their own ways.
[[nodiscard]] LeafFacts leaf_facts(std::span<const u64> ptes, u64 marker, const PagePool& pages);
/// Whether what `facts` say holds for a table.
[[nodiscard]] bool facts_hold(const LeafFacts& facts, std::span<const u64> ptes, u64 marker,
                              const PagePool& pages);
/// Whether the page of every entry with P is AnonExclusive.
[[nodiscard]] bool every_page_exclusive(std::span<const u64> ptes, const PagePool& pages);

}  // namespace ptwalk
