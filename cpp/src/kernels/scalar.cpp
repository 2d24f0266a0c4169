// The reference kernel: entry by entry, in the order in which the kernel asks.
// Models the loop of mm/mprotect.c:change_pte_range (v5.12 with the seed series, v6.1 to v6.18).
#include <algorithm>

#include "ptwalk/kernels.hpp"

namespace ptwalk {
namespace {

/// Whether an entry has an ordinary struct page: not SPECIAL. A SPECIAL entry that is neither the
/// zero page nor DEVMAP is reported. (mm/memory.c:vm_normal_page)
bool normal_page(const LeafPlan& plan, u64 pte, u32& bad_page_map) {
  if (!(pte & _PAGE_SPECIAL)) return true;
  if (!plan.special_is_quiet && pte_pfn(pte) != ZERO_PFN && !(pte & plan.devmap)) ++bad_page_map;
  return false;
}

/// The reasons of NUMA hinting to leave an entry alone.
/// (mm/mprotect.c:change_pte_range, v5.12; prot_numa_skip, v6.18)
bool numa_skips(const LeafPlan& plan, u64 pte, const PagePool& pages, u32& bad_page_map) {
  if (pte_protnone(pte)) return true;
  if (!normal_page(plan, pte, bad_page_map)) return true;
  const NumaRule& rule = plan.numa;
  if (rule.zone_device) return true;
  const Page* page = pages.find(pte_pfn(pte));
  if (!page) return false;
  if (page->flags & PG_ksm) return true;
  if (rule.cow && page->mapcount != 1) return true;
  const bool file_lru = page->anon() ? page->flags & PG_lazyfree : rule.file_lru;
  return (file_lru && page->dirty()) || rule.on_target;
}

u64 step_present(const LeafPlan& plan, u64 old, const PagePool& pages, SpanCounts& counts) {
  if (plan.numa.active && numa_skips(plan, old, pages, counts.bad_page_map)) return old;
  ++counts.present;
  u64 now = change_present(plan, old, PTE_LEVEL);
  if (can_upgrade(plan, now, PTE_LEVEL, pages, counts.bad_page_map)) now = upgraded(plan, now);
  ++counts.pages;  // counted even when nothing changed
  return now;
}

u64 step_marker(const LeafPlan& plan, u64 old, bool stays, SpanCounts& counts) {
  if (!plan.drops_marker || stays) return old;
  ++counts.marker_to_none;
  ++counts.pages;
  return 0;
}

u64 step_swap(const LeafPlan& plan, u64 old, const PagePool& pages, SpanCounts& counts) {
  if (plan.special_marker && old == plan.special_marker)
    return step_marker(plan, old, false, counts);
  const SwapAction& action = plan.swap[swp_type(old)];
  if (action.step == SwapStep::marker)
    return step_marker(plan, old, swp_offset(old) & plan.marker_stays, counts);
  u64 now = old;
  if (action.step == SwapStep::downgrade) now = downgraded(plan, action, action.kept, old, pages);
  now = (now | plan.swp_set) & ~plan.swp_clear;
  if (now != old) {
    ++counts.swap;
    ++counts.pages;
  }
  return now;
}

u64 step_none(const LeafPlan& plan, u64 old, SpanCounts& counts) {
  if (!plan.none_becomes) {
    counts.none_skipped += plan.counts_none;
    return old;
  }
  ++counts.none_to_marker;
  ++counts.pages;
  return plan.none_becomes;
}

}  // namespace

u64 change_present(const LeafPlan& plan, u64 old, Level level) {
  const Modify& modify = plan.modify[std::size_t(level)];
  u64 now = (old & modify.keep) | modify.set;
  if (needs_invert(old) != needs_invert(now)) now ^= modify.pfn;
  if (!(old & _PAGE_RW) && (now & _PAGE_RW) && (now & plan.saved_dirty))
    now = (now & ~plan.saved_dirty) | _PAGE_DIRTY;
  now = ((now | (old & plan.carry)) & ~plan.clear) | plan.set;
  // D leaves bit 6 where RW was taken away, by the protection word or by wr-protect.
  const bool lost_write = ((old | plan.clear) & _PAGE_RW) && !(now & _PAGE_RW);
  if (plan.saved_dirty && lost_write && (now & _PAGE_DIRTY))
    now = (now & ~_PAGE_DIRTY) | plan.saved_dirty;
  return now;
}

bool can_upgrade(const LeafPlan& plan, u64 word, Level level, const PagePool& pages,
                 u32& bad_page_map) {
  const Upgrade& rule = plan.upgrade;
  if (!rule.possible || (word & _PAGE_RW)) return false;
  if (rule.not_protnone && pte_protnone(word)) return false;
  if (rule.dirty && !(word & rule.dirty)) return false;
  if (rule.soft_dirty && !(word & rule.soft_dirty)) return false;
  if (word & rule.none_of) return false;
  if (!rule.needs_exclusive) return true;
  if (level == PTE_LEVEL && !normal_page(plan, word, bad_page_map)) return false;
  return pages.anon_exclusive(leaf_address(word, level) >> PAGE_SHIFT);
}

u64 upgraded(const LeafPlan& plan, u64 word) {
  word |= _PAGE_RW;
  if (!(word & plan.saved_dirty)) return word;
  return (word & ~plan.saved_dirty) | _PAGE_DIRTY;
}

u64 downgraded(const LeafPlan& plan, const SwapAction& action, u64 kept, u64 old,
               const PagePool& pages) {
  const Page* page = pages.find(swp_offset(old) & SWP_PFN_MASK);
  const bool anon = page ? page->anon() : plan.page_is_anon;
  return make_swp_pte(anon ? action.type_anon : action.type, swp_offset(old)) | (old & kept);
}

SpanCounts apply_scalar(const LeafPlan& plan, std::span<u64> ptes, const PagePool& pages) {
  SpanCounts counts;
  for (u32 i = 0; i < ptes.size(); ++i) {
    const u64 old = ptes[i];
    u64 now;
    if (pte_present(old))
      now = step_present(plan, old, pages, counts);
    else if (pte_none(old))
      now = step_none(plan, old, counts);
    else
      now = step_swap(plan, old, pages, counts);
    if (now == old) continue;
    ptes[i] = now;
    if (plan.gathers_flush && needs_flush(old, now)) {
      counts.flush_first = std::min(counts.flush_first, i);
      counts.flush_last = i;
    }
  }
  return counts;
}

}  // namespace ptwalk
