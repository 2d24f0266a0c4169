// How libFuzzer changes programs: operation by operation, so that what follows a change keeps its
// meaning, and with short ranges for what works page by page, since a program that touches a
// thousand pages takes the time of a hundred others and shows no more.
#include <algorithm>
#include <cstring>
#include <random>

#include "target.hpp"

using namespace ptwalk;
using namespace ptwalk::fuzz;

extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t max_size);

namespace {

using Random = std::minstd_rand;

constexpr u8 SHORT = 16;                ///< pages
constexpr std::size_t LENGTH_BYTE = 3;  ///< Op::nr

bool by_page(const Operation& row) {
  return std::any_of(row.fields.begin(), row.fields.end(),
                     [](const Field& field) { return field.role == Role::pages; });
}

void shorten_ranges(std::span<u8> program) {
  for (std::size_t at = 0; at + LENGTH_BYTE < program.size(); at += OP_BYTES) {
    u8& length = program[at + LENGTH_BYTE];
    if (length > SHORT && by_page(operations()[program[at] % operations().size()]))
      length %= SHORT + 1;
  }
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
      std::generate(op, op + OP_BYTES, [&] { return u8(random() >> 8); });
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
