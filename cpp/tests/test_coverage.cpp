// Branches by name: all differ, and what a call does is counted where it is done.
#include "ptwalk/coverage.hpp"

#include <set>

#include "space.hpp"

using namespace ptwalk;

namespace {

u64 count_of(const Space& s, std::string_view name) {
  const auto names = Coverage::names();
  for (std::size_t i = 0; i < names.size(); ++i)
    if (names[i] == name) return s.machine->coverage.counts()[i];
  FAIL(name);
  return 0;
}

}  // namespace

TEST_CASE("every branch has a name of its own") {
  const std::set<std::string> names(Coverage::names().begin(), Coverage::names().end());
  CHECK(Coverage::names().size() == Coverage::SIZE);
  CHECK(names.size() == Coverage::SIZE);
}

TEST_CASE("a wr-protect counts entries by what became of them, and tables by level") {
  for (const char* profile : {"uffd-wp-v2", "6.18"}) {
    CAPTURE(profile);
    Space s(profile);
    const u64 addr = s.shmem(512);
    s.write(addr);
    const UffdId id = s.watch(addr, 512, MODE_WP);
    s.machine->coverage.clear();
    s.protect(id, addr, 512);
    CHECK(count_of(s, "change_pte_range: wr-protect, shared file, present") == 1);
    CHECK(count_of(s, "change_pte_range: wr-protect, shared file, none to marker") == 511);
    s.resolve(id, addr, 512);
    CHECK(count_of(s, "change_pte_range: resolve, shared file, marker to none") == 511);
    CHECK(count_of(s, "change_prepare: a missing PTE table") == 0);
  }
}

TEST_CASE("each level that is populated is its own branch") {
  Space s("6.18");
  const u64 addr = s.shmem(512);
  const UffdId id = s.watch(addr, 512, MODE_WP);
  s.protect(id, addr + pages(3), 1);  // a part: no table is shared whole
  CHECK(count_of(s, "change_prepare: a missing PUD table") == 1);
  CHECK(count_of(s, "change_prepare: a missing PMD table") == 1);
  CHECK(count_of(s, "change_prepare: a missing PTE table") == 1);
  CHECK(count_of(s, "change_pmd_range: a whole PTE table, by one entry") == 0);
  s.protect(id, addr, 512);
  s.machine->coverage.clear();
  s.protect(id, addr, 512);
  CHECK(count_of(s, "change_pmd_range: a whole PTE table, by one entry") == 1);
}

TEST_CASE("faults tell what they met") {
  Space s("6.18");
  const u64 addr = s.shmem(4);
  const UffdId id = s.watch(addr, 4, MODE_WP);
  s.protect(id, addr, 4);
  s.read(addr);
  CHECK(count_of(s, "handle_pte_marker: uffd-wp, a file page comes in") == 1);
  CHECK(count_of(s, "do_read_fault: through a uffd-wp marker, comes in armed") == 1);
  s.write(addr);
  CHECK(count_of(s, "handle_userfault: a wr-protect message") == 1);
  s.resolve(id, addr, 4);
  CHECK(count_of(s, "userfaultfd_wake: a waiter") == 1);
  s.write(addr);
  CHECK(count_of(s, "do_wp_page: shared mapping, reused") == 1);
}
