#include "ptwalk/short_list.hpp"

#include <doctest/doctest.h>

using ptwalk::ShortList;

TEST_CASE("a short list keeps its order within and beyond its own room, and when copied") {
  ShortList<int, 2> list;
  CHECK(list.empty());
  for (int i = 0; i < 7; ++i) {
    list.push_back(i);
    const ShortList<int, 2> copy = list;
    REQUIRE(copy.size() == std::size_t(i) + 1);
    int expected = 0;
    for (const int value : copy) CHECK(value == expected++);
    CHECK(copy[std::size_t(i)] == i);
  }
  CHECK(list.at(6) == 6);
  CHECK_THROWS_AS((void)list.at(7), std::out_of_range);
}
