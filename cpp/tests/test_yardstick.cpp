// The limit's loop does to every word what it says, at every length and with threads.
#include "ptwalk/yardstick.hpp"

#include <doctest/doctest.h>

#include <random>
#include <vector>

using namespace ptwalk;

TEST_CASE("read_modify_write changes every word of the span, and no other") {
  std::mt19937_64 random(1);
  for (const std::size_t nr : {0, 1, 15, 16, 17, 511, 8192, 8193, 100'000}) {
    std::vector<u64> words(nr + 2);
    for (u64& word : words) word = random();
    const u64 keep = random(), set = random();
    std::vector<u64> expected = words;
    for (std::size_t i = 1; i <= nr; ++i) expected[i] = (words[i] & keep) | set;
    for (const unsigned threads : {1u, 2u}) {
      std::vector<u64> changed = words;
      read_modify_write(std::span(changed).subspan(1, nr), keep, set, threads);
      CHECK(changed == expected);
    }
  }
}
