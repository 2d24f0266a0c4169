#include <doctest/doctest.h>

#include "ptwalk/protect.hpp"

using namespace ptwalk;

TEST_CASE("the closing flush grows to hold every range; an empty one holds none") {
  ProtectResult account;
  CHECK(account.flush.empty());
  account.gather_flush(0x5000, 0x6000);
  CHECK(account.flush == Range{0x5000, 0x6000});
  account.gather_flush(0x9000, 0xa000);
  account.gather_flush(0x2000, 0x3000);
  CHECK(account.flush == Range{0x2000, 0xa000});
}

TEST_CASE("a later account adds its sums, its flush and its lists") {
  ProtectResult account, later;
  account.pages = 2;
  account.present = 2;
  account.warnings = {Warning::bad_page_map};
  later.pages = 3;
  later.none_to_marker = 3;
  later.rss_file = -1;
  later.flush = {0x1000, 0x2000};
  later.notifier.push_back({NotifierKind::clear, 1, 2, true});
  later.bad_cleared = {{PMD_LEVEL, 0x200000}};
  later.warnings = {Warning::table_alloc_failed};
  account.add(later);
  CHECK(account.pages == 5);
  CHECK(account.present == 2);
  CHECK(account.none_to_marker == 3);
  CHECK(account.rss_file == -1);
  CHECK(account.flush == later.flush);
  CHECK(account.notifier.size() == 1);
  CHECK(account.bad_cleared.size() == 1);
  CHECK(account.warnings == std::vector{Warning::bad_page_map, Warning::table_alloc_failed});
}
