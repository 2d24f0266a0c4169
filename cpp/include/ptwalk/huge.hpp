// Huge leaves in change_protection(): changing one whole, and splitting one. Models
// mm/huge_memory.c:change_huge_pmd, change_huge_pud, __split_huge_pmd and __split_huge_pud (v5.12,
// v6.1, v6.12, v6.18). Freezing for migration and the THP_SPLIT_PUD counter are left out.
#pragma once

#include "ptwalk/machine.hpp"
#include "ptwalk/plan.hpp"

namespace ptwalk {

/// Base pages of a huge leaf. (HPAGE_PMD_NR, HPAGE_PUD_NR)
inline constexpr u64 HPAGE_PMD_NR = 512;
inline constexpr u64 HPAGE_PUD_NR = 512 * 512;

/// What huge-leaf code works on: the tables, their VMA, and where the account goes.
struct HugeContext {
  Machine& machine;
  PageTable& tables;
  const Vma& vma;
  ProtectResult& result;
};

/// Applies `plan` to the leaf or migration PMD at `pmd`, which maps [addr, addr + 2 MiB). True when
/// it counts as 512 pages; false when there was nothing to count (a migration entry, a NUMA skip).
bool change_huge_pmd(const HugeContext& context, const LeafPlan& plan, u64* pmd, u64 addr);

/// The same for a PUD leaf, 262144 pages: only a plain change of protection applies.
bool change_huge_pud(const HugeContext& context, const LeafPlan& plan, u64* pud, u64 addr);

/// Splits the PMD at `pmd`, which maps the 2 MiB around `addr`. A file-backed one is dropped: the
/// entry becomes none, its D and A go to the page. An anonymous one (the huge zero page and
/// migration entries too) becomes a table of 512 entries. Anything else is left as it is.
void split_huge_pmd(const HugeContext& context, u64* pmd, u64 addr);

/// Drops the PUD leaf at `pud`, which maps the 1 GiB around `addr`.
void split_huge_pud(const HugeContext& context, u64* pud, u64 addr);

}  // namespace ptwalk
