// Frames of page tables: handed out zeroed, recycled, and refused when there are no more.
#include "ptwalk/frame_arena.hpp"

#include <doctest/doctest.h>

#include <algorithm>

using namespace ptwalk;

TEST_CASE("a frame is a zeroed table of its level, and comes back zeroed") {
  FrameArena arena(512);
  const Pfn first = arena.alloc(PMD_LEVEL);
  CHECK(first == TABLE_PFN_BASE);
  CHECK(arena.owns(first));
  CHECK(arena.info(first).level == PMD_LEVEL);
  const Pfn second = arena.alloc(PTE_LEVEL);
  CHECK(arena.in_use() == 2);
  std::fill_n(arena.table(second), PTRS_PER_TABLE, ~0ull);
  arena.free(second);
  CHECK_FALSE(arena.owns(second));
  CHECK(arena.in_use() == 1);
  CHECK(arena.rows() == 2);
  CHECK(arena.alloc(PUD_LEVEL) == second);
  CHECK(arena.info(second).level == PUD_LEVEL);
  CHECK(std::all_of(arena.table(second), arena.table(second) + PTRS_PER_TABLE,
                    [](u64 word) { return word == 0; }));
}

TEST_CASE("the image holds the tables row by row") {
  FrameArena arena(512);
  REQUIRE(arena.alloc(PTE_LEVEL));
  const Pfn pfn = arena.alloc(PTE_LEVEL);
  arena.table(pfn)[7] = 0x1234;
  CHECK(arena.image()[PTRS_PER_TABLE + 7] == 0x1234);
}

TEST_CASE("a full arena says 0, until a frame is free again") {
  FrameArena arena(512);
  Pfn last = 0;
  for (int i = 0; i < 512; ++i) REQUIRE((last = arena.alloc(PTE_LEVEL)));
  CHECK(arena.alloc(PTE_LEVEL) == 0);
  arena.free(last);
  CHECK(arena.alloc(PTE_LEVEL) == last);
  CHECK_FALSE(arena.owns(0));
  CHECK_FALSE(arena.owns(TABLE_PFN_BASE + 512));
}
