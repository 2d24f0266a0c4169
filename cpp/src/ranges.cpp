// One system call on many ranges, each made as if by a call of its own, in order. The kernel has no
// such call: a program that protects scattered pages makes one for each.
#include "ptwalk/address_space.hpp"

namespace ptwalk {
namespace {

/// Makes `call(start, length)` for each range until one fails.
template <class Call>
Result<RangesResult> for_each_range(std::span<const u64> ranges, Call call) {
  Result<RangesResult> out;
  for (; out.ok() && out.value.done < ranges.size() / 2; out.value.done += out.ok()) {
    const u64* const range = &ranges[2 * out.value.done];
    Result<ProtectResult> one = call(range[0], range[1]);
    out.value.result.add(one.value);
    out.error = one.error;
  }
  return out;
}

}  // namespace

Result<RangesResult> AddressSpace::mprotect_many(std::span<const u64> ranges, int prot) {
  return for_each_range(ranges,
                        [&](u64 start, u64 length) { return mprotect(start, length, prot); });
}

Result<RangesResult> AddressSpace::uffd_writeprotect_many(UffdId ctx, std::span<const u64> ranges,
                                                          u64 mode) {
  return for_each_range(
      ranges, [&](u64 start, u64 length) { return uffd_writeprotect(ctx, start, length, mode); });
}

}  // namespace ptwalk
