// A request to change protection, compiled once into masks and small tables: what becomes of a
// present entry, of each swap type, of a marker and of none. Models the decisions of
// mm/mprotect.c:change_pte_range that do not depend on the entry (v5.12 with the seed series, v6.1,
// v6.12, v6.18). Pure data: kernels.hpp applies it, and neither asks for the profile again.
// Left out: 6.17's batches over large folios, which also spread A and D within a folio.
#pragma once

#include <array>

#include "ptwalk/lane_rules.hpp"
#include "ptwalk/protect.hpp"
#include "ptwalk/vma.hpp"

namespace ptwalk {

/// How a new protection word enters a leaf of one level. (pte_modify, pmd_modify, pud_modify)
struct Modify {
  u64 keep = 0;  ///< bits that stay as they are
  u64 set = 0;   ///< bits of the protection word outside `keep`
  u64 pfn = 0;   ///< bits to flip when the need for inversion changes (L1TF)
  bool operator==(const Modify&) const = default;
};

/// When a present entry without RW gets RW. (can_change_pte_writable; v5.12: dirty_accountable)
struct Upgrade {
  bool possible = false;
  bool huge = false;             ///< huge leaves too. (can_change_pmd_writable, v6.2 on)
  bool not_protnone = false;     ///< a PROT_NONE entry is left alone
  bool needs_exclusive = false;  ///< the page must be anonymous and AnonExclusive
  u64 dirty = 0;                 ///< one of these bits must be set; 0: no condition
  u64 soft_dirty = 0;            ///< this bit must be set; 0: no condition
  u64 none_of = 0;               ///< none of these bits may be set
  bool operator==(const Upgrade&) const = default;
};

/// What a NUMA hinting request skips. (the prot_numa block of change_pte_range)
struct NumaRule {
  bool active = false;
  bool cow = false;          ///< pages with another mapping: the VMA may copy on write
  bool file_lru = false;     ///< dirty cache pages of this VMA's file
  bool on_target = false;    ///< every page with facts: the machine has one node, the task's own
  bool zone_device = false;  ///< every page: they are the device's
  bool operator==(const NumaRule&) const = default;
};

enum class SwapStep : u8 {
  keep,       ///< only the uffd bit may change
  downgrade,  ///< writable to readable, same offset
  marker,     ///< a PTE marker
};

/// What happens to the entries of one swap type.
struct SwapAction {
  SwapStep step = SwapStep::keep;
  u8 type = 0;       ///< downgrade: the type of a page that is not anonymous
  u8 type_anon = 0;  ///< downgrade: the type of an anonymous page
  u8 kept = 0;       ///< downgrade: flag bits carried over
  bool operator==(const SwapAction&) const = default;
};

/// One request on one VMA under one profile.
struct LeafPlan {
  // Present entries, in this order: modify, dirty shift, carry, clear, set, upgrade.
  std::array<Modify, 4> modify{};  ///< by level; [0] is unused
  u64 saved_dirty = 0;             ///< _PAGE_SAVED_DIRTY, 0 where D never moves
  u64 carry = 0;                   ///< bits of the old entry put back: NUMA's saved write
  u64 clear = 0;
  u64 set = 0;
  Upgrade upgrade{};
  NumaRule numa{};
  u64 devmap = 0;                 ///< SPECIAL entries with this bit have no page, quietly
  bool special_is_quiet = false;  ///< no SPECIAL entry of this VMA is reported as a bad page map

  // Swap-format entries.
  std::array<SwapAction, 32> swap{};
  u64 swp_clear = 0;
  u64 swp_set = 0;
  bool page_is_anon = false;   ///< what a migrating page without facts is taken for
  u8 huge_kept = 0;            ///< flag bits that a downgraded migration PMD keeps
  bool huge_swp_uffd = false;  ///< swp_clear and swp_set apply to migration PMDs

  // Markers and none.
  u64 special_marker = 0;  ///< the word that is a marker by equality; 0: there is none
  bool drops_marker = false;
  u64 marker_stays = 0;      ///< offset bits that keep a marker in place
  u64 none_becomes = 0;      ///< the word stored in a none entry; 0: none stays
  bool counts_none = false;  ///< entries left none are counted (wr-protect)

  // The walk above the entries.
  Populate populate = Populate::never;
  bool splits_file_pmd = false;
  bool gathers_flush = false;  ///< entries decide the flush; otherwise the count does

  LaneRules lanes{};  ///< the same for several entries at once
  u16 row = 0;        ///< of what coverage counts spans of entries by

  bool operator==(const LeafPlan&) const = default;
};

/// Compiles a request. `uffd_features`: of the VMA's userfaultfd, 0 without one; `mm_users`: tasks
/// that share the address space. Not both UFFD_WP and UFFD_WP_RESOLVE.
[[nodiscard]] LeafPlan compile_plan(const Profile& profile, const Vma& vma, u64 newprot,
                                    u32 cp_flags, u64 uffd_features, u32 mm_users);

/// Whether wr-protect leaves markers in none entries of `vma`.
/// (userfaultfd_wp_use_markers, include/linux/userfaultfd_k.h, v6.4 on; before: not anonymous)
[[nodiscard]] bool wp_use_markers(const Profile& profile, const Vma& vma, u64 uffd_features);

}  // namespace ptwalk
