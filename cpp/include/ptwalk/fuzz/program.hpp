// Programs of the fuzzing backend: a byte string is a sequence of operations of eight bytes, and
// every byte string is a program. What the bytes of an operation mean is data: one row of fields
// per operation, from which text, checks and documentation are made. Has no kernel counterpart.
#pragma once

#include <bit>
#include <cstring>
#include <span>
#include <string_view>
#include <vector>

#include "ptwalk/types.hpp"

namespace ptwalk::fuzz {

inline constexpr unsigned FORMAT_VERSION = 2;
/// Operations of a program that run; the rest is ignored.
inline constexpr std::size_t MAX_OPS = 64;
inline constexpr std::size_t OP_BYTES = 8;
/// Most pages of operations that work page by page.
inline constexpr u64 MAX_PAGES = 1024;

/// One operation as it lies in a program, little endian.
struct Op {
  u8 op = 0;  ///< index into operations(), modulo their number
  u8 mm = 0;  ///< low 4 bits: address space; high 4 bits: userfaultfd; the half that names nothing
              ///< holds field::ODD_NAMES
  u8 page = 0;   ///< a place
  u8 nr = 0;     ///< a length
  u16 arg = 0;   ///< as the operation says
  u8 page2 = 0;  ///< another place, or as the operation says
  u8 extra = 0;  ///< as the operation says
  bool operator==(const Op&) const = default;
};
static_assert(sizeof(Op) == OP_BYTES);

/// The `i`-th operation; a program whose last operation is short is padded with zero bytes.
[[nodiscard]] inline Op decode(std::span<const u8> program, std::size_t i) {
  const std::size_t first = i * OP_BYTES, left = program.size() - first;
  Op op;
  if (left >= OP_BYTES)
    std::memcpy(&op, program.data() + first, OP_BYTES);
  else
    std::memcpy(&op, program.data() + first, left);
  if constexpr (std::endian::native == std::endian::big) op.arg = u16(op.arg << 8 | op.arg >> 8);
  return op;
}
/// How many operations run.
[[nodiscard]] constexpr std::size_t nr_ops(std::span<const u8> program) {
  const std::size_t nr = (program.size() + OP_BYTES - 1) / OP_BYTES;
  return nr < MAX_OPS ? nr : MAX_OPS;
}
[[nodiscard]] std::vector<u8> encode(std::span<const Op> ops);

/// First place of programs.
inline constexpr u64 FIRST_PLACE = 0x7f0000000000;

/// The address of a place: 0 to 127 pages from FIRST_PLACE on; then pages around the ends of the
/// first PMD, PUD and PGD entry (32, 16 and 16 on either side).
[[nodiscard]] constexpr u64 address_of(u8 place) {
  constexpr u64 PGD_SIZE = 1ull << 39;
  if (place < 128) return FIRST_PLACE + u64(place) * PAGE_SIZE;
  if (place < 192) return FIRST_PLACE + PMD_SIZE + u64(place - 128) * PAGE_SIZE - 32 * PAGE_SIZE;
  if (place < 224) return FIRST_PLACE + PUD_SIZE + u64(place - 192) * PAGE_SIZE - 16 * PAGE_SIZE;
  return FIRST_PLACE + PGD_SIZE + u64(place - 224) * PAGE_SIZE - 16 * PAGE_SIZE;
}
/// Bytes of a length: 0 to 127 pages, 1 to 8 times 2 MiB, 1 to 4 GiB.
[[nodiscard]] constexpr u64 length_of(u8 nr) {
  if (nr < 128) return u64(nr) * PAGE_SIZE;
  return nr < 192 ? ((nr & 7) + 1) * PMD_SIZE : ((nr & 3) + 1) * PUD_SIZE;
}

/// How the value of a field is read and written.
enum class Role : u8 {
  number,          ///< as it is
  place,           ///< an address
  length,          ///< bytes
  pages,           ///< bytes, at most MAX_PAGES pages
  choice,          ///< one of `names`, modulo their number
  flags,           ///< a bit for each of `names`
  prot,            ///< the three bits of a protection, as "rw-"
  choice_or_file,  ///< one of `names`, or above them the number of a file
};

enum class Member : u8 { mm, page, nr, arg, page2, extra };

using Names = std::span<const std::string_view>;

/// One field of an operation: some bits of a member of Op.
struct Field {
  std::string_view name;
  Role role;
  Member member;
  unsigned shift = 0, bits = 8;
  Names names{};

  [[nodiscard]] constexpr u64 raw(const Op& op) const {
    return whole(op) >> shift & ((1ull << bits) - 1);
  }
  [[nodiscard]] constexpr u64 whole(const Op& op) const {
    switch (member) {
      case Member::mm: return op.mm;
      case Member::page: return op.page;
      case Member::nr: return op.nr;
      case Member::arg: return op.arg;
      case Member::page2: return op.page2;
      default: return op.extra;
    }
  }
  /// What an operation makes of it: an address, bytes, the index of a name, bits.
  [[nodiscard]] constexpr u64 operator()(const Op& op) const {
    const u64 value = raw(op);
    switch (role) {
      case Role::place: return address_of(u8(value));
      case Role::length: return length_of(u8(value));
      case Role::pages: {
        const u64 length = length_of(u8(value));
        return length < MAX_PAGES * PAGE_SIZE ? length : MAX_PAGES * PAGE_SIZE;
      }
      case Role::choice: return value % names.size();
      default: return value;
    }
  }
};

class Run;

/// One row of the table of operations.
struct Operation {
  std::string_view name;
  std::span<const Field> fields;
  void (*run)(Run& run, const Op& op);
  bool raw = false;  ///< a store that no system call makes, or an injected failure
};

/// How many there are.
inline constexpr unsigned NR_OPERATIONS = 45;
/// All operations; their order is part of the format.
std::span<const Operation> operations();

}  // namespace ptwalk::fuzz
