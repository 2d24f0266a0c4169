// Taking entries away: what munmap, MADV_DONTNEED, truncation and exit leave behind. Models
// mm/memory.c:zap_pte_range with zap_present_ptes and zap_nonpresent_ptes (v6.18) and the v2
// series' section 7. Device entries are only cleared; huge PMDs are dropped or split.
#include <algorithm>

#include "ptwalk/address_space.hpp"
#include "ptwalk/huge.hpp"
#include "ptwalk/mutants.hpp"

namespace ptwalk {
namespace {

/// Takes a huge PMD away, whole or, by splitting it, in part. (zap_huge_pmd, mm/huge_memory.c,
/// v6.18)
void zap_huge_pmd(AddressSpace& mm, const Vma& vma, u64* pmd, Range part) {
  ProtectResult account;  // the caller of a zap asks for no account
  const HugeContext context{*mm.machine, mm.tables, vma, account};
  if (part.end - part.start < PMD_SIZE) return split_huge_pmd(context, pmd, part.start);
  const u64 old = *pmd;
  mm.machine->coverage.meet(LeafWalk::huge_zap, mm.profile(), old);
  *pmd = 0;
  if (pmd_present(old) && pmd_pfn(old) != HUGE_ZERO_PFN) mm.machine->unmap_page(pmd_pfn(old));
}

bool table_is_empty(const u64* table) {
  return std::all_of(table, table + PTRS_PER_TABLE, [](u64 entry) { return pte_none(entry); });
}

}  // namespace

void AddressSpace::install_uffd_wp_if_needed(const Vma& vma, u64* pte, u64 old) {
  const Profile& p = profile();
  if (vma.anonymous() || p.marker_format == MarkerFormat::none) return;
  const bool armed = pte_present(old) ? old & _PAGE_UFFD_WP
                                      : is_swap_pte(old) &&
                                            ((old & _PAGE_SWP_UFFD_WP) || p.is_uffd_wp_marker(old));
  if (!armed) return;
  if (!vma.uffd_wp()) cover(Branch::rule_persist_needs_uffd_vma);
  if (p.persist_needs_uffd_vma && !vma.uffd_wp()) return;
  cover(Branch::zap_leaves_marker);
  *pte = machine->shared_tables.word(Uniform::marker);
}

void AddressSpace::zap_pte(const Vma& vma, u64* pte, const ZapDetails& details) {
  const u64 old = *pte;
  const Profile& p = profile();
  if (pte_none(old)) return;
  machine->coverage.meet(LeafWalk::zap, p, old);
  if (pte_present(old)) {
    Page* const page = old & _PAGE_SPECIAL ? nullptr : machine->pages.find(pte_pfn(old));
    const bool copies_stay = !details.even_cows && !planted(Mutant::zap_takes_copies);
    if (copies_stay && page && page->anon()) {
      cover(Branch::zap_copy_stays);
      return;
    }
    cover(!page ? Branch::zap_special : page->anon() ? Branch::zap_anon : Branch::zap_file);
    *pte = 0;
    if (page && !page->anon() && p.pte_dirty(old)) page->flags |= PG_dirty;
    if (page && !planted(Mutant::zap_keeps_mapping)) machine->unmap_page(pte_pfn(old), *page);
  } else if (const u64 bits = p.marker_bits(old); bits & PTE_MARKER_UFFD_WP) {
    if (!vma.anonymous() && !details.drop_marker) {
      cover(Branch::zap_marker_stays);
      return;
    }
    cover(Branch::zap_marker_goes);
    if (details.drop_marker && planted(Mutant::unmap_keeps_markers)) return;
    *pte = 0;
  } else if (bits & PTE_MARKER_GUARD) {
    cover(details.drop_marker ? Branch::zap_guard_goes : Branch::zap_guard_stays);
    if (details.drop_marker) *pte = 0;
    return;
  } else {
    const SwpKind kind = p.swp_kind(old);
    const bool migration = kind >= SwpKind::migration_read && kind <= SwpKind::migration_write;
    const Page* page = migration ? machine->pages.find(swp_offset(old) & SWP_PFN_MASK) : nullptr;
    if (!details.even_cows && (!page || page->anon())) return;
    if (details.skip_swap && kind == SwpKind::swap) {
      cover(Branch::zap_swap_skipped);
      return;
    }
    cover(kind == SwpKind::swap ? Branch::zap_swap
          : migration           ? Branch::zap_migration
                                : Branch::zap_other);
    *pte = 0;
    if (kind == SwpKind::swap && !planted(Mutant::zap_keeps_slot))
      machine->put_slot(swp_offset(old));
    if (page) machine->unmap_page(swp_offset(old) & SWP_PFN_MASK);
  }
  if (planted(Mutant::zap_takes_marker)) return;
  if (!details.drop_marker) install_uffd_wp_if_needed(vma, pte, old);
}

void AddressSpace::zap_ptes(const Vma& vma, u64* pte, u64 nr, const ZapDetails& details) {
  for (const u64* const end = pte + nr; pte != end; ++pte)
    if (!pte_none(*pte)) zap_pte(vma, pte, details);
}

void AddressSpace::zap_range(const Vma& vma, u64 start, u64 end, const ZapDetails& details) {
  if (u64* const pte = tables.recent({start, end})) {  // part of one table, as most ranges are
    u64* const stop = pte + ((end - start) >> PAGE_SHIFT);
    u64* const first = std::find_if_not(pte, stop, pte_none);
    if (first == stop) return;
    machine->frames.will_store(first, u64(stop - first));
    return zap_ptes(vma, first, u64(stop - first), details);
  }
  zap_tables(vma, start, end, details);
}

void AddressSpace::zap_tables(const Vma& vma, u64 start, u64 end, const ZapDetails& details) {
  for (u64 addr = start, next; addr < end; addr = next) {
    const Extent at = tables.extent(addr, end);
    next = at.end;
    if (at.level == PTE_LEVEL && at.uniform) {
      zap_shared(vma, addr, at, details);
      continue;
    }
    const bool above = at.level > PTE_LEVEL;
    const EntryKind kind = above ? tables.kind(*at.entry, at.level) : EntryKind::table;
    if (kind == EntryKind::none) {
      cover_absent(Branch::zap_pgd, at.level);
      continue;
    }
    if (at.level == PMD_LEVEL && kind == EntryKind::leaf)
      zap_huge_pmd(*this, vma, tables.writable(addr, PMD_LEVEL), {addr, next});
    const u64 nr = (next - addr) >> PAGE_SHIFT;
    u64* const table = at.level <= PMD_LEVEL ? tables.writable(addr, PTE_LEVEL, nr) : nullptr;
    if (!table) continue;
    zap_ptes(vma, table, nr, details);
    if (nr < PTRS_PER_TABLE) continue;
    // A PTE table that the zap covered whole and left empty goes. (CONFIG_PT_RECLAIM, v6.14 on)
    if (details.reclaim_tables && table_is_empty(table)) {
      cover(Branch::zap_frees_table);
      tables.free_pte_table(tables.writable(addr, PMD_LEVEL));
    } else if (!details.drop_marker) {  // an unmap frees it anyway
      tables.share_if_uniform(tables.writable(addr, PMD_LEVEL));
    }
  }
}

/// Pages below shared tables: all have the same word, and go together.
void AddressSpace::zap_shared(const Vma& vma, u64 start, const Extent& at,
                              const ZapDetails& details) {
  cover(Branch::zap_shared_table);
  u64 word = *at.entry;
  zap_pte(vma, &word, details);
  if (word != *at.entry) (void)tables.fill(start, at.end, machine->shared_tables.uniform_of(word));
  if (!details.reclaim_tables || word) return;
  for (u64 addr = align_up(start, PMD_SIZE); at.end - addr >= PMD_SIZE && addr < at.end;
       addr += PMD_SIZE)
    tables.free_pte_table(tables.writable(addr, PMD_LEVEL));
}

}  // namespace ptwalk
