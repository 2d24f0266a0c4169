// fork(2): the child's VMAs, which page tables are copied, and what the copy changes on both sides.
// Models kernel/fork.c:dup_mmap, mm/memory.c:copy_page_range, copy_present_ptes,
// copy_nonpresent_pte and fs/userfaultfd.c:dup_userfaultfd (v5.12 with the v2 series, v6.1 to
// v6.18). Huge pages are copied as small entries are not: their PMD is left to be faulted; pinned
// pages and hugetlb are not modelled.
#include <algorithm>

#include "ptwalk/address_space.hpp"
#include "ptwalk/mutants.hpp"

namespace ptwalk {
namespace {

/// Entries of one VMA pair; `cow` as the parent's flags say.
struct EntryCopy {
  Machine& machine;
  const Vma& parent;
  const Vma& child;

  void cover(Branch branch) const { machine.coverage.hit(branch); }

  [[nodiscard]] u64 present(u64* source) const {
    const Profile& p = machine.profile;
    u64 entry = *source;
    if (!(entry & _PAGE_SPECIAL)) {
      if (Page* page = machine.pages.find(pte_pfn(entry))) {
        if (!planted(Mutant::fork_leaves_exclusive))
          machine.pages.set_anon_exclusive(pte_pfn(entry), false);
        ++page->mapcount;
      }
    }
    const bool protects = parent.cow() && !planted(Mutant::fork_leaves_rw);
    cover(entry & _PAGE_SPECIAL ? Branch::fork_special
          : parent.cow()        ? Branch::fork_private
                                : Branch::fork_shared);
    if (entry & _PAGE_UFFD_WP)
      cover(child.uffd_wp() ? Branch::fork_arm_kept : Branch::fork_arm_dropped);
    if (protects && (entry & _PAGE_RW)) *source = entry = p.pte_wrprotect(entry);
    if (parent.shared()) entry = p.pte_mkclean(entry);
    entry &= ~_PAGE_ACCESSED;
    if (planted(Mutant::fork_keeps_uffd)) return entry;
    return child.uffd_wp() ? entry : entry & ~_PAGE_UFFD_WP;
  }

  [[nodiscard]] u64 marker(u64 entry) const {
    const Profile& p = machine.profile;
    u64 bits = p.marker_bits(entry);
    if (!child.uffd_wp()) bits &= ~PTE_MARKER_UFFD_WP;
    cover(bits ? Branch::fork_marker : Branch::fork_marker_dropped);
    return bits ? p.make_marker(bits) : 0;
  }

  [[nodiscard]] u64 swap(u64* source) const {
    const Profile& p = machine.profile;
    const SwpKind kind = p.swp_kind(*source);
    cover(kind == SwpKind::swap ? Branch::fork_swap : Branch::fork_nonpresent);
    if (kind == SwpKind::swap) {
      if (p.swp_exclusive) *source &= ~_PAGE_SWP_EXCLUSIVE;
      if (swp_offset(*source) < machine.swap.size()) machine.dup_slot(swp_offset(*source));
    } else if (kind >= SwpKind::migration_read && kind <= SwpKind::migration_write) {
      machine.map_page(swp_offset(*source) & SWP_PFN_MASK);
      if (parent.cow() && kind != SwpKind::migration_read)
        *source = swp_with_type(*source, unsigned(p.swp_type_of(SwpKind::migration_read)));
    } else if (kind == SwpKind::device_private_write && parent.cow()) {
      *source = swp_with_type(*source, unsigned(p.swp_type_of(SwpKind::device_private_read)));
    }
    const bool keeps = child.uffd_wp() && !planted(Mutant::fork_loses_swap_arm);
    return keeps ? *source : *source & ~_PAGE_SWP_UFFD_WP;
  }

  [[nodiscard]] u64 operator()(u64* source) const {
    if (pte_none(*source)) return 0;
    machine.coverage.meet(LeafWalk::fork, machine.profile, *source);
    if (pte_present(*source)) return present(source);
    return machine.profile.is_marker(*source) ? marker(*source) : swap(source);
  }
};

}  // namespace

bool AddressSpace::copy_page_range(AddressSpace& child, const Vma& vma, const Vma& copied) {
  const EntryCopy copy{*machine, vma, copied};
  for (u64 addr = vma.start; addr < vma.end;) {
    const Extent at = tables.extent(addr, vma.end);
    if (at.level > PTE_LEVEL) {
      if (tables.kind(*at.entry, at.level) == EntryKind::none)
        cover_absent(Branch::fork_pgd, at.level);
      if (at.level < tables.levels() && !child.tables.ensure(addr, at.level)) return false;
    } else if (at.uniform) {
      u64 word = *at.entry;
      word = copy(&word);
      if (!child.tables.fill(addr, at.end, machine->shared_tables.uniform_of(word))) return false;
    } else {
      // Tables appear in the child wherever the parent has them, empty or not.
      const u64 nr = (at.end - addr) >> PAGE_SHIFT;
      u64* to = child.tables.ensure(addr, PTE_LEVEL, nr);
      if (!to) return false;
      u64* from = tables.writable(addr, PTE_LEVEL, nr);
      for (u64 i = 0; i < nr; ++i) to[i] = copy(&from[i]);
    }
    addr = at.end;
  }
  return true;
}

UffdId AddressSpace::dup_userfaultfd(AddressSpace& child, Contexts& made, UffdId parent) {
  for (const auto& [from, to] : made)
    if (from == parent) return to;
  UffdContext& copy = machine->uffds.add();
  const UffdContext& ctx = machine->uffds[u64(parent)];
  copy.mm = &child;
  copy.features = ctx.features;
  copy.api_done = true;
  copy.user_mode_only = ctx.user_mode_only;
  made.emplace_back(parent, UffdId(machine->uffds.size()) - 1);
  return made.back().second;
}

/// The child's VMA: not locked, its own anon_vma, registered only where fork events are on.
Vma AddressSpace::dup_vma(AddressSpace& child, Contexts& made, const Vma& vma) {
  Vma copied = vma;
  copied.flags &= ~VM_LOCKED;
  if (vma.flags & VM_WIPEONFORK) cover(Branch::fork_wipes);
  if (vma.uffd != NO_UFFD) {
    cover(Branch::fork_registered);
    if (machine->uffds[u64(vma.uffd)].features & UFFD_FEATURE_EVENT_FORK) {
      copied.uffd = dup_userfaultfd(child, made, vma.uffd);
    } else {
      copied.uffd = NO_UFFD;
      copied.flags &= ~VM_UFFD_FLAGS;
      if (profile().writenotify_uffd_wp) copied.page_prot = vma_page_prot(profile(), copied);
    }
  }
  if (vma.flags & VM_WIPEONFORK) {
    copied.anon_vma = copied.anon_vma_chain = 0;
  } else if (vma.anon_vma) {
    copied.anon_vma = machine->new_anon_vma();
    copied.anon_vma_chain = vma.anon_vma_chain + 1;
  }
  return copied;
}

Result<std::shared_ptr<AddressSpace>> AddressSpace::fork() {
  if (machine->frames.available() < machine->frames.in_use())
    if (Error e = need_tables("fork", tables.own_tables())) return {nullptr, e};
  auto child = std::make_shared<AddressSpace>(machine);
  child->names = names;
  Contexts made;
  for (const Vma& vma : vmas.all()) {
    if (vma.flags & VM_DONTCOPY) {
      cover(Branch::fork_dontcopy);
      continue;
    }
    const Vma copied = dup_vma(*child, made, vma);
    child->vmas.insert(copied);
    const bool wiped = vma.flags & VM_WIPEONFORK;
    bool needed = vma.anon_vma || (vma.flags & (VM_PFNMAP | VM_MIXEDMAP | VM_MAYBE_GUARD));
    if (!needed && !wiped && copied.uffd_wp()) {
      cover(Branch::rule_fork_copies_wp_vma);
      needed = profile().fork_copies_wp_vma;
    }
    if (!needed || wiped) {
      cover(Branch::fork_lazy);
      continue;
    }
    if (!copy_page_range(*child, vma, copied))
      return {nullptr, {Cause::table_alloc_failed, "fork", vma.start}};
  }
  for (const auto& [from, to] : made) send(from, {.event = UffdEvent::fork, .child = to});
  return {child, {}};
}

}  // namespace ptwalk
