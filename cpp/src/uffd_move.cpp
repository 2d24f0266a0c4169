// UFFDIO_MOVE: pages change their address without a copy. Models mm/userfaultfd.c:move_pages,
// move_pages_pte and validate_move_areas (v6.12 and v6.18). Huge pages are not moved whole: the
// source must be mapped by small entries.
#include <cerrno>

#include "ptwalk/address_space.hpp"
#include "ptwalk/mutants.hpp"
#include "ptwalk/uffd_checks.hpp"

namespace ptwalk {
namespace {

constexpr u64 MODE_DONTWAKE = 1, MODE_ALLOW_SRC_HOLES = 2;
constexpr const char* CALL = "UFFDIO_MOVE";

/// validate_move_areas(): both anonymous, writable, equal rights, the destination registered here.
Error check_areas(const Vma& src, const Vma& dst, UffdId id) {
  const auto fail = [](Cause cause, const Vma& vma) {
    return Error{cause, CALL, vma.start, vma.end, vma.flags};
  };
  if ((src.flags ^ dst.flags) & VM_ACCESS_FLAGS) return fail(Cause::wrong_backing, dst);
  if (src.page_prot != dst.page_prot) return fail(Cause::wrong_backing, dst);
  if ((src.flags ^ dst.flags) & VM_LOCKED) return fail(Cause::wrong_backing, dst);
  if (!(src.flags & VM_WRITE)) return fail(Cause::wrong_backing, src);
  if (!src.anonymous()) return fail(Cause::wrong_backing, src);
  if (!dst.anonymous()) return fail(Cause::wrong_backing, dst);
  if (dst.uffd != id) return fail(Cause::not_registered_here, dst);
  return {};
}

struct PageMove {
  AddressSpace& mm;
  const Vma& dst_vma;
  u64 dst, src;
  bool holes_allowed;
};

Error move_present(const PageMove& m, u64* from, u64* to) {
  const Profile& p = m.mm.profile();
  const u64 old = *from;
  if (old & _PAGE_SPECIAL) {
    m.mm.cover(Branch::move_zero);
    *to = pfn_pte(pte_pfn(old), m.dst_vma.page_prot) | _PAGE_SPECIAL;
    *from = 0;
    return {};
  }
  PagePool& pool = m.mm.machine->pages;
  Page* page = pool.find(pte_pfn(old));
  if (!page || !pool.anon_exclusive(pte_pfn(old))) return {Cause::entry_busy, CALL, m.src};
  if (!planted(Mutant::move_keeps_index)) page->index = m.dst_vma.index_of(m.dst);
  m.mm.cover(Branch::move_page);
  u64 entry = pfn_pte(pte_pfn(old), m.dst_vma.page_prot);
  if (p.pte_dirty(old)) entry = p.pte_mkdirty(entry);
  *to = p.pte_mkwrite(entry);
  *from = 0;
  return {};
}

Error move_page(const PageMove& m) {
  const Profile& p = m.mm.profile();
  PageTable& tables = m.mm.tables;
  // A source without a table is judged before the destination is looked at, or made if it may be a
  // hole.
  if (Error e = m.mm.need_tables(CALL, 2 * u64(tables.levels()))) return e;
  u64* from = m.holes_allowed ? tables.ensure(m.src, PTE_LEVEL) : tables.writable(m.src, PTE_LEVEL);
  if (!from)
    return {m.holes_allowed ? Cause::table_alloc_failed : Cause::entry_missing, CALL, m.src};
  u64* to = tables.ensure(m.dst, PTE_LEVEL);
  if (!to) return {Cause::table_alloc_failed, CALL, m.dst};
  m.mm.machine->coverage.meet(LeafWalk::move, p, *from);
  if (!pte_none(*to)) return {Cause::entry_exists, CALL, m.dst, *to};
  if (pte_none(*from)) {
    if (!m.holes_allowed) return {Cause::entry_missing, CALL, m.src};
    m.mm.cover(Branch::move_hole);
    return {};
  }
  if (pte_present(*from)) return move_present(m, from, to);
  const SwpKind kind = p.swp_kind(*from);
  if (!p.is_marker(*from) && kind >= SwpKind::migration_read && kind <= SwpKind::migration_write)
    return {Cause::entry_migrating, CALL, m.src};
  if (p.is_marker(*from) || kind != SwpKind::swap)
    return {Cause::entry_special, CALL, m.src, *from};
  if (!(*from & _PAGE_SWP_EXCLUSIVE)) return {Cause::entry_busy, CALL, m.src};
  m.mm.cover(Branch::move_swap);
  *to = *from;
  *from = 0;
  return {};
}

}  // namespace

Result<i64> AddressSpace::uffd_move(UffdId id, u64 dst, u64 src, u64 length, u64 mode) {
  cover(Branch::rule_move_ioctl);
  if (!profile().move_ioctl) return {0, {Cause::unknown_ioctl, CALL}};
  if (Error e = check_context(*machine, id, CALL)) return {0, e};
  if (machine->uffds[u64(id)].mmap_changing) return {-EAGAIN, {Cause::mmap_changing, CALL}};
  if (Error e = check_range(*this, CALL, dst, length)) return {0, e};
  if (Error e = check_range(*this, CALL, src, length)) return {0, e};
  if (mode & ~(MODE_DONTWAKE | MODE_ALLOW_SRC_HOLES)) return {0, {Cause::bad_mode, CALL, mode}};
  const auto fail = [](const Error& e) { return Result<i64>{-errno_of(e.cause), e}; };
  // The source lies in one VMA that is not shared, then the destination in one that is registered.
  const Vma* from = vmas.find(src);
  const Vma* to = vmas.find(dst);
  if (!to) return fail({Cause::no_vma, CALL, dst, dst + length});
  if (!to->shared()) anon_vma_prepare(*to);
  if (!from) return fail({Cause::no_vma, CALL, src, src + length});
  if (from->shared() || from->end < src + length)
    return fail({Cause::wrong_backing, CALL, from->start, from->end, from->flags});
  if (to->shared() || to->end < dst + length)
    return fail({Cause::wrong_backing, CALL, to->start, to->end, to->flags});
  if (Error e = check_areas(*from, *to, id)) return fail(e);
  for (u64 done = 0; done < length; done += PAGE_SIZE) {
    const Error e =
        move_page({*this, *to, dst + done, src + done, bool(mode & MODE_ALLOW_SRC_HOLES)});
    if (!e) continue;
    if (done == 0) return fail(e);
    wake_range(id, dst, dst + done);
    return {i64(done), {Cause::partial, CALL, done}};
  }
  if (!(mode & MODE_DONTWAKE)) wake_range(id, dst, dst + length);
  return {i64(length), {}};
}

}  // namespace ptwalk
