// A list that holds a few values itself: the same as a vector, however many there are.
#include "ptwalk/short_list.hpp"

#include <doctest/doctest.h>

#include <utility>

using namespace ptwalk;

namespace {

using List = ShortList<int, 4>;

List list_of(int nr) {
  List list;
  for (int i = 0; i < nr; ++i) list.push_back(i);
  return list;
}

bool holds(const List& list, int nr) {
  bool all = list.size() == std::size_t(nr) && list.empty() == (nr == 0);
  for (int i = 0; all && i < nr; ++i) all = list[std::size_t(i)] == i;
  return all && list.end() - list.begin() == nr;
}

}  // namespace

TEST_CASE("a list holds what was put in, short or long") {
  for (int nr = 0; nr < 10; ++nr) CHECK(holds(list_of(nr), nr));
  CHECK_THROWS_AS((void)list_of(3).at(3), std::out_of_range);
}

TEST_CASE("lists are copied and moved, over shorter and longer ones") {
  for (int from = 0; from < 8; ++from) {
    for (int to = 0; to < 8; ++to) {
      const List list = list_of(from);
      List copied = list_of(to), moved = list_of(to);
      copied = list;
      moved = List(copied);
      const List made = std::move(copied);
      CHECK((holds(list, from) && holds(moved, from) && holds(made, from)));
      moved.push_back(from);
      CHECK(holds(moved, from + 1));
    }
  }
}
