#include "ptwalk/fuzz/violations.hpp"

#include <algorithm>

namespace ptwalk::fuzz {
namespace {

constexpr std::string_view NAMES[] = {"armed_writable",
                                      "marker_in_anonymous",
                                      "entry_outside_vma",
                                      "page_freed",
                                      "swap_freed",
                                      "count_sum",
                                      "flush_unlike_count",
                                      "count_unlike_entries",
                                      "tables_unlike_count",
                                      "outside_range",
                                      "kind_changed",
                                      "pfn_changed",
                                      "uffd_bit_changed",
                                      "accessed_dirty_changed",
                                      "left_unarmed",
                                      "left_armed",
                                      "flush_missing",
                                      "protect_twice",
                                      "invariant"};
static_assert(std::size(NAMES) == std::size_t(Violation::invariant) + 1);

/// Whether none entries of anonymous memory may have been armed. Their markers outlive the
/// registration where a VMA is registered anew without WP, or merges on its way by mremap.
bool may_have_markers(const Machine& machine) {
  return machine.profile.marker_vmas == MarkerVmas::registered &&
         std::any_of(machine.uffds.begin(), machine.uffds.end(), [](const UffdContext& ctx) {
           return ctx.features & UFFD_FEATURE_WP_UNPOPULATED;
         });
}

}  // namespace

std::span<const std::string_view> violation_names() { return NAMES; }

u64 judge_entry(const Machine& machine, const Vma* vma, u64 word, Level level) {
  if (pte_none(word)) return 0;
  if (is_present(word, level)) {
    const Pfn pfn = leaf_address(word, level) >> PAGE_SHIFT;
    return judge_present(machine, vma, word, level, machine.pages.find(pfn));
  }
  if (!vma) return bit(Violation::entry_outside_vma);
  const Profile& p = machine.profile;
  if (p.is_marker(word))
    return p.is_uffd_wp_marker(word) && vma->anonymous() && !may_have_markers(machine)
               ? bit(Violation::marker_in_anonymous)
               : 0;
  if (p.swp_kind(word) == SwpKind::swap) {
    const u64 slot = swp_offset(word);
    if (slot >= machine.swap.size() || !machine.swap[slot].count) return bit(Violation::swap_freed);
  }
  return 0;
}

u64 judge_account(const Profile& profile, const ProtectResult& result) {
  u64 found = 0;
  if (result.pages != result.none_to_marker + result.marker_to_none + result.present + result.swap +
                          PTRS_PER_TABLE * result.huge)
    found |= bit(Violation::count_sum);
  if (profile.flush == FlushRule::whole_range && (result.pages > 0) == result.flush.empty())
    found |= bit(Violation::flush_unlike_count);
  return found;
}

}  // namespace ptwalk::fuzz
