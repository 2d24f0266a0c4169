// The ioctls that fill missing pages: COPY, ZEROPAGE, CONTINUE, POISON. Models mm/userfaultfd.c:
// mfill_atomic and its mfill_atomic_pte_* (v6.18) and v5.12's rules where the profile says so.
// Contents are not modelled, so a copy differs from a zeroed page by nothing; hugetlb is refused.
#include <cerrno>

#include "ptwalk/address_space.hpp"
#include "ptwalk/fault.hpp"
#include "ptwalk/mutants.hpp"
#include "ptwalk/uffd_checks.hpp"

namespace ptwalk {
namespace {

constexpr u64 MODE_DONTWAKE = 1, MODE_WP = 2;

enum class Fill : u8 { copy, zeropage, continue_, poison };

struct FillRequest {
  Fill fill;
  const char* call;
  bool wp = false;
};

/// One page of a fill: where it goes and what is there.
struct Slot {
  AddressSpace& mm;
  const Vma& vma;
  u64 addr;
  u64* pte;
  const FillRequest& request;

  [[nodiscard]] Error exists() const { return {Cause::entry_exists, request.call, addr, *pte}; }
  /// mfill_file_over_size(): nothing is put beyond the end of the file, into private mappings
  /// either.
  [[nodiscard]] bool beyond_eof() const {
    return !vma.anonymous() && vma.index_of(addr) >= mm.machine->files[u64(vma.file)].nr_pages();
  }
};

/// mfill_atomic_install_pte(): the entry of a page that the handler supplied.
Error install(const Slot& s, Pfn pfn, bool page_in_cache) {
  const Profile& p = s.mm.profile();
  const bool over_marker = s.vma.shared() || p.copy_private_over_marker;
  if (p.is_marker(*s.pte) && !s.vma.shared()) s.mm.cover(Branch::rule_copy_private_over_marker);
  if (!pte_none(*s.pte) && !(over_marker && p.is_marker(*s.pte))) return s.exists();
  const bool may_write = s.vma.flags & VM_WRITE;
  s.mm.cover(!pte_none(*s.pte) ? Branch::fill_over_marker
             : s.vma.shared()  ? Branch::fill_shared
             : page_in_cache   ? Branch::fill_private_cached
                               : Branch::fill_private);
  if (s.request.wp) s.mm.cover(Branch::fill_wp);
  if (s.request.wp && !may_write) s.mm.cover(Branch::rule_copy_ignores_wp_readonly);
  u64 entry = pfn_pte(pfn, s.vma.page_prot);
  if (may_write || !p.copy_ignores_wp_readonly || !s.vma.shared()) entry = p.pte_mkdirty(entry);
  if (may_write && !(page_in_cache && !s.vma.shared())) entry = p.pte_mkwrite(entry);
  const bool arms = s.request.wp && !planted(Mutant::copy_forgets_wp);
  if (arms && (may_write || !p.copy_ignores_wp_readonly)) entry = p.pte_mkuffd_wp(entry);
  *s.pte = entry;
  return {};
}

Error fill_private_copy(const Slot& s) {
  Machine& machine = *s.mm.machine;
  const Pfn pfn = machine.new_anon_page(s.vma.index_of(s.addr));
  const Error error = install(s, pfn, false);
  if (error) machine.unmap_page(pfn);
  return error;
}

/// A new page of the file; refused where the page cache has one already. (shmem_mfill_atomic_pte)
Error fill_shared_copy(const Slot& s) {
  Machine& machine = *s.mm.machine;
  File& file = machine.files.edit(u64(s.vma.file));
  const u64 index = s.vma.index_of(s.addr);
  if (file.cache.contains(index)) return s.exists();
  const Pfn pfn = machine.get_page(s.vma.file, index);
  if (Error error = install(s, pfn, true)) {
    file.cache.erase(index);
    machine.pages.free(pfn);
    return error;
  }
  machine.map_page(pfn);
  return {};
}

Error fill_zeropage(const Slot& s) {
  if (s.vma.shared()) return fill_shared_copy(s);
  if (!pte_none(*s.pte)) return s.exists();
  s.mm.cover(Branch::fill_zero);
  *s.pte = pfn_pte(ZERO_PFN, s.vma.page_prot) | _PAGE_SPECIAL;
  return {};
}

Error fill_continue(const Slot& s) {
  Machine& machine = *s.mm.machine;
  const u64 index = s.vma.index_of(s.addr);
  if (!machine.files[u64(s.vma.file)].cache.contains(index))
    return {Cause::page_not_cached, s.request.call, s.addr};
  const Pfn pfn = machine.get_page(s.vma.file, index);
  if (machine.pages.at(pfn).flags & PG_locked)
    return {Cause::entry_migrating, s.request.call, s.addr};
  if (Error error = install(s, pfn, true)) return error;
  machine.map_page(pfn);
  return {};
}

Error fill_poison(const Slot& s) {
  if (!pte_none(*s.pte)) return s.exists();
  s.mm.cover(Branch::fill_poison);
  *s.pte = s.mm.profile().make_marker(PTE_MARKER_POISONED);
  return {};
}

Error fill_page(const Slot& s) {
  // CONTINUE finds out in the page cache, the others when the entry is made.
  if (s.beyond_eof())
    return {s.request.fill == Fill::continue_ ? Cause::beyond_eof_einval : Cause::beyond_eof,
            s.request.call, s.addr};
  switch (s.request.fill) {
    case Fill::copy: return s.vma.shared() ? fill_shared_copy(s) : fill_private_copy(s);
    case Fill::zeropage: return fill_zeropage(s);
    case Fill::continue_: return fill_continue(s);
    case Fill::poison: return fill_poison(s);
  }
  return {};
}

/// One turn of mfill_atomic(): the table, then the page.
Error fill_at(AddressSpace& mm, const Vma& vma, u64 addr, const FillRequest& request) {
  if (Error e = mm.need_tables_for_page(request.call, addr)) return e;
  u64* pte = mm.tables.ensure(addr, PTE_LEVEL);
  if (!pte) {
    const u64* pmd = mm.tables.find(addr, PMD_LEVEL);
    if (pmd && mm.tables.kind(*pmd, PMD_LEVEL) == EntryKind::leaf)
      return {Cause::entry_exists, request.call, addr, *pmd};
    return {Cause::table_alloc_failed, request.call, addr};
  }
  mm.machine->coverage.meet(LeafWalk::fill, mm.profile(), *pte);
  return fill_page({mm, vma, addr, pte, request});
}

/// What mfill_atomic() asks of the destination before it touches a page.
Error check_destination(const AddressSpace& mm, const FillRequest& request, u64 start, u64 end) {
  const Vma* vma = mm.vmas.find(start);
  if (!vma) return {Cause::no_vma, request.call, start, end};
  const auto fail = [&](Cause cause) {
    return Error{cause, request.call, vma->start, vma->end, vma->flags};
  };
  if (vma->end < end) return {Cause::one_vma_rule, request.call, start, end};
  if (vma->uffd == NO_UFFD) return fail(Cause::not_registered);
  if (request.wp && !vma->uffd_wp()) return fail(Cause::wp_not_registered_einval);
  if (vma->kind == VmaKind::hugetlb) return {Cause::huge_fault, request.call, start};
  if (!vma->anonymous() && vma->kind != VmaKind::shmem) return fail(Cause::wrong_backing);
  // What was loaded from elsewhere may be shared without a file of the machine.
  if ((vma->shared() || !vma->anonymous()) && vma->file == NO_FILE)
    return fail(Cause::wrong_backing);
  if (request.fill == Fill::continue_ && vma->kind == VmaKind::shmem)
    mm.cover(Branch::rule_minor_shmem);
  const bool continuable = vma->kind == VmaKind::shmem && mm.profile().minor_shmem;
  if (request.fill == Fill::continue_ && !continuable) return fail(Cause::wrong_backing);
  return {};
}

/// mfill_atomic(): page by page; the bytes done, or the errno of the first page, negative.
Result<i64> mfill(AddressSpace& mm, UffdId id, const FillRequest& request, u64 start, u64 length) {
  const UffdContext& ctx = mm.machine->uffds[u64(id)];
  if (ctx.mmap_changing) return {-EAGAIN, {Cause::mmap_changing, request.call}};
  if (Error e = check_range(mm, request.call, start, length)) return {0, e};
  const u64 end = start + length;
  // The anon_vma comes with the look-up of the destination, before it is judged. (v6.8 on)
  const Vma* const found = mm.vmas.find(start);
  const bool unprepared = found && !found->shared() && !found->anon_vma;
  if (unprepared && mm.profile().fills_prepare_first) mm.anon_vma_prepare(*found);
  const Error refused = check_destination(mm, request, start, end);
  if (refused && unprepared) mm.cover(Branch::rule_fills_prepare_first);
  if (refused) return {-errno_of(refused.cause), refused};
  const Vma& vma = *mm.vmas.find(start);
  if (!vma.shared()) mm.anon_vma_prepare(vma);
  for (u64 addr = start; addr < end; addr += PAGE_SIZE) {
    const Error error = fill_at(mm, vma, addr, request);
    if (!error) continue;
    if (addr == start) return {-errno_of(error.cause), error};
    mm.cover(Branch::fill_partial);
    mm.wake_range(id, start, addr);
    return {i64(addr - start), {Cause::partial, request.call, addr - start}};
  }
  return {i64(length), {}};
}

/// Mode bits, then the fill, then the wake that every fill ends with.
Result<i64> fill(AddressSpace& mm, UffdId id, FillRequest request, u64 start, u64 length, u64 mode,
                 u64 allowed) {
  if (Error e = check_context(*mm.machine, id, request.call)) return {0, e};
  if (mm.machine->uffds[u64(id)].mmap_changing)
    return {-EAGAIN, {Cause::mmap_changing, request.call}};
  if (Error e = check_range(mm, request.call, start, length)) return {0, e};
  if (mode & ~allowed) return {0, {Cause::bad_mode, request.call, mode}};
  request.wp = mode & MODE_WP;
  auto result = mfill(mm, id, request, start, length);
  if (result.ok() && !(mode & MODE_DONTWAKE)) mm.wake_range(id, start, start + length);
  return result;
}

}  // namespace

Result<i64> AddressSpace::uffd_copy(UffdId id, u64 dst, u64 length, u64 mode) {
  return fill(*this, id, {Fill::copy, "UFFDIO_COPY"}, dst, length, mode, MODE_DONTWAKE | MODE_WP);
}

Result<i64> AddressSpace::uffd_zeropage(UffdId id, u64 start, u64 length, u64 mode) {
  return fill(*this, id, {Fill::zeropage, "UFFDIO_ZEROPAGE"}, start, length, mode, MODE_DONTWAKE);
}

Result<i64> AddressSpace::uffd_continue(UffdId id, u64 start, u64 length, u64 mode) {
  if (mode & MODE_WP) cover(Branch::rule_uffd_cont_wp);
  const u64 allowed = MODE_DONTWAKE | (profile().uffd_cont_wp ? MODE_WP : 0);
  return fill(*this, id, {Fill::continue_, "UFFDIO_CONTINUE"}, start, length, mode, allowed);
}

Result<i64> AddressSpace::uffd_poison(UffdId id, u64 start, u64 length, u64 mode) {
  const char* const call = "UFFDIO_POISON";
  cover(Branch::rule_poison_ioctl);
  if (!profile().poison_ioctl) return {0, {Cause::unknown_ioctl, call}};
  return fill(*this, id, {Fill::poison, call}, start, length, mode, MODE_DONTWAKE);
}

}  // namespace ptwalk
