// The swap format: type, inverted offset and flag bits, with the words of the spec's tables.
#include "ptwalk/swp_entry.hpp"

#include <doctest/doctest.h>

#include <initializer_list>

using namespace ptwalk;

TEST_CASE("type in bits 59 to 63, offset inverted in bits 9 to 58") {
  CHECK(make_swp_pte(0, 0) == 0x07fffffffffffe00);
  CHECK(make_swp_pte(3, 0x1234) == 0x1fffffffffdb9600);
  CHECK(make_swp_pte(29, 0x12345) == 0xeffffffffdb97400);
  CHECK(make_swp_pte(31, PTE_MARKER_UFFD_WP) == 0xfffffffffffffc00);
  CHECK(make_swp_pte(31, PTE_MARKER_POISONED) == 0xfffffffffffffa00);
  CHECK(make_swp_pte(31, PTE_MARKER_GUARD) == 0xfffffffffffff600);
  CHECK(make_swp_pte(30, PTE_MARKER_UFFD_WP) == 0xf7fffffffffffc00);  // 6.1
}

TEST_CASE("the zero word and the special pte decode as type 0, offset 2^50-1") {
  for (u64 word : {0x0ull, 0x4ull}) {
    CHECK(swp_type(word) == 0);
    CHECK(swp_offset(word) == SWP_OFFSET_MASK);
  }
}

TEST_CASE("type and offset survive a round trip, and flag bits never disturb them") {
  for (unsigned type = 0; type < 32; ++type)
    for (u64 offset : {u64(0), u64(1), u64(0x1234), SWP_PFN_MASK, SWP_OFFSET_MASK}) {
      const u64 word = make_swp_pte(type, offset);
      CHECK(is_swap_pte(word) == (word != 0));
      for (u64 entry : {word, word | SWP_FLAG_BITS}) {
        CHECK(swp_type(entry) == type);
        CHECK(swp_offset(entry) == offset);
      }
    }
}

TEST_CASE("S06: another type, the same offset and flags") {
  CHECK(swp_with_type(0xeffffffffdb97402, 28) == 0xe7fffffffdb97402);
}
