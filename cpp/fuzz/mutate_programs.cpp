// How libFuzzer changes programs: operation by operation, so that what follows a change keeps its
// meaning, and with short ranges for what works page by page, since a program that touches a
// thousand pages takes the time of a hundred others and shows no more.
#include <algorithm>
#include <cstring>
#include <random>

#include "ptwalk/fuzz/run.hpp"
#include "target.hpp"

using namespace ptwalk;
using namespace ptwalk::fuzz;

extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t max_size);

namespace {

using Random = std::minstd_rand;

constexpr u8 SHORT = 16;                             ///< pages
constexpr std::size_t MM_BYTE = 1, LENGTH_BYTE = 3;  ///< Op::mm, Op::nr

/// Whether the operation works page by page: by its row, or by what its flags ask for.
bool by_page(const Op& op) {
  const Operation& row = operations()[op.op % operations().size()];
  if (row.run == run_mmap) return field::MMAP_FLAGS(op) & (field::LOCKED | field::POPULATE);
  if (row.run == run_madvise) {
    const std::string_view advice = field::ADVICE_NAMES[field::ADVICE(op)];
    return advice.starts_with("populate") || advice == "guard_install";
  }
  return std::any_of(row.fields.begin(), row.fields.end(),
                     [](const Field& field) { return field.role == Role::pages; });
}

void shorten_ranges(std::span<u8> program) {
  for (std::size_t i = 0; i < program.size() / OP_BYTES; ++i) {
    u8& length = program[i * OP_BYTES + LENGTH_BYTE];
    if (length > SHORT && by_page(decode(program, i))) length %= SHORT + 1;
  }
}

/// A new operation; odd arguments, which most calls refuse, are rare.
void make_one(u8* op, Random& random) {
  std::generate(op, op + OP_BYTES, [&] { return u8(random() >> 8); });
  if (random() % 16 == 0) return;
  for (const Field& field : operations()[op[0] % operations().size()].fields)
    if (field.name == "odd") op[MM_BYTE] &= u8(~(((1u << field.bits) - 1) << field.shift));
}

/// What happens to the operation at `at`; returns the new size.
std::size_t change_one(u8* data, std::size_t size, std::size_t max_size, std::size_t at,
                       Random& random) {
  u8* const op = data + at;
  const bool room = size + OP_BYTES <= max_size;
  switch (random() % 8) {
    case 0:  // it goes
      std::memmove(op, op + OP_BYTES, size - at - OP_BYTES);
      return size - OP_BYTES;
    case 1:  // another comes before it
    case 2:
      if (!room) break;
      std::memmove(op + OP_BYTES, op, size - at);
      make_one(op, random);
      return size + OP_BYTES;
    case 3:  // one from elsewhere comes before it
      if (!room) break;
      std::memmove(op + OP_BYTES, op, size - at);
      std::memmove(op, data + random() % (size / OP_BYTES) * OP_BYTES, OP_BYTES);
      return size + OP_BYTES;
    default: break;
  }
  LLVMFuzzerMutate(op, OP_BYTES, OP_BYTES);
  return size;
}

}  // namespace

extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size,
                                               std::size_t max_size, unsigned seed) {
  Random random(seed);
  if (size < OP_BYTES || random() % 16 == 0) {
    size = LLVMFuzzerMutate(data, size, max_size);
  } else {
    const std::size_t at = random() % (size / OP_BYTES) * OP_BYTES;
    size = change_one(data, size, max_size, at, random);
  }
  if (random() % 32) shorten_ranges({data, size});
  return size;
}
