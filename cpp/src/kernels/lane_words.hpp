// Entries in vectors: the steps that lane_kernel.hpp strings together, written with the vector
// extensions that GCC and Clang share. Whoever includes it says for which processor:
//   PTWALK_LANE_BYTES  the size of a vector, 16 or 32
//   PTWALK_TARGET      attributes of every function
// What becomes of a word by the masks of LaneRules, and what the TLB must hear. Models the single
// steps of scalar.cpp.
#pragma once

#include <cstring>

#if PTWALK_LANE_BYTES == 32
#include <immintrin.h>
#endif

#include "ptwalk/kernels.hpp"

#define PTWALK_INLINE PTWALK_TARGET __attribute__((always_inline)) inline
#define PTWALK_NOINLINE PTWALK_TARGET __attribute__((noinline))
#define PTWALK_VECTOR __attribute__((vector_size(PTWALK_LANE_BYTES)))

namespace ptwalk {
namespace {

using U16 PTWALK_VECTOR = u16;
using U32 PTWALK_VECTOR = u32;
using U64 PTWALK_VECTOR = u64;
using I32 PTWALK_VECTOR = std::int32_t;
using I64 PTWALK_VECTOR = i64;

constexpr u32 LANES = PTWALK_LANE_BYTES / sizeof(u64);
constexpr u32 GROUP = 4 * LANES;  ///< entries of four vectors, lanes of 16 bits in one

PTWALK_INLINE U64 load(const u64* p) {
  U64 v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
PTWALK_INLINE void store(u64* p, U64 v) { std::memcpy(p, &v, sizeof v); }
PTWALK_INLINE U64 all(u64 word) { return U64{} + word; }

// What processors do in different ways: whether a bit is set, a choice by one bit of each word, the
// even and odd halves of two vectors of words in any order, lanes of 16 bits from `a` and `b` in
// turns (from the lowest of `a`).
#if PTWALK_LANE_BYTES == 32
/// Bit i: lane i is not zero.
PTWALK_INLINE u32 lanes_of(U64 v) { return u32(~_mm256_movemask_pd((__m256d)(v == 0))) & 15; }
PTWALK_INLINE bool any(U64 v) { return !_mm256_testz_si256((__m256i)v, (__m256i)v); }
template <unsigned BIT>
PTWALK_INLINE U64 choose(U64 word, U64 yes, U64 no) {
  return (U64)_mm256_blendv_pd((__m256d)no, (__m256d)yes, (__m256d)(word << (63 - BIT)));
}
PTWALK_INLINE U32 even_halves(U64 a, U64 b) {
  return (U32)_mm256_shuffle_ps((__m256)a, (__m256)b, 0x88);
}
PTWALK_INLINE U32 odd_halves(U64 a, U64 b) {
  return (U32)_mm256_shuffle_ps((__m256)a, (__m256)b, 0xdd);
}
PTWALK_INLINE U16 in_turns(U16 a, U16 b) {
  return (U16)_mm256_blend_epi16((__m256i)a, (__m256i)b, 0xaa);
}
#else
PTWALK_INLINE u32 lanes_of(U64 v) { return u32(v[0] != 0) | u32(v[1] != 0) << 1; }
PTWALK_INLINE bool any(U64 v) { return (v[0] | v[1]) != 0; }
template <unsigned BIT>
PTWALK_INLINE U64 choose(U64 word, U64 yes, U64 no) {
  const U64 mask = U64{} - (word >> BIT & 1);
  return (yes & mask) | (no & ~mask);
}
PTWALK_INLINE U32 even_halves(U64 a, U64 b) {
  return __builtin_shufflevector((U32)a, (U32)b, 0, 2, 4, 6);
}
PTWALK_INLINE U32 odd_halves(U64 a, U64 b) {
  return __builtin_shufflevector((U32)a, (U32)b, 1, 3, 5, 7);
}
PTWALK_INLINE U16 in_turns(U16 a, U16 b) {
  constexpr u32 FIRST = __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? 0xffff : 0xffff0000;
  return (U16)(((U32)a & FIRST) | ((U32)b & ~FIRST));
}
#endif

/// Four vectors: the words of one group.
struct Group {
  U64 v[4];
};

PTWALK_INLINE Group load_group(const u64* p) {
  return {{load(p), load(p + LANES), load(p + 2 * LANES), load(p + 3 * LANES)}};
}
PTWALK_INLINE void store_group(u64* p, const Group& group) {
  for (u32 i = 0; i < 4; ++i) store(p + i * LANES, group.v[i]);
}
/// Asks for the cache lines of a group that is soon changed: hardware stops asking at pages' ends.
PTWALK_INLINE void prefetch_group(const u64* p) {
  __builtin_prefetch(p, 1);
  __builtin_prefetch(p + GROUP / 2, 1);
}
PTWALK_INLINE U64 any_of(const Group& g) { return (g.v[0] | g.v[1]) | (g.v[2] | g.v[3]); }
PTWALK_INLINE U64 all_of(const Group& g) { return (g.v[0] & g.v[1]) & (g.v[2] & g.v[3]); }

/// How entries with P change.
enum class Form : u8 {
  stay,
  out,
  out_if_written,
  in_if_closed,  ///< without an upgrade, as DirtyMove says
  upgraded,
};
/// How words without P change.
enum class Absent : u8 {
  nowhere,  ///< there are none
  disarm,   ///< swap words lose a bit
  drop,     ///< the same, and negative markers become none
  arm,      ///< swap words get a bit, none becomes what the plan says
  arm_all,  ///< the same, and the marker is that bit
};

/// What is the same for all words of a span, in vectors.
struct Masks {
  U64 keep, flip, saved, swp_bit, none_becomes;
  PTWALK_INLINE Masks(const LeafPlan& plan, bool upgraded)
      : keep(all(upgraded ? plan.lanes.up_keep : plan.lanes.keep)),
        flip(all(upgraded ? plan.lanes.up_flip : plan.lanes.flip)),
        saved(all(plan.saved_dirty)),
        swp_bit(all(plan.lanes.swp_bit)),
        none_becomes(all(plan.lanes.none_becomes)) {}
};

constexpr int DIRTY_SHIFT = 52;  ///< from D (bit 6) to SAVED_DIRTY (bit 58)
constexpr int RW_TO_SAVED = 57;

/// change_present() and upgraded() of entries with P, by lanes.
template <Form FORM>
PTWALK_INLINE U64 changed(const Masks& m, U64 old) {
  U64 now = (old & m.keep) ^ m.flip;
  const U64 written = old << RW_TO_SAVED;
  if constexpr (FORM == Form::upgraded) {
    now |= (old & m.saved) >> DIRTY_SHIFT;
  } else if constexpr (FORM == Form::out) {  // D is not in `keep`
    now |= (old & u64(_PAGE_DIRTY)) << DIRTY_SHIFT;
  } else if constexpr (FORM == Form::out_if_written) {
    const U64 saved = (now << DIRTY_SHIFT) & written & m.saved;
    now = (now ^ (saved >> DIRTY_SHIFT)) | saved;
  } else if constexpr (FORM == Form::in_if_closed) {
    const U64 saved = now & m.saved & ~written;
    now = (now ^ saved) | (saved >> DIRTY_SHIFT);
  }
  return now;
}

/// Plain words, `present` being what becomes of those with P. Among the others only markers of swap
/// type are negative, and only none is zero.
template <Absent ABSENT>
PTWALK_INLINE U64 changed_words(const Masks& m, U64 old, U64 present) {
  U64 word = old;
  if constexpr (ABSENT == Absent::nowhere)
    return present;
  else if constexpr (ABSENT == Absent::disarm)
    word = old & ~m.swp_bit;
  else if constexpr (ABSENT == Absent::drop)
    word = choose<63>(old, U64{}, old & ~m.swp_bit);
  else if constexpr (ABSENT == Absent::arm_all)
    word = old | m.swp_bit;
  else
    word = old | choose<63>((U64)((I64)old > 0), m.swp_bit, m.none_becomes);
  return choose<0>(old, present, word);
}

/// Words whose change the TLB must hear of; frames change only as P goes. (needs_flush)
PTWALK_INLINE U64 flush_lanes(U64 old, U64 now) {
  constexpr u64 ON_CLEAR = _PAGE_PRESENT | _PAGE_DIRTY;
  constexpr u64 ON_CHANGE = _PAGE_RW | _PAGE_USER | _PAGE_PWT | _PAGE_PCD | _PAGE_PSE |
                            _PAGE_GLOBAL | _PAGE_PKEY_MASK | _PAGE_NX;
  return (old ^ now) & ((old & ON_CLEAR) | ON_CHANGE) & (U64{} - (old & _PAGE_PRESENT));
}

}  // namespace
}  // namespace ptwalk
