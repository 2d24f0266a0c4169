// Faults on none entries: anonymous memory, file pages read, copied or shared, fault-around. Models
// mm/memory.c:do_anonymous_page, do_read_fault, do_cow_fault, do_shared_fault, finish_fault,
// mm/filemap.c:filemap_map_pages and mm/shmem.c:shmem_fault (v6.18). Of readahead only the reading
// around a fault is modelled.
#include <algorithm>
#include <utility>

#include "ptwalk/fault.hpp"

namespace ptwalk {
namespace {

constexpr u64 FAULT_AROUND_PAGES = 16;  // fault_around_bytes, 64 KiB

/// A page of a file made present for a read: dirty at once on kernels that map dirty folios so.
u64 read_entry(const FaultContext& vmf, Pfn pfn) {
  const Profile& p = vmf.profile();
  u64 entry = pfn_pte(pfn, vmf.vma.page_prot);
  const Page* page = std::as_const(vmf.mm.machine->pages).find(pfn);
  if (!(entry & _PAGE_RW) || !page || !page->dirty()) return entry;
  vmf.cover(Branch::rule_faultaround_dirty);
  if (p.faultaround_dirty) entry = p.pte_mkdirty(entry);
  return entry;
}

/// Maps what the page cache holds of the 64 KiB around the fault; true if the fault is answered.
bool fault_around(const FaultContext& vmf) {
  const Vma& vma = vmf.vma;
  if (vma.flags & (VM_UFFD_WP | VM_UFFD_MINOR)) return false;  // uffd_disable_fault_around()
  Machine& machine = *vmf.mm.machine;
  const File& file = machine.files[u64(vma.file)];
  const u64 start = std::max(align_down(vmf.addr, FAULT_AROUND_PAGES * PAGE_SIZE), vma.start);
  const u64 table_end = align_down(vmf.addr, PMD_SIZE) + PMD_SIZE;
  const u64 end = std::min({start + FAULT_AROUND_PAGES * PAGE_SIZE, table_end, vma.end});
  const u64 last = std::min(vma.index_of(end), file.nr_pages());
  const u64* const seen =
      vmf.mm.tables.find(start, PTE_LEVEL);  // each is looked at before it is set
  bool answered = false;
  for (u64 index = file.cache.next(vma.index_of(start), last); index < last;
       index = file.cache.next(index + 1, last)) {
    const u64 addr = vma.address_of(index);
    if (seen && !pte_none(seen[(addr - start) >> PAGE_SHIFT])) continue;
    const Pfn pfn = machine.cached_page(vma.file, index);
    if (!pfn || (std::as_const(machine.pages).find(pfn)->flags & PG_locked)) continue;
    u64* const pte = vmf.mm.tables.ensure(addr, PTE_LEVEL);
    if (!pte) continue;
    *pte = read_entry(vmf, pfn);
    machine.map_page(pfn);
    vmf.cover(addr == vmf.addr ? Branch::around_answers : Branch::around_maps);
    answered |= addr == vmf.addr;
  }
  return answered;
}

/// Reads 128 KiB around a page that is not cached. (do_sync_mmap_readahead, mm/filemap.c, v6.18)
void read_around(const FaultContext& vmf) {
  constexpr u64 RA_PAGES = 32;
  vmf.cover(Branch::readahead);
  Machine& machine = *vmf.mm.machine;
  const u64 index = vmf.vma.index_of(vmf.addr);
  // Executable mappings are read from the fault on, as code runs forward. (v6.16 on)
  const u64 first = vmf.vma.flags & VM_EXEC ? index : index - std::min(index, RA_PAGES / 2);
  const u64 last = std::min(first + RA_PAGES, machine.files[u64(vmf.vma.file)].nr_pages());
  for (u64 i = first; i < last; ++i) (void)machine.get_page(vmf.vma.file, i);
}

bool must_read(const File& file, u64 index) {
  return file.kind == FileKind::regular && index < file.nr_pages() && !file.cache.contains(index);
}
bool must_read(const FaultContext& vmf) {
  return vmf.vma.file != NO_FILE &&
         must_read(vmf.mm.machine->files[u64(vmf.vma.file)], vmf.vma.index_of(vmf.addr));
}

Fault do_read_fault(FaultContext& vmf) {
  if (vmf.vma.file != NO_FILE && fault_around(vmf)) return Fault::done;
  if (must_read(vmf)) {
    // Reading drops the mmap lock, and the fault is taken again from the start. (VM_FAULT_RETRY)
    read_around(vmf);
    if (fault_around(vmf)) return Fault::done;
  }
  Pfn page = 0;
  if (const Fault fault = file_fault(vmf, page); fault != Fault::done) return fault;
  u64* pte = vmf.slot();
  if (!pte) return Fault::oom;
  vmf.cover(vmf.armed() ? Branch::read_armed : Branch::read_plain);
  const u64 entry = read_entry(vmf, page);
  *pte = vmf.armed() ? vmf.profile().pte_mkuffd_wp(entry) : entry;
  vmf.mm.machine->map_page(page);
  return Fault::done;
}

Fault do_cow_fault(FaultContext& vmf) {
  vmf.mm.anon_vma_prepare(vmf.vma);
  Pfn page = 0;
  if (const Fault fault = file_fault(vmf, page); fault != Fault::done) return fault;
  u64* pte = vmf.slot();
  if (!pte) return Fault::oom;
  vmf.cover(vmf.armed() ? Branch::cow_armed : Branch::cow_plain);
  *pte = vmf.make_entry(vmf.mm.machine->new_anon_page(vmf.vma.index_of(vmf.addr)));
  return Fault::done;
}

Fault do_shared_fault(FaultContext& vmf) {
  Pfn page = 0;
  if (const Fault fault = file_fault(vmf, page); fault != Fault::done) return fault;
  u64* pte = vmf.slot();
  if (!pte) return Fault::oom;
  vmf.cover(vmf.armed() ? Branch::shared_armed : Branch::shared_plain);
  *pte = vmf.make_entry(page);
  vmf.mm.machine->map_page(page);
  vmf.mm.machine->pages.at(page).flags |= PG_dirty;
  return Fault::done;
}

}  // namespace

Fault file_fault(const FaultContext& vmf, Pfn& page) {
  const Vma& vma = vmf.vma;
  Machine& machine = *vmf.mm.machine;
  if (vma.file == NO_FILE) return Fault::sigbus;
  const File& file = machine.files[u64(vma.file)];
  const u64 index = vma.index_of(vmf.addr);
  if (index >= file.nr_pages()) {
    vmf.cover(Branch::beyond_eof);
    return Fault::sigbus;
  }
  if (file.kind == FileKind::shmem) {
    const bool held = file.cache.contains(index);
    if (held && (vma.flags & VM_UFFD_MINOR))
      return vmf.mm.handle_userfault(vma, vmf.request, VM_UFFD_MINOR);
    if (!held && (vma.flags & VM_UFFD_MISSING))
      return vmf.mm.handle_userfault(vma, vmf.request, VM_UFFD_MISSING);
  }
  if (must_read(file, index)) read_around(vmf);
  page = machine.cached_page(vma.file, index);
  const Page* cached = page ? std::as_const(machine.pages).find(page) : nullptr;
  if (cached && (cached->flags & PG_locked)) {
    vmf.cover(Branch::file_migrating);
    return Fault::migrating;
  }
  if (!page) page = machine.get_page(vma.file, index);
  return Fault::done;
}

Fault do_anonymous_page(FaultContext& vmf) {
  const Profile& p = vmf.profile();
  Machine& machine = *vmf.mm.machine;
  u64* pte = vmf.slot();
  if (!pte) return Fault::oom;
  if (vmf.request.write) vmf.mm.anon_vma_prepare(vmf.vma);
  if (vmf.vma.flags & VM_UFFD_MISSING)
    return vmf.mm.handle_userfault(vmf.vma, vmf.request, VM_UFFD_MISSING);
  if (vmf.request.write) {
    vmf.cover(vmf.armed() ? Branch::anon_write_armed : Branch::anon_write);
    *pte = vmf.make_entry(machine.new_anon_page(vmf.vma.index_of(vmf.addr)));
  } else {
    vmf.cover(vmf.armed() ? Branch::zero_armed : Branch::zero_plain);
    const u64 entry = pfn_pte(ZERO_PFN, vmf.vma.page_prot) | _PAGE_SPECIAL;
    *pte = vmf.armed() ? p.pte_mkuffd_wp(entry) : entry;
  }
  return Fault::done;
}

Fault do_fault(FaultContext& vmf) {
  if (!vmf.request.write) return do_read_fault(vmf);
  return vmf.vma.shared() ? do_shared_fault(vmf) : do_cow_fault(vmf);
}

}  // namespace ptwalk
