// Where neighbouring frames agree: a window of page frames that are all AnonExclusive, or none of
// them, so that a kernel can judge many entries by one comparison. Reads PagePool's bit array only;
// has no counterpart in the kernel, which asks page by page (PageAnonExclusive, v6.18).
#pragma once

#include <algorithm>
#include <bit>
#include <span>

#include "ptwalk/page.hpp"
#include "ptwalk/pte.hpp"

namespace ptwalk {

/// A run of frames that are all AnonExclusive, or none of them.
struct ExclusiveWindow {
  static constexpr u64 AFTER = 512, BEFORE = 32;  ///< how far to look; order need not ascend
  enum class Answer : u8 { unknown, every, nobody };
  u64 start = 0;
  u64 outside = PTE_PFN_MASK;  ///< bits of an address relative to `start` that lie beyond the end
  Answer answer = Answer::unknown;
  u32 misses = 0;  ///< how often it had to move

  /// Moves to where the first present entry of a few points.
  void move(std::span<const u64> ptes, const PagePool& pages) {
    ++misses;
    const auto first =
        std::find_if(ptes.begin(), ptes.end(), [](u64 v) { return v & _PAGE_PRESENT; });
    if (first == ptes.end()) return;
    const Pfn pfn = (*first & PTE_PFN_MASK) >> PAGE_SHIFT;
    const bool exclusive = pages.anon_exclusive(pfn);
    // Bits of the word that holds `at`, those equal to the first page's cleared.
    const auto unlike = [&](Pfn at) {
      return pages.exclusive_word(at / 64) ^ (exclusive ? ~0ull : 0);
    };
    const u64 before = u64(std::countl_zero(unlike(pfn) << (63 - pfn % 64)));
    start = pfn - std::min({before - 1, pfn % 64, BEFORE});
    Pfn end = pfn + u64(std::countr_zero(unlike(pfn) >> (pfn % 64)));
    end = std::min(end, align_up(pfn + 1, 64));
    while (end % 64 == 0 && end < pfn + AFTER) {
      const u64 more = u64(std::countr_zero(unlike(end)));
      end += more;
      if (more == 0) break;
    }
    outside = PTE_PFN_MASK & ~((std::bit_floor(end - start) - 1) << PAGE_SHIFT);
    answer = exclusive ? Answer::every : Answer::nobody;
  }
};

}  // namespace ptwalk
