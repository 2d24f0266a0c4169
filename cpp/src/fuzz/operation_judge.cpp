// One function per property; the laws are those of userfaultfd's and mm/'s documentation, not of
// any one function.
#include "ptwalk/fuzz/operation_judge.hpp"

#include <algorithm>

#include "ptwalk/fuzz/fields.hpp"
#include "ptwalk/madvise.hpp"

namespace ptwalk::fuzz {
namespace {

constexpr std::string_view KEEPING[] = {
    "access",         "access_many", "kernel_access", "populate",      "mprotect",  "mprotect_many",
    "mlock",          "munlock",     "reclaim",       "migrate_start", "wake",      "fork",
    "migrate_finish", "userfaultfd", "read",          "file_write",    "file_read", "numa"};

bool is_one_of(std::span<const std::string_view> names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

/// Calls visit(range, word) for the pages of a VMA; once for a run of equal ones.
template <class Visit>
void each_entry(const AddressSpace& mm, const Vma& vma, Visit visit) {
  for (u64 addr = vma.start; addr < vma.end;) {
    const Extent at = mm.tables.extent(addr, vma.end);
    if (at.level == PTE_LEVEL)
      for (u64 i = 0; i < (at.uniform ? 1 : (at.end - addr) >> PAGE_SHIFT); ++i)
        if (at.entry[i]) {
          const u64 page = addr + (i << PAGE_SHIFT);
          visit(Range{page, at.uniform ? at.end : page + PAGE_SIZE}, at.entry[i]);
        }
    addr = at.end;
  }
}

u64 word_at(const AddressSpace& mm, u64 addr) {
  const Extent at = mm.tables.extent(addr, addr + PAGE_SIZE);
  return at.level == PTE_LEVEL ? *at.entry : 0;
}

bool is_async(const Machine& machine, const Vma& vma) {
  return vma.uffd != NO_UFFD && machine.uffds[u64(vma.uffd)].features & UFFD_FEATURE_WP_ASYNC;
}

/// Whether userspace may rely on the arming of a VMA's entries.
bool arms_count(const Machine& machine, const Vma& vma) {
  return vma.uffd_wp() && !is_async(machine, vma);
}

bool same_fault(const PendingFault& a, const PendingFault& b) {
  return a.address == b.address && a.message.flags == b.message.flags && a.uffd == b.uffd;
}

}  // namespace

bool armed(const Profile& p, u64 word) {
  if (pte_none(word)) return false;
  if (pte_present(word)) return word & _PAGE_UFFD_WP;
  return p.is_marker(word) ? p.is_uffd_wp_marker(word) : word & _PAGE_SWP_UFFD_WP;
}

/// Whether the operation resolves and unmaps nothing. Advice takes pages of a file, which are then
/// found again, and anonymous ones for good.
bool OperationJudge::keeps_arms(const Vma& vma) const {
  if (name_ != "madvise") return is_one_of(KEEPING, name_);
  const int advice = field::ADVICES[field::ADVICE(op_)];
  return vma.shared() && advice != MADV_REMOVE_ && advice != MADV_GUARD_INSTALL_ &&
         advice != MADV_GUARD_REMOVE_;
}

OperationJudge::OperationJudge(const World& world, std::string_view name, const Op& op)
    : world_(world),
      name_(name),
      op_(op),
      named_(world.spaces[std::size_t(field::MM(op)) % world.spaces.size()].get()) {
  for (const auto& mm : world.spaces) {
    spaces_.push_back({mm, mm->vmas.all(), mm->pending.all()});
    for (const Vma& vma : mm->vmas.all()) remember(*mm, vma);
  }
}

void OperationJudge::remember(const AddressSpace& mm, const Vma& vma) {
  const bool counts = arms_count(*mm.machine, vma);
  each_entry(mm, vma, [&](Range run, u64 word) {
    if (armed(mm.profile(), word)) {
      if (counts) armed_.push_back({&mm, run.start, word, run.end});
      (vma.uffd_wp() ? registered_ : stale_).push_back({&mm, run.start, word, run.end});
    }
    if (vma.shared() || vma.anonymous() || !pte_present(word) || word & _PAGE_SPECIAL) return;
    const Page* page = mm.machine->pages.find(pte_pfn(word));
    if (page && page->anon()) copies_.push_back({&mm, run.start, word, run.end});
  });
}

bool OperationJudge::lives(const AddressSpace* mm) const {
  return std::any_of(world_.spaces.begin(), world_.spaces.end(),
                     [&](const auto& space) { return space.get() == mm; });
}

u64 OperationJudge::judge_arms() const {
  const bool reclaims = name_ == "reclaim";
  // Hazard 3 makes armed entries writable; when they migrate once more, they are not armed.
  if (name_ == "migrate_finish" && !world_.machine->profile.migration_wrprotects) return 0;
  for (const Kept& kept : armed_) {
    const Vma* vma = lives(kept.mm) ? kept.mm->vmas.find(kept.addr) : nullptr;
    if (!vma || !vma->uffd_wp() || !keeps_arms(*vma)) continue;
    const u64 word = word_at(*kept.mm, kept.addr);
    // MADV_FREE lets reclaim drop anonymous pages.
    if (!armed(kept.mm->profile(), word) && !(reclaims && !vma->shared() && pte_none(word)))
      return bit(Violation::arm_lost);
  }
  return 0;
}

/// A store that stops at an armed page is told with the WP flag. One that is armed no more may be
/// another page.
u64 OperationJudge::judge_messages() const {
  for (const Space& space : spaces_) {
    if (!lives(space.mm.get())) continue;
    for (const PendingFault& fault : space.mm->pending.all()) {
      const bool old = std::any_of(space.pending.begin(), space.pending.end(),
                                   [&](const auto& other) { return same_fault(other, fault); });
      const bool was_armed = std::any_of(armed_.begin(), armed_.end(), [&](const Kept& kept) {
        return kept.mm == space.mm.get() && kept.addr == fault.address && pte_present(kept.word);
      });
      const u64 now = word_at(*space.mm, fault.address);
      const bool is_armed = pte_present(now) && armed(space.mm->profile(), now);
      if (!old && was_armed && is_armed && !(fault.message.flags & UFFD_PAGEFAULT_FLAG_WP))
        return bit(Violation::message_unlike_entry);
    }
  }
  return 0;
}

/// What is done to a file takes no private copy of its pages, unless the file ends before them.
u64 OperationJudge::judge_copies() const {
  for (const Kept& kept : copies_)
    if (lives(kept.mm) && word_at(*kept.mm, kept.addr) != kept.word)
      return bit(Violation::copy_lost);
  return 0;
}

/// Splitting and merging change neither what is mapped at an address nor who is told of it.
u64 OperationJudge::judge_vmas(const Space& before) const {
  if (!lives(before.mm.get())) return 0;
  const std::vector<Vma>& after = before.mm->vmas.all();
  for (std::size_t i = 0, j = 0; i < before.vmas.size() || j < after.size(); ++i) {
    if (i == before.vmas.size() || j == after.size()) return bit(Violation::vma_changed);
    const Vma& old = before.vmas[i];
    for (u64 at = old.start; at < old.end;) {
      if (j == after.size()) return bit(Violation::vma_changed);
      const Vma& now = after[j];
      const bool same = now.start <= at && now.file == old.file && now.uffd == old.uffd &&
                        now.index_of(at) == old.index_of(at);
      if (!same) return bit(Violation::vma_changed);
      at = std::min(now.end, old.end);
      j += now.end == at;
    }
  }
  return 0;
}

/// A child that is registered too has what is armed; private pages are write-protected on both
/// sides.
u64 OperationJudge::judge_child() const {
  if (world_.spaces.size() == spaces_.size()) return 0;
  const AddressSpace& child = *world_.spaces.back();
  u64 found = 0;
  for (const Vma& vma : child.vmas.all()) {
    const bool copied = child.profile().fork_copies_wp_vma && !(vma.flags & VM_WIPEONFORK) &&
                        arms_count(*child.machine, vma);
    for (const Kept& kept : armed_)
      if (copied && kept.mm == named_ && kept.addr >= vma.start && kept.addr < vma.end &&
          !armed(child.profile(), word_at(child, kept.addr)))
        found |= bit(Violation::arm_lost);
    if (!vma.cow()) continue;
    each_entry(child, vma, [&](Range, u64 word) {
      if (pte_present(word) && word & _PAGE_RW) found |= bit(Violation::writable_shared);
    });
  }
  return found;
}

/// Where nothing is registered any more, nothing is armed. What mremap moves to may merge with a
/// neighbour and take its registration away; then the neighbour's own entries stay as they were.
u64 OperationJudge::judge_unregistered() const {
  const Profile& p = world_.machine->profile;
  if (!stale_.empty() || !p.unregister_resolves || !p.mremap_clears_uffd || name_ == "register")
    return 0;
  const auto stays = [&](const AddressSpace& mm, Range run) {
    return name_ == "mremap" &&
           std::any_of(registered_.begin(), registered_.end(), [&](const Kept& kept) {
             return kept.mm == &mm && kept.addr <= run.start && run.end <= kept.end;
           });
  };
  u64 found = 0;
  for (const auto& mm : world_.spaces)
    for (const Vma& vma : mm->vmas.all())
      if (!vma.uffd_wp())
        each_entry(*mm, vma, [&](Range run, u64 word) {
          if (armed(p, word) && !stays(*mm, run)) found |= bit(Violation::armed_unregistered);
        });
  return found;
}

u64 OperationJudge::judge() const {
  u64 found = judge_unregistered();
  found |= judge_arms() | judge_messages();
  if (is_one_of(KEEPING, name_) || name_.starts_with("writeprotect") || name_ == "madvise")
    for (const Space& space : spaces_) found |= judge_vmas(space);
  if (name_.starts_with("file_") && name_ != "file_truncate") found |= judge_copies();
  if (name_ == "fork") found |= judge_child();
  return found;
}

}  // namespace ptwalk::fuzz
