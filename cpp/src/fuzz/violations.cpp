#include "ptwalk/fuzz/violations.hpp"

#include <algorithm>

namespace ptwalk::fuzz {
namespace {

constexpr std::string_view NAMES[] = {"armed_writable",
                                      "marker_in_anonymous",
                                      "entry_outside_vma",
                                      "page_freed",
                                      "swap_freed",
                                      "index_unlike_vma",
                                      "exclusive_shared",
                                      "writable_shared",
                                      "count_sum",
                                      "flush_unlike_count",
                                      "unmapped_access",
                                      "fault_repeats",
                                      "left_asleep",
                                      "copied_unarmed",
                                      "changing_ignored",
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
                                      "arm_lost",
                                      "armed_unregistered",
                                      "message_unlike_entry",
                                      "copy_lost",
                                      "page_left",
                                      "vma_changed",
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

/// Where a page belongs, and who may write to it.
u64 judge_page(const Machine& machine, const Vma& vma, u64 addr, u64 word, const Page& page) {
  u64 found = 0;
  const bool ours = page.anon() ? !vma.shared() : page.file == vma.file;
  if (!(page.flags & PG_ksm) && (!ours || page.index != vma.index_of(addr)))
    found |= bit(Violation::index_unlike_vma);
  if (!page.anon() || page.mapcount <= 1) return found;
  if (machine.pages.anon_exclusive(pte_pfn(word))) found |= bit(Violation::exclusive_shared);
  if (word & _PAGE_RW) found |= bit(Violation::writable_shared);
  return found;
}

}  // namespace

std::span<const std::string_view> violation_names() { return NAMES; }

u64 judge_present(const Machine& machine, const Vma* vma, u64 addr, u64 word, Level level,
                  const Page* page) {
  if (!vma) return bit(Violation::entry_outside_vma);
  // Write-notify keeps RW off since v5.19; before, hazards 1 and 3 to 5 of the specification.
  constexpr u64 ARMED_RW = _PAGE_UFFD_WP | _PAGE_RW;
  u64 found = 0;
  if ((word & ARMED_RW) == ARMED_RW && machine.profile.writenotify_uffd_wp && vma->uffd_wp())
    found |= bit(Violation::armed_writable);
  if (level != PTE_LEVEL || (word & _PAGE_SPECIAL)) return found;
  if (!page || !page->mapcount) return found | bit(Violation::page_freed);
  return found | judge_page(machine, *vma, addr, word, *page);
}

u64 judge_entry(const Machine& machine, const Vma* vma, u64 addr, u64 word, Level level) {
  if (pte_none(word)) return 0;
  if (is_present(word, level)) {
    const Pfn pfn = leaf_address(word, level) >> PAGE_SHIFT;
    return judge_present(machine, vma, addr, word, level, machine.pages.find(pfn));
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
