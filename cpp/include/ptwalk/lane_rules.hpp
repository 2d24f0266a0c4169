// A plan as masks, for kernels that look at several entries at once: what becomes of the common
// classes (present, none, the usual marker, swap of a file) without asking any entry. What does not
// fit into masks is named here too, so that such a kernel can hand it to the scalar one.
#pragma once

#include "ptwalk/types.hpp"

namespace ptwalk {

struct LeafPlan;

/// How D and SAVED_DIRTY trade places in a present entry. (pte_shift_saved_dirty, v6.6 on)
enum class DirtyMove : u8 {
  stay,
  out,             ///< D to SAVED_DIRTY, in every entry; `keep` is without D
  out_if_written,  ///< only in entries that had RW
  in_if_closed,    ///< SAVED_DIRTY to D in entries that had no RW
};

/// Which present entries get RW by the plan's Upgrade.
enum class LaneUpgrade : u8 {
  never,
  exclusive,    ///< all whose page is AnonExclusive; no bit of the entry matters but `up_veto`
  conditional,  ///< entries are judged one by one
};

/// Valid where `usable`; a plan that is not usable belongs to the scalar kernel as a whole.
struct LaneRules {
  bool usable = false;
  bool arms = false;     ///< UFFD_WP: swap words get a bit, none may become a marker
  bool loses_p = false;  ///< PROT_NONE: no result has P
  DirtyMove dirty = DirtyMove::stay;
  LaneUpgrade upgrade = LaneUpgrade::never;
  // An entry with P becomes (old & keep) ^ flip, upgraded (old & up_keep) ^ up_flip; then D
  // moves.
  u64 keep = 0, flip = 0;
  u64 up_keep = 0, up_flip = 0;
  u64 up_veto = 0;       ///< an entry with one of these bits is not upgraded for the asking
  u64 marker = 0;        ///< the usual marker's word; 0 without markers
  u64 marker_clear = 0;  ///< all ones: it becomes none
  u64 none_becomes = 0;
  u64 swp_bit = 0;         ///< set (arms) or cleared in a swap word
  u16 rare_word = 0xffff;  ///< low 16 bits of a marker of the series that must stay
  bool operator==(const LaneRules&) const = default;
};

/// Masks of a compiled plan.
[[nodiscard]] LaneRules lane_rules(const LeafPlan& plan);

}  // namespace ptwalk
