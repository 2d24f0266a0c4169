// A bare address space for tests of the walk: entries stored as they are, one VMA over everything.
#pragma once

#include "ptwalk/address_space.hpp"

namespace ptwalk {

struct WalkSpace {
  explicit WalkSpace(std::string_view profile, VmaKind kind = VmaKind::shmem, int levels = 4)
      : machine(std::make_shared<Machine>(*find_profile(profile), levels)), mm(machine) {
    vma.end = task_size(levels);
    vma.kind = kind;
    vma.flags = VM_READ | VM_WRITE | VM_MAYREAD | VM_MAYWRITE | VM_UFFD_WP | VM_SOFTDIRTY;
    if (kind != VmaKind::anon) vma.flags |= VM_SHARED | VM_MAYSHARE;
    vma.page_prot = vm_get_page_prot(vma.flags);
    mm.users = 2;
  }

  void put(u64 addr, Level level, u64 word) { *mm.tables.ensure(addr, level) = word; }
  /// The entry of `level` at `addr`; 0 where there is no table.
  [[nodiscard]] u64 get(u64 addr, Level level = PTE_LEVEL) const {
    const u64* entry = mm.tables.find(addr, level);
    return entry ? *entry : 0;
  }
  Result<ProtectResult> change(u64 start, u64 end, u64 newprot, u32 cp_flags) {
    Result<ProtectResult> out;
    out.error = change_protection(mm, vma, {start, end}, newprot, cp_flags, out.value);
    return out;
  }

  std::shared_ptr<Machine> machine;
  AddressSpace mm;
  Vma vma;
};

inline constexpr u64 RO_NX = 0x8000000000000025;  ///< the word of PROT_READ
inline constexpr u64 RW_NX = 0x8000000000000027;  ///< the word of a shared PROT_READ|PROT_WRITE
inline constexpr u64 BASE = 0x7f0000000000;       ///< aligned at every level below the top

}  // namespace ptwalk
