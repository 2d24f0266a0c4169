#include "ptwalk/vma.hpp"
#include "ptwalk/mutants.hpp"

#include <algorithm>

namespace ptwalk {
namespace {

/// Flags that take no part in merging; the merged VMA has them if either had. (VM_STICKY, v6.18)
constexpr u64 VM_STICKY = VM_SOFTDIRTY | VM_MAYBE_GUARD;

/// Equal in everything but place, protection key excepted: flags, file, offset, uffd context.
bool same_mapping(const Vma& left, const Vma& right, u64 ignored_flags) {
  return left.end == right.start && ((left.flags ^ right.flags) & ~ignored_flags) == 0 &&
         left.kind == right.kind && left.file == right.file && left.name == right.name &&
         right.pgoff == left.pgoff + (left.length() >> PAGE_SHIFT);
}

/// is_mergeable_anon_vma(): may `changed` and its neighbour be one VMA, as far as anonymous pages
/// go?
bool anon_vma_mergeable(const Profile& profile, const Vma& changed, const Vma& neighbour) {
  if (changed.anon_vma == neighbour.anon_vma) return true;
  if (!changed.anon_vma) return neighbour.anon_vma_chain == 1;
  return !neighbour.anon_vma && profile.merge_adopts_anon_vma && changed.anon_vma_chain == 1;
}

bool mergeable(const Profile& profile, const Vma& left, const Vma& right, const Vma& changed) {
  const bool same_uffd = left.uffd == right.uffd || planted(Mutant::merge_across_uffds);
  return same_mapping(left, right, VM_STICKY) && same_uffd && !(left.flags & VM_SPECIAL) &&
         anon_vma_mergeable(profile, changed, &changed == &left ? right : left);
}

void absorb(Vma& left, const Vma& right) {
  left.end = right.end;
  left.flags |= right.flags & VM_STICKY;
  if (!left.anon_vma) {
    left.anon_vma = right.anon_vma;
    left.anon_vma_chain = right.anon_vma_chain;
  }
}

/// Takes what lies below `addr` off a VMA.
void begin_at(Vma& vma, u64 addr) {
  if (!planted(Mutant::split_forgets_offset)) vma.pgoff = vma.index_of(addr);
  vma.start = addr;
}

/// File systems with page_mkwrite, whose shared mappings always want write faults.
bool has_page_mkwrite(VmaKind kind) { return kind == VmaKind::regular || kind == VmaKind::dax; }

}  // namespace

u64 vm_get_page_prot(u64 vm_flags) {
  constexpr u64 RO_NX = _PAGE_NX | _PAGE_PRESENT | _PAGE_USER | _PAGE_ACCESSED;
  constexpr u64 RO = RO_NX & ~_PAGE_NX;
  // protection_map[xwr] of private mappings; shared ones add RW where VM_WRITE is set.
  static constexpr u64 map[8] = {PAGE_NONE, RO_NX, RO_NX, RO_NX, RO, RO, RO, RO};
  u64 word = map[vm_flags & VM_ACCESS_FLAGS];
  if ((vm_flags & (VM_WRITE | VM_SHARED)) == (VM_WRITE | VM_SHARED)) word |= _PAGE_RW;
  return word | ((vm_flags & VM_PKEY_MASK) >> VM_PKEY_SHIFT << 59);
}

bool vma_wants_writenotify(const Profile& profile, const Vma& vma, u64 page_prot) {
  if ((vma.flags & (VM_WRITE | VM_SHARED)) != (VM_WRITE | VM_SHARED)) return false;
  if (has_page_mkwrite(vma.kind)) return true;
  if (page_prot != vm_get_page_prot(vma.flags)) return false;
  if (profile.config.mem_soft_dirty && !(vma.flags & VM_SOFTDIRTY) && vma.kind != VmaKind::hugetlb)
    return true;
  return profile.writenotify_uffd_wp && vma.uffd_wp() && !planted(Mutant::writenotify_forgotten);
}

u64 vma_page_prot(const Profile& profile, const Vma& vma) {
  const u64 word = vm_get_page_prot(vma.flags);
  return vma_wants_writenotify(profile, vma, word) ? vm_get_page_prot(vma.flags & ~VM_SHARED)
                                                   : word;
}

bool vma_wants_manual_pte_write_upgrade(const Profile& profile, const Vma& vma) {
  if (!profile.manual_write_upgrade) return false;
  if (vma.shared()) return vma_wants_writenotify(profile, vma, vma.page_prot);
  return vma.flags & VM_WRITE;
}

const Vma VmaList::NO_VMA{};

const Vma* VmaList::search(u64 addr) const {
  // Few are looked through from the front: nobody can foresee the turns of a binary search.
  constexpr std::ptrdiff_t FEW = 16;
  const Vma *found = vmas_.data(), *const end = past();
  if (end - found <= FEW) {
    while (found != end && found->end <= addr) ++found;
  } else {
    found = std::upper_bound(found, end, addr, [](u64 a, const Vma& vma) { return a < vma.end; });
  }
  if (found != end) recent_ = found;
  return found;
}

void VmaList::save() {
  undo_->save(
      this,
      [](void* self, UndoLog::Bytes saved) {
        auto& list = *static_cast<VmaList*>(self);
        assign(list.vmas_, saved);
        list.recent_ = &NO_VMA;
      },
      bytes_of(vmas_));
}

VmaList::Index VmaList::split(Index i, u64 addr) {
  will_change();
  Vma upper = vmas_[i];
  begin_at(upper, addr);
  vmas_[i].end = addr;
  vmas_.insert(vmas_.begin() + std::ptrdiff_t(i) + 1, upper);
  recent_ = &NO_VMA;
  return i + 1;
}

VmaList::Index VmaList::insert(const Vma& vma) {
  will_change();
  const Index i = lower(vma.start);
  vmas_.insert(vmas_.begin() + std::ptrdiff_t(i), vma);
  recent_ = &NO_VMA;
  return i;
}

void VmaList::erase(Index first, Index last) {
  vmas_.erase(vmas_.begin() + std::ptrdiff_t(first), vmas_.begin() + std::ptrdiff_t(last));
  recent_ = &NO_VMA;
}

VmaList::Index VmaList::remove(u64 start, u64 end) {
  will_change();
  Index i = lower(start);
  if (vmas_[i].start < start) {
    if (end < vmas_[i].end) split(i, end);
    vmas_[i++].end = start;
  }
  Index last = i;
  while (last < vmas_.size() && vmas_[last].end <= end) ++last;
  if (last < vmas_.size() && vmas_[last].start < end) begin_at(vmas_[last], end);
  if (i < last) erase(i, last);
  return i;
}

VmaList::Index VmaList::merge(Index i, const Profile& profile, bool with_next) {
  const Vma& changed = vmas_[i];
  bool left = i > 0 && mergeable(profile, vmas_[i - 1], changed, changed);
  bool right =
      with_next && i + 1 < vmas_.size() && mergeable(profile, changed, vmas_[i + 1], changed);
  // Neighbours that fit the changed VMA need not fit each other.
  if (left && right) {
    const u32 a = vmas_[i - 1].anon_vma, b = vmas_[i + 1].anon_vma;
    right = !a || !b || a == b;
  }
  if (left || right) will_change();
  if (right) {
    absorb(vmas_[i], vmas_[i + 1]);
    erase(i + 1, i + 2);
  }
  if (left) {
    absorb(vmas_[i - 1], vmas_[i]);
    erase(i, i + 1);
    --i;
  }
  return i;
}

u32 VmaList::reusable_anon_vma(Index i) const {
  const auto usable = [&](const Vma& left, const Vma& right, const Vma& owner) {
    return same_mapping(left, right, VM_ACCESS_FLAGS | VM_STICKY) && owner.anon_vma_chain == 1
               ? owner.anon_vma
               : 0;
  };
  u32 found = 0;
  if (i + 1 < vmas_.size()) found = usable(vmas_[i], vmas_[i + 1], vmas_[i + 1]);
  if (!found && i > 0) found = usable(vmas_[i - 1], vmas_[i], vmas_[i - 1]);
  return found;
}

}  // namespace ptwalk
