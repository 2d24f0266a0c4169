// Numbers of the advices (include/uapi/asm-generic/mman-common.h, v6.18) and the VMA flags that
// some of them set. The trailing underscore keeps them apart from the system header's macros.
#pragma once

#include "ptwalk/vma.hpp"

namespace ptwalk {

inline constexpr int MADV_DONTNEED_ = 4, MADV_FREE_ = 8, MADV_REMOVE_ = 9, MADV_DONTFORK_ = 10,
                     MADV_DOFORK_ = 11, MADV_HUGEPAGE_ = 14, MADV_NOHUGEPAGE_ = 15,
                     MADV_WIPEONFORK_ = 18, MADV_KEEPONFORK_ = 19, MADV_COLD_ = 20,
                     MADV_PAGEOUT_ = 21, MADV_POPULATE_READ_ = 22, MADV_POPULATE_WRITE_ = 23,
                     MADV_DONTNEED_LOCKED_ = 24, MADV_GUARD_INSTALL_ = 102,
                     MADV_GUARD_REMOVE_ = 103;

struct AdviceFlags {
  int advice;
  u64 set;
  u64 clear;
};

/// What madvise_vma_behavior() does to vm_flags. (mm/madvise.c, v6.18)
inline constexpr AdviceFlags ADVICE_FLAGS[] = {
    {MADV_DONTFORK_, VM_DONTCOPY, 0},
    {MADV_DOFORK_, 0, VM_DONTCOPY},
    {MADV_HUGEPAGE_, VM_HUGEPAGE, VM_NOHUGEPAGE},
    {MADV_NOHUGEPAGE_, VM_NOHUGEPAGE, VM_HUGEPAGE},
    {MADV_WIPEONFORK_, VM_WIPEONFORK, 0},
    {MADV_KEEPONFORK_, 0, VM_WIPEONFORK},
};

}  // namespace ptwalk
