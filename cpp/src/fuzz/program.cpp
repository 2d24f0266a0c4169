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
    {"access", ROW<AT, ACCESS, THREAD, MM>, run_access},
    {"access_many", ROW<AT, PAGES, PATTERN, MM>, run_access_many},
    {"kernel_access", ROW<AT, ACCESS, MM>, run_kernel_access},
    {"populate", ROW<AT, PAGES, ACCESS, MM>, run_populate},
    {"mmap", ROW<AT, LENGTH, PROT, MMAP_FLAGS, BACKING, OFFSET, MM>, run_mmap},
    {"munmap", ROW<AT, LENGTH, MM>, run_munmap},
    {"mprotect", ROW<AT, LENGTH, PROT, MM>, run_mprotect},
    {"madvise", ROW<AT, LENGTH, ADVICE, MM>, run_madvise},
    {"mremap", ROW<AT, LENGTH, TO, NEW_LENGTH, MREMAP_FLAGS, MM>, run_mremap},
    {"fork", ROW<MM>, run_fork},
    {"exit", ROW<MM>, run_exit},
    {"mlock", ROW<AT, PAGES, MM>, run_mlock},
    {"munlock", ROW<AT, PAGES, MM>, run_munlock},
    {"reclaim", ROW<AT, PAGES, MM>, run_reclaim},
    {"migrate_start", ROW<AT, PAGES, MM>, run_migrate_start},
    {"migrate_finish", ROW<WHICH>, run_migrate_finish},
    {"userfaultfd", ROW<FEATURES, API, MM>, run_userfaultfd},
    {"close", ROW<UFFD>, run_uffd_close},
    {"register", ROW<AT, LENGTH, REGISTER_MODE, UFFD>, run_register},
    {"unregister", ROW<AT, LENGTH, UFFD>, run_unregister},
    {"writeprotect", ROW<AT, LENGTH, WP_MODE, UFFD>, run_writeprotect},
    {"wake", ROW<AT, LENGTH, UFFD>, run_wake},
    {"copy", ROW<AT, PAGES, FILL_MODE, UFFD>, run_copy},
    {"zeropage", ROW<AT, PAGES, FILL_MODE, UFFD>, run_zeropage},
    {"continue", ROW<AT, PAGES, FILL_MODE, UFFD>, run_continue},
    {"poison", ROW<AT, PAGES, FILL_MODE, UFFD>, run_poison},
    {"move", ROW<AT, TO, PAGES, MOVE_MODE, UFFD>, run_move},
    {"read", ROW<UFFD>, run_read},
    {"pagemap_scan",
     ROW<AT, PAGES, CATEGORY_MASK, CATEGORY_ANYOF, INVERTED, SCAN_FLAGS, MAX_FOUND, MM>,
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
