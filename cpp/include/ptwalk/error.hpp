// One value per cause of failure, with the facts that its message needs. Nothing here allocates:
// the text is made by describe() when somebody asks for it.
#pragma once

#include <string>

#include "ptwalk/types.hpp"

namespace ptwalk {

/// Why an operation was refused. The errno of each is in error.cpp, one row per cause.
enum class Cause : u8 {
  none,
  // InvalidArgument: what no system call judges
  entry_unaligned,
  entry_level,
  entry_not_a_frame,
  entry_wrong_frame,
  entry_no_table,
  entry_not_none,
  bad_table_flags,
  entry_not_canonical,
  range_unaligned,
  range_backwards,
  both_wp_and_resolve,
  out_of_frames,
  unknown_cp_flag,
  vma_missing,
  huge_fault,
  checkpoint_void,
  space_gone,
  // KernelError: what a system call judges
  start_unaligned,
  length_unaligned,
  length_zero,
  length_overflow,
  start_below_min,
  beyond_task_size,
  offset_unaligned,
  offset_overflow,
  address_taken,
  no_space,
  bad_flags,
  bad_mremap_flags,
  bad_prot,
  grow_both,
  hole,
  no_vma,
  no_vma_einval,
  may_not,
  map_count,
  file_not_writable,
  not_registered,
  not_registered_wp,
  not_registered_einval,
  not_registered_here,
  wp_not_registered_einval,
  unknown_ioctl,
  no_pagemap_scan,
  one_vma_rule,
  wrong_backing,
  huge_unaligned,
  no_may_write,
  owned_by_other,
  bad_mode,
  mmap_changing,
  closed,
  api_missing,
  bad_feature,
  table_alloc_failed,
  entry_exists,
  entry_missing,
  entry_busy,
  entry_migrating,
  entry_special,
  fault_repeats,
  page_not_cached,
  beyond_eof,
  beyond_eof_einval,
  locked_vma,
  bad_advice,
  unknown_advice,
  unmodelled_advice,
  guard_livelock,
  wraps,
  page_fault_failed,
  page_poisoned,
  gup_refused,
  lock_fault_failed,
  would_block,
  overlap,
  resized_old,
  not_mapped,
  crosses_vma,
  bad_scan,
  not_wp_async,
  partial,
  beyond_access,  // new ones come last: digests of the fuzzing backend have their numbers
};

/// A cause with up to three facts (addresses, lengths, flags) and the call that found it.
struct [[nodiscard]] Error {
  Cause cause = Cause::none;
  const char* call = "";
  u64 a = 0;
  u64 b = 0;
  u64 c = 0;
  [[nodiscard]] constexpr bool ok() const { return cause == Cause::none; }
  constexpr explicit operator bool() const { return cause != Cause::none; }
};

/// A result together with the error that stopped it; `value` is then how far it got.
template <class T>
struct [[nodiscard]] Result {
  T value{};
  Error error{};
  [[nodiscard]] bool ok() const { return error.ok(); }
};

/// The errno of a cause; 0 for those that no system call judges.
int errno_of(Cause cause);
/// "UFFDIO_WRITEPROTECT: start 0x… is not page aligned (4096); round down with …".
std::string describe(const Error& error);
/// "rw-s": permissions as /proc/PID/maps prints them.
std::string permissions(u64 vm_flags);

}  // namespace ptwalk
