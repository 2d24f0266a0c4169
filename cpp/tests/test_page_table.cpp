// Page tables without leaves: what an entry above the PTE level is, making tables and freeing them.
#include "ptwalk/page_table.hpp"

#include <doctest/doctest.h>

using namespace ptwalk;

namespace {

constexpr u64 ADDR = 0x7f0000000000;
constexpr u64 TABLE = 0x12345067;

struct Tables {
  explicit Tables(int levels = 4, std::string_view profile = "6.18")
      : profile(*find_profile(profile)),
        shared(frames, this->profile),
        tables(shared, this->profile, levels) {}
  const Profile& profile;
  FrameArena frames{512};
  SharedTables shared;
  PageTable tables;
};

}  // namespace

TEST_CASE("what an entry is: the table of sanity tests (pgd_bad, p4d_bad, pud_bad, pmd_bad)") {
  const Tables space(5, "uffd-wp-v2");
  const PageTable& t = space.tables;
  CHECK(t.kind(0, 5) == EntryKind::none);
  CHECK(t.kind(0x20, 5) == EntryKind::bad);  // only the PGD does not ignore A and D
  CHECK(t.kind(TABLE, 5) == EntryKind::table);
  CHECK(t.kind(TABLE & ~_PAGE_ACCESSED, 5) == EntryKind::bad);
  CHECK(t.kind(TABLE | _PAGE_NX, 5) == EntryKind::bad);
  for (Level level : {P4D_LEVEL, PUD_LEVEL, PMD_LEVEL}) {
    CHECK(t.kind(0x60, level) == EntryKind::none);
    CHECK(t.kind(TABLE, level) == EntryKind::table);
  }
  CHECK(t.kind(0x12345001, P4D_LEVEL) == EntryKind::table);  // flags within 0x67 will do
  CHECK(t.kind(TABLE | _PAGE_NX, P4D_LEVEL) == EntryKind::bad);
  CHECK(t.kind(0x400000e7, PUD_LEVEL) == EntryKind::bad);  // W04
  CHECK(t.kind(0x12345003, PMD_LEVEL) == EntryKind::bad);  // W01
  CHECK(t.kind(0x80000000400000e7, PMD_LEVEL) == EntryKind::leaf);
  CHECK(t.kind(0xeffffffff7fffe02, PMD_LEVEL) == EntryKind::leaf);         // migration
  CHECK(t.kind(0x8400000040000067, PMD_LEVEL) == EntryKind::leaf);         // DEVMAP
  CHECK(Tables(4).tables.kind(0x400000e7, PUD_LEVEL) == EntryKind::leaf);  // 6.12 on
}

TEST_CASE("page-table isolation sets NX in the top entries") {
  Profile isolated = *find_profile("6.18");
  REQUIRE(set_config(isolated, "PAGE_TABLE_ISOLATION", true));
  FrameArena frames(512);
  SharedTables shared(frames, isolated);
  const PageTable t(shared, isolated, 5);
  CHECK(t.kind(TABLE | _PAGE_NX, 5) == EntryKind::table);
  CHECK(t.kind(TABLE | _PAGE_NX, P4D_LEVEL) == EntryKind::table);
}

TEST_CASE("ensure() makes what is missing and nothing else") {
  for (int levels : {4, 5}) {
    CAPTURE(levels);
    Tables space(levels);
    PageTable& t = space.tables;
    CHECK(t.find(ADDR, PTE_LEVEL) == nullptr);
    CHECK(t.walk(ADDR).level == levels);
    u64* pte = t.ensure(ADDR, PTE_LEVEL);
    REQUIRE(pte);
    CHECK(t.find(ADDR, PTE_LEVEL) == pte);
    CHECK(t.walk(ADDR).entry == pte);
    CHECK(t.nr_tables() == u64(levels) - 1);
    CHECK(t.ensure(ADDR + PAGE_SIZE, PTE_LEVEL) == pte + 1);
    CHECK(t.nr_tables() == u64(levels) - 1);
    CHECK(t.ensure(ADDR + PMD_SIZE, PMD_LEVEL) == t.find(ADDR, PMD_LEVEL) + 1);
    CHECK((*t.find(ADDR, PMD_LEVEL) & ~PTE_PFN_MASK) == _PAGE_TABLE);
  }
}

TEST_CASE("ensure() stops at a leaf and at a bad entry, and walk() ends there") {
  Tables space;
  u64* pmd = space.tables.ensure(ADDR, PMD_LEVEL);
  for (u64 word : {0x80000000400000e7ull, 0x12345003ull}) {
    *pmd = word;
    CHECK(space.tables.ensure(ADDR, PTE_LEVEL) == nullptr);
    CHECK(space.tables.walk(ADDR).entry == pmd);
    CHECK(space.tables.walk(ADDR).level == PMD_LEVEL);
  }
}

TEST_CASE("a table entry that names no frame of ours leads nowhere") {
  Tables space;
  *space.tables.ensure(ADDR, PMD_LEVEL) = TABLE;
  CHECK(space.tables.find(ADDR, PTE_LEVEL) == nullptr);
  CHECK(space.tables.walk(ADDR).level == PMD_LEVEL);
}

TEST_CASE("the n-th allocation fails, once") {
  Tables space;
  space.tables.fail_alloc(2);
  CHECK(space.tables.ensure(ADDR, PTE_LEVEL) == nullptr);
  CHECK(space.tables.nr_tables() == 1);
  CHECK(space.tables.ensure(ADDR, PTE_LEVEL) != nullptr);
  space.tables.fail_alloc(1);
  space.tables.fail_alloc(0);
  CHECK(space.tables.ensure(ADDR + PUD_SIZE, PTE_LEVEL) != nullptr);
}

TEST_CASE("free_pgd_range: tables go that lie between floor and ceiling") {
  Tables space;
  PageTable& t = space.tables;
  for (u64 addr : {ADDR, ADDR + PMD_SIZE, ADDR + 2 * PMD_SIZE}) REQUIRE(t.ensure(addr, PTE_LEVEL));
  const u64 before = t.nr_tables();
  // A neighbour up to the middle of the first table keeps it.
  t.free_range(ADDR + PMD_SIZE / 2, ADDR + 2 * PMD_SIZE, ADDR + PMD_SIZE / 2, ADDR + 2 * PMD_SIZE);
  CHECK(t.nr_tables() == before - 1);
  CHECK(t.find(ADDR, PTE_LEVEL) != nullptr);
  CHECK(t.find(ADDR + PMD_SIZE, PTE_LEVEL) == nullptr);
  t.free_range(ADDR, ADDR + 3 * PMD_SIZE, 0, 1ull << 47);
  CHECK(t.nr_tables() == 0);
  CHECK(space.frames.in_use() == 1);  // the root
}

TEST_CASE("one PTE table goes, a deposited one comes, and free_all() leaves nothing") {
  Tables space;
  PageTable& t = space.tables;
  REQUIRE(t.ensure(ADDR, PTE_LEVEL));
  u64* pmd = t.writable(ADDR, PMD_LEVEL);
  t.free_pte_table(pmd);
  CHECK(*pmd == 0);
  CHECK(t.nr_tables() == 2);
  t.fail_alloc(1);
  const u64* deposited = t.deposit_table(pmd);  // made when the huge page was
  CHECK(deposited == t.find(ADDR, PTE_LEVEL));
  CHECK(t.nr_tables() == 3);
  t.free_all();
  CHECK(space.frames.in_use() == 0);
  CHECK(t.nr_tables() == 0);
}
