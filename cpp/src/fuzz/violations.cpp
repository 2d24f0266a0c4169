#include "ptwalk/fuzz/violations.hpp"

namespace ptwalk::fuzz {
namespace {

constexpr std::string_view NAMES[] = {"armed_writable", "marker_in_anonymous", "entry_outside_vma",
                                      "count_sum", "flush_unlike_count"};

/// Whether none entries of an anonymous VMA may have been armed.
bool may_have_markers(const Machine& machine, const Vma& vma) {
  if (machine.profile.marker_vmas != MarkerVmas::registered) return false;
  return machine.uffd_features(vma.uffd) & UFFD_FEATURE_WP_UNPOPULATED;
}

}  // namespace

std::span<const std::string_view> violation_names() { return NAMES; }

u64 judge_entry(const Machine& machine, const Vma* vma, u64 word, Level level) {
  if (!word) return 0;
  if (!vma) return bit(Violation::entry_outside_vma);
  const Profile& p = machine.profile;
  // Write-notify keeps RW off since v5.19; before, hazards 1 and 3 to 5 of the specification.
  const bool present = level == PTE_LEVEL ? pte_present(word) : pmd_present(word);
  if (present && p.writenotify_uffd_wp && vma->uffd_wp() && (word & _PAGE_UFFD_WP) &&
      (word & _PAGE_RW))
    return bit(Violation::armed_writable);
  if (p.is_uffd_wp_marker(word) && vma->anonymous() && !may_have_markers(machine, *vma))
    return bit(Violation::marker_in_anonymous);
  return 0;
}

u64 judge_account(const Profile& profile, const ProtectResult& result) {
  u64 found = 0;
  if (result.pages != result.none_to_marker + result.marker_to_none + result.present + result.swap +
                          PMD_SIZE / PAGE_SIZE * result.huge)
    found |= bit(Violation::count_sum);
  if (profile.flush == FlushRule::whole_range && (result.pages > 0) == result.flush.empty())
    found |= bit(Violation::flush_unlike_count);
  return found;
}

}  // namespace ptwalk::fuzz
