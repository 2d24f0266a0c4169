// Facts of page frames: found by pfn, recycled under a new identity.
#include "ptwalk/page.hpp"

#include <doctest/doctest.h>

#include <set>

using namespace ptwalk;

TEST_CASE("a page has facts from its allocation to its end") {
  PagePool pages;
  const Pfn pfn = pages.alloc(PG_anon);
  REQUIRE(pages.find(pfn));
  CHECK(pages.find(pfn)->anon());
  CHECK(pages.find(pfn)->file == NO_FILE);
  CHECK(pages.in_use() == 1);
  CHECK(pages.find(pfn + 1) == nullptr);
  CHECK(pages.find(1ull << 39) == nullptr);
  pages.free(pfn);
  pages.free(pfn);  // a frame without facts stays one
  CHECK(pages.find(pfn) == nullptr);
  CHECK(pages.in_use() == 0);
}

TEST_CASE("a recycled frame is another page") {
  PagePool pages;
  const Pfn pfn = pages.alloc(PG_dirty);
  const u64 serial = pages.at(pfn).serial;
  pages.at(pfn).mapcount = 3;
  pages.free(pfn);
  CHECK(pages.alloc(0) == pfn);
  CHECK(pages.at(pfn).serial != serial);
  CHECK(pages.at(pfn).mapcount == 0);
  CHECK_FALSE(pages.at(pfn).dirty());
}

TEST_CASE("a frame that the caller names is never handed out as well") {
  PagePool pages;
  const Pfn ahead = pages.alloc(0) + 1;  // the one that would come next
  pages.at(ahead).mapcount = 1;
  const Pfn freed = pages.alloc(0);
  CHECK(freed != ahead);
  pages.free(freed);
  pages.at(freed).mapcount = 1;  // taken by name from among the freed ones
  std::set<Pfn> seen{ahead, freed};
  for (int i = 0; i < 8; ++i) CHECK(seen.insert(pages.alloc(0)).second);
  CHECK(pages.at(freed).mapcount == 1);
}

TEST_CASE("pages of large pfns cost only what is used") {
  PagePool pages;
  pages.at(1ull << 24).index = 7;
  CHECK(pages.in_use() == 1);
  CHECK(pages.find(1ull << 24)->index == 7);
  CHECK(pages.find((1ull << 24) + 1) == nullptr);
}

TEST_CASE("new frames are undone together, those that a caller named one by one") {
  UndoLog log;
  PagePool pages(&log);
  const Pfn first = pages.alloc(0) + 1;
  pages.at(first + 1).mapcount = 7;  // lies between frames that come later
  const auto mark = log.mark();
  for (const Pfn expected : {first, first + 2, first + 3})
    CHECK(pages.alloc(PG_anon | PG_anon_exclusive) == expected);
  const auto later = log.mark();
  pages.at(first + 1).mapcount = 8;
  pages.at(first + 5).mapcount = 9;
  pages.free(first + 2);
  for (const Pfn expected : {first + 2, first + 4, first + 6})
    CHECK(pages.alloc(PG_dirty) == expected);

  log.restore(later);
  CHECK(pages.in_use() == 5);
  CHECK(pages.flags(first + 2) == (PG_allocated | PG_anon | PG_anon_exclusive));
  CHECK(pages.alloc(0) == first + 4);
  log.restore(mark);
  CHECK(pages.in_use() == 2);
  CHECK(pages.find(first + 1)->mapcount == 7);
  for (const Pfn pfn : {first, first + 2, first + 3, first + 4, first + 5, first + 6})
    CHECK((!pages.find(pfn) && !pages.anon_exclusive(pfn)));
  CHECK(pages.alloc(0) == first);
}
