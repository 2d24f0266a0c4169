// The leaf kernels: implementations of one contract, "apply this plan to these entries". Scalar is
// the reference and follows the kernel's order of tests; every other one equals it for all inputs.
// Models the loop of mm/mprotect.c:change_pte_range; page facts come from a PagePool.
#pragma once

#include <span>
#include <string_view>

#include "ptwalk/leaf_facts.hpp"
#include "ptwalk/page.hpp"
#include "ptwalk/plan.hpp"

namespace ptwalk {

/// What one application did; counts are entries.
struct SpanCounts {
  static constexpr u32 NO_FLUSH = PTRS_PER_TABLE;
  u32 pages = 0;    ///< the kernel's count
  u32 present = 0;  ///< present entries counted, changed or not; NUMA skips are not
  u32 swap = 0;
  u32 none_to_marker = 0;
  u32 marker_to_none = 0;
  u32 none_skipped = 0;
  u32 bad_page_map = 0;
  u32 flush_first = NO_FLUSH;  ///< first and last entry that the TLB may hold differently
  u32 flush_last = 0;
  bool operator==(const SpanCounts&) const = default;
};

/// Applies `plan` to at most 512 consecutive entries of one PTE table. `facts`: nullptr, or those
/// of the table where the span is all of it; on return what is known of the changed one.
using LeafKernel = SpanCounts (*)(const LeafPlan& plan, std::span<u64> ptes, const PagePool& pages,
                                  LeafFacts* facts);

struct KernelInfo {
  std::string_view name;
  LeafKernel apply;
};

/// The kernels that this processor can run, slowest first; the first is "scalar".
std::span<const KernelInfo> supported_kernels();
/// Those up to the one of that name; all for "". Throws std::invalid_argument for another name.
std::span<const KernelInfo> kernels_up_to(std::string_view name);
/// kernels_up_to() what the environment variable PTWALK_KERNEL says; decided at the first call.
std::span<const KernelInfo> kernels();
/// The one that change_protection() uses: the last of kernels().
const KernelInfo& active_kernel();

SpanCounts apply_scalar(const LeafPlan& plan, std::span<u64> ptes, const PagePool& pages);
/// In the vectors that every processor of the architecture has.
SpanCounts apply_vector(const LeafPlan& plan, std::span<u64> ptes, const PagePool& pages,
                        LeafFacts* facts);
#if defined(__x86_64__)
/// For processors with AVX2 only.
SpanCounts apply_avx2(const LeafPlan& plan, std::span<u64> ptes, const PagePool& pages,
                      LeafFacts* facts);
#endif

/// A present leaf of `level` under the plan, upgrade not yet tried.
/// (pte_modify … pte_mkuffd_wp in change_pte_range and change_huge_pmd)
[[nodiscard]] u64 change_present(const LeafPlan& plan, u64 old, Level level);
/// Whether the changed entry `word` may have RW. `bad_page_map` counts reports of vm_normal_page().
[[nodiscard]] bool can_upgrade(const LeafPlan& plan, u64 word, Level level, const PagePool& pages,
                               u32& bad_page_map);
/// RW on; SAVED_DIRTY back to D. (pte_mkwrite, v6.18)
[[nodiscard]] u64 upgraded(const LeafPlan& plan, u64 word);
/// A writable entry as a readable one, uffd step not applied. (make_readable_migration_entry, …)
[[nodiscard]] u64 downgraded(const LeafPlan& plan, const SwapAction& action, u64 kept, u64 old,
                             const PagePool& pages);

/// Whether the TLB may hold the old entry in a way that matters: D or P taken away, any permission
/// or cache bit changed either way, another frame. A is ignored.
/// (arch/x86/include/asm/tlbflush.h:pte_needs_flush, v6.18)
[[nodiscard]] constexpr bool needs_flush(u64 old, u64 now, Level level = PTE_LEVEL) {
  constexpr u64 ON_CLEAR = _PAGE_PRESENT | _PAGE_DIRTY;
  constexpr u64 ON_CHANGE = _PAGE_RW | _PAGE_USER | _PAGE_PWT | _PAGE_PCD | _PAGE_PSE |
                            _PAGE_GLOBAL | _PAGE_PKEY_MASK | _PAGE_NX;
  const u64 on_change = level == PTE_LEVEL ? ON_CHANGE : ON_CHANGE | _PAGE_PAT_LARGE;
  if (!(old & _PAGE_PRESENT)) return false;
  if (leaf_address(old, level) != leaf_address(now, level)) return true;
  return (old & ~now & ON_CLEAR) || ((old ^ now) & on_change);
}

}  // namespace ptwalk
