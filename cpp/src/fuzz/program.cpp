// The table of operations: name, fields, function. Rows are never moved or removed, only added
// with a new FORMAT_VERSION, since a program names its operations by their row.
#include "ptwalk/fuzz/program.hpp"

#include "ptwalk/fuzz/run.hpp"

namespace ptwalk::fuzz {
namespace {

using namespace field;

template <const Field&... fields>
inline constexpr Field ROW[] = {fields...};

constexpr Operation OPERATIONS[] = {
    // version 1
    {"access", ROW<AT, ACCESS, THREAD, ODD_PLACE, MM>, run_access},
    {"access_many", ROW<AT, PAGES, PATTERN, ODD_PLACE, MM>, run_access_many},
    {"kernel_access", ROW<AT, ACCESS, ODD_PLACE, MM>, run_kernel_access},
    {"populate", ROW<AT, PAGES, ACCESS, ODD_RANGE, MM>, run_populate},
    {"mmap", ROW<AT, LENGTH, PROT, MMAP_FLAGS, BACKING, OFFSET, ODD_PAIR, MM>, run_mmap},
    {"munmap", ROW<AT, LENGTH, ODD_RANGE, MM>, run_munmap},
    {"mprotect", ROW<AT, LENGTH, PROT, ODD_RANGE, MM>, run_mprotect},
    {"madvise", ROW<AT, LENGTH, ADVICE, ODD_RANGE, MM>, run_madvise},
    {"mremap", ROW<AT, LENGTH, TO, NEW_LENGTH, MREMAP_FLAGS, ODD_PAIR, MM>, run_mremap},
    {"fork", ROW<MM>, run_fork},
    {"exit", ROW<MM>, run_exit},
    {"mlock", ROW<AT, PAGES, ODD_RANGE, MM>, run_mlock},
    {"munlock", ROW<AT, PAGES, ODD_RANGE, MM>, run_munlock},
    {"reclaim", ROW<AT, PAGES, MM>, run_reclaim},
    {"migrate_start", ROW<AT, PAGES, MM>, run_migrate_start},
    {"migrate_finish", ROW<WHICH>, run_migrate_finish},
    {"userfaultfd", ROW<FEATURES, API, MM>, run_userfaultfd},
    {"close", ROW<UFFD>, run_uffd_close},
    {"register", ROW<AT, LENGTH, REGISTER_MODE, UFFD_ODD_RANGE, UFFD>, run_register},
    {"unregister", ROW<AT, LENGTH, UFFD_ODD_RANGE, UFFD>, run_unregister},
    {"writeprotect", ROW<AT, LENGTH, WP_MODE, UFFD_ODD_RANGE, UFFD>, run_writeprotect},
    {"wake", ROW<AT, LENGTH, UFFD_ODD_RANGE, UFFD>, run_wake},
    {"copy", ROW<AT, PAGES, FILL_MODE, UFFD_ODD_RANGE, UFFD>, run_copy},
    {"zeropage", ROW<AT, PAGES, FILL_MODE, UFFD_ODD_RANGE, UFFD>, run_zeropage},
    {"continue", ROW<AT, PAGES, FILL_MODE, UFFD_ODD_RANGE, UFFD>, run_continue},
    {"poison", ROW<AT, PAGES, FILL_MODE, UFFD_ODD_RANGE, UFFD>, run_poison},
    {"move", ROW<AT, TO, PAGES, MOVE_MODE, UFFD_ODD_PAIR, UFFD>, run_move},
    {"read", ROW<UFFD>, run_read},
    {"pagemap_scan",
     ROW<AT, PAGES, CATEGORY_MASK, CATEGORY_ANYOF, INVERTED, SCAN_FLAGS, MAX_FOUND, ODD_RANGE, MM>,
     run_pagemap_scan},
    {"file_write", ROW<INDEX, PAGES, OF_FILE>, run_file_write},
    {"file_read", ROW<INDEX, PAGES, OF_FILE>, run_file_read},
    {"file_truncate", ROW<INDEX, OF_FILE>, run_file_truncate},
    {"file_punch_hole", ROW<INDEX, PAGES, OF_FILE>, run_file_punch_hole},
    {"numa", ROW<AT, LENGTH, MM>, run_numa},
    {"change_protection", ROW<AT, LENGTH, NEWPROT, CP_FLAGS, MM>, run_change_protection, true},
    {"set_pte", ROW<AT, WORD, TOGGLE, MM>, run_set_pte, true},
    {"set_ptes", ROW<AT, PAGES, WORD, TOGGLE, MM>, run_set_ptes, true},
    {"set_entry", ROW<AT, LEVEL, WORD, TOGGLE, MM>, run_set_entry, true},
    {"alloc_table", ROW<AT, LEVEL, TABLE, MM>, run_alloc_table, true},
    {"set_vm_flags", ROW<AT, LENGTH, ADD, REMOVE, MM>, run_set_vm_flags, true},
    {"fail_table_alloc", ROW<COUNTDOWN, MM>, run_fail_table_alloc, true},
    // version 2
    {"mprotect_many", ROW<AT, LENGTH, PROT, STEP, RANGES, ODD_RANGE, MM>, run_mprotect_many},
    {"writeprotect_many", ROW<AT, LENGTH, WP_MODE, STEP, RANGES, UFFD_ODD_RANGE, UFFD>,
     run_writeprotect_many},
    {"load_vma", ROW<AT, LENGTH, PROT, LOAD_FLAGS, LOAD_BACKING, OFFSET, MM>, run_load_vma, true},
    {"load_pages", ROW<AT, PAGES, WORD, TOGGLE, FACTS, FRAME, MM>, run_load_pages, true},
};
static_assert(std::size(OPERATIONS) == NR_OPERATIONS);

}  // namespace

std::span<const Operation> operations() { return OPERATIONS; }

std::vector<u8> encode(std::span<const Op> ops) {
  std::vector<u8> program;
  program.reserve(ops.size() * OP_BYTES);
  for (const Op& op : ops)
    program.insert(program.end(), {op.op, op.mm, op.page, op.nr, u8(op.arg & 0xff), u8(op.arg >> 8),
                                   op.page2, op.extra});
  return program;
}

}  // namespace ptwalk::fuzz
