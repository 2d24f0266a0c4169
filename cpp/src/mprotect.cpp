// mprotect(2): its checks in the kernel's order, the change of each VMA, and the walk. Models
// mm/mprotect.c:do_mprotect_pkey and mprotect_fixup (v5.12 and v6.18). Security modules, sealing,
// MDWE and execute-only protection keys are not modelled.
#include <algorithm>

#include "ptwalk/address_space.hpp"

namespace ptwalk {
namespace {

constexpr int PROT_SEM = 8, PROT_GROWSDOWN = 0x01000000, PROT_GROWSUP = 0x02000000;

/// VM_ACCOUNT after the change: gained with the first write permission, lost again on 6.18.
u64 account_flag(const Profile& profile, const Vma& vma, u64 new_flags) {
  constexpr u64 CHARGED = VM_ACCOUNT | VM_WRITE | VM_HUGETLB | VM_SHARED | VM_NORESERVE;
  if (new_flags & VM_WRITE) return vma.flags & CHARGED ? new_flags : new_flags | VM_ACCOUNT;
  if (profile.ro_drops_account && vma.anonymous() && !vma.anon_vma) return new_flags & ~VM_ACCOUNT;
  return new_flags;
}

}  // namespace

Result<ProtectResult> AddressSpace::mprotect(u64 start, u64 length, int prot) {
  Result<ProtectResult> out;
  out.error = mprotect(start, length, prot, out.value);
  return out;
}

Error AddressSpace::mprotect(u64 start, u64 length, int prot, ProtectResult& account) {
  const auto fail = [](Cause cause, u64 a = 0, u64 b = 0, u64 c = 0) {
    return Error{cause, "mprotect", a, b, c};
  };
  constexpr int GROWS = PROT_GROWSDOWN | PROT_GROWSUP;
  if ((prot & GROWS) == GROWS) return fail(Cause::grow_both, u64(u32(prot)));
  if (!is_aligned(start, PAGE_SIZE)) return fail(Cause::start_unaligned, start);
  if (!length) return {};
  const u64 end = start + align_up(length, PAGE_SIZE);
  if (end <= start) return fail(Cause::length_overflow, start, length);
  if (prot & ~(7 | PROT_SEM | GROWS)) return fail(Cause::bad_prot, u64(u32(prot)));
  if (!vmas.find(start)) return fail(Cause::hole, start);
  // A VMA that cannot grow has neither bit; both were accepted only for stacks.
  if (prot & GROWS) return fail(Cause::bad_prot, u64(u32(prot)));

  const Profile& p = profile();
  for (u64 at = start; at < end;) {
    const Vma* found = vmas.find(at);
    if (!found) return fail(Cause::hole, at);
    const u64 piece_end = std::min(found->end, end);
    u64 flags = (found->flags & ~VM_ACCESS_FLAGS) | (u64(prot) & VM_ACCESS_FLAGS);
    if (flags & VM_ACCESS_FLAGS & ~(flags >> 4))
      return fail(Cause::may_not, found->start, found->end, found->flags);
    if (flags == found->flags) {
      cover(Branch::mprotect_same);
      at = piece_end;
      continue;
    }
    if (!(flags & VM_WRITE) && found->anonymous() && !found->anon_vma)
      cover(Branch::rule_ro_drops_account);
    flags = account_flag(p, *found, flags);
    const bool becomes_writable =
        (flags & VM_WRITE) && (found->flags & (VM_WRITE | VM_SHARED | VM_LOCKED)) == VM_LOCKED;
    if (split_would_exceed(at, piece_end)) return fail(Cause::map_count);
    VmaList::Index i = split_off(at, piece_end);
    vmas.edit(i).flags = flags;
    const u64 old_prot = vmas.all()[i].page_prot;
    i = vmas.merge(i, p);
    Vma& vma = vmas.edit(i);
    // The upgrade rule looks at the new flags beside the old protection word.
    vma.page_prot = old_prot;
    if (vma.flags & VM_WRITE) cover(Branch::rule_manual_write_upgrade);
    if (vma.uffd_wp()) cover_writenotify(vma);
    const bool upgrade = p.manual_write_upgrade ? vma_wants_manual_pte_write_upgrade(p, vma)
                                                : vma_wants_writenotify(p, vma, old_prot);
    vma.page_prot = vma_page_prot(p, vma);
    if (Error e = ptwalk::change_protection(*this, vma, {at, piece_end}, vma.page_prot,
                                            upgrade ? MM_CP_TRY_CHANGE_WRITABLE : 0, account))
      return fail(e.cause, e.a, e.b, e.c);
    cover(upgrade ? Branch::mprotect_upgrades : Branch::mprotect_plain);
    if (becomes_writable) (void)populate_locked(at, piece_end, true);
    at = piece_end;
  }
  return {};
}

Result<ProtectResult> AddressSpace::change_protection(u64 start, u64 end, u64 newprot,
                                                      u32 cp_flags) {
  constexpr u32 KNOWN = MM_CP_TRY_CHANGE_WRITABLE | MM_CP_PROT_NUMA | MM_CP_UFFD_WP_ALL;
  Result<ProtectResult> out;
  const auto fail = [&](Cause cause, u64 a = 0, u64 b = 0, u64 c = 0) {
    out.error = {cause, "change_protection", a, b, c};
    return out;
  };
  if (start >= end) return fail(Cause::range_backwards, start, end);
  if (!is_aligned(start | end, PAGE_SIZE)) return fail(Cause::range_unaligned, start, end);
  if (end > task_size())
    return fail(Cause::entry_not_canonical, end, task_size(), u64(tables.levels()));
  if (cp_flags & ~KNOWN) return fail(Cause::unknown_cp_flag, cp_flags);
  if ((cp_flags & MM_CP_UFFD_WP_ALL) == MM_CP_UFFD_WP_ALL)
    return fail(Cause::both_wp_and_resolve, cp_flags);
  for (u64 at = start; at < end; at = vmas.find(at)->end)
    if (!vmas.find(at)) return fail(Cause::vma_missing, at);
  if (cp_flags & MM_CP_UFFD_WP)
    if ((out.error = need_tables_for_change("change_protection", start, end))) return out;
  for (u64 at = start; at < end;) {
    const Vma& vma = *vmas.find(at);
    const u64 piece_end = std::min(vma.end, end);
    out.error =
        ptwalk::change_protection(*this, vma, {at, piece_end}, newprot, cp_flags, out.value);
    if (out.error) return out;
    at = piece_end;
  }
  return out;
}

}  // namespace ptwalk
