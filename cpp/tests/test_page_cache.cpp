// The page cache of a file: found by index, listed in order, and undone.
#include "ptwalk/page_cache.hpp"

#include <doctest/doctest.h>

using namespace ptwalk;

TEST_CASE("entries are found by index and listed in order, across any gap") {
  PageCache cache;
  CHECK(cache.empty());
  CHECK(cache.next(0) == PageCache::NO_INDEX);
  for (u64 index : {1ull << 40, 17ull, 0ull, 15ull}) cache.edit(index).pfn = index + 1;
  CHECK(cache.size() == 4);
  CHECK(cache.find(17)->pfn == 18);
  CHECK_FALSE(cache.contains(16));
  std::vector<u64> listed;
  for (u64 i = cache.next(0); i != PageCache::NO_INDEX; i = cache.next(i + 1)) listed.push_back(i);
  CHECK(listed == std::vector<u64>{0, 15, 17, 1ull << 40});
  cache.erase(17);
  cache.erase(17);
  CHECK(cache.next(16) == 1ull << 40);
  CHECK(cache.size() == 3);
}

TEST_CASE("looking for the next entry ends where the caller's range ends") {
  PageCache cache;
  for (u64 index : {3ull, 40ull, 1ull << 40}) cache.edit(index).pfn = 1;
  for (u64 index : std::vector<u64>{0, 3, 4, 15, 16, 40, 41, 47, 48, 1ull << 40})
    for (u64 end : std::vector<u64>{1, 4, 16, 40, 41, 48, 1ull << 40, PageCache::NO_INDEX}) {
      const u64 next = cache.next(index), found = cache.next(index, end);
      CAPTURE(index);
      CAPTURE(end);
      CHECK(next >= index);
      if (next < end)
        CHECK(found == next);
      else
        CHECK(found >= end);
    }
}

TEST_CASE("an entry that is made again has nothing of the old one") {
  PageCache cache;
  cache.edit(3) = {.pfn = 9, .swap_slot = 4};
  cache.edit(4).pfn = 1;  // keeps what holds both
  cache.erase(3);
  CHECK(cache.edit(3).pfn == 0);
  CHECK_FALSE(cache.find(3)->swapped());
}

TEST_CASE("what was made, changed and erased after a mark is undone") {
  UndoLog log;
  PageCache cache(&log);
  cache.edit(1).pfn = 1;
  cache.edit(100).pfn = 100;
  const auto mark = log.mark();
  for (int round = 0; round < 2; ++round) {
    cache.erase(1);
    cache.edit(100).pfn = 5;
    cache.edit(7).pfn = 7;
    cache.edit(5000).pfn = 6;
    log.restore(mark);
    CHECK(cache.size() == 2);
    CHECK(cache.find(1)->pfn == 1);
    CHECK(cache.find(100)->pfn == 100);
    CHECK_FALSE(cache.contains(7));
    CHECK(cache.next(101) == PageCache::NO_INDEX);
  }
}

TEST_CASE("what held entries that were undone is given back once there is much of it") {
  UndoLog log;
  PageCache cache(&log);
  cache.edit(5).pfn = 1;
  const auto mark = log.mark();
  for (int round = 0; round < 3; ++round) {
    for (u64 index = 0; index < 100'000; index += 500) cache.edit(index).pfn = index;
    cache.erase(5);
    log.restore(mark);
    cache.drop_spare();
    CHECK(cache.find(5)->pfn == 1);
    CHECK(cache.next(0) == 5);
    CHECK(cache.next(6) == PageCache::NO_INDEX);
  }
}
