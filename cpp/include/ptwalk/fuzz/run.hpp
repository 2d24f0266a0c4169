// One program on its way: what an operation's function is given. Has no kernel counterpart.
#pragma once

#include <array>

#include "ptwalk/fuzz/fields.hpp"
#include "ptwalk/fuzz/report.hpp"
#include "ptwalk/fuzz/world.hpp"

namespace ptwalk::fuzz {

/// The words that raw stores choose from (field::WORD_NAMES), under one profile; none for what its
/// kernel cannot have.
using RawWords = std::array<u64, field::WORD_NAMES.size()>;
[[nodiscard]] RawWords raw_words(const Profile& profile);

class Run {
 public:
  Run(World& world, const RawWords& words, Report& report)
      : world(world), words(words), report(report) {}

  World& world;
  const RawWords& words;
  Report& report;

  [[nodiscard]] Machine& machine() const { return *world.machine; }
  /// The address space that the operation names.
  [[nodiscard]] AddressSpace& mm(const Op& op) const { return *world.spaces[space(op)]; }
  [[nodiscard]] std::size_t space(const Op& op) const {
    return std::size_t(field::MM(op)) % world.spaces.size();
  }
  /// The userfaultfd that it names and its address space; nullptr, and said so, where there is
  /// none.
  AddressSpace* uffd(const Op& op, UffdId& id) const;
  /// Reports and judges a change of protection.
  void protect(const Result<ProtectResult>& done) const;
  /// The file that it names; NO_FILE where there is none.
  [[nodiscard]] FileId file(u64 number) const;
};

// The functions of the table of operations, grouped by the source file that has them.
// system_calls.cpp
void run_access(Run& run, const Op& op);
void run_access_many(Run& run, const Op& op);
void run_kernel_access(Run& run, const Op& op);
void run_populate(Run& run, const Op& op);
void run_mmap(Run& run, const Op& op);
void run_munmap(Run& run, const Op& op);
void run_mprotect(Run& run, const Op& op);
void run_madvise(Run& run, const Op& op);
void run_mremap(Run& run, const Op& op);
void run_fork(Run& run, const Op& op);
void run_exit(Run& run, const Op& op);
void run_mlock(Run& run, const Op& op);
void run_munlock(Run& run, const Op& op);
void run_pagemap_scan(Run& run, const Op& op);
// uffd_calls.cpp
void run_userfaultfd(Run& run, const Op& op);
void run_uffd_close(Run& run, const Op& op);
void run_register(Run& run, const Op& op);
void run_unregister(Run& run, const Op& op);
void run_writeprotect(Run& run, const Op& op);
void run_wake(Run& run, const Op& op);
void run_copy(Run& run, const Op& op);
void run_zeropage(Run& run, const Op& op);
void run_continue(Run& run, const Op& op);
void run_poison(Run& run, const Op& op);
void run_move(Run& run, const Op& op);
void run_read(Run& run, const Op& op);
// machine_calls.cpp
void run_reclaim(Run& run, const Op& op);
void run_migrate_start(Run& run, const Op& op);
void run_migrate_finish(Run& run, const Op& op);
void run_numa(Run& run, const Op& op);
void run_file_write(Run& run, const Op& op);
void run_file_read(Run& run, const Op& op);
void run_file_truncate(Run& run, const Op& op);
void run_file_punch_hole(Run& run, const Op& op);
// raw_calls.cpp
void run_change_protection(Run& run, const Op& op);
void run_set_pte(Run& run, const Op& op);
void run_set_ptes(Run& run, const Op& op);
void run_set_entry(Run& run, const Op& op);
void run_alloc_table(Run& run, const Op& op);
void run_set_vm_flags(Run& run, const Op& op);
void run_fail_table_alloc(Run& run, const Op& op);

}  // namespace ptwalk::fuzz
