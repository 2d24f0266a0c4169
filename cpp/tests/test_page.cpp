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
