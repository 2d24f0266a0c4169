// Changes and splits huge leaves. Models mm/huge_memory.c (v5.12, v6.1, v6.12, v6.18); which kernel
// does what is in the plan and in the huge_memory group of the profile.
#include "ptwalk/huge.hpp"

#include <algorithm>

#include "ptwalk/kernels.hpp"

namespace ptwalk {
namespace {

bool is_migration(const Profile& profile, u64 pmd) {
  if (!is_swap_pmd(pmd)) return false;
  const SwpKind kind = profile.swp_kind(pmd);
  return kind == SwpKind::migration_read || kind == SwpKind::migration_read_exclusive ||
         kind == SwpKind::migration_write;
}

/// pmd_trans_huge() or pmd_devmap(); a swap-format word passes the latter by its inverted offset.
bool is_huge_or_devmap(const Profile& profile, u64 pmd) {
  return pmd & (_PAGE_PSE | profile.devmap_bit);
}

bool is_huge_zero(u64 pmd) { return pmd_pfn(pmd) == HUGE_ZERO_PFN; }

/// The migration half of change_huge_pmd(): never counted.
u64 changed_migration_pmd(const LeafPlan& plan, const PagePool& pages, u64 pmd) {
  const SwapAction& action = plan.swap[swp_type(pmd)];
  if (action.step == SwapStep::downgrade)
    pmd = downgraded(plan, action, plan.huge_kept, pmd, pages);
  return plan.huge_swp_uffd ? (pmd | plan.swp_set) & ~plan.swp_clear : pmd;
}

/// Mappings whose huge leaves have no page to account: PFN mappings, and DAX while its pages were
/// DEVMAP. (vma_is_special_huge, mm/huge_memory.c:__split_huge_pmd_locked, v5.12 and v6.18)
bool vma_is_special_huge(const Profile& profile, const Vma& vma) {
  return (vma.kind == VmaKind::dax && profile.devmap_bit) ||
         (vma.flags & (VM_PFNMAP | VM_MIXEDMAP));
}

/// Sets a flag of the huge page at `pfn`; true if it was clear. A page without facts had none set.
bool mark_page(PagePool& pages, Pfn pfn, u16 flag) {
  Page* page = pages.find(pfn);
  if (!page) return true;
  const bool was_clear = !(page->flags & flag);
  page->flags |= flag;
  return was_clear;
}

/// Gives the huge page up: D and A go to it, one mapping less, RSS sinks.
void drop_file_page(const HugeContext& context, u64 leaf, Level level) {
  Machine& machine = context.machine;
  ProtectResult& result = context.result;
  result.rss_file -= i64(level == PMD_LEVEL ? HPAGE_PMD_NR : HPAGE_PUD_NR);
  if (is_migration(machine.profile, leaf)) return;  // the page went with its migration
  const Pfn pfn = leaf_address(leaf, level) >> PAGE_SHIFT;
  if (machine.profile.pte_dirty(leaf)) result.dirtied += mark_page(machine.pages, pfn, PG_dirty);
  if (leaf & _PAGE_ACCESSED) result.referenced += mark_page(machine.pages, pfn, PG_referenced);
  if (machine.pages.find(pfn)) machine.unmap_page(pfn);
}

/// The pages behind the 512 new entries: what is known of the head holds for each of them.
void spread_facts(PagePool& pages, Pfn head_pfn) {
  if (!pages.find(head_pfn)) return;
  for (u64 i = 1; i < HPAGE_PMD_NR; ++i) {
    if (pages.find(head_pfn + i)) continue;
    Page& tail = pages.at(head_pfn + i);
    const u64 serial = tail.serial;
    tail = *pages.find(head_pfn);
    pages.set_anon_exclusive(head_pfn + i, pages.anon_exclusive(head_pfn));
    tail.serial = serial;
    tail.index += i;
  }
}

/// One of the 512 entries that a present anonymous PMD becomes; the PFN is that of the first.
u64 split_entry(const Profile& profile, const Vma& vma, u64 leaf) {
  u64 pte = pfn_pte(pmd_pfn(leaf), vma.page_prot);
  const bool write = leaf & _PAGE_RW;
  if (write && (vma.flags & VM_WRITE)) pte = profile.pte_mkwrite(pte);
  if (!write) pte = profile.pte_wrprotect(pte);
  if (!(leaf & _PAGE_ACCESSED)) pte &= ~_PAGE_ACCESSED;
  if (profile.split_copies_dirty && profile.pte_dirty(leaf)) pte = profile.pte_mkdirty(pte);
  pte |= leaf & (profile.soft_dirty_bit() | _PAGE_UFFD_WP);
  const bool uffd_wp = leaf & _PAGE_UFFD_WP;
  return uffd_wp && profile.mkuffd_wp_wrprotects ? profile.pte_wrprotect(pte) : pte;
}

/// Entries of a split huge zero page. (__split_huge_zero_page_pmd)
u64 split_zero_entry(const Profile& profile, const Vma& vma, u64 leaf) {
  const u64 pte = pfn_pte(ZERO_PFN, vma.page_prot) | _PAGE_SPECIAL;
  if (!profile.split_zero_keeps_uffd || !(leaf & _PAGE_UFFD_WP)) return pte;
  return profile.mkuffd_wp_wrprotects ? profile.pte_mkuffd_wp(pte) : pte | _PAGE_UFFD_WP;
}

/// Fills `ptes` from one split migration PMD: same kind, flags and age bits, a page each.
void split_migration(const Profile& profile, u64 leaf, u64* ptes) {
  const u64 flags = leaf & (profile.swp_soft_dirty_bit() | _PAGE_SWP_UFFD_WP);
  for (u64 i = 0; i < HPAGE_PMD_NR; ++i)
    ptes[i] = make_swp_pte(swp_type(leaf), swp_offset(leaf) + i) | flags;
}

void split_anon(const HugeContext& context, u64* pmd, u64 base) {
  const Profile& profile = context.machine.profile;
  const u64 leaf = *pmd;
  const bool migration = is_migration(profile, leaf);
  if (migration) context.machine.coverage.hit(Branch::rule_split_flushes_migration);
  if (!migration || profile.split_flushes_migration) context.result.pmd_flush.push_back(base);
  u64* ptes = context.tables.deposit_table(pmd);
  if (!ptes) return;  // out of table frames: the walk finds a leaf here and leaves it
  if (migration) return split_migration(profile, leaf, ptes);
  if (is_huge_zero(leaf)) {
    if (leaf & _PAGE_UFFD_WP) context.machine.coverage.hit(Branch::rule_split_zero_keeps_uffd);
    std::fill_n(ptes, HPAGE_PMD_NR, split_zero_entry(profile, context.vma, leaf));
    return;
  }
  if (profile.pte_dirty(leaf))
    context.result.dirtied += mark_page(context.machine.pages, pmd_pfn(leaf), PG_dirty);
  spread_facts(context.machine.pages, pmd_pfn(leaf));
  if (profile.pte_dirty(leaf)) context.machine.coverage.hit(Branch::rule_split_copies_dirty);
  if ((leaf & _PAGE_UFFD_WP) && (leaf & _PAGE_RW))
    context.machine.coverage.hit(Branch::rule_mkuffd_wp_wrprotects);
  const u64 first = split_entry(profile, context.vma, leaf);
  const u64 step = needs_invert(first) ? 0 - PAGE_SIZE : PAGE_SIZE;
  for (u64 i = 0; i < HPAGE_PMD_NR; ++i) ptes[i] = first + i * step;
}

}  // namespace

bool change_huge_pmd(const HugeContext& context, const LeafPlan& plan, u64* pmd, u64 addr) {
  const u64 old = *pmd;
  const PagePool& pages = context.machine.pages;
  if (is_swap_pmd(old)) {
    context.tables.store(pmd, changed_migration_pmd(plan, pages, old));
    return false;
  }
  if (plan.numa.active && (is_huge_zero(old) || pte_protnone(old))) return false;
  // Before mmu_gather, the entry was made invalid for a moment, and that flushed. (pmdp_invalidate)
  if (!plan.gathers_flush) context.result.pmd_flush.push_back(addr);
  u64 now = change_present(plan, old, PMD_LEVEL);
  u32 reports = 0;  // vm_normal_page_pmd() reports nothing
  if (plan.upgrade.huge && can_upgrade(plan, now, PMD_LEVEL, pages, reports))
    now = upgraded(plan, now);
  context.tables.store(pmd, now);
  if (plan.gathers_flush && needs_flush(old, now, PMD_LEVEL))
    context.result.gather_flush(addr, addr + PMD_SIZE);
  return true;
}

bool change_huge_pud(const HugeContext& context, const LeafPlan& plan, u64* pud, u64 addr) {
  if (plan.numa.active || plan.swp_set || plan.swp_clear) return false;
  context.tables.store(pud, change_present(plan, *pud, PUD_LEVEL));
  context.result.gather_flush(addr, addr + PUD_SIZE);  // whatever changed
  return true;
}

void split_huge_pmd(const HugeContext& context, u64* pmd, u64 addr) {
  const Profile& profile = context.machine.profile;
  const u64 base = align_down(addr, PMD_SIZE);
  context.result.notifier.push_back({NotifierKind::clear, base, base + PMD_SIZE, true});
  if (!is_huge_or_devmap(profile, *pmd) && !is_migration(profile, *pmd)) return;
  ++context.result.thp_split_pmd;
  context.machine.coverage.meet(LeafWalk::huge_split, profile, *pmd);
  if (context.vma.anonymous()) return split_anon(context, pmd, base);
  const u64 leaf = *pmd;
  context.tables.store(pmd, 0);
  context.result.pmd_flush.push_back(base);
  if (!vma_is_special_huge(profile, context.vma)) drop_file_page(context, leaf, PMD_LEVEL);
}

void split_huge_pud(const HugeContext& context, u64* pud, u64 addr) {
  const u64 base = align_down(addr, PUD_SIZE);
  const u64 leaf = *pud;
  context.result.notifier.push_back({NotifierKind::clear, base, base + PUD_SIZE, true});
  context.tables.store(pud, 0);
  context.result.pmd_flush.push_back(base);
  if (context.vma.kind == VmaKind::dax &&
      !vma_is_special_huge(context.machine.profile, context.vma))
    drop_file_page(context, leaf, PUD_LEVEL);
}

}  // namespace ptwalk
