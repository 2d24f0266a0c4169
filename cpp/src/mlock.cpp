// mlock(2) and munlock(2): the VM_LOCKED flag VMA by VMA, then the pages. Models
// mm/mlock.c:do_mlock and apply_vma_lock_flags (v6.18). RLIMIT_MEMLOCK, mlock2's MLOCK_ONFAULT and
// the LRU are not modelled.
#include <algorithm>

#include "ptwalk/address_space.hpp"

namespace ptwalk {

Error AddressSpace::apply_lock(const char* call, u64 start, u64 length, u64 lock) {
  length = align_up(length + (start & (PAGE_SIZE - 1)), PAGE_SIZE);
  start = align_down(start, PAGE_SIZE);
  const u64 end = start + length;
  if (end < start) return {Cause::wraps, call, start, length};
  if (end == start) return {};
  if (!vmas.find(start)) return {Cause::hole, call, start};
  for (u64 at = start; at < end;) {
    const Vma* vma = vmas.find(at);
    if (!vma) return {Cause::hole, call, at};
    const u64 piece_end = std::min(vma->end, end);
    const bool changes = (vma->flags & VM_LOCKED) != lock && !(vma->flags & VM_SPECIAL) &&
                         vma->kind != VmaKind::hugetlb;
    if (changes) {
      if (split_would_exceed(at, piece_end)) return {Cause::map_count, call};
      const VmaList::Index i = split_off(at, piece_end);
      Vma& changed = vmas.edit(i);
      changed.flags = (changed.flags & ~VM_LOCKED) | lock;
      vmas.merge(i, profile());
    }
    at = piece_end;
  }
  return {};
}

Error AddressSpace::mlock(u64 start, u64 length) {
  if (Error e = apply_lock("mlock", start, length, VM_LOCKED)) return e;
  const u64 end = align_up(start + length, PAGE_SIZE);
  const auto out = populate_locked(align_down(start, PAGE_SIZE), end, false);
  // A fault that waits goes on when its handler has answered; any other failure is ENOMEM.
  if (out.ok() || out.error.cause == Cause::would_block) return {};
  return {Cause::lock_fault_failed, "mlock", out.error.a};
}

Error AddressSpace::munlock(u64 start, u64 length) {
  return apply_lock("munlock", start, length, 0);
}

}  // namespace ptwalk
