// madvise(2). Models mm/madvise.c:do_madvise and the advices that change page-table entries
// (v6.18); advice that only tunes readahead, huge pages, KSM or dumps is checked and, where it has
// one, sets its VMA flag. MADV_COLLAPSE and memory-failure injection are not modelled.
#include <algorithm>
#include <iterator>

#include "ptwalk/fault.hpp"
#include "ptwalk/madvise.hpp"

namespace ptwalk {
namespace {

/// One advice on one VMA piece.
struct Advice {
  AddressSpace& mm;
  Range range;  ///< of the VMA
  int advice;
  const std::vector<u64>* victims;  ///< pages that reclaim may take; nullptr: any

  [[nodiscard]] const Vma& vma() const { return *mm.vmas.find(range.start); }
  [[nodiscard]] Error fail(Cause cause) const {
    return {cause, "madvise", vma().start, vma().end, vma().flags};
  }
  /// Visits the entries of private tables: shared ones hold none or uffd-wp markers only, which no
  /// advice changes but a zap.
  template <class Visit>
  void for_each_pte(Visit visit) const {
    for (u64 addr = range.start, next; addr < range.end; addr = next) {
      const Extent at = mm.tables.extent(addr, range.end);
      next = at.end;
      if (at.level > PTE_LEVEL || at.uniform) continue;
      u64* const first = mm.tables.writable(addr, PTE_LEVEL, (next - addr) >> PAGE_SHIFT);
      for (u64 a = addr; a < next; a += PAGE_SIZE) visit(a, first + ((a - addr) >> PAGE_SHIFT));
    }
  }
  /// Whether `holds` says so of any entry of the range, private or not.
  template <class Predicate>
  [[nodiscard]] bool any_entry(Predicate holds) const {
    for (u64 addr = range.start, next; addr < range.end; addr = next) {
      const Extent at = mm.tables.extent(addr, range.end);
      next = at.end;
      if (at.level > PTE_LEVEL) continue;
      const u64 nr = at.uniform ? 1 : (next - addr) >> PAGE_SHIFT;
      if (std::any_of(at.entry, at.entry + nr, holds)) return true;
    }
    return false;
  }
};

using Behaviour = Error (*)(const Advice&);

/// userfaultfd_remove(): the REMOVE message, which comes before the pages go.
void send_remove(const Advice& a) {
  const UffdId uffd = a.vma().uffd;
  if (uffd == NO_UFFD) return;
  if (!(a.mm.machine->uffds[u64(uffd)].features & UFFD_FEATURE_EVENT_REMOVE)) return;
  a.mm.send(uffd, {.event = UffdEvent::remove, .address = a.range.start, .to = a.range.end});
}

Error dontneed(const Advice& a) {
  const u64 refused = VM_PFNMAP | VM_HUGETLB | (a.advice == MADV_DONTNEED_LOCKED_ ? 0 : VM_LOCKED);
  if (a.vma().flags & refused) return a.fail(Cause::locked_vma);
  send_remove(a);
  const u64 first_whole = align_up(a.range.start, PMD_SIZE);
  if (a.range.end >= first_whole + PMD_SIZE) a.mm.cover(Branch::rule_pt_reclaim);
  a.mm.zap_range(a.vma(), a.range.start, a.range.end,
                 {.reclaim_tables = a.mm.profile().config.pt_reclaim});
  return {};
}

/// madvise_free_pte_range(): pages stay until reclaim wants them, clean and old.
Error free_lazily(const Advice& a) {
  if (a.vma().flags & (VM_LOCKED | VM_PFNMAP | VM_HUGETLB)) return a.fail(Cause::locked_vma);
  send_remove(a);  // madvise_dontneed_free() tells before the advice is judged
  if (!a.vma().anonymous()) return a.fail(Cause::bad_advice);
  Machine& machine = *a.mm.machine;
  const Profile& p = machine.profile;
  a.for_each_pte([&](u64, u64* pte) {
    machine.coverage.meet(LeafWalk::lazyfree, p, *pte);
    if (pte_none(*pte)) return;
    if (!pte_present(*pte)) {
      const u64 bits = p.marker_bits(*pte);
      if (bits ? bits & PTE_MARKER_POISONED : p.swp_kind(*pte) == SwpKind::hwpoison) *pte = 0;
      if (*pte == 0 || bits || p.swp_kind(*pte) != SwpKind::swap) return;
      a.mm.cover(Branch::free_swap);
      machine.put_slot(swp_offset(*pte));
      *pte = 0;
      return;
    }
    Page* page = *pte & _PAGE_SPECIAL ? nullptr : machine.pages.find(pte_pfn(*pte));
    if (!page) return;
    if (page->flags & (PG_swapcache | PG_dirty)) {
      if (page->mapcount != 1) return;  // shared, and its contents are wanted
      if ((page->flags & PG_swapcache) && !machine.free_swap(pte_pfn(*pte))) return;
      page->flags &= u16(~PG_dirty);
    }
    a.mm.cover(Branch::free_page);
    *pte = p.pte_mkclean(*pte & ~_PAGE_ACCESSED);
    page->flags |= PG_lazyfree;
  });
  return {};
}

/// madvise_cold_or_pageout_pte_range(): pages grow old; PAGEOUT reclaims them at once.
Error cold_or_pageout(const Advice& a) {
  if (a.vma().flags & (VM_LOCKED | VM_PFNMAP | VM_HUGETLB)) return a.fail(Cause::locked_vma);
  Machine& machine = *a.mm.machine;
  std::vector<Pfn>& taken = machine.found_pages;
  taken.clear();
  a.for_each_pte([&](u64 addr, u64* pte) {
    machine.coverage.meet(LeafWalk::age, machine.profile, *pte);
    if (!pte_present(*pte) || (*pte & _PAGE_SPECIAL)) return;
    const Page* page = machine.pages.find(pte_pfn(*pte));
    if (!page || page->mapcount != 1) return;
    const bool pageout = a.advice == MADV_PAGEOUT_;
    const bool taken_now = pageout && (!a.victims || std::find(a.victims->begin(), a.victims->end(),
                                                               addr) != a.victims->end());
    // A page that is on no LRU list yet cannot be isolated; later kernels then leave its A bit too.
    if (pageout && !taken_now) a.mm.cover(Branch::rule_pageout_checks_lru);
    if (pageout && !taken_now && machine.profile.pageout_checks_lru) return;
    a.mm.cover(taken_now ? Branch::pageout_page : Branch::cold_page);
    *pte &= ~_PAGE_ACCESSED;
    if (taken_now) taken.push_back(pte_pfn(*pte));
  });
  for (const Pfn pfn : taken) machine.reclaim_page(pfn);
  return {};
}

/// madvise_remove(): a hole in the file, through a shared mapping that may be written.
Error remove_pages(const Advice& a) {
  const Vma vma = a.vma();
  if (vma.flags & VM_LOCKED) return a.fail(Cause::locked_vma);
  if (vma.file == NO_FILE) return a.fail(Cause::bad_advice);
  if ((vma.flags & (VM_SHARED | VM_MAYWRITE)) != (VM_SHARED | VM_MAYWRITE))
    return a.fail(Cause::may_not);
  send_remove(a);
  a.mm.machine->file_punch_hole(vma.file, vma.index_of(a.range.start) << PAGE_SHIFT,
                                a.range.end - a.range.start);
  return {};
}

Error guard_install(const Advice& a) {
  const Profile& p = a.mm.profile();
  if (a.vma().flags & (VM_SPECIAL | VM_HUGETLB | VM_LOCKED)) return a.fail(Cause::locked_vma);
  if (Error e = a.mm.need_tables_for_pages("madvise", a.range.start, a.range.end)) return e;
  if (a.vma().anonymous()) a.mm.anon_vma_prepare(a.vma());
  a.mm.vmas.edit(a.mm.vmas.lower(a.range.start)).flags |= VM_MAYBE_GUARD;
  const u64 guard = p.make_marker(PTE_MARKER_GUARD);
  // Zap first, as the kernel retries until nothing but none entries is left to mark.
  a.mm.zap_range(a.vma(), a.range.start, a.range.end, {});
  if (a.any_entry(
          [&](u64 pte) { return !pte_none(pte) && !(p.marker_bits(pte) & PTE_MARKER_GUARD); }))
    return {Cause::guard_livelock, "madvise", a.range.start, a.range.end};
  for (u64 addr = a.range.start; addr < a.range.end; addr += PAGE_SIZE) {
    u64* pte = a.mm.tables.ensure(addr, PTE_LEVEL);
    if (!pte) return {Cause::table_alloc_failed, "madvise", addr};
    if (!pte_none(*pte)) continue;
    a.mm.cover(Branch::guard_installed);
    *pte = guard;
  }
  return {};
}

Error guard_remove(const Advice& a) {
  if (a.vma().flags & (VM_SPECIAL | VM_HUGETLB)) return a.fail(Cause::locked_vma);
  const Profile& p = a.mm.profile();
  a.for_each_pte([&](u64, u64* pte) {
    a.mm.machine->coverage.meet(LeafWalk::guard_remove, p, *pte);
    if (!(p.marker_bits(*pte) & PTE_MARKER_GUARD)) return;
    a.mm.cover(Branch::guard_removed);
    *pte = 0;
  });
  return {};
}

Error nothing(const Advice&) { return {}; }

/// Advice that sets and clears VMA flags: the piece is split off and merged again.
Error change_flags(const Advice& a) {
  u64 set = 0, clear = 0;
  for (const AdviceFlags& row : ADVICE_FLAGS)
    if (row.advice == a.advice) set = row.set, clear = row.clear;
  const Vma& vma = a.vma();
  if (a.advice == MADV_DOFORK_ && (vma.flags & VM_SPECIAL)) return a.fail(Cause::bad_advice);
  if (a.advice == MADV_WIPEONFORK_ && (vma.file != NO_FILE || vma.shared()))
    return a.fail(Cause::bad_advice);
  if (((vma.flags & ~clear) | set) == vma.flags) return {};
  if (a.mm.split_would_exceed(a.range.start, a.range.end)) return {Cause::map_count, "madvise"};
  const VmaList::Index i = a.mm.split_off(a.range.start, a.range.end);
  Vma& changed = a.mm.vmas.edit(i);
  changed.flags = (changed.flags & ~clear) | set;
  a.mm.vmas.merge(i, a.mm.profile());
  return {};
}

/// MERGEABLE, UNMERGEABLE, COLLAPSE, HWPOISON, SOFT_OFFLINE.
constexpr int UNMODELLED[] = {12, 13, 25, 100, 101};

struct Row {
  int advice;
  Behaviour apply;
  bool Profile::* known = nullptr;  ///< the rule that this kernel has it; every kernel does
  Branch rule{};                    ///< the same rule's
};

constexpr Row ROWS[] = {
    {MADV_DONTNEED_, dontneed},  // asked for most often
    {0, nothing},                // NORMAL
    {1, nothing},                // RANDOM
    {2, nothing},                // SEQUENTIAL
    {3, nothing},                // WILLNEED
    {MADV_FREE_, free_lazily},
    {MADV_REMOVE_, remove_pages},
    {MADV_DONTFORK_, change_flags},
    {MADV_DOFORK_, change_flags},
    {MADV_HUGEPAGE_, change_flags},
    {MADV_NOHUGEPAGE_, change_flags},
    {16, nothing},  // DONTDUMP
    {17, nothing},  // DODUMP
    {MADV_WIPEONFORK_, change_flags},
    {MADV_KEEPONFORK_, change_flags},
    {MADV_COLD_, cold_or_pageout},
    {MADV_PAGEOUT_, cold_or_pageout},
    {MADV_DONTNEED_LOCKED_, dontneed, &Profile::dontneed_locked, Branch::rule_dontneed_locked},
    {MADV_GUARD_INSTALL_, guard_install, &Profile::guard_advice, Branch::rule_guard_advice},
    {MADV_GUARD_REMOVE_, guard_remove, &Profile::guard_advice, Branch::rule_guard_advice},
};

}  // namespace

Error AddressSpace::madvise(u64 start, u64 length, int advice, const std::vector<u64>* victims) {
  const auto fail = [](Cause cause, u64 a = 0, u64 b = 0) { return Error{cause, "madvise", a, b}; };
  const bool asks_to_populate = advice == MADV_POPULATE_READ_ || advice == MADV_POPULATE_WRITE_;
  if (asks_to_populate) cover(Branch::rule_populate_advice);
  const bool populates = asks_to_populate && profile().populate_advice;
  const Row* row = nullptr;
  for (const Row& r : ROWS) {
    if (r.advice != advice) continue;
    if (r.known) cover(r.rule);
    if (!r.known || profile().*r.known) row = &r;
    break;
  }
  if (!row && !populates) {
    const bool unmodelled =
        std::find(std::begin(UNMODELLED), std::end(UNMODELLED), advice) != std::end(UNMODELLED);
    return fail(unmodelled ? Cause::unmodelled_advice : Cause::unknown_advice, u64(u32(advice)));
  }
  if (!is_aligned(start, PAGE_SIZE)) return fail(Cause::start_unaligned, start);
  const u64 end = start + align_up(length, PAGE_SIZE);
  if (end < start || (length && align_up(length, PAGE_SIZE) == 0))
    return fail(Cause::wraps, start, length);
  if (populates)  // beyond user memory there is a hole, like any other
    return fault_in("madvise", start, end, {.write = advice == MADV_POPULATE_WRITE_}).error;
  bool gap = false;
  for (u64 at = start; at < end;) {
    const Vma* vma = vmas.first_intersecting(at, end);
    gap |= !vma || vma->start > at;
    if (!vma) break;
    at = std::max(at, vma->start);
    const Range piece{at, std::min(vma->end, end)};
    if (Error e = row->apply({*this, piece, advice, victims})) return e;
    at = piece.end;
  }
  return gap ? fail(Cause::hole, start) : Error{};
}

}  // namespace ptwalk
