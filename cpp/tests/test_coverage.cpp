// Branches by name: all differ, and what a call does is counted where it is done.
#include "ptwalk/coverage.hpp"

#include <set>

#include "ptwalk/hybrid.hpp"
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

TEST_CASE("walks tell what they meet, where an executor asks for it") {
  Space s("6.18");
  const u64 addr = s.shmem(4);
  const UffdId id = s.watch(addr, 4, MODE_WP);
  s.write(addr);
  s.protect(id, addr, 2);
  CHECK(count_of(s, "change_pte_range: wr-protect meets a present entry") == 0);
  s.machine->coverage.entries = true;
  s.protect(id, addr, 4);
  CHECK(count_of(s, "change_pte_range: wr-protect meets an armed entry") == 1);
  CHECK(count_of(s, "change_pte_range: wr-protect meets a uffd-wp marker") == 1);
  CHECK(count_of(s, "change_pte_range: wr-protect meets none") == 2);
  s.read(addr + pages(1));
  CHECK(count_of(s, "handle_pte_fault: a load meets a uffd-wp marker") == 1);
  s.mm->reclaim(addr, pages(1));
  CHECK(count_of(s, "try_to_unmap_one: meets an armed entry") == 1);
  CHECK(count_of(s, "zap_pte_range: meets a uffd-wp marker") == 0);
  (void)s.mm->munmap(addr, pages(4));
  CHECK(count_of(s, "zap_pte_range: meets a uffd-wp marker") == 3);
  CHECK(s.machine->coverage.impossible() == 0);
}

TEST_CASE("a huge leaf is met at its level") {
  Space s("6.18");
  const u64 addr = s.anon(512);
  REQUIRE(s.mm->tables.ensure(addr, PMD_LEVEL));
  *s.mm->tables.writable(addr, PMD_LEVEL) = 0x80000000000000e5 | 0x40000000;
  s.machine->coverage.entries = true;
  REQUIRE(s.mm->mprotect(addr, pages(512), 1).ok());
  CHECK(count_of(s, "change_huge_pmd: mprotect meets a present entry") == 1);
}

TEST_CASE("absent tables are told by level") {
  Space s("5.12");
  const u64 addr = s.anon(512);
  const UffdId id = s.watch(addr, 512, MODE_WP);
  s.protect(id, addr, 512);
  CHECK(count_of(s, "change_p4d_range: a wr-protect passes an absent PUD table by") == 1);
  s.read(addr);
  CHECK(count_of(s, "__handle_mm_fault: a missing PUD table") == 1);
}

TEST_CASE("every rule of a profile decides a branch that names it") {
  // VMAs merge, and pagemap is read, where no branch is counted; a number that only names a
  // feature.
  const std::set<std::string_view> elsewhere{"merge_adopts_anon_vma", "pagemap_uffd_wp",
                                             "wp_file_feature"};
  std::string all;
  for (const std::string& name : Coverage::names()) all += name + "\n";
  for (const Rule& rule : rules()) {
    CAPTURE(rule.name);
    const bool named = all.find("[" + std::string(rule.name) + "]") != std::string::npos;
    CHECK(named != elsewhere.contains(rule.name));
  }
}

TEST_CASE("what is no absent table is not counted as one") {
  Space s("6.18");
  const u64 addr = s.anon(512);
  REQUIRE(s.mm->tables.ensure(addr, PMD_LEVEL));
  *s.mm->tables.writable(addr, PMD_LEVEL) = 0x80000000000000e5 | 0x40000000;
  s.machine->coverage.entries = true;
  REQUIRE(s.mm->munmap(addr, pages(512)).cause == Cause::none);
  CHECK(count_of(s, "zap_huge_pmd: meets a present entry") == 1);
  CHECK(count_of(s, "zap_pmd_range: an absent PTE table") == 0);
}

TEST_CASE("a table that is shared whole counts its pages, and the rule that populates it") {
  Space s("6.18");
  const u64 addr = align_up(s.shmem(2048), PMD_SIZE);
  const UffdId id = s.watch(addr, 1024, MODE_WP);
  s.write(addr + pages(512));
  s.machine->coverage.clear();
  s.machine->coverage.entries = true;
  s.protect(id, addr, 512);
  CHECK(count_of(s, "change_prepare: an absent table, to be wr-protected [populate]") == 1);
  CHECK(count_of(s, "change_prepare: a missing PTE table") == 1);
  CHECK(count_of(s, "change_pte_range: wr-protect, shared file, none to marker") == 512);
  CHECK(count_of(s, "change_pte_range: wr-protect meets none") == 512);
  s.resolve(id, addr, 512);
  CHECK(count_of(s, "change_pte_range: resolve, shared file, marker to none") == 512);
  CHECK(count_of(s, "change_pte_range: resolve meets a uffd-wp marker") == 512);
}

TEST_CASE("the notifier's rule decides where a range begins with an absent table") {
  Space s("6.18");
  const u64 addr = align_up(s.anon(2048), PMD_SIZE);
  s.write(addr + pages(512));
  s.machine->coverage.clear();
  REQUIRE(s.mm->mprotect(addr + pages(512), pages(1), 1).ok());
  CHECK(count_of(s, "change_pmd_range: begins with an absent PTE table [notifier]") == 0);
  REQUIRE(s.mm->mprotect(addr + pages(511), pages(2), 0).ok());
  CHECK(count_of(s, "change_pmd_range: begins with an absent PTE table [notifier]") == 1);
}
