// Huge leaves: changed whole, split, dropped. Ids T and P are those of the named cases of the v2
// series' vectors.
#include "ptwalk/huge.hpp"

#include <doctest/doctest.h>

#include "walk_space.hpp"

using namespace ptwalk;

namespace {

constexpr u32 WP = MM_CP_UFFD_WP, RESOLVE = MM_CP_UFFD_WP_RESOLVE;
constexpr u64 THP = 0x80000000400008e7;

struct Whole {
  const char* id;
  const char* profile;
  VmaKind kind;
  u64 old;
  u32 cp_flags;
  u64 newprot;
  u64 now;
  u64 pages;
};

}  // namespace

TEST_CASE("a PMD leaf covered whole") {
  constexpr VmaKind anon = VmaKind::anon, shmem = VmaKind::shmem;
  const Whole rows[] = {
      {"T01", "uffd-wp-v2", anon, THP, WP, RO_NX, 0x8000000040000ce5, 512},
      {"T02", "uffd-wp-v2", anon, 0x8000000040000ce5, RESOLVE, RO_NX, 0x80000000400008e5, 512},
      {"T03", "uffd-wp-v2", anon, THP, 0, 0x120, 0x000fffffbfe009e0, 512},
      {"T04", "uffd-wp-v2", anon, THP, MM_CP_PROT_NUMA, 0x120, 0x000fffffbfe009e2, 512},
      {"T05", "uffd-wp-v2", anon, 0x000fffffbfe009e2, MM_CP_PROT_NUMA, 0x120, 0x000fffffbfe009e2,
       0},
      {"T06", "uffd-wp-v2", anon, 0xeffffffff7fffe02, WP, RO_NX, 0xe7fffffff7fffe02, 0},
      {"T11", "uffd-wp-v2", shmem, THP, RESOLVE, RW_NX, THP, 512},
      {"T12", "uffd-wp-v2", shmem, THP, 0, RO_NX, 0x80000000400008e5, 512},
      {"P01", "uffd-wp-v2-11", shmem, THP, WP, RO_NX, 0x8000000040000ce5, 512},
      {"D to SAVED_DIRTY", "6.18", anon, THP, WP, RO_NX, 0x8400000040000ca5, 512},
      {"zero page, NUMA", "uffd-wp-v2", anon, 0x80000000006000a5, MM_CP_PROT_NUMA, 0x120,
       0x80000000006000a5, 0},
  };
  for (const Whole& row : rows) {
    CAPTURE(row.id);
    WalkSpace space(row.profile, row.kind);
    space.put(BASE, PMD_LEVEL, row.old);
    const ProtectResult r = space.change(BASE, BASE + PMD_SIZE, row.newprot, row.cp_flags).value;
    CHECK(space.get(BASE, PMD_LEVEL) == row.now);
    CHECK(r.pages == row.pages);
    CHECK(r.huge == row.pages / 512);
    CHECK(r.numa_huge_pte_updates == row.pages / 512);
    CHECK(r.thp_split_pmd == 0);
    const bool flushed_at_once = row.profile != std::string_view("6.18") && row.pages;
    CHECK(r.pmd_flush.size() == (flushed_at_once ? 1 : 0));
    CHECK(r.flush == (row.pages ? Range{BASE, BASE + PMD_SIZE} : Range{}));
  }
}

TEST_CASE("migration PMDs: which kernels arm them") {
  for (const auto& [name, armed] :
       {std::pair{"uffd-wp-v2", false}, {"6.1", true}, {"6.18", true}}) {
    CAPTURE(name);
    const Profile& profile = *find_profile(name);
    WalkSpace space(name, VmaKind::anon);
    const u64 writable = make_swp_pte(unsigned(profile.swp_type_of(SwpKind::migration_write)), 512);
    space.put(BASE, PMD_LEVEL, writable);
    CHECK(space.change(BASE, BASE + PMD_SIZE, RO_NX, WP).value.pages == 0);
    const u64 now = space.get(BASE, PMD_LEVEL);
    CHECK(profile.swp_kind(now) != SwpKind::migration_write);
    CHECK(swp_offset(now) == 512);
    CHECK(((now & _PAGE_SWP_UFFD_WP) != 0) == armed);
  }
}

TEST_CASE("6.2 on: an exclusive anonymous huge page gets RW back at once") {
  for (const auto& [name, writable] : {std::pair{"6.1", false}, {"6.12", true}, {"6.18", true}}) {
    CAPTURE(name);
    WalkSpace space(name, VmaKind::anon);
    space.put(BASE, PMD_LEVEL, 0x80000000400008a5);
    space.machine->pages.at(0x40000).flags |= PG_anon;
    space.machine->pages.set_anon_exclusive(0x40000, true);
    (void)space.change(BASE, BASE + PMD_SIZE, RO_NX, MM_CP_TRY_CHANGE_WRITABLE);
    CHECK(((space.get(BASE, PMD_LEVEL) & _PAGE_RW) != 0) == writable);
  }
}

TEST_CASE("T07: a partial wr-protect splits an anonymous huge page") {
  WalkSpace space("uffd-wp-v2", VmaKind::anon);
  space.put(BASE, PMD_LEVEL, THP);
  const ProtectResult r = space.change(BASE, BASE + PAGE_SIZE, RO_NX, WP).value;
  CHECK(r.pages == 1);
  CHECK(r.thp_split_pmd == 1);
  CHECK(r.dirtied == 1);
  CHECK(r.tables_allocated == 0);  // the table was deposited with the huge page
  CHECK(r.pmd_flush == std::vector{BASE});
  REQUIRE(r.notifier.size() == 2);
  CHECK(r.notifier[1].kind == NotifierKind::clear);
  CHECK(r.notifier[1].end == BASE + PMD_SIZE);
  CHECK(space.get(BASE) == 0x8000000040000c25);
  CHECK(space.get(BASE + PAGE_SIZE) == 0x8000000040001827);
  CHECK(space.get(BASE + PMD_SIZE - PAGE_SIZE) == 0x80000000401ff827);
}

TEST_CASE("an anonymous split keeps D in its entries from 6.12 on, in SAVED_DIRTY without RW") {
  for (const auto& [name, first] : {std::pair{"6.1", 0x8000000040000425ull},
                                    {"6.12", 0x8400000040000c25ull},
                                    {"6.18", 0x8400000040000425ull}}) {
    CAPTURE(name);
    WalkSpace space(name, VmaKind::anon);
    space.put(BASE, PMD_LEVEL, 0x80000000400000e7);
    (void)space.change(BASE, BASE + PAGE_SIZE, RO_NX, WP);
    CHECK(space.get(BASE) == first);
  }
}

TEST_CASE("what is known of a huge page holds for each of its pages after a split") {
  WalkSpace space("6.18", VmaKind::anon);
  space.put(BASE, PMD_LEVEL, 0x80000000400000e7);
  Page& head = space.machine->pages.at(0x40000);
  head.flags |= PG_anon;
  space.machine->pages.set_anon_exclusive(0x40000, true);
  head.index = 0x7f0000000;
  (void)space.change(BASE, BASE + PAGE_SIZE, RO_NX, 0);
  const Page* tail = space.machine->pages.find(0x40003);
  REQUIRE(tail);
  CHECK(space.machine->pages.anon_exclusive(0x40003));
  CHECK(tail->dirty());
  CHECK(tail->index == 0x7f0000003);
  CHECK(tail->serial != head.serial);
}

TEST_CASE("a split huge zero page is 512 special entries; UFFD_WP is kept from 6.1 on") {
  for (const auto& [name, second] : {std::pair{"uffd-wp-v2", 0x8000000001a2b225ull},
                                     {"6.1", 0x8000000001a2b625ull},
                                     {"6.18", 0x8000000001a2b625ull}}) {
    CAPTURE(name);
    WalkSpace space(name, VmaKind::anon);
    space.put(BASE, PMD_LEVEL, (HUGE_ZERO_PFN << PAGE_SHIFT) | 0x80000000000004a5);
    const ProtectResult r = space.change(BASE, BASE + PAGE_SIZE, RO_NX, RESOLVE).value;
    CHECK(r.pages == 1);
    CHECK(space.get(BASE) == 0x8000000001a2b225);
    CHECK(space.get(BASE + PAGE_SIZE) == second);
  }
}

TEST_CASE("a split migration PMD is 512 migration entries of its kind") {
  const Profile& profile = *find_profile("6.18");
  WalkSpace space("6.18", VmaKind::anon);
  const unsigned type = unsigned(profile.swp_type_of(SwpKind::migration_read_exclusive));
  space.put(BASE, PMD_LEVEL, make_swp_pte(type, 0x40000) | _PAGE_SWP_UFFD_WP);
  const ProtectResult r = space.change(BASE, BASE + PAGE_SIZE, RO_NX, RESOLVE).value;
  CHECK(r.swap == 1);
  CHECK(r.pmd_flush.empty());
  CHECK(space.get(BASE) == make_swp_pte(type, 0x40000));
  CHECK(space.get(BASE + 5 * PAGE_SIZE) == (make_swp_pte(type, 0x40005) | _PAGE_SWP_UFFD_WP));
}

TEST_CASE("T08: a wr-protected file huge page is dropped and becomes markers") {
  for (const auto& [name, marker] :
       {std::pair{"uffd-wp-v2", 0x4ull}, {"6.18", 0xfffffffffffffc00ull}}) {
    CAPTURE(name);
    WalkSpace space(name);
    space.put(BASE, PMD_LEVEL, THP);
    const ProtectResult r = space.change(BASE, BASE + PMD_SIZE, RO_NX, WP).value;
    CHECK(r.pages == 512);
    CHECK(r.none_to_marker == 512);
    CHECK(r.huge == 0);
    CHECK(r.numa_huge_pte_updates == 0);
    CHECK(r.thp_split_pmd == 1);
    CHECK(r.rss_file == -512);
    CHECK(r.dirtied == 1);
    CHECK(r.referenced == 1);
    CHECK(r.tables_allocated == 1);
    CHECK(space.get(BASE) == marker);
    CHECK(space.get(BASE + PMD_SIZE - PAGE_SIZE) == marker);
  }
}

TEST_CASE("T09, T10: a partial change drops a file huge page whole") {
  WalkSpace armed("uffd-wp-v2"), resolved("uffd-wp-v2");
  for (WalkSpace* space : {&armed, &resolved}) space->put(BASE, PMD_LEVEL, THP);
  CHECK(armed.change(BASE + 0x1000, BASE + 0x2000, RO_NX, WP).value.pages == 1);
  CHECK(armed.get(BASE) == 0);
  CHECK(armed.get(BASE + 0x1000) == 4);
  const ProtectResult r = resolved.change(BASE + 0x1000, BASE + 0x2000, RW_NX, RESOLVE).value;
  CHECK(r.pages == 0);
  CHECK(r.flush.empty());
  CHECK(resolved.get(BASE, PMD_LEVEL) == 0);
}

TEST_CASE("P02: at patch 11 alone nothing makes the table again") {
  WalkSpace space("uffd-wp-v2-11");
  space.put(BASE, PMD_LEVEL, THP);
  const ProtectResult r = space.change(BASE + 0x1000, BASE + 0x2000, RO_NX, WP).value;
  CHECK(r.pages == 0);
  CHECK(r.tables_allocated == 0);
  CHECK(r.none_skipped == 1);
  CHECK(space.get(BASE, PMD_LEVEL) == 0);
}

TEST_CASE("D and A go to a file page that did not have them, and one mapping goes") {
  WalkSpace space("6.18");
  space.put(BASE, PMD_LEVEL, THP);
  Page& page = space.machine->pages.at(0x40000);
  page.flags |= PG_dirty;
  page.file = space.machine->create_file(FileKind::shmem, PMD_SIZE);
  page.mapcount = 2;
  const ProtectResult r = space.change(BASE, BASE + PMD_SIZE, RO_NX, WP).value;
  CHECK(r.dirtied == 0);
  CHECK(r.referenced == 1);
  const Page* after = space.machine->pages.find(0x40000);
  REQUIRE(after);
  CHECK(after->mapcount == 1);
  CHECK((after->flags & PG_referenced) != 0);
}

TEST_CASE("a DAX huge page has no account while it is DEVMAP") {
  WalkSpace space("uffd-wp-v2", VmaKind::dax);
  space.put(BASE, PMD_LEVEL, THP | (1ull << 58));
  const ProtectResult r = space.change(BASE, BASE + PAGE_SIZE, RO_NX, 0).value;
  CHECK(r.thp_split_pmd == 1);
  CHECK(r.rss_file == 0);
  CHECK(r.dirtied == 0);
  CHECK(space.get(BASE, PMD_LEVEL) == 0);
}

TEST_CASE("PUD leaves: changed whole, left by NUMA and uffd, dropped where covered in part") {
  constexpr u64 leaf = 0x80000000400000e7;
  WalkSpace space("6.18", VmaKind::dax);
  space.put(BASE, PUD_LEVEL, leaf);
  const u64 end = BASE + PUD_SIZE;
  CHECK(space.change(BASE, end, PAGE_NONE, MM_CP_PROT_NUMA).value.pages == 0);
  CHECK(space.change(BASE, end, RW_NX, RESOLVE).value.pages == 0);
  CHECK(space.get(BASE, PUD_LEVEL) == leaf);
  ProtectResult r = space.change(BASE, end, PAGE_NONE, 0).value;
  CHECK(r.pages == 262144);
  CHECK(r.huge == 1);
  CHECK(r.flush == Range{BASE, end});
  CHECK(space.get(BASE, PUD_LEVEL) == 0x040fffff800001a0);  // inverted above bit 30, D saved
  r = space.change(BASE, end, RW_NX, 0).value;
  CHECK(space.get(BASE, PUD_LEVEL) == leaf);

  r = space.change(BASE, BASE + PMD_SIZE, RO_NX, 0).value;
  CHECK(r.pages == 0);
  CHECK(r.rss_file == -262144);
  CHECK(space.get(BASE, PUD_LEVEL) == 0);

  WalkSpace armed("6.18", VmaKind::dax);
  armed.put(BASE, PUD_LEVEL, leaf);
  CHECK(armed.change(BASE, BASE + PMD_SIZE, RO_NX, WP).value.none_to_marker == 512);
}
