// The AVX2 kernel: sixteen entries at a time by the masks of LaneRules, in the shortest way that
// their classes allow; sixteen that hold a rare class go to the scalar kernel. Equal to scalar for
// all inputs. Models what scalar.cpp models, in another order: no step depends on another entry.
#if defined(__x86_64__)
#include <algorithm>
#include <bit>

#include "avx2_words.hpp"
#include "exclusive_window.hpp"

namespace ptwalk {
namespace {

using namespace avx2;
using Window = ExclusiveWindow;

/// One pass over a span: the entries, what is counted apart from lanes, and the order of groups.
struct Span {
  const LeafPlan& plan;
  u64* ptes;
  const PagePool& pages;
  SpanCounts counts{};
};

void apply_scalar_at(Span& span, u32 start, u32 nr) {
  const SpanCounts part = apply_scalar(span.plan, {span.ptes + start, nr}, span.pages);
  SpanCounts& sum = span.counts;
  sum.pages += part.pages;
  sum.present += part.present;
  sum.swap += part.swap;
  sum.none_to_marker += part.none_to_marker;
  sum.marker_to_none += part.marker_to_none;
  sum.none_skipped += part.none_skipped;
  sum.bad_page_map += part.bad_page_map;
  if (part.flush_first > part.flush_last) return;
  sum.flush_first = std::min(sum.flush_first, start + part.flush_first);
  sum.flush_last = std::max(sum.flush_last, start + part.flush_last);
}

enum class Class : u8 { mixed, present, none, marker };

/// The class that all entries of a group have. The first word says which one it can be.
PTWALK_AVX2_INLINE Class class_of(const LaneRules& rules, const u64* p, const Group& old) {
  const u64 first = *p;
  if (first & _PAGE_PRESENT)
    return _mm256_testc_si256(all_of(old), all(_PAGE_PRESENT)) ? Class::present : Class::mixed;
  if (first == 0) return any(any_of(old)) ? Class::mixed : Class::none;
  if (first != rules.marker) return Class::mixed;
  Group rest;
  for (int i = 0; i < 4; ++i) rest.v[i] = _mm256_xor_si256(old.v[i], all(rules.marker));
  return any(any_of(rest)) ? Class::mixed : Class::marker;
}

/// Whether a present entry of the group lies outside the window or has a bit of up_veto.
PTWALK_AVX2_INLINE bool outside(const LaneRules& rules, const Window& window, const Group& old) {
  const V start = all(window.start << PAGE_SHIFT);
  Group away;
  for (int i = 0; i < 4; ++i) {
    const V one = _mm256_and_si256(old.v[i], all(_PAGE_PRESENT));
    away.v[i] = _mm256_and_si256(_mm256_sub_epi64(old.v[i], start),
                                 _mm256_sub_epi64(_mm256_setzero_si256(), one));
  }
  return any(any_of(away), window.outside | rules.up_veto);
}

/// Lanes of four entries with P that are upgraded. (can_change_pte_writable, v6.18)
PTWALK_AVX2_INLINE V upgrade_lanes(const LeafPlan& plan, const u64* p, V old,
                                   const PagePool& pages) {
  const V zero = _mm256_setzero_si256();
  const Upgrade& rule = plan.upgrade;
  V bad = _mm256_cmpeq_epi64(_mm256_and_si256(old, all(plan.lanes.up_veto)), zero);
  bad = _mm256_xor_si256(bad, all(~0ull));
  if (rule.dirty)
    bad = _mm256_or_si256(bad, _mm256_cmpeq_epi64(_mm256_and_si256(old, all(rule.dirty)), zero));
  if (rule.soft_dirty)
    bad =
        _mm256_or_si256(bad, _mm256_cmpeq_epi64(_mm256_and_si256(old, all(rule.soft_dirty)), zero));
  if (!rule.needs_exclusive) return _mm256_xor_si256(bad, all(~0ull));
  alignas(32) u64 exclusive[4];
  for (int i = 0; i < 4; ++i)
    exclusive[i] = 0 - u64(pages.anon_exclusive((p[i] & PTE_PFN_MASK) >> PAGE_SHIFT));
  return _mm256_andnot_si256(bad, load(exclusive));
}

/// classify() of groups `at` to `end`, added to `sums`. Bit i: group i holds rare words and is not
/// counted.
template <Classes SET>
PTWALK_AVX2 [[gnu::noinline]] u32 classify_groups(const Masks& m, const u64* ptes, u32 at, u32 end,
                                                  Sums& sums) {
  Sums counted = sums;
  u32 rare = 0;
  for (; at < end; ++at) {
    Sums with = counted;
    if (classify<SET>(m, load_group(ptes + at * GROUP), with))
      counted = with;
    else
      rare |= 1u << at;
  }
  sums = counted;
  return rare;
}

template <bool ARMS>
PTWALK_AVX2_INLINE u32 find_rare(const Span& span, const Masks& m, u32 at, u32 end, Sums& sums) {
  const LeafPlan& plan = span.plan;
  const bool marker = plan.lanes.counts_marker;
  if constexpr (ARMS)
    return marker ? classify_groups<Classes{true, true, false}>(m, span.ptes, at, end, sums)
                  : classify_groups<Classes{true, false, false}>(m, span.ptes, at, end, sums);
  if (plan.lanes.upgrade != LaneUpgrade::never && plan.upgrade.needs_exclusive)
    return classify_groups<Classes{false, true, true}>(m, span.ptes, at, end, sums);
  return marker ? classify_groups<Classes{false, true, false}>(m, span.ptes, at, end, sums)
                : classify_groups<Classes{false, false, false}>(m, span.ptes, at, end, sums);
}

/// Changes a group without rare words.
template <bool ARMS, Form FORM>
PTWALK_AVX2_INLINE void change_group(const Masks& m, u64* p, const Group& old) {
  for (u32 i = 0; i < 4; ++i) store(p + 4 * i, change4<ARMS, FORM>(m, old.v[i], old.v[i]));
}

/// As change_group(), where the pages decide who is upgraded.
PTWALK_AVX2_INLINE void change_by_page(const Span& span, Window& window, const Masks& m, u64* p,
                                       const Group& old) {
  constexpr u32 PATIENCE = 8;  // frames without order: looking for runs costs more than it gives
  const LaneRules& rules = span.plan.lanes;
  if (rules.upgrade == LaneUpgrade::exclusive && window.misses < PATIENCE) {
    bool away = outside(rules, window, old);
    if (away) {
      window.move({p, GROUP}, span.pages);
      away = outside(rules, window, old);
    }
    if (!away && window.answer != Window::Answer::unknown) {
      if (window.answer == Window::Answer::every)
        change_group<false, Form::all_upgraded>(m, p, old);
      else
        change_group<false, Form::out_if_written>(m, p, old);
      return;
    }
  }
  for (u32 i = 0; i < 4; ++i) {
    const V upgrade = upgrade_lanes(span.plan, p + 4 * i, old.v[i], span.pages);
    store(p + 4 * i, change4<false, Form::each>(m, old.v[i], upgrade));
  }
}

PTWALK_AVX2_INLINE void note_flush(SpanCounts& counts, u32 start, const Group& old,
                                   const Group& now) {
  u32 lanes = 0;
  for (u32 i = 0; i < 4; ++i) lanes |= flush_lanes(old.v[i], now.v[i]) << (4 * i);
  if (!lanes) return;
  counts.flush_first = std::min(counts.flush_first, start + u32(std::countr_zero(lanes)));
  counts.flush_last = std::max(counts.flush_last, start + 31 - u32(std::countl_zero(lanes)));
}

/// Adds what classify() counted in `nr` entries.
PTWALK_AVX2_INLINE void add_lanes(Span& span, const Sums& sums, u32 nr) {
  const LeafPlan& plan = span.plan;
  const LaneRules& rules = plan.lanes;
  SpanCounts& counts = span.counts;
  const V ones = _mm256_set1_epi16(1);
  const V pairs = _mm256_hadd_epi32(_mm256_hadd_epi32(_mm256_madd_epi16(sums.present, ones),
                                                      _mm256_madd_epi16(sums.marker, ones)),
                                    _mm256_hadd_epi32(_mm256_madd_epi16(sums.none, ones),
                                                      _mm256_madd_epi16(sums.with_bit, ones)));
  alignas(16) u32 totals[4];
  _mm_store_si128(reinterpret_cast<__m128i*>(totals),
                  _mm_add_epi32(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256(pairs, 1)));
  const auto [present, marker, none, armed_or_marker] = totals;
  u32 with_bit = armed_or_marker / _PAGE_SWP_UFFD_WP;
  if (rules.marker & _PAGE_SWP_UFFD_WP) with_bit -= marker;
  const u32 armed = nr - present - none - marker - with_bit;
  const u32 swap = rules.arms ? armed : rules.swp_bit ? with_bit : 0;
  const u32 dropped = rules.marker_clear ? marker : 0;
  counts.present += present;
  counts.swap += swap;
  counts.marker_to_none += dropped;
  if (plan.counts_none || plan.none_becomes)
    (plan.none_becomes ? counts.none_to_marker : counts.none_skipped) += none;
  counts.pages += present + swap + dropped + (plan.none_becomes ? none : 0);
}

/// Whole groups of none entries or of usual markers, as long as they last; where they end.
template <Class CLASS>
PTWALK_AVX2_INLINE u32 run_of(const LeafPlan& plan, u64* ptes, u32 at, u32 end) {
  const bool stays = CLASS == Class::none ? !plan.none_becomes : !plan.lanes.marker_clear;
  const V word = all(CLASS == Class::none ? plan.none_becomes : 0);
  const V marker = all(plan.lanes.marker);
  for (; at < end; ++at) {
    u64* p = ptes + at * GROUP;
    Group group = load_group(p);
    if (CLASS == Class::marker)
      for (V& v : group.v) v = _mm256_xor_si256(v, marker);
    if (any(any_of(group))) break;
    if (!stays) store_group(p, {{word, word, word, word}});
  }
  return at;
}

/// Whole groups of present entries that change by one form; `in_window`: while they lie in it.
template <Form FORM, bool TRACK>
PTWALK_AVX2_INLINE u32 run_of_present(Span& span, const Window* in_window, u32 at, u32 end) {
  const PresentMasks m(span.plan);
  const V start = all(in_window ? in_window->start << PAGE_SHIFT : 0);
  for (; at < end; ++at) {
    u64* p = span.ptes + at * GROUP;
    const Group old = load_group(p);
    if (!_mm256_testc_si256(all_of(old), all(_PAGE_PRESENT))) break;
    Group now;
    if (in_window) {
      for (int i = 0; i < 4; ++i) now.v[i] = _mm256_sub_epi64(old.v[i], start);
      if (any(any_of(now), in_window->outside | span.plan.lanes.up_veto)) break;
    }
    for (int i = 0; i < 4; ++i) now.v[i] = changed<FORM>(m, old.v[i]);
    store_group(p, now);
    if (TRACK) note_flush(span.counts, at * GROUP, old, now);
  }
  return at;
}

/// run_of_present() where the pages decide who is upgraded.
template <bool TRACK>
PTWALK_AVX2_INLINE u32 run_by_page(Span& span, Window& window, u32 at, u32 end) {
  using enum Window::Answer;
  const LaneRules& rules = span.plan.lanes;
  if (rules.upgrade != LaneUpgrade::exclusive) return at;
  if (outside(rules, window, load_group(span.ptes + at * GROUP)))
    window.move({span.ptes + at * GROUP, GROUP}, span.pages);
  if (window.answer == every)
    return run_of_present<Form::all_upgraded, TRACK>(span, &window, at, end);
  if (window.answer == nobody)
    return run_of_present<Form::out_if_written, TRACK>(span, &window, at, end);
  return at;
}

/// Counts `nr` entries of one class.
void count_class(Span& span, Class all_are, u32 nr) {
  const LeafPlan& plan = span.plan;
  SpanCounts& counts = span.counts;
  if (all_are == Class::present) {
    counts.present += nr;
    counts.pages += nr;
  } else if (all_are == Class::none && !plan.none_becomes) {
    counts.none_skipped += plan.counts_none ? nr : 0;
  } else if (all_are == Class::none || plan.lanes.marker_clear) {
    (all_are == Class::none ? counts.none_to_marker : counts.marker_to_none) += nr;
    counts.pages += nr;
  }
}

/// As many groups from the front as have one class each; where they end.
template <Form FORM, bool TRACK>
PTWALK_AVX2_INLINE u32 change_uniform(Span& span, Window& window, u32 at, u32 end) {
  while (at < end) {
    const u64* p = span.ptes + at * GROUP;
    const Class all_are = class_of(span.plan.lanes, p, load_group(p));
    const u32 from = at;
    if (all_are == Class::none)
      at = run_of<Class::none>(span.plan, span.ptes, at, end);
    else if (all_are == Class::marker)
      at = run_of<Class::marker>(span.plan, span.ptes, at, end);
    else if (all_are == Class::present && FORM == Form::each)
      at = run_by_page<TRACK>(span, window, at, end);
    else if (all_are == Class::present)
      at = run_of_present<FORM, TRACK>(span, nullptr, at, end);
    if (at == from) break;
    count_class(span, all_are, (at - from) * GROUP);
  }
  return at;
}

/// One group of any classes; a rare one by the scalar kernel.
template <bool ARMS, Form FORM, bool TRACK>
PTWALK_AVX2_INLINE void change_any(Span& span, Window& window, const Masks& m, u32 at, bool rare) {
  if (rare) return apply_scalar_at(span, at * GROUP, GROUP);
  u64* p = span.ptes + at * GROUP;
  const Group old = load_group(p);
  if constexpr (FORM == Form::each)
    change_by_page(span, window, m, p, old);
  else
    change_group<ARMS, FORM>(m, p, old);
  if (TRACK) note_flush(span.counts, at * GROUP, old, load_group(p));
}

/// Groups of any classes. How many are counted in `sums`: all but the rare ones.
/// The flush is asked for from the front until one entry needs it, then from the back.
template <bool ARMS, Form FORM, bool TRACK>
PTWALK_AVX2_INLINE u32 change_mixed(Span& span, Window& window, u32 at, u32 end, Sums& sums) {
  if (at == end) return 0;
  const Masks m(span.plan);
  const u32 rare = find_rare<ARMS>(span, m, at, end, sums);
  const u32 counted = end - at - u32(std::popcount(rare));
  const SpanCounts& counts = span.counts;
  if (TRACK) {
    for (; at < end && counts.flush_first >= at * GROUP; ++at)
      change_any<ARMS, FORM, true>(span, window, m, at, rare >> at & 1);
    for (; at < end && counts.flush_last < end * GROUP; --end)
      change_any<ARMS, FORM, true>(span, window, m, end - 1, rare >> (end - 1) & 1);
  }
  for (; at < end; ++at) change_any<ARMS, FORM, false>(span, window, m, at, rare >> at & 1);
  return counted;
}

/// Groups `at` to `end`: by their class as long as they have one each, then the rest.
template <bool ARMS, Form FORM, bool TRACK>
PTWALK_AVX2 u32 change_range(Span& span, Window& window, u32 at, u32 end, Sums& sums) {
  at = change_uniform<FORM, TRACK>(span, window, at, end);
  return change_mixed<ARMS, FORM, TRACK>(span, window, at, end, sums);
}

/// The groups of a span. Where single entries decide the flush, the groups at both ends go first:
/// when each of them must be flushed, nobody needs to know about those between.
template <bool ARMS, Form FORM>
PTWALK_AVX2 void change_groups(Span& span, u32 groups) {
  const V zero = _mm256_setzero_si256();
  Sums sums{zero, zero, zero, zero};
  Window window;
  u32 front = 0, back = groups, counted = 0;
  bool track = span.plan.gathers_flush;
  if (track && groups > 2) {
    counted += change_range<ARMS, FORM, true>(span, window, 0, 1, sums);
    counted += change_range<ARMS, FORM, true>(span, window, groups - 1, groups, sums);
    ++front;
    --back;
    track = span.counts.flush_first >= GROUP || span.counts.flush_last < back * GROUP;
  }
  counted += track ? change_range<ARMS, FORM, true>(span, window, front, back, sums)
                   : change_range<ARMS, FORM, false>(span, window, front, back, sums);
  if (counted) add_lanes(span, sums, counted * GROUP);
}

void change_all_groups(Span& span, u32 groups) {
  const LaneRules& rules = span.plan.lanes;
  if (rules.arms)
    return rules.dirty == DirtyMove::out ? change_groups<true, Form::out>(span, groups)
           : rules.none_becomes == rules.swp_bit
               ? change_groups<true, Form::stay_marked>(span, groups)
               : change_groups<true, Form::stay>(span, groups);
  if (rules.upgrade != LaneUpgrade::never) return change_groups<false, Form::each>(span, groups);
  switch (rules.dirty) {
    case DirtyMove::stay: return change_groups<false, Form::stay>(span, groups);
    case DirtyMove::in_if_closed: return change_groups<false, Form::in_if_closed>(span, groups);
    default: return change_groups<false, Form::out_if_written>(span, groups);
  }
}

}  // namespace

SpanCounts apply_avx2(const LeafPlan& plan, std::span<u64> ptes, const PagePool& pages) {
  const u32 nr = u32(ptes.size());
  if (!plan.lanes.usable || nr < GROUP) return apply_scalar(plan, ptes, pages);
  Span span{plan, ptes.data(), pages};
  const u32 whole = nr - nr % GROUP;
  if (whole != nr) apply_scalar_at(span, whole, nr - whole);
  change_all_groups(span, whole / GROUP);
  return span.counts;
}

}  // namespace ptwalk
#endif
