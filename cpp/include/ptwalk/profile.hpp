// A profile: the rules of one kernel, as data, and the build configuration that they depend on.
// Every difference between kernels that the walk, the faults and the system calls look at is a
// field here; the code asks for the rule, never for the kernel's name.
#pragma once

#include <array>
#include <span>
#include <string>
#include <string_view>

#include "ptwalk/swp_entry.hpp"

namespace ptwalk {

/// Kernel build options that change entries or their meaning.
struct Config {
  bool mem_soft_dirty = false;        ///< CONFIG_MEM_SOFT_DIRTY: bit 11, SWP bit 1, VM_SOFTDIRTY
  bool memory_failure = false;        ///< CONFIG_MEMORY_FAILURE: a hwpoison swap type
  bool device_private = false;        ///< CONFIG_DEVICE_PRIVATE: device swap types
  bool page_table_isolation = false;  ///< CONFIG_MITIGATION_PAGE_TABLE_ISOLATION
  bool pt_reclaim = false;            ///< CONFIG_PT_RECLAIM: MADV_DONTNEED frees empty PTE tables

  bool operator==(const Config&) const = default;
};

/// What a wr-protect leaves in a none entry, and how it is recognised.
enum class MarkerFormat : u8 {
  none,         ///< 5.12: no marker
  special_pte,  ///< the v2 series: the word 0x4, recognised by exact equality
  swap_type,    ///< 5.19 on: swap type "PTE marker", offset is a bit mask
};

/// Which levels a wr-protect populates.
enum class Populate : u8 { never, pmd_only, every_level };

/// In which VMAs none entries take a marker.
enum class MarkerVmas : u8 {
  none,
  file_backed,  ///< v2 and 6.1: not anonymous
  registered,   ///< 6.4 on: VM_UFFD_WP, and file-backed or WP_UNPOPULATED
};

/// When a present entry may become writable without a fault.
enum class UpgradeRule : u8 {
  dirty_accountable,               ///< 5.12: MM_CP_DIRTY_ACCT
  dirty_or_exclusive_dirty,        ///< 6.1: can_change_pte_writable, always dirty
  shared_dirty_private_exclusive,  ///< 6.2 on
};

/// How the closing TLB flush is decided.
enum class FlushRule : u8 {
  whole_range,  ///< 5.12: one flush of [start, end) when anything was counted
  gather,       ///< 5.19 on: the entries for which pte_needs_flush says so
};

/// The level whose walk starts the notifier.
enum class NotifierLevel : u8 { pmd, pud };

/// The rules of one kernel. Fields are grouped by the source file that they come from.
struct Profile {
  std::string name;    ///< "uffd-wp-v2", "6.18", …
  std::string kernel;  ///< the tree or release that it models
  Config config{};

  // arch/x86/include/asm/pgtable*.h
  u64 devmap_bit = 0;       ///< _PAGE_DEVMAP, 0 where the kernel has none
  u64 saved_dirty_bit = 0;  ///< _PAGE_SAVED_DIRTY, 0 before 6.6
  bool modify_keeps_pat = false;
  bool mkuffd_wp_wrprotects = false;  ///< 6.5 on: pte_mkuffd_wp and pmd_mkuffd_wp clear RW
  bool swp_exclusive = false;         ///< _PAGE_SWP_EXCLUSIVE, 5.19 on

  // include/linux/swapops.h
  MarkerFormat marker_format = MarkerFormat::none;
  u64 marker_mask = 0;                ///< marker bits that exist (PTE_MARKER_*)
  bool swapin_error_type = false;     ///< 5.19 to 6.1: a type above the marker
  bool exclusive_types = false;       ///< migration read-exclusive and device-exclusive types
  bool one_device_exclusive = false;  ///< 6.15 on: one type instead of two

  // mm/mprotect.c, mm/huge_memory.c
  Populate populate = Populate::never;
  bool populate_enomem = false;  ///< 6.4 on: -ENOMEM instead of a warning
  MarkerVmas marker_vmas = MarkerVmas::none;
  bool marker_resolve_needs_file = false;  ///< v2: a marker in an anonymous VMA is left alone
  bool wp_splits_file_pmd = false;         ///< v2 patch 12 on
  UpgradeRule upgrade = UpgradeRule::dirty_accountable;
  bool pmd_retry = false;               ///< 6.5 on: a PMD found bad is cleared and looked at again
  bool numa_saves_write = false;        ///< up to 6.1: pte_mk_savedwrite
  bool numa_skips_zone_device = false;  ///< 6.1 on
  bool migration_keeps_uffd = false;    ///< write -> read migration carries SWP_UFFD_WP by itself
  bool huge_migration_uffd = false;     ///< change_huge_pmd arms migration PMDs
  bool huge_upgrade = false;            ///< 6.2 on: can_change_pmd_writable
  bool split_copies_dirty = false;      ///< an anonymous PMD split keeps D in the entries
  bool split_zero_keeps_uffd = false;
  bool split_flushes_migration = false;  ///< up to 6.9: pmdp_invalidate before the kind is known
  bool pud_leaves = false;               ///< change_huge_pud; otherwise a PUD leaf is bad
  FlushRule flush = FlushRule::whole_range;
  NotifierLevel notifier = NotifierLevel::pmd;

  // mm/mmap.c, mm/vma.c
  bool writenotify_uffd_wp = false;    ///< vma_wants_writenotify has the VM_UFFD_WP term
  bool manual_write_upgrade = false;   ///< vma_wants_manual_pte_write_upgrade
  bool merge_adopts_anon_vma = false;  ///< 6.18: a VMA with anon_vma merges with one without
  bool ro_drops_account = false;  ///< 6.12 on: an anonymous VMA without anon_vma loses VM_ACCOUNT

  // fs/userfaultfd.c, mm/userfaultfd.c
  u64 uffd_features = 0;        ///< reply of UFFDIO_API
  u64 wp_file_feature = 0;      ///< UFFD_FEATURE_WP_HUGETLBFS_SHMEM, another bit in v2
  bool wp_file_backed = false;  ///< WP may be registered on shmem and hugetlb
  bool minor_shmem = false;     ///< 5.13 on: MINOR on shmem
  bool wp_one_vma = false;      ///< WRITEPROTECT: one VMA holds the whole range
  bool wp_table_word = false;   ///< protection word from the flags, not vm_page_prot
  bool wp_upgrades = false;     ///< RESOLVE carries TRY_CHANGE_WRITABLE
  bool unregister_resolves = false;
  bool unregister_checks_ctx = false;
  bool register_merges_next = true;       ///< false on 6.1: no merge after a start inside a VMA
  bool uffd_cont_wp = false;              ///< UFFDIO_CONTINUE has a WP mode
  bool fills_prepare_first = false;       ///< 6.8 on: anon_vma_prepare before the checks
  bool copy_private_over_marker = false;  ///< v2: EEXIST over a marker in a private mapping
  bool copy_ignores_wp_readonly = false;  ///< v2: WP and D not set where VM_WRITE is missing
  bool poison_ioctl = false;              ///< 6.6 on: UFFDIO_POISON
  bool move_ioctl = false;                ///< 6.8 on: UFFDIO_MOVE

  // mm/memory.c, mm/rmap.c, mm/mremap.c, mm/madvise.c, fs/proc/task_mmu.c
  bool migration_wrprotects = false;  ///< a page migrated back armed comes back without RW
  bool pageout_checks_lru = false;    ///< 6.5 on: pages off the LRU keep their A bit
  bool faultaround_dirty = false;     ///< 6.18: a read maps dirty folios dirty
  /// 6.12 on: the entry is armed before RW is considered, and a load may give RW too.
  bool swapin_arms_first = false;
  bool persist_needs_uffd_vma = false;  ///< a zap leaves markers only in VM_UFFD_WP VMAs
  bool fork_copies_wp_vma = false;      ///< page tables copied when the child VMA keeps VM_UFFD_WP
  bool mremap_clears_uffd = false;      ///< bits and markers dropped without EVENT_REMAP
  bool mremap_marks_markers = false;    ///< soft-dirty is set on moved markers too
  bool move_realigns = false;           ///< 6.6 on: whole tables move between unaligned ends
  bool mremap_multi_vma = false;  ///< 6.17 on: a move of several VMAs; a shrink is told shrunk
  bool populate_advice = false;   ///< 5.14 on: MADV_POPULATE_READ and MADV_POPULATE_WRITE
  bool dontneed_locked = false;   ///< 5.18 on: MADV_DONTNEED_LOCKED
  bool guard_advice = false;      ///< 6.13 on: MADV_GUARD_INSTALL and MADV_GUARD_REMOVE
  bool pagemap_uffd_wp = false;   ///< bit 57 of a pagemap word
  bool pagemap_scan = false;      ///< 6.7 on: PAGEMAP_SCAN
  bool anon_exclusive = false;    ///< PageAnonExclusive, 5.19 on

  /// Kind of each of the 32 swap types under this profile's configuration.
  std::array<SwpKind, 32> swp_kinds{};

  bool operator==(const Profile&) const = default;

  [[nodiscard]] SwpKind swp_kind(u64 v) const { return swp_kinds[swp_type(v)]; }
  /// The type number of `kind`, or -1 where this kernel has none.
  [[nodiscard]] int swp_type_of(SwpKind kind) const;

  /// True for the word that wr-protect leaves in a none entry, and for every other PTE marker.
  [[nodiscard]] bool is_marker(u64 v) const {
    if (marker_format == MarkerFormat::special_pte) return v == SPECIAL_PTE;
    return marker_format == MarkerFormat::swap_type && is_swap_pte(v) &&
           swp_kind(v) == SwpKind::pte_marker;
  }
  /// PTE_MARKER_* bits of a marker; the special pte counts as UFFD_WP.
  [[nodiscard]] u64 marker_bits(u64 v) const {
    if (!is_marker(v)) return 0;
    return marker_format == MarkerFormat::special_pte ? PTE_MARKER_UFFD_WP : swp_offset(v);
  }
  [[nodiscard]] bool is_uffd_wp_marker(u64 v) const {
    return (marker_bits(v) & PTE_MARKER_UFFD_WP) != 0;
  }
  /// The word of a marker with the given PTE_MARKER_* bits.
  [[nodiscard]] u64 make_marker(u64 bits) const;

  [[nodiscard]] u64 dirty_bits() const { return _PAGE_DIRTY | saved_dirty_bit; }
  [[nodiscard]] bool pte_dirty(u64 v) const { return (v & dirty_bits()) != 0; }
  [[nodiscard]] u64 soft_dirty_bit() const { return config.mem_soft_dirty ? _PAGE_SOFT_DIRTY : 0; }
  [[nodiscard]] u64 swp_soft_dirty_bit() const {
    return config.mem_soft_dirty ? _PAGE_SWP_SOFT_DIRTY : 0;
  }
  /// D moves to SAVED_DIRTY while RW is off. (pte_shift_saved_dirty out, v6.6 on)
  [[nodiscard]] u64 shift_dirty_out(u64 v) const;
  /// SAVED_DIRTY moves to D while RW is on. (mkwrite of a VMA, v6.6 on)
  [[nodiscard]] u64 shift_dirty_in(u64 v) const;
  [[nodiscard]] u64 pte_wrprotect(u64 v) const { return shift_dirty_out(v & ~_PAGE_RW); }
  [[nodiscard]] u64 pte_mkwrite(u64 v) const { return shift_dirty_in(v | _PAGE_RW); }
  [[nodiscard]] u64 pte_mkdirty(u64 v) const {
    return shift_dirty_out(v | _PAGE_DIRTY | soft_dirty_bit());
  }
  [[nodiscard]] u64 pte_mkclean(u64 v) const { return v & ~dirty_bits(); }
  [[nodiscard]] u64 pte_mkuffd_wp(u64 v) const { return pte_wrprotect(v | _PAGE_UFFD_WP); }
  /// Bits of a leaf that a new protection word does not touch. (_PAGE_CHG_MASK, _HPAGE_CHG_MASK)
  [[nodiscard]] u64 modify_mask(Level level) const;
  /// Applies a protection word to a leaf. (pte_modify, pmd_modify, pud_modify)
  [[nodiscard]] u64 leaf_modify(u64 v, u64 newprot, Level level) const;

  /// The v2 series' uffd-wp special pte.
  static constexpr u64 SPECIAL_PTE = 0x4;
};

/// All profiles, oldest first, each with its default configuration.
std::span<const Profile> profiles();
/// The profile of that name, or nullptr.
const Profile* find_profile(std::string_view name);
/// Numbers the special swap types anew, after the rules or options that decide them have changed.
void number_swap_types(Profile& profile);
/// Names of the options of Config, in declaration order, in the kernel's spelling without CONFIG_.
std::span<const std::string_view> config_options();
/// Reads or sets one option by name; the setter recomputes the swap types. False: no such option.
bool get_config(const Profile& profile, std::string_view option, bool& value);
bool set_config(Profile& profile, std::string_view option, bool value);

/// The pages of physical memory with a role of their own; frames as in the recorded walks.
inline constexpr Pfn ZERO_PFN = 0x1a2b;
inline constexpr Pfn HUGE_ZERO_PFN = 0x600;

}  // namespace ptwalk
