// Its own file, for it is compiled with AVX2 throughout: GCC 12 does not vectorise such a loop in a
// function with a target attribute.
#include "branch_free.hpp"

using ptwalk::u64;

u64 branch_free(u64* words, std::size_t nr, const ptwalk::LaneRules& rules) {
  const u64 keep = rules.keep, flip = rules.flip, marker = rules.marker;
  const u64 marker_becomes = rules.marker & ~rules.marker_clear, none = rules.none_becomes;
  const u64 armed = rules.arms ? rules.swp_bit : 0, cleared = rules.arms ? 0 : rules.swp_bit;
  u64 pages = 0;
  for (std::size_t i = 0; i < nr; ++i) {
    const u64 old = words[i];
    const u64 swap = (old | armed) & ~cleared;
    const u64 absent = old == marker ? marker_becomes : old == 0 ? none : swap;
    const u64 now = old & 1 ? (old & keep) ^ flip : absent;
    pages += (old & 1) != 0 || now != old ? 1 : 0;
    words[i] = now;
  }
  return pages;
}
