// One access: what the CPU does by itself, when it faults, and which part of the handler answers.
// Models arch/x86/mm/fault.c:do_user_addr_fault and mm/memory.c:handle_mm_fault, handle_pte_fault,
// do_wp_page, do_numa_page (v6.18). Faults on huge leaves, stack growth and retries are not
// modelled.
#include "ptwalk/fault.hpp"

#include <algorithm>

namespace ptwalk {
namespace {

constexpr int SIGBUS_NO = 7, SIGKILL_NO = 9, SIGSEGV_NO = 11;
constexpr int SEGV_MAPERR_CODE = 1, SEGV_ACCERR_CODE = 2, BUS_ADRERR_CODE = 2,
              BUS_MCEERR_AR_CODE = 4;

/// A load or store that the MMU completes: sets A, and D for a store. `at` is where the walk for it
/// ended.
bool cpu_access(PageTable& tables, u64 addr, bool write, WalkEnd& at) {
  const u64 entry = *at.entry;
  const u64 need = _PAGE_PRESENT | _PAGE_USER | (write ? _PAGE_RW : 0);
  if ((entry & need) != need) return false;
  if (at.level != PTE_LEVEL && !(entry & _PAGE_PSE)) return false;
  const u64 touched = entry | _PAGE_ACCESSED | (write ? _PAGE_DIRTY : 0);
  if (touched == entry) return true;
  u64* const slot = tables.writable(addr, at.level);
  *slot = touched;
  at.entry = slot;
  return true;
}

/// The PTE that a walk ended at, 0 where there is no PTE table.
u64 pte_of(const WalkEnd& at) { return at.level == PTE_LEVEL ? *at.entry : 0; }

/// The bits of an entry that allows an access of the kernel's. (follow_page_pte, mm/gup.c, v6.18)
constexpr u64 present_for(bool write) { return _PAGE_PRESENT | (write ? _PAGE_RW : 0); }

bool is_huge_leaf(const PageTable& tables, const WalkEnd& at) {
  return at.level > PTE_LEVEL && tables.kind(*at.entry, at.level) == EntryKind::leaf;
}

Signal signal_of(AddressSpace::Fault fault, const Config& config) {
  switch (fault) {
    case Fault::sigsegv: return {SIGSEGV_NO, SEGV_MAPERR_CODE};
    case Fault::hwpoison:
      return {SIGBUS_NO, config.memory_failure ? BUS_MCEERR_AR_CODE : BUS_ADRERR_CODE};
    case Fault::oom: return {SIGKILL_NO, 0};
    default: return {SIGBUS_NO, BUS_ADRERR_CODE};
  }
}

/// do_numa_page(): the entry gets the VMA's protection back.
Fault do_numa_page(FaultContext& vmf) {
  const Profile& p = vmf.profile();
  vmf.cover(Branch::numa_hint);
  u64 entry = p.leaf_modify(vmf.old, vmf.vma.page_prot, PTE_LEVEL) | _PAGE_ACCESSED;
  if (p.numa_saves_write && (vmf.old & _PAGE_RW)) entry = p.pte_mkwrite(entry);
  *vmf.slot() = entry;
  return Fault::done;
}

Fault handle_pte_fault(FaultContext& vmf) {
  const Profile& p = vmf.profile();
  vmf.mm.machine->coverage.meet(vmf.request.write ? LeafWalk::store : LeafWalk::load, p, vmf.old);
  if (pte_none(vmf.old)) return vmf.vma.anonymous() ? do_anonymous_page(vmf) : do_fault(vmf);
  if (!pte_present(vmf.old)) return do_swap_page(vmf);
  if (pte_protnone(vmf.old) && (vmf.vma.flags & VM_ACCESS_FLAGS)) return do_numa_page(vmf);
  u64 entry = vmf.old;
  if (vmf.request.write) {
    if (!(entry & _PAGE_RW)) return do_wp_page(vmf);
    entry = p.pte_mkdirty(entry);
  }
  vmf.cover(Branch::fault_spurious);
  *vmf.slot() = entry | _PAGE_ACCESSED;
  return Fault::done;
}

}  // namespace

u64 FaultContext::make_entry(Pfn pfn) const {
  const Profile& p = profile();
  u64 entry = pfn_pte(pfn, vma.page_prot);
  if (request.write) {
    entry = p.pte_mkdirty(entry);
    if (vma.flags & VM_WRITE) entry = p.pte_mkwrite(entry);
  }
  return armed() ? p.pte_mkuffd_wp(entry) : entry;
}

void AddressSpace::anon_vma_prepare(const Vma& vma) {
  if (vma.anon_vma) return;
  const VmaList::Index i = vmas.lower(vma.start);
  const u32 shared = vmas.reusable_anon_vma(i);
  cover(shared ? Branch::anon_vma_reused : Branch::anon_vma_new);
  Vma& changed = vmas.edit(i);
  changed.anon_vma = shared ? shared : machine->new_anon_vma();
  changed.anon_vma_chain = 1;
}

AddressSpace::Fault AddressSpace::handle_mm_fault(const Vma& vma, const FaultRequest& request) {
  const u64* pte = tables.find(request.addr, PTE_LEVEL);
  if (!pte) {
    const Level below = std::min(tables.walk(request.addr).level, P4D_LEVEL);
    cover(Branch(u16(Branch::fault_pgd) + u16(P4D_LEVEL - below)));
    if (!tables.ensure(request.addr, PMD_LEVEL)) return Fault::oom;
  }
  FaultContext vmf{*this, vma, request, align_down(request.addr, PAGE_SIZE), pte ? *pte : 0};
  return handle_pte_fault(vmf);
}

Error AddressSpace::touch(const FaultRequest& request, AccessResult& result) {
  result.address = request.addr;
  if (request.addr >= task_size())
    return {Cause::entry_not_canonical, "access", request.addr, task_size(), u64(tables.levels())};
  WalkEnd at = tables.walk(request.addr);
  const auto finish = [&](Outcome outcome, Signal signal = {}) {
    result.outcome = outcome;
    result.signal = signal;
    result.after = pte_of(at);
    return Error{};
  };
  result.before = pte_of(at);
  // The access that was blocked here before is retried in the kernel, without the CPU.
  const u64 page = align_down(request.addr, PAGE_SIZE);
  const PendingFault* waiting = pending.find(page);
  bool in_kernel = waiting && waiting->write == request.write;
  if (in_kernel) {
    cover(Branch::access_retry);
    pending.erase(page);
  }
  for (bool stuck = false;; in_kernel = false) {
    if (!in_kernel && cpu_access(tables, request.addr, request.write, at)) {
      cover(request.write ? Branch::access_store : Branch::access_load);
      return finish(Outcome::done);
    }
    if (stuck)  // an entry without US, say: the kernel would take the fault for ever
      return {Cause::fault_repeats, "access", request.addr, pte_of(at)};
    const Vma* vma = vmas.find(request.addr);
    if (!vma) {
      cover(Branch::access_no_vma);
      return finish(Outcome::signal, {SIGSEGV_NO, SEGV_MAPERR_CODE});
    }
    // access_error(): a store needs VM_WRITE; a load any of R, W, X.
    if (!(vma->flags & (request.write ? VM_WRITE : VM_ACCESS_FLAGS))) {
      cover(Branch::access_denied);
      return finish(Outcome::signal, {SIGSEGV_NO, SEGV_ACCERR_CODE});
    }
    if (vma->kind == VmaKind::hugetlb || is_huge_leaf(tables, at))
      return {Cause::huge_fault, "access", request.addr};
    if (Error e = need_tables_for_page("access", request.addr)) return e;
    const u64 seen = pte_of(at);
    const Fault fault = handle_mm_fault(*vma, request);
    at = tables.walk(request.addr);
    stuck = seen == pte_of(at);
    if (fault == Fault::blocked) {
      if (const PendingFault* waits = pending.find(page)) result.message = waits->message;
      return finish(Outcome::blocked);
    }
    if (fault == Fault::migrating) return finish(Outcome::blocked);
    if (fault == Fault::hwpoison) cover(Branch::rule_memory_failure);
    if (fault != Fault::done) return finish(Outcome::signal, signal_of(fault, profile().config));
  }
}

Result<AccessResult> AddressSpace::access(u64 addr, bool write, u32 thread) {
  Result<AccessResult> out;
  out.error = touch({.addr = addr, .write = write, .thread = thread}, out.value);
  return out;
}

Result<u64> AddressSpace::access_many(std::span<const u64> addrs, std::span<const u8> write,
                                      std::span<AccessRecord> out) {
  for (std::size_t i = 0; i < addrs.size(); ++i) {
    AccessResult done;
    if (Error e = touch({addrs[i], write[i] != 0}, done)) return {i, e};
    out[i] = {done.before, done.after, u8(done.outcome), u8(done.signal.signo),
              u8(done.signal.code)};
  }
  return {addrs.size(), {}};
}

Result<AccessResult> AddressSpace::kernel_access(u64 addr, bool write) {
  Result<AccessResult> out;
  out.error = touch({addr, write, true}, out.value);
  if (out.ok() && out.value.outcome == Outcome::signal)
    out.error = {Cause::page_fault_failed, write ? "read" : "write", addr,
                 u64(out.value.signal.signo), u64(out.value.signal.code)};
  return out;
}

u64 AddressSpace::fault_in_neighbours(const Vma& vma, u64 addr, u64 end, const FaultIn& how) {
  constexpr u64 WAITS = VM_UFFD_MISSING | VM_UFFD_MINOR;
  const u64* const ptes = tables.find(addr, PTE_LEVEL);
  const u64 need = present_for(how.write);
  const u64 table_end = align_down(addr, PMD_SIZE) + PMD_SIZE;
  const u64 nr = (std::min({end, vma.end, table_end}) - addr) >> PAGE_SHIFT;
  u64 done = 0;
  for (; done < nr; ++done) {
    if ((ptes[done] & need) == need) continue;
    if (!pte_none(ptes[done]) || (vma.flags & WAITS)) break;
    const u64 at = addr + (done << PAGE_SHIFT);
    FaultContext vmf{*this, vma, {at, how.write, true, how.nowait}, at, 0};
    if (handle_pte_fault(vmf) != Fault::done || (ptes[done] & need) != need) break;
  }
  return done;
}

Result<u64> AddressSpace::fault_in(const char* call, u64 start, u64 end, const FaultIn& how) {
  u64 done = 0;
  const auto fail = [&](Cause cause, u64 a = 0, u64 b = 0, u64 c = 0) {
    return Result<u64>{done, {cause, call, a, b, c}};
  };
  const u64 access = how.write ? VM_WRITE : VM_READ;
  const u64 allowed = how.force ? access << 4 : access;
  const u64 need = present_for(how.write);
  for (u64 addr = start; addr < end; addr = start + (done << PAGE_SHIFT)) {
    const Vma* vma = vmas.find(addr);
    if (!vma) return fail(Cause::hole, addr);
    if (vma->kind == VmaKind::hugetlb || is_huge_leaf(tables, tables.walk(addr)))
      return fail(Cause::huge_fault, addr);
    if (!(vma->flags & allowed)) return fail(Cause::gup_refused, vma->start, vma->end, vma->flags);
    for (u64 seen = 0;;) {
      // follow_page_pte(): an entry that allows the access is left alone.
      const u64* pte = tables.find(addr, PTE_LEVEL);
      if (pte && (*pte & need) == need) break;
      if (pte && *pte && *pte == seen) return fail(Cause::fault_repeats, addr, seen);
      seen = pte ? *pte : 0;
      if (Error e = need_tables_for_page(call, addr)) return {done, e};
      const Fault fault = handle_mm_fault(*vma, {addr, how.write, true, how.nowait});
      if (fault == Fault::blocked || fault == Fault::migrating)
        return fail(Cause::would_block, addr);
      if (fault == Fault::done) continue;
      if (fault == Fault::oom) return fail(Cause::table_alloc_failed, addr);
      const Signal signal = signal_of(fault, profile().config);
      return fail(fault == Fault::hwpoison ? Cause::page_poisoned : Cause::page_fault_failed, addr,
                  u64(signal.signo), u64(signal.code));
    }
    ++done;
    const u64 next = addr + PAGE_SIZE;
    if (next < std::min(end, vma->end) && !is_aligned(next, PMD_SIZE))
      done += fault_in_neighbours(*vma, next, end, how);
  }
  return {done, {}};
}

Result<u64> AddressSpace::populate(u64 start, u64 length, bool write) {
  const char* const call = "populate";
  if (!is_aligned(start, PAGE_SIZE)) return {0, {Cause::start_unaligned, call, start}};
  if (start > task_size() || length > task_size() - start)
    return {0, {Cause::beyond_task_size, call, start, length, task_size()}};
  return fault_in(call, start, start + align_up(length, PAGE_SIZE), {.write = write});
}

Result<u64> AddressSpace::populate_locked(u64 start, u64 end, bool nowait) {
  Result<u64> out;
  for (u64 at = start; at < end && out.ok();) {
    const Vma* vma = vmas.find(at);
    if (!vma) break;
    const u64 piece_end = std::min(vma->end, end);
    // Private writable memory is written, so that copies happen now.
    const bool write = (vma->flags & (VM_WRITE | VM_SHARED)) == VM_WRITE;
    const bool force = vma->flags & VM_ACCESS_FLAGS;
    if (!(vma->flags & (VM_IO | VM_PFNMAP)))
      out = fault_in("mlock", at, piece_end, {write, force, nowait});
    at = piece_end;
  }
  return out;
}

}  // namespace ptwalk
