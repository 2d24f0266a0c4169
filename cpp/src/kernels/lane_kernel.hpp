// The leaf kernel in vectors, by the masks of LaneRules. First the classes of a span's entries are
// found, or known from the last look; then all its words are changed in the one way that they
// allow, and groups that are not plain by the scalar kernel. Equal to scalar for all inputs, in
// another order: no step depends on another entry. Included once per instruction set, see
// lane_words.hpp.
#pragma once

#include <algorithm>
#include <bit>
#include <utility>

#include "exclusive_window.hpp"
#include "lane_classes.hpp"

namespace ptwalk {
namespace {

using Window = ExclusiveWindow;

struct Pass;
/// Changes plain groups from `at` to `end`, and notes the first and the last entry that the TLB
/// must hear of.
using Loop = void (*)(Pass& pass, u32 at, u32 end);

/// One application.
struct Pass {
  const LeafPlan& plan;
  const LaneRules& rules;
  u64* ptes;
  const PagePool& pages;
  Loop loop = nullptr;       ///< for words of the classes that there are
  Loop upgrading = nullptr;  ///< the same with every entry with P upgraded
  SpanCounts counts{};
  Window window{};
};

/// The kernel's account of what becomes of plain words.
void count(Pass& pass, const Found& found) {
  const LeafPlan& plan = pass.plan;
  const LaneRules& rules = pass.rules;
  SpanCounts& counts = pass.counts;
  const u32 swap = found.nr - found.present - found.none - found.marker;
  const u32 changed = rules.arms ? swap - found.armed : rules.swp_bit ? found.armed : 0;
  const u32 filled = plan.none_becomes ? found.none : 0;
  const u32 dropped = rules.marker_clear ? found.marker : 0;
  counts.present += found.present;
  counts.swap += changed;
  counts.none_to_marker += filled;
  counts.marker_to_none += dropped;
  counts.none_skipped += plan.counts_none ? found.none - filled : 0;
  counts.pages += found.present + changed + filled + dropped;
}

/// Makes facts those of a table to which the plan was applied.
void update(LeafFacts& facts, const LaneRules& rules) {
  if (rules.loses_p) {
    facts.known = false;
  } else if (rules.arms) {
    if (rules.swp_bit)
      facts.armed = u16(PTRS_PER_TABLE - facts.present - facts.none - facts.marker);
    if (rules.none_becomes) facts.marker += std::exchange(facts.none, u16(0));
  } else {
    if (rules.swp_bit) facts.armed = 0;
    if (rules.marker_clear) facts.none += std::exchange(facts.marker, u16(0));
  }
}

/// Adds what the scalar kernel did to entries from `start` on.
void add(SpanCounts& sum, const SpanCounts& part, u32 start) {
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

SpanCounts apply_scalar_at(const Pass& pass, u32 start, u32 nr) {
  return apply_scalar(pass.plan, {pass.ptes + start, nr}, pass.pages);
}

/// Notes the entries of a group that the TLB must hear of; whether there are any.
PTWALK_INLINE bool note_flush(Pass& pass, u32 at, const Group& old, const Group& now) {
  u32 lanes = 0;
  for (u32 i = 0; i < 4; ++i) lanes |= lanes_of(flush_lanes(old.v[i], now.v[i])) << (i * LANES);
  if (!lanes) return false;
  SpanCounts& counts = pass.counts;
  counts.flush_first = std::min(counts.flush_first, at * GROUP + u32(std::countr_zero(lanes)));
  counts.flush_last = std::max(counts.flush_last, at * GROUP + u32(std::bit_width(lanes)) - 1);
  return true;
}

template <Absent ABSENT, Form FORM>
PTWALK_INLINE Group changed_group(const Masks& m, const Group& old) {
  Group now;
  for (int i = 0; i < 4; ++i)
    now.v[i] = changed_words<ABSENT>(m, old.v[i], changed<FORM>(m, old.v[i]));
  return now;
}

/// Loop over plain words. The flush is looked for from the front until one entry needs it, then
/// from the back: nobody needs to know about those between.
template <Absent ABSENT, Form FORM>
PTWALK_TARGET void change_words(Pass& pass, u32 at, u32 end) {
  const Masks m(pass.plan, FORM == Form::upgraded);
  u64* const ptes = pass.ptes;
  const u64 ahead = (end - at) * GROUP == PTRS_PER_TABLE ? PTRS_PER_TABLE : 0;  // the next table
  bool asks = pass.plan.gathers_flush, front = true;
  while (asks && at < end) {
    const u32 group = front ? at++ : --end;
    const Group old = load_group(ptes + group * GROUP);
    const Group now = changed_group<ABSENT, FORM>(m, old);
    if (note_flush(pass, group, old, now)) asks = std::exchange(front, false);
    store_group(ptes + group * GROUP, now);
  }
  for (u64 *p = ptes + at * GROUP, *const stop = ptes + end * GROUP; p != stop; p += GROUP) {
    prefetch_group(p + ahead);
    store_group(p, changed_group<ABSENT, FORM>(m, load_group(p)));
  }
}

/// Loop where all words are none or the marker.
PTWALK_TARGET void fill_words(Pass& pass, u32 at, u32 end) {
  const LaneRules& rules = pass.rules;
  const u64 was = pass.ptes[at * GROUP];
  const u64 word = was == 0 ? rules.none_becomes : was & ~rules.marker_clear;
  const U64 v = all(word);
  for (; word != was && at < end; ++at) store_group(pass.ptes + at * GROUP, {{v, v, v, v}});
}

/// Which entries of a group with P are upgraded, asked one by one; others may be set as well.
/// (can_change_pte_writable, v6.18)
PTWALK_INLINE Group upgrade_lanes(const Pass& pass, const u64* p) {
  const Upgrade& rule = pass.plan.upgrade;
  u64 yes[GROUP];
  for (u32 i = 0; i < GROUP; ++i) {
    const u64 pte = p[i];
    const bool good = !(pte & pass.rules.up_veto) && (!rule.dirty || (pte & rule.dirty)) &&
                      (!rule.soft_dirty || (pte & rule.soft_dirty));
    yes[i] = good && (!rule.needs_exclusive ||
                      pass.pages.anon_exclusive((pte & PTE_PFN_MASK) >> PAGE_SHIFT));
  }
  return load_group(yes);
}

/// Changes a group whose entries are asked one by one.
template <Absent ABSENT>
PTWALK_NOINLINE void change_each(Pass& pass, u32 at) {
  const Masks as_is(pass.plan, false), up(pass.plan, true);
  u64* p = pass.ptes + at * GROUP;
  const Group old = load_group(p), upgrade = upgrade_lanes(pass, p);
  Group now;
  for (int i = 0; i < 4; ++i) {
    const U64 present = choose<0>(upgrade.v[i], changed<Form::upgraded>(up, old.v[i]),
                                  changed<Form::out_if_written>(as_is, old.v[i]));
    now.v[i] = changed_words<ABSENT>(as_is, old.v[i], present);
  }
  if (pass.plan.gathers_flush) note_flush(pass, at, old, now);
  store_group(p, now);
}

/// Groups from `at` on all of whose entries with P may be answered for by the window; where they
/// end.
PTWALK_NOINLINE u32 run_inside(const Pass& pass, u32 at, u32 end) {
  const Window& window = pass.window;
  if (window.answer == Exclusive::unknown) return at;
  const U64 start = all(window.start), bad = all(window.outside | pass.rules.up_veto);
  for (; at < end; ++at) {
    Group away = load_group(pass.ptes + at * GROUP);
    for (U64& v : away.v) v = choose<0>(v, v ^ start, U64{});
    if (any(any_of(away) & bad)) break;
  }
  return at;
}

/// Notes where the frames of entries with P lie, if none of these is SPECIAL.
PTWALK_NOINLINE void find_frames(const Pass& pass, u32 groups, LeafFacts& facts) {
  constexpr int ABOVE_BLOCK = 32 - LeafFacts::BLOCK_SHIFT - PAGE_SHIFT;  // its number is 32 bits
  U32 low = U32{} - 1, high{}, bits{};
  for (u32 at = 0; at < groups; ++at) {
    const Group g = load_group(pass.ptes + at * GROUP);
    for (int i = 0; i < 4; i += 2) {
      const U32 flags = even_halves(g.v[i], g.v[i + 1]);
      const U32 block = odd_halves(g.v[i] << ABOVE_BLOCK, g.v[i + 1] << ABOVE_BLOCK);
      const U32 present = (U32)((I32)(flags << 31) >> 31);
      const U32 lower = block | ~present, higher = block & present;
      bits |= flags & present;
      low = low < lower ? low : lower;
      high = high > higher ? high : higher;
    }
  }
  u32 lowest = ~0u, highest = 0, all_bits = 0;
  for (u32 i = 0; i < 2 * LANES; ++i) {
    lowest = std::min<u32>(lowest, low[i]);
    highest = std::max<u32>(highest, high[i]);
    all_bits |= bits[i];
  }
  if ((all_bits & (_PAGE_PRESENT | _PAGE_SPECIAL)) == _PAGE_PRESENT)
    facts.set_blocks(lowest, highest);
}

/// Loop where the pages decide who is upgraded.
template <Absent ABSENT>
PTWALK_TARGET void change_by_page(Pass& pass, u32 at, u32 end) {
  constexpr u32 PATIENCE = 16;  // frames without order: looking for blocks costs more than it gives
  Window& window = pass.window;
  const bool looks = pass.rules.upgrade == LaneUpgrade::exclusive;
  while (at < end) {
    const u64* p = pass.ptes + at * GROUP;
    if (const u32 inside = looks ? run_inside(pass, at, end) : at; inside != at) {
      (window.answer == Exclusive::every ? pass.upgrading : pass.loop)(pass, at, inside);
      at = inside;
      continue;
    }
    const u64* first = std::find_if(p, p + GROUP, [](u64 pte) { return pte & _PAGE_PRESENT; });
    if (looks && first != p + GROUP && window.moves < PATIENCE) {
      window.move((*first & PTE_PFN_MASK) >> PAGE_SHIFT, pass.pages);
      if (run_inside(pass, at, at + 1) != at) continue;
    }
    const bool special = std::any_of(first, p + GROUP, [](u64 pte) {
      return (pte & (_PAGE_PRESENT | _PAGE_SPECIAL)) == (_PAGE_PRESENT | _PAGE_SPECIAL);
    });
    if (special && pass.plan.upgrade.needs_exclusive) {  // perhaps a bad page map
      const SpanCounts part = apply_scalar_at(pass, at * GROUP, GROUP);
      SpanCounts uncounted;
      uncounted.bad_page_map = part.bad_page_map;
      uncounted.flush_first = part.flush_first;
      uncounted.flush_last = part.flush_last;
      add(pass.counts, uncounted, at * GROUP);
    } else {
      change_each<ABSENT>(pass, at);
    }
    ++at;
  }
}

template <Absent ABSENT>
Loop loop_of(Form form) {
  switch (form) {
    case Form::stay: return change_words<ABSENT, Form::stay>;
    case Form::out: return change_words<ABSENT, Form::out>;
    case Form::out_if_written: return change_words<ABSENT, Form::out_if_written>;
    case Form::in_if_closed: return change_words<ABSENT, Form::in_if_closed>;
    case Form::upgraded: return change_words<ABSENT, Form::upgraded>;
  }
  return nullptr;
}

Absent absent_of(const LaneRules& rules, const Found& found) {
  if (found.present == found.nr) return Absent::nowhere;
  if (rules.arms)
    return rules.none_becomes && rules.none_becomes == rules.swp_bit ? Absent::arm_all
                                                                     : Absent::arm;
  const bool drops = rules.marker_clear && rules.marker >> 63 && found.marker;
  return drops ? Absent::drop : Absent::disarm;
}

Form form_of(const LaneRules& rules) {
  if (rules.upgrade != LaneUpgrade::never) return Form::out_if_written;
  switch (rules.dirty) {
    case DirtyMove::stay: return Form::stay;
    case DirtyMove::out: return Form::out;
    case DirtyMove::in_if_closed: return Form::in_if_closed;
    default: return Form::out_if_written;
  }
}

/// The loop for what was found; sets those that it calls in its turn.
Loop choose_loop(Pass& pass, const Found& found) {
  if (found.none == found.nr || found.marker == found.nr) return fill_words;
  const Absent absent = absent_of(pass.rules, found);
  const Form form = form_of(pass.rules);
  Loop (*const of)(Form) = absent == Absent::nowhere  ? loop_of<Absent::nowhere>
                           : absent == Absent::disarm ? loop_of<Absent::disarm>
                           : absent == Absent::drop   ? loop_of<Absent::drop>
                           : absent == Absent::arm    ? loop_of<Absent::arm>
                                                      : loop_of<Absent::arm_all>;
  pass.loop = of(form);
  pass.upgrading = of(Form::upgraded);
  if (pass.rules.upgrade == LaneUpgrade::never || found.present == 0) return pass.loop;
  return absent == Absent::nowhere  ? change_by_page<Absent::nowhere>
         : absent == Absent::disarm ? change_by_page<Absent::disarm>
                                    : change_by_page<Absent::drop>;
}

/// Groups of any kind.
void change_around_rare(Pass& pass, Loop loop, u32 groups, u64 rare) {
  for (u32 at = 0, next; at < groups; at = next) {
    next = at + 1;
    if (rare >> at & 1) {
      add(pass.counts, apply_scalar_at(pass, at * GROUP, GROUP), at * GROUP);
      continue;
    }
    while (next < groups && !(rare >> next & 1)) ++next;
    loop(pass, at, next);
  }
}

/// Whether a loop knows what becomes of all plain words.
bool covers(const LaneRules& rules, const Found& found) {
  return rules.rare_word == 0xffff || found.marker == 0;
}

/// Whether AnonExclusive alone decides who is upgraded, as long as no entry is SPECIAL.
bool asks_only_pages(const LaneRules& rules) {
  return rules.upgrade == LaneUpgrade::exclusive && rules.up_veto == _PAGE_SPECIAL;
}

/// What the pages of all entries with P are, none of which is SPECIAL; notes what was found out.
Exclusive pages_of(const Pass& pass, u32 groups, LeafFacts& facts) {
  if (!facts.blocks) find_frames(pass, groups, facts);
  if (!facts.blocks) return Exclusive::unknown;
  if (facts.all_exclusive(pass.pages)) return Exclusive::every;
  Exclusive found = exclusive_among(facts.first_frame(), facts.frames(), pass.pages);
  // Between the frames of these entries there may be others.
  if (found == Exclusive::unknown && every_page_exclusive({pass.ptes, groups * GROUP}, pass.pages))
    found = Exclusive::every;
  if (found == Exclusive::every) facts.set_all_exclusive(pass.pages);
  return found;
}

/// Whether all words are the same but for their frames; they have P.
PTWALK_NOINLINE bool are_alike(const u64* ptes, u32 groups) {
  const U64 first = all(ptes[0]);
  for (u32 at = 0; at < groups; ++at) {
    Group rest = load_group(ptes + at * GROUP);
    for (U64& v : rest.v) v ^= first;
    if (any(any_of(rest) & all(~PTE_PFN_MASK))) return false;
  }
  return true;
}

/// Changes words that are alike, and alike in what their pages are: the same bits flip in each as
/// in the first.
PTWALK_TARGET SpanCounts flip_words(const LeafPlan& plan, std::span<u64> ptes,
                                    const PagePool& pages) {
  u64 first = ptes[0];
  SpanCounts counts = apply_scalar(plan, {&first, 1}, pages);
  counts.present *= u32(ptes.size());
  counts.pages *= u32(ptes.size());
  if (counts.flush_first <= counts.flush_last) counts.flush_last = u32(ptes.size()) - 1;
  const U64 flips = all(first ^ ptes[0]);
  for (u64 *p = ptes.data(), *const stop = p + ptes.size(); p != stop; p += GROUP) {
    Group g = load_group(p);
    for (U64& v : g.v) v ^= flips;
    store_group(p, g);
  }
  return counts;
}

/// Applies the plan to plain words, of which `facts` knows something or nothing.
void change_plain(Pass& pass, Loop loop, u32 groups, const Found& found, LeafFacts& facts) {
  if (found.present && asks_only_pages(pass.rules)) {
    const Exclusive answer = pages_of(pass, groups, facts);
    if (answer == Exclusive::every) loop = pass.upgrading;
    if (answer == Exclusive::nobody) loop = pass.loop;
  }
  const bool same_for_all = loop == pass.loop || loop == pass.upgrading;
  facts.alike = facts.alike && same_for_all;
  loop(pass, 0, groups);
}

/// Whether a look at the first entry of a table says what becomes of all.
bool first_speaks_for_all(const LaneRules& rules, const LeafFacts& facts, const PagePool& pages) {
  if (!facts.known || !facts.alike || !rules.usable) return false;
  if (rules.upgrade == LaneUpgrade::never) return true;
  return asks_only_pages(rules) && facts.blocks && facts.all_exclusive(pages);
}

/// Whole groups by loops, what is left over by the scalar kernel.
PTWALK_NOINLINE SpanCounts apply_groups(const LeafPlan& plan, std::span<u64> ptes,
                                        const PagePool& pages, LeafFacts* facts) {
  const u32 nr = u32(ptes.size()), groups = nr / GROUP;
  if (facts && first_speaks_for_all(plan.lanes, *facts, pages)) {
    update(*facts, plan.lanes);
    return flip_words(plan, ptes, pages);
  }
  const bool known = facts && facts->known;
  if (facts) facts->known = false;
  if (!plan.lanes.usable) return apply_scalar(plan, ptes, pages);
  Pass pass{plan, plan.lanes, ptes.data(), pages};
  const Found found = known ? Found{nr, facts->present, facts->none, facts->marker, facts->armed, 0}
                            : find_classes(pass.ptes, groups, plan.lanes.marker);
  if (!covers(plan.lanes, found)) return apply_scalar(plan, ptes, pages);
  const Loop loop = choose_loop(pass, found);
  if (found.rare) {
    change_around_rare(pass, loop, groups, found.rare);
  } else if (facts && nr == PTRS_PER_TABLE) {
    if (!known) {
      const bool alike = found.present == nr && are_alike(pass.ptes, groups);
      *facts = {.alike = alike,
                .present = u16(found.present),
                .none = u16(found.none),
                .marker = u16(found.marker),
                .armed = u16(found.armed)};
    }
    change_plain(pass, loop, groups, found, *facts);
    facts->known = true;
    update(*facts, plan.lanes);
  } else {
    LeafFacts nothing;
    change_plain(pass, loop, groups, found, nothing);
  }
  count(pass, found);
  if (nr % GROUP)
    add(pass.counts, apply_scalar_at(pass, groups * GROUP, nr % GROUP), groups * GROUP);
  return pass.counts;
}

/// The kernel itself. Less than a group is not worth the stack frame of more.
SpanCounts apply_lanes(const LeafPlan& plan, std::span<u64> ptes, const PagePool& pages,
                       LeafFacts* facts) {
  if (ptes.size() >= GROUP) return apply_groups(plan, ptes, pages, facts);
  if (facts) *facts = {};
  return apply_scalar(plan, ptes, pages);
}

}  // namespace
}  // namespace ptwalk
