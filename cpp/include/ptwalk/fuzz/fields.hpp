// The fields of every operation, by name: what its function reads is what its row in the table
// says, because both use these.
#pragma once

#include <array>

#include "ptwalk/fuzz/program.hpp"

namespace ptwalk::fuzz::field {

template <class... Names>
constexpr auto names(Names... all) {
  return std::array<std::string_view, sizeof...(all)>{all...};
}

// Everywhere.
inline constexpr Field MM{"mm", Role::number, Member::mm, 0, 4};
inline constexpr Field UFFD{"uffd", Role::number, Member::mm, 4, 4};
/// What is no whole page: `at` and `to` (of mmap the offset) lie 0x800 bytes further, `length` is
/// that much longer. `wrap`: the range ends `length` bytes beyond the end of all addresses, so that
/// the sum overflows; where that is more than MAX_PAGES pages, beyond the end of user memory.
inline constexpr auto ODD_NAMES = names("at", "length", "wrap", "to");
inline constexpr u64 ODD_AT = 1, ODD_LENGTH = 2, ODD_WRAP = 4, ODD_TO = 8;
inline constexpr u64 ODD_BYTES = 0x800;
/// The first `nr` of them, in the half of Op::mm that begins at bit `shift`.
constexpr Field odd(unsigned shift, unsigned nr) {
  return {"odd", Role::flags, Member::mm, shift, nr, Names(ODD_NAMES).first(nr)};
}
inline constexpr Field ODD_PLACE = odd(4, 1), ODD_RANGE = odd(4, 3), ODD_PAIR = odd(4, 4);
inline constexpr Field UFFD_ODD_RANGE = odd(0, 3), UFFD_ODD_PAIR = odd(0, 4);
inline constexpr Field AT{"at", Role::place, Member::page};
inline constexpr Field TO{"to", Role::place, Member::page2};
inline constexpr Field LENGTH{"length", Role::length, Member::nr};
inline constexpr Field PAGES{"length", Role::pages, Member::nr};
inline constexpr Field PROT{"prot", Role::prot, Member::arg, 0, 3};

// Many ranges in one call: how many, and how far apart they begin.
inline constexpr Field STEP{"step", Role::length, Member::page2};
inline constexpr Field RANGES{"ranges", Role::number, Member::extra, 0, 4};

// Accesses.
inline constexpr auto ACCESS_NAMES = names("read", "write");
inline constexpr Field ACCESS{"access", Role::choice, Member::arg, 0, 16, ACCESS_NAMES};
inline constexpr Field THREAD{"thread", Role::number, Member::extra};
inline constexpr auto PATTERN_NAMES =
    names("read", "write", "read_write", "write_read", "read_backwards", "write_backwards",
          "write_every_other", "write_twice");
inline constexpr Field PATTERN{"pattern", Role::choice, Member::arg, 0, 16, PATTERN_NAMES};

// mmap, madvise, mremap.
inline constexpr auto MMAP_FLAG_NAMES =
    names("shared", "locked", "populate", "noreserve", "hint", "fixed_noreplace");
inline constexpr u64 SHARED = 1, LOCKED = 2, POPULATE = 4, NORESERVE = 8, HINT = 16,
                     FIXED_NOREPLACE = 32;
inline constexpr Field MMAP_FLAGS{"flags", Role::flags, Member::arg, 3, 6, MMAP_FLAG_NAMES};
inline constexpr auto BACKING_NAMES =
    names("anon", "shmem", "regular", "readonly", "hugetlb", "dax");
inline constexpr Field BACKING{"backing", Role::choice_or_file, Member::extra, 0, 8, BACKING_NAMES};
inline constexpr Field OFFSET{"offset", Role::number, Member::page2, 0, 7};
inline constexpr auto ADVICE_NAMES =
    names("normal", "random", "sequential", "willneed", "dontneed", "free", "remove", "dontfork",
          "dofork", "hugepage", "nohugepage", "dontdump", "dodump", "wipeonfork", "keeponfork",
          "cold", "pageout", "populate_read", "populate_write", "dontneed_locked", "collapse",
          "guard_install", "guard_remove", "unknown");
/// The numbers of those advices; "unknown" is one that no kernel has.
inline constexpr int ADVICES[] = {0,  1,  2,  3,  4,  8,  9,  10, 11, 14,  15,  16,
                                  17, 18, 19, 20, 21, 22, 23, 24, 25, 102, 103, 99};
static_assert(std::size(ADVICES) == ADVICE_NAMES.size());
inline constexpr Field ADVICE{"advice", Role::choice, Member::arg, 0, 16, ADVICE_NAMES};
inline constexpr Field NEW_LENGTH{"new_length", Role::length, Member::extra};
inline constexpr auto MREMAP_FLAG_NAMES = names("maymove", "fixed", "dontunmap");
inline constexpr Field MREMAP_FLAGS{"flags", Role::flags, Member::arg, 0, 3, MREMAP_FLAG_NAMES};

// Migration and change_protection().
inline constexpr Field WHICH{"which", Role::number, Member::arg, 0, 16};
inline constexpr auto NEWPROT_NAMES =
    names("vma", "none", "ro", "rw", "rx", "rwx", "ro_pkey5", "uncached");
inline constexpr Field NEWPROT{"newprot", Role::choice, Member::arg, 0, 8, NEWPROT_NAMES};
inline constexpr auto CP_FLAG_NAMES =
    names("try_change_writable", "prot_numa", "uffd_wp", "uffd_wp_resolve");
inline constexpr Field CP_FLAGS{"cp_flags", Role::flags, Member::arg, 8, 4, CP_FLAG_NAMES};

// userfaultfd.
inline constexpr auto FEATURE_NAMES =
    names("pagefault_flag_wp", "event_fork", "event_remap", "event_remove", "missing_hugetlbfs",
          "missing_shmem", "event_unmap", "sigbus", "thread_id", "minor_hugetlbfs", "minor_shmem",
          "exact_address", "wp_hugetlbfs_shmem", "wp_unpopulated", "poison", "wp_async");
inline constexpr Field FEATURES{"features", Role::flags, Member::arg, 0, 16, FEATURE_NAMES};
/// "as_they_are": without it, features that the kernel lacks are left out of the request.
inline constexpr auto API_NAMES = names("move", "user_mode_only", "as_they_are");
inline constexpr u64 API_MOVE = 1, API_USER_MODE_ONLY = 2, API_AS_THEY_ARE = 4;
inline constexpr Field API{"api", Role::flags, Member::extra, 0, 3, API_NAMES};
inline constexpr auto REGISTER_NAMES = names("missing", "wp", "minor");
inline constexpr Field REGISTER_MODE{"mode", Role::flags, Member::arg, 0, 3, REGISTER_NAMES};
inline constexpr auto WRITEPROTECT_NAMES = names("wp", "dontwake");
inline constexpr Field WP_MODE{"mode", Role::flags, Member::arg, 0, 2, WRITEPROTECT_NAMES};
inline constexpr auto FILL_NAMES = names("dontwake", "wp");
inline constexpr Field FILL_MODE{"mode", Role::flags, Member::arg, 0, 2, FILL_NAMES};
inline constexpr auto MOVE_NAMES = names("dontwake", "allow_src_holes");
inline constexpr Field MOVE_MODE{"mode", Role::flags, Member::arg, 0, 2, MOVE_NAMES};

// PAGEMAP_SCAN.
inline constexpr auto CATEGORY_NAMES =
    names("wpallowed", "written", "file", "present", "swapped", "pfnzero", "huge", "soft_dirty");
inline constexpr Field CATEGORY_MASK{"mask", Role::flags, Member::arg, 0, 8, CATEGORY_NAMES};
inline constexpr Field CATEGORY_ANYOF{"anyof", Role::flags, Member::arg, 8, 8, CATEGORY_NAMES};
inline constexpr Field INVERTED{"inverted", Role::flags, Member::page2, 0, 8, CATEGORY_NAMES};
inline constexpr auto SCAN_NAMES = names("wp_matching", "check_wpasync");
inline constexpr Field SCAN_FLAGS{"flags", Role::flags, Member::extra, 0, 2, SCAN_NAMES};
inline constexpr Field MAX_FOUND{"max_pages", Role::number, Member::extra, 2, 6};

// Files: a page index and a file.
inline constexpr Field INDEX{"index", Role::number, Member::page};
inline constexpr Field OF_FILE{"file", Role::number, Member::page2};

// Raw stores.
inline constexpr auto WORD_NAMES =
    names("none", "accessed", "dirty", "ro", "rw_dirty", "armed", "armed_rw", "protnone",
          "protnone_armed", "zero_page", "zero_page_armed", "special", "devmap", "pat", "pkey5",
          "not_user", "frame0_ro", "frame0_rw", "frame1_ro", "frame1_rw", "frame2_armed", "swap1",
          "swap1_armed", "swap1_soft_dirty", "swap1_exclusive", "swap2", "swap_area3",
          "migration_read", "migration_read_exclusive", "migration_write", "migration_write_armed",
          "migration_write_frame0", "hwpoison", "device_private_read", "device_private_write",
          "device_exclusive_read", "device_exclusive_write", "marker_wp", "marker_poisoned",
          "marker_guard", "marker_all", "marker_empty", "special_pte", "swapin_error", "huge_ro",
          "huge_rw_dirty", "huge_armed", "huge_protnone", "huge_zero", "huge_migration_write",
          "huge_migration_armed", "huge_1g", "bad_table", "bad_no_accessed", "all_ones");
inline constexpr Field WORD{"word", Role::choice, Member::arg, 0, 6, WORD_NAMES};
inline constexpr auto TOGGLE_NAMES = names("rw", "user", "accessed", "dirty", "pse", "protnone",
                                           "uffd_wp", "soft_dirty", "saved_dirty", "nx");
inline constexpr Field TOGGLE{"toggle", Role::flags, Member::arg, 6, 10, TOGGLE_NAMES};
inline constexpr auto LEVEL_NAMES = names("pte", "pmd", "pud", "pgd");
inline constexpr Field LEVEL{"level", Role::choice, Member::extra, 0, 8, LEVEL_NAMES};
inline constexpr auto TABLE_FLAG_NAMES = names("user", "kernel", "nx", "none");
inline constexpr u64 TABLE_FLAGS[] = {0x67, 0x63, 0x8000000000000067, 0};
inline constexpr Field TABLE{"flags", Role::choice, Member::arg, 0, 16, TABLE_FLAG_NAMES};
inline constexpr auto VM_FLAG_NAMES = names("write", "dontexpand", "maywrite", "uffd_missing",
                                            "pfnmap", "uffd_wp", "io", "softdirty");
inline constexpr Field ADD{"add", Role::flags, Member::arg, 0, 8, VM_FLAG_NAMES};
inline constexpr Field REMOVE{"remove", Role::flags, Member::arg, 8, 8, VM_FLAG_NAMES};
inline constexpr auto LOAD_FLAG_NAMES = names("shared", "locked", "noreserve", "wipeonfork",
                                              "pfnmap", "mixedmap", "uffd_wp", "softdirty");
inline constexpr Field LOAD_FLAGS{"flags", Role::flags, Member::arg, 3, 8, LOAD_FLAG_NAMES};
inline constexpr auto LOAD_BACKING_NAMES =
    names("anon", "shmem", "regular", "hugetlb", "dax", "other");
inline constexpr Field LOAD_BACKING{"backing", Role::choice_or_file, Member::extra, 0,
                                    8,         LOAD_BACKING_NAMES};
inline constexpr auto FACT_NAMES =
    names("anon", "file", "exclusive", "dirty", "zero", "elsewhere");  // AddressSpace::load_pages
inline constexpr Field FACTS{"facts", Role::flags, Member::extra, 0, 6, FACT_NAMES};
/// "asked": the word has no frame, and asks for one.
inline constexpr auto FRAME_NAMES = names("given", "asked");
inline constexpr Field FRAME{"frame", Role::choice, Member::extra, 6, 1, FRAME_NAMES};
inline constexpr Field COUNTDOWN{"n", Role::number, Member::arg, 0, 4};

}  // namespace ptwalk::fuzz::field
