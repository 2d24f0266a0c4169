// Reading tables: entries, levels, walks, translation and counts, over small and huge pages and
// holes.
#include <algorithm>
#include <array>

#include "space.hpp"

using namespace ptwalk;

namespace {

constexpr u64 THP = 0x80000000400000e7;

/// Two pages below a PTE table, then a huge page, then nothing.
struct Mixed : Space {
  Mixed() {
    addr = anon(2048);
    write(addr);
    read(addr + pages(1));
    REQUIRE(mm->tables.ensure(addr + PMD_SIZE, PMD_LEVEL));
    REQUIRE(mm->set_entry(addr + PMD_SIZE, PMD_LEVEL, THP).ok());
  }
  u64 addr = 0;
};

}  // namespace

TEST_CASE("ptes(): a leaf reads as the entry of each page, an absent table as none") {
  Mixed s;
  std::vector<u64> words(1030, 7);
  s.mm->ptes(s.addr - pages(2), words);
  CHECK(words[0] == 0);
  CHECK(words[2] == s.pte(s.addr));
  CHECK(words[3] == s.pte(s.addr + pages(1)));
  CHECK(words[4] == 0);
  CHECK(words[514] == THP);
  CHECK(words[1025] == THP);
  CHECK(words[1026] == 0);
}

TEST_CASE("ptes(): a large export is what small ones come to, wherever it starts and goes") {
  constexpr u64 NR = 1 << 19;
  Space s;
  const u64 start = s.shmem(NR + 1024);
  for (u64 page = 0; page < NR; page += 700) s.write(start + pages(page));
  for (const u64 skip : {0, 3}) {
    std::vector<u64> words(NR + 1, 7), few(100);
    for (const u64 shift : {0, 1}) {  // words that are aligned, and that are not
      const std::span<u64> large = std::span(words).subspan(shift, NR);
      s.mm->ptes(start + pages(skip), large);
      for (u64 page = 0; page + few.size() <= NR; page += few.size()) {
        s.mm->ptes(start + pages(skip + page), few);
        REQUIRE(std::ranges::equal(few, large.subspan(page, few.size())));
      }
    }
  }
}

TEST_CASE("levels(): where the walk of each page ends") {
  Mixed s;
  std::vector<u8> ends(1026);
  s.mm->levels(s.addr - pages(1), ends);
  CHECK(ends[0] == P4D_LEVEL);  // nothing below the top there
  CHECK(ends[1] == PTE_LEVEL);
  CHECK(ends[512] == PTE_LEVEL);
  CHECK(ends[513] == PMD_LEVEL);
  CHECK(ends[1025] == PMD_LEVEL);
}

TEST_CASE("walk(): one step per level, from the top") {
  Mixed s;
  const auto steps = s.mm->walk(s.addr + pages(1));
  REQUIRE(steps.size() == 4);
  CHECK(steps[0].level == 4);
  CHECK(steps[0].index == level_index(s.addr, 4));
  CHECK(steps[0].entry == s.mm->tables.root_table()[steps[0].index]);
  CHECK(steps[3].level == PTE_LEVEL);
  CHECK(steps[3].index == 1);
  CHECK(steps[3].entry == s.pte(s.addr + pages(1)));
  CHECK(s.mm->walk(s.addr + PMD_SIZE).size() == 3);
  CHECK(s.mm->walk(s.addr + PMD_SIZE).back().entry == THP);
  CHECK(s.mm->walk(0x10000).size() == 1);
}

TEST_CASE("translate(): physical addresses, PROT_NONE and huge pages too") {
  Mixed s;
  s.reclaim(s.addr);
  const u64 addrs[] = {s.addr + 0x123, s.addr + pages(1) + 5, s.addr + PMD_SIZE + 0x12345,
                       s.addr + 2 * PMD_SIZE, 1ull << 60};
  std::array<u64, 5> out{};
  s.mm->translate(addrs, out);
  CHECK(out[0] == ~0ull);  // swapped out
  CHECK(out[1] == (ZERO_PFN << PAGE_SHIFT) + 5);
  CHECK(out[2] == 0x40012345);
  CHECK(out[3] == ~0ull);
  CHECK(out[4] == ~0ull);
  s.write(s.addr);
  REQUIRE(s.mm->mprotect(s.addr, pages(1), 0).ok());
  s.mm->translate(addrs, out);
  CHECK(out[0] == (pte_pfn(s.pte(s.addr)) << PAGE_SHIFT) + 0x123);
}

TEST_CASE("count(): pages of a range by kind") {
  Profile all = *find_profile("6.18");
  REQUIRE(set_config(all, "MEMORY_FAILURE", true));
  REQUIRE(set_config(all, "DEVICE_PRIVATE", true));
  Space s(all);
  const u64 addr = s.anon(1024);
  const auto special = [&](SwpKind kind) {
    return make_swp_pte(unsigned(all.swp_type_of(kind)), 5);
  };
  const u64 words[] = {0,
                       0x60,
                       0x8000000012345067,
                       0x000fffffedcba960,
                       make_swp_pte(1, 0x99),
                       WP_MARKER,
                       GUARD_MARKER,
                       special(SwpKind::migration_read_exclusive),
                       special(SwpKind::device_private_read),
                       special(SwpKind::hwpoison)};
  REQUIRE(s.mm->set_ptes(addr, words).ok());
  REQUIRE(s.mm->tables.ensure(addr + PMD_SIZE, PMD_LEVEL));
  REQUIRE(s.mm->set_entry(addr + PMD_SIZE, PMD_LEVEL, THP).ok());
  const EntryCounts counts = s.mm->count(addr, pages(1024));
  CHECK(counts.none == 504);
  CHECK(counts.present == 2);
  CHECK(counts.swap == 1);
  CHECK(counts.marker == 2);
  CHECK(counts.migration == 1);
  CHECK(counts.device == 1);
  CHECK(counts.hwpoison == 1);
  CHECK(counts.huge == 512);
  CHECK(s.mm->count(addr - pages(3), pages(4)).none == 4);
  REQUIRE(s.mm->set_entry(addr + PMD_SIZE, PMD_LEVEL, special(SwpKind::migration_read)).ok());
  CHECK(s.mm->count(addr + PMD_SIZE, pages(512)).migration == 512);
}
