#include "ptwalk/fuzz/mix.hpp"

#include <algorithm>
#include <array>

namespace ptwalk::fuzz {
namespace {

/// Splitmix64: the numbers are the same everywhere.
class Random {
 public:
  explicit Random(u64 seed) : state_(seed) {}
  u64 operator()() {
    u64 x = state_ += 0x9e3779b97f4a7c15;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
    x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
    return x ^ (x >> 31);
  }
  unsigned below(unsigned n) { return unsigned((*this)() >> 32) % n; }

 private:
  u64 state_;
};

/// Rows of operations().
enum : u8 {
  ACCESS = 0,
  ACCESS_MANY = 1,
  MMAP = 4,
  MUNMAP = 5,
  MPROTECT = 6,
  MADVISE = 7,
  RECLAIM = 13,
  REGISTER = 18,
  WRITEPROTECT = 20,
  READ = 27,
  PUNCH_HOLE = 32,
};

constexpr u16 DONTNEED = 4;  // of field::ADVICE_NAMES
constexpr u16 SHARED_RW = 3 | 1 << 3, PRIVATE_RW = 3;
constexpr u8 FILE_0 = 6;  // of field::BACKING

constexpr MixShare SHARES[] = {
    {"access, a load", 15},
    {"access, a store", 15},
    {"access_many, any pattern", 4},
    {"writeprotect wp", 14},
    {"writeprotect, resolving", 14},
    {"mprotect r-- or rw-", 10},
    {"madvise dontneed", 8},
    {"reclaim", 3},
    {"file_punch_hole", 3},
    {"mmap of anonymous memory or the first file", 5},
    {"munmap", 3},
    {"register wp", 2},
    {"read", 4},
};

/// The operation of a share; place and length are there already.
Op filled(std::size_t share, Op op, Random& random) {
  switch (share) {
    case 0: return op.op = ACCESS, op.nr = 0, op;
    case 1: return op.op = ACCESS, op.nr = 0, op.arg = 1, op;
    case 2: return op.op = ACCESS_MANY, op.arg = u16(random.below(8)), op;
    case 3: return op.op = WRITEPROTECT, op.arg = 1, op;
    case 4: return op.op = WRITEPROTECT, op;
    case 5: return op.op = MPROTECT, op.arg = u16(1 + 2 * random.below(2)), op;
    case 6: return op.op = MADVISE, op.arg = DONTNEED, op;
    case 7: return op.op = RECLAIM, op;
    case 8: return op.op = PUNCH_HOLE, op;
    case 9: {
      const bool anonymous = random.below(2);
      op.op = MMAP;
      op.arg = anonymous ? PRIVATE_RW : SHARED_RW;
      op.extra = anonymous ? 0 : FILE_0;
      op.page2 = anonymous ? 0 : op.page;
      return op;
    }
    case 10: return op.op = MUNMAP, op;
    case 11: return op.op = REGISTER, op.arg = 2, op;
    default: return Op{.op = READ};
  }
}

}  // namespace

std::span<const MixShare> mix_shares() { return SHARES; }

void standard_program(u64 seed, u64 i, std::span<u8, MIX_OPS * OP_BYTES> program) {
  Random random(seed * 0x2545f4914f6cdd1d + i);
  std::array<Op, MIX_OPS> ops;
  for (Op& op : ops) {
    const unsigned page = random.below(MIX_PAGES);
    op = {.page = u8(page), .nr = u8(1 + random.below(MIX_PAGES - page))};
    unsigned percent = random.below(100);
    std::size_t share = 0;
    for (; percent >= SHARES[share].percent; ++share) percent -= SHARES[share].percent;
    op = filled(share, op, random);
  }
  const std::vector<u8> bytes = encode(ops);
  std::copy(bytes.begin(), bytes.end(), program.begin());
}

}  // namespace ptwalk::fuzz
