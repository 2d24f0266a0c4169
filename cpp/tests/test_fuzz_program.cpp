// Programs as bytes: decoding, places, lengths, and the table of operations.
#include <doctest/doctest.h>

#include <set>

#include "ptwalk/fuzz/fields.hpp"

using namespace ptwalk;
using namespace ptwalk::fuzz;

TEST_CASE("an operation is eight bytes, little endian, and a short one is padded with zeros") {
  const u8 bytes[] = {1, 2, 3, 4, 5, 6, 7, 8, 9};
  CHECK(nr_ops(bytes) == 2);
  CHECK(decode(bytes, 0) == Op{1, 2, 3, 4, 5 | 6 << 8, 7, 8});
  CHECK(decode(bytes, 1) == Op{9, 0, 0, 0, 0, 0, 0});
  CHECK(nr_ops({}) == 0);
  const std::vector<u8> many(8 * MAX_OPS + 1);
  CHECK(nr_ops(many) == MAX_OPS);
  const Op op = decode(bytes, 0);
  CHECK(encode({&op, 1}) == std::vector<u8>(bytes, bytes + 8));
}

TEST_CASE("places lie at the first pages and around the ends of PMD, PUD and PGD entries") {
  CHECK(address_of(127) == FIRST_PLACE + 127 * PAGE_SIZE);
  CHECK(address_of(160) == FIRST_PLACE + PMD_SIZE);
  CHECK(address_of(208) == FIRST_PLACE + PUD_SIZE);
  CHECK(address_of(240) == FIRST_PLACE + (1ull << 39));
  std::set<u64> all;
  for (unsigned place = 0; place < 256; ++place) all.insert(address_of(u8(place)));
  CHECK(all.size() == 256);
}

TEST_CASE("fields of one member do not overlap, and names are unique") {
  std::set<std::string_view> names;
  for (const Operation& row : operations()) {
    CHECK(names.insert(row.name).second);
    std::set<std::string_view> fields;
    u64 taken[6] = {};
    for (const Field& f : row.fields) {
      CHECK(fields.insert(f.name).second);
      const u64 mask = ((1ull << f.bits) - 1) << f.shift;
      CHECK((taken[std::size_t(f.member)] & mask) == 0);
      taken[std::size_t(f.member)] |= mask;
      CHECK(mask < (f.member == Member::arg ? 1ull << 16 : 1ull << 8));
      if (f.role == Role::flags) CHECK(f.names.size() <= f.bits);
    }
  }
}

TEST_CASE("a field reads its bits: a choice modulo, pages up to their limit") {
  const Op op{.nr = 255, .arg = u16(field::ADVICE_NAMES.size() + 2)};
  CHECK(field::ADVICE(op) == 2);
  CHECK(field::LENGTH(op) == 4 * PUD_SIZE);
  CHECK(field::PAGES(op) == MAX_PAGES * PAGE_SIZE);
  CHECK(field::UFFD(Op{.mm = 0x53}) == 5);
  CHECK(field::MM(Op{.mm = 0x53}) == 3);
}
