// What a machine can do with the bytes of page tables when nothing is decided: the limit that
// benchmarks hold the kernels against. Has no kernel counterpart.
#pragma once

#include <span>

#include "ptwalk/types.hpp"

namespace ptwalk {

/// Makes every word (word & keep) | set, in place, as fast as this processor reads and writes; on
/// at most `threads` threads.
void read_modify_write(std::span<u64> words, u64 keep, u64 set, unsigned threads = 1);

}  // namespace ptwalk
