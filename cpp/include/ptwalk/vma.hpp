// Virtual memory areas: flags, protection words, the write-notify rule, and the sorted list with
// its splitting and merging. Models include/linux/mm.h, arch/x86/mm/pgprot.c, mm/vma.c and
// mm/mmap.c (v5.12 to v6.18). NUMA policies, names and hugetlb reservations take no part in merging
// here.
#pragma once

#include <string>
#include <vector>

#include "ptwalk/file.hpp"
#include "ptwalk/profile.hpp"

namespace ptwalk {

inline constexpr u64 VM_READ = 0x1;
inline constexpr u64 VM_WRITE = 0x2;
inline constexpr u64 VM_EXEC = 0x4;
inline constexpr u64 VM_SHARED = 0x8;
inline constexpr u64 VM_ACCESS_FLAGS = VM_READ | VM_WRITE | VM_EXEC;
inline constexpr u64 VM_MAYREAD = 0x10;
inline constexpr u64 VM_MAYWRITE = 0x20;
inline constexpr u64 VM_MAYEXEC = 0x40;
inline constexpr u64 VM_MAYSHARE = 0x80;
inline constexpr u64 VM_UFFD_MISSING = 0x200;
inline constexpr u64 VM_PFNMAP = 0x400;
inline constexpr u64 VM_MAYBE_GUARD =
    0x800;  ///< v6.18: guard regions may lie inside; never an obstacle to merging
inline constexpr u64 VM_UFFD_WP = 0x1000;
inline constexpr u64 VM_LOCKED = 0x2000;
inline constexpr u64 VM_IO = 0x4000;
inline constexpr u64 VM_DONTCOPY = 0x20000;
inline constexpr u64 VM_DONTEXPAND = 0x40000;
inline constexpr u64 VM_ACCOUNT = 0x100000;
inline constexpr u64 VM_NORESERVE = 0x200000;
inline constexpr u64 VM_HUGETLB = 0x400000;
inline constexpr u64 VM_WIPEONFORK = 0x2000000;
inline constexpr u64 VM_SOFTDIRTY = 0x8000000;
inline constexpr u64 VM_MIXEDMAP = 0x10000000;
inline constexpr u64 VM_HUGEPAGE = 0x20000000;
inline constexpr u64 VM_NOHUGEPAGE = 0x40000000;
inline constexpr unsigned VM_PKEY_SHIFT = 32;
inline constexpr u64 VM_PKEY_MASK = 0xfull << VM_PKEY_SHIFT;
inline constexpr u64 VM_UFFD_MINOR = 1ull << 37;
inline constexpr u64 VM_UFFD_FLAGS = VM_UFFD_MISSING | VM_UFFD_WP | VM_UFFD_MINOR;
/// VMAs that are never merged or registered. (VM_SPECIAL)
inline constexpr u64 VM_SPECIAL = VM_IO | VM_DONTEXPAND | VM_PFNMAP | VM_MIXEDMAP;

inline constexpr u64 PAGE_NONE = _PAGE_ACCESSED | _PAGE_PROTNONE;

/// Table word of vm_flags, protection key included. (vm_get_page_prot, arch/x86/mm/pgprot.c, v6.18)
u64 vm_get_page_prot(u64 vm_flags);

using UffdId = int;
inline constexpr UffdId NO_UFFD = -1;

enum class VmaKind : u8 { anon, shmem, regular, hugetlb, dax, other };
/// That of a mapping of a file.
constexpr VmaKind vma_kind_of(FileKind kind) {
  switch (kind) {
    case FileKind::shmem: return VmaKind::shmem;
    case FileKind::regular: return VmaKind::regular;
    case FileKind::hugetlb: return VmaKind::hugetlb;
    case FileKind::dax: return VmaKind::dax;
  }
  return VmaKind::other;
}

struct Vma {
  u64 start = 0;
  u64 end = 0;
  u64 flags = 0;
  u64 page_prot = 0;
  u64 pgoff = 0;  ///< page offset in the file; anonymous: the address it was made at >> 12
  FileId file = NO_FILE;
  UffdId uffd = NO_UFFD;
  u32 anon_vma = 0;        ///< 0: none yet
  u32 anon_vma_chain = 0;  ///< anon_vmas that this VMA's pages may belong to; 1 until a fork
  u32 name = 0;            ///< index into AddressSpace::names; 0: none
  VmaKind kind = VmaKind::anon;

  [[nodiscard]] u64 length() const { return end - start; }
  [[nodiscard]] bool holds(u64 addr) const { return start <= addr && addr < end; }
  /// vma_is_anonymous(): no operations table, so private anonymous memory only.
  [[nodiscard]] bool anonymous() const { return kind == VmaKind::anon; }
  [[nodiscard]] bool shared() const { return flags & VM_SHARED; }
  [[nodiscard]] bool uffd_wp() const { return flags & VM_UFFD_WP; }
  /// is_cow_mapping(): private and may be written.
  [[nodiscard]] bool cow() const { return (flags & (VM_SHARED | VM_MAYWRITE)) == VM_MAYWRITE; }
  /// linear_page_index(): the page's offset in the file (or its index for anonymous memory).
  [[nodiscard]] u64 index_of(u64 addr) const { return pgoff + ((addr - start) >> PAGE_SHIFT); }
  [[nodiscard]] u64 address_of(u64 index) const { return start + ((index - pgoff) << PAGE_SHIFT); }
};

/// vma_wants_writenotify(): whether writes must fault. `page_prot` is the word to judge by.
bool vma_wants_writenotify(const Profile& profile, const Vma& vma, u64 page_prot);
/// vma_set_page_prot(): the protection word of the VMA's flags, write-notify applied. (mm/mmap.c)
u64 vma_page_prot(const Profile& profile, const Vma& vma);
/// vma_wants_manual_pte_write_upgrade(): whether mprotect and resolve upgrade entries. (mm.h,
/// v6.18)
bool vma_wants_manual_pte_write_upgrade(const Profile& profile, const Vma& vma);
/// "0x00007f0000000000-0x00007f0000400000 rw-s": as messages print a VMA.
std::string vma_range(u64 start, u64 end, u64 flags);

/// The VMAs of one address space, sorted, disjoint.
class VmaList {
 public:
  using Index = std::size_t;
  explicit VmaList(UndoLog* undo = nullptr) : undo_(undo), stamp_(epoch_of(undo)) {}
  VmaList(const VmaList&) = delete;
  VmaList& operator=(const VmaList&) = delete;
  [[nodiscard]] const std::vector<Vma>& all() const { return vmas_; }
  /// The VMA at `i`, to be changed in all but its order.
  [[nodiscard]] Vma& edit(Index i) {
    will_change();
    return vmas_[i];
  }
  /// Index of the first VMA that ends above `addr`; all().size() where there is none. (find_vma)
  [[nodiscard]] Index lower(u64 addr) const {
    return Index((recent_->holds(addr) ? recent_ : search(addr)) - vmas_.data());
  }
  /// The VMA that holds `addr`, or nullptr. (vma_lookup)
  [[nodiscard]] const Vma* find(u64 addr) const {
    if (recent_->holds(addr)) return recent_;
    const Vma* const vma = search(addr);
    return vma != past() && vma->start <= addr ? vma : nullptr;
  }
  [[nodiscard]] const Vma* first_intersecting(u64 start, u64 end) const {
    const Vma* const vma = recent_->holds(start) ? recent_ : search(start);
    return vma != past() && vma->start < end ? vma : nullptr;
  }

  /// Splits the VMA at `i` so that `addr` becomes a boundary; returns the index of the upper part.
  Index split(Index i, u64 addr);
  Index insert(const Vma& vma);
  /// Takes [start, end) out of the VMAs that lie there, of which there is one; returns the index of
  /// the first above.
  Index remove(u64 start, u64 end);
  /// Merges the VMA at `i`, just changed or made, with the neighbours that allow it; returns the
  /// index of the VMA that holds it now. (vma_merge, mm/vma.c, v6.18)
  Index merge(Index i, const Profile& profile, bool with_next = true);
  /// The anon_vma that the VMA at `i` may share with a neighbour, 0 for none.
  /// (find_mergeable_anon_vma, mm/vma.c, v6.18)
  [[nodiscard]] u32 reusable_anon_vma(Index i) const;

 private:
  void erase(Index first, Index last);
  void will_change() {
    if (must_save(undo_, stamp_)) save();
  }
  void save();
  [[nodiscard]] const Vma* past() const { return vmas_.data() + vmas_.size(); }
  /// The first of all of them that ends above `addr`, or past().
  [[nodiscard]] const Vma* search(u64 addr) const;

  UndoLog* undo_;
  std::vector<Vma> vmas_;
  u64 stamp_;
  /// What was found last: a call asks for the same VMA again and again. It never dangles: NO_VMA,
  /// which holds no address, once any VMA has moved.
  mutable const Vma* recent_ = &NO_VMA;
  static const Vma NO_VMA;
};

}  // namespace ptwalk
