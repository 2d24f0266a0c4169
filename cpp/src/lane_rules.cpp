// Masks out of a plan. A plan gets none when it asks single entries for more than masks can say:
// NUMA hinting, words without P and PROT_NONE, swap types below 16 that are not plain swap.
#include "ptwalk/lane_rules.hpp"

#include "ptwalk/plan.hpp"

namespace ptwalk {
namespace {

constexpr unsigned FIRST_RARE_TYPE = 16;  ///< with it begin the negative words

/// The marker that wr-protect leaves, found back from the plan; 0 without markers.
u64 usual_marker(const LeafPlan& plan) {
  if (plan.special_marker) return plan.special_marker;
  for (unsigned type = FIRST_RARE_TYPE; type < plan.swap.size(); ++type)
    if (plan.swap[type].step == SwapStep::marker && !(plan.marker_stays & PTE_MARKER_UFFD_WP))
      return make_swp_pte(type, PTE_MARKER_UFFD_WP);
  return 0;
}

bool swap_rules(const LeafPlan& plan, LaneRules& rules) {
  for (unsigned type = 0; type < FIRST_RARE_TYPE; ++type)
    if (plan.swap[type].step != SwapStep::keep) return false;
  rules.arms = plan.swp_set || plan.none_becomes || plan.counts_none;
  rules.marker = usual_marker(plan);
  rules.none_becomes = plan.none_becomes;
  rules.swp_bit = plan.swp_set | plan.swp_clear;
  if (plan.drops_marker && rules.marker) rules.marker_clear = ~0ull;
  const bool negative = rules.marker >> 63;
  if (!rules.arms && !negative && !rules.marker_clear && (rules.marker & rules.swp_bit))
    rules.rare_word = u16(rules.marker);
  const bool one_way = rules.arms ? plan.swp_set && !plan.swp_clear && !plan.drops_marker
                                  : !plan.swp_set && !(plan.clear & _PAGE_RW);
  const bool expected = !plan.none_becomes || plan.none_becomes == rules.marker;
  return one_way && expected && (rules.swp_bit & ~_PAGE_SWP_UFFD_WP) == 0;
}

/// The dirty shift of change_present() where RW of the result does not depend on the entry.
DirtyMove dirty_move(const LeafPlan& plan, bool opened) {
  if (!plan.saved_dirty) return DirtyMove::stay;
  if (opened) return DirtyMove::in_if_closed;
  return plan.clear & _PAGE_RW ? DirtyMove::out : DirtyMove::out_if_written;
}

bool upgrade_rules(const LeafPlan& plan, LaneRules& rules) {
  const Upgrade& rule = plan.upgrade;
  const bool opened = rules.flip & _PAGE_RW;
  const u64 constant = ~rules.keep;  // bits that are the same in every result
  if (!rule.possible || opened || (rule.none_of & constant & rules.flip)) return true;
  if (rules.loses_p) return rule.not_protnone;
  if (rule.dirty && rule.dirty != (_PAGE_DIRTY | plan.saved_dirty)) return false;
  if (rules.arms || ((rule.dirty | rule.soft_dirty) & constant)) return false;
  const bool judged = rule.dirty || rule.soft_dirty || !rule.needs_exclusive;
  rules.upgrade = judged ? LaneUpgrade::conditional : LaneUpgrade::exclusive;
  rules.up_veto = (rule.none_of & rules.keep) | (rule.needs_exclusive ? _PAGE_SPECIAL : 0);
  rules.up_keep = rules.keep & ~plan.saved_dirty;
  rules.up_flip = rules.flip | _PAGE_RW;
  return true;
}

bool present_rules(const LeafPlan& plan, LaneRules& rules) {
  constexpr u64 FIXED = _PAGE_PRESENT | _PAGE_PROTNONE | _PAGE_RW;
  const Modify& modify = plan.modify[PTE_LEVEL];
  const u64 moving = _PAGE_DIRTY | plan.saved_dirty;
  const u64 changed = plan.clear | plan.set;
  if ((modify.keep & FIXED) || (modify.keep & PTE_PFN_MASK) != PTE_PFN_MASK) return false;
  if ((~modify.keep & moving) || (changed & (moving | PTE_PFN_MASK))) return false;
  if (changed & (_PAGE_PRESENT | _PAGE_PROTNONE)) return false;
  if (plan.set & _PAGE_RW) return false;
  if (!(modify.set & (_PAGE_PRESENT | _PAGE_PROTNONE))) return false;
  rules.keep = modify.keep & ~changed;
  rules.flip = (modify.set & ~plan.clear) | plan.set;
  rules.loses_p = !(modify.set & _PAGE_PRESENT);
  rules.dirty = dirty_move(plan, rules.flip & _PAGE_RW);
  if (rules.dirty == DirtyMove::out) rules.keep &= ~_PAGE_DIRTY;
  if (!upgrade_rules(plan, rules)) return false;
  // A result without P has its frame inverted. (flip_protnone_guard)
  if (rules.loses_p) rules.flip ^= PTE_PFN_MASK;
  return true;
}

}  // namespace

LaneRules lane_rules(const LeafPlan& plan) {
  LaneRules rules;
  rules.usable =
      !plan.numa.active && !plan.carry && swap_rules(plan, rules) && present_rules(plan, rules);
  return rules;
}

}  // namespace ptwalk
