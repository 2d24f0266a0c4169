// The checks that every userfaultfd range ioctl starts with. Models fs/userfaultfd.c:
// userfaultfd_ioctl and validate_range (v6.18).
#pragma once

#include "ptwalk/address_space.hpp"

namespace ptwalk {

/// The context is open and its UFFDIO_API succeeded.
inline Error check_context(const Machine& machine, UffdId id, const char* call) {
  const UffdContext& ctx = machine.uffds[u64(id)];
  if (ctx.closed) return {Cause::closed, call};
  if (!ctx.api_done) return {Cause::api_missing, call};
  return {};
}

/// Page aligned, not empty, inside user memory.
inline Error check_range(const AddressSpace& mm, const char* call, u64 start, u64 length) {
  if (!is_aligned(start, PAGE_SIZE)) return {Cause::start_unaligned, call, start};
  if (!is_aligned(length, PAGE_SIZE)) return {Cause::length_unaligned, call, length};
  if (!length) return {Cause::length_zero, call};
  if (start < MMAP_MIN_ADDR) return {Cause::start_below_min, call, start, MMAP_MIN_ADDR};
  if (start >= mm.task_size() || length > mm.task_size() - start)
    return {Cause::beyond_task_size, call, start, length, mm.task_size()};
  return {};
}

}  // namespace ptwalk
