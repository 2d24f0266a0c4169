// Random programs of a stated mix of operations, the same on every machine: what the speed of the
// backend is measured with, and a start for fuzzers. Has no kernel counterpart.
#pragma once

#include "ptwalk/fuzz/program.hpp"

namespace ptwalk::fuzz {

inline constexpr std::size_t MIX_OPS = 20;
inline constexpr unsigned MIX_PAGES = 16;

/// One kind of operation of the mix and its share in percent.
struct MixShare {
  std::string_view what;
  unsigned percent;
};
/// The mix: faults, wr-protects and resolves, mprotect, zaps, changes of VMAs.
std::span<const MixShare> mix_shares();

/// The `i`-th program of that seed: MIX_OPS operations on the first MIX_PAGES pages.
void standard_program(u64 seed, u64 i, std::span<u8, MIX_OPS * OP_BYTES> program);

}  // namespace ptwalk::fuzz
