// Where neighbouring frames agree: a block of page frames that are all AnonExclusive, or none of
// them, so that a kernel can judge many entries by one comparison. Reads PagePool's bit array only;
// has no counterpart in the kernel, which asks page by page (PageAnonExclusive, v6.18).
#pragma once

#include <bit>

#include "ptwalk/page.hpp"
#include "ptwalk/pte.hpp"

namespace ptwalk {

/// What all frames of a range are.
enum class Exclusive : u8 { unknown, every, nobody };

/// Of `nr` frames from `first` on, both multiples of 64.
inline Exclusive exclusive_among(Pfn first, u64 nr, const PagePool& pages) {
  const u64 wanted = pages.exclusive_word(first / 64);
  if ((wanted && ~wanted) || !pages.exclusive_words_are(wanted, first / 64, nr / 64))
    return Exclusive::unknown;
  return wanted ? Exclusive::every : Exclusive::nobody;
}

/// An aligned block of frames that are all AnonExclusive, or none of them.
struct ExclusiveWindow {
  static constexpr unsigned LEAST_ORDER = 4, WORD_ORDER = 6, MOST_ORDER = 12;
  u64 start = 0;               ///< address of the first frame
  u64 outside = PTE_PFN_MASK;  ///< address bits by which an entry lies outside
  Exclusive answer = Exclusive::unknown;
  u32 moves = 0;

  /// Moves to the largest block around `pfn`; nowhere if that is too small.
  void move(Pfn pfn, const PagePool& pages) {
    ++moves;
    const u64 word = pages.exclusive_word(pfn / 64);
    const u64 wanted = word >> (pfn % 64) & 1 ? ~0ull : 0;
    const u64 least = align_down(pfn, 1 << LEAST_ORDER);
    if (u16((word ^ wanted) >> (least % 64))) return set(0, 0, Exclusive::unknown);
    unsigned size = word == wanted ? WORD_ORDER : LEAST_ORDER;
    while (size >= WORD_ORDER && size < MOST_ORDER &&
           all_are(wanted, align_down(pfn, 1ull << size) ^ 1ull << size, size, pages))
      ++size;
    set(pfn, size, wanted ? Exclusive::every : Exclusive::nobody);
  }

 private:
  void set(Pfn pfn, unsigned of_order, Exclusive known) {
    start = align_down(pfn, 1ull << of_order) << PAGE_SHIFT;
    outside = PTE_PFN_MASK & ~(((1ull << of_order) - 1) << PAGE_SHIFT);
    answer = known;
  }
  static bool all_are(u64 wanted, Pfn block, unsigned of_order, const PagePool& pages) {
    return pages.exclusive_words_are(wanted, block / 64, 1ull << (of_order - WORD_ORDER));
  }
};

}  // namespace ptwalk
