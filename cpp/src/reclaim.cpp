// Reclaim and migration by reverse map: what becomes of the entries that map one page. Models
// mm/rmap.c:try_to_unmap_one, try_to_migrate_one and mm/migrate.c:remove_migration_pte (v5.12 with
// the v2 series, v6.1 to v6.18). LRU lists, writeback and failures to isolate are not modelled.
#include <algorithm>

#include "ptwalk/address_space.hpp"
#include "ptwalk/mutants.hpp"

namespace ptwalk {
namespace {

/// Calls visit(mm, vma, addr, pte) for every entry that maps `pfn` or, as a migration entry, will.
/// Anonymous pages are found by their linear index, which mremap and fork keep. (rmap_walk)
template <class Visit>
void rmap_walk(Machine& machine, Pfn pfn, Visit visit) {
  const Page page = machine.pages.at(pfn);
  for (AddressSpace* mm : machine.mms()) {
    for (const Vma& vma : mm->vmas.all()) {
      const bool may_map = page.anon() ? vma.anon_vma != 0 : vma.file == page.file;
      const u64 nr = vma.length() >> PAGE_SHIFT;
      if (!may_map || page.index < vma.pgoff || page.index - vma.pgoff >= nr) continue;
      const u64 addr = vma.address_of(page.index);
      const u64* pte = mm->tables.find(addr, PTE_LEVEL);
      if (!pte || pte_none(*pte) || machine.profile.is_marker(*pte)) continue;
      visit(*mm, vma, addr, mm->tables.writable(addr, PTE_LEVEL));
    }
  }
}

bool maps(u64 pte, Pfn pfn) {
  return pte_present(pte) && !(pte & _PAGE_SPECIAL) && pte_pfn(pte) == pfn;
}

/// Soft-dirty and uffd-wp bits of a present entry, in the swap format.
u64 carried_bits(const Profile& p, u64 pte) {
  return (pte & p.soft_dirty_bit() ? p.swp_soft_dirty_bit() : 0) |
         (pte & _PAGE_UFFD_WP && !planted(Mutant::reclaim_forgets_arm) ? _PAGE_SWP_UFFD_WP : 0);
}

SwpKind migration_kind(const Profile& p, u64 pte, bool exclusive) {
  if (pte & _PAGE_RW) return SwpKind::migration_write;
  return p.exclusive_types && exclusive ? SwpKind::migration_read_exclusive
                                        : SwpKind::migration_read;
}

}  // namespace

void Machine::reclaim_page(Pfn pfn) {
  Page& page = pages.at(pfn);
  const bool anonymous = page.anon();
  if (!anonymous && page.file == NO_FILE) return;  // a driver's page is on no LRU list
  bool discard = anonymous && (page.flags & PG_lazyfree) && !page.dirty();
  if (discard) {
    rmap_walk(*this, pfn, [&](AddressSpace&, const Vma&, u64, u64* pte) {
      discard &= !(maps(*pte, pfn) && profile.pte_dirty(*pte));
    });
  }
  coverage.hit(discard     ? Branch::reclaim_lazyfree
               : anonymous ? Branch::reclaim_anon
                           : Branch::reclaim_file);
  const u64 slot = anonymous && !discard ? slot_of(pfn) : NO_SLOT;
  rmap_walk(*this, pfn, [&](AddressSpace& mm, const Vma& vma, u64, u64* pte) {
    const u64 old = *pte;
    if (!maps(old, pfn)) return;
    coverage.meet(LeafWalk::unmap, profile, old);
    *pte = 0;
    if (!planted(Mutant::reclaim_forgets_marker)) mm.install_uffd_wp_if_needed(vma, pte, old);
    --page.mapcount;
    if (slot == NO_SLOT) return;
    if (pages.anon_exclusive(pfn)) coverage.hit(Branch::rule_swp_exclusive);
    *pte = make_swp_pte(0, slot) | carried_bits(profile, old) |
           (profile.swp_exclusive && pages.anon_exclusive(pfn) ? _PAGE_SWP_EXCLUSIVE : 0);
    dup_slot(slot);
  });
  if (page.mapcount > page.elsewhere) return;  // stored raw, where no reverse map leads: it stays
  if (anonymous) {
    if (discard) {
      free_if_unused(pfn, page);
      return;
    }
    swap.edit(slot).cached = 0;
    pages.free(pfn);
    return;
  }
  PageCache& cache = files.edit(u64(page.file)).cache;
  if (files[u64(page.file)].kind == FileKind::shmem) {
    const u64 to = slot_of(pfn);
    dup_slot(to);
    swap.edit(to).cached = 0;
    cache.edit(page.index) = {.pfn = 0, .swap_slot = to};
  } else {
    cache.erase(page.index);
  }
  pages.free(pfn);
}

void Machine::migrate_start(Pfn pfn) {
  Page& page = pages.at(pfn);
  page.flags |= PG_locked;
  rmap_walk(*this, pfn, [&](AddressSpace&, const Vma&, u64, u64* pte) {
    const u64 old = *pte;
    if (!maps(old, pfn)) return;
    if (profile.pte_dirty(old)) page.flags |= PG_dirty;
    coverage.meet(LeafWalk::migrate, profile, old);
    coverage.hit(old & _PAGE_RW ? Branch::migrate_write : Branch::migrate_read);
    const int type = profile.swp_type_of(migration_kind(profile, old, pages.anon_exclusive(pfn)));
    *pte = make_swp_pte(unsigned(type), pfn) | carried_bits(profile, old);
  });
  // The entries know it from here on, so that a fork can take it from them. (try_to_migrate_one)
  pages.set_anon_exclusive(pfn, false);
}

Pfn Machine::migrate_finish(Pfn pfn, u64 serial) {
  const Page* found = pages.find(pfn);
  if (!found || found->serial != serial) {
    coverage.hit(Branch::migrate_gone);
    return 0;
  }
  const Page source = *found;
  const Pfn target = pages.alloc(0);
  Page& page = pages.at(target);
  const u64 identity = page.serial;
  page = source;
  page.serial = identity;
  page.flags &= u16(~PG_locked);
  const bool may_be_exclusive = profile.anon_exclusive && page.anon();
  rmap_walk(*this, pfn, [&](AddressSpace&, const Vma& vma, u64, u64* pte) {
    const u64 old = *pte;
    if (!is_swap_pte(old) || profile.is_marker(old)) return;
    const SwpKind kind = profile.swp_kind(old);
    if (kind < SwpKind::migration_read || kind > SwpKind::migration_write) return;
    if ((swp_offset(old) & SWP_PFN_MASK) != pfn) return;
    u64 entry = pfn_pte(target, vma.page_prot & ~_PAGE_ACCESSED);
    if (old & profile.swp_soft_dirty_bit()) entry |= _PAGE_SOFT_DIRTY;
    const bool armed = old & _PAGE_SWP_UFFD_WP;
    coverage.hit(armed ? Branch::migrated_armed : Branch::migrated);
    if (may_be_exclusive && kind != SwpKind::migration_read) pages.set_anon_exclusive(target, true);
    if (kind == SwpKind::migration_write) {
      if (vma.flags & VM_WRITE) entry = profile.pte_mkwrite(entry);
    } else if (armed) {
      coverage.hit(Branch::rule_migration_wrprotects);
      // Before the fix of November 2022 RW stayed on, and the protection was lost.
      entry = profile.migration_wrprotects ? profile.pte_mkuffd_wp(entry) : entry | _PAGE_UFFD_WP;
      if (planted(Mutant::migration_gives_rw) && (vma.flags & VM_WRITE)) entry |= _PAGE_RW;
    }
    *pte = entry;
  });
  if (source.file != NO_FILE) files.edit(u64(source.file)).cache.edit(source.index).pfn = target;
  if (source.flags & PG_swapcache) swap.edit(source.swap_slot).cached = target;
  pages.free(pfn);
  return target;
}

const std::vector<Pfn>& AddressSpace::find_mapped_pages(u64 start, u64 length) const {
  std::vector<Pfn>& found = machine->found_pages;
  found.clear();
  for (u64 addr = start; addr - start < length;) {
    const WalkEnd at = tables.walk(addr);
    const u64 size = level_size(std::max(at.level, PTE_LEVEL));
    if (at.level == PTE_LEVEL && pte_present(*at.entry) && !(*at.entry & _PAGE_SPECIAL)) {
      const Page* page = machine->pages.find(pte_pfn(*at.entry));
      if (page && !(page->flags & PG_locked)) found.push_back(pte_pfn(*at.entry));
    }
    addr = align_down(addr, size) + size;
  }
  return found;
}

u64 AddressSpace::reclaim(u64 start, u64 length) {
  u64 taken = 0;
  for (const Pfn pfn : find_mapped_pages(start, length)) {
    if (!machine->pages.find(pfn)) continue;  // mapped twice in the range, and gone
    machine->reclaim_page(pfn);
    ++taken;
  }
  return taken;
}

std::vector<MigratingPage> AddressSpace::migrate_start(u64 start, u64 length) {
  std::vector<MigratingPage> pages;
  for (const Pfn pfn : find_mapped_pages(start, length)) {
    const Page& page = machine->pages.at(pfn);
    if (page.flags & PG_locked) continue;  // mapped twice in the range
    pages.push_back({pfn, page.serial});
    machine->migrate_start(pfn);
  }
  return pages;
}

}  // namespace ptwalk
