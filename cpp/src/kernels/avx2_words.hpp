// Four entries in an AVX2 vector and sixteen in four: the steps that avx2.cpp strings together.
// What becomes of a word by the masks of LaneRules, which classes a group holds, what the TLB must
// hear. Models the single steps of scalar.cpp; included by avx2.cpp only.
#pragma once

#include <immintrin.h>

#include "ptwalk/kernels.hpp"

#define PTWALK_AVX2 __attribute__((target("avx2")))
#define PTWALK_AVX2_INLINE __attribute__((target("avx2"), always_inline)) inline

namespace ptwalk::avx2 {

using V = __m256i;
using i16 = std::int16_t;
using i32 = std::int32_t;
constexpr u32 GROUP = 16;  ///< entries of four vectors

/// How the present entries of a group change.
enum class Form : u8 {
  stay_marked,  ///< stay, and the marker is the bit that arms swap words
  stay,
  out,
  out_if_written,
  in_if_closed,  ///< without an upgrade, as DirtyMove says
  all_upgraded,
  each,  ///< upgrade by a bit for each entry
};

PTWALK_AVX2_INLINE V all(u64 word) { return _mm256_set1_epi64x(i64(word)); }
PTWALK_AVX2_INLINE V load(const u64* p) {
  return _mm256_loadu_si256(reinterpret_cast<const V*>(p));
}
PTWALK_AVX2_INLINE void store(u64* p, V v) { _mm256_storeu_si256(reinterpret_cast<V*>(p), v); }
/// By the sign of each lane of `mask`.
PTWALK_AVX2_INLINE V choose(V no, V yes, V mask) {
  return _mm256_castpd_si256(_mm256_blendv_pd(_mm256_castsi256_pd(no), _mm256_castsi256_pd(yes),
                                              _mm256_castsi256_pd(mask)));
}
PTWALK_AVX2_INLINE bool any(V v, u64 bits) { return !_mm256_testz_si256(v, all(bits)); }
PTWALK_AVX2_INLINE bool any(V v) { return !_mm256_testz_si256(v, v); }
/// Bit i: lane i of the mask is set.
PTWALK_AVX2_INLINE u32 bits_of(V mask) {
  return u32(_mm256_movemask_pd(_mm256_castsi256_pd(mask)));
}

/// Counts of one or more groups, in sixteen lanes of 16 bits: a table has 32 groups at most.
struct Sums {
  V present, none, marker, with_bit;
};

/// What is the same for all present entries of a span, in vectors.
struct PresentMasks {
  V keep, flip, up_keep, up_flip, saved;
  PTWALK_AVX2_INLINE explicit PresentMasks(const LeafPlan& plan)
      : keep(all(plan.lanes.keep)),
        flip(all(plan.lanes.flip)),
        up_keep(all(plan.lanes.up_keep)),
        up_flip(all(plan.lanes.up_flip)),
        saved(all(plan.saved_dirty)) {}
};

/// The same for entries of every class.
struct Masks : PresentMasks {
  V marker_clear, none_becomes, swp_bit;
  V rare_low, rare_word, marker_low, marker_high;  ///< for classify()
  PTWALK_AVX2_INLINE explicit Masks(const LeafPlan& plan)
      : PresentMasks(plan),
        marker_clear(all(plan.lanes.marker_clear)),
        none_becomes(all(plan.lanes.none_becomes)),
        swp_bit(all(plan.lanes.swp_bit)),
        rare_low(_mm256_set1_epi16(i16(plan.lanes.rare_low))),
        rare_word(_mm256_set1_epi16(i16(plan.lanes.rare_word))),
        marker_low(_mm256_set1_epi32(i32(plan.lanes.marker))),
        marker_high(_mm256_set1_epi32(i32(plan.lanes.marker >> 32))) {}
};

constexpr int DIRTY_SHIFT = 52;  ///< from D (bit 6) to SAVED_DIRTY (bit 58)
constexpr int RW_TO_DIRTY = 5;
constexpr int RW_TO_SAVED = DIRTY_SHIFT + RW_TO_DIRTY;

/// change_present() and upgraded() of entries with P, by lanes.
template <Form FORM>
PTWALK_AVX2_INLINE V changed(const PresentMasks& m, V old) {
  if constexpr (FORM == Form::all_upgraded) {
    const V word = _mm256_xor_si256(_mm256_and_si256(old, m.up_keep), m.up_flip);
    return _mm256_or_si256(word, _mm256_srli_epi64(_mm256_and_si256(old, m.saved), DIRTY_SHIFT));
  }
  V word = _mm256_xor_si256(_mm256_and_si256(old, m.keep), m.flip);
  if constexpr (FORM == Form::out) {  // D is not in `keep`
    const V dirty = _mm256_and_si256(old, all(_PAGE_DIRTY));
    word = _mm256_or_si256(word, _mm256_slli_epi64(dirty, DIRTY_SHIFT));
  } else if constexpr (FORM == Form::out_if_written) {
    const V written = _mm256_slli_epi64(old, RW_TO_SAVED);
    const V saved =
        _mm256_and_si256(_mm256_and_si256(_mm256_slli_epi64(word, DIRTY_SHIFT), written), m.saved);
    word = _mm256_or_si256(_mm256_xor_si256(word, _mm256_srli_epi64(saved, DIRTY_SHIFT)), saved);
  } else if constexpr (FORM == Form::in_if_closed) {
    const V written = _mm256_slli_epi64(old, RW_TO_SAVED);
    const V saved = _mm256_andnot_si256(written, _mm256_and_si256(word, m.saved));
    word = _mm256_or_si256(_mm256_xor_si256(word, saved), _mm256_srli_epi64(saved, DIRTY_SHIFT));
  }
  return word;
}

/// Four entries of any but the rare classes. `upgrade`: which present ones (Form::each). Among the
/// words without P only markers of swap type are negative, and only none is zero.
template <bool ARMS, Form FORM>
PTWALK_AVX2_INLINE V change4(const Masks& m, V old, V upgrade) {
  V word;
  if constexpr (ARMS && FORM == Form::stay_marked) {
    word = _mm256_or_si256(old, m.swp_bit);
  } else if constexpr (ARMS) {
    const V swap = _mm256_cmpgt_epi64(old, _mm256_setzero_si256());
    word = _mm256_or_si256(old, choose(m.none_becomes, m.swp_bit, swap));
  } else {
    word = _mm256_andnot_si256(choose(m.swp_bit, m.marker_clear, old), old);
  }
  V now;
  if constexpr (FORM == Form::each)
    now =
        choose(changed<Form::out_if_written>(m, old), changed<Form::all_upgraded>(m, old), upgrade);
  else
    now = changed<FORM>(m, old);
  return choose(word, now, _mm256_slli_epi64(old, 63));
}

/// Bit i: the TLB must hear of the change in lane i. (needs_flush; frames change only as P goes)
PTWALK_AVX2_INLINE u32 flush_lanes(V old, V now) {
  constexpr u64 ON_CHANGE = _PAGE_RW | _PAGE_USER | _PAGE_PWT | _PAGE_PCD | _PAGE_PSE |
                            _PAGE_GLOBAL | _PAGE_PKEY_MASK | _PAGE_NX;
  const V lost = _mm256_and_si256(old, all(_PAGE_PRESENT | _PAGE_DIRTY));
  const V heard =
      _mm256_and_si256(_mm256_xor_si256(old, now), _mm256_or_si256(lost, all(ON_CHANGE)));
  const V quiet = _mm256_cmpeq_epi64(heard, _mm256_setzero_si256());
  return bits_of(_mm256_andnot_si256(quiet, _mm256_slli_epi64(old, 63)));
}

/// Four vectors: the words of one group.
struct Group {
  V v[4];
};

PTWALK_AVX2_INLINE Group load_group(const u64* p) {
  return {{load(p), load(p + 4), load(p + 8), load(p + 12)}};
}
PTWALK_AVX2_INLINE void store_group(u64* p, const Group& group) {
  for (int i = 0; i < 4; ++i) store(p + 4 * i, group.v[i]);
}
PTWALK_AVX2_INLINE V any_of(const Group& g) {
  return _mm256_or_si256(_mm256_or_si256(g.v[0], g.v[1]), _mm256_or_si256(g.v[2], g.v[3]));
}
PTWALK_AVX2_INLINE V all_of(const Group& g) {
  return _mm256_and_si256(_mm256_and_si256(g.v[0], g.v[1]), _mm256_and_si256(g.v[2], g.v[3]));
}

/// What classify() must tell apart.
struct Classes {
  bool arms;    ///< none from swap words
  bool marker;  ///< markers from swap words
  bool pages;   ///< present SPECIAL entries, which may be a bad page map, from others
};

/// The even (odd: high) halves of eight words.
PTWALK_AVX2_INLINE V low_halves(V a, V b) {
  return _mm256_castps_si256(
      _mm256_shuffle_ps(_mm256_castsi256_ps(a), _mm256_castsi256_ps(b), 0x88));
}
PTWALK_AVX2_INLINE V high_halves(V a, V b) {
  return _mm256_castps_si256(
      _mm256_shuffle_ps(_mm256_castsi256_ps(a), _mm256_castsi256_ps(b), 0xdd));
}

/// Counts the classes of a group. Looks at the outer 16 bits of its words, for that is four times
/// cheaper than at all 64. False: there are rare ones among them, and nothing was counted.
template <Classes SET>
PTWALK_AVX2_INLINE bool classify(const Masks& m, const Group& old, Sums& sums) {
  const V low0 = low_halves(old.v[0], old.v[1]), low1 = low_halves(old.v[2], old.v[3]);
  const V high0 = high_halves(old.v[0], old.v[1]), high1 = high_halves(old.v[2], old.v[3]);
  const V bottom = _mm256_blend_epi16(low0, _mm256_slli_epi32(low1, 16), 0xaa);
  const V top = _mm256_blend_epi16(_mm256_srli_epi32(high0, 16), high1, 0xaa);
  const V present = _mm256_and_si256(bottom, _mm256_set1_epi16(1));
  const V absent = _mm256_add_epi16(present, _mm256_set1_epi16(-1));
  const V flags = _mm256_and_si256(bottom, absent);
  V rare = _mm256_and_si256(_mm256_and_si256(top, absent), _mm256_set1_epi16(i16(0x8000)));
  if constexpr (SET.marker) {
    const V is0 = _mm256_and_si256(_mm256_cmpeq_epi32(low0, m.marker_low),
                                   _mm256_cmpeq_epi32(high0, m.marker_high));
    const V is1 = _mm256_and_si256(_mm256_cmpeq_epi32(low1, m.marker_low),
                                   _mm256_cmpeq_epi32(high1, m.marker_high));
    const V marker = _mm256_blend_epi16(is0, is1, 0xaa);
    rare = _mm256_andnot_si256(marker, rare);
    sums.marker = _mm256_sub_epi16(sums.marker, marker);
  }
  rare = _mm256_or_si256(rare, _mm256_and_si256(flags, m.rare_low));
  if constexpr (!SET.arms) rare = _mm256_or_si256(rare, _mm256_cmpeq_epi16(flags, m.rare_word));
  if constexpr (SET.pages)
    rare = _mm256_or_si256(rare, _mm256_and_si256(_mm256_andnot_si256(absent, bottom),
                                                  _mm256_set1_epi16(i16(_PAGE_SPECIAL))));
  sums.present = _mm256_add_epi16(sums.present, present);
  sums.with_bit = _mm256_add_epi16(sums.with_bit,
                                   _mm256_and_si256(flags, _mm256_set1_epi16(_PAGE_SWP_UFFD_WP)));
  if constexpr (SET.arms) {
    const V zero = _mm256_setzero_si256();
    const V none0 = _mm256_cmpeq_epi32(_mm256_or_si256(low0, high0), zero);
    const V none1 = _mm256_cmpeq_epi32(_mm256_or_si256(low1, high1), zero);
    sums.none = _mm256_sub_epi16(sums.none, _mm256_blend_epi16(none0, none1, 0xaa));
  }
  return !any(rare);
}

}  // namespace ptwalk::avx2
