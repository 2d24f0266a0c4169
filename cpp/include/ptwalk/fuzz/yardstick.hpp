// What benchmarks time of the fuzzing backend, for programs of Python and of C++ alike. Has no
// kernel counterpart.
#pragma once

#include "ptwalk/fuzz/executor.hpp"

namespace ptwalk::fuzz {

/// Runs programs of `width` bytes each that lie one after another; the sum of their digests.
u64 run_all(Executor& executor, std::span<const u8> programs, std::size_t width);

/// Nanoseconds of going back after a store to one page, for which all four levels of tables were
/// touched: the fastest of `times`, the clock included.
double restore_ns(const Profile& profile, std::size_t times);

}  // namespace ptwalk::fuzz
