// One program on its way: what an operation's function is given. Has no kernel counterpart.
#pragma once

#include <array>

#include "ptwalk/fuzz/change_judge.hpp"
#include "ptwalk/fuzz/fields.hpp"
#include "ptwalk/fuzz/report.hpp"
#include "ptwalk/fuzz/world.hpp"

namespace ptwalk::fuzz {

/// The words that raw stores choose from (field::WORD_NAMES), under one profile; none for what its
/// kernel cannot have.
using RawWords = std::array<u64, field::WORD_NAMES.size()>;
[[nodiscard]] RawWords raw_words(const Profile& profile);

/// When violations are looked for.
enum class Judge : u8 {
  end,   ///< in the final state and in the accounts
  each,  ///< and before and after each operation, slowly
};

/// The range that an operation asks for, and the other place that it names. Seldom whole pages: see
/// field::ODD_NAMES.
struct Asked {
  u64 at, length, to = 0;
  /// The pages that it touches, if it touches any.
  [[nodiscard]] Range pages() const {
    return {align_down(at, PAGE_SIZE), align_up(at + length, PAGE_SIZE)};
  }
};

class Run {
 public:
  Run(World& world, const RawWords& words, Judge judge, Report& report)
      : world(world), words(words), judge(judge), report(report) {}

  World& world;
  const RawWords& words;
  const Judge judge;
  Report& report;

  [[nodiscard]] Machine& machine() const { return *world.machine; }
  /// The address space that the operation names.
  [[nodiscard]] AddressSpace& mm(const Op& op) const { return *world.spaces[space(op)]; }
  [[nodiscard]] std::size_t space(const Op& op) const {
    return wrapped(field::MM(op), world.spaces.size());
  }
  /// The userfaultfd that it names; there must be one.
  [[nodiscard]] UffdId fd(const Op& op) const {
    return world.fds[wrapped(field::UFFD(op), world.fds.size())];
  }
  /// The userfaultfd that it names and its address space; nullptr, and said so, where there is
  /// none.
  AddressSpace* uffd(const Op& op, UffdId& id) const;
  /// What an operation asks for whose range has this length, with its bits of field::ODD_NAMES.
  [[nodiscard]] Asked asked(const Op& op, u64 length, u64 odd, u64 to = 0) const {
    const Asked whole{field::AT(op), length, to};
    return odd ? odd_of(whole, odd) : whole;
  }
  /// Makes and judges a change of protection of `mm`; `change` may be called again.
  template <class Change>
  [[nodiscard]] Result<ProtectResult> judged(const AddressSpace& mm, const ChangeRequest& request,
                                             Change change) const {
    // Raw stores void the properties, and populating moves on.
    const bool judges = judge == Judge::each && !world.raw && !populates(mm, request);
    if (!judges) return change();
    const ChangeJudge before(mm, request);
    const Result<ProtectResult> done = change();
    report.violations |= before.judge(done.value, !done.ok());
    if (request.kind != ChangeKind::protect || !done.ok()) return done;
    const ChangeJudge once(mm, request);
    const Coverage coverage = machine().coverage;  // the program asked once
    report.violations |= once.judge_again(change().value);
    machine().coverage = coverage;
    return done;
  }
  /// The same and reports it; returns how it ended.
  template <class Change>
  [[nodiscard]] Error protect(const AddressSpace& mm, const ChangeRequest& request,
                              Change change) const {
    return protect(judged(mm, request, change));
  }
  /// Makes, judges and reports a change of many ranges: `call` on all of them, or on each where
  /// each is judged. `ranges` holds start and length of each in turn.
  template <class Call>
  void protect_many(const AddressSpace& mm, ChangeRequest request, std::span<const u64> ranges,
                    Call call) const {
    Result<RangesResult> all;
    if (judge == Judge::end) all = call(ranges);
    for (u64& i = all.value.done; judge == Judge::each && all.ok() && i < ranges.size() / 2;) {
      const std::span<const u64> one = ranges.subspan(2 * i, 2);
      request.range = Asked{one[0], one[1]}.pages();
      const Result<ProtectResult> done = judged(mm, request, [&] {
        Result<RangesResult> made = call(one);
        return Result<ProtectResult>{std::move(made.value.result), made.error};
      });
      all.value.result.add(done.value);
      all.error = done.error;
      i += done.ok();
    }
    report.result("ranges", all.value.done);
    report.end(protect({std::move(all.value.result), all.error}));
  }
  /// Reports a change of protection and judges its account; returns how it ended.
  Error protect(const Result<ProtectResult>& done) const;
  /// The file that it names; NO_FILE where there is none.
  [[nodiscard]] FileId file(u64 number) const;

 private:
  [[nodiscard]] Asked odd_of(const Asked& whole, u64 odd) const;
  /// number % nr; most numbers need no division.
  [[nodiscard]] static std::size_t wrapped(u64 number, std::size_t nr) {
    return number < nr ? number : number % nr;
  }
  /// Whether the request brings pages in too, as mprotect does where VM_LOCKED meets VM_WRITE.
  [[nodiscard]] static bool populates(const AddressSpace& mm, const ChangeRequest& request);
};

/// The ranges of an operation on many, start and length of each in turn.
struct ManyRanges {
  std::array<u64, 2 << field::RANGES.bits> words;
  u64 nr = 0;
  [[nodiscard]] std::span<const u64> span() const { return {words.data(), 2 * nr}; }
};
[[nodiscard]] ManyRanges many_ranges(const Op& op, const Asked& first);

// The functions of the table of operations, grouped by the source file that has them.
// system_calls.cpp
void run_access(Run& run, const Op& op);
void run_access_many(Run& run, const Op& op);
void run_kernel_access(Run& run, const Op& op);
void run_populate(Run& run, const Op& op);
void run_mmap(Run& run, const Op& op);
void run_munmap(Run& run, const Op& op);
void run_mprotect(Run& run, const Op& op);
void run_mprotect_many(Run& run, const Op& op);
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
void run_writeprotect_many(Run& run, const Op& op);
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
void run_load_vma(Run& run, const Op& op);
void run_load_pages(Run& run, const Op& op);
void run_fail_table_alloc(Run& run, const Op& op);

}  // namespace ptwalk::fuzz
