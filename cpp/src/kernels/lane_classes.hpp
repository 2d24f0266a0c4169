// Which classes the entries of a span have: a look that changes nothing. Included by
// lane_kernel.hpp only. Models the order of tests of scalar.cpp as far as the classes of LeafFacts
// go.
#pragma once

#include "lane_words.hpp"

namespace ptwalk {
namespace {

/// Sum of all lanes, as long as it is below 2^16.
PTWALK_INLINE u32 sum_of(U16 lanes) {
  const U32 pairs = ((U32)lanes & 0xffff) + ((U32)lanes >> 16);
  const U64 fours = ((U64)pairs & 0xffffffff) + ((U64)pairs >> 32);
  u64 sum = 0;
  for (u32 i = 0; i < LANES; ++i) sum += fours[i];
  return u32(sum);
}

/// Counts of groups, in lanes: a table is too small to overflow them.
struct Sums {
  U16 present{}, marker{}, with_bit{};
  U16 none{};  ///< and markers that are nothing but the uffd-wp bit
};

/// Constants of classify(). From memory, for compilers would make them anew for each group.
struct ClassMasks {
  U32 marker_low, marker_high, no_bit;
  U16 present, stray, sign, with_bit;
  PTWALK_NOINLINE explicit ClassMasks(u64 marker)
      : marker_low(U32{} + u32(marker)),
        marker_high(U32{} + u32(marker >> 32)),
        no_bit(U32{} + u32(~_PAGE_SWP_UFFD_WP)),
        present(U16{} + u16(_PAGE_PRESENT)),
        stray(U16{} + u16(_PAGE_PROTNONE | ERRATUM_MASK)),
        sign(U16{} + u16(0x8000)),
        with_bit(U16{} + u16(_PAGE_SWP_UFFD_WP)) {}
};

/// Adds the classes of a group. Looks at the outer 16 bits of its words where that will do, for it
/// is four times cheaper than at all 64. False: not all are plain, and nothing was added.
PTWALK_INLINE bool classify(const ClassMasks& m, const Group& g, Sums& sums) {
  const U32 low[] = {even_halves(g.v[0], g.v[1]), even_halves(g.v[2], g.v[3])};
  const U32 high[] = {odd_halves(g.v[0], g.v[1]), odd_halves(g.v[2], g.v[3])};
  const U16 bottom = in_turns((U16)low[0], (U16)(low[1] << 16));
  const U16 top = in_turns((U16)(high[0] >> 16), (U16)high[1]);
  U32 is_none[2], is_marker[2];
  for (int i = 0; i < 2; ++i) {
    is_none[i] = (U32)(((low[i] & m.no_bit) | high[i]) == 0);
    is_marker[i] = (U32)(low[i] == m.marker_low) & (U32)(high[i] == m.marker_high);
  }
  const U16 present = bottom & m.present;
  const U16 absent = present - u16(1);
  const U16 flags = bottom & absent;
  const U16 marker = in_turns((U16)is_marker[0], (U16)is_marker[1]);
  const U16 none = in_turns((U16)is_none[0], (U16)is_none[1]);
  const U16 with_bit = flags & m.with_bit;
  const U16 rare = (((top & absent & m.sign) | (none & with_bit)) & ~marker) | (flags & m.stray);
  if (any((U64)rare)) return false;
  sums.present += present;
  sums.none -= none;
  sums.marker -= marker;
  sums.with_bit += with_bit;
  return true;
}

/// What was found in the plain groups of a span.
struct Found {
  u32 nr = 0;  ///< entries of these groups
  u32 present = 0, none = 0, marker = 0, armed = 0;
  u64 rare = 0;  ///< bit i: group i is not plain, and not counted
};

/// Groups from `at` on all of whose words are `word`; where they end.
PTWALK_INLINE u32 run_of_word(const u64* ptes, u32 at, u32 end, u64 word) {
  const U64 wanted = all(word);
  for (; at < end; ++at) {
    Group rest = load_group(ptes + at * GROUP);
    for (U64& v : rest.v) v ^= wanted;
    if (any(any_of(rest))) break;
  }
  return at;
}

/// Groups from `at` on all of whose words have P; where they end.
PTWALK_INLINE u32 run_of_present(const u64* ptes, u32 at, u32 end) {
  for (; at < end; ++at)
    if (any(~all_of(load_group(ptes + at * GROUP)) & u64(_PAGE_PRESENT))) break;
  return at;
}

/// Groups of one class each, from the front until one is mixed; where they end.
PTWALK_INLINE u32 find_runs(const u64* ptes, u32 groups, u64 marker, Found& found) {
  u32 at = 0;
  while (at < groups) {
    const u64 first = ptes[at * GROUP];
    const u32 from = at;
    u32* count = &found.present;
    if (first & _PAGE_PRESENT) {
      at = run_of_present(ptes, at, groups);
    } else if (first == 0 || first == marker) {
      count = first == 0 ? &found.none : &found.marker;
      at = run_of_word(ptes, at, groups, first);
    }
    if (at == from) break;
    *count += (at - from) * GROUP;
  }
  return at;
}

/// A look at all groups: by their class as long as they have one each, then entry by entry.
PTWALK_NOINLINE Found find_classes(const u64* ptes, u32 groups, u64 marker) {
  constexpr u64 NO_WORD = ~0ull;  // has P, so that no word without P is it
  Found found;
  u32 at = find_runs(ptes, groups, marker, found);
  found.nr = at * GROUP;
  if (at == groups) return found;
  const ClassMasks m(marker ? marker : NO_WORD);
  Sums sums;
  for (; at < groups; ++at) {
    if (classify(m, load_group(ptes + at * GROUP), sums))
      found.nr += GROUP;
    else
      found.rare |= 1ull << at;
  }
  const u32 markers = marker ? sum_of(sums.marker) : 0;
  const u32 with_bit = sum_of(sums.with_bit) / _PAGE_SWP_UFFD_WP;
  found.present += sum_of(sums.present);
  found.none += sum_of(sums.none) - (marker == _PAGE_SWP_UFFD_WP ? markers : 0);
  found.marker += markers;
  found.armed = with_bit - (marker & _PAGE_SWP_UFFD_WP ? markers : 0);
  return found;
}

}  // namespace
}  // namespace ptwalk
