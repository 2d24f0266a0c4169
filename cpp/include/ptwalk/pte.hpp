// Bits and predicates of x86-64 page-table entries, for 4 KiB entries, 2 MiB and 1 GiB leaves and
// table entries. Models arch/x86/include/asm/{pgtable_types.h,pgtable.h,pgtable-invert.h}, v5.12
// and v6.18. What differs by kernel (markers, SAVED_DIRTY, DEVMAP) is in profile.hpp.
#pragma once

#include "ptwalk/types.hpp"

namespace ptwalk {

inline constexpr u64 _PAGE_PRESENT = 1ull << 0;
inline constexpr u64 _PAGE_RW = 1ull << 1;
inline constexpr u64 _PAGE_USER = 1ull << 2;
inline constexpr u64 _PAGE_PWT = 1ull << 3;
inline constexpr u64 _PAGE_PCD = 1ull << 4;
inline constexpr u64 _PAGE_ACCESSED = 1ull << 5;
inline constexpr u64 _PAGE_DIRTY = 1ull << 6;
inline constexpr u64 _PAGE_PSE = 1ull << 7;
inline constexpr u64 _PAGE_PAT = 1ull << 7;
inline constexpr u64 _PAGE_GLOBAL = 1ull << 8;
inline constexpr u64 _PAGE_PROTNONE = 1ull << 8;
inline constexpr u64 _PAGE_SPECIAL = 1ull << 9;
inline constexpr u64 _PAGE_UFFD_WP = 1ull << 10;
inline constexpr u64 _PAGE_SOFT_DIRTY = 1ull << 11;
inline constexpr u64 _PAGE_PAT_LARGE = 1ull << 12;
inline constexpr u64 _PAGE_PKEY_MASK = 0xfull << 59;
inline constexpr u64 _PAGE_NX = 1ull << 63;

/// Flag bits of a swap-format entry. (arch/x86/include/asm/pgtable_types.h, v6.18)
inline constexpr u64 _PAGE_SWP_SOFT_DIRTY = _PAGE_RW;
inline constexpr u64 _PAGE_SWP_UFFD_WP = _PAGE_USER;
inline constexpr u64 _PAGE_SWP_EXCLUSIVE = _PAGE_PWT;
inline constexpr u64 SWP_FLAG_BITS = _PAGE_SWP_SOFT_DIRTY | _PAGE_SWP_UFFD_WP | _PAGE_SWP_EXCLUSIVE;

/// Flags of a user table entry: P RW US A D. (_PAGE_TABLE)
inline constexpr u64 _PAGE_TABLE = 0x67;
/// Flags that pmd_bad() compares: P RW A D. (_KERNPG_TABLE)
inline constexpr u64 _KERNPG_TABLE = 0x63;

inline constexpr u64 PTE_PFN_MASK = 0x000ffffffffff000ull;
inline constexpr u64 PMD_PFN_MASK = 0x000fffffffe00000ull;
inline constexpr u64 PUD_PFN_MASK = 0x000fffffc0000000ull;

/// Stray A and D bits that an erratum may set in a cleared entry. (_PAGE_KNL_ERRATUM_MASK)
inline constexpr u64 ERRATUM_MASK = _PAGE_ACCESSED | _PAGE_DIRTY;

/// PFN field of a leaf of `level` (1 pte, 2 pmd, 3 pud).
constexpr u64 pfn_mask(Level level) {
  return level == PTE_LEVEL ? PTE_PFN_MASK : level == PMD_LEVEL ? PMD_PFN_MASK : PUD_PFN_MASK;
}

/// Also pmd_none, pud_none and p4d_none: stray A and D still count as none.
constexpr bool pte_none(u64 v) { return (v & ~ERRATUM_MASK) == 0; }
constexpr bool pte_present(u64 v) { return (v & (_PAGE_PRESENT | _PAGE_PROTNONE)) != 0; }
constexpr bool pte_protnone(u64 v) {
  return (v & (_PAGE_PRESENT | _PAGE_PROTNONE)) == _PAGE_PROTNONE;
}
constexpr bool pmd_present(u64 v) {
  return (v & (_PAGE_PRESENT | _PAGE_PROTNONE | _PAGE_PSE)) != 0;
}
/// Neither none nor present: swap, migration, device, hwpoison or a marker.
constexpr bool is_swap_pte(u64 v) { return !pte_none(v) && !pte_present(v); }
constexpr bool is_swap_pmd(u64 v) { return !pte_none(v) && !pmd_present(v); }
/// pmd_bad of a user table entry: flags without US differ from P RW A D.
constexpr bool pmd_bad(u64 v) { return (v & ~PTE_PFN_MASK & ~_PAGE_USER) != _KERNPG_TABLE; }
/// pud_bad: any flag outside P RW US A D.
constexpr bool pud_bad(u64 v) { return (v & ~PTE_PFN_MASK & ~_PAGE_TABLE) != 0; }

/// L1TF: a non-zero word without P stores its PFN field inverted.
/// (__pte_needs_invert, arch/x86/include/asm/pgtable-invert.h, v6.18)
constexpr bool needs_invert(u64 v) { return v != 0 && (v & _PAGE_PRESENT) == 0; }
/// PFN field of a leaf, inversion undone; in place (not shifted).
constexpr u64 leaf_address(u64 v, Level level = PTE_LEVEL) {
  return (needs_invert(v) ? ~v : v) & pfn_mask(level);
}
constexpr Pfn pte_pfn(u64 v) { return leaf_address(v) >> PAGE_SHIFT; }
constexpr Pfn pmd_pfn(u64 v) { return leaf_address(v, PMD_LEVEL) >> PAGE_SHIFT; }

/// Builds an entry from a frame and a protection word, inverting as the word asks. (pfn_pte)
constexpr u64 pfn_pte(Pfn pfn, u64 prot, Level level = PTE_LEVEL) {
  const u64 address = pfn << PAGE_SHIFT;
  return ((needs_invert(prot) ? ~address : address) & pfn_mask(level)) | (prot & ~pfn_mask(level));
}

}  // namespace ptwalk
