// Faults on swap-format entries and on read-only present ones: markers, swap-in, copy on write.
// Models mm/memory.c:do_swap_page, handle_pte_marker, do_wp_page, wp_page_copy (v6.18) and v5.12's
// reuse rule. Swap readahead and writeback are not modelled; device pages end in SIGBUS instead of
// migrating back.
#include <utility>

#include "ptwalk/fault.hpp"
#include "ptwalk/mutants.hpp"

namespace ptwalk {
namespace {

Fault handle_marker(FaultContext& vmf) {
  const Profile& p = vmf.profile();
  const u64 bits = p.marker_bits(vmf.old) & p.marker_mask;
  if (bits & PTE_MARKER_POISONED) {
    vmf.cover(Branch::marker_poisoned);
    return Fault::hwpoison;
  }
  if (bits & PTE_MARKER_GUARD) {
    vmf.cover(Branch::marker_guard);
    return Fault::sigsegv;
  }
  if (!(bits & PTE_MARKER_UFFD_WP)) return Fault::sigbus;
  // A marker that outlived its registration is cleared, and the fault is taken again.
  const bool anonymous_too = p.marker_vmas == MarkerVmas::registered;
  if (!vmf.vma.uffd_wp() || (vmf.vma.anonymous() && !anonymous_too)) {
    vmf.cover(Branch::marker_stale);
    if (!planted(Mutant::stale_marker_stays)) *vmf.slot() = 0;
    return Fault::done;
  }
  vmf.cover(vmf.vma.anonymous() ? Branch::marker_anon : Branch::marker_file);
  return vmf.vma.anonymous() ? do_anonymous_page(vmf) : do_fault(vmf);
}

/// The page of a swap slot, read back into the swap cache if it is not there.
Pfn swapin_page(Machine& machine, u64 slot, u64 index) {
  if (machine.swap[slot].cached) return machine.swap[slot].cached;
  const Pfn pfn = machine.pages.alloc(PG_anon | PG_swapcache);
  Page& page = machine.pages.at(pfn);
  page.index = index;
  page.swap_slot = slot;
  machine.swap.edit(slot).cached = pfn;
  return pfn;
}

/// Whether an exclusive page comes back writable: on a store, and since 6.12 on a load too.
bool swapin_may_write(const FaultContext& vmf, u64 entry) {
  const Profile& p = vmf.profile();
  if (!(vmf.vma.flags & VM_WRITE)) return false;
  if (!p.swapin_arms_first) return vmf.request.write;
  const bool tracked = vmf.vma.uffd_wp() && (entry & _PAGE_UFFD_WP);
  const bool soft_dirty_fault =
      p.config.mem_soft_dirty && !(vmf.vma.flags & VM_SOFTDIRTY) && !(entry & _PAGE_SOFT_DIRTY);
  return !tracked && !soft_dirty_fault;
}

Fault swap_in(FaultContext& vmf) {
  const Profile& p = vmf.profile();
  Machine& machine = *vmf.mm.machine;
  const u64 slot = swp_offset(vmf.old);
  // A raw entry may name a slot that nothing was written to.
  if (slot >= machine.swap.size() || !machine.swap[slot].count) return Fault::sigbus;
  const Pfn pfn = swapin_page(machine, slot, vmf.vma.index_of(vmf.addr));
  Page& page = machine.pages.at(pfn);
  if (page.flags & PG_locked) {
    vmf.cover(Branch::swap_migrating);
    return Fault::migrating;
  }
  const bool shared_by_none = page.mapcount == 0;
  ++page.mapcount;
  machine.put_slot(slot);
  bool exclusive = p.swp_exclusive && (vmf.old & _PAGE_SWP_EXCLUSIVE);
  // A store may take the page out of the swap cache and so become its only user.
  if (vmf.request.write && shared_by_none && machine.free_swap(pfn)) exclusive = true;

  vmf.cover(exclusive ? Branch::swapin_exclusive : Branch::swapin_shared);
  if (vmf.old & _PAGE_SWP_UFFD_WP) vmf.cover(Branch::swapin_armed);
  u64 entry = pfn_pte(pfn, vmf.vma.page_prot);
  if (vmf.old & p.swp_soft_dirty_bit()) entry |= _PAGE_SOFT_DIRTY;
  const bool armed = (vmf.old & _PAGE_SWP_UFFD_WP) && !planted(Mutant::swapin_forgets_arm);
  if (armed && p.swapin_arms_first) entry = p.pte_mkuffd_wp(entry);
  bool still_to_write = vmf.request.write;
  if (exclusive) {
    if (armed || !vmf.request.write) vmf.cover(Branch::rule_swapin_arms_first);
    if (p.anon_exclusive) machine.pages.set_anon_exclusive(pfn, true);
    if (swapin_may_write(vmf, entry)) {
      vmf.cover(Branch::swapin_writable);
      entry = p.pte_mkwrite(vmf.request.write ? p.pte_mkdirty(entry) : entry);
      still_to_write = false;
    }
  }
  if (armed) entry = p.pte_mkuffd_wp(entry);
  u64* pte = vmf.slot();
  *pte = entry;
  if (!still_to_write) return Fault::done;
  vmf.old = entry;
  return do_wp_page(vmf);
}

/// A new private page in place of the one that the entry maps, or of the zero page.
Fault wp_page_copy(FaultContext& vmf) {
  Machine& machine = *vmf.mm.machine;
  const u64 old = vmf.old;
  vmf.mm.anon_vma_prepare(vmf.vma);
  vmf.cover(old & _PAGE_SPECIAL ? Branch::wp_copy_zero : Branch::wp_copy);
  vmf.old = 0;  // the copy does not inherit UFFD_WP
  *vmf.slot() = vmf.make_entry(machine.new_anon_page(vmf.vma.index_of(vmf.addr)));
  if (!(old & _PAGE_SPECIAL)) machine.unmap_page(pte_pfn(old));
  return Fault::done;
}

void wp_page_reuse(FaultContext& vmf, u64 old) {
  const Profile& p = vmf.profile();
  u64 entry = p.pte_mkdirty(old | _PAGE_ACCESSED);
  if (vmf.vma.flags & VM_WRITE) entry = p.pte_mkwrite(entry);
  *vmf.slot() = entry;
}

}  // namespace

bool can_reuse_anon(Machine& machine, Pfn pfn) {
  const Page* page = std::as_const(machine.pages).find(pfn);
  if (!page || !page->anon() || (page->flags & PG_ksm)) return false;
  if (machine.pages.anon_exclusive(pfn)) return true;
  // v5.12 counts the swap cache as another user; later kernels try to drop it first.
  if (planted(Mutant::reuse_of_shared)) return true;
  machine.coverage.hit(Branch::rule_anon_exclusive);
  const bool alone = machine.profile.anon_exclusive
                         ? page->mapcount == 1 && machine.free_swap(pfn)
                         : page->mapcount == 1 && !(page->flags & PG_swapcache);
  return alone;
}

Fault do_wp_page(FaultContext& vmf) {
  Machine& machine = *vmf.mm.machine;
  u64 old = vmf.old;
  if (vmf.vma.uffd_wp() && (old & _PAGE_UFFD_WP) && !planted(Mutant::fault_ignores_uffd)) {
    if (!(machine.uffd_features(vmf.vma.uffd) & UFFD_FEATURE_WP_ASYNC))
      return vmf.mm.handle_userfault(vmf.vma, vmf.request, VM_UFFD_WP);
    vmf.cover(Branch::wp_async);
    old &= ~_PAGE_UFFD_WP;
    *vmf.slot() = vmf.old = old;
  }
  const Pfn pfn = pte_pfn(old);
  if (vmf.vma.flags & (VM_SHARED | VM_MAYSHARE)) {
    vmf.cover(Branch::wp_shared);
    if (Page* page = machine.pages.find(pfn)) page->flags |= PG_dirty;
    wp_page_reuse(vmf, old);
    return Fault::done;
  }
  if (!(old & _PAGE_SPECIAL) && can_reuse_anon(machine, pfn)) {
    vmf.cover(Branch::wp_reuse);
    if (vmf.profile().anon_exclusive) machine.pages.set_anon_exclusive(pfn, true);
    wp_page_reuse(vmf, old);
    return Fault::done;
  }
  return wp_page_copy(vmf);
}

Fault do_swap_page(FaultContext& vmf) {
  const Profile& p = vmf.profile();
  if (p.is_marker(vmf.old)) return handle_marker(vmf);
  switch (p.swp_kind(vmf.old)) {
    case SwpKind::swap: return swap_in(vmf);
    case SwpKind::hwpoison: vmf.cover(Branch::swap_hwpoison); return Fault::hwpoison;
    case SwpKind::migration_read:
    case SwpKind::migration_read_exclusive:
    case SwpKind::migration_write: vmf.cover(Branch::swap_migration); return Fault::migrating;
    default: return Fault::sigbus;
  }
}

}  // namespace ptwalk
