// Facts of a table: what is plain, what they say, and that nothing that stores leaves a lie behind.
#include "ptwalk/leaf_facts.hpp"

#include <doctest/doctest.h>

#include <vector>

#include "ptwalk/kernels.hpp"
#include "ptwalk/userfaultfd.hpp"
#include "space.hpp"

using namespace ptwalk;

namespace {

constexpr u64 MARKER = 0xfffffffffffffc00;  ///< the usual one of 6.18

std::vector<u64> a_table() {
  std::vector<u64> words(PTRS_PER_TABLE);
  words[3] = pfn_pte(0x1234, RW_NX);
  words[4] = pfn_pte(0x1277, RO_NX);
  words[5] = MARKER;
  words[6] = make_swp_pte(0, 77);
  words[7] = make_swp_pte(1, 78) | _PAGE_SWP_UFFD_WP;
  return words;
}

const PagePool pages_of_nobody;

LeafFacts facts_at(const Space& space, u64 addr) {
  const FrameArena& frames = space.machine->frames;
  return frames.info(frames.pfn_of(space.mm->tables.find(addr, PTE_LEVEL))).facts;
}

}  // namespace

TEST_CASE("facts are counts of plain words") {
  const LeafFacts facts = leaf_facts(a_table(), MARKER, pages_of_nobody);
  CHECK(facts.known);
  CHECK(facts.present == 2);
  CHECK(facts.none == 507);
  CHECK(facts.marker == 1);
  CHECK(facts.armed == 1);
  CHECK(facts.blocks == 1);
  for (u64 rare : {u64(_PAGE_PROTNONE), u64(_PAGE_ACCESSED), make_swp_pte(30, 5), MARKER ^ 0x1000,
                   u64(4), pfn_pte(7, PAGE_NONE)}) {
    CAPTURE(rare);
    std::vector<u64> words = a_table();
    words[100] = rare;
    CHECK_FALSE(leaf_facts(words, MARKER, pages_of_nobody).known);
  }
  CHECK_FALSE(
      leaf_facts(a_table(), 0, pages_of_nobody).known);  // without markers it is a negative word
}

TEST_CASE("facts that do not hold are told from those that do") {
  const std::vector<u64> words = a_table();
  LeafFacts facts = leaf_facts(words, MARKER, pages_of_nobody);
  facts.set_blocks(0x12, 0x12);
  CHECK(facts.first_frame() == 0x1200);
  CHECK(facts_hold(facts, words, MARKER, pages_of_nobody));
  for (u16 LeafFacts::* count :
       {&LeafFacts::present, &LeafFacts::none, &LeafFacts::marker, &LeafFacts::armed}) {
    LeafFacts wrong = facts;
    ++(wrong.*count);
    CHECK_FALSE(facts_hold(wrong, words, MARKER, pages_of_nobody));
  }
  LeafFacts elsewhere = facts;
  elsewhere.set_blocks(0x13, 0x20);
  CHECK_FALSE(facts_hold(elsewhere, words, MARKER, pages_of_nobody));
  std::vector<u64> special = words;
  special[3] |= _PAGE_SPECIAL;
  CHECK_FALSE(facts_hold(facts, special, MARKER, pages_of_nobody));
  CHECK(facts_hold(LeafFacts{}, special, MARKER, pages_of_nobody));
  facts.set_blocks(0, LeafFacts::MOST_BLOCKS);
  CHECK(facts.blocks == 0);  // too far apart
}

TEST_CASE("words are alike if only their frames differ") {
  std::vector<u64> words(PTRS_PER_TABLE);
  for (u64 i = 0; i < words.size(); ++i) words[i] = pfn_pte(0x5000 + i * 3 % 7, RW_NX);
  const LeafFacts facts = leaf_facts(words, MARKER, pages_of_nobody);
  CHECK(facts.alike);
  words[99] ^= _PAGE_ACCESSED;
  CHECK_FALSE(leaf_facts(words, MARKER, pages_of_nobody).alike);
  CHECK_FALSE(facts_hold(facts, words, MARKER, pages_of_nobody));
  words[99] = 0;
  CHECK_FALSE(leaf_facts(words, MARKER, pages_of_nobody).alike);
}

TEST_CASE("that all pages are exclusive is known until one near them no longer is") {
  PagePool pool;
  std::vector<u64> words(PTRS_PER_TABLE);
  for (u64 i = 0; i < words.size(); i += 2) {  // nobody's frames between them
    pool.at(0x5000 + i).flags |= PG_anon;
    pool.set_anon_exclusive(0x5000 + i, true);
    words[i] = pfn_pte(0x5000 + i, RW_NX);
  }
  LeafFacts facts = leaf_facts(words, MARKER, pool);
  CHECK(facts.all_exclusive(pool));
  pool.at(0x5001).flags |= PG_anon;
  pool.set_anon_exclusive(0x5001, true);
  CHECK(facts.all_exclusive(pool));
  pool.set_anon_exclusive(0x5001, false);
  CHECK_FALSE(facts.all_exclusive(pool));  // it could have been one of them
  facts.set_all_exclusive(pool);
  CHECK(facts_hold(facts, words, MARKER, pool));
  pool.set_anon_exclusive(0x5004, false);
  facts.set_all_exclusive(pool);
  CHECK_FALSE(facts_hold(facts, words, MARKER, pool));
  CHECK_FALSE(leaf_facts(words, MARKER, pool).all_exclusive(pool));
}

TEST_CASE("a request leaves facts, and whatever stores takes them away") {
  if (active_kernel().name == "scalar") return;  // which keeps none
  Space s("6.18");
  const u64 start = s.anon(512);
  for (u64 i = 0; i < 40; ++i) s.write(start + pages(i));
  const UffdId uffd = s.watch(start, 512, MODE_WP);
  const auto request = [&] {
    s.protect(uffd, start, 512);
    s.resolve(uffd, start, 512);
  };
  const auto known = [&] {
    for (const std::string& broken : s.mm->validate()) FAIL_CHECK(broken);
    return facts_at(s, start).known;
  };
  request();
  REQUIRE(known());
  CHECK(facts_at(s, start).present == 40);
  CHECK(facts_at(s, start).none == 472);
  CHECK(facts_at(s, start).blocks == 1);

  const auto kept = s.machine->checkpoint();
  const auto taken_by = [&](const char* what, auto&& store) {
    CAPTURE(what);
    request();
    REQUIRE(known());
    store();
    CHECK_FALSE(known());
    REQUIRE(s.machine->restore(*kept).cause == Cause::none);
  };
  taken_by("a fault", [&] { s.write(start + pages(60)); });
  taken_by("a request on a part", [&] { s.protect(uffd, start, 3); });
  taken_by("a raw store", [&] {
    const u64 word[] = {pfn_pte(5, PAGE_NONE)};
    REQUIRE(s.mm->set_ptes(start + pages(9), word).cause == Cause::none);
  });
  taken_by("reclaim", [&] { s.reclaim(start + pages(7)); });
  taken_by("migration", [&] { s.migrate(start + pages(8), [] {}); });
  taken_by("a zap",
           [&] { REQUIRE(s.mm->munmap(start + pages(30), pages(3)).cause == Cause::none); });
  taken_by("fork", [&] { REQUIRE(s.mm->fork().ok()); });
  taken_by("mremap", [&] {
    REQUIRE(s.mm->mremap(start + pages(5), pages(2), pages(2), MREMAP_MAYMOVE_ | MREMAP_FIXED_,
                         start + pages(2048))
                .ok());
  });
  taken_by("restore", [&] {
    s.protect(uffd, start, 512);  // facts of words that are undone
    REQUIRE(s.machine->restore(*kept).cause == Cause::none);
  });
}

TEST_CASE("validate() notices facts that do not hold") {
  Space s("6.18");
  const u64 addr = s.anon(1);
  s.write(addr);
  FrameArena& frames = s.machine->frames;
  LeafFacts& facts = frames.info(frames.pfn_of(s.mm->tables.find(addr, PTE_LEVEL))).facts;
  facts = {.known = true, .present = 2, .none = 510};
  REQUIRE(s.mm->validate().size() == 1);
  CHECK(s.mm->validate()[0].find("is not what its facts say") != std::string::npos);
  facts = {.known = true, .present = 1, .none = 511};
  CHECK(s.mm->validate().empty());
}
