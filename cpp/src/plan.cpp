// Compiles requests: the only place of change_protection that reads the profile's rules for leaves.
// Models the head of mm/mprotect.c:change_pte_range and the predicates that it calls.
#include "ptwalk/plan.hpp"

#include "ptwalk/coverage.hpp"
#include "ptwalk/mutants.hpp"
#include "ptwalk/userfaultfd.hpp"

namespace ptwalk {
namespace {

Modify modify_rule(const Profile& profile, u64 newprot, Level level) {
  u64 keep = profile.modify_mask(level);
  if (planted(Mutant::uffd_lost_by_mprotect)) keep &= ~_PAGE_UFFD_WP;
  if (planted(Mutant::dirty_lost)) keep &= ~profile.dirty_bits();
  if (planted(Mutant::pfn_not_inverted)) return {keep, newprot & ~keep, 0};
  return {keep, newprot & ~keep, pfn_mask(level)};
}

/// v5.12's rule. Its soft-dirty test is inverted: tracking means that VM_SOFTDIRTY is clear.
/// (mm/mprotect.c:change_pte_range, v5.12)
Upgrade dirty_accountable(const Profile& profile, const Vma& vma) {
  Upgrade rule;
  rule.dirty = profile.dirty_bits();
  rule.soft_dirty = (vma.flags & VM_SOFTDIRTY) ? profile.soft_dirty_bit() : 0;
  return rule;
}

/// mm/mprotect.c:can_change_pte_writable, v6.1 and v6.18.
Upgrade can_change_writable(const Profile& profile, const Vma& vma) {
  Upgrade rule;
  const bool always_dirty = profile.upgrade == UpgradeRule::dirty_or_exclusive_dirty;
  rule.huge = profile.huge_upgrade;
  rule.not_protnone = true;
  rule.needs_exclusive = !vma.shared() && !planted(Mutant::upgrade_of_shared);
  rule.dirty = vma.shared() || always_dirty ? profile.dirty_bits() : 0;
  rule.soft_dirty = (vma.flags & VM_SOFTDIRTY) ? 0 : profile.soft_dirty_bit();
  rule.none_of = vma.uffd_wp() && !planted(Mutant::upgrade_of_armed) ? _PAGE_UFFD_WP : 0;
  return rule;
}

Upgrade upgrade_rule(const Profile& profile, const Vma& vma, u32 cp_flags) {
  const bool accountable = profile.upgrade == UpgradeRule::dirty_accountable;
  Upgrade rule = accountable ? dirty_accountable(profile, vma) : can_change_writable(profile, vma);
  rule.possible = (cp_flags & MM_CP_TRY_CHANGE_WRITABLE) && (accountable || (vma.flags & VM_WRITE));
  return rule;
}

NumaRule numa_rule(const Profile& profile, const Vma& vma, u32 cp_flags, u32 mm_users) {
  NumaRule rule;
  rule.active = cp_flags & MM_CP_PROT_NUMA;
  rule.cow = vma.cow();
  rule.file_lru = vma.kind == VmaKind::regular || vma.kind == VmaKind::dax;
  rule.on_target = !vma.shared() && mm_users == 1;
  rule.zone_device = profile.numa_skips_zone_device && vma.kind == VmaKind::dax;
  return rule;
}

/// One row per writable kind: what it becomes, and which flags the conversion carries over. Device
/// private entries lose soft-dirty on purpose. (mm/mprotect.c:change_pte_range, v5.12 to v6.18)
struct Downgrade {
  SwpKind from, to, to_anon;
  bool soft_dirty, uffd_wp;
};

SwapAction downgrade(const Profile& profile, const Downgrade& row) {
  const int type = profile.swp_type_of(row.to);
  const int type_anon = profile.swp_type_of(row.to_anon);
  SwapAction action{SwapStep::downgrade, u8(type), u8(type_anon < 0 ? type : type_anon), 0};
  if (row.soft_dirty) action.kept |= u8(profile.swp_soft_dirty_bit());
  if (row.uffd_wp) action.kept |= u8(_PAGE_SWP_UFFD_WP);
  return action;
}

void compile_swap(const Profile& profile, LeafPlan& plan) {
  using enum SwpKind;
  const std::array<Downgrade, 3> rows{{
      {migration_write, migration_read, migration_read_exclusive, true,
       profile.migration_keeps_uffd},
      {device_private_write, device_private_read, device_private_read, false, true},
      {device_exclusive_write, device_exclusive_read, device_exclusive_read, true, true},
  }};
  for (unsigned type = 0; type < plan.swap.size(); ++type) {
    const SwpKind kind = profile.swp_kinds[type];
    if (kind == pte_marker) plan.swap[type].step = SwapStep::marker;
    for (const Downgrade& row : rows)
      if (row.from == kind) plan.swap[type] = downgrade(profile, row);
  }
  plan.huge_swp_uffd = profile.huge_migration_uffd;
  plan.huge_kept = u8(profile.swp_soft_dirty_bit());
  if (profile.huge_migration_uffd && profile.migration_keeps_uffd)
    plan.huge_kept |= u8(_PAGE_SWP_UFFD_WP);
}

/// The effects of UFFD_WP and UFFD_WP_RESOLVE on every kind of entry and on the walk.
void compile_uffd(const Profile& profile, const Vma& vma, u32 cp_flags, u64 features,
                  LeafPlan& plan) {
  if (profile.marker_format == MarkerFormat::special_pte)
    plan.special_marker = Profile::SPECIAL_PTE;
  plan.marker_stays = profile.marker_mask & ~PTE_MARKER_UFFD_WP;
  if (planted(Mutant::every_marker_dropped)) plan.marker_stays = 0;
  if (cp_flags & MM_CP_UFFD_WP) {
    plan.clear = planted(Mutant::rw_left_on) ? 0 : _PAGE_RW;
    plan.carry = planted(Mutant::rw_left_on) ? _PAGE_RW : plan.carry;
    plan.set = _PAGE_UFFD_WP;
    plan.swp_set = planted(Mutant::swap_not_armed) ? 0 : _PAGE_SWP_UFFD_WP;
    plan.counts_none = true;
    plan.splits_file_pmd = profile.wp_splits_file_pmd && !vma.anonymous();
    if (wp_use_markers(profile, vma, features)) {
      plan.none_becomes = profile.make_marker(PTE_MARKER_UFFD_WP);
      plan.populate = profile.populate;
    }
  } else if (cp_flags & MM_CP_UFFD_WP_RESOLVE) {
    plan.clear = planted(Mutant::uffd_left_on) ? 0 : _PAGE_UFFD_WP;
    plan.swp_clear = planted(Mutant::swap_not_resolved) ? 0 : _PAGE_SWP_UFFD_WP;
    plan.drops_marker = !(profile.marker_resolve_needs_file && vma.anonymous());
    if (planted(Mutant::marker_not_dropped)) plan.drops_marker = false;
  }
}

}  // namespace

bool wp_use_markers(const Profile& profile, const Vma& vma, u64 uffd_features) {
  if (planted(Mutant::marker_in_anonymous) && vma.anonymous() && profile.marker_mask) return true;
  if (planted(Mutant::marker_not_in_files) && !vma.anonymous()) return false;
  switch (profile.marker_vmas) {
    case MarkerVmas::none: return false;
    case MarkerVmas::file_backed: return !vma.anonymous();
    case MarkerVmas::registered: break;
  }
  return vma.uffd_wp() && (!vma.anonymous() || (uffd_features & UFFD_FEATURE_WP_UNPOPULATED));
}

LeafPlan compile_plan(const Profile& profile, const Vma& vma, u64 newprot, u32 cp_flags,
                      u64 uffd_features, u32 mm_users) {
  LeafPlan plan;
  for (Level level = PTE_LEVEL; level <= PUD_LEVEL; ++level)
    plan.modify[std::size_t(level)] = modify_rule(profile, newprot, level);
  plan.saved_dirty = profile.saved_dirty_bit;
  plan.carry = (cp_flags & MM_CP_PROT_NUMA) && profile.numa_saves_write ? _PAGE_RW : 0;
  plan.upgrade = upgrade_rule(profile, vma, cp_flags);
  plan.numa = numa_rule(profile, vma, cp_flags, mm_users);
  plan.devmap = profile.devmap_bit;
  plan.special_is_quiet = vma.flags & (VM_PFNMAP | VM_MIXEDMAP);
  plan.page_is_anon = vma.anonymous();
  plan.gathers_flush = profile.flush == FlushRule::gather;
  compile_swap(profile, plan);
  compile_uffd(profile, vma, cp_flags, uffd_features, plan);
  plan.lanes = lane_rules(plan);
  plan.row = Coverage::row_of(plan, vma);
  return plan;
}

}  // namespace ptwalk
